// Attention for GPUs without matrix units: a workgroup is a tile of query rows of one head and walks over tiles of 32 keys with a running maximum
// (online softmax). Tiles of keys lie at absolute multiples of 32, so that a row's sums do not depend on the rows that share its tile.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_tile.glsl"

void main() {
    const uint tiles = (p.rows + TILE_ROWS - 1) / TILE_ROWS;
    const uint head = head_of_group(p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint first = tile_of_group(tiles, p.n_heads) * TILE_ROWS;
    const uvec2 range = tile_bounds(p.span, first, p.rows, p.key_rows);
    f32x4_in q4 = f32x4_in(p.q), k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);

    precise vec4 s[THREAD_ROWS], o[N_SUMS];
    uvec2 span[THREAD_ROWS];
    float most[THREAD_ROWS];
    precise float sum[THREAD_ROWS];
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
        const uint row = first + ty() + 16 * r, safe_row = min(row, p.rows - 1);
        span[r] = row < p.rows ? uvec2(p.span.v[2 * safe_row], min(p.span.v[2 * safe_row + 1], p.key_rows)) : uvec2(0);
        most[r] = NO_SCORE;
        sum[r] = 0;
        [[unroll]] for (uint i = 0; i < N_CHUNKS; i++)
            o[r * N_CHUNKS + i] = vec4(0);
    }
    for (uint key = range.x / TILE_COLUMNS * TILE_COLUMNS; key < range.y; key += TILE_COLUMNS) {
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++)
            s[r] = vec4(0);
        for (uint c = 0; c < N_CHUNKS; c++) {
            barrier();
            stage_left(q4, first, p.rows, p.n_heads, head, c);
            stage_right(k4, key, range.x, range.y, p.n_kv_heads, kv_head, c);
            barrier();
            multiply_chunk(s);
        }
        const uvec4 column = key + 4 * tx() + uvec4(0, 1, 2, 3);
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
            s[r] *= p.scale * LOG2E;
            const vec4 seen = seen_or_none(s[r], column, span[r]);
            reduced[(ty() + 16 * r) * 8 + tx()] = max(max(seen.x, seen.y), max(seen.z, seen.w));
        }
        barrier();
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
            float new_most = most[r];
            [[unroll]] for (uint i = 0; i < 8; i++)
                new_most = max(new_most, reduced[(ty() + 16 * r) * 8 + i]);
            const float shrink = exp2(most[r] - new_most);
            most[r] = new_most;
            precise const vec4 below = s[r] - new_most;
            const vec4 weight = seen_or_zero(exp2(below), column, span[r]);
            sum[r] = fma(sum[r], shrink, (weight.x + weight.y) + (weight.z + weight.w));
            left[(ty() + 16 * r) * PITCH + tx()] = weight;
            [[unroll]] for (uint i = 0; i < N_CHUNKS; i++)
                o[r * N_CHUNKS + i] *= shrink;
        }
        add_chunks(o, v4, key, range.x, range.y, p.n_kv_heads, kv_head);
    }
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++)
        reduced[(ty() + 16 * r) * 8 + tx()] = sum[r];
    barrier();
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
        const uint row = first + ty() + 16 * r;
        precise float total = 0;
        [[unroll]] for (uint i = 0; i < 8; i++)
            total += reduced[(ty() + 16 * r) * 8 + i];
        const float inverse = total == 0 ? 0 : 1 / total;
        if (row >= p.rows)
            continue;
        [[unroll]] for (uint i = 0; i < N_CHUNKS; i++)
            if (i * CHUNK_VECS + tx() < HEAD_VECS)
                f32x4_rw(p.o).v[(row * p.n_heads + head) * HEAD_VECS + i * CHUNK_VECS + tx()] = o[r * N_CHUNKS + i] * inverse;
        if (tx() == 0 && uvec2(p.lse) != uvec2(0))
            p.lse.v[row * p.n_heads + head] = logsumexp_of(most[r], total);
    }
}
