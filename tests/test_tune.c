// Tiles by measurement: every way that an operation offers passes its known-answer tests and gives the table's bits; what was measured comes from the
// file the next time; a file that is damaged, of another driver or hostile brings nothing. `test_tune NAME` walks the ways of the cases that
// have NAME in their name ("" all of them) instead of a chosen few.
#include "card.h"
#include "check.h"
#include "model/opcheck.h"
#include "model/tune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- Ways

// Of the bodies that cards share among all types one is enough; each takes a second to compile here.
static bool is_wanted(const struct OpCase *oc, int kernel, const char *filter) {
    static const char *const CHOSEN[] = {"linear f32",     "linear_dx f32",   "linear_dw",       "linear_dw coarse",
                                         "linear bf16",    "linear_dx bf16",  "linear q4_k",     "linear_dx q4_0",
                                         "linear few f32", "linear few bf16", "linear few q4_k", "linear swiglu bf16",
                                         "attention"};
    bool wanted = false, by_type = kernel != KERNEL_gemm_nt && kernel != KERNEL_gemm_nn;
    bool again = (KERNELS[kernel].needs & NEEDS_DOT2) && oc->type == DT_BF16;
    for (size_t i = 0; i < sizeof CHOSEN / sizeof *CHOSEN; i++)
        wanted = wanted || (strcmp(oc->name, CHOSEN[i]) == 0 && (by_type || oc->type == DT_F32) && !again);
    return filter ? strstr(oc->name, filter) != NULL : wanted;
}

// The first dense and the first grouped shape of a kernel (of matrix units, which processors emulate slowly, the dense one): *seen keeps which were met.
static bool is_chosen(const uint32_t *shape, int kernel, uint32_t *seen) {
    uint32_t bit = shape[3] && !(KERNELS[kernel].needs & NEEDS_COOPMAT) ? 2 : 1;
    bool is_new = !(*seen & bit);
    *seen |= bit;
    return is_new;
}

// All ways of a case at a shape, on one kernel; gives how many there are.
static uint32_t walk_ways(struct Device *dev, const struct OpCase *oc, const uint32_t *shape, int kernel) {
    struct Check table = {.dev = dev, .seed = 3};
    tune_begin(dev, 0);
    tune_force(dev, 0);
    CHECK(opcheck_run(&table, oc, shape, kernel), "%s", fail_last());
    uint32_t n = tune_ways(dev);
    for (uint32_t way = 1; way < n; way++) {
        struct Check ck = {.dev = dev, .seed = 3};
        tune_force(dev, (int)way);
        CHECK(opcheck_run(&ck, oc, shape, kernel), "way %u: %s", way, fail_last());
        CHECK(ck.bits == table.bits, "%s by %s at %u,%u,%u: way %u gives other bits", oc->name, KERNELS[kernel].name,
              shape[0], shape[1], shape[2], way);
    }
    return n;
}

static void test_case(struct Device *dev, const struct OpCase *oc, const char *filter, uint32_t *all,
                      uint32_t *matrix) {
    for (const int *kernel = oc->kernels; *kernel >= 0; kernel++) {
        uint32_t seen = 0;
        if (!is_wanted(oc, *kernel, filter) || !opcheck_concerns(dev, *kernel))
            continue;
        for (uint32_t s = 0; s < oc->n_shapes; s++)
            if (filter || is_chosen(oc->shapes[s], *kernel, &seen)) {
                uint32_t ways = walk_ways(dev, oc, oc->shapes[s], *kernel);
                *all += ways;
                *matrix += KERNELS[*kernel].needs & NEEDS_COOPMAT ? ways : 0;
            }
        if (filter || KERNELS[*kernel].needs & NEEDS_COOPMAT)
            printf("%s by %s: %.1f s\n", oc->name, KERNELS[*kernel].name, cpu_seconds()), fflush(stdout);
    }
}

static void test_ways(struct Device *dev, const char *filter) {
    uint32_t (*const tables[])(const struct OpCase **) = {opcheck_linear, opcheck_attention};
    uint32_t matrix = 0, all = 0;
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        const struct OpCase *cases;
        uint32_t n = tables[t](&cases);
        for (uint32_t i = 0; i < n; i++)
            test_case(dev, &cases[i], filter, &all, &matrix);
    }
    CHECK(all > 100 || filter, "only %u ways were walked", all);
    printf("%u ways, %u of them on matrix units\n", all, matrix);
    if (!device_can(dev, CAP_coopmat))
        check_skip("ways on matrix units: %s", dev->caps[CAP_coopmat].why);
}

// ---- Choices

enum { ROWS = 256, COLS = 256, DEPTH = 256 };

static bool multiply(struct Device *dev, uint64_t *bits) {
    struct Check ck = {.dev = dev, .seed = 9};
    struct CheckRun r;
    checkrun_begin(&r, &ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, 2, (uint32_t[]){ROWS, DEPTH}, 1);
    struct CheckTensor *w = checkrun_random(&r, DT_F32, 2, (uint32_t[]){COLS, DEPTH}, 1);
    struct CheckTensor *y = checkrun_output(&r, 2, (uint32_t[]){ROWS, COLS});
    struct Cmd *c = cmd_begin(dev, "tune");
    op_linear(c, &x->t, &w->t, &y->t, NULL, (struct LinearOptions){.scratch = &r.arena});
    bool ok = checkrun_execute(&r, cmd_end(c));
    *bits = ck.bits;
    checkrun_end(&r);
    return ok;
}

// The file with `from` replaced by `to` and, where `sign`, a first line that vouches for it.
static void forge(const char *path, const char *from, const char *to, bool sign) {
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    char hash[24];
    CHECK(file_read(path, 1 << 20, &data, &bytes), "%s", fail_last());
    char *at = strstr((char *)data, from);
    if (CHECK(at != NULL, "no '%s' in %s", from, (char *)data)) {
        char *text = xsprintf("%.*s%s%s", (int)(at - (char *)data), (char *)data, to, at + strlen(from));
        char *rest = strchr(text, '\n');
        snprintf(hash, sizeof hash, "%016" PRIx64, hash_bytes(rest + 1, strlen(rest + 1), 0));
        if (sign)
            memcpy(rest - 16, hash, 16);
        CHECK(file_write_atomic(path, text, strlen(text)), "%s", fail_last());
        free(text);
    }
    free(data);
}

static uint32_t choices_read(struct Device *dev) {
    uint32_t n;
    tune_begin(dev, 0);
    (void)tune_choices(dev, &n);
    return n;
}

static void test_choice(struct Device *dev) {
    char *path = tune_path(dev);
    uint64_t plain, measured, read;
    uint32_t n = 0;
    unlink(path);
    CHECK(dev->tuning == NULL && multiply(dev, &plain), "%s", fail_last());
    CHECK(!file_exists(path), "measured without being asked");
    tune_begin(dev, 60);
    CHECK(multiply(dev, &measured), "%s", fail_last());
    const struct TuneChoice *found = tune_choices(dev, &n);
    CHECK(tune_measured(dev) == 1 && n == 1, "%u classes measured, %u kept", tune_measured(dev), n);
    CHECK(n == 1 && found->table_us > 0 && found->us > 0 && found->us <= found->table_us, "times of the choice");
    struct TuneChoice first = *found;
    CHECK(multiply(dev, &read) && tune_measured(dev) == 1, "measured twice");
    CHECK(file_exists(path), "no file");

    tune_begin(dev, 60); // another run
    found = tune_choices(dev, &n);
    CHECK(n == 1 && memcmp(&found->way, &first.way, sizeof found->way) == 0, "another way was read than written");
    CHECK(multiply(dev, &read) && tune_measured(dev) == 0, "measured although the file knows");
    CHECK(plain == measured && plain == read, "bits depend on what was measured");

    tune_begin(dev, 0); // no budget: looked up alone
    unlink(path);
    tune_begin(dev, 0);
    CHECK(multiply(dev, &read) && tune_measured(dev) == 0 && !file_exists(path), "measured without a budget");

    tune_begin(dev, 60);
    CHECK(multiply(dev, &read) && tune_measured(dev) == 1, "a file to begin with");
    for (int begun = 1; begun <= 3; begun++) { // as a run leaves it that ended in the middle
        char before[] = " 0\n", after[] = " 1\n";
        after[1] = (char)('0' + begun);
        tune_begin(dev, 0);
        found = tune_choices(dev, &n);
        CHECK(n == 1 && found->begun == 0, "a measurement that ended");
        forge(path, before, after, true);
        tune_begin(dev, 60);
        CHECK(multiply(dev, &read) && multiply(dev, &read) && tune_measured(dev) == (begun < 2),
              "begun %d times: measured %u times more", begun, tune_measured(dev));
        if (begun > 1)
            forge(path, after, before, true);
    }
    free(path);
}

// A sum of two vectors that can be cut in an honest way and in one that is faster because it leaves half of it undone.
static struct Dispatch add_dispatch(const void *job, const struct Tile *way) {
    const struct Device *dev = job;
    uint32_t local = dev->limits.subgroup_size, n = (uint32_t)div_up(ROWS * COLS / 4, local);
    return (struct Dispatch){
        .kernel = KERNEL_add, .local_size = local, .spec = {1}, .n_spec = 1, .groups = {way->way == 1 ? n / 2 : n}};
}

static void test_other_bits(struct Device *dev) {
    char *path = tune_path(dev);
    struct View v = {0, 4 * ROWS * COLS};
    struct Args_add args = {v, v, v, ROWS * COLS};
    struct TuneQuestion q = {.kernel = KERNEL_add,
                             .type = DT_F32,
                             .shape = {ROWS, COLS, 1},
                             .operands = {{offsetof(struct Args_add, y), DT_F32, COLS},
                                          {offsetof(struct Args_add, a), DT_F32, COLS},
                                          {offsetof(struct Args_add, b), DT_F32, COLS}},
                             .n_operands = 3,
                             .args = &args,
                             .args_bytes = sizeof args,
                             .job = dev,
                             .dispatch = add_dispatch};
    tune_way(&q, (struct Tile){1, 1, 1, 0});
    tune_way(&q, (struct Tile){1, 1, 1, 1});
    char *log;
    size_t bytes;
    unlink(path);
    FILE *to = text_begin(&log, &bytes);
    tune_begin(dev, 60);
    tune_log(dev, to);
    CHECK(tune_pick(dev, &q).way == 0 && tune_measured(dev) == 1, "half of the work was taken for the whole");
    text_end(to);
    CHECK(strstr(log, "other bits") && strstr(log, "(table) taken"), "what was told: %s", log);
    CHECK(dev->state == DEVICE_OK, "the device");
    free(log);
    unlink(path);
    free(path);
}

// A question whose ways exist on paper alone: they are looked up, not run.
static uint32_t rows_picked(struct Device *dev) {
    struct TuneQuestion q = {.kernel = KERNEL_gemm_nt, .type = DT_F32, .shape = {100, 100, 100}};
    tune_way(&q, (struct Tile){64, 64, 128, 0});
    tune_way(&q, (struct Tile){32, 64, 128, 0});
    tune_way(&q, (struct Tile){64, 64, 128, 0});
    CHECK(q.n_ways == 2, "the same way twice");
    return tune_pick(dev, &q).rows;
}

static void test_files(struct Device *dev) {
    char *path = tune_path(dev), line[160];
    uint64_t bits;
    unlink(path);
    tune_begin(dev, 60);
    CHECK(multiply(dev, &bits), "%s", fail_last()); // makes a file
    const struct KernelInfo *k = &KERNELS[KERNEL_gemm_nt];
    uint64_t hash = hash_bytes(k->words, (size_t)k->n_words * 4, 7);
    snprintf(line, sizeof line, "\n%s %016" PRIx64 " f32 0 128 128 128 32 64 128 0 0\n", k->name, hash);
    forge(path, "\n", line, true);
    CHECK(choices_read(dev) == 2 && rows_picked(dev) == 32, "a choice in the file was not taken");

    fail_quiet(true);
    forge(path, " 32 64 128 0 0\n", " 4096 64 128 0 0\n",
          true); // hostile: believed, and still none of the ways there are
    CHECK(choices_read(dev) == 2 && rows_picked(dev) == 64, "a way that nobody offers was taken");
    forge(path, " 4096 64 128 0 0\n", " 99999999999 64 128 0 0\n", true);
    CHECK(choices_read(dev) <= 2 && rows_picked(dev) == 64, "a number that is none was taken");
    forge(path, " 99999999999 64 128 0 0\n", " 32 64 128 0 0\n", true);
    CHECK(rows_picked(dev) == 64 && choices_read(dev) == 2 && rows_picked(dev) == 32, "the file as it was");
    forge(path, " f32 0 128", " f33 0 128", true);
    CHECK(choices_read(dev) == 1, "an unknown type was read");
    forge(path, " f33 0 128", " f32 0 128", true);
    forge(path, " 32 64 128 0 0\n", " 64 64 128 0 0\n", false); // damaged: the hash is not the rest's
    CHECK(choices_read(dev) == 0, "a damaged file was read");
    forge(path, " 64 64 128 0 0\n", " 32 64 128 0 0\n", false);
    CHECK(choices_read(dev) == 2, "repaired");
    forge(path, "vkmoe-tiles 1 ", "vkmoe-tiles 2 ", true);
    CHECK(choices_read(dev) == 0, "a file of another version was read");
    forge(path, "vkmoe-tiles 2 ", "vkmoe-tiles 1 ", true);
    dev->driver_version++; // another driver has another file; a copy of this one under its name is not believed
    char *other = tune_path(dev);
    CHECK(strcmp(path, other) != 0 && choices_read(dev) == 0, "another driver shares the file");
    CHECK(rename(path, other) == 0 && choices_read(dev) == 0, "a file of another driver was read");
    CHECK(rename(other, path) == 0, "rename");
    dev->driver_version--;
    forge(path, "vkmoe-tiles", "", false);
    for (int bytes = 3; bytes >= 0; bytes--)
        CHECK(file_write_atomic(path, "\n\n\n", (uint64_t)bytes) && choices_read(dev) == 0, "%d bytes", bytes);
    fail_quiet(false);
    unlink(path);
    free(other);
    free(path);
}

int main(int argc, char **argv) {
    struct Device dev;
    setenv("VKMOE_CACHE", "test-tune", 1); // other tests run beside this one
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    if (argc < 2) {
        test_choice(&dev);
        test_files(&dev);
        test_other_bits(&dev);
    }
    if (!card_pairs(&dev) && !device_can(&dev, CAP_dot2))
        check_skip("ways on pairs of f16: %s", dev.caps[CAP_f16].why);
    test_ways(&dev, argc > 1 ? argv[1] : NULL);
    device_close(&dev);
    return check_done();
}
