// What training left beside a model becomes part of its weights: W + scale * B A of a LoRA adapter, or the experts of ESFT (esft.safetensors) in the place of
// those that were there. Computed on the host in double from the very weights that the model runs with: a quantised base is decoded, and rounded
// once, where the result is.
#pragma once
#include "model/safetensors.h"
#include "train/esft.h"

struct Merge {
    struct Model *m;
    struct WeightSource base;
    bool has_experts;
    struct Safetensors experts; // of ESFT
    // The adapter of the tensor in hand, on the host.
    const struct Linear *linear;
    float *a, *b;
};
// Puts what lies in `dir` on the model, which has nothing on it yet: it then computes what the merged one is to compute. The model outlives *g.
bool merge_begin(struct Merge *g, struct Model *m, const char *dir);
void merge_end(struct Merge *g);
// The merged weights: f32 where they are changed, else as the model has them.
struct WeightSource merge_source(struct Merge *g);

// Root mean squares over a sample of 64 rows of every changed tensor.
struct MergeLoss {
    uint32_t tensors; // changed ones
    double weight;    // of the merged weights
    double change;    // of what merging added to them
    double error;     // of what the written ones are off by
    double
        kept; // share of the change that is in the written ones: its component along what was to be changed; 1: all of it
};
// Reads back what was written from this source; `base` is the model's own file.
bool merge_measure(struct Merge *g, const struct ModelFile *base, const struct ModelFile *written,
                   struct MergeLoss *loss);
