// What a task asks: its records made into prompts, choices and accepted answers, by subject.
#pragma once
#include "eval/task.h"

struct Item {
    struct Record record; // with the fields that the task sets
    char *prompt;         // of a cloze task NULL
    // Choices: of a cloze task contexts[i] stands before the continuation, else the prompt does.
    uint32_t n_choices, gold;
    char **choices, **contexts, **continuations; // (n_choices); choices: their bare texts
    char **accepted;                             // (n_accepted), of a task that generates
    uint32_t n_accepted;
    char *checks, *setup, *entry, *reference; // of a code task; the last three may be NULL
};
struct Group {
    char *subject; // "" where the task has none
    char *fixed;   // intro and shots: what all prompts of the group begin with
    struct Item *items;
    uint32_t n;
};
struct Asked {
    const struct Task *task;
    struct Group *groups;
    uint32_t n_groups, n_items; // n_items: of all groups
    uint32_t shots;
};

struct AskOptions {
    const char *dir; // of the data
    bool chat, shots_given;
    uint32_t shots; // instead of the task's, where given
    uint32_t limit; // items of the task at most, taken from all subjects in turn; 0: all
};
// False after one line that names task or file and line.
bool items_read(struct Asked *a, const struct Task *task, const struct AskOptions *o);
void items_free(struct Asked *a);
