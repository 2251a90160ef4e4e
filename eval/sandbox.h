// Running what a model wrote. A program in Python and the checks of its record run in two boxes (box.h): neither can reach the
// machine, and the program cannot reach the checks. It is asked for the results of its functions, and these are compared where it
// has no say. docs/sandbox.md says what each layer holds back and how verdicts are kept honest.
#pragma once
#include "runtime/base.h"

enum { SANDBOX_KEPT_OUTPUT = 1 << 16, SANDBOX_DETAIL_BYTES = 640 };

struct Sandbox; // a Python and the files it needs; one serves any number of runs, in any number of threads

// Finds out what the interpreter (NULL: /usr/bin/python3) needs, and tries the sandbox with a right program and a wrong one. NULL after a
// message that names the layer that is missing here: nothing runs with fewer layers. Needs Linux 5.14 with user namespaces for this user,
// Landlock and seccomp, on x86-64 or aarch64.
struct Sandbox *sandbox_open(const char *python);
void sandbox_close(struct Sandbox *s);
// For tests: whether sandbox_open() would succeed; else `reason` is one line that names the layer.
bool sandbox_available(const char *python, char *reason, size_t reason_bytes);

// What is to be run, as UTF-8. Everything but the program comes from the benchmark's record and is believed.
struct SandboxJob {
    const char *program;
    const char *setup;  // runs before the checks, in their box (NULL: nothing)
    const char *checks; // have passed when they run to their end without an exception and have called the program
    const char *entry;  // a function that is the program's, even where the set-up defines one of its name (NULL: none)
    const char *
        reference; // the record's solution; is not run (NULL: none). What it defines is the program's, even where Python has
                   // something of that name; what it imports is imported for the checks
};
// Names that the checks use and that neither they, the set-up, Python nor the reference's imports define are the program's as well.

// Time is judged by what the processor spent, which a busy machine does not change; the clock on the wall is for what waits.
struct SandboxLimits {
    unsigned cpu_seconds;  // of each of the two, all threads together, from the start of its Python
    double wall_seconds;   // from the moment at which both Pythons run
    uint64_t memory_bytes; // of address space, of each of the two
};
static const struct SandboxLimits SANDBOX_LIMITS = {.cpu_seconds = 10, .wall_seconds = 100, .memory_bytes = 1ull << 30};

enum SandboxVerdict {
    SANDBOX_PASSED,
    SANDBOX_FAILED,    // a check failed, or an exception got through it
    SANDBOX_ENDED,     // the program ended itself, or was ended by a limit
    SANDBOX_TIMED_OUT, // used up one of its two times
};
extern const char *const SANDBOX_VERDICTS[]; // "passed", "failed", "ended", "timed out"

struct SandboxResult {
    enum SandboxVerdict verdict;
    double seconds;                    // by the clock on the wall
    char detail[SANDBOX_DETAIL_BYTES]; // one line: the exception and the check at which it came up, or the signal
    char *output; // the first SANDBOX_KEPT_OUTPUT bytes that the program printed; they prove nothing
    size_t output_bytes;
};

// False after a message where the sandbox itself failed: then there is no verdict, and nothing to free.
bool sandbox_run(const struct Sandbox *s, const struct SandboxJob *job, const struct SandboxLimits *limits,
                 struct SandboxResult *result);
void sandbox_result_free(struct SandboxResult *result);
