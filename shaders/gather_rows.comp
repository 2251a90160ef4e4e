// y[i] = x[index[i]], or x[i] with ALL; an index beyond x, as 0xffffffff, gives zeros. A workgroup is a row. y is f32, or (what matrix units take) bf16
// or f16.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"

layout(constant_id = 4) const uint ALL = 0;

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    uint from = ALL != 0 ? row : p.index.v[row], quads = p.dim / 4;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 x = from < p.x_rows ? f32x4_in(p.x).v[from * quads + q] : vec4(0);
        if (CACHE_TYPE == 0)
            f32x4_rw(p.y).v[row * quads + q] = x;
        else
            u32x2_rw(p.y).v[row * quads + q] = cache_pack4(x);
    }
}
