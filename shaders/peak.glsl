// Operands of f16 matrix units. f16 has not the range of what is multiplied (activations, gradients, bf16 weights): so every row of x and column of w is brought
// to a peak of 2^14 by a power of two, which is taken back from the sums: nothing overflows, and what is lost is below 2^-38 of the peak. A peak is the bits of
// the greatest magnitude, whose order is that of the magnitudes; NaN is above all.
#ifndef VKMOE_PEAK_GLSL
#define VKMOE_PEAK_GLSL
uint peak_of(float v) { return floatBitsToUint(v) & 0x7fffffffu; }
uint peak_of(vec4 v) {
    const uvec4 bits = floatBitsToUint(v) & 0x7fffffffu;
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}
// Peak of exponent field e: times 2^(141 - e) it is 2^14 to 2^15; 2^(e - 141) takes that back.
uint peak_exponent(uint peak) { return max(peak >> 23, 15); }
float peak_scale(uint peak) { return uintBitsToFloat((268 - peak_exponent(peak)) << 23); }
float peak_unscale(uint peak) { return uintBitsToFloat((peak_exponent(peak) - 14) << 23); }
#endif
