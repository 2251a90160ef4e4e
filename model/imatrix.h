// Importance matrices of llama-imatrix: the mean square of what each column of a matrix is multiplied by. Both its formats are read: GGUF
// (general.type "imatrix"; tensors NAME.in_sum2 and NAME.counts) and the older one (a count, then name, calls and values of each).
#pragma once
#include "model/fileio.h"

struct ImatrixEntry {
    char *name;    // GGUF's name of the matrix: "blk.0.ffn_down.weight"
    float *values; // finite, 0 or more: of each column, expert after expert
    uint64_t count;
};
struct Imatrix {
    char *path, *datasets;        // datasets: what it was made from, "" where the file does not say
    uint32_t chunks;              // 0: the file does not say
    struct ImatrixEntry *entries; // sorted by name
    uint32_t n_entries;
};
bool imatrix_open(struct Imatrix *m, const char *path);
bool imatrix_open_memory(struct Imatrix *m, const void *data, size_t bytes, const char *name);
void imatrix_close(struct Imatrix *m);
const struct ImatrixEntry *imatrix_find(const struct Imatrix *m, const char *name); // NULL: absent
