// dgate[i] = s (1 - s) <dy[i], x[i]> with s = sigmoid(gate[i]), and each x row becomes its own gradient s * dy[i] in the same pass. A
// workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "reduce.glsl"

void main() {
    uint row = group_index(), quads = p.dim / 4;
    if (row >= p.rows)
        return;
    float s = 1 / (1 + exp(-p.gate.v[row]));
    vec4 dots = vec4(0);
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 d = f32x4_in(p.dy).v[row * quads + q];
        dots += d * f32x4_in(p.x).v[row * quads + q];
        f32x4_rw(p.x).v[row * quads + q] = s * d;
    }
    float dot = group_add((dots.x + dots.y) + (dots.z + dots.w));
    if (gl_LocalInvocationID.x == 0)
        p.dgate.v[row] = s * (1 - s) * dot;
}
