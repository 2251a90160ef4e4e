// What a training run came to: its losses, and its model card.
#pragma once
#include "train/run.h"

// Of all steps that OUT/metrics.jsonl tells, whatever the run was interrupted by; NaN: not measured. A held-out loss counts on the examples of now.
struct TrainLosses {
    double first, last, held_before, held_last, held_best;
    uint64_t held_best_step;
};
bool report_losses(const struct Train *t, struct TrainLosses *l);
// Writes dir's chat template, where it is not the model's own, and dir/README.md: what was trained from what, the data, the settings, the losses that OUT/metrics.jsonl tells, the command.
bool report_write(const struct Train *t, const char *dir);
