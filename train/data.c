// Records become examples one at a time; nothing of a text is kept. Then the order in which training sees the examples.
#include "train/data.h"
#include "model/json.h"
#include "train/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const uint64_t STORE_BYTES = UINT64_C(64) << 20;

struct Reader {
    struct Dataset *d;
    const struct DataOptions *options;
    struct FormReader form;
    uint32_t file, record;          // in hand
    uint64_t done_bytes, all_bytes; // of the files before the one in hand, of all
    size_t room;                    // examples that fit
    int32_t *labels;                // (labels_room) of the example in hand
    float *weights;                 // (labels_room) of these
    size_t labels_room;
    struct TokenList chosen; // of the pair in hand, while the rejected answer is read
};

// ---- One example ----

struct RecordText data_record(uint32_t record) {
    struct RecordText t = {""};
    if (record)
        snprintf(t.text, sizeof t.text, " (record %u)", record);
    return t;
}

// Stands for an example's weights until all words have their place: they will lie behind its labels.
static const float BEHIND_LABELS[1];

// Tokens [first, first + n) of a list. An example without a label is none: *added is then false.
static bool add_tokens(struct Reader *r, const struct TokenList *list, size_t first, size_t n, uint32_t line,
                       bool *added) {
    struct Dataset *d = r->d;
    const uint32_t *ids = list->ids + first;
    const float *trained = list->trained + first, *weights = NULL;
    size_t n_labels = 0;
    if (n > r->labels_room) {
        r->labels_room = 2 * n;
        r->labels = xrealloc(r->labels, r->labels_room * sizeof *r->labels);
        r->weights = xrealloc(r->weights, r->labels_room * sizeof *r->weights);
    }
    for (size_t t = 0; t < n; t++) {
        bool learnt = t + 1 < n && trained[t + 1];
        r->labels[t] = learnt ? (int32_t)ids[t + 1] : -1;
        r->weights[t] = learnt ? trained[t + 1] : 0;
        n_labels += learnt;
        if (learnt && r->weights[t] != 1)
            weights = BEHIND_LABELS;
    }
    *added = n_labels > 0;
    if (n_labels == 0)
        return true;
    if (d->n == r->room) {
        r->room = r->room ? r->room * 2 : 256;
        d->examples = xrealloc(d->examples, r->room * sizeof *d->examples);
    }
    d->examples[d->n++] = (struct Example){.weights = weights,
                                           .n = (uint32_t)n,
                                           .n_labels = (uint32_t)n_labels,
                                           .file = r->file,
                                           .line = line,
                                           .record = r->record};
    return tokenstore_add(&d->store, ids, n) && tokenstore_add(&d->store, r->labels, n) &&
           (!weights || tokenstore_add(&d->store, r->weights, n));
}

static bool add_overlong(struct Reader *r, uint32_t line) {
    struct Dataset *d = r->d;
    size_t n = r->form.list.n, max = r->options->max_tokens, pieces = 0;
    bool added = false, ok = true;
    d->n_overlong++;
    if (r->options->overlong == OVERLONG_CUT) {
        ok = add_tokens(r, &r->form.list, 0, max, line, &added);
        pieces = added;
    } else if (r->options->overlong == OVERLONG_SPLIT) {
        for (size_t first = 0; first + 1 < n && ok; first += max - 1) {
            ok = add_tokens(r, &r->form.list, first, min_u64(max, n - first), line, &added);
            if (added)
                d->examples[d->n - 1].goes_on = pieces++ > 0;
        }
        d->n_pieces += pieces;
    }
    d->n_beyond += pieces == 0;
    return ok;
}

enum Outcome { READ_GOOD, READ_BAD, READ_STOP }; // bad: the next record can be read all the same

static bool learns(const struct TokenList *list, size_t n) {
    for (size_t t = 1; t < n && t < list->n; t++)
        if (list->trained[t] > 0)
            return true;
    return false;
}

static void count_spelled(struct Reader *r, uint32_t id, uint32_t line) {
    struct Spelled *s = &r->d->spelled;
    if (id == TOKEN_NONE || r->d->n_spelled++)
        return;
    *s = (struct Spelled){.file = r->file, .line = line, .record = r->record};
    tokenizer_piece(r->form.tokenizer, id, s->name, sizeof s->name - 1);
}

// Both answers or none: one alone is of no use.
static enum Outcome read_pair(struct Reader *r, const json_t *value, uint32_t line, const char *where) {
    struct Dataset *d = r->d;
    size_t max = r->options->max_tokens;
    if (!form_read_pair(&r->form, value, true, where))
        return READ_BAD;
    struct TokenList swap = r->chosen;
    r->chosen = r->form.list;
    r->form.list = swap;
    uint32_t spelled = r->form.spelled;
    if (!form_read_pair(&r->form, value, false, where))
        return READ_BAD;
    count_spelled(r, spelled != TOKEN_NONE ? spelled : r->form.spelled, line);
    const struct TokenList *both[] = {&r->chosen, &r->form.list};
    size_t longer = (both[0]->n > max) + (both[1]->n > max);
    bool added, ok = true;
    d->n_overlong += longer;
    if ((longer && r->options->overlong == OVERLONG_DROP) || !learns(both[0], max) || !learns(both[1], max)) {
        d->n_beyond++;
        return READ_GOOD;
    }
    for (size_t i = 0; i < 2 && ok; i++)
        ok = add_tokens(r, both[i], 0, min_u64(both[i]->n, max), line, &added);
    return ok ? READ_GOOD : READ_STOP;
}

static enum Outcome read_example(struct Reader *r, const struct Source *s, const struct SourceRecord *record) {
    char where[512];
    r->record = record->number;
    snprintf(where, sizeof where, "%.450s:%u%s", s->path, record->line, data_record(record->number).text);
    json_t *value = source_value(s, record, where);
    enum Outcome outcome = READ_BAD;
    bool added = true;
    if (value && r->options->pairs)
        outcome = read_pair(r, value, record->line, where);
    else if (value && form_read(&r->form, value, where))
        outcome = READ_GOOD;
    json_decref(value);
    if (outcome != READ_GOOD || r->options->pairs)
        return outcome;
    count_spelled(r, r->form.spelled, record->line);
    if (r->form.list.n > r->options->max_tokens)
        return add_overlong(r, record->line) ? READ_GOOD : READ_STOP;
    if (!add_tokens(r, &r->form.list, 0, r->form.list.n, record->line, &added))
        return READ_STOP;
    return added || fail("%s: nothing to learn", where) ? READ_GOOD : READ_BAD;
}

static bool read_source(struct Reader *r, struct Source *s) {
    enum { TOLD_EVERY = 512 };
    struct SourceRecord record;
    bool any = false;
    uint32_t untold = 0;
    while (source_next(s, &record)) {
        if (!record.text)
            return any || fail("%s: no example in it", s->path);
        any = true;
        if (r->options->progress && ++untold == TOLD_EVERY) {
            r->options->progress(r->options->progress_context, r->done_bytes + s->bytes_read, r->all_bytes);
            untold = 0;
        }
        enum Outcome outcome = read_example(r, s, &record);
        bool lacking = r->form.templated && r->form.chat->refusal; // what every conversation would lack
        if (outcome == READ_STOP || (outcome == READ_BAD && (!r->options->skip_bad || lacking)))
            return false;
        r->d->n_templated += outcome == READ_GOOD && r->form.templated;
        r->d->n_skipped += outcome == READ_BAD;
    }
    return false;
}

// ---- The whole ----

double example_weight(const struct Example *e) {
    double sum = 0;
    if (!e->weights)
        return e->n_labels;
    for (uint32_t t = 0; t < e->n; t++)
        sum += (double)e->weights[t];
    return sum;
}

static void count(struct Dataset *d) {
    d->n_tokens = d->n_labels = d->longest = 0;
    d->labels_weighted = false;
    d->label_weight = 0;
    d->hash = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct Example *e = &d->examples[i];
        d->n_tokens += e->n;
        d->n_labels += e->n_labels;
        d->longest = (uint32_t)max_u64(d->longest, e->n);
        d->hash = hash_bytes(e->ids, e->n * sizeof *e->ids, d->hash);
        d->hash = hash_bytes(e->labels, e->n * sizeof *e->labels, d->hash);
        if (e->weights)
            d->hash = hash_bytes(e->weights, e->n * sizeof *e->weights, d->hash);
        d->labels_weighted = d->labels_weighted || e->weights;
        d->label_weight += example_weight(e);
    }
    if (d->weights)
        d->hash = hash_bytes(d->weights, d->n_paths * sizeof *d->weights, d->hash);
}

static bool finish(struct Reader *r, bool ok) {
    struct Dataset *d = r->d;
    d->unused = form_key_names(r->form.unused);
    form_free(&r->form);
    token_list_free(&r->chosen);
    free(r->labels);
    free(r->weights);
    if (ok && d->n == 0)
        ok = d->n_beyond && r->options->overlong != OVERLONG_DROP
                 ? fail("%s: nothing to learn: no answer begins within the first %u tokens", d->paths[0],
                        r->options->max_tokens)
             : d->n_beyond ? fail("%s: nothing to learn: every example is longer than %u tokens", d->paths[0],
                                  r->options->max_tokens)
                           : fail("%s: no example could be used", d->paths[0]);
    ok = ok && tokenstore_seal(&d->store);
    if (!ok) {
        dataset_free(d);
        return false;
    }
    uint32_t *at = d->store.words;
    for (size_t i = 0; i < d->n; i++) {
        struct Example *e = &d->examples[i];
        e->ids = at;
        e->labels = (int32_t *)(at + e->n);
        at += 2 * e->n;
        if (e->weights) {
            e->weights = (const float *)at;
            at += e->n;
        }
    }
    count(d);
    return true;
}

static struct Reader begin(struct Dataset *d, const char *const *paths, size_t n_paths,
                           const struct Tokenizer *tokenizer, const struct Template *chat,
                           const struct DataOptions *options) {
    bool even = true;
    *d = (struct Dataset){
        .pairs = options->pairs, .n_paths = n_paths, .paths = xcalloc(n_paths ? n_paths : 1, sizeof *d->paths)};
    d->sha256 = xcalloc(n_paths ? n_paths : 1, sizeof *d->sha256);
    tokenstore_init(&d->store, options->memory_bytes ? options->memory_bytes : STORE_BYTES);
    for (size_t i = 0; i < n_paths; i++) {
        d->paths[i] = xstrdup(paths[i]);
        even = even && (!options->weights || options->weights[i] == 1);
    }
    if (!even) {
        d->weights = xcalloc(n_paths, sizeof *d->weights);
        memcpy(d->weights, options->weights, n_paths * sizeof *d->weights);
    }
    return (struct Reader){
        .d = d, .options = options, .form = {.tokenizer = tokenizer, .chat = chat, .columns = options->columns}};
}

bool dataset_load(struct Dataset *d, const char *const *paths, size_t n_paths, const struct Tokenizer *tokenizer,
                  const struct Template *chat, const struct DataOptions *options) {
    struct Reader r = begin(d, paths, n_paths, tokenizer, chat, options);
    bool ok = n_paths > 0 || fail("no data file is named");
    if (options->pairs && options->overlong == OVERLONG_SPLIT)
        ok = fail("--overlong split: pairs of answers are compared whole; cut or drop those that are too long");
    for (size_t i = 0; i < n_paths; i++) {
        struct stat info;
        r.all_bytes += stat(paths[i], &info) == 0 ? (uint64_t)info.st_size : 0; // one that is not there is told below
    }
    for (; ok && r.file < n_paths; r.file++) {
        struct Source source;
        ok = source_open(&source, paths[r.file]);
        if (ok) {
            ok = read_source(&r, &source);
            r.done_bytes += source.bytes_read;
            sha256_end(&source.sha256, d->sha256[r.file]);
            source_close(&source);
        }
    }
    if (options->progress)
        options->progress(options->progress_context, r.all_bytes, r.all_bytes);
    return finish(&r, ok);
}

bool dataset_load_memory(struct Dataset *d, const char *text, size_t bytes, const char *path,
                         const struct Tokenizer *tokenizer, const struct Template *chat,
                         const struct DataOptions *options) {
    struct Reader r = begin(d, &path, 1, tokenizer, chat, options);
    struct Source source;
    bool ok = source_open_memory(&source, text, bytes, path);
    if (ok) {
        ok = read_source(&r, &source);
        source_close(&source);
    }
    return finish(&r, ok);
}

void dataset_free(struct Dataset *d) {
    for (size_t i = 0; i < d->n_paths; i++)
        free(d->paths[i]);
    if (d->paths)
        tokenstore_free(&d->store);
    free(d->examples);
    free(d->paths);
    free(d->sha256);
    free(d->weights);
    free(d->unused);
    *d = (struct Dataset){0};
}

// ---- Order ----

static const uint64_t STREAM_ORDER = 0xda7a000000000000u, STREAM_SPLIT = 0x5b117000000000u,
                      STREAM_FILE = 0xf11e000000000000u;

// Fisher and Yates; the modulo by multiplication is off by less than 2^-32.
static void permute(uint32_t *order, size_t n, uint64_t seed, uint64_t stream) {
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n; i-- > 1;) {
        uint32_t words[4];
        philox(seed, stream, i, words);
        uint64_t high = (uint64_t)words[0] * (i + 1), low = (uint64_t)words[1] * (i + 1);
        size_t j = (size_t)((high + (low >> 32)) >> 32);
        uint32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

void data_permute(uint32_t *order, size_t n, uint64_t seed, uint64_t epoch) {
    permute(order, n, seed, STREAM_ORDER + epoch);
}

// Whether an example begins what is held out as a whole: it is the first of its pair, or of its record's pieces.
static bool begins_group(const struct Dataset *d, size_t i) { return d->pairs ? i % 2 == 0 : !d->examples[i].goes_on; }

bool dataset_split(struct Dataset *d, double fraction, uint64_t seed, struct Dataset *held_out) {
    size_t groups = 0;
    for (size_t i = 0; i < d->n; i++)
        groups += begins_group(d, i);
    size_t take = (size_t)(fraction * (double)groups + 0.5);
    if (fraction > 0 && fraction < 1 && groups == 1 && !d->pairs && d->n > 1)
        return fail("a held-out part cannot be made: all %zu examples are pieces of one document", d->n);
    if (!(fraction > 0 && fraction < 1) || groups < 2)
        return fail("a held-out part of %g of %zu examples cannot be made", fraction, groups);
    take = take == 0 ? 1 : take == groups ? groups - 1 : take;
    uint32_t *order = xmalloc(groups * sizeof *order);
    bool *out = xcalloc(groups, sizeof *out);
    permute(order, groups, seed, STREAM_SPLIT);
    for (size_t i = 0; i < take; i++)
        out[order[i]] = true;
    *held_out =
        (struct Dataset){.pairs = d->pairs, .n_paths = d->n_paths, .paths = xcalloc(d->n_paths, sizeof *d->paths)};
    tokenstore_init(&held_out->store, 0);
    held_out->sha256 = xcalloc(d->n_paths, sizeof *held_out->sha256);
    for (size_t i = 0; i < d->n_paths; i++) {
        held_out->paths[i] = xstrdup(d->paths[i]);
        memcpy(held_out->sha256[i], d->sha256[i], sizeof *d->sha256);
    }
    size_t kept = 0, held = 0, group = 0;
    for (size_t i = 0, g = 0; i < d->n; i++) {
        g += begins_group(d, i);
        held += out[g - 1];
    }
    held_out->examples = xmalloc(held * sizeof *held_out->examples);
    for (size_t i = 0; i < d->n; i++) {
        group += begins_group(d, i);
        if (out[group - 1])
            held_out->examples[held_out->n++] = d->examples[i];
        else
            d->examples[kept++] = d->examples[i];
    }
    d->n = kept;
    free(order);
    free(out);
    count(d);
    count(held_out);
    return true;
}

// Examples (or pairs) of one file: they stand together.
struct Range {
    size_t first, n;
    size_t take; // of them an epoch sees so many
    uint32_t file;
};
static struct Range file_range(const struct Dataset *d, size_t first) {
    size_t each = d->pairs ? 2 : 1, groups = dataset_groups(d);
    struct Range r = {.first = first, .file = d->examples[first * each].file};
    while (first + r.n < groups && d->examples[(first + r.n) * each].file == r.file)
        r.n++;
    r.take = d->weights ? (size_t)llround(d->weights[r.file] * (double)r.n) : r.n;
    r.take = r.take ? r.take : 1;
    return r;
}

size_t batcher_examples_per_epoch(const struct Dataset *d) {
    size_t n = 0;
    struct Range r;
    if (!d->weights)
        return dataset_groups(d);
    for (size_t first = 0; first < dataset_groups(d); first += r.n) {
        r = file_range(d, first);
        n += r.take;
    }
    return n;
}

void batcher_init(struct Batcher *b, const struct Dataset *data, uint64_t seed) {
    *b = (struct Batcher){.data = data, .seed = seed, .order_epoch = UINT64_MAX};
    b->n = batcher_examples_per_epoch(data);
    b->order = xmalloc(b->n * sizeof *b->order);
}

void batcher_free(struct Batcher *b) {
    free(b->order);
    free(b->batch);
    *b = (struct Batcher){0};
}

// The examples of a file that an epoch sees: the next ones of its permutations, one behind the other.
static size_t draw_file(const struct Batcher *b, struct Range r, uint64_t epoch, uint32_t *out) {
    uint32_t *order = xmalloc(r.n * sizeof *order);
    uint64_t at = epoch * r.take, cycle = UINT64_MAX;
    for (size_t i = 0; i < r.take; i++, at++) {
        if (at / r.n != cycle) {
            cycle = at / r.n;
            permute(order, r.n, b->seed, STREAM_FILE + ((uint64_t)r.file << 32) + cycle);
        }
        out[i] = (uint32_t)r.first + order[at % r.n];
    }
    free(order);
    return r.take;
}

static void order_epoch(struct Batcher *b, uint64_t epoch) {
    const struct Dataset *d = b->data;
    data_permute(b->order, b->n, b->seed, epoch);
    b->order_epoch = epoch;
    if (!d->weights)
        return;
    uint32_t *drawn = xmalloc(b->n * sizeof *drawn);
    size_t n = 0;
    struct Range r;
    for (size_t first = 0; first < dataset_groups(d); first += r.n) {
        r = file_range(d, first);
        n += draw_file(b, r, epoch, drawn + n);
    }
    for (size_t i = 0; i < b->n; i++)
        b->order[i] = drawn[b->order[i]];
    free(drawn);
}

const struct Example *const *batcher_next(struct Batcher *b, struct DataCursor *cursor, size_t size, size_t *n) {
    if (cursor->next >= b->n) {
        cursor->next = 0;
        cursor->epoch++;
    }
    if (b->order_epoch != cursor->epoch)
        order_epoch(b, cursor->epoch);
    size_t taken = min_u64(size, b->n - cursor->next), each = b->data->pairs ? 2 : 1;
    *n = taken * each;
    if (*n > b->batch_room)
        b->batch = xrealloc(b->batch, (b->batch_room = *n) * sizeof *b->batch);
    for (size_t i = 0; i < *n; i++)
        b->batch[i] = &b->data->examples[b->order[cursor->next + i / each] * each + i % each];
    cursor->next += taken;
    if (cursor->next == b->n) {
        cursor->next = 0;
        cursor->epoch++;
    }
    return b->batch;
}

uint64_t batcher_steps_per_epoch(const struct Dataset *d, size_t size) {
    return div_up(batcher_examples_per_epoch(d), size);
}
