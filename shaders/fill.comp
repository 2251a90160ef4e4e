// y[i] = value over n 32-bit words.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x;
    if (i < p.n)
        p.y.v[i] = p.value;
}
