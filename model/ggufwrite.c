// The writing half of gguf.h: keys and descriptions gather in memory, then the data of the tensors stream to the file.
#include "model/gguf.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };

static void append(uint8_t **buffer, uint64_t *used, uint64_t *room, const void *data, uint64_t bytes) {
    if (*used + bytes > *room) {
        *room = 2 * (*used + bytes) + 256;
        *buffer = xrealloc(*buffer, *room);
    }
    if (bytes)
        memcpy(*buffer + *used, data, bytes);
    *used += bytes;
}

static void add(struct GgufWriter *w, const void *data, uint64_t bytes) {
    append(&w->keys, &w->keys_bytes, &w->keys_room, data, bytes);
}

static void add_u32(struct GgufWriter *w, uint32_t value) { add(w, &value, 4); }
static void add_u64(struct GgufWriter *w, uint64_t value) { add(w, &value, 8); }

static void add_string(struct GgufWriter *w, const char *text, uint64_t bytes) {
    add_u64(w, bytes);
    add(w, text, bytes);
}

static void add_key(struct GgufWriter *w, const char *key, uint32_t type) {
    add_string(w, key, strlen(key));
    add_u32(w, type);
    w->n_keys++;
}

void gguf_writer_init(struct GgufWriter *w) { *w = (struct GgufWriter){.out.fd = -1}; }

void gguf_writer_u32(struct GgufWriter *w, const char *key, uint32_t value) {
    add_key(w, key, GGUF_U32);
    add_u32(w, value);
}

void gguf_writer_f32(struct GgufWriter *w, const char *key, float value) {
    add_key(w, key, GGUF_F32);
    add(w, &value, 4);
}

void gguf_writer_bool(struct GgufWriter *w, const char *key, bool value) {
    add_key(w, key, GGUF_BOOL);
    add(w, &(uint8_t){value}, 1);
}

void gguf_writer_string(struct GgufWriter *w, const char *key, const char *value) {
    add_key(w, key, GGUF_STRING);
    add_string(w, value, strlen(value));
}

void gguf_writer_strings(struct GgufWriter *w, const char *key, const struct GgufString *values, uint64_t count) {
    add_key(w, key, GGUF_ARRAY);
    add_u32(w, GGUF_STRING);
    add_u64(w, count);
    for (uint64_t i = 0; i < count; i++)
        add_string(w, values[i].text, values[i].bytes);
}

void gguf_writer_i32s(struct GgufWriter *w, const char *key, const int32_t *values, uint64_t count) {
    add_key(w, key, GGUF_ARRAY);
    add_u32(w, GGUF_I32);
    add_u64(w, count);
    add(w, values, count * sizeof *values);
}

void gguf_writer_f32s(struct GgufWriter *w, const char *key, const float *values, uint64_t count) {
    add_key(w, key, GGUF_ARRAY);
    add_u32(w, GGUF_F32);
    add_u64(w, count);
    add(w, values, count * sizeof *values);
}

void gguf_writer_copy(struct GgufWriter *w, const struct GgufValue *value) {
    add_string(w, value->key, strlen(value->key));
    add(w, value->raw, value->raw_bytes);
    w->n_keys++;
}

void gguf_writer_tensor(struct GgufWriter *w, const char *name, enum DType type, uint32_t n_dims, const uint64_t *dim) {
    uint32_t number = DTYPES[type].ggml;
    assert(n_dims >= 1 && n_dims <= 4 && number != UINT32_MAX);
    uint64_t name_bytes = strlen(name), bytes = dtype_file_row_bytes(type, dim[n_dims - 1]);
    append(&w->infos, &w->infos_bytes, &w->infos_room, &name_bytes, 8);
    append(&w->infos, &w->infos_bytes, &w->infos_room, name, name_bytes);
    append(&w->infos, &w->infos_bytes, &w->infos_room, &n_dims, 4);
    for (uint32_t i = n_dims; i-- > 0;)
        append(&w->infos, &w->infos_bytes, &w->infos_room, &dim[i], 8);
    for (uint32_t i = 0; i + 1 < n_dims; i++)
        bytes *= dim[i];
    append(&w->infos, &w->infos_bytes, &w->infos_room, &number, 4);
    append(&w->infos, &w->infos_bytes, &w->infos_room, &w->data_bytes, 8);
    w->tensor_bytes = xrealloc(w->tensor_bytes, (w->n_tensors + 1) * sizeof *w->tensor_bytes);
    w->tensor_bytes[w->n_tensors++] = bytes;
    w->data_bytes += align_up(bytes, ALIGNMENT);
}

bool gguf_writer_begin(struct GgufWriter *w, const char *path) {
    const uint32_t version = 3;
    if (fileout_begin(&w->out, path) && fileout_write(&w->out, "GGUF", 4) && fileout_write(&w->out, &version, 4) &&
        fileout_write(&w->out, &w->n_tensors, 8) && fileout_write(&w->out, &w->n_keys, 8) &&
        fileout_write(&w->out, w->keys, w->keys_bytes) && fileout_write(&w->out, w->infos, w->infos_bytes) &&
        fileout_pad(&w->out, ALIGNMENT))
        return true;
    gguf_writer_abort(w);
    return false;
}

bool gguf_writer_data(struct GgufWriter *w, const void *data, uint64_t bytes) {
    assert(w->current < w->n_tensors && bytes <= w->tensor_bytes[w->current] - w->current_bytes);
    if (!fileout_write(&w->out, data, bytes))
        return false;
    w->current_bytes += bytes;
    if (w->current_bytes < w->tensor_bytes[w->current])
        return true;
    w->current++;
    w->current_bytes = 0;
    return fileout_pad(&w->out, ALIGNMENT);
}

bool gguf_writer_end(struct GgufWriter *w) {
    bool ok = w->current == w->n_tensors;
    if (!ok)
        fail("%s: %" PRIu64 " of %" PRIu64 " tensors were given", w->out.path, w->current, w->n_tensors);
    ok = ok && fileout_end(&w->out);
    gguf_writer_abort(w);
    return ok;
}

void gguf_writer_abort(struct GgufWriter *w) {
    fileout_abort(&w->out);
    free(w->keys);
    free(w->infos);
    free(w->tensor_bytes);
    gguf_writer_init(w);
}
