// Checks of the mixture of experts: routing, sorting, the balance loss and combining, forward and backward, against the double reference.
// The table of cases is in check_rows.c.
#include "model/check_rows.h"

bool check_route(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    struct RefRoute ref = {shape[0], shape[1], shape[2], oc->variant & NORM_TOPK, 1.5};
    uint32_t slots = ref.tokens * ref.n_active;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits = router_logits(&r, ref.tokens, ref.n_experts, oc->variant);
    struct CheckTensor *probs = checkrun_output(&r, DIMS(ref.tokens, ref.n_experts));
    struct CheckTensor *weights = checkrun_output(&r, DIMS(ref.tokens, ref.n_active));
    struct CheckTensor *experts = checkrun_output_u32(&r, DIMS(ref.tokens, ref.n_active));
    struct Routing g = {.tokens = ref.tokens,
                        .n_experts = ref.n_experts,
                        .n_active = ref.n_active,
                        .max_tiles = slots,
                        .probs = probs->t,
                        .weights = weights->t,
                        .experts = experts->t};
    bool few = ref.tokens <= FEW_ROWS;
    struct CheckTensor *gather = NULL, *slot_row = NULL, *row_expert = NULL, *tiles = NULL, *grid = NULL;
    if (few) {
        gather = checkrun_output_u32(&r, DIMS(slots)), slot_row = checkrun_output_u32(&r, DIMS(slots));
        row_expert = checkrun_output_u32(&r, DIMS(slots)), tiles = checkrun_output_u32(&r, DIMS(slots, 4));
        grid = checkrun_output_u32(&r, DIMS(8));
        g.gather = gather->t, g.slot_row = slot_row->t, g.row_expert = row_expert->t;
        g.tiles = tiles->t, g.grid = grid->t;
    }
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_route(c, &logits->t, &g, ref.norm_topk, (float)ref.scale);
    ck->bytes = 8.0 * ref.tokens * ref.n_experts;
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want_probs = doubles(probs->n), *want_weights = doubles(slots);
    uint32_t *want_experts = uints(slots);
    ref_route(&ref, logits->value, want_probs, want_weights, want_experts);
    if (ok) {
        checkrun_compare(&r, probs, want_probs);
        checkrun_compare(&r, weights, want_weights);
        for (uint32_t s = 0; s < slots; s++) // where f32 knows nothing but zeros, it cannot know their order
            if (want_probs[s / ref.n_active * ref.n_experts + want_experts[s]] > 1e-30 &&
                experts->value[s] != want_experts[s])
                ck->nmse = INFINITY;
        for (uint32_t s = 0; few && s < slots; s++) { // sorted order is slot order, a tile is a slot
            const double *tile = &tiles->value[4 * s], expert = experts->value[s];
            if (gather->value[s] != s / ref.n_active || slot_row->value[s] != s || row_expert->value[s] != expert ||
                tile[0] != expert || tile[1] != s || tile[2] != 1 || grid->value[0] != slots)
                ck->nmse = INFINITY;
        }
    }
    free(want_probs), free(want_weights), free(want_experts);
    return finish(&r, ok, BOUND_EXP);
}

// Slots in the place of experts: what is beyond the tiles in use, and numbers that are no expert, stay.
bool check_remap(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], tiles = shape[1], n_experts = shape[2];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    uint32_t *map = uints(n_experts), *expert = uints(rows), *tile = uints(4 * tiles), grid[8] = {tiles - tiles / 3};
    for (uint32_t e = 0; e < n_experts; e++)
        map[e] = (e * 7919 + 3) % 1000;
    for (uint32_t i = 0; i < rows; i++)
        expert[i] = i % 6 == 5 ? n_experts + i : random_below(ck, 1, i, n_experts);
    for (uint32_t i = 0; i < 4 * tiles; i++)
        tile[i] = random_below(ck, 2, i, n_experts);
    struct CheckTensor *t_map = checkrun_values(&r, DT_U32, DIMS(n_experts), map);
    struct CheckTensor *t_expert = checkrun_values(&r, DT_U32, DIMS(rows), expert);
    struct CheckTensor *t_tile = checkrun_values(&r, DT_U32, DIMS(tiles, 4), tile);
    struct CheckTensor *t_grid = checkrun_values(&r, DT_U32, DIMS(8), grid);
    t_expert->output = t_tile->output = true;
    double *want_expert = copied(t_expert), *want_tile = copied(t_tile);
    for (uint32_t i = 0; i < rows; i++)
        want_expert[i] = expert[i] < n_experts ? map[expert[i]] : expert[i];
    for (uint32_t i = 0; i < grid[0]; i++)
        want_tile[4 * i] = map[tile[4 * i]];
    struct Routing g = {.tokens = rows,
                        .n_active = 1,
                        .n_experts = n_experts,
                        .max_tiles = tiles,
                        .row_expert = t_expert->t,
                        .tiles = t_tile->t,
                        .grid = t_grid->t};
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_remap(c, &g, &t_map->t);
    ck->bytes = 8.0 * rows + 32.0 * tiles;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        checkrun_compare(&r, t_expert, want_expert);
        checkrun_compare(&r, t_tile, want_tile);
    }
    free(map), free(expert), free(tile), free(want_expert), free(want_tile);
    return finish(&r, ok, BOUND_PLAIN);
}

// A routing of random experts on the device, its sorted side by the reference.
struct CheckRouting {
    struct Routing g;
    uint32_t *expert, *offsets, *gather, *slot_row, *row_expert;
    struct CheckTensor *experts, *probs, *weights, *slots;
};

static struct CheckRouting routing_random(struct CheckRun *r, uint32_t tokens, uint32_t n_experts, uint32_t n_active,
                                          uint32_t variant) {
    uint32_t slots = tokens * n_active;
    struct CheckRouting k = {.expert = uints(slots),
                             .offsets = uints(n_experts + 1),
                             .gather = uints(slots),
                             .slot_row = uints(slots),
                             .row_expert = uints(slots)};
    double *logits = doubles((uint64_t)tokens * n_experts), *probs = doubles((uint64_t)tokens * n_experts);
    double *weights = doubles(slots);
    for (uint64_t i = 0; i < (uint64_t)tokens * n_experts; i++) {
        double tilt = variant & ONE_EXPERT && i % n_experts < n_active ? 30 : 0;
        logits[i] = (double)random_normal(r->ck->seed, 9, i) + tilt;
    }
    struct RefRoute ref = {tokens, n_experts, n_active, variant & NORM_TOPK, 1};
    ref_route(&ref, logits, probs, weights, k.expert);
    ref_sort(k.expert, tokens, n_experts, n_active, k.offsets, k.gather, k.slot_row, k.row_expert);
    float *f = xmalloc((size_t)tokens * n_experts * sizeof *f);
    for (uint64_t i = 0; i < (uint64_t)tokens * n_experts; i++)
        f[i] = (float)probs[i];
    k.probs = checkrun_values(r, DT_F32, DIMS(tokens, n_experts), f);
    for (uint32_t i = 0; i < slots; i++)
        f[i] = (float)weights[i];
    k.weights = checkrun_values(r, DT_F32, DIMS(tokens, n_active), f);
    k.experts = checkrun_values(r, DT_U32, DIMS(tokens, n_active), k.expert);
    k.slots = checkrun_values(r, DT_U32, DIMS(tokens, n_active), k.slot_row);
    k.g = (struct Routing){.tokens = tokens,
                           .n_experts = n_experts,
                           .n_active = n_active,
                           .probs = k.probs->t,
                           .weights = k.weights->t,
                           .experts = k.experts->t,
                           .slot_row = k.slots->t};
    free(logits), free(probs), free(weights), free(f);
    return k;
}

static void routing_free(struct CheckRouting *k) {
    free(k->expert), free(k->offsets), free(k->gather), free(k->slot_row), free(k->row_expert);
}

bool check_route_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    struct RefRoute ref = {shape[0], shape[1], shape[2], oc->variant & NORM_TOPK, 1.5};
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckRouting k = routing_random(&r, ref.tokens, ref.n_experts, ref.n_active, 0);
    struct CheckTensor *dweights = checkrun_random(&r, DT_F32, DIMS(ref.tokens, ref.n_active), 1);
    struct CheckTensor *dbalance =
        oc->variant & WITH_BALANCE ? checkrun_random(&r, DT_F32, DIMS(ref.tokens, ref.n_experts), 1) : NULL;
    struct CheckTensor *dlogits = checkrun_output(&r, DIMS(ref.tokens, ref.n_experts));
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_route_back(c, &k.g, &dweights->t, dbalance ? &dbalance->t : NULL, &dlogits->t, ref.norm_topk, (float)ref.scale);
    ck->bytes = (dbalance ? 12.0 : 8.0) * ref.tokens * ref.n_experts;
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want = doubles(dlogits->n);
    ref_route_back(&ref, k.probs->value, k.expert, dweights->value, dbalance ? dbalance->value : NULL, want);
    if (ok)
        checkrun_compare(&r, dlogits, want);
    free(want);
    routing_free(&k);
    return finish(&r, ok, 10 * BOUND_PLAIN);
}

static void check_tiles(struct CheckRun *r, const struct Routing *g, const uint32_t *offsets,
                        const struct CheckTensor *tiles, const struct CheckTensor *grid) {
    uint32_t n = 0;
    bool good = true;
    for (uint32_t e = 0; e < g->n_experts; e++)
        for (uint32_t first = offsets[e]; first < offsets[e + 1]; first += g->tile_rows, n++) {
            uint32_t left = offsets[e + 1] - first, rows = left < g->tile_rows ? left : g->tile_rows;
            const double *tile = tiles->value + 4 * (size_t)n;
            good = good && n < g->max_tiles && tile[0] == e && tile[1] == first && tile[2] == rows && tile[3] == 0;
        }
    if (!good || grid->value[0] != n || grid->value[1] != 0 || grid->value[2] != 0 || grid->value[3] != 0)
        r->ck->nmse = INFINITY;
}

bool check_sort(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t tokens = shape[0], n_experts = shape[1], n_active = shape[2], slots = tokens * n_active;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckRouting k = routing_random(&r, tokens, n_experts, n_active, oc->variant);
    k.g.tile_rows = 16;
    k.g.max_tiles = (uint32_t)min_u64(slots, slots / 16 + n_experts);
    struct CheckTensor *offsets = checkrun_output_u32(&r, DIMS(n_experts + 1));
    struct CheckTensor *gather = checkrun_output_u32(&r, DIMS(slots)), *slot_row = checkrun_output_u32(&r, DIMS(slots));
    struct CheckTensor *row_expert = checkrun_output_u32(&r, DIMS(slots));
    struct CheckTensor *tiles = checkrun_output_u32(&r, DIMS(k.g.max_tiles, 4));
    struct CheckTensor *grid = checkrun_output_u32(&r, DIMS(8));
    k.g.offsets = offsets->t, k.g.gather = gather->t, k.g.slot_row = slot_row->t;
    k.g.row_expert = row_expert->t, k.g.tiles = tiles->t, k.g.grid = grid->t;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_sort(c, &r.arena, &k.g);
    ck->bytes = 20.0 * slots;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        compare_uints(&r, gather, k.gather, slots);
        compare_uints(&r, slot_row, k.slot_row, slots);
        compare_uints(&r, row_expert, k.row_expert, slots);
        compare_uints(&r, offsets, k.offsets, n_experts + 1);
        check_tiles(&r, &k.g, k.offsets, tiles, grid);
    }
    routing_free(&k);
    return finish(&r, ok, 0);
}

bool check_balance(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    struct RefRoute ref = {shape[0], shape[1], shape[2], false, 1};
    uint32_t n_groups = shape[3], counted = ref.tokens > 2 ? ref.tokens - 1 : ref.tokens; // the last token is padding
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckRouting k = routing_random(&r, ref.tokens, ref.n_experts, ref.n_active, 0);
    uint32_t *start = uints(n_groups + 1), *token_group = uints(ref.tokens);
    float *weight = xmalloc(n_groups * sizeof *weight);
    double *weights = doubles(n_groups);
    for (uint32_t i = 0; i <= n_groups; i++) // group 1 of several is empty
        start[i] = i == 0 ? 0 : i == n_groups ? counted : n_groups > 2 && i == 2 ? start[1] : i * counted / n_groups;
    for (uint32_t i = 0; i < ref.tokens; i++) {
        token_group[i] = UINT32_MAX;
        for (uint32_t g = 0; g < n_groups; g++)
            if (i >= start[g] && i < start[g + 1] && i % 5 != 3) // every fifth token is padding between
                token_group[i] = g;
    }
    for (uint32_t g = 0; g < n_groups; g++)
        weights[g] = weight[g] = 1 / (float)(g + 1);
    struct CheckTensor *t_start = checkrun_values(&r, DT_U32, DIMS(n_groups + 1), start);
    struct CheckTensor *t_group = checkrun_values(&r, DT_U32, DIMS(ref.tokens), token_group);
    struct CheckTensor *t_weight = checkrun_values(&r, DT_F32, DIMS(n_groups), weight);
    struct CheckTensor *loss = checkrun_values(&r, DT_F32, DIMS(1), &(float){0.25f});
    loss->output = true;
    struct CheckTensor *dbalance = checkrun_output(&r, DIMS(ref.tokens, ref.n_experts));
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_balance(c, &r.arena, &k.g, &t_start->t, &t_group->t, &t_weight->t, n_groups, 0.01f, &loss->t, &dbalance->t);
    ck->bytes = 8.0 * ref.tokens * ref.n_experts;
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want = doubles(dbalance->n);
    double value =
        0.25 + ref_balance(&ref, k.probs->value, k.expert, start, token_group, weights, n_groups, (double)0.01f, want);
    if (ok) {
        checkrun_compare(&r, dbalance, want);
        checkrun_compare(&r, loss, &value);
    }
    free(want), free(start), free(token_group), free(weight), free(weights);
    routing_free(&k);
    return finish(&r, ok, BOUND_PLAIN);
}

bool check_combine(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t tokens = shape[0], n_active = shape[2], dim = shape[3];
    bool fused = oc->variant & FUSED, plain = oc->variant & PLAIN_WEIGHTS;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckRouting k = routing_random(&r, tokens, shape[1], n_active, 0);
    struct CheckTensor *y = checkrun_random(&r, DT_F32, DIMS(tokens * n_active, dim), 1);
    struct CheckTensor *shared = fused && !plain ? checkrun_random(&r, DT_F32, DIMS(tokens, dim), 1) : NULL;
    struct CheckTensor *residual = fused ? checkrun_random(&r, DT_F32, DIMS(tokens, dim), 1) : NULL;
    struct CheckTensor *out = checkrun_output(&r, DIMS(tokens, dim));
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    if (plain)
        op_gather_back(c, &k.g, &y->t, residual ? &residual->t : NULL, &out->t);
    else
        op_combine(c, &k.g, &y->t, shared ? &shared->t : NULL, residual ? &residual->t : NULL, &out->t);
    ck->bytes = 4.0 * tokens * dim * (1 + n_active + (shared ? 1 : 0) + (residual ? 1 : 0));
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *want = doubles(out->n);
    ref_combine(y->value, plain ? NULL : k.weights->value, k.slot_row, shared ? shared->value : NULL,
                residual ? residual->value : NULL, tokens, n_active, dim, want);
    if (ok)
        checkrun_compare(&r, out, want);
    free(want);
    routing_free(&k);
    return finish(&r, ok, BOUND_PLAIN);
}

bool check_expert_swiglu_back(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t tokens = shape[0], n_active = shape[2], width = shape[3], slots = tokens * n_active;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckRouting k = routing_random(&r, tokens, shape[1], n_active, 0);
    struct CheckTensor *gate = checkrun_random(&r, DT_F32, DIMS(slots, width), 2);
    struct CheckTensor *up = checkrun_random(&r, DT_F32, DIMS(slots, width), 1);
    struct CheckTensor *dh = checkrun_random(&r, DT_F32, DIMS(slots, width), 1);
    struct CheckTensor *dweights = checkrun_output(&r, DIMS(tokens, n_active));
    double *dgate = doubles(gate->n), *dup = doubles(gate->n), *h = doubles(gate->n), *want = doubles(dweights->n);
    ref_expert_swiglu_back(gate->value, up->value, dh->value, k.weights->value, k.slot_row, slots, width, dgate, dup, h,
                           want);
    gate->output = up->output = dh->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_expert_swiglu_back(c, &k.g, &gate->t, &up->t, &dh->t, &dweights->t);
    ck->flops = 28.0 * slots * width, ck->bytes = 24.0 * slots * width;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        checkrun_compare(&r, gate, dgate);
        checkrun_compare(&r, up, dup);
        checkrun_compare(&r, dh, h);
        checkrun_compare(&r, dweights, want);
    }
    free(dgate), free(dup), free(h), free(want);
    routing_free(&k);
    return finish(&r, ok, 10 * BOUND_EXP);
}
