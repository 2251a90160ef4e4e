// See plan.h. The search turns one knob after the other until the run fits, and then turns back those that were not needed, the dearest first.
#include "train/plan.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

uint64_t plan_device_bytes(const struct TrainPlan *p, const struct Device *dev) {
    return p->total + (device_is_unified(dev) ? p->host : 0);
}

bool plan_fits(const struct TrainPlan *p, const struct Device *dev) { return memory_holds(dev, p->total, p->host); }

uint64_t plan_disk_bytes(const struct TrainPlan *p, const struct TrainOptions *o, uint64_t steps) {
    uint64_t saves = !o->save_every ? 1 : steps ? div_up(steps, o->save_every) : UINT64_MAX;
    uint64_t most = o->resume ? 1 : min_u64(saves, max_u64(1, o->keep) + 1);
    return p->result + p->checkpoint * (most + (o->keep_best ? 2 : 0));
}

// ---- Micro-batch

// The most rows that the examples of a step can need.
static uint32_t rows_at_most(const struct TrainOptions *o) {
    uint64_t rows = o->batch_examples * (o->loss == LOSS_DPO ? UINT64_C(2) : 1);
    return (uint32_t)max_u64(1, min_u64(rows, (UINT64_C(1) << 28) / o->seq_len));
}

// Those that the steps of this run do need.
static bool rows_of_steps(struct Train *t, uint32_t *rows) {
    struct DataCursor cursor = {0};
    struct PackOptions options = {
        .seq_len = t->o.seq_len, .micro_tokens = t->o.seq_len * rows_at_most(&t->o), .round = 32};
    *rows = t->data.n ? 1 : rows_at_most(&t->o);
    for (uint64_t step = 0; t->data.n && step < t->steps; step++) {
        size_t n = 0;
        const struct Example *const *batch = batcher_next(&t->batcher, &cursor, t->o.batch_examples, &n);
        struct PackPlan plan;
        if (!pack_plan(&plan, batch, n, &options))
            return false;
        uint64_t tokens = 0;
        for (size_t i = 0; i < plan.n; i++)
            tokens += align_up(plan.micro[i].n_tokens, t->o.seq_len);
        *rows = (uint32_t)max_u64(*rows, tokens / t->o.seq_len);
        pack_free(&plan);
    }
    return true;
}

// Rows of the run that goes on: with others its sums would be in another order.
static uint32_t rows_of_checkpoint(const struct TrainOptions *o) {
    char value[96];
    return o->resume && checkpoint_fact(o->out, MICRO_ROWS_FACT, value, sizeof value)
               ? (uint32_t)strtoul(value, NULL, 10)
               : 0;
}

bool plan_micro_rows(struct Train *t, const struct ModelFile *f, enum DType type, const struct Device *dev) {
    // Beyond so many tokens a step is no faster; fewer leave a graphics card waiting for its weights.
    // A product of them all is one piece of work, which drivers stop after some seconds.
    const uint64_t enough = dev->is_cpu ? 2048 : dev->is_integrated ? 4096 : 16384;
    struct TrainOptions *o = &t->o;
    uint32_t kept = o->micro_rows ? 0 : rows_of_checkpoint(o), needed = 0, most = train_most_rows(&f->config, o, dev);
    if (kept)
        o->micro_rows = kept;
    if (o->in_backward) {
        if (!rows_of_steps(t, &needed))
            return false;
        if (needed > most)
            return fail("--optimizer-in-backward on updates with the gradient of one micro-batch, and a step of this "
                        "run takes %u rows of %u tokens, of which this model can take at most %u at once on this "
                        "device: give a smaller --batch or --context",
                        needed, o->seq_len, most);
        if (o->micro_rows && o->micro_rows < needed)
            return fail("--optimizer-in-backward on updates with the gradient of one micro-batch, and a step of this "
                        "run takes %u rows of %u tokens: give --micro-batch %u or auto, or a smaller --batch",
                        needed, o->seq_len, needed);
        o->micro_rows = o->micro_rows ? o->micro_rows : needed;
        return true;
    }
    if (o->micro_rows)
        return true;
    // A balance loss over the whole micro-batch is another loss for another micro-batch.
    bool own_loss = f->config.n_experts && f->config.aux_alpha > 0 && !f->config.seq_aux;
    o->micro_rows = own_loss ? 1 : (uint32_t)min_u64(max_u64(1, enough / o->seq_len), rows_at_most(o));
    o->micro_rows = (uint32_t)max_u64(1, min_u64(o->micro_rows, most));
    for (struct TrainPlan plan; o->micro_rows > 1; o->micro_rows /= 2) {
        if (!train_plan(f, type, o, dev, &plan))
            return false;
        if (plan_fits(&plan, dev))
            break;
    }
    return true;
}

// ---- The nearest plan

struct Choice {
    struct TrainOptions o;
    enum DType type;
};
struct Search {
    const struct Train *t;
    const struct ModelFile *f;
    const struct Device *dev;
    uint32_t rows; // of the largest step
};

// Each makes a run smaller, or says that it cannot.
static bool fewer_rows(struct Choice *c, const struct Search *s) {
    uint32_t rows = c->o.in_backward ? s->rows : 1;
    bool can = c->o.micro_rows > rows;
    c->o.micro_rows = can ? rows : c->o.micro_rows;
    return can;
}
static bool recompute(struct Choice *c, const struct Search *s) {
    (void)s;
    bool can = !c->o.recompute;
    c->o.recompute = true;
    return can;
}
static bool update_in_backward(struct Choice *c, const struct Search *s) {
    bool can = !c->o.in_backward && s->rows <= train_most_rows(&s->f->config, &c->o, s->dev);
    if (can)
        c->o.in_backward = true, c->o.micro_rows = (uint32_t)max_u64(c->o.micro_rows, s->rows);
    return can;
}
static bool narrow_weights(struct Choice *c, const struct Search *s) {
    (void)s;
    bool can = !train_adapts(c->o.method) && c->type == DT_F32;
    c->type = can ? DT_BF16 : c->type;
    return can;
}
static bool narrow_moments(struct Choice *c, const struct Search *s) {
    (void)s;
    bool can = !c->o.moments8;
    c->o.moments8 = true;
    return can;
}
static bool moments_out(struct Choice *c, const struct Search *s) {
    bool can = !(c->o.offload & OFFLOAD_MOMENTS) && !device_is_unified(s->dev);
    c->o.offload |= can ? OFFLOAD_MOMENTS : 0;
    return can;
}
static bool weights_out(struct Choice *c, const struct Search *s) {
    bool can = !(c->o.offload & OFFLOAD_WEIGHTS) && !device_is_unified(s->dev);
    c->o.offload |= can ? OFFLOAD_WEIGHTS : 0;
    return can;
}
static bool adapters(struct Choice *c, const struct Search *s) {
    bool can = !train_adapts(c->o.method) && !s->t->o.from_scratch;
    if (can)
        c->o.method = TRAIN_LORA;
    return can;
}
static bool quantised_base(struct Choice *c, const struct Search *s) {
    bool can = c->o.method == TRAIN_LORA && s->f->config.dim % 256 == 0 && s->f->config.moe_hidden % 32 == 0;
    if (can)
        c->o.method = TRAIN_QLORA, c->type = DT_Q4_K;
    return can;
}
static bool half_context(struct Choice *c, const struct Search *s) {
    (void)s;
    bool can = c->o.seq_len >= 512;
    c->o.seq_len /= can ? 2 : 1;
    return can;
}

static bool (*const KNOBS[])(struct Choice *, const struct Search *) = {
    fewer_rows,  recompute, update_in_backward, moments_out,  narrow_weights, narrow_moments,
    weights_out, adapters,  quantised_base,     half_context, half_context,   half_context};
enum { N_KNOBS = sizeof KNOBS / sizeof KNOBS[0] };

// The run with the knobs of a set turned, and whether it fits. One that cannot be is no answer to the user's: it takes more than any, without a word.
static bool try_knobs(const struct Search *s, enum DType type, uint32_t set, struct Choice *c, struct TrainPlan *plan) {
    *c = (struct Choice){s->t->o, type};
    for (uint32_t i = 0; i < N_KNOBS; i++)
        if (set >> i & 1)
            KNOBS[i](c, s);
    fail_quiet(true);
    bool can = train_plan(s->f, c->type, &c->o, s->dev, plan);
    fail_quiet(false);
    if (!can)
        plan->total = UINT64_MAX, plan->host = 0;
    return can && plan_fits(plan, s->dev);
}

static void flag_add(char *text, size_t bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void flag_add(char *text, size_t bytes, const char *format, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, bytes - used, format, args);
    va_end(args);
}

static void flags_write(const struct Choice *c, const struct TrainOptions *o, enum DType type, char *text,
                        size_t bytes) {
    static const char *const OFFLOADED[] = {"", "moments", "weights", "moments,weights"};
    *text = 0;
    if (c->o.method != o->method)
        flag_add(text, bytes, " --method %s", TRAIN_METHODS[c->o.method]);
    if (c->type != type)
        flag_add(text, bytes, " --type %s", DTYPES[c->type].name);
    if (c->o.seq_len != o->seq_len)
        flag_add(text, bytes, " --context %u", c->o.seq_len);
    if (c->o.micro_rows != o->micro_rows)
        flag_add(text, bytes, " --micro-batch %u", c->o.micro_rows);
    if (c->o.recompute != o->recompute)
        flag_add(text, bytes, " --recompute on");
    if (c->o.moments8 != o->moments8)
        flag_add(text, bytes, " --moments 8bit");
    if (c->o.in_backward != o->in_backward)
        flag_add(text, bytes, " --optimizer-in-backward on");
    if (c->o.offload != o->offload)
        flag_add(text, bytes, " --offload %s", OFFLOADED[c->o.offload]);
}

void plan_nearest(struct Train *t, const struct ModelFile *f, enum DType type, const struct Device *dev,
                  struct NearestPlan *nearest) {
    struct Search s = {.t = t, .f = f, .dev = dev};
    struct Choice c;
    struct TrainPlan plan;
    uint32_t set = 0, turned = 0;
    *nearest = (struct NearestPlan){0};
    if (!rows_of_steps(t, &s.rows) || !train_plan(f, type, &t->o, dev, &plan))
        return;
    for (uint64_t least = plan_device_bytes(&plan, dev); turned < N_KNOBS && !nearest->found; turned++) {
        bool fits = try_knobs(&s, type, set | 1u << turned, &c, &plan);
        uint64_t bytes = plan_device_bytes(&plan, dev);
        if (bytes >= least) // nothing to turn, or more rows for the update in the backward than that saves
            continue;
        set |= 1u << turned;
        least = bytes;
        nearest->found = fits;
    }
    for (uint32_t i = turned; nearest->found && i-- > 0;)
        if ((set >> i & 1) && (set & ~(1u << i)) && try_knobs(&s, type, set & ~(1u << i), &c, &plan))
            set &= ~(1u << i);
    if (nearest->found && try_knobs(&s, type, set, &c, &nearest->plan))
        flags_write(&c, &t->o, type, nearest->flags, sizeof nearest->flags);
}
