// A task as its file describes it (docs/evaluation.md has the syntax): which records, how a prompt is made of one, and how what the model says
// becomes a score. The published benchmarks are built into the program; users' own are files of the same form.
#pragma once
#include "eval/extract.h"
#include "eval/records.h"

enum TaskKind {
    TASK_CHOICE,   // the continuation with the greatest log-likelihood
    TASK_CLOZE,    // the choice stands inside the prompt, the continuation behind it is the same for all
    TASK_GENERATE, // what the model says, with the answer taken out of it
    TASK_CODE      // a program, with tests that it must pass
};
// ACC_NORM: the choice with the greatest log-likelihood per character of its text. EM: the answer is an accepted one. PASS: the program passes.
enum TaskMetric { METRIC_ACC, METRIC_ACC_NORM, METRIC_EM, METRIC_PASS };
enum GoldKind {
    GOLD_TEXT,
    GOLD_INDEX,
    GOLD_NUMBER,
    GOLD_LABEL
}; // the answer itself; its place from 0 or from 1; its letter

struct TaskLines {
    struct TaskLine {
        char *name; // of set and replace
        char *text;
        uint32_t line;
    } * list;
    uint32_t n;
};

struct TaskFilter {
    char *field, *text; // equal to this text, or, where NULL, a whole number in first .. last
    long long first, last;
};

struct Task {
    char *name, *path;    // name: what --tasks takes
    char sha256[65];      // of the file
    char *title, *source; // title: in tables; source: whose protocol is followed
    enum TaskKind kind;
    enum TaskMetric metric;
    uint32_t shots, max_tokens, subjects; // subjects: how many the full data has, 0: not divided
    // Data. The subject is what the pattern's `*` stands for.
    char *data, *columns, *at, *each, *labels_data, *shot_data, *shot_file;
    enum RecordKind form;
    struct TaskFilter where, shot_where;
    struct TaskLines set, replace; // fields made of others, in their order; patterns replaced in them
    // Texts. chat: what a chat's user says instead of query.
    char *intro, *query, *chat, *answer, *choice_text, *between;
    char *program, *setup, *checks, *entry, *reference; // of code; see code.h
    struct TaskLines shot;                              // shots written out
    // Choices and answers.
    char *choices, *labels, *gold, *golds, *gold_split;
    struct TaskLines choice, stop;
    enum GoldKind gold_is;
    struct Extraction extract, gold_extract;
    enum Normal normal;
};

// False after one line with file and line.
bool task_parse(struct Task *t, const char *text, size_t bytes, const char *name, const char *path);
void task_free(struct Task *t);

// Those that are built in, in the order of the DeepSeekMoE paper's table, up to one with name NULL.
struct TaskSource {
    const char *name, *text;
    size_t bytes;
};
extern const struct TaskSource TASKS[];
