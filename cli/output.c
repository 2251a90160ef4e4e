// See output.h. The writers pull rows from a source; this one stands between to count them.
#include "cli/output.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/template.h"
#include "runtime/temporary.h"

#include <stdlib.h>
#include <string.h>

bool output_is_gguf(const char *path) { return ends_with(path, ".gguf"); }

bool output_check(const struct Args *args) {
    const char *out = args_text(args, "out"), *type = args_text(args, "type");
    enum DType t;
    if (type && dtype_find(type, &t) && dtype_is_quantised(t) && !output_is_gguf(out))
        return fail("%s: a Hugging Face folder holds f32, f16 or bf16, not %s; a name that ends in .gguf can", out,
                    type);
    char *template = template_place(out);
    bool ok = modelwrite_check_output(out, output_is_gguf(out)) &&
              (!output_is_gguf(out) || !file_exists(template) ||
               fail("%s: exists already, and would be the model's: give another name or remove it first", template));
    free(template);
    return ok;
}

bool output_template(const char *out, const char *adapter, const char *model) {
    char *from = adapter ? template_beside(adapter) : NULL;
    if (!from)
        from = template_beside(model);
    if (!from)
        return true;
    char *to = template_place(out), *text = template_source(from);
    bool ok = text && file_write_atomic(to, text, strlen(text));
    free(from);
    free(to);
    free(text);
    return ok;
}

enum DType output_type(const struct Args *args, enum DType fallback) {
    const char *name = args_text(args, "type");
    enum DType type = fallback;
    if (name)
        dtype_find(name, &type);
    else if (dtype_is_quantised(type) && !output_is_gguf(args_text(args, "out"))) {
        fprintf(stderr, "the weights are %s, which a Hugging Face folder does not hold: they are written as f32\n",
                DTYPES[type].name);
        type = DT_F32;
    }
    return type;
}

enum DType output_main_type(const struct ModelFile *f) {
    uint64_t weights[DT_COUNT] = {0};
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        if (!weight_is_exact(&f->tensors[i].spec))
            weights[f->tensors[i].type] += f->tensors[i].n_rows * f->tensors[i].cols;
    }
    enum DType most = DT_F32;
    for (int t = 0; t < DT_COUNT; t++)
        most = weights[t] > weights[most] ? (enum DType)t : most;
    return most;
}

struct Counted {
    const struct WeightSource *inner;
    struct Progress progress;
    uint64_t bytes;
};

static enum DType counted_type(void *context, const struct WeightSpec *w) {
    struct Counted *c = context;
    return c->inner->type(c->inner->context, w);
}

static bool counted_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    struct Counted *c = context;
    if (!c->inner->rows(c->inner->context, w, first, count, out))
        return false;
    c->bytes += count * w->dim[w->n_dims - 1];
    progress_update(&c->progress, c->bytes, "%s", w->name);
    return true;
}

// Half a model is nothing: it goes, and the program ends as the signal would have ended it.
static void on_signal(int number) {
    temporaries_drop();
    signal(number, SIG_DFL);
    raise(number);
}

static const int ENDS[] = {SIGINT, SIGTERM, SIGHUP};

void output_catch(struct OutputGuard *g, void (*handler)(int number)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    for (int i = 0; i < 3; i++)
        if (sigaction(ENDS[i], NULL, &g->before[i]) == 0 && g->before[i].sa_handler != SIG_IGN) // as nohup has it
            sigaction(ENDS[i], &action, NULL);
}

void output_guard(struct OutputGuard *g) { output_catch(g, on_signal); }

void output_unguard(const struct OutputGuard *g) {
    for (int i = 0; i < 3; i++)
        sigaction(ENDS[i], &g->before[i], NULL);
}

bool output_write_to(const struct Args *args, const char *to, const struct Config *c, const struct WriteTypes *types,
                     const struct WeightSource *source, const struct ModelFile *tokenizer, const char *name,
                     const char *what) {
    const char *out = args_text(args, "out");
    struct Counted counted = {.inner = source};
    struct WeightSource outer = {&counted, counted_type, counted_rows};
    struct OutputGuard guard;
    uint64_t all = config_parameters(c);
    if (output_is_gguf(out) && c->tied_head && c->n_experts) // the embedding is written twice there
        all += (uint64_t)c->vocab_size * c->dim;
    output_guard(&guard);
    progress_begin(&counted.progress, "write", "weight", 0, all);
    bool ok = output_is_gguf(out) ? modelwrite_gguf(to, c, types, &outer, tokenizer, name)
                                  : modelwrite_hf(to, c, types->type, &outer, tokenizer, 0);
    progress_clear(&counted.progress);
    output_unguard(&guard);
    if (!ok)
        return false;
    char count[16];
    term_format_count((double)config_parameters(c), count);
    fprintf(stderr, "%s: %s parameters as %s\n", out, count, what);
    return true;
}

bool output_json(json_t *j, size_t flags) {
    if (!j)
        return fail("--json: a text in it is no UTF-8");
    json_dumpf(j, stdout, flags | JSON_PRESERVE_ORDER);
    printf("\n");
    json_decref(j);
    return true;
}

static bool tell_json(const struct Args *args, const struct Config *c, const char *what) {
    if (!args_switch(args, "json"))
        return true;
    return output_json(json_pack("{s:o, s:I, s:s}", "out", json_repaired(args_text(args, "out")), "parameters",
                                 (json_int_t)config_parameters(c), "type", what),
                       0);
}

bool output_write_as(const struct Args *args, const struct Config *c, const struct WriteTypes *types,
                     const struct WeightSource *source, const struct ModelFile *tokenizer, const char *name,
                     const char *what) {
    const char *out = args_text(args, "out");
    return output_write_to(args, out, c, types, source, tokenizer, name, what) &&
           (!tokenizer || output_template(out, NULL, tokenizer->path)) && tell_json(args, c, what);
}

bool output_write(const struct Args *args, const struct Config *c, enum DType type, const struct WeightSource *source,
                  const struct ModelFile *tokenizer, const char *name) {
    struct WriteTypes types = {.type = type, .embed_type = DT_COUNT};
    return output_write_as(args, c, &types, source, tokenizer, name, DTYPES[type].name);
}

char *output_name(const struct ModelFile *f) {
    char *name = NULL;
    if (f->gguf && gguf_get_string(f->gguf, "general.name", false, &name) && name)
        return name;
    name = path_name(f->path);
    char *end = strstr(name, ".gguf");
    if (end)
        *end = 0;
    return name;
}
