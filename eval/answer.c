// See answer.h.
#include "eval/answer.h"
#include "model/stops.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// A beginning that is shorter is not worth a pass of its own. Its last tokens may come out otherwise where text follows.
enum { SHARED_LEAST = 16, SHARED_UNSURE = 4 };
enum { CHOICE_SPARE = 16 }; // the prompt with the most bytes may have a few tokens less than another

// ---- Tokens

static bool prompt_tokens(const struct AnswerModel *m, const char *text, struct TokenList *ids) {
    struct Message message = {ROLE_USER, text, strlen(text), false, 0};
    *ids = (struct TokenList){0};
    bool ok = m->template ? template_render(m->template, m->tokenizer, &message, 1, true, ids)
                          : token_list_append(ids, m->tokenizer, text, strlen(text), TOKENIZE_BOS, false);
    uint32_t first = m->tokenizer->bos_id != TOKEN_NONE ? m->tokenizer->bos_id : m->tokenizer->eos_id;
    if (ok && ids->n == 0 && first != TOKEN_NONE)
        token_list_push(ids, first, false);
    return ok && (ids->n > 0 || fail("an empty prompt: there is nothing to go on from"));
}

// The template up to the answer's own words: what it puts behind them says nothing about a choice.
static struct Template without_end(const struct Template *t) {
    struct Template bare = *t;
    struct TemplateParts *answer = &bare.texts[TEXT_ANSWER];
    while (answer->n && answer->parts[answer->n - 1].kind != PART_MESSAGE)
        answer->n--;
    bare.texts[TEXT_AFTER].n = 0;
    return bare;
}

// What the assistant says, as far as it is its message.
static bool spoken_tokens(const struct AnswerModel *m, const char *prompt, const char *said, size_t n_prompt,
                          struct TokenList *ids) {
    while (*said == ' ' || *said == '\n')
        said++;
    struct Message messages[2] = {{ROLE_USER, prompt, strlen(prompt), false, 0},
                                  {ROLE_ASSISTANT, said, strlen(said), false, 0}};
    struct TokenList all = {0};
    struct Template bare = without_end(m->template); // its texts are the template's
    bool ok = template_render(&bare, m->tokenizer, messages, 2, false, &all);
    for (size_t i = n_prompt; ok && i < all.n; i++)
        token_list_push(ids, all.ids[i], false);
    token_list_free(&all);
    return ok;
}

// Prompt and continuation are cut into tokens as one text; what is longer than the prompt's own tokens is the continuation. White space at the
// prompt's end belongs to the continuation.
static bool continuation_tokens(const struct AnswerModel *m, const char *prompt, const char *said,
                                struct TokenList *ids) {
    size_t bytes = strlen(prompt);
    while (bytes > 0 && strchr(" \t\r\n", prompt[bytes - 1]))
        bytes--;
    char *bare = xsprintf("%.*s", (int)bytes, prompt), *whole = xsprintf("%s%s", prompt, said);
    struct TokenList before = {0}, all = {0};
    bool ok = token_list_append(&before, m->tokenizer, bare, bytes, TOKENIZE_BOS, false) &&
              token_list_append(&all, m->tokenizer, whole, strlen(whole), TOKENIZE_BOS, false);
    for (size_t i = before.n; ok && i < all.n; i++)
        token_list_push(ids, all.ids[i], false);
    token_list_free(&before);
    token_list_free(&all);
    free(bare);
    free(whole);
    return ok;
}

static char *bare_prompt(const struct AnswerModel *m, const char *prompt) {
    size_t bytes = strlen(prompt);
    while (!m->template && bytes > 0 && strchr(" \t\r\n", prompt[bytes - 1]))
        bytes--;
    return xsprintf("%.*s", (int)bytes, prompt);
}

// Tokens of the prompt and, appended to `said`, of the continuation.
static bool choice_tokens(const struct AnswerModel *m, const char *prompt, const char *continuation,
                          struct TokenList *ids, struct TokenList *said) {
    char *bare = bare_prompt(m, prompt);
    *said = (struct TokenList){0};
    bool ok = prompt_tokens(m, bare, ids) && (m->template ? spoken_tokens(m, prompt, continuation, ids->n, said)
                                                          : continuation_tokens(m, prompt, continuation, said));
    free(bare);
    return ok && (said->n > 0 || fail("a choice without a token: \"%s\"", continuation));
}

static const char *context_of(const struct Item *item, uint32_t choice) {
    return item->contexts ? item->contexts[choice] : item->prompt;
}

bool answer_tokens(const struct AnswerModel *m, const struct Item *item, uint32_t choice, struct TokenList *prompt,
                   struct TokenList *continuation) {
    *continuation = (struct TokenList){0};
    return item->n_choices
               ? choice_tokens(m, context_of(item, choice), item->continuations[choice], prompt, continuation)
               : prompt_tokens(m, item->prompt, prompt);
}

// Room that is enough for the record, so that it is cut only where the model's own context is too short: a token has at least a byte.
static bool room_of(const struct AnswerModel *m, const struct Item *item, uint64_t max_tokens, uint64_t *tokens) {
    struct TokenList ids = {0};
    const char *longest = item->prompt;
    size_t said = 0;
    for (uint32_t i = 0; i < item->n_choices; i++) {
        longest = i == 0 || strlen(context_of(item, i)) > strlen(longest) ? context_of(item, i) : longest;
        said = max_u64(said, strlen(item->continuations[i]));
    }
    bool ok = prompt_tokens(m, longest, &ids);
    *tokens = max_u64(*tokens, ids.n + (item->n_choices ? said + CHOICE_SPARE : max_tokens));
    token_list_free(&ids);
    return ok;
}

bool answer_longest(const struct AnswerModel *m, const struct Asked *asked, uint64_t *tokens) {
    bool ok = true;
    for (uint32_t g = 0; g < asked->n_groups; g++)
        for (uint32_t i = 0; ok && i < asked->groups[g].n; i++)
            ok = room_of(m, &asked->groups[g].items[i], asked->task->max_tokens, tokens);
    return ok;
}

// Leaves room for `more` tokens behind the prompt; what is too much goes from the left.
static bool cut_left(const struct AnswerModel *m, struct TokenList *ids, size_t more) {
    size_t room = m->context > more + 1 ? m->context - more : 1;
    if (ids->n <= room)
        return false;
    size_t keep = m->tokenizer->add_bos && ids->ids[0] == m->tokenizer->bos_id && room > 1;
    memmove(ids->ids + keep, ids->ids + ids->n - (room - keep), (room - keep) * sizeof *ids->ids);
    ids->n = room;
    return true;
}

// How many first tokens of the prompt are the beginning of all prompts of the group; 0 where they are not, or are few.
static bool shared_tokens(const struct AnswerModel *m, const struct Group *g, const struct TokenList *ids,
                          uint32_t *n) {
    struct TokenList fixed = {0};
    *n = 0;
    if (strlen(g->fixed) == 0)
        return true;
    bool ok = prompt_tokens(m, g->fixed, &fixed);
    size_t whole = fixed.n > SHARED_UNSURE ? fixed.n - SHARED_UNSURE : 0, same = 0;
    while (ok && same < whole && same < ids->n && fixed.ids[same] == ids->ids[same])
        same++;
    if (m->template && same < whole) // a message that ends where the others go on
        whole = same = same > SHARED_UNSURE ? same - SHARED_UNSURE : 0;
    if (same == whole && whole >= SHARED_LEAST && whole < ids->n)
        *n = (uint32_t)whole;
    token_list_free(&fixed);
    return ok;
}

// ---- Likelihoods

// Brings the cache to the end of the prompt but for its last token.
static bool read_prompt(struct AnswerModel *m, const struct Group *g, const struct TokenList *ids, bool cut) {
    struct Session *s = m->session;
    uint32_t shared = 0, n = (uint32_t)ids->n - 1;
    if (!cut && !shared_tokens(m, g, ids, &shared))
        return false;
    bool there = shared > 0 && m->held == g && m->n_held == shared;
    session_rewind(s, 0, there ? shared : 0);
    m->held = shared ? g : NULL;
    m->n_held = shared;
    if (!there && shared && !session_prefill(s, 0, ids->ids, shared, NULL, NULL, NULL))
        return false;
    return n == shared || session_prefill(s, 0, ids->ids + shared, n - shared, NULL, NULL, NULL);
}

static bool score_choice(struct AnswerModel *m, uint32_t last, const struct TokenList *said, double *logprob) {
    uint32_t n = (uint32_t)said->n + 1, length = m->session->length[0];
    uint32_t *ids = xmalloc(n * sizeof *ids);
    float *logprobs = xmalloc(n * sizeof *logprobs);
    ids[0] = last;
    memcpy(ids + 1, said->ids, said->n * sizeof *ids);
    bool ok = session_score_behind(m->session, ids, n, logprobs);
    *logprob = 0;
    for (uint32_t i = 1; ok && i < n; i++)
        *logprob += (double)logprobs[i];
    if (ok && !(*logprob == *logprob))
        ok = fail("a log-likelihood is not finite: the weights are damaged or their range is too large");
    session_rewind(m->session, 0, ok ? length : 0);
    free(ids);
    free(logprobs);
    return ok;
}

// Choices of one token each (letters) come out of one pass.
static bool score_letters(struct AnswerModel *m, uint32_t last, const struct TokenList *said, uint32_t n,
                          double *logprobs) {
    struct Session *s = m->session;
    const struct SampleParams greedy = {0};
    uint32_t vocab = s->m->config.vocab_size, next;
    float *logits = xmalloc(vocab * sizeof *logits);
    bool ok = session_prefill(s, 0, &last, 1, &greedy, &next, NULL) && session_logits(s, 0, logits);
    double sum = 0;
    for (uint32_t id = 0; ok && id < vocab; id++)
        sum += exp((double)logits[id] - (double)logits[next]); // the next token is the likeliest
    for (uint32_t i = 0; ok && i < n; i++)
        logprobs[i] = (double)logits[said[i].ids[0]] - (double)logits[next] - log(sum);
    session_rewind(s, 0, ok ? s->length[0] - 1 : 0);
    free(logits);
    return ok;
}

static bool likelihoods(void *context, const struct Ask *ask, double *logprobs, bool *cut) {
    struct AnswerModel *m = context;
    const struct Item *item = ask->item;
    struct TokenList *said = xcalloc(item->n_choices, sizeof *said), ids = {0};
    size_t longest = 0;
    bool ok = true, letters = !item->contexts;
    *cut = false;
    for (uint32_t i = 0; ok && i < item->n_choices; i++) {
        token_list_free(&ids);
        ok = answer_tokens(m, item, i, &ids, &said[i]);
        longest = max_u64(longest, said[i].n);
        letters = letters && said[i].n == 1;
    }
    for (uint32_t i = 0; ok && i < item->n_choices; i++) {
        if (i == 0 || item->contexts) {
            char *bare = bare_prompt(m, context_of(item, i));
            token_list_free(&ids);
            ok = prompt_tokens(m, bare, &ids);
            free(bare);
            bool short_now = ok && cut_left(m, &ids, longest);
            *cut = *cut || short_now;
            ok = ok && read_prompt(m, ask->group, &ids, short_now);
        }
        if (letters)
            ok = ok && (i > 0 || score_letters(m, ids.ids[ids.n - 1], said, item->n_choices, logprobs));
        else
            ok = ok && score_choice(m, ids.ids[ids.n - 1], &said[i], &logprobs[i]);
    }
    token_list_free(&ids);
    for (uint32_t i = 0; i < item->n_choices; i++)
        token_list_free(&said[i]);
    free(said);
    return ok;
}

// ---- Generation

struct Speech {
    struct TokenList ids;
    bool cut;
    struct Detokenizer detokenizer;
    struct Stops stops;
    struct Text text;
    const char *ended;
};
struct Speaking {
    struct AnswerModel *m;
    struct Speech *speech; // (n)
    const struct AnswerSink *sink;
};

static void put(struct Speech *a, const char *text, size_t bytes) {
    const char *certain = stops_push(&a->stops, text, bytes, &bytes);
    text_add(&a->text, certain, bytes);
}

static bool on_token(void *context, const struct BatchToken *token) {
    struct Speaking *s = context;
    struct Speech *a = &s->speech[token->text];
    for (uint32_t i = 0; i < s->m->n_stop_ids; i++)
        if (token->id == s->m->stop_ids[i]) {
            a->ended = "end";
            return false;
        }
    size_t bytes;
    const char *text = detokenizer_push(&a->detokenizer, s->m->tokenizer, token->id, &bytes);
    put(a, text, bytes);
    return !a->stops.found;
}

static void speech_free(struct Speech *a) {
    token_list_free(&a->ids);
    detokenizer_free(&a->detokenizer);
    stops_free(&a->stops);
    text_free(&a->text);
}

static bool on_end(void *context, uint32_t index, enum BatchEnd why) {
    struct Speaking *s = context;
    struct Speech *a = &s->speech[index];
    size_t bytes;
    const char *rest = detokenizer_flush(&a->detokenizer, &bytes);
    put(a, rest, bytes);
    if (!a->stops.found) {
        rest = stops_flush(&a->stops, &bytes);
        text_add(&a->text, rest, bytes);
    } else {
        a->ended = "stop";
    }
    if (!a->ended)
        a->ended = why == BATCH_LIMIT ? "length" : why == BATCH_CONTEXT ? "context" : "end";
    struct Answer answer = {a->text.text ? a->text.text : "", a->ended, a->cut};
    bool ok = s->sink->answered(s->sink->context, index, &answer);
    speech_free(a);
    *a = (struct Speech){0};
    return ok;
}

// In a chat the end of the turn ends the answer; stop strings are for text that would go on with the next question.
static void set_stops(const struct AnswerModel *m, const struct Task *t, struct Stops *stops) {
    *stops = (struct Stops){0};
    for (uint32_t i = 0; !m->template && i < t->stop.n && i < STOPS_MAX; i++)
        stops->list[stops->n++] = t->stop.list[i].text;
}

static bool generate(void *context, const struct Ask *asks, uint32_t n, const struct AnswerSink *sink) {
    struct AnswerModel *m = context;
    struct Speaking s = {m, xcalloc(n, sizeof *s.speech), sink};
    struct BatchText *texts = xcalloc(n, sizeof *texts);
    struct BatchHooks hooks = {&s, on_token, on_end};
    struct SamplerSettings greedy = {.params = {.temperature = 0, .top_p = 1, .typical = 1}, .penalty = {.repeat = 1}};
    bool ok = true;
    m->held = NULL; // the batch takes sequence 0 too
    for (uint32_t i = 0; ok && i < n; i++) {
        struct Speech *a = &s.speech[i];
        uint32_t limit = asks[i].asked->task->max_tokens, shared = 0;
        ok = prompt_tokens(m, asks[i].item->prompt, &a->ids);
        a->cut = ok && cut_left(m, &a->ids, limit);
        ok = ok && (a->cut || shared_tokens(m, asks[i].group, &a->ids, &shared));
        set_stops(m, asks[i].asked->task, &a->stops);
        texts[i] = (struct BatchText){.prompt = a->ids.ids,
                                      .n_prompt = (uint32_t)a->ids.n,
                                      .limit = limit,
                                      .shared = shared,
                                      .group = (uint32_t)(asks[i].group - asks[i].asked->groups)};
    }
    ok = ok && batch_run(m->session, m->tokenizer, texts, n, &greedy, NULL, &hooks);
    for (uint32_t i = 0; i < n; i++)
        speech_free(&s.speech[i]);
    free(s.speech);
    free(texts);
    return ok;
}

struct Answerer answer_model(struct AnswerModel *m) {
    return (struct Answerer){m, likelihoods, generate};
}
