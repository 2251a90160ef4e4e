// y = a + b: sixteen bytes an invocation and step.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint STEPS = 1; // quads an invocation adds

void main() {
    uint first = group_index() * (LOCAL_SIZE * STEPS) + gl_LocalInvocationID.x, quads = p.n / 4;
    [[unroll]] for (uint s = 0; s < STEPS; s++) {
        uint i = first + s * LOCAL_SIZE;
        if (i < quads)
            f32x4_rw(p.y).v[i] = f32x4_in(p.a).v[i] + f32x4_in(p.b).v[i];
    }
    uint tail = 4 * quads + gl_LocalInvocationID.x;
    if (group_index() == 0 && tail < p.n)
        p.y.v[tail] = p.a.v[tail] + p.b.v[tail];
}
