// How the tokens of one sequence are drawn, and what that has to remember from token to token: those seen lately, mirostat's bound, the
// place in a grammar. The device does the drawing; before each pass the session is told what it draws from. The order: grammar (what it
// refuses has no probability from the first on, so that what is drawn is the rest's distribution renormalised, exactly), penalties, then
// the filters of op_sample.
#pragma once
#include "model/matcher.h"
#include "model/session.h"

enum { SAMPLER_MAX_WINDOW = 8192 };

struct SamplerSettings {
    struct SampleParams params; // index and mu are where a text begins
    struct Penalty penalty;
    uint32_t window; // so many last tokens, the prompt's included, are what penalties look at; 0: no penalties
};

struct Sampler {
    struct SamplerSettings set;
    struct SampleParams params; // for the next token
    uint32_t *seen, n_seen;     // at most `window`, the last ones
    struct Matcher matcher;     // m NULL: no grammar
};

bool sampler_penalises(const struct SamplerSettings *set);
// What a session must be made for.
void sampler_options(const struct SamplerSettings *set, bool grammar, struct SessionOptions *o);

// A text begins; its random numbers are those of `stream`. m NULL: no grammar.
void sampler_begin(struct Sampler *x, const struct SamplerSettings *set, uint32_t stream, struct Matching *m);
void sampler_end(struct Sampler *x);
void sampler_see(struct Sampler *x, const uint32_t *ids, uint32_t n); // tokens of the prompt
// Before a pass that samples row `row`, of a text that may have `left` more tokens.
bool sampler_prepare(struct Sampler *x, struct Session *s, uint32_t row, uint32_t left);
// After it: the token was drawn. With a grammar its text moves on (a token that ends the text must not be taken).
bool sampler_take(struct Sampler *x, struct Session *s, uint32_t row, const struct Tokenizer *t, uint32_t id);
// With a grammar: nothing can follow.
bool sampler_must_end(const struct Sampler *x);
