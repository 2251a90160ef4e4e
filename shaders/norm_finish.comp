// From the parts of the sum of squares: norm, clip = min(1, clip_norm / (norm + 1e-6)) as torch.nn.utils.clip_grad_norm_ has it, and whether norm
// and losses are finite; words of struct StepResult and struct StepParams (model/ops.h). One workgroup.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"

bool is_finite(float x) { return (floatBitsToUint(x) & 0x7f800000u) != 0x7f800000u; }

void main() {
    if (group_index() != 0)
        return;
    float sum = 0;
    for (uint i = gl_LocalInvocationID.x; i < p.n_parts; i += LOCAL_SIZE)
        sum += p.part.v[i];
    sum = group_add(sum);
    if (gl_LocalInvocationID.x != 0)
        return;
    float norm = sqrt(sum), clip_norm = p.params.v[7];
    bool finite = is_finite(norm) && is_finite(p.result.v[0]) && is_finite(p.result.v[1]);
    p.result.v[2] = norm;
    p.result.v[3] = clip_norm > 0 && finite ? min(1.0, clip_norm / (norm + 1e-6)) : 1.0;
    u32_rw(p.result).v[4] = finite ? 1 : 0;
}
