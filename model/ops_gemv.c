// Matrix-vector products: what op_linear does with few rows, and what a decoded token brings together so that its chain is short. A row's result does
// not depend on its neighbours: the order of its sum is the same in every form.
#include "model/dispatch.h"
#include "model/tiles.h"
#include <stddef.h>

static const int GEMV[DT_U32] = BY_TYPE(gemv, ), GEMV_BASE[DT_U32] = BY_TYPE(gemv, _base),
                 GEMV_CPU[DT_U32] = BY_TYPE(gemv, _cpu);
enum { WIDEST_GROUP = 256 }; // threads that share the slots of a token

static uint32_t power_of_two(uint32_t n) {
    uint32_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

// One dispatch: args as gemv.comp takes them, and what of its forms it is.
struct Few {
    struct Args_gemv args;
    enum DType type;
    const struct Tensor *norm;
    uint32_t n_experts; // of the stack of matrices that rows choose from; 0: dense
    bool swiglu;
    uint32_t matrices; // side by side; 0: one
    uint32_t shared;   // rows of shared experts a token
    uint32_t slots;    // a token's experts, where they are summed
    double products, weight_bytes;
    // Chosen for the device: lanes along the contraction; of a subgroup; rows of x, of a workgroup.
    struct Device *dev;
    enum KernelId kernel;
    bool across, eight, stage;
    uint32_t lanes, rows;
};

// Whether rows of x fit into shared memory on their way to lanes that run along them, `ahead` units for each lane.
static bool stage_fits(const struct Few *f, uint32_t rows, uint32_t ahead) {
    enum { UNIT_BYTES = (32 / 4 + 1) * 16 };
    return (uint64_t)rows * ahead * f->lanes * UNIT_BYTES <= f->dev->limits.shared_bytes * 15ull / 16;
}

// How quants become floats: see formats.glsl. Those that go through a curve become so before it.
static bool bytes_as_bits(const struct Few *f) {
    enum { NVIDIA = 0x10de };
    return f->type != DT_IQ4_NL && f->type != DT_IQ4_XS && (f->dev->vendor_id == NVIDIA || f->dev->as_card);
}

// How lanes along the contraction read x: of units, a stage, pieces (see gemv.comp). A processor has its caches, and the widest loads it can get.
enum { OF_UNITS, OF_STAGE, OF_PIECES };
static uint32_t x_way(const struct Few *f) {
    const bool long_units = f->across && f->type > DT_BF16 && (!f->dev->is_cpu || f->dev->as_card);
    return f->stage ? OF_STAGE : long_units ? OF_PIECES : OF_UNITS;
}

// Sets of columns (gemv_cpu.comp), so many to a workgroup that it has work for some microseconds, and more where there would be too many groups.
static void sets_of(const struct Few *f, const struct Tile *way, struct Dispatch *d) {
    enum { GROUP_BYTES = 32 << 10 };
    const struct Args_gemv *a = &f->args;
    uint64_t set = (uint64_t)a->w_row_bytes * way->cols * (f->swiglu ? 2 : 1) * (f->slots ? f->slots + f->shared : 1);
    uint32_t sets = (uint32_t)max_u64(1, GROUP_BYTES / set), matrices = d->spec[6];
    do {
        d->spec[4] = sets;
        d->groups[0] =
            (uint32_t)(div_up(div_up(a->n, way->cols), sets) + (matrices - 1) * div_up(div_up(a->n2, way->cols), sets));
        sets *= 2;
    } while (d->groups[0] > f->dev->limits.max_groups[0] && d->groups[0] > matrices);
    d->groups[1] = (uint32_t)div_up(a->m, way->rows);
    d->groups[2] = 1;
}

// A way's rows are those of x, its cols those of w that a lane (or a subgroup) makes; way: units of w under way.
static struct Dispatch few_dispatch(const void *job, const struct Tile *way) {
    const struct Few *f = job;
    const struct Args_gemv *a = &f->args;
    uint32_t lanes = f->lanes, matrices = f->matrices ? f->matrices : 1;
    bool grouped = f->n_experts && !f->slots;
    struct Dispatch d = {.kernel = f->kernel,
                         .local_size = way->threads,
                         .subgroup = lanes,
                         .spec = {way->rows, way->cols, grouped, f->swiglu, way->way,
                                  f->norm ? 1 + (uint32_t)f->norm->type : 0, matrices, f->shared, f->slots, x_way(f),
                                  bytes_as_bits(f)},
                         .n_spec = f->eight ? 9 : 11,
                         .flops = 2 * f->products,
                         .bytes = (double)(a->x.bytes + a->y.bytes) + f->weight_bytes};
    if (f->eight) {
        sets_of(f, way, &d);
        return d;
    }
    uint32_t columns = f->across ? d.local_size / lanes * way->cols : d.local_size * way->cols;
    if (f->slots && f->across) { // a subgroup a slot, all of the same columns
        uint32_t slots = f->slots + (f->shared > 0), most = f->dev->is_cpu ? 1 : WIDEST_GROUP / lanes;
        d.local_size = lanes * (uint32_t)max_u64(1, min_u64(slots, most));
        columns = way->cols;
    }
    // A vocabulary of 100,000 can have more groups than there may be.
    for (; !f->slots && div_up(a->n, columns) > f->dev->limits.max_groups[0] && d.local_size < 256; columns *= 2)
        d.local_size *= 2;
    d.groups[0] = (uint32_t)(div_up(a->n, columns) + (matrices - 1) * div_up(a->n2, columns));
    d.groups[1] = (uint32_t)div_up(a->m, way->rows);
    d.groups[2] = 1;
    return d;
}

static void few_ways(const struct Few *f, struct TuneQuestion *q) {
    enum { MOST_SUMS = 8, MOST_UNITS = 16, MOST_CPU_SUMS = 32 }; // of a lane: what registers hold
    const struct Tiles *tiles = tiles_of(f->dev);
    uint32_t lanes = f->lanes, local = (uint32_t)max_u64(lanes, tiles->gemv_local), rows = f->rows;
    // Fewer units under way of more rows or two matrices at once, so that registers reach.
    uint32_t products = f->swiglu ? 2 : 1, ahead = rows >= 4 ? 1 : (uint32_t)max_u64(1, tiles->gemv_ahead / products);
    uint32_t cols = rows * products >= 4 ? 1 : tiles->gemv_cols;
    if (f->dev->is_cpu) // a lane a row of w: many sums for each load of x, which is the same for all lanes
        cols = f->across ? rows >= 4 ? 1 : 2 : (uint32_t)min_u64(tiles->gemv_cols, MOST_CPU_SUMS / (rows * products));
    if (f->eight) { // sums of a lane
        enum { SUMS = 8 };
        tune_way(q,
                 (struct Tile){rows, (uint32_t)max_u64(1, (rows >= 4 ? 2 : 1) * SUMS / (rows * products)), lanes, 1});
        for (uint32_t other = 1; other <= 8; other *= 2)
            if (other * rows * products <= 2 * SUMS)
                tune_way(q, (struct Tile){rows, other, lanes, 1});
        return;
    }
    if (f->stage) { // no more units than the row has; subgroups share what is staged, so many make a column each
        ahead = (uint32_t)min_u64(ahead, div_up(f->args.k, 32ull * lanes));
        while (ahead > 1 && !stage_fits(f, rows, ahead))
            ahead /= 2;
        cols = 1, local = (uint32_t)max_u64(lanes, tiles->gemv_staged_local);
    } else if (f->across && ahead > 1) { // quarters of units are short; a row goes through in rounds of equally many
        const uint32_t way = x_way(f), most = way == OF_PIECES ? 2 * ahead : ahead;
        const uint32_t weights = way == OF_UNITS && f->type > DT_BF16 ? 32 : 8; // that a lane takes at once
        const uint32_t of_lane = (uint32_t)div_up(f->args.k / weights, lanes);
        ahead = (uint32_t)div_up(of_lane, div_up(of_lane, most));
    }
    tune_way(q, (struct Tile){rows, cols, local, ahead});
    for (uint32_t other = 1; other <= 8; other *= 2)
        if (rows * other * products <= (f->dev->is_cpu && !f->across ? MOST_CPU_SUMS : MOST_SUMS))
            tune_way(q, (struct Tile){rows, other, local, ahead});
    for (uint32_t other = 1; other <= 8 && f->across; other *= 2)
        if (other * cols * products <= MOST_UNITS && (!f->stage || stage_fits(f, rows, other)))
            tune_way(q, (struct Tile){rows, cols, local, other});
    for (uint32_t other = 64; other <= 256 && !f->dev->is_cpu; other *= 2)
        if (other >= lanes && other <= f->dev->limits.max_invocations)
            tune_way(q, (struct Tile){rows, cols, other, ahead});
}

static void few_lists(const void *job, size_t at, uint32_t *to, uint64_t n) {
    const struct Few *f = job;
    for (uint64_t i = 0; i < n && at == offsetof(struct Args_gemv, row_expert); i++)
        to[i] = (uint32_t)(i * 7919 % f->n_experts);
}

static struct Tile few_pick(const struct Few *whole) {
    enum { MOST = 8192 }; // columns of one dense matrix that are measured
    struct Few f = *whole;
    struct Args_gemv *a = &f.args;
    a->accumulate = 0;
    if (!f.n_experts && !f.matrices && a->n > MOST) {
        a->n = MOST;
        a->w.bytes = (uint64_t)MOST * a->w_row_bytes;
        a->w2.bytes = f.swiglu ? a->w.bytes : 0;
        a->y.bytes = 4 * (uint64_t)MOST * a->m;
    }
    uint32_t norm = f.norm ? 1 + (uint32_t)f.norm->type : 0;
    struct TuneQuestion q = {.kernel = f.kernel,
                             .type = f.type,
                             .kind = f.rows | (f.n_experts != 0) << 4 | f.swiglu << 5 | norm << 6 | f.matrices << 8 |
                                     (f.shared > 0) << 10,
                             .shape = {a->m, a->n, a->k},
                             .args = a,
                             .args_bytes = sizeof *a,
                             .job = &f,
                             .dispatch = few_dispatch,
                             .words = few_lists};
    few_ways(&f, &q);
    if (f.slots) // adds to what is there, and its workgroup is as wide as it has slots
        return q.ways[0];
    const struct {
        struct View view;
        size_t at;
        enum DType type;
        uint32_t cols;
    } OPERANDS[] = {{a->y, offsetof(struct Args_gemv, y), DT_F32, 0},
                    {a->x, offsetof(struct Args_gemv, x), DT_F32, a->k},
                    {a->w, offsetof(struct Args_gemv, w), f.type, a->k},
                    {a->w2, offsetof(struct Args_gemv, w2), f.type, a->k},
                    {a->w3, offsetof(struct Args_gemv, w3), f.type, a->k},
                    {a->w4, offsetof(struct Args_gemv, w4), f.type, a->k},
                    {a->y2, offsetof(struct Args_gemv, y2), DT_F32, a->n2},
                    {a->y3, offsetof(struct Args_gemv, y3), DT_F32, a->n2},
                    {a->row_expert, offsetof(struct Args_gemv, row_expert), DT_U32, 1},
                    {a->norm, offsetof(struct Args_gemv, norm), f.norm ? f.norm->type : DT_F32, a->k}};
    for (size_t i = 0; i < sizeof OPERANDS / sizeof *OPERANDS; i++) // at most eight of them are there
        if (OPERANDS[i].view.address)
            tune_operand(&q, OPERANDS[i].at, OPERANDS[i].type, OPERANDS[i].cols);
    return tune_pick(f.dev, &q);
}

static void run(struct Cmd *c, struct Few *f) {
    enum { NARROW = 32 };
    struct Device *dev = f->dev = cmd_device(c);
    int across = module_of(GEMV, f->type), lane_rows = module_of(GEMV_BASE, f->type),
        eight = module_of(GEMV_CPU, f->type);
    switch (dev->as_card ? LANES_ALONG_K : tiles_of(dev)->gemv_first) {
    case LANES_OF_EIGHT:
        f->kernel = KERNEL_PICK(dev, eight, lane_rows, across);
        break;
    case LANES_A_ROW:
        f->kernel = KERNEL_PICK(dev, lane_rows, across, eight);
        break;
    case LANES_ALONG_K:
        f->kernel = KERNEL_PICK(dev, across, lane_rows, eight);
        break;
    }
    f->across = (int)f->kernel == across, f->eight = (int)f->kernel == eight;
    // GPUs hold what is the same for all lanes in few registers: more than 4 rows of x, and their sums with quants 2, do not fit there. Two products take twice the
    // sums.
    const uint32_t uniform_rows = f->type > DT_BF16 ? 2 : 4;
    uint32_t most = (uint32_t)min_u64(tiles_of(dev)->gemv_rows, !f->across && !dev->is_cpu ? uniform_rows : FEW_ROWS);
    if (f->swiglu && !dev->is_cpu)
        most /= 2;
    most = f->n_experts ? 1 : most;
    // Units of plain types are short: what their lanes read of x lies side by side. A processor has its caches. Not by the rows at hand: squares are summed in
    // another order on the way, and a row may not tell how many stand beside it. Behind a norm alone: what shared experts give of one token is summed with the
    // routed ones', each subgroup with an x of its own, and of several tokens is to have the same order.
    f->stage = f->across && f->norm && f->type > DT_BF16 && (!dev->is_cpu || dev->as_card);
    // Of 32 lanes twice as many columns share what is staged as of 64, in half the room.
    f->lanes = f->stage && dev->limits.subgroup_min <= NARROW ? (uint32_t)min_u64(NARROW, dev->limits.subgroup_size)
                                                              : dev->limits.subgroup_size;
    while (f->stage && most > 1 && !stage_fits(f, most, 1))
        most /= 2;
    f->stage = f->stage && stage_fits(f, most, 1);
    f->rows = (uint32_t)min_u64(most, power_of_two(f->args.m));
    struct Tile way = few_pick(f);
    struct Dispatch d = few_dispatch(f, &way);
    cmd_dispatch(c, &d, &f->args);
}

static double bytes_of(const struct Tensor *w) {
    return (double)weight_dim(w, 1) * (double)dtype_row_bytes(w->type, weight_dim(w, 0));
}

// y = x w^T, the rest to be filled in.
static struct Few few_make(const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
                           struct LinearOptions o) {
    assert(!o.norm || (o.norm->type <= DT_BF16 && tensor_elements(o.norm) == weight_dim(w, 0)));
    struct Few f = {.type = w->type, .norm = o.norm, .swiglu = o.swiglu != NULL};
    f.args = (struct Args_gemv){.x = view(x),
                                .w = view(w),
                                .w2 = view_or_none(o.swiglu),
                                .y = view(y),
                                .norm = view_or_none(o.norm),
                                .m = (uint32_t)tensor_rows(y),
                                .n = weight_dim(w, 1),
                                .k = weight_dim(w, 0),
                                .accumulate = o.accumulate,
                                .alpha = o.alpha == 0 ? 1 : o.alpha,
                                .w_row_bytes = (uint32_t)dtype_row_bytes(w->type, weight_dim(w, 0)),
                                .x_divide = 1,
                                .eps = o.eps};
    f.products = (o.swiglu ? 2.0 : 1.0) * f.args.m * f.args.n * f.args.k;
    f.weight_bytes = (o.swiglu ? 2 : 1) * bytes_of(w);
    return f;
}

// Rows of each token's experts, of which every one reads weights of its own.
static void group(struct Few *f, const struct Routing *g, bool gather) {
    f->n_experts = g->n_experts;
    f->args.row_expert = view(&g->row_expert);
    f->args.x_divide = gather ? g->n_active : 1;
    f->weight_bytes *= f->args.m;
}

static bool same_form(const struct Tensor *a, const struct Tensor *b) {
    return a->type == b->type && a->bytes == b->bytes;
}

void linear_few(struct Cmd *c, const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
                const struct Routing *g, struct LinearOptions o) {
    assert(!o.swiglu || (same_form(w, o.swiglu) && !o.accumulate && (o.alpha == 0 || o.alpha == 1)));
    struct Few f = few_make(x, w, y, o);
    if (g)
        group(&f, g, o.gather);
    run(c, &f);
}

void op_linear_beside(struct Cmd *c, const struct Tensor *x, uint32_t n, const struct Tensor *const *w,
                      const struct Tensor *y, struct LinearOptions o) {
    assert(n >= 2 && n <= 3 && linear_is_few((uint32_t)tensor_rows(x), NULL) && !o.swiglu);
    struct Few f = few_make(x, w[0], &y[0], o);
    f.matrices = n;
    f.args.n2 = weight_dim(w[1], 1);
    f.args.w2 = view(w[1]), f.args.y2 = view(&y[1]);
    if (n > 2)
        f.args.w3 = view(w[2]), f.args.y3 = view(&y[2]);
    for (uint32_t i = 1; i < n; i++) {
        assert_weights(w[i], NULL);
        assert(w[i]->type == w[0]->type && weight_dim(w[i], 0) == f.args.k && weight_dim(w[i], 1) == f.args.n2);
        f.weight_bytes += bytes_of(w[i]);
        f.products += (double)f.args.m * f.args.n2 * f.args.k;
    }
    run(c, &f);
}

void op_experts_up(struct Cmd *c, const struct Tensor *x, struct Gated routed, struct Gated shared,
                   const struct Routing *g, const struct Tensor *y, struct LinearOptions o) {
    uint32_t n = weight_dim(routed.gate, 1), parts = weight_dim(shared.gate, 1) / n;
    assert(linear_is_few(0, g) && weight_dim(shared.gate, 1) == parts * n && parts > 0);
    assert(same_form(routed.gate, routed.up) && same_form(shared.gate, shared.up));
    assert(shared.gate->type == routed.gate->type && weight_dim(shared.gate, 0) == weight_dim(routed.gate, 0));
    assert(tensor_rows(y) == g->tokens * (g->n_active + parts) && tensor_cols(y) == n);
    o.swiglu = routed.up;
    struct Few f = few_make(x, routed.gate, y, o);
    group(&f, g, false);
    f.args.x_divide = g->n_active + parts;
    f.args.w3 = view(shared.gate), f.args.w4 = view(shared.up);
    f.shared = parts;
    run(c, &f);
}

void op_experts_down(struct Cmd *c, const struct Tensor *h, const struct Tensor *w, const struct Tensor *shared,
                     const struct Routing *g, const struct Tensor *y) {
    uint32_t n = weight_dim(w, 1), k = weight_dim(w, 0), parts = shared ? weight_dim(shared, 0) / k : 0;
    assert_weights(w, g);
    assert(linear_is_few(0, g) && tensor_rows(y) == g->tokens && tensor_cols(y) == n);
    assert(!shared || (shared->type == w->type && weight_dim(shared, 1) == n && weight_dim(shared, 0) == parts * k));
    assert(tensor_rows(h) == g->tokens * (g->n_active + parts) && tensor_cols(h) == k);
    struct Few f = few_make(h, w, y, (struct LinearOptions){0});
    f.slots = g->n_active, f.shared = parts, f.n_experts = g->n_experts;
    f.args.row_expert = view(&g->row_expert), f.args.weights = view(&g->weights);
    if (shared) {
        f.args.w3 = view(shared);
        f.args.w3_row_bytes = (uint32_t)dtype_row_bytes(w->type, parts * k);
    }
    f.products *= g->n_active + parts, f.weight_bytes *= (double)g->tokens * (g->n_active + parts);
    run(c, &f);
}
