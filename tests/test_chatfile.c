// Saved conversations: what comes back is what was put in, to the last bit of the keys and values; a file that is cut anywhere, has a byte
// changed, lies about a length or belongs to another model is refused.
#include "check.h"
#include "files.h"
#include "model/chatfile.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTEXT = 32, TOKENS = 5 };
static const struct SampleParams GREEDY = {0};
static const struct ChatIdentity OURS = {11, 22, 0, 44};
static const uint32_t IDS[TOKENS] = {7, 300, 2, 511, 65};
static char path[400];

static struct ChatState state_of(void) {
    static struct ChatMessage messages[3];
    static struct ChatSetting settings[2] = {{(char *)(uintptr_t) "temperature", (char *)(uintptr_t) "0.5"},
                                             {(char *)(uintptr_t) "stop", (char *)(uintptr_t) ""}};
    static uint32_t said[2] = {65, 300}, cached[TOKENS];
    memcpy(cached, IDS, sizeof cached);
    messages[0] = (struct ChatMessage){.role = ROLE_SYSTEM, .text = (char *)(uintptr_t) "Be kind.", .bytes = 8};
    messages[1] = (struct ChatMessage){.role = ROLE_USER, .text = (char *)(uintptr_t) "a\0b\xff", .bytes = 4};
    messages[2] = (struct ChatMessage){
        .role = ROLE_ASSISTANT, .text = (char *)(uintptr_t) "", .bytes = 0, .ids = said, .n_ids = 2};
    return (struct ChatState){messages, 3, settings, 2, cached, TOKENS, 1, 9, -0.25f};
}

static bool same_state(const struct ChatState *a, const struct ChatState *b) {
    bool same = a->n_messages == b->n_messages && a->n_settings == b->n_settings && a->n_cached == b->n_cached &&
                a->left_out == b->left_out && a->stream == b->stream && a->adapter_scale == b->adapter_scale &&
                memcmp(a->cached, b->cached, a->n_cached * sizeof *a->cached) == 0;
    for (uint32_t i = 0; same && i < a->n_messages; i++) {
        const struct ChatMessage *x = &a->messages[i], *y = &b->messages[i];
        same = x->role == y->role && x->bytes == y->bytes && x->n_ids == y->n_ids &&
               memcmp(x->text, y->text, x->bytes) == 0 &&
               (x->n_ids == 0 || memcmp(x->ids, y->ids, x->n_ids * sizeof *x->ids) == 0);
    }
    for (uint32_t i = 0; same && i < a->n_settings; i++)
        same = strcmp(a->settings[i].name, b->settings[i].name) == 0 &&
               strcmp(a->settings[i].value, b->settings[i].value) == 0;
    return same;
}

static bool open_session(struct Session *s, struct Model *m, uint32_t context) {
    struct SessionOptions o = {.n_sequences = 1, .context = context};
    return CHECK(session_init(s, m, &o), "%s", fail_last());
}

// Saves a session; another one, with another context, goes on from the file to the same logits.
static void test_round_trip(struct Model *m, uint8_t **data, uint64_t *bytes) {
    struct Session s, other;
    struct ChatState state = state_of();
    struct ChatFile f;
    uint32_t next, again, zero = 0, vocab = m->config.vocab_size;
    float *want = xcalloc(vocab, sizeof *want), *got = xcalloc(vocab, sizeof *got);
    if (!open_session(&s, m, CONTEXT) || !open_session(&other, m, CONTEXT - 9))
        return;
    CHECK(session_prefill(&s, 0, IDS, TOKENS, &GREEDY, &next, NULL), "%s", fail_last());
    CHECK(chatfile_write(path, &state, &OURS, &s), "%s", fail_last());
    CHECK(chatfile_write(path, &state, &OURS, &s), "a second time over the first: %s", fail_last());
    struct stat st;
    char *absolute = realpath(path, NULL), *link = xsprintf("%s-link", path);
    CHECK(absolute && symlink(absolute, link) == 0 && chatfile_write(link, &state, &OURS, &s) &&
              lstat(link, &st) == 0 && S_ISLNK(st.st_mode),
          "a link is replaced, not what it leads to: %s", fail_last());
    unlink(link);
    free(absolute), free(link);
    CHECK(file_read(path, 1 << 20, data, bytes) && *bytes == chatfile_bytes(&state, &s), "%llu bytes",
          (unsigned long long)*bytes);
    if (!CHECK(chatfile_open(&f, path), "%s", fail_last()))
        return;
    CHECK(same_state(&f.state, &state), "the words are not what was saved");
    CHECK(chatfile_matches(&f, &OURS, vocab), "%s", fail_last());
    CHECK(chatfile_unusable(&f, &OURS, &other) == NULL, "%s", chatfile_unusable(&f, &OURS, &other));
    CHECK(chatfile_restore(&f, &other, TOKENS) && other.length[0] == TOKENS, "%s", fail_last());
    uint32_t id = next;
    CHECK(session_decode(&s, 1, &zero, &id, &GREEDY, &next, NULL) && session_logits(&s, 0, want), "%s", fail_last());
    CHECK(session_decode(&other, 1, &zero, &id, &GREEDY, &again, NULL) && session_logits(&other, 0, got), "%s",
          fail_last());
    CHECK(next == again && memcmp(want, got, vocab * sizeof *want) == 0, "the logits are others after loading");
    // A part of it is as good as the whole.
    CHECK(chatfile_restore(&f, &other, 3) && other.length[0] == 3, "%s", fail_last());
    CHECK(session_prefill(&other, 0, IDS + 3, TOKENS - 3, &GREEDY, &again, NULL) && again == id,
          "a part and the rest: token %u, not %u", again, id);
    struct ChatIdentity held = OURS;
    held.held++;
    CHECK(chatfile_unusable(&f, &held, &s) != NULL, "weights held in another type");
    chatfile_close(&f);
    free(want), free(got);
    session_free(&s);
    session_free(&other);
}

static bool opens(const uint8_t *data, size_t bytes) {
    struct ChatFile f;
    bool ok = chatfile_open_memory(&f, data, bytes, "made");
    if (!ok)
        return false;
    uint8_t *row = xmalloc(f.row_bytes ? f.row_bytes : 1);
    for (uint32_t layer = 0; layer < f.n_layers && layer < 64; layer++)
        for (uint32_t i = 0; i < f.state.n_cached; i++)
            CHECK(chatfile_rows(&f, layer, i % 2, i, 1, row), "%s", fail_last());
    free(row);
    chatfile_matches(&f, &OURS, 512);
    chatfile_close(&f);
    return true;
}

static void test_damage(const uint8_t *data, size_t bytes) {
    uint8_t *copy = xmalloc(bytes + 1);
    uint32_t opened = 0;
    fail_quiet(true);
    for (size_t n = 0; n < bytes; n++) { // a buffer of just that size: reading past it would be seen
        uint8_t *part = xmalloc(n ? n : 1);
        memcpy(part, data, n);
        opened += opens(part, n);
        free(part);
    }
    CHECK(opened == 0, "%u files that are cut off were opened", opened);
    memcpy(copy, data, bytes);
    for (size_t i = 0; i < bytes; i++)
        for (int flip = 0; flip < 9; flip++) {
            copy[i] = (uint8_t)(data[i] ^ (flip < 8 ? 1 << flip : 255));
            opened += opens(copy, bytes);
            copy[i] = data[i];
        }
    CHECK(opened == 0, "%u files with a changed byte were opened", opened);
    copy[bytes] = 0;
    CHECK(!opens(copy, bytes + 1), "a byte too many");
    fail_quiet(false);
    free(copy);
}

static void seal(uint8_t *data, size_t bytes) {
    uint64_t sum = chatfile_checksum(data, bytes - 8);
    for (int i = 0; i < 8; i++)
        data[bytes - 8 + (size_t)i] = (uint8_t)(sum >> 8 * i);
}

// P9: files that lie with a checksum that is right: every word in front of the keys and values takes every extreme value.
static void test_lies(const uint8_t *data, size_t bytes, size_t words) {
    static const uint32_t VALUES[] = {0, 1, 2, 0xff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    uint8_t *copy = xmalloc(bytes);
    uint32_t opened = 0, tried = 0;
    fail_quiet(true);
    for (size_t at = 0; at + 4 <= words; at++)
        for (size_t v = 0; v < sizeof VALUES / sizeof *VALUES; v++, tried++) {
            memcpy(copy, data, bytes);
            memcpy(copy + at, &VALUES[v], 4);
            seal(copy, bytes);
            opened += opens(copy, bytes);
        }
    fail_quiet(false);
    CHECK(opened < tried, "all of them were opened"); // text, hashes and numbers of tokens may be anything
    free(copy);
}

static void test_named(const uint8_t *data, size_t bytes) {
    static const struct {
        size_t at;
        uint8_t value;
        const char *words;
    } LIES[] = {
        {0, 'X', "is no saved conversation"},
        {8, 2, "version 2; this program reads version 1"},
        {12, 64, "header of 64 bytes"},
        {16, 1, "it is not whole"},
        {65, 200, "more than its"}, // bytes of a row
        {71, 200, "more than its"}, // layers
        {72, 200, "more than its"}, // tokens
        {68, 0, "do not go together"},
        {72, 0, "do not go together"},
        {79, 1, "settings"}, // their number
        {83, 1, "messages"}, // their number
        {84, 3, "3 messages are left out, and there are 2"},
        {100, 1, "byte 100: 1 where 0 is expected"},
        {128, 255, "the name of a setting"},
    };
    uint8_t *copy = xmalloc(bytes);
    fail_quiet(true);
    for (size_t i = 0; i < sizeof LIES / sizeof *LIES; i++) {
        memcpy(copy, data, bytes);
        copy[LIES[i].at] = LIES[i].value;
        seal(copy, bytes);
        CHECK(refused(opens(copy, bytes), LIES[i].words), "byte %zu: %s", LIES[i].at, fail_last());
    }
    memcpy(copy, data, bytes);
    copy[bytes - 30] ^= 1;
    CHECK(refused(opens(copy, bytes), "is damaged"), "%s", fail_last());
    CHECK(refused(opens(data, 20), "it has 20 bytes"), "%s", fail_last());
    free(copy);
    struct ChatFile f;
    CHECK(chatfile_open_memory(&f, data, bytes, "made"), "%s", fail_last());
    struct ChatIdentity id = OURS;
    id.model++;
    CHECK(refused(chatfile_matches(&f, &id, 512), "another model"), "%s", fail_last());
    id = OURS, id.tokenizer++;
    CHECK(refused(chatfile_matches(&f, &id, 512), "another tokenizer"), "%s", fail_last());
    id = OURS, id.adapter++;
    CHECK(refused(chatfile_matches(&f, &id, 512), "without an adapter"), "%s", fail_last());
    CHECK(refused(chatfile_matches(&f, &OURS, 511), "token 511 is beyond the model's vocabulary of 511"), "%s",
          fail_last());
    chatfile_close(&f);
    fail_quiet(false);
}

// What is there and is no conversation stays; where nothing can be written, nothing is left behind.
static void test_places(struct Model *m) {
    struct Session s;
    struct ChatState state = state_of();
    uint8_t *data;
    uint64_t bytes;
    char other[440];
    state.n_cached = 0;
    if (!open_session(&s, m, CONTEXT))
        return;
    snprintf(other, sizeof other, "%s.txt", path);
    CHECK(file_write_atomic(other, "my notes", 8), "%s", fail_last());
    fail_quiet(true);
    CHECK(refused(chatfile_write(other, &state, &OURS, &s), "is no saved conversation"), "%s", fail_last());
    CHECK(!chatfile_write("no-such-folder/chat", &state, &OURS, &s) && !dir_exists("no-such-folder"), "%s",
          fail_last());
    fail_quiet(false);
    CHECK(file_read(other, 100, &data, &bytes) && bytes == 8 && memcmp(data, "my notes", 8) == 0, "the notes are gone");
    free(data);
    unlink(other);
    struct ChatFile f;
    CHECK(chatfile_write(path, &state, &OURS, &s) && chatfile_open(&f, path), "%s", fail_last());
    CHECK(f.state.n_cached == 0 && chatfile_unusable(&f, &OURS, &s) != NULL, "a file without keys and values");
    chatfile_close(&f);
    session_free(&s);
}

int main(void) {
    struct Device dev;
    struct Config c;
    struct Model m;
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    snprintf(path, sizeof path, "%s/test-chatfile.%ld", VKMOE_BINARY_DIR, (long)getpid());
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool ok = config_preset(&c, "tiny-moe") && model_init(&m, &dev, &c, DT_F32, CONTEXT) && model_randomise(&m, 11);
    if (CHECK(ok, "%s", fail_last())) {
        test_round_trip(&m, &data, &bytes);
        if (data) {
            struct ChatFile f;
            CHECK(chatfile_open(&f, path), "%s", fail_last());
            size_t words = f.cache_from;
            chatfile_close(&f);
            test_damage(data, bytes);
            test_lies(data, bytes, words);
            test_named(data, bytes);
        }
        test_places(&m);
        model_free(&m);
    }
    free(data);
    unlink(path);
    device_close(&dev);
    return check_done();
}
