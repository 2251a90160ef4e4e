// A model on a device: its parameters in one table, and layers that point into that table. A parameter carries its own gradient and
// moments where it is trained; whether it has them is the only thing that "frozen" means. Inference never sees the difference.
#pragma once
#include "model/modelwrite.h"
#include "model/ops.h"
#include "runtime/filemap.h"

struct Param {
    struct WeightSpec spec; // canonical name, role, shape; adapters: "<name of the linear>.lora_A" and ".lora_B"
    struct Tensor w;        // storage type of the model; norms and routers always f32
    struct Tensor peak;     // of w's rows, see model_find_peaks; absent: products look for them
    struct Tensor g;        // gradient, f32, same shape; absent: frozen
    struct Tensor m1, m2;   // AdamW's moments, f32
    bool mapped;            // w lies in a mapped file: nothing may write to it
    bool on_host;           // w lies in host memory (ModelOptions)
    bool decay;             // weight decay applies: matrices yes, norms and biases no
    // Of a weight stacked by expert: the experts that are trained, ascending; g, m1 and m2 are stacked by these. n_chosen 0: all.
    const uint32_t *chosen;
    uint32_t n_chosen;
};
static inline bool param_is_trained(const struct Param *p) { return p && tensor_exists(&p->g); } // NULL: there is none
// What is trained of a parameter, in pieces that lie side by side: all of it, or a run of chosen experts with consecutive numbers.
struct ParamRun {
    uint32_t first, slot, n; // number of the first expert, its place among the chosen, experts
    struct Tensor w, peak, g, m1, m2;
};
// The next one; *r is zero before the first.
bool param_next_run(const struct Param *p, struct ParamRun *r);

// A linear layer, dense (out, in) or stacked by expert (n_experts, out, in), with an optional low-rank adapter:
// y = x W^T + bias + scale * (x A^T) B^T. A is (rank, in), B (out, rank), stacked likewise; rank is padded to a multiple of 8 with zeros
// that stay zero. Nothing above knows whether there is one.
struct Linear {
    struct Param *w, *bias, *a, *b; // bias NULL: none; a, b NULL: no adapter
    float scale;
};
// The weight's type decides whether operands of its products may be rounded to 16 bits, and how: for the adapter's matrices, which are f32, too.
static inline enum DType linear_like(const struct Linear *l) { return l->w->w.type; }
struct Ffn {
    struct Linear gate, up, down;
};
struct Layer {
    struct Param *norm1, *norm2;
    struct Linear q, k, v, o;
    struct Param *q_norm, *k_norm; // over all heads together; NULL: none
    bool is_moe, has_shared;
    struct Ffn ffn;    // dense layer, or the shared experts as one wider FFN
    struct Ffn routed; // stacked by expert
    struct Ffn pooled; // stacked by slot, where experts are streamed (experts.h)
    struct Linear router;
    struct Linear shared_gate; // (1, dim); w NULL: none
};

struct Model {
    struct Config config;
    struct Device *dev;
    struct Arena arena, adapters; // the weights; what model_add_lora adds
    struct Arena host, pool;      // weights that lie in host memory; slots of streamed experts
    struct FileMap **maps;        // of the files that weights are read from where they are; NULL: none of that file
    uint32_t n_maps;
    struct ExpertCache *experts; // NULL: nothing is streamed
    struct Param *params;
    uint32_t n_params, n_base;         // adapters follow the base parameters
    struct Param *embed, *norm, *head; // head is embed when tied
    struct Layer *layers;
    struct Tensor rope; // (max_positions, head_dim/2, 2) f32: cosine, sine, both times rope_magnitude
    uint32_t max_positions;
};

struct ModelOptions {
    enum DType type;        // store matrices as this; DT_COUNT: as in the file
    uint32_t max_positions; // 0: the model's context
    uint32_t host_layers;  // the weights of so many last layers lie in host memory, which the device reads over the bus
    uint32_t expert_slots; // above 0: routed experts lie in host memory and are streamed through so many slots
    // For inference alone: weights that stand in the file as they would on the device (plain types, aligned, in our order) are not copied but
    // read from its mapping, where the device can (runtime/filemap.h). They take none of its memory.
    bool map;
    void (*progress)(void *context, uint64_t done_bytes, uint64_t all_bytes); // NULL: none
    void *progress_context;
};

// Builds the tables for a config and takes the memory; contents are undefined. Works on a dry device.
bool model_init(struct Model *m, struct Device *dev, const struct Config *c, enum DType type, uint32_t max_positions);
// The same where the options say more than a type (DT_COUNT: f32).
bool model_init_with(struct Model *m, struct Device *dev, const struct Config *c, const struct ModelOptions *o);
// model_init, then the weights of the file. `file` must outlive nothing.
bool model_load(struct Model *m, struct Device *dev, const struct ModelFile *file, const struct ModelOptions *o);
// Random weights, N(0, init_std), norms 1, biases 0; the same for the same seed on every device.
bool model_randomise(struct Model *m, uint64_t seed);
// The same for measurements, in the time that copying takes: a matrix beyond 2^20 elements repeats its first rows.
bool model_fill(struct Model *m, uint64_t seed);
void model_free(struct Model *m);
// Bytes of the base weights as model_init would take them (for plans).
uint64_t model_weight_bytes(const struct Config *c, enum DType type);

// Random values of n elements of a base weight from element `first` on, for model_randomise and `init` alike.
void model_random_values(const struct Config *c, const struct WeightSpec *w, uint64_t seed, uint64_t first, uint64_t n,
                         float *out);

// A parameter's rows between host f32 and the device.
bool param_read(struct Device *dev, const struct Param *p, uint64_t first_row, uint64_t n_rows, float *out);
bool param_write(struct Device *dev, const struct Param *p, uint64_t first_row, uint64_t n_rows, const float *in);
// Products on units of f16 alone want the peaks of w's rows (peak.glsl). They are found here once, where the device has such units, for weights that lack them;
// before anything is recorded, after what is trained has its gradient. Whatever writes w from then on has them found again: programs hold their address.
bool model_find_peaks(struct Model *m);
// The host has written to p->w: finds its peaks again, where there are any.
bool param_written(struct Device *dev, const struct Param *p);
struct Param *model_param(const struct Model *m, const char *name); // of the base; NULL: there is none
// A source for modelwrite: the weights on the device, adapters left out.
struct WeightSource model_source(struct Model *m);

// ---- Adapters. Which linears get one: by exact name of the projection.
enum LoraTarget {
    LORA_Q = 1,
    LORA_K = 2,
    LORA_V = 4,
    LORA_O = 8,
    LORA_FFN = 16,     // gate, up, down of dense layers
    LORA_SHARED = 32,  // of shared experts
    LORA_EXPERTS = 64, // of routed experts
    LORA_ROUTER = 128,
    LORA_ALL = 127 // every linear but router and head
};
struct LoraOptions {
    uint32_t rank;
    float alpha; // scale = alpha / rank, or alpha / sqrt(rank)
    uint32_t targets;
    bool rank_stabilised; // the latter (Kalajdzievski 2023, arXiv 2312.03732)
};
float lora_scale(const struct LoraOptions *o);
// Adds adapters with A ~ U(-1/sqrt(in), 1/sqrt(in)) as published, B = 0. A target that matches nothing fails by name.
bool model_add_lora(struct Model *m, const struct LoraOptions *o, uint64_t seed);
// The adapters' scale times `factor` from now on, by the scale they were made with; programs recorded before know nothing of it.
void model_scale_lora(struct Model *m, const struct LoraOptions *o, float factor);
// The linear with this weight, where it has an adapter; else NULL.
const struct Linear *model_adapted(const struct Model *m, const char *name);
// Takes all adapters off; nothing that was recorded with them may run any more.
void model_remove_lora(struct Model *m);
static inline uint32_t lora_padded_rank(uint32_t rank) { return (rank + 7) / 8 * 8; }
