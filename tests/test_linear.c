// Matrix multiplies: every body and storage type against the double reference at odd shapes; the reference's gradients against finite
// differences; a row's result bit-equal alone and beside seven others; one group = dense; `test_linear NAME`
// runs the cases that have NAME in their name.
#include "card.h"
#include "check.h"
#include "model/opcheck.h"
#include "model/quant.h"
#include "model/ref.h"
#include "runtime/vk.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint32_t test_suite(struct Device *dev, const char *filter) {
    const struct OpCase *cases;
    uint32_t n = opcheck_linear(&cases), ran, runs = 0, n_cases = 0, matrix_runs = 0;
    for (uint32_t i = 0; i < n; i++)
        if (strstr(cases[i].name, filter)) {
            uint32_t failures = opcheck_suite(dev, 1, &cases[i], 1, &ran);
            CHECK(failures == 0, "%s: %u of %u runs failed", cases[i].name, failures, ran);
            runs += ran, n_cases++;
            for (const int *kernel = cases[i].kernels; *kernel >= 0; kernel++)
                if ((KERNELS[*kernel].needs & NEEDS_COOPMAT) && !dev->kernel_off[*kernel])
                    matrix_runs += cases[i].n_shapes;
        }
    printf("%u runs of %u cases\n", runs, n_cases);
    const struct CoopmatShape *s = &dev->coopmat;
    if (!device_can(dev, CAP_coopmat) && *filter)
        return runs;
    if (!device_can(dev, CAP_coopmat))
        check_skip("gemm_*_matrix_*: %s", dev->caps[CAP_coopmat].why);
    else if (CHECK(matrix_runs > 0 || *filter, "cooperative matrices are on, and no case ran with them"))
        printf("%u of them with %s matrices of %u x %u x %u\n", matrix_runs, DTYPES[s->type].name, s->m, s->n, s->k);
    return runs;
}

// The forms of few rows as cards have them, which lavapipe is told to be: by quarters of units, and of a norm with x in shared memory.
static void test_staged(struct Device *dev) {
    static const char *const FORMS[] = {"few q4_0",    "few q6_k",        "few q8_0",          "few q3_k",
                                        "few iq4_nl",  "few narrow",      "normed q4_k",       "normed q6_k",
                                        "beside q4_0", "experts up q4_k", "experts down q4_0", "experts down q4_k"};
    dev->as_card = true;
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++)
        CHECK(test_suite(dev, FORMS[i]) > 0, "no case of %s", FORMS[i]);
    dev->as_card = false;
}

// Every module but the device's own probes is timed by `bench kernels`.
static void test_bench_shapes(void) {
    bool timed[KERNEL_COUNT] = {false};
    for (size_t t = 0; t < N_OPCHECK_FILES; t++) {
        const struct OpCase *cases;
        uint32_t n = OPCHECK_FILES[t](&cases);
        for (uint32_t i = 0; i < n; i++)
            for (const int *kernel = cases[i].kernels; *kernel >= 0; kernel++)
                timed[*kernel] = timed[*kernel] || cases[i].n_bench > 0;
    }
    for (uint32_t k = 0; k < KERNEL_COUNT; k++)
        CHECK(timed[k] || strncmp(KERNELS[k].name, "probe", 5) == 0, "%s has no real shape", KERNELS[k].name);
}

// d(sum of c * y) by the reference's backward and by central differences, exact up to rounding because the product is bilinear.
static void test_reference(void) {
    enum { M = 5, N = 3, K = 4 };
    double x[M * K], w[N * K], c[M * N], y[M * N], dx[M * K], dw[N * K];
    for (uint32_t i = 0; i < M * K; i++)
        x[i] = (double)random_normal(1, 1, i);
    for (uint32_t i = 0; i < N * K; i++)
        w[i] = (double)random_normal(1, 2, i);
    for (uint32_t i = 0; i < M * N; i++)
        c[i] = (double)random_normal(1, 3, i);
    ref_linear_dx(c, w, M, N, K, dx);
    ref_linear_dw(c, x, M, N, K, dw);
    for (uint32_t i = 0; i < M * K + N * K; i++) {
        double *at = i < M * K ? &x[i] : &w[i - M * K], kept = *at, side[2];
        for (int up = 0; up < 2; up++) {
            *at = kept + (up ? 1e-3 : -1e-3);
            ref_linear(x, w, M, N, K, y);
            side[up] = ref_dot(c, 1, y, 1, M * N);
        }
        *at = kept;
        CHECK_NEAR(i < M * K ? dx[i] : dw[i - M * K], (side[1] - side[0]) / 2e-3, 1e-9, 1e-9);
    }
}

struct Run {
    struct Device *dev;
    enum DType type;
    uint32_t m, n, k;
    bool normed;
};

// y of the first m of 64 rows, by the kernel that the operation picks for m rows.
static void product(const struct Run *run, uint32_t first, uint32_t count, float *y) {
    struct Check ck = {.dev = run->dev, .seed = 9, .kernel = run->dev->force_kernel}; // read where one is forced alone
    struct CheckRun r;
    checkrun_begin(&r, &ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, 2, (uint32_t[]){64, run->k}, 1);
    struct CheckTensor *w = checkrun_random(&r, run->type, 2, (uint32_t[]){run->n, run->k}, 0.1);
    struct CheckTensor *out = checkrun_output(&r, 2, (uint32_t[]){count, run->n});
    struct Tensor rows = tensor_slice(&x->t, first, count);
    struct CheckTensor *norm = checkrun_random(&r, DT_F32, 1, &run->k, 1);
    struct Cmd *c = cmd_begin(run->dev, "rows");
    op_linear(c, &rows, &w->t, &out->t, NULL,
              (struct LinearOptions){.scratch = &r.arena, .norm = run->normed ? &norm->t : NULL, .eps = 1e-5f});
    CHECK(checkrun_execute(&r, cmd_end(c)), "%s", fail_last());
    for (uint64_t i = 0; i < out->n; i++)
        y[i] = (float)out->value[i];
    checkrun_end(&r);
}

static void few_neighbours(const struct Run *run, const char *where) {
    enum { N = 67 };
    float all[8 * N], some[8 * N];
    product(run, 0, 8, all);
    for (uint32_t m = 1; m < 8; m = m < 4 ? m + 1 : m + 2) {
        uint32_t first = m > 5 ? 1 : 3;
        product(run, first, m, some);
        CHECK(memcmp(some, all + (size_t)first * N, m * N * sizeof(float)) == 0,
              "%s%s: %u rows differ from the same beside 8", DTYPES[run->type].name, where, m);
    }
}

// Behind a norm, with x in shared memory that has room for it or for some of the rows' counts alone.
static void staged_neighbours(struct Device *dev) {
    uint32_t shared = dev->limits.shared_bytes;
    dev->as_card = true, dev->force_kernel = KERNEL_gemv_q4_0;
    for (uint32_t bytes = shared; bytes > 2000; bytes = bytes == shared ? 9000 : bytes / 2) {
        struct Run run = {dev, DT_Q4_0, 0, 67, 2048, true};
        dev->limits.shared_bytes = bytes;
        few_neighbours(&run, ", staged");
    }
    dev->limits.shared_bytes = shared, dev->as_card = false, dev->force_kernel = -1;
}

// A vocabulary can have more sets of columns than there may be workgroups: then each takes more of them, and nothing else changes.
static void many_columns(struct Device *dev) {
    enum { N = 67, K = 2048 }; // a set of eight f32 rows is a group of its own
    if (!device_can(dev, CAP_eight)) {
        check_skip("many columns: no processor of eight lanes");
        return;
    }
    uint32_t most = dev->limits.max_groups[0];
    static float all[8 * N], few[8 * N];
    dev->force_kernel = KERNEL_gemv_f32_cpu;
    for (uint32_t rows = 1; rows <= 8; rows += 7) {
        struct Run run = {dev, DT_F32, 0, N, K, false};
        product(&run, 0, rows, all);
        dev->limits.max_groups[0] = 3;
        product(&run, 0, rows, few);
        dev->limits.max_groups[0] = most;
        CHECK(memcmp(few, all, sizeof(float) * rows * N) == 0, "%u rows differ where there are few workgroups", rows);
    }
    dev->force_kernel = -1;
}

static void test_neighbours(struct Device *dev) {
    enum { N = 67, K = 512 };
    static float all[64 * N], some[64 * N];
    for (int type = DT_F32; type < DT_U32; type++) {
        struct Run run = {dev, (enum DType)type, 0, N, K, false};
        few_neighbours(&run, "");
        product(&run, 0, 64, all);
        static const uint32_t COUNTS[] = {9, 17, 33, 50};
        for (uint32_t i = 0; i < 4; i++) {
            product(&run, 5, COUNTS[i], some);
            CHECK(memcmp(some, all + 5 * N, COUNTS[i] * N * sizeof(float)) == 0,
                  "%s: %u rows differ from the same among 64", DTYPES[type].name, COUNTS[i]);
        }
    }
}

// A row of zero quants under the greatest scale that a file can hold is zeros, on units of f16 too, where scales are multiplied once more; under an infinite one
// it is no number.
static void test_great_scale(struct Device *dev) {
    enum { M = 16, N = 16, K = 32, ROW = 34 };
    static const int BODIES[] = {KERNEL_gemm_nt, KERNEL_gemm_nt_dot2, KERNEL_gemm_nt_matrix_f16,
                                 KERNEL_gemm_nt_matrix_bf16};
    struct Arena arena;
    arena_init(&arena, dev, "scale", ARENA_DEVICE);
    struct Tensor x = TENSOR(&arena, DT_F32, M, K), w = TENSOR(&arena, DT_Q8_0, N, K), y = TENSOR(&arena, DT_F32, M, N);
    uint8_t row[ROW] = {0xff, 0x7b}, *rows = xcalloc(w.bytes, 1); // 65504, then quants
    float ones[M * K], sums[M * N];
    for (uint32_t i = 0; i < M * K; i++)
        ones[i] = 1;
    for (uint32_t i = 0; i < N; i++) {
        row[1] = i == 5 ? 0x7c : 0x7b, row[0] = i == 5 ? 0 : 0xff;
        row[2] = i == 3; // but one of a row
        quant_row_to_device(DT_Q8_0, row, K, rows + i * (w.bytes / N));
    }
    for (size_t b = 0; b < sizeof BODIES / sizeof *BODIES; b++) {
        if (!opcheck_concerns(dev, BODIES[b])) {
            check_skip("a great scale: %s is not for this device", KERNELS[BODIES[b]].name);
            continue;
        }
        dev->force_kernel = BODIES[b];
        struct Cmd *c = cmd_begin(dev, "scale");
        op_linear(c, &x, &w, &y, NULL, (struct LinearOptions){.scratch = &arena});
        struct Program *p = cmd_end(c);
        CHECK(p && tensor_upload(dev, &x, 0, ones, x.bytes) && tensor_upload(dev, &w, 0, rows, w.bytes) &&
                  program_run(p) && tensor_download(dev, &y, 0, sums, y.bytes),
              "%s", fail_last());
        for (uint32_t i = 0; i < M * N; i++)
            CHECK(i % N == 5 ? !isfinite(sums[i]) : sums[i] == (i % N == 3 ? 65504.0f : 0.0f), "%s: row %u is %g",
                  KERNELS[BODIES[b]].name, i % N, (double)sums[i]);
        program_free(p);
    }
    dev->force_kernel = -1;
    free(rows);
    arena_free(&arena);
}

// What is recorded where operands are packed for the matrix units, on a device that only counts: x is packed in front of each multiply and
// quantised weights unpacked, the scratch is given back, and no barrier is missing. (Results need the hardware; there the known-answer tests see to them.)
static void test_packing(void) {
    struct Device dev;
    device_open_dry(&dev, NULL);
    dev.coopmat = (struct CoopmatShape){16, 16, 16, DT_BF16};
    const enum Cap caps[] = {CAP_f16, CAP_bf16, CAP_coopmat, CAP_coopmat_back, CAP_coopmat2};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
        device_switch(&dev, caps[i], true);
    if (dev.kernel_off[KERNEL_gemm_nt_cm2]) {
        check_skip("packing: this glslc does not know GL_NV_cooperative_matrix2");
        return;
    }
    struct Arena arena;
    arena_init(&arena, &dev, "packing", ARENA_DEVICE);
    enum { M = 300, N = 96, K = 64, E = 4, ACTIVE = 2, RANK = 16 };
    struct Tensor x = TENSOR(&arena, DT_F32, M, K), w = TENSOR(&arena, DT_BF16, N, K), y = TENSOR(&arena, DT_F32, M, N);
    struct Tensor q4 = TENSOR(&arena, DT_Q4_0, N, K), experts = TENSOR(&arena, DT_BF16, E, N, K),
                  rows = TENSOR(&arena, DT_F32, M * ACTIVE, N);
    struct Routing g = routing_make(&arena, &dev, M, E, ACTIVE);
    uint64_t before = arena_mark(&arena).used;
    struct LinearOptions o = {.scratch = &arena}, gathered = {.scratch = &arena, .gather = true};
    struct Cmd *c = cmd_begin(&dev, "packing");
    op_linear(c, &x, &w, &y, NULL, o);
    op_linear_dx(c, &y, &w, &x, NULL, o);
    op_linear(c, &x, &experts, &rows, &g, gathered);
    op_linear(c, &x, &q4, &y, NULL, o);
    struct Program *p = cmd_end(c);
    CHECK(p && program_dispatches(p) == 9 && program_uses(p, KERNEL_gather_rows), "each multiply has its packing");
    CHECK(p && program_uses(p, KERNEL_embed), "quantised weights are unpacked");
    CHECK(program_uses(p, KERNEL_gemm_nt_packed_bf16) && program_uses(p, KERNEL_gemm_nn_packed_bf16),
          "the modules were taken");
    CHECK(program_check(p, -1) == 0, "a barrier is missing");
    CHECK(arena_mark(&arena).used == before, "scratch was not given back");
    program_free(p);
    // An adapter's wide product goes along, and where the other body for packed operands has to do, which cannot take it, behind.
    struct Tensor h = TENSOR(&arena, DT_F32, M, RANK), b = TENSOR(&arena, DT_F32, N, RANK);
    struct LinearOptions adapted = {.scratch = &arena, .more_x = &h, .more_w = &b};
    for (int refused = 0; refused < 2; refused++) {
        dev.kernel_off[KERNEL_gemm_nt_packed_bf16] = refused;
        c = cmd_begin(&dev, "adapter");
        op_linear(c, &x, &w, &y, NULL, adapted);
        p = cmd_end(c);
        CHECK(p && program_uses(p, KERNEL_gemm_nt_cm2) == refused && program_uses(p, KERNEL_gemm_nt) == refused,
              "refused %d: another body, or a product behind it that should be in it, or none", refused);
        CHECK(p && program_uses(p, KERNEL_gemm_nt_packed_bf16) == !refused && program_check(p, -1) == 0,
              "refused %d: the body, a barrier", refused);
        program_free(p);
    }
    dev.kernel_off[KERNEL_gemm_nt_packed_bf16] = false;
    struct Tensor dw = TENSOR(&arena, DT_F32, N, K);
    before = arena_mark(&arena).used, o.like = DT_BF16, c = cmd_begin(&dev, "gradient");
    op_linear_dw(c, &y, &x, &dw, NULL, o, false);
    p = cmd_end(c);
    CHECK(p && program_dispatches(p) == 3 && program_uses(p, KERNEL_gemm_tn_packed_bf16),
          "a weight gradient has both operands packed");
    CHECK(program_check(p, -1) == 0 && arena_mark(&arena).used == before, "barriers and scratch of it");
    program_free(p);
    arena_free(&arena);
    device_close(&dev);
}

// A card with units of both types that unpacks weights as it goes: x is packed once, as f16, for quantised weights and their adapter alike, as bf16 for bf16
// weights, and a weight gradient, which is bf16's, takes of it what is of its type.
static void test_both_units(void) {
    struct Device dev;
    device_open_dry(&dev, NULL);
    dev.coopmat = (struct CoopmatShape){16, 16, 16, DT_BF16};
    dev.coopmat_f16 = true;
    dev.limits.shared_bytes = 48 << 10;
    const enum Cap caps[] = {CAP_f16, CAP_bf16, CAP_coopmat, CAP_coopmat_back};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
        device_switch(&dev, caps[i], true);
    if (dev.kernel_off[KERNEL_gemm_nt_matrix_f16] || dev.kernel_off[KERNEL_gemm_nt_matrix_bf16]) {
        check_skip("units of both types: this build has no modules for them");
        return;
    }
    struct Arena arena;
    arena_init(&arena, &dev, "units", ARENA_DEVICE);
    enum { M = 300, N = 96, K = 64, RANK = 16 };
    struct Tensor x = TENSOR(&arena, DT_F32, M, K), y = TENSOR(&arena, DT_F32, M, N),
                  h = TENSOR(&arena, DT_F32, M, RANK);
    struct Tensor q5 = TENSOR(&arena, DT_Q5_0, N, K), a = TENSOR(&arena, DT_F32, RANK, K),
                  dw = TENSOR(&arena, DT_F32, N, K), peak = TENSOR(&arena, DT_U32, N);
    static const enum DType TYPES[] = {DT_Q4_0, DT_Q8_0, DT_F16, DT_BF16};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        const char *name = DTYPES[TYPES[i]].name;
        bool f16 = TYPES[i] != DT_BF16, scaled = dtype_is_quantised(TYPES[i]);
        struct Tensor w = TENSOR(&arena, TYPES[i], N, K);
        uint64_t before = arena_mark(&arena).used;
        struct Cmd *c = cmd_begin(&dev, "units");
        struct Operand packed = op_operand(c, &arena, &x, NULL, false, OF_PRODUCT, TYPES[i]);
        struct LinearOptions o = {.scratch = &arena, .packed = &packed, .peak = &peak, .like = TYPES[i]}, look = o;
        look.peak = NULL;
        op_linear(c, &x, &w, &y, NULL, o);
        op_linear(c, &x, &w, &y, NULL, o);
        op_linear(c, &x, &a, &h, NULL, look); // the adapter's: f16 has no range for it either
        if (f16)
            op_linear(c, &x, &q5, &y, NULL, o); // of a mix
        struct Program *p = cmd_end(c);
        CHECK(p && packed.rows.type == (f16 ? DT_F16 : DT_BF16) && tensor_exists(&packed.peak) == f16, "%s: x is %s",
              name, DTYPES[packed.rows.type].name);
        CHECK(p && program_dispatches(p) == (f16 ? 6u : 4u) && program_uses(p, KERNEL_peaks) == f16,
              "%s: x is packed more than once, or peaks are looked for that are kept", name);
        CHECK(p && program_uses(p, KERNEL_gemm_nt_matrix_f16) == f16 &&
                  program_uses(p, KERNEL_gemm_nt_matrix_bf16) == !f16,
              "%s: other units", name);
        CHECK(linear_wants_peaks(&dev, TYPES[i]) == scaled, "%s: peaks are wanted, or not", name);
        program_free(p);
        c = cmd_begin(&dev, "backward");
        struct Operand dy = op_operand(c, &arena, &y, NULL, false, OF_PRODUCT, TYPES[i]);
        struct LinearOptions back = {
            .scratch = &arena, .packed = &dy, .packed_x = &packed, .accumulate = true, .like = TYPES[i]};
        op_linear_dx(c, &y, &w, &x, NULL, back);
        op_linear_dw(c, &y, &x, &dw, NULL, back, false);
        p = cmd_end(c);
        CHECK(p && program_uses(p, KERNEL_gemm_nn_matrix_f16) == f16 && program_uses(p, KERNEL_gemm_tn_packed_bf16) &&
                  program_check(p, -1) == 0,
              "%s: backward by other units, or without a barrier", name);
        // dy, dx, dw; both again for the gradient; zeros and a pass for the peaks of columns
        CHECK(p && program_dispatches(p) == 3 + (f16 ? 2u : 0u) + (scaled ? 2u : 0u), "%s: %u dispatches of backward",
              name, p ? program_dispatches(p) : 0);
        program_free(p);
        arena_release(&arena, (struct ArenaMark){arena_mark(&arena).block, before});
    }
    arena_free(&arena);
    device_close(&dev);
}

// ---- Where the lower half of an address runs over

enum { SIDE_BYTES = 1 << 20 };

// The host's memory on both sides of a multiple of 4 GiB, as the device's, where sanitizers have nothing; NULL: it cannot be had there.
static uint8_t *around_boundary(struct Device *dev, struct Block *block) {
    for (uint64_t high = 0x2000; high < 0x2040 && dev->limits.import_alignment; high++) {
        uint8_t *want = (uint8_t *)((high << 32) - SIDE_BYTES); // NOLINT(performance-no-int-to-ptr)
        uint8_t *host = mmap(want, 2 * SIDE_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (host == want && block_import(dev, host, 2 * SIDE_BYTES, block) &&
            (block->address + SIDE_BYTES) % (UINT64_C(1) << 32) == 0)
            return host;
        block_free(dev, block);
        *block = (struct Block){0};
        if (host != MAP_FAILED)
            munmap(host, 2 * SIDE_BYTES);
    }
    return NULL;
}

// Products with w, and with the same weights elsewhere: the number of results that differ.
static uint32_t moved_differ(struct Device *dev, uint8_t *host, const struct Block *block, enum DType type, uint32_t m,
                             bool half) {
    enum { N = 96, K = 512 };
    struct Check ck = {.dev = dev, .seed = 9};
    struct CheckRun r;
    checkrun_begin(&r, &ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, 2, (uint32_t[]){m, K}, 1);
    struct CheckTensor *dy = checkrun_random(&r, DT_F32, 2, (uint32_t[]){m, N}, 1);
    struct CheckTensor *w = checkrun_random(&r, type, 2, (uint32_t[]){N, K}, 0.1);
    struct CheckTensor *y[2], *dx[2];
    for (int i = 0; i < 2; i++) {
        y[i] = checkrun_output(&r, 2, (uint32_t[]){m, N});
        dx[i] = checkrun_output(&r, 2, (uint32_t[]){m, K});
    }
    struct Tensor at[2] = {w->t, w->t};
    uint64_t first = SIDE_BYTES - w->t.bytes / 2 / 256 * 256; // half of it below
    at[1].address = block->address + first;
    CHECK(tensor_download(dev, &w->t, 0, host + first, w->t.bytes), "%s", fail_last());
    struct LinearOptions o = {.scratch = half ? &r.arena : NULL, .like = type};
    struct Cmd *c = cmd_begin(dev, "boundary");
    for (int i = 0; i < 2; i++) {
        op_linear(c, &x->t, &at[i], &y[i]->t, NULL, o);
        op_linear_dx(c, &dy->t, &at[i], &dx[i]->t, NULL, o);
    }
    CHECK(checkrun_execute(&r, cmd_end(c)) && ck.guard_ok, "%s", fail_last());
    uint32_t differ = 0;
    for (uint64_t i = 0; i < y[0]->n; i++)
        differ += memcmp(&y[0]->value[i], &y[1]->value[i], sizeof(double)) != 0;
    for (uint64_t i = 0; i < dx[0]->n; i++)
        differ += memcmp(&dx[0]->value[i], &dx[1]->value[i], sizeof(double)) != 0;
    checkrun_end(&r);
    return differ;
}

// Shaders add to addresses in halves of 32 bits, and a card's memory has such a boundary every 4 GiB. Bodies of processors, and those of cards in f32 and in f16.
static void test_boundary(struct Device *dev) {
    static const enum DType TYPES[] = {DT_F32, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q5_1, DT_Q6_K, DT_Q4_K};
    struct Block block = {0};
    uint8_t *host = dev->is_cpu ? around_boundary(dev, &block) : NULL;
    if (!host) {
        check_skip("addresses on both sides of 4 GiB: the device takes no memory of ours there");
        return;
    }
    bool eight = device_can(dev, CAP_eight);
    for (int card = 0; card < 2; card++) {
        dev->is_cpu = !card;
        device_switch(dev, CAP_eight, eight && !card);
        for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
            for (uint32_t m = 3; m < 80; m += 37)
                for (int half = 0; half < (m > 3 ? 2 : 1); half++)
                    CHECK(moved_differ(dev, host, &block, TYPES[i], m, half) == 0,
                          "%s, %u rows, %s: across 4 GiB something else is read", DTYPES[TYPES[i]].name, m,
                          !card  ? "a processor's bodies"
                          : half ? "a card's in f16"
                                 : "a card's");
    }
    dev->is_cpu = true;
    device_switch(dev, CAP_eight, eight);
    block_free(dev, &block);
    munmap(host, 2 * SIDE_BYTES);
}

int main(int argc, char **argv) {
    struct Device dev;
    test_reference();
    test_bench_shapes();
    test_packing();
    test_both_units();
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device");
        return check_done();
    }
    if (!card_pairs(&dev))
        check_skip("pairs of f16 by multiply-adds: %s",
                   device_can(&dev, CAP_dot2) ? "the device has the instruction"
                                              : dev.caps[device_can(&dev, CAP_f16) ? CAP_int64 : CAP_f16].why);
    test_suite(&dev, argc > 1 ? argv[1] : "");
    if (dev.is_cpu && argc < 2)
        test_staged(&dev);
    test_great_scale(&dev);
    test_neighbours(&dev);
    if (dev.is_cpu)
        staged_neighbours(&dev);
    many_columns(&dev);
    test_boundary(&dev);
    device_close(&dev);
    return check_done();
}
