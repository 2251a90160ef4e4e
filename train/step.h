// One optimiser step on a device: micro-batches forward and backward, the global norm, AdamW. Programs are recorded once per shape and
// replayed; between replays only small buffers in host memory change.
#pragma once
#include "model/layers.h"
#include "train/pack.h"

struct ExpertList; // esft.h
struct StepOptions {
    uint32_t micro_tokens; // most flat tokens of a micro-batch
    bool recompute;        // keep only the input of each block and compute the rest again in the backward
    uint32_t loss_chunk;   // labelled rows whose logits exist at once; 0: chosen by vocabulary
    float beta1, beta2, eps, weight_decay, clip_norm;
    bool freeze_router;
    uint64_t seed; // of stochastic rounding
    bool moments8; // in 8 bits, by blocks of 64
    bool weighted; // tokens have the weight of their example (step_weights)
    // Not NULL: of routed experts, or their adapters, only these are trained, and of the rest of the base what the list says. Outlives the step.
    const struct ExpertList *experts;
};

struct StepShape {
    uint32_t tokens, chunks, groups;
    struct Program *program;
};
enum { STEP_SHAPES = 64 };

struct Step {
    struct Model *m;
    struct StepOptions o;
    struct Arena state;   // gradients and moments
    struct Arena scratch; // activations
    struct Arena host;    // batch, params, result
    struct Tensor params, result;
    struct Tensor ids, positions, span, key_span;               // batch
    struct Tensor label_rows, label_ids, label_weights, losses; // labelled positions, padded to chunks
    struct Tensor order, segment_start, segment_id, n_segments; // embedding gradient
    struct Tensor group_start, token_group, group_weight;       // balance loss
    struct StepShape shapes[STEP_SHAPES];
    uint32_t n_shapes;
    struct Program *begin, *update;
    const float *weights; // by example of the batch; NULL: 1
};

// Gives every trained parameter a gradient and moments (zero). train_base: all base parameters; else adapters alone. Works on a dry device:
// then only memory is counted, for the largest shape.
bool step_init(struct Step *s, struct Model *m, const struct StepOptions *o, bool train_base);
void step_free(struct Step *s);

// step_begin, any number of step_micro, step_update.
bool step_begin(struct Step *s, uint64_t labels_in_batch);
// documents_in_batch: for the mean of the balance loss. tokens_in_batch likewise, padding apart.
bool step_micro(struct Step *s, const struct MicroBatch *b, uint64_t documents_in_batch, uint64_t tokens_in_batch);
// `step` counts from 1 (bias correction). *result is what the device left; a non-finite one means that nothing was updated.
bool step_update(struct Step *s, uint64_t step, float learning_rate, struct StepResult *result);
// The weight of each example of the batch, from here on, for a step that was made `weighted`. The array stays the caller's; NULL: 1.
void step_weights(struct Step *s, const float *weights);
// Forward only: log-probabilities, summed over labelled tokens, are added to logp by example of the batch.
bool step_logprobs(struct Step *s, const struct MicroBatch *b, double *logp);
// Forward only: sum of losses over the labelled tokens is added to *loss.
bool step_evaluate(struct Step *s, const struct MicroBatch *b, double *loss);
// The recorded program of forward and backward for this micro-batch's shape (checks and benchmarks).
struct Program *step_program(struct Step *s, const struct MicroBatch *b);
