// Chat templates: messages become token ids, and for training a mask that says which ids are learnt. A template is a few texts with
// places for the messages, in a syntax of our own (docs/formats.md): built in for the supported models, or from a file. Which
// one a model has is recognised by the model's own template text; that text is compared, never executed.
// Train, chat and eval go through template_render alone, so that they cannot disagree about a token.
#pragma once
#include "model/tokenizer.h"

enum Role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };

enum TemplatePartKind { PART_TEXT, PART_TOKEN, PART_MESSAGE, PART_SYSTEM };
enum TemplateTrim { TRIM_NONE, TRIM_END, TRIM_BOTH }; // white space of a message that is left out
struct TemplatePart {
    enum TemplatePartKind kind;
    enum TemplateTrim trim;
    uint32_t id; // of PART_TOKEN
    char *text;  // of PART_TEXT
    size_t bytes;
};
enum TemplateText {
    TEXT_START,      // once, before everything
    TEXT_SYSTEM,     // a system message
    TEXT_FIRST_USER, // a user message behind the system message that begins the conversation: both in one
    TEXT_USER,
    TEXT_PROMPT, // what comes before an answer ...
    TEXT_ANSWER, // ... the answer, which is learnt, with the token that ends it ...
    TEXT_AFTER,  // ... and what comes behind
    TEXT_COUNT
};
struct Template {
    char *name;
    struct TemplateParts {
        struct TemplatePart *parts; // (n)
        unsigned n;
        bool given;
    } texts[TEXT_COUNT];
    char *default_system;         // said where the first message is not the system's; NULL: nothing
    bool alternate, system_first; // user and assistant must take turns; a system message may only be the first
    uint32_t turn_id;             // token that ends the assistant's turn
    uint32_t stop[4];             // ids that end generation: turn_id and, where different, the end of sequence
    uint32_t n_stop;
    bool presumed; // plain, because the model names none
    char *refusal; // of template_open_late: why nothing can be laid out; NULL: all is well
};

struct Message {
    enum Role role;
    const char *text; // need not be 0-terminated; special tokens written in it stay plain text
    size_t bytes;
    bool weighted; // an answer whose loss counts `weight` times (0: it is read and not learnt); else once
    float weight;
};

struct TokenList {
    uint32_t *ids;
    float *trained; // 0: read alone; else the model is to learn to say this token, whose loss counts so often
    size_t n, capacity;
};

// `name`: one that is built in, or the path of a template file; or NULL: by the model's own chat template text (NULL or empty:
// plain). A template text that is not known is refused with its first words and its fingerprint.
bool template_open(struct Template *t, const char *name, const char *chat_template, const struct Tokenizer *tokenizer,
                   const char *where);
// The same for data that may need no template: a template text that is not known leaves only `refusal`, for who comes to need it.
bool template_open_late(struct Template *t, const char *name, const char *chat_template,
                        const struct Tokenizer *tokenizer, const char *where);
// To be told where a conversation is laid out: that nobody chose the template, if so.
void template_warn(const struct Template *t, const char *model);
void template_free(struct Template *t);
// The template that a model or an adapter was trained with, where that is not the model's own: in its folder, or beside NAME.gguf as
// NAME.chat.template. Any template file may lie there.
#define TEMPLATE_FILE "chat.template"
char *template_place(const char *model);  // where it would be, malloc'ed
char *template_beside(const char *model); // the same; NULL where there is none
// The text of a template that is built in, or of a file; malloc'ed, NULL after a message.
char *template_source(const char *name);
const char *template_name(const struct Template *t);
const char *template_names(void); // of those built in, for messages and --help
// What the model says before an answer's own words ("" or a blank): not a part of what it is taken to have said.
const char *template_lead(const struct Template *t);
static inline float message_weight(const struct Message *m) { return m->weighted ? m->weight : 1; }
bool role_find(const char *name, enum Role *role); // "system", "user", "assistant"

// Appends to out (zero it first). Trained are the assistant's words and the token that ends its turn, with their message's weight. With
// add_generation_prompt the ids end where the assistant begins to speak.
// The ids are those of the whole rendered text, special tokens parsed, with one exception: the answer is cut off from the prompt,
// as it is when the model speaks, which shows only where an answer begins with white space.
// Fails where the messages are not as the template wants them, and where the tokenizer does.
bool template_render(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *messages,
                     size_t n, bool add_generation_prompt, struct TokenList *out);
// The rendered text itself, malloc'ed, for people and for tests; NULL after a message where the messages do not fit.
char *template_text(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *messages,
                    size_t n, bool add_generation_prompt, size_t *bytes);

// Appends the ids of a text, all with the same mask.
bool token_list_append(struct TokenList *list, const struct Tokenizer *tokenizer, const char *text, size_t bytes,
                       unsigned flags, float trained);
void token_list_push(struct TokenList *list, uint32_t id, float trained);
void token_list_free(struct TokenList *list);
