// From dh: dgate = dh * up * s * (1 + gate * (1 - s)) and dup = dh * gate * s with s = sigmoid(gate), in place; dh becomes h where it is
// to be kept, which saves the down projection's backward a tensor.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint STEPS = 1; // VECs an invocation works on; n is a multiple of 4

void main() {
    const uint begin = group_index() * (LOCAL_SIZE * STEPS), vecs = p.n / VEC_SIZE;
    [[unroll]] for (uint n = 0; n < STEPS; n++) {
        const uint first = begin + n * LOCAL_SIZE;
        if (lanes_inside(first, vecs)) {
            const VEC g = lanes_load(p.gate, first), u = lanes_load(p.up, first), d = lanes_load(p.dh, first);
            const VEC s = 1 / (1 + exp(-g)), silu = g * s;
            lanes_store(p.gate, first, d * u * s * (1 + g * (1 - s)));
            lanes_store(p.up, first, d * silu);
            if (p.keep_h != 0)
                lanes_store(p.dh, first, silu * u);
        }
    }
}
