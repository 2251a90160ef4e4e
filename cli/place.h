// What of a model lies where: dry runs on a device that only counts find a placement that fits, and say so before anything is loaded.
#pragma once
#include "cli/load.h"

// Fills o->host_layers and o->expert_slots as --gpu-layers and --experts-on ask, or refuses with the amounts and a remedy. Prints the plan
// where not all is on the device, or much is.
bool place_model(struct Loaded *l, const struct Args *args, const struct SessionOptions *session,
                 struct ModelOptions *o);
