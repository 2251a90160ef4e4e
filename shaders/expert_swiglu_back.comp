// SwiGLU's backward within routed experts, whose outputs a token adds up with weights. dh arrives as if each weight were 1 (a token's gradient times
// the expert's down projection), so that no expert's output is needed: dweights[t,k] = <dh, h> with h = silu(gate) * up, over an expert's width instead
// of the model's. Then in place: dgate and dup of weight * dh, and dh becomes weight * h, the operand of the down projection's gradient. A workgroup
// is a token; its rows belong to it alone.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"

void main() {
    uint token = group_index(), quads = p.width / 4;
    if (token >= p.rows)
        return;
    for (uint slot = token * p.n_active; slot < (token + 1) * p.n_active; slot++) {
        uint base = min(p.slot_row.v[slot], p.rows * p.n_active - 1) * quads;
        float weight = p.weights.v[slot];
        vec4 dots = vec4(0);
        for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
            vec4 g = f32x4_in(p.gate).v[base + q], u = f32x4_in(p.up).v[base + q], d = f32x4_in(p.dh).v[base + q];
            vec4 s = 1 / (1 + exp(-g)), silu = g * s, h = silu * u;
            dots += d * h;
            d *= weight;
            f32x4_rw(p.gate).v[base + q] = d * u * s * (1 + g * (1 - s));
            f32x4_rw(p.up).v[base + q] = d * silu;
            f32x4_rw(p.dh).v[base + q] = weight * h;
        }
        float dot = group_add((dots.x + dots.y) + (dots.z + dots.w));
        if (gl_LocalInvocationID.x == 0)
            p.dweights.v[slot] = dot;
    }
}
