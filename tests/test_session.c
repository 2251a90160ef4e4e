// Inference sessions on tiny random models: chunks, cache, rewinding and sampling must not change what the model says, and a sequence
// must say the same, bit for bit, alone and beside thirty-one others, however it is drawn. `test_session brief` tries each kernel with fewer
// sequences and texts and leaves out what no kernel has a part in: test_off.sh runs it once for each capability of the device.
#include "card.h"
#include "check.h"
#include "model/batch.h"
#include "model/tokenizer.h"
#include <stdlib.h>
#include <string.h>

enum { VOCAB_MAX = 4096, CONTEXT = 97, NEW = 8, N = SESSION_MAX_SEQUENCES };
static const struct SampleParams GREEDY = {0};
static bool brief;

static double relative(const float *got, const float *want, uint32_t n) {
    double difference = 0, size = 0;
    for (uint32_t i = 0; i < n; i++) {
        difference += pow((double)got[i] - (double)want[i], 2);
        size += pow((double)want[i], 2);
    }
    return sqrt(difference / size);
}

static double log_probability(const float *logits, uint32_t n, uint32_t id) {
    double top = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        top = fmax(top, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - top);
    return (double)logits[id] - top - log(sum);
}

static bool open_session(struct Session *s, struct Model *m, uint32_t sequences, uint32_t chunk) {
    struct SessionOptions o = {.n_sequences = sequences, .context = CONTEXT, .chunk = chunk};
    return CHECK(session_init(s, m, &o), "%s", fail_last());
}

// How far two ways to the same logits may lie apart. A GPU's matrix units and products of pairs round the activations of more than 8 rows to bf16 or f16, which
// those of fewer are not.
static bool is_coarse(const struct Model *m) {
    return !m->dev->is_cpu && (device_can(m->dev, CAP_coopmat) || device_can(m->dev, CAP_dot2)) &&
           m->params[0].w.type != DT_F32;
}
// All logits of a row, relative.
static double apart(const struct Model *m, double exact) { return is_coarse(m) ? 1e-2 : exact; }
// One log-probability, absolute: logits of a random model are spread by init_std sqrt(dim), and one may be four deviations off.
static double apart_log(const struct Model *m, double exact) {
    double spread = (double)m->config.init_std * sqrt(m->config.dim);
    return is_coarse(m) ? 4 * 1e-2 * spread : exact;
}

// The logits behind a prompt: in one chunk, in small ones, and token by token through the decode path.
static void test_chunks(struct Model *m, const char *what) {
    const struct Config *c = &m->config;
    struct Session whole, parts;
    uint32_t n = 61, next, zero = 0;
    uint32_t *ids = random_ids(c, n, 1);
    float *want = xmalloc(c->vocab_size * sizeof *want), *got = xmalloc(c->vocab_size * sizeof *got), logprob;
    if (!open_session(&whole, m, 1, 64) || !open_session(&parts, m, 1, 17))
        return;
    CHECK(session_prefill(&whole, 0, ids, n, &GREEDY, &next, &logprob) && session_logits(&whole, 0, want), "%s",
          fail_last());
    CHECK_NEAR((double)logprob, log_probability(want, c->vocab_size, next), 1e-5, 1e-5);
    for (uint32_t i = 0; i < c->vocab_size; i++)
        if (!CHECK(want[i] <= want[next], "%s: token %u is likelier than the greedy %u", what, i, next))
            break;
    CHECK(session_prefill(&parts, 0, ids, n, &GREEDY, &next, NULL) && session_logits(&parts, 0, got), "%s",
          fail_last());
    double error = relative(got, want, c->vocab_size);
    CHECK(error < apart(m, 1e-5), "%s: logits in chunks are off by %.2g", what, error);
    session_rewind(&parts, 0, 20);
    for (uint32_t i = 20; i < n; i++)
        if (!CHECK(session_decode(&parts, 1, &zero, &ids[i], &GREEDY, &next, NULL), "%s", fail_last()))
            break;
    CHECK(session_logits(&parts, 0, got), "%s", fail_last());
    error = relative(got, want, c->vocab_size);
    CHECK(error < apart(m, 1e-5), "%s: logits token by token are off by %.2g", what, error);
    free(ids), free(want), free(got);
    session_free(&whole);
    session_free(&parts);
}

static uint32_t prompt_length(uint32_t which) { return 3 + 9 * which % 83; }

struct Greedy {
    uint32_t ids[NEW];
    float logprobs[NEW];
};

// n sequences decode side by side; `which` are the prompts they go on from (of lengths that differ).
static bool greedy_together(struct Session *s, const struct Config *c, uint32_t n, const uint32_t *which,
                            struct Greedy *out) {
    uint32_t next[N], sequences[N];
    float logprobs[N];
    struct SampleParams params[N] = {{0}};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = prompt_length(which[i]), *ids = random_ids(c, length, 100 + which[i]);
        sequences[i] = i;
        session_rewind(s, i, 0);
        bool ok = session_prefill(s, i, ids, length, &GREEDY, &next[i], &logprobs[i]);
        free(ids);
        if (!ok)
            return false;
    }
    for (uint32_t t = 0; t < NEW; t++) {
        for (uint32_t i = 0; i < n; i++)
            out[i].ids[t] = next[i], out[i].logprobs[t] = logprobs[i];
        uint32_t fed[N];
        memcpy(fed, next, sizeof fed);
        if (t + 1 < NEW && !session_decode(s, n, sequences, fed, params, next, logprobs))
            return false;
    }
    return true;
}

static void test_beside_others(struct Model *m, const char *what) {
    struct Session s;
    static struct Greedy alone[N], beside[N];
    static const uint32_t COUNTS[] = {2, 8, 9, 5, 7, 17, N}; // the first three have one of each kind of kernel
    const uint32_t n_counts = brief ? 3 : sizeof COUNTS / sizeof *COUNTS, all = brief ? COUNTS[2] : N;
    if (!open_session(&s, m, all, 32))
        return;
    for (uint32_t i = 0; i < all; i++)
        CHECK(greedy_together(&s, &m->config, 1, &i, &alone[i]), "%s", fail_last());
    for (uint32_t k = 0; k < n_counts; k++) {
        uint32_t which[N], n = COUNTS[k];
        for (uint32_t i = 0; i < n; i++)
            which[i] = (i * (brief ? 4 : 3) + n) % all; // all different
        if (!CHECK(greedy_together(&s, &m->config, n, which, beside), "%s", fail_last()))
            break;
        for (uint32_t i = 0; i < n; i++)
            CHECK(memcmp(&beside[i], &alone[which[i]], sizeof beside[i]) == 0,
                  "%s: prompt %u beside %u others differs from alone (first log-probabilities %.9g and %.9g)", what,
                  which[i], n - 1, (double)beside[i].logprobs[1], (double)alone[which[i]].logprobs[1]);
    }
    session_free(&s);
}

// ---- Many texts through one session

enum { TEXTS = 41, BRIEF_TEXTS = 11, BRIEF_SEQUENCES = 4 };
struct Said {
    uint32_t ids[NEW], n;
    float logprobs[NEW];
    enum BatchEnd why;
    uint32_t order; // when it ended
};
struct Talk {
    struct Said said[TEXTS];
    uint32_t first, stop, ended;
};

static bool on_token(void *context, const struct BatchToken *t) {
    struct Talk *talk = context;
    struct Said *said = &talk->said[talk->first + t->text];
    CHECK(t->index == said->n && said->n < NEW, "text %u: token %u comes as number %u", t->text, said->n, t->index);
    if (t->id % 16 == talk->stop)
        return false;
    said->ids[said->n] = t->id;
    said->logprobs[said->n++] = t->logprob;
    return true;
}
static bool on_end(void *context, uint32_t text, enum BatchEnd why) {
    struct Talk *talk = context;
    talk->said[talk->first + text].why = why;
    talk->said[talk->first + text].order = talk->ended++;
    return true;
}

static bool talk(struct Model *m, const struct BatchText *texts, uint32_t first, uint32_t n, uint32_t sequences,
                 struct SamplerSettings set, struct Talk *to) {
    static const struct BatchHooks HOOKS = {NULL, on_token, on_end};
    struct SessionOptions o = {.n_sequences = sequences, .context = CONTEXT};
    struct Session s;
    struct BatchHooks hooks = HOOKS;
    hooks.context = to;
    to->first = first;
    to->stop = 3; // of sixteen tokens one ends a text
    set.params.stream += first;
    sampler_options(&set, false, &o);
    bool ok = session_init(&s, m, &o) && batch_run(&s, NULL, texts + first, n, &set, NULL, &hooks);
    session_free(&s);
    return ok;
}

// More texts than sequences, which end at different times: each says what it says alone.
static void test_batch(struct Model *m, const char *what) {
    static const struct SamplerSettings SETTINGS[] = {
        {.params = {0}},
        {.params = {.temperature = 1.2f, .top_p = 0.95f, .top_k = 200, .typical = 0.9f, .seed_low = 4},
         .penalty = {.repeat = 1.3f, .presence = 0.4f, .frequency = 0.2f},
         .window = 20},
        {.params = {.temperature = 1, .top_p = 1, .tau = 4, .eta = 0.3f, .mu = 8, .seed_low = 9, .stream = 100}},
    };
    struct BatchText texts[TEXTS];
    static struct Talk together, alone;
    const uint32_t n_texts = brief ? BRIEF_TEXTS : TEXTS, sequences = brief ? BRIEF_SEQUENCES : N;
    for (uint32_t i = 0; i < n_texts; i++) {
        uint32_t n = i == 5 ? CONTEXT - 2 : 1 + 11 * i % 71;
        texts[i] =
            (struct BatchText){.prompt = random_ids(&m->config, n, 300 + i), .n_prompt = n, .limit = 1 + i * 5 % NEW};
    }
    for (uint32_t k = 0; k < sizeof SETTINGS / sizeof *SETTINGS; k++) {
        uint32_t stopped = 0, cut = 0, different = 0;
        memset(&together, 0, sizeof together);
        memset(&alone, 0, sizeof alone);
        CHECK(talk(m, texts, 0, n_texts, sequences, SETTINGS[k], &together) && together.ended == n_texts, "%s",
              fail_last());
        for (uint32_t i = 0; i < n_texts; i++) {
            CHECK(talk(m, texts, i, 1, 1, SETTINGS[k], &alone), "%s", fail_last());
            struct Said *a = &alone.said[i], *b = &together.said[i];
            CHECK(a->n == b->n && a->why == b->why && memcmp(a->ids, b->ids, sizeof a->ids) == 0 &&
                      memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) == 0,
                  "%s: setting %u: text %u says something else alone", what, k, i);
            stopped += a->why == BATCH_STOPPED;
            cut += a->why == BATCH_LIMIT;
            different += b->n && i && (b->n != together.said[0].n || b->ids[0] != together.said[0].ids[0]);
            CHECK(a->why != BATCH_CONTEXT || i == 5, "%s: text %u found no room", what, i);
        }
        CHECK(stopped + cut >= n_texts - 1 && cut > 0 && different > 5, "%s: setting %u: %u stopped, %u at their limit",
              what, k, stopped, cut);
    }
    for (uint32_t i = 0; i < n_texts; i++)
        free((uint32_t *)(uintptr_t)texts[i].prompt);
}

// Texts that begin alike: what a sequence keeps of the one before changes no bit of what a text says.
static void test_shared(struct Model *m, const char *what) {
    enum { ALIKE = 14 };
    struct BatchText texts[ALIKE];
    static struct Talk together, alone, whole;
    const struct SamplerSettings greedy = {.params = {0}};
    double furthest = 0;
    memset(&together, 0, sizeof together);
    memset(&alone, 0, sizeof alone);
    memset(&whole, 0, sizeof whole);
    for (uint32_t i = 0; i < ALIKE; i++) {
        uint32_t group = i / 4, shared = group == 2 ? 0 : 20 + group, n = shared + 1 + 7 * i % 40;
        uint32_t *ids = random_ids(&m->config, n, 700 + i), *begin = random_ids(&m->config, shared, 60 + group);
        memcpy(ids, begin, shared * sizeof *ids);
        free(begin);
        texts[i] = (struct BatchText){.prompt = ids, .n_prompt = n, .limit = NEW, .shared = shared, .group = group};
    }
    CHECK(talk(m, texts, 0, ALIKE, 5, greedy, &together) && together.ended == ALIKE, "%s", fail_last());
    for (uint32_t i = 0; i < ALIKE; i++) {
        CHECK(talk(m, texts, i, 1, 1, greedy, &alone), "%s", fail_last());
        CHECK(memcmp(alone.said[i].ids, together.said[i].ids, sizeof alone.said[i].ids) == 0 &&
                  memcmp(alone.said[i].logprobs, together.said[i].logprobs, sizeof alone.said[i].logprobs) == 0,
              "%s: text %u says something else where its beginning was there", what, i);
        texts[i].shared = 0;
    }
    CHECK(talk(m, texts, 0, ALIKE, 5, greedy, &whole), "%s", fail_last());
    for (uint32_t i = 0; i < ALIKE; i++)
        if (whole.said[i].n && together.said[i].n && whole.said[i].ids[0] == together.said[i].ids[0])
            furthest = fmax(furthest, fabs((double)whole.said[i].logprobs[0] - (double)together.said[i].logprobs[0]));
    CHECK(furthest < apart_log(m, 1e-4), "%s: read in two passes a prompt gives log-probabilities %.2g away", what,
          furthest);
    for (uint32_t i = 0; i < ALIKE; i++)
        free((uint32_t *)(uintptr_t)texts[i].prompt);
}

// Continuations scored behind a prompt that is read once have the log-probabilities of the whole text.
static void test_score_behind(struct Model *m, const char *what) {
    enum { PROMPT = 31, MORE = 12 };
    struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT, .chunk = 8, .scoring = true};
    struct Session s;
    float want[PROMPT + MORE], got[MORE + 1];
    uint32_t *ids = random_ids(&m->config, PROMPT + MORE, 90);
    if (!CHECK(session_init(&s, m, &o), "%s", fail_last()))
        return;
    CHECK(session_score(&s, ids, PROMPT + MORE, want), "%s", fail_last());
    session_rewind(&s, 0, 0);
    CHECK(session_prefill(&s, 0, ids, PROMPT - 1, NULL, NULL, NULL), "%s", fail_last());
    for (uint32_t n = 1; n <= MORE; n++) {
        CHECK(session_score_behind(&s, ids + PROMPT - 1, n + 1, got) && isnan(got[0]), "%s", fail_last());
        CHECK(s.length[0] == PROMPT - 1 + n, "%s: %u tokens in the cache", what, s.length[0]);
        for (uint32_t i = 1; i <= n; i++)
            CHECK_NEAR((double)got[i], (double)want[PROMPT - 1 + i], apart_log(m, 1e-4), 0);
        session_rewind(&s, 0, PROMPT - 1);
    }
    session_free(&s);
    free(ids);
}

// Penalties keep a greedy text from saying a token again; log-probabilities stay the model's own.
static void test_penalties(struct Model *m, const char *what) {
    const struct Config *c = &m->config;
    struct SamplerSettings set = {.penalty = {.repeat = 1, .presence = 100}, .window = 64};
    struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT};
    struct Session s;
    struct Sampler x;
    uint32_t n = 9, *ids = random_ids(c, n, 5), next, zero = 0, said[40];
    float *logits = xmalloc(c->vocab_size * sizeof *logits), logprob;
    sampler_options(&set, false, &o);
    if (!CHECK(session_init(&s, m, &o), "%s", fail_last()))
        return;
    sampler_begin(&x, &set, 0, NULL);
    sampler_see(&x, ids, n);
    bool ok = sampler_prepare(&x, &s, 0, 40) && session_prefill(&s, 0, ids, n, &x.params, &next, &logprob);
    for (uint32_t t = 0; ok && t < 40; t++) {
        ok = session_logits(&s, 0, logits);
        CHECK_NEAR((double)logprob, log_probability(logits, c->vocab_size, next), 1e-4, 1e-5);
        for (uint32_t i = 0; i < t; i++)
            CHECK(said[i] != next, "%s: token %u is said again", what, next);
        for (uint32_t i = 0; i < n; i++)
            CHECK(ids[i] != next, "%s: token %u of the prompt is said again", what, next);
        said[t] = next;
        ok = ok && sampler_take(&x, &s, 0, NULL, next) && sampler_prepare(&x, &s, 0, 39 - t) &&
             session_decode(&s, 1, &zero, &said[t], &x.params, &next, &logprob);
    }
    CHECK(ok, "%s", fail_last());
    sampler_end(&x);
    free(ids), free(logits);
    session_free(&s);
}

// Mirostat holds the surprise near what was asked for: the model is a random one, but its bound must move.
static void test_mirostat(struct Model *m, const char *what) {
    struct SamplerSettings set = {
        .params = {.temperature = 1, .top_p = 1, .tau = 2, .eta = 0.5f, .mu = 4, .seed_low = 3}};
    struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT};
    struct Session s;
    struct Sampler x;
    uint32_t n = 5, *ids = random_ids(&m->config, n, 12), next, zero = 0, steps = CONTEXT - n;
    double bits = 0;
    sampler_options(&set, false, &o);
    if (!CHECK(session_init(&s, m, &o), "%s", fail_last()))
        return;
    sampler_begin(&x, &set, 0, NULL);
    bool ok = session_prefill(&s, 0, ids, n, &x.params, &next, NULL);
    for (uint32_t t = 0; ok && t < steps; t++) {
        bits -= (double)session_chance(&s, 0) / log(2) / steps;
        uint32_t id = next;
        ok = sampler_take(&x, &s, 0, NULL, id) && session_decode(&s, 1, &zero, &id, &x.params, &next, NULL);
    }
    CHECK(ok && bits > 1 && bits < 3, "%s: %.2f bits a token instead of 2", what, bits);
    CHECK(x.params.mu != 4 && x.params.index == steps, "%s: mu %g, index %u", what, (double)x.params.mu,
          x.params.index);
    sampler_end(&x);
    free(ids);
    session_free(&s);
}

// A grammar that the model knows nothing of: its answers meet it, side by side as alone.
static void test_grammar(struct Model *m, const char *what) {
    static const char DIGITS[] = "root ::= \"<\" [0-9]{2,5} \">\"";
    struct Grammar g;
    struct Tokenizer t;
    char json[8192] =
        "{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
        "{\"type\": \"BPE\", \"merges\": [], \"vocab\": {";
    size_t at = strlen(json);
    for (int c = '0'; c <= 'z'; c++) // the character's number is the token's
        at += (size_t)snprintf(json + at, sizeof json - at, "%s\"%s%c\": %d", c > '0' ? ", " : "",
                               c == '\\' ? "\\" : "", c, c);
    snprintf(json + at, sizeof json - at, "}}}");
    if (!CHECK(grammar_parse(&g, DIGITS, strlen(DIGITS), "g"), "%s", fail_last()) ||
        !CHECK(tokenizer_open_json(&t, json, strlen(json), NULL, 0, "t"), "%s", fail_last()))
        return;
    struct Matching *matching = matching_open(&g, &t, m->config.vocab_size, NULL, 0);
    struct SamplerSettings set = {.params = {.temperature = 1, .top_p = 0.9f, .seed_low = 2}};
    struct SessionOptions o = {.n_sequences = 3, .context = CONTEXT};
    struct Session s;
    struct BatchText texts[6];
    static struct Talk to;
    struct BatchHooks hooks = {&to, on_token, on_end};
    memset(&to, 0, sizeof to);
    to.stop = 99;
    for (uint32_t i = 0; i < 6; i++)
        texts[i] = (struct BatchText){.prompt = random_ids(&m->config, 4, 40 + i), .n_prompt = 4, .limit = NEW};
    sampler_options(&set, true, &o);
    CHECK(session_init(&s, m, &o) && batch_run(&s, &t, texts, 6, &set, matching, &hooks), "%s", fail_last());
    for (uint32_t i = 0; i < 6; i++) {
        const struct Said *said = &to.said[i];
        bool ok = said->n >= 4 && said->n <= 7 && said->ids[0] == '<' && said->ids[said->n - 1] == '>';
        for (uint32_t k = 1; ok && k + 1 < said->n; k++)
            ok = said->ids[k] >= '0' && said->ids[k] <= '9';
        CHECK(ok && said->why == BATCH_GRAMMAR, "%s: text %u does not meet the grammar: %u tokens", what, i, said->n);
        CHECK(said->logprobs[0] < -0.5f, "%s: log-probabilities are not the model's own: %g", what,
              (double)said->logprobs[0]);
        free((uint32_t *)(uintptr_t)texts[i].prompt);
    }
    session_free(&s);
    matching_close(matching);
    tokenizer_free(&t);
    grammar_free(&g);
}

// Going back and on again says the same as before; going back to a part of the prompt likewise.
static void test_rewind(struct Model *m, const char *what) {
    struct Session s;
    struct Greedy first, again;
    uint32_t which = 4, zero = 0, n = prompt_length(which), next, *ids = random_ids(&m->config, n, 100 + which);
    if (!open_session(&s, m, 2, 32))
        return;
    CHECK(greedy_together(&s, &m->config, 1, &which, &first), "%s", fail_last());
    CHECK(greedy_together(&s, &m->config, 1, &which, &again) && memcmp(&first, &again, sizeof first) == 0,
          "%s: the same prompt twice differs", what);
    session_rewind(&s, 0, 32); // a whole chunk of the prompt: the rest goes through the same kernels
    CHECK(session_prefill(&s, 0, ids + 32, n - 32, &GREEDY, &next, NULL), "%s", fail_last());
    bool same = next == first.ids[0];
    for (uint32_t t = 1; t < NEW && same; t++) {
        uint32_t id = next;
        same = session_decode(&s, 1, &zero, &id, &GREEDY, &next, NULL) && next == first.ids[t];
    }
    CHECK(same, "%s: going on from the kept part of a prompt differs", what);
    free(ids);
    session_free(&s);
}

static void test_score(struct Model *m, const char *what) {
    const struct Config *c = &m->config;
    struct Session s;
    uint32_t n = CONTEXT, next, *ids = random_ids(c, n, 3);
    float *scores = xmalloc(n * sizeof *scores), *logits = xmalloc(c->vocab_size * sizeof *logits);
    if (!open_session(&s, m, 1, 40))
        return;
    CHECK(session_score(&s, ids, n, scores) && isnan(scores[0]), "%s", fail_last());
    for (uint32_t i = 1; i < n; i += 13) {
        session_rewind(&s, 0, 0);
        CHECK(session_prefill(&s, 0, ids, i, &GREEDY, &next, NULL) && session_logits(&s, 0, logits), "%s", fail_last());
        double want = log_probability(logits, c->vocab_size, ids[i]);
        CHECK(fabs((double)scores[i] - want) < apart_log(m, 1e-4), "%s: token %u has %.6f, its logits say %.6f", what,
              i, (double)scores[i], want);
    }
    free(ids), free(scores), free(logits);
    session_free(&s);
}

static void test_sampling(struct Model *m, const char *what) {
    struct Session s;
    uint32_t n = 9, *ids = random_ids(&m->config, n, 5), greedy, next, again;
    float logprob;
    float *logits = xmalloc(m->config.vocab_size * sizeof *logits);
    if (!open_session(&s, m, 1, 32))
        return;
    CHECK(session_prefill(&s, 0, ids, n, &GREEDY, &greedy, NULL), "%s", fail_last());
    uint32_t different = 0;
    for (uint32_t stream = 0; stream < 8; stream++) {
        struct SampleParams hot = {.temperature = 1, .top_p = 1, .seed_low = 3, .stream = stream};
        session_rewind(&s, 0, 0);
        CHECK(session_prefill(&s, 0, ids, n, &hot, &next, &logprob) && session_logits(&s, 0, logits), "%s",
              fail_last());
        CHECK_NEAR((double)logprob, log_probability(logits, m->config.vocab_size, next), 1e-4, 1e-5);
        different += next != greedy;
        session_rewind(&s, 0, 0);
        CHECK(session_prefill(&s, 0, ids, n, &hot, &again, NULL) && again == next, "%s: the same seed drew %u and %u",
              what, next, again);
        struct SampleParams narrow = {.temperature = 1, .top_p = 1, .top_k = 1, .stream = stream};
        session_rewind(&s, 0, 0);
        CHECK(session_prefill(&s, 0, ids, n, &narrow, &next, NULL) && next == greedy, "%s: top-k 1 is not greedy",
              what);
    }
    CHECK(different > 0, "%s: eight draws at temperature 1 are all the greedy token", what);
    free(ids), free(logits);
    session_free(&s);
}

static void test_experts(struct Model *m, const char *what) {
    const struct Config *c = &m->config;
    struct Session s;
    uint32_t n = 19, *ids = random_ids(c, n, 6), zero = 0, next;
    if (!open_session(&s, m, 1, 32))
        return;
    CHECK(session_prefill(&s, 0, ids, n, &GREEDY, &next, NULL), "%s", fail_last());
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t layer = 0; layer < c->n_layers; layer++) {
            const uint32_t *e = session_experts(&s, layer, s.chosen_tokens - 1);
            CHECK((e != NULL) == config_is_moe(c, layer), "%s: layer %u", what, layer);
            for (uint32_t k = 0; e && k < c->n_active; k++) {
                CHECK(e[k] < c->n_experts, "%s: layer %u, choice %u is expert %u", what, layer, k, e[k]);
                for (uint32_t j = 0; j < k; j++)
                    CHECK(e[j] != e[k], "%s: layer %u chose expert %u twice", what, layer, e[k]);
            }
        }
        CHECK(s.chosen_tokens == (pass ? 1 : n) && !session_experts(&s, 0, s.chosen_tokens), "%s: tokens of the pass",
              what);
        if (!pass)
            CHECK(session_decode(&s, 1, &zero, &ids[0], &GREEDY, &next, NULL), "%s", fail_last());
    }
    free(ids);
    session_free(&s);
}

enum { AHEAD_STEPS = 24 };
struct Told {
    uint32_t ids[AHEAD_STEPS][N], experts[AHEAD_STEPS][N];
    float logprobs[AHEAD_STEPS][N];
    uint32_t begun; // passes that were on the device before they were asked for
};

// n sequences go on from a prompt with what they draw; now and then one is fed something else, or taken back two tokens, or penalised.
static bool go_on(struct Session *s, uint32_t n, bool disturb, struct Told *told) {
    const struct Config *c = &s->m->config;
    uint32_t *ids = random_ids(c, 9, 21), fed[N], next[N] = {0}, sequences[N];
    struct SampleParams params[N];
    bool ok = true;
    told->begun = 0;
    for (uint32_t i = 0; i < n; i++) {
        sequences[i] = i;
        params[i] = (struct SampleParams){.temperature = i % 2 ? 1 : 0, .top_p = 1, .seed_low = 5, .stream = i};
        session_rewind(s, i, 0);
        ok = ok && session_prefill(s, i, ids, 9 - i % 4, &params[i], &next[i], NULL);
        params[i].index++;
    }
    for (uint32_t t = 0; ok && t < AHEAD_STEPS; t++) {
        memcpy(fed, next, sizeof fed);
        if (disturb && t % 7 == 4)
            fed[n - 1] = t;
        if (disturb && t % 11 == 6)
            session_rewind(s, 0, s->length[0] - 2);
        if (disturb && t == 15)
            session_penalise(s, 0, &(struct Penalty){.repeat = 1}, 0, NULL, NULL);
        told->begun += s->next.n && s->next.begun;
        ok = session_decode(s, n, sequences, fed, params, next, told->logprobs[t]);
        memcpy(told->ids[t], next, sizeof next);
        for (uint32_t i = 0; i < n; i++, params[i - 1].index++) {
            const uint32_t *e = session_experts(s, c->n_layers - 1, i);
            told->experts[t][i] = e ? e[0] : 0;
        }
    }
    free(ids);
    return ok;
}

// A pass that is begun before it is asked for draws what it would have drawn then, also where something else is asked for after all.
static void test_ahead(struct Model *m, const char *what) {
    static const uint32_t COUNTS[] = {1, 3, 9};
    struct SessionOptions o = {.n_sequences = 9, .context = 9 + AHEAD_STEPS, .window = 4, .ahead = true};
    struct Session s;
    static struct Told plain, ahead; // zeros: rows that are not there stay equal
    if (!CHECK(session_init(&s, m, &o), "%s", fail_last()))
        return;
    for (uint32_t k = 0; k < 3; k++)
        for (int disturb = 0; disturb < 2; disturb++) {
            s.ahead = false;
            CHECK(go_on(&s, COUNTS[k], disturb, &plain) && plain.begun == 0, "%s: %s", what, fail_last());
            s.ahead = true; // on a processor too
            CHECK(go_on(&s, COUNTS[k], disturb, &ahead), "%s: %s", what, fail_last());
            CHECK(ahead.begun >= (disturb ? 4 : AHEAD_STEPS - 3), "%s: %u passes were begun ahead", what, ahead.begun);
            CHECK(memcmp(ahead.ids, plain.ids, sizeof plain.ids) == 0 &&
                      memcmp(ahead.logprobs, plain.logprobs, sizeof plain.logprobs) == 0 &&
                      memcmp(ahead.experts, plain.experts, sizeof plain.experts) == 0,
                  "%s: %u sequences%s draw otherwise with passes begun ahead", what, COUNTS[k],
                  disturb ? ", disturbed," : "");
        }
    session_free(&s);
}

// The chain of a decoded token, which bounds its speed on cards: dispatches of a layer, and of the embedding, the head, the draw and zeros. It is
// recorded for a device that only counts, which has the limits and capabilities of this one.
static void test_chain(const struct Device *dev) {
    static const struct {
        const char *preset;
        enum DType type;
        uint32_t most; // in all
    } MODELS[] = {
        {"deepseek-moe-16b", DT_Q4_0, 226}, {"deepseek-moe-16b", DT_BF16, 226}, {"smollm2-135m", DT_Q4_1, 184}};
    enum { DENSE = 6, MOE = 8, AROUND = 4 };
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        struct Config c;
        struct Device dry;
        struct Model m;
        struct Session s;
        struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT};
        uint32_t zero = 0, id = 1, next, want = AROUND;
        device_open_dry(&dry, dev);
        if (!CHECK(config_preset(&c, MODELS[i].preset) && model_init(&m, &dry, &c, MODELS[i].type, CONTEXT) &&
                       session_init(&s, &m, &o),
                   "%s", fail_last()))
            return;
        for (uint32_t layer = 0; layer < c.n_layers; layer++)
            want += config_is_moe(&c, layer) ? MOE : DENSE;
        fail_quiet(true);
        session_decode(&s, 1, &zero, &id, &GREEDY, &next, NULL); // records it; there is nothing to run
        fail_quiet(false);
        uint32_t n = s.decode[1] ? program_dispatches(s.decode[1]) : 0;
        uint32_t barriers = s.decode[1] ? program_barriers(s.decode[1]) : 0;
        CHECK(n == want && n == MODELS[i].most && barriers < n,
              "%s %s: %u dispatches a token instead of %u, %u barriers", MODELS[i].preset, DTYPES[MODELS[i].type].name,
              n, want, barriers);
        printf("%s %s: %u dispatches and %u barriers a token\n", MODELS[i].preset, DTYPES[MODELS[i].type].name, n,
               barriers);
        CHECK(s.decode[1] && program_check(s.decode[1], -1) == 0, "%s: a barrier is missing", MODELS[i].preset);
        session_free(&s);
        model_free(&m);
        device_close(&dry);
    }
}

static void test_refusals(struct Model *m) {
    struct Session s;
    uint32_t *ids = random_ids(&m->config, CONTEXT + 1, 8), next, zero = 0, wrong = m->config.vocab_size;
    struct SessionOptions o = {.n_sequences = 1, .context = m->max_positions + 1};
    fail_quiet(true);
    CHECK(!session_init(&s, m, &o) && strstr(fail_last(), "positions"), "a context beyond the positions: %s",
          fail_last());
    fail_quiet(false);
    if (!open_session(&s, m, 1, 0))
        return;
    fail_quiet(true);
    CHECK(!session_prefill(&s, 0, ids, 0, &GREEDY, &next, NULL) && strstr(fail_last(), "empty"), "%s", fail_last());
    CHECK(!session_prefill(&s, 0, ids, CONTEXT + 1, &GREEDY, &next, NULL) && strstr(fail_last(), "holds 97"), "%s",
          fail_last());
    CHECK(!session_prefill(&s, 0, &wrong, 1, &GREEDY, &next, NULL) && strstr(fail_last(), "vocabulary"), "%s",
          fail_last());
    fail_quiet(false);
    CHECK(session_prefill(&s, 0, ids, CONTEXT, &GREEDY, &next, NULL), "a full context: %s", fail_last());
    fail_quiet(true);
    CHECK(!session_decode(&s, 1, &zero, ids, &GREEDY, &next, NULL) && s.length[0] == CONTEXT, "one token too many");
    fail_quiet(false);
    free(ids);
    session_free(&s);
}

// A forbidden token is never taken: the next likeliest is, with its share of what is left; an empty list changes nothing.
static void test_bias(struct Model *m, const char *what) {
    struct Session s;
    struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT, .biased = true};
    if (!CHECK(session_init(&s, m, &o), "%s", fail_last()))
        return;
    uint32_t *ids = random_ids(&m->config, 9, 4), first, second, again;
    float forbid = SESSION_FORBID, lp_first, lp_second, lp_again;
    bool ok = session_prefill(&s, 0, ids, 9, &GREEDY, &first, &lp_first) && session_bias(&s, 1, &first, &forbid);
    session_rewind(&s, 0, 0);
    ok = ok && session_prefill(&s, 0, ids, 9, &GREEDY, &second, &lp_second) && session_bias(&s, 0, NULL, NULL);
    session_rewind(&s, 0, 0);
    ok = ok && session_prefill(&s, 0, ids, 9, &GREEDY, &again, &lp_again);
    CHECK(ok && first != second && first == again && lp_first == lp_again, "%s: %u, without it %u, then %u", what,
          first, second, again);
    float *logits = xcalloc(m->config.vocab_size, sizeof *logits);
    ok = ok && session_logits(&s, 0, logits);
    float want = (float)((double)(logits[second] - logits[first]) + lp_first - log1p(-exp((double)lp_first)));
    CHECK(ok && fabsf(lp_second - want) < 1e-4f, "%s: log-probability %g, not %g", what, (double)lp_second,
          (double)want);
    free(ids), free(logits);
    session_free(&s);
}

// The plan of a dry run covers what the run takes.
static void test_plan(struct Device *dev, const struct Config *c) {
    struct Device dry;
    struct Model plan, m;
    struct Session s, planned;
    struct SessionOptions o = {.n_sequences = 4, .context = CONTEXT, .scoring = true};
    device_open_dry(&dry, dev);
    bool ok = model_init(&plan, &dry, c, DT_F32, CONTEXT) && session_init(&planned, &plan, &o);
    uint64_t need = dry.peak_bytes, before = dev->allocated_bytes;
    session_free(&planned);
    model_free(&plan);
    dev->peak_bytes = before;
    ok = ok && model_init(&m, dev, c, DT_F32, CONTEXT) && model_randomise(&m, 1) && session_init(&s, &m, &o);
    float scores[CONTEXT];
    uint32_t *ids = random_ids(c, CONTEXT, 9), sequences[] = {0, 1, 2, 3}, next[4];
    struct SampleParams params[4] = {{0}};
    ok = ok && session_score(&s, ids, CONTEXT, scores);
    session_rewind(&s, 0, 5);
    ok = ok && session_decode(&s, 4, sequences, ids, params, next, NULL);
    CHECK(ok && dev->peak_bytes - before <= need, "planned %.1f MiB, taken %.1f MiB", (double)need / (1 << 20),
          (double)(dev->peak_bytes - before) / (1 << 20));
    session_free(&s);
    model_free(&m);
    free(ids);
}

int main(int argc, char **argv) {
    struct Device dev;
    brief = argc > 1 && strcmp(argv[1], "brief") == 0;
    if (!card_open(&dev)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    static const struct {
        const char *preset;
        enum DType type;
        bool as_card; // with the forms of few rows that cards have
    } MODELS[] = {{"tiny", DT_F32, false},      {"tiny", DT_Q4_1, false},     {"tiny-moe", DT_F32, false},
                  {"tiny-moe", DT_BF16, false}, {"tiny-moe", DT_Q4_0, false}, {"tiny-moe", DT_Q4_0, true}};
    const bool card = dev.as_card;
    for (size_t i = 0; i < sizeof MODELS / sizeof MODELS[0]; i++) {
        struct Config c;
        struct Model m;
        char what[40];
        snprintf(what, sizeof what, "%s %s%s", MODELS[i].preset, DTYPES[MODELS[i].type].name,
                 MODELS[i].as_card ? " as a card" : "");
        CHECK(config_preset(&c, MODELS[i].preset), "preset");
        dev.as_card = card || (MODELS[i].as_card && dev.is_cpu);
        c.init_std = 0.1f; // else every token is as likely as the next, and nothing is told apart
        if (!CHECK(model_init(&m, &dev, &c, MODELS[i].type, CONTEXT) && model_randomise(&m, 11), "%s", fail_last()))
            continue;
        test_chunks(&m, what);
        test_beside_others(&m, what);
        test_batch(&m, what);
        test_score_behind(&m, what);
        test_penalties(&m, what);
        test_rewind(&m, what);
        test_score(&m, what);
        test_sampling(&m, what);
        test_bias(&m, what);
        test_experts(&m, what);
        test_ahead(&m, what);
        if (!brief || i == 0)
            test_mirostat(&m, what);
        if (!brief) {
            test_shared(&m, what);
            test_grammar(&m, what);
            test_refusals(&m);
        }
        model_free(&m);
        test_plan(&dev, &c);
    }
    dev.as_card = card;
    test_chain(&dev);
    device_close(&dev);
    return check_done();
}
