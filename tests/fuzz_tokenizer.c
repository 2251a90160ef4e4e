// The input is a tokenizer.json and, behind a 0 byte, a text; or a GGUF vocabulary. A file that is taken must encode the text without a
// fault, give ids of its vocabulary, and the same ids again. (Texts for sound vocabularies: fuzz_text.)
#include "model/gguf.h"
#include "model/template.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { TEXT_MAX = 128 }; // what is behind it changes nothing but the time

// One encoding after another, so that what one leaves behind in scratch memory would change the next; the length chooses the flags.
static void use(const struct Tokenizer *t, const char *text, size_t bytes) {
    unsigned flags = bytes % 4;
    uint32_t *ids, *others, *again;
    size_t n, n_others, n_again;
    if (!tokenizer_encode(t, text, bytes, flags, &ids, &n))
        return;
    if (tokenizer_encode(t, text, bytes / 2, flags ^ TOKENIZE_SPECIAL, &others, &n_others))
        free(others);
    if (!tokenizer_encode(t, text, bytes, flags, &again, &n_again) || n != n_again ||
        (n && memcmp(ids, again, n * sizeof *ids) != 0))
        abort();
    struct Detokenizer d = {0};
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= t->n_vocab ||
            (!(flags & TOKENIZE_SPECIAL) && i > 0 && ids[i] != t->unknown_id && tokenizer_is_special(t, ids[i])))
            abort();
        detokenizer_push(&d, t, ids[i], NULL);
    }
    detokenizer_flush(&d, NULL);
    detokenizer_free(&d);
    free(tokenizer_decode(t, ids, n, true, NULL));
    free(ids);
    free(again);
    struct Template chat;
    if (bytes % 8 == 0 && template_open(&chat, bytes % 16 ? "deepseek" : "plain", NULL, t, "fuzz")) {
        const struct Message talk[] = {{ROLE_USER, text, bytes, false, 0}, {ROLE_ASSISTANT, text, bytes / 2, false, 0}};
        struct TokenList list = {0};
        template_render(&chat, t, talk, 2, true, &list);
        token_list_free(&list);
        template_free(&chat);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    const char *all = (const char *)data;
    const char *zero = bytes ? memchr(data, 0, bytes) : NULL;
    struct Tokenizer t;
    if (zero && tokenizer_open_json(&t, all, (size_t)(zero - all), NULL, 0, "fuzz")) {
        size_t n = bytes - (size_t)(zero - all) - 1;
        use(&t, zero + 1, n < TEXT_MAX ? n : TEXT_MAX);
        tokenizer_free(&t);
    }
    struct Gguf g;
    if (bytes > 4 && memcmp(data, "GGUF", 4) == 0 && gguf_open_memory(&g, data, bytes, "fuzz")) {
        if (tokenizer_open_gguf(&t, &g, "fuzz")) {
            use(&t, "abab <s>ab", 10);
            tokenizer_free(&t);
        }
        gguf_close(&g);
    }
    return 0;
}
