// Matrix multiply on matrix units that a whole workgroup drives together (VK_NV_cooperative_matrix2): the driver stages the operands from tensors in
// memory as it likes. -DFORM=NT | NN (see tile.glsl). Both operands are bf16 with rows of a multiple of 8, in the order in which they are used:
// activations are packed so before (gather_rows.comp), because loads that convert f32 on their way reach a sixth of this. Sums are f32.
#version 460
#define NT 0
#define NN 1
#define TN 2
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_bfloat16 : require
#include "tile.glsl"

layout(constant_id = 7) const uint STEPS = 64; // of the contraction, at a time

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer bf16_in { bfloat16_t v[]; };

Tile t;
float store(const in uint row, const in uint col, const in float sum) {
    tile_store(t, t.row0 + row, t.col0 + col, sum);
    return sum;
}

// A tensor of rows by cols, `clamp` saying what lies beyond. The compiler sees from a stride that it is a multiple of 8.
#define LAYOUT(name, clamp, rows, cols, stride)                                                                        \
    tensorLayoutNV<2, clamp> name = createTensorLayoutNV(2, clamp);                                                    \
    name = setTensorLayoutDimensionNV(name, rows, cols);                                                               \
    name = setTensorLayoutStrideNV(name, (stride) & ~7u, 1)

#if FORM == NT
#define LOAD_W coopMatLoadTensorNV(b, bf16_in(p.w).v, w_first, sliceTensorLayoutNV(w, t.col0, TILE_COLS, k, STEPS), turned)
#else
#define LOAD_W coopMatLoadTensorNV(b, bf16_in(p.w).v, w_first, sliceTensorLayoutNV(w, k, STEPS, t.col0, TILE_COLS))
#endif
#define MULTIPLY(clamp)                                                                                                \
    {                                                                                                                  \
        LAYOUT(x, clamp, x_rows, p.k, p.ldx);                                                                          \
        LAYOUT(w, clamp, w_rows, w_cols, p.w_row_bytes / 2);                                                           \
        for (uint k = 0; k < p.k; k += STEPS) {                                                                        \
            coopMatLoadTensorNV(a, bf16_in(p.x).v, x_first, sliceTensorLayoutNV(x, 0, TILE_ROWS, k, STEPS));           \
            LOAD_W;                                                                                                    \
            sum = coopMatMulAdd(a, b, sum);                                                                            \
        }                                                                                                              \
    }

void main() {
    if (!tile_find(t))
        return;
    tensorViewNV<2, false, 1, 0> turned = createTensorViewNV(2, false, 1, 0);
    coopmat<float, gl_ScopeWorkgroup, TILE_ROWS, TILE_COLS, gl_MatrixUseAccumulator> sum =
        coopmat<float, gl_ScopeWorkgroup, TILE_ROWS, TILE_COLS, gl_MatrixUseAccumulator>(0.0);
    coopmat<bfloat16_t, gl_ScopeWorkgroup, TILE_ROWS, STEPS, gl_MatrixUseA> a;
    coopmat<bfloat16_t, gl_ScopeWorkgroup, STEPS, TILE_COLS, gl_MatrixUseB> b;

    // x begins at the tile's first row and w is this expert's matrix. Rows and columns that belong to others may be multiplied, what comes of
    // them is not stored; steps beyond the end must be zeros.
    const uint x_rows = p.m - t.row0, w_rows = FORM == NT ? p.n : p.k, w_cols = FORM == NT ? p.k : p.n;
    const uint x_first = t.row0 * (p.ldx & ~7u), w_first = t.expert * w_rows * (p.w_row_bytes / 2 & ~7u);
    if (p.k % STEPS == 0 && t.col0 + TILE_COLS <= p.n && TILE_ROWS <= x_rows)
        MULTIPLY(gl_CooperativeMatrixClampModeUndefinedNV)
    else
        MULTIPLY(gl_CooperativeMatrixClampModeConstantNV)
    coopMatPerElementNV(sum, sum, store);
}
