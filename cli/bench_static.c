// `vkmoe bench static [FILTER]`: what the driver's compiler says of every pipeline, a row each.
#include "cli/bench.h"
#include "cli/spirv.h"
#include "model/opcheck.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

json_t *bench_pipeline(const struct Device *dev, enum KernelId kernel, uint32_t first) {
    json_t *object = json_object();
    uint32_t n;
    const struct PipelineStatistic *list = pipeline_statistics(dev, &n);
    for (uint32_t i = first; i < n; i++)
        if (list[i].kernel == kernel)
            json_object_set_new(object, list[i].name, json_real(list[i].value));
    return object;
}

void bench_pipeline_show(const json_t *statistics, const json_t *beside) {
    const char *name, *between = "  ";
    json_t *value;
    json_object_foreach((json_t *)statistics, name, value) {
        const json_t *other = json_object_get(beside, name);
        fprintf(stderr, "%s%s %.0f", between, name, json_number_value(value));
        if (other && !json_equal(other, value))
            fprintf(stderr, " (%.0f)", json_number_value(other));
        between = ", ";
    }
    if (json_object_size(statistics))
        fprintf(stderr, "\n");
}

// What makes a column, in the words of Mesa's drivers: the first that is told counts.
static const struct {
    const char *key, *words[3];
} FIGURES[] = {{"registers", {"VGPRs", "Number of GPRs", "Max live registers"}},
               {"scalar_registers", {"SGPRs"}},
               {"occupancy", {"Subgroups per SIMD", "Max warps/SM", "Max dispatch width"}},
               {"code_bytes", {"Code size", "Code Size"}},
               {"instructions", {"Instructions", "Instruction count", "Instruction Count"}},
               {"latency", {"Latency", "Static cycle count", "Cycle Count"}},
               {"matrix", {MATRIX_INSTRUCTIONS}}};

void bench_figures(json_t *row, const json_t *statistics) {
    for (size_t f = 0; f < sizeof FIGURES / sizeof FIGURES[0]; f++)
        for (int w = 2; w >= 0; w--)
            if (FIGURES[f].words[w] && json_object_get(statistics, FIGURES[f].words[w]))
                json_object_set(row, FIGURES[f].key, json_object_get(statistics, FIGURES[f].words[w]));
}

static const struct BenchColumn COLUMNS[] = {
    {"kernel", "kernel", -28, 0},    {"constants", "width, subgroup; constants", -34, 0},
    {"registers", "regs", 5, 0},     {"scalar_registers", "scalar", 6, 0},
    {"spills", "spills", 6, 0},      {"shared_bytes", "shared", 6, 0},
    {"occupancy", "groups", 6, 0},   {"code_bytes", "code", 7, 0},
    {"instructions", "instr", 6, 0}, {"latency", "latency", 8, 0},
    {"matrix", "matrix", 6, 0},      {0}};

// One pipeline: the n statistics from list[0] on. Gives whether registers were spilled.
static bool pipeline_row(struct BenchTable *t, const struct PipelineStatistic *list, uint32_t n) {
    const struct KernelInfo *kernel = &KERNELS[list->kernel];
    struct SpirvModule module;
    spirv_read(kernel->words, kernel->n_words, list->spec, KERNEL_MAX_SPEC + 2, &module);
    char constants[12 * (KERNEL_MAX_SPEC + 2)];
    int at = snprintf(constants, sizeof constants, "%u, %u;", list->spec[0], list->spec[1]), last = 1;
    for (int i = 2; i < KERNEL_MAX_SPEC + 2; i++)
        last = list->spec[i] ? i : last;
    for (int i = 2; i <= last; i++)
        at += snprintf(constants + at, sizeof constants - (size_t)at, " %u", list->spec[i]);
    double spills = 0;
    json_t *all = json_object();
    for (uint32_t i = 0; i < n; i++) {
        json_object_set_new(all, list[i].name, json_real(list[i].value));
        spills += statistic_is_spill(&list[i]) ? list[i].value : 0;
    }
    json_t *row = json_pack("{s:s, s:s, s:f, s:f}", "kernel", kernel->name, "constants", constants, "spills", spills,
                            "shared_bytes", (double)module.shared_bytes);
    bench_figures(row, all);
    json_object_set_new(row, "statistics", all);
    bench_row(t, row);
    return spills > 0;
}

// Compiles every kernel as its checks use it, without running anything, so that drivers for cards that are not here can be asked.
int bench_static(const struct Args *args, const char *filter) {
    setenv("VKMOE_STATIC", "1", 1);
    struct Device dev;
    if (!device_open(&dev, args_text(args, "device")))
        return EXIT_FAILED;
    dev.is_dry = dev.compile_only = true;
    uint32_t n_kernels = 0;
    fail_quiet(true); // results are not there to be right
    for (size_t f = 0; f < N_OPCHECK_FILES; f++) {
        const struct OpCase *cases;
        uint32_t n = OPCHECK_FILES[f](&cases);
        for (uint32_t i = 0; i < n && dev.state == DEVICE_OK; i++)
            for (const int *k = cases[i].kernels; *k >= 0; k++)
                if (!dev.kernel_off[*k] && (!filter || strcasestr(KERNELS[*k].name, filter))) {
                    struct Check ck = {.dev = &dev, .seed = 1, .sample = 1};
                    opcheck_run(&ck, &cases[i], cases[i].shapes[0], *k);
                    n_kernels++;
                }
    }
    fail_quiet(false);
    uint32_t n, n_pipelines = 0, spills = 0;
    const struct PipelineStatistic *list = pipeline_statistics(&dev, &n);
    if (dev.state != DEVICE_OK || n_kernels == 0 || n == 0) {
        if (dev.state != DEVICE_OK)
            fail("%s: %s", dev.name, fail_last());
        else if (n_kernels == 0)
            fail("no kernel matches '%s'", filter ? filter : "");
        else
            fail("%s: this driver has no VK_KHR_pipeline_executable_properties", dev.name);
        dev.is_dry = false;
        device_close(&dev);
        return EXIT_FAILED;
    }
    struct BenchTable table;
    bool ok = bench_begin(&table, args, &dev, COLUMNS, 2, "latency", true);
    for (uint32_t first = 0, end; first < n && ok; first = end) {
        for (end = first + 1; end < n && list[end].pipeline == list[first].pipeline;)
            end++;
        if (filter && !strcasestr(KERNELS[list[first].kernel].name, filter))
            continue;
        n_pipelines++;
        spills += pipeline_row(&table, list + first, end - first);
    }
    dev.is_dry = false;
    if (ok && spills)
        ok = fail("%u of %u pipelines keep registers in memory", spills, n_pipelines);
    int status = bench_end(&table, ok);
    device_close(&dev);
    return status;
}
