// Vocabularies from one format into the other: the tokenizer.ggml.* keys of GGUF and Hugging Face's tokenizer.json with
// tokenizer_config.json, or SentencePiece's tokenizer.model. BPE over bytes with a pre-tokenizer that both have a name for
// (chains.h), and SentencePiece's kind; others are refused.
#pragma once
#include "model/config.h"
#include "model/gguf.h"

// malloc'ed texts of tokenizer.json and tokenizer_config.json; `chat_template` may be NULL.
bool vocab_to_json(const struct Gguf *g, const char *chat_template, char **tokenizer_json, char **tokenizer_config);
// Writes the keys tokenizer.* from the text of a tokenizer.json and, or NULL, that of a tokenizer_config.json; the list of tokens is
// filled up to the rows of the embedding. `where` names the file.
bool vocab_to_gguf(struct GgufWriter *w, const struct Config *c, const char *tokenizer_json, size_t bytes,
                   const char *tokenizer_config, size_t config_bytes, const char *chat_template, const char *where);
// The same from a SentencePiece tokenizer.model.
bool vocab_model_to_gguf(struct GgufWriter *w, const struct Config *c, const void *data, size_t bytes,
                         const char *tokenizer_config, size_t config_bytes, const char *chat_template,
                         const char *where);
// Copies the keys tokenizer.* of another GGUF, whose vocabulary must have as many tokens as the embedding has rows.
bool vocab_copy_gguf(struct GgufWriter *w, const struct Config *c, const struct Gguf *g, const char *chat_template);
