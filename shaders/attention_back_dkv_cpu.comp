// Gradients of attention's keys and values on CPU devices: a lane is a key, or two, query rows come from uniform addresses, one query head after the
// other. dv = sum over rows of p do; dk = scale sum of ds q, with p and ds as in attention_back_dq_cpu.comp. Rows are added in ascending order.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_back_cpu.glsl"

const uint ROWS = HEAD_DIM > 128 ? 2 : 4; // the code is unrolled in both directions

void main() {
    const uint tiles = (p.key_rows + LANE_ROWS * LOCAL_SIZE - 1) / (LANE_ROWS * LOCAL_SIZE);
    const uint kv_head = head_of_run(tiles, p.n_kv_heads), n_shared = p.n_heads / p.n_kv_heads;
    const uint first = tile_of_run(tiles) * LANE_ROWS * LOCAL_SIZE;

    uint low = 0xffffffffu, high = 0;
    for (uint i = first; i < min(first + LANE_ROWS * LOCAL_SIZE, p.key_rows); i++) {
        const uint begin = p.key_span.v[2 * i], end = min(p.key_span.v[2 * i + 1], p.rows);
        if (begin < end) {
            low = min(low, begin);
            high = max(high, end);
        }
    }

    uint key[LANE_ROWS], at[LANE_ROWS];
    vec4 k[LANE_ROWS][HEAD_VECS], v[LANE_ROWS][HEAD_VECS], dk[LANE_ROWS][HEAD_VECS], dv[LANE_ROWS][HEAD_VECS];
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
        key[w] = first + gl_LocalInvocationID.x + w * LOCAL_SIZE;
        at[w] = (min(key[w], p.key_rows - 1) * p.n_kv_heads + kv_head) * HEAD_VECS;
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            k[w][d] = f32x4_in(p.k).v[at[w] + d] * (p.scale * LOG2E);
            v[w][d] = f32x4_in(p.v).v[at[w] + d];
            dk[w][d] = vec4(0);
            dv[w][d] = vec4(0);
        }
    }
    for (uint head = kv_head * n_shared; head < (kv_head + 1) * n_shared; head++)
        for (uint row = low; row < high; row += ROWS) {
            uvec2 q[ROWS], q_again[ROWS], dy[ROWS], dy_again[ROWS];
            float s[ROWS][LANE_ROWS], dp[ROWS][LANE_ROWS], lse[ROWS], delta[ROWS];
            uint key_begin[ROWS], key_end[ROWS];
            // lse, delta and span are read here because lavapipe tests these pointers where it meets them first, which ends a block of code. If addresses
            // stood in one block with products, the compiler would make products of the first row while it waits for the other addresses, and spill them.
            [[unroll]] for (uint i = 0; i < ROWS; i++) {
                const uint r = min(row + i, p.rows - 1), stat = r * p.n_heads + head, base = stat * HEAD_VECS;
                q[i] = row_from(uvec2(p.q), base), q_again[i] = row_from(uvec2(p.q), base + again());
                dy[i] = row_from(uvec2(p.dy), base), dy_again[i] = row_from(uvec2(p.dy), base + again());
                lse[i] = p.lse.v[stat], delta[i] = p.delta.v[stat];
                key_begin[i] = p.span.v[2 * r], key_end[i] = row + i < p.rows ? p.span.v[2 * r + 1] : 0;
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) s[i][w] = dp[i][w] = 0;
            }
            // Each of the four products by itself, because registers hold sums of one.
            [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
                [[unroll]] for (uint i = 0; i < ROWS; i++)
                    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
                        s[i][w] = fma(k[w][d / 4][d % 4], f32x4_in(q[i]).v[d / 4][d % 4], s[i][w]);
            [[unroll]] for (uint i = 0; i < ROWS; i++)
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
                    s[i][w] = mix(0, weight_of(s[i][w], lse[i]), key[w] >= key_begin[i] && key[w] < key_end[i]);
            [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                    float total = dv[w][d / 4][d % 4];
                    [[unroll]] for (uint i = 0; i < ROWS; i++) total = fma(s[i][w], f32x4_in(dy_again[i]).v[d / 4][d % 4], total);
                    dv[w][d / 4][d % 4] = total;
                }
            [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
                [[unroll]] for (uint i = 0; i < ROWS; i++)
                    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
                        dp[i][w] = fma(v[w][d / 4][d % 4], f32x4_in(dy[i]).v[d / 4][d % 4], dp[i][w]);
            [[unroll]] for (uint i = 0; i < ROWS; i++)
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) dp[i][w] = s[i][w] * (dp[i][w] - delta[i]);
            [[unroll]] for (uint d = 0; d < HEAD_DIM; d++)
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                    float total = dk[w][d / 4][d % 4];
                    [[unroll]] for (uint i = 0; i < ROWS; i++) total = fma(dp[i][w], f32x4_in(q_again[i]).v[d / 4][d % 4], total);
                    dk[w][d / 4][d % 4] = total;
                }
        }
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
        if (key[w] < p.key_rows)
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
                f32x4_rw(p.dk).v[at[w] + d] = dk[w][d] * p.scale;
                f32x4_rw(p.dv).v[at[w] + d] = dv[w][d];
            }
}
