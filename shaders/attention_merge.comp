// Joins the parts that attention_decode left: a workgroup is one row and head. First a thread looks at a part's statistics, then at four columns of
// the parts that weigh anything: a short span fills the first parts only.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

const uint MOST_PARTS = 64;
shared float most_of[MOST_PARTS], weight[MOST_PARTS], sum_of[MOST_PARTS];

void main() {
    const uint group = group_index(), vecs = p.head_dim / 4, pitch = vecs + 1, parts = min(p.n_parts, MOST_PARTS);
    if (group >= p.rows * p.n_heads)
        return;
    f32x4_in part = f32x4_in(p.part);
    const uint base = group * p.n_parts * pitch;
    for (uint i = gl_LocalInvocationID.x; i < parts; i += LOCAL_SIZE) {
        const vec4 stat = part.v[base + i * pitch + vecs];
        most_of[i] = stat.x;
        sum_of[i] = stat.y;
    }
    barrier();
    float most = NO_SCORE, sum = 0;
    for (uint i = 0; i < parts; i++)
        most = max(most, most_of[i]);
    for (uint i = gl_LocalInvocationID.x; i < parts; i += LOCAL_SIZE)
        weight[i] = sum_of[i] == 0 ? 0 : exp2(most_of[i] - most);
    barrier();
    for (uint i = 0; i < parts; i++)
        sum = fma(sum_of[i], weight[i], sum);
    const float inverse = sum == 0 ? 0 : 1 / sum;
    for (uint d = gl_LocalInvocationID.x; d < vecs; d += LOCAL_SIZE) {
        vec4 o = vec4(0);
        for (uint i = 0; i < parts; i++)
            if (weight[i] != 0)
                o = fma(part.v[base + i * pitch + d], vec4(weight[i]), o);
        f32x4_rw(p.o).v[group * vecs + d] = o * inverse;
    }
}
