// Attention on matrix units that a whole workgroup drives together (VK_NV_cooperative_matrix2), -DMATRIX=float16_t | bfloat16_t: the driver stages keys
// and values from memory as it likes, and scores, weights and sums stay in its matrices. What belongs to a row stands in every column of a matrix.
// Keys and values are MATRIX in memory, heads a multiple of 64. Tiles of keys lie at absolute multiples of KEYS.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
const uint CUT_BITS = 16; // of a float, to be one of MATRIX
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
const uint CUT_BITS = 13;
#endif
#include "attention.glsl"
#include "attention_reference.glsl"

layout(constant_id = 4) const uint TILE_ROWS = 128;
layout(constant_id = 5) const uint KEYS = 64;
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer matrix_in { MATRIX v[]; };
shared uvec2 spans[TILE_ROWS];
shared uint bounds[4]; // of the keys that any row sees, then of those that all see

#define SUMS(columns) coopmat<float, gl_ScopeWorkgroup, TILE_ROWS, columns, gl_MatrixUseAccumulator>
#define LEFT(columns) coopmat<MATRIX, gl_ScopeWorkgroup, TILE_ROWS, columns, gl_MatrixUseA>
#define RIGHT(rows, columns) coopmat<MATRIX, gl_ScopeWorkgroup, rows, columns, gl_MatrixUseB>

uint first, head; // of this workgroup's rows; all rows are of this head

// Rounded to nearest, so that a conversion to MATRIX has nothing left to cut.
float rounded(float x) {
    const uint bits = floatBitsToUint(x);
    return uintBitsToFloat((bits + ((1u << CUT_BITS - 1) - 1) + (bits >> CUT_BITS & 1)) & ~((1u << CUT_BITS) - 1));
}
float greater(const in float a, const in float b) { return max(a, b); }
float plus(const in float a, const in float b) { return a + b; }
float query(const in uint row, const in uint column, const in float x) {
    precise const float scaled = x * (p.scale * LOG2E);
    return rounded(MATRIX_MOST > 0 ? clamp(scaled, -MATRIX_MOST, MATRIX_MOST) : scaled);
}
float masked(const in uint row, const in uint column, const in float score, const in uint key) {
    return key + column >= spans[row].x && key + column < spans[row].y ? score : NO_SCORE;
}
float move(const in uint row, const in uint column, const in float top, const in float reference) {
    return reference_moved(reference, top);
}
float shrink_of(const in uint row, const in uint column, const in float from, const in float to) {
    precise const float x = from - to;
    return exp2(x);
}
// Of a row that has seen nothing yet, the reference is no score either.
float weight(const in uint row, const in uint column, const in float score, const in float reference) {
    precise const float x = score - reference;
    return score == NO_SCORE ? 0 : rounded(exp2(x));
}
float store(const in uint row, const in uint column, const in float o, const in float total) {
    if (first + row < p.rows)
        f32_rw(p.o).v[((first + row) * p.n_heads + head) * HEAD_DIM + column] = total == 0 ? 0 : o / total;
    return o;
}
float store_lse(const in uint row, const in uint column, const in float reference, const in float total) {
    if (column == 0 && first + row < p.rows)
        p.lse.v[(first + row) * p.n_heads + head] = logsumexp_of(reference, total);
    return reference;
}

// Rows of the tensor begin at its heads; the compiler sees from a stride that it is a multiple of 8.
#define LAYOUT(name, clamp, rows, n_heads)                                                                             \
    tensorLayoutNV<2, clamp> name = createTensorLayoutNV(2, clamp);                                                    \
    name = setTensorLayoutDimensionNV(name, rows, (n_heads) * HEAD_DIM);                                               \
    name = setTensorLayoutStrideNV(name, ((n_heads) * HEAD_DIM) & ~7u, 1)

#define STEP(layout, MASK)                                                                                             \
    {                                                                                                                  \
        RIGHT(HEAD_DIM, KEYS) k;                                                                                       \
        RIGHT(KEYS, HEAD_DIM) v;                                                                                       \
        coopMatLoadTensorNV(k, matrix_in(uvec2(p.k)).v, 0, sliceTensorLayoutNV(layout, key, KEYS, kv_head * HEAD_DIM, HEAD_DIM), turned); \
        SUMS(KEYS) s = coopMatMulAdd(q, k, SUMS(KEYS)(0.0)), top, before = reference, shrink;                          \
        MASK;                                                                                                          \
        coopMatReduceNV(top, s, gl_CooperativeMatrixReduceRowNV, greater);                                             \
        coopMatPerElementNV(reference, top, move, before);                                                             \
        coopMatPerElementNV(shrink, before, shrink_of, reference);                                                     \
        coopMatPerElementNV(s, s, weight, reference);                                                                  \
        sum = sum * shrink + s;                                                                                        \
        SUMS(HEAD_DIM) wide;                                                                                           \
        coopMatReduceNV(wide, shrink, gl_CooperativeMatrixReduceRowNV, greater);                                       \
        coopMatLoadTensorNV(v, matrix_in(uvec2(p.v)).v, 0, sliceTensorLayoutNV(layout, key, KEYS, kv_head * HEAD_DIM, HEAD_DIM)); \
        o = coopMatMulAdd(LEFT(KEYS)(s), v, o * wide);                                                                 \
    }

void main() {
    const uint tiles = (p.rows + TILE_ROWS - 1) / TILE_ROWS, lane = gl_LocalInvocationID.x;
    head = head_of_group(p.n_heads);
    first = tile_of_group(tiles, p.n_heads) * TILE_ROWS;
    const uint kv_head = head / (p.n_heads / p.n_kv_heads);
    if (lane < 4)
        bounds[lane] = lane == 0 || lane == 3 ? 0xffffffffu : 0;
    barrier();
    for (uint i = lane; i < TILE_ROWS; i += LOCAL_SIZE) {
        const uint row = min(first + i, p.rows - 1);
        const uvec2 span = uvec2(p.span.v[2 * row], min(p.span.v[2 * row + 1], p.key_rows));
        spans[i] = span; // rows beyond the last see what it sees and are not stored
        if (span.x < span.y) {
            atomicMin(bounds[0], span.x);
            atomicMax(bounds[1], span.y);
        }
        atomicMax(bounds[2], span.x);
        atomicMin(bounds[3], span.y);
    }
    barrier();
    const uvec2 any = uvec2(bounds[0], bounds[1]), all = uvec2(bounds[2], bounds[3]);

    tensorViewNV<2, false, 1, 0> turned = createTensorViewNV(2, false, 1, 0);
    LAYOUT(q_layout, gl_CooperativeMatrixClampModeConstantNV, p.rows, p.n_heads);
    LAYOUT(edge, gl_CooperativeMatrixClampModeConstantNV, any.y, p.n_kv_heads); // beyond what anybody sees: zeros
    LAYOUT(inner, gl_CooperativeMatrixClampModeUndefinedNV, p.key_rows, p.n_kv_heads);
    SUMS(HEAD_DIM) o = SUMS(HEAD_DIM)(0.0), total;
    coopMatLoadTensorNV(o, f32_in(p.q).v, 0, sliceTensorLayoutNV(q_layout, first, TILE_ROWS, head * HEAD_DIM, HEAD_DIM));
    coopMatPerElementNV(o, o, query);
    LEFT(HEAD_DIM) q = LEFT(HEAD_DIM)(o);
    o = SUMS(HEAD_DIM)(0.0);
    SUMS(KEYS) reference = SUMS(KEYS)(NO_SCORE), sum = SUMS(KEYS)(0.0), row_total;
    for (uint key = any.x / KEYS * KEYS; key < any.y; key += KEYS) {
        if (key >= all.x && key + KEYS <= all.y)
            STEP(inner, )
        else
            STEP(edge, coopMatPerElementNV(s, s, masked, key))
    }
    coopMatReduceNV(total, sum, gl_CooperativeMatrixReduceRowNV, plus);
    coopMatPerElementNV(o, o, store, total);
    if (uvec2(p.lse) != uvec2(0)) {
        coopMatReduceNV(row_total, sum, gl_CooperativeMatrixReduceRowNV, plus);
        coopMatPerElementNV(reference, reference, store_lse, row_total);
    }
}
