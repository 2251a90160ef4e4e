// The layers of the forward pass, from the smallest to the block. train/layers_back.h has the same functions in the same order, backwards.
// Everything is on one flat token axis (t, features) in f32. `Saved` holds what the backward needs and is filled where it is not NULL;
// without it temporaries are given back at the end of each function.
#pragma once
#include "model/model.h"

// What a pass over t tokens knows beside the weights.
struct Pass {
    struct Cmd *c;
    struct Arena *arena; // temporaries and Saved
    const struct Model *m;
    uint32_t t;              // tokens
    struct Tensor positions; // (t) u32
    struct Tensor span;      // (t, 2) u32: keys a query sees
    struct Tensor key_span;  // (t, 2) u32: queries that see a key; training only
    // Inference: keys and values live in a cache; absent in training.
    struct Tensor cache_rows;         // (t) u32: row of the cache that a token's key and value go to
    struct Tensor *cache_k, *cache_v; // per layer (rows, n_kv_heads * head_dim)
    bool decode;                      // few rows: split-KV attention
    struct Tensor done; // (t * n_heads) u32, zeros: parts that are through, of it and the draw; decode only
    // Balance loss: absent (n_groups 0) outside training.
    struct Tensor group_start, token_group, group_weight;
    uint32_t n_groups;
    struct Tensor balance; // (1) f32, accumulated
    // Where the expert choices of a layer are kept for the reader (chat's /experts): (n_layers, t, n_active) u32; may be absent.
    struct Tensor chosen;
    struct Tensor chosen_weights; // and their weights likewise, f32
};

struct AttentionSaved {
    struct Tensor q, k, v, o, lse;
    struct Tensor q_raw, k_raw, rstd_q, rstd_k; // before the norms of q and k, where there are any
};
struct FfnSaved {
    struct Tensor gate, up;
};
struct MoeSaved {
    struct Routing routing;
    struct FfnSaved routed, shared;
    struct Tensor shared_y, gate; // (t, dim), (t, 1): the shared experts' output before its gate, where there is one
    struct Tensor dbalance;       // (t, n_experts): gradient of the balance loss; may be absent
};
struct BlockSaved {
    struct Tensor x; // input of the block
    struct Tensor xn1, rstd1;
    struct AttentionSaved attention;
    struct Tensor x_mid;
    struct Tensor xn2, rstd2;
    struct FfnSaved ffn;
    struct MoeSaved moe;
};

// Rows that a layer's matrices multiply: as they are, or, with a norm's weights, passing through that RMSNorm on the way (few rows). packed: what op_operand
// made of them for several matrices, or NULL.
struct Rows {
    const struct Tensor *x, *norm;
    const struct Operand *packed;
};

// y = x W^T (+ bias) (+ adapter).
void linear_forward(struct Pass *p, const struct Linear *l, const struct Tensor *x, const struct Tensor *y);
// The same of x behind a norm.
void linear_of_norm(struct Pass *p, const struct Linear *l, const struct Param *norm, const struct Tensor *x,
                    const struct Tensor *y);
struct AttentionShape attention_shape(const struct Config *c, const struct Layer *l);
// out = attention of x, before the residual, or with accumulate added to it.
void attention_forward(struct Pass *p, uint32_t layer, struct Rows x, const struct Tensor *out, bool accumulate,
                       struct AttentionSaved *saved);
// On the arena; g: of routed experts.
struct FfnSaved ffn_saved(struct Pass *p, const struct Ffn *f, const struct Routing *g);
// y = down(silu(gate(x)) * up(x)). y NULL: only what saved holds, for recomputation.
void ffn_forward(struct Pass *p, const struct Ffn *f, struct Rows x, const struct Tensor *y, const struct Routing *g,
                 bool accumulate, const struct FfnSaved *saved);
// out = residual + shared(x) + sum over chosen experts. out NULL: only what saved holds.
void moe_forward(struct Pass *p, uint32_t layer, struct Rows x, const struct Tensor *residual, const struct Tensor *out,
                 struct MoeSaved *saved);
// y = x + attention(norm(x)), then y + ffn(norm(y)). Without saved, y may be x. With saved, y may be NULL: recomputation.
void block_forward(struct Pass *p, uint32_t layer, const struct Tensor *x, const struct Tensor *y,
                   struct BlockSaved *saved);
