#version 460
// y(n,k) = x(m,n)^T w(m,k) on a CPU, contraction over rows, both f32: lanes along k, in pieces of two columns; the TILE_ROWS values of a row
// of x lie side by side at an address that is the same for all lanes. Eight rows a step, the rest one by one.
#include "tile.glsl"
#extension GL_KHR_shader_subgroup_basic : require

layout(constant_id = 7) const uint CHOOSE_LANES = 0; // 8 lanes: see unit_load_lanes
layout(constant_id = 8) const uint COLS_FIRST = 0;   // neighbouring workgroups share rows of y, and so the slice of x; else columns

struct XPart {
    vec4 v[4];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XParts { XPart v[]; };
const uint PIECES = TILE_COLS / SUBGROUP_SIZE / 2, COLS = 2 * PIECES;
const uint BLOCK = 8 / COLS; // rows whose eight sums the processor's registers hold at a time
float sum[TILE_ROWS][COLS];

// Adds rows row .. row + N - 1.
#define ADD_ROWS(N)                                                                                                    \
    float w[N][COLS];                                                                                                  \
    uint x_at[N];                                                                                                      \
    [[unroll]] for (uint j = 0; j < N; j++) {                                                                          \
        uint w_row = tile_row_tn(row + j, 2) * (p.w_row_bytes / 16);                                                   \
        [[unroll]] for (uint q = 0; q < PIECES; q++) {                                                                 \
            float v[2];                                                                                                \
            uint first = first_part + q * SUBGROUP_SIZE;                                                               \
            if (CHOOSE_LANES != 0)                                                                                     \
                word_load_lanes(p.w, w_row, first, 0, gl_SubgroupInvocationID, v);                                     \
            else                                                                                                       \
                word_load(p.w, w_row, min(first + gl_LocalInvocationIndex, last_part), 0, v);                          \
            w[j][2 * q] = v[0];                                                                                        \
            w[j][2 * q + 1] = v[1];                                                                                    \
        }                                                                                                              \
        x_at[j] = tile_row_tn(row + j, 1) * p.ldx + row0;                                                              \
    }                                                                                                                  \
    [[unroll]] for (uint i = 0; i < TILE_ROWS; i += BLOCK)                                                             \
        [[unroll]] for (uint j = 0; j < N; j++)                                                                        \
            [[unroll]] for (uint r = 0; r < BLOCK; r++) {                                                              \
                uint at = i + r;                                                                                       \
                float xv = ALIGNED != 0 ? XParts(uvec2(p.x)).v[x_at[j] / 16 + at / 16].v[at / 4 % 4][at % 4]                  \
                                        : p.x.v[x_at[j] - row0 + min(row0 + at, p.n - 1)];                             \
                [[unroll]] for (uint c = 0; c < COLS; c++) sum[at][c] = fma(xv, w[j][c], sum[at][c]);                  \
            }

void main() {
    uint expert, row, end;
    tile_find_tn(expert, row, end);
    const uvec2 group = COLS_FIRST != 0 ? gl_WorkGroupID.yx : gl_WorkGroupID.xy;
    uint row0 = group.x * TILE_ROWS, first_part = group.y * SUBGROUP_SIZE * PIECES;
    uint last_part = p.k / 2 - 1;
    [[unroll]] for (uint i = 0; i < TILE_ROWS; i++)
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = 0;
    if (GROUPED != 2)
        for (; row + 8 <= end; row += 8) {
            ADD_ROWS(8)
        }
    for (; row < end; row++)
        if (tile_counts_tn(row, expert)) {
            ADD_ROWS(1)
        }
    [[unroll]] for (uint q = 0; q < PIECES; q++) {
        uint part = first_part + q * SUBGROUP_SIZE + gl_LocalInvocationIndex;
        if (CHOOSE_LANES != 0 || part <= last_part)
            [[unroll]] for (uint c = 0; c < 2; c++) {
                uint col = CHOOSE_LANES != 0 ? word_column_lanes(part, c) : word_column(part, c);
                [[unroll]] for (uint i = 0; i < TILE_ROWS; i++) tile_store_tn(expert, row0 + i, col, sum[i][2 * q + c]);
            }
    }
}
