// y[row] = table[ids[row]], from any storage type. A workgroup is a row; an id outside the vocabulary gives zeros.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "formats.glsl"

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    uint id = p.ids.v[row], units = p.dim / W_UNIT, to = row * (p.dim / 4);
    if (id >= p.vocab) {
        for (uint i = gl_LocalInvocationID.x; i < p.dim / 4; i += LOCAL_SIZE)
            f32x4_rw(p.y).v[to + i] = vec4(0);
        return;
    }
    for (uint unit = gl_LocalInvocationID.x; unit < units; unit += LOCAL_SIZE) {
        Unit u;
        unit_load(p.w, id * (p.w_row_bytes / 16), unit, units, u);
        [[unroll]] for (uint g = 0; g < W_UNIT / 8; g++) {
            vec4 a, b;
            unit_get8(u, g, a, b);
            f32x4_rw(p.y).v[to + unit * (W_UNIT / 4) + 2 * g] = a;
            f32x4_rw(p.y).v[to + unit * (W_UNIT / 4) + 2 * g + 1] = b;
        }
    }
}
