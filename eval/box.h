// A box: one process in namespaces of its own, that sees a Python and nothing else, may make few system calls, and dies with
// all it started when it is killed. sandbox.c puts two of them together; this file and confine.c know nothing of what runs inside.
#pragma once
#include "runtime/base.h"

#include <signal.h>
#include <sys/types.h>

// What is to be seen, in the order in which it is made. Paths are absolute and the same inside as outside.
struct BoxFile {
    char kind;           // 'd' a folder and all below, 'f' a file, 'l' a symbolic link
    char *path, *target; // target: of a link
};

enum { BOX_MAX_FDS = 8, BOX_LAYER_BYTES = 40 };

// All that the box needs, made ready before it is born: between its birth and its exec it allocates nothing, because another
// thread may have held the heap's lock.
struct BoxPlan {
    const struct BoxFile *files;
    size_t n_files;
    const char *const *argv; // argv[0] is the program, among `files`
    int fds[BOX_MAX_FDS];    // become 0 .. n_fds-1; every other descriptor is closed
    int n_fds;
    uint64_t memory_bytes; // of address space
    unsigned cpu_seconds;  // SIGXCPU then, SIGKILL a second later
};

struct Box {
    pid_t pid; // process 1 of the box, seen from here
    int report;
};

// What process 1 says at the end, or when it cannot go on.
struct BoxReport {
    char layer[BOX_LAYER_BYTES]; // what could not be set up; empty where all was
    int error;                   // errno of that
    int status;                  // of the program, as from waitpid
    double cpu_seconds;          // that it used
};

// Starts a box. False after a message that names the layer which is missing here. What is refused inside, after the start, is in the
// report.
bool box_start(struct Box *box, const struct BoxPlan *plan);
// Kills all that is in the box and waits for its end. The report may be NULL; where the box was killed before it wrote one, it keeps its values but
// for the status.
void box_end(struct Box *box, struct BoxReport *report);

// The namespaces one by one: the first that cannot be made, or NULL.
const char *box_missing_namespace(void);

// confine.c: takes away from the calling process what is left, in this order: groups and ids, capabilities, limits, Landlock, system calls.
// NULL, or the layer that failed with errno set. The next thing the process does is exec.
enum { BOX_UID = 1000 }; // inside
const char *confine_process(const struct BoxPlan *plan);
