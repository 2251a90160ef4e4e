// What the checks of rows (check_rows.c), of experts (check_moe.c) and of loss, optimiser and sampling (check_step.c) share.
#pragma once
#include "model/opcheck.h"
#include "model/ref.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Variants of a case.
enum { BIG = 1, KEEP = 2, ACCUMULATE = 4, BACKWARD = 8, WEIGHTED = 16 };
enum { NORM_TOPK = 1, TIES = 2, HUGE_LOGITS = 4, WITH_BALANCE = 8, ONE_EXPERT = 16, PLAIN_WEIGHTS = 32, FUSED = 64 };
enum { SAMPLE_PARTS = 16 }; // beside the number of a setting: several workgroups a row

#define BOUND_PLAIN 1e-12 // a few roundings: (1e-6)^2
#define BOUND_EXP   4e-12 // the driver's exp and log come in

static inline double *doubles(uint64_t n) { return xcalloc(n, sizeof(double)); }
static inline uint32_t *uints(uint64_t n) { return xcalloc(n, sizeof(uint32_t)); }
static inline double *copied(const struct CheckTensor *t) {
    double *copy = doubles(t->n);
    memcpy(copy, t->value, t->n * sizeof *copy);
    return copy;
}

static inline struct CheckTensor *indices(struct CheckRun *r, uint64_t stream, uint32_t n, uint32_t below,
                                          uint32_t *values) {
    for (uint32_t i = 0; i < n; i++)
        values[i] = random_below(r->ck, stream, i, below);
    return checkrun_values(r, DT_U32, DIMS(n), values);
}

// A wrong index fails whatever the bound.
static inline void compare_uints(struct CheckRun *r, const struct CheckTensor *t, const uint32_t *want, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (t->value[i] != want[i])
            r->ck->nmse = INFINITY;
}

static inline bool finish(struct CheckRun *r, bool ok, double bound) {
    r->ck->bound = bound;
    checkrun_end(r);
    return ok;
}

// Logits of a router; with TIES they are few whole numbers, so that many are equal.
static inline struct CheckTensor *router_logits(struct CheckRun *r, uint32_t tokens, uint32_t n_experts,
                                                uint32_t variant) {
    if (!(variant & TIES))
        return checkrun_random(r, DT_F32, DIMS(tokens, n_experts), variant & HUGE_LOGITS ? 1e4 : 1);
    float *values = xmalloc((size_t)tokens * n_experts * sizeof *values);
    for (uint32_t i = 0; i < tokens * n_experts; i++)
        values[i] = (float)random_below(r->ck, 3, i, 3);
    struct CheckTensor *t = checkrun_values(r, DT_F32, DIMS(tokens, n_experts), values);
    free(values);
    return t;
}

// ---- check_moe.c
bool check_route(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_remap(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_route_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_sort(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_balance(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_combine(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_expert_swiglu_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);

// ---- check_step.c
bool check_xent(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_sum(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_norm(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_adamw(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_follow(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_logit_bias(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_mask_logits(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_penalty(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_argmax(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_sample(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
