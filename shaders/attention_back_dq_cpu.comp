// Gradient of attention's queries on CPU devices: a lane is a query row, or two, keys and values come from uniform addresses. With
// p = exp(scale q.k - lse) and ds = p (do.v - delta): dq = scale sum over keys of ds k. Weights come from the saved lse, so there is no running maximum.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_back_cpu.glsl"

const uint KEYS = (HEAD_DIM > 128 ? 2 : HEAD_DIM > 64 ? 4 : 8) / LANE_ROWS; // the code of a step should stay in the first cache

void main() {
    const uint tiles = (p.rows + LANE_ROWS * LOCAL_SIZE - 1) / (LANE_ROWS * LOCAL_SIZE);
    const uint head = head_of_run(tiles, p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint first = tile_of_run(tiles) * LANE_ROWS * LOCAL_SIZE;

    uint low = 0xffffffffu, high = 0;
    for (uint i = first; i < min(first + LANE_ROWS * LOCAL_SIZE, p.rows); i++) {
        const uint begin = p.span.v[2 * i], end = min(p.span.v[2 * i + 1], p.key_rows);
        if (begin < end) {
            low = min(low, begin);
            high = max(high, end);
        }
    }
    uint row[LANE_ROWS], at[LANE_ROWS], span_begin[LANE_ROWS], span_end[LANE_ROWS];
    float lse[LANE_ROWS], delta[LANE_ROWS];
    vec4 q[LANE_ROWS][HEAD_VECS], dy[LANE_ROWS][HEAD_VECS], dq[LANE_ROWS][HEAD_VECS];
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
        row[w] = first + w * LOCAL_SIZE + gl_LocalInvocationID.x;
        const uint safe_row = min(row[w], p.rows - 1);
        span_begin[w] = p.span.v[2 * safe_row];
        span_end[w] = row[w] < p.rows ? min(p.span.v[2 * safe_row + 1], p.key_rows) : 0;
        at[w] = (safe_row * p.n_heads + head) * HEAD_VECS;
        lse[w] = p.lse.v[safe_row * p.n_heads + head], delta[w] = p.delta.v[safe_row * p.n_heads + head];
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            q[w][d] = f32x4_in(p.q).v[at[w] + d] * (p.scale * LOG2E);
            dy[w][d] = f32x4_in(p.dy).v[at[w] + d];
            dq[w][d] = vec4(0);
        }
    }
    for (uint key = low / KEYS * KEYS; key < high; key += KEYS) {
        uvec2 k[KEYS], k_again[KEYS], v[KEYS];
        float s[KEYS][LANE_ROWS], dp[KEYS][LANE_ROWS];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            const uint base = (min(key + j, p.key_rows - 1) * p.n_kv_heads + kv_head) * HEAD_VECS;
            k[j] = row_from(uvec2(p.k), base), k_again[j] = row_from(uvec2(p.k), base + again());
            v[j] = row_from(uvec2(p.v), base);
            [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) s[j][w] = dp[j][w] = 0;
        }
        [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
            [[unroll]] for (uint j = 0; j < KEYS; j++)
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
                    s[j][w] = fma(q[w][d / 4][d % 4], f32x4_in(k[j]).v[d / 4][d % 4], s[j][w]);
        [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
            [[unroll]] for (uint j = 0; j < KEYS; j++)
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
                    dp[j][w] = fma(dy[w][d / 4][d % 4], f32x4_in(v[j]).v[d / 4][d % 4], dp[j][w]);
        [[unroll]] for (uint j = 0; j < KEYS; j++)
            [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                const bool seen = key + j >= span_begin[w] && key + j < span_end[w];
                s[j][w] = mix(0, weight_of(s[j][w], lse[w]) * (dp[j][w] - delta[w]), seen);
            }
        [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
            [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                float total = dq[w][d / 4][d % 4];
                [[unroll]] for (uint j = 0; j < KEYS; j++) total = fma(s[j][w], f32x4_in(k_again[j]).v[d / 4][d % 4], total);
                dq[w][d / 4][d % 4] = total;
            }
    }
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
        if (row[w] < p.rows)
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) f32x4_rw(p.dq).v[at[w] + d] = dq[w][d] * p.scale;
}
