// An object of the reader's forms becomes messages or texts, and these become tokens with their mask.
#include "train/forms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 100000 };

// ---- Columns ----

static const struct {
    const char *name;
    bool inner;    // of a message, not of the object
    bool optional; // may be missing in an object
} KEYS[] = {{"messages", false, false}, {"conversations", false, false}, {"instruction", false, false},
            {"output", false, false},   {"prompt", false, false},        {"completion", false, false},
            {"text", false, false},     {"input", false, true},          {"system", false, true},
            {"history", false, true},   {"role", true, false},           {"content", true, false},
            {"from", true, false},      {"value", true, false},          {"weight", true, true},
            {"mask", true, true},       {"chosen", false, false},        {"rejected", false, false}};
enum { N_KEYS = sizeof KEYS / sizeof *KEYS };

static size_t find_key(const char *name) {
    size_t i = 0;
    while (i < N_KEYS && strcmp(KEYS[i].name, name) != 0)
        i++;
    return i;
}

bool columns_parse(struct Columns *c, const char *text) {
    *c = (struct Columns){0};
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, ","), ours = strcspn(at, "=");
        if (ours == 0 || ours + 1 >= n)
            return fail("--columns: 'KEY=NAME' is expected, '%.*s' is found", (int)n, at);
        if (c->n == COLUMNS_MAX)
            return fail("--columns: more than %d names", COLUMNS_MAX);
        c->names[c->n].ours = xsprintf("%.*s", (int)ours, at);
        c->names[c->n].theirs = xsprintf("%.*s", (int)(n - ours - 1), at + ours + 1);
        c->n++;
        const char *name = c->names[c->n - 1].ours;
        if (find_key(name) == N_KEYS)
            return fail(
                "--columns: '%.40s' is none of messages, conversations, instruction, input, output, system, history, "
                "prompt, completion, text, role, content, from, value, weight, mask, chosen, rejected",
                name);
        for (uint32_t i = 0; i + 1 < c->n; i++)
            if (strcmp(c->names[i].ours, name) == 0)
                return fail("--columns: '%.40s' is given twice", name);
        at += n + (at[n] == ',');
    }
    return c->n > 0 || fail("--columns names nothing");
}

void columns_free(struct Columns *c) {
    for (uint32_t i = 0; i < c->n; i++) {
        free(c->names[i].ours);
        free(c->names[i].theirs);
    }
    *c = (struct Columns){0};
}

static const char *their_name(const struct FormReader *r, const char *ours) {
    for (uint32_t i = 0; r->columns && i < r->columns->n; i++)
        if (strcmp(r->columns->names[i].ours, ours) == 0)
            return r->columns->names[i].theirs;
    return ours;
}

// The columns that are named, by our names, and no others; the object itself where none of its own keys is renamed. To be released.
static json_t *map_columns(const struct FormReader *r, json_t *object, const char *where) {
    json_t *mapped = NULL;
    for (uint32_t i = 0; r->columns && i < r->columns->n; i++) {
        const char *ours = r->columns->names[i].ours, *theirs = r->columns->names[i].theirs;
        size_t key = find_key(ours);
        if (KEYS[key].inner)
            continue;
        json_t *value = json_object_get(object, theirs);
        if (!value && !KEYS[key].optional) {
            json_decref(mapped);
            return fail("%s: there is no '%.40s', which --columns takes for '%s'", where, theirs, ours), NULL;
        }
        if (!mapped)
            mapped = json_object();
        if (value)
            json_object_set(mapped, ours, value);
    }
    return mapped ? mapped : json_incref(object);
}

// ---- Parts of an object ----

char *form_key_names(json_t *object) {
    enum { NAMES_BYTES = 500 };
    char *names = NULL;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (names && strlen(names) > NAMES_BYTES)
            break;
        char *longer = names ? xsprintf("%s, %.40s", names, key) : xsprintf("%.40s", key);
        free(names);
        names = longer;
    }
    return names;
}

static bool get_text(const json_t *object, const char *key, const char **text, size_t *bytes, const char *where) {
    const json_t *value = json_object_get(object, key);
    *text = "";
    *bytes = 0;
    if (!json_is_string(value))
        return fail("%s: '%s' must be a text%s", where, key, value ? "" : ", and is missing");
    *text = json_string_value(value);
    *bytes = json_string_length(value);
    return true;
}

// What says nothing, as files have it in which every record has every key.
static bool is_nothing(const json_t *v) {
    return !v || json_is_null(v) ||
           ((json_is_array(v) || json_is_object(v)) && !json_array_size(v) && !json_object_size(v)) ||
           (json_is_string(v) && (json_string_length(v) == 0 || strcmp(json_string_value(v), "[]") == 0));
}

// Keys of a message that would change what the model sees and that are not known here.
static bool check_keys(const json_t *object, const char *const *known, size_t n, const char *where) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool found = is_nothing(value);
        for (size_t i = 0; i < n; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found)
            return fail("%s: '%.40s' is not known here; %s and %s are", where, key, known[0], known[1]);
    }
    return true;
}

static void reserve_messages(struct FormReader *r, size_t n) {
    if (n > r->messages_room) {
        r->messages_room = n * 2;
        r->messages = xrealloc(r->messages, r->messages_room * sizeof *r->messages);
    }
}

// ShareGPT's names of the roles, else our own.
static bool find_role(const char *name, bool sharegpt, enum Role *role) {
    if (sharegpt && strcmp(name, "human") == 0)
        name = "user";
    else if (sharegpt && strcmp(name, "gpt") == 0)
        name = "assistant";
    return role_find(name, role);
}

// A text, or an array of one part: {"type": "text", "text": "..."} ("value" in LLaMA-Factory's files). How parts would be joined nobody says.
static bool get_content(const json_t *message, const char *key, const char **text, size_t *bytes, const char *where) {
    const json_t *content = json_object_get(message, key), *part = json_array_get(content, 0);
    if (!json_is_array(content))
        return get_text(message, key, text, bytes, where);
    const char *type = json_string_value(json_object_get(part, "type"));
    if (json_array_size(content) != 1 || !type || strcmp(type, "text") != 0)
        return fail("%s: '%s' must be a text, or an array of one part of type text", where, key);
    return get_text(part, json_object_get(part, "value") ? "value" : "text", text, bytes, where);
}

// How often the loss of an answer counts. "weight" is what OpenAI's files call it.
static bool read_weight(const struct FormReader *r, const json_t *message, struct Message *m, const char *where) {
    static const char *const keys[] = {"weight", "mask", "loss_weight"};
    enum { MASK = 1 };
    const char *found = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(message, their_name(r, keys[i]));
        if (!value || json_is_null(value))
            continue;
        double weight = json_is_boolean(value)  ? json_is_true(value)
                        : json_is_number(value) ? json_number_value(value)
                                                : -1;
        if (found)
            return fail("%s: both '%s' and '%s': it could mean two things", where, found, their_name(r, keys[i]));
        found = their_name(r, keys[i]);
        if (i == MASK && weight != 0 && weight != 1)
            return fail("%s: '%s' must be 0 or 1 (false or true)", where, found);
        if (!(weight >= 0) || !isfinite((float)weight))
            return fail("%s: '%s' must be a number of at least 0 (or false or true)", where, found);
        if (r->pair && weight != 0 && weight != 1)
            return fail("%s: '%s' must be 0 or 1 in a pair: --loss dpo compares whole answers, which no factor of a "
                        "message's loss is for",
                        where, found);
        if (weight != 0 && m->role != ROLE_ASSISTANT)
            return fail("%s: '%s' is not 0, but only the assistant's messages can be learnt", where, found);
        m->weighted = true;
        m->weight = (float)weight;
    }
    return true;
}

static bool read_message(struct FormReader *r, const json_t *value, bool sharegpt, struct Message *m,
                         const char *where) {
    // ShareGPT's names in "messages", and ours in "conversations", are as plain as where they belong.
    bool from = json_object_get(value, their_name(r, "from")) != NULL,
         ours = json_object_get(value, their_name(r, "role")) != NULL, named = from != ours ? from : sharegpt;
    const char *known[] = {their_name(r, named ? "from" : "role"), their_name(r, named ? "value" : "content"),
                           their_name(r, "weight"), their_name(r, "mask"), "loss_weight"};
    const char *role;
    size_t role_bytes;
    *m = (struct Message){0};
    if (!json_is_object(value))
        return fail("%s must be an object with %s and %s", where, known[0], known[1]);
    // the keys first: a call of a tool has no content, and is to be told by its name
    if (!check_keys(value, known, 5, where) || !get_text(value, known[0], &role, &role_bytes, where) ||
        !get_content(value, known[1], &m->text, &m->bytes, where))
        return false;
    if (!find_role(role, sharegpt || named, &m->role))
        return fail("%s: the role '%.40s' is not known here; system, user and assistant are", where, role);
    return read_weight(r, value, m, where);
}

// The object's "system", which is said before all messages; of no bytes: there is none.
static bool read_system(const json_t *object, struct Message *m, const char *where) {
    const json_t *system = json_object_get(object, "system");
    *m = (struct Message){.role = ROLE_SYSTEM};
    return !system || json_is_null(system) || get_text(object, "system", &m->text, &m->bytes, where);
}

static bool lacks_template(struct FormReader *r, const char *where) {
    r->templated = true;
    return fail("%s: %s", where, r->chat->refusal);
}

// The list's messages go to r->messages from *n on. The first `only_read` of them are not learnt.
static bool read_list(struct FormReader *r, const json_t *array, const char *list, bool sharegpt, size_t only_read,
                      size_t *n, const char *where) {
    size_t size = json_array_size(array), i;
    json_t *value;
    if (!json_is_array(array) || size == 0 || size > MESSAGES_MAX)
        return fail("%s: '%s' must be an array of 1 to %d messages", where, list, MESSAGES_MAX);
    reserve_messages(r, *n + size);
    json_array_foreach(array, i, value) {
        struct Message *m = &r->messages[(*n)++];
        char place[512];
        snprintf(place, sizeof place, "%.400s: %s[%zu]", where, list, i);
        if (!read_message(r, value, sharegpt, m, place))
            return false;
        if (i < only_read)
            m->weighted = true, m->weight = 0;
    }
    return true;
}

static bool render(struct FormReader *r, size_t n, const char *where) {
    bool answered = false, learnt = false;
    for (const struct Message *m = r->messages; m < r->messages + n; m++) {
        if (m->role != ROLE_ASSISTANT)
            continue;
        answered = true;
        learnt |= message_weight(m) > 0;
        if (message_weight(m) > 0 && m->bytes == 0)
            return fail("%s: an answer of the assistant is empty: nothing to learn", where);
    }
    if (!learnt)
        return fail("%s: no message of the assistant%s: nothing to learn", where, answered ? " counts" : "");
    if (r->chat->refusal)
        return lacks_template(r, where);
    r->templated = true;
    return template_render(r->chat, r->tokenizer, r->messages, n, false, &r->list);
}

static bool read_messages(struct FormReader *r, const json_t *object, bool sharegpt, const char *where) {
    const char *list = sharegpt ? "conversations" : "messages";
    reserve_messages(r, 1);
    if (!read_system(object, &r->messages[0], where))
        return false;
    size_t before = r->messages[0].bytes > 0, n = before;
    if (!read_list(r, json_object_get(object, list), list, sharegpt, 0, &n, where))
        return false;
    for (size_t i = before; before && i < n; i++)
        if (r->messages[i].role == ROLE_SYSTEM)
            return fail("%s: both 'system' and a message of the system (%s[%zu]): it could mean two things", where,
                        list, i - before);
    return render(r, n, where);
}

// [["question", "answer"], ...], the turns before. They go to r->messages from *n on.
static bool read_history(struct FormReader *r, const json_t *history, size_t *n, const char *where) {
    size_t i;
    json_t *turn;
    if (history && !json_is_array(history) && !json_is_null(history))
        return fail("%s: 'history' must be an array of [question, answer]", where);
    json_array_foreach(history, i, turn) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *text = json_array_get(turn, k);
            if (json_array_size(turn) != 2 || !json_is_string(text))
                return fail("%s: history[%zu] must be [question, answer], two texts", where, i);
            r->messages[(*n)++] = (struct Message){.role = k ? ROLE_ASSISTANT : ROLE_USER,
                                                   .text = json_string_value(text),
                                                   .bytes = json_string_length(text)};
        }
    }
    return true;
}

// Missing values are written as null by pandas and datasets.
static bool get_text_if_any(const json_t *object, const char *key, const char **text, size_t *bytes,
                            const char *where) {
    const json_t *value = json_object_get(object, key);
    return !value || json_is_null(value) || get_text(object, key, text, bytes, where);
}

static bool read_instruction(struct FormReader *r, const json_t *object, const char *where) {
    struct Message answer = {.role = ROLE_ASSISTANT}, question = {.role = ROLE_USER}, system = {.role = ROLE_SYSTEM};
    const json_t *history = json_object_get(object, "history");
    const char *input = "";
    size_t input_bytes = 0, n = 0;
    if (!get_text(object, "instruction", &question.text, &question.bytes, where) ||
        !get_text(object, "output", &answer.text, &answer.bytes, where) ||
        !get_text_if_any(object, "input", &input, &input_bytes, where) ||
        !get_text_if_any(object, "system", &system.text, &system.bytes, where))
        return false;
    reserve_messages(r, 2 * json_array_size(history) + 3);
    if (system.bytes)
        r->messages[n++] = system;
    if (!read_history(r, history, &n, where))
        return false;
    char *both = xmalloc(question.bytes + input_bytes + 1);
    size_t between = question.bytes && input_bytes; // a line feed
    memcpy(both, question.text, question.bytes);
    both[question.bytes] = '\n';
    memcpy(both + question.bytes + between, input, input_bytes);
    question.text = both;
    question.bytes += between + input_bytes;
    r->messages[n++] = question;
    r->messages[n++] = answer;
    bool ok = render(r, n, where);
    free(both);
    return ok;
}

static bool append_end(struct FormReader *r, const char *where) {
    uint32_t id = r->tokenizer->eos_id != TOKEN_NONE ? r->tokenizer->eos_id : r->chat->turn_id;
    if (id == TOKEN_NONE)
        return lacks_template(r, where);
    token_list_push(&r->list, id, true);
    return true;
}

// A text that is learnt as it is. What looks like a control token in it is none: whoever laid it out by a template is to know.
static bool append_text(struct FormReader *r, const char *text, size_t bytes, unsigned flags, bool learnt) {
    size_t start, length;
    if (r->spelled == TOKEN_NONE)
        tokenizer_find_special(r->tokenizer, text, bytes, 0, &start, &length, &r->spelled);
    return token_list_append(&r->list, r->tokenizer, text, bytes, flags, learnt);
}

static bool read_text(struct FormReader *r, const json_t *object, const char *where) {
    const char *text;
    size_t bytes;
    if (!get_text(object, "text", &text, &bytes, where))
        return false;
    if (bytes == 0)
        return fail("%s: 'text' is empty: nothing to learn", where);
    if (!append_text(r, text, bytes, TOKENIZE_BOS, true))
        return false;
    return append_end(r, where);
}

// A list of messages, or a text that is the words of `role`; to r->messages from *n on.
static bool read_turns(struct FormReader *r, const json_t *object, const char *key, enum Role role, size_t *n,
                       const char *where) {
    const json_t *value = json_object_get(object, key);
    if (json_is_array(value))
        return read_list(r, value, key, false, role == ROLE_USER ? SIZE_MAX : 0, n, where);
    reserve_messages(r, *n + 1);
    struct Message *m = &r->messages[(*n)++];
    *m = (struct Message){.role = role};
    return get_text(object, key, &m->text, &m->bytes, where);
}

// "prompt" and an answer to it: two texts are joined as they are; where one is a list of messages both are turns of a conversation.
static bool read_completion(struct FormReader *r, const json_t *object, const char *answer, const char *where) {
    const char *prompt = "", *completion = "";
    size_t prompt_bytes = 0, completion_bytes = 0, n = 0;
    if (json_is_array(json_object_get(object, "prompt")) || json_is_array(json_object_get(object, answer)))
        return read_turns(r, object, "prompt", ROLE_USER, &n, where) &&
               read_turns(r, object, answer, ROLE_ASSISTANT, &n, where) && render(r, n, where);
    if (!get_text(object, "prompt", &prompt, &prompt_bytes, where) ||
        !get_text(object, answer, &completion, &completion_bytes, where))
        return false;
    if (completion_bytes == 0)
        return fail("%s: '%s' is empty: nothing to learn", where, answer);
    unsigned place = prompt_bytes ? TOKENIZE_MIDDLE : 0; // no blank that nobody wrote goes between the two
    if (!append_text(r, prompt, prompt_bytes, TOKENIZE_BOS, false) ||
        !append_text(r, completion, completion_bytes, place, true))
        return false;
    return append_end(r, where);
}

enum Form { FORM_MESSAGES, FORM_CONVERSATIONS, FORM_INSTRUCTION, FORM_COMPLETION, FORM_TEXT, FORM_PAIR };

static bool find_form(const json_t *object, enum Form *form, const char *where) {
    static const struct {
        const char *key;
        enum Form form;
    } keys[] = {{"messages", FORM_MESSAGES}, {"conversations", FORM_CONVERSATIONS}, {"instruction", FORM_INSTRUCTION},
                {"prompt", FORM_COMPLETION}, {"completion", FORM_COMPLETION},       {"text", FORM_TEXT}};
    static const char *const columns[] = {"messages=messages", "conversations=conversations",
                                          "instruction=instruction,input=input,output=output",
                                          "prompt=prompt,completion=completion", "text=text"};
    const char *found = NULL;
    if (!json_is_object(object))
        return fail("%s: an object is expected", where);
    if (!is_nothing(json_object_get(object, "chosen")) || !is_nothing(json_object_get(object, "rejected")))
        return fail("%s: 'chosen' and 'rejected' are a pair of answers: --loss dpo learns from these (and --columns "
                    "with the keys of another form reads those alone)",
                    where);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!json_object_get(object, keys[i].key))
            continue;
        if (found && *form != keys[i].form)
            return fail("%s: both '%s' and '%s': it could mean two things; --columns %s reads the first alone", where,
                        found, keys[i].key, columns[*form]);
        found = keys[i].key;
        *form = keys[i].form;
    }
    if (found)
        return true;
    char *names = form_key_names((json_t *)object);
    fail("%s: none of {\"messages\"}, {\"conversations\"}, {\"instruction\", \"output\"}, {\"prompt\", \"completion\"} "
         "and "
         "{\"text\"}%s%s%s",
         where, names ? "; found are: " : "", names ? names : "", names ? " (--columns tells which is which)" : "");
    free(names);
    return false;
}

// Keys that the form does not read: what would change a record's meaning is refused, others are noted.
static bool check_record(struct FormReader *r, const json_t *object, enum Form form, const char *where) {
    enum { UNUSED_MAX = 32 }; // a file with a million names does not get them all told
    static const char *const known[][5] = {[FORM_MESSAGES] = {"messages", "system"},
                                           [FORM_CONVERSATIONS] = {"conversations", "system"},
                                           [FORM_INSTRUCTION] = {"instruction", "input", "output", "system", "history"},
                                           [FORM_COMPLETION] = {"prompt", "completion"},
                                           [FORM_TEXT] = {"text"},
                                           [FORM_PAIR] = {"prompt", "chosen", "rejected"}},
                             *const telling[] = {"label",   "kto_tag", "weight",    "loss_weight", "system",
                                                 "history", "tools",   "functions", "image",       "images",
                                                 "videos",  "audio",   "audios"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool found = is_nothing(value);
        for (size_t i = 0; i < 5 && known[form][i]; i++)
            found |= strcmp(key, known[form][i]) == 0;
        for (size_t i = 0; !found && i < sizeof telling / sizeof *telling; i++)
            if (strcmp(key, telling[i]) == 0 && (i > 0 || form != FORM_TEXT)) // a text's label is its class
                return fail("%s: '%s' is not known here beside '%s', and would change what is learnt (what --columns "
                            "does not name is not read)",
                            where, key, known[form][0]);
        if (!found && !r->unused)
            r->unused = json_object();
        if (!found && json_object_size(r->unused) < UNUSED_MAX)
            json_object_set_new(r->unused, key, json_null());
    }
    return true;
}

static bool read_known(struct FormReader *r, const json_t *object, const char *where) {
    enum Form form = FORM_TEXT;
    if (!find_form(object, &form, where) || !check_record(r, object, form, where))
        return false;
    switch (form) {
    case FORM_MESSAGES:
        return read_messages(r, object, false, where);
    case FORM_CONVERSATIONS:
        return read_messages(r, object, true, where);
    case FORM_INSTRUCTION:
        return read_instruction(r, object, where);
    case FORM_COMPLETION:
        return read_completion(r, object, "completion", where);
    case FORM_TEXT:
        return read_text(r, object, where);
    case FORM_PAIR:
        break;
    }
    return false;
}

bool form_read(struct FormReader *r, const json_t *object, const char *where) {
    r->list.n = 0;
    r->spelled = TOKEN_NONE;
    r->templated = false;
    r->pair = false;
    json_t *mapped = map_columns(r, (json_t *)object, where);
    bool ok = mapped && read_known(r, mapped, where);
    json_decref(mapped);
    return ok;
}

// A list: the turns that both answers begin with, which are the prompt, and then a message of the assistant.
static bool read_answer_list(struct FormReader *r, const json_t *pair, const char *key, const char *where) {
    const json_t *prompt = json_object_get(pair, "prompt"), *answer = json_object_get(pair, key),
                 *chosen = json_object_get(pair, "chosen"), *rejected = json_object_get(pair, "rejected");
    size_t common = 0, n = 0;
    bool said = false;
    for (json_t *turn; (turn = json_array_get(chosen, common)) && json_equal(turn, json_array_get(rejected, common));
         common++)
        said |= json_equal(prompt, json_object_get(turn, their_name(r, "content")));
    if (json_array_size(chosen) != common + 1 || json_array_size(rejected) != common + 1)
        return fail("%s: 'chosen' and 'rejected' must both be texts, or both lists of the same turns with one message "
                    "of the assistant behind them",
                    where);
    if (common && (json_is_array(prompt) || (json_is_string(prompt) && !said)))
        return fail("%s: both 'prompt' and turns that 'chosen' and 'rejected' begin with: it could mean two things",
                    where);
    if (common)
        return read_list(r, answer, key, false, common, &n, where) && render(r, n, where);
    return read_completion(r, pair, key, where);
}

bool form_read_pair(struct FormReader *r, const json_t *object, bool chosen, const char *where) {
    static const char *const keys[] = {"rejected", "chosen"};
    r->list.n = 0;
    r->spelled = TOKEN_NONE;
    r->templated = false;
    r->pair = true;
    if (!json_is_object(object))
        return fail("%s: an object is expected", where);
    json_t *pair = map_columns(r, (json_t *)object, where);
    const json_t *a = json_object_get(pair, keys[chosen]), *b = json_object_get(pair, keys[!chosen]);
    bool ok = pair != NULL;
    if (ok && !a && !b)
        ok = fail("%s: 'chosen' and 'rejected' are missing: --loss dpo learns from pairs, {\"prompt\", \"chosen\", "
                  "\"rejected\"}; other forms are --loss sft's",
                  where);
    ok = ok && check_record(r, pair, FORM_PAIR, where);
    if (ok && json_equal(a, b))
        ok = fail("%s: 'chosen' and 'rejected' are equal: nothing to prefer", where);
    if (ok && (json_is_array(a) || json_is_array(b)))
        ok = read_answer_list(r, pair, keys[chosen], where);
    else if (ok && (!json_is_string(a) || json_string_length(a) == 0))
        ok = fail("%s: '%s' must be a text, and not an empty one", where, keys[chosen]);
    else if (ok && !json_object_get(pair, "prompt"))
        ok = fail("%s: 'prompt' must be a text, and is missing: 'chosen' and 'rejected' are the answers alone; what "
                  "both begin with is to be the prompt",
                  where);
    else
        ok = ok && read_completion(r, pair, keys[chosen], where);
    json_decref(pair);
    return ok;
}

void form_free(struct FormReader *r) {
    token_list_free(&r->list);
    json_decref(r->unused);
    r->unused = NULL;
    free(r->messages);
    r->messages = NULL;
    r->messages_room = 0;
}
