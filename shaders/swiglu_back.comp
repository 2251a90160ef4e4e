// From dh: dgate = dh * up * s * (1 + gate * (1 - s)) and dup = dh * gate * s with s = sigmoid(gate), in place; dh becomes h where it is
// to be kept, which saves the down projection's backward a tensor.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint STEPS = 1; // quads an invocation works on; n is a multiple of 4

void main() {
    uint first = group_index() * (LOCAL_SIZE * STEPS) + gl_LocalInvocationID.x, quads = p.n / 4;
    [[unroll]] for (uint n = 0; n < STEPS; n++) {
        uint i = first + n * LOCAL_SIZE;
        if (i < quads) {
            vec4 g = f32x4_in(p.gate).v[i], u = f32x4_in(p.up).v[i], d = f32x4_in(p.dh).v[i];
            vec4 s = 1 / (1 + exp(-g)), silu = g * s;
            f32x4_rw(p.gate).v[i] = d * u * s * (1 + g * (1 - s));
            f32x4_rw(p.up).v[i] = d * silu;
            if (p.keep_h != 0)
                f32x4_rw(p.dh).v[i] = silu * u;
        }
    }
}
