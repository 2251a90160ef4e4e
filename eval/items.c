// See items.h.
#include "eval/items.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_LETTERS = 26 };
static const char SELF[] = "self";

struct Builder {
    const struct Task *t;
    const struct AskOptions *o;
    struct Asked *a;
    struct Pattern **replace; // of the task's lines
};

// ---- Records with the fields that the task adds

// "/REGEX/TEXT/"
static bool open_replacements(struct Builder *b) {
    b->replace = xcalloc(b->t->replace.n + 1, sizeof *b->replace);
    for (uint32_t i = 0; i < b->t->replace.n; i++) {
        const struct TaskLine *line = &b->t->replace.list[i];
        char *where = xsprintf("%s:%u", b->t->path, line->line), *middle = strchr(line->text + 1, '/');
        size_t bytes = strlen(line->text);
        bool ok = *line->text == '/' && middle && bytes > 2 && line->text[bytes - 1] == '/' &&
                  middle != line->text + bytes - 1;
        char *regex = ok ? xsprintf("%.*s", (int)(middle - line->text - 1), line->text + 1) : NULL;
        b->replace[i] = ok ? pattern_open(regex, where) : NULL;
        if (!ok)
            fail("%s: replace FIELD: /REGEX/TEXT/ is expected", where);
        free(regex);
        free(where);
        if (!b->replace[i])
            return false;
    }
    return true;
}

static char *replaced(const struct Builder *b, const char *field, const char *text) {
    char *out = xstrdup(text);
    for (uint32_t i = 0; i < b->t->replace.n; i++) {
        const struct TaskLine *line = &b->t->replace.list[i];
        if (strcmp(line->name, field) != 0)
            continue;
        const char *with = strchr(line->text + 1, '/') + 1;
        char *with_text = xsprintf("%.*s", (int)(strlen(with) - 1), with);
        char *next = pattern_replace(b->replace[i], out, with_text);
        free(with_text);
        free(out);
        out = next;
    }
    return out;
}

static bool set_fields(const struct Builder *b, struct Record *r, const char *subject) {
    const struct FieldExtra extra[] = {{"subject", subject}, {NULL, NULL}};
    json_t *own = json_copy(r->value); // parts of a record share their lists
    json_decref(r->value);
    r->value = own;
    for (uint32_t i = 0; i < b->t->set.n; i++) {
        const struct TaskLine *line = &b->t->set.list[i];
        struct Text text = {0};
        bool ok = field_fill(&text, line->text, r, extra);
        char *filled = text_take(&text), *value = replaced(b, line->name, filled);
        if (ok)
            json_object_set_new(own, line->name, json_string(value));
        free(filled);
        free(value);
        if (!ok)
            return false;
    }
    return true;
}

static bool passes(const struct TaskFilter *f, const struct Record *r, bool *in) {
    *in = true;
    if (!f->field)
        return true;
    struct Text text = {0};
    char *place = xsprintf("{%s}", f->field), *end;
    bool ok = field_fill(&text, place, r, NULL);
    char *value = text_take(&text);
    long long number = strtoll(value, &end, 10);
    *in = f->text ? strcmp(value, f->text) == 0 : *value && !*end && number >= f->first && number <= f->last;
    free(place);
    free(value);
    return ok;
}

static bool add_labels(const struct Builder *b, struct Records *r) {
    struct DataFiles files;
    struct Records labels = {0};
    struct RecordForm lines = {.kind = RECORDS_LINES};
    if (!datafiles_read(&files, b->o->dir, b->t->labels_data, b->t->name))
        return false;
    bool ok = records_read(&labels, &files.list[0], &lines);
    if (ok && labels.n != r->n)
        ok = fail("%s: has %zu labels, %s has %zu records", files.list[0].name, labels.n, b->t->data, r->n);
    for (size_t i = 0; ok && i < r->n; i++)
        json_object_set(r->list[i].value, "label", json_object_get(labels.list[i].value, "line"));
    records_free(&labels);
    datafiles_free(&files);
    return ok;
}

// The records of one file that the filter lets through.
static bool read_records(const struct Builder *b, const struct DataFile *f, const struct TaskFilter *filter,
                         const char *subject, bool labels, struct Records *out) {
    struct RecordForm form = {b->t->form, b->t->columns, b->t->at, b->t->each};
    struct Records all = {0};
    bool ok = records_read(&all, f, &form) && (!labels || add_labels(b, &all));
    for (size_t i = 0; i < all.n; i++) {
        bool in = false;
        ok = ok && passes(filter, &all.list[i], &in) && (!in || set_fields(b, &all.list[i], subject));
        if (!ok || !in) {
            json_decref(all.list[i].value);
            free(all.list[i].where);
            continue;
        }
        if ((out->n & (out->n - 1)) == 0)
            out->list = xrealloc(out->list, (out->n ? 2 * out->n : 1) * sizeof *out->list);
        out->list[out->n++] = all.list[i];
    }
    free(all.list);
    return ok;
}

// ---- Items

static bool fill(const char *text, const struct Record *r, const struct FieldExtra *extra, char **out) {
    struct Text t = {0};
    bool ok = field_fill(&t, text, r, extra);
    *out = text_take(&t);
    return ok;
}

static bool read_choices(const struct Builder *b, struct Item *item) {
    const struct Task *t = b->t;
    if (t->choices) {
        if (!field_list(&item->record, t->choices, &item->choices, &item->n_choices))
            return false;
    } else {
        item->choices = xcalloc(t->choice.n, sizeof *item->choices);
        for (; item->n_choices < t->choice.n; item->n_choices++)
            if (!fill(t->choice.list[item->n_choices].text, &item->record, NULL, &item->choices[item->n_choices])) {
                item->n_choices++;
                return false;
            }
    }
    for (uint32_t i = 0; i < item->n_choices; i++) {
        char *text = replaced(b, "choice", item->choices[i]);
        free(item->choices[i]);
        item->choices[i] = text;
    }
    return true;
}

static bool label_index(const struct Task *t, struct Item *item, const char *gold, uint32_t *index) {
    char **labels;
    uint32_t n;
    if (!t->labels) {
        *index = gold[0] >= 'A' && gold[0] <= 'Z' && !gold[1] ? (uint32_t)(gold[0] - 'A') : MAX_LETTERS;
        return true;
    }
    if (!field_list(&item->record, t->labels, &labels, &n))
        return false;
    for (*index = 0; *index < n && strcmp(labels[*index], gold) != 0;)
        ++*index;
    field_list_free(labels, n);
    return true;
}

static bool find_gold(const struct Task *t, struct Item *item, const char *gold) {
    uint32_t index = UINT32_MAX;
    char *end;
    unsigned long number = strtoul(gold, &end, 10);
    bool is_number = *gold >= '0' && *gold <= '9' && !*end;
    if (t->gold_is == GOLD_LABEL && !label_index(t, item, gold, &index))
        return false;
    if (t->gold_is == GOLD_TEXT)
        for (index = 0; index < item->n_choices && strcmp(item->choices[index], gold) != 0;)
            index++;
    else if (t->gold_is != GOLD_LABEL && is_number)
        index = (uint32_t)min_u64(number - (t->gold_is == GOLD_NUMBER), UINT32_MAX);
    if (index >= item->n_choices)
        return fail("%s: the answer \"%s\" is none of the %u choices", item->record.where, gold, item->n_choices);
    item->gold = index;
    return true;
}

static bool build_choices(const struct Builder *b, struct Item *item, const char *subject) {
    const struct Task *t = b->t;
    char *gold = NULL;
    bool ok = read_choices(b, item) && fill(t->gold, &item->record, NULL, &gold) && find_gold(t, item, gold);
    free(gold);
    if (!ok)
        return false;
    item->contexts = t->kind == TASK_CLOZE ? xcalloc(item->n_choices, sizeof *item->contexts) : NULL;
    item->continuations = xcalloc(item->n_choices, sizeof *item->continuations);
    for (uint32_t i = 0; ok && i < item->n_choices; i++) {
        char letter[2] = {(char)('A' + i % MAX_LETTERS), 0};
        const struct FieldExtra extra[] = {
            {"subject", subject}, {"choice", item->choices[i]}, {"letter", letter}, {NULL, NULL}};
        ok = fill(t->choice_text ? t->choice_text : " {choice}", &item->record, extra, &item->continuations[i]) &&
             (!item->contexts || fill(t->query, &item->record, extra, &item->contexts[i]));
        if (ok && b->o->chat && item->continuations[i][strspn(item->continuations[i], " \n")] == 0)
            ok = fail("%s: choice %u is empty: in a chat there is nothing to say for it", item->record.where, i + 1);
    }
    return ok;
}

static void accept(const struct Task *t, struct Item *item, const char *text) {
    char *answer = t->gold_extract.n ? extraction_run(&t->gold_extract, text) : xstrdup(text);
    if (answer) {
        item->accepted = xrealloc(item->accepted, (item->n_accepted + 1) * sizeof *item->accepted);
        item->accepted[item->n_accepted++] = answer;
    }
}

static bool build_accepted(const struct Task *t, struct Item *item) {
    char **golds, *gold;
    uint32_t n;
    if (t->golds) {
        if (!field_list(&item->record, t->golds, &golds, &n))
            return false;
        for (uint32_t i = 0; i < n; i++)
            accept(t, item, golds[i]);
        field_list_free(golds, n);
    } else {
        if (!fill(t->gold, &item->record, NULL, &gold))
            return false;
        for (char *at = gold; at;) {
            char *next = t->gold_split ? strstr(at, t->gold_split) : NULL;
            if (next)
                *next = 0;
            accept(t, item, at);
            at = next ? next + strlen(t->gold_split) : NULL;
        }
        free(gold);
    }
    return item->n_accepted > 0 ||
           fail("%s: the record's answer holds none of the form that is expected", item->record.where);
}

static bool build_checks(const struct Task *t, struct Item *item) {
    const struct Record *r = &item->record;
    return fill(t->checks, r, NULL, &item->checks) && (!t->setup || fill(t->setup, r, NULL, &item->setup)) &&
           (!t->entry || fill(t->entry, r, NULL, &item->entry)) &&
           (!t->reference || fill(t->reference, r, NULL, &item->reference));
}

// Without the group's fixed text in front. Takes the record over.
static bool build(const struct Builder *b, struct Item *item, struct Record *record, const char *subject) {
    const struct Task *t = b->t;
    const struct FieldExtra extra[] = {{"subject", subject}, {NULL, NULL}};
    *item = (struct Item){.record = *record};
    *record = (struct Record){0};
    if (t->kind == TASK_CLOZE)
        return build_choices(b, item, subject);
    if (!fill(b->o->chat && t->chat ? t->chat : t->query, &item->record, extra, &item->prompt))
        return false;
    if (t->kind == TASK_CHOICE)
        return build_choices(b, item, subject);
    return t->kind == TASK_CODE ? build_checks(t, item) : build_accepted(t, item);
}

static void item_free(struct Item *item) {
    json_decref(item->record.value);
    free(item->record.where);
    free(item->prompt);
    free(item->checks);
    free(item->setup);
    free(item->entry);
    free(item->reference);
    field_list_free(item->choices, item->choices ? item->n_choices : 0);
    field_list_free(item->contexts, item->contexts ? item->n_choices : 0);
    field_list_free(item->continuations, item->continuations ? item->n_choices : 0);
    field_list_free(item->accepted, item->n_accepted);
}

// ---- Shots

static const char *between(const struct Task *t) { return t->between ? t->between : "\n\n"; }

static bool shot_text(const struct Builder *b, struct Record *record, const char *subject, struct Text *out) {
    const struct Task *t = b->t;
    struct Item item;
    bool ok = build(b, &item, record, subject);
    if (ok && (item.contexts || item.prompt)) {
        text_add_string(out, item.contexts ? item.contexts[item.gold] : item.prompt);
        const char *gold = item.continuations ? item.choices[item.gold] : item.accepted ? item.accepted[0] : "";
        const struct FieldExtra extra[] = {{"subject", subject}, {"gold", gold}, {NULL, NULL}};
        if (t->answer)
            ok = field_fill(out, t->answer, &item.record, extra);
        else if (item.continuations)
            text_add_string(out, item.continuations[item.gold]);
        else
            text_add_string(out, " "), text_add_string(out, gold);
        text_add_string(out, between(t));
    }
    item_free(&item);
    return ok;
}

static bool too_few(const struct Builder *b, const char *from, size_t n) {
    return fail("%s: %u shots are wanted, %s has %zu", b->t->name, b->a->shots, from, n);
}

static bool shots_written(const struct Builder *b, struct Text *out) {
    if (b->a->shots > b->t->shot.n)
        return too_few(b, b->t->path, b->t->shot.n);
    for (uint32_t i = 0; i < b->a->shots; i++) {
        struct Record none = {json_object(), xsprintf("%s:%u", b->t->path, b->t->shot.list[i].line)};
        bool ok = field_fill(out, b->t->shot.list[i].text, &none, NULL);
        json_decref(none.value);
        free(none.where);
        if (!ok)
            return false;
        text_add_string(out, between(b->t));
    }
    return true;
}

static char *with_subject(const char *pattern, const char *subject) {
    const char *place = strstr(pattern, "{subject}");
    return place ? xsprintf("%.*s%s%s", (int)(place - pattern), pattern, subject, place + 9) : xstrdup(pattern);
}

// A text as BIG-Bench Hard has it: behind a line of hyphens an introduction, then shots that each begin with "Q: " behind an empty line.
static bool shots_of_file(const struct Builder *b, const char *subject, struct Text *out) {
    struct DataFiles files;
    char *pattern = with_subject(b->t->shot_file, subject);
    bool ok = datafiles_read(&files, b->o->dir, pattern, b->t->name);
    free(pattern);
    if (!ok)
        return false;
    const char *rule = strstr(files.list[0].data, "-----\n"), *begin = rule ? rule + 6 : files.list[0].data;
    char *text = text_strip(begin, strlen(begin)), *at = text;
    size_t n = 0;
    for (; at && n <= b->a->shots; n++) {
        char *next = strstr(at, "\n\nQ: ");
        text_add(out, at, next ? (size_t)(next - at) : strlen(at));
        text_add_string(out, between(b->t));
        at = next ? next + 2 : NULL;
    }
    if (n <= b->a->shots)
        ok = too_few(b, files.list[0].name, n ? n - 1 : 0);
    free(text);
    datafiles_free(&files);
    return ok;
}

static bool shots_of_records(const struct Builder *b, struct Records *r, const char *from, const char *subject,
                             struct Text *out) {
    if (r->n < b->a->shots)
        return too_few(b, from, r->n);
    for (uint32_t i = 0; i < b->a->shots; i++)
        if (!shot_text(b, &r->list[i], subject, out))
            return false;
    return true;
}

static bool shots_of_data(const struct Builder *b, const char *subject, struct Text *out) {
    struct DataFiles files;
    struct Records r = {0};
    char *pattern = with_subject(b->t->shot_data, subject);
    bool ok = datafiles_read(&files, b->o->dir, pattern, b->t->name);
    for (size_t i = 0; ok && i < files.n && r.n < b->a->shots; i++)
        ok = read_records(b, &files.list[i], &b->t->shot_where, subject, false, &r);
    ok = ok && shots_of_records(b, &r, pattern, subject, out);
    records_free(&r);
    if (files.list)
        datafiles_free(&files);
    free(pattern);
    return ok;
}

// *used: so many first records of the group are shots and not asked.
static bool read_fixed(const struct Builder *b, struct Records *r, const char *subject, char **fixed, uint32_t *used) {
    const struct Task *t = b->t;
    const struct FieldExtra extra[] = {{"subject", subject}, {NULL, NULL}};
    struct Text out = {0};
    struct Record none = {json_object(), xstrdup(t->path)};
    bool ok = !t->intro || field_fill(&out, t->intro, &none, extra);
    json_decref(none.value);
    free(none.where);
    if (t->intro)
        text_add_string(&out, between(t));
    bool self = t->shot_data && strcmp(t->shot_data, SELF) == 0;
    *used = 0;
    if (b->a->shots && t->shot.n)
        ok = ok && shots_written(b, &out);
    else if (t->shot_file)
        ok = ok && shots_of_file(b, subject, &out);
    else if (b->a->shots && self)
        ok = ok && shots_of_records(b, r, t->data, subject, &out);
    else if (b->a->shots && t->shot_data)
        ok = ok && shots_of_data(b, subject, &out);
    else if (b->a->shots)
        ok = fail("%s: %u shots are wanted, the task does not say where to take them from", t->name, b->a->shots);
    if (self && !t->shot.n && !t->shot_file)
        *used = b->a->shots;
    *fixed = text_take(&out);
    return ok;
}

// ---- All of a task

static bool build_group(const struct Builder *b, struct Group *g, struct Records *r, uint32_t first, uint32_t n) {
    g->items = xcalloc((size_t)n + 1, sizeof *g->items);
    for (uint32_t i = 0; i < n; i++) {
        g->n = i + 1;
        struct Item *item = &g->items[i];
        if (!build(b, item, &r->list[first + i], g->subject))
            return false;
        char **texts = item->contexts ? item->contexts : &item->prompt;
        for (uint32_t k = 0; k < (item->contexts ? item->n_choices : 1); k++) {
            char *whole = xsprintf("%s%s", g->fixed, texts[k]);
            free(texts[k]);
            texts[k] = whole;
        }
    }
    b->a->n_items += n;
    return true;
}

// How many items each group gives: one from each in turn until the limit is reached.
static void share(uint32_t *take, const uint32_t *have, uint32_t n, uint32_t limit) {
    uint32_t left = limit ? limit : UINT32_MAX;
    for (bool any = true; any && left;) {
        any = false;
        for (uint32_t g = 0; g < n && left; g++)
            if (take[g] < have[g])
                take[g]++, left--, any = true;
    }
}

static bool same_subject(const struct Task *t, const struct Group *g, const struct DataFile *f) {
    return !t->subjects || strcmp(g->subject, f->star) == 0;
}

static bool read_groups(const struct Builder *b, const struct DataFiles *files, struct Records *records) {
    struct Asked *a = b->a;
    for (size_t i = 0; i < files->n; i++) {
        const struct DataFile *f = &files->list[i];
        if (a->n_groups == 0 || !same_subject(b->t, &a->groups[a->n_groups - 1], f)) {
            a->groups = xrealloc(a->groups, (a->n_groups + 1) * sizeof *a->groups);
            a->groups[a->n_groups++] = (struct Group){.subject = xstrdup(b->t->subjects ? f->star : "")};
        }
        if (!read_records(b, f, &b->t->where, a->groups[a->n_groups - 1].subject, b->t->labels_data && i == 0,
                          &records[a->n_groups - 1]))
            return false;
    }
    return true;
}

static bool build_all(const struct Builder *b, struct Records *records) {
    struct Asked *a = b->a;
    uint32_t *used = xcalloc(a->n_groups, sizeof *used), *have = xcalloc(a->n_groups, sizeof *have);
    uint32_t *take = xcalloc(a->n_groups, sizeof *take);
    bool ok = true;
    for (uint32_t g = 0; ok && g < a->n_groups; g++) {
        ok = read_fixed(b, &records[g], a->groups[g].subject, &a->groups[g].fixed, &used[g]);
        have[g] = ok && records[g].n > used[g] ? (uint32_t)records[g].n - used[g] : 0;
    }
    share(take, have, ok ? a->n_groups : 0, b->o->limit);
    for (uint32_t g = 0; ok && g < a->n_groups; g++)
        ok = build_group(b, &a->groups[g], &records[g], used[g], take[g]);
    free(used);
    free(have);
    free(take);
    return ok && (a->n_items > 0 || fail("%s: %s holds no record to ask", b->t->name, b->t->data));
}

bool items_read(struct Asked *a, const struct Task *task, const struct AskOptions *o) {
    *a = (struct Asked){.task = task, .shots = o->shots_given ? o->shots : task->shots};
    struct Builder b = {task, o, a, NULL};
    struct DataFiles files;
    if (!datafiles_read(&files, o->dir, task->data, task->name))
        return false;
    struct Records *records = xcalloc(files.n, sizeof *records);
    bool ok = open_replacements(&b) && read_groups(&b, &files, records) && build_all(&b, records);
    if (ok && task->subjects && a->n_groups != task->subjects)
        warn("%s: %u of %u subjects are in %s", task->name, a->n_groups, task->subjects, o->dir);
    for (size_t i = 0; i < files.n; i++)
        records_free(&records[i]);
    free(records);
    for (uint32_t i = 0; b.replace && i < task->replace.n; i++)
        pattern_close(b.replace[i]);
    free(b.replace);
    datafiles_free(&files);
    if (!ok)
        items_free(a);
    return ok;
}

void items_free(struct Asked *a) {
    for (uint32_t g = 0; g < a->n_groups; g++) {
        for (uint32_t i = 0; i < a->groups[g].n; i++)
            item_free(&a->groups[g].items[i]);
        free(a->groups[g].items);
        free(a->groups[g].subject);
        free(a->groups[g].fixed);
    }
    free(a->groups);
    *a = (struct Asked){0};
}
