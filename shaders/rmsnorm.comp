// y = x * rstd * w with rstd = 1 / sqrt(mean(x^2) + eps), kept for backward where asked. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "norm_weight.glsl"

vec4 squares = vec4(0);
vec4 load(uint q) {
    vec4 x = f32x4_in(p.x).v[group_index() * QUADS + q];
    squares += x * x;
    return x;
}

void main() {
    uint row = group_index(), base = row * QUADS, lane = gl_LocalInvocationID.x;
    if (row >= p.rows)
        return;
    vec4 x[KEPT];
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++) {
            uint q = lane + j * LOCAL_SIZE;
            x[j] = is_inside(j, q) ? load(q) : vec4(0);
        }
    } else {
        for (uint q = lane; q < QUADS; q += LOCAL_SIZE)
            load(q);
    }
    float sum = group_add((squares.x + squares.y) + (squares.z + squares.w));
    float rstd = 1 / sqrt(sum / float(DIM) + p.eps);
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++) {
            uint q = lane + j * LOCAL_SIZE;
            if (is_inside(j, q))
                f32x4_rw(p.y).v[base + q] = x[j] * rstd * weight4(q);
        }
    } else {
        for (uint q = lane; q < QUADS; q += LOCAL_SIZE)
            f32x4_rw(p.y).v[base + q] = f32x4_in(p.x).v[base + q] * rstd * weight4(q);
    }
    if (KEEP_RSTD != 0 && lane == 0)
        p.rstd.v[row] = rstd;
}
