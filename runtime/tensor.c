// The table of number formats and the sizes that follow from it.
#include "runtime/tensor.h"

#include <assert.h>
#include <strings.h>

const struct DTypeInfo DTYPES[DT_COUNT] = {
    [DT_F32] = {"f32", 1, 4, DT_F32, 0, 0},
    [DT_F16] = {"f16", 1, 2, DT_F16, 1, 1},
    [DT_BF16] = {"bf16", 1, 2, DT_BF16, 32, 30},
    [DT_Q4_0] = {"q4_0", 32, 18, DT_F16, 2, 2},
    [DT_Q4_1] = {"q4_1", 32, 20, DT_F16, 3, 3},
    [DT_Q8_0] = {"q8_0", 32, 34, DT_F16, 7, 8},
    [DT_Q5_0] = {"q5_0", 32, 22, DT_F16, 8, 6},
    [DT_Q5_1] = {"q5_1", 32, 24, DT_F16, 9, 7},
    [DT_Q2_K] = {"q2_k", 256, 84, DT_Q4_0, 10, 10},
    [DT_Q3_K] = {"q3_k", 256, 110, DT_Q4_0, 11, 11},
    [DT_Q4_K] = {"q4_k", 256, 144, DT_Q5_0, 14, 12},
    [DT_Q5_K] = {"q5_k", 256, 176, DT_Q5_1, 16, 13},
    [DT_Q6_K] = {"q6_k", 256, 210, DT_Q8_0, 18, 14},
    [DT_IQ4_NL] = {"iq4_nl", 32, 18, DT_F16, 25, 20},
    [DT_IQ4_XS] = {"iq4_xs", 256, 136, DT_IQ4_NL, 30, 23},
    [DT_U32] = {"u32", 1, 4, DT_U32, 0, UINT32_MAX},
};

bool dtype_find(const char *name, enum DType *type) {
    for (int i = 0; i < DT_COUNT; i++) {
        if (strcasecmp(DTYPES[i].name, name) == 0) {
            *type = (enum DType)i;
            return true;
        }
    }
    return false;
}

enum DType dtype_for_cols(enum DType type, uint64_t cols) {
    while (cols % DTYPES[type].block)
        type = DTYPES[type].narrow;
    return type;
}

uint64_t dtype_file_row_bytes(enum DType type, uint64_t cols) {
    assert(cols % DTYPES[type].block == 0);
    return cols / DTYPES[type].block * DTYPES[type].block_bytes;
}

uint64_t dtype_row_bytes(enum DType type, uint64_t cols) {
    uint64_t bytes = dtype_file_row_bytes(type, cols);
    return dtype_is_quantised(type) ? align_up(bytes, 16) : bytes;
}

struct Tensor tensor_shape(enum DType type, uint32_t n_dims, const uint32_t *dim) {
    struct Tensor t = {.type = type, .n_dims = n_dims, .dim = {1, 1, 1, 1}};
    uint64_t rows = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        t.dim[i] = dim[i];
        if (i + 1 < n_dims)
            rows *= dim[i];
    }
    t.bytes = align_up(rows * dtype_row_bytes(type, dim[n_dims - 1]), 4);
    return t;
}

struct Tensor tensor_slice(const struct Tensor *t, uint32_t first, uint32_t count) {
    assert(t->n_dims > 0 && t->dim[0] > 0 && (uint64_t)first + count <= t->dim[0]);
    struct Tensor slice = *t;
    uint64_t bytes_each = t->bytes / t->dim[0];
    slice.dim[0] = count;
    slice.address += first * bytes_each;
    slice.bytes = count * bytes_each;
    return slice;
}
