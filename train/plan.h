// The memory of a training run before anything is loaded: whether it fits, how many rows a micro-batch may have, and the nearest run that fits.
// All of it is found by runs on a device that only counts.
#pragma once
#include "train/run.h"

// What a run takes, measured by what there is: where host and device share their memory the two are one sum.
uint64_t plan_device_bytes(const struct TrainPlan *p, const struct Device *dev);
bool plan_fits(const struct TrainPlan *p, const struct Device *dev);

// What checkpoints, one of them half written, and the result take on disk, beside what an earlier part of the run has there. steps 0: not known.
uint64_t plan_disk_bytes(const struct TrainPlan *p, const struct TrainOptions *o, uint64_t steps);

// Where t->o.micro_rows is 0 (auto): as many rows as keep the device busy and fit, or those of the run that is to be resumed. Where the optimiser
// runs in the backward: the rows of the largest step; fewer that were asked for are refused.
bool plan_micro_rows(struct Train *t, const struct ModelFile *f, enum DType type, const struct Device *dev);

struct NearestPlan {
    bool found;
    char flags[200]; // what to add to the command line
    struct TrainPlan plan;
};
// The run that differs least from one that does not fit: first in what changes memory alone (micro-batch, recomputation, update in the backward,
// moments in host memory), then in numbers (bf16, 8 bits), the place of weights, the method, the context.
void plan_nearest(struct Train *t, const struct ModelFile *f, enum DType type, const struct Device *dev,
                  struct NearestPlan *nearest);
