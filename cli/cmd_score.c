// `vkmoe score MODEL --file TEXT`: log-probabilities and perplexity. The text is cut into windows that do not overlap. Where the model
// begins its texts with a beginning-of-sequence token, each window gets one and all its tokens are scored; else the first token of
// each window has nothing before it and is not scored.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/term.h"
#include "model/json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Scores {
    uint32_t *ids;
    size_t n;
    float *logprobs; // NAN: not scored
    uint64_t scored;
    double nll; // natural logarithm, sum over scored tokens
    double seconds;
};

static bool read_ids(const struct Loaded *l, const struct Args *args, struct Scores *s) {
    char *text;
    size_t bytes;
    if (!load_file(args_text(args, "file"), &text, &bytes))
        return false;
    bool ok = tokenizer_encode(&l->tokenizer, text, bytes, 0, &s->ids, &s->n);
    free(text);
    if (args_given(args, "limit"))
        s->n = min_u64(s->n, (uint64_t)args_int(args, "limit"));
    return ok && (s->n > 0 || fail("%s: an empty text: there is nothing to score", args_text(args, "file")));
}

static bool score(struct Loaded *l, struct Scores *s, uint32_t window, bool bos) {
    uint32_t *ids = xmalloc(window * sizeof *ids), step = bos ? window - 1 : window;
    float *logprobs = xmalloc(window * sizeof *logprobs);
    struct Progress progress;
    s->logprobs = xmalloc(s->n * sizeof *s->logprobs);
    progress_begin(&progress, "score", "token", 0, s->n);
    double begin = clock_seconds();
    bool ok = true;
    for (size_t first = 0; first < s->n && ok; first += step) {
        uint32_t n = (uint32_t)min_u64(step, s->n - first);
        ids[0] = l->tokenizer.bos_id;
        memcpy(ids + (bos ? 1 : 0), s->ids + first, n * sizeof *ids);
        ok = session_score(&l->session, ids, n + (bos ? 1 : 0), logprobs);
        for (uint32_t i = 0; i < n && ok; i++) {
            float lp = s->logprobs[first + i] = logprobs[i + (bos ? 1 : 0)];
            if (!bos && i == 0)
                continue;
            if (!isfinite(lp))
                ok = fail(
                    "%s: the log-probability of token %zu of the text (id %u) is not finite: the weights are damaged "
                    "or their range is too large",
                    l->file.path, first + i, s->ids[first + i]);
            s->nll -= (double)lp;
            s->scored++;
        }
        if (ok && s->scored)
            progress_update(&progress, first + n, "perplexity %.4f", exp(s->nll / (double)s->scored));
    }
    s->seconds = clock_seconds() - begin;
    progress_clear(&progress);
    free(ids);
    free(logprobs);
    return ok && (s->scored > 0 || fail("the text has one token: there is nothing before it to score it by"));
}

// One token a line would be a file by itself: text mode prints the totals, --json all.
static void print(const struct Args *args, const struct Scores *s, uint32_t window) {
    double mean = s->nll / (double)s->scored;
    if (!args_switch(args, "json")) {
        printf("tokens      %llu of %zu scored, in windows of %u\nnll         %.6f a token\nperplexity  %.4f\n",
               (unsigned long long)s->scored, s->n, window, mean, exp(mean));
        fprintf(stderr, "%.1f tokens/s\n", (double)s->n / s->seconds);
        return;
    }
    printf("{\"tokens\": %llu, \"nll\": %.17g, \"nll_sum\": %.17g, \"perplexity\": %.17g, \"window\": %u, "
           "\"tokens_per_second\": %.6g, \"scores\": [",
           (unsigned long long)s->scored, mean, s->nll, exp(mean), window, (double)s->n / s->seconds);
    for (size_t i = 0; i < s->n; i++) {
        printf("%s{\"id\": %u, \"logprob\": ", i ? ", " : "", s->ids[i]);
        if (isnan(s->logprobs[i]))
            printf("null}");
        else
            printf("%.9g}", (double)s->logprobs[i]);
    }
    printf("]}\n");
}

static bool window_size(const struct Loaded *l, const struct Args *args, uint32_t *window) {
    uint32_t most = l->file.config.max_context;
    *window = (uint32_t)min_u64(most, 2048);
    if (most < 2)
        return fail("%s: a context of one token: there is nothing before a token to score it by", l->file.path);
    if (!args_given(args, "window"))
        return true;
    *window = (uint32_t)args_int(args, "window");
    return *window <= most || fail("--window %u: the context of %s is %u tokens", *window, l->file.path, most);
}

int cmd_score(const struct Args *args) {
    struct Loaded l;
    struct Scores s = {0};
    uint32_t window = 0;
    bool ok = load_text(&l, args, false) && window_size(&l, args, &window) && read_ids(&l, args, &s);
    bool bos = ok && l.tokenizer.add_bos && l.tokenizer.bos_id != TOKEN_NONE && !args_switch(args, "no-bos");
    ok = ok && load_model(&l, args, &(struct SessionOptions){.n_sequences = 1, .context = window, .scoring = true}) &&
         score(&l, &s, window, bos);
    if (ok)
        print(args, &s, window);
    free(s.ids);
    free(s.logprobs);
    load_free(&l);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
