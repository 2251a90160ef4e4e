// Who answers: a model on a session (answer_model), or whatever a test puts in its place.
#pragma once
#include "eval/items.h"
#include "model/batch.h"
#include "model/template.h"

struct Ask {
    const struct Asked *asked;
    const struct Group *group;
    const struct Item *item;
};
struct Answer {
    const char *text;
    const char *ended; // "end" (the model ended it), "stop" (a stop string), "length" (max_tokens), "context"
    bool cut;          // the prompt was too long; see answer_model
};
struct AnswerSink {
    void *context;
    bool (*answered)(void *context, uint32_t index, const struct Answer *answer); // false: stop all
};
struct Answerer {
    void *context;
    // Log-probability (natural) of each choice's continuation, (item->n_choices).
    bool (*likelihoods)(void *context, const struct Ask *ask, double *logprobs, bool *cut);
    // The likeliest text behind each prompt, in any order. What asks[i] says does not depend on the others.
    bool (*generate)(void *context, const struct Ask *asks, uint32_t n, const struct AnswerSink *sink);
};

// A model. With a template each prompt is a user's message and the answer the assistant's, a choice without white space in front; else prompt and
// continuation are one text, cut into tokens as lm-evaluation-harness does. A prompt that does not fit the context with the longest answer loses
// tokens from its left (but for the first, where that begins every text).
struct AnswerModel {
    struct Session *session; // made with `scoring`
    const struct Tokenizer *tokenizer;
    const struct Template *template; // NULL: no chat
    const uint32_t *stop_ids;        // tokens that end an answer
    uint32_t n_stop_ids, context;    // context: tokens of prompt and answer at most
    const struct Group *held;        // whose shared beginning sequence 0 holds
    uint32_t n_held;
};
struct Answerer answer_model(struct AnswerModel *m);
// The tokens that are asked, before anything is cut to the context: of the prompt and, for a choice (0 for tasks without), of its continuation.
// Both are to be freed; only m's tokenizer and template are used.
bool answer_tokens(const struct AnswerModel *m, const struct Item *item, uint32_t choice, struct TokenList *prompt,
                   struct TokenList *continuation);
// Tokens that the longest prompt needs with its answer; session is not used. False where the tokenizer fails.
bool answer_longest(const struct AnswerModel *m, const struct Asked *asked, uint64_t *tokens);
