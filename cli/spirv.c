// See spirv.h. The numbers are those of the SPIR-V specification.
#include "cli/spirv.h"

#include <stdlib.h>
#include <string.h>

enum {
    OP_MEMBER_NAME = 6,
    OP_EXECUTION_MODE = 16,
    OP_CAPABILITY = 17,
    OP_TYPE_BOOL = 20,
    OP_TYPE_INT = 21,
    OP_TYPE_FLOAT = 22,
    OP_TYPE_VECTOR = 23,
    OP_TYPE_MATRIX = 24,
    OP_TYPE_ARRAY = 28,
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_CONSTANT = 43,
    OP_SPEC_TRUE = 48,
    OP_SPEC_FALSE = 49,
    OP_SPEC = 50,
    OP_SPEC_OP = 52,
    OP_VARIABLE = 59,
    OP_DECORATE = 71,
    OP_MEMBER_DECORATE = 72,
    OP_EXECUTION_MODE_ID = 331
};
enum { UNIFORM_CONSTANT = 0, UNIFORM = 2, WORKGROUP = 4, PUSH_CONSTANT = 9, STORAGE_BUFFER = 12, PHYSICAL = 5349 };
enum { MAX_BOUND = 1 << 22 }; // of ids; no compiler goes beyond
enum { DECORATION_SPEC_ID = 1, DECORATION_OFFSET = 35, MODE_LOCAL_SIZE = 17, MODE_LOCAL_SIZE_ID = 38 };

// Where the instruction that makes an id stands, and its constant_id + 1.
struct Reader {
    const uint32_t *words, *spec;
    uint32_t n_spec, bound;
    uint32_t *at, *spec_id; // (bound)
};

static uint32_t op(const uint32_t *w) { return w[0] & 0xffff; }
static uint32_t length(const uint32_t *w) { return w[0] >> 16; }
static const uint32_t *get(const struct Reader *r, uint32_t id) {
    static const uint32_t nothing[4] = {4 << 16};
    return id < r->bound && r->at[id] ? r->words + r->at[id] : nothing;
}

// Where an instruction leaves its result; 0: none, or none that is asked for here.
static uint32_t result_of(const uint32_t *w) {
    switch (op(w)) {
    case OP_TYPE_BOOL:
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT:
    case OP_TYPE_VECTOR:
    case OP_TYPE_MATRIX:
    case OP_TYPE_ARRAY:
    case OP_TYPE_STRUCT:
    case OP_TYPE_POINTER:
        return w[1];
    case OP_CONSTANT:
    case OP_SPEC_TRUE:
    case OP_SPEC_FALSE:
    case OP_SPEC:
    case OP_SPEC_OP:
    case OP_VARIABLE:
        return w[2];
    default:
        return 0;
    }
}

// Integer arithmetic between constants, as lengths of arrays have it; what else there is counts as 0. An operand's id is less than the result's in
// what compilers write, which also bounds the depth.
static uint32_t constant(const struct Reader *r, uint32_t id) {
    const uint32_t *w = get(r, id);
    uint32_t spec = id < r->bound ? r->spec_id[id] : 0;
    if (spec && spec <= r->n_spec)
        return r->spec[spec - 1];
    if (op(w) == OP_CONSTANT || op(w) == OP_SPEC)
        return w[3];
    if (op(w) != OP_SPEC_OP || length(w) < 6 || w[4] >= id || w[5] >= id)
        return op(w) == OP_SPEC_TRUE;
    uint32_t a = constant(r, w[4]), b = constant(r, w[5]);
    switch (w[3]) {
    case 128:
        return a + b;
    case 130:
        return a - b;
    case 132:
        return a * b;
    case 134:
    case 135:
        return b ? a / b : 0;
    case 137:
    case 139:
        return b ? a % b : 0;
    case 194:
        return b < 32 ? a >> b : 0;
    case 196:
        return b < 32 ? a << b : 0;
    case 169:
        return length(w) > 6 && w[6] < id && !a ? constant(r, w[6]) : b;
    default:
        return 0;
    }
}

static uint64_t type_bytes(const struct Reader *r, uint32_t id) {
    const uint32_t *w = get(r, id);
    uint64_t bytes = 0;
    switch (op(w)) {
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT:
        return w[2] / 8;
    case OP_TYPE_BOOL:
        return 4;
    case OP_TYPE_POINTER:
        return 8;
    case OP_TYPE_VECTOR:
    case OP_TYPE_MATRIX:
        return w[2] < id ? type_bytes(r, w[2]) * w[3] : 0;
    case OP_TYPE_ARRAY:
        return w[2] < id && ckd_mul(type_bytes(r, w[2]), constant(r, w[3]), &bytes) ? bytes : UINT64_MAX;
    case OP_TYPE_STRUCT:
        for (uint32_t i = 2; i < length(w); i++)
            if (w[i] < id && !ckd_add(bytes, type_bytes(r, w[i]), &bytes))
                return UINT64_MAX;
        return bytes;
    default:
        return 0;
    }
}

static enum SpirvKind kind_of(const struct Reader *r, uint32_t type) {
    const uint32_t *w = get(r, type);
    if (op(w) == OP_TYPE_POINTER)
        return w[2] == PHYSICAL ? SPIRV_POINTER : SPIRV_OTHER;
    if (op(w) == OP_TYPE_BOOL)
        return SPIRV_BOOL;
    if ((op(w) != OP_TYPE_INT && op(w) != OP_TYPE_FLOAT) || w[2] != 32)
        return SPIRV_OTHER;
    return op(w) == OP_TYPE_FLOAT ? SPIRV_FLOAT : w[3] ? SPIRV_INT : SPIRV_UINT;
}

// The block of a push-constant variable, whose members' names and offsets were told before it.
static void read_block(const struct Reader *r, uint32_t n_words, uint32_t block, struct SpirvModule *m) {
    const uint32_t *type = get(r, block), *w;
    for (uint32_t i = 2; op(type) == OP_TYPE_STRUCT && i < length(type) && i - 2 < SPIRV_MAX_FIELDS; i++)
        m->fields[m->n_fields++] = (struct SpirvField){.kind = kind_of(r, type[i])};
    for (uint32_t i = 5; i < n_words; i += length(w)) {
        w = r->words + i;
        if (op(w) == OP_MEMBER_DECORATE && w[1] == block && w[2] < m->n_fields && w[3] == DECORATION_OFFSET)
            m->fields[w[2]].offset = w[4];
        if (op(w) == OP_MEMBER_NAME && w[1] == block && w[2] < m->n_fields)
            snprintf(m->fields[w[2]].name, sizeof m->fields[0].name, "%.*s", (int)(4 * (length(w) - 3)),
                     (const char *)(w + 3));
    }
}

static void read_variable(const struct Reader *r, uint32_t n_words, const uint32_t *w, struct SpirvModule *m) {
    const uint32_t *pointer = get(r, w[1]);
    if (w[3] == UNIFORM_CONSTANT || w[3] == UNIFORM || w[3] == STORAGE_BUFFER)
        m->n_descriptors++;
    if (w[3] == WORKGROUP && !ckd_add(m->shared_bytes, type_bytes(r, pointer[3]), &m->shared_bytes))
        m->shared_bytes = UINT64_MAX;
    if (w[3] == PUSH_CONSTANT)
        read_block(r, n_words, pointer[3], m);
}

static void read_constant(const struct Reader *r, const uint32_t *w, struct SpirvModule *m) {
    uint32_t id = r->spec_id[w[2]] - 1;
    for (uint32_t i = 0; i < m->n_constants; i++)
        if (m->constants[i].id == id)
            return;
    if (m->n_constants < SPIRV_MAX_CONSTANTS)
        m->constants[m->n_constants++] =
            (struct SpirvConstant){id, op(w) == OP_SPEC ? w[3] : op(w) == OP_SPEC_TRUE, kind_of(r, w[1])};
}

static void read_width(const struct Reader *r, const uint32_t *w, struct SpirvModule *m) {
    for (uint32_t i = 0; i < 3; i++)
        m->width[i] = op(w) == OP_EXECUTION_MODE_ID ? constant(r, w[3 + i]) : w[3 + i];
    if (op(w) == OP_EXECUTION_MODE_ID && w[3] < r->bound)
        m->width_id = (int)r->spec_id[w[3]] - 1;
}

void spirv_read(const uint32_t *words, uint32_t n_words, const uint32_t *spec, uint32_t n_spec, struct SpirvModule *m) {
    *m = (struct SpirvModule){.width_id = -1};
    for (uint32_t i = 5; i < n_words; i += length(words + i))
        if (length(words + i) == 0 || length(words + i) > n_words - i)
            return;
    if (n_words < 5 || words[3] > MAX_BOUND)
        return;
    struct Reader r = {.words = words, .spec = spec, .n_spec = n_spec, .bound = words[3]};
    r.at = xcalloc(r.bound, sizeof *r.at), r.spec_id = xcalloc(r.bound, sizeof *r.spec_id);
    const uint32_t *w;
    for (uint32_t i = 5; i < n_words; i += length(w)) {
        w = words + i;
        uint32_t id = length(w) > 2 || op(w) == OP_TYPE_BOOL ? result_of(w) : 0;
        if (id && id < r.bound)
            r.at[id] = i;
        if (op(w) == OP_DECORATE && length(w) == 4 && w[2] == DECORATION_SPEC_ID && w[1] < r.bound)
            r.spec_id[w[1]] = w[3] + 1;
    }
    for (uint32_t i = 5; i < n_words; i += length(w)) {
        w = words + i;
        if (op(w) == OP_CAPABILITY && m->n_capabilities < SPIRV_MAX_CAPABILITIES)
            m->capabilities[m->n_capabilities++] = w[1];
        if (op(w) == OP_VARIABLE && length(w) >= 4)
            read_variable(&r, n_words, w, m);
        if (op(w) >= OP_SPEC_TRUE && op(w) <= OP_SPEC && w[2] < r.bound && r.spec_id[w[2]])
            read_constant(&r, w, m);
        if (length(w) == 6 && ((op(w) == OP_EXECUTION_MODE && w[2] == MODE_LOCAL_SIZE) ||
                               (op(w) == OP_EXECUTION_MODE_ID && w[2] == MODE_LOCAL_SIZE_ID)))
            read_width(&r, w, m);
    }
    free(r.at), free(r.spec_id);
}
