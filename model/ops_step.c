// Operations at the two ends of a step: loss, sums, the gradient norm, the optimiser; and the choice of the next token. Sums are in a
// fixed order everywhere, and nothing is read by the host in between.
#include "model/dispatch.h"
#include <assert.h>

// Of a tensor: kernels count a chunk or a workgroup beyond its end.
static const uint64_t MOST_ELEMENTS = UINT32_MAX - (1u << 23);

// A row of logits per workgroup; spec[0] is VEC4, spec[1] the kernel's own switch.
static struct Dispatch logits_dispatch(const struct Device *dev, enum KernelId kernel, const struct Tensor *logits,
                                       uint32_t own) {
    uint32_t rows = (uint32_t)tensor_rows(logits), vocab = tensor_cols(logits);
    return (struct Dispatch){.kernel = kernel,
                             .local_size = dispatch_local_size(dev, vocab / 4),
                             .spec = {vocab % 4 == 0 && logits->address % 16 == 0, own},
                             .n_spec = 2,
                             .groups = {rows},
                             .flops = 20.0 * rows * vocab,
                             .bytes = 4.0 * rows * vocab};
}

void op_xent(struct Cmd *c, const struct Tensor *logits, const struct Tensor *targets, const struct Tensor *loss,
             const struct Tensor *params, const struct Tensor *weights, bool backward) {
    assert(params || !backward);
    struct Device *dev = cmd_device(c);
    struct Args_xent args = {.logits = view(logits),
                             .targets = view(targets),
                             .loss = view(loss),
                             .params = view_or_none(params),
                             .weights =
                                 view(weights ? weights : targets), // not read without; but there must be something
                             .rows = (uint32_t)tensor_rows(logits),
                             .vocab = tensor_cols(logits),
                             .ld = tensor_cols(logits)};
    struct Dispatch d = logits_dispatch(dev, KERNEL_PICK(dev, KERNEL_xent, KERNEL_xent_base), logits, backward);
    d.spec[d.n_spec++] = weights != NULL;
    if (backward)
        d.flops *= 1.7, d.bytes *= 3;
    cmd_dispatch(c, &d, &args);
}

// Parts that a tensor of n elements is summed in, of `chunk` elements each.
static uint32_t sum_parts(uint64_t n, uint32_t *chunk) {
    *chunk = (uint32_t)max_u64(16384, align_up(div_up(n, 1024), 16));
    return (uint32_t)div_up(n, *chunk);
}

// y[first + part] (+)= sum over each part of x, or of its squares.
static void sum_dispatch(struct Cmd *c, const struct Tensor *x, uint32_t n, uint32_t chunk, const struct Tensor *y,
                         uint32_t first, bool squares, bool accumulate) {
    struct Device *dev = cmd_device(c);
    uint32_t parts = (uint32_t)div_up(n, chunk);
    struct View place = {y->address + 4 * (uint64_t)first, 4 * (uint64_t)parts};
    struct Args_sum args = {.x = {x->address, 4 * (uint64_t)n},
                            .y = y->address ? place : (struct View){0, 0},
                            .n = n,
                            .chunk = chunk,
                            .first = 0,
                            .accumulate = accumulate};
    bool aligned = x->address % 16 == 0 && chunk % 4 == 0;
    enum KernelId base = KERNEL_PICK(dev, KERNEL_sum, KERNEL_sum_base);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = pick_pairs(dev, aligned ? chunk : 1, KERNEL_sum_cpu, base),
                                    .local_size = dispatch_local_size(dev, n / 4),
                                    .spec = {aligned, squares},
                                    .n_spec = 2,
                                    .groups = {parts},
                                    .flops = 2.0 * n,
                                    .bytes = 4.0 * n},
                 &args);
}

void op_sum(struct Cmd *c, struct Arena *scratch, const struct Tensor *x, const struct Tensor *out, uint32_t index) {
    uint64_t n = tensor_elements(x);
    uint32_t chunk, parts = sum_parts(n, &chunk);
    assert(n <= MOST_ELEMENTS && x->type == DT_F32);
    if (parts <= 1) {
        sum_dispatch(c, x, (uint32_t)n, chunk, out, index, false, true);
        return;
    }
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor part = TENSOR(scratch, DT_F32, parts);
    sum_dispatch(c, x, (uint32_t)n, chunk, &part, 0, false, false);
    sum_dispatch(c, &part, parts, chunk, out, index, false, true);
    arena_release(scratch, mark);
}

uint32_t norm_parts(uint64_t elements) {
    uint32_t chunk;
    return sum_parts(elements, &chunk);
}

void op_norm_parts(struct Cmd *c, const struct Tensor *grad, const struct Tensor *part, uint32_t first) {
    uint64_t elements = tensor_elements(grad);
    uint32_t chunk;
    assert(elements <= MOST_ELEMENTS && grad->type == DT_F32);
    sum_parts(elements, &chunk);
    sum_dispatch(c, grad, (uint32_t)elements, chunk, part, first, true, false);
}

void op_norm_finish(struct Cmd *c, const struct Tensor *part, uint32_t n_parts, const struct Tensor *params,
                    const struct Tensor *result) {
    struct Device *dev = cmd_device(c);
    struct Args_norm_finish args = {
        .part = view(part), .params = view(params), .result = view(result), .n_parts = n_parts};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_norm_finish, KERNEL_norm_finish_base),
                                    .local_size = dispatch_local_size(dev, n_parts),
                                    .groups = {1},
                                    .bytes = 4.0 * n_parts},
                 &args);
}

void op_norm(struct Cmd *c, struct Arena *scratch, const struct Tensor *grads, uint32_t n, const struct Tensor *params,
             const struct Tensor *result) {
    uint32_t total = 0;
    for (uint32_t i = 0; i < n; i++)
        total += norm_parts(tensor_elements(&grads[i]));
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor part = TENSOR(scratch, DT_F32, (uint32_t)max_u64(1, total));
    for (uint32_t i = 0, first = 0; i < n; first += norm_parts(tensor_elements(&grads[i])), i++)
        op_norm_parts(c, &grads[i], &part, first);
    op_norm_finish(c, &part, total, params, result);
    arena_release(scratch, mark);
}

void op_adamw(struct Cmd *c, const struct Tensor *w, const struct Tensor *g, const struct Tensor *m1,
              const struct Tensor *m2, const struct Tensor *params, const struct Tensor *result, uint32_t tensor_index,
              uint32_t first, float decay) {
    uint64_t n = tensor_elements(w);
    assert((w->type == DT_F32 || w->type == DT_BF16) && n % 8 == 0 && n <= MOST_ELEMENTS);
    assert(first % 64 == 0);
    bool narrow = tensor_elements(m1) != n;
    assert(tensor_elements(g) == n && tensor_elements(m1) == (narrow ? adamw8_words(n) : n) && m1->bytes == m2->bytes);
    struct Device *dev = cmd_device(c);
    enum KernelId kernel = pick_pairs(dev, narrow ? 1 : n, KERNEL_adamw_cpu, KERNEL_adamw);
    bool pairs = kernel == KERNEL_adamw_cpu;
    uint32_t local = dispatch_local_size(dev, 256), steps = pairs ? 16 : dev->is_cpu && !narrow ? 8 : 1;
    uint32_t each = pairs ? 64 / local : narrow ? 64 : 8; // elements of an invocation's step
    struct Args_adamw args = {.w = view(w),
                              .g = view(g),
                              .m1 = view(m1),
                              .m2 = view(m2),
                              .params = view(params),
                              .result = view(result),
                              .n = (uint32_t)n,
                              .tensor_index = tensor_index,
                              .first = first,
                              .decay = decay};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = kernel,
                                    .local_size = local,
                                    .spec = {w->type == DT_BF16, steps, narrow},
                                    .n_spec = 3,
                                    .groups = {(uint32_t)div_up(div_up(n, each), (uint64_t)local * steps)},
                                    .flops = (narrow ? 80.0 : 20.0) * (double)n,
                                    .bytes = ((w->type == DT_BF16 ? 8.0 : 12.0) + (narrow ? 4.25 : 16)) * (double)n},
                 &args);
}

void op_sample(struct Cmd *c, struct Arena *scratch, const struct Tensor *done, const struct Tensor *logits,
               const struct Tensor *params, const struct Tensor *ids, const struct Tensor *logprob,
               const struct Tensor *chance) {
    struct Device *dev = cmd_device(c);
    uint32_t rows = (uint32_t)tensor_rows(logits);
    assert(!done || tensor_elements(done) >= rows);
    struct Dispatch d = logits_dispatch(dev, KERNEL_PICK(dev, KERNEL_sample, KERNEL_sample_base), logits,
                                        (logprob ? 1 : 0) | (chance ? 2 : 0));
    d.flops *= 4, d.bytes *= 4;
    // A subgroup of lanes each: a lane's share of the row is one sum after another, however many lanes run beside it.
    uint32_t n_parts = done ? (uint32_t)max_u64(2, d.local_size / dev->limits.subgroup_size) : 1;
    d.spec[d.n_spec++] = n_parts;
    d.groups[0] = rows * n_parts;
    struct ArenaMark mark = arena_mark(scratch);
    struct Tensor part = {.type = DT_U32};
    if (done)
        part = TENSOR(scratch, DT_U32, rows, d.local_size, 4);
    struct Args_sample args = {.logits = view(logits),
                               .params = view(params),
                               .ids = view(ids),
                               .logprob = view_or_none(logprob),
                               .chance = view_or_none(chance),
                               .part = view_or_none(done ? &part : NULL),
                               .done = view_or_none(done),
                               .rows = rows,
                               .vocab = tensor_cols(logits),
                               .ld = tensor_cols(logits)};
    cmd_dispatch(c, &d, &args);
    arena_release(scratch, mark);
}

void op_argmax(struct Cmd *c, const struct Tensor *logits, const struct Tensor *ids, const struct Tensor *logprob) {
    struct Device *dev = cmd_device(c);
    struct Args_argmax args = {.logits = view(logits),
                               .ids = view(ids),
                               .logprob = view_or_none(logprob),
                               .rows = (uint32_t)tensor_rows(logits),
                               .vocab = tensor_cols(logits),
                               .ld = tensor_cols(logits)};
    struct Dispatch d =
        logits_dispatch(dev, KERNEL_PICK(dev, KERNEL_argmax, KERNEL_argmax_base), logits, logprob != NULL);
    cmd_dispatch(c, &d, &args);
}

void op_follow(struct Cmd *c, const struct Follow *f) {
    struct Device *dev = cmd_device(c);
    uint32_t rows = (uint32_t)tensor_elements(&f->next), local = dispatch_local_size(dev, rows);
    struct Args_follow args = {.next = view(&f->next),
                               .logprob = view(&f->logprob),
                               .ids = view(&f->ids),
                               .positions = view(&f->positions),
                               .span = view(&f->span),
                               .cache_rows = view(&f->cache_rows),
                               .params = view(&f->params),
                               .drawn = view(&f->drawn),
                               .rows = rows};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_follow),
                                    .local_size = local,
                                    .groups = {(uint32_t)div_up(rows, local)},
                                    .bytes = 60.0 * (double)rows},
                 &args);
}

void op_logit_bias(struct Cmd *c, const struct Tensor *logits, const struct Tensor *list) {
    struct Device *dev = cmd_device(c);
    uint64_t n = tensor_rows(logits) * ((tensor_elements(list) - 1) / 2);
    uint32_t local = dispatch_local_size(dev, (uint32_t)n);
    struct Args_logit_bias args = {.list = view(list),
                                   .logits = view(logits),
                                   .rows = (uint32_t)tensor_rows(logits),
                                   .vocab = tensor_cols(logits),
                                   .ld = tensor_cols(logits)};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_logit_bias),
                                    .local_size = local,
                                    .groups = {(uint32_t)div_up(n, local)},
                                    .bytes = 16.0 * (double)n},
                 &args);
}

void op_mask_logits(struct Cmd *c, const struct Tensor *logits, const struct Tensor *mask, const struct Tensor *y) {
    struct Device *dev = cmd_device(c);
    uint64_t n = tensor_elements(logits);
    uint32_t local = dispatch_local_size(dev, (uint32_t)n);
    assert(n <= UINT32_MAX && (!mask || tensor_cols(mask) >= div_up(tensor_cols(logits), 32)));
    struct Args_mask_logits args = {.logits = view(logits),
                                    .mask = view_or_none(mask),
                                    .y = view(y),
                                    .rows = (uint32_t)tensor_rows(logits),
                                    .vocab = tensor_cols(logits),
                                    .mask_words = mask ? tensor_cols(mask) : 0};
    if (!mask) // not used, but lavapipe may run the load all the same: it must be there
        args.mask = view(logits);
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_mask_logits),
                                    .local_size = local,
                                    .spec = {mask != NULL},
                                    .n_spec = 1,
                                    .groups = {(uint32_t)div_up(n, local)},
                                    .bytes = 8.0 * (double)n},
                 &args);
}

void op_penalty(struct Cmd *c, const struct Tensor *logits, const struct Tensor *list) {
    struct Device *dev = cmd_device(c);
    uint32_t rows = (uint32_t)tensor_rows(logits), room = (tensor_cols(list) - 4) / 2;
    uint32_t local = dispatch_local_size(dev, rows * room);
    assert(tensor_rows(list) == rows);
    struct Args_penalty args = {
        .list = view(list), .logits = view(logits), .rows = rows, .vocab = tensor_cols(logits), .room = room};
    cmd_dispatch(c,
                 &(struct Dispatch){.kernel = KERNEL_PICK(dev, KERNEL_penalty),
                                    .local_size = local,
                                    .groups = {(uint32_t)div_up((uint64_t)rows * room, local)},
                                    .bytes = 16.0 * rows * room},
                 &args);
}
