// y[i,j] = sigmoid(gate[i]) * x[i,j]; y may be x. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint row = group_index(), quads = p.dim / 4;
    if (row >= p.rows)
        return;
    float s = 1 / (1 + exp(-p.gate.v[row]));
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE)
        f32x4_rw(p.y).v[row * quads + q] = s * f32x4_in(p.x).v[row * quads + q];
}
