// A model in several GGUF files, as llama-gguf-split makes them: NAME-00001-of-00003.gguf and so on. The first has all keys, each says
// which part it is (split.no, from 0), of how many (split.count), and how many tensors there are in all (split.tensors.count).
#pragma once
#include "model/gguf.h"

enum { GGUF_MAX_PARTS = 1024 };

// How many parts the model has that `g`, read from `path`, is the first of (1: it is whole); false after a message when `g` is a later
// part or does not fit its name.
bool ggufsplit_count(const struct Gguf *g, const char *path, uint32_t *n_parts);
// Opens parts 1 .. n-1 beside part 0, which is open; after a failure those that were opened are closed again.
bool ggufsplit_open(struct Gguf *parts, uint32_t n, const char *path);
// The tensor of that name and the part that it is in (NULL: nobody asks); NULL: absent from all of them.
const struct GgufTensor *ggufsplit_find(const struct Gguf *parts, uint32_t n, const char *name, uint32_t *part);
