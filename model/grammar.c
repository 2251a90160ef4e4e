// A parser by recursive descent with a limit of nesting. Groups and repetitions become rules of their own, so that there are three kinds of
// elements in the end; then one fixpoint finds the shortest text of each rule, which tells what can be empty and what never ends.
#include "model/grammar.h"
#include "model/utf8.h"
#include <stdlib.h>
#include <string.h>

const char GRAMMAR_JSON[] =
    "root ::= object\n"
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws ( member ( \",\" ws member )* )? \"}\"\n"
    "member ::= string \":\" ws value ws\n"
    "array ::= \"[\" ws ( value ws ( \",\" ws value ws )* )? \"]\"\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x00-\\x1F] | \"\\\\\" ( [\"\\\\/bfnrt] | unicode ) )* \"\\\"\"\n"
    // Surrogates in pairs alone: others are syntax too, but not text.
    "unicode ::= \"u\" ( [0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2} | [dD] [89abAB] hex{2} \"\\\\u\" [dD] [c-fC-F] "
    "hex{2} )\n"
    "hex ::= [0-9a-fA-F]\n"
    "number ::= \"-\"? ( \"0\" | [1-9] [0-9]{0,15} ) ( \".\" [0-9]{1,16} )? ( [eE] [-+]? [0-9]{1,2} )?\n"
    "ws ::= ( \" \" | \"\\n\" [ \\t]{0,20} )?\n";

enum { NONE = 0xffffffff, LAST_CODE_POINT = 0x10ffff };

struct Items {
    struct Element *list;
    uint32_t n;
};

struct Parser {
    struct Grammar *g;
    const char *where, *text;
    size_t at, bytes;
    size_t line_start;
    uint32_t line;
    uint32_t single[128]; // class of one ASCII character; NONE: not made yet
};

static uint32_t column_of(const struct Parser *p, size_t at) {
    uint32_t column = 1;
    for (size_t i = p->line_start; i < at; i++)
        column += ((unsigned char)p->text[i] & 0xc0) != 0x80; // characters, not bytes
    return column;
}

// What stands at the cursor, for a message.
static const char *found(const struct Parser *p, char out[16]) {
    uint32_t code;
    unsigned n = p->at < p->bytes ? utf8_char(p->text + p->at, p->bytes - p->at, &code) : 0;
    unsigned char c = p->at < p->bytes ? (unsigned char)p->text[p->at] : 0;
    if (p->at >= p->bytes)
        snprintf(out, 16, "the end");
    else if (c == '\n')
        snprintf(out, 16, "the line's end");
    else if (c < 32 || c == 127 || n == 0)
        snprintf(out, 16, "byte 0x%02x", c);
    else
        snprintf(out, 16, "'%.*s'", (int)n, p->text + p->at);
    return out;
}

static bool wrong(const struct Parser *p, const char *expected) {
    char what[16];
    return fail("%s:%u:%u: expected %s, found %s", p->where, p->line, column_of(p, p->at), expected, found(p, what));
}
static bool wrong_at(const struct Parser *p, size_t at, const char *what) {
    return fail("%s:%u:%u: %s", p->where, p->line, column_of(p, at), what);
}

static int peek(const struct Parser *p) { return p->at < p->bytes ? (unsigned char)p->text[p->at] : -1; }

static void skip_space(struct Parser *p, bool lines) {
    for (int c; (c = peek(p)) >= 0; p->at++) {
        if (c == '#') {
            while (peek(p) >= 0 && peek(p) != '\n')
                p->at++;
            c = peek(p);
        }
        if (c == '\n' && lines) {
            p->line++;
            p->line_start = p->at + 1;
        } else if (c != ' ' && c != '\t' && c != '\r') {
            break;
        }
    }
}

// ---- Building

// Room for one more, doubling at powers of two.
static void *grow(void *list, uint32_t n, size_t size) {
    return n == 0 || (n & (n - 1)) != 0 ? n == 0 ? xrealloc(list, size) : list : xrealloc(list, (size_t)n * 2 * size);
}
#define PUSH(list, n, ...) ((list) = grow((list), (n), sizeof *(list)), (list)[(n)++] = (__VA_ARGS__))

static bool add_item(struct Parser *p, struct Items *items, enum ElementKind kind, uint32_t value) {
    if (items->n + p->g->n_elements >= GRAMMAR_MAX_ELEMENTS)
        return fail("%s:%u: the grammar is too large: more than %u elements", p->where, p->line,
                    (unsigned)GRAMMAR_MAX_ELEMENTS);
    PUSH(items->list, items->n, (struct Element){kind, value, 0});
    return true;
}

static bool add_rule(struct Parser *p, const char *name, size_t length, uint32_t *rule) {
    struct Grammar *g = p->g;
    if (g->n_rules >= GRAMMAR_MAX_RULES)
        return fail("%s:%u: the grammar is too large: more than %u rules, those of groups and repetitions included",
                    p->where, p->line, (unsigned)GRAMMAR_MAX_RULES);
    *rule = g->n_rules;
    PUSH(g->rules, g->n_rules,
         (struct Rule){.name = name ? xsprintf("%.*s", (int)length, name) : NULL,
                       .line = p->line,
                       .column = column_of(p, p->at),
                       .defined = !name});
    return true;
}

// The elements of an alternative lie together, so they are copied when it is whole.
static bool add_alternative(struct Parser *p, const struct Items *items) {
    struct Grammar *g = p->g;
    if (items->n + 1 + g->n_elements > GRAMMAR_MAX_ELEMENTS)
        return fail("%s:%u: the grammar is too large: more than %u elements", p->where, p->line,
                    (unsigned)GRAMMAR_MAX_ELEMENTS);
    PUSH(g->alternatives, g->n_alternatives, g->n_elements);
    for (uint32_t i = 0; i < items->n; i++)
        PUSH(g->elements, g->n_elements, items->list[i]);
    PUSH(g->elements, g->n_elements, (struct Element){ELEMENT_END, 0, 0});
    return true;
}

// A rule `x` or `x next | `, the empty text being the second alternative where `optional`.
static bool make_rule(struct Parser *p, const struct Items *x, uint32_t next, bool optional, uint32_t rule) {
    struct Items items = {0};
    bool ok = true;
    p->g->rules[rule].first = p->g->n_alternatives;
    p->g->rules[rule].n = optional ? 2 : 1;
    for (uint32_t i = 0; ok && i < x->n; i++)
        ok = add_item(p, &items, x->list[i].kind, x->list[i].value);
    if (ok && next != NONE)
        ok = add_item(p, &items, ELEMENT_RULE, next);
    ok = ok && add_alternative(p, &items);
    items.n = 0;
    ok = ok && (!optional || add_alternative(p, &items));
    free(items.list);
    return ok;
}

static int by_low(const void *a, const void *b) {
    const struct CharRange *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

static uint32_t add_class(struct Parser *p, struct CharRange *list, uint32_t n, bool negated) {
    struct Grammar *g = p->g;
    struct CharClass c = {.first = g->n_ranges};
    if (n > 1)
        qsort(list, n, sizeof *list, by_low);
    uint32_t next = 0; // the first code point that is not settled yet
    for (uint32_t i = 0; i < n; i++) {
        if (negated && list[i].low > next)
            PUSH(g->ranges, g->n_ranges, (struct CharRange){next, list[i].low - 1});
        else if (!negated && i > 0 && list[i].low <= next)
            g->ranges[g->n_ranges - 1].high = (uint32_t)max_u64(g->ranges[g->n_ranges - 1].high, list[i].high);
        else if (!negated)
            PUSH(g->ranges, g->n_ranges, list[i]);
        next = (uint32_t)max_u64(next, list[i].high + 1);
    }
    if (negated && next <= LAST_CODE_POINT)
        PUSH(g->ranges, g->n_ranges, (struct CharRange){next, LAST_CODE_POINT});
    c.n = g->n_ranges - c.first;
    for (uint32_t i = c.first; i < g->n_ranges; i++)
        for (uint32_t x = g->ranges[i].low; x <= g->ranges[i].high && x < 128; x++)
            c.ascii[x / 32] |= 1u << x % 32;
    PUSH(g->classes, g->n_classes, c);
    return g->n_classes - 1;
}

static uint32_t class_of_one(struct Parser *p, uint32_t code) {
    if (code < 128 && p->single[code] != NONE)
        return p->single[code];
    struct CharRange range = {code, code};
    uint32_t class = add_class(p, &range, 1, false);
    if (code < 128)
        p->single[code] = class;
    return class;
}

// ---- Parsing

static bool is_name(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool parse_hex(struct Parser *p, unsigned digits, uint32_t *code) {
    *code = 0;
    for (unsigned i = 0; i < digits; i++, p->at++) {
        int c = peek(p), d = c >= '0' && c <= '9'   ? c - '0'
                             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                    : -1;
        if (d < 0)
            return wrong(p, "a hexadecimal digit");
        *code = *code << 4 | (uint32_t)d;
    }
    return (*code <= LAST_CODE_POINT && (*code < 0xd800 || *code > 0xdfff)) ||
           wrong_at(p, p->at - digits, "this is no character of Unicode");
}

// One character of a literal or a class, which ends with `closing`.
static bool parse_char(struct Parser *p, uint32_t *code) {
    static const char NAMES[] = "nrt\\\"[]-^/", VALUES[] = "\n\r\t\\\"[]-^/";
    if (peek(p) < 0 || peek(p) == '\n')
        return wrong(p, "a character");
    if (peek(p) != '\\') {
        unsigned n = utf8_char(p->text + p->at, p->bytes - p->at, code);
        p->at += n;
        return n > 0 || wrong(p, "UTF-8");
    }
    p->at++;
    int c = peek(p);
    const char *name = c > 0 ? strchr(NAMES, c) : NULL;
    if (c == 'x' || c == 'u' || c == 'U') {
        p->at++;
        return parse_hex(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, code);
    }
    if (!name)
        return wrong(p, "one of n r t \\ \" [ ] - ^ / x u U behind a backslash");
    *code = (unsigned char)VALUES[name - NAMES];
    p->at++;
    return true;
}

static bool parse_literal(struct Parser *p, struct Items *items) {
    uint32_t code;
    for (p->at++; peek(p) != '"';) {
        if (peek(p) < 0 || peek(p) == '\n')
            return wrong(p, "the literal's closing quote");
        if (!parse_char(p, &code) || !add_item(p, items, ELEMENT_CLASS, class_of_one(p, code)))
            return false;
    }
    p->at++;
    return true;
}

static bool parse_class(struct Parser *p, struct Items *items) {
    struct CharRange *list = NULL;
    uint32_t n = 0, class = 0;
    size_t begin = p->at++;
    bool negated = peek(p) == '^', ok = true;
    if (negated)
        p->at++;
    while (ok && peek(p) != ']') {
        struct CharRange r;
        if (peek(p) < 0 || peek(p) == '\n') {
            ok = wrong(p, "']' at the end of the class");
            break;
        }
        size_t at = p->at;
        ok = parse_char(p, &r.low);
        r.high = r.low;
        if (ok && peek(p) == '-' && p->at + 1 < p->bytes && p->text[p->at + 1] != ']') {
            p->at++;
            ok = parse_char(p, &r.high);
            if (ok && r.high < r.low)
                ok = wrong_at(p, at, "this range ends before it begins");
        }
        if (ok && n >= GRAMMAR_MAX_ELEMENTS)
            ok = wrong_at(p, at, "this class is too long");
        if (ok)
            PUSH(list, n, r);
    }
    if (ok) {
        p->at++;
        class = add_class(p, list, n, negated);
        ok = p->g->classes[class].n > 0 || wrong_at(p, begin, "no character is in this class");
    }
    free(list);
    return ok && add_item(p, items, ELEMENT_CLASS, class);
}

static uint32_t find_rule(const struct Grammar *g, const char *name, size_t length) {
    for (uint32_t i = 0; i < g->n_rules; i++)
        if (g->rules[i].name && strlen(g->rules[i].name) == length && memcmp(g->rules[i].name, name, length) == 0)
            return i;
    return NONE;
}

static bool parse_name(struct Parser *p, uint32_t *rule) {
    const char *name = p->text + p->at;
    size_t length = 0;
    while (p->at + length < p->bytes && is_name((unsigned char)name[length]))
        length++;
    if (length > 200)
        return wrong_at(p, p->at, "this name is too long");
    *rule = find_rule(p->g, name, length);
    if (*rule == NONE && !add_rule(p, name, length, rule))
        return false;
    p->at += length;
    return true;
}

static bool parse_number(struct Parser *p, uint32_t *n) {
    size_t begin = p->at;
    for (*n = 0; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        *n = *n * 10 + (uint32_t)(peek(p) - '0');
        if (*n > GRAMMAR_MAX_REPEAT)
            return fail("%s:%u:%u: at most %u repetitions are possible", p->where, p->line, column_of(p, begin),
                        (unsigned)GRAMMAR_MAX_REPEAT);
    }
    return p->at > begin || wrong(p, "a number");
}

// {m}, {m,} or {m,n}; *most is NONE without an upper limit.
static bool parse_counts(struct Parser *p, uint32_t *least, uint32_t *most) {
    size_t begin = p->at++;
    skip_space(p, false);
    if (!parse_number(p, least))
        return false;
    *most = *least;
    skip_space(p, false);
    if (peek(p) == ',') {
        p->at++;
        skip_space(p, false);
        *most = NONE;
        if (peek(p) != '}' && !parse_number(p, most))
            return false;
        skip_space(p, false);
    }
    if (peek(p) != '}')
        return wrong(p, "'}'");
    p->at++;
    return *most >= *least || wrong_at(p, begin, "the most repetitions are fewer than the least");
}

// Replaces the items from `first` on by least .. most of them.
static bool repeat(struct Parser *p, struct Items *items, uint32_t first, uint32_t least, uint32_t most) {
    if (items->n == first) // the empty text however often
        return true;
    struct Items x = {items->list + first, items->n - first};
    struct Element one = x.list[0];
    uint32_t rule, next = NONE;
    if (x.n > 1) {
        if (!add_rule(p, NULL, 0, &rule) || !make_rule(p, &x, NONE, false, rule))
            return false;
        one = (struct Element){ELEMENT_RULE, rule, 0};
    }
    items->n = first;
    x = (struct Items){&one, 1};
    if (most == NONE) {
        if (!add_rule(p, NULL, 0, &next) || !make_rule(p, &x, next, true, next))
            return false;
    } else {
        for (uint32_t i = least; i < most; i++, next = rule)
            if (!add_rule(p, NULL, 0, &rule) || !make_rule(p, &x, next, true, rule))
                return false;
    }
    for (uint32_t i = 0; i < least; i++)
        if (!add_item(p, items, one.kind, one.value))
            return false;
    return next == NONE || add_item(p, items, ELEMENT_RULE, next);
}

static bool parse_alternatives(struct Parser *p, uint32_t rule, unsigned nesting);

static bool parse_group(struct Parser *p, struct Items *items, unsigned nesting) {
    uint32_t rule;
    if (nesting >= GRAMMAR_MAX_NESTING)
        return fail("%s:%u:%u: more than %u groups inside each other", p->where, p->line, column_of(p, p->at),
                    (unsigned)GRAMMAR_MAX_NESTING);
    if (!add_rule(p, NULL, 0, &rule))
        return false;
    p->at++;
    if (!parse_alternatives(p, rule, nesting + 1))
        return false;
    if (peek(p) != ')')
        return wrong(p, "')'");
    p->at++;
    return add_item(p, items, ELEMENT_RULE, rule);
}

// Whether the next line goes on with this rule: it begins with a bar.
static bool goes_on(struct Parser *p) {
    struct Parser ahead = *p;
    skip_space(&ahead, true);
    if (peek(&ahead) != '|')
        return false;
    *p = ahead;
    return true;
}

static bool parse_sequence(struct Parser *p, struct Items *items, unsigned nesting) {
    static const struct CharRange ANY = {0, LAST_CODE_POINT};
    for (uint32_t first = 0;;) {
        uint32_t before = items->n, least = 0, most = NONE;
        skip_space(p, nesting > 0);
        int c = peek(p);
        bool ok;
        if (c == '"') {
            ok = parse_literal(p, items);
        } else if (c == '[') {
            ok = parse_class(p, items);
        } else if (c == '.') {
            struct CharRange any = ANY;
            p->at++;
            ok = add_item(p, items, ELEMENT_CLASS, add_class(p, &any, 1, false));
        } else if (c == '(') {
            ok = parse_group(p, items, nesting);
        } else if (is_name(c)) {
            uint32_t rule;
            ok = parse_name(p, &rule) && add_item(p, items, ELEMENT_RULE, rule);
        } else if (c == '<' || c == '!') {
            ok = wrong_at(p, p->at, "tokens in a grammar (<name>, <[number]>) are not known here: characters are");
        } else {
            return true;
        }
        if (!ok)
            return false;
        first = before;
        skip_space(p, false);
        c = peek(p);
        if (c == '*' || c == '+' || c == '?') {
            p->at++;
            least = c == '+', most = c == '?' ? 1 : NONE;
        } else if (c != '{') {
            continue;
        } else if (!parse_counts(p, &least, &most)) {
            return false;
        }
        if (!repeat(p, items, first, least, most))
            return false;
    }
}

static bool parse_alternatives(struct Parser *p, uint32_t rule, unsigned nesting) {
    // Groups inside add their own alternatives, so these are kept apart until all are there.
    struct Items *list = NULL;
    uint32_t n = 0;
    bool ok = true, more = true;
    skip_space(p, true);
    while (ok && more) {
        struct Items items = {0};
        ok = parse_sequence(p, &items, nesting);
        PUSH(list, n, items);
        more = ok && (peek(p) == '|' || (nesting == 0 && goes_on(p)));
        if (more) {
            p->at++;
            skip_space(p, true);
        }
    }
    p->g->rules[rule].first = p->g->n_alternatives;
    p->g->rules[rule].n = n;
    for (uint32_t i = 0; i < n; i++) {
        ok = ok && add_alternative(p, &list[i]);
        free(list[i].list);
    }
    free(list);
    return ok;
}

static bool parse_rule(struct Parser *p) {
    uint32_t rule;
    size_t at = p->at;
    if (!is_name(peek(p)))
        return wrong(p, "the name of a rule");
    if (!parse_name(p, &rule))
        return false;
    skip_space(p, false);
    if (p->bytes - p->at < 3 || memcmp(p->text + p->at, "::=", 3) != 0)
        return wrong(p, "::= behind the rule's name");
    if (p->g->rules[rule].defined)
        return fail("%s:%u:%u: the rule %s is defined twice", p->where, p->line, column_of(p, at),
                    p->g->rules[rule].name);
    p->at += 3;
    p->g->rules[rule].defined = true;
    if (!parse_alternatives(p, rule, 0))
        return false;
    return p->at >= p->bytes || peek(p) == '\n' || wrong(p, "a literal, a class, a name, '(', a repetition or '|'");
}

// ---- Checks

// Shortest texts of all rules; the longest chain of rules that need each other decides how many rounds it takes.
static void measure(struct Grammar *g) {
    for (uint32_t i = 0; i < g->n_rules; i++)
        g->rules[i].bytes = GRAMMAR_NEVER;
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t r = g->n_rules; r-- > 0;) { // those that a rule needs were mostly met after it
            for (uint32_t a = g->rules[r].first; a < g->rules[r].first + g->rules[r].n; a++) {
                uint64_t bytes = 0;
                for (const struct Element *e = g->elements + g->alternatives[a]; e->kind != ELEMENT_END; e++) {
                    uint32_t low = e->kind == ELEMENT_CLASS ? g->ranges[g->classes[e->value].first].low : 0;
                    bytes += e->kind == ELEMENT_RULE ? g->rules[e->value].bytes
                             : low < 0x80            ? 1
                             : low < 0x800           ? 2
                             : low < 0x10000         ? 3
                                                     : 4;
                }
                if (bytes < g->rules[r].bytes) {
                    g->rules[r].bytes = (uint32_t)bytes;
                    changed = true;
                }
            }
        }
    }
    for (uint32_t i = g->n_elements; i-- > 0;) {
        struct Element *e = &g->elements[i];
        uint64_t rest = e->kind == ELEMENT_END ? 0 : e[1].rest;
        if (e->kind == ELEMENT_RULE)
            rest += g->rules[e->value].bytes;
        if (e->kind == ELEMENT_CLASS) {
            uint32_t low = g->ranges[g->classes[e->value].first].low;
            rest += low < 0x80 ? 1 : low < 0x800 ? 2 : low < 0x10000 ? 3 : 4;
        }
        e->rest = (uint32_t)min_u64(rest, GRAMMAR_NEVER);
    }
}

// Rules that can begin with each other are found as the components of that graph (Tarjan 1972, with a stack of its own). Where a rule of a
// component is followed by something inside the component, it would grow without reading anything; at an alternative's end it does not.
struct Component {
    uint32_t order, low, next_element, next_alternative, name;
    bool open;
};

static bool check_left_recursion(const struct Grammar *g, const char *where) {
    struct Component *c = xcalloc(g->n_rules, sizeof *c);
    uint32_t *path = xmalloc(g->n_rules * sizeof *path), *open = xmalloc(g->n_rules * sizeof *open);
    uint32_t order = 0, n_open = 0, names = 0;
    for (uint32_t start = 0; start < g->n_rules; start++) {
        uint32_t n_path = 0;
        if (c[start].order == 0)
            path[n_path++] = start;
        while (n_path > 0) {
            uint32_t r = path[n_path - 1], child = NONE;
            const struct Rule *rule = &g->rules[r];
            if (c[r].order == 0) {
                c[r].order = c[r].low = ++order;
                c[r].open = true;
                open[n_open++] = r;
                c[r].next_element = rule->n ? g->alternatives[rule->first] : 0;
            }
            while (child == NONE && c[r].next_alternative < rule->n) {
                const struct Element *e = &g->elements[c[r].next_element];
                bool rule_there = e->kind == ELEMENT_RULE;
                if (rule_there && c[e->value].order == 0)
                    child = e->value;
                else if (rule_there && c[e->value].open)
                    c[r].low = (uint32_t)min_u64(c[r].low, c[e->value].low);
                if (child != NONE)
                    break;
                if (rule_there && g->rules[e->value].bytes == 0)
                    c[r].next_element++; // it may be empty: what follows can begin too
                else if (++c[r].next_alternative < rule->n)
                    c[r].next_element = g->alternatives[rule->first + c[r].next_alternative];
            }
            if (child != NONE) {
                path[n_path++] = child;
                continue;
            }
            if (c[r].low == c[r].order) {
                uint32_t member;
                names++;
                do {
                    member = open[--n_open];
                    c[member].open = false;
                    c[member].name = names;
                } while (member != r);
            }
            n_path--;
        }
    }
    bool ok = true;
    for (uint32_t r = 0; ok && r < g->n_rules; r++)
        for (uint32_t a = g->rules[r].first; ok && a < g->rules[r].first + g->rules[r].n; a++)
            for (const struct Element *e = g->elements + g->alternatives[a]; ok && e->kind == ELEMENT_RULE; e++) {
                if (c[e->value].name == c[r].name && e[1].kind != ELEMENT_END) {
                    const struct Rule *named = &g->rules[g->rules[r].name ? r : e->value];
                    ok = fail("%s:%u:%u: left recursion: %s%s can begin with itself", where, named->line, named->column,
                              named->name ? "the rule " : "a group or repetition", named->name ? named->name : "");
                }
                if (g->rules[e->value].bytes > 0)
                    break;
            }
    free(c), free(path), free(open);
    return ok;
}

static bool check(struct Grammar *g, const char *where) {
    g->root = find_rule(g, "root", 4);
    if (g->root == NONE)
        return fail("%s: there is no rule 'root' in the grammar: it is where a text begins", where);
    for (uint32_t i = 0; i < g->n_rules; i++)
        if (!g->rules[i].defined)
            return fail("%s:%u:%u: the rule %s is not defined", where, g->rules[i].line, g->rules[i].column,
                        g->rules[i].name);
    measure(g);
    if (g->rules[g->root].bytes >= GRAMMAR_NEVER)
        return fail("%s:%u:%u: no text can meet this grammar: root never ends, or not within 1 GiB", where,
                    g->rules[g->root].line, g->rules[g->root].column);
    return check_left_recursion(g, where);
}

bool grammar_parse(struct Grammar *g, const char *text, size_t bytes, const char *where) {
    memset(g, 0, sizeof *g);
    if (bytes > GRAMMAR_MAX_BYTES)
        return fail("%s: a grammar of %zu bytes: %u are possible", where, bytes, (unsigned)GRAMMAR_MAX_BYTES);
    struct Parser p = {.g = g, .where = where, .text = text, .bytes = bytes, .line = 1};
    memset(p.single, 0xff, sizeof p.single);
    bool ok = true;
    for (skip_space(&p, true); ok && p.at < bytes; skip_space(&p, true))
        ok = parse_rule(&p);
    ok = ok && check(g, where);
    if (!ok)
        grammar_free(g);
    return ok;
}

void grammar_free(struct Grammar *g) {
    for (uint32_t i = 0; i < g->n_rules; i++)
        free(g->rules[i].name);
    free(g->elements);
    free(g->alternatives);
    free(g->rules);
    free(g->classes);
    free(g->ranges);
    memset(g, 0, sizeof *g);
}

bool class_meets(const struct Grammar *g, uint32_t class, uint32_t low, uint32_t high) {
    const struct CharClass *c = &g->classes[class];
    if (low == high && low < 128)
        return c->ascii[low / 32] >> low % 32 & 1;
    uint32_t first = c->first, end = c->first + c->n; // the first range that does not end before low
    while (first < end) {
        uint32_t middle = first + (end - first) / 2;
        if (g->ranges[middle].high < low)
            first = middle + 1;
        else
            end = middle;
    }
    return first < c->first + c->n && g->ranges[first].low <= high;
}
