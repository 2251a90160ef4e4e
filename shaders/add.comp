// y = a + b: sixteen bytes an invocation and step.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint STEPS = 1; // VECs an invocation adds

void main() {
    const uint begin = group_index() * (LOCAL_SIZE * STEPS), vecs = p.n / VEC_SIZE;
    [[unroll]] for (uint s = 0; s < STEPS; s++) {
        const uint first = begin + s * LOCAL_SIZE;
        if (lanes_inside(first, vecs))
            lanes_store(p.y, first, lanes_load(p.a, first) + lanes_load(p.b, first));
    }
    uint tail = VEC_SIZE * vecs + gl_LocalInvocationID.x;
    if (group_index() == 0 && tail < p.n)
        p.y.v[tail] = p.a.v[tail] + p.b.v[tail];
}
