// Sums over rows, in order: part g of the rows gives y[g, j] (+)= sum of x[i, j], or of x[i, j] * dy[i, j] * rstd[i] where PRODUCT is on (a norm's
// dw). The first level writes parts, the second adds them up; lanes lie along the columns.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint PRODUCT = 0;
layout(constant_id = 3) const uint PIECES = 1; // of a row, each as wide as the workgroup: a processor fetches long stretches ahead

void main() {
    const uint vecs = p.dim / VEC_SIZE, width = LOCAL_SIZE * PIECES, blocks = (vecs + width - 1) / width;
    uint part = group_index() / blocks, first = (group_index() - part * blocks) * width;
    uint begin = part * p.rows_per_part, end = min(begin + p.rows_per_part, p.rows);
    if (!lanes_inside(first, vecs) || begin >= end)
        return;
    VEC sum[PIECES];
    [[unroll]] for (uint j = 0; j < PIECES; j++) sum[j] = VEC(0);
    for (uint i = begin; i < end; i++) {
        const uint row = min(i, end - 1); // lavapipe runs a loop's uniform loads once more after its last pass
        [[unroll]] for (uint j = 0; j < PIECES; j++) {
            const uint at = row * vecs + lanes_bounded(first + j * LOCAL_SIZE, vecs);
            VEC term = lanes_load(p.x, at);
            if (PRODUCT != 0)
                term *= lanes_load(p.dy, at) * p.rstd.v[row];
            sum[j] += term;
        }
    }
    [[unroll]] for (uint j = 0; j < PIECES; j++) {
        const uint column = first + j * LOCAL_SIZE, at = part * vecs + column;
        if (lanes_inside(column, vecs))
            lanes_store(p.y, at, p.accumulate != 0 ? sum[j] + lanes_load(p.y, at) : sum[j]);
    }
}
