// Attention of few rows over long spans on CPU devices: a lane is a query head, the heads of a workgroup share a key head, and keys and values
// come from uniform addresses as in attention_cpu.comp: a value loaded once for all lanes is cheaper than one per lane, even where few lanes have a
// head. A workgroup takes one part of the keys of one row and the last of them joins the parts.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_part.glsl"

const uint KEYS = HEAD_DIM > 128 ? 4 : 8;

void main() {
    const uint n_shared = p.n_heads / p.n_kv_heads, passes = (n_shared + LOCAL_SIZE - 1) / LOCAL_SIZE;
    const uint split = group_index() % p.n_parts, pass = group_index() / p.n_parts % passes;
    const uint kv_head = group_index() / p.n_parts / passes % p.n_kv_heads;
    const uint row = group_index() / p.n_parts / passes / p.n_kv_heads;
    if (row >= p.rows)
        return;
    const uint sharer = pass * LOCAL_SIZE + gl_LocalInvocationID.x;
    const uint head = kv_head * n_shared + min(sharer, n_shared - 1);
    const uvec2 range = part_range(row, split, p.n_parts);

    f32x4_in k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);
    vec4 q[HEAD_VECS], o[HEAD_VECS];
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
        q[d] = f32x4_in(p.q).v[(row * p.n_heads + head) * HEAD_VECS + d] * (p.scale * LOG2E);
        o[d] = vec4(0);
    }
    float most = NO_SCORE, sum = 0;
    for (uint key = range.x; key < range.y; key += KEYS) {
        uvec2 base[KEYS];
        float s[KEYS];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            base[j] = cache_place(min(key + j, range.y - 1), p.n_kv_heads, kv_head, HEAD_DIM);
            s[j] = 0;
        }
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                const vec4 k = cache_get4(k4, base[j], d);
                s[j] = fma(q[d].x, k.x, s[j]);
                s[j] = fma(q[d].y, k.y, s[j]);
                s[j] = fma(q[d].z, k.z, s[j]);
                s[j] = fma(q[d].w, k.w, s[j]);
            }
        float new_most = most;
        [[unroll]] for (uint j = 0; j < KEYS; j++)
            new_most = max(new_most, s[j]); // the last key repeated raises nothing
        const float shrink = exp2(most - new_most);
        most = new_most;
        sum *= shrink;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            s[j] = key + j < range.y ? exp2(s[j] - most) : 0;
            sum += s[j];
        }
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            vec4 total = o[d] * shrink;
            [[unroll]] for (uint j = 0; j < KEYS; j++)
                total = fma(vec4(s[j]), cache_get4(v4, base[j], d), total);
            o[d] = total;
        }
    }
    const bool has_head = sharer < n_shared;
    const uint at = part_at(row, head, split);
    Parts part = Parts(uvec2(p.part));
    if (has_head) {
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
            part.v[at + d] = o[d];
        part.v[at + HEAD_VECS] = vec4(most, sum, 0, 0);
    }
    if (is_last_part((row * p.n_kv_heads + kv_head) * passes + pass, p.n_parts) && has_head)
        JOIN_PARTS(HEAD_VECS, row, head, 0)
}
