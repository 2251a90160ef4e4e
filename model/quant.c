// Number formats on the host: the halves, and rows of any type. A quantised row is a chain of blocks in files; their codecs are in
// quant_decode.c and quant_search.c, their other order on the device in quant_device.c.
#include "model/quant.h"
#include "model/quant_codec.h"

#include <assert.h>
#include <math.h>
#include <string.h>

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

static const struct {
    void (*decode)(const uint8_t *block, float *out);
    void (*encode)(const float *in, uint8_t *block);                          // NULL: always by search
    void (*search)(const float *in, const float *importance, uint8_t *block); // NULL: rounding alone is as good
} CODECS[DT_COUNT] = {
    [DT_Q4_0] = {decode_q4_0, encode_q4_0, search_q4_0}, [DT_Q4_1] = {decode_q4_1, encode_q4_1, search_q4_1},
    [DT_Q8_0] = {decode_q8_0, encode_q8_0, NULL},        [DT_Q5_0] = {decode_q5_0, encode_q5_0, search_q5_0},
    [DT_Q5_1] = {decode_q5_1, encode_q5_1, search_q5_1}, [DT_Q2_K] = {decode_q2_k, NULL, search_q2_k},
    [DT_Q3_K] = {decode_q3_k, NULL, search_q3_k},        [DT_Q4_K] = {decode_q4_k, NULL, search_q4_k},
    [DT_Q5_K] = {decode_q5_k, NULL, search_q5_k},        [DT_Q6_K] = {decode_q6_k, NULL, search_q6_k},
    [DT_IQ4_NL] = {decode_iq4_nl, NULL, search_iq4_nl},  [DT_IQ4_XS] = {decode_iq4_xs, NULL, search_iq4_xs},
};

// From where on a value rounds to infinity: in f16 65520, which a quantised type reaches times its greatest quant and whole scale. A value
// below may still need an f16 of its block that is too large: the minimum of Q4_1 bears no factor.
static const float BEYOND[DT_COUNT] = {
    [DT_F32] = INFINITY,
    [DT_F16] = 65520,
    [DT_BF16] = 0x1.ffp127f,
    [DT_Q4_0] = 65520.0f * 8,
    [DT_Q4_1] = 65520.0f * 16,
    [DT_Q5_0] = 65520.0f * 16,
    [DT_Q5_1] = 65520.0f * 32,
    [DT_Q8_0] = 65520.0f * 127,
    [DT_Q2_K] = 65520.0f * 15 * 3,
    [DT_Q3_K] = 65520.0f * 32 * 4,
    [DT_Q4_K] = 65520.0f * 63 * 15,
    [DT_Q5_K] = 65520.0f * 63 * 31,
    [DT_Q6_K] = 65520.0f * 128 * 32,
    [DT_IQ4_NL] = 65520.0f * 127,
    [DT_IQ4_XS] = 65520.0f * 32 * 127,
};

static bool row_in_reach(enum DType type, const float *in, uint64_t cols) {
    float beyond = BEYOND[type];
    uint32_t out_of_reach = 0;
    for (uint64_t i = 0; i < cols; i++)
        out_of_reach |= !(fabsf(in[i]) < beyond); // a NaN too
    return out_of_reach == 0;
}

// Where the f16 numbers of a block lie.
static const struct {
    uint8_t count, at[2];
} HALVES[DT_COUNT] = {
    [DT_Q4_0] = {1, {0}},    [DT_Q4_1] = {2, {0, 2}},   [DT_Q8_0] = {1, {0}},   [DT_Q5_0] = {1, {0}},
    [DT_Q5_1] = {2, {0, 2}}, [DT_Q2_K] = {2, {80, 82}}, [DT_Q3_K] = {1, {108}}, [DT_Q4_K] = {2, {0, 2}},
    [DT_Q5_K] = {2, {0, 2}}, [DT_Q6_K] = {1, {208}},    [DT_IQ4_NL] = {1, {0}}, [DT_IQ4_XS] = {1, {0}},
};

static bool block_is_finite(enum DType type, const uint8_t *block) {
    for (uint32_t h = 0; h < HALVES[type].count; h++)
        if ((load_u16(block + HALVES[type].at[h]) & 0x7c00) == 0x7c00)
            return false;
    return true;
}

bool quant_encode_row_weighted(enum DType type, const float *in, const float *importance, uint64_t cols, void *out) {
    assert(cols % DTYPES[type].block == 0 && type != DT_U32);
    if (!row_in_reach(type, in, cols))
        return false;
    uint8_t *to = out;
    if (type == DT_F32)
        memcpy(out, in, cols * sizeof *in);
    for (uint64_t i = 0; type == DT_F16 && i < cols; i++)
        store_u16(to + 2 * i, f16_from_f32(in[i]));
    for (uint64_t i = 0; type == DT_BF16 && i < cols; i++)
        store_u16(to + 2 * i, bf16_from_f32(in[i]));
    if (!dtype_is_quantised(type))
        return true;
    bool search = CODECS[type].search && (importance || !CODECS[type].encode), finite = true;
    for (uint64_t i = 0; i < cols; i += DTYPES[type].block, to += DTYPES[type].block_bytes) {
        if (search)
            CODECS[type].search(in + i, importance ? importance + i : NULL, to);
        else
            CODECS[type].encode(in + i, to);
        finite &= block_is_finite(type, to);
    }
    return finite;
}

bool quant_encode_row(enum DType type, const float *in, uint64_t cols, void *out) {
    return quant_encode_row_weighted(type, in, NULL, cols, out);
}

bool quant_refuse_row(enum DType type, const float *in, uint64_t cols, const char *file, const char *tensor,
                      uint64_t row) {
    uint64_t worst = 0;
    for (uint64_t i = 1; i < cols && isfinite(in[worst]); i++)
        if (!(fabsf(in[i]) <= fabsf(in[worst])))
            worst = i;
    if (!isfinite(in[worst]))
        return fail("%s: tensor %s holds a value that is not finite: %g (row %llu, column %llu)", file, tensor,
                    (double)in[worst], (unsigned long long)row, (unsigned long long)worst);
    return fail("%s: tensor %s holds a value too large for %s: %g (row %llu, column %llu)", file, tensor,
                DTYPES[type].name, (double)in[worst], (unsigned long long)row, (unsigned long long)worst);
}

void quant_decode_row(enum DType type, const void *in, uint64_t cols, float *out) {
    assert(cols % DTYPES[type].block == 0 && type != DT_U32);
    const uint8_t *from = in;
    if (type == DT_F32)
        memcpy(out, in, cols * sizeof *out);
    for (uint64_t i = 0; type == DT_F16 && i < cols; i++)
        out[i] = f16_to_f32(load_u16(from + 2 * i));
    for (uint64_t i = 0; type == DT_BF16 && i < cols; i++)
        out[i] = bf16_to_f32(load_u16(from + 2 * i));
    if (!dtype_is_quantised(type))
        return;
    for (uint64_t i = 0; i < cols; i += DTYPES[type].block, from += DTYPES[type].block_bytes)
        CODECS[type].decode(from, out + i);
}
