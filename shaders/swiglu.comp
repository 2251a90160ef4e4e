// h = silu(gate) * up; silu(g) = g / (1 + exp(-g)).
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint STEPS = 1; // VECs an invocation works on; n is a multiple of 4

void main() {
    const uint begin = group_index() * (LOCAL_SIZE * STEPS), vecs = p.n / VEC_SIZE;
    [[unroll]] for (uint s = 0; s < STEPS; s++) {
        const uint first = begin + s * LOCAL_SIZE;
        if (lanes_inside(first, vecs)) {
            const VEC g = lanes_load(p.gate, first);
            lanes_store(p.h, first, g / (1 + exp(-g)) * lanes_load(p.up, first));
        }
    }
}
