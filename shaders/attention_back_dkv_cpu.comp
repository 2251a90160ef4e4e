// Gradients of attention's keys and values on CPU devices: a lane is a key, or two, query rows come from uniform addresses, one query head after the
// other. dv = sum over rows of p do; dk = scale sum of ds q, with p and ds as in attention_back_dq_cpu.comp. Rows are added in ascending order.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

layout(constant_id = 4) const uint LANE_ROWS = 1; // keys of a lane
const uint ROWS = 2;

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

    f32x4_in q4 = f32x4_in(p.q), dy4 = f32x4_in(p.dy);
    vec4 k[LANE_ROWS][HEAD_VECS], v[LANE_ROWS][HEAD_VECS], dk[LANE_ROWS][HEAD_VECS], dv[LANE_ROWS][HEAD_VECS];
    uint row_begin[LANE_ROWS], row_end[LANE_ROWS], key[LANE_ROWS], at[LANE_ROWS];
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
        key[w] = first + gl_LocalInvocationID.x + w * LOCAL_SIZE;
        uint safe_key = min(key[w], p.key_rows - 1);
        row_begin[w] = p.key_span.v[2 * safe_key];
        row_end[w] = key[w] < p.key_rows ? min(p.key_span.v[2 * safe_key + 1], p.rows) : 0;
        at[w] = (safe_key * p.n_kv_heads + kv_head) * HEAD_VECS;
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            k[w][d] = f32x4_in(p.k).v[at[w] + d] * (p.scale * LOG2E);
            v[w][d] = f32x4_in(p.v).v[at[w] + d];
            dk[w][d] = vec4(0);
            dv[w][d] = vec4(0);
        }
    }
    for (uint head = kv_head * n_shared; head < (kv_head + 1) * n_shared; head++)
        for (uint row = low; row < high; row += ROWS) {
            uint base[ROWS];
            float s[ROWS][LANE_ROWS], dp[ROWS][LANE_ROWS];
            [[unroll]] for (uint i = 0; i < ROWS; i++) {
                base[i] = (min(row + i, p.rows - 1) * p.n_heads + head) * HEAD_VECS;
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) s[i][w] = dp[i][w] = 0;
            }
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
                [[unroll]] for (uint i = 0; i < ROWS; i++) {
                    const vec4 q = q4.v[base[i] + d], dy = dy4.v[base[i] + d];
                    [[unroll]] for (uint e = 0; e < 4; e++)
                        [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                            s[i][w] = fma(k[w][d][e], q[e], s[i][w]);
                            dp[i][w] = fma(v[w][d][e], dy[e], dp[i][w]);
                        }
                }
            [[unroll]] for (uint i = 0; i < ROWS; i++) {
                const uint r = min(row + i, p.rows - 1), stat = r * p.n_heads + head;
                const uint key_begin = p.span.v[2 * r], key_end = p.span.v[2 * r + 1];
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                    const bool seen = row + i >= row_begin[w] && row + i < row_end[w] && key[w] >= key_begin && key[w] < key_end;
                    s[i][w] = seen ? weight_of(s[i][w], p.lse.v[stat]) : 0;
                    dp[i][w] = seen ? s[i][w] * (dp[i][w] - p.delta.v[stat]) : 0;
                }
            }
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
                vec4 total_k[LANE_ROWS], total_v[LANE_ROWS];
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) total_k[w] = dk[w][d], total_v[w] = dv[w][d];
                [[unroll]] for (uint i = 0; i < ROWS; i++) {
                    const vec4 q = q4.v[base[i] + d], dy = dy4.v[base[i] + d];
                    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) {
                        total_k[w] = fma(vec4(dp[i][w]), q, total_k[w]);
                        total_v[w] = fma(vec4(s[i][w]), dy, total_v[w]);
                    }
                }
                [[unroll]] for (uint w = 0; w < LANE_ROWS; w++) dk[w][d] = total_k[w], dv[w][d] = total_v[w];
            }
        }
    [[unroll]] for (uint w = 0; w < LANE_ROWS; w++)
        if (key[w] < p.key_rows)
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
                f32x4_rw(p.dk).v[at[w] + d] = dk[w][d] * p.scale;
                f32x4_rw(p.dv).v[at[w] + d] = dv[w][d];
            }
}
