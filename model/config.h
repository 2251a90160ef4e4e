// The architecture of a model, as Hugging Face's config.json or GGUF's metadata state it. Every switch that is read here is honoured;
// every one that would change the result and is not known is refused by name.
#pragma once
#include "runtime/base.h"

enum Arch { ARCH_LLAMA, ARCH_DEEPSEEK };

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
    float rope_linear;    // rope_scaling {"type":"linear","factor":f}: positions are divided by it; 1: none
    bool tied_head;       // tie_word_embeddings
    // Mixture of experts; n_experts 0: dense throughout.
    uint32_t n_experts;   // n_routed_experts, at most 256
    uint32_t n_active;    // num_experts_per_tok: routed experts a token passes
    uint32_t n_shared;    // n_shared_experts, 0: none; they are one FFN of n_shared * moe_hidden
    uint32_t moe_hidden;  // moe_intermediate_size: width of one expert; multiple of 8
    uint32_t first_dense; // first_k_dense_replace: so many first layers are dense
    uint32_t moe_period;  // moe_layer_freq: layer l >= first_dense is MoE when l % moe_period == 0
    bool norm_topk;       // norm_topk_prob: the chosen weights are divided by their sum (+ 1e-20)
    float routed_scale;   // routed_scaling_factor, applied to the weights when norm_topk is false, as published
    float aux_alpha;      // aux_loss_alpha: coefficient of the balance loss
    bool seq_aux;         // balance loss per sequence (document) rather than per batch
    float init_std;       // initializer_range
    // Tokens. UINT32_MAX: none.
    uint32_t bos_id;
    uint32_t eos_id[4];
    uint32_t n_eos;
    uint32_t pad_id;
};

static inline bool config_is_moe(const struct Config *c, uint32_t layer) {
    return c->n_experts > 0 && layer >= c->first_dense && layer % c->moe_period == 0;
}
// Checks ranges and divisibility; `where` names the file in the message.
bool config_check(const struct Config *c, const char *where);
// From the text of a config.json.
bool config_from_json(struct Config *c, const char *text, size_t bytes, const char *where);
// A malloc'ed config.json that transformers loads (architectures, model_type, auto_map apart).
char *config_to_json(const struct Config *c, const char *torch_dtype);
// Presets: tiny, tiny-moe, smollm2-135m, deepseek-moe-16b, deepseek-llm-7b, llama2-7b. False (no message) when unknown.
bool config_preset(struct Config *c, const char *name);
const char *config_preset_names(void);

// Counts of section 4.1 of the DeepSeekMoE paper.
uint64_t config_parameters(const struct Config *c);           // all
uint64_t config_activated_parameters(const struct Config *c); // touched by one token
// FLOPs of forward and backward (3 x forward) over `tokens` tokens in one sequence: 2 per multiply-add of every weight used
// (embedding look-up free, head included), attention scores and values over the full square.
double config_train_flops(const struct Config *c, uint64_t tokens);

// eos_token_id of a generation_config.json (a number or a list) takes the place of the config's.
bool config_generation_from_json(struct Config *c, const char *text, size_t bytes, const char *where);
// From the metadata of a GGUF file. What a vocabulary-only file lacks stays 0, and `complete` says whether anything did.
struct Gguf;
bool config_from_gguf(struct Config *c, const struct Gguf *g, bool *complete);
