// What the readers of tokenizer.json (tokenizer_json.c), tokenizer.model and GGUF (tokenizer_load.c) use to put a tokenizer
// together: pieces first, then merges or scores, then added tokens, then the end.
#pragma once
#include "model/json.h"
#include "model/tokenizer.h"

void build_open(struct Tokenizer *t); // an empty tokenizer, to be filled
void build_begin(struct Tokenizer *t, uint32_t n_vocab, uint32_t n_merges);
// A token as a vocabulary file writes it, in the alphabet where each byte is a visible character. A text with other characters
// is kept as it is: no bytes lead to it.
void build_vocab(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes);
// A piece of characters, U+2581 for a blank (t->spm); false after a message where another piece has the same text.
bool build_text(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, const char *where);
// The byte that "<0x41>" stands for, or -1 for another text.
int build_parse_byte(const char *text, size_t bytes);
void build_byte(struct Tokenizer *t, uint32_t id,
                uint8_t byte);                            // a token of one byte, for what no piece holds (t->spm)
bool build_chars(struct Tokenizer *t, const char *where); // after the last build_text and build_byte
// Merges by scores (n_vocab), as SentencePiece does: of all pairs that make a piece, the one of the highest score first.
bool build_scores(struct Tokenizer *t, const float *scores, const char *where);
void build_bytes(struct Tokenizer *t); // after the last build_vocab, unknown_id being set: which token each byte is
// A merge of two tokens of the vocabulary, written as they are there; `where` and `rank` name it in messages.
bool build_merge(struct Tokenizer *t, const char *left, size_t left_bytes, const char *right, size_t right_bytes,
                 uint32_t rank, const char *where);
enum AddedWhen {
    ADDED_BEFORE,  // looked for in the text as it comes
    ADDED_BEHIND,  // in the normalized text, as what the normalizer makes of the token
    ADDED_WRITTEN, // in the normalized text, as it is written (U+2581 for a blank)
};
bool build_added(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, enum PieceKind kind,
                 enum AddedWhen when, const char *where);
bool build_end(struct Tokenizer *t, const char *where);
// Special ids, add_bos_token and the like of a tokenizer_config.json (NULL: none). `template_bos` is the token that a post processor
// puts in front, or NULL.
bool build_config(struct Tokenizer *t, const json_t *config, const char *template_bos, const char *where);
// Converters fill a GGUF's vocabulary up to the embedding's rows with such names; no text means them.
bool build_is_filler(const char *text, size_t bytes, uint64_t id);
// Token of the vocabulary with these decoded bytes, or TOKEN_NONE.
uint32_t build_find(const struct Tokenizer *t, const char *text, size_t bytes);
