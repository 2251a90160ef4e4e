// What a training step hands to the device and tells of itself, entry by entry, on a batch that was made for it: labels of id 0, ids that come
// twice, documents that share rows, padding, the noise of NEFTune. Then what the loss's own definition says: its slope, the norm of its gradient, the decay, and a
// run's figures however the batch is cut. Bugs here change no program's behaviour but what the model learns (docs/proof.md: silent bugs).
#include "card.h"
#include "check.h"
#include "train/run.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct Config tiny(void) {
    struct Config c;
    config_preset(&c, "tiny-moe");
    c.vocab_size = 640, c.bos_id = 1, c.eos_id[0] = 2, c.n_eos = 1;
    c.n_layers = 2;
    c.max_context = 64;
    c.init_std = 0.2f;
    c.aux_alpha = 0.5f;
    return c;
}

static struct StepOptions options(uint32_t micro_tokens) {
    return (struct StepOptions){.micro_tokens = micro_tokens,
                                .recompute = true,
                                .beta1 = 0.9f,
                                .beta2 = 0.95f,
                                .eps = 1e-8f,
                                .optimiser = {.weight_decay = 0.1f, .clip_norm = 1},
                                .seed = 9};
}

static bool model_make(struct Model *m, struct Device *dev, const struct Config *c, enum DType type) {
    return CHECK(model_init(m, dev, c, type, 0) && model_randomise(m, 5), "model: %s", fail_last());
}

// ---- A batch of five documents in two rows of 16; ids of few kinds, 0 among them; two of three tokens have a label.

enum { DOCUMENTS = 5, SEQ = 16, MICRO = 2 * SEQ };
static const uint32_t LENGTHS[DOCUMENTS] = {5, 7, 9, 3, 4};

struct Batch {
    struct Example example[DOCUMENTS];
    uint32_t ids[DOCUMENTS][SEQ];
    int32_t labels[DOCUMENTS][SEQ];
    struct PackPlan plan;
};

static bool batch_make(struct Batch *b) {
    const struct Example *list[DOCUMENTS];
    for (uint32_t d = 0; d < DOCUMENTS; d++) {
        struct Example *e = &b->example[d];
        *e = (struct Example){.ids = b->ids[d], .labels = b->labels[d], .n = LENGTHS[d], .line = d + 1};
        for (uint32_t t = 0; t < e->n; t++)
            e->ids[t] = (d + t) % 4 * 7;
        for (uint32_t t = 0; t < e->n; t++) {
            e->labels[t] = t + 1 < e->n && t % 3 ? (int32_t)e->ids[t + 1] : -1;
            e->n_labels += e->labels[t] >= 0;
        }
        list[d] = e;
    }
    struct PackOptions o = {.seq_len = SEQ, .micro_tokens = MICRO, .round = 8, .pad_id = 3};
    return CHECK(pack_plan(&b->plan, list, DOCUMENTS, &o) && b->plan.n == 1, "pack: %s", fail_last());
}

// The gradients of the batch are then in the model's parameters.
static bool batch_step(struct Step *s, const struct Batch *b, struct StepResult *r) {
    bool ok = step_begin(s, b->plan.n_labels) &&
              step_micro(s, &b->plan.micro[0], DOCUMENTS, b->plan.n_tokens - b->plan.n_padding) &&
              device_wait(s->m->dev) && tensor_download(s->m->dev, &s->result, 0, r, sizeof *r);
    return CHECK(ok, "step: %s", fail_last());
}

static const void *host(const struct Step *s, const struct Tensor *t) { return tensor_host(s->m->dev, t); }

// Which document holds token i of the micro-batch, from what the packing says and the examples: NULL is padding.
static const struct PackedDocument *document_at(const struct MicroBatch *b, uint32_t i) {
    for (uint32_t d = 0; d < b->n_documents; d++)
        if (i >= b->documents[d].first && i < b->documents[d].first + b->documents[d].n)
            return &b->documents[d];
    return NULL;
}

static void check_tokens(const struct Step *s, const struct Batch *b) {
    const struct MicroBatch *m = &b->plan.micro[0];
    const uint32_t *ids = host(s, &s->ids), *positions = host(s, &s->positions), *span = host(s, &s->span);
    const uint32_t *key_span = host(s, &s->key_span), *rows = host(s, &s->label_rows), *labels = host(s, &s->label_ids);
    uint32_t n = 0, wrong_ids = 0, wrong_positions = 0, wrong_spans = 0, wrong_labels = 0, padding = 0;
    for (uint32_t i = 0; i < MICRO; i++) {
        const struct PackedDocument *d = document_at(m, i);
        if (!d) { // alone, so that nobody sees it
            wrong_spans +=
                span[2 * i] != i || span[2 * i + 1] != i + 1 || key_span[2 * i] != i || key_span[2 * i + 1] != i + 1;
            padding++;
            continue;
        }
        const struct Example *e = &b->example[d->example];
        uint32_t t = i - d->first;
        wrong_ids += ids[i] != e->ids[t];
        wrong_positions += positions[i] != t;
        wrong_spans += span[2 * i] != d->first || span[2 * i + 1] != i + 1 || key_span[2 * i] != i ||
                       key_span[2 * i + 1] != d->first + d->n;
        if (e->labels[t] < 0)
            continue;
        wrong_labels += rows[n] != i || labels[n] != (uint32_t)e->ids[t + 1];
        n++;
    }
    for (uint32_t i = n; i < 16; i++) // labels come in sixteens
        wrong_labels += rows[i] != UINT32_MAX || labels[i] != UINT32_MAX;
    CHECK(wrong_ids == 0, "%u ids are others", wrong_ids);
    CHECK(wrong_positions == 0, "%u positions do not count from the document's first token", wrong_positions);
    CHECK(wrong_spans == 0, "%u spans are not the documents'", wrong_spans);
    CHECK(n == b->plan.n_labels && n < 16 && wrong_labels == 0, "%u of %u labels are others", wrong_labels, n);
    CHECK(padding > 0, "no padding to look at");
}

// Each id has one segment, and so one workgroup that adds to its row of the embedding's gradient.
static void check_segments(const struct Step *s, const struct Batch *b) {
    const struct MicroBatch *m = &b->plan.micro[0];
    const uint32_t *order = host(s, &s->order), *start = host(s, &s->segment_start), *id = host(s, &s->segment_id);
    const uint32_t *ids = host(s, &s->ids);
    uint32_t n = *(const uint32_t *)host(s, &s->n_segments), wrong = 0, tokens = 0;
    bool seen[MICRO] = {false};
    for (uint32_t k = 0; k < n && k < MICRO; k++) {
        wrong += k > 0 && id[k] <= id[k - 1];
        for (uint32_t i = start[k]; i < start[k + 1] && i < MICRO; i++) {
            wrong += order[i] >= MICRO || seen[order[i] % MICRO] || ids[order[i] % MICRO] != id[k];
            seen[order[i] % MICRO] = true;
            tokens++;
        }
    }
    CHECK(n == 4 && wrong == 0 && tokens == m->n_tokens - b->plan.n_padding,
          "%u segments of %u ids, %u tokens in them, %u wrong", n, 4u, tokens, wrong);
}

// The group of a token is its document, or the batch; padding has none. Weights are shares of all documents, or of all tokens.
static void check_groups(const struct Step *s, const struct Batch *b, bool by_document) {
    const struct MicroBatch *m = &b->plan.micro[0];
    const uint32_t *group = host(s, &s->token_group);
    const float *weight = host(s, &s->group_weight);
    uint32_t wrong = 0, padding = 0;
    for (uint32_t i = 0; i < MICRO; i++) {
        const struct PackedDocument *d = document_at(m, i);
        padding += !d && group[i] != UINT32_MAX;
        wrong += d && group[i] != (by_document ? (uint32_t)(d - m->documents) : 0);
    }
    CHECK(wrong == 0, "%u tokens are in another group of the balance loss", wrong);
    CHECK(padding == 0, "%u tokens of padding are in a group of the balance loss", padding);
    for (uint32_t g = 0; g < (by_document ? DOCUMENTS : 1); g++)
        CHECK_NEAR((double)weight[g], by_document ? 1.0 / DOCUMENTS : 1, 0, 1e-6);
}

// ---- A model, its step and the batch, as most tests here want them

struct Trial {
    struct Model m;
    struct Step s;
    struct Batch b;
};

static bool trial_begin(struct Trial *t, struct Device *dev, const struct Config *c, enum DType type,
                        const struct StepOptions *o) {
    *t = (struct Trial){0};
    return model_make(&t->m, dev, c, type) && batch_make(&t->b) &&
           CHECK(step_init(&t->s, &t->m, o, true), "%s", fail_last());
}

static void trial_end(struct Trial *t) {
    step_free(&t->s);
    pack_free(&t->b.plan);
    model_free(&t->m);
}

static void test_batch(struct Device *dev) {
    for (int by_document = 0; by_document < 2; by_document++) {
        struct Config c = tiny();
        struct Trial t;
        struct StepOptions o = options(MICRO);
        struct StepResult r;
        c.seq_aux = by_document;
        if (trial_begin(&t, dev, &c, DT_F32, &o) && batch_step(&t.s, &t.b, &r)) {
            check_tokens(&t.s, &t.b);
            check_segments(&t.s, &t.b);
            check_groups(&t.s, &t.b, by_document);
        }
        trial_end(&t);
    }
}

// ---- What the gradient is

static float *gradient_of(struct Device *dev, const struct Param *p) {
    float *g = xmalloc(p->g.bytes);
    CHECK(tensor_download(dev, &p->g, 0, g, p->g.bytes), "download");
    return g;
}

static double squares(const float *x, uint64_t n) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

// The norm and the clip factor that a step tells are those of all gradients together, summed here in double.
static void test_norm(struct Device *dev) {
    struct Config c = tiny();
    struct Trial t;
    struct StepOptions o = options(MICRO);
    struct StepResult r;
    double sum = 0;
    if (trial_begin(&t, dev, &c, DT_F32, &o) && batch_step(&t.s, &t.b, &r)) {
        for (uint32_t i = 0; i < t.m.n_params; i++) {
            float *g = gradient_of(dev, &t.m.params[i]);
            sum += squares(g, t.m.params[i].g.bytes / 4);
            free(g);
        }
        CHECK(step_update(&t.s, 1, 1e-3f, &r) && r.finite, "%s", fail_last());
        CHECK(fabs((double)r.grad_norm / sqrt(sum) - 1) < 1e-6, "the gradient norm is %.9g, the step says %.9g",
              sqrt(sum), (double)r.grad_norm);
        CHECK_NEAR((double)r.clip, fmin(1, 1 / sqrt(sum)), 0, 1e-5);
    }
    trial_end(&t);
}

// All of the loss, as it is defined: the mean over the labels and the balance loss.
static double loss_of(struct Step *s, const struct Batch *b) {
    struct StepResult r = {0};
    batch_step(s, b, &r);
    return (double)r.loss / (double)b->plan.n_labels + (double)r.balance;
}

// The loss rises along the gradient of the parameters of a role as steeply as the gradient is long (two differences, of the fourth order).
static void check_slope(struct Step *s, const struct Batch *b, enum WeightRole role, const char *what) {
    struct Model *m = s->m;
    static const double AT[] = {-2, -1, 1, 2}, FACTOR[] = {1, -8, 8, -1};
    double length = 0, slope = 0, step = 1e-3;
    float **g = xcalloc(m->n_params, sizeof *g), **w = xcalloc(m->n_params, sizeof *w);
    loss_of(s, b);
    for (uint32_t i = 0; i < m->n_params; i++) {
        struct Param *p = &m->params[i];
        if (p->spec.role != role)
            continue;
        g[i] = gradient_of(m->dev, p);
        w[i] = xmalloc(p->w.bytes);
        CHECK(tensor_download(m->dev, &p->w, 0, w[i], p->w.bytes), "download");
        length += squares(g[i], p->g.bytes / 4);
    }
    length = sqrt(length);
    for (int k = 0; k < 4; k++) {
        for (uint32_t i = 0; i < m->n_params; i++) {
            uint64_t n = g[i] ? m->params[i].g.bytes / 4 : 0;
            float *moved = xmalloc(n * 4 + 4);
            for (uint64_t j = 0; j < n; j++)
                moved[j] = w[i][j] + (float)(AT[k] * step * (double)g[i][j] / length);
            CHECK(!n || tensor_upload(m->dev, &m->params[i].w, 0, moved, 4 * n), "upload");
            free(moved);
        }
        slope += FACTOR[k] * loss_of(s, b) / (12 * step);
    }
    CHECK(length > 1e-2 && fabs(slope / length - 1) < 5e-3, "the %s slope is %.6g, the gradient's length %.6g", what,
          slope, length);
    printf("%s: slope %.6g, gradient %.6g\n", what, slope, length);
    for (uint32_t i = 0; i < m->n_params; i++) {
        CHECK(!w[i] || tensor_upload(m->dev, &m->params[i].w, 0, w[i], m->params[i].w.bytes), "upload");
        free(g[i]), free(w[i]);
    }
    free(g), free(w);
}

static void test_slope(struct Device *dev) {
    struct Config c = tiny();
    struct Trial t;
    struct StepOptions o = options(MICRO);
    if (trial_begin(&t, dev, &c, DT_F32, &o)) {
        check_slope(&t.s, &t.b, ROLE_ROUTER, "router's");
        check_slope(&t.s, &t.b, ROLE_EXPERTS, "experts'");
        check_slope(&t.s, &t.b, ROLE_EMBED, "embedding's");
    }
    trial_end(&t);
}

// ---- Steps without a gradient: matrices shrink by 1 - rate * decay a step, in bf16 as well, and nothing else moves.

static void check_decay(struct Device *dev, const struct Param *p, const float *before, double factor, uint32_t steps) {
    uint64_t n = tensor_elements(&p->w), moved = 0;
    float *after = xmalloc(n * sizeof *after);
    CHECK(param_read(dev, p, 0, tensor_rows(&p->w), after), "read");
    for (uint64_t i = 0; i < n; i++)
        moved += after[i] != before[i];
    double shrunk = sqrt(squares(after, n) / squares(before, n));
    if (!p->decay)
        CHECK(moved == 0, "%s has moved", p->spec.name);
    else
        CHECK(fabs(shrunk / pow(factor, steps) - 1) < 2e-3, "%s: the decay is %.5f, not %.5f", p->spec.name, shrunk,
              pow(factor, steps));
    // A step moves about a fifth of the weights in bf16, each time others: after all of them hardly one is where it was.
    if (p->decay)
        CHECK(moved > n * 9 / 10, "%s: weights are rounded anew each step, and %.3f have moved", p->spec.name,
              (double)moved / (double)n);
    free(after);
}

static void test_decay(struct Device *dev) {
    enum { STEPS = 24 };
    static const enum DType TYPES[] = {DT_F32, DT_BF16};
    for (int k = 0; k < 2; k++) {
        struct Config c = tiny();
        struct Trial t;
        struct StepOptions o = options(MICRO);
        struct StepResult r = {0};
        if (!trial_begin(&t, dev, &c, TYPES[k], &o))
            return;
        float **before = xcalloc(t.m.n_params, sizeof *before);
        for (uint32_t i = 0; i < t.m.n_params; i++) {
            before[i] = xmalloc(tensor_elements(&t.m.params[i].w) * sizeof **before);
            CHECK(param_read(dev, &t.m.params[i], 0, tensor_rows(&t.m.params[i].w), before[i]), "read");
        }
        for (uint32_t step = 1; step <= STEPS; step++)
            CHECK(step_begin(&t.s, 1) && step_update(&t.s, step, 0x1p-6f, &r) && r.finite, "%s", fail_last());
        for (uint32_t i = 0; i < t.m.n_params; i++) {
            check_decay(dev, &t.m.params[i], before[i], 1 - 0.1 * 0x1p-6, STEPS);
            free(before[i]);
        }
        free(before);
        trial_end(&t);
    }
}

// ---- NEFTune

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

// What the device adds to zeros (n rows of `dim`), by the rows' positions, examples and scales.
static float *noise_of(struct Device *dev, uint64_t seed, uint32_t step, uint32_t n, uint32_t dim,
                       const uint32_t *positions, const uint32_t *examples) {
    struct Arena arena;
    float *x = xcalloc((size_t)n * dim, sizeof *x);
    uint32_t key[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), step, 0};
    arena_init(&arena, dev, "noise", ARENA_HOST);
    struct Tensor y = TENSOR(&arena, DT_F32, n, dim), t_positions = TENSOR(&arena, DT_U32, n);
    struct Tensor t_examples = TENSOR(&arena, DT_U32, n, 2), t_key = TENSOR(&arena, DT_U32, 4);
    memset(tensor_host(dev, &y), 0, y.bytes);
    memcpy(tensor_host(dev, &t_positions), positions, t_positions.bytes);
    memcpy(tensor_host(dev, &t_examples), examples, t_examples.bytes);
    memcpy(tensor_host(dev, &t_key), key, sizeof key);
    struct Cmd *c = cmd_begin(dev, "noise");
    op_noise(c, &y, &t_positions, &t_examples, &t_key);
    struct Program *p = cmd_end(c);
    CHECK(p && program_run(p), "%s", fail_last());
    memcpy(x, tensor_host(dev, &y), (size_t)n * dim * sizeof *x);
    program_free(p);
    arena_free(&arena);
    return x;
}

// Single elements beside those of golden/noise/make_noise.py, which computes them by the published formulas alone, to the bit.
static void test_noise_golden(struct Device *dev) {
    FILE *f = fopen(VKMOE_SOURCE_DIR "/tests/golden/noise/noise.txt", "r");
    unsigned long long seed;
    unsigned step, place[2], column, n, dim, want, lines = 0;
    double alpha;
    while (f && fscanf(f, "%llu %u %u %u %u %u %u %lf %x", &seed, &step, &place[0], &place[1], &column, &n, &dim,
                       &alpha, &want) == 9) {
        uint32_t example[2] = {place[0], bits_of((float)(alpha / sqrt((double)n * dim)))}, position = place[1];
        float *x = noise_of(dev, seed, step, 1, dim, &position, example);
        CHECK(bits_of(x[column]) == want, "line %u: the noise is %.9g (%08x), not %08x", lines + 1, (double)x[column],
              bits_of(x[column]), want);
        free(x);
        lines++;
    }
    CHECK(lines == 48, "noise.txt: %u lines were read", lines);
    if (f)
        fclose(f);
}

// Uniform in (-1, 1): mean, variance and bound; rows of other tokens, examples and steps have nothing in common with each other.
static void test_noise_statistics(struct Device *dev) {
    enum { ROWS = 129, DIM = 576 };
    uint32_t positions[ROWS], examples[2 * ROWS];
    const double n = (double)ROWS * DIM;
    for (uint32_t i = 0; i < ROWS; i++) { // positions of one example; then the first position of others
        positions[i] = i < ROWS / 2 ? i : 0;
        examples[2 * i] = i < ROWS / 2 ? 0 : i;
        examples[2 * i + 1] = bits_of(1);
    }
    float *x = noise_of(dev, 9, 1, ROWS, DIM, positions, examples),
          *later = noise_of(dev, 9, 2, ROWS, DIM, positions, examples);
    double sum = 0, square = 0, most = 0, rows = 0, steps = 0;
    for (uint32_t i = 0; i < ROWS * DIM; i++) {
        double u = (double)x[i];
        sum += u, square += u * u, most = fmax(most, fabs(u));
        rows += u * (double)x[(i + DIM) % (ROWS * DIM)];
        steps += u * (double)later[i];
    }
    CHECK(fabs(sum / n) < 3 * sqrt(1.0 / 3 / n), "the mean of %.0f draws is %g", n, sum / n);
    CHECK(fabs(square / n - 1.0 / 3) < 3 * sqrt(4.0 / 45 / n), "the variance of %.0f draws is %g", n, square / n);
    CHECK(most < 1 && most > 0.999, "the largest of %.0f draws is %.9g", n, most);
    CHECK(fabs(rows / n) < 3 * sqrt(1.0 / 9 / n), "neighbouring rows: covariance %g", rows / n);
    CHECK(fabs(steps / n) < 3 * sqrt(1.0 / 9 / n), "neighbouring steps: covariance %g", steps / n);
    free(x), free(later);
}

// Each token has the noise of its place in its example: 5 / sqrt(tokens * width) at most, and padding none.
static void check_noise(const struct Step *s, const struct Batch *b, uint32_t step) {
    const struct MicroBatch *m = &b->plan.micro[0];
    const uint32_t *example = host(s, &s->noise_examples), *key = host(s, &s->noise_key);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < m->n_tokens; i++) {
        const struct PackedDocument *d = document_at(m, i);
        wrong += d ? example[2 * i] != d->example ||
                         example[2 * i + 1] != bits_of((float)(5 / sqrt((double)d->n * s->m->config.dim)))
                   : example[2 * i + 1] != 0;
    }
    CHECK(wrong == 0 && key[0] == 9 && key[1] == 0 && key[2] == step, "%u tokens have another noise; step %u", wrong,
          key[2]);
}

static float *all_gradients(const struct Model *m, uint64_t *bytes) {
    *bytes = 0;
    for (uint32_t i = 0; i < m->n_params; i++)
        *bytes += m->params[i].g.bytes;
    float *all = xmalloc(*bytes), *at = all;
    for (uint32_t i = 0; i < m->n_params; at += m->params[i++].g.bytes / 4)
        CHECK(tensor_download(m->dev, &m->params[i].g, 0, at, m->params[i].g.bytes), "download");
    return all;
}

// Where each token of a batch has an id of its own, noise on embeddings is noise on the table's rows: a step with noise has the bits of one without on
// the table with the noise. What is measured without a gradient has the noise where it is asked for, and evaluation never.
static void test_noise_step(struct Device *dev) {
    struct Config c = tiny();
    struct Trial t, plain;
    struct StepOptions o = options(MICRO), noisy = o;
    struct StepResult r[2];
    uint64_t bytes;
    double clean[DOCUMENTS] = {0}, measured[DOCUMENTS] = {0}, held[2] = {0};
    c.tied_head = false;
    noisy.neftune_alpha = 5;
    bool ok = trial_begin(&t, dev, &c, DT_F32, &noisy);
    ok = trial_begin(&plain, dev, &c, DT_F32, &o) && ok;
    struct MicroBatch *m = ok ? &t.b.plan.micro[0] : NULL;
    for (uint32_t i = 0; ok && i < m->n_tokens; i++)
        if (document_at(m, i))
            m->ids[i] = plain.b.plan.micro[0].ids[i] = 100 + i;
    step_noise(&t.s, 7);
    if (ok && batch_step(&t.s, &t.b, &r[0])) {
        check_noise(&t.s, &t.b, 7);
        float *got = all_gradients(&t.m, &bytes);
        CHECK(step_evaluate(&t.s, m, &held[0]) && step_evaluate(&plain.s, m, &held[1]), "%s", fail_last());
        CHECK(held[0] == held[1], "evaluation has noise: a loss of %.9g, not %.9g", held[0], held[1]);
        CHECK(step_logprobs(&t.s, m, false, clean) && step_logprobs(&t.s, m, true, measured), "%s", fail_last());
        for (uint32_t i = 0; i < m->n_tokens; i++) { // the table's rows
            const struct PackedDocument *d = document_at(m, i);
            if (!d)
                continue;
            uint32_t position = i - d->first;
            uint32_t example[2] = {d->example, bits_of((float)(5 / sqrt((double)d->n * c.dim)))};
            float *x = noise_of(dev, 9, 7, 1, c.dim, &position, example), *row = xmalloc(c.dim * sizeof *row);
            CHECK(param_read(dev, plain.m.embed, 100 + i, 1, row), "read");
            for (uint32_t j = 0; j < c.dim; j++)
                row[j] += x[j];
            CHECK(param_write(dev, plain.m.embed, 100 + i, 1, row), "write");
            free(x), free(row);
        }
        batch_step(&plain.s, &plain.b, &r[1]);
        float *want = all_gradients(&plain.m, &bytes);
        double sums[2] = {0}, distance = 0, size = 0;
        for (uint32_t i = 0; i < DOCUMENTS; i++)
            sums[0] -= clean[i], sums[1] -= measured[i];
        for (uint64_t i = 0; i < bytes / 4; i++)
            distance += pow((double)got[i] - (double)want[i], 2), size += pow((double)want[i], 2);
        // The sum is rounded once on the device and twice here.
        CHECK(distance < 1e-10 * size, "gradients with noise and with a table that has it differ by %.2g",
              sqrt(distance / size));
        CHECK_NEAR((double)r[0].loss, (double)r[1].loss, 0, 1e-6);
        CHECK_NEAR(sums[1], (double)r[0].loss, 0, 1e-6);
        CHECK(fabs(sums[0] - held[0]) < 1e-6 * held[0] && fabs(sums[1] - sums[0]) > 1e-3 * sums[0],
              "losses of %.9g without noise, %.9g with it", sums[0], sums[1]);
        free(got), free(want);
    }
    trial_end(&t), trial_end(&plain);
}

// The noise of an example does not depend on where it is packed, but on its place in the batch and on the step.
static void test_noise_packing(struct Device *dev) {
    struct Config c = tiny();
    struct Trial t;
    struct StepOptions o = options(4 * SEQ);
    double logp[4][DOCUMENTS] = {{0}};
    o.neftune_alpha = 5;
    if (trial_begin(&t, dev, &c, DT_F32, &o)) {
        const struct Example *list[DOCUMENTS];
        for (uint32_t d = 0; d < DOCUMENTS; d++)
            list[d] = &t.b.example[d];
        for (uint32_t k = 0; k < 4; k++) { // rows of 9, of 64, another step, another order
            struct PackPlan plan;
            struct PackOptions po = {.seq_len = k == 0 ? 9 : 4 * SEQ, .micro_tokens = k == 0 ? 9 : 4 * SEQ, .round = 8};
            const struct Example *other[DOCUMENTS] = {list[1], list[0], list[2], list[3], list[4]};
            step_noise(&t.s, k == 2 ? 2 : 1);
            bool ok = pack_plan(&plan, k == 3 ? other : list, DOCUMENTS, &po);
            for (size_t i = 0; i < plan.n && ok; i++)
                ok = step_logprobs(&t.s, &plan.micro[i], true, logp[k]);
            CHECK(ok && plan.n == (k == 0 ? 4 : 1), "%s", fail_last());
            pack_free(&plan);
        }
        for (uint32_t d = 0; d < DOCUMENTS; d++) {
            CHECK_NEAR(logp[1][d], logp[0][d], 0, 1e-5);
            CHECK(fabs(logp[2][d] / logp[1][d] - 1) > 1e-5, "document %u has the same noise in another step", d);
        }
        CHECK(fabs(logp[3][1] / logp[1][0] - 1) > 1e-5, "a document has the same noise at another place of the batch");
        CHECK_NEAR(logp[3][4], logp[1][4], 0, 1e-5);
    }
    trial_end(&t);
}

// ---- A run: its first step has the loss, the balance loss and the gradient norm of its batch, however many rows are on the device at once.

static void keep_status(void *context, const struct TrainStatus *s) { *(struct TrainStatus *)context = *s; }

static bool write_text(const char *path) {
    FILE *f = fopen(path, "w");
    for (int i = 0; f && i < 11; i++)
        fprintf(f, "{\"prompt\": \"%.*s\", \"completion\": \"%.*s\"}\n", 1 + i * 5 % 7, "1 2 3 4 5", 1 + i * 3 % 11,
                " 6 7 8 9 0 1 2");
    return f && fclose(f) == 0;
}

// The same examples in one micro-batch, by the step alone.
static void whole_batch(struct Model *m, const struct Dataset *d, struct TrainStatus *want) {
    struct Step s = {0};
    struct PackPlan plan;
    struct StepResult r = {0};
    const struct Example *list[16];
    struct StepOptions o = options(16 * SEQ);
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 16 * SEQ};
    for (size_t i = 0; i < d->n; i++)
        list[i] = &d->examples[i];
    bool ok = d->n <= 16 && pack_plan(&plan, list, d->n, &po) && plan.n == 1 && step_init(&s, m, &o, true) &&
              step_begin(&s, d->n_labels) && step_micro(&s, &plan.micro[0], d->n, d->n_tokens) &&
              step_update(&s, 1, 0, &r);
    CHECK(ok, "%s", fail_last());
    *want = (struct TrainStatus){
        .loss = (double)r.loss / (double)d->n_labels, .balance = (double)r.balance, .grad_norm = (double)r.grad_norm};
    step_free(&s);
    pack_free(&plan);
}

static void check_run(struct Device *dev, const struct Tokenizer *tokenizer, const char *dir, uint32_t rows) {
    struct Config c = tiny();
    char *data = path_join(dir, "data.jsonl"), *out = xsprintf("%s/out-%u", dir, rows);
    struct TrainStatus want, got = {0};
    struct Model m;
    struct Train t = {.lock = -1};
    const char *const paths[] = {data};
    struct TrainOptions o = {.steps = 1,
                             .batch_examples = 11,
                             .seq_len = SEQ,
                             .micro_rows = rows,
                             .beta1 = 0.9f,
                             .beta2 = 0.95f,
                             .eps = 1e-8f,
                             .clip_norm = 1,
                             .learning_rate = 1e-3f,
                             .data = paths,
                             .n_data = 1,
                             .out = out};
    struct Template chat = {.turn_id = TOKEN_NONE};
    if (CHECK(write_text(data) && train_load_data(&t, &o, tokenizer, &chat), "%s", fail_last()) &&
        model_make(&m, dev, &c, DT_F32)) {
        CHECK(t.data.n == 11 && t.data.n_labels * 2 < t.data.n_tokens * 2, "%zu examples", t.data.n);
        whole_batch(&m, &t.data, &want);
        t.on_step = keep_status, t.context = &got;
        CHECK(train_begin(&t, &m) && train_loop(&t) && got.step == 1, "%s", fail_last());
        CHECK_NEAR(got.loss, want.loss, 0, 1e-5);
        CHECK_NEAR(got.balance, want.balance, 0, 1e-5);
        CHECK(fabs(got.grad_norm / want.grad_norm - 1) < 1e-5,
              "%u rows at once: a run's gradient norm is %.7g, that of its batch %.7g", rows, got.grad_norm,
              want.grad_norm);
        // Another run that looked at the folder before this one began in it.
        train_end(&t);
        fail_quiet(true);
        CHECK(!train_begin(&t, &m), "a run begins in the folder of one that has ended meanwhile");
        fail_quiet(false);
        train_free(&t);
        model_free(&m);
    }
    free(data), free(out);
}

static void test_run(struct Device *dev) {
    char dir[] = "test-step-XXXXXX"; // in the build folder, where tests run
    static const char config[] = "{\"bos_token\": \"<｜begin▁of▁sentence｜>\", \"eos_token\": "
                                 "\"<｜end▁of▁sentence｜>\", \"add_bos_token\": true}";
    char *path = xsprintf("%s/tests/golden/tokenizer/deepseek-llm/tokenizer.json", VKMOE_SOURCE_DIR);
    struct Tokenizer tokenizer;
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    if (CHECK(mkdtemp(dir) && file_read(path, 1 << 24, &text, &bytes) &&
                  tokenizer_open_json(&tokenizer, (char *)text, bytes, config, sizeof config - 1, path),
              "%s", fail_last())) {
        check_run(dev, &tokenizer, dir, 1);
        check_run(dev, &tokenizer, dir, 3);
        tokenizer_free(&tokenizer);
    }
    char *remove = xsprintf("rm -rf '%s'", dir);
    CHECK(system(remove) == 0, "%s", remove);
    free(remove), free(text), free(path);
}

// ---- Which bodies a step takes on a card with matrix units

// Prints the floating-point operations by kernel; gives the share of products and attention (which has no body on products of pairs, so is not counted
// there) that is not on matrix units. The router's three products are none of these: it is f32 by choice. f16: the share of forward and dx that is on matrix
// units of f16.
static double share_off(struct Device *card, const struct Config *c, const char *name, enum DType type, bool lora,
                        double *f16) {
    enum { TOKENS = 2048 };
    struct Model m;
    struct Step s = {0};
    struct StepOptions o = options(TOKENS);
    struct LoraOptions adapters = {.rank = 16, .alpha = 16, .targets = LORA_ALL};
    bool ok = model_init(&m, card, c, type, TOKENS) && (!lora || model_add_lora(&m, &adapters, 1));
    ok = CHECK(ok && step_init(&s, &m, &o, !lora), "%s: %s", name, fail_last());
    struct MicroBatch b = {.rows = 1, .seq_len = TOKENS, .n_tokens = TOKENS, .n_labels = TOKENS, .n_documents = 1};
    const struct Program *p = ok ? step_program(&s, &b) : NULL;
    double all = 0, off = 0, router = 0, of_f16 = 0, of_bf16 = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) // forward and again, dx; dw
        router += config_is_moe(c, i) ? (lora ? 3 : 4) * 2.0 * TOKENS * c->dim * c->n_experts : 0;
    printf("%s\n", name);
    for (int k = 0; p && k < KERNEL_COUNT; k++) {
        double flops = program_flops_of(p, (enum KernelId)k);
        bool attention = strncmp(KERNELS[k].name, "attention", 9) == 0;
        if (strncmp(KERNELS[k].name, "gem", 3) != 0 && (!attention || device_can(card, CAP_dot2)))
            continue;
        bool prepares = k == KERNEL_attention_back_pack || k == KERNEL_attention_back_prepare;
        all += prepares ? 0 : flops;
        off += prepares || (KERNELS[k].needs & NEEDS_INSTRUCTIONS) ? 0 : flops;
        of_f16 += k == KERNEL_gemm_nt_matrix_f16 || k == KERNEL_gemm_nn_matrix_f16 ? flops : 0;
        of_bf16 += KERNELS[k].needs & NEEDS_BF16 &&
                           (strncmp(KERNELS[k].name, "gemm_nt", 7) == 0 || strncmp(KERNELS[k].name, "gemm_nn", 7) == 0)
                       ? flops
                       : 0;
        if (flops > 0)
            printf("  %-32s %8.2f GFLOP\n", KERNELS[k].name, flops * 1e-9);
    }
    step_free(&s);
    model_free(&m);
    CHECK(all > 0 && off < all, "%s: nothing on matrix units", name);
    *f16 = of_f16 > 0 ? of_f16 / (of_f16 + of_bf16) : 0;
    return (off - router) / all;
}

static const struct {
    const char *name;
    enum DType type;
    bool lora;
} UNIT_RUNS[] = {{"full, bf16", DT_BF16, false},
                 {"LoRA, bf16", DT_BF16, true},
                 {"QLoRA, Q4_0", DT_Q4_0, true},
                 {"LoRA, f16", DT_F16, true}};

// both: weights that are not bf16, and their adapters, are on units of f16, others on those of bf16.
static void check_units(struct Device *card, const struct Config *c, const char *units, bool both) {
    double f16;
    for (size_t i = 0; i < sizeof UNIT_RUNS / sizeof *UNIT_RUNS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s, %s", UNIT_RUNS[i].name, units);
        double off = share_off(card, c, name, UNIT_RUNS[i].type, UNIT_RUNS[i].lora, &f16);
        CHECK(fabs(off) < 1e-6, "%s: %.3g of the products are off them", name, off);
        CHECK(f16 == (both && UNIT_RUNS[i].type != DT_BF16), "%s: %.3g of forward and dx are on units of f16", name,
              f16);
    }
}

static void test_units(void) {
    double f16;
    struct Config c;
    config_preset(&c, "deepseek-moe-16b");
    c.n_layers = 2; // a dense one and one of experts
    static const struct {
        const char *name;
        bool workgroups, f16; // matrices of a workgroup; units of f16 beside those of bf16
    } CARDS[] = {{"matrices of a subgroup", false, false},
                 {"matrices of a subgroup, of both types", false, true},
                 {"matrices of a workgroup", true, true}};
    for (size_t k = 0; k < sizeof CARDS / sizeof *CARDS; k++) {
        struct Device card;
        device_open_dry(&card, NULL);
        card.coopmat = (struct CoopmatShape){16, 16, 16, DT_BF16};
        card.coopmat_f16 = CARDS[k].f16;
        card.limits.shared_bytes = 48 << 10;
        const enum Cap caps[] = {CAP_f16, CAP_bf16, CAP_coopmat, CAP_coopmat_back, CAP_coopmat2};
        for (size_t i = 0; i < (CARDS[k].workgroups ? 5 : 4); i++)
            device_switch(&card, caps[i], true);
        if (card.kernel_off[KERNEL_gemm_nt_matrix_bf16]) {
            check_skip("bodies of a step: this build has no modules for matrix units");
            return;
        }
        check_units(&card, &c, CARDS[k].name, CARDS[k].f16 && !CARDS[k].workgroups);
        device_switch(&card, CAP_coopmat_back, false);
        CHECK(share_off(&card, &c, "VKMOE_OFF=coopmat_back", DT_BF16, false, &f16) > 0.01,
              "the switch changes nothing");
        device_close(&card);
    }
    struct Device card;
    device_open_dry(&card, NULL);
    device_switch(&card, CAP_f16, true);
    device_switch(&card, CAP_dot2, true);
    if (card.kernel_off[KERNEL_gemm_nt_dot2])
        check_skip("bodies of a step: this build has no modules for products of pairs");
    else
        check_units(&card, &c, "products of pairs", false);
    device_close(&card);
}

int main(void) {
    test_units();
    struct Device dev;
    if (!card_open(&dev)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    test_batch(&dev);
    test_norm(&dev);
    test_slope(&dev);
    test_decay(&dev);
    test_noise_golden(&dev);
    test_noise_statistics(&dev);
    test_noise_step(&dev);
    test_noise_packing(&dev);
    test_run(&dev);
    device_close(&dev);
    return check_done();
}
