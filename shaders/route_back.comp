// dlogits of the router: through the combine weights (their gradient dweights, divided by the sum or scaled as in route.comp), plus the balance
// loss's gradient with respect to the probabilities where there is one, then through the softmax. A workgroup is a token.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"

layout(constant_id = 2) const uint PER_LANE = 1; // experts a lane holds, rounded up
layout(constant_id = 3) const uint BALANCE = 0;  // dbalance is there

void main() {
    uint token = group_index(), lane = gl_LocalInvocationID.x;
    if (token >= p.rows)
        return;
    uint slots = token * p.n_active, base = token * p.n_experts;
    // w_k = scale * p_k, or p_k / sum: then dp_k = (dw_k - sum_j dw_j w_j) / sum.
    float factor = p.scale, mean = 0;
    if (p.norm_topk != 0 && p.n_active > 1) {
        float sum = 1e-20, dot = 0;
        for (uint k = 0; k < p.n_active; k++) {
            float prob = p.probs.v[base + min(p.experts.v[slots + k], p.n_experts - 1)];
            sum += prob;
            dot += prob * p.dweights.v[slots + k];
        }
        factor = 1 / sum;
        mean = dot / sum;
    }
    float prob[PER_LANE], dprob[PER_LANE], dot = 0;
    [[unroll]] for (uint j = 0; j < PER_LANE; j++) {
        uint e = lane + j * LOCAL_SIZE;
        prob[j] = 0;
        dprob[j] = 0;
        if (e < p.n_experts) {
            prob[j] = p.probs.v[base + e];
            if (BALANCE != 0)
                dprob[j] = p.dbalance.v[base + e];
        }
    }
    for (uint k = 0; k < p.n_active; k++) {
        uint expert = p.experts.v[slots + k];
        float d = (p.dweights.v[slots + k] - mean) * factor;
        [[unroll]] for (uint j = 0; j < PER_LANE; j++)
            if (lane + j * LOCAL_SIZE == expert)
                dprob[j] += d;
    }
    [[unroll]] for (uint j = 0; j < PER_LANE; j++)
        dot += prob[j] * dprob[j];
    dot = group_add(dot);
    [[unroll]] for (uint j = 0; j < PER_LANE; j++) {
        uint e = lane + j * LOCAL_SIZE;
        if (e < p.n_experts)
            p.dlogits.v[base + e] = prob[j] * (dprob[j] - dot);
    }
}
