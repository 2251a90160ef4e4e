// One pass over a row of logits (p.logits, p.vocab, p.ld): the greatest, where it is first, and the sum of exp(logit - greatest), kept per
// lane as a running pair and joined at the end. A NaN anywhere makes the sum NaN. Lanes may be those of several workgroups: a lane's sum is the same.
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

// A lane's quads are number 0 .. lane_quads() - 1 and lie LOCAL_SIZE apart. It asks for AHEAD of them before it uses the first, or each would wait
// for memory anew; behind its last one it gets that again.
const uint AHEAD = 4;
uint lane_quads() { return p.vocab / (4 * LOCAL_SIZE); }
vec4[AHEAD] logits_ahead(uint row, uint lane, uint first) {
    vec4 l[AHEAD];
    [[unroll]] for (uint j = 0; j < AHEAD; j++)
        l[j] = logits4(row, min(first + j, lane_quads() - 1) * LOCAL_SIZE + lane);
    return l;
}

// Of what one lane walks through.
struct LaneTop {
    float top;
    uint index; // 0xffffffff where nothing compares
    float sum; // of exp(logit - top)
    bool found_nan;
};

struct RowTop {
    float top;
    uint index; // the lowest one where the logit is `top`; 0 where nothing compares
    float sum, log_sum;
};

LaneTop lane_top(uint row, uint lane) {
    uint quads = lane_quads(), whole = whole_quads(), best = 0xffffffffu;
    float top = uintBitsToFloat(0xff7fffffu); // the least finite number: no infinity minus infinity
    vec4 sums = vec4(0);
    bool found_nan = false;
    for (uint first = 0; first < quads; first += 2 * AHEAD) { // where workgroups share a row few lanes run beside this one
        vec4 ahead[2][AHEAD] =
            vec4[2][AHEAD](logits_ahead(row, lane, first), logits_ahead(row, lane, first + AHEAD));
        [[unroll]] for (uint j = 0; j < 2 * AHEAD; j++)
            if (first + j < quads) {
                vec4 l = ahead[j / AHEAD][j % AHEAD];
                found_nan = found_nan || is_nan(l.x) || is_nan(l.y) || is_nan(l.z) || is_nan(l.w);
                float m = max(max(l.x, l.y), max(l.z, l.w));
                best = m > top ? 4 * ((first + j) * LOCAL_SIZE + lane) : best;
                m = max(m, top);
                sums = sums * exp(top - m) + exp(l - m);
                top = m;
            }
    }
    for (uint i = 4 * whole + lane; i < p.vocab; i += LOCAL_SIZE) {
        float l = logit(row, i), m = max(l, top);
        found_nan = found_nan || is_nan(l);
        best = l > top ? i : best;
        sums = sums * exp(top - m);
        sums.x += exp(l - m);
        top = m;
    }
    if (best < 4 * whole) { // the place within the quad
        vec4 l = logits4(row, best / 4);
        best += l.x == top ? 0 : l.y == top ? 1 : l.z == top ? 2 : 3;
    }
    return LaneTop(top, best, (sums.x + sums.y) + (sums.z + sums.w), found_nan);
}

RowTop join_lanes(LaneTop own) {
    RowTop t;
    t.top = group_max(own.top);
    t.index = group_min(own.top == t.top ? own.index : 0xffffffffu);
    t.index = t.index < p.vocab ? t.index : 0;
    float sum = own.sum * exp(own.top - t.top);
    t.sum = group_add(own.found_nan ? uintBitsToFloat(NAN_BITS) : sum);
    t.log_sum = is_nan(t.sum) ? t.sum : log(t.sum);
    return t;
}

RowTop row_top(uint row) { return join_lanes(lane_top(row, gl_LocalInvocationID.x)); }

#endif
