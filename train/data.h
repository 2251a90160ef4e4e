// Training data: the records of files (train/source.h), in the forms people use (train/forms.h), become examples of token ids and labels.
// Everything is read strictly: a bad record stops the run with file, line and reason.
//
// A file is read once, from its first byte to its last. What stays in memory is an index of 52 bytes an example (`struct Example`, and its place in an
// epoch's order); ids and labels, 8 bytes a token (12 in examples with weights), lie in memory up to 64 MiB and beyond that in a file that the kernel pages in and out
// (train/tokenstore.h).
#pragma once
#include "train/forms.h"
#include "train/tokenstore.h"

struct Example {
    uint32_t *ids;        // (n)
    int32_t *labels;      // (n) labels[t] = ids[t + 1] where that token is to be learnt, else -1; the last is -1
    const float *weights; // (n) how often the loss of each label counts, 0 where there is none; NULL: each once
    uint32_t n, n_labels;
    uint32_t file : 31, goes_on : 1; // goes_on: a piece of the same record as the example before
    uint32_t line;                   // where it came from: Dataset.paths[file], the line it begins on, from 1
    uint32_t record;                 // and in an array the object's number, from 1; else 0
};
// " (record 7)" behind a line, where there is one: a whole array may stand on it.
struct RecordText {
    char text[24];
};
struct RecordText data_record(uint32_t record);

// What becomes of an example that is longer than max_tokens.
enum Overlong {
    OVERLONG_CUT,  // its first max_tokens tokens
    OVERLONG_DROP, // nothing
    OVERLONG_SPLIT, // pieces of max_tokens, each an example; the last token of one is the first of the next: every token is learnt once
};

struct DataOptions {
    uint32_t max_tokens; // at least 2
    enum Overlong overlong;
    bool pairs;                    // every record is a pair: {"prompt", "chosen", "rejected"}; no OVERLONG_SPLIT then
    bool skip_bad;                 // bad records are told, counted and left out instead of stopping
    const struct Columns *columns; // NULL: none is renamed
    const double *weights;         // (n_paths) how often an epoch sees a file; NULL: once each
    uint64_t memory_bytes;         // of ids and labels, above which they lie in a file; 0: 64 MiB
    // Told now and then while files are read, and at the end with done == all; may be NULL.
    void (*progress)(void *context, uint64_t done_bytes, uint64_t all_bytes);
    void *progress_context;
};

struct Dataset {
    struct Example *examples; // (n) in the order of the files and their lines
    size_t n;
    bool pairs;              // examples 2i (chosen) and 2i + 1 (rejected) belong together, and stay so
    struct TokenStore store; // all ids, labels and weights of labels
    char **paths;            // (n_paths)
    char (*sha256)[65];      // (n_paths) of the files as they were read; "": not read from a file
    double *weights;         // (n_paths), or NULL: each file once an epoch
    size_t n_paths;
    uint64_t n_tokens, n_labels;
    bool labels_weighted; // some example has weights
    double label_weight;  // of all labels together: n_labels, where none has a weight
    uint64_t n_overlong;  // examples that were longer than max_tokens
    uint64_t n_pieces;    // of those, with OVERLONG_SPLIT: the examples that they became
    uint64_t n_beyond;  // of those: left out whole, by OVERLONG_DROP or because nothing is to be learnt in what is kept
    uint64_t n_skipped; // left out by skip_bad
    uint64_t n_templated; // records that the chat template laid out
    uint64_t n_spelled;   // records with the name of a special token in a text, where it is plain letters
    struct Spelled {
        char name[64];
        uint32_t file, line, record;
    } spelled;        // the first of them
    char *unused;     // names of keys of the records that were not read, with commas; NULL: none
    uint64_t hash;    // of all ids, labels and their order, and of the weights: the checkpoint contract
    uint32_t longest; // tokens of the longest example
};

// Examples, or pairs of them.
static inline size_t dataset_groups(const struct Dataset *d) { return d->pairs ? d->n / 2 : d->n; }
bool dataset_load(struct Dataset *d, const char *const *paths, size_t n_paths, const struct Tokenizer *tokenizer,
                  const struct Template *chat, const struct DataOptions *options);
// The same from memory, one "file" (tests, fuzzing).
bool dataset_load_memory(struct Dataset *d, const char *text, size_t bytes, const char *path,
                         const struct Tokenizer *tokenizer, const struct Template *chat,
                         const struct DataOptions *options);
// Moves round(fraction * n) examples (pairs, where they are pairs; all pieces of a record, where it was split), at least one, drawn by the seed, to `held_out`, whose ids stay those of *d: it must not be used
// after *d is freed. Both must stay non-empty.
bool dataset_split(struct Dataset *d, double fraction, uint64_t seed, struct Dataset *held_out);
void dataset_free(struct Dataset *d);
// The weights of an example's labels together.
double example_weight(const struct Example *e);

// The order of an epoch: a permutation that depends on (seed, epoch, n) alone. order: (n)
void data_permute(uint32_t *order, size_t n, uint64_t seed, uint64_t epoch);

// Where training stands in the data: all there is to save.
struct DataCursor {
    uint64_t epoch, next; // `next` counts examples (or pairs) within the epoch
};
// Gives batches in order. The last of an epoch may be smaller; none crosses an epoch. A file of weight w gives round(w * its examples) to
// an epoch, the next ones of an endless row of its permutations: no example comes a third time before all came twice.
struct Batcher {
    const struct Dataset *data;
    uint64_t seed;
    size_t n;             // examples (or pairs) in an epoch
    uint32_t *order;      // (n) of order_epoch
    uint64_t order_epoch; // UINT64_MAX: none yet
    const struct Example **batch;
    size_t batch_room;
};
void batcher_init(struct Batcher *b, const struct Dataset *data, uint64_t seed);
void batcher_free(struct Batcher *b);
// Up to `size` examples (pairs, where they are pairs) from the cursor on, *n examples in all, and moves the cursor. The array belongs to the batcher and lives until the next call.
const struct Example *const *batcher_next(struct Batcher *b, struct DataCursor *cursor, size_t size, size_t *n);
// Steps of `size` examples (or pairs) in one epoch, and the examples (or pairs) in it.
uint64_t batcher_steps_per_epoch(const struct Dataset *d, size_t size);
size_t batcher_examples_per_epoch(const struct Dataset *d);
