// Encoding cuts the text at added tokens, then into pieces, then merges bytes inside each piece. Decoding is a table.
#include "model/tokenizer.h"
#include "model/tokenizer_build.h"
#include "model/utf8.h"

#include <math.h>
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

bool tokenizer_find_special(const struct Tokenizer *t, const char *text, size_t bytes, size_t from, size_t *start,
                            size_t *length, uint32_t *id) {
    bool found = false;
    for (unsigned level = 0; level < 2; level++) {
        size_t at, n;
        uint32_t one;
        for (size_t i = from; added_tree_find(&t->added[level], text, bytes, i, &at, &n, &one); i = at + n) {
            if (t->pieces[one].kind != PIECE_SPECIAL)
                continue;
            if (!found || at < *start)
                *start = at, *length = n, *id = one;
            found = true;
            break;
        }
    }
    return found;
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

void build_open(struct Tokenizer *t) {
    *t = (struct Tokenizer){.bos_id = TOKEN_NONE, .eos_id = TOKEN_NONE, .pad_id = TOKEN_NONE};
}

void build_begin(struct Tokenizer *t, uint32_t n_vocab, uint32_t n_merges) {
    t->n_vocab = n_vocab;
    t->unknown_id = TOKEN_NONE;
    t->pieces = xcalloc(n_vocab, sizeof *t->pieces);
    t->pool = xmalloc(t->pool_room = 4096); // there even when the first piece is empty
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

// Blanks as they are in the piece's bytes.
static char *from_blanks(const char *text, size_t bytes, size_t *n) {
    return text_replace(text, bytes, SPM_BLANK, strlen(SPM_BLANK), " ", 1, n);
}

bool build_text(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, const char *where) {
    size_t n;
    char *decoded = from_blanks(text, bytes, &n);
    if (n == 0 || memchr(text, ' ', bytes)) { // no text leads here; it is shown as it is written
        set_piece(t, id, text, bytes, PIECE_ADDED);
    } else if (build_find(t, decoded, n) != TOKEN_NONE) {
        free(decoded);
        return fail("%s: two tokens have the text '%.*s'", where, (int)min_u64(bytes, 80), text);
    } else {
        set_piece(t, id, decoded, n, PIECE_NORMAL);
        joins_add(&t->joins, text, bytes);
    }
    free(decoded);
    return true;
}

int build_parse_byte(const char *text, size_t bytes) {
    int value = 0;
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (!digit && !(text[i] >= 'A' && text[i] <= 'F'))
            return -1;
        value = value * 16 + (digit ? text[i] - '0' : text[i] - 'A' + 10);
    }
    return value;
}

void build_byte(struct Tokenizer *t, uint32_t id, uint8_t byte) {
    set_piece(t, id, &(char){(char)byte}, 1, PIECE_BYTE);
    t->bpe.byte_id[byte] = id;
}

// The character that a piece consists of; blanks as texts have them by then.
static bool single_char(const struct Tokenizer *t, uint32_t id, uint32_t *code_point) {
    const struct Piece *p = &t->pieces[id];
    if (p->kind != PIECE_NORMAL || utf8_char(piece_text(t, id), p->bytes, code_point) != p->bytes)
        return false;
    if (*code_point == ' ')
        *code_point = 0x2581;
    return true;
}

bool build_chars(struct Tokenizer *t, const char *where) {
    for (unsigned byte = 0; byte < 256; byte++)
        if (t->bpe.byte_id[byte] == BPE_NONE)
            return fail(
                "%s: there is no token <0x%02X>: a vocabulary of characters that cannot spell every byte is not "
                "known here",
                where, byte);
    uint32_t n = 0, code_point;
    for (uint32_t id = 0; id < t->n_vocab; id++)
        n += single_char(t, id, &code_point);
    bpe_init_chars(&t->bpe, n);
    for (uint32_t id = 0; id < t->n_vocab; id++)
        if (single_char(t, id, &code_point))
            bpe_add_char(&t->bpe, code_point, id);
    return true;
}

// Calls bpe_add_merge for each way to make a piece of two (add), or only counts them. A half that is one character must be a piece.
static bool piece_merges(struct Tokenizer *t, uint32_t id, uint32_t rank, bool add, uint32_t *count,
                         const char *where) {
    enum { PIECE_MAX = 512 };
    const char *text = piece_text(t, id);
    size_t bytes = t->pieces[id].bytes, n;
    uint32_t code_point;
    if (bytes > PIECE_MAX)
        return fail("%s: token %u has %zu bytes, at most %d are expected", where, id, bytes, PIECE_MAX);
    for (size_t i = 0; i < bytes; i += n) {
        n = utf8_char(text + i, bytes - i, &code_point);
        if (n == 0)
            return fail("%s: token %u is no UTF-8 text", where, id);
        // SentencePiece would merge a character that is no piece itself; published vocabularies have none.
        if (n < bytes && build_find(t, text + i, n) == TOKEN_NONE)
            return fail("%s: the token '%.*s' holds the character '%.*s', which is no token", where, (int)bytes, text,
                        (int)n, text + i);
        uint32_t left = i ? build_find(t, text, i) : TOKEN_NONE;
        uint32_t right = i ? build_find(t, text + i, bytes - i) : TOKEN_NONE;
        if (left == TOKEN_NONE || right == TOKEN_NONE)
            continue;
        ++*count;
        if (add)
            bpe_add_merge(&t->bpe, left, right, rank, id);
    }
    return true;
}

struct Scored {
    float score;
    uint32_t id;
};

static int by_score(const void *a, const void *b) {
    const struct Scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : (x->id > y->id) - (x->id < y->id);
}

bool build_scores(struct Tokenizer *t, const float *scores, const char *where) {
    struct Scored *list = xcalloc(t->n_vocab, sizeof *list);
    uint32_t n = 0, count = 0, rank = 0;
    bool ok = true;
    for (uint32_t id = 0; ok && id < t->n_vocab; id++) {
        if (t->pieces[id].kind != PIECE_NORMAL)
            continue;
        if (!isfinite(scores[id]))
            ok = fail("%s: the score of token %u is not finite", where, id);
        list[n++] = (struct Scored){scores[id], id};
        ok = ok && piece_merges(t, id, 0, false, &count, where);
    }
    qsort(list, n, sizeof *list, by_score);
    if (ok)
        bpe_reserve_merges(&t->bpe, count);
    for (uint32_t i = 0; ok && i < n; i++) {
        rank += i && list[i].score != list[i - 1].score; // of equal scores the leftmost pair comes first
        ok = piece_merges(t, list[i].id, rank, true, &count, where);
        t->hash = hash_bytes(&list[i], sizeof list[i], t->hash);
    }
    free(list);
    return ok;
}

void build_bytes(struct Tokenizer *t) {
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t id = build_find(t, &(char){(char)byte}, 1);
        t->bpe.byte_id[byte] = id != TOKEN_NONE ? id : t->unknown_id;
    }
}

static bool from_vocab(const struct Tokenizer *t, const char *text, size_t bytes, char *out, size_t *n) {
    if (!t->spm)
        return from_alphabet(text, bytes, out, n);
    char *decoded = from_blanks(text, bytes, n);
    memcpy(out, decoded, *n);
    free(decoded);
    return true;
}

bool build_merge(struct Tokenizer *t, const char *left, size_t left_bytes, const char *right, size_t right_bytes,
                 uint32_t rank, const char *where) {
    char *both = xmalloc(left_bytes + right_bytes + 1);
    size_t n_left = 0, n_right = 0;
    bool ok = from_vocab(t, left, left_bytes, both, &n_left) && n_left &&
              from_vocab(t, right, right_bytes, both + n_left, &n_right) && n_right;
    uint32_t left_id = TOKEN_NONE, right_id = TOKEN_NONE, merged = TOKEN_NONE;
    if (ok) {
        left_id = build_find(t, both, n_left);
        right_id = build_find(t, both + n_left, n_right);
        merged = build_find(t, both, n_left + n_right);
        ok = left_id != TOKEN_NONE && right_id != TOKEN_NONE && merged != TOKEN_NONE;
    }
    free(both);
    if (!ok)
        return fail("%s: merge %u, '%.*s' and '%.*s': both and what they make must be %stokens of the vocabulary",
                    where, rank, (int)min_u64(left_bytes, 80), left, (int)min_u64(right_bytes, 80), right,
                    t->spm ? "" : "byte-level ");
    bpe_add_merge(&t->bpe, left_id, right_id, rank, merged);
    uint32_t pair[2] = {left_id, right_id};
    t->hash = hash_bytes(pair, sizeof pair, t->hash);
    return true;
}

bool build_added(struct Tokenizer *t, uint32_t id, const char *text, size_t bytes, enum PieceKind kind,
                 enum AddedWhen when, const char *where) {
    if (bytes > ADDED_MAX_BYTES)
        return fail("%s: added token %u has %zu bytes, at most %d are expected", where, id, bytes, ADDED_MAX_BYTES);
    if (bytes == 0) // never found in a text
        return true;
    size_t n;
    if (when == ADDED_WRITTEN) {
        char *decoded = from_blanks(text, bytes, &n);
        set_piece(t, id, decoded, n, kind);
        free(decoded);
    } else {
        set_piece(t, id, text, bytes, kind);
    }
    if (when != ADDED_BEHIND || !t->normalizer.n) {
        added_tree_add(&t->added[when != ADDED_BEFORE], text, bytes, id);
        return true;
    }
    char *pattern = normalizer_run(&t->normalizer, text, bytes, true, &n);
    bool ok = (n && n <= ADDED_MAX_BYTES) || fail("%s: added token %u is %zu bytes long once normalized", where, id, n);
    if (ok)
        added_tree_add(&t->added[1], pattern, n, id);
    free(pattern);
    return ok;
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
    for (uint32_t i = 0; t->bpe.chars && i <= t->bpe.char_mask; i++)
        if (t->bpe.chars[i].id != BPE_NONE && t->pieces[t->bpe.chars[i].id].kind == PIECE_SPECIAL)
            return fail("%s: the special token %u is one character of plain text", where, t->bpe.chars[i].id);
    for (uint32_t id = 0; id < t->n_vocab; id++)
        if (t->pieces[id].bytes)
            t->hash = hash_bytes(piece_text(t, id), t->pieces[id].bytes, t->hash * 4 + t->pieces[id].kind);
    t->hash = pretokenizer_hash(&t->pre, t->hash * 4 + t->ignore_merges * 2 + t->add_bos);
    t->hash = normalizer_hash(&t->normalizer, t->hash);
    if (t->spm)
        t->hash = t->hash * 16 + t->metaspace * 8 + t->metaspace_split * 4 + t->prefix;
    bpe_ready(&t->bpe);
    return true;
}

void tokenizer_free(struct Tokenizer *t) {
    free(t->pieces);
    free(t->pool);
    free(t->slots);
    bpe_free(&t->bpe);
    joins_free(&t->joins);
    normalizer_free(&t->normalizer);
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

// A stretch of SentencePiece's kind, `first` where the whole text begins with it.
static bool encode_spm(struct Encoding *e, const char *text, size_t bytes, bool first) {
    const struct Tokenizer *t = e->t;
    if (!t->metaspace)
        return spm_encode(&t->joins, &t->bpe, text, bytes, e->out);
    size_t blank = strlen(SPM_BLANK), n;
    char *marked = text_replace(text, bytes, " ", 1, SPM_BLANK, blank, &n);
    bool wanted = t->prefix == PREFIX_ALWAYS || (t->prefix == PREFIX_FIRST && first && !(e->flags & TOKENIZE_BEHIND));
    if (wanted && !(first && (e->flags & TOKENIZE_MIDDLE)) && (n < blank || memcmp(marked, SPM_BLANK, blank) != 0)) {
        marked = xrealloc(marked, n + blank + 1);
        memmove(marked + blank, marked, n);
        memcpy(marked, SPM_BLANK, blank);
        n += blank;
    }
    bool ok = true;
    for (size_t start = 0, end; ok && start < n; start = end) {
        size_t from = start + (n - start >= blank && memcmp(marked + start, SPM_BLANK, blank) == 0 ? blank : 0);
        const char *next = t->metaspace_split ? memmem(marked + from, n - from, SPM_BLANK, blank) : NULL;
        end = next ? (size_t)(next - marked) : n;
        ok = spm_encode(&t->joins, &t->bpe, marked + start, end - start, e->out);
    }
    free(marked);
    return ok;
}

static bool encode_level(struct Encoding *e, unsigned level, const char *text, size_t bytes, bool first);

// What lies between two added tokens of a level.
static bool encode_gap(struct Encoding *e, unsigned level, const char *text, size_t bytes, bool first) {
    const struct Tokenizer *t = e->t;
    if (bytes == 0)
        return true;
    if (level == 1)
        return t->spm ? encode_spm(e, text, bytes, first) : pretokenizer_run(&t->pre, text, bytes, encode_piece, e);
    if (t->normalizer.n == 0)
        return encode_level(e, 1, text, bytes, first);
    size_t n;
    char *normal = normalizer_run(&t->normalizer, text, bytes, !(first && (e->flags & TOKENIZE_MIDDLE)), &n);
    bool ok = encode_level(e, 1, normal, n, first);
    free(normal);
    return ok;
}

// Cuts at the added tokens of level 0, normalizes, then at those of level 1, then into pieces. Special tokens that are not to be parsed
// stay text.
static bool encode_level(struct Encoding *e, unsigned level, const char *text, size_t bytes, bool first) {
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
        if (start == end) // blanks alone, and the one before took them along: nothing, as the library has it
            continue;
        if (start < done || start > end) // it began in the blanks that the one before took along
            return fail("added tokens %.*s overlap in this text", (int)p->bytes, piece_text(e->t, id));
        if (!encode_gap(e, level, text + done, start - done, first && done == 0))
            return false;
        id_list_push(e->out, id);
        done = end;
    }
    return encode_gap(e, level, text + done, bytes - done, first && done == 0);
}

bool tokenizer_append(const struct Tokenizer *t, const char *text, size_t bytes, unsigned flags, struct IdList *list) {
    if ((flags & TOKENIZE_BOS) && t->add_bos && t->bos_id != TOKEN_NONE)
        id_list_push(list, t->bos_id);
    struct Encoding e = {t, list, flags};
    if (utf8_valid(text, bytes, NULL))
        return encode_level(&e, 0, text, bytes, true);
    char *repaired = utf8_repair(text, bytes, &bytes);
    bool ok = encode_level(&e, 0, repaired, bytes, true);
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
    // The blank in front is the encoder's, unless a special token stands before it.
    bool shown = special && n && tokenizer_is_special(t, ids[0]);
    if (t->strip_blank && at && text[0] == ' ' && !shown)
        memmove(text, text + 1, --at);
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
