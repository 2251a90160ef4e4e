// Weights that lie in host memory, for a device that reads it slowly: two slots on the device take turns, so that the weights of the next layer
// can arrive beside the work on this one.
#pragma once
#include "model/layers.h"

enum { WEIGHT_SLOTS = 2 };
struct WeightRing {
    struct Model *m;
    struct Arena slot[WEIGHT_SLOTS];
    struct Tensor *here, *home; // (n_base) of each weight that passes through: in its layer's slot, and in host memory
    uint32_t holds[WEIGHT_SLOTS]; // layer that was copied last, in the program being recorded
};

// Takes memory where weights lie in host memory (ModelOptions.host_layers) and the device is not unified; else nothing below does anything.
bool weightring_init(struct WeightRing *r, struct Model *m);
void weightring_free(struct WeightRing *r);
// While a program is recorded: at its beginning; the copy of a layer's weights (nothing where they are there, or layer >= n_layers); and what is
// recorded between enter and leave finds them in the slot.
void weightring_begin(struct WeightRing *r);
void weightring_bring(struct WeightRing *r, struct Cmd *c, uint32_t layer);
void weightring_enter(struct WeightRing *r, uint32_t layer);
void weightring_leave(struct WeightRing *r, uint32_t layer);
