#version 460
// y(m,n) = alpha * x(m,k) w(n,k)^T (+ y) for few rows: every row of w is read once for all ROWS rows of x. Grid: (columns, m / ROWS);
// grouped, ROWS is 1 and each row of x has its own expert. A row's sum is made in the same order whatever m is, so that an answer does
// not depend on its neighbours in a batch.
//   Without SUBGROUP a lane makes COLS columns, LOCAL_SIZE apart, x is the same for all lanes. With it a subgroup makes COLS columns,
//   its lanes run along k, and a subgroup reduction ends the sum.
// What shortens the chain of a decoded token:
//   NORM      x passes through an RMSNorm on its way: y = x' w^T / rms(x), x' = x times the norm's weights; each workgroup finds rms(x) anew
//   MATRICES  up to three of them, w, w2 and w3, side by side to y, y2 and y3
//   SHARED    each token has, behind the rows of its routed experts, SHARED more rows for the shared experts, whose matrices w3 (and w4) are stacked, n rows
//             each; x_divide is the number of rows a token has in all
//   STAGE     x passes through shared memory (SUBGROUP): lanes that run along k have units of weights side by side, but of x, which is longer, each would
//             read lines of its own; so a stretch of x is read once for all subgroups, with the norm on its way
//   PIECES    lanes have quarters of units, and so what they read of x side by side: without a norm, and where a stage has no room
//   SLOTS     y += shared + the sum over a token's SLOTS experts of weights * x w^T, in this order. With SUBGROUP the subgroups share out the slots. x is laid
//             out as SHARED leaves it; w3 has k * SHARED columns
// Of quants the sums of x times them are made as they are, and a half's factor and offset come to its sum (-DQUANTS).
#include "types.glsl"
layout(constant_id = 12) const uint BYTES_AS_BITS = 0;
#define BYTES_AS_BITS BYTES_AS_BITS
#define BITS_OF_2_23  (0x4b000000u | gl_LocalInvocationIndex & p.m >> 31) // that is 0, and unknown to NVK, which moves one of two constants into a register anew for each use
#include "formats.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(constant_id = 2) const uint ROWS = 1;
layout(constant_id = 3) const uint COLS = 2;
layout(constant_id = 4) const uint GROUPED = 0;
layout(constant_id = 5) const uint SWIGLU = 0;       // w is a gate's and w2 what it lets through: y = silu(x w^T) * (x w2^T)
layout(constant_id = 6) const uint AHEAD = 1;        // units of w that a lane asks for at once (SUBGROUP)
layout(constant_id = 7) const uint NORM = 0;         // 1 + storage type of the norm's weights
layout(constant_id = 8) const uint MATRICES = 1;
layout(constant_id = 9) const uint SHARED = 0;
layout(constant_id = 10) const uint SLOTS = 0;
layout(constant_id = 11) const uint X_WAY = 0;       // lanes along k read x of their own units (0), of a STAGE (1), of PIECES (2)
const bool STAGE = X_WAY == 1, PIECES = X_WAY == 2;

float sum[ROWS][COLS], sum2[ROWS][COLS], squares[ROWS];
struct XEight {
    vec4 v[2];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XEights { XEight v[]; };

// In one order wherever it is made.
float sum4(vec4 v) {
    precise float total = (v.x + v.y) + (v.z + v.w);
    return total;
}

#ifdef SUBGROUP
// A stretch of AHEAD units of 32 a lane, of each row. One vector more a unit keeps lanes out of each other's banks, and has the sums of the unit's halves.
const uint STRETCH = AHEAD * SUBGROUP_SIZE, PITCH = 9;
struct XHalf {
    vec4 v[4];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XHalves { XHalf v[]; };
shared vec4 x_stage[STAGE ? ROWS * STRETCH * PITCH : 1];
// Sums of squares of as many halves as a subgroup has lanes: the sum of them all has an order that no workgroup's width changes.
shared vec2 square_parts[STAGE ? (ROWS * AHEAD + 1) / 2 * 2 : WHOLE_WORDS / 2];

// Units first .. first + STRETCH - 1 of the rows of x that begin at eights x_at; beyond a row's `units` is what nobody takes. A thread has a half of a unit.
void stage(uint x_at[ROWS], uint first, uint units) {
    if (first > 0)
        barrier();
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint part = 0; part < 2 * STRETCH; part += LOCAL_SIZE) {
            const uint q = part + gl_LocalInvocationIndex, unit = first + q / 2, h = q % 2, to = (r * STRETCH + q / 2) * PITCH;
            if (2 * STRETCH % LOCAL_SIZE != 0 && q >= 2 * STRETCH)
                continue;
            const uint at = min(unit, units - 1) * 2 + h;
            vec4 v[4];
            [[unroll]] for (uint i = 0; i < 4; i++) v[i] = AT(XHalves, uvec2(p.x), x_at[r] / 2 + at, 64).v[i];
            vec4 square = v[0] * v[0];
            [[unroll]] for (uint i = 1; i < 4; i++) square = fma(v[i], v[i], square);
            const float total = (square.x + square.y) + (square.z + square.w);
            const float of_lanes = subgroupAdd(unit < units ? total : 0);
            if (gl_SubgroupInvocationID == 0)
                square_parts[r * AHEAD + q / SUBGROUP_SIZE / 2][q / SUBGROUP_SIZE % 2] = of_lanes;
            [[unroll]] for (uint i = 0; i < 4; i++) v[i] *= norm_weight4(p.norm, NORM - 1, at * 4 + i);
            [[unroll]] for (uint i = 0; i < 4; i++) x_stage[to + h * 4 + i] = v[i];
            precise const vec4 x_sum = (v[0] + v[1]) + (v[2] + v[3]);
            x_stage[to + 8][h] = sum4(x_sum);
        }
    barrier();
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        for (uint i = 0; i < AHEAD; i++) squares[r] += square_parts[r * AHEAD + i].x + square_parts[r * AHEAD + i].y;
}
vec4 x_staged(uint r, uint u, uint i) { return x_stage[(r * STRETCH + u % STRETCH) * PITCH + i]; }
#else
vec4 x_staged(uint r, uint u, uint i) { return vec4(0); }
#endif

// Rows of a matrix that a workgroup goes through: columns first_col .. n - 1 of the result, of rows from first_row on.
struct Columns {
    uint first_row, first_col, n, row_vectors;
};
#ifdef SUBGROUP
uint column_of(Columns o, uint c) { return o.first_col + c; }
#else
uint column_of(Columns o, uint c) { return o.first_col + gl_LocalInvocationIndex + c * LOCAL_SIZE; }
#endif

// Unit (or piece) u of each column. `w` is at the row of the first one.
void load(u32x4_in w, Columns o, uint u, uint units, out Unit raw[COLS]) {
    [[unroll]] for (uint c = 0; c < COLS; c++) {
        const uint row = (min(column_of(o, c), o.n - 1) - min(o.first_col, o.n - 1)) * o.row_vectors;
#ifdef QUANTS
        if (PIECES) {
            unit_piece_load(w, row, u, units, raw[c]);
            continue;
        }
#endif
        unit_load(w, row, u, units, raw[c]);
    }
}

// Two vectors of row r of x, number `at` and `other`, take the norm's weights; squares come to their sum.
void apply_norm(uint r, uint at, uint other, bool squared, inout vec4 a, inout vec4 b) {
    if (NORM == 0)
        return;
    if (squared) {
        vec4 s = fma(b, b, a * a);
        squares[r] += (s.x + s.y) + (s.z + s.w);
    }
    a *= norm_weight4(p.norm, NORM - 1, at);
    b *= norm_weight4(p.norm, NORM - 1, other);
}
// Eighth `at` of the row that begins at eight x_at.
void x_get8(uint r, uint x_at, uint at, bool squared, out vec4 a, out vec4 b) {
    a = AT(XEights, uvec2(p.x), x_at + at, 32).v[0];
    b = AT(XEights, uvec2(p.x), x_at + at, 32).v[1];
    apply_norm(r, 2 * at, 2 * at + 1, squared, a, b);
}

#ifdef QUANTS
// What comes to `to`: of each half of a unit, or a part of it, the sum of x times quants and that of x.
void add_scaled(inout float to, Unit raw, float low, float high, float x_low, float x_high) {
    const vec2 first = unit_scale(raw, false), second = unit_scale(raw, true);
    if (W_HALVES) {
        to = fma(first.x, low, fma(first.y, x_low, to));
    } else {
        precise const float unit = low + high, x_unit = x_low + x_high;
        high = unit;
        x_high = x_unit;
    }
    to = fma(second.x, high, fma(second.y, x_high, to));
}

// x times quants: even and odd ones.
vec2 add4(vec2 to, vec4 x, vec4 quants) { return fma(x.zw, quants.zw, fma(x.xy, quants.xy, to)); }
float joined(vec2 pairs) { return fma(pairs.y, ODD_BYTES, pairs.x); }

void multiply_piece(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint part, bool squared) {
    vec4 a[COLS], b[COLS];
    [[unroll]] for (uint c = 0; c < COLS; c++) piece_quants8(raw[c], part, a[c], b[c]);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        const uint at = part / 4 * 8 + part % 4;
        vec4 xa = AT(f32x4_in, uvec2(p.x), x_at[r] * 2 + at, 16), xb = AT(f32x4_in, uvec2(p.x), x_at[r] * 2 + at + 4, 16);
        apply_norm(r, at, at + 4, squared, xa, xb);
        [[unroll]] for (uint c = 0; c < COLS; c++)
            add_scaled(to[r][c], raw[c], joined(add4(vec2(0), xa, a[c])), joined(add4(vec2(0), xb, b[c])), sum4(xa), sum4(xb));
    }
}

void multiply_unit(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint u, bool squared) {
    float products[2][ROWS][COLS], of_x[2][ROWS];
    [[unroll]] for (uint h = 0; h < 2; h++) {
        precise vec4 x_sum[ROWS];
        vec2 pairs[ROWS][COLS];
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            x_sum[r] = vec4(0);
            [[unroll]] for (uint c = 0; c < COLS; c++) pairs[r][c] = vec2(0);
        }
        [[unroll]] for (uint g = 2 * h; g < 2 * h + 2; g++) {
            vec4 a[COLS], b[COLS];
            [[unroll]] for (uint c = 0; c < COLS; c++) unit_quants8(raw[c], g, a[c], b[c]);
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                vec4 xa, xb;
                if (STAGE) {
                    xa = x_staged(r, u, 2 * g);
                    xb = x_staged(r, u, 2 * g + 1);
                } else {
                    x_get8(r, x_at[r], 4 * u + g, squared, xa, xb);
                }
                x_sum[r] += xa + xb;
                [[unroll]] for (uint c = 0; c < COLS; c++) pairs[r][c] = add4(add4(pairs[r][c], xa, a[c]), xb, b[c]);
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            of_x[h][r] = STAGE ? x_staged(r, u, 8)[h] : sum4(x_sum[r]);
            [[unroll]] for (uint c = 0; c < COLS; c++) products[h][r][c] = joined(pairs[r][c]);
        }
    }
    [[unroll]] for (uint c = 0; c < COLS; c++)
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            add_scaled(to[r][c], raw[c], products[0][r][c], products[1][r][c], of_x[0][r], of_x[1][r]);
}
#else
void multiply_piece(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint part, bool squared) {}

// In the order of the unit's elements.
void multiply_unit(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint u, bool squared) {
    vec4 a[COLS], b[COLS];
    [[unroll]] for (uint c = 0; c < COLS; c++) unit_get8(raw[c], 0, a[c], b[c]);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        vec4 xa, xb;
        x_get8(r, x_at[r], u, squared, xa, xb);
        [[unroll]] for (uint j = 0; j < 4; j++)
            [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = fma(xa[j], a[c][j], to[r][c]);
        [[unroll]] for (uint j = 0; j < 4; j++)
            [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = fma(xb[j], b[c][j], to[r][c]);
    }
}
#endif

// Adds the products of unit (or piece) u where it is one of the row's, else nothing: its squares as well if asked to.
void multiply(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint u, bool squared, bool inside) {
    float sums[ROWS][COLS], before[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        before[r] = squares[r];
        [[unroll]] for (uint c = 0; c < COLS; c++) sums[r][c] = to[r][c];
    }
    if (PIECES)
        multiply_piece(sums, raw, x_at, u, squared);
    else
        multiply_unit(sums, raw, x_at, u, squared);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        squares[r] = inside ? squares[r] : before[r];
        [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = inside ? sums[r][c] : to[r][c];
    }
}

#ifdef SUBGROUP
// Units (or pieces) first .. first + STRETCH - 1 of a row, of which a lane takes u, u + SUBGROUP_SIZE ...: all loads are on their way before the first is used.
// `whole`: none of them is beyond the row.
void add_round(u32x4_in w, u32x4_in w2, Columns o, uint x_at[ROWS], uint first, uint u, uint units, bool whole) {
    const uint n = PIECES ? 4 * units : units;
    Unit raw[AHEAD][COLS], raw2[AHEAD][COLS];
    [[unroll]] for (uint i = 0; i < AHEAD; i++) {
        const uint at = whole ? u + i * SUBGROUP_SIZE : min(u + i * SUBGROUP_SIZE, n - 1);
        load(w, o, at, units, raw[i]);
        if (SWIGLU != 0)
            load(w2, o, at, units, raw2[i]);
    }
    if (STAGE)
        stage(x_at, first, units);
    [[unroll]] for (uint i = 0; i < AHEAD; i++) {
        const uint own = u + i * SUBGROUP_SIZE, at = whole || STAGE ? own : min(own, n - 1);
        multiply(sum, raw[i], x_at, at, true, whole || own < n);
        if (SWIGLU != 0)
            multiply(sum2, raw2[i], x_at, at, false, whole || own < n);
    }
}
#endif

// The products of rows of x, `units` long, which begin at eights x_at, with those of w: into sum of each lane's own units (all of them without SUBGROUP).
void add_products(uvec2 first_w, uvec2 first_w2, Columns o, uint x_at[ROWS], uint units) {
    const uint row = o.first_row + min(o.first_col, o.n - 1), row_bytes = o.row_vectors * 16;
    u32x4_in w = u32x4_in(moved(first_w, row, row_bytes)), w2 = u32x4_in(moved(first_w2, row, row_bytes));
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        squares[r] = 0;
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[r][c] = sum2[r][c] = 0;
    }
#ifdef SUBGROUP
    const uint n = PIECES ? 4 * units : units;
    uint first = 0, u = gl_SubgroupInvocationID;
    if (STAGE) {
        for (; first < n; first += STRETCH, u += STRETCH) add_round(w, w2, o, x_at, first, u, units, false);
        return;
    }
    for (; first + STRETCH <= n; first += STRETCH, u += STRETCH) add_round(w, w2, o, x_at, first, u, units, true);
    if (first < n)
        add_round(w, w2, o, x_at, first, u, units, false);
#else
    Unit raw[COLS], raw2[COLS];
    for (uint u = 0; u < units; u++) {
        load(w, o, u, units, raw);
        if (SWIGLU != 0)
            load(w2, o, u, units, raw2);
        multiply(sum, raw, x_at, u, true, true);
        if (SWIGLU != 0)
            multiply(sum2, raw2, x_at, u, false, true);
    }
#endif
}

void store(f32_rw y, uint row, uint col, uint n, float value, float value2, float square) {
    if (row >= p.m || col >= n)
        return;
    if (NORM != 0) {
        float rstd = 1 / sqrt(square / float(p.k) + p.eps);
        value *= rstd;
        value2 *= rstd;
    }
    uint at = row * n + col;
    if (SWIGLU != 0) {
        y.v[at] = value / (1 + exp(-value)) * value2;
        return;
    }
    y.v[at] = p.accumulate != 0 ? y.v[at] + value * p.alpha : value * p.alpha;
}

#ifdef SUBGROUP
shared vec4 slot_sums[SLOTS + 1][(COLS + 3) / 4];
#endif

// Slot `slot` of a token, slot SLOTS the shared experts', in columns from first_col on.
void add_slot(uint token, uint slot, uint first_col) {
    bool is_shared = slot == SLOTS;
    uint width = p.k / W_UNIT, x_at[ROWS];
    uint vectors = (is_shared ? p.w3_row_bytes : p.w_row_bytes) / 16;
    uint row = is_shared ? 0 : p.row_expert.v[token * SLOTS + min(slot, SLOTS - 1)] * p.n;
    const uvec2 w = is_shared ? uvec2(p.w3) : uvec2(p.w);
    [[unroll]] for (uint r = 0; r < ROWS; r++) x_at[r] = (token * (SLOTS + SHARED) + slot) * (p.k / 8); // ROWS is 1 here
    add_products(w, w, Columns(row, first_col, p.n, vectors), x_at, is_shared ? width * SHARED : width);
}

void combine(uint token, uint first_col) {
    const uint n_slots = SLOTS + min(SHARED, 1);
#ifdef SUBGROUP
    for (uint slot = gl_SubgroupID; slot < n_slots; slot += gl_NumSubgroups) {
        add_slot(token, slot, first_col);
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            float total = subgroupAdd(sum[0][c]);
            if (gl_SubgroupInvocationID == c)
                slot_sums[slot][c / 4][c % 4] = total;
        }
    }
    barrier();
    uint c = gl_LocalInvocationIndex, col = first_col + c, at = token * p.n + col;
    if (c >= COLS || col >= p.n)
        return;
    float total = p.y.v[at];
    if (SHARED != 0)
        total += slot_sums[SLOTS][c / 4][c % 4];
    for (uint slot = 0; slot < SLOTS; slot++)
        total = fma(p.weights.v[token * SLOTS + slot], slot_sums[slot][c / 4][c % 4], total);
    p.y.v[at] = total;
#else
    float total[COLS];
    [[unroll]] for (uint c = 0; c < COLS; c++)
        total[c] = p.y.v[token * p.n + min(first_col + gl_LocalInvocationIndex + c * LOCAL_SIZE, p.n - 1)];
    for (uint i = 0; i < n_slots; i++) {
        uint slot = SHARED != 0 ? (i == 0 ? SLOTS : i - 1) : i; // the shared experts are the first
        add_slot(token, slot, first_col);
        float weight = slot == SLOTS ? 1 : p.weights.v[token * SLOTS + min(slot, SLOTS - 1)];
        [[unroll]] for (uint c = 0; c < COLS; c++) total[c] = fma(weight, sum[0][c], total[c]);
    }
    [[unroll]] for (uint c = 0; c < COLS; c++) {
        uint col = first_col + gl_LocalInvocationIndex + c * LOCAL_SIZE;
        if (col < p.n)
            p.y.v[token * p.n + col] = total[c];
    }
#endif
}

void main() {
    uint row0 = gl_WorkGroupID.y * ROWS, group = gl_WorkGroupID.x;
    if (SLOTS != 0) {
#ifdef SUBGROUP
        combine(row0, group * COLS);
#else
        combine(row0, group * LOCAL_SIZE * COLS);
#endif
        return;
    }
#ifdef SUBGROUP
    uint columns = gl_NumSubgroups * COLS, own = gl_SubgroupID * COLS;
#else
    uint columns = LOCAL_SIZE * COLS, own = 0;
#endif
    Columns o = Columns(0, 0, p.n, p.w_row_bytes / 16);
    uvec2 w = uvec2(p.w), w2 = uvec2(p.w2), y = uvec2(p.y); // SwiftShader's compiler knows no choice between pointers
    if (MATRICES > 1) {
        uint first = (p.n + columns - 1) / columns, others = (p.n2 + columns - 1) / columns;
        if (group >= first) {
            group -= first;
            bool third = MATRICES > 2 && group >= others;
            group -= third ? others : 0;
            w = third ? uvec2(p.w3) : uvec2(p.w2);
            y = third ? uvec2(p.y3) : uvec2(p.y2);
            o.n = p.n2;
        }
    }
    if (GROUPED != 0) {
        uint token = row0 / p.x_divide, slot = row0 % p.x_divide, routed = p.x_divide - SHARED;
        if (SHARED == 0 || slot < routed) {
            o.first_row = p.row_expert.v[token * routed + slot] * p.n;
        } else {
            w = uvec2(p.w3);
            w2 = uvec2(p.w4);
            o.first_row = (slot - routed) * p.n;
        }
    }
    o.first_col = group * columns + own;
    uint units = p.k / W_UNIT, x_at[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) x_at[r] = min(row0 + r, p.m - 1) / p.x_divide * (p.k / 8);
    add_products(w, w2, o, x_at, units);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
#ifdef SUBGROUP
        if (NORM != 0 && !STAGE)
            squares[r] = subgroupAdd(squares[r]);
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            float total = subgroupAdd(sum[r][c]), total2 = SWIGLU != 0 ? subgroupAdd(sum2[r][c]) : 0;
            if (gl_SubgroupInvocationID == (r * COLS + c) % gl_SubgroupSize)
                store(f32_rw(y), row0 + r, column_of(o, c), o.n, total, total2, squares[r]);
        }
#else
        [[unroll]] for (uint c = 0; c < COLS; c++)
            store(f32_rw(y), row0 + r, column_of(o, c), o.n, sum[r][c], sum2[r][c], squares[r]);
#endif
    }
}
