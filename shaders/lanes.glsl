// For CPU devices of eight lanes: lane i gets element at + i of an array in one struct. The addresses are the same for all lanes, and which lane takes
// which is known when the kernel is compiled, so the driver's compiler makes one load of eight neighbours (mix, because `?:` becomes a branch, behind
// which it sees nothing).
#ifndef VKMOE_LANES_GLSL
#define VKMOE_LANES_GLSL
#extension GL_KHR_shader_subgroup_basic : require
#define LANE gl_SubgroupInvocationID
#define EIGHT(v, at)                                                                                                   \
    mix(mix(mix(v[at], v[at + 1], (LANE & 1) != 0), mix(v[at + 2], v[at + 3], (LANE & 1) != 0), (LANE & 2) != 0),      \
        mix(mix(v[at + 4], v[at + 5], (LANE & 1) != 0), mix(v[at + 6], v[at + 7], (LANE & 1) != 0), (LANE & 2) != 0),  \
        (LANE & 4) != 0)
#endif
