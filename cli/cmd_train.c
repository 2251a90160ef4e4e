// `vkmoe train MODEL --data FILE --out DIR`: fine-tunes all weights or LoRA adapters. Before the first step it shows what is trained, what
// memory it takes and one example with the tokens that count; while it runs a bar, metrics.jsonl, TensorBoard's events, loss.png and experts.png.
#include "cli/commands.h"
#include "cli/curves.h"
#include "cli/load.h"
#include "cli/memory.h"
#include "cli/output.h"
#include "cli/reading.h"
#include "cli/scratch.h"
#include "cli/term.h"
#include "model/json.h"
#include "train/report.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stop_asked, save_asked;

static void on_signal(int signal_number) {
    stop_asked = 1;
    if (signal_number != SIGHUP)        // of a terminal that closes kernel and shell may both tell
        signal(signal_number, SIG_DFL); // a second one ends the program at once; the last checkpoint is whole
}

static void on_save_signal(int signal_number) {
    (void)signal_number;
    save_asked = 1;
}

// ---- Options

// The paper's alignment recipe; a flag that is given wins.
static const struct {
    const char *flag, *value;
} SFT_RECIPE[] = {{"epochs", "8"}, {"batch", "1024"},        {"context", "4096"},
                  {"lr", "1e-5"},  {"schedule", "constant"}, {"warmup", "0"}};

// What suits random weights and a text that is read once.
static const struct {
    const char *flag, *value;
} SCRATCH_DEFAULTS[] = {{"epochs", "1"}, {"lr", "6e-4"}, {"schedule", "cosine"}, {"overlong", "split"}};

static const char *setting(const struct Args *args, const char *flag) {
    if (args_text(args, "recipe") && !args_given(args, flag))
        for (size_t i = 0; i < sizeof SFT_RECIPE / sizeof SFT_RECIPE[0]; i++)
            if (strcmp(SFT_RECIPE[i].flag, flag) == 0)
                return SFT_RECIPE[i].value;
    if (args_switch(args, "from-scratch") && !args_given(args, flag))
        for (size_t i = 0; i < sizeof SCRATCH_DEFAULTS / sizeof SCRATCH_DEFAULTS[0]; i++)
            if (strcmp(SCRATCH_DEFAULTS[i].flag, flag) == 0)
                return SCRATCH_DEFAULTS[i].value;
    return args_text(args, flag);
}

static enum TrainMethod method_of(const struct Args *args) {
    return args_choice(args, "method", "lora")    ? TRAIN_LORA
           : args_choice(args, "method", "qlora") ? TRAIN_QLORA
           : args_choice(args, "method", "esft")  ? TRAIN_ESFT
                                                  : TRAIN_FULL;
}

static double number(const struct Args *args, const char *flag) { return strtod(setting(args, flag), NULL); }

static enum TrainSchedule schedule_of(const struct Args *args) {
    const char *name = setting(args, "schedule");
    return strcmp(name, "cosine") == 0   ? SCHEDULE_COSINE
           : strcmp(name, "linear") == 0 ? SCHEDULE_LINEAR
                                         : SCHEDULE_CONSTANT;
}

// Rows as long as was asked for; where nobody asked, no longer than the model can take.
static uint32_t row_tokens(const struct Args *args, const struct Config *c) {
    uint32_t n = (uint32_t)number(args, "context");
    return args_given(args, "context") || args_text(args, "recipe") ? n : (uint32_t)min_u64(n, c->max_context);
}

// Exact names of projections, by commas; "all" is every linear but the router.
static bool lora_targets(const char *list, const struct Config *c, uint32_t *targets) {
    uint32_t n_moe = config_moe_layers(c);
    uint32_t ffn = (n_moe < c->n_layers ? LORA_FFN : 0) | (n_moe ? LORA_EXPERTS : 0) |
                   (n_moe && config_shared_width(c) ? LORA_SHARED : 0);
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

// 0: auto.
static bool micro_rows(const char *text, uint32_t *rows) {
    char *end;
    unsigned long n = strcmp(text, "auto") == 0 ? 0 : strtoul(text, &end, 10);
    *rows = (uint32_t)n;
    return strcmp(text, "auto") == 0 || (*text >= '0' && *text <= '9' && !*end && n >= 1 && n <= 65536) ||
           fail("--micro-batch %s: rows from 1 to 65536, or auto, are expected", text);
}

static bool offload(const char *list, uint32_t *parts) {
    static const char *const NAMES[] = {"none", "moments", "weights"};
    *parts = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ","), i = 0;
        while (i < 3 && (strlen(NAMES[i]) != n || strncmp(at, NAMES[i], n) != 0))
            i++;
        if (i == 3)
            return fail("--offload: '%.*s' is none of none, moments, weights", (int)n, at);
        *parts |= (uint32_t)i; // moments and weights are bits
        at += n + (at[n] == ',');
    }
    return true;
}

static bool options_read(const struct Args *args, const struct Config *c, const struct Reading *r,
                         struct TrainOptions *o) {
    *o = (struct TrainOptions){.method = method_of(args),
                               .loss = args_choice(args, "loss", "dpo") ? LOSS_DPO : LOSS_SFT,
                               .dpo_beta = (float)args_float(args, "dpo-beta"),
                               .lora = {.rank = (uint32_t)args_int(args, "lora-rank"),
                                        .alpha = (float)args_float(args, "lora-alpha"),
                                        .rank_stabilised = args_switch(args, "rslora")},
                               .lora_experts_share = args_float(args, "lora-experts-share"),
                               .adapter = args_text(args, "adapter"),
                               .expert_score = args_choice(args, "esft-score", "gate") ? EXPERT_GATE : EXPERT_TOKEN,
                               .expert_threshold = args_float(args, "esft-threshold"),
                               .expert_sample = (uint64_t)args_int(args, "expert-sample"),
                               .expert_config = args_text(args, "esft-config"),
                               .experts_only = args_switch(args, "esft-only"),
                               .epochs = number(args, "epochs"),
                               .steps = args_given(args, "steps") ? (uint64_t)args_int(args, "steps") : 0,
                               .batch_examples = (uint32_t)number(args, "batch"),
                               .seq_len = row_tokens(args, c),
                               .schedule = schedule_of(args),
                               .warmup_steps = (uint64_t)number(args, "warmup"),
                               .learning_rate = (float)number(args, "lr"),
                               .beta1 = (float)args_float(args, "beta1"),
                               .beta2 = (float)args_float(args, "beta2"),
                               .eps = (float)args_float(args, "epsilon"),
                               .weight_decay = (float)args_float(args, "weight-decay"),
                               .clip_norm = (float)args_float(args, "clip"),
                               .neftune_alpha = (float)args_float(args, "neftune-alpha"),
                               .moments8 = args_choice(args, "moments", "8bit"),
                               .in_backward = args_choice(args, "optimizer-in-backward", "on"),
                               .freeze_router = args_switch(args, "freeze-router"),
                               .recompute = args_choice(args, "recompute", "on"),
                               .seed = (uint64_t)args_int(args, "seed"),
                               .save_every = (uint64_t)args_int(args, "save-every"),
                               .validate_every = (uint64_t)args_int(args, "validate-every"),
                               .keep = (uint32_t)args_int(args, "keep"),
                               .keep_best = args_switch(args, "keep-best"),
                               .validation_split = args_float(args, "validation-split"),
                               .data = (const char *const *)r->paths,
                               .n_data = r->n_paths,
                               .reading = r->options,
                               .validation = args_text(args, "validation"),
                               .out = args_text(args, "out"),
                               .resume = args_switch(args, "resume"),
                               .from_scratch = args_switch(args, "from-scratch"),
                               .samples = {.every = (uint64_t)args_int(args, "sample-every"),
                                           .prompt = args_text(args, "sample-prompt"),
                                           .tokens = (uint32_t)args_int(args, "sample-tokens"),
                                           .temperature = (float)args_float(args, "sample-temperature"),
                                           .seed = (uint64_t)args_int(args, "seed"),
                                           .context = row_tokens(args, c)},
                               .base_name = args->operands[0],
                               .command = args_command_line(args),
                               .n_command = args->n_words + 2};
    if (strcmp(setting(args, "overlong"), "split") == 0)
        o->reading.overlong = OVERLONG_SPLIT;
    return args_good(micro_rows(args_text(args, "micro-batch"), &o->micro_rows) &&
                     offload(args_text(args, "offload"), &o->offload) &&
                     lora_targets(args_text(args, "lora-targets"), c, &o->lora.targets));
}

static bool out_check(const struct TrainOptions *o) {
    if (output_is_gguf(o->out) && !dir_exists(o->out))
        return fail("--out %s: training makes a folder; give another name, and behind the run `vkmoe %s` makes a GGUF "
                    "of it",
                    o->out, train_adapts(o->method) || o->experts_only ? "merge" : "convert");
    if (!train_check_out(o))
        return false;
    if (o->resume && !checkpoint_exists(o->out))
        warn("%s has no checkpoint: the run starts at its beginning", o->out);
    return true;
}

// ---- What is shown before the first step

static const size_t JSON_FORM = JSON_INDENT(1) | JSON_REAL_PRECISION(7);

static struct RolePlan plan_sum(const struct TrainPlan *plan) {
    struct RolePlan sum = {0};
    for (size_t i = 0; i < sizeof plan->role / sizeof plan->role[0]; i++) {
        sum.tensors += plan->role[i].tensors;
        sum.trained += plan->role[i].trained;
        sum.all += plan->role[i].all;
    }
    return sum;
}

static void show_trained(const struct TrainPlan *plan) {
    static const char *const KINDS[] = {[ROLE_EMBED] = "embedding",
                                        [ROLE_NORM] = "norm",
                                        [ROLE_BIAS] = "bias",
                                        [ROLE_Q] = "q_proj",
                                        [ROLE_K] = "k_proj",
                                        [ROLE_V] = "v_proj",
                                        [ROLE_O] = "o_proj",
                                        [ROLE_FFN] = "dense ffn",
                                        [ROLE_ROUTER] = "router",
                                        [ROLE_EXPERTS] = "experts",
                                        [ROLE_SHARED] = "shared experts",
                                        [ROLE_SHARED_GATE] = "shared gate",
                                        [ROLE_HEAD] = "head"};
    struct RolePlan sum = plan_sum(plan);
    char a[16], b[16];
    fprintf(stderr, "%-16s %8s %12s %12s %6s\n", "trained", "tensors", "parameters", "of", "decay");
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        const struct RolePlan *r = &plan->role[i];
        term_format_count((double)r->trained, a);
        term_format_count((double)r->all, b);
        if (r->all)
            fprintf(stderr, "%-16s %8u %12s %12s %6s\n", KINDS[i], r->tensors, r->trained ? a : "frozen", b,
                    !r->trained ? ""
                    : r->decays ? "yes"
                                : "no");
    }
    term_format_count((double)sum.trained, a);
    term_format_count((double)sum.all, b);
    fprintf(stderr, "%-16s %8u %12s %12s (%.2f %%)\n", "in all", sum.tensors, a, b,
            100 * (double)sum.trained / (double)sum.all);
}

static bool print_plan(const struct Train *t, const struct TrainPlan *p, const struct Device *dev) {
    const struct TrainOptions *o = &t->o;
    struct RolePlan sum = plan_sum(p);
    json_t *j =
        json_pack("{s:s, s:f, s:i, s:i, s:i, s:f, s:s, s:I, s:f, s:I, s:I}", "method", TRAIN_METHODS[o->method],
                  "epochs", o->epochs, "batch", (int)o->batch_examples, "micro_batch", (int)o->micro_rows, "context",
                  (int)o->seq_len, "learning_rate", (double)o->learning_rate, "schedule", TRAIN_SCHEDULES[o->schedule],
                  "warmup", (json_int_t)o->warmup_steps, "weight_decay", (double)o->weight_decay, "trained_parameters",
                  (json_int_t)sum.trained, "parameters", (json_int_t)sum.all);
    if (o->neftune_alpha > 0)
        json_object_set_new(j, "neftune_alpha", json_real((double)o->neftune_alpha));
    if (t->steps)
        json_object_set_new(j, "steps", json_integer((json_int_t)t->steps));
    if (train_template(t))
        json_object_set_new(j, "chat_template", json_repaired(train_template(t)));
    json_object_set_new(j, "memory", memory_json(p, dev));
    json_object_set_new(j, "disk", json_integer((json_int_t)plan_disk_bytes(p, o, t->steps)));
    return output_json(j, JSON_FORM);
}

// ---- While it runs

struct Watch {
    struct Train *t;
    struct Progress progress;
    double draw_at, last_validation;
    struct DpoFigures preferred; // of the last look at the held-out pairs; NaN: none
};

static const char *preferred_text(const struct Watch *w, char out[60]) {
    out[0] = 0;
    if (isfinite(w->preferred.margin))
        snprintf(out, 60, " (preferred %.0f %%, margin %.3f)", 100 * w->preferred.accuracy, w->preferred.margin);
    return out;
}

static void on_step(void *context, const struct TrainStatus *s) {
    struct Watch *w = context;
    char validation[120] = "", balance[40] = "", preferred[60] = "", held[60];
    if (isfinite(s->dpo.loss))
        snprintf(preferred, sizeof preferred, "  preferred %.0f %%, margin %.3f", 100 * s->dpo.accuracy, s->dpo.margin);
    if (isfinite(s->validation.loss)) {
        w->preferred = s->validation;
        w->last_validation = s->validation.loss;
    }
    if (isfinite(w->last_validation))
        snprintf(validation, sizeof validation, "  held out %.4f%s", w->last_validation, preferred_text(w, held));
    if (s->balance > 0)
        snprintf(balance, sizeof balance, "  balance %.5f", s->balance);
    progress_update(&w->progress, s->step, "epoch %.2f  loss %.4f%s%s%s  |g| %.3f  %.0f tok/s", s->epoch, s->loss,
                    preferred, validation, balance, s->grad_norm, s->tokens_per_second);
    double now = clock_seconds();
    if (now > w->draw_at) { // of a long run the pictures take longer: they get a fiftieth of the time at most
        curves_draw_run(w->t->o.out);
        w->draw_at = clock_seconds() + fmax(15, 50 * (clock_seconds() - now));
    }
}

static void on_sample(void *context, uint64_t step, const char *text) {
    struct Watch *w = context;
    const char *dim = term_paint(stderr, PAINT_DIM), *none = term_paint(stderr, PAINT_NONE);
    progress_clear(&w->progress);
    fprintf(stderr, "%ssample after step %llu:%s\n", dim, (unsigned long long)step, none);
    term_write(stderr, text, strlen(text));
    fprintf(stderr, "\n");
}

// transformers 5 holds the experts of these classes in one tensor a projection, which PEFT does not find by the names of single experts.
static bool is_beyond_peft(const struct Train *t) {
    const struct Config *c = &t->m->config;
    return train_adapts(t->o.method) && (t->o.lora.targets & LORA_EXPERTS) && config_moe_layers(c) > 0 &&
           (c->arch == ARCH_QWEN2MOE || c->arch == ARCH_OLMOE);
}

static void show_result(const struct Watch *w, const struct TrainLosses *l) {
    const struct Train *t = w->t;
    char took[16], held[60];
    term_format_duration(t->state.seconds, took);
    if (isfinite(l->first))
        fprintf(stderr, "loss %.4f -> %.4f", l->first, l->last);
    if (isfinite(l->held_before))
        fprintf(stderr, ", held out %.4f -> %.4f%s", l->held_before, l->held_last, preferred_text(w, held));
    if (t->o.keep_best && t->best.step)
        fprintf(stderr, " (kept: %.4f after step %llu)", t->best.loss, (unsigned long long)t->best.step);
    fprintf(stderr, "%s%s in %s after %s\n", isfinite(l->first) ? "; " : "",
            train_adapts(t->o.method) ? "adapter"
            : t->o.experts_only       ? "trained experts"
                                      : "model",
            t->o.out, took);
    if (t->o.experts_only)
        fprintf(stderr, "vkmoe merge %s --adapter %s --out PATH makes a model of them\n", t->o.base_name, t->o.out);
    if (is_beyond_peft(t))
        fprintf(
            stderr,
            "PEFT does not load adapters of this model's experts with transformers 5: for use there make one model of "
            "both, vkmoe merge %s --adapter %s --out PATH\n",
            t->o.base_name, t->o.out);
}

// What was not measured is left out.
static bool print_result(const struct Watch *w, const struct TrainLosses *l) {
    const struct Train *t = w->t;
    const struct {
        const char *name;
        double value;
    } FIGURES[] = {{"first_loss", l->first},
                   {"last_loss", l->last},
                   {"validation_before", l->held_before},
                   {"validation_after", l->held_last},
                   {"validation_margin", w->preferred.margin},
                   {"validation_accuracy", w->preferred.accuracy}};
    const struct Device *dev = t->m->dev;
    json_t *j = json_pack("{s:I, s:b, s:f, s:o, s:I, s:I}", "steps", (json_int_t)t->state.step, "finished",
                          t->state.step >= t->steps, "seconds", t->state.seconds, "out", json_repaired(t->o.out),
                          "device_peak_bytes", (json_int_t)dev->peak_bytes, "host_bytes", (json_int_t)dev->host_bytes);
    for (size_t i = 0; i < sizeof FIGURES / sizeof FIGURES[0]; i++)
        if (isfinite(FIGURES[i].value))
            json_object_set_new(j, FIGURES[i].name, json_real(FIGURES[i].value));
    return output_json(j, JSON_FORM);
}

static int run(const struct Args *args, struct Train *t, struct Model *m, const struct ModelFile *file) {
    struct Watch w = {
        .t = t, .draw_at = clock_seconds() + 15, .last_validation = NAN, .preferred = {NAN, NAN, NAN, NAN, NAN}};
    struct TrainLosses losses;
    struct DpoFigures found = {.loss = NAN};
    if (!train_begin(t, m))
        return EXIT_FAILED;
    if (t->state.step >= t->steps)
        fprintf(stderr, "all %llu steps are done already\n", (unsigned long long)t->steps);
    else if (t->state.step)
        fprintf(stderr, "goes on at step %llu of %llu\n", (unsigned long long)t->state.step + 1,
                (unsigned long long)t->steps);
    else if (!train_validate(t, &found))
        return EXIT_FAILED;
    double before = found.loss;
    if (isfinite(before))
        fprintf(stderr, "held-out loss before training: %.4f (%zu examples)\n", before, t->held_out.n);
    struct OutputGuard guard;
    output_catch(&guard, on_signal);
    t->stop = &stop_asked;
    t->save = &save_asked;
    t->on_step = on_step;
    t->on_sample = on_sample;
    t->context = &w;
    uint64_t first = t->state.step;
    progress_begin(&w.progress, "train", "step", first, t->steps);
    bool ok = train_loop(t);
    if (t->state.step > first)
        progress_end(&w.progress);
    output_unguard(&guard);
    curves_draw_run(t->o.out);
    if (!ok)
        return EXIT_FAILED;
    if (t->state.step < t->steps)
        fprintf(stderr, "stopped after step %llu of %llu and saved; --resume goes on\n",
                (unsigned long long)t->state.step, (unsigned long long)t->steps);
    else if (!train_finish(t, file))
        return EXIT_FAILED;
    if (!report_losses(t, &losses))
        return EXIT_FAILED;
    if (t->state.step >= t->steps)
        show_result(&w, &losses);
    return args_switch(args, "json") && !print_result(&w, &losses) ? EXIT_FAILED : EXIT_DONE;
}

// ---- The command

static enum DType weight_type(const struct Args *args, enum TrainMethod method) {
    enum DType type = DT_F32;
    if (args_given(args, "type"))
        dtype_find(args_text(args, "type"), &type);
    else if (train_adapts(method)) // a frozen base stays as it is stored
        return DT_COUNT;
    return type;
}

static void show_load(void *context, uint64_t done, uint64_t all) {
    (void)all;
    progress_update(context, done >> 20, "MiB of weights");
}

// What is taken as it was asked for and can hardly be meant.
static void warn_of_settings(const struct Args *args, const struct Train *t) {
    const struct TrainOptions *o = &t->o;
    if (o->learning_rate == 0)
        warn("--lr 0: nothing is learnt");
    else if (train_adapts(o->method) && o->loss == LOSS_SFT && !args_given(args, "lr") && !args_text(args, "recipe"))
        warn("--lr %s is the rate of full fine-tuning; adapters usually take 1e-4 to 1e-3", setting(args, "lr"));
    if (t->steps && o->warmup_steps >= t->steps)
        warn("--warmup %llu: the run has %llu step%s: the learning rate rises to its end",
             (unsigned long long)o->warmup_steps, (unsigned long long)t->steps, plural(t->steps));
    for (size_t i = 0; o->validation && i < t->data.n_paths; i++)
        if (t->held_out.n && strcmp(t->data.sha256[i], t->held_out.sha256[0]) == 0)
            warn("--validation %s is what --data has too: its loss says nothing about examples that were not learnt",
                 o->validation);
}

// The table of what is trained, the memory, one sample; false where the run does not fit.
static bool plan_run(const struct Args *args, struct Train *t, const struct ModelFile *f, enum DType type,
                     const struct Device *dev, struct TrainPlan *plan) {
    if (!plan_micro_rows(t, f, type, dev) || !train_plan(f, type, &t->o, dev, plan))
        return false;
    show_trained(plan);
    memory_show(plan, dev);
    if (t->o.adapter)
        fprintf(stderr, "trained further: the adapter %s, rank %u, alpha %g%s\n", t->o.adapter, t->o.lora.rank,
                (double)t->o.lora.alpha, t->o.lora.rank_stabilised ? " (stabilised)" : "");
    fprintf(stderr, "micro-batch: %u rows of %u tokens\n", t->o.micro_rows, t->o.seq_len);
    if (t->o.in_backward && t->o.clip_norm > 0)
        fprintf(stderr, "the norm for --clip takes a second forward and backward a step; --clip 0 saves it\n");
    reading_show(&t->data, "data", &t->o.reading, t->o.seq_len);
    reading_show(&t->held_out, "held out", &t->o.reading, t->o.seq_len);
    warn_of_settings(args, t);
    if (train_template(t)) {
        fprintf(stderr, "chat template: %s\n", train_template(t));
        template_warn(t->chat, f->path);
    }
    if (t->data.n)
        reading_show_example(stderr, &t->data, &t->data.examples[0], t->tokenizer, 400);
    if (args_switch(args, "dry-run") && args_switch(args, "json") && !print_plan(t, plan, dev))
        return false;
    if (!memory_check(t, f, type, plan, dev))
        return false;
    if (!args_text(args, "assume-memory")) // whose disk is another one, too
        disk_show(plan, &t->o, t->steps);
    return true;
}

static int load_and_run(const struct Args *args, struct Train *t, const struct ModelFile *f, enum DType type,
                        struct Device *dev, uint64_t weight_bytes) {
    struct Model m;
    struct Progress progress;
    struct ModelOptions mo = train_model_options(&t->o, &f->config, type);
    mo.progress = show_load, mo.progress_context = &progress;
    progress_begin(&progress, "load", "MiB", 0, weight_bytes >> 20);
    bool loaded = t->o.from_scratch ? model_init_with(&m, dev, &f->config, &mo) && model_randomise(&m, t->o.seed)
                                    : model_load(&m, dev, f, &mo);
    progress_clear(&progress);
    if (!loaded) {
        model_free(&m);
        return EXIT_FAILED;
    }
    int status = run(args, t, &m, f);
    train_end(t);
    model_free(&m);
    return status;
}

// A card that is not here: the most memory that any way to multiply takes is counted, which is that of a whole workgroup's matrix units.
static bool assumed_device(const struct Args *args, struct Device *dev) {
    struct Device card;
    uint64_t bytes;
    if (!memory_read(args_text(args, "assume-memory"), &bytes))
        return false;
    device_open_dry(&card, NULL);
    for (int i = 0; i < CAP_COUNT; i++)
        card.caps[i].on = i != CAP_host_visible;
    card.coopmat = (struct CoopmatShape){16, 16, 16, DT_BF16};
    card.limits.heap_bytes = card.limits.memory_bytes = bytes;
    device_open_dry(dev, &card);
    snprintf(dev->name, sizeof dev->name, "a card with %s", args_text(args, "assume-memory"));
    return true;
}

// A lost device is opened again and the run goes on from its last checkpoint, as long as it gets further that way.
static int with_device(const struct Args *args, struct Train *t, const struct ModelFile *f, enum DType type) {
    enum { FUTILE_LOSSES = 3 };
    struct Device dev;
    struct TrainPlan plan;
    if (!(args_text(args, "assume-memory") ? assumed_device(args, &dev) : load_device(&dev, args)))
        return EXIT_FAILED;
    fprintf(stderr, "%s\n", dev.name);
    int status = EXIT_FAILED;
    uint64_t reached = 0;
    bool go = plan_run(args, t, f, type, &dev, &plan);
    if (go && args_switch(args, "dry-run")) {
        if (t->steps)
            fprintf(stderr, "%llu steps; ", (unsigned long long)t->steps);
        fprintf(stderr, "nothing was trained (--dry-run)\n");
        status = EXIT_DONE;
        go = false;
    }
    for (uint32_t futile = 0; go;) {
        status = load_and_run(args, t, f, type, &dev, plan.weights + plan.host_weights);
        futile = t->state.step > reached ? 0 : futile + 1;
        reached = max_u64(reached, t->state.step);
        if (dev.state != DEVICE_LOST || futile == FUTILE_LOSSES || stop_asked)
            break;
        device_close(&dev);
        if (!load_device(&dev, args))
            return EXIT_FAILED;
        warn("the device was lost at step %llu: it is opened again, and the run goes on from its last checkpoint",
             (unsigned long long)t->state.step + 1);
        t->o.resume = true;
    }
    profile_print(&dev);
    device_close(&dev);
    return status;
}

// The plan of a preset, which has neither weights nor a tokenizer to read the data with.
static int preset_plan(const struct Args *args, const struct ModelFile *f, const struct TrainOptions *o) {
    struct Train t = {.o = *o, .steps = o->steps, .lock = -1};
    fprintf(stderr, "%s is a preset without a tokenizer: --data is not read\n", f->path);
    return with_device(args, &t, f, weight_type(args, o->method));
}

static int train_on_file(const struct Args *args, const struct ModelFile *f, const struct TrainOptions *o) {
    struct Tokenizer tokenizer;
    struct Template chat;
    struct TrainOptions with = *o;
    int status = EXIT_FAILED;
    if (!tokenizer_open(&tokenizer, f))
        return EXIT_FAILED;
    char *name = load_template_name(args, o->adapter, o->from_scratch ? NULL : args->operands[0]);
    if (template_open_late(&chat, name, f->chat_template, &tokenizer, f->path)) {
        struct Train t = {.lock = -1};
        char *text = name ? template_source(name) : NULL; // as it is now: the file may be gone when the run ends
        with.template_text = text;
        with.template_name = name;
        if ((!name || text) && train_load_data(&t, &with, &tokenizer, &chat))
            status = with_device(args, &t, f, weight_type(args, o->method));
        train_free(&t);
        template_free(&chat);
        free(text);
    }
    free(name);
    tokenizer_free(&tokenizer);
    return status;
}

int cmd_train(const struct Args *args) {
    signal(SIGUSR1, on_save_signal); // for as long as the program lives: too early or too late it must do no harm
    signal(SIGPIPE, SIG_IGN);        // nobody need look on: what cannot be told is no reason to lose the run
    static const char *const LORA_FLAGS[] = {"lora-rank", "lora-alpha", "lora-targets", "rslora", "lora-experts-share"};
    static const char *const SAMPLE_FLAGS[] = {"sample-prompt", "sample-tokens", "sample-temperature"};
    static const char *const ESFT_FLAGS[] = {"esft-score", "esft-threshold", "esft-config", "esft-only"};
    for (size_t i = 0; i < sizeof LORA_FLAGS / sizeof LORA_FLAGS[0]; i++)
        if (args_given(args, LORA_FLAGS[i]) && !train_adapts(method_of(args)))
            return args_wrong(args, "--%s needs --method lora or qlora", LORA_FLAGS[i]);
        else if (args_given(args, LORA_FLAGS[i]) && args_given(args, "adapter"))
            return args_wrong(args, "--adapter and --%s exclude each other: an adapter keeps what it was made with",
                              LORA_FLAGS[i]);
    if (args_given(args, "adapter") && !train_adapts(method_of(args)))
        return args_wrong(args, "--adapter needs --method lora or qlora; `vkmoe merge` makes it part of the weights");
    for (size_t i = 0; i < sizeof ESFT_FLAGS / sizeof ESFT_FLAGS[0]; i++)
        if (args_given(args, ESFT_FLAGS[i]) && method_of(args) != TRAIN_ESFT)
            return args_wrong(args, "--%s needs --method esft", ESFT_FLAGS[i]);
    if (args_given(args, "dpo-beta") && !args_choice(args, "loss", "dpo"))
        return args_wrong(args, "--dpo-beta needs --loss dpo");
    if (args_given(args, "esft-config") && (args_given(args, "esft-score") || args_given(args, "esft-threshold")))
        return args_wrong(
            args, "--esft-config says which experts are trained; --esft-score and --esft-threshold would choose");
    if (args_given(args, "validation") && args_given(args, "validation-split"))
        return args_wrong(args, "--validation and --validation-split exclude each other");
    if (args_switch(args, "keep-best") && (args_int(args, "validate-every") == 0 ||
                                           !(args_given(args, "validation") || args_given(args, "validation-split"))))
        return args_wrong(args, "--keep-best needs --validate-every, and --validation or --validation-split");
    if (args_int(args, "validate-every") && !args_given(args, "validation") && !args_given(args, "validation-split"))
        return args_wrong(args, "--validate-every needs --validation or --validation-split");
    for (size_t i = 0; i < sizeof SAMPLE_FLAGS / sizeof SAMPLE_FLAGS[0]; i++)
        if (args_given(args, SAMPLE_FLAGS[i]) && args_int(args, "sample-every") == 0)
            return args_wrong(args, "--%s needs --sample-every", SAMPLE_FLAGS[i]);
    if (args_given(args, "epochs") && args_given(args, "steps"))
        return args_wrong(args, "--epochs and --steps exclude each other");
    bool scratch = args_switch(args, "from-scratch");
    if (scratch && (method_of(args) != TRAIN_FULL || args_choice(args, "loss", "dpo")))
        return args_wrong(args, "--from-scratch trains all weights on texts: --method full, --loss sft");
    if (args_given(args, "tokenizer") && !scratch)
        return args_wrong(args, "--tokenizer needs --from-scratch: a model has its own");
    if (args_given(args, "assume-memory") && !args_switch(args, "dry-run"))
        return args_wrong(args, "--assume-memory needs --dry-run");
    struct ModelFile f;
    bool preset = args_switch(args, "dry-run") && !scratch && load_preset(&f, args->operands[0]);
    if (scratch ? !scratch_open(&f, args->operands[0], args_text(args, "tokenizer"))
                : !preset && !load_open(&f, args->operands[0], true))
        return EXIT_FAILED;
    if (args_given(args, "balance")) // before the plan: the loss takes memory
        f.config.aux_alpha = (float)args_float(args, "balance");
    if (args_given(args, "balance-over"))
        f.config.seq_aux = args_choice(args, "balance-over", "document");
    struct TrainOptions o = {0};
    struct Reading reading = {0};
    int status = EXIT_FAILED;
    if (reading_open_list(&reading, args, args_text(args, "data")) && options_read(args, &f.config, &reading, &o) &&
        out_check(&o) && (!o.adapter || train_adapter(&o, &f))) {
        if (o.seq_len > f.config.max_context)
            fail("--context %u is above the model's context of %u", o.seq_len, f.config.max_context);
        else if (o.seq_len < 2)
            fail("%s: a context of one token: there is nothing before a token to learn it from", f.path);
        else if ((uint64_t)o.seq_len * o.micro_rows > UINT64_C(1) << 28)
            fail("--context %u times --micro-batch %u: more than 2^28 tokens at once", o.seq_len, o.micro_rows);
        else
            status = preset ? preset_plan(args, &f, &o) : train_on_file(args, &f, &o);
    }
    scratch ? scratch_close(&f) : modelfile_close(&f);
    reading_free(&reading);
    free((void *)o.command);
    free((void *)o.adapted);
    return status;
}
