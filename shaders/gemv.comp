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
//             read lines of its own; so a stretch of x is read once for all subgroups, in whole lines, with the norm on its way. Not with SLOTS
//   SLOTS     y += shared + the sum over a token's SLOTS experts of weights * x w^T, in this order. With SUBGROUP the subgroups share out the slots. x is laid
//             out as SHARED leaves it; w3 has k * SHARED columns
#include "types.glsl"
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
layout(constant_id = 11) const uint STAGE = 0;

const uint G = W_UNIT / 8;
struct XUnit {
    vec4 v[2 * G];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XUnits { XUnit v[]; };
float sum[ROWS][COLS], sum2[ROWS][COLS], squares[ROWS];

#ifdef SUBGROUP
// A stretch of AHEAD units a lane, of each row. One vector more a unit keeps lanes out of each other's banks.
const uint STRETCH = AHEAD * SUBGROUP_SIZE, STRETCH_VECTORS = STRETCH * 2 * G, PITCH = 2 * G + 1;
shared vec4 x_stage[STAGE != 0 ? ROWS * STRETCH * PITCH : 1];
// Sums of squares of as many vectors as a subgroup has lanes: the sum of them all has an order that no workgroup's width changes.
const uint SQUARE_PARTS = STRETCH_VECTORS / SUBGROUP_SIZE;
shared float square_parts[STAGE != 0 && NORM != 0 ? ROWS * SQUARE_PARTS : 1];

// Units first .. first + STRETCH - 1 of the rows of x that begin at units x_at; beyond a row's `units` are zeros.
void stage(uint x_at[ROWS], uint first, uint units) {
    f32x4_in x = f32x4_in(p.x);
    if (first > 0)
        barrier();
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        for (uint q = gl_LocalInvocationIndex; q < STRETCH_VECTORS; q += LOCAL_SIZE) {
            const uint at = first * 2 * G + q;
            vec4 v = at < units * 2 * G ? x.v[x_at[r] * 2 * G + at] : vec4(0);
            if (NORM != 0) {
                const vec4 square = v * v;
                const float part = subgroupAdd((square.x + square.y) + (square.z + square.w));
                if (gl_SubgroupInvocationID == 0)
                    square_parts[r * SQUARE_PARTS + q / SUBGROUP_SIZE] = part;
                v *= norm_weight4(p.norm, NORM - 1, min(at, units * 2 * G - 1));
            }
            x_stage[(r * STRETCH + q / (2 * G)) * PITCH + q % (2 * G)] = v;
        }
    barrier();
    if (NORM != 0)
        [[unroll]] for (uint r = 0; r < ROWS; r++)
            for (uint i = 0; i < SQUARE_PARTS; i++) squares[r] += square_parts[r * SQUARE_PARTS + i];
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

// `w` is at the row of the first column.
void load(u32x4_in w, Columns o, uint u, uint units, out Unit raw[COLS]) {
    [[unroll]] for (uint c = 0; c < COLS; c++)
        unit_load(w, (min(column_of(o, c), o.n - 1) - min(o.first_col, o.n - 1)) * o.row_vectors, u, units, raw[c]);
}

void multiply(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint u, bool squared) {
    [[unroll]] for (uint g = 0; g < G; g++) {
        vec4 a[COLS], b[COLS], norm_a, norm_b;
        [[unroll]] for (uint c = 0; c < COLS; c++) unit_get8(raw[c], g, a[c], b[c]);
        if (NORM != 0 && STAGE == 0) {
            norm_a = norm_weight4(p.norm, NORM - 1, (u * G + g) * 2);
            norm_b = norm_weight4(p.norm, NORM - 1, (u * G + g) * 2 + 1);
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            vec4 xa, xb;
            if (STAGE != 0) {
                xa = x_staged(r, u, 2 * g);
                xb = x_staged(r, u, 2 * g + 1);
            } else {
                xa = AT(XUnits, uvec2(p.x), x_at[r] + u, 32 * G).v[2 * g];
                xb = AT(XUnits, uvec2(p.x), x_at[r] + u, 32 * G).v[2 * g + 1];
            }
            if (NORM != 0 && STAGE == 0) {
                if (squared) {
                    vec4 s = fma(xb, xb, xa * xa);
                    squares[r] += (s.x + s.y) + (s.z + s.w);
                }
                xa *= norm_a;
                xb *= norm_b;
            }
            [[unroll]] for (uint j = 0; j < 4; j++)
                [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = fma(xa[j], a[c][j], to[r][c]);
            [[unroll]] for (uint j = 0; j < 4; j++)
                [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = fma(xb[j], b[c][j], to[r][c]);
        }
    }
}

// The products of rows x_at of x, `units` long, with those of w: into sum of each lane's own units (all of them without SUBGROUP).
void add_products(uvec2 first_w, uvec2 first_w2, Columns o, uint x_at[ROWS], uint units) {
    const uint row = o.first_row + min(o.first_col, o.n - 1), row_bytes = o.row_vectors * 16;
    u32x4_in w = u32x4_in(moved(first_w, row, row_bytes)), w2 = u32x4_in(moved(first_w2, row, row_bytes));
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        squares[r] = 0;
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[r][c] = sum2[r][c] = 0;
    }
// Units u, u + stride, ... (`count` of them): all loads are on their way before the first is used. The order of the sum is that of the units.
#define ADD_UNITS(count, u, stride)                                                                                    \
    {                                                                                                                  \
        Unit raw[count][COLS], raw2[count][COLS];                                                                      \
        [[unroll]] for (uint i = 0; i < count; i++) {                                                                  \
            load(w, o, u + i * stride, units, raw[i]);                                                                 \
            if (SWIGLU != 0)                                                                                           \
                load(w2, o, u + i * stride, units, raw2[i]);                                                           \
        }                                                                                                              \
        [[unroll]] for (uint i = 0; i < count; i++) {                                                                  \
            multiply(sum, raw[i], x_at, u + i * stride, true);                                                         \
            if (SWIGLU != 0)                                                                                           \
                multiply(sum2, raw2[i], x_at, u + i * stride, false);                                                  \
        }                                                                                                              \
    }
#ifdef SUBGROUP
    uint u = gl_SubgroupInvocationID;
    if (STAGE != 0) {
        for (uint first = 0; first < units; first += STRETCH, u += STRETCH) {
            Unit raw[AHEAD][COLS], raw2[AHEAD][COLS];
            [[unroll]] for (uint i = 0; i < AHEAD; i++) {
                const uint at = min(u + i * SUBGROUP_SIZE, units - 1); // beyond the row x is zero
                load(w, o, at, units, raw[i]);
                if (SWIGLU != 0)
                    load(w2, o, at, units, raw2[i]);
            }
            stage(x_at, first, units);
            [[unroll]] for (uint i = 0; i < AHEAD; i++) {
                multiply(sum, raw[i], x_at, u + i * SUBGROUP_SIZE, true);
                if (SWIGLU != 0)
                    multiply(sum2, raw2[i], x_at, u + i * SUBGROUP_SIZE, false);
            }
        }
        return;
    }
    if (AHEAD > 1)
        for (; u + (AHEAD - 1) * gl_SubgroupSize < units; u += AHEAD * gl_SubgroupSize)
            ADD_UNITS(AHEAD, u, gl_SubgroupSize)
    for (; u < units; u += gl_SubgroupSize)
        ADD_UNITS(1, u, gl_SubgroupSize)
#else
    for (uint u = 0; u < units; u++)
        ADD_UNITS(1, u, 1)
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
shared float dots[(SLOTS + 1) * COLS];
#endif

// Slot `slot` of a token, slot SLOTS the shared experts', in columns from first_col on.
void add_slot(uint token, uint slot, uint first_col) {
    bool is_shared = slot == SLOTS;
    uint width = p.k / W_UNIT, x_at[ROWS];
    uint vectors = (is_shared ? p.w3_row_bytes : p.w_row_bytes) / 16;
    uint row = is_shared ? 0 : p.row_expert.v[token * SLOTS + min(slot, SLOTS - 1)] * p.n;
    const uvec2 w = is_shared ? uvec2(p.w3) : uvec2(p.w);
    [[unroll]] for (uint r = 0; r < ROWS; r++) x_at[r] = (token * (SLOTS + SHARED) + slot) * width; // ROWS is 1 here
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
                dots[slot * COLS + c] = total;
        }
    }
    barrier();
    uint c = gl_LocalInvocationIndex, col = first_col + c, at = token * p.n + col;
    if (c >= COLS || col >= p.n)
        return;
    float total = p.y.v[at];
    if (SHARED != 0)
        total += dots[SLOTS * COLS + c];
    for (uint slot = 0; slot < SLOTS; slot++)
        total = fma(p.weights.v[token * SLOTS + slot], dots[slot * COLS + c], total);
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
    [[unroll]] for (uint r = 0; r < ROWS; r++) x_at[r] = min(row0 + r, p.m - 1) / p.x_divide * units;
    add_products(w, w2, o, x_at, units);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
#ifdef SUBGROUP
        if (NORM != 0 && STAGE == 0)
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
