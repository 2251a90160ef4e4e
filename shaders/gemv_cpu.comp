#version 460
// y(m,n) = alpha * x(m,k) w(n,k)^T (+ y) for few rows, in all forms of gemv.comp, on a CPU of eight lanes whose compiler makes one load of
// eight at neighbouring addresses (eight.glsl). Lanes run along k. A set is COLS columns that lie as far from each other as n lets
// them, so that each has pages of its own and the processor fetches ahead for all of them; a workgroup goes through SETS neighbouring sets.
// Grid: (sets / SETS, m / ROWS). A row's sum is made in the same order whatever m is.
#include "types.glsl"
#include "eight.glsl"
#extension GL_KHR_shader_subgroup_arithmetic : require

layout(constant_id = 2) const uint ROWS = 1;
layout(constant_id = 3) const uint COLS = 8;
layout(constant_id = 4) const uint GROUPED = 0;
layout(constant_id = 5) const uint SWIGLU = 0;
layout(constant_id = 6) const uint SETS = 1;
layout(constant_id = 7) const uint NORM = 0;
layout(constant_id = 8) const uint MATRICES = 1;
layout(constant_id = 9) const uint SHARED = 0;
layout(constant_id = 10) const uint SLOTS = 0;

float sum[ROWS][COLS], sum2[ROWS][COLS], squares[ROWS];

uvec2 advance(uvec2 address, uint rows, uint row_bytes) {
    uint high, low, carry;
    umulExtended(rows, row_bytes, high, low);
    low = uaddCarry(address.x, low, carry);
    return uvec2(low, address.y + high + carry);
}

// N vectors of eight elements of each row of x, at `at` in such pieces, with the norm's weights.
#define LOAD_X(N, x, at, v)                                                                                            \
    [[unroll]] for (uint r = 0; r < ROWS; r++) {                                                                       \
        lanes_load_f32_##N(x[r], at, v[r]);                                                                            \
        if (NORM != 0) {                                                                                               \
            float g[N];                                                                                                \
            if (NORM == 1)                                                                                             \
                lanes_load_f32_##N(uvec2(p.norm), at, g);                                                              \
            else if (NORM == 2)                                                                                        \
                lanes_load_f16_##N(uvec2(p.norm), at, g);                                                              \
            else                                                                                                       \
                lanes_load_bf16_##N(uvec2(p.norm), at, g);                                                             \
            [[unroll]] for (uint j = 0; j < N; j++) {                                                                  \
                squares[r] = fma(v[r][j], v[r][j], squares[r]);                                                        \
                v[r][j] *= g[j];                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }

#ifndef QUANTS
#define ADD(N, to, w, at, v)                                                                                           \
    [[unroll]] for (uint c = 0; c < COLS; c++) {                                                                       \
        float e[N];                                                                                                    \
        PASTE(PASTE(lanes_load_, W), _##N)(w[c], at, e);                                                               \
        [[unroll]] for (uint j = 0; j < N; j++)                                                                        \
            [[unroll]] for (uint r = 0; r < ROWS; r++) to[r][c] = fma(v[r][j], e[j], to[r][c]);                        \
    }
#else
// factor * (the sum of x times quants) + offset * (the sum of x), of each half where these have scales of their own.
#define ADD(N, to, w, at, v)                                                                                           \
    [[unroll]] for (uint c = 0; c < COLS; c++)                                                                         \
        [[unroll]] for (uint h = 0; h < N / 4; h++) {                                                                  \
            float q[4];                                                                                                \
            Unit scales;                                                                                               \
            lanes_load(w[c], N / 4 * at + h, units, q, scales);                                                        \
            const vec2 s = lanes_scale(scales, false), t = lanes_scale(scales, true);                                  \
            [[unroll]] for (uint r = 0; r < ROWS; r++) {                                                               \
                float low = fma(v[r][4 * h + 1], q[1], v[r][4 * h] * q[0]), high = v[r][4 * h + 2] * q[2];             \
                float x_low = v[r][4 * h] + v[r][4 * h + 1], x_high = v[r][4 * h + 2] + v[r][4 * h + 3];               \
                if (!W_HALVES) {                                                                                       \
                    high += low;                                                                                       \
                    x_high += x_low;                                                                                   \
                }                                                                                                      \
                high = fma(v[r][4 * h + 3], q[3], high);                                                               \
                if (LANES_OFFSET != 0) {                                                                               \
                    low += LANES_OFFSET * x_low;                                                                       \
                    high += LANES_OFFSET * x_high;                                                                     \
                }                                                                                                      \
                if (W_HALVES)                                                                                          \
                    to[r][c] = fma(s.x, low, to[r][c]);                                                                \
                to[r][c] = fma(t.x, high, to[r][c]);                                                                   \
                if (LANES_OWN && W_HALVES)                                                                             \
                    to[r][c] = fma(s.y, x_low, to[r][c]);                                                              \
                if (LANES_OWN)                                                                                         \
                    to[r][c] = fma(t.y, x_high, to[r][c]);                                                             \
            }                                                                                                          \
        }
#endif

// N eights at a time. Bounded: lavapipe runs a loop's uniform loads once more after its last pass.
#define ADD_PIECES(N, first, end)                                                                                      \
    for (uint u = first; u < end; u++) {                                                                               \
        const uint at = min(u, end - 1);                                                                               \
        float v[ROWS][N];                                                                                              \
        LOAD_X(N, x, at, v)                                                                                            \
        ADD(N, sum, w, at, v)                                                                                          \
        if (SWIGLU != 0)                                                                                               \
            ADD(N, sum2, w2, at, v)                                                                                    \
    }

// The products of rows x_row of x, k long, with COLS rows of w and, with SWIGLU, of w2: into sum and sum2 of each lane's own elements.
void add_products(uvec2 w[COLS], uvec2 w2[COLS], uint x_row[ROWS], uint k) {
    const uint units = k / 32;
    uvec2 x[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        x[r] = advance(uvec2(p.x), x_row[r], 4 * p.k);
        squares[r] = 0;
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[r][c] = sum2[r][c] = 0;
    }
    // More rows have their sums and x in registers: half as much of w at a time then.
    const uint half_units = ROWS < 4 ? k / 64 * 2 : 0;
    if (ROWS < 4)
        ADD_PIECES(8, 0, k / 64)
    if (ROWS >= 4 || half_units < units)
        ADD_PIECES(4, half_units, units)
#ifndef QUANTS
    if (k % 32 != 0)
        ADD_PIECES(1, units * 4, k / 8)
#endif
}

// Columns set, set + stride, ... of a matrix of n columns whose rows begin at w.
struct Set {
    uint first, stride, n;
};
void rows_of(uvec2 w, uint row_bytes, Set s, out uvec2 at[COLS]) {
    [[unroll]] for (uint c = 0; c < COLS; c++) at[c] = advance(w, min(s.first + c * s.stride, s.n - 1), row_bytes);
}

// Lane c gets what `of` adds up to for column c.
float column_sum(float of[COLS]) {
    float total[8];
    [[unroll]] for (uint c = 0; c < 8; c++) total[c] = c < COLS ? subgroupAdd(of[min(c, COLS - 1)]) : 0;
    return EIGHT(total, 0);
}
bool column_of(Set s, out uint col) {
    col = s.first + gl_SubgroupInvocationID * s.stride;
    return gl_SubgroupInvocationID < COLS && s.first < s.stride && col < s.n;
}

// y += shared + the sum over a token's SLOTS experts of weights * x w^T, in this order, as other dispatches would add them up.
void combine(uint token, Set s) {
    uvec2 w[COLS];
    uint x_row[ROWS], col;
    const bool there = column_of(s, col);
    const uint at = token * p.n + min(col, p.n - 1);
    float total = p.y.v[at];
    if (SHARED != 0) {
        rows_of(uvec2(p.w3), p.w3_row_bytes, s, w);
        [[unroll]] for (uint r = 0; r < ROWS; r++) x_row[r] = token * (SLOTS + SHARED) + SLOTS; // one
        add_products(w, w, x_row, p.k * SHARED);
        total += column_sum(sum[0]);
    }
    for (uint i = 0; i < SLOTS; i++) {
        const uint slot = token * SLOTS + min(i, SLOTS - 1);
        rows_of(advance(uvec2(p.w), p.row_expert.v[slot] * p.n, p.w_row_bytes), p.w_row_bytes, s, w);
        [[unroll]] for (uint r = 0; r < ROWS; r++) x_row[r] = token * (SLOTS + SHARED) + min(i, SLOTS - 1);
        add_products(w, w, x_row, p.k);
        total = fma(p.weights.v[slot], column_sum(sum[0]), total);
    }
    if (there)
        p.y.v[at] = total;
}

void main() {
    const uint row0 = gl_WorkGroupID.y * ROWS;
    uint group = gl_WorkGroupID.x;
    Set s = Set(0, (p.n + COLS - 1) / COLS, p.n);
    uvec2 w = uvec2(p.w), w2 = uvec2(p.w2), y = uvec2(p.y);
    if (MATRICES > 1) {
        const uint stride2 = (p.n2 + COLS - 1) / COLS;
        const uint first = (s.stride + SETS - 1) / SETS, others = (stride2 + SETS - 1) / SETS;
        if (group >= first) {
            group -= first;
            const bool third = MATRICES > 2 && group >= others;
            group -= third ? others : 0;
            w = third ? uvec2(p.w3) : uvec2(p.w2);
            y = third ? uvec2(p.y3) : uvec2(p.y2);
            s = Set(0, stride2, p.n2);
        }
    }
    if (GROUPED != 0) {
        const uint token = row0 / p.x_divide, slot = row0 % p.x_divide, routed = p.x_divide - SHARED;
        uint first_row;
        if (SHARED == 0 || slot < routed) {
            first_row = p.row_expert.v[token * routed + slot] * p.n;
        } else {
            w = uvec2(p.w3);
            w2 = uvec2(p.w4);
            first_row = (slot - routed) * p.n;
        }
        w = advance(w, first_row, p.w_row_bytes);
        w2 = advance(w2, first_row, p.w_row_bytes);
    }
    uint x_row[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) x_row[r] = min(row0 + r, p.m - 1) / p.x_divide;
    for (uint i = 0; i < SETS; i++) {
        s.first = group * SETS + min(i, SETS - 1);
        if (SLOTS != 0) {
            combine(row0, s);
            continue;
        }
        uvec2 at[COLS], at2[COLS];
        rows_of(w, p.w_row_bytes, s, at);
        rows_of(w2, p.w_row_bytes, s, at2);
        add_products(at, at2, x_row, p.k);
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            float value = column_sum(sum[r]), value2 = SWIGLU != 0 ? column_sum(sum2[r]) : 0;
            if (NORM != 0) {
                const float rstd = 1 / sqrt(subgroupAdd(squares[r]) / float(p.k) + p.eps);
                value *= rstd;
                value2 *= rstd;
            }
            uint col;
            if (!column_of(s, col) || row0 + r >= p.m)
                continue;
            const uint at_y = (row0 + r) * s.n + col;
            if (SWIGLU != 0)
                f32_rw(y).v[at_y] = value / (1 + exp(-value)) * value2;
            else
                f32_rw(y).v[at_y] = p.accumulate != 0 ? f32_rw(y).v[at_y] + value * p.alpha : value * p.alpha;
        }
    }
}
