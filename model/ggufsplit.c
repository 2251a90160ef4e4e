// See ggufsplit.h. A part of another model is found by its numbers and by its tensors: they must add up and stand once.
#include "model/ggufsplit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct Place {
    uint32_t no, count, tensors; // tensors: of the whole model
};

static bool read_place(const struct Gguf *g, struct Place *p) {
    *p = (struct Place){.count = 1};
    return gguf_get_u32(g, "split.no", false, &p->no) && gguf_get_u32(g, "split.count", false, &p->count) &&
           gguf_get_u32(g, "split.tensors.count", false, &p->tensors);
}

// "-00002-of-00003.gguf": 20 bytes.
static char *ending(uint32_t no, uint32_t count) { return xsprintf("-%05u-of-%05u.gguf", no + 1, count); }

// The path of part `no`, from that of part `from`; NULL: it does not end as it should.
static char *part_path(const char *path, uint32_t from, uint32_t no, uint32_t count) {
    char *old = ending(from, count), *new = ending(no, count), *out = NULL;
    size_t n = strlen(path), end = strlen(old);
    if (n > end && strcmp(path + n - end, old) == 0)
        out = xsprintf("%.*s%s", (int)(n - end), path, new);
    free(old);
    free(new);
    return out;
}

bool ggufsplit_count(const struct Gguf *g, const char *path, uint32_t *n_parts) {
    struct Place p;
    if (!read_place(g, &p))
        return false;
    if (p.count < 1 || p.count > GGUF_MAX_PARTS || p.no >= p.count)
        return fail("%s: is said to be part %u of %u; up to %d parts are read", path, p.no + 1, p.count,
                    GGUF_MAX_PARTS);
    *n_parts = p.count;
    if (p.count == 1)
        return true;
    char *first = part_path(path, p.no, 0, p.count);
    if (!first) {
        char *end = ending(p.no, p.count);
        fail("%s: is part %u of %u of a model, so its name must end in %s", path, p.no + 1, p.count, end);
        free(end);
        return false;
    }
    if (p.no > 0)
        fail("%s: is part %u of %u of a model; give the first: %s", path, p.no + 1, p.count, first);
    free(first);
    return p.no == 0;
}

static bool check_part(const struct Gguf *part, uint32_t no, const struct Place *whole) {
    struct Place p;
    if (!read_place(part, &p))
        return false;
    if (p.no != no || p.count != whole->count || p.tensors != whole->tensors)
        return fail("%s: is part %u of %u with %u tensors in all; part %u of %u with %u is expected: it is of another "
                    "model",
                    part->file.name, p.no + 1, p.count, p.tensors, no + 1, whole->count, whole->tensors);
    return true;
}

static bool check_tensors(const struct Gguf *parts, uint32_t n, const struct Place *whole) {
    uint64_t count = 0;
    for (uint32_t p = 0; p < n; p++) {
        count += parts[p].n_tensors;
        for (uint64_t i = 0; i < parts[p].n_tensors; i++)
            for (uint32_t before = 0; before < p; before++)
                if (gguf_find_tensor(&parts[before], parts[p].tensors[i].name))
                    return fail("%s: tensor %s is in %s too: it is a part of another model", parts[p].file.name,
                                parts[p].tensors[i].name, parts[before].file.name);
    }
    return count == whole->tensors || fail("%s: the %u parts have %" PRIu64 " tensors; %u are expected",
                                           parts[0].file.name, n, count, whole->tensors);
}

bool ggufsplit_open(struct Gguf *parts, uint32_t n, const char *path) {
    struct Place whole;
    bool ok = read_place(&parts[0], &whole);
    uint32_t opened = 1;
    while (ok && opened < n) {
        char *name = part_path(path, 0, opened, n);
        ok = (name && file_exists(name)) ||
             fail("%s: is missing: part %u of %u of %s", name ? name : "?", opened + 1, n, path);
        ok = ok && gguf_open(&parts[opened], name);
        free(name);
        if (ok) {
            opened++;
            ok = check_part(&parts[opened - 1], opened - 1, &whole);
        }
    }
    ok = ok && (n == 1 || check_tensors(parts, n, &whole));
    for (uint32_t p = 1; !ok && p < opened; p++)
        gguf_close(&parts[p]);
    return ok;
}

const struct GgufTensor *ggufsplit_find(const struct Gguf *parts, uint32_t n, const char *name, uint32_t *part) {
    for (uint32_t p = 0; p < n; p++) {
        const struct GgufTensor *t = gguf_find_tensor(&parts[p], name);
        if (t && part)
            *part = p;
        if (t)
            return t;
    }
    return NULL;
}
