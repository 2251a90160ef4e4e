// The run. A step draws its examples from the cursor, packs them, and hands micro-batches to step.c; the loss is that of the whole
// batch, however it is cut. State on disk changes only through checkpoint.c. Longer than other files because all of it, from the folder's lock
// to the result, works on one struct Train, whose parts nobody else needs to see.
#include "train/run.h"
#include "model/adapter.h"
#include "model/utf8.h"
#include "train/report.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

const char *const TRAIN_METHODS[] = {"full", "lora", "qlora", "esft"};
const char *const TRAIN_SCHEDULES[] = {"constant", "cosine", "linear"};
static const char EXPERTS_FILE[] = "expert_cfg.json", BEST_FOLDER[] = "best";

// ---- Plan

static uint32_t micro_tokens(const struct TrainOptions *o) { return o->seq_len * o->micro_rows; }

static struct StepOptions step_options(const struct TrainOptions *o) {
    return (struct StepOptions){.micro_tokens = micro_tokens(o),
                                .recompute = o->recompute,
                                .beta1 = o->beta1,
                                .beta2 = o->beta2,
                                .eps = o->eps,
                                .optimiser = {.weight_decay = o->weight_decay,
                                              .clip_norm = o->clip_norm,
                                              .freeze_router = o->freeze_router,
                                              .moments8 = o->moments8,
                                              .in_backward = o->in_backward,
                                              .offload = o->offload},
                                .weighted = o->loss == LOSS_DPO,
                                .neftune_alpha = o->neftune_alpha,
                                .seed = o->seed};
}

static bool chooses_experts(const struct TrainOptions *o) {
    return o->method == TRAIN_ESFT || o->adapted ||
           (train_adapts(o->method) && o->lora_experts_share < 1 && (o->lora.targets & LORA_EXPERTS));
}

static void choose_experts(struct ExpertList *l, const struct Config *c, const struct TrainOptions *o,
                           const double *scores) {
    if (o->method == TRAIN_ESFT)
        esft_choose(l, c, scores, o->expert_threshold);
    else if (o->adapted)
        esft_choose_marked(l, c, o->adapted);
    else
        esft_choose_share(l, c, scores, o->lora_experts_share);
}

static bool check_experts(const struct Config *c, const struct TrainOptions *o) {
    if (o->method == TRAIN_ESFT && config_moe_layers(c) == 0)
        return fail("--method esft trains routed experts, and this model has none");
    if (train_adapts(o->method) && o->lora_experts_share < 1 &&
        (config_moe_layers(c) == 0 || !(o->lora.targets & LORA_EXPERTS)))
        return fail("--lora-experts-share chooses among routed experts, and no adapter is asked for on any");
    return true;
}

static void plan_roles(const struct Model *m, struct TrainPlan *plan) {
    for (uint32_t i = 0; i < m->n_params; i++) {
        const struct Param *p = &m->params[i];
        struct RolePlan *r = &plan->role[p->spec.role];
        uint64_t n = 1;
        for (uint32_t d = 0; d < p->spec.n_dims; d++)
            n *= p->spec.dim[d];
        r->all += n;
        if (param_is_trained(p))
            r->decays = r->decays || p->decay, r->trained += p->n_chosen ? n / p->spec.dim[0] * p->n_chosen : n,
            r->tensors++;
    }
}

static uint64_t result_bytes(const struct Model *m, const struct TrainOptions *o, const struct TrainPlan *plan) {
    uint64_t trained = 0, all = 0;
    enum DType type = m->params[0].w.type;
    for (size_t i = 0; i < sizeof plan->role / sizeof plan->role[0]; i++)
        trained += plan->role[i].trained, all += plan->role[i].all;
    return train_adapts(o->method) ? dtype_row_bytes(DT_F32, trained)
                                   : dtype_row_bytes(type, o->experts_only ? trained : all);
}

// A quantised base is what qlora promises; one that is not would take four times the memory without a word.
static bool check_base(const struct Model *m, const struct TrainOptions *o) {
    if (o->method != TRAIN_QLORA)
        return true;
    for (uint32_t i = 0; i < m->n_base; i++)
        if (m->params[i].spec.layer != UINT32_MAX && dtype_is_quantised(m->params[i].w.type))
            return true;
    return fail(
        "--method qlora: no matrix of the model's layers is quantised; give --type (q4_k, for example), a quantised "
        "file, or --method lora");
}

// A plan counts what o->lora says, which is the given adapter's.
static bool add_adapters(struct Model *m, const struct TrainOptions *o) {
    return o->adapter && !m->dev->is_dry ? adapter_load(m, o->adapter) : model_add_lora(m, &o->lora, o->seed);
}

struct ModelOptions train_model_options(const struct TrainOptions *o, const struct Config *c, enum DType type) {
    return (struct ModelOptions){.type = type,
                                 .max_positions = (uint32_t)max_u64(1, min_u64(o->seq_len, c->max_context)),
                                 .host_layers = o->offload & OFFLOAD_WEIGHTS ? c->n_layers : 0};
}

bool train_adapter(struct TrainOptions *o, const struct ModelFile *f) {
    const struct Config *c = &f->config;
    size_t n = (size_t)c->n_layers * c->n_experts;
    uint8_t *marked = xcalloc(n + 1, 1);
    struct Device dry;
    struct Model m;
    device_open_dry(&dry, NULL);
    struct ModelOptions mo = train_model_options(o, c, f->n_tensors ? DT_COUNT : DT_F32);
    bool ok = (f->n_tensors ? model_load(&m, &dry, f, &mo) : model_init_with(&m, &dry, c, &mo)) &&
              adapter_describe(&m, o->adapter, &o->lora, marked);
    model_free(&m);
    bool in_part = false;
    for (uint32_t layer = 0; layer < c->n_layers && (o->lora.targets & LORA_EXPERTS); layer++)
        in_part =
            in_part || (config_is_moe(c, layer) && memchr(marked + (size_t)layer * c->n_experts, 0, c->n_experts));
    o->adapted = ok && in_part ? marked : NULL;
    if (!o->adapted)
        free(marked);
    return ok;
}

uint32_t train_most_rows(const struct Config *c, const struct TrainOptions *o, const struct Device *like) {
    struct Device dry;
    device_open_dry(&dry, like);
    uint32_t tokens = step_most_tokens(c, train_adapts(o->method) ? o->lora.rank : 0, &dry);
    uint32_t rows = tokens / o->seq_len;
    while (rows && pack_computed(rows * o->seq_len) > tokens)
        rows--;
    return rows;
}

static bool check_micro_batch(const struct Config *c, const struct TrainOptions *o, const struct Device *like) {
    uint32_t most = train_most_rows(c, o, like);
    if (most == 0)
        return fail("--context %u: one row is more tokens than a step of this model can take at once on this device",
                    o->seq_len);
    return o->micro_rows <= most ||
           fail("--micro-batch %u: a step of this model can take at most %u rows of %u tokens at once on this device",
                o->micro_rows, most, o->seq_len);
}

bool train_plan(const struct ModelFile *f, enum DType type, const struct TrainOptions *o, const struct Device *like,
                struct TrainPlan *plan) {
    struct Device dry;
    struct Model m;
    struct Step s = {0};
    struct ExpertList experts = {0};
    struct StepOptions so = step_options(o);
    memset(plan, 0, sizeof *plan);
    if (!check_experts(&f->config, o) || !check_micro_batch(&f->config, o, like))
        return false;
    if (chooses_experts(o)) {
        if (!o->expert_config) // which ones is known after a look at the data; how many at most, before
            choose_experts(&experts, &f->config, o, NULL);
        else if (!esft_read(&experts, o->expert_config, &f->config))
            return false;
        so.optimiser.experts = &experts;
    }
    device_open_dry(&dry, like);
    struct ModelOptions mo = train_model_options(o, &f->config, type);
    bool ok = f->n_tensors ? model_load(&m, &dry, f, &mo) : model_init_with(&m, &dry, &f->config, &mo);
    if (!ok) {
        model_free(&m);
        esft_free(&experts);
        return false;
    }
    plan->host_weights = m.host.used_bytes;
    ok = check_base(&m, o) && (!train_adapts(o->method) || add_adapters(&m, o));
    plan->adapters = m.adapters.used_bytes;
    ok = ok && step_init(&s, &m, &so, !train_adapts(o->method));
    plan->weights = m.arena.used_bytes; // with the peaks of their rows
    bool out = o->offload & OFFLOAD_MOMENTS;
    plan->gradients = s.optimiser.gradients.peak_bytes + s.optimiser.passing.peak_bytes;
    *(out ? &plan->host_moments : &plan->moments) = s.optimiser.moments.peak_bytes;
    plan->staging = s.optimiser.staging.peak_bytes;
    for (uint32_t i = 0; i < WEIGHT_SLOTS; i++)
        plan->staging += s.weights_ring.slot[i].peak_bytes;
    plan->activations = s.scratch.peak_bytes;
    plan->logits = s.logits_bytes;
    plan->batch = s.host.peak_bytes;
    ok = ok && samples_plan(&o->samples, &m, &plan->samples);
    plan->total = dry.peak_bytes;
    plan->host = dry.host_bytes;
    plan->rounding = plan->total - (plan->weights + plan->adapters + plan->gradients + plan->moments +
                                    plan->activations + plan->staging + plan->samples);
    plan_roles(&m, plan);
    plan->checkpoint = ok ? checkpoint_bytes(&m) : 0;
    plan->result = result_bytes(&m, o, plan);
    step_free(&s);
    model_free(&m);
    esft_free(&experts);
    return ok;
}

// ---- Data

static uint64_t whole_steps(const struct TrainOptions *o, const struct Dataset *d) {
    uint64_t per_epoch = batcher_steps_per_epoch(d, o->batch_examples);
    return o->steps ? o->steps : (uint64_t)ceil(o->epochs * (double)per_epoch - 1e-9);
}

bool train_load_data(struct Train *t, const struct TrainOptions *o, const struct Tokenizer *tokenizer,
                     const struct Template *chat) {
    *t = (struct Train){.o = *o, .lock = -1};
    t->tokenizer = tokenizer;
    t->chat = chat;
    struct DataOptions options = o->reading;
    options.max_tokens = o->seq_len;
    options.pairs = o->loss == LOSS_DPO;
    if (!dataset_load(&t->data, o->data, o->n_data, tokenizer, chat, &options))
        return false;
    options.weights = NULL;
    if (o->validation && !dataset_load(&t->held_out, &o->validation, 1, tokenizer, chat, &options))
        return false;
    if (!o->validation && o->validation_split > 0 &&
        !dataset_split(&t->data, o->validation_split, o->seed, &t->held_out))
        return false;
    if (!samples_check(&o->samples, tokenizer))
        return false;
    if (t->data.n_labels == 0)
        return fail("%s: no labelled token in any of its %zu examples: nothing to learn", o->data[0], t->data.n);
    t->steps = whole_steps(o, &t->data);
    batcher_init(&t->batcher, &t->data, o->seed);
    return true;
}

const char *train_template(const struct Train *t) {
    return t->data.n_templated + t->held_out.n_templated ? template_name(t->chat) : NULL;
}

// ---- Begin

// Of up to 16 rows of every weight from `first` on: another model of the same architecture has others.
static bool weights_hash(const struct Model *m, uint32_t first, uint32_t end, uint64_t *hash) {
    enum { ROWS = 16 };
    bool ok = true;
    *hash = 0;
    for (uint32_t i = first; i < end && ok; i++) {
        const struct Param *p = &m->params[i];
        uint64_t rows = tensor_rows(&p->w), cols = tensor_cols(&p->w), n = min_u64(rows, ROWS);
        float *row = xmalloc(cols * sizeof *row);
        for (uint64_t r = 0; r < n && ok; r++) {
            ok = param_read(m->dev, p, r * rows / n, 1, row);
            *hash = hash_bytes(row, cols * sizeof *row, *hash);
        }
        free(row);
    }
    return ok;
}

static bool identify(struct Train *t) {
    const struct TrainOptions *o = &t->o;
    struct RunIdentity *id = &t->identity;
    uint64_t weights, adapter;
    if (!weights_hash(t->m, 0, t->m->n_base, &weights) ||
        !weights_hash(t->m, t->m->n_base, o->adapter ? t->m->n_params : t->m->n_base, &adapter))
        return false;
    *id = (struct RunIdentity){.data = &t->data, .template_name = o->template_name, .template_text = o->template_text};
    // The first that differs is told: what a flag says stands before the hashes, which depend on it.
    identity_add(id, "method", "%s", TRAIN_METHODS[o->method]);
    identity_add(id, "weight type", "%s", DTYPES[t->m->params[0].w.type].name);
    if (train_adapts(o->method))
        identity_add(id, "LoRA", "rank %u%s, alpha %g, targets %#x", o->lora.rank,
                     o->lora.rank_stabilised ? " (stabilised)" : "", (double)o->lora.alpha, o->lora.targets);
    if (o->loss == LOSS_DPO)
        identity_add(id, "loss", "dpo, beta %.9g", (double)o->dpo_beta);
    else
        identity_add(id, "loss", "%s", "");
    if (chooses_experts(o) && !o->expert_config)
        identity_add(id, "choice of experts", "score %d, threshold %.9g, share %.9g, sample %llu", o->expert_score,
                     o->expert_threshold, o->lora_experts_share, (unsigned long long)o->expert_sample);
    identity_add(id, "examples a step", "%u", o->batch_examples);
    identity_add(id, "context", "%u", o->seq_len);
    identity_add(id, MICRO_ROWS_FACT, "%u", o->micro_rows);
    identity_add(id, "seed", "%llu", (unsigned long long)o->seed);
    identity_add(id, "learning rate", "%.9g, schedule %d, %llu steps of warm-up", (double)o->learning_rate, o->schedule,
                 (unsigned long long)o->warmup_steps);
    // A schedule that ends depends on where it ends.
    if (o->schedule != SCHEDULE_CONSTANT)
        identity_add(id, "steps", "%llu", (unsigned long long)t->steps);
    identity_add(id, "optimiser", "betas %.9g %.9g, eps %.9g, decay %.9g, clip %.9g%s", (double)o->beta1,
                 (double)o->beta2, (double)o->eps, (double)o->weight_decay, (double)o->clip_norm,
                 o->moments8 ? ", 8 bits" : "");
    char noise[32] = "";
    if (o->neftune_alpha > 0)
        snprintf(noise, sizeof noise, "alpha %.9g", (double)o->neftune_alpha);
    identity_add(id, "NEFTune", "%s", noise);
    identity_add(id, "router", "%s, balance %.9g%s", o->freeze_router ? "frozen" : "trained",
                 (double)t->m->config.aux_alpha, t->m->config.seq_aux ? " by document" : "");
    char *config = config_to_json(&t->m->config, "float32");
    identity_add(id, "model", "%016llx", (unsigned long long)hash_bytes(config, strlen(config), 0));
    free(config);
    identity_add(id, "base", "%016llx", (unsigned long long)weights);
    if (o->adapter)
        identity_add(id, "adapter", "%016llx", (unsigned long long)adapter);
    identity_add(id, "tokenizer", "%016llx", (unsigned long long)(t->tokenizer ? t->tokenizer->hash : 0));
    identity_add(id, DATA_FACT, "%016llx", (unsigned long long)t->data.hash);
    if (o->loss == LOSS_DPO) // the reference is of the held-out pairs too
        identity_add(id, "held-out data", "%016llx", (unsigned long long)t->held_out.hash);
    if (chooses_experts(o))
        identity_add(id, "experts", "%016llx", (unsigned long long)esft_hash(&t->experts));
    return true;
}

static bool is_best(struct Best *best, uint64_t step, double validation_loss) {
    if (step == 0 || !isfinite(validation_loss) || best->loss <= validation_loss)
        return false;
    *best = (struct Best){validation_loss, step};
    return true;
}

static const char HELD_OUT_KEY[] = "validation_data"; // the hash of the examples that a loss is of

bool train_same_held_out(const struct Train *t, const json_t *metrics) {
    const char *was = json_string_value(json_object_get(metrics, HELD_OUT_KEY)); // runs of before it was told have none
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->held_out.hash);
    return !was || strcmp(was, hash) == 0;
}

// Metrics of steps that a resumed run will do again are cut off; the others tell which was the best. Where that one is to be the result, only steps
// count whose models are there: the run could not end else.
static bool metrics_open(struct Train *t) {
    char *path = path_join(t->o.out, "metrics.jsonl"), *copies = path_join(t->o.out, BEST_FOLDER);
    struct Best lowest = {NAN, 0};
    uint64_t other = 0; // the last step whose loss is of other held-out data
    uint8_t *text = NULL;
    uint64_t bytes = 0, keep = 0;
    if (t->state.step && file_exists(path)) {
        if (!file_read(path, UINT64_C(1) << 30, &text, &bytes)) {
            free(path), free(copies);
            return false;
        }
        while (keep < bytes) {
            uint8_t *end = memchr(text + keep, '\n', bytes - keep);
            json_t *line = end ? json_loadb((char *)text + keep, (size_t)(end - text) - keep, 0, NULL) : NULL;
            uint64_t step = (uint64_t)json_integer_value(json_object_get(line, "step"));
            bool old = line && step <= t->state.step;
            const json_t *held = json_object_get(line, "validation_loss");
            if (old && json_is_number(held) && !train_same_held_out(t, line)) {
                other = step;
            } else if (old && json_is_number(held)) {
                is_best(&lowest, step, json_number_value(held));
                if (!t->o.keep_best || checkpoint_is_whole(copies, step))
                    is_best(&t->best, step, json_number_value(held));
            }
            json_decref(line);
            if (!old)
                break;
            keep = (uint64_t)(end - text) + 1;
        }
        if (!file_write_atomic(path, text, keep)) {
            free(text);
            free(path), free(copies);
            return false;
        }
    }
    if (other && t->o.keep_best && t->held_out.n)
        warn("%s: held-out losses up to step %llu are of other examples than these: they are left out of the choice",
             path, (unsigned long long)other);
    if (lowest.step != t->best.step)
        warn("%s: the model after step %llu, whose held-out loss was the lowest, is not there: it is left out of the "
             "choice",
             copies, (unsigned long long)lowest.step);
    t->best_saved = t->best.step;
    free(text);
    free(copies);
    t->metrics = fopen(path, t->state.step ? "a" : "w");
    bool ok = t->metrics || fail("%s: %s", path, strerror(errno));
    free(path);
    return ok && events_open(&t->events, t->o.out, t->state.step + 1);
}

bool train_check_out(const struct TrainOptions *o) {
    if (file_exists(o->out) && !dir_exists(o->out))
        return fail("--out %s is a file; a folder is needed", o->out);
    if (access(o->out, R_OK | X_OK) != 0 && errno != ENOENT)
        return fail("--out %s: the folder cannot be read: %s", o->out, strerror(errno));
    bool checkpoint = checkpoint_exists(o->out);
    return (o->resume && checkpoint) || checkpoint_folder_free(o->out) ||
           fail("--out %s is in use%s; give another folder", o->out,
                checkpoint  ? " (--resume goes on from its last checkpoint)"
                : o->resume ? " and has no checkpoint to go on from"
                            : "");
}

// One run per folder: the lock goes with the process, however it ends.
static bool folder_lock(struct Train *t) {
    char *path = path_join(t->o.out, ".lock");
    bool ok = dir_make(t->o.out);
    t->lock = ok ? open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600) : -1;
    if (ok && t->lock < 0)
        ok = fail("%s: %s", path, strerror(errno));
    if (ok && flock(t->lock, LOCK_EX | LOCK_NB) != 0)
        ok = fail("--out %s is in use by another run", t->o.out);
    free(path);
    return ok;
}

static struct PackOptions pack_options(const struct TrainOptions *o) {
    return (struct PackOptions){.seq_len = o->seq_len, .micro_tokens = micro_tokens(o), .round = 32};
}

static bool pack(const struct Train *t, const struct Example *const *examples, size_t n, struct PackPlan *plan) {
    struct PackOptions options = pack_options(&t->o);
    return pack_plan(plan, examples, n, &options);
}

// Log-probabilities of n examples under the model as it is, or with the noise of training; logp: (n), by their order.
static bool measure(struct Train *t, const struct PackPlan *plan, size_t n, bool noisy, double *logp) {
    bool ok = true;
    memset(logp, 0, n * sizeof *logp);
    for (size_t i = 0; i < plan->n && ok; i++)
        ok = step_logprobs(&t->step, &plan->micro[i], noisy, logp);
    return ok;
}

// Of all examples of a set, in its order; packed a part at a time, so that a set may be large.
static bool measure_set(struct Train *t, const struct Dataset *d, double *logp) {
    enum { AT_ONCE = 256 };
    const struct Example *list[AT_ONCE];
    for (size_t first = 0; first < d->n; first += AT_ONCE) {
        size_t n = min_u64(AT_ONCE, d->n - first);
        struct PackPlan plan;
        for (size_t i = 0; i < n; i++)
            list[i] = &d->examples[first + i];
        if (!pack(t, list, n, &plan))
            return false;
        bool ok = measure(t, &plan, n, false, logp + first);
        pack_free(&plan);
        if (!ok)
            return false;
    }
    return true;
}

// The model before the first step is the reference.
static bool measure_reference(struct Train *t, const struct Dataset *d, float *reference) {
    double *logp = xcalloc(d->n + 1, sizeof *logp);
    bool ok = measure_set(t, d, logp);
    for (size_t i = 0; i < d->n && ok; i++)
        reference[i] = (float)logp[i];
    free(logp);
    return ok;
}

// Of n examples, pairs, from what measure() found; `set` is where they come from, examples NULL: all of it.
static struct DpoFigures preference(const struct Train *t, const struct Dataset *set,
                                    const struct Example *const *examples, size_t n, const double *logp,
                                    float *weight) {
    const float *of_set = t->state.reference + (set == &t->held_out ? t->data.n : 0);
    float *reference = xmalloc(n * sizeof *reference);
    for (size_t i = 0; i < n; i++)
        reference[i] = of_set[examples ? (size_t)(examples[i] - set->examples) : i];
    struct DpoFigures figures = dpo_loss(logp, reference, n / 2, (double)t->o.dpo_beta, weight);
    free(reference);
    return figures;
}

// The list in the output folder: a resumed run's is that of the checkpoint, another run's is made anew.
static bool find_experts(struct Train *t) {
    const struct TrainOptions *o = &t->o;
    const struct Config *c = &t->m->config;
    char *path = path_join(o->out, EXPERTS_FILE);
    bool known = o->resume && checkpoint_exists(o->out), ok = true;
    if (known || o->expert_config) {
        struct ExpertList asked = {0};
        ok = esft_read(&t->experts, known ? path : o->expert_config, c);
        if (ok && known && o->expert_config)
            ok = esft_read(&asked, o->expert_config, c) &&
                 (esft_hash(&asked) == esft_hash(&t->experts) ||
                  fail("%s: the run in %s trains other experts; give the same --esft-config, or another --out",
                       o->expert_config, o->out));
        esft_free(&asked);
    } else {
        double *scores = xcalloc((size_t)c->n_layers * c->n_experts, sizeof *scores);
        struct ExpertSample sample = {.examples = o->expert_sample, .seed = o->seed, .seq_len = o->seq_len};
        ok = o->adapted ||
             esft_score(t->m, &t->data, &sample, o->method == TRAIN_ESFT ? o->expert_score : EXPERT_TOKEN, scores);
        if (ok)
            choose_experts(&t->experts, c, o, scores);
        free(scores);
    }
    ok = ok && esft_write(&t->experts, path, c);
    free(path);
    return ok;
}

bool train_begin(struct Train *t, struct Model *m) {
    t->m = m;
    t->best = (struct Best){NAN, 0};
    free(t->state.reference);
    t->state = (struct CheckpointState){0};
    if (t->o.loss == LOSS_DPO) {
        t->state.n_reference = t->data.n + t->held_out.n;
        t->state.reference = xcalloc(t->state.n_reference, sizeof *t->state.reference);
    }
    struct StepOptions so = step_options(&t->o);
    so.weighted = so.weighted || t->data.labels_weighted || t->held_out.labels_weighted;
    if (m->max_positions < t->o.seq_len)
        return fail("--context %u is above the model's %u positions", t->o.seq_len, m->max_positions);
    if (!check_base(m, &t->o) || !check_experts(&m->config, &t->o) || !folder_lock(t) || !train_check_out(&t->o))
        return false;
    if (chooses_experts(&t->o)) {
        if (!find_experts(t))
            return false;
        so.optimiser.experts = &t->experts;
    }
    if (train_adapts(t->o.method) && !add_adapters(m, &t->o))
        return false;
    if (!step_init(&t->step, m, &so, !train_adapts(t->o.method)) || !identify(t))
        return false;
    snprintf(t->state.device, sizeof t->state.device, "%.120s, %.120s", m->dev->name, m->dev->driver);
    bool found = false;
    if (t->o.resume) {
        char device[256];
        memcpy(device, t->state.device, sizeof device);
        if (!checkpoint_load(t->o.out, m, &t->identity, 0, &t->state, &found))
            return false;
        if (found && strcmp(device, t->state.device) != 0)
            warn("the checkpoint is from %s, this is %s: the run goes on, but not bit for bit", t->state.device,
                 device);
        memcpy(t->state.device, device, sizeof device);
    }
    struct PackOptions po = pack_options(&t->o);
    feed_init(&t->feed, &t->batcher, t->o.batch_examples, &po);
    if (t->o.loss == LOSS_DPO && !found &&
        (!measure_reference(t, &t->data, t->state.reference) ||
         !measure_reference(t, &t->held_out, t->state.reference + t->data.n)))
        return false;
    return metrics_open(t) && (t->o.samples.every == 0 || samples_begin(t->o.out, t->state.step));
}

// ---- Loop

static double learning_rate(const struct Train *t, uint64_t step) { // step from 1
    double lr = (double)t->o.learning_rate, warm = (double)t->o.warmup_steps;
    if ((double)step <= warm)
        return lr * (double)step / warm;
    double left = (double)t->steps - warm, at = left > 0 ? ((double)step - warm - 1) / left : 0;
    if (t->o.schedule == SCHEDULE_COSINE)
        return lr * 0.5 * (1 + cos(3.14159265358979323846 * at));
    return t->o.schedule == SCHEDULE_LINEAR ? lr * (1 - at) : lr;
}

// Names the examples of a step that went wrong, so that the user can look at them.
static bool not_finite(const struct Train *t, const struct Example *const *batch, size_t n, uint64_t step,
                       const struct StepResult *r) {
    char where[400] = "";
    size_t used = 0;
    for (size_t i = 0; i < n && i < 8 && used < sizeof where; i++)
        used += (size_t)snprintf(where + used, sizeof where - used, "%s%s:%u%s", i ? ", " : "",
                                 t->data.paths[batch[i]->file], batch[i]->line, data_record(batch[i]->record).text);
    return fail("step %llu: the loss is %g and the gradient norm %g; %s. Samples of the step: %s%s. Lower "
                "--lr, or look at the samples",
                (unsigned long long)step, fabs((double)r->loss), fabs((double)r->grad_norm),
                t->o.in_backward && t->o.clip_norm == 0 && isfinite(r->loss) ? "the last checkpoint is as it was"
                                                                             : "nothing was updated",
                where, n > 8 ? ", ..." : "");
}

static double load_max(const struct Train *t) {
    const struct Config *c = &t->m->config;
    double most = NAN;
    for (uint32_t layer = 0; t->step.loads && layer < c->n_layers; layer++) {
        const uint32_t *loads = t->step.loads + layer * c->n_experts;
        double sum = 0, top = 0;
        for (uint32_t e = 0; e < c->n_experts; e++)
            sum += loads[e], top = fmax(top, loads[e]);
        if (sum > 0)
            most = fmax(most, top * c->n_experts / sum);
    }
    return most;
}

static const struct DpoFigures NO_FIGURES = {NAN, NAN, NAN, NAN, NAN};

static bool one_step(struct Train *t, struct TrainStatus *status) {
    struct Prepared batch;
    double start = clock_seconds();
    if (!feed_take(&t->feed, t->state.cursor, &batch))
        return false;
    t->step.data_seconds = clock_seconds() - start;
    uint64_t step = t->state.step + 1, documents = 0;
    if (step < t->steps)
        feed_start(&t->feed, batch.behind);
    const struct PackPlan plan = batch.plan;
    size_t n = batch.n;
    for (size_t i = 0; i < plan.n; i++)
        documents += plan.micro[i].n_documents;
    double lr = learning_rate(t, step);
    struct StepResult r;
    double *logp = t->o.loss == LOSS_DPO ? xcalloc(n, sizeof *logp) : NULL;
    float *weight = xcalloc(n, sizeof *weight);
    struct DpoFigures dpo = NO_FIGURES;
    step_noise(&t->step, step);
    bool ok = !logp || measure(t, &plan, n, true, logp);
    if (ok && logp)
        dpo = preference(t, &t->data, batch.examples, n, logp, weight);
    step_weights(&t->step, logp ? weight : NULL);
    ok = ok && step_begin(&t->step, logp ? (double)(n / 2) : plan.weight);
    for (size_t i = 0; i < plan.n && ok; i++)
        ok = step_micro(&t->step, &plan.micro[i], documents, plan.n_tokens - plan.n_padding);
    ok = ok && step_update(&t->step, step, (float)lr, &r);
    step_weights(&t->step, NULL);
    if (ok && !r.finite)
        ok = not_finite(t, batch.examples, n, step, &r);
    if (ok) {
        double seconds = clock_seconds() - start;
        t->state.step = step;
        t->state.cursor = batch.behind;
        t->state.seconds += seconds;
        uint64_t tokens = plan.n_tokens - plan.n_padding;
        *status =
            (struct TrainStatus){.step = step,
                                 .steps = t->steps,
                                 .epoch = (double)batch.behind.epoch + (double)batch.behind.next / (double)t->batcher.n,
                                 .loss = logp ? dpo.loss : (double)r.loss / plan.weight,
                                 .dpo = dpo,
                                 .balance = (double)r.balance,
                                 .grad_norm = (double)r.grad_norm,
                                 .learning_rate = lr,
                                 .tokens_per_second = (double)tokens / seconds,
                                 .data_wait = t->step.data_seconds,
                                 .validation = NO_FIGURES,
                                 .packing = (double)tokens / (double)plan.n_computed,
                                 .load_max = load_max(t),
                                 .tokens = tokens,
                                 .labels = plan.n_labels};
    }
    free(logp), free(weight);
    prepared_free(&batch);
    return ok;
}

static bool metrics_told(struct Train *t) {
    errno = 0; // of a write before this one it may be another's by now
    return (fflush(t->metrics) == 0 && !ferror(t->metrics)) ||
           fail("%s/metrics.jsonl: cannot be written: %s", t->o.out, strerror(errno ? errno : EIO));
}

// To the last bit: a run that goes on reads the best from here.
static void write_held_out(const struct Train *t, const struct DpoFigures *f) {
    fprintf(t->metrics, ", \"validation_loss\": %.17g, \"%s\": \"%016llx\"", f->loss, HELD_OUT_KEY,
            (unsigned long long)t->held_out.hash);
    if (isfinite(f->margin))
        fprintf(t->metrics, ", \"validation_rewards_margin\": %.6f, \"validation_rewards_accuracy\": %.4f", f->margin,
                f->accuracy);
}

bool train_validate(struct Train *t, struct DpoFigures *found) {
    *found = NO_FIGURES;
    if (t->held_out.n == 0)
        return true;
    double *logp = xcalloc(t->held_out.n, sizeof *logp), sum = 0;
    bool ok = measure_set(t, &t->held_out, logp);
    for (size_t i = 0; i < t->held_out.n; i++)
        sum -= logp[i];
    if (ok && t->o.loss == LOSS_DPO)
        *found = preference(t, &t->held_out, NULL, t->held_out.n, logp, NULL);
    else if (ok)
        found->loss = sum / t->held_out.label_weight;
    free(logp);
    if (ok && !isfinite(found->loss))
        ok = fail("step %llu: the loss on the held-out examples is %g", (unsigned long long)t->state.step, found->loss);
    if (ok && t->state.step == 0) { // before training: the point from which the curve falls
        struct EventScalar scalar = {"validation/loss", found->loss};
        fprintf(t->metrics, "{\"step\": 0");
        write_held_out(t, found);
        fprintf(t->metrics, "}\n");
        ok = metrics_told(t) && events_scalars(&t->events, 0, &scalar, 1);
    }
    return ok;
}

// The loads of a hundred steps tell their story; every step's would make the file large.
static void write_loads(const struct Train *t, uint64_t step) {
    const struct Config *c = &t->m->config;
    uint64_t every = max_u64(1, t->steps / 100);
    const char *between = "";
    if (!t->step.loads || (step % every != 0 && step != 1 && step != t->steps))
        return;
    fprintf(t->metrics, ", \"expert_loads\": {");
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        if (!config_is_moe(c, layer))
            continue;
        fprintf(t->metrics, "%s\"%u\": [", between, layer);
        for (uint32_t e = 0; e < c->n_experts; e++)
            fprintf(t->metrics, "%s%u", e ? ", " : "", t->step.loads[layer * c->n_experts + e]);
        fprintf(t->metrics, "]");
        between = ", ";
    }
    fprintf(t->metrics, "}");
}

static bool metrics_write(struct Train *t, const struct TrainStatus *s) {
    fprintf(t->metrics,
            "{\"step\": %llu, \"epoch\": %.4f, \"loss\": %.6f, \"balance_loss\": %.6f, \"grad_norm\": %.6f, "
            "\"learning_rate\": %.6g, \"tokens\": %llu, \"labels\": %llu, \"tokens_per_second\": %.1f, "
            "\"data_wait_s\": %.6f",
            (unsigned long long)s->step, s->epoch, s->loss, s->balance, s->grad_norm, s->learning_rate,
            (unsigned long long)s->tokens, (unsigned long long)s->labels, s->tokens_per_second, s->data_wait);
    if (t->o.neftune_alpha > 0)
        fprintf(t->metrics, ", \"neftune_alpha\": %.6g", (double)t->o.neftune_alpha);
    if (isfinite(s->load_max))
        fprintf(t->metrics, ", \"expert_load_max\": %.4f", s->load_max);
    if (isfinite(s->dpo.loss))
        fprintf(t->metrics,
                ", \"rewards_chosen\": %.6f, \"rewards_rejected\": %.6f, \"rewards_margin\": %.6f, "
                "\"rewards_accuracy\": %.4f",
                s->dpo.chosen, s->dpo.rejected, s->dpo.margin, s->dpo.accuracy);
    if (isfinite(s->validation.loss))
        write_held_out(t, &s->validation);
    write_loads(t, s->step);
    fprintf(t->metrics, "}\n");
    const struct EventScalar scalars[] = {{"train/loss", s->loss},
                                          {"train/balance_loss", t->step.loads ? s->balance : NAN},
                                          {"train/grad_norm", s->grad_norm},
                                          {"train/learning_rate", s->learning_rate},
                                          {"train/tokens_per_second", s->tokens_per_second},
                                          {"train/data_wait_s", s->data_wait},
                                          {"train/expert_load_max", s->load_max},
                                          {"train/rewards_chosen", s->dpo.chosen},
                                          {"train/rewards_rejected", s->dpo.rejected},
                                          {"train/rewards_margin", s->dpo.margin},
                                          {"train/rewards_accuracy", s->dpo.accuracy},
                                          {"validation/loss", s->validation.loss},
                                          {"validation/rewards_margin", s->validation.margin},
                                          {"validation/rewards_accuracy", s->validation.accuracy}};
    return metrics_told(t) && events_scalars(&t->events, s->step, scalars, sizeof scalars / sizeof *scalars);
}

// The metrics go first: a checkpoint that outlives a power cut has those of all its steps.
static bool save(struct Train *t) {
    if (fsync(fileno(t->metrics)) != 0)
        return fail("%s/metrics.jsonl: cannot be written: %s", t->o.out, strerror(errno));
    if (!checkpoint_save(t->o.out, t->m, &t->identity, &t->state, t->o.keep ? t->o.keep : 1, 0))
        return false;
    t->best_saved = t->best.step;
    return true;
}

// A checkpoint of its own: the usual ones make room for each other. The best of before stays until a usual one knows of this: a run that is cut off
// goes on from where that one was the best.
static bool save_best(struct Train *t) {
    char *path = path_join(t->o.out, BEST_FOLDER);
    bool ok = dir_make(path) && checkpoint_save(path, t->m, &t->identity, &t->state, 1, t->best_saved);
    free(path);
    return ok;
}

// The best model in the place of the last.
static bool load_best(struct Train *t) {
    if (!t->o.keep_best || t->best.step == 0 || t->best.step == t->state.step)
        return true;
    struct CheckpointState state = {.reference = t->state.reference, .n_reference = t->state.n_reference};
    char *path = path_join(t->o.out, BEST_FOLDER);
    bool found, ok = checkpoint_load(path, t->m, &t->identity, t->best.step, &state, &found);
    free(path);
    return ok;
}

static bool sample(struct Train *t) {
    char *text;
    bool ok = samples_take(&t->o.samples, t->m, t->tokenizer, t->o.out, t->state.step, &text);
    if (ok && t->on_sample)
        t->on_sample(t->context, t->state.step, text);
    free(text);
    return ok;
}

// Whether the run goes on. Behind the last step the model may have room where a checkpoint, with its moments, has none: it is written all the same.
static bool saved(struct Train *t, bool (*how)(struct Train *)) {
    bool end = t->state.step == t->steps;
    bool before = fail_quiet(end), ok = how(t);
    fail_quiet(before);
    if (ok || !end)
        return ok;
    if (t->m->dev->state != DEVICE_OK)
        return fail("%s", fail_last());
    warn("%s: the run goes on to its result without its last checkpoint", fail_last());
    return true;
}

bool train_loop(struct Train *t) {
    uint64_t sample_every = t->o.samples.every;
    if (sample_every && t->state.step == 0 && !sample(t))
        return false;
    while (t->state.step < t->steps) {
        struct TrainStatus status;
        if (!one_step(t, &status))
            return false;
        bool end = t->state.step == t->steps, last = end || (t->stop && *t->stop);
        bool look = end || (t->o.validate_every && t->state.step % t->o.validate_every == 0);
        if (look && !train_validate(t, &status.validation))
            return false;
        if (look && is_best(&t->best, t->state.step, status.validation.loss) && t->o.keep_best && !saved(t, save_best))
            return false;
        if (!metrics_write(t, &status))
            return false;
        if (t->on_step)
            t->on_step(t->context, &status);
        if (sample_every && (end || t->state.step % sample_every == 0) && !sample(t))
            return false;
        bool asked = t->save && *t->save;
        if (asked)
            *t->save = 0;
        if (last || asked || (t->o.save_every && t->state.step % t->o.save_every == 0)) {
            if (!saved(t, save))
                return false;
        }
        if (last)
            break;
    }
    return true;
}

// ---- End

bool train_finish(struct Train *t, const struct ModelFile *tokenizer) {
    char *temporary = path_join(t->o.out, ".result");
    path_remove(temporary);
    bool ok = load_best(t);
    if (!ok) {
        free(temporary);
        return false;
    }
    if (train_adapts(t->o.method)) {
        size_t bytes; // JSON holds no other text, and a name is no reason to lose the run
        char *base = t->o.base_name ? utf8_repair(t->o.base_name, strlen(t->o.base_name), &bytes) : NULL;
        ok = adapter_save(t->m, temporary, &t->o.lora, base) && report_write(t, temporary) &&
             modelwrite_move(temporary, t->o.out, "adapter_config.json");
        free(base);
    } else if (t->o.method == TRAIN_ESFT && t->o.experts_only) {
        ok =
            esft_save(t->m, temporary) && report_write(t, temporary) && modelwrite_move(temporary, t->o.out, ESFT_FILE);
    } else {
        struct WeightSource source = model_source(t->m);
        ok = modelwrite_hf(temporary, &t->m->config, t->m->params[0].w.type, &source, tokenizer, 0) &&
             report_write(t, temporary) && modelwrite_move(temporary, t->o.out, "config.json");
    }
    if (!ok)
        path_remove(temporary);
    free(temporary);
    return ok;
}

void train_end(struct Train *t) {
    if (t->metrics)
        fclose(t->metrics);
    if (t->lock >= 0)
        close(t->lock);
    events_close(&t->events);
    feed_free(&t->feed);
    t->metrics = NULL;
    t->lock = -1;
    step_free(&t->step);
    esft_free(&t->experts);
}

void train_free(struct Train *t) {
    train_end(t);
    batcher_free(&t->batcher);
    free(t->state.reference);
    dataset_free(&t->data);
    dataset_free(&t->held_out);
    *t = (struct Train){.lock = -1};
}
