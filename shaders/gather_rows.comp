// y[i] = x[index[i]]; an index beyond x, as 0xffffffff, gives zeros. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    uint from = p.index.v[row], quads = p.dim / 4;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE)
        f32x4_rw(p.y).v[row * quads + q] = from < p.x_rows ? f32x4_in(p.x).v[from * quads + q] : vec4(0);
}
