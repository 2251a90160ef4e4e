// Results of several models side by side, as the DeepSeekMoE paper's table has them: what each costs on top, then a row per task.
#pragma once
#include "runtime/base.h"

struct ReportCell {
    char *text, *error; // "67.9", "1.2"; error NULL: none
    bool best;          // of its row, where several models have a score
};
struct ReportRow {
    char *name, *note;        // "HellaSwag", "acc_norm, 0-shot"
    bool uneven;              // not all models were asked the same: records, shots or task file differ
    struct ReportCell *cells; // (n_models)
};
struct Report {
    uint32_t n_models, n_rows, n_costs; // n_costs: so many first rows tell what a model costs
    char **models;                      // these names, and those of rows, are from files: harmless on a terminal
    struct ReportRow *rows;
};
// From result files of eval_write; with a row for each subject behind its task, where that is wanted. False after one line.
bool report_read(struct Report *r, const char *const *paths, uint32_t n, bool subjects);
void report_free(struct Report *r);
