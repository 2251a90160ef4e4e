// See report.h.
#include "eval/report.h"
#include "eval/task.h"
#include "model/utf8.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t MAX_BYTES = 1 << 26;

// 16400000000 as "16.4B", 7.44e13 as "74.4T".
static char *short_count(double value) {
    static const char SUFFIX[] = " KMBTPE";
    int i = 0;
    while (value >= 999.5 && SUFFIX[i + 1])
        value /= 1000, i++;
    char *text = xsprintf("%.*f%c", value < 99.95 && i ? 1 : 0, value, SUFFIX[i]);
    if (!i)
        text[strlen(text) - 1] = 0;
    return text;
}

static struct ReportRow *add_row(struct Report *r, const char *name, char *note) {
    char *plain = utf8_harmless(note);
    free(note);
    r->rows = xrealloc(r->rows, (r->n_rows + 1) * sizeof *r->rows);
    struct ReportRow *row = &r->rows[r->n_rows++];
    *row = (struct ReportRow){utf8_harmless(name), plain, false, xcalloc(r->n_models, sizeof *row->cells)};
    return row;
}

static const json_t *find_task(const json_t *results, const char *name) {
    size_t i;
    const json_t *task;
    json_array_foreach(json_object_get(results, "tasks"), i, task) {
        const char *found = json_string_value(json_object_get(task, "task"));
        if (found && strcmp(found, name) == 0)
            return task;
    }
    return NULL;
}

static void add_costs(struct Report *r, json_t *const *results) {
    static const char *const COSTS[][2] = {{"Total parameters", "parameters"},
                                           {"Activated parameters", "activated_parameters"},
                                           {"FLOPs per 4K tokens", "flops_per_4k_tokens"}};
    for (int c = 0; c < 3; c++) {
        struct ReportRow *row = add_row(r, COSTS[c][0], xstrdup(""));
        for (uint32_t m = 0; m < r->n_models; m++)
            row->cells[m].text = short_count(json_number_value(json_object_get(results[m], COSTS[c][1])));
    }
    r->n_costs = r->n_rows;
}

static bool has_score(const json_t *task) { return json_is_number(json_object_get(task, "score")); }

static double score_of(const json_t *task) { return json_number_value(json_object_get(task, "score")); }

// Two results can be compared where they come from the same questions.
static bool same_questions(const json_t *a, const json_t *b) {
    static const char *const KEYS[] = {"shots", "n", "metric", "task_sha256"};
    for (int i = 0; i < 4; i++)
        if (!json_equal(json_object_get(a, KEYS[i]), json_object_get(b, KEYS[i])))
            return false;
    return true;
}

static void add_task(struct Report *r, json_t *const *results, const char *name) {
    const json_t *first = NULL;
    struct ReportRow *row = NULL;
    double best = -1;
    uint32_t n = 0;
    for (uint32_t m = 0; m < r->n_models; m++) {
        const json_t *task = find_task(results[m], name);
        if (!has_score(task))
            continue;
        if (!first) {
            const char *title = json_string_value(json_object_get(task, "title"));
            const char *metric = json_string_value(json_object_get(task, "metric"));
            row = add_row(r, title ? title : name,
                          xsprintf("%s, %lld-shot", metric ? metric : "",
                                   (long long)json_integer_value(json_object_get(task, "shots"))));
            first = task;
        }
        row->uneven = row->uneven || !same_questions(first, task);
        row->cells[m].text = xsprintf("%.1f", 100 * score_of(task));
        if (json_integer_value(json_object_get(task, "n")) > 1) // one answer tells nothing of others
            row->cells[m].error = xsprintf("%.1f", 100 * json_number_value(json_object_get(task, "stderr")));
        best = score_of(task) > best ? score_of(task) : best;
        n++;
    }
    for (uint32_t m = 0; row && m < r->n_models; m++) {
        const json_t *task = find_task(results[m], name);
        row->cells[m].best = n > 1 && has_score(task) && score_of(task) == best;
        if (!row->cells[m].text)
            row->cells[m].text = xstrdup("-");
    }
}

static const json_t *find_subject(const json_t *task, const char *name) {
    size_t i;
    const json_t *subject;
    json_array_foreach(json_object_get(task, "subjects"), i, subject) {
        const char *found = json_string_value(json_object_get(subject, "subject"));
        if (found && strcmp(found, name) == 0)
            return subject;
    }
    return NULL;
}

// Those of the first model that has the task.
static void add_subjects(struct Report *r, json_t *const *results, const char *name) {
    const json_t *subjects = NULL, *subject;
    for (uint32_t m = 0; m < r->n_models && !subjects; m++)
        subjects = json_object_get(find_task(results[m], name), "subjects");
    size_t i;
    json_array_foreach(subjects, i, subject) {
        const char *text = json_string_value(json_object_get(subject, "subject"));
        char *label = xsprintf("  %s", text ? text : "");
        struct ReportRow *row =
            add_row(r, label, xsprintf("n = %lld", (long long)json_integer_value(json_object_get(subject, "n"))));
        free(label);
        for (uint32_t m = 0; m < r->n_models; m++) {
            const json_t *own = find_subject(find_task(results[m], name), text ? text : "");
            row->uneven = row->uneven || !json_equal(json_object_get(own, "n"), json_object_get(subject, "n"));
            row->cells[m].text = has_score(own) ? xsprintf("%.1f", 100 * score_of(own)) : xstrdup("-");
        }
    }
}

// The paper's tasks in its order, then users' own in theirs.
static void add_tasks(struct Report *r, json_t *const *results, bool subjects) {
    json_t *seen = json_object();
    for (const struct TaskSource *t = TASKS; t->name; t++) {
        add_task(r, results, t->name);
        if (subjects)
            add_subjects(r, results, t->name);
        json_object_set_new(seen, t->name, json_true());
    }
    for (uint32_t m = 0; m < r->n_models; m++) {
        size_t i;
        const json_t *task;
        json_array_foreach(json_object_get(results[m], "tasks"), i, task) {
            const char *name = json_string_value(json_object_get(task, "task"));
            if (!name || json_object_get(seen, name))
                continue;
            add_task(r, results, name);
            if (subjects)
                add_subjects(r, results, name);
            json_object_set_new(seen, name, json_true());
        }
    }
    json_decref(seen);
}

bool report_read(struct Report *r, const char *const *paths, uint32_t n, bool subjects) {
    *r = (struct Report){.n_models = n, .models = xcalloc(n, sizeof *r->models)};
    json_t **results = xcalloc(n, sizeof *results);
    bool ok = true;
    for (uint32_t m = 0; ok && m < n; m++) {
        results[m] = json_parse_file(paths[m], MAX_BYTES);
        const char *model = json_string_value(json_object_get(results[m], "model"));
        ok = results[m] && ((model && json_is_array(json_object_get(results[m], "tasks"))) ||
                            fail("%s: holds no results of `vkmoe eval`", paths[m]));
        if (ok)
            r->models[m] = utf8_harmless(model);
    }
    if (ok) {
        add_costs(r, results);
        add_tasks(r, results, subjects);
    }
    for (uint32_t m = 0; m < n; m++)
        json_decref(results[m]);
    free(results);
    if (!ok)
        report_free(r);
    return ok;
}

void report_free(struct Report *r) {
    for (uint32_t i = 0; i < r->n_rows; i++) {
        for (uint32_t m = 0; m < r->n_models; m++) {
            free(r->rows[i].cells[m].text);
            free(r->rows[i].cells[m].error);
        }
        free(r->rows[i].cells);
        free(r->rows[i].name);
        free(r->rows[i].note);
    }
    for (uint32_t m = 0; m < r->n_models; m++)
        free(r->models[m]);
    free(r->models);
    free(r->rows);
    *r = (struct Report){0};
}
