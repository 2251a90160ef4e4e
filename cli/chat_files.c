// The commands of the chat that work with files.
#include "cli/chat.h"
#include "cli/plot.h"
#include "cli/term.h"
#include "model/utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { READ_MAX_BYTES = 1 << 26 };

// ~/ is written by people, and no shell stands between.
static char *path_of(const char *text) {
    const char *home = getenv("HOME");
    return text[0] == '~' && text[1] == '/' && home ? path_join(home, text + 2) : xstrdup(text);
}

static void say_path(const struct Chat *c, const char *path) { term_write(c->say, path, strlen(path)); }

// ---- /read

static bool count_tokens(const struct Chat *c, const char *text, size_t bytes, size_t *n) {
    struct TokenList ids = {0};
    bool ok = token_list_append(&ids, &c->l.tokenizer, text, bytes, 0, false);
    *n = ids.n;
    token_list_free(&ids);
    return ok;
}

// A quarter of the context stays free for a question and its answer. What is in the conversation may be left out, the system message not.
static bool check_fits(const struct Chat *c, const char *path, const char *all, size_t tokens) {
    size_t whole, system = 0;
    uint32_t context = c->l.session.context, most = context - context / 4;
    if (!count_tokens(c, all, strlen(all), &whole) ||
        (c->system && !count_tokens(c, c->system, strlen(c->system), &system)))
        return false;
    size_t taken = system + (whole > tokens ? whole - tokens : 0);
    if (taken + tokens <= most)
        return true;
    return fail("%s: has %zu tokens; %zu fit (the context holds %u, a quarter of it is for question and answer%s)",
                path, tokens, taken < most ? most - taken : 0, context,
                taken ? ", and system message or other files take their part" : "");
}

static bool read_text(struct Chat *c, const char *path) {
    uint8_t *data;
    uint64_t bytes;
    size_t bad = 0, tokens = 0;
    if (!file_read(path, READ_MAX_BYTES, &data, &bytes))
        return false;
    const char *text = (const char *)data;
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3, bytes -= 3;
    bool ok = utf8_valid(text, bytes, &bad) || fail("%s: byte %zu: this is no UTF-8 text", path, bad);
    if (ok && memchr(text, 0, bytes))
        ok = fail("%s: byte %zu: a zero byte; this is no text", path,
                  (size_t)((const char *)memchr(text, 0, bytes) - text));
    ok = ok && (bytes > 0 || fail("%s: is empty", path)) && count_tokens(c, text, bytes, &tokens);
    char *all = ok ? xsprintf("%s%s%s", c->attached ? c->attached : "", c->attached ? "\n" : "", text) : NULL;
    ok = ok && check_fits(c, path, all, tokens);
    if (ok) {
        free(c->attached);
        c->attached = all;
        say_path(c, path);
        fprintf(c->say, ": %zu tokens, %llu bytes; they go before your next message\n", tokens,
                (unsigned long long)bytes);
    } else {
        free(all);
    }
    free(data);
    return ok;
}

bool chat_read(struct Chat *c, const char *path) {
    char *name = path_of(path);
    bool ok = *path ? read_text(c, name) : fail("/read FILE: which file?");
    free(name);
    return ok;
}

// ---- /save and /load

bool chat_save(struct Chat *c, const char *path) {
    if (!*path)
        return fail("/save FILE: which file?");
    struct ChatState s = {.cached = c->cached,
                          .n_cached = c->n_cached,
                          .left_out = (uint32_t)c->left_out,
                          .stream = c->stream,
                          .adapter_scale = c->adapter_scale};
    struct ChatIdentity id;
    char *name = path_of(path), size[16];
    s.n_settings = chat_settings(c, &s.settings);
    s.messages = xcalloc(c->n + 1, sizeof *s.messages);
    if (c->system)
        s.messages[s.n_messages++] =
            (struct ChatMessage){.role = ROLE_SYSTEM, .text = c->system, .bytes = strlen(c->system)};
    if (c->n)
        memcpy(s.messages + s.n_messages, c->messages, c->n * sizeof *s.messages);
    s.n_messages += (uint32_t)c->n;
    bool ok = chatfile_identify(&c->l.file, &c->l.tokenizer, &c->l.model, c->adapter, &id) &&
              chatfile_write(name, &s, &id, &c->l.session);
    if (ok) {
        term_format_bytes(chatfile_bytes(&s, &c->l.session), size);
        say_path(c, name);
        fprintf(c->say, ": %zu messages, keys and values of %u tokens, %s\n", c->n, c->n_cached, size);
    }
    free(s.messages); // the texts are the conversation's
    s.messages = NULL, s.cached = NULL, s.n_messages = 0;
    chatfile_state_free(&s);
    free(name);
    return ok;
}

static void take_messages(struct Chat *c, struct ChatState *s) {
    chat_clear(c);
    free(c->system);
    c->system = NULL;
    for (uint32_t i = 0; i < s->n_messages; i++) {
        struct ChatMessage *m = &s->messages[i];
        if (m->role == ROLE_SYSTEM) {
            c->system = xstrdup(m->text);
            continue;
        }
        chat_message_add(c, m->role, m->text, m->bytes);
        c->messages[c->n - 1].ids = m->ids;
        c->messages[c->n - 1].n_ids = m->n_ids;
        m->ids = NULL;
    }
    c->left_out = s->left_out;
    c->stream = s->stream;
}

// Beyond what fits the context the tokens are not taken.
static bool take_cache(struct Chat *c, const struct ChatFile *f, const struct ChatIdentity *id) {
    uint32_t tokens = (uint32_t)min_u64(f->state.n_cached, c->l.session.context);
    const char *why = chatfile_unusable(f, id, &c->l.session);
    chat_forget_cache(c);
    if (why) {
        fprintf(c->say,
                "the keys and values are not taken from the file (%s): the conversation goes through the model again\n",
                why);
        return true;
    }
    if (!chatfile_restore(f, &c->l.session, tokens)) {
        session_rewind(&c->l.session, 0, 0);
        return false;
    }
    memcpy(c->cached, f->state.cached, tokens * sizeof *c->cached);
    c->n_cached = tokens;
    return true;
}

static bool load_checked(struct Chat *c, struct ChatFile *f) {
    struct ChatIdentity id;
    float scale = f->state.adapter_scale;
    if (!chatfile_identify(&c->l.file, &c->l.tokenizer, &c->l.model, c->adapter, &id) ||
        !chatfile_matches(f, &id, c->l.file.config.vocab_size))
        return false;
    if (c->adapter && !(fabsf(scale) <= 100))
        return fail("%s: an adapter's scale of %g; it is between -100 and 100", f->in.name, (double)scale);
    for (uint32_t i = 0; i < f->state.n_messages; i++)
        if (f->state.messages[i].role == ROLE_SYSTEM && strlen(f->state.messages[i].text) != f->state.messages[i].bytes)
            return fail("%s: a system message with a zero byte in it", f->in.name);
    if (!chat_take_settings(c, f->state.settings, f->state.n_settings))
        return fail("%s: its settings do not go together; nothing is taken from it", f->in.name);
    if (c->adapter && scale != c->adapter_scale && !chat_adapter_scale(c, scale))
        return false;
    bool ok = take_cache(c, f, &id);
    take_messages(c, &f->state);
    if (ok)
        fprintf(c->say, "%s: %zu messages, %u tokens of them in the cache\n", f->in.name, c->n, c->n_cached);
    return ok;
}

bool chat_load(struct Chat *c, const char *path) {
    struct ChatFile f;
    if (!*path)
        return fail("/load FILE: which file?");
    char *name = path_of(path);
    bool ok = chatfile_open(&f, name);
    if (ok) {
        ok = load_checked(c, &f);
        chatfile_close(&f);
    }
    free(name);
    return ok;
}

// ---- /experts

static bool experts_picture(const struct Chat *c, const char *path) {
    const struct Config *config = &c->l.file.config;
    uint32_t rows = 0;
    uint32_t *layers = xcalloc(config->n_layers, sizeof *layers);
    double *loads = xcalloc((size_t)config->n_layers * config->n_experts, sizeof *loads);
    double even = (double)c->heat.tokens * config->n_active / config->n_experts;
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        if (!config_is_moe(config, layer))
            continue;
        for (uint32_t e = 0; e < config->n_experts; e++)
            loads[(size_t)rows * config->n_experts + e] = c->heat.counts[(size_t)layer * config->n_experts + e] / even;
        layers[rows++] = layer;
    }
    char *title =
        xsprintf("%u tokens through %u of %u experts a layer", c->heat.tokens, config->n_active, config->n_experts);
    bool ok = plot_grid(path, title, "expert", "layer", loads, rows, config->n_experts, layers);
    if (ok) {
        say_path(c, path);
        fputs(": written\n", c->say);
    }
    free(title);
    free(loads);
    free(layers);
    return ok;
}

bool chat_experts(struct Chat *c, const char *path) {
    const struct Config *config = &c->l.file.config;
    if (config->n_experts == 0) {
        fprintf(c->say, "this model has no experts: every token goes through all of it\n");
        return !*path;
    }
    if (c->heat.tokens == 0) {
        fprintf(c->say, "there is no answer yet\n");
        return !*path;
    }
    if (!*path) {
        heat_draw(c->say, &c->heat, config, term_width(c->say));
        return true;
    }
    if (!ends_with(path, ".png"))
        return fail("/experts %s: the name of the picture ends in .png", path);
    char *name = path_of(path);
    bool ok = experts_picture(c, name);
    free(name);
    return ok;
}
