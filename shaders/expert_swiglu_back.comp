// SwiGLU's backward within routed experts, whose outputs a token adds up with weights. dh arrives as if each weight were 1 (a token's gradient times
// the expert's down projection), so that no expert's output is needed: dweights[t,k] = <dh, h> with h = silu(gate) * up, over an expert's width instead
// of the model's. Then in place: dgate and dup of weight * dh, and dh becomes weight * h, the operand of the down projection's gradient. A workgroup
// is a token; its rows belong to it alone.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "pairs.glsl"

void main() {
    const uint token = group_index(), vecs = p.width / VEC_SIZE;
    if (token >= p.rows)
        return;
    for (uint i = 0; i < p.n_active; i++) {
        const uint slot = token * p.n_active + min(i, p.n_active - 1); // lavapipe runs a loop's uniform loads once more after its last pass
        const uint base = min(p.slot_row.v[slot], p.rows * p.n_active - 1) * vecs;
        const float weight = p.weights.v[slot];
        VEC dots = VEC(0);
        for (uint first = 0; first < vecs; first += LOCAL_SIZE) {
            const uint at = base + lanes_bounded(first, vecs);
            if (!lanes_inside(first, vecs))
                break;
            VEC g = lanes_load(p.gate, at), u = lanes_load(p.up, at), d = lanes_load(p.dh, at);
            VEC s = 1 / (1 + exp(-g)), silu = g * s, h = silu * u;
            dots += d * h;
            d *= weight;
            lanes_store(p.gate, at, d * u * s * (1 + g * (1 - s)));
            lanes_store(p.up, at, d * silu);
            lanes_store(p.dh, at, weight * h);
        }
        float dot = group_add(lanes_sum(dots));
        if (gl_LocalInvocationID.x == 0)
            p.dweights.v[slot] = dot;
    }
}
