// What attention's backward on matrix units is fed with, for every row and head: queries times what makes of a product a score in base 2, rounded as
// the forward rounds them, and the gradient of the result, whose greatest number is brought to 1 to 2 by a power of two: f16 has not the
// range of gradients. Beside them delta = <dy, o> divided by that power, and the power. CACHE_TYPE is the operands' type. A thread is one row and
// head; rows beyond the last are zeros, because matrices are loaded whole.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

const float F16_MOST = 65504;
uvec4 eight_of(vec4 a, vec4 b) {
    if (CACHE_TYPE == 1) {
        a = clamp(a, -F16_MOST, F16_MOST);
        b = clamp(b, -F16_MOST, F16_MOST);
    }
    return uvec4(cache_pack4(a), cache_pack4(b));
}

void main() {
    const uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x, first = i * HEAD_VECS;
    if (i >= p.rows_packed * p.n_heads)
        return;
    const bool there = i < p.rows * p.n_heads;
    f32x4_in q4 = f32x4_in(p.q), o4 = f32x4_in(p.o), dy4 = f32x4_in(p.dy);
    precise float sum = 0;
    vec4 most = vec4(0);
    for (uint d = 0; there && d < HEAD_VECS; d++) {
        const vec4 o = o4.v[first + d], dy = dy4.v[first + d];
        [[unroll]] for (uint j = 0; j < 4; j++) sum = fma(o[j], dy[j], sum);
        most = max(most, abs(dy));
    }
    const uint exponent = clamp(floatBitsToUint(max(max(most.x, most.y), max(most.z, most.w))) >> 23, 1, 253);
    const float down = uintBitsToFloat((254 - exponent) << 23);
    for (uint d = 0; d < HEAD_VECS; d += 2) {
        uvec4 q = uvec4(0), dy = uvec4(0);
        if (there) {
            q = eight_of(q4.v[first + d] * (p.scale * LOG2E), q4.v[first + d + 1] * (p.scale * LOG2E));
            dy = eight_of(dy4.v[first + d] * down, dy4.v[first + d + 1] * down);
        }
        u32x4_rw(p.q_packed).v[(first + d) / 2] = q;
        u32x4_rw(p.dy_packed).v[(first + d) / 2] = dy;
    }
    if (there) {
        p.delta.v[2 * i] = sum * down;
        p.delta.v[2 * i + 1] = uintBitsToFloat(exponent << 23);
    }
}
