// See extract.h.
#include "eval/extract.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

bool extraction_add(struct Extraction *e, const char *step, const char *where) {
    static const char *const KINDS[] = {"first ", "last ", "boxed", "line", "fence"};
    struct ExtractStep s = {0};
    int kind = 0;
    while (kind < 5 && !(kind < EXTRACT_BOXED ? text_has_prefix(step, KINDS[kind]) : strcmp(step, KINDS[kind]) == 0))
        kind++;
    if (kind == 5)
        return fail("%s: \"first REGEX\", \"last REGEX\", \"boxed\", \"line\" or \"fence\" is expected, not %s", where,
                    step);
    s.kind = (enum ExtractKind)kind;
    if (kind < EXTRACT_BOXED && !(s.pattern = pattern_open(step + strlen(KINDS[kind]), where)))
        return false;
    e->steps = xrealloc(e->steps, (e->n + 1) * sizeof *e->steps);
    e->steps[e->n++] = s;
    return true;
}

void extraction_free(struct Extraction *e) {
    for (uint32_t i = 0; i < e->n; i++)
        pattern_close(e->steps[i].pattern);
    free(e->steps);
    *e = (struct Extraction){0};
}

static char *part(const char *text, size_t from, size_t to) { return xsprintf("%.*s", (int)(to - from), text + from); }

static char *match(struct Pattern *p, const char *text, bool last) {
    struct PatternMatch m, found;
    size_t bytes = strlen(text);
    bool any = false;
    for (size_t from = 0; (!any || last) && pattern_find(p, text, bytes, from, &m);
         from = m.to > m.from ? m.to : m.to + 1) {
        found = m;
        any = true;
    }
    return any ? part(text, found.group_from, found.group_to) : NULL;
}

char *boxed_content(const char *text) {
    const char *at = NULL;
    for (const char *c = text; (c = strchr(c, '\\')); c++)
        if (text_has_prefix(c, "\\boxed") || text_has_prefix(c, "\\fbox"))
            at = c + (c[1] == 'b' ? 6 : 5);
    if (!at)
        return NULL;
    if (*at == ' ') {
        size_t bytes = strcspn(at + 1, "$\n");
        return text_strip(at + 1, bytes);
    }
    int depth = 0;
    for (const char *c = at; *c; c++) {
        depth += (*c == '{') - (*c == '}');
        if (depth == 0)
            return *c == '}' ? part(at, 1, (size_t)(c - at)) : NULL;
    }
    return NULL;
}

static char *first_line(const char *text) {
    while (*text) {
        size_t bytes = strcspn(text, "\n");
        char *line = text_strip(text, bytes);
        if (*line)
            return line;
        free(line);
        text += bytes + (text[bytes] == '\n');
    }
    return NULL;
}

// The inside of the first block between ``` lines; one that is not closed reaches to the end.
static char *fenced(const char *text) {
    const char *open = strstr(text, "```");
    const char *begin = open ? strchr(open, '\n') : NULL;
    if (!begin)
        return NULL;
    const char *close = strstr(begin, "\n```");
    return part(begin, 1, close ? (size_t)(close - begin) + 1 : strlen(begin));
}

char *extraction_run(const struct Extraction *e, const char *text) {
    if (e->n == 0)
        return text_strip(text, strlen(text));
    char *found = NULL;
    for (uint32_t i = 0; i < e->n && !found; i++) {
        const struct ExtractStep *s = &e->steps[i];
        switch (s->kind) {
        case EXTRACT_FIRST:
        case EXTRACT_LAST:
            found = match(s->pattern, text, s->kind == EXTRACT_LAST);
            break;
        case EXTRACT_BOXED:
            found = boxed_content(text);
            break;
        case EXTRACT_LINE:
            found = first_line(text);
            break;
        case EXTRACT_FENCE:
            found = fenced(text);
            break;
        }
    }
    return found;
}

// ---- Normal forms

static char *without_stop(const char *text) {
    char *bare = text_strip(text, strlen(text));
    size_t n = strlen(bare);
    if (n > 1 && bare[n - 1] == '.')
        bare[n - 1] = 0;
    return bare;
}

// Whether all of it is a number ("-1,234.5", "$ 7"); its value.
static bool number_of(const char *text, double *value) {
    char digits[64];
    size_t n = 0;
    for (; *text; text++) {
        if (*text == ',' || *text == '$' || *text == ' ')
            continue;
        if (!strchr("+-.0123456789eE", *text) || n + 1 >= sizeof digits)
            return false;
        digits[n++] = *text;
    }
    while (n > 0 && digits[n - 1] == '.')
        n--;
    digits[n] = 0;
    char *end;
    *value = strtod(digits, &end);
    return n > 0 && *end == 0;
}

// As lm-evaluation-harness compares GSM8K's numbers: texts, so that 18.00 is not 18.
static char *number_text(const char *text) {
    char *bare = text_strip(text, strlen(text));
    size_t n = 0;
    for (const char *c = bare; *c; c++)
        if (*c != ',' && *c != '$')
            bare[n++] = *c;
    n -= n > 0 && bare[n - 1] == '.';
    bare[n] = 0;
    return bare;
}

static bool is_article(const char *word, size_t n) {
    return (n == 1 && *word == 'a') || (n == 2 && memcmp(word, "an", 2) == 0) ||
           (n == 3 && memcmp(word, "the", 3) == 0);
}

static bool is_punctuation(const char *c) { return (unsigned char)*c < 0x80 && ispunct((unsigned char)*c); }

// DROP keeps the full stop and the sign of what is a number, and cuts words at hyphens too.
static char *words_normal(const char *text, bool drop) {
    char *small = text_lower(text);
    struct Text out = {0};
    const char *cuts = drop ? " \t\r\n\v\f-" : " \t\r\n\v\f";
    for (char *c = small; *c;) {
        size_t n = strcspn(c, cuts);
        char *word = part(c, 0, n), *number = NULL;
        double value;
        if (drop && number_of(word, &value))
            number = xsprintf("%.15g", value);
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (!is_punctuation(word + i))
                word[kept++] = word[i];
        word[kept] = 0;
        if (number || (kept > 0 && !is_article(word, kept))) {
            if (out.bytes)
                text_add(&out, " ", 1);
            text_add_string(&out, number ? number : word);
        }
        free(word);
        free(number);
        c += n + (c[n] != 0);
    }
    free(small);
    return text_take(&out);
}

char *normal_text(enum Normal normal, const char *text) {
    switch (normal) {
    case NORMAL_ANSWER:
        return without_stop(text);
    case NORMAL_QA:
    case NORMAL_DROP:
        return words_normal(text, normal == NORMAL_DROP);
    case NORMAL_NUMBER:
        return number_text(text);
    case NORMAL_MATH:
        return latex_normal(text);
    default:
        return text_strip(text, strlen(text));
    }
}

bool normal_equal(enum Normal normal, const char *answer, const char *accepted) {
    char *a = normal_text(normal, answer), *b = normal_text(normal, accepted);
    bool same = strcmp(a, b) == 0;
    free(a);
    free(b);
    return same;
}
