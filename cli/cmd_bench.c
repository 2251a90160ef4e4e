// `vkmoe bench kernels|device|static`: times of every kernel on real shapes beside this device's own measured peak and a correctness check;
// the peaks alone; or what the driver's compiler says of every pipeline.
#include "cli/commands.h"
#include "model/opcheck.h"
#include "runtime/cmd.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- The device's own peaks

struct Peaks {
    double gflops;      // f32 multiply-adds in registers
    double read_gbytes; // reading
    double copy_gbytes; // read and written
    double dispatch_us; // an empty dispatch with its barrier
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median_us(struct Program *p, uint32_t reps) {
    double us[64] = {0};
    if (!p || !program_time(p, 2, reps, us))
        return 0;
    qsort(us, reps, sizeof *us, by_value);
    return us[reps / 2];
}

static double probe(struct Device *dev, const struct Tensor *x, const struct Tensor *y, uint32_t mode, uint32_t groups,
                    uint32_t n, uint32_t rounds, uint32_t repeats) {
    struct Cmd *c = cmd_begin(dev, "probe");
    for (uint32_t i = 0; i < repeats; i++)
        cmd_dispatch(c, &(struct Dispatch){.kernel = KERNEL_probe, .spec = {mode}, .n_spec = 1, .groups = {groups}},
                     &(struct Args_probe){.x = view(x), .y = view(y), .n = n, .rounds = rounds});
    struct Program *p = cmd_end(c);
    double us = median_us(p, 9);
    program_free(p);
    return us;
}

static bool peaks_measure(struct Device *dev, struct Peaks *p) {
    struct Arena arena;
    arena_init(&arena, dev, "probe", ARENA_DEVICE);
    // Larger than any cache: 256 MiB on a GPU, 64 MiB on a CPU device.
    uint32_t n = (dev->is_cpu ? 64u : 256u) << 20 >> 4, local = cmd_local_size(dev);
    struct Tensor x = TENSOR(&arena, DT_U32, n, 4), y = TENSOR(&arena, DT_U32, n, 4);
    uint32_t groups = dev->is_cpu ? 256 : 8192, rounds = dev->is_cpu ? 8000 : 8192;
    double us = probe(dev, &x, &y, 0, groups, 0, rounds, 1);
    p->gflops = us ? 2.0 * 12 * rounds * groups * local / us / 1000 : 0;
    us = probe(dev, &x, &y, 1, groups, n, 0, 1);
    p->read_gbytes = us ? 16.0 * n / us / 1000 : 0;
    us = probe(dev, &x, &y, 2, groups, n, 0, 1);
    p->copy_gbytes = us ? 32.0 * n / us / 1000 : 0;
    us = probe(dev, &x, &y, 1, 1, 0, 0, 200);
    p->dispatch_us = us / 200;
    arena_free(&arena);
    return dev->state == DEVICE_OK;
}

static void peaks_show(const struct Args *args, const struct Device *dev, const struct Peaks *p) {
    if (args_switch(args, "json")) {
        json_t *j = json_pack("{s:s, s:s, s:f, s:f, s:f, s:f}", "device", dev->name, "driver", dev->driver, "gflops",
                              p->gflops, "read_gbytes_per_s", p->read_gbytes, "copy_gbytes_per_s", p->copy_gbytes,
                              "dispatch_us", p->dispatch_us);
        json_dumpf(j, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(j);
        return;
    }
    printf("%s (%s)\n", dev->name, dev->driver);
    printf("  f32 multiply-add  %10.1f GFLOP/s\n  read              %10.1f GB/s\n  copy (both ways)  %10.1f GB/s\n"
           "  dispatch, barrier %10.2f us\n",
           p->gflops, p->read_gbytes, p->copy_gbytes, p->dispatch_us);
}

// ---- Kernels

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

static json_t *bench_row(const struct Args *args, struct Device *dev, const struct Peaks *peaks,
                         const struct OpCase *oc, const uint32_t *shape, int kernel, uint32_t *wrong) {
    struct Check ck = {.dev = dev, .seed = (uint64_t)args_int(args, "seed"), .time = true, .sample = 48};
    bool ok = opcheck_run(&ck, oc, shape, kernel);
    if (dev->state != DEVICE_OK)
        return NULL;
    *wrong += !ok;
    char shapes[160] = "";
    shape_text(oc, shape, shapes, sizeof shapes);
    double gflops = ck.us > 0 ? ck.flops / ck.us / 1000 : 0, gbytes = ck.us > 0 ? ck.bytes / ck.us / 1000 : 0;
    // Share of what this device could do at best: the greater of the two, as on a roofline.
    double share = 100 * (gflops / peaks->gflops > gbytes / peaks->read_gbytes ? gflops / peaks->gflops
                                                                               : gbytes / peaks->read_gbytes);
    if (!args_switch(args, "json"))
        printf("%-26s %-34s %10.1f %6.1f%% %9.2f %8.2f %6.1f%% %9.1e %s\n", KERNELS[kernel].name, shapes, ck.us,
               ck.us > 0 ? 100 * ck.us_spread / ck.us : 0, gflops, gbytes, share, ck.nmse, ok ? "ok" : "WRONG");
    fflush(stdout);
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:b}", "name", KERNELS[kernel].name, "case",
                     oc->name, "shape", shapes, "us", ck.us, "us_spread", ck.us_spread, "gflops", gflops,
                     "gbytes_per_s", gbytes, "peak_percent", share, "max_error", ck.nmse, "correct", ok);
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

static int bench_kernels(const struct Args *args, struct Device *dev, const char *filter) {
    struct Peaks peaks;
    if (!peaks_measure(dev, &peaks))
        return EXIT_FAILED;
    bool json = args_switch(args, "json");
    json_t *rows = json_array();
    uint32_t wrong = 0;
    if (!json) {
        peaks_show(args, dev, &peaks);
        printf("%-26s %-34s %10s %7s %9s %8s %7s %9s\n", "kernel", "shape", "us", "spread", "GFLOP/s", "GB/s", "peak",
               "error");
    }
    for (size_t f = 0; f < sizeof FILES / sizeof FILES[0]; f++) {
        const struct OpCase *cases;
        uint32_t n = FILES[f](&cases);
        for (uint32_t i = 0; i < n; i++)
            for (const int *k = cases[i].kernels; *k >= 0; k++)
                for (uint32_t s = 0; s < cases[i].n_bench - (dev->is_cpu ? cases[i].n_bench_large : 0) &&
                                     is_wanted(dev, &cases[i], *k, filter);
                     s++) {
                    json_t *row = bench_row(args, dev, &peaks, &cases[i], cases[i].bench[s], *k, &wrong);
                    if (row)
                        json_array_append_new(rows, row);
                }
    }
    bool any = json_array_size(rows) > 0;
    if (json) {
        json_dumpf(rows, stdout, JSON_INDENT(1));
        printf("\n");
    }
    json_decref(rows);
    if (!any && dev->state == DEVICE_OK)
        fail("no kernel matches '%s'", filter ? filter : "");
    return any && wrong == 0 && dev->state == DEVICE_OK ? EXIT_DONE : EXIT_FAILED;
}

// ---- What the compiler says

// Compiles every kernel as its checks use it, without running anything, so that drivers for cards that are not here can be asked.
static int bench_static(const struct Args *args, const char *filter) {
    setenv("VKMOE_STATIC", "1", 1);
    struct Device dev;
    if (!device_open(&dev, args_text(args, "device")))
        return EXIT_FAILED;
    dev.is_dry = dev.compile_only = true;
    fail_quiet(true); // results are not there to be right
    for (size_t f = 0; f < sizeof FILES / sizeof FILES[0]; f++) {
        const struct OpCase *cases;
        uint32_t n = FILES[f](&cases);
        for (uint32_t i = 0; i < n && dev.state == DEVICE_OK; i++)
            for (const int *k = cases[i].kernels; *k >= 0; k++)
                if (!dev.kernel_off[*k] && (!filter || strcasestr(KERNELS[*k].name, filter))) {
                    struct Check ck = {.dev = &dev, .seed = 1, .sample = 1};
                    opcheck_run(&ck, &cases[i], cases[i].shapes[0], *k);
                }
    }
    fail_quiet(false);
    if (dev.state != DEVICE_OK) {
        fail("%s: %s", dev.name, fail_last());
        dev.is_dry = false;
        device_close(&dev);
        return EXIT_FAILED;
    }
    uint32_t n, spills = 0;
    const struct PipelineStatistic *list = pipeline_statistics(&dev, &n);
    json_t *rows = json_array();
    for (uint32_t i = 0; i < n; i++) {
        bool spill = statistic_is_spill(&list[i]);
        spills += spill;
        json_array_append_new(rows,
                              json_pack("{s:s, s:i, s:s, s:f}", "kernel", KERNELS[list[i].kernel].name, "local_size",
                                        (int)list[i].spec[0], "statistic", list[i].name, "value", list[i].value));
        if (!args_switch(args, "json"))
            printf("%-28s %5u  %-28s %12.0f%s\n", KERNELS[list[i].kernel].name, list[i].spec[0], list[i].name,
                   list[i].value, spill ? "  SPILL" : "");
    }
    if (args_switch(args, "json"))
        json_dumpf(rows, stdout, JSON_INDENT(1));
    json_decref(rows);
    fprintf(stderr, "%s: %u statistics, %u spills\n", dev.name, n, spills);
    dev.is_dry = false;
    device_close(&dev);
    if (n == 0) {
        fail("this driver has no VK_KHR_pipeline_executable_properties, or nothing matched");
        return EXIT_FAILED;
    }
    return spills ? EXIT_FAILED : EXIT_DONE;
}

int cmd_bench(const struct Args *args) {
    const char *what = args->operands[0], *filter = args->n_operands > 1 ? args->operands[1] : NULL;
    if (strcmp(what, "static") == 0)
        return bench_static(args, filter);
    if (strcmp(what, "kernels") != 0 && strcmp(what, "device") != 0)
        return args_wrong(args, "'%s' is none of kernels, device, static", what);
    struct Device dev;
    struct Peaks peaks;
    if (!device_open(&dev, args_text(args, "device")))
        return EXIT_FAILED;
    int status = EXIT_FAILED;
    if (what[0] == 'k') {
        status = bench_kernels(args, &dev, filter);
    } else if (peaks_measure(&dev, &peaks)) {
        peaks_show(args, &dev, &peaks);
        status = EXIT_DONE;
    }
    device_close(&dev);
    return status;
}
