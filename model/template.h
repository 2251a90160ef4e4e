// Chat templates: messages become token ids, and for training a mask that says which ids are learnt. The templates of the
// supported models are built in and chosen by the model's own template text; that text is compared, never executed.
// Train, chat and eval go through template_render alone, so that they cannot disagree about a token.
#pragma once
#include "model/tokenizer.h"

enum TemplateKind { TEMPLATE_PLAIN, TEMPLATE_DEEPSEEK, TEMPLATE_CHATML };
enum Role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };

struct Template {
    enum TemplateKind kind;
    char *default_system; // said where the first message is not the system's; NULL: nothing
    uint32_t turn_id;     // token that ends the assistant's turn
    uint32_t start_id;    // ChatML's <|im_start|>, else TOKEN_NONE
    uint32_t bos_id;      // put first, or TOKEN_NONE
    uint32_t stop[4];     // ids that end generation: turn_id and, where different, the end of sequence
    uint32_t n_stop;
};

struct Message {
    enum Role role;
    const char *text; // need not be 0-terminated; special tokens written in it stay plain text
    size_t bytes;
};

struct TokenList {
    uint32_t *ids;
    uint8_t *trained; // 1: the model is to learn to say this token
    size_t n, capacity;
};

// `name`: plain, deepseek, chatml; or NULL: by the model's own chat template text (NULL or empty: plain). A template text
// that is not known is refused with its first words.
bool template_open(struct Template *t, const char *name, const char *chat_template, const struct Tokenizer *tokenizer,
                   const char *where);
void template_free(struct Template *t);
const char *template_name(const struct Template *t);
const char *template_names(void);                  // for messages and --help
bool role_find(const char *name, enum Role *role); // "system", "user", "assistant"

// Appends to out (zero it first). Trained are the assistant's words and the token that ends its turn. With
// add_generation_prompt the ids end where the assistant begins to speak.
// The ids are those of the whole rendered text, special tokens parsed, with one exception: the answer is cut off from the prompt,
// as it is when the model speaks, which shows only where an answer begins with white space.
bool template_render(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *messages,
                     size_t n, bool add_generation_prompt, struct TokenList *out);
// The rendered text itself, malloc'ed: for people and for tests.
char *template_text(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *messages,
                    size_t n, bool add_generation_prompt, size_t *bytes);

// Appends the ids of a text, all with the same mask.
bool token_list_append(struct TokenList *list, const struct Tokenizer *tokenizer, const char *text, size_t bytes,
                       unsigned flags, bool trained);
void token_list_push(struct TokenList *list, uint32_t id, bool trained);
void token_list_free(struct TokenList *list);
