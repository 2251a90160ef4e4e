// The files of a data set as they are published: loose, compressed (gzip), or members of a tar (gzip'ed or not) or zip archive. What a file is
// is seen by its first bytes, not by its name.
#pragma once
#include "runtime/base.h"

struct DataFile {
    char *name; // for messages: "data/race/RACE.tar.gz:RACE/test/high/1.txt"
    char *star; // what the pattern's `*` stood for; "" without one
    char *data; // a 0 byte follows
    size_t bytes;
};
struct DataFiles {
    struct DataFile *list; // by name
    size_t n;
};
// `pattern` is PATH or ARCHIVE:MEMBER below `dir`; each may hold `*` in its last component, which the captured text comes from (the member's
// where there is one). Several patterns by " | ": the first that finds anything counts. False after a message, also where nothing is found;
// `where` is who asks.
bool datafiles_read(struct DataFiles *files, const char *dir, const char *pattern, const char *where);
void datafiles_free(struct DataFiles *files);

// Takes an archive or a compressed file apart; a file that is neither is its own only member. `member`: pattern of the names wanted, or NULL.
bool container_read(struct DataFiles *files, const char *data, size_t bytes, const char *name, const char *member);
