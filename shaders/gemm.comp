#version 460
// Matrix multiply through shared memory, for GPUs: -DFORM=NT | NN | TN (see tile.glsl). A workgroup stages BK steps of the contraction for
// TILE_ROWS rows and TILE_COLS columns in two tables, whatever the storage type; the body
// multiplies them: plain arithmetic (tile_scalar.glsl) or matrix units (-DMATRIX=float16_t | bfloat16_t, tile_matrix.glsl). While it
// does, the next stage is already on its way to registers.
#define NT 0
#define NN 1
#define TN 2
#include "tile.glsl"

const uint BK = 32;
Tile t;
uint k_end; // of the contraction

#ifdef MATRIX
#include "tile_matrix.glsl"
#else
#include "tile_scalar.glsl"
#endif

// Pieces that the threads fetch and the body puts in its tables: 4 values of x, 8 of w, neighbours in memory: steps of a row or column,
// or (x in TN, w in NN and TN) rows or columns of a step. Places are (row or column, step) of the first.
const uint X_PIECES = TILE_ROWS * BK / 4, W_PIECES = TILE_COLS * BK / 8;
const uint X_EACH = (X_PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE, W_EACH = (W_PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE;
shared uint x_rows[TILE_ROWS]; // where each row of x begins

// Which rows of the tile and steps of the stage a piece of x covers: NT and NN four steps of one row, TN four rows of one step.
uvec2 x_place(uint piece) {
    return FORM == TN ? uvec2(piece % (TILE_ROWS / 4) * 4, piece / (TILE_ROWS / 4)) : uvec2(piece / (BK / 4), piece % (BK / 4) * 4);
}
uvec2 w_place(uint piece) {
    return FORM == NT ? uvec2(piece / (BK / 8), piece % (BK / 8) * 8)
                      : uvec2(piece % (TILE_COLS / 8) * 8, piece / (TILE_COLS / 8));
}

vec4 x_load(uint piece, uint k0) {
    uvec2 at = x_place(piece);
    uint k = k0 + at.y;
    if (piece >= X_PIECES || k >= k_end)
        return vec4(0);
    uint first, left; // in x; how many of the four exist
    if (FORM == TN) {
        if (t.row0 + at.x >= p.n || !tile_counts_tn(k, t.expert))
            return vec4(0);
        first = tile_row_tn(k, 1) * p.ldx + t.row0 + at.x;
        left = p.n - t.row0 - at.x;
    } else {
        first = x_rows[at.x] + k;
        left = k_end - k;
    }
    if (ALIGNED != 0)
        return f32x4_in(p.x).v[first / 4];
    vec4 v;
    [[unroll]] for (uint i = 0; i < 4; i++) v[i] = i < left ? p.x.v[first + i] : 0;
    return v;
}

// False: beyond the matrix, to be taken as zeros.
bool w_load(uint piece, uint k0, out Unit u) {
    uvec2 at = w_place(piece);
    uint col = t.col0 + at.x, k = k0 + at.y, row, along, width, n_cols = FORM == TN ? p.k : p.n;
    if (piece >= W_PIECES || k >= k_end || col >= n_cols)
        return false;
    if (FORM == NT) {
        row = t.expert * p.n + col;
        along = k;
        width = p.k;
    } else {
        row = FORM == NN ? t.expert * p.k + k : tile_row_tn(k, 2);
        along = col;
        width = n_cols;
    }
    unit_load(p.w, row * (p.w_row_bytes / 16), along / W_UNIT, width / W_UNIT, u);
    return true;
}
uint w_eighth(uint piece) {
    uvec2 at = w_place(piece);
    return (FORM == NT ? at.y : t.col0 + at.x) % W_UNIT / 8;
}

void main() {
    uint k = 0;
    if (FORM == TN) {
        tile_find_tn(t.expert, k, k_end);
        t.row0 = gl_WorkGroupID.x * TILE_ROWS;
        t.row_end = p.n;
        t.col0 = gl_WorkGroupID.y * TILE_COLS;
    } else {
        if (!tile_find(t))
            return;
        k_end = p.k;
        for (uint i = gl_LocalInvocationIndex; i < TILE_ROWS; i += LOCAL_SIZE) x_rows[i] = tile_x_row(t, t.row0 + i) * p.ldx;
        barrier();
    }
    body_begin();
    if (BODY_SCALES) // a first walk over the operands finds the greatest number of each row and column
        for (uint k0 = k; k0 < k_end; k0 += BK) {
            for (uint i = gl_LocalInvocationIndex; i < X_PIECES; i += LOCAL_SIZE) body_see_x(x_place(i).x, x_load(i, k0));
            for (uint i = gl_LocalInvocationIndex; i < W_PIECES; i += LOCAL_SIZE) {
                Unit u;
                vec4 a = vec4(0), b = vec4(0);
                if (w_load(i, k0, u))
                    unit_get8(u, w_eighth(i), a, b);
                body_see_w(w_place(i).x, a, b);
            }
        }
    body_seen();

    vec4 x_next[X_EACH];
    Unit w_next[W_EACH];
    bool w_there[W_EACH];
    [[unroll]] for (uint i = 0; i < X_EACH; i++) x_next[i] = x_load(gl_LocalInvocationIndex + i * LOCAL_SIZE, k);
    [[unroll]] for (uint i = 0; i < W_EACH; i++)
        w_there[i] = w_load(gl_LocalInvocationIndex + i * LOCAL_SIZE, k, w_next[i]);
    for (; k < k_end; k += BK) {
        [[unroll]] for (uint i = 0; i < X_EACH; i++) {
            uint piece = gl_LocalInvocationIndex + i * LOCAL_SIZE;
            if (piece < X_PIECES)
                body_put_x(x_place(piece), x_next[i]);
        }
        [[unroll]] for (uint i = 0; i < W_EACH; i++) {
            uint piece = gl_LocalInvocationIndex + i * LOCAL_SIZE;
            if (piece < W_PIECES)
                body_put_w(w_place(piece), w_there[i], w_next[i], w_eighth(piece));
        }
        barrier();
        [[unroll]] for (uint i = 0; i < X_EACH; i++) x_next[i] = x_load(gl_LocalInvocationIndex + i * LOCAL_SIZE, k + BK);
        [[unroll]] for (uint i = 0; i < W_EACH; i++)
            w_there[i] = w_load(gl_LocalInvocationIndex + i * LOCAL_SIZE, k + BK, w_next[i]);
        body_multiply();
        barrier();
    }
    body_end();
}
