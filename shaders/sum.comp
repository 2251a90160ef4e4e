// Sums in a fixed order: workgroup g adds up elements g*chunk .. (g+1)*chunk-1 of x, or their squares, into y[first + g] (+= where accumulating).
// A long tensor takes two rounds, the second over the parts of the first.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint VEC4 = 0; // x and chunk are multiples of 16 bytes
layout(constant_id = 3) const uint SQUARES = 0;

void main() {
    uint begin = group_index() * p.chunk, end = min(begin + p.chunk, p.n), lane = gl_LocalInvocationID.x;
    if (begin >= p.n)
        return;
    vec4 sums = vec4(0);
    uint i = begin;
#ifdef PAIRS
    const uint AHEAD = 4; // so many sums beside each other, none of which waits for another
    vec2 pairs[AHEAD];
    [[unroll]] for (uint j = 0; j < AHEAD; j++) pairs[j] = vec2(0);
    for (; i + 16 * AHEAD <= end; i += 16 * AHEAD) {
        const uint from = min(i, end - 16 * AHEAD) / 2; // lavapipe runs a loop's uniform loads once more after its last pass
        [[unroll]] for (uint j = 0; j < AHEAD; j++) {
            const vec2 x = lanes_load(p.x, from + 8 * j);
            pairs[j] += SQUARES != 0 ? x * x : x;
        }
    }
    sums = vec4(pairs[0] + pairs[1], pairs[2] + pairs[3]);
#else
    if (VEC4 != 0) {
        uint quads = (end - begin) / 4;
        for (uint q = lane; q < quads; q += LOCAL_SIZE) {
            vec4 x = f32x4_in(p.x).v[begin / 4 + q];
            sums += SQUARES != 0 ? x * x : x;
        }
        i = begin + 4 * quads;
    }
#endif
    for (i += lane; i < end; i += LOCAL_SIZE) {
        float x = p.x.v[i];
        sums.x += SQUARES != 0 ? x * x : x;
    }
    float sum = group_add((sums.x + sums.y) + (sums.z + sums.w));
    if (lane == 0)
        p.y.v[p.first + group_index()] = p.accumulate != 0 ? p.y.v[p.first + group_index()] + sum : sum;
}
