// Gradient of attention's queries on CPU devices: a lane is a query row, keys and values come from uniform addresses. With
// p = exp(scale q.k - lse) and ds = p (do.v - delta): dq = scale sum over keys of ds k. Weights come from the saved lse, so there is no running maximum.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"

const uint KEYS = HEAD_DIM > 128 ? 2 : 4;

void main() {
    const uint tiles = (p.rows + LOCAL_SIZE - 1) / LOCAL_SIZE;
    const uint head = head_of_run(tiles, p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint first = tile_of_run(tiles) * LOCAL_SIZE;
    const uint row = first + gl_LocalInvocationID.x, safe_row = min(row, p.rows - 1);

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
    const uint at = (safe_row * p.n_heads + head) * HEAD_VECS;
    vec4 q[HEAD_VECS], dy[HEAD_VECS], dq[HEAD_VECS];
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
        q[d] = f32x4_in(p.q).v[at + d] * (p.scale * LOG2E);
        dy[d] = f32x4_in(p.dy).v[at + d];
        dq[d] = vec4(0);
    }
    const float lse = p.lse.v[safe_row * p.n_heads + head], delta = p.delta.v[safe_row * p.n_heads + head];
    for (uint key = low / KEYS * KEYS; key < high; key += KEYS) {
        uint base[KEYS];
        float s[KEYS], dp[KEYS];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            base[j] = (min(key + j, p.key_rows - 1) * p.n_kv_heads + kv_head) * HEAD_VECS;
            s[j] = 0;
            dp[j] = 0;
        }
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                const vec4 k = k4.v[base[j] + d];
                s[j] = fma(q[d].x, k.x, s[j]);
                s[j] = fma(q[d].y, k.y, s[j]);
                s[j] = fma(q[d].z, k.z, s[j]);
                s[j] = fma(q[d].w, k.w, s[j]);
                const vec4 v = v4.v[base[j] + d];
                dp[j] = fma(dy[d].x, v.x, dp[j]);
                dp[j] = fma(dy[d].y, v.y, dp[j]);
                dp[j] = fma(dy[d].z, v.z, dp[j]);
                dp[j] = fma(dy[d].w, v.w, dp[j]);
            }
        [[unroll]] for (uint j = 0; j < KEYS; j++)
            s[j] = key + j >= span_begin && key + j < span_end ? weight_of(s[j], lse) * (dp[j] - delta) : 0;
        [[unroll]] for (uint d = 0; d < HEAD_VECS; d++) {
            vec4 total = dq[d];
            [[unroll]] for (uint j = 0; j < KEYS; j++)
                total = fma(vec4(s[j]), k4.v[base[j] + d], total);
            dq[d] = total;
        }
    }
    if (row >= p.rows)
        return;
    [[unroll]] for (uint d = 0; d < HEAD_VECS; d++)
        f32x4_rw(p.dq).v[at + d] = dq[d] * p.scale;
}
