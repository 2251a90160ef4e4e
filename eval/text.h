// Text that grows, and the one pattern language of the room (PCRE2, with limits on its steps).
#pragma once
#include "runtime/base.h"

struct Text {
    char *text; // a 0 byte follows; NULL while nothing was added
    size_t bytes, room;
};
void text_add(struct Text *t, const char *more, size_t bytes);
void text_add_string(struct Text *t, const char *more);
char *text_take(struct Text *t); // malloc'ed, "" where nothing was added; *t is empty again
void text_free(struct Text *t);

// Copies without white space (ASCII) at both ends; malloc'ed.
char *text_strip(const char *text, size_t bytes);
char *text_lower(const char *text); // of ASCII letters
bool text_has_prefix(const char *text, const char *prefix);
// Characters of a text that is UTF-8.
size_t text_characters(const char *text);

struct Pattern;
// NULL after a message that begins with `where`.
struct Pattern *pattern_open(const char *regex, const char *where);
void pattern_close(struct Pattern *p);
// First match at or behind `from`: the whole of it, and the first group that took part (the whole where there is none). False: no match, or more
// steps than are allowed.
struct PatternMatch {
    size_t from, to, group_from, group_to;
};
bool pattern_find(struct Pattern *p, const char *text, size_t bytes, size_t from, struct PatternMatch *m);
// Every match becomes `with`; malloc'ed.
char *pattern_replace(struct Pattern *p, const char *text, const char *with);
