// Laying out: control tokens, and runs of text with or without training. A run is tokenised as one text, so that the ids are those of
// the rendered whole; a new run begins where an answer does.
#include "model/template.h"
#include "model/template_parse.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- Lists of tokens ----

void token_list_push(struct TokenList *list, uint32_t id, float trained) {
    if (list->n == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 256;
        list->ids = xrealloc(list->ids, list->capacity * sizeof *list->ids);
        list->trained = xrealloc(list->trained, list->capacity * sizeof *list->trained);
    }
    list->ids[list->n] = id;
    list->trained[list->n++] = trained;
}

bool token_list_append(struct TokenList *list, const struct Tokenizer *tokenizer, const char *text, size_t bytes,
                       unsigned flags, float trained) {
    uint32_t *ids;
    size_t n;
    if (!tokenizer_encode(tokenizer, text, bytes, flags, &ids, &n))
        return false;
    for (size_t i = 0; i < n; i++)
        token_list_push(list, ids[i], trained);
    free(ids);
    return true;
}

void token_list_free(struct TokenList *list) {
    free(list->ids);
    free(list->trained);
    *list = (struct TokenList){0};
}

// ---- Opening ----

const char *template_name(const struct Template *t) { return t->name; }

const char *template_lead(const struct Template *t) {
    const struct TemplateParts *answer = &t->texts[TEXT_ANSWER];
    return answer->n && answer->parts[0].kind == PART_TEXT ? answer->parts[0].text : "";
}

static bool open_file(struct Template *t, const char *path, const struct Tokenizer *tokenizer) {
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    bool ok =
        file_read(path, TEMPLATE_MAX_BYTES, &text, &bytes) && template_parse(t, (char *)text, bytes, tokenizer, path);
    free(text);
    return ok;
}

char *template_place(const char *model) {
    size_t n = strlen(model);
    return n > 5 && strcasecmp(model + n - 5, ".gguf") == 0 ? xsprintf("%.*s." TEMPLATE_FILE, (int)(n - 5), model)
                                                            : path_join(model, TEMPLATE_FILE);
}

char *template_beside(const char *model) {
    char *path = template_place(model);
    if (file_exists(path))
        return path;
    free(path);
    return NULL;
}

char *template_source(const char *name) {
    const char *known = template_built_in(name);
    uint8_t *text = NULL;
    uint64_t bytes;
    if (known)
        return xstrdup(known);
    return file_read(name, TEMPLATE_MAX_BYTES, &text, &bytes) ? (char *)text : NULL;
}

static bool open_named(struct Template *t, const char *name, const struct Tokenizer *tokenizer, const char *where) {
    const char *text = template_built_in(name);
    t->name = xstrdup(name);
    if (!text)
        return file_exists(name) ? open_file(t, name, tokenizer)
                                 : fail("there is no chat template or file '%s'; there are %s", name, template_names());
    char *place = xsprintf("%s: chat template %s", where, name);
    bool ok = template_parse(t, text, strlen(text), tokenizer, place);
    free(place);
    return ok;
}

static bool open_any(struct Template *t, const char *name, const char *jinja, const struct Tokenizer *tokenizer,
                     const char *where) {
    char fingerprint[17], *default_system = NULL;
    t->presumed = !name && (!jinja || !*jinja);
    if (t->presumed)
        name = "plain";
    const char *found = name ? name : template_recognise(jinja, &default_system, fingerprint);
    if (!found) {
        t->refusal = xsprintf("%s: the model's chat template '%.60s...' (fingerprint %s) is not known here; "
                              "--template chooses one (%s) or a file",
                              where, jinja, fingerprint, template_names());
        return false;
    }
    bool ok = open_named(t, found, tokenizer, where);
    if (ok && default_system) {
        free(t->default_system);
        t->default_system = default_system;
        return true;
    }
    free(default_system);
    return ok;
}

bool template_open_late(struct Template *t, const char *name, const char *chat_template,
                        const struct Tokenizer *tokenizer, const char *where) {
    *t = (struct Template){.turn_id = TOKEN_NONE};
    if (!open_any(t, name, chat_template, tokenizer, where)) {
        if (t->refusal)
            return true;
        template_free(t);
        return false;
    }
    const struct TemplateParts *answer = &t->texts[TEXT_ANSWER];
    t->turn_id = answer->parts[answer->n - 1].id;
    t->stop[t->n_stop++] = t->turn_id;
    if (tokenizer->eos_id != TOKEN_NONE && tokenizer->eos_id != t->turn_id)
        t->stop[t->n_stop++] = tokenizer->eos_id;
    return true;
}

bool template_open(struct Template *t, const char *name, const char *chat_template, const struct Tokenizer *tokenizer,
                   const char *where) {
    if (!template_open_late(t, name, chat_template, tokenizer, where))
        return false;
    if (!t->refusal)
        return true;
    fail("%s", t->refusal);
    template_free(t);
    return false;
}

void template_warn(const struct Template *t, const char *model) {
    if (t->presumed)
        warn("%s names no chat template: plain is used; --template chooses another", model);
}

void template_free(struct Template *t) {
    for (unsigned i = 0; i < TEXT_COUNT; i++) {
        for (unsigned j = 0; j < t->texts[i].n; j++)
            free(t->texts[i].parts[j].text);
        free(t->texts[i].parts);
    }
    free(t->name);
    free(t->default_system);
    free(t->refusal);
    *t = (struct Template){.turn_id = TOKEN_NONE};
}

static const char *const ROLE_NAMES[] = {"system", "user", "assistant"};

bool role_find(const char *name, enum Role *role) {
    for (unsigned i = 0; i < sizeof ROLE_NAMES / sizeof *ROLE_NAMES; i++)
        if (strcmp(name, ROLE_NAMES[i]) == 0) {
            *role = (enum Role)i;
            return true;
        }
    return false;
}

// ---- Layout ----

// Either tokens are made (out) or text (text): both from the same calls, so that one cannot say what the other does not.
struct Layout {
    const struct Tokenizer *tokenizer;
    struct TokenList *out; // NULL: text alone
    char *run;             // text of the run so far; with out == NULL all text
    size_t n, capacity;
    float trained;  // of the run
    unsigned place; // TOKENIZE_MIDDLE, TOKENIZE_BEHIND: what stands before the run
};

static void lay_text(struct Layout *l, const char *text, size_t bytes) {
    if (l->n + bytes + 1 > l->capacity) {
        l->capacity = (l->n + bytes + 1) * 2;
        l->run = xrealloc(l->run, l->capacity);
    }
    if (bytes)
        memcpy(l->run + l->n, text, bytes);
    l->n += bytes;
    l->run[l->n] = 0;
}

// Ends the run; the next is trained so much.
static bool lay_cut(struct Layout *l, float trained) {
    bool ok = true;
    if (l->out && l->n) {
        ok = token_list_append(l->out, l->tokenizer, l->run, l->n, l->place, l->trained);
        l->place = TOKENIZE_MIDDLE;
        l->n = 0;
    }
    l->trained = trained;
    return ok;
}

static bool lay_token(struct Layout *l, uint32_t id) {
    float trained = l->trained;
    if (!lay_cut(l, trained))
        return false;
    if (l->out) {
        token_list_push(l->out, id, trained);
        l->place = TOKENIZE_BEHIND;
        return true;
    }
    size_t bytes = tokenizer_piece(l->tokenizer, id, NULL, 0);
    char *piece = xmalloc(bytes + 1);
    tokenizer_piece(l->tokenizer, id, piece, bytes);
    lay_text(l, piece, bytes);
    free(piece);
    return true;
}

// What Python's strip() takes away.
static bool is_stripped(uint32_t c) { return unicode_is_white(c) || (c >= 0x1c && c <= 0x1f); }

static void lay_message(struct Layout *l, const struct Message *m, enum TemplateTrim trim) {
    size_t start = 0, end = m->bytes;
    uint32_t c;
    for (size_t n;
         trim == TRIM_BOTH && start < end && (n = utf8_char(m->text + start, end - start, &c)) && is_stripped(c);)
        start += n;
    while (trim != TRIM_NONE && end > start) {
        size_t last = end - 1;
        while (last > start && ((uint8_t)m->text[last] & 0xc0) == 0x80)
            last--;
        if (utf8_char(m->text + last, end - last, &c) != end - last || !is_stripped(c))
            break;
        end = last;
    }
    lay_text(l, m->text + start, end - start);
}

static bool lay_parts(struct Layout *l, const struct TemplateParts *p, const struct Message *m,
                      const struct Message *system) {
    for (unsigned i = 0; i < p->n; i++) {
        const struct TemplatePart *part = &p->parts[i];
        switch (part->kind) {
        case PART_TEXT:
            lay_text(l, part->text, part->bytes);
            break;
        case PART_TOKEN:
            if (!lay_token(l, part->id))
                return false;
            break;
        case PART_MESSAGE:
            lay_message(l, m, part->trim);
            break;
        case PART_SYSTEM:
            lay_message(l, system, part->trim);
        }
    }
    return true;
}

static bool lay_answer(struct Layout *l, const struct Template *t, const struct Message *m) {
    return lay_parts(l, &t->texts[TEXT_PROMPT], NULL, NULL) && lay_cut(l, message_weight(m)) &&
           lay_parts(l, &t->texts[TEXT_ANSWER], m, NULL) && lay_cut(l, 0) &&
           lay_parts(l, &t->texts[TEXT_AFTER], NULL, NULL);
}

// Whether the messages are as the template wants them.
static bool check_messages(const struct Template *t, const struct Message *messages, size_t n) {
    enum Role last = ROLE_ASSISTANT;
    for (size_t i = 0; i < n; i++) {
        enum Role role = messages[i].role;
        if (role == ROLE_SYSTEM) {
            bool with_user = t->texts[TEXT_FIRST_USER].given;
            if (!t->texts[TEXT_SYSTEM].given && !with_user)
                return fail("the chat template %s has no place for a system message", t->name);
            if ((t->system_first || !t->texts[TEXT_SYSTEM].given) && i > 0)
                return fail("message %zu is the system's: in the chat template %s only the first can be", i + 1,
                            t->name);
            if (!t->texts[TEXT_SYSTEM].given && (n == 1 || messages[1].role != ROLE_USER))
                return fail("in the chat template %s the system's message stands in the user's: one must follow it",
                            t->name);
            continue;
        }
        if (t->alternate && role == last)
            return fail("message %zu: in the chat template %s user and assistant take turns, the user first", i + 1,
                        t->name);
        last = role;
    }
    return true;
}

static bool lay_all(struct Layout *l, const struct Template *t, const struct Message *messages, size_t n,
                    bool add_generation_prompt) {
    const struct TemplateParts *texts = t->texts;
    const struct Message *system = NULL; // that waits for the first user's
    if (!check_messages(t, messages, n) || !lay_parts(l, &texts[TEXT_START], NULL, NULL))
        return false;
    struct Message usual = {
        .role = ROLE_SYSTEM, .text = t->default_system, .bytes = t->default_system ? strlen(t->default_system) : 0};
    if (t->default_system && (n == 0 || messages[0].role != ROLE_SYSTEM)) {
        if (texts[TEXT_FIRST_USER].given)
            system = &usual;
        else if (!lay_parts(l, &texts[TEXT_SYSTEM], &usual, NULL))
            return false;
    }
    for (size_t i = 0; i < n; i++) {
        const struct Message *m = &messages[i];
        bool ok = true;
        if (m->role == ROLE_SYSTEM && i == 0 && texts[TEXT_FIRST_USER].given)
            system = m;
        else if (m->role == ROLE_ASSISTANT)
            ok = lay_answer(l, t, m);
        else if (m->role == ROLE_SYSTEM)
            ok = lay_parts(l, &texts[TEXT_SYSTEM], m, NULL);
        else
            ok = lay_parts(l, &texts[system ? TEXT_FIRST_USER : TEXT_USER], m, system);
        if (!ok)
            return false;
        if (m->role == ROLE_USER)
            system = NULL;
    }
    if (add_generation_prompt && !lay_parts(l, &texts[TEXT_PROMPT], NULL, NULL))
        return false;
    return lay_cut(l, 0);
}

bool template_render(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *messages,
                     size_t n, bool add_generation_prompt, struct TokenList *out) {
    struct Layout l = {.tokenizer = tokenizer, .out = out};
    bool ok = lay_all(&l, t, messages, n, add_generation_prompt);
    free(l.run);
    return ok;
}

char *template_text(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *messages,
                    size_t n, bool add_generation_prompt, size_t *bytes) {
    struct Layout l = {.tokenizer = tokenizer};
    lay_text(&l, "", 0);
    if (!lay_all(&l, t, messages, n, add_generation_prompt)) {
        free(l.run);
        return NULL;
    }
    if (bytes)
        *bytes = l.n;
    return l.run;
}
