// SentencePiece vocabularies that are not as they should be, one by one: the bug classes T1 (numbers in a tokenizer) and T2 (a
// SentencePiece model file), and the typed reading of GGUF's.
#include "check.h"
#include "model/gguf.h"
#include "model/normalize.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

// ---- A tokenizer.model, written here ----

struct Bytes {
    uint8_t *at;
    size_t n, capacity;
};

static void put(struct Bytes *b, const void *data, size_t bytes) {
    if (b->n + bytes > b->capacity) {
        b->capacity = (b->n + bytes) * 2;
        b->at = xrealloc(b->at, b->capacity);
    }
    if (bytes)
        memcpy(b->at + b->n, data, bytes);
    b->n += bytes;
}

static void put_varint(struct Bytes *b, uint64_t value) {
    for (; value > 127; value >>= 7)
        put(b, &(uint8_t){(uint8_t)(value | 128)}, 1);
    put(b, &(uint8_t){(uint8_t)value}, 1);
}

static void put_number(struct Bytes *b, unsigned field, uint64_t value) {
    put_varint(b, field << 3);
    put_varint(b, value);
}

static void put_bytes(struct Bytes *b, unsigned field, const void *data, size_t bytes) {
    put_varint(b, field << 3 | 2);
    put_varint(b, bytes);
    put(b, data, bytes);
}

static void put_piece(struct Bytes *b, const char *text, float score, uint64_t type) {
    struct Bytes piece = {0};
    put_bytes(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | 5);
    put(&piece, &score, 4);
    put_number(&piece, 3, type);
    put_bytes(b, 1, piece.at, piece.n);
    free(piece.at);
}

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
enum {
    LEAVE_OUT_A_BYTE = 1,
    UNIGRAM = 2,
    CHARSMAP = 4,
    EXTRA_BLANKS = 8,
    SUFFIX = 16,
    NO_ESCAPE = 32,
    EOS_BEYOND = 64
};

static struct Bytes make_model(unsigned wrong, const char *piece, float score, uint64_t type) {
    struct Bytes b = {0}, trainer = {0}, normal = {0};
    put_piece(&b, "<unk>", 0, UNKNOWN);
    put_piece(&b, "<s>", 0, CONTROL);
    put_piece(&b, "</s>", 0, CONTROL);
    for (unsigned byte = wrong & LEAVE_OUT_A_BYTE; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        put_piece(&b, text, 0, BYTE);
    }
    put_piece(&b, "ab", -1, NORMAL);
    put_piece(&b, SPM_BLANK "ab", -2, NORMAL);
    put_piece(&b, "a", -3, NORMAL);
    put_piece(&b, "b", -4, NORMAL);
    put_piece(&b, SPM_BLANK, -5, NORMAL);
    if (piece)
        put_piece(&b, piece, score, type);
    put_number(&trainer, 3, wrong & UNIGRAM ? 1 : 2);
    if (wrong & SUFFIX)
        put_number(&trainer, 24, 1);
    if (wrong & EOS_BEYOND)
        put_number(&trainer, 42, 1000);
    put_number(&trainer, 43, UINT64_MAX); // pad_id -1
    put_bytes(&b, 2, trainer.at, trainer.n);
    if (wrong & CHARSMAP)
        put_bytes(&normal, 2, "\x01\x02", 2);
    put_number(&normal, 3, 1);
    put_number(&normal, 4, (wrong & EXTRA_BLANKS) != 0);
    if (wrong & NO_ESCAPE)
        put_number(&normal, 5, 0);
    put_bytes(&b, 3, normal.at, normal.n);
    free(trainer.at);
    free(normal.at);
    return b;
}

static void check_ids(const struct Tokenizer *t, const char *text, size_t n_expected, const uint32_t *expected) {
    uint32_t *ids;
    size_t n;
    CHECK(tokenizer_encode(t, text, strlen(text), 0, &ids, &n), "%s", fail_last());
    bool same = n == n_expected && memcmp(ids, expected, n * sizeof *ids) == 0;
    CHECK(same, "'%s': %zu ids, the first is %u", text, n, n ? ids[0] : 0);
    free(ids);
}

static void test_whole(void) {
    struct Bytes b = make_model(0, "<tool>", 0, USER);
    struct Tokenizer t;
    if (CHECK(tokenizer_open_model(&t, b.at, b.n, NULL, 0, "file.model"), "%s", fail_last())) {
        check_ids(&t, "ab", 1, (uint32_t[]){260});
        check_ids(&t, "aab", 3, (uint32_t[]){263, 261, 259}); // a blank, a, ab
        check_ids(&t, "a<tool>b", 4, (uint32_t[]){263, 261, 264, 262});
        check_ids(&t, "\x01", 2, (uint32_t[]){263, 4});
        CHECK(t.bos_id == 1 && t.eos_id == 2 && t.pad_id == TOKEN_NONE && t.add_bos && t.n_vocab == 265, "bos %u of %u",
              t.bos_id, t.n_vocab);
        tokenizer_free(&t);
    }
    free(b.at);
}

static void check_refused(struct Bytes b, const char *part) {
    struct Tokenizer t;
    bool opened = tokenizer_open_model(&t, b.at, b.n, NULL, 0, "file.model");
    CHECK(!opened && strstr(fail_last(), part) && strncmp(fail_last(), "file.model", 10) == 0, "'%s', expected '%s'",
          opened ? "taken" : fail_last(), part);
    if (opened)
        tokenizer_free(&t);
    free(b.at);
}

static struct Bytes raw(const void *data, size_t bytes) {
    struct Bytes b = {0};
    put(&b, data, bytes);
    return b;
}

static void test_T2_model_file(void) {
    fail_quiet(true);
    check_refused(make_model(LEAVE_OUT_A_BYTE, NULL, 0, 0), "there is no token <0x00>");
    check_refused(make_model(UNIGRAM, NULL, 0, 0), "type unigram is not known here");
    check_refused(make_model(CHARSMAP, NULL, 0, 0), "precompiled_charsmap");
    check_refused(make_model(EXTRA_BLANKS, NULL, 0, 0), "remove_extra_whitespaces");
    check_refused(make_model(SUFFIX, NULL, 0, 0), "treat_whitespace_as_suffix");
    check_refused(make_model(NO_ESCAPE, NULL, 0, 0), "escape_whitespaces");
    check_refused(make_model(EOS_BEYOND, NULL, 0, 0), "eos_id is 1000, but there are");
    check_refused(make_model(0, "x", 0, 7), "a type that is not known");
    check_refused(make_model(0, "x", 0, UNUSED), "of the type unused");
    check_refused(make_model(0, "ab", 0, NORMAL), "two tokens have the text 'ab'");
    check_refused(make_model(0, "ax", 0, NORMAL), "holds the character 'x', which is no token");
    check_refused(make_model(0, "aa", NAN, NORMAL), "score of token 264 is not finite");
    check_refused(make_model(0, "", 0, NORMAL), "empty");
    check_refused(make_model(0, "a\xff", 0, NORMAL), "no UTF-8");
    check_refused(raw("", 0), "holds no pieces");
    check_refused(raw("\x0a\x7f", 2), "longer than what is left");
    check_refused(raw("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), "longer than what is left");
    check_refused(raw("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11), "more than 64 bits");
    check_refused(raw("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12), "more than 64 bits");
    check_refused(raw("\x0b\x0b\x0b\x0c", 4), "of a kind that it does not have");
    check_refused(raw("\x02\x01", 2), "a field number");
    check_refused(raw("\x08\x01", 2), "of another kind");
    check_refused(raw("\x0a\x02\x0a\x05", 4), "longer than what is left");
    // Cut at every byte: refused, or, where a message ends there, whatever it is without what follows.
    struct Bytes whole = make_model(0, NULL, 0, 0);
    unsigned taken = 0;
    for (size_t n = 0; n < whole.n; n++) {
        struct Tokenizer t;
        uint8_t *exact = xmalloc(n ? n : 1); // so that a sanitizer sees a read behind the end
        memcpy(exact, whole.at, n);
        if (tokenizer_open_model(&t, exact, n, NULL, 0, "file.model")) {
            taken++;
            tokenizer_free(&t);
        }
        free(exact);
    }
    CHECK(taken == 0, "%u cut files are taken", taken); // the normalizer, which keeps extra blanks, comes last
    // Every bit turned: never a fault.
    for (size_t bit = 0; bit < whole.n * 8; bit += 3) {
        struct Tokenizer t;
        whole.at[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (tokenizer_open_model(&t, whole.at, whole.n, NULL, 0, "file.model")) {
            uint32_t *ids;
            size_t n;
            if (tokenizer_encode(&t, "ab a\xff", 5, TOKENIZE_SPECIAL, &ids, &n))
                free(ids);
            tokenizer_free(&t);
        }
        whole.at[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(whole.at);
    fail_quiet(false);
}

// "<0x-1>" and its like, which were once read as numbers.
static void test_T1_numbers(void) {
    static const char *const wrong[] = {"<0x-1>", "<0x+1>", "<0x 1>", "<0x1>",  "<0x001>", "<0xZZ>",
                                        "<0xa0>", "0x41",   "<0x41",  "[0x41>", "<1x41>",  "<0X41>",
                                        "<0x41]", "<0x4g>", "<0x/1>", "<0x:1>"};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_refused(make_model(0, wrong[i], 0, BYTE), "not of the form <0x41>");
    fail_quiet(false);
    struct Bytes b = make_model(0, NULL, 0, 0);
    struct Tokenizer t;
    if (CHECK(tokenizer_open_model(&t, b.at, b.n, NULL, 0, "file.model"), "%s", fail_last())) {
        char piece[4];
        CHECK(tokenizer_piece(&t, UINT32_MAX, piece, sizeof piece) == 0 &&
                  tokenizer_piece(&t, 1u << 31, NULL, 0) == 0 && !tokenizer_is_special(&t, UINT32_MAX),
              "ids beyond the vocabulary");
        char *text = tokenizer_decode(&t, (uint32_t[]){0xffffffff, 260, 0x80000000}, 3, true, NULL);
        CHECK(strcmp(text, "ab") == 0, "'%s'", text);
        free(text);
        tokenizer_free(&t);
    }
    free(b.at);
}

// ---- GGUF ----

static struct Bytes gguf;

static void put_key(const char *key, uint32_t type) {
    uint64_t n = strlen(key);
    put(&gguf, &n, 8);
    put(&gguf, key, n);
    put(&gguf, &type, 4);
}

static void put_array(const char *key, uint32_t type, const void *data, uint64_t count, size_t bytes) {
    put_key(key, GGUF_ARRAY);
    put(&gguf, &type, 4);
    put(&gguf, &count, 8);
    put(&gguf, data, bytes);
}

// The same vocabulary with scores of another type, or too few of them.
static bool open_gguf(struct Tokenizer *t, uint32_t score_type, uint64_t n_scores, int32_t last_type) {
    enum { N = 3 + 256 + 2 };
    struct Bytes tokens = {0};
    int32_t types[N];
    uint8_t scores[8 * N] = {0};
    for (unsigned i = 0; i < N; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i - 3);
        const char *token = i < 3      ? (const char *const[]){"<unk>", "<s>", "</s>"}[i]
                            : i < 259  ? text
                            : i == 259 ? "a"
                                       : "b";
        uint64_t n = strlen(token);
        put(&tokens, &n, 8);
        put(&tokens, token, n);
        types[i] = i == 0 ? UNKNOWN : i < 3 ? CONTROL : i < 259 ? BYTE : NORMAL;
    }
    types[N - 1] = last_type;
    gguf.n = 0;
    put(&gguf, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0", 24);
    put_key("general.architecture", GGUF_STRING);
    put(&gguf, "\5\0\0\0\0\0\0\0llama", 13);
    put_key("tokenizer.ggml.model", GGUF_STRING);
    put(&gguf, "\5\0\0\0\0\0\0\0llama", 13);
    put_array("tokenizer.ggml.tokens", GGUF_STRING, tokens.at, N, tokens.n);
    put_array("tokenizer.ggml.scores", score_type, scores, n_scores,
              n_scores * (score_type == GGUF_F32 || score_type == GGUF_I32 ? 4 : 1));
    put_array("tokenizer.ggml.token_type", GGUF_I32, types, N, sizeof types);
    free(tokens.at);
    struct Gguf g;
    if (!gguf_open_memory(&g, gguf.at, gguf.n, "file.gguf"))
        return false;
    bool ok = tokenizer_open_gguf(t, &g, "file.gguf");
    gguf_close(&g);
    return ok;
}

static void test_P5_typed_arrays(void) {
    struct Tokenizer t;
    if (CHECK(open_gguf(&t, GGUF_F32, 261, NORMAL), "%s", fail_last())) {
        check_ids(&t, "b", 4, (uint32_t[]){0xe2 + 3, 0x96 + 3, 0x81 + 3, 260}); // no piece for a blank
        tokenizer_free(&t);
    }
    fail_quiet(true);
    CHECK(!open_gguf(&t, GGUF_I8, 261, NORMAL) && strstr(fail_last(), "tokenizer.ggml.scores"), "'%s'", fail_last());
    CHECK(!open_gguf(&t, GGUF_I32, 261, NORMAL) && strstr(fail_last(), "tokenizer.ggml.scores"), "'%s'", fail_last());
    CHECK(!open_gguf(&t, GGUF_F32, 260, NORMAL) && strstr(fail_last(), "261 tokens, but 260 scores"), "'%s'",
          fail_last());
    CHECK(!open_gguf(&t, GGUF_F32, 261, 9) && strstr(fail_last(), "the type of token 260 is 9"), "'%s'", fail_last());
    CHECK(!open_gguf(&t, GGUF_F32, 261, BYTE) && strstr(fail_last(), "not of the form"), "'%s'", fail_last());
    CHECK(!open_gguf(&t, GGUF_F32, 261, UNUSED) && strstr(fail_last(), "of the type unused"), "'%s'", fail_last());
    fail_quiet(false);
    free(gguf.at);
}

// ---- Composition ----

static void test_nfc(void) {
    static const char *const pairs[][2] = {
        {"plain", "plain"},
        {"e\xcc\x81", "\xc3\xa9"}, // e, acute
        {"\xc3\xa9", "\xc3\xa9"},
        {"\xe2\x84\xab", "\xc3\x85"},                             // the Angstrom sign is A with a ring
        {"a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81"},            // acute, dot below: the dot is nearer
        {"\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"}, // Hangul of three
        {"\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"},             // of two and one
        {"\xe0\xa4\x95\xe0\xa4\xbc", "\xe0\xa4\x95\xe0\xa4\xbc"}, // excluded from composition
        {"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"},
        {"\xcc\x81"
         "e",
         "\xcc\x81"
         "e"},                            // a mark without a letter
        {"\xef\xac\x81", "\xef\xac\x81"}, // a ligature is no canonical matter
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t n;
        char *found = nfc_compose(pairs[i][0], strlen(pairs[i][0]), &n);
        CHECK(n == strlen(pairs[i][1]) && memcmp(found, pairs[i][1], n) == 0, "'%s' becomes '%s'", pairs[i][0], found);
        free(found);
    }
    size_t bytes = 400000, n; // a run of marks costs no more than in proportion
    char *marks = xmalloc(bytes + 1);
    for (size_t i = 0; i < bytes; i += 2)
        memcpy(marks + i, i % 4 ? "\xcc\xa3" : "\xcc\x81", 2);
    clock_t began = clock();
    free(nfc_compose(marks, bytes, &n));
    double took = (double)(clock() - began) / CLOCKS_PER_SEC;
    CHECK(n == bytes && took < 10, "%zu bytes in %.1f s", n, took);
    free(marks);
}

int main(void) {
    test_whole();
    test_T1_numbers();
    test_T2_model_file();
    test_P5_typed_arrays();
    test_nfc();
    return check_done();
}
