// The body of gemm.comp on matrix units (VK_KHR_cooperative_matrix): f32 sums of operands in MATRIX (float16_t or bfloat16_t). x of NT and NN comes so, rounded
// once for all that multiply it (op_operand in model/ops_linear.c); w, and x of TN, are rounded as they are staged. The device's shape comes as specialisation
// constants. With SCALE_X and SCALE_W rows of x and columns of w are brought to f16's range by their peaks, see peak.glsl.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
const uint UNITS_TYPE = 2; // enum DType
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
const uint UNITS_TYPE = 1;
#endif
#include "peak.glsl"
layout(constant_id = 7) const uint SHAPE_M = 16;
layout(constant_id = 8) const uint SHAPE_N = 16;
layout(constant_id = 9) const uint SHAPE_K = 16;
layout(constant_id = 10) const uint SUBGROUPS_ACROSS = 2;
layout(constant_id = 11) const uint SCALE_X = 0;
layout(constant_id = 12) const uint SCALE_W = 0;

const uint SUBGROUPS = LOCAL_SIZE / SUBGROUP_SIZE, SUBGROUPS_DOWN = SUBGROUPS / SUBGROUPS_ACROSS;
const uint BLOCKS_M = TILE_ROWS / SHAPE_M / SUBGROUPS_DOWN, BLOCKS_N = TILE_COLS / SHAPE_N / SUBGROUPS_ACROSS;
// The tables hold pairs of 16-bit numbers in the order of memory, so that pieces are put whole: steps side by side, or (x in TN, w in NN and
// TN) rows or columns of a step. Their rows are padded by 8 numbers so that neighbours fall into different banks.
const uint X_WIDE = FORM == TN ? TILE_ROWS : BK, W_WIDE = FORM == NT ? BK : TILE_COLS;
const uint X_STRIDE = (X_WIDE + 8) / 2, W_STRIDE = (W_WIDE + 8) / 2;
shared uint x_stage[TILE_ROWS * BK / X_WIDE * X_STRIDE];
shared uint w_stage[TILE_COLS * BK / W_WIDE * W_STRIDE];
const int X_LAYOUT = FORM == TN ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;
const int W_LAYOUT = FORM == NT ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;
// Words, of rows, columns and steps that are even.
uint x_at(uint row, uint step) { return FORM == TN ? step * X_STRIDE + row / 2 : row * X_STRIDE + step / 2; }
uint w_at(uint col, uint step) { return FORM == NT ? col * W_STRIDE + step / 2 : step * W_STRIDE + col / 2; }
uint x_block, w_block; // where the subgroup's own rows and columns begin
shared float out_stage[SUBGROUPS * SHAPE_M * SHAPE_N];
shared uint x_peak[TILE_ROWS], w_peak[TILE_COLS]; // bits of the greatest absolute value
coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator> sum[BLOCKS_M][BLOCKS_N];

#ifdef W_ANY
const bool W_READY = W_TYPE == UNITS_TYPE && SCALE_W == 0; // as it lies in memory
const bool W_QUANTISED = W_TYPE > 2;
#else
const bool W_READY = false, W_QUANTISED = false;
#endif
// A unit's scale is multiplied, not each of its numbers: however great it is where all quants are zero, it stays finite.
const uint LEAST_PEAK = W_QUANTISED ? 64u << 23 : 0;
// Of the pieces that this thread puts.
const bool X_SCALED = FORM == TN && SCALE_X != 0;
vec4 x_scale[X_EACH], w_scale_a[W_EACH], w_scale_b[W_EACH];
uint block_row(uint i) { return (gl_SubgroupID / SUBGROUPS_ACROSS * BLOCKS_M + i) * SHAPE_M; }
uint block_col(uint j) { return (gl_SubgroupID % SUBGROUPS_ACROSS * BLOCKS_N + j) * SHAPE_N; }

void body_begin() {
    x_block = x_at(block_row(0), 0);
    w_block = w_at(block_col(0), 0);
    for (uint i = gl_LocalInvocationIndex; SCALE_X != 0 && i < TILE_ROWS; i += LOCAL_SIZE)
        x_peak[i] = p.x_peak.v[min(t.row0 + i, t.row_end - 1)];
    const uint columns = FORM == TN ? p.k : p.n;
    for (uint i = gl_LocalInvocationIndex; SCALE_W != 0 && i < TILE_COLS; i += LOCAL_SIZE)
        w_peak[i] = max(p.w_peak.v[(FORM == TN ? 0 : t.expert * columns) + min(t.col0 + i, columns - 1)], LEAST_PEAK);
    barrier();
    [[unroll]] for (uint i = 0; i < X_EACH; i++)
        if (X_SCALED && x_is_piece(i))
            [[unroll]] for (uint j = 0; j < 4; j++) x_scale[i][j] = peak_scale(x_peak[x_place(i).x + j]);
    [[unroll]] for (uint i = 0; i < W_EACH; i++)
        if (SCALE_W != 0 && w_is_piece(i))
            [[unroll]] for (uint j = 0; j < 4; j++) { // NT: all of a's are the row's
                w_scale_a[i][j] = peak_scale(w_peak[w_place(i).x + (FORM == NT ? 0 : j)]);
                w_scale_b[i][j] = peak_scale(w_peak[w_place(i).x + (FORM == NT ? 0 : 4 + j)]);
            }
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++)
            sum[i][j] = coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator>(0.0);
}
// Rounded to nearest: bf16 here, because drivers may cut in their own conversion (NVIDIA's 580 does); f16 by the conversion and not by
// packHalf2x16, which cuts on some.
uint pair_of(float low, float high) {
#ifdef MATRIX_BF16
    return bf16_rounded(low) >> 16 | (bf16_rounded(high) & 0xffff0000u);
#else
    return packFloat2x16(f16vec2(low, high));
#endif
}
void body_put_x(uint i, XPiece v) {
#if FORM == TN
    if (X_SCALED)
        v *= x_scale[i];
    const uvec2 words = uvec2(pair_of(v.x, v.y), pair_of(v.z, v.w));
#else
    const uvec2 words = v;
#endif
    uint place = x_at(x_place(i).x, x_place(i).y);
    x_stage[place] = words.x;
    x_stage[place + 1] = words.y;
}
uvec4 pairs_of(vec4 a, vec4 b) { return uvec4(pair_of(a.x, a.y), pair_of(a.z, a.w), pair_of(b.x, b.y), pair_of(b.z, b.w)); }
#ifdef MATRIX_BF16
// Of numbers that share a scale: if it is finite so are they, else one of them tells it, and none needs bf16_rounded's care for NaN.
uvec4 pairs_of_unit(vec4 a, vec4 b) {
    uvec4 low = floatBitsToUint(vec4(a.xz, b.xz)), high = floatBitsToUint(vec4(a.yw, b.yw));
    low += 0x7fffu + (low >> 16 & 1);
    high += 0x7fffu + (high >> 16 & 1);
    const bool finite = (floatBitsToUint(a.x) & 0x7f800000u) != 0x7f800000u;
    return mix(uvec4(NAN_BITS | NAN_BITS >> 16), low >> 16 | (high & 0xffff0000u), bvec4(finite));
}
#else
uvec4 pairs_of_unit(vec4 a, vec4 b) { return pairs_of(a, b); }
#endif
void body_put_w(uint i, bool there, Unit u, uint eighth) {
    uvec4 words = u.a;
    if (!W_READY) {
        vec4 a, b;
        eighth_get(u, eighth, FORM == NT && SCALE_W != 0 ? w_scale_a[i].x : 1, a, b);
        if (FORM != NT && SCALE_W != 0) {
            a *= w_scale_a[i];
            b *= w_scale_b[i];
        }
        words = W_QUANTISED ? pairs_of_unit(a, b) : pairs_of(a, b);
    }
    uint place = w_at(w_place(i).x, w_place(i).y);
    [[unroll]] for (uint j = 0; j < 4; j++) w_stage[place + j] = there ? words[j] : 0;
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
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++) {
            coopMatStore(sum[i][j], out_stage, gl_SubgroupID * SIZE, SHAPE_N, gl_CooperativeMatrixLayoutRowMajor);
            barrier();
            [[unroll]] for (uint n = 0; n < SIZE / SUBGROUP_SIZE; n++) {
                uint e = n * SUBGROUP_SIZE + gl_SubgroupInvocationID;
                uint row = block_row(i) + e / SHAPE_N, col = block_col(j) + e % SHAPE_N;
                float value = out_stage[gl_SubgroupID * SIZE + e];
                if (SCALE_X != 0)
                    value *= peak_unscale(x_peak[row]);
                if (SCALE_W != 0)
                    value *= peak_unscale(w_peak[col]);
                if (FORM == TN)
                    tile_store_tn(t.expert, t.row0 + row, t.col0 + col, value);
                else
                    tile_store(t, t.row0 + row, t.col0 + col, value);
            }
            barrier();
        }
}
