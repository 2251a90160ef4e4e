// Gradient of attention's queries on GPUs: attention.comp's walk over tiles of keys with weights from the saved lse.
// p = exp(scale q.k - lse), ds = p (do.v - delta), dq = scale sum over keys of ds k.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_tile.glsl"

void main() {
    const uint tiles = (p.rows + TILE_ROWS - 1) / TILE_ROWS;
    const uint head = head_of_group(p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint first = tile_of_group(tiles, p.n_heads) * TILE_ROWS;
    const uvec2 range = tile_bounds(p.span, first, p.rows, p.key_rows);
    f32x4_in q4 = f32x4_in(p.q), k4 = f32x4_in(p.k), v4 = f32x4_in(p.v), dy4 = f32x4_in(p.dy);

    precise vec4 s[THREAD_ROWS], dp[THREAD_ROWS], dq[N_SUMS];
    uvec2 span[THREAD_ROWS];
    float lse[THREAD_ROWS], delta[THREAD_ROWS];
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
        const uint row = first + ty() + 16 * r, safe_row = min(row, p.rows - 1);
        span[r] = row < p.rows ? uvec2(p.span.v[2 * safe_row], min(p.span.v[2 * safe_row + 1], p.key_rows)) : uvec2(0);
        lse[r] = p.lse.v[safe_row * p.n_heads + head];
        delta[r] = p.delta.v[safe_row * p.n_heads + head];
        [[unroll]] for (uint i = 0; i < N_CHUNKS; i++)
            dq[r * N_CHUNKS + i] = vec4(0);
    }
    for (uint key = range.x / TILE_COLUMNS * TILE_COLUMNS; key < range.y; key += TILE_COLUMNS) {
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
            s[r] = vec4(0);
            dp[r] = vec4(0);
        }
        for (uint c = 0; c < N_CHUNKS; c++) {
            barrier();
            stage_left(q4, first, p.rows, p.n_heads, head, c);
            stage_right(k4, key, 0, p.key_rows, p.n_kv_heads, kv_head, c);
            barrier();
            multiply_chunk(s);
            barrier();
            stage_left(dy4, first, p.rows, p.n_heads, head, c);
            stage_right(v4, key, 0, p.key_rows, p.n_kv_heads, kv_head, c);
            barrier();
            multiply_chunk(dp);
        }
        barrier();
        const uvec4 column = key + 4 * tx() + uvec4(0, 1, 2, 3);
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
            precise const vec4 ds = weights_of(s[r] * (p.scale * LOG2E), vec4(lse[r])) * (dp[r] - delta[r]);
            left[(ty() + 16 * r) * PITCH + tx()] = seen_or_zero(ds, column, span[r]);
        }
        add_chunks(dq, k4, key, 0, p.key_rows, p.n_kv_heads, kv_head);
    }
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
        const uint row = first + ty() + 16 * r;
        [[unroll]] for (uint i = 0; i < N_CHUNKS; i++)
            if (row < p.rows && i * CHUNK_VECS + tx() < HEAD_VECS)
                f32x4_rw(p.dq).v[(row * p.n_heads + head) * HEAD_VECS + i * CHUNK_VECS + tx()] = dq[r * N_CHUNKS + i] * p.scale;
    }
}
