// Neighbouring numbers for all lanes of a workgroup, in kernels that go through memory once. A lane has a VEC, its neighbour the next one: four numbers,
// a load of 16 bytes. With -DPAIRS, for CPU devices of eight lanes, it is two, in one number of 64 bits: those of all lanes are one load (lanes.glsl), and a
// store, which such devices make lane by lane, is of 8 bytes instead of 4. Rows are sixteens of elements there.
#ifndef VKMOE_PAIRS_GLSL
#define VKMOE_PAIRS_GLSL
#ifdef PAIRS
#include "lanes.glsl"
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#define VEC vec2
const uint VEC_SIZE = 2;
struct EightPairs {
    uint64_t v[8];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Pairs_in { EightPairs v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) writeonly buffer Pairs_out { uint64_t v[]; };

// Each lane's VEC of those from `first` on, a multiple of 8.
VEC lanes_load(uvec2 from, uint first) {
    const EightPairs e = Pairs_in(from).v[first / 8];
    return uintBitsToFloat(unpackUint2x32(EIGHT(e.v, 0)));
}
void lanes_store(uvec2 to, uint first, VEC x) { Pairs_out(to).v[first + LANE] = packUint2x32(floatBitsToUint(x)); }

// Each lane's word, two numbers of 16 bits.
struct EightWords {
    uint v[8];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words_in { EightWords v[]; };
uint lanes_load_word(uvec2 from, uint first) {
    const EightWords e = Words_in(from).v[first / 8];
    return EIGHT(e.v, 0);
}

// Of a row of n VECs: whether those from `first` on are there, and where to read in their place if not.
bool lanes_inside(uint first, uint n) { return first < n; }
uint lanes_bounded(uint first, uint n) { return min(first, n - 8); }
float lanes_sum(VEC x) { return x.x + x.y; }
#else
#define VEC vec4
const uint VEC_SIZE = 4;
#define LANE gl_LocalInvocationID.x
VEC lanes_load(uvec2 from, uint first) { return f32x4_in(from).v[first + LANE]; }
void lanes_store(uvec2 to, uint first, VEC x) { f32x4_rw(to).v[first + LANE] = x; }
bool lanes_inside(uint first, uint n) { return first + LANE < n; }
uint lanes_bounded(uint first, uint n) { return first; } // lanes beyond do nothing
float lanes_sum(VEC x) { return (x.x + x.y) + (x.z + x.w); }
#endif
#define lanes_load(from, first) lanes_load(uvec2(from), first)
#define lanes_store(to, first, x) lanes_store(uvec2(to), first, x)
#define lanes_load_word(from, first) lanes_load_word(uvec2(from), first)
#endif
