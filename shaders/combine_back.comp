// dweights[t,k] = <dout[t], y[slot_row[t,k]]>, and each y row becomes its own gradient weights[t,k] * dout[t] in the same pass. A workgroup is a
// token; its rows belong to it alone.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"

void main() {
    uint token = group_index(), quads = p.dim / 4;
    if (token >= p.rows)
        return;
    for (uint slot = token * p.n_active; slot < (token + 1) * p.n_active; slot++) {
        uint base = min(p.slot_row.v[slot], p.rows * p.n_active - 1) * quads;
        float weight = p.weights.v[slot];
        vec4 dots = vec4(0);
        for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
            vec4 d = f32x4_in(p.dout).v[token * quads + q];
            dots += d * f32x4_in(p.y).v[base + q];
            f32x4_rw(p.y).v[base + q] = weight * d;
        }
        float dot = group_add((dots.x + dots.y) + (dots.z + dots.w));
        if (gl_LocalInvocationID.x == 0)
            p.dweights.v[slot] = dot;
    }
}
