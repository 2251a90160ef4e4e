// Training data: each form of line becomes the right tokens and labels, every bad line is told with its place, epochs are
// permutations, and packing neither loses, cuts nor mixes examples.
#include "check.h"
#include "train/pack.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"

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
        "\"input\": \"\", \"output\": \"Yes\", \"system\": \"Be brief.\", \"history\": [[\"A\", \"B\"]]}\n]\n \n";
    struct Dataset d;
    if (!CHECK(load(&d, text, sizeof text - 1, &OPTIONS), "%s", fail_last()))
        return;
    if (CHECK(d.n == 3, "%zu examples", d.n)) {
        check_example(&d.examples[0], BOS "User: Hi [\"{\n\nAssistant: Yes" EOS, " Yes" EOS);
        check_example(&d.examples[1], BOS "User: Add\n1, 2\n\nAssistant: 3" EOS, " 3" EOS);
        check_example(&d.examples[2], BOS "Be brief.\n\nUser: A\n\nAssistant: B" EOS "User: Hi\n\nAssistant: Yes" EOS,
                      " B" EOS " Yes" EOS);
        CHECK(d.examples[0].line == 2 && d.examples[1].line == 3 && d.examples[2].line == 7, "lines %u %u %u",
              d.examples[0].line, d.examples[1].line, d.examples[2].line);
    }
    dataset_free(&d);
    static const struct {
        const char *text, *part;
    } bad[] = {{"[]", "data.jsonl: no example in it"},
               {"[", "data.jsonl:1: an object of the array is expected"},
               {"[\n7]", "data.jsonl:2: an object of the array is expected"},
               {"[{\"text\": \"a\"}", "',' or ']'"},
               {"[{\"text\": \"a\"}\n{\"text\": \"b\"}]", "data.jsonl:2: ',' or ']' is expected"},
               {"[{\"text\": \"a\"},]", "an object of the array is expected"},
               {"[,{\"text\": \"a\"}]", "an object of the array is expected"},
               {"[\n\n{\"text\": \"a", "data.jsonl:3: the object that begins here has no end"},
               {"[{\"text\": \"a\"}]\nx", "data.jsonl:2: more text behind the array"},
               {"[{\"text\": \"a\"},\n{\"text\"]", "data.jsonl:2: "},
               {"[{\"text\": \"a\"},\n{\"text\": 7}]", "data.jsonl:2: 'text' must be a text"}};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!load(&d, bad[i].text, strlen(bad[i].text), &OPTIONS) && strstr(fail_last(), bad[i].part),
              "'%s': '%s', expected '%s'", bad[i].text, fail_last(), bad[i].part);
    fail_quiet(false);
}

// Published sets as they are, where they are at hand: as many examples as their files hold.
static void test_published(void) {
    static const struct {
        const char *file;
        size_t n;
    } sets[] = {{"alpaca_en_demo.json", 999},
                {"alpaca_zh_demo.json", 1000},
                {"lima.json", 1029},
                {"toy_chat_fine_tuning.jsonl", 0}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char *path = xsprintf("%s/../shared/data/sft/%s", VKMOE_SOURCE_DIR, sets[i].file);
        const char *paths[] = {path};
        struct Dataset d;
        if (!file_exists(path))
            check_skip("%s is not at hand", path);
        else if (CHECK(dataset_load(&d, paths, 1, &tokenizer, &deepseek, &OPTIONS), "%s", fail_last())) {
            CHECK(d.n + d.n_beyond > 0 && (sets[i].n == 0 || d.n + d.n_beyond == sets[i].n), "%s: %zu examples", path,
                  d.n);
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
    CHECK(d.n == 2 && d.n_cut == 2 && d.n_beyond == 1 && d.longest == 10,
          "%zu examples, %llu cut, %llu beyond, longest %u", d.n, (unsigned long long)d.n_cut,
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
#define USER            "{\"role\": \"user\", \"content\": \"Hi\"}"
#define SAID            "{\"role\": \"assistant\", \"content\": \"Yes\"}"

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
    BAD("{\"text\": \"a\0b\"}", "a 0 byte at column 12");
    BAD("{\"text\": \"a\xff\"}", "not UTF-8 at column 12 (byte 0xff)");
    BAD("{\"text\": \"\xed\xa0\x80\"}", "not UTF-8 at column 11");
    BAD("{\"prompt\": \"a\"}", "'completion' must be a text, and is missing");
    BAD("{\"completion\": \"a\"}", "'prompt' must be a text, and is missing");
    BAD("{\"prompt\": \"a\", \"completion\": \"\"}", "'completion' is empty");
    BAD("{\"prompt\": [" USER "], \"completion\": \"a\"}", "'prompt' must be a text");
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

// ---- Packing ----

static void check_micro(const struct MicroBatch *m, const struct Example *const *examples, const struct PackOptions *o,
                        unsigned *used) {
    uint32_t covered = 0, labels = 0;
    CHECK(m->n_tokens <= o->micro_tokens && m->n_tokens <= m->rows * m->seq_len &&
              m->n_tokens > (m->rows - 1) * m->seq_len,
          "%u tokens in %u rows", m->n_tokens, m->rows);
    for (uint32_t k = 0; k < m->n_documents; k++) {
        const struct PackedDocument *doc = &m->documents[k];
        const struct Example *e = examples[doc->example];
        used[doc->example]++;
        CHECK(doc->n == e->n && doc->first / m->seq_len == (doc->first + doc->n - 1) / m->seq_len &&
                  doc->first + doc->n <= m->n_tokens,
              "document %u of %u tokens at %u", k, doc->n, doc->first);
        bool right = true;
        for (uint32_t t = 0; t < doc->n; t++) {
            uint32_t i = doc->first + t;
            right = right && m->ids[i] == e->ids[t] && m->labels[i] == e->labels[t] && m->positions[i] == t &&
                    m->first[i] == doc->first && m->end[i] == doc->first + doc->n && m->document[i] == k;
        }
        CHECK(right, "document %u is not its example", k);
        covered += doc->n;
        labels += e->n_labels;
    }
    for (uint32_t i = 0; i < m->n_tokens; i++) {
        if (m->document[i] != PACK_PADDING)
            continue;
        covered++;
        CHECK(m->ids[i] == o->pad_id && m->labels[i] == -1 && m->positions[i] == 0 && m->first[i] == i &&
                  m->end[i] == i + 1,
              "padding at %u", i);
    }
    CHECK(covered == m->n_tokens, "%u of %u tokens belong to somebody: documents overlap or miss", covered,
          m->n_tokens);
    CHECK(labels == m->n_labels, "%u labels, %u counted", labels, m->n_labels);
}

static void check_plan(const struct Example *const *examples, size_t n, struct PackOptions o) {
    struct PackPlan p, q;
    unsigned *used = xcalloc(n, sizeof *used);
    uint64_t tokens = 0, labels = 0;
    if (!CHECK(pack_plan(&p, examples, n, &o) && pack_plan(&q, examples, n, &o), "%s", fail_last()))
        return;
    for (size_t i = 0; i < p.n; i++)
        check_micro(&p.micro[i], examples, &o, used);
    for (size_t i = 0; i < n; i++) {
        CHECK(used[i] == 1, "example %zu is packed %u times", i, used[i]);
        tokens += examples[i]->n;
        labels += examples[i]->n_labels;
    }
    CHECK(p.n_labels == labels && p.n_tokens - p.n_padding == tokens, "%llu labels, %llu tokens, %llu padding",
          (unsigned long long)p.n_labels, (unsigned long long)p.n_tokens, (unsigned long long)p.n_padding);
    bool same = p.n == q.n;
    for (size_t i = 0; same && i < p.n; i++)
        same = p.micro[i].n_tokens == q.micro[i].n_tokens &&
               memcmp(p.micro[i].ids, q.micro[i].ids, p.micro[i].n_tokens * sizeof(uint32_t)) == 0;
    CHECK(same, "two plans of one batch differ");
    // Two rows that are at most half full would have been one.
    uint32_t half_empty = 0;
    for (size_t i = 0; i < p.n; i++) {
        uint32_t *row_tokens = xcalloc(p.micro[i].rows, sizeof *row_tokens);
        for (uint32_t k = 0; k < p.micro[i].n_documents; k++)
            row_tokens[p.micro[i].documents[k].first / o.seq_len] += p.micro[i].documents[k].n;
        for (uint32_t r = 0; r < p.micro[i].rows; r++)
            half_empty += row_tokens[r] * 2 <= o.seq_len;
        free(row_tokens);
    }
    CHECK(half_empty <= 1, "%u rows are at most half full", half_empty);
    pack_free(&p);
    pack_free(&q);
    free(used);
}

static void test_packing(void) {
    struct Dataset d;
    if (!numbered(&d, 300))
        return;
    const struct Example **all = xmalloc(d.n * sizeof *all);
    for (size_t i = 0; i < d.n; i++)
        all[i] = &d.examples[i];
    const struct PackOptions options[] = {
        {64, 64, 1, 0},     {64, 256, 1, 0},     {64, 300, 2, 16}, {d.longest, d.longest, 1, 0},
        {4096, 8192, 1, 0}, {4096, 4096, 1, 64}, {33, 100, 1, 7}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        check_plan(all, d.n, options[i]);
        check_plan(all, 1, options[i]);
    }
    // Lengths that fill rows exactly leave no padding.
    struct Example half[4];
    uint32_t ids[32] = {0};
    int32_t labels[32];
    memset(labels, 0xff, sizeof labels);
    const struct Example *four[4];
    const uint32_t lengths[] = {10, 22, 25, 7};
    for (int i = 0; i < 4; i++) {
        half[i] = (struct Example){.ids = ids, .labels = labels, .n = lengths[i]};
        four[i] = &half[i];
    }
    struct PackPlan p;
    CHECK(pack_plan(&p, four, 4, &(struct PackOptions){32, 64, 0, 0}) && p.n == 1 && p.n_padding == 0, "%llu padding",
          (unsigned long long)p.n_padding);
    CHECK(p.micro[0].efficiency == 1 && p.micro[0].rows == 2 && p.micro[0].n_documents == 4, "efficiency %g",
          p.micro[0].efficiency);
    pack_free(&p);
    fail_quiet(true);
    CHECK(!pack_plan(&p, four, 4, &(struct PackOptions){24, 64, 0, 0}) && strstr(fail_last(), "25 tokens does not fit"),
          "'%s'", fail_last());
    CHECK(!pack_plan(&p, four, 4, &(struct PackOptions){64, 32, 0, 0}) && strstr(fail_last(), "cannot hold a row"),
          "'%s'", fail_last());
    CHECK(!pack_plan(&p, four, 0, &(struct PackOptions){64, 64, 0, 0}), "an empty batch");
    fail_quiet(false);
    free(all);
    dataset_free(&d);
}

int main(void) {
    if (open_tools()) {
        test_forms();
        test_other_forms();
        test_published();
        test_cut();
        test_bad_lines();
        test_files();
        test_order();
        test_batches();
        test_packing();
        template_free(&deepseek);
        tokenizer_free(&tokenizer);
    }
    return check_done();
}
