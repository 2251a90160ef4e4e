// The metadata of a GGUF file, both ways, from one table of keys. What llama.cpp computes in one way only is refused where the config says
// another; keys that change the result and are not supported are refused by name.
#include "model/ggufsplit.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>

enum Kind { U32, F32 };
enum {
    DEEPSEEK = 1 << ARCH_DEEPSEEK,
    QWEN2MOE = 1 << ARCH_QWEN2MOE,
    OLMOE = 1 << ARCH_OLMOE,
    EXPERTS = DEEPSEEK | QWEN2MOE | OLMOE,
    ALL = (1 << ARCH_COUNT) - 1
};

#define AT(member) offsetof(struct Config, member)
static const struct Field {
    const char *key; // after "ARCH."
    enum Kind kind;
    unsigned archs; // a dense deepseek is written as a llama
    bool required;  // of a whole model
    size_t offset;
} FIELDS[] = {
    {"vocab_size", U32, ALL, false, AT(vocab_size)},
    {"block_count", U32, ALL, true, AT(n_layers)},
    {"context_length", U32, ALL, true, AT(max_context)},
    {"embedding_length", U32, ALL, true, AT(dim)},
    {"feed_forward_length", U32, ALL & ~OLMOE, true, AT(hidden)},
    {"feed_forward_length", U32, OLMOE, true, AT(moe_hidden)},
    {"attention.head_count", U32, ALL, true, AT(n_heads)},
    {"attention.head_count_kv", U32, ALL, false, AT(n_kv_heads)},
    {"attention.key_length", U32, ALL, false, AT(head_dim)},
    {"attention.layer_norm_rms_epsilon", F32, ALL, true, AT(norm_eps)},
    {"rope.freq_base", F32, ALL, false, AT(rope_base)},
    {"expert_count", U32, EXPERTS, true, AT(n_experts)},
    {"expert_used_count", U32, EXPERTS, true, AT(n_active)},
    {"expert_shared_count", U32, DEEPSEEK, false, AT(n_shared)},
    {"expert_feed_forward_length", U32, DEEPSEEK, true, AT(moe_hidden)},
    {"expert_feed_forward_length", U32, QWEN2MOE, false, AT(moe_hidden)},
    {"expert_shared_feed_forward_length", U32, QWEN2MOE, false, AT(shared_hidden)},
    {"leading_dense_block_count", U32, DEEPSEEK, false, AT(first_dense)},
    {"expert_weights_scale", F32, DEEPSEEK, false, AT(routed_scale)},
};
enum { N_FIELDS = sizeof FIELDS / sizeof *FIELDS };

// Keys of an architecture that change the result where they are there; and those with a reader of their own or that say nothing about it.
static const char *const REFUSED[] = {
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.causal",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
    "use_parallel_residual",
    "expert_group_count",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.alpha",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "nextn_predict_layers",
};
static const char *const KNOWN[] = {
    "attention.value_length",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.finetuned",
    "expert_weights_norm",
    "expert_gating_func",
    "tensor_data_layout",
};

// ---- Reading ----

struct Keys {
    const struct Gguf *g; // the first of n_parts, which has the keys
    uint32_t n_parts;
    const char *arch;
    bool absent; // a key that a whole model needs was not there
};

static bool read_key(struct Keys *k, const char *name, enum Kind kind, bool required, void *out) {
    char *key = xsprintf("%s.%s", k->arch, name);
    if (required && !gguf_find(k->g, key))
        k->absent = true;
    bool ok = kind == U32 ? gguf_get_u32(k->g, key, false, out) : gguf_get_f32(k->g, key, false, out);
    free(key);
    return ok;
}

static const struct GgufTensor *find_tensor(const struct Keys *k, const char *name) {
    return ggufsplit_find(k->g, k->n_parts, name, NULL);
}

static bool find_name(const char *name, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, list[i]) == 0)
            return true;
    }
    return false;
}

static bool check_keys(const struct Keys *k) {
    char *names = NULL;
    size_t prefix = strlen(k->arch);
    for (uint64_t i = 0; i < k->g->n_values; i++) {
        const char *key = k->g->values[i].key, *name = key + prefix + 1;
        if (strncmp(key, k->arch, prefix) != 0 || key[prefix] != '.')
            continue;
        if (find_name(name, REFUSED, sizeof REFUSED / sizeof *REFUSED)) {
            free(names);
            return fail("%s: the key %s is not supported", k->g->file.name, key);
        }
        bool known = find_name(name, KNOWN, sizeof KNOWN / sizeof *KNOWN);
        for (size_t f = 0; f < N_FIELDS && !known; f++)
            known = strcmp(name, FIELDS[f].key) == 0;
        if (known || (names && strlen(names) > 500)) // a file with a million such keys does not get them all listed
            continue;
        char *longer = names ? xsprintf("%s, %s", names, key) : xstrdup(key);
        free(names);
        names = longer;
    }
    if (names)
        warn("%s: not known and not used: %s", k->g->file.name, names);
    free(names);
    return true;
}

static bool read_arch(struct Config *c, const char *name, const char *file) {
    for (c->arch = 0; c->arch < ARCH_COUNT; c->arch++) {
        if (strcmp(name, ARCHS[c->arch].gguf) == 0)
            return true;
    }
    c->arch = ARCH_LLAMA;
    return fail("%s: general.architecture \"%s\" is not supported; llama, qwen2, deepseek, qwen2moe and olmoe are",
                file, name);
}

static bool read_attention(struct Config *c, struct Keys *k) {
    const char *file = k->g->file.name;
    uint32_t value_length = c->head_dim, rotated = c->head_dim, window = 0;
    if (!read_key(k, "attention.value_length", U32, false, &value_length) ||
        !read_key(k, "rope.dimension_count", U32, false, &rotated) ||
        !read_key(k, "attention.sliding_window", U32, false, &window))
        return false;
    if (value_length != c->head_dim)
        return fail("%s: %s.attention.value_length is %u, key_length %u; they must be equal", file, k->arch,
                    value_length, c->head_dim);
    if (rotated != c->head_dim)
        return fail(
            "%s: %s.rope.dimension_count is %u, but a head has %u; rope over a part of the head is not supported", file,
            k->arch, rotated, c->head_dim);
    if (window && window < c->max_context)
        return fail("%s: %s.attention.sliding_window is %u, which is not supported below the context (%u)", file,
                    k->arch, window, c->max_context);
    // Whether there are biases only the tensors say.
    c->qkv_bias = find_tensor(k, "blk.0.attn_q.bias");
    c->o_bias = find_tensor(k, "blk.0.attn_output.bias");
    c->mlp_bias = find_tensor(k, "blk.0.ffn_gate.bias");
    return true;
}

static bool read_experts(struct Config *c, struct Keys *k) {
    uint32_t gating = 1, experts = 0;
    if (!ARCHS[c->arch].has_experts)
        return read_key(k, "expert_count", U32, false, &experts) &&
               (experts == 0 ||
                fail("%s: %s.expert_count is %u: mixtures of experts are not supported in this architecture",
                     k->g->file.name, k->arch, experts));
    char *key = xsprintf("%s.expert_weights_norm", k->arch);
    bool ok = (c->arch != ARCH_DEEPSEEK || gguf_get_bool(k->g, key, false, &c->norm_topk)) &&
              read_key(k, "expert_gating_func", U32, false, &gating);
    free(key);
    if (ok && gating > 1)
        return fail("%s: %s.expert_gating_func is %u, which is not supported; 1 (softmax) is", k->g->file.name, k->arch,
                    gating);
    if (c->arch == ARCH_OLMOE) {
        c->hidden = c->moe_hidden;
        c->qk_norm = true;
    } else if (c->arch == ARCH_QWEN2MOE) {
        // What older files leave out.
        if (c->moe_hidden == 0 && c->n_active)
            c->moe_hidden = c->hidden / c->n_active;
        if (c->shared_hidden == 0)
            c->shared_hidden = c->hidden;
        c->shared_gate = true;
        c->moe_phase = 1;
    }
    if (c->arch != ARCH_DEEPSEEK)
        c->aux_alpha = 0, c->seq_aux = false;
    return ok;
}

static bool read_tokens(struct Config *c, const struct Gguf *g) {
    uint32_t eos = UINT32_MAX, eot = UINT32_MAX;
    if (!gguf_get_u32(g, "tokenizer.ggml.bos_token_id", false, &c->bos_id) ||
        !gguf_get_u32(g, "tokenizer.ggml.eos_token_id", false, &eos) ||
        !gguf_get_u32(g, "tokenizer.ggml.eot_token_id", false, &eot) ||
        !gguf_get_u32(g, "tokenizer.ggml.padding_token_id", false, &c->pad_id))
        return false;
    if (eos != UINT32_MAX)
        c->eos_id[c->n_eos++] = eos;
    if (eot != UINT32_MAX && eot != eos)
        c->eos_id[c->n_eos++] = eot;
    return true;
}

static bool read_vocab_size(struct Config *c, struct Keys *k) {
    const struct GgufTensor *embed = find_tensor(k, "token_embd.weight");
    const struct GgufString *tokens = NULL;
    uint64_t count = 0;
    if (!gguf_get_strings(k->g, "tokenizer.ggml.tokens", false, &tokens, &count))
        return false;
    uint64_t rows = embed ? embed->dim[0] : c->vocab_size ? c->vocab_size : count;
    if (tokens && rows != count)
        return fail("%s: the vocabulary has %llu tokens, but the embedding %llu rows", k->g->file.name,
                    (unsigned long long)count, (unsigned long long)rows);
    if (rows > CONFIG_MAX_VOCAB)
        return fail("%s: a vocabulary of %llu tokens; at most %d are accepted", k->g->file.name,
                    (unsigned long long)rows, CONFIG_MAX_VOCAB);
    c->vocab_size = (uint32_t)rows;
    return true;
}

bool config_from_gguf(struct Config *c, const struct Gguf *parts, uint32_t n_parts, bool *complete) {
    const struct Gguf *g = &parts[0];
    *c = config_defaults();
    char *arch = NULL;
    if (!gguf_get_string(g, "general.architecture", true, &arch))
        return false;
    struct Keys k = {.g = g, .n_parts = n_parts, .arch = arch};
    bool ok = read_arch(c, arch, g->file.name);
    for (size_t i = 0; i < N_FIELDS && ok; i++) {
        const struct Field *f = &FIELDS[i];
        if (f->archs >> c->arch & 1)
            ok = read_key(&k, f->key, f->kind, f->required, (char *)c + f->offset);
    }
    if (c->n_kv_heads == 0)
        c->n_kv_heads = c->n_heads;
    if (c->head_dim == 0 && c->n_heads && c->dim % c->n_heads == 0)
        c->head_dim = c->dim / c->n_heads;
    if (ok && c->head_dim > CONFIG_MAX_HEAD_DIM)
        ok = fail("%s: a head of %u; at most %d is accepted", g->file.name, c->head_dim, CONFIG_MAX_HEAD_DIM);
    ok = ok && read_attention(c, &k) && read_experts(c, &k) && rope_from_gguf(c, g, arch) && read_tokens(c, g) &&
         read_vocab_size(c, &k) && check_keys(&k);
    uint64_t n_tensors = 0;
    for (uint32_t p = 0; p < n_parts; p++)
        n_tensors += parts[p].n_tensors;
    c->tied_head = n_tensors > 0 && !find_tensor(&k, "output.weight");
    *complete = !k.absent;
    if (k.absent)
        c->n_layers = 0; // a vocabulary alone: what else it says is not checked, and must not be walked over
    ok = ok && (k.absent ? config_check_tokens(c, g->file.name) : config_check(c, g->file.name));
    free(arch);
    return ok;
}

// ---- Writing ----

bool config_check_gguf(const struct Config *c, const char *where) {
    const char *arch = config_gguf_arch(c);
    bool moe = c->n_experts > 0, llama = strcmp(arch, ARCHS[ARCH_LLAMA].gguf) == 0;
    uint32_t dense = 0;
    for (uint32_t l = c->first_dense; l < c->n_layers; l++)
        dense += !config_is_moe(c, l);
    if (moe && c->norm_topk)
        return fail("%s: norm_topk_prob true has no place in GGUF's %s architecture", where, arch);
    if (moe && dense)
        return fail("%s: %s %u%s has no place in GGUF's %s architecture", where, config_key(c->arch, AT(moe_period)),
                    c->moe_period, c->arch == ARCH_QWEN2MOE ? " or a list of mlp_only_layers" : "", arch);
    if (moe && c->arch == ARCH_DEEPSEEK && c->n_shared == 0)
        return fail("%s: a model without shared experts has no place in GGUF's deepseek architecture", where);
    if (c->arch == ARCH_OLMOE && c->n_kv_heads != c->n_heads)
        return fail("%s: num_key_value_heads %u below num_attention_heads has no place in GGUF's olmoe architecture",
                    where, c->n_kv_heads);
    if (!llama && (c->o_bias || c->mlp_bias))
        return fail("%s: biases%s%s have no place in GGUF's %s architecture", where, c->o_bias ? " of o" : "",
                    c->mlp_bias ? " of the FFN" : "", arch);
    if (c->qkv_bias && !llama && c->arch != ARCH_QWEN2 && c->arch != ARCH_QWEN2MOE)
        return fail("%s: attention_bias has no place in GGUF's %s architecture", where, arch);
    return rope_check_gguf(c, where);
}

static void put_u32(struct GgufWriter *w, const char *arch, const char *name, uint32_t value) {
    char *key = xsprintf("%s.%s", arch, name);
    gguf_writer_u32(w, key, value);
    free(key);
}

void config_to_gguf(struct GgufWriter *w, const struct Config *c) {
    const char *arch = config_gguf_arch(c);
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct Field *f = &FIELDS[i];
        const void *value = (const char *)c + f->offset;
        bool of_experts = !(f->archs & ~EXPERTS);
        if (!(f->archs >> c->arch & 1) || (of_experts && c->n_experts == 0))
            continue;
        char *key = xsprintf("%s.%s", arch, f->key);
        if (f->kind == U32) {
            uint32_t u;
            memcpy(&u, value, sizeof u);
            gguf_writer_u32(w, key, u);
        } else {
            float x;
            memcpy(&x, value, sizeof x);
            gguf_writer_f32(w, key, x);
        }
        free(key);
    }
    put_u32(w, arch, "attention.value_length", c->head_dim);
    put_u32(w, arch, "rope.dimension_count", c->head_dim);
    rope_to_gguf(w, c, arch);
}
