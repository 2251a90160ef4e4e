// Operations of a MoE layer round its matrix multiplies: the router, the sort of slots by expert, the balance loss, and the way back from
// slots to tokens.
#include "model/dispatch.h"
#include <assert.h>

static uint32_t slots_of(const struct Routing *r) { return r->tokens * r->n_active; }

struct Routing routing_make(struct Arena *a, const struct Device *dev, uint32_t tokens, uint32_t n_experts,
                            uint32_t n_active) {
    assert(n_experts > 0 && n_experts <= 256 && n_active > 0 && n_active <= n_experts);
    uint32_t rows = tokens * n_active;
    bool few = tokens <= FEW_ROWS;
    struct Routing r = {.tokens = tokens, .n_experts = n_experts, .n_active = n_active};
    r.tile_rows = linear_tile_rows(dev, rows, n_experts);
    r.max_tiles = few ? rows : (uint32_t)min_u64(rows, rows / r.tile_rows + n_experts);
    r.weights = TENSOR(a, DT_F32, tokens, n_active);
    r.experts = TENSOR(a, DT_U32, tokens, n_active);
    r.probs = TENSOR(a, DT_F32, tokens, n_experts);
    r.offsets = TENSOR(a, DT_U32, n_experts + 1);
    r.gather = TENSOR(a, DT_U32, rows);
    r.slot_row = TENSOR(a, DT_U32, tokens, n_active);
    r.row_expert = TENSOR(a, DT_U32, rows);
    r.tiles = TENSOR(a, DT_U32, r.max_tiles, 4);
    r.grid = TENSOR(a, DT_U32, 8);
    return r;
}

// A token's experts lie across the lanes of one narrow workgroup.
static uint32_t router_local_size(const struct Device *dev) {
    return dev->is_cpu || dev->limits.subgroup_size > 32 ? dev->limits.subgroup_size : 32;
}

void op_route(struct Cmd *c, const struct Tensor *logits, const struct Routing *r, bool norm_topk, float scale) {
    assert(tensor_cols(logits) == r->n_experts);
    struct Device *dev = cmd_device(c);
    uint32_t local = router_local_size(dev);
    bool lists = r->tokens <= FEW_ROWS && tensor_exists(&r->gather);
    struct Args_route args = {.logits = view(logits),
                              .probs = view(&r->probs),
                              .weights = view(&r->weights),
                              .experts = view(&r->experts),
                              .rows = r->tokens,
                              .n_experts = r->n_experts,
                              .n_active = r->n_active,
                              .norm_topk = norm_topk,
                              .scale = scale,
                              .max_tiles = r->max_tiles};
    if (lists) {
        args.gather = view(&r->gather), args.slot_row = view(&r->slot_row), args.row_expert = view(&r->row_expert);
        args.tiles = view(&r->tiles), args.grid = view(&r->grid);
    }
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_route, KERNEL_route_base),
                                    .local_size = local,
                                    .spec = {(uint32_t)div_up(r->n_experts, local), lists},
                                    .n_spec = 2,
                                    .groups = {r->tokens},
                                    .flops = (20.0 + 4.0 * r->n_active) * r->tokens * r->n_experts,
                                    .bytes = 8.0 * r->tokens * r->n_experts},
                 &args);
}

void op_route_back(struct Cmd *c, const struct Routing *r, const struct Tensor *dweights, const struct Tensor *dbalance,
                   const struct Tensor *dlogits, bool norm_topk, float scale) {
    struct Device *dev = cmd_device(c);
    uint32_t local = router_local_size(dev);
    struct Args_route_back args = {.probs = view(&r->probs),
                                   .experts = view(&r->experts),
                                   .dweights = view(dweights),
                                   .dbalance = view_or_none(dbalance),
                                   .dlogits = view(dlogits),
                                   .rows = r->tokens,
                                   .n_experts = r->n_experts,
                                   .n_active = r->n_active,
                                   .norm_topk = norm_topk,
                                   .scale = scale};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_route_back, KERNEL_route_back_base),
                                    .local_size = local,
                                    .spec = {(uint32_t)div_up(r->n_experts, local), dbalance != NULL},
                                    .n_spec = 2,
                                    .groups = {r->tokens},
                                    .flops = (6.0 + 2.0 * r->n_active) * r->tokens * r->n_experts,
                                    .bytes = 12.0 * r->tokens * r->n_experts},
                 &args);
}

void op_sort(struct Cmd *c, struct Arena *scratch, const struct Routing *r) {
    enum Phase { COUNT, SCAN, PLACE };
    if (r->tokens <= FEW_ROWS)
        return; // op_route has made the lists
    struct Device *dev = cmd_device(c);
    uint32_t slots = slots_of(r);
    struct Args_sort all = {.experts = view(&r->experts),
                            .offsets = view(&r->offsets),
                            .gather = view(&r->gather),
                            .slot_row = view(&r->slot_row),
                            .row_expert = view(&r->row_expert),
                            .tiles = view(&r->tiles),
                            .grid = view(&r->grid),
                            .rows = r->tokens,
                            .n_active = r->n_active,
                            .tile_rows = r->tile_rows,
                            .max_tiles = r->max_tiles},
                     args = all;
    struct Dispatch d = {
        .kernel = KERNEL_PICK(dev, KERNEL_sort), .spec = {COUNT, r->n_experts}, .n_spec = 2, .groups = {1}};
    // About 128 parts at most: the scan walks them one after the other.
    all.part_slots = (uint32_t)max_u64(64, align_up(div_up(slots, 128), 4));
    all.n_parts = (uint32_t)div_up(slots, all.part_slots);
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor counts = TENSOR(scratch, DT_U32, all.n_parts, r->n_experts);
    all.counts = view(&counts);
    struct View none = {0, 0};

    uint32_t local = dispatch_local_size(dev, r->n_experts), blocks = (uint32_t)div_up(r->n_experts, local);
    args = all;
    args.offsets = args.gather = args.slot_row = args.row_expert = args.tiles = args.grid = none;
    d.local_size = local, d.groups[0] = all.n_parts * blocks, d.spec[0] = COUNT, d.label = "sort count";
    d.flops = 2.0 * slots * r->n_experts, d.bytes = 4.0 * slots;
    cmd_dispatch(c, &d, &args);

    args = all;
    args.experts = args.gather = args.slot_row = args.row_expert = none;
    d.groups[0] = 1, d.spec[0] = SCAN, d.label = "sort scan", d.flops = 0, d.bytes = 8.0 * (double)counts.bytes;
    cmd_dispatch(c, &d, &args);

    args = all;
    args.tiles = args.grid = none;
    d.local_size = dispatch_local_size(dev, all.part_slots);
    d.groups[0] = all.n_parts * (uint32_t)div_up(all.part_slots, d.local_size), d.spec[0] = PLACE;
    d.label = "sort place", d.flops = 1.0 * slots * all.part_slots, d.bytes = 16.0 * slots;
    cmd_dispatch(c, &d, &args);
    arena_release(scratch, mark);
}

void op_remap(struct Cmd *c, const struct Routing *r, const struct Tensor *map) {
    struct Device *dev = cmd_device(c);
    uint32_t slots = slots_of(r), items = (uint32_t)max_u64(slots, r->max_tiles);
    uint32_t local = dispatch_local_size(dev, items);
    struct Args_remap args = {.map = view(map),
                              .row_expert = view(&r->row_expert),
                              .tiles = view(&r->tiles),
                              .grid = view(&r->grid),
                              .rows = slots,
                              .max_tiles = r->max_tiles,
                              .n_experts = r->n_experts};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_remap),
                                    .local_size = local,
                                    .groups = {(uint32_t)div_up(items, local)},
                                    .bytes = 8.0 * slots},
                 &args);
}

void op_balance(struct Cmd *c, struct Arena *scratch, const struct Routing *r, const struct Tensor *group_start,
                const struct Tensor *token_group, const struct Tensor *group_weight, uint32_t n_groups, float alpha,
                const struct Tensor *loss, const struct Tensor *dbalance) {
    enum Phase { PIECES, GROUPS, GRADIENT };
    if (n_groups == 0)
        return;
    struct Device *dev = cmd_device(c);
    uint32_t n_experts = r->n_experts, pieces = (uint32_t)min_u64(64, div_up(r->tokens, (uint64_t)n_groups * 128));
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor part = TENSOR(scratch, DT_F32, n_groups, pieces, 3, n_experts);
    struct Tensor fraction = TENSOR(scratch, DT_F32, n_groups, n_experts);
    struct Tensor terms = TENSOR(scratch, DT_F32, n_groups, n_experts);
    struct Args_balance all = {.probs = view(&r->probs),
                               .experts = view(&r->experts),
                               .group_start = view(group_start),
                               .token_group = view(token_group),
                               .group_weight = view(group_weight),
                               .part = view(&part),
                               .fraction = view(&fraction),
                               .terms = view(&terms),
                               .dbalance = view(dbalance),
                               .rows = r->tokens,
                               .n_experts = n_experts,
                               .n_active = r->n_active,
                               .n_groups = n_groups,
                               .n_pieces = pieces,
                               .alpha = alpha},
                        args = all;
    struct View none = {0, 0};
    uint32_t local = dispatch_local_size(dev, n_experts);
    struct Dispatch d = {.kernel = KERNEL_PICK(dev, KERNEL_balance), .local_size = local, .n_spec = 1};

    args.group_weight = args.fraction = args.terms = args.dbalance = none;
    d.groups[0] = n_groups * pieces * (uint32_t)div_up(n_experts, local), d.spec[0] = PIECES,
    d.label = "balance pieces";
    d.flops = 2.0 * slots_of(r) * n_experts, d.bytes = 4.0 * r->tokens * n_experts;
    cmd_dispatch(c, &d, &args);

    args = all;
    args.probs = args.experts = args.token_group = args.dbalance = none;
    d.groups[0] = (uint32_t)div_up((uint64_t)n_groups * n_experts, local), d.spec[0] = GROUPS,
    d.label = "balance groups";
    d.flops = 0, d.bytes = (double)part.bytes;
    cmd_dispatch(c, &d, &args);
    op_sum(c, scratch, &terms, loss, 0);

    args = all;
    args.probs = args.experts = args.group_start = args.group_weight = args.part = args.terms = none;
    d.groups[0] = r->tokens, d.spec[0] = GRADIENT;
    d.label = "balance gradient", d.bytes = 4.0 * r->tokens * n_experts;
    cmd_dispatch(c, &d, &args);
    arena_release(scratch, mark);
}

static void combine(struct Cmd *c, const struct Routing *r, const struct Tensor *y, const struct Tensor *weights,
                    const struct Tensor *shared, const struct Tensor *residual, const struct Tensor *out) {
    assert(tensor_cols(y) == tensor_cols(out) && tensor_cols(out) % 4 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t dim = tensor_cols(out);
    struct Args_combine args = {.y = view(y),
                                .weights = view_or_none(weights),
                                .slot_row = view(&r->slot_row),
                                .shared_y = view_or_none(shared),
                                .residual = view_or_none(residual),
                                .out_y = view(out),
                                .rows = r->tokens,
                                .dim = dim,
                                .n_active = r->n_active};
    uint32_t terms = r->n_active + (shared != NULL) + (residual != NULL);
    enum KernelId kernel = pick_pairs(dev, dim, KERNEL_combine_cpu, KERNEL_combine);
    cmd_dispatch(c,
                 &(struct Dispatch){
                     .kernel = kernel,
                     .local_size = dispatch_local_size(dev, dim / 4),
                     .spec = {weights != NULL, shared != NULL, residual != NULL, kernel == KERNEL_combine_cpu ? 6 : 1},
                     .n_spec = 4,
                     .groups = {r->tokens},
                     .flops = 2.0 * terms * r->tokens * dim,
                     .bytes = 4.0 * (terms + 1) * r->tokens * dim,
                     .label = weights ? "combine" : "gather_back"},
                 &args);
}

void op_combine(struct Cmd *c, const struct Routing *r, const struct Tensor *y, const struct Tensor *shared,
                const struct Tensor *residual, const struct Tensor *out) {
    combine(c, r, y, &r->weights, shared, residual, out);
}

void op_gather_back(struct Cmd *c, const struct Routing *r, const struct Tensor *dslots, const struct Tensor *residual,
                    const struct Tensor *out) {
    combine(c, r, dslots, NULL, NULL, residual, out);
}

void op_expert_swiglu_back(struct Cmd *c, const struct Routing *r, const struct Tensor *gate, const struct Tensor *up,
                           const struct Tensor *dh, const struct Tensor *dweights) {
    uint32_t width = tensor_cols(dh);
    assert(tensor_rows(dh) == slots_of(r) && tensor_cols(gate) == width && tensor_cols(up) == width && width % 4 == 0);
    struct Device *dev = cmd_device(c);
    struct Args_expert_swiglu_back args = {.gate = view(gate),
                                           .up = view(up),
                                           .dh = view(dh),
                                           .weights = view(&r->weights),
                                           .slot_row = view(&r->slot_row),
                                           .dweights = view(dweights),
                                           .rows = r->tokens,
                                           .width = width,
                                           .n_active = r->n_active};
    enum KernelId base = KERNEL_PICK(dev, KERNEL_expert_swiglu_back, KERNEL_expert_swiglu_back_base);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = pick_pairs(dev, width, KERNEL_expert_swiglu_back_cpu, base),
                                    .local_size = dispatch_local_size(dev, width / 4),
                                    .groups = {r->tokens},
                                    .flops = 28.0 * slots_of(r) * width,
                                    .bytes = 24.0 * slots_of(r) * width},
                 &args);
}
