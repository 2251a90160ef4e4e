// Every pipeline compiled by the driver at hand, and what its compiler says of the result: nothing may be spilled to memory, and modules
// for matrix units must use them. tools/ci_testing.sh runs it with drivers whose card is not there (mesa-drm-shim): so nothing
// runs, operations are only recorded, as the suite's checks and as whole models do. Needs VKMOE_STATIC=1; VKMOE_STATIC=2 prints all. With VKMOE_STATIC_MATRIX=1
// the card has matrix units, with VKMOE_STATIC_DOT2=1 products of pairs, and each body for them must be compiled.
#include "check.h"
#include "model/opcheck.h"
#include "model/session.h"
#include "model/tune.h"
#include "runtime/vk.h"
#include "train/step.h"

#include <stdlib.h>
#include <string.h>

// Records every case of the checks with every kernel that this device can run. The results are not there to be right. Ways to cut a product
// that a tuner may try are recorded with VKMOE_STATIC_WAYS=1, for the types that are not quantised: the others unpack on their way to the same tables.
static void compile_checks(struct Device *dev) {
    const bool all_ways = getenv("VKMOE_STATIC_WAYS") != NULL;
    fail_quiet(true);
    for (size_t t = 0; t < N_OPCHECK_FILES; t++) {
        const struct OpCase *cases;
        uint32_t n = OPCHECK_FILES[t](&cases);
        for (uint32_t i = 0; i < n; i++) {
            for (const int *kernel = cases[i].kernels; *kernel >= 0; kernel++) {
                for (uint32_t s = 0; s < cases[i].n_shapes && opcheck_concerns(dev, *kernel); s++) {
                    struct Check ck = {.dev = dev, .seed = 1, .sample = 1};
                    uint32_t ways = 1;
                    for (uint32_t way = 0; way < ways; way++) {
                        tune_force(dev, (int)way);
                        opcheck_run(&ck, &cases[i], cases[i].shapes[s], *kernel);
                        ways = all_ways && !dtype_is_quantised(cases[i].type) ? tune_ways(dev) : 1;
                    }
                }
            }
        }
    }
    fail_quiet(false);
}

// The only modules without a check: `bench kernels` takes the peaks of the device with them.
static void compile_probe(struct Device *dev) {
    struct Arena arena;
    arena_init(&arena, dev, "probe", ARENA_DEVICE);
    struct Tensor x = TENSOR(&arena, DT_F32, 1024);
    struct Cmd *c = cmd_begin(dev, "probe");
    for (uint32_t mode = 0; mode < 3; mode++)
        cmd_dispatch(c, &(struct Dispatch){.kernel = KERNEL_probe, .spec = {mode}, .n_spec = 1, .groups = {1}},
                     &(struct Args_probe){.x = view(&x), .y = view(&x), .n = 1024, .rounds = 1});
    if (!dev->kernel_off[KERNEL_probe_dot2])
        cmd_dispatch(c, &(struct Dispatch){.kernel = KERNEL_probe_dot2, .spec = {0}, .n_spec = 1, .groups = {1}},
                     &(struct Args_probe){.x = view(&x), .y = view(&x), .n = 1024, .rounds = 1});
    for (enum KernelId k = KERNEL_probe_matrix_f16; k <= KERNEL_probe_matrix_bf16; k++)
        if (!dev->kernel_off[k])
            cmd_dispatch(
                c,
                &(struct Dispatch){
                    .kernel = k, .spec = {dev->coopmat.m, dev->coopmat.n, dev->coopmat.k}, .n_spec = 3, .groups = {1}},
                &(struct Args_probe){.x = view(&x), .y = view(&x), .n = 1, .rounds = 1});
    program_free(cmd_end(c));
    arena_free(&arena);
}

// One model: a prompt, one answer and eight beside each other, a training step in full or, of quantised weights, of adapters.
static void compile_model(struct Device *dev, const char *preset, enum DType type) {
    enum { TOKENS = 512 };
    struct Config config;
    CHECK(config_preset(&config, preset), "no preset %s", preset);
    for (uint32_t n = 1; n <= SESSION_MAX_SEQUENCES; n *= SESSION_MAX_SEQUENCES) {
        struct Model m;
        struct Session s = {0};
        struct SessionOptions o = {.n_sequences = n, .context = TOKENS, .scoring = n > 1};
        bool ok = model_init(&m, dev, &config, type, TOKENS) && session_init(&s, &m, &o);
        CHECK(ok, "%s: %s", preset, fail_last());
        session_free(&s);
        model_free(&m);
    }
    struct Model m;
    struct Step s = {0};
    struct StepOptions o = {.micro_tokens = TOKENS, .recompute = true, .optimiser = {.clip_norm = 1}};
    struct LoraOptions lora = {.rank = 16, .alpha = 16, .targets = LORA_ALL};
    bool full = !dtype_is_quantised(type), ok = model_init(&m, dev, &config, type, TOKENS);
    ok = ok && (full || model_add_lora(&m, &lora, 1)) && step_init(&s, &m, &o, full);
    CHECK(ok, "%s: %s", preset, fail_last());
    step_free(&s);
    model_free(&m);
}

static void compile_models(struct Device *dev) {
    static const char *const PRESETS[] = {"deepseek-moe-16b", "smollm2-135m", "tiny-moe"};
    static const enum DType TYPES[] = {DT_F32, DT_BF16, DT_Q4_1};
    for (size_t i = 0; i < sizeof PRESETS / sizeof PRESETS[0]; i++)
        for (size_t t = 0; t < sizeof TYPES / sizeof TYPES[0]; t++)
            compile_model(dev, PRESETS[i], TYPES[t]);
}

// One row a thread is the least: two sums of 256 floats over eight lanes, and what they are made of, do not fit Intel's 128 registers.
static bool is_known_spill(const struct Device *dev, const struct PipelineStatistic *s) {
    enum { HEAD = 2, MOST = 24 };
    return dev->vendor_id == 0x8086 && s->kernel == KERNEL_attention_back_dkv && s->spec[HEAD] == 256 &&
           s->value <= MOST;
}

// Of each body that needs matrix units of a subgroup, or products of pairs, at least one module must be there and use them: a card that has them and does
// not show them to us any more would pass all else. (Matrices of a workgroup are NVIDIA's own driver's alone.)
static void check_bodies(const struct PipelineStatistic *list, uint32_t n, uint32_t needs, uint32_t least) {
    uint32_t n_bodies = 0;
    for (uint32_t k = 0; k < KERNEL_COUNT; k++) {
        if (!(KERNELS[k].needs & needs) || (KERNELS[k].needs & NEEDS_COOPMAT2))
            continue;
        size_t body = (size_t)(strrchr(KERNELS[k].name, '_') - KERNELS[k].name);
        bool used = false;
        for (uint32_t i = 0; i < n && !used; i++)
            used = list[i].value > 0 && strcmp(list[i].name, MATRIX_INSTRUCTIONS) == 0 &&
                   strncmp(KERNELS[list[i].kernel].name, KERNELS[k].name, body + 1) == 0;
        CHECK(used, "%.*s: no module with an instruction of its own", (int)body, KERNELS[k].name);
        n_bodies++;
    }
    CHECK(n_bodies >= least, "%u such modules in the list", n_bodies);
}

// Gives how many modules were compiled.
static uint32_t check_statistics(const struct Device *dev, bool print) {
    bool compiled[KERNEL_COUNT] = {false};
    uint32_t n, n_compiled = 0;
    const struct PipelineStatistic *list = pipeline_statistics(dev, &n);
    CHECK(n > 0, "%s gives no statistics", dev->driver);
    for (uint32_t i = 0; i < n; i++) {
        const char *name = KERNELS[list[i].kernel].name;
        bool matrix = strcmp(list[i].name, MATRIX_INSTRUCTIONS) == 0;
        compiled[list[i].kernel] = true;
        if (statistic_is_spill(&list[i]) && is_known_spill(dev, &list[i]))
            printf("known: %s spills %g registers for heads of 256\n", name, list[i].value);
        else
            CHECK(!statistic_is_spill(&list[i]), "%s: %s is %g", name, list[i].name, list[i].value);
        CHECK(!matrix || dev->is_cpu || list[i].value > 0, "%s: no instruction of matrix units or pairs", name);
        if (print && (i == 0 || list[i - 1].kernel != list[i].kernel ||
                      memcmp(list[i - 1].spec, list[i].spec, sizeof list[i].spec))) {
            printf("\n%-28s [", name);
            for (uint32_t j = 0; j < KERNEL_MAX_SPEC + 2; j++)
                printf(j ? " %u" : "%u", list[i].spec[j]);
            printf("]");
        }
        if (print)
            printf("  %s %g", list[i].name, list[i].value);
    }
    if (print)
        printf("\n");
    for (uint32_t k = 0; k < KERNEL_COUNT; k++) {
        n_compiled += compiled[k];
        CHECK(compiled[k] || !opcheck_concerns(dev, (int)k), "%s: nothing records it", KERNELS[k].name);
    }
    return n_compiled;
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
    tune_begin(&dev, 0);
    dev.is_dry = dev.compile_only = true;
    compile_checks(&dev);
    tune_force(&dev, 0);
    uint32_t of_checks = dev.vk->n_pipelines;
    compile_probe(&dev);
    compile_models(&dev);
    CHECK(dev.state == DEVICE_OK, "the device failed: %s", fail_last());
    uint32_t n_compiled = check_statistics(&dev, mode[0] == '2'), n;
    const struct PipelineStatistic *list = pipeline_statistics(&dev, &n);
    if (getenv("VKMOE_STATIC_MATRIX"))
        check_bodies(list, n, NEEDS_COOPMAT, 10); // five, each in two types
    if (getenv("VKMOE_STATIC_DOT2"))
        check_bodies(list, n, NEEDS_DOT2, 4);
    printf("%s, %s: %u pipelines of %u modules, %u of them in models alone\n", dev.name, dev.driver,
           dev.vk->n_pipelines, n_compiled, dev.vk->n_pipelines - of_checks);
    dev.is_dry = false;
    device_close(&dev);
    return check_done();
}
