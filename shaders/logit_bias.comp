// Adds a number to the logits of a few tokens, in every row. A lane is one logit.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x, n = p.list.v[0];
    if (n == 0 || i >= p.rows * n)
        return;
    uint row = i / n, entry = 1 + 2 * (i % n), token = p.list.v[entry];
    if (token < p.vocab)
        p.logits.v[row * p.ld + token] += uintBitsToFloat(p.list.v[entry + 1]);
}
