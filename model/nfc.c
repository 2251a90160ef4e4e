// Canonical composition (Unicode Standard Annex 15): characters are taken apart, marks are put in the order of their classes, and what
// composes is composed again. Hangul is arithmetic; the rest is in nfc_table.h.
#include "model/normalize.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

struct Decomposition {
    uint32_t whole, first, second;
    bool composes;
};
struct ClassRange {
    uint32_t first, last;
    uint8_t class;
};
#include "model/nfc_table.h"

enum {
    N_DECOMPOSITIONS = sizeof DECOMPOSITIONS / sizeof *DECOMPOSITIONS,
    N_CLASSES = sizeof CLASSES / sizeof *CLASSES
};
enum { HANGUL = 0xac00, HANGUL_COUNT = 11172, LEAD = 0x1100, VOWEL = 0x1161, TAIL = 0x11a7, VOWELS = 21, TAILS = 28 };
enum { PLAIN = 0x300 }; // below it nothing combines and nothing is out of order

struct Points {
    uint32_t *at;
    uint8_t *class;
    size_t n, capacity;
};

static uint8_t class_of(uint32_t c) {
    size_t low = 0, high = N_CLASSES;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (CLASSES[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < N_CLASSES && c >= CLASSES[low].first ? CLASSES[low].class : 0;
}

static void push(struct Points *p, uint32_t c) {
    if (p->n == p->capacity) {
        p->capacity = p->capacity * 2 + 256;
        p->at = xrealloc(p->at, p->capacity * sizeof *p->at);
        p->class = xrealloc(p->class, p->capacity);
    }
    p->class[p->n] = c < PLAIN ? 0 : class_of(c);
    p->at[p->n++] = c;
}

static const struct Decomposition *find_whole(uint32_t c) {
    size_t low = 0, high = N_DECOMPOSITIONS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (DECOMPOSITIONS[middle].whole < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < N_DECOMPOSITIONS && DECOMPOSITIONS[low].whole == c ? &DECOMPOSITIONS[low] : NULL;
}

// At most four deep, as Unicode's tables are.
static void decompose(struct Points *p, uint32_t c) {
    const struct Decomposition *d = NULL;
    if (c - HANGUL < HANGUL_COUNT) {
        uint32_t index = c - HANGUL, tail = index % TAILS;
        push(p, LEAD + index / (VOWELS * TAILS));
        push(p, VOWEL + index % (VOWELS * TAILS) / TAILS);
        if (tail)
            push(p, TAIL + tail);
    } else if (c >= 0xc0 && (d = find_whole(c))) {
        decompose(p, d->first);
        if (d->second)
            decompose(p, d->second);
    } else {
        push(p, c);
    }
}

// Marks from `start` on in the order of their classes, equal ones as they come.
static void sort_marks(struct Points *p, size_t start, size_t end) {
    size_t n = end - start, place[257] = {0};
    if (n < 2)
        return;
    uint32_t *sorted = xmalloc(n * sizeof *sorted);
    for (size_t i = start; i < end; i++)
        place[p->class[i] + 1]++;
    for (unsigned c = 0; c < 256; c++)
        place[c + 1] += place[c];
    for (size_t i = start; i < end; i++)
        sorted[place[p->class[i]]++] = p->at[i];
    for (size_t i = 0; i < n; i++) {
        p->at[start + i] = sorted[i];
        p->class[start + i] = class_of(sorted[i]);
    }
    free(sorted);
}

struct Composition {
    uint64_t pair;
    uint32_t whole;
};
static struct Composition compositions[N_DECOMPOSITIONS];
static size_t n_compositions;

static int by_pair(const void *a, const void *b) {
    uint64_t x = ((const struct Composition *)a)->pair, y = ((const struct Composition *)b)->pair;
    return (x > y) - (x < y);
}

static void make_compositions(void) {
    for (size_t i = 0; i < N_DECOMPOSITIONS; i++)
        if (DECOMPOSITIONS[i].composes)
            compositions[n_compositions++] = (struct Composition){
                (uint64_t)DECOMPOSITIONS[i].first << 32 | DECOMPOSITIONS[i].second, DECOMPOSITIONS[i].whole};
    qsort(compositions, n_compositions, sizeof *compositions, by_pair);
}

static uint32_t compose(uint32_t first, uint32_t second) { // 0: they do not
    if (first - LEAD < HANGUL_COUNT / (VOWELS * TAILS) && second - VOWEL < VOWELS)
        return HANGUL + ((first - LEAD) * VOWELS + (second - VOWEL)) * TAILS;
    if (first - HANGUL < HANGUL_COUNT && (first - HANGUL) % TAILS == 0 && second - TAIL - 1 < TAILS - 1)
        return first + (second - TAIL);
    struct Composition key = {(uint64_t)first << 32 | second, 0};
    const struct Composition *found = bsearch(&key, compositions, n_compositions, sizeof key, by_pair);
    return found ? found->whole : 0;
}

static void compose_all(struct Points *p) {
    size_t n = 0, starter = SIZE_MAX;
    uint8_t last = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint32_t c = p->at[i];
        uint8_t class = p->class[i];
        bool free_way = starter != SIZE_MAX && (n == starter + 1 || last < class);
        uint32_t whole = free_way && c >= PLAIN ? compose(p->at[starter], c) : 0;
        if (whole) {
            p->at[starter] = whole;
            continue;
        }
        if (class == 0)
            starter = n;
        last = class;
        p->at[n++] = c;
    }
    p->n = n;
}

static size_t put_utf8(char *out, uint32_t c) {
    unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (n == 1) {
        out[0] = (char)c;
        return 1;
    }
    for (unsigned i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xff) | c);
    return n;
}

char *nfc_compose(const char *text, size_t bytes, size_t *out_bytes) {
    struct Points p = {0};
    uint32_t c = 0;
    bool plain = true;
    for (size_t i = 0; plain && i < bytes; i++)
        plain = (uint8_t)text[i] < 0xcc; // the first byte of U+0300
    if (!plain) {
        if (!n_compositions)
            make_compositions();
        for (size_t i = 0, n; i < bytes && (n = utf8_char(text + i, bytes - i, &c)); i += n)
            decompose(&p, c);
        for (size_t i = 0, end; i < p.n; i = end + 1) {
            for (end = i; end < p.n && p.class[end];)
                end++;
            sort_marks(&p, i, end);
        }
        compose_all(&p);
    }
    char *out = xmalloc((plain ? bytes : p.n * 4) + 1);
    size_t n = 0;
    if (plain) {
        memcpy(out, text, bytes);
        n = bytes;
    }
    for (size_t i = 0; i < p.n; i++)
        n += put_utf8(out + n, p.at[i]);
    free(p.at);
    free(p.class);
    out[n] = 0;
    *out_bytes = n;
    return out;
}
