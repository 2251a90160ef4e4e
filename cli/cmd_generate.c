// `vkmoe generate MODEL`: one answer. The text streams to stdout as it comes; with --json stdout gets one object at the end instead.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/term.h"
#include "model/experts.h"
#include "model/json.h"
#include "model/utf8.h"
#include <stdlib.h>
#include <string.h>

struct Answer {
    uint32_t *ids;
    float *logprobs;
    uint32_t n;
    const char *stopped; // "end", "length", "context"
    double prompt_seconds, seconds;
    char *text;
    size_t bytes;
};

static bool prompt_text(const struct Args *args, char **text, size_t *bytes) {
    const char *prompt = args_text(args, "prompt"), *path = args_text(args, "file");
    if (!prompt)
        return load_file(path ? path : "-", text, bytes);
    *text = xstrdup(prompt);
    *bytes = strlen(prompt);
    return true;
}

static bool prompt_ids(const struct Loaded *l, const struct Args *args, struct TokenList *ids) {
    char *text;
    size_t bytes;
    if (!prompt_text(args, &text, &bytes))
        return false;
    bool ok = bytes > 0 || fail("the prompt is empty: there is nothing to go on from");
    if (ok && args_switch(args, "chat")) {
        const char *system = args_text(args, "system");
        struct Message messages[2] = {{ROLE_SYSTEM, system, system ? strlen(system) : 0}, {ROLE_USER, text, bytes}};
        ok = template_render(&l->template, &l->tokenizer, messages + (system ? 0 : 1), system ? 2 : 1, true, ids);
    } else if (ok) {
        ok = token_list_append(ids, &l->tokenizer, text, bytes, TOKENIZE_BOS | TOKENIZE_SPECIAL, false);
    }
    free(text);
    if (ok && ids->n == 0)
        return fail("the prompt is empty: its text has no token in the model's vocabulary");
    uint32_t most = l->file.config.max_context;
    if (ok && ids->n >= most)
        return fail("the prompt has %zu tokens, the context of %s is %u: none is left for an answer", ids->n,
                    l->file.path, most);
    return ok;
}

// Writes what is certain of the text; it is kept whole for --json.
static void put(struct Answer *a, const char *text, size_t bytes, bool json) {
    a->text = xrealloc(a->text, a->bytes + bytes + 1);
    memcpy(a->text + a->bytes, text, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = 0;
    if (json)
        return;
    if (term_is_terminal(stdout))
        term_write(stdout, text, bytes);
    else
        fwrite(text, 1, bytes, stdout);
    fflush(stdout);
}

static bool generate(struct Loaded *l, const struct Args *args, const struct TokenList *prompt, struct Answer *a) {
    bool json = args_switch(args, "json");
    struct SampleParams params = load_sampling(args);
    struct Detokenizer detokenizer = {0};
    uint32_t limit = (uint32_t)args_int(args, "max-tokens"), zero = 0, next;
    size_t bytes;
    a->ids = xcalloc(limit, sizeof *a->ids);
    a->logprobs = xcalloc(limit, sizeof *a->logprobs);
    a->stopped = "length";
    double begin = clock_seconds();
    float logprob;
    bool ok = session_prefill(&l->session, 0, prompt->ids, (uint32_t)prompt->n, &params, &next, &logprob);
    a->prompt_seconds = clock_seconds() - begin;
    begin = clock_seconds();
    while (ok) {
        if (load_is_stop(l, next)) {
            a->stopped = "end";
            break;
        }
        a->ids[a->n] = next;
        a->logprobs[a->n++] = logprob;
        const char *text = detokenizer_push(&detokenizer, &l->tokenizer, next, &bytes);
        put(a, text, bytes, json);
        if (a->n == limit)
            break;
        if (l->session.length[0] == l->session.context) {
            a->stopped = "context";
            break;
        }
        params.index = a->n;
        ok = session_decode(&l->session, 1, &zero, &next, &params, &next, &logprob);
    }
    a->seconds = clock_seconds() - begin;
    const char *rest = detokenizer_flush(&detokenizer, &bytes);
    put(a, rest, bytes, json);
    detokenizer_free(&detokenizer);
    return ok;
}

// The first token comes out of the prompt's pass: the rate counts those after it.
static double token_rate(const struct Answer *a) {
    uint32_t steps = a->n > 0 && strcmp(a->stopped, "end") != 0 ? a->n - 1 : a->n;
    return a->seconds > 0 ? steps / a->seconds : 0;
}

static void print_json(const struct Loaded *l, const struct Answer *a, size_t n_prompt) {
    json_t *ids = json_array(), *logprobs = json_array();
    for (uint32_t i = 0; i < a->n; i++) {
        json_array_append_new(ids, json_integer(a->ids[i]));
        json_array_append_new(logprobs, json_real((double)a->logprobs[i]));
    }
    size_t length;
    char *text = utf8_repair(a->text, a->bytes, &length);
    json_t *root =
        json_pack("{s:s%, s:o, s:o, s:s, s:I, s:i, s:f, s:f}", "text", text, length, "ids", ids, "logprobs", logprobs,
                  "stopped", a->stopped, "prompt_tokens", (json_int_t)n_prompt, "tokens", (int)a->n,
                  "prompt_tokens_per_second", (double)n_prompt / a->prompt_seconds, "tokens_per_second", token_rate(a));
    free(text);
    struct ExpertUse use = experts_use(&l->model);
    if (use.slots)
        json_object_set_new(root, "experts",
                            json_pack("{s:I, s:I, s:I, s:i, s:i}", "hits", (json_int_t)use.hits, "misses",
                                      (json_int_t)use.misses, "bytes", (json_int_t)use.bytes, "slots", (int)use.slots,
                                      "of", (int)use.experts));
    json_dumpf(root, stdout, JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
}

static bool run(struct Loaded *l, const struct Args *args, struct TokenList *prompt) {
    bool no_end = args_switch(args, "ignore-eos");
    struct SessionOptions o = {.n_sequences = 1, .biased = no_end};
    if (!load_text(l, args, args_switch(args, "chat")) || !prompt_ids(l, args, prompt) ||
        !load_context(l, args, prompt->n + (uint64_t)args_int(args, "max-tokens"), &o.context))
        return false;
    if (prompt->n >= o.context)
        return fail("the prompt has %zu tokens, --context is %u: none is left for an answer", prompt->n, o.context);
    struct Answer a = {0};
    bool json = args_switch(args, "json");
    // Drivers compile on first use; figures should tell of the steady state.
    bool ok = load_model(l, args, &o) && (!json || session_warm_up(&l->session)) && (!no_end || load_forbid_stops(l)) &&
              generate(l, args, prompt, &a);
    if (ok && json) {
        print_json(l, &a, prompt->n);
    } else if (ok) {
        putchar('\n');
        fflush(stdout);
        fprintf(stderr, "%sprompt %zu tokens, %.1f/s; answer %u tokens, %.1f/s%s%s\n", term_paint(stderr, PAINT_DIM),
                prompt->n, (double)prompt->n / a.prompt_seconds, a.n, token_rate(&a),
                strcmp(a.stopped, "context") == 0 ? "; stopped because the context is full" : "",
                term_paint(stderr, PAINT_NONE));
    }
    free(a.ids);
    free(a.logprobs);
    free(a.text);
    return ok;
}

int cmd_generate(const struct Args *args) {
    if (args_given(args, "prompt") && args_given(args, "file"))
        return args_wrong(args, "--prompt and --file exclude each other");
    if (args_switch(args, "raw") && args_switch(args, "chat"))
        return args_wrong(args, "--raw and --chat exclude each other");
    if (!args_switch(args, "chat") && (args_given(args, "system") || args_given(args, "template")))
        return args_wrong(args, "--system and --template need --chat");
    struct Loaded l;
    struct TokenList prompt = {0};
    bool ok = run(&l, args, &prompt);
    token_list_free(&prompt);
    load_free(&l);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
