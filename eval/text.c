// See text.h.
#include "eval/text.h"
#include "model/regex.h"

#include <stdlib.h>
#include <string.h>

void text_add(struct Text *t, const char *more, size_t bytes) {
    if (t->bytes + bytes + 1 > t->room) {
        t->room = 2 * (t->bytes + bytes) + 64;
        t->text = xrealloc(t->text, t->room);
    }
    memcpy(t->text + t->bytes, more, bytes);
    t->bytes += bytes;
    t->text[t->bytes] = 0;
}

void text_add_string(struct Text *t, const char *more) { text_add(t, more, strlen(more)); }

char *text_take(struct Text *t) {
    char *text = t->text ? t->text : xstrdup("");
    *t = (struct Text){0};
    return text;
}

void text_free(struct Text *t) {
    free(t->text);
    *t = (struct Text){0};
}

static bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

char *text_strip(const char *text, size_t bytes) {
    while (bytes && is_white(text[bytes - 1]))
        bytes--;
    while (bytes && is_white(*text))
        text++, bytes--;
    char *copy = xmalloc(bytes + 1);
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    return copy;
}

char *text_lower(const char *text) {
    char *copy = xstrdup(text);
    for (char *c = copy; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c += 'a' - 'A';
    return copy;
}

bool text_has_prefix(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

size_t text_characters(const char *text) {
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

// ---- Patterns

static const uint32_t MATCH_LIMIT = 1000000, DEPTH_LIMIT = 10000;

struct Pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

struct Pattern *pattern_open(const char *regex, const char *where) {
    int error;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(regex_heap());
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at, context);
    pcre2_compile_context_free(context);
    if (!code) {
        char text[120];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        fail("%s: the pattern %s is wrong at character %zu: %s", where, regex, at, text);
        return NULL;
    }
    struct Pattern *p = xmalloc(sizeof *p);
    *p = (struct Pattern){code, pcre2_match_data_create_from_pattern(code, NULL),
                          pcre2_match_context_create(regex_heap())};
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(p->limits, DEPTH_LIMIT);
    return p;
}

void pattern_close(struct Pattern *p) {
    if (!p)
        return;
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->limits);
    pcre2_code_free(p->code);
    free(p);
}

bool pattern_find(struct Pattern *p, const char *text, size_t bytes, size_t from, struct PatternMatch *m) {
    int n = from > bytes ? -1 : pcre2_match(p->code, (PCRE2_SPTR)text, bytes, from, 0, p->match, p->limits);
    if (n <= 0)
        return false;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->match);
    *m = (struct PatternMatch){at[0], at[1], at[0], at[1]};
    for (int group = 1; group < n; group++)
        if (at[2 * group] != PCRE2_UNSET) {
            m->group_from = at[2 * group];
            m->group_to = at[2 * group + 1];
            break;
        }
    return m->from <= m->to;
}

char *pattern_replace(struct Pattern *p, const char *text, const char *with) {
    struct Text out = {0};
    struct PatternMatch m;
    size_t bytes = strlen(text), done = 0, from = 0;
    while (from <= bytes && pattern_find(p, text, bytes, from, &m)) {
        text_add(&out, text + done, m.from - done);
        text_add_string(&out, with);
        done = m.to;
        from = m.to > m.from ? m.to : m.to + 1; // an empty match must not be found for ever
    }
    text_add(&out, text + done, bytes - done);
    return text_take(&out);
}
