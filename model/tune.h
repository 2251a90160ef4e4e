// Tiles by measurement. An operation that can cut its work in several ways, all with the same order of sums, asks here which to take: the first time
// that a kernel meets a class of shapes, each way runs on scratch memory; the fastest is kept, for this run and on disk for the next ones. Ways
// whose result differs in any bit from the table's (model/tiles.h) are left out, so nothing but speed depends on what is measured or cached.
#pragma once
#include "runtime/cmd.h"

// What the numbers mean is the operation's business.
struct Tile {
    uint32_t rows, cols, threads, way;
};

// A pointer in the arguments of a kernel, and what scratch memory holds there: random rows of a type, or (DT_U32) what `words` writes. Pointers
// that no operand names keep what they are; the first one is what the kernel writes.
struct TuneOperand {
    size_t at; // of the struct View in the arguments
    enum DType type;
    uint32_t cols; // of a row; of DT_U32 any
};
enum { TUNE_OPERANDS = 8, TUNE_WAYS = 16 };
struct TuneQuestion {
    enum KernelId kernel;
    enum DType type;   // of the weights
    uint32_t kind;     // whatever else makes another class: grouping, flags
    uint32_t shape[3]; // rounded to powers of two for the class
    struct Tile ways[TUNE_WAYS];
    uint32_t n_ways; // ways[0] is the table's
    struct TuneOperand operands[TUNE_OPERANDS];
    uint32_t n_operands;
    const void *args; // the kernel's arguments; views say how much scratch memory each operand takes
    size_t args_bytes;
    const void *job; // for the calls below
    struct Dispatch (*dispatch)(const void *job, const struct Tile *way);
    void (*words)(const void *job, size_t at, uint32_t *to, uint64_t n);
};

// Adds a way where there is room and none is like it.
void tune_way(struct TuneQuestion *q, struct Tile way);
// The way to take: the table's, unless tune_begin was called and another one was found to be faster, now or before.
struct Tile tune_pick(struct Device *dev, const struct TuneQuestion *q);

// From here on ways are looked up in the cache of this device and driver, and measured for so many seconds in all, compiling included (0: only
// looked up). What is begun is ended by device_close.
void tune_begin(struct Device *dev, double seconds);

// Of tests and benches. What was found so far; table_us 0: not measured here but read.
struct TuneChoice {
    enum KernelId kernel;
    enum DType type;
    uint32_t kind, shape[3];
    struct Tile way;     // all 0: the table's
    double table_us, us; // of the table's way and of this one
    uint32_t begun;      // measurements that were begun and not ended, by this run and those before
    bool tried;          // by this run
};
const struct TuneChoice *tune_choices(const struct Device *dev, uint32_t *n);
uint32_t tune_measured(const struct Device *dev); // classes measured since tune_begin
void tune_log(struct Device *dev, FILE *to);      // a line for each way that is measured
void tune_force(struct Device *dev, int way); // this one of every question that has so many, measured or not; -1: none
uint32_t tune_ways(const struct Device *dev); // the most that a question had since the last tune_force or tune_begin
char *tune_path(const struct Device *dev);    // of the file; malloc'ed
