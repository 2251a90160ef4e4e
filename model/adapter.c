// Reading and writing PEFT folders. On the device an adapter's rank is padded with zeros; in files it is not.
#include "model/adapter.h"
#include "model/json.h"
#include "model/quant.h"
#include "model/regex.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char PREFIX[] = "base_model.model.";
static const char *const SUFFIX[2] = {".lora_A.weight", ".lora_B.weight"};
enum { CONFIG_MAX_BYTES = 1 << 24, MODULE_NAME_BYTES = 160 };

// ---- adapter_config.json

// Members that change what the tensors mean; each is harmless only with the value that switches it off.
static const char *const MUST_BE_FALSE[] = {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"};
static const char *const MUST_BE_EMPTY[] = {
    "modules_to_save",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
    "layer_replication",
    "trainable_token_indices",
    "exclude_modules",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "use_bdlora",
    "monteclora_config",
    "velora_config",
};
// Members that are read, and those that say nothing about an adapter that is trained.
static const char *const KNOWN[] = {
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "bias",
    "target_modules",
    "init_lora_weights",
    "lora_dropout",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "inference_mode",
    "peft_version",
    "layers_pattern",
    "megatron_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
};

static bool is_empty(const json_t *v) {
    return !v || json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool find_name(const char *name, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}

static void warn_of_unknown_keys(json_t *c, const char *where) {
    char *names = NULL;
    const char *key;
    json_t *v;
    json_object_foreach(c, key, v) {
        if (is_empty(v) || find_name(key, KNOWN, sizeof KNOWN / sizeof KNOWN[0]) ||
            find_name(key, MUST_BE_FALSE, sizeof MUST_BE_FALSE / sizeof MUST_BE_FALSE[0]) ||
            find_name(key, MUST_BE_EMPTY, sizeof MUST_BE_EMPTY / sizeof MUST_BE_EMPTY[0]) ||
            (names && strlen(names) > 500))
            continue;
        char *longer = names ? xsprintf("%s, %s", names, key) : xstrdup(key);
        free(names);
        names = longer;
    }
    if (names)
        warn("%s: not known and not used: %s", where, names);
    free(names);
}

// Other ways to begin (PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ) take something from the base weights, which PEFT does again as it loads.
static bool check_beginning(const json_t *c, const char *where) {
    static const char *const PLAIN[] = {"gaussian", "eva", "orthogonal"};
    const json_t *v = json_object_get(c, "init_lora_weights");
    const char *name = json_string_value(v);
    if (!v || json_is_null(v) || json_is_boolean(v) || (name && find_name(name, PLAIN, 3)))
        return true;
    return fail("%s: init_lora_weights is %.40s: its base weights may have been changed with it, and this is not known "
                "here; PEFT can save it converted",
                where, name ? name : "no text");
}

static bool check_known(const json_t *c, const char *where) {
    const char *type = NULL, *bias = "none", *task = "CAUSAL_LM";
    if (!json_get_string(c, "peft_type", &type, where) || !json_get_string(c, "bias", &bias, where) ||
        !json_get_string(c, "task_type", &task, where))
        return false;
    if (!type || strcmp(type, "LORA") != 0)
        return fail("%s: peft_type is %s; LORA is expected", where, type ? type : "missing");
    if (strcmp(bias, "none") != 0)
        return fail("%s: bias is \"%s\"; only \"none\" is known", where, bias);
    if (strcmp(task, "CAUSAL_LM") != 0)
        return fail("%s: task_type is \"%s\"; only \"CAUSAL_LM\" is known", where, task);
    for (size_t i = 0; i < sizeof MUST_BE_FALSE / sizeof MUST_BE_FALSE[0]; i++) {
        bool on = false;
        if (!json_get_bool(c, MUST_BE_FALSE[i], &on, where))
            return false;
        if (on)
            return fail("%s: %s is true, which is not known here", where, MUST_BE_FALSE[i]);
    }
    for (size_t i = 0; i < sizeof MUST_BE_EMPTY / sizeof MUST_BE_EMPTY[0]; i++) {
        if (!is_empty(json_object_get(c, MUST_BE_EMPTY[i])))
            return fail("%s: %s is set, which is not known here", where, MUST_BE_EMPTY[i]);
    }
    return check_beginning(c, where);
}

static bool read_options(const json_t *c, const char *where, struct LoraOptions *o) {
    *o = (struct LoraOptions){0};
    if (!json_is_object(c))
        return fail("%s: an object is expected", where);
    if (!check_known(c, where) || !json_get_u32(c, "r", 1, 65536, &o->rank, where) ||
        !json_get_float(c, "lora_alpha", 0, 1e9f, &o->alpha, where) ||
        !json_get_bool(c, "use_rslora", &o->rank_stabilised, where))
        return false;
    if (o->rank == 0 || !json_object_get(c, "lora_alpha"))
        return fail("%s: %s is missing", where, o->rank ? "lora_alpha" : "r");
    return true;
}

// A file, or a folder with the config of a model.
static bool is_model(const char *path) {
    char *config = path_join(path, "config.json");
    bool model = file_exists(config) || (file_exists(path) && !dir_exists(path));
    free(config);
    return model;
}

static json_t *config_open(const char *dir, char **path) {
    *path = path_join(dir, "adapter_config.json");
    char *experts = path_join(dir, "esft.safetensors"), *manifest = path_join(dir, "manifest.sha256");
    const char *what = file_exists(*path)      ? NULL
                       : is_model(dir)         ? "a whole model is no adapter"
                       : file_exists(experts)  ? "trained experts are no adapter; `vkmoe merge` makes a model of them"
                       : file_exists(manifest) ? "a checkpoint of a run, no adapter; `vkmoe train --resume` goes on "
                                                 "from it"
                                               : NULL;
    free(experts), free(manifest);
    if (what) {
        fail("%s: %s: there is no adapter_config.json", dir, what);
        return NULL;
    }
    return json_parse_file(*path, CONFIG_MAX_BYTES);
}

bool adapter_options(const char *dir, struct LoraOptions *o) {
    char *path;
    json_t *c = config_open(dir, &path);
    bool ok = c && read_options(c, path, o);
    json_decref(c);
    free(path);
    return ok;
}

// ---- Modules: a base parameter, and for routed experts which of them

struct Module {
    const struct Param *base;
    uint32_t expert;
    char name[MODULE_NAME_BYTES];            // "model.layers.3.mlp.experts.7.up_proj"
    bool targeted;                           // target_modules names it
    const struct SafetensorsEntry *entry[2]; // lora_A, lora_B
};
struct Modules {
    struct Module *list;
    uint32_t n;
};

static uint32_t role_target(enum WeightRole role) {
    static const uint32_t TARGET[] = {[ROLE_Q] = LORA_Q,
                                      [ROLE_K] = LORA_K,
                                      [ROLE_V] = LORA_V,
                                      [ROLE_O] = LORA_O,
                                      [ROLE_FFN] = LORA_FFN,
                                      [ROLE_SHARED] = LORA_SHARED,
                                      [ROLE_EXPERTS] = LORA_EXPERTS,
                                      [ROLE_ROUTER] = LORA_ROUTER,
                                      [ROLE_HEAD] = 0};
    return TARGET[role];
}

static void module_name(struct Module *mod) {
    if (mod->base->spec.role == ROLE_EXPERTS)
        weight_expert_name(&mod->base->spec, mod->expert, mod->name, sizeof mod->name);
    else
        snprintf(mod->name, sizeof mod->name, "%s", mod->base->spec.name);
    mod->name[strlen(mod->name) - strlen(".weight")] = 0;
}

static struct Modules modules_of(const struct Model *m) {
    struct Modules all = {0};
    for (int pass = 0; pass < 2; pass++) { // count, then fill
        all.n = 0;
        for (uint32_t i = 0; i < m->n_base; i++) {
            const struct WeightSpec *w = &m->params[i].spec;
            uint32_t copies = role_target(w->role) == 0 ? 0 : w->role == ROLE_EXPERTS ? w->dim[0] : 1;
            for (uint32_t e = 0; e < copies; e++, all.n++)
                if (pass) {
                    all.list[all.n] = (struct Module){.base = &m->params[i], .expert = e};
                    module_name(&all.list[all.n]);
                }
        }
        if (!pass)
            all.list = xcalloc(all.n, sizeof *all.list);
    }
    return all;
}

static int by_key(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Marks the modules that target_modules names: whole names, or the last parts of them.
static bool target_names(const json_t *names, struct Modules *all, const char *where) {
    size_t i;
    json_t *v;
    json_array_foreach(names, i, v) {
        const char *target = json_string_value(v);
        uint32_t hits = 0;
        if (!target)
            return fail("%s: target_modules holds something that is no text", where);
        size_t length = strlen(target);
        for (uint32_t k = 0; k < all->n; k++) {
            const char *name = all->list[k].name;
            size_t n = strlen(name);
            bool end = n >= length && strcmp(name + n - length, target) == 0;
            if (end && (n == length || name[n - length - 1] == '.')) {
                all->list[k].targeted = true;
                hits++;
            }
        }
        if (hits == 0)
            return fail(
                "%s: target_modules names \"%.80s\", and no linear of this model that can have an adapter is called so",
                where, target);
    }
    return true;
}

// The same by a regular expression over the whole name.
static bool target_pattern(const char *pattern, struct Modules *all, const char *where) {
    int error;
    PCRE2_SIZE at;
    uint32_t hits = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(regex_heap());
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_ENDANCHORED,
                                     &error, &at, context);
    pcre2_compile_context_free(context);
    if (!code)
        return fail("%s: target_modules is no regular expression (character %zu)", where, (size_t)at);
    pcre2_match_context *limits = pcre2_match_context_create(regex_heap());
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(code, NULL);
    pcre2_set_match_limit(limits, 100000);
    for (uint32_t k = 0; k < all->n; k++) {
        const char *name = all->list[k].name;
        all->list[k].targeted = pcre2_match(code, (PCRE2_SPTR)name, strlen(name), 0, 0, match, limits) >= 0;
        hits += all->list[k].targeted;
    }
    pcre2_match_data_free(match);
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
    return hits > 0 || fail("%s: target_modules matches no linear of this model", where);
}

static bool read_targets(const json_t *c, struct Modules *all, const char *where) {
    const json_t *targets = json_object_get(c, "target_modules");
    if (json_is_string(targets))
        return target_pattern(json_string_value(targets), all, where);
    if (json_is_array(targets))
        return target_names(targets, all, where);
    return fail("%s: target_modules is missing", where);
}

// ---- Reading

struct NameIndex {
    char *name;
    struct Module *module;
};

static bool check_shape(const char *file, const struct SafetensorsEntry *e, uint32_t rows, uint32_t cols) {
    if (e->type != DT_F32 && e->type != DT_F16 && e->type != DT_BF16)
        return fail("%s: tensor %s is of type %s; F32, F16 or BF16 is expected", file, e->name, e->type_name);
    if (e->n_dims == 2 && e->dim[0] == rows && e->dim[1] == cols)
        return true;
    return fail("%s: tensor %s has the shape (%llu, %llu)%s; the model and the rank ask for (%u, %u)", file, e->name,
                (unsigned long long)e->dim[0], e->n_dims > 1 ? (unsigned long long)e->dim[1] : 0,
                e->n_dims == 2 ? "" : " and not two dimensions", rows, cols);
}

// Gives every tensor of the file to its module.
static bool place_entries(const struct Safetensors *s, struct Modules *all, uint32_t rank) {
    struct NameIndex *index = xcalloc(all->n, sizeof *index);
    for (uint32_t k = 0; k < all->n; k++)
        index[k] = (struct NameIndex){all->list[k].name, &all->list[k]};
    qsort(index, all->n, sizeof *index, by_key);
    bool ok = true;
    for (uint32_t i = 0; i < s->n_entries && ok; i++) {
        const struct SafetensorsEntry *e = &s->entries[i];
        size_t length = strlen(e->name), prefix = strlen(PREFIX), suffix = strlen(SUFFIX[0]);
        struct NameIndex *found = NULL;
        int part = -1;
        if (strncmp(e->name, PREFIX, prefix) == 0 && length > prefix + suffix) {
            for (int k = 0; k < 2; k++)
                part = strcmp(e->name + length - suffix, SUFFIX[k]) == 0 ? k : part;
            char *name = xstrdup(e->name + prefix);
            name[length - prefix - suffix] = 0;
            found = part >= 0 ? bsearch(&name, index, all->n, sizeof *index, by_key) : NULL;
            free(name);
        }
        if (!found) {
            ok = fail("%s: tensor %.200s belongs to no linear of this model", s->file.name, e->name);
            break;
        }
        const struct WeightSpec *w = &found->module->base->spec;
        uint32_t out = w->dim[w->n_dims - 2], in = w->dim[w->n_dims - 1];
        found->module->entry[part] = e;
        ok = check_shape(s->file.name, e, part ? out : rank, part ? rank : in);
    }
    free(index);
    return ok;
}

static bool check_whole(const struct Safetensors *s, const struct Modules *all, uint32_t *targets) {
    *targets = 0;
    for (uint32_t k = 0; k < all->n; k++) {
        const struct Module *mod = &all->list[k];
        bool a = mod->entry[0] != NULL, b = mod->entry[1] != NULL;
        if (a && b)
            *targets |= role_target(mod->base->spec.role);
        if ((a && b) || (!a && !b && !mod->targeted))
            continue;
        return fail("%s: tensor %s%s%s is missing%s", s->file.name, PREFIX, mod->name, SUFFIX[a ? 1 : 0],
                    a || b ? ", the other half of its pair is there" : ", though target_modules names the module");
    }
    return *targets != 0 || fail("%s: no adapter in it", s->file.name);
}

static struct Param *adapter_param(struct Model *m, const struct Param *base, int part) {
    size_t length = strlen(base->spec.name) - strlen(".weight");
    for (uint32_t i = m->n_base; i < m->n_params; i++) {
        const char *name = m->params[i].spec.name;
        if (strncmp(name, base->spec.name, length) == 0 && strcmp(name + length, part ? ".lora_B" : ".lora_A") == 0)
            return &m->params[i];
    }
    return NULL;
}

static bool load_part(struct Model *m, const struct Safetensors *s, const struct Module *mod, int part) {
    const struct SafetensorsEntry *e = mod->entry[part];
    struct Param *p = adapter_param(m, mod->base, part);
    if (!p)
        return fail("%s: tensor %s belongs to no adapter of the model", s->file.name, e->name);
    uint64_t rows = e->dim[0], cols = e->dim[1], stored_cols = tensor_cols(&p->w);
    uint64_t stored_rows = p->w.dim[p->w.n_dims - 2], row_bytes = dtype_file_row_bytes(e->type, cols);
    uint8_t *raw = xmalloc(e->bytes);
    float *values = xcalloc(rows * stored_cols, sizeof *values); // columns beyond the true rank stay zero
    bool ok = safetensors_read(s, e, 0, e->bytes, raw);
    for (uint64_t r = 0; r < rows && ok; r++)
        quant_decode_row(e->type, raw + r * row_bytes, cols, values + r * stored_cols);
    for (uint64_t i = 0; i < rows * stored_cols && ok; i++)
        if (!isfinite(values[i]))
            ok = fail("%s: tensor %s holds a value that is not finite (row %llu)", s->file.name, e->name,
                      (unsigned long long)(i / stored_cols));
    ok = ok && param_write(m->dev, p, mod->expert * stored_rows, rows, values);
    free(raw);
    free(values);
    return ok;
}

struct Folder {
    struct LoraOptions o;
    struct Modules all; // with their tensors
    struct Safetensors s;
};

static void folder_close(struct Folder *f) {
    safetensors_close(&f->s);
    free(f->all.list);
}

static bool folder_open(struct Folder *f, const struct Model *m, const char *dir) {
    char *where, *path = path_join(dir, "adapter_model.safetensors");
    json_t *c = config_open(dir, &where);
    f->all = modules_of(m);
    bool ok = c && read_options(c, where, &f->o) && read_targets(c, &f->all, where);
    if (ok && !m->dev->is_dry) // whose adapter is loaded once more
        warn_of_unknown_keys(c, where);
    bool opened = ok && safetensors_open(&f->s, path);
    ok = opened && place_entries(&f->s, &f->all, f->o.rank) && check_whole(&f->s, &f->all, &f->o.targets);
    if (opened && !ok)
        safetensors_close(&f->s);
    if (!ok)
        free(f->all.list);
    json_decref(c);
    free(where);
    free(path);
    return ok;
}

bool adapter_load(struct Model *m, const char *dir) {
    if (m->n_params != m->n_base)
        return fail("%s: the model has an adapter already", dir);
    struct Folder f;
    if (!folder_open(&f, m, dir))
        return false;
    bool ok = model_add_lora(m, &f.o, 0);
    for (uint32_t k = 0; k < f.all.n && ok && !m->dev->is_dry; k++)
        for (int part = 0; part < 2 && ok; part++)
            ok = !f.all.list[k].entry[part] || load_part(m, &f.s, &f.all.list[k], part);
    folder_close(&f);
    return ok;
}

// Marks an expert whose three projections have an adapter, all of them or none.
static bool mark_experts(const struct Modules *all, const struct Config *c, const char *dir, uint8_t *marked) {
    uint32_t *parts = xcalloc((size_t)c->n_layers * c->n_experts + 1, sizeof *parts);
    bool ok = true;
    for (uint32_t k = 0; k < all->n; k++)
        if (all->list[k].base->spec.role == ROLE_EXPERTS && all->list[k].entry[0])
            parts[all->list[k].base->spec.layer * c->n_experts + all->list[k].expert]++;
    for (uint32_t layer = 0; layer < c->n_layers && ok; layer++) {
        uint32_t n = 0;
        for (uint32_t e = 0; e < c->n_experts && ok; e++) {
            uint32_t has = parts[layer * c->n_experts + e];
            marked[layer * c->n_experts + e] = has > 0;
            n += has > 0;
            if (has && has < 3)
                ok = fail("%s: expert %u of layer %u has an adapter on some of its three projections only, which "
                          "cannot be trained further",
                          dir, e, layer);
        }
        if (ok && config_is_moe(c, layer) && n == 0)
            ok = fail("%s: no expert of layer %u has an adapter, those of other layers have; this cannot be trained "
                      "further",
                      dir, layer);
    }
    free(parts);
    return ok;
}

bool adapter_describe(const struct Model *m, const char *dir, struct LoraOptions *o, uint8_t *marked) {
    struct Folder f;
    if (!folder_open(&f, m, dir))
        return false;
    *o = f.o;
    bool ok = !(o->targets & LORA_EXPERTS) || mark_experts(&f.all, &m->config, dir, marked);
    for (uint32_t k = 0; k < f.all.n && ok; k++) {
        const struct WeightSpec *w = &f.all.list[k].base->spec;
        if (w->role != ROLE_EXPERTS && (o->targets & role_target(w->role)) && !f.all.list[k].entry[0])
            ok = fail("%s: %s has no adapter, others of its kind have; this cannot be trained further", dir, w->name);
    }
    folder_close(&f);
    return ok;
}

// ---- Writing

// Name in the file of expert e's part of an adapter parameter.
static void tensor_name(const struct WeightSpec *w, uint32_t e, char *out, size_t room) {
    char name[MODULE_NAME_BYTES];
    if (w->role == ROLE_EXPERTS)
        weight_expert_name(w, e, name, sizeof name);
    else
        snprintf(name, sizeof name, "%s", w->name);
    snprintf(out, room, "%s%s.weight", PREFIX, name);
}

// Experts that were not trained have an adapter of zero, which is none.
static uint32_t copies_of(const struct Param *p) {
    return p->n_chosen ? p->n_chosen : p->spec.role == ROLE_EXPERTS ? p->spec.dim[0] : 1;
}
static uint32_t expert_of(const struct Param *p, uint32_t copy) { return p->n_chosen ? p->chosen[copy] : copy; }

static bool save_part(struct Model *m, const struct Param *p, uint32_t e, struct SafetensorsWriter *w) {
    uint64_t rows = p->spec.dim[p->spec.n_dims - 2], cols = p->spec.dim[p->spec.n_dims - 1];
    uint64_t stored_rows = p->w.dim[p->w.n_dims - 2], stored_cols = tensor_cols(&p->w);
    float *values = xmalloc(rows * stored_cols * sizeof *values);
    bool ok = param_read(m->dev, p, e * stored_rows, rows, values);
    for (uint64_t r = 1; r < rows && stored_cols != cols; r++)
        memmove(values + r * cols, values + r * stored_cols, cols * sizeof *values);
    ok = ok && safetensors_writer_data(w, values, rows * cols * sizeof *values);
    free(values);
    return ok;
}

static bool save_tensors(struct Model *m, const char *path) {
    struct SafetensorsWriter w;
    safetensors_writer_init(&w);
    safetensors_writer_metadata(&w, "format", "pt");
    for (uint32_t i = m->n_base; i < m->n_params; i++) {
        const struct WeightSpec *spec = &m->params[i].spec;
        for (uint32_t e = 0; e < copies_of(&m->params[i]); e++) {
            char name[MODULE_NAME_BYTES + 40];
            tensor_name(spec, expert_of(&m->params[i], e), name, sizeof name);
            safetensors_writer_add(&w, name, DT_F32, 2,
                                   (uint64_t[]){spec->dim[spec->n_dims - 2], spec->dim[spec->n_dims - 1]});
        }
    }
    bool ok = safetensors_writer_begin(&w, path);
    for (uint32_t i = m->n_base; i < m->n_params && ok; i++)
        for (uint32_t e = 0; e < copies_of(&m->params[i]) && ok; e++)
            ok = save_part(m, &m->params[i], expert_of(&m->params[i], e), &w);
    if (ok)
        return safetensors_writer_end(&w);
    safetensors_writer_abort(&w);
    return false;
}

// Where some experts of a layer have an adapter and others none: the whole name of every module that has one.
static json_t *modules_json(const struct Model *m) {
    json_t *list = json_array();
    for (uint32_t i = m->n_base; i < m->n_params; i += 2) // A and B follow each other
        for (uint32_t e = 0; e < copies_of(&m->params[i]); e++) {
            char name[MODULE_NAME_BYTES + 40];
            tensor_name(&m->params[i].spec, expert_of(&m->params[i], e), name, sizeof name);
            name[strlen(name) - strlen(SUFFIX[0])] = 0;
            json_array_append_new(list, json_string(name + strlen(PREFIX)));
        }
    return list;
}

// Plain last parts of names where they say it all, else a regular expression: PEFT would give "gate_proj" to every module so called.
static json_t *targets_json(const struct Model *m, uint32_t targets) {
    static const char *const ATTENTION[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    uint32_t exist = 0, ffn = LORA_FFN | LORA_SHARED | LORA_EXPERTS;
    for (uint32_t i = 0; i < m->n_base; i++)
        exist |= role_target(m->params[i].spec.role);
    targets &= exist;
    for (uint32_t i = m->n_base; i < m->n_params; i++)
        if (m->params[i].n_chosen)
            return modules_json(m);
    bool all_ffn = (targets & ffn) == (exist & ffn);
    if (all_ffn || !(targets & ffn)) {
        json_t *list = json_array();
        for (uint32_t i = 0; i < 4; i++)
            if (targets & (LORA_Q << i))
                json_array_append_new(list, json_string(ATTENTION[i]));
        for (uint32_t i = 0; i < 3 && (targets & ffn); i++)
            json_array_append_new(list, json_string(((const char *[]){"gate_proj", "up_proj", "down_proj"})[i]));
        if (targets & LORA_ROUTER)
            json_array_append_new(list, json_string("mlp.gate"));
        return list;
    }
    char text[400] = ".*\\.(";
    const struct {
        uint32_t target;
        const char *part;
    } PARTS[] = {{LORA_Q, "self_attn\\.q_proj"},
                 {LORA_K, "self_attn\\.k_proj"},
                 {LORA_V, "self_attn\\.v_proj"},
                 {LORA_O, "self_attn\\.o_proj"},
                 {LORA_FFN, "mlp\\.(gate|up|down)_proj"},
                 {LORA_SHARED, "shared_experts?\\.(gate|up|down)_proj"},
                 {LORA_EXPERTS, "experts\\.\\d+\\.(gate|up|down)_proj"},
                 {LORA_ROUTER, "mlp\\.gate"}};
    size_t length = strlen(".*\\.(");
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
        if (targets & PARTS[i].target)
            length += (size_t)snprintf(text + length, sizeof text - length, "%s|", PARTS[i].part);
    text[length - 1] = ')'; // in place of the last bar
    return json_string(text);
}

static bool save_config(struct Model *m, const char *path, const struct LoraOptions *o, const char *base_model) {
    json_t *c = json_pack("{s:s, s:s, s:s?, s:i, s:f, s:f, s:s, s:b, s:b, s:b, s:b, s:b, s:n, s:o}", "peft_type",
                          "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base_model, "r", (int)o->rank,
                          "lora_alpha", (double)o->alpha, "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0,
                          "inference_mode", 1, "init_lora_weights", 1, "use_rslora", o->rank_stabilised, "use_dora", 0,
                          "modules_to_save", "target_modules", targets_json(m, o->targets));
    if (!c)
        return fail("%s: base model's name is no UTF-8 text", path);
    if (o->alpha == floorf(o->alpha) && o->alpha < 1e9f)
        json_object_set_new(c, "lora_alpha", json_integer((json_int_t)o->alpha));
    char *text = json_dumps(c, JSON_INDENT(2) | JSON_PRESERVE_ORDER), *line = xsprintf("%s\n", text);
    bool ok = file_write_atomic(path, line, strlen(line));
    free(line);
    free(text);
    json_decref(c);
    return ok;
}

bool adapter_save(struct Model *m, const char *dir, const struct LoraOptions *o, const char *base_model) {
    if (m->n_params == m->n_base)
        return fail("%s: the model has no adapter to write", dir);
    if (!dir_make(dir))
        return false;
    char *tensors = path_join(dir, "adapter_model.safetensors"), *config = path_join(dir, "adapter_config.json");
    bool ok = save_tensors(m, tensors) && save_config(m, config, o, base_model);
    free(tensors);
    free(config);
    return ok;
}
