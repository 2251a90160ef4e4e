// Matrix multiplies: picks the body (registers only on CPU devices, matrix units, products of pairs, shared memory), the module for the weights' storage type,
// tile sizes (from model/tiles.h) and grids. Sums run over the contraction in the same order whatever the number of rows, so a row's result does
// not depend on its neighbours.
#include "model/dispatch.h"
#include "model/tiles.h"
#include "model/tune.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum Form { NT, NN, TN };
enum Grouping { DENSE, BY_TILES, BY_ROW_EXPERT };

static const int CPU_NT[DT_U32] = BY_TYPE(gemm_nt, _cpu), CPU_NN[DT_U32] = BY_TYPE(gemm_nn, _cpu);

// Columns that a lane of the CPU bodies makes of one row of w, in NN: one or two times WORD_COLS (shaders/formats.glsl).
static uint32_t cpu_nn_cols(enum DType type) { return !dtype_is_quantised(type) || type == DT_Q8_0 ? 4 : 8; }

// A tile of few rows wastes less where there are few, and loads the weights as often as one of many.
static uint32_t rows_of_tile(uint32_t rows, uint32_t most) {
    uint32_t best = most;
    uint64_t best_cost = UINT64_MAX;
    for (uint32_t tile = 8; tile <= most; tile *= 2) {
        uint64_t cost = div_up(rows, tile) * (tile + 4);
        if (cost <= best_cost)
            best = tile, best_cost = cost;
    }
    return best;
}

uint32_t linear_tile_rows(const struct Device *dev, uint32_t rows, uint32_t n_experts) {
    const struct Tiles *tiles = tiles_of(dev);
    uint32_t each = (uint32_t)div_up(rows, n_experts), tile = tiles->expert_rows;
    while (tile > tiles->expert_rows_least && each * 3 < tile * 2)
        tile /= 2;
    return tile;
}

struct Job {
    enum Form form;
    enum Grouping grouping;
    struct Device *dev;
    const struct Routing *g;
    enum DType type;
    enum DType like;      // operands may be rounded to 16 bits as those of weights of this type; f32: not
    enum DType x_type;    // f32, or that of matrix units, its rows in the order in which they are used
    bool packed;          // w is of that type too
    enum KernelId kernel; // then: the body that takes them so
    struct Args_gemm args;
    uint32_t n_experts, max_tiles, tile_rows;
    uint32_t gather; // bit 0: x, bit 1: w
    double flops, bytes;
};

static bool is_few(const struct Routing *g) { return g->tokens <= FEW_ROWS; }

// f16 keeps weights of f16 whole, and three more bits than bf16 of x and of what quants decode to.
static bool prefers_f16(const struct Job *j) {
    bool fine = j->like == DT_F16 || dtype_is_quantised(j->like);
    return j->dev->coopmat.type == DT_F16 ||
           (j->dev->coopmat_f16 && tiles_of(j->dev)->f16_weights && fine && j->form != TN);
}

static int cpu_module(const struct Job *j) {
    return j->form == NT   ? module_of(CPU_NT, j->type)
           : j->form == NN ? module_of(CPU_NN, j->type)
                           : KERNEL_gemm_tn_f32_cpu;
}

static enum KernelId pick_body(const struct Job *j) {
    static const int DOT2[] = {KERNEL_gemm_nt_dot2, KERNEL_gemm_nn_dot2, KERNEL_gemm_tn_dot2}; // by form
    static const int BF16[] = {KERNEL_gemm_nt_matrix_bf16, KERNEL_gemm_nn_matrix_bf16, KERNEL_gemm_tn_matrix_bf16};
    static const int F16[] = {KERNEL_gemm_nt_matrix_f16, KERNEL_gemm_nn_matrix_f16, KERNEL_gemm_tn_matrix_f16};
    struct Device *dev = j->dev;
    int cpu = cpu_module(j);
    int shared = j->form == NT ? KERNEL_gemm_nt : j->form == NN ? KERNEL_gemm_nn : KERNEL_gemm_tn;
    if (j->like == DT_F32)
        return dev->is_cpu ? KERNEL_PICK(dev, cpu, shared) : KERNEL_PICK(dev, shared, cpu);
    bool f16 = prefers_f16(j);
    int matrix = (f16 ? F16 : BF16)[j->form], other = (f16 ? BF16 : F16)[j->form], dot2 = DOT2[j->form];
    return dev->is_cpu ? KERNEL_PICK(dev, cpu, shared, dot2, matrix, other)
                       : KERNEL_PICK(dev, matrix, other, dot2, shared, cpu);
}

static bool is_matrix(enum KernelId k) { return (KERNELS[k].needs & NEEDS_COOPMAT) != 0; }
static bool is_dot2(enum KernelId k) { return (KERNELS[k].needs & NEEDS_DOT2) != 0; }
static bool takes_half(enum KernelId k) { return is_matrix(k) || is_dot2(k); } // operands of 16 bits
static enum DType half_type(enum KernelId k) { return KERNELS[k].needs & NEEDS_BF16 ? DT_BF16 : DT_F16; }
static bool is_scaled(enum KernelId k) { return takes_half(k) && half_type(k) == DT_F16; } // of gemm.comp
static bool is_cpu_body(const struct Job *j, enum KernelId k) { return (int)k == cpu_module(j); }

// ---- The bodies: ways to cut the output into tiles (the table's first, then others for model/tune.h to try), and the constants of one of them

static bool by_tiles(const struct Job *j) { return j->grouping != DENSE && j->form != TN; }

// Registers alone, a lane makes `cols / lanes` columns of all rows of a tile; way 1 (TN): columns first in the grid.
static void cpu_ways(const struct Job *j, struct TuneQuestion *q) {
    const struct Tiles *tiles = tiles_of(j->dev);
    uint32_t lanes = j->dev->limits.subgroup_size, most = tiles->cpu_rows[j->form], rows = j->tile_rows;
    if (j->form == NN && dtype_is_quantised(j->type))
        most = tiles->cpu_rows_quantised_nn;
    if (!by_tiles(j))
        rows = rows_of_tile(j->form == TN ? j->args.n : j->args.m, most);
    uint32_t each = j->form == NT ? tiles->cpu_nt_cols : j->form == NN ? cpu_nn_cols(j->type) : tiles->cpu_tn_cols;
    // The narrower operand is the one that the caches hold while all of the other goes by.
    uint32_t turned = j->form == TN && j->args.k < j->args.n;
    tune_way(q, (struct Tile){rows, lanes * each, lanes, turned});
    for (uint32_t other = 32; other >= 8; other /= 2) // rows; a lane holds 128 sums at the most
        for (uint32_t cols = j->form == NN ? each : 1; cols <= (j->form == NN ? each : 8); cols *= 2)
            if ((!by_tiles(j) || other == rows) && other * cols <= 128 && (j->form != NT || cols <= 4) &&
                (j->form != TN || cols >= 2))
                tune_way(q, (struct Tile){other, lanes * cols, lanes, turned});
    if (j->form == TN)
        tune_way(q, (struct Tile){rows, lanes * each, lanes, !turned});
}

static void cpu_constants(const struct Job *j, struct Dispatch *d, const struct Tile *way) {
    const struct Args_gemm *a = &j->args;
    d->spec[4] = j->form == NT   ? 1
                 : j->form == NN ? a->k % 8 == 0 && a->ldx % 8 == 0
                                 : a->n % way->rows == 0 && a->ldx % 16 == 0 && way->rows % 16 == 0;
    d->spec[5] = way->threads == 8; // how lanes get different words: by choice
    d->n_spec = 6;
    if (j->form == TN)
        d->spec[d->n_spec++] = way->way;
}

// Through shared memory: two tables of 32 steps.
static void shared_ways(const struct Job *j, enum KernelId kernel, struct TuneQuestion *q) {
    enum { LEAST_ROWS = 16, PITCH = 36, PITCH_OF_PAIRS = 20 };
    static const struct Tile OTHERS[] = {{128, 64, 256, 0}, {64, 128, 256, 0}, {128, 128, 256, 0}, {64, 64, 256, 0},
                                         {32, 64, 128, 0},  {64, 32, 128, 0},  {32, 32, 64, 0},    {32, 128, 128, 0}};
    const struct Tiles *tiles = tiles_of(j->dev);
    uint32_t total = j->form == TN ? j->args.n : j->args.m, rows = tiles->shared_rows;
    while (!by_tiles(j) && rows > LEAST_ROWS && rows / 2 >= total)
        rows /= 2;
    if (by_tiles(j))
        rows = (uint32_t)max_u64(j->tile_rows, LEAST_ROWS);
    const uint32_t pitch = is_dot2(kernel) ? PITCH_OF_PAIRS + 1 : PITCH; // a peak beside a row
    uint32_t cols = tiles->shared_cols;
    while (cols > 16 && 4 * (pitch * (rows + cols) + rows) > j->dev->limits.shared_bytes)
        cols /= 2;
    tune_way(q, (struct Tile){rows, cols, tiles->shared_local, 0});
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        struct Tile t = OTHERS[i];
        if (by_tiles(j))
            t.rows = rows;
        uint32_t down = t.threads / 16;
        uint32_t bytes = 4 * (pitch * (t.rows + t.cols) + t.rows);
        if (t.rows % down == 0 && t.rows / down * (t.cols / 16) <= tiles->most_sums &&
            bytes <= j->dev->limits.shared_bytes && t.threads <= j->dev->limits.max_invocations &&
            t.rows < 2 * max_u64(total, LEAST_ROWS))
            tune_way(q, t);
    }
}

// The subgroup of such a product.
static uint32_t matrix_subgroup(const struct Device *dev) {
    uint32_t narrower = tiles_of(dev)->matrix_subgroup;
    return narrower ? narrower : dev->limits.subgroup_size;
}

// The bytes of the tables of tile_matrix.glsl and gemm.comp.
static uint64_t matrix_bytes(const struct Job *j, const struct Tile *t) {
    enum { STEPS = 32, PAD = 8 };
    const struct CoopmatShape *s = &j->dev->coopmat;
    uint32_t x_wide = j->form == TN ? t->rows : STEPS, w_wide = j->form == NT ? STEPS : t->cols;
    uint64_t x = (uint64_t)t->rows * STEPS / x_wide * (x_wide + PAD),
             w = (uint64_t)t->cols * STEPS / w_wide * (w_wide + PAD);
    uint64_t out = 2 * ((uint64_t)t->threads / matrix_subgroup(j->dev) * s->m * s->n); // lies where w was
    return 2 * (x + max_u64(w, out)) + 4 * ((uint64_t)t->rows + t->cols);
}

// On matrix units of a subgroup; way: subgroups across.
static void matrix_ways(const struct Job *j, struct TuneQuestion *q) {
    enum { LEAST_SUMS = 8 };
    const struct Tiles *tiles = tiles_of(j->dev);
    const struct CoopmatShape *s = &j->dev->coopmat;
    uint32_t total = j->form == TN ? j->args.n : j->args.m, least = 2 * s->m; // two subgroups down
    uint32_t rows = tiles->matrix_rows, cols = tiles->matrix_cols;
    if (rows == 0)
        rows = 2 * s->m, cols = 2 * s->n;
    while (!by_tiles(j) && rows > least && rows / 2 >= total)
        rows /= 2;
    // An adapter's rank: no wider than it is, and lower where one column of tiles would leave much of the device idle.
    uint32_t width = j->form == TN ? j->args.k : j->args.n;
    while (cols > 2 * s->n && cols / 2 >= width)
        cols /= 2;
    while (j->form != TN && cols >= width && !by_tiles(j) && rows > least && div_up(total, rows) < tiles->fill)
        rows /= 2;
    if (by_tiles(j))
        rows = (uint32_t)max_u64(j->tile_rows, least);
    // A low tile has rows for two subgroups down only.
    uint32_t subgroup = matrix_subgroup(j->dev), subgroups = tiles->matrix_subgroups;
    if (!j->dev->is_cpu && rows >= 128 && rows * cols > tiles->most_sums * subgroup * subgroups)
        subgroups *= 2;
    uint32_t down = (uint32_t)min_u64(rows / s->m, max_u64(1, subgroups / 2));
    // What one loads for its part are the part's rows and columns.
    while (down > 1 && 2 * rows / down + cols * down / 2 / subgroups < rows / down + cols * down / subgroups)
        down /= 2;
    uint32_t across = (uint32_t)min_u64(cols / s->n, subgroups / down);
    tune_way(q, (struct Tile){rows, cols, subgroup * down * across, across});
    uint32_t most = j->dev->is_cpu ? 4 : 8;
    for (uint32_t groups = 4; groups <= 8; groups *= 2)
        for (uint32_t high = most; high >= 2; high /= 2)
            for (uint32_t wide = most; wide >= 2; wide /= 2) {
                struct Tile t = {by_tiles(j) ? rows : high * s->m, wide * s->n, groups * subgroup, 2};
                uint32_t sums = t.rows * t.cols / t.threads, down = groups / 2;
                if (sums >= LEAST_SUMS && sums <= tiles->most_sums && t.rows % (down * s->m) == 0 &&
                    t.threads <= j->dev->limits.max_invocations && t.rows < 2 * max_u64(total, least) &&
                    matrix_bytes(j, &t) <= j->dev->limits.shared_bytes)
                    tune_way(q, t);
            }
}

static void gpu_constants(const struct Job *j, struct Dispatch *d, const struct Tile *way) {
    enum { STEPS = 32 }; // of a stage
    const struct CoopmatShape *s = &j->dev->coopmat;
    d->spec[4] = j->x_type != DT_F32 || ((j->form == TN ? j->args.n : j->args.k) % 4 == 0 && j->args.ldx % 4 == 0);
    if (d->spec[4] && j->form != TN && j->args.k % STEPS == 0)
        d->spec[4] = 2;
    d->spec[11] = (uint32_t)j->type;
    d->n_spec = 12;
    if (is_matrix(d->kernel))
        d->subgroup = matrix_subgroup(j->dev), d->spec[5] = s->m, d->spec[6] = s->n, d->spec[7] = s->k,
        d->spec[8] = way->way;
    d->spec[9] = is_scaled(d->kernel);
    d->spec[10] = is_scaled(d->kernel) && (j->type != DT_F16 || j->form == TN);
}

// ---- Operands packed beforehand

static const int PACKED_BF16[] = {KERNEL_gemm_nt_packed_bf16, KERNEL_gemm_nn_packed_bf16, KERNEL_gemm_tn_packed_bf16};
static const int PACKED_F16[] = {KERNEL_gemm_nt_packed_f16, KERNEL_gemm_nn_packed_f16, KERNEL_gemm_tn_packed_f16};

static const int CM2[] = {KERNEL_gemm_nt_cm2, KERNEL_gemm_nn_cm2};

static bool is_cm2(enum KernelId k) { return k == KERNEL_gemm_nt_cm2 || k == KERNEL_gemm_nn_cm2; }
static bool is_packed(const struct Job *j, enum KernelId k) {
    return is_cm2(k) || (int)k == PACKED_BF16[j->form] || (int)k == PACKED_F16[j->form];
}

// The body where operands can be packed. In f16, which has not the range of activations, only a test takes them so.
static enum KernelId pick_packed(const struct Job *j) {
    struct Device *dev = j->dev;
    const struct Args_gemm *a = &j->args;
    enum KernelId body = pick_body(j);
    int bf16 = PACKED_BF16[j->form], f16 = PACKED_F16[j->form];
    if (j->like == DT_F32 || dev->coopmat.m * dev->coopmat.n < dev->limits.subgroup_size ||
        (j->form != NT && a->n % 8) ||
        (j->form == TN && (a->k % 8 || j->grouping == BY_ROW_EXPERT || !device_can(dev, CAP_coopmat_back))))
        return body;
    // A gradient of weights has both operands rounded for the products beside it, where bf16 does for all of them.
    if (j->form == TN && !dev->is_cpu && dev->coopmat.type == DT_BF16)
        return KERNEL_PICK(dev, bf16, body, f16);
    if (dev->is_cpu || !tiles_of(dev)->packs || j->form == TN)
        return KERNEL_PICK(dev, body, bf16, f16);
    return KERNEL_PICK(dev, bf16, CM2[j->form], body, f16);
}

// Smaller tiles where large ones would leave much of the device idle.
static void fill_device(const struct Job *j, uint32_t total, uint32_t width, uint32_t *rows, uint32_t *cols) {
    enum { LEAST = 64 };
    uint64_t layers = j->form == TN ? j->n_experts : 1;
    while ((by_tiles(j) ? j->max_tiles : div_up(total, *rows)) * div_up(width, *cols) * layers <
           tiles_of(j->dev)->fill) {
        if (*cols > LEAST && (*cols >= *rows || by_tiles(j)))
            *cols /= 2;
        else if (!by_tiles(j) && *rows > LEAST)
            *rows /= 2;
        else
            break;
    }
}

// How many of `subgroups` stand above each other, so that their parts of a tile are as square as can be; 0: so many have not whole blocks.
static uint32_t subgroups_down(const struct CoopmatShape *s, uint32_t rows, uint32_t cols, uint32_t subgroups) {
    uint32_t best = 0, least = UINT32_MAX;
    for (uint32_t down = 1; down <= subgroups; down *= 2) {
        uint32_t across = subgroups / down, around = rows / down + cols / across;
        if (rows % (down * s->m) == 0 && cols % (across * s->n) == 0 && around < least)
            best = down, least = around;
    }
    return best;
}

// False: so large a tile has not the registers or the tables.
static bool packed_way(const struct Job *j, struct TuneQuestion *q, uint32_t rows, uint32_t cols) {
    enum { PITCH_BYTES = 80 }; // of 32 steps and a pad: of NT's tables, the largest of all but very small tiles
    const struct CoopmatShape *s = &j->dev->coopmat;
    uint32_t subgroup = j->dev->limits.subgroup_size, sums = tiles_of(j->dev)->packed_sums;
    uint32_t most = rows * cols > 4 * sums * subgroup ? 8 : 4, down = 0;
    if (rows * cols > most * sums * subgroup || PITCH_BYTES * (rows + cols) > j->dev->limits.shared_bytes ||
        most * subgroup > j->dev->limits.max_invocations)
        return false;
    while (most > 1 && !(down = subgroups_down(s, rows, cols, most)))
        most /= 2;
    down = down ? down : 1;
    if (rows * cols > most * sums * subgroup)
        return false;
    tune_way(q, (struct Tile){rows, cols, most * subgroup, most / down});
    return true;
}

static struct Tile cm2_tile(const struct Job *j);
enum { BY_CM2 = 1 << 16 }; // of a way: by the other body for such operands

// On matrix units of a subgroup; way: subgroups across. The driver's own tiling of a workgroup's matrices has the same order of sums, and may be faster.
static void packed_ways(const struct Job *j, struct TuneQuestion *q) {
    static const uint32_t OTHERS[][2] = {{128, 128}, {128, 64}, {64, 128}, {64, 64}, {128, 32}, {256, 128}, {128, 256}};
    const struct Tiles *tiles = tiles_of(j->dev);
    const struct CoopmatShape *s = &j->dev->coopmat;
    uint32_t total = j->form == TN ? j->args.n : j->args.m, width = j->form == TN ? j->args.k : j->args.n;
    uint32_t rows = by_tiles(j) ? (uint32_t)max_u64(j->tile_rows, s->m) : tiles->packed_rows, cols = tiles->packed_cols;
    while (!by_tiles(j) && rows > s->m && rows / 2 >= total)
        rows /= 2;
    while (cols > s->n && cols / 2 >= width) // an adapter's rank
        cols /= 2;
    fill_device(j, total, width, &rows, &cols);
    while (!packed_way(j, q, rows, cols) && cols > s->n)
        cols /= 2;
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        uint32_t other_rows = by_tiles(j) ? rows : OTHERS[i][0], other_cols = OTHERS[i][1];
        if (other_rows < 2 * max_u64(total, s->m) && other_cols < 2 * max_u64(width, s->n))
            packed_way(j, q, other_rows, other_cols);
        if (i == 0 && j->form != TN && !j->args.k2 &&
            KERNEL_PICK(j->dev, CM2[j->form], j->kernel) == (enum KernelId)CM2[j->form]) {
            struct Tile t = cm2_tile(j);
            t.way |= BY_CM2;
            tune_way(q, t);
        }
    }
}

static void packed_constants(const struct Job *j, struct Dispatch *d, const struct Tile *way) {
    enum { STEPS = 32 };
    const struct CoopmatShape *s = &j->dev->coopmat;
    d->spec[4] = j->form != TN && j->args.k % STEPS == 0 ? 2 : 1;
    d->spec[5] = s->m, d->spec[6] = s->n, d->spec[7] = s->k;
    d->spec[8] = way->way;
    d->spec[9] = STEPS;
    d->spec[10] = j->args.k2 > 0;
    d->n_spec = 11;
}

// On matrix units of a whole workgroup (NT and NN); way: steps of the contraction at a time.
static struct Tile cm2_tile(const struct Job *j) {
    const struct Args_gemm *a = &j->args;
    const struct Tiles *tiles = tiles_of(j->dev);
    uint32_t rows = by_tiles(j) ? (uint32_t)max_u64(j->tile_rows, 32) : tiles->cm2_rows, cols = tiles->cm2_cols;
    while (!by_tiles(j) && rows > 32 && rows / 2 >= a->m)
        rows /= 2;
    fill_device(j, a->m, a->n, &rows, &cols);
    return (struct Tile){rows, cols, tiles->cm2_threads, tiles->cm2_steps};
}

static void cm2_ways(const struct Job *j, struct TuneQuestion *q) {
    static const struct Tile OTHERS[] = {{128, 128, 128, 32}, {128, 256, 256, 64}, {128, 64, 128, 64},
                                         {64, 128, 128, 64},  {64, 64, 128, 64},   {128, 256, 256, 32},
                                         {64, 64, 64, 64},    {128, 128, 256, 64}};
    tune_way(q, cm2_tile(j));
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        struct Tile t = OTHERS[i];
        if (by_tiles(j))
            t.rows = q->ways[0].rows;
        if (t.threads <= j->dev->limits.max_invocations && t.rows < 2 * max_u64(j->args.m, 32))
            tune_way(q, t);
    }
}

static void cm2_constants(struct Dispatch *d, const struct Tile *way) {
    d->spec[4] = 1;
    d->spec[5] = way->way & ~BY_CM2;
    d->n_spec = 6;
}

static enum KernelId kernel_of(const struct Job *j) { return j->packed ? j->kernel : pick_body(j); }

static struct Dispatch dispatch_of(const void *job, const struct Tile *way) {
    const struct Job *j = job;
    const struct Args_gemm *a = &j->args;
    struct Dispatch d = {.kernel = kernel_of(j),
                         .local_size = way->threads,
                         .spec = {way->rows, way->cols, j->form == TN ? j->grouping : 0, j->form == TN ? j->gather : 0},
                         .flops = j->flops,
                         .bytes = j->bytes};
    bool turned = false;
    if (j->packed && way->way >= BY_CM2)
        d.kernel = (enum KernelId)CM2[j->form];
    if (j->packed && is_cm2(d.kernel))
        cm2_constants(&d, way);
    else if (j->packed)
        packed_constants(j, &d, way);
    else if (is_cpu_body(j, d.kernel))
        cpu_constants(j, &d, way), turned = way->way;
    else
        gpu_constants(j, &d, way);
    uint32_t down = (uint32_t)div_up(j->form == TN ? a->n : a->m, way->rows);
    uint32_t across = (uint32_t)div_up(j->form == TN ? a->k : a->n, way->cols);
    d.groups[0] = by_tiles(j) ? j->max_tiles : turned ? across : down;
    d.groups[1] = turned ? down : across;
    d.groups[2] = j->form == TN ? j->n_experts : 1;
    return d;
}

static uint32_t number_bytes(enum DType type) { return type == DT_F32 ? 4 : 2; }

// Rows shared out evenly among the experts, as few tiles as that makes; and any token for each of them. Peaks are 8.
static void lists_of(const void *job, size_t at, uint32_t *to, uint64_t n) {
    const struct Job *j = job;
    uint32_t m = j->args.m, experts = j->n_experts, height = j->tile_rows, count = 0;
    for (uint64_t i = 0; i < n && at == offsetof(struct Args_gemm, gather); i++)
        to[i] = (uint32_t)(i * 7919 % j->g->tokens);
    bool is_peak = at == offsetof(struct Args_gemm, x_peak) || at == offsetof(struct Args_gemm, w_peak);
    for (uint64_t i = 0; i < n && is_peak; i++)
        to[i] = UINT32_C(0x41000000);
    for (uint32_t e = 0; e <= experts && at == offsetof(struct Args_gemm, offsets); e++)
        to[e] = (uint32_t)((uint64_t)m * e / experts);
    if (at != offsetof(struct Args_gemm, tiles) && at != offsetof(struct Args_gemm, grid))
        return;
    for (uint32_t e = 0; e < experts; e++) {
        uint32_t first = (uint32_t)((uint64_t)m * e / experts), end = (uint32_t)((uint64_t)m * (e + 1) / experts);
        for (; first < end && count < j->max_tiles; first += height, count++)
            if (at == offsetof(struct Args_gemm, tiles))
                memcpy(to + 4 * (uint64_t)count, (uint32_t[4]){e, first, (uint32_t)min_u64(end - first, height), 0},
                       16);
    }
    if (at == offsetof(struct Args_gemm, grid))
        to[0] = count;
}

// A large dense product is measured on a part of it: 4096 rows and as many columns; what comes along with any, never.
static struct Job part_of(const struct Job *whole) {
    enum { MOST = 4096 };
    struct Job j = *whole;
    struct Args_gemm *a = &j.args;
    a->accumulate = 0;
    a->k2 = 0;
    if (j.grouping != DENSE)
        return j;
    a->m = (uint32_t)min_u64(a->m, MOST);
    a->n = (uint32_t)min_u64(a->n, MOST);
    if (j.form != TN)
        a->ldy = a->n;
    if (j.form == NN)
        a->w_row_bytes = (uint32_t)dtype_row_bytes(j.type, a->n);
    a->x.bytes = (uint64_t)a->m * a->ldx * number_bytes(j.x_type);
    a->w.bytes = (uint64_t)(j.form == NT ? a->n : j.form == NN ? a->k : a->m) * a->w_row_bytes;
    a->y.bytes = 4 * (uint64_t)(j.form == TN ? a->n : a->m) * a->ldy;
    return j;
}

static void run(struct Cmd *c, const struct Job *j) {
    struct Job part = part_of(j);
    enum KernelId kernel = kernel_of(j);
    struct TuneQuestion q = {.kernel = kernel,
                             .type = j->type,
                             .kind = j->grouping | j->args.flags << 2 | j->gather << 4 | j->tile_rows << 8 |
                                     (uint32_t)(j->args.k2 > 0) << 24,
                             .shape = {part.args.m, part.args.n, part.args.k},
                             .args = &part.args,
                             .args_bytes = sizeof part.args,
                             .job = &part,
                             .dispatch = dispatch_of,
                             .words = lists_of};
    if (j->packed && is_cm2(kernel))
        cm2_ways(j, &q);
    else if (j->packed)
        packed_ways(j, &q);
    else if (is_cpu_body(j, kernel))
        cpu_ways(j, &q);
    else if (is_matrix(kernel))
        matrix_ways(j, &q);
    else
        shared_ways(j, kernel, &q);
    tune_operand(&q, offsetof(struct Args_gemm, y), DT_F32, 0);
    tune_operand(&q, offsetof(struct Args_gemm, x), j->x_type, j->args.ldx);
    tune_operand(&q, offsetof(struct Args_gemm, w), j->type, j->form == NN ? part.args.n : j->args.k);
    if (j->gather)
        tune_operand(&q, offsetof(struct Args_gemm, gather), DT_U32, 1);
    if (by_tiles(j)) {
        tune_operand(&q, offsetof(struct Args_gemm, tiles), DT_U32, 1);
        tune_operand(&q, offsetof(struct Args_gemm, grid), DT_U32, 1);
    } else if (j->grouping != DENSE)
        tune_operand(&q, offsetof(struct Args_gemm, offsets), DT_U32, 1);
    if (j->args.x_peak.address)
        tune_operand(&q, offsetof(struct Args_gemm, x_peak), DT_U32, 1);
    if (j->args.w_peak.address)
        tune_operand(&q, offsetof(struct Args_gemm, w_peak), DT_U32, 1);
    struct Tile way = j->grouping != DENSE && is_few(j->g) ? q.ways[0] : tune_pick(j->dev, &q);
    struct Dispatch d = dispatch_of(j, &way);
    cmd_dispatch(c, &d, &j->args);
}

// Rows of x, gathered by `index` on the way where there is one, as operands of matrix units.
static struct Operand pack(struct Cmd *c, struct Arena *scratch, enum DType type, bool scaled, const struct Tensor *x,
                           const struct Tensor *index, uint32_t rows) {
    struct Operand to = {.rows = TENSOR(scratch, type, rows, (uint32_t)align_up(tensor_cols(x), 8))};
    if (scaled)
        to.peak = TENSOR(scratch, DT_U32, rows);
    op_pack_rows(c, x, index, &to);
    return to;
}
static struct Operand operand(struct Cmd *c, struct Arena *scratch, enum DType type, bool scaled,
                              const struct Tensor *x, const struct Tensor *index, uint32_t rows,
                              const struct Operand *packed) {
    bool ready =
        packed && tensor_exists(&packed->rows) && packed->rows.type == type && tensor_exists(&packed->peak) == scaled;
    return ready ? *packed : pack(c, scratch, type, scaled, x, index, rows);
}
static struct Tensor unpack(struct Cmd *c, struct Arena *scratch, enum DType type, const struct Tensor *w) {
    struct Tensor unpacked = arena_tensor(scratch, type, w->n_dims, w->dim);
    op_embed(c, NULL, w, &unpacked);
    return unpacked;
}

// Whether columns of w are brought to the units' range by their peaks.
static bool wants_peaks(enum KernelId k, enum DType type) { return is_scaled(k) && type != DT_F16; }

bool linear_wants_peaks(struct Device *dev, enum DType type) {
    struct Job j = {.form = NT, .dev = dev, .type = type, .like = type};
    enum KernelId kernel = pick_packed(&j);
    return !is_packed(&j, kernel) && wants_peaks(kernel, type);
}

// Peaks of w's rows, or of the columns of its matrices.
static struct View peaks(struct Cmd *c, struct Arena *scratch, const struct Tensor *w, bool columns) {
    uint32_t stacks = (uint32_t)tensor_rows(w) / w->dim[w->n_dims - 2];
    struct Tensor peak = TENSOR(scratch, DT_U32, columns ? stacks * tensor_cols(w) : (uint32_t)tensor_rows(w));
    op_peaks(c, w, columns, &peak);
    return view(&peak);
}

// NT and NN. Matrix units want x rounded and in order, which is done here where nobody has, for the time of the multiply; and some want weights of another type
// unpacked too. Whatever the number of rows: unpacking costs few rows much, but a row must not depend on its neighbours.
// False: without o.more_x, which is still to be added.
static bool run_product(struct Cmd *c, struct Job *j, const struct Tensor *x, const struct Tensor *w,
                        struct LinearOptions o) {
    j->kernel = pick_packed(j);
    j->packed = is_packed(j, j->kernel);
    if (!j->packed && !takes_half(j->kernel)) {
        run(c, j);
        return false;
    }
    struct ArenaMark mark = arena_mark(o.scratch);
    enum DType type = half_type(j->kernel);
    bool scaled = !j->packed && is_scaled(j->kernel);
    if (j->packed && w->type != type) {
        struct Tensor unpacked = unpack(c, o.scratch, type, w);
        j->args.w = view(&unpacked);
        j->args.w_row_bytes = 2 * tensor_cols(w);
        j->type = type;
    }
    struct Operand ready =
        operand(c, o.scratch, type, scaled, x, j->args.flags & 2 ? &j->g->gather : NULL, j->args.m, o.packed);
    j->args.x = view(&ready.rows);
    j->args.ldx = tensor_cols(&ready.rows);
    j->args.flags &= 1;
    j->x_type = type;
    if (scaled)
        j->args.x_peak = view(&ready.peak);
    if (!j->packed && wants_peaks(j->kernel, w->type)) {
        bool kept = j->form == NT && o.peak && tensor_exists(o.peak);
        j->args.w_peak = kept ? view(o.peak) : peaks(c, o.scratch, w, j->form == NN);
    }
    bool along = j->packed && o.more_x && !is_cm2(j->kernel) && tensor_cols(o.more_x) % 8 == 0;
    if (along) {
        struct Operand more_x = pack(c, o.scratch, type, false, o.more_x, NULL, j->args.m);
        struct Tensor more_w = unpack(c, o.scratch, type, o.more_w);
        j->args.x2 = view(&more_x.rows), j->args.w2 = view(&more_w);
        j->args.k2 = tensor_cols(o.more_x);
        j->flops += 2.0 * j->args.m * j->args.n * j->args.k2;
        j->bytes += (double)more_x.rows.bytes + (double)more_w.bytes;
    }
    run(c, j);
    arena_release(o.scratch, mark);
    return along;
}

struct Operand op_operand(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Routing *g,
                          bool gather, enum OperandOf of, enum DType like) {
    uint32_t rows = g ? g->tokens * g->n_active : (uint32_t)tensor_rows(x);
    struct Job j = {.form = of == OF_GRADIENT ? TN : NT, .dev = cmd_device(c), .g = g, .type = like, .like = like};
    j.args.n = j.args.k = tensor_cols(x);
    enum KernelId kernel = pick_packed(&j);
    bool packed = is_packed(&j, kernel), scaled = !packed && is_scaled(kernel);
    if (linear_is_few(rows, g) || (!packed && (of == OF_GRADIENT || !takes_half(kernel))))
        return (struct Operand){0};
    return pack(c, scratch, half_type(kernel), scaled, x, gather ? &g->gather : NULL, rows);
}

// NN on CPU devices, slice by slice of a long contraction (a head's is the vocabulary), each added to what is there.
static void run_slices(struct Cmd *c, const struct Job *whole) {
    uint32_t slice = tiles_of(whole->dev)->cpu_nn_slice, k = whole->args.k;
    for (uint32_t first = 0; first < k; first += slice) {
        struct Job j = *whole;
        uint64_t skip = (uint64_t)first * j.args.w_row_bytes;
        j.args.k = k - first < 2 * slice ? k - first : slice; // the last one takes what is left
        j.args.x.address += 4 * (uint64_t)first, j.args.x.bytes -= 4 * (uint64_t)first;
        j.args.w.address += skip, j.args.w.bytes -= skip;
        j.args.accumulate = whole->args.accumulate || first > 0;
        j.flops = whole->flops * j.args.k / k, j.bytes = whole->bytes * j.args.k / k;
        run(c, &j);
        if (first + j.args.k == k)
            break;
    }
}

static struct Job dw_packed(struct Cmd *c, const struct Job *tn, enum KernelId kernel, const struct Tensor *dy,
                            const struct Tensor *x, struct LinearOptions o) {
    struct Job j = *tn;
    j.kernel = kernel, j.type = j.x_type = half_type(kernel), j.packed = true, j.gather = 0;
    const struct Tensor *index[2] = {tn->gather & 1 ? &tn->g->gather : NULL, tn->gather & 2 ? &tn->g->gather : NULL};
    struct Operand left = operand(c, o.scratch, j.type, false, dy, index[0], j.args.m, o.packed);
    struct Operand right = operand(c, o.scratch, j.type, false, x, index[1], j.args.m, o.packed_x);
    j.args.x = view(&left.rows), j.args.w = view(&right.rows);
    j.args.w_row_bytes = 2 * tensor_cols(x);
    return j;
}

// Rows first .. first + n - 1 of the contraction of a dense TN.
static struct Job rows_of_tn(const struct Job *whole, uint64_t first, uint32_t n) {
    struct Job j = *whole;
    uint64_t skip_x = first * number_bytes(j.x_type) * j.args.ldx, skip_w = first * j.args.w_row_bytes;
    j.args.x.address += skip_x, j.args.x.bytes -= skip_x;
    j.args.w.address += skip_w, j.args.w.bytes -= skip_w;
    j.flops = j.flops * n / j.args.m, j.bytes = j.bytes * n / j.args.m;
    j.args.m = n;
    return j;
}

// TN on cards. Where few tiles make the output but many rows are summed (the gradients of adapters, of a router, of few heads), parts of the rows are
// summed beside each other, and their results in order. The parts follow from the shapes and the table alone, as an order of sums must.
static void run_dw(struct Cmd *c, const struct Job *tn, const struct Tensor *dy, const struct Tensor *x,
                   struct LinearOptions o) {
    struct Arena *scratch = o.scratch;
    enum { LEAST_ROWS = 512, TILE = 128, STEPS = 64 };
    if (!scratch) {
        run(c, tn);
        return;
    }
    struct ArenaMark mark = arena_mark(scratch);
    enum KernelId kernel = pick_packed(tn);
    struct Job whole = is_packed(tn, kernel) ? dw_packed(c, tn, kernel, dy, x, o) : *tn;
    if (!whole.packed && is_scaled(kernel)) {
        whole.args.x_peak = peaks(c, scratch, dy, true);
        whole.args.w_peak = peaks(c, scratch, x, true);
    }
    uint32_t n = tn->args.n, k = tn->args.k, m = tn->args.m;
    uint64_t tiles = div_up(n, TILE) * div_up(k, TILE);
    uint32_t parts = (uint32_t)min_u64(tiles_of(tn->dev)->fill / tiles, m / LEAST_ROWS);
    if (parts < 2 || tn->grouping != DENSE || is_cpu_body(tn, kernel)) {
        run(c, &whole);
        arena_release(scratch, mark);
        return;
    }
    uint32_t rows = (uint32_t)align_up(div_up(m, parts), STEPS);
    parts = (uint32_t)div_up(m, rows);
    struct Tensor sums = TENSOR(scratch, DT_F32, parts, n, k);
    for (uint32_t i = 0; i < parts; i++) {
        struct Job j = rows_of_tn(&whole, (uint64_t)i * rows, (uint32_t)min_u64(rows, m - (uint64_t)i * rows));
        struct Tensor sum = tensor_slice(&sums, i, 1);
        j.args.y = view(&sum);
        j.args.ldy = k;
        j.args.accumulate = 0;
        run(c, &j);
    }
    struct Args_column_sum args = {.x = view(&sums),
                                   .y = tn->args.y,
                                   .rows = parts,
                                   .dim = n * k,
                                   .rows_per_part = parts,
                                   .accumulate = tn->args.accumulate};
    uint32_t local = cmd_local_size(tn->dev);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(tn->dev, KERNEL_column_sum),
                                    .local_size = local,
                                    .n_spec = 1,
                                    .groups = {(uint32_t)div_up(args.dim / 4, local)},
                                    .bytes = (double)sums.bytes},
                 &args);
    arena_release(scratch, mark);
}

bool linear_is_few(uint32_t rows, const struct Routing *g) { return g ? is_few(g) : rows <= FEW_ROWS; }

// Weights are read once; with experts only those that have rows, so this is an upper bound.
static double traffic(const struct Tensor *x, const struct Tensor *w, const struct Tensor *y) {
    return (double)x->bytes + (double)w->bytes + (double)y->bytes;
}

static struct Job job_make(struct Cmd *c, enum Form form, const struct Tensor *x, const struct Tensor *w,
                           const struct Tensor *y, const struct Routing *g, struct LinearOptions o) {
    struct Job j = {.form = form, .dev = cmd_device(c), .g = g, .type = w->type, .n_experts = 1};
    j.args = (struct Args_gemm){.x = view(x),
                                .w = view(w),
                                .y = view(y),
                                .accumulate = o.accumulate,
                                .alpha = o.alpha == 0 ? 1 : o.alpha,
                                .w_row_bytes = (uint32_t)dtype_row_bytes(w->type, tensor_cols(w)),
                                .ldx = tensor_cols(x),
                                .ldy = tensor_cols(y)};
    j.bytes = traffic(x, w, y);
    if (form !=
        TN) // dense, these are not used; but lavapipe runs the loads of both sides of a branch, so they must be there
        j.args.gather = j.args.tiles = j.args.grid = view(x);
    if (!g)
        return j;
    j.n_experts = g->n_experts;
    j.max_tiles = g->max_tiles;
    j.tile_rows = is_few(g) ? 8 : g->tile_rows;
    j.grouping = form == TN && is_few(g) ? BY_ROW_EXPERT : BY_TILES;
    if (form != TN) {
        j.args.tiles = view(&g->tiles);
        j.args.grid = view(&g->grid);
    } else
        j.args.offsets = is_few(g) ? view(&g->row_expert) : view(&g->offsets);
    return j;
}

static void gather_rows(struct Job *j, uint32_t operands) {
    j->gather = operands;
    assert(!(operands & 1) ||
           j->args.x.bytes <= UINT32_MAX); // a shader counts from the first of them (AT in types.glsl)
    assert(!(operands & 2) || j->args.w.bytes <= UINT32_MAX);
    if (operands)
        j->args.gather = view(&j->g->gather);
    j->args.flags = j->form == TN ? 0 : (j->grouping != DENSE) | operands << 1;
}

// ---- The operations

void op_linear(struct Cmd *c, const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
               const struct Routing *g, struct LinearOptions o) {
    assert_weights(w, g);
    assert(tensor_cols(x) == weight_dim(w, 0) && tensor_cols(y) == weight_dim(w, 1));
    assert(!o.more_x || o.alpha == 0 || o.alpha == 1);
    struct LinearOptions more = {.accumulate = true, .like = o.like, .scratch = o.scratch};
    if (linear_is_few((uint32_t)tensor_rows(y), g)) {
        linear_few(c, x, w, y, g, o);
        if (o.more_x)
            linear_few(c, o.more_x, o.more_w, y, g, more);
        return;
    }
    assert(!o.swiglu && !o.norm);
    struct Job j = job_make(c, NT, x, w, y, g, o);
    j.args.m = (uint32_t)tensor_rows(y), j.args.n = weight_dim(w, 1), j.args.k = weight_dim(w, 0);
    j.like = !o.scratch ? DT_F32 : w->type != DT_F32 ? w->type : o.like;
    gather_rows(&j, g && o.gather ? 1 : 0);
    j.flops = 2.0 * j.args.m * j.args.n * j.args.k;
    if (!run_product(c, &j, x, w, o) && o.more_x)
        op_linear(c, o.more_x, o.more_w, y, g, more);
}

void op_linear_dx(struct Cmd *c, const struct Tensor *dy, const struct Tensor *w, const struct Tensor *dx,
                  const struct Routing *g, struct LinearOptions o) {
    assert_weights(w, g);
    assert(tensor_cols(dy) == weight_dim(w, 1) && tensor_cols(dx) == weight_dim(w, 0));
    struct Job j = job_make(c, NN, dy, w, dx, g, o);
    j.args.m = (uint32_t)tensor_rows(dx), j.args.n = weight_dim(w, 0), j.args.k = weight_dim(w, 1);
    j.like = !o.scratch ? DT_F32 : w->type != DT_F32 ? w->type : o.like;
    gather_rows(&j, g && o.gather ? 1 : 0);
    j.flops = 2.0 * j.args.m * j.args.n * j.args.k;
    bool along = false;
    if (!g && is_cpu_body(&j, pick_packed(&j)))
        run_slices(c, &j);
    else
        along = run_product(c, &j, dy, w, o);
    if (o.more_x && !along)
        op_linear_dx(c, o.more_x, o.more_w, dx, g,
                     (struct LinearOptions){.accumulate = true, .like = o.like, .scratch = o.scratch});
}

void op_linear_dw(struct Cmd *c, const struct Tensor *dy, const struct Tensor *x, const struct Tensor *dw,
                  const struct Routing *g, struct LinearOptions o, bool gather_dy) {
    assert(dw->type == DT_F32 && tensor_cols(dy) == weight_dim(dw, 1) && tensor_cols(x) == weight_dim(dw, 0));
    assert(tensor_cols(x) % 8 == 0);
    struct Job j = job_make(c, TN, dy, x, dw, g, o);
    bool gather_x = g && o.gather, gather_both = gather_x && gather_dy;
    assert(!gather_both); // one of the two always lies in sorted order
    (void)gather_both;
    j.args.n = tensor_cols(dy), j.args.k = tensor_cols(x);
    j.args.m = g ? g->tokens * g->n_active : (uint32_t)tensor_rows(x);
    j.like = o.scratch ? o.like : DT_F32;
    gather_rows(&j, gather_x ? 2 : g && gather_dy ? 1 : 0);
    j.flops = 2.0 * j.args.m * j.args.n * j.args.k;
    run_dw(c, &j, dy, x, o);
}
