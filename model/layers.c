// The forward pass layer by layer. Each function pushes its temporaries on the arena and, without a Saved, pops them again.
#include "model/experts.h"
#include <math.h>

static uint32_t expert_rows(const struct Routing *g) { return g->tokens * g->n_active; }

// A norm that few rows pass on their way into each product; of more it is a pass of its own, and so where something is kept.
static bool norms_on_the_way(const struct Tensor *x, bool keep) {
    return !keep && linear_is_few((uint32_t)tensor_rows(x), NULL);
}

static struct Rows normed(struct Pass *p, const struct Param *norm, const struct Tensor *x, const struct Tensor *xn,
                          const struct Tensor *rstd) {
    if (norms_on_the_way(x, rstd != NULL))
        return (struct Rows){x, &norm->w, NULL};
    op_rmsnorm(p->c, x, &norm->w, xn, rstd, p->m->config.norm_eps);
    return (struct Rows){xn, NULL, NULL};
}

static struct LinearOptions options(const struct Pass *p, struct Rows x, bool gather) {
    return (struct LinearOptions){.gather = gather, .norm = x.norm, .eps = p->m->config.norm_eps, .packed = x.packed};
}

static void linear(struct Pass *p, const struct Linear *l, struct Rows x, const struct Tensor *y,
                   const struct Routing *g, bool gather, bool accumulate) {
    struct LinearOptions o = options(p, x, gather);
    struct ArenaMark mark = arena_mark(p->arena);
    struct Operand packed;
    struct Tensor h;
    o.scratch = p->arena;
    if (l->a && l->scale != 0) { // h = scale x A^T; an alpha of 0 would mean 1
        struct LinearOptions down = o;
        down.like = o.like = linear_like(l), down.alpha = l->scale;
        if (!x.packed) {
            packed = op_operand(p->c, p->arena, x.x, g, gather, OF_PRODUCT, o.like);
            down.packed = o.packed = &packed;
        }
        h = TENSOR(p->arena, DT_F32, (uint32_t)tensor_rows(y), l->a->w.dim[l->a->w.n_dims - 2]);
        op_linear(p->c, x.x, &l->a->w, &h, g, down);
        o.more_x = &h, o.more_w = &l->b->w;
    }
    o.accumulate = accumulate;
    o.peak = &l->w->peak;
    op_linear(p->c, x.x, &l->w->w, y, g, o);
    if (l->bias)
        op_bias(p->c, y, &l->bias->w);
    arena_release(p->arena, mark);
}

void linear_forward(struct Pass *p, const struct Linear *l, const struct Tensor *x, const struct Tensor *y) {
    linear(p, l, (struct Rows){x, NULL, NULL}, y, NULL, false, false);
}

void linear_of_norm(struct Pass *p, const struct Linear *l, const struct Param *norm, const struct Tensor *x,
                    const struct Tensor *y) {
    struct ArenaMark mark = arena_mark(p->arena);
    struct Tensor xn = {0};
    if (!norms_on_the_way(x, false))
        xn = TENSOR(p->arena, DT_F32, (uint32_t)tensor_rows(x), tensor_cols(x));
    linear(p, l, normed(p, norm, x, &xn, NULL), y, NULL, false, false);
    arena_release(p->arena, mark);
}

// No bias, no adapter.
static bool is_plain(const struct Linear *l) { return !l->bias && !l->a; }
static enum DType type_of(const struct Linear *l) { return l->w->w.type; }

// q, k and v: of few rows in one dispatch, or v alone where its type is another.
static void qkv(struct Pass *p, const struct Layer *l, struct Rows x, const struct AttentionSaved *s, bool keep) {
    bool beside =
        !keep && linear_is_few(p->t, NULL) && is_plain(&l->q) && is_plain(&l->k) && type_of(&l->q) == type_of(&l->k);
    bool all = beside && is_plain(&l->v) && type_of(&l->v) == type_of(&l->q);
    struct ArenaMark mark = arena_mark(p->arena);
    struct Operand packed = op_operand(p->c, p->arena, x.x, NULL, false, OF_PRODUCT, linear_like(&l->q));
    x.packed = &packed;
    if (beside) {
        const struct Tensor *w[] = {&l->q.w->w, &l->k.w->w, &l->v.w->w}, y[] = {s->q, s->k, s->v};
        op_linear_beside(p->c, x.x, all ? 3 : 2, w, y, options(p, x, false));
    } else {
        linear(p, &l->q, x, &s->q, NULL, false, false);
        linear(p, &l->k, x, &s->k, NULL, false, false);
    }
    if (!all)
        linear(p, &l->v, x, &s->v, NULL, false, false);
    arena_release(p->arena, mark);
}

struct AttentionShape attention_shape(const struct Config *c, const struct Layer *l) {
    return (struct AttentionShape){c->n_heads, c->n_kv_heads, c->head_dim, 1 / sqrtf((float)c->head_dim),
                                   type_of(&l->q) != DT_F32};
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

void attention_forward(struct Pass *p, uint32_t layer, struct Rows x, const struct Tensor *out, bool accumulate,
                       struct AttentionSaved *saved) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct AttentionSaved s = {.q = TENSOR(p->arena, DT_F32, p->t, c->n_heads * c->head_dim),
                               .k = TENSOR(p->arena, DT_F32, p->t, c->n_kv_heads * c->head_dim),
                               .v = TENSOR(p->arena, DT_F32, p->t, c->n_kv_heads * c->head_dim),
                               .o = TENSOR(p->arena, DT_F32, p->t, c->n_heads * c->head_dim)};
    if (saved)
        s.lse = TENSOR(p->arena, DT_F32, p->t, c->n_heads);
    qkv(p, l, x, &s, saved != NULL);
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
        op_attention_decode(p->c, p->arena, &p->done, &s.q, k, v, &p->span, &s.o, attention_shape(c, l));
    else
        op_attention(p->c, p->arena, &s.q, k, v, &p->span, &s.o, saved ? &s.lse : NULL, attention_shape(c, l));
    linear(p, &l->o, (struct Rows){&s.o, NULL, NULL}, out, NULL, false, accumulate);
    if (saved)
        *saved = s;
    else
        arena_release(p->arena, mark);
}

// Whether gate and up can be one product.
static bool is_gated(const struct Pass *p, const struct Ffn *f) {
    return linear_is_few(p->t, NULL) && is_plain(&f->gate) && is_plain(&f->up) && type_of(&f->gate) == type_of(&f->up);
}

static void gate_and_up(struct Pass *p, const struct Ffn *f, struct Rows x, const struct Tensor *h,
                        const struct Routing *g) {
    struct LinearOptions o = options(p, x, g != NULL);
    o.swiglu = &f->up.w->w;
    op_linear(p->c, x.x, &f->gate.w->w, h, g, o);
}

struct FfnSaved ffn_saved(struct Pass *p, const struct Ffn *f, const struct Routing *g) {
    uint32_t rows = g ? expert_rows(g) : p->t, width = f->gate.w->spec.dim[g ? 1 : 0];
    return (struct FfnSaved){TENSOR(p->arena, DT_F32, rows, width), TENSOR(p->arena, DT_F32, rows, width)};
}

void ffn_forward(struct Pass *p, const struct Ffn *f, struct Rows x, const struct Tensor *y, const struct Routing *g,
                 bool accumulate, const struct FfnSaved *saved) {
    struct ArenaMark mark = arena_mark(p->arena);
    struct FfnSaved s = saved ? *saved : ffn_saved(p, f, g);
    bool fused = !saved && is_gated(p, f);
    if (fused) {
        gate_and_up(p, f, x, &s.gate, g);
    } else {
        struct ArenaMark products = arena_mark(p->arena);
        struct Operand packed = op_operand(p->c, p->arena, x.x, g, g != NULL, OF_PRODUCT, linear_like(&f->gate));
        x.packed = &packed;
        linear(p, &f->gate, x, &s.gate, g, g != NULL, false);
        linear(p, &f->up, x, &s.up, g, g != NULL, false);
        arena_release(p->arena, products);
    }
    if (y) {
        // With nothing to save h may take the place of gate.
        struct Tensor h = saved ? TENSOR(p->arena, DT_F32, s.gate.dim[0], s.gate.dim[1]) : s.gate;
        if (!fused)
            op_swiglu(p->c, &s.gate, &s.up, &h);
        linear(p, &f->down, (struct Rows){&h, NULL, NULL}, y, g, false, accumulate);
    }
    arena_release(p->arena, mark);
}

// Whether the shared experts of one token can go with the routed ones.
static bool goes_along(const struct Pass *p, const struct Ffn *shared, const struct Ffn *routed) {
    uint32_t width = routed->gate.w->spec.dim[1];
    return p->t == 1 && is_gated(p, shared) && is_plain(&shared->down) && shared->gate.w->spec.dim[0] % width == 0 &&
           type_of(&shared->gate) == type_of(&routed->gate) && type_of(&shared->down) == type_of(&routed->down);
}

// out += what the experts make of few rows (x may be out), the routed ones weighted where they are multiplied. The shared ones of more than one
// token come before: their weights serve all rows.
static void experts_few(struct Pass *p, const struct Layer *l, const struct Ffn *routed, struct Rows x,
                        const struct Routing *g, const struct Tensor *out) {
    struct ArenaMark mark = arena_mark(p->arena);
    uint32_t width = routed->gate.w->spec.dim[1], rows = expert_rows(g);
    bool along = l->has_shared && goes_along(p, &l->ffn, routed);
    struct Tensor h = TENSOR(p->arena, DT_F32, rows + (along ? l->ffn.gate.w->spec.dim[0] / width : 0), width);
    if (along) {
        struct Gated chosen = {&routed->gate.w->w, &routed->up.w->w}, shared = {&l->ffn.gate.w->w, &l->ffn.up.w->w};
        op_experts_up(p->c, x.x, chosen, shared, g, &h, options(p, x, false));
    } else {
        gate_and_up(p, routed, x, &h, g);
        if (l->has_shared)
            ffn_forward(p, &l->ffn, x, out, NULL, true, NULL);
    }
    op_experts_down(p->c, &h, &routed->down.w->w, along ? &l->ffn.down.w->w : NULL, g, out);
    arena_release(p->arena, mark);
}

void moe_forward(struct Pass *p, uint32_t layer, struct Rows x, const struct Tensor *residual, const struct Tensor *out,
                 struct MoeSaved *saved) {
    const struct Config *c = &p->m->config;
    const struct Layer *l = &p->m->layers[layer];
    struct ArenaMark mark = arena_mark(p->arena);
    struct MoeSaved s = {.routing = routing_make(p->arena, p->m->dev, p->t, c->n_experts, c->n_active)};
    struct Routing *r = &s.routing;
    struct Tensor logits = TENSOR(p->arena, DT_F32, p->t, c->n_experts);
    linear(p, &l->router, x, &logits, NULL, false, false);
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
    const struct Ffn *routed = &l->routed;
    struct Routing slots;
    if (p->m->experts) {
        slots = experts_bring(p, layer, r, &chosen);
        routed = &l->pooled, r = &slots;
    }
    if (!saved && out && out->address == residual->address && !l->shared_gate.w && is_gated(p, routed) &&
        is_plain(&routed->down)) {
        experts_few(p, l, routed, x, r, out);
        arena_release(p->arena, mark);
        return;
    }
    bool gated = l->has_shared && l->shared_gate.w; // its backward asks for what the gate multiplies
    if (gated) {
        s.shared_y = TENSOR(p->arena, DT_F32, p->t, c->dim);
        s.gate = TENSOR(p->arena, DT_F32, p->t, 1);
    }
    if (saved) {
        s.routed = ffn_saved(p, routed, r);
        if (l->has_shared)
            s.shared = ffn_saved(p, &l->ffn, NULL);
        *saved = s;
    }
    struct ArenaMark kept = arena_mark(p->arena);
    struct Tensor y = {0}, shared_y = s.shared_y;
    if (out)
        y = TENSOR(p->arena, DT_F32, expert_rows(r), c->dim);
    if (out && l->has_shared && (!gated || saved)) // with nothing to save the gate works in place
        shared_y = TENSOR(p->arena, DT_F32, p->t, c->dim);
    ffn_forward(p, routed, x, out ? &y : NULL, r, false, saved ? &s.routed : NULL);
    if (l->has_shared) {
        const struct Tensor *to = gated ? &s.shared_y : out ? &shared_y : NULL;
        ffn_forward(p, &l->ffn, x, to, NULL, false, saved ? &s.shared : NULL);
    }
    if (gated) {
        linear(p, &l->shared_gate, x, &s.gate, NULL, false, false);
        if (out)
            op_gate(p->c, &s.gate, &s.shared_y, &shared_y);
    }
    if (out)
        op_combine(p->c, r, &y, l->has_shared ? &shared_y : NULL, residual, out);
    arena_release(p->arena, saved ? kept : mark);
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
    struct Rows rows = normed(p, l->norm1, x, &s.xn1, saved ? &s.rstd1 : NULL);
    // Without saved, x_mid is y; with y == x the residual is already there.
    bool in_place = s.x_mid.address == x->address;
    attention_forward(p, layer, rows, &s.x_mid, in_place, saved ? &s.attention : NULL);
    if (!in_place)
        op_add(p->c, &s.x_mid, x, &s.x_mid);
    if (saved) {
        s.xn2 = TENSOR(p->arena, DT_F32, p->t, c->dim);
        s.rstd2 = TENSOR(p->arena, DT_F32, p->t);
    } else {
        s.xn2 = s.xn1;
    }
    rows = normed(p, l->norm2, &s.x_mid, &s.xn2, saved ? &s.rstd2 : NULL);
    if (l->is_moe) {
        moe_forward(p, layer, rows, &s.x_mid, y, saved ? &s.moe : NULL);
    } else if (y && s.x_mid.address == y->address) {
        ffn_forward(p, &l->ffn, rows, y, NULL, true, NULL);
    } else {
        if (saved)
            s.ffn = ffn_saved(p, &l->ffn, NULL);
        ffn_forward(p, &l->ffn, rows, y, NULL, false, saved ? &s.ffn : NULL);
        if (y)
            op_add(p->c, y, &s.x_mid, y);
    }
    if (saved)
        *saved = s;
    else
        arena_release(p->arena, mark);
}
