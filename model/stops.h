// Stop strings in a text that comes in pieces: none of one is let out, also where it is spread over pieces, and nothing else is held back for
// longer than it could still become one.
#pragma once
#include "runtime/base.h"

enum { STOPS_MAX = 32 };

struct Stops {
    const char *list[STOPS_MAX]; // not ours; none is empty
    uint32_t n;
    char *held; // what may be the beginning of one
    size_t n_held, room;
    bool found;
};

// Takes the next piece. What is certain of the text comes back, *certain bytes, valid until the next call; once a stop string is found
// (`found`) that is what stood before it, and afterwards nothing.
const char *stops_push(struct Stops *s, const char *text, size_t bytes, size_t *certain);
const char *stops_flush(struct Stops *s, size_t *certain); // the rest, when the text has ended; starts anew
void stops_free(struct Stops *s);                          // the list stays
