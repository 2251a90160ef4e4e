// Inference on a loaded model: keys and values of up to 32 sequences stay on the device, prompts go through in chunks, and every further
// token of all sequences is one replay of a recorded program. A sequence's answer does not depend on what runs beside it: prompts go
// through alone, and decoding uses operations whose result for a row is independent of the other rows. More rows than those operations
// take go through in groups, which read the weights anew.
#pragma once
#include "model/layers.h"

enum { SESSION_MAX_SEQUENCES = 32, SESSION_GROUP = FEW_ROWS, SESSION_MAX_PREFILLS = 24, SESSION_MAX_BIAS = 64 };

struct SessionOptions {
    uint32_t n_sequences;  // 1 .. SESSION_MAX_SEQUENCES
    uint32_t context;      // tokens that a sequence can hold; at most the model's max_positions
    uint32_t chunk;        // most tokens of a prompt in one program; 0: 512, or 2048 on GPUs of 16 GiB or more
    bool scoring;          // session_score will be called: count its memory in a dry run
    bool biased;           // session_bias will be called
    bool masked, chances;  // session_mask, session_chance will be called
    enum DType cache_type; // of keys and values: f32, f16, bf16 or q8_0
    uint32_t window;       // most entries of session_penalise; 0: it will not be called
    bool ahead;            // session_decode may begin the pass that follows; session_logits will not be called after it
};
// What is taken from the logits of tokens seen before: a positive one is divided by `repeat`, a negative one multiplied; then `presence` is
// taken off, and `frequency` for each time it was seen.
struct Penalty {
    float repeat, presence, frequency;
};

enum PrefillKind { PREFILL_FILL, PREFILL_NEXT, PREFILL_SCORE }; // cache only; one token sampled; every token scored
struct Prefill {
    uint32_t tokens;
    enum PrefillKind kind;
    struct Program *program;
};

// What the next session_decode is called with if it goes on from the last one. `begun`: its pass is on the device already, with these.
struct SessionNext {
    uint32_t n; // 0: nothing is expected
    bool begun;
    uint32_t sequences[SESSION_MAX_SEQUENCES], ids[SESSION_MAX_SEQUENCES], lengths[SESSION_MAX_SEQUENCES];
    struct SampleParams params[SESSION_MAX_SEQUENCES];
};

struct Session {
    struct Model *m;
    uint32_t n_sequences, context, chunk;
    enum DType cache_type;
    uint32_t length[SESSION_MAX_SEQUENCES]; // tokens in each sequence's cache
    struct Arena cache, scratch, host;
    struct Tensor *cache_k, *cache_v; // per layer (n_sequences * context, n_kv_heads * head_dim), cache_type
    struct Tensor ids, positions, span, cache_rows;    // of the tokens that go in, host memory
    struct Tensor last_row;                            // (1) u32: row whose logits are wanted
    struct Tensor params, next_ids, next_logprobs;     // sampling, host memory
    struct Tensor bias;                                // (1 + 2 * SESSION_MAX_BIAS) u32, host memory; see op_logit_bias
    struct Tensor targets, losses;                     // scoring, host memory
    struct Tensor mask, penalties, chances;            // (n_sequences, ...), host memory; see the functions
    struct Tensor logits;                              // (n_sequences, vocab_size) f32
    struct Tensor shaped;                              // as logits: what is drawn from, where that is something else
    struct Tensor chosen;                              // experts of the last pass, host memory
    uint32_t chosen_tokens, chosen_group;              // tokens of the last pass, and of a group; 0: all are one
    struct Program *decode[SESSION_MAX_SEQUENCES + 1]; // by number of sequences
    bool ahead; // passes are begun before they are asked for: not on a processor, nor with
                // experts that the host brings
    struct SessionNext next;
    struct Tensor drawn, drawn_chosen;                 // of the pass before the one that was begun, host memory
    struct Program *follow[SESSION_MAX_SEQUENCES + 1]; // goes between the two
    struct Prefill prefill[SESSION_MAX_PREFILLS];
    uint32_t n_prefills;
};

// Takes the memory. On a dry device: records the largest programs, so that the device's peak_bytes is what a run would need.
bool session_init(struct Session *s, struct Model *m, const struct SessionOptions *o);
void session_free(struct Session *s);

// Puts n tokens behind those of a sequence. Where `params` is given, samples the token that follows into *next (and its log-probability
// under the unmodified distribution into *logprob; both may be NULL).
bool session_prefill(struct Session *s, uint32_t sequence, const uint32_t *ids, uint32_t n,
                     const struct SampleParams *params, uint32_t *next, float *logprob);
// One token for each of n different sequences: puts ids[i] behind sequence sequences[i] and samples what follows into next[i]. Where a call
// goes on from the last (the same sequences, the ids that were drawn, params with the next index), the one after it may be begun on the
// device at once (SessionOptions.ahead): if that is asked for next it is there already, else it is dropped, and nothing shows it but time.
bool session_decode(struct Session *s, uint32_t n, const uint32_t *sequences, const uint32_t *ids,
                    const struct SampleParams *params, uint32_t *next, float *logprobs);
// From now on adds bias[i] to the logit of token ids[i], for all sequences, before anything is sampled; log-probabilities are then those of
// the changed distribution. Different tokens, at most SESSION_MAX_BIAS; the session was made with `biased`. SESSION_FORBID keeps a token out.
#define SESSION_FORBID (-1e30f)
bool session_bias(struct Session *s, uint32_t n, const uint32_t *ids, const float *bias);
// What the token of row i of the next pass that samples (of session_prefill: row 0) is drawn from, where the session was made for it. These
// stay until they are set anew, and leave log-probabilities and session_logits as the model has them.
// At most `window` different tokens with the number of times that they were seen.
void session_penalise(struct Session *s, uint32_t row, const struct Penalty *penalty, uint32_t n, const uint32_t *ids,
                      const uint32_t *counts);
// A bit for each token of the vocabulary, lowest bit of a word first, to be written: only those set are drawn. At first all are. NULL when
// the device is lost.
uint32_t *session_mask(struct Session *s, uint32_t row);
// Log of the probability with which the token of row i of the last pass was drawn, after all filters.
float session_chance(struct Session *s, uint32_t row);
// Forgets the recorded programs: the model has changed (an adapter came, went, or has another scale). They are recorded again when needed.
bool session_record_again(struct Session *s);
// Forgets what lies behind the first `length` tokens of a sequence.
void session_rewind(struct Session *s, uint32_t sequence, uint32_t length);
// Log-probabilities of ids[1 .. n) given what stands before them, as one sequence of at most `context` tokens: logprobs[0] is NAN. Uses
// sequence 0 and leaves the tokens in its cache.
bool session_score(struct Session *s, const uint32_t *ids, uint32_t n, float *logprobs);
// The same behind the tokens that sequence 0 holds, and without the last of ids, which is scored but not put into the cache: what several
// continuations have in common is read once. n is 2 at least.
bool session_score_behind(struct Session *s, const uint32_t *ids, uint32_t n, float *logprobs);

// Runs a short prompt and a decode step, so that the driver has compiled what it compiles on first use. Sequences must be empty.
bool session_warm_up(struct Session *s);
// Logits of row i of the last prefill (row 0) or decode that sampled; vocab_size values.
bool session_logits(struct Session *s, uint32_t row, float *logits);
// Expert choices of the last pass: n_active experts for token `token` of layer `layer`; NULL for a dense layer.
const uint32_t *session_experts(struct Session *s, uint32_t layer, uint32_t token);
// Bytes of keys and values per token of context.
uint64_t session_cache_bytes(const struct Config *c, enum DType cache_type);
