// `vkmoe data FILE... --model M`: what training would see of data files: counts, lengths, how well they pack, examples twice, and some as they are.
// No weights are read.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/reading.h"
#include "cli/term.h"
#include "model/modelfile.h"
#include "train/pack.h"

#include <stdlib.h>
#include <string.h>

enum { BINS = 24, DUPLICATES_SHOWN = 5 };

struct Survey {
    size_t bins[BINS]; // bin i: 2^i to 2^(i+1) - 1 tokens
    size_t per_epoch;
    uint64_t packed, computed; // tokens of an epoch, and those that steps compute for them
    uint64_t rows;
    size_t duplicates;                          // examples whose tokens an earlier one has
    size_t shown[DUPLICATES_SHOWN][2], n_shown; // (the first, its copy)
};

static uint32_t bin_of(uint32_t n) {
    uint32_t bin = 0;
    while (n >>= 1)
        bin++;
    return bin < BINS ? bin : BINS - 1;
}

struct Hashed {
    uint64_t hash;
    size_t example;
};
static int by_hash(const void *a, const void *b) {
    const struct Hashed *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->example < y->example ? -1 : x->example > y->example;
}

// Of pairs both answers must be the same.
static void find_duplicates(struct Survey *s, const struct Dataset *d) {
    size_t n = dataset_groups(d), each = d->pairs ? 2 : 1;
    struct Hashed *all = xmalloc(n * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        all[i] = (struct Hashed){0, each * i};
        for (const struct Example *e = &d->examples[each * i]; e < &d->examples[each * (i + 1)]; e++)
            all[i].hash =
                hash_bytes(e->labels, e->n * sizeof *e->labels, hash_bytes(e->ids, e->n * sizeof *e->ids, all[i].hash));
    }
    qsort(all, n, sizeof *all, by_hash);
    for (size_t i = 1, first = 0; i < n; i++) {
        if (all[i].hash != all[first].hash) {
            first = i;
            continue;
        }
        s->duplicates++;
        if (s->n_shown < DUPLICATES_SHOWN) {
            s->shown[s->n_shown][0] = all[first].example;
            s->shown[s->n_shown++][1] = all[i].example;
        }
    }
    free(all);
}

// One epoch as `train` would pack it.
static bool pack_epoch(struct Survey *s, const struct Dataset *d, const struct Args *args) {
    struct Batcher batcher;
    struct DataCursor cursor = {0};
    uint32_t context = (uint32_t)args_int(args, "context");
    struct PackOptions options = {.seq_len = context, .micro_tokens = context, .round = 32};
    bool ok = true;
    batcher_init(&batcher, d, (uint64_t)args_int(args, "seed"));
    s->per_epoch = batcher.n;
    while (ok && cursor.epoch == 0) {
        size_t n;
        const struct Example *const *batch = batcher_next(&batcher, &cursor, (size_t)args_int(args, "batch"), &n);
        struct PackPlan plan;
        ok = pack_plan(&plan, batch, n, &options);
        if (ok) {
            s->packed += plan.n_tokens - plan.n_padding;
            s->computed += plan.n_computed;
            s->rows += plan.n;
            pack_free(&plan);
        }
    }
    batcher_free(&batcher);
    return ok;
}

static void print_json(const struct Survey *s, const struct Dataset *d, const struct Args *args) {
    json_t *histogram = json_array();
    for (uint32_t i = 0; i < BINS; i++)
        if (s->bins[i])
            json_array_append_new(histogram, json_pack("{s:I, s:I, s:I}", "from", (json_int_t)1 << i, "to",
                                                       ((json_int_t)2 << i) - 1, "examples", (json_int_t)s->bins[i]));
    json_t *j =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "examples", (json_int_t)d->n,
                  "tokens", (json_int_t)d->n_tokens, "trained_tokens", (json_int_t)d->n_labels, "untrained_tokens",
                  (json_int_t)(d->n_tokens - d->n_labels), "longest", (json_int_t)d->longest, "overlong",
                  (json_int_t)d->n_overlong, "pieces", (json_int_t)d->n_pieces, "left_out", (json_int_t)d->n_beyond,
                  "skipped", (json_int_t)d->n_skipped, "spelled_tokens", (json_int_t)d->n_spelled, "duplicates",
                  (json_int_t)s->duplicates, "examples_per_epoch", (json_int_t)s->per_epoch);
    if (d->pairs)
        json_object_set_new(j, "pairs", json_integer((json_int_t)dataset_groups(d)));
    json_object_set_new(j, "packing",
                        json_pack("{s:I, s:I, s:I, s:f}", "context", (json_int_t)args_int(args, "context"), "batch",
                                  (json_int_t)args_int(args, "batch"), "rows", (json_int_t)s->rows, "efficiency",
                                  (double)s->packed / (double)s->computed));
    json_object_set_new(j, "lengths", histogram);
    json_dumpf(j, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    printf("\n");
    json_decref(j);
}

static void print_lengths(const struct Survey *s, const struct Dataset *d) {
    enum { WIDTH = 40 };
    size_t most = 1;
    for (uint32_t i = 0; i < BINS; i++)
        most = s->bins[i] > most ? s->bins[i] : most;
    printf("%15s\n", "tokens");
    for (uint32_t i = 0; i < BINS; i++) {
        if (!s->bins[i])
            continue;
        printf("%7llu-%-7llu ", 1ull << i, (2ull << i) - 1);
        for (size_t k = 0; k < div_up(s->bins[i] * WIDTH, most); k++)
            printf("█");
        printf(" %zu (%.1f %%)\n", s->bins[i], 100 * (double)s->bins[i] / (double)d->n);
    }
}

static void print_survey(const struct Survey *s, const struct Dataset *d, const struct Args *args) {
    if (d->pairs)
        printf("%zu pair%s: ", dataset_groups(d), plural(dataset_groups(d)));
    printf("%zu example%s, %llu tokens: %llu trained, %llu read alone; the longest has %u, the mean %.0f\n", d->n,
           plural(d->n), (unsigned long long)d->n_tokens, (unsigned long long)d->n_labels,
           (unsigned long long)(d->n_tokens - d->n_labels), d->longest, (double)d->n_tokens / (double)d->n);
    print_lengths(s, d);
    printf("an epoch: %zu %s%s in %llu row%s of up to %lld tokens, %lld a step: %.2f %% of what is computed "
           "are their tokens\n",
           s->per_epoch, d->pairs ? "pair" : "example", plural(s->per_epoch), (unsigned long long)s->rows,
           plural(s->rows), (long long)args_int(args, "context"), (long long)args_int(args, "batch"),
           100 * (double)s->packed / (double)s->computed);
    printf("%zu duplicate%s (%s that occurred earlier)\n", s->duplicates, plural(s->duplicates),
           d->pairs ? "pairs" : "examples");
    for (size_t i = 0; i < s->n_shown; i++) {
        const struct Example *a = &d->examples[s->shown[i][0]], *b = &d->examples[s->shown[i][1]];
        printf("  %s:%u%s is %s:%u%s\n", d->paths[b->file], b->line, data_record(b->record).text, d->paths[a->file],
               a->line, data_record(a->record).text);
    }
}

static void print_samples(const struct Dataset *d, const struct Tokenizer *tokenizer, const struct Args *args) {
    size_t groups = dataset_groups(d), each = d->pairs ? 2 : 1,
           n = min_u64((uint64_t)args_int(args, "samples"), groups);
    uint32_t *order = xmalloc(groups * sizeof *order);
    data_permute(order, groups, (uint64_t)args_int(args, "seed"), 0);
    for (size_t i = 0; i < n * each; i++) { // of a pair the chosen answer, then the rejected one
        printf("\n");
        reading_show_example(stdout, d, &d->examples[order[i / each] * each + i % each], tokenizer, 2000);
    }
    free(order);
}

static bool survey(const struct Args *args, const struct Reading *r, const struct ModelFile *f) {
    struct Tokenizer tokenizer;
    struct Template chat;
    if (!tokenizer_open(&tokenizer, f))
        return false;
    char *name = load_template_name(args, NULL, args_text(args, "model"));
    bool ok = template_open_late(&chat, name, f->chat_template, &tokenizer, f->path);
    free(name);
    if (ok) {
        struct Dataset d;
        struct Survey s = {0};
        ok = dataset_load(&d, (const char *const *)r->paths, r->n_paths, &tokenizer, &chat, &r->options);
        if (ok) {
            for (size_t i = 0; i < d.n; i++)
                s.bins[bin_of(d.examples[i].n)]++;
            find_duplicates(&s, &d);
            reading_show(&d, "data", &r->options, r->options.max_tokens);
            if (d.n_templated)
                template_warn(&chat, f->path);
            ok = pack_epoch(&s, &d, args);
            if (ok && args_switch(args, "json"))
                print_json(&s, &d, args);
            else if (ok) {
                print_survey(&s, &d, args);
                print_samples(&d, &tokenizer, args);
            }
            dataset_free(&d);
        }
        template_free(&chat);
    }
    tokenizer_free(&tokenizer);
    return ok;
}

int cmd_data(const struct Args *args) {
    struct Reading r;
    struct ModelFile f;
    if (!reading_open(&r, args, args->operands, args->n_operands))
        return EXIT_FAILED;
    r.options.max_tokens = (uint32_t)args_int(args, "context");
    r.options.pairs = args_choice(args, "loss", "dpo");
    bool ok = load_open(&f, args_text(args, "model"), false);
    if (ok) {
        ok = survey(args, &r, &f);
        modelfile_close(&f);
    }
    reading_free(&r);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
