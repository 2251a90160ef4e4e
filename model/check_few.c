// Checks of what matrix-vector products bring together for a decoded token: matrices side by side, and a token's routed and shared experts.
#include "model/check_rows.h"

static const double BOUND_SUM = 2e-11; // sums in f32 over up to a few thousand products, as check_linear.c has it

// Elements of an output that are compared, all or a sample.
struct Picked {
    uint64_t *index, count;
    double *want;
};
static struct Picked pick(struct CheckRun *r, const struct CheckTensor *y) {
    struct Picked k = {0};
    k.count = checkrun_pick(r, y, &k.index);
    k.want = doubles(k.count);
    return k;
}
static void compare(struct CheckRun *r, const struct CheckTensor *y, struct Picked *k) {
    checkrun_compare_at(r, y, k->count, k->index, k->want);
    free(k->index), free(k->want);
}

bool check_beside(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t tokens = shape[0], n = shape[1], n2 = shape[2], k = shape[3], count = shape[4];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(tokens, k), 1), *norm = NULL, *w[3], *y[3];
    struct LinearOptions o = {.eps = 1e-5f};
    const struct Tensor *matrices[3];
    struct Tensor results[3];
    double *rows = copied(x), *rstd = doubles(tokens);
    if (shape[5]) {
        norm = checkrun_random(&r, DT_F32, DIMS(k), 1);
        o.norm = &norm->t;
        ref_rmsnorm(x->value, norm->value, tokens, k, (double)o.eps, rows, rstd);
    }
    for (uint32_t i = 0; i < count; i++) {
        w[i] = checkrun_random(&r, oc->type, DIMS(i ? n2 : n, k), check_weights_deviation(oc->type, false));
        y[i] = checkrun_output(&r, DIMS(tokens, i ? n2 : n));
        matrices[i] = &w[i]->t, results[i] = y[i]->t;
        ck->bytes += (double)w[i]->t.bytes;
    }
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_linear_beside(c, &x->t, count, matrices, results, o);
    ck->flops = 2.0 * tokens * (n + (count - 1.0) * n2) * k;
    bool ok = checkrun_execute(&r, cmd_end(c));
    for (uint32_t i = 0; ok && i < count; i++) {
        struct Picked p = pick(&r, y[i]);
        uint64_t width = i ? n2 : n;
        for (uint64_t j = 0; j < p.count; j++)
            p.want[j] = ref_dot(rows + p.index[j] / width * k, 1, w[i]->value + p.index[j] % width * k, 1, k);
        compare(&r, y[i], &p);
    }
    free(rows), free(rstd);
    return finish(&r, ok, BOUND_SUM);
}

// Experts drawn for each token, all different, and their weights.
static struct Routing draw(struct CheckRun *r, const uint32_t *shape, uint32_t *expert, struct CheckTensor **weights) {
    uint32_t tokens = shape[0], n_experts = shape[3], n_active = shape[4];
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t i = 0; i < n_active; i++)
            expert[t * n_active + i] = (random_below(r->ck, 5, t, n_experts) + i) % n_experts;
    *weights = checkrun_random(r, DT_F32, DIMS(tokens, n_active), 1);
    return (struct Routing){.tokens = tokens,
                            .n_experts = n_experts,
                            .n_active = n_active,
                            .weights = (*weights)->t,
                            .row_expert = checkrun_values(r, DT_U32, DIMS(tokens * n_active), expert)->t};
}

bool check_experts_up(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t tokens = shape[0], n = shape[1], k = shape[2], n_experts = shape[3], n_active = shape[4];
    uint32_t parts = shape[5], per_token = n_active + parts;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(tokens, k), 1), *weights;
    struct CheckTensor *norm = checkrun_random(&r, DT_BF16, DIMS(k), 1), *w[4];
    for (uint32_t i = 0; i < 4; i++) // gate and up, routed and shared
        w[i] = i < 2 ? checkrun_random(&r, oc->type, DIMS(n_experts, n, k), check_weights_deviation(oc->type, false))
                     : checkrun_random(&r, oc->type, DIMS(parts * n, k), check_weights_deviation(oc->type, false));
    struct CheckTensor *y = checkrun_output(&r, DIMS(tokens * per_token, n));
    uint32_t *expert = uints(tokens * n_active);
    struct Routing g = draw(&r, shape, expert, &weights);
    struct LinearOptions o = {.norm = &norm->t, .eps = 1e-5f};
    double *rows = doubles(x->n), *rstd = doubles(tokens);
    ref_rmsnorm(x->value, norm->value, tokens, k, (double)o.eps, rows, rstd);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_experts_up(c, &x->t, (struct Gated){&w[0]->t, &w[1]->t}, (struct Gated){&w[2]->t, &w[3]->t}, &g, &y->t, o);
    ck->flops = 4.0 * (double)y->n * k;
    ck->bytes = (double)y->n * 2 * (double)w[0]->t.bytes / ((double)n_experts * n);
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        struct Picked p = pick(&r, y);
        for (uint64_t i = 0; i < p.count; i++) {
            uint64_t row = p.index[i] / n, col = p.index[i] % n, token = row / per_token, slot = row % per_token;
            bool shared = slot >= n_active;
            uint64_t at = ((shared ? slot - n_active : expert[token * n_active + slot]) * n + col) * k;
            double gate = ref_dot(rows + token * k, 1, w[shared ? 2 : 0]->value + at, 1, k);
            double up = ref_dot(rows + token * k, 1, w[shared ? 3 : 1]->value + at, 1, k);
            p.want[i] = gate / (1 + exp(-gate)) * up;
        }
        compare(&r, y, &p);
    }
    free(expert), free(rows), free(rstd);
    return finish(&r, ok, BOUND_SUM);
}

bool check_experts_down(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t tokens = shape[0], n = shape[1], k = shape[2], n_experts = shape[3], n_active = shape[4];
    uint32_t parts = shape[5], per_token = n_active + parts;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *h = checkrun_random(&r, DT_F32, DIMS(tokens * per_token, k), 1), *weights;
    struct CheckTensor *w = checkrun_random(&r, oc->type, DIMS(n_experts, n, k), 0.1);
    struct CheckTensor *shared = parts ? checkrun_random(&r, oc->type, DIMS(n, parts * k), 0.1) : NULL;
    struct CheckTensor *y = checkrun_random(&r, DT_F32, DIMS(tokens, n), 1);
    y->output = true;
    uint32_t *expert = uints(tokens * n_active);
    struct Routing g = draw(&r, shape, expert, &weights);
    double *before = copied(y);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_experts_down(c, &h->t, &w->t, shared ? &shared->t : NULL, &g, &y->t);
    ck->flops = 2.0 * (double)y->n * per_token * k;
    ck->bytes = (double)y->n * per_token * (double)w->t.bytes / ((double)n_experts * n);
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        struct Picked p = pick(&r, y);
        for (uint64_t i = 0; i < p.count; i++) {
            uint64_t token = p.index[i] / n, col = p.index[i] % n;
            const double *row = h->value + token * per_token * k;
            p.want[i] = before[p.index[i]];
            for (uint32_t s = 0; s < n_active; s++)
                p.want[i] += weights->value[token * n_active + s] *
                             ref_dot(row + (uint64_t)s * k, 1,
                                     w->value + (expert[token * n_active + s] * (uint64_t)n + col) * k, 1, k);
            if (shared)
                p.want[i] +=
                    ref_dot(row + (uint64_t)n_active * k, 1, shared->value + col * parts * k, 1, (uint64_t)parts * k);
        }
        compare(&r, y, &p);
    }
    free(expert), free(before);
    return finish(&r, ok, BOUND_SUM);
}
