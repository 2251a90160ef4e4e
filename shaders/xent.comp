// Cross-entropy of rows of logits: loss = logsumexp - logit of the target; with BACKWARD the logits become their gradient (softmax - onehot) *
// inv_labels. A row without a label (0xffffffff) has loss 0 and gradient 0; a target outside the vocabulary gives NaN. A workgroup is a
// row; the lane that owns the target's element reads it before it writes it.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "logits.glsl"

layout(constant_id = 3) const uint BACKWARD = 0;
layout(constant_id = 4) const uint WEIGHTED = 0; // loss and gradient of a row times p.weights

void store4(uint row, uint quad, vec4 g) {
    if (VEC4 != 0) {
        f32x4_rw(p.logits).v[row * (p.ld / 4) + quad] = g;
        return;
    }
    uint i = row * p.ld + 4 * quad;
    p.logits.v[i] = g.x;
    p.logits.v[i + 1] = g.y;
    p.logits.v[i + 2] = g.z;
    p.logits.v[i + 3] = g.w;
}

void main() {
    uint row = group_index(), lane = gl_LocalInvocationID.x;
    if (row >= p.rows)
        return;
    uint target = p.targets.v[row], whole = whole_quads();
    if (target == 0xffffffffu) {
        if (lane == 0)
            p.loss.v[row] = 0;
        if (BACKWARD != 0) {
            for (uint q = lane; q < whole; q += LOCAL_SIZE)
                store4(row, q, vec4(0));
            for (uint i = 4 * whole + lane; i < p.vocab; i += LOCAL_SIZE)
                p.logits.v[row * p.ld + i] = 0;
        }
        return;
    }
    RowTop t = row_top(row);
    uint owner = target < 4 * whole ? (target / 4) % LOCAL_SIZE : (target - 4 * whole) % LOCAL_SIZE;
    float weight = WEIGHTED != 0 ? p.weights.v[row] : 1;
    if (lane == owner)
        p.loss.v[row] =
            target < p.vocab ? ((t.top - logit(row, target)) + t.log_sum) * weight : uintBitsToFloat(NAN_BITS);
    if (BACKWARD == 0)
        return;
    float inv_labels = p.params.v[0] * weight, factor = inv_labels / t.sum;
    for (uint q = lane; q < whole; q += LOCAL_SIZE) {
        vec4 g = exp(logits4(row, q) - t.top) * factor;
        g -= mix(vec4(0), vec4(inv_labels), equal(uvec4(4 * q) + uvec4(0, 1, 2, 3), uvec4(target)));
        store4(row, q, g);
    }
    for (uint i = 4 * whole + lane; i < p.vocab; i += LOCAL_SIZE)
        p.logits.v[row * p.ld + i] = exp(logit(row, i) - t.top) * factor - (i == target ? inv_labels : 0);
}
