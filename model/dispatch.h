// Grids that the operations on rows, routing and steps share, and what the files of matrix products do.
#pragma once
#include "model/ops.h"
#include "model/tiles.h"
#include "model/tune.h"
#include <assert.h>

// Width of a workgroup that walks `items` neighbours together: one subgroup on CPU devices, else the power of two that keeps most lanes busy.
static inline uint32_t dispatch_local_size(const struct Device *dev, uint32_t items) {
    if (dev->is_cpu)
        return dev->limits.subgroup_size;
    uint32_t local = dev->limits.subgroup_size > 64 ? dev->limits.subgroup_size : 64;
    while (local < 256 && local * 2 <= items)
        local *= 2;
    return local;
}

// Of two bodies the one whose lanes have pairs of neighbours (shaders/pairs.glsl), where this device is faster so; it takes sixteens of elements.
static inline enum KernelId pick_pairs(struct Device *dev, uint64_t elements, enum KernelId pairs, enum KernelId base) {
    if (elements % 16)
        return KERNEL_PICK(dev, (int)base);
    return tiles_of(dev)->pairs ? KERNEL_PICK(dev, (int)pairs, (int)base) : KERNEL_PICK(dev, (int)base, (int)pairs);
}

static inline struct View view_or_none(const struct Tensor *t) { return t ? view(t) : (struct View){0, 0}; }

// ---- Matrices: ops_linear.c and, of few rows, ops_gemv.c

// A module for each storage type of weights, in an array of DT_U32.
#define BY_TYPE(before, after)                                                                                         \
    {                                                                                                                  \
        [DT_F32] = KERNEL_##before##_f32##after, [DT_F16] = KERNEL_##before##_f16##after,                              \
        [DT_BF16] = KERNEL_##before##_bf16##after, [DT_Q4_0] = KERNEL_##before##_q4_0##after,                          \
        [DT_Q4_1] = KERNEL_##before##_q4_1##after, [DT_Q8_0] = KERNEL_##before##_q8_0##after,                          \
        [DT_Q5_0] = KERNEL_##before##_q5_0##after, [DT_Q5_1] = KERNEL_##before##_q5_1##after,                          \
        [DT_Q2_K] = KERNEL_##before##_q2_k##after, [DT_Q3_K] = KERNEL_##before##_q3_k##after,                          \
        [DT_Q4_K] = KERNEL_##before##_q4_k##after, [DT_Q5_K] = KERNEL_##before##_q5_k##after,                          \
        [DT_Q6_K] = KERNEL_##before##_q6_k##after, [DT_IQ4_NL] = KERNEL_##before##_iq4_nl##after,                      \
        [DT_IQ4_XS] = KERNEL_##before##_iq4_xs##after                                                                  \
    }

static inline int module_of(const int modules[DT_U32], enum DType type) {
    assert(type < DT_U32 && modules[type] != 0); // 0: BY_TYPE has no entry
    return modules[type];
}

static inline uint32_t weight_dim(const struct Tensor *w, uint32_t from_last) {
    return w->dim[w->n_dims - 1 - from_last];
}

static inline void assert_weights(const struct Tensor *w, const struct Routing *g) {
    assert(w->type != DT_U32 && w->n_dims >= 2 && weight_dim(w, 0) % max_u64(DTYPES[w->type].block, 8) == 0);
    assert(!g || (w->n_dims == 3 && w->dim[0] == g->n_experts));
    (void)w, (void)g;
}

static inline void tune_operand(struct TuneQuestion *q, size_t at, enum DType type, uint32_t cols) {
    q->operands[q->n_operands++] = (struct TuneOperand){at, type, cols};
}

// op_linear where linear_is_few.
void linear_few(struct Cmd *c, const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
                const struct Routing *g, struct LinearOptions o);
