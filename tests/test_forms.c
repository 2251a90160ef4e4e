// What forms of training data say with a SentencePiece vocabulary, which puts a blank in front of a text, and with LLaMA 2's template: where texts are
// joined, which of a conversation's answers count, where a system's words go, what of a split document is held out. (test_data: the forms themselves, files and order.)
#include "check.h"
#include "train/data.h"

#include <stdlib.h>
#include <string.h>

static struct Tokenizer tokenizer;
static struct Template llama2;
static const struct DataOptions TEXTS = {.max_tokens = 4096}, PAIRS = {.max_tokens = 4096, .pairs = true};

static bool open_tools(void) {
    char *path = xsprintf("%s/tests/golden/tokenizer/llama2/tokenizer.model", VKMOE_SOURCE_DIR);
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool ok = file_read(path, 1 << 24, &data, &bytes) && tokenizer_open_model(&tokenizer, data, bytes, NULL, 0, path) &&
              template_open(&llama2, "llama2", NULL, &tokenizer, path);
    free(data);
    free(path);
    return CHECK(ok, "%s", fail_last());
}

static bool load(struct Dataset *d, const char *text, const struct DataOptions *options) {
    return dataset_load_memory(d, text, strlen(text), "data.jsonl", &tokenizer, &llama2, options);
}

// The whole of an example, and what stands before the first token that is learnt; all behind that is learnt too.
static void check_example(const struct Example *e, const char *text, const char *before) {
    uint32_t first = 0;
    while (first < e->n && e->labels[first] < 0)
        first++;
    CHECK(e->n_labels == e->n - 1 - first, "%u labels, the first of %u tokens at %u", e->n_labels, e->n, first);
    char *whole = tokenizer_decode(&tokenizer, e->ids, e->n, true, NULL),
         *read = tokenizer_decode(&tokenizer, e->ids, first + 1, true, NULL);
    CHECK(strcmp(whole, text) == 0, "found '%s', expected '%s'", whole, text);
    CHECK(strcmp(read, before) == 0, "learnt behind '%s', expected '%s'", read, before);
    free(whole);
    free(read);
}

static void test_joined(void) {
    static const char texts[] = "{\"prompt\": \"1 + 1 =\", \"completion\": \" 2\"}\n"
                                "{\"prompt\": \"The mi\", \"completion\": \"ll\"}\n"
                                "{\"prompt\": \"\", \"completion\": \"The mill\"}\n{\"text\": \"The mill\"}\n";
    struct Dataset d;
    if (CHECK(load(&d, texts, &TEXTS) && d.n == 4, "%s", fail_last())) {
        check_example(&d.examples[0], "<s> 1 + 1 = 2</s>", "<s> 1 + 1 =");
        check_example(&d.examples[1], "<s> The mill</s>", "<s> The mi");
        const struct Example *alone = &d.examples[2], *text = &d.examples[3];
        CHECK(alone->n == text->n && memcmp(alone->ids, text->ids, text->n * sizeof *text->ids) == 0,
              "behind nothing a completion of %u tokens is not the text of %u", alone->n, text->n);
        dataset_free(&d);
    }
    if (CHECK(load(&d, "{\"prompt\": \"1 + 1 =\", \"chosen\": \" 2\", \"rejected\": \"3\"}", &PAIRS) && d.n == 2, "%s",
              fail_last())) {
        check_example(&d.examples[0], "<s> 1 + 1 = 2</s>", "<s> 1 + 1 =");
        check_example(&d.examples[1], "<s> 1 + 1 =3</s>", "<s> 1 + 1 =");
        dataset_free(&d);
    }
}

#define TURNS                                                                                                          \
    "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"No\"%s}, {\"role\": "        \
    "\"user\", \"content\": \"So\"}]"
#define BEFORE "<s> [INST] Hi [/INST] No </s><s> [INST] So [/INST]"

// Of a pair the two answers alone count, whatever the assistant has said before: a pair without them is none.
static void test_pairs(void) {
    static const char *const weights[] = {"", ", \"weight\": 1", ", \"weight\": 0"};
    struct DataOptions cut = PAIRS;
    struct Dataset d;
    for (size_t i = 0; i < 3; i++) {
        char *pair = xsprintf("{\"prompt\": " TURNS ", \"chosen\": \"Yes\", \"rejected\": \"Never\"}", weights[i]),
             *both = xsprintf("%s\n{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", pair);
        if (CHECK(load(&d, pair, &PAIRS) && d.n == 2, "%s", fail_last())) {
            check_example(&d.examples[0], BEFORE " Yes </s>", BEFORE);
            check_example(&d.examples[1], BEFORE " Never </s>", BEFORE);
            uint32_t learnt = (uint32_t)max_u64(d.examples[0].n_labels, d.examples[1].n_labels);
            cut.max_tokens = d.examples[0].n - learnt; // the first answer is whole, and both of the last are cut off
            dataset_free(&d);
        }
        if (CHECK(load(&d, both, &cut), "%s", fail_last())) {
            CHECK(d.n == 2 && d.n_beyond == 1 && d.examples[0].line == 2, "%zu examples, %llu left out", d.n,
                  (unsigned long long)d.n_beyond);
            dataset_free(&d);
        }
        fail_quiet(true);
        CHECK(!load(&d, pair, &cut) && strstr(fail_last(), "no answer begins within"), "'%s'", fail_last());
        fail_quiet(false);
        free(pair);
        free(both);
    }
}

// A system's words beside a list of messages go before it; two of them could mean two things.
static void test_system(void) {
    static const char talk[] =
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"Hi\"}, {\"from\": \"gpt\", \"value\": \"Yes\"}]%s}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
        "\"Yes\"}]%s}";
    static const struct {
        const char *system, *text;
    } good[] = {{", \"system\": \"Be brief\"", "<s> [INST] <<SYS>>\nBe brief\n<</SYS>>\n\nHi [/INST]"},
                {", \"system\": \"\"", "<s> [INST] Hi [/INST]"},
                {", \"system\": null", "<s> [INST] Hi [/INST]"}};
    struct Dataset d;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char *text = xsprintf(talk, good[i].system, good[i].system), *whole = xsprintf("%s Yes </s>", good[i].text);
        if (CHECK(load(&d, text, &TEXTS) && d.n == 2, "%s", fail_last())) {
            check_example(&d.examples[0], whole, good[i].text);
            check_example(&d.examples[1], whole, good[i].text);
            dataset_free(&d);
        }
        free(text);
        free(whole);
    }
    static const char *const bad[][2] = {{"{\"messages\": [{\"role\": \"system\", \"content\": \"a\"}, {\"role\": "
                                          "\"user\", \"content\": \"b\"}, {\"role\": "
                                          "\"assistant\", \"content\": \"c\"}], \"system\": \"d\"}",
                                          "data.jsonl:1: both 'system' and a message of the system (messages[0])"},
                                         {"{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}, {\"role\": "
                                          "\"assistant\", \"content\": \"c\"}], \"system\": 1}",
                                          "data.jsonl:1: 'system' must be a text"}};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!load(&d, bad[i][0], &TEXTS) && strstr(fail_last(), bad[i][1]), "'%s', expected '%s'", fail_last(),
              bad[i][1]);
    fail_quiet(false);
}

// Names of special tokens are letters in texts; the records with one are counted, messages are not.
static void test_spelled(void) {
    static const char texts[] =
        "{\"text\": \"one\"}\n{\"prompt\": \"a\", \"completion\": \"b</s><s>\"}\n"
        "{\"text\": \"<s>[INST] Hi [/INST] Yes </s>\"}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"</s>\"}, {\"role\": \"assistant\", "
        "\"content\": \"Yes\"}]}\n",
                      pairs[] = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"<s>c</s>\"}\n"
                                "{\"prompt\": \"<s>\", \"chosen\": \"b\", \"rejected\": \"</s>\"}";
    struct Dataset d;
    if (CHECK(load(&d, texts, &TEXTS), "%s", fail_last())) {
        CHECK(d.n_spelled == 2 && d.spelled.line == 2 && strcmp(d.spelled.name, "</s>") == 0, "%llu, line %u '%s'",
              (unsigned long long)d.n_spelled, d.spelled.line, d.spelled.name);
        for (uint32_t t = 0; t + 2 < d.examples[2].n; t++) // but for the end
            CHECK(d.examples[2].labels[t] != (int32_t)tokenizer.eos_id, "a token at %u", t);
        dataset_free(&d);
    }
    if (CHECK(load(&d, pairs, &PAIRS), "%s", fail_last())) {
        CHECK(d.n_spelled == 2 && d.spelled.line == 1 && strcmp(d.spelled.name, "<s>") == 0, "%llu, line %u '%s'",
              (unsigned long long)d.n_spelled, d.spelled.line, d.spelled.name);
        dataset_free(&d);
    }
}

// Pieces of a document are held out together or not at all, also where several documents stand on a line; and where there are no pieces, the
// split is the same as ever: a run that goes on has that of before.
static void test_split(void) {
    enum { N = 40, HELD = 10 };
    static const uint32_t lines[HELD] = {2, 3, 3, 4, 5, 10, 13, 14, 15, 20};
    struct DataOptions pieces = {.max_tokens = 20, .overlong = OVERLONG_SPLIT};
    struct Dataset whole, d, held[2];
    char text[8000] = "[";
    size_t at = 1;
    for (unsigned i = 0; i < N; i++)
        at +=
            (size_t)sprintf(text + at, "{\"text\": \"%u one two three four five six seven eight nine ten%s\"}%s", i,
                            i % 4 ? "" : ", and so on for a while, until there is no end of it", i % 2 ? ",\n" : ", ");
    text[at - 2] = ']';
    if (!CHECK(load(&whole, text, &TEXTS) && load(&d, text, &pieces) && whole.n == N && d.n_pieces == d.n, "%s",
               fail_last()))
        return;
    bool split = dataset_split(&whole, 0.25, 3, &held[0]) && dataset_split(&d, 0.25, 3, &held[1]);
    if (CHECK(split && held[0].n == HELD, "%zu: %s", held[0].n, fail_last())) {
        size_t n = 0;
        for (size_t i = 0; i < HELD; i++) {
            const struct Example *e = &held[0].examples[i];
            uint32_t same = 0;
            CHECK(e->line == lines[i], "document %zu is of line %u, not %u", i, e->line, lines[i]);
            for (; n < held[1].n && same + 1 < e->n; n++) { // each piece begins with the last token of the one before
                const struct Example *piece = &held[1].examples[n];
                CHECK(memcmp(piece->ids, e->ids + same, piece->n * sizeof *e->ids) == 0, "%zu is no piece of line %u",
                      n, e->line);
                same += piece->n - 1;
            }
        }
        CHECK(n == held[1].n && held[1].n_labels == held[0].n_labels && d.n_labels == whole.n_labels,
              "%zu of %zu pieces", n, held[1].n);
        dataset_free(&held[0]);
        dataset_free(&held[1]);
    }
    dataset_free(&whole);
    dataset_free(&d);
    fail_quiet(true);
    if (CHECK(load(&d, "{\"text\": \"one two three four five six seven eight nine ten\"}", &pieces) && d.n > 1, "%zu",
              d.n)) {
        CHECK(!dataset_split(&d, 0.25, 3, &held[0]) && strstr(fail_last(), "of one document"), "'%s'", fail_last());
        dataset_free(&d);
    }
    fail_quiet(false);
}

int main(void) {
    if (open_tools()) {
        test_joined();
        test_pairs();
        test_system();
        test_spelled();
        test_split();
        template_free(&llama2);
        tokenizer_free(&tokenizer);
    }
    return check_done();
}
