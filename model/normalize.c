// See normalize.h.
#include "model/normalize.h"

#include <stdlib.h>
#include <string.h>

bool normalizer_add(struct Normalizer *n, enum NormalizeKind kind, const char *from, const char *to,
                    const char *where) {
    if (n->n == NORMALIZE_MAX)
        return fail("%s: more than %d normalizer steps", where, NORMALIZE_MAX);
    if (kind == NORMALIZE_REPLACE && !*from)
        return fail("%s: normalizer Replace: the pattern is empty", where);
    n->steps[n->n++] = (struct NormalizeStep){.kind = kind,
                                              .from = from ? xstrdup(from) : NULL,
                                              .to = to ? xstrdup(to) : NULL,
                                              .from_bytes = from ? strlen(from) : 0,
                                              .to_bytes = to ? strlen(to) : 0};
    return true;
}

void normalizer_free(struct Normalizer *n) {
    for (unsigned i = 0; i < n->n; i++) {
        free(n->steps[i].from);
        free(n->steps[i].to);
    }
    *n = (struct Normalizer){0};
}

uint64_t normalizer_hash(const struct Normalizer *n, uint64_t seed) {
    for (unsigned i = 0; i < n->n; i++) {
        const struct NormalizeStep *s = &n->steps[i];
        seed = hash_bytes(s->from ? s->from : "", s->from_bytes, seed * 8 + s->kind + 1);
        seed = hash_bytes(s->to ? s->to : "", s->to_bytes, seed);
    }
    return seed;
}

bool normalizer_has(const struct Normalizer *n, enum NormalizeKind kind) {
    for (unsigned i = 0; i < n->n; i++)
        if (n->steps[i].kind == kind)
            return true;
    return false;
}

char *text_replace(const char *text, size_t bytes, const char *from, size_t from_bytes, const char *to, size_t to_bytes,
                   size_t *out_bytes) {
    size_t count = 0, n = 0;
    const char *at = text, *end = text + bytes;
    for (const char *hit; (hit = memmem(at, (size_t)(end - at), from, from_bytes)); at = hit + from_bytes)
        count++;
    char *out = xmalloc(bytes - count * from_bytes + count * to_bytes + 1);
    at = text;
    for (const char *hit; (hit = memmem(at, (size_t)(end - at), from, from_bytes)); at = hit + from_bytes) {
        memcpy(out + n, at, (size_t)(hit - at));
        n += (size_t)(hit - at);
        memcpy(out + n, to, to_bytes);
        n += to_bytes;
    }
    memcpy(out + n, at, (size_t)(end - at));
    n += (size_t)(end - at);
    out[n] = 0;
    *out_bytes = n;
    return out;
}

static char *run_step(const struct NormalizeStep *s, char *text, size_t *bytes, bool prefix) {
    char *out = NULL;
    switch (s->kind) {
    case NORMALIZE_NFC:
        out = nfc_compose(text, *bytes, bytes);
        break;
    case NORMALIZE_PREPEND:
        if (!prefix || *bytes == 0)
            return text;
        out = xmalloc(*bytes + s->to_bytes + 1);
        memcpy(out, s->to, s->to_bytes);
        memcpy(out + s->to_bytes, text, *bytes + 1);
        *bytes += s->to_bytes;
        break;
    case NORMALIZE_REPLACE:
        out = text_replace(text, *bytes, s->from, s->from_bytes, s->to, s->to_bytes, bytes);
    }
    free(text);
    return out;
}

char *normalizer_run(const struct Normalizer *n, const char *text, size_t bytes, bool prefix, size_t *out_bytes) {
    char *out = xmalloc(bytes + 1);
    memcpy(out, text, bytes);
    out[bytes] = 0;
    for (unsigned i = 0; i < n->n; i++)
        out = run_step(&n->steps[i], out, &bytes, prefix);
    *out_bytes = bytes;
    return out;
}
