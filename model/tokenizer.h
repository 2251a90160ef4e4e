// BPE tokenizers, over bytes (GPT-2's kind) or over characters (SentencePiece's kind), read from Hugging Face's tokenizer.json, a
// SentencePiece tokenizer.model or GGUF metadata. Exact or refused: what would change an id and is not known here is told
// by name. Text that is not UTF-8 is repaired first (utf8.h).
// One thread at a time: encoding uses scratch memory behind the pointer.
#pragma once
#include "model/added.h"
#include "model/bpe.h"
#include "model/normalize.h"
#include "model/pretokenize.h"
#include "model/spm.h"
#include "runtime/base.h"

struct ModelFile;
struct Gguf;

enum { TOKEN_NONE = 0xffffffff };
enum {
    TOKENIZE_BOS = 1, // puts the beginning-of-sequence token first, where the model's own files ask for it (add_bos)
    TOKENIZE_SPECIAL = 2, // special tokens written out in the text become those tokens; else they are plain text
    // Where the text stands, for tokenizers that put a blank in front of a text: what they do depends on what is before it.
    TOKENIZE_MIDDLE = 4, // other text: no blank is put in front
    TOKENIZE_BEHIND = 8, // a token: a blank is put in front where every stretch between tokens gets one
};
enum PieceKind { PIECE_UNUSED, PIECE_NORMAL, PIECE_ADDED, PIECE_SPECIAL, PIECE_BYTE };
// Metaspace's "prepend_scheme": which stretches of text get a blank in front where they have none. (That of
// NORMALIZE_PREPEND goes in front of every stretch, whatever it begins with.)
enum PrefixScheme { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS };

struct Piece {
    uint32_t offset, bytes; // in pool
    uint8_t kind;           // enum PieceKind
    bool lstrip, rstrip;    // an added token that takes the white space before or behind it along
};

struct Tokenizer {
    uint32_t n_vocab;                // highest id + 1
    uint32_t bos_id, eos_id, pad_id; // TOKEN_NONE: none
    bool add_bos;
    uint64_t hash; // of vocabulary, merges and rules: the checkpoint contract
    // The rest is the tokenizer's own.
    uint32_t unknown_id;             // stands for a byte without a token; TOKEN_NONE: such a byte is left out
    bool spm;                        // pieces are made of characters (spm.h), else of bytes
    bool strip_blank;                // decoding a whole text drops the blank that encoding put in front
    bool metaspace, metaspace_split; // tokenizer.json's pre-tokenizer of that name; it cuts before blanks
    enum PrefixScheme prefix;        // of metaspace
    bool ignore_merges;   // a piece that is a token of the vocabulary is taken whole, whatever the merges say
    struct Piece *pieces; // (n_vocab)
    char *pool;           // all pieces' bytes, decoded
    size_t pool_bytes, pool_room;
    uint32_t *slots; // hash table from bytes to id
    uint32_t slot_mask;
    struct Bpe bpe;
    struct Joins joins; // of spm
    struct Normalizer normalizer;
    struct Pretokenizer pre;
    struct AddedTree added[2]; // added tokens: those looked for first, then those that are "normalized"
};

bool tokenizer_open(struct Tokenizer *t, const struct ModelFile *f);
// From the text of a tokenizer.json and, where there is one (else NULL), of the tokenizer_config.json beside it.
bool tokenizer_open_json(struct Tokenizer *t, const char *text, size_t bytes, const char *config, size_t config_bytes,
                         const char *where);
// From a SentencePiece tokenizer.model and, or NULL, the tokenizer_config.json beside it.
bool tokenizer_open_model(struct Tokenizer *t, const void *data, size_t bytes, const char *config, size_t config_bytes,
                          const char *where);
bool tokenizer_open_gguf(struct Tokenizer *t, const struct Gguf *g, const char *where);
void tokenizer_free(struct Tokenizer *t);

// *ids is malloc'ed (NULL when *n is 0). A byte for which the vocabulary has no token is left out, or becomes the unknown
// token where tokenizer.json names one. Fails only where a pattern of the file runs out of steps.
bool tokenizer_encode(const struct Tokenizer *t, const char *text, size_t bytes, unsigned flags, uint32_t **ids,
                      size_t *n);
// The same, appended to a list.
bool tokenizer_append(const struct Tokenizer *t, const char *text, size_t bytes, unsigned flags, struct IdList *list);

// Bytes of a token as text; a single token need not be whole UTF-8. Writes at most cap bytes, returns the token's length;
// 0 for an id that stands for nothing. (An added token is its own text.)
size_t tokenizer_piece(const struct Tokenizer *t, uint32_t id, char *out, size_t cap);
uint32_t tokenizer_find(const struct Tokenizer *t,
                        const char *text); // id of the token with just these bytes, or TOKEN_NONE
// First special token written out in a text at or behind `from`: its place, length and id; false: none.
bool tokenizer_find_special(const struct Tokenizer *t, const char *text, size_t bytes, size_t from, size_t *start,
                            size_t *length, uint32_t *id);
bool tokenizer_is_special(const struct Tokenizer *t, uint32_t id);
// malloc'ed text of ids, a 0 byte follows; bytes may be NULL. Special tokens are left out unless asked for. Not repaired. The ids are
// taken for a whole text: the blank that some tokenizers put in front is dropped.
char *tokenizer_decode(const struct Tokenizer *t, const uint32_t *ids, size_t n, bool special, size_t *bytes);

// Streaming decoder: lets out whole UTF-8 characters only; what can no longer become one comes out as U+FFFD.
struct Detokenizer {
    char *text;
    size_t capacity;
    char pending[4];
    unsigned n_pending;
};
// Text that is now certain (0-terminated, valid until the next call); *bytes may be NULL. Special tokens give "".
const char *detokenizer_push(struct Detokenizer *d, const struct Tokenizer *t, uint32_t id, size_t *bytes);
const char *detokenizer_flush(struct Detokenizer *d, size_t *bytes); // U+FFFD for a half character; starts anew
void detokenizer_free(struct Detokenizer *d);
