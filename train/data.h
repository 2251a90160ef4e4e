// Training data: JSON becomes examples of token ids and labels. A file holds one object a line, or is one array of objects.
// Everything is read strictly: a bad object stops the run with file, line and reason. The forms, told apart one by one:
//   {"messages": [{"role": "user", "content": "..."}, ...]}       the chat template; learnt are the assistant's words
//   {"conversations": [{"from": "human", "value": "..."}, ...]}   the same in ShareGPT's words (human, gpt, system)
//   {"instruction": "...", "input": "...", "output": "..."}       the same in Alpaca's: input, if any, on a line below; before
//                                                                 it "system" and "history": [[question, answer], ...]
//   {"prompt": "...", "completion": "..."}                        joined as they are; learnt are the completion and the end
//   {"text": "..."}                                               all of it is learnt, and the end
// The end is the end-of-sequence token, which stands behind the answer in every form.
#pragma once
#include "model/template.h"

struct Example {
    uint32_t *ids;   // (n)
    int32_t *labels; // (n) labels[t] = ids[t + 1] where that token is to be learnt, else -1; the last is -1
    uint32_t n, n_labels;
    uint32_t file, line; // where it came from: Dataset.paths[file], the line it begins on, from 1
};

struct DataOptions {
    uint32_t max_tokens; // longer examples are cut there, and counted
    bool skip_bad;       // bad objects are told, counted and left out instead of stopping
    bool pairs; // every object is {"prompt", "chosen", "rejected"}; prompt: a text, joined as it is, or messages
};

struct Dataset {
    struct Example *examples;
    size_t n;
    bool pairs; // examples 2i (chosen) and 2i + 1 (rejected) belong together, and stay so
    char **paths;
    size_t n_paths;
    uint64_t n_tokens, n_labels;
    uint64_t n_cut;     // examples that were longer than max_tokens
    uint64_t n_beyond;  // left out: nothing to learn before max_tokens
    uint64_t n_skipped; // left out by skip_bad
    uint64_t hash;      // of all ids, labels and their order: the checkpoint contract
    uint32_t longest;   // tokens of the longest example
};

// Examples, or pairs of them.
static inline size_t dataset_groups(const struct Dataset *d) { return d->pairs ? d->n / 2 : d->n; }
bool dataset_load(struct Dataset *d, const char *const *paths, size_t n_paths, const struct Tokenizer *tokenizer,
                  const struct Template *chat, const struct DataOptions *options);
// The same from memory, one "file" (tests, fuzzing).
bool dataset_load_memory(struct Dataset *d, const char *text, size_t bytes, const char *path,
                         const struct Tokenizer *tokenizer, const struct Template *chat,
                         const struct DataOptions *options);
// Moves round(fraction * n) examples, at least one, drawn by the seed, to `held_out`. Both must stay non-empty.
bool dataset_split(struct Dataset *d, double fraction, uint64_t seed, struct Dataset *held_out);
void dataset_free(struct Dataset *d);

// The order of an epoch: a permutation that depends on (seed, epoch, n) alone. order: (n)
void data_permute(uint32_t *order, size_t n, uint64_t seed, uint64_t epoch);

// Where training stands in the data: all there is to save.
struct DataCursor {
    uint64_t epoch, next; // `next` counts examples within the epoch
};
// Gives batches in order. The last of an epoch may be smaller; none crosses an epoch.
struct Batcher {
    const struct Dataset *data;
    uint64_t seed;
    uint32_t *order;      // of order_epoch
    uint64_t order_epoch; // UINT64_MAX: none yet
    const struct Example **batch;
};
void batcher_init(struct Batcher *b, const struct Dataset *data, uint64_t seed);
void batcher_free(struct Batcher *b);
// Up to `size` examples (pairs, where they are pairs) from the cursor on, *n examples in all, and moves the cursor. The array belongs to the batcher and lives until the next call.
const struct Example *const *batcher_next(struct Batcher *b, struct DataCursor *cursor, size_t size, size_t *n);
// Steps of `size` examples in one epoch.
uint64_t batcher_steps_per_epoch(const struct Dataset *d, size_t size);
