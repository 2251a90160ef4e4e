// Matrix multiply on matrix units of a subgroup (VK_KHR_cooperative_matrix) whose operands lie ready as 16-bit numbers of the units' type: run_product in
// model/ops_linear.c rounds x and puts its rows in order, and unpacks weights of other types. So nothing is converted on the way to shared memory, and a
// thread moves pieces of eight numbers. -DFORM=NT | NN | TN (see tile.glsl), -DMATRIX=bfloat16_t | float16_t. Sums are f32.
//   MORE: behind the contraction comes another, of k2 steps over x2 and w2, into the same sums: an adapter's wide product, whose narrow one made x2. So y, which
// is larger than both, is not read and written once more for it.
//   One table for each operand: while the units multiply a stage, the next is on its way in registers. Two tables would need one barrier less, but there is
// room for fewer workgroups then; what hides the barriers is the other workgroup of a multiprocessor (docs/performance.md has the figures).
#version 460
#define NT 0
#define NN 1
#define TN 2
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "tile.glsl"

layout(constant_id = 7) const uint SHAPE_M = 16;
layout(constant_id = 8) const uint SHAPE_N = 16;
layout(constant_id = 9) const uint SHAPE_K = 16;
layout(constant_id = 10) const uint SUBGROUPS_ACROSS = 2;
layout(constant_id = 11) const uint STEPS = 32; // of the contraction, a stage
layout(constant_id = 12) const uint MORE = 0;

// Nobody else writes what is read here: `restrict` lets NVIDIA's compiler load through the caches of constants.
layout(buffer_reference, std430, buffer_reference_align = 16) restrict readonly buffer Pieces { uvec4 v[]; };

const uint SUBGROUPS = LOCAL_SIZE / SUBGROUP_SIZE, SUBGROUPS_DOWN = SUBGROUPS / SUBGROUPS_ACROSS;
const uint BLOCKS_M = TILE_ROWS / SHAPE_M / SUBGROUPS_DOWN, BLOCKS_N = TILE_COLS / SHAPE_N / SUBGROUPS_ACROSS;
// Lines of the tables are those of memory: rows (of x, or in NT of w) of STEPS numbers, or steps of a tile's rows or columns. One more piece a line keeps
// neighbours in different banks.
const uint X_LINES = FORM == TN ? STEPS : TILE_ROWS, X_WIDE = (FORM == TN ? TILE_ROWS : STEPS) / 8, X_PITCH = X_WIDE + 1;
const uint W_LINES = FORM == NT ? TILE_COLS : STEPS, W_WIDE = (FORM == NT ? STEPS : TILE_COLS) / 8, W_PITCH = W_WIDE + 1;
// In the end a block of sums of each subgroup lies where x did: what two workgroups of 128 x 128 need is all the shared memory that NVIDIA's driver gives a
// multiprocessor of an H100 (two of 20 KiB run there together, of 35 KiB one).
const uint X_SIZE = X_LINES * X_PITCH, BLOCK = SHAPE_M * SHAPE_N, OUT_SIZE = SUBGROUPS * BLOCK / 4;
shared uvec4 x_table[X_SIZE > OUT_SIZE ? X_SIZE : OUT_SIZE];
shared uvec4 w_table[W_LINES * W_PITCH];
const int X_LAYOUT = FORM == TN ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;
const int W_LAYOUT = FORM == NT ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;

coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator> sum[BLOCKS_M][BLOCKS_N];

// Of the contraction under way, `more` being the second: its operands, pieces from one row of theirs to the next, and where it ends. `more` is known where
// it is asked, so no pointer lies in a variable.
#define X_OPERAND Pieces(more ? uvec2(p.x2) : uvec2(p.x))
#define W_OPERAND Pieces(more ? uvec2(p.w2) : uvec2(p.w))
uint x_pitch(bool more) { return (more ? p.k2 : p.ldx) / 8; }
uint w_pitch(bool more) { return !more ? p.w_row_bytes / 16 : (FORM == NT ? p.k2 : p.n) / 8; }
uint k_end;
Tile t;
// The pieces of a thread: where each begins in memory without the contraction's part.
const uint X_PIECES = X_LINES * X_WIDE, X_EACH = (X_PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE;
const uint W_PIECES = W_LINES * W_WIDE, W_EACH = (W_PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE;
uint x_first[X_EACH], w_first[W_EACH];
uvec4 x_next[X_EACH], w_next[W_EACH];
uvec2 x_place(uint i) { // line, piece of it
    const uint at = i * LOCAL_SIZE + gl_LocalInvocationIndex;
    return uvec2(at / X_WIDE, at % X_WIDE);
}
uvec2 w_place(uint i) {
    const uint at = i * LOCAL_SIZE + gl_LocalInvocationIndex;
    return uvec2(at / W_WIDE, at % W_WIDE);
}
bool x_is_piece(uint i) { return X_PIECES % LOCAL_SIZE == 0 || i * LOCAL_SIZE + gl_LocalInvocationIndex < X_PIECES; }
bool w_is_piece(uint i) { return W_PIECES % LOCAL_SIZE == 0 || i * LOCAL_SIZE + gl_LocalInvocationIndex < W_PIECES; }

// Rows and columns that are not there read the last ones: what comes of them is not stored.
void pieces_find(const bool more) {
    [[unroll]] for (uint i = 0; i < X_EACH; i++) {
        const uvec2 at = x_place(i);
        x_first[i] = FORM == TN ? min(t.row0 / 8 + at.y, p.n / 8 - 1) : min(t.row0 + at.x, t.row_end - 1) * x_pitch(more);
    }
    [[unroll]] for (uint i = 0; i < W_EACH; i++) {
        const uvec2 at = w_place(i);
        if (FORM == NT)
            w_first[i] = (t.expert * p.n + min(t.col0 + at.x, p.n - 1)) * w_pitch(more);
        else
            w_first[i] = (FORM == NN ? t.expert * k_end * w_pitch(more) : 0) + min(t.col0 / 8 + at.y, (FORM == TN ? p.k : p.n) / 8 - 1);
    }
}

// Of stage k .. k + STEPS - 1; whole: it does not reach beyond the end. What lies there counts as zeros of x.
uvec4 x_load(const bool more, uint i, uint k, const bool whole) {
    const uvec2 at = x_place(i);
    const uint step = FORM == TN ? k + at.x : k + 8 * at.y, there = whole ? step : min(step, k_end - 1);
    const uvec4 v = X_OPERAND.v[x_first[i] + (FORM == TN ? there * x_pitch(more) : there / 8)];
    return whole || step < k_end ? v : uvec4(0);
}
uvec4 w_load(const bool more, uint i, uint k, const bool whole) {
    const uvec2 at = w_place(i);
    const bool inside = whole && (FORM == NT || W_PIECES % LOCAL_SIZE == 0); // nor does a thread without a piece
    const uint step = FORM == NT ? k + 8 * at.y : k + at.x, there = inside ? step : min(step, k_end - 1);
    return W_OPERAND.v[w_first[i] + (FORM == NT ? there / 8 : there * w_pitch(more))];
}
void stage_load(const bool more, uint k, const bool whole) {
    [[unroll]] for (uint i = 0; i < X_EACH; i++) x_next[i] = x_load(more, i, k, whole);
    [[unroll]] for (uint i = 0; i < W_EACH; i++) w_next[i] = w_load(more, i, k, whole);
}
void stage_put() {
    [[unroll]] for (uint i = 0; i < X_EACH; i++)
        if (x_is_piece(i))
            x_table[x_place(i).x * X_PITCH + x_place(i).y] = x_next[i];
    [[unroll]] for (uint i = 0; i < W_EACH; i++)
        if (w_is_piece(i))
            w_table[w_place(i).x * W_PITCH + w_place(i).y] = w_next[i];
}

// First row and column of a block of this subgroup, within the tile.
uint block_row(uint i) { return (gl_SubgroupID / SUBGROUPS_ACROSS * BLOCKS_M + i) * SHAPE_M; }
uint block_col(uint j) { return (gl_SubgroupID % SUBGROUPS_ACROSS * BLOCKS_N + j) * SHAPE_N; }

void stage_multiply() {
    [[unroll]] for (uint k = 0; k < STEPS; k += SHAPE_K) {
        coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_M, SHAPE_K, gl_MatrixUseA> a[BLOCKS_M];
        [[unroll]] for (uint i = 0; i < BLOCKS_M; i++) {
            const uint row = block_row(i);
            coopMatLoad(a[i], x_table, FORM == TN ? k * X_PITCH + row / 8 : row * X_PITCH + k / 8, X_PITCH, X_LAYOUT);
        }
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++) {
            coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_K, SHAPE_N, gl_MatrixUseB> b;
            const uint col = block_col(j);
            coopMatLoad(b, w_table, FORM == NT ? col * W_PITCH + k / 8 : k * W_PITCH + col / 8, W_PITCH, W_LAYOUT);
            [[unroll]] for (uint i = 0; i < BLOCKS_M; i++) sum[i][j] = coopMatMulAdd(a[i], b, sum[i][j]);
        }
    }
}

// Steps first .. end - 1. Behind the last stage nothing is loaded that counts.
#define CONTRACT(more, first, end, whole)                                                                              \
    {                                                                                                                  \
        k_end = end;                                                                                                   \
        pieces_find(more);                                                                                             \
        if (first < k_end)                                                                                             \
            stage_load(more, first, whole);                                                                            \
        [[dont_unroll]] for (uint k = first; k < k_end; k += STEPS) {                                                  \
            barrier();                                                                                                 \
            stage_put();                                                                                               \
            barrier();                                                                                                 \
            stage_load(more, whole ? min(k + STEPS, k_end - STEPS) : k + STEPS, whole);                                \
            stage_multiply();                                                                                          \
        }                                                                                                              \
    }

// Blocks pass through shared memory, which tells which lane has which of their elements. No loop in here stays rolled: if one of the sums could not be
// told when the kernel is compiled, all would lie in memory instead of registers.
void store_all() {
    const uint base = gl_SubgroupID * BLOCK / 4;
    barrier();
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++) {
            coopMatStore(sum[i][j], x_table, base, SHAPE_N / 4, gl_CooperativeMatrixLayoutRowMajor);
            barrier();
            [[unroll]] for (uint n = 0; n < BLOCK / SUBGROUP_SIZE; n++) {
                const uint e = n * SUBGROUP_SIZE + gl_SubgroupInvocationID;
                const uint row = t.row0 + block_row(i) + e / SHAPE_N, col = t.col0 + block_col(j) + e % SHAPE_N;
                const float value = uintBitsToFloat(x_table[base + e / 4][e % 4]);
                if (FORM == TN)
                    tile_store_tn(t.expert, row, col, value);
                else
                    tile_store(t, row, col, value);
            }
            barrier();
        }
}

void main() {
    uint first = 0, end = p.k;
    if (FORM == TN) {
        tile_find_tn(t.expert, first, end);
        t.row0 = gl_WorkGroupID.x * TILE_ROWS;
        t.col0 = gl_WorkGroupID.y * TILE_COLS;
    } else if (!tile_find(t))
        return;
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++)
            sum[i][j] = coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator>(0.0);
    CONTRACT(false, first, end, (FORM != TN && ALIGNED == 2))
    if (FORM != TN && MORE != 0)
        CONTRACT(true, 0, p.k2, false)
    store_all();
}
