// The codecs of the quantised types, block by block: what quant.c's tables are made of.
#pragma once
#include <stdint.h>

enum { BLOCK = 32, SUPER = 256 }; // elements of a small block, and of a block of the K types and IQ4_XS

// The 16 values of IQ4_NL and IQ4_XS, in steps of their scale.
extern const int8_t QUANT_CURVE[16];

// Decoding (quant_decode.c): the order of the operations is that of gguf-py's quants.py, bit for bit.
void decode_q4_0(const uint8_t *block, float *out);
void decode_q4_1(const uint8_t *block, float *out);
void decode_q5_0(const uint8_t *block, float *out);
void decode_q5_1(const uint8_t *block, float *out);
void decode_q8_0(const uint8_t *block, float *out);
void decode_q2_k(const uint8_t *block, float *out);
void decode_q3_k(const uint8_t *block, float *out);
void decode_q4_k(const uint8_t *block, float *out);
void decode_q5_k(const uint8_t *block, float *out);
void decode_q6_k(const uint8_t *block, float *out);
void decode_iq4_nl(const uint8_t *block, float *out);
void decode_iq4_xs(const uint8_t *block, float *out);

// Encoding by rounding alone, as ggml's reference quantisers do it.
void encode_q4_0(const float *in, uint8_t *block);
void encode_q4_1(const float *in, uint8_t *block);
void encode_q5_0(const float *in, uint8_t *block);
void encode_q5_1(const float *in, uint8_t *block);
void encode_q8_0(const float *in, uint8_t *block);

// Encoding by a search for the scales (quant_search.c) that makes the least weighted square error. `importance`: of each element, NULL:
// none is known.
void search_q4_0(const float *in, const float *importance, uint8_t *block);
void search_q4_1(const float *in, const float *importance, uint8_t *block);
void search_q5_0(const float *in, const float *importance, uint8_t *block);
void search_q5_1(const float *in, const float *importance, uint8_t *block);
void search_q2_k(const float *in, const float *importance, uint8_t *block);
void search_q3_k(const float *in, const float *importance, uint8_t *block);
void search_q4_k(const float *in, const float *importance, uint8_t *block);
void search_q5_k(const float *in, const float *importance, uint8_t *block);
void search_q6_k(const float *in, const float *importance, uint8_t *block);
void search_iq4_nl(const float *in, const float *importance, uint8_t *block);
void search_iq4_xs(const float *in, const float *importance, uint8_t *block);

// Scale and minimum of part j of 8 in the 12 bytes of Q4_K and Q5_K, 6 bits each.
static inline void scale_min_get(const uint8_t *s, int j, uint8_t *scale, uint8_t *min) {
    *scale = j < 4 ? s[j] & 63 : (uint8_t)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
    *min = j < 4 ? s[j + 4] & 63 : (uint8_t)(s[j + 4] >> 4 | s[j] >> 6 << 4);
}
static inline void scale_min_put(uint8_t *s, int j, uint8_t scale, uint8_t min) { // into zeroed bytes, j in order
    if (j < 4) {
        s[j] = scale;
        s[j + 4] = min;
    } else {
        s[j + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        s[j - 4] |= (uint8_t)(scale >> 4 << 6);
        s[j] |= (uint8_t)(min >> 4 << 6);
    }
}
// Scale j of 16 in the 12 bytes of Q3_K, 6 bits.
static inline uint8_t scale_q3_get(const uint8_t *s, int j) {
    return (uint8_t)((s[j & 7] >> (j & 8) / 2 & 15) | (s[8 + (j & 3)] >> j / 4 * 2 & 3) << 4);
}
static inline void scale_q3_put(uint8_t *s, int j, uint8_t scale) { // into zeroed bytes
    s[j & 7] |= (uint8_t)((scale & 15) << (j & 8) / 2);
    s[8 + (j & 3)] |= (uint8_t)(scale >> 4 << j / 4 * 2);
}
