// Programs that a model wrote: taken out of its answer, put together with what must stand around them, and run with their tests.
#pragma once
#include "eval/items.h"

// The program of an answer to a code task: a block of code where the answer has one, else the answer up to the task's stop strings, put
// into the task's [program] as {code}. malloc'ed; NULL after a message.
char *code_program(const struct Task *t, const struct Item *item, const char *answer);

struct CodeVerdict {
    bool passed;
    char text[64]; // "passed", "failed", "timeout", ...
};
// Runs program and checks in the sandbox (Linux). False after a message where it cannot be had, which no verdict may come from.
bool code_run(const char *program, const char *checks, struct CodeVerdict *verdict);
// Whether code_run can be had here; false after a message that says which layer is missing.
bool code_available(void);
