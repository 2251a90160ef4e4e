// Attention for CPU devices: a lane is a query row, its query and output live in registers, keys and values come from uniform
// addresses, eight keys a step. No shared memory, no barrier. Blocks of keys lie at absolute multiples of KEYS, so that a row's sums do
// not depend on the rows that share its tile.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

const uint KEYS = HEAD_DIM > 128 ? 4 : 8; // half for the widest heads: the code is unrolled in both directions

void main() {
    const uint tiles = (p.rows + LOCAL_SIZE - 1) / LOCAL_SIZE;
    const uint head = head_of_run(tiles, p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint first = tile_of_run(tiles) * LOCAL_SIZE;
    const uint row = first + gl_LocalInvocationID.x, safe_row = min(row, p.rows - 1);

    // Every lane reads all spans of the tile, so that the bounds of the loop are uniform.
    uint low = 0xffffffffu, high = 0;
    for (uint i = first; i < min(first + LOCAL_SIZE, p.rows); i++) {
        const uint begin = p.span.v[2 * i], end = min(p.span.v[2 * i + 1], p.key_rows);
        if (begin < end) {
            low = min(low, begin);
            high = max(high, end);
        }
    }
    const uint span_begin = p.span.v[2 * safe_row];
    const uint span_end = row < p.rows ? min(p.span.v[2 * safe_row + 1], p.key_rows) : 0;

    f32x4_in k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);
    vec4 q[HEAD_VECS], o[HEAD_VECS];
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
        q[d] = f32x4_in(p.q).v[(safe_row * p.n_heads + head) * HEAD_VECS + d] * (p.scale * LOG2E);
        o[d] = vec4(0);
    }
    float most = NO_SCORE, sum = 0;
    for (uint key = low / KEYS * KEYS; key < high; key += KEYS) {
        uvec2 base[KEYS];
        float s[KEYS];
        // Within the spans: a cache's memory beyond may never have been written, and no weight of 0 makes a number of a NaN.
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            base[j] = cache_place(clamp(key + j, low, high - 1), p.n_kv_heads, kv_head, HEAD_DIM);
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
        bool seen[KEYS];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            seen[j] = key + j >= span_begin && key + j < span_end;
            new_most = max(new_most, seen[j] ? s[j] : NO_SCORE);
        }
        const float shrink = exp2(most - new_most);
        most = new_most;
        sum *= shrink;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            s[j] = seen[j] ? exp2(s[j] - most) : 0;
            sum += s[j];
        }
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            vec4 total = o[d] * shrink;
            [[unroll]] for (uint j = 0; j < KEYS; j++)
                total = fma(vec4(s[j]), cache_get4(v4, base[j], d), total);
            o[d] = total;
        }
    }
    if (row >= p.rows)
        return;
    const float inverse = sum == 0 ? 0 : 1 / sum;
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
        f32x4_rw(p.o).v[(row * p.n_heads + head) * HEAD_VECS + d] = o[d] * inverse;
    if (uvec2(p.lse) != uvec2(0))
        p.lse.v[row * p.n_heads + head] = logsumexp_of(most, sum);
}
