// What the readers of tokenizer.json and GGUF (tokenizer_load.c) use to put a tokenizer together: pieces first, then
// merges, then added tokens, then the end.
#pragma once
#include "model/tokenizer.h"

void build_begin(struct Tokenizer *t, uint32_t n_vocab, uint32_t n_merges);
// A token as a vocabulary file writes it, in the alphabet where each byte is a visible character. A text with other characters
// is kept as it is: no bytes lead to it.
void build_vocab(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes);
void build_bytes(struct Tokenizer *t); // after the last build_vocab, unknown_id being set: which token each byte is
// A merge of two tokens of the vocabulary, written in the same alphabet; `where` and `rank` name it in messages.
bool build_merge(struct Tokenizer *t, const char *left, size_t left_bytes, const char *right, size_t right_bytes,
                 uint32_t rank, const char *where);
bool build_added(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, enum PieceKind kind, bool normalized,
                 const char *where);
bool build_end(struct Tokenizer *t, const char *where);
// Token of the vocabulary with these decoded bytes, or TOKEN_NONE.
uint32_t build_find(const struct Tokenizer *t, const char *text, size_t bytes);
