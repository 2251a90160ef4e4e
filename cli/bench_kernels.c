// `vkmoe bench kernels [FILTER]`: times of every kernel on real shapes beside this device's own measured peak and a correctness check.
#include "cli/bench.h"
#include "model/opcheck.h"

#include <math.h>
#include <string.h>
#include <strings.h>

typedef uint32_t OpCases(const struct OpCase **cases);
static OpCases *const FILES[] = {opcheck_linear, opcheck_rows, opcheck_attention};

static void shape_text(const struct OpCase *oc, const uint32_t *shape, char *out, size_t room) {
    size_t used = 0;
    const char *name = oc->shape_names;
    for (int i = 0; i < OP_SHAPE && name && *name && used < room; i++) {
        size_t n = strcspn(name, ",");
        used += (size_t)snprintf(out + used, room - used, "%s%.*s=%u", i ? " " : "", (int)n, name, shape[i]);
        name += n + (name[n] == ',');
    }
}

static json_t *kernel_row(const struct Args *args, struct Device *dev, const struct Peaks *peaks,
                          const struct OpCase *oc, const uint32_t *shape, int kernel) {
    struct Check ck = {.dev = dev, .seed = (uint64_t)args_int(args, "seed"), .time = true, .sample = 48};
    bool ok = opcheck_run(&ck, oc, shape, kernel);
    if (dev->state != DEVICE_OK)
        return NULL;
    char shapes[160] = "";
    shape_text(oc, shape, shapes, sizeof shapes);
    double gflops = ck.us > 0 ? ck.flops / ck.us / 1000 : 0, gbytes = ck.us > 0 ? ck.bytes / ck.us / 1000 : 0;
    // Share of what this device could do at best: the greater of the two, as on a roofline.
    double share = 100 * fmax(gflops / peaks->gflops, gbytes / peaks->read_gbytes);
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b}", "name", KERNELS[kernel].name, "case",
                     oc->name, "shape", shapes, "us", ck.us, "spread_percent",
                     ck.us > 0 ? 100 * ck.us_spread / ck.us : 0, "cpu_us", ck.cpu_us, "gflops", gflops, "gbytes_per_s",
                     gbytes, "peak_percent", share, "max_error", ck.nmse, "correct", ok);
}

// What a name or a part of it asks for; without one every kernel but, on a GPU, the bodies for CPU devices, which it never takes.
static bool is_wanted(const struct Device *dev, const struct OpCase *oc, int kernel, const char *filter) {
    const char *name = KERNELS[kernel].name;
    if (dev->kernel_off[kernel])
        return false;
    if (filter)
        return strcasestr(name, filter) || strcasestr(oc->name, filter);
    size_t n = strlen(name);
    return dev->is_cpu || n < 4 || strcmp(name + n - 4, "_cpu") != 0;
}

static const struct BenchColumn COLUMNS[] = {{"name", "kernel", -26, 0},
                                             {"case", NULL, -26, 0},
                                             {"shape", "shape", -34, 0},
                                             {"us", "us", 10, 1},
                                             {"spread_percent", "spread%", 7, 1},
                                             {"cpu_us", "CPU us", 10, 1},
                                             {"gflops", "GFLOP/s", 9, 2},
                                             {"gbytes_per_s", "GB/s", 8, 2},
                                             {"peak_percent", "peak%", 6, 1},
                                             {"max_error", "error", 9, -1},
                                             {"correct", "ok", 3, 0},
                                             {0}};

int bench_kernels(const struct Args *args, struct Device *dev, const char *filter) {
    struct Peaks peaks;
    struct BenchTable table;
    uint32_t wrong = 0, rows = 0;
    if (!peaks_measure(dev, &peaks) || !bench_begin(&table, args, dev, COLUMNS, 3, "us", true))
        return EXIT_FAILED;
    for (size_t f = 0; f < sizeof FILES / sizeof FILES[0]; f++) {
        const struct OpCase *cases;
        uint32_t n = FILES[f](&cases);
        for (uint32_t i = 0; i < n; i++)
            for (const int *k = cases[i].kernels; *k >= 0; k++)
                for (uint32_t s = 0; s < cases[i].n_bench - (dev->is_cpu ? cases[i].n_bench_large : 0) &&
                                     is_wanted(dev, &cases[i], *k, filter);
                     s++) {
                    json_t *row = kernel_row(args, dev, &peaks, &cases[i], cases[i].bench[s], *k);
                    if (!row)
                        continue;
                    wrong += !json_is_true(json_object_get(row, "correct"));
                    bench_row(&table, row);
                    rows++;
                }
    }
    bool ok = dev->state == DEVICE_OK;
    if (ok && rows == 0)
        ok = fail("no kernel matches '%s'", filter ? filter : "");
    if (ok && wrong)
        ok = fail("%u of %u results are wrong", wrong, rows);
    return bench_end(&table, ok);
}
