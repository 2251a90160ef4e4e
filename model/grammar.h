// A grammar in GBNF, the notation of llama.cpp's users: rules `name ::= alternatives`, literals "...", classes [a-z] and [^...], any
// character `.`, groups, and the repetitions * + ? {m} {m,} {m,n}; # begins a comment. The text is described from the rule `root`. What is
// wrong is told with line and column; a rule that begins with itself is refused, one that never ends is not followed.
#pragma once
#include "runtime/base.h"

enum {
    GRAMMAR_MAX_BYTES = 1 << 20,
    GRAMMAR_MAX_RULES = 8192, // those that repetitions and groups make included
    GRAMMAR_MAX_ELEMENTS = 1 << 16,
    GRAMMAR_MAX_NESTING = 64, // groups in groups
    GRAMMAR_MAX_REPEAT = 1000,
    GRAMMAR_NEVER = 1 << 30, // bytes to the end of what never ends
};

enum ElementKind { ELEMENT_END, ELEMENT_CLASS, ELEMENT_RULE };
struct Element {
    enum ElementKind kind;
    uint32_t value; // class or rule
    uint32_t rest;  // fewest bytes from here to the end of the alternative
};
struct CharRange {
    uint32_t low, high; // code points, both included
};
struct CharClass {
    uint32_t first, n; // of ranges, ascending and apart
    uint32_t ascii[4]; // bits of the code points below 128
};
struct Rule {
    char *name; // NULL: made by a group or a repetition
    uint32_t line, column;
    bool defined;
    uint32_t first, n; // of alternatives
    uint32_t bytes;    // fewest bytes of its texts; 0: the empty one is among them
};

struct Grammar {
    struct Element *elements;
    uint32_t n_elements;
    uint32_t *alternatives; // first element of each
    uint32_t n_alternatives;
    struct Rule *rules;
    uint32_t n_rules;
    struct CharClass *classes;
    uint32_t n_classes;
    struct CharRange *ranges;
    uint32_t n_ranges;
    uint32_t root;
};

extern const char GRAMMAR_JSON[]; // a JSON object (RFC 8259) whose white space and numbers are short

bool grammar_parse(struct Grammar *g, const char *text, size_t bytes, const char *where);
void grammar_free(struct Grammar *g);
// Whether the class has a code point within low .. high.
bool class_meets(const struct Grammar *g, uint32_t class, uint32_t low, uint32_t high);
