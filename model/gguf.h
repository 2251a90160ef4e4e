// GGUF files, versions 2 and 3, little-endian: metadata (typed keys and values), tensor descriptions, aligned data. Every count
// is bounded by the bytes that are left before anything is allocated; values are reached through typed accessors only.
#pragma once
#include "model/fileio.h"
#include "runtime/tensor.h"

enum GgufType {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct GgufString {
    const char *text; // not ended by a 0 byte
    size_t bytes;
};

struct GgufValue {
    char *key;
    enum GgufType type;    // GGUF_ARRAY: `element` is the type of the elements
    enum GgufType element; // equal to type for a scalar
    uint64_t count;        // 1 for a scalar
    const uint8_t *data;   // scalars and plain arrays, unaligned, as in the file
    struct GgufString *strings;
    const uint8_t *raw; // the whole value in the file: type, then content
    uint64_t raw_bytes;
};

struct GgufTensor {
    char *name;
    uint32_t ggml_type;    // as the file states it
    enum DType type;       // DT_COUNT: known to ggml, not to us
    const char *type_name; // "Q6_K"
    uint32_t n_dims;
    uint64_t dim[4]; // outermost first: the reverse of the file's order; unused are 1
    uint64_t offset; // from the start of the file
    uint64_t bytes;
};

struct Gguf {
    struct FileIn file;
    uint32_t version, alignment;
    uint8_t *header; // all that stands before the tensors' data
    uint64_t header_bytes;
    struct GgufValue *values;
    uint64_t n_values;
    uint32_t *value_by_key; // sorted
    struct GgufTensor *tensors;
    uint64_t n_tensors;
    uint32_t *tensor_by_name; // sorted
};
bool gguf_open(struct Gguf *g, const char *path);
bool gguf_open_memory(struct Gguf *g, const void *data, size_t bytes, const char *name);
void gguf_close(struct Gguf *g);

const struct GgufValue *gguf_find(const struct Gguf *g, const char *key); // NULL: absent
const struct GgufTensor *gguf_find_tensor(const struct Gguf *g, const char *name);
bool gguf_read(const struct Gguf *g, const struct GgufTensor *t, uint64_t offset, uint64_t bytes, void *out);
// Typed accessors. Absent: *out keeps its value and the answer is !required; another type, or a number that does not fit:
// false after a message that names file and key. Integers of any width are taken where they fit.
bool gguf_get_u32(const struct Gguf *g, const char *key, bool required, uint32_t *out);
bool gguf_get_f32(const struct Gguf *g, const char *key, bool required, float *out);
bool gguf_get_bool(const struct Gguf *g, const char *key, bool required, bool *out);
bool gguf_get_string(const struct Gguf *g, const char *key, bool required, char **out); // malloc'ed, 0-ended
bool gguf_get_strings(const struct Gguf *g, const char *key, bool required, const struct GgufString **out,
                      uint64_t *count);                                                                   // not owned
bool gguf_get_i32s(const struct Gguf *g, const char *key, bool required, int32_t **out, uint64_t *count); // malloc'ed
bool gguf_get_f32s(const struct Gguf *g, const char *key, bool required, float **out, uint64_t *count);   // malloc'ed

// Writing: keys, then names of tensors, then their bytes in that order. Atomic like the safetensors writer.
struct GgufWriter {
    struct FileOut out;
    uint8_t *keys, *infos;
    uint64_t keys_bytes, keys_room, infos_bytes, infos_room;
    uint64_t n_keys, n_tensors, data_bytes;
    uint64_t *tensor_bytes;
    uint64_t current, current_bytes; // tensor being written and how much of it is there
};
void gguf_writer_init(struct GgufWriter *w);
void gguf_writer_u32(struct GgufWriter *w, const char *key, uint32_t value);
void gguf_writer_f32(struct GgufWriter *w, const char *key, float value);
void gguf_writer_bool(struct GgufWriter *w, const char *key, bool value);
void gguf_writer_string(struct GgufWriter *w, const char *key, const char *value);
void gguf_writer_strings(struct GgufWriter *w, const char *key, const struct GgufString *values, uint64_t count);
void gguf_writer_i32s(struct GgufWriter *w, const char *key, const int32_t *values, uint64_t count);
void gguf_writer_f32s(struct GgufWriter *w, const char *key, const float *values, uint64_t count);
void gguf_writer_copy(struct GgufWriter *w, const struct GgufValue *value); // key and value of another file
void gguf_writer_tensor(struct GgufWriter *w, const char *name, enum DType type, uint32_t n_dims, const uint64_t *dim);
bool gguf_writer_begin(struct GgufWriter *w, const char *path);
bool gguf_writer_data(struct GgufWriter *w, const void *data, uint64_t bytes);
bool gguf_writer_end(struct GgufWriter *w); // frees everything
void gguf_writer_abort(struct GgufWriter *w);
