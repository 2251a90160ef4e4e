// LoRA adapters in PEFT folders: what another program wrote is read, what we write is read back to the same bits, and what does not
// fit is refused by name. `test_adapter brief` leaves the refusals out, which know no device.
#include "card.h"
#include "check.h"
#include "model/adapter.h"
#include "model/session.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 64, PROMPT = 23 };
static const struct SampleParams GREEDY = {0};
static char folder[300];

static bool make_model(struct Model *m, struct Device *dev, const char *preset) {
    struct Config c;
    return config_preset(&c, preset) && model_init(m, dev, &c, DT_F32, CONTEXT) && model_randomise(m, 5);
}

static float *logits_of(struct Model *m, const uint32_t *ids, uint32_t n) {
    struct Session s;
    struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT};
    uint32_t next;
    float *logits = xcalloc(m->config.vocab_size, sizeof *logits);
    CHECK(session_init(&s, m, &o) && session_prefill(&s, 0, ids, n, &GREEDY, &next, NULL) &&
              session_logits(&s, 0, logits),
          "%s", fail_last());
    session_free(&s);
    return logits;
}

// B starts as zero; here it becomes something, padding apart.
static bool randomise_b(struct Model *m) {
    for (uint32_t i = m->n_base; i < m->n_params; i++) {
        const struct Param *p = &m->params[i];
        size_t n = strlen(p->spec.name);
        if (p->spec.name[n - 1] != 'B')
            continue;
        uint64_t rows = tensor_rows(&p->w), cols = tensor_cols(&p->w), rank = p->spec.dim[p->spec.n_dims - 1];
        float *v = xcalloc(rows * cols, sizeof *v);
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t k = 0; k < rank; k++)
                v[r * cols + k] = 0.1f * random_normal(9, i, r * cols + k);
        bool ok = param_write(m->dev, p, 0, rows, v);
        free(v);
        if (!ok)
            return false;
    }
    return true;
}

static void test_round_trip(struct Device *dev, const char *preset, uint32_t rank, uint32_t targets) {
    struct Model m;
    struct LoraOptions o = {.rank = rank, .alpha = 6, .targets = targets}, read;
    uint32_t ids[PROMPT];
    for (uint32_t i = 0; i < PROMPT; i++)
        ids[i] = (i * 37 + 5) % 200;
    if (!CHECK(make_model(&m, dev, preset), "%s", fail_last()))
        return;
    size_t bytes = m.config.vocab_size * sizeof(float);
    float *plain = logits_of(&m, ids, PROMPT);
    CHECK(model_add_lora(&m, &o, 3), "%s", fail_last());
    float *zero = logits_of(&m, ids, PROMPT);
    CHECK(memcmp(plain, zero, bytes) == 0, "%s: an adapter with B = 0 changes the logits", preset);
    CHECK(randomise_b(&m), "%s", fail_last());
    float *with = logits_of(&m, ids, PROMPT);
    CHECK(memcmp(plain, with, bytes) != 0, "%s: an adapter with B not 0 changes nothing", preset);
    CHECK(adapter_save(&m, folder, &o, "some/base"), "%s", fail_last());
    model_free(&m);

    CHECK(adapter_options(folder, &read) && read.rank == rank && read.alpha == 6,
          "options read back: rank %u, alpha %g", read.rank, (double)read.alpha);
    if (!CHECK(make_model(&m, dev, preset) && adapter_load(&m, folder), "%s", fail_last()))
        return;
    float *again = logits_of(&m, ids, PROMPT);
    CHECK(memcmp(with, again, bytes) == 0, "%s, targets %#x: the adapter read back gives other logits", preset,
          targets);
    fail_quiet(true);
    CHECK(!adapter_load(&m, folder) && strstr(fail_last(), "already"), "a second adapter: %s", fail_last());
    fail_quiet(false);
    model_free(&m);
    free(plain), free(zero), free(with), free(again);
}

// A folder with one tensor more, less or other than it should have.
struct Wrong {
    const char *config; // NULL: as it should be
    const char *skip;   // tensor left out
    const char *part;   // of the names of tensors that are left out
    const char *rename; // tensor that gets the name `extra`
    const char *extra;
    bool wide;           // lora_A of q_proj of layer 0 has a column too many
    const char *message; // part of what must be told
};

static bool write_wrong(const struct Wrong *w, const struct Safetensors *good, const char *good_config) {
    char *tensors = path_join(folder, "adapter_model.safetensors"), *config = path_join(folder, "adapter_config.json");
    struct SafetensorsWriter out;
    safetensors_writer_init(&out);
    bool ok = true;
    for (int pass = 0; pass < 2 && ok; pass++) {
        for (uint32_t i = 0; i < good->n_entries && ok; i++) {
            const struct SafetensorsEntry *e = &good->entries[i];
            bool wide = w->wide && strstr(e->name, "layers.0.self_attn.q_proj.lora_A");
            uint64_t dim[2] = {e->dim[0], e->dim[1] + wide}, bytes = dim[0] * dim[1] * 4;
            const char *name = w->rename && strcmp(e->name, w->rename) == 0 ? w->extra : e->name;
            if ((w->skip && strcmp(e->name, w->skip) == 0) || (w->part && strstr(e->name, w->part)))
                continue;
            if (!pass) {
                safetensors_writer_add(&out, name, DT_F32, 2, dim);
            } else {
                uint8_t *data = xcalloc(1, bytes);
                ok = safetensors_writer_data(&out, data, bytes);
                free(data);
            }
        }
        ok = ok && (pass || safetensors_writer_begin(&out, tensors));
    }
    ok = safetensors_writer_end(&out) && ok;
    const char *text = w->config ? w->config : good_config;
    ok = ok && file_write_atomic(config, text, strlen(text));
    free(tensors), free(config);
    return ok;
}

static void test_refusals(struct Device *dev) {
    static const char Q_A[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    static const char Q_B[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
#define CONFIG(rest) "{\"peft_type\": \"LORA\", \"lora_alpha\": 8, " rest "}"
    static const struct Wrong WRONG[] = {
        {.rename = Q_A, .extra = "base_model.model.model.layers.0.self_attn.x_proj.lora_A.weight", .message = "x_proj"},
        {.rename = Q_A, .extra = "model.layers.0.self_attn.q_proj.lora_A.weight", .message = "belongs to no linear"},
        {.rename = Q_A, .extra = "base_model.model.lm_head.lora_A.weight", .message = "lm_head"},
        {.skip = Q_B, .message = "lora_B.weight is missing, the other half"},
        {.wide = true, .message = "has the shape (4, 65); the model and the rank ask for (4, 64)"},
        {.config = CONFIG("\"r\": 8, \"target_modules\": [\"q_proj\"]"),
         .message = "the model and the rank ask for (8, 64)"},
        {.config = CONFIG("\"r\": 4, \"target_modules\": [\"q_proj\", \"k_proj\"]"),
         .message = "k_proj.lora_A.weight is missing"},
        {.config = CONFIG("\"r\": 4, \"target_modules\": [\"query\"]"), .message = "\"query\""},
        {.config = CONFIG("\"r\": 4, \"target_modules\": \"(\""), .message = "regular expression"},
        {.config = CONFIG("\"r\": 4"), .message = "target_modules is missing"},
        {.config = CONFIG("\"target_modules\": [\"q_proj\"]"), .message = "r is missing"},
        {.config = CONFIG("\"r\": 4, \"use_dora\": true, \"target_modules\": [\"q_proj\"]"), .message = "use_dora"},
        {.config = CONFIG("\"r\": 4, \"bias\": \"all\", \"target_modules\": [\"q_proj\"]"), .message = "bias"},
        {.config = CONFIG("\"r\": 4, \"modules_to_save\": [\"lm_head\"], \"target_modules\": [\"q_proj\"]"),
         .message = "modules_to_save"},
        {.config = CONFIG("\"r\": 4, \"init_lora_weights\": \"pissa_niter_4\", \"target_modules\": [\"q_proj\"]"),
         .message = "init_lora_weights is pissa_niter_4"},
        {.config = CONFIG("\"r\": 4, \"init_lora_weights\": \"olora\", \"target_modules\": [\"q_proj\"]"),
         .message = "init_lora_weights is olora"},
        {.config = CONFIG("\"r\": 4, \"init_lora_weights\": 1, \"target_modules\": [\"q_proj\"]"),
         .message = "init_lora_weights is no text"},
        {.config = CONFIG("\"r\": 4, \"kasa_config\": {\"beta\": 1}, \"target_modules\": [\"q_proj\"]"),
         .message = "kasa_config is set"},
        {.config = CONFIG("\"r\": 4, \"use_bdlora\": true, \"target_modules\": [\"q_proj\"]"),
         .message = "use_bdlora is set"},
        {.config = CONFIG("\"r\": 4, \"monteclora_config\": {\"n\": 1}, \"target_modules\": [\"q_proj\"]"),
         .message = "monteclora_config is set"},
        {.config = CONFIG("\"r\": 4, \"velora_config\": {\"n\": 1}, \"target_modules\": [\"q_proj\"]"),
         .message = "velora_config is set"},
        {.config = CONFIG("\"r\": 4, \"task_type\": \"SEQ_CLS\", \"target_modules\": [\"q_proj\"]"),
         .message = "task_type is \"SEQ_CLS\""},
        {.config = "{\"peft_type\": \"IA3\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"]}",
         .message = "LORA"},
        {.config = "[]", .message = "object"},
        {.config = "{", .message = "adapter_config.json"},
    };
    struct Model m;
    struct LoraOptions o = {.rank = 4, .alpha = 8, .targets = LORA_Q};
    struct Safetensors good;
    char *path = path_join(folder, "adapter_model.safetensors"), *kept = path_join(folder, "good.safetensors");
    if (!CHECK(make_model(&m, dev, "tiny") && m.config.dim == 64 && model_add_lora(&m, &o, 1) &&
                   adapter_save(&m, folder, &o, NULL) && rename(path, kept) == 0,
               "%s", fail_last()))
        return;
    model_free(&m);
    CHECK(safetensors_open(&good, kept), "%s", fail_last());
    const char *config = CONFIG("\"r\": 4, \"target_modules\": [\"q_proj\"]");
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        CHECK(write_wrong(&WRONG[i], &good, config) && make_model(&m, dev, "tiny"), "%s", fail_last());
        fail_quiet(true);
        bool ok = adapter_load(&m, folder);
        fail_quiet(false);
        CHECK(!ok && strstr(fail_last(), WRONG[i].message), "case %zu: '%s', expected '...%s...'", i, fail_last(),
              WRONG[i].message);
        model_free(&m);
    }
    static const char *const SOUND[] = {
        NULL,
        CONFIG("\"r\": 4, \"init_lora_weights\": null, \"use_bdlora\": null, \"target_modules\": [\"q_proj\"]"),
        CONFIG("\"r\": 4, \"init_lora_weights\": false, \"task_type\": null, \"target_modules\": [\"q_proj\"]"),
        CONFIG("\"r\": 4, \"init_lora_weights\": \"gaussian\", \"target_modules\": [\"q_proj\"]"),
        CONFIG("\"r\": 4, \"init_lora_weights\": \"eva\", \"target_modules\": [\"q_proj\"]"),
        CONFIG("\"r\": 4, \"init_lora_weights\": \"orthogonal\", \"target_modules\": [\"q_proj\"]"),
    };
    for (size_t i = 0; i < sizeof SOUND / sizeof SOUND[0]; i++) {
        CHECK(write_wrong(&(struct Wrong){.config = SOUND[i]}, &good, config) && make_model(&m, dev, "tiny") &&
                  adapter_load(&m, folder),
              "%s: %s", SOUND[i] ? SOUND[i] : "the folder without a fault", fail_last());
        model_free(&m);
    }
    safetensors_close(&good);
    unlink(kept);
    free(path), free(kept);
}

// What is trained further has an adapter in every layer, of routed experts on whole ones; which of them, is told.
static void test_describe(struct Device *dev) {
    static const char CONFIG_Q[] = CONFIG("\"r\": 4, \"target_modules\": [\"layers.1.self_attn.q_proj\"]");
    static const struct Wrong CASES[] = {
        {.part = NULL},
        {.part = "layers.1.mlp.experts.3."},
        {.part = "layers.0.self_attn", .message = "layers.0.self_attn.q_proj.weight has no adapter, others"},
        {.part = "layers.1.mlp.experts.3.up", .message = "expert 3 of layer 1 has an adapter on some of its three"},
        {.part = "layers.1.mlp.experts.", .message = "no expert of layer 1 has an adapter"},
    };
    struct Model m;
    struct LoraOptions o = {.rank = 4, .alpha = 8, .targets = LORA_Q | LORA_EXPERTS};
    struct Safetensors good;
    char *path = path_join(folder, "adapter_model.safetensors"), *kept = path_join(folder, "good.safetensors");
    if (!CHECK(make_model(&m, dev, "tiny-moe") && model_add_lora(&m, &o, 1) && adapter_save(&m, folder, &o, NULL) &&
                   rename(path, kept) == 0 && safetensors_open(&good, kept),
               "%s", fail_last()))
        return;
    model_remove_lora(&m);
    const struct Config *c = &m.config;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct LoraOptions read = {0};
        uint8_t *marked = xcalloc((size_t)c->n_layers * c->n_experts, 1);
        CHECK(write_wrong(&CASES[i], &good, CONFIG_Q), "%s", fail_last());
        fail_quiet(CASES[i].message != NULL);
        bool ok = adapter_describe(&m, folder, &read, marked);
        fail_quiet(false);
        CHECK(CASES[i].message ? !ok && strstr(fail_last(), CASES[i].message) : ok, "case %zu: '%s'", i, fail_last());
        CHECK(read.rank == 4 && read.alpha == 8 && read.targets == o.targets && !read.rank_stabilised,
              "case %zu: targets %#x", i, read.targets);
        for (uint32_t k = 0; k < c->n_layers * c->n_experts && ok; k++) {
            bool has = config_is_moe(c, k / c->n_experts) && !(i == 1 && k == c->n_experts + 3);
            CHECK(marked[k] == has, "case %zu: expert %u of layer %u", i, k % c->n_experts, k / c->n_experts);
        }
        free(marked);
    }
    model_free(&m);
    safetensors_close(&good);
    unlink(kept);
    free(path), free(kept);
}

// P9: an adapter's files lie like a model's, and go through the same reader: each lie below is refused, and so is the file cut at every byte
// of its header and its data.
static void test_p9_side_loader_lies(struct Device *dev) {
    struct Model m;
    struct LoraOptions o = {.rank = 1, .alpha = 8, .targets = LORA_Q};
    char *path = path_join(folder, "adapter_model.safetensors"), *config = path_join(folder, "adapter_config.json");
    uint8_t *good = NULL, *text = NULL;
    uint64_t bytes = 0, text_bytes = 0;
    if (!CHECK(make_model(&m, dev, "tiny") && model_add_lora(&m, &o, 1) && adapter_save(&m, folder, &o, NULL) &&
                   file_read(path, 1 << 20, &good, &bytes) && file_read(config, 1 << 20, &text, &text_bytes),
               "%s", fail_last()))
        return;
    model_free(&m);
    CHECK(make_model(&m, dev, "tiny"), "%s", fail_last());
    const struct {
        const char *name, *from, *to; // a text of the header and what stands there instead
    } LIES[] = {{"a span beyond the file", "\"data_offsets\":[0,", "\"data_offsets\":[9,"},
                {"another shape", "\"shape\":[1,64]", "\"shape\":[2,64]"},
                {"a shape that wraps", "\"shape\":[1,64]", "\"shape\":[-1,4]"},
                {"an integer type", "\"F32\"", "\"I32\""},
                {"an unknown type", "\"F32\"", "\"X32\""}};
    fail_quiet(true);
    for (size_t i = 0; i < sizeof LIES / sizeof *LIES; i++) {
        uint8_t *lie = memcpy(xmalloc(bytes), good, bytes),
                *at = memmem(lie, bytes, LIES[i].from, strlen(LIES[i].from));
        CHECK(at && memcpy(at, LIES[i].to, strlen(LIES[i].to)) && file_write_atomic(path, lie, bytes) &&
                  !adapter_load(&m, folder),
              "P9: an adapter with %s is taken", LIES[i].name);
        free(lie);
    }
    uint64_t header = 0;
    memcpy(&header, good, sizeof header);
    for (uint64_t cut = 0; cut < bytes; cut += cut < header + 16 ? 1 : 61) // the data has no edges but its end
        CHECK(file_write_atomic(path, good, cut) && !adapter_load(&m, folder), "P9: %llu of %llu bytes are taken",
              (unsigned long long)cut, (unsigned long long)bytes);
    CHECK(file_write_atomic(path, good, bytes - 1) && !adapter_load(&m, folder), "P9: all but one byte is taken");
    CHECK(file_write_atomic(path, good, bytes), "%s", fail_last());
    for (uint64_t cut = 0; cut + 2 < text_bytes; cut++)
        CHECK(file_write_atomic(config, text, cut) && !adapter_load(&m, folder), "P9: a config of %llu bytes is taken",
              (unsigned long long)cut);
    fail_quiet(false);
    CHECK(file_write_atomic(config, text, text_bytes) && adapter_load(&m, folder), "the sound one: %s", fail_last());
    model_free(&m);
    free(good), free(text), free(path), free(config);
}

static double relative(const float *got, const float *want, uint32_t n) {
    double difference = 0, size = 0;
    for (uint32_t i = 0; i < n; i++)
        difference += pow((double)got[i] - (double)want[i], 2), size += pow((double)want[i], 2);
    return sqrt(difference / size);
}

// A model and an adapter that PyTorch made, through cache and sampler: the logits behind each document.
static void test_golden(struct Device *dev) {
    char *dir = path_join(VKMOE_SOURCE_DIR, "tests/golden/deepseek-lora"), *adapter = path_join(dir, "adapter");
    char *golden = path_join(dir, "golden.safetensors");
    struct ModelFile f;
    struct Model m;
    struct Safetensors s;
    struct ModelOptions o = {.type = DT_COUNT};
    if (CHECK(modelfile_open(&f, dir), "%s", fail_last()) && CHECK(safetensors_open(&s, golden), "%s", fail_last()) &&
        CHECK(model_load(&m, dev, &f, &o) && adapter_load(&m, adapter), "%s", fail_last())) {
        const struct SafetensorsEntry *ids = safetensors_find(&s, "ids"), *start = safetensors_find(&s, "doc_start");
        const struct SafetensorsEntry *logits = safetensors_find(&s, "logits");
        uint32_t n = (uint32_t)(ids->bytes / 4), vocab = m.config.vocab_size, *id = xmalloc(ids->bytes),
                 *first = xmalloc(ids->bytes);
        float *want = xmalloc(logits->bytes);
        CHECK(safetensors_read(&s, ids, 0, ids->bytes, id) && safetensors_read(&s, start, 0, start->bytes, first) &&
                  safetensors_read(&s, logits, 0, logits->bytes, want),
              "%s", fail_last());
        for (uint32_t end = 1; end <= n; end++) {
            if (end < n && first[end] == first[end - 1])
                continue;
            float *got = logits_of(&m, id + first[end - 1], end - first[end - 1]);
            double error = relative(got, want + (size_t)(end - 1) * vocab, vocab);
            CHECK(error < 1e-5, "document at %u: logits off by %.2g", first[end - 1], error);
            free(got);
        }
        free(id), free(first), free(want);
        model_free(&m);
        safetensors_close(&s);
    }
    modelfile_close(&f);
    free(dir), free(adapter), free(golden);
}

int main(int argc, char **argv) {
    struct Device dev;
    const bool brief = argc > 1 && strcmp(argv[1], "brief") == 0;
    if (!card_open(&dev)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    snprintf(folder, sizeof folder, "%s/test-adapter", cache_dir());
    test_round_trip(&dev, "tiny", 3, LORA_ALL);
    test_round_trip(&dev, "tiny-moe", 8, LORA_ALL);
    test_round_trip(&dev, "tiny-moe", 5, LORA_SHARED | LORA_Q);
    test_round_trip(&dev, "tiny-moe", 2, LORA_EXPERTS | LORA_ROUTER);
    if (!brief) {
        test_refusals(&dev);
        test_describe(&dev);
        test_p9_side_loader_lies(&dev);
    }
    test_golden(&dev);
    device_close(&dev);
    return check_done();
}
