// Fuzz target: a grammar and, behind a 0 byte, a text. What is taken must match the text the same way byte by byte and at once, promise an
// end that is nearer after each forced byte, and mask a small vocabulary as single bytes say. An empty first part: the JSON grammar, whose
// texts jansson must read too.
#include "model/json.h"
#include "model/matcher.h"
#include "model/stops.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char VOCABULARY[] =
    "{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": "
    "\"BPE\", "
    "\"merges\": [], \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\\\"\": 3, \"{\": 4, \"}\": 5, \"{\\\"\": 6, \"1\": "
    "7, "
    "\"\xc3\x83\": 8, \"\xc2\xa9\": 9, \"\xc3\x83\xc2\xa9\": 10, \"aba\": 11, \":\": 12, \"}}\": 13}}}";

static void check_mask(struct Matcher *x, const struct Tokenizer *t) {
    uint32_t mask = 0;
    if (!matcher_mask(x, 1 << 29, &mask))
        return;
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        char piece[16];
        struct Matcher y;
        size_t n = tokenizer_piece(t, id, piece, sizeof piece);
        matcher_begin(&y, x->m);
        y.state = x->state;
        if (matcher_accept(&y, piece, n) != (mask >> id & 1))
            abort();
        matcher_end(&y);
    }
}

// Follows the text as far as it goes; true: all of it, and it may end there.
static bool follow(struct Matching *m, const struct Tokenizer *t, const char *text, size_t bytes) {
    struct Matcher x, whole;
    matcher_begin(&x, m);
    matcher_begin(&whole, m);
    bool ok = matcher_accept(&x, text, 0); // a grammar can be too ambiguous from the start
    for (size_t i = 0; ok && i < bytes; i++) {
        bool must_end = matcher_must_end(&x);
        if (i < 16)
            check_mask(&x, t);
        ok = matcher_accept(&x, text + i, 1);
        if (ok && must_end)
            abort();
    }
    if (matcher_accept(&whole, text, bytes) != ok)
        abort();
    ok = ok && matcher_may_end(&x);
    if (ok && matcher_rest(&x) != 0)
        abort();
    matcher_end(&whole);
    matcher_end(&x);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct Tokenizer t;
    fail_quiet(true);
    if (!t.n_vocab && !tokenizer_open_json(&t, VOCABULARY, sizeof VOCABULARY - 1, NULL, 0, "fuzz"))
        abort();
    const char *all = (const char *)data, *zero = bytes ? memchr(data, 0, bytes) : NULL;
    size_t n = zero ? (size_t)(zero - all) : bytes, rest = zero ? bytes - n - 1 : 0;
    struct Grammar g;
    bool json = n == 0;
    if (!grammar_parse(&g, json ? GRAMMAR_JSON : all, json ? strlen(GRAMMAR_JSON) : n, "fuzz"))
        return 0;
    struct Matching *m = matching_open(&g, &t, t.n_vocab, NULL, 0);
    bool met = follow(m, &t, zero ? zero + 1 : "", rest);
    if (json && met) {
        json_t *value = json_loadb(zero + 1, rest, JSON_ALLOW_NUL, NULL);
        if (!value)
            abort();
        json_decref(value);
    }
    matching_close(m);
    grammar_free(&g);
    return 0;
}
