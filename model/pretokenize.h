// Pre-tokenisation: cuts a text into the pieces inside which byte pairs may merge, by a chain of splits as tokenizer.json
// writes them. Each split sees one piece of the split before it as a text of its own. Patterns are Oniguruma's (Ruby
// syntax); they are translated to PCRE2 where both mean the same, and refused by name where not.
#pragma once
#include "runtime/base.h"

enum SplitBehavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT, SPLIT_CONTIGUOUS };
enum { SPLIT_MAX = 16 }; // splits in a chain

struct Split; // one compiled step
struct Pretokenizer {
    struct Split *splits;
    unsigned n_splits;
    bool add_prefix_space; // a piece that does not begin with a space gets one in front ...
    unsigned prefix_step;  // ... before this split (n_splits: after all)
};

// ByteLevel's own pattern, one digit, and blanks at the end (others in chains.h).
extern const char PATTERN_GPT2[], PATTERN_DIGIT[], PATTERN_TRAILING_SPACE[];

// Each adds one step. `where` names the file in messages.
bool pretokenizer_add_regex(struct Pretokenizer *p, const char *pattern, enum SplitBehavior behavior, bool invert,
                            const char *where);
bool pretokenizer_add_string(struct Pretokenizer *p, const char *text, enum SplitBehavior behavior, bool invert,
                             const char *where);
struct Chain;
bool pretokenizer_add_chain(struct Pretokenizer *p, const struct Chain *chain, const char *where);
// The chain of a GGUF's tokenizer.ggml.pre (chains.h); others are refused by name.
bool pretokenizer_by_name(struct Pretokenizer *p, const char *name, const char *where);
void pretokenizer_free(struct Pretokenizer *p);
uint64_t pretokenizer_hash(const struct Pretokenizer *p, uint64_t seed);

// Calls `piece` for each piece in order, none empty; stops and returns false when it does. The text must be valid UTF-8. The
// piece lives until the call returns (it is not always a part of text: see add_prefix_space).
typedef bool PieceFunction(void *context, const char *piece, size_t bytes);
bool pretokenizer_run(const struct Pretokenizer *p, const char *text, size_t bytes, PieceFunction *piece,
                      void *context);
