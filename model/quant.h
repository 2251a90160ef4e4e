// Number formats on the host: rows of f32 to and from every storage type, and the repacking between the layout of files
// (GGUF's blocks) and that of the device (quant_device.c).
#pragma once
#include "runtime/tensor.h"

float f16_to_f32(uint16_t half);
uint16_t f16_from_f32(float value); // round to nearest even; overflow gives infinity
static inline float bf16_to_f32(uint16_t b) {
    union {
        uint32_t bits;
        float value;
    } u = {(uint32_t)b << 16};
    return u.value;
}
uint16_t bf16_from_f32(float value); // round to nearest even; a NaN stays one

// One row of `cols` elements (a multiple of the type's block) in file layout. DT_U32 has no codec. Encoding rounds as ggml's reference
// does where that is defined (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0); the other types, and those too where the importance of each column is
// known (from an importance matrix; NULL: it is not), search for the scales that make the least weighted square error.
// False, and then the row is of no use: a value is not finite, or further from 0 than the type reaches.
bool quant_encode_row_weighted(enum DType type, const float *in, const float *importance, uint64_t cols, void *out);
bool quant_encode_row(enum DType type, const float *in, uint64_t cols, void *out);
// Fails with a line about a row that could not be encoded: the first value that is not finite, else the one furthest from 0.
bool quant_refuse_row(enum DType type, const float *in, uint64_t cols, const char *file, const char *tensor,
                      uint64_t row);
void quant_decode_row(enum DType type, const void *in, uint64_t cols, float *out);
// One row, file layout to device layout and back. The buffers must not overlap. Plain types are copied.
void quant_row_to_device(enum DType type, const void *file_row, uint64_t cols, void *device_row);
void quant_row_from_device(enum DType type, const void *device_row, uint64_t cols, void *file_row);
