// One pass over a row of logits (p.logits, p.vocab, p.ld): the greatest, where it is first, and the sum of exp(logit - greatest), kept per
// lane as a running pair and joined at the end. A NaN anywhere makes the sum NaN.
#ifndef VKMOE_LOGITS_GLSL
#define VKMOE_LOGITS_GLSL
#include "reduce.glsl"

layout(constant_id = 2) const uint VEC4 = 0; // ld is a multiple of 4: rows begin at 16 bytes

// Quads that are read in whole rounds of the workgroup; elements from 4 * whole_quads() on are read one by one.
uint whole_quads() { return p.vocab / (4 * LOCAL_SIZE) * LOCAL_SIZE; }
float logit(uint row, uint i) { return p.logits.v[row * p.ld + i]; }
vec4 logits4(uint row, uint quad) {
    if (VEC4 != 0)
        return f32x4_in(p.logits).v[row * (p.ld / 4) + quad];
    uint i = 4 * quad;
    return vec4(logit(row, i), logit(row, i + 1), logit(row, i + 2), logit(row, i + 3));
}

struct RowTop {
    float top;
    uint index; // the lowest one where the logit is `top`; 0 where nothing compares
    float sum, log_sum;
};

RowTop row_top(uint row) {
    uint lane = gl_LocalInvocationID.x, whole = whole_quads(), best = 0xffffffffu;
    float top = uintBitsToFloat(0xff7fffffu); // the least finite number: no infinity minus infinity
    vec4 sums = vec4(0);
    bool found_nan = false;
    for (uint q = lane; q < whole; q += LOCAL_SIZE) {
        vec4 l = logits4(row, q);
        found_nan = found_nan || is_nan(l.x) || is_nan(l.y) || is_nan(l.z) || is_nan(l.w);
        float m = max(max(l.x, l.y), max(l.z, l.w));
        best = m > top ? 4 * q : best;
        m = max(m, top);
        sums = sums * exp(top - m) + exp(l - m);
        top = m;
    }
    for (uint i = 4 * whole + lane; i < p.vocab; i += LOCAL_SIZE) {
        float l = logit(row, i), m = max(l, top);
        found_nan = found_nan || is_nan(l);
        best = l > top ? i : best;
        sums = sums * exp(top - m);
        sums.x += exp(l - m);
        top = m;
    }
    if (best < 4 * whole) // the place within the quad
        while (logit(row, best) != top && (best & 3) != 3)
            best++;
    RowTop t;
    t.top = group_max(top);
    t.index = group_min(top == t.top ? best : 0xffffffffu);
    t.index = t.index < p.vocab ? t.index : 0;
    float sum = ((sums.x + sums.y) + (sums.z + sums.w)) * exp(top - t.top);
    t.sum = group_add(found_nan ? uintBitsToFloat(NAN_BITS) : sum);
    t.log_sum = is_nan(t.sum) ? t.sum : log(t.sum);
    return t;
}

#endif
