// Recording and replaying work. A Cmd records dispatches; cmd_end makes a Program of them that can be run again and again. The recorder
// tracks the byte ranges that each dispatch reads and writes and puts a barrier only where one is due; the log of it can be checked
// again pair by pair (program_check). What does not depend on each other is brought together, so that it shares a barrier. Long programs are cut into submits of about 50 ms by a cost model that measured times correct, dispatches that are
// longer by far too.
#pragma once
#include "runtime/device.h"
#include "runtime/memory.h"

struct Dispatch {
    enum KernelId kernel;
    uint32_t local_size;            // 0: one subgroup on CPU devices, at least 128 elsewhere
    uint32_t subgroup;              // 0: the device's; one that it can be told to take
    uint32_t spec[KERNEL_MAX_SPEC]; // specialisation constants 2, 3, ... (0 and 1 are local size and subgroup size)
    uint32_t n_spec;
    uint32_t groups[3];   // groups[1] and [2] 0: a linear grid of groups[0], folded into y where it is long
    struct View indirect; // where not absent: groups are read from these three words instead
    double flops, bytes;  // for the cost model, profile and bench
    bool at_most;         // they are bounds, what there is to do is known on the device alone: no rates are told of it
    const char *label;    // NULL: the kernel's name
};

// Width of a workgroup when a dispatch does not choose one: one subgroup on CPU devices, at least 128 elsewhere.
uint32_t cmd_local_size(const struct Device *dev);

struct Cmd;     // being recorded
struct Program; // recorded

struct Cmd *cmd_begin(struct Device *dev, const char *name);
// `args` is the struct Args_<push> of the kernel.
void cmd_dispatch(struct Cmd *c, const struct Dispatch *d, const void *args);
struct Device *cmd_device(struct Cmd *c);
void cmd_fill(struct Cmd *c, const struct Tensor *t, uint32_t value);             // every 32-bit word
void cmd_copy(struct Cmd *c, const struct Tensor *from, const struct Tensor *to); // same bytes
// What follows waits until all before it has run and the host has made this call: it may read what the device wrote to host memory, and what it
// writes or copies is seen by what follows. `context` is copied. Where it returns false (after a message) the run fails.
// It is made before the next dispatch: one must follow, and one must lie between two calls.
void cmd_host(struct Cmd *c, bool (*call)(struct Device *dev, void *context), const void *context, uint32_t bytes);
// NULL (after a message) when anything failed. The Cmd is gone either way.
struct Program *cmd_end(struct Cmd *c);

bool program_submit(struct Program *p); // returns at once; order is kept
bool program_run(struct Program *p);    // submit and wait
void program_free(struct Program *p);
double program_flops_of(const struct Program *p, enum KernelId kernel); // by the count of its dispatches
uint32_t program_dispatches(const struct Program *p);
bool program_uses(const struct Program *p, enum KernelId kernel);
bool program_writes(const struct Program *p, struct View v); // whether a dispatch states that it writes to some of it
uint32_t program_barriers(const struct Program *p);

// Looks at the finished log pair by pair and returns the number of dispatches that touch memory a former one of the same program
// wrote (or read, when it writes) without a barrier between, or before one that was recorded ahead of them. `without`: leave out barrier number `without`; -1: none.
uint32_t program_check(const struct Program *p, int without);

// Times a program: runs it `warm` + `reps` times and fills us[reps] with the device's own timestamps where it has them, else the wall clock.
bool program_time(struct Program *p, uint32_t warm, uint32_t reps, double *us);

// With VKMOE_PROFILE=1, or between profile_begin and profile_end, every dispatch of a program that is run for the first time is timed, one at a
// time, and goes on being so; profile_print shows the table per label, summed over all programs run so far.
struct ProfileRow {
    const char *label;
    double us, flops, bytes; // summed over n dispatches; flops and bytes are NaN where one of them gave bounds
    uint64_t n;
};
void profile_begin(void);                             // with an empty table
uint32_t profile_end(const struct ProfileRow **rows); // the slowest first; they live until the next profile_begin
void profile_print(struct Device *dev);
// A line of it; total_us: of all rows.
void profile_print_row(const struct ProfileRow *r, double total_us);
