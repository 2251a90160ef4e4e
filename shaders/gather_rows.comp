// y[i] = x[index[i]], or x[i] with ALL; an index beyond x, as 0xffffffff, gives zeros. A workgroup is a row. y is f32, or (what matrix units take) bf16
// or f16; then its rows may be longer, and end with zeros. With PEAKS a row of f16 is brought to the units' range, see peak.glsl.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"
#include "peak.glsl"
#include "reduce.glsl"

layout(constant_id = 4) const uint ALL = 0;
layout(constant_id = 5) const uint PEAKS = 0;
layout(constant_id = 6) const uint ALIGNED = 1; // 0: rows of x are not a multiple of four numbers

vec4 x_at(uint row, uint q) {
    if (row >= p.x_rows || 4 * q >= p.dim)
        return vec4(0);
    if (ALIGNED != 0)
        return f32x4_in(p.x).v[row * (p.dim / 4) + q];
    vec4 v;
    [[unroll]] for (uint i = 0; i < 4; i++) v[i] = 4 * q + i < p.dim ? p.x.v[row * p.dim + min(4 * q + i, p.dim - 1)] : 0;
    return v;
}

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    const uint from = ALL != 0 ? row : p.index.v[row], quads = p.ld / 4;
    float scale = 1;
    if (PEAKS != 0) {
        uint peak = 0;
        for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) peak = max(peak, peak_of(x_at(from, q)));
        peak = group_max(peak);
        scale = peak_scale(peak);
        if (gl_LocalInvocationID.x == 0)
            p.peak.v[row] = peak;
    }
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        const vec4 x = PEAKS != 0 ? x_at(from, q) * scale : x_at(from, q);
        if (CACHE_TYPE == 0)
            f32x4_rw(p.y).v[row * quads + q] = x;
        else
            u32x2_rw(p.y).v[row * quads + q] = cache_pack4(x);
    }
}
