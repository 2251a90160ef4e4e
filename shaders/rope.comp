// Rotary positions in place: the pair (i, i + head_dim/2) of every head turns by the angle in table[position]; sign -1 turns back. A
// workgroup is a row; a lane keeps the sines of four pairs and takes them through the heads. head_dim is a multiple of 8.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 8;
const uint QUADS = HEAD_DIM / 8; // of one half of a head
const uint WIDTH = QUADS < LOCAL_SIZE ? QUADS : LOCAL_SIZE;
const uint SIDE_BY_SIDE = LOCAL_SIZE / WIDTH; // heads at a time

void main() {
    uint row = group_index(), lane = gl_LocalInvocationID.x;
    if (row >= p.rows || lane >= WIDTH * SIDE_BY_SIDE)
        return;
    uint angles = min(p.positions.v[row], p.n_positions - 1) * QUADS * 2, base = row * p.n_heads * QUADS * 2;
    for (uint quad = lane % WIDTH; quad < QUADS; quad += WIDTH) {
        vec4 t0 = f32x4_in(p.table).v[angles + 2 * quad], t1 = f32x4_in(p.table).v[angles + 2 * quad + 1];
        vec4 c = vec4(t0.xz, t1.xz), s = vec4(t0.yw, t1.yw) * p.sign;
        for (uint head = lane / WIDTH; head < p.n_heads; head += SIDE_BY_SIDE) {
            uint i = base + head * QUADS * 2 + quad;
            vec4 a = f32x4_in(p.x).v[i], b = f32x4_in(p.x).v[i + QUADS];
            f32x4_rw(p.x).v[i] = a * c - b * s;
            f32x4_rw(p.x).v[i + QUADS] = b * c + a * s;
        }
    }
}
