// The conversation and its answers. Each turn renders the whole conversation anew and keeps in the cache what the new tokens have in
// common with the old ones, so that /undo, /regen, /edit, /system and an overflowing context need nothing special.
#include "cli/chat.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/utf8.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

// Ctrl-C while the model speaks stops the answer; pressed again and again, when nothing reacts, it ends the program.
static volatile sig_atomic_t interrupts;
enum { INTERRUPTS_TO_END = 3 };

static void on_interrupt(int sig) {
    if (++interrupts >= INTERRUPTS_TO_END) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}
const struct sigaction CHAT_INTERRUPT = {.sa_handler = on_interrupt}; // no SA_RESTART: a pipe's reader wakes up too

// ---- The conversation

void chat_message_add(struct Chat *c, enum Role role, const char *text, size_t bytes) {
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 16;
        c->messages = xrealloc(c->messages, c->room * sizeof *c->messages);
    }
    char *copy = xmalloc(bytes + 1);
    if (bytes)
        memcpy(copy, text, bytes);
    copy[bytes] = 0;
    c->messages[c->n++] = (struct ChatMessage){.role = role, .text = copy, .bytes = bytes};
}

static void message_drop(struct Chat *c) { chatfile_message_free(&c->messages[--c->n]); }

void chat_clear(struct Chat *c) {
    while (c->n)
        message_drop(c);
    c->left_out = 0;
    free(c->attached);
    c->attached = NULL;
}

// Place of the last question; c->n when there is none.
static size_t last_question(const struct Chat *c) {
    for (size_t i = c->n; i > 0; i--)
        if (c->messages[i - 1].role == ROLE_USER)
            return i - 1;
    return c->n;
}

const char *chat_last_question(const struct Chat *c) {
    size_t i = last_question(c);
    return i < c->n ? c->messages[i].text : NULL;
}

bool chat_undo(struct Chat *c) {
    size_t first = last_question(c);
    if (first == c->n)
        return false;
    while (c->n > first)
        message_drop(c);
    c->left_out = 0;
    return true;
}

// An answer's tokens as the model said them take the place of those that its text would give, where they differ: what is in the cache
// then stays good. The answers are what the template would train on, each up to and with the token that ends its turn.
static void put_said(struct TokenList *ids, const struct ChatMessage *messages, size_t n) {
    struct TokenList out = {0};
    size_t k = 0;
    for (size_t i = 0; i < ids->n;) {
        if (!ids->trained[i]) {
            token_list_push(&out, ids->ids[i++], false);
            continue;
        }
        size_t end = i;
        while (end < ids->n && ids->trained[end])
            end++;
        while (k < n && messages[k].role != ROLE_ASSISTANT)
            k++;
        const struct ChatMessage *said = k < n && messages[k].ids ? &messages[k] : NULL;
        for (uint32_t j = 0; said && j < said->n_ids; j++)
            token_list_push(&out, said->ids[j], true);
        for (size_t j = said ? end - 1 : i; j < end; j++)
            token_list_push(&out, ids->ids[j], true);
        k++;
        i = end;
    }
    token_list_free(ids);
    *ids = out;
}

// Tokens of the conversation without its first `left_out` messages, up to where the model begins to speak.
static bool render(struct Chat *c, struct TokenList *ids) {
    size_t n = 0, whole = c->n - c->left_out;
    struct Message *list = xcalloc(whole + 1, sizeof *list);
    if (c->system)
        list[n++] = (struct Message){.role = ROLE_SYSTEM, .text = c->system, .bytes = strlen(c->system)};
    for (size_t i = c->left_out; i < c->n; i++)
        list[n++] =
            (struct Message){.role = c->messages[i].role, .text = c->messages[i].text, .bytes = c->messages[i].bytes};
    ids->n = 0;
    bool ok = template_render(&c->l.template, &c->l.tokenizer, list, n, true, ids);
    free(list);
    if (ok)
        put_said(ids, c->messages + c->left_out, whole);
    return ok;
}

bool chat_count_tokens(struct Chat *c, size_t *n) {
    struct TokenList ids = {0};
    bool ok = render(c, &ids);
    *n = ids.n;
    token_list_free(&ids);
    return ok;
}

void chat_forget_cache(struct Chat *c) {
    session_rewind(&c->l.session, 0, 0);
    c->n_cached = 0;
}

// Leaves out one more of the oldest turns: a question and what answered it. False when only the last question is left.
static bool leave_out(struct Chat *c) {
    size_t last = last_question(c), next = c->left_out;
    do
        next++;
    while (next < last && c->messages[next].role != ROLE_USER);
    if (next > last)
        return false;
    c->left_out = next;
    return true;
}

// Renders. When the context is full (a quarter of it, or the longest answer, is not free) the oldest turns are left out until half of it is
// free: so much at once, because what follows must go through the model again, and should not have to after each message. The system
// message stays. `said`: tokens of an answer that has begun.
static bool render_fitting(struct Chat *c, uint32_t said, struct TokenList *ids) {
    uint32_t context = c->l.session.context;
    uint64_t reserve = min_u64(c->max_tokens, context / 4);
    if (!render(c, ids))
        return false;
    bool full = ids->n + said + reserve > context;
    while (full && ids->n + said + context / 2 > context && leave_out(c))
        if (!render(c, ids))
            return false;
    return true;
}

static void tell_left_out(const struct Chat *c) {
    fprintf(c->say, "%sthe context of %u tokens is full: the first %zu messages are left out from here on%s\n",
            term_paint(c->say, PAINT_YELLOW), c->l.session.context, c->left_out, term_paint(c->say, PAINT_NONE));
}

// ---- One answer

struct Spoken {
    char *text;
    size_t bytes, shown; // shown: how much of it has been written
    uint32_t *ids;
    uint32_t tokens;
    bool cut;            // at a stop text: the tokens say more than the text
    const char *stopped; // "end", "length", "context", "interrupt", "stop"
    uint32_t kept, read; // tokens of the prompt that were in the cache, and that were not
    double prompt_seconds, seconds;
};

static void count_experts(struct Chat *c) {
    const struct Config *config = &c->l.file.config;
    uint32_t token = c->l.session.chosen_tokens - 1; // of a prompt: the last, which gave the answer's first token
    if (config->n_experts == 0)
        return;
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        const uint32_t *experts = session_experts(&c->l.session, layer, token);
        if (experts)
            heat_add(&c->heat, config, layer, experts);
    }
    c->heat.tokens++;
}

// Brings the cache to `ids`, in pieces, so that Ctrl-C is heard. False with interrupts set: stopped by it.
static bool read_prompt(struct Chat *c, const struct TokenList *ids, struct Spoken *a, uint32_t *next) {
    struct Session *s = &c->l.session;
    uint32_t n = (uint32_t)ids->n, common = 0;
    while (common < n - 1 && common < c->n_cached && c->cached[common] == ids->ids[common])
        common++;
    session_rewind(s, 0, common);
    c->n_cached = common;
    a->kept = common;
    a->read += n - common;
    double begin = clock_seconds();
    for (uint32_t at = common; at < n;) {
        uint32_t t = (uint32_t)min_u64(s->chunk, n - at);
        bool last = at + t == n;
        if (last && a->tokens == 0) // what an answer has said so far was seen when it was drawn
            sampler_see(&c->sampler, ids->ids, n);
        if (interrupts || (last && !sampler_prepare(&c->sampler, s, 0, c->max_tokens - a->tokens)) ||
            !session_prefill(s, 0, ids->ids + at, t, last ? &c->sampler.params : NULL, next, NULL))
            return false;
        memcpy(c->cached + at, ids->ids + at, t * sizeof *c->cached);
        c->n_cached = at += t;
    }
    a->prompt_seconds += clock_seconds() - begin;
    return true;
}

static void show(struct Chat *c, struct Spoken *a) {
    if (c->json)
        ; // all of it comes at the end
    else if (lines_edited(c->lines) || term_is_terminal(stdout))
        term_write(stdout, a->text + a->shown, a->bytes - a->shown);
    else
        fwrite(a->text + a->shown, 1, a->bytes - a->shown, stdout);
    fflush(stdout);
    a->shown = a->bytes;
}

// Takes up what the model says, as far as it can be no part of a stop text; true when it reached one.
static bool speak(struct Chat *c, struct Spoken *a, const char *text, size_t bytes) {
    text = stops_push(&c->ends, text, bytes, &bytes);
    // The blank before an answer is the template's, or the tokenizer's, which puts one in front of every text.
    bool blank = c->l.tokenizer.strip_blank || template_lead(&c->l.template)[0] == ' ';
    if (a->bytes == 0 && bytes > 0 && text[0] == ' ' && blank)
        text++, bytes--;
    a->text = xrealloc(a->text, a->bytes + bytes + 1);
    memcpy(a->text + a->bytes, text, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = 0;
    show(c, a);
    return c->ends.found;
}

// The answer is over: what was held back because it might have become a stop text is none.
static void speak_rest(struct Chat *c, struct Spoken *a) {
    size_t bytes;
    char *held = xstrdup(stops_flush(&c->ends, &bytes));
    c->ends.n = 0;
    speak(c, a, held, bytes);
    free(held);
}

// The context is full in the middle of an answer: turns are left out, and the rest goes through again with what has been said so far.
static bool go_on_shifted(struct Chat *c, struct Spoken *a, uint32_t *next, bool *shifted) {
    struct TokenList ids = {0};
    size_t before = c->left_out;
    bool ok = render_fitting(c, a->tokens, &ids);
    *shifted = ok && c->left_out > before && ids.n + a->tokens < c->l.session.context;
    if (*shifted) {
        for (uint32_t i = 0; i < a->tokens; i++)
            token_list_push(&ids, a->ids[i], true);
        ok = read_prompt(c, &ids, a, next);
    }
    token_list_free(&ids);
    return ok;
}

static bool answer_tokens(struct Chat *c, uint32_t next, struct Spoken *a) {
    struct Session *s = &c->l.session;
    struct Detokenizer detokenizer = {0};
    size_t bytes;
    bool ok = true;
    double begin = clock_seconds();
    for (uint32_t zero = 0; ok; count_experts(c)) {
        if (load_is_stop(&c->l, next)) {
            a->stopped = "end";
            break;
        }
        const char *text = detokenizer_push(&detokenizer, &c->l.tokenizer, next, &bytes);
        a->ids = xrealloc(a->ids, (a->tokens + 1) * sizeof *a->ids);
        a->ids[a->tokens++] = next;
        a->cut = speak(c, a, text, bytes);
        a->stopped = a->cut ? "stop" : interrupts ? "interrupt" : a->tokens == c->max_tokens ? "length" : NULL;
        if (a->stopped)
            break;
        ok = sampler_take(&c->sampler, s, 0, &c->l.tokenizer, next);
        if (ok && s->length[0] == s->context) {
            bool shifted;
            ok = go_on_shifted(c, a, &next, &shifted);
            if (ok && shifted)
                continue;
            a->stopped = ok ? "context" : interrupts ? "interrupt" : NULL;
            ok = a->stopped != NULL;
            break;
        }
        uint32_t id = next;
        ok = ok && sampler_prepare(&c->sampler, s, 0, c->max_tokens - a->tokens) &&
             session_decode(s, 1, &zero, &id, &c->sampler.params, &next, NULL);
        if (ok)
            c->cached[c->n_cached++] = id;
    }
    a->seconds = clock_seconds() - begin;
    const char *rest = detokenizer_flush(&detokenizer, &bytes);
    if (!a->cut)
        a->cut = speak(c, a, rest, bytes);
    if (!a->cut)
        speak_rest(c, a);
    detokenizer_free(&detokenizer);
    return ok;
}

static void tell_figures(struct Chat *c, const struct Spoken *a) {
    double rate = a->seconds > 0 ? a->tokens / a->seconds : 0;
    double prompt_rate = a->prompt_seconds > 0 ? a->read / a->prompt_seconds : 0;
    if (c->json) {
        size_t length;
        char *text = utf8_repair(a->text ? a->text : "", a->bytes, &length), *quoted = json_quote(text, length);
        printf("{\"text\": %s, \"stopped\": \"%s\", \"prompt_tokens\": %u, \"cached_tokens\": %u, "
               "\"prompt_tokens_per_second\": %.6g, \"tokens\": %u, \"tokens_per_second\": %.6g}\n",
               quoted, a->stopped, a->read, a->kept, prompt_rate, a->tokens, rate);
        fflush(stdout);
        free(quoted);
        free(text);
        return;
    }
    putchar('\n');
    fflush(stdout);
    const char *why = strcmp(a->stopped, "length") == 0      ? "; stopped at --max-tokens (/set max-tokens N)"
                      : strcmp(a->stopped, "context") == 0   ? "; stopped because the context is full"
                      : strcmp(a->stopped, "stop") == 0      ? "; stopped at a stop text"
                      : strcmp(a->stopped, "interrupt") == 0 ? "; stopped"
                                                             : "";
    fprintf(stderr, "%s%u tokens, %.1f/s; prompt %u tokens, %.1f/s, %u kept%s%s\n", term_paint(stderr, PAINT_DIM),
            a->tokens, rate, a->read, prompt_rate, a->kept, why, term_paint(stderr, PAINT_NONE));
}

static void tell_error(const char *why) {
    size_t length;
    char *text = utf8_repair(why, strlen(why), &length), *quoted = json_quote(text, length);
    printf("{\"error\": %s}\n", quoted);
    fflush(stdout);
    free(quoted);
    free(text);
}

// Answers the last message. False: nothing could be said; where Ctrl-C is the reason, that is told.
static bool answer(struct Chat *c) {
    struct TokenList ids = {0};
    struct Spoken a = {0};
    uint32_t next, context = c->l.session.context;
    size_t left_out = c->left_out;
    interrupts = 0;
    c->stream++; // another answer, other random numbers: /regen says something else
    sampler_begin(&c->sampler, &c->set, c->stream, NULL);
    memcpy(c->ends.list, c->stops, sizeof c->stops);
    c->ends.n = c->n_stops;
    heat_clear(&c->heat, &c->l.file.config);
    bool fits = render_fitting(c, 0, &ids);
    if (fits && ids.n >= context)
        fits = fail("this message has %zu tokens with what goes round it; the context holds %u", ids.n, context);
    if (fits && c->left_out > left_out)
        tell_left_out(c);
    size_t told = c->left_out;
    bool ok = fits && read_prompt(c, &ids, &a, &next);
    if (ok) {
        count_experts(c);
        ok = answer_tokens(c, next, &a);
    }
    c->failed = fits && !ok && !interrupts;
    if (ok) {
        tell_figures(c, &a);
        if (c->left_out > told)
            tell_left_out(c);
        chat_message_add(c, ROLE_ASSISTANT, a.text ? a.text : "", a.bytes);
        if (!a.cut && a.tokens) {
            c->messages[c->n - 1].ids = a.ids;
            c->messages[c->n - 1].n_ids = a.tokens;
            a.ids = NULL;
        }
    } else {
        if (!fits)
            c->left_out = left_out;
        if (interrupts)
            fprintf(c->say, "stopped before the answer\n");
        else
            c->refused = true;
        if (c->json) // a line for each message, whatever becomes of it
            tell_error(interrupts ? "stopped before the answer" : fail_last());
    }
    interrupts = 0;
    sampler_end(&c->sampler);
    stops_free(&c->ends);
    free(a.text);
    free(a.ids);
    token_list_free(&ids);
    return ok;
}

void chat_ask(struct Chat *c, const char *text) {
    char *whole = c->attached ? xsprintf("%s\n%s", c->attached, text) : NULL;
    chat_message_add(c, ROLE_USER, whole ? whole : text, strlen(whole ? whole : text));
    free(whole);
    if (answer(c)) {
        free(c->attached);
        c->attached = NULL;
        return;
    }
    message_drop(c);
    if (!c->failed)
        fprintf(c->say, "the message is taken back%s\n", c->attached ? "; the file of /read is still there" : "");
}

void chat_ask_again(struct Chat *c, const char *text) {
    size_t first = last_question(c), n = c->n - first, left_out = c->left_out;
    struct ChatMessage *old = xmalloc((n + 1) * sizeof *old);
    memcpy(old, c->messages + first, n * sizeof *old);
    c->n = first;
    if (!text)
        chat_message_add(c, ROLE_USER, old[0].text, old[0].bytes);
    else
        chat_message_add(c, ROLE_USER, text, strlen(text));
    bool ok = answer(c);
    if (!ok) {
        message_drop(c);
        memcpy(c->messages + c->n, old, n * sizeof *old);
        c->n += n;
        c->left_out = left_out;
        if (!c->failed)
            fprintf(c->say, "the conversation stays as it was\n");
    }
    for (size_t i = 0; ok && i < n; i++)
        chatfile_message_free(&old[i]);
    free(old);
}
