// The greatest logit of every row, the lower index where two are equal, and its log-probability. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "logits.glsl"

layout(constant_id = 3) const uint LOGPROB = 0;

void main() {
    uint row = group_index();
    if (row >= p.rows)
        return;
    RowTop t = row_top(row);
    if (gl_LocalInvocationID.x == 0) {
        p.ids.v[row] = t.index;
        if (LOGPROB != 0)
            p.logprob.v[row] = logit(row, t.index) - t.top - t.log_sum;
    }
}
