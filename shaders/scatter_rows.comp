// y[index[i]] (+)= x[i], indices distinct; one beyond y, as 0xffffffff, is skipped. A workgroup is a row. y is f32, or a cache of
// keys or values in its own type (nothing is added there).
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"

// Two blocks at a time: their scales share a word. Returns the scale's bits.
uint store_block(uint from, uint to) {
    float peak = 0;
    for (uint i = 0; i < 8; i++) {
        const vec4 x = abs(f32x4_in(p.x).v[from + i]);
        peak = max(peak, max(max(x.x, x.y), max(x.z, x.w)));
    }
    const float inverse = peak == 0 ? 0 : 127 / peak;
    for (uint i = 0; i < 8; i++) {
        const vec4 x = f32x4_in(p.x).v[from + i] * inverse;
        const uvec4 q = uvec4(ivec4(clamp(trunc(x + sign(x) * 0.5), -127, 127))) & 255u;
        u32_rw(p.y).v[to + i] = q.x | q.y << 8 | q.z << 16 | q.w << 24;
    }
    return f16_bits(peak / 127);
}

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    uint to = p.index.v[row], quads = p.dim / 4;
    if (to >= p.y_rows)
        return;
    if (CACHE_TYPE == 3) {
        const uint blocks = p.dim / 32, words = to * q8_row_words(p.dim);
        for (uint pair = gl_LocalInvocationID.x; pair < (blocks + 1) / 2; pair += LOCAL_SIZE) {
            uint scales = store_block(row * quads + 16 * pair, words + 16 * pair);
            if (2 * pair + 1 < blocks)
                scales |= store_block(row * quads + 16 * pair + 8, words + 16 * pair + 8) << 16;
            u32_rw(p.y).v[words + quads + pair] = scales;
        }
        return;
    }
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 x = f32x4_in(p.x).v[row * quads + q];
        if (CACHE_TYPE != 0) {
            const uvec2 words = cache_pack4(x);
            u32_rw(p.y).v[2 * (to * quads + q)] = words.x;
            u32_rw(p.y).v[2 * (to * quads + q) + 1] = words.y;
            continue;
        }
        if (p.accumulate != 0)
            x += f32x4_in(p.y).v[to * quads + q];
        f32x4_rw(p.y).v[to * quads + q] = x;
    }
}
