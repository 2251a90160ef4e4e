// AdamW (Loshchilov and Hutter 2019): w -= lr * (decay * w + m1hat / (sqrt(m2hat) + eps)), the gradient times the clip factor; nothing happens
// when the step is not finite. bf16 weights round stochastically: sixteen random bits are added below the last place, so that the
// mean of the rounded weights is the exact one. Eight elements an invocation share one draw: seed of the run, stream (tensor, step), index of
// the eight.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "philox.glsl"

layout(constant_id = 2) const uint BF16 = 0;
layout(constant_id = 3) const uint STEPS = 1; // eights of elements an invocation updates

float learning_rate, beta1, beta2, eps, correction1, correction2, clip;

vec4 step4(uint quad, vec4 w) {
    vec4 g = f32x4_in(p.g).v[quad], m1 = f32x4_in(p.m1).v[quad], m2 = f32x4_in(p.m2).v[quad];
    g *= clip;
    m1 += (1 - beta1) * (g - m1);
    m2 = beta2 * m2 + (1 - beta2) * g * g;
    f32x4_rw(p.m1).v[quad] = m1;
    f32x4_rw(p.m2).v[quad] = m2;
    w -= learning_rate * p.decay * w;
    return w - learning_rate * (m1 / correction1) / (sqrt(m2 / correction2) + eps);
}

uint round_bf16(float w, uint random16) {
    uint bits = floatBitsToUint(w);
    if ((bits & 0x7f800000u) != 0x7f800000u)
        bits += random16;
    return bits >> 16;
}

void update(uint eighth) {
    if (BF16 == 0) {
        f32x4_rw(p.w).v[2 * eighth] = step4(2 * eighth, f32x4_in(p.w).v[2 * eighth]);
        f32x4_rw(p.w).v[2 * eighth + 1] = step4(2 * eighth + 1, f32x4_in(p.w).v[2 * eighth + 1]);
        return;
    }
    uvec4 old = u32x4_in(p.w).v[eighth], low = old << 16, high = old & 0xffff0000u;
    vec4 a = step4(2 * eighth, uintBitsToFloat(uvec4(low.x, high.x, low.y, high.y)));
    vec4 b = step4(2 * eighth + 1, uintBitsToFloat(uvec4(low.z, high.z, low.w, high.w)));
    u32_in words = u32_in(p.params);
    uvec4 r = philox(uvec2(words.v[8], words.v[9]), uvec2(p.tensor_index, words.v[10]), uvec2(eighth, 0));
    uvec4 r_low = r & 0xffffu, r_high = r >> 16, w;
    w.x = round_bf16(a.x, r_low.x) | round_bf16(a.y, r_high.x) << 16;
    w.y = round_bf16(a.z, r_low.y) | round_bf16(a.w, r_high.y) << 16;
    w.z = round_bf16(b.x, r_low.z) | round_bf16(b.y, r_high.z) << 16;
    w.w = round_bf16(b.z, r_low.w) | round_bf16(b.w, r_high.w) << 16;
    u32x4_rw(p.w).v[eighth] = w;
}

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
    uint first = group_index() * (LOCAL_SIZE * STEPS) + gl_LocalInvocationID.x;
    for (uint s = 0; s < STEPS; s++)
        if (8 * (first + s * LOCAL_SIZE) < p.n)
            update(first + s * LOCAL_SIZE);
}
