// What is done to a text before it is cut, as a chain of steps that tokenizer.json's "normalizer" or a SentencePiece model states. It
// is applied to each stretch between two added tokens apart.
#pragma once
#include "runtime/base.h"

enum { NORMALIZE_MAX = 8 }; // steps in a chain
enum NormalizeKind {
    NORMALIZE_NFC,     // Unicode's canonical composition
    NORMALIZE_PREPEND, // `to` in front of a text that is not empty
    NORMALIZE_REPLACE, // each `from` by `to`
};
struct NormalizeStep {
    enum NormalizeKind kind;
    char *from, *to;
    size_t from_bytes, to_bytes;
};
struct Normalizer {
    struct NormalizeStep steps[NORMALIZE_MAX];
    unsigned n;
};

// `from` and `to` are copied; NULL where the kind has none. Fails on a chain that is too long and on an empty `from`.
bool normalizer_add(struct Normalizer *n, enum NormalizeKind kind, const char *from, const char *to, const char *where);
void normalizer_free(struct Normalizer *n);
uint64_t normalizer_hash(const struct Normalizer *n, uint64_t seed);
bool normalizer_has(const struct Normalizer *n, enum NormalizeKind kind);
// malloc'ed, a 0 byte follows; the text must be valid UTF-8. Without `prefix` NORMALIZE_PREPEND is left out.
char *normalizer_run(const struct Normalizer *n, const char *text, size_t bytes, bool prefix, size_t *out_bytes);

// Each `from` by `to`; malloc'ed.
char *text_replace(const char *text, size_t bytes, const char *from, size_t from_bytes, const char *to, size_t to_bytes,
                   size_t *out_bytes);
// Canonical composition of valid UTF-8 (Unicode Standard Annex 15); malloc'ed.
char *nfc_compose(const char *text, size_t bytes, size_t *out_bytes);
