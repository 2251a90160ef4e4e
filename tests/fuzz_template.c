// The input is a template file of our own syntax, and the same bytes are a model's Jinja text. What is taken must render a few
// conversations as text and as ids that agree.
#include "model/template.h"
#include "model/template_parse.h"

#include <stdlib.h>
#include <string.h>

static const char VOCABULARY[] =
    "{\"added_tokens\": [{\"id\": 4, \"content\": \"<s>\", \"special\": true}, {\"id\": 5, \"content\": "
    "\"<|im_end|>\", "
    "\"special\": true}], \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": "
    "{\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"unk_token\": \"b\", \"vocab\": {\"a\": 0, \"b\": 1, "
    "\"ab\": 2, \"\xc4\xa0\": 3}, \"merges\": [\"a b\"]}}";
static const char CONFIG[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"<s>\", \"add_bos_token\": true}";

static void use(const struct Template *t, const struct Tokenizer *tokenizer) {
    static const struct Message talk[] = {{ROLE_SYSTEM, " a b ", 5, false, 0},
                                          {ROLE_USER, "ab<s>\n", 6, false, 0},
                                          {ROLE_ASSISTANT, " b", 2, false, 0},
                                          {ROLE_USER, "", 0, false, 0}};
    for (unsigned first = 0; first < 2; first++)
        for (unsigned n = 0; n + first <= 4; n++) {
            struct TokenList list = {0};
            char *text = template_text(t, tokenizer, talk + first, n, n % 2, NULL);
            bool ok = template_render(t, tokenizer, talk + first, n, n % 2, &list);
            if (ok != (text != NULL))
                abort();
            for (size_t i = 0; i < list.n; i++)
                if (list.ids[i] >= tokenizer->n_vocab || list.trained[i] > 1)
                    abort();
            free(text);
            token_list_free(&list);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct Tokenizer tokenizer;
    fail_quiet(true);
    if (!tokenizer.n_vocab &&
        !tokenizer_open_json(&tokenizer, VOCABULARY, sizeof VOCABULARY - 1, CONFIG, sizeof CONFIG - 1, "fuzz"))
        abort();
    char *text = xmalloc(bytes + 1);
    if (bytes)
        memcpy(text, data, bytes);
    text[bytes] = 0;
    struct Template t = {0};
    if (template_parse(&t, text, bytes, &tokenizer, "fuzz")) {
        t.name = xstrdup("fuzz");
        use(&t, &tokenizer);
    }
    template_free(&t);
    if (template_open(&t, NULL, text, &tokenizer, "fuzz")) {
        use(&t, &tokenizer);
        template_free(&t);
    }
    free(text);
    return 0;
}
