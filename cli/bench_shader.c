// `vkmoe bench shader FILE`: a user's own compute kernel, compiled now. With --as it runs in the place of a built-in one, checked and timed as
// `bench kernels` does, beside it; else it is a kernel of its own, whose arguments the flags name: a pointer of its push-constant block gets a
// --buffer, a number a --push. Nothing runs before all of that fits.
#include "cli/bench.h"
#include "cli/glsl.h"
#include "cli/spirv.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PUSH_BYTES = 128, N_SPEC = KERNEL_MAX_SPEC + 2, MAX_DEFINES = ARGS_MAX_LIST + 8, FIRST_VALUES = 6 };

// ---- What a module needs of the device

// Capabilities by their number in SPIR-V's specification, and what of ours switches them on.
static const struct {
    uint32_t number;
    const char *name;
    int cap; // -1: always on; -2: never, so that nothing that we measure depends on it
} CAPABILITIES[] = {{0, "Matrix", -1},
                    {1, "Shader", -1},
                    {9, "Float16", CAP_f16},
                    {10, "Float64", -2},
                    {11, "Int64", CAP_int64},
                    {22, "Int16", CAP_eight},
                    {39, "Int8", CAP_eight},
                    {61, "GroupNonUniform", CAP_subgroup},
                    {62, "GroupNonUniformVote", CAP_subgroup},
                    {63, "GroupNonUniformArithmetic", CAP_subgroup},
                    {64, "GroupNonUniformBallot", CAP_subgroup},
                    {65, "GroupNonUniformShuffle", CAP_subgroup},
                    {66, "GroupNonUniformShuffleRelative", CAP_subgroup},
                    {4433, "StorageBuffer16BitAccess", CAP_f16},
                    {4448, "StorageBuffer8BitAccess", CAP_eight},
                    {5116, "BFloat16TypeKHR", CAP_bf16},
                    {5118, "BFloat16CooperativeMatrixKHR", CAP_bf16},
                    {5345, "VulkanMemoryModel", -1},
                    {5346, "VulkanMemoryModelDeviceScope", -1},
                    {5347, "PhysicalStorageBufferAddresses", -1},
                    {5430, "CooperativeMatrixReductionsNV", CAP_coopmat2},
                    {5431, "CooperativeMatrixConversionsNV", CAP_coopmat2},
                    {5432, "CooperativeMatrixPerElementOperationsNV", CAP_coopmat2},
                    {5433, "CooperativeMatrixTensorAddressingNV", CAP_coopmat2},
                    {5434, "CooperativeMatrixBlockLoadsNV", CAP_coopmat2},
                    {5439, "TensorAddressingNV", CAP_coopmat2},
                    {6022, "CooperativeMatrixKHR", CAP_coopmat},
                    {6912, "DotProductFloat16AccFloat32VALVE", CAP_dot2}};

static bool capability_is_on(const struct Device *dev, const char *path, uint32_t number) {
    size_t i = 0, n = sizeof CAPABILITIES / sizeof CAPABILITIES[0];
    while (i < n && CAPABILITIES[i].number != number)
        i++;
    if (i == n || CAPABILITIES[i].cap == -2)
        return fail("%s: needs SPIR-V's capability %s (%u), which vkmoe does not switch on", path,
                    i < n ? CAPABILITIES[i].name : "with number", number);
    int cap = CAPABILITIES[i].cap;
    return cap < 0 || device_can(dev, (enum Cap)cap) ||
           fail("%s: needs %s, which is off on %s: %s", path, CAPABILITIES[i].name, dev->name, dev->caps[cap].why);
}

static bool fits_device(const struct Device *dev, const char *path, const struct SpirvModule *m) {
    for (uint32_t i = 0; i < m->n_capabilities; i++)
        if (!capability_is_on(dev, path, m->capabilities[i]))
            return false;
    uint64_t width = (uint64_t)m->width[0] * m->width[1] * m->width[2];
    if (m->shared_bytes > dev->limits.shared_bytes)
        return fail("%s: wants %llu bytes of shared memory, a workgroup has %u on %s", path,
                    (unsigned long long)m->shared_bytes, dev->limits.shared_bytes, dev->name);
    return (width > 0 && m->width[0] <= 65536 && width <= dev->limits.max_invocations) ||
           fail("%s: a workgroup of %u x %u x %u, where 1 to %u invocations are possible on %s", path, m->width[0],
                m->width[1], m->width[2], dev->limits.max_invocations, dev->name);
}

// ---- Compilation

struct Own {
    const struct Args *args;
    const char *path;
    uint32_t *words, n_words;
    struct SpirvModule module;
};

// `given`: what a line of kernels.def has, "-DW=q4_0 -DSUBGROUP=1".
static bool own_compile(struct Own *o, const char *push, const char *given) {
    const char *defines[MAX_DEFINES];
    char *line = push ? xsprintf("-DPUSH=%s %s", push, given) : xstrdup(""), *rest = line;
    uint32_t n = args_list(o->args, "define", defines), n_names, *names = NULL;
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL && n < MAX_DEFINES;)
        defines[n++] = word + 2;
    // A second time without optimising: what has to be given, with its name, also where nothing of it is left.
    bool ok = glsl_compile(o->path, defines, n, true, &o->words, &o->n_words) &&
              glsl_compile(o->path, defines, n, false, &names, &n_names);
    free(line);
    if (!ok)
        return false;
    struct SpirvModule plain;
    spirv_read(names, n_names, NULL, 0, &plain);
    spirv_read(o->words, o->n_words, NULL, 0, &o->module);
    memcpy(o->module.fields, plain.fields, sizeof plain.fields);
    o->module.n_fields = plain.n_fields;
    free(names);
    if (o->module.n_descriptors)
        return fail(
            "%s: declares buffers or images with a binding; vkmoe passes addresses: pointers (buffer_reference) in "
            "the push-constant block",
            o->path);
    for (uint32_t i = 0; i < o->module.n_constants; i++)
        if (o->module.constants[i].id >= N_SPEC)
            return fail("%s: constant_id = %u, where 0 to %d can be set", o->path, o->module.constants[i].id,
                        N_SPEC - 1);
    return true;
}

// ---- In the place of a built-in kernel

static bool block_is_same(const struct Own *o, enum KernelId id) {
    const struct PushInfo *push = &PUSH_INFO[KERNELS[id].push];
    bool same = o->module.n_fields == push->n_pointers + push->n_words;
    for (uint32_t i = 0; i < o->module.n_fields && same; i++) {
        bool pointer = i < push->n_pointers;
        uint32_t at = pointer ? 8 * i : 8 * push->n_pointers + 4 * (i - push->n_pointers);
        same = o->module.fields[i].offset == at && (o->module.fields[i].kind == SPIRV_POINTER) == pointer;
    }
    if (!same)
        return fail("%s: the push-constant block is not that of %s: %u pointers and %u numbers, as push.h lists them",
                    o->path, KERNELS[id].name, push->n_pointers, push->n_words);
    return o->module.width_id == 0 ||
           fail("%s: the width of a workgroup must be constant 0, as types.glsl declares it: %s is launched so",
                o->path, KERNELS[id].name);
}

static int run_as(struct Own *o, const char *name, const char *filter) {
    enum KernelId id;
    static const char *const OTHERS[] = {"buffer", "push", "constant", "grid", "width", "flops", "bytes"};
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
        if (args_given(o->args, OTHERS[i]))
            return args_wrong(o->args, "--%s is the built-in kernel's own affair with --as", OTHERS[i]);
    if (!kernel_find(name, &id)) {
        fail("--as %s: no built-in kernel has this name; `vkmoe bench kernels` shows them", name);
        return EXIT_FAILED;
    }
    const struct KernelInfo *built_in = &KERNELS[id];
    if (!own_compile(o, PUSH_INFO[built_in->push].name, built_in->defines) || !block_is_same(o, id))
        return EXIT_FAILED;
    struct Device dev;
    if (!device_open(&dev, args_text(o->args, "device")))
        return EXIT_FAILED;
    dev.cuts_dispatches = false; // whose pieces would have other numbers of workgroups, which the shader may ask for
    int status = EXIT_FAILED;
    struct OwnKernel own = {.id = id, .info = *built_in};
    char *file = bench_model_name(o->path);
    own.info.name = file;
    own.info.words = o->words, own.info.n_words = o->n_words;
    if (dev.kernel_off[id])
        fail("--as %s: this kernel cannot run on %s", name, dev.name);
    else if (fits_device(&dev, o->path, &o->module))
        status = bench_kernels(o->args, &dev, filter, &own);
    device_close(&dev);
    free(file);
    return status;
}

// ---- A kernel of its own

enum Fill { FILL_RANDOM, FILL_INDEX, FILL_NUMBER, FILL_OUT };
struct OwnBuffer {
    enum DType type;
    uint32_t n_dims, dim[4];
    enum Fill fill;
    float number;
    uint32_t field; // whose pointer it is
    struct CheckTensor *t;
    double *before; // NULL: it cannot be read back (quantised)
};
struct Free {
    struct Own *own;
    uint32_t grid[3], spec[N_SPEC], n_spec;
    struct OwnBuffer buffers[PUSH_BYTES / 8];
    uint32_t n_buffers;
    uint32_t values[SPIRV_MAX_FIELDS];
    bool given[SPIRV_MAX_FIELDS];
};

// A whole number with K, M or G behind it (1024 each) or not; gives where it ends, NULL: none, or beyond 32 bits.
static const char *count_parse(const char *text, uint32_t *value) {
    static const char UNITS[] = "KMG";
    char *end;
    unsigned long long n = strtoull(text, &end, 0);
    const char *unit = *end ? strchr(UNITS, toupper((unsigned char)*end)) : NULL;
    if (!isdigit((unsigned char)text[0]) || n > UINT32_MAX)
        return NULL;
    if (unit)
        n <<= 10 * (unit - UNITS + 1), end++;
    *value = (uint32_t)n;
    return n > UINT32_MAX ? NULL : end;
}

static bool bits_parse(enum SpirvKind kind, const char *text, uint32_t *bits) {
    char *end;
    if (kind == SPIRV_FLOAT) {
        float value = strtof(text, &end);
        memcpy(bits, &value, sizeof value);
        return *text && *end == 0;
    }
    if (kind == SPIRV_INT && text[0] == '-') {
        long value = strtol(text, &end, 0);
        *bits = (uint32_t)value;
        return value >= INT32_MIN && *end == 0;
    }
    const char *behind = count_parse(text, bits);
    return behind && *behind == 0 && (kind != SPIRV_BOOL || *bits < 2);
}

static const char *const KIND_NAMES[] = {"pointer", "uint", "int", "float", "bool", "of another type"};

// The member that "name=..." or the next in turn means, and what stands behind the name.
static bool field_find(struct Free *f, const char *flag, const char *text, bool pointer, uint32_t *field,
                       const char **value) {
    const struct SpirvModule *m = &f->own->module;
    size_t name = strcspn(text, "=");
    bool named = text[name] == '=';
    *value = named ? text + name + 1 : text;
    for (uint32_t i = 0; i < m->n_fields; i++) {
        const struct SpirvField *at = &m->fields[i];
        if ((at->kind == SPIRV_POINTER) != pointer || f->given[i])
            continue;
        if (named ? strlen(at->name) == name && memcmp(at->name, text, name) == 0 : true) {
            *field = i;
            f->given[i] = true;
            return true;
        }
    }
    return fail("--%s %s: the push-constant block of %s has no %s of that name, or left, to give it to", flag, text,
                f->own->path, pointer ? "pointer" : "number");
}

static bool shape_parse(struct OwnBuffer *b, const char *text, const char **end) {
    uint64_t n = 1;
    for (const char *at = text;; at = *end + 1) {
        if (b->n_dims == 4 || !(*end = count_parse(at, &b->dim[b->n_dims])) || b->dim[b->n_dims] == 0 ||
            !ckd_mul(n, b->dim[b->n_dims++], &n) || n > 1u << 30)
            return false;
        if (**end != 'x')
            break;
    }
    uint32_t cols = b->dim[b->n_dims - 1];
    return cols % DTYPES[b->type].block == 0 && (n / cols * dtype_row_bytes(b->type, cols)) % 4 == 0 &&
           (**end == 0 || **end == ':');
}

// [NAME=]TYPE:SHAPE[:FILL]
static bool buffer_parse(struct Free *f, const char *text) {
    struct OwnBuffer b = {.n_dims = 0};
    const char *at, *fill;
    char type[16];
    if (!field_find(f, "buffer", text, true, &b.field, &at))
        return false;
    size_t n = strcspn(at, ":");
    snprintf(type, sizeof type, "%.*s", n < sizeof type ? (int)n : 0, at);
    if (!(strcasecmp(type, "u32") == 0 ? (b.type = DT_U32, true) : dtype_find(type, &b.type)))
        return fail("--buffer %s: the type is none of u32, f32, f16, bf16 or a quantised one", text);
    if (at[n] != ':' || !shape_parse(&b, at + n + 1, &fill))
        return fail("--buffer %s: [NAME=]TYPE:SHAPE[:FILL] is expected, with a shape as 4096 or 64x4K of up to 1G "
                    "numbers: whole "
                    "words, rows of whole blocks",
                    text);
    fill += *fill == ':';
    char *end = NULL;
    b.number = strtof(fill, &end);
    b.fill = *fill == 0 || strcmp(fill, "random") == 0 ? FILL_RANDOM
             : strcmp(fill, "index") == 0              ? FILL_INDEX
             : strcmp(fill, "out") == 0                ? FILL_OUT
                                                       : FILL_NUMBER;
    if (b.fill == FILL_NUMBER &&
        (*end || !isfinite(b.number) || (b.type == DT_U32 && (b.number < 0 || b.number > 1 << 24))))
        return fail("--buffer %s: filled with random, index, out or a number", text);
    if (b.fill == FILL_OUT && b.type != DT_F32 && b.type != DT_U32)
        return fail("--buffer %s: out is for f32 and u32; fill it with 0", text);
    f->buffers[f->n_buffers++] = b;
    return true;
}

static bool constants_parse(struct Free *f) {
    const struct SpirvModule *m = &f->own->module;
    const char *list[ARGS_MAX_LIST];
    for (uint32_t i = 0; i < m->n_constants; i++) {
        f->spec[m->constants[i].id] = m->constants[i].value;
        f->n_spec = (uint32_t)max_u64(f->n_spec, m->constants[i].id + 1);
    }
    for (uint32_t i = 0, n = args_list(f->own->args, "constant", list); i < n; i++) {
        char *value;
        unsigned long id = strtoul(list[i], &value, 10);
        uint32_t k = 0;
        while (k < m->n_constants && m->constants[k].id != id)
            k++;
        if (!isdigit((unsigned char)list[i][0]) || *value != '=' || id < 2 || k == m->n_constants)
            return fail("--constant %s: ID=VALUE is expected, with a constant_id of %s from 2 on (0 is --width, 1 the "
                        "subgroup's size)",
                        list[i], f->own->path);
        if (!bits_parse(m->constants[k].kind, value + 1, &f->spec[id]))
            return fail("--constant %s: the value is no %s", list[i], KIND_NAMES[m->constants[k].kind]);
    }
    return true;
}

// All flags against the module. Nothing is asked of the device yet.
static bool flags_parse(struct Free *f) {
    const struct Args *args = f->own->args;
    const struct SpirvModule *m = &f->own->module;
    const char *list[ARGS_MAX_LIST], *value;
    uint32_t n, field;
    f->grid[0] = f->grid[1] = f->grid[2] = 1;
    if (!args_text(args, "grid"))
        return args_good(fail("--grid X[,Y[,Z]] is missing: how many workgroups of %s there are (or --as NAME, to run "
                              "it in the place of a built-in kernel)",
                              f->own->path));
    if (!bench_list(args, "grid", f->grid, 3, &n))
        return false;
    if (m->width_id != 0 && args_given(args, "width"))
        return fail("--width: %s says its workgroup's width itself; constant_id 0 would be set", f->own->path);
    for (uint32_t i = 0; i < m->n_fields; i++) {
        if (m->fields[i].kind >= SPIRV_BOOL)
            return fail("%s: member %s of the push-constant block is no pointer, uint, int or float", f->own->path,
                        m->fields[i].name);
        if (m->fields[i].offset + (m->fields[i].kind == SPIRV_POINTER ? 8 : 4) > PUSH_BYTES)
            return fail("%s: the push-constant block is above the %d bytes that every device has", f->own->path,
                        PUSH_BYTES);
    }
    n = args_list(args, "buffer", list);
    for (uint32_t i = 0; i < n; i++)
        if (!buffer_parse(f, list[i]))
            return false;
    n = args_list(args, "push", list);
    for (uint32_t i = 0; i < n; i++) {
        if (!field_find(f, "push", list[i], false, &field, &value))
            return false;
        if (!bits_parse(m->fields[field].kind, value, &f->values[field]))
            return fail("--push %s: the value is no %s", list[i], KIND_NAMES[m->fields[field].kind]);
    }
    for (uint32_t i = 0; i < m->n_fields; i++)
        if (!f->given[i])
            return fail(m->fields[i].kind == SPIRV_POINTER
                            ? "%s: nothing is said about pointer %s: --buffer %s=TYPE:SHAPE[:FILL]"
                            : "%s: nothing is said about number %s: --push %s=VALUE",
                        f->own->path, m->fields[i].name, m->fields[i].name);
    return constants_parse(f);
}

static bool fits(struct Free *f, struct Device *dev) {
    struct Own *o = f->own;
    f->spec[1] = dev->limits.subgroup_size;
    if (o->module.width_id == 0)
        f->spec[0] = args_given(o->args, "width") ? (uint32_t)args_int(o->args, "width") : cmd_local_size(dev);
    f->n_spec = (uint32_t)max_u64(f->n_spec, 2);
    struct SpirvModule chosen; // with these constants
    spirv_read(o->words, o->n_words, f->spec, f->n_spec, &chosen);
    f->spec[0] = chosen.width[0];
    for (int i = 0; i < 3; i++)
        if (f->grid[i] == 0 || f->grid[i] > dev->limits.max_groups[i])
            return fail("--grid %s: 1 to %u,%u,%u workgroups are possible on %s", args_text(o->args, "grid"),
                        dev->limits.max_groups[0], dev->limits.max_groups[1], dev->limits.max_groups[2], dev->name);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < f->n_buffers; i++) {
        struct Tensor t = tensor_shape(f->buffers[i].type, f->buffers[i].n_dims, f->buffers[i].dim);
        if (t.bytes > dev->limits.max_allocation_bytes / 2 || !ckd_add(bytes, t.bytes, &bytes) ||
            bytes > dev->limits.memory_bytes / 2)
            return fail("--buffer %u: %llu MiB are too much for %s", i + 1, (unsigned long long)t.bytes >> 20,
                        dev->name);
    }
    return fits_device(dev, o->path, &chosen);
}

static void buffer_make(struct CheckRun *r, struct OwnBuffer *b, uint64_t seed) {
    uint64_t n = 1;
    for (uint32_t i = 0; i < b->n_dims; i++)
        n *= b->dim[i];
    if (b->fill == FILL_OUT) {
        b->t = b->type == DT_U32 ? checkrun_output_u32(r, b->n_dims, b->dim) : checkrun_output(r, b->n_dims, b->dim);
    } else if (b->fill == FILL_RANDOM && b->type != DT_U32) {
        b->t = checkrun_random(r, b->type, b->n_dims, b->dim, 1);
    } else {
        uint32_t *words = xmalloc(n * sizeof *words);
        for (uint64_t i = 0; i < n; i++) {
            float value = b->fill == FILL_INDEX ? (float)i : b->number;
            uint32_t whole = b->fill == FILL_INDEX ? (uint32_t)i : (uint32_t)b->number, random[4];
            philox(seed, b->field, i, random);
            if (b->type == DT_U32)
                words[i] = b->fill == FILL_RANDOM ? random[0] : whole;
            else
                memcpy(&words[i], &value, sizeof value);
        }
        b->t = checkrun_values(r, b->type, b->n_dims, b->dim, words);
        free(words);
    }
    if (dtype_is_quantised(b->type))
        return;
    b->t->output = true; // read back, whoever wrote it
    b->before = xmalloc(n * sizeof *b->before);
    for (uint64_t i = 0; i < n; i++)
        b->before[i] = b->fill != FILL_OUT ? b->t->value[i] : b->type == DT_U32 ? (double)CHECK_POISON : (double)NAN;
}

static struct Program *record(struct Free *f, struct Device *dev, double flops, double bytes) {
    const struct SpirvModule *m = &f->own->module;
    struct View places[PUSH_BYTES / 8] = {{0}}; // struct Args_own
    for (uint32_t i = 0; i < m->n_fields; i++)
        if (m->fields[i].kind != SPIRV_POINTER)
            places[m->fields[i].offset / 8].address |= (uint64_t)f->values[i] << 8 * (m->fields[i].offset % 8);
    for (uint32_t i = 0; i < f->n_buffers; i++)
        places[m->fields[f->buffers[i].field].offset / 8] = view(&f->buffers[i].t->t);
    struct Dispatch d = {.kernel = KERNEL_probe, // whose place the file has meanwhile
                         .local_size = f->spec[0],
                         .n_spec = f->n_spec - 2,
                         .groups = {f->grid[0], f->grid[1], f->grid[2]},
                         .flops = flops,
                         .bytes = bytes};
    memcpy(d.spec, f->spec + 2, d.n_spec * sizeof *d.spec);
    struct Cmd *c = cmd_begin(dev, f->own->path);
    cmd_dispatch(c, &d, places);
    return cmd_end(c);
}

// What a buffer holds behind the first run; text on stderr unless the row tells it.
static json_t *buffer_show(const struct Free *f, const struct OwnBuffer *b, bool quiet) {
    const char *name = f->own->module.fields[b->field].name;
    json_t *first = json_array();
    uint64_t changed = 0;
    double sum = 0;
    for (uint64_t i = 0; b->before && i < b->t->n; i++) {
        double is = b->t->value[i], was = b->before[i];
        changed += !(is == was || (isnan(is) && isnan(was)));
        sum += is;
        if (i < FIRST_VALUES)
            json_array_append_new(first, bench_number(is));
    }
    char hash[20] = "";
    if (b->before)
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hash_bytes(b->t->value, b->t->n * 8, 0));
    if (!quiet && changed) {
        fprintf(stderr, "%s (%s): %llu of %llu numbers written:", name, DTYPES[b->type].name,
                (unsigned long long)changed, (unsigned long long)b->t->n);
        for (uint64_t i = 0; i < b->t->n && i < FIRST_VALUES; i++)
            fprintf(stderr, " %.6g", b->t->value[i]);
        fprintf(stderr, "%s; sum %.9g, hash %s\n", b->t->n > FIRST_VALUES ? " ..." : "", sum, hash);
    } else if (!quiet && b->fill == FILL_OUT) {
        fprintf(stderr, "%s (%s): nothing was written\n", name, DTYPES[b->type].name);
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:s}", "name", name, "type", DTYPES[b->type].name, "numbers",
                     (json_int_t)b->t->n, "written", (json_int_t)changed, "first", first, "sum", bench_number(sum),
                     "hash", hash);
}

static const struct BenchColumn COLUMNS[] = {
    {"name", "file", -26, 0},
    {"grid", "workgroups", -14, 0},
    {"width", "width", 6, 0},
    {"us", "us", 10, 1},
    BENCH_RATES,
    {0},
};

static void show(struct Free *f, struct Device *dev, const struct Check *ck, const struct Peaks *peaks,
                 uint32_t first_statistic, struct BenchTable *table) {
    const struct Args *args = f->own->args;
    bool quiet = args_switch(args, "json");
    double us = bench_fair_us(dev, ck->us, ck->cpu_us), share = 0;
    if (us > 0)
        share = 100 * fmax(ck->flops / us / 1000 / peaks->gflops, ck->bytes / us / 1000 / peaks_gbytes(peaks));
    char grid[40];
    snprintf(grid, sizeof grid, "%u,%u,%u", f->grid[0], f->grid[1], f->grid[2]);
    json_t *row = json_pack(
        "{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:o, s:b}", "name", KERNELS[KERNEL_probe].name, "grid", grid, "width",
        (int)f->spec[0], "us", ck->us, "spread_percent", ck->us > 0 ? 100 * ck->us_spread / ck->us : 0, "cpu_us",
        ck->cpu_us, "gflops", ck->us > 0 ? ck->flops / ck->us / 1000 : 0, "gbytes_per_s",
        ck->us > 0 ? ck->bytes / ck->us / 1000 : 0, "peak_percent", bench_number(share), "wrote_beside", !ck->guard_ok);
    json_t *statistics = bench_pipeline(dev, KERNEL_probe, first_statistic), *buffers = json_array();
    if (!quiet) // the lines below are about it
        bench_row(table, row);
    for (uint32_t i = 0; i < f->n_buffers; i++)
        json_array_append_new(buffers, buffer_show(f, &f->buffers[i], quiet));
    if (quiet) {
        json_object_set(row, "buffers", buffers);
        json_object_set(row, "statistics", statistics);
        bench_row(table, row);
    } else {
        bench_pipeline_show(statistics, NULL);
    }
    json_decref(buffers);
    json_decref(statistics);
}

static int run_free(struct Own *o) {
    struct Free f = {.own = o};
    if (!own_compile(o, NULL, NULL) || !flags_parse(&f))
        return EXIT_FAILED;
    struct Device dev;
    struct Peaks peaks;
    struct BenchTable table;
    if (!device_open(&dev, args_text(o->args, "device")))
        return EXIT_FAILED;
    dev.cuts_dispatches = false; // whose pieces would have other numbers of workgroups, which the shader may ask for
    if (!fits(&f, &dev) || !peaks_measure(&dev, &peaks) ||
        !bench_begin(&table, o->args, &dev, COLUMNS, 3, "us", true)) {
        device_close(&dev);
        return EXIT_FAILED;
    }
    char *file = bench_model_name(o->path);
    struct KernelInfo own = {.name = file, .push = PUSH_ID_own, .words = o->words, .n_words = o->n_words};
    struct KernelInfo was = kernel_replace(&dev, KERNEL_probe, own);
    uint32_t first_statistic;
    pipeline_statistics(&dev, &first_statistic);
    struct Check ck = {.dev = &dev,
                       .seed = (uint64_t)args_int(o->args, "seed"),
                       .time = true,
                       .warm = args_switch(o->args, "warm"),
                       .flops = args_float(o->args, "flops"),
                       .bytes = args_float(o->args, "bytes")};
    struct CheckRun r;
    checkrun_begin(&r, &ck);
    for (uint32_t i = 0; i < f.n_buffers; i++)
        buffer_make(&r, &f.buffers[i], ck.seed);
    bool ok = checkrun_execute(&r, record(&f, &dev, ck.flops, ck.bytes));
    if (ok)
        show(&f, &dev, &ck, &peaks, first_statistic, &table);
    ok = ok && ck.guard_ok;
    for (uint32_t i = 0; i < f.n_buffers; i++)
        free(f.buffers[i].before);
    checkrun_end(&r);
    kernel_replace(&dev, KERNEL_probe, was);
    int status = bench_end(&table, ok);
    device_close(&dev);
    free(file);
    return status;
}

int bench_shader(const struct Args *args, const char *path, const char *filter) {
    struct Own o = {.args = args, .path = path};
    const char *as = args_text(args, "as");
    if (filter && !as)
        return args_wrong(args, "FILTER chooses among the shapes of --as NAME");
    static const char *const OF_AS[] = {"preset", "tokens", "type", "png"};
    for (size_t i = 0; i < sizeof OF_AS / sizeof OF_AS[0] && !as; i++)
        if (args_given(args, OF_AS[i]))
            return args_wrong(args, "--%s is of --as NAME", OF_AS[i]);
    setenv("VKMOE_STATIC", "1", 1); // what the driver's compiler says of it, too
    int status = as ? run_as(&o, as, filter) : run_free(&o);
    free(o.words);
    return status;
}
