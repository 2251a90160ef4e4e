// The syntax of template files: a first line "vkmoe-template 1", then lines of a key and texts in double quotes. Nothing in it can
// be repeated, chosen or computed, so reading one takes as long as it has bytes.
#include "model/template_parse.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS_MAX = 64 };

struct Reader {
    const char *at, *end, *where;
    unsigned line;
    const struct Tokenizer *tokenizer;
    struct Template *t;
};

static bool bad(const struct Reader *r, const char *what) { return fail("%s line %u: %s", r->where, r->line, what); }

static void skip_blanks(struct Reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r'))
        r->at++;
}

static bool at_line_end(const struct Reader *r) { return r->at == r->end || *r->at == '\n' || *r->at == '#'; }

// A quoted text with \n, \t, \r, \", \\ and \{ (kept as \x01, so that it opens no place); malloc'ed.
static bool read_quoted(struct Reader *r, char **out) {
    skip_blanks(r);
    if (r->at == r->end || *r->at != '"')
        return bad(r, "a text in double quotes is expected");
    r->at++;
    char *text = *out = xmalloc((size_t)(r->end - r->at) + 1);
    while (r->at < r->end && *r->at != '"' && *r->at != '\n') {
        char c = *r->at++;
        if (c == '\\' && r->at < r->end) {
            static const char from[] = "ntr\"\\{", to[] = "\n\t\r\"\\\x01";
            const char *escape = *r->at ? strchr(from, *r->at) : NULL;
            if (!escape) {
                free(*out);
                return bad(r, "of escapes there are \\n, \\t, \\r, \\\", \\\\ and \\{");
            }
            c = to[escape - from];
            r->at++;
        } else if ((unsigned char)c < 0x20 && c != '\t') {
            free(*out);
            return bad(r, "a control character in a text");
        }
        *text++ = c;
    }
    *text = 0;
    if (r->at == r->end || *r->at != '"') {
        free(*out);
        return bad(r, "a text has no end on its line");
    }
    r->at++;
    return true;
}

// ---- A text's parts ----

static bool add_part(struct Reader *r, struct TemplateParts *p, struct TemplatePart part) {
    if (p->n == PARTS_MAX) {
        free(part.text);
        return bad(r, "a text of more than 64 parts");
    }
    p->parts = xrealloc(p->parts, (p->n + 1) * sizeof *p->parts);
    p->parts[p->n++] = part;
    return true;
}

static bool add_words(struct Reader *r, struct TemplateParts *p, const char *text, size_t bytes) {
    if (bytes == 0)
        return true;
    char *copy = xsprintf("%.*s", (int)bytes, text);
    for (size_t i = 0; i < bytes; i++)
        if (copy[i] == '\x01')
            copy[i] = '{';
    return add_part(r, p, (struct TemplatePart){.kind = PART_TEXT, .text = copy, .bytes = bytes});
}

// Words in which special tokens written out are those tokens.
static bool add_literal(struct Reader *r, struct TemplateParts *p, const char *text, size_t bytes) {
    size_t done = 0, start, length;
    uint32_t id;
    while (tokenizer_find_special(r->tokenizer, text, bytes, done, &start, &length, &id)) {
        if (!add_words(r, p, text + done, start - done) ||
            !add_part(r, p, (struct TemplatePart){.kind = PART_TOKEN, .id = id}))
            return false;
        done = start + length;
    }
    return add_words(r, p, text + done, bytes - done);
}

// {text} and the like, at `text`.
static bool add_place(struct Reader *r, struct TemplateParts *p, const char *text, size_t bytes) {
    static const struct {
        const char *name;
        struct TemplatePart part;
    } places[] = {{"{text}", {.kind = PART_MESSAGE}},
                  {"{text:trim}", {.kind = PART_MESSAGE, .trim = TRIM_BOTH}},
                  {"{text:trim-end}", {.kind = PART_MESSAGE, .trim = TRIM_END}},
                  {"{system}", {.kind = PART_SYSTEM}},
                  {"{system:trim}", {.kind = PART_SYSTEM, .trim = TRIM_BOTH}}};
    const struct Tokenizer *t = r->tokenizer;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strlen(places[i].name) == bytes && memcmp(text, places[i].name, bytes) == 0)
            return add_part(r, p, places[i].part);
    bool bos = bytes == 5 && memcmp(text, "{bos}", 5) == 0,
         automatic = bytes == 10 && memcmp(text, "{bos:auto}", 10) == 0;
    uint32_t id = bos || (automatic && t->add_bos) ? t->bos_id : TOKEN_NONE;
    if (bytes == 5 && memcmp(text, "{eos}", 5) == 0) {
        id = t->eos_id;
        if (id == TOKEN_NONE)
            return fail("%s line %u: the tokenizer names no end-of-sequence token", r->where, r->line);
    } else if (!bos && !automatic) {
        return fail("%s line %u: '%.*s' is no place; there are {text}, {text:trim}, {text:trim-end}, {system}, "
                    "{system:trim}, {bos}, {bos:auto}, {eos}; a brace itself is \\{",
                    r->where, r->line, (int)min_u64(bytes, 40), text);
    }
    return id == TOKEN_NONE || add_part(r, p, (struct TemplatePart){.kind = PART_TOKEN, .id = id});
}

static bool read_parts(struct Reader *r, struct TemplateParts *p) {
    char *text;
    if (p->given)
        return bad(r, "this key stands in another line already");
    if (!read_quoted(r, &text))
        return false;
    p->given = true;
    bool ok = true;
    for (char *at = text, *brace, *end; ok && *at; at = end) {
        brace = strchr(at, '{');
        end = brace ? strchr(brace, '}') : at + strlen(at);
        ok = add_literal(r, p, at, brace ? (size_t)(brace - at) : (size_t)(end - at));
        if (!ok || !brace)
            continue;
        if (!end) {
            ok = bad(r, "a { without a }; a brace itself is \\{");
            break;
        }
        end++;
        ok = add_place(r, p, brace, (size_t)(end - brace));
    }
    free(text);
    return ok;
}

// ---- Lines ----

static bool read_needs(struct Reader *r) {
    char *text;
    do {
        if (!read_quoted(r, &text))
            return false;
        uint32_t id = tokenizer_find(r->tokenizer, text);
        bool ok = id != TOKEN_NONE || fail("%s: this chat template needs the token %.80s, which the tokenizer does not "
                                           "have",
                                           r->where, text);
        free(text);
        if (!ok)
            return false;
        skip_blanks(r);
    } while (!at_line_end(r));
    return true;
}

static bool read_key(struct Reader *r, const char *key, size_t bytes) {
    static const char *const texts[TEXT_COUNT] = {"start", "system", "first-user", "user", "prompt", "answer", "after"};
    struct Template *t = r->t;
    for (unsigned i = 0; i < TEXT_COUNT; i++)
        if (strlen(texts[i]) == bytes && memcmp(key, texts[i], bytes) == 0)
            return read_parts(r, &t->texts[i]);
    if (bytes == 5 && memcmp(key, "needs", 5) == 0)
        return read_needs(r);
    if (bytes == 9 && memcmp(key, "alternate", 9) == 0)
        return t->alternate = true;
    if (bytes == 12 && memcmp(key, "system-first", 12) == 0)
        return t->system_first = true;
    if (bytes == 14 && memcmp(key, "default-system", 14) == 0) {
        free(t->default_system);
        t->default_system = NULL;
        char *text;
        if (!read_quoted(r, &text))
            return false;
        for (char *brace = text; (brace = strchr(brace, '\x01'));)
            *brace = '{';
        t->default_system = text;
        return true;
    }
    return fail("%s line %u: there is no key '%.*s'; there are needs, start, system, default-system, first-user, user, "
                "prompt, answer, after, alternate and system-first",
                r->where, r->line, (int)min_u64(bytes, 40), key);
}

static bool has_part(const struct Template *t, enum TemplateText text, enum TemplatePartKind kind) {
    for (unsigned i = 0; i < t->texts[text].n; i++)
        if (t->texts[text].parts[i].kind == kind)
            return true;
    return false;
}

static bool check(const struct Template *t, const char *where) {
    static const enum TemplateText with_text[] = {TEXT_USER, TEXT_ANSWER};
    for (unsigned i = 0; i < 2; i++)
        if (!has_part(t, with_text[i], PART_MESSAGE))
            return fail("%s: the key %s with a place {text} is missing", where, i ? "answer" : "user");
    if (t->texts[TEXT_SYSTEM].given && !has_part(t, TEXT_SYSTEM, PART_MESSAGE))
        return fail("%s: the key system has no place {text}", where);
    if (t->texts[TEXT_FIRST_USER].given &&
        (!has_part(t, TEXT_FIRST_USER, PART_MESSAGE) || !has_part(t, TEXT_FIRST_USER, PART_SYSTEM)))
        return fail("%s: the key first-user needs the places {system} and {text}", where);
    for (unsigned i = 0; i < TEXT_COUNT; i++) {
        bool message = i != TEXT_START && i != TEXT_PROMPT && i != TEXT_AFTER;
        if ((i != TEXT_FIRST_USER && has_part(t, i, PART_SYSTEM)) || (!message && has_part(t, i, PART_MESSAGE)))
            return fail("%s: a place for a message stands where there is none: {system} is for first-user, {text} not "
                        "for start, prompt and after",
                        where);
    }
    const struct TemplateParts *answer = &t->texts[TEXT_ANSWER];
    return answer->parts[answer->n - 1].kind == PART_TOKEN ||
           fail("%s: the key answer must end with a token ({eos} or one of the vocabulary's special ones): it is what "
                "the model says when it is done",
                where);
}

bool template_parse(struct Template *t, const char *text, size_t bytes, const struct Tokenizer *tokenizer,
                    const char *where) {
    static const char first[] = "vkmoe-template 1";
    size_t bad_at = 0;
    struct Reader r = {text, text + bytes, where, 1, tokenizer, t};
    if (bytes < sizeof first - 1 || memcmp(text, first, sizeof first - 1) != 0)
        return fail("%s: a template file begins with the line '%s'", where, first);
    if (!utf8_valid(text, bytes, &bad_at) || memchr(text, 0, bytes))
        return fail("%s: a template file is UTF-8 without 0 bytes%s", where, bad_at ? "; this one is not" : "");
    r.at += sizeof first - 1;
    for (;; r.line++) {
        skip_blanks(&r);
        if (r.line > 1 && !at_line_end(&r)) {
            const char *key = r.at;
            while (r.at < r.end && ((*r.at >= 'a' && *r.at <= 'z') || *r.at == '-'))
                r.at++;
            if (!read_key(&r, key, (size_t)(r.at - key)))
                return false;
            skip_blanks(&r);
        }
        if (!at_line_end(&r))
            return bad(&r, "the line does not end here as it should");
        r.at = memchr(r.at, '\n', (size_t)(r.end - r.at));
        if (!r.at)
            return check(t, where);
        r.at++;
    }
}
