// Attention on matrix units (VK_KHR_cooperative_matrix): -DMATRIX=float16_t | bfloat16_t. A subgroup owns ROWS query rows of one head; the subgroups of
// a workgroup share tiles of KEYS keys and values in memory, and a thread fetches its part of the next tile while matrices are multiplied. Queries
// and sums stay in registers. No matrix's elements have a known lane, so scores go through shared memory: lanes take the softmax there, in f32,
// and leave the weights in the scores' place as 16-bit numbers. Tiles of keys lie at absolute multiples of KEYS, and whatever a row's neighbours
// make a subgroup do (see a tile, move another row's reference) changes nothing of the row but by products with exact ones and zeros.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_matrix.glsl"

layout(constant_id = 8) const uint ROW_BLOCKS = 1; // of SHAPE_M rows: those of a subgroup

const uint ROWS = SHAPE_M * ROW_BLOCKS, TILE_ROWS = SUBGROUPS * ROWS;
const uint D_STEPS = (HEAD_DIM + SHAPE_K - 1) / SHAPE_K, D_BLOCKS = (HEAD_DIM + SHAPE_N - 1) / SHAPE_N;
const uint K_EIGHTHS = D_STEPS * SHAPE_K / 8, V_EIGHTHS = D_BLOCKS * SHAPE_N / 8;
const uint EIGHTHS = K_EIGHTHS > V_EIGHTHS ? K_EIGHTHS : V_EIGHTHS, PITCH = EIGHTHS + 1;
shared uvec4 k_rows[KEYS * PITCH], v_rows[KEYS * PITCH];
shared uvec4 scores[TILE_ROWS * S_PITCH]; // scores, weights; in the beginning parts of the queries, in the end of the results
shared float shrinks[TILE_ROWS];

// A thread's pieces of a tile of keys or values: eight numbers of a row each, as MATRIX or as the cache has them.
const uint PIECES = KEYS * EIGHTHS, EACH = (PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE;
struct Piece {
    uvec4 words;
    uint scale;
};
void fetch(f32x4_in x, uint key, uvec2 range, uint kv_head, out Piece next[EACH]) {
    [[unroll]] for (uint i = 0; i < EACH; i++) {
        const uint piece = i * LOCAL_SIZE + gl_LocalInvocationID.x, row = key + piece / EIGHTHS, e = piece % EIGHTHS;
        next[i] = Piece(uvec4(0), 0);
        // What nobody sees may be a cache's memory that was never written, and no weight of 0 makes a number of a NaN.
        if (piece >= PIECES || row < range.x || row >= range.y || e >= HEAD_DIM / 8)
            continue;
        const uvec2 place = cache_place(row, p.n_kv_heads, kv_head, HEAD_DIM);
        if (CACHE_TYPE == 3) {
            const uint at = place.y + e / 4;
            next[i].words.xy = u32x2_in(x).v[place.x / 2 + e];
            next[i].scale = u32_in(x).v[at >> 1] >> ((at & 1) * 16);
        } else
            next[i].words = u32x4_in(x).v[place.x / 2 + e];
    }
}
uvec4 decoded(Piece next) {
    if (CACHE_TYPE != 3)
        return next.words;
    const float scale = unpackHalf2x16(next.scale).x;
    return eight_of(signed_bytes4(next.words.x) * scale, signed_bytes4(next.words.y) * scale);
}
#define PUT(rows, next)                                                                                                \
    [[unroll]] for (uint i = 0; i < EACH; i++) {                                                                       \
        const uint piece = i * LOCAL_SIZE + gl_LocalInvocationID.x;                                                    \
        if (piece < PIECES)                                                                                            \
            rows[piece / EIGHTHS * PITCH + piece % EIGHTHS] = decoded(next[i]);                                        \
    }

void main() {
    const uint tiles = (p.rows + TILE_ROWS - 1) / TILE_ROWS;
    const uint head = head_of_group(p.n_heads), kv_head = head / (p.n_heads / p.n_kv_heads);
    const uint own = gl_SubgroupID * ROWS, first = tile_of_group(tiles, p.n_heads) * TILE_ROWS + own;
    const uint lane_row = gl_SubgroupInvocationID / LANES, part = gl_SubgroupInvocationID % LANES;
    f32x4_in q4 = f32x4_in(p.q), k4 = f32x4_in(p.k), v4 = f32x4_in(p.v);

    // Of the subgroup: keys that any of its rows sees, and those that all see. Of the workgroup: keys that any sees.
    uvec2 span[ROW_BLOCKS], any = uvec2(0xffffffffu, 0), all = uvec2(0, 0xffffffffu);
    float reference[ROW_BLOCKS];
    precise float sum[ROW_BLOCKS];
    [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++) {
        const uint row = first + b * SHAPE_M + lane_row, safe_row = min(row, p.rows - 1);
        span[b] = row < p.rows ? uvec2(p.span.v[2 * safe_row], min(p.span.v[2 * safe_row + 1], p.key_rows)) : uvec2(0);
        if (span[b].x < span[b].y)
            any = uvec2(min(any.x, span[b].x), max(any.y, span[b].y));
        all = uvec2(max(all.x, span[b].x), min(all.y, span[b].y));
        reference[b] = NO_SCORE;
        sum[b] = 0;
    }
    any = uvec2(subgroupMin(any.x), subgroupMax(any.y));
    all = uvec2(subgroupMax(all.x), subgroupMin(all.y));
    const uvec2 range = workgroup_bounds(any);

    // Queries times what makes of a product a score in base 2.
    LEFT q[ROW_BLOCKS][D_STEPS];
    const uint STEPS = 8 * QUADS / SHAPE_K; // of the head that the memory for scores holds
    [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++)
        [[unroll]] for (uint d = 0; d < D_STEPS; d++) {
            const uint place = (own + b * SHAPE_M) * S_PITCH;
            if (d % STEPS == 0) {
                subgroup_turn();
                for (uint i = part; i < QUADS; i += LANES) {
                    const uint row = first + b * SHAPE_M + lane_row, e = d * SHAPE_K / 8 + i;
                    uvec4 words = uvec4(0);
                    if (row < p.rows && e < HEAD_DIM / 8) {
                        const uint at = (row * p.n_heads + head) * HEAD_VECS + 2 * e;
                        words = eight_of(q4.v[at] * (p.scale * LOG2E), q4.v[at + 1] * (p.scale * LOG2E));
                    }
                    scores[place + lane_row * S_PITCH + i] = words;
                }
                subgroup_turn();
            }
            coopMatLoad(q[b][d], scores, place + d % STEPS * SHAPE_K / 8, S_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        }
    subgroup_turn();

    SUMS o[ROW_BLOCKS][D_BLOCKS];
    [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++)
        [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) o[b][n] = SUMS(0.0);
    Piece k_next[EACH], v_next[EACH];
    const uint begin = range.x / KEYS * KEYS;
    fetch(k4, begin, range, kv_head, k_next);
    for (uint key = begin; key < range.y; key += KEYS) {
        const bool in_sight = key < any.y && key + KEYS > any.x, whole = key >= all.x && key + KEYS <= all.y;
        PUT(k_rows, k_next)
        barrier();
        fetch(v4, key, range, kv_head, v_next);
        bool moved = false;
        if (in_sight) {
            SUMS s[ROW_BLOCKS][KEYS / SHAPE_N];
            [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++)
                [[unroll]] for (uint j = 0; j < KEYS / SHAPE_N; j++) s[b][j] = SUMS(0.0);
            [[unroll]] for (uint d = 0; d < D_STEPS; d++)
                [[unroll]] for (uint j = 0; j < KEYS / SHAPE_N; j++) {
                    RIGHT k;
                    coopMatLoad(k, k_rows, j * SHAPE_N * PITCH + d * SHAPE_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++) s[b][j] = coopMatMulAdd(q[b][d], k, s[b][j]);
                }
            [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++)
                [[unroll]] for (uint j = 0; j < KEYS / SHAPE_N; j++)
                    coopMatStore(s[b][j], scores, (own + b * SHAPE_M) * S_PITCH + j * SHAPE_N / 4, S_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        }
        [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++) {
            const uint row = own + b * SHAPE_M + lane_row, place = row * S_PITCH;
            vec4 score[LANE_QUADS];
            float shrink = 1;
            subgroup_turn();
            if (in_sight) {
                float top = NO_SCORE;
                [[unroll]] for (uint i = 0; i < LANE_QUADS; i++) {
                    const uint quad = part * LANE_QUADS + i;
                    score[i] = uintBitsToFloat(scores[place + quad]);
                    if (!whole)
                        score[i] = seen_or_none(score[i], key + 4 * quad + uvec4(0, 1, 2, 3), span[b]);
                    top = max(top, max(max(score[i].x, score[i].y), max(score[i].z, score[i].w)));
                }
                [[unroll]] for (uint lane = 1; lane < LANES; lane *= 2) top = max(top, subgroupShuffleXor(top, lane));
                const float to = reference_moved(reference[b], top);
                shrink = exp2(reference[b] - to);
                reference[b] = to;
                sum[b] *= shrink;
                if (part == 0)
                    shrinks[row] = shrink;
            }
            subgroup_turn(); // weights come where other lanes' scores were
            if (in_sight)
                [[unroll]] for (uint i = 0; i < LANE_QUADS; i += 2) {
                    const uint quad = part * LANE_QUADS + i;
                    const uvec4 column = key + 4 * quad + uvec4(0, 1, 2, 3);
                    precise const vec4 below0 = score[i] - reference[b], below1 = score[i + 1] - reference[b];
                    vec4 weight0 = exp2(below0), weight1 = exp2(below1);
                    if (!whole) {
                        weight0 = seen_or_zero(weight0, column, span[b]);
                        weight1 = seen_or_zero(weight1, column + 4, span[b]);
                    }
                    const vec4 both = weight0 + weight1;
                    sum[b] += (both.x + both.y) + (both.z + both.w);
                    scores[place + quad / 2] = eight_of(weight0, weight1);
                }
            moved = moved || shrink != 1;
        }
        moved = subgroupOr(moved ? 1 : 0) != 0;
        PUT(v_rows, v_next)
        barrier();
        fetch(k4, key + KEYS, range, kv_head, k_next);
        if (in_sight) {
            if (moved)
                [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++) {
                    SUMS shrink; // of a row in each of its columns
                    coopMatLoad(shrink, shrinks, own + b * SHAPE_M, 0, gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) o[b][n] = o[b][n] * shrink;
                }
            [[unroll]] for (uint j = 0; j < KEYS / SHAPE_K; j++) {
                LEFT weight[ROW_BLOCKS];
                [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++)
                    coopMatLoad(weight[b], scores, (own + b * SHAPE_M) * S_PITCH + j * SHAPE_K / 8, S_PITCH, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) {
                    RIGHT v;
                    coopMatLoad(v, v_rows, j * SHAPE_K * PITCH + n * SHAPE_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
                    [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++) o[b][n] = coopMatMulAdd(weight[b], v, o[b][n]);
                }
            }
        }
    }
    [[unroll]] for (uint b = 0; b < ROW_BLOCKS; b++) {
        const uint row = first + b * SHAPE_M + lane_row, place = (own + b * SHAPE_M) * S_PITCH;
        precise float total = sum[b];
        [[unroll]] for (uint lane = 1; lane < LANES; lane *= 2) total += subgroupShuffleXor(total, lane);
        const float inverse = total == 0 ? 0 : 1 / total;
        [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) {
            subgroup_turn();
            coopMatStore(o[b][n], scores, place, S_PITCH, gl_CooperativeMatrixLayoutRowMajor);
            subgroup_turn();
            for (uint i = part; i < SHAPE_N / 4; i += LANES) {
                const uint d = n * SHAPE_N / 4 + i;
                if (row < p.rows && d < HEAD_VECS)
                    f32x4_rw(p.o).v[(row * p.n_heads + head) * HEAD_VECS + d] = uintBitsToFloat(scores[place + lane_row * S_PITCH + i]) * inverse;
            }
        }
        if (part == 0 && row < p.rows && uvec2(p.lse) != uvec2(0))
            p.lse.v[row * p.n_heads + head] = logsumexp_of(reference[b], total);
    }
}
