// See parallel.h. Threads live for one loop: a loop worth cutting lasts a thousand times longer than it takes to start them.
#include "runtime/parallel.h"
#include <pthread.h>
#include <unistd.h>

enum { MAX_THREADS = 16 };

struct Range {
    void (*work)(void *context, uint64_t first, uint64_t end);
    void *context;
    uint64_t first, end;
};

static void *run(void *range) {
    struct Range *r = range;
    r->work(r->context, r->first, r->end);
    return NULL;
}

void parallel_for(uint64_t n, uint64_t grain, void (*work)(void *context, uint64_t first, uint64_t end),
                  void *context) {
    static _Atomic long known; // asking opens a file
    long cores = known;
    if (cores == 0)
        known = cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t grains = div_up(n, grain),
             threads = min_u64(grains, min_u64(cores < 1 ? 1 : (uint64_t)cores, MAX_THREADS));
    struct Range range[MAX_THREADS];
    pthread_t thread[MAX_THREADS];
    bool started[MAX_THREADS] = {false};
    for (uint64_t i = 0; i < threads; i++) {
        range[i] =
            (struct Range){work, context, grains * i / threads * grain, min_u64(n, grains * (i + 1) / threads * grain)};
        if (i > 0)
            started[i] = pthread_create(&thread[i], NULL, run, &range[i]) == 0;
    }
    for (uint64_t i = 0; i < threads; i++)
        if (!started[i]) // the first range, and those for which no thread was to be had
            run(&range[i]);
    for (uint64_t i = 0; i < threads; i++)
        if (started[i])
            pthread_join(thread[i], NULL);
}
