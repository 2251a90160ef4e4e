// config.json, both ways. One table says which members have which key in which architecture; what is read is honoured, a switch that would
// change the result and is not supported is refused by name, and keys that are not known at all are named in a warning.
#include "model/json.h"
#include "model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum Kind { U32, F32, BOOL };
enum {
    LLAMA = 1 << ARCH_LLAMA,
    DEEPSEEK = 1 << ARCH_DEEPSEEK,
    QWEN2 = 1 << ARCH_QWEN2,
    QWEN2MOE = 1 << ARCH_QWEN2MOE,
    OLMOE = 1 << ARCH_OLMOE,
    MISTRAL = 1 << ARCH_MISTRAL,
    ALL = (1 << ARCH_COUNT) - 1,
    EXPERTS = QWEN2MOE | OLMOE,        // whose keys of experts are all required
    NEWER = QWEN2 | QWEN2MOE | MISTRAL // whose defaults are not ours
};

struct Field {
    const char *key;
    enum Kind kind;
    unsigned archs, required;
    size_t offset;
    double min, max;
};

#define AT(member) offsetof(struct Config, member)
static const struct Field FIELDS[] = {
    {"vocab_size", U32, ALL, ALL, AT(vocab_size), 1, CONFIG_MAX_VOCAB},
    {"hidden_size", U32, ALL, ALL, AT(dim), 1, CONFIG_MAX_WIDTH},
    {"intermediate_size", U32, ALL & ~OLMOE, ALL, AT(hidden), 1, CONFIG_MAX_WIDTH},
    {"intermediate_size", U32, OLMOE, ALL, AT(moe_hidden), 1, CONFIG_MAX_WIDTH},
    {"num_hidden_layers", U32, ALL, ALL, AT(n_layers), 1, CONFIG_MAX_LAYERS},
    {"num_attention_heads", U32, ALL, ALL, AT(n_heads), 1, 1024},
    {"num_key_value_heads", U32, ALL, NEWER, AT(n_kv_heads), 1, 1024},
    {"head_dim", U32, ALL, 0, AT(head_dim), 8, CONFIG_MAX_HEAD_DIM},
    {"attention_bias", BOOL, LLAMA | DEEPSEEK | OLMOE, 0, AT(qkv_bias), 0, 0},
    {"qkv_bias", BOOL, QWEN2MOE, 0, AT(qkv_bias), 0, 0},
    {"mlp_bias", BOOL, LLAMA, 0, AT(mlp_bias), 0, 0},
    {"max_position_embeddings", U32, ALL, NEWER | OLMOE, AT(max_context), 1, CONFIG_MAX_CONTEXT},
    {"rms_norm_eps", F32, ALL, NEWER | OLMOE, AT(norm_eps), 0, 1},
    {"rope_theta", F32, ALL, 0, AT(rope_base), 1, 1e12},
    {"moe_layer_freq", U32, DEEPSEEK, 0, AT(moe_period), 1, CONFIG_MAX_LAYERS},
    {"decoder_sparse_step", U32, QWEN2MOE, 0, AT(moe_period), 1, CONFIG_MAX_LAYERS},
    {"first_k_dense_replace", U32, DEEPSEEK, 0, AT(first_dense), 0, CONFIG_MAX_LAYERS},
    {"n_routed_experts", U32, DEEPSEEK, 0, AT(n_experts), 0, CONFIG_MAX_EXPERTS},
    {"num_experts", U32, EXPERTS, ALL, AT(n_experts), 1, CONFIG_MAX_EXPERTS},
    {"num_experts_per_tok", U32, DEEPSEEK | EXPERTS, EXPERTS, AT(n_active), 0, CONFIG_MAX_EXPERTS},
    {"moe_intermediate_size", U32, DEEPSEEK | QWEN2MOE, QWEN2MOE, AT(moe_hidden), 0, CONFIG_MAX_WIDTH},
    {"n_shared_experts", U32, DEEPSEEK, 0, AT(n_shared), 0, 64},
    {"shared_expert_intermediate_size", U32, QWEN2MOE, ALL, AT(shared_hidden), 8, CONFIG_MAX_WIDTH},
    {"norm_topk_prob", BOOL, DEEPSEEK | EXPERTS, 0, AT(norm_topk), 0, 0},
    {"routed_scaling_factor", F32, DEEPSEEK, 0, AT(routed_scale), 0, 1e6},
    {"aux_loss_alpha", F32, DEEPSEEK, 0, AT(aux_alpha), 0, 1e6},
    {"seq_aux", BOOL, DEEPSEEK, 0, AT(seq_aux), 0, 0},
    {"router_aux_loss_coef", F32, EXPERTS, 0, AT(router_aux), 0, 1e6},
    {"initializer_range", F32, ALL, 0, AT(init_std), 0, 1},
    {"tie_word_embeddings", BOOL, ALL, 0, AT(tied_head), 0, 0},
};
enum { N_FIELDS = sizeof FIELDS / sizeof *FIELDS };

static const struct {
    const char *key;
    enum Kind kind;
    size_t offset;
} SAMPLING[] = {
    {"do_sample", BOOL, AT(sampling.do_sample)}, {"temperature", F32, AT(sampling.temperature)},
    {"top_k", U32, AT(sampling.top_k)},          {"top_p", F32, AT(sampling.top_p)},
    {"min_p", F32, AT(sampling.min_p)},          {"repetition_penalty", F32, AT(sampling.repetition_penalty)},
};
enum { N_SAMPLING = sizeof SAMPLING / sizeof *SAMPLING };

// Switches with the values that change nothing here (compact JSON, separated by '|'); null and absence always pass.
static const struct {
    const char *key, *accepted;
    unsigned archs;
} SWITCHES[] = {
    {"hidden_act", "\"silu\"|\"swish\"", ALL},
    {"attention_bias", "false", NEWER},
    {"mlp_bias", "false", ALL & ~LLAMA},
    {"attention_dropout", "0|0.0", ALL},
    {"hidden_dropout", "0|0.0", ALL},
    {"scoring_func", "\"softmax\"", ALL},
    {"topk_method", "\"greedy\"", ALL},
    {"n_group", "0|1", ALL},
    {"topk_group", "0|1", ALL},
    {"sliding_window", "", LLAMA | DEEPSEEK | OLMOE},
    {"use_sliding_window", "false", ALL},
    {"quantization_config", "", ALL},
    {"rope_interleaved", "false", ALL},
    {"partial_rotary_factor", "1|1.0", ALL},
    {"use_qk_norm", "false", ALL},
    {"qk_layernorm", "false", ALL},
    {"attn_logit_softcapping", "", ALL},
    {"final_logit_softcapping", "", ALL},
    {"embedding_multiplier", "1|1.0", ALL},
    {"residual_multiplier", "1|1.0", ALL},
    {"attention_multiplier", "", ALL},
    {"logits_scaling", "1|1.0", ALL},
    {"logit_scale", "1|1.0", ALL},
    {"scale_emb", "1|1.0", ALL},
    {"scale_depth", "", ALL},
    {"clip_qkv", "", ALL},
    {"no_rope_layers", "[]", ALL},
    {"q_lora_rank", "", ALL},
    {"kv_lora_rank", "", ALL},
    {"num_nextn_predict_layers", "0", ALL},
    {"n_predict", "0", ALL},
    {"is_encoder_decoder", "false", ALL},
    {"add_cross_attention", "false", ALL},
    {"pruned_heads", "{}", ALL},
    {"use_parallel_residual", "false", ALL},
    {"alibi", "false", ALL},
    {"router_jitter_noise", "0|0.0", ALL},
    // transformers then adds a balance loss over all layers together, which is no sum of ours over layers.
    {"output_router_logits", "false", EXPERTS},
};

// Keys with a reader of their own below, and keys that say nothing about the computation.
static const char *const KNOWN[] = {
    "rope_scaling",
    "rope_parameters",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "layer_types",
    "mlp_only_layers",
    "sliding_window",
    "max_window_layers", // counts where use_sliding_window is true
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

const char *config_key(enum Arch arch, size_t offset) {
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (FIELDS[i].offset == offset && FIELDS[i].archs >> arch & 1)
            return FIELDS[i].key;
    }
    return "an internal number";
}

// ---- Reading ----

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

static bool check_switches(const json_t *root, unsigned arch, const char *where) {
    for (size_t i = 0; i < sizeof SWITCHES / sizeof *SWITCHES; i++) {
        const json_t *value = json_object_get(root, SWITCHES[i].key);
        if (!value || json_is_null(value) || !(SWITCHES[i].archs & arch))
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

// A window as wide as the context is none.
static bool check_window(const json_t *root, uint32_t max_context, const char *where) {
    uint32_t window = UINT32_MAX;
    return json_get_u32(root, "sliding_window", 0, UINT32_MAX, &window, where) &&
           (window >= max_context ||
            fail("%s: sliding_window is %u, which is not supported below max_position_embeddings (%u)", where, window,
                 max_context));
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
        for (size_t i = 0; !known && i < N_FIELDS; i++)
            known = strcmp(FIELDS[i].key, key) == 0;
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
    c->arch = 0;
    while (c->arch < ARCH_COUNT && strcmp(type, ARCHS[c->arch].model_type) != 0)
        c->arch++;
    if (c->arch == ARCH_COUNT) {
        c->arch = ARCH_LLAMA;
        return fail("%s: model_type \"%s\" is not supported; llama, mistral, qwen2, deepseek, qwen2_moe and olmoe are",
                    where, type);
    }
    const char *class_name = ARCHS[c->arch].class_name;
    const json_t *names = json_object_get(root, "architectures");
    if (!names || json_is_null(names))
        return true;
    const char *name = json_string_value(json_array_get(names, 0));
    if (json_array_size(names) != 1 || !name || strcmp(name, class_name) != 0)
        return fail("%s: architectures names %s; for model_type \"%s\" only [\"%s\"] is supported", where,
                    name ? name : "nothing", type, class_name);
    return true;
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
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > CONFIG_MAX_VOCAB)
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
    return json_get_u32(root, key, 0, CONFIG_MAX_VOCAB, id, where);
}

static bool read_field(struct Config *c, const json_t *root, const struct Field *f, const char *where) {
    void *out = (char *)c + f->offset;
    const json_t *value = json_object_get(root, f->key);
    if ((f->required >> c->arch & 1) && (!value || json_is_null(value)))
        return fail("%s: %s is missing", where, f->key);
    if (f->kind == U32)
        return json_get_u32(root, f->key, (uint32_t)f->min, (uint32_t)f->max, out, where);
    if (f->kind == F32)
        return json_get_float(root, f->key, (float)f->min, (float)f->max, out, where);
    return json_get_bool(root, f->key, out, where);
}

// Layers of Qwen2-MoE that keep a dense FFN.
static bool read_mlp_only(struct Config *c, const json_t *root, const char *where) {
    const json_t *list = json_object_get(root, "mlp_only_layers"), *item;
    size_t i;
    if (list && !json_is_null(list) && !json_is_array(list))
        return fail("%s: mlp_only_layers must be a list of layers", where);
    json_array_foreach(list, i, item) {
        json_int_t layer = json_is_integer(item) ? json_integer_value(item) : -1;
        if (layer < 0 || layer >= (json_int_t)c->n_layers)
            return fail("%s: mlp_only_layers: a layer from 0 to %u is expected", where, c->n_layers - 1);
        c->mlp_only[layer / 8] |= (uint8_t)(1 << layer % 8);
    }
    return true;
}

// What an architecture does without saying so.
static void set_own_ways(struct Config *c) {
    switch (c->arch) {
    case ARCH_QWEN2:
        c->qkv_bias = true;
        break;
    case ARCH_QWEN2MOE:
        c->qkv_bias = c->shared_gate = true;
        c->moe_phase = 1;
        break;
    case ARCH_OLMOE:
        c->qk_norm = true;
        break;
    default:
        break;
    }
    if (1 << c->arch & EXPERTS)
        c->aux_alpha = 0, c->seq_aux = false;
}

static bool read_config(struct Config *c, json_t *root, const char *where) {
    if (!json_is_object(root))
        return fail("%s: an object is expected", where);
    *c = config_defaults();
    if (!read_arch(c, root, where) || !check_switches(root, 1u << c->arch, where))
        return false;
    set_own_ways(c);
    for (size_t i = 0; i < N_FIELDS; i++) {
        if ((FIELDS[i].archs >> c->arch & 1) && !read_field(c, root, &FIELDS[i], where))
            return false;
    }
    if (!rope_from_json(c, json_object_get(root, "rope_scaling"), "rope_scaling", where) ||
        !rope_from_json(c, json_object_get(root, "rope_parameters"), "rope_parameters", where) ||
        !read_token(root, "bos_token_id", &c->bos_id, where) || !read_token(root, "pad_token_id", &c->pad_id, where) ||
        !read_eos(c, root, where) || (c->arch == ARCH_QWEN2MOE && !read_mlp_only(c, root, where)) ||
        (c->arch == ARCH_MISTRAL && !check_window(root, c->max_context, where)))
        return false;
    if (c->n_kv_heads == 0)
        c->n_kv_heads = c->n_heads;
    if (1 << c->arch & (LLAMA | DEEPSEEK | OLMOE))
        c->o_bias = c->qkv_bias;
    if (c->arch == ARCH_OLMOE)
        c->hidden = c->moe_hidden;
    if (c->head_dim == 0) {
        if (c->dim % c->n_heads)
            return fail("%s: hidden_size %u is no multiple of num_attention_heads %u, and head_dim is missing", where,
                        c->dim, c->n_heads);
        c->head_dim = c->dim / c->n_heads;
    }
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

// What is of another type than it should be is left out: nothing depends on it.
static void read_sampling(struct Config *c, const json_t *root) {
    for (size_t i = 0; i < N_SAMPLING; i++) {
        const json_t *value = json_object_get(root, SAMPLING[i].key);
        float *out = (float *)((char *)c + SAMPLING[i].offset);
        bool fits = SAMPLING[i].kind == BOOL  ? json_is_boolean(value)
                    : SAMPLING[i].kind == U32 ? json_is_integer(value)
                                              : json_is_number(value);
        double x = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
        *out = fits && x >= 0 && x <= 1e6 ? (float)x : NAN;
    }
}

bool config_generation_from_json(struct Config *c, const char *text, size_t bytes, const char *where) {
    json_t *root = json_parse(text, bytes, where);
    bool ok = root && (json_is_object(root) || fail("%s: an object is expected", where)) && read_eos(c, root, where) &&
              config_check_tokens(c, where);
    if (ok)
        read_sampling(c, root);
    json_decref(root);
    return ok;
}

// ---- Writing ----

bool config_check_json(const struct Config *c, const char *where) {
    unsigned arch = 1u << c->arch;
    const char *name = ARCHS[c->arch].class_name;
    if (c->arch == ARCH_DEEPSEEK && c->n_heads * c->head_dim != c->dim)
        return fail("%s: published DeepseekForCausalLM has no head_dim; n_heads * head_dim must be hidden_size", where);
    bool o_bias = arch & (LLAMA | DEEPSEEK | OLMOE) ? c->qkv_bias : false;
    bool qkv_bias = arch & QWEN2 ? true : arch & MISTRAL ? false : c->qkv_bias;
    if (c->qkv_bias != qkv_bias || c->o_bias != o_bias || (c->mlp_bias && c->arch != ARCH_LLAMA))
        return fail("%s: %s has no place for biases%s%s%s alone", where, name, c->qkv_bias ? " of q, k and v" : "",
                    c->o_bias ? " of o" : "", c->mlp_bias ? " of the FFN" : "");
    return rope_check_json(c, where);
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

static void print_field(FILE *out, const struct Config *c, const struct Field *f) {
    const void *value = (const char *)c + f->offset;
    char number[32];
    uint32_t u;
    float x;
    switch (f->kind) {
    case U32: // 0 is what absence means, and the published code asks whether a key is there
        memcpy(&u, value, sizeof u);
        if (u)
            fprintf(out, "  \"%s\": %u,\n", f->key, u);
        break;
    case F32:
        memcpy(&x, value, sizeof x);
        fprintf(out, "  \"%s\": %s,\n", f->key, shortest(x, number));
        break;
    default:
        fprintf(out, "  \"%s\": %s,\n", f->key, *(const bool *)value ? "true" : "false");
    }
}

static void print_mlp_only(FILE *out, const struct Config *c) {
    bool first = true;
    fprintf(out, "  \"mlp_only_layers\": [");
    for (uint32_t l = 0; l < c->n_layers; l++) {
        if (!(c->mlp_only[l / 8] >> l % 8 & 1))
            continue;
        fprintf(out, "%s%u", first ? "" : ", ", l);
        first = false;
    }
    fprintf(out, "],\n");
}

char *config_to_json(const struct Config *c, const char *torch_dtype) {
    char *text;
    size_t bytes;
    FILE *out = text_begin(&text, &bytes);
    fprintf(out, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n", ARCHS[c->arch].class_name,
            ARCHS[c->arch].model_type);
    fprintf(out, "  \"hidden_act\": \"silu\",\n  \"attention_dropout\": 0.0,\n");
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct Field *f = &FIELDS[i];
        // DeepseekConfig knows no head_dim: it follows from the two others there.
        bool follows = c->arch == ARCH_DEEPSEEK && f->offset == AT(head_dim) && c->head_dim * c->n_heads == c->dim;
        if ((f->archs >> c->arch & 1) && !follows)
            print_field(out, c, f);
    }
    rope_print_json(out, c);
    if (c->arch == ARCH_DEEPSEEK)
        fprintf(out, "  \"scoring_func\": \"softmax\",\n");
    if (c->arch == ARCH_QWEN2MOE)
        print_mlp_only(out, c);
    if (1 << c->arch & (QWEN2 | QWEN2MOE))
        fprintf(out, "  \"use_sliding_window\": false,\n");
    if (c->arch == ARCH_MISTRAL)
        fprintf(out, "  \"sliding_window\": null,\n");
    print_token(out, "bos_token_id", c->bos_id);
    print_eos(out, c);
    print_token(out, "pad_token_id", c->pad_id);
    fprintf(out, "  \"use_cache\": true,\n  \"torch_dtype\": \"%s\"\n}\n", torch_dtype);
    text_end(out);
    return text;
}

char *config_generation_to_json(const struct Config *c) {
    char *text, number[32];
    size_t bytes;
    FILE *out = text_begin(&text, &bytes);
    fprintf(out, "{\n");
    print_token(out, "bos_token_id", c->bos_id);
    print_eos(out, c);
    for (size_t i = 0; i < N_SAMPLING; i++) {
        float x;
        memcpy(&x, (const char *)c + SAMPLING[i].offset, sizeof x);
        if (isnan(x))
            continue;
        fprintf(out, "  \"%s\": ", SAMPLING[i].key);
        if (SAMPLING[i].kind == F32)
            fprintf(out, "%s,\n", shortest(x, number));
        else if (SAMPLING[i].kind == U32)
            fprintf(out, "%.0f,\n", (double)x);
        else
            fprintf(out, "%s,\n", x != 0 ? "true" : "false");
    }
    // The last one, without a comma.
    if (c->pad_id == UINT32_MAX)
        fprintf(out, "  \"pad_token_id\": null\n}\n");
    else
        fprintf(out, "  \"pad_token_id\": %u\n}\n", c->pad_id);
    text_end(out);
    return text;
}
