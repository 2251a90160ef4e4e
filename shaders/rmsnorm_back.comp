// dx = rstd * (w*dy - x * rstd^2 * mean(w*dy*x)), added to dx where accumulating. A workgroup is a row; dw is column_sum.comp's.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "pairs.glsl"
#include "norm_weight.glsl"

uint base;
VEC dots = VEC(0);

void load(uint j, out VEC x, out VEC g) {
    x = lanes_load(p.x, base + j * LOCAL_SIZE);
    g = lanes_load(p.dy, base + j * LOCAL_SIZE) * weights(j * LOCAL_SIZE);
    dots += x * g;
}

void store(uint j, VEC dx) {
    if (p.accumulate != 0)
        dx += lanes_load(p.dx, base + j * LOCAL_SIZE);
    lanes_store(p.dx, base + j * LOCAL_SIZE, dx);
}

void main() {
    const uint row = group_index();
    if (row >= p.rows)
        return;
    base = row * VECS;
    VEC x[KEPT], g[KEPT]; // g: gradient times weight
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++)
            if (is_inside(j))
                load(j, x[j], g[j]);
    } else {
        for (uint j = 0; j < ROUNDS; j++)
            if (is_inside(j))
                load(j, x[0], g[0]);
    }
    const float sum = group_add(lanes_sum(dots));
    const float rstd = p.rstd.v[row], back = rstd * rstd * sum / float(DIM);
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++)
            if (is_inside(j))
                store(j, rstd * (g[j] - x[j] * back));
    } else {
        for (uint j = 0; j < ROUNDS; j++)
            if (is_inside(j)) {
                load(j, x[0], g[0]);
                store(j, rstd * (g[0] - x[0] * back));
            }
    }
}
