// Safetensors: the format of huggingface/safetensors. A reader that trusts nothing the header says, and an atomic writer.
#include "model/safetensors.h"
#include "model/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MAX_HEADER_BYTES = 100000000;

static const struct {
    const char *name;
    uint32_t bytes;
    enum DType type;
} TYPES[] = {
    {"F32", 4, DT_F32},    {"F16", 2, DT_F16},   {"BF16", 2, DT_BF16},     {"U32", 4, DT_U32},
    {"BOOL", 1, DT_COUNT}, {"U8", 1, DT_COUNT},  {"I8", 1, DT_COUNT},      {"U16", 2, DT_COUNT},
    {"I16", 2, DT_COUNT},  {"I32", 4, DT_COUNT}, {"U64", 8, DT_COUNT},     {"I64", 8, DT_COUNT},
    {"F64", 8, DT_COUNT},  {"C64", 8, DT_COUNT}, {"F8_E4M3", 1, DT_COUNT}, {"F8_E5M2", 1, DT_COUNT},
};

static void put_u64(uint8_t out[8], uint64_t value) {
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_u64(const uint8_t in[8]) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)in[i] << 8 * i;
    return value;
}

// ---- Reading ----

static bool read_metadata(struct Safetensors *s, json_t *object) {
    if (!json_is_object(object))
        return fail("%s: __metadata__ must be an object of strings", s->file.name);
    s->metadata = xcalloc(json_object_size(object), 2 * sizeof *s->metadata);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (!json_is_string(value))
            return fail("%s: __metadata__: the value of \"%s\" must be a string", s->file.name, key);
        s->metadata[2 * s->n_metadata] = xstrdup(key);
        s->metadata[2 * s->n_metadata + 1] = xstrdup(json_string_value(value));
        s->n_metadata++;
    }
    return true;
}

static bool read_type(const struct Safetensors *s, struct SafetensorsEntry *e, const json_t *value, uint32_t *bytes) {
    const char *name = json_string_value(value);
    if (!name)
        return fail("%s: tensor \"%s\": dtype must be a string", s->file.name, e->name);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(TYPES[i].name, name) == 0) {
            e->type = TYPES[i].type;
            e->type_name = TYPES[i].name;
            *bytes = TYPES[i].bytes;
            return true;
        }
    }
    return fail("%s: tensor \"%s\": unknown dtype \"%s\"", s->file.name, e->name, name);
}

// An integer that is neither negative nor anything else.
static bool natural(const json_t *value, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_entry(const struct Safetensors *s, struct SafetensorsEntry *e, json_t *object, uint64_t data_start) {
    const char *file = s->file.name;
    json_t *shape = json_object_get(object, "shape"), *offsets = json_object_get(object, "data_offsets");
    if (!json_is_object(object) || json_object_size(object) != 3 || !json_is_array(shape) || !json_is_array(offsets))
        return fail("%s: tensor \"%s\": dtype, shape and data_offsets are expected and nothing else", file, e->name);
    uint32_t each = 0;
    if (!read_type(s, e, json_object_get(object, "dtype"), &each))
        return false;
    if (json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return fail("%s: tensor \"%s\" has %zu dimensions; at most %d are accepted", file, e->name,
                    json_array_size(shape), SAFETENSORS_MAX_DIMS);
    e->n_dims = (uint32_t)json_array_size(shape);
    uint64_t elements = 1, begin, end, bytes;
    for (uint32_t i = 0; i < e->n_dims; i++) {
        if (!natural(json_array_get(shape, i), &e->dim[i]))
            return fail("%s: tensor \"%s\": dimension %u is not a natural number", file, e->name, i);
        if (!ckd_mul(elements, e->dim[i], &elements))
            return fail("%s: tensor \"%s\": the number of elements does not fit in 64 bits", file, e->name);
    }
    if (!ckd_mul(elements, each, &bytes))
        return fail("%s: tensor \"%s\": the size in bytes does not fit in 64 bits", file, e->name);
    if (json_array_size(offsets) != 2 || !natural(json_array_get(offsets, 0), &begin) ||
        !natural(json_array_get(offsets, 1), &end) || begin > end)
        return fail("%s: tensor \"%s\": data_offsets must be two natural numbers in rising order", file, e->name);
    if (end > s->file.bytes - data_start)
        return fail("%s: tensor \"%s\" ends at byte %" PRIu64 " of the data, but the file holds %" PRIu64, file,
                    e->name, end, s->file.bytes - data_start);
    if (end - begin != bytes)
        return fail("%s: tensor \"%s\": data_offsets span %" PRIu64 " bytes, but shape and dtype need %" PRIu64, file,
                    e->name, end - begin, bytes);
    e->offset = data_start + begin;
    e->bytes = bytes;
    return true;
}

static int by_offset(const void *a, const void *b) {
    const struct SafetensorsEntry *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b, void *entries) {
    const struct SafetensorsEntry *e = entries;
    return strcmp(e[*(const uint32_t *)a].name, e[*(const uint32_t *)b].name);
}

// The tensors must tile the data: no hole (where something else could hide), no overlap, nothing behind the last. A tensor of
// zero bytes takes no room and may stand at any seam.
static bool check_tiling(const struct Safetensors *s, uint64_t data_start) {
    uint64_t at = data_start;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        const struct SafetensorsEntry *e = &s->entries[i];
        if (e->offset != at)
            return fail("%s: tensor \"%s\" starts at byte %" PRIu64 " of the data, but %s at byte %" PRIu64,
                        s->file.name, e->name, e->offset - data_start,
                        e->offset > at ? "the one before it ends with a hole" : "overlaps the one that ends",
                        at - data_start);
        at += e->bytes;
    }
    if (at != s->file.bytes)
        return fail("%s: the tensors end at byte %" PRIu64 ", but the file has %" PRIu64, s->file.name, at,
                    s->file.bytes);
    return true;
}

static bool read_entries(struct Safetensors *s, json_t *root, uint64_t data_start) {
    s->entries = xcalloc(json_object_size(root), sizeof *s->entries);
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") == 0) {
            if (!read_metadata(s, value))
                return false;
            continue;
        }
        struct SafetensorsEntry *e = &s->entries[s->n_entries++];
        e->name = xstrdup(key);
        if (!read_entry(s, e, value, data_start))
            return false;
    }
    if (s->n_entries > 0)
        qsort(s->entries, s->n_entries, sizeof *s->entries, by_offset);
    if (!check_tiling(s, data_start))
        return false;
    s->by_name = xcalloc(s->n_entries, sizeof *s->by_name);
    for (uint32_t i = 0; i < s->n_entries; i++)
        s->by_name[i] = i;
    if (s->n_entries > 0)
        qsort_r(s->by_name, s->n_entries, sizeof *s->by_name, by_name, s->entries);
    return true;
}

static bool read_header(struct Safetensors *s) {
    const char *file = s->file.name;
    uint8_t length[8];
    if (s->file.bytes < 8)
        return fail("%s: is no safetensors file: it has %" PRIu64 " bytes, a header needs more", file, s->file.bytes);
    if (!filein_read(&s->file, 0, 8, length))
        return false;
    uint64_t header_bytes = get_u64(length);
    if (header_bytes > MAX_HEADER_BYTES)
        return fail("%s: is no safetensors file: byte 0: the header would have %" PRIu64 " bytes, at most %" PRIu64
                    " are accepted",
                    file, header_bytes, MAX_HEADER_BYTES);
    if (header_bytes > s->file.bytes - 8)
        return fail("%s: byte 0: the header would have %" PRIu64 " bytes, but the file ends after %" PRIu64, file,
                    header_bytes, s->file.bytes - 8);
    char *text = xmalloc(header_bytes + 1);
    json_t *root = NULL;
    if (filein_read(&s->file, 8, header_bytes, text)) {
        if (header_bytes == 0 || text[0] != '{')
            fail("%s: byte 8: the header must start with '{'", file);
        else
            root = json_parse(text, header_bytes, file);
    }
    free(text);
    if (!root)
        return false;
    bool ok = json_is_object(root) ? read_entries(s, root, 8 + header_bytes)
                                   : fail("%s: byte 8: the header must be an object", file);
    json_decref(root);
    return ok;
}

static bool finish_open(struct Safetensors *s) {
    if (read_header(s))
        return true;
    safetensors_close(s);
    return false;
}

bool safetensors_open(struct Safetensors *s, const char *path) {
    *s = (struct Safetensors){.file.fd = -1};
    return filein_open(&s->file, path) && finish_open(s);
}

bool safetensors_open_memory(struct Safetensors *s, const void *data, size_t bytes, const char *name) {
    *s = (struct Safetensors){.file.fd = -1};
    filein_open_memory(&s->file, data, bytes, name);
    return finish_open(s);
}

void safetensors_close(struct Safetensors *s) {
    for (uint32_t i = 0; i < s->n_entries; i++)
        free(s->entries[i].name);
    for (uint32_t i = 0; i < 2 * s->n_metadata; i++)
        free(s->metadata[i]);
    free(s->entries);
    free(s->metadata);
    free(s->by_name);
    filein_close(&s->file);
    *s = (struct Safetensors){.file.fd = -1};
}

const struct SafetensorsEntry *safetensors_find(const struct Safetensors *s, const char *name) {
    uint32_t low = 0, high = s->n_entries;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct SafetensorsEntry *e = &s->entries[s->by_name[middle]];
        int order = strcmp(name, e->name);
        if (order == 0)
            return e;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *safetensors_metadata(const struct Safetensors *s, const char *key) {
    for (uint32_t i = 0; i < s->n_metadata; i++) {
        if (strcmp(s->metadata[2 * i], key) == 0)
            return s->metadata[2 * i + 1];
    }
    return NULL;
}

bool safetensors_read(const struct Safetensors *s, const struct SafetensorsEntry *e, uint64_t offset, uint64_t bytes,
                      void *out) {
    if (offset > e->bytes || bytes > e->bytes - offset)
        return fail("%s: tensor \"%s\" has %" PRIu64 " bytes; %" PRIu64 " were wanted from byte %" PRIu64, s->file.name,
                    e->name, e->bytes, bytes, offset);
    return filein_read(&s->file, e->offset + offset, bytes, out);
}

// ---- Writing ----

void safetensors_writer_init(struct SafetensorsWriter *w) { *w = (struct SafetensorsWriter){.out.fd = -1}; }

void safetensors_writer_metadata(struct SafetensorsWriter *w, const char *key, const char *value) {
    char *k = json_quote(key, strlen(key)), *v = json_quote(value, strlen(value));
    char *longer = w->metadata ? xsprintf("%s,%s:%s", w->metadata, k, v) : xsprintf("%s:%s", k, v);
    free(w->metadata);
    free(k);
    free(v);
    w->metadata = longer;
}

void safetensors_writer_add(struct SafetensorsWriter *w, const char *name, enum DType type, uint32_t n_dims,
                            const uint64_t *dim) {
    assert(n_dims <= SAFETENSORS_MAX_DIMS && !w->started);
    if (w->n_entries == w->room) {
        w->room = w->room ? 2 * w->room : 64;
        w->entries = xrealloc(w->entries, w->room * sizeof *w->entries);
    }
    struct SafetensorsEntry *e = &w->entries[w->n_entries++];
    *e = (struct SafetensorsEntry){.name = xstrdup(name), .type = type, .n_dims = n_dims, .offset = w->data_bytes};
    e->bytes = DTYPES[type].block_bytes;
    for (uint32_t i = 0; i < n_dims; i++) {
        e->dim[i] = dim[i];
        e->bytes *= dim[i];
    }
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (TYPES[i].type == type)
            e->type_name = TYPES[i].name;
    }
    assert(e->type_name); // the quantised types have no name in this format
    w->data_bytes += e->bytes;
}

static bool write_header(struct SafetensorsWriter *w) {
    char *text;
    size_t bytes;
    FILE *stream = text_begin(&text, &bytes);
    fprintf(stream, "{");
    if (w->metadata)
        fprintf(stream, "\"__metadata__\":{%s}", w->metadata);
    for (uint32_t i = 0; i < w->n_entries; i++) {
        const struct SafetensorsEntry *e = &w->entries[i];
        char *name = json_quote(e->name, strlen(e->name));
        fprintf(stream, "%s%s:{\"dtype\":\"%s\",\"shape\":[", i || w->metadata ? "," : "", name, e->type_name);
        free(name);
        for (uint32_t d = 0; d < e->n_dims; d++)
            fprintf(stream, "%s%" PRIu64, d ? "," : "", e->dim[d]);
        fprintf(stream, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", e->offset, e->offset + e->bytes);
    }
    fprintf(stream, "}");
    fflush(stream);
    // So that the data is aligned, also where a device reads it in the file's mapping.
    fprintf(stream, "%*s", (int)(align_up(8 + bytes, 64) - 8 - bytes), "");
    text_end(stream);
    bool ok = true;
    uint8_t length[8];
    put_u64(length, bytes);
    if (bytes > MAX_HEADER_BYTES)
        ok = fail("%s: the header would have %zu bytes, more than the format allows", w->out.path, bytes);
    ok = ok && fileout_write(&w->out, length, 8) && fileout_write(&w->out, text, bytes);
    free(text);
    return ok;
}

bool safetensors_writer_begin(struct SafetensorsWriter *w, const char *path) {
    w->started = true;
    if (fileout_begin(&w->out, path) && write_header(w))
        return true;
    safetensors_writer_abort(w);
    return false;
}

bool safetensors_writer_data(struct SafetensorsWriter *w, const void *data, uint64_t bytes) {
    assert(w->started && bytes <= w->data_bytes - w->data_written);
    w->data_written += bytes;
    return fileout_write(&w->out, data, bytes);
}

static void free_entries(struct SafetensorsWriter *w) {
    for (uint32_t i = 0; i < w->n_entries; i++)
        free(w->entries[i].name);
    free(w->entries);
    free(w->metadata);
    safetensors_writer_init(w);
}

bool safetensors_writer_end(struct SafetensorsWriter *w) {
    if (w->data_written != w->data_bytes) {
        fail("%s: %" PRIu64 " of %" PRIu64 " bytes were given", w->out.path, w->data_written, w->data_bytes);
        safetensors_writer_abort(w);
        return false;
    }
    bool ok = fileout_end(&w->out);
    free_entries(w);
    return ok;
}

void safetensors_writer_abort(struct SafetensorsWriter *w) {
    fileout_abort(&w->out);
    free_entries(w);
}
