// See probe.h. Tokens go in one at a time, because a session keeps the logits of the last pass alone.
#include "model/probe.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { PROBE_MAX = 512 };

bool probe_take(struct Probe *p, struct Model *m, const uint32_t *ids, uint32_t n) {
    assert(n > 0 && n <= PROBE_MAX);
    struct SessionOptions o = {.n_sequences = 1, .context = n, .chunk = 1, .cache_type = DT_F32};
    struct SampleParams greedy = {0};
    struct Session s;
    uint32_t sequence = 0, next;
    *p = (struct Probe){.n = n, .vocab = m->config.vocab_size};
    p->logits = xmalloc((size_t)n * p->vocab * sizeof *p->logits);
    bool ok = session_init(&s, m, &o);
    for (uint32_t i = 0; i < n && ok; i++)
        ok = (i == 0 ? session_prefill(&s, 0, ids, 1, &greedy, &next, NULL)
                     : session_decode(&s, 1, &sequence, ids + i, &greedy, &next, NULL)) &&
             session_logits(&s, 0, p->logits + (size_t)i * p->vocab);
    session_free(&s);
    if (!ok)
        probe_free(p);
    return ok;
}

void probe_free(struct Probe *p) {
    free(p->logits);
    *p = (struct Probe){0};
}

struct Row {
    double mean, log_sum; // of the logits; log of the sum of their exponentials
    uint32_t best;
};
static struct Row row_of(const float *x, uint32_t n) {
    struct Row r = {0};
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        r.mean += (double)x[i] / n;
        r.best = x[i] > x[r.best] ? i : r.best;
    }
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)x[r.best]);
    r.log_sum = (double)x[r.best] + log(sum);
    return r;
}

struct ProbeGap probe_compare(const struct Probe *a, const struct Probe *b) {
    assert(a->n == b->n && a->vocab == b->vocab);
    struct ProbeGap gap = {0};
    for (uint32_t t = 0; t < a->n; t++) {
        const float *x = a->logits + (size_t)t * a->vocab, *y = b->logits + (size_t)t * b->vocab;
        struct Row rx = row_of(x, a->vocab), ry = row_of(y, b->vocab);
        for (uint32_t i = 0; i < a->vocab; i++) {
            double p = (double)x[i] - rx.log_sum, q = (double)y[i] - ry.log_sum;
            gap.divergence += exp(p) * (p - q) / a->n;
            gap.logit = fmax(gap.logit, fabs(((double)x[i] - rx.mean) - ((double)y[i] - ry.mean)));
        }
        gap.same += (double)(rx.best == ry.best) / a->n;
    }
    return gap;
}
