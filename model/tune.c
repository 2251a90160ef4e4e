// The file is text: a first line that names the format, the device, the driver and the hash of the rest, then a line per class: kernel, hash of its
// SPIR-V, type, kind, shape, the way, and how often its measurement was begun and not ended. A file whose first line is not what it should be is not believed. A way is taken only where it
// is one of those that the operation itself offers for the shape at hand, so no file can bring constants of its own.
#include "model/tune.h"
#include "model/opcheck.h"
#include "model/quant.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CHOICES = 512, MOST_FILE_BYTES = 1 << 20, ROUNDS = 5, MOST_BEGUN = 2 };
static const uint64_t MOST_SCRATCH_BYTES = UINT64_C(1) << 30;
static const double WORTH = 0.97;       // of the table's time: what is not clearly faster changes nothing
static const double HOPELESS = 1.5;     // of the best one's time: not measured again
static const double WAKE_SECONDS = 0.3; // a GPU that stood idle raises its clock in steps

struct Tuning {
    double seconds_left;
    FILE *log;
    int force;
    bool awake;
    uint32_t n, n_measured, most_ways;
    struct TuneChoice choice[MOST_CHOICES];
};

// ---- Classes

static uint32_t round_up(uint32_t n) {
    uint32_t p = 1;
    while (p < n && p < UINT32_C(1) << 31)
        p *= 2;
    return p;
}

static struct TuneChoice class_of(const struct TuneQuestion *q) {
    struct TuneChoice c = {.kernel = q->kernel, .type = q->type, .kind = q->kind};
    for (int i = 0; i < 3; i++)
        c.shape[i] = round_up(q->shape[i]);
    return c;
}

static struct TuneChoice *choice_find(struct Tuning *t, const struct TuneChoice *of) {
    for (uint32_t i = 0; i < t->n; i++) {
        struct TuneChoice *c = &t->choice[i];
        if (c->kernel == of->kernel && c->type == of->type && c->kind == of->kind &&
            memcmp(c->shape, of->shape, sizeof c->shape) == 0)
            return c;
    }
    return NULL;
}

static bool same_way(const struct Tile *a, const struct Tile *b) { return memcmp(a, b, sizeof *a) == 0; }

void tune_way(struct TuneQuestion *q, struct Tile way) {
    for (uint32_t i = 0; i < q->n_ways; i++)
        if (same_way(&q->ways[i], &way))
            return;
    if (q->n_ways < TUNE_WAYS)
        q->ways[q->n_ways++] = way;
}

// ---- The file

char *tune_path(const struct Device *dev) {
    char name[80];
    uint64_t hash = hash_bytes(dev->driver_uuid, 16, hash_bytes(dev->device_uuid, 16, dev->driver_version));
    snprintf(name, sizeof name, "tiles-%04x-%04x-%016" PRIx64 ".txt", dev->vendor_id, dev->device_id, hash);
    return path_join(cache_dir(), name);
}

static void head_line(const struct Device *dev, const char *rest, size_t bytes, char line[192]) {
    int at = snprintf(line, 192, "vkmoe-tiles 1 %x %x %x ", dev->vendor_id, dev->device_id, dev->driver_version);
    for (int i = 0; i < 32; i++)
        at += snprintf(line + at, 192 - (size_t)at, "%02x", i < 16 ? dev->device_uuid[i] : dev->driver_uuid[i - 16]);
    snprintf(line + at, 192 - (size_t)at, " %016" PRIx64 "\n", hash_bytes(rest, bytes, 0));
}

// Of a module, and of the one that a way of it may take instead (ops_linear.c: BY_CM2).
static uint64_t kernel_hash(enum KernelId kernel) {
    uint64_t hash = hash_bytes(KERNELS[kernel].words, (size_t)KERNELS[kernel].n_words * 4, 7);
    int other = kernel == KERNEL_gemm_nt_packed_bf16   ? KERNEL_gemm_nt_cm2
                : kernel == KERNEL_gemm_nn_packed_bf16 ? KERNEL_gemm_nn_cm2
                                                       : -1;
    return other < 0 || !KERNELS[other].words
               ? hash
               : hash_bytes(KERNELS[other].words, (size_t)KERNELS[other].n_words * 4, hash);
}

// False for a line of another program's kernels, which is not kept.
static bool choice_read(const char *line, struct TuneChoice *c) {
    char name[64], type[16];
    uint64_t hash;
    *c = (struct TuneChoice){0};
    struct Tile *w = &c->way;
    int n = sscanf(line,
                   "%63s %16" SCNx64 " %15s %8" SCNu32 " %10" SCNu32 " %10" SCNu32 " %10" SCNu32 " %8" SCNu32
                   " %8" SCNu32 " %8" SCNu32 " %8" SCNu32 " %8" SCNu32,
                   name, &hash, type, &c->kind, &c->shape[0], &c->shape[1], &c->shape[2], &w->rows, &w->cols,
                   &w->threads, &w->way, &c->begun);
    return n == 12 && kernel_find(name, &c->kernel) && dtype_find(type, &c->type) && KERNELS[c->kernel].words &&
           hash == kernel_hash(c->kernel);
}

// Adds what the file knows and this run does not.
static void file_merge(struct Device *dev, bool tell) {
    struct Tuning *t = dev->tuning;
    char *path = tune_path(dev), want[192];
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    if (file_exists(path) && file_read(path, MOST_FILE_BYTES, &data, &bytes)) {
        char *text = (char *)data, *rest = strchr(text, '\n');
        rest = rest ? rest + 1 : text + bytes;
        head_line(dev, rest, bytes - (size_t)(rest - text), want);
        if (strlen(want) == (size_t)(rest - text) && memcmp(want, text, strlen(want)) == 0) {
            for (char *line = strtok(rest, "\n"); line && t->n < MOST_CHOICES; line = strtok(NULL, "\n")) {
                struct TuneChoice c;
                if (choice_read(line, &c) && !choice_find(t, &c))
                    t->choice[t->n++] = c;
            }
        } else if (tell)
            warn("%s is damaged or of another driver: it is not used", path);
    }
    free(data);
    free(path);
}

static void file_write(struct Device *dev) {
    file_merge(dev, false); // another process may have been here
    struct Tuning *t = dev->tuning;
    char *path = tune_path(dev), *rest, *all, head[192];
    size_t bytes, all_bytes;
    FILE *f = text_begin(&rest, &bytes);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct TuneChoice *c = &t->choice[i];
        fprintf(f, "%s %016" PRIx64 " %s %u %u %u %u %u %u %u %u %u\n", KERNELS[c->kernel].name, kernel_hash(c->kernel),
                DTYPES[c->type].name, c->kind, c->shape[0], c->shape[1], c->shape[2], c->way.rows, c->way.cols,
                c->way.threads, c->way.way, c->begun);
    }
    text_end(f);
    head_line(dev, rest, bytes, head);
    FILE *g = text_begin(&all, &all_bytes);
    fprintf(g, "%s%s", head, rest);
    text_end(g);
    file_write_atomic(path, all, all_bytes); // where it cannot be written, tiles are measured again next time
    free(rest), free(all), free(path);
}

// ---- Scratch memory

struct Scratch {
    struct Arena arena;
    struct Tensor operand[TUNE_OPERANDS];
    uint64_t args[32]; // the kernel's arguments with scratch memory in the place of the operands'
    struct Program *poison;
};

static struct View *view_at(void *args, size_t at) { return (struct View *)((uint8_t *)args + at); }

static uint64_t scratch_bytes(const struct TuneQuestion *q) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < q->n_operands; i++)
        bytes += align_up(view_at((void *)q->args, q->operands[i].at)->bytes, 256);
    return bytes;
}

// A few random rows, again and again: their number is prime, so that a row which is taken for another one shows.
static bool fill_rows(struct Device *dev, const struct Tensor *to, const struct TuneOperand *o) {
    enum { ROWS = 13 };
    uint64_t row_bytes = dtype_row_bytes(o->type, o->cols), file_bytes = dtype_file_row_bytes(o->type, o->cols);
    uint8_t *rows = xcalloc(ROWS, row_bytes), *file_row = xmalloc(file_bytes);
    float *wide = xmalloc(o->cols * sizeof *wide);
    for (uint64_t i = 0; i < ROWS; i++) {
        random_normals(5, o->at, i * o->cols, o->cols, 1, wide);
        quant_encode_row(o->type, wide, o->cols, file_row);
        quant_row_to_device(o->type, file_row, o->cols, rows + i * row_bytes);
    }
    uint64_t done = min_u64(to->bytes, ROWS * row_bytes);
    bool ok = tensor_upload(dev, to, 0, rows, done);
    for (; ok && done < to->bytes; done = min_u64(to->bytes, 2 * done)) {
        struct TensorCopy copy = {to, to, 0, done, min_u64(done, to->bytes - done)};
        ok = tensors_copy(dev, &copy, 1);
    }
    free(rows), free(file_row), free(wide);
    return ok;
}

static bool fill_words(struct Device *dev, const struct Tensor *to, const struct TuneQuestion *q, size_t at) {
    uint32_t *words = xcalloc(to->bytes / 4, 4);
    q->words(q->job, at, words, to->bytes / 4);
    bool ok = tensor_upload(dev, to, 0, words, to->bytes);
    free(words);
    return ok;
}

static void scratch_free(struct Scratch *s) {
    program_free(s->poison);
    arena_free(&s->arena);
}

// False, and the device as well as before, where there is no room.
static bool scratch_make(struct Scratch *s, struct Device *dev, const struct TuneQuestion *q) {
    memset(s, 0, sizeof *s);
    assert(q->args_bytes <= sizeof s->args);
    memcpy(s->args, q->args, q->args_bytes);
    arena_init(&s->arena, dev, "tiles", ARENA_DEVICE);
    s->arena.exact = true;
    bool ok = true;
    for (uint32_t i = 0; i < q->n_operands && ok; i++) {
        struct View *v = view_at(s->args, q->operands[i].at);
        s->operand[i] = TENSOR(&s->arena, DT_U32, (uint32_t)(v->bytes / 4));
        *v = view(&s->operand[i]);
        ok = s->operand[i].address != 0;
    }
    if (!ok && dev->state == DEVICE_FAILED)
        dev->state = DEVICE_OK; // nothing but memory was asked for, and the job does without
    for (uint32_t i = 1; i < q->n_operands && ok; i++) {
        const struct TuneOperand *o = &q->operands[i];
        ok = o->type == DT_U32 ? fill_words(dev, &s->operand[i], q, o->at) : fill_rows(dev, &s->operand[i], o);
    }
    if (ok) {
        struct Cmd *c = cmd_begin(dev, "tiles");
        cmd_fill(c, &s->operand[0], UINT32_C(0x7fc17fc1)); // what is not written stays NaN
        s->poison = cmd_end(c);
    }
    ok = ok && s->poison;
    if (!ok)
        scratch_free(s);
    return ok;
}

static bool hash_output(struct Device *dev, const struct Tensor *y, uint64_t *hash) {
    uint64_t piece = min_u64(y->bytes, 16 << 20);
    uint8_t *data = xmalloc(piece);
    bool ok = true;
    *hash = 0;
    for (uint64_t at = 0; at < y->bytes && ok; at += piece) {
        uint64_t n = min_u64(piece, y->bytes - at);
        ok = tensor_download(dev, y, at, data, n);
        *hash = hash_bytes(data, n, *hash);
    }
    free(data);
    return ok;
}

// ---- The measurement

struct Contest {
    struct Device *dev;
    const struct TuneQuestion *q;
    struct Scratch s;
    struct Flush flush;
    double deadline;
    struct Program *program[TUNE_WAYS]; // NULL: not tried, or out of it
    uint64_t hash[TUNE_WAYS];
    double us[TUNE_WAYS][ROUNDS];
};

// Compiles one way. A driver that cannot leaves the device as it was: the way is none.
static struct Program *compile(struct Contest *c, uint32_t way) {
    struct Cmd *cmd = cmd_begin(c->dev, "tiles");
    struct Dispatch d = c->q->dispatch(c->q->job, &c->q->ways[way]);
    d.label = "tiles measured";
    cmd_dispatch(cmd, &d, c->s.args);
    struct Program *p = cmd_end(cmd);
    if (!p && c->dev->state == DEVICE_FAILED)
        c->dev->state = DEVICE_OK;
    return p;
}

// On CPU devices the processor's time, which other programs lengthen little.
static bool time_once(struct Contest *c, uint32_t way, double *us) {
    double begin = cpu_seconds();
    bool ok = flush_run(&c->flush);
    if (c->dev->is_cpu)
        begin = cpu_seconds();
    ok = ok && program_time(c->program[way], 0, 1, us);
    if (c->dev->is_cpu)
        *us = (cpu_seconds() - begin) * 1e6;
    return ok;
}

// Compiles a way, and runs it once: its result must be that of the table's to the last bit.
static bool enter(struct Contest *c, uint32_t way) {
    c->program[way] = compile(c, way);
    if (!c->program[way])
        return false;
    bool ok = program_run(c->s.poison) && program_run(c->program[way]) &&
              hash_output(c->dev, &c->s.operand[0], &c->hash[way]);
    if (!ok || c->hash[way] != c->hash[0]) {
        program_free(c->program[way]);
        c->program[way] = NULL;
        return false;
    }
    return true;
}

static int compare_us(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *us, uint32_t n) {
    double sorted[ROUNDS];
    memcpy(sorted, us, n * sizeof *us);
    qsort(sorted, n, sizeof *sorted, compare_us);
    return sorted[n / 2];
}

// All that are left in turn, so that a clock that changes meanwhile favours none; what is far behind after two rounds is left out.
static bool run_rounds(struct Contest *c, uint32_t *rounds) {
    for (*rounds = 0; *rounds < ROUNDS && (*rounds < 2 || clock_seconds() < c->deadline); ++*rounds) {
        double best = INFINITY;
        for (uint32_t i = 0; i < c->q->n_ways; i++) {
            if (c->program[i] && !time_once(c, i, &c->us[i][*rounds]))
                return false;
            if (c->program[i])
                best = fmin(best, fmin(c->us[i][0], c->us[i][*rounds]));
        }
        for (uint32_t i = 1; i < c->q->n_ways && *rounds == 1; i++)
            if (c->program[i] && fmin(c->us[i][0], c->us[i][1]) > HOPELESS * best) {
                program_free(c->program[i]);
                c->program[i] = NULL;
            }
    }
    return true;
}

static void tell(const struct Contest *c, const struct TuneChoice *found, uint32_t way, double us) {
    FILE *to = c->dev->tuning->log;
    const struct Tile *w = &c->q->ways[way];
    char shape[64], tile[64];
    if (!to)
        return;
    snprintf(shape, sizeof shape, "%ux%ux%u", found->shape[0], found->shape[1], found->shape[2]);
    snprintf(tile, sizeof tile, "%ux%u/%u:%u", w->rows, w->cols, w->threads, w->way);
    bool taken = same_way(w, &found->way) || (way == 0 && found->way.rows == 0);
    fprintf(to, "%-24s %-6s %6u %-17s %-16s ", KERNELS[found->kernel].name, DTYPES[found->type].name, found->kind,
            shape, tile);
    if (us > 0)
        fprintf(to, "%10.1f us%s%s\n", us, way == 0 ? " (table)" : "", taken ? " taken" : "");
    else
        fprintf(to, "%10s   \n", us == 0 ? "behind" : "other bits");
}

// What was measured of each way, as far as the time went, becomes the choice.
static void judge(struct Contest *c, struct TuneChoice *found, uint32_t rounds, uint32_t n_tried) {
    uint32_t best = 0;
    double us[TUNE_WAYS] = {0};
    for (uint32_t i = 0; i < c->q->n_ways; i++)
        us[i] = c->program[i] ? median(c->us[i], rounds) : i < n_tried && c->hash[i] != c->hash[0] ? -1 : 0;
    found->table_us = found->us = us[0];
    for (uint32_t i = 1; i < c->q->n_ways; i++)
        if (us[i] > 0 && us[i] < WORTH * us[0] && us[i] < us[best])
            best = i;
    if (best)
        found->way = c->q->ways[best], found->us = us[best];
    for (uint32_t i = 0; i < n_tried; i++)
        tell(c, found, i, us[i]);
}

static void contest_run(struct Contest *c, struct TuneChoice *found) {
    struct Tuning *t = c->dev->tuning;
    uint32_t n_tried = 1, rounds;
    if (!enter(c, 0))
        return;
    for (double awake = clock_seconds() + WAKE_SECONDS; !t->awake && !c->dev->is_cpu && clock_seconds() < awake;)
        if (!program_run(c->program[0]))
            return;
    t->awake = true;
    // One way is always tried: else a driver that compiles for longer than the budget would never come to an end of it.
    for (; n_tried < c->q->n_ways && (n_tried == 1 || clock_seconds() < c->deadline); n_tried++)
        if (!enter(c, n_tried) && c->dev->state != DEVICE_OK)
            return;
    if (run_rounds(c, &rounds)) {
        judge(c, found, rounds, n_tried);
        found->begun = 0;
    }
}

// The class stands in the file as begun before anything runs: a way that brings the program down is tried once more (it may have been the user who
// stopped it), and then no more.
static void measure(struct Device *dev, const struct TuneQuestion *q, struct TuneChoice *found) {
    struct Tuning *t = dev->tuning;
    double begin = clock_seconds();
    uint64_t peak = dev->peak_bytes; // the job's own is what is told
    struct Contest c = {.dev = dev, .q = q, .deadline = begin + t->seconds_left};
    found->begun++, found->tried = true;
    fail_quiet(true);
    if (scratch_make(&c.s, dev, q)) {
        file_write(dev);
        if (flush_open(&c.flush, dev))
            contest_run(&c, found);
        for (uint32_t i = 0; i < q->n_ways; i++)
            program_free(c.program[i]);
        flush_close(&c.flush);
        scratch_free(&c.s);
        if (dev->state == DEVICE_OK)
            file_write(dev);
        t->n_measured++;
    }
    fail_quiet(false);
    if (dev->state != DEVICE_OK)
        fail("%s", fail_last()); // said while it was quiet
    dev->peak_bytes = peak;
    t->seconds_left -= clock_seconds() - begin;
}

struct Tile tune_pick(struct Device *dev, const struct TuneQuestion *q) {
    struct Tuning *t = dev->tuning;
    if (!t)
        return q->ways[0];
    t->most_ways = q->n_ways > t->most_ways ? q->n_ways : t->most_ways;
    if (t->force >= 0)
        return q->ways[(uint32_t)t->force < q->n_ways ? (uint32_t)t->force : 0];
    struct TuneChoice of = class_of(q), *found = choice_find(t, &of);
    bool room = scratch_bytes(q) <= MOST_SCRATCH_BYTES &&
                dev->allocated_bytes + scratch_bytes(q) + FLUSH_BYTES <= dev->limits.memory_bytes;
    bool open = found ? found->begun > 0 && found->begun < MOST_BEGUN && !found->tried : t->n < MOST_CHOICES;
    if (open && q->n_ways > 1 && t->seconds_left > 0 && dev->state == DEVICE_OK && room) {
        if (!found)
            *(found = &t->choice[t->n++]) = of;
        measure(dev, q, found);
    }
    for (uint32_t i = 1; found && i < q->n_ways; i++)
        if (same_way(&q->ways[i], &found->way))
            return q->ways[i];
    return q->ways[0];
}

// ---- Begin, and what tests and benches ask

void tune_begin(struct Device *dev, double seconds) {
    if (dev->is_dry)
        return;
    free(dev->tuning);
    dev->tuning = xcalloc(1, sizeof *dev->tuning);
    dev->tuning->seconds_left = seconds;
    dev->tuning->force = -1;
    file_merge(dev, true);
}

const struct TuneChoice *tune_choices(const struct Device *dev, uint32_t *n) {
    *n = dev->tuning->n;
    return dev->tuning->choice;
}
uint32_t tune_measured(const struct Device *dev) { return dev->tuning->n_measured; }
void tune_log(struct Device *dev, FILE *to) { dev->tuning->log = to; }
void tune_force(struct Device *dev, int way) { dev->tuning->force = way, dev->tuning->most_ways = 0; }
uint32_t tune_ways(const struct Device *dev) { return dev->tuning->most_ways; }
