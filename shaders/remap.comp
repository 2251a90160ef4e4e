// Puts slots of a cache in the place of experts, in the lists that the expert multiplies read. A number that is no expert stays.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

void main() {
    const uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x;
    if (i < p.rows) {
        const uint e = p.row_expert.v[i];
        if (e < p.n_experts)
            p.row_expert.v[i] = p.map.v[e];
    }
    if (i < min(p.grid.v[0], p.max_tiles)) {
        const uint e = p.tiles.v[i].x;
        if (e < p.n_experts)
            p.tiles.v[i].x = p.map.v[e];
    }
}
