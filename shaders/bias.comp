// y[i,j] += bias[j]. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint row = group_index(), quads = p.dim / 4;
    if (row >= p.rows)
        return;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE)
        f32x4_rw(p.y).v[row * quads + q] += f32x4_in(p.bias).v[q];
}
