// The balance loss (DeepSeekMoE eq. 12-14) of every group of tokens, in phases; a lane is an expert and walks the tokens of a piece of a group:
//   0 pieces: part[g, piece, :, e] = slots on e; sum of probs[t, e]; tokens: of those whose token_group is g, for padding may lie between
//   1 groups: fraction[g, e] = alpha * group_weight[g] * f[e] / len, and terms[g, e] = fraction[g, e] * sum of probs: their sum is the loss
//   2 gradient: dbalance[t, e] = fraction[token_group[t], e]
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint PHASE = 0;

void pieces() {
    uint blocks = (p.n_experts + LOCAL_SIZE - 1) / LOCAL_SIZE, piece = group_index() / blocks;
    uint e = (group_index() - piece * blocks) * LOCAL_SIZE + gl_LocalInvocationID.x;
    uint group = piece / p.n_pieces;
    if (group >= p.n_groups || e >= p.n_experts)
        return;
    uint first = min(p.group_start.v[group], p.rows), last = min(p.group_start.v[group + 1], p.rows);
    uint length = last > first ? (last - first + p.n_pieces - 1) / p.n_pieces : 0;
    uint begin = min(first + (piece - group * p.n_pieces) * length, last), end = min(begin + length, last);
    uint count = 0, tokens = 0;
    float sum = 0;
    for (uint t = begin; t < end; t++) {
        if (p.token_group.v[t] != group)
            continue;
        tokens++;
        sum += p.probs.v[t * p.n_experts + e];
        for (uint k = 0; k < p.n_active; k++)
            count += p.experts.v[t * p.n_active + k] == e ? 1 : 0;
    }
    p.part.v[(3 * piece) * p.n_experts + e] = float(count);
    p.part.v[(3 * piece + 1) * p.n_experts + e] = sum;
    p.part.v[(3 * piece + 2) * p.n_experts + e] = float(tokens);
}

void groups() {
    uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x, group = i / p.n_experts, e = i - group * p.n_experts;
    if (group >= p.n_groups)
        return;
    float count = 0, sum = 0, length = 0, fraction = 0;
    for (uint piece = group * p.n_pieces; piece < (group + 1) * p.n_pieces; piece++) {
        count += p.part.v[(3 * piece) * p.n_experts + e];
        sum += p.part.v[(3 * piece + 1) * p.n_experts + e];
        length += p.part.v[(3 * piece + 2) * p.n_experts + e];
    }
    if (length > 0)
        fraction = p.alpha * p.group_weight.v[group] * (float(p.n_experts) * count / (float(p.n_active) * length)) / length;
    p.fraction.v[i] = fraction;
    p.terms.v[i] = fraction * sum;
}

void gradient() {
    uint token = group_index();
    if (token >= p.rows)
        return;
    uint group = p.token_group.v[token];
    for (uint e = gl_LocalInvocationID.x; e < p.n_experts; e += LOCAL_SIZE)
        p.dbalance.v[token * p.n_experts + e] = group < p.n_groups ? p.fraction.v[group * p.n_experts + e] : 0;
}

void main() {
    if (PHASE == 0)
        pieces();
    else if (PHASE == 1)
        groups();
    else
        gradient();
}
