// Joins the parts that attention_decode left: a workgroup is one row and head, a thread four columns at a time.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

void main() {
    const uint group = group_index(), vecs = p.head_dim / 4, pitch = vecs + 1;
    if (group >= p.rows * p.n_heads)
        return;
    f32x4_in part = f32x4_in(p.part);
    const uint base = group * p.n_parts * pitch;
    float most = NO_SCORE, sum = 0;
    for (uint i = 0; i < p.n_parts; i++)
        most = max(most, part.v[base + i * pitch + vecs].x);
    for (uint i = 0; i < p.n_parts; i++) {
        const vec4 stat = part.v[base + i * pitch + vecs];
        sum += stat.y * exp2(stat.x - most);
    }
    const float inverse = sum == 0 ? 0 : 1 / sum;
    for (uint d = gl_LocalInvocationID.x; d < vecs; d += LOCAL_SIZE) {
        vec4 o = vec4(0);
        for (uint i = 0; i < p.n_parts; i++)
            o += part.v[base + i * pitch + d] * exp2(part.v[base + i * pitch + vecs].x - most);
        f32x4_rw(p.o).v[group * vecs + d] = o * inverse;
    }
}
