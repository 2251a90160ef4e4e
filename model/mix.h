// Which type each tensor of a quantised GGUF gets: the mixes of llama.cpp by its names ("q4_k_m"). The same choice per tensor as
// llama-quantize makes, because files are compared by these names.
#pragma once
#include "model/modelfile.h"

struct Mix {
    const char *name;
    enum DType type;    // of most tensors
    uint32_t file_kind; // general.file_type
};
const struct Mix *mix_find(const char *name); // NULL: unknown, without a message
// `with_imatrix`: an importance matrix is used, which changes a few choices.
enum DType mix_type(const struct Mix *m, const struct Config *c, const struct WeightSpec *w, bool with_imatrix);
