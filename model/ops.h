// One function per operation: it picks the kernel for the device at hand, the grid and the specialisation constants, and records the dispatch.
// Nothing here allocates but through the arena it is given for scratch. All activations are f32 (rows, features) on one flat token axis:
// a batch of documents or sequences is only a matter of positions and spans. Formulas stand above each function; backward
// operations have the name of the forward one with _back. Matrix functions are in ops_linear.c, attention in ops_attention.c.
#pragma once
#include "runtime/cmd.h"

// So many rows at most go to the matrix-vector kernels, are routed without a sort, and are decoded together (SESSION_GROUP).
enum { FEW_ROWS = 8 };

// What the expert GEMMs of one MoE layer share: the slots (token, k) sorted by expert. Made once per layer by op_sort, used by forward
// and backward. rows = tokens * n_active.
struct Routing {
    uint32_t tokens, n_experts, n_active, tile_rows, max_tiles;
    struct Tensor weights;    // (tokens, n_active) f32: combine weights
    struct Tensor experts;    // (tokens, n_active) u32
    struct Tensor probs;      // (tokens, n_experts) f32: softmax over all experts
    struct Tensor offsets;    // (n_experts + 1) u32: first sorted row of each expert
    struct Tensor gather;     // (rows) u32: token of each sorted row
    struct Tensor slot_row;   // (tokens, n_active) u32: sorted row of each slot
    struct Tensor row_expert; // (rows) u32: expert of each sorted row
    struct Tensor tiles;      // (max_tiles, 4) u32: expert, first row, rows, 0
    struct Tensor grid;       // (8) u32: [0] tiles in use, [1..3] 0, then free for indirect triples
};

// ---- Matrices (ops_linear.c). Weights (n,k) or (n_experts, n, k) of any storage type; k a multiple of 8 (32 when quantised).
// g NULL: dense. With g: rows are the sorted rows of g, weights are stacked by expert. gather: x (or dy) has a row per token, read through g->gather.
// Rows rounded to the 16 bits that matrix units take, in the order of use, padded with zeros to a multiple of eight numbers. With peaks (rows) u32 they are of
// f16 and were brought to its range, see peak.glsl.
struct Operand {
    struct Tensor rows, peak;
};
struct LinearOptions {
    float alpha;     // 0 means 1
    bool accumulate; // y += instead of y =
    bool gather;
    // Of dw, and of f32 weights: round operands to 16 bits as for weights of this type (an adapter takes its base's). DT_F32: do not round.
    enum DType like;
    // w is a gate's and this is what it lets through: y = silu(x w^T) * (x swiglu^T). Few rows alone (linear_is_few).
    const struct Tensor *swiglu;
    // x passes through an RMSNorm with these weights (f32, f16 or bf16) and this eps on its way. Few rows alone.
    const struct Tensor *norm;
    float eps;
    // For what matrix units want ready in memory; for parts of dw's sum. NULL: those are not used.
    struct Arena *scratch;
    // x (dy) as op_operand made it for this g and gather, and beside dy the x of dw. NULL or none: made for this multiply alone.
    const struct Operand *packed, *packed_x;
    // Of op_linear: peaks of w's rows as op_peaks finds them, where they are kept (linear_wants_peaks). NULL or absent: found for this multiply alone.
    const struct Tensor *peak;
    // y += more_x more_w^T, of dx: dx += more_x more_w, along with the rest where a body can: an adapter's wide product. more_x (m,r) f32, more_w f32, with
    // alpha 1. NULL: there is none.
    const struct Tensor *more_x, *more_w;
};
// x (or dy) as the operand of several multiplies with the same g and gather, on top of scratch; none where they take it as it is. OF_PRODUCT: of op_linear and
// op_linear_dx, which op_linear_dw may take too; OF_GRADIENT: of op_linear_dw alone. `like`: the weights' type, or as above.
enum OperandOf { OF_PRODUCT, OF_GRADIENT };
struct Operand op_operand(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Routing *g,
                          bool gather, enum OperandOf of, enum DType like);
// Bits of the greatest magnitude of each row of w (rows, cols), or of each column of its matrices (w 2-d or a stack of 3): peak u32, see peak.glsl.
void op_peaks(struct Cmd *c, const struct Tensor *w, bool columns, const struct Tensor *peak);
// Whether op_linear, of more than few rows and with scratch, looks for the peaks of weights of this type: then they are worth keeping.
bool linear_wants_peaks(struct Device *dev, enum DType type);
// y(m,n) = alpha * x(m,k) w(n,k)^T. Up to 8 dense rows (or 8 * n_active sorted rows of at most 8 tokens) go to the matrix-vector kernel, whose result for a row
// does not depend on its neighbours; nor does that of the tiled ones.
void op_linear(struct Cmd *c, const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
               const struct Routing *g, struct LinearOptions o);
// dx(m,k) = alpha * dy(m,n) w(n,k)
void op_linear_dx(struct Cmd *c, const struct Tensor *dy, const struct Tensor *w, const struct Tensor *dx,
                  const struct Routing *g, struct LinearOptions o);
// dw(n,k) = alpha * dy(m,n)^T x(m,k), f32; experts without a row get zeros (or keep their value when accumulating).
// gather applies to x; gather_dy to dy.
void op_linear_dw(struct Cmd *c, const struct Tensor *dy, const struct Tensor *x, const struct Tensor *dw,
                  const struct Routing *g, struct LinearOptions o, bool gather_dy);
// Few rows of x by n (2 or 3) matrices of one type in one dispatch: y[i] = x w[i]^T. Behind the first all are of one shape.
void op_linear_beside(struct Cmd *c, const struct Tensor *x, uint32_t n, const struct Tensor *const *w,
                      const struct Tensor *y, struct LinearOptions o);
// Few tokens' chosen experts and their shared ones in one dispatch. All matrices of one type; those of the shared experts, (parts * n, k), are as wide as
// `parts` experts. y (tokens, n_active + parts, n) = silu(x gate^T) * (x up^T), the experts' rows in the order of slots, then the shared ones'.
struct Gated {
    const struct Tensor *gate, *up;
};
void op_experts_up(struct Cmd *c, const struct Tensor *x, struct Gated routed, struct Gated shared,
                   const struct Routing *g, const struct Tensor *y, struct LinearOptions o);
// y (tokens, n) += h's shared rows shared^T + sum_k weights[t,k] * h[t,k] w^T, in the order of op_combine and to the same bits. h as op_experts_up leaves it;
// shared (n, parts * k), of w's type, may be NULL (parts 0).
void op_experts_down(struct Cmd *c, const struct Tensor *h, const struct Tensor *w, const struct Tensor *shared,
                     const struct Routing *g, const struct Tensor *y);
// Whether so many rows, or the tokens of g, go to the matrix-vector kernel.
bool linear_is_few(uint32_t rows, const struct Routing *g);
// Height of the row tiles that the expert GEMMs of this device want for so many rows over so many experts.
uint32_t linear_tile_rows(const struct Device *dev, uint32_t rows, uint32_t n_experts);

// ---- Rows
// y(t,dim) = table[ids[t]], or with ids NULL the first rows of the table, unpacked. table of any storage type, y f32, f16 or bf16.
void op_embed(struct Cmd *c, const struct Tensor *ids, const struct Tensor *table, const struct Tensor *y);
// NEFTune's noise on x (t, dim), as push.h has it. positions (t), examples (t, 2), key (4) u32.
void op_noise(struct Cmd *c, const struct Tensor *x, const struct Tensor *positions, const struct Tensor *examples,
              const struct Tensor *key);
// order (t), segment_start (t+1), segment_id (t), n_segments (4: count, 1, 1, 0): positions of equal ids grouped, made by the host; dw f32.
void op_embed_back(struct Cmd *c, const struct Tensor *dy, const struct Tensor *order,
                   const struct Tensor *segment_start, const struct Tensor *segment_id, const struct Tensor *n_segments,
                   const struct Tensor *dw);
// y = x * rstd * w; rstd (rows) may be NULL. w f32, f16 or bf16.
void op_rmsnorm(struct Cmd *c, const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
                const struct Tensor *rstd, float eps);
// dx = rstd * (w*dy - x * rstd^2 * mean(w*dy*x)), added to dx where accumulate; dw += sum over rows of dy * x * rstd (dw NULL: frozen). Scratch for partial sums.
void op_rmsnorm_back(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Tensor *w,
                     const struct Tensor *rstd, const struct Tensor *dy, const struct Tensor *dx, bool accumulate,
                     const struct Tensor *dw);
// In place on (rows, n_heads * head_dim); table (max_position, head_dim/2, 2) f32: cosine, sine. sign -1: backward.
void op_rope(struct Cmd *c, const struct Tensor *x, const struct Tensor *positions, const struct Tensor *table,
             uint32_t n_heads, float sign);
// The same of q in place, and of k on its way to rows index[i] of a cache of keys; v goes to the same rows of one of values as it is. An index beyond the caches is
// skipped. Caches of one type: f32, f16, bf16, or q8_0 (head_dim then a multiple of 32).
void op_rope_store(struct Cmd *c, const struct Tensor *q, const struct Tensor *k, const struct Tensor *v,
                   const struct Tensor *positions, const struct Tensor *table, uint32_t n_heads, uint32_t n_kv_heads,
                   const struct Tensor *index, const struct Tensor *cache_k, const struct Tensor *cache_v);
void op_swiglu(struct Cmd *c, const struct Tensor *gate, const struct Tensor *up, const struct Tensor *h);
// In place: dh becomes h where keep_h (else unspecified), gate becomes dgate, up becomes dup.
void op_swiglu_back(struct Cmd *c, const struct Tensor *gate, const struct Tensor *up, const struct Tensor *dh,
                    bool keep_h);
void op_add(struct Cmd *c, const struct Tensor *a, const struct Tensor *b, const struct Tensor *y); // y may be a
// y[i,j] += bias[j], f32; dbias[j] += sum over rows of dy[i,j], in a fixed order.
void op_bias(struct Cmd *c, const struct Tensor *y, const struct Tensor *bias);
void op_bias_back(struct Cmd *c, struct Arena *scratch, const struct Tensor *dy, const struct Tensor *dbias);
// y[i,j] = sigmoid(gate[i]) * x[i,j]; gate (rows, 1); y may be x.
void op_gate(struct Cmd *c, const struct Tensor *gate, const struct Tensor *x, const struct Tensor *y);
// dgate[i] = s (1 - s) <dy[i], x[i]> with s = sigmoid(gate[i]), then x[i] = s * dy[i] in place.
void op_gate_back(struct Cmd *c, const struct Tensor *gate, const struct Tensor *dy, const struct Tensor *x,
                  const struct Tensor *dgate);
// y[i] = x[index[i]], or x[i] where index is NULL; y f32, f16 or bf16.
void op_gather_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index, const struct Tensor *y);
void op_pack_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index,
                  const struct Operand *to); // the same
// y[index[i]] = x[i] or += x[i], f32.
void op_scatter_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index, const struct Tensor *y,
                     bool accumulate);

// ---- Mixture of experts
// Allocates all tensors of a Routing. Few tokens (at most 8) need no sort: sorted order is slot order.
struct Routing routing_make(struct Arena *a, const struct Device *dev, uint32_t tokens, uint32_t n_experts,
                            uint32_t n_active);
// probs = softmax(logits) over all experts; the n_active greatest (ties: lower index first, in descending order); weights are their probs, divided
// by their sum + 1e-20 when norm_topk and n_active > 1, else times scale. Of few tokens also gather, slot_row, row_expert, tiles and grid, where there
// is room for them.
void op_route(struct Cmd *c, const struct Tensor *logits, const struct Routing *r, bool norm_topk, float scale);
// Fills offsets, gather, slot_row, row_expert, tiles, grid: a stable counting sort; of few tokens op_route has made all but offsets.
void op_sort(struct Cmd *c, struct Arena *scratch, const struct Routing *r);
// Numbers of map (n_experts) u32 in the place of experts in row_expert and tiles.
void op_remap(struct Cmd *c, const struct Routing *r, const struct Tensor *map);
// dlogits from dweights (tokens, n_active) through selection and softmax; dbalance (tokens, n_experts) gradient with respect to probs may be NULL.
void op_route_back(struct Cmd *c, const struct Routing *r, const struct Tensor *dweights, const struct Tensor *dbalance,
                   const struct Tensor *dlogits, bool norm_topk, float scale);
// Balance loss (DeepSeekMoE eq. 12-14 per group of tokens): for group g with tokens t: f[e] = n_experts/(n_active*len) * count of slots on e,
// P[e] = mean of probs[t,e]; loss += alpha * sum_g group_weight[g] * sum_e f[e] P[e]; dbalance[t,e] = alpha * group_weight[g] * f[e] / len.
// token_group (tokens) u32 (0xffffffff: padding, not counted, dbalance 0); group_start (n_groups+1) u32: the tokens of group g lie from
// group_start[g] up to group_start[g+1], possibly with padding between; a group without tokens counts for nothing.
void op_balance(struct Cmd *c, struct Arena *scratch, const struct Routing *r, const struct Tensor *group_start,
                const struct Tensor *token_group, const struct Tensor *group_weight, uint32_t n_groups, float alpha,
                const struct Tensor *loss, const struct Tensor *dbalance);
// out[t] = residual[t] + shared[t] + sum_k weights[t,k] * y[slot_row[t,k]]; shared and residual may be NULL.
void op_combine(struct Cmd *c, const struct Routing *r, const struct Tensor *y, const struct Tensor *shared,
                const struct Tensor *residual, const struct Tensor *out);
// The backward of op_combine and op_swiglu at once, behind a down projection that read dout by token: of dh (rows, width), which no weight has met yet,
// dweights[t,k] = <dh[row], h[row]>; then in place with w = weights[t,k]: gate and up become their gradients for w * dh, dh becomes w * h.
void op_expert_swiglu_back(struct Cmd *c, const struct Routing *r, const struct Tensor *gate, const struct Tensor *up,
                           const struct Tensor *dh, const struct Tensor *dweights);
// dx[t] (+)= sum_k dslots[slot_row[t,k]]: the gather's backward (op_combine with weights 1).
void op_gather_back(struct Cmd *c, const struct Routing *r, const struct Tensor *dslots, const struct Tensor *residual,
                    const struct Tensor *out);

// ---- Attention (ops_attention.c). Query row i sees keys span[i][0] .. span[i][1]-1 (0 keys: zeros). head_dim a multiple of 8, up to 256.
struct AttentionShape {
    uint32_t n_heads, n_kv_heads, head_dim;
    float scale; // 1/sqrt(head_dim)
    bool coarse; // operands may be rounded to 16 bits (matrix units); set it where the weights are not f32 either
};
// How cache.glsl calls a storage type of keys and values: f32, f16, bf16 or q8_0.
uint32_t cache_code(enum DType type);
// q (rows, n_heads*head_dim), k, v (key_rows, n_kv_heads*head_dim) of one cache type (q8_0: head_dim a multiple of 32), span (rows, 2) u32, o as q, lse (rows, n_heads) or NULL.
void op_attention(struct Cmd *c, struct Arena *scratch, const struct Tensor *q, const struct Tensor *k,
                  const struct Tensor *v, const struct Tensor *span, const struct Tensor *o, const struct Tensor *lse,
                  struct AttentionShape s);
// The same for at most 64 rows with long spans (decode): keys split over workgroups. The result of a row does not depend on other rows.
// done (rows * n_heads) u32: zeros, and zeros again behind it.
void op_attention_decode(struct Cmd *c, struct Arena *scratch, const struct Tensor *done, const struct Tensor *q,
                         const struct Tensor *k, const struct Tensor *v, const struct Tensor *span,
                         const struct Tensor *o, struct AttentionShape s);
// dq, dk, dv (written) from do; span as above; key_span (key_rows, 2): the query rows that may see a key. Deterministic, no atomics.
void op_attention_back(struct Cmd *c, struct Arena *scratch, const struct Tensor *q, const struct Tensor *k,
                       const struct Tensor *v, const struct Tensor *o, const struct Tensor *lse,
                       const struct Tensor *dout, const struct Tensor *span, const struct Tensor *key_span,
                       const struct Tensor *dq, const struct Tensor *dk, const struct Tensor *dv,
                       struct AttentionShape s);

// Its operands for matrix units, of a 16-bit type: see attention_back_pack.comp. delta (rows, n_heads, 2) f32. Rows of q_packed beyond q's are zeros.
void op_attention_back_pack(struct Cmd *c, const struct Tensor *q, const struct Tensor *o, const struct Tensor *dout,
                            const struct Tensor *q_packed, const struct Tensor *dout_packed, const struct Tensor *delta,
                            struct AttentionShape s);

// ---- Loss, optimiser, sampling
// Numbers of one step that change between replays: one small ARENA_HOST tensor of 32-bit words, in this order.
struct StepParams {
    float inv_labels; // 1 / sum of the weights of the labelled tokens of the whole batch
    float learning_rate;
    float beta1, beta2, eps;
    float correction1, correction2;               // 1 - beta^step
    float clip_norm;                              // 0: no clipping
    uint32_t seed_low, seed_high, step, reserved; // counter of stochastic rounding
};
// What a step leaves behind, ARENA_HOST.
struct StepResult {
    float loss;      // sum of losses over labelled tokens, times their weights (not yet divided)
    float balance;   // balance loss, times alpha, weights applied
    float grad_norm; // before clipping
    float clip;      // factor applied to gradients
    uint32_t finite; // 0: the gradient norm or the loss is not finite, nothing was updated
    uint32_t reserved[3];
};
// logits (rows, vocab): loss (rows) = logsumexp - logit[target], 0 where target is 0xffffffff; with backward logits become (softmax - onehot) * inv_labels.
// Without backward params may be NULL and logits keep their value.
// weights (rows) of losses and gradients, f32, may be NULL: 1.
void op_xent(struct Cmd *c, const struct Tensor *logits, const struct Tensor *targets, const struct Tensor *loss,
             const struct Tensor *params, const struct Tensor *weights, bool backward);
// out[index] += sum of all elements of x, in fixed order. out: f32 words (a StepResult).
void op_sum(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Tensor *out, uint32_t index);
// Global norm of n gradients (f32): result.grad_norm, clip, finite (also looks at result.loss). Partial sums per tensor, fixed order.
void op_norm(struct Cmd *c, struct Arena *scratch, const struct Tensor *grads, uint32_t n, const struct Tensor *params,
             const struct Tensor *result);
// The same piece by piece, for gradients that do not exist at the same time: op_norm_parts writes norm_parts(elements) sums from part[first]
// on (part: f32), op_norm_finish makes the result of all of them; parts that were not written yet must be 0.
uint32_t norm_parts(uint64_t elements);
void op_norm_parts(struct Cmd *c, const struct Tensor *grad, const struct Tensor *part, uint32_t first);
void op_norm_finish(struct Cmd *c, const struct Tensor *part, uint32_t n_parts, const struct Tensor *params,
                    const struct Tensor *result);
// AdamW (Loshchilov & Hutter 2019) with decoupled decay: w -= lr * (decay * w + m1hat / (sqrt(m2hat) + eps)); gradients times result.clip; nothing
// happens when result.finite is 0. w f32, or bf16 with stochastic rounding from philox(seed, (tensor_index, step), element / 8).
// The tensors may be a part of what tensor_index names, from its element `first` (a multiple of 64) on. Moments of g's shape in f32, or (adamw8_words) words a row of blocks that adamw.comp describes: 8 bits an element.
static inline uint64_t adamw8_words(uint64_t elements) { return (elements + 63) / 64 * 17; }
void op_adamw(struct Cmd *c, const struct Tensor *w, const struct Tensor *g, const struct Tensor *m1,
              const struct Tensor *m2, const struct Tensor *params, const struct Tensor *result, uint32_t tensor_index,
              uint32_t first, float decay);
// Parameters of sampling, one per row, in an ARENA_HOST tensor.
struct SampleParams {
    float temperature; // 0: greedy
    float top_p, min_p;
    uint32_t top_k;                              // 0: off
    uint32_t seed_low, seed_high, stream, index; // one philox draw per token: (seed, stream, index)
    float typical;                               // 0 or 1: off
    float tau, eta,
        mu; // mirostat 2 (Basu et al. 2021), bits: surprise aimed at (0: off), rate, and the most that now goes in
};
enum { SAMPLE_WORDS = sizeof(struct SampleParams) / 4 };
// ids[row] = the sampled token, logprob[row] = its log-probability under the unmodified distribution, chance[row] = the log of the
// probability with which it was drawn, after all filters (both may be NULL). The filters in their order, each on what the ones before have
// left: top-k, typical, top-p, min-p (measured by the likeliest that is left), all at temperature 1; the temperature; mirostat.
// With `done`, (rows) u32, zeros, and zeros again behind it, several workgroups share a row's first pass, as a card wants it; NULL: one takes
// all. The bits are the same.
void op_sample(struct Cmd *c, struct Arena *scratch, const struct Tensor *done, const struct Tensor *logits,
               const struct Tensor *params, const struct Tensor *ids, const struct Tensor *logprob,
               const struct Tensor *chance);
// logits (rows, vocab) f32, in place: list (u32, ARENA_HOST or device) holds n, then n pairs of a token and the bits of an f32 to add to its logit;
// the same token must not stand in it twice. The list has room for (elements - 1) / 2 pairs.
void op_logit_bias(struct Cmd *c, const struct Tensor *logits, const struct Tensor *list);
// y = logits (rows, vocab), out of reach of any draw where the token's bit in mask (rows, words of 32 tokens, lowest bit first) is 0. mask NULL:
// all allowed.
void op_mask_logits(struct Cmd *c, const struct Tensor *logits, const struct Tensor *mask, const struct Tensor *y);
// In place: list (rows, 4 + 2 * room) u32, see PUSH_penalty. No token stands twice in the list of a row.
void op_penalty(struct Cmd *c, const struct Tensor *logits, const struct Tensor *list);
// What rows drew (next, logprob) goes in next: see PUSH_follow. All but logprob are u32.
struct Follow {
    struct Tensor next, logprob, ids, positions, span, cache_rows, params, drawn;
};
void op_follow(struct Cmd *c, const struct Follow *f);
void op_argmax(struct Cmd *c, const struct Tensor *logits, const struct Tensor *ids, const struct Tensor *logprob);
