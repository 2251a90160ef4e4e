// One optimiser step on a device: micro-batches forward and backward, the global norm, AdamW. Programs are recorded once per shape and
// replayed; between replays only small buffers in host memory change.
#pragma once
#include "train/optimiser.h"
#include "train/pack.h"
#include "train/weightring.h"

struct StepOptions {
    uint32_t micro_tokens; // most flat tokens of a micro-batch
    bool recompute;        // keep only the input of each block and compute the rest again in the backward
    uint32_t loss_chunk;   // labelled rows whose logits exist at once; 0: chosen by vocabulary
    float beta1, beta2, eps;
    uint64_t seed;       // of stochastic rounding and noise
    float neftune_alpha; // noise of at most alpha / sqrt(tokens of the example * width) on its embeddings; 0: none
    bool weighted;       // labels have weights: MicroBatch.weights, times that of their example (step_weights)
    struct OptimiserOptions optimiser; // its experts outlive the step
};

// What a program does with a micro-batch. PASS_MEASURE is a forward pass with the noise of training. Where an update follows the backward layer by layer and gradients are clipped, the norm comes from a
// backward of its own, whose gradients nobody keeps.
enum StepPass { PASS_EVALUATE, PASS_MEASURE, PASS_GRADIENTS, PASS_NORM, PASS_UPDATE };

struct StepShape {
    uint32_t tokens, labels, groups;
};
struct StepProgram {
    struct StepShape shape;
    enum StepPass pass;
    struct Program *program;
};
enum { STEP_PROGRAMS = 64 };

struct Step {
    struct Model *m;
    struct StepOptions o;
    struct Optimiser optimiser;
    struct Arena scratch; // activations
    struct WeightRing weights_ring;
    struct Arena host; // batch, params, result
    struct Tensor params, result;
    struct Tensor ids, positions, span, key_span;               // batch
    struct Tensor label_rows, label_ids, label_weights, losses; // labelled positions, padded to chunks
    struct Tensor noise_examples, noise_key;                    // what op_noise takes; absent without noise
    struct Tensor order, segment_start, segment_id, n_segments; // embedding gradient
    struct Tensor group_start, token_group, group_weight;       // balance loss
    struct Tensor chosen; // (n_layers, t, n_active) experts of the micro-batch at work
    uint32_t *
        loads; // (n_layers, n_experts) tokens of the step that an expert was chosen for, padding apart; NULL: no experts
    uint32_t uncounted; // tokens of the micro-batch whose choices are not in `loads` yet
    struct StepProgram programs[STEP_PROGRAMS];
    uint32_t n_programs;
    struct Program *begin, *update; // update NULL: in the backward
    struct StepShape pending;       // of the micro-batch whose backward waits for step_update; tokens 0: none
    uint64_t logits_bytes;          // the most that exist at once; also in a dry run
    const float *weights;           // by example of the batch; NULL: 1
    uint64_t noise_step;
    double data_seconds; // in which the device waited while its batch buffers were filled; the caller sets it back
};

// The most tokens of a micro-batch, as pack_computed rounds them, for which every count of a step fits its 32 bits and every tensor an allocation of
// the device. rank: of adapters, 0 without.
uint32_t step_most_tokens(const struct Config *c, uint32_t rank, struct Device *dev);
// Gives every trained parameter a gradient and moments (zero). train_base: all base parameters; else adapters alone. Works on a dry device:
// then only memory is counted, for the largest shape.
bool step_init(struct Step *s, struct Model *m, const struct StepOptions *o, bool train_base);
void step_free(struct Step *s);

// step_begin, any number of step_micro, step_update. With optimiser.in_backward a single step_micro: an update needs the whole gradient.
// weight_in_batch: of its labels together, their number where each counts once; the loss and its gradient are divided by it.
bool step_begin(struct Step *s, double weight_in_batch);
// documents_in_batch: for the mean of the balance loss. tokens_in_batch likewise, padding apart.
bool step_micro(struct Step *s, const struct MicroBatch *b, uint64_t documents_in_batch, uint64_t tokens_in_batch);
// `step` counts from 1 (bias correction). *result is what the device left; a non-finite one means that nothing was updated.
bool step_update(struct Step *s, uint64_t step, float learning_rate, struct StepResult *result);
// The weight of each example of the batch, from here on, for a step that was made `weighted`. The array stays the caller's; NULL: 1.
void step_weights(struct Step *s, const float *weights);
// Whose noise (neftune_alpha) the passes of training add from here on: it follows from seed, step, place of the example in the batch and place of the
// token in the example, so that it is the same however the batch is cut, and in a run that was resumed.
void step_noise(struct Step *s, uint64_t step);
// Forward only: log-probabilities, summed over labelled tokens with their weights, are added to logp by example of the batch. noisy: with
// the noise of training.
bool step_logprobs(struct Step *s, const struct MicroBatch *b, bool noisy, double *logp);
// Forward only, never with noise: sum of losses over the labelled tokens, with their weights, is added to *loss.
bool step_evaluate(struct Step *s, const struct MicroBatch *b, double *loss);
// The recorded program of forward and backward for this micro-batch's shape (checks and benchmarks).
struct Program *step_program(struct Step *s, const struct MicroBatch *b);
