// What must not change the result of training, as tests: the cut into micro-batches, packing, recomputation, a second run, an adapter at its
// start, an expert without tokens, upcycling with all shards active; and what must stop it: a non-finite loss. Also every
// barrier of a training step is removed in turn, and the range checker has to notice. Longer than other files because one corpus, one table of
// methods and one way to take gradients serve all of it.
#include "card.h"
#include "check.h"
#include "train/checkpoint.h"
#include "train/dpo.h"
#include "train/layers_back.h"
#include "train/run.h"
#include "train/upcycle.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct Config tiny(bool moe) {
    struct Config c;
    config_preset(&c, moe ? "tiny-moe" : "tiny");
    c.vocab_size = 101, c.bos_id = 1, c.eos_id[0] = 2, c.n_eos = 1;
    c.n_layers = 2;
    c.max_context = 64;
    c.init_std = 0.2f;
    return c;
}

// ---- Batches of random documents

enum { N_EXAMPLES = 16, SEQ = 32 };
struct Corpus {
    struct Example example[N_EXAMPLES];
    const struct Example *list[N_EXAMPLES];
    uint32_t n;
    bool pairs;    // neighbours are a chosen and a rejected answer
    float noise;   // on their embeddings
    double labels; // that the loss is divided by; 0: its own
};

// Documents of 5 to 20 tokens whose first third is not trained; ids from `low` on.
static void corpus_make(struct Corpus *c, uint32_t n, uint64_t seed, uint32_t vocab) {
    c->n = n;
    c->pairs = false;
    c->noise = 0;
    c->labels = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct Example *e = &c->example[i];
        *e = (struct Example){.n = 5 + (uint32_t)(random_uniform(seed, 1, i) * 16), .line = i + 1};
        e->ids = xcalloc(e->n, sizeof *e->ids);
        e->labels = xcalloc(e->n, sizeof *e->labels);
        for (uint32_t t = 0; t < e->n; t++)
            e->ids[t] = (uint32_t)(random_uniform(seed, 2 + i, t) * (float)vocab);
        for (uint32_t t = 0; t < e->n; t++) {
            e->labels[t] = t + 1 < e->n && t >= e->n / 3 ? (int32_t)e->ids[t + 1] : -1;
            e->n_labels += e->labels[t] >= 0;
        }
        c->list[i] = e;
    }
}

static void corpus_free(struct Corpus *c) {
    for (uint32_t i = 0; i < c->n; i++)
        free(c->example[i].ids), free(c->example[i].labels);
}

static struct StepOptions options(uint32_t micro_tokens, bool recompute) {
    return (struct StepOptions){.micro_tokens = micro_tokens,
                                .recompute = recompute,
                                .loss_chunk = 16,
                                .beta1 = 0.9f,
                                .beta2 = 0.95f,
                                .eps = 1e-8f,
                                .seed = 9,
                                .optimiser = {.weight_decay = 0.1f, .clip_norm = 1}};
}

// ---- The methods, as rows of a table: what must not change a result must not for any of them.

static const struct Method {
    const char *name;
    bool moe, lora;
    enum DType base;
    bool chosen; // of routed experts some alone; without LoRA nothing but them
    bool pairs;  // the loss is a preference's
    bool moments8;
    float noise; // NEFTune's alpha
} METHODS[] = {
    {"full, dense", false, false, DT_F32, false, false, false, 0},
    {"full", true, false, DT_F32, false, false, false, 0},
    {"lora", true, true, DT_F32, false, false, false, 0},
    {"lora on bf16", true, true, DT_BF16, false, false, false, 0},
    {"qlora q4_0", true, true, DT_Q4_0, false, false, false, 0},
    {"qlora q6_k", true, true, DT_Q6_K, false, false, false, 0},
    {"esft", true, false, DT_F32, true, false, false, 0},
    {"lora of some experts", true, true, DT_F32, true, false, false, 0},
    {"qlora of some experts", true, true, DT_Q4_0, true, false, false, 0},
    {"full, moments in 8 bits", true, false, DT_F32, false, false, true, 0},
    {"esft, moments in 8 bits", true, false, DT_F32, true, false, true, 0},
    {"full, dpo", true, false, DT_F32, false, true, false, 0},
    {"qlora of some experts, dpo", true, true, DT_Q4_0, true, true, false, 0},
    {"full, dense, with noise", false, false, DT_F32, false, false, false, 5},
    {"lora, dpo, with noise", true, true, DT_F32, false, true, false, 5},
};
enum { N_METHODS = sizeof METHODS / sizeof METHODS[0] };

static bool model_make(struct Model *m, struct Device *dev, const struct Config *c) {
    return CHECK(model_init(m, dev, c, DT_F32, 0) && model_randomise(m, 5), "model: %s", fail_last());
}

// A model as the method trains it, and its list of experts (empty where all are trained). B is not zero: A has a gradient.
static bool method_make_with(const struct Method *method, struct Device *dev, const struct Config *c,
                             uint32_t host_layers, struct Model *m, struct ExpertList *experts) {
    struct LoraOptions lora = {.rank = 4, .alpha = 8, .targets = LORA_ALL};
    struct ModelOptions o = {.type = method->base, .host_layers = host_layers};
    *experts = (struct ExpertList){0};
    if (!CHECK(model_init_with(m, dev, c, &o) && model_randomise(m, 5) &&
                   (!method->lora || model_add_lora(m, &lora, 3)),
               "%s: %s", method->name, fail_last()))
        return false;
    for (uint32_t i = m->n_base; i < m->n_params; i++) {
        struct Param *p = &m->params[i];
        uint32_t cols = tensor_cols(&p->w), rank = p->spec.dim[p->spec.n_dims - 1];
        float *row = xcalloc(cols, sizeof *row);
        for (uint32_t r = 0; r < tensor_rows(&p->w) && strstr(p->spec.name, ".lora_B"); r++) {
            for (uint32_t k = 0; k < rank; k++)
                row[k] = 0.1f * random_normal(7, i, r * rank + k);
            param_write(dev, p, r, 1, row);
        }
        free(row);
    }
    if (method->chosen) {
        double scores[64 * 2];
        for (uint32_t i = 0; i < 128; i++)
            scores[i] = (double)random_uniform(6, 6, i);
        esft_choose_share(experts, c, scores, 0.5);
    }
    return true;
}

static bool method_make(const struct Method *method, struct Device *dev, const struct Config *c, struct Model *m,
                        struct ExpertList *experts) {
    return method_make_with(method, dev, c, 0, m, experts);
}

// Gradients of one batch, all parameters in one array; *losses: loss and balance loss. experts NULL: all.
static float *chosen_gradients(struct Model *m, const struct Corpus *c, uint32_t micro_tokens, bool recompute,
                               const struct ExpertList *experts, uint64_t *n, double losses[2]) {
    struct Step s;
    struct StepOptions o = options(micro_tokens, recompute);
    o.optimiser.experts = experts && experts->n_layers ? experts : NULL;
    struct PackPlan plan;
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = micro_tokens, .round = 8};
    CHECK(pack_plan(&plan, c->list, c->n, &po), "pack: %s", fail_last());
    uint64_t documents = 0;
    for (size_t i = 0; i < plan.n; i++)
        documents += plan.micro[i].n_documents;
    o.weighted = c->pairs || plan.micro[0].weights;
    o.neftune_alpha = c->noise;
    bool ok = step_init(&s, m, &o, m->n_params == m->n_base);
    double logp[N_EXAMPLES] = {0}, preference = 0;
    float weight[N_EXAMPLES], reference[N_EXAMPLES];
    for (size_t i = 0; c->pairs && i < plan.n && ok; i++)
        ok = step_logprobs(&s, &plan.micro[i], true, logp);
    if (c->pairs) {
        for (uint32_t i = 0; i < c->n; i++)
            reference[i] = -30 - (float)i; // of some other model
        preference = dpo_loss(logp, reference, c->n / 2, 0.2, weight).loss;
        step_weights(&s, weight);
    }
    ok = ok && step_begin(&s, c->pairs ? c->n / 2 : c->labels > 0 ? c->labels : plan.weight);
    for (size_t i = 0; i < plan.n && ok; i++)
        ok = step_micro(&s, &plan.micro[i], documents, plan.n_tokens - plan.n_padding);
    CHECK(ok && device_wait(m->dev), "gradients: %s", fail_last());
    *n = 0;
    for (uint32_t i = 0; i < m->n_params; i++)
        *n += m->params[i].g.bytes / 4;
    float *all = xcalloc(*n + 1, sizeof *all), *at = all;
    for (uint32_t i = 0; i < m->n_params; i++) {
        tensor_download(m->dev, &m->params[i].g, 0, at, m->params[i].g.bytes);
        at += m->params[i].g.bytes / 4;
    }
    struct StepResult r;
    tensor_download(m->dev, &s.result, 0, &r, sizeof r);
    losses[0] = c->pairs ? preference : (double)r.loss, losses[1] = (double)r.balance;
    pack_free(&plan);
    step_free(&s);
    return all;
}

static double distance(const float *a, const float *b, uint64_t n) {
    double d = 0, size = 0;
    for (uint64_t i = 0; i < n; i++)
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]), size += (double)b[i] * (double)b[i];
    return sqrt(d / (size > 0 ? size : 1));
}

static float *batch_gradients(struct Model *m, const struct Corpus *c, uint32_t micro_tokens, bool recompute,
                              uint64_t *n, double losses[2]) {
    return chosen_gradients(m, c, micro_tokens, recompute, NULL, n, losses);
}

// 1 x 16 = 2 x 8 = 16 x 1 rows, balance loss included; the same twice and with recomputation bit for bit.
static void test_micro_batches(struct Device *dev, const struct Method *method) {
    bool moe = method->moe;
    struct Config config = tiny(moe);
    struct Model m;
    struct ExpertList experts;
    struct Corpus c;
    config.aux_alpha = moe ? 0.05f : 0;
    if (!method_make(method, dev, &config, &m, &experts))
        return;
    corpus_make(&c, N_EXAMPLES, 3, config.vocab_size);
    c.pairs = method->pairs;
    c.noise = method->noise;
    uint64_t n;
    double want_loss[2], loss[2];
    float *want = chosen_gradients(&m, &c, N_EXAMPLES * SEQ, false, &experts, &n, want_loss);
    double length = 0;
    for (uint64_t i = 0; i < n; i++)
        length += fabs((double)want[i]);
    CHECK(length > 0 && want_loss[0] > 0 && (!moe || want_loss[1] > 0),
          "%s: there is a gradient, a loss and a balance loss", method->name);
    static const uint32_t ROWS[] = {1, 2, 8};
    for (int i = 0; i < 3; i++) {
        float *got = chosen_gradients(&m, &c, ROWS[i] * SEQ, false, &experts, &n, loss);
        CHECK(distance(got, want, n) <= 1e-6, "%s, micro-batches of %u rows: gradients differ by %.2g", method->name,
              ROWS[i], distance(got, want, n));
        CHECK_NEAR(loss[0], want_loss[0], 0, 1e-6);
        CHECK_NEAR(loss[1], want_loss[1], 0, 1e-6);
        free(got);
    }
    for (int recompute = 0; recompute < 2; recompute++) {
        float *got = chosen_gradients(&m, &c, N_EXAMPLES * SEQ, recompute, &experts, &n, loss);
        CHECK(memcmp(got, want, n * 4) == 0, "%s, recompute %d: the gradients have other bits", method->name,
              recompute);
        CHECK(memcmp(loss, want_loss, sizeof loss) == 0, "%s, recompute %d: the loss has other bits", method->name,
              recompute);
        free(got);
    }
    free(want);
    corpus_free(&c);
    esft_free(&experts);
    model_free(&m);
}

// The balance loss over a whole micro-batch (seq_aux false) is weighted by its tokens: the same document twice, in one micro-batch or in two,
// has the balance loss and the gradient that it has once.
static void test_batch_balance(struct Device *dev) {
    struct Config config = tiny(true);
    struct Model m;
    struct Corpus c;
    config.aux_alpha = 0.05f, config.seq_aux = false;
    if (!model_make(&m, dev, &config))
        return;
    uint64_t seed = 3;
    for (corpus_make(&c, 1, seed, config.vocab_size); c.example[0].n <= SEQ / 2;) { // until no row holds it twice
        corpus_free(&c);
        corpus_make(&c, 1, ++seed, config.vocab_size);
    }
    uint64_t n;
    double want_loss[2], loss[2];
    float *want = batch_gradients(&m, &c, SEQ, false, &n, want_loss);
    CHECK(want_loss[1] > 0, "there is a balance loss");
    struct Corpus twice = {.n = 2, .list = {c.list[0], c.list[0]}};
    for (uint32_t rows = 1; rows <= 2; rows++) {
        float *got = batch_gradients(&m, &twice, rows * SEQ, false, &n, loss);
        CHECK(distance(got, want, n) <= 1e-6, "twice, %u rows a micro-batch: gradients differ by %.2g", rows,
              distance(got, want, n));
        CHECK_NEAR(loss[1], want_loss[1], 0, 1e-6);
        free(got);
    }
    free(want);
    corpus_free(&c);
    model_free(&m);
}

// Weights of labels: the loss is sum(w l) / sum(w), as torch.nn.functional.cross_entropy(reduction="none") times w would have it, and its gradient
// the same mean of the labels' own. A document of weight 2 is the document twice; weights of 1 change no bit.
static void test_weights(struct Device *dev, bool moe) {
    struct Config config = tiny(moe);
    struct Model m;
    struct Corpus c;
    config.aux_alpha = 0; // its mean is over documents, whatever their labels weigh
    if (!model_make(&m, dev, &config))
        return;
    corpus_make(&c, 4, 6, config.vocab_size);
    uint64_t n;
    double loss[2], plain_loss[2], sum = 0, weight = 0;
    float *plain = batch_gradients(&m, &c, 2 * SEQ, false, &n, plain_loss), *want = xcalloc(n, sizeof *want);
    float weights[4][SEQ], each[4] = {1, 1, 1, 1};
    for (int k = 0; k < 3; k++) {
        struct Corpus weighted = {.n = 4};
        for (uint32_t i = 0; i < 4; i++) { // all 1; document 0 twice; each label its own
            for (uint32_t t = 0; t < c.example[i].n; t++)
                weights[i][t] = c.example[i].labels[t] < 0 ? 0 : k == 2 ? 0.1f + random_uniform(7, i, t) * 3 : each[i];
            weighted.example[i] = c.example[i];
            weighted.example[i].weights = weights[i];
            weighted.list[i] = &weighted.example[i];
        }
        float *got = batch_gradients(&m, &weighted, 2 * SEQ, false, &n, loss);
        if (k == 0) {
            CHECK(memcmp(got, plain, n * sizeof *got) == 0 && loss[0] == plain_loss[0], "weights of 1 change bits");
            each[0] = 2;
        } else if (k == 1) {
            struct Corpus twice = {.n = 5, .list = {c.list[0], c.list[1], c.list[2], c.list[3], c.list[0]}};
            float *same = batch_gradients(&m, &twice, 2 * SEQ, false, &n, plain_loss);
            CHECK(distance(got, same, n) <= 1e-6, "a weight of 2, the document twice: gradients differ by %.2g",
                  distance(got, same, n));
            CHECK_NEAR(loss[0], plain_loss[0], 0, 1e-6);
            free(same);
        } else { // one label at a time, of one document after the other
            for (uint32_t i = 0; i < 4; i++)
                for (uint32_t t = 0; t < c.example[i].n; t++) {
                    struct Example e = c.example[i];
                    int32_t labels[SEQ];
                    memset(labels, 0xff, sizeof labels);
                    if ((labels[t] = e.labels[t]) < 0)
                        continue;
                    e.labels = labels, e.n_labels = 1;
                    struct Corpus one = {.n = 1, .list = {&e}};
                    float *g = batch_gradients(&m, &one, 2 * SEQ, false, &n, plain_loss);
                    for (uint64_t j = 0; j < n; j++)
                        want[j] += weights[i][t] * g[j];
                    sum += (double)weights[i][t] * plain_loss[0];
                    weight += (double)weights[i][t];
                    free(g);
                }
            for (uint64_t j = 0; j < n; j++)
                want[j] /= (float)weight;
            CHECK(distance(got, want, n) <= 2e-6, "weighted labels and the mean of their own gradients differ by %.2g",
                  distance(got, want, n));
            CHECK_NEAR(loss[0], sum, 0, 1e-6);
        }
        free(got);
    }
    free(plain), free(want);
    corpus_free(&c);
    model_free(&m);
}

// Three documents; document i uses the ids 30 i .. 30 i + 29 alone. The longest has 16 tokens, so that the one behind it in a row begins where the
// groups do in which matrix units add up: 16-bit operands made of sums that differ in the last bit soon differ everywhere.
static void corpus_own_ids(struct Corpus *c) {
    corpus_make(c, 3, 33, 30);
    CHECK(c->example[0].n == 16 && c->example[2].n == 15 && c->example[1].n == 11, "documents of other lengths");
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t t = 0; t < c->example[i].n; t++) {
            c->example[i].ids[t] += 30 * i;
            if (c->example[i].labels[t] >= 0)
                c->example[i].labels[t] += (int32_t)(30 * i);
        }
}

// A packed row has the gradients of its documents apart.
static void test_packing(struct Device *dev, const struct Method *method) {
    struct Config config = tiny(method->moe);
    struct Model m;
    struct ExpertList experts;
    struct Corpus c, one;
    config.tied_head = false;
    config.aux_alpha = 0;
    if (!method_make(method, dev, &config, &m, &experts))
        return;
    corpus_own_ids(&c);
    uint64_t n;
    double loss[2], sum = 0, whole;
    float *together = chosen_gradients(&m, &c, 2 * SEQ, false, &experts, &n, loss), *apart = xcalloc(n, sizeof *apart);
    whole = loss[0];
    uint32_t labels = 0;
    for (uint32_t i = 0; i < 3; i++)
        labels += c.example[i].n_labels;
    for (uint32_t i = 0; i < 3; i++) {
        // Divided by the labels of all: gradients a factor apart would be rounded otherwise where matrix units take 16 bits.
        one = (struct Corpus){.n = 1, .list = {c.list[i]}, .labels = labels};
        float *g = chosen_gradients(&m, &one, 2 * SEQ, false, &experts, &n, loss);
        for (uint64_t k = 0; k < n; k++)
            apart[k] += g[k];
        sum += loss[0];
        free(g);
    }
    CHECK(distance(together, apart, n) <= 1e-6, "%s: packed and separate gradients differ by %.2g", method->name,
          distance(together, apart, n));
    CHECK_NEAR(whole, sum, 0, 1e-6);
    free(together), free(apart);
    corpus_free(&c);
    esft_free(&experts);
    model_free(&m);
}

// A document's labels give no gradient to another's tokens: labels in document 2 alone leave the embeddings of the others a gradient of zero.
static void test_leak(struct Device *dev) {
    struct Config config = tiny(true);
    struct Model m;
    struct Corpus c;
    config.tied_head = false;
    config.aux_alpha = 0;
    if (!model_make(&m, dev, &config))
        return;
    corpus_own_ids(&c);
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t t = 0; t < c.example[i].n; t++)
            c.example[i].labels[t] = -1;
        c.example[i].n_labels = 0;
    }
    uint64_t n, at = 0;
    double loss[2], leaked = 0, own = 0;
    float *g = batch_gradients(&m, &c, 2 * SEQ, false, &n, loss);
    for (uint32_t i = 0; i < m.n_params; i++) {
        if (&m.params[i] == m.embed)
            for (uint32_t k = 0; k < 90 * config.dim; k++)
                *(k < 60 * config.dim ? &leaked : &own) += fabs((double)g[at + k]);
        at += tensor_elements(&m.params[i].w);
    }
    CHECK(leaked == 0 && own > 0, "gradient across documents: %g (own %g)", leaked, own);
    free(g);
    corpus_free(&c);
    model_free(&m);
}

// One step: what is trained changes, expert by expert, and nothing else changes a bit; gradients and moments are of what is trained alone.
static void test_frozen(struct Device *dev, const struct Method *method) {
    struct Config config = tiny(method->moe);
    struct Model m;
    struct ExpertList experts;
    struct Corpus c;
    struct Step s;
    struct PackPlan plan;
    struct StepResult r = {0};
    struct StepOptions o = options(8 * SEQ, true);
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 8 * SEQ, .round = 8};
    if (!method_make(method, dev, &config, &m, &experts))
        return;
    corpus_make(&c, 8, 4, config.vocab_size);
    o.optimiser.experts = method->chosen ? &experts : NULL;
    o.optimiser.moments8 = method->moments8;
    uint64_t(*before)[64] = xcalloc(m.n_params, sizeof *before), trained = 0;
    uint32_t wrong = 0, changed = 0, kept = 0;
    bool ok = pack_plan(&plan, c.list, c.n, &po) && step_init(&s, &m, &o, !method->lora);
    for (int after = 0; after < 2 && ok; after++) {
        for (uint32_t i = 0; i < m.n_params; i++) {
            const struct Param *p = &m.params[i];
            uint32_t parts = p->spec.role == ROLE_EXPERTS ? p->spec.dim[0] : 1;
            uint64_t bytes = p->w.bytes / parts;
            uint8_t *w = xmalloc(bytes);
            for (uint32_t e = 0, slot = 0; e < parts; e++) {
                bool own = tensor_exists(&p->g) && (!p->n_chosen || (slot < p->n_chosen && p->chosen[slot] == e));
                slot += own;
                tensor_download(dev, &p->w, e * bytes, w, bytes);
                uint64_t hash = hash_bytes(w, bytes, 0);
                if (!after) {
                    before[i][e] = hash;
                    trained += own ? tensor_elements(&p->w) / parts : 0;
                } else {
                    wrong += (hash != before[i][e]) != own;
                    *(own ? &changed : &kept) += 1;
                }
            }
            free(w);
        }
        if (!after)
            ok = step_begin(&s, plan.n_labels) &&
                 step_micro(&s, &plan.micro[0], plan.micro[0].n_documents, plan.n_tokens - plan.n_padding) &&
                 step_update(&s, 1, 1e-2f, &r) && r.finite;
    }
    bool whole = !method->lora && !method->chosen;
    CHECK(ok, "%s: a step: %s", method->name, fail_last());
    CHECK(wrong == 0 && changed > 0 && (kept > 0) != whole,
          "%s: %u tensors or experts are not as they should be after a step; %u trained, %u frozen", method->name,
          wrong, changed, kept);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m.n_params; i++)
        bytes += m.params[i].g.bytes + m.params[i].m1.bytes + m.params[i].m2.bytes;
    // 4 bytes for the gradient and 8, or 2 * 17/16 and what is left of a norm's last block, for the moments.
    bool fits = method->moments8 ? bytes >= 4 * trained + trained * 17 / 8 && bytes < 4 * trained + trained * 18 / 8
                                 : bytes == 12 * trained;
    CHECK(fits, "%s: gradients and moments of %llu bytes for %llu trained parameters", method->name,
          (unsigned long long)bytes, (unsigned long long)trained);
    free(before);
    step_free(&s);
    pack_free(&plan);
    corpus_free(&c);
    esft_free(&experts);
    model_free(&m);
}

// What three steps leave behind, all bits: weights and moments of what is trained, and what the steps told.
static uint64_t steps_bits(struct Step *s, const struct Corpus *c, const struct PackPlan *plan) {
    const struct Model *m = s->m;
    uint64_t hash = 0;
    bool ok = true;
    for (uint32_t step = 1; step <= 3 && ok; step++) {
        struct StepResult r = {0};
        ok = step_begin(s, plan->n_labels);
        for (size_t i = 0; i < plan->n && ok; i++)
            ok = step_micro(s, &plan->micro[i], c->n, plan->n_tokens - plan->n_padding);
        ok = ok && step_update(s, step, 1e-3f, &r) && r.finite;
        hash = hash_bytes(&r, sizeof r, hash);
        for (size_t i = 0; s->loads && i < (size_t)m->config.n_layers * m->config.n_experts; i++)
            hash = hash_bytes(&s->loads[i], sizeof s->loads[i], hash);
    }
    for (uint32_t i = 0; i < m->n_params && ok; i++) {
        const struct Tensor *part[] = {&m->params[i].w, &m->params[i].m1, &m->params[i].m2};
        for (int k = 0; k < 3 && tensor_exists(&m->params[i].g) && ok; k++) {
            uint8_t *bytes = xmalloc(part[k]->bytes);
            ok = tensor_download(m->dev, part[k], 0, bytes, part[k]->bytes);
            hash = hash_bytes(bytes, part[k]->bytes, hash);
            free(bytes);
        }
    }
    CHECK(ok, "three steps: %s", fail_last());
    return hash;
}

static uint64_t trained_bits(struct Model *m, struct Corpus *c, const struct StepOptions *o, bool train_base) {
    struct Step s;
    struct PackPlan plan;
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = o->micro_tokens, .round = 8};
    uint64_t hash = 0;
    if (CHECK(pack_plan(&plan, c->list, c->n, &po) && step_init(&s, m, o, train_base), "%s", fail_last()))
        hash = steps_bits(&s, c, &plan);
    pack_free(&plan);
    step_free(&s);
    return hash;
}

static void forget_peaks(struct Model *m) {
    for (uint32_t i = 0; i < m->n_params; i++)
        m->params[i].peak = (struct Tensor){0};
}

// What a run is counts to its last letter; of a manifest from before that was so, as far as it goes.
static void check_long_facts(const char *dir, struct Model *m, struct CheckpointState *state) {
    struct RunIdentity id = {0}, other = {0};
    struct Sha256 sha;
    char sum[65];
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool found;
    identity_add(&id, "fact", "%0120d", 1);
    identity_add(&other, "fact", "%0120d", 2);
    CHECK(checkpoint_save(dir, m, &id, state, 1, 0) && checkpoint_load(dir, m, &id, 0, state, &found), "%s",
          fail_last());
    fail_quiet(true);
    CHECK(!checkpoint_load(dir, m, &other, 0, state, &found), "another long fact is taken for the same");
    fail_quiet(false);
    char *folder = path_join(dir, "checkpoint-1"), *manifest = path_join(folder, "manifest.json"),
         *check = path_join(folder, "manifest.sha256");
    if (CHECK(file_read(manifest, 1 << 20, &data, &bytes), "%s", fail_last())) {
        json_t *root = json_loadb((const char *)data, bytes, 0, NULL);
        json_object_del(root, "whole_facts");
        char *cut = xsprintf("%.95s", id.facts[0].value);
        json_object_set_new(json_object_get(root, "run"), "fact", json_string(cut));
        free(cut);
        char *text = json_dumps(root, 0);
        sha256_begin(&sha);
        sha256_add(&sha, text, strlen(text));
        sha256_end(&sha, sum);
        CHECK(file_write_atomic(manifest, text, strlen(text)) && file_write_atomic(check, sum, 64) &&
                  checkpoint_load(dir, m, &id, 0, state, &found) && found,
              "a run that was begun before does not go on: %s", fail_last());
        free(text);
        json_decref(root);
    }
    free(data), free(folder), free(manifest), free(check);
}

// Products in f16 alone: that weights' peaks are kept, found again by who writes them, changes no bit of a run; a checkpoint brings back the weights' own.
static void test_peaks(struct Device *dev) {
    static const struct Mode {
        struct Method method;
        bool in_backward;
        uint32_t host_layers; // through the slots of staging
        bool looks;           // for some peaks all the same, as what counts as a card does in the backward
    } MODES[] = {{{"full", true, false, DT_BF16, false, false, false, 0}, false, 0, false},
                 {{"esft", true, false, DT_BF16, true, false, false, 0}, false, 0, false},
                 {{"update in backward", true, false, DT_BF16, false, false, false, 0}, true, 0, true},
                 {{"weights staged", true, false, DT_BF16, false, false, false, 0}, false, 2, true},
                 {{"qlora", true, true, DT_Q4_0, false, false, false, 0}, false, 0, true}}; // the adapter's
    char dir[] = "test-peaks-XXXXXX";
    const int body = card_scaled(dev);
    if (body < 0) {
        check_skip("peaks of weights: no products in f16");
        return;
    }
    dev->force_kernel = body;
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES && CHECK(mkdtemp(dir), "no temporary folder"); i++) {
        const struct Mode *mode = &MODES[i];
        struct Config config = tiny(true);
        struct Corpus c;
        uint64_t bits[2];
        corpus_make(&c, N_EXAMPLES, 3, config.vocab_size);
        for (int keep = 0; keep < 2; keep++) {
            struct Model m;
            struct Step s;
            struct PackPlan plan;
            struct ExpertList experts;
            struct StepOptions o = options(N_EXAMPLES * SEQ, true);
            struct PackOptions po = {.seq_len = SEQ, .micro_tokens = o.micro_tokens, .round = 8};
            struct RunIdentity id = {0};
            struct CheckpointState state = {.step = 1};
            bool found = false;
            if (!method_make_with(&mode->method, dev, &config, mode->host_layers, &m, &experts))
                break;
            o.optimiser.in_backward = mode->in_backward;
            o.optimiser.offload = mode->host_layers ? OFFLOAD_WEIGHTS : 0;
            o.optimiser.experts = mode->method.chosen ? &experts : NULL;
            device_switch(dev, CAP_host_visible, !mode->host_layers);
            bool ok = pack_plan(&plan, c.list, c.n, &po) && step_init(&s, &m, &o, !mode->method.lora);
            CHECK(ok && tensor_exists(&m.head->peak), "%s: %s", mode->method.name, fail_last());
            if (!keep)
                forget_peaks(&m);
            bits[keep] = ok ? steps_bits(&s, &c, &plan) : 0;
            const struct Program *p = ok ? step_program(&s, &plan.micro[0]) : NULL;
            CHECK(p && program_uses(p, (enum KernelId)body) &&
                      program_uses(p, KERNEL_peaks) == (!keep || mode->looks || !dev->is_cpu),
                  "%s: peaks are looked for, or not, against what was asked", mode->method.name);
            CHECK(stale_peaks(&m) == 0, "%s: stale peaks after steps", mode->method.name);
            ok = ok && checkpoint_save(dir, &m, &id, &state, 1, 0) && steps_bits(&s, &c, &plan) &&
                 stale_peaks(&m) == 0 && checkpoint_load(dir, &m, &id, 0, &state, &found);
            CHECK(ok && found && stale_peaks(&m) == 0, "%s: stale peaks behind a checkpoint: %s", mode->method.name,
                  fail_last());
            if (ok && i == 0 && keep)
                check_long_facts(dir, &m, &state);
            device_switch(dev, CAP_host_visible, true);
            pack_free(&plan);
            step_free(&s);
            esft_free(&experts);
            model_free(&m);
        }
        CHECK(bits[0] == bits[1], "%s: with peaks that are kept it learns something else", mode->method.name);
        corpus_free(&c);
        char *remove = xsprintf("rm -rf '%s'", dir);
        CHECK(system(remove) == 0, "%s", remove);
        free(remove);
        memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    }
    dev->force_kernel = -1;
}

// Where moments and weights lie, and when a parameter is updated, changes no bit of a run, whether the device works on host memory as it is
// or through the ring of staging.
static void test_offload(struct Device *dev, const struct Method *method, enum DType type, const char *dir) {
    static const struct Mode {
        const char *name;
        bool in_backward, staged;
        uint32_t offload;
    } MODES[] = {{"plain", false, false, 0},
                 {"in backward", true, false, 0},
                 {"moments on the host", false, false, OFFLOAD_MOMENTS},
                 {"moments staged", false, true, OFFLOAD_MOMENTS},
                 {"weights staged", false, true, OFFLOAD_WEIGHTS},
                 {"all of it", true, true, OFFLOAD_MOMENTS | OFFLOAD_WEIGHTS}};
    struct Config config = tiny(method->moe);
    struct Model source;
    struct ExpertList experts;
    struct Corpus c;
    config.n_layers = 3; // one more than there are slots
    if (!method_make(method, dev, &config, &source, &experts))
        return;
    char *folder = path_join(dir, method->moe ? "moe" : "dense");
    struct WeightSource weights = model_source(&source);
    bool written = dir_exists(folder) || modelwrite_hf(folder, &config, DT_F32, &weights, NULL, 0);
    model_free(&source);
    corpus_make(&c, N_EXAMPLES, 3, config.vocab_size);
    for (int clip = 0; clip < 2; clip++) {
        uint64_t want = 0;
        for (size_t i = 0; i < sizeof MODES / sizeof MODES[0] && written; i++) {
            const struct Mode *mode = &MODES[i];
            if (!clip && mode->offload && !mode->in_backward) // clipping is the update's own
                continue;
            struct Model m;
            struct ModelFile f;
            struct StepOptions o = options(N_EXAMPLES * SEQ, i % 2 == 0);
            struct LoraOptions lora = {.rank = 4, .alpha = 8, .targets = LORA_ALL};
            struct ModelOptions mo = {.type = type,
                                      .host_layers = mode->offload & OFFLOAD_WEIGHTS ? config.n_layers : 0};
            o.neftune_alpha = method->noise;
            o.optimiser = (struct OptimiserOptions){.weight_decay = 0.1f,
                                                    .clip_norm = clip ? 0.01f : 0,
                                                    .moments8 = method->moments8,
                                                    .in_backward = mode->in_backward,
                                                    .offload = mode->offload,
                                                    .stage_elements = 4096,
                                                    .experts = method->chosen ? &experts : NULL};
            if (mode->staged)
                device_switch(dev, CAP_host_visible, false);
            bool ok = modelfile_open(&f, folder);
            if (CHECK(ok && model_load(&m, dev, &f, &mo) && (!method->lora || model_add_lora(&m, &lora, 3)), "%s",
                      fail_last())) {
                uint64_t got = trained_bits(&m, &c, &o, !method->lora);
                CHECK(i == 0 || got == want, "%s in %s, clip %g, %s: other bits than plain", method->name,
                      DTYPES[type].name, (double)o.optimiser.clip_norm, mode->name);
                want = i == 0 ? got : want;
                model_free(&m);
            }
            if (ok)
                modelfile_close(&f);
            device_switch(dev, CAP_host_visible, true);
        }
    }
    free(folder);
    corpus_free(&c);
    esft_free(&experts);
}

static void test_offloads(struct Device *dev) {
    char dir[] = "test-offload-XXXXXX";
    if (!CHECK(mkdtemp(dir), "no temporary folder"))
        return;
    for (uint32_t i = 0; i < N_METHODS; i++)
        if (METHODS[i].moe && !METHODS[i].pairs && METHODS[i].base == DT_F32 &&
            (METHODS[i].chosen != METHODS[i].moments8))
            test_offload(dev, &METHODS[i], METHODS[i].lora ? DT_F32 : DT_BF16, dir);
    test_offload(dev, &METHODS[1], DT_F32, dir);
    for (uint32_t i = 0; i < N_METHODS; i++)
        if (METHODS[i].noise > 0 && !METHODS[i].pairs)
            test_offload(dev, &METHODS[i], DT_F32, dir);
    char *remove = xsprintf("rm -rf '%s'", dir);
    CHECK(system(remove) == 0, "%s", remove);
    free(remove);
}

// A run of full rows takes what the device that only counts has said, whatever is trained and wherever it lies.
static void test_plan(struct Device *dev, const struct Method *method, bool in_backward, bool recompute) {
    struct Config config = tiny(method->moe);
    struct Model m;
    struct Step s = {0};
    struct ExpertList experts;
    struct Corpus c;
    struct PackPlan plan;
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 8 * SEQ, .round = 8};
    struct StepOptions o = options(8 * SEQ, recompute);
    struct LoraOptions lora = {.rank = 4, .alpha = 8, .targets = LORA_ALL};
    struct Device dry;
    struct StepResult r;
    corpus_make(&c, 8, 4, config.vocab_size);
    for (uint32_t i = 0; i < c.n; i++) {
        struct Example *e = &c.example[i];
        e->ids = xrealloc(e->ids, SEQ * sizeof *e->ids);
        e->labels = xrealloc(e->labels, SEQ * sizeof *e->labels);
        e->n = e->n_labels = SEQ;
        for (uint32_t t = 0; t < SEQ; t++)
            e->ids[t] = t, e->labels[t] = (int32_t)t;
    }
    o.optimiser.moments8 = method->moments8;
    o.optimiser.in_backward = in_backward;
    o.weighted = method->pairs;
    o.neftune_alpha = method->noise;
    dev->peak_bytes = dev->allocated_bytes; // what other tests left is nobody's
    uint64_t before = dev->allocated_bytes, host_before = dev->host_bytes;
    if (!method_make(method, dev, &config, &m, &experts))
        return;
    o.optimiser.experts = method->chosen ? &experts : NULL;
    bool ok = CHECK(pack_plan(&plan, c.list, c.n, &po) && plan.n == 1, "%s", fail_last()) &&
              step_init(&s, &m, &o, !method->lora) && step_begin(&s, plan.n_labels) &&
              step_micro(&s, &plan.micro[0], 8, plan.n_tokens) && step_update(&s, 1, 1e-3f, &r);
    uint64_t got = dev->peak_bytes - before, got_host = dev->host_bytes - host_before;
    uint64_t got_scratch = s.scratch.peak_bytes;
    CHECK(ok && r.finite, "%s: %s", method->name, fail_last());
    step_free(&s);
    model_free(&m);
    device_open_dry(&dry, dev);
    ok = model_init(&m, &dry, &config, method->base, 0) && (!method->lora || model_add_lora(&m, &lora, 3)) &&
         step_init(&s, &m, &o, !method->lora);
    uint64_t want_scratch = s.scratch.peak_bytes;
    CHECK(ok && got <= dry.peak_bytes && (double)dry.peak_bytes <= 1.02 * (double)got,
          "%s: %llu bytes were planned, %llu taken", method->name, (unsigned long long)dry.peak_bytes,
          (unsigned long long)got);
    // Blocks hide what is in them: the activations themselves, but for the groups of a balance loss, which may be many small documents.
    CHECK(got_scratch <= want_scratch && (double)want_scratch <= 1.02 * (double)got_scratch + (1 << 15),
          "%s: activations of %llu bytes were planned, %llu were", method->name, (unsigned long long)want_scratch,
          (unsigned long long)got_scratch);
    CHECK(got_host == dry.host_bytes, "%s: %llu bytes of host memory planned, %llu taken", method->name,
          (unsigned long long)dry.host_bytes, (unsigned long long)got_host);
    step_free(&s);
    model_free(&m);
    pack_free(&plan);
    corpus_free(&c);
    esft_free(&experts);
}

static float *logits_of(struct Model *m, const uint32_t *id, uint32_t t) {
    struct Arena arena, host;
    arena_init(&arena, m->dev, "activations", ARENA_DEVICE);
    arena_init(&host, m->dev, "batch", ARENA_HOST);
    struct Tensor ids = TENSOR(&host, DT_U32, t), positions = TENSOR(&host, DT_U32, t),
                  span = TENSOR(&host, DT_U32, t, 2);
    uint32_t *position = tensor_host(m->dev, &positions), *s = tensor_host(m->dev, &span);
    memcpy(tensor_host(m->dev, &ids), id, 4 * (size_t)t);
    for (uint32_t i = 0; i < t; i++)
        position[i] = i, s[2 * i] = 0, s[2 * i + 1] = i + 1;
    struct Tensor x = TENSOR(&arena, DT_F32, t, m->config.dim),
                  logits = TENSOR(&arena, DT_F32, t, m->config.vocab_size);
    struct Cmd *c = cmd_begin(m->dev, "logits");
    struct Pass p = {.c = c, .arena = &arena, .m = m, .t = t, .positions = positions, .span = span};
    struct Linear head = {.w = m->head};
    op_embed(c, &ids, &m->embed->w, &x);
    for (uint32_t l = 0; l < m->config.n_layers; l++)
        block_forward(&p, l, &x, &x, NULL);
    op_rmsnorm(c, &x, &m->norm->w, &x, NULL, m->config.norm_eps);
    linear_forward(&p, &head, &x, &logits);
    struct Program *program = cmd_end(c);
    float *v = xcalloc(logits.bytes, 1);
    CHECK(program && program_run(program) && tensor_download(m->dev, &logits, 0, v, logits.bytes), "logits: %s",
          fail_last());
    program_free(program);
    arena_free(&arena);
    arena_free(&host);
    return v;
}

// An adapter with B = 0 changes no bit of the logits; after one step every B has moved and the base has not.
static void test_lora_start(struct Device *dev) {
    struct Config config = tiny(true);
    struct Model m;
    struct Corpus c;
    struct LoraOptions lora = {.rank = 4, .alpha = 8, .targets = LORA_ALL};
    if (!model_make(&m, dev, &config))
        return;
    corpus_make(&c, 8, 4, config.vocab_size);
    uint32_t t = c.example[0].n;
    float *before = logits_of(&m, c.example[0].ids, t);
    CHECK(model_add_lora(&m, &lora, 3), "%s", fail_last());
    float *after = logits_of(&m, c.example[0].ids, t);
    CHECK(memcmp(before, after, (size_t)t * config.vocab_size * 4) == 0, "an adapter with B = 0 changes the logits");
    uint64_t base_hash[2];
    for (int round = 0; round < 2; round++) {
        base_hash[round] = 0;
        for (uint32_t i = 0; i < m.n_base; i++) {
            uint8_t *w = xmalloc(m.params[i].w.bytes);
            tensor_download(dev, &m.params[i].w, 0, w, m.params[i].w.bytes);
            base_hash[round] = hash_bytes(w, m.params[i].w.bytes, base_hash[round]);
            free(w);
        }
        if (round)
            break;
        struct Step s;
        struct StepOptions o = options(8 * SEQ, true);
        struct PackPlan plan;
        struct StepResult r;
        struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 8 * SEQ, .round = 8};
        bool ok = pack_plan(&plan, c.list, c.n, &po) && step_init(&s, &m, &o, false) && step_begin(&s, plan.n_labels) &&
                  step_micro(&s, &plan.micro[0], plan.micro[0].n_documents, plan.n_tokens - plan.n_padding) &&
                  step_update(&s, 1, 1e-3f, &r);
        CHECK(ok && r.finite, "a step: %s", fail_last());
        for (uint32_t i = m.n_base; i < m.n_params; i++) {
            struct Param *p = &m.params[i];
            float *w = xmalloc(p->w.bytes);
            double size = 0, padding = 0;
            tensor_download(dev, &p->w, 0, w, p->w.bytes);
            uint32_t d = p->w.n_dims - 2, rows = p->w.dim[d], cols = p->w.dim[d + 1];
            for (uint64_t k = 0; k < tensor_elements(&p->w); k++) {
                bool inside = k % cols < p->spec.dim[d + 1] && k / cols % rows < p->spec.dim[d];
                *(inside ? &size : &padding) += fabs((double)w[k]);
            }
            CHECK(size > 0, "%s is zero after a step", p->spec.name);
            CHECK(padding == 0, "%s: the padding of the rank is no longer zero", p->spec.name);
            free(w);
        }
        step_free(&s);
        pack_free(&plan);
    }
    CHECK(base_hash[0] == base_hash[1], "LoRA changed the base weights");
    free(before), free(after);
    corpus_free(&c);
    model_free(&m);
}

// One token passes n_active experts: the others must have a gradient of exactly zero, and the router one that is not.
static void test_idle_experts(struct Device *dev) {
    struct Config config = tiny(true);
    struct Model m;
    struct Corpus c;
    config.aux_alpha = 0;
    if (!model_make(&m, dev, &config))
        return;
    corpus_make(&c, 1, 6, config.vocab_size);
    c.example[0].n = 2, c.example[0].labels[0] = 7, c.example[0].labels[1] = -1, c.example[0].n_labels = 1;
    uint64_t n, at = 0;
    double loss[2];
    float *g = batch_gradients(&m, &c, SEQ, false, &n, loss);
    uint32_t idle = 0, busy = 0;
    double router = 0;
    for (uint32_t i = 0; i < m.n_params; i++) {
        const struct Param *p = &m.params[i];
        uint64_t size = tensor_elements(&p->w), each = size / p->w.dim[0];
        for (uint32_t e = 0; p->spec.role == ROLE_EXPERTS && e < p->w.dim[0]; e++) {
            bool zero = true;
            for (uint64_t k = 0; k < each; k++)
                zero = zero && g[at + e * each + k] == 0;
            *(zero ? &idle : &busy) += 1;
        }
        for (uint64_t k = 0; p->spec.role == ROLE_ROUTER && k < size; k++)
            router += fabs((double)g[at + k]);
        at += size;
    }
    CHECK(idle > 0 && busy > 0, "%u idle and %u busy expert matrices", idle, busy);
    CHECK(router > 0, "the router has a gradient without a balance loss: %g", router);
    free(g);
    corpus_free(&c);
    model_free(&m);
}

static bool model_from_source(struct Model *m, struct Device *dev, const struct Config *c,
                              const struct WeightSource *source, const char *dir) {
    struct ModelFile f;
    struct ModelOptions o = {.type = DT_COUNT};
    bool ok = modelwrite_hf(dir, c, DT_F32, source, NULL, 0) && modelfile_open(&f, dir);
    if (!ok)
        return false;
    ok = model_load(m, dev, &f, &o);
    modelfile_close(&f);
    return ok;
}

// Upcycling with all shards active is the dense model, however the neurons are grouped.
static void test_upcycle(struct Device *dev, bool calibrated) {
    struct Config config = tiny(false);
    struct Model dense, again, moe;
    char dir[] = "test-upcycle-XXXXXX"; // in the build folder, where tests run
    config.max_context = 256;
    if (!CHECK(mkdtemp(dir), "no temporary folder") || !model_make(&dense, dev, &config))
        return;
    char *dense_dir = path_join(dir, "dense"), *moe_dir = path_join(dir, "moe");
    struct WeightSource source = model_source(&dense);
    struct ModelFile f;
    struct Upcycle u = {0};
    uint32_t ids[128];
    for (uint32_t i = 0; i < 128; i++)
        ids[i] = (uint32_t)(random_uniform(2, 2, i) * (float)config.vocab_size);
    struct UpcycleOptions o = {
        .shards = 8, .shared = 2, .active = 6, .dense_layers = 1, .seed = 4, .ids = ids, .n_ids = calibrated ? 128 : 0};
    bool ok = model_from_source(&again, dev, &config, &source, dense_dir) && modelfile_open(&f, dense_dir) &&
              upcycle_plan(&u, &f, &o, dev);
    source = upcycle_source(&u);
    if (CHECK(ok && model_from_source(&moe, dev, &u.config, &source, moe_dir), "upcycle: %s", fail_last())) {
        float *a = logits_of(&dense, ids, 40), *b = logits_of(&moe, ids, 40);
        double off = distance(b, a, 40ull * config.vocab_size);
        // The router's small logits keep the weights within their spread of each other.
        CHECK(off < 2e-3, "all shards active differ from the dense model by %.2g", off);
        free(a), free(b);
        model_free(&moe);
        modelfile_close(&f);
    }
    upcycle_free(&u);
    model_free(&dense);
    model_free(&again);
    char *remove = xsprintf("rm -rf '%s'", dir);
    CHECK(system(remove) == 0, "%s", remove);
    free(remove), free(dense_dir), free(moe_dir);
}

// Forty steps on one batch: with moments in 8 bits the loss falls as it does in f32.
static void test_moments8(struct Device *dev) {
    enum { STEPS = 40 };
    struct Config config = tiny(true);
    struct Corpus c;
    struct PackPlan plan;
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 4 * SEQ, .round = 8};
    double loss[2] = {0, 0}, first = 0;
    corpus_make(&c, 4, 4, config.vocab_size);
    if (!CHECK(pack_plan(&plan, c.list, c.n, &po), "%s", fail_last()))
        return;
    for (int narrow = 0; narrow < 2; narrow++) {
        struct Model m;
        struct Step s;
        struct StepResult r = {0};
        struct StepOptions o = options(4 * SEQ, false);
        o.optimiser.moments8 = narrow;
        bool ok = model_make(&m, dev, &config) && step_init(&s, &m, &o, true);
        for (uint32_t step = 1; step <= STEPS && ok; step++) {
            ok = step_begin(&s, plan.n_labels) && step_micro(&s, &plan.micro[0], 4, plan.n_tokens - plan.n_padding) &&
                 step_update(&s, step, 1e-3f, &r) && r.finite;
            loss[narrow] = (double)r.loss / (double)plan.n_labels;
            first = step == 1 ? loss[narrow] : first;
        }
        CHECK(ok, "%s", fail_last());
        step_free(&s);
        model_free(&m);
    }
    CHECK(loss[0] < 0.8 * first && fabs(loss[1] - loss[0]) < 0.05 * (first - loss[0]),
          "the loss fell from %.4f to %.4f, with moments in 8 bits to %.4f", first, loss[0], loss[1]);
    printf("loss %.4f -> %.4f, moments in 8 bits: %.4f\n", first, loss[0], loss[1]);
    pack_free(&plan);
    corpus_free(&c);
}

// A weight that is not a number: the step stops with everything else untouched.
static void test_not_finite(struct Device *dev) {
    struct Config config = tiny(true);
    struct Model m;
    struct Step s;
    struct Corpus c;
    struct PackPlan plan;
    struct StepResult r = {0};
    struct StepOptions o = options(4 * SEQ, true);
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 4 * SEQ, .round = 8};
    if (!model_make(&m, dev, &config))
        return;
    corpus_make(&c, 4, 4, config.vocab_size);
    float bad[512];
    for (uint32_t i = 0; i < 512; i++)
        bad[i] = INFINITY;
    param_write(dev, m.norm, 0, 1, bad);
    uint64_t bytes = m.embed->w.bytes;
    uint8_t *before = xmalloc(bytes), *after = xmalloc(bytes);
    tensor_download(dev, &m.embed->w, 0, before, bytes);
    bool ok = pack_plan(&plan, c.list, c.n, &po) && step_init(&s, &m, &o, true) && step_begin(&s, plan.n_labels) &&
              step_micro(&s, &plan.micro[0], 4, plan.n_tokens - plan.n_padding) && step_update(&s, 1, 1e-3f, &r);
    tensor_download(dev, &m.embed->w, 0, after, bytes);
    CHECK(ok && r.finite == 0, "a loss of %g is told", (double)r.loss);
    CHECK(memcmp(before, after, bytes) == 0, "weights changed in a step with a loss of %g", (double)r.loss);
    free(before), free(after);
    step_free(&s);
    pack_free(&plan);
    corpus_free(&c);
    model_free(&m);
}

// Every barrier of forward and backward is needed, and its absence is noticed.
static void test_barriers(struct Device *dev) {
    struct Config config = tiny(true);
    struct Model m;
    struct Step s;
    struct Corpus c;
    struct PackPlan plan;
    struct StepOptions o = options(4 * SEQ, true);
    struct PackOptions po = {.seq_len = SEQ, .micro_tokens = 4 * SEQ, .round = 8};
    if (!model_make(&m, dev, &config))
        return;
    corpus_make(&c, 4, 4, config.vocab_size);
    if (CHECK(pack_plan(&plan, c.list, c.n, &po) && step_init(&s, &m, &o, true), "%s", fail_last())) {
        struct Program *programs[] = {step_program(&s, &plan.micro[0]), s.update};
        for (int i = 0; i < 2; i++) {
            uint32_t barriers = program_barriers(programs[i]), unnoticed = 0;
            CHECK(program_check(programs[i], -1) == 0, "a hazard with all barriers in place");
            for (uint32_t b = 0; b < barriers; b++)
                unnoticed += program_check(programs[i], (int)b) == 0;
            CHECK(barriers > 1 && unnoticed == 0, "%u of %u removed barriers went unnoticed", unnoticed, barriers);
            printf("%u dispatches, %u barriers, each removed in turn and noticed\n", program_dispatches(programs[i]),
                   barriers);
        }
        step_free(&s);
        pack_free(&plan);
    }
    corpus_free(&c);
    model_free(&m);
}

int main(void) {
    struct Device dev;
    if (!card_open(&dev))
        return 1;
    for (uint32_t i = 0; i < N_METHODS; i++) {
        test_micro_batches(&dev, &METHODS[i]);
        if (!METHODS[i].pairs &&
            METHODS[i].noise == 0) // an answer alone is no pair, and has the noise of a first example
            test_packing(&dev, &METHODS[i]);
        if (!METHODS[i].pairs) {
            test_frozen(&dev, &METHODS[i]);
        }
    }
    for (uint32_t i = 0; i < N_METHODS; i++)
        test_plan(&dev, &METHODS[i], i % 2, i % 3 != 0);
    test_offloads(&dev);
    test_peaks(&dev);
    test_batch_balance(&dev);
    test_weights(&dev, false);
    test_weights(&dev, true);
    test_leak(&dev);
    test_lora_start(&dev);
    test_idle_experts(&dev);
    test_upcycle(&dev, false);
    test_upcycle(&dev, true);
    test_moments8(&dev);
    test_not_finite(&dev);
    test_barriers(&dev);
    device_close(&dev);
    return check_done();
}
