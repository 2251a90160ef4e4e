// `vkmoe bench model MODEL`: how fast prompts are read and tokens are made, as llama-bench measures it and with its names: pp512 reads 512 tokens,
// tg128 makes 128 one by one, "@ d4096" does so behind 4096 others, "x8" for eight sequences at once. A preset has random weights.
#include "cli/bench.h"
#include "cli/load.h"
#include "cli/term.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 16, MAX_REPETITIONS = 63 };

struct Test {
    bool prompt;
    uint32_t tokens, depth, sequences;
};

static struct SessionOptions session_options(const struct Test *t) {
    return (struct SessionOptions){
        .n_sequences = t->sequences, .context = t->depth + t->tokens, .cache_type = DT_F16, .ahead = true};
}

static void test_name(const struct Test *t, char out[64]) {
    int n = snprintf(out, 64, "%s%u", t->prompt ? "pp" : "tg", t->tokens);
    if (t->sequences > 1)
        n += snprintf(out + n, 64 - (size_t)n, " x%u", t->sequences);
    if (t->depth)
        snprintf(out + n, 64 - (size_t)n, " @ d%u", t->depth);
}

// The cross product of the lists, depth by depth. NULL after one line.
static struct Test *tests_make(const struct Args *args, uint32_t context, uint32_t *n) {
    uint32_t prompt[MAX_LIST], gen[MAX_LIST], depth[MAX_LIST], batch[MAX_LIST], n_prompt, n_gen, n_depth, n_batch;
    if (!bench_list(args, "n-prompt", prompt, MAX_LIST, &n_prompt) ||
        !bench_list(args, "n-gen", gen, MAX_LIST, &n_gen) || !bench_list(args, "n-depth", depth, MAX_LIST, &n_depth) ||
        !bench_list(args, "sequences", batch, MAX_LIST, &n_batch))
        return NULL;
    struct Test *tests = xcalloc((size_t)n_depth * (n_prompt + n_gen * n_batch) + 1, sizeof *tests);
    bool ok = true;
    *n = 0;
    for (uint32_t d = 0; d < n_depth; d++) {
        for (uint32_t i = 0; i < n_prompt; i++)
            tests[(*n)++] = (struct Test){true, prompt[i], depth[d], 1};
        for (uint32_t b = 0; b < n_batch; b++)
            for (uint32_t i = 0; i < n_gen; i++)
                tests[(*n)++] = (struct Test){false, gen[i], depth[d], batch[b]};
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n && ok; i++) {
        struct Test t = tests[i];
        if (t.sequences < 1 || t.sequences > SESSION_MAX_SEQUENCES)
            ok = args_good(fail("--sequences %u: 1 to %d are possible", t.sequences, SESSION_MAX_SEQUENCES));
        else if (t.tokens && t.depth + t.tokens > context)
            ok = fail("%u tokens behind %u: the model's context is %u", t.tokens, t.depth, context);
        else if (t.tokens) // 0 asks for none
            tests[kept++] = t;
    }
    *n = kept;
    if (ok && kept == 0)
        ok = args_good(fail("nothing to measure: --n-prompt and --n-gen are both 0"));
    if (!ok)
        free(tests);
    return ok ? tests : NULL;
}

// ---- One test

struct Bench {
    struct Loaded *l;
    struct Session *s;
    const struct Test *t;
    uint32_t *
        ids; // as many as a sequence holds, the same in every run, as draws are: so the router chooses the same experts
};

// Reads what stands before the measured tokens into every sequence.
static bool fill_depth(struct Bench *b) {
    for (uint32_t i = 0; i < b->t->sequences && b->t->depth; i++)
        if (!session_prefill(b->s, i, b->ids, b->t->depth, NULL, NULL, NULL))
            return false;
    return true;
}

static bool run_once(struct Bench *b) {
    static const struct SampleParams GREEDY = {0};
    const struct Test *t = b->t;
    struct SampleParams params[SESSION_MAX_SEQUENCES] = {{0}};
    uint32_t sequences[SESSION_MAX_SEQUENCES], ids[SESSION_MAX_SEQUENCES], next[SESSION_MAX_SEQUENCES];
    for (uint32_t i = 0; i < t->sequences; i++) {
        sequences[i] = i;
        session_rewind(b->s, i, t->depth);
    }
    if (t->prompt)
        return session_prefill(b->s, 0, b->ids + t->depth, t->tokens, &GREEDY, next, NULL);
    for (uint32_t i = 0; i < t->sequences; i++) { // other tokens in each sequence, and so other experts
        params[i] = (struct SampleParams){.temperature = 1, .top_p = 1, .stream = i};
        next[i] = b->ids[(t->depth + 97 * i) % (t->depth + t->tokens)];
    }
    for (uint32_t step = 0; step < t->tokens; step++) { // as an answer goes on: with what was drawn
        memcpy(ids, next, sizeof ids);
        if (!session_decode(b->s, t->sequences, sequences, ids, params, next, NULL))
            return false;
        for (uint32_t i = 0; i < t->sequences; i++)
            params[i].index++;
    }
    return true;
}

// Of one run: what was recorded for its passes.
static double dispatches(const struct Bench *b, double *barriers) {
    const struct Test *t = b->t;
    const struct Session *s = b->s;
    double n = 0;
    *barriers = 0;
    if (!t->prompt) {
        *barriers = (double)program_barriers(s->decode[t->sequences]) * t->tokens;
        return (double)program_dispatches(s->decode[t->sequences]) * t->tokens;
    }
    for (uint32_t done = 0, now; done < t->tokens; done += now) {
        now = (uint32_t)min_u64(s->chunk, t->tokens - done);
        enum PrefillKind kind = done + now == t->tokens ? PREFILL_NEXT : PREFILL_FILL;
        for (uint32_t i = 0; i < s->n_prefills; i++)
            if (s->prefill[i].tokens == now && s->prefill[i].kind == kind) {
                n += program_dispatches(s->prefill[i].program);
                *barriers += program_barriers(s->prefill[i].program);
            }
    }
    return n;
}

static json_t *measure(struct Bench *b, uint32_t repetitions) {
    double rate[MAX_REPETITIONS], cpu[MAX_REPETITIONS], all = (double)b->t->tokens * b->t->sequences, barriers;
    if (!fill_depth(b) || !run_once(b)) // the first run compiles and wakes the device
        return NULL;
    json_t *samples = json_array();
    for (uint32_t i = 0; i < repetitions; i++) {
        double begin = clock_seconds(), used = cpu_seconds();
        if (!run_once(b)) {
            json_decref(samples);
            return NULL;
        }
        rate[i] = all / (clock_seconds() - begin);
        cpu[i] = (cpu_seconds() - used) / all;
        json_array_append_new(samples, json_real(rate[i]));
    }
    struct Spread speed = spread_of(rate, repetitions), work = spread_of(cpu, repetitions);
    double n = dispatches(b, &barriers);
    const struct Device *dev = &b->l->dev;
    char name[64], *model = bench_model_name(b->l->file.path);
    test_name(b->t, name);
    json_t *row = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:o, s:f, s:f, s:f, s:f, s:f, s:f}", "model",
                            model, "type", DTYPES[b->l->model.layers[0].q.w->w.type].name, "test", name, "tokens",
                            (int)b->t->tokens, "depth", (int)b->t->depth, "sequences", (int)b->t->sequences,
                            "tokens_per_second", speed.median, "spread_percent", speed.percent, "samples", samples,
                            "dispatches_per_token", n / all, "barriers_per_token", barriers / all, "cpu_ms_per_token",
                            1000 * work.median, "peak_mib", (double)dev->peak_bytes / 1048576, "host_mib",
                            (double)dev->host_bytes / 1048576, "mapped_mib", (double)dev->mapped_bytes / 1048576);
    free(model);
    return row;
}

// A session of its own for each test, as large as it needs: so the memory is the test's.
static json_t *test_run(struct Loaded *l, const struct SessionOptions *like, const struct Test *t, uint32_t repetitions,
                        bool operations) {
    struct SessionOptions o = session_options(t);
    o.cache_type = like->cache_type;
    l->dev.peak_bytes = l->dev.allocated_bytes;
    struct Bench b = {l, &l->session, t, xmalloc(o.context * sizeof *b.ids)};
    for (uint32_t i = 0; i < o.context; i++) {
        uint32_t word[4];
        philox(1, 0, i, word);
        b.ids[i] = word[0] % l->file.config.vocab_size;
    }
    json_t *row = NULL;
    if (session_init(&l->session, &l->model, &o)) {
        if (operations) { // what is recorded from here on is timed
            bool ready = fill_depth(&b) && session_record_again(&l->session);
            profile_begin();
            row = ready && run_once(&b) ? json_true() : NULL;
        } else {
            row = measure(&b, repetitions);
        }
    }
    session_free(&l->session);
    free(b.ids);
    return row;
}

static const struct BenchColumn COLUMNS[] = {{"model", "model", -24, 0},
                                             {"type", "type", -7, 0},
                                             {"test", "test", -20, 0},
                                             {"tokens_per_second", "t/s", 10, 2},
                                             {"spread_percent", "spread%", 7, 1},
                                             {"dispatches_per_token", "disp/tok", 9, 2},
                                             {"barriers_per_token", "barr/tok", 9, 2},
                                             {"cpu_ms_per_token", "CPU ms/tok", 10, 3},
                                             {"peak_mib", "MiB", 10, 1},
                                             {"host_mib", NULL, 0, 1},
                                             {"mapped_mib", NULL, 0, 1},
                                             {"tokens", NULL, 0, 0},
                                             {"depth", NULL, 0, 0},
                                             {"sequences", NULL, 0, 0},
                                             {0}};

static int run_tests(const struct Args *args, struct Loaded *l, const struct Test *tests, uint32_t n,
                     const struct SessionOptions *like) {
    struct BenchTable table;
    uint32_t repetitions = (uint32_t)args_int(args, "repetitions");
    if (!bench_begin(&table, args, &l->dev, COLUMNS, 3, "tokens_per_second", false))
        return EXIT_FAILED;
    bool ok = true;
    for (uint32_t i = 0; i < n && ok; i++) {
        json_t *row = test_run(l, like, &tests[i], repetitions, false);
        ok = row != NULL;
        if (row)
            bench_row(&table, row);
    }
    if (ok && (args_switch(args, "operations") || args_text(args, "png"))) {
        char name[64], title[256], *model = bench_model_name(l->file.path);
        test_name(&tests[n - 1], name);
        snprintf(title, sizeof title, "%.100s, %s: time by operation", model, name);
        free(model);
        json_t *row = test_run(l, like, &tests[n - 1], 1, true);
        ok = row != NULL && bench_operations(args, title);
    }
    return bench_end(&table, ok);
}

int bench_model(const struct Args *args) {
    struct Loaded l = {0};
    int status = EXIT_FAILED;
    const char *path = args->operands[1];
    if (!load_open_any(&l.file, path, true))
        return EXIT_FAILED;
    uint32_t n, most = 0;
    struct Test *tests = tests_make(args, l.file.config.max_context, &n);
    if (tests) {
        for (uint32_t i = 0; i < n; i++) { // the weights are placed for the test that needs the most beside them
            uint64_t now = (uint64_t)tests[i].sequences * (tests[i].depth + tests[i].tokens);
            if (now > (uint64_t)tests[most].sequences * (tests[most].depth + tests[most].tokens))
                most = i;
        }
        struct SessionOptions o = session_options(&tests[most]);
        for (uint32_t i = 0; i < n; i++)
            l.positions = (uint32_t)max_u64(l.positions, tests[i].depth + tests[i].tokens);
        if (load_model(&l, args, &o)) {
            o.cache_type = l.session.cache_type;
            session_free(&l.session);
            status = run_tests(args, &l, tests, n, &o);
        }
    }
    free(tests);
    load_free(&l);
    return status;
}
