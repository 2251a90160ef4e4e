// y[i] = value over n 32-bit words. A lane writes STEPS fours of words, each at once where y begins at a multiple of 16 bytes. With -DPAIRS, for
// CPU devices, which store lane by lane, it is pairs of words; a line of y is read some way ahead, because a store that waits for its line holds
// up those behind it, and a load does not.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint STEPS = 1;
layout(constant_id = 3) const uint ALIGNED = 0;

#ifdef PAIRS
const uint LINE = 16, LINES = 4, AHEAD = 512; // words of a line, lines a step, words

void main() {
    const uint width = 4 * STEPS * LOCAL_SIZE, begin = group_index() * width, end = min(begin + width, p.n);
    uint i = begin, seen = 0;
    if (ALIGNED != 0)
        for (; i + LINES * LINE <= end; i += LINES * LINE)
            [[unroll]] for (uint j = 0; j < LINES; j++) {
                seen |= p.y.v[min(i + j * LINE + AHEAD, end - 1)];
                lanes_store(p.y, (i + j * LINE) / 2, uintBitsToFloat(uvec2(p.value)));
            }
    for (i += LANE; i < end; i += LOCAL_SIZE)
        p.y.v[i] = p.value;
    if (p.n == 0) // never, but the compiler does not know: or it would leave the loads out
        p.y.v[0] = seen;
}
#else
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
#endif
