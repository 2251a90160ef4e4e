// The token that each row has drawn becomes the one that goes in, without the host. A lane is one row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

const uint PARAMS = 12, INDEX = 7; // words of struct SampleParams; the place of index among them

void main() {
    uint row = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x;
    if (row >= p.rows)
        return;
    p.drawn.v[2 * row] = p.next.v[row];
    p.drawn.v[2 * row + 1] = floatBitsToUint(p.logprob.v[row]);
    p.ids.v[row] = p.next.v[row];
    p.positions.v[row] += 1;
    p.span.v[2 * row + 1] += 1;
    p.cache_rows.v[row] += 1;
    p.params.v[row * PARAMS + INDEX] += 1;
}
