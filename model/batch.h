// Many texts at once: each sequence of a session works on one text, and where a text ends the next takes its place at once. What a text says
// does not depend on those beside it: prompts go through alone, decoding does not mix rows (session.h), and random numbers belong to the
// text's own number.
#pragma once
#include "model/sampler.h"

struct Tokenizer;

struct BatchText {
    const uint32_t *prompt;
    uint32_t n_prompt;
    uint32_t limit; // tokens to generate at most
    // The first `shared` tokens (fewer than n_prompt) are those of all texts of this group that share as many: a sequence that has just had
    // such a text keeps them. They are read in a pass of their own, so that an answer does not depend on whether they were there.
    uint32_t shared, group;
};

struct BatchToken {
    uint32_t text, row; // which text; row of the session's logits
    uint32_t id, index; // index: tokens of this text before it
    float logprob;
};

// Why a text is over: the hook said so; its limit; the context is full; nothing can follow in the grammar.
enum BatchEnd { BATCH_STOPPED, BATCH_LIMIT, BATCH_CONTEXT, BATCH_GRAMMAR };
struct BatchHooks {
    void *context;
    bool (*token)(void *context, const struct BatchToken *token);   // false: the text is over
    bool (*ended)(void *context, uint32_t text, enum BatchEnd why); // false: stop all
};

// Text i draws from the random numbers of stream set->params.stream + i. m NULL: no grammar. False: a hook or the device failed.
bool batch_run(struct Session *s, const struct Tokenizer *t, const struct BatchText *texts, uint32_t n,
               const struct SamplerSettings *set, struct Matching *m, const struct BatchHooks *hooks);
