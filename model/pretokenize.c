// The chain of splits. A split finds matches in a piece, a fold joins matches and the gaps between them into pieces as the
// split's behaviour says, and each goes on to the next split at once: no list of pieces is ever kept.
#include "model/chains.h"
#include "model/regex.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

enum SplitKind { SPLIT_REGEX, SPLIT_STRING, SPLIT_TRAILING_SPACE };

struct Split {
    enum SplitKind kind;
    enum SplitBehavior behavior;
    bool invert;
    char *text; // the pattern as given
    size_t text_bytes;
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

// A pattern from a file may be built to run for ever: a match that takes more steps than this is an error.
enum { MATCH_STEPS = 10000000, JIT_STACK_BYTES = 16 << 20, MATCH_HEAP_KIB = 256 << 10 };
enum { PATTERN_MAX = 16384, NESTING_MAX = 64 };

// Oniguruma's \s, without the Mongolian vowel separator that PCRE2 counts as well; and all that it is not.
#define WHITE "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_WHITE                                                                                                      \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"        \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}"

// ---- Oniguruma's syntax to PCRE2's ----

struct Translation {
    const char *from; // what is left of the pattern
    const char *whole, *where;
    char *out;
    size_t n, capacity;
    bool failed;
};

static void put(struct Translation *t, const char *text, size_t bytes) {
    if (t->n + bytes + 1 > t->capacity) {
        t->capacity = (t->n + bytes + 1) * 2;
        t->out = xrealloc(t->out, t->capacity);
    }
    memcpy(t->out + t->n, text, bytes);
    t->n += bytes;
    t->out[t->n] = 0;
}

static void put_text(struct Translation *t, const char *text) { put(t, text, strlen(text)); }

static void refuse(struct Translation *t, const char *what, int length, const char *why) {
    if (!t->failed)
        fail("%s: pre-tokenizer pattern, byte %zu: '%.*s' %s", t->where, (size_t)(t->from - t->whole), length, what,
             why);
    t->failed = true;
}

static void refuse_here(struct Translation *t, const char *why) {
    int length = t->from[0] == '\\' || t->from[0] == '(' ? 2 : 1;
    refuse(t, t->from, length, why);
}

// \p{..}: general categories mean the same in both; names of scripts do not in every version.
static bool is_category(const char *name, size_t bytes) {
    static const char *const known[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",
                                        "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
                                        "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == bytes && memcmp(known[i], name, bytes) == 0)
            return true;
    return false;
}

static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// \p{..} \x{..} \xHH \uHHHH. t->from stands at the backslash.
static void translate_long_escape(struct Translation *t) {
    const char *from = t->from;
    char kind = from[1];
    size_t bytes = 0; // of the whole escape
    if (kind == 'p' || kind == 'P') {
        size_t name = from[2] == '{' ? 3 + (from[3] == '^') : 0, end = name;
        while (name && from[end] && from[end] != '}')
            end++;
        if (!name || from[end] != '}' || !is_category(from + name, end - name)) {
            refuse(t, from, (int)(name ? end + 1 : 2), "is not a general category known here");
            return;
        }
        bytes = end + 1;
        put(t, from, bytes);
    } else if (kind == 'x' && from[2] == '{') {
        size_t end = 3;
        while (is_hex(from[end]))
            end++;
        if (end == 3 || end > 9 || from[end] != '}') {
            refuse(t, from, 2, "is not a code point");
            return;
        }
        bytes = end + 1;
        put(t, from, bytes);
    } else { // two hexadecimal digits after x (a byte for Oniguruma: only ASCII is the same), four after u
        size_t digits = kind == 'x' ? 2 : 4;
        for (size_t i = 0; i < digits; i++)
            if (!is_hex(from[2 + i])) {
                refuse(t, from, 2, "is not a code point");
                return;
            }
        if (kind == 'x' && from[2] >= '8') {
            refuse(t, from, 4, "is a byte, not a character");
            return;
        }
        bytes = 2 + digits;
        put_text(t, "\\x{");
        put(t, from + 2, digits);
        put_text(t, "}");
    }
    t->from += bytes;
}

static void translate_escape(struct Translation *t, bool in_class) {
    char c = t->from[1];
    switch (c) {
    case 's':
        put_text(t, in_class ? WHITE : "[" WHITE "]");
        break;
    case 'S':
        put_text(t, in_class ? NOT_WHITE : "[^" WHITE "]");
        break;
    case 'd':
        put_text(t, "\\p{Nd}");
        break;
    case 'D':
        put_text(t, "\\P{Nd}");
        break;
    case 'v':
        put_text(t, "\\x0b");
        break;
    case 'r':
    case 'n':
    case 't':
    case 'f':
    case 'e':
    case 'a':
        put(t, t->from, 2);
        break;
    case 'p':
    case 'P':
    case 'x':
    case 'u':
        translate_long_escape(t);
        return;
    default:
        if (!((c >= 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 0x7f))) {
            refuse_here(t, "is not an escape that means the same everywhere");
            return;
        }
        put(t, t->from, 2);
    }
    t->from += 2;
}

static void translate_class(struct Translation *t) {
    put(t, t->from++, 1);
    if (*t->from == '^')
        put(t, t->from++, 1);
    if (*t->from == ']')
        refuse_here(t, "opens a class and closes it");
    while (!t->failed && *t->from != ']') {
        char c = *t->from;
        if (c == 0)
            refuse(t, "[", 1, "has no end");
        else if (c == '[')
            refuse_here(t, "inside a class");
        else if (c == '&' && t->from[1] == '&')
            refuse_here(t, "is an intersection of classes");
        else if (c == '\\')
            translate_escape(t, true);
        else
            put(t, t->from++, 1);
    }
    if (!t->failed)
        put(t, t->from++, 1);
}

static void translate_group(struct Translation *t) {
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"};
    if (t->from[1] == '*') {
        refuse_here(t, "is not known here");
    } else if (t->from[1] != '?') {
        put_text(t, "(?:");
        t->from++;
    } else {
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            size_t bytes = strlen(known[i]);
            if (strncmp(t->from, known[i], bytes) == 0) {
                put(t, known[i], bytes);
                t->from += bytes;
                return;
            }
        }
        refuse(t, t->from, 3, "is a group not known here");
    }
}

// {n} {n,} {n,m}, and {n,m}? ; Ruby reads {n}? and {n,m}+ in its own way.
static void translate_count(struct Translation *t) {
    size_t i = 1;
    bool comma = false;
    while (t->from[i] >= '0' && t->from[i] <= '9')
        i++;
    if (i > 1 && t->from[i] == ',') {
        comma = true;
        i++;
        while (t->from[i] >= '0' && t->from[i] <= '9')
            i++;
    }
    if (i == 1 || t->from[i] != '}') {
        refuse_here(t, "is not a count"); // perhaps the pattern ends here: no step on
        return;
    }
    if (t->from[i + 1] == '+' || (t->from[i + 1] == '?' && !comma))
        refuse(t, t->from, (int)i + 2, "means one thing in Ruby and another elsewhere");
    else
        put(t, t->from, i + 1);
    t->from += i + 1;
}

static char *translate(const char *pattern, const char *where) {
    struct Translation t = {.from = pattern, .whole = pattern, .where = where};
    put_text(&t, "");
    while (!t.failed && *t.from) {
        switch (*t.from) {
        case '\\':
            translate_escape(&t, false);
            break;
        case '[':
            translate_class(&t);
            break;
        case '(':
            translate_group(&t);
            break;
        case '{':
            translate_count(&t);
            break;
        case ']':
        case '}':
            put_text(&t, "\\");
            put(&t, t.from++, 1);
            break;
        default:
            put(&t, t.from++, 1);
        }
    }
    if (!t.failed)
        return t.out;
    free(t.out);
    return NULL;
}

// ---- Building ----

static struct Split *add_split(struct Pretokenizer *p, enum SplitKind kind, const char *text,
                               enum SplitBehavior behavior, bool invert, const char *where) {
    size_t bytes = strlen(text);
    if (p->n_splits == SPLIT_MAX) {
        fail("%s: more than %d pre-tokenizer splits", where, SPLIT_MAX);
        return NULL;
    }
    if (bytes == 0 || bytes > PATTERN_MAX || !utf8_valid(text, bytes, NULL)) {
        fail("%s: pre-tokenizer pattern of %zu bytes: 1 to %d bytes of UTF-8 are expected", where, bytes, PATTERN_MAX);
        return NULL;
    }
    p->splits = xrealloc(p->splits, (p->n_splits + 1) * sizeof *p->splits);
    struct Split *s = &p->splits[p->n_splits++];
    *s = (struct Split){
        .kind = kind, .behavior = behavior, .invert = invert, .text = xstrdup(text), .text_bytes = bytes};
    return s;
}

static bool compile(struct Split *s, const char *where) {
    char *translated = translate(s->text, where);
    if (!translated)
        return false;
    int error;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(regex_heap());
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, NESTING_MAX);
    // In Ruby's syntax ^ and $ stand at every line.
    s->code = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                            &error, &offset, context);
    pcre2_compile_context_free(context);
    if (!s->code) {
        char text[160];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        fail("%s: pre-tokenizer pattern '%.80s': %s", where, translated, text);
        free(translated);
        return false;
    }
    free(translated);
    s->match = pcre2_match_data_create_from_pattern(s->code, NULL);
    s->context = pcre2_match_context_create(regex_heap());
    pcre2_set_match_limit(s->context, MATCH_STEPS);
    pcre2_set_heap_limit(s->context, MATCH_HEAP_KIB);
    if (pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE) == 0) { // where there is no JIT the interpreter does the same
        s->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_BYTES, regex_heap());
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    }
    return true;
}

bool pretokenizer_add_regex(struct Pretokenizer *p, const char *pattern, enum SplitBehavior behavior, bool invert,
                            const char *where) {
    // This one alone would try every start of a long run of blanks in vain; it has a matcher of its own.
    bool trailing = strcmp(pattern, PATTERN_TRAILING_SPACE) == 0;
    struct Split *s = add_split(p, trailing ? SPLIT_TRAILING_SPACE : SPLIT_REGEX, pattern, behavior, invert, where);
    return s && (trailing || compile(s, where));
}

bool pretokenizer_add_string(struct Pretokenizer *p, const char *text, enum SplitBehavior behavior, bool invert,
                             const char *where) {
    return add_split(p, SPLIT_STRING, text, behavior, invert, where) != NULL;
}

void pretokenizer_free(struct Pretokenizer *p) {
    for (unsigned i = 0; i < p->n_splits; i++) {
        struct Split *s = &p->splits[i];
        free(s->text);
        pcre2_code_free(s->code);
        pcre2_match_data_free(s->match);
        pcre2_match_context_free(s->context);
        pcre2_jit_stack_free(s->stack);
    }
    free(p->splits);
    *p = (struct Pretokenizer){0};
}

uint64_t pretokenizer_hash(const struct Pretokenizer *p, uint64_t seed) {
    uint64_t hash = seed + p->n_splits * 2 + p->add_prefix_space + p->prefix_step * 64;
    for (unsigned i = 0; i < p->n_splits; i++)
        hash = hash_bytes(p->splits[i].text, p->splits[i].text_bytes,
                          hash * 16 + p->splits[i].behavior * 2 + p->splits[i].invert);
    return hash;
}

// ---- Running ----

struct Run {
    const struct Pretokenizer *p;
    PieceFunction *piece;
    void *context;
};

static bool run_step(const struct Run *run, unsigned step, const char *text, size_t bytes);

// Joins the matches of one split and the gaps between them into pieces: one is held back, the next may join it.
struct Fold {
    const struct Run *run;
    unsigned step;
    const char *text;
    size_t start, end; // the piece held back
    bool held, previous_match;
};

static bool fold_flush(struct Fold *f) {
    bool held = f->held;
    f->held = false;
    return !held || run_step(f->run, f->step + 1, f->text + f->start, f->end - f->start);
}

static bool fold_add(struct Fold *f, size_t start, size_t end, bool match) {
    const struct Split *s = &f->run->p->splits[f->step];
    match ^= s->invert;
    bool joins = false, previous = f->previous_match;
    f->previous_match = match;
    switch (s->behavior) {
    case SPLIT_REMOVED:
        if (match)
            return true;
        break;
    case SPLIT_ISOLATED:
        break;
    case SPLIT_WITH_PREVIOUS:
        joins = match && !previous;
        break;
    case SPLIT_WITH_NEXT:
        joins = !match && previous;
        break;
    case SPLIT_CONTIGUOUS:
        joins = match == previous;
        break;
    }
    if (joins && f->held) {
        f->end = end;
        return true;
    }
    if (!fold_flush(f))
        return false;
    f->start = start;
    f->end = end;
    f->held = true;
    return true;
}

// What lies between two matches, then the match.
static bool fold_match(struct Fold *f, size_t *done, size_t start, size_t end) {
    if (*done < start && !fold_add(f, *done, start, false))
        return false;
    *done = end;
    return fold_add(f, start, end, true);
}

static bool find_regex(const struct Split *s, struct Fold *f, const char *text, size_t bytes, size_t *done) {
    size_t from = 0;
    bool matched_before = false;
    while (from <= bytes) {
        int found = pcre2_match(s->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
        if (found == PCRE2_ERROR_NOMATCH)
            return true;
        if (found < 0)
            return fail("pre-tokenizer pattern '%.80s' needs too many steps on this text (PCRE2 error %d)", s->text,
                        found);
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match);
        size_t start = at[0], end = at[1];
        if (start == end && matched_before && end == *done) { // empty, right behind a match: no match, one character on
            from++;
            while (from < bytes && ((uint8_t)text[from] & 0xc0) == 0x80)
                from++;
            continue;
        }
        if (start < *done || end < start) // a lookbehind with \K or the like cannot get here; never move backwards
            return fail("pre-tokenizer pattern '%.80s' matches backwards", s->text);
        from = end;
        matched_before = true;
        if (!fold_match(f, done, start, end))
            return false;
    }
    return true;
}

static bool find_string(const struct Split *s, struct Fold *f, const char *text, size_t bytes, size_t *done) {
    size_t from = 0;
    const char *at;
    while ((at = memmem(text + from, bytes - from, s->text, s->text_bytes))) {
        size_t start = (size_t)(at - text);
        from = start + s->text_bytes;
        if (!fold_match(f, done, start, from))
            return false;
    }
    return true;
}

// \s+$ : of each run of blanks, all of it at the end of the text, else what stands before its last line feed.
static bool find_trailing_space(struct Fold *f, const char *text, size_t bytes, size_t *done) {
    size_t i = 0;
    while (i < bytes) {
        size_t start = i, line_feed = SIZE_MAX;
        uint32_t c = 0;
        unsigned n = 0;
        while (i < bytes && (n = utf8_char(text + i, bytes - i, &c)) && unicode_is_white(c)) {
            if (c == '\n')
                line_feed = i;
            i += n;
        }
        size_t end = i == bytes ? bytes : line_feed;
        if (i > start && end != SIZE_MAX && end > start && !fold_match(f, done, start, end))
            return false;
        if (i < bytes)
            i += n ? n : 1;
    }
    return true;
}

static bool run_step(const struct Run *run, unsigned step, const char *text, size_t bytes) {
    const struct Pretokenizer *p = run->p;
    if (bytes == 0)
        return true;
    char *prefixed = NULL;
    if (p->add_prefix_space && step == p->prefix_step && text[0] != ' ') {
        prefixed = xmalloc(bytes + 1);
        prefixed[0] = ' ';
        memcpy(prefixed + 1, text, bytes);
        text = prefixed;
        bytes++;
    }
    bool ok;
    if (step == p->n_splits) {
        ok = run->piece(run->context, text, bytes);
    } else {
        const struct Split *s = &p->splits[step];
        struct Fold fold = {.run = run, .step = step, .text = text};
        size_t done = 0;
        ok = s->kind == SPLIT_REGEX    ? find_regex(s, &fold, text, bytes, &done)
             : s->kind == SPLIT_STRING ? find_string(s, &fold, text, bytes, &done)
                                       : find_trailing_space(&fold, text, bytes, &done);
        ok = ok && (done == bytes || fold_add(&fold, done, bytes, false)) && fold_flush(&fold);
    }
    free(prefixed);
    return ok;
}

bool pretokenizer_run(const struct Pretokenizer *p, const char *text, size_t bytes, PieceFunction *piece,
                      void *context) {
    struct Run run = {p, piece, context};
    return run_step(&run, 0, text, bytes);
}
