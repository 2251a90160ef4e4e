#version 460
// y(m,n) = x(m,k) w(k,n) on a CPU: as gemm_cpu_nt.comp, but rows of w are the contraction: a lane reads narrow pieces of each row
// (WORD_COLS columns), eight rows of w a step.
#include "tile.glsl"
#extension GL_KHR_shader_subgroup_basic : require

layout(constant_id = 7) const uint CHOOSE_LANES = 0; // 8 lanes: see unit_load_lanes

const uint PIECES = TILE_COLS / SUBGROUP_SIZE / WORD_COLS, COLS = PIECES * WORD_COLS;
const uint BLOCK = COLS < 8 ? 8 / COLS : 1; // rows whose eight sums the processor's registers hold at a time
struct XUnit {
    vec4 v[2];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XUnits { XUnit v[]; };

void main() {
    Tile t;
    if (!tile_find(t))
        return;
    uint first_part = gl_WorkGroupID.y * SUBGROUP_SIZE * PIECES, last_part = p.n / WORD_COLS - 1;
    uint units = p.n / W_UNIT, row_vectors = p.w_row_bytes / 16;
    uint x_row[TILE_ROWS];
    float sum[TILE_ROWS][COLS];
    [[unroll]] for (uint i = 0; i < TILE_ROWS; i++) {
        x_row[i] = tile_x_row(t, t.row0 + i) * (ALIGNED != 0 ? p.ldx / 8 : p.ldx);
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = 0;
    }

    XUnits x = XUnits(uvec2(p.x));
    for (uint k = 0; k < p.k; k += 8) {
        float w[8][COLS];
        // Bounded also where k is a multiple of 8: lavapipe runs the loop's uniform loads once more after its last pass.
        [[unroll]] for (uint j = 0; j < 8; j++) {
            uint row = (t.expert * p.k + min(k + j, p.k - 1)) * row_vectors;
            [[unroll]] for (uint q = 0; q < PIECES; q++) {
                float v[WORD_COLS];
                uint first = first_part + q * SUBGROUP_SIZE;
                if (CHOOSE_LANES != 0)
                    word_load_lanes(p.w, row, first, units, gl_SubgroupInvocationID, v);
                else
                    word_load(p.w, row, min(first + gl_LocalInvocationIndex, last_part), units, v);
                [[unroll]] for (uint c = 0; c < WORD_COLS; c++) w[j][q * WORD_COLS + c] = v[c];
            }
        }
        [[unroll]] for (uint i = 0; i < TILE_ROWS; i += BLOCK)
            [[unroll]] for (uint g = 0; g < 2; g++) {
                vec4 xv[BLOCK];
                [[unroll]] for (uint r = 0; r < BLOCK; r++) {
                    if (ALIGNED != 0)
                        xv[r] = x.v[x_row[i + r] + k / 8].v[g];
                    else
                        [[unroll]] for (uint j = 0; j < 4; j++) {
                            uint at = k + 4 * g + j;
                            float value = p.x.v[x_row[i + r] + min(at, p.k - 1)];
                            xv[r][j] = at < p.k ? value : 0;
                        }
                }
                [[unroll]] for (uint j = 0; j < 4; j++)
                    [[unroll]] for (uint r = 0; r < BLOCK; r++)
                        [[unroll]] for (uint c = 0; c < COLS; c++)
                            sum[i + r][c] = fma(xv[r][j], w[4 * g + j][c], sum[i + r][c]);
            }
    }
    [[unroll]] for (uint q = 0; q < PIECES; q++) {
        uint part = first_part + q * SUBGROUP_SIZE + gl_LocalInvocationIndex;
        if (CHOOSE_LANES != 0 || part <= last_part)
            [[unroll]] for (uint c = 0; c < WORD_COLS; c++) {
                uint col = CHOOSE_LANES != 0 ? word_column_lanes(part, c) : word_column(part, c);
                [[unroll]] for (uint i = 0; i < TILE_ROWS; i++)
                    tile_store(t, t.row0 + i, col, sum[i][q * WORD_COLS + c]);
            }
    }
}
