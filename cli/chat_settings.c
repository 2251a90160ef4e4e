// /set, /show and /adapter. What can be set are the sampling flags of the command line, by their names and limits there.
#include "cli/chat.h"
#include "cli/term.h"
#include "model/adapter.h"
#include "model/utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- /set

// Flags behind the heading "Sampling", and two more.
static bool can_be_set(const struct Args *args, const struct Flag *f) {
    if (strcmp(f->name, "seed") == 0 || strcmp(f->name, "max-tokens") == 0)
        return true;
    bool sampling = false;
    for (const struct Flag *g = args->command->flags; g->name || g->help; g++) {
        if (!g->name)
            sampling = strcmp(g->help, "Sampling") == 0;
        else if (g == f)
            return sampling && (f->kind == ARG_INT || f->kind == ARG_FLOAT);
    }
    return false;
}

// The i-th of them; NULL behind the last.
static const struct Flag *settable(const struct Args *args, uint32_t i) {
    const struct Flag *const lists[2] = {args->command->flags, COMMON_FLAGS};
    for (int k = 0; k < 2; k++)
        for (const struct Flag *f = lists[k]; f->name || f->help; f++)
            if (f->name && can_be_set(args, f) && i-- == 0)
                return f;
    return NULL;
}

static void tell_settings(const struct Chat *c) {
    const struct Flag *f;
    for (uint32_t i = 0; (f = settable(&c->args, i)); i++)
        if (args_text(&c->args, f->name))
            fprintf(c->say, "%s%s %s", i ? "  " : "", f->name, args_text(&c->args, f->name));
    for (uint32_t i = 0; i < c->n_stops; i++) {
        fputs("  stop \"", c->say);
        for (const char *at = c->stops[i]; *at; at++)
            if (*at == '\n')
                fputs("\\n", c->say);
            else if (*at == '\t')
                fputs("\\t", c->say);
            else if (*at == '\\')
                fputs("\\\\", c->say);
            else
                term_write(c->say, at, 1 + strcspn(at + 1, "\n\t\\")), at += strcspn(at + 1, "\n\t\\");
        fputc('"', c->say);
    }
    fputc('\n', c->say);
}

// A whole number is written without what else people write ("7.0", "1e3").
static char *checked_number(const struct Flag *f, const char *text) {
    char *end;
    double x = strtod(text, &end);
    bool whole = f->kind == ARG_INT, limited = f->min != 0 || f->max != 0;
    if (end == text || *end || !isfinite(x) || (limited && !(x >= f->min && x <= f->max)) || (whole && x != floor(x)))
        return NULL;
    return whole ? xsprintf("%lld", (long long)x) : xstrdup(text);
}

void chat_clear_stops(struct Chat *c) {
    while (c->n_stops)
        free(c->stops[--c->n_stops]);
}

// Takes a malloc'ed text.
static bool add_stop(struct Chat *c, char *stop) {
    const char *wrong = !*stop                                  ? "an empty text cannot end an answer"
                        : c->n_stops == STOPS_MAX               ? "there are 32 stop texts already; /set stop off"
                        : !utf8_valid(stop, strlen(stop), NULL) ? "a stop text must be UTF-8"
                                                                : NULL;
    if (wrong) {
        fprintf(c->say, "%s\n", wrong);
        free(stop);
        return false;
    }
    c->stops[c->n_stops++] = stop;
    return true;
}

static bool set_stop(struct Chat *c, const char *text) {
    if (strcmp(text, "off") == 0) {
        chat_clear_stops(c);
        return true;
    }
    return add_stop(c, load_unescape(text));
}

// What was set, for as long as it is not known whether the new settings go together.
struct Before {
    const char *shown[ARGS_MAX_FLAGS];
    char *values[ARGS_MAX_FLAGS];
};

static void settings_begin(struct Chat *c, struct Before *b) {
    memcpy(b->shown, c->args.values, sizeof b->shown);
    memcpy(b->values, c->values, sizeof b->values);
    memset(c->values, 0, sizeof c->values);
}

static bool put_value(struct Chat *c, const char *name, const char *text, bool quiet) {
    uint32_t index;
    const struct Flag *f = args_flag(&c->args, name, &index);
    if (!f || !can_be_set(&c->args, f)) {
        if (!quiet) {
            fputs("there is no setting '", c->say);
            term_write(c->say, name, strlen(name));
            fputs("'; there are ", c->say);
            for (uint32_t i = 0; (f = settable(&c->args, i)); i++)
                fprintf(c->say, "%s, ", f->name);
            fputs("stop\n", c->say);
        }
        return false;
    }
    char *value = checked_number(f, text);
    if (!value) {
        if (!quiet)
            fprintf(c->say, "%s takes a %snumber between %.15g and %.15g\n", name, f->kind == ARG_INT ? "whole " : "",
                    f->min, f->max);
        return false;
    }
    if (f->fallback && strcmp(value, f->fallback) == 0) { // as if it had never been given
        free(value);
        value = NULL;
    }
    free(c->values[index]);
    c->args.values[index] = c->values[index] = value;
    return true;
}

// Where the settings do not go together all stays as it was.
static bool settings_end(struct Chat *c, struct Before *b) {
    bool ok = load_sampling(&c->args, &c->set);
    for (uint32_t i = 0; i < ARGS_MAX_FLAGS; i++) {
        bool kept = !ok || c->args.values[i] == b->shown[i];
        free(kept ? c->values[i] : b->values[i]);
        if (kept)
            c->values[i] = b->values[i], c->args.values[i] = b->shown[i];
    }
    if (!ok)
        load_sampling(&c->args, &c->set);
    c->max_tokens = (uint32_t)args_int(&c->args, "max-tokens");
    return ok;
}

static bool set_value(struct Chat *c, const char *name, const char *text) {
    struct Before b;
    if (strcmp(name, "stop") == 0)
        return set_stop(c, text);
    settings_begin(c, &b);
    bool ok = put_value(c, name, text, false);
    return settings_end(c, &b) && ok;
}

bool chat_take_settings(struct Chat *c, const struct ChatSetting *list, uint32_t n) {
    struct Before b;
    settings_begin(c, &b);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(list[i].name, "stop") != 0 && !put_value(c, list[i].name, list[i].value, true)) {
            fputs("a setting of the file is not known here: ", c->say);
            term_write(c->say, list[i].name, strlen(list[i].name));
            fputc('\n', c->say);
        }
    if (!settings_end(c, &b))
        return false;
    chat_clear_stops(c);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(list[i].name, "stop") == 0)
            add_stop(c, xstrdup(list[i].value));
    return true;
}

bool chat_set(struct Chat *c, char *rest) {
    char *name = rest, *text = rest + strcspn(rest, " \t=");
    if (*text)
        *text++ = 0;
    text += strspn(text, " \t=");
    for (size_t n = strlen(text); n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t'); n--)
        text[n - 1] = 0;
    bool ok = !*name || set_value(c, name, text);
    if (ok)
        tell_settings(c);
    return ok;
}

uint32_t chat_settings(const struct Chat *c, struct ChatSetting **list) {
    uint32_t n = 0;
    const struct Flag *f;
    *list = xcalloc(ARGS_MAX_FLAGS + STOPS_MAX, sizeof **list);
    for (uint32_t i = 0; (f = settable(&c->args, i)); i++)
        if (args_text(&c->args, f->name))
            (*list)[n++] = (struct ChatSetting){xstrdup(f->name), xstrdup(args_text(&c->args, f->name))};
    for (uint32_t i = 0; i < c->n_stops; i++)
        (*list)[n++] = (struct ChatSetting){xstrdup("stop"), xstrdup(c->stops[i])};
    return n;
}

// ---- /show

static void tell_adapter(const struct Chat *c, const char *label) {
    const char *name = c->adapter ? c->adapter : "none";
    fputs(label, c->say);
    term_write(c->say, name, strlen(name));
    if (c->adapter)
        fprintf(c->say, ", rank %u, scale %g", c->lora.rank, (double)c->adapter_scale);
    fputc('\n', c->say);
}

void chat_show(struct Chat *c) {
    const struct Config *config = &c->l.file.config;
    char total[16], active[16], cache[16];
    size_t tokens = 0;
    term_format_count((double)config_parameters(config), total);
    term_format_count((double)config_activated_parameters(config), active);
    term_format_bytes(c->l.session.cache.used_bytes, cache);
    fprintf(c->say, "model     %s: %s, %u layers, %s parameters, %s activated\n", c->l.file.path,
            ARCHS[config->arch].gguf, config->n_layers, total, active);
    fprintf(c->say, "device    %s\n", c->l.dev.name);
    fprintf(c->say, "template  %s\n", template_name(&c->l.template));
    tell_adapter(c, "adapter   ");
    fputs("system    ", c->say);
    const char *system = c->system ? c->system : "none";
    term_write(c->say, system, strlen(system));
    fputs("\nsettings  ", c->say);
    tell_settings(c);
    if (!chat_count_tokens(c, &tokens))
        return;
    fprintf(c->say, "context   %zu of %u tokens (%.0f%%), %zu messages", tokens, c->l.session.context,
            100.0 * (double)tokens / c->l.session.context, c->n);
    if (c->left_out)
        fprintf(c->say, ", the first %zu left out", c->left_out);
    fprintf(c->say, "; %u tokens in the cache (%s of it are set aside)\n", c->n_cached, cache);
    if (c->attached)
        fprintf(c->say, "attached  %zu bytes of /read, for the next message\n", strlen(c->attached));
}

// ---- /adapter

// What was recorded and what is in the cache came from other weights.
static bool model_changed(struct Chat *c) {
    chat_forget_cache(c);
    c->failed = !session_record_again(&c->l.session);
    return !c->failed;
}

bool chat_adapter_scale(struct Chat *c, float scale) {
    c->adapter_scale = scale;
    model_scale_lora(&c->l.model, &c->lora, scale);
    return model_changed(c);
}

// Reads all of it on a device that only counts: what is wrong with it is told while the old one is still in place.
static bool try_adapter(struct Chat *c, const char *dir, struct LoraOptions *lora) {
    struct Device dry;
    struct Model m = {0};
    struct ModelOptions options = {.type = DT_COUNT, .max_positions = c->l.model.max_positions};
    device_open_dry(&dry, &c->l.dev);
    bool ok = adapter_options(dir, lora) && model_load(&m, &dry, &c->l.file, &options);
    uint64_t before = dry.allocated_bytes, need = 0;
    ok = ok && adapter_load(&m, dir);
    need = dry.allocated_bytes - before + c->l.dev.allocated_bytes;
    if (m.dev)
        model_free(&m);
    if (!ok || need <= c->l.dev.limits.memory_bytes)
        return ok;
    char want[16], have[16];
    term_format_bytes(need, want), term_format_bytes(c->l.dev.limits.memory_bytes, have);
    return fail("%s: with this adapter %s are needed, and %s has %s", dir, want, c->l.dev.name, have);
}

static bool put_adapter(struct Chat *c, const char *dir) {
    struct LoraOptions lora;
    if (!try_adapter(c, dir, &lora))
        return false;
    if (!device_wait(&c->l.dev)) {
        c->failed = true;
        return false;
    }
    char *name = xstrdup(dir);
    free(c->adapter);
    c->adapter = NULL;
    model_remove_lora(&c->l.model);
    bool ok = adapter_load(&c->l.model, name);
    if (ok) {
        c->adapter = name;
        c->lora = lora;
        c->adapter_scale = 1;
    } else {
        model_remove_lora(&c->l.model);
        free(name);
    }
    return model_changed(c) && ok;
}

bool chat_adapter(struct Chat *c, const char *what) {
    enum { MOST = 100 };
    char *end;
    double scale = strtod(what, &end);
    bool number = *what && !*end, ok = true;
    if (strcmp(what, "off") == 0 && c->adapter) {
        ok = device_wait(&c->l.dev);
        model_remove_lora(&c->l.model);
        free(c->adapter);
        c->adapter = NULL;
        c->failed = !ok;
        ok = ok && model_changed(c);
    } else if (number && !c->adapter) {
        ok = fail("/adapter %s: there is no adapter whose scale could be set", what);
    } else if (number && !(fabs(scale) <= MOST)) {
        ok = fail("/adapter %s: the scale is between -%d and %d", what, MOST, MOST);
    } else if (number) {
        ok = chat_adapter_scale(c, (float)scale);
    } else if (*what && strcmp(what, "off") != 0) {
        ok = put_adapter(c, what);
    }
    if (ok)
        tell_adapter(c, "adapter: ");
    return ok;
}
