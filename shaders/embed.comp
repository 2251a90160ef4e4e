// y[row] = table[ids[row]], from any storage type; with ALL, y[row] = table[row], a table unpacked. A workgroup is a row; an id outside the
// vocabulary gives zeros. y is f32, or (what matrix units take) bf16 or f16.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"

layout(constant_id = 4) const uint ALL = 0;

// Elements 8 at .. 8 at + 7 of y.
void store8(uint at, vec4 a, vec4 b) {
    if (CACHE_TYPE != 0) {
        u32x4_rw(p.y).v[at] = uvec4(cache_pack4(a), cache_pack4(b));
        return;
    }
    f32x4_rw(p.y).v[2 * at] = a;
    f32x4_rw(p.y).v[2 * at + 1] = b;
}

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    const uint id = ALL != 0 ? row : p.ids.v[row], each = W_UNIT / 8;
    // Neighbouring threads write neighbouring eights.
    for (uint i = gl_LocalInvocationID.x; i < p.dim / 8; i += LOCAL_SIZE) {
        vec4 a = vec4(0), b = vec4(0);
        if (id < p.vocab) {
            Unit u;
            eighth_load(p.w, id * (p.w_row_bytes / 16), i / each, i % each, p.dim / W_UNIT, u);
            eighth_get(u, i % each, 1, a, b);
        }
        store8(row * (p.dim / 8) + i, a, b);
    }
}
