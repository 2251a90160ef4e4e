// `vkmoe bench train MODEL`: what a training step costs, on random tokens: no data are needed, and nothing is written. A step is --batch rows of
// --context tokens, all of them learnt. "Forward" is the loss alone, as a validation computes it; "backward" is what forward and backward together
// take above that; "optimiser" is zeroing the gradients, their norm, and AdamW.
#include "cli/bench.h"
#include "cli/load.h"
#include "train/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 1000 };

struct Bench {
    const struct Args *args;
    struct TrainOptions o;
    struct Loaded l;
    struct Step step;
    struct ExpertList experts;
    struct PackPlan plan;
    double *seconds[4]; // of each timed step: all of it, forward, backward, optimiser
    double *cpu;        // processor time of each step
    double gemm_gflops; // the device's own peak
};

static bool options_read(struct Bench *b) {
    const struct Args *args = b->args;
    enum TrainMethod method = TRAIN_FULL;
    while (!args_choice(args, "method", TRAIN_METHODS[method]))
        method++;
    b->o = (struct TrainOptions){.method = method,
                                 .lora = {.rank = (uint32_t)args_int(args, "lora-rank"),
                                          .alpha = 2 * (float)args_int(args, "lora-rank"),
                                          .targets = LORA_ALL},
                                 .lora_experts_share = 1,
                                 .expert_threshold = args_float(args, "esft-threshold"),
                                 .seq_len = (uint32_t)args_int(args, "context"),
                                 .micro_rows = (uint32_t)args_int(args, "micro-batch"),
                                 .learning_rate = 1e-6f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.95f,
                                 .eps = 1e-8f,
                                 .weight_decay = 0.1f,
                                 .clip_norm = 1,
                                 .moments8 = args_choice(args, "moments", "8bit"),
                                 .recompute = args_choice(args, "recompute", "on"),
                                 .in_backward = args_choice(args, "optimizer-in-backward", "on"),
                                 .offload = (strstr(args_text(args, "offload"), "moments") ? OFFLOAD_MOMENTS : 0) |
                                            (strstr(args_text(args, "offload"), "weights") ? OFFLOAD_WEIGHTS : 0),
                                 .seed = (uint64_t)args_int(args, "seed")};
    b->o.batch_examples = args_given(args, "batch") ? (uint32_t)args_int(args, "batch") : b->o.micro_rows;
    if (args_given(args, "lora-rank") && !train_adapts(method))
        return args_good(fail("--lora-rank is of --method lora and qlora"));
    if (args_given(args, "esft-threshold") && method != TRAIN_ESFT)
        return args_good(fail("--esft-threshold is of --method esft"));
    uint32_t most = b->l.file.config.max_context;
    if (b->o.seq_len > most && args_given(args, "context"))
        return fail("--context %u is above the model's context of %u", b->o.seq_len, most);
    b->o.seq_len = (uint32_t)min_u64(b->o.seq_len, most);
    if (b->o.in_backward && b->o.batch_examples > b->o.micro_rows)
        return fail("--optimizer-in-backward on: a step is one micro-batch, and --batch asks for more");
    if ((b->o.offload & OFFLOAD_WEIGHTS) && !b->l.file.n_tensors)
        return fail("--offload weights: a preset's are made on the device; `vkmoe init` writes them to a file");
    return (uint64_t)b->o.seq_len * b->o.micro_rows <= UINT64_C(1) << 28 ||
           fail("--context %u times --micro-batch %u: more than 2^28 tokens at once", b->o.seq_len, b->o.micro_rows);
}

// As `train` chooses: f32 where the base is trained, else as the file has it; a preset's frozen base is bf16 or, for qlora, q4_k.
static enum DType weight_type(const struct Bench *b) {
    enum DType type = DT_F32;
    if (args_given(b->args, "type"))
        dtype_find(args_text(b->args, "type"), &type);
    else if (train_adapts(b->o.method))
        return b->l.file.n_tensors ? DT_COUNT : b->o.method == TRAIN_QLORA ? DT_Q4_K : DT_BF16;
    return type;
}

// Rows of random tokens; the last token of each has nothing to predict.
static bool batch_make(struct Bench *b) {
    uint32_t n = b->o.batch_examples, len = b->o.seq_len, vocab = b->l.file.config.vocab_size;
    struct Example *examples = xcalloc(n, sizeof *examples);
    const struct Example **list = xcalloc(n, sizeof *list);
    for (uint32_t i = 0; i < n; i++) {
        examples[i] =
            (struct Example){.ids = xmalloc(len * sizeof(uint32_t)), .labels = xmalloc(len * sizeof(int32_t))};
        examples[i].n = len, examples[i].n_labels = len - 1;
        list[i] = &examples[i];
        for (uint32_t t = 0; t < len; t++) {
            uint32_t word[4];
            philox(b->o.seed, i, t, word);
            examples[i].ids[t] = word[0] % vocab;
        }
        for (uint32_t t = 0; t < len; t++)
            examples[i].labels[t] = t + 1 < len ? (int32_t)examples[i].ids[t + 1] : -1;
    }
    bool ok = pack_plan(&b->plan, list, n,
                        &(struct PackOptions){.seq_len = len, .micro_tokens = len * b->o.micro_rows, .round = 32});
    for (uint32_t i = 0; i < n; i++)
        free(examples[i].ids), free(examples[i].labels);
    free(examples);
    free(list);
    return ok;
}

static bool step_make(struct Bench *b) {
    const struct TrainOptions *o = &b->o;
    struct StepOptions so = {.micro_tokens = o->seq_len * o->micro_rows,
                             .recompute = o->recompute,
                             .beta1 = o->beta1,
                             .beta2 = o->beta2,
                             .eps = o->eps,
                             .seed = o->seed,
                             .optimiser = {.weight_decay = o->weight_decay,
                                           .clip_norm = o->clip_norm,
                                           .moments8 = o->moments8,
                                           .in_backward = o->in_backward,
                                           .offload = o->offload,
                                           .experts = o->method == TRAIN_ESFT ? &b->experts : NULL}};
    return step_init(&b->step, &b->l.model, &so, !train_adapts(o->method));
}

static bool model_make(struct Bench *b) {
    struct Loaded *l = &b->l;
    enum DType type = weight_type(b);
    struct TrainPlan plan;
    l->has_device = load_device(&l->dev, b->args);
    if (!l->has_device || !train_plan(&l->file, type, &b->o, &l->dev, &plan) ||
        !memory_fits(
            &l->dev, plan.total, plan.host, "this step",
            "try --method lora or qlora, --type bf16, a smaller --context or --micro-batch, or --recompute on"))
        return false;
    b->gemm_gflops = peaks_gemm(&l->dev, type == DT_COUNT ? l->file.tensors[0].type : type);
    l->dev.peak_bytes = l->dev.allocated_bytes;
    struct ModelOptions mo = train_model_options(&b->o, &l->file.config, type);
    l->has_model = load_weights(l, &l->dev, &l->model, &mo);
    if (b->o.method == TRAIN_ESFT)
        esft_choose(&b->experts, &l->file.config, NULL, b->o.expert_threshold);
    return l->has_model && (!train_adapts(b->o.method) || model_add_lora(&l->model, &b->o.lora, b->o.seed)) &&
           step_make(b);
}

// ---- A step

static bool forward_once(struct Bench *b, double *seconds) {
    double begin = clock_seconds(), loss = 0;
    for (size_t i = 0; i < b->plan.n; i++)
        if (!step_evaluate(&b->step, &b->plan.micro[i], &loss))
            return false;
    *seconds = clock_seconds() - begin;
    return true;
}

static bool step_once(struct Bench *b, uint64_t number, double *all, double *optimiser) {
    struct StepResult result;
    double begin = clock_seconds();
    if (!step_begin(&b->step, b->plan.n_labels) || !device_wait(&b->l.dev))
        return false;
    double zeroed = clock_seconds();
    for (size_t i = 0; i < b->plan.n; i++)
        if (!step_micro(&b->step, &b->plan.micro[i], b->o.batch_examples, b->plan.n_tokens))
            return false;
    if (!device_wait(&b->l.dev))
        return false;
    double backward = clock_seconds();
    if (!step_update(&b->step, number, b->o.learning_rate, &result))
        return false;
    double end = clock_seconds();
    *all = end - begin;
    *optimiser = b->o.in_backward ? 0 : zeroed - begin + end - backward; // there it is a part of the backward
    return isfinite(result.loss) || fail("the loss is not finite: these weights cannot be trained as --type says");
}

static bool steps_run(struct Bench *b, uint32_t n) {
    double ignored;
    if (!forward_once(b, &ignored) || !step_once(b, 1, &ignored, &ignored)) // these compile and wake the device
        return false;
    for (uint32_t i = 0; i < n; i++) {
        double all, forward, optimiser, used;
        if (!forward_once(b, &forward))
            return false;
        used = cpu_seconds();
        if (!step_once(b, i + 2, &all, &optimiser))
            return false;
        b->cpu[i] = cpu_seconds() - used;
        b->seconds[0][i] = all;
        b->seconds[1][i] = forward;
        b->seconds[2][i] = all - optimiser - forward;
        b->seconds[3][i] = optimiser;
    }
    return true;
}

// ---- What is told

// By the usual count: 2 floating-point operations per weight and token forward, as many for the gradient of the input and, where the weights are trained,
// for theirs. Adapters, chosen experts and what is computed again are left out.
static double model_flops(const struct Bench *b, double tokens) {
    double forward = config_train_flops(&b->l.file.config, b->o.seq_len) / 3 / b->o.seq_len;
    return tokens * forward * (b->o.method == TRAIN_FULL ? 3 : 2);
}

static double dispatches(struct Bench *b) {
    double n = b->step.begin ? program_dispatches(b->step.begin) : 0;
    n += b->step.update ? program_dispatches(b->step.update) : 0;
    for (size_t i = 0; i < b->plan.n; i++)
        n += program_dispatches(step_program(&b->step, &b->plan.micro[i]));
    return n;
}

static json_t *row_make(struct Bench *b, uint32_t n) {
    double tokens = (double)b->plan.n_tokens;
    struct Spread cpu = spread_of(b->cpu, n), part[4];
    for (int i = 0; i < 4; i++)
        part[i] = spread_of(b->seconds[i], n);
    const struct Device *dev = &b->l.dev;
    double gflops = model_flops(b, tokens) / part[0].median / 1e9;
    char *model = bench_model_name(b->l.file.path);
    json_t *row = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
        "model", model, "type", DTYPES[b->l.model.layers[0].q.w->w.type].name, "method", TRAIN_METHODS[b->o.method],
        "context", (int)b->o.seq_len, "micro_batch", (int)b->o.micro_rows, "batch", (int)b->o.batch_examples,
        "recompute", b->o.recompute ? "on" : "off", "moments", b->o.moments8 ? "8bit" : "f32", "tokens_per_second",
        tokens / part[0].median, "spread_percent", part[0].percent, "forward_ms", 1000 * part[1].median, "backward_ms",
        1000 * part[2].median, "optimiser_ms", 1000 * part[3].median, "forward_tokens_per_second",
        tokens / part[1].median, "dispatches_per_token", dispatches(b) / tokens, "cpu_ms_per_token",
        1000 * cpu.median / tokens, "model_gflops", gflops, "gemm_gflops", b->gemm_gflops, "gemm_percent",
        b->gemm_gflops > 0 ? 100 * gflops / b->gemm_gflops : 0, "peak_mib", (double)dev->peak_bytes / 1048576,
        "host_mib", (double)dev->host_bytes / 1048576);
    free(model);
    return row;
}

static const struct BenchColumn COLUMNS[] = {{"model", "model", -20, 0},
                                             {"type", "type", -6, 0},
                                             {"method", "method", -6, 0},
                                             {"context", "context", 7, 0},
                                             {"micro_batch", "micro", 5, 0},
                                             {"batch", "batch", 5, 0},
                                             {"recompute", "again", 5, 0},
                                             {"moments", "moments", 7, 0},
                                             {"tokens_per_second", "t/s", 10, 1},
                                             {"spread_percent", "spread%", 7, 1},
                                             {"forward_ms", "forward ms", 10, 2},
                                             {"backward_ms", "backward ms", 11, 2},
                                             {"optimiser_ms", "optimiser ms", 12, 2},
                                             {"dispatches_per_token", "disp/tok", 8, 3},
                                             {"cpu_ms_per_token", "CPU ms/tok", 10, 3},
                                             {"model_gflops", "GFLOP/s", 10, 1},
                                             {"gemm_percent", "GEMM%", 6, 1},
                                             {"peak_mib", "MiB", 10, 1},
                                             {"host_mib", NULL, 0, 1},
                                             {"forward_tokens_per_second", NULL, 0, 1},
                                             {"gemm_gflops", NULL, 0, 1},
                                             {0}};

static bool operations(struct Bench *b) {
    char title[256], *model = bench_model_name(b->l.file.path);
    double ignored;
    snprintf(title, sizeof title, "%.100s, a step of %s: time by operation", model, TRAIN_METHODS[b->o.method]);
    free(model);
    step_free(&b->step);
    profile_begin(); // what is recorded from here on is timed
    return step_make(b) && step_once(b, 1, &ignored, &ignored) && bench_operations(b->args, title);
}

static int measure(struct Bench *b) {
    struct BenchTable table;
    uint32_t n = (uint32_t)args_int(b->args, "steps");
    if (!model_make(b) || !batch_make(b) ||
        !bench_begin(&table, b->args, &b->l.dev, COLUMNS, 8, "tokens_per_second", false))
        return EXIT_FAILED;
    bool ok = steps_run(b, n);
    if (ok)
        bench_row(&table, row_make(b, n));
    if (ok && (args_switch(b->args, "operations") || args_text(b->args, "png")))
        ok = operations(b);
    return bench_end(&table, ok);
}

int bench_train(const struct Args *args) {
    struct Bench b = {.args = args};
    int status = EXIT_FAILED;
    const char *path = args->operands[1];
    if (!load_open_any(&b.l.file, path, true))
        return EXIT_FAILED;
    for (int i = 0; i < 4; i++)
        b.seconds[i] = xcalloc(MAX_STEPS, sizeof(double));
    b.cpu = xcalloc(MAX_STEPS, sizeof(double));
    if (options_read(&b))
        status = measure(&b);
    for (int i = 0; i < 4; i++)
        free(b.seconds[i]);
    free(b.cpu);
    pack_free(&b.plan);
    step_free(&b.step);
    esft_free(&b.experts);
    load_free(&b.l);
    return status;
}
