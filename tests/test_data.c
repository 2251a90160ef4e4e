// Training data: each form of line becomes the right tokens and labels, every bad line is told with its place, epochs are
// permutations. (test_packing: how they are packed.) Longer than other files because one tokenizer, one template and one way to load serve all forms.
#include "check.h"
#include "train/pack.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"

#define USER   "{\"role\": \"user\", \"content\": \"Hi\"}"
#define DENIED "{\"role\": \"assistant\", \"content\": \"No\"}"
#define SAID   "{\"role\": \"assistant\", \"content\": \"Yes\"}"

static struct Tokenizer tokenizer;
static struct Template deepseek;
static const struct DataOptions OPTIONS = {.max_tokens = 4096};

static bool open_tools(void) {
    static const char config[] = "{\"bos_token\": \"" BOS "\", \"eos_token\": \"" EOS "\", \"add_bos_token\": true}";
    char *path = xsprintf("%s/tests/golden/tokenizer/deepseek-llm/tokenizer.json", VKMOE_SOURCE_DIR);
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    bool ok = file_read(path, 1 << 24, &text, &bytes) &&
              tokenizer_open_json(&tokenizer, (char *)text, bytes, config, sizeof config - 1, path) &&
              template_open(&deepseek, "deepseek", NULL, &tokenizer, path);
    free(text);
    free(path);
    return CHECK(ok, "%s", fail_last());
}

static bool load(struct Dataset *d, const char *text, size_t bytes, const struct DataOptions *options) {
    return dataset_load_memory(d, text, bytes, "data.jsonl", &tokenizer, &deepseek, options);
}

// ---- Good lines ----

static void check_example(const struct Example *e, const char *text, const char *learnt) {
    uint32_t *labels = xmalloc(e->n * sizeof *labels);
    size_t n = 0;
    for (uint32_t t = 0; t < e->n; t++) {
        if (e->labels[t] < 0)
            continue;
        CHECK(t + 1 < e->n && (uint32_t)e->labels[t] == e->ids[t + 1], "label %d at %u is not the next token",
              e->labels[t], t);
        labels[n++] = (uint32_t)e->labels[t];
    }
    CHECK(n == e->n_labels && n > 0, "%zu labels, %u counted", n, e->n_labels);
    char *whole = tokenizer_decode(&tokenizer, e->ids, e->n, true, NULL),
         *said = tokenizer_decode(&tokenizer, labels, n, true, NULL);
    CHECK(strcmp(whole, text) == 0, "found '%s', expected '%s'", whole, text);
    CHECK(strcmp(said, learnt) == 0, "learnt '%s', expected '%s'", said, learnt);
    free(whole);
    free(said);
    free(labels);
}

static void test_forms(void) {
    static const char text[] =
        "\xef\xbb\xbf{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
        "\"Hello!\"}]}\r\n"
        "\r\n"
        "{\"prompt\": \"1 + 1 =\", \"completion\": \" 2\", \"id\": 7}\n"
        "   \n"
        "{\"text\": \"The mill \\ud83d\\ude00\"}";
    struct Dataset d;
    if (!CHECK(load(&d, text, sizeof text - 1, &OPTIONS), "%s", fail_last()))
        return;
    if (CHECK(d.n == 3, "%zu examples", d.n)) {
        check_example(&d.examples[0], BOS "User: Hi\n\nAssistant: Hello!" EOS, " Hello!" EOS);
        check_example(&d.examples[1], BOS "1 + 1 = 2" EOS, " 2" EOS);
        check_example(&d.examples[2], BOS "The mill \xf0\x9f\x98\x80" EOS, "The mill \xf0\x9f\x98\x80" EOS);
        CHECK(d.examples[0].line == 1 && d.examples[1].line == 3 && d.examples[2].line == 5, "lines %u %u %u",
              d.examples[0].line, d.examples[1].line, d.examples[2].line);
        CHECK(d.n_labels == d.examples[0].n_labels + d.examples[1].n_labels + d.examples[2].n_labels, "%llu labels",
              (unsigned long long)d.n_labels);
        // The end of sequence is learnt once a turn, and nothing of it is lost.
        for (size_t i = 0; i < 3; i++) {
            const struct Example *e = &d.examples[i];
            CHECK(e->labels[e->n - 2] == (int32_t)tokenizer.eos_id && e->labels[e->n - 1] == -1,
                  "example %zu ends with %d %d", i, e->labels[e->n - 2], e->labels[e->n - 1]);
        }
    }
    struct Dataset again, other;
    CHECK(load(&again, text, sizeof text - 1, &OPTIONS) && again.hash == d.hash, "the same data, another hash");
    fail_quiet(true);
    CHECK(!load(&other, text, sizeof text - 2, &OPTIONS), "a cut last line");
    CHECK(load(&other, text, strlen(text) - 10, &(struct DataOptions){.max_tokens = 4096, .skip_bad = true}) &&
              other.n == 2 && other.n_skipped == 1 && other.hash != d.hash,
          "%zu examples, %llu skipped", other.n, (unsigned long long)other.n_skipped);
    fail_quiet(false);
    dataset_free(&d);
    dataset_free(&again);
    dataset_free(&other);
}

// Other tools' forms say the same thing, in lines and in an array.
static void test_other_forms(void) {
    static const char text[] =
        "\xef\xbb\xbf[\r\n"
        "  {\"conversations\": [{\"from\": \"human\", \"value\": \"Hi [\\\"{\"}, {\"from\": "
        "\"gpt\", \"value\": \"Yes\"}]},\n"
        "  {\n    \"instruction\": \"Add\",\n    \"input\": \"1, 2\",\n    \"output\": \"3\"\n  "
        "} , {\"instruction\": \"Hi\", "
        "\"input\": \"\", \"output\": \"Yes\", \"system\": \"Be brief.\", \"history\": [[\"A\", \"B\"]]},\n"
        "{\"instruction\": \"Hi\", \"input\": null, \"output\": \"Yes\", \"system\": null, \"history\": null}\n]\n \n";
    struct Dataset d;
    if (!CHECK(load(&d, text, sizeof text - 1, &OPTIONS), "%s", fail_last()))
        return;
    if (CHECK(d.n == 4, "%zu examples", d.n)) {
        check_example(&d.examples[3], BOS "User: Hi\n\nAssistant: Yes" EOS, " Yes" EOS);
        check_example(&d.examples[0], BOS "User: Hi [\"{\n\nAssistant: Yes" EOS, " Yes" EOS);
        check_example(&d.examples[1], BOS "User: Add\n1, 2\n\nAssistant: 3" EOS, " 3" EOS);
        check_example(&d.examples[2], BOS "Be brief.\n\nUser: A\n\nAssistant: B" EOS "User: Hi\n\nAssistant: Yes" EOS,
                      " B" EOS " Yes" EOS);
        CHECK(d.examples[0].line == 2 && d.examples[1].line == 3 && d.examples[2].line == 7, "lines %u %u %u",
              d.examples[0].line, d.examples[1].line, d.examples[2].line);
        CHECK(d.examples[0].record == 1 && d.examples[3].record == 4, "records %u and %u", d.examples[0].record,
              d.examples[3].record);
    }
    dataset_free(&d);
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"[]", "data.jsonl: no example in it"},
        {"[", "data.jsonl:1 (record 1): an object of the array is expected"},
        {"[\n7]", "data.jsonl:2 (record 1): an object of the array is expected"},
        {"[{\"text\": \"a\"}", "',' or ']'"},
        {"[{\"text\": \"a\"}\n{\"text\": \"b\"}]", "data.jsonl:2: ',' or ']' is expected behind record 1"},
        {"[{\"text\": \"a\"},]", "an object of the array is expected"},
        {"[,{\"text\": \"a\"}]", "an object of the array is expected"},
        {"[\n\n{\"text\": \"a", "data.jsonl:3 (record 1): the object that begins here has no end"},
        {"[{\"text\": \"a\"}]\nx", "data.jsonl:2: more text behind the array"},
        {"[{\"text\": \"a\"},\n{\"text\"]", "data.jsonl:2 (record 2): "},
        {"[{\"text\": \"a\"}, {\"text\": \"b\"}, {\"text\": 7}]", "data.jsonl:1 (record 3): 'text' must be a text"}};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!load(&d, bad[i].text, strlen(bad[i].text), &OPTIONS) && strstr(fail_last(), bad[i].part),
              "'%s': '%s', expected '%s'", bad[i].text, fail_last(), bad[i].part);
    fail_quiet(false);
}

// TRL's prompts and completions of messages, names of keys in the other list, and an instruction of no words.
static void test_mixed_forms(void) {
    static const char text[] =
        "{\"prompt\": [" USER ", " SAID ", " USER
        "], \"completion\": [{\"role\": \"assistant\", \"content\": \"No\"}]}\n"
        "{\"prompt\": \"Hi\", \"completion\": [" SAID "]}\n"
        "{\"prompt\": [" USER "], \"completion\": \"Yes\"}\n"
        "{\"conversations\": [" USER ", {\"role\": \"gpt\", \"content\": \"Yes\"}]}\n"
        "{\"messages\": [{\"from\": \"human\", \"value\": \"Hi\"}, {\"from\": \"gpt\", \"value\": \"Yes\"}]}\n"
        "{\"instruction\": \"\", \"input\": \"Hi\", \"output\": \"Yes\"}\n";
    struct Dataset d;
    if (!CHECK(load(&d, text, sizeof text - 1, &OPTIONS), "%s", fail_last()))
        return;
    if (CHECK(d.n == 6 && !d.unused, "%zu examples, '%s' not read", d.n, d.unused)) {
        check_example(&d.examples[0], BOS "User: Hi\n\nAssistant: Yes" EOS "User: Hi\n\nAssistant: No" EOS, " No" EOS);
        for (size_t i = 1; i < d.n; i++)
            check_example(&d.examples[i], BOS "User: Hi\n\nAssistant: Yes" EOS, " Yes" EOS);
    }
    dataset_free(&d);
}

// Keys that no form reads are noted once; a record of two forms is read by --columns as the message says.
static void test_unused_keys(void) {
    static const char text[] =
        "{\"text\": \"a\", \"id\": 1, \"label\": 1, \"images\": [], \"system\": null}\n"
        "{\"messages\": [" USER ", " SAID "], \"source\": \"b\", \"id\": 2, \"tools\": \"[]\"}\n";
    struct Dataset d;
    if (CHECK(load(&d, text, sizeof text - 1, &OPTIONS), "%s", fail_last())) {
        CHECK(d.unused && strcmp(d.unused, "id, label, source") == 0, "'%s'", d.unused);
        dataset_free(&d);
    }
    static const char *const both[][2] = {
        {"{\"instruction\": \"Hi\", \"input\": \"\", \"output\": \"Yes\", \"text\": \"Below\"}",
         "both 'instruction' and 'text': it could mean two things; --columns "
         "instruction=instruction,input=input,output=output reads the first alone"},
        {"{\"prompt\": \"Hi\", \"messages\": [" USER ", " SAID "]}",
         "both 'messages' and 'prompt': it could mean two things; --columns messages=messages reads the first alone"}};
    for (size_t i = 0; i < 2; i++) {
        fail_quiet(true);
        bool loaded = load(&d, both[i][0], strlen(both[i][0]), &OPTIONS);
        CHECK(!loaded && strstr(fail_last(), both[i][1]), "'%s'", fail_last());
        fail_quiet(false);
        struct Columns c;
        struct DataOptions options = {.max_tokens = 4096, .columns = &c};
        char *columns = xstrdup(strstr(both[i][1], "--columns ") + strlen("--columns "));
        *strchr(columns, ' ') = 0;
        if (CHECK(columns_parse(&c, columns) && load(&d, both[i][0], strlen(both[i][0]), &options), "%s",
                  fail_last())) {
            check_example(&d.examples[0], BOS "User: Hi\n\nAssistant: Yes" EOS, " Yes" EOS);
            dataset_free(&d);
        }
        columns_free(&c);
        free(columns);
    }
}

// The share of what steps compute that is tokens of examples, over an epoch with 16 examples a step.
static double packed_share(const struct Dataset *d, uint32_t context) {
    struct Batcher b;
    struct DataCursor cursor = {0};
    const struct PackOptions options = {.seq_len = context, .micro_tokens = context, .round = 32};
    uint64_t computed = 0;
    batcher_init(&b, d, 1);
    while (cursor.epoch == 0) {
        size_t n;
        struct PackPlan plan;
        const struct Example *const *batch = batcher_next(&b, &cursor, 16, &n);
        if (!CHECK(pack_plan(&plan, batch, n, &options), "%s", fail_last()))
            break;
        computed += plan.n_computed;
        pack_free(&plan);
    }
    batcher_free(&b);
    return (double)d->n_tokens / (double)computed;
}

// Published sets as they are, where they are at hand: as many examples as their files hold, and next to nothing computed in vain.
static void test_published(void) {
    static const struct {
        const char *file;
        size_t n;
    } sets[] = {{"alpaca_en_demo.json", 999}, {"alpaca_zh_demo.json", 1000},      {"identity.json", 91},
                {"lima.json", 1029},          {"toy_chat_fine_tuning.jsonl", 10}, {"v1_sft_demo.jsonl", 500}};
    static const uint32_t contexts[] = {1024, 4096};
    for (size_t i = 0; i < 2 * sizeof sets / sizeof *sets; i++) {
        char *path = xsprintf("%s/../shared/data/sft/%s", VKMOE_SOURCE_DIR, sets[i / 2].file);
        const char *paths[] = {path};
        struct DataOptions options = {.max_tokens = contexts[i % 2], .overlong = OVERLONG_SPLIT};
        struct Dataset d;
        if (!file_exists(path)) {
            if (i % 2)
                check_skip("%s is not at hand", path);
        } else if (CHECK(dataset_load(&d, paths, 1, &tokenizer, &deepseek, &options), "%s", fail_last())) {
            CHECK(d.n - d.n_pieces + d.n_overlong == sets[i / 2].n, "%s: %zu examples", path, d.n);
            double share = packed_share(&d, options.max_tokens);
            CHECK(share >= 0.98, "%s: %.4f at %u", path, share, options.max_tokens);
            dataset_free(&d);
        }
        free(path);
    }
}

static void test_cut(void) {
    static const char text[] = "{\"prompt\": \"1 2 3\", \"completion\": \" 4 5 6 7 8 9\"}\n"
                               "{\"prompt\": \"1 2 3 4 5 6 7 8 9 0 1 2 3\", \"completion\": \" 4\"}\n"
                               "{\"text\": \"1\"}\n";
    struct Dataset d;
    struct DataOptions options = {.max_tokens = 10};
    if (!CHECK(load(&d, text, sizeof text - 1, &options), "%s", fail_last()))
        return;
    CHECK(d.n == 2 && d.n_overlong == 2 && d.n_beyond == 1 && d.longest == 10,
          "%zu examples, %llu cut, %llu beyond, longest %u", d.n, (unsigned long long)d.n_overlong,
          (unsigned long long)d.n_beyond, d.longest);
    CHECK(d.examples[0].n == 10 && d.examples[0].labels[9] == -1, "a cut example ends with label %d",
          d.examples[0].labels[9]);
    dataset_free(&d);
    fail_quiet(true);
    options.max_tokens = 2;
    CHECK(!load(&d, text, strchr(text, '\n') - text, &options) && strstr(fail_last(), "within the first 2 tokens"),
          "'%s'", fail_last());
    fail_quiet(false);
}

// ---- Bad lines ----

static void check_bad(const char *line, size_t bytes, const char *part) {
    static const char good[] = "{\"text\": \"fine\"}\n";
    char *text = xmalloc(sizeof good + bytes + 1);
    memcpy(text, good, sizeof good - 1);
    memcpy(text + sizeof good - 1, line, bytes);
    struct Dataset d;
    bool loaded = load(&d, text, sizeof good - 1 + bytes, &OPTIONS);
    CHECK(!loaded && strncmp(fail_last(), "data.jsonl:2: ", 14) == 0 && strstr(fail_last(), part),
          "'%s': '%s', expected '%s'", line, loaded ? "taken" : fail_last(), part);
    if (loaded)
        dataset_free(&d);
    struct DataOptions skip = {.max_tokens = 4096, .skip_bad = true};
    if (CHECK(load(&d, text, sizeof good - 1 + bytes, &skip), "%s", fail_last())) {
        CHECK(d.n == 1 && d.n_skipped == 1, "%zu examples, %llu skipped", d.n, (unsigned long long)d.n_skipped);
        dataset_free(&d);
    }
    free(text);
}

#define BAD(line, part) check_bad(line, sizeof(line) - 1, part)

static void test_bad_lines(void) {
    fail_quiet(true);
    BAD("{\"text\": \"a\"", "");
    BAD("text", "");
    BAD("[{\"text\": \"a\"}]", "an object is expected");
    BAD("\"text\"", "an object is expected");
    BAD("{}", "none of {\"messages\"}");
    BAD("{\"question\": \"a\"}", "none of {\"messages\"}");
    BAD("{\"instruction\": \"a\"}", "'output' must be a text, and is missing");
    BAD("{\"instruction\": \"a\", \"output\": \"b\", \"input\": 7}", "'input' must be a text");
    BAD("{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"a\"]]}", "history[0] must be");
    BAD("{\"conversations\": [{\"from\": \"function_call\", \"value\": \"b\"}]}",
        "conversations[0]: the role 'function_call'");
    BAD("{\"text\": \"a\", \"messages\": []}", "both 'messages' and 'text'");
    BAD("{\"text\": 7}", "'text' must be a text");
    BAD("{\"text\": null}", "'text' must be a text");
    BAD("{\"text\": \"\"}", "nothing to learn");
    BAD("{\"text\": \"a\", \"text\": \"b\"}", "duplicate");
    BAD("{\"text\": \"\\ud800\"}", "\\uD800");
    BAD("{\"text\": \"a\\u0000\"}", "\\u0000");
    BAD("{\"text\": \"a\0b\"}", "a 0 byte at column 12 (is it UTF-16?");
    BAD("{\"text\": \"a\xff\"}", "not UTF-8 at column 12 (byte 0xff)");
    BAD("{\"text\": \"\xed\xa0\x80\"}", "not UTF-8 at column 11");
    BAD("{\"prompt\": \"a\"}", "'completion' must be a text, and is missing");
    BAD("{\"completion\": \"a\"}", "'prompt' must be a text, and is missing");
    BAD("{\"prompt\": \"a\", \"completion\": \"\"}", "'completion' is empty");
    BAD("{\"prompt\": [" USER ", " SAID "], \"completion\": [" USER "]}", "no message of the assistant counts");
    BAD("{\"prompt\": [], \"completion\": [" SAID "]}", "'prompt' must be an array of 1 to");
    BAD("{\"prompt\": [7], \"completion\": \"a\"}", "prompt[0] must be an object");
    // an answer of no words, in any form
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"\"}]}",
        "an answer of the assistant is empty");
    BAD("{\"instruction\": \"a\", \"output\": \"\"}", "an answer of the assistant is empty");
    BAD("{\"prompt\": [" USER "], \"completion\": \"\"}", "an answer of the assistant is empty");
    // what would change what a record means
    BAD("{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}", "'label' is not known here beside 'prompt'");
    BAD("{\"prompt\": \"a\", \"completion\": \"b\", \"system\": \"c\"}", "'system' is not known here beside 'prompt'");
    BAD("{\"text\": \"a\", \"system\": \"c\"}", "'system' is not known here beside 'text'");
    BAD("{\"text\": \"a\", \"weight\": 0.5}", "'weight' is not known here");
    BAD("{\"messages\": [" USER ", " SAID "], \"loss_weight\": 0.5}", "'loss_weight' is not known here");
    BAD("{\"messages\": [" USER ", " SAID "], \"images\": [\"a.png\"]}", "'images' is not known here");
    BAD("{\"text\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "a pair of answers: --loss dpo");
    BAD("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "a pair of answers: --loss dpo");
    BAD("{\"messages\": []}", "'messages' must be an array");
    BAD("{\"messages\": \"a\"}", "'messages' must be an array");
    BAD("{\"messages\": [7]}", "messages[0] must be an object");
    BAD("{\"messages\": [" USER "]}", "no message of the assistant");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\"}]}",
        "messages[1]: 'content' must be a text, and is missing");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": null}]}", "'content' must be a text");
    BAD("{\"messages\": [" USER ", {\"role\": \"tool\", \"content\": \"a\"}]}", "messages[1]: the role 'tool'");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": [1]}]}",
        "'tool_calls'");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [1]}]}",
        "messages[1]: 'tool_calls' is not known here");
    BAD("{\"messages\": [" USER ", " SAID "], \"tools\": [1]}", "'tools'");
    char deep[400];
    memset(deep, '[', sizeof deep);
    check_bad(deep, sizeof deep, "nested deeper");
    struct Dataset d;
    CHECK(!load(&d, "", 0, &OPTIONS) && strcmp(fail_last(), "data.jsonl: no example in it") == 0, "'%s'", fail_last());
    CHECK(!load(&d, "\n \r\n\n", 5, &OPTIONS) && strstr(fail_last(), "no example in it"), "'%s'", fail_last());
    CHECK(!load(&d, "7\n", 2, &(struct DataOptions){.max_tokens = 4096, .skip_bad = true}) &&
              strstr(fail_last(), "no example could be used"),
          "'%s'", fail_last());
    size_t bytes = 100000100;
    char *long_line = xmalloc(bytes);
    memset(long_line, 'x', bytes);
    CHECK(!load(&d, long_line, bytes, &OPTIONS) &&
              strstr(fail_last(), "data.jsonl:1: more than 100000000 bytes in one line"),
          "'%s'", fail_last());
    free(long_line);
    const char *missing = "no/such/file.jsonl";
    CHECK(!dataset_load(&d, &missing, 1, &tokenizer, &deepseek, &OPTIONS) && strstr(fail_last(), missing), "'%s'",
          fail_last());
    fail_quiet(false);
}

// ---- Files, order, batches ----

static void test_files(void) {
    char first[] = "test-data-XXXXXX", second[] = "test-data-XXXXXX";
    int a = mkstemp(first), b = mkstemp(second);
    static const char one[] = "{\"text\": \"one\"}\n{\"text\": \"two\"}", two[] = "\n\n{\"text\": \"three\"}\n";
    CHECK(write(a, one, sizeof one - 1) > 0 && write(b, two, sizeof two - 1) > 0, "write");
    close(a);
    close(b);
    const char *paths[] = {first, second};
    struct Dataset d;
    if (CHECK(dataset_load(&d, paths, 2, &tokenizer, &deepseek, &OPTIONS), "%s", fail_last())) {
        CHECK(d.n == 3 && d.examples[2].file == 1 && d.examples[2].line == 3 && d.examples[1].line == 2, "%zu examples",
              d.n);
        CHECK(d.n_paths == 2 && strcmp(d.paths[1], second) == 0, "paths");
        dataset_free(&d);
    }
    unlink(first);
    unlink(second);
}

static void test_order(void) {
    enum { N = 1000 };
    static uint32_t order[3][N];
    data_permute(order[0], N, 5, 0);
    data_permute(order[1], N, 5, 1);
    data_permute(order[2], N, 6, 0);
    for (int k = 0; k < 3; k++) {
        bool seen[N] = {false};
        size_t moved = 0, distinct = 0, other = 0;
        for (size_t i = 0; i < N; i++) {
            moved += order[k][i] != i;
            distinct += order[k][i] < N && !seen[order[k][i]];
            seen[order[k][i] % N] = true;
            other += order[k][i] != order[(k + 1) % 3][i];
        }
        CHECK(distinct == N && moved > N * 9 / 10 && other > N * 9 / 10, "%zu distinct, %zu moved, %zu others",
              distinct, moved, other);
    }
    uint32_t again[N];
    data_permute(again, N, 5, 1);
    CHECK(memcmp(again, order[1], sizeof again) == 0, "the same seed and epoch, another order");
}

static bool numbered(struct Dataset *d, unsigned n) {
    char *text = xcalloc(n, 64);
    size_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        at += (size_t)sprintf(text + at, "{\"text\": \"%u", i);
        for (unsigned j = 0; j < i % 12; j++)
            at += (size_t)sprintf(text + at, " go");
        at += (size_t)sprintf(text + at, "\"}\n");
    }
    bool ok = CHECK(load(d, text, at, &OPTIONS), "%s", fail_last());
    free(text);
    return ok;
}

static void test_batches(void) {
    struct Dataset d, held;
    if (!numbered(&d, 103))
        return;
    uint64_t before = d.hash;
    CHECK(dataset_split(&d, 0.1, 3, &held) && held.n == 10 && d.n == 93 && d.hash != before, "%zu and %zu", d.n,
          held.n);
    bool seen[104] = {false};
    for (size_t i = 0; i < d.n + held.n; i++) {
        uint32_t line = i < d.n ? d.examples[i].line : held.examples[i - d.n].line;
        CHECK(!seen[line], "line %u twice", line);
        seen[line] = true;
    }
    CHECK(batcher_steps_per_epoch(&d, 20) == 5, "%llu steps", (unsigned long long)batcher_steps_per_epoch(&d, 20));
    struct Batcher b;
    batcher_init(&b, &d, 9);
    struct DataCursor cursor = {0}, middle = {0};
    uint32_t lines[2][93];
    for (unsigned epoch = 0; epoch < 2; epoch++) {
        memset(seen, 0, sizeof seen);
        size_t at = 0;
        for (unsigned step = 0; step < 5; step++) {
            size_t n;
            if (epoch == 1 && step == 2)
                middle = cursor;
            const struct Example *const *batch = batcher_next(&b, &cursor, 20, &n);
            CHECK(n == (step < 4 ? 20u : 13u), "step %u has %zu examples", step, n);
            for (size_t i = 0; i < n; i++, at++) {
                CHECK(!seen[batch[i]->line], "line %u twice in an epoch", batch[i]->line);
                seen[batch[i]->line] = true;
                lines[epoch][at] = batch[i]->line;
            }
        }
        CHECK(at == 93 && cursor.epoch == epoch + 1 && cursor.next == 0, "%zu examples, then epoch %llu", at,
              (unsigned long long)cursor.epoch);
    }
    CHECK(memcmp(lines[0], lines[1], sizeof lines[0]) != 0, "both epochs have one order");
    // A resume needs the cursor alone.
    struct Batcher resumed;
    size_t n;
    batcher_init(&resumed, &d, 9);
    const struct Example *const *batch = batcher_next(&resumed, &middle, 20, &n);
    for (size_t i = 0; i < n; i++)
        CHECK(batch[i]->line == lines[1][40 + i], "resumed at line %u, not %u", batch[i]->line, lines[1][40 + i]);
    batcher_free(&resumed);
    batcher_free(&b);
    fail_quiet(true);
    struct Dataset none;
    CHECK(!dataset_split(&d, 0, 3, &none) && !dataset_split(&d, 1, 3, &none), "a split with an empty part");
    fail_quiet(false);
    dataset_free(&held);
    dataset_free(&d);
}

// ---- Files as people have them ----

static bool same_data(const struct Dataset *a, const struct Dataset *b) { return a->n == b->n && a->hash == b->hash; }

// A gzip member of the text, malloc'ed.
static char *zipped(const char *text, size_t bytes, size_t *out_bytes) {
    z_stream z = {0};
    size_t room = bytes + 1000;
    char *out = xmalloc(room);
    z.next_in = (Bytef *)text, z.avail_in = (uInt)bytes;
    z.next_out = (Bytef *)out, z.avail_out = (uInt)room;
    CHECK(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
              deflate(&z, Z_FINISH) == Z_STREAM_END,
          "zlib");
    *out_bytes = z.total_out;
    deflateEnd(&z);
    return out;
}

static void test_gzip(void) {
    struct Dataset plain, packed;
    if (!numbered(&plain, 5000))
        return;
    char *text = xcalloc(5000, 64);
    size_t at = 0, half = 0, n[2];
    for (unsigned i = 0; i < 5000; i++) {
        at += (size_t)sprintf(text + at, "{\"text\": \"%u", i);
        for (unsigned j = 0; j < i % 12; j++)
            at += (size_t)sprintf(text + at, " go");
        at += (size_t)sprintf(text + at, "\"}\n");
        half = i == 2345 ? at - 5 : half; // in the middle of a line
    }
    char *a = zipped(text, half, &n[0]), *b = zipped(text + half, at - half, &n[1]);
    a = xrealloc(a, n[0] + n[1] + 1);
    memcpy(a + n[0], b, n[1]);
    if (CHECK(load(&packed, a, n[0] + n[1], &OPTIONS), "%s", fail_last())) {
        CHECK(same_data(&plain, &packed), "two members are not their text: %zu examples", packed.n);
        dataset_free(&packed);
    }
    fail_quiet(true);
    CHECK(!load(&packed, a, n[0] + n[1] - 9, &OPTIONS) && strstr(fail_last(), "cut off"), "'%s'", fail_last());
    CHECK(!load(&packed, a, n[0] / 2, &OPTIONS) && strstr(fail_last(), "cut off"), "'%s'", fail_last());
    a[n[0] + n[1]] = 'x';
    CHECK(!load(&packed, a, n[0] + n[1] + 1, &OPTIONS), "a byte behind the last member");
    a[n[0] - 6] ^= 1; // the checksum
    CHECK(!load(&packed, a, n[0], &OPTIONS) && strstr(fail_last(), "are damaged"), "'%s'", fail_last());
    fail_quiet(false);
    free(a);
    free(b);
    free(text);
    dataset_free(&plain);
}

static bool load_csv(struct Dataset *d, const char *text, const struct DataOptions *options) {
    return dataset_load_memory(d, text, strlen(text), "data.CSV", &tokenizer, &deepseek, options);
}

static void test_csv(void) {
    struct Dataset d;
    if (CHECK(load_csv(&d,
                       "\xef\xbb\xbfid,prompt,\"completion\"\r\n1,\"a, \"\"b\"\"\r\n\",c\r\n\r\n2,,\" d\n e\"\r\n3,f,g",
                       &OPTIONS),
              "%s", fail_last())) {
        if (CHECK(d.n == 3, "%zu rows", d.n)) {
            check_example(&d.examples[0], BOS "a, \"b\"\r\nc" EOS, "c" EOS);
            check_example(&d.examples[1], BOS " d\n e" EOS, " d\n e" EOS);
            check_example(&d.examples[2], BOS "fg" EOS, "g" EOS);
            CHECK(d.examples[0].line == 2 && d.examples[1].line == 5 && d.examples[2].line == 7, "lines %u %u %u",
                  d.examples[0].line, d.examples[1].line, d.examples[2].line);
        }
        dataset_free(&d);
    }
    static const struct {
        const char *text, *part;
        bool stops; // --skip-bad cannot go on behind it
    } bad[] = {{"text,text\na,b\nc,d", "data.CSV:1 (the header): two columns are called 'text'", true},
               {"text,\na,b", "column 2 has no name", true},
               {"te\xff\na", "(the header): not UTF-8 at column 3", true},
               {"text\na\n\"b", "data.CSV:3: a quoted field", true},
               {"text\na\n\"b\"\"\n", "data.CSV:3: a quoted field", true},
               {"text\na\nb,c", "data.CSV:3: 2 fields where the header has 1", false},
               {"text\na\nb\"\"c\nd", "data.CSV:3: a quote within a field that is not quoted, at byte 2", false},
               {"text\na\n\"b\"c\nd", "data.CSV:3: text behind a quoted field, at byte 4", false},
               {"text\na\n\"\"\nd", "data.CSV:3: 'text' is empty", false},
               {"words,id\na,1", "and {\"text\"}; found are: words, id (--columns tells which is which)", true},
               {"text\n", "no example in it", true},
               {"", "no example in it", true}};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct DataOptions skip = {.max_tokens = 4096, .skip_bad = true};
        CHECK(!load_csv(&d, bad[i].text, &OPTIONS) && strstr(fail_last(), bad[i].part), "'%s': '%s', expected '%s'",
              bad[i].text, fail_last(), bad[i].part);
        bool skipped = load_csv(&d, bad[i].text, &skip);
        CHECK(skipped != bad[i].stops && (!skipped || d.n_skipped == 1), "'%s' with --skip-bad: %s", bad[i].text,
              skipped ? "read" : fail_last());
        if (skipped)
            dataset_free(&d);
    }
    fail_quiet(false);
}

// Tables of other kinds are told by their kind, not by the byte that is no JSON.
static void test_other_files(void) {
    static const struct {
        const char *path, *text, *part;
    } cases[] = {
        {"a.parquet", "PAR1\x15\x04", "a.parquet: a file of Parquet, which is not read: export it as JSON lines"},
        {"a.arrow", "ARROW1", "a.arrow: a file of Arrow, "},
        {"a.arrow", "\xff\xff\xff\xff\x01", "a file of Arrow's stream, "},
        {"a.tsv", "text\tid\na\t1", "a.tsv: values between tabs are not read"}};
    struct Dataset d;
    fail_quiet(true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(!dataset_load_memory(&d, cases[i].text, strlen(cases[i].text), cases[i].path, &tokenizer, &deepseek,
                                   &OPTIONS) &&
                  strstr(fail_last(), cases[i].part),
              "'%s', expected '%s'", fail_last(), cases[i].part);
    fail_quiet(false);
}

// A row may be long, but not of any number of fields: each takes memory, and names of columns are compared by pairs.
static void test_many_fields(void) {
    char *text = xcalloc(1, 5002);
    struct Dataset d;
    memset(text, ',', 5000);
    fail_quiet(true);
    CHECK(!load_csv(&d, text, &OPTIONS) && strstr(fail_last(), "more than 4096 fields"), "'%s'", fail_last());
    fail_quiet(false);
    free(text);
}

static void test_columns(void) {
    struct Columns c;
    struct DataOptions options = {.max_tokens = 4096, .columns = &c};
    struct Dataset d, want;
    static const char pair[] = "{\"question\": \"1 + 1 =\", \"answer\": \" 2\", \"text\": \"not this\"}";
    static const char talk[] =
        "{\"talk\": [{\"who\": \"user\", \"said\": \"Hi\"}, {\"who\": \"assistant\", \"said\": \"Yes\"}]}";
    static const char ours[] = "{\"messages\": [" USER ", " SAID "]}";
    if (CHECK(columns_parse(&c, "prompt=question,completion=answer") && load(&d, pair, strlen(pair), &options), "%s",
              fail_last())) {
        check_example(&d.examples[0], BOS "1 + 1 = 2" EOS, " 2" EOS);
        dataset_free(&d);
    }
    fail_quiet(true);
    CHECK(!load(&d, "{\"question\": \"a\"}", 17, &options) &&
              strstr(fail_last(), "data.jsonl:1: there is no 'answer', which --columns takes for 'completion'"),
          "'%s'", fail_last());
    fail_quiet(false);
    columns_free(&c);
    if (CHECK(columns_parse(&c, "messages=talk,role=who,content=said") && load(&d, talk, strlen(talk), &options) &&
                  load(&want, ours, strlen(ours), &OPTIONS),
              "%s", fail_last())) {
        CHECK(same_data(&d, &want), "other names, another example");
        dataset_free(&d);
        dataset_free(&want);
    }
    columns_free(&c);
    static const char *const bad[] = {"",           "prompt", "prompt=", "=a", "prompt=a,prompt=b", "question=prompt",
                                      "prompt=a,,", "a,b=c"};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!columns_parse(&c, bad[i]) && strstr(fail_last(), "--columns"), "'%s' is taken", bad[i]);
        columns_free(&c);
    }
    fail_quiet(false);
}

// Answers that are read and not learnt, in the spellings of others.
static void test_unlearnt(void) {
    static const char *const keys[] = {"\"weight\": 0", "\"mask\": false", "\"loss_weight\": 0.0"};
    for (size_t i = 0; i < 3; i++) {
        char *text = xsprintf("{\"messages\": [" USER
                              ", {\"role\": \"assistant\", \"content\": \"No\", %s}, {\"role\": \"user\", \"content\": "
                              "[{\"type\": \"text\", \"text\": \"So?\"}], \"weight\": 0}, {\"role\": \"assistant\", "
                              "\"content\": \"Yes\", \"weight\": 1}]}",
                              keys[i]);
        struct Dataset d;
        if (CHECK(load(&d, text, strlen(text), &OPTIONS), "%s", fail_last())) {
            check_example(&d.examples[0], BOS "User: Hi\n\nAssistant: No" EOS "User: So?\n\nAssistant: Yes" EOS,
                          " Yes" EOS);
            dataset_free(&d);
        }
        free(text);
    }
    fail_quiet(true);
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0}]}",
        "no message of the assistant counts: nothing to learn");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"weight\": -0.5}]}",
        "messages[1]: 'weight' must be a number of at least 0");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 1e39}]}",
        "messages[1]: 'weight' must be a number of at least 0");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"mask\": 0.5}]}",
        "messages[1]: 'mask' must be 0 or 1");
    BAD("{\"messages\": [{\"role\": \"system\", \"content\": \"a\", \"weight\": 0.5}, " SAID "]}",
        "only the assistant's messages can be learnt");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"mask\": \"1\"}]}",
        "messages[1]: 'mask' must be 0 or 1");
    BAD("{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"mask\": 1, \"weight\": 1}]}",
        "both 'weight' and 'mask'");
    BAD("{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"weight\": 1}, " SAID "]}",
        "only the assistant's messages can be learnt");
    BAD("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}, " SAID "]}",
        "one part of type text");
    BAD("{\"messages\": [{\"role\": \"user\", \"content\": []}, " SAID "]}", "one part of type text");
    fail_quiet(false);
}

// Every label has the weight of its message, in a cut example and in a store on disk too; where all are 1 nothing is kept, and the run is the same.
static void test_message_weights(void) {
    static const char form[] =
        "{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"No\", \"weight\": %s}, " USER
        ", {\"role\": \"assistant\", \"content\": \"Yes\", \"loss_weight\": %s}]}\n"
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
        "\"value\": \"b\", \"weight\": %s}]}\n{\"text\": \"one two\"}\n";
    struct Dataset plain, d;
    char *text = xsprintf(form, "1", "true", "1.0");
    if (!CHECK(load(&plain, text, strlen(text), &OPTIONS), "%s", fail_last()))
        return;
    for (size_t i = 0; i < plain.n; i++)
        CHECK(!plain.examples[i].weights, "example %zu has weights, all of them 1", i);
    CHECK(!plain.labels_weighted && plain.label_weight == (double)plain.n_labels, "weights %g", plain.label_weight);
    free(text);
    text = xsprintf(form, "2.5", "0.25", "3");
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        struct DataOptions options = OPTIONS;
        options.memory_bytes = on_disk ? 64 : 0;
        if (!CHECK(load(&d, text, strlen(text), &options) && d.n == 3, "%s", fail_last()))
            continue;
        CHECK(d.labels_weighted && d.hash != plain.hash && d.n_labels == plain.n_labels, "the weights do not count");
        double sum = 0;
        for (size_t i = 0; i < d.n; i++) {
            const struct Example *e = &d.examples[i], *p = &plain.examples[i];
            CHECK(!e->weights == (i == 2), "example %zu: weights where there are none, or none", i);
            bool right = memcmp(e->ids, p->ids, e->n * sizeof *e->ids) == 0 &&
                         memcmp(e->labels, p->labels, e->n * sizeof *e->labels) == 0;
            uint32_t answers = 0;
            for (uint32_t t = 0; t < e->n && e->weights; t++) {
                answers += e->labels[t] >= 0 && (t == 0 || e->labels[t - 1] < 0);
                right = right && e->weights[t] == (e->labels[t] < 0 ? 0 : i == 1 ? 3 : answers == 1 ? 2.5f : 0.25f);
            }
            CHECK(right && answers == (i == 0 ? 2u : i == 1 ? 1u : 0u), "example %zu: not its messages' weights", i);
            sum += example_weight(e);
        }
        CHECK(sum == d.label_weight && sum != (double)d.n_labels, "weights of %g, told as %g", sum, d.label_weight);
        dataset_free(&d);
    }
    free(text);
    dataset_free(&plain);
    static const char pair[] =
        "{\"prompt\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 2}, " USER
        "], \"chosen\": \"b\", \"rejected\": \"c\"}";
    struct DataOptions pairs = {.max_tokens = 4096, .pairs = true};
    fail_quiet(true);
    CHECK(!load(&d, pair, sizeof pair - 1, &pairs) && strstr(fail_last(), "--loss dpo compares whole answers"), "'%s'",
          fail_last());
    fail_quiet(false);
}

// However a long example is cut into pieces, each of its tokens is learnt exactly once.
static void test_overlong(void) {
    static const char text[] =
        "{\"prompt\": \"1 2 3\", \"completion\": \" 4 5 6 7 8 9 0 1 2 3 4 5\"}\n{\"text\": \"1\"}\n"
        "{\"text\": \"one two three four five six seven eight nine ten\"}\n";
    struct Dataset whole, d;
    if (!CHECK(load(&whole, text, sizeof text - 1, &OPTIONS), "%s", fail_last()))
        return;
    for (uint32_t max = 2; max < 24; max++) {
        struct DataOptions split = {.max_tokens = max, .overlong = OVERLONG_SPLIT},
                           drop = {.max_tokens = max, .overlong = OVERLONG_DROP};
        if (!CHECK(load(&d, text, sizeof text - 1, &split), "%s", fail_last()))
            continue;
        CHECK(d.n_labels == whole.n_labels && d.longest <= max, "%llu labels of %llu at %u tokens",
              (unsigned long long)d.n_labels, (unsigned long long)whole.n_labels, max);
        uint32_t line = 0, k = 0;
        bool right = true; // the labels in their order are those of the whole example
        for (size_t i = 0; i < d.n; i++) {
            const struct Example *e = &d.examples[i], *w = &whole.examples[e->line - 1];
            k = e->line == line ? k : 0;
            line = e->line;
            for (uint32_t t = 0; t < e->n; t++) {
                while (e->labels[t] >= 0 && k < w->n && w->labels[k] < 0)
                    k++;
                right = right && (e->labels[t] < 0 || (k < w->n && e->labels[t] == w->labels[k++]));
            }
        }
        CHECK(right, "other labels at %u tokens", max);
        size_t longer = 0;
        for (size_t i = 0; i < whole.n; i++)
            longer += whole.examples[i].n > max;
        CHECK(d.n_overlong == longer && d.n - d.n_pieces == whole.n - longer, "%llu overlong, %zu expected",
              (unsigned long long)d.n_overlong, longer);
        dataset_free(&d);
        fail_quiet(true);
        bool some = load(&d, text, sizeof text - 1, &drop);
        CHECK(some ? d.n == whole.n - longer && d.n_beyond == longer
                   : longer == whole.n && strstr(fail_last(), "every example is longer"),
              "dropped at %u tokens: %zu", max, d.n);
        fail_quiet(false);
        if (some)
            dataset_free(&d);
    }
    dataset_free(&whole);
}

// What does not fit in the memory that is allowed lies in a file, and is the same.
static void test_spilled(void) {
    struct Dataset d, file, held;
    struct DataOptions little = {.max_tokens = 4096, .memory_bytes = 1000};
    static char text[40000];
    size_t at = 0;
    for (unsigned i = 0; i < 300; i++)
        at += (size_t)sprintf(text + at, "{\"text\": \"%u %.*s\"}\n", i, (int)(i % 60),
                              "go go go go go go go go go go go go go go go go go go go go");
    if (CHECK(load(&d, text, at, &OPTIONS) && load(&file, text, at, &little), "%s", fail_last())) {
        CHECK(same_data(&d, &file) && file.store.mapped && !d.store.mapped, "%zu and %zu examples", d.n, file.n);
        CHECK(dataset_split(&file, 0.1, 3, &held) && held.n == 30, "%zu held out", held.n);
        for (size_t i = 0; i < held.n; i++) {
            const struct Example *a = &held.examples[i], *b = &d.examples[a->line - 1];
            CHECK(a->n == b->n && memcmp(a->ids, b->ids, a->n * sizeof *a->ids) == 0, "line %u is another", a->line);
        }
        dataset_free(&held);
    }
    dataset_free(&d);
    dataset_free(&file);
}

// A file of weight 2.5 is seen two or three times an epoch, one of 0.25 every fourth epoch, evenly; and a resume needs the cursor alone.
static void test_weights(void) {
    struct Dataset d, plain;
    double weights[] = {2.5, 0.25};
    if (!numbered(&plain, 60))
        return;
    d = plain;
    d.weights = weights;
    d.n_paths = 2;
    for (size_t i = 0; i < d.n; i++)
        d.examples[i].file = i >= 20;
    CHECK(batcher_examples_per_epoch(&d) == 50 + 10 && batcher_steps_per_epoch(&d, 16) == 4, "%zu an epoch",
          batcher_examples_per_epoch(&d));
    struct Batcher b, resumed;
    struct DataCursor cursor = {0};
    unsigned seen[61] = {0};
    batcher_init(&b, &d, 9);
    batcher_init(&resumed, &d, 9);
    for (unsigned step = 0; step < 4 * 4; step++) {
        size_t n, m;
        struct DataCursor again = cursor;
        const struct Example *const *batch = batcher_next(&b, &cursor, 16, &n);
        if (step % 3 == 2) { // as if the run began here
            batcher_free(&resumed);
            batcher_init(&resumed, &d, 9);
        }
        const struct Example *const *other = batcher_next(&resumed, &again, 16, &m);
        CHECK(n == m && n == (step % 4 == 3 ? 12u : 16u) && memcmp(batch, other, n * sizeof *batch) == 0,
              "step %u of a resumed run is another", step);
        for (size_t i = 0; i < n; i++)
            seen[batch[i]->line]++;
    }
    CHECK(cursor.epoch == 4 && cursor.next == 0, "epoch %llu", (unsigned long long)cursor.epoch);
    for (unsigned line = 1; line <= 60; line++)
        CHECK(seen[line] == (line <= 20 ? 10u : 1u), "line %u is seen %u times in 4 epochs", line, seen[line]);
    batcher_free(&b);
    batcher_free(&resumed);
    dataset_free(&plain);
}

// Chosen and rejected answers stay side by side, through cuts, a split and the order of an epoch.
static void test_pairs(void) {
    static const char text[] =
        "{\"prompt\": \"1 + 1 =\", \"chosen\": \" 2\", \"rejected\": \" 3\", \"score\": 1}\n"
        "{\"prompt\": [" USER "], \"chosen\": \"Yes\", \"rejected\": \"No\"}\n"
        // as TRL writes them: answers as lists, their prompt a list, a text, the turns that they begin with, or both of these
        "{\"prompt\": [" USER "], \"chosen\": [" SAID "], \"rejected\": [" DENIED "]}\n"
        "{\"prompt\": \"Hi\", \"chosen\": [" SAID "], \"rejected\": [" DENIED "]}\n"
        "{\"chosen\": [" USER ", " SAID "], \"rejected\": [" USER ", " DENIED "], \"prompt_id\": \"a\"}\n"
        "{\"prompt\": \"Hi\", \"chosen\": [" USER ", " SAID "], \"rejected\": [" USER ", " DENIED
        "], \"messages\": [7]}\n"
        "{\"chosen\": [" USER ", " SAID ", " USER ", " DENIED "], \"rejected\": [" USER ", " SAID ", " USER ", " SAID
        "]}\n";
    struct DataOptions options = {.max_tokens = 4096, .pairs = true};
    struct Dataset d, held;
    if (CHECK(load(&d, text, sizeof text - 1, &options) && d.n == 14 && dataset_groups(&d) == 7, "%s", fail_last())) {
        check_example(&d.examples[0], BOS "1 + 1 = 2" EOS, " 2" EOS);
        check_example(&d.examples[1], BOS "1 + 1 = 3" EOS, " 3" EOS);
        for (size_t i = 2; i < 12; i += 2) {
            check_example(&d.examples[i], BOS "User: Hi\n\nAssistant: Yes" EOS, " Yes" EOS);
            check_example(&d.examples[i + 1], BOS "User: Hi\n\nAssistant: No" EOS, " No" EOS);
        }
        check_example(&d.examples[12], BOS "User: Hi\n\nAssistant: Yes" EOS "User: Hi\n\nAssistant: No" EOS, " No" EOS);
        CHECK(d.unused && strcmp(d.unused, "score, prompt_id, messages") == 0, "'%s'", d.unused);
        dataset_free(&d);
    }
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}", "are equal: nothing to prefer"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\"}", "'rejected' must be a text"},
        {"{\"chosen\": \"a\", \"rejected\": \"b\"}", "'prompt' must be a text"},
        {"{\"prompt\": \"a\", \"chosen\": \"\", \"rejected\": \"b\"}", "'chosen' must be a text, and not an empty one"},
        {"{\"chosen\": \"a b\", \"rejected\": \"a c\"}",
         "'prompt' must be a text, and is missing: 'chosen' and 'rejected' are"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"label\": 1}", "'label' is not known here"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": [" SAID "]}", "must both be texts, or both lists"},
        {"{\"chosen\": [" USER ", " SAID "], \"rejected\": [" USER ", " DENIED ", " USER ", " SAID "]}",
         "lists of the same turns with one message"},
        {"{\"chosen\": [" SAID "], \"rejected\": [" DENIED "]}", "'prompt' must be a text, and is missing"},
        {"{\"prompt\": \"Ho\", \"chosen\": [" USER ", " SAID "], \"rejected\": [" USER ", " DENIED "]}",
         "both 'prompt' and turns that 'chosen' and 'rejected' begin with"},
        {"{\"prompt\": \"a\", \"chosen\": [" USER "], \"rejected\": [" DENIED "]}", "no message of the assistant"},
        {"{\"messages\": [" USER ", " SAID "]}", "--loss dpo learns from pairs"},
        {"[]", "no example in it"}};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!load(&d, bad[i].text, strlen(bad[i].text), &options) && strstr(fail_last(), bad[i].part),
              "'%s': '%s', expected '%s'", bad[i].text, fail_last(), bad[i].part);
    fail_quiet(false);
    static char many[8000];
    size_t at = 0, n;
    for (unsigned i = 0; i < 40; i++) // line 10 and each tenth behind it have a long answer
        at += (size_t)sprintf(many + at, "{\"prompt\": \"%u\", \"chosen\": \"yes\", \"rejected\": \"%s\"}\n", i,
                              i % 10 == 9 ? "no no no no no no no no no no no no" : "no");
    options.max_tokens = 10;
    options.overlong = OVERLONG_DROP;
    if (!CHECK(load(&d, many, at, &options) && d.n == 72 && d.n_beyond == 4 && d.n_overlong == 4 &&
                   dataset_split(&d, 0.25, 3, &held) && held.n == 18 && d.n == 54,
               "%zu: %s", d.n, fail_last()))
        return;
    struct Batcher b;
    struct DataCursor cursor = {0};
    bool seen[41] = {false};
    batcher_init(&b, &d, 9);
    for (unsigned step = 0; step < 3; step++) {
        const struct Example *const *batch = batcher_next(&b, &cursor, 10, &n);
        CHECK(n == (step < 2 ? 20u : 14u), "%zu examples", n);
        for (size_t i = 0; i < n; i += 2) {
            CHECK(batch[i] + 1 == batch[i + 1] && batch[i]->line == batch[i + 1]->line && !seen[batch[i]->line] &&
                      (batch[i] - d.examples) % 2 == 0,
                  "lines %u and %u", batch[i]->line, batch[i + 1]->line);
            seen[batch[i]->line] = true;
        }
    }
    CHECK(cursor.epoch == 1 && cursor.next == 0 && batcher_steps_per_epoch(&d, 10) == 3, "epoch %llu",
          (unsigned long long)cursor.epoch);
    batcher_free(&b);
    dataset_free(&held);
    dataset_free(&d);
}

// Documents of a plain text, with the line that each begins on. They end at the mark or, where the file has none, at blank lines; white space
// round them is none of them.
static void test_text(void) {
    static const struct {
        const char *text, *documents[4];
        uint32_t lines[4];
    } cases[] = {
        {"one\n\nstill one\n<|endoftext|>\n two <|end\n<|endoftext|><|endoftext|>\n\n<|endoftext|>three",
         {"one\n\nstill one", "two <|end", "three"},
         {1, 5, 8}},
        {"\r\n one\r\nof two lines\r\n \t\r\n\r\ntwo\n \n", {"one\r\nof two lines", "two"}, {2, 6}},
        {"{\"text\": 1}\n", {"{\"text\": 1}"}, {1}},
        {"\xef\xbb\xbf"
         "a<|endoftext|>",
         {"a"},
         {1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct Dataset d;
        size_t n = 0;
        if (!CHECK(
                dataset_load_memory(&d, cases[i].text, strlen(cases[i].text), "a.txt", &tokenizer, &deepseek, &OPTIONS),
                "case %zu: %s", i, fail_last()))
            continue;
        while (n < 4 && cases[i].documents[n])
            n++;
        if (CHECK(d.n == n, "case %zu: %zu documents of %zu", i, d.n, n))
            for (size_t k = 0; k < n; k++) {
                char *whole = xsprintf(BOS "%s" EOS, cases[i].documents[k]);
                check_example(&d.examples[k], whole, whole + strlen(BOS));
                CHECK(d.examples[k].line == cases[i].lines[k], "case %zu: document %zu on line %u", i, k,
                      d.examples[k].line);
                free(whole);
            }
        dataset_free(&d);
    }
    struct Dataset d;
    fail_quiet(true);
    CHECK(!dataset_load_memory(&d, " \n<|endoftext|>\n", 16, "a.txt", &tokenizer, &deepseek, &OPTIONS),
          "an empty text");
    CHECK(!dataset_load_memory(&d, "a\n\nb\xff", 5, "a.txt", &tokenizer, &deepseek, &OPTIONS) &&
              strstr(fail_last(), "a.txt:3: not UTF-8 at column 2"),
          "found '%s'", fail_last());
    CHECK(!dataset_load_memory(&d, "a\n\nb\0", 5, "a.txt", &tokenizer, &deepseek, &OPTIONS) &&
              strstr(fail_last(), "a.txt:3: a 0 byte at column 2"),
          "found '%s'", fail_last());
    CHECK(!dataset_load_memory(&d,
                               "\xff\xfe"
                               "a\0b\0",
                               6, "a.txt", &tokenizer, &deepseek, &OPTIONS) &&
              strcmp(fail_last(), "a.txt: begins as UTF-16; UTF-8 is expected") == 0,
          "found '%s'", fail_last());
    CHECK(!dataset_load_memory(&d, "a\n\0\nb", 5, "a.txt", &tokenizer, &deepseek, &OPTIONS) &&
              strstr(fail_last(), "a.txt:1: a 0 byte at column 3"),
          "%s", fail_last());
    fail_quiet(false);
}

int main(void) {
    if (open_tools()) {
        test_forms();
        test_other_forms();
        test_mixed_forms();
        test_unused_keys();
        test_published();
        test_cut();
        test_bad_lines();
        test_files();
        test_order();
        test_batches();
        test_gzip();
        test_csv();
        test_many_fields();
        test_other_files();
        test_text();
        test_columns();
        test_unlearnt();
        test_message_weights();
        test_overlong();
        test_spilled();
        test_weights();
        test_pairs();
        template_free(&deepseek);
        tokenizer_free(&tokenizer);
    }
    return check_done();
}
