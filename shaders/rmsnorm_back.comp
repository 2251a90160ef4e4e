// dx = rstd * (w*dy - x * rstd^2 * mean(w*dy*x)), added to dx where accumulating. A workgroup is a row; dw is column_sum.comp's.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "norm_weight.glsl"

uint base;
vec4 dots = vec4(0);

void load(uint q, out vec4 x, out vec4 g) {
    x = f32x4_in(p.x).v[base + q];
    g = f32x4_in(p.dy).v[base + q] * weight4(q);
    dots += x * g;
}

void store(uint q, vec4 dx) {
    if (p.accumulate != 0)
        dx += f32x4_in(p.dx).v[base + q];
    f32x4_rw(p.dx).v[base + q] = dx;
}

void main() {
    uint row = group_index(), lane = gl_LocalInvocationID.x;
    if (row >= p.rows)
        return;
    base = row * QUADS;
    vec4 x[KEPT], g[KEPT]; // g: gradient times weight
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++) {
            uint q = lane + j * LOCAL_SIZE;
            if (is_inside(j, q))
                load(q, x[j], g[j]);
        }
    } else {
        for (uint q = lane; q < QUADS; q += LOCAL_SIZE)
            load(q, x[0], g[0]);
    }
    float sum = group_add((dots.x + dots.y) + (dots.z + dots.w));
    float rstd = p.rstd.v[row], back = rstd * rstd * sum / float(DIM);
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++) {
            uint q = lane + j * LOCAL_SIZE;
            if (is_inside(j, q))
                store(q, rstd * (g[j] - x[j] * back));
        }
    } else {
        for (uint q = lane; q < QUADS; q += LOCAL_SIZE) {
            load(q, x[0], g[0]);
            store(q, rstd * (g[0] - x[0] * back));
        }
    }
}
