// `vkmoe train MODEL --data FILE --out DIR`: fine-tunes all weights or LoRA adapters. Before the first step it shows what is trained, what
// memory it takes and one example with the tokens that count; while it runs a bar, metrics.jsonl and loss.png.
#include "cli/commands.h"
#include "cli/plot.h"
#include "cli/term.h"
#include "model/selftest.h"
#include "train/run.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stop_asked;

static void on_signal(int signal_number) {
    stop_asked = 1;
    signal(signal_number, SIG_DFL); // a second one ends the program at once; the last checkpoint is whole
}

// ---- Options

// The paper's alignment recipe; a flag that is given wins.
static const struct {
    const char *flag, *value;
} SFT_RECIPE[] = {{"epochs", "8"}, {"batch", "1024"},        {"context", "4096"},
                  {"lr", "1e-5"},  {"schedule", "constant"}, {"warmup", "0"}};

static double number(const struct Args *args, const char *flag) {
    if (args_text(args, "recipe") && !args_given(args, flag))
        for (size_t i = 0; i < sizeof SFT_RECIPE / sizeof SFT_RECIPE[0]; i++)
            if (strcmp(SFT_RECIPE[i].flag, flag) == 0)
                return strtod(SFT_RECIPE[i].value, NULL);
    return strtod(args_text(args, flag), NULL);
}

// Exact names of projections, by commas; "all" is every linear but the router.
static bool lora_targets(const char *list, const struct Config *c, uint32_t *targets) {
    uint32_t ffn = (c->n_experts == 0 || c->first_dense ? LORA_FFN : 0) | (c->n_experts ? LORA_EXPERTS : 0) |
                   (c->n_experts && c->n_shared ? LORA_SHARED : 0);
    const struct {
        const char *name;
        uint32_t bits;
    } NAMES[] = {{"all", LORA_ALL},
                 {"q_proj", LORA_Q},
                 {"k_proj", LORA_K},
                 {"v_proj", LORA_V},
                 {"o_proj", LORA_O},
                 {"attention", LORA_Q | LORA_K | LORA_V | LORA_O},
                 {"mlp", ffn},
                 {"dense", LORA_FFN},
                 {"shared_experts", LORA_SHARED},
                 {"experts", LORA_EXPERTS},
                 {"gate", LORA_ROUTER}};
    *targets = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        bool known = false;
        for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
            if (strlen(NAMES[i].name) == n && strncmp(at, NAMES[i].name, n) == 0) {
                *targets |= NAMES[i].bits;
                known = true;
            }
        if (!known)
            return fail("--lora-targets: '%.*s' is none of all, attention, q_proj, k_proj, v_proj, o_proj, mlp, dense, "
                        "shared_experts, experts, gate",
                        (int)n, at);
        at += n + (at[n] == ',');
    }
    return *targets != 0 || fail("--lora-targets names nothing");
}

static bool options_read(const struct Args *args, const struct Config *c, const char *const *data, size_t n_data,
                         struct TrainOptions *o) {
    *o = (struct TrainOptions){
        .method = args_choice(args, "method", "lora") ? TRAIN_LORA : TRAIN_FULL,
        .lora = {.rank = (uint32_t)args_int(args, "lora-rank"), .alpha = (float)args_float(args, "lora-alpha")},
        .epochs = number(args, "epochs"),
        .steps = args_given(args, "steps") ? (uint64_t)args_int(args, "steps") : 0,
        .batch_examples = (uint32_t)number(args, "batch"),
        .seq_len = (uint32_t)number(args, "context"),
        .micro_rows = (uint32_t)args_int(args, "micro-batch"),
        .schedule = args_choice(args, "schedule", "cosine")   ? SCHEDULE_COSINE
                    : args_choice(args, "schedule", "linear") ? SCHEDULE_LINEAR
                                                              : SCHEDULE_CONSTANT,
        .warmup_steps = (uint64_t)args_int(args, "warmup"),
        .learning_rate = (float)number(args, "lr"),
        .beta1 = (float)args_float(args, "beta1"),
        .beta2 = (float)args_float(args, "beta2"),
        .eps = (float)args_float(args, "epsilon"),
        .weight_decay = (float)args_float(args, "weight-decay"),
        .clip_norm = (float)args_float(args, "clip"),
        .freeze_router = args_switch(args, "freeze-router"),
        .recompute = args_choice(args, "recompute", "on"),
        .seed = (uint64_t)args_int(args, "seed"),
        .save_every = (uint64_t)args_int(args, "save-every"),
        .validate_every = (uint64_t)args_int(args, "validate-every"),
        .keep = (uint32_t)args_int(args, "keep"),
        .validation_split = args_float(args, "validation-split"),
        .data = data,
        .n_data = n_data,
        .validation = args_text(args, "validation"),
        .out = args_text(args, "out"),
        .resume = args_switch(args, "resume"),
        .base_name = args->operands[0]};
    return lora_targets(args_text(args, "lora-targets"), c, &o->lora.targets);
}

static bool folder_empty(const char *path) {
    DIR *d = opendir(path);
    bool empty = true;
    for (struct dirent *e; d && (e = readdir(d));)
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    if (d)
        closedir(d);
    return empty;
}

static bool out_check(const struct TrainOptions *o) {
    if (file_exists(o->out) && !dir_exists(o->out))
        return fail("--out %s is a file; a folder is needed", o->out);
    if (o->resume && !checkpoint_exists(o->out))
        warn("%s has no checkpoint: the run starts at its beginning", o->out);
    if (!o->resume && !folder_empty(o->out))
        return fail("--out %s is in use; --resume goes on from its last checkpoint, or give another folder", o->out);
    return true;
}

// ---- What is shown before the first step

static void show_plan(const struct MemoryPlan *p, uint64_t budget) {
    const struct {
        const char *name;
        uint64_t bytes;
    } ROWS[] = {{"weights", p->weights},         {"adapters", p->adapters}, {"gradients and moments", p->state},
                {"activations", p->activations}, {"batch", p->batch},       {"in all", p->total}};
    char text[16], all[16];
    fprintf(stderr, "memory:\n");
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++)
        if (ROWS[i].bytes) {
            term_format_bytes(ROWS[i].bytes, text);
            fprintf(stderr, "  %-22s %12s\n", ROWS[i].name, text);
        }
    term_format_bytes(budget, all);
    if (budget != UINT64_MAX)
        fprintf(stderr, "  %-22s %12s\n", "the device has", all);
}

static void show_trained(const struct Model *m) {
    static const char *const KINDS[] = {"embedding", "norm",   "q_proj",  "k_proj",         "v_proj", "o_proj",
                                        "dense ffn", "router", "experts", "shared experts", "head"};
    uint64_t trained[16] = {0}, all[16] = {0}, sum = 0, total = 0;
    uint32_t count[16] = {0};
    for (uint32_t i = 0; i < m->n_params; i++) {
        const struct Param *p = &m->params[i];
        uint64_t n = 1;
        for (uint32_t d = 0; d < p->spec.n_dims; d++)
            n *= p->spec.dim[d];
        bool on = tensor_exists(&p->g);
        all[p->spec.role] += n, total += n;
        trained[p->spec.role] += on ? n : 0, sum += on ? n : 0, count[p->spec.role] += on;
    }
    char a[16], b[16];
    fprintf(stderr, "%-16s %8s %12s %12s\n", "trained", "tensors", "parameters", "of");
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++)
        if (all[i]) {
            term_format_count((double)trained[i], a);
            term_format_count((double)all[i], b);
            fprintf(stderr, "%-16s %8u %12s %12s\n", KINDS[i], count[i], trained[i] ? a : "frozen", b);
        }
    term_format_count((double)sum, a);
    term_format_count((double)total, b);
    fprintf(stderr, "%-16s %8s %12s %12s (%.2f %%)\n", "in all", "", a, b, 100 * (double)sum / (double)total);
}

// One example as the model sees it: tokens that count for the loss are marked.
static void show_sample(const struct Train *t) {
    const struct Example *e = &t->data.examples[0];
    const char *on = term_paint(stderr, PAINT_GREEN), *off = term_paint(stderr, PAINT_NONE);
    bool plain = on[0] == 0, open = false;
    fprintf(stderr, "%s line %u, %u tokens, %u of them trained (%s):\n  ", t->data.paths[e->file], e->line, e->n,
            e->n_labels, plain ? "in [[ ]]" : "green");
    for (uint32_t i = 0; i < e->n && i < 400; i++) {
        bool trained = i > 0 && e->labels[i - 1] >= 0;
        char piece[256];
        size_t n = tokenizer_piece(t->tokenizer, e->ids[i], piece, sizeof piece);
        if (trained != open)
            fprintf(stderr, "%s", plain ? (trained ? "[[" : "]]") : trained ? on : off);
        open = trained;
        term_write(stderr, piece, n < sizeof piece ? n : sizeof piece);
    }
    fprintf(stderr, "%s\n", open ? (plain ? "]]" : off) : "");
}

// ---- While it runs

struct Watch {
    struct Train *t;
    struct Progress progress;
    double drawn, first_loss, last_loss, best_validation, last_validation, rate;
};

// Reads metrics.jsonl, so that the picture of a resumed run shows all of it.
static void draw_loss(const struct Train *t) {
    char *path = path_join(t->o.out, "metrics.jsonl"), *png = path_join(t->o.out, "loss.png");
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    size_t n = 0, nv = 0, room = (size_t)t->steps + 1;
    double *x = xcalloc(room, sizeof *x), *y = xcalloc(room, sizeof *y), *vx = xcalloc(room, sizeof *vx),
           *vy = xcalloc(room, sizeof *vy);
    if (file_read(path, UINT64_C(1) << 30, &text, &bytes))
        for (char *at = (char *)text, *end; (end = strchr(at, '\n')) && n < room; at = end + 1) {
            json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
            json_t *v = json_object_get(line, "validation_loss"), *l = json_object_get(line, "loss");
            double step = json_number_value(json_object_get(line, "step"));
            if (v && nv < room)
                vx[nv] = step, vy[nv++] = json_number_value(v);
            if (l) // the line of step 0 has none
                x[n] = step, y[n++] = json_number_value(l);
            json_decref(line);
        }
    struct PlotSeries series[] = {{.name = "training", .x = x, .y = y, .n = n, .smooth = true},
                                  {.name = "held out", .x = vx, .y = vy, .n = nv, .dots = true}};
    if (n)
        plot_lines(png, "Loss per trained token", "step", "loss", series, nv ? 2 : 1);
    free(x), free(y), free(vx), free(vy), free(text), free(path), free(png);
}

static void on_step(void *context, const struct TrainStatus *s) {
    struct Watch *w = context;
    if (isnan(w->first_loss))
        w->first_loss = s->loss;
    w->last_loss = s->loss;
    w->rate = s->tokens_per_second;
    char validation[40] = "", balance[40] = "";
    if (isfinite(s->validation_loss)) {
        w->last_validation = s->validation_loss;
        if (!(w->best_validation <= s->validation_loss))
            w->best_validation = s->validation_loss;
    }
    if (isfinite(w->last_validation))
        snprintf(validation, sizeof validation, "  held out %.4f", w->last_validation);
    if (s->balance > 0)
        snprintf(balance, sizeof balance, "  balance %.5f", s->balance);
    progress_update(&w->progress, s->step, "epoch %.2f  loss %.4f%s%s  |g| %.3f  %.0f tok/s", s->epoch, s->loss,
                    validation, balance, s->grad_norm, s->tokens_per_second);
    if (clock_seconds() - w->drawn > 15) {
        draw_loss(w->t);
        w->drawn = clock_seconds();
    }
}

static int run(const struct Args *args, struct Train *t, struct Model *m, const struct ModelFile *file) {
    struct Watch w = {.t = t,
                      .drawn = clock_seconds(),
                      .first_loss = NAN,
                      .last_loss = NAN,
                      .best_validation = NAN,
                      .last_validation = NAN};
    double before = NAN;
    if (!train_begin(t, m))
        return EXIT_FAILED;
    show_trained(m);
    show_sample(t);
    if (t->state.step)
        fprintf(stderr, "goes on at step %llu of %llu\n", (unsigned long long)t->state.step + 1,
                (unsigned long long)t->steps);
    else if (!train_validate(t, &before))
        return EXIT_FAILED;
    if (isfinite(before))
        fprintf(stderr, "held-out loss before training: %.4f (%zu examples)\n", before, t->held_out.n);
    stop_asked = 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    t->stop = &stop_asked;
    t->on_step = on_step;
    t->context = &w;
    progress_begin(&w.progress, "train", "step", t->state.step, t->steps);
    bool ok = train_loop(t);
    progress_end(&w.progress);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    draw_loss(t);
    if (!ok)
        return EXIT_FAILED;
    if (t->state.step < t->steps) {
        fprintf(stderr, "stopped after step %llu of %llu and saved; --resume goes on\n",
                (unsigned long long)t->state.step, (unsigned long long)t->steps);
        return EXIT_DONE;
    }
    if (!train_finish(t, file))
        return EXIT_FAILED;
    fprintf(stderr, "loss %.4f -> %.4f", w.first_loss, w.last_loss);
    if (isfinite(w.last_validation) && isfinite(before))
        fprintf(stderr, ", held out %.4f -> %.4f", before, w.last_validation);
    char took[16];
    term_format_duration(t->state.seconds, took);
    fprintf(stderr, "; %s in %s after %s\n", t->o.method == TRAIN_FULL ? "model" : "adapter", t->o.out, took);
    if (args_switch(args, "json")) {
        json_t *j = json_pack("{s:I, s:f, s:f, s:f, s:s}", "steps", (json_int_t)t->state.step, "first_loss",
                              isfinite(w.first_loss) ? w.first_loss : 0.0, "last_loss",
                              isfinite(w.last_loss) ? w.last_loss : 0.0, "seconds", t->state.seconds, "out", t->o.out);
        if (isfinite(before))
            json_object_set_new(j, "validation_before", json_real(before));
        if (isfinite(w.last_validation))
            json_object_set_new(j, "validation_after", json_real(w.last_validation));
        json_dumpf(j, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(j);
    }
    return EXIT_DONE;
}

// ---- The command

static enum DType weight_type(const struct Args *args, const struct ModelFile *f, enum TrainMethod method) {
    enum DType type = DT_F32;
    const char *given = args_given(args, "type") ? args_text(args, "type") : NULL;
    if (given)
        dtype_find(given, &type);
    else if (method == TRAIN_LORA) // a frozen base stays as it is stored
        return DT_COUNT;
    (void)f;
    return type;
}

static enum DType plan_type(const struct ModelFile *f, enum DType type) {
    return type != DT_COUNT ? type : f->n_tensors ? f->tensors[f->n_tensors / 2].type : DT_F32;
}

static void show_load(void *context, uint64_t done, uint64_t all) {
    (void)all;
    progress_update(context, done >> 20, "MiB of weights");
}

static int with_device(const struct Args *args, struct Train *t, const struct ModelFile *f, enum DType type) {
    struct Device dev;
    struct Model m;
    struct MemoryPlan plan;
    if (!selftest_device_open(&dev, args_text(args, "device")))
        return EXIT_FAILED;
    fprintf(stderr, "%s\n", dev.name);
    int status = EXIT_FAILED;
    if (train_plan(&f->config, plan_type(f, type), &t->o, &dev, &plan)) {
        show_plan(&plan, dev.limits.memory_bytes);
        struct Progress progress;
        struct ModelOptions mo = {.type = type,
                                  .max_positions = (uint32_t)min_u64(t->o.seq_len, f->config.max_context),
                                  .progress = show_load,
                                  .progress_context = &progress};
        if (plan.total > dev.limits.memory_bytes) {
            fail("this run needs %.1f GiB and the device has %.1f GiB; try --method lora, --type bf16, a smaller "
                 "--context or "
                 "--micro-batch, --recompute on, or another --device",
                 (double)plan.total / (1 << 30), (double)dev.limits.memory_bytes / (1 << 30));
        } else if (args_switch(args, "dry-run")) {
            fprintf(stderr, "%llu steps; nothing was trained (--dry-run)\n", (unsigned long long)t->steps);
            show_sample(t);
            status = EXIT_DONE;
        } else {
            progress_begin(&progress, "load", "MiB", 0, plan.weights >> 20);
            bool loaded = model_load(&m, &dev, f, &mo);
            progress_clear(&progress);
            if (loaded) {
                if (args_given(args, "balance"))
                    m.config.aux_alpha = (float)args_float(args, "balance");
                status = run(args, t, &m, f);
                step_free(&t->step);
                model_free(&m);
            }
        }
    }
    profile_print(&dev);
    device_close(&dev);
    return status;
}

int cmd_train(const struct Args *args) {
    struct ModelFile f;
    struct Tokenizer tokenizer;
    struct Template chat;
    struct TrainOptions o;
    const char *data[64];
    size_t n_data = 0;
    char *list = xstrdup(args_text(args, "data"));
    for (char *save, *at = strtok_r(list, ",", &save); at && n_data < 64; at = strtok_r(NULL, ",", &save))
        data[n_data++] = at;
    int status = EXIT_FAILED;
    if (!modelfile_open(&f, args->operands[0])) {
        free(list);
        return EXIT_FAILED;
    }
    if (f.vocab_only) {
        fail("%s: holds a vocabulary alone, no weights", f.path);
    } else if (options_read(args, &f.config, data, n_data, &o) && out_check(&o) && tokenizer_open(&tokenizer, &f)) {
        if (o.seq_len > f.config.max_context)
            fail("--context %u is above the model's context of %u", o.seq_len, f.config.max_context);
        else if (tokenizer.n_vocab > f.config.vocab_size)
            fail("%s: the tokenizer has %u tokens, the embedding %u rows", f.path, tokenizer.n_vocab,
                 f.config.vocab_size);
        else if (template_open(&chat, args_text(args, "template"), f.chat_template, &tokenizer, f.path)) {
            struct Train t;
            if (train_load_data(&t, &o, &tokenizer, &chat))
                status = with_device(args, &t, &f, weight_type(args, &f, o.method));
            train_free(&t);
            template_free(&chat);
        }
        tokenizer_free(&tokenizer);
    }
    modelfile_close(&f);
    free(list);
    return status;
}
