// The memory of a training run as its user sees it: a table, the same as JSON, and what to ask for where it does not fit.
#pragma once
#include "train/plan.h"
#include <jansson.h>

// To standard error.
void memory_show(const struct TrainPlan *p, const struct Device *dev);
// What the run takes on disk, with a warning where less is free. steps 0: not known.
void disk_show(const struct TrainPlan *p, const struct TrainOptions *o, uint64_t steps);
json_t *memory_json(const struct TrainPlan *p, const struct Device *dev);
// Whether the run fits; else one line with the figures and the flags of the nearest run that does.
bool memory_check(struct Train *t, const struct ModelFile *f, enum DType type, const struct TrainPlan *p,
                  const struct Device *dev);
// "16GiB", "24 GB", "8000MiB", or bytes.
bool memory_read(const char *text, uint64_t *bytes);
