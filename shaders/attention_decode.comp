// Attention of few rows over long spans on GPUs: a workgroup takes one part of the keys of one row and of HEADS heads that share their keys, 128 scores at a time.
// First eight threads a key for the scores, then a thread a column of values for a share of the keys: what is loaded serves all its heads. The last workgroup of a
// row and these heads joins the parts.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_part.glsl"

layout(constant_id = 4) const uint HEADS = 1; // at most 4
const uint THREADS = 128, PER_KEY = 8, PITCH = PER_KEY + 1;
const uint KEYS = HEADS == 1 ? 128 : HEADS == 2 ? 64 : 32;
const uint QUERIES = (HEAD_VECS + PER_KEY - 1) / PER_KEY; // vectors of a head that a thread multiplies with those of a key
const uint SHARERS = THREADS / HEAD_VECS;                 // threads that share a column of values

shared float partial[THREADS * PITCH];
shared vec4 scores[THREADS / 4], greatest[THREADS / 16]; // of head h from KEYS * h on; of sixteen of them
shared vec4 weights[KEYS];                               // of its heads
shared vec4 result[THREADS];
shared float sums[THREADS];

float most_of(vec4 x) { return max(max(x.x, x.y), max(x.z, x.w)); }

void main() {
    const uint sets = p.n_heads / HEADS, split = group_index() % p.n_parts, set = group_index() / p.n_parts % sets;
    const uint row = group_index() / p.n_parts / sets;
    if (row >= p.rows)
        return;
    const uint t = gl_LocalInvocationID.x, kv_head = set * HEADS / (p.n_heads / p.n_kv_heads);
    const uint column = t % HEAD_VECS, sharer = t / HEAD_VECS, own_key = t % KEYS, own_head = t / KEYS;
    const uvec2 range = part_range(row, split, p.n_parts);
    f32x4_in k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);
    vec4 query[HEADS][QUERIES], o[HEADS];
    float most[HEADS], sum[HEADS];
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        const uint first = (row * p.n_heads + set * HEADS + h) * HEAD_VECS;
        [[unroll]] for (uint i = 0; i < QUERIES; i++)
            query[h][i] = f32x4_in(p.q).v[first + min(t % PER_KEY + i * PER_KEY, HEAD_VECS - 1)] * (p.scale * LOG2E);
        o[h] = vec4(0);
        most[h] = NO_SCORE;
        sum[h] = 0;
    }
    for (uint first = range.x; first < range.y; first += KEYS) {
        for (uint key = t / PER_KEY; key < KEYS; key += THREADS / PER_KEY) {
            const uvec2 base = cache_place(min(first + key, range.y - 1), p.n_kv_heads, kv_head, HEAD_DIM);
            float s[HEADS];
            [[unroll]] for (uint h = 0; h < HEADS; h++) s[h] = 0;
            [[unroll]] for (uint i = 0; i < QUERIES; i++) {
                const uint d = t % PER_KEY + i * PER_KEY;
                if (d < HEAD_VECS) {
                    const vec4 k = cache_get4(k4, base, d);
                    [[unroll]] for (uint h = 0; h < HEADS; h++) s[h] += dot(query[h][i], k);
                }
            }
            [[unroll]] for (uint h = 0; h < HEADS; h++) partial[(h * KEYS + key) * PITCH + t % PER_KEY] = s[h];
        }
        barrier();
        float score = 0;
        [[unroll]] for (uint i = 0; i < PER_KEY; i++)
            score += partial[t * PITCH + i];
        const bool seen = own_head < HEADS && first + own_key < range.y; // three heads have 96 scores
        scores[t / 4][t % 4] = seen ? score : NO_SCORE;
        barrier();
        if (t < THREADS / 4)
            greatest[t / 4][t % 4] = most_of(scores[t]);
        barrier();
        float own_most = 0;
        [[unroll]] for (uint h = 0; h < HEADS; h++) {
            float new_most = most[h];
            [[unroll]] for (uint i = 0; i < KEYS / 16; i++)
                new_most = max(new_most, most_of(greatest[h * (KEYS / 16) + i]));
            const float shrink = exp2(most[h] - new_most);
            most[h] = new_most;
            o[h] *= shrink;
            sum[h] *= shrink;
            own_most = own_head == h ? new_most : own_most;
        }
        if (own_head < HEADS)
            weights[own_key][own_head] = seen ? exp2(score - own_most) : 0;
        barrier();
        if (sharer < SHARERS)
            for (uint key = sharer; key < min(KEYS, range.y - first); key += SHARERS) {
                const vec4 weight = weights[key];
                const vec4 v = cache_get4(v4, cache_place(first + key, p.n_kv_heads, kv_head, HEAD_DIM), column);
                [[unroll]] for (uint h = 0; h < HEADS; h++) {
                    o[h] += weight[h] * v;
                    sum[h] += weight[h];
                }
            }
    }
    Parts part = Parts(uvec2(p.part));
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        barrier();
        result[t] = o[h];
        sums[t] = sum[h];
        barrier();
        if (t < HEAD_VECS) {
            for (uint i = 1; i < SHARERS; i++) {
                o[h] += result[i * HEAD_VECS + t];
                sum[h] += sums[i * HEAD_VECS + t];
            }
            const uint at = part_at(row, set * HEADS + h, split);
            part.v[at + t] = o[h];
            if (t == 0)
                part.v[at + HEAD_VECS] = vec4(most[h], sum[h], 0, 0);
        }
    }
    if (is_last_part(row * sets + set, p.n_parts) && t < HEAD_VECS)
        [[unroll]] for (uint h = 0; h < HEADS; h++)
            JOIN_PARTS(1, row, set * HEADS + h, t)
}
