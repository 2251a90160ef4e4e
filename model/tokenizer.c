// Encoding cuts the text at added tokens, then into pieces, then merges bytes inside each piece. Decoding is a table.
#include "model/tokenizer.h"
#include "model/tokenizer_build.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

// ---- The table of pieces ----

static const char *piece_text(const struct Tokenizer *t, uint32_t id) { return t->pool + t->pieces[id].offset; }

static void set_piece(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, enum PieceKind kind) {
    if (t->pool_bytes + bytes > t->pool_room) {
        t->pool_room = (t->pool_bytes + bytes) * 2;
        t->pool = xrealloc(t->pool, t->pool_room);
    }
    memcpy(t->pool + t->pool_bytes, text, bytes);
    t->pieces[id] = (struct Piece){.offset = (uint32_t)t->pool_bytes, .bytes = (uint32_t)bytes, .kind = (uint8_t)kind};
    t->pool_bytes += bytes;
    uint32_t slot = (uint32_t)hash_bytes(text, bytes, 0) & t->slot_mask;
    while (t->slots[slot] != TOKEN_NONE)
        slot = (slot + 1) & t->slot_mask;
    t->slots[slot] = id;
}

// A piece that was set twice leaves its first slot behind; its bytes no longer match, or match and are right.
static uint32_t find_piece(const struct Tokenizer *t, const char *text, size_t bytes, bool added) {
    uint32_t slot = (uint32_t)hash_bytes(text, bytes, 0) & t->slot_mask;
    for (; t->slots[slot] != TOKEN_NONE; slot = (slot + 1) & t->slot_mask) {
        uint32_t id = t->slots[slot];
        const struct Piece *p = &t->pieces[id];
        bool kind = added ? p->kind == PIECE_ADDED || p->kind == PIECE_SPECIAL : p->kind == PIECE_NORMAL;
        if (kind && p->bytes == bytes && memcmp(piece_text(t, id), text, bytes) == 0)
            return id;
    }
    return TOKEN_NONE;
}

uint32_t build_find(const struct Tokenizer *t, const char *text, size_t bytes) {
    return find_piece(t, text, bytes, false);
}

uint32_t tokenizer_find(const struct Tokenizer *t, const char *text) {
    uint32_t id = find_piece(t, text, strlen(text), true);
    return id != TOKEN_NONE ? id : find_piece(t, text, strlen(text), false);
}

bool tokenizer_is_special(const struct Tokenizer *t, uint32_t id) {
    return id < t->n_vocab && t->pieces[id].kind == PIECE_SPECIAL;
}

// ---- Building ----

// The alphabet of byte-level BPE (GPT-2's): visible Latin-1 characters stand for themselves, the other bytes, in order, for
// the characters from U+0100 on.
static bool byte_is_itself(unsigned byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

enum { ALPHABET_END = 0x100 + 68 };

static void alphabet_bytes(uint16_t byte_of[ALPHABET_END]) {
    unsigned next = 0x100;
    memset(byte_of, 0xff, ALPHABET_END * sizeof *byte_of);
    for (unsigned byte = 0; byte < 256; byte++)
        byte_of[byte_is_itself(byte) ? byte : next++] = (uint16_t)byte;
}

// Decodes a word of the alphabet into out (at most `bytes` long); false: another character is in it.
static bool from_alphabet(const char *text, size_t bytes, char *out, size_t *n) {
    static uint16_t byte_of[ALPHABET_END];
    static bool made;
    if (!made)
        alphabet_bytes(byte_of);
    made = true;
    *n = 0;
    for (size_t i = 0; i < bytes;) {
        uint32_t c = 0;
        unsigned length = utf8_char(text + i, bytes - i, &c);
        if (!length || c >= ALPHABET_END || byte_of[c] == 0xffff)
            return false;
        out[(*n)++] = (char)byte_of[c];
        i += length;
    }
    return true;
}

void build_begin(struct Tokenizer *t, uint32_t n_vocab, uint32_t n_merges) {
    t->n_vocab = n_vocab;
    t->unknown_id = TOKEN_NONE;
    t->pieces = xcalloc(n_vocab, sizeof *t->pieces);
    uint32_t slots = 16;
    while (slots < n_vocab * 3) // a piece may be set twice: by the vocabulary, then as an added token
        slots *= 2;
    t->slots = xmalloc((size_t)slots * sizeof *t->slots);
    memset(t->slots, 0xff, (size_t)slots * sizeof *t->slots);
    t->slot_mask = slots - 1;
    bpe_init(&t->bpe, n_merges);
}

void build_vocab(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes) {
    char *decoded = xmalloc(bytes + 1);
    size_t n;
    if (from_alphabet(text, bytes, decoded, &n) && n)
        set_piece(t, id, decoded, n, PIECE_NORMAL);
    else // no bytes lead here; it is shown as it is written
        set_piece(t, id, text, bytes, PIECE_ADDED);
    free(decoded);
}

void build_bytes(struct Tokenizer *t) {
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t id = build_find(t, &(char){(char)byte}, 1);
        t->bpe.byte_id[byte] = id != TOKEN_NONE ? id : t->unknown_id;
    }
}

bool build_merge(struct Tokenizer *t, const char *left, size_t left_bytes, const char *right, size_t right_bytes,
                 uint32_t rank, const char *where) {
    char *both = xmalloc(left_bytes + right_bytes + 1);
    size_t n_left, n_right;
    bool ok = from_alphabet(left, left_bytes, both, &n_left) && n_left &&
              from_alphabet(right, right_bytes, both + n_left, &n_right) && n_right;
    uint32_t left_id = TOKEN_NONE, right_id = TOKEN_NONE, merged = TOKEN_NONE;
    if (ok) {
        left_id = build_find(t, both, n_left);
        right_id = build_find(t, both + n_left, n_right);
        merged = build_find(t, both, n_left + n_right);
        ok = left_id != TOKEN_NONE && right_id != TOKEN_NONE && merged != TOKEN_NONE;
    }
    free(both);
    if (!ok)
        return fail(
            "%s: merge %u, '%.*s' and '%.*s': both and what they make must be byte-level tokens of the vocabulary",
            where, rank, (int)min_u64(left_bytes, 80), left, (int)min_u64(right_bytes, 80), right);
    bpe_add_merge(&t->bpe, left_id, right_id, rank, merged);
    uint32_t pair[2] = {left_id, right_id};
    t->hash = hash_bytes(pair, sizeof pair, t->hash);
    return true;
}

bool build_added(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, enum PieceKind kind, bool normalized,
                 const char *where) {
    if (bytes > ADDED_MAX_BYTES)
        return fail("%s: added token %u has %zu bytes, at most %d are expected", where, id, bytes, ADDED_MAX_BYTES);
    if (bytes == 0) // never found in a text
        return true;
    set_piece(t, id, text, bytes, kind);
    added_tree_add(&t->added[normalized], text, bytes, id);
    return true;
}

bool build_end(struct Tokenizer *t, const char *where) {
    // A special token that plain text could merge into would let a user's words act as control.
    for (uint32_t i = 0; i <= t->bpe.merge_mask; i++) {
        const struct BpeMerge *m = &t->bpe.merges[i];
        if (m->left != BPE_NONE && t->pieces[m->merged].kind == PIECE_SPECIAL)
            return fail("%s: a merge makes the special token '%.*s' out of plain text", where,
                        (int)t->pieces[m->merged].bytes, piece_text(t, m->merged));
    }
    for (unsigned byte = 0; byte < 256; byte++)
        if (t->bpe.byte_id[byte] != BPE_NONE && t->bpe.byte_id[byte] != t->unknown_id &&
            t->pieces[t->bpe.byte_id[byte]].kind == PIECE_SPECIAL)
            return fail("%s: the special token %u is the byte 0x%02x", where, t->bpe.byte_id[byte], byte);
    for (uint32_t id = 0; id < t->n_vocab; id++)
        if (t->pieces[id].bytes)
            t->hash = hash_bytes(piece_text(t, id), t->pieces[id].bytes, t->hash * 4 + t->pieces[id].kind);
    t->hash = pretokenizer_hash(&t->pre, t->hash * 4 + t->ignore_merges * 2 + t->add_bos);
    return true;
}

void tokenizer_free(struct Tokenizer *t) {
    free(t->pieces);
    free(t->pool);
    free(t->slots);
    bpe_free(&t->bpe);
    pretokenizer_free(&t->pre);
    added_tree_free(&t->added[0]);
    added_tree_free(&t->added[1]);
    *t = (struct Tokenizer){0};
}

// ---- Encoding ----

struct Encoding {
    const struct Tokenizer *t;
    struct IdList *out;
    unsigned flags;
};

static bool encode_piece(void *context, const char *piece, size_t bytes) {
    const struct Encoding *e = context;
    uint32_t whole = e->t->ignore_merges ? find_piece(e->t, piece, bytes, false) : TOKEN_NONE;
    if (whole != TOKEN_NONE) {
        id_list_push(e->out, whole);
        return true;
    }
    return bpe_encode(&e->t->bpe, piece, bytes, e->out);
}

static size_t white_start(const char *text, size_t end) { // where the blanks that end at `end` begin
    while (end) {
        size_t i = end - 1;
        while (i && ((uint8_t)text[i] & 0xc0) == 0x80)
            i--;
        uint32_t c;
        if (!utf8_char(text + i, end - i, &c) || !unicode_is_white(c))
            break;
        end = i;
    }
    return end;
}

static size_t white_end(const char *text, size_t bytes, size_t from) {
    uint32_t c;
    unsigned n;
    while ((n = utf8_char(text + from, bytes - from, &c)) && unicode_is_white(c))
        from += n;
    return from;
}

// Cuts at the added tokens of level 0, then of level 1, then into pieces. Special tokens that are not to be parsed stay text.
static bool encode_level(struct Encoding *e, unsigned level, const char *text, size_t bytes) {
    if (level == 2)
        return pretokenizer_run(&e->t->pre, text, bytes, encode_piece, e);
    size_t done = 0, from = 0, start, length;
    uint32_t id;
    while (added_tree_find(&e->t->added[level], text, bytes, from, &start, &length, &id)) {
        const struct Piece *p = &e->t->pieces[id];
        size_t end = from = start + length;
        if (p->kind == PIECE_SPECIAL && !(e->flags & TOKENIZE_SPECIAL))
            continue;
        if (p->lstrip)
            start = max_u64(white_start(text, start), done);
        if (p->rstrip)
            end = white_end(text, bytes, end);
        if (start < done) // it began in the blanks that the one before took along
            return fail("added tokens %.*s overlap in this text", (int)p->bytes, piece_text(e->t, id));
        if (!encode_level(e, level + 1, text + done, start - done))
            return false;
        id_list_push(e->out, id);
        done = end;
    }
    return encode_level(e, level + 1, text + done, bytes - done);
}

bool tokenizer_append(const struct Tokenizer *t, const char *text, size_t bytes, unsigned flags, struct IdList *list) {
    if ((flags & TOKENIZE_BOS) && t->add_bos && t->bos_id != TOKEN_NONE)
        id_list_push(list, t->bos_id);
    struct Encoding e = {t, list, flags};
    if (utf8_valid(text, bytes, NULL))
        return encode_level(&e, 0, text, bytes);
    char *repaired = utf8_repair(text, bytes, &bytes);
    bool ok = encode_level(&e, 0, repaired, bytes);
    free(repaired);
    return ok;
}

bool tokenizer_encode(const struct Tokenizer *t, const char *text, size_t bytes, unsigned flags, uint32_t **ids,
                      size_t *n) {
    struct IdList list = {0};
    *ids = NULL;
    *n = 0;
    if (!tokenizer_append(t, text, bytes, flags, &list)) {
        free(list.ids);
        return false;
    }
    *ids = list.ids;
    *n = list.n;
    return true;
}

// ---- Decoding ----

size_t tokenizer_piece(const struct Tokenizer *t, uint32_t id, char *out, size_t cap) {
    if (id >= t->n_vocab || t->pieces[id].bytes == 0)
        return 0;
    size_t bytes = t->pieces[id].bytes;
    if (cap)
        memcpy(out, piece_text(t, id), min_u64(bytes, cap));
    return bytes;
}

char *tokenizer_decode(const struct Tokenizer *t, const uint32_t *ids, size_t n, bool special, size_t *bytes) {
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        total += tokenizer_piece(t, ids[i], NULL, 0);
    char *text = xmalloc(total + 1);
    for (size_t i = 0; i < n; i++)
        if (special || !tokenizer_is_special(t, ids[i]))
            at += tokenizer_piece(t, ids[i], text + at, total - at);
    text[at] = 0;
    if (bytes)
        *bytes = at;
    return text;
}

// Moves what is certain from in to the detokenizer's text; the rest, if any, becomes pending.
static const char *let_out(struct Detokenizer *d, const char *in, size_t n_in, bool last, size_t *bytes) {
    size_t n = 0;
    d->n_pending = 0;
    for (size_t i = 0; i < n_in;) {
        uint32_t c;
        unsigned length = utf8_char(in + i, n_in - i, &c);
        if (length) {
            memcpy(d->text + n, in + i, length);
            n += length;
        } else {
            bool whole;
            length = utf8_bad(in + i, n_in - i, &whole);
            if (!whole && !last) {
                d->n_pending = length;
                memcpy(d->pending, in + i, length);
            } else {
                memcpy(d->text + n, "\xef\xbf\xbd", 3);
                n += 3;
            }
        }
        i += length;
    }
    d->text[n] = 0;
    if (bytes)
        *bytes = n;
    return d->text;
}

static void make_room(struct Detokenizer *d, size_t bytes) {
    if (d->capacity < bytes) {
        d->capacity = bytes * 2;
        d->text = xrealloc(d->text, d->capacity);
    }
}

const char *detokenizer_push(struct Detokenizer *d, const struct Tokenizer *t, uint32_t id, size_t *bytes) {
    size_t piece = tokenizer_is_special(t, id) ? 0 : tokenizer_piece(t, id, NULL, 0);
    size_t n_in = d->n_pending + piece;
    make_room(d, n_in * 4 + 1); // the input stands behind the room for three bytes of output for each of its bytes
    char *in = d->text + n_in * 3 + 1;
    memcpy(in, d->pending, d->n_pending);
    if (piece)
        tokenizer_piece(t, id, in + d->n_pending, piece);
    return let_out(d, in, n_in, false, bytes);
}

const char *detokenizer_flush(struct Detokenizer *d, size_t *bytes) {
    char in[sizeof d->pending];
    size_t n_in = d->n_pending;
    memcpy(in, d->pending, sizeof in);
    make_room(d, sizeof in * 3 + 1);
    return let_out(d, in, n_in, true, bytes);
}

void detokenizer_free(struct Detokenizer *d) {
    free(d->text);
    *d = (struct Detokenizer){0};
}
