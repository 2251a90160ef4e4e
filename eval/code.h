// Programs that a model wrote: taken out of its answer, put together with what must stand around them, and run with their tests.
#pragma once
#include "eval/items.h"

// The program of an answer to a code task: a block of code where the answer has one, else the answer up to the task's stop strings, put
// into the task's [program] as {code}. malloc'ed; NULL after a message.
char *code_program(const struct Task *t, const struct Item *item, const char *answer);

// What is to be run: the program of the model; the rest is the record's and is believed.
struct CodeJob {
    const char *program;
    const char *setup;     // runs before the checks, beside them (NULL: nothing)
    const char *checks;    // have passed when they run to their end without an exception
    const char *entry;     // the function that they call, which must be the program's (NULL: by what the checks use)
    const char *reference; // the record's own solution, which is not run (NULL: none)
};
struct CodeVerdict {
    bool passed;
    char text[64]; // see SANDBOX_VERDICTS
};
// Runs the program against its checks in the sandbox. False after a message where there is none: no verdict then. One thread.
bool code_run(const struct CodeJob *job, struct CodeVerdict *verdict);
// Whether code_run can be had here; false after a message that says which layer is missing.
bool code_available(void);
void code_close(void);
