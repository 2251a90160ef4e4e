// What the files of `vkmoe chat` share: cmd_chat.c reads what is typed, chat_commands.c obeys what begins with a slash, chat_settings.c and
// chat_files.c hold the longer commands, and chat_turn.c has the conversation and makes the answers.
#pragma once
#include "cli/heat.h"
#include "cli/lines.h"
#include "cli/load.h"
#include "model/chatfile.h"
#include <signal.h>

struct Chat {
    struct Args args;             // our own copy: /set changes its values
    char *values[ARGS_MAX_FLAGS]; // texts that /set put there
    struct Loaded l;
    struct Lines *lines;
    FILE *say; // what is not the model's: the terminal, else stderr
    bool json;
    char *system;                 // NULL: none
    struct ChatMessage *messages; // user's and assistant's
    size_t n, room;
    size_t left_out;            // first messages that no longer fit the context
    char *attached;             // files of /read, to go with the next message; NULL: none
    bool editing;               // what is typed next takes the place of the last message
    struct SamplerSettings set; // as the command line and /set have it
    struct Sampler sampler;     // of the answer that is made
    uint32_t stream;            // of random numbers, of the last answer
    uint32_t max_tokens;
    char *stops[STOPS_MAX]; // texts that end an answer
    uint32_t n_stops;
    struct Stops ends; // those, looked for in an answer
    uint32_t *cached;  // tokens in the session's cache
    uint32_t n_cached;
    char *adapter; // its folder; NULL: none
    struct LoraOptions lora;
    float adapter_scale; // times the adapter's own
    struct Heat heat;
    bool quit, failed;
    bool refused; // a message or a command was: a script learns it from the exit status
};

// ---- chat_turn.c: the conversation

void chat_message_add(struct Chat *c, enum Role role, const char *text, size_t bytes);
void chat_clear(struct Chat *c);
// Takes back the last question and its answer; false when there is none.
bool chat_undo(struct Chat *c);
// Answers a new message; where nothing could be said it is taken back.
void chat_ask(struct Chat *c, const char *text);
// Answers the last question again, or with `text` in its place; the old answer comes back where nothing could be said.
void chat_ask_again(struct Chat *c, const char *text);
const char *chat_last_question(const struct Chat *c); // NULL: none
// Tokens of the conversation without what was left out so far.
bool chat_count_tokens(struct Chat *c, size_t *n);
// Nothing in the cache is worth anything any more.
void chat_forget_cache(struct Chat *c);
extern const struct sigaction CHAT_INTERRUPT; // what Ctrl-C does

// ---- chat_settings.c

bool chat_set(struct Chat *c, char *rest); // "NAME X", "NAME" or ""; false after one line
void chat_clear_stops(struct Chat *c);
uint32_t chat_settings(const struct Chat *c, struct ChatSetting **list); // malloc'ed, texts too
// All of them, stop texts as they are. Where they do not go together all stays as it was; false after one line.
bool chat_take_settings(struct Chat *c, const struct ChatSetting *list, uint32_t n);
void chat_show(struct Chat *c);
bool chat_adapter(struct Chat *c, const char *what); // "", "off", a number, or a folder
bool chat_adapter_scale(struct Chat *c, float scale);

// ---- chat_files.c

bool chat_read(struct Chat *c, const char *path);
bool chat_save(struct Chat *c, const char *path);
bool chat_load(struct Chat *c, const char *path);
bool chat_experts(struct Chat *c, const char *path); // "": on the terminal

// ---- chat_commands.c

bool chat_is_command(const char *message);
void chat_command(struct Chat *c, char *line);
