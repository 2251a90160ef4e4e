#version 460
// y(m,n) = x(m,k) w(n,k)^T on a CPU: a workgroup is one subgroup, a lane makes COLS columns (8 lanes apart) of TILE_ROWS rows, all
// sums in registers. Weights come in wide loads, one row per lane; x lies at an address that is the same for all lanes, which costs one
// broadcast per value. The innermost block of 4 rows x COLS columns keeps loads below multiplies. No shared memory, no barrier.
#include "tile.glsl"
#extension GL_KHR_shader_subgroup_basic : require

layout(constant_id = 7) const uint CHOOSE_LANES = 0; // 8 lanes: see unit_load_lanes

const uint COLS = TILE_COLS / SUBGROUP_SIZE;
const uint G = W_UNIT / 8;
struct XUnit {
    vec4 v[2 * G];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XUnits { XUnit v[]; };

void main() {
    Tile t;
    if (!tile_find(t))
        return;
    uint col0 = t.col0 + gl_LocalInvocationIndex, units = p.k / W_UNIT;
    uint x_row[TILE_ROWS], w_row[COLS];
    float sum[TILE_ROWS][COLS];
    [[unroll]] for (uint i = 0; i < TILE_ROWS; i++) {
        x_row[i] = tile_x_row(t, t.row0 + i) * (p.ldx / W_UNIT);
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = 0;
    }
    [[unroll]] for (uint c = 0; c < COLS; c++)
        w_row[c] = (t.expert * p.n + min(col0 + SUBGROUP_SIZE * c, p.n - 1)) * (p.w_row_bytes / 16);

    XUnits x = XUnits(uvec2(p.x));
    for (uint u = 0; u < units; u++) {
        vec4 w[COLS][2 * G];
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            Unit raw;
            if (CHOOSE_LANES != 0) {
                uint rows[8];
                [[unroll]] for (uint i = 0; i < 8; i++)
                    rows[i] = (t.expert * p.n + min(t.col0 + 8 * c + i, p.n - 1)) * (p.w_row_bytes / 16);
                unit_load_lanes(p.w, rows, u, units, gl_SubgroupInvocationID, raw);
            } else
                unit_load(p.w, w_row[c], u, units, raw);
            [[unroll]] for (uint g = 0; g < G; g++) unit_get8(raw, g, w[c][2 * g], w[c][2 * g + 1]);
        }
        [[unroll]] for (uint i = 0; i < TILE_ROWS; i += 4)
            [[unroll]] for (uint g = 0; g < 2 * G; g++) {
                vec4 xv[4];
                [[unroll]] for (uint r = 0; r < 4; r++) xv[r] = x.v[x_row[i + r] + u].v[g];
                [[unroll]] for (uint j = 0; j < 4; j++)
                    [[unroll]] for (uint r = 0; r < 4; r++)
                        [[unroll]] for (uint c = 0; c < COLS; c++)
                            sum[i + r][c] = fma(xv[r][j], w[c][g][j], sum[i + r][c]);
            }
    }
    [[unroll]] for (uint i = 0; i < TILE_ROWS; i++)
        [[unroll]] for (uint c = 0; c < COLS; c++) tile_store(t, t.row0 + i, col0 + SUBGROUP_SIZE * c, sum[i][c]);
}
