// Byte-pair encoding of one piece of text: starts from single bytes, or from characters where the vocabulary is made of them, and
// merges, again and again, the adjacent pair of lowest rank (leftmost first). A heap keeps it O(n log n) for pieces of any length; a small cache serves the usual words.
#pragma once
#include "runtime/base.h"

enum { BPE_NONE = 0xffffffff }; // no such token

struct BpeMerge {
    uint32_t left, right; // ids; left == BPE_NONE: empty slot
    uint32_t rank, merged;
};
struct BpeChar {
    uint32_t code_point, id; // id == BPE_NONE: empty slot
};
struct BpeCached {
    uint8_t bytes, n; // bytes 0: empty
    char piece[22];
    uint32_t ids[6];
};
struct Bpe {
    uint32_t byte_id[256]; // token of a single byte, or of what is unknown, or BPE_NONE
    struct BpeChar *chars; // tokens of single characters; NULL: texts are read byte by byte
    uint32_t char_mask;
    struct BpeMerge *merges;
    uint32_t n_merges, merge_mask; // mask of the open-addressing table
    struct BpeCached *cache;
};

struct IdList {
    uint32_t *ids;
    size_t n, capacity;
};
void id_list_push(struct IdList *list, uint32_t id);

void bpe_init(struct Bpe *b, uint32_t n_merges);           // no byte has a token yet
void bpe_reserve_merges(struct Bpe *b, uint32_t n_merges); // drops the merges there are
void bpe_add_merge(struct Bpe *b, uint32_t left, uint32_t right, uint32_t rank,
                   uint32_t merged);                                // a pair again: the later rank
void bpe_init_chars(struct Bpe *b, uint32_t n_chars);               // from here on texts are read by characters ...
void bpe_add_char(struct Bpe *b, uint32_t code_point, uint32_t id); // ... and one that is not added as its bytes
void bpe_ready(struct Bpe *b); // all merges are there: takes the memory for encoding, which a refused file never costs
void bpe_free(struct Bpe *b);
// Appends the ids of the piece. A byte without a token is left out, as the tokenizers library and llama.cpp do. Fails only on
// a piece of 4 GiB.
bool bpe_encode(const struct Bpe *b, const char *piece, size_t bytes, struct IdList *out);
