// See imatrix.h. Every count is bounded by the bytes that are left before anything is allocated.
#include "model/imatrix.h"
#include "model/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IMATRIX_BYTES = 1 << 30, MAX_ENTRIES = 1 << 16, MAX_NAME_BYTES = 1024, MAX_TEXT_BYTES = 65536 };

static struct ImatrixEntry *entry_add(struct Imatrix *m, const char *name, uint64_t name_bytes, uint64_t count) {
    if ((m->n_entries & (m->n_entries - 1)) == 0) // full at each power of two
        m->entries = xrealloc(m->entries, (m->n_entries ? 2 * m->n_entries : 1) * sizeof *m->entries);
    struct ImatrixEntry *e = &m->entries[m->n_entries++];
    *e = (struct ImatrixEntry){xsprintf("%.*s", (int)name_bytes, name), xcalloc(count, sizeof(float)), count};
    return e;
}

// Sums over `calls` to means; without a call all columns count the same.
static bool entry_finish(const struct Imatrix *m, struct ImatrixEntry *e, uint64_t first, uint64_t count, float calls) {
    if (!(calls >= 0) || isinf(calls))
        return fail("%s: %s: the number of calls is %g", m->path, e->name, (double)calls);
    for (uint64_t i = first; i < first + count; i++) {
        e->values[i] = calls > 0 ? e->values[i] / calls : 1;
        if (!(e->values[i] >= 0) || isinf(e->values[i]))
            return fail("%s: %s: value %" PRIu64 " is %g; a finite one of 0 or more is expected", m->path, e->name, i,
                        (double)e->values[i]);
    }
    return true;
}

// ---- The older format ----

struct Reader {
    const char *file;
    const uint8_t *data;
    uint64_t at, bytes;
};

static bool take(struct Reader *r, void *out, uint64_t bytes, const char *what) {
    if (bytes > r->bytes - r->at)
        return fail("%s: byte %" PRIu64 ": the file ends within %s", r->file, r->at, what);
    if (bytes)
        memcpy(out, r->data + r->at, bytes);
    r->at += bytes;
    return true;
}

static bool take_count(struct Reader *r, int32_t *out, int32_t low, int32_t high, const char *what) {
    uint64_t start = r->at;
    if (!take(r, out, 4, what))
        return false;
    return (*out >= low && *out <= high) ||
           fail("%s: byte %" PRIu64 ": %s is %d; %d to %d are expected", r->file, start, what, *out, low, high);
}

static bool read_old_entry(struct Imatrix *m, struct Reader *r) {
    int32_t name_bytes, calls, count;
    char name[MAX_NAME_BYTES];
    if (!take_count(r, &name_bytes, 1, MAX_NAME_BYTES, "the length of a name") ||
        !take(r, name, (uint64_t)name_bytes, "a name") || !take_count(r, &calls, 0, INT32_MAX, "the number of calls") ||
        !take_count(r, &count, 1, INT32_MAX, "the number of values"))
        return false;
    if (memchr(name, 0, (size_t)name_bytes))
        return fail("%s: byte %" PRIu64 ": a name holds a 0 byte", r->file, r->at);
    if ((uint64_t)count > (r->bytes - r->at) / 4)
        return fail("%s: byte %" PRIu64 ": %d values are said to follow, but %" PRIu64 " bytes are left in the file",
                    r->file, r->at, count, r->bytes - r->at);
    struct ImatrixEntry *e = entry_add(m, name, (uint64_t)name_bytes, (uint64_t)count);
    return take(r, e->values, 4 * (uint64_t)count, "the values") &&
           entry_finish(m, e, 0, (uint64_t)count, (float)calls);
}

static bool read_old(struct Imatrix *m, const uint8_t *data, uint64_t bytes) {
    struct Reader r = {m->path, data, 0, bytes};
    int32_t n, chunks = 0, text = 0;
    if (!take_count(&r, &n, 1, MAX_ENTRIES, "the number of entries"))
        return false;
    for (int32_t i = 0; i < n; i++)
        if (!read_old_entry(m, &r))
            return false;
    if (r.at == bytes) // the first versions ended here
        return true;
    if (!take_count(&r, &chunks, 0, INT32_MAX, "the number of chunks") ||
        !take_count(&r, &text, 0, MAX_TEXT_BYTES, "the length of the data set's name"))
        return false;
    if ((uint64_t)text != bytes - r.at)
        return fail("%s: byte %" PRIu64 ": %d bytes of text are said to follow, but there are %" PRIu64, m->path, r.at,
                    text, bytes - r.at);
    m->chunks = (uint32_t)chunks;
    free(m->datasets);
    m->datasets = xsprintf("%.*s", text, (const char *)data + r.at);
    return true;
}

// ---- GGUF ----

static bool read_gguf_entry(struct Imatrix *m, const struct Gguf *g, const struct GgufTensor *sums, size_t name_bytes) {
    char *name = xsprintf("%.*s.counts", (int)name_bytes, sums->name);
    const struct GgufTensor *calls = gguf_find_tensor(g, name);
    bool ok = calls || fail("%s: tensor %s is missing", m->path, name);
    free(name);
    if (!ok)
        return false;
    uint64_t cols = sums->dim[sums->n_dims - 1], rows = sums->bytes / 4 / cols;
    if (sums->type != DT_F32 || calls->type != DT_F32 || calls->bytes / 4 != rows)
        return fail("%s: %s and its counts do not fit: %" PRIu64 " rows of %s, %" PRIu64 " of %s", m->path, sums->name,
                    rows, sums->type_name, calls->bytes / 4, calls->type_name);
    struct ImatrixEntry *e = entry_add(m, sums->name, name_bytes, rows * cols);
    float *counts = xcalloc(rows, sizeof *counts);
    ok = gguf_read(g, sums, 0, sums->bytes, e->values) && gguf_read(g, calls, 0, calls->bytes, counts);
    for (uint64_t i = 0; ok && i < rows; i++)
        ok = entry_finish(m, e, i * cols, cols, counts[i]);
    free(counts);
    return ok;
}

static bool read_gguf(struct Imatrix *m, const struct Gguf *g) {
    char *type = NULL;
    const struct GgufString *datasets = NULL;
    uint64_t n = 0;
    bool ok = gguf_get_string(g, "general.type", true, &type) &&
              (strcmp(type, "imatrix") == 0 || fail("%s: is a GGUF of type \"%s\", not \"imatrix\"", m->path, type)) &&
              gguf_get_u32(g, "imatrix.chunk_count", false, &m->chunks) &&
              gguf_get_strings(g, "imatrix.datasets", false, &datasets, &n);
    free(type);
    if (ok && n > 0) {
        free(m->datasets);
        m->datasets = xsprintf("%.*s", (int)min_u64(datasets[0].bytes, MAX_TEXT_BYTES), datasets[0].text);
    }
    for (uint64_t i = 0; ok && i < g->n_tensors; i++) {
        const char *name = g->tensors[i].name, *end = strstr(name, ".in_sum2");
        if (end && end > name && end[strlen(".in_sum2")] == 0)
            ok = read_gguf_entry(m, g, &g->tensors[i], (size_t)(end - name));
    }
    return ok;
}

// ---- Opening ----

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct ImatrixEntry *)a)->name, ((const struct ImatrixEntry *)b)->name);
}

static bool finish(struct Imatrix *m, bool ok) {
    if (ok && m->n_entries == 0)
        ok = fail("%s: holds no entry of an importance matrix", m->path);
    if (ok)
        qsort(m->entries, m->n_entries, sizeof *m->entries, by_name);
    for (uint32_t i = 1; ok && i < m->n_entries; i++)
        if (strcmp(m->entries[i - 1].name, m->entries[i].name) == 0)
            ok = fail("%s: the entry %s stands twice", m->path, m->entries[i].name);
    if (!ok)
        imatrix_close(m);
    return ok;
}

static bool is_gguf(const uint8_t *data, uint64_t bytes) { return bytes >= 4 && memcmp(data, "GGUF", 4) == 0; }

bool imatrix_open_memory(struct Imatrix *m, const void *data, size_t bytes, const char *name) {
    *m = (struct Imatrix){.path = xstrdup(name), .datasets = xstrdup("")};
    if (!is_gguf(data, bytes))
        return finish(m, read_old(m, data, bytes));
    struct Gguf g;
    if (!gguf_open_memory(&g, data, bytes, name))
        return finish(m, false);
    bool ok = read_gguf(m, &g);
    gguf_close(&g);
    return finish(m, ok);
}

bool imatrix_open(struct Imatrix *m, const char *path) {
    uint8_t *data = NULL;
    uint64_t bytes;
    *m = (struct Imatrix){0};
    bool ok = file_read(path, MAX_IMATRIX_BYTES, &data, &bytes) && imatrix_open_memory(m, data, bytes, path);
    free(data);
    return ok;
}

void imatrix_close(struct Imatrix *m) {
    for (uint32_t i = 0; i < m->n_entries; i++) {
        free(m->entries[i].name);
        free(m->entries[i].values);
    }
    free(m->entries);
    free(m->datasets);
    free(m->path);
    *m = (struct Imatrix){0};
}

const struct ImatrixEntry *imatrix_find(const struct Imatrix *m, const char *name) {
    struct ImatrixEntry key = {.name = (char *)(uintptr_t)name};
    return m->n_entries ? bsearch(&key, m->entries, m->n_entries, sizeof key, by_name) : NULL;
}
