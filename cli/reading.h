// The flags that say how data files are read, alike in `train` and `data`.
#pragma once
#include "cli/args.h"
#include "cli/term.h"
#include "train/data.h"

struct Reading {
    char **paths; // (n_paths)
    size_t n_paths;
    struct Columns columns;
    double *weights; // (n_paths), or NULL
    struct Progress progress;
    struct DataOptions options; // max_tokens is left to the caller
};
// A Reading must stay where it is: its options point into it.
// `list`: names by commas; one that is as it stands a file is a single name. False after a message.
bool reading_open_list(struct Reading *r, const struct Args *args, const char *list);
bool reading_open(struct Reading *r, const struct Args *args, const char *const *paths, size_t n_paths);
void reading_free(struct Reading *r);
// What was read and what was left out, as lines on stderr. `name`: "data".
void reading_show(const struct Dataset *d, const char *name, const struct DataOptions *options, uint32_t context);
// One example as the model sees it: tokens that are learnt are green, or in [[ ]] where there are no colours. At most so many tokens.
void reading_show_example(FILE *to, const struct Dataset *d, const struct Example *e, const struct Tokenizer *tokenizer,
                          uint32_t most);
