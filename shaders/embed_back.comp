// dw[segment_id[s]] += sum of dy[order[i]] over the positions i of segment s, that is of one token id, in their order: so a frequent token
// needs no atomics. A workgroup is a segment; of the `rows` workgroups those beyond n_segments[0] have nothing to do.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint segment = group_index();
    if (segment >= min(p.rows, p.n_segments.v[0]))
        return;
    uint begin = p.segment_start.v[segment], end = min(p.segment_start.v[segment + 1], p.rows);
    uint id = p.segment_id.v[segment], quads = p.dim / 4;
    if (id >= p.vocab)
        return;
    for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE) {
        vec4 sum = vec4(0);
        for (uint i = begin; i < end; i++)
            sum += f32x4_in(p.dy).v[min(p.order.v[i], p.rows - 1) * quads + q];
        f32x4_rw(p.dw).v[id * quads + q] += sum;
    }
}
