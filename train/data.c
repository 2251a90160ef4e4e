// Objects are read one at a time, checked as bytes, parsed, and become examples at once; nothing of the text is kept.
#include "train/data.h"
#include "model/json.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 100000000, MESSAGES_MAX = 100000 };

// ---- Objects of a file or of memory ----

struct Source {
    FILE *file; // NULL: memory
    const char *memory;
    size_t memory_left;
    char *buffer; // (capacity) what is read: [begin, end) is not yet given out
    size_t begin, end, capacity;
    bool ended;    // nothing is left to read
    bool failed;   // it was told; nothing more will come
    uint32_t line; // on which `begin` stands, from 1
    bool array, first;
    const char *path;
};

static size_t read_more(struct Source *s, char *out, size_t room) {
    if (s->file)
        return fread(out, 1, room, s->file);
    size_t n = min_u64(room, s->memory_left);
    if (n == 0)
        return 0;
    memcpy(out, s->memory, n);
    s->memory += n;
    s->memory_left -= n;
    return n;
}

// Reads on behind `end`; what is not given out moves to the front. False after a message; at the end of the file s->ended.
static bool fill(struct Source *s) {
    size_t have = s->end - s->begin;
    if (s->failed)
        return false;
    if (have > LINE_MAX_BYTES)
        return fail("%s:%u: more than %d bytes in one %s", s->path, s->line, LINE_MAX_BYTES,
                    s->array ? "object" : "line");
    if (s->begin)
        memmove(s->buffer, s->buffer + s->begin, have);
    s->begin = 0;
    s->end = have;
    if (s->end == s->capacity)
        s->buffer = xrealloc(s->buffer, s->capacity *= 2);
    size_t n = read_more(s, s->buffer + s->end, s->capacity - s->end);
    s->end += n;
    s->failed = n == 0 && s->file && ferror(s->file);
    s->ended = n == 0 && !s->failed;
    return !s->failed || fail("%s: cannot be read: %s", s->path, strerror(errno));
}

// The byte at `begin`; -1 at the end of the file or after a message.
static int peek(struct Source *s) {
    while (s->begin == s->end && !s->ended)
        if (!fill(s))
            return -1;
    return s->begin == s->end ? -1 : (uint8_t)s->buffer[s->begin];
}

static int peek_past_blanks(struct Source *s) {
    int c;
    while ((c = peek(s)) == ' ' || c == '\t' || c == '\r' || c == '\n') {
        s->line += c == '\n';
        s->begin++;
    }
    return c;
}

// A byte order mark, and whether the file is an array.
static void source_begin(struct Source *s) {
    s->buffer = xmalloc(s->capacity = 1 << 16);
    s->line = 1;
    s->first = true;
    while (s->end < 3 && !s->ended && fill(s))
        ;
    if (s->end >= 3 && memcmp(s->buffer, "\xef\xbb\xbf", 3) == 0)
        s->begin = 3;
    s->array = peek_past_blanks(s) == '[';
    s->begin += s->array;
}

// The next line that is not blank, without its end. *text NULL: there is none left.
static bool next_line(struct Source *s, const char **text, size_t *bytes, uint32_t *line) {
    size_t searched = 0;
    *text = NULL;
    if (peek_past_blanks(s) < 0)
        return s->ended;
    for (;;) {
        char *from = s->buffer + s->begin, *feed = memchr(from + searched, '\n', s->end - s->begin - searched);
        searched = s->end - s->begin;
        if (!feed && !s->ended) {
            if (!fill(s))
                return false;
            continue;
        }
        *text = from;
        *bytes = feed ? (size_t)(feed - from) : searched;
        *line = s->line;
        s->begin += *bytes; // the line feed is the next call's to count
        *bytes -= *bytes && from[*bytes - 1] == '\r';
        return true;
    }
}

// The next object of the array, likewise. Strings and brackets are followed to its end; the rest is the JSON reader's.
static bool next_object(struct Source *s, const char **text, size_t *bytes, uint32_t *line) {
    *text = NULL;
    int c = peek_past_blanks(s);
    if (c == ',' && !s->first) {
        s->begin++;
        c = peek_past_blanks(s);
    } else if (c == ']') {
        s->begin++;
        return peek_past_blanks(s) < 0 ? s->ended : fail("%s:%u: more text behind the array", s->path, s->line);
    } else if (!s->first && (c >= 0 || s->ended)) {
        return fail("%s:%u: ',' or ']' is expected behind an object of the array", s->path, s->line);
    }
    if (c != '{')
        return c < 0 && !s->ended ? false : fail("%s:%u: an object of the array is expected", s->path, s->line);
    size_t n = 0, depth = 0, feeds = 0;
    bool in_string = false, escaped = false;
    do {
        while (s->begin + n == s->end && !s->ended)
            if (!fill(s))
                return false;
        if (s->begin + n == s->end)
            return fail("%s:%u: the object that begins here has no end", s->path, s->line);
        char byte = s->buffer[s->begin + n++];
        feeds += byte == '\n';
        if (in_string) {
            in_string = escaped || byte != '"';
            escaped = !escaped && byte == '\\';
        } else {
            in_string = byte == '"';
            depth += byte == '{' || byte == '[';
            depth -= byte == '}' || byte == ']';
        }
    } while (depth);
    s->first = false;
    *text = s->buffer + s->begin;
    *bytes = n;
    *line = s->line;
    s->begin += n;
    s->line += (uint32_t)feeds;
    return true;
}

// ---- One object ----

struct Reader {
    struct Dataset *d;
    const struct Tokenizer *tokenizer;
    const struct Template *chat;
    const struct DataOptions *options;
    uint32_t file;
    size_t room;           // examples that fit
    struct TokenList list; // of the object in hand
    struct Message *messages;
    size_t messages_room;
};

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

// Keys that would change what the model sees and that are not known here, null apart.
static bool check_keys(const json_t *object, const char *const *known, size_t n, const char *where) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool found = json_is_null(value);
        for (size_t i = 0; i < n; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found)
            return fail("%s: '%.40s' is not known here; %s and %s are", where, key, known[0], known[1]);
    }
    return true;
}

static void reserve_messages(struct Reader *r, size_t n) {
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

static bool read_messages(struct Reader *r, const json_t *object, bool sharegpt, const char *where) {
    static const char *const keys[2][2] = {{"role", "content"}, {"from", "value"}};
    const char *list = sharegpt ? "conversations" : "messages", *const *key = keys[sharegpt];
    const json_t *array = json_object_get(object, list);
    size_t n = json_array_size(array), i;
    json_t *value;
    bool answered = false;
    if (!json_is_array(array) || n == 0 || n > MESSAGES_MAX)
        return fail("%s: '%s' must be an array of 1 to %d messages", where, list, MESSAGES_MAX);
    reserve_messages(r, n);
    json_array_foreach(array, i, value) {
        struct Message *m = &r->messages[i];
        char place[512];
        snprintf(place, sizeof place, "%.400s: %s[%zu]", where, list, i);
        const char *role;
        size_t role_bytes;
        if (!json_is_object(value))
            return fail("%s must be an object with %s and %s", place, key[0], key[1]);
        if (!get_text(value, key[0], &role, &role_bytes, place) ||
            !get_text(value, key[1], &m->text, &m->bytes, place) || !check_keys(value, key, 2, place))
            return false;
        if (!find_role(role, sharegpt, &m->role))
            return fail("%s: the role '%.40s' is not known here; system, user and assistant are", place, role);
        answered |= m->role == ROLE_ASSISTANT;
    }
    if (!answered)
        return fail("%s: no message of the assistant: nothing to learn", where);
    return template_render(r->chat, r->tokenizer, r->messages, n, false, &r->list);
}

// [["question", "answer"], ...], the turns before. They go to r->messages from *n on.
static bool read_history(struct Reader *r, const json_t *history, size_t *n, const char *where) {
    size_t i;
    json_t *turn;
    if (history && !json_is_array(history) && !json_is_null(history))
        return fail("%s: 'history' must be an array of [question, answer]", where);
    json_array_foreach(history, i, turn) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *text = json_array_get(turn, k);
            if (json_array_size(turn) != 2 || !json_is_string(text))
                return fail("%s: history[%zu] must be [question, answer], two texts", where, i);
            r->messages[(*n)++] =
                (struct Message){k ? ROLE_ASSISTANT : ROLE_USER, json_string_value(text), json_string_length(text)};
        }
    }
    return true;
}

static bool read_instruction(struct Reader *r, const json_t *object, const char *where) {
    struct Message answer = {.role = ROLE_ASSISTANT}, question = {.role = ROLE_USER}, system = {.role = ROLE_SYSTEM};
    const json_t *history = json_object_get(object, "history");
    const char *input = "";
    size_t input_bytes = 0, n = 0;
    if (!get_text(object, "instruction", &question.text, &question.bytes, where) ||
        !get_text(object, "output", &answer.text, &answer.bytes, where) ||
        (json_object_get(object, "input") && !get_text(object, "input", &input, &input_bytes, where)) ||
        (json_object_get(object, "system") && !get_text(object, "system", &system.text, &system.bytes, where)))
        return false;
    reserve_messages(r, 2 * json_array_size(history) + 3);
    if (system.bytes)
        r->messages[n++] = system;
    if (!read_history(r, history, &n, where))
        return false;
    char *both = xmalloc(question.bytes + input_bytes + 1);
    memcpy(both, question.text, question.bytes);
    both[question.bytes] = '\n';
    memcpy(both + question.bytes + 1, input, input_bytes);
    question.text = both;
    question.bytes += input_bytes ? input_bytes + 1 : 0;
    r->messages[n++] = question;
    r->messages[n++] = answer;
    bool ok = template_render(r->chat, r->tokenizer, r->messages, n, false, &r->list);
    free(both);
    return ok;
}

static uint32_t end_id(const struct Reader *r) {
    return r->tokenizer->eos_id != TOKEN_NONE ? r->tokenizer->eos_id : r->chat->turn_id;
}

static bool read_text(struct Reader *r, const json_t *object, const char *where) {
    const char *text;
    size_t bytes;
    if (!get_text(object, "text", &text, &bytes, where))
        return false;
    if (bytes == 0)
        return fail("%s: 'text' is empty: nothing to learn", where);
    if (!token_list_append(&r->list, r->tokenizer, text, bytes, TOKENIZE_BOS, true))
        return false;
    token_list_push(&r->list, end_id(r), true);
    return true;
}

static bool read_completion(struct Reader *r, const json_t *object, const char *where) {
    const char *prompt = "", *completion = "";
    size_t prompt_bytes = 0, completion_bytes = 0;
    if (!get_text(object, "prompt", &prompt, &prompt_bytes, where) ||
        !get_text(object, "completion", &completion, &completion_bytes, where))
        return false;
    if (completion_bytes == 0)
        return fail("%s: 'completion' is empty: nothing to learn", where);
    if (!token_list_append(&r->list, r->tokenizer, prompt, prompt_bytes, TOKENIZE_BOS, false) ||
        !token_list_append(&r->list, r->tokenizer, completion, completion_bytes, 0, true))
        return false;
    token_list_push(&r->list, end_id(r), true);
    return true;
}

enum Form { FORM_MESSAGES, FORM_CONVERSATIONS, FORM_INSTRUCTION, FORM_COMPLETION, FORM_TEXT };

static bool find_form(const json_t *object, enum Form *form, const char *where) {
    static const struct {
        const char *key;
        enum Form form;
    } keys[] = {{"messages", FORM_MESSAGES}, {"conversations", FORM_CONVERSATIONS}, {"instruction", FORM_INSTRUCTION},
                {"prompt", FORM_COMPLETION}, {"completion", FORM_COMPLETION},       {"text", FORM_TEXT}};
    const char *found = NULL;
    if (!json_is_object(object))
        return fail("%s: an object is expected", where);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!json_object_get(object, keys[i].key))
            continue;
        if (found && *form != keys[i].form)
            return fail("%s: both '%s' and '%s': it could mean two things", where, found, keys[i].key);
        found = keys[i].key;
        *form = keys[i].form;
    }
    return found || fail("%s: none of {\"messages\"}, {\"conversations\"}, {\"instruction\", \"output\"}, {\"prompt\", "
                         "\"completion\"} and {\"text\"}",
                         where);
}

static bool read_object(struct Reader *r, const json_t *object, const char *where) {
    enum Form form = FORM_TEXT;
    if (!find_form(object, &form, where))
        return false;
    const json_t *tools = json_object_get(object, "tools");
    if (json_array_size(tools) || json_string_length(tools) > strlen("[]"))
        return fail("%s: 'tools' are not known here", where);
    switch (form) {
    case FORM_MESSAGES:
        return read_messages(r, object, false, where);
    case FORM_CONVERSATIONS:
        return read_messages(r, object, true, where);
    case FORM_INSTRUCTION:
        return read_instruction(r, object, where);
    case FORM_COMPLETION:
        return read_completion(r, object, where);
    case FORM_TEXT:
        return read_text(r, object, where);
    }
    return false;
}

// Turns the tokens of the object in hand into an example.
static bool add_example(struct Reader *r, uint32_t line, const char *where) {
    struct Dataset *d = r->d;
    size_t n = min_u64(r->list.n, r->options->max_tokens), n_labels = 0;
    bool cut = n < r->list.n;
    for (size_t t = 0; t + 1 < n; t++)
        n_labels += r->list.trained[t + 1];
    if (n_labels == 0 && !cut)
        return fail("%s: nothing to learn", where);
    d->n_cut += cut;
    if (n_labels == 0) {
        d->n_beyond++;
        return true;
    }
    if (d->n == r->room) {
        r->room = r->room ? r->room * 2 : 256;
        d->examples = xrealloc(d->examples, r->room * sizeof *d->examples);
    }
    struct Example *e = &d->examples[d->n++];
    *e = (struct Example){.n = (uint32_t)n, .n_labels = (uint32_t)n_labels, .file = r->file, .line = line};
    e->ids = xmalloc(n * sizeof *e->ids);
    e->labels = xmalloc(n * sizeof *e->labels);
    memcpy(e->ids, r->list.ids, n * sizeof *e->ids);
    for (size_t t = 0; t < n; t++)
        e->labels[t] = t + 1 < n && r->list.trained[t + 1] ? (int32_t)e->ids[t + 1] : -1;
    return true;
}

// One answer of a pair, in the words of the forms above: a completion of a text, or the assistant's next message.
static bool read_answer(struct Reader *r, const json_t *object, const char *key, const char *where) {
    json_t *prompt = json_object_get(object, "prompt"), *answer = json_object_get(object, key), *whole;
    r->list.n = 0;
    if (!json_is_string(answer) || json_string_length(answer) == 0)
        return fail("%s: '%s' must be a text, and not an empty one", where, key);
    if (json_is_array(prompt)) {
        json_t *list = json_copy(prompt);
        json_array_append_new(list, json_pack("{s:s, s:O}", "role", "assistant", "content", answer));
        whole = json_pack("{s:o}", "messages", list);
    } else {
        whole = json_pack("{s:O, s:O}", "prompt", prompt ? prompt : json_null(), "completion", answer);
    }
    bool ok = json_is_array(prompt) ? read_messages(r, whole, false, where) : read_completion(r, whole, where);
    json_decref(whole);
    return ok;
}

static bool read_pair(struct Reader *r, const json_t *object, uint32_t line, const char *where) {
    static const char *const keys[] = {"prompt", "chosen", "rejected"};
    struct Dataset *d = r->d;
    size_t before = d->n;
    uint64_t beyond = d->n_beyond;
    if (!json_is_object(object))
        return fail("%s: an object is expected", where);
    if (!check_keys(object, keys, 3, where))
        return false;
    if (json_equal(json_object_get(object, "chosen"), json_object_get(object, "rejected")))
        return fail("%s: 'chosen' and 'rejected' are equal: nothing to prefer", where);
    bool ok = read_answer(r, object, "chosen", where) && add_example(r, line, where) &&
              read_answer(r, object, "rejected", where) && add_example(r, line, where);
    if (!ok || d->n == before + 2)
        return ok;
    for (; d->n > before; d->n--) // the other one alone is of no use
        free(d->examples[d->n - 1].ids), free(d->examples[d->n - 1].labels);
    d->n_beyond = beyond + 1;
    return true;
}

static bool read_example(struct Reader *r, const char *text, size_t bytes, uint32_t line, const char *path) {
    char where[512];
    size_t bad;
    snprintf(where, sizeof where, "%.480s:%u", path, line);
    const char *zero = memchr(text, 0, bytes);
    if (zero)
        return fail("%s: a 0 byte at column %zu", where, (size_t)(zero - text) + 1);
    if (!utf8_valid(text, bytes, &bad))
        return fail("%s: not UTF-8 at column %zu (byte 0x%02x)", where, bad + 1, (uint8_t)text[bad]);
    json_t *object = json_parse(text, bytes, where);
    if (!object)
        return false;
    r->list.n = 0;
    bool ok = r->options->pairs ? read_pair(r, object, line, where)
                                : read_object(r, object, where) && add_example(r, line, where);
    json_decref(object);
    return ok;
}

static bool read_source(struct Reader *r, struct Source *s) {
    const char *text = NULL;
    size_t bytes = 0;
    uint32_t line = 0;
    bool any = false;
    source_begin(s);
    while (s->array ? next_object(s, &text, &bytes, &line) : next_line(s, &text, &bytes, &line)) {
        if (!text)
            return any || fail("%s: no example in it", s->path);
        any = true;
        if (read_example(r, text, bytes, line, s->path))
            continue;
        if (!r->options->skip_bad)
            return false;
        r->d->n_skipped++;
    }
    return false;
}

// ---- The whole ----

static void count(struct Dataset *d) {
    d->n_tokens = d->n_labels = d->longest = 0;
    d->hash = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct Example *e = &d->examples[i];
        d->n_tokens += e->n;
        d->n_labels += e->n_labels;
        d->longest = (uint32_t)max_u64(d->longest, e->n);
        d->hash = hash_bytes(e->ids, e->n * sizeof *e->ids, d->hash);
        d->hash = hash_bytes(e->labels, e->n * sizeof *e->labels, d->hash);
    }
}

static bool finish(struct Reader *r, bool ok) {
    struct Dataset *d = r->d;
    token_list_free(&r->list);
    free(r->messages);
    if (ok && d->n == 0)
        ok = d->n_beyond ? fail("%s: nothing to learn: no answer begins within the first %u tokens", d->paths[0],
                                r->options->max_tokens)
                         : fail("%s: no example could be used", d->paths[0]);
    if (ok)
        count(d);
    else
        dataset_free(d);
    return ok;
}

static struct Reader begin(struct Dataset *d, const char *const *paths, size_t n_paths,
                           const struct Tokenizer *tokenizer, const struct Template *chat,
                           const struct DataOptions *options) {
    *d = (struct Dataset){
        .pairs = options->pairs, .n_paths = n_paths, .paths = xcalloc(n_paths ? n_paths : 1, sizeof *d->paths)};
    for (size_t i = 0; i < n_paths; i++)
        d->paths[i] = xstrdup(paths[i]);
    return (struct Reader){.d = d, .tokenizer = tokenizer, .chat = chat, .options = options};
}

bool dataset_load(struct Dataset *d, const char *const *paths, size_t n_paths, const struct Tokenizer *tokenizer,
                  const struct Template *chat, const struct DataOptions *options) {
    struct Reader r = begin(d, paths, n_paths, tokenizer, chat, options);
    bool ok = n_paths > 0 || fail("no data file is named");
    for (; ok && r.file < n_paths; r.file++) {
        struct Source source = {.path = paths[r.file], .file = fopen(paths[r.file], "rb")};
        if (!source.file) {
            ok = fail("%s: cannot be opened: %s", paths[r.file], strerror(errno));
            break;
        }
        ok = read_source(&r, &source);
        fclose(source.file);
        free(source.buffer);
    }
    return finish(&r, ok);
}

bool dataset_load_memory(struct Dataset *d, const char *text, size_t bytes, const char *path,
                         const struct Tokenizer *tokenizer, const struct Template *chat,
                         const struct DataOptions *options) {
    struct Reader r = begin(d, &path, 1, tokenizer, chat, options);
    struct Source source = {.path = path, .memory = text, .memory_left = bytes};
    bool ok = read_source(&r, &source);
    free(source.buffer);
    return finish(&r, ok);
}

void dataset_free(struct Dataset *d) {
    for (size_t i = 0; i < d->n; i++) {
        free(d->examples[i].ids);
        free(d->examples[i].labels);
    }
    for (size_t i = 0; i < d->n_paths; i++)
        free(d->paths[i]);
    free(d->examples);
    free(d->paths);
    *d = (struct Dataset){0};
}

// ---- Order ----

static const uint64_t STREAM_ORDER = 0xda7a000000000000u, STREAM_SPLIT = 0x5b117000000000u;

// Fisher and Yates; the modulo by multiplication is off by less than 2^-32.
static void permute(uint32_t *order, size_t n, uint64_t seed, uint64_t stream) {
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n; i-- > 1;) {
        uint32_t words[4];
        philox(seed, stream, i, words);
        uint64_t high = (uint64_t)words[0] * (i + 1), low = (uint64_t)words[1] * (i + 1);
        size_t j = (size_t)((high + (low >> 32)) >> 32);
        uint32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

void data_permute(uint32_t *order, size_t n, uint64_t seed, uint64_t epoch) {
    permute(order, n, seed, STREAM_ORDER + epoch);
}

bool dataset_split(struct Dataset *d, double fraction, uint64_t seed, struct Dataset *held_out) {
    size_t groups = dataset_groups(d), take = (size_t)(fraction * (double)groups + 0.5);
    if (!(fraction > 0 && fraction < 1) || groups < 2)
        return fail("a held-out part of %g of %zu examples cannot be made", fraction, groups);
    take = take == 0 ? 1 : take == groups ? groups - 1 : take;
    uint32_t *order = xmalloc(groups * sizeof *order);
    bool *out = xcalloc(groups, sizeof *out);
    permute(order, groups, seed, STREAM_SPLIT);
    for (size_t i = 0; i < take; i++)
        out[order[i]] = true;
    *held_out =
        (struct Dataset){.pairs = d->pairs, .n_paths = d->n_paths, .paths = xcalloc(d->n_paths, sizeof *d->paths)};
    for (size_t i = 0; i < d->n_paths; i++)
        held_out->paths[i] = xstrdup(d->paths[i]);
    held_out->examples = xmalloc((d->pairs ? 2 * take : take) * sizeof *held_out->examples);
    size_t kept = 0;
    for (size_t i = 0; i < d->n; i++) {
        if (out[d->pairs ? i / 2 : i])
            held_out->examples[held_out->n++] = d->examples[i];
        else
            d->examples[kept++] = d->examples[i];
    }
    d->n = kept;
    free(order);
    free(out);
    count(d);
    count(held_out);
    return true;
}

void batcher_init(struct Batcher *b, const struct Dataset *data, uint64_t seed) {
    *b = (struct Batcher){.data = data, .seed = seed, .order_epoch = UINT64_MAX};
    b->order = xmalloc(data->n * sizeof *b->order);
    b->batch = xmalloc(data->n * sizeof *b->batch);
}

void batcher_free(struct Batcher *b) {
    free(b->order);
    free(b->batch);
    *b = (struct Batcher){0};
}

const struct Example *const *batcher_next(struct Batcher *b, struct DataCursor *cursor, size_t size, size_t *n) {
    size_t groups = dataset_groups(b->data), group = b->data->pairs ? 2 : 1;
    if (cursor->next >= groups) {
        cursor->next = 0;
        cursor->epoch++;
    }
    if (b->order_epoch != cursor->epoch) {
        data_permute(b->order, groups, b->seed, cursor->epoch);
        b->order_epoch = cursor->epoch;
    }
    size_t taken = min_u64(size, groups - cursor->next);
    *n = taken * group;
    for (size_t i = 0; i < *n; i++)
        b->batch[i] = &b->data->examples[b->order[cursor->next + i / group] * group + i % group];
    cursor->next += taken;
    if (cursor->next == groups) {
        cursor->next = 0;
        cursor->epoch++;
    }
    return b->batch;
}

uint64_t batcher_steps_per_epoch(const struct Dataset *d, size_t size) { return div_up(dataset_groups(d), size); }
