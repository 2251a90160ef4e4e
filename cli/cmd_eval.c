// `vkmoe eval MODEL`: benchmarks. What can be known to be wrong with the data is told before the model is loaded; a task that cannot be asked is
// left out, and the others go on. `vkmoe eval report`: results side by side.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/term.h"
#include "eval/run.h"
#include "model/chatfile.h"
#include "model/json.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_STOP_IDS = 16, FLOPS_TOKENS = 4096 };

struct Job {
    const struct Args *args;
    struct Loaded l;
    struct Task *tasks;
    uint32_t n_tasks;
    struct Asked *asked; // (n_asked), of the tasks whose data could be read
    uint32_t n_asked;
    struct EvalFailure *failures; // (n_failures); messages are malloc'ed
    uint32_t n_failures;
    struct AnswerModel model;
    uint32_t stop_ids[MAX_STOP_IDS];
    struct Progress progress;
    struct EvalRun run;
};

// ---- Tasks

static bool add_task(struct Job *j, const char *text, size_t bytes, const char *name, const char *path) {
    for (uint32_t i = 0; i < j->n_tasks; i++)
        if (strcmp(j->tasks[i].name, name) == 0)
            return args_good(fail("the task %s is named twice", name));
    j->tasks = xrealloc(j->tasks, (j->n_tasks + 1) * sizeof *j->tasks);
    return task_parse(&j->tasks[j->n_tasks], text, bytes, name, path) && ++j->n_tasks;
}

static bool add_built_in(struct Job *j, const char *name) {
    struct Text names = {0};
    for (const struct TaskSource *t = TASKS; t->name; t++) {
        if (strcmp(name, "all") == 0 || strcmp(name, t->name) == 0) {
            char *path = xsprintf("%s.task", t->name);
            bool ok = add_task(j, t->text, t->bytes, t->name, path);
            free(path);
            if (!ok || strcmp(name, "all") != 0) {
                text_free(&names);
                return ok;
            }
        }
        text_add_string(&names, t == TASKS ? "" : ", ");
        text_add_string(&names, t->name);
    }
    bool all = strcmp(name, "all") == 0;
    if (!all)
        args_good(fail("there is no task %s; those built in are %s", name, names.text));
    text_free(&names);
    return all;
}

// A user's file; its name without the folder and ".task" is the task's.
static bool add_file(struct Job *j, const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t n = strlen(base), bytes;
    char *text, *name = xsprintf("%.*s", (int)(n > 5 && strcmp(base + n - 5, ".task") == 0 ? n - 5 : n), base);
    bool ok = load_file(path, &text, &bytes);
    if (ok) {
        ok = add_task(j, text, bytes, name, path);
        free(text);
    }
    free(name);
    return ok;
}

static bool read_tasks(struct Job *j) {
    const char *files[ARGS_MAX_LIST];
    uint32_t n_files = args_list(j->args, "task-file", files);
    char *list = xstrdup(n_files && !args_given(j->args, "tasks") ? "" : args_text(j->args, "tasks")), *save = NULL;
    bool ok = true;
    for (char *name = strtok_r(list, ", ", &save); ok && name; name = strtok_r(NULL, ", ", &save))
        ok = add_built_in(j, name);
    free(list);
    for (uint32_t i = 0; ok && i < n_files; i++)
        ok = add_file(j, files[i]);
    return ok && (j->n_tasks > 0 || args_good(fail("--tasks names no task")));
}

static void leave_out(struct Job *j, const struct Task *t) {
    j->failures[j->n_failures++] = (struct EvalFailure){t->name, t->title, xstrdup(fail_last())};
}

// The items of all tasks; a task that has none is left out with its line.
static bool read_items(struct Job *j) {
    struct AskOptions o = {.dir = args_text(j->args, "data"),
                           .chat = args_switch(j->args, "chat"),
                           .shots_given = args_given(j->args, "shots")};
    o.shots = o.shots_given ? (uint32_t)args_int(j->args, "shots") : 0;
    o.limit = args_given(j->args, "limit") ? (uint32_t)args_int(j->args, "limit") : 0;
    j->asked = xcalloc(j->n_tasks, sizeof *j->asked);
    j->failures = xcalloc(j->n_tasks, sizeof *j->failures);
    for (uint32_t i = 0; i < j->n_tasks; i++) {
        const struct Task *t = &j->tasks[i];
        bool executes = t->kind == TASK_CODE && !args_switch(j->args, "dry-run");
        bool ok = !executes || args_switch(j->args, "allow-code-execution") ||
                  fail("%s: runs programs that the model writes; --allow-code-execution allows it", t->name);
        ok = ok && (!executes || code_available());
        if (ok && items_read(&j->asked[j->n_asked], t, &o))
            j->n_asked++;
        else
            leave_out(j, t);
    }
    return j->n_asked > 0 || fail("none of the tasks can be asked");
}

// ---- The model

static bool set_model(struct Job *j) {
    struct Loaded *l = &j->l;
    uint32_t n = 0;
    for (uint32_t id = 0; id < l->file.config.vocab_size && n < MAX_STOP_IDS; id++)
        if (load_is_stop(l, id))
            j->stop_ids[n++] = id;
    j->model = (struct AnswerModel){.session = &l->session,
                                    .tokenizer = &l->tokenizer,
                                    .template = l->has_template ? &l->template : NULL,
                                    .stop_ids = j->stop_ids,
                                    .n_stop_ids = n};
    uint64_t longest = 0;
    for (uint32_t i = 0; i < j->n_asked; i++)
        if (!answer_longest(&j->model, &j->asked[i], &longest))
            return false;
    return load_context(l, j->args, longest, &j->model.context);
}

static bool describe(struct Job *j, json_t **about) {
    const struct Config *c = &j->l.file.config;
    const char *adapter = args_text(j->args, "adapter");
    struct ChatIdentity id;
    char questions[65];
    if (!chatfile_identify(&j->l.file, &j->l.tokenizer, &j->l.model, adapter, &id))
        return false;
    eval_hash(j->asked, j->n_asked, questions);
    // A template is what it makes of a talk, whatever its name.
    static const struct Message PROBE[] = {
        {ROLE_USER, "a", 1, false, 0}, {ROLE_ASSISTANT, "b", 1, false, 0}, {ROLE_USER, "c", 1, false, 0}};
    size_t bytes = 0;
    char *probe = j->l.has_template ? template_text(&j->l.template, &j->l.tokenizer, PROBE, 3, true, &bytes) : NULL;
    if (j->l.has_template && !probe)
        return false;
    uint64_t rendered = probe ? hash_bytes(probe, bytes, 1) : 0;
    free(probe);
    char *name = args_given(j->args, "name") ? xstrdup(args_text(j->args, "name")) : output_name(&j->l.file);
    char *identity =
        xsprintf("%016llx %016llx %016llx %016llx %016llx %s", (unsigned long long)id.model,
                 (unsigned long long)id.tokenizer, (unsigned long long)id.adapter, (unsigned long long)id.held,
                 (unsigned long long)rendered, DTYPES[j->l.session.cache_type].name);
    *about =
        json_pack("{s:i, s:s, s:s, s:I, s:I, s:I, s:s, s:s?, s:s?, s:i, s:i, s:s}", "vkmoe_eval", 1, "model", name,
                  "architecture", ARCHS[c->arch].model_type, "parameters", (json_int_t)config_parameters(c),
                  "activated_parameters", (json_int_t)config_activated_parameters(c), "flops_per_4k_tokens",
                  (json_int_t)config_train_flops(c, FLOPS_TOKENS), "identity", identity, "adapter", adapter, "template",
                  j->l.has_template ? template_name(&j->l.template) : NULL, "context", (int)j->model.context, "limit",
                  args_given(j->args, "limit") ? (int)args_int(j->args, "limit") : 0, "questions", questions);
    free(name);
    free(identity);
    return *about || fail("the model's name or the adapter's is not UTF-8");
}

// ---- The run

static void on_progress(void *context, uint64_t done, uint64_t total, const char *task, double score) {
    struct Job *j = context;
    j->progress.total = total;
    progress_update(&j->progress, done, "%s %.1f", task, 100 * score);
}

static bool run(struct Job *j, const char *out) {
    struct SessionOptions o = {.n_sequences = (uint32_t)args_int(j->args, "parallel"), .scoring = true, .ahead = true};
    if (!read_tasks(j) || !load_text(&j->l, j->args, args_switch(j->args, "chat")) || !read_items(j) || !set_model(j))
        return false;
    o.context = j->model.context;
    if (!load_model(&j->l, j->args, &o))
        return false;
    char *journal = xsprintf("%s.jsonl", out);
    struct TaskScore *scores = xcalloc(j->n_asked, sizeof *scores);
    j->run = (struct EvalRun){.asked = j->asked,
                              .n = j->n_asked,
                              .scores = scores,
                              .answerer = answer_model(&j->model),
                              .execute = code_run,
                              .journal = journal,
                              .progress = on_progress,
                              .context = j};
    progress_begin(&j->progress, "eval", "question", 0, 1);
    double begin = clock_seconds();
    bool ok = describe(j, &j->run.about) && eval_run(&j->run);
    progress_clear(&j->progress);
    if (j->run.resumed)
        fprintf(stderr, "%llu answers are those of an earlier run\n", (unsigned long long)j->run.resumed);
    ok = ok && eval_write(&j->run, j->failures, j->n_failures, clock_seconds() - begin, out);
    struct Report table;
    if (ok && args_switch(j->args, "json")) {
        json_t *results = json_parse_file(out, UINT64_C(1) << 30);
        ok = results && json_dumpf(results, stdout, JSON_REAL_PRECISION(9)) == 0;
        putchar('\n');
        json_decref(results);
    } else if (ok && (ok = report_read(&table, &out, 1, args_switch(j->args, "subjects")))) {
        table_print(&table, stdout);
        report_free(&table);
    }
    json_decref(j->run.about);
    eval_scores_free(scores, j->n_asked);
    free(journal);
    return ok;
}

// What would be asked, with its tokens; needs no weights.
static bool list(struct Job *j) {
    const bool chat = args_switch(j->args, "chat");
    if (!read_tasks(j) || !load_text_alone(&j->l, j->args, chat) || !read_items(j))
        return false;
    j->model = (struct AnswerModel){.tokenizer = &j->l.tokenizer, .template = chat ? &j->l.template : NULL};
    return eval_list(j->asked, j->n_asked, &j->model, stdout);
}

static void job_free(struct Job *j) {
    for (uint32_t i = 0; i < j->n_asked; i++)
        items_free(&j->asked[i]);
    for (uint32_t i = 0; i < j->n_failures; i++)
        free((char *)(uintptr_t)j->failures[i].message);
    for (uint32_t i = 0; i < j->n_tasks; i++)
        task_free(&j->tasks[i]);
    free(j->asked);
    free(j->failures);
    free(j->tasks);
    code_close();
    load_free(&j->l);
    free(j);
}

static int report(const struct Args *args) {
    struct Report r;
    if (args->n_operands < 2)
        return args_wrong(args, "report needs files of results");
    if (args_switch(args, "json") && args_switch(args, "md"))
        return args_wrong(args, "--json and --md exclude each other");
    if (!report_read(&r, args->operands + 1, args->n_operands - 1, args_switch(args, "subjects")))
        return EXIT_FAILED;
    bool ok = true;
    if (args_given(args, "png"))
        ok = table_draw(&r, args_text(args, "png"));
    if (args_switch(args, "json"))
        ok = table_print_json(&r, stdout) && ok;
    else if (args_switch(args, "md"))
        table_print_markdown(&r, stdout);
    else
        table_print(&r, stdout);
    report_free(&r);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

static int list_tasks(bool as_json) {
    bool ok = true;
    json_t *list = json_array();
    for (const struct TaskSource *source = TASKS; ok && source->name; source++) {
        struct Task t;
        ok = task_parse(&t, source->text, source->bytes, source->name, source->name);
        if (ok) {
            if (as_json)
                json_array_append_new(list,
                                      json_pack("{s:s, s:s, s:s, s:i, s:s}", "task", t.name, "title", t.title, "metric",
                                                eval_metric_name(t.metric), "shots", (int)t.shots, "source", t.source));
            else
                printf("%-17s %-17s %-9s %u shots  after %s\n", t.name, t.title, eval_metric_name(t.metric), t.shots,
                       t.source);
            task_free(&t);
        }
    }
    if (ok && as_json) {
        json_dumpf(list, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
    }
    json_decref(list);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

// Flags of a model that is asked say nothing about a table of results, nor about the list of tasks.
static const char *useless_flag(const struct Args *args, bool table) {
    static const char *const OF_MODEL[] = {"tasks",
                                           "task-file",
                                           "data",
                                           "out",
                                           "name",
                                           "shots",
                                           "limit",
                                           "chat",
                                           "template",
                                           "dry-run",
                                           "parallel",
                                           "type",
                                           "adapter",
                                           "context",
                                           "cache-type",
                                           "gpu-layers",
                                           "tune",
                                           "experts-on",
                                           "allow-code-execution"},
                             *const OF_TABLE[] = {"md", "png", "subjects"};
    for (size_t i = 0; i < sizeof OF_MODEL / sizeof *OF_MODEL; i++)
        if (args_given(args, OF_MODEL[i]))
            return OF_MODEL[i];
    for (size_t i = 0; i < sizeof OF_TABLE / sizeof *OF_TABLE && !table; i++)
        if (args_given(args, OF_TABLE[i]))
            return OF_TABLE[i];
    return NULL;
}

int cmd_eval(const struct Args *args) {
    const char *what = args->operands[0];
    bool table = strcmp(what, "report") == 0, tasks = strcmp(what, "tasks") == 0 && args->n_operands == 1;
    const char *useless = table || tasks ? useless_flag(args, table) : NULL;
    if (useless)
        return args_wrong(args, "--%s is of no use to `eval %s`", useless, what);
    if (table)
        return report(args);
    if (tasks)
        return list_tasks(args_switch(args, "json"));
    if (args->n_operands > 1)
        return args_wrong(args, "one model at a time; `vkmoe eval report` takes several files of results");
    if (!args_given(args, "data"))
        return args_wrong(args, "--data names the folder of the benchmarks' files");
    if (args_given(args, "template") && !args_switch(args, "chat"))
        return args_wrong(args, "--template needs --chat");
    if (args_given(args, "png") || args_switch(args, "md"))
        return args_wrong(args, "--md and --png belong to `vkmoe eval report`");
    if (args_switch(args, "dry-run") && args_given(args, "out"))
        return args_wrong(args, "--dry-run has no results; its lines go to standard output");
    const char *out = args_given(args, "out") ? args_text(args, "out") : "results.json";
    if (!args_switch(args, "dry-run") && !eval_may_write(out))
        return EXIT_FAILED;
    struct Job *j = xcalloc(1, sizeof *j);
    j->args = args;
    bool ok = (args_switch(args, "dry-run") ? list(j) : run(j, out)) && j->n_failures == 0;
    job_free(j);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
