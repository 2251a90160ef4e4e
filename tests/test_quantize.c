// Whole files: Hugging Face, GGUF and back without a changed bit; values that must not become others; models in several GGUF files, sound
// and broken; importance matrices in both formats, and what they do to a model that is quantised.
#include "check.h"
#include "files.h"
#include "model/model.h"
#include "model/modelwrite.h"
#include "model/quant.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum DType random_type(void *context, const struct WeightSpec *w) {
    (void)context, (void)w;
    return DT_F32;
}

static bool random_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    uint64_t cols = w->dim[w->n_dims - 1], stream = hash_bytes(w->name, strlen(w->name), *(uint64_t *)context);
    for (uint64_t i = 0; i < count * cols; i++)
        ((float *)out)[i] = random_normal(3, stream, first * cols + i) * 0.05f;
    return true;
}

static struct Config small_config(void) {
    struct Config c;
    config_preset(&c, "tiny-moe");
    c.dim = 256, c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 64, c.hidden = 256, c.moe_hidden = 256, c.n_layers = 2;
    c.n_experts = 2, c.n_active = 1, c.n_shared = 1, c.first_dense = 1, c.vocab_size = 16, c.tied_head = false;
    c.bos_id = 1, c.eos_id[0] = 2, c.n_eos = 1;
    return c;
}

// Every weight of `f`, decoded, and of `g`: how many rows differ.
static uint64_t rows_that_differ(const struct ModelFile *f, const struct ModelFile *g) {
    uint64_t differ = 0;
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct FileTensor *a = &f->tensors[i], *b = modelfile_find(g, a->spec.name);
        if (!CHECK(b && b->type == a->type && b->n_rows == a->n_rows, "%s: another tensor", a->spec.name))
            continue;
        uint8_t *x = xmalloc(a->row_bytes), *y = xmalloc(a->row_bytes);
        for (uint64_t row = 0; row < a->n_rows; row++) {
            bool ok = modelfile_read_rows(f, a, row, 1, x) && modelfile_read_rows(g, b, row, 1, y);
            differ += !ok || memcmp(x, y, a->row_bytes) != 0;
        }
        free(x);
        free(y);
    }
    return differ;
}

// ---- There and back ----

static void test_round_trip(const char *dir, enum DType type) {
    struct Config c = small_config();
    uint64_t seed = 7;
    struct WeightSource source = {&seed, random_type, random_rows};
    char *hf = path_join(dir, "first"), *gguf = path_join(dir, "middle.gguf"), *back = path_join(dir, "last");
    struct WriteTypes types = {.type = type, .embed_type = DT_COUNT};
    struct ModelFile f, g;
    if (CHECK(modelwrite_hf(hf, &c, type, &source, NULL, 0) && modelfile_open(&f, hf), "%s", fail_last())) {
        struct WeightSource files = modelfile_source(&f);
        CHECK(modelwrite_gguf(gguf, &f.config, &types, &files, &f, "x"), "%s", fail_last());
        if (CHECK(modelfile_open(&g, gguf), "%s", fail_last())) {
            files = modelfile_source(&g);
            CHECK(modelwrite_hf(back, &g.config, type, &files, &g, 0), "%s", fail_last());
            modelfile_close(&g);
        }
        if (CHECK(modelfile_open(&g, back), "%s", fail_last())) {
            CHECK(rows_that_differ(&f, &g) == 0, "%s: bits change on the way", DTYPES[type].name);
            modelfile_close(&g);
        }
        modelfile_close(&f);
    }
    remove_tree(hf), remove_tree(back), unlink(gguf);
    free(hf), free(gguf), free(back);
}

// ---- Values that are none, or too large ----

static const char BAD_TENSOR[] = "model.layers.1.mlp.experts.up_proj.weight";
enum { BAD_ROW = 300, BAD_COLUMN = 200 };

struct BadValue {
    uint64_t seed;
    float value;
};

static bool bad_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    struct BadValue *bad = context;
    random_rows(&bad->seed, w, first, count, out);
    if (strcmp(w->name, BAD_TENSOR) == 0 && BAD_ROW >= first && BAD_ROW < first + count)
        ((float *)out)[(BAD_ROW - first) * w->dim[w->n_dims - 1] + BAD_COLUMN] = bad->value;
    return true;
}

static bool bad_refused(bool ok, const char *words) {
    return refused(ok, words) && refused(ok, BAD_TENSOR) && refused(ok, "(row 300, column 200)");
}

// A folder of f32 with the value: as it is on the device, refused where it would have to be of a type that does not hold it.
static void check_loads_not(const char *dir, const char *words, float value) {
    struct Device dev;
    struct Model m;
    struct ModelFile f;
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device: %s", fail_last());
        return;
    }
    static const enum DType TYPES[] = {DT_F32, DT_F16, DT_Q4_0, DT_Q4_K};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        struct ModelOptions o = {.type = TYPES[i]};
        if (!CHECK(modelfile_open(&f, dir), "%s", fail_last()))
            continue;
        bool ok = model_load(&m, &dev, &f, &o), taken = TYPES[i] == DT_F32 || (TYPES[i] == DT_Q4_K && value == 1e6f);
        CHECK(taken ? ok : bad_refused(ok, words), "%g as %s: %s", (double)value, DTYPES[TYPES[i]].name, fail_last());
        if (ok)
            model_free(&m);
        modelfile_close(&f);
    }
    device_close(&dev);
}

static void test_bad_values(const char *dir) {
    struct Config c = small_config();
    static const float VALUES[] = {NAN, -INFINITY, 1e6f};
    static const char *const TYPES[] = {"f16", "q4_0",
                                        "q4_k_s"}; // of each kind one; only the last one's blocks reach 1e6
    char *path = path_join(dir, "bad.gguf"), *hf = path_join(dir, "bad");
    for (size_t v = 0; v < 3; v++) {
        struct BadValue bad = {11, VALUES[v]};
        struct WeightSource source = {&bad, random_type, bad_rows};
        const char *words = v < 2 ? "holds a value that is not finite" : "holds a value too large for";
        for (size_t i = 0; i < 3; i++) {
            struct WriteTypes types = {.embed_type = DT_COUNT, .mix = i == 2 ? mix_find(TYPES[i]) : NULL};
            bool known = types.mix || dtype_find(TYPES[i], &types.type);
            bool ok = known && modelwrite_gguf(path, &c, &types, &source, NULL, "x"), taken = i == 2 && v == 2;
            CHECK(taken ? ok : bad_refused(ok, words), "%g as %s: %s", (double)bad.value, TYPES[i], fail_last());
            CHECK(ok == file_exists(path), "a refused model leaves a file");
            unlink(path);
        }
        CHECK(bad_refused(modelwrite_hf(hf, &c, DT_F16, &source, NULL, 0), words), "%s", fail_last());
        CHECK(!dir_exists(hf), "a refused model leaves a folder");
        // Bits that are copied stay what they are.
        CHECK(modelwrite_hf(hf, &c, DT_F32, &source, NULL, 0), "%s", fail_last());
        check_loads_not(hf, words, bad.value);
        remove_tree(hf);
    }
    free(path), free(hf);
}

// ---- Parts ----

struct Cut {
    uint32_t no, count, tensors; // what the part says of itself
    uint64_t first, end;         // tensors of the whole that are in it
};

static void write_part(const char *path, const struct Gguf *whole, const struct Cut *cut) {
    struct GgufWriter w;
    gguf_writer_init(&w);
    for (uint64_t i = 0; cut->no == 0 && i < whole->n_values; i++)
        gguf_writer_copy(&w, &whole->values[i]);
    gguf_writer_u32(&w, "split.no", cut->no);
    gguf_writer_u32(&w, "split.count", cut->count);
    gguf_writer_u32(&w, "split.tensors.count", cut->tensors);
    for (uint64_t i = cut->first; i < cut->end; i++)
        gguf_writer_tensor(&w, whole->tensors[i].name, whole->tensors[i].type, whole->tensors[i].n_dims,
                           whole->tensors[i].dim);
    bool ok = gguf_writer_begin(&w, path);
    for (uint64_t i = cut->first; ok && i < cut->end; i++) {
        uint8_t *data = xmalloc(whole->tensors[i].bytes);
        ok = gguf_read(whole, &whole->tensors[i], 0, whole->tensors[i].bytes, data) &&
             gguf_writer_data(&w, data, whole->tensors[i].bytes);
        free(data);
    }
    CHECK(ok && gguf_writer_end(&w), "%s", fail_last());
}

static struct Config qwen2_config(void) {
    struct Config c;
    config_preset(&c, "tiny");
    c.arch = ARCH_QWEN2, c.qkv_bias = true, c.n_layers = 1, c.vocab_size = 16, c.tied_head = false;
    c.bos_id = 1, c.eos_id[0] = 2, c.n_eos = 1;
    return c;
}

// Wherever it is cut in two, even before the first tensor or behind the last, a model stays the same: a head, biases and the embedding
// are looked for in all parts.
static void test_every_cut(const char *dir, const struct Config *c) {
    uint64_t seed = 9;
    struct WeightSource source = {&seed, random_type, random_rows};
    struct WriteTypes types = {.type = DT_F32, .embed_type = DT_COUNT};
    char *path = path_join(dir, "whole.gguf");
    char *part[2] = {path_join(dir, "c-00001-of-00002.gguf"), path_join(dir, "c-00002-of-00002.gguf")};
    struct Gguf whole;
    struct ModelFile f, g;
    bool there =
        modelwrite_gguf(path, c, &types, &source, NULL, "x") && gguf_open(&whole, path) && modelfile_open(&f, path);
    if (!CHECK(there, "%s", fail_last()))
        return;
    char *expected = config_to_json(&f.config, "float32");
    uint32_t n = (uint32_t)whole.n_tensors;
    for (uint32_t at = 0; at <= n; at++) {
        write_part(part[0], &whole, &(struct Cut){0, 2, n, 0, at});
        write_part(part[1], &whole, &(struct Cut){1, 2, n, at, n});
        if (CHECK(modelfile_open(&g, part[0]), "cut before tensor %u: %s", at, fail_last())) {
            char *config = config_to_json(&g.config, "float32");
            CHECK(strcmp(config, expected) == 0 && g.n_tensors == f.n_tensors, "cut before tensor %u: %s", at, config);
            CHECK(rows_that_differ(&f, &g) == 0, "cut before tensor %u: other weights", at);
            free(config);
            modelfile_close(&g);
        }
        unlink(part[0]), unlink(part[1]);
    }
    free(expected);
    modelfile_close(&f);
    gguf_close(&whole);
    unlink(path);
    free(path), free(part[0]), free(part[1]);
}

static void test_parts(const char *dir) {
    struct Config c = small_config();
    uint64_t seed = 8;
    struct WeightSource source = {&seed, random_type, random_rows};
    struct WriteTypes types = {.mix = mix_find("q4_k_m"), .embed_type = DT_COUNT};
    char *path = path_join(dir, "whole.gguf"), *part[3], *odd = path_join(dir, "odd.gguf");
    static const char *const NAMES[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};
    for (int i = 0; i < 3; i++)
        part[i] = path_join(dir, NAMES[i]);
    struct Gguf whole;
    struct ModelFile f, g;
    bool there =
        modelwrite_gguf(path, &c, &types, &source, NULL, "x") && gguf_open(&whole, path) && modelfile_open(&f, path);
    if (!CHECK(there, "%s", fail_last()))
        return;
    uint32_t n = (uint32_t)whole.n_tensors;
    const struct Cut cuts[3] = {{0, 3, n, 0, 0}, {1, 3, n, 0, n / 2}, {2, 3, n, n / 2, n}}; // the first: keys alone
    for (int i = 0; i < 3; i++)
        write_part(part[i], &whole, &cuts[i]);
    if (CHECK(modelfile_open(&g, part[0]) && g.n_shards == 3, "%s", fail_last())) {
        CHECK(rows_that_differ(&f, &g) == 0, "parts hold other weights than the whole");
        modelfile_close(&g);
    }
    CHECK(modelfile_open_config(&g, part[0]) && !g.vocab_only, "%s", fail_last());
    modelfile_close(&g);
    CHECK(refused(modelfile_open(&g, part[1]), "is part 2 of 3 of a model; give the first: "), "%s", fail_last());
    write_part(odd, &whole, &cuts[0]);
    CHECK(refused(modelfile_open(&g, odd), "its name must end in -00001-of-00003.gguf"), "%s", fail_last());
    static const struct {
        struct Cut cut; // in place of the third part
        const char *words;
    } BROKEN[] = {
        {{2, 3, 1000, 20, 21}, "with 1000 tensors in all; part 3 of 3"},
        {{1, 3, 0, 20, 21}, "is part 2 of 3"},
        {{2, 4, 0, 20, 21}, "is part 3 of 4"},
        {{2, 3, 0, 0, 2}, "it is a part of another model"},
        {{2, 3, 0, 20, 21}, "tensors; "},
        {{7, 3, 0, 20, 21}, "is part 8 of 3"},
    };
    for (size_t i = 0; i < sizeof BROKEN / sizeof BROKEN[0]; i++) {
        struct Cut cut = BROKEN[i].cut;
        cut.tensors = cut.tensors ? cut.tensors : n;
        unlink(part[2]);
        write_part(part[2], &whole, &cut);
        CHECK(refused(modelfile_open(&g, part[0]), BROKEN[i].words), "%zu: %s", i, fail_last());
    }
    unlink(part[2]);
    CHECK(refused(modelfile_open(&g, part[0]), "m-00003-of-00003.gguf: is missing"), "%s", fail_last());
    unlink(odd);
    write_part(odd, &whole, &(struct Cut){0, 5000, n, 0, n});
    CHECK(refused(modelfile_open(&g, odd), "is said to be part 1 of 5000"), "%s", fail_last());
    modelfile_close(&f);
    gguf_close(&whole);
    unlink(path), unlink(odd);
    for (int i = 0; i < 3; i++)
        unlink(part[i]), free(part[i]);
    free(path), free(odd);
}

// ---- Importance ----

struct Bytes {
    uint8_t data[4096];
    size_t n;
};

static void put(struct Bytes *b, const void *data, size_t n) {
    memcpy(b->data + b->n, data, n);
    b->n += n;
}
static void put_i32(struct Bytes *b, int32_t value) { put(b, &value, 4); }

static struct Bytes old_matrix(const char *first, int32_t calls, float value) {
    struct Bytes b = {.n = 0};
    put_i32(&b, 2);
    put_i32(&b, (int32_t)strlen(first));
    put(&b, first, strlen(first));
    put_i32(&b, calls);
    put_i32(&b, 3);
    put(&b, (float[]){value, 8, 0}, 12);
    put_i32(&b, 1);
    put(&b, "a", 1);
    put_i32(&b, 0);
    put_i32(&b, 1);
    put(&b, (float[]){5}, 4);
    put_i32(&b, 12);
    put_i32(&b, 4);
    put(&b, "text", 4);
    return b;
}

static void test_old_matrix(void) {
    struct Imatrix m;
    struct Bytes b = old_matrix("blk.0", 4, 2);
    if (CHECK(imatrix_open_memory(&m, b.data, b.n, "old"), "%s", fail_last())) {
        const struct ImatrixEntry *e = imatrix_find(&m, "blk.0"), *a = imatrix_find(&m, "a");
        CHECK(e && e->count == 3 && e->values[0] == 0.5f && e->values[1] == 2 && e->values[2] == 0, "means of sums");
        CHECK(a && a->count == 1 && a->values[0] == 1 && !imatrix_find(&m, "b"), "no call: all the same");
        CHECK(m.chunks == 12 && strcmp(m.datasets, "text") == 0, "%u chunks of %s", m.chunks, m.datasets);
        imatrix_close(&m);
    }
    for (size_t cut = 0; cut < b.n; cut++) { // the end after the entries is one too
        uint8_t *part = memcpy(xmalloc(cut + 1), b.data, cut);
        bool ok = imatrix_open_memory(&m, part, cut, "cut"), whole = cut == b.n - 12;
        CHECK(ok == whole, "%zu of %zu bytes: %s", cut, b.n, ok ? "accepted" : fail_last());
        if (ok)
            imatrix_close(&m);
        free(part);
    }
    b = old_matrix("a", 4, 2);
    CHECK(refused(imatrix_open_memory(&m, b.data, b.n, "x"), "stands twice"), "%s", fail_last());
    b = old_matrix("b", 4, NAN);
    CHECK(refused(imatrix_open_memory(&m, b.data, b.n, "x"), "value 0 is nan"), "%s", fail_last());
    b = old_matrix("b", 4, -1);
    CHECK(refused(imatrix_open_memory(&m, b.data, b.n, "x"), "a finite one of 0 or more"), "%s", fail_last());
    b = old_matrix("b", -4, 1);
    CHECK(refused(imatrix_open_memory(&m, b.data, b.n, "x"), "the number of calls is -4"), "%s", fail_last());
}

// P1, P4, P9: an importance matrix whose lengths and counts lie, and which goes into no model.
static void test_P9_matrix_lies(void) {
    static const struct {
        size_t at; // of a number: entries, bytes of the first name, calls, values, chunks, bytes of the last text
        int32_t value;
        const char *words;
    } LIES[] = {{0, 0, "1 to 65536 are expected"},
                {0, -1, "1 to 65536 are expected"},
                {0, INT32_MAX, "1 to 65536 are expected"},
                {0, 3, "the file ends within a name"},
                {4, 0, "1 to 1024 are expected"},
                {4, -1, "1 to 1024 are expected"},
                {4, 1025, "1 to 1024 are expected"},
                {4, 1000, "ends within a name"},
                {13, INT32_MIN, "the number of calls is -2147483648"},
                {17, 0, "the number of values is 0"},
                {17, -3, "the number of values is -3"},
                {17, INT32_MAX, "2147483647 values are said to follow"},
                {17, 1 << 30, "1073741824 values are said to follow"},
                {50, -1, "the number of chunks is -1"},
                {54, 5, "5 bytes of text are said to follow, but there are 4"},
                {54, -1, "0 to 65536 are expected"}};
    for (size_t i = 0; i < sizeof LIES / sizeof *LIES; i++) {
        struct Imatrix m;
        struct Bytes b = old_matrix("blk.0", 4, 2);
        memcpy(b.data + LIES[i].at, &LIES[i].value, 4);
        CHECK(refused(imatrix_open_memory(&m, b.data, b.n, "x"), LIES[i].words), "P9: %d at byte %zu: %s",
              LIES[i].value, LIES[i].at, fail_last());
    }
}

// A GGUF with the sums of one matrix, `rows` experts of 256 columns; counts of 2.
static bool write_matrix(const char *path, const char *name, uint64_t rows, const char *type, uint64_t n_counts) {
    struct GgufWriter w;
    uint64_t n = rows * 256;
    float *sums = xmalloc(n * sizeof *sums), counts[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    char *sum_name = xsprintf("%s.in_sum2", name), *count_name = xsprintf("%s.counts", name);
    for (uint64_t i = 0; i < n; i++)
        sums[i] = i % 8 ? 0.01f : 50;
    gguf_writer_init(&w);
    gguf_writer_string(&w, "general.type", type);
    gguf_writer_strings(&w, "imatrix.datasets", &(struct GgufString){"wiki", 4}, 1);
    gguf_writer_u32(&w, "imatrix.chunk_count", 3);
    gguf_writer_tensor(&w, sum_name, DT_F32, 2, (uint64_t[]){rows, 256});
    gguf_writer_tensor(&w, count_name, DT_F32, 2, (uint64_t[]){n_counts, 1});
    unlink(path);
    bool ok = gguf_writer_begin(&w, path) && gguf_writer_data(&w, sums, n * 4) &&
              gguf_writer_data(&w, counts, n_counts * 4) && gguf_writer_end(&w);
    free(sums), free(sum_name), free(count_name);
    return ok;
}

// Square error of every eighth column of a tensor of the model at `path` against the source's.
static double error_of(const char *path, const char *name, const struct WeightSource *source) {
    struct ModelFile f;
    double sum = 0;
    if (!CHECK(modelfile_open(&f, path), "%s", fail_last()))
        return 0;
    const struct FileTensor *t = modelfile_find(&f, name);
    float *want = xmalloc(t->cols * sizeof *want), *have = xmalloc(t->cols * sizeof *have);
    uint8_t *row = xmalloc(t->row_bytes);
    for (uint64_t r = 0; r < t->n_rows; r++) {
        source->rows(source->context, &t->spec, r, 1, want);
        CHECK(modelfile_read_rows(&f, t, r, 1, row), "%s", fail_last());
        quant_decode_row(t->type, row, t->cols, have);
        for (uint64_t i = 0; i < t->cols; i += 8)
            sum += (double)(want[i] - have[i]) * (double)(want[i] - have[i]);
    }
    free(want), free(have), free(row);
    modelfile_close(&f);
    return sum;
}

static void test_importance(const char *dir) {
    struct Config c = small_config();
    uint64_t seed = 9;
    struct WeightSource source = {&seed, random_type, random_rows};
    char *plain = path_join(dir, "plain.gguf"), *heeded = path_join(dir, "heeded.gguf"),
         *path = path_join(dir, "i.gguf");
    struct Imatrix m;
    struct WriteTypes types = {.mix = mix_find("q4_k_s"), .embed_type = DT_COUNT};
    CHECK(write_matrix(path, "blk.1.ffn_down_exps.weight", 2, "imatrix", 2), "%s", fail_last());
    CHECK(modelwrite_gguf(plain, &c, &types, &source, NULL, "x"), "%s", fail_last());
    if (CHECK(imatrix_open(&m, path), "%s", fail_last())) {
        CHECK(m.n_entries == 1 && m.entries[0].count == 512 && m.entries[0].values[8] == 25 && m.chunks == 3, "values");
        types.imatrix = &m;
        CHECK(modelwrite_gguf(heeded, &c, &types, &source, NULL, "x"), "%s", fail_last());
        const char *down = "model.layers.1.mlp.experts.down_proj.weight",
                   *up = "model.layers.1.mlp.experts.up_proj.weight";
        double before = error_of(plain, down, &source), after = error_of(heeded, down, &source);
        CHECK(after < 0.6 * before, "important columns: %g, without the matrix %g", after, before);
        CHECK(error_of(heeded, up, &source) == error_of(plain, up, &source), "others stay as they are");
        struct Gguf g;
        char *set = NULL;
        CHECK(gguf_open(&g, heeded) && gguf_get_string(&g, "quantize.imatrix.dataset", true, &set) &&
                  strcmp(set, "wiki") == 0,
              "the file says what it was made with");
        gguf_close(&g);
        free(set);
        imatrix_close(&m);
    }
    unlink(heeded);
    static const struct {
        const char *name;
        uint64_t rows;
        const char *words;
    } OTHER[] = {{"blk.1.ffn_down_exps.weight", 1, "is it of another model?"},
                 {"blk.9.ffn_up.weight", 1, "no entry for any"}};
    for (int i = 0; i < 2; i++) {
        CHECK(write_matrix(path, OTHER[i].name, OTHER[i].rows, "imatrix", OTHER[i].rows) && imatrix_open(&m, path),
              "%s", fail_last());
        CHECK(refused(modelwrite_gguf(heeded, &c, &types, &source, NULL, "x"), OTHER[i].words), "%s", fail_last());
        CHECK(!file_exists(heeded), "a refused model leaves a file");
        imatrix_close(&m);
    }
    CHECK(write_matrix(path, "a", 2, "model", 2) && refused(imatrix_open(&m, path), "not \"imatrix\""), "%s",
          fail_last());
    CHECK(write_matrix(path, "a", 2, "imatrix", 1) && refused(imatrix_open(&m, path), "do not fit"), "%s", fail_last());
    CHECK(refused(imatrix_open(&m, plain), "not \"imatrix\""), "%s", fail_last());
    unlink(plain), unlink(heeded), unlink(path);
    free(plain), free(heeded), free(path);
}

int main(void) {
    fail_quiet(true);
    char dir[] = "test-quantize-XXXXXX";
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    test_round_trip(dir, DT_F32);
    test_round_trip(dir, DT_F16);
    test_round_trip(dir, DT_BF16);
    test_bad_values(dir);
    struct Config c = small_config();
    test_every_cut(dir, &c);
    c = qwen2_config();
    test_every_cut(dir, &c);
    c.tied_head = true;
    test_every_cut(dir, &c);
    test_parts(dir);
    test_old_matrix();
    test_P9_matrix_lies();
    test_importance(dir);
    remove_tree(dir);
    return check_done();
}
