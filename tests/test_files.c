// The readers of safetensors, GGUF and JSON against files that lie: each known class of attack has its named file, made here by
// changing one place of a sound one; every prefix of a sound file and every flipped bit must be survived as well. The classes, by which
// names of cases and functions begin:
//   P1  a count times a size wraps, and too little is allocated       P6  input is checked by assert, which a build may leave out
//   P2  the bytes of a tensor wrap                                    P7  the header lies about where the file ends
//   P3  rounding up to an alignment wraps                             P8  numbers of the config against tensors: test_config, test_modelfile
//   P4  the length of a string                                        P9  readers beside the first (adapters, checkpoints): test_adapter
//   P5  a value is read as another type than it has                   P10 overlaps, duplicates, holes, nothing at all
//   S1  nesting becomes recursion without a limit
// docs/proof.md says where each class is tried.
#include "check.h"
#include "files.h"
#include "model/gguf.h"
#include "model/json.h"
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct Buffer {
    uint8_t *data;
    size_t bytes;
};

static void put(struct Buffer *b, const void *data, size_t bytes) {
    b->data = xrealloc(b->data, b->bytes + bytes);
    memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
}

static void put_u32(struct Buffer *b, uint32_t value) { put(b, &value, 4); }
static void put_u64(struct Buffer *b, uint64_t value) { put(b, &value, 8); }

static void put_string(struct Buffer *b, const char *text) {
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

// ---- GGUF ----

// Places in the sound file, to be overwritten.
enum Place {
    MAGIC,
    VERSION,
    N_TENSORS,
    N_KEYS,
    KEY_BYTES,
    KEY_TEXT,
    KEY_TYPE,
    TEXT_BYTES,
    ALIGN_TYPE,
    ALIGN_VALUE,
    BOOL_VALUE,
    ARRAY_ELEMENT,
    ARRAY_COUNT,
    STRINGS_COUNT,
    STRING_BYTES,
    DUPLICATE_KEY,
    NAME_BYTES,
    NAME_TEXT,
    N_DIMS,
    DIM_0,
    DIM_1,
    TENSOR_TYPE,
    OFFSET_0,
    SECOND_NAME,
    SECOND_DIM,
    SECOND_TYPE,
    OFFSET_1,
    DATA,
    N_PLACES
};

static struct Buffer sound_gguf(size_t at[N_PLACES], uint32_t alignment) {
    struct Buffer b = {0};
#define HERE(place) (at[place] = b.bytes)
    HERE(MAGIC), put(&b, "GGUF", 4);
    HERE(VERSION), put_u32(&b, 3);
    HERE(N_TENSORS), put_u64(&b, 2);
    HERE(N_KEYS), put_u64(&b, 7);
    HERE(KEY_BYTES), at[KEY_TEXT] = b.bytes + 8, put_string(&b, "general.architecture");
    HERE(KEY_TYPE), put_u32(&b, GGUF_STRING);
    HERE(TEXT_BYTES), put_string(&b, "llama");
    put_string(&b, "general.alignment");
    HERE(ALIGN_TYPE), put_u32(&b, GGUF_U32);
    HERE(ALIGN_VALUE), put_u32(&b, alignment);
    put_string(&b, "test.truth"), put_u32(&b, GGUF_BOOL);
    HERE(BOOL_VALUE), put(&b, "\1", 1);
    put_string(&b, "test.numbers"), put_u32(&b, GGUF_ARRAY);
    HERE(ARRAY_ELEMENT), put_u32(&b, GGUF_I32);
    HERE(ARRAY_COUNT), put_u64(&b, 3), put_u32(&b, 7), put_u32(&b, UINT32_MAX), put_u32(&b, 9);
    put_string(&b, "test.strings"), put_u32(&b, GGUF_ARRAY), put_u32(&b, GGUF_STRING);
    HERE(STRINGS_COUNT), put_u64(&b, 2);
    HERE(STRING_BYTES), put_string(&b, "one"), put_string(&b, "three");
    HERE(DUPLICATE_KEY), put_string(&b, "test.really"), put_u32(&b, GGUF_F32), put_u32(&b, 0x3fc00000);
    put_string(&b, "test.narrow"), put_u32(&b, GGUF_I8), put(&b, "\xfe", 1);
    HERE(NAME_BYTES), at[NAME_TEXT] = b.bytes + 8, put_string(&b, "first");
    HERE(N_DIMS), put_u32(&b, 2);
    HERE(DIM_0), put_u64(&b, 4);
    HERE(DIM_1), put_u64(&b, 2);
    HERE(TENSOR_TYPE), put_u32(&b, 0);
    HERE(OFFSET_0), put_u64(&b, 0);
    put_u64(&b, 5), HERE(SECOND_NAME), put(&b, "other", 5), put_u32(&b, 1);
    HERE(SECOND_DIM), put_u64(&b, 32);
    HERE(SECOND_TYPE), put_u32(&b, 2);
    HERE(OFFSET_1), put_u64(&b, 32);
    while (b.bytes % alignment)
        put(&b, "", 1);
    HERE(DATA);
#undef HERE
    for (unsigned i = 0; i < 32 + 18; i++)
        put(&b, &(uint8_t){(uint8_t)i}, 1);
    return b;
}

static const struct {
    const char *name;
    enum Place place;
    unsigned bytes;
    uint64_t value;
    const char *words;
} GGUF_CASES[] = {
    {"another magic", MAGIC, 4, 0x46554747 + 1, "is no GGUF file"},
    {"version 0", VERSION, 4, 0, "version 0"},
    {"version 1", VERSION, 4, 1, "version 1"},
    {"a future version", VERSION, 4, 4, "version 4"},
    {"big-endian", VERSION, 4, 0x03000000, "big-endian"},
    {"P1: 2^64-1 tensors", N_TENSORS, 8, UINT64_MAX, "number of tensors"},
    {"P1: 2^32 tensors", N_TENSORS, 8, UINT64_C(1) << 32, "number of tensors"},
    {"P1: one tensor too many, read from the data", N_TENSORS, 8, 3, "lie.gguf"},
    {"P1: 2^64-1 keys (CVE-2024-23605)", N_KEYS, 8, UINT64_MAX, "number of keys"},
    {"P1: 2^61 keys, wrapping to 0 bytes", N_KEYS, 8, UINT64_C(1) << 61, "number of keys"},
    {"P4: an empty key", KEY_BYTES, 8, 0, "1 to 65535"},
    {"P4: a key of 2^64-1 bytes (CVE-2024-23496)", KEY_BYTES, 8, UINT64_MAX, "left in the file"},
    {"P4: a key of 2^63 bytes", KEY_BYTES, 8, UINT64_C(1) << 63, "left in the file"},
    {"a 0 byte in a key", KEY_TEXT, 1, 0, "0 byte"},
    {"P5: value type 13", KEY_TYPE, 4, 13, "unknown type 13"},
    {"P5: value type 2^31", KEY_TYPE, 4, UINT64_C(1) << 31, "unknown type"},
    {"P4: a string of 2^64-1 bytes", TEXT_BYTES, 8, UINT64_MAX, "left in the file"},
    {"P4: a string one byte beyond the file", TEXT_BYTES, 8, 100000, "left in the file"},
    {"P3: alignment 13", ALIGN_VALUE, 4, 13, "general.alignment is 13"},
    {"P3: alignment 0", ALIGN_VALUE, 4, 0, "general.alignment is 0"},
    {"P3: alignment 2^31", ALIGN_VALUE, 4, UINT64_C(1) << 31, "general.alignment is"},
    {"P3: alignment 8192", ALIGN_VALUE, 4, 8192, "general.alignment is 8192"},
    {"P5: alignment of type i32", ALIGN_TYPE, 4, GGUF_I32, "u32 is expected"},
    {"P5: a truth value of 2", BOOL_VALUE, 1, 2, "truth value is 2"},
    {"an array of arrays", ARRAY_ELEMENT, 4, GGUF_ARRAY, "array of arrays"},
    {"P5: an array of type 99", ARRAY_ELEMENT, 4, 99, "unknown type 99"},
    {"P1: an array of 2^64-1 numbers", ARRAY_COUNT, 8, UINT64_MAX, "left in the file"},
    {"P1: an array of 2^62 numbers, wrapping to 0 bytes", ARRAY_COUNT, 8, UINT64_C(1) << 62, "left in the file"},
    {"P1: 2^61 strings, wrapping to 0 bytes (CVE-2024-21825)", STRINGS_COUNT, 8, UINT64_C(1) << 61, "left in the file"},
    {"P4: a string in an array of 2^64-1 bytes", STRING_BYTES, 8, UINT64_MAX, "left in the file"},
    {"P4: a tensor without a name", NAME_BYTES, 8, 0, "1 to 63"},
    {"P4: a name of 64 bytes", NAME_BYTES, 8, 64, "1 to 63"},
    {"a 0 byte in a name", NAME_TEXT, 1, 0, "0 byte"},
    {"0 dimensions", N_DIMS, 4, 0, "0 dimensions"},
    {"5 dimensions", N_DIMS, 4, 5, "5 dimensions"},
    {"2^32-1 dimensions", N_DIMS, 4, UINT32_MAX, "dimensions"},
    {"P10: a dimension of 0", DIM_1, 8, 0, "dimension 1 of tensor first is 0"},
    {"P2: a negative dimension (CVE-2024-21802)", DIM_0, 8, UINT64_MAX, "dimension 0 of tensor first"},
    {"P2: elements that do not fit in 64 bits", DIM_0, 8, UINT64_C(1) << 62, "does not fit"},
    {"P2: bytes that wrap (CVE-2026-33298)", DIM_1, 8, UINT64_C(1) << 60, "does not fit"},
    {"P2: more bytes than the file", DIM_1, 8, 1000, "first ends at byte"},
    {"tensor type 4, which is gone", TENSOR_TYPE, 4, 4, "unknown type 4"},
    {"tensor type 10^6", TENSOR_TYPE, 4, 1000000, "unknown type"},
    {"a quantised row of 4", TENSOR_TYPE, 4, 3, "no multiple of 32"},
    {"a row of 31", SECOND_DIM, 8, 31, "no multiple of 32"},
    {"the first tensor elsewhere", OFFSET_0, 8, 32, "is said to start at byte 32"},
    {"P10: tensors on top of each other", OFFSET_1, 8, 0, "is said to start at byte 0"},
    {"P10: a hole between tensors", OFFSET_1, 8, 64, "is said to start at byte 64"},
    {"a tensor off its alignment", OFFSET_1, 8, 33, "is said to start at byte 33"},
    {"P7: an offset that wraps", OFFSET_1, 8, UINT64_MAX - 31, "is said to start"},
    {"P7: more data than the file has", SECOND_DIM, 8, 64, "other ends at byte"},
};

static void check_gguf_cases(void) {
    size_t at[N_PLACES];
    for (size_t i = 0; i < sizeof GGUF_CASES / sizeof *GGUF_CASES; i++) {
        struct Buffer b = sound_gguf(at, 32);
        memcpy(b.data + at[GGUF_CASES[i].place], &GGUF_CASES[i].value, GGUF_CASES[i].bytes);
        struct Gguf g;
        bool ok = gguf_open_memory(&g, b.data, b.bytes, "lie.gguf");
        const char *words = GGUF_CASES[i].words;
        CHECK(refused(ok, words), "GGUF with %s: opened %d, message: %s", GGUF_CASES[i].name, ok, fail_last());
        if (ok)
            gguf_close(&g);
        free(b.data);
    }
    struct Gguf g;
    struct Buffer b = sound_gguf(at, 32);
    memcpy(b.data + at[DUPLICATE_KEY] + 8, "test.narrow", 11);
    CHECK(refused(gguf_open_memory(&g, b.data, b.bytes, "x"), "test.narrow stands twice"), "P10: a key twice: %s",
          fail_last());
    free(b.data);
    b = sound_gguf(at, 32);
    memcpy(b.data + at[SECOND_NAME], "first", 5);
    CHECK(refused(gguf_open_memory(&g, b.data, b.bytes, "x"), "first stands twice"), "P10: a tensor twice: %s",
          fail_last());
    free(b.data);
    b = sound_gguf(at, 32);
    put(&b, "0123456789abcdefghijklmnopqrstuvwxyz", 36);
    CHECK(refused(gguf_open_memory(&g, b.data, b.bytes, "x"), "the content ends at byte"),
          "P10: bytes behind the last tensor: %s", fail_last());
    free(b.data);
}

static void check_gguf_sound(void) {
    size_t at[N_PLACES];
    for (uint32_t alignment = 1; alignment <= 32; alignment *= 2) {
        struct Buffer b = sound_gguf(at, alignment);
        struct Gguf g;
        if (!CHECK(gguf_open_memory(&g, b.data, b.bytes, "sound"), "alignment %u: %s", alignment, fail_last())) {
            free(b.data);
            continue;
        }
        uint32_t number = 5;
        float real = 0;
        bool truth = false;
        char *text = NULL;
        int32_t *numbers = NULL;
        const struct GgufString *strings = NULL;
        uint64_t count = 0;
        CHECK(gguf_get_string(&g, "general.architecture", true, &text) && strcmp(text, "llama") == 0, "%s",
              fail_last());
        CHECK(gguf_get_bool(&g, "test.truth", true, &truth) && truth, "%s", fail_last());
        CHECK(gguf_get_f32(&g, "test.really", true, &real) && real == 1.5f, "%s", fail_last());
        CHECK(gguf_get_i32s(&g, "test.numbers", true, &numbers, &count) && count == 3 && numbers[1] == -1, "%s",
              fail_last());
        CHECK(gguf_get_strings(&g, "test.strings", true, &strings, &count) && count == 2 && strings[1].bytes == 5, "%s",
              fail_last());
        CHECK(gguf_get_u32(&g, "absent", false, &number) && number == 5, "absent keys leave the value");
        // P5: confused types and numbers that do not fit never come through.
        float *reals = NULL;
        CHECK(refused(gguf_get_u32(&g, "absent", true, &number), "absent is missing"), "%s", fail_last());
        CHECK(refused(gguf_get_u32(&g, "general.architecture", true, &number), "an integer is expected"), "%s",
              fail_last());
        CHECK(refused(gguf_get_u32(&g, "test.numbers", true, &number), "an integer is expected"), "%s", fail_last());
        CHECK(refused(gguf_get_u32(&g, "test.narrow", true, &number), "is -2"), "%s", fail_last());
        CHECK(refused(gguf_get_f32s(&g, "test.numbers", true, &reals, &count), "an array of f32 is expected"), "%s",
              fail_last());
        CHECK(refused(gguf_get_i32s(&g, "test.strings", true, &numbers, &count), "an array of integers"), "%s",
              fail_last());
        CHECK(refused(gguf_get_strings(&g, "test.numbers", true, &strings, &count), "array of strings"), "%s",
              fail_last());
        CHECK(refused(gguf_get_bool(&g, "test.narrow", true, &truth), "a truth value"), "%s", fail_last());
        const struct GgufTensor *t = gguf_find_tensor(&g, "other");
        uint8_t data[64];
        CHECK(t && t->type == DT_Q4_0 && t->bytes == 18 && gguf_read(&g, t, 0, 18, data) && data[17] == 49, "the data");
        CHECK(t && refused(gguf_read(&g, t, 1, 18, data), "were wanted"), "%s", fail_last());
        CHECK(t && refused(gguf_read(&g, t, UINT64_MAX, 2, data), "were wanted"), "%s", fail_last());
        CHECK(!gguf_find_tensor(&g, "nobody") && !gguf_find(&g, "nothing"), "absent names are not found");
        free(text);
        free(numbers);
        gguf_close(&g);
        free(b.data);
    }
}

// Every prefix must be refused and no flipped bit may do harm (the sanitizers look on).
static void check_gguf_damage(void) {
    size_t at[N_PLACES];
    struct Buffer b = sound_gguf(at, 32);
    struct Gguf g;
    for (size_t bytes = 0; bytes < b.bytes; bytes++) {
        uint8_t *part = memcpy(xmalloc(bytes), b.data, bytes); // so that one byte too far is seen
        bool ok = gguf_open_memory(&g, part, bytes, "part");
        CHECK(!ok, "the first %zu of %zu bytes pass for a GGUF file", bytes, b.bytes);
        if (ok)
            gguf_close(&g);
        free(part);
    }
    unsigned opened = 0;
    for (size_t bit = 0; bit < 8 * at[DATA]; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (gguf_open_memory(&g, b.data, b.bytes, "flipped")) {
            opened++;
            for (uint64_t i = 0; i < g.n_tensors; i++)
                CHECK(g.tensors[i].offset + g.tensors[i].bytes <= b.bytes, "tensor %s reaches beyond",
                      g.tensors[i].name);
            gguf_close(&g);
        }
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(opened > 0 && opened < 8 * at[DATA], "%u of %zu flips open", opened, 8 * at[DATA]);
    free(b.data);
}

// ---- safetensors ----

static struct Buffer safetensors_of(const char *header, size_t data_bytes) {
    struct Buffer b = {0};
    put_string(&b, header);
    for (size_t i = 0; i < data_bytes; i++)
        put(&b, &(uint8_t){(uint8_t)i}, 1);
    return b;
}

#define A_ENTRY "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
static const struct {
    const char *name, *header;
    size_t data;
    const char *words; // NULL: sound
} SAFETENSORS_CASES[] = {
    {"one tensor", "{" A_ENTRY "}  ", 8, NULL},
    {"nothing at all", "{}", 0, NULL},
    {"metadata and a scalar",
     "{\"__metadata__\":{\"k\":\"v\"},\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, NULL},
    {"P10: an empty tensor at a seam", "{" A_ENTRY ",\"e\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[8,8]}}",
     8, NULL},
    {"a space before the brace", " {" A_ENTRY "}", 8, "must start with '{'"},
    {"no object", "[1]", 0, "must start with '{'"},
    {"an empty header", "", 0, "must start with '{'"},
    {"broken JSON", "{" A_ENTRY, 8, "not valid JSON"},
    {"text behind the object", "{" A_ENTRY "}{}", 8, "not valid JSON"},
    {"P10: a key twice (polyglot)", "{" A_ENTRY "," A_ENTRY "}", 8, "duplicate object key"},
    {"P10: a field twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "duplicate object key"},
    {"a 0 byte in a name", "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "not valid JSON"},
    {"metadata that is no object", "{\"__metadata__\":[1]," A_ENTRY "}", 8, "__metadata__"},
    {"P5: metadata with a number", "{\"__metadata__\":{\"k\":1}," A_ENTRY "}", 8, "must be a string"},
    {"a missing field", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets are expected"},
    {"a field too many", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "nothing else"},
    {"an unknown dtype", "{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype"},
    {"P5: a dtype that is a number", "{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "dtype must be a string"},
    {"a negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "natural number"},
    {"a broken dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "natural number"},
    {"P2: a dimension beyond 64 bits",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8, "natural number"},
    {"P2: elements that wrap", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,2],\"data_offsets\":[0,8]}}",
     8, "does not fit"},
    {"P2: bytes that wrap", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,8]}}", 8,
     "does not fit"},
    {"nine dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
     "9 dimensions"},
    {"offsets backwards", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "rising order"},
    {"a negative offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "rising order"},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "two natural numbers"},
    {"P7: offsets beyond the file", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
     "but the file holds 7"},
    {"P7: offsets near 2^63",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[999999999999999991,999999999999999999]}}", 8,
     "but the file holds"},
    {"a span that is not the size", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
     "span 8 bytes"},
    {"P10: a hole at the start", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole"},
    {"P10: a hole in the middle", "{" A_ENTRY ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9,10]}}", 10,
     "hole"},
    {"P10: bytes behind the last tensor", "{" A_ENTRY "}", 9, "the tensors end at byte"},
    {"P10: tensors on top of each other",
     "{" A_ENTRY ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "overlaps"},
    {"P10: one place used twice", "{" A_ENTRY ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "overlaps"},
    {"P10: an empty tensor inside another",
     "{" A_ENTRY ",\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}", 8, "overlaps"},
};

static void check_safetensors_cases(void) {
    struct Safetensors s;
    for (size_t i = 0; i < sizeof SAFETENSORS_CASES / sizeof *SAFETENSORS_CASES; i++) {
        struct Buffer b = safetensors_of(SAFETENSORS_CASES[i].header, SAFETENSORS_CASES[i].data);
        bool ok = safetensors_open_memory(&s, b.data, b.bytes, "lie.safetensors");
        const char *words = SAFETENSORS_CASES[i].words;
        CHECK(words ? refused(ok, words) : ok, "safetensors with %s: opened %d, message: %s", SAFETENSORS_CASES[i].name,
              ok, fail_last());
        if (ok)
            safetensors_close(&s);
        free(b.data);
    }
    const uint64_t lengths[] = {UINT64_MAX, UINT64_C(1) << 63, 100000001, 100000000, 1000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct Buffer b = safetensors_of("{" A_ENTRY "}", 8);
        memcpy(b.data, &lengths[i], 8);
        const char *words = lengths[i] > 100000000 ? "at most 100000000 are accepted" : "but the file ends after";
        CHECK(refused(safetensors_open_memory(&s, b.data, b.bytes, "x"), words), "P1: a header of %llu bytes: %s",
              (unsigned long long)lengths[i], fail_last());
        free(b.data);
    }
}

// P3, P2: sizes at the edge of 64 bits, where rounding up or a sum would come out small.
static void check_p3_rounding(void) {
    size_t at[N_PLACES];
    for (uint32_t alignment = 32; alignment <= 4096; alignment *= 2) {
        for (uint64_t back = 0; back < 3; back++) {
            struct Buffer b = sound_gguf(at, alignment);
            const uint64_t rows = (UINT64_MAX / 16 - back) & ~UINT64_C(1);
            memcpy(b.data + at[DIM_1], &rows, 8);
            struct Gguf g;
            bool ok = gguf_open_memory(&g, b.data, b.bytes, "x");
            CHECK(!ok, "P3: %llu rows at alignment %u open", (unsigned long long)rows, alignment);
            if (ok)
                gguf_close(&g);
            free(b.data);
        }
    }
    // A second tensor of 2^64 - 8 bytes at byte 32 would end at byte 24, within the file.
    struct Buffer b = sound_gguf(at, 32);
    struct Gguf g;
    memcpy(b.data + at[SECOND_DIM], &(uint64_t){(UINT64_C(1) << 61) - 1}, 8);
    memcpy(b.data + at[SECOND_TYPE], &(uint32_t){27}, 4); // I64
    bool ok = gguf_open_memory(&g, b.data, at[DATA] + 32, "x");
    CHECK(refused(ok, "does not fit in 62 bits"), "P3: a tensor whose end wraps: opened %d, %s", ok, fail_last());
    if (ok)
        gguf_close(&g);
    free(b.data);
}

// P7: nothing behind the end is read, whatever a reader asks for.
static void check_p7_reads(void) {
    uint8_t *data = xcalloc(10, 1), out[16];
    struct FileIn f;
    filein_open_memory(&f, data, 10, "ten");
    CHECK(filein_read(&f, 4, 6, out) && filein_read(&f, 10, 0, out), "%s", fail_last());
    static const uint64_t BEYOND[][2] = {
        {4, 7}, {11, 0}, {10, 1}, {UINT64_MAX, 1}, {UINT64_MAX, 2}, {1, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}};
    for (size_t i = 0; i < sizeof BEYOND / sizeof *BEYOND; i++)
        CHECK(refused(filein_read(&f, BEYOND[i][0], min_u64(BEYOND[i][1], 16), out), "are wanted at byte") &&
                  refused(filein_read(&f, BEYOND[i][0], BEYOND[i][1], out), "but the file has 10"),
              "P7: case %zu: %s", i, fail_last());
    filein_close(&f);
    free(data);
}

// P6: what reads others' files must not lean on assert: a build with NDEBUG has none.
static void check_p6_no_assert_on_input(void) {
    static const char *const READERS[] = {"model/gguf.c",
                                          "model/ggufsplit.c",
                                          "model/safetensors.c",
                                          "model/json.c",
                                          "model/fileio.c",
                                          "model/modelfile.c",
                                          "model/config.c",
                                          "model/config_hf.c",
                                          "model/config_gguf.c",
                                          "model/rope.c",
                                          "model/imatrix.c",
                                          "model/chatfile.c",
                                          "model/adapter.c",
                                          "model/vocabfile.c",
                                          "model/vocabspm.c",
                                          "model/tokenizer.c",
                                          "model/tokenizer_load.c",
                                          "model/tokenizer_json.c",
                                          "model/spmfile.c",
                                          "model/spm.c",
                                          "model/bpe.c",
                                          "model/normalize.c",
                                          "model/pretokenize.c",
                                          "model/utf8.c",
                                          "model/template.c",
                                          "model/template_parse.c",
                                          "model/grammar.c",
                                          "model/matcher.c",
                                          "train/data.c",
                                          "train/checkpoint.c"};
    for (size_t i = 0; i < sizeof READERS / sizeof *READERS; i++) {
        char *path = path_join(VKMOE_SOURCE_DIR, READERS[i]);
        uint8_t *text = NULL;
        uint64_t bytes = 0;
        CHECK(file_read(path, 1 << 20, &text, &bytes), "%s", fail_last());
        const uint8_t *writer =
            text ? memmem(text, bytes, "// ---- Writing", 15) : NULL; // it is called by our own code
        CHECK(text && !memmem(text, writer ? (size_t)(writer - text) : bytes, "assert(", 7), "P6: %s asserts",
              READERS[i]);
        free(text);
        free(path);
    }
}

static void check_safetensors_damage(void) {
    struct Buffer b = safetensors_of("{\"__metadata__\":{\"format\":\"pt\"}," A_ENTRY
                                     ",\"b\":{\"dtype\":\"BF16\",\"shape\":[3,1],\"data_offsets\":[8,14]}}",
                                     14);
    struct Safetensors s;
    for (size_t bytes = 0; bytes < b.bytes; bytes++) {
        uint8_t *part = memcpy(xmalloc(bytes), b.data, bytes);
        bool ok = safetensors_open_memory(&s, part, bytes, "part");
        CHECK(!ok, "the first %zu of %zu bytes pass", bytes, b.bytes);
        if (ok)
            safetensors_close(&s);
        free(part);
    }
    for (size_t bit = 0; bit < 8 * b.bytes; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (safetensors_open_memory(&s, b.data, b.bytes, "flipped")) {
            for (uint32_t i = 0; i < s.n_entries; i++)
                CHECK(s.entries[i].offset + s.entries[i].bytes <= b.bytes, "%s reaches beyond", s.entries[i].name);
            safetensors_close(&s);
        }
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(b.data);
}

// A file is written whole or not at all, and one that shrinks after it was opened gives an error (P7).
static void check_files(const char *dir) {
    char *path = path_join(dir, "a.safetensors");
    struct SafetensorsWriter w;
    const float values[6] = {1, 2, 3, 4, 5, 6};
    safetensors_writer_init(&w);
    safetensors_writer_metadata(&w, "a \"key\"", "a\nvalue");
    safetensors_writer_add(&w, "x.weight", DT_F32, 2, (uint64_t[]){2, 2});
    safetensors_writer_add(&w, "y", DT_F16, 1, (uint64_t[]){4});
    CHECK(safetensors_writer_begin(&w, path), "%s", fail_last());
    CHECK(!file_exists(path), "nothing under the final name before the end");
    CHECK(safetensors_writer_data(&w, values, 16) && safetensors_writer_data(&w, values, 8), "%s", fail_last());
    CHECK(safetensors_writer_end(&w) && file_exists(path), "%s", fail_last());
    struct Safetensors s;
    if (CHECK(safetensors_open(&s, path), "%s", fail_last())) {
        float read[4] = {0};
        const struct SafetensorsEntry *e = safetensors_find(&s, "x.weight");
        CHECK(e && e->offset % 8 == 0 && safetensors_read(&s, e, 0, 16, read) && memcmp(read, values, 16) == 0,
              "x.weight");
        const char *value = safetensors_metadata(&s, "a \"key\"");
        CHECK(value && strcmp(value, "a\nvalue") == 0 && !safetensors_metadata(&s, "none"), "metadata");
        CHECK(truncate(path, 20) == 0 && e && refused(safetensors_read(&s, e, 0, 16, read), "when it was opened"),
              "a file that shrank: %s", fail_last());
        safetensors_close(&s);
    }
    unlink(path);
    safetensors_writer_init(&w);
    safetensors_writer_add(&w, "x", DT_F32, 1, (uint64_t[]){4});
    CHECK(safetensors_writer_begin(&w, path) && safetensors_writer_data(&w, values, 8), "%s", fail_last());
    CHECK(refused(safetensors_writer_end(&w), "8 of 16 bytes") && !file_exists(path), "%s", fail_last());
    struct GgufWriter g;
    gguf_writer_init(&g);
    gguf_writer_tensor(&g, "x", DT_F32, 1, (uint64_t[]){4});
    CHECK(gguf_writer_begin(&g, path) && refused(gguf_writer_end(&g), "0 of 1 tensors") && !file_exists(path), "%s",
          fail_last());
    CHECK(rmdir(dir) == 0 && dir_make(dir), "temporary files are gone"); // fails when anything was left
    CHECK(refused(safetensors_open(&s, path), "cannot be opened") &&
              refused(safetensors_open(&s, dir), "not a regular file"),
          "%s", fail_last());
    CHECK(mkfifo(path, 0600) == 0 && refused(safetensors_open(&s, path), "not a regular file"), "a named pipe: %s",
          fail_last()); // and no waiting for who writes to it
    unlink(path);
    free(path);
}

// ---- JSON ----

static void check_json(void) {
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"a\":1}", NULL},
        {"{\"a\":1000000000000000019884624838656,\"b\":[-12345678901234567890123]}", NULL},
        {"{\"a\":\"12345678901234567890123\\\"9999999999999999999999\"}", NULL},
        {"", "not valid JSON"},
        {"{\"a\":1}x", "not valid JSON"},
        {"{\"a\":1,\"a\":2}", "duplicate object key"},
        {"{\"a\":NaN}", "not valid JSON"},
        {"{\"a\":01}", "not valid JSON"},
        {"{\"a\":1e999}", "not valid JSON"},
        {"{\"a\":\"\\ud800\"}", "not valid JSON"},
        {"{\"a\":\"\xff\"}", "not valid JSON"},
        {"{'a':1}", "not valid JSON"},
        {"[1,]", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *value = json_parse(cases[i].text, strlen(cases[i].text), "x.json");
        CHECK(cases[i].words ? refused(value, cases[i].words) : value != NULL, "%s: %s", cases[i].text, fail_last());
        json_decref(value);
    }
    json_t *value = json_parse(cases[1].text, strlen(cases[1].text), "x");
    CHECK_NEAR(json_number_value(json_object_get(value, "a")), 1e30, 0, 1e-12);
    CHECK_NEAR(json_number_value(json_array_get(json_object_get(value, "b"), 0)), -12345678901234567890123.0, 0, 1e-12);
    json_decref(value);
    for (int depth = 63; depth <= 100000; depth = depth < 66 ? depth + 1 : depth * 10) {
        char *text = xmalloc(2 * (size_t)depth);
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        value = json_parse(text, 2 * (size_t)depth, "deep.json");
        CHECK(depth <= 64 ? value != NULL : refused(value, "nested deeper than 64"), "S1: depth %d: %s", depth,
              fail_last());
        json_decref(value);
        free(text);
    }
}

// For tools/compare_readers.py: files by name on standard input, and for each a line of "yes" or why not.
static int accept_or_reject(void) {
    char path[4096];
    while (fgets(path, sizeof path, stdin)) {
        path[strcspn(path, "\n")] = 0;
        struct Gguf g;
        struct Safetensors s;
        bool is_gguf = strstr(path, ".gguf"), ok = is_gguf ? gguf_open(&g, path) : safetensors_open(&s, path);
        printf("%s\n", ok ? "yes" : fail_last());
        if (ok && is_gguf)
            gguf_close(&g);
        else if (ok)
            safetensors_close(&s);
    }
    return 0;
}

int main(int argc, char **argv) {
    fail_quiet(true);
    if (argc > 1 && strcmp(argv[1], "--accept") == 0)
        return accept_or_reject();
    char dir[] = "test-files-XXXXXX";
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    check_gguf_sound();
    check_gguf_cases();
    check_gguf_damage();
    check_safetensors_cases();
    check_safetensors_damage();
    check_p3_rounding();
    check_p7_reads();
    check_p6_no_assert_on_input();
    check_json();
    check_files(dir);
    rmdir(dir);
    return check_done();
}
