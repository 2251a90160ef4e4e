// The architecture from a config.json or from GGUF metadata, and back to a config.json. What is read is honoured; a switch that would
// change the result and is not supported is refused by name; keys that are not known at all are named in a warning.
#include "model/config.h"
#include "model/gguf.h"
#include "model/json.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VOCAB = 1 << 22, MAX_WIDTH = 1 << 20, MAX_LAYERS = 1024, MAX_EXPERTS = 256, MAX_CONTEXT = 1 << 24 };

static const struct Config DEFAULTS = {
    // of LlamaConfig and DeepseekConfig, for keys that may be absent
    .max_context = 2048, .norm_eps = 1e-6f,    .rope_base = 10000,   .rope_linear = 1,
    .moe_period = 1,     .routed_scale = 1,    .aux_alpha = 0.001f,  .seq_aux = true,
    .init_std = 0.02f,   .bos_id = UINT32_MAX, .pad_id = UINT32_MAX,
};

// ---- Checks ----

static bool in_range(const char *where, const char *key, uint32_t value, uint32_t low, uint32_t high) {
    return (value >= low && value <= high) || fail("%s: %s is %u; %u to %u is expected", where, key, value, low, high);
}

static bool multiple_of_8(const char *where, const char *key, uint32_t value) {
    return (value > 0 && value % 8 == 0 && value <= MAX_WIDTH) ||
           fail("%s: %s is %u; a multiple of 8 up to %d is expected", where, key, value, MAX_WIDTH);
}

static bool check_tokens(const struct Config *c, const char *where) {
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

static bool check_moe(const struct Config *c, const char *where) {
    if (c->arch != ARCH_DEEPSEEK)
        return fail("%s: experts are supported in the deepseek architecture only", where);
    return in_range(where, "n_routed_experts", c->n_experts, 1, MAX_EXPERTS) &&
           in_range(where, "num_experts_per_tok", c->n_active, 1, c->n_experts) &&
           in_range(where, "n_shared_experts", c->n_shared, 0, 64) &&
           multiple_of_8(where, "moe_intermediate_size", c->moe_hidden) &&
           in_range(where, "first_k_dense_replace", c->first_dense, 0, c->n_layers) &&
           in_range(where, "moe_layer_freq", c->moe_period, 1, MAX_LAYERS) &&
           (isfinite(c->routed_scale) && c->routed_scale > 0
                ? true
                : fail("%s: routed_scaling_factor is %g; a positive number is expected", where,
                       (double)c->routed_scale));
}

bool config_check(const struct Config *c, const char *where) {
    if (!in_range(where, "vocab_size", c->vocab_size, 1, MAX_VOCAB) || !multiple_of_8(where, "hidden_size", c->dim) ||
        !in_range(where, "num_hidden_layers", c->n_layers, 1, MAX_LAYERS) ||
        !in_range(where, "num_attention_heads", c->n_heads, 1, 1024) ||
        !in_range(where, "num_key_value_heads", c->n_kv_heads, 1, c->n_heads) ||
        !multiple_of_8(where, "head_dim", c->head_dim) || !in_range(where, "head_dim", c->head_dim, 8, 256) ||
        !multiple_of_8(where, "intermediate_size", c->hidden) ||
        !in_range(where, "max_position_embeddings", c->max_context, 1, MAX_CONTEXT))
        return false;
    if (c->n_heads % c->n_kv_heads)
        return fail("%s: num_key_value_heads is %u, which does not divide num_attention_heads (%u)", where,
                    c->n_kv_heads, c->n_heads);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return fail("%s: rms_norm_eps is %g; a number between 0 and 1 is expected", where, (double)c->norm_eps);
    if (!(c->rope_base >= 1 && c->rope_base <= 1e12f))
        return fail("%s: rope_theta is %g; 1 to 1e12 is expected", where, (double)c->rope_base);
    if (!(c->rope_linear >= 1 && c->rope_linear <= 1e6f))
        return fail("%s: rope_scaling's factor is %g; 1 to 1e6 is expected", where, (double)c->rope_linear);
    return (c->n_experts == 0 || check_moe(c, where)) && check_tokens(c, where);
}

// ---- config.json ----

// Switches with the values that change nothing here (compact JSON, separated by '|'); null and absence always pass.
static const struct {
    const char *key, *accepted;
} SWITCHES[] = {
    {"hidden_act", "\"silu\"|\"swish\""},
    {"attention_bias", "false"},
    {"mlp_bias", "false"},
    {"attention_dropout", "0|0.0"},
    {"hidden_dropout", "0|0.0"},
    {"scoring_func", "\"softmax\""},
    {"topk_method", "\"greedy\""},
    {"n_group", "0|1"},
    {"topk_group", "0|1"},
    {"sliding_window", ""},
    {"use_sliding_window", "false"},
    {"quantization_config", ""},
    {"rope_interleaved", "false"},
    {"partial_rotary_factor", "1|1.0"},
    {"use_qk_norm", "false"},
    {"qk_layernorm", "false"},
    {"attn_logit_softcapping", ""},
    {"final_logit_softcapping", ""},
    {"embedding_multiplier", "1|1.0"},
    {"residual_multiplier", "1|1.0"},
    {"attention_multiplier", ""},
    {"logits_scaling", "1|1.0"},
    {"logit_scale", "1|1.0"},
    {"scale_emb", "1|1.0"},
    {"scale_depth", ""},
    {"clip_qkv", ""},
    {"no_rope_layers", "[]"},
    {"q_lora_rank", ""},
    {"kv_lora_rank", ""},
    {"num_nextn_predict_layers", "0"},
    {"n_predict", "0"},
    {"is_encoder_decoder", "false"},
    {"add_cross_attention", "false"},
    {"pruned_heads", "{}"},
    {"use_parallel_residual", "false"},
    {"alibi", "false"},
};

// Keys that are read below, and keys that say nothing about the computation.
static const char *const KNOWN[] = {
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "n_routed_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "moe_intermediate_size",
    "first_k_dense_replace",
    "moe_layer_freq",
    "norm_topk_prob",
    "routed_scaling_factor",
    "aux_loss_alpha",
    "seq_aux",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "layer_types",
    "model_type",
    "architectures",
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "auto_map",
    "pretraining_tp",
    "ep_size",
    "is_llama_config",
    "transformers.js_config",
    "unk_token_id",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "id2label",
    "label2id",
    "problem_type",
    "chunk_size_feed_forward",
    "is_decoder",
    "use_return_dict",
    "torchscript",
    "finetuning_task",
    "attn_implementation",
    "_attn_implementation",
};

static bool listed(const char *text, const char *list) {
    size_t bytes = strlen(text);
    for (const char *at = list; *at;) {
        const char *end = strchrnul(at, '|');
        if ((size_t)(end - at) == bytes && memcmp(at, text, bytes) == 0)
            return true;
        at = *end ? end + 1 : end;
    }
    return false;
}

static bool check_switches(const json_t *root, const char *where) {
    for (size_t i = 0; i < sizeof SWITCHES / sizeof *SWITCHES; i++) {
        const json_t *value = json_object_get(root, SWITCHES[i].key);
        if (!value || json_is_null(value))
            continue;
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
        bool ok = text && listed(text, SWITCHES[i].accepted);
        if (!ok)
            fail("%s: %s is %.100s, which is not supported", where, SWITCHES[i].key, text ? text : "unreadable");
        free(text);
        if (!ok)
            return false;
    }
    const json_t *types = json_object_get(root, "layer_types"), *type;
    size_t i;
    json_array_foreach(types, i, type) {
        const char *name = json_string_value(type);
        if (!name || strcmp(name, "full_attention") != 0)
            return fail("%s: layer_types: layer %zu is %s, which is not supported", where, i,
                        name ? name : "no string");
    }
    return true;
}

// Grows a list for a message; a file with a million such keys does not get them all listed.
static void add_name(char **names, const char *name) {
    if (*names && strlen(*names) > 500)
        return;
    char *longer = *names ? xsprintf("%s, %s", *names, name) : xstrdup(name);
    free(*names);
    *names = longer;
}

static void warn_of_unknown_keys(json_t *root, const char *where) {
    char *names = NULL;
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        bool known = json_is_null(value) || json_is_false(value);
        for (size_t i = 0; !known && i < sizeof KNOWN / sizeof *KNOWN; i++)
            known = strcmp(KNOWN[i], key) == 0;
        for (size_t i = 0; !known && i < sizeof SWITCHES / sizeof *SWITCHES; i++)
            known = strcmp(SWITCHES[i].key, key) == 0;
        if (known)
            continue;
        add_name(&names, key);
    }
    if (names)
        warn("%s: not known and not used: %s", where, names);
    free(names);
}

static bool read_arch(struct Config *c, const json_t *root, const char *where) {
    const char *type = NULL;
    if (!json_get_string(root, "model_type", &type, where))
        return false;
    if (!type)
        return fail("%s: model_type is missing", where);
    const char *class;
    if (strcmp(type, "llama") == 0) {
        c->arch = ARCH_LLAMA;
        class = "LlamaForCausalLM";
    } else if (strcmp(type, "deepseek") == 0) {
        c->arch = ARCH_DEEPSEEK;
        class = "DeepseekForCausalLM";
    } else {
        return fail("%s: model_type \"%s\" is not supported; llama and deepseek are", where, type);
    }
    const json_t *names = json_object_get(root, "architectures");
    if (!names || json_is_null(names))
        return true;
    const char *name = json_string_value(json_array_get(names, 0));
    if (json_array_size(names) != 1 || !name || strcmp(name, class) != 0)
        return fail("%s: architectures names %s; for model_type \"%s\" only [\"%s\"] is supported", where,
                    name ? name : "nothing", type, class);
    return true;
}

// rope_scaling {"type": ..., "factor": ...}, or the newer rope_parameters {"rope_type": ..., "rope_theta": ..., "factor": ...}.
static bool read_rope_object(struct Config *c, const json_t *object, const char *key, const char *where) {
    if (!object || json_is_null(object))
        return true;
    if (!json_is_object(object))
        return fail("%s: %s must be an object or null", where, key);
    const char *type = NULL, *newer = NULL;
    if (!json_get_string(object, "type", &type, where) || !json_get_string(object, "rope_type", &newer, where) ||
        !json_get_float(object, "rope_theta", 1, 1e12f, &c->rope_base, where))
        return false;
    type = newer ? newer : type;
    if (!type || strcmp(type, "default") == 0)
        return !json_object_get(object, "factor") || type || fail("%s: %s has a factor but no type", where, key);
    if (strcmp(type, "linear") != 0)
        return fail("%s: %s of type \"%s\" is not supported; linear is", where, key, type);
    c->rope_linear = 0;
    return json_get_float(object, "factor", 1, 1e6f, &c->rope_linear, where) &&
           (c->rope_linear >= 1 || fail("%s: %s of type linear has no factor", where, key));
}

static bool read_eos(struct Config *c, const json_t *root, const char *where) {
    const json_t *value = json_object_get(root, "eos_token_id");
    if (!value || json_is_null(value))
        return true;
    bool list = json_is_array(value);
    size_t count = list ? json_array_size(value) : 1;
    if (count > 4)
        return fail("%s: eos_token_id lists %zu tokens; at most 4 are supported", where, count);
    c->n_eos = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = list ? json_array_get(value, i) : value;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > MAX_VOCAB)
            return fail("%s: eos_token_id must be a token or a list of tokens", where);
        c->eos_id[c->n_eos++] = (uint32_t)json_integer_value(id);
    }
    return true;
}

static bool read_token(const json_t *root, const char *key, uint32_t *id, const char *where) {
    // Some configs say -1 for "none".
    const json_t *value = json_object_get(root, key);
    if (json_is_integer(value) && json_integer_value(value) == -1)
        return true;
    return json_get_u32(root, key, 0, MAX_VOCAB, id, where);
}

static bool required(const json_t *root, const char *key, uint32_t *out, uint32_t max, const char *where) {
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return fail("%s: %s is missing", where, key);
    return json_get_u32(root, key, 1, max, out, where);
}

static bool read_moe(struct Config *c, const json_t *root, const char *where) {
    return json_get_u32(root, "n_routed_experts", 0, MAX_EXPERTS, &c->n_experts, where) &&
           json_get_u32(root, "num_experts_per_tok", 0, MAX_EXPERTS, &c->n_active, where) &&
           json_get_u32(root, "n_shared_experts", 0, 64, &c->n_shared, where) &&
           json_get_u32(root, "moe_intermediate_size", 0, MAX_WIDTH, &c->moe_hidden, where) &&
           json_get_u32(root, "first_k_dense_replace", 0, MAX_LAYERS, &c->first_dense, where) &&
           json_get_u32(root, "moe_layer_freq", 1, MAX_LAYERS, &c->moe_period, where) &&
           json_get_bool(root, "norm_topk_prob", &c->norm_topk, where) &&
           json_get_float(root, "routed_scaling_factor", 0, 1e6f, &c->routed_scale, where) &&
           json_get_float(root, "aux_loss_alpha", 0, 1e6f, &c->aux_alpha, where) &&
           json_get_bool(root, "seq_aux", &c->seq_aux, where);
}

static bool read_config(struct Config *c, json_t *root, const char *where) {
    if (!json_is_object(root))
        return fail("%s: an object is expected", where);
    *c = DEFAULTS;
    if (!read_arch(c, root, where) || !check_switches(root, where) ||
        !required(root, "vocab_size", &c->vocab_size, MAX_VOCAB, where) ||
        !required(root, "hidden_size", &c->dim, MAX_WIDTH, where) ||
        !required(root, "num_hidden_layers", &c->n_layers, MAX_LAYERS, where) ||
        !required(root, "num_attention_heads", &c->n_heads, 1024, where) ||
        !required(root, "intermediate_size", &c->hidden, MAX_WIDTH, where))
        return false;
    c->n_kv_heads = c->n_heads;
    c->head_dim = 0;
    if (!json_get_u32(root, "num_key_value_heads", 1, 1024, &c->n_kv_heads, where) ||
        !json_get_u32(root, "head_dim", 8, 256, &c->head_dim, where) ||
        !json_get_u32(root, "max_position_embeddings", 1, MAX_CONTEXT, &c->max_context, where) ||
        !json_get_float(root, "rms_norm_eps", 0, 1, &c->norm_eps, where) ||
        !json_get_float(root, "rope_theta", 1, 1e12f, &c->rope_base, where) ||
        !read_rope_object(c, json_object_get(root, "rope_scaling"), "rope_scaling", where) ||
        !read_rope_object(c, json_object_get(root, "rope_parameters"), "rope_parameters", where) ||
        !json_get_bool(root, "tie_word_embeddings", &c->tied_head, where) ||
        !json_get_float(root, "initializer_range", 0, 1, &c->init_std, where) ||
        !read_token(root, "bos_token_id", &c->bos_id, where) || !read_token(root, "pad_token_id", &c->pad_id, where) ||
        !read_eos(c, root, where))
        return false;
    if (c->head_dim == 0) {
        if (c->dim % c->n_heads)
            return fail("%s: hidden_size %u is no multiple of num_attention_heads %u, and head_dim is missing", where,
                        c->dim, c->n_heads);
        c->head_dim = c->dim / c->n_heads;
    }
    if (c->arch == ARCH_DEEPSEEK && !read_moe(c, root, where))
        return false;
    if (!config_check(c, where))
        return false;
    warn_of_unknown_keys(root, where);
    return true;
}

bool config_from_json(struct Config *c, const char *text, size_t bytes, const char *where) {
    json_t *root = json_parse(text, bytes, where);
    bool ok = root && read_config(c, root, where);
    json_decref(root);
    return ok;
}

bool config_generation_from_json(struct Config *c, const char *text, size_t bytes, const char *where) {
    json_t *root = json_parse(text, bytes, where);
    bool ok = root && (json_is_object(root) || fail("%s: an object is expected", where)) && read_eos(c, root, where) &&
              check_tokens(c, where);
    json_decref(root);
    return ok;
}

// The shortest decimal that reads back as the same float.
static const char *shortest(float value, char text[32]) {
    if (value == floorf(value) && fabsf(value) < 1e7f) {
        snprintf(text, 32, "%.1f", (double)value);
        return text;
    }
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, 32, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return text;
}

static void print_token(FILE *out, const char *key, uint32_t id) {
    if (id == UINT32_MAX)
        fprintf(out, "  \"%s\": null,\n", key);
    else
        fprintf(out, "  \"%s\": %u,\n", key, id);
}

static void print_eos(FILE *out, const struct Config *c) {
    if (c->n_eos == 0)
        fprintf(out, "  \"eos_token_id\": null,\n");
    else if (c->n_eos == 1)
        fprintf(out, "  \"eos_token_id\": %u,\n", c->eos_id[0]);
    else {
        fprintf(out, "  \"eos_token_id\": [");
        for (uint32_t i = 0; i < c->n_eos; i++)
            fprintf(out, "%s%u", i ? ", " : "", c->eos_id[i]);
        fprintf(out, "],\n");
    }
}

static void print_moe(FILE *out, const struct Config *c) {
    char number[32];
    fprintf(out, "  \"moe_layer_freq\": %u,\n  \"first_k_dense_replace\": %u,\n", c->moe_period, c->first_dense);
    if (c->n_experts) {
        fprintf(out, "  \"n_routed_experts\": %u,\n  \"num_experts_per_tok\": %u,\n", c->n_experts, c->n_active);
        fprintf(out, "  \"moe_intermediate_size\": %u,\n", c->moe_hidden);
    }
    if (c->n_experts && c->n_shared)
        fprintf(out, "  \"n_shared_experts\": %u,\n", c->n_shared);
    fprintf(out, "  \"norm_topk_prob\": %s,\n  \"scoring_func\": \"softmax\",\n", c->norm_topk ? "true" : "false");
    fprintf(out, "  \"routed_scaling_factor\": %s,\n", shortest(c->routed_scale, number));
    fprintf(out, "  \"aux_loss_alpha\": %s,\n", shortest(c->aux_alpha, number));
    fprintf(out, "  \"seq_aux\": %s,\n", c->seq_aux ? "true" : "false");
}

char *config_to_json(const struct Config *c, const char *torch_dtype) {
    bool deepseek = c->arch == ARCH_DEEPSEEK;
    char number[32], *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return xstrdup("{}\n");
    fprintf(out, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
            deepseek ? "DeepseekForCausalLM" : "LlamaForCausalLM", deepseek ? "deepseek" : "llama");
    fprintf(out, "  \"vocab_size\": %u,\n  \"hidden_size\": %u,\n", c->vocab_size, c->dim);
    fprintf(out, "  \"intermediate_size\": %u,\n  \"num_hidden_layers\": %u,\n", c->hidden, c->n_layers);
    fprintf(out, "  \"num_attention_heads\": %u,\n  \"num_key_value_heads\": %u,\n", c->n_heads, c->n_kv_heads);
    // DeepseekConfig knows no head_dim: it follows from the two others there.
    if (!deepseek || c->head_dim * c->n_heads != c->dim)
        fprintf(out, "  \"head_dim\": %u,\n", c->head_dim);
    fprintf(out, "  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n");
    if (!deepseek)
        fprintf(out, "  \"mlp_bias\": false,\n");
    fprintf(out, "  \"max_position_embeddings\": %u,\n", c->max_context);
    fprintf(out, "  \"rms_norm_eps\": %s,\n", shortest(c->norm_eps, number));
    fprintf(out, "  \"rope_theta\": %s,\n", shortest(c->rope_base, number));
    if (c->rope_linear == 1)
        fprintf(out, "  \"rope_scaling\": null,\n");
    else
        fprintf(out, "  \"rope_scaling\": {\"type\": \"linear\", \"factor\": %s},\n", shortest(c->rope_linear, number));
    if (deepseek)
        print_moe(out, c);
    fprintf(out, "  \"initializer_range\": %s,\n", shortest(c->init_std, number));
    print_token(out, "bos_token_id", c->bos_id);
    print_eos(out, c);
    print_token(out, "pad_token_id", c->pad_id);
    fprintf(out, "  \"tie_word_embeddings\": %s,\n  \"use_cache\": true,\n", c->tied_head ? "true" : "false");
    fprintf(out, "  \"torch_dtype\": \"%s\"\n}\n", torch_dtype);
    fclose(out);
    return text;
}

// ---- GGUF ----

struct GgufKeys {
    const struct Gguf *g;
    const char *arch;
    bool absent; // a key that a whole model needs was not there
};

static bool key_u32(struct GgufKeys *k, const char *name, bool needed, uint32_t *out) {
    char *key = xsprintf("%s.%s", k->arch, name);
    if (needed && !gguf_find(k->g, key))
        k->absent = true;
    bool ok = gguf_get_u32(k->g, key, false, out);
    free(key);
    return ok;
}

static bool key_f32(struct GgufKeys *k, const char *name, bool needed, float *out) {
    char *key = xsprintf("%s.%s", k->arch, name);
    if (needed && !gguf_find(k->g, key))
        k->absent = true;
    bool ok = gguf_get_f32(k->g, key, false, out);
    free(key);
    return ok;
}

static bool gguf_rope(struct Config *c, struct GgufKeys *k) {
    uint32_t rotated = c->head_dim;
    char *key = xsprintf("%s.rope.scaling.type", k->arch), *type = NULL;
    bool ok = gguf_get_string(k->g, key, false, &type);
    float factor = 1;
    if (ok && (!type || strcmp(type, "linear") == 0)) // linear is what llama.cpp takes where the type is not said
        ok = key_f32(k, "rope.scale_linear", false, &factor) && key_f32(k, "rope.scaling.factor", false, &factor);
    else if (ok && strcmp(type, "none") != 0)
        ok = fail("%s: %s is \"%s\", which is not supported; none and linear are", k->g->file.name, key, type);
    c->rope_linear = factor == 0 ? 1 : factor; // some files say 0 for none
    ok = ok && key_u32(k, "rope.dimension_count", false, &rotated);
    if (ok && rotated != c->head_dim)
        ok = fail("%s: %s.rope.dimension_count is %u, but a head has %u; rope over a part of the head is not supported",
                  k->g->file.name, k->arch, rotated, c->head_dim);
    free(key);
    free(type);
    return ok;
}

// Keys of an architecture that change the result where they are there; and those that say nothing about it.
static const char *const GGUF_REFUSED[] = {
    "attention.sliding_window", "attention.scale",
    "attention.clamp_kqv",      "attention.max_alibi_bias",
    "attention.causal",         "attn_logit_softcapping",
    "final_logit_softcapping",  "logit_scale",
    "embedding_scale",          "residual_scale",
    "use_parallel_residual",    "expert_group_count",
    "rope.scaling.attn_factor", "rope.scaling.yarn_log_multiplier",
    "attention.q_lora_rank",    "attention.kv_lora_rank",
    "nextn_predict_layers",
};
static const char *const GGUF_KNOWN[] = {
    "block_count",
    "embedding_length",
    "context_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.dimension_count",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "expert_feed_forward_length",
    "leading_dense_block_count",
    "expert_weights_scale",
    "expert_weights_norm",
    "expert_gating_func",
    "vocab_size",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "tensor_data_layout",
};

static bool gguf_switches(const struct GgufKeys *k) {
    char *names = NULL;
    size_t prefix = strlen(k->arch);
    for (uint64_t i = 0; i < k->g->n_values; i++) {
        const char *key = k->g->values[i].key, *name = key + prefix + 1;
        if (strncmp(key, k->arch, prefix) != 0 || key[prefix] != '.')
            continue;
        bool known = false;
        for (size_t r = 0; r < sizeof GGUF_REFUSED / sizeof *GGUF_REFUSED; r++) {
            if (strcmp(name, GGUF_REFUSED[r]) == 0) {
                free(names);
                return fail("%s: the key %s is not supported", k->g->file.name, key);
            }
        }
        for (size_t r = 0; r < sizeof GGUF_KNOWN / sizeof *GGUF_KNOWN && !known; r++)
            known = strcmp(name, GGUF_KNOWN[r]) == 0;
        if (known)
            continue;
        add_name(&names, key);
    }
    if (names)
        warn("%s: not known and not used: %s", k->g->file.name, names);
    free(names);
    return true;
}

static bool gguf_moe(struct Config *c, struct GgufKeys *k) {
    uint32_t gating = 1;
    char *key = xsprintf("%s.expert_weights_norm", k->arch);
    bool ok = key_u32(k, "expert_count", true, &c->n_experts) && key_u32(k, "expert_used_count", true, &c->n_active) &&
              key_u32(k, "expert_shared_count", false, &c->n_shared) &&
              key_u32(k, "expert_feed_forward_length", true, &c->moe_hidden) &&
              key_u32(k, "leading_dense_block_count", false, &c->first_dense) &&
              key_f32(k, "expert_weights_scale", false, &c->routed_scale) &&
              gguf_get_bool(k->g, key, false, &c->norm_topk) && key_u32(k, "expert_gating_func", false, &gating);
    free(key);
    if (ok && gating > 1)
        ok = fail("%s: %s.expert_gating_func is %u, which is not supported; 1 (softmax) is", k->g->file.name, k->arch,
                  gating);
    return ok;
}

static bool gguf_tokens(struct Config *c, const struct Gguf *g) {
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

static bool gguf_vocab_size(struct Config *c, struct GgufKeys *k) {
    const struct GgufTensor *embed = gguf_find_tensor(k->g, "token_embd.weight");
    const struct GgufString *tokens = NULL;
    uint64_t count = 0;
    if (!gguf_get_strings(k->g, "tokenizer.ggml.tokens", false, &tokens, &count) ||
        !key_u32(k, "vocab_size", false, &c->vocab_size))
        return false;
    uint64_t rows = embed ? embed->dim[0] : c->vocab_size ? c->vocab_size : count;
    if (tokens && rows != count)
        return fail("%s: the vocabulary has %llu tokens, but the embedding %llu rows", k->g->file.name,
                    (unsigned long long)count, (unsigned long long)rows);
    if (rows > MAX_VOCAB)
        return fail("%s: a vocabulary of %llu tokens; at most %d are accepted", k->g->file.name,
                    (unsigned long long)rows, MAX_VOCAB);
    c->vocab_size = (uint32_t)rows;
    return true;
}

bool config_from_gguf(struct Config *c, const struct Gguf *g, bool *complete) {
    *c = DEFAULTS;
    char *arch = NULL;
    if (!gguf_get_string(g, "general.architecture", true, &arch))
        return false;
    struct GgufKeys k = {.g = g, .arch = arch};
    bool ok = true;
    if (strcmp(arch, "llama") == 0)
        c->arch = ARCH_LLAMA;
    else if (strcmp(arch, "deepseek") == 0)
        c->arch = ARCH_DEEPSEEK;
    else
        ok = fail("%s: general.architecture \"%s\" is not supported; llama and deepseek are", g->file.name, arch);
    ok = ok && key_u32(&k, "block_count", true, &c->n_layers) && key_u32(&k, "embedding_length", true, &c->dim) &&
         key_u32(&k, "context_length", true, &c->max_context) && key_u32(&k, "feed_forward_length", true, &c->hidden) &&
         key_u32(&k, "attention.head_count", true, &c->n_heads) &&
         key_f32(&k, "attention.layer_norm_rms_epsilon", true, &c->norm_eps) &&
         key_f32(&k, "rope.freq_base", false, &c->rope_base);
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->n_heads && c->dim % c->n_heads == 0 ? c->dim / c->n_heads : 0;
    uint32_t value_length = 0;
    ok = ok && key_u32(&k, "attention.head_count_kv", false, &c->n_kv_heads) &&
         key_u32(&k, "attention.key_length", false, &c->head_dim);
    value_length = c->head_dim;
    ok = ok && key_u32(&k, "attention.value_length", false, &value_length);
    if (ok && value_length != c->head_dim)
        ok = fail("%s: %s.attention.value_length is %u, key_length %u; they must be equal", g->file.name, arch,
                  value_length, c->head_dim);
    ok = ok && gguf_rope(c, &k) && (c->arch == ARCH_LLAMA || gguf_moe(c, &k));
    uint32_t experts = 0;
    if (ok && c->arch == ARCH_LLAMA) {
        ok = key_u32(&k, "expert_count", false, &experts);
        if (ok && experts)
            ok = fail(
                "%s: llama.expert_count is %u: mixtures of experts are supported in the deepseek architecture only",
                g->file.name, experts);
    }
    ok = ok && gguf_tokens(c, g) && gguf_vocab_size(c, &k) && gguf_switches(&k);
    c->tied_head = g->n_tensors > 0 && !gguf_find_tensor(g, "output.weight");
    *complete = !k.absent;
    ok = ok && (k.absent ? check_tokens(c, g->file.name) : config_check(c, g->file.name));
    free(arch);
    return ok;
}

// ---- Presets and counts ----

static const char *const PRESET_NAMES[] = {
    "tiny", "tiny-moe", "smollm2-135m", "deepseek-moe-16b", "deepseek-llm-7b", "llama2-7b"};

const char *config_preset_names(void) {
    return "tiny, tiny-moe, smollm2-135m, deepseek-moe-16b, deepseek-llm-7b, llama2-7b";
}

static struct Config dense(uint32_t vocab, uint32_t dim, uint32_t layers, uint32_t heads, uint32_t kv,
                           uint32_t hidden) {
    struct Config c = DEFAULTS;
    c.vocab_size = vocab;
    c.dim = dim;
    c.n_layers = layers;
    c.n_heads = heads;
    c.n_kv_heads = kv;
    c.head_dim = dim / heads;
    c.hidden = hidden;
    c.n_eos = 1;
    return c;
}

static void experts(struct Config *c, uint32_t count, uint32_t active, uint32_t shared, uint32_t hidden) {
    c->arch = ARCH_DEEPSEEK;
    c->n_experts = count;
    c->n_active = active;
    c->n_shared = shared;
    c->moe_hidden = hidden;
    c->first_dense = 1;
}

bool config_preset(struct Config *c, const char *name) {
    size_t which = 0, n = sizeof PRESET_NAMES / sizeof *PRESET_NAMES;
    while (which < n && strcmp(PRESET_NAMES[which], name) != 0)
        which++;
    switch (which) {
    case 0:
    case 1:
        // The vocabulary of the byte tokenizer: 256 bytes, then the special tokens, then room.
        *c = dense(512, 64, 4, 4, which == 0 ? 2 : 4, which == 0 ? 192 : 256);
        c->max_context = 512;
        c->bos_id = 256;
        c->eos_id[0] = 257;
        if (which == 1)
            experts(c, 8, 3, 2, 32);
        return true;
    case 2:
        *c = dense(49152, 576, 30, 9, 3, 1536);
        c->max_context = 8192;
        c->norm_eps = 1e-5f;
        c->rope_base = 100000;
        c->tied_head = true;
        c->init_std = 0.041666666666666664f;
        c->bos_id = 1;
        c->eos_id[0] = c->pad_id = 2;
        return true;
    case 3:
        *c = dense(102400, 2048, 28, 16, 16, 10944);
        c->max_context = 4096;
        c->bos_id = 100000;
        c->eos_id[0] = 100001;
        experts(c, 64, 6, 2, 1408);
        return true;
    case 4:
        *c = dense(102400, 4096, 30, 32, 32, 11008);
        c->max_context = 4096;
        c->bos_id = 100000;
        c->eos_id[0] = 100001;
        return true;
    case 5:
        *c = dense(32000, 4096, 32, 32, 32, 11008);
        c->max_context = 4096;
        c->norm_eps = 1e-5f;
        c->bos_id = 1;
        c->eos_id[0] = 2;
        return true;
    default:
        return false;
    }
}

// Weights of all layers; `routed` experts of each MoE layer are counted.
static uint64_t layer_weights(const struct Config *c, uint64_t routed) {
    uint64_t dim = c->dim, head = c->head_dim, total = 0;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        total += 2 * dim * head * ((uint64_t)c->n_heads + c->n_kv_heads);
        if (config_is_moe(c, l))
            total += dim * c->n_experts + 3 * dim * c->moe_hidden * (routed + c->n_shared);
        else
            total += 3 * dim * c->hidden;
    }
    return total;
}

static uint64_t norm_weights(const struct Config *c) { return (2ull * c->n_layers + 1) * c->dim; }

uint64_t config_parameters(const struct Config *c) {
    uint64_t embed = (uint64_t)c->vocab_size * c->dim;
    return embed * (c->tied_head ? 1 : 2) + layer_weights(c, c->n_experts) + norm_weights(c);
}

uint64_t config_activated_parameters(const struct Config *c) {
    uint64_t embed = (uint64_t)c->vocab_size * c->dim;
    return embed * (c->tied_head ? 1 : 2) + layer_weights(c, c->n_active) + norm_weights(c);
}

double config_train_flops(const struct Config *c, uint64_t tokens) {
    double t = (double)tokens;
    double weights = (double)layer_weights(c, c->n_active) + (double)c->vocab_size * c->dim;
    double attention = 4 * t * t * (double)c->n_heads * c->head_dim * c->n_layers;
    return 3 * (2 * t * weights + attention);
}
