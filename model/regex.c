// See regex.h.
#include "model/regex.h"
#include "runtime/base.h"

#include <pthread.h>
#include <stdlib.h>

static pcre2_general_context *heap;

static void *take(size_t bytes, void *context) {
    (void)context;
    return xmalloc(bytes);
}

static void give_back(void *block, void *context) {
    (void)context;
    free(block);
}

static void make(void) { heap = pcre2_general_context_create(take, give_back, NULL); }

pcre2_general_context *regex_heap(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make);
    return heap;
}
