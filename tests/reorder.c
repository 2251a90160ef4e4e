// See reorder.h. The numbers are those of the SPIR-V specification.
#include "reorder.h"
#include "runtime/base.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    OP_TYPE_INT = 21,
    OP_TYPE_VECTOR = 23,
    OP_CONSTANT = 43,
    OP_SPEC_CONSTANT = 50,
    OP_LOAD = 61,
    OP_ACCESS_CHAIN = 65,
    OP_IN_BOUNDS_ACCESS_CHAIN = 66,
    OP_DECORATE = 71,
    OP_COMPOSITE_EXTRACT = 81,
    OP_COMPOSITE_INSERT = 82,
    OP_I_ADD = 128,
    OP_I_SUB = 130,
    OP_I_MUL = 132,
    OP_U_DIV = 134,
    OP_U_MOD = 137,
    OP_CONTROL_BARRIER = 224
};
enum { DECORATION_SPEC_ID = 1, DECORATION_BUILT_IN = 11 };
enum {
    NUM_WORKGROUPS = 24,
    WORKGROUP_ID = 26,
    LOCAL_INVOCATION_ID = 27,
    LOCAL_INVOCATION_INDEX = 29,
    SUBGROUP_ID = 40
};
enum { HEADER = 5, SCOPE_WORKGROUP = 2 };

static uint32_t op(const uint32_t *w) { return w[0] & 0xffff; }
static uint32_t length(const uint32_t *w) { return w[0] >> 16; }

struct Edit {
    uint32_t *out;
    uint32_t n, bound;
    uint32_t uint_type, uvec3_type, one; // ids
    uint32_t width, subgroup;            // of the specialisation constants 0 and 1
    uint32_t num_workgroups;             // variable
    uint32_t *built_in, *component,
        *value; // (bound) of a pointer: what it points into + 1, which number of it + 1 (0: all); of a constant
};

static void emit(struct Edit *e, uint32_t op, uint32_t n, const uint32_t *operands) {
    e->out[e->n++] = (n + 1) << 16 | op;
    memcpy(e->out + e->n, operands, n * sizeof *operands);
    e->n += n;
}
#define EMIT(e, op, ...)                                                                                               \
    emit(e, op, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (const uint32_t[]){__VA_ARGS__})

static uint32_t binary(struct Edit *e, uint32_t op, uint32_t a, uint32_t b, uint32_t result) {
    result = result ? result : e->bound++;
    EMIT(e, op, e->uint_type, result, a, b);
    return result;
}

// Of `count` subgroups or workgroups the other end's: count - 1 - i.
static uint32_t mirrored(struct Edit *e, uint32_t count, uint32_t i, uint32_t result) {
    return binary(e, OP_I_SUB, binary(e, OP_I_SUB, count, e->one, 0), i, result);
}

// A workgroup of less than a subgroup is one.
static uint32_t subgroups(struct Edit *e) {
    uint32_t above = binary(e, OP_I_SUB, binary(e, OP_I_ADD, e->width, e->subgroup, 0), e->one, 0);
    return binary(e, OP_U_DIV, above, e->subgroup, 0);
}

// A number that the module has loaded of a built-in variable, as it is to be.
static uint32_t turned(struct Edit *e, uint32_t built_in, uint32_t component, uint32_t x, uint32_t result) {
    if (built_in == WORKGROUP_ID) {
        uint32_t all = e->bound++, count = e->bound++;
        EMIT(e, OP_LOAD, e->uvec3_type, all, e->num_workgroups);
        EMIT(e, OP_COMPOSITE_EXTRACT, e->uint_type, count, all, component);
        return mirrored(e, count, x, result);
    }
    if (built_in == SUBGROUP_ID)
        return mirrored(e, subgroups(e), x, result);
    uint32_t own = mirrored(e, subgroups(e), binary(e, OP_U_DIV, x, e->subgroup, 0), 0);
    return binary(e, OP_I_ADD, binary(e, OP_I_MUL, own, e->subgroup, 0), binary(e, OP_U_MOD, x, e->subgroup, 0),
                  result);
}

// Y and z of what is one row of invocations stay.
static bool turns(uint32_t built_in, uint32_t component) {
    return built_in == WORKGROUP_ID || built_in == SUBGROUP_ID || built_in == LOCAL_INVOCATION_INDEX ||
           (built_in == LOCAL_INVOCATION_ID && component == 0);
}

static void load(struct Edit *e, const uint32_t *w) {
    uint32_t pointer = w[3], built_in = e->built_in[pointer] ? e->built_in[pointer] - 1 : 0;
    bool known = built_in == WORKGROUP_ID
                     ? e->num_workgroups != 0
                     : built_in == LOCAL_INVOCATION_ID || built_in == LOCAL_INVOCATION_INDEX || built_in == SUBGROUP_ID;
    bool vector = w[1] == e->uvec3_type;
    uint32_t component = e->component[pointer] ? e->component[pointer] - 1 : 0;
    if (!known || (!vector && !turns(built_in, component))) {
        emit(e, OP_LOAD, length(w) - 1, w + 1);
        return;
    }
    uint32_t as_it_is = e->bound++;
    EMIT(e, OP_LOAD, w[1], as_it_is, pointer);
    if (!vector) {
        turned(e, built_in, component, as_it_is, w[2]);
        return;
    }
    uint32_t last = built_in == WORKGROUP_ID ? 2 : 0;
    for (uint32_t i = 0; i <= last; i++) {
        uint32_t x = e->bound++;
        EMIT(e, OP_COMPOSITE_EXTRACT, e->uint_type, x, as_it_is, i);
        x = turned(e, built_in, i, x, 0);
        uint32_t joined = i == last ? w[2] : e->bound++;
        EMIT(e, OP_COMPOSITE_INSERT, e->uvec3_type, joined, x, as_it_is, i);
        as_it_is = joined;
    }
}

struct KernelInfo reorder_reversed(const struct KernelInfo *k) {
    const uint32_t *from = k->words, *end = k->words + k->n_words;
    struct Edit e = {.bound = from[3]};
    e.out = xmalloc((size_t)k->n_words * 16 * 4); // an instruction of four words becomes up to sixty
    e.built_in = xcalloc(e.bound, 4), e.component = xcalloc(e.bound, 4), e.value = xcalloc(e.bound, 4);
    uint32_t spec[2] = {0, 0}, *spec_id = xcalloc(e.bound, 4);
    for (const uint32_t *w = from + HEADER; w < end; w += length(w)) {
        if (op(w) == OP_DECORATE && w[2] == DECORATION_BUILT_IN) {
            e.built_in[w[1]] = w[3] + 1;
            e.num_workgroups = w[3] == NUM_WORKGROUPS ? w[1] : e.num_workgroups;
        } else if (op(w) == OP_DECORATE && w[2] == DECORATION_SPEC_ID)
            spec_id[w[1]] = w[3] + 1;
        else if (op(w) == OP_SPEC_CONSTANT && spec_id[w[2]] && spec_id[w[2]] <= 2)
            spec[spec_id[w[2]] - 1] = w[2];
        else if (op(w) == OP_TYPE_INT && w[2] == 32 && w[3] == 0)
            e.uint_type = w[1];
        else if (op(w) == OP_TYPE_VECTOR && w[2] == e.uint_type && w[3] == 3)
            e.uvec3_type = w[1];
        else if (op(w) == OP_CONSTANT)
            e.value[w[2]] = w[3];
        else if ((op(w) == OP_ACCESS_CHAIN || op(w) == OP_IN_BOUNDS_ACCESS_CHAIN) && length(w) == 5 && e.built_in[w[3]])
            e.built_in[w[2]] = e.built_in[w[3]], e.component[w[2]] = e.value[w[4]] + 1;
    }
    free(spec_id);
    assert(e.uint_type && spec[0]); // the runtime's own constants stand in every module
    memcpy(e.out, from, HEADER * 4);
    e.n = HEADER;
    e.width = spec[0], e.subgroup = spec[1] ? spec[1] : e.bound++, e.one = e.bound++;
    bool decorated = spec[1] != 0, made = false;
    for (const uint32_t *w = from + HEADER; w < end; w += length(w)) {
        if (op(w) == OP_DECORATE && !decorated)
            EMIT(&e, OP_DECORATE, e.subgroup, DECORATION_SPEC_ID, 1), decorated = true;
        if (op(w) == OP_LOAD)
            load(&e, w);
        else
            emit(&e, op(w), length(w) - 1, w + 1);
        if (op(w) == OP_TYPE_INT && w[1] == e.uint_type && !made) {
            EMIT(&e, OP_CONSTANT, e.uint_type, e.one, 1);
            if (!spec[1])
                EMIT(&e, OP_SPEC_CONSTANT, e.uint_type, e.subgroup, 1);
            made = true;
        }
    }
    e.out[3] = e.bound;
    free(e.built_in), free(e.component), free(e.value);
    struct KernelInfo turned_round = *k;
    turned_round.words = e.out, turned_round.n_words = e.n;
    return turned_round;
}

// Walks over the barriers of a workgroup; copies all but number `without` where out is there.
static uint32_t barriers(const struct KernelInfo *k, uint32_t *out, uint32_t without, uint32_t *n_out) {
    uint32_t *scope = xcalloc(k->words[3], 4), n = 0, at = HEADER;
    for (const uint32_t *w = k->words + HEADER; w < k->words + k->n_words; w += length(w)) {
        if (op(w) == OP_CONSTANT)
            scope[w[2]] = w[3];
        bool is_one = op(w) == OP_CONTROL_BARRIER && scope[w[1]] == SCOPE_WORKGROUP;
        if (out && !(is_one && n == without))
            memcpy(out + at, w, length(w) * 4), at += length(w);
        n += is_one;
    }
    free(scope);
    if (n_out)
        *n_out = at;
    return n;
}

uint32_t reorder_barriers(const struct KernelInfo *k) { return barriers(k, NULL, 0, NULL); }

struct KernelInfo reorder_without(const struct KernelInfo *k, uint32_t i) {
    struct KernelInfo less = *k;
    uint32_t *out = xmalloc((size_t)k->n_words * 4);
    memcpy(out, k->words, HEADER * 4);
    barriers(k, out, i, &less.n_words);
    less.words = out;
    return less;
}
