// Gradients of attention's keys and values on GPUs: a workgroup is a tile of keys of one key head and walks, for each query head that
// shares it, over tiles of 32 query rows in ascending order. dv = sum over rows of p do; dk = scale sum of ds q; p and ds as in attention_back_dq.comp.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_tile.glsl"

void main() {
    const uint tiles = (p.key_rows + TILE_ROWS - 1) / TILE_ROWS;
    const uint kv_head = head_of_group(p.n_kv_heads), n_shared = p.n_heads / p.n_kv_heads;
    const uint first = min(group_index() / p.n_kv_heads, tiles - 1) * TILE_ROWS;
    const uvec2 range = tile_bounds(p.key_span, first, p.key_rows, p.rows);
    f32x4_in q4 = f32x4_in(p.q), k4 = f32x4_in(p.k), v4 = f32x4_in(p.v), dy4 = f32x4_in(p.dy);

    precise vec4 s[THREAD_ROWS], dp[THREAD_ROWS], dk[N_SUMS], dv[N_SUMS];
    uvec2 key_span[THREAD_ROWS];
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
        const uint key = first + ty() + 16 * r, safe_key = min(key, p.key_rows - 1);
        key_span[r] = key < p.key_rows ? uvec2(p.key_span.v[2 * safe_key], min(p.key_span.v[2 * safe_key + 1], p.rows)) : uvec2(0);
        [[unroll]] for (uint i = 0; i < N_CHUNKS; i++) {
            dk[r * N_CHUNKS + i] = vec4(0);
            dv[r * N_CHUNKS + i] = vec4(0);
        }
    }
    for (uint head = kv_head * n_shared; head < (kv_head + 1) * n_shared; head++)
        for (uint row = range.x / TILE_COLUMNS * TILE_COLUMNS; row < range.y; row += TILE_COLUMNS) {
            [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
                s[r] = vec4(0);
                dp[r] = vec4(0);
            }
            for (uint c = 0; c < N_CHUNKS; c++) {
                barrier();
                stage_left(k4, first, p.key_rows, p.n_kv_heads, kv_head, c);
                stage_right(q4, row, 0, p.rows, p.n_heads, head, c);
                barrier();
                multiply_chunk(s);
                barrier();
                stage_left(v4, first, p.key_rows, p.n_kv_heads, kv_head, c);
                stage_right(dy4, row, 0, p.rows, p.n_heads, head, c);
                barrier();
                multiply_chunk(dp);
            }
            // The four rows of this thread's columns: their spans and statistics.
            const uvec4 column = row + 4 * tx() + uvec4(0, 1, 2, 3), safe = min(column, p.rows - 1);
            uvec4 begin, end;
            vec4 lse, delta;
            [[unroll]] for (uint j = 0; j < 4; j++) {
                begin[j] = p.span.v[2 * safe[j]];
                end[j] = p.span.v[2 * safe[j] + 1];
                lse[j] = p.lse.v[safe[j] * p.n_heads + head];
                delta[j] = p.delta.v[safe[j] * p.n_heads + head];
            }
            barrier();
            [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
                const uvec4 key = uvec4(first + ty() + 16 * r);
                const bvec4 in_span = and4(greaterThanEqual(key, begin), lessThan(key, end));
                const vec4 weight = mix(vec4(0), weights_of(s[r] * (p.scale * LOG2E), lse), in_span);
                s[r] = seen_or_zero(weight, column, key_span[r]);
                dp[r] = mix(vec4(0), s[r] * (dp[r] - delta), notEqual(s[r], vec4(0)));
                left[(ty() + 16 * r) * PITCH + tx()] = s[r];
            }
            add_chunks(dv, dy4, row, 0, p.rows, p.n_heads, head);
            barrier();
            [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++)
                left[(ty() + 16 * r) * PITCH + tx()] = dp[r];
            add_chunks(dk, q4, row, 0, p.rows, p.n_heads, head);
        }
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
        const uint key = first + ty() + 16 * r;
        [[unroll]] for (uint i = 0; i < N_CHUNKS; i++)
            if (key < p.key_rows && i * CHUNK_VECS + tx() < HEAD_VECS) {
                const uint at = (key * p.n_kv_heads + kv_head) * HEAD_VECS + i * CHUNK_VECS + tx();
                f32x4_rw(p.dk).v[at] = dk[r * N_CHUNKS + i] * p.scale;
                f32x4_rw(p.dv).v[at] = dv[r * N_CHUNKS + i];
            }
    }
}
