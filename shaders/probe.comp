// Measures the device, not a model. MODE 0: fused multiply-adds in registers (with -DDOT2 of pairs of f16), `rounds` times 12 per lane; 1: reads n vectors; 2: copies them.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#ifdef DOT2
#include "dot2.glsl"
#endif
layout(constant_id = 2) const uint MODE = 0;

void multiply_add(uint lane) {
    // Twelve independent chains hide the latency of each other; more would not fit into the registers of a CPU.
    float a[12];
    [[unroll]] for (uint i = 0; i < 12; i++)
        a[i] = float(lane + i) * 1e-6;
    float x = 1.0 - float(p.n & 1u) * 1e-7, y = float(p.n & 2u) * 1e-7;
#ifdef DOT2
    const f16vec2 u = f16vec2(float16_t(x), float16_t(y)), v = f16vec2(float16_t(y), float16_t(x));
#define STEP(sum) dot2_add(u, v, sum)
#else
#define STEP(sum) fma(sum, x, y)
#endif
    for (uint r = 0; r < p.rounds; r += 8)
        [[unroll]] for (uint i = 0; i < 8 * 12; i++)
            a[i % 12] = STEP(a[i % 12]);
    float sum = 0;
    [[unroll]] for (uint i = 0; i < 12; i++)
        sum += a[i];
    p.y.v[lane] = uvec4(floatBitsToUint(sum));
}

void main() {
    uint lane = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x;
    // A workgroup goes through a piece of its own from end to end.
    uint piece = (p.n + gl_NumWorkGroups.x - 1) / gl_NumWorkGroups.x, end = min((group_index() + 1) * piece, p.n);
    uint first = group_index() * piece + gl_LocalInvocationID.x;
    if (MODE == 0) {
        multiply_add(lane);
    } else if (MODE == 1) {
        uvec4 sum = uvec4(0);
        for (uint i = first; i < end; i += LOCAL_SIZE)
            sum ^= p.x.v[i];
        p.y.v[lane] = sum;
    } else {
        for (uint i = first; i < end; i += LOCAL_SIZE)
            p.y.v[i] = p.x.v[i];
    }
}
