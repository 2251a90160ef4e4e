// One table of operation checks, used three times: the test suite runs every case with every kernel variant at odd shapes, the start-up known-answer
// test runs the small shape of each case once per driver, `bench kernels` runs the real shapes with a clock. A case makes random inputs,
// runs the operation on the device and compares with the double-precision reference in ref.h.
#pragma once
#include "model/ops.h"

struct Check {
    struct Device *dev;
    uint64_t seed;
    bool time;       // also time the program
    bool warm;       // what the caches hold of the run before stays there: as where inputs were just written
    uint32_t sample; // 0: compare everything; else only so many randomly chosen outputs (large shapes)
    // Results
    double nmse;          // worst normalised mean square error over the outputs of the case: |got - want|^2 / |want|^2
    double bound;         // the case's bound for this storage type and body
    bool guard_ok;        // guard bands round every output and the bytes of every input untouched
    double us;            // median time of one run
    double us_spread;     // (third - first quartile)
    double cpu_us;        // processor time of one run, of all threads: what a CPU device spent
    double flops, bytes;  // of one run
    uint64_t bits;        // a hash of all that the outputs held behind the first run
    enum KernelId kernel; // the variant that ran
};

// How slots fall on experts, of the matrix multiplies' shapes; skewed: the first eighth of the experts gets half of them.
enum CheckSpread { SPREAD_RANDOM, SPREAD_ALL_TO_ONE, SPREAD_SOME_IDLE, SPREAD_SKEWED };
enum { LINEAR_GATHER = 2 };    // of their flags: x has a row per token
enum { ATTENTION_CAUSAL = 1 }; // layout of attention's shapes

// Between two runs that are timed something else goes through the caches, as between two uses of a weight: more than the last level of any processor or
// card holds.
enum { FLUSH_BYTES = 256 << 20, FLUSH_HOST_BYTES = 64 << 20 };
struct Flush {
    struct Arena arena;
    struct Program *program; // of a GPU
    uint8_t *host;           // of a CPU device
};
bool flush_open(struct Flush *f, struct Device *dev); // false: no room on the card
bool flush_run(struct Flush *f);
void flush_close(struct Flush *f);

enum { OP_SHAPE = 8 };
struct OpCase {
    const char *name;                   // "linear q4_1"
    const int *kernels;                 // -1 terminated: every module that can serve it
    const uint32_t (*shapes)[OP_SHAPE]; // odd shapes for tests; the first is the known-answer shape
    uint32_t n_shapes;
    const uint32_t (*bench)[OP_SHAPE]; // real shapes (presets: prefill, decode, training)
    uint32_t n_bench;
    const char *shape_names; // "m,n,k"
    bool (*run)(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
    enum DType type;        // storage type of the weights where the case has them
    uint32_t variant;       // free for the case
    uint32_t n_bench_large; // so many of the last bench shapes are for GPUs alone
    uint32_t divides_last;  // of a preset's shapes those whose last number this divides; 0: all
};
// The cases of each file; OPCHECK_FILES is all of them.
typedef uint32_t OpCases(const struct OpCase **cases);
OpCases opcheck_linear, opcheck_rows, opcheck_attention;
enum { N_OPCHECK_FILES = 3 };
extern OpCases *const OPCHECK_FILES[N_OPCHECK_FILES];
// Of opcheck_linear's cases, those of check_few.c.
bool check_beside(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_experts_up(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);
bool check_experts_down(struct Check *ck, const struct OpCase *oc, const uint32_t *shape);

// Runs one case at one shape with `kernel` forced (-1: the device's own pick), then tells (fail) what is wrong: false when the
// error is above the bound, a guard or an input was touched, or the program did not run.
bool opcheck_run(struct Check *ck, const struct OpCase *oc, const uint32_t *shape, int kernel);
// Whether this device may ever take a module: not where it is switched off, nor, on a GPU, the bodies for CPU devices (there one can take 8 s to compile).
bool opcheck_concerns(const struct Device *dev, int kernel);
// Every case x every module that concerns the device x every odd shape. Returns the number of failures; *ran counts the runs.
uint32_t opcheck_suite(struct Device *dev, uint64_t seed, const struct OpCase *cases, uint32_t n_cases, uint32_t *ran);

// ---- Helpers for cases (opcheck.c): tensors with guard bands, random contents, comparison. A case:
//   checkrun_begin(&r, ck); x = checkrun_random(...); y = checkrun_output(...);
//   c = cmd_begin(ck->dev, oc->name); op_...(c, &x->t, ...); ok = checkrun_execute(&r, cmd_end(c));
//   if (ok) checkrun_compare(&r, y, want);  checkrun_end(&r); return ok;
// A tensor that is read and written: make it by checkrun_random or checkrun_values and set output = true; `value` holds the
// original contents until checkrun_execute, so make the reference first (or keep a copy).
// Guards (and f32 outputs before the run) hold a word that is NaN as f32 and as a pair of f16 or bf16.
struct CheckTensor {
    struct Tensor t;
    struct Tensor whole; // with guards
    void *host;          // device layout, what was uploaded, guards included
    double *value;       // decoded contents
    uint64_t n;
    bool output;
};

enum { CHECK_POISON = 0x7fc17fc1 }; // that word

// A tensor's shape as two arguments.
#define DIMS(...)                                                                                                      \
    (uint32_t)(sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)), (uint32_t[]) { __VA_ARGS__ }

static inline uint32_t random_below(const struct Check *ck, uint64_t stream, uint64_t i, uint32_t n) {
    uint32_t words[4];
    philox(ck->seed, stream, i, words);
    return words[0] % n;
}

enum { CHECK_MAX_TENSORS = 24 };
struct CheckRun {
    struct Check *ck;
    struct Arena arena; // also scratch for the operation
    struct CheckTensor tensor[CHECK_MAX_TENSORS];
    uint32_t n;
};
void checkrun_begin(struct CheckRun *r, struct Check *ck);
// Random, nearly normal, times scale, rounded to the type (quantised types are encoded and `value` holds what they decode to).
struct CheckTensor *checkrun_random(struct CheckRun *r, enum DType type, uint32_t n_dims, const uint32_t *dim,
                                    double scale);
// The scale of weights. Types with scales in f16 get trained weights', whose small ones are subnormal there: a driver that flushes those shows. Not where what is
// added to hides the products.
double check_weights_deviation(enum DType type, bool accumulate);
// From host values: float for F32, F16, BF16 and the quantised types, uint32_t for U32.
struct CheckTensor *checkrun_values(struct CheckRun *r, enum DType type, uint32_t n_dims, const uint32_t *dim,
                                    const void *values);
struct CheckTensor *checkrun_output(struct CheckRun *r, uint32_t n_dims, const uint32_t *dim); // f32, filled with NaN
struct CheckTensor *checkrun_output_u32(struct CheckRun *r, uint32_t n_dims,
                                        const uint32_t *dim); // u32, filled likewise
// What a program of the case's own has left in an output is an input from here on.
bool checkrun_settle(struct CheckRun *r, struct CheckTensor *t);
// Runs the program, downloads outputs (`value` becomes what the device wrote), verifies guards, inputs and that what was
// written was stated to be, then times it where
// ck->time (outputs on the device are then the result of many runs; `value` is that of the first). Frees the program.
bool checkrun_execute(struct CheckRun *r, struct Program *p);
// Raises ck->nmse to the error of an output against n reference values.
void checkrun_compare(struct CheckRun *r, const struct CheckTensor *t, const double *want);
// The same for large shapes: which elements to compute (all, or ck->sample of them; malloc'ed), then their comparison.
uint64_t checkrun_pick(const struct CheckRun *r, const struct CheckTensor *t, uint64_t **index);
void checkrun_compare_at(struct CheckRun *r, const struct CheckTensor *t, uint64_t count, const uint64_t *index,
                         const double *want);
void checkrun_end(struct CheckRun *r);
