// Gradients of attention on matrix units: of queries, or with -DDKV of keys and values. A subgroup owns SHAPE_M rows of one head: queries, or keys; the
// workgroup walks over tiles of KEYS of the others, which are shared in memory, in ascending order (with DKV for one after the other of the query heads
// that share the keys). Of both products that a pair of rows has,
//   score = q.k, weight = exp2(score - lse)    and    dp = do.v, ds = weight (dp - delta),
// the weights come from the saved lse, and dq = scale sum ds k, dk = scale sum ds q, dv = sum weight do. Own rows are read as matrices from memory
// for every tile, where caches hold them: registers hold the sums. Operands come packed, see attention_back_pack.comp: rows of do are
// divided by a power of two each. With DKV sums are over such rows, so each is weighed by its power relative to the greatest of them.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "attention_matrix.glsl"

#ifdef DKV
#define OWN_SPAN   p.key_span
#define OWN_ROWS   p.key_rows
#define OWN_HEADS  p.n_kv_heads
#define OWN_X      p.k
#define OWN_Y      p.v
#define WALK_ROWS  p.rows
#define WALK_HEADS p.n_heads
#define WALK_X     p.q
#define WALK_Y     p.dy
#else
#define OWN_SPAN   p.span
#define OWN_ROWS   p.rows
#define OWN_HEADS  p.n_heads
#define OWN_X      p.q
#define OWN_Y      p.dy
#define WALK_ROWS  p.key_rows
#define WALK_HEADS p.n_kv_heads
#define WALK_X     p.k
#define WALK_Y     p.v
#endif

const uint TILE_ROWS = SUBGROUPS * SHAPE_M, D_STEPS = HEAD_DIM / SHAPE_K, D_BLOCKS = HEAD_DIM / SHAPE_N;
const uint EIGHTHS = HEAD_DIM / 8, PITCH = EIGHTHS + 1;
shared uvec4 x_rows[KEYS * PITCH], y_rows[KEYS * PITCH];
// Products, then weights (KEYS 16-bit numbers) and behind them ds; in the end parts of the results.
shared uvec4 scores[TILE_ROWS * S_PITCH];
SUMS ds_x[D_BLOCKS];
#ifdef DKV
SUMS weight_y[D_BLOCKS];
shared uvec2 spans[KEYS]; // of the rows of a tile
shared float lses[KEYS], deltas[KEYS], powers[KEYS];
shared uint most[WHOLE_WORDS]; // bits of the greatest power
#endif

// Of this lane: its row of the subgroup's and which of the LANES parts of a tile's columns it has; where its row's scores lie; keys or rows that it sees.
uint own_row, part, place;
uvec2 own_span;
// Of the workgroup: what any of its rows sees.
uvec2 range;
#ifndef DKV
float own_lse, own_delta;
#endif

// In f16 a key beyond the range of the type is infinite, and no weight of 0 makes a number of that.
uvec4 finite(uvec4 words) {
#if !defined(MATRIX_BF16) && !defined(DKV)
    [[unroll]] for (uint i = 0; i < 4; i++)
        words[i] = packFloat2x16(clamp(unpackFloat2x16(words[i]), f16vec2(-MATRIX_MOST), f16vec2(MATRIX_MOST)));
#endif
    return words;
}
// A thread's pieces of a tile: eight numbers each. What no row of this workgroup sees is zero.
const uint PIECES = KEYS * EIGHTHS, EACH = (PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE;
void fetch(u32x4_in x, uint first, uint head, out uvec4 next[EACH]) {
    [[unroll]] for (uint i = 0; i < EACH; i++) {
        const uint piece = i * LOCAL_SIZE + gl_LocalInvocationID.x, row = first + piece / EIGHTHS;
        next[i] = uvec4(0);
        if (piece < PIECES && row >= range.x && row < range.y)
            next[i] = x.v[(row * WALK_HEADS + head) * EIGHTHS + piece % EIGHTHS];
    }
}
#define PUT(rows, next)                                                                                                \
    [[unroll]] for (uint i = 0; i < EACH; i++) {                                                                       \
        const uint piece = i * LOCAL_SIZE + gl_LocalInvocationID.x;                                                    \
        if (piece < PIECES)                                                                                            \
            rows[piece / EIGHTHS * PITCH + piece % EIGHTHS] = finite(next[i]);                                         \
    }

// The subgroup's rows of `own` (eighths from `at` on, a head's row every `pitch`) times all rows of a tile, to the scores' memory.
#define MULTIPLY(own, at, pitch, rows)                                                                                 \
    {                                                                                                                  \
        SUMS s[KEYS / SHAPE_N];                                                                                        \
        [[unroll]] for (uint j = 0; j < KEYS / SHAPE_N; j++) s[j] = SUMS(0.0);                                         \
        [[unroll]] for (uint d = 0; d < D_STEPS; d++) {                                                                \
            LEFT a;                                                                                                    \
            coopMatLoad(a, own.v, (at) + d * SHAPE_K / 8, pitch, gl_CooperativeMatrixLayoutRowMajor);                  \
            [[unroll]] for (uint j = 0; j < KEYS / SHAPE_N; j++) {                                                     \
                RIGHT b;                                                                                               \
                coopMatLoad(b, rows, j * SHAPE_N * PITCH + d * SHAPE_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor); \
                s[j] = coopMatMulAdd(a, b, s[j]);                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        [[unroll]] for (uint j = 0; j < KEYS / SHAPE_N; j++)                                                           \
            coopMatStore(s[j], scores, gl_SubgroupID * SHAPE_M * S_PITCH + j * SHAPE_N / 4, S_PITCH, gl_CooperativeMatrixLayoutRowMajor); \
    }
// sum += 16-bit numbers in the scores' memory, from the eighth `first` of a row on, times a tile.
#define ADD_PRODUCTS(sum, first, rows)                                                                                 \
    [[unroll]] for (uint j = 0; j < KEYS / SHAPE_K; j++) {                                                             \
        LEFT a;                                                                                                        \
        coopMatLoad(a, scores, gl_SubgroupID * SHAPE_M * S_PITCH + (first) + j * SHAPE_K / 8, S_PITCH, gl_CooperativeMatrixLayoutRowMajor); \
        [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) {                                                               \
            RIGHT b;                                                                                                   \
            coopMatLoad(b, rows, j * SHAPE_K * PITCH + n * SHAPE_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);    \
            sum[n] = coopMatMulAdd(a, b, sum[n]);                                                                      \
        }                                                                                                              \
    }

#ifdef DKV
#define FOUR(of, quad) vec4(of[4 * (quad)], of[4 * (quad) + 1], of[4 * (quad) + 2], of[4 * (quad) + 3])
// The statistics of a tile's rows.
void put_rows(uint first, uint head) {
    for (uint i = gl_LocalInvocationID.x; i < KEYS; i += LOCAL_SIZE) {
        const uint row = min(first + i, p.rows - 1), at = row * p.n_heads + head;
        spans[i] = uvec2(p.span.v[2 * row], p.span.v[2 * row + 1]);
        lses[i] = p.lse.v[at];
        deltas[i] = p.delta.v[2 * at];
        // A row out of range may be infinitely greater than `most`, and 0 of it no number.
        powers[i] = min(p.delta.v[2 * at + 1] * uintBitsToFloat((254u << 23) - most[0]), 1.0);
    }
}
// The greatest power of the rows that this workgroup walks over.
void find_most(uint heads) {
    if (gl_LocalInvocationID.x == 0)
        most[0] = 1u << 23;
    barrier();
    const uint rows = range.x < range.y ? range.y - range.x : 0;
    for (uint i = gl_LocalInvocationID.x; i < rows * heads; i += LOCAL_SIZE) {
        const uint head = head_of_group(p.n_kv_heads) * heads + i % heads, row = range.x + i / heads;
        atomicMax(most[0], floatBitsToUint(p.delta.v[2 * (row * p.n_heads + head) + 1]));
    }
    barrier();
}
#endif

// Weights of the scores in memory; zero where nothing is seen.
void weights_take(uint first, out vec4 weight[LANE_QUADS]) {
    [[unroll]] for (uint i = 0; i < LANE_QUADS; i++) {
        const uint quad = part * LANE_QUADS + i;
        const vec4 score = uintBitsToFloat(scores[place + quad]);
#ifdef DKV
        const uint key = own_row;
        const bvec4 seen = bvec4(key >= spans[4 * quad].x && key < spans[4 * quad].y, key >= spans[4 * quad + 1].x && key < spans[4 * quad + 1].y,
                                 key >= spans[4 * quad + 2].x && key < spans[4 * quad + 2].y, key >= spans[4 * quad + 3].x && key < spans[4 * quad + 3].y);
        weight[i] = mix(vec4(0), weights_of(score, FOUR(lses, quad)), seen);
#else
        weight[i] = weights_of(score, vec4(own_lse));
#endif
        weight[i] = seen_or_zero(weight[i], first + 4 * quad + uvec4(0, 1, 2, 3), own_span);
    }
}
// ds of the weights and the products dp in memory.
void gradients_take(inout vec4 weight[LANE_QUADS], out vec4 ds[LANE_QUADS]) {
    [[unroll]] for (uint i = 0; i < LANE_QUADS; i++) {
        const uint quad = part * LANE_QUADS + i;
        const vec4 dp = uintBitsToFloat(scores[place + quad]);
        const bvec4 seen = notEqual(weight[i], vec4(0));
#ifdef DKV
        precise const vec4 above = dp - FOUR(deltas, quad);
        weight[i] *= FOUR(powers, quad);
#else
        precise const vec4 above = dp - own_delta;
#endif
        ds[i] = mix(vec4(0), weight[i] * above, seen);
    }
}
// Both as operands of the sums, over what was there.
void operands_put(vec4 weight[LANE_QUADS], vec4 ds[LANE_QUADS]) {
    [[unroll]] for (uint i = 0; i < LANE_QUADS; i += 2) {
        const uint at = place + (part * LANE_QUADS + i) / 2;
#ifdef DKV
        scores[at] = eight_of(weight[i], weight[i + 1]);
#endif
        scores[at + QUADS / 2] = eight_of(ds[i], ds[i + 1]);
    }
}

// As many blocks of columns at once as the scores' memory has room for.
#define STORE(sum, y, factor)                                                                                          \
    [[unroll]] for (uint first_n = 0; first_n < D_BLOCKS; first_n += KEYS / SHAPE_N) {                                 \
        subgroup_turn();                                                                                               \
        [[unroll]] for (uint n = first_n; n < min(first_n + KEYS / SHAPE_N, D_BLOCKS); n++)                            \
            coopMatStore(sum[n], scores, gl_SubgroupID * SHAPE_M * S_PITCH + (n - first_n) * SHAPE_N / 4, S_PITCH, gl_CooperativeMatrixLayoutRowMajor); \
        subgroup_turn();                                                                                               \
        [[unroll]] for (uint j = 0; j < LANE_QUADS; j++) { /* a rolled loop would keep others from being unrolled */   \
            const uint i = j * LANES + part, d = first_n * SHAPE_N / 4 + i;                                            \
            if (own_row < OWN_ROWS && d < HEAD_VECS)                                                                   \
                f32x4_rw(y).v[(own_row * OWN_HEADS + own_head) * HEAD_VECS + d] = uintBitsToFloat(scores[place + i]) * (factor); \
        }                                                                                                              \
    }

void main() {
    const uint tiles = (OWN_ROWS + TILE_ROWS - 1) / TILE_ROWS, own_head = head_of_group(OWN_HEADS), n_shared = p.n_heads / p.n_kv_heads;
#ifdef DKV // first the tiles that most rows see
    const uint tile = min(group_index() / p.n_kv_heads, tiles - 1), first_head = own_head * n_shared, heads = n_shared;
#else
    const uint tile = tile_of_group(tiles, p.n_heads), first_head = own_head / n_shared, heads = 1;
#endif
    const uint first = tile * TILE_ROWS + gl_SubgroupID * SHAPE_M;
    part = gl_SubgroupInvocationID % LANES;
    own_row = first + gl_SubgroupInvocationID / LANES;
    place = (gl_SubgroupID * SHAPE_M + gl_SubgroupInvocationID / LANES) * S_PITCH;
    const uint safe_row = min(own_row, OWN_ROWS - 1), pitch = OWN_HEADS * EIGHTHS, own_at = (first * OWN_HEADS + own_head) * EIGHTHS;
    own_span = own_row < OWN_ROWS ? uvec2(OWN_SPAN.v[2 * safe_row], min(OWN_SPAN.v[2 * safe_row + 1], WALK_ROWS)) : uvec2(0);
    uvec2 any = own_span.x < own_span.y ? own_span : uvec2(0xffffffffu, 0);
    any = uvec2(subgroupMin(any.x), subgroupMax(any.y));
    range = workgroup_bounds(any);
#ifdef DKV
    find_most(heads);
    [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) weight_y[n] = SUMS(0.0);
#else
    own_lse = p.lse.v[safe_row * p.n_heads + own_head];
    own_delta = p.delta.v[2 * (safe_row * p.n_heads + own_head)];
#endif
    [[unroll]] for (uint n = 0; n < D_BLOCKS; n++) ds_x[n] = SUMS(0.0);

    u32x4_in own_x = u32x4_in(OWN_X), own_y = u32x4_in(OWN_Y), walk_x = u32x4_in(WALK_X), walk_y = u32x4_in(WALK_Y);
    const uint begin = range.x / KEYS * KEYS, steps = range.x < range.y ? (range.y - begin + KEYS - 1) / KEYS : 0;
    uvec4 next[EACH];
    fetch(walk_x, begin, first_head, next);
    for (uint step = 0; step < steps * heads; step++) {
        const uint head = first_head + step / steps, at = begin + step % steps * KEYS;
        const bool in_sight = at < any.y && at + KEYS > any.x;
        PUT(x_rows, next)
#ifdef DKV
        put_rows(at, head);
#endif
        barrier();
        fetch(walk_y, at, head, next);
        vec4 weight[LANE_QUADS], ds[LANE_QUADS];
        if (in_sight)
            MULTIPLY(own_x, own_at, pitch, x_rows)
        subgroup_turn();
        if (in_sight)
            weights_take(at, weight);
        PUT(y_rows, next)
        barrier();
        if (in_sight)
            MULTIPLY(own_y, own_at, pitch, y_rows)
        subgroup_turn();
        if (in_sight)
            gradients_take(weight, ds);
        subgroup_turn();
        if (in_sight)
            operands_put(weight, ds);
        subgroup_turn();
        if (step + 1 < steps * heads)
            fetch(walk_x, begin + (step + 1) % steps * KEYS, first_head + (step + 1) / steps, next);
        if (in_sight) {
#ifdef DKV
            ADD_PRODUCTS(weight_y, 0, y_rows)
#endif
            ADD_PRODUCTS(ds_x, QUADS / 2, x_rows)
        }
        barrier();
    }
#ifdef DKV
    STORE(ds_x, p.dk, LN2 * uintBitsToFloat(most[0]))
    STORE(weight_y, p.dv, uintBitsToFloat(most[0]))
#else
    STORE(ds_x, p.dq, p.scale * p.delta.v[2 * (safe_row * p.n_heads + own_head) + 1])
#endif
}
