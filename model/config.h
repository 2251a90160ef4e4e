// The architecture of a model, as Hugging Face's config.json or GGUF's metadata state it. Every switch that is read here is honoured;
// every one that would change the result and is not known is refused by name.
#pragma once
#include "runtime/base.h"

enum Arch { ARCH_LLAMA, ARCH_DEEPSEEK, ARCH_QWEN2, ARCH_QWEN2MOE, ARCH_OLMOE, ARCH_MISTRAL, ARCH_COUNT };
struct ArchInfo {
    const char *model_type, *class_name; // in config.json
    const char *gguf;                    // general.architecture
    bool has_experts;
    bool gguf_pairs; // GGUF keeps rows of q and k as pairs (2i, 2i+1) of a head; else on halves as Hugging Face does
};
extern const struct ArchInfo ARCHS[ARCH_COUNT];

// What is accepted at most.
enum {
    CONFIG_MAX_VOCAB = 1 << 22,
    CONFIG_MAX_WIDTH = 1 << 20,
    CONFIG_MAX_LAYERS = 1024,
    CONFIG_MAX_EXPERTS = 256,
    CONFIG_MAX_CONTEXT = 1 << 24,
    CONFIG_MAX_HEAD_DIM = 256
};

// How the frequencies of rope are stretched to a longer context; rope.h has the formulas.
enum RopeKind { ROPE_PLAIN, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LLAMA3, ROPE_DIVISORS };
struct Rope {
    enum RopeKind kind;
    float factor;
    uint32_t original_context;               // yarn, llama3: original_max_position_embeddings
    float attention_factor;                  // yarn: cosines and sines are multiplied by it
    float beta_fast, beta_slow;              // yarn
    bool truncate;                           // yarn: the corrected range is rounded to whole dimensions
    float low_freq_factor, high_freq_factor; // llama3
    float divisor[CONFIG_MAX_HEAD_DIM / 2]; // divisors: what a GGUF's rope_freqs.weight holds, where it is not llama3's
};

// How transformers draws tokens where its caller does not say (generation_config.json): kept for writing, nothing here asks. NAN: not said.
struct Sampling {
    float do_sample; // 0 or 1
    float temperature, top_k, top_p, min_p, repetition_penalty;
};

struct Config {
    enum Arch arch;
    uint32_t vocab_size;  // rows of the embedding
    uint32_t dim;         // hidden_size; multiple of 8
    uint32_t n_layers;    // num_hidden_layers
    uint32_t n_heads;     // num_attention_heads
    uint32_t n_kv_heads;  // num_key_value_heads; divides n_heads
    uint32_t head_dim;    // multiple of 8, at most 256
    uint32_t hidden;      // intermediate_size: width of a dense FFN; multiple of 8
    uint32_t max_context; // max_position_embeddings
    float norm_eps;       // rms_norm_eps
    float rope_base;      // rope_theta
    struct Rope rope;     // rope_scaling, rope_parameters
    bool tied_head;       // tie_word_embeddings
    bool qkv_bias;        // attention_bias, Qwen2's own, qkv_bias
    bool o_bias;          // attention_bias
    bool mlp_bias;        // gate, up and down of dense layers
    bool qk_norm;         // OLMoE: RMSNorm over all heads of q and of k, before rope
    // Mixture of experts; n_experts 0: dense throughout.
    uint32_t n_experts;                      // n_routed_experts, at most 256
    uint32_t n_active;                       // num_experts_per_tok: routed experts a token passes
    uint32_t n_shared;                       // n_shared_experts, 0: none; they are one FFN of n_shared * moe_hidden
    uint32_t moe_hidden;                     // moe_intermediate_size: width of one expert; multiple of 8
    uint32_t shared_hidden;                  // shared_expert_intermediate_size; 0: n_shared * moe_hidden
    bool shared_gate;                        // Qwen2-MoE: the shared expert's output is multiplied by sigmoid(x w)
    uint32_t first_dense;                    // first_k_dense_replace: so many first layers are dense
    uint32_t moe_period;                     // moe_layer_freq, decoder_sparse_step
    uint32_t moe_phase;                      // layer l >= first_dense is MoE when (l + moe_phase) % moe_period == 0 ...
    uint8_t mlp_only[CONFIG_MAX_LAYERS / 8]; // ... and its bit is not set here: mlp_only_layers
    bool norm_topk;                          // norm_topk_prob: the chosen weights are divided by their sum (+ 1e-20)
    float routed_scale; // routed_scaling_factor, applied to the weights when norm_topk is false, as published
    float aux_alpha;    // aux_loss_alpha: coefficient of the balance loss
    bool seq_aux;       // balance loss per sequence (document) rather than per batch
    float router_aux; // router_aux_loss_coef: kept for writing; transformers applies it with output_router_logits alone
    float init_std;   // initializer_range
    // Tokens. UINT32_MAX: none.
    uint32_t bos_id;
    uint32_t eos_id[4];
    uint32_t n_eos;
    uint32_t pad_id;
    struct Sampling sampling;
};

static inline bool config_is_moe(const struct Config *c, uint32_t layer) {
    return c->n_experts > 0 && layer >= c->first_dense && (layer + c->moe_phase) % c->moe_period == 0 &&
           !(c->mlp_only[layer / 8] >> layer % 8 & 1);
}
static inline uint32_t config_moe_layers(const struct Config *c) {
    uint32_t n = 0;
    for (uint32_t l = 0; l < c->n_layers; l++)
        n += config_is_moe(c, l);
    return n;
}
// Width of the shared experts as one FFN; 0: none.
static inline uint32_t config_shared_width(const struct Config *c) {
    return c->shared_hidden ? c->shared_hidden : c->n_shared * c->moe_hidden;
}
// general.architecture that a model is written as: what computes the same there.
static inline const char *config_gguf_arch(const struct Config *c) {
    return ARCHS[c->arch].has_experts && c->n_experts == 0 ? ARCHS[ARCH_LLAMA].gguf : ARCHS[c->arch].gguf;
}
// What config.json and GGUF take for granted where a key is absent.
struct Config config_defaults(void);
// Checks ranges and divisibility; `where` names the file in the message.
bool config_check(const struct Config *c, const char *where);
bool config_check_tokens(const struct Config *c,
                         const char *where); // what config_check asks of a vocabulary's ids alone
// From the text of a config.json.
bool config_from_json(struct Config *c, const char *text, size_t bytes, const char *where);
// A malloc'ed config.json that transformers loads (architectures, model_type, auto_map apart).
char *config_to_json(const struct Config *c, const char *torch_dtype);
// Whether the architecture's config.json can say all that the config holds; `where` names the output in the message.
bool config_check_json(const struct Config *c, const char *where);
// The name of a member (its offset in struct Config) in the architecture's config.json, for messages.
const char *config_key(enum Arch arch, size_t offset);
// Presets, in the order of the table in config.c. False (no message) when unknown.
#define CONFIG_PRESETS(between)                                                                                        \
    "tiny" between "tiny-moe" between "smollm2-135m" between "deepseek-moe-16b" between "deepseek-llm-7b" between      \
    "llama2-7b" between "small" between "small-wide" between "small-moe"
bool config_preset(struct Config *c, const char *name);
const char *config_preset_names(void);

// Counts of section 4.1 of the DeepSeekMoE paper.
uint64_t config_parameters(const struct Config *c);           // all
uint64_t config_activated_parameters(const struct Config *c); // touched by one token
// FLOPs of forward and backward (3 x forward) over `tokens` tokens in one sequence: 2 per multiply-add of every weight used
// (embedding look-up free, head included), attention scores and values over the full square.
double config_train_flops(const struct Config *c, uint64_t tokens);

// eos_token_id of a generation_config.json (a number or a list) takes the place of the config's; `sampling` is what else is taken from it.
bool config_generation_from_json(struct Config *c, const char *text, size_t bytes, const char *where);
char *config_generation_to_json(const struct Config *c); // malloc'ed
// From the metadata of a GGUF file, the first of `n_parts` that are open: which tensors there are, which it depends on too, all of them say
// together. What a vocabulary-only file lacks stays 0, and `complete` says whether anything did.
struct Gguf;
bool config_from_gguf(struct Config *c, const struct Gguf *parts, uint32_t n_parts, bool *complete);
// Writes the keys of the architecture. What llama.cpp computes in one way only must be that way here: it would not tell the difference, so
// config_check_gguf refuses the rest.
struct GgufWriter;
bool config_check_gguf(const struct Config *c, const char *where);
void config_to_gguf(struct GgufWriter *w, const struct Config *c);
