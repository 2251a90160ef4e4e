// y[row] = table[ids[row]], from any storage type; with ALL, y[row] = table[row], a table unpacked. A workgroup is a row; an id outside the
// vocabulary gives zeros. y is f32, or (what matrix units take) bf16 or f16.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"

layout(constant_id = 4) const uint ALL = 0;

void store4(uint at, vec4 v) {
    if (CACHE_TYPE == 0)
        f32x4_rw(p.y).v[at] = v;
    else
        u32x2_rw(p.y).v[at] = cache_pack4(v);
}

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    uint id = ALL != 0 ? row : p.ids.v[row], units = p.dim / W_UNIT, to = row * (p.dim / 4);
    if (id >= p.vocab) {
        for (uint i = gl_LocalInvocationID.x; i < p.dim / 4; i += LOCAL_SIZE)
            store4(to + i, vec4(0));
        return;
    }
    for (uint unit = gl_LocalInvocationID.x; unit < units; unit += LOCAL_SIZE) {
        Unit u;
        unit_load(p.w, id * (p.w_row_bytes / 16), unit, units, u);
        [[unroll]] for (uint g = 0; g < W_UNIT / 8; g++) {
            vec4 a, b;
            unit_get8(u, g, a, b);
            store4(to + unit * (W_UNIT / 4) + 2 * g, a);
            store4(to + unit * (W_UNIT / 4) + 2 * g + 1, b);
        }
    }
}
