// Rotary positions: the pair (i, i + head_dim/2) of every head turns by the angle in table[position]; sign -1 turns back. In place, a workgroup a
// row; a lane keeps the sines of four pairs and takes them through the heads. TO_CACHE: three workgroups a row, for q in place, for k on its
// way to a cache and for v on its way there as it is. head_dim is a multiple of 8.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "cache.glsl"
#include "pairs.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 8;
layout(constant_id = 4) const uint TO_CACHE = 0;
const uint QUADS = HEAD_DIM / 8; // of one half of a head
const uint WIDTH = QUADS < LOCAL_SIZE ? QUADS : LOCAL_SIZE;
const uint SIDE_BY_SIDE = LOCAL_SIZE / WIDTH; // heads at a time

void store(f32_rw y, uint at, vec4 value, bool cached) {
    if (!cached || CACHE_TYPE == 0)
        f32x4_rw(y).v[at] = value;
    else
        u32x2_rw(y).v[at] = cache_pack4(value);
}

// Cosines and sines of the pairs 4 quad .. 4 quad + 3.
void angles_of(uint row, uint quad, out vec4 c, out vec4 s) {
    uint at = (min(p.positions.v[row], p.n_positions - 1) * QUADS + quad) * 2;
    vec4 t0 = f32x4_in(p.table).v[at], t1 = f32x4_in(p.table).v[at + 1];
    c = vec4(t0.xz, t1.xz);
    s = vec4(t0.yw, t1.yw) * p.sign;
}

// n_heads heads of x from `base` on, to those of y from `to` on (in quads).
void turn(uint row, f32_rw x, uint base, f32_rw y, uint to, uint n_heads, bool cached) {
    uint lane = gl_LocalInvocationID.x;
    if (lane >= WIDTH * SIDE_BY_SIDE)
        return;
    for (uint quad = lane % WIDTH; quad < QUADS; quad += WIDTH) {
        vec4 c, s;
        angles_of(row, quad, c, s);
        for (uint head = lane / WIDTH; head < n_heads; head += SIDE_BY_SIDE) {
            uint i = head * QUADS * 2 + quad;
            vec4 a = f32x4_in(x).v[base + i], b = f32x4_in(x).v[base + i + QUADS];
            store(y, to + i, a * c - b * s, cached);
            store(y, to + i + QUADS, b * c + a * s, cached);
        }
    }
}

// Eight quads of k, turned, or of v. A block of q8_0 lies across pairs: each of its quads looks for its partners.
uint store_block(uint row, bool is_k, uint from, uint to) {
    vec4 x[8];
    [[unroll]] for (uint i = 0; i < 8; i++) {
        if (!is_k) {
            x[i] = f32x4_in(p.v).v[from + i];
            continue;
        }
        uint quad = (from + i) % (2 * QUADS);
        bool second = quad >= QUADS;
        vec4 c, s;
        angles_of(row, second ? quad - QUADS : quad, c, s);
        vec4 here = f32x4_in(p.k).v[from + i], there = f32x4_in(p.k).v[second ? from + i - QUADS : from + i + QUADS];
        x[i] = second ? here * c + there * s : here * c - there * s;
    }
    return q8_store_block(u32_rw(is_k ? uvec2(p.cache_k) : uvec2(p.cache_v)), to, x);
}

#ifdef PAIRS
void main() {
    const uint row = group_index(), half_head = HEAD_DIM / 4; // in VECs
    if (row >= p.rows)
        return;
    const uint angles = min(p.positions.v[row], p.n_positions - 1) * half_head;
    [[unroll]] for (uint first = 0; first < half_head; first += LOCAL_SIZE) {
        const vec4 t = f32x4_in(p.table).v[angles + first + LANE];
        const VEC c = t.xz, s = t.yw * p.sign;
        for (uint i = 0; i < p.n_heads; i++) {
            const uint head = min(i, p.n_heads - 1); // lavapipe runs a loop's uniform loads once more after its last pass
            const uint at = (row * p.n_heads + head) * 2 * half_head + first;
            const VEC a = lanes_load(p.x, at), b = lanes_load(p.x, at + half_head);
            lanes_store(p.x, at, a * c - b * s);
            lanes_store(p.x, at + half_head, b * c + a * s);
        }
    }
}
#else
void main() {
    uint group = group_index(), row = TO_CACHE != 0 ? group / 3 : group, part = TO_CACHE != 0 ? group % 3 : 0;
    if (row >= p.rows)
        return;
    if (part == 0) {
        uint base = row * p.n_heads * QUADS * 2;
        turn(row, p.x, base, p.x, base, p.n_heads, false);
    }
    if (TO_CACHE == 0 || part == 0)
        return;
    uint place = p.index.v[row], quads = p.n_kv_heads * QUADS * 2, base = row * quads, to = place * quads;
    if (place >= p.cache_rows)
        return;
    if (CACHE_TYPE == 3) { // two blocks at a time: their scales share a word
        const uint blocks = quads / 8, words = place * q8_row_words(4 * quads);
        for (uint pair = gl_LocalInvocationID.x; pair < (blocks + 1) / 2; pair += LOCAL_SIZE) {
            uint scales = store_block(row, part == 1, base + 16 * pair, words + 16 * pair);
            if (2 * pair + 1 < blocks)
                scales |= store_block(row, part == 1, base + 16 * pair + 8, words + 16 * pair + 8) << 16;
            u32_rw y = u32_rw(part == 1 ? uvec2(p.cache_k) : uvec2(p.cache_v)); // no choice between pointers: SwiftShader knows none
            y.v[words + quads + pair] = scales;
        }
    } else if (part == 1) {
        turn(row, p.k, base, p.cache_k, to, p.n_kv_heads, true);
    } else {
        for (uint q = gl_LocalInvocationID.x; q < quads; q += LOCAL_SIZE)
            store(p.cache_v, to + q, f32x4_in(p.v).v[base + q], true);
    }
}
#endif
