// Recording and replaying the training step. The batch lives in host memory that the device reads, so that a replay needs a few copies and
// one submit; every shape of micro-batch has its program, and all programs share one stack of activations.
#include "train/step.h"
#include "train/layers_back.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t NONE = 0xffffffff;

// Shapes are rounded so that few programs serve all batches.
static uint32_t round_labels(uint32_t n, uint32_t tokens) {
    return (uint32_t)align_up(n ? n : 1, max_u64(16, tokens / 16 / 16 * 16));
}
static uint32_t round_groups(uint32_t n) {
    uint32_t r = 1;
    while (r < n)
        r *= 2;
    return r;
}

// Logits of a chunk take at most 128 MiB: small against the activations, large enough to fill a device.
static uint32_t chunk_rows(const struct Step *s, uint32_t labels) {
    uint64_t rows = s->o.loss_chunk ? s->o.loss_chunk : (UINT64_C(128) << 20) / 4 / s->m->config.vocab_size;
    return (uint32_t)min_u64(labels, max_u64(16, rows / 16 * 16));
}

// ---- The program of one micro-batch

static bool goes_back(enum StepPass pass) { return pass >= PASS_GRADIENTS; }
static bool is_noisy(const struct Step *s, enum StepPass pass) {
    return s->o.neftune_alpha > 0 && pass != PASS_EVALUATE;
}

// The second backward of a micro-batch, whose losses are counted already.
static bool is_repeated(const struct Step *s, enum StepPass pass) {
    return pass == PASS_UPDATE && s->o.optimiser.clip_norm > 0;
}

// Round the backward of a group of parameters.
static void group_begin(struct Step *s, struct Cmd *c, enum StepPass pass, uint32_t group) {
    if (pass == PASS_NORM || pass == PASS_UPDATE)
        optimiser_zero(&s->optimiser, c, group);
}

static void group_end(struct Step *s, struct Cmd *c, enum StepPass pass, uint32_t group) {
    if (pass == PASS_NORM || (pass == PASS_UPDATE && !is_repeated(s, pass)))
        optimiser_norm(&s->optimiser, c, group);
    if (pass != PASS_UPDATE)
        return;
    if (!is_repeated(s, pass)) // what is not finite stops here; the last one tells the norm of all
        optimiser_norm_finish(&s->optimiser, c);
    optimiser_update(&s->optimiser, c, group);
}

static void head_and_loss(struct Step *s, struct Pass *p, const struct Tensor *x, const struct Tensor *d,
                          uint32_t labels, enum StepPass pass) {
    bool backward = goes_back(pass);
    const struct Config *c = &s->m->config;
    struct Linear head = {.w = s->m->head};
    uint32_t chunk = chunk_rows(s, labels);
    for (uint32_t first = 0; first < labels; first += chunk) {
        uint32_t n = (uint32_t)min_u64(chunk, labels - first);
        struct ArenaMark mark = arena_mark(p->arena);
        struct Tensor rows = tensor_slice(&s->label_rows, first, n), ids = tensor_slice(&s->label_ids, first, n);
        struct Tensor loss = tensor_slice(&s->losses, first, n);
        struct Tensor xl = TENSOR(p->arena, DT_F32, n, c->dim), xn = TENSOR(p->arena, DT_F32, n, c->dim);
        struct Tensor rstd = TENSOR(p->arena, DT_F32, n), logits = TENSOR(p->arena, DT_F32, n, c->vocab_size);
        s->logits_bytes = max_u64(s->logits_bytes, logits.bytes);
        op_gather_rows(p->c, x, &rows, &xl);
        op_rmsnorm(p->c, &xl, &s->m->norm->w, &xn, &rstd, c->norm_eps);
        linear_forward(p, &head, &xn, &logits);
        struct Tensor weights = tensor_slice(&s->label_weights, first, n);
        op_xent(p->c, &logits, &ids, &loss, &s->params, s->o.weighted ? &weights : NULL, backward);
        if (backward) {
            struct Tensor dxn = TENSOR(p->arena, DT_F32, n, c->dim), dxl = TENSOR(p->arena, DT_F32, n, c->dim);
            linear_backward(p, &head, &xn, &logits, &dxn, NULL, (struct BackwardOptions){NEITHER, false});
            op_rmsnorm_back(p->c, p->arena, &xl, &s->m->norm->w, &rstd, &dxn, &dxl, false,
                            param_is_trained(s->m->norm) ? &s->m->norm->g : NULL);
            op_scatter_rows(p->c, &dxl, &rows, d, false);
        }
        arena_release(p->arena, mark);
    }
    struct Tensor losses = tensor_slice(&s->losses, 0, labels);
    if (!is_repeated(s, pass))
        op_sum(p->c, p->arena, &losses, &s->result, 0);
}

static struct Tensor chosen_view(const struct Step *s, uint32_t t) {
    const struct Config *c = &s->m->config;
    struct Tensor view = s->chosen;
    if (tensor_exists(&view)) {
        view.dim[1] = t;
        view.bytes = UINT64_C(4) * c->n_layers * t * c->n_active;
    }
    return view;
}

static struct Pass pass_begin(struct Step *s, struct Cmd *c, struct StepShape shape, enum StepPass pass) {
    bool backward = goes_back(pass);
    struct Pass p = {.c = c,
                     .arena = &s->scratch,
                     .m = s->m,
                     .t = shape.tokens,
                     .positions = tensor_slice(&s->positions, 0, shape.tokens),
                     .span = tensor_slice(&s->span, 0, shape.tokens),
                     .key_span = tensor_slice(&s->key_span, 0, shape.tokens),
                     .group_start = tensor_slice(&s->group_start, 0, shape.groups + 1),
                     .token_group = tensor_slice(&s->token_group, 0, shape.tokens),
                     .group_weight = tensor_slice(&s->group_weight, 0, shape.groups),
                     .n_groups = backward ? shape.groups : 0,
                     .chosen = backward ? chosen_view(s, shape.tokens) : (struct Tensor){0},
                     .balance = {DT_F32, 1, {1, 1, 1, 1}, s->result.address + offsetof(struct StepResult, balance), 4}};
    if (is_repeated(s, pass))
        p.balance = TENSOR(&s->scratch, DT_F32, 1); // nobody reads it
    return p;
}

static void blocks_forward(struct Step *s, struct Pass *p, struct Tensor *x, struct BlockSaved *saved, bool keep) {
    for (uint32_t i = 0; i < s->m->config.n_layers; i++) {
        struct ArenaMark block = arena_mark(&s->scratch);
        weightring_bring(&s->weights_ring, p->c, i);
        weightring_bring(&s->weights_ring, p->c, i + 1);
        weightring_enter(&s->weights_ring, i);
        block_forward(p, i, &x[i], &x[i + 1], &saved[i]); // the same path with and without recomputation: equal bits
        weightring_leave(&s->weights_ring, i);
        if (!keep)
            arena_release(&s->scratch, block);
    }
}

static void blocks_backward(struct Step *s, struct Pass *p, struct Tensor *x, struct BlockSaved *saved,
                            const struct Tensor *d, enum StepPass pass) {
    p->chosen = (struct Tensor){0}; // a recomputation chooses the same
    for (uint32_t i = s->m->config.n_layers; i-- > 0;) {
        struct ArenaMark block = arena_mark(&s->scratch);
        weightring_bring(&s->weights_ring, p->c, i);
        weightring_bring(&s->weights_ring, p->c, i - 1);
        weightring_enter(&s->weights_ring, i);
        if (s->o.recompute)
            block_forward(p, i, &x[i], NULL, &saved[i]);
        group_begin(s, p->c, pass, i);
        block_backward(p, i, &saved[i], d);
        weightring_leave(&s->weights_ring, i);
        group_end(s, p->c, pass, i);
        arena_release(&s->scratch, block);
    }
}

static struct Program *record(struct Step *s, struct StepShape shape, enum StepPass pass) {
    struct Model *m = s->m;
    uint32_t n_layers = m->config.n_layers;
    bool backward = goes_back(pass), tied = m->head == m->embed;
    struct ArenaMark mark = arena_mark(&s->scratch);
    struct Cmd *c = cmd_begin(m->dev, backward ? "forward and backward" : "evaluate");
    struct Pass p = pass_begin(s, c, shape, pass);
    struct Tensor ids = tensor_slice(&s->ids, 0, shape.tokens);
    struct Tensor *x = xcalloc(n_layers + 1, sizeof *x);
    struct BlockSaved *saved = xcalloc(n_layers, sizeof *saved);
    weightring_begin(&s->weights_ring);
    for (uint32_t i = 0; i <= n_layers; i++)
        x[i] = backward || i < 2 ? TENSOR(&s->scratch, DT_F32, shape.tokens, m->config.dim) : x[i - 2];
    op_embed(c, &ids, &m->embed->w, &x[0]);
    if (is_noisy(s, pass)) {
        struct Tensor examples = tensor_slice(&s->noise_examples, 0, shape.tokens);
        op_noise(c, &x[0], &p.positions, &examples, &s->noise_key);
    }
    blocks_forward(s, &p, x, saved, backward && !s->o.recompute);
    struct Tensor d = {0};
    if (backward) {
        d = TENSOR(&s->scratch, DT_F32, shape.tokens, m->config.dim);
        cmd_fill(c, &d, 0);
        group_begin(s, c, pass, GROUP_HEAD);
        if (tied)
            group_begin(s, c, pass, GROUP_EMBED);
    }
    head_and_loss(s, &p, &x[n_layers], &d, shape.labels, pass);
    if (backward) {
        group_end(s, c, pass, GROUP_HEAD);
        blocks_backward(s, &p, x, saved, &d, pass);
        if (!tied)
            group_begin(s, c, pass, GROUP_EMBED);
        if (param_is_trained(m->embed))
            op_embed_back(c, &d, &s->order, &s->segment_start, &s->segment_id, &s->n_segments, &m->embed->g);
        group_end(s, c, pass, GROUP_EMBED);
    }
    if (pass == PASS_NORM)
        optimiser_norm_finish(&s->optimiser, c);
    free(x);
    free(saved);
    arena_release(&s->scratch, mark);
    return cmd_end(c);
}

// ---- Setting up

static void record_ends(struct Step *s) {
    struct Model *m = s->m;
    bool in_backward = s->o.optimiser.in_backward;
    struct Cmd *c = cmd_begin(m->dev, "begin");
    cmd_fill(c, &s->result, 0);
    if (in_backward)
        cmd_fill(c, &s->optimiser.parts, 0);
    else
        optimiser_zero(&s->optimiser, c, GROUP_ALL);
    s->begin = cmd_end(c);
    if (in_backward)
        return;
    c = cmd_begin(m->dev, "AdamW");
    optimiser_norm(&s->optimiser, c, GROUP_ALL);
    optimiser_norm_finish(&s->optimiser, c);
    optimiser_update(&s->optimiser, c, GROUP_ALL);
    s->update = cmd_end(c);
}

// The largest shape, each pass that a run may record.
static void record_dry(struct Step *s, uint32_t t) {
    bool by_document = s->m->config.n_experts && s->m->config.seq_aux && s->m->config.aux_alpha > 0;
    // A document with a label has two tokens at least.
    struct StepShape shape = {t, t, by_document ? round_groups(t / 2) : 1};
    if (!s->o.optimiser.in_backward) {
        program_free(record(s, shape, PASS_GRADIENTS));
        return;
    }
    if (s->o.optimiser.clip_norm > 0)
        program_free(record(s, shape, PASS_NORM));
    program_free(record(s, shape, PASS_UPDATE));
}

// Numbers that one token takes in the largest tensor of a step.
static uint64_t widest_row(const struct Config *c, uint32_t rank) {
    uint32_t n_moe = config_moe_layers(c);
    uint64_t n = max_u64(max_u64(c->dim, rank), (uint64_t)c->n_heads * c->head_dim);
    if (n_moe < c->n_layers)
        n = max_u64(n, c->hidden);
    if (n_moe == 0)
        return n;
    n = max_u64(n, max_u64(config_shared_width(c), 3 * (uint64_t)c->n_experts)); // the latter: sums of op_balance
    n = max_u64(n, c->n_active * max_u64(rank, max_u64(c->dim, c->moe_hidden)));
    return max_u64(n, (uint64_t)c->n_layers * c->n_active); // the chosen, by layer
}

uint32_t step_most_tokens(const struct Config *c, uint32_t rank, struct Device *dev) {
    const struct Arena arena = {.dev = dev};
    uint64_t widest = widest_row(c, rank), most = min_u64(arena_largest(&arena) / sizeof(float), UINT32_MAX) / widest;
    if (config_moe_layers(c)) // shaders find the rows of experts by the byte
        most = min_u64(most, UINT32_MAX / sizeof(float) / c->dim);
    return (uint32_t)min_u64(most, UINT64_C(1) << 28); // lists of a batch have several numbers a token
}

bool step_init(struct Step *s, struct Model *m, const struct StepOptions *o, bool train_base) {
    memset(s, 0, sizeof *s);
    s->m = m;
    s->o = *o;
    s->o.micro_tokens = pack_computed(o->micro_tokens);
    arena_init(&s->scratch, m->dev, "activations", ARENA_DEVICE);
    arena_init(&s->host, m->dev, "batch", ARENA_HOST);
    uint32_t t = s->o.micro_tokens;
    s->params = TENSOR(&s->host, DT_F32, sizeof(struct StepParams) / 4);
    s->result = TENSOR(&s->host, DT_F32, sizeof(struct StepResult) / 4);
    if (!optimiser_init(&s->optimiser, m, &o->optimiser, train_base, &s->params, &s->result) || !model_find_peaks(m) ||
        !weightring_init(&s->weights_ring, m))
        return false;
    s->ids = TENSOR(&s->host, DT_U32, t);
    s->positions = TENSOR(&s->host, DT_U32, t);
    s->span = TENSOR(&s->host, DT_U32, t, 2);
    s->key_span = TENSOR(&s->host, DT_U32, t, 2);
    s->label_rows = TENSOR(&s->host, DT_U32, 2 * t);
    s->label_ids = TENSOR(&s->host, DT_U32, 2 * t);
    s->label_weights = TENSOR(&s->host, DT_F32, 2 * t);
    s->losses = TENSOR(&s->host, DT_F32, 2 * t);
    s->order = TENSOR(&s->host, DT_U32, t);
    s->segment_start = TENSOR(&s->host, DT_U32, t + 1);
    s->segment_id = TENSOR(&s->host, DT_U32, t);
    s->n_segments = TENSOR(&s->host, DT_U32, 4);
    s->group_start = TENSOR(&s->host, DT_U32, 2 * t + 1);
    s->token_group = TENSOR(&s->host, DT_U32, t);
    s->group_weight = TENSOR(&s->host, DT_F32, 2 * t);
    if (o->neftune_alpha > 0) {
        s->noise_examples = TENSOR(&s->host, DT_U32, t, 2);
        s->noise_key = TENSOR(&s->host, DT_U32, 4);
    }
    if (m->config.n_experts) {
        s->chosen = TENSOR(&s->host, DT_U32, m->config.n_layers, t, m->config.n_active);
        s->loads = xcalloc((size_t)m->config.n_layers * m->config.n_experts, sizeof *s->loads);
    }
    record_ends(s);
    if (m->dev->is_dry) {
        record_dry(s, t);
        return m->dev->state == DEVICE_OK;
    }
    return m->dev->state == DEVICE_OK && optimiser_reset(&s->optimiser);
}

void step_free(struct Step *s) {
    if (!s->m)
        return;
    for (uint32_t i = 0; i < s->n_programs; i++)
        program_free(s->programs[i].program);
    program_free(s->begin);
    program_free(s->update);
    optimiser_free(&s->optimiser);
    weightring_free(&s->weights_ring);
    arena_free(&s->scratch);
    arena_free(&s->host);
    free(s->loads);
    memset(s, 0, sizeof *s);
}

// ---- Running

// Positions of equal ids side by side, in order: what the embedding's gradient sums.
static void sort_ids(struct Step *s, const struct MicroBatch *b) {
    struct Device *dev = s->m->dev;
    uint32_t *order = tensor_host(dev, &s->order), *start = tensor_host(dev, &s->segment_start);
    uint32_t *id = tensor_host(dev, &s->segment_id), *count = tensor_host(dev, &s->n_segments);
    uint32_t vocab = s->m->config.vocab_size, n = 0, segments = 0;
    uint32_t *head = xmalloc(vocab * sizeof *head), *next = xmalloc((b->n_tokens + 1) * sizeof *next);
    memset(head, 0xff, vocab * sizeof *head);
    for (uint32_t i = b->n_tokens; i-- > 0;)
        if (b->document[i] != PACK_PADDING) {
            next[i] = head[b->ids[i]];
            head[b->ids[i]] = i;
        }
    for (uint32_t v = 0; v < vocab; v++) {
        if (head[v] == NONE)
            continue;
        id[segments] = v;
        start[segments++] = n;
        for (uint32_t i = head[v]; i != NONE; i = next[i])
            order[n++] = i;
    }
    start[segments] = n;
    count[0] = segments, count[1] = 1, count[2] = 1, count[3] = 0;
    free(head);
    free(next);
}

static void fill_groups(struct Step *s, const struct MicroBatch *b, uint32_t t, uint32_t groups, uint64_t documents,
                        uint64_t tokens) {
    struct Device *dev = s->m->dev;
    uint32_t *start = tensor_host(dev, &s->group_start), *group = tensor_host(dev, &s->token_group);
    float *weight = tensor_host(dev, &s->group_weight);
    uint32_t used = 0;
    for (uint32_t g = 0; g < groups; g++)
        weight[g] = 0;
    for (uint32_t g = 0; g <= groups; g++)
        start[g] = t;
    if (s->m->config.seq_aux) {
        // Documents are numbered as they lie, so that their ranges follow each other.
        for (uint32_t i = 0; i < t; i++) {
            bool real = i < b->n_tokens && b->document[i] != PACK_PADDING;
            if (real && b->first[i] == i) {
                weight[used] = 1 / (float)documents;
                start[used++] = i;
            }
            group[i] = real ? used - 1 : NONE;
        }
    } else {
        for (uint32_t i = 0; i < t; i++) {
            bool real = i < b->n_tokens && b->document[i] != PACK_PADDING;
            group[i] = real ? 0 : NONE;
            used += real;
        }
        weight[0] = (float)((double)used / (double)tokens);
        start[0] = 0;
    }
}

// The length of an example is that of all its tokens, the prompt's and control tokens too, and padding is none of them.
static void fill_noise(struct Step *s, const struct MicroBatch *b, uint32_t t) {
    uint32_t *example = tensor_host(s->m->dev, &s->noise_examples), *key = tensor_host(s->m->dev, &s->noise_key);
    key[0] = (uint32_t)s->o.seed, key[1] = (uint32_t)(s->o.seed >> 32), key[2] = (uint32_t)s->noise_step;
    for (uint32_t i = 0; i < t; i++) {
        bool real = i < b->n_tokens && b->document[i] != PACK_PADDING;
        const struct PackedDocument *d = real ? &b->documents[b->document[i]] : NULL;
        float scale = d ? (float)((double)s->o.neftune_alpha / sqrt((double)d->n * s->m->config.dim)) : 0;
        example[2 * i] = d ? d->example : 0;
        memcpy(&example[2 * i + 1], &scale, sizeof scale);
    }
}

static struct StepShape shape_of(const struct Step *s, const struct MicroBatch *b) {
    struct StepShape shape = {.tokens = pack_computed(b->n_tokens), .groups = 1};
    shape.labels = round_labels(b->n_labels, shape.tokens);
    if (s->m->config.n_experts && s->m->config.seq_aux)
        shape.groups = round_groups(b->n_documents);
    return shape;
}

static bool fill_batch(struct Step *s, const struct MicroBatch *b, struct StepShape shape, uint64_t documents,
                       uint64_t tokens) {
    struct Device *dev = s->m->dev;
    double start = clock_seconds();
    if (shape.tokens > s->o.micro_tokens)
        return fail("a micro-batch of %u tokens is above the %u that were planned", b->n_tokens, s->o.micro_tokens);
    uint32_t *ids = tensor_host(dev, &s->ids), *positions = tensor_host(dev, &s->positions);
    uint32_t *span = tensor_host(dev, &s->span), *key_span = tensor_host(dev, &s->key_span);
    uint32_t *rows = tensor_host(dev, &s->label_rows), *labels = tensor_host(dev, &s->label_ids);
    float *weights = tensor_host(dev, &s->label_weights);
    if (!ids)
        return false;
    assert(s->o.weighted || !b->weights);
    uint32_t n = 0;
    for (uint32_t i = 0; i < shape.tokens; i++) {
        bool inside = i < b->n_tokens;
        ids[i] = inside ? b->ids[i] : 0;
        positions[i] = inside ? b->positions[i] : 0;
        span[2 * i] = inside ? b->first[i] : i;
        span[2 * i + 1] = i + 1;
        key_span[2 * i] = i;
        key_span[2 * i + 1] = inside ? b->end[i] : i + 1;
        if (inside && b->labels[i] >= 0) {
            rows[n] = i;
            weights[n] = s->weights ? s->weights[b->documents[b->document[i]].example] : 1;
            if (b->weights)
                weights[n] *= b->weights[i];
            labels[n++] = (uint32_t)b->labels[i];
        }
    }
    for (; n < shape.labels; n++)
        rows[n] = labels[n] = NONE, weights[n] = 0;
    if (tensor_exists(&s->noise_key))
        fill_noise(s, b, shape.tokens);
    sort_ids(s, b);
    fill_groups(s, b, shape.tokens, shape.groups, documents, tokens);
    s->data_seconds += clock_seconds() - start;
    return true;
}

static struct Program *program_for(struct Step *s, struct StepShape shape, enum StepPass pass) {
    for (uint32_t i = 0; i < s->n_programs; i++) {
        const struct StepProgram *p = &s->programs[i];
        if (p->pass == pass && memcmp(&p->shape, &shape, sizeof shape) == 0)
            return p->program;
    }
    if (s->n_programs == STEP_PROGRAMS) { // the oldest makes room
        program_free(s->programs[0].program);
        memmove(s->programs, s->programs + 1, --s->n_programs * sizeof *s->programs);
    }
    struct Program *p = record(s, shape, pass);
    if (p)
        s->programs[s->n_programs++] = (struct StepProgram){shape, pass, p};
    return p;
}

struct Program *step_program(struct Step *s, const struct MicroBatch *b) {
    return program_for(s, shape_of(s, b), s->o.optimiser.in_backward ? PASS_UPDATE : PASS_GRADIENTS);
}

// Adds the choices of the micro-batch that the device is done with.
static void count_loads(struct Step *s) {
    const struct Config *c = &s->m->config;
    const uint32_t *chosen = s->loads ? tensor_host(s->m->dev, &s->chosen) : NULL;
    const uint32_t *group = tensor_host(s->m->dev, &s->token_group);
    for (uint32_t layer = 0; chosen && layer < c->n_layers; layer++)
        for (uint32_t i = 0; config_is_moe(c, layer) && i < s->uncounted; i++)
            for (uint32_t k = 0; group[i] != NONE && k < c->n_active; k++)
                s->loads[layer * c->n_experts + chosen[((size_t)layer * s->uncounted + i) * c->n_active + k]]++;
    s->uncounted = 0;
}

bool step_begin(struct Step *s, double weight_in_batch) {
    if (!(weight_in_batch > 0))
        return fail("a batch without a labelled token: nothing to learn from it");
    struct StepParams *params = tensor_host(s->m->dev, &s->params);
    if (!params || !device_wait(s->m->dev))
        return false;
    *params = (struct StepParams){.inv_labels = (float)(1 / weight_in_batch), .clip_norm = s->o.optimiser.clip_norm};
    s->uncounted = 0;
    s->pending = (struct StepShape){0};
    if (s->loads)
        memset(s->loads, 0, (size_t)s->m->config.n_layers * s->m->config.n_experts * sizeof *s->loads);
    return program_submit(s->begin);
}

bool step_micro(struct Step *s, const struct MicroBatch *b, uint64_t documents_in_batch, uint64_t tokens_in_batch) {
    struct StepShape shape = shape_of(s, b);
    bool in_backward = s->o.optimiser.in_backward, twice = in_backward && s->o.optimiser.clip_norm > 0;
    if (s->pending.tokens)
        return fail("the optimiser runs in the backward: a step is one micro-batch; give a larger --micro-batch, a "
                    "smaller --batch, or --optimizer-in-backward off");
    struct Program *p = in_backward && !twice ? NULL : program_for(s, shape, twice ? PASS_NORM : PASS_GRADIENTS);
    // The batch buffers are the device's until it is done with the micro-batch before.
    if ((!p && (!in_backward || twice)) || !device_wait(s->m->dev))
        return false;
    count_loads(s);
    if (!fill_batch(s, b, shape, documents_in_batch, tokens_in_batch) || (p && !program_submit(p)))
        return false;
    s->uncounted = shape.tokens;
    if (in_backward)
        s->pending = shape;
    return true;
}

bool step_update(struct Step *s, uint64_t step, float learning_rate, struct StepResult *result) {
    struct StepParams *params = tensor_host(s->m->dev, &s->params);
    struct Program *update = s->update;
    if (s->o.optimiser.in_backward)
        update = s->pending.tokens ? program_for(s, s->pending, PASS_UPDATE) : NULL;
    if (!params || !update || !device_wait(s->m->dev))
        return false;
    params->learning_rate = learning_rate;
    params->beta1 = s->o.beta1, params->beta2 = s->o.beta2, params->eps = s->o.eps;
    params->correction1 = (float)(1 - pow((double)s->o.beta1, (double)step));
    params->correction2 = (float)(1 - pow((double)s->o.beta2, (double)step));
    params->seed_low = (uint32_t)s->o.seed, params->seed_high = (uint32_t)(s->o.seed >> 32);
    params->step = (uint32_t)step;
    if (!program_run(update))
        return false;
    count_loads(s);
    s->pending = (struct StepShape){0};
    memcpy(result, tensor_host(s->m->dev, &s->result), sizeof *result);
    return true;
}

static bool forward(struct Step *s, const struct MicroBatch *b, enum StepPass pass, double *loss) {
    struct StepShape shape = shape_of(s, b);
    shape.groups = 1;
    struct Program *p = program_for(s, shape, pass);
    struct StepResult *result = tensor_host(s->m->dev, &s->result);
    if (!p || !result || !device_wait(s->m->dev) || !fill_batch(s, b, shape, 1, 1))
        return false;
    memset(result, 0, sizeof *result);
    if (!program_run(p))
        return false;
    *loss += result->loss;
    return true;
}

bool step_evaluate(struct Step *s, const struct MicroBatch *b, double *loss) {
    return forward(s, b, PASS_EVALUATE, loss);
}

void step_weights(struct Step *s, const float *weights) { s->weights = weights; }
void step_noise(struct Step *s, uint64_t step) { s->noise_step = step; }

bool step_logprobs(struct Step *s, const struct MicroBatch *b, bool noisy, double *logp) {
    double sum = 0;
    if (!forward(s, b, noisy && s->o.neftune_alpha > 0 ? PASS_MEASURE : PASS_EVALUATE, &sum))
        return false;
    const float *losses = tensor_host(s->m->dev, &s->losses);
    uint32_t n = 0;
    for (uint32_t i = 0; losses && i < b->n_tokens; i++)
        if (b->labels[i] >= 0)
            logp[b->documents[b->document[i]].example] -= (double)losses[n++];
    return losses != NULL;
}
