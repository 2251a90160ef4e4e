// Files that end too early. Every prefix of a small sound file of each format is refused with one line that names the file, or is whole
// by its own right; how many are is known. (Adapters: test_adapter, for they need a device.) And a model that shrinks while it is converted
// leaves nothing behind.
#include "check.h"
#include "files.h"
#include "model/chatfile.h"
#include "model/ggufsplit.h"
#include "model/grammar.h"
#include "model/imatrix.h"
#include "model/modelwrite.h"
#include "model/template.h"
#include "model/template_parse.h"
#include "train/data.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct Tokenizer tokenizer; // of texts and templates
static struct Template chat;
static char dir[] = "test-prefixes-XXXXXX";

// ---- What opens, and closes again, a file of each format ----

static bool open_safetensors(const uint8_t *data, size_t bytes) {
    struct Safetensors s;
    bool ok = safetensors_open_memory(&s, data, bytes, "cut");
    if (ok)
        safetensors_close(&s);
    return ok;
}

static bool open_gguf(const uint8_t *data, size_t bytes) {
    struct Gguf g;
    bool ok = gguf_open_memory(&g, data, bytes, "cut");
    if (ok)
        gguf_close(&g);
    return ok;
}

// The second of two parts, beside a sound first one.
static bool open_part(const uint8_t *data, size_t bytes) {
    char *first = path_join(dir, "cut-00001-of-00002.gguf"), *second = path_join(dir, "cut-00002-of-00002.gguf");
    struct Gguf parts[2];
    uint32_t n = 0;
    bool ok = CHECK(file_write_atomic(second, data, bytes) && gguf_open(&parts[0], first) &&
                        ggufsplit_count(&parts[0], first, &n) && n == 2,
                    "%s", fail_last());
    fail("cut: nothing yet");
    ok = ok && ggufsplit_open(parts, 2, first);
    if (ok)
        gguf_close(&parts[1]);
    gguf_close(&parts[0]);
    free(first);
    free(second);
    return ok;
}

static bool open_tokenizer_json(const uint8_t *data, size_t bytes) {
    struct Tokenizer t;
    bool ok = tokenizer_open_json(&t, (const char *)data, bytes, NULL, 0, "cut");
    if (ok)
        tokenizer_free(&t);
    return ok;
}

static bool open_tokenizer_model(const uint8_t *data, size_t bytes) {
    struct Tokenizer t;
    bool ok = tokenizer_open_model(&t, data, bytes, NULL, 0, "cut");
    if (ok)
        tokenizer_free(&t);
    return ok;
}

static bool open_config(const uint8_t *data, size_t bytes) {
    struct Config c;
    return config_from_json(&c, (const char *)data, bytes, "cut");
}

static bool open_imatrix(const uint8_t *data, size_t bytes) {
    struct Imatrix m;
    bool ok = imatrix_open_memory(&m, data, bytes, "cut");
    if (ok)
        imatrix_close(&m);
    return ok;
}

static bool open_chat(const uint8_t *data, size_t bytes) {
    struct ChatFile f;
    bool ok = chatfile_open_memory(&f, data, bytes, "cut");
    if (ok)
        chatfile_close(&f);
    return ok;
}

static bool open_grammar(const uint8_t *data, size_t bytes) {
    struct Grammar g;
    bool ok = grammar_parse(&g, (const char *)data, bytes, "cut");
    if (ok)
        grammar_free(&g);
    return ok;
}

static bool open_template(const uint8_t *data, size_t bytes) {
    struct Template t = {0};
    char *text = memcpy(xcalloc(bytes + 1, 1), data, bytes);
    bool ok = template_parse(&t, text, bytes, &tokenizer, "cut");
    template_free(&t);
    free(text);
    return ok;
}

static bool open_data(const uint8_t *data, size_t bytes) {
    struct Dataset d;
    struct DataOptions options = {.max_tokens = 64};
    bool ok = dataset_load_memory(&d, (const char *)data, bytes, "cut", &tokenizer, &chat, &options);
    if (ok)
        dataset_free(&d);
    return ok;
}

// ---- Each prefix ----

static void check_prefixes(const char *what, bool (*open)(const uint8_t *, size_t), const uint8_t *data, size_t bytes,
                           size_t expected) {
    size_t whole = 0;
    for (size_t n = 0; n < bytes; n++) {
        uint8_t *part = memcpy(xmalloc(n), data, n); // of just that size: a sanitizer sees a read behind the end
        fail("none");
        if (open(part, n))
            whole++;
        else
            CHECK(strncmp(fail_last(), "cut", 3) == 0 && !strchr(fail_last(), '\n') && strlen(fail_last()) > 10,
                  "%s: %zu of %zu bytes: '%s'", what, n, bytes, fail_last());
        free(part);
    }
    CHECK(open(data, bytes), "%s: the whole file: %s", what, fail_last());
    CHECK(whole == expected, "%s: %zu of %zu prefixes are taken, %zu are whole", what, whole, bytes, expected);
}

// A file below tests/, up to `end` (NULL: all of it).
static void check_file(const char *name, bool (*open)(const uint8_t *, size_t), const char *end, size_t expected) {
    char *path = xsprintf("%s/tests/%s", VKMOE_SOURCE_DIR, name);
    uint8_t *data;
    uint64_t bytes;
    if (CHECK(file_read(path, 1 << 20, &data, &bytes), "%s", fail_last())) {
        const uint8_t *at = end ? memmem(data, bytes, end, strlen(end) ? strlen(end) : 1) : NULL;
        check_prefixes(name, open, data, at ? (size_t)(at - data) : bytes, expected);
        free(data);
    }
    free(path);
}

static void check_text(const char *what, bool (*open)(const uint8_t *, size_t), const char *text, size_t expected) {
    check_prefixes(what, open, (const uint8_t *)text, strlen(text), expected);
}

static void test_part(void) {
    char *paths[2] = {path_join(dir, "cut-00001-of-00002.gguf"), path_join(dir, "whole.gguf")};
    for (uint32_t i = 0; i < 2; i++) {
        struct GgufWriter w;
        gguf_writer_init(&w);
        gguf_writer_string(&w, "general.architecture", "llama");
        gguf_writer_u32(&w, "split.no", i);
        gguf_writer_u32(&w, "split.count", 2);
        gguf_writer_u32(&w, "split.tensors.count", 2);
        gguf_writer_tensor(&w, i ? "second" : "first", DT_F32, 1, (uint64_t[]){8});
        CHECK(gguf_writer_begin(&w, paths[i]) && gguf_writer_data(&w, (float[8]){1}, 32) && gguf_writer_end(&w), "%s",
              fail_last());
    }
    uint8_t *data;
    uint64_t bytes;
    if (CHECK(file_read(paths[1], 1 << 20, &data, &bytes), "%s", fail_last())) {
        char *second = path_join(dir, "cut-00002-of-00002.gguf");
        // Messages begin with the folder; what comes behind it is compared.
        for (size_t n = 0; n < bytes; n++)
            CHECK(!open_part(data, n) && strstr(fail_last(), "cut-00002-of-00002.gguf") && !strchr(fail_last(), '\n'),
                  "%zu of %zu bytes of a part: '%s'", n, (size_t)bytes, fail_last());
        CHECK(open_part(data, bytes), "%s", fail_last());
        unlink(second);
        free(second);
        free(data);
    }
    for (int i = 0; i < 2; i++) {
        unlink(paths[i]);
        free(paths[i]);
    }
}

static void test_chat(void) {
    char *path = xsprintf("%s/tests/seeds/fuzz_chatfile/talk", VKMOE_SOURCE_DIR);
    uint8_t *data;
    uint64_t bytes;
    if (CHECK(file_read(path, 1 << 20, &data, &bytes), "%s", fail_last())) {
        uint64_t sum = chatfile_checksum(data, bytes - 8);
        for (int i = 0; i < 8; i++)
            data[bytes - 8 + (uint64_t)i] = (uint8_t)(sum >> 8 * i);
        check_prefixes("a saved conversation", open_chat, data, bytes, 0);
        free(data);
    }
    free(path);
}

// ---- A model that shrinks (P7) ----

static enum DType all_f32(void *context, const struct WeightSpec *w) { return (void)context, (void)w, DT_F32; }

static bool ramp(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    uint64_t cols = w->dim[w->n_dims - 1];
    (void)context;
    for (uint64_t i = 0; i < count * cols; i++)
        ((float *)out)[i] = (float)(first * cols + i);
    return true;
}

static unsigned files_in(const char *path) {
    unsigned n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static void test_p7_nothing_half_written(void) {
    struct Config c;
    config_preset(&c, "tiny");
    c.dim = 32, c.n_heads = c.n_kv_heads = 2, c.head_dim = 16, c.hidden = 32, c.n_layers = 1, c.vocab_size = 16;
    c.bos_id = 1, c.eos_id[0] = 2;
    struct WeightSource source = {NULL, all_f32, ramp};
    struct WriteTypes types = {.type = DT_F32, .embed_type = DT_COUNT};
    char *path = path_join(dir, "model.gguf"), *gguf = path_join(dir, "out.gguf"), *hf = path_join(dir, "out");
    for (unsigned cut = 1; cut < 24; cut++) {
        struct ModelFile f;
        if (!CHECK(modelwrite_gguf(path, &c, &types, &source, NULL, "x") && modelfile_open(&f, path), "%s",
                   fail_last()))
            break;
        struct WeightSource files = modelfile_source(&f);
        uint64_t bytes = f.gguf->file.bytes;
        CHECK(truncate(path, (off_t)(bytes - bytes * cut / 32)) == 0, "truncate");
        CHECK(refused(modelwrite_gguf(gguf, &c, &types, &files, NULL, "x"), "when it was opened"), "P7: %s",
              fail_last());
        CHECK(refused(modelwrite_hf(hf, &c, DT_F32, &files, NULL, 5000), "when it was opened"), "P7: %s", fail_last());
        CHECK(files_in(dir) == 1, "P7: %u files beside the one that shrank to %u of 32", files_in(dir) - 1, 32 - cut);
        modelfile_close(&f);
        unlink(path);
    }
    free(path), free(gguf), free(hf);
}

int main(void) {
    fail_quiet(true);
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    char *path = xsprintf("%s/tests/golden/tokenizer/smollm/tokenizer.json", VKMOE_SOURCE_DIR);
    static const char config[] = "{\"bos_token\": \"<|im_start|>\", \"eos_token\": \"<|im_end|>\"}";
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    if (CHECK(file_read(path, 1 << 20, &text, &bytes) &&
                  tokenizer_open_json(&tokenizer, (char *)text, bytes, config, sizeof config - 1, path) &&
                  template_open(&chat, "chatml", NULL, &tokenizer, path),
              "%s", fail_last())) {
        check_file("seeds/fuzz_safetensors/metadata", open_safetensors, NULL, 0);
        check_file("seeds/fuzz_gguf/llama", open_gguf, NULL, 16); // the padding behind the last tensor may be short
        test_part();
        check_file("seeds/fuzz_tokenizer/gpt2", open_tokenizer_json, "", 0);
        check_file("seeds/fuzz_spm/plain", open_tokenizer_model, "\n---\n", 0);
        check_file("golden/deepseek-default/config.json", open_config, NULL, 1); // the last line end
        check_file("seeds/fuzz_imatrix/old", open_imatrix, NULL, 1);   // the first versions ended behind the entries
        check_file("seeds/fuzz_imatrix/gguf", open_imatrix, NULL, 24); // padding
        test_chat();
        // What ends behind an item or in the comment is a grammar, and a rule of nothing is one.
        check_text("a grammar", open_grammar, "root ::= \"a\" [b-d]+ item{2,3}\nitem ::= (\"x\" | root) # the end\n",
                   20);
        // Lines that end are whole files: from the answer on, with the line end and without.
        check_text("a template file", open_template,
                   "vkmoe-template 1 # a comment\nneeds \"<|im_end|>\"\nstart \"{bos}\"\nuser \"Q: {text:trim}\\n\"\n"
                   "prompt \"A:\"\nanswer \" {text}<|im_end|>\"\nafter \"\\n\"\nalternate\n",
                   5);
        check_text("training data", open_data,
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
                   "\"b\"}]}\n{\"prompt\": \"1\", \"completion\": \"2\"}\n{\"text\": \"the end\"}\n",
                   5);
        check_text("training data in an array", open_data, "[{\"text\": \"one\"},\n {\"text\": \"two\"}]\n", 1);
        test_p7_nothing_half_written();
        template_free(&chat);
        tokenizer_free(&tokenizer);
    }
    CHECK(rmdir(dir) == 0, "something is left in %s", dir);
    remove_tree(dir);
    free(text);
    free(path);
    return check_done();
}
