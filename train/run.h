// A training run from start to end: data, order, steps, learning rate, checkpoints, metrics, and the result on disk. The command line
// only parses flags and draws; everything that decides a bit of the result is here.
#pragma once
#include "train/checkpoint.h"
#include "train/dpo.h"
#include "train/esft.h"
#include "train/events.h"
#include "train/feed.h"
#include "train/samples.h"
#include <signal.h>

// qlora is lora on a base that must be quantised: the base's bits stay as they are, adapters are f32.
enum TrainMethod { TRAIN_FULL, TRAIN_LORA, TRAIN_QLORA, TRAIN_ESFT };
extern const char *const TRAIN_METHODS[];
static inline bool train_adapts(enum TrainMethod m) { return m == TRAIN_LORA || m == TRAIN_QLORA; }
enum TrainLoss { LOSS_SFT, LOSS_DPO };
enum TrainSchedule { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_LINEAR };
extern const char *const TRAIN_SCHEDULES[];

struct TrainOptions {
    enum TrainMethod method;
    enum TrainLoss loss;
    float dpo_beta;
    struct LoraOptions lora;
    const char *adapter;       // a folder whose adapter is trained further, see train_adapter; NULL: a new one
    const uint8_t *adapted;    // (n_layers, n_experts): the routed experts that it has adapters on; NULL: all, or none
    double lora_experts_share; // of the routed experts of a layer, the most used on the data have adapters; 1: all
    enum ExpertScore expert_score;
    double expert_threshold;   // esft: scores of the chosen ones sum up to it
    uint64_t expert_sample;    // examples that experts are scored on; 0: all
    const char *expert_config; // esft: a list to be taken instead; NULL: none
    bool experts_only;         // esft: the result is what was trained alone
    double epochs;
    uint64_t steps; // 0: by epochs
    uint32_t batch_examples;
    uint32_t seq_len;
    // Rows of seq_len on the device at once: sums are in another order for it, and a balance loss over the batch is another loss.
    uint32_t micro_rows; // 0: plan_micro_rows is to choose
    enum TrainSchedule schedule;
    uint64_t warmup_steps;
    float learning_rate, beta1, beta2, eps, weight_decay, clip_norm;
    bool moments8;       // AdamW's moments in 8 bits
    bool in_backward;    // AdamW follows the backward of each layer; a batch is one micro-batch then
    float neftune_alpha; // noise on the embeddings of training examples (step.h); 0: none
    uint32_t offload;    // OFFLOAD_... (optimiser.h): what lies in host memory
    bool freeze_router, recompute;
    uint64_t seed;
    uint64_t save_every, validate_every; // steps; 0: at the end only
    uint32_t keep;
    bool keep_best;          // the result is the model with the lowest held-out loss that was seen
    double validation_split; // share of the data that is held out; 0: none
    const char *const *data; // paths
    size_t n_data;
    struct DataOptions reading; // max_tokens is seq_len's
    const char *validation;     // path, or NULL
    const char *out;
    bool resume;
    bool from_scratch; // a file without tensors: the weights begin as random ones, by the seed
    struct SampleOptions samples;
    const char *template_name, *template_text; // the chat template, which goes with the result; NULL: the model's own
    const char *base_name;                     // of the model, for the adapter's config and the card
    const char *const *command;                // (n_command) words of the command line, for the card
    size_t n_command;
};

// Under this name a checkpoint keeps micro_rows.
#define MICRO_ROWS_FACT "rows of a micro-batch"

// What the loop tells after each step.
struct TrainStatus {
    uint64_t step, steps;
    double epoch;
    double loss, balance, grad_norm, learning_rate;
    double tokens_per_second; // of documents, padding apart
    double data_wait;      // seconds that the device was idle for want of its batch: drawing, packing, filling buffers
    double packing;        // tokens of documents / tokens computed
    double load_max;       // the busiest expert of all layers, measured by an even load; NaN: no experts
    struct DpoFigures dpo; // of the step's pairs before its update; not dpo: all NaN
    struct DpoFigures validation; // loss NaN: not measured after this step; not dpo: the others NaN
    uint64_t tokens, labels;
};

// What a run would train, and the memory it would take.
struct TrainPlan {
    uint64_t weights, adapters, gradients, moments, activations, staging, samples; // bytes on the device
    uint64_t rounding;                                // what the allocations take above that
    uint64_t total;                                   // of the device
    uint64_t logits;                                  // most at once, among the activations
    uint64_t host_weights, host_moments, batch, host; // in host memory, and all of that
    uint64_t checkpoint, result;                      // on disk, one of each
    struct RolePlan {
        uint32_t tensors;      // trained ones
        uint64_t trained, all; // parameters
        bool decays;           // weight decay applies
    } role[ROLE_HEAD + 1];
};

struct Train {
    struct TrainOptions o;
    struct Model *m;
    const struct Tokenizer *tokenizer;
    const struct Template *chat;
    struct Step step;
    struct ExpertList experts;     // where not all are trained
    struct Dataset data, held_out; // held_out.n 0: none
    struct Batcher batcher;
    struct Feed feed; // the batches of the steps
    struct RunIdentity identity;
    struct CheckpointState state;
    uint64_t steps; // in all
    struct Best {
        double loss; // held out; NaN: none was measured
        uint64_t step;
    } best;              // of the steps of this run
    uint64_t best_saved; // its step as the newest checkpoint knows it; 0: none
    FILE *metrics;
    struct Events events;
    int lock;                          // of the output folder; -1: none
    const volatile sig_atomic_t *stop; // not 0: finish the step, save, return; NULL: never
    volatile sig_atomic_t *save;       // not 0: finish the step, save, go on (and 0 again); NULL: never
    void (*on_step)(void *context, const struct TrainStatus *s);
    void (*on_sample)(void *context, uint64_t step, const char *text);
    void *context;
};

// Reads what o->adapter is on the file's model: o->lora becomes its own, and o->adapted is made where it is needed, for the caller to free.
bool train_adapter(struct TrainOptions *o, const struct ModelFile *f);
// How the model of a run is to be loaded: offloaded weights lie in host memory.
struct ModelOptions train_model_options(const struct TrainOptions *o, const struct Config *c, enum DType type);
// The most rows of o->seq_len tokens that a micro-batch may have on a device, whatever memory it has; 0: not even one.
uint32_t train_most_rows(const struct Config *c, const struct TrainOptions *o, const struct Device *like);
// For the file's model with its matrices stored as `type` (DT_COUNT: as in the file), on a device that only counts. A file without tensors, a
// preset's, needs a type.
bool train_plan(const struct ModelFile *f, enum DType type, const struct TrainOptions *o, const struct Device *like,
                struct TrainPlan *plan);
// Whether a run can begin in o->out, or go on there; train_begin asks again once no other run can come in between.
bool train_check_out(const struct TrainOptions *o);
// Loads the data (before the model is touched, so that a bad line costs no time).
bool train_load_data(struct Train *t, const struct TrainOptions *o, const struct Tokenizer *tokenizer,
                     const struct Template *chat);
// Adapters, gradients, moments; with o->resume the newest whole checkpoint.
bool train_begin(struct Train *t, struct Model *m);
// Gives back what train_begin took, after a failure too; the data stays, so that train_begin can be called again.
void train_end(struct Train *t);
// Steps until done or told to stop. Saves checkpoints as asked, and one where it stops.
bool train_loop(struct Train *t);
// On the held-out data: the loss, per labelled token or with dpo per pair, NaN when there is none; not dpo: the others NaN.
bool train_validate(struct Train *t, struct DpoFigures *found);
// Whether a line of metrics.jsonl has its held-out loss from the held-out data of now.
struct json_t;
bool train_same_held_out(const struct Train *t, const struct json_t *metrics);
// The name of the template that laid conversations of the data out; NULL: there are none.
const char *train_template(const struct Train *t);
// The result: a Hugging Face folder, or a PEFT adapter, whose files appear in `out` one by one, config last.
bool train_finish(struct Train *t, const struct ModelFile *tokenizer);
void train_free(struct Train *t);
