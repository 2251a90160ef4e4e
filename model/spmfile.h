// SentencePiece's tokenizer.model: a protocol-buffers message (sentencepiece_model.proto), of which the parts that decide about ids
// are read. Every length is bounded by what is left of the bytes; messages are two deep and groups are refused.
#pragma once
#include "runtime/base.h"

// GGUF's tokenizer.ggml.token_type has the same numbers.
enum SpmType { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER, SPM_UNUSED, SPM_BYTE };
struct SpmPiece {
    const char *text; // in the file's bytes, not ended by a 0 byte; valid UTF-8
    size_t bytes;
    float score;
    enum SpmType type;
};
struct SpmFile {
    struct SpmPiece *pieces; // (n), the id is the index
    uint32_t n, capacity;
    uint32_t bos_id, eos_id, pad_id, unknown_id; // UINT32_MAX: none
    bool dummy_prefix;                           // a blank goes in front of a text
};
// Refused by name: models that are not BPE, normalisation tables, removal of extra blanks, blanks behind words.
bool spmfile_parse(struct SpmFile *f, const void *data, size_t bytes, const char *where);
void spmfile_free(struct SpmFile *f);
