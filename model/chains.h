// The published byte-level pre-tokenizers, each a chain of patterns under the name that GGUF's tokenizer.ggml.pre has for it. One table
// serves reading GGUF, recognising a tokenizer.json, and writing either.
#pragma once
#include "model/pretokenize.h"

enum { CHAIN_PATTERNS = 6 };
struct Chain {
    const char *name;
    const char *patterns[CHAIN_PATTERNS]; // isolated splits in order, NULL behind the last
    bool digits;                          // then digits one by one
    bool byte_level_regex;                // then ByteLevel's own pattern
    bool ignore_merges;                   // a piece that is a token is taken whole
    bool composes;                        // texts are composed first (NFC)
};
const struct Chain *chain_find(const char *name); // also by llama.cpp's other names for it; NULL: not known
extern const struct Chain CHAINS[];
enum { N_CHAINS = 7 };
const char *chain_names(void); // for messages
