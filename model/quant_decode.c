// Blocks of the quantised types to floats, and the encoders that only round. The arithmetic is that of ggml's reference: f32 throughout,
// the scale rounded to f16 only for storage.
#include "model/quant.h"
#include "model/quant_codec.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

const int8_t QUANT_CURVE[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static float half_load(const uint8_t *from) {
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return f16_to_f32(value);
}

static void half_store(uint8_t *to, float value) {
    uint16_t half = f16_from_f32(value);
    memcpy(to, &half, sizeof half);
}

static uint32_t word_load(const uint8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

// Truncates towards zero and clamps; a NaN gives the lower bound (a plain cast would be undefined).
static int clamped(float x, int low, int high) {
    if (!(x > (float)low))
        return low;
    return x < (float)high ? (int)x : high;
}

// ---- Blocks of 32 ----
// Byte i of 16 holds element i in its low and element i + 16 in its high nibble; a word more holds a fifth bit of each element.

void decode_q4_0(const uint8_t *block, float *out) {
    float d = half_load(block);
    for (int i = 0; i < BLOCK / 2; i++) {
        out[i] = (float)((block[2 + i] & 15) - 8) * d;
        out[i + 16] = (float)((block[2 + i] >> 4) - 8) * d;
    }
}

void decode_q4_1(const uint8_t *block, float *out) {
    float d = half_load(block), m = half_load(block + 2);
    for (int i = 0; i < BLOCK / 2; i++) {
        out[i] = (float)(block[4 + i] & 15) * d + m;
        out[i + 16] = (float)(block[4 + i] >> 4) * d + m;
    }
}

void decode_q5_0(const uint8_t *block, float *out) {
    float d = half_load(block);
    uint32_t high = word_load(block + 2);
    for (int i = 0; i < BLOCK / 2; i++) {
        out[i] = (float)((int)((block[6 + i] & 15u) | (high >> i & 1) << 4) - 16) * d;
        out[i + 16] = (float)((int)(block[6 + i] >> 4u | (high >> (i + 16) & 1) << 4) - 16) * d;
    }
}

void decode_q5_1(const uint8_t *block, float *out) {
    float d = half_load(block), m = half_load(block + 2);
    uint32_t high = word_load(block + 4);
    for (int i = 0; i < BLOCK / 2; i++) {
        out[i] = (float)((block[8 + i] & 15u) | (high >> i & 1) << 4) * d + m;
        out[i + 16] = (float)(block[8 + i] >> 4u | (high >> (i + 16) & 1) << 4) * d + m;
    }
}

void decode_q8_0(const uint8_t *block, float *out) {
    float d = half_load(block);
    for (int i = 0; i < BLOCK; i++)
        out[i] = (float)(int8_t)block[2 + i] * d;
}

void decode_iq4_nl(const uint8_t *block, float *out) {
    float d = half_load(block);
    for (int i = 0; i < BLOCK / 2; i++) {
        out[i] = d * (float)QUANT_CURVE[block[2 + i] & 15];
        out[i + 16] = d * (float)QUANT_CURVE[block[2 + i] >> 4];
    }
}

// The element that is furthest from zero, with its sign: the first of equals.
static float peak_of(const float *in) {
    float peak = 0;
    for (int i = 0; i < BLOCK; i++)
        peak = fabsf(peak) < fabsf(in[i]) ? in[i] : peak;
    return peak;
}

static void range_of(const float *in, float *low, float *high) {
    *low = INFINITY, *high = -INFINITY;
    for (int i = 0; i < BLOCK; i++) {
        *low = in[i] < *low ? in[i] : *low;
        *high = in[i] > *high ? in[i] : *high;
    }
}

void encode_q4_0(const float *in, uint8_t *block) {
    float d = peak_of(in) / -8, inverse = d != 0 ? 1.0f / d : 0.0f;
    half_store(block, d);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = clamped(in[i] * inverse + 8.5f, 0, 15), high = clamped(in[i + 16] * inverse + 8.5f, 0, 15);
        block[2 + i] = (uint8_t)(low | high << 4);
    }
}

void encode_q4_1(const float *in, uint8_t *block) {
    float low, high;
    range_of(in, &low, &high);
    float d = (high - low) / 15, inverse = d != 0 ? 1.0f / d : 0.0f;
    half_store(block, d);
    half_store(block + 2, low);
    for (int i = 0; i < BLOCK / 2; i++) {
        int a = clamped((in[i] - low) * inverse + 0.5f, 0, 15), b = clamped((in[i + 16] - low) * inverse + 0.5f, 0, 15);
        block[4 + i] = (uint8_t)(a | b << 4);
    }
}

static void put_fives(uint8_t *to, const int *q) {
    uint32_t high = 0;
    for (int i = 0; i < BLOCK; i++)
        high |= (uint32_t)q[i] >> 4 << i;
    memcpy(to, &high, 4);
    for (int i = 0; i < BLOCK / 2; i++)
        to[4 + i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

void encode_q5_0(const float *in, uint8_t *block) {
    float d = peak_of(in) / -16, inverse = d != 0 ? 1.0f / d : 0.0f;
    int q[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        q[i] = clamped(in[i] * inverse + 16.5f, 0, 31);
    half_store(block, d);
    put_fives(block + 2, q);
}

void encode_q5_1(const float *in, uint8_t *block) {
    float low, high;
    range_of(in, &low, &high);
    float d = (high - low) / 31, inverse = d != 0 ? 1.0f / d : 0.0f;
    int q[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        q[i] = clamped((in[i] - low) * inverse + 0.5f, 0, 31);
    half_store(block, d);
    half_store(block + 2, low);
    put_fives(block + 4, q);
}

void encode_q8_0(const float *in, uint8_t *block) {
    float magnitude = 0;
    for (int i = 0; i < BLOCK; i++)
        magnitude = fabsf(in[i]) > magnitude ? fabsf(in[i]) : magnitude;
    float d = magnitude / 127, inverse = d != 0 ? 1.0f / d : 0.0f;
    half_store(block, d);
    for (int i = 0; i < BLOCK; i++)
        block[2 + i] = (uint8_t)(int8_t)clamped(roundf(in[i] * inverse), -128, 127);
}

// ---- Blocks of 256 ----

// Bytes: 16 scales and minima of 4 bits, 64 of quants (two bits, in two halves of 128 elements), d, the minimum's d.
void decode_q2_k(const uint8_t *block, float *out) {
    float d = half_load(block + 80), d_min = half_load(block + 82);
    for (int i = 0; i < SUPER; i++) {
        uint8_t s = block[i / 16], q = block[16 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        out[i] = d * (float)(s & 15) * (float)q - d_min * (float)(s >> 4);
    }
}

// 32 of high bits, 64 as in Q2_K, 12 of scales, d. A high bit of 0 takes 4 away.
void decode_q3_k(const uint8_t *block, float *out) {
    float d = half_load(block + 108);
    for (int i = 0; i < SUPER; i++) {
        int q = block[32 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3, high = block[i % 32] >> i / 32 & 1;
        out[i] = d * (float)(scale_q3_get(block + 96, i / 16) - 32) * (float)(q - (high ? 0 : 4));
    }
}

// d, the minimum's d, 12 of scales and minima, 128 of nibbles: 32 elements low, 32 high.
void decode_q4_k(const uint8_t *block, float *out) {
    float d = half_load(block), d_min = half_load(block + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t scale, min;
        scale_min_get(block + 4, j, &scale, &min);
        float factor = d * (float)scale, offset = d_min * (float)min;
        for (int i = 0; i < 32; i++)
            out[32 * j + i] = factor * (float)(block[16 + j / 2 * 32 + i] >> j % 2 * 4 & 15) - offset;
    }
}

// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit j of byte i belongs to element 32j + i.
void decode_q5_k(const uint8_t *block, float *out) {
    float d = half_load(block), d_min = half_load(block + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t scale, min;
        scale_min_get(block + 4, j, &scale, &min);
        float factor = d * (float)scale, offset = d_min * (float)min;
        for (int i = 0; i < 32; i++) {
            int q = (block[48 + j / 2 * 32 + i] >> j % 2 * 4 & 15) | (block[16 + i] >> j & 1) << 4;
            out[32 * j + i] = factor * (float)q - offset;
        }
    }
}

// 128 of low nibbles, 64 of two higher bits, 16 signed scales, d. A half of 128 elements has 64 and 32 bytes.
void decode_q6_k(const uint8_t *block, float *out) {
    float d = half_load(block + 208);
    for (int i = 0; i < SUPER; i++) {
        int half = i / 128, j = i / 32 % 4;
        int low = block[64 * half + j % 2 * 32 + i % 32] >> j / 2 * 4 & 15;
        int high = block[128 + 32 * half + i % 32] >> j * 2 & 3;
        out[i] = d * (float)(int8_t)block[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

// d, two higher bits of 8 scales, four lower ones, 128 of nibbles in the order of IQ4_NL.
void decode_iq4_xs(const uint8_t *block, float *out) {
    float d = half_load(block);
    uint32_t low = word_load(block + 4), high = block[2] | (uint32_t)block[3] << 8;
    for (uint32_t j = 0; j < 8; j++) {
        float factor = d * (float)((int)((low >> 4 * j & 15) | (high >> 2 * j & 3) << 4) - 32);
        for (int i = 0; i < 16; i++) {
            uint8_t q = block[8 + 16 * j + (uint32_t)i];
            out[32 * j + (uint32_t)i] = factor * (float)QUANT_CURVE[q & 15];
            out[32 * j + (uint32_t)i + 16] = factor * (float)QUANT_CURVE[q >> 4];
        }
    }
}
