// Attention in double precision, forward and backward, one row or one key at a time: plain sums over the keys of a span, without tiles and without
// a running maximum. Arrays are as the tensors of op_attention.
#pragma once
#include "model/ops.h"

struct RefAttention {
    uint32_t rows, key_rows;
    struct AttentionShape s;
    const double *q, *k, *v;
    const uint32_t *span;     // (rows, 2)
    const uint32_t *key_span; // (key_rows, 2); backward only
    // Backward only: what forward gave, and the gradient of o.
    const double *o, *lse, *dout;
};
// o (head_dim) and *lse of one row and head. lse may be NULL.
void ref_attention_row(const struct RefAttention *a, uint32_t row, uint32_t head, double *o, double *lse);
void ref_attention(const struct RefAttention *a, double *o, double *lse);

// What a matrix unit rounds to nearest before it multiplies: queries always.
struct RefRounding {
    double unit;        // unit roundoff of its operands: 2^-8 of bf16, 2^-11 of f16
    bool keys, weights; // these too, before products and before the sum that lse is the logarithm of
};
// How far `count` values of lse (index: row * n_heads + head) are off, measured by what rounding leaves: up to 1 rounding explains it.
double ref_attention_lse_excess(const struct RefAttention *a, const struct RefRounding *r, uint64_t count,
                                const uint64_t *index, const double *got);
// dq (head_dim) of one row and head; dk and dv (head_dim) of one key and key head.
void ref_attention_back_row(const struct RefAttention *a, uint32_t row, uint32_t head, double *dq);
void ref_attention_back_key(const struct RefAttention *a, uint32_t key, uint32_t kv_head, double *dk, double *dv);
void ref_attention_back(const struct RefAttention *a, double *dq, double *dk, double *dv);
