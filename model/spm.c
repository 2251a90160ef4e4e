// See spm.h.
#include "model/spm.h"
#include "model/utf8.h"

#include <stdlib.h>

static uint64_t pair_of(uint32_t left, uint32_t right) { return ((uint64_t)left << 32 | right) + 1; } // never 0

static size_t pair_slot(const struct Joins *j, uint64_t pair) {
    size_t i = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & j->mask;
    while (j->slots[i] && j->slots[i] != pair)
        i = (i + 1) & j->mask;
    return i;
}

static void grow(struct Joins *j) {
    struct Joins old = *j;
    j->mask = old.slots ? old.mask * 2 + 1 : 1023;
    j->slots = xcalloc(j->mask + 1, sizeof *j->slots);
    for (size_t i = 0; old.slots && i <= old.mask; i++)
        if (old.slots[i])
            j->slots[pair_slot(j, old.slots[i])] = old.slots[i];
    free(old.slots);
}

void joins_add(struct Joins *j, const char *piece, size_t bytes) {
    uint32_t left = UINT32_MAX, right = 0;
    for (size_t i = 0, n; i < bytes && (n = utf8_char(piece + i, bytes - i, &right)); i += n, left = right) {
        if (left == UINT32_MAX)
            continue;
        if (left < 128 && right < 128)
            j->ascii[(left * 128 + right) / 8] |= (uint8_t)(1 << right % 8);
        if (!j->slots || j->n * 2 > j->mask)
            grow(j);
        size_t slot = pair_slot(j, pair_of(left, right));
        j->n += !j->slots[slot];
        j->slots[slot] = pair_of(left, right);
    }
}

void joins_free(struct Joins *j) {
    free(j->slots);
    *j = (struct Joins){0};
}

static bool joined(const struct Joins *j, uint32_t left, uint32_t right) {
    if (left < 128 && right < 128)
        return j->ascii[(left * 128 + right) / 8] >> right % 8 & 1;
    return j->slots && j->slots[pair_slot(j, pair_of(left, right))];
}

bool spm_encode(const struct Joins *j, const struct Bpe *b, const char *text, size_t bytes, struct IdList *out) {
    size_t start = 0;
    uint32_t left = 0, right = 0;
    for (size_t i = 0, n; i < bytes; i += n, left = right) {
        n = utf8_char(text + i, bytes - i, &right);
        if (!n) // never in repaired text
            return fail("byte %zu of a text is not UTF-8", i);
        if (i > start && !joined(j, left, right)) {
            if (!bpe_encode(b, text + start, i - start, out))
                return false;
            start = i;
        }
    }
    return bpe_encode(b, text + start, bytes - start, out);
}
