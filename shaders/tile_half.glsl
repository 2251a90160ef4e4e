// Operands of 16 bits, f16 or with MATRIX_BF16 bf16, for the bodies of gemm.comp that want them (tile_matrix.glsl, tile_dot2.glsl). x of NT and NN comes so, rounded once
// for all that multiply it (op_operand in model/ops_linear.c); w, and x of TN, are rounded as they are staged. With SCALE_X and SCALE_W rows of x and columns of w
// are brought to f16's range by their peaks, see peak.glsl.
#ifdef MATRIX_BF16
const uint UNITS_TYPE = 2; // enum DType
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
const uint UNITS_TYPE = 1;
#endif
#include "peak.glsl"
layout(constant_id = 11) const uint SCALE_X = 0;
layout(constant_id = 12) const uint SCALE_W = 0;
shared uint x_peak[TILE_ROWS], w_peak[TILE_COLS]; // bits of the greatest absolute value

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

void scales_begin() {
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
}
float unscaled(float sum, uint row, uint col) { // of the tile
    if (SCALE_X != 0)
        sum *= peak_unscale(x_peak[row]);
    if (SCALE_W != 0)
        sum *= peak_unscale(w_peak[col]);
    return sum;
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

// The numbers of a piece in pairs, neighbours in memory.
uvec2 x_pairs(uint i, XPiece v) {
#if FORM == TN
    if (X_SCALED)
        v *= x_scale[i];
    return uvec2(pair_of(v.x, v.y), pair_of(v.z, v.w));
#else
    return v;
#endif
}
uvec4 w_pairs(uint i, bool there, Unit u, uint eighth) {
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
    return there ? words : uvec4(0);
}
