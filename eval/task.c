// See task.h. A file is lines "key: value", comments, and sections "[name]" whose text reaches to the next section.
#include "eval/task.h"
#include "model/stops.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum KeyKind { KEY_TEXT, KEY_NUMBER, KEY_LINES, KEY_NAMED, KEY_FORM, KEY_WORD, KEY_FILTER, KEY_EXTRACT };
struct Key {
    const char *name;
    enum KeyKind kind;
    size_t offset;
    const char *words; // of KEY_WORD, by bars, in the order of the enum
};
#define KEY(name, kind, member)                                                                                        \
    { name, kind, offsetof(struct Task, member), NULL }
static const struct Key KEYS[] = {
    KEY("title", KEY_TEXT, title),
    KEY("source", KEY_TEXT, source),
    {"kind", KEY_WORD, offsetof(struct Task, kind), "choice|cloze|generate|code"},
    {"metric", KEY_WORD, offsetof(struct Task, metric), "acc|acc_norm|em|pass@1"},
    KEY("shots", KEY_NUMBER, shots),
    KEY("max_tokens", KEY_NUMBER, max_tokens),
    KEY("subjects", KEY_NUMBER, subjects),
    KEY("data", KEY_TEXT, data),
    KEY("format", KEY_FORM, form),
    KEY("columns", KEY_TEXT, columns),
    KEY("records", KEY_TEXT, at),
    KEY("each", KEY_TEXT, each),
    KEY("labels_data", KEY_TEXT, labels_data),
    KEY("where", KEY_FILTER, where),
    KEY("shot_data", KEY_TEXT, shot_data),
    KEY("shot_file", KEY_TEXT, shot_file),
    KEY("shot_where", KEY_FILTER, shot_where),
    KEY("set", KEY_NAMED, set),
    KEY("replace", KEY_NAMED, replace),
    KEY("choices", KEY_TEXT, choices),
    KEY("choice", KEY_LINES, choice),
    KEY("labels", KEY_TEXT, labels),
    KEY("gold", KEY_TEXT, gold),
    KEY("golds", KEY_TEXT, golds),
    KEY("entry", KEY_TEXT, entry),
    KEY("gold_split", KEY_TEXT, gold_split),
    {"gold_is", KEY_WORD, offsetof(struct Task, gold_is), "text|index|number|label"},
    KEY("stop", KEY_LINES, stop),
    KEY("extract", KEY_EXTRACT, extract),
    KEY("gold_extract", KEY_EXTRACT, gold_extract),
    {"normalise", KEY_WORD, offsetof(struct Task, normal), "strip|answer|qa|drop|number|math"},
};
static const struct Key SECTIONS[] = {
    KEY("intro", KEY_TEXT, intro),   KEY("query", KEY_TEXT, query),         KEY("chat", KEY_TEXT, chat),
    KEY("answer", KEY_TEXT, answer), KEY("choice", KEY_TEXT, choice_text),  KEY("between", KEY_TEXT, between),
    KEY("shot", KEY_LINES, shot),    KEY("program", KEY_TEXT, program),     KEY("checks", KEY_TEXT, checks),
    KEY("setup", KEY_TEXT, setup),   KEY("reference", KEY_TEXT, reference),
};
enum { N_KEYS = sizeof KEYS / sizeof *KEYS, N_SECTIONS = sizeof SECTIONS / sizeof *SECTIONS };

struct Reader {
    struct Task *t;
    const char *path;
    uint32_t line;
    const char *at, *end;
};

static bool wrong(const struct Reader *r, const char *what, const char *value) {
    return fail("%s:%u: %s%s", r->path, r->line, what, value);
}

static const struct Key *find(const struct Key *keys, int n, const char *name, size_t bytes) {
    for (int i = 0; i < n; i++)
        if (strlen(keys[i].name) == bytes && memcmp(keys[i].name, name, bytes) == 0)
            return &keys[i];
    return NULL;
}

static void lines_add(struct TaskLines *lines, char *name, char *text, uint32_t line) {
    lines->list = xrealloc(lines->list, (lines->n + 1) * sizeof *lines->list);
    lines->list[lines->n++] = (struct TaskLine){name, text, line};
}

static bool read_number(const struct Reader *r, const char *value, uint32_t *to) {
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || n > 1000000)
        return wrong(r, "a number from 0 to 1000000 is expected, not ", value);
    *to = (uint32_t)n;
    return true;
}

// All enums of the tables are as wide as an int.
static bool read_word(const struct Reader *r, const struct Key *key, const char *value) {
    size_t bytes = strlen(value);
    int n = 0;
    for (const char *word = key->words; word; n++) {
        const char *bar = strchr(word, '|');
        size_t length = bar ? (size_t)(bar - word) : strlen(word);
        if (length == bytes && memcmp(word, value, bytes) == 0) {
            memcpy((char *)r->t + key->offset, &n, sizeof n);
            return true;
        }
        word = bar ? bar + 1 : NULL;
    }
    return fail("%s:%u: %s is one of %s, not %s", r->path, r->line, key->name, key->words, value);
}

// "FIELD = TEXT" or "FIELD in 11..510".
static bool read_filter(const struct Reader *r, const char *value, struct TaskFilter *to) {
    const char *equals = strstr(value, " = "), *in = strstr(value, " in ");
    int used = 0;
    if (!to->field && equals) {
        to->text = xstrdup(equals + 3);
    } else if (to->field || !in || sscanf(in + 4, "%lld..%lld%n", &to->first, &to->last, &used) != 2 || in[4 + used]) {
        return wrong(r, "FIELD = TEXT or FIELD in FIRST..LAST is expected, once, not ", value);
    }
    to->field = xsprintf("%.*s", (int)((equals ? equals : in) - value), value);
    return true;
}

static bool read_value(const struct Reader *r, const struct Key *key, const char *name, const char *value) {
    void *member = (char *)r->t + key->offset;
    if (!*value)
        return wrong(r, "nothing stands behind the key ", key->name);
    switch (key->kind) {
    case KEY_TEXT:
        if (*(char **)member)
            return wrong(r, "a second ", key->name);
        *(char **)member = xstrdup(value);
        return true;
    case KEY_NUMBER:
        return read_number(r, value, member);
    case KEY_LINES:
        lines_add(member, NULL, xstrdup(value), r->line);
        return true;
    case KEY_NAMED:
        if (!*name)
            return wrong(r, "the name of a field is expected behind ", key->name);
        lines_add(member, xstrdup(name), xstrdup(value), r->line);
        return true;
    case KEY_FORM:
        return record_kind_find(value, member) ||
               wrong(r, "format is one of jsonl, json, csv, tsv, lines, not ", value);
    case KEY_WORD:
        return read_word(r, key, value);
    case KEY_FILTER:
        return read_filter(r, value, member);
    case KEY_EXTRACT: {
        char *where = xsprintf("%s:%u", r->path, r->line);
        bool ok = extraction_add(member, value, where);
        free(where);
        return ok;
    }
    }
    return false;
}

// "key: value", or "set name: value".
static bool read_line(struct Reader *r, const char *line) {
    const char *colon = strchr(line, ':'), *blank = strchr(line, ' ');
    if (!colon)
        return wrong(r, "\"key: value\", \"[section]\" or \"# comment\" is expected, not ", line);
    size_t key_bytes = blank && blank < colon ? (size_t)(blank - line) : (size_t)(colon - line);
    const struct Key *key = find(KEYS, N_KEYS, line, key_bytes);
    if (!key || (blank && blank < colon && key->kind != KEY_NAMED))
        return fail("%s:%u: there is no key \"%.*s\"", r->path, r->line, (int)(colon - line), line);
    char *name = blank && blank < colon ? text_strip(blank, (size_t)(colon - blank)) : xstrdup("");
    char *value = text_strip(colon + 1, strlen(colon + 1));
    bool ok = read_value(r, key, name, value);
    free(name);
    free(value);
    return ok;
}

static char *next_line(struct Reader *r) {
    if (r->at >= r->end)
        return NULL;
    const char *newline = memchr(r->at, '\n', (size_t)(r->end - r->at)), *stop = newline ? newline : r->end;
    size_t bytes = (size_t)(stop - r->at) - (stop > r->at && stop[-1] == '\r');
    char *line = xsprintf("%.*s", (int)bytes, r->at);
    r->at = newline ? newline + 1 : r->end;
    r->line++;
    return line;
}

// Up to the next section's line or the end, without the empty lines at its end.
static bool read_section(struct Reader *r, const char *head) {
    const char *close = strchr(head, ']');
    const struct Key *key =
        close && !close[1] ? find(SECTIONS, N_SECTIONS, head + 1, (size_t)(close - head - 1)) : NULL;
    if (!key)
        return wrong(r, "there is no section ", head);
    uint32_t first = r->line;
    struct Text text = {0};
    while (r->at < r->end && *r->at != '[') {
        char *line = next_line(r);
        text_add_string(&text, line);
        text_add(&text, "\n", 1);
        free(line);
    }
    while (text.bytes && text.text[text.bytes - 1] == '\n')
        text.text[--text.bytes] = 0;
    char *value = text_take(&text), **member = (char **)((char *)r->t + key->offset);
    if (key->kind == KEY_LINES) {
        lines_add((struct TaskLines *)member, NULL, value, first);
        return true;
    }
    bool again = *member != NULL;
    if (again)
        free(value);
    else
        *member = value;
    return !again || fail("%s:%u: a second section %s", r->path, first, head);
}

// "\n" and "\s" in a stop string.
static bool unescape_stops(struct Task *t) {
    if (t->stop.n > STOPS_MAX)
        return fail("%s:%u: more than %d stop strings", t->path, t->stop.list[STOPS_MAX].line, STOPS_MAX);
    bool ok = true;
    for (uint32_t i = 0; ok && i < t->stop.n; i++) {
        struct Text text = {0};
        struct Record none = {NULL, t->path};
        ok = field_fill(&text, t->stop.list[i].text, &none, NULL);
        free(t->stop.list[i].text);
        t->stop.list[i].text = text_take(&text);
    }
    return ok;
}

static bool check(const struct Reader *r) {
    const struct Task *t = r->t;
    bool chooses = t->kind == TASK_CHOICE || t->kind == TASK_CLOZE;
    const char *missing = !t->title                             ? "title"
                          : !t->source                          ? "source"
                          : !t->data                            ? "data"
                          : !t->query                           ? "[query]"
                          : t->kind == TASK_CODE && !t->checks  ? "[checks]"
                          : t->kind == TASK_CODE && !t->program ? "[program]"
                          : t->kind == TASK_CODE                ? NULL
                          : chooses && !t->gold                 ? "gold"
                          : !t->gold && !t->golds               ? "gold or golds"
                                                                : NULL;
    if (missing)
        return fail("%s: the task has no %s", r->path, missing);
    if (chooses && !t->choices == !t->choice.n)
        return fail("%s: the task has neither \"choices\" nor \"choice\", or both", r->path);
    if (chooses != (t->metric == METRIC_ACC || t->metric == METRIC_ACC_NORM) ||
        (t->kind == TASK_CODE) != (t->metric == METRIC_PASS))
        return fail("%s: this metric does not go with this kind of task", r->path);
    if (t->kind == TASK_CLOZE && !t->choice_text)
        return fail("%s: a cloze task needs the section [choice]: what stands behind the choice", r->path);
    return true;
}

bool task_parse(struct Task *t, const char *text, size_t bytes, const char *name, const char *path) {
    *t = (struct Task){.name = xstrdup(name), .path = xstrdup(path), .max_tokens = 256};
    struct Reader r = {t, path, 0, text, text + bytes};
    struct Sha256 sha;
    sha256_begin(&sha);
    sha256_add(&sha, text, bytes);
    sha256_end(&sha, t->sha256);
    bool ok = !memchr(text, 0, bytes) || fail("%s: is no text", path);
    for (char *line; ok && (line = next_line(&r)); free(line)) {
        char *bare = text_strip(line, strlen(line));
        if (*bare == '[')
            ok = read_section(&r, bare);
        else if (*bare && *bare != '#')
            ok = read_line(&r, bare);
        free(bare);
    }
    ok = ok && check(&r) && unescape_stops(t);
    if (!ok)
        task_free(t);
    return ok;
}

static void lines_free(struct TaskLines *lines) {
    for (uint32_t i = 0; i < lines->n; i++) {
        free(lines->list[i].name);
        free(lines->list[i].text);
    }
    free(lines->list);
}

static void keys_free(struct Task *t, const struct Key *keys, int n) {
    for (int i = 0; i < n; i++) {
        void *member = (char *)t + keys[i].offset;
        if (keys[i].kind == KEY_TEXT)
            free(*(char **)member);
        else if (keys[i].kind == KEY_LINES || keys[i].kind == KEY_NAMED)
            lines_free(member);
        else if (keys[i].kind == KEY_EXTRACT)
            extraction_free(member);
        else if (keys[i].kind == KEY_FILTER)
            free(((struct TaskFilter *)member)->field), free(((struct TaskFilter *)member)->text);
    }
}

void task_free(struct Task *t) {
    keys_free(t, KEYS, N_KEYS);
    keys_free(t, SECTIONS, N_SECTIONS);
    free(t->name);
    free(t->path);
    *t = (struct Task){0};
}
