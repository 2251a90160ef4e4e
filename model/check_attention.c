// Checks of attention: forward, decode and backward against the double reference, over layouts of spans that training and inference make:
// one causal text, a cache longer than the rows, packed documents, padding rows, rows that see nothing.
#include "model/opcheck.h"
#include "model/ref_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CAUSAL = 1, PACKED, PADDED, FULL, QUIET };
enum { QUIET_ROWS = 70 };
enum { ROWS, KEY_ROWS, HEADS, KV_HEADS, HEAD_DIM, LAYOUT }; // places in a shape
// Normalised mean square errors: sums in f32, and operands of matrix units rounded to nearest: queries and weights, and of f32 keys and values too.
static const double BOUND_F32 = 1e-11, BOUND_F16 = 4e-7, BOUND_BF16 = 2.5e-5;

// Of the backward: both products of a pair, and both sums, have two rounded operands.
static const double BOUND_BACK_F16 = 9e-7, BOUND_BACK_BF16 = 6e-5;

// One rounding; cut instead, four times as much.
static const double BOUND_PACK_F16 = 6e-8, BOUND_PACK_BF16 = 4e-6;

static bool is_matrix(enum KernelId kernel) { return (KERNELS[kernel].needs & NEEDS_COOPMAT) != 0; }
static double bound_of(enum KernelId kernel) {
    return !is_matrix(kernel) ? BOUND_F32 : KERNELS[kernel].needs & NEEDS_BF16 ? BOUND_BF16 : BOUND_F16;
}

static double bound_of_back(enum KernelId kernel) {
    return !is_matrix(kernel) ? BOUND_F32 : KERNELS[kernel].needs & NEEDS_BF16 ? BOUND_BACK_BF16 : BOUND_BACK_F16;
}

static struct AttentionShape heads_of(const uint32_t *shape) {
    return (struct AttentionShape){.n_heads = shape[HEADS],
                                   .n_kv_heads = shape[KV_HEADS],
                                   .head_dim = shape[HEAD_DIM],
                                   .scale = 1 / sqrtf((float)shape[HEAD_DIM])};
}

// span (rows, 2) and key_span (key_rows, 2) of a layout. Row i stands at key i + key_rows - rows. PACKED: documents of 1, 2, 3, ... 40, 1, ...
// times five rows but the first; PADDED: the same, with every fifth document made of rows that see themselves alone and
// every seventh of rows that see nothing. QUIET: two documents, the first of QUIET_ROWS.
static void spans_make(const uint32_t *shape, uint32_t *span, uint32_t *key_span) {
    uint32_t rows = shape[ROWS], key_rows = shape[KEY_ROWS], behind = key_rows - rows;
    for (uint32_t key = 0; key < key_rows; key++)
        key_span[2 * key] = rows, key_span[2 * key + 1] = 0;
    uint32_t begin = 0, length = shape[LAYOUT] == QUIET ? QUIET_ROWS : 1, document = 1;
    for (uint32_t i = 0; i < rows; i++) {
        if (shape[LAYOUT] != CAUSAL && shape[LAYOUT] != FULL && i == begin + length) {
            begin = i;
            length = shape[LAYOUT] == QUIET ? rows : document % 9 * 5 + 1;
            document++;
        }
        span[2 * i] = shape[LAYOUT] == CAUSAL || shape[LAYOUT] == FULL ? 0 : begin + behind;
        span[2 * i + 1] = shape[LAYOUT] == FULL ? key_rows : i + behind + 1;
        if (shape[LAYOUT] == PADDED && document % 5 == 0)
            span[2 * i] = i + behind;
        if (shape[LAYOUT] == PADDED && document % 7 == 0)
            span[2 * i + 1] = span[2 * i];
        for (uint32_t key = span[2 * i]; key < span[2 * i + 1]; key++) {
            if (i < key_span[2 * key])
                key_span[2 * key] = i;
            key_span[2 * key + 1] = i + 1;
        }
    }
    for (uint32_t key = 0; key < key_rows; key++)
        if (key_span[2 * key] > key_span[2 * key + 1])
            key_span[2 * key] = key_span[2 * key + 1] = 0;
}

struct Inputs {
    struct CheckTensor *q, *k, *v, *span, *key_span;
    uint32_t *spans, *key_spans;
    struct RefAttention ref;
    double pairs; // of query and key, over all heads
};

// Keys and values are of `type`; the reference sees what they decode to.
static struct Inputs inputs_make(struct CheckRun *r, enum DType type, const uint32_t *shape, uint32_t *spans,
                                 uint32_t *key_spans) {
    uint32_t q_dim[] = {shape[ROWS], shape[HEADS] * shape[HEAD_DIM]};
    uint32_t k_dim[] = {shape[KEY_ROWS], shape[KV_HEADS] * shape[HEAD_DIM]};
    struct Inputs in = {.spans = spans, .key_spans = key_spans};
    in.q = checkrun_random(r, DT_F32, 2, q_dim, 1);
    in.k = checkrun_random(r, type, 2, k_dim, 1);
    in.v = checkrun_random(r, type, 2, k_dim, 1);
    in.span = checkrun_values(r, DT_U32, 2, (uint32_t[]){shape[ROWS], 2}, spans);
    in.key_span = checkrun_values(r, DT_U32, 2, (uint32_t[]){shape[KEY_ROWS], 2}, key_spans);
    in.ref = (struct RefAttention){.rows = shape[ROWS],
                                   .key_rows = shape[KEY_ROWS],
                                   .s = heads_of(shape),
                                   .q = in.q->value,
                                   .k = in.k->value,
                                   .v = in.v->value,
                                   .span = spans,
                                   .key_span = key_spans};
    for (uint32_t i = 0; i < shape[ROWS]; i++)
        in.pairs += (double)(spans[2 * i + 1] - spans[2 * i]) * shape[HEADS];
    return in;
}

// As checkrun_compare_at, with a floor under the norm: the gradient of a row that sees one key is zero but for rounding, and no error is
// small beside zero. Inputs are of deviation 1, so that results worth the name are well above the floor of 0.1 root mean square.
static void compare_picked(struct CheckRun *r, const struct CheckTensor *t, uint64_t count, const uint64_t *index,
                           const double *want) {
    double error = 0, norm = 0;
    for (uint64_t i = 0; i < count; i++) {
        double difference = t->value[index[i]] - want[i];
        error += difference * difference;
        norm += want[i] * want[i];
    }
    double nmse = error / fmax(norm, 0.01 * (double)count);
    if (!(nmse <= r->ck->nmse)) // also where it is NaN
        r->ck->nmse = isnan(nmse) ? INFINITY : nmse;
}

// Compares a tensor of vectors of head_dim with the reference, vector by vector: all, or those that hold the picked elements.
static void compare_vectors(struct CheckRun *r, const struct CheckTensor *t, uint32_t n_heads,
                            const struct RefAttention *ref,
                            void (*one)(const struct RefAttention *, uint32_t row, uint32_t head, double *out)) {
    uint32_t width = ref->s.head_dim;
    uint64_t *index, count = checkrun_pick(r, t, &index), kept = UINT64_MAX;
    double *want = xmalloc(count * sizeof *want), *vector = xmalloc(width * sizeof *vector);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t which = index[i] / width;
        if (which != kept)
            one(ref, (uint32_t)(which / n_heads), (uint32_t)(which % n_heads), vector);
        kept = which;
        want[i] = vector[index[i] % width];
    }
    compare_picked(r, t, count, index, want);
    free(want);
    free(vector);
    free(index);
}

static void ref_o(const struct RefAttention *a, uint32_t row, uint32_t head, double *o) {
    ref_attention_row(a, row, head, o, NULL);
}
static void ref_dk(const struct RefAttention *a, uint32_t key, uint32_t head, double *dk) {
    double *dv = xmalloc(a->s.head_dim * sizeof *dv);
    ref_attention_back_key(a, key, head, dk, dv);
    free(dv);
}
static void ref_dv(const struct RefAttention *a, uint32_t key, uint32_t head, double *dv) {
    double *dk = xmalloc(a->s.head_dim * sizeof *dk);
    ref_attention_back_key(a, key, head, dk, dv);
    free(dk);
}

static bool rounds_keys(enum KernelId kernel, enum DType type) { // those in a matrix unit's own type go in as they are
    return type == DT_F32 || type == DT_Q8_0 || (type == DT_BF16) != ((KERNELS[kernel].needs & NEEDS_BF16) != 0);
}

// Of matrix units: measured by what rounding leaves, since a score of few keys may be a small sum of large products.
static void compare_lse_rounded(struct CheckRun *r, const struct CheckTensor *lse, const struct RefAttention *ref,
                                enum DType type) {
    uint32_t needs = KERNELS[r->ck->kernel].needs;
    struct RefRounding rounding = {.unit = needs & NEEDS_BF16 ? 0x1p-8 : 0x1p-11,
                                   .keys = rounds_keys(r->ck->kernel, type),
                                   .weights = (needs & NEEDS_COOPMAT2) != 0};
    uint64_t *index, count = checkrun_pick(r, lse, &index);
    double *got = xmalloc(count * sizeof *got);
    for (uint64_t i = 0; i < count; i++)
        got[i] = lse->value[index[i]];
    double excess = ref_attention_lse_excess(ref, &rounding, count, index, got);
    r->ck->nmse = fmax(r->ck->nmse, excess * bound_of(r->ck->kernel)); // so that an excess of 1 is at the bound
    free(got);
    free(index);
}

// Rows without a key have -inf on both sides; the others are compared as numbers.
static void compare_lse(struct CheckRun *r, const struct CheckTensor *lse, const struct RefAttention *ref) {
    uint64_t *index, count = checkrun_pick(r, lse, &index);
    double *want = xmalloc(count * sizeof *want), *o = xmalloc(ref->s.head_dim * sizeof *o);
    for (uint64_t i = 0; i < count; i++) {
        ref_attention_row(ref, (uint32_t)(index[i] / ref->s.n_heads), (uint32_t)(index[i] % ref->s.n_heads), o,
                          &want[i]);
        if (isinf(want[i]))
            want[i] = lse->value[index[i]] = lse->value[index[i]] == want[i] ? 0 : NAN;
    }
    compare_picked(r, lse, count, index, want);
    free(want);
    free(o);
    free(index);
}

static bool run_forward(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t *spans = xmalloc(8 * (size_t)shape[ROWS]), *key_spans = xmalloc(8 * (size_t)shape[KEY_ROWS]);
    spans_make(shape, spans, key_spans);
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct Inputs in = inputs_make(&r, oc->type, shape, spans, key_spans);
    struct CheckTensor *o = checkrun_output(&r, 2, in.q->t.dim);
    struct CheckTensor *lse = checkrun_output(&r, 2, (uint32_t[]){shape[ROWS], shape[HEADS]});
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    in.ref.s.coarse = is_matrix(ck->kernel);
    op_attention(c, &r.arena, &in.q->t, &in.k->t, &in.v->t, &in.span->t, &o->t, &lse->t, in.ref.s);
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        compare_vectors(&r, o, shape[HEADS], &in.ref, ref_o);
        if (is_matrix(ck->kernel))
            compare_lse_rounded(&r, lse, &in.ref, oc->type);
        else
            compare_lse(&r, lse, &in.ref);
    }
    ck->bound = bound_of(ck->kernel);
    ck->flops = 4 * in.pairs * shape[HEAD_DIM];
    ck->bytes = (double)(2 * in.q->t.bytes + 2 * in.k->t.bytes);
    checkrun_end(&r);
    free(spans);
    free(key_spans);
    return ok;
}

// The gradient of o. QUIET: none in the first document, as where it has no labels, and great ones beside it.
static struct CheckTensor *dout_make(struct CheckRun *r, const uint32_t *shape, const struct CheckTensor *like) {
    struct CheckTensor *random = checkrun_random(r, DT_F32, 2, like->t.dim, 1);
    if (shape[LAYOUT] != QUIET)
        return random;
    float *value = xmalloc(random->n * sizeof *value);
    uint64_t quiet = (uint64_t)QUIET_ROWS * shape[HEADS] * shape[HEAD_DIM];
    for (uint64_t i = 0; i < random->n; i++)
        value[i] = i < quiet ? 0 : 100 * (float)random->value[i];
    struct CheckTensor *dout = checkrun_values(r, DT_F32, 2, like->t.dim, value);
    free(value);
    return dout;
}

static bool run_backward(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t *spans = xmalloc(8 * (size_t)shape[ROWS]), *key_spans = xmalloc(8 * (size_t)shape[KEY_ROWS]);
    spans_make(shape, spans, key_spans);
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct Inputs in = inputs_make(&r, oc->type, shape, spans, key_spans);
    struct CheckTensor *dout = dout_make(&r, shape, in.q);
    // o and lse come from the device's own forward, as in training; whether they are right is the forward case's question.
    struct CheckTensor *o = checkrun_output(&r, 2, in.q->t.dim);
    struct CheckTensor *lse = checkrun_output(&r, 2, (uint32_t[]){shape[ROWS], shape[HEADS]});
    struct CheckTensor *dq = checkrun_output(&r, 2, in.q->t.dim);
    struct CheckTensor *dk = checkrun_output(&r, 2, in.k->t.dim);
    struct CheckTensor *dv = checkrun_output(&r, 2, in.k->t.dim);
    struct Cmd *forward = cmd_begin(ck->dev, "attention for its backward");
    op_attention(forward, &r.arena, &in.q->t, &in.k->t, &in.v->t, &in.span->t, &o->t, &lse->t, in.ref.s);
    struct Program *p = cmd_end(forward);
    bool ok = p && program_run(p) && checkrun_settle(&r, o) && checkrun_settle(&r, lse);
    if (p)
        program_free(p);
    in.ref.s.coarse = is_matrix(ck->kernel);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_attention_back(c, &r.arena, &in.q->t, &in.k->t, &in.v->t, &o->t, &lse->t, &dout->t, &in.span->t, &in.key_span->t,
                      &dq->t, &dk->t, &dv->t, in.ref.s);
    ok = checkrun_execute(&r, cmd_end(c)) && ok;
    if (ok) {
        in.ref.o = o->value;
        in.ref.lse = lse->value;
        in.ref.dout = dout->value;
        // Beside a body for f16 runs the other one that a device of bf16 prefers, which is checked by itself.
        bool alone =
            ck->dev->coopmat.type == DT_BF16 && is_matrix(ck->kernel) && !(KERNELS[ck->kernel].needs & NEEDS_BF16);
        if (!alone || ck->kernel == KERNEL_attention_back_dq_matrix_f16)
            compare_vectors(&r, dq, shape[HEADS], &in.ref, ref_attention_back_row);
        if (!alone || ck->kernel != KERNEL_attention_back_dq_matrix_f16) {
            compare_vectors(&r, dk, shape[KV_HEADS], &in.ref, ref_dk);
            compare_vectors(&r, dv, shape[KV_HEADS], &in.ref, ref_dv);
        }
    }
    ck->bound = bound_of_back(ck->kernel);
    ck->flops = 10 * in.pairs * shape[HEAD_DIM]; // five products; the two that are made twice are not counted
    ck->bytes = (double)(4 * in.q->t.bytes + 4 * in.k->t.bytes);
    checkrun_end(&r);
    free(spans);
    free(key_spans);
    return ok;
}

// The operands of the backward on matrix units, and what is told of them.
static bool run_pack(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[ROWS], packed = shape[KEY_ROWS], heads = shape[HEADS], width = shape[HEAD_DIM];
    struct AttentionShape s = heads_of(shape);
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *in[3], *out[2];
    for (int i = 0; i < 3; i++) // q, o, dout; gradients are small
        in[i] = checkrun_random(&r, DT_F32, 2, (uint32_t[]){rows, heads * width}, i == 2 ? 1e-8 : 1);
    for (int i = 0; i < 2; i++) {
        out[i] = checkrun_random(&r, oc->type, 2, (uint32_t[]){packed, heads * width}, 1);
        out[i]->output = true;
    }
    struct CheckTensor *delta = checkrun_output(&r, 3, (uint32_t[]){rows, heads, 2});
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_attention_back_pack(c, &in[0]->t, &in[1]->t, &in[2]->t, &out[0]->t, &out[1]->t, &delta->t, s);
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *q = xcalloc(out[0]->n, sizeof *q), *dout = xcalloc(out[1]->n, sizeof *dout),
           *want = xmalloc(delta->n * sizeof *want);
    for (uint64_t i = 0; ok && i < (uint64_t)rows * heads; i++) {
        double most = 0, sum = 0;
        for (uint64_t d = i * width; d < (i + 1) * width; d++) {
            most = fmax(most, fabs(in[2]->value[d]));
            sum += in[1]->value[d] * in[2]->value[d];
        }
        int exponent;
        frexp(most, &exponent);
        double power = ldexp(1, exponent - 1);
        for (uint64_t d = i * width; d < (i + 1) * width; d++) {
            q[d] = in[0]->value[d] * (double)s.scale / log(2);
            dout[d] = in[2]->value[d] / power;
        }
        want[2 * i] = sum / power, want[2 * i + 1] = 1;
        delta->value[2 * i + 1] = delta->value[2 * i + 1] == power; // far smaller than the rest
    }
    if (ok) {
        checkrun_compare(&r, out[0], q);
        checkrun_compare(&r, out[1], dout);
        checkrun_compare(&r, delta, want);
    }
    free(q), free(dout), free(want);
    ck->bound = oc->type == DT_BF16 ? BOUND_PACK_BF16 : BOUND_PACK_F16;
    ck->bytes = 3.0 * (double)in[0]->t.bytes + 2.0 * (double)out[0]->t.bytes;
    checkrun_end(&r);
    return ok;
}

// Decode: every row has its own cache of key_rows / rows keys, and sees a prefix of it: all of it, then shorter ones.
static bool run_decode(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t slot = shape[KEY_ROWS] / shape[ROWS];
    uint32_t *spans = xmalloc(8 * (size_t)shape[ROWS]), *key_spans = xcalloc(shape[KEY_ROWS], 8);
    for (uint32_t i = 0; i < shape[ROWS]; i++) {
        spans[2 * i] = i * slot;
        spans[2 * i + 1] = i * slot + slot - slot / 3 * (i % 3) - (i == 5 ? slot - slot / 3 * 2 : 0);
    }
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct Inputs in = inputs_make(&r, oc->type, shape, spans, key_spans);
    struct CheckTensor *o = checkrun_output(&r, 2, in.q->t.dim);
    uint32_t counts = shape[ROWS] * shape[HEADS], *zeros = xcalloc(counts, sizeof *zeros);
    struct CheckTensor *done = checkrun_values(&r, DT_U32, 1, &counts, zeros);
    done->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_attention_decode(c, &r.arena, &done->t, &in.q->t, &in.k->t, &in.v->t, &in.span->t, &o->t, in.ref.s);
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        compare_vectors(&r, o, shape[HEADS], &in.ref, ref_o);
    for (uint32_t i = 0; ok && i < counts; i++)
        if (done->value[i] != 0) // what comes behind would count wrongly
            ck->nmse = INFINITY;
    free(zeros);
    ck->bound = bound_of(ck->kernel);
    ck->flops = 4 * in.pairs * shape[HEAD_DIM];
    ck->bytes = in.pairs * 2 * (double)dtype_row_bytes(oc->type, shape[HEAD_DIM]) /
                (shape[HEADS] / shape[KV_HEADS]); // each key and value read once
    checkrun_end(&r);
    free(spans);
    free(key_spans);
    return ok;
}

// By the type of keys; what an operation picks by itself first.
static const int FORWARD[] = {KERNEL_attention_matrix_bf16, KERNEL_attention, KERNEL_attention_cpu,
                              KERNEL_attention_matrix_f16, -1};
static const int FORWARD_WIDE[] = {KERNEL_attention, KERNEL_attention_cpu, -1};
static const int FORWARD_F16[] = {KERNEL_attention_matrix_f16, KERNEL_attention, KERNEL_attention_cpu, -1};
static const int FORWARD_BF16[] = {KERNEL_attention_matrix_bf16, KERNEL_attention, KERNEL_attention_cpu, -1};
static const int CM2_F16[] = {KERNEL_attention_cm2_f16, -1}, CM2_BF16[] = {KERNEL_attention_cm2_bf16, -1};
static const int BACKWARD[] = {KERNEL_attention_back_dq,      KERNEL_attention_back_dq_cpu,  KERNEL_attention_back_dkv,
                               KERNEL_attention_back_dkv_cpu, KERNEL_attention_back_prepare, -1};
static const int BACKWARD_MATRIX[] = {KERNEL_attention_back_dq_matrix_bf16, KERNEL_attention_back_dkv_matrix_bf16,
                                      KERNEL_attention_back_dq_matrix_f16, KERNEL_attention_back_dkv_matrix_f16, -1};
static const int PACK[] = {KERNEL_attention_back_pack, -1};
static const int DECODE[] = {KERNEL_attention_decode, KERNEL_attention_decode_cpu, -1};

// rows, key rows, heads, key heads, head_dim, layout
static const uint32_t SHAPES[][OP_SHAPE] = {
    {33, 33, 4, 2, 16, CAUSAL},  {1, 1, 1, 1, 8, CAUSAL},      {7, 7, 3, 1, 24, CAUSAL},
    {64, 64, 4, 1, 64, PACKED},  {129, 129, 3, 1, 64, PADDED}, {129, 129, 3, 3, 80, PACKED},
    {7, 129, 4, 4, 96, CAUSAL},  {33, 64, 4, 1, 128, FULL},    {33, 40, 6, 2, 32, PADDED},
    {1, 129, 3, 1, 64, CAUSAL},  {129, 200, 2, 1, 8, PACKED},  {160, 160, 2, 1, 32, QUIET},
    {64, 65, 2, 2, 256, CAUSAL},
};
enum { NARROW = sizeof SHAPES / sizeof *SHAPES - 1 }; // the last head is too wide for matrix units' registers
static const uint32_t DECODE_SHAPES[][OP_SHAPE] = {
    {3, 900, 4, 2, 16},  {1, 1, 3, 1, 64},   {1, 5, 3, 3, 24},     {1, 300, 3, 1, 64},   {8, 8000, 4, 1, 64},
    {8, 40, 4, 4, 8},    {3, 15, 9, 3, 80},  {3, 3000, 2, 2, 128}, {1, 1000, 3, 1, 256}, {64, 64, 2, 1, 96},
    {2, 700, 8, 2, 128}, {1, 130, 8, 1, 64}, {1, 200, 10, 2, 64},
};
// SmolLM2-135M and DeepSeekMoE 16B: prefill and training.
static const uint32_t BENCH[][OP_SHAPE] = {
    {512, 512, 9, 3, 64, CAUSAL}, {1024, 1024, 9, 3, 64, PACKED},    {512, 512, 16, 16, 128, CAUSAL},
    {64, 2048, 9, 3, 64, CAUSAL}, {4096, 4096, 16, 16, 128, CAUSAL}, {2048, 4096, 16, 16, 128, CAUSAL},
};
enum { LARGE = 2 }; // so many of the last are for GPUs alone
static const uint32_t DECODE_BENCH[][OP_SHAPE] = {
    {1, 512, 9, 3, 64}, {1, 4096, 9, 3, 64}, {8, 4096, 9, 3, 64}, {1, 512, 16, 16, 128}, {1, 4096, 16, 16, 128},
};
#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof *(array)))

// Of other types than f32: heads that q8_0 can have.
static const uint32_t CACHED_SHAPES[][OP_SHAPE] = {
    {33, 64, 4, 2, 32, CAUSAL}, {1, 129, 3, 1, 64, CAUSAL}, {64, 70, 4, 1, 64, PACKED}, {7, 129, 4, 4, 96, CAUSAL}};
static const uint32_t CACHED_DECODE_SHAPES[][OP_SHAPE] = {
    {3, 900, 4, 2, 32}, {1, 5, 3, 3, 96}, {8, 2000, 4, 1, 64}, {1, 300, 2, 2, 128}};
// Of a whole workgroup's matrices: heads that they take.
static const uint32_t CM2_SHAPES[][OP_SHAPE] = {
    {65, 130, 4, 2, 64, CAUSAL}, {1, 129, 3, 1, 64, CAUSAL}, {129, 129, 3, 1, 64, PADDED}, {33, 70, 4, 2, 128, FULL}};
// Of the backward's matrices: heads that are whole ones.
static const uint32_t BACK_SHAPES[][OP_SHAPE] = {
    {33, 33, 4, 2, 16, CAUSAL}, {64, 64, 4, 1, 64, PACKED},   {129, 129, 3, 1, 64, PADDED}, {1, 129, 3, 1, 64, CAUSAL},
    {33, 40, 6, 2, 16, PADDED}, {130, 200, 2, 1, 16, PACKED}, {129, 129, 3, 3, 80, PACKED}, {7, 129, 4, 4, 96, CAUSAL},
    {33, 64, 4, 1, 128, FULL},  {65, 130, 6, 2, 128, CAUSAL}, {160, 160, 2, 1, 16, QUIET},
};
static const uint32_t PACK_SHAPES[][OP_SHAPE] = {{33, 64, 3, 1, 16}, {64, 64, 2, 2, 128}, {1, 32, 5, 1, 24}};
static const uint32_t PACK_BENCH[][OP_SHAPE] = {{512, 512, 9, 3, 64}, {4096, 4096, 16, 16, 128}};
#define CM2(name, kernels, type)                                                                                       \
    {                                                                                                                  \
        name, kernels, CM2_SHAPES, COUNT(CM2_SHAPES), BENCH, COUNT(BENCH), "rows,keys,heads,kv_heads,head_dim,layout", \
            run_forward, type, 0, LARGE, 0                                                                             \
    }
#define CACHED(name, kernels, type)                                                                                    \
    {                                                                                                                  \
        name, kernels, CACHED_SHAPES, COUNT(CACHED_SHAPES), BENCH, COUNT(BENCH),                                       \
            "rows,keys,heads,kv_heads,head_dim,layout", run_forward, type, 0, LARGE, 0                                 \
    }
#define CACHED_DECODE(name, type)                                                                                      \
    {                                                                                                                  \
        name, DECODE, CACHED_DECODE_SHAPES, COUNT(CACHED_DECODE_SHAPES), DECODE_BENCH, COUNT(DECODE_BENCH),            \
            "rows,keys,heads,kv_heads,head_dim", run_decode, type, 0, 0, 0                                             \
    }
static const struct OpCase CASES[] = {
    {"attention", FORWARD, SHAPES, NARROW, BENCH, COUNT(BENCH), "rows,keys,heads,kv_heads,head_dim,layout", run_forward,
     DT_F32, 0, LARGE, 0},
    {"attention wide", FORWARD_WIDE, SHAPES + NARROW, 1, BENCH, 0, "rows,keys,heads,kv_heads,head_dim,layout",
     run_forward, DT_F32, 0, 0, 0},
    CACHED("attention f16", FORWARD_F16, DT_F16),
    CACHED("attention bf16", FORWARD_BF16, DT_BF16),
    CACHED("attention q8_0", FORWARD_F16, DT_Q8_0),
    CM2("attention of workgroups", CM2_BF16, DT_F32),
    CM2("attention of workgroups f16", CM2_F16, DT_F16),
    CM2("attention of workgroups bf16", CM2_BF16, DT_BF16),
    {"attention_back", BACKWARD, SHAPES, COUNT(SHAPES), BENCH, COUNT(BENCH), "rows,keys,heads,kv_heads,head_dim,layout",
     run_backward, DT_F32, 0, LARGE, 0},
    {"attention_back of matrices", BACKWARD_MATRIX, BACK_SHAPES, COUNT(BACK_SHAPES), BENCH, COUNT(BENCH),
     "rows,keys,heads,kv_heads,head_dim,layout", run_backward, DT_F32, 0, LARGE, 0},
    {"attention_back pack bf16", PACK, PACK_SHAPES, COUNT(PACK_SHAPES), PACK_BENCH, COUNT(PACK_BENCH),
     "rows,packed,heads,kv_heads,head_dim", run_pack, DT_BF16, 0, 1, 0},
    {"attention_back pack f16", PACK, PACK_SHAPES, COUNT(PACK_SHAPES), PACK_BENCH, 0,
     "rows,packed,heads,kv_heads,head_dim", run_pack, DT_F16, 0, 0, 0},
    {"attention_decode", DECODE, DECODE_SHAPES, COUNT(DECODE_SHAPES), DECODE_BENCH, COUNT(DECODE_BENCH),
     "rows,keys,heads,kv_heads,head_dim", run_decode, DT_F32, 0, 0, 0},
    CACHED_DECODE("attention_decode f16", DT_F16),
    CACHED_DECODE("attention_decode bf16", DT_BF16),
    CACHED_DECODE("attention_decode q8_0", DT_Q8_0),
};

uint32_t opcheck_attention(const struct OpCase **cases) {
    *cases = CASES;
    return COUNT(CASES);
}
