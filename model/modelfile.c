// Opening a model: config, tokenizer's source, and a table from our names to places in files, checked against the config before
// anything is loaded.
#include "model/modelfile.h"
#include "model/ggufsplit.h"
#include "model/json.h"
#include "model/quant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_INDEX_BYTES = 64 << 20, MAX_SHARDS = 1024 };

// ---- The weights a config asks for ----

struct SpecList {
    struct WeightSpec *items;
    uint32_t count;
    uint32_t layer;
};

static void add_spec(struct SpecList *s, enum WeightRole role, const char *name, const char *gguf, uint32_t a,
                     uint32_t b, uint32_t c) {
    struct WeightSpec *w = &s->items[s->count++];
    *w = (struct WeightSpec){.role = role, .layer = s->layer, .n_dims = c ? 3 : b ? 2 : 1, .dim = {a, 1, 1, 1}};
    if (b)
        w->dim[1] = b;
    if (c)
        w->dim[2] = c;
    if (s->layer == UINT32_MAX) {
        snprintf(w->name, sizeof w->name, "%s", name);
        snprintf(w->gguf, sizeof w->gguf, "%s", gguf);
    } else {
        snprintf(w->name, sizeof w->name, "model.layers.%u.%s", s->layer, name);
        snprintf(w->gguf, sizeof w->gguf, "blk.%u.%s", s->layer, gguf);
    }
}

// A linear layer of a block: its weight, and its bias where there is one. Names without the last part.
static void add_linear(struct SpecList *s, enum WeightRole role, const char *name, const char *gguf, uint32_t out,
                       uint32_t in, bool bias) {
    char weight[96], weight_gguf[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(weight_gguf, sizeof weight_gguf, "%s.weight", gguf);
    add_spec(s, role, weight, weight_gguf, out, in, 0);
    if (!bias)
        return;
    snprintf(weight, sizeof weight, "%s.bias", name);
    snprintf(weight_gguf, sizeof weight_gguf, "%s.bias", gguf);
    add_spec(s, ROLE_BIAS, weight, weight_gguf, out, 0, 0);
}

static void add_shared(struct SpecList *s, const struct Config *c) {
    static const char *const PARTS[] = {"gate", "up", "down"};
    uint32_t width = config_shared_width(c);
    for (int i = 0; i < 3 && width; i++) {
        char name[64], gguf[32];
        snprintf(name, sizeof name, "mlp.%s.%s_proj", c->shared_gate ? "shared_expert" : "shared_experts", PARTS[i]);
        snprintf(gguf, sizeof gguf, "ffn_%s_shexp", PARTS[i]);
        add_linear(s, ROLE_SHARED, name, gguf, i < 2 ? width : c->dim, i < 2 ? c->dim : width, false);
    }
    if (c->shared_gate)
        add_spec(s, ROLE_SHARED_GATE, "mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", 1, c->dim, 0);
}

static void add_ffn(struct SpecList *s, const struct Config *c) {
    if (!config_is_moe(c, s->layer)) {
        add_linear(s, ROLE_FFN, "mlp.gate_proj", "ffn_gate", c->hidden, c->dim, c->mlp_bias);
        add_linear(s, ROLE_FFN, "mlp.up_proj", "ffn_up", c->hidden, c->dim, c->mlp_bias);
        add_linear(s, ROLE_FFN, "mlp.down_proj", "ffn_down", c->dim, c->hidden, c->mlp_bias);
        return;
    }
    uint32_t e = c->n_experts;
    add_spec(s, ROLE_ROUTER, "mlp.gate.weight", "ffn_gate_inp.weight", e, c->dim, 0);
    add_spec(s, ROLE_EXPERTS, "mlp.experts.gate_proj.weight", "ffn_gate_exps.weight", e, c->moe_hidden, c->dim);
    add_spec(s, ROLE_EXPERTS, "mlp.experts.up_proj.weight", "ffn_up_exps.weight", e, c->moe_hidden, c->dim);
    add_spec(s, ROLE_EXPERTS, "mlp.experts.down_proj.weight", "ffn_down_exps.weight", e, c->dim, c->moe_hidden);
    add_shared(s, c);
}

struct WeightSpec *weight_list(const struct Config *c, uint32_t *count) {
    struct SpecList s = {.items = xcalloc(20u * c->n_layers + 3, sizeof *s.items), .layer = UINT32_MAX};
    uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    add_spec(&s, ROLE_EMBED, "model.embed_tokens.weight", "token_embd.weight", c->vocab_size, c->dim, 0);
    for (s.layer = 0; s.layer < c->n_layers; s.layer++) {
        add_spec(&s, ROLE_NORM, "input_layernorm.weight", "attn_norm.weight", c->dim, 0, 0);
        add_linear(&s, ROLE_Q, "self_attn.q_proj", "attn_q", q, c->dim, c->qkv_bias);
        add_linear(&s, ROLE_K, "self_attn.k_proj", "attn_k", kv, c->dim, c->qkv_bias);
        add_linear(&s, ROLE_V, "self_attn.v_proj", "attn_v", kv, c->dim, c->qkv_bias);
        if (c->qk_norm) {
            add_spec(&s, ROLE_NORM, "self_attn.q_norm.weight", "attn_q_norm.weight", q, 0, 0);
            add_spec(&s, ROLE_NORM, "self_attn.k_norm.weight", "attn_k_norm.weight", kv, 0, 0);
        }
        add_linear(&s, ROLE_O, "self_attn.o_proj", "attn_output", c->dim, q, c->o_bias);
        add_spec(&s, ROLE_NORM, "post_attention_layernorm.weight", "ffn_norm.weight", c->dim, 0, 0);
        add_ffn(&s, c);
    }
    s.layer = UINT32_MAX;
    add_spec(&s, ROLE_NORM, "model.norm.weight", "output_norm.weight", c->dim, 0, 0);
    if (!c->tied_head)
        add_spec(&s, ROLE_HEAD, "lm_head.weight", "output.weight", c->vocab_size, c->dim, 0);
    *count = s.count;
    return s.items;
}

bool weight_has_heads(const struct WeightSpec *w) {
    return w->role == ROLE_Q || w->role == ROLE_K ||
           (w->role == ROLE_BIAS && (strstr(w->name, ".q_proj.") || strstr(w->name, ".k_proj.")));
}

void weight_expert_name(const struct WeightSpec *w, uint32_t e, char *out, size_t room) {
    // "model.layers.3.mlp.experts." + number + ".gate_proj.weight"
    const char *middle = strstr(w->name, ".experts.");
    size_t before = middle ? (size_t)(middle - w->name) + strlen(".experts.") : 0;
    snprintf(out, room, "%.*s%u.%s", (int)before, w->name, e, w->name + before);
}

// ---- Tensors ----

static bool usable_type(const char *file, const char *name, enum DType type, const char *type_name,
                        const struct WeightSpec *w, bool gguf) {
    bool known = type != DT_COUNT && type != DT_U32;
    if (!known)
        return fail("%s: tensor %s is of type %s; %s is expected", file, name, type_name,
                    gguf ? "F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS" : "F32, F16 or BF16");
    if (dtype_is_quantised(type) && w->n_dims == 1)
        return fail("%s: tensor %s is of type %s; a norm or a bias must be F32, F16 or BF16", file, name, type_name);
    return true;
}

static bool same_shape(const char *file, const char *name, uint32_t n_dims, const uint64_t *dim, uint32_t expected_dims,
                       const uint32_t *expected) {
    bool same = n_dims == expected_dims;
    for (uint32_t i = 0; same && i < n_dims; i++)
        same = dim[i] == expected[i];
    if (same)
        return true;
    char found[128] = "", wanted[64] = "";
    for (uint32_t i = 0, at = 0; i < n_dims && at + 24 < sizeof found; i++)
        at += (uint32_t)snprintf(found + at, sizeof found - at, "%s%" PRIu64, i ? ", " : "", dim[i]);
    for (uint32_t i = 0, at = 0; i < expected_dims; i++)
        at += (uint32_t)snprintf(wanted + at, sizeof wanted - at, "%s%u", i ? ", " : "", expected[i]);
    return fail("%s: tensor %s has the shape (%s); the config asks for (%s)", file, name, found, wanted);
}

static bool finish_tensor(struct FileTensor *t, const char *file, uint32_t n_parts) {
    t->cols = t->spec.dim[t->spec.n_dims - 1];
    t->n_rows = 1;
    for (uint32_t i = 0; i + 1 < t->spec.n_dims; i++)
        t->n_rows *= t->spec.dim[i];
    if (t->cols % DTYPES[t->type].block)
        return fail("%s: tensor %s: rows of %" PRIu64 " do not fit the blocks of %s", file, t->spec.name, t->cols,
                    DTYPES[t->type].name);
    t->row_bytes = dtype_file_row_bytes(t->type, t->cols);
    t->rows_per_part = t->n_rows / n_parts;
    return true;
}

// A folder's tensors by name: in one file, or where the index says.
struct Folder {
    struct ModelFile *f;
    json_t *weight_map; // NULL: one file
    const char **shard_names;
    uint8_t **used; // per shard, per entry
};

static const struct SafetensorsEntry *folder_find(const struct Folder *d, const char *name, uint32_t *shard) {
    *shard = 0;
    if (d->weight_map) {
        const char *file = json_string_value(json_object_get(d->weight_map, name));
        if (!file)
            return NULL;
        while (strcmp(d->shard_names[*shard], file) != 0)
            ++*shard;
    }
    const struct SafetensorsEntry *e = safetensors_find(&d->f->safetensors[*shard], name);
    if (e)
        d->used[*shard][e - d->f->safetensors[*shard].entries] = 1;
    return e;
}

static bool bind_folder_tensor(struct Folder *d, struct FileTensor *t) {
    struct WeightSpec *w = &t->spec;
    bool experts = w->role == ROLE_EXPERTS;
    uint32_t n_parts = experts ? w->dim[0] : 1;
    t->parts = xcalloc(n_parts, sizeof *t->parts);
    for (uint32_t p = 0; p < n_parts; p++) {
        char name[sizeof w->name + 12];
        if (experts)
            weight_expert_name(w, p, name, sizeof name);
        else
            snprintf(name, sizeof name, "%s", w->name);
        uint32_t shard;
        const struct SafetensorsEntry *e = folder_find(d, name, &shard);
        if (!e)
            return fail("%s: tensor %s is missing", d->f->path, name);
        const char *file = d->f->safetensors[shard].file.name;
        if (!usable_type(file, name, e->type, e->type_name, w, false) ||
            !same_shape(file, name, e->n_dims, e->dim, experts ? 2 : w->n_dims, experts ? w->dim + 1 : w->dim))
            return false;
        if (p > 0 && e->type != t->type)
            return fail("%s: tensor %s is of type %s, the experts before it of %s", file, name, e->type_name,
                        DTYPES[t->type].name);
        t->type = e->type;
        t->parts[p] = (struct FilePart){shard, e->offset};
    }
    return finish_tensor(t, d->f->path, n_parts);
}

static bool bind_gguf_tensor(struct ModelFile *f, struct FileTensor *t) {
    uint32_t part = 0;
    const struct GgufTensor *e = ggufsplit_find(f->gguf, f->n_gguf, t->spec.gguf, &part);
    if (!e)
        return fail("%s: tensor %s is missing", f->path, t->spec.gguf);
    const char *file = f->gguf[part].file.name;
    // A single row may be stored as a vector.
    bool row = t->spec.n_dims == 2 && t->spec.dim[0] == 1 && e->n_dims == 1;
    if (!usable_type(file, e->name, e->type, e->type_name, &t->spec, true) ||
        !same_shape(file, e->name, e->n_dims, e->dim, row ? 1 : t->spec.n_dims, row ? t->spec.dim + 1 : t->spec.dim))
        return false;
    t->type = e->type;
    t->parts = xcalloc(1, sizeof *t->parts);
    t->parts[0] = (struct FilePart){part, e->offset};
    if (weight_has_heads(&t->spec) && ARCHS[f->config.arch].gguf_pairs)
        t->rope_head = f->config.head_dim;
    return finish_tensor(t, file, 1);
}

// Names what is there and not used: one line with the first few. A weight of a layer among them (a bias, a layer more than the config has)
// would change the result: without it this is another model than the file's.
struct Extras {
    uint64_t count;
    bool of_layer;
    char text[256];
};

static void add_extra(struct Extras *x, const char *name) {
    size_t at = strlen(x->text);
    if (x->count++ < 4)
        snprintf(x->text + at, sizeof x->text - at, "%s%s", at ? ", " : "", name);
    x->of_layer |= strncmp(name, "model.layers.", 13) == 0 || strncmp(name, "blk.", 4) == 0;
}

static bool tell_extras(const struct Extras *x, const char *path) {
    const char *more = x->count > 4 ? ", ..." : "";
    if (x->of_layer)
        return fail("%s: the config asks for no such weights, but they are there: %s%s (%" PRIu64 " in all)", path,
                    x->text, more, x->count);
    if (x->count)
        warn("%s: %" PRIu64 " tensors are not used: %s%s", path, x->count, x->text, more);
    return true;
}

static bool tell_folder_extras(const struct Folder *d) {
    struct Extras x = {0};
    for (uint32_t s = 0; s < d->f->n_shards; s++) {
        const struct Safetensors *file = &d->f->safetensors[s];
        for (uint32_t i = 0; i < file->n_entries; i++) {
            const char *name = file->entries[i].name;
            // The frequencies of rope are computed; a tied head is the embedding.
            if (d->used[s][i] || ends_with(name, "rotary_emb.inv_freq") ||
                (d->f->config.tied_head && strcmp(name, "lm_head.weight") == 0))
                continue;
            add_extra(&x, name);
        }
    }
    return tell_extras(&x, d->f->path);
}

static int by_spec_name(const void *a, const void *b) {
    return strcmp(((const struct FileTensor *)a)->spec.name, ((const struct FileTensor *)b)->spec.name);
}

static bool bind_tensors(struct ModelFile *f, struct Folder *d) {
    struct WeightSpec *specs = weight_list(&f->config, &f->n_tensors);
    f->tensors = xcalloc(f->n_tensors, sizeof *f->tensors);
    for (uint32_t i = 0; i < f->n_tensors; i++)
        f->tensors[i].spec = specs[i];
    free(specs);
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        if (!(d ? bind_folder_tensor(d, &f->tensors[i]) : bind_gguf_tensor(f, &f->tensors[i])))
            return false;
    }
    qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_spec_name);
    return true;
}

static bool is_bound(const struct ModelFile *f, uint32_t part, const struct GgufTensor *e) {
    for (uint32_t k = 0; k < f->n_tensors; k++)
        if (f->tensors[k].parts[0].shard == part && f->tensors[k].parts[0].offset == e->offset)
            return true;
    return strcmp(e->name, "rope_freqs.weight") == 0;
}

// Opens a GGUF, all parts of it: whether there is a head, and whether there are biases, only their tensors say.
static bool open_gguf(struct ModelFile *f) {
    f->gguf = xcalloc(1, sizeof *f->gguf);
    f->n_gguf = 1;
    if (!gguf_open(f->gguf, f->path) || !ggufsplit_count(f->gguf, f->path, &f->n_shards))
        return false;
    f->gguf = xrealloc(f->gguf, f->n_shards * sizeof *f->gguf);
    if (!ggufsplit_open(f->gguf, f->n_shards, f->path))
        return false;
    f->n_gguf = f->n_shards;
    return true;
}

static bool bind_gguf(struct ModelFile *f) {
    uint32_t n = f->n_gguf;
    f->shards = xcalloc(n, sizeof *f->shards);
    for (uint32_t p = 0; p < n; p++)
        f->shards[p] = &f->gguf[p].file;
    // The config, which rope's divisors belong to, was read from the first part.
    for (uint32_t p = 1; p < n; p++)
        if (gguf_find_tensor(&f->gguf[p], "rope_freqs.weight"))
            return fail("%s: rope_freqs.weight is expected in the first part, not here", f->gguf[p].file.name);
    if (!bind_tensors(f, NULL))
        return false;
    struct Extras x = {0};
    for (uint32_t p = 0; p < n; p++)
        for (uint64_t i = 0; i < f->gguf[p].n_tensors; i++)
            if (!is_bound(f, p, &f->gguf[p].tensors[i]))
                add_extra(&x, f->gguf[p].tensors[i].name);
    return tell_extras(&x, f->path);
}

// ---- Folders ----

static char *existing(const char *dir, const char *name) {
    char *path = path_join(dir, name);
    if (file_exists(path))
        return path;
    free(path);
    return NULL;
}

static bool has_file(const char *dir, const char *name) {
    char *path = existing(dir, name);
    free(path);
    return path;
}

// Opens the shards the index names; a name with a path in it is refused.
static bool open_shards(struct ModelFile *f, struct Folder *d) {
    size_t n_names = d->weight_map ? json_object_size(d->weight_map) : 1;
    size_t room = n_names < MAX_SHARDS ? n_names : MAX_SHARDS;
    d->shard_names = xcalloc(room + 1, sizeof *d->shard_names);
    d->used = xcalloc(room + 1, sizeof *d->used);
    f->safetensors = xcalloc(room + 1, sizeof *f->safetensors);
    f->shards = xcalloc(room + 1, sizeof *f->shards);
    uint32_t n_found = 0;
    if (!d->weight_map) {
        d->shard_names[n_found++] = "model.safetensors";
    } else {
        const char *tensor;
        json_t *value;
        json_object_foreach(d->weight_map, tensor, value) {
            const char *name = json_string_value(value);
            if (!name || strchr(name, '/') || !ends_with(name, ".safetensors"))
                return fail("%s: model.safetensors.index.json: the file of %s is not a plain *.safetensors name",
                            f->path, tensor);
            uint32_t i = 0;
            while (i < n_found && strcmp(d->shard_names[i], name) != 0)
                i++;
            if (i == n_found && n_found == room)
                return fail("%s: model.safetensors.index.json names more than %d files", f->path, MAX_SHARDS);
            if (i == n_found)
                d->shard_names[n_found++] = name;
        }
    }
    for (uint32_t i = 0; i < n_found; i++) {
        char *path = path_join(f->path, d->shard_names[i]);
        bool ok = safetensors_open(&f->safetensors[i], path);
        free(path);
        if (!ok)
            return false;
        f->n_shards++;
        f->shards[i] = &f->safetensors[i].file;
        d->used[i] = xcalloc(f->safetensors[i].n_entries, 1);
    }
    return true;
}

static bool open_folder_tensors(struct ModelFile *f) {
    struct Folder d = {.f = f};
    json_t *index = NULL;
    bool ok = true, whole = has_file(f->path, "model.safetensors"),
         indexed = has_file(f->path, "model.safetensors.index.json");
    // As transformers chooses, which leaves the index of earlier shards where it is when it saves a model that fits one file.
    if (whole && indexed)
        warn("%s: model.safetensors is read, and not the files that model.safetensors.index.json names", f->path);
    if (!whole && indexed) {
        char *path = path_join(f->path, "model.safetensors.index.json");
        index = json_parse_file(path, MAX_INDEX_BYTES);
        d.weight_map = json_object_get(index, "weight_map");
        ok = index && (json_object_size(d.weight_map) > 0 || fail("%s: weight_map is missing or empty", path));
        free(path);
    } else if (!whole) {
        bool pickle = has_file(f->path, "pytorch_model.bin") || has_file(f->path, "pytorch_model.bin.index.json");
        ok = fail("%s: no model.safetensors in this folder%s", f->path,
                  pickle ? "; pytorch_model.bin is not read, because a pickle can run code: convert it to safetensors"
                         : "");
    }
    ok = ok && open_shards(f, &d) && bind_tensors(f, &d) && tell_folder_extras(&d);
    for (uint32_t i = 0; d.used && i < f->n_shards; i++)
        free(d.used[i]);
    free(d.used);
    free(d.shard_names);
    json_decref(index);
    return ok;
}

static bool read_text(const char *dir, const char *name, char **text, uint64_t *bytes) {
    char *path = path_join(dir, name);
    uint8_t *data = NULL;
    bool ok = file_read(path, MAX_CONFIG_BYTES, &data, bytes);
    free(path);
    *text = (char *)data;
    return ok;
}

// The template of a tokenizer_config.json or chat_template.json: a text, or a list of named ones with one called "default".
static bool template_from_json(struct ModelFile *f, const char *name) {
    char *path = path_join(f->path, name);
    json_t *root = json_parse_file(path, MAX_CONFIG_BYTES);
    bool ok = root && (json_is_object(root) || fail("%s: an object is expected", path));
    const json_t *value = json_object_get(root, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i, item) {
        const char *label = json_string_value(json_object_get(item, "name"));
        const char *text = json_string_value(json_object_get(item, "template"));
        if (label && text && strcmp(label, "default") == 0 && !f->chat_template)
            f->chat_template = xstrdup(text);
    }
    if (json_is_string(value))
        f->chat_template = xstrdup(json_string_value(value));
    json_decref(root);
    free(path);
    return ok;
}

static bool read_template(struct ModelFile *f) {
    if (has_file(f->path, "chat_template.jinja")) {
        uint64_t bytes;
        return read_text(f->path, "chat_template.jinja", &f->chat_template, &bytes);
    }
    if (f->tokenizer_config_path && !template_from_json(f, "tokenizer_config.json"))
        return false;
    return f->chat_template || !has_file(f->path, "chat_template.json") || template_from_json(f, "chat_template.json");
}

static bool find_tokenizer(struct ModelFile *f) {
    f->tokenizer_path = existing(f->path, "tokenizer.json");
    if (!f->tokenizer_path)
        f->tokenizer_path = existing(f->path, "tokenizer.model");
    f->tokenizer_config_path = existing(f->path, "tokenizer_config.json");
    return read_template(f);
}

// A folder without config.json. What else is there may tell what it is.
static bool not_a_model(const struct ModelFile *f) {
    if (has_file(f->path, "adapter_config.json")) {
        char *path = path_join(f->path, "adapter_config.json");
        json_t *root = json_load_file(path, 0, NULL); // one that cannot be read is no second complaint
        const char *base = json_string_value(json_object_get(root, "base_model_name_or_path"));
        fail("%s: no config.json in this folder; it holds an adapter, not a model: name the model and give "
             "--adapter, as in `vkmoe chat %s --adapter %s`",
             f->path, base ? base : "BASE", f->path);
        json_decref(root);
        free(path);
        return false;
    }
    const char *what = has_file(f->path, "manifest.sha256")
                           ? "; it is a checkpoint of a run: `vkmoe train --resume` goes on from it"
                       : has_file(f->path, "esft.safetensors")
                           ? "; it holds trained experts: `vkmoe merge BASE --adapter` makes a model of them"
                           : "";
    return fail("%s: no config.json in this folder%s", f->path, what);
}

static bool open_folder_config(struct ModelFile *f) {
    bool weights = has_file(f->path, "model.safetensors") || has_file(f->path, "model.safetensors.index.json");
    if (!weights && !has_file(f->path, "config.json") && !has_file(f->path, "adapter_config.json") &&
        (has_file(f->path, "tokenizer.json") || has_file(f->path, "tokenizer.model"))) {
        f->vocab_only = true;
        return find_tokenizer(f);
    }
    if (!has_file(f->path, "config.json"))
        return not_a_model(f);
    char *text = NULL, *where = path_join(f->path, "config.json");
    uint64_t bytes;
    bool ok = read_text(f->path, "config.json", &text, &bytes) && config_from_json(&f->config, text, bytes, where);
    free(text);
    free(where);
    if (ok && has_file(f->path, "generation_config.json")) {
        text = NULL;
        where = path_join(f->path, "generation_config.json");
        ok = read_text(f->path, "generation_config.json", &text, &bytes) &&
             config_generation_from_json(&f->config, text, bytes, where);
        free(text);
        free(where);
    }
    return ok && find_tokenizer(f);
}

// A tokenizer.json or tokenizer.model by itself; path becomes its folder, where the other files about it are.
static bool open_tokenizer_file(struct ModelFile *f) {
    const char *slash = strrchr(f->path, '/');
    if (!file_exists(f->path))
        return fail("%s: no such file", f->path);
    f->vocab_only = true;
    f->tokenizer_path = f->path;
    f->path = slash ? xsprintf("%.*s", (int)(slash - f->tokenizer_path + 1), f->tokenizer_path) : xstrdup(".");
    f->tokenizer_config_path = existing(f->path, "tokenizer_config.json");
    return read_template(f);
}

// ---- Opening ----

static bool open_config(struct ModelFile *f, const char *path) {
    *f = (struct ModelFile){.path = xstrdup(path)};
    if (dir_exists(path))
        return open_folder_config(f);
    if (ends_with(path, ".safetensors"))
        return fail("%s: holds tensors alone; name the folder that it lies in, with its config.json", path);
    char *name = path_name(path);
    bool config = strcmp(name, "config.json") == 0;
    free(name);
    if (config)
        return fail("%s: is the config of a model alone; name the folder that it lies in", path);
    if (ends_with(path, ".json") || ends_with(path, ".model"))
        return open_tokenizer_file(f);
    bool complete;
    if (!open_gguf(f) || !config_from_gguf(&f->config, f->gguf, f->n_gguf, &complete) ||
        !gguf_get_string(f->gguf, "tokenizer.chat_template", false, &f->chat_template))
        return false;
    f->vocab_only = f->gguf->n_tensors == 0 && f->n_shards == 1;
    return complete || f->vocab_only ||
           fail("%s: keys of a whole model are missing (such as %s.block_count)", path, ARCHS[f->config.arch].gguf);
}

bool modelfile_open_config(struct ModelFile *f, const char *path) {
    if (open_config(f, path))
        return true;
    modelfile_close(f);
    return false;
}

bool modelfile_open(struct ModelFile *f, const char *path) {
    bool ok = open_config(f, path);
    if (ok && f->vocab_only)
        ok = fail("%s: holds a vocabulary alone, no weights; `vkmoe tokenize` can use it", path);
    if (ok && (f->gguf ? bind_gguf(f) : open_folder_tensors(f)))
        return true;
    modelfile_close(f);
    return false;
}

void modelfile_close(struct ModelFile *f) {
    for (uint32_t i = 0; f->tensors && i < f->n_tensors; i++)
        free(f->tensors[i].parts);
    for (uint32_t i = 0; f->safetensors && i < f->n_shards; i++)
        safetensors_close(&f->safetensors[i]);
    for (uint32_t p = 0; p < f->n_gguf; p++)
        gguf_close(&f->gguf[p]);
    free(f->tensors);
    free(f->safetensors);
    free(f->gguf);
    free(f->shards);
    free(f->tokenizer_path);
    free(f->tokenizer_config_path);
    free(f->chat_template);
    free(f->path);
    *f = (struct ModelFile){0};
}

const struct FileTensor *modelfile_find(const struct ModelFile *f, const char *name) {
    uint32_t low = 0, high = f->n_tensors;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(name, f->tensors[middle].spec.name);
        if (order == 0)
            return &f->tensors[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool modelfile_place(const struct FileTensor *t, struct FilePart *place) {
    *place = t->parts[0];
    for (uint64_t p = 1; p < t->n_rows / t->rows_per_part; p++)
        if (t->parts[p].shard != place->shard ||
            t->parts[p].offset != place->offset + p * t->rows_per_part * t->row_bytes)
            return false;
    return t->rope_head == 0;
}

// GGUF's row 2i+j of a head is Hugging Face's row j*half+i; `bytes` of a row.
static bool read_head_rows(const struct ModelFile *f, const struct FileTensor *t, uint64_t first, uint64_t count,
                           uint64_t bytes, uint8_t *out) {
    uint64_t head = t->rope_head, half = head / 2;
    uint8_t *block = xmalloc(head * bytes);
    bool ok = true;
    for (uint64_t row = first, loaded = UINT64_MAX; ok && row < first + count; row++) {
        uint64_t h = row / head, r = row % head;
        if (h != loaded)
            ok = filein_read(f->shards[t->parts[0].shard], t->parts[0].offset + h * head * bytes, head * bytes, block);
        loaded = h;
        if (ok)
            memcpy(out + (row - first) * bytes, block + (2 * (r % half) + r / half) * bytes, bytes);
    }
    free(block);
    return ok;
}

bool modelfile_read_rows(const struct ModelFile *f, const struct FileTensor *t, uint64_t first, uint64_t count,
                         void *out) {
    if (first > t->n_rows || count > t->n_rows - first)
        return fail("%s: tensor %s has %" PRIu64 " rows; %" PRIu64 " were wanted from row %" PRIu64, f->path,
                    t->spec.name, t->n_rows, count, first);
    if (t->rope_head && t->spec.n_dims == 1) // a bias: one row, whose elements go with the rows of its weight
        return count == 0 || read_head_rows(f, t, 0, t->cols, t->row_bytes / t->cols, out);
    if (t->rope_head)
        return read_head_rows(f, t, first, count, t->row_bytes, out);
    uint8_t *to = out;
    while (count > 0) {
        uint64_t part = first / t->rows_per_part, row = first % t->rows_per_part;
        uint64_t rows = min_u64(count, t->rows_per_part - row);
        const struct FilePart *p = &t->parts[part];
        if (!filein_read(f->shards[p->shard], p->offset + row * t->row_bytes, rows * t->row_bytes, to))
            return false;
        to += rows * t->row_bytes;
        first += rows;
        count -= rows;
    }
    return true;
}
