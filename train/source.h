// The records of a data file, one at a time: lines of JSON, the objects of one JSON array, the rows of a CSV (RFC 4180, a header line,
// quoted line feeds), or the documents of a plain text. Told apart by the name's end for CSV (.csv, .csv.gz) and text (.txt, .txt.gz), else by
// the first byte; gzip by its magic number. Nothing but the record in hand is kept, so that a file may be larger than memory.
#pragma once
#include "runtime/base.h"

#include <jansson.h>

enum SourceKind { SOURCE_LINES, SOURCE_ARRAY, SOURCE_CSV, SOURCE_TEXT };
// What stands between the documents of a text. A file whose first MiB has none is cut at blank lines instead.
#define SOURCE_TEXT_MARK "<|endoftext|>"

struct Source {
    FILE *file; // NULL: memory
    const char *memory;
    size_t memory_left;
    struct Gzip *gzip; // NULL: the bytes are as they are
    char *buffer;      // (capacity) what is read: [begin, end) is not yet given out
    size_t begin, end, capacity;
    bool ended;           // nothing is left to read
    bool failed;          // it was told; nothing more will come
    uint64_t bytes_read;  // of the file, before unpacking
    struct Sha256 sha256; // of these
    uint32_t line;        // on which `begin` stands, from 1
    enum SourceKind kind;
    uint32_t records; // of the array: objects that were given out
    bool marked;      // of a text: its documents end at SOURCE_TEXT_MARK
    json_t *columns;  // of a CSV: the names in its header
    const char *path;
};

struct SourceRecord {
    const char *text; // (bytes) lives until the next call; NULL: there is none left
    size_t bytes;
    uint32_t line;   // it begins there
    uint32_t number; // of an object of an array, from 1: all of them may stand on one line; else 0
};

// False after a message: the file cannot be opened, read or unpacked, or a CSV has no sound header.
bool source_open(struct Source *s, const char *path);
// The same from memory (tests, fuzzing); `path` is what messages name.
bool source_open_memory(struct Source *s, const char *text, size_t bytes, const char *path);
// False after a message where nothing can be read behind a fault.
bool source_next(struct Source *s, struct SourceRecord *r);
// The record as a JSON value: of a row of CSV an object of texts, of a document {"text": ...}. NULL after a message that begins with `where`; source_next can go on.
json_t *source_value(const struct Source *s, const struct SourceRecord *r, const char *where);
void source_close(struct Source *s);
