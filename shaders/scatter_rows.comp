// y[index[i]] (+)= x[i], indices distinct; one beyond y, as 0xffffffff, is skipped. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    uint to = p.index.v[row], quads = p.dim / 4;
    if (to >= p.y_rows)
        return;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 x = f32x4_in(p.x).v[row * quads + q];
        if (p.accumulate != 0)
            x += f32x4_in(p.y).v[to * quads + q];
        f32x4_rw(p.y).v[to * quads + q] = x;
    }
}
