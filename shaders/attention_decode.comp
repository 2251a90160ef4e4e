// Attention of few rows over long spans on GPUs: a workgroup takes one part of the keys of one row and head, 128 keys at a time. First eight
// threads a key for the scores, with their fours of the query in registers, then a thread a column of values for a share of the keys, four at a time. The last
// workgroup of a row and head joins the parts.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_part.glsl"

const uint THREADS = 128, KEYS = THREADS, PER_KEY = 8, PITCH = PER_KEY + 1;
const uint EACH = (HEAD_VECS + PER_KEY - 1) / PER_KEY; // fours of a key for each of its threads
const uint SHARERS = THREADS / HEAD_VECS; // threads that share a column of values

shared float partial[KEYS * PITCH];
shared vec4 weights[KEYS / 4];
shared vec4 peaks[KEYS / 32];
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
    const uint row_bytes = cache_row_bytes(p.n_kv_heads * HEAD_DIM);
    vec4 query[EACH];
    [[unroll]] for (uint j = 0; j < EACH; j++) {
        const uint d = t % PER_KEY + j * PER_KEY;
        query[j] = d < HEAD_VECS ? f32x4_in(p.q).v[(row * p.n_heads + head) * HEAD_VECS + d] * (p.scale * LOG2E) : vec4(0);
    }

    vec4 o = vec4(0);
    float most = NO_SCORE, sum = 0;
    for (uint first = range.x; first < range.y; first += KEYS) {
        const uint keys = min(KEYS, range.y - first);
        f32x4_in k4 = f32x4_in(moved(uvec2(p.k), first, row_bytes)), v4 = f32x4_in(moved(uvec2(p.v), first, row_bytes));
        for (uint i = t / PER_KEY; i < KEYS; i += THREADS / PER_KEY) {
            const uvec2 base = cache_place(min(i, keys - 1), p.n_kv_heads, kv_head, HEAD_DIM);
            float s = 0;
            [[unroll]] for (uint j = 0; j < EACH; j++)
                s += dot(query[j], cache_get4(k4, base, min(t % PER_KEY + j * PER_KEY, HEAD_VECS - 1)));
            partial[i * PITCH + t % PER_KEY] = s;
        }
        barrier();
        float score = 0;
        [[unroll]] for (uint i = 0; i < PER_KEY; i++)
            score += partial[t * PITCH + i];
        const bool seen = t < keys;
        weights[t / 4][t % 4] = seen ? score : NO_SCORE;
        barrier();
        const vec4 eight = max(weights[t / 4], weights[(t / 4) ^ 1]); // each four with its neighbour
        if (t % 8 == 0)
            peaks[t / 32][t / 8 % 4] = max(max(eight.x, eight.y), max(eight.z, eight.w));
        barrier();
        vec4 greatest = peaks[0];
        [[unroll]] for (uint i = 1; i < KEYS / 32; i++)
            greatest = max(greatest, peaks[i]);
        const float new_most = max(most, max(max(greatest.x, greatest.y), max(greatest.z, greatest.w)));
        const float shrink = exp2(most - new_most);
        most = new_most;
        o *= shrink;
        sum *= shrink;
        weights[t / 4][t % 4] = seen ? exp2(score - most) : 0;
        barrier();
        if (sharer < SHARERS)
            for (uint four = sharer; four * 4 < keys; four += SHARERS) {
                const vec4 weight = weights[four];
                [[unroll]] for (uint j = 0; j < 4; j++) // zeros behind the last key
                    o += weight[j] * cache_get4(v4, cache_place(min(four * 4 + j, keys - 1), p.n_kv_heads, kv_head, HEAD_DIM), column);
                sum += (weight.x + weight.y) + (weight.z + weight.w);
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
