// See stops.h.
#include "model/stops.h"
#include <stdlib.h>
#include <string.h>

// Whether text[0 .. n) is a stop string or the beginning of one.
static bool may_stop(const struct Stops *s, const char *text, size_t n, bool *whole) {
    bool may = false;
    for (uint32_t i = 0; i < s->n; i++) {
        size_t length = strlen(s->list[i]), common = n < length ? n : length;
        if (memcmp(text, s->list[i], common) != 0)
            continue;
        may = true;
        *whole = *whole || common == length;
    }
    return may;
}

const char *stops_push(struct Stops *s, const char *text, size_t bytes, size_t *certain) {
    *certain = 0;
    if (s->found)
        return "";
    if (s->n_held + bytes + 1 > s->room) {
        s->room = 2 * (s->n_held + bytes + 1);
        s->held = xrealloc(s->held, 2 * s->room); // what was held, and behind it what is let out
    }
    // What was let out before lies in the second half: it is no longer needed.
    if (bytes)
        memcpy(s->held + s->n_held, text, bytes);
    s->n_held += bytes;
    size_t at = 0;
    while (at < s->n_held && !may_stop(s, s->held + at, s->n_held - at, &s->found))
        at++;
    char *out = s->held + s->room;
    if (at)
        memcpy(out, s->held, at);
    out[at] = 0;
    s->n_held = s->found ? 0 : s->n_held - at;
    memmove(s->held, s->held + at, s->n_held);
    *certain = at;
    return out;
}

const char *stops_flush(struct Stops *s, size_t *certain) {
    *certain = s->found ? 0 : s->n_held;
    s->n_held = 0;
    s->found = false;
    return *certain ? s->held : "";
}

void stops_free(struct Stops *s) {
    free(s->held);
    s->held = NULL;
    s->n_held = s->room = 0;
    s->found = false;
}
