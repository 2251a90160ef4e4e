// The storage types of weights: the only file that knows their bits (runtime/tensor.h is the twin on the host). A kernel is built with
// -DW=f32 | f16 | bf16 | q4_0 | q4_1 | q8_0 and reads a row in units of W_UNIT elements: unit_load fetches one with as few and as wide
// loads as the type allows, unit_get8 turns eighth g of it into eight floats. Only 32-bit words are loaded.
#ifndef VKMOE_FORMATS_GLSL
#define VKMOE_FORMATS_GLSL

#define UNIT_f32 8
#define UNIT_f16 8
#define UNIT_bf16 8
#define UNIT_q4_0 32
#define UNIT_q4_1 32
#define UNIT_q8_0 32

// Raw words: as loaded.
struct Unit_f32 { uvec4 a, b; };
struct Unit_f16 { uvec4 a; };
struct Unit_bf16 { uvec4 a; };
struct Unit_q4_0 { uvec4 a; uint d; };
struct Unit_q4_1 { uvec4 a; uint dm; };
struct Unit_q8_0 { uvec4 a, b; uint d; };

// `row`: index of the row's first 16 bytes; `unit`: unit in the row; `units`: units in a row (where the scales begin).
void unit_load_f32(u32x4_in w, uint row, uint unit, uint units, out Unit_f32 u) {
    u.a = w.v[row + 2 * unit];
    u.b = w.v[row + 2 * unit + 1];
}
void unit_load_f16(u32x4_in w, uint row, uint unit, uint units, out Unit_f16 u) { u.a = w.v[row + unit]; }
void unit_load_bf16(u32x4_in w, uint row, uint unit, uint units, out Unit_bf16 u) { u.a = w.v[row + unit]; }
uint half_at(u32x4_in w, uint word, uint i) { return u32_in(w).v[word + (i >> 1)] >> ((i & 1) * 16); }
void unit_load_q4_0(u32x4_in w, uint row, uint unit, uint units, out Unit_q4_0 u) {
    u.a = w.v[row + unit];
    u.d = half_at(w, 4 * (row + units), unit);
}
void unit_load_q4_1(u32x4_in w, uint row, uint unit, uint units, out Unit_q4_1 u) {
    u.a = w.v[row + unit];
    u.dm = u32_in(w).v[4 * (row + units) + unit];
}
void unit_load_q8_0(u32x4_in w, uint row, uint unit, uint units, out Unit_q8_0 u) {
    u.a = w.v[row + 2 * unit];
    u.b = w.v[row + 2 * unit + 1];
    u.d = half_at(w, 4 * (row + 2 * units), unit);
}

// Field by field: second ? b : a.
#define CHOOSE(a, b, second) mix(a, b, bvec4(second))
Unit_f32 unit_choose_f32(Unit_f32 a, Unit_f32 b, bool second) {
    return Unit_f32(CHOOSE(a.a, b.a, second), CHOOSE(a.b, b.b, second));
}
Unit_f16 unit_choose_f16(Unit_f16 a, Unit_f16 b, bool second) { return Unit_f16(CHOOSE(a.a, b.a, second)); }
Unit_bf16 unit_choose_bf16(Unit_bf16 a, Unit_bf16 b, bool second) { return Unit_bf16(CHOOSE(a.a, b.a, second)); }
Unit_q4_0 unit_choose_q4_0(Unit_q4_0 a, Unit_q4_0 b, bool second) {
    return Unit_q4_0(CHOOSE(a.a, b.a, second), second ? b.d : a.d);
}
Unit_q4_1 unit_choose_q4_1(Unit_q4_1 a, Unit_q4_1 b, bool second) {
    return Unit_q4_1(CHOOSE(a.a, b.a, second), second ? b.dm : a.dm);
}
Unit_q8_0 unit_choose_q8_0(Unit_q8_0 a, Unit_q8_0 b, bool second) {
    return Unit_q8_0(CHOOSE(a.a, b.a, second), CHOOSE(a.b, b.b, second), second ? b.d : a.d);
}

// Elements 8g .. 8g+7 of the unit. g is a constant where speed matters.
void unit_get8_f32(Unit_f32 u, uint g, out vec4 a, out vec4 b) {
    a = uintBitsToFloat(u.a);
    b = uintBitsToFloat(u.b);
}
void unit_get8_f16(Unit_f16 u, uint g, out vec4 a, out vec4 b) {
    a = vec4(unpackHalf2x16(u.a.x), unpackHalf2x16(u.a.y));
    b = vec4(unpackHalf2x16(u.a.z), unpackHalf2x16(u.a.w));
}
void unit_get8_bf16(Unit_bf16 u, uint g, out vec4 a, out vec4 b) {
    uvec4 low = u.a << 16, high = u.a & 0xffff0000u;
    a = uintBitsToFloat(uvec4(low.x, high.x, low.y, high.y));
    b = uintBitsToFloat(uvec4(low.z, high.z, low.w, high.w));
}
// Byte j of a block holds element j in its low and element j + 16 in its high nibble.
vec4 bytes4(uint word) { return vec4(word & 255, word >> 8 & 255, word >> 16 & 255, word >> 24); }
void nibbles8(uvec4 q, uint g, out vec4 a, out vec4 b) {
    uvec2 words = (g & 1) == 0 ? q.xy : q.zw;
    words = (g < 2 ? words : words >> 4) & 0x0f0f0f0fu;
    a = bytes4(words.x);
    b = bytes4(words.y);
}
void unit_get8_q4_0(Unit_q4_0 u, uint g, out vec4 a, out vec4 b) {
    float d = unpackHalf2x16(u.d).x;
    nibbles8(u.a, g, a, b);
    a = (a - 8) * d;
    b = (b - 8) * d;
}
void unit_get8_q4_1(Unit_q4_1 u, uint g, out vec4 a, out vec4 b) {
    vec2 dm = unpackHalf2x16(u.dm);
    nibbles8(u.a, g, a, b);
    a = fma(a, vec4(dm.x), vec4(dm.y));
    b = fma(b, vec4(dm.x), vec4(dm.y));
}
vec4 signed_bytes4(uint word) {
    return vec4(bitfieldExtract(int(word), 0, 8), bitfieldExtract(int(word), 8, 8), bitfieldExtract(int(word), 16, 8),
                bitfieldExtract(int(word), 24, 8));
}
void unit_get8_q8_0(Unit_q8_0 u, uint g, out vec4 a, out vec4 b) {
    uvec4 half_block = g < 2 ? u.a : u.b;
    uvec2 words = (g & 1) == 0 ? half_block.xy : half_block.zw;
    float d = unpackHalf2x16(u.d).x;
    a = signed_bytes4(words.x) * d;
    b = signed_bytes4(words.y) * d;
}

// Where lanes run along a row (NN), a lane reads a narrow piece of WORD_COLS columns: as few words as the type allows.
// `part` counts the pieces of a row; columns of a piece: word_column(part, 0 .. WORD_COLS - 1).
#define WORD_f32 2
#define WORD_f16 2
#define WORD_bf16 2
#define WORD_q4_0 8
#define WORD_q4_1 8
#define WORD_q8_0 4
uint word_column_f32(uint part, uint i) { return 2 * part + i; }
uint word_column_f16(uint part, uint i) { return 2 * part + i; }
uint word_column_bf16(uint part, uint i) { return 2 * part + i; }
uint word_column_q4_0(uint part, uint i) { return (part >> 2) * 32 + (part & 3) * 4 + (i & 3) + (i & 4) * 4; }
uint word_column_q4_1(uint part, uint i) { return word_column_q4_0(part, i); }
uint word_column_q8_0(uint part, uint i) { return 4 * part + i; }
// `units`: blocks of 32 in a row, where the type has them.
void word_load_f32(u32x4_in w, uint row, uint part, uint units, out float v[2]) {
    v[0] = uintBitsToFloat(u32_in(w).v[4 * row + 2 * part]);
    v[1] = uintBitsToFloat(u32_in(w).v[4 * row + 2 * part + 1]);
}
void word_load_f16(u32x4_in w, uint row, uint part, uint units, out float v[2]) {
    vec2 pair = unpackHalf2x16(u32_in(w).v[4 * row + part]);
    v[0] = pair.x;
    v[1] = pair.y;
}
void word_load_bf16(u32x4_in w, uint row, uint part, uint units, out float v[2]) {
    uint word = u32_in(w).v[4 * row + part];
    v[0] = uintBitsToFloat(word << 16);
    v[1] = uintBitsToFloat(word & 0xffff0000u);
}
void word_load_q4_0(u32x4_in w, uint row, uint part, uint units, out float v[8]) {
    uint word = u32_in(w).v[4 * row + part];
    float d = unpackHalf2x16(half_at(w, 4 * (row + units), part >> 2)).x;
    vec4 low = (bytes4(word & 0x0f0f0f0fu) - 8) * d, high = (bytes4(word >> 4 & 0x0f0f0f0fu) - 8) * d;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        v[i] = low[i];
        v[4 + i] = high[i];
    }
}
void word_load_q4_1(u32x4_in w, uint row, uint part, uint units, out float v[8]) {
    uint word = u32_in(w).v[4 * row + part];
    vec2 dm = unpackHalf2x16(u32_in(w).v[4 * (row + units) + (part >> 2)]);
    vec4 low = fma(bytes4(word & 0x0f0f0f0fu), vec4(dm.x), vec4(dm.y));
    vec4 high = fma(bytes4(word >> 4 & 0x0f0f0f0fu), vec4(dm.x), vec4(dm.y));
    [[unroll]] for (uint i = 0; i < 4; i++) {
        v[i] = low[i];
        v[4 + i] = high[i];
    }
}
void word_load_q8_0(u32x4_in w, uint row, uint part, uint units, out float v[4]) {
    float d = unpackHalf2x16(half_at(w, 4 * (row + 2 * units), part >> 3)).x;
    vec4 q = signed_bytes4(u32_in(w).v[4 * row + part]) * d;
    [[unroll]] for (uint i = 0; i < 4; i++) v[i] = q[i];
}

// The same piece by piece for CPU devices with 8 lanes (see unit_load_lanes): lane i gets piece first + i.
uint choose8(uint lane, uvec4 a, uvec4 b) {
    uvec4 v = (lane & 4) != 0 ? b : a;
    uvec2 u = (lane & 2) != 0 ? v.zw : v.xy;
    return (lane & 1) != 0 ? u.y : u.x;
}
uint word_lanes(u32x4_in w, uint row, uint first, uint lane) {
    uint at = row + first / 4;
    return choose8(lane, w.v[at], w.v[at + 1]);
}
void word_load_lanes_f32(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[2]) {
    uint at = row + first / 2;
    uvec4 a = w.v[at], b = w.v[at + 1], c = w.v[at + 2], d = w.v[at + 3];
    v[0] = uintBitsToFloat(choose8(lane, uvec4(a.xz, b.xz), uvec4(c.xz, d.xz)));
    v[1] = uintBitsToFloat(choose8(lane, uvec4(a.yw, b.yw), uvec4(c.yw, d.yw)));
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
void word_load_lanes_q4_0(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[8]) {
    uint word = word_lanes(w, row, first, lane), scales = 4 * (row + units), block = first / 4;
    uint last = min(block + 1, units - 1);
    float d = unpackHalf2x16(lane < 4 ? half_at(w, scales, block) : half_at(w, scales, last)).x;
    vec4 low = (bytes4(word & 0x0f0f0f0fu) - 8) * d, high = (bytes4(word >> 4 & 0x0f0f0f0fu) - 8) * d;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        v[i] = low[i];
        v[4 + i] = high[i];
    }
}
void word_load_lanes_q4_1(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[8]) {
    uint word = word_lanes(w, row, first, lane), scales = 4 * (row + units), block = first / 4;
    uint last = min(block + 1, units - 1);
    vec2 dm = unpackHalf2x16(lane < 4 ? u32_in(w).v[scales + block] : u32_in(w).v[scales + last]);
    vec4 low = fma(bytes4(word & 0x0f0f0f0fu), vec4(dm.x), vec4(dm.y));
    vec4 high = fma(bytes4(word >> 4 & 0x0f0f0f0fu), vec4(dm.x), vec4(dm.y));
    [[unroll]] for (uint i = 0; i < 4; i++) {
        v[i] = low[i];
        v[4 + i] = high[i];
    }
}
void word_load_lanes_q8_0(u32x4_in w, uint row, uint first, uint units, uint lane, out float v[4]) {
    float d = unpackHalf2x16(half_at(w, 4 * (row + 2 * units), first / 8)).x;
    vec4 q = signed_bytes4(word_lanes(w, row, first, lane)) * d;
    [[unroll]] for (uint i = 0; i < 4; i++) v[i] = q[i];
}

#ifdef W_ANY
// -DW=any -DW_ANY: the type is a specialisation constant, for bodies whose number of modules would grow too large otherwise.
layout(constant_id = 13) const uint W_TYPE = 0; // enum DType
const uint UNIT_any = W_TYPE < 3 ? 8 : 32;
struct Unit_any { uvec4 a, b; uint d; };
void unit_load_any(u32x4_in w, uint row, uint unit, uint units, out Unit_any u) {
    const bool wide = W_TYPE == 0 || W_TYPE == 5;
    uint at = row + (wide ? 2 * unit : unit), scales = 4 * (row + (wide ? 2 * units : units));
    u.a = w.v[at];
    u.b = wide ? w.v[at + 1] : u.a;
    u.d = W_TYPE == 4 ? u32_in(w).v[scales + unit] : W_TYPE > 2 ? half_at(w, scales, unit) : 0;
}
void unit_get8_any(Unit_any u, uint g, out vec4 a, out vec4 b) {
    if (W_TYPE == 0)
        unit_get8_f32(Unit_f32(u.a, u.b), g, a, b);
    else if (W_TYPE == 1)
        unit_get8_f16(Unit_f16(u.a), g, a, b);
    else if (W_TYPE == 2)
        unit_get8_bf16(Unit_bf16(u.a), g, a, b);
    else if (W_TYPE == 3)
        unit_get8_q4_0(Unit_q4_0(u.a, u.d), g, a, b);
    else if (W_TYPE == 4)
        unit_get8_q4_1(Unit_q4_1(u.a, u.d), g, a, b);
    else
        unit_get8_q8_0(Unit_q8_0(u.a, u.b, u.d), g, a, b);
}
#endif

#ifdef W
#define W_UNIT PASTE(UNIT_, W)
#define Unit PASTE(Unit_, W)
#define unit_load PASTE(unit_load_, W)
#define unit_get8 PASTE(unit_get8_, W)
#define unit_choose PASTE(unit_choose_, W)
#define WORD_COLS PASTE(WORD_, W)
#define word_column PASTE(word_column_, W)
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
