// Reference of attention; see ref_attention.h.
#include "model/ref_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double dot(const double *a, const double *b, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static size_t at_row(const struct RefAttention *a, uint32_t row, uint32_t head) {
    return ((size_t)row * a->s.n_heads + head) * a->s.head_dim;
}
static size_t at_key(const struct RefAttention *a, uint32_t key, uint32_t kv_head) {
    return ((size_t)key * a->s.n_kv_heads + kv_head) * a->s.head_dim;
}

static double score(const struct RefAttention *a, uint32_t row, uint32_t head, uint32_t key) {
    uint32_t kv_head = head / (a->s.n_heads / a->s.n_kv_heads);
    return (double)a->s.scale * dot(a->q + at_row(a, row, head), a->k + at_key(a, key, kv_head), a->s.head_dim);
}

void ref_attention_row(const struct RefAttention *a, uint32_t row, uint32_t head, double *o, double *lse) {
    uint32_t begin = a->span[2 * row], end = a->span[2 * row + 1], kv_head = head / (a->s.n_heads / a->s.n_kv_heads);
    double most = -INFINITY, sum = 0;
    for (uint32_t key = begin; key < end; key++)
        most = fmax(most, score(a, row, head, key));
    memset(o, 0, a->s.head_dim * sizeof *o);
    for (uint32_t key = begin; key < end; key++) {
        double weight = exp(score(a, row, head, key) - most);
        const double *v = a->v + at_key(a, key, kv_head);
        sum += weight;
        for (uint32_t i = 0; i < a->s.head_dim; i++)
            o[i] += weight * v[i];
    }
    for (uint32_t i = 0; sum > 0 && i < a->s.head_dim; i++)
        o[i] /= sum;
    if (lse)
        *lse = sum > 0 ? most + log(sum) : -INFINITY;
}

void ref_attention(const struct RefAttention *a, double *o, double *lse) {
    for (uint32_t row = 0; row < a->rows; row++)
        for (uint32_t head = 0; head < a->s.n_heads; head++)
            ref_attention_row(a, row, head, o + at_row(a, row, head),
                              lse ? lse + (size_t)row * a->s.n_heads + head : NULL);
}

// The mean square of what rounding leaves in one lse, at most. An operand x is rounded by an error of mean 0 that is evenly spread over one place
// of its last bit, 2 unit 2^e with 2^e <= |x|, so that its mean square is at most (2 unit x)^2 / 12 = unit^2 x^2 / 3. To first order
//   d lse = sum_j p_j (d score_j + d weight_j / weight_j),   score_j = scale sum_i q_i k_ij,
// with p the softmax: the error of q_i meets sum_j p_j k_ij, which all keys share, that of k_ij meets p_j q_i, and errors of different operands are
// independent. So what counts is how large the products are, not how large their sum is: a score near 0 is a difference of large ones. What is
// computed in f32 (sums, exp and log, a few of its last places of everything that comes together) is added to it.
static double lse_noise(const struct RefAttention *a, const struct RefRounding *r, uint32_t row, uint32_t head,
                        double lse) {
    uint32_t begin = a->span[2 * row], end = a->span[2 * row + 1], kv_head = head / (a->s.n_heads / a->s.n_kv_heads);
    const double *q = a->q + at_row(a, row, head);
    double queries = 0, keys = 0, weights = 0, size = 1 + fabs(lse), scale = (double)a->s.scale;
    for (uint32_t i = 0; i < a->s.head_dim; i++) {
        double mean = 0;
        for (uint32_t key = begin; key < end; key++)
            mean += exp(score(a, row, head, key) - lse) * a->k[at_key(a, key, kv_head) + i];
        queries += scale * scale * q[i] * q[i] * mean * mean;
    }
    for (uint32_t key = begin; key < end; key++) {
        const double *k = a->k + at_key(a, key, kv_head);
        double p = exp(score(a, row, head, key) - lse);
        weights += p * p;
        for (uint32_t i = 0; i < a->s.head_dim; i++) {
            keys += scale * scale * p * p * q[i] * q[i] * k[i] * k[i];
            size += scale * p * fabs(q[i] * k[i]);
        }
    }
    double rounded = queries + (r->keys ? keys : 0) + (r->weights ? weights : 0);
    return r->unit * r->unit / 3 * rounded + 0x1p-44 * size * size;
}

// Squares of n errors of mean square 1, each a sum of many, have a mean of 1 and a deviation of sqrt(2 / n): six of them are allowed above. Operands
// that are cut off instead have errors of one sign, which add up to a part of the score: several times as much.
double ref_attention_lse_excess(const struct RefAttention *a, const struct RefRounding *r, uint64_t count,
                                const uint64_t *index, const double *got) {
    double error = 0, noise = 0, want, *o = xmalloc(a->s.head_dim * sizeof *o);
    uint64_t n = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t row = (uint32_t)(index[i] / a->s.n_heads), head = (uint32_t)(index[i] % a->s.n_heads);
        ref_attention_row(a, row, head, o, &want);
        if (isinf(want)) { // no key
            error = got[i] == want ? error : INFINITY;
            continue;
        }
        error += (got[i] - want) * (got[i] - want);
        noise += lse_noise(a, r, row, head, want);
        n++;
    }
    free(o);
    double excess = n ? error / noise / (1 + 6 * sqrt(2 / (double)n)) : error;
    return isnan(excess) ? INFINITY : excess;
}

// The weight of a key in a row and the gradient of the loss with respect to their scaled score.
static double weight_back(const struct RefAttention *a, uint32_t row, uint32_t head, uint32_t key, double *dscore) {
    uint32_t kv_head = head / (a->s.n_heads / a->s.n_kv_heads);
    const double *dout = a->dout + at_row(a, row, head);
    double weight = exp(score(a, row, head, key) - a->lse[(size_t)row * a->s.n_heads + head]);
    double delta = dot(dout, a->o + at_row(a, row, head), a->s.head_dim);
    *dscore = weight * (dot(dout, a->v + at_key(a, key, kv_head), a->s.head_dim) - delta);
    return weight;
}

void ref_attention_back_row(const struct RefAttention *a, uint32_t row, uint32_t head, double *dq) {
    uint32_t kv_head = head / (a->s.n_heads / a->s.n_kv_heads);
    memset(dq, 0, a->s.head_dim * sizeof *dq);
    for (uint32_t key = a->span[2 * row]; key < a->span[2 * row + 1]; key++) {
        double dscore;
        weight_back(a, row, head, key, &dscore);
        for (uint32_t i = 0; i < a->s.head_dim; i++)
            dq[i] += (double)a->s.scale * dscore * a->k[at_key(a, key, kv_head) + i];
    }
}

void ref_attention_back_key(const struct RefAttention *a, uint32_t key, uint32_t kv_head, double *dk, double *dv) {
    uint32_t n_shared = a->s.n_heads / a->s.n_kv_heads;
    memset(dk, 0, a->s.head_dim * sizeof *dk);
    memset(dv, 0, a->s.head_dim * sizeof *dv);
    for (uint32_t head = kv_head * n_shared; head < (kv_head + 1) * n_shared; head++)
        for (uint32_t row = a->key_span[2 * key]; row < a->key_span[2 * key + 1]; row++) {
            if (key < a->span[2 * row] || key >= a->span[2 * row + 1])
                continue;
            double dscore, weight = weight_back(a, row, head, key, &dscore);
            for (uint32_t i = 0; i < a->s.head_dim; i++) {
                dk[i] += (double)a->s.scale * dscore * a->q[at_row(a, row, head) + i];
                dv[i] += weight * a->dout[at_row(a, row, head) + i];
            }
        }
}

void ref_attention_back(const struct RefAttention *a, double *dq, double *dk, double *dv) {
    for (uint32_t row = 0; row < a->rows; row++)
        for (uint32_t head = 0; head < a->s.n_heads; head++)
            ref_attention_back_row(a, row, head, dq + at_row(a, row, head));
    for (uint32_t key = 0; key < a->key_rows; key++)
        for (uint32_t head = 0; head < a->s.n_kv_heads; head++)
            ref_attention_back_key(a, key, head, dk + at_key(a, key, head), dv + at_key(a, key, head));
}
