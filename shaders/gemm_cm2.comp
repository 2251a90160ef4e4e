// Matrix multiply on matrix units that a whole workgroup drives together (VK_NV_cooperative_matrix2): the driver stages the operands as it
// likes, from tensors in memory. -DFORM=NT | NN | TN (see tile.glsl); w is bf16, in TN f32. f32 operands are rounded to bf16 on their way; sums are
// f32. Where rows of x (or, in TN, of w) are gathered, the loads find them through p.gather.
#version 460
#define NT 0
#define NN 1
#define TN 2
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_bfloat16 : require
#include "tile.glsl"

layout(constant_id = 7) const uint STEPS = 32; // of the contraction, at a time

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer bf16_in { bfloat16_t v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer f32_one { float v; };

// Rounded to nearest here: the driver's own conversion cuts.
bfloat16_t rounded(float x) { return bfloat16_t(uintBitsToFloat(bf16_bits(x) << 16)); }

// Where a tensor's element comes from. `at` is the place of (row, column) = block in a tensor of the given stride.
bfloat16_t element(const in f32_one at, const in uint block[2], const in uint within[2]) { return rounded(at.v); }
Tile t;
uint gathered_row(uint i) { return p.gather.v[min((FORM == TN ? 0 : t.row0) + i, (FORM == TN ? p.m : t.row_end) - 1)]; }
bfloat16_t x_gathered(const in f32_one at, const in uint block[2], const in uint within[2]) {
    return rounded(p.x.v[gathered_row(block[0]) * p.ldx + block[1]]);
}
bfloat16_t w_gathered(const in f32_one at, const in uint block[2], const in uint within[2]) {
    return rounded(f32_in(p.w).v[gathered_row(block[0]) * (p.w_row_bytes / 4) + block[1]]);
}

float store(const in uint row, const in uint col, const in float sum) {
    if (FORM == TN)
        tile_store_tn(t.expert, t.row0 + row, t.col0 + col, sum);
    else
        tile_store(t, t.row0 + row, t.col0 + col, sum);
    return sum;
}

#define LAYOUT tensorLayoutNV<2, gl_CooperativeMatrixClampModeConstantNV>
LAYOUT layout_of(uint rows, uint cols, uint stride) {
    LAYOUT l = createTensorLayoutNV(2, gl_CooperativeMatrixClampModeConstantNV);
    l = setTensorLayoutDimensionNV(l, rows, cols);
    return setTensorLayoutStrideNV(l, stride, 1);
}

void main() {
    uint k = 0, k_end = p.k;
    if (FORM == TN) {
        tile_find_tn(t.expert, k, k_end);
        t.row0 = gl_WorkGroupID.x * TILE_ROWS;
        t.row_end = p.n;
        t.col0 = gl_WorkGroupID.y * TILE_COLS;
    } else if (!tile_find(t)) {
        return;
    }
    tensorViewNV<2, false, 1, 0> turned = createTensorViewNV(2, false, 1, 0);
    coopmat<float, gl_ScopeWorkgroup, TILE_ROWS, TILE_COLS, gl_MatrixUseAccumulator> sum =
        coopmat<float, gl_ScopeWorkgroup, TILE_ROWS, TILE_COLS, gl_MatrixUseAccumulator>(0.0);
    coopmat<bfloat16_t, gl_ScopeWorkgroup, TILE_ROWS, STEPS, gl_MatrixUseA> a;
    coopmat<bfloat16_t, gl_ScopeWorkgroup, STEPS, TILE_COLS, gl_MatrixUseB> b;

#if FORM == TN
    LAYOUT x = layout_of(k_end, p.n, p.ldx), w = layout_of(k_end, p.k, p.w_row_bytes / 4);
    for (; k < k_end; k += STEPS) {
        if (GATHER == 1)
            coopMatLoadTensorNV(a, p.x.v, 0, sliceTensorLayoutNV(x, k, STEPS, t.row0, TILE_ROWS), turned, x_gathered);
        else
            coopMatLoadTensorNV(a, p.x.v, 0, sliceTensorLayoutNV(x, k, STEPS, t.row0, TILE_ROWS), turned, element);
        if (GATHER == 2)
            coopMatLoadTensorNV(b, f32_in(p.w).v, 0, sliceTensorLayoutNV(w, k, STEPS, t.col0, TILE_COLS), w_gathered);
        else
            coopMatLoadTensorNV(b, f32_in(p.w).v, 0, sliceTensorLayoutNV(w, k, STEPS, t.col0, TILE_COLS), element);
        sum = coopMatMulAdd(a, b, sum);
    }
#else
    // x begins at the tile's first row; w is this expert's matrix.
    bool gathers = (p.flags & 2) != 0;
    LAYOUT x = layout_of(t.row_end - t.row0, p.k, p.ldx), w = layout_of(FORM == NT ? p.n : p.k, FORM == NT ? p.k : p.n, p.w_row_bytes / 2);
    uint w_first = t.expert * (FORM == NT ? p.n : p.k) * (p.w_row_bytes / 2);
    for (; k < k_end; k += STEPS) {
        if (gathers)
            coopMatLoadTensorNV(a, p.x.v, 0, sliceTensorLayoutNV(x, 0, TILE_ROWS, k, STEPS), x_gathered);
        else
            coopMatLoadTensorNV(a, p.x.v, t.row0 * p.ldx, sliceTensorLayoutNV(x, 0, TILE_ROWS, k, STEPS), element);
#if FORM == NT
        coopMatLoadTensorNV(b, bf16_in(p.w).v, w_first, sliceTensorLayoutNV(w, t.col0, TILE_COLS, k, STEPS), turned);
#else
        coopMatLoadTensorNV(b, bf16_in(p.w).v, w_first, sliceTensorLayoutNV(w, k, STEPS, t.col0, TILE_COLS));
#endif
        sum = coopMatMulAdd(a, b, sum);
    }
#endif
    coopMatPerElementNV(sum, sum, store);
}
