// `vkmoe generate MODEL`: one answer, whose text streams to stdout as it comes, or one for each of many prompts (model/batch.h). With --json
// stdout gets an object for each answer instead. Answers come in the order of their prompts, whichever is ready first.
#include "cli/commands.h"
#include "cli/prompts.h"
#include "cli/term.h"
#include "model/batch.h"
#include "model/experts.h"
#include "model/json.h"
#include "model/utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Answer {
    uint32_t *ids;
    float *logprobs;
    json_t *top; // alternatives of each token; NULL: not asked for
    uint32_t n;
    const char *stopped; // "end", "stop", "length", "context"; NULL: not over yet
    double begin;
    char *text;
    size_t bytes;
    struct Detokenizer detokenizer;
    struct Stops stops;
};

struct Job {
    struct Loaded l;
    const struct Args *args;
    bool json, many;
    struct SamplerSettings set;
    struct Stops stops;
    struct Grammar grammar;
    struct Matching *matching;
    struct Prompts prompts;
    struct Answer *answers;
    uint32_t n_printed, limit, n_top;
    double begin, first, end; // of the run; first: when the first token was there
    uint64_t n_tokens;
};

// ---- What comes out

// Writes what is certain of the text; it is kept whole for --json and for answers that are not yet to be printed.
static void put(struct Job *j, struct Answer *a, const char *text, size_t bytes) {
    text = stops_push(&a->stops, text, bytes, &bytes);
    a->text = xrealloc(a->text, a->bytes + bytes + 1);
    memcpy(a->text + a->bytes, text, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = 0;
    if (j->json || j->many)
        return;
    if (term_is_terminal(stdout))
        term_write(stdout, text, bytes);
    else
        fwrite(text, 1, bytes, stdout);
    fflush(stdout);
}

// The first token comes out of the prompt's pass: the rate counts those after it.
static double token_rate(const struct Job *j, const struct Answer *a) {
    uint32_t steps = a->n > 0 && strcmp(a->stopped, "end") != 0 ? a->n - 1 : a->n;
    double seconds = j->end - j->first;
    return seconds > 0 ? steps / seconds : 0;
}

static json_t *text_of(const char *text, size_t bytes) {
    size_t length;
    char *repaired = utf8_repair(text ? text : "", bytes, &length);
    json_t *value = json_stringn(repaired, length);
    free(repaired);
    return value;
}

static void print_json(const struct Job *j, struct Answer *a, uint32_t index) {
    json_t *ids = json_array(), *logprobs = json_array(), *root = json_object();
    for (uint32_t i = 0; i < a->n; i++) {
        json_array_append_new(ids, json_integer(a->ids[i]));
        json_array_append_new(logprobs, json_real((double)a->logprobs[i]));
    }
    if (j->many)
        json_object_set_new(root, "prompt", json_integer(index));
    json_object_set_new(root, "text", text_of(a->text, a->bytes));
    json_object_set_new(root, "ids", ids);
    json_object_set_new(root, "logprobs", logprobs);
    if (a->top)
        json_object_set(root, "top_logprobs", a->top);
    json_object_set_new(root, "stopped", json_string(a->stopped));
    json_object_set_new(root, "prompt_tokens", json_integer((json_int_t)j->prompts.list[index].n));
    json_object_set_new(root, "tokens", json_integer(a->n));
    if (!j->many) {
        double prompt_seconds = j->first - j->begin;
        json_object_set_new(root, "prompt_tokens_per_second", json_real((double)j->prompts.list[0].n / prompt_seconds));
        json_object_set_new(root, "tokens_per_second", json_real(token_rate(j, a)));
    }
    struct ExpertUse use = experts_use(&j->l.model);
    if (use.slots && !j->many)
        json_object_set_new(root, "experts",
                            json_pack("{s:I, s:I, s:I, s:i, s:i}", "hits", (json_int_t)use.hits, "misses",
                                      (json_int_t)use.misses, "bytes", (json_int_t)use.bytes, "slots", (int)use.slots,
                                      "of", (int)use.experts));
    json_dumpf(root, stdout, JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
}

static void answer_free(struct Answer *a) {
    free(a->ids);
    free(a->logprobs);
    free(a->text);
    json_decref(a->top);
    detokenizer_free(&a->detokenizer);
    stops_free(&a->stops);
    *a = (struct Answer){.stopped = a->stopped};
}

static void print(struct Job *j, struct Answer *a, uint32_t index) {
    if (j->json)
        print_json(j, a, index);
    else if (j->many)
        fwrite(a->text ? a->text : "", 1, a->bytes, stdout);
    if (!j->json)
        putchar('\n');
    fflush(stdout);
}

// ---- While it is said

struct Likely {
    uint32_t id;
    float logit;
};

// The n_top likeliest tokens in the model's own distribution, as [{"id", "token", "logprob"}, ...].
static json_t *top_logprobs(struct Job *j, uint32_t row) {
    uint32_t vocab = j->l.file.config.vocab_size, n = 0, most = (uint32_t)min_u64(j->n_top, vocab);
    float *logits = xmalloc(vocab * sizeof *logits);
    struct Likely *best = xcalloc(most + 1, sizeof *best);
    if (!session_logits(&j->l.session, row, logits)) {
        free(logits), free(best);
        return NULL;
    }
    for (uint32_t id = 0; id < vocab; id++) {
        if (n == most && logits[id] <= best[n - 1].logit)
            continue;
        uint32_t at = n < most ? n++ : n - 1;
        for (; at > 0 && best[at - 1].logit < logits[id]; at--)
            best[at] = best[at - 1];
        best[at] = (struct Likely){id, logits[id]};
    }
    double sum = 0;
    for (uint32_t id = 0; id < vocab; id++)
        sum += exp((double)logits[id] - (double)best[0].logit);
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) {
        size_t bytes = tokenizer_piece(&j->l.tokenizer, best[i].id, NULL, 0);
        char *piece = xmalloc(bytes + 1);
        tokenizer_piece(&j->l.tokenizer, best[i].id, piece, bytes);
        json_t *one = json_object();
        json_object_set_new(one, "id", json_integer(best[i].id));
        json_object_set_new(one, "token", text_of(piece, bytes));
        json_object_set_new(one, "logprob", json_real((double)best[i].logit - (double)best[0].logit - log(sum)));
        json_array_append_new(list, one);
        free(piece);
    }
    free(logits), free(best);
    return list;
}

static bool on_token(void *context, const struct BatchToken *token) {
    struct Job *j = context;
    struct Answer *a = &j->answers[token->text];
    if (j->first == 0)
        j->first = clock_seconds();
    if (load_is_stop(&j->l, token->id)) {
        a->stopped = "end";
        return false;
    }
    if ((a->n & (a->n - 1)) == 0) {
        size_t room = a->n ? 2 * (size_t)a->n : 1;
        a->ids = xrealloc(a->ids, room * sizeof *a->ids);
        a->logprobs = xrealloc(a->logprobs, room * sizeof *a->logprobs);
    }
    a->ids[a->n] = token->id;
    a->logprobs[a->n++] = token->logprob;
    j->n_tokens++;
    if (j->n_top) {
        a->top = a->top ? a->top : json_array();
        json_array_append_new(a->top, top_logprobs(j, token->row));
    }
    size_t bytes;
    const char *text = detokenizer_push(&a->detokenizer, &j->l.tokenizer, token->id, &bytes);
    put(j, a, text, bytes);
    if (a->stops.found)
        a->stopped = "stop";
    return !a->stops.found;
}

static bool on_end(void *context, uint32_t index, enum BatchEnd why) {
    struct Job *j = context;
    struct Answer *a = &j->answers[index];
    size_t bytes;
    const char *rest = detokenizer_flush(&a->detokenizer, &bytes);
    put(j, a, rest, bytes);
    if (a->stops.found) { // by half a character, made whole
        a->stopped = "stop";
    } else {
        // What was held back because it might have become a stop string is no longer one.
        char *held = xstrdup(stops_flush(&a->stops, &bytes));
        a->stops.n = 0;
        put(j, a, held, bytes);
        free(held);
    }
    if (!a->stopped)
        a->stopped = why == BATCH_LIMIT ? "length" : why == BATCH_CONTEXT ? "context" : "end";
    j->end = clock_seconds();
    if (!j->many)
        return true;
    while (j->n_printed < j->prompts.n && j->answers[j->n_printed].stopped) {
        print(j, &j->answers[j->n_printed], j->n_printed);
        answer_free(&j->answers[j->n_printed++]);
    }
    return true;
}

// ---- The run

static bool generate(struct Job *j) {
    struct BatchText *texts = xcalloc(j->prompts.n, sizeof *texts);
    struct BatchHooks hooks = {j, on_token, on_end};
    for (uint32_t i = 0; i < j->prompts.n; i++) {
        struct TokenList *ids = &j->prompts.list[i];
        texts[i] = (struct BatchText){.prompt = ids->ids, .n_prompt = (uint32_t)ids->n, .limit = j->limit};
        j->answers[i].stops = j->stops;
    }
    j->begin = clock_seconds();
    bool ok = batch_run(&j->l.session, &j->l.tokenizer, texts, j->prompts.n, &j->set, j->matching, &hooks);
    free(texts);
    return ok;
}

static void tell_figures(const struct Job *j) {
    const char *dim = term_paint(stderr, PAINT_DIM), *none = term_paint(stderr, PAINT_NONE);
    const struct Answer *a = &j->answers[0];
    double seconds = j->end - j->begin;
    if (j->many) {
        fprintf(stderr, "%s%u prompt%s, %u at once; answers %llu token%s, %.1f/s%s\n", dim, j->prompts.n,
                plural(j->prompts.n), j->l.session.n_sequences, (unsigned long long)j->n_tokens, plural(j->n_tokens),
                seconds > 0 ? (double)j->n_tokens / seconds : 0, none);
    } else {
        char rate[32] = ""; // the first token comes with the prompt: one alone has no rate
        if (a->n > 1)
            snprintf(rate, sizeof rate, ", %.1f/s", token_rate(j, a));
        fprintf(stderr, "%sprompt %zu token%s, %.1f/s; answer %u token%s%s%s%s\n", dim, j->prompts.list[0].n,
                plural(j->prompts.list[0].n), (double)j->prompts.list[0].n / (j->first - j->begin), a->n, plural(a->n),
                rate, strcmp(a->stopped, "context") == 0 ? "; stopped because the context is full" : "", none);
    }
}

static bool run(struct Job *j) {
    const struct Args *args = j->args;
    struct Loaded *l = &j->l;
    bool no_end = args_switch(args, "ignore-eos");
    struct SessionOptions o = {.n_sequences = 1, .biased = no_end, .ahead = j->n_top == 0};
    if (!load_text(l, args, args_switch(args, "chat")) || !load_sampling(args, &j->set) ||
        !load_stops(l, args, &j->stops) || !load_grammar(args, &j->grammar) || !prompts_load(&j->prompts, l, args) ||
        !load_context(l, args, j->prompts.longest + (uint64_t)j->limit, &o.context))
        return false;
    if (j->prompts.longest >= o.context)
        return fail("%s has %u tokens, --context is %u: none is left for an answer",
                    j->many ? "the longest prompt" : "the prompt", j->prompts.longest, o.context);
    sampler_options(&j->set, j->grammar.n_rules > 0, &o);
    if (j->many)
        o.n_sequences = (uint32_t)min_u64(j->prompts.n, (uint64_t)args_int(args, "parallel"));
    if (j->grammar.n_rules > 0)
        j->matching = load_matching(l, &j->grammar);
    j->answers = xcalloc(j->prompts.n, sizeof *j->answers);
    // Drivers compile on first use; figures should tell of the steady state.
    bool ok = load_model(l, args, &o) && (!j->json || j->many || session_warm_up(&l->session)) &&
              (!no_end || load_forbid_stops(l)) && generate(j);
    if (ok && !j->many)
        print(j, &j->answers[0], 0);
    if (ok && !j->json)
        tell_figures(j);
    return ok;
}

int cmd_generate(const struct Args *args) {
    static const char *const SOURCES[] = {"prompt", "file", "prompts"};
    uint32_t sources = 0;
    for (int i = 0; i < 3; i++)
        sources += args_given(args, SOURCES[i]);
    if (sources > 1)
        return args_wrong(args, "--prompt, --file and --prompts exclude each other");
    if (args_switch(args, "raw") && args_switch(args, "chat"))
        return args_wrong(args, "--raw and --chat exclude each other");
    if (!args_switch(args, "chat") && (args_given(args, "system") || args_given(args, "template")))
        return args_wrong(args, "--system and --template need --chat");
    if (args_given(args, "parallel") && !args_given(args, "prompts"))
        return args_wrong(args, "--parallel needs --prompts");
    if (args_int(args, "top-logprobs") > 0 && !args_switch(args, "json"))
        return args_wrong(args, "--top-logprobs needs --json");
    if (args_given(args, "grammar") && args_switch(args, "ignore-eos"))
        return args_wrong(args,
                          "--grammar and --ignore-eos exclude each other: the grammar says where the answer ends");
    struct Job *j = xcalloc(1, sizeof *j);
    j->args = args;
    j->json = args_switch(args, "json");
    j->many = args_given(args, "prompts");
    j->limit = (uint32_t)args_int(args, "max-tokens");
    j->n_top = (uint32_t)args_int(args, "top-logprobs");
    bool ok = run(j);
    for (uint32_t i = 0; j->answers && i < j->prompts.n; i++)
        answer_free(&j->answers[i]);
    free(j->answers);
    matching_close(j->matching);
    grammar_free(&j->grammar);
    prompts_free(&j->prompts);
    load_free(&j->l);
    free(j);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
