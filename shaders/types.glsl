// What every kernel starts with: pointer types, the push-constant block `p` made from push.h, and the rounding to bf16. The storage types of weights are in
// formats.glsl.
#ifndef VKMOE_TYPES_GLSL
#define VKMOE_TYPES_GLSL
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference2 : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer f32_in { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer f32_rw { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer f32x4_in { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer f32x4_rw { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer u32_in { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer u32_rw { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer u32x2_in { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer u32x2_rw { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer u32x4_in { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer u32x4_rw { uvec4 v[]; };

// A pointer as one of another type, on the way through its two words: SwiftShader knows no other cast, and compilers see through it.
#define f32x4_in(pointer) f32x4_in(uvec2(pointer))
#define f32x4_rw(pointer) f32x4_rw(uvec2(pointer))
#define u32_in(pointer) u32_in(uvec2(pointer))
#define u32_rw(pointer) u32_rw(uvec2(pointer))
#define u32x2_in(pointer) u32x2_in(uvec2(pointer))
#define u32x2_rw(pointer) u32x2_rw(uvec2(pointer))
#define u32x4_in(pointer) u32x4_in(uvec2(pointer))
#define u32x4_rw(pointer) u32x4_rw(uvec2(pointer))

// Element i of those that a pointer points to, of `size` bytes each. The language's own index is a signed number, and makes of the address one of 64 bits in every
// lane: six instructions on AMD's cards. With -DINT64 it is the pointer and a number of bytes without a sign, less than 4 GiB, which AMD's loads add
// themselves where the pointer is the same for all lanes; moved() brings it near what they read.
#ifdef INT64
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#define AT(type, pointer, i, size) type(uvec2(unpackUint2x32(packUint2x32(uvec2(pointer)) + uint64_t((i) * size)))).v[0]
#else
#define AT(type, pointer, i, size) type(pointer).v[i]
#endif
// The pointer, `count` times `bytes` on.
uvec2 moved(uvec2 pointer, uint count, uint bytes) {
    uint high, low, carry;
    umulExtended(count, bytes, high, low);
    low = uaddCarry(pointer.x, low, carry);
    return uvec2(low, pointer.y + high + carry);
}

#define PUSH_FIELD_IN(type, name) type##_in name;
#define PUSH_FIELD_RW(type, name) type##_rw name;
#define PUSH_FIELD_U32(name) uint name;
#define PUSH_FIELD_F32(name) float name;
#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)
layout(push_constant, std430) uniform Push {
    PASTE(PUSH_, PUSH)(PUSH_FIELD_IN, PUSH_FIELD_RW, PUSH_FIELD_RW, PUSH_FIELD_U32, PUSH_FIELD_F32)
} p;

// Constants 0 and 1 are set by the runtime for every kernel: the workgroup's width, and the subgroup size in force.
layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint LOCAL_SIZE = 64;
layout(constant_id = 1) const uint SUBGROUP_SIZE = 32;

// Linear index of the workgroup: the runtime folds long grids into y.
uint group_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

// Shared arrays of words have a multiple of so many: NVK lays the next one right behind, and takes vectors apart that begin elsewhere.
const uint WHOLE_WORDS = 4;

// By bits: isnan(), and arithmetic with NaN, are the driver's choice (SwiftShader's exp() of one is a number).
bool is_nan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }
const uint NAN_BITS = 0x7fc00000u;

// x rounded to the nearest bf16 (ties to even), as 16 bits; NaN stays NaN.
uint bf16_bits(float x) {
    const uint bits = floatBitsToUint(x);
    return is_nan(x) ? bits >> 16 | 64u : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

// As bf16_bits, in the upper half (the lower half is garbage), at half the cost, for operands of matrices. A NaN may become an infinity, never finite: adding to
// a NaN with nearly all bits set would carry into the sign (positive) or out of the word (negative). In both cases the bits before the sum are the greater, as
// signed or as unsigned, and max() keeps them.
uint bf16_rounded(float x) {
    const uint bits = floatBitsToUint(x), sum = bits + 0x7fffu + (bits >> 16 & 1);
    return max(uint(max(int(sum), int(bits))), bits);
}

// Elements 4q .. 4q+3 of the weights of a norm, of enum DType 0 f32, 1 f16 or 2 bf16.
vec4 norm_weight4(u32_in w, uint type, uint q) {
    if (type == 0)
        return f32x4_in(w).v[q];
    uint a = w.v[2 * q], b = w.v[2 * q + 1];
    if (type == 1)
        return vec4(unpackHalf2x16(a), unpackHalf2x16(b));
    return uintBitsToFloat(uvec4(a << 16, a & 0xffff0000u, b << 16, b & 0xffff0000u));
}

#endif
