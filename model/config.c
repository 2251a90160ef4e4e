// The architectures, what a config must fulfil, presets, and counts of weights and work.
#include "model/modelfile.h"
#include "model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct ArchInfo ARCHS[ARCH_COUNT] = {
    [ARCH_LLAMA] = {"llama", "LlamaForCausalLM", "llama", .gguf_pairs = true},
    [ARCH_DEEPSEEK] = {"deepseek", "DeepseekForCausalLM", "deepseek", .has_experts = true, .gguf_pairs = true},
    [ARCH_QWEN2] = {"qwen2", "Qwen2ForCausalLM", "qwen2", .has_experts = false},
    [ARCH_QWEN2MOE] = {"qwen2_moe", "Qwen2MoeForCausalLM", "qwen2moe", .has_experts = true},
    [ARCH_OLMOE] = {"olmoe", "OlmoeForCausalLM", "olmoe", .has_experts = true},
    [ARCH_MISTRAL] = {"mistral", "MistralForCausalLM", "llama", .gguf_pairs = true},
};

struct Config config_defaults(void) {
    return (struct Config){
        // of LlamaConfig and DeepseekConfig, for keys that may be absent
        .max_context = 2048, .norm_eps = 1e-6f,    .rope_base = 10000,   .rope = {.factor = 1},
        .moe_period = 1,     .routed_scale = 1,    .aux_alpha = 0.001f,  .seq_aux = true,
        .init_std = 0.02f,   .bos_id = UINT32_MAX, .pad_id = UINT32_MAX, .sampling = {NAN, NAN, NAN, NAN, NAN, NAN},
    };
}

// ---- Checks ----

static bool in_range(const char *where, const char *key, uint32_t value, uint32_t low, uint32_t high) {
    return (value >= low && value <= high) || fail("%s: %s is %u; %u to %u is expected", where, key, value, low, high);
}

static bool multiple_of_8(const char *where, const char *key, uint32_t value) {
    return (value > 0 && value % 8 == 0 && value <= CONFIG_MAX_WIDTH) ||
           fail("%s: %s is %u; a multiple of 8 up to %d is expected", where, key, value, CONFIG_MAX_WIDTH);
}

bool config_check_tokens(const struct Config *c, const char *where) {
    if (c->bos_id != UINT32_MAX && c->bos_id >= c->vocab_size)
        return fail("%s: bos_token_id is %u, but the vocabulary has %u tokens", where, c->bos_id, c->vocab_size);
    if (c->pad_id != UINT32_MAX && c->pad_id >= c->vocab_size)
        return fail("%s: pad_token_id is %u, but the vocabulary has %u tokens", where, c->pad_id, c->vocab_size);
    if (!in_range(where, "the number of eos_token_id", c->n_eos, 0, 4))
        return false;
    for (uint32_t i = 0; i < c->n_eos; i++) {
        if (c->eos_id[i] >= c->vocab_size)
            return fail("%s: eos_token_id is %u, but the vocabulary has %u tokens", where, c->eos_id[i], c->vocab_size);
    }
    return true;
}

// The checks name members as the architecture's config.json does.
#define KEY(c, member) config_key((c)->arch, offsetof(struct Config, member))

static bool check_moe(const struct Config *c, const char *where) {
    if (!ARCHS[c->arch].has_experts)
        return fail("%s: experts are not supported in the architecture %s", where, ARCHS[c->arch].model_type);
    if (!in_range(where, KEY(c, n_experts), c->n_experts, 1, CONFIG_MAX_EXPERTS) ||
        !in_range(where, KEY(c, n_active), c->n_active, 1, c->n_experts) ||
        !in_range(where, "n_shared_experts", c->n_shared, 0, 64) ||
        !multiple_of_8(where, KEY(c, moe_hidden), c->moe_hidden) ||
        (c->shared_hidden && !multiple_of_8(where, KEY(c, shared_hidden), c->shared_hidden)) ||
        !in_range(where, "first_k_dense_replace", c->first_dense, 0, c->n_layers) ||
        !in_range(where, KEY(c, moe_period), c->moe_period, 1, CONFIG_MAX_LAYERS))
        return false;
    if (c->shared_gate && config_shared_width(c) == 0)
        return fail("%s: %s is 0, but the architecture has a shared expert", where, KEY(c, shared_hidden));
    // DeepSeek's code normalises several weights alone; the others' a single one too, which then says nothing.
    if (c->arch != ARCH_DEEPSEEK && c->norm_topk && c->n_active == 1)
        return fail("%s: norm_topk_prob true with one expert a token is not supported", where);
    return (isfinite(c->routed_scale) && c->routed_scale > 0) ||
           fail("%s: routed_scaling_factor is %g; a positive number is expected", where, (double)c->routed_scale);
}

bool config_check(const struct Config *c, const char *where) {
    if (!in_range(where, "vocab_size", c->vocab_size, 1, CONFIG_MAX_VOCAB) ||
        !multiple_of_8(where, "hidden_size", c->dim) ||
        !in_range(where, "num_hidden_layers", c->n_layers, 1, CONFIG_MAX_LAYERS) ||
        !in_range(where, "num_attention_heads", c->n_heads, 1, 1024) ||
        !in_range(where, "num_key_value_heads", c->n_kv_heads, 1, c->n_heads) ||
        !multiple_of_8(where, "head_dim", c->head_dim) ||
        !in_range(where, "head_dim", c->head_dim, 8, CONFIG_MAX_HEAD_DIM) ||
        !multiple_of_8(where, "intermediate_size", c->hidden) ||
        !in_range(where, "max_position_embeddings", c->max_context, 1, CONFIG_MAX_CONTEXT))
        return false;
    if (c->n_heads % c->n_kv_heads)
        return fail("%s: num_key_value_heads is %u, which does not divide num_attention_heads (%u)", where,
                    c->n_kv_heads, c->n_heads);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return fail("%s: rms_norm_eps is %g; a number between 0 and 1 is expected", where, (double)c->norm_eps);
    if (!(c->rope_base >= 1 && c->rope_base <= 1e12f))
        return fail("%s: rope_theta is %g; 1 to 1e12 is expected", where, (double)c->rope_base);
    if (c->qk_norm && c->n_heads * c->head_dim != c->dim)
        return fail("%s: norms of q and k ask for head_dim * num_attention_heads = hidden_size (%u), found %u", where,
                    c->dim, c->n_heads * c->head_dim);
    return rope_check(c, where) && (c->n_experts == 0 || check_moe(c, where)) && config_check_tokens(c, where);
}

// ---- Presets and counts ----

// What is 0 is as config_defaults() has it.
static const struct {
    const char *name;
    uint32_t vocab_size, dim, n_layers, n_heads, n_kv_heads, hidden, max_context, bos, eos, pad;
    struct {
        uint32_t count, active, shared, hidden;
    } experts;
    float norm_eps, rope_base, init_std;
    bool tied_head;
} PRESETS[] = {
    // The vocabulary of the byte tokenizer: 256 bytes, then the special tokens, then room.
    {"tiny", 512, 64, 4, 4, 2, 192, 512, .bos = 256, .eos = 257},
    {"tiny-moe", 512, 64, 4, 4, 4, 256, 512, .bos = 256, .eos = 257, .experts = {8, 3, 2, 32}},
    {"smollm2-135m", 49152, 576, 30, 9, 3, 1536, 8192, .bos = 1, .eos = 2, .pad = 2, .norm_eps = 1e-5f,
     .rope_base = 100000, .init_std = 0.041666666666666664f, .tied_head = true},
    {"deepseek-moe-16b", 102400, 2048, 28, 16, 16, 10944, 4096, .bos = 100000, .eos = 100001,
     .experts = {64, 6, 2, 1408}},
    {"deepseek-llm-7b", 102400, 4096, 30, 32, 32, 11008, 4096, .bos = 100000, .eos = 100001},
    {"llama2-7b", 32000, 4096, 32, 32, 32, 11008, 4096, .bos = 1, .eos = 2, .norm_eps = 1e-5f},
    // To be trained from nothing on one device. The mixture and two dense models that differ from it in their feed-forward layers alone: `small` has
    // what a token meets in it, `small-wide` all its weights, but for the routers.
    {"small", 512, 384, 8, 6, 6, 1024, 1024, .bos = 256, .eos = 257, .tied_head = true},
    {"small-wide", 512, 384, 8, 6, 6, 3936, 1024, .bos = 256, .eos = 257, .tied_head = true},
    {"small-moe", 512, 384, 8, 6, 6, 1024, 1024, .bos = 256, .eos = 257, .experts = {32, 6, 2, 128}, .tied_head = true},
};

const char *config_preset_names(void) { return CONFIG_PRESETS(", "); }

bool config_preset(struct Config *c, const char *name) {
    size_t n = sizeof PRESETS / sizeof *PRESETS, i = 0;
    while (i < n && strcmp(PRESETS[i].name, name) != 0)
        i++;
    if (i == n)
        return false;
    *c = config_defaults();
    c->vocab_size = PRESETS[i].vocab_size;
    c->dim = PRESETS[i].dim;
    c->n_layers = PRESETS[i].n_layers;
    c->n_heads = PRESETS[i].n_heads;
    c->n_kv_heads = PRESETS[i].n_kv_heads;
    c->head_dim = c->dim / c->n_heads;
    c->hidden = PRESETS[i].hidden;
    c->max_context = PRESETS[i].max_context;
    c->bos_id = PRESETS[i].bos;
    c->n_eos = 1;
    c->eos_id[0] = PRESETS[i].eos;
    c->tied_head = PRESETS[i].tied_head;
    if (PRESETS[i].pad)
        c->pad_id = PRESETS[i].pad;
    if (PRESETS[i].norm_eps > 0)
        c->norm_eps = PRESETS[i].norm_eps;
    if (PRESETS[i].rope_base > 0)
        c->rope_base = PRESETS[i].rope_base;
    if (PRESETS[i].init_std > 0)
        c->init_std = PRESETS[i].init_std;
    if (PRESETS[i].experts.count) {
        c->arch = ARCH_DEEPSEEK;
        c->n_experts = PRESETS[i].experts.count;
        c->n_active = PRESETS[i].experts.active;
        c->n_shared = PRESETS[i].experts.shared;
        c->moe_hidden = PRESETS[i].experts.hidden;
        c->first_dense = 1;
    }
    return true;
}

// Weights of the matrices that a token meets, or (`all`) of the whole model.
static uint64_t count_weights(const struct Config *c, bool all, bool vectors) {
    uint32_t n;
    uint64_t total = 0;
    struct WeightSpec *list = weight_list(c, &n);
    for (uint32_t i = 0; i < n; i++) {
        const struct WeightSpec *w = &list[i];
        uint64_t rows =
            w->role == ROLE_EXPERTS && !all ? (uint64_t)c->n_active * w->dim[1] : (uint64_t)w->dim[0] * w->dim[1];
        total += w->n_dims == 1   ? (vectors ? w->dim[0] : 0)
                 : w->n_dims == 2 ? (uint64_t)w->dim[0] * w->dim[1]
                                  : rows * w->dim[2];
    }
    free(list);
    return total;
}

uint64_t config_parameters(const struct Config *c) { return count_weights(c, true, true); }

uint64_t config_activated_parameters(const struct Config *c) { return count_weights(c, false, true); }

double config_train_flops(const struct Config *c, uint64_t tokens) {
    double t = (double)tokens, embed = (double)c->vocab_size * c->dim;
    double weights = (double)count_weights(c, false, false) - (c->tied_head ? 0 : embed); // the look-up is free
    double attention = 4 * t * t * (double)c->n_heads * c->head_dim * c->n_layers;
    return 3 * (2 * t * weights + attention);
}
