// Routed experts that do not fit on the device: they lie in host memory, and a pool of slots on the device holds those that the router asked
// for, least recently used out first. The kernels are those of resident experts; only the index they multiply by is a slot's instead
// of an expert's, so answers do not depend on what is where. Each layer of experts costs a wait for the host.
#pragma once
#include "model/layers.h"

// What of a model's experts the device holds, and how often that was what the router asked for.
struct ExpertUse {
    uint64_t hits, misses; // experts of a layer and pass: there already, brought in
    uint64_t bytes;        // brought in
    uint32_t slots, experts;
};

// Makes pools of `slots` experts in all, at least n_experts for each kind of layer (weights of the same types share a pool), and points the
// layers at them. Called while the tables of `m` are built.
void experts_init(struct Model *m, uint32_t slots);
void experts_free(struct Model *m);
// The same routing with slots instead of experts, valid behind a wait in which the host brings in what it asks for. `chosen`: the ids, host memory.
struct Routing experts_bring(struct Pass *p, uint32_t layer, const struct Routing *r, const struct Tensor *chosen);
struct ExpertUse experts_use(const struct Model *m); // all 0: nothing is streamed
