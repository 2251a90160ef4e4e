// The input is a SentencePiece tokenizer.model and, behind "\n---\n", a text. A file that is taken must encode the text without a fault,
// give ids of its vocabulary, and the same again; decoded and encoded they must not get longer than the text's bytes allow.
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static void use(const struct Tokenizer *t, const char *text, size_t bytes) {
    for (unsigned flags = 0; flags < 16; flags += 3) {
        uint32_t *ids, *again;
        size_t n, n_again;
        if (!tokenizer_encode(t, text, bytes, flags, &ids, &n))
            continue;
        if (!tokenizer_encode(t, text, bytes, flags, &again, &n_again) || n != n_again ||
            (n && memcmp(ids, again, n * sizeof *ids) != 0))
            abort();
        if (n > 3 * bytes + 8) // a wrong byte becomes the three of U+FFFD
            abort();
        for (size_t i = 0; i < n; i++)
            if (ids[i] >= t->n_vocab ||
                (!(flags & TOKENIZE_SPECIAL) && !(i == 0 && flags & TOKENIZE_BOS) && tokenizer_is_special(t, ids[i])))
                abort();
        free(tokenizer_decode(t, ids, n, true, NULL));
        free(ids);
        free(again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char cut[] = "\n---\n", config[] = "{\"added_tokens_decoder\": {\"262\": {\"content\": \"<x>\"}}}";
    fail_quiet(true);
    const uint8_t *found = bytes ? memmem(data, bytes, cut, sizeof cut - 1) : NULL;
    size_t model = found ? (size_t)(found - data) : bytes;
    struct Tokenizer t;
    bool with = bytes % 2;
    if (tokenizer_open_model(&t, data, model, with ? config : NULL, with ? sizeof config - 1 : 0, "fuzz")) {
        if (found)
            use(&t, (const char *)found + sizeof cut - 1, bytes - model - (sizeof cut - 1));
        use(&t, "ab  ab<x>\xe4\xbd", 11);
        tokenizer_free(&t);
    }
    return 0;
}
