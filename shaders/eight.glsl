// The storage types of weights (formats.glsl) for CPU devices with eight lanes that run along a row: lane i gets element i of each eight. All loads
// have addresses that are the same for all lanes (lanes.glsl).
#ifndef VKMOE_EIGHT_GLSL
#define VKMOE_EIGHT_GLSL
#include "formats.glsl"
#include "lanes.glsl"
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
// lanes_load_TYPE_N(row, at, v): N eights from piece `at` of as many elements of the row on.
#define PIECES(type, element, N, VALUE)                                                                                \
    struct Piece_##type##_##N {                                                                                        \
        element v[8 * N];                                                                                              \
    };                                                                                                                 \
    layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Pieces_##type##_##N {                \
        Piece_##type##_##N v[];                                                                                        \
    };                                                                                                                 \
    void lanes_load_##type##_##N(uvec2 row, uint at, out float v[N]) {                                                 \
        const Piece_##type##_##N e = Pieces_##type##_##N(row).v[at];                                                   \
        [[unroll]] for (uint j = 0; j < N; j++) v[j] = VALUE(EIGHT(e.v, 8 * j));                                       \
    }
#define VALUE_f32(bits) (bits)
#define VALUE_f16(bits) unpackHalf2x16(uint(bits)).x
#define VALUE_bf16(bits) uintBitsToFloat(uint(bits) << 16)
PIECES(f32, float, 8, VALUE_f32)
PIECES(f32, float, 4, VALUE_f32)
PIECES(f32, float, 1, VALUE_f32)
PIECES(f16, uint16_t, 8, VALUE_f16)
PIECES(f16, uint16_t, 4, VALUE_f16)
PIECES(f16, uint16_t, 1, VALUE_f16)
PIECES(bf16, uint16_t, 8, VALUE_bf16)
PIECES(bf16, uint16_t, 4, VALUE_bf16)
PIECES(bf16, uint16_t, 1, VALUE_bf16)
PIECES(i8, int8_t, 4, float)
PIECES(u8, uint8_t, 2, float)

// lanes_load_TYPE(row, unit, units, q, scales): the four eights of a unit's quants, and the words of its scales.
void lanes_load_q8_0(uvec2 row, uint unit, uint units, out float q[4], out Unit scales) {
    lanes_load_i8_4(row, unit, q);
    scales = UNIT_ZERO;
    scales.d = half_at(u32x4_in(row), 8 * units, unit);
}

// Eight j of a unit: groups 2j and 2j + 1, of which lane i has byte i mod 4.
uint lane_bits(uint word, uint first, uint step) { return word >> (8 * (LANE & 3) + step * (LANE >> 2) + first); }
void lanes_nibbles(uvec2 row, uint unit, out uint q[4]) {
    const Piece_u8_2 e = Pieces_u8_2(row).v[unit];
    [[unroll]] for (uint j = 0; j < 2; j++) {
        q[j] = uint(EIGHT(e.v, 8 * j)) & 15;
        q[j + 2] = uint(EIGHT(e.v, 8 * j)) >> 4;
    }
}
void lanes_pairs(uvec2 row, uint at, out uint q[4]) {
    const uvec2 words = u32x2_in(row).v[at];
    [[unroll]] for (uint j = 0; j < 4; j++) q[j] = lane_bits((j & 1) == 0 ? words.x : words.y, 4 * (j >> 1), 2) & 3;
}
void lanes_add_bits(uvec2 row, uint at, uint to, inout uint q[4]) {
    const uint word = u32_in(row).v[at];
    [[unroll]] for (uint j = 0; j < 4; j++) q[j] |= (lane_bits(word, 2 * j, 1) & 1) << to;
}
void lanes_nibble(uvec2 row, uint unit, uint units, out uint q[4]) { lanes_nibbles(row, unit, q); }
#define lanes_curve lanes_nibble
void lanes_five(uvec2 row, uint unit, uint units, out uint q[4]) {
    lanes_nibbles(row, unit, q);
    lanes_add_bits(row, 4 * units + unit, 4, q);
}
void lanes_six(uvec2 row, uint unit, uint units, out uint q[4]) {
    uint high[4];
    lanes_nibbles(row, unit, q);
    lanes_pairs(row, 2 * units + unit, high);
    [[unroll]] for (uint j = 0; j < 4; j++) q[j] |= high[j] << 4;
}
void lanes_two(uvec2 row, uint unit, uint units, out uint q[4]) { lanes_pairs(row, unit, q); }
void lanes_three(uvec2 row, uint unit, uint units, out uint q[4]) {
    lanes_pairs(row, unit, q);
    lanes_add_bits(row, 2 * units + unit, 2, q);
}
float lanes_value_linear(uint quant) { return float(int(quant)); }
float lanes_value_curve(uint quant) { return curve(float(int(quant))); }
#define LANES_QUANTISED(type, value)                                                                                   \
    void lanes_load_##type(uvec2 row, uint unit, uint units, out float q[4], out Unit scales) {                        \
        uint quants[4];                                                                                                \
        PASTE(lanes_, KIND_##type)(row, unit, units, quants);                                                          \
        [[unroll]] for (uint j = 0; j < 4; j++) q[j] = lanes_value_##value(quants[j]);                                 \
        scales = UNIT_ZERO;                                                                                            \
        scales.at = unit & 7;                                                                                          \
        scales_load_##type(u32x4_in(row), BEFORE(type) * units, unit, units, scales);                                  \
    }
LANES_QUANTISED(q4_0, linear)
LANES_QUANTISED(q4_1, linear)
LANES_QUANTISED(q5_0, linear)
LANES_QUANTISED(q5_1, linear)
LANES_QUANTISED(q2_k, linear)
LANES_QUANTISED(q3_k, linear)
LANES_QUANTISED(q4_k, linear)
LANES_QUANTISED(q5_k, linear)
LANES_QUANTISED(q6_k, linear)
LANES_QUANTISED(iq4_nl, curve)
LANES_QUANTISED(iq4_xs, curve)
// Offset of quants that is the same for all units, in scales' own factors; 0 where each has its own.
#define OFFSET_q4_0 -8
#define OFFSET_q4_1 0
#define OFFSET_q8_0 0
#define OFFSET_q5_0 -16
#define OFFSET_q5_1 0
#define OFFSET_q2_k 0
#define OFFSET_q3_k -4
#define OFFSET_q4_k 0
#define OFFSET_q5_k 0
#define OFFSET_q6_k -32
#define OFFSET_iq4_nl 0
#define OFFSET_iq4_xs 0
// Whether a unit's scales have an offset of their own.
#define OWN_q4_0 false
#define OWN_q4_1 true
#define OWN_q8_0 false
#define OWN_q5_0 false
#define OWN_q5_1 true
#define OWN_q2_k true
#define OWN_q3_k false
#define OWN_q4_k true
#define OWN_q5_k true
#define OWN_q6_k false
#define OWN_iq4_nl false
#define OWN_iq4_xs false
#define LANES_OFFSET PASTE(OFFSET_, W)
#define LANES_OWN PASTE(OWN_, W)
#define lanes_load PASTE(lanes_load_, W)
#define lanes_scale PASTE(scale_, W)
#endif
