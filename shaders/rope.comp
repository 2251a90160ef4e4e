// Rotary positions, in place or on the way to a cache of keys: the pair (i, i + head_dim/2) of every head turns by the angle in table[position]; sign -1 turns back. A
// workgroup is a row; a lane keeps the sines of four pairs and takes them through the heads. head_dim is a multiple of 8.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 8;
layout(constant_id = 4) const uint TO_CACHE = 0; // p.y, its rows p.index
const uint QUADS = HEAD_DIM / 8; // of one half of a head
const uint WIDTH = QUADS < LOCAL_SIZE ? QUADS : LOCAL_SIZE;
const uint SIDE_BY_SIDE = LOCAL_SIZE / WIDTH; // heads at a time

void store(uint at, vec4 value) {
    if (TO_CACHE == 0)
        f32x4_rw(p.x).v[at] = value;
    else if (CACHE_TYPE == 0)
        f32x4_rw(p.y).v[at] = value;
    else
        u32x2_rw(p.y).v[at] = cache_pack4(value);
}

void main() {
    uint row = group_index(), lane = gl_LocalInvocationID.x;
    if (row >= p.rows || lane >= WIDTH * SIDE_BY_SIDE)
        return;
    uint angles = min(p.positions.v[row], p.n_positions - 1) * QUADS * 2, base = row * p.n_heads * QUADS * 2, to = base;
    if (TO_CACHE != 0) {
        uint place = p.index.v[row];
        if (place >= p.y_rows)
            return;
        to = place * p.n_heads * QUADS * 2;
    }
    for (uint quad = lane % WIDTH; quad < QUADS; quad += WIDTH) {
        vec4 t0 = f32x4_in(p.table).v[angles + 2 * quad], t1 = f32x4_in(p.table).v[angles + 2 * quad + 1];
        vec4 c = vec4(t0.xz, t1.xz), s = vec4(t0.yw, t1.yw) * p.sign;
        for (uint head = lane / WIDTH; head < p.n_heads; head += SIDE_BY_SIDE) {
            uint i = head * QUADS * 2 + quad;
            vec4 a = f32x4_in(p.x).v[base + i], b = f32x4_in(p.x).v[base + i + QUADS];
            store(to + i, a * c - b * s);
            store(to + i + QUADS, b * c + a * s);
        }
    }
}
