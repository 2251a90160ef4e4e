// Upcycling: a dense model becomes a DeepSeekMoE. Each feed-forward layer is cut into equal shards of neurons; some are shared, the rest
// become routed experts. The down projections of routed experts are scaled by their number, so that with equal router weights
// (1 / n_experts each) and all experts active the function is that of the dense layer; with fewer, the chosen ones still count
// fully. The router starts small: top-k sees only the order of its logits, and the weights stay near equal.
#pragma once
#include "model/model.h"

struct UpcycleOptions {
    uint32_t shards;       // pieces of a feed-forward layer; its width must divide into multiples of 8
    uint32_t shared;       // of them shared
    uint32_t active;       // routed experts per token
    uint32_t dense_layers; // first layers left as they are
    uint64_t seed;
    // Calibration text as tokens of the model; n_ids 0: shards are cut in order and the router is random.
    const uint32_t *ids;
    uint32_t n_ids;
    void (*progress)(void *context, uint32_t layer, uint32_t n_layers); // NULL: none
    void *progress_context;
};

// Which neurons make up which shard, and where the router starts, per layer.
struct UpcycleLayer {
    uint32_t *order; // (hidden): neurons, shared shards first, then expert by expert
    float *router;   // (n_experts, dim)
};
struct Upcycle {
    struct Config config; // of the new model
    struct Config dense;
    struct UpcycleLayer *layers; // NULL order: the layer stays dense
    struct ModelFile *file;
    struct WeightSource source; // of the dense file
};

// Plans the cut. With calibration `dev` runs the dense model over the text; without it may be NULL.
bool upcycle_plan(struct Upcycle *u, struct ModelFile *file, const struct UpcycleOptions *o, struct Device *dev);
// The new model's weights, to be given to modelwrite. Matrices of cut layers come as f32.
struct WeightSource upcycle_source(struct Upcycle *u);
void upcycle_free(struct Upcycle *u);
