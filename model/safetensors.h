// Safetensors files: 8 bytes of header length, a JSON header, then the tensors without holes. Reading keeps the published
// rules to the letter (header at most 100 MB and starting with '{', no key twice, offsets that tile the rest exactly).
#pragma once
#include "model/fileio.h"
#include "runtime/tensor.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

struct SafetensorsEntry {
    char *name;
    enum DType type;       // DT_COUNT: a known type that has no counterpart here (F64, I64, BOOL ...)
    const char *type_name; // as the file states it
    uint32_t n_dims;
    uint64_t dim[SAFETENSORS_MAX_DIMS]; // outermost first
    uint64_t offset;                    // from the start of the file
    uint64_t bytes;
};

struct Safetensors {
    struct FileIn file;
    struct SafetensorsEntry *entries; // in the order of their data
    uint32_t n_entries;
    uint32_t *by_name; // entries sorted by name
    char **metadata;   // key, value, key, value ... of __metadata__
    uint32_t n_metadata;
};
bool safetensors_open(struct Safetensors *s, const char *path);
bool safetensors_open_memory(struct Safetensors *s, const void *data, size_t bytes, const char *name);
void safetensors_close(struct Safetensors *s);
const struct SafetensorsEntry *safetensors_find(const struct Safetensors *s, const char *name);
const char *safetensors_metadata(const struct Safetensors *s, const char *key); // for tests; NULL: absent
// Bytes offset .. offset+bytes of the entry's data.
bool safetensors_read(const struct Safetensors *s, const struct SafetensorsEntry *e, uint64_t offset, uint64_t bytes,
                      void *out);

// Writing: name all tensors, then give their bytes in that order, then end. Nothing appears under `path` before
// the end has succeeded.
struct SafetensorsWriter {
    struct FileOut out;
    struct SafetensorsEntry *entries;
    uint32_t n_entries, room;
    char *metadata; // JSON text of the members
    uint64_t data_bytes, data_written;
    bool started;
};
void safetensors_writer_init(struct SafetensorsWriter *w);
void safetensors_writer_metadata(struct SafetensorsWriter *w, const char *key, const char *value);
// Type F32, F16, BF16 or U32.
void safetensors_writer_add(struct SafetensorsWriter *w, const char *name, enum DType type, uint32_t n_dims,
                            const uint64_t *dim);
bool safetensors_writer_begin(struct SafetensorsWriter *w, const char *path);
bool safetensors_writer_data(struct SafetensorsWriter *w, const void *data, uint64_t bytes);
bool safetensors_writer_end(struct SafetensorsWriter *w); // false also when bytes are missing; frees everything
void safetensors_writer_abort(struct SafetensorsWriter *w);
