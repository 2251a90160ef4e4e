// Packing: the examples of one optimiser batch are laid into rows of seq_len tokens, the longest first, each into the
// fullest row it still fits. Every example stays whole and is a document of its own: `first` and `end` bound what a token
// may attend to, positions restart. So a packed batch has the loss and gradients of the separate examples.
#pragma once
#include "train/data.h"

enum { PACK_PADDING = 0xffffffff };

struct PackedDocument {
    uint32_t first, n; // flat index of its first token, tokens
    uint32_t example;  // index in the batch given to pack_plan
};

struct MicroBatch {
    uint32_t rows, seq_len;
    uint32_t n_tokens;   // rows * seq_len, less what `round` cut off the last row
    uint32_t *ids;       // (n_tokens) padding: pad_id
    uint32_t *positions; // (n_tokens) from 0 in each document
    int32_t *labels;     // (n_tokens) id to be predicted here, or -1
    float *weights;      // (n_tokens) of the labels; NULL: each 1
    uint32_t *first;     // (n_tokens) flat index of the document's first token
    uint32_t *end;       // (n_tokens) one past the document's last token
    uint32_t *document;  // (n_tokens) index in documents, or PACK_PADDING: such a token is alone, first = itself
    struct PackedDocument *documents;
    uint32_t n_documents, n_labels;
    double weight; // of the labels together
};

struct PackPlan {
    struct MicroBatch *micro;
    size_t n;
    uint64_t n_labels; // of the whole batch
    double weight;     // of these together: the loss is divided by it
    uint64_t n_tokens, n_padding;
    uint64_t n_computed; // n_tokens, each micro-batch rounded up as a step rounds it
};

struct PackOptions {
    uint32_t seq_len;      // no example may be longer
    uint32_t micro_tokens; // a micro-batch has at most so many; at least seq_len
    uint32_t pad_id;
    uint32_t round; // the last row of a micro-batch ends at a multiple of this behind its last document; 0: at seq_len
};

// The tokens that a step computes for a micro-batch of n: few shapes serve all batches, and at most a 32nd of a long row is for nothing.
uint32_t pack_computed(uint32_t n);
bool pack_plan(struct PackPlan *p, const struct Example *const *examples, size_t n, const struct PackOptions *options);
void pack_free(struct PackPlan *p);
