// SentencePiece vocabularies between formats: tokenizer.json orders pairs by merges, GGUF and tokenizer.model give each piece a score.
// Either can be made of the other where the pairs of one piece stand together in the list of merges.
#pragma once
#include "model/gguf.h"
#include "model/json.h"

struct SpmVocab {
    const struct GgufString *tokens; // (n)
    const int32_t *types;            // GGUF's numbers
    const float *scores;
    uint64_t n;
};
// An array of "left right", best score first; NULL after a message. `pieces` is the object of tokens and ids.
json_t *vocabspm_merges(const struct SpmVocab *v, const json_t *pieces, const char *where);
// Scores (n, zeroed) that give the same ids as the merges; false after a message where there are none.
bool vocabspm_scores(const json_t *pieces, const json_t *merges, float *scores, uint32_t n, const char *where);
