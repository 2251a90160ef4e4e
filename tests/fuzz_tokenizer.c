// The input is a tokenizer.json and, behind a 0 byte, a text. A file that is taken must encode the text without a fault, give ids
// of its vocabulary, and the same ids again. With an empty first part a fixed vocabulary is used, so that texts get far.
#include "model/gguf.h"
#include "model/template.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char FIXED[] = "{\"added_tokens\": [{\"id\": 5, \"content\": \"<s>\", \"special\": true, \"lstrip\": "
                            "true}, {\"id\": 6, \"content\": "
                            "\"<so>\", \"rstrip\": true, \"normalized\": true}], \"pre_tokenizer\": {\"type\": "
                            "\"Sequence\", \"pretokenizers\": "
                            "[{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+$\"}, \"behavior\": "
                            "\"MergedWithPrevious\"}, {\"type\": \"Digits\"}, "
                            "{\"type\": \"ByteLevel\"}]}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
                            "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, "
                            "\"b\": 1, \"ab\": 2, \"\xc4\xa0\": 3, \"aba\": 4}, \"merges\": [\"a b\", \"ab a\"]}}";

static void use(const struct Tokenizer *t, const char *text, size_t bytes) {
    for (unsigned flags = 0; flags < 4; flags++) {
        uint32_t *ids, *again;
        size_t n, n_again;
        if (!tokenizer_encode(t, text, bytes, flags, &ids, &n))
            continue;
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
    }
    struct Template chat;
    if (template_open(&chat, bytes % 2 ? "deepseek" : "plain", NULL, t, "fuzz")) {
        const struct Message talk[] = {{ROLE_USER, text, bytes, false}, {ROLE_ASSISTANT, text, bytes / 2, false}};
        struct TokenList list = {0};
        template_render(&chat, t, talk, 2, true, &list);
        token_list_free(&list);
        template_free(&chat);
    }
}

// Opened once: most of the time would go there.
static const struct Tokenizer *fixed(void) {
    static struct Tokenizer t;
    static const char config[] = "{\"eos_token\": \"<s>\"}";
    if (!t.n_vocab && !tokenizer_open_json(&t, FIXED, sizeof FIXED - 1, config, sizeof config - 1, "fuzz"))
        abort();
    return &t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    const char *all = (const char *)data;
    const char *zero = bytes ? memchr(data, 0, bytes) : NULL;
    struct Tokenizer t;
    if (zero == all) {
        use(fixed(), all + 1, bytes - 1);
    } else if (zero) {
        if (tokenizer_open_json(&t, all, (size_t)(zero - all), NULL, 0, "fuzz")) {
            use(&t, zero + 1, bytes - (size_t)(zero - all) - 1);
            tokenizer_free(&t);
        }
    }
    struct Gguf g; // the same bytes as a GGUF vocabulary
    if (bytes > 4 && memcmp(data, "GGUF", 4) == 0 && gguf_open_memory(&g, data, bytes, "fuzz")) {
        if (tokenizer_open_gguf(&t, &g, "fuzz")) {
            use(&t, "abab <s>ab", 10);
            tokenizer_free(&t);
        }
        gguf_close(&g);
    }
    // And as a chat template's text.
    char *jinja = xmalloc(bytes + 1);
    if (bytes)
        memcpy(jinja, data, bytes);
    jinja[bytes] = 0;
    struct Template chat;
    if (template_open(&chat, NULL, jinja, fixed(), "fuzz"))
        template_free(&chat);
    free(jinja);
    return 0;
}
