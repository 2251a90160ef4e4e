// Takes from the logits of tokens that were seen lately, each row by its own list. A lane is one entry of a list.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x;
    if (i >= p.rows * p.room)
        return;
    uint row = i / p.room, list = row * (4 + 2 * p.room), entry = list + 4 + 2 * (i % p.room);
    if (i % p.room >= p.list.v[list])
        return;
    uint token = p.list.v[entry];
    if (token >= p.vocab)
        return;
    float repeat = uintBitsToFloat(p.list.v[list + 1]), presence = uintBitsToFloat(p.list.v[list + 2]);
    float frequency = uintBitsToFloat(p.list.v[list + 3]), l = p.logits.v[row * p.vocab + token];
    l = l > 0 ? l / repeat : l * repeat;
    p.logits.v[row * p.vocab + token] = l - presence - frequency * float(p.list.v[entry + 1]);
}
