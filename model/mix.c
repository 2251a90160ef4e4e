// See mix.h. The rules are llama.cpp's (llama-quant.cpp), for the tensors that the architectures here have.
#include "model/mix.h"

#include <string.h>
#include <strings.h>

enum {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
    IQ4_XS
};

static const struct Mix MIXES[] = {
    [Q4_0] = {"q4_0", DT_Q4_0, 2},        [Q4_1] = {"q4_1", DT_Q4_1, 3},      [Q5_0] = {"q5_0", DT_Q5_0, 8},
    [Q5_1] = {"q5_1", DT_Q5_1, 9},        [Q8_0] = {"q8_0", DT_Q8_0, 7},      [Q2_K] = {"q2_k", DT_Q2_K, 10},
    [Q3_K_S] = {"q3_k_s", DT_Q3_K, 11},   [Q3_K_M] = {"q3_k_m", DT_Q3_K, 12}, [Q3_K_L] = {"q3_k_l", DT_Q3_K, 13},
    [Q4_K_S] = {"q4_k_s", DT_Q4_K, 14},   [Q4_K_M] = {"q4_k_m", DT_Q4_K, 15}, [Q5_K_S] = {"q5_k_s", DT_Q5_K, 16},
    [Q5_K_M] = {"q5_k_m", DT_Q5_K, 17},   [Q6_K] = {"q6_k", DT_Q6_K, 18},     [IQ4_NL] = {"iq4_nl", DT_IQ4_NL, 25},
    [IQ4_XS] = {"iq4_xs", DT_IQ4_XS, 30},
};
enum { N_MIXES = sizeof MIXES / sizeof MIXES[0] };

const struct Mix *mix_find(const char *name) {
    for (int i = 0; i < N_MIXES; i++)
        if (strcasecmp(MIXES[i].name, name) == 0)
            return &MIXES[i];
    return NULL;
}

// The first and last eighth of the layers, and every third between.
static bool more_bits(uint32_t layer, uint32_t n) {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static enum DType of_values(int mix, const struct Config *c, uint32_t layer, enum DType type) {
    uint32_t heads_per_kv = c->n_heads / c->n_kv_heads;
    bool shared = heads_per_kv >= 4;
    if (mix == Q2_K)
        type = shared ? DT_Q4_K : DT_Q3_K;
    else if (mix == Q3_K_M)
        type = layer < 2 ? DT_Q5_K : DT_Q4_K;
    else if (mix == Q3_K_L || ((mix == IQ4_NL || mix == IQ4_XS) && shared))
        type = DT_Q5_K;
    else if ((mix == Q4_K_M || mix == Q5_K_M) && more_bits(layer, c->n_layers))
        type = DT_Q6_K;
    else if (mix == Q4_K_S && layer < 4)
        type = DT_Q5_K;
    // LLaMA2 70B and its like: 8 heads share these few weights.
    if (c->n_layers == 80 && heads_per_kv > 1 && (type == DT_Q3_K || type == DT_Q4_K))
        type = DT_Q5_K;
    return c->n_experts == 8 ? DT_Q8_0 : type;
}

static enum DType of_down(int mix, const struct Config *c, uint32_t layer, enum DType type, bool with_imatrix) {
    uint32_t n = c->n_layers;
    bool first = layer < n / 8;
    if (mix == Q2_K)
        return DT_Q3_K;
    if (mix == Q3_K_M)
        return layer < n / 16 ? DT_Q5_K : DT_Q4_K;
    if (mix == Q3_K_L)
        return DT_Q5_K;
    if (mix == Q4_K_M || mix == Q5_K_M)
        return more_bits(layer, n) ? DT_Q6_K : type;
    if (first && (mix == Q4_K_S || ((mix == IQ4_NL || mix == IQ4_XS) && !with_imatrix)))
        return DT_Q5_K;
    if (first && with_imatrix && (mix == Q4_0 || mix == Q5_0))
        return mix == Q4_0 ? DT_Q4_1 : DT_Q5_1;
    return type;
}

static enum DType of_output(int mix, const struct Config *c, enum DType type) {
    if (c->n_experts == 8)
        return mix == Q2_K || mix == Q3_K_S || mix == Q3_K_M || mix == Q4_K_S || mix == Q4_K_M || mix == IQ4_NL ||
                       mix == IQ4_XS
                   ? DT_Q5_K
                   : type;
    return mix == Q2_K ? DT_Q3_K : mix == Q3_K_M ? DT_Q4_K : mix == Q3_K_L ? DT_Q5_K : type;
}

enum DType mix_type(const struct Mix *m, const struct Config *c, const struct WeightSpec *w, bool with_imatrix) {
    int mix = (int)(m - MIXES);
    uint64_t cols = w->dim[w->n_dims - 1];
    enum DType type = m->type;
    bool has_head = !c->tied_head || c->n_experts; // GGUF's deepseek has no tied one
    if (weight_is_exact(w))
        return DT_F32;
    if (strcmp(w->gguf, "output.weight") == 0 || (w->role == ROLE_EMBED && !has_head))
        type = cols % DTYPES[type].block || type == DT_Q8_0 ? DT_Q8_0 : DT_Q6_K;
    else if (w->role == ROLE_V)
        type = of_values(mix, c, w->layer, type);
    else if (w->role == ROLE_K && c->n_experts == 8)
        type = DT_Q8_0;
    else if (w->role == ROLE_O)
        type = of_output(mix, c, type);
    else if (strstr(w->gguf, "ffn_down"))
        type = of_down(mix, c, w->layer, type, with_imatrix);
    return dtype_for_cols(type, cols);
}
