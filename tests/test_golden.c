// Whole models against golden files made by an independent PyTorch program in double precision (tests/golden): logits, every gradient,
// the losses of 100 AdamW steps, with and without recomputation, in f32; logits and gradients in bf16.
#include "card.h"
#include "check.h"
#include "model/adapter.h"
#include "model/safetensors.h"
#include "train/dpo.h"
#include "train/esft.h"
#include "train/layers_back.h"
#include "train/step.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const double F32_BOUND = 1e-5; // relative, L2 over a tensor

struct Golden {
    struct Safetensors file;
    struct MicroBatch batch;
    bool lora, esft;
    struct ExpertList experts; // of esft: what is trained
    float *reference;          // of dpo: documents 2i are chosen, 2i + 1 rejected
};

static float *golden_f32(const struct Golden *g, const char *name, uint64_t *n) {
    const struct SafetensorsEntry *e = safetensors_find(&g->file, name);
    if (!e || e->type != DT_F32)
        return NULL;
    *n = e->bytes / 4;
    float *v = xmalloc(e->bytes + 4);
    safetensors_read(&g->file, e, 0, e->bytes, v);
    return v;
}

static double golden_scalar(const struct Golden *g, const char *name) {
    uint64_t n = 0;
    float *v = golden_f32(g, name, &n);
    double value = v && n == 1 ? (double)v[0] : NAN;
    free(v);
    return value;
}

// safetensors.h gives I32 as an unknown type with its place in the file.
static int32_t *golden_i32(const struct Golden *g, const char *name, uint32_t *n) {
    const struct SafetensorsEntry *e = safetensors_find(&g->file, name);
    if (!e)
        return NULL;
    int32_t *v = xmalloc(e->bytes + 4);
    *n = (uint32_t)(e->bytes / 4);
    safetensors_read(&g->file, e, 0, e->bytes, v);
    return v;
}

static bool golden_open(struct Golden *g, const char *folder) {
    char *path = path_join(folder, "golden.safetensors"), *adapter = path_join(folder, "adapter");
    memset(g, 0, sizeof *g);
    g->lora = dir_exists(adapter);
    char *experts = path_join(folder, "expert_cfg_token.json");
    g->esft = file_exists(experts);
    free(experts);
    bool ok = safetensors_open(&g->file, path);
    free(path);
    free(adapter);
    if (!ok)
        return false;
    uint32_t n = 0, m;
    struct MicroBatch *b = &g->batch;
    b->ids = (uint32_t *)golden_i32(g, "ids", &n);
    b->positions = (uint32_t *)golden_i32(g, "positions", &m);
    b->labels = golden_i32(g, "labels", &m);
    b->first = (uint32_t *)golden_i32(g, "doc_start", &m);
    if (!b->ids || !b->positions || !b->labels || !b->first)
        return false;
    b->rows = 1, b->seq_len = b->n_tokens = n;
    b->end = xcalloc(n, sizeof *b->end);
    b->document = xcalloc(n, sizeof *b->document);
    for (uint32_t i = 0; i < n; i++) {
        b->n_documents += b->first[i] == i;
        b->document[i] = b->n_documents - 1;
        b->n_labels += b->labels[i] >= 0;
    }
    b->documents = xcalloc(b->n_documents, sizeof *b->documents);
    for (uint32_t i = 0; i < n; i++) {
        struct PackedDocument *d = &b->documents[b->document[i]];
        if (d->n++ == 0)
            d->first = i, d->example = b->document[i];
    }
    uint64_t n_reference = 0;
    g->reference = golden_f32(g, "dpo.reference", &n_reference);
    for (uint32_t i = n; i-- > 0;)
        b->end[i] = i + 1 < n && b->first[i + 1] == b->first[i] ? b->end[i + 1] : i + 1;
    return true;
}

static void golden_close(struct Golden *g) {
    safetensors_close(&g->file);
    free(g->batch.ids), free(g->batch.positions), free(g->batch.labels), free(g->batch.first), free(g->batch.end);
    free(g->batch.document);
    free(g->batch.documents);
    free(g->reference);
    esft_free(&g->experts);
}

static double relative(const float *got, const float *want, uint64_t n) {
    double difference = 0, size = 0;
    for (uint64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        difference += d * d, size += (double)want[i] * (double)want[i];
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

static float *download(struct Device *dev, const struct Tensor *t) {
    float *v = xmalloc(t->bytes);
    tensor_download(dev, t, 0, v, t->bytes);
    return v;
}

// Logits of all positions, by the layers themselves.
static float *logits_of(struct Model *m, const struct MicroBatch *b) {
    struct Arena arena, host;
    uint32_t t = b->n_tokens;
    arena_init(&arena, m->dev, "activations", ARENA_DEVICE);
    arena_init(&host, m->dev, "batch", ARENA_HOST);
    struct Tensor ids = TENSOR(&host, DT_U32, t), positions = TENSOR(&host, DT_U32, t),
                  span = TENSOR(&host, DT_U32, t, 2);
    uint32_t *s = tensor_host(m->dev, &span);
    memcpy(tensor_host(m->dev, &ids), b->ids, 4 * (size_t)t);
    memcpy(tensor_host(m->dev, &positions), b->positions, 4 * (size_t)t);
    for (uint32_t i = 0; i < t; i++)
        s[2 * i] = b->first[i], s[2 * i + 1] = i + 1;
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
    float *v = program && program_run(program) ? download(m->dev, &logits) : NULL;
    program_free(program);
    arena_free(&arena);
    arena_free(&host);
    return v;
}

// The name of a gradient in the golden file: Hugging Face's, or PEFT's for adapters; `expert` for one slice of a stacked tensor.
static void gradient_name(const struct Param *p, bool lora, int expert, char *out, size_t room) {
    char name[160], part[16];
    snprintf(name, sizeof name, "%s%s", p->spec.name, lora ? ".weight" : "");
    const char *at = strstr(name, ".experts.");
    snprintf(part, sizeof part, "%d.", expert);
    if (expert >= 0 && at)
        snprintf(out, room, "grad.%s%.*s%s%s", lora ? "base_model.model." : "", (int)(at + 9 - name), name, part,
                 at + 9);
    else
        snprintf(out, room, "grad.%s%s", lora ? "base_model.model." : "", name);
}

// Compares the gradients of all trained parameters; returns the relative error over all of them together.
static double compare_gradients(const struct Golden *g, struct Model *m, double bound, const char *what) {
    double difference = 0, size = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < m->n_params; i++) {
        struct Param *p = &m->params[i];
        if (!tensor_exists(&p->g))
            continue;
        float *all = download(m->dev, &p->g);
        uint32_t d = p->spec.n_dims;
        uint32_t experts = d == 3 ? p->g.dim[0] : 1, rows = d >= 2 ? p->spec.dim[d - 2] : 1, cols = p->spec.dim[d - 1];
        uint32_t stored_rows = d >= 2 ? p->g.dim[d - 2] : 1, stored_cols = p->g.dim[d - 1];
        for (uint32_t e = 0; e < experts; e++) {
            int expert = p->n_chosen ? (int)p->chosen[e] : (int)e;
            char name[200];
            uint64_t n = 0;
            gradient_name(p, g->lora, d == 3 ? expert : -1, name, sizeof name);
            float *want = golden_f32(g, name, &n), *got = xcalloc((size_t)rows * cols, sizeof *got);
            if (!CHECK(want && n == (uint64_t)rows * cols, "%s: the golden file has no %s of %u values", what, name,
                       rows * cols)) {
                free(want), free(got);
                continue;
            }
            double beyond = 0; // what lies in the padding of an adapter
            for (uint32_t r = 0; r < stored_rows; r++)
                for (uint32_t c = 0; c < stored_cols; c++) {
                    float v = all[((size_t)e * stored_rows + r) * stored_cols + c];
                    if (r < rows && c < cols)
                        got[(size_t)r * cols + c] = v;
                    else
                        beyond += fabs((double)v);
                }
            double error = relative(got, want, n), length = 0;
            bool idle = true;
            for (uint64_t k = 0; k < n; k++) {
                double delta = (double)got[k] - (double)want[k];
                difference += delta * delta, size += (double)want[k] * (double)want[k];
                length += (double)want[k] * (double)want[k];
                idle = idle && want[k] == 0;
            }
            if (bound > 0)
                CHECK(error <= bound, "%s: %s is off by %.2g relative (length %.2g)", what, name, error, sqrt(length));
            bool zero = true;
            for (uint64_t k = 0; k < n && idle; k++)
                zero = zero && got[k] == 0;
            CHECK(!idle || zero, "%s: %s must be exactly zero", what, name);
            CHECK(beyond == 0, "%s: %s has a gradient in its padding", what, name);
            seen++;
            free(want), free(got);
        }
        free(all);
    }
    CHECK(seen > 0, "%s: no gradient compared", what);
    return sqrt(difference / (size > 0 ? size : 1));
}

static struct StepOptions options(const struct Golden *g, bool recompute) {
    return (struct StepOptions){
        .micro_tokens = g->batch.n_tokens,
        .recompute = recompute,
        .loss_chunk = 16,
        .beta1 = 0.9f,
        .beta2 = 0.95f,
        .eps = 1e-8f,
        .seed = 1,
        .weighted = g->reference != NULL,
        .optimiser = {.weight_decay = 0.1f, .clip_norm = 1.0f, .experts = g->esft ? &g->experts : NULL}};
}

// Whether two lists name the same experts.
static bool same_experts(const struct ExpertList *a, const struct ExpertList *b) {
    return a->n_layers == b->n_layers && esft_hash(a) == esft_hash(b);
}

// The scores of the batch's experts, and the lists that follow from them, both kinds; the list of tokens is what is trained.
static void check_experts(struct Golden *g, struct Model *m, const char *folder, const char *name) {
    const struct Config *c = &m->config;
    const struct MicroBatch *b = &g->batch;
    struct Example *examples = xcalloc(b->n_documents, sizeof *examples);
    struct Dataset d = {.examples = examples, .n = b->n_documents};
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        struct Example *e = &examples[b->document[t]];
        if (e->n++ == 0)
            e->ids = b->ids + t, e->labels = b->labels + t;
    }
    double *scores = xcalloc((size_t)c->n_layers * c->n_experts, sizeof *scores);
    for (int kind = 0; kind < 2; kind++) {
        const char *what = kind == EXPERT_GATE ? "gate" : "token";
        char entry[40], file[40];
        snprintf(entry, sizeof entry, "experts.%s", what);
        snprintf(file, sizeof file, "expert_cfg_%s.json", what);
        char *path = path_join(folder, file);
        uint64_t n = 0;
        float *want = golden_f32(g, entry, &n);
        snprintf(entry, sizeof entry, "experts.%s.threshold", what);
        struct ExpertSample sample = {.seq_len = 16, .seed = 4};
        struct ExpertList theirs, ours = {0};
        bool ok = CHECK(n == (uint64_t)config_moe_layers(c) * c->n_experts && esft_read(&theirs, path, c) &&
                            esft_score(m, &d, &sample, (enum ExpertScore)kind, scores),
                        "%s: %s", name, fail_last());
        if (ok) {
            double worst = 0;
            for (uint32_t layer = 0, at = 0; layer < c->n_layers; layer++)
                for (uint32_t e = 0; e < c->n_experts && config_is_moe(c, layer); e++)
                    worst = fmax(worst, fabs(scores[(size_t)layer * c->n_experts + e] - (double)want[at++]));
            CHECK(worst <= 1e-6, "%s: scores by %s are off by %.2g", name, what, worst);
            esft_choose(&ours, c, scores, golden_scalar(g, entry));
            CHECK(same_experts(&ours, &theirs), "%s: other experts are chosen by %s", name, what);
            printf("  experts by %s: scores %.1e\n", what, worst);
            esft_free(&ours);
            if (kind == EXPERT_TOKEN)
                g->experts = theirs;
            else
                esft_free(&theirs);
        }
        free(want);
        free(path);
    }
    free(scores);
    free(examples);
}

// *loss: of a preference, which is known before; of the others the device's result tells it.
static bool gradients(struct Step *s, const struct Golden *g, double *loss) {
    const struct MicroBatch *b = &g->batch;
    uint32_t n = b->n_documents;
    float *weight = xcalloc(n, sizeof *weight);
    double *logp = xcalloc(n, sizeof *logp);
    bool ok = !g->reference || step_logprobs(s, b, false, logp);
    if (g->reference) {
        *loss = dpo_loss(logp, g->reference, n / 2, golden_scalar(g, "dpo.beta"), weight).loss;
        step_weights(s, weight);
    }
    ok = ok && step_begin(s, g->reference ? n / 2 : b->n_labels) && step_micro(s, b, n, b->n_tokens) &&
         device_wait(s->m->dev);
    step_weights(s, NULL);
    free(weight), free(logp);
    return ok;
}

static void check_training(const struct Golden *g, struct Model *m, bool recompute, const char *what) {
    struct Step s;
    struct StepOptions o = options(g, recompute);
    if (!CHECK(step_init(&s, m, &o, !g->lora), "%s: %s", what, fail_last()))
        return;
    double loss = 0;
    CHECK(gradients(&s, g, &loss), "%s: %s", what, fail_last());
    compare_gradients(g, m, F32_BOUND, what);
    uint64_t n = 0, n_aux = 0;
    float *losses = golden_f32(g, "losses", &n), *auxes = golden_f32(g, "auxes", &n_aux);
    double worst = 0, worst_aux = 0;
    for (uint64_t i = 0; i < n; i++) {
        struct StepResult r = {0};
        bool ok = (i == 0 || gradients(&s, g, &loss)) && step_update(&s, i + 1, 1e-3f, &r) && r.finite;
        if (!CHECK(ok, "%s: step %llu: %s", what, (unsigned long long)i + 1, fail_last()))
            break;
        if (!g->reference)
            loss = (double)r.loss / g->batch.n_labels;
        worst = fmax(worst, fabs(loss / (double)losses[i] - 1));
        if (auxes[i] != 0)
            worst_aux = fmax(worst_aux, fabs((double)r.balance / (double)auxes[i] - 1));
        if (i == 0)
            CHECK_NEAR((double)r.grad_norm, golden_scalar(g, "grad_norm"), 0, F32_BOUND);
    }
    CHECK(n == 100 && worst <= F32_BOUND, "%s: %llu losses, worst off by %.2g relative", what, (unsigned long long)n,
          worst);
    CHECK(worst_aux <= F32_BOUND, "%s: balance losses, worst off by %.2g relative", what, worst_aux);
    printf("  %s: losses %.1e, balance %.1e\n", what, worst, worst_aux);
    free(losses), free(auxes);
    step_free(&s);
}

static bool is_quantised(const char *folder) {
    char *gguf = path_join(folder, "model.gguf");
    bool there = file_exists(gguf);
    free(gguf);
    return there;
}

// A quantised base, in model.gguf, stays as it is.
static bool load(struct Model *m, struct Device *dev, const char *folder, const struct Golden *g, enum DType type) {
    struct ModelFile f;
    char *adapter = path_join(folder, "adapter"), *gguf = path_join(folder, "model.gguf");
    bool quantised = is_quantised(folder);
    struct ModelOptions o = {.type = quantised ? DT_COUNT : type};
    bool ok = modelfile_open(&f, quantised ? gguf : folder);
    if (ok) {
        ok = model_load(m, dev, &f, &o) && (!g->lora || adapter_load(m, adapter));
        modelfile_close(&f);
    }
    free(gguf);
    free(adapter);
    return ok;
}

// Bounded by PyTorch's own distance on every device: matrix units that round operands to bf16 come to 0.5 to 0.8 of it, others to half, operands that are
// cut off beyond it. No case has a choice of experts so close that such rounding may turn it (make_golden.py's MIN_CLEAR): that moves all gradients by
// percents.
static void check_bf16(struct Device *dev, const char *folder, const struct Golden *g, const char *name) {
    struct Model m;
    struct Step s;
    struct StepOptions o = options(g, true);
    uint64_t n = 0;
    if (g->lora) // adapters are f32 here, so there is nothing of bf16 to compare but the base
        return;
    if (!CHECK(load(&m, dev, folder, g, DT_BF16), "%s: %s", name, fail_last()))
        return;
    float *want = golden_f32(g, "logits", &n), *got = logits_of(&m, &g->batch);
    double error = got ? relative(got, want, n) : INFINITY, theirs = golden_scalar(g, "bf16.logits_rel");
    CHECK(error <= theirs, "%s: bf16 logits off by %.2g, PyTorch's by %.2g", name, error, theirs);
    double loss;
    if (CHECK(step_init(&s, &m, &o, true) && gradients(&s, g, &loss), "%s: %s", name, fail_last())) {
        double grad = compare_gradients(g, &m, 0, name), their_grad = golden_scalar(g, "bf16.grad_rel");
        CHECK(grad <= their_grad, "%s: bf16 gradients off by %.2g, PyTorch's by %.2g", name, grad, their_grad);
        printf("  bf16: logits %.1e (PyTorch %.1e), gradients %.1e (PyTorch %.1e)\n", error, theirs, grad, their_grad);
    }
    step_free(&s);
    free(want), free(got);
    model_free(&m);
}

// A quantised base is not held to f32 where the device has matrix units or products of pairs: both operands are rounded to their 16 bits for each multiply. PyTorch in
// float64 with operands rounded so is 1.1 to 1.2 % off in bf16 (2.7 % where they are cut off), 0.2 % in f16.
static void check_coarse(struct Device *dev, const char *folder, const struct Golden *g, const char *name) {
    const double bound = dev->coopmat.type == DT_BF16 ? 0.02 : 0.01;
    struct Model m;
    struct Step s;
    struct StepOptions o = options(g, true);
    double loss;
    if (!CHECK(load(&m, dev, folder, g, DT_F32), "%s: %s", name, fail_last()))
        return;
    if (CHECK(step_init(&s, &m, &o, !g->lora) && gradients(&s, g, &loss), "%s: %s", name, fail_last())) {
        double error = compare_gradients(g, &m, 0, name);
        CHECK(error <= bound, "%s: gradients off by %.2g with operands of 16 bits", name, error);
        printf("  as the device multiplies: gradients %.1e\n", error);
    }
    step_free(&s);
    model_free(&m);
}

static void check_case(struct Device *dev, const char *folder, const char *name) {
    struct Golden g;
    struct Model m;
    uint64_t n = 0;
    printf("%s\n", name);
    if (!CHECK(golden_open(&g, folder), "%s: %s", name, fail_last()))
        return;
    bool matrices = device_can(dev, CAP_coopmat), pairs = device_can(dev, CAP_dot2);
    bool coarse = is_quantised(folder) && (matrices || pairs);
    if (coarse) {
        check_coarse(dev, folder, &g, name);
        device_switch(dev, CAP_coopmat, false);
        device_switch(dev, CAP_dot2, false);
    }
    for (int recompute = 0; recompute < 2; recompute++) {
        char what[300];
        snprintf(what, sizeof what, "%s, recompute %s", name, recompute ? "on" : "off");
        if (!CHECK(load(&m, dev, folder, &g, DT_F32), "%s: %s", name, fail_last()))
            continue;
        if (!recompute) {
            float *want = golden_f32(&g, "logits", &n), *got = logits_of(&m, &g.batch);
            double error = got ? relative(got, want, n) : INFINITY;
            CHECK(error <= F32_BOUND, "%s: logits off by %.2g relative", name, error);
            printf("  logits %.1e\n", error);
            free(want), free(got);
            if (g.esft)
                check_experts(&g, &m, folder, name);
        }
        check_training(&g, &m, recompute, what);
        model_free(&m);
    }
    if (coarse) {
        device_switch(dev, CAP_coopmat, matrices);
        device_switch(dev, CAP_dot2, pairs);
    }
    check_bf16(dev, folder, &g, name);
    golden_close(&g);
}

int main(int argc, char **argv) {
    struct Device dev;
    if (!card_open(&dev))
        return 1;
    char *root = path_join(VKMOE_SOURCE_DIR, "tests/golden");
    struct dirent **list;
    int n = scandir(root, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *folder = path_join(root, list[i]->d_name), *golden = path_join(folder, "golden.safetensors");
        bool asked = argc < 2;
        for (int a = 1; a < argc; a++)
            asked = asked || strstr(list[i]->d_name, argv[a]);
        if (file_exists(golden) && asked)
            check_case(&dev, folder, list[i]->d_name);
        free(folder), free(golden), free(list[i]);
    }
    free(list);
    free(root);
    device_close(&dev);
    return check_done();
}
