// A stable counting sort of the slots (token, k) by expert, in three phases over parts of the slots, without shared counters or atomics: the
// rank of a slot among those of its part on the same expert is counted by looking at all before it, so every run gives the same bits.
//   0 count: counts[part, e] = slots of the part on expert e                    (a lane is an expert)
//   1 scan: counts become first rows within e; offsets, tiles, grid             (one workgroup)
//   2 place: gather, slot_row, row_expert                                       (a lane is a slot)
// Few tokens need none of this (route.comp).
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "count_equal.glsl"

layout(constant_id = 2) const uint PHASE = 0;
layout(constant_id = 3) const uint EXPERTS = 1; // n_experts again, for the shared array

shared uint totals[EXPERTS];

void count() {
    uint blocks = (EXPERTS + LOCAL_SIZE - 1) / LOCAL_SIZE, part = group_index() / blocks;
    uint expert = (group_index() - part * blocks) * LOCAL_SIZE + gl_LocalInvocationID.x;
    uint begin = part * p.part_slots, end = min(begin + p.part_slots, p.rows * p.n_active);
    if (begin >= end)
        return;
    uint found = count_equal(begin, end, expert);
    if (expert < EXPERTS)
        p.counts.v[part * EXPERTS + expert] = found;
}

void place() {
    uint blocks = (p.part_slots + LOCAL_SIZE - 1) / LOCAL_SIZE, part = group_index() / blocks, lane = gl_LocalInvocationID.x;
    uint begin = part * p.part_slots, end = min(begin + p.part_slots, p.rows * p.n_active);
    uint block = begin + (group_index() - part * blocks) * LOCAL_SIZE, block_end = min(block + LOCAL_SIZE, end);
    if (block >= block_end)
        return;
    uint slot = block + lane, expert = min(p.experts.v[min(slot, end - 1)], EXPERTS - 1);
    uint rank = count_equal(begin, block, expert);
    for (uint s = block; s < block_end; s++)
        rank += s < slot && p.experts.v[s] == expert ? 1 : 0;
    if (slot < block_end) {
        uint row = p.offsets.v[expert] + p.counts.v[part * EXPERTS + expert] + rank;
        p.gather.v[row] = slot / p.n_active;
        p.slot_row.v[slot] = row;
        p.row_expert.v[row] = expert;
    }
}

void scan() {
    uint lane = gl_LocalInvocationID.x;
    for (uint e = lane; e < EXPERTS; e += LOCAL_SIZE) {
        uint row = 0, part = 0;
        for (; part + 8 <= p.n_parts; part += 8) { // eight loads in flight
            uint count[8];
            [[unroll]] for (uint i = 0; i < 8; i++)
                count[i] = p.counts.v[(part + i) * EXPERTS + e];
            [[unroll]] for (uint i = 0; i < 8; i++) {
                p.counts.v[(part + i) * EXPERTS + e] = row;
                row += count[i];
            }
        }
        for (; part < p.n_parts; part++) {
            uint count = p.counts.v[part * EXPERTS + e];
            p.counts.v[part * EXPERTS + e] = row;
            row += count;
        }
        totals[e] = row;
    }
    barrier();
    for (uint e = lane; e < EXPERTS; e += LOCAL_SIZE) {
        uint first = 0, tile = 0;
        for (uint before = 0; before < e; before++) {
            first += totals[before];
            tile += (totals[before] + p.tile_rows - 1) / p.tile_rows;
        }
        p.offsets.v[e] = first;
        for (uint done = 0; done < totals[e]; done += p.tile_rows, tile++)
            if (tile < p.max_tiles)
                p.tiles.v[tile] = uvec4(e, first + done, min(p.tile_rows, totals[e] - done), 0);
        if (e == EXPERTS - 1) {
            p.offsets.v[EXPERTS] = first + totals[e];
            p.grid.v[0] = min(tile, p.max_tiles);
            for (uint i = 1; i < 4; i++)
                p.grid.v[i] = 0;
        }
    }
}

void main() {
    if (PHASE == 1)
        scan();
    else if (PHASE == 0)
        count();
    else
        place();
}
