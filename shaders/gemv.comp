#version 460
// y(m,n) = alpha * x(m,k) w(n,k)^T (+ y) for few rows: every row of w is read once for all ROWS rows of x. Grid: (columns, m / ROWS);
// grouped, ROWS is 1 and each row of x has its own expert. A row's sum is made in the same order whatever m is, so that an answer does
// not depend on its neighbours in a batch.
//   Without SUBGROUP a lane makes COLS columns, LOCAL_SIZE apart, x is the same for all lanes. With it a subgroup makes COLS columns,
//   its lanes run along k, and a subgroup reduction ends the sum.
#include "types.glsl"
#include "formats.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(constant_id = 2) const uint ROWS = 1;
layout(constant_id = 3) const uint COLS = 2;
layout(constant_id = 4) const uint GROUPED = 0;
layout(constant_id = 5) const uint CHOOSE_LANES = 0; // CPU devices with 8 lanes: see unit_load_lanes
layout(constant_id = 6) const uint SWIGLU = 0;       // w is a gate's and w2 what it lets through: y = silu(x w^T) * (x w2^T)
layout(constant_id = 7) const uint AHEAD = 1;        // units of w that a lane asks for at once (SUBGROUP)

const uint G = W_UNIT / 8;
struct XUnit {
    vec4 v[2 * G];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer XUnits { XUnit v[]; };
float sum[ROWS][COLS], sum2[ROWS][COLS];

void load(u32x4_in w, uint w_row[COLS], uint first_row, uint first_col, uint u, uint units, out Unit raw[COLS]) {
    [[unroll]] for (uint c = 0; c < COLS; c++) {
        if (CHOOSE_LANES != 0) {
            uint rows[8];
            [[unroll]] for (uint i = 0; i < 8; i++)
                rows[i] = (first_row + min(first_col + c * LOCAL_SIZE + i, p.n - 1)) * (p.w_row_bytes / 16);
            unit_load_lanes(w, rows, u, units, gl_LocalInvocationIndex, raw[c]);
        } else
            unit_load(w, w_row[c], u, units, raw[c]);
    }
}

void multiply(inout float to[ROWS][COLS], Unit raw[COLS], uint x_at[ROWS], uint u) {
    XUnits x = XUnits(uvec2(p.x));
    [[unroll]] for (uint g = 0; g < G; g++) {
        vec4 a[COLS], b[COLS];
        [[unroll]] for (uint c = 0; c < COLS; c++) unit_get8(raw[c], g, a[c], b[c]);
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            vec4 xa = x.v[x_at[r] + u].v[2 * g], xb = x.v[x_at[r] + u].v[2 * g + 1];
            [[unroll]] for (uint j = 0; j < 4; j++)
                [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = fma(xa[j], a[c][j], to[r][c]);
            [[unroll]] for (uint j = 0; j < 4; j++)
                [[unroll]] for (uint c = 0; c < COLS; c++) to[r][c] = fma(xb[j], b[c][j], to[r][c]);
        }
    }
}

void store(uint row, uint col, float value, float value2) {
    if (row >= p.m || col >= p.n)
        return;
    uint at = row * p.n + col;
    if (SWIGLU != 0) {
        p.y.v[at] = value / (1 + exp(-value)) * value2;
        return;
    }
    p.y.v[at] = p.accumulate != 0 ? p.y.v[at] + value * p.alpha : value * p.alpha;
}

void main() {
    uint row0 = gl_WorkGroupID.y * ROWS, units = p.k / W_UNIT, row_vectors = p.w_row_bytes / 16;
    uint first_w_row = GROUPED != 0 ? p.row_expert.v[row0] * p.n : 0;
#ifdef SUBGROUP
    uint col0 = (gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID) * COLS, step = 1;
#else
    uint col0 = gl_WorkGroupID.x * LOCAL_SIZE * COLS + gl_LocalInvocationIndex, step = LOCAL_SIZE;
#endif
    uint x_at[ROWS], w_row[COLS], first_col = gl_WorkGroupID.x * LOCAL_SIZE * COLS;
    [[unroll]] for (uint c = 0; c < COLS; c++) w_row[c] = (first_w_row + min(col0 + c * step, p.n - 1)) * row_vectors;
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        x_at[r] = min(row0 + r, p.m - 1) / p.x_divide * units;
        [[unroll]] for (uint c = 0; c < COLS; c++) sum[r][c] = sum2[r][c] = 0;
    }
// Units u, u + stride, ... (`count` of them): all loads are on their way before the first is used. The order of the sum is that of the units.
#define ADD_UNITS(count, u, stride)                                                                                    \
    {                                                                                                                  \
        Unit raw[count][COLS], raw2[count][COLS];                                                                      \
        [[unroll]] for (uint i = 0; i < count; i++) {                                                                  \
            load(p.w, w_row, first_w_row, first_col, u + i * stride, units, raw[i]);                                   \
            if (SWIGLU != 0)                                                                                           \
                load(p.w2, w_row, first_w_row, first_col, u + i * stride, units, raw2[i]);                             \
        }                                                                                                              \
        [[unroll]] for (uint i = 0; i < count; i++) {                                                                  \
            multiply(sum, raw[i], x_at, u + i * stride);                                                               \
            if (SWIGLU != 0)                                                                                           \
                multiply(sum2, raw2[i], x_at, u + i * stride);                                                         \
        }                                                                                                              \
    }
#ifdef SUBGROUP
    uint u = gl_SubgroupInvocationID;
    if (AHEAD > 1)
        for (; u + (AHEAD - 1) * gl_SubgroupSize < units; u += AHEAD * gl_SubgroupSize)
            ADD_UNITS(AHEAD, u, gl_SubgroupSize)
    for (; u < units; u += gl_SubgroupSize)
        ADD_UNITS(1, u, gl_SubgroupSize)
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < COLS; c++) {
            float total = subgroupAdd(sum[r][c]), total2 = SWIGLU != 0 ? subgroupAdd(sum2[r][c]) : 0;
            if (gl_SubgroupInvocationID == (r * COLS + c) % gl_SubgroupSize)
                store(row0 + r, col0 + c, total, total2);
        }
#else
    for (uint u = 0; u < units; u++)
        ADD_UNITS(1, u, 1)
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < COLS; c++) store(row0 + r, col0 + c * step, sum[r][c], sum2[r][c]);
#endif
}
