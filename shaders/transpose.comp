// y(dim, ld) = x(rows, dim)^T as bf16, two neighbours of a column in a word; columns of y from `rows` on, up to ld (even), are zeros. Through tiles of
// TILE x TILE in shared memory, so that both sides touch memory in order. Weight gradients, which sum over rows, become products along rows so.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

const uint TILE = 32, PITCH = TILE + 1;
shared float tile[TILE * PITCH];

void main() {
    const uint across = (p.dim + TILE - 1) / TILE, down = (p.ld + TILE - 1) / TILE;
    const uint group = min(group_index(), across * down - 1), row0 = group / across * TILE, col0 = group % across * TILE;
    for (uint i = gl_LocalInvocationID.x; i < TILE * TILE; i += LOCAL_SIZE) {
        const uint row = row0 + i / TILE, col = col0 + i % TILE;
        tile[i / TILE * PITCH + i % TILE] = row < p.rows && col < p.dim ? p.x.v[row * p.dim + col] : 0;
    }
    barrier();
    for (uint i = gl_LocalInvocationID.x; i < TILE * TILE / 2; i += LOCAL_SIZE) {
        const uint col = col0 + i / (TILE / 2), pair = i % (TILE / 2), row = row0 + 2 * pair;
        if (col < p.dim && row < p.ld) {
            const uint at = 2 * pair * PITCH + i / (TILE / 2);
            p.y.v[(col * p.ld + row) / 2] = bf16_bits(tile[at]) | bf16_bits(tile[at + PITCH]) << 16;
        }
    }
}
