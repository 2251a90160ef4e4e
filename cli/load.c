// See load.h.
#include "cli/load.h"
#include "cli/place.h"
#include "cli/term.h"
#include "model/adapter.h"
#include "model/experts.h"
#include "model/selftest.h"
#include "model/tune.h"
#include "model/utf8.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t TEXT_MAX_BYTES = UINT64_C(1) << 31;

static bool is_there(const char *path) { return file_exists(path) || dir_exists(path); }

// OWNER/NAME, and no folder of the owner's name.
static bool is_hub_name(const char *model) {
    const char *slash = strchr(model, '/');
    if (is_there(model) || !slash || slash == model || !slash[1] || strchr(slash + 1, '/') || *model == '.' ||
        *model == '~')
        return false;
    char *owner = path_parent(model);
    bool hub = !is_there(owner);
    free(owner);
    return hub;
}

static bool tell_hub_name(const char *model) {
    return fail("%s: there is no such file or folder; a model is named by its path, and `hf download %s --local-dir "
                "DIR` fetches one of Hugging Face to a folder",
                model, model);
}

bool load_open(struct ModelFile *f, const char *model, bool with_weights) {
    struct Config preset;
    *f = (struct ModelFile){0};
    if (!is_there(model) && config_preset(&preset, model))
        return fail("%s is a preset: it has no weights and no tokenizer; `vkmoe init --preset %s --out DIR` makes a "
                    "model of it",
                    model, model);
    if (is_hub_name(model))
        return tell_hub_name(model);
    return (with_weights ? modelfile_open : modelfile_open_config)(f, model);
}

bool load_open_any(struct ModelFile *f, const char *model, bool with_weights) {
    if (load_preset(f, model))
        return true;
    if (is_hub_name(model))
        return tell_hub_name(model);
    if (!is_there(model))
        return fail("%s: there is no such file or folder, nor a preset of that name (%s)", model,
                    config_preset_names());
    return (with_weights ? modelfile_open : modelfile_open_config)(f, model);
}

char *load_template_name(const struct Args *args, const char *adapter, const char *model) {
    const char *given = args_text(args, "template");
    char *name = given ? xstrdup(given) : adapter ? template_beside(adapter) : NULL;
    return name || !model ? name : template_beside(model);
}

static bool load_words(struct Loaded *l, const struct Args *args, bool with_template, bool with_weights) {
    memset(l, 0, sizeof *l);
    const char *path = args->operands[0];
    if (!load_open(&l->file, path, with_weights))
        return false;
    l->has_tokenizer = tokenizer_open(&l->tokenizer, &l->file);
    if (!l->has_tokenizer)
        return false;
    if (with_template) {
        char *name = load_template_name(args, args_text(args, "adapter"), path);
        l->has_template = template_open(&l->template, name, l->file.chat_template, &l->tokenizer, path);
        free(name);
        if (l->has_template)
            template_warn(&l->template, path);
    }
    return l->has_template || !with_template;
}

bool load_text(struct Loaded *l, const struct Args *args, bool with_template) {
    return load_words(l, args, with_template, true);
}

bool load_text_alone(struct Loaded *l, const struct Args *args, bool with_template) {
    return load_words(l, args, with_template, false);
}

bool load_preset(struct ModelFile *f, const char *model) {
    *f = (struct ModelFile){0};
    if (is_there(model) || !config_preset(&f->config, model))
        return false;
    f->path = xstrdup(model);
    return true;
}

static struct ModelOptions model_options(const struct Args *args, uint32_t positions) {
    struct ModelOptions o = {.type = DT_COUNT, .max_positions = positions, .map = true};
    const char *type = args_text(args, "type");
    if (type)
        dtype_find(type, &o.type);
    return o;
}

static bool has_adapter(const struct Args *args) { return args_text(args, "adapter") != NULL; }

bool load_fits(const struct Device *dev, struct ModelFile *f, const char *adapter, const char *remedy) {
    struct Device dry;
    struct Model m;
    struct ModelOptions o = {.type = DT_COUNT, .max_positions = 1};
    device_open_dry(&dry, dev);
    bool ok = model_load(&m, &dry, f, &o);
    if (ok) {
        ok = !adapter || adapter_load(&m, adapter);
        model_free(&m);
    }
    return ok && memory_fits(dev, dry.peak_bytes, dry.host_bytes, f->path, remedy);
}

static void load_progress(void *context, uint64_t done, uint64_t all) {
    struct Progress *p = context;
    char text[16];
    term_format_bytes(all, text);
    p->total = all;
    progress_update(p, done, "%s", text);
}

bool load_weights(const struct Loaded *l, struct Device *dev, struct Model *m, const struct ModelOptions *o) {
    if (l->file.n_tensors)
        return model_load(m, dev, &l->file, o);
    return model_init(m, dev, &l->file.config, o->type == DT_COUNT ? DT_BF16 : o->type, o->max_positions) &&
           (dev->is_dry || model_fill(m, 1));
}

bool load_tune(const struct Device *dev, const struct Args *args, double *seconds) {
    static const double USUAL = 3, MOST = 3600;
    const char *text = args_text(args, "tune");
    char *end;
    *seconds = -1;
    if (strcmp(text, "off") == 0)
        return true;
    if (strcmp(text, "auto") == 0) {
        *seconds = dev->is_cpu ? -1 : USUAL;
        return true;
    }
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= MOST))
        return args_good(fail("--tune %s: off, auto or a number of seconds up to %g is expected", text, MOST));
    *seconds = value;
    return true;
}

bool load_device(struct Device *dev, const struct Args *args) {
    double seconds;
    if (!selftest_device_open(dev, args_text(args, "device")))
        return false;
    if (!load_tune(dev, args, &seconds)) {
        device_close(dev);
        return false;
    }
    if (seconds >= 0)
        tune_begin(dev, seconds);
    return true;
}

bool load_model(struct Loaded *l, const struct Args *args, const struct SessionOptions *options_given) {
    struct SessionOptions with = *options_given, *o = &with;
    if (args_text(args, "cache-type"))
        dtype_find(args_text(args, "cache-type"), &o->cache_type);
    l->has_device = load_device(&l->dev, args);
    struct ModelOptions options = model_options(args, (uint32_t)max_u64(o->context, l->positions));
    if (!l->has_device || !place_model(l, args, o, &options))
        return false;
    struct Progress progress;
    progress_begin(&progress, "load", "byte", 0, 1);
    progress.drawn = progress.started; // what is done at once needs no bar
    options.progress = load_progress;
    options.progress_context = &progress;
    l->has_model = load_weights(l, &l->dev, &l->model, &options);
    progress_clear(&progress);
    if (!l->has_model || (has_adapter(args) && !adapter_load(&l->model, args_text(args, "adapter"))))
        return false;
    l->has_session = session_init(&l->session, &l->model, o);
    return l->has_session;
}

void load_free(struct Loaded *l) {
    if (l->has_session)
        profile_print(&l->dev); // of VKMOE_PROFILE; else nothing
    struct ExpertUse use = l->has_model ? experts_use(&l->model) : (struct ExpertUse){0};
    if (use.hits + use.misses) {
        char brought[16];
        term_format_bytes(use.bytes, brought);
        fprintf(stderr, "%sexperts: %.1f %% of %llu were on the device already; %s brought in%s\n",
                term_paint(stderr, PAINT_DIM), 100.0 * (double)use.hits / (double)(use.hits + use.misses),
                (unsigned long long)(use.hits + use.misses), brought, term_paint(stderr, PAINT_NONE));
    }
    if (l->session.m)
        session_free(&l->session);
    if (l->has_model)
        model_free(&l->model);
    if (l->has_device)
        device_close(&l->dev);
    if (l->has_template)
        template_free(&l->template);
    if (l->has_tokenizer)
        tokenizer_free(&l->tokenizer);
    if (l->file.path)
        modelfile_close(&l->file);
    while (l->n_stops)
        free(l->stops[--l->n_stops]);
    memset(l, 0, sizeof *l);
}

bool load_context(const struct Loaded *l, const struct Args *args, uint64_t wanted, uint32_t *context) {
    uint32_t most = l->file.config.max_context;
    if (args_given(args, "context")) {
        if (args_int(args, "context") > most)
            return fail("--context %lld: the context of %s is %u tokens", (long long)args_int(args, "context"),
                        l->file.path, most);
        wanted = (uint64_t)args_int(args, "context");
    }
    *context = (uint32_t)min_u64(wanted, most);
    return true;
}

bool load_sampling(const struct Args *args, struct SamplerSettings *set) {
    static const char *const FILTERS[] = {"top-k", "top-p", "min-p", "typical"};
    uint64_t seed = (uint64_t)args_int(args, "seed");
    struct SampleParams *p = &set->params;
    *p = (struct SampleParams){.temperature = (float)args_float(args, "temperature"),
                               .top_p = (float)args_float(args, "top-p"),
                               .min_p = (float)args_float(args, "min-p"),
                               .top_k = (uint32_t)args_int(args, "top-k"),
                               .typical = (float)args_float(args, "typical"),
                               .seed_low = (uint32_t)seed,
                               .seed_high = (uint32_t)(seed >> 32)};
    set->penalty = (struct Penalty){.repeat = (float)args_float(args, "repeat-penalty"),
                                    .presence = (float)args_float(args, "presence-penalty"),
                                    .frequency = (float)args_float(args, "frequency-penalty")};
    set->window = (uint32_t)args_int(args, "penalty-window");
    if (args_float(args, "mirostat") == 0)
        return !args_given(args, "mirostat-rate") || args_good(fail("--mirostat-rate needs --mirostat"));
    for (size_t i = 0; i < sizeof FILTERS / sizeof *FILTERS; i++)
        if (args_given(args, FILTERS[i]))
            return args_good(fail("--mirostat and --%s exclude each other", FILTERS[i]));
    p->top_p = 1; // the default would cut what mirostat is to see
    p->tau = (float)args_float(args, "mirostat");
    p->eta = (float)args_float(args, "mirostat-rate");
    p->mu = 2 * p->tau;
    return true;
}

char *load_unescape(const char *text) {
    char *out = xmalloc(strlen(text) + 1), *to = out;
    for (const char *at = text; *at; at++) {
        bool escape = at[0] == '\\' && at[1] && strchr("nt\\", at[1]);
        *to++ = !escape ? *at : at[1] == 'n' ? '\n' : at[1] == 't' ? '\t' : '\\';
        at += escape;
    }
    *to = 0;
    return out;
}

bool load_stops(struct Loaded *l, const struct Args *args, struct Stops *stops) {
    *stops = (struct Stops){0};
    const char *list[ARGS_MAX_LIST];
    uint32_t n = args_list(args, "stop", list);
    for (uint32_t i = 0; i < n; i++) {
        size_t bad;
        if (!*list[i])
            return args_good(fail("--stop: an empty text would end every answer before it begins"));
        if (!utf8_valid(list[i], strlen(list[i]), &bad))
            return args_good(fail("--stop: byte %zu is not UTF-8: no text would ever hold it", bad));
        l->stops[l->n_stops++] = load_unescape(list[i]);
        stops->list[stops->n++] = l->stops[i];
    }
    return true;
}

bool load_grammar(const struct Args *args, struct Grammar *g) {
    const char *given = args_text(args, "grammar");
    *g = (struct Grammar){0};
    if (!given)
        return true;
    if (strcmp(given, "json") == 0)
        return grammar_parse(g, GRAMMAR_JSON, strlen(GRAMMAR_JSON), "json");
    if (strstr(given, "::="))
        return grammar_parse(g, given, strlen(given), "--grammar");
    char *text;
    size_t bytes;
    if (!load_file(given, &text, &bytes))
        return false;
    bool ok = grammar_parse(g, text, bytes, given);
    free(text);
    return ok;
}

bool load_file(const char *path, char **text, size_t *bytes) {
    uint8_t *data;
    uint64_t n;
    if (!file_read(strcmp(path, "-") == 0 ? "/dev/stdin" : path, TEXT_MAX_BYTES, &data, &n))
        return false;
    *text = (char *)data;
    *bytes = n;
    return true;
}

bool load_is_stop(const struct Loaded *l, uint32_t id) {
    for (uint32_t i = 0; i < l->file.config.n_eos; i++)
        if (id == l->file.config.eos_id[i])
            return true;
    for (uint32_t i = 0; l->has_template && i < l->template.n_stop; i++)
        if (id == l->template.stop[i])
            return true;
    return id == l->tokenizer.eos_id;
}

static uint32_t stops_of(const struct Loaded *l, uint32_t ids[SESSION_MAX_BIAS]) {
    uint32_t n = 0;
    for (uint32_t id = 0; id < l->file.config.vocab_size && n < SESSION_MAX_BIAS; id++)
        if (load_is_stop(l, id))
            ids[n++] = id;
    return n;
}

bool load_forbid_stops(struct Loaded *l) {
    uint32_t ids[SESSION_MAX_BIAS], n = stops_of(l, ids);
    float bias[SESSION_MAX_BIAS];
    for (uint32_t i = 0; i < n; i++)
        bias[i] = SESSION_FORBID;
    return session_bias(&l->session, n, ids, bias);
}

struct Matching *load_matching(const struct Loaded *l, const struct Grammar *g) {
    uint32_t stops[SESSION_MAX_BIAS], n = stops_of(l, stops);
    return matching_open(g, &l->tokenizer, l->file.config.vocab_size, stops, n);
}
