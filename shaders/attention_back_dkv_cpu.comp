// Gradients of attention's keys and values on CPU devices: a lane is a key, query rows come from uniform addresses, one query head after the
// other. dv = sum over rows of p do; dk = scale sum of ds q, with p and ds as in attention_back_dq_cpu.comp. Rows are added in ascending order.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

const uint ROWS = 2;

void main() {
    const uint tiles = (p.key_rows + LOCAL_SIZE - 1) / LOCAL_SIZE;
    const uint kv_head = head_of_run(tiles, p.n_kv_heads), n_shared = p.n_heads / p.n_kv_heads;
    const uint first = tile_of_run(tiles) * LOCAL_SIZE;
    const uint key = first + gl_LocalInvocationID.x, safe_key = min(key, p.key_rows - 1);

    uint low = 0xffffffffu, high = 0;
    for (uint i = first; i < min(first + LOCAL_SIZE, p.key_rows); i++) {
        const uint begin = p.key_span.v[2 * i], end = min(p.key_span.v[2 * i + 1], p.rows);
        if (begin < end) {
            low = min(low, begin);
            high = max(high, end);
        }
    }
    const uint row_begin = p.key_span.v[2 * safe_key];
    const uint row_end = key < p.key_rows ? min(p.key_span.v[2 * safe_key + 1], p.rows) : 0;

    f32x4_in q4 = f32x4_in(p.q), dy4 = f32x4_in(p.dy);
    const uint at = (safe_key * p.n_kv_heads + kv_head) * HEAD_VECS;
    vec4 k[HEAD_VECS], v[HEAD_VECS], dk[HEAD_VECS], dv[HEAD_VECS];
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
        k[d] = f32x4_in(p.k).v[at + d] * (p.scale * LOG2E);
        v[d] = f32x4_in(p.v).v[at + d];
        dk[d] = vec4(0);
        dv[d] = vec4(0);
    }
    for (uint head = kv_head * n_shared; head < (kv_head + 1) * n_shared; head++)
        for (uint row = low; row < high; row += ROWS) {
            uint base[ROWS];
            float s[ROWS], dp[ROWS];
            [[unroll]] for (uint i = 0; i < ROWS; i++) {
                base[i] = (min(row + i, p.rows - 1) * p.n_heads + head) * HEAD_VECS;
                s[i] = 0;
                dp[i] = 0;
            }
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
                [[unroll]] for (uint i = 0; i < ROWS; i++) {
                    const vec4 q = q4.v[base[i] + d];
                    s[i] = fma(k[d].x, q.x, s[i]);
                    s[i] = fma(k[d].y, q.y, s[i]);
                    s[i] = fma(k[d].z, q.z, s[i]);
                    s[i] = fma(k[d].w, q.w, s[i]);
                    const vec4 dy = dy4.v[base[i] + d];
                    dp[i] = fma(v[d].x, dy.x, dp[i]);
                    dp[i] = fma(v[d].y, dy.y, dp[i]);
                    dp[i] = fma(v[d].z, dy.z, dp[i]);
                    dp[i] = fma(v[d].w, dy.w, dp[i]);
                }
            [[unroll]] for (uint i = 0; i < ROWS; i++) {
                const uint r = min(row + i, p.rows - 1), stat = r * p.n_heads + head;
                const bool seen = row + i >= row_begin && row + i < row_end && key >= p.span.v[2 * r] && key < p.span.v[2 * r + 1];
                s[i] = seen ? weight_of(s[i], p.lse.v[stat]) : 0;
                dp[i] = seen ? s[i] * (dp[i] - p.delta.v[stat]) : 0;
            }
            [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
                vec4 total_k = dk[d], total_v = dv[d];
                [[unroll]] for (uint i = 0; i < ROWS; i++) {
                    total_k = fma(vec4(dp[i]), q4.v[base[i] + d], total_k);
                    total_v = fma(vec4(s[i]), dy4.v[base[i] + d], total_v);
                }
                dk[d] = total_k;
                dv[d] = total_v;
            }
        }
    if (key >= p.key_rows)
        return;
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
        f32x4_rw(p.dk).v[at + d] = dk[d] * p.scale;
        f32x4_rw(p.dv).v[at + d] = dv[d];
    }
}
