// See weightring.h. Kernels take addresses when they are recorded, so a weight is moved by changing its tensor for that long.
#include "train/weightring.h"
#include "train/optimiser.h"
#include <stdlib.h>
#include <string.h>

static bool passes(const struct WeightRing *r, uint32_t param, uint32_t layer) {
    return tensor_exists(&r->here[param]) && r->m->params[param].spec.layer == layer;
}

bool weightring_init(struct WeightRing *r, struct Model *m) {
    *r = (struct WeightRing){.m = m};
    r->here = xcalloc(m->n_base, sizeof *r->here);
    r->home = xcalloc(m->n_base, sizeof *r->home);
    for (uint32_t i = 0; i < WEIGHT_SLOTS; i++) {
        arena_init(&r->slot[i], m->dev, "staging", ARENA_DEVICE);
        r->slot[i].lasting = true;
    }
    for (uint32_t n = m->config.n_layers, i = 0; i < n && !device_is_unified(m->dev); i++) {
        uint32_t layer =
            n - 1 - i; // mixtures, which are larger than dense layers, first: the others find room in their blocks
        struct Arena *slot = &r->slot[layer % WEIGHT_SLOTS];
        arena_clear(slot);
        for (uint32_t k = 0; k < m->n_base; k++) {
            struct Param *p = &m->params[k];
            if (p->on_host && p->spec.layer == layer)
                r->here[k] = arena_tensor(slot, p->w.type, p->w.n_dims, p->w.dim);
        }
    }
    return m->dev->state == DEVICE_OK;
}

void weightring_free(struct WeightRing *r) {
    for (uint32_t i = 0; i < WEIGHT_SLOTS && r->m; i++)
        arena_free(&r->slot[i]);
    free(r->here), free(r->home);
    *r = (struct WeightRing){0};
}

void weightring_begin(struct WeightRing *r) {
    for (uint32_t i = 0; i < WEIGHT_SLOTS; i++)
        r->holds[i] = UINT32_MAX;
}

void weightring_bring(struct WeightRing *r, struct Cmd *c, uint32_t layer) {
    if (layer >= r->m->config.n_layers || r->holds[layer % WEIGHT_SLOTS] == layer)
        return;
    r->holds[layer % WEIGHT_SLOTS] = layer;
    for (uint32_t i = 0; i < r->m->n_base; i++)
        if (passes(r, i, layer))
            cmd_copy(c, &r->m->params[i].w, &r->here[i]);
}

void weightring_enter(struct WeightRing *r, uint32_t layer) {
    for (uint32_t i = 0; i < r->m->n_base; i++)
        if (passes(r, i, layer)) {
            r->home[i] = r->m->params[i].w;
            r->m->params[i].w = r->here[i];
        }
}

void weightring_leave(struct WeightRing *r, uint32_t layer) {
    for (uint32_t i = 0; i < r->m->n_base; i++)
        if (passes(r, i, layer))
            r->m->params[i].w = r->home[i];
}
