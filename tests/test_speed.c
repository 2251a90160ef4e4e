// Whether kernels are as fast as they were, on a CPU device: processor time of each beside that of the module that was last accepted, tests/speed/NAME.spv, in
// turns and from the same host code. So the machine, its clock, its compiler and other programs change both sides alike (a common reference that only multiplies
// moved against these kernels by half, as neighbours took the caches). More than 15 % above fails,
// after two more tries. Not seen here: what the host chooses, bodies and tiles. tools/ci_testing.sh runs it:
//   VKMOE_SPEED=1        compares
//   VKMOE_SPEED=update   accepts the modules as they are: a kernel is to be slower, with the reason in the commit, or has become faster
#include "check.h"
#include "cli/spirv.h"
#include "model/opcheck.h"

#include <stdlib.h>
#include <string.h>

enum { TURNS = 5, TRIES = 3, MAX_BYTES = 1 << 20, MAX_KERNELS = 3 };
static const double BOUND = 1.15;

static const struct Row {
    const char *name, *op; // as it is told, and in the table of checks
    uint32_t shape[OP_SHAPE];
    int kernels[MAX_KERNELS + 1]; // those of the operation that are replaced, the one that is asked for first
} ROWS[] = {
    {"gemm_nt_bf16", "linear bf16", {128, 576, 576}, {KERNEL_gemm_nt_bf16_cpu, -1}},
    {"gemm_nt_q4_0", "linear q4_0", {128, 576, 576}, {KERNEL_gemm_nt_q4_0_cpu, -1}},
    {"gemm_nt_grouped",
     "linear bf16",
     {128, 96, 576, 16, 6, SPREAD_RANDOM, LINEAR_GATHER},
     {KERNEL_gemm_nt_bf16_cpu, -1}},
    {"gemm_nn_bf16", "linear_dx bf16", {128, 576, 576}, {KERNEL_gemm_nn_bf16_cpu, -1}},
    {"gemm_tn_f32", "linear_dw", {128, 576, 576}, {KERNEL_gemm_tn_f32_cpu, -1}},
    {"gemv_bf16", "linear few bf16", {1, 4096, 2048}, {KERNEL_gemv_bf16, -1}},
    {"gemv_q4_0", "linear few q4_0", {1, 4096, 2048}, {KERNEL_gemv_q4_0, -1}},
    {"gemv_bf16_cpu", "linear few bf16", {1, 4096, 2048}, {KERNEL_gemv_bf16_cpu, -1}},
    {"gemv_q4_0_cpu", "linear few q4_0", {1, 4096, 2048}, {KERNEL_gemv_q4_0_cpu, -1}},
    {"attention", "attention", {256, 256, 9, 3, 64, ATTENTION_CAUSAL}, {KERNEL_attention_cpu, -1}},
    {"attention_back_dq",
     "attention_back",
     {128, 128, 9, 3, 64, ATTENTION_CAUSAL},
     {KERNEL_attention_back_dq_cpu, KERNEL_attention_back_dkv_cpu, -1}},
    {"attention_decode", "attention_decode", {8, 2048, 9, 3, 64}, {KERNEL_attention_decode_cpu, -1}},
    {"rmsnorm_cpu", "rmsnorm f32", {2048, 576}, {KERNEL_rmsnorm_cpu, -1}},
    {"adamw_cpu", "adamw f32", {1 << 20}, {KERNEL_adamw_cpu, -1}},
    {"combine_cpu", "combine", {512, 64, 6, 576}, {KERNEL_combine_cpu, -1}},
    {"sort", "sort", {8192, 64, 6}, {KERNEL_sort, -1}},
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

static bool is_among(const int *kernels, int kernel) {
    while (*kernels >= 0 && *kernels != kernel)
        kernels++;
    return *kernels == kernel;
}

// Of the cases of that name the one whose body the row asks for.
static const struct OpCase *find_case(const struct Row *row) {
    for (size_t t = 0; t < N_OPCHECK_FILES; t++) {
        const struct OpCase *cases;
        for (uint32_t i = 0, n = OPCHECK_FILES[t](&cases); i < n; i++)
            if (strcmp(cases[i].name, row->op) == 0 && is_among(cases[i].kernels, row->kernels[0]))
                return &cases[i];
    }
    return NULL;
}

// ---- The modules that were accepted

static const struct KernelInfo *accepted[KERNEL_COUNT]; // NULL: not asked for yet

static char *module_path(int kernel) {
    return xsprintf("%s/tests/speed/%s.spv", VKMOE_SOURCE_DIR, KERNELS[kernel].name);
}

static bool same_block(const struct KernelInfo *a, const struct KernelInfo *b) {
    struct SpirvModule x, y;
    spirv_read(a->words, a->n_words, NULL, 0, &x);
    spirv_read(b->words, b->n_words, NULL, 0, &y);
    bool same = x.n_fields == y.n_fields;
    for (uint32_t i = 0; i < x.n_fields && same; i++)
        same = x.fields[i].kind == y.fields[i].kind && x.fields[i].offset == y.fields[i].offset;
    return same;
}

static bool accepted_load(int kernel) {
    if (accepted[kernel])
        return true;
    char *path = module_path(kernel);
    uint8_t *words;
    uint64_t bytes;
    if (!CHECK(file_read(path, MAX_BYTES, &words, &bytes), "%s", fail_last())) {
        free(path);
        return false;
    }
    struct KernelInfo *info = xmalloc(sizeof *info);
    *info = KERNELS[kernel];
    info->words = (const uint32_t *)(const void *)words, info->n_words = (uint32_t)(bytes / 4);
    accepted[kernel] = info;
    bool fits =
        CHECK(same_block(info, &KERNELS[kernel]), "%s has other arguments than today's: accept today's module", path);
    free(path);
    return fits;
}

// Word for word: there is nothing to measure, and what the clock says of one module beside itself moves by as much as 25 % where memory lies otherwise.
static bool unchanged(const struct Row *row) {
    for (const int *k = row->kernels; *k >= 0; k++) {
        const struct KernelInfo *a = accepted[*k], *b = &KERNELS[*k];
        if (a->n_words != b->n_words || memcmp(a->words, b->words, (size_t)a->n_words * 4) != 0)
            return false;
    }
    return true;
}

// Puts the accepted modules of a row in the place of today's, or back.
static void exchange(struct Device *dev, const struct Row *row) {
    for (const int *k = row->kernels; *k >= 0; k++) {
        static struct KernelInfo today[KERNEL_COUNT];
        bool old = KERNELS[*k].words == accepted[*k]->words;
        if (!old)
            today[*k] = KERNELS[*k];
        kernel_replace(dev, (enum KernelId) * k, old ? today[*k] : *accepted[*k]);
    }
}

// ---- Measuring

// Processor time of one run, in microseconds; 0: it failed, which was told.
static double run(struct Device *dev, const struct Row *row) {
    const struct OpCase *oc = find_case(row);
    if (!CHECK(oc, "%s: no case of the checks is called '%s' and has its kernel", row->name, row->op))
        return 0;
    struct Check ck = {.dev = dev, .seed = 1, .time = true, .warm = true, .sample = 8};
    bool ok = opcheck_run(&ck, oc, row->shape, row->kernels[0]);
    CHECK(ok, "%s: %s", row->name, fail_last());
    return ok ? ck.cpu_us : 0;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Of today's modules by the accepted ones, the median of turns: each beside the mean of the turns before and behind it. 0: it failed.
static double ratio_measure(struct Device *dev, const struct Row *row) {
    double ratio[TURNS];
    for (const int *k = row->kernels; *k >= 0; k++)
        if (!accepted_load(*k))
            return 0;
    if (unchanged(row))
        return run(dev, row) > 0 ? 1 : 0;
    exchange(dev, row);
    double before = run(dev, row), now = 0, behind = before;
    exchange(dev, row);
    for (int i = 0; i < TURNS && behind > 0; i++, before = behind) {
        now = run(dev, row);
        exchange(dev, row);
        behind = run(dev, row);
        exchange(dev, row);
        ratio[i] = 2 * now / (before + behind);
    }
    if (!(now > 0 && behind > 0))
        return 0;
    qsort(ratio, TURNS, sizeof *ratio, compare_doubles);
    return ratio[TURNS / 2];
}

static void compare(struct Device *dev) {
    for (int i = 0; i < N_ROWS; i++) {
        double best = 0;
        int tries = 0;
        do {
            double ratio = ratio_measure(dev, &ROWS[i]);
            best = tries == 0 || ratio < best ? ratio : best;
            tries++;
        } while (tries < TRIES && best > BOUND);
        printf("%-20s %.3f of the accepted module's processor time%s\n", ROWS[i].name, best,
               tries > 1 ? " (measured again)" : "");
        fflush(stdout);
        CHECK(best > 0 && best <= BOUND,
              "%s takes %.1f %% more than the accepted module, in %d tries; %.0f %% are allowed", ROWS[i].name,
              100 * (best - 1), tries, 100 * (BOUND - 1));
    }
}

static void update(void) {
    for (int i = 0; i < N_ROWS; i++)
        for (const int *k = ROWS[i].kernels; *k >= 0; k++) {
            char *path = module_path(*k);
            CHECK(file_write_atomic(path, KERNELS[*k].words, (uint64_t)KERNELS[*k].n_words * 4), "%s", fail_last());
            free(path);
        }
}

int main(void) {
    const char *mode = getenv("VKMOE_SPEED");
    if (!mode) {
        check_skip("speed is compared with VKMOE_SPEED=1 (tools/ci_testing.sh)");
        return check_done();
    }
    struct Device dev;
    if (!device_open(&dev, NULL)) {
        CHECK(false, "%s", fail_last());
        return check_done();
    }
    double begin = clock_seconds(), used = cpu_seconds();
    if (!dev.is_cpu)
        check_skip("the accepted modules are those for CPU devices; this is %s", dev.name);
    else if (strcmp(mode, "update") == 0)
        update();
    else
        compare(&dev);
    printf("%s: %.0f s, %.0f s of processor time\n", dev.driver, clock_seconds() - begin, cpu_seconds() - used);
    device_close(&dev);
    return check_done();
}
