// What the bodies of attention on matrix units share, forward and backward (VK_KHR_cooperative_matrix; -DMATRIX=float16_t | bfloat16_t): the device's
// shape of matrix, the rounding of operands, and how the lanes of a subgroup share rows. No matrix's elements have a known lane, so what is done to
// single elements goes through shared memory, where LANES neighbouring lanes have the same row.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#ifdef MATRIX_BF16
#extension GL_EXT_bfloat16 : require
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "attention.glsl"
#include "attention_reference.glsl"

layout(constant_id = 4) const uint SHAPE_M = 16;
layout(constant_id = 5) const uint SHAPE_N = 16;
layout(constant_id = 6) const uint SHAPE_K = 16;
layout(constant_id = 7) const uint KEYS = 32; // of a tile that all subgroups share

const uint SUBGROUPS = LOCAL_SIZE / SUBGROUP_SIZE, LANES = SUBGROUP_SIZE / SHAPE_M;
// Shared memory is counted in 16 bytes: eight 16-bit numbers, four scores. One more a row spreads rows over the banks.
const uint QUADS = KEYS / 4, S_PITCH = QUADS + 1, LANE_QUADS = QUADS / LANES;

#define SUMS coopmat<float, gl_ScopeSubgroup, SHAPE_M, SHAPE_N, gl_MatrixUseAccumulator>
#define LEFT coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_M, SHAPE_K, gl_MatrixUseA>
#define RIGHT coopmat<MATRIX, gl_ScopeSubgroup, SHAPE_K, SHAPE_N, gl_MatrixUseB>

// Rounded to nearest; see tile_half.glsl. f16: what is beyond its range becomes its greatest number.
uint pair_of(float low, float high) {
#ifdef MATRIX_BF16
    return bf16_rounded(low) >> 16 | (bf16_rounded(high) & 0xffff0000u);
#else
    return packFloat2x16(f16vec2(clamp(vec2(low, high), -MATRIX_MOST, MATRIX_MOST)));
#endif
}
uvec4 eight_of(vec4 a, vec4 b) { return uvec4(pair_of(a.x, a.y), pair_of(a.z, a.w), pair_of(b.x, b.y), pair_of(b.z, b.w)); }

// Between lanes of a subgroup that use its part of the scores' memory.
void subgroup_turn() {
    controlBarrier(gl_ScopeSubgroup, gl_ScopeSubgroup, gl_StorageSemanticsShared, gl_SemanticsAcquireRelease);
}

// The least begin and the greatest end of the spans of all subgroups, the same for all threads: loops over them may hold barriers.
shared uint bounds[WHOLE_WORDS];
uvec2 workgroup_bounds(uvec2 any) {
    if (gl_LocalInvocationID.x == 0) {
        bounds[0] = 0xffffffffu;
        bounds[1] = 0;
    }
    barrier();
    if (gl_SubgroupInvocationID == 0) {
        atomicMin(bounds[0], any.x);
        atomicMax(bounds[1], any.y);
    }
    barrier();
    return uvec2(bounds[0], bounds[1]);
}
