// The body of gemm.comp in plain arithmetic: 16 threads across, a thread makes every 16th column and every (LOCAL_SIZE / 16)th row, and
// reads four steps at a time. The tables hold steps side by side; their rows are padded by four so that neighbours fall into different banks.
const uint STRIDE = BK + 4, THREAD_ROWS = LOCAL_SIZE / 16;
const uint ROWS = TILE_ROWS / THREAD_ROWS, COLS = TILE_COLS / 16;
shared float x_stage[TILE_ROWS * STRIDE];
shared float w_stage[TILE_COLS * STRIDE];
float sum[ROWS][COLS];

void body_begin() {
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = 0;
}
void body_put_x(uint i, XPiece v) {
    uvec2 at = x_place(i);
    [[unroll]] for (uint j = 0; j < 4; j++) x_stage[FORM == TN ? (at.x + j) * STRIDE + at.y : at.x * STRIDE + at.y + j] = v[j];
}
void body_put_w(uint i, bool there, Unit u, uint eighth) {
    uvec2 at = w_place(i);
    vec4 a = vec4(0), b = vec4(0);
    if (there)
        eighth_get(u, eighth, 1, a, b);
    [[unroll]] for (uint j = 0; j < 8; j++)
        w_stage[FORM == NT ? at.x * STRIDE + at.y + j : (at.x + j) * STRIDE + at.y] = j < 4 ? a[j] : b[j - 4];
}

void body_multiply() {
    uint across = gl_LocalInvocationIndex % 16, down = gl_LocalInvocationIndex / 16;
    for (uint step = 0; step < BK; step += 4) {
        vec4 a[ROWS], b[COLS];
        [[unroll]] for (uint i = 0; i < ROWS; i++)
            [[unroll]] for (uint j = 0; j < 4; j++) a[i][j] = x_stage[(down + i * THREAD_ROWS) * STRIDE + step + j];
        [[unroll]] for (uint c = 0; c < COLS; c++)
            [[unroll]] for (uint j = 0; j < 4; j++) b[c][j] = w_stage[(across + c * 16) * STRIDE + step + j];
        [[unroll]] for (uint j = 0; j < 4; j++)
            [[unroll]] for (uint i = 0; i < ROWS; i++)
                [[unroll]] for (uint c = 0; c < COLS; c++) sum[i][c] = fma(a[i][j], b[c][j], sum[i][c]);
    }
}

void body_end() {
    uint across = gl_LocalInvocationIndex % 16, down = gl_LocalInvocationIndex / 16;
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            uint row = t.row0 + down + i * THREAD_ROWS, col = t.col0 + across + c * 16;
            if (FORM == TN)
                tile_store_tn(t.expert, row, col, sum[i][c]);
            else
                tile_store(t, row, col, sum[i][c]);
        }
}
