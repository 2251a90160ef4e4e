// Peaks (peak.glsl) of a matrix's rows, a workgroup each, or with COLUMNS of its columns: a lane has a column of f32, or eight of another type, a workgroup SLAB
// rows of one of the stacked matrices, and all of them join what they found: the greatest does not depend on who comes first.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "formats.glsl"
#include "peak.glsl"
#include "reduce.glsl"

layout(constant_id = 2) const uint COLUMNS = 0;
const uint SLAB = 64, UNIT_EIGHTHS = W_UNIT / 8;

void eighth_at(uint row, uint eighth, out vec4 a, out vec4 b) {
    Unit u;
    eighth_load(p.w, row * (p.w_row_bytes / 16), eighth / UNIT_EIGHTHS, eighth % UNIT_EIGHTHS, p.cols / W_UNIT, u);
    eighth_get(u, eighth % UNIT_EIGHTHS, 1, a, b);
}

void peak_of_row(uint row) {
    uint peak = 0;
    for (uint i = gl_LocalInvocationID.x; i < p.cols / 8; i += LOCAL_SIZE) {
        vec4 a, b;
        eighth_at(row, i, a, b);
        peak = max(peak, max(peak_of(a), peak_of(b)));
    }
    peak = group_max(peak);
    if (gl_LocalInvocationID.x == 0)
        p.peak.v[row] = peak;
}

void peaks_of_columns(uint stack, uint first, uint end, uint lane) {
    if (W_TYPE == 0) { // of any width
        uint peak = 0;
        for (uint row = first; lane < p.cols && row < end; row++) peak = max(peak, peak_of(f32_in(uvec2(p.w)).v[row * p.cols + lane]));
        if (lane < p.cols)
            atomicMax(p.peak.v[stack * p.cols + lane], peak);
        return;
    }
    if (lane >= p.cols / 8)
        return;
    uint peak[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (uint row = first; row < end; row++) {
        vec4 a, b;
        eighth_at(row, lane, a, b);
        [[unroll]] for (uint i = 0; i < 4; i++) {
            peak[i] = max(peak[i], peak_of(a[i]));
            peak[4 + i] = max(peak[4 + i], peak_of(b[i]));
        }
    }
    [[unroll]] for (uint i = 0; i < 8; i++) atomicMax(p.peak.v[stack * p.cols + 8 * lane + i], peak[i]);
}

void main() {
    if (COLUMNS == 0) {
        if (group_index() < p.rows)
            peak_of_row(group_index());
        return;
    }
    const uint lanes = W_TYPE == 0 ? p.cols : p.cols / 8, across = (lanes + LOCAL_SIZE - 1) / LOCAL_SIZE;
    const uint slab = group_index() / across, each = (p.stack_rows + SLAB - 1) / SLAB, stack = slab / each;
    const uint begin = stack * p.stack_rows, first = begin + slab % each * SLAB;
    if (begin < p.rows)
        peaks_of_columns(stack, first, min(first + SLAB, begin + p.stack_rows), group_index() % across * LOCAL_SIZE + gl_LocalInvocationID.x);
}
