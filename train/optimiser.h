// What is trained and how it is updated: where gradients and moments lie, the global norm, AdamW. Parameters are walked in groups, so
// that an update can follow the backward of a layer and its gradients make room for the next layer's.
#pragma once
#include "model/layers.h"

struct ExpertList; // esft.h

// Where what a step needs beside the weights at work lies: on the device, or in host memory.
enum { OFFLOAD_MOMENTS = 1, OFFLOAD_WEIGHTS = 2 };

struct OptimiserOptions {
    float weight_decay, clip_norm;
    bool freeze_router;
    bool moments8;           // in 8 bits, by blocks of 64
    bool in_backward;        // gradients exist for one group at a time
    uint32_t offload;        // OFFLOAD_...; the weights' part is the model's (ModelOptions.host_layers)
    uint32_t stage_elements; // of a tensor that are on their way at once, a multiple of 64; 0: chosen
    // Not NULL: of routed experts, or their adapters, only these are trained, and of the rest of the base what the list says.
    const struct ExpertList *experts;
};

// Parameters that are updated together: a layer's (its number), the final norm and the head, the embedding (and a head that is tied to it).
enum { GROUP_EMBED = 0xfffffffd, GROUP_HEAD, GROUP_ALL };

enum { STAGING_SLOTS = 2 };
struct Optimiser {
    struct Model *m;
    struct OptimiserOptions o;
    struct Arena gradients;       // those that are held from step to step, or through a whole backward
    struct Arena passing;         // in_backward: those of one group after the other
    struct Arena moments;         // on the device or in host memory
    struct Arena staging;         // where moments and weights in host memory pass through the device
    struct Tensor params, result; // StepParams, StepResult: the step's
    struct Tensor parts;          // of the norm, all trained parameters in their order
    uint32_t n_parts;
    uint64_t stage_elements; // of a slot; 0: the device works on host memory as it is
    struct StagingSlot {
        struct Tensor w, m1, m2;
    } slot[STAGING_SLOTS];
    uint32_t next_slot;
};

// Gives every parameter that is trained (train_base: all of the base, else adapters alone) a gradient and moments; contents are undefined.
bool optimiser_init(struct Optimiser *o, struct Model *m, const struct OptimiserOptions *options, bool train_base,
                    const struct Tensor *params, const struct Tensor *result);
void optimiser_free(struct Optimiser *o);
// The moments become 0.
bool optimiser_reset(struct Optimiser *o);

// Recording, for the parameters of a group. In order: zero, (backward), norm, norm_finish once all norms are there, update.
void optimiser_zero(struct Optimiser *o, struct Cmd *c, uint32_t group); // gradients
void optimiser_norm(struct Optimiser *o, struct Cmd *c, uint32_t group);
void optimiser_norm_finish(struct Optimiser *o, struct Cmd *c);
void optimiser_update(struct Optimiser *o, struct Cmd *c, uint32_t group);

// Whether kernels work on host memory as fast as on any other, so that nothing has to be staged.
bool device_is_unified(const struct Device *dev);
