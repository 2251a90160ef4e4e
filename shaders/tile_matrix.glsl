// The body of gemm.comp on matrix units (VK_KHR_cooperative_matrix): f32 sums of operands in MATRIX (float16_t or bfloat16_t), see tile_half.glsl. The device's
// shape comes as specialisation constants.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
#endif
#include "tile_half.glsl"
layout(constant_id = 7) const uint SHAPE_M = 16;
layout(constant_id = 8) const uint SHAPE_N = 16;
layout(constant_id = 9) const uint SHAPE_K = 16;
layout(constant_id = 10) const uint SUBGROUPS_ACROSS = 2;

const uint SUBGROUPS = LOCAL_SIZE / SUBGROUP_SIZE, SUBGROUPS_DOWN = SUBGROUPS / SUBGROUPS_ACROSS;
const uint BLOCKS_M = TILE_ROWS / SHAPE_M / SUBGROUPS_DOWN, BLOCKS_N = TILE_COLS / SHAPE_N / SUBGROUPS_ACROSS;
// The tables hold pairs of 16-bit numbers in the order of memory, so that pieces are put whole: steps side by side, or (x in TN, w in NN and
// TN) rows or columns of a step. Their rows are padded by 8 numbers so that neighbours fall into different banks.
const uint X_WIDE = FORM == TN ? TILE_ROWS : BK, W_WIDE = FORM == NT ? BK : TILE_COLS;
const uint X_STRIDE = (X_WIDE + 8) / 2, W_STRIDE = (W_WIDE + 8) / 2;
const uint W_WORDS = TILE_COLS * BK / W_WIDE * W_STRIDE, OUT_WORDS = SUBGROUPS * SHAPE_M * SHAPE_N;
shared uint x_stage[TILE_ROWS * BK / X_WIDE * X_STRIDE];
shared uint w_stage[W_WORDS > OUT_WORDS ? W_WORDS : OUT_WORDS]; // in the end sums, a matrix for each subgroup
const int X_LAYOUT = FORM == TN ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;
const int W_LAYOUT = FORM == NT ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;
// Words, of rows, columns and steps that are even.
uint x_at(uint row, uint step) { return FORM == TN ? step * X_STRIDE + row / 2 : row * X_STRIDE + step / 2; }
uint w_at(uint col, uint step) { return FORM == NT ? col * W_STRIDE + step / 2 : step * W_STRIDE + col / 2; }
uint x_block, w_block; // where the subgroup's own rows and columns begin
coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator> sum[BLOCKS_M][BLOCKS_N];

uint block_row(uint i) { return (gl_SubgroupID / SUBGROUPS_ACROSS * BLOCKS_M + i) * SHAPE_M; }
uint block_col(uint j) { return (gl_SubgroupID % SUBGROUPS_ACROSS * BLOCKS_N + j) * SHAPE_N; }

void body_begin() {
    x_block = x_at(block_row(0), 0);
    w_block = w_at(block_col(0), 0);
    scales_begin();
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++)
            sum[i][j] = coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator>(0.0);
}
void body_put_x(uint i, XPiece v) {
    const uvec2 words = x_pairs(i, v);
    uint place = x_at(x_place(i).x, x_place(i).y);
    x_stage[place] = words.x;
    x_stage[place + 1] = words.y;
}
void body_put_w(uint i, bool there, Unit u, uint eighth) {
    const uvec4 words = w_pairs(i, there, u, eighth);
    uint place = w_at(w_place(i).x, w_place(i).y);
    [[unroll]] for (uint j = 0; j < 4; j++) w_stage[place + j] = words[j];
}

void body_multiply() {
    [[unroll]] for (uint step = 0; step < BK; step += SHAPE_K) {
        coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_K, SHAPE_N, gl_MatrixUseB> b[BLOCKS_N];
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++)
            coopMatLoad(b[j], w_stage, w_block + w_at(j * SHAPE_N, step), W_STRIDE, W_LAYOUT);
        [[unroll]] for (uint i = 0; i < BLOCKS_M; i++) {
            coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_M, SHAPE_K, gl_MatrixUseA> a;
            coopMatLoad(a, x_stage, x_block + x_at(i * SHAPE_M, step), X_STRIDE, X_LAYOUT);
            [[unroll]] for (uint j = 0; j < BLOCKS_N; j++) sum[i][j] = coopMatMulAdd(a, b[j], sum[i][j]);
        }
    }
}

void body_end() {
    const uint SIZE = SHAPE_M * SHAPE_N;
    barrier();
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++) {
            coopMatStore(sum[i][j], w_stage, gl_SubgroupID * SIZE, SHAPE_N, gl_CooperativeMatrixLayoutRowMajor);
            barrier();
            [[unroll]] for (uint n = 0; n < SIZE / SUBGROUP_SIZE; n++) {
                uint e = n * SUBGROUP_SIZE + gl_SubgroupInvocationID;
                uint row = block_row(i) + e / SHAPE_N, col = block_col(j) + e % SHAPE_N;
                float value = unscaled(uintBitsToFloat(w_stage[gl_SubgroupID * SIZE + e]), row, col);
                if (FORM == TN)
                    tile_store_tn(t.expert, t.row0 + row, t.col0 + col, value);
                else
                    tile_store(t, t.row0 + row, t.col0 + col, value);
            }
            barrier();
        }
}
