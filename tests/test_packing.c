// Packing neither loses, cuts nor mixes examples, and says what does not fit; what a thread prepares is what the step would have made, and is
// there when the step asks.
#include "check.h"
#include "train/feed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check_micro(const struct MicroBatch *m, const struct Example *const *examples, const struct PackOptions *o,
                        unsigned *used) {
    uint32_t covered = 0, labels = 0;
    CHECK(m->n_tokens <= o->micro_tokens && m->n_tokens <= m->rows * m->seq_len &&
              m->n_tokens > (m->rows - 1) * m->seq_len,
          "%u tokens in %u rows", m->n_tokens, m->rows);
    for (uint32_t k = 0; k < m->n_documents; k++) {
        const struct PackedDocument *doc = &m->documents[k];
        const struct Example *e = examples[doc->example];
        used[doc->example]++;
        CHECK(doc->n == e->n && doc->first / m->seq_len == (doc->first + doc->n - 1) / m->seq_len &&
                  doc->first + doc->n <= m->n_tokens,
              "document %u of %u tokens at %u", k, doc->n, doc->first);
        bool right = true;
        for (uint32_t t = 0; t < doc->n; t++) {
            uint32_t i = doc->first + t;
            right = right && m->ids[i] == e->ids[t] && m->labels[i] == e->labels[t] && m->positions[i] == t &&
                    m->first[i] == doc->first && m->end[i] == doc->first + doc->n && m->document[i] == k;
        }
        CHECK(right, "document %u is not its example", k);
        covered += doc->n;
        labels += e->n_labels;
    }
    for (uint32_t i = 0; i < m->n_tokens; i++) {
        if (m->document[i] != PACK_PADDING)
            continue;
        covered++;
        CHECK(m->ids[i] == o->pad_id && m->labels[i] == -1 && m->positions[i] == 0 && m->first[i] == i &&
                  m->end[i] == i + 1,
              "padding at %u", i);
    }
    CHECK(covered == m->n_tokens, "%u of %u tokens belong to somebody: documents overlap or miss", covered,
          m->n_tokens);
    CHECK(labels == m->n_labels, "%u labels, %u counted", labels, m->n_labels);
}

static void check_plan(const struct Example *const *examples, size_t n, struct PackOptions o) {
    struct PackPlan p, q;
    unsigned *used = xcalloc(n, sizeof *used);
    uint64_t tokens = 0, labels = 0;
    if (!CHECK(pack_plan(&p, examples, n, &o) && pack_plan(&q, examples, n, &o), "%s", fail_last()))
        return;
    for (size_t i = 0; i < p.n; i++)
        check_micro(&p.micro[i], examples, &o, used);
    for (size_t i = 0; i < n; i++) {
        CHECK(used[i] == 1, "example %zu is packed %u times", i, used[i]);
        tokens += examples[i]->n;
        labels += examples[i]->n_labels;
    }
    CHECK(p.n_labels == labels && p.n_tokens - p.n_padding == tokens, "%llu labels, %llu tokens, %llu padding",
          (unsigned long long)p.n_labels, (unsigned long long)p.n_tokens, (unsigned long long)p.n_padding);
    bool same = p.n == q.n;
    for (size_t i = 0; same && i < p.n; i++)
        same = p.micro[i].n_tokens == q.micro[i].n_tokens &&
               memcmp(p.micro[i].ids, q.micro[i].ids, p.micro[i].n_tokens * sizeof(uint32_t)) == 0;
    CHECK(same, "two plans of one batch differ");
    // Two rows that are at most half full would have been one.
    uint32_t half_empty = 0;
    for (size_t i = 0; i < p.n; i++) {
        uint32_t *row_tokens = xcalloc(p.micro[i].rows, sizeof *row_tokens);
        for (uint32_t k = 0; k < p.micro[i].n_documents; k++)
            row_tokens[p.micro[i].documents[k].first / o.seq_len] += p.micro[i].documents[k].n;
        for (uint32_t r = 0; r < p.micro[i].rows; r++)
            half_empty += row_tokens[r] * 2 <= o.seq_len;
        free(row_tokens);
    }
    CHECK(half_empty <= 1, "%u rows are at most half full", half_empty);
    pack_free(&p);
    pack_free(&q);
    free(used);
}

static void test_packing(void) {
    // Every token is another, so that none can stand in the place of another unseen.
    enum { N = 300, LONGEST = 16 };
    static struct Example examples[N];
    static uint32_t tokens[N][LONGEST];
    static int32_t targets[N][LONGEST];
    const struct Example *all[N];
    for (uint32_t i = 0; i < N; i++) {
        uint32_t n = LONGEST - i * 7 % 13;
        for (uint32_t t = 0; t < n; t++) {
            tokens[i][t] = i * LONGEST + t;
            targets[i][t] = t + 1 < n ? (int32_t)(i * LONGEST + t + 1) : -1;
        }
        examples[i] =
            (struct Example){.ids = tokens[i], .labels = targets[i], .n = n, .n_labels = n - 1, .line = i + 1};
        all[i] = &examples[i];
    }
    const struct PackOptions options[] = {{64, 64, 1, 0},           {64, 256, 1, 0},    {64, 300, 2, 16},
                                          {LONGEST, LONGEST, 1, 0}, {4096, 8192, 1, 0}, {4096, 4096, 1, 64},
                                          {33, 100, 1, 7}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        check_plan(all, N, options[i]);
        check_plan(all, 1, options[i]);
    }
    // Lengths that fill rows exactly leave no padding.
    struct Example half[4];
    uint32_t ids[32] = {0};
    int32_t labels[32];
    memset(labels, 0xff, sizeof labels);
    const struct Example *four[4];
    const uint32_t lengths[] = {10, 22, 25, 7};
    for (int i = 0; i < 4; i++) {
        half[i] = (struct Example){.ids = ids, .labels = labels, .n = lengths[i]};
        four[i] = &half[i];
    }
    struct PackPlan p;
    CHECK(pack_plan(&p, four, 4, &(struct PackOptions){32, 64, 0, 0}) && p.n == 1 && p.n_padding == 0, "%llu padding",
          (unsigned long long)p.n_padding);
    CHECK(p.micro[0].rows == 2 && p.micro[0].n_documents == 4, "%u rows", p.micro[0].rows);
    pack_free(&p);
    fail_quiet(true);
    CHECK(!pack_plan(&p, four, 4, &(struct PackOptions){24, 64, 0, 0}) && strstr(fail_last(), "25 tokens does not fit"),
          "'%s'", fail_last());
    CHECK(!pack_plan(&p, four, 4, &(struct PackOptions){64, 32, 0, 0}) && strstr(fail_last(), "cannot hold a row"),
          "'%s'", fail_last());
    CHECK(!pack_plan(&p, four, 0, &(struct PackOptions){64, 64, 0, 0}), "an empty batch");
    fail_quiet(false);
}

// The batch behind a cursor as the feed gives it and as batcher and packing do, byte by byte.
static void check_prepared(struct Feed *f, struct Batcher *plain, struct DataCursor *cursor) {
    struct Prepared p;
    struct PackPlan want;
    size_t n;
    struct DataCursor behind = *cursor;
    const struct Example *const *batch = batcher_next(plain, &behind, f->size, &n);
    if (!CHECK(feed_take(f, *cursor, &p) && pack_plan(&want, batch, n, &f->options), "%s", fail_last()))
        return;
    CHECK(p.n == n && memcmp(p.examples, batch, n * sizeof *batch) == 0, "other examples at %llu of epoch %llu",
          (unsigned long long)cursor->next, (unsigned long long)cursor->epoch);
    CHECK(p.behind.epoch == behind.epoch && p.behind.next == behind.next && p.plan.n == want.n, "another cursor");
    for (size_t i = 0; i < want.n && i < p.plan.n; i++) {
        const struct MicroBatch *a = &p.plan.micro[i], *b = &want.micro[i];
        CHECK(a->n_tokens == b->n_tokens && memcmp(a->ids, b->ids, b->n_tokens * sizeof *b->ids) == 0 &&
                  memcmp(a->labels, b->labels, b->n_tokens * sizeof *b->labels) == 0,
              "micro-batch %zu differs", i);
    }
    *cursor = behind;
    prepared_free(&p);
    pack_free(&want);
}

static double take_seconds(struct Feed *f, struct DataCursor cursor) {
    struct Prepared p;
    double start = clock_seconds();
    if (CHECK(feed_take(f, cursor, &p), "%s", fail_last()))
        prepared_free(&p);
    return clock_seconds() - start;
}

static void test_feed(void) {
    enum { N = 100003, SIZE = 4000, TRIES = 5 };
    uint32_t ids[8] = {0};
    int32_t labels[8] = {1, 1, 1, 1, 1, 1, 1, -1};
    struct Dataset d = {.n = N, .examples = xcalloc(N, sizeof *d.examples)};
    for (uint32_t i = 0; i < N; i++)
        d.examples[i] =
            (struct Example){.ids = ids + i % 5, .labels = labels + i % 5, .n = 8 - i % 5, .n_labels = 7 - i % 5};
    struct Batcher fed, plain;
    struct Feed f;
    batcher_init(&fed, &d, 3);
    batcher_init(&plain, &d, 3);
    feed_init(&f, &fed, SIZE, &(struct PackOptions){64, 1024, 0, 32});
    struct DataCursor cursor = {0}, elsewhere = {7, 100};
    for (int step = 0; step < 30;
         step++) { // into the second epoch: prepared, not prepared, prepared from another place
        if (step % 3)
            feed_start(&f, step % 3 == 1 ? cursor : elsewhere);
        check_prepared(&f, &plain, &cursor);
    }
    CHECK(cursor.epoch == 1, "epoch %llu", (unsigned long long)cursor.epoch);
    // The first batch of an epoch costs its permutation, unless there was time to make it. The best of some tries: others want the cores too.
    double made = INFINITY, waited = INFINITY;
    for (uint64_t i = 0; i < TRIES; i++) {
        made = fmin(made, take_seconds(&f, (struct DataCursor){10 + 2 * i, 0}));
        struct DataCursor ahead = {11 + 2 * i, 0};
        feed_start(&f, ahead);
        double pause = 4 * made + 0.02;
        nanosleep(&(struct timespec){(time_t)pause, (long)(1e9 * (pause - floor(pause)))}, NULL);
        waited = fmin(waited, take_seconds(&f, ahead));
    }
    CHECK(waited < made / 10, "%g s for a batch that was prepared, %g s for one that was not", waited, made);
    feed_start(&f, cursor); // nobody takes this one
    feed_free(&f);
    batcher_free(&fed);
    batcher_free(&plain);
    free(d.examples);
}

int main(void) {
    test_packing();
    test_feed();
    return check_done();
}
