// What a tensor is: a type, up to four dimensions (outermost first) and an address in device memory. Also the table of
// number formats; shaders/formats.glsl is its twin on the device.
#pragma once
#include "runtime/base.h"

// Shaders know these numbers (EACH_TYPE in shaders/formats.glsl, norm_weight4 in types.glsl), those compiled ahead in shaders/prebuilt too: new ones go before DT_U32.
enum DType {
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_Q4_0,
    DT_Q4_1,
    DT_Q8_0,
    DT_Q5_0,
    DT_Q5_1,
    DT_Q2_K,
    DT_Q3_K,
    DT_Q4_K,
    DT_Q5_K,
    DT_Q6_K,
    DT_IQ4_NL,
    DT_IQ4_XS,
    DT_U32, // after the last type of weights
    DT_COUNT
};
_Static_assert(DT_F32 == 0 && DT_F16 == 1 && DT_BF16 == 2, "numbers that shaders write out");

struct DTypeInfo {
    const char *name;     // as `--type` takes it and as GLSL's -DW= token: "f32", "q4_1"
    uint32_t block;       // elements of a block (1 for plain types, 32 or 256 for the quantised ones)
    uint32_t block_bytes; // bytes of a block in files (GGUF's layout)
    enum DType narrow;    // what stands in for it where a row is no multiple of the block, as llama.cpp chooses
    uint32_t file_kind;   // llama.cpp's general.file_type of a model that is all of this type
    uint32_t ggml;        // number of the type in GGUF; UINT32_MAX: none
};
extern const struct DTypeInfo DTYPES[DT_COUNT];
bool dtype_find(const char *name, enum DType *type); // case does not matter; false when unknown, without a message
enum DType dtype_for_cols(enum DType type, uint64_t cols); // the type, or what stands in for it at such rows
static inline bool dtype_is_quantised(enum DType type) { return DTYPES[type].block > 1; }
// Bytes of a row of `cols` elements as files store it; cols must be a multiple of the block.
uint64_t dtype_file_row_bytes(enum DType type, uint64_t cols);
// Bytes of a row on the device. Plain types: as in the file. Quantised: planes, first all quants of the row, then their higher
// bits, then all scales (model/quant_device.c), padded with zeros to 16 bytes: so that a shader loads aligned words.
uint64_t dtype_row_bytes(enum DType type, uint64_t cols);

struct Tensor {
    enum DType type;
    uint32_t n_dims;
    uint32_t dim[4];  // outermost first; unused dimensions are 1
    uint64_t address; // device address of the first element
    uint64_t bytes;   // size on the device; 0: no tensor
};
// A tensor of that shape (outermost first) that lies nowhere yet.
struct Tensor tensor_shape(enum DType type, uint32_t n_dims, const uint32_t *dim);
static inline bool tensor_exists(const struct Tensor *t) { return t->bytes != 0; }
static inline uint32_t tensor_cols(const struct Tensor *t) { return t->dim[t->n_dims - 1]; }
static inline uint64_t tensor_elements(const struct Tensor *t) {
    return (uint64_t)t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}
static inline uint64_t tensor_rows(const struct Tensor *t) { return tensor_elements(t) / tensor_cols(t); }
// Rows first .. first+count of the outermost dimension, without a copy.
struct Tensor tensor_slice(const struct Tensor *t, uint32_t first, uint32_t count);
