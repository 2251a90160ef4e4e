// The architectures and what their configs switch on: keys honoured or refused by name, rope's frequencies, and every architecture of
// tests/golden through a folder, GGUF and a folder again, bit for bit in three types.
#include "check.h"
#include "files.h"
#include "model/json.h"
#include "model/modelwrite.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct WriteTypes F32_FILE = {.type = DT_F32, .embed_type = DT_COUNT};

static char *golden_config(const char *name) {
    char *path = xsprintf("%s/tests/golden/%s/config.json", VKMOE_SOURCE_DIR, name);
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    CHECK(file_read(path, 1 << 20, &text, &bytes), "%s", fail_last());
    free(path);
    return (char *)text;
}

// The config of a golden case with one key changed; value NULL: removed.
static bool with_key(struct Config *c, const char *name, const char *key, const char *value) {
    char *base = golden_config(name);
    json_t *root = json_parse(base, strlen(base), name);
    if (key && value)
        json_object_set_new(root, key, json_parse(value, strlen(value), key));
    else if (key)
        json_object_del(root, key);
    char *text = json_dumps(root, 0);
    bool ok = config_from_json(c, text, strlen(text), "x/config.json");
    free(text);
    free(base);
    json_decref(root);
    return ok;
}

static void check_refused_keys(void) {
    static const struct {
        const char *name, *key, *value, *words;
    } CASES[] = {
        {"qwen2", "attention_bias", "true", "attention_bias is true"},
        {"qwen2", "mlp_bias", "true", "mlp_bias is true"},
        {"qwen2", "use_sliding_window", "true", "use_sliding_window is true"},
        {"qwen2", "num_key_value_heads", NULL, "num_key_value_heads is missing"},
        {"qwen2", "rms_norm_eps", NULL, "rms_norm_eps is missing"},
        {"qwen2", "architectures", "[\"LlamaForCausalLM\"]", "only [\"Qwen2ForCausalLM\"]"},
        {"qwen2-moe", "num_experts", NULL, "num_experts is missing"},
        {"qwen2-moe", "num_experts", "257", "num_experts is 257"},
        {"qwen2-moe", "num_experts_per_tok", "7", "num_experts_per_tok is 7"},
        {"qwen2-moe", "shared_expert_intermediate_size", "20", "shared_expert_intermediate_size is 20"},
        {"qwen2-moe", "shared_expert_intermediate_size", "0", "shared_expert_intermediate_size"},
        {"qwen2-moe", "decoder_sparse_step", "0", "decoder_sparse_step is 0"},
        {"qwen2-moe", "mlp_only_layers", "[2]", "a layer from 0 to 1 is expected"},
        {"qwen2-moe", "mlp_only_layers", "[-1]", "a layer from 0 to 1 is expected"},
        {"qwen2-moe", "mlp_only_layers", "3", "must be a list"},
        {"qwen2-moe", "output_router_logits", "true", "output_router_logits is true"},
        {"qwen2-moe-sparse", "num_experts_per_tok", "1", "norm_topk_prob true with one expert"},
        {"olmoe", "clip_qkv", "8.0", "clip_qkv is 8.0"},
        {"olmoe", "head_dim", "16", "norms of q and k"},
        {"olmoe", "intermediate_size", "12", "intermediate_size is 12"},
        {"llama-rope-yarn", "rope_theta", "1.0", "rope_theta above 1.5"},
    };
    struct Config c;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        CHECK(refused(with_key(&c, CASES[i].name, CASES[i].key, CASES[i].value), CASES[i].words), "%s: %s %s: %s",
              CASES[i].name, CASES[i].key, CASES[i].value ? CASES[i].value : "absent", fail_last());
    const char mistral[] = "{\"model_type\":\"mistral\",\"vocab_size\":64,\"hidden_size\":32,\"intermediate_size\":64,"
                           "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                           "\"rms_norm_eps\":1e-5,\"max_position_embeddings\":512,\"sliding_window\":%s}";
    static const char *const WINDOWS[] = {"null", "512", "4096", "256"};
    for (int i = 0; i < 4; i++) {
        char *text = xsprintf(mistral, WINDOWS[i]);
        bool ok = config_from_json(&c, text, strlen(text), "x");
        CHECK(i < 3 ? ok && c.arch == ARCH_MISTRAL : refused(ok, "sliding_window is 256"), "%s: %s", text, fail_last());
        free(text);
    }
}

static void check_honoured_keys(void) {
    struct Config c;
    CHECK(with_key(&c, "qwen2", NULL, NULL) && c.qkv_bias && !c.o_bias && c.tied_head, "%s", fail_last());
    CHECK(with_key(&c, "llama-bias", NULL, NULL) && c.qkv_bias && c.o_bias && c.mlp_bias, "%s", fail_last());
    CHECK(with_key(&c, "olmoe", NULL, NULL) && c.qk_norm && c.moe_hidden == 8 && config_shared_width(&c) == 0 &&
              config_moe_layers(&c) == 2 && c.aux_alpha == 0 && c.router_aux == 0.01f,
          "%s", fail_last());
    CHECK(with_key(&c, "qwen2-moe", "qkv_bias", "false") && !c.qkv_bias && c.shared_gate && c.shared_hidden == 24, "%s",
          fail_last());
    CHECK(with_key(&c, "qwen2-moe-sparse", NULL, NULL) && !config_is_moe(&c, 0) && config_is_moe(&c, 1) &&
              !config_is_moe(&c, 2) && !config_is_moe(&c, 3),
          "every second layer, but for the last: %s", fail_last());
    CHECK(with_key(&c, "qwen2-moe-sparse", "mlp_only_layers", "null") && config_is_moe(&c, 3), "%s", fail_last());
    // rope_scaling and the newer rope_parameters, the original context and the magnitude by default.
    CHECK(with_key(&c, "llama-bias", "rope_scaling", "{\"type\":\"yarn\",\"factor\":4}") && c.rope.kind == ROPE_YARN &&
              c.rope.original_context == 64 && c.rope.beta_fast == 32 && c.rope.beta_slow == 1 && c.rope.truncate,
          "%s", fail_last());
    CHECK_NEAR(rope_magnitude(&c), 0.1 * log(4) + 1, 0, 1e-7);
    CHECK(with_key(&c, "llama-bias", "rope_parameters",
                   "{\"rope_type\":\"yarn\",\"factor\":null,\"original_max_position_embeddings\":16,\"mscale\":2,"
                   "\"mscale_all_dim\":1,\"rope_theta\":5e5}") &&
              c.rope.factor == 4 && c.rope_base == 5e5f,
          "%s", fail_last());
    CHECK_NEAR(rope_magnitude(&c), (0.2 * log(4) + 1) / (0.1 * log(4) + 1), 0, 1e-7);
    CHECK(with_key(&c, "llama-rope-dynamic", NULL, NULL) && rope_check_context(&c, 64, "x") &&
              refused(rope_check_context(&c, 65, "x"), "a context of 65"),
          "%s", fail_last());
}

// Frequencies by transformers 5.24's own functions, of head_dim 32, base 10000 and the golden cases' scaling.
static void check_frequencies(void) {
    struct Config c;
    double f[CONFIG_MAX_HEAD_DIM / 2];
    // The ends of the ramps: the fastest pair keeps its frequency, the slowest has it divided.
    static const char *const NAMES[] = {"llama-rope-yarn", "llama-rope-llama3"};
    for (int i = 0; i < 2; i++) {
        CHECK(with_key(&c, NAMES[i], NULL, NULL), "%s", fail_last());
        rope_frequencies(&c, f);
        CHECK_NEAR(f[0], 1, 0, 1e-12);
        CHECK_NEAR(f[15], pow(10000, -30.0 / 32) / (double)c.rope.factor, 0, 1e-12);
        for (int k = 1; k < 16; k++)
            CHECK(f[k] < f[k - 1] && f[k] <= pow(10000, -2.0 * k / 32), "%s: pair %d", NAMES[i], k);
    }
}

// ---- There and back

static enum DType random_type(void *context, const struct WeightSpec *w) { return (void)context, (void)w, DT_F32; }

static bool random_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    (void)context;
    uint64_t cols = w->dim[w->n_dims - 1], stream = hash_bytes(w->name, strlen(w->name), 1);
    for (uint64_t i = 0; i < count * cols; i++)
        ((float *)out)[i] = random_normal(1, stream, first * cols + i);
    return true;
}

static void remove_folder(const char *dir) {
    static const char *const FILES[] = {"config.json", "generation_config.json", "model.safetensors"};
    for (int i = 0; i < 3; i++) {
        char *path = path_join(dir, FILES[i]);
        unlink(path);
        free(path);
    }
    rmdir(dir);
}

static bool same_weights(const char *a, const char *b) {
    char *pa = path_join(a, "model.safetensors"), *pb = path_join(b, "model.safetensors");
    uint8_t *x = NULL, *y = NULL;
    uint64_t n = 0, m = 0;
    bool same = file_read(pa, 1 << 24, &x, &n) && file_read(pb, 1 << 24, &y, &m) && n == m && memcmp(x, y, n) == 0;
    free(x), free(y), free(pa), free(pb);
    return same;
}

// What GGUF does not keep is taken from `from`; then both must read the same.
static bool same_config(const struct Config *from, struct Config back) {
    back.bos_id = from->bos_id, back.pad_id = from->pad_id, back.n_eos = from->n_eos;
    memcpy(back.eos_id, from->eos_id, sizeof back.eos_id);
    back.init_std = from->init_std, back.router_aux = from->router_aux;
    back.aux_alpha = from->aux_alpha, back.seq_aux = from->seq_aux;
    if (from->rope.kind == ROPE_DYNAMIC) // told in a warning
        back.rope = from->rope;
    char *a = config_to_json(from, "x"), *b = config_to_json(&back, "x");
    bool same = strcmp(a, b) == 0;
    CHECK(same, "%s\nbecame %s", a, b);
    free(a), free(b);
    return same;
}

static void round_trip(const char *top, const char *name, const struct Config *c, enum DType type) {
    struct WeightSource source = {NULL, random_type, random_rows};
    char *folder = path_join(top, "folder"), *gguf = path_join(top, "m.gguf"), *back = path_join(top, "back");
    struct ModelFile f;
    CHECK(modelwrite_hf(folder, c, type, &source, NULL, 0), "%s: %s", name, fail_last());
    if (CHECK(modelfile_open(&f, folder), "%s: %s", name, fail_last())) {
        struct WeightSource files = modelfile_source(&f);
        same_config(c, f.config);
        CHECK(modelwrite_gguf(gguf, &f.config, &(struct WriteTypes){.type = type, .embed_type = DT_COUNT}, &files, NULL,
                              "x"),
              "%s: %s", name, fail_last());
        modelfile_close(&f);
    }
    if (CHECK(modelfile_open(&f, gguf), "%s: %s", name, fail_last())) {
        struct WeightSource files = modelfile_source(&f);
        same_config(c, f.config);
        CHECK(modelwrite_hf(back, &f.config, type, &files, NULL, 0), "%s: %s", name, fail_last());
        modelfile_close(&f);
    }
    CHECK(same_weights(folder, back), "%s in %s: there and back it differs", name, DTYPES[type].name);
    remove_folder(folder);
    remove_folder(back);
    unlink(gguf);
    free(folder), free(gguf), free(back);
}

static void check_round_trips(const char *top) {
    static const struct {
        const char *name, *key, *value; // key: changed before
        const char *refused;            // by GGUF, with these words
    } CASES[] = {
        {"qwen2", NULL, NULL, NULL},
        {"qwen2-moe", NULL, NULL, NULL},
        {"qwen2-moe", "norm_topk_prob", "true", "norm_topk_prob true has no place in GGUF's qwen2moe"},
        {"qwen2-moe", "mlp_only_layers", "[1]", "mlp_only_layers has no place"},
        {"qwen2-moe", "decoder_sparse_step", "2", "decoder_sparse_step 2"},
        {"olmoe", "num_key_value_heads", "2", NULL},
        {"olmoe", NULL, NULL, "num_key_value_heads 1 below"},
        {"olmoe", "attention_bias", "true", "num_key_value_heads 1 below"},
        {"llama-bias", NULL, NULL, NULL},
        {"llama-rope-dynamic", NULL, NULL, NULL},
        {"llama-rope-yarn", NULL, NULL, NULL},
        {"llama-rope-yarn-mscale", NULL, NULL, "truncate false has no place in GGUF"},
        {"llama-rope-llama3", NULL, NULL, NULL},
        {"llama-tied-rope-linear", NULL, NULL, NULL},
        {"qwen2", "rope_scaling", "{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":1,\"high_freq_factor\":4}",
         "llama3 has no place in GGUF's qwen2"},
        {"deepseek-default", NULL, NULL, NULL},
        {"deepseek-default", "attention_bias", "true", "biases of o have no place in GGUF's deepseek"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct Config c;
        struct WeightSource source = {NULL, random_type, random_rows};
        if (!CHECK(with_key(&c, CASES[i].name, CASES[i].key, CASES[i].value), "%s", fail_last()))
            continue;
        char *never = path_join(top, "never.gguf");
        if (CASES[i].refused)
            CHECK(refused(modelwrite_gguf(never, &c, &F32_FILE, &source, NULL, "x"), CASES[i].refused) &&
                      !file_exists(never),
                  "%s: %s", CASES[i].name, fail_last());
        for (enum DType type = DT_F32; type <= DT_BF16 && !CASES[i].refused; type++)
            round_trip(top, CASES[i].name, &c, type);
        free(never);
    }
}

// Divisors that are not llama3's are kept as they are; config.json cannot say them.
static void check_divisors(const char *top) {
    struct WeightSource source = {NULL, random_type, random_rows};
    struct Config c;
    struct ModelFile f;
    char *gguf = path_join(top, "d.gguf"), *folder = path_join(top, "d");
    CHECK(with_key(&c, "llama-rope-llama3", NULL, NULL), "%s", fail_last());
    c.rope = (struct Rope){.kind = ROPE_DIVISORS};
    for (uint32_t i = 0; i < c.head_dim / 2; i++)
        c.rope.divisor[i] = 1 + (float)i;
    CHECK(modelwrite_gguf(gguf, &c, &F32_FILE, &source, NULL, "x"), "%s", fail_last());
    if (CHECK(modelfile_open(&f, gguf), "%s", fail_last())) {
        double a[CONFIG_MAX_HEAD_DIM / 2], b[CONFIG_MAX_HEAD_DIM / 2];
        rope_frequencies(&c, a), rope_frequencies(&f.config, b);
        CHECK(f.config.rope.kind == ROPE_DIVISORS, "the kind");
        for (uint32_t i = 0; i < c.head_dim / 2; i++)
            CHECK_NEAR(b[i], a[i], 0, 1e-6);
        struct WeightSource files = modelfile_source(&f);
        CHECK(refused(modelwrite_hf(folder, &f.config, DT_F32, &files, NULL, 0), "no place in config.json") &&
                  !dir_exists(folder),
              "%s", fail_last());
        modelfile_close(&f);
    }
    unlink(gguf);
    c.rope.divisor[3] = NAN;
    CHECK(modelwrite_gguf(gguf, &c, &F32_FILE, &source, NULL, "x"), "%s", fail_last());
    CHECK(refused(modelfile_open(&f, gguf), "rope_freqs.weight is"), "%s", fail_last());
    unlink(gguf);
    free(gguf), free(folder);
}

// ---- P8: numbers of the config against the tensors, in each architecture

static void check_p8_numbers_against_tensors(const char *top) {
    static const struct {
        const char *name, *key;
        uint32_t value;
        const char *words;
    } CASES[] = {
        {"qwen2", "qwen2.attention.head_count", 4, "attn_q.weight has the shape"},
        {"qwen2", "qwen2.block_count", 3, "blk.2.attn_norm.weight is missing"},
        {"qwen2-moe", "qwen2moe.expert_count", 7, "ffn_gate_inp.weight has the shape"},
        {"qwen2-moe", "qwen2moe.expert_shared_feed_forward_length", 32, "ffn_gate_shexp.weight has the shape"},
        {"qwen2-moe", "qwen2moe.expert_feed_forward_length", 16, "ffn_gate_exps.weight has the shape"},
        {"qwen2-moe", "qwen2moe.expert_used_count", 0, "num_experts_per_tok is 0"},
        {"qwen2-moe", "qwen2moe.embedding_length", UINT32_MAX, "hidden_size"},
        {"llama-rope-llama3", "llama.attention.key_length", 64, "they must be equal"},
        {"llama-rope-llama3", "llama.attention.key_length", UINT32_MAX, "at most 256"},
        {"llama-rope-yarn", "llama.rope.scaling.original_context_length", UINT32_MAX, "1 to 16777216 is expected"},
        {"llama-rope-yarn", "llama.rope.scaling.factor", 0x7fc00000, "factor is nan"},
        {"llama-rope-yarn", "llama.rope.scaling.yarn_beta_slow", 0xbf800000, "beta_slow is -1"},
        {"llama-rope-yarn", "llama.rope.freq_base", 0, "rope_theta"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct Config c;
        struct ModelFile f;
        struct WeightSource source = {NULL, random_type, random_rows};
        char *gguf = path_join(top, "p8.gguf");
        uint8_t *data = NULL;
        uint64_t bytes = 0;
        CHECK(with_key(&c, CASES[i].name, NULL, NULL) && modelwrite_gguf(gguf, &c, &F32_FILE, &source, NULL, "x") &&
                  file_read(gguf, 1 << 24, &data, &bytes),
              "%s", fail_last());
        uint8_t *key = data ? memmem(data, bytes, CASES[i].key, strlen(CASES[i].key)) : NULL;
        if (CHECK(key != NULL, "%s", CASES[i].key)) {
            memcpy(key + strlen(CASES[i].key) + 4, &CASES[i].value, 4);
            CHECK(file_write_atomic(gguf, data, bytes), "%s", fail_last());
            bool ok = modelfile_open(&f, gguf);
            CHECK(refused(ok, CASES[i].words), "P8: %s = %u: %s", CASES[i].key, CASES[i].value,
                  ok ? "it opened" : fail_last());
            if (ok)
                modelfile_close(&f);
        }
        unlink(gguf);
        free(data), free(gguf);
    }
}

// A config.json cut at every byte is refused, or whole but for the space behind it.
static void check_cut_configs(void) {
    static const char *const NAMES[] = {"qwen2", "qwen2-moe-sparse", "olmoe", "llama-rope-yarn", "deepseek-default"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char *text = golden_config(NAMES[i]);
        struct Config c;
        for (size_t bytes = 0; text[bytes]; bytes++) {
            char *part = memcpy(xmalloc(bytes + 1), text, bytes);
            bool ok = config_from_json(&c, part, bytes, "cut");
            CHECK(!ok || strspn(text + bytes, " \n") == strlen(text + bytes), "%s cut to %zu bytes passes", NAMES[i],
                  bytes);
            free(part);
        }
        free(text);
    }
}

int main(void) {
    fail_quiet(true);
    char dir[] = "test-config-XXXXXX";
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    check_refused_keys();
    check_honoured_keys();
    check_frequencies();
    check_round_trips(dir);
    check_divisors(dir);
    check_p8_numbers_against_tensors(dir);
    check_cut_configs();
    CHECK(rmdir(dir) == 0, "nothing is left behind in %s", dir);
    return check_done();
}
