// A processor that stands for a card, so that what only cards run is tested where there is none.
#pragma once
#include "model/model.h"

// Puts the bodies on pairs of f16 (tile_dot2.glsl) on a device that has not the instruction for them: modules made from the same source, with multiply-adds in its
// place. False, after a failed check or where the device has the instruction, or has not f16 and 64-bit integers: nothing was done.
bool card_pairs(struct Device *dev);
// A body of NT whose operands are brought to f16's range by their peaks, on matrix units or on pairs of f16, which it may put on the device; -1: none.
int card_scaled(struct Device *dev);
// device_open; with VKMOE_TEST_CARD=1 a processor then counts as a card: it takes the bodies, tiles and numbers of threads of one, on its matrix units where it has
// any, else on pairs of f16.
bool card_open(struct Device *dev);
// Weights whose peaks are not what a look at them finds, which should be none; UINT32_MAX after a failure.
uint32_t stale_peaks(struct Model *m);
// n tokens of a vocabulary, malloc'ed; another stream, other tokens.
uint32_t *random_ids(const struct Config *c, uint32_t n, uint64_t stream);
