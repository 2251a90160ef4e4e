// Expert-Specialised Fine-Tuning (Wang et al. 2024, arXiv 2407.01906): routed experts are scored on the data, and in each layer the fewest
// whose scores sum up to a threshold are trained. Lists of experts are read and written as the authors' repository has them
// (deepseek-ai/ESFT, expert_cfg.json):
//   {"experts": {"LAYER": [ids], ...}, "shared_experts": bool, "non_expert_modules": bool}, LAYER counted from the model's first layer.
#pragma once
#include "train/data.h"
#include "train/step.h"

// By layer; a layer without routed experts has none. Ids ascend.
struct ExpertList {
    uint32_t n_layers;
    uint32_t *n;         // (n_layers)
    uint32_t **ids;      // (n_layers), n[layer] each
    bool shared, others; // whether shared experts, and all that is no expert, are trained as well
};
void esft_free(struct ExpertList *l);
// Refuses layers and experts that the model does not have, and lists that leave a layer with experts out.
bool esft_read(struct ExpertList *l, const char *path, const struct Config *c);
bool esft_write(const struct ExpertList *l, const char *path, const struct Config *c);
// What is trained of a model, each expert by itself, as the authors' loader takes it: names without "model." in front. `dir` is made.
#define ESFT_FILE "esft.safetensors"
bool esft_save(struct Model *m, const char *dir);
// What a weight (of routed experts: that of expert e) is called there.
enum { ESFT_NAME_BYTES = 112 };
void esft_name(const struct WeightSpec *w, uint32_t e, char name[ESFT_NAME_BYTES]);
uint64_t esft_hash(const struct ExpertList *l);

// How an expert is scored, over all tokens of the sample; both are given as shares of their layer's sum.
enum ExpertScore {
    EXPERT_GATE, // mean of the weight with which the router takes it, 0 where it does not
    EXPERT_TOKEN // share of tokens that the router sends to it
};
struct ExpertSample {
    uint64_t examples; // drawn by the seed; 0: all
    uint64_t seed;
    uint32_t seq_len;
};
// scores: (n_layers, n_experts), zeros where a layer has none. The model must be as it is before training.
bool esft_score(struct Model *m, const struct Dataset *d, const struct ExpertSample *sample, enum ExpertScore kind,
                double *scores);
// In each layer the fewest experts whose scores sum up to `threshold`; of equal scores the lower id. scores NULL: as many as any scores could
// ask for (of no use but for a plan).
void esft_choose(struct ExpertList *l, const struct Config *c, const double *scores, double threshold);
// Those that are marked: (n_layers, n_experts).
void esft_choose_marked(struct ExpertList *l, const struct Config *c, const uint8_t *marked);
// In each layer the given share of the experts, rounded up: those with the greatest scores, or NULL as above.
void esft_choose_share(struct ExpertList *l, const struct Config *c, const double *scores, double share);
