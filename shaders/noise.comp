// NEFTune (Jain et al. 2023): noise on the embeddings of training examples, see push.h. A workgroup is a row. The index's highest bit is set, so that
// no draw is one of adamw.comp's, whose seed is the same.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "philox.glsl"

// Odd multiples of 2^-24: symmetric about 0, and exact.
vec4 centred(uvec4 words) { return vec4(ivec4(words >> 8 << 1 | 1) - 16777216) / 16777216; }

void main() {
    uint row = group_index(), quads = p.dim / 4;
    if (row >= p.rows)
        return;
    uvec2 seed = uvec2(p.key.v[0], p.key.v[1]), stream = uvec2(p.examples.v[2 * row], p.key.v[2]);
    float scale = uintBitsToFloat(p.examples.v[2 * row + 1]);
    if (scale == 0) // padding
        return;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 u = centred(philox(seed, stream, uvec2(p.positions.v[row], q | 0x80000000u)));
        precise vec4 y = fma(vec4(scale), u, f32x4_in(p.x).v[row * quads + q]);
        f32x4_rw(p.x).v[row * quads + q] = y;
    }
}
