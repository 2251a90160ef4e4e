// Attention: picks bodies, tiles and grids. Every choice follows from the device and the heads alone, never from the
// number of rows or the spans, so that a row's result is the same alone and beside others. Forward adds keys in blocks at
// absolute multiples of 32 (64 on a workgroup's matrices, 8 on CPU devices): a text whose first key lies at such a multiple gives the same bits
// wherever that is.
#include "model/ops.h"
#include "model/tiles.h"
#include "model/tune.h"

#include <assert.h>

enum { TILE_THREADS = 128, CPU_BODY_LANES = 32 }; // CPU_BODY_LANES: only where a CPU body is forced on another device

static uint32_t shape_assert(struct AttentionShape s) {
    assert(s.head_dim > 0 && s.head_dim % 8 == 0 && s.head_dim <= 256);
    assert(s.n_kv_heads > 0 && s.n_heads % s.n_kv_heads == 0);
    return s.n_heads / s.n_kv_heads;
}

// CPU devices prefer the body without shared memory; others never take it unless told to.
static enum KernelId pick_body(struct Device *dev, enum KernelId cpu, enum KernelId tiled, bool *is_cpu) {
    enum KernelId kernel = dev->is_cpu ? KERNEL_PICK(dev, cpu, tiled) : KERNEL_PICK(dev, tiled, cpu);
    *is_cpu = kernel == cpu;
    return kernel;
}

static uint32_t cpu_lanes(const struct Device *dev) { return dev->is_cpu ? dev->limits.subgroup_size : CPU_BODY_LANES; }

static struct View view_or_none(const struct Tensor *t) { return t ? view(t) : (struct View){0, 0}; }

// Pairs of query and key that a pass touches. Spans are not known when it is recorded: square means causal, which is half of it.
static double pairs_of(uint32_t rows, uint32_t key_rows, struct AttentionShape s) {
    double pairs = (double)rows * key_rows * s.n_heads;
    return rows == key_rows ? pairs / 2 : pairs;
}

uint32_t cache_code(enum DType type) {
    assert(type == DT_F32 || type == DT_F16 || type == DT_BF16 || type == DT_Q8_0);
    return type == DT_F32 ? 0 : type == DT_F16 ? 1 : type == DT_BF16 ? 2 : 3;
}

static uint32_t keys_assert(const struct Tensor *k, const struct Tensor *v, struct AttentionShape s) {
    assert(k->type == v->type && k->dim[0] == v->dim[0] && (k->type != DT_Q8_0 || s.head_dim % 32 == 0));
    (void)v, (void)s;
    return cache_code(k->type);
}

// A tile kernel over `rows` rows of `n_heads` heads. `wide` is the number of results of head_dim floats that a thread holds for each of its rows:
// with the fewer rows the more of them, so that about 64 registers hold results.
static struct Dispatch tile_dispatch(struct Device *dev, enum KernelId cpu, enum KernelId tiled, uint32_t rows,
                                     uint32_t n_heads, uint32_t head_dim, uint32_t cache, uint32_t wide) {
    bool is_cpu;
    struct Dispatch d = {.kernel = pick_body(dev, cpu, tiled, &is_cpu), .spec = {head_dim, cache}, .n_spec = 2};
    uint32_t tile_rows;
    if (is_cpu) {
        bool back = cpu != KERNEL_attention_cpu, again = back && tiles_of(dev)->attention_back_again;
        uint32_t lane_rows = head_dim <= 64 && !again ? 2 : 1; // two of wider heads do not stay in the first cache
        d.local_size = cpu_lanes(dev);
        d.spec[d.n_spec++] = lane_rows;
        if (back)
            d.spec[d.n_spec++] = again;
        tile_rows = lane_rows * d.local_size;
    } else {
        uint32_t width = head_dim * wide, most = tiles_of(dev)->attention_rows;
        uint32_t thread_rows = width <= 128 ? most : width <= 256 ? most / 2 : most / 4;
        thread_rows = thread_rows ? thread_rows : 1;
        d.local_size = TILE_THREADS;
        d.spec[d.n_spec++] = thread_rows;
        tile_rows = 16 * thread_rows;
    }
    d.groups[0] = (uint32_t)div_up(rows, tile_rows) * n_heads;
    return d;
}

// ---- Matrix units

enum { CM2_WIDEST_HEAD = 128 };

// Shared memory of attention_matrix.comp.
static uint64_t matrix_bytes(const struct Device *dev, uint32_t head_dim, uint32_t keys, uint32_t tile_rows) {
    const struct CoopmatShape *m = &dev->coopmat;
    uint64_t pitch = align_up(align_up(head_dim, m->k), m->n) / 8 + 1;
    return 16 * (2 * keys * pitch + tile_rows * (keys / 4 + 1)) + 4 * tile_rows + 8;
}

// Whether lanes can share the scores of the device's shape of matrix as the module wants it, and its memory is there.
static bool matrix_fits(const struct Device *dev, uint32_t head_dim) {
    const struct CoopmatShape *m = &dev->coopmat;
    const struct Tiles *tiles = tiles_of(dev);
    uint32_t subgroup = dev->limits.subgroup_size, lanes = m->m ? subgroup / m->m : 0;
    uint32_t keys = tiles->attention_matrix_keys, subgroups = tiles->attention_matrix_subgroups;
    if (lanes == 0 || subgroup % m->m != 0 || m->n % (4 * lanes) != 0 || keys % (8 * lanes) != 0 || keys % m->n != 0 ||
        keys % m->k != 0 || m->n % 8 != 0 || m->k % 8 != 0)
        return false;
    uint32_t tile_rows = subgroups * tiles->attention_matrix_row_blocks * m->m;
    return head_dim <= tiles->attention_matrix_widest &&
           matrix_bytes(dev, head_dim, keys, tile_rows) <= dev->limits.shared_bytes &&
           subgroups * subgroup <= dev->limits.max_invocations;
}

static bool cm2_fits(uint32_t head_dim) { return head_dim % 64 == 0 && head_dim <= CM2_WIDEST_HEAD; }

// The body for keys of a type: matrix units where operands may be coarse and keys and values lose neither range nor, in what a cache has rounded
// once, places: f16 and q8_0 as f16, bf16 as bf16, f32 as bf16 (as f16 where a test demands it).
static enum KernelId pick_forward(struct Device *dev, enum DType keys, struct AttentionShape s) {
    enum KernelId plain = KERNEL_attention, cpu = KERNEL_attention_cpu;
    if (s.coarse && matrix_fits(dev, s.head_dim)) {
        bool bf16 = keys == DT_F32 || keys == DT_BF16;
        enum KernelId matrix = bf16 ? KERNEL_attention_matrix_bf16 : KERNEL_attention_matrix_f16;
        enum KernelId other = keys == DT_F32 ? KERNEL_attention_matrix_f16 : matrix;
        enum KernelId cm2 = bf16 ? KERNEL_attention_cm2_bf16 : KERNEL_attention_cm2_f16;
        if (!cm2_fits(s.head_dim) || keys == DT_Q8_0)
            cm2 = matrix;
        return dev->is_cpu ? KERNEL_PICK(dev, cpu, plain, matrix, other)
                           : KERNEL_PICK(dev, matrix, cm2, plain, cpu, other);
    }
    return dev->is_cpu ? KERNEL_PICK(dev, cpu, plain) : KERNEL_PICK(dev, plain, cpu);
}

static struct Dispatch matrix_dispatch(const struct Device *dev, enum KernelId kernel, uint32_t rows, uint32_t n_heads,
                                       uint32_t head_dim, uint32_t cache) {
    const struct Tiles *t = tiles_of(dev);
    if (KERNELS[kernel].needs & NEEDS_COOPMAT2)
        return (struct Dispatch){.kernel = kernel,
                                 .local_size = t->attention_cm2_threads,
                                 .spec = {head_dim, cache, t->attention_cm2_rows, t->attention_cm2_keys},
                                 .n_spec = 4,
                                 .groups = {(uint32_t)div_up(rows, t->attention_cm2_rows) * n_heads}};
    const struct CoopmatShape *m = &dev->coopmat;
    uint32_t subgroups = t->attention_matrix_subgroups, row_blocks = t->attention_matrix_row_blocks;
    uint32_t tile_rows = subgroups * row_blocks * m->m;
    return (struct Dispatch){.kernel = kernel,
                             .local_size = subgroups * dev->limits.subgroup_size,
                             .spec = {head_dim, cache, m->m, m->n, m->k, t->attention_matrix_keys, row_blocks},
                             .n_spec = 7,
                             .groups = {(uint32_t)div_up(rows, tile_rows) * n_heads}};
}

// Keys or values of f32 as the module's own type, in scratch memory.
static struct Tensor packed(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, enum KernelId kernel) {
    enum DType type = kernel == KERNEL_attention_matrix_f16 ? DT_F16 : DT_BF16;
    if (x->type != DT_F32)
        return *x;
    struct Tensor y = arena_tensor(scratch, type, x->n_dims, x->dim);
    op_gather_rows(c, x, NULL, &y);
    return y;
}

// The forward pass to be cut. Of a way, rows are those of a tile; `way` is what a thread (plain body) or a subgroup (in blocks) has of them.
struct Forward {
    struct Device *dev;
    enum KernelId kernel;
    struct AttentionShape s;
    enum DType keys;
    struct Args_attention args;
    double flops, bytes;
    bool at_most; // the keys of a cache, of which rows see what is there by then
};

static struct Dispatch forward_dispatch(const void *job, const struct Tile *way) {
    const struct Forward *j = job;
    uint32_t rows = j->args.rows, heads = j->s.n_heads, head_dim = j->s.head_dim, cache = cache_code(j->keys);
    uint32_t needs = KERNELS[j->kernel].needs;
    struct Dispatch d = needs & NEEDS_COOPMAT ? matrix_dispatch(j->dev, j->kernel, rows, heads, head_dim, cache)
                                              : tile_dispatch(j->dev, KERNEL_attention_cpu, KERNEL_attention, rows,
                                                              heads, head_dim, cache, 1);
    d.flops = j->flops, d.bytes = j->bytes, d.at_most = j->at_most;
    if (way->rows == 0) // the table's
        return d;
    d.local_size = way->threads;
    d.spec[needs & NEEDS_COOPMAT2 || !(needs & NEEDS_COOPMAT) ? 2 : 6] = way->way;
    d.groups[0] = (uint32_t)div_up(rows, way->rows) * heads;
    return d;
}

static void forward_ways(const struct Forward *j, struct TuneQuestion *q) {
    const struct Tiles *t = tiles_of(j->dev);
    struct Tile table = {0};
    struct Dispatch d = forward_dispatch(j, &table);
    uint32_t needs = KERNELS[j->kernel].needs, most = j->dev->limits.max_invocations;
    tune_way(q, table);
    if (j->kernel == KERNEL_attention)
        for (uint32_t each = d.spec[2] / 2; each > 0; each /= 2) // fewer rows a thread
            tune_way(q, (struct Tile){16 * each, 0, TILE_THREADS, each});
    for (uint32_t high = 64; needs & NEEDS_COOPMAT2 && high <= 128; high *= 2)
        for (uint32_t threads = 128; threads <= 256; threads *= 2)
            if (threads <= most && (high != t->attention_cm2_rows || threads != t->attention_cm2_threads))
                tune_way(q, (struct Tile){high, 0, threads, high});
    bool matrix = (needs & NEEDS_COOPMAT) && !(needs & NEEDS_COOPMAT2);
    for (uint32_t subgroups = 2; matrix && subgroups <= (j->dev->is_cpu ? 4 : 8); subgroups *= 2)
        for (uint32_t blocks = 1; blocks <= (j->s.head_dim <= 64 && t->most_sums >= 64 ? 2 : 1);
             blocks++) { // wider heads would spill two
            uint32_t high = subgroups * blocks * j->dev->coopmat.m, threads = subgroups * j->dev->limits.subgroup_size;
            bool fits =
                matrix_bytes(j->dev, j->s.head_dim, t->attention_matrix_keys, high) <= j->dev->limits.shared_bytes;
            if (fits && threads <= most && (threads != d.local_size || blocks != d.spec[6]))
                tune_way(q, (struct Tile){high, 0, threads, blocks});
        }
}

// Scratch queries see what they see in a causal pass, the last one all keys.
static void forward_lists(const void *job, size_t at, uint32_t *to, uint64_t n) {
    const struct Args_attention *a = &((const struct Forward *)job)->args;
    for (uint64_t i = 0; i < n / 2 && at == offsetof(struct Args_attention, span); i++) {
        uint64_t end = i + 1 + a->key_rows;
        to[2 * i + 1] = (uint32_t)(end > a->rows ? min_u64(end - a->rows, a->key_rows) : 0);
    }
}

static struct Tile forward_pick(const struct Forward *whole) {
    enum { MOST = 4096 }; // rows, and keys, that are measured
    struct Forward j = *whole;
    struct Args_attention *a = &j.args;
    a->rows = (uint32_t)min_u64(a->rows, MOST), a->key_rows = (uint32_t)min_u64(a->key_rows, MOST);
    uint32_t wide = j.s.n_heads * j.s.head_dim, narrow = j.s.n_kv_heads * j.s.head_dim;
    a->q.bytes = a->o.bytes = 4 * (uint64_t)a->rows * wide;
    a->k.bytes = a->v.bytes = a->key_rows * dtype_row_bytes(j.keys, narrow);
    a->span.bytes = 8 * (uint64_t)a->rows;
    a->lse.bytes = a->lse.address ? 4 * (uint64_t)a->rows * j.s.n_heads : 0;
    struct TuneQuestion q = {.kernel = j.kernel,
                             .type = j.keys,
                             .kind = j.s.n_heads / j.s.n_kv_heads << 16 | j.s.head_dim << 1 | (a->lse.address != 0),
                             .shape = {a->rows, a->key_rows, j.s.n_heads},
                             .operands = {{offsetof(struct Args_attention, o), DT_F32, wide},
                                          {offsetof(struct Args_attention, q), DT_F32, wide},
                                          {offsetof(struct Args_attention, k), j.keys, narrow},
                                          {offsetof(struct Args_attention, v), j.keys, narrow},
                                          {offsetof(struct Args_attention, span), DT_U32, 2},
                                          {offsetof(struct Args_attention, lse), DT_F32, j.s.n_heads}},
                             .n_operands = a->lse.address ? 6 : 5,
                             .args = a,
                             .args_bytes = sizeof *a,
                             .job = &j,
                             .dispatch = forward_dispatch,
                             .words = forward_lists};
    forward_ways(&j, &q);
    return tune_pick(j.dev, &q);
}

void op_attention(struct Cmd *c, struct Arena *scratch, const struct Tensor *q, const struct Tensor *k,
                  const struct Tensor *v, const struct Tensor *span, const struct Tensor *o, const struct Tensor *lse,
                  struct AttentionShape s) {
    shape_assert(s);
    keys_assert(k, v, s);
    struct Device *dev = cmd_device(c);
    uint32_t rows = q->dim[0], key_rows = k->dim[0];
    assert(span->dim[0] == rows);
    enum KernelId kernel = pick_forward(dev, k->type, s);
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor k_packed, v_packed;
    if (KERNELS[kernel].needs & NEEDS_COOPMAT) {
        k_packed = packed(c, scratch, k, kernel), v_packed = packed(c, scratch, v, kernel);
        k = &k_packed, v = &v_packed;
    }
    struct Forward j = {.dev = dev,
                        .kernel = kernel,
                        .s = s,
                        .keys = k->type,
                        .flops = 4.0 * s.head_dim * pairs_of(rows, key_rows, s),
                        .bytes = (double)(2 * q->bytes + k->bytes + v->bytes),
                        .at_most = rows != key_rows};
    j.args = (struct Args_attention){.q = view(q),
                                     .k = view(k),
                                     .v = view(v),
                                     .span = view(span),
                                     .o = view(o),
                                     .lse = view_or_none(lse),
                                     .rows = rows,
                                     .n_heads = s.n_heads,
                                     .n_kv_heads = s.n_kv_heads,
                                     .head_dim = s.head_dim,
                                     .key_rows = key_rows,
                                     .scale = s.scale};
    struct Tile way = forward_pick(&j);
    struct Dispatch d = forward_dispatch(&j, &way);
    cmd_dispatch(c, &d, &j.args);
    arena_release(scratch, mark);
}

void op_attention_decode(struct Cmd *c, struct Arena *scratch, const struct Tensor *done, const struct Tensor *q,
                         const struct Tensor *k, const struct Tensor *v, const struct Tensor *span,
                         const struct Tensor *o, struct AttentionShape s) {
    struct Device *dev = cmd_device(c);
    uint32_t n_shared = shape_assert(s), rows = q->dim[0], key_rows = k->dim[0];
    assert(rows <= 64 && span->dim[0] == rows && tensor_elements(done) >= (uint64_t)rows * s.n_heads);
    bool is_cpu;
    struct Dispatch d = {.spec = {s.head_dim, keys_assert(k, v, s)}, .n_spec = 2};
    d.kernel = pick_body(dev, KERNEL_attention_decode_cpu, KERNEL_attention_decode, &is_cpu);
    d.local_size = is_cpu ? cpu_lanes(dev) : TILE_THREADS;
    // One row must fill the device; more rows change nothing, or a row's sums would depend on them.
    uint32_t units = is_cpu ? s.n_kv_heads * (uint32_t)div_up(n_shared, d.local_size) : s.n_heads;
    const struct Tiles *tiles = tiles_of(dev);
    uint32_t n_parts = (uint32_t)min_u64(div_up(tiles->decode_units, units), tiles->decode_parts);
    d.groups[0] = rows * units * n_parts;
    struct Tensor part = TENSOR(scratch, DT_F32, rows, s.n_heads, n_parts, s.head_dim + 4);
    d.flops = 4.0 * s.head_dim * key_rows * s.n_heads; // rows have their own keys
    d.bytes = (double)(k->bytes + v->bytes + part.bytes);
    d.at_most = true; // keys that are there by then
    struct Args_attention_decode args = {.q = view(q),
                                         .k = view(k),
                                         .v = view(v),
                                         .span = view(span),
                                         .part = view(&part),
                                         .o = view(o),
                                         .done = view(done),
                                         .rows = rows,
                                         .n_heads = s.n_heads,
                                         .n_kv_heads = s.n_kv_heads,
                                         .head_dim = s.head_dim,
                                         .key_rows = key_rows,
                                         .n_parts = n_parts,
                                         .scale = s.scale};
    cmd_dispatch(c, &d, &args);
}

// ---- Backward

// As the forward's rule, for operands that training keeps in f32; heads of whole matrices, whose own rows are read as they lie.
static enum KernelId pick_back(struct Device *dev, struct AttentionShape s, bool keys) {
    enum KernelId plain = keys ? KERNEL_attention_back_dkv : KERNEL_attention_back_dq;
    enum KernelId cpu = keys ? KERNEL_attention_back_dkv_cpu : KERNEL_attention_back_dq_cpu;
    enum KernelId matrix = keys ? KERNEL_attention_back_dkv_matrix_bf16 : KERNEL_attention_back_dq_matrix_bf16;
    enum KernelId other = keys ? KERNEL_attention_back_dkv_matrix_f16 : KERNEL_attention_back_dq_matrix_f16;
    if (!s.coarse || !device_can(dev, CAP_coopmat_back) || !matrix_fits(dev, s.head_dim) ||
        s.head_dim % dev->coopmat.n || s.head_dim % dev->coopmat.k)
        return dev->is_cpu ? KERNEL_PICK(dev, cpu, plain) : KERNEL_PICK(dev, plain, cpu);
    return dev->is_cpu ? KERNEL_PICK(dev, cpu, plain, matrix, other) : KERNEL_PICK(dev, matrix, plain, cpu, other);
}

static bool is_matrix(enum KernelId k) { return (KERNELS[k].needs & NEEDS_COOPMAT) != 0; }

static uint32_t back_tile_rows(const struct Device *dev) {
    return tiles_of(dev)->attention_matrix_subgroups * dev->coopmat.m;
}

static struct Dispatch back_dispatch(struct Device *dev, enum KernelId kernel, uint32_t rows, uint32_t n_heads,
                                     uint32_t head_dim, bool keys) {
    const struct CoopmatShape *m = &dev->coopmat;
    if (!is_matrix(kernel))
        return keys ? tile_dispatch(dev, KERNEL_attention_back_dkv_cpu, KERNEL_attention_back_dkv, rows, n_heads,
                                    head_dim, 0, 2)
                    : tile_dispatch(dev, KERNEL_attention_back_dq_cpu, KERNEL_attention_back_dq, rows, n_heads,
                                    head_dim, 0, 1);
    return (struct Dispatch){.kernel = kernel,
                             .local_size = tiles_of(dev)->attention_matrix_subgroups * dev->limits.subgroup_size,
                             .spec = {head_dim, 0, m->m, m->n, m->k, tiles_of(dev)->attention_matrix_keys},
                             .n_spec = 6,
                             .groups = {(uint32_t)div_up(rows, back_tile_rows(dev)) * n_heads}};
}

void op_attention_back_pack(struct Cmd *c, const struct Tensor *q, const struct Tensor *o, const struct Tensor *dout,
                            const struct Tensor *q_packed, const struct Tensor *dout_packed, const struct Tensor *delta,
                            struct AttentionShape s) {
    uint32_t local = cmd_device(c)->is_cpu ? cmd_device(c)->limits.subgroup_size : TILE_THREADS;
    uint32_t rows_packed = q_packed->dim[0];
    struct Dispatch d = {.kernel = KERNEL_PICK(cmd_device(c), KERNEL_attention_back_pack),
                         .local_size = local,
                         .spec = {s.head_dim, cache_code(q_packed->type)},
                         .n_spec = 2,
                         .groups = {(uint32_t)div_up((uint64_t)rows_packed * s.n_heads, local)},
                         .flops = (double)o->bytes,
                         .bytes = 4.0 * (double)o->bytes};
    struct Args_attention_back_pack args = {.q = view(q),
                                            .o = view(o),
                                            .dy = view(dout),
                                            .q_packed = view(q_packed),
                                            .dy_packed = view(dout_packed),
                                            .delta = view(delta),
                                            .rows = q->dim[0],
                                            .n_heads = s.n_heads,
                                            .head_dim = s.head_dim,
                                            .rows_packed = rows_packed,
                                            .scale = s.scale};
    cmd_dispatch(c, &d, &args);
}

// What the bodies are given: as it is, or packed for matrix units into scratch memory.
struct BackOperands {
    struct Tensor q, k, v, dout, delta;
};

// Whole tiles of rows, because matrices are loaded whole.
static struct Tensor back_tensor(struct Device *dev, struct Arena *scratch, enum DType type, const struct Tensor *x) {
    return TENSOR(scratch, type, (uint32_t)align_up(x->dim[0], back_tile_rows(dev)), tensor_cols(x));
}

static struct BackOperands back_pack(struct Cmd *c, struct Arena *scratch, const struct BackOperands *from,
                                     const struct Tensor *o, enum DType type, struct AttentionShape s) {
    struct Device *dev = cmd_device(c);
    struct BackOperands to = {.q = back_tensor(dev, scratch, type, &from->q),
                              .k = back_tensor(dev, scratch, type, &from->k),
                              .v = back_tensor(dev, scratch, type, &from->v),
                              .dout = back_tensor(dev, scratch, type, &from->dout),
                              .delta = TENSOR(scratch, DT_F32, from->q.dim[0], s.n_heads, 2)};
    op_gather_rows(c, &from->k, NULL, &to.k);
    op_gather_rows(c, &from->v, NULL, &to.v);
    op_attention_back_pack(c, &from->q, o, &from->dout, &to.q, &to.dout, &to.delta, s);
    return to;
}

static void back_prepare(struct Cmd *c, const struct Tensor *o, const struct Tensor *dout, const struct Tensor *delta,
                         struct AttentionShape s) {
    uint32_t rows = o->dim[0], local = cmd_device(c)->is_cpu ? cmd_device(c)->limits.subgroup_size : TILE_THREADS;
    struct Dispatch d = {.kernel = KERNEL_PICK(cmd_device(c), KERNEL_attention_back_prepare),
                         .local_size = local,
                         .groups = {(uint32_t)div_up((uint64_t)rows * s.n_heads, local)},
                         .flops = (double)o->bytes / 2,
                         .bytes = 2.0 * (double)o->bytes};
    struct Args_attention_back_prepare args = {.o = view(o),
                                               .dy = view(dout),
                                               .delta = view(delta),
                                               .rows = rows,
                                               .n_heads = s.n_heads,
                                               .head_dim = s.head_dim};
    cmd_dispatch(c, &d, &args);
}

static enum DType operand_type(enum KernelId body) {
    return !is_matrix(body) ? DT_F32 : KERNELS[body].needs & NEEDS_BF16 ? DT_BF16 : DT_F16;
}

static struct BackOperands back_operands(struct Cmd *c, struct Arena *scratch, const struct BackOperands *plain,
                                         const struct Tensor *o, enum DType type, struct AttentionShape s) {
    if (type != DT_F32)
        return back_pack(c, scratch, plain, o, type, s);
    struct BackOperands to = *plain;
    to.delta = TENSOR(scratch, DT_F32, plain->q.dim[0], s.n_heads);
    back_prepare(c, o, &plain->dout, &to.delta, s);
    return to;
}

void op_attention_back(struct Cmd *c, struct Arena *scratch, const struct Tensor *q, const struct Tensor *k,
                       const struct Tensor *v, const struct Tensor *o, const struct Tensor *lse,
                       const struct Tensor *dout, const struct Tensor *span, const struct Tensor *key_span,
                       const struct Tensor *dq, const struct Tensor *dk, const struct Tensor *dv,
                       struct AttentionShape s) {
    shape_assert(s);
    struct Device *dev = cmd_device(c);
    uint32_t rows = q->dim[0], key_rows = k->dim[0];
    assert(span->dim[0] == rows && key_span->dim[0] == key_rows && v->dim[0] == key_rows);
    double pairs = pairs_of(rows, key_rows, s);
    enum KernelId for_rows = pick_back(dev, s, false), for_keys = pick_back(dev, s, true);
    struct ArenaMark mark = arena_mark(scratch);
    struct BackOperands plain = {.q = *q, .k = *k, .v = *v, .dout = *dout};
    struct BackOperands of_rows = back_operands(c, scratch, &plain, o, operand_type(for_rows), s), of_keys = of_rows;
    if (operand_type(for_keys) != operand_type(for_rows)) // a device can refuse one body of a type and take the other
        of_keys = back_operands(c, scratch, &plain, o, operand_type(for_keys), s);
    const struct BackOperands *in = &of_rows;
    struct Dispatch d = back_dispatch(dev, for_rows, rows, s.n_heads, s.head_dim, false);
    d.flops = 6.0 * s.head_dim * pairs;
    d.bytes = (double)(in->q.bytes + in->dout.bytes + in->k.bytes + in->v.bytes + dq->bytes);
    struct Args_attention_back_dq dq_args = {.q = view(&in->q),
                                             .k = view(&in->k),
                                             .v = view(&in->v),
                                             .dy = view(&in->dout),
                                             .lse = view(lse),
                                             .delta = view(&in->delta),
                                             .span = view(span),
                                             .dq = view(dq),
                                             .rows = rows,
                                             .n_heads = s.n_heads,
                                             .n_kv_heads = s.n_kv_heads,
                                             .head_dim = s.head_dim,
                                             .key_rows = key_rows,
                                             .scale = s.scale};
    cmd_dispatch(c, &d, &dq_args);

    in = &of_keys;
    d = back_dispatch(dev, for_keys, key_rows, s.n_kv_heads, s.head_dim, true);
    d.flops = 8.0 * s.head_dim * pairs;
    d.bytes = (double)(in->q.bytes + in->dout.bytes + in->k.bytes + in->v.bytes + dk->bytes + dv->bytes);
    struct Args_attention_back_dkv dkv_args = {.q = view(&in->q),
                                               .k = view(&in->k),
                                               .v = view(&in->v),
                                               .dy = view(&in->dout),
                                               .lse = view(lse),
                                               .delta = view(&in->delta),
                                               .span = view(span),
                                               .key_span = view(key_span),
                                               .dk = view(dk),
                                               .dv = view(dv),
                                               .rows = rows,
                                               .n_heads = s.n_heads,
                                               .n_kv_heads = s.n_kv_heads,
                                               .head_dim = s.head_dim,
                                               .key_rows = key_rows,
                                               .scale = s.scale};
    cmd_dispatch(c, &d, &dkv_args);
    arena_release(scratch, mark);
}
