// h = silu(gate) * up; silu(g) = g / (1 + exp(-g)).
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint STEPS = 1; // quads an invocation works on; n is a multiple of 4

void main() {
    uint first = group_index() * (LOCAL_SIZE * STEPS) + gl_LocalInvocationID.x, quads = p.n / 4;
    [[unroll]] for (uint s = 0; s < STEPS; s++) {
        uint i = first + s * LOCAL_SIZE;
        if (i < quads) {
            vec4 g = f32x4_in(p.gate).v[i];
            f32x4_rw(p.h).v[i] = g / (1 + exp(-g)) * f32x4_in(p.up).v[i];
        }
    }
}
