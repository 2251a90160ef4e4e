// Backward of every layer, in the mirror order of model/layers.c. What forward saved is on the arena below; temporaries go on top of it
// and are popped at the end of each function.
#include "train/layers_back.h"
#include <assert.h>
#include <math.h>

static const struct BackwardOptions WRITE = {NEITHER, false}, ADD = {NEITHER, true}; // of dense layers
static const struct Tensor *gradient(const struct Param *w) { return param_is_trained(w) ? &w->g : NULL; }

// dw += alpha * dy^T x, of the chosen experts alone where there is a choice: a run of them is a routing of fewer experts, whose rows the same
// list of offsets bounds.
static void weight_backward(struct Pass *p, const struct Param *w, const struct Tensor *dy, const struct Tensor *x,
                            const struct Routing *g, enum ByToken by_token, struct LinearOptions o) {
    o.accumulate = true;
    o.gather = by_token == X_BY_TOKEN;
    o.scratch = p->arena;
    for (struct ParamRun run = {0}; param_next_run(w, &run);) {
        struct Routing part = g ? *g : (struct Routing){0};
        if (w->n_chosen) {
            assert(g && !linear_is_few(0, g));
            part.n_experts = run.n;
            part.offsets = tensor_slice(&g->offsets, run.first, run.n + 1);
        }
        op_linear_dw(p->c, dy, x, &run.g, g ? &part : NULL, o, by_token == DY_BY_TOKEN);
    }
}

void linear_backward(struct Pass *p, const struct Linear *l, const struct Tensor *x, const struct Tensor *dy,
                     const struct Tensor *dx, const struct Routing *g, struct BackwardOptions o) {
    enum DType like = linear_like(l);
    bool gather_dy = o.by_token == DY_BY_TOKEN, gather_x = o.by_token == X_BY_TOKEN;
    bool adapter_learns = x && param_is_trained(l->a);
    bool adapted = l->a && l->scale != 0 && (dx || adapter_learns);
    if (!dx && !adapted && !(x && (param_is_trained(l->w) || param_is_trained(l->bias))))
        return;
    struct ArenaMark mark = arena_mark(p->arena);
    enum OperandOf dy_of = dx || adapted ? OF_PRODUCT : OF_GRADIENT, x_of = adapter_learns ? OF_PRODUCT : OF_GRADIENT;
    struct Operand packed_dy = op_operand(p->c, p->arena, dy, g, gather_dy, dy_of, like), packed_x = {0};
    struct Tensor dh, h;
    struct LinearOptions of_dy = {.gather = gather_dy, .like = like, .scratch = p->arena, .packed = &packed_dy};
    if (x && (adapter_learns || param_is_trained(l->w)))
        packed_x = op_operand(p->c, p->arena, x, g, gather_x, x_of, like);
    if (x && param_is_trained(l->w))
        weight_backward(p, l->w, dy, x, g, o.by_token,
                        (struct LinearOptions){.like = like, .packed = &packed_dy, .packed_x = &packed_x});
    if (x && param_is_trained(l->bias)) {
        assert(!g); // experts have none
        op_bias_back(p->c, p->arena, dy, &l->bias->g);
    }
    struct LinearOptions wide = of_dy;
    wide.accumulate = o.accumulate;
    if (adapted) { // dh = scale dy B
        struct LinearOptions narrow = of_dy;
        narrow.alpha = l->scale;
        dh = TENSOR(p->arena, DT_F32, g ? g->tokens * g->n_active : (uint32_t)tensor_rows(dy),
                    l->a->w.dim[l->a->w.n_dims - 2]);
        op_linear_dx(p->c, dy, &l->b->w, &dh, g, narrow);
        wide.more_x = &dh, wide.more_w = &l->a->w;
    }
    if (dx)
        op_linear_dx(p->c, dy, &l->w->w, dx, g, wide);
    if (adapted && adapter_learns) { // h = scale x A^T
        h = TENSOR(p->arena, DT_F32, dh.dim[0], dh.dim[1]);
        op_linear(p->c, x, &l->a->w, &h, g,
                  (struct LinearOptions){
                      .gather = gather_x, .alpha = l->scale, .like = like, .scratch = p->arena, .packed = &packed_x});
        weight_backward(p, l->b, dy, &h, g, gather_dy ? DY_BY_TOKEN : NEITHER,
                        (struct LinearOptions){.like = like, .packed = &packed_dy});
        weight_backward(p, l->a, &dh, x, g, gather_x ? X_BY_TOKEN : NEITHER,
                        (struct LinearOptions){.like = like, .packed_x = &packed_x});
    }
    arena_release(p->arena, mark);
}

// dx = norm's backward of dx, in a new tensor.
static void head_norm_backward(struct Pass *p, const struct Param *norm, const struct Tensor *raw,
                               const struct Tensor *rstd, struct Tensor *dx) {
    if (!norm)
        return;
    struct Tensor d = TENSOR(p->arena, DT_F32, p->t, tensor_cols(dx));
    op_rmsnorm_back(p->c, p->arena, raw, &norm->w, rstd, dx, &d, false, gradient(norm));
    *dx = d;
}

void attention_backward(struct Pass *p, uint32_t layer, const struct Tensor *xn, const struct AttentionSaved *s,
                        const struct Tensor *dout, const struct Tensor *dxn) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct Tensor d_o = TENSOR(p->arena, DT_F32, p->t, c->n_heads * c->head_dim);
    struct Tensor dq = TENSOR(p->arena, DT_F32, p->t, c->n_heads * c->head_dim);
    struct Tensor dk = TENSOR(p->arena, DT_F32, p->t, c->n_kv_heads * c->head_dim);
    struct Tensor dv = TENSOR(p->arena, DT_F32, p->t, c->n_kv_heads * c->head_dim);
    linear_backward(p, &l->o, &s->o, dout, &d_o, NULL, WRITE);
    op_attention_back(p->c, p->arena, &s->q, &s->k, &s->v, &s->o, &s->lse, &d_o, &p->span, &p->key_span, &dq, &dk, &dv,
                      attention_shape(c, l));
    op_rope(p->c, &dq, &p->positions, &p->m->rope, c->n_heads, -1);
    op_rope(p->c, &dk, &p->positions, &p->m->rope, c->n_kv_heads, -1);
    head_norm_backward(p, l->q_norm, &s->q_raw, &s->rstd_q, &dq);
    head_norm_backward(p, l->k_norm, &s->k_raw, &s->rstd_k, &dk);
    linear_backward(p, &l->q, xn, &dq, dxn, NULL, WRITE);
    linear_backward(p, &l->k, xn, &dk, dxn, NULL, ADD);
    linear_backward(p, &l->v, xn, &dv, dxn, NULL, ADD);
    arena_release(p->arena, mark);
}

void ffn_backward(struct Pass *p, const struct Ffn *f, const struct Tensor *x, const struct FfnSaved *s,
                  const struct Tensor *dy, const struct Tensor *dx, const struct Routing *g,
                  const struct Tensor *dweights, bool accumulate) {
    struct ArenaMark mark = arena_mark(p->arena);
    struct Tensor h = TENSOR(p->arena, DT_F32, s->gate.dim[0], s->gate.dim[1]);
    enum ByToken down = g ? DY_BY_TOKEN : NEITHER, up = g ? X_BY_TOKEN : NEITHER;
    linear_backward(p, &f->down, NULL, dy, &h, g, (struct BackwardOptions){down, false}); // dh
    // gate, up: their gradients; dh: h again, of an expert times the weight that dy lacks
    if (g)
        op_expert_swiglu_back(p->c, g, &s->gate, &s->up, &h, dweights);
    else
        op_swiglu_back(p->c, &s->gate, &s->up, &h, true);
    linear_backward(p, &f->down, &h, dy, NULL, g, (struct BackwardOptions){down, false});
    linear_backward(p, &f->gate, x, &s->gate, dx, g, (struct BackwardOptions){up, accumulate});
    linear_backward(p, &f->up, x, &s->up, dx, g, (struct BackwardOptions){up, true});
    arena_release(p->arena, mark);
}

void moe_backward(struct Pass *p, uint32_t layer, const struct Tensor *xn, const struct MoeSaved *s,
                  const struct Tensor *dout, const struct Tensor *dxn) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    const struct Routing *r = &s->routing;
    struct ArenaMark mark = arena_mark(p->arena);
    struct Tensor dweights = TENSOR(p->arena, DT_F32, p->t, c->n_active);
    struct Tensor dslots = TENSOR(p->arena, DT_F32, p->t * c->n_active, c->dim);
    struct Tensor dlogits = TENSOR(p->arena, DT_F32, p->t, c->n_experts);
    ffn_backward(p, &l->routed, xn, &s->routed, dout, &dslots, r, &dweights, false);
    op_gather_back(p->c, r, &dslots, NULL, dxn);
    if (l->has_shared && l->shared_gate.w) {
        struct Tensor dgate = TENSOR(p->arena, DT_F32, p->t, 1);
        op_gate_back(p->c, &s->gate, dout, &s->shared_y, &dgate); // shared_y becomes its gradient
        linear_backward(p, &l->shared_gate, xn, &dgate, dxn, NULL, ADD);
    }
    if (l->has_shared)
        ffn_backward(p, &l->ffn, xn, &s->shared, l->shared_gate.w ? &s->shared_y : dout, dxn, NULL, NULL, true);
    op_route_back(p->c, r, &dweights, tensor_exists(&s->dbalance) ? &s->dbalance : NULL, &dlogits, c->norm_topk,
                  c->routed_scale);
    linear_backward(p, &l->router, xn, &dlogits, dxn, NULL, ADD);
    arena_release(p->arena, mark);
}

void block_backward(struct Pass *p, uint32_t layer, const struct BlockSaved *s, const struct Tensor *d) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct Tensor dxn = TENSOR(p->arena, DT_F32, p->t, c->dim);
    if (l->is_moe)
        moe_backward(p, layer, &s->xn2, &s->moe, d, &dxn);
    else
        ffn_backward(p, &l->ffn, &s->xn2, &s->ffn, d, &dxn, NULL, NULL, false);
    op_rmsnorm_back(p->c, p->arena, &s->x_mid, &l->norm2->w, &s->rstd2, &dxn, d, true, gradient(l->norm2));
    attention_backward(p, layer, &s->xn1, &s->attention, d, &dxn);
    op_rmsnorm_back(p->c, p->arena, &s->x, &l->norm1->w, &s->rstd1, &dxn, d, true, gradient(l->norm1));
    arena_release(p->arena, mark);
}
