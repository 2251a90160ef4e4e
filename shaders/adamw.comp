// AdamW (Loshchilov and Hutter 2019): w -= lr * (decay * w + m1hat / (sqrt(m2hat) + eps)), the gradient times the clip factor; nothing happens
// when the step is not finite. bf16 weights round stochastically: sixteen random bits are added below the last place, so that the
// mean of the rounded weights is the exact one. Eight elements an invocation share one draw: seed of the run, stream (tensor, step), index of
// the eight in the tensor, of which this may be a part.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "philox.glsl"
#include "pairs.glsl"
#ifdef PAIRS
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

layout(constant_id = 2) const uint BF16 = 0;
layout(constant_id = 3) const uint STEPS = 1; // eights of elements an invocation updates, or with PAIRS 64 of a workgroup

layout(constant_id = 4) const uint MOMENTS8 = 0; // moments in 8 bits, see below; STEPS counts blocks then

float learning_rate, beta1, beta2, eps, correction1, correction2, clip;

VEC step(VEC w, VEC g, inout VEC m1, inout VEC m2) {
    g *= clip;
    m1 += (1 - beta1) * (g - m1);
    m2 = beta2 * m2 + (1 - beta2) * g * g;
    w -= learning_rate * p.decay * w;
    return w - learning_rate * (m1 / correction1) / (sqrt(m2 / correction2) + eps);
}

uint round_bf16(float w, uint random16) {
    uint bits = floatBitsToUint(w);
    if ((bits & 0x7f800000u) != 0x7f800000u)
        bits += random16;
    return bits >> 16;
}

uvec4 draw(uint eighth, uint use) {
    u32_in words = u32_in(p.params);
    return philox(uvec2(words.v[8], words.v[9]), uvec2(p.tensor_index, words.v[10]), uvec2(p.first / 8 + eighth, use));
}

#ifdef PAIRS
// 64 elements, sixteen at a time (so that there is more under way than a load and a store); no more than `end` sixteens.
const uint AHEAD = 4;

void update(uint sixteen, uint end) {
    // Lane i draws for the i-th eight of the 64.
    const uvec4 draws = BF16 != 0 ? draw(2 * sixteen + LANE, 0) : uvec4(0);
    [[unroll]] for (uint j = 0; j < AHEAD; j++) {
        const uint from = 8 * min(sixteen + j, end - 1), to = 8 * (sixteen + j);
        VEC m1 = lanes_load(p.m1, from), m2 = lanes_load(p.m2, from), g = lanes_load(p.g, from), w;
        if (BF16 != 0) {
            const uint word = lanes_load_word(p.w, from);
            w = uintBitsToFloat(uvec2(word << 16, word & 0xffff0000u));
        } else {
            w = lanes_load(p.w, from);
        }
        w = step(w, g, m1, m2);
        const uvec4 r = uvec4(subgroupShuffle(draws.x, 2 * j + LANE / 4), subgroupShuffle(draws.y, 2 * j + LANE / 4),
                              subgroupShuffle(draws.z, 2 * j + LANE / 4), subgroupShuffle(draws.w, 2 * j + LANE / 4));
        const uint random = mix(mix(r.x, r.y, (LANE & 1) != 0), mix(r.z, r.w, (LANE & 1) != 0), (LANE & 2) != 0);
        if (sixteen + j < end) {
            if (BF16 != 0)
                u32_rw(p.w).v[to + LANE] = round_bf16(w.x, random & 0xffffu) | round_bf16(w.y, random >> 16) << 16;
            else
                lanes_store(p.w, to, w);
            lanes_store(p.m1, to, m1);
            lanes_store(p.m2, to, m2);
        }
    }
}
#else
void update(uint eighth, inout vec4 m1[2], inout vec4 m2[2]) {
    const vec4 g[2] = {f32x4_in(p.g).v[2 * eighth], f32x4_in(p.g).v[2 * eighth + 1]};
    if (BF16 == 0) {
        [[unroll]] for (uint i = 0; i < 2; i++)
            f32x4_rw(p.w).v[2 * eighth + i] = step(f32x4_in(p.w).v[2 * eighth + i], g[i], m1[i], m2[i]);
        return;
    }
    uvec4 old = u32x4_in(p.w).v[eighth], low = old << 16, high = old & 0xffff0000u;
    vec4 a = step(uintBitsToFloat(uvec4(low.x, high.x, low.y, high.y)), g[0], m1[0], m2[0]);
    vec4 b = step(uintBitsToFloat(uvec4(low.z, high.z, low.w, high.w)), g[1], m1[1], m2[1]);
    uvec4 r = draw(eighth, 0), r_low = r & 0xffffu, r_high = r >> 16, w;
    w.x = round_bf16(a.x, r_low.x) | round_bf16(a.y, r_high.x) << 16;
    w.y = round_bf16(a.z, r_low.y) | round_bf16(a.w, r_high.y) << 16;
    w.z = round_bf16(b.x, r_low.z) | round_bf16(b.y, r_high.z) << 16;
    w.w = round_bf16(b.z, r_low.w) | round_bf16(b.w, r_high.w) << 16;
    u32x4_rw(p.w).v[eighth] = w;
}

void update_plain(uint eighth) {
    vec4 m1[2], m2[2];
    [[unroll]] for (uint i = 0; i < 2; i++) {
        m1[i] = f32x4_in(p.m1).v[2 * eighth + i];
        m2[i] = f32x4_in(p.m2).v[2 * eighth + i];
    }
    update(eighth, m1, m2);
    [[unroll]] for (uint i = 0; i < 2; i++) {
        f32x4_rw(p.m1).v[2 * eighth + i] = m1[i];
        f32x4_rw(p.m2).v[2 * eighth + i] = m2[i];
    }
}

// ---- Moments in 8 bits
// A block is 64 elements: 16 words of codes and its greatest magnitude. Codes lie denser near 0, where most values are: a first moment is
// top * sign(q) * (q / 127)^2, a second one top * (q / 255)^4. They are rounded stochastically, so that a mean that changes by less than a code
// a step is not stuck; a second moment above 0 keeps a code above 0, or its root would divide by nothing.
const uint BLOCK_WORDS = 17;

vec4 decode(uint word, bool first, float top) {
    if (first) {
        vec4 q = vec4(ivec4(bitfieldExtract(int(word), 0, 8), bitfieldExtract(int(word), 8, 8),
                            bitfieldExtract(int(word), 16, 8), bitfieldExtract(int(word), 24, 8))) / 127;
        return top * q * abs(q);
    }
    vec4 q = vec4(word & 255, word >> 8 & 255, word >> 16 & 255, word >> 24) / 255;
    return top * (q * q) * (q * q);
}

uint encode(float x, bool first, float top, uint random16) {
    if (top == 0)
        return 0;
    float share = min(abs(x) / top, 1), most = first ? 127 : 255;
    float low = min(floor((first ? sqrt(share) : sqrt(sqrt(share))) * most), most - 1);
    float a = low / most, b = (low + 1) / most;
    a *= a, b *= b;
    if (!first)
        a *= a, b *= b;
    uint q = uint(low) + ((float(random16) + 0.5) / 65536 < (share - a) / (b - a) ? 1 : 0);
    if (first)
        return uint(x < 0 ? -int(q) : int(q)) & 255;
    return x > 0 ? max(q, 1) : q;
}

void store_block(bool first, uint block, uint quads, vec4 x[16], float top) {
    for (uint q = 0; q < quads; q++) {
        uvec4 r = draw(8 * block + q / 2, first ? 1 : 2);
        uvec2 half_r = q % 2 == 0 ? r.xy : r.zw;
        uint word = encode(x[q].x, first, top, half_r.x & 0xffffu) | encode(x[q].y, first, top, half_r.x >> 16) << 8 |
                    encode(x[q].z, first, top, half_r.y & 0xffffu) << 16 | encode(x[q].w, first, top, half_r.y >> 16) << 24;
        if (first)
            u32_rw(p.m1).v[BLOCK_WORDS * block + q] = word;
        else
            u32_rw(p.m2).v[BLOCK_WORDS * block + q] = word;
    }
    if (first)
        u32_rw(p.m1).v[BLOCK_WORDS * block + 16] = floatBitsToUint(top);
    else
        u32_rw(p.m2).v[BLOCK_WORDS * block + 16] = floatBitsToUint(top);
}

float greatest(vec4 x) { return max(max(abs(x.x), abs(x.y)), max(abs(x.z), abs(x.w))); }

void update_block(uint block) {
    uint at = BLOCK_WORDS * block, eighths = min(8, p.n / 8 - 8 * block);
    float top1 = uintBitsToFloat(u32_in(p.m1).v[at + 16]), top2 = uintBitsToFloat(u32_in(p.m2).v[at + 16]);
    vec4 all1[16], all2[16];
    float new1 = 0, new2 = 0;
    for (uint e = 0; e < eighths; e++) {
        vec4 m1[2], m2[2];
        [[unroll]] for (uint i = 0; i < 2; i++) {
            m1[i] = decode(u32_in(p.m1).v[at + 2 * e + i], true, top1);
            m2[i] = decode(u32_in(p.m2).v[at + 2 * e + i], false, top2);
        }
        update(8 * block + e, m1, m2);
        [[unroll]] for (uint i = 0; i < 2; i++) {
            all1[2 * e + i] = m1[i];
            all2[2 * e + i] = m2[i];
            new1 = max(new1, greatest(m1[i]));
            new2 = max(new2, greatest(m2[i]));
        }
    }
    store_block(true, block, 2 * eighths, all1, new1);
    store_block(false, block, 2 * eighths, all2, new2);
}
#endif

void main() {
    if (u32_in(p.result).v[4] == 0)
        return;
    learning_rate = p.params.v[1];
    beta1 = p.params.v[2];
    beta2 = p.params.v[3];
    eps = p.params.v[4];
    correction1 = p.params.v[5];
    correction2 = p.params.v[6];
    clip = p.result.v[3];
#ifdef PAIRS
    const uint first = group_index() * (AHEAD * STEPS), end = min(first + AHEAD * STEPS, p.n / 16);
    for (uint sixteen = first; sixteen < end; sixteen += AHEAD)
        update(sixteen, end);
#else
    uint first = group_index() * (LOCAL_SIZE * STEPS) + gl_LocalInvocationID.x;
    for (uint s = 0; s < STEPS; s++) {
        uint unit = first + s * LOCAL_SIZE;
        if (MOMENTS8 != 0 && 64 * unit < p.n)
            update_block(unit);
        else if (MOMENTS8 == 0 && 8 * unit < p.n)
            update_plain(unit);
    }
#endif
}
