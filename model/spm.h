// SentencePiece's kind of BPE: the pieces are made of characters, a blank is written U+2581, and a text is not cut into words
// before pairs merge. What no piece holds is spelt in bytes.
//
// No merge can reach across two characters that stand side by side in no piece: there a text is cut without changing an id, so
// that the words of a long text come from bpe.h's cache.
#pragma once
#include "model/bpe.h"

#define SPM_BLANK "\xe2\x96\x81" // U+2581

struct Joins {
    uint64_t *slots; // hash table of pairs of code points, 0: empty
    size_t n, mask;
    uint8_t ascii[128 * 128 / 8]; // the pairs of ASCII characters, in bits
};
void joins_add(struct Joins *j, const char *piece, size_t bytes); // all pairs of neighbours of a piece (valid UTF-8)
void joins_free(struct Joins *j);

// Appends the ids of a text (valid UTF-8, blanks already written U+2581).
bool spm_encode(const struct Joins *j, const struct Bpe *b, const char *text, size_t bytes, struct IdList *out);
