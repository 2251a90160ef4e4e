// The prompts of the first hundred published records of each of the nineteen tasks, their texts and DeepSeek's tokens of them, are those that
// tests/golden/prompts/make_prompts.py made by other means; kept are digests of them alone. The published files lie outside the repository:
// test_prompts DATA, a folder with the files of the benchmarks in eval/ and the vocabulary in tokenizer/; without them nothing can be compared.
#include "check.h"
#include "eval/run.h"
#include "model/gguf.h"
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 100, DIGEST = 32 }; // DIGEST: hexadecimal digits that are kept of a SHA-256

static void sha_texts(const struct Item *item, char hex[65]) {
    struct Sha256 sha;
    sha256_begin(&sha);
    for (uint32_t i = 0; i < (item->n_choices ? item->n_choices : 1); i++) {
        const char *prompt = item->contexts ? item->contexts[i] : item->prompt;
        const char *continuation = item->n_choices ? item->continuations[i] : "";
        sha256_add(&sha, prompt, strlen(prompt) + 1);
        sha256_add(&sha, continuation, strlen(continuation) + 1);
    }
    sha256_end(&sha, hex);
}

// The ids in decimal, a blank between two, a line for each prompt and each continuation.
static bool sha_tokens(const struct AnswerModel *m, const struct Item *item, char hex[65]) {
    struct Sha256 sha;
    bool ok = true;
    sha256_begin(&sha);
    for (uint32_t i = 0; ok && i < (item->n_choices ? item->n_choices : 1); i++) {
        struct TokenList lists[2];
        ok = answer_tokens(m, item, i, &lists[0], &lists[1]);
        for (int k = 0; k < 2; k++) {
            for (size_t t = 0; t < lists[k].n; t++) {
                char text[16];
                int bytes = snprintf(text, sizeof text, "%s%u", t ? " " : "", lists[k].ids[t]);
                sha256_add(&sha, text, (size_t)bytes);
            }
            sha256_add(&sha, "\n", 1);
            token_list_free(&lists[k]);
        }
    }
    sha256_end(&sha, hex);
    return ok;
}

// The next line of the digests, "TASK TEXTS TOKENS".
static void compare(const struct AnswerModel *m, const char *task, const struct Item *item, const char **at) {
    char name[32] = "", texts[DIGEST + 1] = "", tokens[DIGEST + 1] = "", hex[65];
    int bytes = 0;
    if (!CHECK(sscanf(*at, "%31s %32s %32s\n%n", name, texts, tokens, &bytes) == 3 && strcmp(name, task) == 0,
               "%s: %s is not in the digests", task, item->record.where))
        return;
    *at += bytes;
    sha_texts(item, hex);
    CHECK(strncmp(hex, texts, DIGEST) == 0, "%s: another text is asked: %s", task, item->record.where);
    CHECK(sha_tokens(m, item, hex) && strncmp(hex, tokens, DIGEST) == 0, "%s: the text has other tokens: %s", task,
          item->record.where);
}

static void test_task(const struct AnswerModel *m, const struct TaskSource *source, const char *dir, const char **at) {
    struct AskOptions o = {.dir = dir, .limit = RECORDS};
    struct Task task;
    struct Asked asked;
    if (!CHECK(task_parse(&task, source->text, source->bytes, source->name, source->name), "%s", fail_last()))
        return;
    if (CHECK(items_read(&asked, &task, &o), "%s: %s", source->name, fail_last())) {
        for (uint32_t g = 0; g < asked.n_groups; g++)
            for (uint32_t i = 0; i < asked.groups[g].n; i++)
                compare(m, source->name, &asked.groups[g].items[i], at);
        items_free(&asked);
    }
    task_free(&task);
}

static void test_data(const char *data, const char *vocabulary) {
    char *path = xsprintf("%s/tests/golden/prompts/digests.txt", VKMOE_SOURCE_DIR), *dir = path_join(data, "eval");
    char *text = NULL, hex[65], head[100];
    struct Gguf g;
    struct Tokenizer t;
    uint64_t bytes, vocabulary_bytes;
    uint8_t *whole = NULL;
    if (CHECK(file_read(path, 1 << 20, (uint8_t **)&text, &bytes) &&
                  file_read(vocabulary, 1 << 28, &whole, &vocabulary_bytes) && gguf_open(&g, vocabulary) &&
                  tokenizer_open_gguf(&t, &g, vocabulary),
              "%s", fail_last())) {
        struct AnswerModel m = {.tokenizer = &t};
        struct Sha256 sha;
        sha256_begin(&sha);
        sha256_add(&sha, whole, vocabulary_bytes);
        sha256_end(&sha, hex);
        snprintf(head, sizeof head, "tokenizer %s\n", hex);
        CHECK(strncmp(text, head, strlen(head)) == 0, "the digests are those of another vocabulary than %s", hex);
        const char *at = strchr(text, '\n') + 1;
        for (const struct TaskSource *s = TASKS; s->name; s++)
            test_task(&m, s, dir, &at);
        CHECK(*at == 0, "the digests know more records: %.60s", at);
        tokenizer_free(&t);
        gguf_close(&g);
    }
    free(text);
    free(whole);
    free(path);
    free(dir);
}

int main(int argc, char **argv) {
    const char *data = argc > 1 ? argv[1] : VKMOE_SOURCE_DIR "/../shared/data";
    char *vocabulary = path_join(data, "tokenizer/deepseek-llm/ggml-vocab-deepseek-llm.gguf");
    if (file_exists(vocabulary))
        test_data(data, vocabulary);
    else
        check_skip("the published records are not at hand: there is no %s", vocabulary);
    free(vocabulary);
    return check_done();
}
