// See spmfile.h. A field is read into one small struct; messages are windows on the same bytes.
#include "model/spmfile.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

struct Window {
    const uint8_t *at, *end, *start; // start: of the file, for offsets in messages
    const char *where;
};
struct Field {
    uint32_t number, wire; // wire: 0 varint, 1 eight bytes, 2 bytes, 5 four bytes
    uint64_t value;        // of 0, 1 and 5
    struct Window inner;   // of 2
};

static bool bad(const struct Window *w, const char *what) {
    return fail("%s: byte %zu: %s", w->where, (size_t)(w->at - w->start), what);
}

static bool read_varint(struct Window *w, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end)
            return bad(w, "the file ends inside a number");
        uint8_t byte = *w->at++;
        if (shift == 63 && byte > 1)
            return bad(w, "a number of more than 64 bits");
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return bad(w, "a number of more than ten bytes");
}

static bool read_fixed(struct Window *w, unsigned bytes, uint64_t *value) {
    if ((size_t)(w->end - w->at) < bytes)
        return bad(w, "the file ends inside a number");
    *value = 0;
    for (unsigned i = 0; i < bytes; i++)
        *value |= (uint64_t)w->at[i] << 8 * i;
    w->at += bytes;
    return true;
}

static bool read_field(struct Window *w, struct Field *f) {
    uint64_t key, length;
    if (!read_varint(w, &key))
        return false;
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff)
        return bad(w, "this is no SentencePiece model: a field number from 1 to 536870911 is expected");
    *f = (struct Field){.number = (uint32_t)(key >> 3), .wire = key & 7};
    switch (f->wire) {
    case 0:
        return read_varint(w, &f->value);
    case 1:
        return read_fixed(w, 8, &f->value);
    case 5:
        return read_fixed(w, 4, &f->value);
    case 2:
        if (!read_varint(w, &length))
            return false;
        if (length > (uint64_t)(w->end - w->at))
            return bad(w, "a field is longer than what is left of its message");
        f->inner = *w;
        f->inner.end = w->at += length;
        return true;
    default:
        return bad(w, "this is no SentencePiece model: a field of a kind that it does not have");
    }
}

static bool wire_is(const struct Window *w, const struct Field *f, uint32_t wire) {
    return f->wire == wire || bad(w, "a field of another kind than SentencePiece models have there");
}

static bool read_piece(struct SpmFile *s, struct Window w) {
    struct SpmPiece piece = {.type = SPM_NORMAL};
    struct Field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f))
            return false;
        if (f.number <= 3 && !wire_is(&w, &f, f.number == 1 ? 2 : f.number == 2 ? 5 : 0))
            return false;
        if (f.number == 1) {
            piece.text = (const char *)f.inner.at;
            piece.bytes = (size_t)(f.inner.end - f.inner.at);
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece.score, &bits, sizeof bits);
        } else if (f.number == 3) {
            if (f.value < SPM_NORMAL || f.value > SPM_BYTE)
                return bad(&w, "a piece of a type that is not known");
            piece.type = (enum SpmType)f.value;
        }
    }
    if (piece.bytes == 0 || !utf8_valid(piece.text, piece.bytes, NULL))
        return bad(&w, "a piece that is no UTF-8 text, or empty");
    if (s->n == 1u << 24)
        return bad(&w, "more than 16777216 pieces");
    if (s->n == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 1024;
        s->pieces = xrealloc(s->pieces, s->capacity * sizeof *s->pieces);
    }
    s->pieces[s->n++] = piece;
    return true;
}

// Numbers of TrainerSpec: model_type 3, treat_whitespace_as_suffix 24, ids of unk, bos, eos and pad 40 to 43.
static bool read_trainer(struct SpmFile *s, struct Window w, uint64_t *model_type) {
    uint32_t *const ids[] = {&s->unknown_id, &s->bos_id, &s->eos_id, &s->pad_id};
    struct Field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f))
            return false;
        bool ours = f.number == 3 || f.number == 24 || (f.number >= 40 && f.number <= 43);
        if (ours && !wire_is(&w, &f, 0))
            return false;
        if (f.number == 3)
            *model_type = f.value;
        if (f.number == 24 && f.value)
            return bad(&w, "treat_whitespace_as_suffix is not known here");
        if (f.number >= 40 && f.number <= 43) // negative: none
            *ids[f.number - 40] = f.value > INT32_MAX ? UINT32_MAX : (uint32_t)f.value;
    }
    return true;
}

// Numbers of NormalizerSpec: name 1, precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4, escape_whitespaces 5.
static bool read_normalizer(struct SpmFile *s, struct Window w, bool *extra, bool denormalizer) {
    struct Field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f))
            return false;
        if (f.number <= 5 && !wire_is(&w, &f, f.number <= 2 ? 2 : 0))
            return false;
        if (f.number == 2 && f.inner.at < f.inner.end)
            return bad(&w, "a normalisation table (precompiled_charsmap) is not known here; only \"identity\" is");
        if (f.number == 3 && !denormalizer)
            s->dummy_prefix = f.value;
        if (f.number == 4 && !denormalizer)
            *extra = f.value;
        if (f.number == 5 && !f.value && !denormalizer)
            return bad(&w, "blanks that are not escaped (escape_whitespaces) are not known here");
    }
    return true;
}

static bool check_id(uint32_t *id, uint32_t n, const char *what, const char *where) {
    return *id == UINT32_MAX || *id < n || fail("%s: %s is %u, but there are %u pieces", where, what, *id, n);
}

static bool parse(struct SpmFile *s, const void *data, size_t bytes, const char *where) {
    struct Window w = {data, (const uint8_t *)data + bytes, data, where};
    struct Field f;
    uint64_t model_type = 1;
    bool extra = true;
    while (w.at < w.end) {
        if (!read_field(&w, &f))
            return false;
        if ((f.number <= 3 || f.number == 5) && !wire_is(&w, &f, 2))
            return false;
        bool ok = f.number == 1   ? read_piece(s, f.inner)
                  : f.number == 2 ? read_trainer(s, f.inner, &model_type)
                  : f.number == 3 ? read_normalizer(s, f.inner, &extra, false)
                  : f.number == 5 ? read_normalizer(s, f.inner, &extra, true)
                                  : true;
        if (!ok)
            return false;
    }
    static const char *const types[] = {"unigram", "BPE", "word", "char"};
    if (s->n == 0)
        return fail("%s: holds no pieces", where);
    if (model_type != 2)
        return fail("%s: a SentencePiece model of type %s is not known here; BPE is", where,
                    model_type >= 1 && model_type <= 4 ? types[model_type - 1] : "unknown");
    if (extra)
        return fail("%s: removal of extra blanks (remove_extra_whitespaces) is not known here", where);
    return check_id(&s->unknown_id, s->n, "unk_id", where) && check_id(&s->bos_id, s->n, "bos_id", where) &&
           check_id(&s->eos_id, s->n, "eos_id", where) && check_id(&s->pad_id, s->n, "pad_id", where);
}

bool spmfile_parse(struct SpmFile *s, const void *data, size_t bytes, const char *where) {
    // The defaults of the message's definition.
    *s = (struct SpmFile){.bos_id = 1, .eos_id = 2, .pad_id = UINT32_MAX, .unknown_id = 0, .dummy_prefix = true};
    if (parse(s, data, bytes, where))
        return true;
    spmfile_free(s);
    return false;
}

void spmfile_free(struct SpmFile *s) {
    free(s->pieces);
    *s = (struct SpmFile){0};
}
