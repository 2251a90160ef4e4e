// Row, routing, loss, optimiser and sampling operations: every module against the double reference at odd shapes; every backward
// reference against finite differences; and the promises that no error bound shows: AdamW by hand, rounding without bias, the twin of the
// random generator, draws with the right frequencies, rows that do not depend on their neighbours, NaN that stays visible. Longer than other
// files because one room on the device, with its ways in and out, serves all of it.
#include "check.h"
#include "model/opcheck.h"
#include "model/ref.h"
#include <stdlib.h>
#include <string.h>

static double *random_doubles(size_t n, uint64_t stream) {
    double *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (double)random_normal(23, stream, i);
    return x;
}
static double *zeros(size_t n) { return xcalloc(n, sizeof(double)); }

static void test_suite(struct Device *dev) {
    const struct OpCase *cases;
    uint32_t n = opcheck_rows(&cases), ran;
    uint32_t failures = opcheck_suite(dev, 1, cases, n, &ran);
    CHECK(failures == 0, "%u of %u runs of %u cases failed", failures, ran, n);
    printf("%u runs of %u cases\n", ran, n);
}

// ---- References against finite differences

// What a loss is made of: sum over the outputs of output * upstream gradient.
struct Problem {
    double *x, *w, *d, *out; // two inputs, the upstream gradient, room for the output
    const uint32_t *index;
    const double *table;
    struct RefRoute route;
    uint32_t rows, dim, n;
};

// Four-point central differences of loss by every x[i] against gradient[i].
static void check_gradient(const char *name, struct Problem *p, double (*loss)(struct Problem *), double *x, uint32_t n,
                           const double *gradient) {
    double worst = 0, norm = 0;
    for (uint32_t i = 0; i < n; i++) {
        double old = x[i], h = 1e-3, f[4];
        for (int k = 0; k < 4; k++) {
            x[i] = old + h * (double[]){-2, -1, 1, 2}[k];
            f[k] = loss(p);
        }
        x[i] = old;
        double numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
        worst = fmax(worst, fabs(numeric - gradient[i]));
        norm = fmax(norm, fabs(gradient[i]));
    }
    CHECK(norm > 0, "%s: the gradient is zero", name);
    CHECK(worst <= 1e-8 * (1 + norm), "%s: the gradient is off by %.3g of %.3g", name, worst, norm);
}

static double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double loss_rmsnorm(struct Problem *p) {
    ref_rmsnorm(p->x, p->w, p->rows, p->dim, 1e-5, p->out, NULL);
    return dot(p->out, p->d, (size_t)p->rows * p->dim);
}
static double loss_rope(struct Problem *p) {
    memcpy(p->out, p->x, p->n * sizeof *p->x);
    ref_rope(p->out, p->index, p->table, p->rows, 2, p->dim / 2, 1);
    return dot(p->out, p->d, p->n);
}
static double loss_swiglu(struct Problem *p) {
    ref_swiglu(p->x, p->w, p->n, p->out);
    return dot(p->out, p->d, p->n);
}
static double loss_bias(struct Problem *p) {
    memcpy(p->out, p->x, p->n * sizeof *p->x);
    ref_bias(p->out, p->w, p->rows, p->dim);
    return dot(p->out, p->d, p->n);
}
static double loss_gate(struct Problem *p) {
    ref_gate(p->w, p->x, p->rows, p->dim, p->out);
    return dot(p->out, p->d, p->n);
}
static double loss_embed(struct Problem *p) {
    ref_embed(p->index, p->w, p->rows, p->dim, 5, p->out);
    return dot(p->out, p->d, (size_t)p->rows * p->dim);
}

static void test_rows_gradients(void) {
    enum { ROWS = 3, DIM = 8, N = ROWS * DIM };
    static const uint32_t INDEX[ROWS] = {4, 1, 4};
    struct Problem p = {.x = random_doubles(N, 1),
                        .w = random_doubles(5 * DIM, 2),
                        .d = random_doubles(N, 3),
                        .out = zeros(N),
                        .index = INDEX,
                        .rows = ROWS,
                        .dim = DIM,
                        .n = N};
    double *dx = zeros(N), *dw = zeros(5 * DIM), rstd[ROWS];
    ref_rmsnorm(p.x, p.w, ROWS, DIM, 1e-5, p.out, rstd);
    ref_rmsnorm_back(p.x, p.w, rstd, p.d, ROWS, DIM, dx, dw);
    check_gradient("rmsnorm dx", &p, loss_rmsnorm, p.x, N, dx);
    check_gradient("rmsnorm dw", &p, loss_rmsnorm, p.w, DIM, dw);

    double table[5 * DIM / 2]; // (5, 2, 2) for heads of 4
    for (int i = 0; i < 5 * 2; i++)
        table[2 * i] = cos(i * 0.7), table[2 * i + 1] = sin(i * 0.7);
    p.table = table;
    memcpy(dx, p.d, N * sizeof *dx);
    ref_rope(dx, INDEX, table, ROWS, 2, DIM / 2, -1);
    check_gradient("rope", &p, loss_rope, p.x, N, dx);

    ref_swiglu_back(p.x, p.w, p.d, N, dx, dw);
    check_gradient("swiglu dgate", &p, loss_swiglu, p.x, N, dx);
    check_gradient("swiglu dup", &p, loss_swiglu, p.w, N, dw);

    memset(dw, 0, 5 * DIM * sizeof *dw);
    ref_bias_back(p.d, ROWS, DIM, dw);
    check_gradient("bias", &p, loss_bias, p.w, DIM, dw);

    memset(dx, 0, N * sizeof *dx);
    memset(dw, 0, 5 * DIM * sizeof *dw);
    ref_gate_back(p.w, p.x, p.d, ROWS, DIM, dw, dx);
    check_gradient("gate dgate", &p, loss_gate, p.w, ROWS, dw);
    check_gradient("gate dx", &p, loss_gate, p.x, N, dx);

    memset(dw, 0, 5 * DIM * sizeof *dw);
    ref_embed_back(INDEX, p.d, ROWS, DIM, 5, dw);
    check_gradient("embed", &p, loss_embed, p.w, 5 * DIM, dw);
    CHECK(dw[0] == 0 && dw[2 * DIM] == 0, "an unused row has a gradient");
    free(p.x), free(p.w), free(p.d), free(p.out), free(dx), free(dw);
}

static double loss_route(struct Problem *p) {
    double probs[64], weights[64];
    uint32_t experts[64];
    ref_route(&p->route, p->x, probs, weights, experts);
    return dot(weights, p->d, p->n) + dot(probs, p->w, (size_t)p->route.tokens * p->route.n_experts);
}

static void test_route_gradient(bool norm_topk, uint32_t n_active) {
    enum { TOKENS = 4, EXPERTS = 6 };
    struct Problem p = {.x = random_doubles(TOKENS * EXPERTS, 4),
                        .w = random_doubles(TOKENS * EXPERTS, 5),
                        .d = random_doubles(TOKENS * EXPERTS, 6),
                        .route = {TOKENS, EXPERTS, n_active, norm_topk, 1.7},
                        .n = TOKENS * n_active};
    double probs[TOKENS * EXPERTS], weights[TOKENS * EXPERTS], dlogits[TOKENS * EXPERTS];
    uint32_t experts[TOKENS * EXPERTS];
    ref_route(&p.route, p.x, probs, weights, experts);
    ref_route_back(&p.route, probs, experts, p.d, p.w, dlogits);
    check_gradient("route", &p, loss_route, p.x, TOKENS * EXPERTS, dlogits);
    for (int t = 0; norm_topk && n_active > 1 && t < TOKENS; t++) {
        double sum = 0;
        for (uint32_t k = 0; k < n_active; k++)
            sum += weights[t * n_active + k];
        CHECK_NEAR(sum, 1, 1e-12, 0);
    }
    free(p.x), free(p.w), free(p.d);
}

static const uint32_t GROUP_START[4] = {0, 3, 3, 5};
static const double GROUP_WEIGHT[3] = {1, 7, 0.25};
static double loss_balance(struct Problem *p) {
    return ref_balance(&p->route, p->x, p->index, GROUP_START, NULL, GROUP_WEIGHT, 3, 0.3, NULL);
}

static void test_balance_gradient(void) {
    static const uint32_t EXPERTS[10] = {0, 1, 2, 1, 3, 1, 0, 2, 2, 3};
    struct Problem p = {.x = random_doubles(20, 7), .index = EXPERTS, .route = {5, 4, 2, false, 1}};
    double gradient[20];
    ref_balance(&p.route, p.x, EXPERTS, GROUP_START, NULL, GROUP_WEIGHT, 3, 0.3, gradient);
    check_gradient("balance", &p, loss_balance, p.x, 20, gradient);
    free(p.x);
    // By hand: 3 tokens, 4 experts, top-1 on experts 0, 0, 1. f = 4/3 * (2, 1, 0, 0); P = (0.5, 0.3, 0.1, 0.1).
    static const uint32_t CHOSEN[3] = {0, 0, 1}, START[2] = {0, 3};
    static const double PROBS[12] = {0.7, 0.1, 0.1, 0.1, 0.6, 0.2, 0.1, 0.1, 0.2, 0.6, 0.1, 0.1};
    struct RefRoute three = {3, 4, 1, false, 1};
    double loss = ref_balance(&three, PROBS, CHOSEN, START, NULL, (double[]){1}, 1, 0.01, gradient);
    CHECK_NEAR(loss, 0.01 * 4.0 / 3 * (2 * 0.5 + 1 * 0.3), 1e-15, 0);
    CHECK_NEAR(gradient[0], 0.01 * 8.0 / 3 / 3, 1e-15, 0);
    CHECK(gradient[2] == 0, "an idle expert has a gradient");
}

// With the weights and gate of one part of x, up of the other, d what reaches h: what a mixture's output depends on them by.
static double loss_experts(struct Problem *p) {
    uint32_t slots = p->rows, width = p->dim;
    double sum = 0;
    ref_swiglu(p->x, p->table, (uint64_t)slots * width, p->out);
    for (uint32_t s = 0; s < slots; s++)
        sum += p->w[s] * dot(p->out + (size_t)p->index[s] * width, p->d + (size_t)p->index[s] * width, width);
    return sum;
}

static void test_expert_gradient(void) {
    enum { WIDTH = 8, SLOTS = 6, N = SLOTS * WIDTH };
    static const uint32_t SLOT_ROW[SLOTS] = {3, 0, 5, 1, 2, 4};
    double *up = random_doubles(N, 11);
    struct Problem p = {.x = random_doubles(N, 8),
                        .w = random_doubles(SLOTS, 9),
                        .d = random_doubles(N, 10),
                        .out = zeros(N),
                        .table = up,
                        .index = SLOT_ROW,
                        .rows = SLOTS,
                        .dim = WIDTH};
    double dgate[N], dup[N], h[N], dweights[SLOTS];
    ref_expert_swiglu_back(p.x, up, p.d, p.w, SLOT_ROW, SLOTS, WIDTH, dgate, dup, h, dweights);
    check_gradient("expert gate", &p, loss_experts, p.x, N, dgate);
    check_gradient("expert up", &p, loss_experts, up, N, dup);
    check_gradient("expert weights", &p, loss_experts, p.w, SLOTS, dweights);
    check_gradient("expert dh", &p, loss_experts, p.d, N, h); // the loss is linear in it
    free(p.x), free(p.w), free(p.d), free(p.out), free(up);
}

static double loss_xent(struct Problem *p) {
    double loss[8], sum = 0;
    ref_xent(p->x, p->index, p->rows, p->dim, 1, loss, NULL);
    for (uint32_t i = 0; i < p->rows; i++)
        sum += loss[i] / 3;
    return sum;
}

static void test_xent_gradient(void) {
    static const uint32_t TARGETS[4] = {2, UINT32_MAX, 6, 0};
    struct Problem p = {.x = random_doubles(28, 11), .index = TARGETS, .rows = 4, .dim = 7};
    double loss[4], gradient[28];
    ref_xent(p.x, TARGETS, 4, 7, 1.0 / 3, loss, gradient);
    check_gradient("xent", &p, loss_xent, p.x, 28, gradient);
    for (int i = 0; i < 7; i++)
        CHECK(gradient[7 + i] == 0, "a row without a label has a gradient");
    free(p.x);
}

// ---- On the device

struct Room {
    struct Device *dev;
    struct Arena arena;
};

static struct Tensor put(struct Room *room, enum DType type, uint32_t rows, uint32_t cols, const void *data) {
    struct Tensor t = TENSOR(&room->arena, type, rows, cols);
    CHECK(tensor_upload(room->dev, &t, 0, data, t.bytes), "upload");
    return t;
}
static void get(struct Room *room, const struct Tensor *t, void *data) {
    CHECK(tensor_download(room->dev, t, 0, data, t->bytes), "download");
}
static void run(struct Cmd *c) {
    struct Program *p = cmd_end(c);
    if (CHECK(p && program_run(p), "the program did not run"))
        program_free(p);
}

static struct StepParams step_params(uint32_t step, float learning_rate) {
    return (struct StepParams){.inv_labels = 1,
                               .learning_rate = learning_rate,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .correction1 = (float)(1 - pow((double)0.9f, step)),
                               .correction2 = (float)(1 - pow((double)0.95f, step)),
                               .clip_norm = 1,
                               .seed_low = 0x12345678,
                               .seed_high = 0x9abcdef0,
                               .step = step};
}

enum { ADAM_N = 64 };
struct Adam {
    struct Tensor w, g, m1, m2, params, result;
};

static struct Adam adam_make(struct Room *room, const float *w, const float *g, bool finite) {
    static const float ZERO[ADAM_N];
    struct StepResult result = {.clip = 1, .finite = finite};
    struct StepParams params = step_params(1, 0);
    return (struct Adam){put(room, DT_F32, 1, ADAM_N, w),    put(room, DT_F32, 1, ADAM_N, g),
                         put(room, DT_F32, 1, ADAM_N, ZERO), put(room, DT_F32, 1, ADAM_N, ZERO),
                         put(room, DT_F32, 1, 12, &params),  put(room, DT_F32, 1, 8, &result)};
}

static void adam_step(struct Room *room, const struct Adam *a, uint32_t step, float learning_rate, float decay) {
    struct StepParams params = step_params(step, learning_rate);
    CHECK(tensor_upload(room->dev, &a->params, 0, &params, sizeof params), "upload");
    struct Cmd *c = cmd_begin(room->dev, "adamw");
    op_adamw(c, &a->w, &a->g, &a->m1, &a->m2, &a->params, &a->result, 0, 0, decay);
    run(c);
}

static void test_adamw(struct Room *room) {
    struct ArenaMark mark = arena_mark(&room->arena);
    float w[ADAM_N], g[ADAM_N], got[ADAM_N];
    for (int i = 0; i < ADAM_N; i++)
        w[i] = random_normal(3, 1, i), g[i] = i % 2 ? 0.25f * (float)(i + 1) : -3.0f / (float)(i + 1);
    // By hand: with a constant gradient both corrected moments are exactly g and g^2, so every step is lr * sign(g) and the decay.
    struct Adam a = adam_make(room, w, g, true);
    double hand[ADAM_N];
    for (int i = 0; i < ADAM_N; i++)
        hand[i] = (double)w[i];
    for (uint32_t step = 1; step <= 6; step++) {
        adam_step(room, &a, step, 0.01f, 0.1f);
        for (int i = 0; i < ADAM_N; i++)
            hand[i] = hand[i] * (1 - 0.01 * 0.1) - 0.01 * (g[i] > 0 ? 1 : -1);
    }
    get(room, &a.w, got);
    for (int i = 0; i < ADAM_N; i++)
        CHECK_NEAR((double)got[i], hand[i], 2e-6, 1e-6);
    // Without a gradient the weights shrink by (1 - lr * decay) a step and nothing else happens.
    static const float ZERO[ADAM_N];
    a = adam_make(room, w, ZERO, true);
    for (uint32_t step = 1; step <= 20; step++)
        adam_step(room, &a, step, 0.01f, 0.1f);
    get(room, &a.w, got);
    for (int i = 0; i < ADAM_N; i++)
        CHECK_NEAR((double)got[i], (double)w[i] * pow(1 - 0.001, 20), 0, 4e-6);
    // A step that is not finite changes no bit.
    a = adam_make(room, w, g, false);
    adam_step(room, &a, 1, 0.01f, 0.1f);
    get(room, &a.w, got);
    CHECK(memcmp(got, w, sizeof w) == 0, "weights changed in a step that is not finite");
    get(room, &a.m1, got);
    CHECK(memcmp(got, ZERO, sizeof got) == 0, "moments changed in a step that is not finite");
    arena_release(&room->arena, mark);
}

// n elements of a row from `first` on.
static struct Tensor row_part(const struct Tensor *t, uint32_t first, uint32_t n) {
    struct Tensor part = tensor_shape(t->type, 1, &n);
    part.address = t->address + first * dtype_row_bytes(t->type, 8) / 8;
    return part;
}

// ---- Moments in 8 bits, against the same in double: codes of adamw.comp, blocks of 64.

static double decode8(uint32_t q, bool first, double top) {
    double s = first ? (double)(int8_t)q / 127 : (double)q / 255;
    return first ? top * s * fabs(s) : top * s * s * s * s;
}

struct Moment8 {
    uint32_t *words, *before; // on the device after a step, and before it
    double error, variance;   // of the rounding
    uint32_t wrong, beyond;   // codes that are not the host's draw, or not next to the exact value
};

static uint32_t code8(const uint32_t *words, uint32_t i) {
    return words[i / 64 * 17 + i % 64 / 4] >> 8 * (i % 4) & 255;
}
static double top8(const uint32_t *words, uint32_t i) {
    float top;
    memcpy(&top, &words[i / 64 * 17 + 16], 4);
    return (double)top;
}

// What became of the exact value `x` of element i; random16: the host's draw.
static void rounded8(struct Moment8 *m, uint32_t i, bool first, double x, uint32_t random16) {
    double top = top8(m->words, i), most = first ? 127 : 255, share = fmin(fabs(x) / top, 1);
    double low = fmin(floor((first ? sqrt(share) : sqrt(sqrt(share))) * most), most - 1);
    double a = decode8((uint32_t)low, first, 1), b = decode8((uint32_t)low + 1, first, 1);
    uint32_t q = (uint32_t)low + ((random16 + 0.5) / 65536 < (share - a) / (b - a)), got = code8(m->words, i);
    if (!first && x > 0 && q == 0)
        q = 1;
    m->wrong += got != (x < 0 ? (256 - q) & 255 : q);
    double decoded = decode8(got, first, top);
    m->beyond += fabs(decoded - x) > 1.001 * top * (b - a);
    m->error += decoded - x;
    m->variance += top * top * (share - a) * (b - share);
}

static void test_moments8(struct Room *room) {
    enum { N = (1 << 17) + 8, WORDS = (N + 63) / 64 * 17, STEPS = 3 }; // the last block is not full
    struct ArenaMark mark = arena_mark(&room->arena);
    float *w = xmalloc(N * sizeof *w), *g = xmalloc(N * sizeof *g), *got = xmalloc(N * sizeof *got);
    struct Moment8 m[2];
    for (int k = 0; k < 2; k++)
        m[k] = (struct Moment8){.words = xcalloc(WORDS, 4), .before = xcalloc(WORDS, 4)};
    for (uint32_t i = 0; i < N; i++)
        w[i] = random_normal(4, 1, i), g[i] = i % 97 == 0 ? 0 : random_normal(4, 2, i) * (i / 64 % 5 == 4 ? 1e-6f : 1);
    struct StepResult result = {.clip = 0.5f, .finite = 1};
    struct StepParams params = step_params(1, 0.01f);
    struct Tensor tw = put(room, DT_F32, 1, N, w), tg = put(room, DT_F32, 1, N, g);
    struct Tensor t[2] = {put(room, DT_F32, 1, WORDS, m[0].words), put(room, DT_F32, 1, WORDS, m[1].words)};
    struct Tensor tp = put(room, DT_F32, 1, 12, &params), tr = put(room, DT_F32, 1, 8, &result);
    double worst = 0;
    for (uint32_t step = 1; step <= STEPS; step++) {
        params = step_params(step, 0.01f);
        CHECK(tensor_upload(room->dev, &tp, 0, &params, sizeof params), "upload");
        struct Cmd *c = cmd_begin(room->dev, "adamw in 8 bits");
        for (uint32_t part = 0, half = 1 << 16; part < 2; part++) { // in two parts: codes are drawn as for the whole
            uint32_t at = part * half, n = part ? N - half : half, words = at / 64 * 17;
            struct Tensor wp = row_part(&tw, at, n), gp = row_part(&tg, at, n), mp[2];
            for (int k = 0; k < 2; k++)
                mp[k] = row_part(&t[k], words, part ? WORDS - words : half / 64 * 17);
            op_adamw(c, &wp, &gp, &mp[0], &mp[1], &tp, &tr, 5, at, 0.1f);
        }
        run(c);
        get(room, &tw, got);
        for (int k = 0; k < 2; k++) {
            memcpy(m[k].before, m[k].words, WORDS * 4);
            get(room, &t[k], m[k].words);
        }
        uint64_t seed = (uint64_t)params.seed_high << 32 | params.seed_low, stream = (uint64_t)params.step << 32 | 5;
        double b1 = (double)params.beta1, b2 = (double)params.beta2;
        for (uint32_t i = 0; i < N; i++) {
            double x[2], grad = 0.5 * (double)g[i];
            x[0] = b1 * decode8(code8(m[0].before, i), true, top8(m[0].before, i)) + (1 - b1) * grad;
            x[1] = b2 * decode8(code8(m[1].before, i), false, top8(m[1].before, i)) + (1 - b2) * grad * grad;
            double lr = (double)params.learning_rate, old = (double)w[i];
            double want =
                old - lr * ((double)0.1f * old + x[0] / (double)params.correction1 /
                                                     (sqrt(x[1] / (double)params.correction2) + (double)params.eps));
            worst = fmax(worst, fabs((double)got[i] - want) / (1 + fabs(want)));
            for (uint32_t k = 0; k < 2; k++) {
                uint32_t words[4];
                philox(seed, stream, (uint64_t)(k + 1) << 32 | i / 8, words);
                rounded8(&m[k], i, k == 0, x[k], words[i % 8 / 2] >> i % 2 * 16 & 0xffff);
            }
        }
        memcpy(w, got, N * sizeof *w);
    }
    CHECK(worst < 1e-6, "weights are off by %.2g", worst);
    for (int k = 0; k < 2; k++) {
        CHECK(m[k].beyond == 0 && m[k].wrong < STEPS * N / 1000,
              "moment %d: %u codes beyond their neighbours, %u not as drawn", k + 1, m[k].beyond, m[k].wrong);
        CHECK(fabs(m[k].error) < 3 * sqrt(m[k].variance), "moment %d: rounding is biased: %.3g, deviation %.3g", k + 1,
              m[k].error, sqrt(m[k].variance));
        free(m[k].words), free(m[k].before);
    }
    free(w), free(g), free(got);
    arena_release(&room->arena, mark);
}

// The decay alone, by powers of two: the exact result is known to the last bit, and with it every rounded one.
static void test_stochastic_rounding(struct Room *room) {
    enum { N = 1 << 20 };
    struct ArenaMark mark = arena_mark(&room->arena);
    uint16_t *w = xmalloc(N * sizeof *w), *got = xmalloc(N * sizeof *got);
    float *zero = xcalloc(N, sizeof *zero);
    for (int i = 0; i < N; i++)
        w[i] = i % 2 ? 0x3f80 : 0xc049; // 1 and -3.140625
    struct StepParams params = step_params(77, 0x1p-10f);
    struct StepResult result = {.clip = 1, .finite = 1};
    struct Tensor t = put(room, DT_BF16, 1, N, w), g = put(room, DT_F32, 1, N, zero),
                  m1 = put(room, DT_F32, 1, N, zero);
    struct Tensor m2 = put(room, DT_F32, 1, N, zero), p = put(room, DT_F32, 1, 12, &params);
    struct Tensor r = put(room, DT_F32, 1, 8, &result);
    struct Cmd *c = cmd_begin(room->dev, "rounding");
    for (uint32_t part = 0, half = N / 2; part < 2; part++) { // in two parts: the numbers drawn are those of the whole
        uint32_t at = part * half;
        struct Tensor wp = row_part(&t, at, half), gp = row_part(&g, at, half);
        struct Tensor p1 = row_part(&m1, at, half), p2 = row_part(&m2, at, half);
        op_adamw(c, &wp, &gp, &p1, &p2, &p, &r, 5, at, 0.5f);
    }
    run(c);
    get(room, &t, got);
    uint64_t seed = (uint64_t)params.seed_high << 32 | params.seed_low, stream = (uint64_t)params.step << 32 | 5;
    uint32_t wrong = 0;
    double error[2] = {0, 0}, variance[2] = {0, 0};
    for (int i = 0; i < N; i++) {
        uint32_t words[4], bits = (uint32_t)w[i] << 16;
        philox(seed, stream, (uint64_t)i / 8, words);
        float value, rounded;
        memcpy(&value, &bits, 4);
        value -= 0x1p-11f * value;
        memcpy(&bits, &value, 4);
        double low, high;
        uint32_t down = bits & 0xffff0000u, up = down + 0x10000u;
        memcpy(&rounded, &down, 4), low = (double)rounded;
        memcpy(&rounded, &up, 4), high = (double)rounded;
        bits += words[i % 8 / 2] >> (i % 2 * 16) & 0xffff;
        wrong += got[i] != bits >> 16;
        bits = (uint32_t)got[i] << 16;
        memcpy(&rounded, &bits, 4);
        error[i % 2] += (double)rounded - (double)value;
        variance[i % 2] += ((double)value - low) * (high - (double)value);
    }
    CHECK(wrong == 0, "%u of %d rounded weights are not those of the host's generator", wrong, N);
    for (int k = 0; k < 2; k++)
        CHECK(fabs(error[k]) < 3 * sqrt(variance[k]), "rounding is biased: %.3g, deviation %.3g", error[k],
              sqrt(variance[k]));
    free(w), free(got), free(zero);
    arena_release(&room->arena, mark);
}

static void test_norm_not_finite(struct Room *room) {
    struct ArenaMark mark = arena_mark(&room->arena);
    struct StepParams params = step_params(1, 0);
    for (int kind = 0; kind < 4; kind++) { // fine, infinite gradient, NaN gradient, NaN loss
        float g[40] = {3, 4};
        g[17] = kind == 1 ? INFINITY : kind == 2 ? NAN : 0;
        struct StepResult result = {.loss = kind == 3 ? NAN : 1, .finite = 9};
        struct Tensor t = put(room, DT_F32, 1, 40, g), p = put(room, DT_F32, 1, 12, &params);
        struct Tensor r = put(room, DT_F32, 1, 8, &result);
        struct Cmd *c = cmd_begin(room->dev, "norm");
        op_norm(c, &room->arena, &t, 1, &p, &r);
        run(c);
        get(room, &r, &result);
        CHECK(result.finite == (kind == 0), "kind %d: finite is %u", kind, result.finite);
        if (kind == 0) {
            CHECK_NEAR((double)result.grad_norm, 5, 0, 1e-6);
            CHECK_NEAR((double)result.clip, 1 / (5 + 1e-6), 0, 1e-6);
        }
    }
    arena_release(&room->arena, mark);
}

// ---- Sampling

// Draws of one row of logits: `draws` rows, each with its own index.
static void draw(struct Room *room, const float *logits, uint32_t vocab, struct SampleParams s, uint32_t first,
                 uint32_t draws, uint32_t *ids) {
    struct ArenaMark mark = arena_mark(&room->arena);
    float *rows = xmalloc((size_t)draws * vocab * sizeof *rows);
    struct SampleParams *params = xmalloc(draws * sizeof *params);
    for (uint32_t i = 0; i < draws; i++) {
        memcpy(rows + (size_t)i * vocab, logits, vocab * sizeof *rows);
        params[i] = s;
        params[i].index = first + i;
    }
    struct Tensor t = put(room, DT_F32, draws, vocab, rows), p = put(room, DT_U32, draws, SAMPLE_WORDS, params);
    struct Tensor out = TENSOR(&room->arena, DT_U32, draws);
    struct Cmd *c = cmd_begin(room->dev, "sample");
    op_sample(c, &room->arena, NULL, &t, &p, &out, NULL, NULL);
    run(c);
    get(room, &out, ids);
    free(rows), free(params);
    arena_release(&room->arena, mark);
}

static void test_sampling(struct Room *room) {
    enum { VOCAB = 53, DRAWS = 20000 };
    static const struct SampleParams SETTINGS[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 1, .top_k = 10},
        {.temperature = 1, .top_p = 0.8f},
        {.temperature = 1.3f, .top_p = 1, .min_p = 0.1f},
        {.temperature = 0.9f, .top_p = 0.9f, .min_p = 0.03f, .top_k = 20},
        {.temperature = 1e-6f, .top_p = 1},
        {.temperature = 0, .top_p = 0.5f, .top_k = 3},
        {.temperature = 1, .top_p = 0},
        {.temperature = 1, .top_p = 1, .typical = 0.5f},
        {.temperature = 0.8f, .top_p = 0.9f, .min_p = 0.03f, .top_k = 20, .typical = 0.7f},
        {.temperature = 0.3f, .top_p = 1, .min_p = 0.5f, .typical = 0.2f},
        {.temperature = 1.2f, .top_p = 1, .tau = 3, .eta = 0.1f, .mu = 4},
        {.temperature = 1, .top_p = 1, .tau = 3, .eta = 0.1f, .mu = -2},
    };
    uint32_t *ids = xmalloc(DRAWS * sizeof *ids), *again = xmalloc(DRAWS * sizeof *again);
    for (uint32_t round = 0; round < 2; round++) { // the second with many equal logits
        float logits[VOCAB];
        double exact[VOCAB], probs[VOCAB];
        for (int i = 0; i < VOCAB; i++) {
            logits[i] = 1.5f * random_normal(31, round, i);
            logits[i] = round ? roundf(logits[i]) : logits[i];
            exact[i] = (double)logits[i];
        }
        for (uint32_t s = 0; s < sizeof SETTINGS / sizeof *SETTINGS; s++) {
            struct SampleParams setting = SETTINGS[s];
            setting.seed_low = 99 + s, setting.seed_high = 1, setting.stream = 4;
            ref_sample(exact, VOCAB, &setting, probs);
            draw(room, logits, VOCAB, setting, 0, DRAWS, ids);
            uint32_t count[VOCAB] = {0}, outside = 0, kinds = 0;
            for (int i = 0; i < DRAWS; i++)
                ids[i] < VOCAB ? count[ids[i]]++ : outside++;
            double chi = 0;
            for (int i = 0; i < VOCAB; i++) {
                double expected = probs[i] * DRAWS;
                outside += expected == 0 ? count[i] : 0;
                chi += expected > 0 ? (count[i] - expected) * (count[i] - expected) / expected : 0;
                kinds += expected > 0;
            }
            CHECK(outside == 0, "round %u, setting %u: %u draws of tokens that are cut off", round, s, outside);
            double bound = kinds - 1 + 5 * sqrt(2.0 * (kinds - 1));
            CHECK(chi <= bound, "round %u, setting %u: chi-square %.1f of %u tokens, bound %.1f", round, s, chi, kinds,
                  bound);
            // A draw is the same alone as among others, and the second time.
            draw(room, logits, VOCAB, setting, 7, 1, again);
            CHECK(again[0] == ids[7], "setting %u: alone %u, among others %u", s, again[0], ids[7]);
        }
    }
    free(ids), free(again);
}

// More candidates than the list in shared memory holds, most of them surely kept: frequencies of groups of tokens.
static void test_sampling_wide(struct Room *room) {
    enum { VOCAB = 5000, DRAWS = 4000, GROUPS = 25 };
    static const struct SampleParams SETTINGS[] = {
        {.temperature = 1, .top_p = 0.7f, .seed_low = 1},
        {.temperature = 1.5f, .top_p = 1, .top_k = 3000, .seed_low = 2},
        {.temperature = 0.5f, .top_p = 0.8f, .top_k = 4000, .min_p = 0.05f, .seed_low = 3},
        {.temperature = 1, .top_p = 1, .typical = 0.7f, .seed_low = 4},
    };
    float *logits = xmalloc(VOCAB * sizeof *logits);
    double *exact = zeros(VOCAB), *probs = zeros(VOCAB);
    uint32_t *ids = xmalloc(DRAWS * sizeof *ids), *count = xmalloc(VOCAB * sizeof *count);
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = 0.7f * random_normal(37, 0, i);
        exact[i] = (double)logits[i];
    }
    for (uint32_t s = 0; s < sizeof SETTINGS / sizeof *SETTINGS; s++) {
        ref_sample(exact, VOCAB, &SETTINGS[s], probs);
        draw(room, logits, VOCAB, SETTINGS[s], 0, DRAWS, ids);
        uint32_t outside = 0, kept = 0;
        memset(count, 0, VOCAB * sizeof *count);
        for (int i = 0; i < DRAWS; i++)
            ids[i] < VOCAB ? count[ids[i]]++ : outside++;
        double chi = 0, expected[GROUPS] = {0}, found[GROUPS] = {0};
        for (int i = 0; i < VOCAB; i++) {
            int group = (int)fmin(GROUPS - 1, fmax(0, (exact[i] + 2.5) * 5)); // by logit
            expected[group] += probs[i] * DRAWS;
            found[group] += count[i];
            outside += probs[i] == 0 ? count[i] : 0;
            kept += probs[i] > 0;
        }
        CHECK(kept > 1024, "setting %u keeps %u tokens: too few for this test", s, kept);
        CHECK(outside <= 1, "setting %u: %u draws of tokens that are cut off", s, outside);
        for (int i = 0; i < GROUPS; i++)
            chi += expected[i] > 0.5 ? (found[i] - expected[i]) * (found[i] - expected[i]) / expected[i] : 0;
        CHECK(chi <= GROUPS + 5 * sqrt(2.0 * GROUPS), "setting %u: chi-square %.1f of %d groups", s, chi, GROUPS);
    }
    free(logits), free(exact), free(probs), free(ids), free(count);
}

// A flat row: every candidate is equal, more of them than any list holds, and the lower index wins.
static void test_sampling_flat(struct Room *room) {
    enum { VOCAB = 102400, DRAWS = 24 };
    float *logits = xmalloc(VOCAB * sizeof *logits);
    uint32_t ids[DRAWS], seen = 0, high = 0;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -7.25f;
    struct SampleParams s = {.temperature = 1, .top_p = 1, .top_k = 5, .seed_low = 8};
    draw(room, logits, VOCAB, s, 0, DRAWS, ids);
    for (int i = 0; i < DRAWS; i++)
        CHECK(ids[i] < 5, "top-k 5 of equal logits gave %u", ids[i]), seen |= 1u << (ids[i] % 32);
    CHECK(seen == 31, "24 draws of 5 equal tokens gave the set %x", seen);
    s.top_k = 0, s.top_p = 0.5f;
    draw(room, logits, VOCAB, s, 0, DRAWS, ids);
    for (int i = 0; i < DRAWS; i++)
        CHECK(ids[i] <= VOCAB / 2 + 8, "top-p 0.5 of equal logits gave %u", ids[i]), high += ids[i] > VOCAB / 4;
    CHECK(high > 2, "of 24 draws %u came from the upper half", high);
    free(logits);
}

// Whether one workgroup has a row or several share it changes no bit: what NULL and counters give, the second twice, by either module.
static void test_sampling_parts(struct Room *room, enum KernelId kernel, uint32_t vocab) {
    static const struct SampleParams SETTINGS[] = {
        {.temperature = 0},
        {.temperature = 0},
        {.temperature = 0},
        {.temperature = 0.8f, .top_p = 1},
        {.temperature = 0.7f, .top_p = 0.95f, .top_k = 40},
        {.temperature = 1.5f, .top_p = 0.9f, .min_p = 0.05f},
        {.temperature = 1, .top_p = 1, .typical = 0.7f},
        {.temperature = 1.1f, .top_p = 1, .tau = 5, .eta = 0.1f, .mu = 6},
    };
    enum { ROWS = sizeof SETTINGS / sizeof *SETTINGS, TIMES = 3 };
    struct ArenaMark mark = arena_mark(&room->arena);
    float *logits = xmalloc((size_t)ROWS * vocab * sizeof *logits);
    for (uint32_t i = 0; i < ROWS * vocab; i++)
        logits[i] = 3 * random_normal(43, vocab, i);
    for (uint32_t i = 0; i < vocab; i++) // equal ones; and what is no number
        logits[i] = i % 7 == 5 ? 20 : logits[i];
    logits[vocab + vocab / 2] = NAN;
    uint32_t zeros[ROWS] = {0}, ids[TIMES][ROWS], counts[ROWS];
    float logprob[TIMES][ROWS], chance[TIMES][ROWS];
    struct Tensor t = put(room, DT_F32, ROWS, vocab, logits), done = put(room, DT_U32, 1, ROWS, zeros);
    struct Tensor params = put(room, DT_U32, ROWS, SAMPLE_WORDS, SETTINGS), t_ids = TENSOR(&room->arena, DT_U32, ROWS);
    struct Tensor t_logprob = TENSOR(&room->arena, DT_F32, ROWS), t_chance = TENSOR(&room->arena, DT_F32, ROWS);
    room->dev->force_kernel = (int)kernel;
    for (int k = 0; k < TIMES; k++) {
        struct Cmd *c = cmd_begin(room->dev, "sample");
        op_sample(c, &room->arena, k ? &done : NULL, &t, &params, &t_ids, &t_logprob, &t_chance);
        run(c);
        get(room, &t_ids, ids[k]);
        get(room, &t_logprob, logprob[k]);
        get(room, &t_chance, chance[k]);
        CHECK(memcmp(ids[k], ids[0], sizeof *ids) == 0, "run %d, %u tokens: others are drawn", k, vocab);
        CHECK(memcmp(logprob[k], logprob[0], sizeof *logprob) == 0 && memcmp(chance[k], chance[0], sizeof *chance) == 0,
              "run %d, %u tokens: other probabilities", k, vocab);
    }
    room->dev->force_kernel = -1;
    CHECK(ids[1][0] == 5 && isnan(logprob[1][1]) && !isnan(logprob[1][2]), "%u tokens: token %u of equal ones, %g, %g",
          vocab, ids[1][0], (double)logprob[1][1], (double)logprob[1][2]);
    get(room, &done, counts);
    CHECK(memcmp(counts, zeros, sizeof zeros) == 0, "counters are not 0 again");
    free(logits);
    arena_release(&room->arena, mark);
}

// ---- NaN and infinity

static void test_not_finite(struct Room *room) {
    enum { VOCAB = 40 };
    struct ArenaMark mark = arena_mark(&room->arena);
    float logits[5][VOCAB], loss[5], logprob[5];
    uint32_t targets[5] = {3, 3, 3, 3, UINT32_MAX}, ids[5], experts[5][6];
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < VOCAB; i++)
            logits[r][i] = r == 1 ? -INFINITY : r == 2 && i % 2 == 0 ? -INFINITY : (float)i / 8;
    logits[0][7] = NAN, logits[4][7] = NAN;
    struct SampleParams params[5];
    for (int i = 0; i < 5; i++)
        params[i] = (struct SampleParams){.temperature = 1, .top_p = 0.9f, .top_k = 10, .index = i};
    struct Tensor t = put(room, DT_F32, 5, VOCAB, logits), target = put(room, DT_U32, 1, 5, targets);
    struct Tensor t_loss = TENSOR(&room->arena, DT_F32, 5), t_ids = TENSOR(&room->arena, DT_U32, 5);
    struct Tensor t_logprob = TENSOR(&room->arena, DT_F32, 5), t_params = put(room, DT_U32, 5, SAMPLE_WORDS, params);
    struct Routing r = {.tokens = 5, .n_experts = VOCAB, .n_active = 6};
    r.probs = TENSOR(&room->arena, DT_F32, 5, VOCAB);
    r.weights = TENSOR(&room->arena, DT_F32, 5, 6);
    r.experts = TENSOR(&room->arena, DT_U32, 5, 6);
    struct Cmd *c = cmd_begin(room->dev, "not finite");
    op_xent(c, &t, &target, &t_loss, NULL, NULL, false);
    op_sample(c, &room->arena, NULL, &t, &t_params, &t_ids, &t_logprob, NULL);
    op_route(c, &t, &r, true, 1);
    run(c);
    get(room, &t_loss, loss);
    CHECK(isnan(loss[0]), "a NaN logit gives the loss %g", (double)loss[0]);
    CHECK(!isfinite(loss[1]), "a row of -inf gives the loss %g", (double)loss[1]);
    double sum = 0;
    for (int i = 1; i < VOCAB; i += 2)
        sum += exp(i / 8.0);
    CHECK_NEAR((double)loss[2], log(sum) - 3 / 8.0, 0, 1e-5);
    CHECK(loss[4] == 0, "a row without a label has the loss %g", (double)loss[4]);
    get(room, &t_ids, ids);
    get(room, &t_logprob, logprob);
    CHECK(ids[0] < VOCAB && ids[1] < VOCAB, "tokens %u, %u", ids[0], ids[1]);
    CHECK(isnan(logprob[0]) && !isfinite(logprob[1]), "log-probabilities %g, %g", (double)logprob[0],
          (double)logprob[1]);
    CHECK(ids[2] % 2 == 1, "a token of probability 0 was drawn: %u", ids[2]);
    get(room, &r.experts, experts);
    float weights[5][6];
    get(room, &r.weights, weights);
    for (int k = 0; k < 6; k++) {
        CHECK(experts[0][k] == (uint32_t)k && experts[1][k] == (uint32_t)k, "experts %u, %u", experts[0][k],
              experts[1][k]);
        CHECK(isnan(weights[0][k]) && isnan(weights[1][k]), "weights %g, %g", (double)weights[0][k],
              (double)weights[1][k]);
        CHECK(experts[2][k] == (uint32_t)(VOCAB - 1 - 2 * k), "expert %u", experts[2][k]);
    }
    arena_release(&room->arena, mark);
}

// ---- Rows and their neighbours; a whole routing

static void test_row_alone(struct Room *room) {
    enum { ROWS = 5, DIM = 576 };
    struct ArenaMark mark = arena_mark(&room->arena);
    float x[ROWS][DIM], w[DIM], y[ROWS][DIM], alone[DIM], loss[ROWS], loss_alone;
    uint32_t targets[ROWS] = {1, 2, 3, 4, 5};
    for (int i = 0; i < ROWS * DIM; i++)
        x[i / DIM][i % DIM] = random_normal(5, 1, i), w[i % DIM] = random_normal(5, 2, i % DIM);
    struct Tensor t = put(room, DT_F32, ROWS, DIM, x), t_w = put(room, DT_F32, 1, DIM, w);
    struct Tensor t_y = TENSOR(&room->arena, DT_F32, ROWS, DIM), t_alone = TENSOR(&room->arena, DT_F32, 1, DIM);
    struct Tensor target = put(room, DT_U32, 1, ROWS, targets), one = put(room, DT_U32, 1, 1, targets + 3);
    struct Tensor t_loss = TENSOR(&room->arena, DT_F32, ROWS), t_loss_alone = TENSOR(&room->arena, DT_F32, 1);
    struct Tensor row = tensor_slice(&t, 3, 1);
    struct Cmd *c = cmd_begin(room->dev, "alone");
    op_rmsnorm(c, &t, &t_w, &t_y, NULL, 1e-6f);
    op_rmsnorm(c, &row, &t_w, &t_alone, NULL, 1e-6f);
    op_xent(c, &t, &target, &t_loss, NULL, NULL, false);
    op_xent(c, &row, &one, &t_loss_alone, NULL, NULL, false);
    run(c);
    get(room, &t_y, y);
    get(room, &t_alone, alone);
    get(room, &t_loss, loss);
    get(room, &t_loss_alone, &loss_alone);
    CHECK(memcmp(y[3], alone, sizeof alone) == 0, "a normed row depends on its neighbours");
    CHECK(memcmp(&loss[3], &loss_alone, 4) == 0, "a row's loss depends on its neighbours");
    arena_release(&room->arena, mark);
}

// Router and sort together, on tensors as routing_make lays them out: every slot once, experts in order, slots of an expert in order, and every
// row in a tile: no token is dropped.
static void test_routing(struct Room *room, uint32_t tokens, uint32_t n_experts, uint32_t n_active) {
    struct ArenaMark mark = arena_mark(&room->arena);
    uint32_t slots = tokens * n_active;
    float *logits = xmalloc((size_t)tokens * n_experts * sizeof *logits);
    for (size_t i = 0; i < (size_t)tokens * n_experts; i++)
        logits[i] = random_normal(41, tokens, i);
    struct Tensor t = put(room, DT_F32, tokens, n_experts, logits);
    struct Routing r = routing_make(&room->arena, room->dev, tokens, n_experts, n_active);
    struct Cmd *c = cmd_begin(room->dev, "routing");
    op_route(c, &t, &r, false, 1);
    op_sort(c, &room->arena, &r);
    run(c);
    uint32_t *experts = xmalloc(slots * 4), *gather = xmalloc(slots * 4), *slot_row = xmalloc(slots * 4);
    uint32_t *row_slot = xmalloc(slots * 4), *row_expert = xmalloc(slots * 4), wrong = 0, tiled = 0, grid[8];
    uint32_t *tiles = xmalloc(r.tiles.bytes);
    get(room, &r.experts, experts);
    get(room, &r.gather, gather);
    get(room, &r.slot_row, slot_row);
    get(room, &r.row_expert, row_expert);
    memset(row_slot, 0xff, slots * 4);
    for (uint32_t s = 0; s < slots; s++)
        if (slot_row[s] < slots)
            row_slot[slot_row[s]] = s;
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t s = row_slot[i];
        bool good = s < slots && gather[i] == s / n_active && row_expert[i] == experts[s];
        if (good && i > 0 && tokens > 8) {
            uint32_t before = row_slot[i - 1];
            good = before < slots && (experts[before] < experts[s] || (experts[before] == experts[s] && before < s));
        }
        wrong += !good;
    }
    CHECK(wrong == 0, "%u of %u slots of %u tokens are out of place", wrong, slots, tokens);
    get(room, &r.tiles, tiles);
    get(room, &r.grid, grid);
    for (uint32_t i = 0; i < grid[0] && i < r.max_tiles; i++)
        tiled += tiles[4 * i + 2];
    CHECK(tiled == slots, "%u of %u slots of %u tokens are in tiles", tiled, slots, tokens);
    free(logits), free(experts), free(gather), free(slot_row), free(row_slot), free(row_expert), free(tiles);
    arena_release(&room->arena, mark);
}

int main(void) {
    test_rows_gradients();
    test_route_gradient(false, 2);
    test_route_gradient(true, 3);
    test_route_gradient(true, 1);
    test_route_gradient(true, 6);
    test_balance_gradient();
    test_expert_gradient();
    test_xent_gradient();

    struct Device dev;
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device");
        return check_done();
    }
    struct Room room = {.dev = &dev};
    arena_init(&room.arena, &dev, "test", ARENA_DEVICE);
    test_adamw(&room);
    test_moments8(&room);
    test_stochastic_rounding(&room);
    test_norm_not_finite(&room);
    test_sampling(&room);
    test_sampling_wide(&room);
    test_sampling_flat(&room);
    static const uint32_t VOCABS[] = {20, 7001, 102400};
    for (int i = 0; i < 3; i++) {
        test_sampling_parts(&room, KERNEL_sample_base, VOCABS[i]);
        if (!dev.kernel_off[KERNEL_sample])
            test_sampling_parts(&room, KERNEL_sample, VOCABS[i]);
    }
    test_not_finite(&room);
    test_row_alone(&room);
    test_routing(&room, 1, 64, 6);
    test_routing(&room, 8, 16, 2);
    test_routing(&room, 9, 8, 8);
    test_routing(&room, 700, 64, 6);
    test_routing(&room, 12500, 256, 8);
    for (uint32_t tokens = 9; tokens <= 129;
         tokens += tokens - 1) // every expert has a tile and one row: as many tiles as there can be
        test_routing(&room, tokens, 7, 7);
    arena_free(&room.arena);
    test_suite(&dev);
    device_close(&dev);
    return check_done();
}
