// A model that has no weights yet: a shape, and the tokenizer that decides its vocabulary. `init` fills it with random weights and writes it, `train
// --from-scratch` trains it.
#pragma once
#include "model/modelfile.h"

// `shape` is a preset's name (which wins over a path), or a model whose config alone is taken. `tokenizer` is a model, tokenizer.json or
// tokenizer.model; NULL: the shape's own, of a preset one token a byte. *f then has no tensors. False after a message.
bool scratch_open(struct ModelFile *f, const char *shape, const char *tokenizer);
// Takes away the files of a tokenizer of bytes too.
void scratch_close(struct ModelFile *f);
