// Double-precision references of the operations on rows, of routing, of loss, optimiser and sampling.
#include "model/ref.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- Rows

void ref_rmsnorm(const double *x, const double *w, uint32_t rows, uint32_t dim, double eps, double *y, double *rstd) {
    for (uint32_t r = 0; r < rows; r++, x += dim, y += dim) {
        double sum = 0;
        for (uint32_t i = 0; i < dim; i++)
            sum += x[i] * x[i];
        double scale = 1 / sqrt(sum / dim + eps);
        for (uint32_t i = 0; i < dim; i++)
            y[i] = x[i] * scale * w[i];
        if (rstd)
            rstd[r] = scale;
    }
}

void ref_rmsnorm_back(const double *x, const double *w, const double *rstd, const double *dy, uint32_t rows,
                      uint32_t dim, double *dx, double *dw) {
    for (uint32_t r = 0; r < rows; r++, x += dim, dy += dim, dx += dim) {
        double dot = 0;
        for (uint32_t i = 0; i < dim; i++)
            dot += w[i] * dy[i] * x[i];
        for (uint32_t i = 0; i < dim; i++) {
            dx[i] += rstd[r] * (w[i] * dy[i] - x[i] * rstd[r] * rstd[r] * dot / dim);
            if (dw)
                dw[i] += dy[i] * x[i] * rstd[r];
        }
    }
}

void ref_rope(double *x, const uint32_t *positions, const double *table, uint32_t rows, uint32_t n_heads,
              uint32_t head_dim, double sign) {
    uint32_t half = head_dim / 2;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t h = 0; h < n_heads; h++, x += head_dim)
            for (uint32_t i = 0; i < half; i++) {
                const double *angle = table + ((uint64_t)positions[r] * half + i) * 2;
                double a = x[i], b = x[i + half], c = angle[0], s = sign * angle[1];
                x[i] = a * c - b * s;
                x[i + half] = b * c + a * s;
            }
}

void ref_swiglu(const double *gate, const double *up, uint64_t n, double *h) {
    for (uint64_t i = 0; i < n; i++)
        h[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

void ref_swiglu_back(const double *gate, const double *up, const double *dh, uint64_t n, double *dgate, double *dup) {
    for (uint64_t i = 0; i < n; i++) {
        double g = gate[i], s = 1 / (1 + exp(-g)), u = up[i], d = dh[i];
        dgate[i] = d * u * s * (1 + g * (1 - s));
        dup[i] = d * g * s;
    }
}

void ref_bias(double *y, const double *bias, uint32_t rows, uint32_t dim) {
    for (uint64_t i = 0; i < (uint64_t)rows * dim; i++)
        y[i] += bias[i % dim];
}

void ref_bias_back(const double *dy, uint32_t rows, uint32_t dim, double *dbias) {
    for (uint64_t i = 0; i < (uint64_t)rows * dim; i++)
        dbias[i % dim] += dy[i];
}

void ref_gate(const double *gate, const double *x, uint32_t rows, uint32_t dim, double *y) {
    for (uint64_t i = 0; i < (uint64_t)rows * dim; i++)
        y[i] = x[i] / (1 + exp(-gate[i / dim]));
}

void ref_gate_back(const double *gate, const double *x, const double *dy, uint32_t rows, uint32_t dim, double *dgate,
                   double *dx) {
    for (uint32_t r = 0; r < rows; r++) {
        double s = 1 / (1 + exp(-gate[r]));
        for (uint64_t i = (uint64_t)r * dim; i < (uint64_t)(r + 1) * dim; i++) {
            dgate[r] += s * (1 - s) * dy[i] * x[i];
            dx[i] += s * dy[i];
        }
    }
}

void ref_embed(const uint32_t *ids, const double *table, uint32_t rows, uint32_t dim, uint32_t vocab, double *y) {
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < dim; i++)
            y[(uint64_t)r * dim + i] = ids[r] < vocab ? table[(uint64_t)ids[r] * dim + i] : 0;
}

void ref_embed_back(const uint32_t *ids, const double *dy, uint32_t rows, uint32_t dim, uint32_t vocab, double *dw) {
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < dim && ids[r] < vocab; i++)
            dw[(uint64_t)ids[r] * dim + i] += dy[(uint64_t)r * dim + i];
}

// ---- Mixture of experts

void ref_route(const struct RefRoute *r, const double *logits, double *probs, double *weights, uint32_t *experts) {
    for (uint32_t t = 0; t < r->tokens; t++) {
        const double *l = logits + (uint64_t)t * r->n_experts;
        double *p = probs + (uint64_t)t * r->n_experts, top = l[0], sum = 0, chosen_sum = 0;
        for (uint32_t e = 1; e < r->n_experts; e++)
            top = fmax(top, l[e]);
        for (uint32_t e = 0; e < r->n_experts; e++)
            sum += p[e] = exp(l[e] - top);
        for (uint32_t e = 0; e < r->n_experts; e++)
            p[e] /= sum;
        bool *taken = xcalloc(r->n_experts, sizeof *taken);
        for (uint32_t k = 0; k < r->n_active; k++) {
            uint32_t best = UINT32_MAX;
            for (uint32_t e = 0; e < r->n_experts; e++)
                if (!taken[e] && (best == UINT32_MAX || p[e] > p[best]))
                    best = e;
            taken[best] = true;
            experts[(uint64_t)t * r->n_active + k] = best;
            chosen_sum += p[best];
        }
        for (uint32_t k = 0; k < r->n_active; k++) {
            double chosen = p[experts[(uint64_t)t * r->n_active + k]];
            bool norm = r->norm_topk && r->n_active > 1;
            weights[(uint64_t)t * r->n_active + k] = norm ? chosen / (chosen_sum + 1e-20) : chosen * r->scale;
        }
        free(taken);
    }
}

void ref_route_back(const struct RefRoute *r, const double *probs, const uint32_t *experts, const double *dweights,
                    const double *dbalance, double *dlogits) {
    double *dp = xcalloc(r->n_experts, sizeof *dp);
    for (uint32_t t = 0; t < r->tokens; t++) {
        const double *p = probs + (uint64_t)t * r->n_experts, *dw = dweights + (uint64_t)t * r->n_active;
        const uint32_t *e = experts + (uint64_t)t * r->n_active;
        for (uint32_t i = 0; i < r->n_experts; i++)
            dp[i] = dbalance ? dbalance[(uint64_t)t * r->n_experts + i] : 0;
        double sum = 1e-20, dot = 0;
        for (uint32_t k = 0; k < r->n_active; k++)
            sum += p[e[k]], dot += dw[k] * p[e[k]];
        for (uint32_t k = 0; k < r->n_active; k++)
            dp[e[k]] += r->norm_topk && r->n_active > 1 ? dw[k] / sum - dot / (sum * sum) : dw[k] * r->scale;
        double mean = 0;
        for (uint32_t i = 0; i < r->n_experts; i++)
            mean += p[i] * dp[i];
        for (uint32_t i = 0; i < r->n_experts; i++)
            dlogits[(uint64_t)t * r->n_experts + i] = p[i] * (dp[i] - mean);
    }
    free(dp);
}

void ref_sort(const uint32_t *experts, uint32_t tokens, uint32_t n_experts, uint32_t n_active, uint32_t *offsets,
              uint32_t *gather, uint32_t *slot_row, uint32_t *row_expert) {
    uint32_t row = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        offsets[e] = row;
        for (uint32_t s = 0; s < tokens * n_active; s++)
            if (experts[s] == e) {
                gather[row] = s / n_active;
                row_expert[row] = e;
                slot_row[s] = row++;
            }
    }
    offsets[n_experts] = row;
}

double ref_balance(const struct RefRoute *r, const double *probs, const uint32_t *experts, const uint32_t *group_start,
                   const uint32_t *token_group, const double *group_weight, uint32_t n_groups, double alpha,
                   double *dbalance) {
    double loss = 0;
    for (uint64_t i = 0; dbalance && i < (uint64_t)r->tokens * r->n_experts; i++)
        dbalance[i] = 0;
    for (uint32_t g = 0; g < n_groups; g++) {
        double length = 0;
        for (uint32_t t = group_start[g]; t < group_start[g + 1]; t++)
            length += !token_group || token_group[t] == g;
        for (uint32_t e = 0; e < r->n_experts && length > 0; e++) {
            double count = 0, mean = 0;
            for (uint32_t t = group_start[g]; t < group_start[g + 1]; t++) {
                if (token_group && token_group[t] != g)
                    continue;
                for (uint32_t k = 0; k < r->n_active; k++)
                    count += experts[(uint64_t)t * r->n_active + k] == e;
                mean += probs[(uint64_t)t * r->n_experts + e] / length;
            }
            double fraction = r->n_experts * count / (r->n_active * length);
            loss += alpha * group_weight[g] * fraction * mean;
            for (uint32_t t = group_start[g]; dbalance && t < group_start[g + 1]; t++)
                if (!token_group || token_group[t] == g)
                    dbalance[(uint64_t)t * r->n_experts + e] = alpha * group_weight[g] * fraction / length;
        }
    }
    return loss;
}

void ref_combine(const double *y, const double *weights, const uint32_t *slot_row, const double *shared,
                 const double *residual, uint32_t tokens, uint32_t n_active, uint32_t dim, double *out) {
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t i = 0; i < dim; i++) {
            uint64_t at = (uint64_t)t * dim + i;
            double sum = (residual ? residual[at] : 0) + (shared ? shared[at] : 0);
            for (uint32_t s = t * n_active; s < (t + 1) * n_active; s++)
                sum += (weights ? weights[s] : 1) * y[(uint64_t)slot_row[s] * dim + i];
            out[at] = sum;
        }
}

void ref_expert_swiglu_back(const double *gate, const double *up, const double *dh, const double *weights,
                            const uint32_t *slot_row, uint32_t slots, uint32_t width, double *dgate, double *dup,
                            double *h, double *dweights) {
    for (uint32_t s = 0; s < slots; s++) {
        uint64_t row = (uint64_t)slot_row[s] * width;
        dweights[s] = 0;
        ref_swiglu(gate + row, up + row, width, h + row);
        ref_swiglu_back(gate + row, up + row, dh + row, width, dgate + row, dup + row);
        for (uint32_t i = 0; i < width; i++) {
            dweights[s] += dh[row + i] * h[row + i];
            dgate[row + i] *= weights[s], dup[row + i] *= weights[s], h[row + i] *= weights[s];
        }
    }
}

// ---- Loss, optimiser, sampling

static double log_sum_exp(const double *logits, uint32_t n) {
    double top = logits[0], sum = 0;
    for (uint32_t i = 1; i < n; i++)
        top = fmax(top, logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp(logits[i] - top);
    return top + log(sum);
}

double ref_logprob(const double *logits, uint32_t vocab, uint32_t id) {
    return logits[id] - log_sum_exp(logits, vocab);
}

void ref_xent(const double *logits, const uint32_t *targets, uint32_t rows, uint32_t vocab, double inv_labels,
              double *loss, double *dlogits) {
    for (uint32_t r = 0; r < rows; r++) {
        const double *l = logits + (uint64_t)r * vocab;
        bool labelled = targets[r] != UINT32_MAX;
        double lse = log_sum_exp(l, vocab);
        loss[r] = labelled ? lse - l[targets[r]] : 0;
        for (uint32_t i = 0; dlogits && i < vocab; i++) {
            double soft = exp(l[i] - lse) - (i == targets[r] ? 1 : 0);
            dlogits[(uint64_t)r * vocab + i] = labelled ? soft * inv_labels : 0;
        }
    }
}

void ref_adamw(const struct RefAdamW *a, double *w, const double *g, double *m1, double *m2, uint64_t n) {
    double c1 = 1 - pow(a->beta1, a->step), c2 = 1 - pow(a->beta2, a->step);
    for (uint64_t i = 0; i < n; i++) {
        double d = g[i] * a->clip;
        m1[i] = a->beta1 * m1[i] + (1 - a->beta1) * d;
        m2[i] = a->beta2 * m2[i] + (1 - a->beta2) * d * d;
        w[i] -= a->learning_rate * (a->decay * w[i] + m1[i] / c1 / (sqrt(m2[i] / c2) + a->eps));
    }
}

static const double *order_logits;
static int by_logit(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (order_logits[x] != order_logits[y])
        return order_logits[x] > order_logits[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

struct Kept {
    double distance;
    uint32_t index;
};
static int by_distance(const void *a, const void *b) {
    const struct Kept *x = a, *y = b;
    return x->distance < y->distance ? -1 : x->distance > y->distance;
}

// Of the first `kept` in `order` those whose surprise is nearest to the entropy, up to a mass of `share`: gives how many stay in `order`.
static uint32_t ref_typical(const double *logits, double top, double share, uint32_t *order, uint32_t kept) {
    struct Kept *list = xmalloc(kept * sizeof *list);
    double sum = 0, mean = 0, mass = 0, band = INFINITY;
    for (uint32_t i = 0; i < kept; i++) {
        double e = exp(logits[order[i]] - top);
        sum += e;
        mean += e > 0 ? e * (logits[order[i]] - top) : 0;
    }
    mean = mean / sum + top;
    for (uint32_t i = 0; i < kept; i++)
        list[i] = (struct Kept){fabs(logits[order[i]] - mean), order[i]};
    qsort(list, kept, sizeof *list, by_distance);
    for (uint32_t i = 0; i < kept && band == (double)INFINITY; i++) {
        mass += exp(logits[list[i].index] - top);
        if (mass >= share * sum)
            band = list[i].distance;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < kept; i++)
        if (fabs(logits[order[i]] - mean) <= band)
            order[n++] = order[i];
    free(list);
    return n;
}

void ref_sample(const double *logits, uint32_t vocab, const struct SampleParams *s, double *probs) {
    uint32_t *order = xmalloc(vocab * sizeof *order), kept = vocab;
    for (uint32_t i = 0; i < vocab; i++)
        order[i] = i, probs[i] = 0;
    order_logits = logits;
    qsort(order, vocab, sizeof *order, by_logit);
    double top = logits[order[0]], sum = 0, mass = 0;
    if (s->top_k > 0 && s->top_k < vocab)
        kept = s->top_k;
    if (s->temperature > 0 && s->typical > 0 && s->typical < 1)
        kept = ref_typical(logits, top, (double)s->typical, order, kept);
    top = logits[order[0]];
    for (uint32_t i = 0; i < kept; i++)
        sum += exp(logits[order[i]] - top);
    for (uint32_t i = 0; s->top_p < 1 && i < kept; i++) {
        mass += exp(logits[order[i]] - top);
        if (mass >= (double)s->top_p * sum)
            kept = i + 1;
    }
    while (kept > 1 && exp(logits[order[kept - 1]] - top) < (double)s->min_p)
        kept--;
    if (!(s->temperature > 0))
        kept = 1;
    sum = 0;
    for (uint32_t i = 0; i < kept; i++)
        sum += probs[order[i]] = kept == 1 ? 1 : exp((logits[order[i]] - top) / (double)s->temperature);
    double least = s->tau > 0 ? fmin(1, sum * exp2(-(double)s->mu)) : 0, left = 0;
    for (uint32_t i = 0; i < kept; i++)
        left += probs[order[i]] = probs[order[i]] < least ? 0 : probs[order[i]];
    for (uint32_t i = 0; i < kept; i++)
        probs[order[i]] /= left;
    free(order);
}
