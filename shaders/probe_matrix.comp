// Measures the matrix units of a subgroup (VK_KHR_cooperative_matrix), not a model: `rounds` times eight multiply-adds of the device's shape in
// registers. Eight sums hide the latency of each other.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "types.glsl"
layout(constant_id = 2) const uint SHAPE_M = 16;
layout(constant_id = 3) const uint SHAPE_N = 16;
layout(constant_id = 4) const uint SHAPE_K = 16;

void main() {
    coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_M, SHAPE_K, gl_MatrixUseA> a[2];
    coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_K, SHAPE_N, gl_MatrixUseB> b[4];
    coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator> sum[8];
    // Elements differ, so that no compiler makes one of them all.
    [[unroll]] for (uint i = 0; i < 2; i++)
        for (uint j = 0; j < a[i].length(); j++)
            a[i][j] = MATRIX(float(p.n + i + j + gl_LocalInvocationID.x) * 0.013);
    [[unroll]] for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < b[i].length(); j++)
            b[i][j] = MATRIX(float(p.n + 3 * i + j + gl_LocalInvocationID.x) * -0.007);
    [[unroll]] for (uint i = 0; i < 8; i++)
        sum[i] = coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator>(0);
    for (uint r = 0; r < p.rounds; r++)
        [[unroll]] for (uint i = 0; i < 8; i++)
            sum[i] = coopMatMulAdd(a[i % 2], b[i / 2], sum[i]);
    // Every element counts: a driver makes a matrix of several instructions and leaves out those whose results nobody reads.
    float all = 0;
    [[unroll]] for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < sum[i].length(); j++)
            all += sum[i][j];
    p.y.v[group_index() * LOCAL_SIZE + gl_LocalInvocationID.x] = uvec4(floatBitsToUint(all));
}
