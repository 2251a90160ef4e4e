// See feed.h. One short thread a step: starting one takes some ten microseconds, and there is no queue that could be left in a wrong state.
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

void feed_init(struct Feed *f, struct Batcher *batcher, size_t size, const struct PackOptions *options) {
    *f = (struct Feed){.batcher = batcher, .size = size, .options = *options};
}

static void *prepare(void *context) {
    struct Feed *f = context;
    struct Prepared *p = &f->next;
    p->behind = p->from;
    const struct Example *const *batch = batcher_next(f->batcher, &p->behind, f->size, &p->n);
    p->examples = xmalloc(p->n * sizeof *p->examples); // the batcher's own array lives until the next call
    memcpy(p->examples, batch, p->n * sizeof *p->examples);
    p->ok = pack_plan(&p->plan, p->examples, p->n, &f->options);
    return NULL;
}

static void join(struct Feed *f) {
    if (f->running)
        pthread_join(f->thread, NULL);
    f->running = false;
}

void feed_start(struct Feed *f, struct DataCursor cursor) {
    join(f);
    prepared_free(&f->next);
    f->next.from = cursor;
    f->running = pthread_create(&f->thread, NULL, prepare, f) == 0; // without a thread feed_take does the work
}

bool feed_take(struct Feed *f, struct DataCursor cursor, struct Prepared *out) {
    join(f);
    if (!f->next.examples || f->next.from.epoch != cursor.epoch || f->next.from.next != cursor.next) {
        prepared_free(&f->next);
        f->next.from = cursor;
        prepare(f);
    }
    *out = f->next;
    f->next = (struct Prepared){0};
    if (!out->ok)
        prepared_free(out);
    return out->ok;
}

void prepared_free(struct Prepared *p) {
    free(p->examples);
    pack_free(&p->plan);
    *p = (struct Prepared){0};
}

void feed_free(struct Feed *f) {
    join(f);
    prepared_free(&f->next);
    *f = (struct Feed){0};
}
