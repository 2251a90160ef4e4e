// `vkmoe chat MODEL`: a conversation. This file reads what is typed, or comes through a pipe: there each line is a message and stdout holds
// the answers alone.
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "model/adapter.h"
#include <stdlib.h>
#include <string.h>

// ---- Input

static void append_line(char **message, const char *line) {
    char *longer = *message ? xsprintf("%s\n%s", *message, line) : xstrdup(line);
    free(*message);
    *message = longer;
}

// One message, which may take several lines. *block: it came between fences, and no command is looked for in it.
static enum LineEvent read_message(struct Chat *c, char **message, bool *block) {
    static const char FENCE[] = "\"\"\"";
    char prompt[64], more[64], *line;
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
            go_on = !ends_with(text, FENCE);
            if (!go_on)
                text[n - 3] = 0;
        } else if (n > 0 && text[n - 1] == '\\') {
            go_on = true;
            text[n - 1] = 0;
        }
        if (!*block || *text || (go_on && !first)) // a fence alone on its line adds no empty one
            append_line(message, text);
        free(line);
        if (!go_on)
            break;
        event = lines_read(c->lines, more, &line);
    }
    if (event == LINE_END && *message) // the end of the input ends an open block as well
        event = LINE_TEXT;
    if (event == LINE_INTERRUPTED && (*message || *block)) // lines above the empty one go
        event = LINE_DISCARDED;
    if (event != LINE_TEXT) {
        free(*message);
        *message = NULL;
    } else if (!*message) {
        *message = xstrdup("");
    }
    return event;
}

static void take_message(struct Chat *c, const char *message, bool block) {
    if (c->editing) {
        chat_ask_again(c, message);
    } else if (chat_is_command(message) && !block) {
        char *line = xstrdup(message);
        chat_command(c, line);
        free(line);
    } else {
        chat_ask(c, message + (message[0] == '/' && message[1] == '/' && !block));
    }
}

static void converse(struct Chat *c) {
    uint32_t presses = 0; // of Ctrl-C at an empty prompt, one after the other
    while (!c->quit && !c->failed) {
        char *message;
        bool block;
        if (c->editing)
            lines_prefill(c->lines, chat_last_question(c));
        enum LineEvent event = read_message(c, &message, &block);
        if (event == LINE_END)
            break;
        if (event == LINE_INTERRUPTED) {
            if (++presses == 2)
                break;
            fprintf(c->say, "%s(Ctrl-C once more ends, as Ctrl-D does)\n", c->editing ? "left as it was " : "");
            c->editing = false;
            continue;
        }
        presses = 0;
        if (event == LINE_DISCARDED) {
            if (c->editing)
                fprintf(c->say, "left as it was\n");
            c->editing = false;
            continue;
        }
        bool editing = c->editing;
        if (message[strspn(message, " \t\n")]) {
            lines_remember(c->lines, message);
            take_message(c, message, block);
        }
        if (editing)
            c->editing = false;
        free(message);
    }
    if (lines_edited(c->lines) && !c->quit)
        fputc('\n', stdout);
}

static void banner(const struct Chat *c) {
    char total[16], active[16], memory[16], mapped[16];
    const struct Config *config = &c->l.file.config;
    term_format_count((double)config_parameters(config), total);
    term_format_count((double)config_activated_parameters(config), active);
    term_format_bytes(c->l.dev.peak_bytes, memory);
    term_format_bytes(c->l.dev.mapped_bytes, mapped);
    char *about = xsprintf("%s parameters, %s activated, on %s (%s%s%s), context %u", total, active, c->l.dev.name,
                           memory, c->l.dev.mapped_bytes ? ", and of the file " : "",
                           c->l.dev.mapped_bytes ? mapped : "", c->l.session.context);
    printf("%s%s%s\n", term_paint(stdout, PAINT_BOLD), c->l.file.path, term_paint(stdout, PAINT_NONE));
    term_print_wrapped(stdout, about, 0, (uint32_t)min_u64(term_width(stdout), 80));
    puts("/help lists the commands");
    free(about);
}

static void chat_free(struct Chat *c) {
    chat_clear(c);
    chat_clear_stops(c);
    if (c->lines)
        lines_close(c->lines);
    heat_free(&c->heat);
    for (uint32_t i = 0; i < ARGS_MAX_FLAGS; i++)
        free(c->values[i]);
    free(c->messages);
    free(c->system);
    free(c->adapter);
    free(c->cached);
    load_free(&c->l);
}

static bool chat_open(struct Chat *c) {
    enum { USUAL_CONTEXT = 4096 };
    struct Args *args = &c->args;
    // Room for all that /set may ask for.
    struct SessionOptions o = {.n_sequences = 1, .window = SAMPLER_MAX_WINDOW, .chances = true, .ahead = true};
    struct Stops stops;
    if (!load_text(&c->l, args, true) || !load_sampling(args, &c->set) || !load_stops(&c->l, args, &stops) ||
        !load_context(&c->l, args, USUAL_CONTEXT, &o.context) || !load_model(&c->l, args, &o))
        return false;
    for (uint32_t i = 0; i < stops.n; i++)
        c->stops[c->n_stops++] = xstrdup(stops.list[i]);
    const char *system = args_text(args, "system"), *adapter = args_text(args, "adapter");
    char *history = path_join(cache_dir(), "history");
    c->lines = lines_open(history);
    free(history);
    c->say = lines_edited(c->lines) ? stdout : stderr;
    c->json = args_switch(args, "json");
    c->system = system ? xstrdup(system) : NULL;
    c->adapter = adapter ? xstrdup(adapter) : NULL;
    c->adapter_scale = 1;
    c->max_tokens = (uint32_t)args_int(args, "max-tokens");
    c->cached = xcalloc(o.context, sizeof *c->cached);
    heat_init(&c->heat, &c->l.file.config);
    return !adapter || adapter_options(adapter, &c->lora);
}

int cmd_chat(const struct Args *args) {
    struct Chat *c = xcalloc(1, sizeof *c);
    c->args = *args;
    bool ok = chat_open(c);
    if (ok) {
        struct sigaction before;
        sigaction(SIGINT, &CHAT_INTERRUPT, &before);
        if (lines_edited(c->lines))
            banner(c);
        ok = !args_text(args, "load") || chat_load(c, args_text(args, "load"));
        if (ok)
            converse(c);
        sigaction(SIGINT, &before, NULL);
        ok = ok && !c->failed && (!c->refused || lines_edited(c->lines));
    }
    chat_free(c);
    free(c);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
