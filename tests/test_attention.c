// Attention: every body at odd shapes against the double reference, that reference against finite differences, and the promises that no
// error bound shows: nothing passes between documents, a row is the same alone and beside others, a repeated run is the same bits,
// rows without keys and huge inputs give no NaN. `test_attention NAME` runs the cases that have NAME in their name, and no promises.
#include "check.h"
#include "model/opcheck.h"
#include "model/ref_attention.h"
#include <stdlib.h>
#include <string.h>

// ---- One problem on the host, and its run on the device.
struct Problem {
    uint32_t rows, key_rows;
    struct AttentionShape s;
    float *q, *k, *v, *dout;
    uint32_t *span, *key_span;
};
struct Answer {
    float *o, *lse, *dq, *dk, *dv;
};

static size_t q_count(const struct Problem *p) { return (size_t)p->rows * p->s.n_heads * p->s.head_dim; }
static size_t k_count(const struct Problem *p) { return (size_t)p->key_rows * p->s.n_kv_heads * p->s.head_dim; }

static float *random_floats(size_t n, uint64_t stream, float scale) {
    float *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_normal(17, stream, i) * scale;
    return x;
}

static struct Problem problem_make(uint32_t rows, uint32_t key_rows, uint32_t heads, uint32_t kv_heads,
                                   uint32_t head_dim, float scale) {
    struct Problem p = {rows, key_rows, {heads, kv_heads, head_dim, 1 / sqrtf((float)head_dim), true}, 0, 0, 0, 0,
                        0,    0};
    p.q = random_floats(q_count(&p), 1, scale);
    p.k = random_floats(k_count(&p), 2, scale);
    p.v = random_floats(k_count(&p), 3, 1);
    p.dout = random_floats(q_count(&p), 4, 1);
    p.span = xcalloc(rows, 8);
    p.key_span = xcalloc(key_rows, 8);
    return p;
}

static void problem_free(struct Problem *p) {
    void *all[] = {p->q, p->k, p->v, p->dout, p->span, p->key_span};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

// Causal within documents that start at the given rows (ascending, the first 0, ended by `rows`).
static void documents_set(struct Problem *p, const uint32_t *starts) {
    for (uint32_t d = 0; starts[d] < p->rows; d++)
        for (uint32_t i = starts[d]; i < starts[d + 1]; i++) {
            p->span[2 * i] = starts[d];
            p->span[2 * i + 1] = i + 1;
            p->key_span[2 * i] = i;
            p->key_span[2 * i + 1] = starts[d + 1];
        }
}

static void answer_free(struct Answer *a) {
    void *all[] = {a->o, a->lse, a->dq, a->dk, a->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static struct Tensor uploaded(struct Arena *arena, uint32_t rows, size_t count, const void *data) {
    struct Tensor t = TENSOR(arena, DT_F32, rows, (uint32_t)(count / rows));
    if (data)
        CHECK(tensor_upload(arena->dev, &t, 0, data, t.bytes), "upload");
    return t;
}

static float *downloaded(struct Device *dev, const struct Tensor *t) {
    float *x = xmalloc(t->bytes);
    CHECK(tensor_download(dev, t, 0, x, t->bytes), "download");
    return x;
}

// Bodies that one run takes: forced in turn, since each operation knows its own.
struct Body {
    const char *name;
    int forward, decode, dq, dkv;
    double near; // how far results may be apart by rounding alone, as where tiles of keys cut a document elsewhere
};
static const struct Body BODIES[] = {
    {"CPU body", KERNEL_attention_cpu, KERNEL_attention_decode_cpu, KERNEL_attention_back_dq_cpu,
     KERNEL_attention_back_dkv_cpu, 2e-6},
    {"GPU body", KERNEL_attention, KERNEL_attention_decode, KERNEL_attention_back_dq, KERNEL_attention_back_dkv, 2e-6},
    {"matrix body, f16", KERNEL_attention_matrix_f16, KERNEL_attention_decode_cpu, KERNEL_attention_back_dq_matrix_f16,
     KERNEL_attention_back_dkv_matrix_f16, 2e-3},
    {"matrix body, bf16", KERNEL_attention_matrix_bf16, KERNEL_attention_decode_cpu,
     KERNEL_attention_back_dq_matrix_bf16, KERNEL_attention_back_dkv_matrix_bf16, 2e-2},
};

static void run_program(struct Cmd *c) {
    struct Program *program = cmd_end(c);
    if (CHECK(program != NULL, "%s", fail_last())) {
        CHECK(program_run(program), "%s", fail_last());
        CHECK(program_check(program, -1) == 0, "no hazard");
        program_free(program);
    }
}

static struct Answer problem_run(struct Device *dev, const struct Body *body, const struct Problem *p, bool decode) {
    struct Arena arena;
    arena_init(&arena, dev, "test", ARENA_DEVICE);
    struct Tensor q = uploaded(&arena, p->rows, q_count(p), p->q), k = uploaded(&arena, p->key_rows, k_count(p), p->k);
    struct Tensor v = uploaded(&arena, p->key_rows, k_count(p), p->v), o = uploaded(&arena, p->rows, q_count(p), NULL);
    struct Tensor span = uploaded(&arena, p->rows, 2 * (size_t)p->rows, p->span);
    struct Answer a = {0};
    struct Cmd *c = cmd_begin(dev, "attention");
    if (decode) {
        dev->force_kernel = body->decode;
        struct Tensor done = TENSOR(&arena, DT_U32, p->rows * p->s.n_heads);
        cmd_fill(c, &done, 0);
        op_attention_decode(c, &arena, &done, &q, &k, &v, &span, &o, p->s);
        run_program(c);
        a.o = downloaded(dev, &o);
    } else {
        struct Tensor lse = uploaded(&arena, p->rows, (size_t)p->rows * p->s.n_heads, NULL);
        struct Tensor dout = uploaded(&arena, p->rows, q_count(p), p->dout);
        struct Tensor key_span = uploaded(&arena, p->key_rows, 2 * (size_t)p->key_rows, p->key_span);
        struct Tensor dq = uploaded(&arena, p->rows, q_count(p), NULL);
        struct Tensor dk = uploaded(&arena, p->key_rows, k_count(p), NULL);
        struct Tensor dv = uploaded(&arena, p->key_rows, k_count(p), NULL);
        dev->force_kernel = body->forward;
        op_attention(c, &arena, &q, &k, &v, &span, &o, &lse, p->s);
        // Once per forced body; each writes all three results, so what counts is what the pair of bodies writes last.
        dev->force_kernel = body->dq;
        op_attention_back(c, &arena, &q, &k, &v, &o, &lse, &dout, &span, &key_span, &dq, &dk, &dv, p->s);
        dev->force_kernel = body->dkv;
        struct Tensor other = uploaded(&arena, p->rows, q_count(p), NULL);
        op_attention_back(c, &arena, &q, &k, &v, &o, &lse, &dout, &span, &key_span, &other, &dk, &dv, p->s);
        run_program(c);
        a = (struct Answer){downloaded(dev, &o), downloaded(dev, &lse), downloaded(dev, &dq), downloaded(dev, &dk),
                            downloaded(dev, &dv)};
    }
    dev->force_kernel = -1;
    arena_free(&arena);
    return a;
}

static uint32_t bits_differ(const float *a, const float *b, size_t n) {
    uint32_t differ = 0;
    for (size_t i = 0; i < n; i++)
        differ += memcmp(a + i, b + i, 4) != 0;
    return differ;
}
static uint32_t not_zero(const float *a, size_t n) {
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += a[i] != 0;
    return found;
}
static uint32_t not_finite(const float *a, size_t n) {
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += !isfinite(a[i]);
    return found;
}

// ---- The reference against finite differences

// Loss of the reference: <dout, o>.
static double reference_loss(const struct RefAttention *a, double *o) {
    ref_attention(a, o, NULL);
    double loss = 0;
    for (size_t i = 0; i < (size_t)a->rows * a->s.n_heads * a->s.head_dim; i++)
        loss += a->dout[i] * o[i];
    return loss;
}

static void compare_differences(const struct RefAttention *a, double *x, const double *dx, size_t n, const char *name) {
    double *o = xmalloc((size_t)a->rows * a->s.n_heads * a->s.head_dim * sizeof *o), h = 1e-3;
    for (size_t i = 0; i < n; i += 3) {
        double kept = x[i], at[4];
        for (int step = 0; step < 4; step++) {
            x[i] = kept + (step < 2 ? step - 2 : step - 1) * h;
            at[step] = reference_loss(a, o);
        }
        x[i] = kept;
        double slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h);
        CHECK(fabs(slope - dx[i]) <= 1e-9 + 1e-8 * fabs(slope), "%s[%zu]: %.12g, difference quotient %.12g", name, i,
              dx[i], slope);
    }
    free(o);
}

static double *doubles(const float *x, size_t n) {
    double *y = xmalloc(n * sizeof *y);
    for (size_t i = 0; i < n; i++)
        y[i] = (double)x[i];
    return y;
}

static void test_reference(void) {
    struct Problem p = problem_make(11, 11, 6, 2, 8, 1);
    documents_set(&p, (uint32_t[]){0, 4, 5, 11});
    p.span[2 * 7 + 1] = p.span[2 * 7]; // a row that sees nothing
    size_t nq = q_count(&p), nk = k_count(&p), nl = (size_t)p.rows * p.s.n_heads;
    double *q = doubles(p.q, nq), *k = doubles(p.k, nk), *v = doubles(p.v, nk), *dout = doubles(p.dout, nq);
    double *o = xmalloc(nq * 8), *lse = xmalloc(nl * 8), *dq = xmalloc(nq * 8), *dk = xmalloc(nk * 8),
           *dv = xmalloc(nk * 8);
    struct RefAttention a = {p.rows, p.key_rows, p.s, q, k, v, p.span, p.key_span, o, lse, dout};
    ref_attention(&a, o, lse);
    ref_attention_back(&a, dq, dk, dv);
    compare_differences(&a, q, dq, nq, "dq");
    compare_differences(&a, k, dk, nk, "dk");
    compare_differences(&a, v, dv, nk, "dv");
    double *all[] = {q, k, v, dout, o, lse, dq, dk, dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    problem_free(&p);
}

// ---- Promises beyond the error bound

// Documents A (rows 0..20) and B (21..69): a gradient that starts in B alone leaves exact zeros in A, other contents of A leave B's bits,
// and B packed is B alone (to rounding: tiles of keys lie at absolute places; to the bit where its place is a multiple of 32).
static void test_documents(struct Device *dev, const struct Body *body, uint32_t head_dim) {
    enum { A = 21, ROWS = 70, ALIGNED = 32 };
    struct Problem p = problem_make(ROWS, ROWS, 6, 2, head_dim, 1);
    size_t row = (size_t)p.s.n_heads * head_dim, key = (size_t)p.s.n_kv_heads * head_dim;
    documents_set(&p, (uint32_t[]){0, A, ROWS});
    memset(p.dout, 0, A * row * sizeof(float));
    struct Answer first = problem_run(dev, body, &p, false);
    CHECK(!not_zero(first.dq, A * row) && !not_zero(first.dk, A * key) && !not_zero(first.dv, A * key),
          "%s: a gradient of the second document reached the first", body->name);
    CHECK(not_zero(first.dq + A * row, (ROWS - A) * row) > 0 && not_zero(first.dk + A * key, (ROWS - A) * key) > 0,
          "%s: the second document has gradients", body->name);
    struct Answer again = problem_run(dev, body, &p, false);
    CHECK(!bits_differ(first.o, again.o, ROWS * row) && !bits_differ(first.dq, again.dq, ROWS * row) &&
              !bits_differ(first.dk, again.dk, ROWS * key) && !bits_differ(first.dv, again.dv, ROWS * key) &&
              !bits_differ(first.lse, again.lse, ROWS * (size_t)p.s.n_heads),
          "%s: a second run gives other bits", body->name);
    answer_free(&again);
    for (size_t i = 0; i < A * key; i++)
        p.k[i] = 1e6f * p.k[i], p.v[i] = -p.v[i] + 3;
    again = problem_run(dev, body, &p, false);
    CHECK(!bits_differ(first.o + A * row, again.o + A * row, (ROWS - A) * row) &&
              !bits_differ(first.dq + A * row, again.dq + A * row, (ROWS - A) * row) &&
              !bits_differ(first.dk + A * key, again.dk + A * key, (ROWS - A) * key) &&
              !bits_differ(first.dv + A * key, again.dv + A * key, (ROWS - A) * key),
          "%s: the second document depends on the first one's keys", body->name);
    answer_free(&again);
    answer_free(&first);
    for (int aligned = 0; aligned < 2; aligned++) {
        uint32_t start = aligned ? ALIGNED : A, length = ROWS - start;
        documents_set(&p, (uint32_t[]){0, start, ROWS});
        first = problem_run(dev, body, &p, false);
        struct Problem alone = p;
        alone.rows = alone.key_rows = length;
        alone.q += start * row, alone.k += start * key, alone.v += start * key, alone.dout += start * row;
        alone.span = xcalloc(length, 8), alone.key_span = xcalloc(length, 8);
        documents_set(&alone, (uint32_t[]){0, length});
        struct Answer single = problem_run(dev, body, &alone, false);
        uint32_t o = bits_differ(first.o + start * row, single.o, length * row),
                 lse = bits_differ(first.lse + start * p.s.n_heads, single.lse, length * (size_t)p.s.n_heads),
                 dq = bits_differ(first.dq + start * row, single.dq, length * row),
                 dk = bits_differ(first.dk + start * key, single.dk, length * key),
                 dv = bits_differ(first.dv + start * key, single.dv, length * key);
        // In f16 what a key's row adds up is weighed by the greatest gradient that its workgroup sees, the other document's included.
        if (body->dkv == KERNEL_attention_back_dkv_matrix_f16 && 4 * dev->coopmat.m > ALIGNED)
            dk = dv = 0;
        CHECK(!aligned || !(o + lse + dq + dk + dv),
              "%s: packed and alone differ: o in %u values, lse %u, dq %u, dk %u, dv %u", body->name, o, lse, dq, dk,
              dv);
        double worst = 0;
        for (size_t i = 0; i < length * row; i++)
            worst = fmax(worst, fmax(fabs((double)first.o[start * row + i] - (double)single.o[i]),
                                     fabs((double)first.dq[start * row + i] - (double)single.dq[i])));
        CHECK(worst <= body->near, "%s: packed and alone differ by %g", body->name, worst);
        answer_free(&single);
        answer_free(&first);
        free(alone.span), free(alone.key_span);
    }
    problem_free(&p);
}

// Rows a .. b alone give the bits that they give among all rows.
static void test_neighbours(struct Device *dev, const struct Body *body, bool decode) {
    static const uint32_t PARTS[][2] = {{0, 1}, {13, 14}, {13, 21}, {30, 40}, {3, 37}};
    enum { ROWS = 40, KEYS = 400 };
    struct Problem p = problem_make(ROWS, KEYS, 3, 1, 64, 1);
    for (uint32_t i = 0; i < ROWS; i++) {
        p.span[2 * i] = i / 8 * 64; // five texts, each in its slot of the cache
        p.span[2 * i + 1] = i / 8 * 64 + 1 + i * 37 % 79;
    }
    size_t row = (size_t)p.s.n_heads * p.s.head_dim;
    struct Answer all = problem_run(dev, body, &p, decode);
    for (size_t n = 0; n < sizeof PARTS / sizeof *PARTS; n++) {
        uint32_t first = PARTS[n][0], count = PARTS[n][1] - first;
        struct Problem part = p;
        part.rows = count;
        part.q += first * row, part.dout += first * row, part.span += 2 * first;
        struct Answer some = problem_run(dev, body, &part, decode);
        uint32_t differ = bits_differ(some.o, all.o + first * row, count * row);
        CHECK(differ == 0, "%s, %s: rows %u to %u alone differ in %u values", body->name, decode ? "decode" : "forward",
              first, first + count, differ);
        answer_free(&some);
    }
    answer_free(&all);
    problem_free(&p);
}

// Rows without keys: zeros, lse -inf, no gradient, no NaN anywhere. One row in three; then all.
static void test_empty(struct Device *dev, const struct Body *body, uint32_t step) {
    enum { ROWS = 45 };
    struct Problem p = problem_make(ROWS, ROWS, 2, 1, 16, 1);
    documents_set(&p, (uint32_t[]){0, ROWS});
    for (uint32_t i = 0; i < ROWS; i += step)
        p.span[2 * i + 1] = p.span[2 * i];
    size_t row = (size_t)p.s.n_heads * p.s.head_dim;
    struct Answer a = problem_run(dev, body, &p, false), d = problem_run(dev, body, &p, true);
    uint32_t wrong = 0, lse_wrong = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        bool empty = i % step == 0;
        uint32_t found = not_zero(a.o + i * row, row) + not_zero(d.o + i * row, row) + not_zero(a.dq + i * row, row);
        wrong += empty ? found : found == 0 && i > 1; // a row that sees one key has no dq
        for (uint32_t h = 0; h < p.s.n_heads; h++)
            lse_wrong += empty ? a.lse[i * p.s.n_heads + h] != -INFINITY : !isfinite(a.lse[i * p.s.n_heads + h]);
    }
    CHECK(wrong == 0, "%s: %u values of rows without keys", body->name, wrong);
    CHECK(lse_wrong == 0, "%s: %u logsumexps", body->name, lse_wrong);
    CHECK(!not_finite(a.o, ROWS * row) && !not_finite(d.o, ROWS * row) && !not_finite(a.dq, ROWS * row) &&
              !not_finite(a.dk, k_count(&p)) && !not_finite(a.dv, k_count(&p)),
          "%s: a result is not finite", body->name);
    answer_free(&a);
    answer_free(&d);
    problem_free(&p);
}

// Queries and keys 1e4 times as large: scores near 1e9, a softmax that is one key. Output near the reference's (float rounding of a score can
// move a near tie, so the median row is asked), gradients finite.
static void test_huge(struct Device *dev, const struct Body *body) {
    enum { ROWS = 40, DIM = 64 };
    struct Problem p = problem_make(ROWS, ROWS, 2, 2, DIM, 1e4f);
    documents_set(&p, (uint32_t[]){0, ROWS});
    struct Answer a = problem_run(dev, body, &p, false), d = problem_run(dev, body, &p, true);
    size_t n = q_count(&p);
    CHECK(!not_finite(a.o, n) && !not_finite(d.o, n) && !not_finite(a.lse, ROWS * 2) && !not_finite(a.dq, n) &&
              !not_finite(a.dk, n) && !not_finite(a.dv, n),
          "%s: a result is not finite", body->name);
    double *q = doubles(p.q, n), *k = doubles(p.k, n), *v = doubles(p.v, n), *o = xmalloc(n * 8);
    struct RefAttention ref = {.rows = ROWS, .key_rows = ROWS, .s = p.s, .q = q, .k = k, .v = v, .span = p.span};
    ref_attention(&ref, o, NULL);
    uint32_t far = 0;
    for (size_t i = 0; i < n; i++)
        far += fabs((double)a.o[i] - o[i]) > 5 * body->near || fabs((double)d.o[i] - o[i]) > 1e-5;
    CHECK(far <= n / 20, "%s: %u of %zu outputs are far from the reference", body->name, far, n);
    free(q), free(k), free(v), free(o);
    answer_free(&a);
    answer_free(&d);
    problem_free(&p);
}

// A span that names keys beyond the last is cut there, not read.
static void test_long_span(struct Device *dev, const struct Body *body) {
    struct Problem p = problem_make(9, 20, 2, 1, 8, 1);
    for (uint32_t i = 0; i < 9; i++)
        p.span[2 * i + 1] = 20;
    struct Answer a = problem_run(dev, body, &p, true), b = problem_run(dev, body, &p, false);
    for (uint32_t i = 0; i < 9; i++)
        p.span[2 * i + 1] = 4000000;
    struct Answer c = problem_run(dev, body, &p, true), d = problem_run(dev, body, &p, false);
    CHECK(!bits_differ(a.o, c.o, q_count(&p)) && !bits_differ(b.o, d.o, q_count(&p)), "%s: keys beyond the end",
          body->name);
    answer_free(&a), answer_free(&b), answer_free(&c), answer_free(&d);
    problem_free(&p);
}

// Every case at every shape. LLVM before 18 takes minutes to compile one kernel with a wide head, and any LLVM for the backward on matrices, so
// lavapipe runs heads up to 64 of these here (VKMOE_TEST_ALL=1: all); the suite runs on a newer Mesa too, with all of the others.
static void test_suite(struct Device *dev, const char *filter) {
    const char *llvm = strstr(dev->driver, "LLVM ");
    bool all = !dev->is_cpu || getenv("VKMOE_TEST_ALL"), slow = !all && llvm && atoi(llvm + 5) < 18;
    const struct OpCase *cases;
    uint32_t n = opcheck_attention(&cases), left_out = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!strstr(cases[i].name, filter))
            continue;
        struct OpCase some = cases[i];
        bool narrow = slow || (!all && strcmp(some.name, "attention_back of matrices") == 0);
        uint32_t shapes[32][OP_SHAPE], kept = 0, ran = 0;
        for (uint32_t k = 0; k < some.n_shapes && kept < 32; k++)
            if (narrow && some.shapes[k][4] > 64)
                left_out++;
            else
                memcpy(shapes[kept++], some.shapes[k], sizeof shapes[0]);
        some.shapes = (const uint32_t(*)[OP_SHAPE])shapes;
        some.n_shapes = kept;
        bool concerns = false;
        for (const int *kernel = some.kernels; *kernel >= 0; kernel++)
            concerns |= opcheck_concerns(dev, *kernel);
        uint32_t failures = opcheck_suite(dev, 1, &some, 1, &ran);
        CHECK(failures == 0 && (ran > 0 || kept == 0 || !concerns), "%s: %u of %u runs failed", cases[i].name, failures,
              ran);
        if (!concerns)
            check_skip("%s: no module of it runs on this device", some.name);
    }
    if (left_out)
        check_skip("%u shapes with heads above 64: %s compiles them for minutes (VKMOE_TEST_ALL=1 runs them)", left_out,
                   dev->driver);
}

// ---- How far a logsumexp of matrix units may be off: on the host, with operands that are rounded to bf16, and with two bugs

enum { ROUNDED, CUT, SKIPPED };

static double to_bf16(double x, bool cut) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits += cut ? 0 : 0x7fff + (bits >> 16 & 1);
    bits &= 0xffff0000u;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

// The excess of a body whose queries and keys are rounded, are cut off, or that leaves out the last key but one of every row with more than one.
static double excess_of(uint32_t rows, uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint64_t seed, int what,
                        double *nmse) {
    uint32_t *span = xcalloc(rows, 8), nq = rows * heads * head_dim, nk = rows * kv_heads * head_dim;
    double *x[5]; // q, k, v, and q and k as the body has them
    uint64_t *index = xcalloc((size_t)rows * heads, sizeof *index);
    double *got = xcalloc((size_t)rows * heads, sizeof *got), *o = xcalloc(nq, sizeof *o), error = 0, norm = 0;
    for (int t = 0; t < 5; t++) {
        uint32_t n = t % 3 == 0 ? nq : nk;
        x[t] = xcalloc(n, sizeof **x);
        for (uint32_t i = 0; i < n; i++)
            x[t][i] = t < 3 ? (double)random_normal(seed, (uint64_t)t, i)
                            : to_bf16(x[t - 3][i] * (t == 3 ? 1 / sqrt((double)head_dim) : 1), what == CUT);
    }
    for (uint32_t i = 0; i < rows; i++)
        span[2 * i + 1] = i + 1;
    struct RefAttention a = {.rows = rows,
                             .key_rows = rows,
                             .s = {heads, kv_heads, head_dim, (float)(1 / sqrt((double)head_dim)), true},
                             .q = x[0],
                             .k = x[1],
                             .v = x[2],
                             .span = span};
    struct RefAttention body = a;
    body.q = x[3], body.k = x[4], body.s.scale = 1;
    ref_attention(&body, o, got);
    for (uint32_t i = 0; i < rows * heads; i++) {
        uint32_t row = i / heads, head = i % heads;
        double want;
        index[i] = i;
        if (what == SKIPPED && row > 0) { // log(sum - weight of the key)
            double s = 0;
            for (uint32_t d = 0; d < head_dim; d++)
                s += x[3][(size_t)i * head_dim + d] *
                     x[4][((size_t)(row - 1) * kv_heads + head / (heads / kv_heads)) * head_dim + d];
            got[i] += log1p(-exp(s - got[i]));
        }
        ref_attention_row(&a, row, head, o, &want);
        error += (got[i] - want) * (got[i] - want), norm += want * want;
    }
    *nmse = error / fmax(norm, 0.01 * rows * heads);
    double excess =
        ref_attention_lse_excess(&a, &(struct RefRounding){0x1p-8, true, false}, (uint64_t)rows * heads, index, got);
    for (int t = 0; t < 5; t++)
        free(x[t]);
    free(span), free(index), free(got), free(o);
    return excess;
}

// Rounding never reaches the bound, one key of eight numbers included, whose score is any small difference of products; cut operands
// and a key that is left out are beyond it wherever there are rows enough to tell.
static void test_lse_measure(void) {
    static const uint32_t SHAPES[][4] = {{33, 4, 2, 16}, {64, 4, 1, 64}, {129, 3, 3, 80}, {65, 2, 1, 128}};
    double nmse, most = 0, most_nmse = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        most = fmax(most, excess_of(1, 1, 1, 8, seed, ROUNDED, &nmse));
        most_nmse = fmax(most_nmse, nmse);
    }
    CHECK(most < 1 && most > 0.05, "one key, rounded: %.3g of what may be", most);
    printf("one key of eight numbers, 2000 times: at most %.3g of what rounding may do; relative to itself %.3g\n",
           most, most_nmse);
    for (int s = 0; s < 4; s++)
        for (int what = ROUNDED; what <= SKIPPED; what++) {
            const uint32_t *n = SHAPES[s];
            double excess = excess_of(n[0], n[1], n[2], n[3], 5, what, &nmse);
            CHECK(what == ROUNDED ? excess < 1 : excess > 1, "%u rows of %u numbers, %s: %.3g of what may be", n[0],
                  n[3],
                  what == ROUNDED ? "rounded"
                  : what == CUT   ? "cut off"
                                  : "a key left out",
                  excess);
            printf("%u rows of %u numbers, kind %d: %.3g\n", n[0], n[3], what, excess);
        }
}

int main(int argc, char **argv) {
    test_lse_measure();
    test_reference();
    struct Device dev;
    if (!CHECK(device_open(&dev, NULL), "%s", fail_last()))
        return check_done();
    test_suite(&dev, argc > 1 ? argv[1] : "");
    for (size_t i = 0; argc < 2 && i < sizeof BODIES / sizeof *BODIES; i++) {
        const struct Body *body = &BODIES[i];
        if (dev.kernel_off[body->forward])
            continue;
        test_documents(&dev, body, 16);
        test_documents(&dev, body, 64);
        test_neighbours(&dev, body, false);
        test_neighbours(&dev, body, true);
        test_empty(&dev, body, 3);
        test_empty(&dev, body, 1);
        test_huge(&dev, body);
        test_long_span(&dev, body);
    }
    device_close(&dev);
    return check_done();
}
