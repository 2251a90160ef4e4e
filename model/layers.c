// The forward pass layer by layer. Each function pushes its temporaries on the arena and, without a Saved, pops them again.
#include "model/experts.h"
#include <math.h>

static uint32_t expert_rows(const struct Routing *g) { return g->tokens * g->n_active; }

void linear_forward(struct Pass *p, const struct Linear *l, const struct Tensor *x, const struct Tensor *y,
                    const struct Routing *g, bool gather, bool accumulate) {
    op_linear(p->c, x, &l->w->w, y, g,
              (struct LinearOptions){.gather = gather, .accumulate = accumulate, .scratch = p->arena});
    if (l->bias)
        op_bias(p->c, y, &l->bias->w);
    if (!l->a || l->scale == 0) // an alpha of 0 would mean 1 below
        return;
    struct ArenaMark mark = arena_mark(p->arena);
    uint32_t rows = (uint32_t)tensor_rows(y), rank = l->a->w.dim[l->a->w.n_dims - 2];
    struct Tensor h = TENSOR(p->arena, DT_F32, rows, rank);
    bool coarse = linear_is_coarse(l);
    op_linear(p->c, x, &l->a->w, &h, g, (struct LinearOptions){.gather = gather, .coarse = coarse});
    op_linear(p->c, &h, &l->b->w, y, g,
              (struct LinearOptions){.alpha = l->scale, .accumulate = true, .coarse = coarse});
    arena_release(p->arena, mark);
}

struct AttentionShape attention_shape(const struct Config *c, const struct Layer *l) {
    return (struct AttentionShape){c->n_heads, c->n_kv_heads, c->head_dim, 1 / sqrtf((float)c->head_dim),
                                   l->q.w->w.type != DT_F32};
}

// x = norm(x) where there is a norm; what it was and 1 / its root mean square stay where they are to be kept.
static void head_norm(struct Pass *p, const struct Param *norm, struct Tensor *x, struct Tensor *raw,
                      struct Tensor *rstd, bool keep) {
    if (!norm)
        return;
    if (keep) {
        *raw = *x;
        *rstd = TENSOR(p->arena, DT_F32, p->t);
        *x = TENSOR(p->arena, DT_F32, p->t, tensor_cols(raw));
    }
    op_rmsnorm(p->c, keep ? raw : x, &norm->w, x, keep ? rstd : NULL, p->m->config.norm_eps);
}

void attention_forward(struct Pass *p, uint32_t layer, const struct Tensor *xn, const struct Tensor *out,
                       bool accumulate, struct AttentionSaved *saved) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct AttentionSaved s = {.q = TENSOR(p->arena, DT_F32, p->t, c->n_heads * c->head_dim),
                               .k = TENSOR(p->arena, DT_F32, p->t, c->n_kv_heads * c->head_dim),
                               .v = TENSOR(p->arena, DT_F32, p->t, c->n_kv_heads * c->head_dim),
                               .o = TENSOR(p->arena, DT_F32, p->t, c->n_heads * c->head_dim)};
    if (saved)
        s.lse = TENSOR(p->arena, DT_F32, p->t, c->n_heads);
    linear_forward(p, &l->q, xn, &s.q, NULL, false, false);
    linear_forward(p, &l->k, xn, &s.k, NULL, false, false);
    linear_forward(p, &l->v, xn, &s.v, NULL, false, false);
    head_norm(p, l->q_norm, &s.q, &s.q_raw, &s.rstd_q, saved != NULL);
    head_norm(p, l->k_norm, &s.k, &s.k_raw, &s.rstd_k, saved != NULL);
    const struct Tensor *k = &s.k, *v = &s.v;
    if (p->cache_k) {
        k = &p->cache_k[layer], v = &p->cache_v[layer];
        op_rope_store(p->c, &s.q, &s.k, &s.v, &p->positions, &p->m->rope, c->n_heads, c->n_kv_heads, &p->cache_rows, k,
                      v);
    } else {
        op_rope(p->c, &s.q, &p->positions, &p->m->rope, c->n_heads, 1);
        op_rope(p->c, &s.k, &p->positions, &p->m->rope, c->n_kv_heads, 1);
    }
    if (p->decode)
        op_attention_decode(p->c, p->arena, &s.q, k, v, &p->span, &s.o, attention_shape(c, l));
    else
        op_attention(p->c, p->arena, &s.q, k, v, &p->span, &s.o, saved ? &s.lse : NULL, attention_shape(c, l));
    linear_forward(p, &l->o, &s.o, out, NULL, false, accumulate);
    if (saved)
        *saved = s;
    else
        arena_release(p->arena, mark);
}

// No bias, no adapter.
static bool is_plain(const struct Linear *l) { return !l->bias && !l->a; }

void ffn_forward(struct Pass *p, const struct Ffn *f, const struct Tensor *x, const struct Tensor *y,
                 const struct Routing *g, bool accumulate, struct FfnSaved *saved) {
    struct ArenaMark mark = arena_mark(p->arena);
    uint32_t rows = g ? expert_rows(g) : p->t, width = f->gate.w->spec.dim[g ? 1 : 0];
    struct FfnSaved s = {TENSOR(p->arena, DT_F32, rows, width), TENSOR(p->arena, DT_F32, rows, width)};
    struct ArenaMark kept = arena_mark(p->arena);
    bool fused = !saved && linear_is_few(p->t, g) && is_plain(&f->gate) && is_plain(&f->up) &&
                 f->gate.w->w.type == f->up.w->w.type;
    if (fused) {
        op_linear(p->c, x, &f->gate.w->w, &s.gate, g,
                  (struct LinearOptions){.gather = g != NULL, .swiglu = &f->up.w->w});
    } else {
        linear_forward(p, &f->gate, x, &s.gate, g, g != NULL, false);
        linear_forward(p, &f->up, x, &s.up, g, g != NULL, false);
    }
    if (y) {
        // With nothing to save h may take the place of gate.
        struct Tensor h = saved ? TENSOR(p->arena, DT_F32, rows, width) : s.gate;
        if (!fused)
            op_swiglu(p->c, &s.gate, &s.up, &h);
        linear_forward(p, &f->down, &h, y, g, false, accumulate);
    }
    if (saved)
        *saved = s;
    arena_release(p->arena, saved ? kept : mark);
}

void moe_forward(struct Pass *p, uint32_t layer, const struct Tensor *xn, const struct Tensor *residual,
                 const struct Tensor *out, struct MoeSaved *saved) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct MoeSaved s = {.routing = routing_make(p->arena, p->m->dev, p->t, c->n_experts, c->n_active)};
    struct Routing *r = &s.routing;
    s.y = TENSOR(p->arena, DT_F32, expert_rows(r), c->dim);
    struct Tensor logits = TENSOR(p->arena, DT_F32, p->t, c->n_experts);
    linear_forward(p, &l->router, xn, &logits, NULL, false, false);
    struct Tensor chosen = {0};
    if (tensor_exists(&p->chosen))
        chosen = tensor_slice(&p->chosen, layer, 1);
    bool at_once =
        tensor_exists(&chosen) && linear_is_few(p->t, NULL); // few tokens need no sort, which would read them there
    if (at_once)
        r->experts = chosen;
    op_route(p->c, &logits, r, c->norm_topk, c->routed_scale);
    op_sort(p->c, p->arena, r);
    if (tensor_exists(&chosen) && !at_once)
        cmd_copy(p->c, &r->experts, &chosen);
    if (tensor_exists(&p->chosen_weights)) {
        struct Tensor place = tensor_slice(&p->chosen_weights, layer, 1);
        cmd_copy(p->c, &r->weights, &place);
    }
    if (saved && p->n_groups && c->aux_alpha > 0) {
        // The loss is counted once; the recomputation (out NULL) adds it to a place that nobody reads.
        struct Tensor unread = TENSOR(p->arena, DT_F32, 1);
        s.dbalance = TENSOR(p->arena, DT_F32, p->t, c->n_experts);
        op_balance(p->c, p->arena, r, &p->group_start, &p->token_group, &p->group_weight, p->n_groups, c->aux_alpha,
                   out ? &p->balance : &unread, &s.dbalance);
    }
    if (p->m->experts) {
        struct Routing slots = experts_bring(p, layer, r, &chosen);
        ffn_forward(p, &l->pooled, xn, &s.y, &slots, false, NULL);
    } else {
        ffn_forward(p, &l->routed, xn, &s.y, r, false, saved ? &s.routed : NULL);
    }
    struct Tensor shared_y = {0};
    if (l->has_shared) {
        bool gated = l->shared_gate.w; // backward of the gate asks for what it multiplies
        shared_y = s.shared_y = TENSOR(p->arena, DT_F32, p->t, c->dim);
        ffn_forward(p, &l->ffn, xn, out || gated ? &s.shared_y : NULL, NULL, false, saved ? &s.shared : NULL);
        if (gated) {
            s.gate = TENSOR(p->arena, DT_F32, p->t, 1);
            linear_forward(p, &l->shared_gate, xn, &s.gate, NULL, false, false);
        }
        if (gated && out) {
            if (saved)
                shared_y = TENSOR(p->arena, DT_F32, p->t, c->dim);
            op_gate(p->c, &s.gate, &s.shared_y, &shared_y);
        }
    }
    if (out)
        op_combine(p->c, r, &s.y, l->has_shared ? &shared_y : NULL, residual, out);
    if (saved)
        *saved = s;
    else
        arena_release(p->arena, mark);
}

void block_forward(struct Pass *p, uint32_t layer, const struct Tensor *x, const struct Tensor *y,
                   struct BlockSaved *saved) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct BlockSaved s = {.x = *x, .xn1 = TENSOR(p->arena, DT_F32, p->t, c->dim)};
    if (!saved) {
        s.x_mid = *y;
    } else {
        s.rstd1 = TENSOR(p->arena, DT_F32, p->t);
        s.x_mid = TENSOR(p->arena, DT_F32, p->t, c->dim);
    }
    op_rmsnorm(p->c, x, &l->norm1->w, &s.xn1, saved ? &s.rstd1 : NULL, c->norm_eps);
    // Without saved, x_mid is y; with y == x the residual is already there.
    bool in_place = s.x_mid.address == x->address;
    attention_forward(p, layer, &s.xn1, &s.x_mid, in_place, saved ? &s.attention : NULL);
    if (!in_place)
        op_add(p->c, &s.x_mid, x, &s.x_mid);
    if (saved) {
        s.xn2 = TENSOR(p->arena, DT_F32, p->t, c->dim);
        s.rstd2 = TENSOR(p->arena, DT_F32, p->t);
    } else {
        s.xn2 = s.xn1;
    }
    op_rmsnorm(p->c, &s.x_mid, &l->norm2->w, &s.xn2, saved ? &s.rstd2 : NULL, c->norm_eps);
    if (l->is_moe) {
        moe_forward(p, layer, &s.xn2, &s.x_mid, y, saved ? &s.moe : NULL);
    } else if (y && s.x_mid.address == y->address) {
        ffn_forward(p, &l->ffn, &s.xn2, y, NULL, true, NULL);
    } else {
        ffn_forward(p, &l->ffn, &s.xn2, y, NULL, false, saved ? &s.ffn : NULL);
        if (y)
            op_add(p->c, y, &s.x_mid, y);
    }
    if (saved)
        *saved = s;
    else
        arena_release(p->arena, mark);
}
