// Sums, maxima and minima over a workgroup; every invocation gets the result, always by the same tree. Built twice: with
// -DSUBGROUP=1 through subgroup arithmetic (no shared memory at all where the workgroup is one subgroup, as on CPU devices),
// and without, through shared memory and nothing that Vulkan 1.3 does not promise. LOCAL_SIZE is a power of two.
#ifndef VKMOE_REDUCE_GLSL
#define VKMOE_REDUCE_GLSL

shared uint group_words[LOCAL_SIZE];

float pair_add(float a, float b) { return a + b; }
uint pair_add(uint a, uint b) { return a + b; }
float pair_max(float a, float b) { return max(a, b); }
uint pair_min(uint a, uint b) { return min(a, b); }
uint pair_max(uint a, uint b) { return max(a, b); }

#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#define GROUP_REDUCE(type, name, pair, subgroup_pair, bits, from_bits)                                                 \
    type name(type value) {                                                                                            \
        value = subgroup_pair(value);                                                                                  \
        if (LOCAL_SIZE > SUBGROUP_SIZE) {                                                                              \
            barrier();                                                                                                 \
            if (gl_SubgroupInvocationID == 0)                                                                          \
                group_words[gl_SubgroupID] = bits(value);                                                              \
            barrier();                                                                                                 \
            value = from_bits(group_words[0]);                                                                         \
            for (uint i = 1; i < gl_NumSubgroups; i++)                                                                 \
                value = pair(value, from_bits(group_words[i]));                                                        \
        }                                                                                                              \
        return value;                                                                                                  \
    }
#else
#define GROUP_REDUCE(type, name, pair, subgroup_pair, bits, from_bits)                                                 \
    type name(type value) {                                                                                            \
        uint lane = gl_LocalInvocationID.x;                                                                            \
        barrier();                                                                                                     \
        group_words[lane] = bits(value);                                                                               \
        barrier();                                                                                                     \
        for (uint step = LOCAL_SIZE / 2; step > 0; step /= 2) {                                                        \
            if (lane < step)                                                                                           \
                group_words[lane] =                                                                                    \
                    bits(pair(from_bits(group_words[lane]), from_bits(group_words[lane + step])));                     \
            barrier();                                                                                                 \
        }                                                                                                              \
        return from_bits(group_words[0]);                                                                              \
    }
#endif

GROUP_REDUCE(float, group_add, pair_add, subgroupAdd, floatBitsToUint, uintBitsToFloat)
GROUP_REDUCE(float, group_max, pair_max, subgroupMax, floatBitsToUint, uintBitsToFloat)
GROUP_REDUCE(uint, group_add, pair_add, subgroupAdd, uint, uint)
GROUP_REDUCE(uint, group_min, pair_min, subgroupMin, uint, uint)
GROUP_REDUCE(uint, group_max, pair_max, subgroupMax, uint, uint)

#endif
