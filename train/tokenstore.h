// A long row of 32-bit words that is written once and then read anywhere: the ids and labels of a dataset. It lies in memory up to a limit and beyond that
// in a file without a name (in the cache folder), which is mapped: the kernel keeps what is in use and drops the rest.
#pragma once
#include "runtime/base.h"

struct TokenStore {
    uint32_t *words; // (n - written) not in the file yet; all of them once mapped
    size_t n, room, limit;
    size_t written; // words in the file
    int fd;         // -1: there is no file
    bool mapped;
};
void tokenstore_init(struct TokenStore *s, uint64_t limit_bytes);
// False after a message: the disk is full.
bool tokenstore_add(struct TokenStore *s, const void *words, size_t n);
// Ends the writing: `words` then holds all n words, to be read only.
bool tokenstore_seal(struct TokenStore *s);
void tokenstore_free(struct TokenStore *s);
