// Best fit decreasing: rows are listed by the room they have left, so that the fullest row that still takes an example is
// found by one walk. Ties go by place in the batch: the plan depends on the lengths and their order alone.
#include "train/pack.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = 0xffffffff };

struct Row {
    uint32_t index, used;
    uint32_t head, tail; // examples in it, a list through `after`
    uint32_t next;       // another row with the same room left, or NONE
};

struct Packing {
    const struct Example *const *examples;
    uint32_t seq_len;
    struct Row *rows;
    uint32_t n_rows;
    uint32_t *by_room; // (seq_len + 1) a row with so much room left, or NONE
    uint32_t *after;   // (n) the example behind this one in its row, or NONE
};

struct Sized {
    uint32_t n, example;
};

static int longest_first(const void *a, const void *b) {
    const struct Sized *x = a, *y = b;
    if (x->n != y->n)
        return x->n < y->n ? 1 : -1;
    return x->example < y->example ? -1 : x->example > y->example;
}

static int fullest_first(const void *a, const void *b) {
    const struct Row *x = a, *y = b;
    if (x->used != y->used)
        return x->used < y->used ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void place(struct Packing *p, uint32_t example, uint32_t n) {
    uint32_t room = n;
    while (room <= p->seq_len && p->by_room[room] == NONE)
        room++;
    uint32_t row;
    if (room > p->seq_len) {
        row = p->n_rows++;
        p->rows[row] = (struct Row){.index = row, .head = example};
    } else {
        row = p->by_room[room];
        p->by_room[room] = p->rows[row].next;
        p->after[p->rows[row].tail] = example;
    }
    struct Row *r = &p->rows[row];
    r->tail = example;
    r->used += n;
    r->next = p->by_room[p->seq_len - r->used];
    p->by_room[p->seq_len - r->used] = row;
    p->after[example] = NONE;
}

static void fill_rows(struct Packing *p, size_t n) {
    struct Sized *order = xmalloc(n * sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = (struct Sized){p->examples[i]->n, (uint32_t)i};
    qsort(order, n, sizeof *order, longest_first);
    memset(p->by_room, 0xff, ((size_t)p->seq_len + 1) * sizeof *p->by_room);
    for (size_t i = 0; i < n; i++)
        place(p, order[i].example, order[i].n);
    qsort(p->rows, p->n_rows, sizeof *p->rows, fullest_first);
    free(order);
}

static void lay_document(struct MicroBatch *m, const struct Example *e, uint32_t example, uint32_t first) {
    m->documents[m->n_documents] = (struct PackedDocument){first, e->n, example};
    memcpy(m->ids + first, e->ids, e->n * sizeof *e->ids);
    memcpy(m->labels + first, e->labels, e->n * sizeof *e->labels);
    if (e->weights)
        memcpy(m->weights + first, e->weights, e->n * sizeof *e->weights);
    for (uint32_t t = 0; t < e->n; t++) {
        if (m->weights && !e->weights)
            m->weights[first + t] = e->labels[t] >= 0;
        m->positions[first + t] = t;
        m->first[first + t] = first;
        m->end[first + t] = first + e->n;
        m->document[first + t] = m->n_documents;
    }
    m->n_documents++;
    m->n_labels += e->n_labels;
    m->weight += example_weight(e);
}

static void lay_padding(struct MicroBatch *m, uint32_t from, uint32_t to, uint32_t pad_id) {
    for (uint32_t t = from; t < to; t++) {
        m->ids[t] = pad_id;
        m->positions[t] = 0;
        m->labels[t] = -1;
        if (m->weights)
            m->weights[t] = 0;
        m->first[t] = t;
        m->end[t] = t + 1;
        m->document[t] = PACK_PADDING;
    }
}

static void lay_micro(const struct Packing *p, const struct Row *rows, uint32_t n_rows, const struct PackOptions *o,
                      struct MicroBatch *m) {
    uint32_t last = rows[n_rows - 1].used, n_documents = 0;
    bool weighted = false;
    if (o->round)
        last = (uint32_t)min_u64(align_up(last, o->round), o->seq_len);
    else
        last = o->seq_len;
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t i = rows[r].head; i != NONE; i = p->after[i]) {
            n_documents++;
            weighted = weighted || p->examples[i]->weights;
        }
    *m = (struct MicroBatch){.rows = n_rows, .seq_len = o->seq_len, .n_tokens = (n_rows - 1) * o->seq_len + last};
    size_t room = m->n_tokens * sizeof(uint32_t);
    m->ids = xmalloc(room);
    m->positions = xmalloc(room);
    m->labels = xmalloc(room);
    m->weights = weighted ? xmalloc(room) : NULL;
    m->first = xmalloc(room);
    m->end = xmalloc(room);
    m->document = xmalloc(room);
    m->documents = xmalloc(n_documents * sizeof *m->documents);
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t at = r * o->seq_len, end = r + 1 < n_rows ? at + o->seq_len : m->n_tokens;
        for (uint32_t i = rows[r].head; i != NONE; i = p->after[i]) {
            lay_document(m, p->examples[i], i, at);
            at += p->examples[i]->n;
        }
        lay_padding(m, at, end, o->pad_id);
    }
}

static bool check(const struct Example *const *examples, size_t n, const struct PackOptions *o) {
    if (n == 0 || n >= NONE)
        return fail("packing: a batch of %zu examples", n);
    if (o->seq_len == 0 || o->micro_tokens < o->seq_len)
        return fail("packing: a micro-batch of %u tokens cannot hold a row of %u", o->micro_tokens, o->seq_len);
    for (size_t i = 0; i < n; i++)
        if (examples[i]->n == 0 || examples[i]->n > o->seq_len)
            return fail("packing: an example of %u tokens does not fit in a row of %u", examples[i]->n, o->seq_len);
    return true;
}

uint32_t pack_computed(uint32_t n) {
    uint32_t step = 32;
    while (step * 64 < n)
        step *= 2;
    return (uint32_t)align_up(n ? n : 1, step);
}

bool pack_plan(struct PackPlan *plan, const struct Example *const *examples, size_t n, const struct PackOptions *o) {
    *plan = (struct PackPlan){0};
    if (!check(examples, n, o))
        return false;
    struct Packing p = {.examples = examples, .seq_len = o->seq_len};
    p.rows = xmalloc(n * sizeof *p.rows);
    p.after = xmalloc(n * sizeof *p.after);
    p.by_room = xmalloc(((size_t)o->seq_len + 1) * sizeof *p.by_room);
    fill_rows(&p, n);
    uint32_t rows_per_micro = o->micro_tokens / o->seq_len;
    plan->n = div_up(p.n_rows, rows_per_micro);
    plan->micro = xcalloc(plan->n, sizeof *plan->micro);
    for (size_t i = 0; i < plan->n; i++) {
        uint32_t first = (uint32_t)i * rows_per_micro, rows = (uint32_t)min_u64(rows_per_micro, p.n_rows - first);
        struct MicroBatch *m = &plan->micro[i];
        lay_micro(&p, p.rows + first, rows, o, m);
        plan->n_labels += m->n_labels;
        plan->weight += m->weight;
        plan->n_tokens += m->n_tokens;
        plan->n_computed += pack_computed(m->n_tokens);
    }
    plan->n_padding = plan->n_tokens;
    for (size_t i = 0; i < n; i++)
        plan->n_padding -= examples[i]->n;
    free(p.rows);
    free(p.after);
    free(p.by_room);
    return true;
}

void pack_free(struct PackPlan *plan) {
    for (size_t i = 0; i < plan->n; i++) {
        struct MicroBatch *m = &plan->micro[i];
        free(m->ids);
        free(m->positions);
        free(m->labels);
        free(m->weights);
        free(m->first);
        free(m->end);
        free(m->document);
        free(m->documents);
    }
    free(plan->micro);
    *plan = (struct PackPlan){0};
}
