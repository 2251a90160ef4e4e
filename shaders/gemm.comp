#version 460
// Matrix multiply through shared memory, for GPUs: -DFORM=NT | NN | TN (see tile.glsl). A workgroup stages BK steps of the contraction for
// TILE_ROWS rows and TILE_COLS columns in two tables, whatever the storage type; the body
// multiplies them: plain arithmetic (tile_scalar.glsl) or matrix units (-DMATRIX=float16_t | bfloat16_t, tile_matrix.glsl). While it
// does, the next stage is already on its way to registers, which live no longer than that: what a loop carries round costs copies.
#define NT 0
#define NN 1
#define TN 2
#include "tile.glsl"

const uint BK = 32;
Tile t;
uint k_end; // of the contraction

// x of 16 bits, ready for the products: rows in the order of use, and zeros behind their end to a multiple of eight.
#if (defined(MATRIX) || defined(DOT2)) && FORM != TN
#define X_READY
#define XPiece uvec2
const uint X_BYTES = 2; // a number
#else
#define XPiece vec4
const uint X_BYTES = 4;
#endif
// Pieces that the threads fetch and the body puts in its tables: 4 values of x, 8 of w, neighbours in memory: steps of a row or column,
// or (x in TN, w in NN and TN) rows or columns of a step. Places are (row or column, step) of the first.
const uint X_PIECES = TILE_ROWS * BK / 4, W_PIECES = TILE_COLS * BK / 8;
const uint X_ALONG = FORM == TN ? TILE_ROWS / 4 : BK / 4, W_ALONG = FORM == NT ? BK / 8 : TILE_COLS / 8; // beside each other
const uint X_EACH = (X_PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE, W_EACH = (W_PIECES + LOCAL_SIZE - 1) / LOCAL_SIZE;
uvec2 x_place_of(uint piece) {
    return FORM == TN ? uvec2(piece % X_ALONG * 4, piece / X_ALONG) : uvec2(piece / X_ALONG, piece % X_ALONG * 4);
}
uvec2 w_place_of(uint piece) {
    return FORM == NT ? uvec2(piece / W_ALONG, piece % W_ALONG * 8) : uvec2(piece % W_ALONG * 8, piece / W_ALONG);
}
// Of a thread's i-th piece: a constant away from its first where that can be, so that one address serves all.
uvec2 x_place(uint i) {
    return LOCAL_SIZE % X_ALONG == 0 ? x_place_of(gl_LocalInvocationIndex) + x_place_of(i * LOCAL_SIZE)
                                     : x_place_of(gl_LocalInvocationIndex + i * LOCAL_SIZE);
}
uvec2 w_place(uint i) {
    return LOCAL_SIZE % W_ALONG == 0 ? w_place_of(gl_LocalInvocationIndex) + w_place_of(i * LOCAL_SIZE)
                                     : w_place_of(gl_LocalInvocationIndex + i * LOCAL_SIZE);
}
bool x_is_piece(uint i) { return X_PIECES % LOCAL_SIZE == 0 || gl_LocalInvocationIndex + i * LOCAL_SIZE < X_PIECES; }
bool w_is_piece(uint i) { return W_PIECES % LOCAL_SIZE == 0 || gl_LocalInvocationIndex + i * LOCAL_SIZE < W_PIECES; }

#if defined(MATRIX)
#include "tile_matrix.glsl"
#elif defined(DOT2)
#include "tile_dot2.glsl"
#else
#include "tile_scalar.glsl"
#endif

// NT and NN of a contraction of whole stages need no look at where it ends, and columns beyond the matrix, whose sums nobody stores, read the last ones: then
// a load has no condition, and what does not change from stage to stage is made here once.
const bool WHOLE = FORM != TN && ALIGNED == 2;
#ifdef X_READY
const bool X_IN_FOURS = true;
#else
const bool X_IN_FOURS = ALIGNED != 0; // rows of x are
#endif
// What pieces lie behind: NT's and NN's at the tile's rows of x, NT's of w, NN's at the expert's. TN, and NN of w, move on to the stage's rows. Where rows are
// gathered it is the operand itself.
uvec2 x_base, w_base;
uint x_first[X_EACH]; // NT and NN: of the piece in stage 0: in numbers, or in fours of them
uint w_row[W_EACH];   // where the row of w begins, in 16 bytes; of NN and TN that of stage 0

void operands_find() {
    const bool gathered = (p.flags & 2) != 0; // of NT and NN
    x_base = FORM == TN || gathered ? uvec2(p.x) : moved(uvec2(p.x), t.row0, p.ldx * X_BYTES);
    w_base = moved(uvec2(p.w), FORM == NT ? t.expert * p.n + t.col0 : FORM == NN ? t.expert * p.k : 0, p.w_row_bytes);
    [[unroll]] for (uint i = 0; FORM != TN && i < X_EACH; i++) {
        uvec2 at = x_place(i);
        x_first[i] = (tile_x_row(t, t.row0 + at.x) - (gathered ? 0 : t.row0)) * p.ldx + at.y;
        if (X_IN_FOURS)
            x_first[i] /= 4;
    }
    [[unroll]] for (uint i = 0; i < W_EACH; i++) {
        uvec2 at = w_place(i);
        w_row[i] = (FORM == NT ? min(at.x, p.n - 1 - t.col0) : at.y) * (p.w_row_bytes / 16);
    }
}

XPiece x_load(uint i, uint k0) {
    uvec2 at = x_place(i);
    uint k = k0 + at.y;
    if (!x_is_piece(i) || (!WHOLE && k >= k_end))
        return XPiece(0);
#ifdef X_READY
    return AT(u32x2_in, x_base, x_first[i] + k0 / 4, 8);
#else
    uvec2 base = x_base;
    uint first, left; // in x; how many of the four exist
    if (FORM == TN) {
        if (t.row0 + at.x >= p.n || !tile_counts_tn(k, t.expert))
            return vec4(0);
        first = (GATHER == 1 ? tile_row_tn(k, 1) : at.y) * p.ldx + t.row0 + at.x;
        left = p.n - t.row0 - at.x;
        if (GATHER != 1)
            base = moved(base, k0, p.ldx * X_BYTES);
        if (ALIGNED != 0)
            return AT(f32x4_in, base, first / 4, 16);
    } else {
        if (ALIGNED != 0)
            return AT(f32x4_in, base, x_first[i] + k0 / 4, 16);
        first = x_first[i] + k0;
        left = k_end - k;
    }
    vec4 v;
    [[unroll]] for (uint j = 0; j < 4; j++) v[j] = j < left ? f32_in(base).v[first + j] : 0;
    return v;
#endif
}

uint w_col(uint i) {
    uint col = t.col0 + w_place(i).x;
    return WHOLE ? min(col, p.n - (FORM == NT ? 1 : 8)) : col;
}
uint w_eighth(uint i) { return (FORM == NT ? w_place(i).y : w_col(i)) % W_UNIT / 8; }
// False: beyond the matrix, to be taken as zeros.
bool w_load(uint i, uint k0, out Unit u) {
    uint col = w_col(i), k = k0 + w_place(i).y, n_cols = FORM == TN ? p.k : p.n;
    if (!w_is_piece(i) || (!WHOLE && (k >= k_end || col >= n_cols)))
        return false;
    const bool gathered = FORM == TN && GATHER == 2;
    const uvec2 base = FORM == NT || gathered ? w_base : moved(w_base, k0, p.w_row_bytes);
    const uint row = gathered ? tile_row_tn(k, 2) * (p.w_row_bytes / 16) : w_row[i];
    // k0 is a whole number of units: what lanes do not share stays the same from stage to stage.
    uint unit = FORM == NT ? k0 / W_UNIT + (W_UNIT < BK ? w_place(i).y / W_UNIT : 0) : col / W_UNIT;
    eighth_load(u32x4_in(base), row, unit, w_eighth(i), (FORM == NT ? p.k : n_cols) / W_UNIT, u);
    return true;
}
XPiece x_next[X_EACH];
Unit w_next[W_EACH];
bool w_there[W_EACH];
void stage_load(uint k) {
    [[unroll]] for (uint i = 0; i < X_EACH; i++) x_next[i] = x_load(i, k);
    [[unroll]] for (uint i = 0; i < W_EACH; i++) w_there[i] = w_load(i, k, w_next[i]);
}
void stage_put() {
    [[unroll]] for (uint i = 0; i < X_EACH; i++)
        if (x_is_piece(i))
            body_put_x(i, x_next[i]);
    [[unroll]] for (uint i = 0; i < W_EACH; i++)
        if (w_is_piece(i))
            body_put_w(i, w_there[i], w_next[i], w_eighth(i));
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
    }
    operands_find();
    body_begin();
    if (k < k_end) {
        stage_load(k);
        stage_put();
        for (;;) {
            barrier();
            k += BK;
            stage_load(WHOLE ? min(k, k_end - BK) : k); // behind the last stage that one again
            body_multiply();
            if (k >= k_end)
                break;
            barrier();
            stage_put();
        }
    }
    body_end();
}
