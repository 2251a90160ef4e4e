// `vkmoe bench kernels [FILTER]`: times of every kernel on real shapes beside this device's own measured peak and a correctness check. Without --preset
// the shapes are those of the checks' tables; with it, all that the layers of that model ask of a kernel. `vkmoe bench shader --as` is the same of one
// kernel, in whose place a user's module runs beside it.
#include "cli/bench.h"
#include "cli/load.h"
#include "cli/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void shape_text(const struct OpCase *oc, const uint32_t *shape, char *out, size_t room) {
    size_t used = 0;
    const char *name = oc->shape_names;
    for (int i = 0; i < OP_SHAPE && name && *name && used < room; i++) {
        size_t n = strcspn(name, ",");
        if (shape[i]) // what is 0 is absent
            used += (size_t)snprintf(out + used, room - used, "%s%.*s=%u", used ? " " : "", (int)n, name, shape[i]);
        name += n + (name[n] == ',');
    }
}

enum { MAX_TOKENS = 8, MAX_DOTS = 4096 };

struct Bench {
    const struct Args *args;
    struct Device *dev;
    const char *filter;
    const struct OwnKernel *own; // or NULL
    struct Peaks peaks;
    struct BenchTable table;
    struct Config config; // of --preset
    bool has_preset;
    enum DType type; // DT_COUNT: all
    uint32_t tokens[MAX_TOKENS], n_tokens, wrong;
    struct PlotDot *dots; // (MAX_DOTS) of --png
    uint32_t n_dots;
};

// Runs and times one shape. *statistics: what the driver says of pipelines that were made for it; NULL: not asked.
static bool measure(struct Bench *b, const struct OpCase *oc, const uint32_t *shape, int kernel, struct Check *ck,
                    json_t **statistics) {
    *ck = (struct Check){.dev = b->dev,
                         .seed = (uint64_t)args_int(b->args, "seed"),
                         .time = true,
                         .warm = args_switch(b->args, "warm"),
                         .sample = 48};
    uint32_t first;
    pipeline_statistics(b->dev, &first);
    bool ok = opcheck_run(ck, oc, shape, kernel);
    if (statistics)
        *statistics = bench_pipeline(b->dev, (enum KernelId)kernel, first);
    return ok;
}

// The user's module at this shape, right behind the built-in one: adds to the row what that one took.
static bool measure_own(struct Bench *b, const struct OpCase *oc, const uint32_t *shape, struct Check *ck,
                        json_t **beside) {
    json_t *statistics, *was_statistics;
    struct Check built_in;
    measure(b, oc, shape, b->own->id, &built_in, &was_statistics);
    struct KernelInfo was = kernel_replace(b->dev, b->own->id, b->own->info);
    bool ok = measure(b, oc, shape, b->own->id, ck, &statistics);
    kernel_replace(b->dev, b->own->id, was);
    double us = bench_fair_us(b->dev, ck->us, ck->cpu_us);
    double was_us = bench_fair_us(b->dev, built_in.us, built_in.cpu_us);
    *beside = json_pack("{s:f, s:f, s:o, s:o}", "builtin_us", built_in.us, "of_builtin", was_us > 0 ? us / was_us : 0,
                        "statistics", statistics, "builtin_statistics", was_statistics);
    return ok;
}

static void bench_one(struct Bench *b, const struct OpCase *oc, const uint32_t *shape, int kernel) {
    struct Check ck;
    json_t *beside = NULL;
    char shapes[160] = "";
    shape_text(oc, shape, shapes, sizeof shapes);
    if (b->own && b->filter && !strcasestr(oc->name, b->filter) && !strcasestr(shapes, b->filter))
        return;
    bool ok = b->own ? measure_own(b, oc, shape, &ck, &beside) : measure(b, oc, shape, kernel, &ck, NULL);
    if (b->dev->state != DEVICE_OK) {
        json_decref(beside);
        return;
    }
    b->wrong += !ok;
    double gflops = ck.us > 0 ? ck.flops / ck.us / 1000 : 0, gbytes = ck.us > 0 ? ck.bytes / ck.us / 1000 : 0;
    bool matrix = (KERNELS[kernel].needs & NEEDS_COOPMAT) && b->peaks.matrix_gflops > 0;
    bool pairs = (KERNELS[kernel].needs & NEEDS_DOT2) && b->peaks.pair_gflops > 0;
    double peak = matrix ? b->peaks.matrix_gflops : pairs ? b->peaks.pair_gflops : b->peaks.gflops;
    double us = bench_fair_us(b->dev, ck.us, ck.cpu_us), share = 0;
    if (us > 0) // of what this device could do at best: the greater of the two, as on a roofline
        share = 100 * fmax(ck.flops / us / 1000 / peak, ck.bytes / us / 1000 / peaks_gbytes(&b->peaks));
    if (b->dots && b->n_dots < MAX_DOTS && ck.flops > 0 && us > 0)
        b->dots[b->n_dots++] = (struct PlotDot){ck.flops / ck.bytes, ck.flops / us / 1000,
                                                matrix || (pairs && b->peaks.matrix_gflops == 0), oc->name};
    json_t *row = json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:b}", "name",
                            b->own ? b->own->info.name : KERNELS[kernel].name, "case", oc->name, "shape", shapes, "us",
                            ck.us, "spread_percent", ck.us > 0 ? 100 * ck.us_spread / ck.us : 0, "cpu_us", ck.cpu_us,
                            "gflops", gflops, "gbytes_per_s", gbytes, "peak_percent", bench_number(share), "max_error",
                            bench_number(ck.nmse), "correct", ok);
    json_object_update(row, beside);
    bench_row(&b->table, row);
    if (beside && !args_switch(b->args, "json"))
        bench_pipeline_show(json_object_get(beside, "statistics"), json_object_get(beside, "builtin_statistics"));
    json_decref(beside);
}

// What a name or a part of it asks for; without one every kernel but, on a GPU, the bodies for CPU devices, which it never takes.
static bool is_wanted(const struct Bench *b, const struct OpCase *oc, int kernel) {
    const char *name = KERNELS[kernel].name;
    if (b->dev->kernel_off[kernel])
        return false;
    // Where a type is asked for: weights of it, what has none, and products in f32, which routers and gradients have too.
    const char *shape = oc->shape_names;
    bool plain = ends_with(shape, ",flags"), weights = strncmp(shape, "tokens,n,", 9) == 0;
    if (b->type != DT_COUNT && weights && oc->type != b->type && !(plain && oc->type == DT_F32))
        return false;
    if (b->own)
        return kernel == (int)b->own->id;
    if (b->filter)
        return strcasestr(name, b->filter) || strcasestr(oc->name, b->filter);
    return b->dev->is_cpu || !ends_with(name, "_cpu");
}

static bool takes_last(const struct OpCase *oc, const uint32_t *shape) {
    uint32_t last = 0;
    for (const char *c = oc->shape_names; *c; c++)
        last += *c == ',';
    return !oc->divides_last || shape[last] % oc->divides_last == 0;
}

static void bench_case(struct Bench *b, const struct OpCase *oc, int kernel) {
    uint32_t n = oc->n_bench - (b->dev->is_cpu ? oc->n_bench_large : 0);
    for (uint32_t s = 0; s < n && !b->has_preset; s++)
        bench_one(b, oc, oc->bench[s], kernel);
    for (uint32_t t = 0; t < b->n_tokens && b->has_preset; t++) {
        struct ShapeList l;
        bench_shapes(&l, oc, &b->config, b->tokens[t]);
        for (uint32_t s = 0; s < l.n; s++)
            if (takes_last(oc, l.shape[s]))
                bench_one(b, oc, l.shape[s], kernel);
    }
}

#define SHAPE_COLUMNS(whose)                                                                                           \
    {"name", whose, -26, 0}, {"case", "operation", -22, 0}, {"shape", "shape", -34, 0}, { "us", "us", 10, 1 }
#define CHECK_COLUMNS                                                                                                  \
    {"max_error", "error", 9, -1}, { "correct", "ok", 3, 0 }
static const struct BenchColumn COLUMNS[] = {SHAPE_COLUMNS("kernel"), BENCH_RATES, CHECK_COLUMNS, {0}};
static const struct BenchColumn OWN_COLUMNS[] = {SHAPE_COLUMNS("file"),
                                                 {"builtin_us", "built-in", 10, 1},
                                                 {"of_builtin", "of it", 6, 3},
                                                 BENCH_RATES,
                                                 CHECK_COLUMNS,
                                                 {0}};

static bool options_read(struct Bench *b) {
    const char *preset = args_text(b->args, "preset"), *type = args_text(b->args, "type");
    struct ModelFile file;
    b->type = DT_COUNT;
    if (preset && !load_open_any(&file, preset, false))
        return false;
    if (preset) {
        b->has_preset = true;
        b->config = file.config;
        modelfile_close(&file);
    }
    if (type)
        dtype_find(type, &b->type);
    else if (b->has_preset && !b->own) // a kernel has its own
        b->type = DT_BF16;
    if (!bench_list(b->args, "tokens", b->tokens, MAX_TOKENS, &b->n_tokens))
        return false;
    for (uint32_t i = 0; i < b->n_tokens; i++)
        if (b->tokens[i] == 0)
            return args_good(fail("--tokens %s: a pass has one token at least", args_text(b->args, "tokens")));
    return b->has_preset || !args_given(b->args, "tokens") ||
           args_good(fail("--tokens is of a model's shapes: --preset MODEL is missing"));
}

static bool roofline(const struct Bench *b) {
    const struct Peaks *p = &b->peaks;
    struct PlotRoof roofs[] = {{"f32", p->gflops}, {"matrix units", p->matrix_gflops}};
    if (p->matrix_gflops == 0) // what has matrix units takes those
        roofs[1] = (struct PlotRoof){"pairs of f16", p->pair_gflops};
    char title[128];
    snprintf(title, sizeof title, "%.80s", b->dev->name);
    return plot_roofline(args_text(b->args, "png"), title, peaks_gbytes(p), roofs, roofs[1].gflops > 0 ? 2 : 1, b->dots,
                         b->n_dots);
}

int bench_kernels(const struct Args *args, struct Device *dev, const char *filter, const struct OwnKernel *own) {
    struct Bench b = {.args = args, .dev = dev, .filter = filter, .own = own};
    if (!options_read(&b) || !peaks_measure(dev, &b.peaks) ||
        !bench_begin(&b.table, args, dev, own ? OWN_COLUMNS : COLUMNS, 3, "us", true))
        return EXIT_FAILED;
    if (args_text(args, "png"))
        b.dots = xcalloc(MAX_DOTS, sizeof *b.dots);
    for (size_t f = 0; f < N_OPCHECK_FILES; f++) {
        const struct OpCase *cases;
        uint32_t n = OPCHECK_FILES[f](&cases);
        for (uint32_t i = 0; i < n; i++)
            for (const int *k = cases[i].kernels; *k >= 0; k++)
                if (is_wanted(&b, &cases[i], *k))
                    bench_case(&b, &cases[i], *k);
    }
    bool ok = dev->state == DEVICE_OK;
    if (ok && b.table.n_rows == 0)
        ok = fail("no kernel%s matches '%s'", own ? "'s shape" : "", filter ? filter : "");
    if (ok && b.wrong)
        ok = fail("%u of %u results are wrong", b.wrong, b.table.n_rows);
    ok = ok && (!b.dots || roofline(&b));
    free(b.dots);
    return bench_end(&b.table, ok);
}
