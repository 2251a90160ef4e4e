// GGUF, the format of ggml-org/ggml (docs/gguf.md there). The header is walked twice by the same code: first to check it and
// to learn its size, then, with all of it in memory, to note where the values are.
#include "model/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MAX_HEADER_BYTES = UINT64_C(1) << 30;
enum {
    MAX_ENTRIES = 1 << 20,
    MAX_KEY_BYTES = 65535,
    MAX_NAME_BYTES = 63,
    MAX_ALIGNMENT = 4096,
    DEFAULT_ALIGNMENT = 32
};

// Bytes of a value of each type; 0: not of fixed size.
static const uint8_t TYPE_BYTES[GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const TYPE_NAMES[GGUF_TYPE_COUNT] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                        "bool", "string", "array", "u64", "i64", "f64"};

// ggml's tensor types by number; those without a counterpart here are named so that a message can name them.
static const struct {
    const char *name;
    uint32_t block, block_bytes;
    enum DType type;
} GGML_TYPES[] = {
    [0] = {"F32", 1, 4, DT_F32},           [1] = {"F16", 1, 2, DT_F16},
    [2] = {"Q4_0", 32, 18, DT_Q4_0},       [3] = {"Q4_1", 32, 20, DT_Q4_1},
    [6] = {"Q5_0", 32, 22, DT_Q5_0},       [7] = {"Q5_1", 32, 24, DT_Q5_1},
    [8] = {"Q8_0", 32, 34, DT_Q8_0},       [9] = {"Q8_1", 32, 36, DT_COUNT},
    [10] = {"Q2_K", 256, 84, DT_Q2_K},     [11] = {"Q3_K", 256, 110, DT_Q3_K},
    [12] = {"Q4_K", 256, 144, DT_Q4_K},    [13] = {"Q5_K", 256, 176, DT_Q5_K},
    [14] = {"Q6_K", 256, 210, DT_Q6_K},    [15] = {"Q8_K", 256, 292, DT_COUNT},
    [16] = {"IQ2_XXS", 256, 66, DT_COUNT}, [17] = {"IQ2_XS", 256, 74, DT_COUNT},
    [18] = {"IQ3_XXS", 256, 98, DT_COUNT}, [19] = {"IQ1_S", 256, 50, DT_COUNT},
    [20] = {"IQ4_NL", 32, 18, DT_IQ4_NL},  [21] = {"IQ3_S", 256, 110, DT_COUNT},
    [22] = {"IQ2_S", 256, 82, DT_COUNT},   [23] = {"IQ4_XS", 256, 136, DT_IQ4_XS},
    [24] = {"I8", 1, 1, DT_COUNT},         [25] = {"I16", 1, 2, DT_COUNT},
    [26] = {"I32", 1, 4, DT_COUNT},        [27] = {"I64", 1, 8, DT_COUNT},
    [28] = {"F64", 1, 8, DT_COUNT},        [29] = {"IQ1_M", 256, 56, DT_COUNT},
    [30] = {"BF16", 1, 2, DT_BF16},        [34] = {"TQ1_0", 256, 54, DT_COUNT},
    [35] = {"TQ2_0", 256, 66, DT_COUNT},   [39] = {"MXFP4", 32, 17, DT_COUNT},
};
enum { N_GGML_TYPES = sizeof GGML_TYPES / sizeof *GGML_TYPES };

// ---- Walking the header ----

struct Cursor {
    struct Gguf *g;
    uint64_t at, have, room; // position; bytes of g->header that are filled; allocated
    bool store;              // second walk
};

static uint64_t left(const struct Cursor *c) { return c->g->file.bytes - c->at; }

// Makes `bytes` more bytes available at the cursor and steps over them; NULL after a message.
static const uint8_t *take(struct Cursor *c, uint64_t bytes, const char *what) {
    struct Gguf *g = c->g;
    if (bytes > left(c)) {
        fail("%s: byte %" PRIu64 ": the file ends within %s", g->file.name, c->at, what);
        return NULL;
    }
    uint64_t end = c->at + bytes;
    if (end > MAX_HEADER_BYTES) {
        fail("%s: byte %" PRIu64 ": the header is larger than %" PRIu64 " bytes", g->file.name, c->at,
             MAX_HEADER_BYTES);
        return NULL;
    }
    if (end > c->have) {
        uint64_t want = min_u64(max_u64(end, 2 * c->have + 65536), g->file.bytes);
        if (want > c->room) {
            g->header = xrealloc(g->header, want);
            c->room = want;
        }
        if (!filein_read(&g->file, c->have, want - c->have, g->header + c->have))
            return NULL;
        c->have = want;
    }
    const uint8_t *data = g->header + c->at;
    c->at = end;
    return data;
}

static bool take_u32(struct Cursor *c, uint32_t *out, const char *what) {
    const uint8_t *data = take(c, 4, what);
    if (data)
        memcpy(out, data, 4);
    return data;
}

static bool take_u64(struct Cursor *c, uint64_t *out, const char *what) {
    const uint8_t *data = take(c, 8, what);
    if (data)
        memcpy(out, data, 8);
    return data;
}

static bool take_string(struct Cursor *c, struct GgufString *out, const char *what) {
    uint64_t bytes, start = c->at;
    if (!take_u64(c, &bytes, what))
        return false;
    if (bytes > left(c))
        return fail("%s: byte %" PRIu64 ": %s would have %" PRIu64 " bytes, but %" PRIu64 " are left in the file",
                    c->g->file.name, start, what, bytes, left(c));
    const uint8_t *text = take(c, bytes, what);
    *out = (struct GgufString){(const char *)text, bytes};
    return text;
}

// A key or a name: 1 to `max` bytes without a 0 byte.
static bool take_name(struct Cursor *c, uint64_t max, struct GgufString *out, const char *what) {
    uint64_t start = c->at;
    if (!take_string(c, out, what))
        return false;
    if (out->bytes == 0 || out->bytes > max)
        return fail("%s: byte %" PRIu64 ": %s has %zu bytes; 1 to %" PRIu64 " are expected", c->g->file.name, start,
                    what, out->bytes, max);
    if (memchr(out->text, 0, out->bytes))
        return fail("%s: byte %" PRIu64 ": %s holds a 0 byte", c->g->file.name, start, what);
    return true;
}

static bool check_bools(const struct Cursor *c, const uint8_t *data, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        if (data[i] > 1)
            return fail("%s: byte %" PRIu64 ": a truth value is %u; 0 or 1 is expected", c->g->file.name,
                        c->at - count + i, data[i]);
    }
    return true;
}

static bool walk_content(struct Cursor *c, struct GgufValue *v) {
    const char *file = c->g->file.name;
    uint64_t start = c->at;
    if (v->element == GGUF_ARRAY)
        return fail("%s: byte %" PRIu64 ": an array of arrays is not accepted", file, start);
    uint64_t each = v->element == GGUF_STRING ? 8 : TYPE_BYTES[v->element];
    if (v->count > left(c) / each)
        return fail("%s: byte %" PRIu64 ": an array would have %" PRIu64 " elements of %s, but %" PRIu64
                    " bytes are left in the file",
                    file, start, v->count, TYPE_NAMES[v->element], left(c));
    if (v->element != GGUF_STRING) {
        v->data = take(c, v->count * each, "a value");
        return v->data && (v->element != GGUF_BOOL || check_bools(c, v->data, v->count));
    }
    if (c->store)
        v->strings = xcalloc(v->count, sizeof *v->strings);
    for (uint64_t i = 0; i < v->count; i++) {
        struct GgufString string;
        if (!take_string(c, &string, "a string"))
            return false;
        if (c->store)
            v->strings[i] = string;
    }
    return true;
}

static bool walk_value(struct Cursor *c, uint64_t index) {
    struct Gguf *g = c->g;
    struct GgufValue v = {.count = 1};
    struct GgufString key;
    if (!take_name(c, MAX_KEY_BYTES, &key, "a key"))
        return false;
    // Noted now: the first walk may move the header.
    v.key = xsprintf("%.*s", (int)key.bytes, key.text);
    uint64_t start = c->at;
    uint32_t type = 0, element = 0;
    bool ok = take_u32(c, &type, "the type of a value");
    if (ok && type >= GGUF_TYPE_COUNT)
        ok = fail("%s: byte %" PRIu64 ": key %s has the unknown type %u", g->file.name, start, v.key, type);
    element = type;
    if (ok && type == GGUF_ARRAY) {
        ok = take_u32(c, &element, "the type of an array") && take_u64(c, &v.count, "the length of an array");
        if (ok && element >= GGUF_TYPE_COUNT)
            ok = fail("%s: byte %" PRIu64 ": key %s is an array of the unknown type %u", g->file.name, start, v.key,
                      element);
    }
    if (ok) {
        v.type = (enum GgufType)type;
        v.element = (enum GgufType)element;
        ok = walk_content(c, &v);
    }
    if (!c->store || !ok) {
        free(v.key);
        free(v.strings);
        return ok;
    }
    v.raw = g->header + start;
    v.raw_bytes = c->at - start;
    g->values[index] = v;
    return true;
}

static bool tensor_type(struct Cursor *c, struct GgufTensor *t, uint64_t start) {
    const char *file = c->g->file.name;
    if (t->ggml_type >= N_GGML_TYPES || !GGML_TYPES[t->ggml_type].name)
        return fail("%s: byte %" PRIu64 ": tensor %s has the unknown type %u", file, start, t->name, t->ggml_type);
    uint32_t block = GGML_TYPES[t->ggml_type].block, block_bytes = GGML_TYPES[t->ggml_type].block_bytes;
    t->type = GGML_TYPES[t->ggml_type].type;
    t->type_name = GGML_TYPES[t->ggml_type].name;
    uint64_t cols = t->dim[t->n_dims - 1];
    if (cols % block)
        return fail("%s: byte %" PRIu64 ": tensor %s of type %s has rows of %" PRIu64 ", which is no multiple of %u",
                    file, start, t->name, t->type_name, cols, block);
    t->bytes = block_bytes;
    bool fits = ckd_mul(t->bytes, cols / block, &t->bytes);
    for (uint32_t i = 0; i + 1 < t->n_dims; i++)
        fits = fits && ckd_mul(t->bytes, t->dim[i], &t->bytes);
    // Half of the range is kept free, so that offset + bytes + alignment cannot wrap either.
    if (!fits || t->bytes > UINT64_MAX / 4)
        return fail("%s: byte %" PRIu64 ": the size of tensor %s does not fit in 62 bits", file, start, t->name);
    return true;
}

static bool walk_tensor(struct Cursor *c, uint64_t index) {
    struct Gguf *g = c->g;
    struct GgufTensor t = {.dim = {1, 1, 1, 1}};
    struct GgufString name;
    uint64_t start = c->at;
    if (!take_name(c, MAX_NAME_BYTES, &name, "the name of a tensor"))
        return false;
    t.name = xsprintf("%.*s", (int)name.bytes, name.text);
    bool ok = take_u32(c, &t.n_dims, "a tensor's description");
    if (ok && (t.n_dims < 1 || t.n_dims > 4))
        ok = fail("%s: byte %" PRIu64 ": tensor %s has %u dimensions; 1 to 4 are expected", g->file.name, start, t.name,
                  t.n_dims);
    for (uint32_t i = 0; ok && i < t.n_dims; i++) {
        uint64_t *dim = &t.dim[t.n_dims - 1 - i];
        ok = take_u64(c, dim, "a tensor's description");
        if (ok && (*dim < 1 || *dim > INT64_MAX))
            ok = fail("%s: byte %" PRIu64 ": dimension %u of tensor %s is %" PRIu64, g->file.name, start, i, t.name,
                      *dim);
    }
    ok = ok && take_u32(c, &t.ggml_type, "a tensor's description") &&
         take_u64(c, &t.offset, "a tensor's description") && tensor_type(c, &t, start);
    if (!c->store || !ok)
        free(t.name);
    else
        g->tensors[index] = t;
    return ok;
}

static bool walk_header(struct Cursor *c) {
    struct Gguf *g = c->g;
    const char *file = g->file.name;
    c->at = 0;
    const uint8_t *magic = take(c, 4, "the magic number");
    if (!magic)
        return false;
    if (memcmp(magic, "GGUF", 4) != 0)
        return fail("%s: is no GGUF file: it starts with the bytes %02x %02x %02x %02x instead of \"GGUF\"", file,
                    magic[0], magic[1], magic[2], magic[3]);
    if (!take_u32(c, &g->version, "the version"))
        return false;
    if (g->version && (g->version & 0xffff) == 0)
        return fail("%s: byte 4: the file is big-endian; only little-endian GGUF is read", file);
    if (g->version != 2 && g->version != 3)
        return fail("%s: byte 4: GGUF version %u; 2 or 3 is expected", file, g->version);
    if (!take_u64(c, &g->n_tensors, "the number of tensors") || !take_u64(c, &g->n_values, "the number of keys"))
        return false;
    // The shortest description of a tensor has 33 bytes, the shortest key and value 14.
    if (g->n_tensors > left(c) / 33 || g->n_tensors > MAX_ENTRIES)
        return fail("%s: byte 8: the number of tensors is %" PRIu64 "; the file has room for %" PRIu64, file,
                    g->n_tensors, min_u64(left(c) / 33, MAX_ENTRIES));
    if (g->n_values > left(c) / 14 || g->n_values > MAX_ENTRIES)
        return fail("%s: byte 16: the number of keys is %" PRIu64 "; the file has room for %" PRIu64, file, g->n_values,
                    min_u64(left(c) / 14, MAX_ENTRIES));
    if (c->store) {
        g->values = xcalloc(g->n_values, sizeof *g->values);
        g->tensors = xcalloc(g->n_tensors, sizeof *g->tensors);
    }
    for (uint64_t i = 0; i < g->n_values; i++) {
        if (!walk_value(c, i))
            return false;
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        if (!walk_tensor(c, i))
            return false;
    }
    g->header_bytes = c->at;
    return true;
}

// ---- After the walk ----

static int by_key(const void *a, const void *b, void *values) {
    const struct GgufValue *v = values;
    return strcmp(v[*(const uint32_t *)a].key, v[*(const uint32_t *)b].key);
}

static int by_name(const void *a, const void *b, void *tensors) {
    const struct GgufTensor *t = tensors;
    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static uint32_t *sorted(uint64_t count, int (*order)(const void *, const void *, void *), void *items) {
    uint32_t *index = xcalloc(count, sizeof *index);
    for (uint64_t i = 0; i < count; i++)
        index[i] = (uint32_t)i;
    if (count > 0)
        qsort_r(index, count, sizeof *index, order, items);
    return index;
}

static bool index_names(struct Gguf *g) {
    g->value_by_key = sorted(g->n_values, by_key, g->values);
    g->tensor_by_name = sorted(g->n_tensors, by_name, g->tensors);
    for (uint64_t i = 1; i < g->n_values; i++) {
        const char *key = g->values[g->value_by_key[i]].key;
        if (strcmp(key, g->values[g->value_by_key[i - 1]].key) == 0)
            return fail("%s: the key %s stands twice", g->file.name, key);
    }
    for (uint64_t i = 1; i < g->n_tensors; i++) {
        const char *name = g->tensors[g->tensor_by_name[i]].name;
        if (strcmp(name, g->tensors[g->tensor_by_name[i - 1]].name) == 0)
            return fail("%s: the tensor %s stands twice", g->file.name, name);
    }
    return true;
}

static bool read_alignment(struct Gguf *g) {
    g->alignment = DEFAULT_ALIGNMENT;
    const struct GgufValue *v = gguf_find(g, "general.alignment");
    if (!v)
        return true;
    if (v->type != GGUF_U32)
        return fail("%s: general.alignment is of type %s; u32 is expected", g->file.name, TYPE_NAMES[v->type]);
    memcpy(&g->alignment, v->data, 4);
    if (g->alignment < 1 || g->alignment > MAX_ALIGNMENT || (g->alignment & (g->alignment - 1)))
        return fail("%s: general.alignment is %u; a power of two up to %d is expected", g->file.name, g->alignment,
                    MAX_ALIGNMENT);
    return true;
}

// The data of the tensors stand in the order of their descriptions, each at the next aligned place, and fill the file.
static bool check_layout(struct Gguf *g) {
    uint64_t start = align_up(g->header_bytes, g->alignment), at = 0, end = 0;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct GgufTensor *t = &g->tensors[i];
        if (t->offset != at)
            return fail("%s: tensor %s is said to start at byte %" PRIu64 " of the data; %" PRIu64 " is expected",
                        g->file.name, t->name, t->offset, at);
        end = at + t->bytes; // both below 2^62
        if (start > g->file.bytes || end > g->file.bytes - start)
            return fail("%s: tensor %s ends at byte %" PRIu64 ", but the file has %" PRIu64, g->file.name, t->name,
                        start + end, g->file.bytes);
        at = align_up(end, g->alignment);
        t->offset += start;
    }
    if (g->file.bytes > start + at)
        return fail("%s: the content ends at byte %" PRIu64 ", but the file has %" PRIu64, g->file.name, start + at,
                    g->file.bytes);
    return true;
}

static bool finish_open(struct Gguf *g) {
    struct Cursor c = {.g = g};
    bool ok = walk_header(&c);
    uint64_t n_values = g->n_values, n_tensors = g->n_tensors;
    g->n_values = g->n_tensors = 0; // nothing is stored yet
    if (ok) {
        c.store = true;
        ok = walk_header(&c); // cannot fail: the same bytes are in memory
    }
    if (ok && (n_values != g->n_values || n_tensors != g->n_tensors))
        ok = fail("%s: changed while it was read", g->file.name);
    if (ok && index_names(g) && read_alignment(g) && check_layout(g))
        return true;
    gguf_close(g);
    return false;
}

bool gguf_open(struct Gguf *g, const char *path) {
    *g = (struct Gguf){.file.fd = -1};
    return filein_open(&g->file, path) && finish_open(g);
}

bool gguf_open_memory(struct Gguf *g, const void *data, size_t bytes, const char *name) {
    *g = (struct Gguf){.file.fd = -1};
    filein_open_memory(&g->file, data, bytes, name);
    return finish_open(g);
}

void gguf_close(struct Gguf *g) {
    for (uint64_t i = 0; g->values && i < g->n_values; i++) {
        free(g->values[i].key);
        free(g->values[i].strings);
    }
    for (uint64_t i = 0; g->tensors && i < g->n_tensors; i++)
        free(g->tensors[i].name);
    free(g->values);
    free(g->tensors);
    free(g->value_by_key);
    free(g->tensor_by_name);
    free(g->header);
    filein_close(&g->file);
    *g = (struct Gguf){.file.fd = -1};
}

// ---- Access ----

const struct GgufValue *gguf_find(const struct Gguf *g, const char *key) {
    uint64_t low = 0, high = g->n_values;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct GgufValue *v = &g->values[g->value_by_key[middle]];
        int order = strcmp(key, v->key);
        if (order == 0)
            return v;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct GgufTensor *gguf_find_tensor(const struct Gguf *g, const char *name) {
    uint64_t low = 0, high = g->n_tensors;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct GgufTensor *t = &g->tensors[g->tensor_by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool gguf_read(const struct Gguf *g, const struct GgufTensor *t, uint64_t offset, uint64_t bytes, void *out) {
    if (offset > t->bytes || bytes > t->bytes - offset)
        return fail("%s: tensor %s has %" PRIu64 " bytes; %" PRIu64 " were wanted from byte %" PRIu64, g->file.name,
                    t->name, t->bytes, bytes, offset);
    return filein_read(&g->file, t->offset + offset, bytes, out);
}

// The value of a key, checked to be of a type in the bit mask `types` (of elements when `array`). *found is NULL when it is absent.
static bool find_typed(const struct Gguf *g, const char *key, bool required, bool array, uint32_t types,
                       const char *expected, const struct GgufValue **found) {
    const struct GgufValue *v = *found = gguf_find(g, key);
    if (!v)
        return !required || fail("%s: the key %s is missing", g->file.name, key);
    if ((v->type == GGUF_ARRAY) != array || !(types >> v->element & 1))
        return fail("%s: the key %s is %s%s; %s is expected", g->file.name, key,
                    v->type == GGUF_ARRAY ? "an array of " : "of type ", TYPE_NAMES[v->element], expected);
    return true;
}

enum {
    SIGNED = 1 << GGUF_I8 | 1 << GGUF_I16 | 1 << GGUF_I32 | 1 << GGUF_I64,
    UNSIGNED = 1 << GGUF_U8 | 1 << GGUF_U16 | 1 << GGUF_U32 | 1 << GGUF_U64,
};

// Little-endian two's complement, extended to 64 bits.
static uint64_t load_integer(enum GgufType type, const uint8_t *data) {
    uint64_t value = 0;
    unsigned bits = 8u * TYPE_BYTES[type];
    memcpy(&value, data, TYPE_BYTES[type]);
    if ((SIGNED >> type & 1) && bits < 64 && value >> (bits - 1) & 1)
        value |= ~UINT64_C(0) << bits;
    return value;
}

bool gguf_get_u32(const struct Gguf *g, const char *key, bool required, uint32_t *out) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, false, SIGNED | UNSIGNED, "an integer", &v))
        return false;
    if (!v)
        return true;
    uint64_t value = load_integer(v->type, v->data); // a negative number is large here
    if (value > UINT32_MAX)
        return fail("%s: the key %s is %" PRId64 "; 0 to %u is expected", g->file.name, key, (int64_t)value,
                    UINT32_MAX);
    *out = (uint32_t)value;
    return true;
}

bool gguf_get_f32(const struct Gguf *g, const char *key, bool required, float *out) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, false, 1 << GGUF_F32 | 1 << GGUF_F64, "a real number", &v))
        return false;
    if (v && v->type == GGUF_F32)
        memcpy(out, v->data, 4);
    if (v && v->type == GGUF_F64) {
        double wide;
        memcpy(&wide, v->data, 8);
        *out = (float)wide;
    }
    return true;
}

bool gguf_get_bool(const struct Gguf *g, const char *key, bool required, bool *out) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, false, 1 << GGUF_BOOL, "a truth value", &v))
        return false;
    if (v)
        *out = v->data[0];
    return true;
}

bool gguf_get_string(const struct Gguf *g, const char *key, bool required, char **out) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, false, 1 << GGUF_STRING, "a string", &v))
        return false;
    if (!v)
        return true;
    if (memchr(v->strings[0].text, 0, v->strings[0].bytes))
        return fail("%s: the key %s holds a 0 byte", g->file.name, key);
    char *text = xmalloc(v->strings[0].bytes + 1);
    memcpy(text, v->strings[0].text, v->strings[0].bytes);
    text[v->strings[0].bytes] = 0;
    *out = text;
    return true;
}

bool gguf_get_strings(const struct Gguf *g, const char *key, bool required, const struct GgufString **out,
                      uint64_t *count) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, true, 1 << GGUF_STRING, "an array of strings", &v))
        return false;
    if (v) {
        *out = v->strings;
        *count = v->count;
    }
    return true;
}

bool gguf_get_i32s(const struct Gguf *g, const char *key, bool required, int32_t **out, uint64_t *count) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, true, SIGNED | UNSIGNED, "an array of integers", &v))
        return false;
    if (!v)
        return true;
    int32_t *values = xcalloc(v->count, sizeof *values);
    for (uint64_t i = 0; i < v->count; i++) {
        uint64_t value = load_integer(v->element, v->data + i * TYPE_BYTES[v->element]);
        values[i] = (int32_t)(uint32_t)value;
        if ((uint64_t)(int64_t)values[i] != value) {
            free(values);
            return fail("%s: element %" PRIu64 " of the key %s does not fit in 32 bits", g->file.name, i, key);
        }
    }
    *out = values;
    *count = v->count;
    return true;
}

bool gguf_get_f32s(const struct Gguf *g, const char *key, bool required, float **out, uint64_t *count) {
    const struct GgufValue *v;
    if (!find_typed(g, key, required, true, 1 << GGUF_F32, "an array of f32", &v))
        return false;
    if (!v)
        return true;
    *out = xcalloc(v->count, sizeof **out);
    if (v->count)
        memcpy(*out, v->data, v->count * sizeof **out);
    *count = v->count;
    return true;
}
