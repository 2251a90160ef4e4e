// Attention for CPU devices: a lane is a query row, or two, whose queries and outputs are its own, keys and values come from uniform
// addresses, eight keys a step. No shared memory, no barrier. Blocks of keys lie at absolute multiples of KEYS, so that a row's sums do
// not depend on the rows that share its tile.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

layout(constant_id = 4) const uint LANE_ROWS = 1; // rows of a lane, LOCAL_SIZE apart: what is loaded for all lanes serves each of them
const uint KEYS = (HEAD_DIM > 128 ? 4 : 8) / LANE_ROWS; // half for the widest heads: the code is unrolled in both directions

void main() {
    const uint tiles = (p.rows + LANE_ROWS * LOCAL_SIZE - 1) / (LANE_ROWS * LOCAL_SIZE);
    const uint head = head_of_run(tiles, p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint first = tile_of_run(tiles) * LANE_ROWS * LOCAL_SIZE;

    // Every lane reads all spans of the tile, so that the bounds of the loop are uniform.
    uint low = 0xffffffffu, high = 0;
    for (uint i = first; i < min(first + LANE_ROWS * LOCAL_SIZE, p.rows); i++) {
        const uint begin = p.span.v[2 * i], end = min(p.span.v[2 * i + 1], p.key_rows);
        if (begin < end) {
            low = min(low, begin);
            high = max(high, end);
        }
    }
    f32x4_in k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);
    uint row[LANE_ROWS], span_begin[LANE_ROWS], span_end[LANE_ROWS];
    vec4 q[LANE_ROWS][HEAD_VECS], o[LANE_ROWS][HEAD_VECS];
    float most[LANE_ROWS], sum[LANE_ROWS];
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
        row[w] = first + w * LOCAL_SIZE + gl_LocalInvocationID.x;
        const uint safe_row = min(row[w], p.rows - 1);
        span_begin[w] = p.span.v[2 * safe_row];
        span_end[w] = row[w] < p.rows ? min(p.span.v[2 * safe_row + 1], p.key_rows) : 0;
        most[w] = NO_SCORE, sum[w] = 0;
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            q[w][d] = f32x4_in(p.q).v[(safe_row * p.n_heads + head) * HEAD_VECS + d] * (p.scale * LOG2E);
            o[w][d] = vec4(0);
        }
    }
    for (uint key = low / KEYS * KEYS; key < high; key += KEYS) {
        uvec2 base[KEYS];
        float s[KEYS][LANE_ROWS];
        // Within the spans: a cache's memory beyond may never have been written, and no weight of 0 makes a number of a NaN.
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            base[j] = cache_place(clamp(key + j, low, high - 1), p.n_kv_heads, kv_head, HEAD_DIM);
            [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) s[j][w] = 0;
        }
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                const vec4 k = cache_get4(k4, base[j], d);
                [[unroll]] for (uint e = 0; e < 4; e++)
                    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) s[j][w] = fma(q[w][d][e], k[e], s[j][w]);
            }
        float shrink[LANE_ROWS];
        [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
            float new_most = most[w];
            bool seen[KEYS];
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                seen[j] = key + j >= span_begin[w] && key + j < span_end[w];
                new_most = max(new_most, seen[j] ? s[j][w] : NO_SCORE);
            }
            shrink[w] = exp2(most[w] - new_most);
            most[w] = new_most;
            sum[w] *= shrink[w];
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                s[j][w] = seen[j] ? exp2(s[j][w] - most[w]) : 0;
                sum[w] += s[j][w];
            }
        }
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            vec4 total[LANE_ROWS];
            [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) total[w] = o[w][d] * shrink[w];
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                const vec4 v = cache_get4(v4, base[j], d);
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) total[w] = fma(vec4(s[j][w]), v, total[w]);
            }
            [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) o[w][d] = total[w];
        }
    }
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
        if (row[w] >= p.rows)
            continue;
        const float inverse = sum[w] == 0 ? 0 : 1 / sum[w];
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
            f32x4_rw(p.o).v[(row[w] * p.n_heads + head) * HEAD_VECS + d] = o[w][d] * inverse;
        if (uvec2(p.lse) != uvec2(0))
            p.lse.v[row[w] * p.n_heads + head] = logsumexp_of(most[w], sum[w]);
    }
}
