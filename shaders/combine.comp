// out[t] = residual[t] + shared[t] + sum over k of weights[t,k] * y[slot_row[t,k]], in this order; without weights they are 1. A
// workgroup is a token. out may be residual or shared.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint WEIGHTS = 1;
layout(constant_id = 3) const uint SHARED = 0;
layout(constant_id = 4) const uint RESIDUAL = 0;

void main() {
    uint token = group_index(), quads = p.dim / 4;
    if (token >= p.rows)
        return;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 sum = vec4(0);
        if (RESIDUAL != 0)
            sum += f32x4_in(p.residual).v[token * quads + q];
        if (SHARED != 0)
            sum += f32x4_in(p.shared_y).v[token * quads + q];
        for (uint slot = token * p.n_active; slot < (token + 1) * p.n_active; slot++) {
            uint row = min(p.slot_row.v[slot], p.rows * p.n_active - 1);
            vec4 y = f32x4_in(p.y).v[row * quads + q];
            sum = WEIGHTS != 0 ? fma(vec4(p.weights.v[slot]), y, sum) : sum + y;
        }
        f32x4_rw(p.out_y).v[token * quads + q] = sum;
    }
}
