// What the parts of `vkmoe bench` share: the device's own peaks, and the table that each of them prints row by row.
#pragma once
#include "cli/output.h"
#include "model/config.h"
#include "model/opcheck.h"

// ---- The device's own peaks (bench_peaks.c)

struct Peaks {
    double gflops;        // f32 multiply-adds in registers
    double matrix_gflops; // multiply-adds of the matrix units in registers, with operands of dev->coopmat.type; 0: none
    double pair_gflops;   // products of pairs of f16 added in f32, in registers; 0: no instruction for them
    double read_gbytes;   // reading
    double copy_gbytes;   // read and written
    double dispatch_us;   // an empty dispatch with its barrier
};
bool peaks_measure(struct Device *dev, struct Peaks *p);
// What traffic is measured by: the greater of reading and copying, because kernels write too.
double peaks_gbytes(const struct Peaks *p);
// What a time is measured by beside a peak: on CPU devices the processor time over all cores, which other programs do not lengthen.
double bench_fair_us(const struct Device *dev, double us, double cpu_us);
void peaks_show(const struct Args *args, const struct Device *dev, const struct Peaks *p);
// GFLOP/s of the best square matrix product that this device makes with weights of this type (bf16 where it is quantised), forward.
double peaks_gemm(struct Device *dev, enum DType type);

// ---- The table (bench_table.c)

struct BenchColumn {
    const char *key;     // of a row's member
    const char *heading; // in the table; NULL: it has no column there
    int width;           // of the column; below 0: to the left
    int digits;          // after the point; below 0: as a power of ten
};
// What tables of kernels have behind a time: how sure it is and what it means.
#define BENCH_RATES                                                                                                    \
    {"spread_percent", "spread%", 7, 1}, {"cpu_us", "CPU us", 10, 1}, {"gflops", "GFLOP/s", 9, 2},                     \
        {"gbytes_per_s", "GB/s", 8, 2}, {                                                                              \
        "peak_percent", "peak%", 6, 1                                                                                  \
    }
// Rows are JSON objects. They are printed as they come: aligned, as CSV, in Markdown or as an array of JSON.
struct BenchTable {
    const struct Args *args;
    const struct Device *dev;
    const struct BenchColumn *columns; // up to a zeroed entry
    uint32_t n_names;                  // the first so many columns tell what a row is: --compare finds it by them
    const char *figure;                // the member that --compare compares
    bool less_is_better;
    json_t *before; // of --compare, or NULL
    uint32_t n_rows, n_worse, n_compared;
    bool told_settings, told_device; // that those of a row were others before
    struct OutputGuard guard;        // of --json
};
// False where --compare cannot be read, or flags exclude each other.
bool bench_begin(struct BenchTable *t, const struct Args *args, const struct Device *dev,
                 const struct BenchColumn *columns, uint32_t n_names, const char *figure, bool less_is_better);
void bench_row(struct BenchTable *t, json_t *row); // takes the row
// The program's exit status: failed where a row was worse than --threshold allows, or none was found again.
int bench_end(struct BenchTable *t, bool ok);

// Median, and the distance of the quartiles in percent of it; sorts the values.
struct Spread {
    double median, percent;
};
struct Spread spread_of(double *values, uint32_t n);
// Whole numbers by commas, one to `room` of them; false after one line.
bool bench_list(const struct Args *args, const char *flag, uint32_t *list, uint32_t room, uint32_t *n);

// A member of a row; null where it is not finite, for which JSON has no number.
json_t *bench_number(double value);

// What a model is called in the table: the last part of its path, as UTF-8; malloc'ed.
char *bench_model_name(const char *path);

// The table of time by operation that was collected since profile_begin, on stderr, and as bars in --png.
bool bench_operations(const struct Args *args, const char *title);

// ---- Shapes of kernels (bench_shapes.c)

enum { SHAPE_LIST = 24 };
struct ShapeList {
    uint32_t shape[SHAPE_LIST][OP_SHAPE], n;
};
// What a model asks of an operation in a pass over so many tokens; up to 8 are a step of decoding. Empty: nothing.
void bench_shapes(struct ShapeList *l, const struct OpCase *oc, const struct Config *c, uint32_t tokens);

// ---- The parts

int bench_model(const struct Args *args);
int bench_train(const struct Args *args);
// A user's module in the place of one of the list.
struct OwnKernel {
    enum KernelId id;
    struct KernelInfo info;
};
// filter NULL: all. own: NULL, or each of its rows beside the built-in kernel's time.
int bench_kernels(const struct Args *args, struct Device *dev, const char *filter, const struct OwnKernel *own);
int bench_shader(const struct Args *args, const char *path, const char *filter);
int bench_static(const struct Args *args, const char *filter);
// What the driver's compiler told about the pipelines of a kernel from statistic `first` on: an object by name; empty where it tells nothing.
json_t *bench_pipeline(const struct Device *dev, enum KernelId kernel, uint32_t first);
// A line of it on stderr, those of another in brackets behind where they differ.
void bench_pipeline_show(const json_t *statistics, const json_t *beside);
// What makes bench_static's columns, from statistics by the driver's names, into a row.
void bench_figures(json_t *row, const json_t *statistics);
int bench_peer(const struct Args *args, const char *filter);
