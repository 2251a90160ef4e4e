// The layers of model/layers.h backwards: the same functions in the same order, to be read side by side. A gradient of a parameter is computed
// where the parameter has one (Param.g) and added to it; frozen parameters cost nothing. dx, dy: gradients of inputs and outputs.
#pragma once
#include "model/layers.h"

// Which operand of a routed expert has a row per token instead of one per sorted slot.
enum ByToken { NEITHER, X_BY_TOKEN, DY_BY_TOKEN };
struct BackwardOptions {
    enum ByToken by_token;
    bool accumulate; // dx += instead of dx =
};

// dx (+)= dy W + scale * (dy B) A;  dW += dy^T x;  dbias += sum of dy;  dB += scale * dy^T (x A^T);  dA += scale * (dy B)^T x.
// dx NULL: not wanted. x NULL: nothing learns.
void linear_backward(struct Pass *p, const struct Linear *l, const struct Tensor *x, const struct Tensor *dy,
                     const struct Tensor *dx, const struct Routing *g, struct BackwardOptions o);
// dxn is written.
void attention_backward(struct Pass *p, uint32_t layer, const struct Tensor *xn, const struct AttentionSaved *saved,
                        const struct Tensor *dout, const struct Tensor *dxn);
// dx (+)=; with routing dx has a row per sorted slot, dy one per token, and dweights (tokens, n_active) is written. Overwrites saved.
void ffn_backward(struct Pass *p, const struct Ffn *f, const struct Tensor *x, const struct FfnSaved *saved,
                  const struct Tensor *dy, const struct Tensor *dx, const struct Routing *g,
                  const struct Tensor *dweights, bool accumulate);
// dxn is written; the residual's part is the caller's. Overwrites saved.
void moe_backward(struct Pass *p, uint32_t layer, const struct Tensor *xn, const struct MoeSaved *saved,
                  const struct Tensor *dout, const struct Tensor *dxn);
// d: gradient of the block's output on entry, of its input on return. Overwrites saved.
void block_backward(struct Pass *p, uint32_t layer, const struct BlockSaved *saved, const struct Tensor *d);
