// See experts.h.
#include "model/experts.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NO_SLOT = 0xffffffff };

struct Slot {
    uint32_t layer, expert;
    uint64_t used; // the pass that used it last; 0: empty
};
struct Pool {
    struct Param gate, up, down; // (n_slots, out, in)
    struct Slot *slots;
    uint32_t n_slots, n_layers;
};
struct ExpertCache {
    struct Model *m;
    struct Pool *pools;
    uint32_t n_pools;
    uint32_t *pool_of; // by layer
    uint32_t *slot_of; // (n_layers, n_experts)
    struct Tensor map; // the same for the device, host memory
    struct TensorCopy *copies;
    uint64_t pass;
    struct ExpertUse use;
};

static bool same_types(const struct Layer *a, const struct Layer *b) {
    return a->routed.gate.w->w.type == b->routed.gate.w->w.type && a->routed.up.w->w.type == b->routed.up.w->w.type &&
           a->routed.down.w->w.type == b->routed.down.w->w.type;
}

// A slot tensor like `of`.
static void pool_tensor(struct Model *m, struct Param *p, const struct Param *of, uint32_t n_slots) {
    *p = (struct Param){.spec = of->spec};
    p->w = TENSOR(&m->pool, of->w.type, n_slots, of->w.dim[1], of->w.dim[2]);
}

// As many slots as are asked for and the driver lets one allocation hold.
static void pool_make(struct Model *m, struct Pool *pool, const struct Layer *l, uint32_t slots, uint32_t n_moe) {
    uint32_t n_experts = m->config.n_experts;
    const struct Tensor *w[] = {&l->routed.gate.w->w, &l->routed.up.w->w, &l->routed.down.w->w};
    uint64_t n = max_u64(n_experts, (uint64_t)slots * pool->n_layers / n_moe), limit = arena_largest(&m->pool);
    n = min_u64(n, (uint64_t)pool->n_layers * n_experts);
    for (int i = 0; i < 3; i++)
        n = min_u64(n, max_u64(n_experts, limit / max_u64(1, w[i]->bytes / n_experts)));
    pool->n_slots = (uint32_t)n;
    pool->slots = xcalloc(n, sizeof *pool->slots);
    pool_tensor(m, &pool->gate, l->routed.gate.w, pool->n_slots);
    pool_tensor(m, &pool->up, l->routed.up.w, pool->n_slots);
    pool_tensor(m, &pool->down, l->routed.down.w, pool->n_slots);
}

void experts_init(struct Model *m, uint32_t slots) {
    const struct Config *c = &m->config;
    struct ExpertCache *k = m->experts = xcalloc(1, sizeof *k);
    k->m = m;
    k->pools = xcalloc(c->n_layers, sizeof *k->pools);
    k->pool_of = xcalloc(c->n_layers, sizeof *k->pool_of);
    k->slot_of = xmalloc((size_t)c->n_layers * c->n_experts * sizeof *k->slot_of);
    memset(k->slot_of, 0xff, (size_t)c->n_layers * c->n_experts * sizeof *k->slot_of);
    k->copies = xcalloc(3 * (size_t)c->n_experts, sizeof *k->copies);
    const struct Layer **first = xcalloc(c->n_layers, sizeof *first); // of each pool
    uint32_t n_moe = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (!m->layers[i].is_moe)
            continue;
        uint32_t p = 0;
        while (p < k->n_pools && !same_types(first[p], &m->layers[i]))
            p++;
        if (p == k->n_pools)
            first[k->n_pools++] = &m->layers[i];
        k->pool_of[i] = p;
        k->pools[p].n_layers++;
        n_moe++;
    }
    for (uint32_t p = 0; p < k->n_pools; p++) {
        pool_make(m, &k->pools[p], first[p], slots, n_moe);
        k->use.slots += k->pools[p].n_slots;
    }
    free(first);
    k->use.experts = n_moe * c->n_experts;
    k->map = TENSOR(&m->host, DT_U32, c->n_layers, c->n_experts);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        struct Layer *l = &m->layers[i];
        struct Pool *pool = &k->pools[k->pool_of[i]];
        if (l->is_moe)
            l->pooled = (struct Ffn){{.w = &pool->gate}, {.w = &pool->up}, {.w = &pool->down}};
    }
}

void experts_free(struct Model *m) {
    struct ExpertCache *k = m->experts;
    if (!k)
        return;
    for (uint32_t i = 0; i < k->n_pools; i++)
        free(k->pools[i].slots);
    free(k->pools);
    free(k->pool_of);
    free(k->slot_of);
    free(k->copies);
    free(k);
    m->experts = NULL;
}

// ---- Bringing in

static uint32_t slot_take(struct ExpertCache *k, struct Pool *pool, uint32_t layer, uint32_t expert) {
    uint32_t oldest = 0, n_experts = k->m->config.n_experts;
    for (uint32_t i = 1; i < pool->n_slots; i++)
        if (pool->slots[i].used < pool->slots[oldest].used)
            oldest = i;
    struct Slot *s = &pool->slots[oldest];
    assert(s->used != k->pass); // a pool holds all experts of a layer
    if (s->used)
        k->slot_of[(size_t)s->layer * n_experts + s->expert] = NO_SLOT;
    *s = (struct Slot){layer, expert, k->pass};
    return oldest;
}

static void copies_add(struct ExpertCache *k, uint32_t *n, const struct Param *from, const struct Param *to,
                       uint32_t expert, uint32_t slot) {
    uint64_t bytes = from->w.bytes / from->w.dim[0];
    k->copies[(*n)++] = (struct TensorCopy){&from->w, &to->w, expert * bytes, slot * bytes, bytes};
    k->use.bytes += bytes;
}

struct Request {
    struct ExpertCache *cache;
    uint32_t layer, n;
    struct Tensor chosen;
};

static bool bring(struct Device *dev, void *context) {
    const struct Request *r = context;
    struct ExpertCache *k = r->cache;
    uint32_t n_experts = k->m->config.n_experts, n = 0;
    const uint32_t *ids = tensor_host(dev, &r->chosen);
    uint32_t *map = tensor_host(dev, &k->map), *slot_of = k->slot_of + (size_t)r->layer * n_experts;
    bool wanted[CONFIG_MAX_EXPERTS] = {false};
    if (!ids || !map)
        return false;
    struct Pool *pool = &k->pools[k->pool_of[r->layer]];
    const struct Layer *l = &k->m->layers[r->layer];
    k->pass++;
    for (uint32_t i = 0; i < r->n; i++)
        wanted[min_u64(ids[i], n_experts - 1)] = true;
    for (uint32_t e = 0; e < n_experts; e++) // before any is put out
        if (wanted[e] && slot_of[e] != NO_SLOT)
            pool->slots[slot_of[e]].used = k->pass, k->use.hits++;
    for (uint32_t e = 0; e < n_experts; e++) {
        if (!wanted[e] || slot_of[e] != NO_SLOT)
            continue;
        k->use.misses++;
        slot_of[e] = slot_take(k, pool, r->layer, e);
        copies_add(k, &n, l->routed.gate.w, &pool->gate, e, slot_of[e]);
        copies_add(k, &n, l->routed.up.w, &pool->up, e, slot_of[e]);
        copies_add(k, &n, l->routed.down.w, &pool->down, e, slot_of[e]);
    }
    for (uint32_t e = 0; e < n_experts; e++)
        map[(size_t)r->layer * n_experts + e] = slot_of[e] == NO_SLOT ? 0 : slot_of[e];
    return tensors_copy(dev, k->copies, n);
}

struct Routing experts_bring(struct Pass *p, uint32_t layer, const struct Routing *r, const struct Tensor *chosen) {
    struct ExpertCache *k = p->m->experts;
    struct Request request = {k, layer, r->tokens * r->n_active, *chosen};
    cmd_host(p->c, bring, &request, sizeof request);
    struct Tensor map = tensor_slice(&k->map, layer, 1);
    op_remap(p->c, r, &map);
    struct Routing pooled = *r;
    pooled.n_experts = k->pools[k->pool_of[layer]].n_slots;
    return pooled;
}

struct ExpertUse experts_use(const struct Model *m) {
    return m->experts ? m->experts->use : (struct ExpertUse){0};
}
