// y = x * rstd * w with rstd = 1 / sqrt(mean(x^2) + eps), kept for backward where asked. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"
#include "pairs.glsl"
#include "norm_weight.glsl"

VEC squares = VEC(0);
VEC load(uint at) {
    const VEC x = lanes_load(p.x, at);
    squares += x * x;
    return x;
}

void main() {
    const uint row = group_index(), base = row * VECS;
    if (row >= p.rows)
        return;
    VEC x[KEPT];
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++) x[j] = is_inside(j) ? load(base + j * LOCAL_SIZE) : VEC(0);
    } else {
        for (uint j = 0; j < ROUNDS; j++)
            if (is_inside(j))
                load(base + j * LOCAL_SIZE);
    }
    const float sum = group_add(lanes_sum(squares));
    const float rstd = 1 / sqrt(sum / float(DIM) + p.eps);
    if (KEPT == ROUNDS) {
        [[unroll]] for (uint j = 0; j < KEPT; j++)
            if (is_inside(j))
                lanes_store(p.y, base + j * LOCAL_SIZE, x[j] * rstd * weights(j * LOCAL_SIZE));
    } else {
        for (uint j = 0; j < ROUNDS; j++)
            if (is_inside(j))
                lanes_store(p.y, base + j * LOCAL_SIZE, lanes_load(p.x, base + j * LOCAL_SIZE) * rstd * weights(j * LOCAL_SIZE));
    }
    if (KEEP_RSTD != 0 && gl_LocalInvocationID.x == 0)
        p.rstd.v[row] = rstd;
}
