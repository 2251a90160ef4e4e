// The pieces of a word are a linked list in an array; a heap holds the merges that may be due. An entry whose pair has
// since changed is recognised by the token it would make, and dropped.
#include "model/bpe.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_SLOTS = 1 << 14 };

struct Symbol {
    uint32_t id, previous, next; // BPE_NONE: no neighbour
    bool gone;
};
struct Due {
    uint32_t rank, at, merged;
};

void id_list_push(struct IdList *list, uint32_t id) {
    if (list->n == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 64;
        list->ids = xrealloc(list->ids, list->capacity * sizeof *list->ids);
    }
    list->ids[list->n++] = id;
}

void bpe_init(struct Bpe *b, uint32_t n_merges) {
    *b = (struct Bpe){0};
    memset(b->byte_id, 0xff, sizeof b->byte_id);
    bpe_reserve_merges(b, n_merges);
}

void bpe_ready(struct Bpe *b) { b->cache = xcalloc(CACHE_SLOTS, sizeof *b->cache); }

void bpe_reserve_merges(struct Bpe *b, uint32_t n_merges) {
    uint32_t slots = 16;
    while (slots < n_merges + n_merges / 2 + 1)
        slots *= 2;
    free(b->merges);
    b->merges = xmalloc((size_t)slots * sizeof *b->merges);
    for (uint32_t i = 0; i < slots; i++)
        b->merges[i].left = BPE_NONE;
    b->merge_mask = slots - 1;
    b->n_merges = 0;
}

void bpe_free(struct Bpe *b) {
    free(b->chars);
    free(b->merges);
    free(b->cache);
    *b = (struct Bpe){0};
}

static struct BpeChar *char_slot(const struct Bpe *b, uint32_t code_point) {
    uint32_t i = (uint32_t)((code_point * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & b->char_mask;
    while (b->chars[i].id != BPE_NONE && b->chars[i].code_point != code_point)
        i = (i + 1) & b->char_mask;
    return &b->chars[i];
}

void bpe_init_chars(struct Bpe *b, uint32_t n_chars) {
    uint32_t slots = 16;
    while (slots < n_chars * 2 + 1)
        slots *= 2;
    b->chars = xmalloc((size_t)slots * sizeof *b->chars);
    memset(b->chars, 0xff, (size_t)slots * sizeof *b->chars);
    b->char_mask = slots - 1;
}

void bpe_add_char(struct Bpe *b, uint32_t code_point, uint32_t id) {
    *char_slot(b, code_point) = (struct BpeChar){code_point, id};
}

static struct BpeMerge *merge_slot(const struct Bpe *b, uint32_t left, uint32_t right) {
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    uint32_t i = (uint32_t)(key >> 32) & b->merge_mask;
    while (b->merges[i].left != BPE_NONE && (b->merges[i].left != left || b->merges[i].right != right))
        i = (i + 1) & b->merge_mask;
    return &b->merges[i];
}

void bpe_add_merge(struct Bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t merged) {
    struct BpeMerge *m = merge_slot(b, left, right);
    b->n_merges += m->left == BPE_NONE;
    *m = (struct BpeMerge){left, right, rank, merged};
}

static bool due_before(const struct Due *a, const struct Due *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

struct Heap {
    struct Due *due;
    size_t n, capacity;
};

static void heap_push(struct Heap *h, struct Due due) {
    if (h->n == h->capacity) {
        h->capacity = h->capacity * 2 + 16;
        h->due = xrealloc(h->due, h->capacity * sizeof *h->due);
    }
    size_t i = h->n++;
    for (; i && due_before(&due, &h->due[(i - 1) / 2]); i = (i - 1) / 2)
        h->due[i] = h->due[(i - 1) / 2];
    h->due[i] = due;
}

static struct Due heap_pop(struct Heap *h) {
    struct Due top = h->due[0], last = h->due[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && due_before(&h->due[child + 1], &h->due[child]))
            child++;
        if (!due_before(&h->due[child], &last))
            break;
        h->due[i] = h->due[child];
    }
    h->due[i] = last;
    return top;
}

static void heap_offer(const struct Bpe *b, struct Heap *h, const struct Symbol *symbols, uint32_t at) {
    if (at == BPE_NONE || symbols[at].next == BPE_NONE)
        return;
    const struct BpeMerge *m = merge_slot(b, symbols[at].id, symbols[symbols[at].next].id);
    if (m->left != BPE_NONE)
        heap_push(h, (struct Due){m->rank, at, m->merged});
}

static void merge_symbols(const struct Bpe *b, struct Symbol *symbols, uint32_t n) {
    struct Heap heap = {0};
    for (uint32_t i = 0; i + 1 < n; i++)
        heap_offer(b, &heap, symbols, i);
    while (heap.n) {
        struct Due due = heap_pop(&heap);
        struct Symbol *left = &symbols[due.at];
        if (left->gone || left->next == BPE_NONE)
            continue;
        struct Symbol *right = &symbols[left->next];
        const struct BpeMerge *m = merge_slot(b, left->id, right->id);
        if (m->left == BPE_NONE || m->merged != due.merged)
            continue;
        left->id = due.merged;
        right->gone = true;
        left->next = right->next;
        if (left->next != BPE_NONE)
            symbols[left->next].previous = due.at;
        heap_offer(b, &heap, symbols, left->previous);
        heap_offer(b, &heap, symbols, due.at);
    }
    free(heap.due);
}

// Token of the character, else of the byte, that a text begins with.
static uint32_t first_id(const struct Bpe *b, const char *text, size_t bytes, size_t *length) {
    uint32_t code_point = 0;
    *length = b->chars ? utf8_char(text, bytes, &code_point) : 0;
    uint32_t id = *length ? char_slot(b, code_point)->id : BPE_NONE;
    if (id != BPE_NONE)
        return id;
    *length = 1;
    return b->byte_id[(uint8_t)text[0]];
}

static void encode_uncached(const struct Bpe *b, const char *piece, size_t bytes, struct IdList *out) {
    struct Symbol room[64], *symbols = bytes <= 64 ? room : xmalloc(bytes * sizeof *symbols);
    uint32_t n = 0;
    for (size_t i = 0, length = 1; i < bytes; i += length) {
        uint32_t id = first_id(b, piece + i, bytes - i, &length);
        if (id != BPE_NONE) {
            symbols[n] = (struct Symbol){id, n ? n - 1 : BPE_NONE, n + 1, false};
            n++;
        }
    }
    if (n) {
        symbols[n - 1].next = BPE_NONE;
        merge_symbols(b, symbols, n);
        for (uint32_t i = 0; i != BPE_NONE; i = symbols[i].next)
            id_list_push(out, symbols[i].id);
    }
    if (symbols != room)
        free(symbols);
}

bool bpe_encode(const struct Bpe *b, const char *piece, size_t bytes, struct IdList *out) {
    if (bytes == 0)
        return true;
    // A symbol is addressed with 32 bits; no text of one piece gets there, but a file might try.
    if (bytes >= BPE_NONE)
        return fail("a piece of %zu bytes without a break cannot be tokenised", bytes);
    struct BpeCached *cached = NULL;
    if (bytes <= sizeof cached->piece) {
        cached = &b->cache[hash_bytes(piece, bytes, 0) % CACHE_SLOTS];
        if (cached->bytes == bytes && memcmp(cached->piece, piece, bytes) == 0) {
            for (unsigned i = 0; i < cached->n; i++)
                id_list_push(out, cached->ids[i]);
            return true;
        }
    }
    size_t before = out->n;
    encode_uncached(b, piece, bytes, out);
    size_t n = out->n - before;
    if (cached && n <= sizeof cached->ids / sizeof *cached->ids) {
        memcpy(cached->piece, piece, bytes);
        if (n)
            memcpy(cached->ids, out->ids + before, n * sizeof *cached->ids);
        cached->bytes = (uint8_t)bytes;
        cached->n = (uint8_t)n;
    }
    return true;
}
