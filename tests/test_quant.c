// The quantised types on the host: blocks of random bytes decoded as gguf-py decodes them, rows to the layout of the device and back,
// how near the encoders come to what they are given, and that they heed the importance of columns.
#include "check.h"
#include "model/mix.h"
#include "model/quant.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 4096, COLS = 2048 };

// Where the f16 numbers of a block lie.
static const struct {
    int count, at[2];
} HALVES[DT_COUNT] = {
    [DT_Q4_0] = {1, {0}},    [DT_Q4_1] = {2, {0, 2}},   [DT_Q8_0] = {1, {0}},   [DT_Q5_0] = {1, {0}},
    [DT_Q5_1] = {2, {0, 2}}, [DT_Q2_K] = {2, {80, 82}}, [DT_Q3_K] = {1, {108}}, [DT_Q4_K] = {2, {0, 2}},
    [DT_Q5_K] = {2, {0, 2}}, [DT_Q6_K] = {1, {208}},    [DT_IQ4_NL] = {1, {0}}, [DT_IQ4_XS] = {1, {0}},
};

static const struct {
    enum DType type;
    const char *hash;
} DECODED[] = {
#include "golden/quants/decoded.inc"
};

static uint8_t *random_blocks(enum DType type) {
    uint64_t size = DTYPES[type].block_bytes, bytes = BLOCKS * size;
    uint8_t *out = xmalloc(bytes);
    uint32_t state = 12345;
    for (uint64_t i = 0; i < bytes; i++) {
        state = state * 1664525 + 1013904223;
        out[i] = (uint8_t)(state >> 24);
    }
    for (uint64_t b = 0; b < BLOCKS; b++)
        for (int h = 0; h < HALVES[type].count; h++) {
            uint8_t *high = out + b * size + HALVES[type].at[h] + 1;
            if ((*high & 0x7c) == 0x7c)
                *high &= 0xbf;
        }
    return out;
}

static void test_decode(void) {
    for (size_t i = 0; i < sizeof DECODED / sizeof DECODED[0]; i++) {
        enum DType type = DECODED[i].type;
        uint64_t cols = BLOCKS * (uint64_t)DTYPES[type].block;
        uint8_t *blocks = random_blocks(type);
        float *values = xmalloc(cols * sizeof *values);
        struct Sha256 sha;
        char found[65];
        quant_decode_row(type, blocks, cols, values);
        sha256_begin(&sha);
        sha256_add(&sha, values, cols * sizeof *values);
        sha256_end(&sha, found);
        CHECK(strcmp(found, DECODED[i].hash) == 0, "%s decodes to %s", DTYPES[type].name, found);
        free(blocks);
        free(values);
    }
}

static void test_device(void) {
    for (int t = DT_Q4_0; t < DT_U32; t++) {
        enum DType type = (enum DType)t;
        uint64_t cols = 3 * (uint64_t)DTYPES[type].block, bytes = dtype_file_row_bytes(type, cols),
                 room = dtype_row_bytes(type, cols);
        uint8_t *blocks = random_blocks(type), *device = xmalloc(room + 16), *again = xmalloc(bytes);
        for (uint64_t row = 0; row < BLOCKS / 3; row++) {
            memset(device, 0xee, room + 16);
            quant_row_to_device(type, blocks + row * bytes, cols, device);
            quant_row_from_device(type, device, cols, again);
            CHECK(memcmp(again, blocks + row * bytes, bytes) == 0, "%s: row %u there and back", DTYPES[type].name,
                  (unsigned)row);
            CHECK(room % 16 == 0 && device[room] == 0xee, "%s: past the end", DTYPES[type].name);
            for (uint64_t i = bytes; i < room; i++)
                CHECK(device[i] == 0, "%s: padding", DTYPES[type].name);
        }
        free(blocks);
        free(device);
        free(again);
    }
}

// Root mean square error over root mean square, of elements first, first + step ...
static double error_of(const float *in, const float *out, int first, int step) {
    double miss = 0, all = 0;
    for (int i = first; i < COLS; i += step) {
        miss += (double)(in[i] - out[i]) * (double)(in[i] - out[i]);
        all += (double)in[i] * (double)in[i];
    }
    return sqrt(miss / all);
}

static void test_encode(void) {
    static const struct {
        enum DType type;
        double bound; // for normal numbers: a little above what is reached
    } BOUNDS[] = {{DT_Q4_0, 0.094},  {DT_Q4_1, 0.082},  {DT_Q8_0, 0.007},   {DT_Q5_0, 0.048},
                  {DT_Q5_1, 0.041},  {DT_Q2_K, 0.33},   {DT_Q3_K, 0.18},    {DT_Q4_K, 0.078},
                  {DT_Q5_K, 0.0385}, {DT_Q6_K, 0.0205}, {DT_IQ4_NL, 0.085}, {DT_IQ4_XS, 0.086}};
    static float in[COLS], out[COLS], weighted[COLS], importance[COLS];
    static uint8_t row[COLS * 2];
    for (int i = 0; i < COLS; i++) {
        in[i] = random_normal(5, 6, (uint64_t)i) * 0.02f;
        importance[i] = i % 4 ? 0.01f : 1;
    }
    for (size_t i = 0; i < sizeof BOUNDS / sizeof BOUNDS[0]; i++) {
        enum DType type = BOUNDS[i].type;
        quant_encode_row(type, in, COLS, row);
        quant_decode_row(type, row, COLS, out);
        double plain = error_of(in, out, 0, 1), marked = error_of(in, out, 0, 4);
        CHECK(plain < BOUNDS[i].bound, "%s: error %.5f", DTYPES[type].name, plain);
        quant_encode_row_weighted(type, in, importance, COLS, row);
        quant_decode_row(type, row, COLS, weighted);
        double heeded = error_of(in, weighted, 0, 4);
        CHECK(type == DT_Q8_0 ? heeded == marked : heeded < 0.95 * marked,
              "%s: the error of what is important is %.5f, without importance %.5f", DTYPES[type].name, heeded, marked);
        printf("%-7s error %.5f, of important columns %.5f to %.5f\n", DTYPES[type].name, plain, marked, heeded);
    }
}

// The largest value that a type holds, and one that it does not.
static const float REACH[DT_U32][2] = {
    [DT_F32] = {3.4e38f, INFINITY}, [DT_F16] = {65519, 65520},  [DT_BF16] = {3.395e38f, 3.4e38f},
    [DT_Q4_0] = {5e5f, 6e5f},       [DT_Q4_1] = {6e4f, 2e6f},   [DT_Q5_0] = {1e6f, 1.1e6f},
    [DT_Q5_1] = {6e4f, 3e6f},       [DT_Q8_0] = {8e6f, 9e6f},   [DT_Q2_K] = {9e5f, 3e6f},
    [DT_Q3_K] = {8e6f, 9e6f},       [DT_Q4_K] = {4e6f, 7e7f},   [DT_Q5_K] = {4e6f, 1.3e8f},
    [DT_Q6_K] = {2e8f, 3e8f},       [DT_IQ4_NL] = {8e6f, 9e6f}, [DT_IQ4_XS] = {2e8f, 3e8f},
};

// What is no number, and what is too large: refused wherever it stands in a row, as nothing plausible must become of it. What fits comes
// through finite, and zeros stay zeros.
static void test_odd(void) {
    static float odd[512], zeros[512], out[512], nothing[512];
    static uint8_t row[512 * sizeof(float)];
    for (int i = 0; i < 512; i++)
        odd[i] = random_normal(5, 7, (uint64_t)i) * 0.02f;
    odd[3] = 1e-45f, odd[4] = -0.0f;
    for (int t = 0; t < DT_U32; t++) {
        enum DType type = (enum DType)t;
        const float BAD[] = {NAN, INFINITY, -INFINITY, REACH[t][1], -REACH[t][1]};
        for (int i = 0; i < 512; i += 73) {
            float kept = odd[i];
            for (size_t k = 0; k < sizeof BAD / sizeof *BAD; k++) {
                odd[i] = BAD[k];
                bool taken =
                    quant_encode_row(type, odd, 512, row) || quant_encode_row_weighted(type, odd, nothing, 512, row);
                CHECK(!taken, "%s: %g in column %d is taken", DTYPES[type].name, (double)BAD[k], i);
            }
            for (int sign = -1; sign < 2; sign += 2) {
                odd[i] = (float)sign * REACH[t][0];
                CHECK(quant_encode_row(type, odd, 512, row), "%s: %g is refused", DTYPES[type].name, (double)odd[i]);
                quant_decode_row(type, row, 512, out);
                CHECK_NEAR(out[i], odd[i], 0, 0.2);
                for (int j = 0; j < 512; j++)
                    CHECK(isfinite(out[j]), "%s: column %d is %g", DTYPES[type].name, j, (double)out[j]);
            }
            // Between what all of a type's blocks hold and what none does: refused, or near.
            for (float value = 1.0f; value < 2e38f; value *= -1.7f) {
                odd[i] = value;
                if (!quant_encode_row(type, odd, 512, row))
                    continue;
                quant_decode_row(type, row, 512, out);
                CHECK_NEAR(out[i], value, 0, 0.2);
            }
            odd[i] = kept;
        }
        for (int weighted = 0; weighted < 2; weighted++) {
            memset(out, 1, sizeof out);
            quant_encode_row_weighted(type, zeros, weighted ? nothing : NULL, 512, row);
            quant_decode_row(type, row, 512, out);
            for (int i = 0; i < 512; i++)
                CHECK(out[i] == 0, "%s: zeros become %g", DTYPES[type].name, (double)out[i]);
        }
    }
}

// ---- Mixes ----

static const struct {
    const char *model, *mix, *types;
} CHOSEN[] = {
#include "golden/mixes/mixes.inc"
};

static const char LETTERS[DT_COUNT] = {
    [DT_F16] = 'h',  [DT_Q4_0] = 'a',   [DT_Q4_1] = 'b',  [DT_Q5_0] = 'c', [DT_Q5_1] = 'd',
    [DT_Q8_0] = 'e', [DT_Q2_K] = '2',   [DT_Q3_K] = '3',  [DT_Q4_K] = '4', [DT_Q5_K] = '5',
    [DT_Q6_K] = '6', [DT_IQ4_NL] = 'n', [DT_IQ4_XS] = 'x'};

static struct Config mixed_config(const char *model) {
    struct Config c;
    config_preset(&c, strcmp(model, "smollm2") == 0 ? "smollm2-135m" : "tiny-moe");
    if (strcmp(model, "smollm2") != 0) {
        c.n_layers = 17, c.dim = 256, c.hidden = 512, c.moe_hidden = 256, c.n_heads = c.n_kv_heads = 4;
        c.n_experts = 4, c.n_shared = 1, c.first_dense = 1, c.tied_head = false, c.head_dim = 64;
    }
    return c;
}

static void test_mixes(void) {
    for (size_t i = 0; i < sizeof CHOSEN / sizeof CHOSEN[0]; i++) {
        struct Config c = mixed_config(CHOSEN[i].model);
        const struct Mix *mix = mix_find(CHOSEN[i].mix);
        uint32_t n, at = 0;
        struct WeightSpec *specs = weight_list(&c, &n);
        for (uint32_t w = 0; w < n && CHECK(mix, "no mix %s", CHOSEN[i].mix); w++) {
            enum DType type = mix_type(mix, &c, &specs[w], false);
            if (type == DT_F32)
                continue;
            char expected = CHOSEN[i].types[at++];
            if (!CHECK(LETTERS[type] == expected, "%s %s: %s is %s, llama.cpp's '%c'", CHOSEN[i].model, mix->name,
                       specs[w].gguf, DTYPES[type].name, expected))
                break;
        }
        free(specs);
    }
    CHECK(!mix_find("q4_k") && mix_find("Q4_K_M"), "names of mixes");
}

int main(void) {
    test_mixes();
    test_decode();
    test_device();
    test_encode();
    test_odd();
    return check_done();
}
