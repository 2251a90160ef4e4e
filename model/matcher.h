// Which tokens a grammar allows next. What may follow is a set of stacks of places in the grammar, and such sets are made into the states of
// an automaton as they are met, with a table from byte to state, so that walking the whole vocabulary (a tree of its tokens' bytes) is a few
// look-ups a token, and a state's mask is made once. The automaton is shared by all sequences; each has a Matcher, its place in it.
#pragma once
#include "model/grammar.h"

struct Tokenizer;
struct Matching;

struct Matcher {
    struct Matching *m;
    uint32_t state;
    struct Matcher *next; // of the same automaton
};

// `stops` are the tokens that end a text: allowed where it may end. t may be NULL (n_vocab 0): only bytes are matched. The grammar and the
// tokenizer must outlive it.
struct Matching *matching_open(const struct Grammar *g, const struct Tokenizer *t, uint32_t n_vocab,
                               const uint32_t *stops, uint32_t n_stops);
void matching_close(struct Matching *m);

void matcher_begin(struct Matcher *x, struct Matching *m);
void matcher_end(struct Matcher *x);
// Goes on by bytes, which may end within a character. False: they do not fit, or (after one line) there are too many ways to read them; the
// place is then unchanged.
bool matcher_accept(struct Matcher *x, const char *bytes, size_t n);
bool matcher_may_end(const struct Matcher *x);  // the text is whole
bool matcher_must_end(const struct Matcher *x); // and nothing can follow
uint32_t matcher_rest(const struct Matcher *x); // fewest bytes to a whole text; for tests
// A bit per token of those that may follow, lowest bit of a word first, in ceil(n_vocab / 32) words. Where a whole text is within `left` more
// tokens (reckoned as one byte each), only tokens that leave it so are allowed: an answer of at most so many tokens is then never
// cut off. False after one line: no token fits.
bool matcher_mask(struct Matcher *x, uint32_t left, uint32_t *mask);
