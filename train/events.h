// TensorBoard's event files: scalars by step. A file is a row of records (length, its CRC, bytes, their CRC), each of which is a
// protocol buffer `Event` (tensorboard/compat/proto/event.proto); only the few fields of it that scalars need are written.
#pragma once
#include "runtime/base.h"

struct EventScalar {
    const char *tag; // "train/loss"
    double value;    // one that is not finite is left out
};

struct Events {
    FILE *file;
    char *path;
};
// A new file in the folder; what older files say of first_step and later steps no longer counts.
bool events_open(struct Events *e, const char *dir, uint64_t first_step);
// One record; it is with the system when this returns, so that TensorBoard sees it.
bool events_scalars(struct Events *e, uint64_t step, const struct EventScalar *scalars, size_t n);
void events_close(struct Events *e);
uint32_t crc32c(const void *data, size_t bytes); // Castagnoli's polynomial
