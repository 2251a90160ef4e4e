// Rows of keys and values in the storage type of the cache, both ways: the twin of formats.glsl for activations. CACHE_TYPE is a specialisation
// constant, so one module serves all types: 0 f32, 1 f16, 2 bf16, 3 q8_0 (blocks of 32 within a head; laid out as weights are).
#ifndef VKMOE_CACHE_GLSL
#define VKMOE_CACHE_GLSL
#include "formats.glsl"

layout(constant_id = 3) const uint CACHE_TYPE = 0;

uint q8_row_words(uint cols) { return (cols / 32 * 34 + 15) / 16 * 4; }
uint cache_row_bytes(uint cols) { return CACHE_TYPE == 3 ? 4 * q8_row_words(cols) : CACHE_TYPE == 0 ? 4 * cols : 2 * cols; }
// Where a head of a row begins: the index of its first four elements, and that of its first scale, counted in halves.
uvec2 cache_place(uint row, uint n_heads, uint head, uint head_dim) {
    if (CACHE_TYPE != 3)
        return uvec2((row * n_heads + head) * (head_dim / 4), 0);
    const uint cols = n_heads * head_dim, words = row * q8_row_words(cols);
    return uvec2(words + head * (head_dim / 4), 2 * (words + cols / 4) + head * (head_dim / 32));
}
// Elements 4d .. 4d+3 of the head.
vec4 cache_get4(f32x4_in x, uvec2 place, uint d) {
    if (CACHE_TYPE == 0)
        return AT(f32x4_in, x, place.x + d, 16);
    if (CACHE_TYPE == 3) {
        const uint at = place.y + d / 8;
        return signed_bytes4(AT(u32_in, x, place.x + d, 4)) * unpackHalf2x16(AT(u32_in, x, at >> 1, 4) >> ((at & 1) * 16)).x;
    }
    const uvec2 words = AT(u32x2_in, x, place.x + d, 8);
    if (CACHE_TYPE == 1)
        return vec4(unpackHalf2x16(words.x), unpackHalf2x16(words.y));
    const uvec2 low = words << 16, high = words & 0xffff0000u;
    return uintBitsToFloat(uvec4(low.x, high.x, low.y, high.y));
}

// To nearest, ties to even, in integers: the rounding of packHalf2x16 is the driver's choice.
uint f16_bits(float x) {
    const uint bits = floatBitsToUint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return sign | 0x7e00u;
    if (magnitude >= 0x477ff000u)
        return sign | 0x7c00u;
    if (magnitude < 0x38800000u)
        return sign | (floatBitsToUint(uintBitsToFloat(magnitude) + 0.5) - 0x3f000000u);
    return sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
}
uvec2 cache_pack4(vec4 x) {
    if (CACHE_TYPE == 1)
        return uvec2(f16_bits(x.x) | f16_bits(x.y) << 16, f16_bits(x.z) | f16_bits(x.w) << 16);
    return uvec2(bf16_bits(x.x) | bf16_bits(x.y) << 16, bf16_bits(x.z) | bf16_bits(x.w) << 16);
}
// A block of q8_0 to words `to` and on; returns the bits of its scale.
uint q8_store_block(u32_rw y, uint to, vec4 x[8]) {
    float peak = 0;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        const vec4 size = abs(x[i]);
        peak = max(peak, max(max(size.x, size.y), max(size.z, size.w)));
    }
    const float inverse = peak == 0 ? 0 : 127 / peak;
    [[unroll]] for (uint i = 0; i < 8; i++) {
        const vec4 scaled = x[i] * inverse;
        const uvec4 q = uvec4(ivec4(clamp(trunc(scaled + sign(scaled) * 0.5), -127, 127))) & 255u;
        y.v[to + i] = q.x | q.y << 8 | q.z << 16 | q.w << 24;
    }
    return f16_bits(peak / 127);
}
#endif
