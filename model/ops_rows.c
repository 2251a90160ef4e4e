// Operations on rows of activations: embedding, norm, rotary positions, SwiGLU, sums and moves. A workgroup is a row, or a stretch of
// elements where rows do not matter; 16 bytes a lane and step.
#include "model/dispatch.h"
#include <assert.h>

static uint32_t rows_of(const struct Tensor *t) { return (uint32_t)tensor_rows(t); }

void op_embed(struct Cmd *c, const struct Tensor *ids, const struct Tensor *table, const struct Tensor *y) {
    assert(table->type != DT_U32 && tensor_cols(table) == tensor_cols(y) && tensor_cols(y) % 8 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(y), dim = tensor_cols(y);
    uint64_t row_bytes = dtype_row_bytes(table->type, dim);
    struct Args_embed args = {.ids = view(ids ? ids : table),
                              .w = view(table),
                              .y = view(y),
                              .rows = rows,
                              .dim = dim,
                              .vocab = rows_of(table),
                              .w_row_bytes = (uint32_t)row_bytes};
    cmd_dispatch(
        c,
        &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_embed),
                           .local_size = dispatch_local_size(dev, dim / 8),
                           .spec = {[1] = cache_code(y->type), [2] = ids == NULL, [11] = (uint32_t)table->type},
                           .n_spec = 12,
                           .groups = {rows},
                           .bytes = (double)y->bytes + (double)rows * (double)row_bytes},
        &args);
}

void op_noise(struct Cmd *c, const struct Tensor *x, const struct Tensor *positions, const struct Tensor *examples,
              const struct Tensor *key) {
    assert(x->type == DT_F32 && tensor_cols(x) % 4 == 0 && tensor_elements(key) == 4);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), dim = tensor_cols(x);
    struct Args_noise args = {.x = view(x),
                              .positions = view(positions),
                              .examples = view(examples),
                              .key = view(key),
                              .rows = rows,
                              .dim = dim};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_noise),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .groups = {rows},
                                    .flops = 30.0 * rows * dim,
                                    .bytes = 8.0 * rows * dim},
                 &args);
}

void op_embed_back(struct Cmd *c, const struct Tensor *dy, const struct Tensor *order,
                   const struct Tensor *segment_start, const struct Tensor *segment_id, const struct Tensor *n_segments,
                   const struct Tensor *dw) {
    assert(dw->type == DT_F32 && tensor_cols(dw) == tensor_cols(dy) && tensor_cols(dy) % 4 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(dy), dim = tensor_cols(dy);
    struct Args_embed_back args = {.dy = view(dy),
                                   .order = view(order),
                                   .segment_start = view(segment_start),
                                   .segment_id = view(segment_id),
                                   .n_segments = view(n_segments),
                                   .dw = view(dw),
                                   .rows = rows,
                                   .dim = dim,
                                   .vocab = rows_of(dw)};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_embed_back),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .groups = {rows},
                                    .bytes = 12.0 * rows * dim},
                 &args);
}

void op_rmsnorm(struct Cmd *c, const struct Tensor *x, const struct Tensor *w, const struct Tensor *y,
                const struct Tensor *rstd, float eps) {
    assert(w->type <= DT_BF16 && tensor_elements(w) == tensor_cols(x) && tensor_cols(x) % 4 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), dim = tensor_cols(x);
    struct Args_rmsnorm args = {
        .x = view(x), .w = view(w), .y = view(y), .rstd = view_or_none(rstd), .rows = rows, .eps = eps};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = pick_pairs(dev, dim, KERNEL_rmsnorm_cpu,
                                                         KERNEL_PICK(dev, KERNEL_rmsnorm, KERNEL_rmsnorm_base)),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .spec = {w->type, rstd != NULL, dim},
                                    .n_spec = 3,
                                    .groups = {rows},
                                    .flops = 4.0 * rows * dim,
                                    .bytes = 8.0 * rows * dim},
                 &args);
}

// y (parts, dim) (+)= sums over the rows of each part of x, or of x * dy * rstd.
static void column_sum(struct Cmd *c, const struct Tensor *x, const struct Tensor *dy, const struct Tensor *rstd,
                       const struct Tensor *y, uint32_t rows_per_part, bool accumulate) {
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), dim = tensor_cols(x), local = dispatch_local_size(dev, dim / 4);
    enum KernelId kernel = pick_pairs(dev, dim, KERNEL_column_sum_cpu, KERNEL_column_sum);
    uint32_t pieces = kernel == KERNEL_column_sum_cpu ? 6 : 1, width = kernel == KERNEL_column_sum_cpu ? 2 : 4;
    struct Args_column_sum args = {.x = view(x),
                                   .dy = view_or_none(dy),
                                   .rstd = view_or_none(rstd),
                                   .y = view(y),
                                   .rows = rows,
                                   .dim = dim,
                                   .rows_per_part = rows_per_part,
                                   .accumulate = accumulate};
    uint32_t parts = (uint32_t)div_up(rows, rows_per_part);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = kernel,
                                    .local_size = local,
                                    .spec = {dy != NULL, pieces},
                                    .n_spec = 2,
                                    .groups = {parts * (uint32_t)div_up(dim / width, (uint64_t)local * pieces)},
                                    .bytes = (dy ? 8.0 : 4.0) * rows * dim},
                 &args);
}

// y (dim) += the sum over all rows. Parts depend on the number of rows alone, and so does the order of the sum.
static void column_sum_all(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Tensor *dy,
                           const struct Tensor *rstd, const struct Tensor *y) {
    uint32_t rows = rows_of(x), rows_per_part = rows <= 64 ? 64 : (uint32_t)max_u64(32, div_up(rows, 256));
    uint32_t parts = (uint32_t)div_up(rows, rows_per_part);
    if (parts <= 1) {
        column_sum(c, x, dy, rstd, y, rows_per_part, true);
        return;
    }
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor part = TENSOR(scratch, DT_F32, parts, tensor_cols(x));
    column_sum(c, x, dy, rstd, &part, rows_per_part, false);
    column_sum(c, &part, NULL, NULL, y, parts, true);
    arena_release(scratch, mark);
}

void op_bias(struct Cmd *c, const struct Tensor *y, const struct Tensor *bias) {
    assert(bias->type == DT_F32 && tensor_elements(bias) == tensor_cols(y) && tensor_cols(y) % 4 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(y), dim = tensor_cols(y);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_bias),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .groups = {rows},
                                    .flops = 1.0 * rows * dim,
                                    .bytes = 8.0 * rows * dim},
                 &(struct Args_bias){.y = view(y), .bias = view(bias), .rows = rows, .dim = dim});
}

void op_bias_back(struct Cmd *c, struct Arena *scratch, const struct Tensor *dy, const struct Tensor *dbias) {
    assert(dbias->type == DT_F32 && tensor_elements(dbias) == tensor_cols(dy));
    column_sum_all(c, scratch, dy, NULL, NULL, dbias);
}

void op_gate(struct Cmd *c, const struct Tensor *gate, const struct Tensor *x, const struct Tensor *y) {
    assert(tensor_cols(x) == tensor_cols(y) && tensor_cols(y) % 4 == 0 && tensor_elements(gate) == rows_of(x));
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(y), dim = tensor_cols(y);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_gate),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .groups = {rows},
                                    .flops = 1.0 * rows * dim,
                                    .bytes = 8.0 * rows * dim},
                 &(struct Args_gate){.gate = view(gate), .x = view(x), .y = view(y), .rows = rows, .dim = dim});
}

void op_gate_back(struct Cmd *c, const struct Tensor *gate, const struct Tensor *dy, const struct Tensor *x,
                  const struct Tensor *dgate) {
    assert(tensor_cols(x) == tensor_cols(dy) && tensor_cols(x) % 4 == 0 && tensor_elements(dgate) == rows_of(x));
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), dim = tensor_cols(x);
    struct Args_gate_back args = {
        .gate = view(gate), .dy = view(dy), .x = view(x), .dgate = view(dgate), .rows = rows, .dim = dim};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_gate_back, KERNEL_gate_back_base),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .groups = {rows},
                                    .flops = 3.0 * rows * dim,
                                    .bytes = 12.0 * rows * dim},
                 &args);
}

void op_rmsnorm_back(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Tensor *w,
                     const struct Tensor *rstd, const struct Tensor *dy, const struct Tensor *dx, bool accumulate,
                     const struct Tensor *dw) {
    assert(w->type <= DT_BF16 && tensor_elements(w) == tensor_cols(x) && tensor_cols(x) % 4 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), dim = tensor_cols(x);
    struct Args_rmsnorm_back args = {.x = view(x),
                                     .w = view(w),
                                     .rstd = view(rstd),
                                     .dy = view(dy),
                                     .dx = view(dx),
                                     .rows = rows,
                                     .accumulate = accumulate};
    cmd_dispatch(
        c,
        &(struct Dispatch){.kernel = pick_pairs(dev, dim, KERNEL_rmsnorm_back_cpu,
                                                KERNEL_PICK(dev, KERNEL_rmsnorm_back, KERNEL_rmsnorm_back_base)),
                           .local_size = dispatch_local_size(dev, dim / 4),
                           .spec = {w->type, 0, dim},
                           .n_spec = 3,
                           .groups = {rows},
                           .flops = 9.0 * rows * dim,
                           .bytes = (accumulate ? 16.0 : 12.0) * rows * dim},
        &args);
    if (dw)
        column_sum_all(c, scratch, x, dy, rstd, dw);
}

static void rope(struct Cmd *c, const struct Tensor *x, struct Args_rope *args, const struct Tensor *table,
                 uint32_t n_heads, const struct Tensor *cache) {
    assert(n_heads > 0 && tensor_cols(x) % (8 * n_heads) == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), head_dim = tensor_cols(x) / n_heads;
    assert(table->n_dims == 3 && table->dim[1] == head_dim / 2);
    args->x = view(x);
    args->table = view(table);
    args->rows = rows, args->n_heads = n_heads, args->n_positions = table->dim[0];
    double elements = (double)rows * (tensor_cols(x) + (cache ? 2.0 * tensor_cols(cache) : 0));
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = pick_pairs(dev, cache ? 1 : head_dim / 2, KERNEL_rope_cpu, KERNEL_rope),
                                    .local_size = dispatch_local_size(dev, n_heads * head_dim / 8),
                                    .spec = {head_dim, cache ? cache_code(cache->type) : 0, cache != NULL},
                                    .n_spec = 3,
                                    .groups = {cache ? 3 * rows : rows},
                                    .flops = 3.0 * elements,
                                    .bytes = 8.0 * elements},
                 args);
}

void op_rope(struct Cmd *c, const struct Tensor *x, const struct Tensor *positions, const struct Tensor *table,
             uint32_t n_heads, float sign) {
    struct Args_rope args = {.positions = view(positions), .sign = sign};
    rope(c, x, &args, table, n_heads, NULL);
}

void op_rope_store(struct Cmd *c, const struct Tensor *q, const struct Tensor *k, const struct Tensor *v,
                   const struct Tensor *positions, const struct Tensor *table, uint32_t n_heads, uint32_t n_kv_heads,
                   const struct Tensor *index, const struct Tensor *cache_k, const struct Tensor *cache_v) {
    assert(tensor_cols(cache_k) == tensor_cols(k) && tensor_cols(cache_v) == tensor_cols(v));
    assert(cache_k->type == cache_v->type && tensor_cols(k) == tensor_cols(v));
    assert(tensor_cols(k) / n_kv_heads == tensor_cols(q) / n_heads);
    struct Args_rope args = {.positions = view(positions),
                             .k = view(k),
                             .v = view(v),
                             .index = view(index),
                             .cache_k = view(cache_k),
                             .cache_v = view(cache_v),
                             .n_kv_heads = n_kv_heads,
                             .cache_rows = rows_of(cache_k),
                             .sign = 1};
    rope(c, q, &args, table, n_heads, cache_k);
}

// One workgroup for every `local * steps` quads, or pairs, of n elements.
static struct Dispatch flat_dispatch(struct Device *dev, enum KernelId pairs, enum KernelId base, uint64_t n,
                                     double bytes_each) {
    enum KernelId kernel = pick_pairs(dev, n, pairs, base);
    uint32_t width = kernel == pairs ? 2 : 4, steps = dev->is_cpu ? 64 / width : 1,
             local = dispatch_local_size(dev, 256);
    assert(n < (uint64_t)4 * UINT32_MAX);
    return (struct Dispatch){.kernel = kernel,
                             .local_size = local,
                             .spec = {steps},
                             .n_spec = 1,
                             .groups = {(uint32_t)max_u64(1, div_up(n / width, (uint64_t)local * steps))},
                             .bytes = bytes_each * (double)n};
}

void op_swiglu(struct Cmd *c, const struct Tensor *gate, const struct Tensor *up, const struct Tensor *h) {
    uint64_t n = tensor_elements(h);
    assert(n % 4 == 0 && n <= UINT32_MAX);
    struct Device *dev = cmd_device(c);
    struct Dispatch d = flat_dispatch(dev, KERNEL_swiglu_cpu, KERNEL_swiglu, n, 12);
    d.flops = 16.0 * (double)n;
    cmd_dispatch(c, &d, &(struct Args_swiglu){.gate = view(gate), .up = view(up), .h = view(h), .n = (uint32_t)n});
}

void op_swiglu_back(struct Cmd *c, const struct Tensor *gate, const struct Tensor *up, const struct Tensor *dh,
                    bool keep_h) {
    uint64_t n = tensor_elements(dh);
    assert(n % 4 == 0 && n <= UINT32_MAX);
    struct Device *dev = cmd_device(c);
    struct Dispatch d = flat_dispatch(dev, KERNEL_swiglu_back_cpu, KERNEL_swiglu_back, n, keep_h ? 24 : 20);
    d.flops = 24.0 * (double)n;
    struct Args_swiglu_back args = {
        .gate = view(gate), .up = view(up), .dh = view(dh), .n = (uint32_t)n, .keep_h = keep_h};
    cmd_dispatch(c, &d, &args);
}

void op_add(struct Cmd *c, const struct Tensor *a, const struct Tensor *b, const struct Tensor *y) {
    uint64_t n = tensor_elements(y);
    assert(n <= UINT32_MAX);
    struct Device *dev = cmd_device(c);
    struct Dispatch d = flat_dispatch(dev, KERNEL_add_cpu, KERNEL_add, n, 12);
    cmd_dispatch(c, &d, &(struct Args_add){.a = view(a), .b = view(b), .y = view(y), .n = (uint32_t)n});
}

static void gather_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index, const struct Tensor *y,
                        const struct Tensor *peak) {
    assert(y->type != DT_Q8_0 && tensor_cols(y) % 4 == 0);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(y), dim = tensor_cols(x), ld = tensor_cols(y);
    struct Args_gather_rows args = {.x = view(x),
                                    .index = view(index ? index : x),
                                    .y = view(y),
                                    .peak = view_or_none(peak),
                                    .rows = rows,
                                    .dim = dim,
                                    .ld = ld,
                                    .x_rows = rows_of(x)};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_gather_rows),
                                    .local_size = dispatch_local_size(dev, ld / 4),
                                    .spec = {0, cache_code(y->type), index == NULL, peak != NULL, dim % 4 == 0},
                                    .n_spec = 5,
                                    .groups = {rows},
                                    .bytes = (4.0 + DTYPES[y->type].block_bytes) * rows * dim},
                 &args);
}

void op_gather_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index, const struct Tensor *y) {
    assert(tensor_cols(x) == tensor_cols(y));
    gather_rows(c, x, index, y, NULL);
}

void op_pack_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index, const struct Operand *to) {
    bool scaled = tensor_exists(&to->peak);
    assert(tensor_cols(&to->rows) == align_up(tensor_cols(x), 8) && (!scaled || to->rows.type == DT_F16));
    gather_rows(c, x, index, &to->rows, scaled ? &to->peak : NULL);
}

void op_peaks(struct Cmd *c, const struct Tensor *w, bool columns, const struct Tensor *peak) {
    struct Device *dev = cmd_device(c);
    uint32_t rows = (uint32_t)tensor_rows(w), cols = tensor_cols(w), stack_rows = w->dim[w->n_dims - 2];
    enum { SLAB = 64 }; // rows of a workgroup in peaks.comp
    struct Args_peaks args = {.w = view(w),
                              .peak = view(peak),
                              .rows = rows,
                              .cols = cols,
                              .stack_rows = stack_rows,
                              .w_row_bytes = (uint32_t)dtype_row_bytes(w->type, cols)};
    uint32_t lanes = columns && w->type == DT_F32 ? cols : cols / 8, local = dispatch_local_size(dev, lanes);
    uint64_t slabs = rows / stack_rows * div_up(stack_rows, SLAB);
    if (columns)
        cmd_fill(c, peak, 0);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_peaks),
                                    .local_size = local,
                                    .spec = {columns, [11] = (uint32_t)w->type},
                                    .n_spec = 12,
                                    .groups = {columns ? (uint32_t)(slabs * div_up(lanes, local)) : rows},
                                    .bytes = (double)w->bytes + (double)peak->bytes},
                 &args);
}

void op_scatter_rows(struct Cmd *c, const struct Tensor *x, const struct Tensor *index, const struct Tensor *y,
                     bool accumulate) {
    assert(tensor_cols(x) == tensor_cols(y) && tensor_cols(x) % 4 == 0 && y->type == DT_F32);
    struct Device *dev = cmd_device(c);
    uint32_t rows = rows_of(x), dim = tensor_cols(x);
    struct Args_scatter_rows args = {.x = view(x),
                                     .index = view(index),
                                     .y = view(y),
                                     .rows = rows,
                                     .dim = dim,
                                     .y_rows = rows_of(y),
                                     .accumulate = accumulate};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_scatter_rows),
                                    .local_size = dispatch_local_size(dev, dim / 4),
                                    .groups = {rows},
                                    .bytes = (accumulate ? 12.0 : 8.0) * rows * dim},
                 &args);
}
