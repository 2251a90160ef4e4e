// Sums over rows, in order: part g of the rows gives y[g, j] (+)= sum of x[i, j], or of x[i, j] * dy[i, j] * rstd[i] where PRODUCT is on (a norm's
// dw). The first level writes parts, the second adds them up; lanes lie along the columns.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint PRODUCT = 0;

void main() {
    uint quads = p.dim / 4, blocks = (quads + LOCAL_SIZE - 1) / LOCAL_SIZE;
    uint part = group_index() / blocks, q = (group_index() - part * blocks) * LOCAL_SIZE + gl_LocalInvocationID.x;
    uint begin = part * p.rows_per_part, end = min(begin + p.rows_per_part, p.rows);
    if (q >= quads || begin >= end)
        return;
    vec4 sum = vec4(0);
    for (uint i = begin; i < end; i++) {
        vec4 term = f32x4_in(p.x).v[i * quads + q];
        if (PRODUCT != 0)
            term *= f32x4_in(p.dy).v[i * quads + q] * p.rstd.v[i];
        sum += term;
    }
    if (p.accumulate != 0)
        sum += f32x4_in(p.y).v[part * quads + q];
    f32x4_rw(p.y).v[part * quads + q] = sum;
}
