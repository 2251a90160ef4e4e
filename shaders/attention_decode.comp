// Attention of few rows over long spans on GPUs: a workgroup takes one part of the keys of one row and head, 128 keys at a time. First eight
// threads a key for the scores, then a thread a column of values for a share of the keys. The last workgroup of a row and head joins the parts.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_part.glsl"

const uint THREADS = 128, KEYS = THREADS, PER_KEY = 8, PITCH = PER_KEY + 1;
const uint SHARERS = THREADS / HEAD_VECS; // threads that share a column of values

shared vec4 query[HEAD_VECS];
shared float partial[KEYS * PITCH];
shared vec4 weights[KEYS / 4];
shared vec4 result[THREADS];
shared float sums[THREADS];

void main() {
    const uint split = group_index() % p.n_parts, head = group_index() / p.n_parts % p.n_heads;
    const uint row = group_index() / p.n_parts / p.n_heads;
    if (row >= p.rows)
        return;
    const uint t = gl_LocalInvocationID.x, kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint column = t % HEAD_VECS, sharer = t / HEAD_VECS;
    const uvec2 range = part_range(row, split, p.n_parts);
    f32x4_in k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);
    if (t < HEAD_VECS)
        query[t] = f32x4_in(p.q).v[(row * p.n_heads + head) * HEAD_VECS + t] * (p.scale * LOG2E);

    vec4 o = vec4(0);
    float most = NO_SCORE, sum = 0;
    for (uint first = range.x; first < range.y; first += KEYS) {
        barrier();
        for (uint i = t / PER_KEY; i < KEYS; i += THREADS / PER_KEY) {
            const uvec2 base = cache_place(min(first + i, range.y - 1), p.n_kv_heads, kv_head, HEAD_DIM);
            float s = 0;
            for (uint d = t % PER_KEY; d < HEAD_VECS; d += PER_KEY)
                s += dot(query[d], cache_get4(k4, base, d));
            partial[i * PITCH + t % PER_KEY] = s;
        }
        barrier();
        float score = 0;
        [[unroll]] for (uint i = 0; i < PER_KEY; i++)
            score += partial[t * PITCH + i];
        const bool seen = first + t < range.y;
        weights[t / 4][t % 4] = seen ? score : NO_SCORE;
        barrier();
        vec4 greatest = weights[0];
        for (uint i = 1; i < KEYS / 4; i++)
            greatest = max(greatest, weights[i]);
        const float new_most = max(most, max(max(greatest.x, greatest.y), max(greatest.z, greatest.w)));
        const float shrink = exp2(most - new_most);
        most = new_most;
        o *= shrink;
        sum *= shrink;
        barrier();
        weights[t / 4][t % 4] = seen ? exp2(score - most) : 0;
        barrier();
        if (sharer < SHARERS)
            for (uint i = sharer; i < min(KEYS, range.y - first); i += SHARERS) {
                const float weight = weights[i / 4][i % 4];
                o += weight * cache_get4(v4, cache_place(first + i, p.n_kv_heads, kv_head, HEAD_DIM), column);
                sum += weight;
            }
    }
    result[t] = o;
    sums[t] = sum;
    barrier();
    if (t < HEAD_VECS) {
        for (uint i = 1; i < SHARERS; i++) {
            o += result[i * HEAD_VECS + t];
            sum += sums[i * HEAD_VECS + t];
        }
        const uint at = part_at(row, head, split);
        Parts part = Parts(uvec2(p.part));
        part.v[at + t] = o;
        if (t == 0)
            part.v[at + HEAD_VECS] = vec4(most, sum, 0, 0);
    }
    if (is_last_part(row * p.n_heads + head, p.n_parts) && t < HEAD_VECS)
        JOIN_PARTS(1, row, head, t)
}
