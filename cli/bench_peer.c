// `vkmoe bench static --peer [FILTER]`: our kernels and llama.cpp's of the same operation, types and sizes as one driver compiles them, a row each. The peer's come from its own
// test-backend-ops, whose child process prints what the driver made of each kernel; it must only compile, so a card that is not there will do (mesa-drm-shim).
#include "cli/bench.h"
#include "cli/isa.h"
#include "model/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- Cases: sizes are those of the peer's own list

struct PeerCase {
    const char *name;
    const char *op, *parameters; // of test-backend-ops; the latter a regular expression
    void (*record)(struct Cmd *c, struct Arena *a, const struct PeerCase *pc);
    enum DType type; // of weights or of keys and values
    uint32_t rows;
    uint32_t beside; // rows that a matrix can multiply at once where that is less than its height; 0: any
};

static void record_dense(struct Cmd *c, struct Arena *a, const struct PeerCase *pc) {
    enum { N = 4096, K = 14336 };
    struct Tensor x = TENSOR(a, DT_F32, pc->rows, K), w = TENSOR(a, pc->type, N, K);
    struct Tensor y = TENSOR(a, DT_F32, pc->rows, N);
    op_linear(c, &x, &w, &y, NULL, (struct LinearOptions){.scratch = a});
}

static void record_experts(struct Cmd *c, struct Arena *a, const struct PeerCase *pc) {
    enum { N = 768, K = 2048, EXPERTS = 128, ACTIVE = 8 };
    struct Routing g = routing_make(a, cmd_device(c), pc->rows, EXPERTS, ACTIVE);
    struct Tensor x = TENSOR(a, DT_F32, pc->rows, K), w = TENSOR(a, pc->type, EXPERTS, N, K);
    struct Tensor y = TENSOR(a, DT_F32, pc->rows * ACTIVE, N);
    op_linear(c, &x, &w, &y, &g, (struct LinearOptions){.gather = true, .scratch = a});
}

enum { KEYS = 4096, KV_HEADS = 8, HEAD = 128 };
static void record_attention(struct Cmd *c, struct Arena *a, const struct PeerCase *pc) {
    struct AttentionShape s = {KV_HEADS, KV_HEADS, HEAD, 0.0884f, true};
    struct Tensor q = TENSOR(a, DT_F32, pc->rows, KV_HEADS * HEAD), span = TENSOR(a, DT_U32, pc->rows, 2);
    struct Tensor k = TENSOR(a, pc->type, KEYS, KV_HEADS * HEAD), v = TENSOR(a, pc->type, KEYS, KV_HEADS * HEAD);
    struct Tensor o = TENSOR(a, DT_F32, pc->rows, KV_HEADS * HEAD);
    op_attention(c, a, &q, &k, &v, &span, &o, NULL, s);
}

static void record_decode(struct Cmd *c, struct Arena *a, const struct PeerCase *pc) {
    enum { HEADS = 4 * KV_HEADS };
    struct AttentionShape s = {HEADS, KV_HEADS, HEAD, 0.0884f, true};
    struct Tensor q = TENSOR(a, DT_F32, pc->rows, HEADS * HEAD), span = TENSOR(a, DT_U32, pc->rows, 2);
    struct Tensor k = TENSOR(a, pc->type, KEYS, KV_HEADS * HEAD), v = TENSOR(a, pc->type, KEYS, KV_HEADS * HEAD);
    struct Tensor o = TENSOR(a, DT_F32, pc->rows, HEADS * HEAD), done = TENSOR(a, DT_U32, pc->rows * HEADS);
    op_attention_decode(c, a, &done, &q, &k, &v, &span, &o, s);
}

#define DENSE(text, type, rows)                                                                                        \
    "MUL_MAT", "type_a=" text ",type_b=f32,m=4096,n=" #rows ",k=14336,bs=.1,1.,nr=.1,1.", record_dense, type, rows, 0
#define EXPERTS(text, type)                                                                                            \
    "MUL_MAT_ID", "type_a=" text ",type_b=f32,n_mats=128,n_used=8,b=0,m=768,n=512,k=2048", record_experts, type, 512, 0
#define ATTENTION(heads, rows)                                                                                         \
    "FLASH_ATTN_EXT", "hsk=128,hsv=128,nh=8,nr23=.(" heads "),1.,kv=4096,nb=" #rows ",.*type_K=f16"
static const struct PeerCase CASES[] = {
    {"GEMM f16", DENSE("f16", DT_F16, 512)},
    {"GEMM bf16", DENSE("bf16", DT_BF16, 512)},
    {"GEMM q8_0", DENSE("q8_0", DT_Q8_0, 512)},
    {"GEMM q4_0", DENSE("q4_0", DT_Q4_0, 512)},
    {"GEMM q4_k", DENSE("q4_K", DT_Q4_K, 512)},
    {"experts f16", EXPERTS("f16", DT_F16)},
    {"experts q8_0", EXPERTS("q8_0", DT_Q8_0)},
    {"experts q4_0", EXPERTS("q4_0", DT_Q4_0)},
    {"experts q4_k", EXPERTS("q4_K", DT_Q4_K)},
    {"GEMV f16", DENSE("f16", DT_F16, 1)},
    {"GEMV bf16", DENSE("bf16", DT_BF16, 1)},
    {"GEMV q8_0", DENSE("q8_0", DT_Q8_0, 1)},
    {"GEMV q4_0", DENSE("q4_0", DT_Q4_0, 1)},
    {"GEMV q4_k", DENSE("q4_K", DT_Q4_K, 1)},
    {"attention", ATTENTION("1", 4096), record_attention, DT_F16, 4096, 0},
    {"attention decode", ATTENTION("4", 1), record_decode, DT_F16, 1, 4}, // the heads that share keys
};

// ---- What a compiler made: the kernel whose loop has most arithmetic, of all that an operation needs

struct Compiled {
    char kernel[64];
    struct IsaLoop loop;
    json_t *statistics;
};

static void compiled_take(struct Compiled *best, const char *kernel, const char *code, size_t bytes,
                          json_t *statistics) {
    struct IsaLoop loop;
    if (code && isa_hot_loop(code, bytes, &loop) && loop.flops > best->loop.flops) {
        json_decref(best->statistics);
        *best = (struct Compiled){.loop = loop, .statistics = json_incref(statistics)};
        snprintf(best->kernel, sizeof best->kernel, "%s", kernel);
    }
    json_decref(statistics);
}

static void compile_ours(struct Device *dev, const struct PeerCase *pc, struct Compiled *best) {
    struct Arena arena;
    uint32_t first, n;
    pipeline_statistics(dev, &first);
    arena_init(&arena, dev, pc->name, ARENA_DEVICE);
    struct Cmd *c = cmd_begin(dev, pc->name);
    pc->record(c, &arena, pc);
    program_free(cmd_end(c));
    arena_free(&arena);
    const struct PipelineStatistic *list = pipeline_statistics(dev, &n);
    for (uint32_t at = first; at < n;) {
        uint32_t pipeline = list[at].pipeline;
        const char *code = pipeline_code(dev, pipeline), *name = KERNELS[list[at].kernel].name;
        json_t *all = json_object();
        for (; at < n && list[at].pipeline == pipeline; at++)
            json_object_set_new(all, list[at].name, json_real(list[at].value));
        compiled_take(best, name, code, code ? strlen(code) : 0, all);
    }
}

// The peer's child prints the code of a kernel, then a line "pipeline stats for NAME:" and a line for each figure.
static void peer_read(const char *text, struct Compiled *best) {
    static const char MARK[] = "ggml_vulkan: pipeline stats for ", FIGURE[] = "ggml_vulkan:   ";
    const char *code = text;
    for (const char *at = text; (at = strstr(at, MARK)) != NULL; code = at) {
        size_t bytes = (size_t)(at - code);
        const char *name = at + strlen(MARK);
        char kernel[64];
        snprintf(kernel, sizeof kernel, "%.*s", (int)strcspn(name, ":\n"), name);
        json_t *all = json_object();
        at = name + strcspn(name, "\n");
        for (; at[0] == '\n' && strncmp(at + 1, FIGURE, strlen(FIGURE)) == 0; at += 1 + strcspn(at + 1, "\n")) {
            const char *figure = at + 1 + strlen(FIGURE), *colon = strchr(figure, ':');
            char word[64];
            snprintf(word, sizeof word, "%.*s", (int)strcspn(figure, ":\n"), figure);
            if (colon)
                json_object_set_new(all, word, json_real(strtod(colon + 1, NULL)));
        }
        compiled_take(best, kernel, code, bytes, all);
    }
}

// ---- The peer's program

// $VKMOE_PEER, else where Debian's package puts it, else by PATH.
static void peer_find(char *path, size_t room) {
    glob_t found;
    const char *set = getenv("VKMOE_PEER");
    snprintf(path, room, "%s", set ? set : "test-backend-ops");
    if (!set && glob("/usr/libexec/*/{llama.cpp-tests,ggml}/test-backend-ops", GLOB_BRACE, NULL, &found) == 0) {
        snprintf(path, room, "%s", found.gl_pathv[0]);
        globfree(&found);
    }
}

static char *read_all(int fd) {
    size_t n = 0, room = 1 << 20;
    char *text = xmalloc(room);
    for (ssize_t got = 1; got > 0 || (got < 0 && errno == EINTR); n += got > 0 ? (size_t)got : 0) {
        if (n + 1 == room)
            text = xrealloc(text, room *= 2);
        got = read(fd, text + n, room - n - 1);
    }
    text[n] = 0;
    return text;
}

// What the child printed on stderr; NULL after a message.
static char *peer_run(const char *program, const struct PeerCase *pc) {
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return fail("no pipe to %s: %s", program, strerror(errno)), NULL;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 2);
    char *const argv[] = {(char *)program, "perf", "-o", (char *)pc->op, "-p", (char *)pc->parameters, NULL};
    extern char **environ;
    pid_t pid;
    int status = 0, error = posix_spawnp(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    char *text = error == 0 ? read_all(out[0]) : NULL;
    close(out[0]);
    while (text && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (text && status != 0) {
        free(text);
        return fail("%s %s -p '%s' ended with status %d", program, pc->op, pc->parameters, status), NULL;
    }
    if (!text)
        fail("%s: %s; llama.cpp's test-backend-ops is wanted there (VKMOE_PEER=PATH)", program, strerror(error));
    return text;
}

// ---- The table

static const struct BenchColumn COLUMNS[] = {{"case", "operation", -16, 0}, {"side", "", -9, 0},
                                             {"kernel", "kernel", -38, 0},  {"by", "by", -21, 0},
                                             {"registers", "regs", 4, 0},   {"spills", "spills", 6, 0},
                                             {"occupancy", "groups", 6, 0}, {"lds_bytes", "shared", 6, 0},
                                             {"math", "math", 6, 0},        {"vector", "vector", 6, 0},
                                             {"lds", "LDS", 6, 0},          {"lds_kib", "LDS KiB", 7, 0},
                                             {"memory", "memory", 6, 0},    {"memory_kib", "mem KiB", 7, 0},
                                             {"scalar", "scalar", 6, 0},    {0}};

static double spills_of(json_t *statistics) {
    const char *name;
    json_t *value;
    double sum = 0;
    json_object_foreach(statistics, name, value) {
        struct PipelineStatistic s = {.value = json_number_value(value)};
        snprintf(s.name, sizeof s.name, "%s", name);
        sum += statistic_is_spill(&s) ? s.value : 0;
    }
    return sum;
}

// Instructions of 32 lanes, of which one of 64 is two, and bytes of all lanes, for a million floating-point operations. An instruction of matrix units is
// one whatever the lanes: its size says what it does, of which rows that are not there are no part.
static void side_row(struct BenchTable *t, const struct PeerCase *pc, const char *side, const struct Compiled *made) {
    enum { MATRIX_ROWS = 16 };
    const struct IsaLoop *l = &made->loop;
    if (!made->statistics)
        return;
    bool matrix = strstr(l->by, "mma") != NULL;
    double flops = matrix && pc->beside ? l->flops * pc->beside / MATRIX_ROWS : l->flops;
    double each = 1e6 / flops, wide = each * l->lanes / 32, kib = each * l->lanes / 1024;
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:f}", "case", pc->name, "side", side, "kernel", made->kernel, "by",
                            l->by, "spills", spills_of(made->statistics));
    const struct {
        const char *key;
        double value;
    } FIGURES[] = {{"math", l->math * (matrix ? each : wide)},
                   {"vector", l->vector * wide},
                   {"lds", l->lds * wide},
                   {"lds_kib", l->lds_bytes * kib},
                   {"memory", l->memory * wide},
                   {"memory_kib", l->mem_bytes * kib},
                   {"scalar", l->scalar * each},
                   {"flops", flops},
                   {"lanes", l->lanes},
                   {"first_line", l->first_line},
                   {"lines", l->n_lines}};
    for (size_t i = 0; i < sizeof FIGURES / sizeof FIGURES[0]; i++)
        json_object_set_new(row, FIGURES[i].key, json_real(FIGURES[i].value));
    bench_figures(row, made->statistics);
    json_object_set(row, "lds_bytes", json_object_get(made->statistics, "LDS size"));
    json_object_set(row, "statistics", made->statistics);
    bench_row(t, row);
}

int bench_peer(const struct Args *args, const char *filter) {
    char program[4096];
    struct Device dev;
    bool known = !filter;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0] && !known; i++)
        known = strcasestr(CASES[i].name, filter) != NULL;
    if (!known) {
        fail("--peer: no operation matches '%s'", filter);
        return EXIT_FAILED;
    }
    setenv("VKMOE_STATIC", "1", 1);
    peer_find(program, sizeof program);
    if (!device_open(&dev, args_text(args, "device")))
        return EXIT_FAILED;
    dev.is_dry = dev.compile_only = dev.keep_code = true;
    // For the child alone: our device is open.
    char index[16];
    snprintf(index, sizeof index, "%u", dev.index);
    setenv("GGML_VK_VISIBLE_DEVICES", index, 0);
    setenv("GGML_VK_PIPELINE_STATS", "a", 1); // of kernels with this in their name: all
    setenv("RADV_DEBUG", "asm", 1);
    setenv("NAK_DEBUG", "print", 1);
    setenv("MESA_SHADER_CACHE_DISABLE", "1", 1);
    struct BenchTable table;
    bool ok = bench_begin(&table, args, &dev, COLUMNS, 2, "vector", true);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0] && ok; i++) {
        if (filter && !strcasestr(CASES[i].name, filter))
            continue;
        struct Compiled ours = {0}, theirs = {0};
        char *text = peer_run(program, &CASES[i]);
        ok = text != NULL;
        if (ok) {
            compile_ours(&dev, &CASES[i], &ours);
            peer_read(text, &theirs);
        }
        free(text);
        side_row(&table, &CASES[i], "vkmoe", &ours);
        side_row(&table, &CASES[i], "llama.cpp", &theirs);
        json_decref(ours.statistics);
        json_decref(theirs.statistics);
        ok = ok && dev.state == DEVICE_OK;
    }
    if (ok && table.n_rows == 0)
        ok =
            fail("%s's machine code is not one that can be counted: AMD's is, by RADV, and NVIDIA's, by NVK", dev.name);
    dev.is_dry = false;
    int status = bench_end(&table, ok);
    device_close(&dev);
    return status;
}
