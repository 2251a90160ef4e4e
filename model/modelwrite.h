// Writing models that others load: a Hugging Face folder (transformers, PEFT) or a GGUF file (llama.cpp). The weights come from
// a source, row by row, so that no more than a few rows are in memory; nothing appears under the final name before all is there.
#pragma once
#include "model/imatrix.h"
#include "model/mix.h"
#include "model/modelfile.h"
#include "runtime/temporary.h"

// Where weights come from. `type` tells in which type rows come; when it differs from the type to be written they go
// through f32. Both return false (type: DT_COUNT) after a message.
struct WeightSource {
    void *context;
    enum DType (*type)(void *context, const struct WeightSpec *w);
    bool (*rows)(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out); // file layout
};
struct WeightSource modelfile_source(struct ModelFile *f);

// `type`: F32, F16 or BF16, for all tensors. `tokenizer`: the model whose tokenizer goes along (files are copied; a GGUF's keys
// become tokenizer.json and tokenizer_config.json); NULL: none. `dir` must not exist or be empty; one that is there is filled. `shard_bytes` 0: 5 GB.
bool modelwrite_hf(const char *dir, const struct Config *c, enum DType type, const struct WeightSource *source,
                   const struct ModelFile *tokenizer, uint64_t shard_bytes);
// The types of a GGUF's tensors. Norms and routers are F32 always; where the rows of a matrix are no multiple of the type's block,
// dtype_for_cols says what it is instead.
struct WriteTypes {
    enum DType type;       // of the matrices
    enum DType embed_type; // of embedding and head; DT_COUNT: the same
    const struct Mix *mix; // not NULL: as this mix chooses, whatever the two above say
    const struct ModelFile
        *like; // not NULL, a GGUF: each tensor has the type that it has there, whatever the two above say
    const struct Imatrix *imatrix; // not NULL: the importance of columns, where it has them
    const struct GgufOrigin {
        const char *base, *description;
    } * origin; // not NULL: what a GGUF was made from, in the place of what the tokenizer's file says of that for itself
};
// `name` goes to general.name. Of a GGUF `tokenizer` the other general.* keys go along too (author, licence ...).
bool modelwrite_gguf(const char *path, const struct Config *c, const struct WriteTypes *types,
                     const struct WeightSource *source, const struct ModelFile *tokenizer, const char *name);
// Refuses an output path that is in use, before work is spent on it: an existing file, a folder that is not empty, or one where a file is to be.
bool modelwrite_check_output(const char *path, bool file);
// All files of one folder into another, `last` at the end: it is the one that makes the rest count.
bool modelwrite_move(const char *from, const char *to, const char *last);
// What is made at temporary.path, a folder or a file, until it gets the name that was given; links are followed. A folder that is there already keeps
// its place and gets the files: it may be where something is mounted, or where somebody stands.
struct ModelPlace {
    struct Temporary temporary;
    char *fills; // that folder; NULL: there is none
};
void modelwrite_place(struct ModelPlace *p, const char *path);
bool modelwrite_place_keep(struct ModelPlace *p); // false after a message
void modelwrite_place_drop(struct ModelPlace *p); // of one that is kept too
// The tokenizer alone into a folder that exists: what modelwrite_hf does for it. Checkpoints and adapters use it.
bool modelwrite_tokenizer(const char *dir, const struct Config *c, const struct ModelFile *tokenizer);
