// y[i] = value over n 32-bit words. A lane writes STEPS fours of words, each at once where y begins at a multiple of 16 bytes.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint STEPS = 1;
layout(constant_id = 3) const uint ALIGNED = 0;

void main() {
    for (uint s = 0; s < STEPS; s++) {
        uint four = (group_index() * STEPS + s) * LOCAL_SIZE + gl_LocalInvocationID.x, first = 4 * four;
        if (ALIGNED != 0 && first + 4 <= p.n)
            u32x4_rw(p.y).v[four] = uvec4(p.value);
        else
            for (uint i = first; i < min(first + 4, p.n); i++)
                p.y.v[i] = p.value;
    }
}
