// Chat templates: golden renderings of the published templates (tests/golden/templates), the ids of the whole text, masks, template
// files and what is wrong with them, and messages that do not fit.
#include "check.h"
#include "model/json.h"
#include "model/template.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

// ---- Tokenizers ----

static json_t *golden(const char *folder, const char *name, const char *file) {
    char *path = xsprintf("%s/tests/golden/%s/%s%s%s", VKMOE_SOURCE_DIR, folder, name, *name ? "/" : "", file);
    json_t *root = json_parse_file(path, 1 << 24);
    CHECK(root, "%s: %s", path, fail_last());
    free(path);
    return root;
}

// A golden vocabulary with the control tokens of all families.
static bool open_with_tokens(struct Tokenizer *t, const char *name, const char *bos, const char *eos) {
    static const char *const tokens[] = {"<s>",
                                         "</s>",
                                         "<|begin_of_text|>",
                                         "<|start_header_id|>",
                                         "<|end_header_id|>",
                                         "<|eot_id|>",
                                         "<|im_start|>",
                                         "<|im_end|>",
                                         "<|endoftext|>",
                                         "<|EOT|>",
                                         "<｜User｜>",
                                         "<｜Assistant｜>",
                                         "<｜begin▁of▁sentence｜>",
                                         "<｜end▁of▁sentence｜>"};
    json_t *root = golden("tokenizer", name, "tokenizer.json"), *added = json_object_get(root, "added_tokens"), *one;
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    size_t i;
    json_int_t next = (json_int_t)json_object_size(vocab);
    json_array_foreach(added, i, one) if (json_integer_value(json_object_get(one, "id")) >= next) next++;
    for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++) {
        bool known = json_object_get(vocab, tokens[k]);
        json_array_foreach(added, i, one) known |=
            strcmp(json_string_value(json_object_get(one, "content")), tokens[k]) == 0;
        if (!known)
            json_array_append_new(added, json_pack("{s:I, s:s, s:b, s:b}", "id", next++, "content", tokens[k],
                                                   "special", 1, "normalized", 0));
    }
    char *text = json_dumps(root, 0),
         *config = xsprintf("{\"bos_token\": \"%s\", \"eos_token\": \"%s\", \"add_bos_token\": true}", bos, eos);
    bool ok = tokenizer_open_json(t, text, strlen(text), config, strlen(config), name);
    CHECK(ok, "%s", fail_last());
    free(text);
    free(config);
    json_decref(root);
    return ok;
}

// ---- Golden renderings ----

enum { MESSAGES_MAX = 8 };

static size_t read_messages(const json_t *list, struct Message out[MESSAGES_MAX]) {
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one) {
        const json_t *text = json_object_get(one, "content");
        out[i] = (struct Message){.text = json_string_value(text), .bytes = json_string_length(text)};
        CHECK(i < MESSAGES_MAX && role_find(json_string_value(json_object_get(one, "role")), &out[i].role), "a role");
    }
    return json_array_size(list);
}

// Ids in spans are those of the whole text; what is learnt are the answers.
static void check_ids(const struct Template *t, const struct Tokenizer *tokenizer, const struct Message *m, size_t n,
                      bool prompt, const char *text) {
    struct TokenList list = {0};
    uint32_t *whole = NULL;
    size_t n_whole = 0, answers = 0, ends = 0;
    CHECK(template_render(t, tokenizer, m, n, prompt, &list) &&
              tokenizer_encode(tokenizer, text, strlen(text), TOKENIZE_SPECIAL, &whole, &n_whole),
          "%s", fail_last());
    bool same = n_whole == list.n && memcmp(whole, list.ids, list.n * sizeof *whole) == 0;
    bool white = false; // an answer that begins with white space is cut off from its prompt
    for (size_t i = 0; i < n; i++)
        white |= m[i].role == ROLE_ASSISTANT && m[i].bytes && strchr(" \t\n", m[i].text[0]);
    CHECK(same || white, "%s: '%s': %zu tokens in spans, %zu as a whole", t->name, text, list.n, n_whole);
    for (size_t i = 0; i < n; i++)
        answers += m[i].role == ROLE_ASSISTANT;
    for (size_t i = 0; i < list.n; i++)
        ends += list.trained[i] && list.ids[i] == t->turn_id;
    CHECK(ends == answers, "%s: %zu ends of %zu answers are learnt", t->name, ends, answers);
    free(whole);
    token_list_free(&list);
}

static void check_case(const json_t *one, const struct Template *t, const struct Tokenizer *tokenizer) {
    struct Message m[MESSAGES_MAX];
    size_t n = read_messages(json_object_get(one, "messages"), m);
    const char *expected = json_string_value(json_object_get(one, "text"));
    bool prompt = json_is_true(json_object_get(one, "prompt"));
    char *found = template_text(t, tokenizer, m, n, prompt, NULL);
    // Refused here alone: a system's message behind the first, where the template gathers them or has no place for one.
    bool late = n > 1 && m[1].role == ROLE_SYSTEM, alone = n == 1 && m[0].role == ROLE_SYSTEM;
    // The first template of LLaMA 3 begins an answer even where none is asked for.
    if (strcmp(json_string_value(json_object_get(one, "template")), "llama3-first") == 0 && !prompt)
        expected = NULL, late = true;
    if (!found)
        CHECK(!expected || late || alone, "%s: refused: %s", t->name, fail_last());
    else if (expected)
        CHECK(strcmp(found, expected) == 0, "%s: found '%s', expected '%s'", t->name, found, expected);
    else
        CHECK(late, "%s: '%s' is refused by the published template", t->name, found);
    if (found && expected)
        check_ids(t, tokenizer, m, n, prompt, found);
    free(found);
}

static const char *vocabulary_of(const char *name) { // each family's own pre-tokenizer
    static const char *const families[][2] = {{"deepseek-coder", "deepseek-coder"},
                                              {"deepseek-v3", "deepseek-v3"},
                                              {"deepseek", "deepseek-llm"},
                                              {"llama3", "llama-bpe"},
                                              {"qwen2", "qwen2"},
                                              {"chatml", "smollm"}};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strncmp(name, families[i][0], strlen(families[i][0])) == 0)
            return families[i][1];
    return "llama2";
}

static void test_published(void) {
    json_t *cases = golden("templates", "", "cases.json"), *one;
    char last[64] = "", *jinja = NULL;
    struct Tokenizer tokenizer = {0};
    struct Template t = {0};
    size_t i, rendered = 0;
    bool open = false;
    fail_quiet(true);
    json_array_foreach(cases, i, one) {
        const char *name = json_string_value(json_object_get(one, "template"));
        if (strcmp(name, last) != 0) {
            if (open)
                template_free(&t), tokenizer_free(&tokenizer);
            snprintf(last, sizeof last, "%s", name);
            char *path = xsprintf("%s/tests/golden/templates/%s.jinja", VKMOE_SOURCE_DIR, name);
            uint64_t bytes;
            free(jinja);
            jinja = NULL;
            open = CHECK(file_read(path, 1 << 20, (uint8_t **)&jinja, &bytes) &&
                             open_with_tokens(&tokenizer, vocabulary_of(name),
                                              json_string_value(json_object_get(one, "bos")),
                                              json_string_value(json_object_get(one, "eos"))) &&
                             template_open(&t, NULL, jinja, &tokenizer, name),
                         "%s", fail_last());
            size_t n = strcspn(name, ".") > 6 && strstr(name, "first") ? 6 : strlen(name);
            const char *expected = strncmp(name, "qwen2", 5) == 0 && !strchr(name, '.') ? "chatml" : name;
            CHECK(!open || strncmp(t.name, expected, min_u64(n, strlen(expected))) == 0, "%s is taken for %s", name,
                  t.name);
            free(path);
        }
        if (open) {
            check_case(one, &t, &tokenizer);
            rendered++;
        }
    }
    fail_quiet(false);
    CHECK(rendered >= 264, "%zu renderings", rendered);
    if (open)
        template_free(&t), tokenizer_free(&tokenizer);
    free(jinja);
    json_decref(cases);
}

// ---- Template files ----

static const char HEAD[] = "vkmoe-template 1\n";

static bool open_text(struct Template *t, const char *text, const struct Tokenizer *tokenizer) {
    char *path = xsprintf("%s/test-template", VKMOE_BINARY_DIR);
    bool ok = file_write_atomic(path, text, strlen(text)) && template_open(t, path, NULL, tokenizer, "model");
    free(path);
    return ok;
}

static void test_file(void) {
    struct Tokenizer tokenizer;
    struct Template t;
    static const char text[] = "vkmoe-template 1   # a comment\n"
                               "\n"
                               "needs \"<|im_end|>\"  # one of them\n"
                               "start \"{bos}\\tBegin\"\r\n"
                               "system \"[{text:trim}]\"\n"
                               "user \"Q: \\{{text}}\\n\"\n"
                               "prompt \"A:\"\n"
                               "answer \" {text:trim-end}<|im_end|>\"\n"
                               "after \"\\\\\\\"\"\n"
                               "default-system \" usual \"";
    if (!open_with_tokens(&tokenizer, "smollm", "<s>", "</s>"))
        return;
    if (CHECK(open_text(&t, text, &tokenizer), "%s", fail_last())) {
        const struct Message talk[] = {{ROLE_USER, "one", 3, false, 0}, {ROLE_ASSISTANT, " two  ", 6, false, 0}};
        char *found = template_text(&t, &tokenizer, talk, 2, true, NULL);
        CHECK(strcmp(found, "<s>\tBegin[usual]Q: {one}\nA:  two<|im_end|>\\\"A:") == 0, "'%s'", found);
        check_ids(&t, &tokenizer, talk, 2, true, found);
        CHECK(strcmp(template_lead(&t), " ") == 0 && t.turn_id == tokenizer_find(&tokenizer, "<|im_end|>") &&
                  t.n_stop == 2 && t.stop[1] == tokenizer.eos_id,
              "lead '%s'", template_lead(&t));
        free(found);
        template_free(&t);
    }
    tokenizer_free(&tokenizer);
}

static void check_refused(const struct Tokenizer *tokenizer, const char *lines, const char *part) {
    struct Template t;
    char *text = xsprintf("%s%s", HEAD, lines);
    bool opened = open_text(&t, text, tokenizer);
    CHECK(!opened && strstr(fail_last(), part), "'%s': '%s', expected '%s'", lines, opened ? "taken" : fail_last(),
          part);
    if (opened)
        template_free(&t);
    free(text);
}

#define USER   "user \"{text}\"\n"
#define ANSWER "answer \"{text}{eos}\"\n"

// Bug class T3: what a model's template says is never executed, and a file of our own syntax has nothing to execute.
static void test_T3_refused_files(void) {
    struct Tokenizer tokenizer;
    struct Template t;
    if (!open_with_tokens(&tokenizer, "smollm", "<s>", "</s>"))
        return;
    fail_quiet(true);
    check_refused(&tokenizer, "", "the key user with a place {text} is missing");
    check_refused(&tokenizer, USER, "the key answer with a place {text} is missing");
    check_refused(&tokenizer, USER "answer \"{text}\\n\"", "must end with a token");
    check_refused(&tokenizer, USER "answer \"{eos}\"", "the key answer with a place");
    check_refused(&tokenizer, USER ANSWER USER, "line 4: this key stands in another line already");
    check_refused(&tokenizer, USER ANSWER "start \"{text}\"", "where there is none");
    check_refused(&tokenizer, USER ANSWER "system \"{system}{text}\"", "where there is none");
    check_refused(&tokenizer, USER ANSWER "system \"x\"", "the key system has no place {text}");
    check_refused(&tokenizer, USER ANSWER "first-user \"{text}\"", "needs the places {system} and {text}");
    check_refused(&tokenizer, "user \"{text.__class__}\"", "line 2: '{text.__class__}' is no place");
    check_refused(&tokenizer, "user \"{text\"", "a { without a }");
    check_refused(&tokenizer, "user {text}", "line 2: a text in double quotes");
    check_refused(&tokenizer, "user \"{text}", "has no end on its line");
    check_refused(&tokenizer, "user \"\\x41\"", "of escapes there are");
    check_refused(&tokenizer, "user \"{text}\" more", "does not end here");
    check_refused(&tokenizer, "users \"{text}\"", "there is no key 'users'");
    check_refused(&tokenizer, "needs \"<|eom|>\"", "needs the token <|eom|>");
    check_refused(&tokenizer, "alternate \"yes\"", "does not end here");
    CHECK(!open_text(&t, "{% for m in messages %}", &tokenizer) && strstr(fail_last(), "begins with the line"), "'%s'",
          fail_last());
    CHECK(!open_text(&t, "vkmoe-template 1\nuser \"\xff\"", &tokenizer) && strstr(fail_last(), "UTF-8"), "'%s'",
          fail_last());
    CHECK(!template_open(&t, "no-such", NULL, &tokenizer, "model") && strstr(fail_last(), "or file 'no-such'"), "'%s'",
          fail_last());
    static const char *const evil[] = {"{{ ''.__class__.__mro__[1].__subclasses__() }}",
                                       "{% for i in range(10**10) %}{{ i }}{% endfor %}",
                                       "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
                                       "{%",
                                       "{{'",
                                       "{{ 'a' + 'b'"};
    for (size_t i = 0; i < sizeof evil / sizeof *evil; i++)
        CHECK(!template_open(&t, NULL, evil[i], &tokenizer, "model") && strstr(fail_last(), "is not known here") &&
                  strstr(fail_last(), "fingerprint"),
              "'%s'", fail_last());
    fail_quiet(false);
    tokenizer_free(&tokenizer);
}

static void test_messages(void) {
    struct Tokenizer tokenizer;
    struct Template t;
    const struct Message user = {ROLE_USER, "u", 1, false, 0}, system = {ROLE_SYSTEM, "s", 1, false, 0},
                         answer = {ROLE_ASSISTANT, "a", 1, false, 0};
    const struct {
        const char *name;
        struct Message talk[2];
        size_t n;
        const char *part;
    } cases[] = {{"llama2", {user, user}, 2, "message 2: in the chat template llama2 user and assistant take turns"},
                 {"llama2", {answer}, 1, "message 1"},
                 {"llama2", {system}, 1, "stands in the user's"},
                 {"llama2", {user, system}, 2, "message 2 is the system's"},
                 {"deepseek-coder", {user, system}, 2, "message 2 is the system's"},
                 {"mistral", {system, user}, 2, "has no place for a system message"}};
    if (!open_with_tokens(&tokenizer, "llama2", "<s>", "</s>"))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct TokenList list = {0};
        if (!CHECK(template_open(&t, cases[i].name, NULL, &tokenizer, "model"), "%s", fail_last()))
            continue;
        fail_quiet(true);
        CHECK(!template_render(&t, &tokenizer, cases[i].talk, cases[i].n, false, &list) &&
                  strstr(fail_last(), cases[i].part),
              "%s: '%s'", cases[i].name, fail_last());
        CHECK(!template_text(&t, &tokenizer, cases[i].talk, cases[i].n, false, NULL), "%s", cases[i].name);
        fail_quiet(false);
        token_list_free(&list);
        template_free(&t);
    }
    tokenizer_free(&tokenizer);
}

int main(void) {
    test_published();
    test_file();
    test_T3_refused_files();
    test_messages();
    return check_done();
}
