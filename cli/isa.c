// See isa.h. A branch to a block that stands before it makes a loop of all that lies between: these compilers lay blocks out so. Of AMD's code a line is
// a name, operands and, behind ';', the encoding; a block begins with "BB12:". Of NVIDIA's, as NVK's compiler prints it after each of its passes, a line is
//     @!p0   r4..6 = hmma.m16n8k16.f32 r0..4 r8..10 r4..6   // when it may be issued
// and a block begins with "block 3 L7 [its predecessors] -> {". What a unit of its own does for all lanes at once has ur or up before the "=".
#include "cli/isa.h"
#include "runtime/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum Kind { KIND_OTHER, KIND_VECTOR, KIND_LDS, KIND_MEMORY, KIND_SCALAR, KIND_FMA, KIND_DOT, KIND_MATRIX, KIND_COUNT };

struct Instruction {
    const char *name;             // in the text, n_name long
    uint32_t n_name, line, bytes; // bytes: of an access, of a lane
    enum Kind kind;
    double lane_flops, flops; // of each lane, of the subgroup
};
struct Loop {
    uint32_t first, end; // instructions
    double flops[KIND_COUNT];
};
struct Code {
    struct Instruction *list;
    struct Loop *loops;
    uint32_t *blocks; // instruction at which block i begins; NONE: not seen yet
    uint32_t n, n_loops, n_blocks, lanes;
    bool nvidia;
};
enum { MOST_BLOCKS = 1 << 20 };
static const uint32_t NONE = UINT32_MAX;

static bool begins(const char *text, size_t n, const char *word) {
    return n >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

static const char *find(const char *text, size_t n, const char *word) { return memmem(text, n, word, strlen(word)); }

// "v_wmma_f32_16x16x16_f16": rows, columns, steps.
static double matrix_flops(const char *name, size_t n) {
    char copy[64];
    unsigned rows, cols, steps;
    snprintf(copy, sizeof copy, "%.*s", (int)n, name);
    for (const char *at = strchr(copy, '_'); at; at = strchr(at + 1, '_'))
        if (sscanf(at, "_%ux%ux%u", &rows, &cols, &steps) == 3)
            return 2.0 * rows * cols * steps;
    return 0;
}

// Arithmetic of one vector operation, "fmac_f32" without its "v_" or "v_dual_".
static enum Kind math_of(const char *name, size_t n, double *lane_flops) {
    static const struct {
        const char *begin;
        enum Kind kind;
        double lane_flops;
    } MATH[] = {{"dot2", KIND_DOT, 4}, {"dot4", KIND_DOT, 8},  {"dot8", KIND_DOT, 16}, {"pk_fma", KIND_FMA, 4},
                {"fma", KIND_FMA, 2},  {"mad_f", KIND_FMA, 2}, {"mac_f", KIND_FMA, 2}, {"mad_mix", KIND_FMA, 2}};
    for (size_t i = 0; i < sizeof MATH / sizeof MATH[0]; i++)
        if (begins(name, n, MATH[i].begin)) {
            *lane_flops += MATH[i].lane_flops;
            return MATH[i].kind;
        }
    return KIND_VECTOR;
}

// From names as RDNA2 has them ("dwordx4", "ushort") and RDNA3 ("b128", "u16"); "2" of shared memory: two of them.
static uint32_t access_bytes(const char *name, size_t n) {
    static const struct {
        const char *word;
        uint32_t bytes;
    } SIZES[] = {{"dwordx4", 16}, {"dwordx3", 12}, {"dwordx2", 8}, {"dword", 4}, {"short", 2}, {"byte", 1},
                 {"128", 16},     {"96", 12},      {"64", 8},      {"32", 4},    {"16", 2},    {"8", 1}};
    if (find(name, n, "st64")) // a stride, "read2st64_b32"
        return 2 * (find(name, n, "b64") ? 8 : 4);
    uint32_t times = find(name, n, "read2") || find(name, n, "write2") || find(name, n, "2addr") ? 2 : 1;
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++)
        if (find(name, n, SIZES[i].word))
            return times * SIZES[i].bytes;
    return 0;
}

static void classify(struct Instruction *in, const char *line, size_t n) {
    const char *name = in->name;
    size_t n_name = in->n_name;
    if (begins(name, n_name, "v_wmma") || begins(name, n_name, "v_swmmac")) {
        in->kind = KIND_MATRIX;
        in->flops = matrix_flops(name, n_name);
    } else if (begins(name, n_name, "v_dual_")) {
        const char *second = find(line, n, ":: v_dual_");
        enum Kind a = math_of(name + 7, n_name - 7, &in->lane_flops), b = KIND_VECTOR;
        if (second)
            b = math_of(second + 10, n - (size_t)(second + 10 - line), &in->lane_flops);
        in->kind = a > b ? a : b;
    } else if (begins(name, n_name, "v_")) {
        in->kind = math_of(name + 2, n_name - 2, &in->lane_flops);
    } else if (begins(name, n_name, "ds_")) {
        in->kind = KIND_LDS;
        in->bytes = access_bytes(name, n_name);
    } else if (begins(name, n_name, "buffer_") || begins(name, n_name, "global_") || begins(name, n_name, "flat_") ||
               begins(name, n_name, "scratch_")) {
        in->kind = KIND_MEMORY;
        in->bytes = access_bytes(name, n_name);
    } else if (begins(name, n_name, "s_") && !find(name, n_name, "wait") && !find(name, n_name, "delay") &&
               !find(name, n_name, "clause") && !find(name, n_name, "nop"))
        in->kind = KIND_SCALAR;
}

// ---- NVIDIA's

// ".b128" of an access of a lane; "ldsm...x4": four registers.
static uint32_t nvidia_bytes(const char *name, size_t n) {
    static const struct {
        const char *word;
        uint32_t bytes;
    } SIZES[] = {{".b128", 16}, {".b64", 8}, {".b32", 4}, {".u16", 2}, {".i16", 2},
                 {".u8", 1},    {".i8", 1},  {".x4", 16}, {".x2", 8},  {".x1", 4}};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++)
        if (find(name, n, SIZES[i].word))
            return SIZES[i].bytes;
    return 0;
}

static void nvidia_classify(struct Instruction *in, bool uniform) {
    static const struct {
        const char *begin;
        enum Kind kind;
        double lane_flops;
    } NAMES[] = {{"ffma", KIND_FMA, 2},        {"dfma", KIND_FMA, 2},      {"hfma2", KIND_FMA, 4},
                 {"idp4", KIND_DOT, 8},        {"hmma", KIND_MATRIX, 0},   {"imma", KIND_MATRIX, 0},
                 {"ld.shared", KIND_LDS, 0},   {"st.shared", KIND_LDS, 0}, {"atom.shared", KIND_LDS, 0},
                 {"ldsm", KIND_LDS, 0},        {"ld.", KIND_MEMORY, 0},    {"st.", KIND_MEMORY, 0},
                 {"atom.", KIND_MEMORY, 0},    {"red.", KIND_MEMORY, 0},   {"ldc", KIND_SCALAR, 0},
                 {"bar", KIND_SCALAR, 0},      {"bra", KIND_SCALAR, 0},    {"bssy", KIND_SCALAR, 0},
                 {"bsync", KIND_SCALAR, 0},    {"bclear", KIND_SCALAR, 0}, {"exit", KIND_SCALAR, 0},
                 {"warpsync", KIND_SCALAR, 0}, {"nop", KIND_OTHER, 0},     {"membar", KIND_OTHER, 0}};
    const char *name = in->name;
    size_t n = in->n_name, i = 0;
    unsigned rows, cols, steps;
    char copy[64];
    while (i < sizeof NAMES / sizeof NAMES[0] && !begins(name, n, NAMES[i].begin))
        i++;
    bool known = i < sizeof NAMES / sizeof NAMES[0];
    in->kind = known ? NAMES[i].kind : uniform ? KIND_SCALAR : KIND_VECTOR;
    in->lane_flops = known ? NAMES[i].lane_flops : 0;
    in->bytes = in->kind == KIND_LDS || in->kind == KIND_MEMORY ? nvidia_bytes(name, n) : 0;
    snprintf(copy, sizeof copy, "%.*s", (int)n, name);
    if (in->kind == KIND_MATRIX && sscanf(copy, "%*4s.m%un%uk%u", &rows, &cols, &steps) == 3)
        in->flops = 2.0 * rows * cols * steps;
}

// ---- Blocks and loops

static void loop_add(struct Code *code, uint32_t first, uint32_t end) {
    for (uint32_t i = 0; i < code->n_loops; i++)
        if (code->loops[i].first == first) { // branches stand in the order of the text: this one comes later
            code->loops[i].end = end;
            return;
        }
    code->loops = xrealloc(code->loops, (code->n_loops + 1) * sizeof *code->loops);
    code->loops[code->n_loops++] = (struct Loop){.first = first, .end = end};
}

// The number at `at`.
static uint32_t block_number(const char *at, const char *end) {
    uint32_t number = 0;
    bool any = false;
    for (; at < end && *at >= '0' && *at <= '9' && number < MOST_BLOCKS; at++, any = true)
        number = number * 10 + (uint32_t)(*at - '0');
    return any && number < MOST_BLOCKS ? number : NONE;
}

static void block_begin(struct Code *code, uint32_t number) {
    if (number == NONE)
        return;
    if (number >= code->n_blocks) {
        code->blocks = xrealloc(code->blocks, (number + 1) * sizeof *code->blocks);
        while (code->n_blocks <= number)
            code->blocks[code->n_blocks++] = NONE;
    }
    code->blocks[number] = code->n;
}

static void loop_to(struct Code *code, uint32_t block) {
    if (block < code->n_blocks && code->blocks[block] != NONE)
        loop_add(code, code->blocks[block], code->n);
}

static void instruction_add(struct Code *code, const struct Instruction *in) {
    code->list = xrealloc(code->list, (code->n + 1) * sizeof *code->list);
    code->list[code->n++] = *in;
}

static void nvidia_line(struct Code *code, const char *line, size_t n, uint32_t number) {
    const char *comment = find(line, n, "//"), *label = find(line, n, " L");
    if (begins(line, n, "block")) {
        if (label)
            block_begin(code, block_number(label + 2, line + n));
        return;
    }
    if (n == 0 || (line[0] != ' ' && line[0] != '@'))
        return;
    n = comment ? (size_t)(comment - line) : n;
    const char *result = find(line, n, " = "), *end = line + n, *at = line;
    at += line[0] == '@' ? strcspn(line, " \n") : 0;
    at += strspn(at, " ");
    bool uniform = result && at + 2 <= end && at[0] == 'u' && (at[1] == 'r' || at[1] == 'p');
    if (result)
        at = result + strspn(result, " =");
    struct Instruction in = {.name = at, .line = number};
    for (; at < end && at[0] > ' '; at++)
        in.n_name++;
    if (in.n_name == 0 || in.name[0] < 'a' || in.name[0] > 'z')
        return;
    nvidia_classify(&in, uniform);
    instruction_add(code, &in);
    if (begins(in.name, in.n_name, "bra") && (label = find(in.name, (size_t)(end - in.name), " L")) != NULL)
        loop_to(code, block_number(label + 2, end));
}

static void line_read(struct Code *code, const char *line, size_t n, uint32_t number) {
    if (begins(line, n, "NAK IR") || (begins(line, n, "block") && !code->nvidia)) { // once more, after another pass
        code->n = code->n_loops = code->n_blocks = 0;
        code->nvidia = true;
    }
    if (code->nvidia) {
        nvidia_line(code, line, n, number);
        return;
    }
    if (begins(line, n, "BB")) {
        block_begin(code, block_number(line + 2, line + n));
        return;
    }
    size_t blank = strspn(line, " \t"), n_name = 0;
    const char *end = memchr(line, ';', n);
    n = end ? (size_t)(end - line) : n;
    if (blank == 0 || blank >= n)
        return;
    while (blank + n_name < n && line[blank + n_name] > ' ')
        n_name++;
    struct Instruction in = {.name = line + blank, .n_name = (uint32_t)n_name, .line = number};
    classify(&in, line, n);
    if (in.kind == KIND_OTHER && !begins(in.name, n_name, "s_"))
        return;
    // Masks of 64 bits are those of 64 lanes.
    if (find(line, n, "saveexec_b64") || find(line, n, "exec,") || find(line, n, "vcc,"))
        code->lanes = 64;
    instruction_add(code, &in);
    const char *to = find(line, n, " BB");
    if (to && (begins(in.name, n_name, "s_cbranch") || begins(in.name, n_name, "s_branch")))
        loop_to(code, block_number(to + 3, line + n));
}

static void code_read(struct Code *code, const char *text, size_t bytes) {
    uint32_t number = 1;
    code->lanes = 32;
    for (const char *at = text, *end = text + bytes; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        line_read(code, at, (size_t)(stop - at), number);
        at = stop + (stop < end);
    }
    for (uint32_t i = 0; i < code->n; i++)
        code->list[i].flops += code->list[i].lane_flops * code->lanes;
    for (uint32_t l = 0; l < code->n_loops; l++)
        for (uint32_t i = code->loops[l].first; i < code->loops[l].end; i++)
            code->loops[l].flops[code->list[i].kind] += code->list[i].flops;
}

// What does most of a loop's arithmetic.
static enum Kind math_kind(const struct Loop *l) {
    return l->flops[KIND_MATRIX] >= l->flops[KIND_DOT] && l->flops[KIND_MATRIX] >= l->flops[KIND_FMA] ? KIND_MATRIX
           : l->flops[KIND_DOT] >= l->flops[KIND_FMA]                                                 ? KIND_DOT
                                                                                                      : KIND_FMA;
}
static double loop_flops(const struct Loop *l) { return l->flops[math_kind(l)]; }

static bool is_inside(const struct Loop *in, const struct Loop *of) {
    return !of || (in != of && in->first >= of->first && in->end <= of->end);
}

static const struct Loop *hottest_inside(const struct Code *code, const struct Loop *of) {
    const struct Loop *best = NULL;
    for (uint32_t i = 0; i < code->n_loops; i++) {
        const struct Loop *l = &code->loops[i];
        double more = loop_flops(l) - (best ? loop_flops(best) : 0);
        if (is_inside(l, of) && (more > 0 || (best && more >= 0 && l->end - l->first > best->end - best->first)))
            best = l;
    }
    return best;
}

static void name_of(const struct Instruction *in, char *out, size_t room) {
    const char *name = in->name;
    name += begins(name, in->n_name, "v_dual_") ? 7 : begins(name, in->n_name, "v_") ? 2 : 0;
    size_t n = in->n_name - (size_t)(name - in->name);
    for (int i = 0; i < 4; i++) {
        static const char *const ENDS[] = {"_e32", "_e64", "_dpp", ".ftz"};
        if (n > 4 && memcmp(name + n - 4, ENDS[i], 4) == 0)
            n -= 4;
    }
    snprintf(out, room, "%.*s", (int)n, name);
}

bool isa_hot_loop(const char *text, size_t bytes, struct IsaLoop *loop) {
    struct Code code = {0};
    code_read(&code, text, bytes);
    const struct Loop *hot = hottest_inside(&code, NULL), *inside = hot;
    for (; inside && 2 * loop_flops(inside) >= loop_flops(hot); inside = hottest_inside(&code, hot))
        hot = inside;
    *loop = (struct IsaLoop){.lanes = code.lanes};
    bool ok = hot && loop_flops(hot) > 0;
    if (ok) {
        enum Kind math = math_kind(hot);
        loop->flops = hot->flops[math];
        loop->first_line = code.list[hot->first].line;
        loop->n_lines = code.list[hot->end - 1].line + 1 - loop->first_line;
        for (uint32_t i = hot->first; i < hot->end; i++) {
            const struct Instruction *in = &code.list[i];
            if (in->kind == math && !loop->by[0] && in->flops > 0)
                name_of(in, loop->by, sizeof loop->by);
            loop->math += in->kind == math;
            loop->vector += in->kind != math && (in->kind == KIND_VECTOR || in->kind >= KIND_FMA);
            loop->lds += in->kind == KIND_LDS, loop->lds_bytes += in->kind == KIND_LDS ? in->bytes : 0;
            loop->memory += in->kind == KIND_MEMORY, loop->mem_bytes += in->kind == KIND_MEMORY ? in->bytes : 0;
            loop->scalar += in->kind == KIND_SCALAR;
        }
    }
    free(code.list);
    free(code.loops);
    free(code.blocks);
    return ok;
}
