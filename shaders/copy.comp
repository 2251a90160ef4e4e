// y[i] = x[i] over n 32-bit words. A lane copies STEPS fours of words, each at once where both begin at a multiple of 16 bytes.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint STEPS = 1;
layout(constant_id = 3) const uint ALIGNED = 0;

void main() {
    for (uint s = 0; s < STEPS; s++) {
        uint four = (group_index() * STEPS + s) * LOCAL_SIZE + gl_LocalInvocationID.x, first = 4 * four;
        if (ALIGNED != 0 && first + 4 <= p.n)
            u32x4_rw(p.y).v[four] = u32x4_in(p.x).v[four];
        else
            for (uint i = first; i < min(first + 4, p.n); i++)
                p.y.v[i] = p.x.v[i];
    }
}
