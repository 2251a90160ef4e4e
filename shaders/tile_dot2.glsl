// The body of gemm.comp on pairs of f16 in plain arithmetic, for cards without matrix units that multiply two pairs and add both products to an f32 in one instruction
// (VK_VALVE_shader_mixed_float_dot_product; RDNA2). Operands are those of f16 matrix units (tile_half.glsl), threads those of tile_scalar.glsl. The tables hold
// pairs of steps; a thread reads four of them, 16 bytes, at a time, and their rows are padded so that neighbours fall into different banks.
#include "tile_half.glsl"
#include "dot2.glsl"

const uint PAIRS = BK / 2, STRIDE = PAIRS + 4, AHEAD = 4, THREAD_ROWS = LOCAL_SIZE / 16;
const uint ROWS = TILE_ROWS / THREAD_ROWS, COLS = TILE_COLS / 16;
shared f16vec2 x_stage[TILE_ROWS * STRIDE];
shared f16vec2 w_stage[TILE_COLS * STRIDE];
float sum[ROWS][COLS];

void body_begin() {
    scales_begin();
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = 0;
}
// Pieces of one step (x in TN, w in NN and TN) go into the halves of neighbours' pairs.
void body_put_x(uint i, XPiece v) {
    const uvec2 at = x_place(i), words = x_pairs(i, v);
    [[unroll]] for (uint j = 0; j < 2; j++) {
        const f16vec2 two = unpackFloat2x16(words[j]);
        if (FORM == TN) {
            x_stage[(at.x + 2 * j) * STRIDE + at.y / 2][at.y % 2] = two.x;
            x_stage[(at.x + 2 * j + 1) * STRIDE + at.y / 2][at.y % 2] = two.y;
        } else
            x_stage[at.x * STRIDE + at.y / 2 + j] = two;
    }
}
void body_put_w(uint i, bool there, Unit u, uint eighth) {
    const uvec2 at = w_place(i);
    const uvec4 words = w_pairs(i, there, u, eighth);
    [[unroll]] for (uint j = 0; j < 4; j++) {
        const f16vec2 two = unpackFloat2x16(words[j]);
        if (FORM == NT)
            w_stage[at.x * STRIDE + at.y / 2 + j] = two;
        else {
            w_stage[(at.x + 2 * j) * STRIDE + at.y / 2][at.y % 2] = two.x;
            w_stage[(at.x + 2 * j + 1) * STRIDE + at.y / 2][at.y % 2] = two.y;
        }
    }
}

void body_multiply() {
    const uint across = gl_LocalInvocationIndex % 16, down = gl_LocalInvocationIndex / 16;
    for (uint pair = 0; pair < PAIRS; pair += AHEAD) {
        f16vec2 a[ROWS][AHEAD], b[COLS][AHEAD];
        [[unroll]] for (uint i = 0; i < ROWS; i++)
            [[unroll]] for (uint j = 0; j < AHEAD; j++) a[i][j] = x_stage[(down + i * THREAD_ROWS) * STRIDE + pair + j];
        [[unroll]] for (uint c = 0; c < COLS; c++)
            [[unroll]] for (uint j = 0; j < AHEAD; j++) b[c][j] = w_stage[(across + c * 16) * STRIDE + pair + j];
        [[unroll]] for (uint j = 0; j < AHEAD; j++)
            [[unroll]] for (uint i = 0; i < ROWS; i++)
                [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = dot2_add(a[i][j], b[c][j], sum[i][c]);
    }
}

void body_end() {
    const uint across = gl_LocalInvocationIndex % 16, down = gl_LocalInvocationIndex / 16;
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            const uint row = down + i * THREAD_ROWS, col = across + c * 16;
            const float value = unscaled(sum[i][c], row, col);
            if (FORM == TN)
                tile_store_tn(t.expert, t.row0 + row, t.col0 + col, value);
            else
                tile_store(t, t.row0 + row, t.col0 + col, value);
        }
}
