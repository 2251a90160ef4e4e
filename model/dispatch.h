// Grids that the operations on rows, routing and steps share.
#pragma once
#include "model/ops.h"

// Width of a workgroup that walks `items` neighbours together: one subgroup on CPU devices, else the power of two that keeps most lanes busy.
static inline uint32_t dispatch_local_size(const struct Device *dev, uint32_t items) {
    if (dev->is_cpu)
        return dev->limits.subgroup_size;
    uint32_t local = dev->limits.subgroup_size > 64 ? dev->limits.subgroup_size : 64;
    while (local < 256 && local * 2 <= items)
        local *= 2;
    return local;
}

static inline struct View view_or_none(const struct Tensor *t) { return t ? view(t) : (struct View){0, 0}; }
