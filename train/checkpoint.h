// Checkpoints that survive anything: all files are written and synced under a temporary name, then a manifest with their sizes and hashes, then
// one rename makes them appear. The newest checkpoint whose manifest and hashes hold is the one that counts; none is ever
// removed before a newer one is durable. A resumed run has the bits of an undisturbed one.
//
// OUT/checkpoint-N/state.safetensors   every trained parameter as <name> (weights), <name>.m1, <name>.m2 (moments)
// (and "reference": the answers' log-probabilities under the model before training, where a loss asks for them)
// OUT/checkpoint-N/manifest.json       step, place in the data, what the run is, size and hash of the state
// OUT/checkpoint-N/manifest.sha256     of manifest.json
#pragma once
#include "train/data.h"
#include "train/step.h"

// What must agree for a checkpoint to go on: pairs of a name and a value as text ("model", "method", "data", "batch" ...). An
// empty value is that of what a run does without: it is not written, and must not be there.
struct RunIdentity {
    struct RunFact {
        const char *name; // static text
        char value[256];
    } facts[32];
    uint32_t n;
    // Kept beside the facts, to tell what made the data another: its files, and the template (NULL: the model's own).
    const struct Dataset *data;
    const char *template_name, *template_text;
};
#define DATA_FACT "data"
void identity_add(struct RunIdentity *id, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct CheckpointState {
    uint64_t step; // finished steps
    struct DataCursor cursor;
    double seconds; // of training so far
    char device[256];
    float *
        reference; // (n_reference) numbers that are kept as they were before the first step; the caller's array, read into by a load
    uint64_t n_reference;
};

// Writes OUT/checkpoint-<step> and then removes all but the newest `keep` and that of step `also` (0: none). On failure what was there stays.
bool checkpoint_save(const char *out, struct Model *m, const struct RunIdentity *id,
                     const struct CheckpointState *state, uint32_t keep, uint64_t also);
// What one of a model takes on disk.
uint64_t checkpoint_bytes(const struct Model *m);
// Loads that of a step, or with 0 the newest one that is whole; damaged ones are named and passed over. *found false: there is none. Fails when
// the newest whole one is of another run, naming the first fact that differs.
bool checkpoint_load(const char *out, struct Model *m, const struct RunIdentity *id, uint64_t step,
                     struct CheckpointState *state, bool *found);
bool checkpoint_is_whole(const char *out, uint64_t step);
// What the newest whole manifest states of a name; false, without a word, where there is none.
bool checkpoint_fact(const char *out, const char *name, char *value, size_t bytes);
// Whether nothing stands in a folder, or only what a run leaves there before its first checkpoint, beside its lock, which tells whether it still goes on.
bool checkpoint_folder_free(const char *out);
// Whether the folder holds any checkpoint, whole or not.
bool checkpoint_exists(const char *out);
