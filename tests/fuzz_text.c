// Fuzz target: a text for vocabularies that are sound. The first byte chooses one of the golden ones (every published chain of patterns, and
// SentencePiece's kind) or an odd one, the second what is asked for. Ids must be of the vocabulary, the same again after another text, and give the text
// back; and a chat template must lay the text out as text and as ids alike.
#include "model/template.h"
#include "model/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char *const NAMES[] = {"gpt2",        "smollm",    "deepseek-llm", "deepseek-coder",
                                    "deepseek-v3", "llama-bpe", "qwen2",        "llama2"};
enum { N_NAMES = sizeof NAMES / sizeof *NAMES, N };
// Added tokens that take blanks along, one of them in the normalized text; a split that joins.
static const char ODD[] =
    "{\"added_tokens\": [{\"id\": 5, \"content\": \"<s>\", \"special\": true, \"lstrip\": true}, "
    "{\"id\": 6, \"content\": \"<so>\", \"rstrip\": true, \"normalized\": true}], \"pre_tokenizer\": {\"type\": "
    "\"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+$\"}, \"behavior\": "
    "\"MergedWithPrevious\"}, {\"type\": \"Digits\"}, {\"type\": \"ByteLevel\"}]}, \"decoder\": {\"type\": "
    "\"ByteLevel\"}, "
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\xc4\xa0\": 3, \"aba\": 4}, "
    "\"merges\": [\"a b\", \"ab a\"]}}";
static const char CONFIG[] = "{\"bos_token\": \"<｜begin▁of▁sentence｜>\", \"eos_token\": "
                             "\"<｜end▁of▁sentence｜>\", \"add_bos_token\": true}";
static const char SPM_CONFIG[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_bos_token\": true}";

static struct {
    struct Tokenizer tokenizer;
    struct Template chat;
} opened[N];

static void open_one(unsigned i) {
    char *path = xsprintf("%s/tests/golden/tokenizer/%s/tokenizer.json", VKMOE_SOURCE_DIR, i < N_NAMES ? NAMES[i] : "");
    const char *config = i + 1 < N_NAMES ? CONFIG : SPM_CONFIG;
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    if (i == N_NAMES) {
        config = "{\"eos_token\": \"<s>\"}";
        bytes = sizeof ODD - 1;
        text = memcpy(xmalloc(bytes), ODD, bytes);
    }
    if (!(text || file_read(path, 1 << 24, &text, &bytes)) ||
        !tokenizer_open_json(&opened[i].tokenizer, (char *)text, bytes, config, strlen(config), "fuzz") ||
        !template_open(&opened[i].chat, i % 2 ? "deepseek" : "plain", NULL, &opened[i].tokenizer, "fuzz")) {
        fprintf(stderr, "%s: %s\n", path, fail_last());
        abort();
    }
    free(text);
    free(path);
}

// The ids of a text give it back, unless it is normalized on the way, blanks go in front of its parts, or a byte has no token.
static void check_back(const struct Tokenizer *t, const char *text, size_t bytes, const uint32_t *ids, size_t n) {
    if (t == &opened[N_NAMES].tokenizer || t->spm || normalizer_has(&t->normalizer, NORMALIZE_NFC))
        return;
    size_t n_back, n_repaired;
    char *back = tokenizer_decode(t, ids, n, true, &n_back), *repaired = utf8_repair(text, bytes, &n_repaired);
    if (n_back != n_repaired || memcmp(back, repaired, n_back) != 0)
        abort();
    free(back);
    free(repaired);
}

static void check_stream(const struct Tokenizer *t, const uint32_t *ids, size_t n) {
    struct Detokenizer d = {0};
    size_t piece;
    for (size_t i = 0; i <= n; i++) {
        const char *out = i < n ? detokenizer_push(&d, t, ids[i], &piece) : detokenizer_flush(&d, &piece);
        if (!utf8_valid(out, piece, NULL))
            abort();
    }
    detokenizer_free(&d);
}

static void check_chat(const struct Template *chat, const struct Tokenizer *t, const char *text, size_t bytes) {
    const struct Message talk[] = {{ROLE_USER, text, bytes, false, 0}, {ROLE_ASSISTANT, text, bytes / 2, false, 0}};
    struct TokenList list = {0};
    template_render(chat, t, talk, 2, true, &list); // fails where added tokens overlap
    for (size_t i = 0; i < list.n; i++)
        if (list.ids[i] >= t->n_vocab || list.trained[i] > 1)
            abort();
    token_list_free(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    if (bytes < 2)
        return 0;
    unsigned which = data[0] % N, flags = data[1] % 16;
    const char *text = (const char *)data + 2;
    bytes -= 2;
    const struct Tokenizer *t = &opened[which].tokenizer;
    if (!t->n_vocab)
        open_one(which);
    uint32_t *ids, *others, *again;
    size_t n, n_others, n_again;
    if (!tokenizer_encode(t, text, bytes, flags, &ids, &n))
        return 0; // added tokens may overlap
    if (tokenizer_encode(t, text, bytes / 2, flags ^ TOKENIZE_SPECIAL, &others, &n_others))
        free(others);
    if (!tokenizer_encode(t, text, bytes, flags, &again, &n_again) || n != n_again ||
        (n && memcmp(ids, again, n * sizeof *ids) != 0))
        abort();
    size_t bos = flags & TOKENIZE_BOS ? 1 : 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= t->n_vocab ||
            (!(flags & TOKENIZE_SPECIAL) && i >= bos && ids[i] != t->unknown_id && tokenizer_is_special(t, ids[i])))
            abort();
    if (n > bos)
        check_back(t, text, bytes, ids + bos, n - bos);
    check_stream(t, ids, n);
    if (data[1] & 16)
        check_chat(&opened[which].chat, t, text, bytes);
    free(ids);
    free(again);
    return 0;
}
