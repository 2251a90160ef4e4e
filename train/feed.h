// The examples of a step, drawn and packed before the device asks for them: while it works on one step a thread prepares the next. What is
// prepared depends on the cursor alone, so a run has the same bits with the thread and without, and a resumed one too.
#pragma once
#include "train/pack.h"

#include <pthread.h>

struct Prepared {
    struct DataCursor from, behind;  // the cursor before and behind these examples
    const struct Example **examples; // (n) pairs side by side
    size_t n;
    struct PackPlan plan;
    bool ok; // false: packing failed, after its message
};

struct Feed {
    struct Batcher *batcher; // the thread's while one runs
    size_t size;             // examples (or pairs) of a step
    struct PackOptions options;
    struct Prepared next; // examples NULL: nothing
    pthread_t thread;
    bool running;
};

void feed_init(struct Feed *f, struct Batcher *batcher, size_t size, const struct PackOptions *options);
// Begins to prepare what lies behind `cursor`. One at a time: feed_take comes before the next.
void feed_start(struct Feed *f, struct DataCursor cursor);
// What lies behind `cursor`, as far as it was started already, else made now. To be freed. False after a message.
bool feed_take(struct Feed *f, struct DataCursor cursor, struct Prepared *out);
void prepared_free(struct Prepared *p);
// Waits for the thread and drops what nobody took. A feed of zeros is none.
void feed_free(struct Feed *f);
