// What a run's metrics.jsonl holds, as curves, and the pictures that are drawn of it.
#pragma once
#include "runtime/base.h"

struct Curve {
    double *x, *y; // (n) step, value
    size_t n;
};
// The values of a key in DIR/metrics.jsonl, thinned to a few thousand means; n is 0 where no line has it. False after a message.
bool curve_read(struct Curve *c, const char *dir, const char *key);
void curve_free(struct Curve *c);

// loss.png, and experts.png where there are experts, in the run's folder.
void curves_draw_run(const char *dir);
