// The model card of a training run.
#pragma once
#include "train/run.h"

// Writes dir's chat template, where it is not the model's own, and dir/README.md: what was trained from what, the data, the settings, the losses that OUT/metrics.jsonl tells, the command.
bool report_write(const struct Train *t, const char *dir);
