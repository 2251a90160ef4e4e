// Measures the device, not a model. MODE 0: fused multiply-adds in registers, `rounds` times 8 x 4 per lane; 1: reads n vectors; 2: copies them.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
layout(constant_id = 2) const uint MODE = 0;

void multiply_add(uint lane) {
    // Eight independent chains hide the latency of each other.
    vec4 a[8];
    for (uint i = 0; i < 8; i++)
        a[i] = vec4(float(lane + i) * 1e-6);
    float x = 1.0 - float(p.n & 1u) * 1e-7, y = float(p.n & 2u) * 1e-7;
    for (uint r = 0; r < p.rounds; r++)
        [[unroll]] for (uint i = 0; i < 8; i++)
            a[i] = fma(a[i], vec4(x), vec4(y));
    vec4 sum = vec4(0);
    for (uint i = 0; i < 8; i++)
        sum += a[i];
    p.y.v[lane] = floatBitsToUint(sum);
}

void main() {
    uint lane = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x, lanes = gl_NumWorkGroups.x * gl_NumWorkGroups.y * LOCAL_SIZE;
    if (MODE == 0) {
        multiply_add(lane);
    } else if (MODE == 1) {
        uvec4 sum = uvec4(0);
        for (uint i = lane; i < p.n; i += lanes)
            sum ^= p.x.v[i];
        p.y.v[lane] = sum;
    } else {
        for (uint i = lane; i < p.n; i += lanes)
            p.y.v[i] = p.x.v[i];
    }
}
