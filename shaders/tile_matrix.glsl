// The body of gemm.comp on matrix units (VK_KHR_cooperative_matrix): operands rounded to MATRIX (float16_t or bfloat16_t) as they are
// staged, f32 sums. The device's shape comes as specialisation constants. f16 has not the range of what it is given (activations,
// gradients, bf16 weights): so with SCALE_X and SCALE_W every row of x and column of w is brought to a peak of 2^14 by a power of two,
// which is taken back from the sums: nothing overflows, and what is lost is below 2^-38 of the peak.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
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

const bool BODY_SCALES = SCALE_X != 0 || SCALE_W != 0;
void see_x(uint row, float v) { atomicMax(x_peak[row], floatBitsToUint(abs(v))); }
void see_w(uint col, float v) { atomicMax(w_peak[col], floatBitsToUint(abs(v))); }
float peak_of(vec4 v) {
    vec4 a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}
void body_see_x(uint row, vec4 v) {
    if (FORM != TN)
        see_x(row, peak_of(v));
    else
        [[unroll]] for (uint i = 0; i < 4; i++) see_x(row + i, v[i]);
}
void body_see_w(uint col, vec4 a, vec4 b) {
    if (FORM == NT)
        see_w(col, max(peak_of(a), peak_of(b)));
    else
        [[unroll]] for (uint i = 0; i < 4; i++) {
            see_w(col + i, a[i]);
            see_w(col + 4 + i, b[i]);
        }
}
// Peak of exponent field e: times 2^(141 - e) it is 2^14 to 2^15; 2^(e - 141) takes that back.
uint exponent_of(uint peak) { return max(peak >> 23, 15); }
float scale_of(uint peak) { return uintBitsToFloat((268 - exponent_of(peak)) << 23); }
float unscale_of(uint peak) { return uintBitsToFloat((exponent_of(peak) - 14) << 23); }

uint block_row(uint i) { return (gl_SubgroupID / SUBGROUPS_ACROSS * BLOCKS_M + i) * SHAPE_M; }
uint block_col(uint j) { return (gl_SubgroupID % SUBGROUPS_ACROSS * BLOCKS_N + j) * SHAPE_N; }

void body_begin() {
    x_block = x_at(block_row(0), 0);
    w_block = w_at(block_col(0), 0);
    for (uint i = gl_LocalInvocationIndex; i < TILE_ROWS; i += LOCAL_SIZE) x_peak[i] = 0;
    for (uint i = gl_LocalInvocationIndex; i < TILE_COLS; i += LOCAL_SIZE) w_peak[i] = 0;
    barrier();
    [[unroll]] for (uint i = 0; i < BLOCKS_M; i++)
        [[unroll]] for (uint j = 0; j < BLOCKS_N; j++)
            sum[i][j] = coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator>(0.0);
}
// Of the pieces that this thread puts.
vec4 x_scale[X_EACH], w_scale_a[W_EACH], w_scale_b[W_EACH];
void body_seen() {
    barrier();
    [[unroll]] for (uint i = 0; i < X_EACH; i++)
        if (SCALE_X != 0 && x_is_piece(i))
            [[unroll]] for (uint j = 0; j < 4; j++) x_scale[i][j] = scale_of(x_peak[x_place(i).x + (FORM == TN ? j : 0)]);
    [[unroll]] for (uint i = 0; i < W_EACH; i++)
        if (SCALE_W != 0 && w_is_piece(i))
            [[unroll]] for (uint j = 0; j < 4; j++) {
                w_scale_a[i][j] = scale_of(w_peak[w_place(i).x + (FORM == NT ? 0 : j)]);
                w_scale_b[i][j] = scale_of(w_peak[w_place(i).x + (FORM == NT ? 0 : 4 + j)]);
            }
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
void body_put_x(uint i, vec4 v) {
    if (SCALE_X != 0)
        v *= x_scale[i];
    uint place = x_at(x_place(i).x, x_place(i).y);
    x_stage[place] = pair_of(v.x, v.y);
    x_stage[place + 1] = pair_of(v.z, v.w);
}
#if defined(MATRIX_BF16) && defined(W_ANY)
const bool W_READY = W_TYPE == 2; // bf16 as it lies in memory
#else
const bool W_READY = false;
#endif
void body_put_w(uint i, bool there, Unit u, uint eighth) {
    uvec4 words = u.a;
    if (!W_READY) {
        vec4 a, b;
        unit_get8(u, eighth, a, b);
        if (SCALE_W != 0) {
            a *= w_scale_a[i];
            b *= w_scale_b[i];
        }
        words = uvec4(pair_of(a.x, a.y), pair_of(a.z, a.w), pair_of(b.x, b.y), pair_of(b.z, b.w));
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
                    value *= unscale_of(x_peak[row]);
                if (SCALE_W != 0)
                    value *= unscale_of(w_peak[col]);
                if (FORM == TN)
                    tile_store_tn(t.expert, t.row0 + row, t.col0 + col, value);
                else
                    tile_store(t, t.row0 + row, t.col0 + col, value);
            }
            barrier();
        }
}
