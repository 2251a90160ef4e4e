// `vkmoe chat MODEL`: a conversation. Each turn renders the whole conversation anew and keeps in the cache what the new tokens have in
// common with the old ones, so that /undo, /regen, /system and an overflowing context need nothing special. From a pipe each line is a
// message and stdout holds the answers alone.
#include "cli/commands.h"
#include "cli/heat.h"
#include "cli/lines.h"
#include "cli/load.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/utf8.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct Chat {
    struct Loaded l;
    struct Lines *lines;
    FILE *say; // what is not the model's: the terminal, else stderr
    bool json;
    char *system;             // NULL: none
    struct Message *messages; // their texts are ours
    size_t n, room;
    size_t left_out;            // first messages that no longer fit the context
    struct SamplerSettings set; // as the command line has them; its params are taken from the next line
    struct SampleParams params;
    struct Sampler sampler;
    struct Stops stops;
    uint32_t max_tokens;
    uint32_t *cached; // tokens in the session's cache
    uint32_t n_cached;
    struct Heat heat;
    size_t prompt_tokens; // of the last turn, those that were not in the cache yet
    double prompt_seconds, seconds;
    bool quit, failed;
};

// Ctrl-C while the model speaks stops the answer; pressed again and again, when nothing reacts, it ends the program.
static volatile sig_atomic_t interrupts;
enum { INTERRUPTS_TO_END = 3 };

static void on_interrupt(int sig) {
    if (++interrupts >= INTERRUPTS_TO_END) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

// ---- The conversation

static void message_add(struct Chat *c, enum Role role, const char *text, size_t bytes) {
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 16;
        c->messages = xrealloc(c->messages, c->room * sizeof *c->messages);
    }
    char *copy = xmalloc(bytes + 1);
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    c->messages[c->n++] = (struct Message){role, copy, bytes};
}

static void message_drop(struct Chat *c) { free((char *)(uintptr_t)c->messages[--c->n].text); }

// Takes back the last question and its answer; false when there is none.
static bool turn_drop(struct Chat *c) {
    if (c->n == 0)
        return false;
    while (c->n > 0 && c->messages[c->n - 1].role == ROLE_ASSISTANT)
        message_drop(c);
    if (c->n > 0)
        message_drop(c);
    c->left_out = 0;
    return true;
}

// Tokens of the conversation without its first `left_out` messages, up to where the model begins to speak.
static bool render(struct Chat *c, struct TokenList *ids) {
    size_t n = 0, whole = c->n - c->left_out;
    struct Message *list = xcalloc(whole + 1, sizeof *list);
    if (c->system)
        list[n++] = (struct Message){ROLE_SYSTEM, c->system, strlen(c->system)};
    memcpy(list + n, c->messages + c->left_out, whole * sizeof *list);
    ids->n = 0;
    bool ok = template_render(&c->l.template, &c->l.tokenizer, list, n + whole, true, ids);
    free(list);
    return ok;
}

// Renders; leaves out the oldest turns until a quarter of the context (or the longest answer) is free.
static bool render_fitting(struct Chat *c, struct TokenList *ids) {
    uint32_t context = c->l.session.context;
    uint64_t reserve = min_u64(c->max_tokens, context / 4);
    size_t before = c->left_out;
    for (;;) {
        if (!render(c, ids))
            return false;
        bool single = c->n - c->left_out <= 1;
        if (ids->n + reserve <= context || (single && ids->n < context))
            break;
        if (single)
            return fail("this message has %zu tokens with what goes round it; the context holds %u", ids->n, context);
        do
            c->left_out++;
        while (c->left_out + 1 < c->n && c->messages[c->left_out].role != ROLE_USER);
    }
    if (c->left_out > before)
        fprintf(c->say, "%sthe context of %u tokens is full: the first %zu messages are left out from here on%s\n",
                term_paint(c->say, PAINT_YELLOW), context, c->left_out, term_paint(c->say, PAINT_NONE));
    return true;
}

// ---- One answer

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
static bool read_prompt(struct Chat *c, const struct TokenList *ids, uint32_t *next) {
    struct Session *s = &c->l.session;
    uint32_t n = (uint32_t)ids->n, common = 0;
    while (common < n - 1 && common < c->n_cached && c->cached[common] == ids->ids[common])
        common++;
    session_rewind(s, 0, common);
    c->n_cached = common;
    c->prompt_tokens = n - common;
    double begin = clock_seconds();
    for (uint32_t at = common; at < n;) {
        uint32_t t = (uint32_t)min_u64(s->chunk, n - at);
        bool last = at + t == n;
        if (last)
            sampler_see(&c->sampler, ids->ids, n);
        if (interrupts || (last && !sampler_prepare(&c->sampler, s, 0, c->max_tokens)) ||
            !session_prefill(s, 0, ids->ids + at, t, last ? &c->sampler.params : NULL, next, NULL))
            return false;
        memcpy(c->cached + at, ids->ids + at, t * sizeof *c->cached);
        c->n_cached = at += t;
    }
    c->prompt_seconds = clock_seconds() - begin;
    return true;
}

struct Spoken {
    char *text;
    size_t bytes;
    uint32_t tokens;
    const char *stopped; // "end", "stop", "length", "context", "interrupt"
};

static void speak(struct Chat *c, struct Spoken *a, const char *text, size_t bytes) {
    text = stops_push(&c->stops, text, bytes, &bytes);
    // The blank before an answer is the template's, or the tokenizer's, which puts one in front of every text.
    bool blank = c->l.tokenizer.strip_blank || template_lead(&c->l.template)[0] == ' ';
    if (a->bytes == 0 && bytes > 0 && text[0] == ' ' && blank)
        text++, bytes--;
    a->text = xrealloc(a->text, a->bytes + bytes + 1);
    memcpy(a->text + a->bytes, text, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = 0;
    if (c->json)
        return;
    if (lines_edited(c->lines) || term_is_terminal(stdout))
        term_write(stdout, text, bytes);
    else
        fwrite(text, 1, bytes, stdout);
    fflush(stdout);
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
        speak(c, a, text, bytes);
        a->tokens++;
        a->stopped = c->stops.found               ? "stop"
                     : interrupts                 ? "interrupt"
                     : a->tokens == c->max_tokens ? "length"
                     : s->length[0] == s->context ? "context"
                                                  : NULL;
        if (a->stopped)
            break;
        uint32_t id = next;
        ok = sampler_take(&c->sampler, s, 0, &c->l.tokenizer, id) &&
             sampler_prepare(&c->sampler, s, 0, c->max_tokens - a->tokens) &&
             session_decode(s, 1, &zero, &id, &c->sampler.params, &next, NULL);
        if (ok)
            c->cached[c->n_cached++] = id;
    }
    c->seconds = clock_seconds() - begin;
    const char *rest = detokenizer_flush(&detokenizer, &bytes);
    speak(c, a, rest, bytes);
    // What was held back because it might have become a stop string is no longer one.
    char *held = xstrdup(stops_flush(&c->stops, &bytes));
    uint32_t n_stops = c->stops.n;
    c->stops.n = 0;
    speak(c, a, held, bytes);
    c->stops.n = n_stops;
    free(held);
    detokenizer_free(&detokenizer);
    return ok;
}

static void tell_figures(struct Chat *c, const struct Spoken *a) {
    double rate = c->seconds > 0 ? a->tokens / c->seconds : 0;
    double prompt_rate = c->prompt_seconds > 0 ? (double)c->prompt_tokens / c->prompt_seconds : 0;
    if (c->json) {
        size_t length;
        char *text = utf8_repair(a->text ? a->text : "", a->bytes, &length), *quoted = json_quote(text, length);
        printf("{\"text\": %s, \"stopped\": \"%s\", \"prompt_tokens\": %zu, \"prompt_tokens_per_second\": %.6g, "
               "\"tokens\": %u, "
               "\"tokens_per_second\": %.6g}\n",
               quoted, a->stopped, c->prompt_tokens, prompt_rate, a->tokens, rate);
        fflush(stdout);
        free(quoted);
        free(text);
        return;
    }
    putchar('\n');
    fflush(stdout);
    const char *why = strcmp(a->stopped, "length") == 0      ? "; stopped at --max-tokens (/set max-tokens N)"
                      : strcmp(a->stopped, "context") == 0   ? "; stopped because the context is full"
                      : strcmp(a->stopped, "interrupt") == 0 ? "; stopped"
                                                             : "";
    fprintf(stderr, "%s%u tokens, %.1f/s; prompt %zu tokens, %.1f/s%s%s\n", term_paint(stderr, PAINT_DIM), a->tokens,
            rate, c->prompt_tokens, prompt_rate, why, term_paint(stderr, PAINT_NONE));
}

// Answers the last message. Where nothing could be said the message is taken back.
static void answer(struct Chat *c) {
    struct TokenList ids = {0};
    struct Spoken a = {0};
    uint32_t next;
    interrupts = 0;
    c->params.stream++; // another answer, other random numbers: /regen says something else
    c->set.params = c->params;
    sampler_begin(&c->sampler, &c->set, c->params.stream, NULL);
    heat_clear(&c->heat, &c->l.file.config);
    bool ok = render_fitting(c, &ids);
    if (ok) {
        ok = read_prompt(c, &ids, &next);
        if (ok) {
            count_experts(c);
            ok = answer_tokens(c, next, &a);
        }
        c->failed = !ok && !interrupts;
    }
    if (ok) {
        tell_figures(c, &a);
        message_add(c, ROLE_ASSISTANT, a.text ? a.text : "", a.bytes);
    } else {
        if (interrupts)
            fprintf(c->say, "stopped before the answer; the message is taken back\n");
        message_drop(c);
    }
    interrupts = 0;
    sampler_end(&c->sampler);
    free(a.text);
    token_list_free(&ids);
}

// ---- Commands

static void help(FILE *to) {
    fputs(
        "  /help            this list\n"
        "  /clear           forget the conversation\n"
        "  /undo            take back the last question and its answer\n"
        "  /regen           answer the last question again\n"
        "  /system [TEXT]   show or set the system message; `/system off` removes it\n"
        "  /set [NAME X]    show or set temperature, top-k, top-p, min-p, seed, max-tokens\n"
        "  /experts         which experts the last answer went through\n"
        "  /quit            or Ctrl-D\n"
        "Ctrl-C stops an answer. A line that ends with \\ goes on; \"\"\" begins and ends a message of several lines;\n"
        "// at the beginning of a message stands for one slash.\n",
        to);
}

// The flags of the command line are the same settings: their limits are taken from there.
static const struct Flag *flag_of(const struct Args *args, const char *name) {
    for (const struct Flag *f = args->command->flags; f->name || f->help; f++)
        if (f->name && strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

static void settings_show(const struct Chat *c) {
    fprintf(c->say, "temperature %g  top-k %u  top-p %g  min-p %g  seed %llu  max-tokens %u\n",
            (double)c->params.temperature, c->params.top_k, (double)c->params.top_p, (double)c->params.min_p,
            (unsigned long long)c->params.seed_high << 32 | c->params.seed_low, c->max_tokens);
}

static void set(struct Chat *c, const struct Args *args, char *rest) {
    char *name = strtok(rest, " \t="), *text = strtok(NULL, " \t="), *end = NULL;
    if (!name) {
        settings_show(c);
        return;
    }
    double x = text ? strtod(text, &end) : 0;
    const struct Flag *f = flag_of(args, name);
    bool seed = strcmp(name, "seed") == 0, whole = seed || (f && f->kind == ARG_INT);
    bool known = seed || (f && strcmp(name, "context") != 0 && (f->kind == ARG_INT || f->kind == ARG_FLOAT));
    double least = f ? f->min : 0, most = f ? f->max : 9007199254740992.0;
    if (!known) {
        fprintf(c->say, "there is no setting '%s'; there are temperature, top-k, top-p, min-p, seed and max-tokens\n",
                name);
        return;
    }
    if (!text || end == text || *end || !(x >= least && x <= most) || (whole && x != (double)(uint64_t)x)) {
        fprintf(c->say, "%s takes a %snumber between %g and %g\n", name, whole ? "whole " : "", least, most);
        return;
    }
    if (strcmp(name, "temperature") == 0)
        c->params.temperature = (float)x;
    else if (strcmp(name, "top-k") == 0)
        c->params.top_k = (uint32_t)x;
    else if (strcmp(name, "top-p") == 0)
        c->params.top_p = (float)x;
    else if (strcmp(name, "min-p") == 0)
        c->params.min_p = (float)x;
    else if (strcmp(name, "max-tokens") == 0)
        c->max_tokens = (uint32_t)x;
    else if (seed)
        c->params.seed_low = (uint32_t)(uint64_t)x, c->params.seed_high = (uint32_t)((uint64_t)x >> 32);
    settings_show(c);
}

static void experts(const struct Chat *c) {
    const struct Config *config = &c->l.file.config;
    if (config->n_experts == 0)
        fprintf(c->say, "this model has no experts: every token goes through all of it\n");
    else if (c->heat.tokens == 0)
        fprintf(c->say, "there is no answer yet\n");
    else
        heat_draw(c->say, &c->heat, config, term_width(c->say));
}

static void system_message(struct Chat *c, const char *text) {
    if (*text) {
        free(c->system);
        c->system = strcmp(text, "off") == 0 ? NULL : xstrdup(text);
        c->left_out = 0;
    }
    if (c->system) {
        fputs("system: ", c->say);
        term_write(c->say, c->system, strlen(c->system));
        fputc('\n', c->say);
    } else {
        fprintf(c->say, "no system message\n");
    }
}

static void command(struct Chat *c, const struct Args *args, char *line) {
    char *rest = line + strcspn(line, " \t");
    if (*rest)
        *rest++ = 0;
    rest += strspn(rest, " \t");
    if (strcmp(line, "/help") == 0) {
        help(c->say);
    } else if (strcmp(line, "/clear") == 0) {
        while (c->n)
            message_drop(c);
        c->left_out = 0;
        fprintf(c->say, "a new conversation\n");
    } else if (strcmp(line, "/undo") == 0) {
        bool dropped = turn_drop(c);
        fprintf(c->say, dropped ? "taken back; %zu messages remain\n" : "there is nothing to take back\n", c->n);
    } else if (strcmp(line, "/regen") == 0) {
        if (c->n == 0) {
            fprintf(c->say, "there is nothing to answer again\n");
            return;
        }
        while (c->n > 0 && c->messages[c->n - 1].role == ROLE_ASSISTANT)
            message_drop(c);
        answer(c);
    } else if (strcmp(line, "/system") == 0) {
        system_message(c, rest);
    } else if (strcmp(line, "/set") == 0) {
        set(c, args, rest);
    } else if (strcmp(line, "/experts") == 0) {
        experts(c);
    } else if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0 || strcmp(line, "/bye") == 0) {
        c->quit = true;
    } else {
        fputs("there is no command ", c->say);
        term_write(c->say, line, strlen(line));
        fputs("; /help lists them\n", c->say);
    }
}

// ---- Input

static void append_line(char **message, const char *line) {
    char *longer = *message ? xsprintf("%s\n%s", *message, line) : xstrdup(line);
    free(*message);
    *message = longer;
}

// One message, which may take several lines. *raw: a command is not looked for in it.
static enum LineEvent read_message(struct Chat *c, char **message, bool *block) {
    static const char FENCE[] = "\"\"\"";
    char prompt[64], more[64], *line;
    bool terminal = lines_edited(c->lines);
    // Escape sequences stand between \1 and belong to the character behind them: one must follow.
    const char *paint = term_paint(stdout, PAINT_GREEN), *plain = term_paint(stdout, PAINT_NONE);
    snprintf(prompt, sizeof prompt, *paint ? "\1%s\1>\1%s\1 " : "%s> %s", paint, plain);
    snprintf(more, sizeof more, *paint ? "\1%s\1.\1%s\1 " : "%s. %s", paint, plain);
    *message = NULL;
    *block = false;
    enum LineEvent event = lines_read(c->lines, prompt, &line);
    for (bool first = true; event == LINE_TEXT; first = false) {
        char *text = line;
        bool go_on = false;
        size_t n = strlen(text);
        if (first && strncmp(text, FENCE, 3) == 0) {
            *block = true;
            text += 3, n -= 3;
        }
        if (*block) {
            go_on = !(n >= 3 && strcmp(text + n - 3, FENCE) == 0);
            if (!go_on)
                text[n - 3] = 0;
        } else if (terminal && n > 0 && text[n - 1] == '\\') {
            go_on = true;
            text[n - 1] = 0;
        }
        if (!(*block && first && !*text)) // a fence alone on its line adds no empty one
            append_line(message, text);
        free(line);
        if (!go_on)
            break;
        event = lines_read(c->lines, more, &line);
    }
    if (event == LINE_END && *message) // the end of the input ends an open block as well
        event = LINE_TEXT;
    if (event != LINE_TEXT) {
        free(*message);
        *message = NULL;
    } else if (!*message) {
        *message = xstrdup("");
    }
    return event;
}

static void converse(struct Chat *c, const struct Args *args) {
    while (!c->quit && !c->failed) {
        char *message;
        bool block;
        enum LineEvent event = read_message(c, &message, &block);
        if (event == LINE_END)
            break;
        if (event == LINE_INTERRUPTED)
            continue;
        size_t blank = strspn(message, " \t\n");
        if (message[blank]) {
            if (!strchr(message, '\n'))
                lines_remember(c->lines, message);
            if (message[0] == '/' && message[1] != '/' && !block) {
                command(c, args, message);
            } else {
                const char *text = message + (message[0] == '/' && message[1] == '/' && !block ? 1 : 0);
                message_add(c, ROLE_USER, text, strlen(text));
                answer(c);
            }
        }
        free(message);
    }
    if (lines_edited(c->lines) && !c->quit)
        fputc('\n', stdout);
}

static void banner(const struct Chat *c) {
    char total[16], active[16], memory[16];
    const struct Config *config = &c->l.file.config;
    term_format_count((double)config_parameters(config), total);
    term_format_count((double)config_activated_parameters(config), active);
    term_format_bytes(c->l.dev.peak_bytes, memory);
    printf("%s%s%s: %s parameters, %s activated, on %s (%s), context %u\n/help lists the commands\n",
           term_paint(stdout, PAINT_BOLD), c->l.file.path, term_paint(stdout, PAINT_NONE), total, active, c->l.dev.name,
           memory, c->l.session.context);
}

static void chat_free(struct Chat *c) {
    while (c->n)
        message_drop(c);
    if (c->lines)
        lines_close(c->lines);
    heat_free(&c->heat);
    stops_free(&c->stops);
    free(c->messages);
    free(c->system);
    free(c->cached);
    load_free(&c->l);
}

int cmd_chat(const struct Args *args) {
    enum { USUAL_CONTEXT = 4096 };
    struct Chat *c = xcalloc(1, sizeof *c);
    struct SessionOptions o = {.n_sequences = 1};
    bool ok = load_text(&c->l, args, true) && load_sampling(args, &c->set) && load_stops(args, &c->stops) &&
              load_context(&c->l, args, USUAL_CONTEXT, &o.context);
    sampler_options(&c->set, false, &o);
    ok = ok && load_model(&c->l, args, &o);
    if (ok) {
        char *history = path_join(cache_dir(), "history");
        c->lines = lines_open(history);
        free(history);
        c->say = lines_edited(c->lines) ? stdout : stderr;
        c->json = args_switch(args, "json");
        c->system = args_text(args, "system") ? xstrdup(args_text(args, "system")) : NULL;
        c->params = c->set.params;
        c->max_tokens = (uint32_t)args_int(args, "max-tokens");
        c->cached = xcalloc(o.context, sizeof *c->cached);
        heat_init(&c->heat, &c->l.file.config);
        struct sigaction action = {.sa_handler = on_interrupt}, before;
        sigaction(SIGINT, &action, &before); // without SA_RESTART: a pipe's reader wakes up too
        if (lines_edited(c->lines))
            banner(c);
        converse(c, args);
        sigaction(SIGINT, &before, NULL);
        ok = !c->failed;
    }
    chat_free(c);
    free(c);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
