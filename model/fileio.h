// Large files, read in pieces and written whole or not at all. Reading is by pread against the size seen at opening, so that
// a file that shrinks meanwhile gives an error and not a signal; writing goes to a temporary name that is renamed at the end.
#pragma once
#include "runtime/temporary.h"

struct FileIn {
    int fd;                // -1: the bytes are in memory
    const uint8_t *memory; // not owned
    uint64_t bytes;
    char *name; // for messages
};
bool filein_open(struct FileIn *f, const char *path);
void filein_open_memory(struct FileIn *f, const void *data, size_t bytes, const char *name);
// Exactly `bytes` bytes from `offset`; false after a message that names file and offset.
bool filein_read(const struct FileIn *f, uint64_t offset, uint64_t bytes, void *out);
void filein_close(struct FileIn *f);

struct FileOut {
    int fd;
    char *path;
    struct Temporary temporary;
    uint8_t *buffer;
    uint64_t buffered;
    uint64_t bytes; // written so far
    bool bad;       // a write failed; told already
};
bool fileout_begin(struct FileOut *f, const char *path); // through links, which stay
bool fileout_write(struct FileOut *f, const void *data, uint64_t bytes);
bool fileout_pad(struct FileOut *f, uint64_t alignment); // zeros up to a multiple
// Flushes, fsyncs and renames; removes the temporary file when anything failed.
bool fileout_end(struct FileOut *f);
void fileout_abort(struct FileOut *f);
