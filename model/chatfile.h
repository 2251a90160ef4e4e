// A conversation on disk: messages, settings, and the keys and values of the tokens that a session holds, so that it goes on where it
// stopped without reading anything again. docs/formats.md has the layout. Nothing in the file is trusted: a checksum over all of it
// comes first, then every length is checked against what is left.
#pragma once
#include "model/fileio.h"
#include "model/session.h"
#include "model/template.h"

enum { CHATFILE_VERSION = 1 };

struct ChatMessage {
    enum Role role;
    char *text; // malloc'ed, a 0 byte follows
    uint64_t bytes;
    uint32_t *ids; // malloc'ed: the tokens as the model said them; NULL: whatever the text gives
    uint32_t n_ids;
};
struct ChatSetting {
    char *name, *value;
};
struct ChatState {
    struct ChatMessage *messages; // the system message first, where there is one
    uint32_t n_messages;
    struct ChatSetting *settings;
    uint32_t n_settings;
    uint32_t *cached; // tokens in sequence 0 of the session
    uint32_t n_cached;
    uint32_t left_out; // first messages, without the system's, that no longer fit the context
    uint32_t stream;   // of random numbers, of the last answer
    float adapter_scale;
};
void chatfile_message_free(struct ChatMessage *m);
void chatfile_state_free(struct ChatState *s);

// Whose conversation it is. `held` is how the weights lie on the device: keys and values depend on it, words do not.
struct ChatIdentity {
    uint64_t model, tokenizer, adapter, held; // hashes; adapter 0: none
};
// The model's hash is that of its shape and of a sample of every tensor. adapter: folder, or NULL.
bool chatfile_identify(const struct ModelFile *f, const struct Tokenizer *t, const struct Model *m, const char *adapter,
                       struct ChatIdentity *id);

// Writes behind a temporary name, synced and renamed. A file of that name which is no conversation is left alone.
bool chatfile_write(const char *path, const struct ChatState *state, const struct ChatIdentity *id, struct Session *s);

uint64_t chatfile_bytes(const struct ChatState *state, const struct Session *s); // of the file

struct ChatFile {
    struct FileIn in;
    struct ChatState state;
    struct ChatIdentity id;
    char cache_type[9];  // "f32"
    uint32_t row_bytes;  // of the keys (and of the values) of a token in one layer
    uint32_t n_layers;   // 0: the file has no keys and values
    uint64_t cache_from; // byte where they begin: by layer, n_cached rows of keys, then of values
};
bool chatfile_open(struct ChatFile *f, const char *path);
bool chatfile_open_memory(struct ChatFile *f, const void *data, size_t bytes, const char *name);
void chatfile_close(struct ChatFile *f);
// Another model, tokenizer or adapter, or a token beyond the vocabulary: false after one line.
bool chatfile_matches(const struct ChatFile *f, const struct ChatIdentity *id, uint32_t vocab_size);
// Why the keys and values cannot be used here, though the words can; NULL: they can.
const char *chatfile_unusable(const struct ChatFile *f, const struct ChatIdentity *id, const struct Session *s);
// Puts the keys and values of the first `tokens` tokens into sequence 0, which holds just these afterwards.
bool chatfile_restore(const struct ChatFile *f, struct Session *s, uint32_t tokens);
// Rows of keys (part 0) or values (part 1) of a layer as they are in the file.
bool chatfile_rows(const struct ChatFile *f, uint32_t layer, uint32_t part, uint32_t first, uint32_t count, void *out);
// What stands in the last 8 bytes of a file with these bytes before them.
uint64_t chatfile_checksum(const void *data, size_t bytes);
