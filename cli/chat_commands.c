// What begins with a slash. The table has the commands, and /help is printed from it.
#include "cli/chat.h"
#include "cli/term.h"
#include <stdlib.h>
#include <string.h>

enum { EDIT_MAX_BYTES = 16384 };

static void do_help(struct Chat *c, char *rest);

static void do_clear(struct Chat *c, char *rest) {
    (void)rest;
    chat_clear(c);
    fprintf(c->say, "a new conversation\n");
}

static void do_undo(struct Chat *c, char *rest) {
    (void)rest;
    bool dropped = chat_undo(c);
    fprintf(c->say, dropped ? "taken back; %zu message%s remain%s\n" : "there is nothing to take back\n", c->n,
            plural(c->n), c->n == 1 ? "s" : "");
}

static void do_regen(struct Chat *c, char *rest) {
    (void)rest;
    if (chat_last_question(c))
        chat_ask_again(c, NULL);
    else
        fprintf(c->say, "there is nothing to answer again\n");
}

static void do_edit(struct Chat *c, char *rest) {
    const char *last = chat_last_question(c);
    if (!last) {
        fprintf(c->say, "there is no message to edit\n");
    } else if (*rest) {
        chat_ask_again(c, rest);
    } else if (!lines_edited(c->lines)) {
        fprintf(c->say, "only a terminal can show the message for editing; /edit TEXT puts TEXT in its place\n");
        c->refused = true;
    } else if (strlen(last) > EDIT_MAX_BYTES) {
        fprintf(c->say, "the last message is too long to edit here; /edit TEXT puts TEXT in its place\n");
    } else {
        c->editing = true;
    }
}

static void do_system(struct Chat *c, char *rest) {
    if (*rest) {
        free(c->system);
        c->system = strcmp(rest, "off") == 0 ? NULL : xstrdup(rest);
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

static void do_show(struct Chat *c, char *rest) {
    (void)rest;
    chat_show(c);
}

static void do_quit(struct Chat *c, char *rest) {
    (void)rest;
    c->quit = true;
}

static void do_set(struct Chat *c, char *rest) { c->refused |= !chat_set(c, rest); }
static void do_read(struct Chat *c, char *rest) { c->refused |= !chat_read(c, rest); }
static void do_save(struct Chat *c, char *rest) { c->refused |= !chat_save(c, rest); }
static void do_load(struct Chat *c, char *rest) { c->refused |= !chat_load(c, rest); }
static void do_adapter(struct Chat *c, char *rest) { c->refused |= !chat_adapter(c, rest); }
static void do_experts(struct Chat *c, char *rest) { c->refused |= !chat_experts(c, rest); }

static const struct ChatCommand {
    const char *name;
    void (*run)(struct Chat *c, char *rest);
    const char *operand, *help; // help NULL: another name of the one above
    bool text;                  // what follows may have several lines
} TABLE[] = {
    {"help", do_help, "", "this list", false},
    {"undo", do_undo, "", "take back the last question and its answer", false},
    {"regen", do_regen, "", "answer the last question again", false},
    {"edit", do_edit, "[TEXT]", "change the last message (or put TEXT in its place) and answer that", true},
    {"clear", do_clear, "", "forget the conversation", false},
    {"system", do_system, "[TEXT]", "show or set the system message; /system off removes it", true},
    {"read", do_read, "FILE", "put a text file before the next message", false},
    {"save", do_save, "FILE", "keep conversation, settings, keys and values", false},
    {"load", do_load, "FILE", "go on with what /save kept", false},
    {"show", do_show, "", "model, template, settings, how full the context is", false},
    {"set", do_set, "[NAME X]", "show or set a sampling flag, seed, max-tokens; stop TEXT, stop off", false},
    {"adapter", do_adapter, "[WHAT]", "put a LoRA folder on the model, set its scale (0.5), or take it off (off)",
     false},
    {"experts", do_experts, "[FILE.png]", "which experts the last answer went through", false},
    {"quit", do_quit, "", "or Ctrl-D, or Ctrl-C twice", false},
    {"exit", do_quit, "", NULL, false},
    {"bye", do_quit, "", NULL, false},
};
enum { N_COMMANDS = sizeof TABLE / sizeof TABLE[0] };

static void do_help(struct Chat *c, char *rest) {
    (void)rest;
    uint32_t width = (uint32_t)min_u64(term_width(c->say), 80);
    for (int i = 0; i < N_COMMANDS; i++)
        if (TABLE[i].help) {
            fprintf(c->say, "  /%-8s%-11s", TABLE[i].name, TABLE[i].operand);
            term_print_wrapped(c->say, TABLE[i].help, 3 + 8 + 11, width);
        }
    term_print_wrapped(c->say,
                       "Ctrl-C stops an answer. A line that ends with \\ goes on; \"\"\" begins and ends a message of "
                       "several lines, and what is pasted stays in one piece. // at the beginning of a message stands "
                       "for one slash. When the context is full, the oldest questions and answers are left out until "
                       "half of it is free, and that is said; the system message stays.",
                       0, width);
}

static const struct ChatCommand *find(const char *line, size_t *length) {
    *length = strcspn(line + 1, " \t\n");
    for (int i = 0; i < N_COMMANDS; i++)
        if (strlen(TABLE[i].name) == *length && memcmp(line + 1, TABLE[i].name, *length) == 0)
            return &TABLE[i];
    return NULL;
}

bool chat_is_command(const char *message) {
    size_t length;
    if (message[0] != '/' || message[1] == '/')
        return false;
    const struct ChatCommand *command = find(message, &length);
    return !strchr(message, '\n') || (command && command->text);
}

void chat_command(struct Chat *c, char *line) {
    size_t length;
    const struct ChatCommand *command = find(line, &length);
    if (!command) {
        line[1 + length] = 0;
        fputs("there is no command ", c->say);
        term_write(c->say, line, strlen(line));
        fputs("; /help lists them\n", c->say);
        c->refused = true;
        return;
    }
    char *rest = line + 1 + length;
    rest += strspn(rest, " \t\n");
    for (size_t n = strlen(rest); n > 0 && strchr(" \t\n", rest[n - 1]); n--)
        rest[n - 1] = 0;
    const struct ChatCommand *first = command; // whose operand another name of it shares
    while (!first->help)
        first--;
    if (*rest && !*first->operand) { // "/undo 3" would do something else than is meant
        fprintf(c->say, "/%s takes nothing behind it\n", command->name);
        c->refused = true;
        return;
    }
    command->run(c, rest);
}
