// Number formats on the host. A quantised row is a chain of blocks of 32 in files; on the device the quants of all blocks come
// first and the scales after them, so that both are read as aligned words. The arithmetic is that of ggml's reference quantisers:
// f32 throughout, the scale rounded to f16 only for storage.
#include "model/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

static uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    if (exponent == 31) // a signalling NaN becomes a quiet one, as processors do
        return bits_float(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return bits_float(float_bits(value) | sign);
    }
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f16_from_f32(float value) {
    uint32_t bits = float_bits(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) // 65520 and above round to infinity
        return sign | 0x7c00;
    if (magnitude < 0x38800000) {
        // Below 2^-14: adding 0.5 leaves the multiple of 2^-24, rounded to nearest even, in the mantissa.
        float shifted = bits_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_bits(shifted) - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

uint16_t bf16_from_f32(float value) {
    uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void store_u16(uint8_t *to, uint16_t value) { memcpy(to, &value, sizeof value); }

static uint16_t load_u16(const uint8_t *from) {
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

// Truncates towards zero and clamps; a NaN gives the lower bound (a plain cast would be undefined).
static int clamped(float x, int low, int high) {
    if (!(x > (float)low))
        return low;
    return x < (float)high ? (int)x : high;
}

static void encode_q4_0(const float *in, uint8_t *block) {
    float largest = 0, magnitude = 0;
    for (int i = 0; i < BLOCK; i++) {
        if (magnitude < fabsf(in[i])) {
            magnitude = fabsf(in[i]);
            largest = in[i];
        }
    }
    float d = largest / -8, inverse = d != 0 ? 1.0f / d : 0.0f;
    store_u16(block, f16_from_f32(d));
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = clamped(in[i] * inverse + 8.5f, 0, 15), high = clamped(in[i + 16] * inverse + 8.5f, 0, 15);
        block[2 + i] = (uint8_t)(low | high << 4);
    }
}

static void encode_q4_1(const float *in, uint8_t *block) {
    float low = INFINITY, high = -INFINITY;
    for (int i = 0; i < BLOCK; i++) {
        low = in[i] < low ? in[i] : low;
        high = in[i] > high ? in[i] : high;
    }
    float d = (high - low) / 15, inverse = d != 0 ? 1.0f / d : 0.0f;
    store_u16(block, f16_from_f32(d));
    store_u16(block + 2, f16_from_f32(low));
    for (int i = 0; i < BLOCK / 2; i++) {
        int a = clamped((in[i] - low) * inverse + 0.5f, 0, 15), b = clamped((in[i + 16] - low) * inverse + 0.5f, 0, 15);
        block[4 + i] = (uint8_t)(a | b << 4);
    }
}

static void encode_q8_0(const float *in, uint8_t *block) {
    float magnitude = 0;
    for (int i = 0; i < BLOCK; i++)
        magnitude = fabsf(in[i]) > magnitude ? fabsf(in[i]) : magnitude;
    float d = magnitude / 127, inverse = d != 0 ? 1.0f / d : 0.0f;
    store_u16(block, f16_from_f32(d));
    for (int i = 0; i < BLOCK; i++)
        block[2 + i] = (uint8_t)(int8_t)clamped(roundf(in[i] * inverse), -128, 127);
}

void quant_encode_row(enum DType type, const float *in, uint64_t cols, void *out) {
    assert(cols % DTYPES[type].block == 0);
    uint8_t *to = out;
    switch (type) {
    case DT_F32:
        memcpy(out, in, cols * sizeof *in);
        break;
    case DT_F16:
        for (uint64_t i = 0; i < cols; i++)
            store_u16(to + 2 * i, f16_from_f32(in[i]));
        break;
    case DT_BF16:
        for (uint64_t i = 0; i < cols; i++)
            store_u16(to + 2 * i, bf16_from_f32(in[i]));
        break;
    case DT_Q4_0:
        for (uint64_t i = 0; i < cols; i += BLOCK, to += 18)
            encode_q4_0(in + i, to);
        break;
    case DT_Q4_1:
        for (uint64_t i = 0; i < cols; i += BLOCK, to += 20)
            encode_q4_1(in + i, to);
        break;
    case DT_Q8_0:
        for (uint64_t i = 0; i < cols; i += BLOCK, to += 34)
            encode_q8_0(in + i, to);
        break;
    default:
        assert(!"a type with a codec");
    }
}

void quant_decode_row(enum DType type, const void *in, uint64_t cols, float *out) {
    assert(cols % DTYPES[type].block == 0);
    const uint8_t *from = in;
    switch (type) {
    case DT_F32:
        memcpy(out, in, cols * sizeof *out);
        break;
    case DT_F16:
        for (uint64_t i = 0; i < cols; i++)
            out[i] = f16_to_f32(load_u16(from + 2 * i));
        break;
    case DT_BF16:
        for (uint64_t i = 0; i < cols; i++)
            out[i] = bf16_to_f32(load_u16(from + 2 * i));
        break;
    case DT_Q4_0:
        for (uint64_t i = 0; i < cols; i += BLOCK, from += 18) {
            float d = f16_to_f32(load_u16(from));
            for (int k = 0; k < BLOCK / 2; k++) {
                out[i + (uint64_t)k] = (float)((from[2 + k] & 15) - 8) * d;
                out[i + (uint64_t)k + 16] = (float)((from[2 + k] >> 4) - 8) * d;
            }
        }
        break;
    case DT_Q4_1:
        for (uint64_t i = 0; i < cols; i += BLOCK, from += 20) {
            float d = f16_to_f32(load_u16(from)), m = f16_to_f32(load_u16(from + 2));
            for (int k = 0; k < BLOCK / 2; k++) {
                out[i + (uint64_t)k] = (float)(from[4 + k] & 15) * d + m;
                out[i + (uint64_t)k + 16] = (float)(from[4 + k] >> 4) * d + m;
            }
        }
        break;
    case DT_Q8_0:
        for (uint64_t i = 0; i < cols; i += BLOCK, from += 34) {
            float d = f16_to_f32(load_u16(from));
            for (int k = 0; k < BLOCK; k++)
                out[i + (uint64_t)k] = (float)(int8_t)from[2 + k] * d;
        }
        break;
    default:
        assert(!"a type with a codec");
    }
}

void quant_row_to_device(enum DType type, const void *file_row, uint64_t cols, void *device_row) {
    if (!dtype_is_quantised(type)) {
        memcpy(device_row, file_row, dtype_file_row_bytes(type, cols));
        return;
    }
    uint64_t blocks = cols / BLOCK, scale = type == DT_Q4_1 ? 4 : 2, quants = DTYPES[type].block_bytes - scale;
    const uint8_t *from = file_row;
    uint8_t *to = device_row, *scales = to + blocks * quants;
    for (uint64_t b = 0; b < blocks; b++, from += scale + quants) {
        memcpy(scales + b * scale, from, scale);
        memcpy(to + b * quants, from + scale, quants);
    }
    memset(scales + blocks * scale, 0, dtype_row_bytes(type, cols) - blocks * (scale + quants));
}

void quant_row_from_device(enum DType type, const void *device_row, uint64_t cols, void *file_row) {
    if (!dtype_is_quantised(type)) {
        memcpy(file_row, device_row, dtype_file_row_bytes(type, cols));
        return;
    }
    uint64_t blocks = cols / BLOCK, scale = type == DT_Q4_1 ? 4 : 2, quants = DTYPES[type].block_bytes - scale;
    const uint8_t *from = device_row, *scales = from + blocks * quants;
    uint8_t *to = file_row;
    for (uint64_t b = 0; b < blocks; b++, to += scale + quants) {
        memcpy(to, scales + b * scale, scale);
        memcpy(to + scale, from + b * quants, quants);
    }
}
