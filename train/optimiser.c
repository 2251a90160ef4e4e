// Gradients, moments and AdamW. With in_backward, gradients of all groups lie in the same memory; the recorder sees the ranges, so the
// backward of a layer waits for the update of the one before. What lies in host memory is copied into a slot of a small ring, updated there and
// copied back, piece by piece: copies of one slot run beside the update in another.
#include "train/optimiser.h"
#include "train/esft.h"
#include <assert.h>
#include <string.h>

static const uint64_t STAGE_ELEMENTS = UINT64_C(4) << 20; // 16 MiB of f32

bool device_is_unified(const struct Device *dev) {
    return (dev->is_cpu || dev->is_integrated) && device_can(dev, CAP_host_visible);
}

static uint32_t group_of(const struct Model *m, const struct Param *p) {
    return p->spec.layer != UINT32_MAX ? p->spec.layer : p == m->embed ? GROUP_EMBED : GROUP_HEAD;
}

static bool in_group(const struct Optimiser *o, const struct Param *p, uint32_t group) {
    return param_is_trained(p) && (group == GROUP_ALL || group_of(o->m, p) == group);
}

// ---- Setting up

static bool is_asked_for(const struct Optimiser *o, const struct Param *p, bool train_base) {
    const struct ExpertList *l = o->o.experts;
    bool adapter = p - o->m->params >= o->m->n_base;
    if ((!adapter && !train_base) || (o->o.freeze_router && p->spec.role == ROLE_ROUTER))
        return false;
    if (l && p->spec.role == ROLE_EXPERTS)
        return l->n[p->spec.layer] > 0;
    if (adapter || !l)
        return true;
    return p->spec.role == ROLE_SHARED || p->spec.role == ROLE_SHARED_GATE ? l->shared : l->others;
}

static void param_train(struct Optimiser *o, struct Param *p) {
    uint32_t dim[4], n_dims = p->w.n_dims;
    memcpy(dim, p->w.dim, sizeof dim);
    if (o->o.experts && p->spec.role == ROLE_EXPERTS && o->o.experts->n[p->spec.layer] < dim[0]) {
        p->chosen = o->o.experts->ids[p->spec.layer];
        p->n_chosen = dim[0] = o->o.experts->n[p->spec.layer];
    }
    // A tied head's gradient is there from the first group of a backward to the last.
    bool held = !o->o.in_backward || (p == o->m->embed && o->m->head == o->m->embed);
    p->g = arena_tensor(held ? &o->gradients : &o->passing, DT_F32, n_dims, dim);
    o->n_parts += norm_parts(tensor_elements(&p->g));
    if (o->o.moments8) { // words, by expert where there are several: an expert is whole blocks
        uint32_t stack = n_dims == 3 ? dim[0] : 1;
        uint64_t each = tensor_elements(&p->g) / stack;
        assert(stack == 1 || each % 64 == 0);
        n_dims = 2;
        dim[0] = stack, dim[1] = (uint32_t)adamw8_words(each);
    }
    p->m1 = arena_tensor(&o->moments, DT_F32, n_dims, dim);
    p->m2 = arena_tensor(&o->moments, DT_F32, n_dims, dim);
}

// The largest first, so that the others find room in its blocks.
static uint32_t group_in_order(const struct Model *m, uint32_t i) {
    return i == 0 ? GROUP_HEAD : i == 1 ? GROUP_EMBED : m->config.n_layers + 1 - i;
}

static void staging_init(struct Optimiser *o) {
    struct Model *m = o->m;
    if (!o->o.offload || device_is_unified(m->dev))
        return;
    uint64_t most = 0;
    for (uint32_t i = 0; i < m->n_params; i++)
        if (param_is_trained(&m->params[i]))
            most = max_u64(most, tensor_elements(&m->params[i].g));
    o->stage_elements = min_u64(o->o.stage_elements ? o->o.stage_elements : STAGE_ELEMENTS, align_up(most, 64));
    uint32_t n = (uint32_t)o->stage_elements, words = o->o.moments8 ? (uint32_t)adamw8_words(n) : n;
    for (uint32_t i = 0; i < STAGING_SLOTS && n; i++) {
        if (o->o.offload & OFFLOAD_WEIGHTS)
            o->slot[i].w = TENSOR(&o->staging, DT_F32, n);
        if (o->o.offload & OFFLOAD_MOMENTS) {
            o->slot[i].m1 = TENSOR(&o->staging, DT_F32, words);
            o->slot[i].m2 = TENSOR(&o->staging, DT_F32, words);
        }
    }
}

bool optimiser_init(struct Optimiser *o, struct Model *m, const struct OptimiserOptions *options, bool train_base,
                    const struct Tensor *params, const struct Tensor *result) {
    *o = (struct Optimiser){.m = m, .o = *options, .params = *params, .result = *result};
    bool on_host = options->offload & OFFLOAD_MOMENTS;
    arena_init(&o->gradients, m->dev, "gradients", ARENA_DEVICE);
    arena_init(&o->passing, m->dev, "gradients of a layer", ARENA_DEVICE);
    arena_init(&o->moments, m->dev, on_host ? "moments in host memory" : "moments",
               on_host ? ARENA_HOST : ARENA_DEVICE);
    arena_init(&o->staging, m->dev, "staging", ARENA_DEVICE);
    o->gradients.lasting = o->passing.lasting = o->moments.lasting = o->staging.exact = true;
    for (uint32_t i = 0; i < m->config.n_layers + 2; i++) {
        uint32_t group = group_in_order(m, i);
        arena_clear(&o->passing);
        for (uint32_t k = 0; k < m->n_params; k++) {
            struct Param *p = &m->params[k];
            if (group_of(m, p) != group || !is_asked_for(o, p, train_base))
                continue;
            if (p->w.type != DT_F32 && p->w.type != DT_BF16)
                return fail("%s is stored as %s; training changes f32 or bf16 weights: give --type f32 or bf16, or "
                            "--method lora",
                            p->spec.name, DTYPES[p->w.type].name);
            param_train(o, p);
        }
    }
    if (o->n_parts == 0)
        return fail("nothing would be trained: the model has nothing of what --method, --lora-targets and "
                    "--freeze-router leave");
    o->parts = TENSOR(&o->gradients, DT_F32, o->n_parts);
    staging_init(o);
    return m->dev->state == DEVICE_OK;
}

void optimiser_free(struct Optimiser *o) {
    for (uint32_t i = 0; i < o->m->n_params; i++) {
        struct Param *p = &o->m->params[i];
        p->g = p->m1 = p->m2 = (struct Tensor){0};
        p->chosen = NULL, p->n_chosen = 0;
    }
    arena_free(&o->gradients);
    arena_free(&o->passing);
    arena_free(&o->moments);
    arena_free(&o->staging);
}

bool optimiser_reset(struct Optimiser *o) {
    struct Cmd *c = cmd_begin(o->m->dev, "zero moments");
    for (uint32_t i = 0; i < o->m->n_params; i++)
        if (param_is_trained(&o->m->params[i])) {
            cmd_fill(c, &o->m->params[i].m1, 0);
            cmd_fill(c, &o->m->params[i].m2, 0);
        }
    struct Program *p = cmd_end(c);
    bool ok = p && program_run(p);
    program_free(p);
    return ok;
}

// ---- Recording

void optimiser_zero(struct Optimiser *o, struct Cmd *c, uint32_t group) {
    for (uint32_t i = 0; i < o->m->n_params; i++)
        if (in_group(o, &o->m->params[i], group))
            cmd_fill(c, &o->m->params[i].g, 0);
}

void optimiser_norm(struct Optimiser *o, struct Cmd *c, uint32_t group) {
    for (uint32_t i = 0, first = 0; i < o->m->n_params; i++) {
        const struct Param *p = &o->m->params[i];
        if (in_group(o, p, group))
            op_norm_parts(c, &p->g, &o->parts, first);
        first += param_is_trained(p) ? norm_parts(tensor_elements(&p->g)) : 0;
    }
}

void optimiser_norm_finish(struct Optimiser *o, struct Cmd *c) {
    op_norm_finish(c, &o->parts, o->n_parts, &o->params, &o->result);
}

// `bytes` of a tensor from `offset` on, as words.
static struct Tensor words_of(const struct Tensor *t, uint64_t offset, uint64_t bytes) {
    uint32_t n = (uint32_t)(bytes / 4);
    struct Tensor part = tensor_shape(DT_F32, 1, &n);
    part.address = t->address + offset;
    return part;
}

// A slot's tensor in the place of a part in host memory, which is copied into it first where it exists.
static struct Tensor stage_in(struct Cmd *c, const struct Tensor *slot, const struct Tensor *part) {
    if (!tensor_exists(slot))
        return *part;
    struct Tensor here = *part, to = words_of(slot, 0, part->bytes), from = words_of(part, 0, part->bytes);
    here.address = slot->address;
    cmd_copy(c, &from, &to);
    return here;
}

static void stage_out(struct Cmd *c, const struct Tensor *here, const struct Tensor *part) {
    if (here->address == part->address)
        return;
    struct Tensor from = words_of(here, 0, part->bytes), to = words_of(part, 0, part->bytes);
    cmd_copy(c, &from, &to);
}

static struct Tensor elements_of(const struct Tensor *t, uint64_t first, uint32_t n, uint32_t size) {
    struct Tensor part = tensor_shape(t->type, 1, &n);
    part.address = t->address + first * size;
    return part;
}

// A run by pieces that fit a slot. A piece of moments in 8 bits is whole blocks.
static void update_staged(struct Optimiser *o, struct Cmd *c, const struct ParamRun *r, bool weights, uint32_t index,
                          float decay) {
    uint64_t all = tensor_elements(&r->g);
    for (uint64_t first = 0; first < all; first += o->stage_elements) {
        struct StagingSlot *slot = &o->slot[o->next_slot++ % STAGING_SLOTS];
        uint32_t n = (uint32_t)min_u64(o->stage_elements, all - first);
        struct Tensor w = elements_of(&r->w, first, n, r->w.type == DT_BF16 ? 2 : 4);
        struct Tensor g = elements_of(&r->g, first, n, 4), m1, m2;
        if (o->o.moments8) {
            uint32_t words = (uint32_t)adamw8_words(n);
            m1 = elements_of(&r->m1, adamw8_words(first), words, 4);
            m2 = elements_of(&r->m2, adamw8_words(first), words, 4);
        } else {
            m1 = elements_of(&r->m1, first, n, 4);
            m2 = elements_of(&r->m2, first, n, 4);
        }
        struct Tensor w_here = weights ? stage_in(c, &slot->w, &w) : w;
        struct Tensor m1_here = stage_in(c, &slot->m1, &m1), m2_here = stage_in(c, &slot->m2, &m2);
        op_adamw(c, &w_here, &g, &m1_here, &m2_here, &o->params, &o->result, index, (uint32_t)first, decay);
        stage_out(c, &w_here, &w);
        stage_out(c, &m1_here, &m1);
        stage_out(c, &m2_here, &m2);
    }
}

void optimiser_update(struct Optimiser *o, struct Cmd *c, uint32_t group) {
    struct Model *m = o->m;
    for (uint32_t i = 0; i < m->n_params; i++) {
        const struct Param *p = &m->params[i];
        float decay = p->decay ? o->o.weight_decay : 0;
        // Each run draws its own random numbers; one that begins with expert 0 draws those of a whole tensor.
        for (struct ParamRun r = {0}; in_group(o, p, group) && param_next_run(p, &r);) {
            if (o->stage_elements)
                update_staged(o, c, &r, p->on_host, i + m->n_params * r.first, decay);
            else
                op_adamw(c, &r.w, &r.g, &r.m1, &r.m2, &o->params, &o->result, i + m->n_params * r.first, 0, decay);
            if (tensor_exists(&r.peak))
                op_peaks(c, &r.w, false, &r.peak);
        }
    }
}
