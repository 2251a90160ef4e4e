// The storage types of weights: the only file, with eight.glsl, that knows their bits (model/quant_device.c is the twin on the host). A kernel is built with
// -DW=f32 | f16 | bf16 | q4_0 | ... | iq4_xs and reads a row in units of W_UNIT elements: unit_load fetches one with as few and as wide
// loads as the type allows, unit_get8 turns eighth g of it into eight floats. Where neighbouring lanes take the eighths of a unit, each loads with eighth_load
// what its own needs, and eighth_get turns that into floats, times a power of two. Only 32-bit words are loaded.
#ifndef VKMOE_FORMATS_GLSL
#define VKMOE_FORMATS_GLSL

// Raw words, as loaded, of any type; what a type does not have is 0 and costs nothing.
struct Unit {
    uvec4 a, b;    // quants
    uvec2 h;       // their higher bits
    uint d, s, m;  // scale and offset, or the words in which they lie
    uint at;       // unit's number in its block of 256, the same for all rows
};
const Unit UNIT_ZERO = Unit(uvec4(0), uvec4(0), uvec2(0), 0, 0, 0, 0);

// Field by field: second ? b : a.
#define CHOOSE(a, b, second) mix(a, b, bvec4(second))
Unit unit_choose(Unit a, Unit b, bool second) {
    return Unit(CHOOSE(a.a, b.a, second), CHOOSE(a.b, b.b, second), mix(a.h, b.h, bvec2(second)), second ? b.d : a.d,
                second ? b.s : a.s, second ? b.m : a.m, a.at);
}
// By mix: `?:` becomes a branch where the driver's compiler sees the loads in it.
uint choose4(uint i, uvec4 v) {
    uvec2 u = mix(v.xy, v.zw, bvec2((i & 2) != 0));
    return mix(u.x, u.y, (i & 1) != 0);
}
uint choose8(uint i, uvec4 a, uvec4 b) { return choose4(i, CHOOSE(a, b, (i & 4) != 0)); }
uvec4 quad_at(u32x4_in w, uint i) { return AT(u32x4_in, w, i, 16); }
uvec2 pair_at(u32x4_in w, uint i) { return AT(u32x2_in, w, i, 8); }
uint word_at(u32x4_in w, uint i) { return AT(u32_in, w, i, 4); }
uint half_at(u32x4_in w, uint word, uint i) { return word_at(w, word + (i >> 1)) >> ((i & 1) * 16); }
// Bytes without a sign, of which `mask` has the bits, every other one times ODD_BYTES. AMD's and Intel's cards turn each into a float in one instruction; NVIDIA's do
// so at an eighth of their rate, and with BYTES_AS_BITS put it below the bits of 2^23 instead, of which it is what is left, times 256 where it is the second of
// two. Both are exact.
#ifdef BYTES_AS_BITS // by a module that takes unit_quants8 and piece_quants8 alone, and not for a curve: nothing else knows ODD_BYTES
#define ODD_BYTES (BYTES_AS_BITS != 0 ? 1 / 256.0 : 1.0)
#else
#define BYTES_AS_BITS 0
#define ODD_BYTES     1
#define BITS_OF_2_23  0
#endif
vec4 bytes4(uint word, uint mask) {
    if (BYTES_AS_BITS != 0)
        return uintBitsToFloat(uvec4(word, word, uvec2(word >> 16)) & uvec2(mask, mask << 8).xyxy | BITS_OF_2_23) - 8388608.0;
    word &= mask * 0x01010101u;
    return vec4(word & 255, word >> 8 & 255, word >> 16 & 255, word >> 24);
}
vec4 signed_bytes4(uint word) {
    return vec4(bitfieldExtract(int(word), 0, 8), bitfieldExtract(int(word), 8, 8), bitfieldExtract(int(word), 16, 8),
                bitfieldExtract(int(word), 24, 8));
}

// ---- Plain types and q8_0
// `row`: index of the row's first 16 bytes; `unit`: unit in the row; `units`: units in a row (where the next plane begins).

#define UNIT_f32 8
#define UNIT_f16 8
#define UNIT_bf16 8
#define UNIT_q8_0 32
void unit_load_f32(u32x4_in w, uint row, uint unit, uint units, out Unit u) {
    u = UNIT_ZERO;
    u.a = quad_at(w, row + 2 * unit);
    u.b = quad_at(w, row + 2 * unit + 1);
}
void unit_load_f16(u32x4_in w, uint row, uint unit, uint units, out Unit u) {
    u = UNIT_ZERO;
    u.a = quad_at(w, row + unit);
}
void unit_load_bf16(u32x4_in w, uint row, uint unit, uint units, out Unit u) { unit_load_f16(w, row, unit, units, u); }
void unit_load_q8_0(u32x4_in w, uint row, uint unit, uint units, out Unit u) {
    unit_load_f32(w, row, unit, units, u);
    u.d = half_at(w, 4 * (row + 2 * units), unit);
}

// Elements 8g .. 8g+7 of the unit. g is a constant where speed matters.
void unit_get8_f32(Unit u, uint g, out vec4 a, out vec4 b) {
    a = uintBitsToFloat(u.a);
    b = uintBitsToFloat(u.b);
}
void unit_get8_f16(Unit u, uint g, out vec4 a, out vec4 b) {
    a = vec4(unpackHalf2x16(u.a.x), unpackHalf2x16(u.a.y));
    b = vec4(unpackHalf2x16(u.a.z), unpackHalf2x16(u.a.w));
}
void unit_get8_bf16(Unit u, uint g, out vec4 a, out vec4 b) {
    uvec4 low = u.a << 16, high = u.a & 0xffff0000u;
    a = uintBitsToFloat(uvec4(low.x, high.x, low.y, high.y));
    b = uintBitsToFloat(uvec4(low.z, high.z, low.w, high.w));
}
void unit_get8_q8_0(Unit u, uint g, out vec4 a, out vec4 b) {
    uvec4 half_block = g < 2 ? u.a : u.b;
    uvec2 words = (g & 1) == 0 ? half_block.xy : half_block.zw;
    float d = unpackHalf2x16(u.d).x;
    a = signed_bytes4(words.x) * d;
    b = signed_bytes4(words.y) * d;
}
// A quarter of a unit, piece `part` of a row: four elements of its first half and the four of its second that lie 16 behind them.
void piece_load_q8_0(u32x4_in w, uint row, uint part, uint units, out Unit u) {
    u = UNIT_ZERO;
    u.a.x = word_at(w, 4 * row + (part >> 2) * 8 + (part & 3));
    u.a.y = word_at(w, 4 * row + (part >> 2) * 8 + (part & 3) + 4);
    u.d = half_at(w, 4 * (row + 2 * units), part >> 2);
}
void piece_quants8_q8_0(Unit u, uint part, out vec4 a, out vec4 b) {
    a = bytes4(u.a.x ^ 0x80808080u, 255);
    b = bytes4(u.a.y ^ 0x80808080u, 255);
}
// Eighth g of a unit alone, its words in a.xy and h.x. Units of plain types have but one. Quants are bytes without a sign everywhere, those of q8_0 as q + 128,
// by which nothing is rounded on the way: unit_quants8 gives them as bytes4 does, unit_scale factor and offset of the unit's first or second half.
#define eighth_load_f32(w, row, unit, g, units, u) unit_load_f32(w, row, unit, units, u)
#define eighth_load_f16(w, row, unit, g, units, u) unit_load_f16(w, row, unit, units, u)
#define eighth_load_bf16(w, row, unit, g, units, u) unit_load_bf16(w, row, unit, units, u)
#define EIGHTH_PLAIN(type)                                                                                             \
    void eighth_get_##type(Unit u, uint g, float times, out vec4 a, out vec4 b) {                                      \
        unit_get8_##type(u, g, a, b);                                                                                  \
        a *= times;                                                                                                    \
        b *= times;                                                                                                    \
    }
EIGHTH_PLAIN(f32)
EIGHTH_PLAIN(f16)
EIGHTH_PLAIN(bf16)
vec2 scale_q8_0(Unit u, bool second) { return unpackHalf2x16(u.d).x * vec2(1, -128); }
void eighth_get_q8_0(Unit u, uint g, float times, out vec4 a, out vec4 b) {
    const vec2 s = scale_q8_0(u, false) * times;
    a = fma(bytes4(u.a.x ^ 0x80808080u, 255), vec4(s.x), vec4(s.y));
    b = fma(bytes4(u.a.y ^ 0x80808080u, 255), vec4(s.x), vec4(s.y));
}
void unit_quants8_q8_0(Unit u, uint g, out vec4 a, out vec4 b) {
    const uvec4 half_block = (g < 2 ? u.a : u.b) ^ 0x80808080u;
    a = bytes4((g & 1) == 0 ? half_block.x : half_block.z, 255);
    b = bytes4((g & 1) == 0 ? half_block.y : half_block.w, 255);
}
void eighth_load_q8_0(u32x4_in w, uint row, uint unit, uint g, uint units, out Unit u) {
    u = UNIT_ZERO;
    u.a.xy = pair_at(w, (2 * row + g) + 4 * unit);
    u.d = half_at(w, 4 * (row + 2 * units), unit);
}

// Where lanes run along a row (NN), a lane reads a narrow piece of WORD_COLS columns: as few words as the type allows.
// `part` counts the pieces of a row; columns of a piece: word_column(part, 0 .. WORD_COLS - 1).
#define WORD_f32 2
#define WORD_f16 2
#define WORD_bf16 2
#define WORD_q8_0 4
uint word_column_f32(uint part, uint i) { return 2 * part + i; }
uint word_column_f16(uint part, uint i) { return 2 * part + i; }
uint word_column_bf16(uint part, uint i) { return 2 * part + i; }
uint word_column_q8_0(uint part, uint i) { return 4 * part + i; }
// `units`: blocks of 32 in a row, where the type has them.
void word_load_f32(u32x4_in w, uint row, uint part, uint units, out float v[2]) {
    v[0] = uintBitsToFloat(word_at(w, 4 * row + 2 * part));
    v[1] = uintBitsToFloat(word_at(w, 4 * row + 2 * part + 1));
}
void word_load_f16(u32x4_in w, uint row, uint part, uint units, out float v[2]) {
    vec2 pair = unpackHalf2x16(word_at(w, 4 * row + part));
    v[0] = pair.x;
    v[1] = pair.y;
}
void word_load_bf16(u32x4_in w, uint row, uint part, uint units, out float v[2]) {
    uint word = word_at(w, 4 * row + part);
    v[0] = uintBitsToFloat(word << 16);
    v[1] = uintBitsToFloat(word & 0xffff0000u);
}
void word_load_q8_0(u32x4_in w, uint row, uint part, uint units, out float v[4]) {
    float d = unpackHalf2x16(half_at(w, 4 * (row + 2 * units), part >> 3)).x;
    vec4 q = signed_bytes4(word_at(w, 4 * row + part)) * d;
    [[unroll]] for (uint i = 0; i < 4; i++) v[i] = q[i];
}

// The same piece by piece for CPU devices with 8 lanes (see unit_load_lanes): lane i gets piece first + i; first is a multiple of 8. Where i is
// gl_SubgroupInvocationID the driver's compiler makes one load of eight neighbours; words of one struct, so that it sees that they are some.
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer u32x16_in { uvec4 v[4]; };
u32x16_in words_from(u32x4_in w, uint at) {
    uint carry, low = uaddCarry(uvec2(w).x, at << 4, carry);
    return u32x16_in(uvec2(low, uvec2(w).y + (at >> 28) + carry));
}
uint word_lanes(u32x4_in w, uint row, uint first, uint lane) {
    u32x16_in words = words_from(w, row + first / 4);
    return choose8(lane, words.v[0], words.v[1]);
}
// Columns of eight pieces of f32, which need no unpacking: first + i, then first + 8 + i. The other types have those of word_column.
uint word_column_lanes_f32(uint part, uint i) { return (part & ~7u) * 2 + 8 * i + (part & 7); }
#define word_column_lanes_f16 word_column_f16
#define word_column_lanes_bf16 word_column_bf16
#define word_column_lanes_q8_0 word_column_q8_0
void word_load_lanes_f32(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[2]) {
    u32x16_in words = words_from(w, row + first / 2);
    v[0] = uintBitsToFloat(choose8(lane, words.v[0], words.v[1]));
    v[1] = uintBitsToFloat(choose8(lane, words.v[2], words.v[3]));
}
void word_load_lanes_f16(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[2]) {
    vec2 pair = unpackHalf2x16(word_lanes(w, row, first, lane));
    v[0] = pair.x;
    v[1] = pair.y;
}
void word_load_lanes_bf16(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[2]) {
    uint word = word_lanes(w, row, first, lane);
    v[0] = uintBitsToFloat(word << 16);
    v[1] = uintBitsToFloat(word & 0xffff0000u);
}
void word_load_lanes_q8_0(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[4]) {
    float d = unpackHalf2x16(half_at(w, 4 * (row + 2 * units), first / 8)).x;
    vec4 q = signed_bytes4(word_lanes(w, row, first, lane)) * d;
    [[unroll]] for (uint i = 0; i < 4; i++) v[i] = q[i];
}

// ---- Quants of 2 to 6 bits
// A unit is 32 elements in 8 groups of 4: group f holds elements 4f .. 4f+3 in its four bytes' order, in planes of a row:
//   nibbles  16 bytes a unit: word f mod 4, in the low nibbles of its bytes for f < 4, in the high ones above
//   pairs     8 bytes a unit: word f / 2 mod 2, bits 2i of its bytes with i = f mod 2 + 2 (f / 4)
//   bits      4 bytes a unit: bit f of the word's bytes
// A kind says which planes a type has: nibble and curve nibbles, five nibbles and bits, six nibbles and pairs, two pairs, three pairs
// and bits. GROUP_kind gives the group's four quants from its words of the first plane and of the second.

uint pair_field(uint f) { return 2 * (f & 1) + (f & 4); } // first bit
uint nibbles(uint word, uint f) { return word >> (f & 4) & 0x0f0f0f0fu; }
vec4 group_nibble(uint word, uint high, uint f) { return bytes4(word >> (f & 4), 15); }
vec4 group_five(uint word, uint high, uint f) { return bytes4(nibbles(word, f) | (high >> f & 0x01010101u) << 4, 31); }
vec4 group_six(uint word, uint high, uint f) {
    return bytes4(nibbles(word, f) | (high >> pair_field(f) & 0x03030303u) << 4, 63);
}
vec4 group_two(uint word, uint high, uint f) { return bytes4(word >> pair_field(f), 3); }
vec4 group_three(uint word, uint high, uint f) {
    return bytes4(word >> pair_field(f) & 0x03030303u | (high >> f & 0x01010101u) << 2, 7);
}
// The 16 values of IQ4, -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, are a polynomial of degree 4 rounded; it is never
// further than 0.434 from them.
#define CURVE(type)                                                                                                    \
    type curve(type quant) {                                                                                           \
        type x = quant - 7.5;                                                                                          \
        type y = fma(x, type(1.58604282e-3), type(7.86677240e-2));                                                     \
        y = fma(x, y, type(-1.37192704e-1));                                                                           \
        y = fma(x, y, type(11.5172086));                                                                               \
        return roundEven(fma(x, y, type(-4.30124901)));                                                                \
    }
CURVE(float)
CURVE(vec4)
vec4 group_curve(uint word, uint high, uint f) { return curve(bytes4(word >> (f & 4), 15)); }

// Words of a kind: of a whole unit, of one lane's piece (4 elements of group part mod 4, 4 of the group 4 above), of eight lanes'
// pieces. Words of planes behind the first: FIRST_kind words of the row are before the second, BEFORE_kind before the scales, a unit.
#define FIRST_nibble 4
#define FIRST_curve 4
#define FIRST_five 4
#define FIRST_six 4
#define FIRST_two 2
#define FIRST_three 2
#define BEFORE_nibble 4
#define BEFORE_curve 4
#define BEFORE_five 5
#define BEFORE_six 6
#define BEFORE_two 2
#define BEFORE_three 3
Unit quants_load(u32x4_in w, uint row, uint unit, uint units, uint first, uint before) {
    Unit u = UNIT_ZERO;
    if (first == 4)
        u.a = quad_at(w, row + unit);
    else
        u.a.xy = pair_at(w, 2 * row + unit);
    if (before == 6)
        u.h = pair_at(w, 2 * (row + units) + unit);
    else if (before != first)
        u.h.x = word_at(w, 4 * row + first * units + unit);
    u.at = unit & 7;
    return u;
}
uvec2 piece_load(u32x4_in w, uint row, uint part, uint units, uint first, uint before) {
    uint unit = part >> 2, high = 4 * row + first * units;
    return uvec2(word_at(w, 4 * row + (first == 4 ? part : part >> 1)),
                 before == 6       ? word_at(w, high + (part >> 1))
                 : before != first ? word_at(w, high + unit)
                                   : 0);
}
uvec2 piece_lanes(u32x4_in w, uint row, uint part, uint units, uint lane, uint first, uint before) {
    uint unit = part >> 2, high = 4 * row + first * units;
    return uvec2(first == 4 ? word_lanes(w, row, part, lane) : choose4(lane >> 1, w.v[row + part / 8]),
                 before == 6       ? choose4(lane >> 1, w.v[row + units + part / 8])
                 : before != first ? lane < 4 ? word_at(w, high + unit) : word_at(w, high + min(unit + 1, units - 1))
                                   : 0);
}
// Of groups 2g and 2g + 1 alone: of a whole unit, and from memory.
Unit eighth_of(Unit u, uint g, uint first, uint before) {
    u.a.xy = first == 2 ? uvec2((g & 1) == 0 ? u.a.x : u.a.y) : (g & 1) == 0 ? u.a.xy : u.a.zw;
    u.h.x = before == 6 && (g & 1) != 0 ? u.h.y : u.h.x;
    return u;
}
Unit eighth_quants(u32x4_in w, uint row, uint unit, uint g, uint units, uint first, uint before) {
    Unit u = UNIT_ZERO;
    u.a.xy = first == 4 ? pair_at(w, (2 * row + (g & 1)) + 2 * unit) : uvec2(word_at(w, (4 * row + (g & 1)) + 2 * unit));
    if (before == 6)
        u.h.x = word_at(w, (4 * (row + units) + (g & 1)) + 2 * unit);
    else if (before != first)
        u.h.x = word_at(w, 4 * row + first * units + unit);
    u.at = unit & 7;
    return u;
}

// ---- Scales
// scales_load_TYPE fetches the words d, s and m of a unit from the planes that begin at word `at`; scale_TYPE makes factor and offset of
// the unit's first or second half of them: value = factor * quant + offset.

#define KIND_q4_0 nibble
#define KIND_q4_1 nibble
#define KIND_q5_0 five
#define KIND_q5_1 five
#define KIND_q2_k two
#define KIND_q3_k three
#define KIND_q4_k nibble
#define KIND_q5_k five
#define KIND_q6_k six
#define KIND_iq4_nl curve
#define KIND_iq4_xs curve

void scales_load_q4_0(u32x4_in w, uint at, uint unit, uint units, inout Unit u) { u.d = half_at(w, at, unit); }
void scales_load_q4_1(u32x4_in w, uint at, uint unit, uint units, inout Unit u) { u.d = word_at(w, at + unit); }
void scales_load_q5_0(u32x4_in w, uint at, uint unit, uint units, inout Unit u) { u.d = half_at(w, at, unit); }
void scales_load_q5_1(u32x4_in w, uint at, uint unit, uint units, inout Unit u) { u.d = word_at(w, at + unit); }
void scales_load_iq4_nl(u32x4_in w, uint at, uint unit, uint units, inout Unit u) { u.d = half_at(w, at, unit); }
// Two bytes a unit, then d and the minimum's d per block.
void scales_load_q2_k(u32x4_in w, uint at, uint unit, uint units, inout Unit u) {
    u.s = half_at(w, at, unit);
    u.d = word_at(w, at + units / 2 + unit / 8);
}
// Three words per block (see scale_q3_k), then d.
void scales_load_q3_k(u32x4_in w, uint at, uint unit, uint units, inout Unit u) {
    u.s = word_at(w, at + unit / 8 * 3 + (unit >> 2 & 1));
    u.m = word_at(w, at + unit / 8 * 3 + 2);
    u.d = half_at(w, at + units / 8 * 3, unit / 8);
}
// Four words per block: d and the minimum's d, then three (see scale_q4_k).
void scales_load_q4_k(u32x4_in w, uint at, uint unit, uint units, inout Unit u) {
    const uint block = at / 4 + unit / 8;
    u.d = AT(u32x4_in, w, block, 16).x;
    u.s = AT(u32x4_in, w, block, 16)[1 + (unit >> 2 & 1)];
    u.m = AT(u32x4_in, w, block, 16).w;
}
void scales_load_q5_k(u32x4_in w, uint at, uint unit, uint units, inout Unit u) {
    scales_load_q4_k(w, at, unit, units, u);
}
// Two signed bytes a unit, then d per block.
void scales_load_q6_k(u32x4_in w, uint at, uint unit, uint units, inout Unit u) {
    u.s = half_at(w, at, unit);
    u.d = half_at(w, at + units / 2, unit / 8);
}
// Two words per block: d and the scales' higher two bits, the lower four.
void scales_load_iq4_xs(u32x4_in w, uint at, uint unit, uint units, inout Unit u) {
    u.d = word_at(w, at + unit / 8 * 2);
    u.s = word_at(w, at + unit / 8 * 2 + 1);
}

vec2 scale_q4_0(Unit u, bool second) { return unpackHalf2x16(u.d).x * vec2(1, -8); }
vec2 scale_q4_1(Unit u, bool second) { return unpackHalf2x16(u.d); }
vec2 scale_q5_0(Unit u, bool second) { return unpackHalf2x16(u.d).x * vec2(1, -16); }
vec2 scale_q5_1(Unit u, bool second) { return unpackHalf2x16(u.d); }
vec2 scale_iq4_nl(Unit u, bool second) { return vec2(unpackHalf2x16(u.d).x, 0); }
vec2 scale_q2_k(Unit u, bool second) {
    uint s = second ? u.s >> 8 : u.s;
    return unpackHalf2x16(u.d) * vec2(s & 15, -float(s >> 4 & 15));
}
// Of 16 scales of 6 bits: the lower four of 8 in the first word, of 8 in the second, the higher two of all in the third.
vec2 scale_q3_k(Unit u, bool second) {
    uint i = 2 * u.at + (second ? 1 : 0);
    uint s = u.s >> 4 * (i & 7) & 15 | (u.m >> 2 * i & 3) << 4;
    return unpackHalf2x16(u.d).x * (float(s) - 32) * vec2(1, -4);
}
// Of 8 units: the scale's six and the minimum's lower two bits in a byte, in two words; the minimum's higher four in the third.
vec2 scale_q4_k(Unit u, bool second) {
    uint s = u.s >> 8 * (u.at & 3), m = s >> 6 & 3 | (u.m >> 4 * u.at & 15) << 2;
    return unpackHalf2x16(u.d) * vec2(s & 63, -float(m));
}
vec2 scale_q5_k(Unit u, bool second) { return scale_q4_k(u, second); }
vec2 scale_q6_k(Unit u, bool second) {
    int s = second ? bitfieldExtract(int(u.s), 8, 8) : bitfieldExtract(int(u.s), 0, 8);
    return unpackHalf2x16(u.d).x * float(s) * vec2(1, -32);
}
vec2 scale_iq4_xs(Unit u, bool second) {
    uint s = u.s >> 4 * u.at & 15 | (u.d >> 16 + 2 * u.at & 3) << 4;
    return vec2(unpackHalf2x16(u.d).x * (float(s) - 32), 0);
}

// Whether the halves of a unit have scales of their own.
#define HALVES_q4_0 false
#define HALVES_q4_1 false
#define HALVES_q8_0 false
#define HALVES_q5_0 false
#define HALVES_q5_1 false
#define HALVES_q2_k true
#define HALVES_q3_k true
#define HALVES_q4_k false
#define HALVES_q5_k false
#define HALVES_q6_k true
#define HALVES_iq4_nl false
#define HALVES_iq4_xs false

#define BEFORE(type) PASTE(BEFORE_, KIND_##type)
#define FIRST(type) PASTE(FIRST_, KIND_##type)
#define GROUP(type) PASTE(group_, KIND_##type)
#define QUANTISED(type)                                                                                                \
    void unit_load_##type(u32x4_in w, uint row, uint unit, uint units, out Unit u) {                                   \
        u = quants_load(w, row, unit, units, FIRST(type), BEFORE(type));                                               \
        scales_load_##type(w, 4 * row + BEFORE(type) * units, unit, units, u);                                         \
    }                                                                                                                  \
    void eighth_load_##type(u32x4_in w, uint row, uint unit, uint g, uint units, out Unit u) {                         \
        u = eighth_quants(w, row, unit, g, units, FIRST(type), BEFORE(type));                                          \
        scales_load_##type(w, 4 * row + BEFORE(type) * units, unit, units, u);                                         \
    }                                                                                                                  \
    void eighth_get_##type(Unit u, uint g, float times, out vec4 a, out vec4 b) {                                      \
        vec2 s = scale_##type(u, g >= 2) * times;                                                                      \
        a = fma(GROUP(type)(u.a.x, u.h.x, 2 * g), vec4(s.x), vec4(s.y));                                               \
        b = fma(GROUP(type)(u.a.y, u.h.x, 2 * g + 1), vec4(s.x), vec4(s.y));                                           \
    }                                                                                                                  \
    void unit_get8_##type(Unit u, uint g, out vec4 a, out vec4 b) {                                                    \
        eighth_get_##type(eighth_of(u, g, FIRST(type), BEFORE(type)), g, 1, a, b);                                     \
    }                                                                                                                  \
    void unit_quants8_##type(Unit u, uint g, out vec4 a, out vec4 b) {                                                 \
        const Unit own = eighth_of(u, g, FIRST(type), BEFORE(type));                                                   \
        a = GROUP(type)(own.a.x, own.h.x, 2 * g);                                                                      \
        b = GROUP(type)(own.a.y, own.h.x, 2 * g + 1);                                                                  \
    }                                                                                                                  \
    uint word_column_##type(uint part, uint i) { return (part >> 2) * 32 + (part & 3) * 4 + (i & 3) + (i & 4) * 4; }   \
    void word_get_##type(uvec2 piece, uint part, Unit u, out float v[8]) {                                             \
        vec2 s = scale_##type(u, false), t = scale_##type(u, true);                                                    \
        vec4 low = fma(GROUP(type)(piece.x, piece.y, part & 3), vec4(s.x), vec4(s.y));                                 \
        vec4 high = fma(GROUP(type)(piece.x, piece.y, (part & 3) + 4), vec4(t.x), vec4(t.y));                          \
        [[unroll]] for (uint i = 0; i < 4; i++) {                                                                      \
            v[i] = low[i];                                                                                             \
            v[4 + i] = high[i];                                                                                        \
        }                                                                                                              \
    }                                                                                                                  \
    void piece_load_##type(u32x4_in w, uint row, uint part, uint units, out Unit u) {                                  \
        const uvec2 words = piece_load(w, row, part, units, FIRST(type), BEFORE(type));                                \
        u = UNIT_ZERO;                                                                                                 \
        u.a.x = words.x;                                                                                               \
        u.h.x = words.y;                                                                                               \
        scales_load_##type(w, 4 * row + BEFORE(type) * units, part >> 2, units, u);                                    \
        u.at = part >> 2 & 7;                                                                                          \
    }                                                                                                                  \
    void piece_quants8_##type(Unit u, uint part, out vec4 a, out vec4 b) {                                             \
        a = GROUP(type)(u.a.x, u.h.x, part & 3);                                                                       \
        b = GROUP(type)(u.a.x, u.h.x, (part & 3) + 4);                                                                 \
    }                                                                                                                  \
    void word_load_##type(u32x4_in w, uint row, uint part, uint units, out float v[8]) {                               \
        Unit u;                                                                                                        \
        piece_load_##type(w, row, part, units, u);                                                                     \
        word_get_##type(uvec2(u.a.x, u.h.x), part, u, v);                                                              \
    }                                                                                                                  \
    void word_load_lanes_##type(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[8]) {             \
        Unit u = UNIT_ZERO, last = UNIT_ZERO;                                                                          \
        uint unit = first >> 2, next = min(unit + 1, units - 1);                                                       \
        scales_load_##type(w, 4 * row + BEFORE(type) * units, unit, units, u);                                         \
        scales_load_##type(w, 4 * row + BEFORE(type) * units, next, units, last);                                      \
        u = unit_choose(u, last, lane >= 4);                                                                           \
        u.at = lane < 4 ? unit & 7 : next & 7;                                                                         \
        word_get_##type(piece_lanes(w, row, first, units, lane, FIRST(type), BEFORE(type)), lane & 3, u, v);           \
    }
QUANTISED(q4_0)
QUANTISED(q4_1)
QUANTISED(q5_0)
QUANTISED(q5_1)
QUANTISED(q2_k)
QUANTISED(q3_k)
QUANTISED(q4_k)
QUANTISED(q5_k)
QUANTISED(q6_k)
QUANTISED(iq4_nl)
QUANTISED(iq4_xs)
#define UNIT_q4_0 32
#define WORD_q4_0 8
#define word_column_lanes_q4_0 word_column_q4_0
#define UNIT_q4_1 32
#define WORD_q4_1 8
#define word_column_lanes_q4_1 word_column_q4_1
#define UNIT_q5_0 32
#define WORD_q5_0 8
#define word_column_lanes_q5_0 word_column_q5_0
#define UNIT_q5_1 32
#define WORD_q5_1 8
#define word_column_lanes_q5_1 word_column_q5_1
#define UNIT_q2_k 32
#define WORD_q2_k 8
#define word_column_lanes_q2_k word_column_q2_k
#define UNIT_q3_k 32
#define WORD_q3_k 8
#define word_column_lanes_q3_k word_column_q3_k
#define UNIT_q4_k 32
#define WORD_q4_k 8
#define word_column_lanes_q4_k word_column_q4_k
#define UNIT_q5_k 32
#define WORD_q5_k 8
#define word_column_lanes_q5_k word_column_q5_k
#define UNIT_q6_k 32
#define WORD_q6_k 8
#define word_column_lanes_q6_k word_column_q6_k
#define UNIT_iq4_nl 32
#define WORD_iq4_nl 8
#define word_column_lanes_iq4_nl word_column_iq4_nl
#define UNIT_iq4_xs 32
#define WORD_iq4_xs 8
#define word_column_lanes_iq4_xs word_column_iq4_xs

#ifdef W_ANY
// -DW=any -DW_ANY: the type is a specialisation constant, where the number of modules would grow too large otherwise.
layout(constant_id = 13) const uint W_TYPE = 0; // enum DType
const uint UNIT_any = W_TYPE < 3 ? 8 : 32;
#define EACH_TYPE(DO)                                                                                                  \
    DO(0, f32) DO(1, f16) DO(2, bf16) DO(3, q4_0) DO(4, q4_1)                                                          \
    DO(5, q8_0) DO(6, q5_0) DO(7, q5_1) DO(8, q2_k) DO(9, q3_k)                                                        \
    DO(10, q4_k) DO(11, q5_k) DO(12, q6_k) DO(13, iq4_nl) DO(14, iq4_xs)
void eighth_load_any(u32x4_in w, uint row, uint unit, uint g, uint units, out Unit u) {
    u = UNIT_ZERO;
#define LOAD8(number, type)                                                                                            \
    if (W_TYPE == number)                                                                                              \
        eighth_load_##type(w, row, unit, g, units, u);
    EACH_TYPE(LOAD8)
}
void eighth_get_any(Unit u, uint g, float times, out vec4 a, out vec4 b) {
    a = b = vec4(0);
#define GET_EIGHTH(number, type)                                                                                       \
    if (W_TYPE == number)                                                                                              \
        eighth_get_##type(u, g, times, a, b);
    EACH_TYPE(GET_EIGHTH)
}
#endif

#ifdef W
#define W_UNIT PASTE(UNIT_, W)
#define unit_load PASTE(unit_load_, W)
#define unit_get8 PASTE(unit_get8_, W)
#define unit_quants8 PASTE(unit_quants8_, W)
#define unit_scale PASTE(scale_, W)
#define unit_piece_load PASTE(piece_load_, W)
#define piece_quants8 PASTE(piece_quants8_, W)
#define W_HALVES PASTE(HALVES_, W)
#define eighth_load PASTE(eighth_load_, W)
#define eighth_get PASTE(eighth_get_, W)
#define WORD_COLS PASTE(WORD_, W)
#define word_column PASTE(word_column_, W)
#define word_column_lanes PASTE(word_column_lanes_, W)
#define word_load PASTE(word_load_, W)
#define word_load_lanes PASTE(word_load_lanes_, W)

#ifndef W_ANY
// For CPU devices with 8 lanes: lane i gets the unit of row first + i * row_vectors. Eight loads at addresses that are the same for all
// lanes, then choices by lane number, cost a third of one load at eight addresses, which the driver makes of tests and inserts.
void unit_load_lanes(u32x4_in w, uint rows[8], uint unit, uint units, uint lane, out Unit u) {
    Unit v[8];
    [[unroll]] for (uint i = 0; i < 8; i++) unit_load(w, rows[i], unit, units, v[i]);
    bool one = (lane & 1) != 0, two = (lane & 2) != 0;
    u = unit_choose(unit_choose(unit_choose(v[0], v[1], one), unit_choose(v[2], v[3], one), two),
                    unit_choose(unit_choose(v[4], v[5], one), unit_choose(v[6], v[7], one), two), (lane & 4) != 0);
}
#endif
#endif
#endif
