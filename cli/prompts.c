// See prompts.h.
#include "cli/prompts.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/utf8.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 4096 };

struct Reader {
    struct Prompts *p;
    const struct Loaded *l;
    const struct Args *args;
};

// `where` names the place for messages.
static bool add(struct Reader *r, const struct Message *messages, size_t n, bool chat, const char *where) {
    struct Prompts *p = r->p;
    if ((p->n & (p->n - 1)) == 0)
        p->list = xrealloc(p->list, (p->n ? 2 * (size_t)p->n : 1) * sizeof *p->list);
    struct TokenList *ids = &p->list[p->n++];
    *ids = (struct TokenList){0};
    if (!chat && messages->bytes == 0)
        return fail("%s is empty: there is nothing to go on from", where);
    bool ok = chat ? template_render(&r->l->template, &r->l->tokenizer, messages, n, true, ids)
                   : token_list_append(ids, &r->l->tokenizer, messages->text, messages->bytes,
                                       TOKENIZE_BOS | TOKENIZE_SPECIAL, false);
    if (ok && ids->n == 0)
        return fail("%s is empty: its text has no token in the model's vocabulary", where);
    uint32_t most = r->l->file.config.max_context;
    if (ok && ids->n >= most)
        return fail("%s has %zu tokens, the context of %s is %u: none is left for an answer", where, ids->n,
                    r->l->file.path, most);
    if (ok)
        p->longest = (uint32_t)max_u64(p->longest, ids->n);
    return ok;
}

static bool add_text(struct Reader *r, const char *text, size_t bytes, const char *where) {
    const char *system = args_text(r->args, "system");
    bool chat = args_switch(r->args, "chat");
    struct Message messages[2] = {{.role = ROLE_SYSTEM, .text = system, .bytes = system ? strlen(system) : 0},
                                  {.role = ROLE_USER, .text = text, .bytes = bytes}};
    if (chat && bytes == 0)
        return fail("%s is empty: there is nothing to go on from", where);
    return add(r, messages + (chat && system ? 0 : 1), chat && system ? 2 : 1, chat, where);
}

static bool add_messages(struct Reader *r, const json_t *array, const char *where) {
    size_t n = json_array_size(array);
    if (!json_is_array(array) || n == 0 || n > MAX_MESSAGES)
        return fail("%s: \"messages\" is a list of 1 to %u objects", where, (unsigned)MAX_MESSAGES);
    if (!args_switch(r->args, "chat"))
        return fail("%s: \"messages\" needs --chat, which puts them into the model's chat template", where);
    const char *system = args_text(r->args, "system");
    struct Message *messages = xcalloc(n + 1, sizeof *messages);
    size_t first = system ? 1 : 0;
    bool ok = true;
    if (system)
        messages[0] = (struct Message){.role = ROLE_SYSTEM, .text = system, .bytes = strlen(system)};
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *object = json_array_get(array, i), *content = json_object_get(object, "content");
        const char *role = json_string_value(json_object_get(object, "role"));
        struct Message *m = &messages[first + i];
        if (!role || !role_find(role, &m->role))
            ok = fail("%s: message %zu: \"role\" is system, user or assistant", where, i + 1);
        else if (!json_is_string(content))
            ok = fail("%s: message %zu: \"content\" is a text", where, i + 1);
        else if (i == 0 && system && m->role == ROLE_SYSTEM)
            ok = fail("%s: message 1 is the system's, and --system is given too", where);
        m->text = json_string_value(content);
        m->bytes = json_string_length(content);
    }
    if (ok && messages[first + n - 1].role == ROLE_ASSISTANT)
        ok = fail("%s: the last message is the assistant's: a question is expected, which is to be answered", where);
    ok = ok && add(r, messages, first + n, true, where);
    free(messages);
    return ok;
}

static bool add_record(struct Reader *r, const char *line, size_t bytes, const char *where) {
    json_t *record = json_parse(line, bytes, where);
    if (!record)
        return false;
    const json_t *prompt = json_object_get(record, "prompt"), *messages = json_object_get(record, "messages");
    bool ok;
    if (messages && !prompt)
        ok = add_messages(r, messages, where);
    else if (json_is_string(prompt) && !messages)
        ok = add_text(r, json_string_value(prompt), json_string_length(prompt), where);
    else
        ok = fail("%s: expected an object with the text \"prompt\" or the list \"messages\"", where);
    json_decref(record);
    return ok;
}

static bool add_lines(struct Reader *r, const char *path, const char *text, size_t bytes) {
    size_t line = 0;
    bool records = ends_with(path, ".jsonl"), ok = true;
    for (size_t at = 0; ok && at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t next = end ? (size_t)(end - text) + 1 : bytes, n = next - at - (end ? 1 : 0);
        if (n > 0 && text[at + n - 1] == '\r')
            n--;
        line++;
        char *where = xsprintf("%s:%zu", path, line);
        if (n > 0)
            ok = records ? add_record(r, text + at, n, where) : add_text(r, text + at, n, where);
        free(where);
        at = next;
    }
    return ok && (r->p->n > 0 || fail("%s holds no prompt", path));
}

bool prompts_load(struct Prompts *p, const struct Loaded *l, const struct Args *args) {
    const char *prompt = args_text(args, "prompt"), *file = args_text(args, "file"), *many = args_text(args, "prompts");
    struct Reader r = {p, l, args};
    *p = (struct Prompts){0};
    if (prompt)
        return add_text(&r, prompt, strlen(prompt), "the prompt");
    char *text;
    size_t bytes;
    if (!many && (!file || strcmp(file, "-") == 0) && term_is_terminal(stdin)) // else it would wait without a word
        fputs("reads the prompt from standard input; Ctrl-D ends it (or -p TEXT)\n", stderr);
    if (!load_file(many ? many : file ? file : "-", &text, &bytes))
        return false;
    bool marked =
        bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0; // by which editors tell UTF-8: no part of the text
    const char *begin = text + (marked ? 3 : 0);
    bytes -= marked ? 3 : 0;
    bool ok = many ? add_lines(&r, many, begin, bytes) : add_text(&r, begin, bytes, "the prompt");
    free(text);
    return ok;
}

void prompts_free(struct Prompts *p) {
    for (uint32_t i = 0; i < p->n; i++)
        token_list_free(&p->list[i]);
    free(p->list);
    *p = (struct Prompts){0};
}
