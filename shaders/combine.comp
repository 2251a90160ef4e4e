// out[t] = residual[t] + shared[t] + sum over k of weights[t,k] * y[slot_row[t,k]], in this order; without weights they are 1. A
// workgroup is a token. out may be residual or shared.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint WEIGHTS = 1;
layout(constant_id = 3) const uint SHARED = 0;
layout(constant_id = 4) const uint RESIDUAL = 0;
layout(constant_id = 5) const uint PIECES = 1; // of a row at a time, each as wide as the workgroup

void main() {
    const uint token = group_index(), vecs = p.dim / VEC_SIZE;
    if (token >= p.rows)
        return;
    for (uint first = 0; first < vecs; first += LOCAL_SIZE * PIECES) {
        if (!lanes_inside(first, vecs))
            break;
        uint column[PIECES];
        VEC sum[PIECES];
        [[unroll]] for (uint j = 0; j < PIECES; j++) {
            column[j] = lanes_bounded(first + j * LOCAL_SIZE, vecs);
            sum[j] = VEC(0);
            if (RESIDUAL != 0)
                sum[j] += lanes_load(p.residual, token * vecs + column[j]);
            if (SHARED != 0)
                sum[j] += lanes_load(p.shared_y, token * vecs + column[j]);
        }
        for (uint i = 0; i < p.n_active; i++) {
            const uint slot = token * p.n_active + min(i, p.n_active - 1); // lavapipe runs a loop's uniform loads once more after its last pass
            const uint row = min(p.slot_row.v[slot], p.rows * p.n_active - 1);
            const float weight = WEIGHTS != 0 ? p.weights.v[slot] : 1;
            [[unroll]] for (uint j = 0; j < PIECES; j++) {
                const VEC y = lanes_load(p.y, row * vecs + column[j]);
                sum[j] = WEIGHTS != 0 ? fma(VEC(weight), y, sum[j]) : sum[j] + y;
            }
        }
        [[unroll]] for (uint j = 0; j < PIECES; j++)
            if (lanes_inside(first + j * LOCAL_SIZE, vecs))
                lanes_store(p.out_y, token * vecs + column[j], sum[j]);
    }
}
