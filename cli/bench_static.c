// `vkmoe bench static [FILTER]`: what the driver's compiler says of every pipeline.
#include "cli/bench.h"
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

typedef uint32_t OpCases(const struct OpCase **cases);
static OpCases *const FILES[] = {opcheck_linear, opcheck_rows, opcheck_attention};

// Compiles every kernel as its checks use it, without running anything, so that drivers for cards that are not here can be asked.
int bench_static(const struct Args *args, const char *filter) {
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
