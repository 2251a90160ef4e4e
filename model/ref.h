// The operations once more, on the host, in double precision and in the plainest way: what every kernel is compared with. Arrays are
// dense rows; formulas as in ops.h. Used by the checks of opcheck.h and by the tests alone.
#pragma once
#include "model/ops.h"

// ---- Rows (ref.c). `dx` and `dw` of the backward functions are added to.
void ref_rmsnorm(const double *x, const double *w, uint32_t rows, uint32_t dim, double eps, double *y, double *rstd);
void ref_rmsnorm_back(const double *x, const double *w, const double *rstd, const double *dy, uint32_t rows,
                      uint32_t dim, double *dx, double *dw);
// table (n_positions, head_dim/2, 2).
void ref_rope(double *x, const uint32_t *positions, const double *table, uint32_t rows, uint32_t n_heads,
              uint32_t head_dim, double sign);
void ref_swiglu(const double *gate, const double *up, uint64_t n, double *h);
void ref_swiglu_back(const double *gate, const double *up, const double *dh, uint64_t n, double *dgate, double *dup);
void ref_embed(const uint32_t *ids, const double *table, uint32_t rows, uint32_t dim, uint32_t vocab, double *y);
void ref_embed_back(const uint32_t *ids, const double *dy, uint32_t rows, uint32_t dim, uint32_t vocab, double *dw);
void ref_bias(double *y, const double *bias, uint32_t rows, uint32_t dim);
void ref_bias_back(const double *dy, uint32_t rows, uint32_t dim, double *dbias);
void ref_gate(const double *gate, const double *x, uint32_t rows, uint32_t dim, double *y);
void ref_gate_back(const double *gate, const double *x, const double *dy, uint32_t rows, uint32_t dim, double *dgate,
                   double *dx);

// ---- Mixture of experts (ref.c)
struct RefRoute {
    uint32_t tokens, n_experts, n_active;
    bool norm_topk;
    double scale;
};
void ref_route(const struct RefRoute *r, const double *logits, double *probs, double *weights, uint32_t *experts);
void ref_route_back(const struct RefRoute *r, const double *probs, const uint32_t *experts, const double *dweights,
                    const double *dbalance, double *dlogits);
// Stable: slot_row (tokens * n_active), gather and row_expert by sorted row, offsets (n_experts + 1).
void ref_sort(const uint32_t *experts, uint32_t tokens, uint32_t n_experts, uint32_t n_active, uint32_t *offsets,
              uint32_t *gather, uint32_t *slot_row, uint32_t *row_expert);
// Gives the loss; dbalance (tokens, n_experts) may be NULL.
// token_group as op_balance has it; NULL: every token of a range belongs to its group.
double ref_balance(const struct RefRoute *r, const double *probs, const uint32_t *experts, const uint32_t *group_start,
                   const uint32_t *token_group, const double *group_weight, uint32_t n_groups, double alpha,
                   double *dbalance);
// weights, shared and residual may be NULL.
void ref_combine(const double *y, const double *weights, const uint32_t *slot_row, const double *shared,
                 const double *residual, uint32_t tokens, uint32_t n_active, uint32_t dim, double *out);
// Of sum over slots of weights[s] * <dh, silu(gate) * up> of row slot_row[s]: dgate, dup (rows, width), dweights (slots); h becomes weights * silu(gate) * up.
void ref_expert_swiglu_back(const double *gate, const double *up, const double *dh, const double *weights,
                            const uint32_t *slot_row, uint32_t slots, uint32_t width, double *dgate, double *dup,
                            double *h, double *dweights);

// ---- Loss, optimiser, sampling (ref.c)
// targets 0xffffffff: loss and gradient 0. dlogits may be NULL.
void ref_xent(const double *logits, const uint32_t *targets, uint32_t rows, uint32_t vocab, double inv_labels,
              double *loss, double *dlogits);
struct RefAdamW {
    double learning_rate, beta1, beta2, eps, decay, clip;
    uint32_t step; // from 1
};
void ref_adamw(const struct RefAdamW *a, double *w, const double *g, double *m1, double *m2, uint64_t n);
// The distribution that op_sample draws from.
void ref_sample(const double *logits, uint32_t vocab, const struct SampleParams *s, double *probs);
double ref_logprob(const double *logits, uint32_t vocab, uint32_t id);

// ---- Matrices (ref_linear.c): y = x w^T and its gradients, x (m,k), w (n,k), y (m,n)
double ref_dot(const double *a, uint64_t a_stride, const double *b, uint64_t b_stride, uint64_t n);
void ref_linear(const double *x, const double *w, uint32_t m, uint32_t n, uint32_t k, double *y);
void ref_linear_dx(const double *dy, const double *w, uint32_t m, uint32_t n, uint32_t k, double *dx);
void ref_linear_dw(const double *dy, const double *x, uint32_t m, uint32_t n, uint32_t k, double *dw);
