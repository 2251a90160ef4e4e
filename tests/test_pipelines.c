// Every pipeline compiled by the driver at hand, and what its compiler says of the result: no register may be spilled to memory.
// tools/ci_testing.sh runs it with drivers whose card is not there (mesa-drm-shim), where nothing executes: so the operations
// are recorded as the suite's checks do, their results are not looked at. Needs VKMOE_STATIC=1; VKMOE_STATIC=2 prints all.
#include "check.h"
#include "model/opcheck.h"
#include "runtime/vk.h"

#include <stdlib.h>
#include <string.h>

// Bodies for processors: a graphics card can run them, and no operation picks them there.
static bool is_for_cpu(enum KernelId kernel) { return strstr(KERNELS[kernel].name, "_cpu") != NULL; }

// What counts as a spill, in the words of RADV and of NVK.
static bool is_memory_spill(const char *name) {
    return strcmp(name, "Spilled VGPRs") == 0 || strcmp(name, "Spilled SGPRs") == 0 ||
           strcmp(name, "Spills to memory") == 0 || strcmp(name, "Scratch size") == 0;
}

static double statistic_value(const VkPipelineExecutableStatisticKHR *s) {
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        return s->value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
        return (double)s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
        return (double)s->value.u64;
    default:
        return s->value.f64;
    }
}

// One pipeline's statistics: all on a line, the spills checked. Gives the number of figures that were there.
static uint32_t check_pipeline(struct Device *dev, const struct Pipeline *p, bool print) {
    PFN_vkGetPipelineExecutableStatisticsKHR get = (PFN_vkGetPipelineExecutableStatisticsKHR)vkGetDeviceProcAddr(
        dev->vk->device, "vkGetPipelineExecutableStatisticsKHR");
    VkPipelineExecutableStatisticKHR statistics[64];
    uint32_t n = 64;
    for (uint32_t i = 0; i < n; i++)
        statistics[i] =
            (VkPipelineExecutableStatisticKHR){.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    VkPipelineExecutableInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = p->handle};
    if (!get || get(dev->vk->device, &info, &n, statistics) < 0)
        return 0;
    char text[1024] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        double value = statistic_value(&statistics[i]);
        if (is_memory_spill(statistics[i].name))
            CHECK(value == 0, "%s: %s is %g", KERNELS[p->kernel].name, statistics[i].name, value);
        if (used < sizeof text - 80)
            used += (size_t)snprintf(text + used, sizeof text - used, "  %.40s %g", statistics[i].name, value);
    }
    if (print) {
        printf("%-28s [", KERNELS[p->kernel].name);
        for (uint32_t i = 0; i < KERNEL_MAX_SPEC + 2; i++)
            printf(i ? " %u" : "%u", p->spec[i]);
        printf("]%s\n", text);
    }
    return n;
}

static bool left_out(const struct Device *dev, enum KernelId kernel) {
    return dev->kernel_off[kernel] || (is_for_cpu(kernel) && !dev->is_cpu);
}

// Records every case with every kernel that this device can run. Without a card the runs give nothing and fail: that is no matter.
static void compile_all(struct Device *dev) {
    uint32_t (*const tables[])(const struct OpCase **) = {opcheck_linear, opcheck_rows, opcheck_attention};
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        const struct OpCase *cases;
        uint32_t n = tables[t](&cases);
        for (uint32_t i = 0; i < n; i++) {
            for (const int *kernel = cases[i].kernels; *kernel >= 0; kernel++) {
                for (uint32_t s = 0; s < cases[i].n_shapes && !left_out(dev, (enum KernelId) * kernel); s++) {
                    struct Check ck = {.dev = dev, .seed = 1, .sample = 1};
                    opcheck_run(&ck, &cases[i], cases[i].shapes[s], *kernel);
                }
            }
        }
    }
}

// The only module without a check: `bench device` measures with it.
static void compile_probe(struct Device *dev) {
    struct Arena arena;
    arena_init(&arena, dev, "probe", ARENA_DEVICE);
    struct Tensor x = TENSOR(&arena, DT_F32, 1024);
    struct Cmd *c = cmd_begin(dev, "probe");
    for (uint32_t mode = 0; mode < 3; mode++)
        cmd_dispatch(c, &(struct Dispatch){.kernel = KERNEL_probe, .spec = {mode}, .n_spec = 1, .groups = {1}},
                     &(struct Args_probe){.x = view(&x), .y = view(&x), .n = 1024, .rounds = 1});
    program_free(cmd_end(c));
    arena_free(&arena);
}

int main(void) {
    const char *mode = getenv("VKMOE_STATIC");
    if (!mode) {
        check_skip("the compilers of drivers without a card are asked with VKMOE_STATIC=1 (tools/ci_testing.sh)");
        return check_done();
    }
    struct Device dev;
    if (!device_open(&dev, NULL)) {
        CHECK(false, "%s", fail_last());
        return check_done();
    }
    CHECK(dev.vk->has_executable_properties, "%s tells nothing about compiled pipelines", dev.driver);
    fail_quiet(true);
    compile_all(&dev);
    compile_probe(&dev);
    fail_quiet(false);
    CHECK(dev.state == DEVICE_OK, "the device failed: %s", fail_last());
    bool compiled[KERNEL_COUNT] = {false};
    uint32_t figures = 0;
    for (uint32_t i = 0; i < dev.vk->pipeline_slots; i++) {
        const struct Pipeline *p = &dev.vk->pipelines[i];
        if (!p->key)
            continue;
        compiled[p->kernel] = true;
        figures += check_pipeline(&dev, p, mode[0] == '2');
    }
    CHECK(figures > 0, "%s gives no statistics", dev.driver);
    uint32_t n_compiled = 0, n_can = 0;
    for (uint32_t k = 0; k < KERNEL_COUNT; k++) {
        n_compiled += compiled[k];
        n_can += !left_out(&dev, (enum KernelId)k);
        CHECK(compiled[k] || left_out(&dev, (enum KernelId)k), "%s: no check records it", KERNELS[k].name);
    }
    printf("%s, %s: %u pipelines of %u modules (%u of %u can run there)\n", dev.name, dev.driver, dev.vk->n_pipelines,
           n_compiled, n_can, (uint32_t)KERNEL_COUNT);
    device_close(&dev);
    return check_done();
}
