// An evaluation: asks an Answerer all items of all tasks, keeps each prompt, answer and verdict as a line of a journal, and adds up scores. The
// journal is written in the order of the items, whatever order answers come in, so that after a kill it is the beginning of the whole one: what
// stands in it is not asked again, and the finished file is the same, byte for byte.
#pragma once
#include "eval/answer.h"
#include "eval/code.h"

struct GroupScore {
    uint32_t n, correct, correct_norm; // correct_norm: by length-normalised likelihood
    uint32_t cut;                      // prompts that were too long
};
struct TaskScore {
    struct GroupScore all, *groups; // (n_groups)
    double value, error;            // of the task's metric, 0..1, and its standard error
    double other;                   // METRIC_ACC: acc_norm, and the other way round; else NAN
    double subject_mean;            // mean of the subjects' values
};
struct EvalRun {
    const struct Asked *asked; // (n)
    uint32_t n;
    struct TaskScore *scores; // (n), to be filled
    struct Answerer answerer;
    // How programs are run; code_run but in tests.
    bool (*execute)(const struct CodeJob *job, struct CodeVerdict *verdict);
    const char *journal; // path
    json_t *about; // who answers and how: the journal's first line, which must be the same for an evaluation to go on
    void (*progress)(void *context, uint64_t done, uint64_t total, const char *task, double score);
    void *context;
    uint64_t resumed; // so many answers were taken over from an interrupted run
};
// False after one line; what was answered is in the journal.
bool eval_run(struct EvalRun *r);
void eval_scores_free(struct TaskScore *scores, uint32_t n);
// Asks nothing: writes a line of JSON per item, its texts as in the journal and their tokens. Of m only tokenizer and template are used.
bool eval_list(const struct Asked *asked, uint32_t n, const struct AnswerModel *m, FILE *out);
// Of everything that the tasks ask: part of `about`.
void eval_hash(const struct Asked *asked, uint32_t n, char hex[65]);
const char *eval_metric_name(enum TaskMetric metric);

// Whether results may be written there: to nothing yet, or over others. False after one line.
bool eval_may_write(const char *path);
// results.json; tasks that could not be asked are in `failed` (n_failed), with their words.
struct EvalFailure {
    const char *task, *title, *message;
};
bool eval_write(const struct EvalRun *r, const struct EvalFailure *failed, uint32_t n_failed, double seconds,
                const char *path);
