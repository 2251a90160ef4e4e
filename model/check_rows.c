// Checks of rows, and the table of all operations that are neither matrix multiplies nor attention: every module against the double
// reference. Each case makes its inputs, runs the operation once and compares all that it writes; indices must agree exactly.
#include "model/check_rows.h"

// ---- Rows

static float *narrowed(const struct CheckTensor *t) {
    float *out = xmalloc(t->n * sizeof *out);
    for (uint64_t i = 0; i < t->n; i++)
        out[i] = (float)t->value[i];
    return out;
}

// With KEEP the table itself, unpacked to bf16.
static bool run_embed(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    bool unpack = oc->variant & KEEP;
    uint32_t vocab = shape[1], rows = unpack ? vocab : shape[0], dim = shape[2];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    uint32_t *id = uints(rows);
    for (uint32_t i = 0; i < rows; i++)
        id[i] = unpack ? i : i == 2 ? UINT32_MAX : i == 1 ? vocab - 1 : random_below(ck, 1, i, vocab);
    struct CheckTensor *ids = checkrun_values(&r, DT_U32, DIMS(rows), id);
    struct CheckTensor *table = checkrun_random(&r, oc->type, DIMS(vocab, dim), 1);
    float *floats = unpack ? narrowed(table) : NULL;
    struct CheckTensor *stored = unpack ? checkrun_values(&r, DT_BF16, DIMS(rows, dim), floats) : table;
    struct CheckTensor *y =
        unpack ? checkrun_random(&r, DT_BF16, DIMS(rows, dim), 1) : checkrun_output(&r, DIMS(rows, dim));
    y->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_embed(c, unpack ? NULL : &ids->t, &table->t, &y->t);
    ck->bytes = (double)y->t.bytes + (double)rows * (double)dtype_row_bytes(oc->type, dim);
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want = doubles(y->n);
    ref_embed(id, stored->value, rows, dim, vocab, want);
    if (ok)
        checkrun_compare(&r, y, want);
    free(want), free(id), free(floats);
    // A product that falls between two bf16 goes to the one on some devices and to the other on others.
    return finish(&r, ok, unpack ? BOUND_PLAIN : 1e-14);
}

// Segments of equal ids, as the host makes them for op_embed_back.
static uint32_t segments(const uint32_t *id, uint32_t rows, uint32_t vocab, uint32_t *order, uint32_t *start,
                         uint32_t *segment_id) {
    uint32_t n = 0, at = 0;
    for (uint32_t v = 0; v < vocab; v++) {
        uint32_t begin = at;
        for (uint32_t i = 0; i < rows; i++)
            if (id[i] == v)
                order[at++] = i;
        if (at > begin) {
            start[n] = begin;
            segment_id[n++] = v;
        }
    }
    start[n] = at;
    return n;
}

static bool run_embed_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], vocab = shape[1], dim = shape[2];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    uint32_t *id = uints(rows), *order = uints(rows), *start = uints(rows + 1), *segment_id = uints(rows);
    for (uint32_t i = 0; i < rows; i++) // one id in three is the same
        id[i] = i % 3 == 0 ? vocab / 2 : random_below(ck, 1, i, vocab);
    uint32_t counts[4] = {segments(id, rows, vocab, order, start, segment_id), 1, 1, 0};
    struct CheckTensor *dy = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *t_order = checkrun_values(&r, DT_U32, DIMS(rows), order);
    struct CheckTensor *t_start = checkrun_values(&r, DT_U32, DIMS(rows + 1), start);
    struct CheckTensor *t_id = checkrun_values(&r, DT_U32, DIMS(rows), segment_id);
    struct CheckTensor *t_n = checkrun_values(&r, DT_U32, DIMS(4), counts);
    struct CheckTensor *dw = checkrun_random(&r, DT_F32, DIMS(vocab, dim), 1);
    dw->output = true;
    double *want = copied(dw);
    ref_embed_back(id, dy->value, rows, dim, vocab, want);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_embed_back(c, &dy->t, &t_order->t, &t_start->t, &t_id->t, &t_n->t, &dw->t);
    ck->bytes = 4.0 * dim * (rows + 2.0 * counts[0]);
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, dw, want);
    free(want), free(id), free(order), free(start), free(segment_id);
    return finish(&r, ok, BOUND_PLAIN);
}

static bool run_rmsnorm(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(rows, dim), oc->variant & BIG ? 1e4 : 1);
    struct CheckTensor *w = checkrun_random(&r, oc->type, DIMS(dim), 1);
    struct CheckTensor *y = checkrun_output(&r, DIMS(rows, dim));
    struct CheckTensor *rstd = oc->variant & KEEP ? checkrun_output(&r, DIMS(rows)) : NULL;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_rmsnorm(c, &x->t, &w->t, &y->t, rstd ? &rstd->t : NULL, 1e-5f);
    ck->flops = 4.0 * rows * dim, ck->bytes = 8.0 * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want = doubles(y->n), *want_rstd = doubles(rows);
    ref_rmsnorm(x->value, w->value, rows, dim, (double)1e-5f, want, want_rstd);
    if (ok)
        checkrun_compare(&r, y, want);
    if (ok && rstd)
        checkrun_compare(&r, rstd, want_rstd);
    free(want), free(want_rstd);
    return finish(&r, ok, BOUND_PLAIN);
}

static bool run_rmsnorm_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1];
    bool accumulate = oc->variant & ACCUMULATE;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(rows, dim), oc->variant & BIG ? 1e4 : 1);
    struct CheckTensor *w = checkrun_random(&r, oc->type, DIMS(dim), 1);
    double *rstd_value = doubles(rows), *unused = doubles(x->n);
    ref_rmsnorm(x->value, w->value, rows, dim, 1e-5, unused, rstd_value);
    float *rstd_float = xmalloc(rows * sizeof *rstd_float);
    for (uint32_t i = 0; i < rows; i++)
        rstd_float[i] = (float)rstd_value[i];
    struct CheckTensor *rstd = checkrun_values(&r, DT_F32, DIMS(rows), rstd_float);
    struct CheckTensor *dy = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *dx = accumulate ? checkrun_random(&r, DT_F32, DIMS(rows, dim), oc->variant & BIG ? 1e-4 : 1)
                                        : checkrun_output(&r, DIMS(rows, dim));
    dx->output = true;
    struct CheckTensor *dw = oc->variant & KEEP ? checkrun_random(&r, DT_F32, DIMS(dim), 1) : NULL;
    if (dw)
        dw->output = true;
    double *want = accumulate ? copied(dx) : doubles(dx->n), *want_dw = dw ? copied(dw) : NULL;
    ref_rmsnorm_back(x->value, w->value, rstd->value, dy->value, rows, dim, want, want_dw);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_rmsnorm_back(c, &r.arena, &x->t, &w->t, &rstd->t, &dy->t, &dx->t, accumulate, dw ? &dw->t : NULL);
    ck->flops = (dw ? 12.0 : 9.0) * rows * dim, ck->bytes = (12.0 + 4 * accumulate + (dw ? 8 : 0)) * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, dx, want);
    if (ok && dw)
        checkrun_compare(&r, dw, want_dw);
    free(want), free(want_dw), free(rstd_value), free(unused), free(rstd_float);
    return finish(&r, ok, 4 * BOUND_PLAIN);
}

static struct CheckTensor *rope_table(struct CheckRun *r, uint32_t n_positions, uint32_t head_dim) {
    float *angles = xmalloc((size_t)n_positions * head_dim * sizeof *angles);
    for (uint32_t p = 0; p < n_positions; p++)
        for (uint32_t i = 0; i < head_dim / 2; i++) {
            double angle = p * pow(10000, -2.0 * i / head_dim);
            angles[(size_t)p * head_dim + 2 * i] = (float)cos(angle);
            angles[(size_t)p * head_dim + 2 * i + 1] = (float)sin(angle);
        }
    struct CheckTensor *table = checkrun_values(r, DT_F32, DIMS(n_positions, head_dim / 2, 2), angles);
    free(angles);
    return table;
}

static bool run_rope(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], heads = shape[1], head_dim = shape[2], n_positions = rows + 5;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(rows, heads * head_dim), 1);
    x->output = true;
    uint32_t *position = uints(rows);
    struct CheckTensor *positions = indices(&r, 1, rows, n_positions, position);
    struct CheckTensor *table = rope_table(&r, n_positions, head_dim);
    float sign = oc->variant & BACKWARD ? -1 : 1;
    double *want = copied(x);
    ref_rope(want, position, table->value, rows, heads, head_dim, (double)sign);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_rope(c, &x->t, &positions->t, &table->t, heads, sign);
    ck->flops = 3.0 * (double)x->n, ck->bytes = 8.0 * (double)x->n;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, x, want);
    free(want), free(position);
    return finish(&r, ok, BOUND_PLAIN);
}

// What a cache of the case's type holds behind the rows of x, one in five of which have no place in it.
static double *stored_rows(struct CheckRun *r, const struct OpCase *oc, const struct CheckTensor *cache,
                           const double *x, const uint32_t *place, uint32_t rows) {
    uint32_t dim = tensor_cols(&cache->t), others = cache->t.dim[0];
    double *want = copied(cache);
    float *values = xmalloc((size_t)rows * dim * sizeof *values);
    for (uint64_t i = 0; i < (uint64_t)rows * dim; i++)
        values[i] = (float)x[i];
    if (oc->type == DT_Q8_0)
        x = checkrun_values(r, DT_Q8_0, DIMS(rows, dim), values)->value;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < dim && place[i] < others; j++)
            want[(size_t)place[i] * dim + j] = x[(size_t)i * dim + j];
    free(values);
    return want;
}

// q has `heads` heads, k and v a third of them.
static bool run_rope_store(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], heads = shape[1], kv_heads = (heads + 2) / 3, head_dim = shape[2];
    uint32_t n_positions = rows + 5, others = rows + 3, dim = kv_heads * head_dim;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *q = checkrun_random(&r, DT_F32, DIMS(rows, heads * head_dim), 1);
    struct CheckTensor *k = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *v = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *cache_k = checkrun_random(&r, oc->type, DIMS(others, dim), 1);
    struct CheckTensor *cache_v = checkrun_random(&r, oc->type, DIMS(others, dim), 1);
    q->output = k->output = cache_k->output = cache_v->output = true;
    uint32_t *position = uints(rows), *place = uints(rows);
    struct CheckTensor *positions = indices(&r, 1, rows, n_positions, position);
    struct CheckTensor *table = rope_table(&r, n_positions, head_dim);
    for (uint32_t i = 0; i < rows; i++)
        place[i] = i % 5 == 4 ? others : others - 1 - i;
    struct CheckTensor *index = checkrun_values(&r, DT_U32, DIMS(rows), place);
    double *want_q = copied(q), *turned = copied(k);
    ref_rope(want_q, position, table->value, rows, heads, head_dim, 1);
    ref_rope(turned, position, table->value, rows, kv_heads, head_dim, 1);
    double *want_k = stored_rows(&r, oc, cache_k, turned, place, rows);
    double *want_v = stored_rows(&r, oc, cache_v, v->value, place, rows);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_rope_store(c, &q->t, &k->t, &v->t, &positions->t, &table->t, heads, kv_heads, &index->t, &cache_k->t,
                  &cache_v->t);
    ck->flops = 3.0 * (double)(q->n + k->n), ck->bytes = 8.0 * (double)(q->n + k->n + v->n);
    bool ok = checkrun_execute(&r, cmd_end(c));
    double q_nmse = 0;
    if (ok) {
        checkrun_compare(&r, q, want_q);
        q_nmse = ck->nmse;
        checkrun_compare(&r, cache_k, want_k);
        checkrun_compare(&r, cache_v, want_v);
    }
    if (q_nmse > BOUND_PLAIN) // q stays f32
        ck->nmse = INFINITY;
    free(want_q), free(turned), free(want_k), free(want_v), free(position), free(place);
    // Half a unit in the last place of 16-bit numbers: 2^-11 and 2^-8 at the most, squared. A quotient that falls between two quants of q8_0
    // goes to the one on some devices and to the other on others.
    return finish(&r, ok,
                  oc->type == DT_F16    ? 2.4e-7
                  : oc->type == DT_BF16 ? 1.6e-5
                  : oc->type == DT_Q8_0 ? 1e-5
                                        : BOUND_PLAIN);
}

static bool run_swiglu(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *gate = checkrun_random(&r, DT_F32, DIMS(rows, dim), oc->variant & BIG ? 1e4 : 2);
    struct CheckTensor *up = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *h = checkrun_output(&r, DIMS(rows, dim));
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_swiglu(c, &gate->t, &up->t, &h->t);
    ck->flops = 16.0 * rows * dim, ck->bytes = 12.0 * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want = doubles(h->n);
    ref_swiglu(gate->value, up->value, h->n, want);
    if (ok)
        checkrun_compare(&r, h, want);
    free(want);
    return finish(&r, ok, BOUND_EXP);
}

static bool run_swiglu_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *gate = checkrun_random(&r, DT_F32, DIMS(rows, dim), oc->variant & BIG ? 1e4 : 2);
    struct CheckTensor *up = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *dh = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    double *dgate = doubles(gate->n), *dup = doubles(gate->n), *h = doubles(gate->n);
    ref_swiglu(gate->value, up->value, gate->n, h);
    ref_swiglu_back(gate->value, up->value, dh->value, gate->n, dgate, dup);
    gate->output = up->output = dh->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_swiglu_back(c, &gate->t, &up->t, &dh->t, oc->variant & KEEP);
    ck->flops = 24.0 * rows * dim, ck->bytes = (oc->variant & KEEP ? 24.0 : 20.0) * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        checkrun_compare(&r, gate, dgate);
        checkrun_compare(&r, up, dup);
        if (oc->variant & KEEP)
            checkrun_compare(&r, dh, h);
    }
    free(dgate), free(dup), free(h);
    return finish(&r, ok, BOUND_EXP);
}

static bool run_add(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t n = shape[0] * shape[1];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *a = checkrun_random(&r, DT_F32, DIMS(n), 1), *b = checkrun_random(&r, DT_F32, DIMS(n), 1);
    struct CheckTensor *y = oc->variant & ACCUMULATE ? a : checkrun_output(&r, DIMS(n));
    double *want = doubles(n);
    for (uint32_t i = 0; i < n; i++)
        want[i] = a->value[i] + b->value[i];
    y->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_add(c, &a->t, &b->t, &y->t);
    ck->flops = n, ck->bytes = 12.0 * n;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, y, want);
    free(want);
    return finish(&r, ok, BOUND_PLAIN);
}

// The twin of noise.comp's centred().
static double centred(uint32_t word) { return ((double)(word >> 8 << 1 | 1) - 0x1p24) / 0x1p24; }

static bool run_noise(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1], key[4] = {7, 11, 3, 0}, words[4];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    uint32_t *position = uints(rows), *example = uints(2 * (size_t)rows);
    struct CheckTensor *t_position = indices(&r, 1, rows, 4096, position);
    for (uint32_t i = 0; i < rows; i++) { // one in five is padding
        float scale = i % 5 == 4 ? 0 : 0.01f * (float)(1 + i % 7);
        example[2 * i] = random_below(ck, 2, i, 1024);
        memcpy(&example[2 * i + 1], &scale, sizeof scale);
    }
    struct CheckTensor *t_example = checkrun_values(&r, DT_U32, DIMS(rows, 2), example);
    struct CheckTensor *t_key = checkrun_values(&r, DT_U32, DIMS(4), key);
    x->output = true;
    double *want = copied(x);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < dim; j++) {
            float scale;
            memcpy(&scale, &example[2 * i + 1], sizeof scale);
            philox(key[0] | (uint64_t)key[1] << 32, example[2 * i] | (uint64_t)key[2] << 32,
                   position[i] | (uint64_t)(j / 4 | 0x80000000u) << 32, words);
            want[(size_t)i * dim + j] += (double)scale * centred(words[j % 4]);
        }
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_noise(c, &x->t, &t_position->t, &t_example->t, &t_key->t);
    ck->flops = 30.0 * rows * dim, ck->bytes = 8.0 * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, x, want);
    free(want), free(position), free(example);
    return finish(&r, ok, 1e-14);
}

static bool run_bias(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1];
    bool back = oc->variant & BACKWARD;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *y = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *bias = checkrun_random(&r, DT_F32, DIMS(dim), 1), *out = back ? bias : y;
    double *want = copied(out);
    if (back)
        ref_bias_back(y->value, rows, dim, want);
    else
        ref_bias(want, bias->value, rows, dim);
    out->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    if (back)
        op_bias_back(c, &r.arena, &y->t, &bias->t);
    else
        op_bias(c, &y->t, &bias->t);
    ck->flops = 1.0 * rows * dim, ck->bytes = (back ? 4.0 : 8.0) * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, out, want);
    free(want);
    return finish(&r, ok, 4 * BOUND_PLAIN);
}

static bool run_gate(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], dim = shape[1];
    bool back = oc->variant & BACKWARD;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *gate = checkrun_random(&r, DT_F32, DIMS(rows, 1), oc->variant & BIG ? 1e4 : 2);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(rows, dim), 1);
    struct CheckTensor *dy = back ? checkrun_random(&r, DT_F32, DIMS(rows, dim), 1) : NULL;
    struct CheckTensor *out = checkrun_output(&r, DIMS(rows, back ? 1 : dim));
    double *want = doubles(out->n), *want_dx = doubles(x->n);
    x->output = back;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    if (back) {
        ref_gate_back(gate->value, x->value, dy->value, rows, dim, want, want_dx);
        op_gate_back(c, &gate->t, &dy->t, &x->t, &out->t);
    } else {
        ref_gate(gate->value, x->value, rows, dim, want);
        op_gate(c, &gate->t, &x->t, &out->t);
    }
    ck->flops = (back ? 3.0 : 1.0) * rows * dim, ck->bytes = (back ? 12.0 : 8.0) * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, out, want);
    if (ok && back)
        checkrun_compare(&r, x, want_dx);
    free(want), free(want_dx);
    return finish(&r, ok, 10 * BOUND_EXP);
}

// Words of any bits: fill and copy know no numbers.
static bool run_words(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t n = shape[0];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(n), 1), *y = checkrun_output(&r, DIMS(n));
    double *want = doubles(n);
    for (uint32_t i = 0; i < n; i++)
        want[i] = oc->variant & KEEP ? x->value[i] : 2;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    if (oc->variant & KEEP)
        cmd_copy(c, &x->t, &y->t);
    else
        cmd_fill(c, &y->t, 0x40000000); // 2.0
    ck->bytes = (oc->variant & KEEP ? 8.0 : 4.0) * n;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, y, want);
    free(want);
    return finish(&r, ok, 0);
}

static bool run_move_rows(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], others = shape[1], dim = shape[2];
    bool scatter = oc->variant & BACKWARD, all = oc->variant & KEEP;
    if (all)
        others = rows;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    uint32_t *index = uints(rows);
    for (uint32_t i = 0; i < rows; i++) // scattered rows are distinct: a stride prime to every size in use
        index[i] = all          ? i
                   : i % 5 == 4 ? UINT32_MAX
                   : scatter    ? (uint32_t)((uint64_t)i * 7919 % others)
                                : random_below(ck, 1, i, others);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(scatter ? rows : others, dim), 1);
    struct CheckTensor *t_index = checkrun_values(&r, DT_U32, DIMS(rows), index), *stored = x;
    float *floats = NULL;
    struct CheckTensor *y = scatter || oc->type != DT_F32
                                ? checkrun_random(&r, oc->type, DIMS(scatter ? others : rows, dim), 1)
                                : checkrun_output(&r, DIMS(rows, dim));
    if (oc->type != DT_F32) // what x becomes in the type of y
        stored = checkrun_values(&r, oc->type, DIMS(others, dim), floats = narrowed(x));
    double *want = scatter ? copied(y) : doubles(y->n);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < dim && index[i] != UINT32_MAX; j++) {
            uint64_t from = (uint64_t)(scatter ? i : index[i]) * dim + j,
                     to = (uint64_t)(scatter ? index[i] : i) * dim + j;
            want[to] = stored->value[from] + (oc->variant & ACCUMULATE ? want[to] : 0);
        }
    y->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    if (scatter)
        op_scatter_rows(c, &x->t, &t_index->t, &y->t, oc->variant & ACCUMULATE);
    else
        op_gather_rows(c, &x->t, all ? NULL : &t_index->t, &y->t);
    ck->bytes = 8.0 * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, y, want);
    free(want), free(index), free(floats);
    return finish(&r, ok, BOUND_PLAIN);
}

// ---- Operands of f16 matrix units

static uint32_t magnitude_bits(double x) {
    float narrow = (float)fabs(x);
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    return bits;
}

// Rows of x, some of them far from f16's range, in order and brought to it.
static bool run_pack_rows(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], others = shape[1], dim = shape[2], wide = (uint32_t)align_up(dim, 8);
    struct CheckRun r;
    checkrun_begin(&r, ck);
    uint32_t *index = uints(rows);
    float *x_floats = xcalloc((uint64_t)others * dim, sizeof *x_floats);
    float *floats = xcalloc((uint64_t)rows * wide, sizeof *floats);
    double *peaks = doubles(rows);
    for (uint64_t i = 0; i < (uint64_t)others * dim; i++)
        x_floats[i] = ldexpf(random_normal(ck->seed, 1, i), (int)(i / dim % 7) * 30 - 90);
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t peak = 0;
        index[i] = i % 5 == 4 ? UINT32_MAX : random_below(ck, 1, i, others);
        if (index[i] == UINT32_MAX) // zeros, and so is their peak
            continue;
        const float *from = &x_floats[(uint64_t)index[i] * dim];
        for (uint32_t j = 0; j < dim; j++)
            peak = (uint32_t)max_u64(peak, magnitude_bits((double)from[j]));
        peaks[i] = peak;
        for (uint32_t j = 0; j < dim; j++)
            floats[(uint64_t)i * wide + j] = ldexpf(from[j], 141 - (int)max_u64(peak >> 23, 15));
    }
    struct CheckTensor *x = checkrun_values(&r, DT_F32, DIMS(others, dim), x_floats);
    struct CheckTensor *t_index = checkrun_values(&r, DT_U32, DIMS(rows), index);
    struct CheckTensor *want = checkrun_values(&r, DT_F16, DIMS(rows, wide), floats);
    struct CheckTensor *y = checkrun_random(&r, DT_F16, DIMS(rows, wide), 1);
    struct CheckTensor *peak = checkrun_output_u32(&r, DIMS(rows));
    y->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_pack_rows(c, &x->t, &t_index->t, &(struct Operand){y->t, peak->t});
    ck->bytes = 6.0 * rows * dim;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        checkrun_compare(&r, y, want->value);
        checkrun_compare(&r, peak, peaks);
    }
    free(index), free(x_floats), free(floats), free(peaks);
    return finish(&r, ok, 1e-14);
}

// Of stacked matrices, by rows, or with BACKWARD by columns of each.
static bool run_peaks(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t stacks = shape[0], rows = shape[1], cols = shape[2];
    bool columns = oc->variant & BACKWARD;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *w = checkrun_random(&r, oc->type, DIMS(stacks, rows, cols), 1);
    struct CheckTensor *peak = checkrun_output_u32(&r, DIMS(stacks * (columns ? cols : rows)));
    double *want = doubles(peak->n);
    for (uint64_t i = 0; i < w->n; i++) {
        uint64_t to = columns ? i / cols / rows * cols + i % cols : i / cols;
        want[to] = fmax(want[to], magnitude_bits(w->value[i]));
    }
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_peaks(c, &w->t, columns, &peak->t);
    ck->bytes = (double)w->t.bytes;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, peak, want);
    free(want);
    return finish(&r, ok, 1e-14);
}

// ---- The table

#define KERNELS_OF(name, ...) static const int name[] = {__VA_ARGS__, -1};
KERNELS_OF(K_EMBED, KERNEL_embed)
KERNELS_OF(K_EMBED_BACK, KERNEL_embed_back)
KERNELS_OF(K_NOISE, KERNEL_noise)
KERNELS_OF(K_RMSNORM, KERNEL_rmsnorm, KERNEL_rmsnorm_base)
KERNELS_OF(K_RMSNORM_PAIRS, KERNEL_rmsnorm_cpu)
KERNELS_OF(K_RMSNORM_BACK, KERNEL_rmsnorm_back, KERNEL_rmsnorm_back_base)
KERNELS_OF(K_RMSNORM_BACK_PAIRS, KERNEL_rmsnorm_back_cpu)
KERNELS_OF(K_COLUMN_SUM, KERNEL_column_sum)
KERNELS_OF(K_COLUMN_SUM_PAIRS, KERNEL_column_sum_cpu)
KERNELS_OF(K_ROPE, KERNEL_rope)
KERNELS_OF(K_ROPE_PAIRS, KERNEL_rope_cpu)
KERNELS_OF(K_SWIGLU, KERNEL_swiglu)
KERNELS_OF(K_SWIGLU_PAIRS, KERNEL_swiglu_cpu)
KERNELS_OF(K_SWIGLU_BACK, KERNEL_swiglu_back)
KERNELS_OF(K_SWIGLU_BACK_PAIRS, KERNEL_swiglu_back_cpu)
KERNELS_OF(K_ADD, KERNEL_add)
KERNELS_OF(K_ADD_PAIRS, KERNEL_add_cpu)
KERNELS_OF(K_FILL, KERNEL_fill, KERNEL_fill_cpu)
KERNELS_OF(K_COPY, KERNEL_copy)
KERNELS_OF(K_BIAS, KERNEL_bias)
KERNELS_OF(K_GATE, KERNEL_gate)
KERNELS_OF(K_GATE_BACK, KERNEL_gate_back, KERNEL_gate_back_base)
KERNELS_OF(K_GATHER, KERNEL_gather_rows)
KERNELS_OF(K_PEAKS, KERNEL_peaks)
KERNELS_OF(K_SCATTER, KERNEL_scatter_rows)
KERNELS_OF(K_ROUTE, KERNEL_route, KERNEL_route_base)
KERNELS_OF(K_ROUTE_BACK, KERNEL_route_back, KERNEL_route_back_base)
KERNELS_OF(K_SORT, KERNEL_sort)
KERNELS_OF(K_REMAP, KERNEL_remap)
KERNELS_OF(K_BALANCE, KERNEL_balance)
KERNELS_OF(K_COMBINE, KERNEL_combine)
KERNELS_OF(K_COMBINE_PAIRS, KERNEL_combine_cpu)
KERNELS_OF(K_EXPERT_SWIGLU_BACK, KERNEL_expert_swiglu_back, KERNEL_expert_swiglu_back_base)
KERNELS_OF(K_EXPERT_SWIGLU_BACK_PAIRS, KERNEL_expert_swiglu_back_cpu)
KERNELS_OF(K_XENT, KERNEL_xent, KERNEL_xent_base)
KERNELS_OF(K_SUM, KERNEL_sum, KERNEL_sum_base, KERNEL_sum_cpu)
KERNELS_OF(K_NORM, KERNEL_norm_finish, KERNEL_norm_finish_base)
KERNELS_OF(K_ADAMW, KERNEL_adamw)
KERNELS_OF(K_ADAMW_PAIRS, KERNEL_adamw_cpu)
KERNELS_OF(K_SAMPLE, KERNEL_sample, KERNEL_sample_base)
KERNELS_OF(K_ARGMAX, KERNEL_argmax, KERNEL_argmax_base)
KERNELS_OF(K_LOGIT_BIAS, KERNEL_logit_bias)
KERNELS_OF(K_MASK_LOGITS, KERNEL_mask_logits)
KERNELS_OF(K_PENALTY, KERNEL_penalty)
KERNELS_OF(K_FOLLOW, KERNEL_follow)

// The first shape of each list is the known-answer shape.
static const uint32_t TABLE[][OP_SHAPE] = {{7, 33, 64}, {1, 1, 32}, {129, 70, 96}, {3, 9, 576}, {2, 5, 2048}};
static const uint32_t TABLE_SUPER[][OP_SHAPE] = {{7, 33, 256}, {1, 1, 768}, {129, 70, 512}, {2, 5, 2048}};
static const uint32_t UNPACK_BENCH[][OP_SHAPE] = {{1, 4096, 2048}};
static const uint32_t TABLE_BENCH[][OP_SHAPE] = {{512, 4096, 768}, {1, 4096, 768}, {4096, 4096, 2048}};
static const uint32_t ROWS[][OP_SHAPE] = {{7, 576},   {1, 8},   {1, 24},    {33, 24},
                                          {64, 2048}, {129, 8}, {3, 10944}, {300, 40}};
static const uint32_t ROWS_16[][OP_SHAPE] = {{7, 576}, {1, 16}, {33, 48}, {64, 2048}, {3, 10944}, {300, 80}};
static const uint32_t ROWS_BENCH[][OP_SHAPE] = {{512, 576}, {1, 576}, {4096, 2048}};
static const uint32_t HIDDEN_BENCH[][OP_SHAPE] = {{512, 1536}, {1, 1536}, {4096, 1408}};
static const uint32_t FLAT[][OP_SHAPE] = {{7, 24}, {1, 8}, {129, 72}, {3, 10944}, {64, 576}, {1, 4}};
static const uint32_t FLAT_16[][OP_SHAPE] = {{7, 16}, {1, 16}, {129, 80}, {3, 10944}, {64, 576}};
static const uint32_t REMAPS[][OP_SHAPE] = {{42, 9, 64}, {1, 1, 1}, {300, 129, 7}, {7, 70, 256}};
static const uint32_t REMAPS_BENCH[][OP_SHAPE] = {{3072, 112, 64}, {6, 6, 64}};
static const uint32_t STORES[][OP_SHAPE] = {{7, 33, 96}, {1, 1, 32}, {129, 200, 64}, {33, 70, 1024}, {2, 9, 2080}};
static const uint32_t STORES_BENCH[][OP_SHAPE] = {{512, 4096, 192}, {1, 4096, 2048}};
static const uint32_t UNEVEN[][OP_SHAPE] = {{1, 33}, {1, 1}, {7, 7}, {1, 129}, {5, 1001}};
static const uint32_t HEADS[][OP_SHAPE] = {{7, 3, 64}, {1, 1, 8}, {33, 9, 64}, {5, 2, 24}, {129, 1, 128}, {2, 1, 256}};
static const uint32_t HEADS_16[][OP_SHAPE] = {{7, 3, 64}, {1, 1, 32}, {33, 9, 96}, {129, 1, 128}, {2, 1, 256}};
static const uint32_t BLOCK_HEADS[][OP_SHAPE] = {{7, 3, 64}, {1, 1, 32}, {33, 9, 96}, {129, 4, 128}, {2, 5, 256}};
static const uint32_t HEADS_BENCH[][OP_SHAPE] = {{512, 9, 64}, {1, 9, 64}, {4096, 16, 128}};
static const uint32_t MOVES[][OP_SHAPE] = {{7, 9, 24}, {1, 1, 8}, {33, 64, 576}, {64, 129, 40}, {3, 3, 10944}};
static const uint32_t PACKS[][OP_SHAPE] = {{7, 9, 24}, {1, 1, 8}, {33, 64, 577}, {64, 129, 42}, {3, 3, 10940}};
static const uint32_t STACKS[][OP_SHAPE] = {{3, 33, 96}, {1, 1, 32}, {2, 129, 64}, {1, 200, 1056}};
static const uint32_t NARROW[][OP_SHAPE] = {{3, 33, 7}, {1, 1, 1}, {2, 129, 65}, {1, 200, 1001}};
static const uint32_t STACKS_BENCH[][OP_SHAPE] = {{64, 1408, 2048}, {1, 2048, 2048}};
static const uint32_t MOVES_BENCH[][OP_SHAPE] = {{512, 1024, 192}, {4096, 8192, 2048}};
static const uint32_t ROUTER[][OP_SHAPE] = {{7, 64, 6},   {1, 1, 1},    {1, 8, 2}, {33, 7, 3},
                                            {129, 16, 1}, {64, 256, 8}, {9, 5, 5}, {2, 160, 6}};
static const uint32_t MANY[][OP_SHAPE] = {{33, 7, 3}, {129, 16, 1}, {64, 256, 8}, {9, 5, 5}, {700, 64, 6}};
static const uint32_t MANY_BENCH[][OP_SHAPE] = {{512, 64, 6}, {16384, 64, 6}};
static const uint32_t ROUTER_BENCH[][OP_SHAPE] = {{512, 64, 6}, {1, 64, 6}, {16384, 64, 6}};
static const uint32_t GROUPS[][OP_SHAPE] = {
    {33, 8, 2, 1}, {1, 1, 1, 1}, {129, 64, 6, 3}, {700, 16, 2, 2}, {64, 256, 8, 5}};
static const uint32_t GROUPS_BENCH[][OP_SHAPE] = {{512, 64, 6, 1}, {512, 64, 6, 8}, {16384, 64, 6, 16}};
static const uint32_t SLOTS[][OP_SHAPE] = {
    {7, 8, 2, 24}, {1, 1, 1, 8}, {33, 64, 6, 576}, {129, 16, 3, 40}, {3, 4, 2, 2048}};
static const uint32_t SLOTS_16[][OP_SHAPE] = {
    {7, 8, 2, 32}, {1, 1, 1, 16}, {33, 64, 6, 576}, {129, 16, 3, 96}, {3, 4, 2, 2048}};
static const uint32_t SLOTS_BENCH[][OP_SHAPE] = {{512, 64, 6, 576}, {1, 64, 6, 576}, {4096, 64, 6, 2048}};
static const uint32_t VOCAB[][OP_SHAPE] = {{7, 1000}, {1, 1}, {5, 33}, {3, 49152}, {2, 32001}, {4, 256}, {2, 102400}};
static const uint32_t VOCAB_BENCH[][OP_SHAPE] = {{128, 49152}, {1, 49152}, {64, 102400}};
static const uint32_t DECODE_BENCH[][OP_SHAPE] = {{1, 49152}, {8, 49152}, {1, 102400}};
static const uint32_t COUNTS[][OP_SHAPE] = {{129}, {1}, {7}, {33}, {16384}, {16385}, {100003}};
static const uint32_t COUNTS_BENCH[][OP_SHAPE] = {{512}, {884736}, {28311552}};
static const uint32_t FOLLOWS[][OP_SHAPE] = {{7}, {1}, {32}, {129}};
static const uint32_t FOLLOWS_BENCH[][OP_SHAPE] = {{1}, {8}};
static const uint32_t EIGHTS[][OP_SHAPE] = {{264}, {8}, {24}, {10944}, {331776}};
static const uint32_t EIGHTS_16[][OP_SHAPE] = {{272}, {16}, {64}, {10944}, {331776}};
static const uint32_t EIGHTS_BENCH[][OP_SHAPE] = {{884736}, {28311552}};

#define SHAPES(odd, real)                                                                                              \
    .shapes = odd, .n_shapes = sizeof odd / sizeof *odd, .bench = real, .n_bench = sizeof real / sizeof *real
#define CASE(text, list, odd, real, names, function, ...)                                                              \
    { .name = text, .kernels = list, SHAPES(odd, real), .shape_names = names, .run = function, __VA_ARGS__ }

// Also the body whose lanes have pairs, which takes sixteens of elements, of half a head too.
#define BOTH(text, list, odd, ...)                                                                                     \
    CASE(text, list, odd, __VA_ARGS__), CASE(text, list##_PAIRS, odd##_16, __VA_ARGS__, .divides_last = 32)

#define EMBED(token, dtype, odd)                                                                                       \
    CASE("embed " #token, K_EMBED, odd, TABLE_BENCH, "rows,vocab,dim", run_embed, .type = dtype)

uint32_t opcheck_rows(const struct OpCase **cases) {
    static const struct OpCase CASES[] = {
        CASE("fill", K_FILL, COUNTS, COUNTS_BENCH, "n", run_words),
        CASE("copy", K_COPY, COUNTS, COUNTS_BENCH, "n", run_words, .variant = KEEP),
        EMBED(f32, DT_F32, TABLE),
        EMBED(f16, DT_F16, TABLE),
        EMBED(bf16, DT_BF16, TABLE),
        EMBED(q4_0, DT_Q4_0, TABLE),
        EMBED(q4_1, DT_Q4_1, TABLE),
        EMBED(q8_0, DT_Q8_0, TABLE),
        EMBED(q5_0, DT_Q5_0, TABLE),
        EMBED(q5_1, DT_Q5_1, TABLE),
        EMBED(q2_k, DT_Q2_K, TABLE_SUPER),
        EMBED(q3_k, DT_Q3_K, TABLE_SUPER),
        EMBED(q4_k, DT_Q4_K, TABLE_SUPER),
        EMBED(q5_k, DT_Q5_K, TABLE_SUPER),
        EMBED(q6_k, DT_Q6_K, TABLE_SUPER),
        EMBED(iq4_nl, DT_IQ4_NL, TABLE),
        EMBED(iq4_xs, DT_IQ4_XS, TABLE_SUPER),
        CASE("unpack q4_0", K_EMBED, TABLE, UNPACK_BENCH, "rows,vocab,dim", run_embed, .type = DT_Q4_0,
             .variant = KEEP),
        CASE("unpack q6_k", K_EMBED, TABLE_SUPER, UNPACK_BENCH, "rows,vocab,dim", run_embed, .type = DT_Q6_K,
             .variant = KEEP),
        CASE("embed_back", K_EMBED_BACK, TABLE, TABLE_BENCH, "rows,vocab,dim", run_embed_back),
        BOTH("rmsnorm f32", K_RMSNORM, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm, .type = DT_F32),
        BOTH("rmsnorm f32 keep", K_RMSNORM, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm, .type = DT_F32, .variant = KEEP),
        BOTH("rmsnorm f16 big", K_RMSNORM, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm, .type = DT_F16, .variant = BIG),
        BOTH("rmsnorm bf16", K_RMSNORM, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm, .type = DT_BF16),
        BOTH("rmsnorm_back", K_RMSNORM_BACK, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm_back, .type = DT_F32),
        BOTH("rmsnorm_back add big", K_RMSNORM_BACK, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm_back, .type = DT_BF16,
             .variant = ACCUMULATE | BIG),
        BOTH("rmsnorm_back add dw", K_COLUMN_SUM, ROWS, ROWS_BENCH, "rows,dim", run_rmsnorm_back, .type = DT_F32,
             .variant = ACCUMULATE | KEEP),
        BOTH("rope", K_ROPE, HEADS, HEADS_BENCH, "rows,heads,head_dim", run_rope),
        BOTH("rope back", K_ROPE, HEADS, HEADS_BENCH, "rows,heads,head_dim", run_rope, .variant = BACKWARD),
        CASE("rope store f32", K_ROPE, HEADS, HEADS_BENCH, "rows,heads,head_dim", run_rope_store),
        CASE("rope store f16", K_ROPE, HEADS, HEADS_BENCH, "rows,heads,head_dim", run_rope_store, .type = DT_F16),
        CASE("rope store bf16", K_ROPE, HEADS, HEADS_BENCH, "rows,heads,head_dim", run_rope_store, .type = DT_BF16),
        CASE("rope store q8_0", K_ROPE, BLOCK_HEADS, HEADS_BENCH, "rows,heads,head_dim", run_rope_store,
             .type = DT_Q8_0),
        BOTH("swiglu", K_SWIGLU, FLAT, HIDDEN_BENCH, "rows,dim", run_swiglu),
        BOTH("swiglu big", K_SWIGLU, FLAT, HIDDEN_BENCH, "rows,dim", run_swiglu, .variant = BIG),
        BOTH("swiglu_back", K_SWIGLU_BACK, FLAT, HIDDEN_BENCH, "rows,dim", run_swiglu_back),
        BOTH("swiglu_back keep", K_SWIGLU_BACK, FLAT, HIDDEN_BENCH, "rows,dim", run_swiglu_back, .variant = KEEP),
        BOTH("swiglu_back big", K_SWIGLU_BACK, FLAT, HIDDEN_BENCH, "rows,dim", run_swiglu_back, .variant = KEEP | BIG),
        BOTH("add", K_ADD, FLAT, ROWS_BENCH, "rows,dim", run_add),
        CASE("add in place", K_ADD, UNEVEN, ROWS_BENCH, "rows,dim", run_add, .variant = ACCUMULATE),
        CASE("noise", K_NOISE, ROWS, ROWS_BENCH, "rows,dim", run_noise),
        CASE("bias", K_BIAS, ROWS, ROWS_BENCH, "rows,dim", run_bias),
        BOTH("bias back", K_COLUMN_SUM, ROWS, ROWS_BENCH, "rows,dim", run_bias, .variant = BACKWARD),
        CASE("gate", K_GATE, ROWS, ROWS_BENCH, "rows,dim", run_gate),
        CASE("gate big", K_GATE, ROWS, ROWS_BENCH, "rows,dim", run_gate, .variant = BIG),
        CASE("gate_back", K_GATE_BACK, ROWS, ROWS_BENCH, "rows,dim", run_gate, .variant = BACKWARD),
        CASE("gather_rows", K_GATHER, MOVES, MOVES_BENCH, "rows,others,dim", run_move_rows),
        CASE("gather_rows bf16", K_GATHER, STORES, STORES_BENCH, "rows,others,dim", run_move_rows, .type = DT_BF16),
        CASE("gather_rows f16 all", K_GATHER, STORES, STORES_BENCH, "rows,others,dim", run_move_rows, .type = DT_F16,
             .variant = KEEP),
        CASE("pack_rows f16", K_GATHER, PACKS, MOVES_BENCH, "rows,others,dim", run_pack_rows),
        CASE("peaks f32", K_PEAKS, STACKS, STACKS_BENCH, "matrices,rows,cols", run_peaks, .type = DT_F32),
        CASE("peaks bf16", K_PEAKS, STACKS, STACKS_BENCH, "matrices,rows,cols", run_peaks, .type = DT_BF16),
        CASE("peaks q4_0", K_PEAKS, STACKS, STACKS_BENCH, "matrices,rows,cols", run_peaks, .type = DT_Q4_0),
        CASE("peaks f32 columns", K_PEAKS, NARROW, STACKS_BENCH, "matrices,rows,cols", run_peaks, .type = DT_F32,
             .variant = BACKWARD),
        CASE("peaks bf16 columns", K_PEAKS, STACKS, STACKS_BENCH, "matrices,rows,cols", run_peaks, .type = DT_BF16,
             .variant = BACKWARD),
        CASE("peaks q4_0 columns", K_PEAKS, STACKS, STACKS_BENCH, "matrices,rows,cols", run_peaks, .type = DT_Q4_0,
             .variant = BACKWARD),
        CASE("scatter_rows", K_SCATTER, MOVES, MOVES_BENCH, "rows,others,dim", run_move_rows, .variant = BACKWARD),
        CASE("scatter_rows add", K_SCATTER, MOVES, MOVES_BENCH, "rows,others,dim", run_move_rows,
             .variant = BACKWARD | ACCUMULATE),
        CASE("route", K_ROUTE, ROUTER, ROUTER_BENCH, "tokens,experts,active", check_route),
        CASE("route norm", K_ROUTE, ROUTER, ROUTER_BENCH, "tokens,experts,active", check_route, .variant = NORM_TOPK),
        CASE("route ties", K_ROUTE, ROUTER, ROUTER_BENCH, "tokens,experts,active", check_route, .variant = TIES),
        CASE("route huge", K_ROUTE, ROUTER, ROUTER_BENCH, "tokens,experts,active", check_route,
             .variant = HUGE_LOGITS | NORM_TOPK),
        CASE("route_back", K_ROUTE_BACK, ROUTER, ROUTER_BENCH, "tokens,experts,active", check_route_back),
        CASE("route_back norm balance", K_ROUTE_BACK, ROUTER, ROUTER_BENCH, "tokens,experts,active", check_route_back,
             .variant = NORM_TOPK | WITH_BALANCE),
        CASE("sort", K_SORT, MANY, MANY_BENCH, "tokens,experts,active", check_sort),
        CASE("sort one expert", K_SORT, MANY, MANY_BENCH, "tokens,experts,active", check_sort, .variant = ONE_EXPERT),
        CASE("remap", K_REMAP, REMAPS, REMAPS_BENCH, "rows,tiles,experts", check_remap),
        CASE("balance", K_BALANCE, GROUPS, GROUPS_BENCH, "tokens,experts,active,groups", check_balance),
        BOTH("combine", K_COMBINE, SLOTS, SLOTS_BENCH, "tokens,experts,active,dim", check_combine),
        BOTH("combine fused", K_COMBINE, SLOTS, SLOTS_BENCH, "tokens,experts,active,dim", check_combine,
             .variant = FUSED),
        BOTH("gather_back", K_COMBINE, SLOTS, SLOTS_BENCH, "tokens,experts,active,dim", check_combine,
             .variant = PLAIN_WEIGHTS | FUSED),
        BOTH("expert_swiglu_back", K_EXPERT_SWIGLU_BACK, SLOTS, SLOTS_BENCH, "tokens,experts,active,width",
             check_expert_swiglu_back),
        CASE("xent", K_XENT, VOCAB, VOCAB_BENCH, "rows,vocab", check_xent),
        CASE("xent weighted", K_XENT, VOCAB, VOCAB_BENCH, "rows,vocab", check_xent, .variant = WEIGHTED),
        CASE("xent back", K_XENT, VOCAB, VOCAB_BENCH, "rows,vocab", check_xent, .variant = BACKWARD),
        CASE("xent back weighted", K_XENT, VOCAB, VOCAB_BENCH, "rows,vocab", check_xent,
             .variant = BACKWARD | WEIGHTED),
        CASE("xent back big", K_XENT, VOCAB, VOCAB_BENCH, "rows,vocab", check_xent, .variant = BACKWARD | BIG),
        CASE("sum", K_SUM, COUNTS, COUNTS_BENCH, "n", check_sum),
        CASE("norm", K_NORM, COUNTS, COUNTS_BENCH, "n", check_norm),
        CASE("norm no clip", K_SUM, COUNTS, COUNTS_BENCH, "n", check_norm, .variant = KEEP | BIG),
        BOTH("adamw f32", K_ADAMW, EIGHTS, EIGHTS_BENCH, "n", check_adamw, .type = DT_F32),
        BOTH("adamw bf16", K_ADAMW, EIGHTS, EIGHTS_BENCH, "n", check_adamw, .type = DT_BF16),
        CASE("argmax", K_ARGMAX, VOCAB, DECODE_BENCH, "rows,vocab", check_argmax),
        CASE("argmax ties", K_ARGMAX, VOCAB, DECODE_BENCH, "rows,vocab", check_argmax, .variant = TIES),
        CASE("logit_bias", K_LOGIT_BIAS, VOCAB, DECODE_BENCH, "rows,vocab", check_logit_bias),
        CASE("mask_logits", K_MASK_LOGITS, VOCAB, DECODE_BENCH, "rows,vocab", check_mask_logits, .variant = 1),
        CASE("mask_logits none", K_MASK_LOGITS, VOCAB, DECODE_BENCH, "rows,vocab", check_mask_logits),
        CASE("penalty", K_PENALTY, VOCAB, DECODE_BENCH, "rows,vocab", check_penalty),
        CASE("follow", K_FOLLOW, FOLLOWS, FOLLOWS_BENCH, "rows", check_follow),
        CASE("sample greedy", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 0),
        CASE("sample warm", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 1),
        CASE("sample top-k", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 2),
        CASE("sample top-p", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 3),
        CASE("sample all", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 4),
        CASE("sample wide", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 5),
        CASE("sample typical", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 6),
        CASE("sample filters", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 7),
        CASE("sample mirostat", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample, .variant = 8),
        CASE("sample greedy parts", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample,
             .variant = 0 | SAMPLE_PARTS),
        CASE("sample all parts", K_SAMPLE, VOCAB, DECODE_BENCH, "rows,vocab", check_sample,
             .variant = 4 | SAMPLE_PARTS),
    };
    *cases = CASES;
    return sizeof CASES / sizeof *CASES;
}
