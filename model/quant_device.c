// Rows between the layout of files and that of the device, which is planes: all quants of the row, then their higher bits, then the
// scales. The blocks of files were made for a processor's vectors; on the device every 32 elements (a unit) have their own words, in the
// order that shaders/formats.glsl describes: so a lane loads what it multiplies and nothing else. Words are little-endian.
#include "model/quant.h"
#include "model/quant_codec.h"

#include <string.h>

enum { MAX_PLANES = 4 };
// Bytes of a block in each plane.
static const uint32_t PLANES[DT_COUNT][MAX_PLANES] = {
    [DT_Q4_0] = {16, 2},       [DT_Q4_1] = {16, 4},          [DT_Q8_0] = {32, 2},         [DT_Q5_0] = {16, 4, 2},
    [DT_Q5_1] = {16, 4, 4},    [DT_Q2_K] = {64, 16, 4},      [DT_Q3_K] = {64, 32, 12, 2}, [DT_Q4_K] = {128, 16},
    [DT_Q5_K] = {128, 32, 16}, [DT_Q6_K] = {128, 64, 16, 2}, [DT_IQ4_NL] = {16, 2},       [DT_IQ4_XS] = {128, 8},
};

static const uint32_t LOW_BITS = 0x01010101, LOW_PAIRS = 0x03030303, LOW_NIBBLES = 0x0f0f0f0f;

static void words_load(uint32_t *words, const uint8_t *from, uint32_t count) { memcpy(words, from, 4 * count); }
static void words_store(uint8_t *to, const uint32_t *words, uint32_t count) { memcpy(to, words, 4 * count); }

// A word of 32 bits, bit i of element i, to the bits plane (bit f of byte j of element 4f + j), and back.
static uint32_t bits_spread(uint32_t bits) {
    uint32_t word = 0;
    for (uint32_t f = 0; f < 8; f++)
        word |= ((bits >> 4 * f & 15) * 0x00204081 & LOW_BITS) << f;
    return word;
}
static uint32_t bits_gather(uint32_t word) {
    uint32_t bits = 0;
    for (uint32_t f = 0; f < 8; f++)
        bits |= ((word >> f & LOW_BITS) * 0x01020408 >> 24 & 15) << 4 * f;
    return bits;
}

// First bit of group f's pairs in the word f / 2 mod 2 of a unit.
static uint32_t pair_field(uint32_t f) { return 2 * (f & 1) + (f & 4); }

// In all that follows, `file` are words of a block in the file, 8 words of which hold 32 bytes: group f of 4 elements is word f.

// Q4_K, Q5_K: two units share 8 words, one low, one high.
static void nibbles_to_device(const uint32_t *file, uint32_t *device) {
    for (uint32_t pair = 0; pair < 4; pair++, file += 8, device += 8)
        for (uint32_t f = 0; f < 4; f++) {
            device[f] = (file[f] & LOW_NIBBLES) | (file[f + 4] & LOW_NIBBLES) << 4;
            device[f + 4] = (file[f] >> 4 & LOW_NIBBLES) | (file[f + 4] & LOW_NIBBLES << 4);
        }
}

// Q6_K: in each half of 4 units, 16 words: units 0 and 1 low, 2 and 3 high.
static void sixes_to_device(const uint32_t *file, uint32_t *device) {
    for (uint32_t unit = 0; unit < 8; unit++, device += 4) {
        const uint32_t *from = file + unit / 4 * 16 + unit % 2 * 8;
        uint32_t shift = unit % 4 / 2 * 4;
        for (uint32_t f = 0; f < 4; f++)
            device[f] = (from[f] >> shift & LOW_NIBBLES) | (from[f + 4] >> shift & LOW_NIBBLES) << 4;
    }
}
static void sixes_from_device(const uint32_t *device, uint32_t *file) {
    memset(file, 0, 128);
    for (uint32_t unit = 0; unit < 8; unit++, device += 4) {
        uint32_t *to = file + unit / 4 * 16 + unit % 2 * 8, shift = unit % 4 / 2 * 4;
        for (uint32_t f = 0; f < 4; f++) {
            to[f] |= (device[f] & LOW_NIBBLES) << shift;
            to[f + 4] |= (device[f] >> 4 & LOW_NIBBLES) << shift;
        }
    }
}

// Pairs of Q2_K, Q3_K and Q6_K: in each half, 8 words hold those of 4 units.
static void pairs_to_device(const uint32_t *file, uint32_t *device) {
    for (uint32_t unit = 0; unit < 8; unit++, device += 2) {
        device[0] = device[1] = 0;
        for (uint32_t f = 0; f < 8; f++)
            device[f / 2 % 2] |= (file[unit / 4 * 8 + f] >> unit % 4 * 2 & LOW_PAIRS) << pair_field(f);
    }
}
static void pairs_from_device(const uint32_t *device, uint32_t *file) {
    memset(file, 0, 64);
    for (uint32_t unit = 0; unit < 8; unit++, device += 2)
        for (uint32_t f = 0; f < 8; f++)
            file[unit / 4 * 8 + f] |= (device[f / 2 % 2] >> pair_field(f) & LOW_PAIRS) << unit % 4 * 2;
}

// Bits of Q3_K and Q5_K: bit u of the bytes of 8 words is of unit u. The same both ways.
static void bits_turn(const uint32_t *from, uint32_t *to) {
    for (uint32_t unit = 0; unit < 8; unit++) {
        to[unit] = 0;
        for (uint32_t f = 0; f < 8; f++)
            to[unit] |= (from[f] >> unit & LOW_BITS) << f;
    }
}

// Scales and minima of Q4_K and Q5_K: three words, see scale_q4_k in formats.glsl.
static void scale_mins_to_device(const uint8_t *file, uint32_t *device) {
    device[0] = device[1] = device[2] = 0;
    for (int j = 0; j < 8; j++) {
        uint8_t scale, min;
        scale_min_get(file, j, &scale, &min);
        device[j / 4] |= (uint32_t)(scale | (min & 3) << 6) << 8 * (j % 4);
        device[2] |= (uint32_t)(min >> 2) << 4 * j;
    }
}
static void scale_mins_from_device(const uint32_t *device, uint8_t *file) {
    memset(file, 0, 12);
    for (int j = 0; j < 8; j++) {
        uint32_t byte = device[j / 4] >> 8 * (j % 4) & 255;
        scale_min_put(file, j, byte & 63, (uint8_t)(byte >> 6 | (device[2] >> 4 * j & 15) << 2));
    }
}

static void scales_q3_to_device(const uint8_t *file, uint32_t *device) {
    device[0] = device[1] = device[2] = 0;
    for (int j = 0; j < 16; j++) {
        uint32_t scale = scale_q3_get(file, j);
        device[j / 8] |= (scale & 15) << 4 * (j % 8);
        device[2] |= scale >> 4 << 2 * j;
    }
}
static void scales_q3_from_device(const uint32_t *device, uint8_t *file) {
    memset(file, 0, 12);
    for (int j = 0; j < 16; j++)
        scale_q3_put(file, j, (uint8_t)((device[j / 8] >> 4 * (j % 8) & 15) | (device[2] >> 2 * j & 3) << 4));
}

// One block to its places in the planes.
static void block_to_device(enum DType type, const uint8_t *block, uint8_t *const *to) {
    uint32_t file[32], device[32];
    switch (type) {
    case DT_Q5_0:
    case DT_Q5_1: {
        uint32_t scale = PLANES[type][2];
        words_load(file, block + scale, 1);
        device[0] = bits_spread(file[0]);
        memcpy(to[0], block + scale + 4, 16);
        words_store(to[1], device, 1);
        memcpy(to[2], block, scale);
        return;
    }
    case DT_Q2_K:
        words_load(file, block + 16, 16);
        pairs_to_device(file, device);
        words_store(to[0], device, 16);
        memcpy(to[1], block, 16);
        memcpy(to[2], block + 80, 4);
        return;
    case DT_Q3_K:
        words_load(file, block + 32, 16);
        pairs_to_device(file, device);
        words_store(to[0], device, 16);
        words_load(file, block, 8);
        bits_turn(file, device);
        words_store(to[1], device, 8);
        scales_q3_to_device(block + 96, device);
        words_store(to[2], device, 3);
        memcpy(to[3], block + 108, 2);
        return;
    case DT_Q4_K:
    case DT_Q5_K: {
        uint8_t *header = type == DT_Q4_K ? to[1] : to[2];
        words_load(file, block + (type == DT_Q4_K ? 16 : 48), 32);
        nibbles_to_device(file, device);
        words_store(to[0], device, 32);
        if (type == DT_Q5_K) {
            words_load(file, block + 16, 8);
            bits_turn(file, device);
            words_store(to[1], device, 8);
        }
        memcpy(header, block, 4);
        scale_mins_to_device(block + 4, device);
        words_store(header + 4, device, 3);
        return;
    }
    case DT_Q6_K:
        words_load(file, block, 32);
        sixes_to_device(file, device);
        words_store(to[0], device, 32);
        words_load(file, block + 128, 16);
        pairs_to_device(file, device);
        words_store(to[1], device, 16);
        memcpy(to[2], block + 192, 16);
        memcpy(to[3], block + 208, 2);
        return;
    default: // scales, then quants that are in the device's order
        memcpy(to[0], block + PLANES[type][1], PLANES[type][0]);
        memcpy(to[1], block, PLANES[type][1]);
    }
}

static void block_from_device(enum DType type, uint8_t *const *from, uint8_t *block) {
    uint32_t file[32], device[32];
    switch (type) {
    case DT_Q5_0:
    case DT_Q5_1: {
        uint32_t scale = PLANES[type][2];
        words_load(device, from[1], 1);
        file[0] = bits_gather(device[0]);
        memcpy(block, from[2], scale);
        words_store(block + scale, file, 1);
        memcpy(block + scale + 4, from[0], 16);
        return;
    }
    case DT_Q2_K:
        words_load(device, from[0], 16);
        pairs_from_device(device, file);
        words_store(block + 16, file, 16);
        memcpy(block, from[1], 16);
        memcpy(block + 80, from[2], 4);
        return;
    case DT_Q3_K:
        words_load(device, from[0], 16);
        pairs_from_device(device, file);
        words_store(block + 32, file, 16);
        words_load(device, from[1], 8);
        bits_turn(device, file);
        words_store(block, file, 8);
        words_load(device, from[2], 3);
        scales_q3_from_device(device, block + 96);
        memcpy(block + 108, from[3], 2);
        return;
    case DT_Q4_K:
    case DT_Q5_K: {
        const uint8_t *header = type == DT_Q4_K ? from[1] : from[2];
        words_load(device, from[0], 32);
        nibbles_to_device(device, file); // its own inverse
        words_store(block + (type == DT_Q4_K ? 16 : 48), file, 32);
        if (type == DT_Q5_K) {
            words_load(device, from[1], 8);
            bits_turn(device, file);
            words_store(block + 16, file, 8);
        }
        memcpy(block, header, 4);
        words_load(device, header + 4, 3);
        scale_mins_from_device(device, block + 4);
        return;
    }
    case DT_Q6_K:
        words_load(device, from[0], 32);
        sixes_from_device(device, file);
        words_store(block, file, 32);
        words_load(device, from[1], 16);
        pairs_from_device(device, file);
        words_store(block + 128, file, 16);
        memcpy(block + 192, from[2], 16);
        memcpy(block + 208, from[3], 2);
        return;
    default:
        memcpy(block + PLANES[type][1], from[0], PLANES[type][0]);
        memcpy(block, from[1], PLANES[type][1]);
    }
}

// Where each plane of a row begins; gives the bytes of them all.
static uint64_t planes_begin(enum DType type, uint64_t blocks, uint8_t *row, uint8_t **plane) {
    uint64_t at = 0;
    for (int p = 0; p < MAX_PLANES; p++) {
        plane[p] = row + at;
        at += blocks * PLANES[type][p];
    }
    return at;
}

static void planes_step(enum DType type, uint8_t **plane) {
    for (int p = 0; p < MAX_PLANES; p++)
        plane[p] += PLANES[type][p];
}

void quant_row_to_device(enum DType type, const void *file_row, uint64_t cols, void *device_row) {
    if (!dtype_is_quantised(type)) {
        memcpy(device_row, file_row, dtype_file_row_bytes(type, cols));
        return;
    }
    uint8_t *plane[MAX_PLANES];
    uint64_t blocks = cols / DTYPES[type].block, bytes = planes_begin(type, blocks, device_row, plane);
    const uint8_t *block = file_row;
    for (uint64_t b = 0; b < blocks; b++, block += DTYPES[type].block_bytes) {
        block_to_device(type, block, plane);
        planes_step(type, plane);
    }
    memset((uint8_t *)device_row + bytes, 0, dtype_row_bytes(type, cols) - bytes);
}

void quant_row_from_device(enum DType type, const void *device_row, uint64_t cols, void *file_row) {
    if (!dtype_is_quantised(type)) {
        memcpy(file_row, device_row, dtype_file_row_bytes(type, cols));
        return;
    }
    uint8_t *plane[MAX_PLANES], *block = file_row;
    uint64_t blocks = cols / DTYPES[type].block;
    planes_begin(type, blocks, (uint8_t *)(uintptr_t)device_row, plane); // only read through
    for (uint64_t b = 0; b < blocks; b++, block += DTYPES[type].block_bytes) {
        block_from_device(type, plane, block);
        planes_step(type, plane);
    }
}
