// The router: probs = softmax(logits) over all experts, then the n_active greatest in descending order, ties to the lower index. A workgroup is a
// token, lane l holds experts l, l + LOCAL_SIZE, .... A choice is marked by nothing: the next one is the greatest behind the last in
// the order (probability falling, index rising). A NaN in the logits makes every weight NaN; the experts are then the first ones.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"

layout(constant_id = 2) const uint PER_LANE = 1; // experts a lane holds, rounded up
layout(constant_id = 3) const uint LISTS = 0;    // few tokens: the lists as well

void main() {
    uint token = group_index(), lane = gl_LocalInvocationID.x;
    if (token >= p.rows)
        return;
    float prob[PER_LANE];
    float top = uintBitsToFloat(0xff7fffffu); // the least finite number
    [[unroll]] for (uint j = 0; j < PER_LANE; j++) {
        uint e = lane + j * LOCAL_SIZE;
        prob[j] = e < p.n_experts ? p.logits.v[token * p.n_experts + e] : uintBitsToFloat(0xff800000u);
        top = max(top, prob[j]);
    }
    top = group_max(top);
    float sum = 0;
    [[unroll]] for (uint j = 0; j < PER_LANE; j++) {
        bool nan = is_nan(prob[j]);
        prob[j] = exp(prob[j] - top);
        sum += nan ? uintBitsToFloat(NAN_BITS) : prob[j];
    }
    sum = group_add(sum);
    [[unroll]] for (uint j = 0; j < PER_LANE; j++) {
        uint e = lane + j * LOCAL_SIZE;
        prob[j] = e < p.n_experts ? prob[j] / sum : -1.0;
        if (e < p.n_experts)
            p.probs.v[token * p.n_experts + e] = prob[j];
    }

    float last = 2, total = 0;
    bool norm = p.norm_topk != 0 && p.n_active > 1;
    uint last_expert = 0;
    for (uint k = 0; k < p.n_active; k++) {
        float best = -1;
        uint best_expert = 0xffffffffu;
        [[unroll]] for (uint j = 0; j < PER_LANE; j++) {
            uint e = lane + j * LOCAL_SIZE;
            bool behind = prob[j] < last || (prob[j] == last && e > last_expert);
            if (behind && prob[j] > best) {
                best = prob[j];
                best_expert = e;
            }
        }
        last = group_max(best);
        last_expert = group_min(best == last ? best_expert : 0xffffffffu);
        if (last_expert >= p.n_experts) { // nothing compares with NaN
            last = uintBitsToFloat(NAN_BITS);
            last_expert = k;
        }
        total += last;
        if (lane == 0) {
            uint slot = token * p.n_active + k;
            p.experts.v[slot] = last_expert;
            p.weights.v[slot] = norm ? last : last * p.scale;
            if (LISTS != 0) {
                p.gather.v[slot] = token;
                p.slot_row.v[slot] = slot;
                p.row_expert.v[slot] = last_expert;
                if (slot < p.max_tiles)
                    p.tiles.v[slot] = uvec4(last_expert, slot, 1, 0);
            }
        }
    }
    if (LISTS != 0 && token == 0 && lane == 0)
        for (uint i = 0; i < 4; i++)
            p.grid.v[i] = i == 0 ? min(p.rows * p.n_active, p.max_tiles) : 0;
    if (norm && lane == 0)
        for (uint slot = token * p.n_active; slot < (token + 1) * p.n_active; slot++)
            p.weights.v[slot] /= total + 1e-20;
}
