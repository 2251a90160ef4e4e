// See sampler.h.
#include "model/sampler.h"
#include "model/tokenizer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool sampler_penalises(const struct SamplerSettings *set) {
    const struct Penalty *p = &set->penalty;
    return set->window > 0 && (p->repeat != 1 || p->presence != 0 || p->frequency != 0);
}

static bool is_mirostat(const struct SampleParams *p) { return p->tau > 0; }

void sampler_options(const struct SamplerSettings *set, bool grammar, struct SessionOptions *o) {
    o->window = sampler_penalises(set) ? set->window : 0;
    o->masked = grammar;
    o->chances = is_mirostat(&set->params);
}

void sampler_begin(struct Sampler *x, const struct SamplerSettings *set, uint32_t stream, struct Matching *m) {
    *x = (struct Sampler){.set = *set, .params = set->params};
    x->params.stream = stream;
    if (sampler_penalises(set))
        x->seen = xcalloc(set->window, sizeof *x->seen);
    if (m)
        matcher_begin(&x->matcher, m);
}

void sampler_end(struct Sampler *x) {
    matcher_end(&x->matcher);
    free(x->seen);
    x->seen = NULL;
}

void sampler_see(struct Sampler *x, const uint32_t *ids, uint32_t n) {
    uint32_t window = x->set.window;
    if (!x->seen)
        return;
    if (n > window)
        ids += n - window, n = window;
    uint32_t kept = (uint32_t)min_u64(x->n_seen, window - n);
    memmove(x->seen, x->seen + x->n_seen - kept, kept * sizeof *x->seen);
    if (n)
        memcpy(x->seen + kept, ids, n * sizeof *ids);
    x->n_seen = kept + n;
}

static int by_id(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void penalise(const struct Sampler *x, struct Session *s, uint32_t row) {
    uint32_t *ids = xmalloc((x->n_seen + 1) * sizeof *ids), *counts = xcalloc(x->n_seen + 1, sizeof *counts), n = 0;
    memcpy(ids, x->seen, x->n_seen * sizeof *ids);
    qsort(ids, x->n_seen, sizeof *ids, by_id);
    for (uint32_t i = 0; i < x->n_seen; i++) {
        if (n == 0 || ids[n - 1] != ids[i])
            ids[n++] = ids[i];
        counts[n - 1]++;
    }
    session_penalise(s, row, &x->set.penalty, n, ids, counts);
    free(ids), free(counts);
}

bool sampler_prepare(struct Sampler *x, struct Session *s, uint32_t row, uint32_t left) {
    if (x->seen)
        penalise(x, s, row);
    if (!x->matcher.m)
        return true;
    uint32_t *mask = session_mask(s, row);
    return mask && matcher_mask(&x->matcher, left, mask);
}

bool sampler_take(struct Sampler *x, struct Session *s, uint32_t row, const struct Tokenizer *t, uint32_t id) {
    if (is_mirostat(&x->params)) {
        float surprise = -session_chance(s, row) / (float)M_LN2;
        x->params.mu -= x->params.eta * (surprise - x->params.tau);
    }
    x->params.index++;
    sampler_see(x, &id, 1);
    if (!x->matcher.m)
        return true;
    size_t bytes = tokenizer_piece(t, id, NULL, 0);
    char *text = xmalloc(bytes + 1);
    tokenizer_piece(t, id, text, bytes);
    bool ok = matcher_accept(&x->matcher, text, bytes);
    free(text);
    return ok || fail("token %u was drawn, which the grammar does not allow", id);
}

bool sampler_must_end(const struct Sampler *x) { return x->matcher.m && matcher_must_end(&x->matcher); }
