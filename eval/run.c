// See run.h.
#include "eval/run.h"
#include "model/utf8.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t JOURNAL_MAX_BYTES = UINT64_C(1) << 34, RESULTS_MAX_BYTES = UINT64_C(1) << 26;

struct Runner {
    struct EvalRun *r;
    FILE *journal;
    uint64_t done, total;
    uint32_t task;             // at hand
    const char *old, *old_end; // lines of an interrupted run that are not yet taken over
    size_t old_line;
    // Answers of the task at hand that wait for those before them: (n), in the order of `asks`.
    struct Ask *asks;
    json_t **waiting;
    uint32_t n_asks, n_written;
};

const char *eval_metric_name(enum TaskMetric metric) {
    static const char *const NAMES[] = {"acc", "acc_norm", "em", "pass@1"};
    return NAMES[metric];
}

void eval_scores_free(struct TaskScore *scores, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        free(scores[i].groups);
    free(scores);
}

// ---- What is asked

static void hash_text(struct Sha256 *sha, const char *text) {
    if (text)
        sha256_add(sha, text, strlen(text) + 1);
}

void eval_hash(const struct Asked *asked, uint32_t n, char hex[65]) {
    struct Sha256 sha;
    sha256_begin(&sha);
    for (uint32_t t = 0; t < n; t++) {
        hash_text(&sha, asked[t].task->sha256);
        for (uint32_t g = 0; g < asked[t].n_groups; g++)
            for (uint32_t i = 0; i < asked[t].groups[g].n; i++) {
                const struct Item *item = &asked[t].groups[g].items[i];
                hash_text(&sha, item->record.where);
                hash_text(&sha, item->prompt);
                for (uint32_t k = 0; k < item->n_choices; k++) {
                    hash_text(&sha, item->choices[k]);
                    hash_text(&sha, item->contexts ? item->contexts[k] : NULL);
                    hash_text(&sha, item->continuations[k]);
                }
                for (uint32_t k = 0; k < item->n_accepted; k++)
                    hash_text(&sha, item->accepted[k]);
                hash_text(&sha, item->setup);
                hash_text(&sha, item->checks);
                hash_text(&sha, item->entry);
                hash_text(&sha, item->reference);
                sha256_add(&sha, &item->gold, sizeof item->gold);
            }
    }
    sha256_end(&sha, hex);
}

// ---- Scores

static struct GroupScore *group_score(struct Runner *x, const struct Ask *ask) {
    return &x->r->scores[x->task].groups[ask->group - ask->asked->groups];
}

// From a line of the journal, be it new or an old one.
static void count(struct Runner *x, const struct Ask *ask, const json_t *line) {
    struct GroupScore *g = group_score(x, ask), *all = &x->r->scores[x->task].all;
    uint32_t correct = json_is_true(json_object_get(line, "correct"));
    uint32_t norm = json_is_true(json_object_get(line, "correct_norm")),
             cut = json_is_true(json_object_get(line, "cut"));
    g->n++, all->n++;
    g->correct += correct, all->correct += correct;
    g->correct_norm += norm, all->correct_norm += norm;
    g->cut += cut, all->cut += cut;
    x->done++;
    uint32_t hits = ask->asked->task->metric == METRIC_ACC_NORM ? all->correct_norm : all->correct;
    if (x->r->progress)
        x->r->progress(x->r->context, x->done, x->total, ask->asked->task->name, (double)hits / all->n);
}

static double share(uint32_t part, uint32_t all) { return all ? (double)part / all : 0; }

static void finish(const struct Asked *asked, struct TaskScore *s) {
    const struct Task *t = asked->task;
    bool norm = t->metric == METRIC_ACC_NORM;
    uint32_t n = s->all.n, subjects = 0;
    s->value = share(norm ? s->all.correct_norm : s->all.correct, n);
    s->other = t->metric == METRIC_ACC ? share(s->all.correct_norm, n) : norm ? share(s->all.correct, n) : NAN;
    s->error = n > 1 ? sqrt(s->value * (1 - s->value) / (n - 1)) : 0;
    s->subject_mean = 0;
    for (uint32_t g = 0; g < asked->n_groups; g++)
        if (s->groups[g].n) {
            s->subject_mean += share(norm ? s->groups[g].correct_norm : s->groups[g].correct, s->groups[g].n);
            subjects++;
        }
    s->subject_mean = subjects ? s->subject_mean / subjects : 0;
}

// ---- Lines

static json_t *text_value(const char *text) {
    size_t bytes;
    char *repaired = utf8_repair(text, strlen(text), &bytes);
    json_t *value = json_stringn(repaired, bytes);
    free(repaired);
    return value;
}

static json_t *text_array(char *const *texts, uint32_t n) {
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, text_value(texts[i]));
    return array;
}

static json_t *line_begin(const struct Ask *ask, bool cut) {
    const struct Item *item = ask->item;
    json_t *line = json_object();
    json_object_set_new(line, "task", json_string(ask->asked->task->name));
    if (*ask->group->subject)
        json_object_set_new(line, "subject", text_value(ask->group->subject));
    json_object_set_new(line, "where", text_value(item->record.where));
    if (item->contexts)
        json_object_set_new(line, "prompts", text_array(item->contexts, item->n_choices));
    else
        json_object_set_new(line, "prompt", text_value(item->prompt));
    if (cut)
        json_object_set_new(line, "cut", json_true());
    return line;
}

static json_t *choice_line(const struct Ask *ask, const double *logprobs, bool cut) {
    const struct Item *item = ask->item;
    json_t *line = line_begin(ask, cut), *list = json_array();
    uint32_t best = 0, best_norm = 0;
    double lead = -INFINITY, lead_norm = -INFINITY;
    for (uint32_t i = 0; i < item->n_choices; i++) {
        size_t length = text_characters(item->choices[i]);
        double norm = logprobs[i] / (double)(length ? length : 1);
        json_array_append_new(list, json_real(logprobs[i]));
        if (logprobs[i] > lead)
            lead = logprobs[i], best = i;
        if (norm > lead_norm)
            lead_norm = norm, best_norm = i;
    }
    json_object_set_new(line, "continuations", text_array(item->continuations, item->n_choices));
    json_object_set_new(line, "logprobs", list);
    json_object_set_new(line, "picked", json_integer(best));
    json_object_set_new(line, "picked_norm", json_integer(best_norm));
    json_object_set_new(line, "gold", json_integer(item->gold));
    json_object_set_new(line, "correct", json_boolean(best == item->gold));
    json_object_set_new(line, "correct_norm", json_boolean(best_norm == item->gold));
    return line;
}

static bool is_accepted(const struct Task *t, const struct Item *item, const char *answer) {
    for (uint32_t i = 0; answer && i < item->n_accepted; i++)
        if (normal_equal(t->normal, answer, item->accepted[i]))
            return true;
    return false;
}

// NULL after a message where a program cannot be run.
static json_t *answer_line(struct Runner *x, const struct Ask *ask, const struct Answer *answer) {
    const struct Task *t = ask->asked->task;
    json_t *line = line_begin(ask, answer->cut);
    json_object_set_new(line, "answer", text_value(answer->text));
    json_object_set_new(line, "ended", json_string(answer->ended));
    if (t->kind != TASK_CODE) {
        char *found = extraction_run(&t->extract, answer->text);
        json_object_set_new(line, "extracted", found ? text_value(found) : json_null());
        json_object_set_new(line, "accepted", text_array(ask->item->accepted, ask->item->n_accepted));
        json_object_set_new(line, "correct", json_boolean(is_accepted(t, ask->item, found)));
        free(found);
        return line;
    }
    struct CodeVerdict verdict = {0};
    char *program = code_program(t, ask->item, answer->text);
    const struct Item *item = ask->item;
    struct CodeJob job = {program, item->setup, item->checks, item->entry, item->reference};
    if (!program || !x->r->execute(&job, &verdict)) {
        free(program);
        json_decref(line);
        return NULL;
    }
    json_object_set_new(line, "program", text_value(program));
    json_object_set_new(line, "checks", text_value(item->checks));
    json_object_set_new(line, "verdict", text_value(verdict.text));
    json_object_set_new(line, "correct", json_boolean(verdict.passed));
    free(program);
    return line;
}

static const size_t LINE_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(9);

static json_t *ids_array(const struct TokenList *ids) {
    json_t *array = json_array();
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(array, json_integer(ids->ids[i]));
    return array;
}

// Of a cloze task "tokens" has a list for each choice, else one; "continuation_tokens" one for each choice.
static bool add_tokens(json_t *line, const struct AnswerModel *m, const struct Item *item) {
    json_t *prompts = json_array(), *continuations = json_array();
    bool ok = true;
    for (uint32_t i = 0; ok && i < (item->n_choices ? item->n_choices : 1); i++) {
        struct TokenList prompt, continuation;
        ok = answer_tokens(m, item, i, &prompt, &continuation);
        if (ok && (i == 0 || item->contexts))
            json_array_append_new(prompts, ids_array(&prompt));
        if (ok && item->n_choices)
            json_array_append_new(continuations, ids_array(&continuation));
        token_list_free(&prompt);
        token_list_free(&continuation);
    }
    json_object_set(line, "tokens", item->contexts ? prompts : json_array_get(prompts, 0));
    if (item->n_choices) {
        json_object_set_new(line, "continuations", text_array(item->continuations, item->n_choices));
        json_object_set(line, "continuation_tokens", continuations);
    } else if (item->n_accepted)
        json_object_set_new(line, "accepted", text_array(item->accepted, item->n_accepted));
    json_decref(prompts);
    json_decref(continuations);
    return ok;
}

bool eval_list(const struct Asked *asked, uint32_t n, const struct AnswerModel *m, FILE *out) {
    bool ok = true;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t g = 0; g < asked[t].n_groups; g++)
            for (uint32_t i = 0; ok && i < asked[t].groups[g].n; i++) {
                struct Ask ask = {&asked[t], &asked[t].groups[g], &asked[t].groups[g].items[i]};
                json_t *line = line_begin(&ask, false);
                ok = add_tokens(line, m, ask.item) &&
                     ((json_dumpf(line, out, LINE_FLAGS) == 0 && fputc('\n', out) != EOF) ||
                      fail("the list of prompts cannot be written: %s", strerror(errno)));
                json_decref(line);
            }
    return ok;
}

// ---- The journal

static bool write_line(struct Runner *x, const json_t *line) {
    bool ok =
        json_dumpf(line, x->journal, LINE_FLAGS) == 0 && fputc('\n', x->journal) != EOF && fflush(x->journal) == 0;
    return ok || fail("%s: cannot be written: %s", x->r->journal, strerror(errno));
}

// The next line of the interrupted run, to be released; NULL where there is none.
static json_t *old_line(struct Runner *x) {
    if (x->old >= x->old_end)
        return NULL;
    const char *end = memchr(x->old, '\n', (size_t)(x->old_end - x->old));
    char *where = xsprintf("%s:%zu", x->r->journal, ++x->old_line);
    json_t *line = json_parse(x->old, (size_t)(end - x->old), where);
    free(where);
    x->old = end + 1;
    return line;
}

static bool is_line_of(const json_t *line, const struct Ask *ask) {
    const char *task = json_string_value(json_object_get(line, "task"));
    json_t *where = text_value(ask->item->record.where);
    bool same = task && strcmp(task, ask->asked->task->name) == 0 && json_equal(where, json_object_get(line, "where"));
    json_decref(where);
    return same;
}

// Takes over what an interrupted run has answered; true with *any false when its lines are over.
static bool take_old(struct Runner *x, const struct Ask *ask, bool *any) {
    *any = x->old < x->old_end;
    if (!*any)
        return true;
    json_t *line = old_line(x);
    bool ok = line != NULL;
    if (ok && !is_line_of(line, ask))
        ok = fail("%s:%zu: is not the answer to %s: the file was changed", x->r->journal, x->old_line,
                  ask->item->record.where);
    if (ok) {
        count(x, ask, line);
        x->r->resumed++;
    }
    json_decref(line);
    return ok;
}

// Whole lines only: one that a kill has torn is dropped.
static bool open_journal(struct Runner *x, uint8_t **data) {
    uint64_t bytes = 0;
    *data = NULL;
    x->journal = fopen(x->r->journal, "a+");
    if (!x->journal || flock(fileno(x->journal), LOCK_EX | LOCK_NB) != 0)
        return fail("%s: cannot be written, or another evaluation is at it: %s", x->r->journal, strerror(errno));
    if (!file_read(x->r->journal, JOURNAL_MAX_BYTES, data, &bytes))
        return false;
    const uint64_t all = bytes;
    while (bytes > 0 && (*data)[bytes - 1] != '\n')
        bytes--;
    if (bytes == 0 && all > 0) { // a torn first line is dropped too, another file's is not
        char *head = json_dumps(x->r->about, LINE_FLAGS);
        bool own = head && all <= strlen(head) && memcmp(*data, head, all) == 0;
        free(head);
        if (!own)
            return fail("%s: is no journal of this evaluation; take another --out, or remove it", x->r->journal);
    }
    x->old = (const char *)*data;
    x->old_end = x->old + bytes;
    if (bytes > 0) {
        json_t *about = old_line(x);
        bool same = about && json_equal(about, x->r->about);
        json_decref(about);
        if (!same)
            return fail("%s: holds answers of another evaluation (model, tasks, data or flags differ); take another "
                        "--out, or remove it",
                        x->r->journal);
    }
    if (ftruncate(fileno(x->journal), (off_t)bytes) != 0)
        return fail("%s: cannot be cut to its whole lines: %s", x->r->journal, strerror(errno));
    return bytes > 0 || write_line(x, x->r->about);
}

// ---- Asking

static bool put_line(struct Runner *x, const struct Ask *ask, json_t *line) {
    bool ok = line && write_line(x, line);
    if (ok)
        count(x, ask, line);
    json_decref(line);
    return ok;
}

static bool ask_choices(struct Runner *x, const struct Ask *ask) {
    double *logprobs = xcalloc(ask->item->n_choices, sizeof *logprobs);
    bool cut = false, ok = x->r->answerer.likelihoods(x->r->answerer.context, ask, logprobs, &cut);
    ok = ok && put_line(x, ask, choice_line(ask, logprobs, cut));
    free(logprobs);
    return ok;
}

static bool on_answer(void *context, uint32_t index, const struct Answer *answer) {
    struct Runner *x = context;
    x->waiting[index] = answer_line(x, &x->asks[index], answer);
    bool ok = x->waiting[index] != NULL;
    while (ok && x->n_written < x->n_asks && x->waiting[x->n_written]) {
        json_t *line = x->waiting[x->n_written];
        x->waiting[x->n_written] = NULL;
        ok = put_line(x, &x->asks[x->n_written++], line);
    }
    return ok;
}

static bool ask_task(struct Runner *x) {
    const struct Asked *asked = &x->r->asked[x->task];
    bool generates = asked->task->kind == TASK_GENERATE || asked->task->kind == TASK_CODE, ok = true, any = true;
    x->asks = xcalloc(asked->n_items, sizeof *x->asks);
    x->waiting = xcalloc(asked->n_items, sizeof *x->waiting);
    x->n_asks = x->n_written = 0;
    for (uint32_t g = 0; g < asked->n_groups; g++) {
        for (uint32_t i = 0; ok && i < asked->groups[g].n; i++) {
            struct Ask ask = {asked, &asked->groups[g], &asked->groups[g].items[i]};
            ok = take_old(x, &ask, &any);
            if (ok && !any && generates)
                x->asks[x->n_asks++] = ask;
            else if (ok && !any)
                ok = ask_choices(x, &ask);
        }
    }
    struct AnswerSink sink = {x, on_answer};
    if (ok && x->n_asks)
        ok = x->r->answerer.generate(x->r->answerer.context, x->asks, x->n_asks, &sink);
    for (uint32_t i = 0; i < x->n_asks; i++)
        json_decref(x->waiting[i]);
    free(x->asks);
    free(x->waiting);
    return ok;
}

bool eval_run(struct EvalRun *r) {
    struct Runner x = {.r = r};
    uint8_t *data;
    r->resumed = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        x.total += r->asked[i].n_items;
        r->scores[i].groups = xcalloc(r->asked[i].n_groups, sizeof *r->scores[i].groups);
    }
    bool ok = open_journal(&x, &data);
    for (x.task = 0; ok && x.task < r->n; x.task++)
        ok = ask_task(&x);
    if (ok && x.old < x.old_end)
        ok = fail("%s:%zu: has more answers than there are questions", r->journal, x.old_line + 1);
    if (x.journal && fclose(x.journal) != 0 && ok)
        ok = fail("%s: cannot be written: %s", r->journal, strerror(errno));
    for (uint32_t i = 0; i < r->n; i++)
        finish(&r->asked[i], &r->scores[i]);
    free(data);
    return ok;
}

// ---- Results

// A name mistyped must not cost a file of another kind.
bool eval_may_write(const char *path) {
    struct stat there;
    uint8_t *text;
    uint64_t bytes;
    if (stat(path, &there) != 0)
        return true;
    if (S_ISDIR(there.st_mode))
        return fail("%s: is a folder; a file for the results is expected", path);
    bool ours = false;
    if (S_ISREG(there.st_mode)) {
        if (!file_read(path, RESULTS_MAX_BYTES, &text, &bytes))
            return false;
        json_t *root = json_loadb((const char *)text, bytes, 0, NULL);
        ours = bytes == 0 || // as mktemp makes it
               (json_is_string(json_object_get(root, "model")) && json_is_array(json_object_get(root, "tasks")));
        json_decref(root);
        free(text);
    }
    return ours || fail("%s: is there already and holds no results of `vkmoe eval`; take another --out", path);
}

static json_t *group_results(const struct Asked *asked, const struct TaskScore *s) {
    json_t *list = json_array();
    for (uint32_t g = 0; g < asked->n_groups; g++) {
        const struct GroupScore *one = &s->groups[g];
        bool norm = asked->task->metric == METRIC_ACC_NORM;
        if (one->n)
            json_array_append_new(list, json_pack("{s:o, s:i, s:f}", "subject", text_value(asked->groups[g].subject),
                                                  "n", (int)one->n, "score",
                                                  share(norm ? one->correct_norm : one->correct, one->n)));
    }
    return list;
}

static json_t *task_results(const struct Asked *asked, const struct TaskScore *s) {
    const struct Task *t = asked->task;
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:f}", "task", t->name, "title", t->title, "metric",
                  eval_metric_name(t->metric), "shots", (int)asked->shots, "n", (int)s->all.n, "score", s->value);
    if (s->all.n > 1)
        json_object_set_new(o, "stderr", json_real(s->error));
    if (t->metric == METRIC_ACC || t->metric == METRIC_ACC_NORM)
        json_object_set_new(o, t->metric == METRIC_ACC ? "acc_norm" : "acc", json_real(s->other));
    if (s->all.cut)
        json_object_set_new(o, "cut", json_integer(s->all.cut));
    json_object_set_new(o, "source", json_string(t->source));
    json_object_set_new(o, "task_sha256", json_string(t->sha256));
    if (t->subjects) {
        json_object_set_new(o, "subject_mean", json_real(s->subject_mean));
        json_object_set_new(o, "subjects", group_results(asked, s));
    }
    return o;
}

bool eval_write(const struct EvalRun *r, const struct EvalFailure *failed, uint32_t n_failed, double seconds,
                const char *path) {
    json_t *root = json_deep_copy(r->about), *tasks = json_array();
    for (uint32_t i = 0; i < r->n; i++)
        json_array_append_new(tasks, task_results(&r->asked[i], &r->scores[i]));
    for (uint32_t i = 0; i < n_failed; i++)
        json_array_append_new(tasks, json_pack("{s:s, s:s, s:o}", "task", failed[i].task, "title", failed[i].title,
                                               "error", text_value(failed[i].message)));
    json_object_set_new(root, "tasks", tasks);
    json_object_set_new(root, "seconds", json_real(seconds));
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    char *whole = xsprintf("%s\n", text);
    bool ok = file_write_atomic(path, whole, strlen(whole));
    free(text);
    free(whole);
    json_decref(root);
    return ok;
}
