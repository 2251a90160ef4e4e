// Checks of the matrix multiplies: every body and storage type, dense and grouped by expert, at odd shapes for the tests and at those of real
// models for the bench. One function runs all; a shape is (tokens, n, k, experts, active, spread, flags), experts 0: dense.
#include "model/opcheck.h"
#include "model/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS, N, K, EXPERTS, ACTIVE, SPREAD, FLAGS };
enum { RANDOM = SPREAD_RANDOM, ALL_TO_ONE = SPREAD_ALL_TO_ONE, SOME_IDLE = SPREAD_SOME_IDLE };
enum Flags { ACCUMULATE = 1, GATHER = LINEAR_GATHER, GATHER_DY = 4, SWIGLU = 8, NORMED = 16, MORE = 32 };
enum { MORE_STEPS = 24 }; // of a second contraction, as an adapter's rank
enum Form { FORWARD, BACK_X, BACK_W };
enum { COARSE = 4 }; // beside a form: operands may be rounded

// Normalised mean square errors. Sums in f32 over up to a few thousand products; operands rounded to nearest in f16
// (7e-8 for two, up to 1.6e-7 where outputs are few; cut instead, 5e-7) or bf16 (5e-6, up to 1e-5; cut instead, 4e-5).
static const double BOUND_F32 = 2e-11, BOUND_MATRIX_F16 = 2e-7, BOUND_MATRIX_BF16 = 1.1e-5;

static double bound_of(enum KernelId kernel) {
    uint32_t needs = KERNELS[kernel].needs;
    return !(needs & (NEEDS_COOPMAT | NEEDS_DOT2)) ? BOUND_F32
           : needs & NEEDS_BF16                    ? BOUND_MATRIX_BF16
                                                   : BOUND_MATRIX_F16;
}

// ---- Routing, made on the host

struct Routes {
    struct Routing g;
    uint32_t rows;                            // tokens * active
    uint32_t *experts, *offsets;              // of slots; of experts
    uint32_t *gather, *slot_row, *row_expert; // of sorted rows; of slots; of sorted rows
};

static void draw_experts(const struct Check *ck, const uint32_t *s, uint32_t *experts) {
    for (uint32_t t = 0; t < s[TOKENS]; t++)
        for (uint32_t k = 0; k < s[ACTIVE]; k++) {
            uint32_t *slot = experts + t * s[ACTIVE] + k;
            if (s[SPREAD] == ALL_TO_ONE)
                *slot = (s[EXPERTS] / 2 + k) % s[EXPERTS];
            else if (s[SPREAD] == SOME_IDLE) // the first and the last have no row
                *slot = 1 + (random_below(ck, 77, t, s[EXPERTS] - 2) + k) % (s[EXPERTS] - 2);
            else if (s[SPREAD] == SPREAD_SKEWED) { // the cube of a uniform number: below an eighth in half of all cases
                double u = random_below(ck, 77, t, 1 << 20) / (double)(1 << 20);
                *slot = ((uint32_t)(u * u * u * s[EXPERTS]) + k) % s[EXPERTS];
            } else
                *slot = (random_below(ck, 77, t, s[EXPERTS]) + k) % s[EXPERTS];
        }
}

static double share_used(const struct Routes *h, uint32_t n_experts) { // of the experts' weights
    double used = 0;
    for (uint32_t e = 0; e < n_experts; e++)
        used += h->offsets[e + 1] > h->offsets[e];
    return used / n_experts;
}

static void routes_free(struct Routes *h) {
    free(h->experts), free(h->offsets), free(h->gather), free(h->slot_row), free(h->row_expert);
}

static struct Routes routes_make(struct CheckRun *r, const uint32_t *s) {
    uint32_t rows = s[TOKENS] * s[ACTIVE], n_experts = s[EXPERTS], few = s[TOKENS] <= FEW_ROWS;
    struct Routes h = {.rows = rows};
    h.experts = xcalloc(rows, 4), h.offsets = xcalloc(n_experts + 1, 4), h.gather = xcalloc(rows, 4);
    h.slot_row = xcalloc(rows, 4), h.row_expert = xcalloc(rows, 4);
    draw_experts(r->ck, s, h.experts);
    ref_sort(h.experts, s[TOKENS], n_experts, s[ACTIVE], h.offsets, h.gather, h.slot_row, h.row_expert);
    uint32_t tile_rows = linear_tile_rows(r->ck->dev, rows, n_experts);
    uint32_t most = few ? rows : (uint32_t)min_u64(rows, rows / tile_rows + n_experts), n = 0;
    uint32_t(*tiles)[4] = xcalloc(most, sizeof *tiles);
    memset(tiles, 0xff, most * sizeof *tiles); // what lies behind the last tile is never used
    if (few)                                   // sorted order is slot order, a tile is a row
        for (; n < rows; n++) {
            h.gather[n] = n / s[ACTIVE], h.slot_row[n] = n, h.row_expert[n] = h.experts[n];
            memcpy(tiles[n], (uint32_t[4]){h.experts[n], n, 1, 0}, sizeof tiles[n]);
        }
    else
        for (uint32_t e = 0; e < n_experts; e++)
            for (uint32_t first = h.offsets[e]; first < h.offsets[e + 1]; first += tile_rows, n++) {
                uint32_t count = (uint32_t)min_u64(h.offsets[e + 1] - first, tile_rows);
                memcpy(tiles[n], (uint32_t[4]){e, first, count, 0}, sizeof tiles[n]);
            }
    h.g = (struct Routing){.tokens = s[TOKENS],
                           .n_experts = n_experts,
                           .n_active = s[ACTIVE],
                           .tile_rows = tile_rows,
                           .max_tiles = most,
                           .offsets = checkrun_values(r, DT_U32, DIMS(n_experts + 1), h.offsets)->t,
                           .gather = checkrun_values(r, DT_U32, DIMS(rows), h.gather)->t,
                           .row_expert = checkrun_values(r, DT_U32, DIMS(rows), h.row_expert)->t,
                           .tiles = checkrun_values(r, DT_U32, DIMS(most, 4), tiles)->t,
                           .grid = checkrun_values(r, DT_U32, DIMS(8), (uint32_t[8]){n})->t};
    free(tiles);
    return h;
}

// ---- The check

struct Problem {
    enum Form form;
    const uint32_t *s;
    const struct Routes *h; // NULL: dense
    const double *a, *b;    // x and w, dy and w, dy and x
    const double *up;       // the second w of SWIGLU
    const double *more[2];  // x and w of the second contraction of MORE
    const double *before;   // what the output held, NULL: nothing
    double alpha;
};

static uint32_t source_row(const struct Problem *q, uint32_t row, bool gathered) {
    return q->h && gathered ? q->h->gather[row] : row;
}

// The product at element `at` of the output.
static double want_at(const struct Problem *q, uint64_t at) {
    uint64_t n = q->s[N], k = q->s[K];
    uint32_t flags = q->s[FLAGS], rows = q->h ? q->h->rows : q->s[TOKENS];
    double sum = 0;
    if (q->form == FORWARD || q->form == BACK_X) {
        uint64_t width = q->form == FORWARD ? n : k, row = at / width, col = at % width;
        uint64_t expert = q->h ? q->h->row_expert[row] : 0, from = source_row(q, (uint32_t)row, flags & GATHER);
        sum = q->form == FORWARD ? ref_dot(q->a + from * k, 1, q->b + (expert * n + col) * k, 1, k)
                                 : ref_dot(q->a + from * n, 1, q->b + expert * n * k + col, k, n);
        if (q->more[0])
            sum += ref_dot(q->more[0] + row * MORE_STEPS, 1,
                           q->more[1] + (expert * width * MORE_STEPS) + col * (q->form == FORWARD ? MORE_STEPS : 1),
                           q->form == FORWARD ? 1 : k, MORE_STEPS);
        if (q->up) {
            sum *= q->alpha;
            return sum / (1 + exp(-sum)) * ref_dot(q->a + from * k, 1, q->up + (expert * n + col) * k, 1, k);
        }
    } else {
        uint64_t expert = at / (n * k), i = at / k % n, j = at % k;
        for (uint32_t row = 0; row < rows; row++)
            if (!q->h || q->h->row_expert[row] == expert)
                sum += q->a[source_row(q, row, flags & GATHER_DY) * n + i] *
                       q->b[source_row(q, row, flags & GATHER) * k + j];
    }
    return q->alpha * sum + (q->before ? q->before[at] : 0);
}

static void compare(struct CheckRun *r, const struct Problem *q, const struct CheckTensor *y) {
    uint64_t *index, count = checkrun_pick(r, y, &index);
    double *want = xcalloc(count, sizeof *want);
    for (uint64_t i = 0; i < count; i++)
        want[i] = want_at(q, index[i]);
    checkrun_compare_at(r, y, count, index, want);
    free(index), free(want);
}

// Rows of x behind the norm that they pass on their way; the norm's weights are of the type that n says.
static double *norm_make(struct CheckRun *r, const uint32_t *s, const struct CheckTensor *x, struct LinearOptions *o) {
    static const enum DType TYPES[] = {DT_F32, DT_F16, DT_BF16};
    uint32_t rows = (uint32_t)(x->n / s[K]);
    struct CheckTensor *w = checkrun_random(r, TYPES[s[N] % 3], DIMS(s[K]), 1);
    double *y = xcalloc(x->n, sizeof *y), *rstd = xcalloc(rows, sizeof *rstd);
    o->norm = &w->t;
    o->eps = 1e-5f;
    ref_rmsnorm(x->value, w->value, rows, s[K], (double)o->eps, y, rstd);
    free(rstd);
    return y;
}

static bool run_linear(struct Check *ck, const struct OpCase *oc, const uint32_t *s) {
    struct CheckRun r;
    checkrun_begin(&r, ck);
    ck->bound = bound_of(ck->kernel);
    struct Routes h = {0};
    if (s[EXPERTS])
        h = routes_make(&r, s);
    const struct Routing *g = s[EXPERTS] ? &h.g : NULL;
    uint32_t n = s[N], k = s[K], experts = g ? s[EXPERTS] : 1, rows = g ? h.rows : s[TOKENS];
    bool accumulate = s[FLAGS] & ACCUMULATE, gather = g && (s[FLAGS] & GATHER), gather_dy = g && (s[FLAGS] & GATHER_DY);
    bool halved = accumulate && !(s[FLAGS] & MORE);
    struct LinearOptions o = {.alpha = halved ? 0.5f : 0,
                              .accumulate = accumulate,
                              .gather = gather,
                              .like = oc->variant & COARSE ? DT_BF16 : DT_F32,
                              .scratch = &r.arena};
    enum Form form = (enum Form)(oc->variant & ~(uint32_t)COARSE);
    bool back_w = form == BACK_W;
    struct CheckTensor *a, *b, *y, *up = NULL;
    uint32_t a_rows = (back_w ? gather_dy : gather) ? s[TOKENS] : rows, out[3] = {experts, n, k}, out_dims = g ? 3 : 2;
    a = checkrun_random(&r, DT_F32, DIMS(a_rows, form == FORWARD ? k : n), 1);
    if (back_w)
        b = checkrun_random(&r, DT_F32, DIMS(gather ? s[TOKENS] : rows, k), 1);
    else
        b = checkrun_random(&r, oc->type, 2 + (g != NULL), g ? (uint32_t[]){experts, n, k} : (uint32_t[]){n, k},
                            check_weights_deviation(oc->type, accumulate));
    if (!back_w)
        out[1] = rows, out[2] = form == FORWARD ? n : k, out_dims = 2;
    const uint32_t *out_dim = out_dims == 3 ? out : out + 1;
    double *before = NULL;
    if (accumulate) {
        y = checkrun_random(&r, DT_F32, out_dims, out_dim, 1);
        y->output = true;
        before = xmalloc(y->n * sizeof *before);
        memcpy(before, y->value, y->n * sizeof *before);
    } else
        y = checkrun_output(&r, out_dims, out_dim);
    if (s[FLAGS] & SWIGLU) {
        up = checkrun_random(&r, oc->type, 2 + (g != NULL), b->t.dim, check_weights_deviation(oc->type, false));
        o.swiglu = &up->t;
    }
    struct CheckTensor *more[2] = {NULL, NULL};
    if (s[FLAGS] & MORE) {
        uint32_t wide = form == FORWARD ? n : k,
                 dim[3] = {experts, form == FORWARD ? wide : MORE_STEPS, form == FORWARD ? MORE_STEPS : wide};
        more[0] = checkrun_random(&r, DT_F32, DIMS(rows, MORE_STEPS), 1);
        more[1] = checkrun_random(&r, DT_F32, 2 + (g != NULL), g ? dim : dim + 1, 0.1);
        o.more_x = &more[0]->t, o.more_w = &more[1]->t;
    }
    double *normed = s[FLAGS] & NORMED ? norm_make(&r, s, a, &o) : NULL;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    if (form == FORWARD)
        op_linear(c, &a->t, &b->t, &y->t, g, o);
    else if (form == BACK_X)
        op_linear_dx(c, &a->t, &b->t, &y->t, g, o);
    else
        op_linear_dw(c, &a->t, &b->t, &y->t, g, o, gather_dy);
    ck->flops = (up ? 4.0 : 2.0) * rows * n * k;
    double weights = (double)b->t.bytes * (up ? 2 : 1) * (g && !back_w ? share_used(&h, experts) : 1);
    ck->bytes = (double)a->t.bytes + weights + (double)y->t.bytes;
    bool ok = checkrun_execute(&r, cmd_end(c));
    struct Problem q = {.form = form,
                        .s = s,
                        .h = g ? &h : NULL,
                        .a = normed ? normed : a->value,
                        .b = b->value,
                        .up = up ? up->value : NULL,
                        .more = {more[0] ? more[0]->value : NULL, more[1] ? more[1]->value : NULL},
                        .before = before,
                        .alpha = halved ? 0.5 : 1};
    if (ok)
        compare(&r, &q, y);
    free(before), free(normed);
    routes_free(&h);
    checkrun_end(&r);
    return ok;
}

// ---- The table

#define BODIES(form, type)                                                                                             \
    (const int[]) {                                                                                                    \
        KERNEL_gemm_##form##_##type##_cpu, KERNEL_gemm_##form, KERNEL_gemm_##form##_dot2,                              \
            KERNEL_gemm_##form##_matrix_f16, KERNEL_gemm_##form##_matrix_bf16, -1                                      \
    }
#define EXACT_BODIES(form)                                                                                             \
    (const int[]) { KERNEL_gemm_##form##_f32_cpu, KERNEL_gemm_##form, -1 }
#define COARSE_BODIES(form)                                                                                            \
    (const int[]) { KERNEL_gemm_##form##_dot2, KERNEL_gemm_##form##_matrix_f16, KERNEL_gemm_##form##_matrix_bf16, -1 }
#define FEW_BODIES(type)                                                                                               \
    (const int[]) { KERNEL_gemv_##type##_base, KERNEL_gemv_##type, KERNEL_gemv_##type##_cpu, -1 }
#define COUNT(a) (uint32_t)(sizeof(a) / sizeof(a)[0])

// k is a multiple of 32, so that the same shapes serve the quantised types; n and the rows are odd.
static const uint32_t FORWARD_SHAPES[][OP_SHAPE] = {
    {33, 40, 96},
    {9, 1, 32},
    {64, 129, 64, 0, 0, 0, ACCUMULATE},
    {129, 7, 128},
    {40, 24, 64, 4, 2, RANDOM, GATHER},
    {33, 33, 96, 6, 2, SOME_IDLE, ACCUMULATE},
    {129, 16, 32, 5, 1, ALL_TO_ONE, GATHER},
    {9, 72, 160, 16, 3, RANDOM, 0},
    {33, 40, 64, 0, 0, 0, MORE},
};
static const uint32_t BACK_X_SHAPES[][OP_SHAPE] = {
    {33, 40, 96},
    {1, 7, 32},
    {64, 129, 64, 0, 0, 0, ACCUMULATE},
    {9, 33, 288},
    {40, 24, 64, 4, 2, RANDOM, GATHER},
    {33, 33, 96, 6, 2, SOME_IDLE, ACCUMULATE},
    {129, 16, 32, 5, 1, ALL_TO_ONE, 0},
    {7, 72, 160, 16, 3, RANDOM, 0},     // few tokens: not sorted
    {9, 4100, 32, 0, 0, 0, ACCUMULATE}, // more than one slice of the contraction on CPU devices
};
static const uint32_t BACK_W_SHAPES[][OP_SHAPE] = {
    {33, 40, 96},
    {1, 7, 8},
    {64, 129, 24, 0, 0, 0, ACCUMULATE},
    {129, 64, 40},
    {40, 96, 64, 4, 2, RANDOM, GATHER},
    {33, 33, 96, 6, 2, SOME_IDLE, ACCUMULATE},
    {65, 16, 24, 6, 2, SOME_IDLE, GATHER_DY},
    {129, 16, 32, 5, 1, ALL_TO_ONE, 0},
    {7, 72, 40, 16, 3, RANDOM, GATHER}, // few tokens: not sorted
};
static const uint32_t FEW_SHAPES[][OP_SHAPE] = {
    {1, 129, 96},
    {1, 7, 32},
    {3, 33, 160, 0, 0, 0, ACCUMULATE},
    {8, 1, 64},
    {8, 64, 2080},
    {1, 24, 96, 16, 6, RANDOM, GATHER},
    {7, 33, 64, 8, 2, RANDOM, 0},
    {8, 9, 32, 4, 3, ALL_TO_ONE, ACCUMULATE},
};
static const uint32_t SWIGLU_SHAPES[][OP_SHAPE] = {
    {1, 24, 256, 16, 6, RANDOM, GATHER | SWIGLU},
    {3, 33, 256, 0, 0, 0, SWIGLU},
    {8, 9, 512, 0, 0, 0, SWIGLU},
};
static const uint32_t NORMED_SHAPES[][OP_SHAPE] = {
    {1, 129, 256, 0, 0, 0, NORMED},
    {7, 34, 768, 0, 0, 0, ACCUMULATE | NORMED},
    {3, 35, 256, 0, 0, 0, SWIGLU | NORMED},
    {2, 24, 512, 16, 6, RANDOM, GATHER | SWIGLU | NORMED},
};
static const uint32_t NORMED_BENCH[][OP_SHAPE] = {{1, 102400, 2048, 0, 0, 0, NORMED}};
// Forms of gemv.comp (check_few.c): tokens, n, n2, k, matrices, normed; tokens, n, k, experts, active, parts.
static const uint32_t BESIDE_SHAPES[][OP_SHAPE] = {{1, 33, 17, 256, 3, 1}, {5, 16, 16, 512, 3}, {8, 130, 9, 256, 2, 1}};
static const uint32_t BESIDE_BENCH[][OP_SHAPE] = {{1, 2048, 2048, 2048, 3, 1}};
static const uint32_t EXPERT_SHAPES[][OP_SHAPE] = {
    {1, 33, 256, 8, 3, 2}, {2, 24, 512, 16, 6, 1}, {3, 17, 256, 4, 1, 4}};
static const uint32_t EXPERT_BENCH[][OP_SHAPE] = {{1, 1408, 2048, 8, 6, 2}};
static const uint32_t SUM_SHAPES[][OP_SHAPE] = {
    {1, 33, 256, 8, 3, 2}, {2, 24, 512, 16, 6, 1}, {8, 17, 256, 4, 2, 0}, {1, 9, 256, 64, 40, 3}};
static const uint32_t SUM_BENCH[][OP_SHAPE] = {{1, 2048, 1408, 8, 6, 2}};
static const uint32_t SUM_SUPER_BENCH[][OP_SHAPE] = {{1, 2048, 1536, 8, 6, 2}}; // in blocks of 256
static const uint32_t SWIGLU_BENCH[][OP_SHAPE] = {{1, 2816, 2048, 0, 0, 0, SWIGLU}};
// Types that need k to be a multiple of 8 alone.
static const uint32_t NARROW_SHAPES[][OP_SHAPE] = {
    {33, 12, 8},
    {17, 65, 24},
    {129, 8, 40},
    {24, 20, 56, 4, 2, RANDOM, GATHER},
};
static const uint32_t FEW_NARROW_SHAPES[][OP_SHAPE] = {{1, 9, 8}, {5, 33, 72}, {2, 20, 24, 4, 2, RANDOM, GATHER}};

// An adapter's matrices: A narrows to the rank, B widens.
static const uint32_t ADAPTER_SHAPES[][OP_SHAPE] = {
    {33, 16, 96},
    {40, 72, 16, 0, 0, 0, ACCUMULATE},
    {129, 8, 40},
    {40, 16, 64, 4, 2, RANDOM, GATHER},
    {33, 33, 8, 6, 2, SOME_IDLE, ACCUMULATE},
};
static const uint32_t ADAPTER_BENCH[][OP_SHAPE] = {{512, 16, 2048}, {512, 2048, 16}};
// The third is summed in parts.
static const uint32_t PACKED_DW_SHAPES[][OP_SHAPE] = {
    {33, 64, 96},
    {129, 200, 136},
    {1100, 72, 64, 0, 0, 0, ACCUMULATE},
    {40, 96, 64, 4, 2, RANDOM, GATHER},
    {33, 40, 96, 6, 2, SOME_IDLE, ACCUMULATE},
    {65, 16, 24, 6, 2, SOME_IDLE, GATHER_DY},
    {129, 16, 32, 5, 1, ALL_TO_ONE, 0},
};
static const uint32_t PARTS_SHAPES[][OP_SHAPE] = {{1031, 16, 40}, {1100, 40, 16, 0, 0, 0, ACCUMULATE}};

// The types with blocks of 256 need k to be a multiple of that.
static const uint32_t FORWARD_SUPER[][OP_SHAPE] = {
    {33, 40, 256},
    {64, 129, 512, 0, 0, 0, ACCUMULATE},
    {40, 24, 768, 4, 2, RANDOM, GATHER},
    {9, 7, 256, 16, 3, SOME_IDLE, 0},
};
static const uint32_t BACK_X_SUPER[][OP_SHAPE] = {
    {33, 40, 256},
    {1, 7, 512},
    {64, 129, 768, 0, 0, 0, ACCUMULATE},
    {40, 24, 256, 4, 2, RANDOM, GATHER},
};
static const uint32_t FEW_SUPER[][OP_SHAPE] = {
    {1, 129, 256},
    {3, 33, 768, 0, 0, 0, ACCUMULATE},
    {8, 64, 2048},
    {1, 24, 512, 16, 6, RANDOM, GATHER},
};

// SmolLM2-135M (dim 576, hidden 1536, KV 192, vocabulary 49152), its upcycled experts, and layers of DeepSeekMoE 16B (fewer experts).
static const uint32_t BENCH[][OP_SHAPE] = {
    {512, 2048, 2048},
    {512, 1408, 2048},
    {512, 576, 576},
    {512, 192, 576},
    {512, 1536, 576},
    {512, 576, 1536},
    {512, 96, 576, 16, 6, RANDOM, GATHER},
    {512, 576, 96, 16, 6, RANDOM, 0},
    {512, 1408, 2048, 8, 2, RANDOM, GATHER},
    {512, 2048, 1408, 8, 2, RANDOM, 0},
    {512, 352, 512, 64, 6, RANDOM, GATHER},
};
enum { DENSE_BENCH = 6 }; // so many of the first
// For GPUs alone: a square, and the experts of DeepSeekMoE 16B at 768 rows each.
static const uint32_t LARGE_BENCH[][OP_SHAPE] = {
    {4096, 4096, 4096},
    {8192, 1408, 2048, 64, 6, RANDOM, GATHER},
    {8192, 2048, 1408, 64, 6, RANDOM, 0},
};
// Rows of a multiple of 8, as packed operands have them.
static const uint32_t PACKED_SHAPES[][OP_SHAPE] = {
    {33, 40, 96},
    {256, 256, 128},
    {64, 136, 72, 0, 0, 0, ACCUMULATE},
    {129, 64, 40},
    {40, 96, 64, 4, 2, RANDOM, GATHER},
    {33, 32, 96, 6, 2, SOME_IDLE, ACCUMULATE},
    {129, 16, 32, 5, 1, ALL_TO_ONE, 0},
    {129, 72, 96, 0, 0, 0, MORE},
    {40, 96, 64, 4, 2, RANDOM, GATHER | MORE | ACCUMULATE},
};
static const uint32_t LARGE_SHAPES[][OP_SHAPE] = {{256, 256, 128}, {160, 136, 96}};
static const uint32_t FEW_BENCH[][OP_SHAPE] = {
    {1, 2048, 2048},
    {1, 2048, 5632},
    {1, 576, 576},
    {1, 1536, 576},
    {1, 576, 1536},
    {1, 49152, 576},
    {8, 2048, 2048},
    {1, 96, 576, 16, 6, RANDOM, GATHER},
    {1, 1408, 2048, 8, 6, RANDOM, GATHER},
};

static const uint32_t BENCH_SUPER[][OP_SHAPE] = {
    {512, 2048, 2048},
    {512, 576, 1536},
    {512, 2048, 1536, 8, 2, RANDOM, 0},
};
static const uint32_t FEW_BENCH_SUPER[][OP_SHAPE] = {
    {1, 2048, 2048},
    {1, 2048, 5632},
    {1, 576, 1536},
    {8, 2048, 2048},
};

#define NAMES       .shape_names = "tokens,n,k,experts,active,spread,flags", .run = run_linear
#define TESTS(list) .shapes = list, .n_shapes = COUNT(list)
#define CASES_OF(token, dtype, forward, back_x, few, real, real_few)                                                   \
    {.name = "linear " #token,                                                                                         \
     .kernels = BODIES(nt, token),                                                                                     \
     .type = dtype,                                                                                                    \
     .variant = FORWARD,                                                                                               \
     TESTS(forward),                                                                                                   \
     .bench = real,                                                                                                    \
     .n_bench = COUNT(real),                                                                                           \
     NAMES},                                                                                                           \
        {.name = "linear_dx " #token,                                                                                  \
         .kernels = BODIES(nn, token),                                                                                 \
         .type = dtype,                                                                                                \
         .variant = BACK_X,                                                                                            \
         TESTS(back_x),                                                                                                \
         .bench = real,                                                                                                \
         .n_bench = COUNT(real),                                                                                       \
         NAMES},                                                                                                       \
        {.name = "linear few " #token,                                                                                 \
         .kernels = FEW_BODIES(token),                                                                                 \
         .type = dtype,                                                                                                \
         .variant = FORWARD,                                                                                           \
         TESTS(few),                                                                                                   \
         .bench = real_few,                                                                                            \
         .n_bench = COUNT(real_few),                                                                                   \
         NAMES},                                                                                                       \
    {                                                                                                                  \
        .name = "linear swiglu " #token, .kernels = FEW_BODIES(token), .type = dtype, .variant = FORWARD,              \
        TESTS(SWIGLU_SHAPES), .bench = SWIGLU_BENCH, .n_bench = COUNT(SWIGLU_BENCH), NAMES                             \
    }
#define SMALL_OF(token, dtype) CASES_OF(token, dtype, FORWARD_SHAPES, BACK_X_SHAPES, FEW_SHAPES, BENCH, FEW_BENCH)
#define SUPER_OF(token, dtype)                                                                                         \
    CASES_OF(token, dtype, FORWARD_SUPER, BACK_X_SUPER, FEW_SUPER, BENCH_SUPER, FEW_BENCH_SUPER)
#define NARROW_OF(token, dtype)                                                                                        \
    {.name = "linear narrow " #token,                                                                                  \
     .kernels = BODIES(nt, token),                                                                                     \
     .type = dtype,                                                                                                    \
     .variant = FORWARD,                                                                                               \
     TESTS(NARROW_SHAPES),                                                                                             \
     NAMES},                                                                                                           \
        {.name = "linear_dx narrow " #token,                                                                           \
         .kernels = BODIES(nn, token),                                                                                 \
         .type = dtype,                                                                                                \
         .variant = BACK_X,                                                                                            \
         TESTS(NARROW_SHAPES),                                                                                         \
         NAMES},                                                                                                       \
    {                                                                                                                  \
        .name = "linear few narrow " #token, .kernels = FEW_BODIES(token), .type = dtype, .variant = FORWARD,          \
        TESTS(FEW_NARROW_SHAPES), NAMES                                                                                \
    }

#define PACKED_OF(form, what, dtype, direction, real)                                                                  \
    {.name = what " packed",                                                                                           \
     .kernels = (const int[]){KERNEL_gemm_##form##_cm2, KERNEL_gemm_##form##_packed_bf16,                              \
                              KERNEL_gemm_##form##_packed_f16, -1},                                                    \
     .type = dtype,                                                                                                    \
     .variant = direction,                                                                                             \
     TESTS(PACKED_SHAPES),                                                                                             \
     .bench = real,                                                                                                    \
     .n_bench = COUNT(real),                                                                                           \
     NAMES},                                                                                                           \
    {                                                                                                                  \
        .name = what " large",                                                                                         \
        .kernels = (const int[]){KERNEL_gemm_##form,                                                                   \
                                 KERNEL_gemm_##form##_dot2,                                                            \
                                 KERNEL_gemm_##form##_matrix_f16,                                                      \
                                 KERNEL_gemm_##form##_matrix_bf16,                                                     \
                                 KERNEL_gemm_##form##_cm2,                                                             \
                                 KERNEL_gemm_##form##_packed_bf16,                                                     \
                                 -1},                                                                                  \
        .type = dtype, .variant = direction, TESTS(LARGE_SHAPES), .bench = LARGE_BENCH, .n_bench = COUNT(LARGE_BENCH), \
        .n_bench_large = COUNT(LARGE_BENCH), NAMES                                                                     \
    }

#define FORM(what, token, dtype, list, real, names, function)                                                          \
    {                                                                                                                  \
        .name = what " " #token, .kernels = FEW_BODIES(token), .type = dtype, .variant = FORWARD, TESTS(list),         \
        .bench = real, .n_bench = COUNT(real), .shape_names = names, .run = function                                   \
    }
#define FORMS_OF(token, dtype, sum_bench)                                                                              \
    FORM("linear normed", token, dtype, NORMED_SHAPES, NORMED_BENCH, "tokens,n,k,experts,active,spread,flags",         \
         run_linear),                                                                                                  \
        FORM("linear beside", token, dtype, BESIDE_SHAPES, BESIDE_BENCH, "tokens,n,n2,k,matrices,normed",              \
             check_beside),                                                                                            \
        FORM("experts up", token, dtype, EXPERT_SHAPES, EXPERT_BENCH, "tokens,n,k,experts,active,parts",               \
             check_experts_up),                                                                                        \
        FORM("experts down", token, dtype, SUM_SHAPES, sum_bench, "tokens,n,k,experts,active,parts",                   \
             check_experts_down)

static const struct OpCase CASES[] = {
    PACKED_OF(nt, "linear bf16", DT_BF16, FORWARD, BENCH),
    PACKED_OF(nn, "linear_dx bf16", DT_BF16, BACK_X, BENCH),
    {.name = "linear f32",
     .kernels = EXACT_BODIES(nt),
     .type = DT_F32,
     .variant = FORWARD,
     TESTS(FORWARD_SHAPES),
     .bench = BENCH,
     .n_bench = COUNT(BENCH),
     NAMES},
    {.name = "linear_dx f32",
     .kernels = EXACT_BODIES(nn),
     .type = DT_F32,
     .variant = BACK_X,
     TESTS(BACK_X_SHAPES),
     .bench = BENCH,
     .n_bench = COUNT(BENCH),
     NAMES},
    {.name = "linear_dw",
     .kernels = EXACT_BODIES(tn),
     .type = DT_F32,
     .variant = BACK_W,
     TESTS(BACK_W_SHAPES),
     .bench = BENCH,
     .n_bench = COUNT(BENCH),
     NAMES},
    {.name = "linear_dw coarse",
     .kernels = BODIES(tn, f32),
     .type = DT_F32,
     .variant = BACK_W | COARSE,
     TESTS(BACK_W_SHAPES),
     .bench = BENCH,
     .n_bench = COUNT(BENCH),
     NAMES},
    {.name = "linear f32 coarse",
     .kernels = COARSE_BODIES(nt),
     .type = DT_F32,
     .variant = FORWARD | COARSE,
     TESTS(ADAPTER_SHAPES),
     .bench = ADAPTER_BENCH,
     .n_bench = COUNT(ADAPTER_BENCH),
     NAMES},
    {.name = "linear_dx f32 coarse",
     .kernels = COARSE_BODIES(nn),
     .type = DT_F32,
     .variant = BACK_X | COARSE,
     TESTS(ADAPTER_SHAPES),
     .bench = ADAPTER_BENCH,
     .n_bench = COUNT(ADAPTER_BENCH),
     NAMES},
    {.name = "linear_dw parts", // on cards, more rows than one part
     .kernels =
         (const int[]){KERNEL_gemm_tn, KERNEL_gemm_tn_dot2, KERNEL_gemm_tn_matrix_f16, KERNEL_gemm_tn_matrix_bf16, -1},
     .type = DT_F32,
     .variant = BACK_W | COARSE,
     TESTS(PARTS_SHAPES),
     .bench = ADAPTER_BENCH,
     .n_bench = COUNT(ADAPTER_BENCH),
     NAMES},
    {.name = "linear_dw packed",
     .kernels = (const int[]){KERNEL_gemm_tn_packed_bf16, KERNEL_gemm_tn_packed_f16, -1},
     .type = DT_F32,
     .variant = BACK_W | COARSE,
     TESTS(PACKED_DW_SHAPES),
     .bench = BENCH,
     .n_bench = COUNT(BENCH),
     NAMES},
    {.name = "linear few f32",
     .kernels = FEW_BODIES(f32),
     .type = DT_F32,
     .variant = FORWARD,
     TESTS(FEW_SHAPES),
     .bench = FEW_BENCH,
     .n_bench = COUNT(FEW_BENCH),
     NAMES},
    {.name = "linear narrow f32",
     .kernels = EXACT_BODIES(nt),
     .type = DT_F32,
     .variant = FORWARD,
     TESTS(NARROW_SHAPES),
     NAMES},
    {.name = "linear_dx narrow f32",
     .kernels = EXACT_BODIES(nn),
     .type = DT_F32,
     .variant = BACK_X,
     TESTS(NARROW_SHAPES),
     NAMES},
    SMALL_OF(f16, DT_F16),
    SMALL_OF(bf16, DT_BF16),
    SMALL_OF(q4_0, DT_Q4_0),
    SMALL_OF(q4_1, DT_Q4_1),
    SMALL_OF(q8_0, DT_Q8_0),
    SMALL_OF(q5_0, DT_Q5_0),
    SMALL_OF(q5_1, DT_Q5_1),
    SUPER_OF(q2_k, DT_Q2_K),
    SUPER_OF(q3_k, DT_Q3_K),
    SUPER_OF(q4_k, DT_Q4_K),
    SUPER_OF(q5_k, DT_Q5_K),
    SUPER_OF(q6_k, DT_Q6_K),
    SMALL_OF(iq4_nl, DT_IQ4_NL),
    SUPER_OF(iq4_xs, DT_IQ4_XS),
    FORMS_OF(f32, DT_F32, SUM_BENCH),
    FORMS_OF(bf16, DT_BF16, SUM_BENCH),
    FORMS_OF(q4_0, DT_Q4_0, SUM_BENCH),
    FORMS_OF(q4_k, DT_Q4_K, SUM_SUPER_BENCH),
    FORM("linear normed", q6_k, DT_Q6_K, NORMED_SHAPES, NORMED_BENCH, "tokens,n,k,experts,active,spread,flags",
         run_linear), // halves of units have scales of their own
    NARROW_OF(f16, DT_F16),
    NARROW_OF(bf16, DT_BF16),
};

uint32_t opcheck_linear(const struct OpCase **cases) {
    *cases = CASES;
    return COUNT(CASES);
}
