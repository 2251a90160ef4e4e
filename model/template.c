// A template is a function that lays out spans: control tokens, and runs of text with or without training. A run is tokenised
// as one text, so that the ids are those of the rendered whole; a new run begins where an answer does.
#include "model/template.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// ---- Lists of tokens ----

void token_list_push(struct TokenList *list, uint32_t id, bool trained) {
    if (list->n == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 256;
        list->ids = xrealloc(list->ids, list->capacity * sizeof *list->ids);
        list->trained = xrealloc(list->trained, list->capacity * sizeof *list->trained);
    }
    list->ids[list->n] = id;
    list->trained[list->n++] = trained;
}

bool token_list_append(struct TokenList *list, const struct Tokenizer *tokenizer, const char *text, size_t bytes,
                       unsigned flags, bool trained) {
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

// ---- Which template a model has ----

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

// One spelling for templates that say the same: no blanks in tags but between words, single quotes, real line feeds, joined
// literals in one, message['role'] for message.role, no line feed behind a block (Hugging Face trims it). malloc'ed.
static char *canonical(const char *from) {
    char *out = xmalloc(strlen(from) * 2 + 32);
    size_t n = 0;
    char close = 0, quote = 0; // the tag's closing character, the literal's opening one
    while (isspace((unsigned char)*from))
        from++;
    while (*from) {
        if (quote) {
            if (from[0] == '\\' && from[1] == 'n') {
                out[n++] = '\n';
                from += 2;
            } else if (*from == quote) {
                out[n++] = '\'';
                quote = 0;
                from++;
            } else {
                out[n++] = *from++;
            }
        } else if (!close) {
            if (from[0] == '{' && (from[1] == '%' || from[1] == '{')) {
                close = from[1] == '%' ? '%' : '}';
                out[n++] = *from++;
            }
            out[n++] = *from++;
        } else if (from[0] == close && from[1] == '}') {
            out[n++] = close;
            out[n++] = '}';
            from += 2;
            from += close == '%' && *from == '\n';
            close = 0;
        } else if (*from == '\'' || *from == '"') {
            if (n >= 2 && out[n - 1] == '+' && out[n - 2] == '\'')
                n -= 2; // 'a'+'b' is 'ab'
            else
                out[n++] = '\'';
            quote = *from++;
        } else if (isspace((unsigned char)*from)) {
            while (isspace((unsigned char)*from))
                from++;
            if (is_word(out[n - 1]) && is_word(*from))
                out[n++] = ' ';
        } else if (strncmp(from, ".role", 5) == 0 || strncmp(from, ".content", 8) == 0) {
            const char *key = from[1] == 'r' ? "['role']" : "['content']";
            memcpy(out + n, key, strlen(key));
            n += strlen(key);
            from += from[1] == 'r' ? 5 : 8;
        } else {
            out[n++] = *from++;
        }
    }
    while (n && isspace((unsigned char)out[n - 1]))
        n--;
    out[n] = 0;
    return out;
}

static bool skip(const char **text, const char *expected) {
    size_t bytes = strlen(expected);
    if (strncmp(*text, expected, bytes) != 0)
        return false;
    *text += bytes;
    return true;
}

static const char GUARD[] = "{%if not add_generation_prompt is defined%}{%set add_generation_prompt=false%}{%endif%}";

static bool is_deepseek(const char *text) {
    skip(&text, GUARD);
    return skip(&text, "{{bos_token}}{%for message in messages%}{%if message['role']=='user'%}"
                       "{{'User: '+message['content']+'\n\n'}}{%elif message['role']=='assistant'%}"
                       "{{'Assistant: '+message['content']+eos_token}}{%elif message['role']=='system'%}"
                       "{{message['content']+'\n\n'}}{%endif%}{%endfor%}"
                       "{%if add_generation_prompt%}{{'Assistant:'}}{%endif%}") &&
           *text == 0;
}

// ChatML, and what it lets the system say where the messages do not begin with the system's own words (malloc'ed or NULL).
static bool is_chatml(const char *text, char **default_system) {
    const char *system = NULL, *end = NULL;
    skip(&text, GUARD);
    if (!skip(&text, "{%for message in messages%}"))
        return false;
    if (skip(&text, "{%if loop.first and messages[0]['role']!='system'%}{{'<|im_start|>system\n")) {
        system = text;
        end = strstr(text, "<|im_end|>\n'}}{%endif%}");
        if (!end || memchr(system, '\'', (size_t)(end - system)))
            return false;
        text = end;
        skip(&text, "<|im_end|>\n'}}{%endif%}");
    }
    if (!skip(&text, "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>\n'}}{%endfor%}"
                     "{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}") ||
        *text)
        return false;
    if (system) {
        size_t bytes = (size_t)(end - system);
        *default_system = xmalloc(bytes + 1);
        memcpy(*default_system, system, bytes);
        (*default_system)[bytes] = 0;
    }
    return true;
}

static const char *const KIND_NAMES[] = {"plain", "deepseek", "chatml"};

const char *template_name(const struct Template *t) { return KIND_NAMES[t->kind]; }
const char *template_names(void) { return "plain, deepseek, chatml"; }

static bool find_kind(struct Template *t, const char *name, const char *chat_template, const char *where) {
    if (name) {
        for (unsigned i = 0; i < sizeof KIND_NAMES / sizeof *KIND_NAMES; i++)
            if (strcmp(name, KIND_NAMES[i]) == 0) {
                t->kind = (enum TemplateKind)i;
                return true;
            }
        return fail("there is no chat template '%s'; there are %s", name, template_names());
    }
    if (!chat_template || !*chat_template)
        return true; // plain
    char *text = canonical(chat_template);
    bool known = true;
    if (is_deepseek(text))
        t->kind = TEMPLATE_DEEPSEEK;
    else if (is_chatml(text, &t->default_system))
        t->kind = TEMPLATE_CHATML;
    else
        known = fail("%s: the model's chat template '%.60s...' is not known here; --template chooses one: %s", where,
                     chat_template, template_names());
    free(text);
    return known;
}

bool template_open(struct Template *t, const char *name, const char *chat_template, const struct Tokenizer *tokenizer,
                   const char *where) {
    *t = (struct Template){.turn_id = tokenizer->eos_id, .start_id = TOKEN_NONE, .bos_id = TOKEN_NONE};
    if (!find_kind(t, name, chat_template, where))
        return false;
    if (t->kind == TEMPLATE_CHATML) {
        t->start_id = tokenizer_find(tokenizer, "<|im_start|>");
        t->turn_id = tokenizer_find(tokenizer, "<|im_end|>");
        if (t->start_id == TOKEN_NONE || t->turn_id == TOKEN_NONE) {
            template_free(t);
            return fail("%s: the chat template chatml needs the tokens <|im_start|> and <|im_end|>", where);
        }
    } else if (t->kind == TEMPLATE_DEEPSEEK || tokenizer->add_bos) {
        t->bos_id = tokenizer->bos_id;
    }
    if (t->turn_id == TOKEN_NONE)
        return fail("%s: the tokenizer names no end-of-sequence token, with which an answer would end", where);
    t->stop[t->n_stop++] = t->turn_id;
    if (tokenizer->eos_id != TOKEN_NONE && tokenizer->eos_id != t->turn_id)
        t->stop[t->n_stop++] = tokenizer->eos_id;
    return true;
}

void template_free(struct Template *t) {
    free(t->default_system);
    *t = (struct Template){.turn_id = TOKEN_NONE, .start_id = TOKEN_NONE, .bos_id = TOKEN_NONE};
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
    bool trained; // of the run
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

static void lay_words(struct Layout *l, const char *text) { lay_text(l, text, strlen(text)); }

// Ends the run; the next is trained or not.
static bool lay_cut(struct Layout *l, bool trained) {
    bool ok = true;
    if (l->out) {
        ok = l->n == 0 || token_list_append(l->out, l->tokenizer, l->run, l->n, 0, l->trained);
        l->n = 0;
    }
    l->trained = trained;
    return ok;
}

static bool lay_token(struct Layout *l, uint32_t id) {
    if (id == TOKEN_NONE)
        return true;
    bool trained = l->trained;
    if (!lay_cut(l, trained))
        return false;
    if (l->out) {
        token_list_push(l->out, id, trained);
        return true;
    }
    size_t bytes = tokenizer_piece(l->tokenizer, id, NULL, 0);
    char *piece = xmalloc(bytes + 1);
    tokenizer_piece(l->tokenizer, id, piece, bytes);
    lay_text(l, piece, bytes);
    free(piece);
    return true;
}

// An answer and the token that ends it.
static bool lay_answer(struct Layout *l, const struct Template *t, const char *before, const struct Message *m) {
    if (!lay_cut(l, true))
        return false;
    lay_words(l, before);
    lay_text(l, m->text, m->bytes);
    return lay_token(l, t->turn_id) && lay_cut(l, false);
}

static bool lay_plain(struct Layout *l, const struct Template *t, const struct Message *m) {
    if (m->role == ROLE_ASSISTANT)
        return lay_answer(l, t, "", m);
    lay_text(l, m->text, m->bytes);
    lay_words(l, "\n");
    return true;
}

// "{system}\n\n" "User: {question}\n\n" "Assistant: {answer}{eos}"; the blank before the answer is the answer's: the prompt
// ends with the colon.
static bool lay_deepseek(struct Layout *l, const struct Template *t, const struct Message *m) {
    if (m->role == ROLE_ASSISTANT) {
        lay_words(l, "Assistant:");
        return lay_answer(l, t, " ", m);
    }
    if (m->role == ROLE_USER)
        lay_words(l, "User: ");
    lay_text(l, m->text, m->bytes);
    lay_words(l, "\n\n");
    return true;
}

// "<|im_start|>role\n{text}<|im_end|>\n"
static bool lay_chatml(struct Layout *l, const struct Template *t, const struct Message *m) {
    if (!lay_token(l, t->start_id))
        return false;
    lay_words(l, ROLE_NAMES[m->role]);
    lay_words(l, "\n");
    bool ok;
    if (m->role == ROLE_ASSISTANT) {
        ok = lay_answer(l, t, "", m);
    } else {
        lay_text(l, m->text, m->bytes);
        ok = lay_token(l, t->turn_id);
    }
    lay_words(l, "\n");
    return ok;
}

static bool lay_message(struct Layout *l, const struct Template *t, const struct Message *m) {
    switch (t->kind) {
    case TEMPLATE_PLAIN:
        return lay_plain(l, t, m);
    case TEMPLATE_DEEPSEEK:
        return lay_deepseek(l, t, m);
    case TEMPLATE_CHATML:
        return lay_chatml(l, t, m);
    }
    return false;
}

static bool lay_all(struct Layout *l, const struct Template *t, const struct Message *messages, size_t n,
                    bool add_generation_prompt) {
    if (!lay_token(l, t->bos_id))
        return false;
    if (t->default_system && (n == 0 || messages[0].role != ROLE_SYSTEM)) {
        struct Message system = {ROLE_SYSTEM, t->default_system, strlen(t->default_system)};
        if (!lay_message(l, t, &system))
            return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!lay_message(l, t, &messages[i]))
            return false;
    if (add_generation_prompt && t->kind == TEMPLATE_DEEPSEEK)
        lay_words(l, "Assistant:");
    if (add_generation_prompt && t->kind == TEMPLATE_CHATML) {
        if (!lay_token(l, t->start_id))
            return false;
        lay_words(l, "assistant\n");
    }
    return lay_cut(l, false);
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
    lay_words(&l, "");
    lay_all(&l, t, messages, n, add_generation_prompt); // without tokens there is nothing to fail
    if (bytes)
        *bytes = l.n;
    return l.run;
}
