// What every matrix multiply shares: which piece of the output a workgroup makes, where its rows lie in memory, and the store. The
// bodies (gemm_cpu_*.comp: registers only; gemm.comp: shared memory, with matrix units or without; gemm_packed.comp and gemm_cm2.comp: both operands ready) differ in how they multiply.
//   NT: y(m,n) = x(m,k) w(n,k)^T    NN: y(m,n) = x(m,k) w(k,n)    TN: y(n,k) = x(m,n)^T w(m,k)
// Grouped by expert, rows of x and y in NT and NN come from the tile list (expert, first row, rows, 0), whose upper bound is the
// grid: workgroups beyond the count leave at once. TN has a layer of the grid per expert, and contracts over its rows.
#ifndef VKMOE_TILE_GLSL
#define VKMOE_TILE_GLSL
#include "types.glsl"
#include "formats.glsl"

layout(constant_id = 2) const uint TILE_ROWS = 32; // of the output; no more than this in a tile of the list
layout(constant_id = 3) const uint TILE_COLS = 16;
// Of TN alone, whose innermost loop they concern; NT and NN ask p.flags once a tile, which saves pipelines.
layout(constant_id = 4) const uint GROUPED = 0; // 1: p.offsets; 2: p.offsets holds the expert of every row (few tokens, not sorted)
layout(constant_id = 5) const uint GATHER = 0;  // 1: x has a row per token, read through p.gather; 2: w has
layout(constant_id = 6) const uint ALIGNED = 1; // 0: rows of x are not a multiple of 8 floats; 2 (gemm.comp): and the contraction is one of 32

struct Tile {
    uint expert, row0, row_end, col0; // rows row0 .. row_end - 1 of x and y; col0: first column of the output
};

// NT and NN: grid (row tiles, column tiles). False: nothing to do.
bool tile_find(out Tile t) {
    t.expert = 0;
    t.row0 = gl_WorkGroupID.x * TILE_ROWS;
    t.row_end = min(t.row0 + TILE_ROWS, p.m);
    t.col0 = gl_WorkGroupID.y * TILE_COLS;
    if ((p.flags & 1) == 0)
        return true;
    uint count = p.grid.v[0];
    if (gl_WorkGroupID.x >= count)
        return false;
    uvec4 entry = p.tiles.v[min(gl_WorkGroupID.x, max(count, 1) - 1)];
    t.expert = entry.x;
    t.row0 = entry.y;
    t.row_end = entry.y + entry.z;
    return true;
}

// Row of x that holds row `row` of the product; rows past the end read the last one (their results are not stored).
uint tile_x_row(Tile t, uint row) {
    uint at = min(row, t.row_end - 1);
    return (p.flags & 2) != 0 ? p.gather.v[at] : at;
}

void tile_store(Tile t, uint row, uint col, float sum) {
    if (row >= t.row_end || col >= p.n)
        return;
    uint at = row * p.ldy + col;
    float value = sum * p.alpha;
    p.y.v[at] = p.accumulate != 0 ? p.y.v[at] + value : value;
}

// TN: grid (row tiles, column tiles, experts) of y(n,k); the rows to contract over.
void tile_find_tn(out uint expert, out uint first, out uint end) {
    expert = gl_WorkGroupID.z;
    first = GROUPED == 1 ? p.offsets.v[expert] : 0;
    end = GROUPED == 1 ? p.offsets.v[expert + 1] : p.m;
}
bool tile_counts_tn(uint row, uint expert) { return GROUPED != 2 || p.offsets.v[min(row, p.m - 1)] == expert; }
// Bounded, because lavapipe runs a loop's uniform loads once more after its last pass, with all lanes off.
uint tile_row_tn(uint row, uint operand) {
    uint at = min(row, p.m - 1);
    return GATHER == operand ? p.gather.v[at] : at;
}

void tile_store_tn(uint expert, uint row, uint col, float sum) {
    if (row >= p.n || col >= p.k)
        return;
    uint at = (expert * p.n + row) * p.ldy + col;
    float value = sum * p.alpha;
    p.y.v[at] = p.accumulate != 0 ? p.y.v[at] + value : value;
}
#endif
