// What the checks of operations share: tensors with guard bands and random contents in every storage type, the run, the
// comparison with the reference, and the loops over cases. Nothing here knows any one operation, and the encoders are
// written apart from those of the product (quant.c), so that a mistake in one of the two shows.
#include "model/opcheck.h"
#include "model/quant.h"
#include "runtime/parallel.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

OpCases *const OPCHECK_FILES[N_OPCHECK_FILES] = {opcheck_linear, opcheck_rows, opcheck_attention};

enum { GUARD_BYTES = 256 }; // keeps a tensor's alignment

// ---- Random contents

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Sum of four uniform numbers, deviation 1: near enough to normal, and quick for tensors of many millions.
static double nearly_normal(uint64_t seed, uint64_t i) {
    uint64_t w = mix(seed ^ mix(i));
    double sum = (double)(w & 0xffff) + (double)(w >> 16 & 0xffff) + (double)(w >> 32 & 0xffff) + (double)(w >> 48);
    return (sum - 131070.0) / 65536.0 * 1.7320508;
}

// ---- Storage types

static uint32_t float_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float bits_float(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint16_t to_bf16(float x) {
    uint32_t u = float_bits(x);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static double from_f16(uint16_t h) {
    int exponent = h >> 10 & 31;
    double magnitude = exponent == 31  ? (h & 1023 ? NAN : INFINITY)
                       : exponent == 0 ? ldexp(h & 1023, -24)
                                       : ldexp(1024 + (h & 1023), exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

// Nearest, ties to even, of finite numbers: the value scaled so that one unit is the last place of its binade.
static uint16_t to_f16(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    x = fabs(x);
    if (x >= 65520)
        return sign | 0x7c00;
    if (x == 0)
        return sign;
    int exponent;
    frexp(x, &exponent);
    int binade = exponent - 1 < -14 ? -14 : exponent - 1;
    double units = nearbyint(ldexp(x, 10 - binade)); // 1024 .. 2048 in a normal binade; a carry goes up by itself
    return sign | (uint16_t)(units + 1024.0 * (binade + 14));
}

// Quantised rows come from the host's codec (golden files hold it against others'); here it is the shaders that are checked.
static void encode_blocks(enum DType type, const double *in, uint32_t cols, uint8_t *row, double *value) {
    float *wide = xmalloc(cols * sizeof *wide);
    uint8_t *file_row = xmalloc(dtype_file_row_bytes(type, cols));
    for (uint32_t i = 0; i < cols; i++)
        wide[i] = (float)in[i];
    quant_encode_row(type, wide, cols, file_row);
    quant_decode_row(type, file_row, cols, wide);
    quant_row_to_device(type, file_row, cols, row);
    for (uint32_t i = 0; i < cols; i++)
        value[i] = (double)wide[i];
    free(wide);
    free(file_row);
}

static void encode_row(enum DType type, const double *in, uint32_t cols, uint8_t *row, double *value) {
    if (dtype_is_quantised(type)) {
        encode_blocks(type, in, cols, row, value);
        return;
    }
    for (uint32_t i = 0; i < cols; i++) {
        if (type == DT_F32) {
            float x = (float)in[i];
            memcpy(row + 4 * (size_t)i, &x, 4);
            value[i] = (double)x;
        } else if (type == DT_U32) {
            uint32_t x = (uint32_t)in[i];
            memcpy(row + 4 * (size_t)i, &x, 4);
            value[i] = x;
        } else {
            uint16_t x = type == DT_F16 ? to_f16(in[i]) : to_bf16((float)in[i]);
            memcpy(row + 2 * (size_t)i, &x, 2);
            value[i] = type == DT_F16 ? from_f16(x) : (double)bits_float((uint32_t)x << 16);
        }
    }
}

// ---- Tensors

void checkrun_begin(struct CheckRun *r, struct Check *ck) {
    memset(r, 0, sizeof *r);
    r->ck = ck;
    ck->nmse = 0;
    ck->guard_ok = true;
    ck->us = ck->us_spread = ck->cpu_us = 0;
    ck->bits = 0;
    arena_init(&r->arena, ck->dev, "check", ARENA_DEVICE);
}

static void poison(void *at, uint64_t bytes) {
    const uint32_t word = CHECK_POISON;
    for (uint64_t i = 0; i < bytes / 4; i++)
        memcpy((uint8_t *)at + 4 * i, &word, 4);
}

static struct CheckTensor *tensor_add(struct CheckRun *r, enum DType type, uint32_t n_dims, const uint32_t *dim) {
    assert(r->n < CHECK_MAX_TENSORS && n_dims >= 1 && n_dims <= 4);
    struct CheckTensor *t = &r->tensor[r->n++];
    t->t = (struct Tensor){.type = type, .n_dims = n_dims, .dim = {1, 1, 1, 1}};
    memcpy(t->t.dim, dim, n_dims * sizeof *dim);
    t->n = tensor_elements(&t->t);
    t->t.bytes = tensor_rows(&t->t) * dtype_row_bytes(type, tensor_cols(&t->t));
    assert(t->n > 0 && t->t.bytes % 4 == 0); // 16-bit rows of odd length do not exist on the device
    uint64_t bytes = align_up(t->t.bytes, 4) + 2 * GUARD_BYTES;
    t->whole = TENSOR(&r->arena, DT_U32, (uint32_t)(bytes / 4));
    t->t.address = t->whole.address + GUARD_BYTES;
    t->host = xmalloc(bytes);
    poison(t->host, bytes);
    t->value = xcalloc(t->n, sizeof *t->value);
    return t;
}

static void upload(struct CheckRun *r, struct CheckTensor *t) {
    tensor_upload(r->ck->dev, &t->whole, 0, t->host, t->whole.bytes);
}

// Rows on all cores: drawn where scale is not 0, then encoded; `value` keeps what the type made of them.
struct FillJob {
    struct CheckTensor *t;
    uint64_t seed;
    double scale;
};

static void fill_rows(void *context, uint64_t first, uint64_t end) {
    const struct FillJob *j = context;
    struct CheckTensor *t = j->t;
    uint32_t cols = tensor_cols(&t->t);
    uint64_t row_bytes = dtype_row_bytes(t->t.type, cols);
    double *in = xmalloc(cols * sizeof *in);
    for (uint64_t row = first; row < end; row++) {
        uint8_t *to = (uint8_t *)t->host + GUARD_BYTES + row * row_bytes;
        double *value = t->value + row * cols;
        for (uint32_t i = 0; i < cols; i++)
            in[i] = j->scale != 0 ? nearly_normal(j->seed, row * cols + i) * j->scale : value[i];
        memset(to, 0, row_bytes);
        encode_row(t->t.type, in, cols, to, value);
    }
    free(in);
}

static void fill(struct CheckRun *r, struct CheckTensor *t, uint64_t seed, double scale) {
    struct FillJob j = {t, seed, scale};
    parallel_for(tensor_rows(&t->t), div_up(1 << 14, tensor_cols(&t->t)), fill_rows, &j);
    upload(r, t);
}

double check_weights_deviation(enum DType type, bool accumulate) {
    return accumulate || type == DT_F32 || type == DT_BF16 ? 0.1 : 0.02;
}

struct CheckTensor *checkrun_random(struct CheckRun *r, enum DType type, uint32_t n_dims, const uint32_t *dim,
                                    double scale) {
    struct CheckTensor *t = tensor_add(r, type, n_dims, dim);
    fill(r, t, mix(r->ck->seed + 0x51ed270b * r->n), scale);
    return t;
}

struct CheckTensor *checkrun_values(struct CheckRun *r, enum DType type, uint32_t n_dims, const uint32_t *dim,
                                    const void *values) {
    struct CheckTensor *t = tensor_add(r, type, n_dims, dim);
    for (uint64_t i = 0; i < t->n; i++)
        t->value[i] = type == DT_U32 ? ((const uint32_t *)values)[i] : (double)((const float *)values)[i];
    fill(r, t, 0, 0);
    return t;
}

static struct CheckTensor *output_add(struct CheckRun *r, enum DType type, uint32_t n_dims, const uint32_t *dim) {
    struct CheckTensor *t = tensor_add(r, type, n_dims, dim);
    t->output = true;
    upload(r, t); // poison everywhere: what is not written stays NaN
    return t;
}

struct CheckTensor *checkrun_output(struct CheckRun *r, uint32_t n_dims, const uint32_t *dim) {
    return output_add(r, DT_F32, n_dims, dim);
}

struct CheckTensor *checkrun_output_u32(struct CheckRun *r, uint32_t n_dims, const uint32_t *dim) {
    return output_add(r, DT_U32, n_dims, dim);
}

// ---- The run

static void decode_q8_0(struct CheckTensor *t, const uint8_t *data) {
    uint32_t cols = tensor_cols(&t->t);
    uint64_t row_bytes = dtype_row_bytes(DT_Q8_0, cols);
    for (uint64_t i = 0; i < t->n; i++) {
        const uint8_t *row = data + i / cols * row_bytes;
        uint16_t d;
        memcpy(&d, row + cols + i % cols / 32 * 2, 2);
        t->value[i] = (int8_t)row[i % cols] * from_f16(d);
    }
}

static void decode_output(struct CheckTensor *t, const uint8_t *data) {
    if (t->t.type == DT_Q8_0) {
        decode_q8_0(t, data);
        return;
    }
    for (uint64_t i = 0; i < t->n; i++) {
        uint32_t word = 0;
        uint16_t half = 0;
        if (t->t.type == DT_F32 || t->t.type == DT_U32)
            memcpy(&word, data + 4 * i, 4);
        else
            memcpy(&half, data + 2 * i, 2);
        t->value[i] = t->t.type == DT_F32   ? (double)bits_float(word)
                      : t->t.type == DT_U32 ? (double)word
                      : t->t.type == DT_F16 ? from_f16(half)
                                            : (double)bits_float((uint32_t)half << 16);
    }
}

static bool collect(struct CheckRun *r, const struct Program *p, struct CheckTensor *t) {
    uint8_t *got = xmalloc(t->whole.bytes), *sent = t->host;
    bool ok = tensor_download(r->ck->dev, &t->whole, 0, got, t->whole.bytes);
    uint64_t behind = GUARD_BYTES + t->t.bytes;
    if (ok && (memcmp(got, sent, GUARD_BYTES) || memcmp(got + behind, sent + behind, t->whole.bytes - behind)))
        r->ck->guard_ok = fail("check: memory beside tensor %u was written", (unsigned)(t - r->tensor));
    if (ok && !t->output && memcmp(got, sent, t->whole.bytes))
        r->ck->guard_ok = fail("check: tensor %u is an input and was written", (unsigned)(t - r->tensor));
    // A write that push.h does not state would have no barrier behind it, and on most devices be right most of the time.
    if (ok && memcmp(got, sent, t->whole.bytes) && !program_writes(p, view(&t->t)))
        r->ck->guard_ok =
            fail("check: tensor %u is written by a kernel that states to read it", (unsigned)(t - r->tensor));
    if (ok && t->output) {
        decode_output(t, got + GUARD_BYTES);
        r->ck->bits = hash_bytes(got + GUARD_BYTES, t->t.bytes, r->ck->bits);
    }
    free(got);
    return ok;
}

bool checkrun_settle(struct CheckRun *r, struct CheckTensor *t) {
    if (!tensor_download(r->ck->dev, &t->whole, 0, t->host, t->whole.bytes))
        return false;
    decode_output(t, (uint8_t *)t->host + GUARD_BYTES);
    t->output = false;
    return true;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bool flush_open(struct Flush *f, struct Device *dev) {
    memset(f, 0, sizeof *f);
    if (dev->is_cpu) {
        f->host = xmalloc(FLUSH_HOST_BYTES);
        return true;
    }
    arena_init(&f->arena, dev, "flush", ARENA_DEVICE);
    struct Tensor t = TENSOR(&f->arena, DT_U32, FLUSH_BYTES / 4);
    struct Cmd *c = cmd_begin(dev, "flush");
    cmd_fill(c, &t, 0);
    f->program = cmd_end(c);
    return f->program != NULL;
}

static void flush_part(void *context, uint64_t first, uint64_t end) {
    memset((uint8_t *)context + first, (int)first, end - first);
}

bool flush_run(struct Flush *f) {
    if (f->host)
        parallel_for(FLUSH_HOST_BYTES, 1 << 22, flush_part, f->host);
    return f->host || (f->program && program_run(f->program));
}

void flush_close(struct Flush *f) {
    program_free(f->program);
    if (f->arena.dev)
        arena_free(&f->arena);
    free(f->host);
}

static bool time_runs(struct Check *ck, struct Program *p, struct Flush *f) {
    double us[64];
    // A GPU that stood idle while the host made the inputs raises its clock in steps (an H200 from 345 to 1980 MHz): work before the first figure.
    double awake = clock_seconds() + (ck->dev->is_cpu ? 0 : 0.4), used = 0;
    do
        if (!program_time(p, 1, 1, us))
            return false;
    while (clock_seconds() < awake);
    uint32_t reps = us[0] > 4e5 ? 3 : us[0] > 4e4 ? 7 : us[0] > 4e3 ? 21 : ck->warm ? 63 : 31; // about half a second
    for (uint32_t i = 0; i < reps; i++) {
        if (!ck->warm && !flush_run(f))
            return false;
        double begin = cpu_seconds();
        if (!program_time(p, 0, 1, &us[i]))
            return false;
        used += cpu_seconds() - begin;
    }
    ck->cpu_us = used / reps * 1e6;
    qsort(us, reps, sizeof *us, compare_doubles);
    ck->us = us[reps / 2];
    ck->us_spread = us[reps * 3 / 4] - us[reps / 4];
    return true;
}

static bool take_time(struct Check *ck, struct Program *p) {
    struct Flush f = {.host = NULL};
    bool ok = (ck->warm || flush_open(&f, ck->dev)) && time_runs(ck, p, &f);
    flush_close(&f);
    return ok;
}

bool checkrun_execute(struct CheckRun *r, struct Program *p) {
    bool forced = r->ck->dev->force_kernel >= 0; // a check of a kernel that did not run would say nothing
    bool ok = p && (!forced || program_uses(p, r->ck->kernel) || fail("the operation took another kernel"));
    ok = ok && program_run(p);
    for (uint32_t i = 0; ok && i < r->n; i++)
        ok = collect(r, p, &r->tensor[i]);
    if (ok && r->ck->time)
        ok = take_time(r->ck, p);
    if (p)
        program_free(p);
    return ok;
}

uint64_t checkrun_pick(const struct CheckRun *r, const struct CheckTensor *t, uint64_t **index) {
    bool all = !r->ck->sample || r->ck->sample >= t->n;
    uint64_t count = all ? t->n : r->ck->sample;
    *index = xmalloc(count * sizeof **index);
    for (uint64_t i = 0; i < count; i++)
        (*index)[i] = all ? i : i == 0 ? 0 : i == 1 ? t->n - 1 : mix(r->ck->seed ^ mix(i)) % t->n;
    return count;
}

void checkrun_compare_at(struct CheckRun *r, const struct CheckTensor *t, uint64_t count, const uint64_t *index,
                         const double *want) {
    double error = 0, norm = 0;
    for (uint64_t i = 0; i < count; i++) {
        double difference = t->value[index ? index[i] : i] - want[i];
        error += difference * difference;
        norm += want[i] * want[i];
    }
    double nmse = error == 0 ? 0 : norm > 0 ? error / norm : INFINITY;
    if (!(nmse <= r->ck->nmse)) // also where it is NaN
        r->ck->nmse = isnan(nmse) ? INFINITY : nmse;
}

void checkrun_compare(struct CheckRun *r, const struct CheckTensor *t, const double *want) {
    checkrun_compare_at(r, t, t->n, NULL, want);
}

void checkrun_end(struct CheckRun *r) {
    for (uint32_t i = 0; i < r->n; i++) {
        free(r->tensor[i].host);
        free(r->tensor[i].value);
    }
    arena_free(&r->arena);
    r->n = 0;
}

// ---- Loops over cases

bool opcheck_run(struct Check *ck, const struct OpCase *oc, const uint32_t *shape, int kernel) {
    int forced = ck->dev->force_kernel;
    ck->dev->force_kernel = kernel;
    ck->kernel = kernel_pick(ck->dev, oc->kernels);
    bool ok = oc->run(ck, oc, shape);
    ck->dev->force_kernel = forced;
    char where[160] = "";
    for (int i = 0, at = 0; i < OP_SHAPE && shape[i] && at < 140; i++)
        at += snprintf(where + at, sizeof where - (size_t)at, i ? ",%u" : "%u", shape[i]);
    const char *name = KERNELS[ck->kernel].name;
    if (!ok)
        return fail("%s by %s at %s=%s: did not run (%s)", oc->name, name, oc->shape_names, where, fail_last());
    if (!ck->guard_ok)
        return fail("%s by %s at %s=%s: touched what is not its own", oc->name, name, oc->shape_names, where);
    if (!(ck->nmse <= ck->bound))
        return fail("%s by %s at %s=%s: error %.3g, bound %.3g", oc->name, name, oc->shape_names, where, ck->nmse,
                    ck->bound);
    return true;
}

bool opcheck_concerns(const struct Device *dev, int kernel) {
    const char *name = KERNELS[kernel].name;
    bool for_cpu = ends_with(name, "_cpu");
    return !dev->kernel_off[kernel] && (dev->is_cpu || !for_cpu);
}

uint32_t opcheck_suite(struct Device *dev, uint64_t seed, const struct OpCase *cases, uint32_t n_cases, uint32_t *ran) {
    uint32_t failures = 0;
    *ran = 0;
    for (uint32_t i = 0; i < n_cases; i++)
        for (const int *kernel = cases[i].kernels; *kernel >= 0; kernel++)
            for (uint32_t s = 0; s < cases[i].n_shapes && opcheck_concerns(dev, *kernel); s++) {
                struct Check ck = {.dev = dev, .seed = seed + s};
                failures += !opcheck_run(&ck, &cases[i], cases[i].shapes[s], *kernel);
                ++*ran;
            }
    return failures;
}
