// Data flags and what is said about the data, for all commands that read them.
#include "cli/reading.h"

#include <stdlib.h>
#include <string.h>

// As many numbers above 0 as there are files.
static bool read_weights(struct Reading *r, const char *text) {
    r->weights = xcalloc(r->n_paths, sizeof *r->weights);
    size_t n = 0;
    for (const char *at = text; *at; n++) {
        char *end;
        double weight = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !(weight > 0 && weight <= 1000))
            return fail("--data-weights: a number above 0 and up to 1000 is expected, '%.*s' is found",
                        (int)strcspn(at, ","), at);
        if (n < r->n_paths)
            r->weights[n] = weight;
        at = end + (*end == ',');
    }
    return n == r->n_paths || fail("--data-weights: %zu numbers for %zu files", n, r->n_paths);
}

static void show_progress(void *context, uint64_t done, uint64_t all) {
    struct Progress *p = context;
    if (!p->what)
        progress_begin(p, "read", "MiB", 0, all >> 20);
    if (done < all) {
        progress_update(p, done >> 20, "MiB of data");
        return;
    }
    progress_clear(p);
    p->what = NULL;
}

bool reading_open(struct Reading *r, const struct Args *args, const char *const *paths, size_t n_paths) {
    *r = (struct Reading){.paths = xcalloc(n_paths, sizeof *r->paths), .n_paths = n_paths};
    for (size_t i = 0; i < n_paths; i++)
        r->paths[i] = xstrdup(paths[i]);
    const char *columns = args_text(args, "columns"), *weights = args_text(args, "data-weights");
    bool ok = args_good((!columns || columns_parse(&r->columns, columns)) && (!weights || read_weights(r, weights)));
    r->options = (struct DataOptions){.overlong = args_choice(args, "overlong", "split")  ? OVERLONG_SPLIT
                                                  : args_choice(args, "overlong", "drop") ? OVERLONG_DROP
                                                                                          : OVERLONG_CUT,
                                      .skip_bad = args_switch(args, "skip-bad"),
                                      .columns = columns ? &r->columns : NULL,
                                      .weights = r->weights,
                                      .progress = show_progress,
                                      .progress_context = &r->progress};
    if (!ok)
        reading_free(r);
    return ok;
}

bool reading_open_list(struct Reading *r, const struct Args *args, const char *list) {
    const char **paths = xcalloc(strlen(list) + 1, sizeof *paths);
    size_t n = 0;
    char *copy = xstrdup(list);
    if (file_exists(list))
        paths[n++] = list;
    else
        for (char *save, *at = strtok_r(copy, ",", &save); at; at = strtok_r(NULL, ",", &save))
            paths[n++] = at;
    bool ok = (n || args_good(fail("--data names no file"))) && reading_open(r, args, paths, n);
    free(copy);
    free(paths);
    return ok;
}

void reading_free(struct Reading *r) {
    for (size_t i = 0; i < r->n_paths; i++)
        free(r->paths[i]);
    free(r->paths);
    free(r->weights);
    columns_free(&r->columns);
    *r = (struct Reading){0};
}

void reading_show(const struct Dataset *d, const char *name, const struct DataOptions *options, uint32_t context) {
    char tokens[16], labels[16];
    if (d->n == 0)
        return;
    term_format_count((double)d->n_tokens, tokens);
    term_format_count((double)d->n_labels, labels);
    fprintf(stderr, "%s: %zu example%s, %s tokens, %s of them trained, the longest has %u\n", name, d->n, plural(d->n),
            tokens, labels, d->longest);
    if (d->n_skipped)
        warn("%s: %llu bad record%s skipped; each is named above", name, (unsigned long long)d->n_skipped,
             d->n_skipped == 1 ? " is" : "s are");
    if (d->unused)
        warn("%s: keys of the records that are not read: %s", name, d->unused);
    if (d->n_spelled)
        warn("%s: %llu record%s the names of special tokens out, as %s:%u%s does '%s': in texts these are letters, "
             "and the tokens are not trained; what a template has laid out is to be given as \"messages\"",
             name, (unsigned long long)d->n_spelled, d->n_spelled == 1 ? " spells" : "s spell",
             d->paths[d->spelled.file], d->spelled.line, data_record(d->spelled.record).text, d->spelled.name);
    const char *longer = d->n_overlong == 1 ? " is" : "s are", *pronoun = d->n_overlong == 1 ? "is" : "are";
    if (d->n_overlong && options->overlong == OVERLONG_CUT)
        warn("%s: %llu example%s longer than --context %u and %s cut there (--overlong split keeps all of %s)", name,
             (unsigned long long)d->n_overlong, longer, context, pronoun, d->n_overlong == 1 ? "it" : "them");
    else if (d->n_overlong && options->overlong == OVERLONG_SPLIT)
        warn("%s: %llu example%s longer than --context %u and became %llu pieces", name,
             (unsigned long long)d->n_overlong, longer, context, (unsigned long long)d->n_pieces);
    else if (d->n_overlong)
        warn("%s: %llu example%s longer than --context %u and %s left out", name, (unsigned long long)d->n_overlong,
             longer, context, pronoun);
    if (d->n_beyond && options->overlong != OVERLONG_DROP)
        warn("%s: %llu of these %s left out, because no answer begins before that", name,
             (unsigned long long)d->n_beyond, d->n_beyond == 1 ? "is" : "are");
}

void reading_show_example(FILE *to, const struct Dataset *d, const struct Example *e, const struct Tokenizer *tokenizer,
                          uint32_t most) {
    const char *on = term_paint(to, PAINT_GREEN), *off = term_paint(to, PAINT_NONE);
    bool plain = on[0] == 0, open = false;
    fprintf(to, "%s line %u%s, %u tokens, %u of them trained (%s):\n  ", d->paths[e->file], e->line,
            data_record(e->record).text, e->n, e->n_labels, plain ? "in [[ ]]" : "green");
    for (uint32_t i = 0; i < e->n && i < most; i++) {
        bool trained = i > 0 && e->labels[i - 1] >= 0;
        char piece[256];
        size_t n = tokenizer_piece(tokenizer, e->ids[i], piece, sizeof piece);
        if (trained != open)
            fprintf(to, "%s", plain ? (trained ? "[[" : "]]") : trained ? on : off);
        open = trained;
        term_write(to, piece, n < sizeof piece ? n : sizeof piece);
    }
    fprintf(to, "%s%s\n", open ? (plain ? "]]" : off) : "", e->n > most ? " ..." : "");
}
