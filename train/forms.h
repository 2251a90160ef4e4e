// The forms in which people write examples, as a JSON object each, told apart one by one:
//   {"messages": [{"role": "user", "content": "..."}, ...]}       the chat template; learnt are the assistant's words
//   {"conversations": [{"from": "human", "value": "..."}, ...]}   the same in ShareGPT's words (human, gpt, system);
//                                                                 "system" beside either list is said before it
//   {"instruction": "...", "input": "...", "output": "..."}       the same in Alpaca's: input, if any, on a line below; before
//                                                                 it "system" and "history": [[question, answer], ...]
//   {"prompt": "...", "completion": "..."}                        joined as they are; learnt are the completion and the end.
//                                                                 Either may be a list of messages, as above: then both are turns
//                                                                 of a conversation, and learnt are the completion's answers
//   {"text": "..."}                                               all of it is learnt, and the end
// The end is the end-of-sequence token, which stands behind the answer in every form. The loss of a message of the assistant
// counts as often as its "weight" (or "loss_weight", or "mask": 0 or 1) says, a number of at least 0: 0 (or false) is read and not learnt.
#pragma once
#include "model/template.h"

#include <jansson.h>

// Other names for the keys above: what --columns says.
enum { COLUMNS_MAX = 16 };
struct Columns {
    struct {
        char *ours, *theirs;
    } names[COLUMNS_MAX];
    uint32_t n;
};
// "prompt=question,completion=answer". False after a message: a key that is not one of the above, or one twice.
bool columns_parse(struct Columns *c, const char *text);
void columns_free(struct Columns *c);

struct FormReader {
    const struct Tokenizer *tokenizer;
    const struct Template *chat;
    const struct Columns *columns; // NULL: the keys are ours
    struct TokenList list;         // of the object in hand
    uint32_t
        spelled; // a special token whose name stands in a text of the object in hand, where it is plain letters; TOKEN_NONE: none
    bool templated;           // the object in hand is one that needs the chat template
    bool pair;                // weights other than 0 and 1 are refused: a preference is of whole answers
    json_t *unused;           // names of keys that were not read, of all objects so far (the first 32); NULL: none
    struct Message *messages; // (messages_room)
    size_t messages_room;
};
// Fills r->list with the tokens of the object. False after a message that begins with `where`.
bool form_read(struct FormReader *r, const json_t *object, const char *where);
// A pair for learning from preferences, {"prompt": ..., "chosen": "...", "rejected": "..."}: the tokens of the prompt with one of its answers.
// The prompt is a text, joined as it is, or an array of messages, of which the answer is the assistant's next. The answer alone is learnt.
// The answers may be arrays too: of one message of the assistant, or before it of the same turns in both, which are then the prompt.
bool form_read_pair(struct FormReader *r, const json_t *object, bool chosen, const char *where);
// The first names of an object's keys, with commas: malloc'ed; NULL: there are none.
char *form_key_names(json_t *object);
void form_free(struct FormReader *r); // what the reader itself holds
