// delta = <dy, o> of every row and head: what each of the row's ds subtracts. A thread is one row and head.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    const uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x, vecs = p.head_dim / 4;
    if (i >= p.rows * p.n_heads)
        return;
    precise float sum = 0;
    for (uint d = 0; d < vecs; d++)
        [[unroll]] for (uint j = 0; j < 4; j++) sum = fma(f32x4_in(p.o).v[i * vecs + d][j], f32x4_in(p.dy).v[i * vecs + d][j], sum);
    p.delta.v[i] = sum;
}
