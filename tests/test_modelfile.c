// Number formats against vectors of gguf-py, configs with every switch, and whole tiny models written and read back in both
// formats, sound and broken.
#include "check.h"
#include "files.h"
#include "model/json.h"
#include "model/modelwrite.h"
#include "model/quant.h"
#include "model/vocabfile.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- Number formats ----

static void check_vector(enum DType type, const char *hex) {
    float in[64];
    uint8_t row[256], device[256], again[256];
    char found[513] = "";
    for (int i = 0; i < 64; i++)
        in[i] = (float)((i * 37 + 11) % 101 - 50) / 7;
    quant_encode_row(type, in, 64, row);
    size_t bytes = dtype_file_row_bytes(type, 64);
    for (size_t i = 0; i < bytes; i++)
        snprintf(found + 2 * i, 3, "%02x", row[i]);
    CHECK(strcmp(found, hex) == 0, "%s gives %s, gguf-py %s", DTYPES[type].name, found, hex);
    // Device layout: quants first, then scales, then zeros up to 16 bytes.
    memset(device, 0xee, sizeof device);
    quant_row_to_device(type, row, 64, device);
    quant_row_from_device(type, device, 64, again);
    size_t scale = type == DT_Q4_1 ? 4 : 2, quants = DTYPES[type].block_bytes - scale, end = dtype_row_bytes(type, 64);
    CHECK(memcmp(row, again, bytes) == 0, "%s: there and back", DTYPES[type].name);
    CHECK(memcmp(device, row + scale, quants) == 0 && memcmp(device + quants, row + 2 * scale + quants, quants) == 0,
          "%s: quants first", DTYPES[type].name);
    CHECK(memcmp(device + 2 * quants, row, scale) == 0 &&
              memcmp(device + 2 * quants + scale, row + quants + scale, scale) == 0,
          "%s: then scales", DTYPES[type].name);
    CHECK(end % 16 == 0 && end >= bytes && device[end] == 0xee, "%s: %zu bytes", DTYPES[type].name, end);
    for (size_t i = bytes; i < end; i++)
        CHECK(device[i] == 0, "%s: byte %zu of the padding", DTYPES[type].name, i);
}

// 256 rows of 1024 numbers of a linear congruential generator: hashes of what gguf-py makes of them.
static void check_hashes(enum DType type, const char *encoded, const char *decoded) {
    struct Sha256 a, b;
    char found_a[65], found_b[65];
    static float in[1024], out[1024];
    static uint8_t row[4096];
    uint32_t state = 12345;
    sha256_begin(&a);
    sha256_begin(&b);
    for (int r = 0; r < 256; r++) {
        for (int i = 0; i < 1024; i++) {
            state = state * 1664525 + 1013904223;
            in[i] = (float)(int32_t)state * 0x1p-31f * ldexpf(1, -(r % 8));
        }
        quant_encode_row(type, in, 1024, row);
        quant_decode_row(type, row, 1024, out);
        sha256_add(&a, row, dtype_file_row_bytes(type, 1024));
        sha256_add(&b, out, sizeof out);
    }
    sha256_end(&a, found_a);
    sha256_end(&b, found_b);
    CHECK(strcmp(found_a, encoded) == 0, "%s encodes to %s", DTYPES[type].name, found_a);
    CHECK(strcmp(found_b, decoded) == 0, "%s decodes to %s", DTYPES[type].name, found_b);
}

static void check_halves(void) {
    unsigned wrong = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h), b = bf16_to_f32((uint16_t)h);
        bool nan16 = (h & 0x7fff) > 0x7c00, nan_b = (h & 0x7fff) > 0x7f80;
        wrong += nan16 ? !isnan(f) || !isnan(f16_to_f32(f16_from_f32(f))) : f16_from_f32(f) != h;
        wrong += nan_b ? !isnan(b) || !isnan(bf16_to_f32(bf16_from_f32(b))) : bf16_from_f32(b) != h;
        // Half way to the next goes to the even one, a little more or less to the nearer.
        if ((h & 0x7fff) < 0x7bff) {
            float next = f16_to_f32((uint16_t)(h + 1)), middle = (f + next) / 2;
            wrong += f16_from_f32(middle) != (h & 1 ? h + 1 : h);
            wrong += f16_from_f32(nextafterf(middle, f)) != h || f16_from_f32(nextafterf(middle, next)) != h + 1;
        }
        if ((h & 0x7fff) < 0x7f7f) {
            float next = bf16_to_f32((uint16_t)(h + 1)), middle = b + (next - b) / 2;
            wrong += bf16_from_f32(middle) != (h & 1 ? h + 1 : h);
            wrong += bf16_from_f32(nextafterf(middle, b)) != h || bf16_from_f32(nextafterf(middle, next)) != h + 1;
        }
    }
    CHECK(wrong == 0, "%u of 65536 halves are wrong", wrong);
    CHECK(f16_from_f32(65519.996f) == 0x7bff && f16_from_f32(65520) == 0x7c00 && f16_from_f32(-1e30f) == 0xfc00,
          "overflow of f16");
    CHECK(bf16_from_f32(3.4e38f) == 0x7f80, "overflow of bf16");
}

static void check_formats(void) {
    check_vector(DT_Q4_0, "253bf258be1379df359bf147ac0268ce248a25bb53fd9731db852fca640ea842fc9630db");
    check_vector(DT_Q4_1, "773b25c7f257bd1379cf358ae146ac0268bd2479643bb7c6ad0368ce248ad0469bf257bd1379cf25");
    check_vector(DT_Q8_0, "332b9dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9af8"
                          "332b56b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc3a98f654b1");
    check_hashes(DT_F16, "62ee3247917e88caec770db9b14fb478f4c15a5c9a3d6645917d8c12b31181d4",
                 "8e1d73195dd9595bcfd9aebd11c3eb1b78275ddfdac462245f5af91096efd90d");
    check_hashes(DT_BF16, "6fa852abb0f5ae43cd50d1d09ca2773f2b2f629974dc201f5db431d46646aff3",
                 "b006b803745788674ae823846105bae782680c3548b01f4ecdad66b51f2f985e");
    check_hashes(DT_Q4_0, "c60507431e84d5cd227724fa70cda2e6354b7e23db046bad7f5c4850256e07e3",
                 "4a034a08ef7bfec9944e22656a67896ed2cd2852d0e790b1e52a8f42ff4b04a3");
    check_hashes(DT_Q4_1, "fd1931f0b96947b491d09c4f899106f7c8db2d67db69ac742048ece7b9f47f36",
                 "485a1a6a161d4694e9993de34e5799a3e9132a8dde9497c03f1c30f6e48299f4");
    check_hashes(DT_Q8_0, "4ba1b532ba88423c1eaf439df825c11487f5d8418070008738aa90a94a218422",
                 "693162df583327b5faa6847c3fd1b4d2bbb66eddef7d207327e2af7ada24d9ee");
    check_hashes(DT_Q5_0, "8fb125dda0ff9e1a150951a6f7dd4acb1ba5f2cc136522b87eb5658e7d493568",
                 "19342f616ee077d8bc1f2a0d92220e3d996fcdfb4601a984052dcfffc45a1bcc");
    check_hashes(DT_Q5_1, "9f48b204d604064fe86669f84a67ab7cb7517319ca676f5d3afb33ba40bdab43",
                 "5e8d1b816367bf75d2ec683a4bba73cd874b698e6f66d8ecabaae3c39bae1d62");
    check_halves();
}

// ---- Configs ----

static const char BASE[] =
    "{\"model_type\":\"deepseek\",\"architectures\":[\"DeepseekForCausalLM\"],\"vocab_size\":96,"
    "\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":3,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"n_routed_experts\":4,\"num_experts_per_tok\":2,"
    "\"moe_intermediate_size\":32,\"n_shared_experts\":2,\"first_k_dense_replace\":1,"
    "\"rms_norm_eps\":1e-06,\"bos_token_id\":1,\"eos_token_id\":2}";

// The base with one key changed; value NULL: removed.
static bool with_key(struct Config *c, const char *key, const char *value) {
    json_t *root = json_parse(BASE, sizeof BASE - 1, "base");
    if (value)
        json_object_set_new(root, key, json_parse(value, strlen(value), key));
    else
        json_object_del(root, key);
    char *text = json_dumps(root, 0);
    bool ok = config_from_json(c, text, strlen(text), "x/config.json");
    free(text);
    json_decref(root);
    return ok;
}

static void check_refused_keys(void) {
    static const struct {
        const char *key, *value, *words;
    } cases[] = {
        {"model_type", "\"mixtral\"", "\"mixtral\" is not supported"},
        {"model_type", "\"deepseek_v2\"", "is not supported"},
        {"model_type", NULL, "model_type is missing"},
        {"model_type", "3", "a string is expected"},
        {"architectures", "[\"LlamaForCausalLM\"]", "architectures names"},
        {"architectures", "[]", "architectures names nothing"},
        {"hidden_act", "\"gelu\"", "hidden_act is \"gelu\""},
        {"mlp_bias", "true", "mlp_bias is true"},
        {"attention_dropout", "0.1", "attention_dropout"},
        {"scoring_func", "\"sigmoid\"", "scoring_func"},
        {"topk_method", "\"noaux_tc\"", "topk_method"},
        {"n_group", "8", "n_group is 8"},
        {"sliding_window", "4096", "sliding_window is 4096"},
        {"quantization_config", "{\"bits\":4}", "quantization_config"},
        {"rope_scaling", "{\"type\":\"longrope\",\"factor\":4.0}", "rope_scaling of type \"longrope\""},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0,\"beta_fast\":0.5}", "beta_slow is 1"},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0,\"beta\":1}", "rope_scaling: the key beta"},
        {"rope_scaling", "{\"type\":\"dynamic\",\"factor\":0.5}", "factor is 0.5"},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":2,\"partial_rotary_factor\":0.5}", "partial_rotary_factor"},
        {"rope_scaling", "{\"type\":\"linear\"}", "has no factor"},
        {"rope_scaling", "{\"factor\":2.0}", "has a factor but no type"},
        {"rope_scaling", "7", "rope_scaling must be an object"},
        {"rope_parameters", "{\"rope_type\":\"llama3\"}", "rope_parameters of type llama3 has no factor"},
        {"rope_parameters", "{\"rope_type\":\"llama3\",\"factor\":8}", "low_freq_factor is 0"},
        {"rope_parameters", "{\"full_attention\":{\"rope_theta\":1e4}}", "the key full_attention"},
        {"layer_types", "[\"full_attention\",\"sliding_attention\"]", "layer 1 is sliding_attention"},
        {"kv_lora_rank", "512", "kv_lora_rank is 512"},
        {"partial_rotary_factor", "0.5", "partial_rotary_factor"},
        {"vocab_size", NULL, "vocab_size is missing"},
        {"vocab_size", "0", "vocab_size is 0"},
        {"vocab_size", "-1", "vocab_size is -1"},
        {"vocab_size", "1e3", "an integer is expected"},
        {"vocab_size", "99999999999999999999", "an integer is expected"},
        {"vocab_size", "4294967297", "vocab_size is 4294967297"},
        {"hidden_size", "30", "hidden_size"},
        {"hidden_size", "1048584", "hidden_size is 1048584"},
        {"num_hidden_layers", "4294967295", "num_hidden_layers"},
        {"num_attention_heads", "5", "no multiple of num_attention_heads"},
        {"num_key_value_heads", "3", "does not divide"},
        {"head_dim", "264", "head_dim"},
        {"head_dim", "12", "head_dim is 12"},
        {"intermediate_size", "63", "intermediate_size is 63"},
        {"n_routed_experts", "257", "n_routed_experts is 257"},
        {"num_experts_per_tok", "5", "num_experts_per_tok is 5"},
        {"num_experts_per_tok", NULL, "num_experts_per_tok is 0"},
        {"moe_intermediate_size", "0", "moe_intermediate_size is 0"},
        {"moe_layer_freq", "0", "moe_layer_freq is 0"},
        {"first_k_dense_replace", "4", "first_k_dense_replace is 4"},
        {"rms_norm_eps", "-1.0", "rms_norm_eps"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"rope_theta", "0", "rope_theta"},
        {"bos_token_id", "96", "bos_token_id is 96"},
        {"eos_token_id", "[1,2,3,4,5]", "at most 4"},
        {"eos_token_id", "[1,96]", "eos_token_id is 96"},
        {"eos_token_id", "\"x\"", "must be a token"},
        {"norm_topk_prob", "1", "true or false is expected"},
    };
    struct Config c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(refused(with_key(&c, cases[i].key, cases[i].value), cases[i].words), "%s %s: %s", cases[i].key,
              cases[i].value ? cases[i].value : "absent", fail_last());
    CHECK(refused(config_from_json(&c, "[]", 2, "x"), "an object is expected"), "%s", fail_last());
}

static void check_honoured_keys(void) {
    struct Config c;
    CHECK(with_key(&c, "use_cache", "true") && c.arch == ARCH_DEEPSEEK && c.head_dim == 8 && c.n_experts == 4 &&
              !c.norm_topk && c.routed_scale == 1 && c.moe_period == 1 && c.seq_aux && c.rope_base == 10000 &&
              c.n_eos == 1 && c.eos_id[0] == 2 && c.bos_id == 1 && c.pad_id == UINT32_MAX && !c.tied_head,
          "the base: %s", fail_last());
    CHECK(!config_is_moe(&c, 0) && config_is_moe(&c, 1) && config_is_moe(&c, 2), "the first layer is dense");
    CHECK(with_key(&c, "moe_layer_freq", "2") && !config_is_moe(&c, 1) && config_is_moe(&c, 2), "every other layer");
    CHECK(with_key(&c, "norm_topk_prob", "true") && c.norm_topk, "norm_topk_prob");
    CHECK(with_key(&c, "routed_scaling_factor", "2.5") && c.routed_scale == 2.5f, "routed_scaling_factor");
    CHECK(with_key(&c, "n_shared_experts", "null") && c.n_shared == 0, "no shared experts");
    CHECK(with_key(&c, "n_routed_experts", "null") && c.n_experts == 0 && !config_is_moe(&c, 2), "a dense deepseek");
    CHECK(with_key(&c, "aux_loss_alpha", "0.01") && c.aux_alpha == 0.01f, "aux_loss_alpha");
    CHECK(with_key(&c, "seq_aux", "false") && !c.seq_aux, "seq_aux");
    CHECK(with_key(&c, "tie_word_embeddings", "true") && c.tied_head, "tie_word_embeddings");
    CHECK(with_key(&c, "rope_theta", "100000") && c.rope_base == 100000, "rope_theta");
    CHECK(with_key(&c, "rope_scaling", "{\"type\":\"linear\",\"factor\":4}") && c.rope.kind == ROPE_LINEAR &&
              c.rope.factor == 4,
          "rope_scaling");
    CHECK(with_key(&c, "rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":5e5}") && c.rope_base == 5e5f &&
              c.rope.kind == ROPE_PLAIN,
          "rope_parameters");
    CHECK(with_key(&c, "eos_token_id", "[2,7]") && c.n_eos == 2 && c.eos_id[1] == 7, "two ends");
    CHECK(with_key(&c, "bos_token_id", "-1") && c.bos_id == UINT32_MAX, "bos -1");
    CHECK(with_key(&c, "head_dim", "16") && c.head_dim == 16, "head_dim");
    const char generation[] = "{\"eos_token_id\":[3,4,5]}";
    CHECK(config_generation_from_json(&c, generation, sizeof generation - 1, "g") && c.n_eos == 3 && c.eos_id[2] == 5,
          "generation_config.json: %s", fail_last());
    CHECK(refused(config_generation_from_json(&c, "{\"eos_token_id\":96}", 19, "g"), "eos_token_id is 96"), "%s",
          fail_last());
    CHECK(isnan(c.sampling.temperature), "what is not said of sampling");
    static const char *const SAID[] = {
        "{\n  \"bos_token_id\": 1,\n  \"eos_token_id\": [3, 4],\n  \"do_sample\": true,\n  \"temperature\": 0.6,\n  "
        "\"top_k\": 50,\n"
        "  \"top_p\": 0.95,\n  \"min_p\": 0.0,\n  \"repetition_penalty\": 1.05,\n  \"pad_token_id\": null\n}\n",
        "{\n  \"bos_token_id\": 1,\n  \"eos_token_id\": 3,\n  \"do_sample\": false,\n  \"pad_token_id\": null\n}\n",
        "{\n  \"bos_token_id\": 1,\n  \"eos_token_id\": 3,\n  \"pad_token_id\": null\n}\n"};
    for (size_t i = 0; i < sizeof SAID / sizeof *SAID; i++) {
        c.bos_id = 1;
        CHECK(config_generation_from_json(&c, SAID[i], strlen(SAID[i]), "g"), "%s", fail_last());
        char *back = config_generation_to_json(&c);
        CHECK(strcmp(back, SAID[i]) == 0, "'%s' comes back as '%s'", SAID[i], back);
        free(back);
    }
    static const char ODD[] = "{\"temperature\":\"hot\",\"do_sample\":1,\"top_k\":0.5,\"top_p\":null,\"min_p\":-1e300}";
    CHECK(config_generation_from_json(&c, ODD, strlen(ODD), "g"), "%s", fail_last());
    char *odd = config_generation_to_json(&c);
    CHECK(strcmp(odd, SAID[2]) == 0, "odd values are kept: %s", odd);
    free(odd);
    with_key(&c, "rope_theta", "12345.678");
    char *text = config_to_json(&c, "bfloat16");
    struct Config again;
    CHECK(config_from_json(&again, text, strlen(text), "again") && again.rope_base == c.rope_base &&
              again.norm_eps == c.norm_eps && again.n_shared == c.n_shared && again.first_dense == c.first_dense,
          "there and back: %s", fail_last());
    free(text);
}

static void check_counts(void) {
    struct Config c;
    CHECK(config_preset(&c, "llama2-7b") && config_check(&c, "llama2-7b"), "%s", fail_last());
    CHECK_NEAR((double)config_parameters(&c), 6738415616.0, 0, 0);
    CHECK_NEAR(config_train_flops(&c, 4096), 188.8e12, 0.05e12, 0);
    CHECK(config_preset(&c, "deepseek-llm-7b") && config_check(&c, "7b"), "%s", fail_last());
    CHECK_NEAR((double)config_parameters(&c), 6.9e9, 0.05e9, 0);
    CHECK_NEAR(config_train_flops(&c, 4096), 184.3e12, 0.05e12, 0);
    CHECK(config_preset(&c, "deepseek-moe-16b") && config_check(&c, "16b"), "%s", fail_last());
    CHECK_NEAR((double)config_parameters(&c), 16.4e9, 0.05e9, 0);
    CHECK_NEAR((double)config_activated_parameters(&c), 2.8e9, 0.05e9, 0);
    CHECK_NEAR(config_train_flops(&c, 4096), 75.9e12, 0.05e12, 0);
    CHECK(config_preset(&c, "smollm2-135m") && config_check(&c, "135m"), "%s", fail_last());
    CHECK_NEAR((double)config_parameters(&c), 134515008.0, 0, 0);
    CHECK(!config_preset(&c, "gpt-5"), "an unknown preset");
    static const char *const small[] = {"tiny", "tiny-moe"};
    for (int i = 0; i < 2; i++) {
        CHECK(config_preset(&c, small[i]) && config_check(&c, small[i]) && c.vocab_size == 512 &&
                  config_parameters(&c) > 200000 && config_parameters(&c) < 600000,
              "%s", small[i]);
        // The counts agree with the list of weights.
        uint32_t n;
        uint64_t sum = 0;
        struct WeightSpec *list = weight_list(&c, &n);
        for (uint32_t k = 0; k < n; k++)
            sum += (uint64_t)list[k].dim[0] * list[k].dim[1] * list[k].dim[2];
        CHECK(sum == config_parameters(&c), "%s: the list has %llu weights", small[i], (unsigned long long)sum);
        free(list);
    }
}

// ---- Whole models ----

static enum DType random_type(void *context, const struct WeightSpec *w) { return (void)context, (void)w, DT_F32; }

static bool random_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    uint64_t cols = w->dim[w->n_dims - 1], stream = hash_bytes(w->name, strlen(w->name), *(uint64_t *)context);
    for (uint64_t i = 0; i < count * cols; i++)
        ((float *)out)[i] = random_normal(1, stream, first * cols + i);
    return true;
}

static uint64_t rows_of(const struct WeightSpec *w) {
    return w->n_dims == 1 ? 1 : w->n_dims == 2 ? w->dim[0] : (uint64_t)w->dim[0] * w->dim[1];
}

// The file must hold what the source gives, encoded as `type` (norms and routers as `small`).
static void check_model(const char *path, const struct Config *c, const struct WeightSource *source, enum DType type,
                        enum DType small) {
    struct ModelFile f;
    if (!CHECK(modelfile_open(&f, path), "%s: %s", path, fail_last()))
        return;
    CHECK(f.config.arch == c->arch && f.config.dim == c->dim && f.config.n_experts == c->n_experts &&
              f.config.n_active == c->n_active && f.config.n_shared == c->n_shared &&
              f.config.first_dense == c->first_dense && f.config.norm_eps == c->norm_eps &&
              f.config.rope.kind == c->rope.kind && f.config.rope.factor == c->rope.factor &&
              f.config.rope_base == c->rope_base && f.config.head_dim == c->head_dim && f.config.n_eos == c->n_eos &&
              f.config.eos_id[0] == c->eos_id[0] && f.config.bos_id == c->bos_id && f.config.tied_head == c->tied_head,
          "%s: the config came through", path);
    uint32_t n;
    struct WeightSpec *list = weight_list(c, &n);
    CHECK(n == f.n_tensors, "%s: %u tensors, %u expected", path, f.n_tensors, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct WeightSpec *w = &list[i];
        const struct FileTensor *t = modelfile_find(&f, w->name);
        if (!CHECK(t != NULL, "%s: %s is absent", path, w->name))
            continue;
        enum DType expected = w->role == ROLE_NORM || w->role == ROLE_ROUTER ? small : type;
        uint64_t rows = rows_of(w), cols = w->dim[w->n_dims - 1];
        CHECK(t->type == expected && t->n_rows == rows && t->cols == cols, "%s: %s is of type %s", path, w->name,
              DTYPES[t->type].name);
        float *wide = xmalloc(cols * 4);
        uint8_t *wanted = xmalloc(t->row_bytes), *all = xmalloc(rows * t->row_bytes), *one = xmalloc(t->row_bytes);
        CHECK(modelfile_read_rows(&f, t, 0, rows, all), "%s", fail_last());
        uint64_t wrong = 0;
        for (uint64_t r = 0; r < rows; r++) {
            source->rows(source->context, w, r, 1, wide);
            quant_encode_row(t->type, wide, cols, wanted);
            wrong += memcmp(wanted, all + r * t->row_bytes, t->row_bytes) != 0;
            wrong += !modelfile_read_rows(&f, t, r, 1, one) || memcmp(wanted, one, t->row_bytes) != 0;
        }
        CHECK(wrong == 0, "%s: %s: %llu rows differ", path, w->name, (unsigned long long)wrong);
        CHECK(!modelfile_read_rows(&f, t, rows, 1, one) && !modelfile_read_rows(&f, t, UINT64_MAX, 2, one),
              "rows beyond the end");
        free(wide);
        free(wanted);
        free(all);
        free(one);
    }
    free(list);
    modelfile_close(&f);
}

static bool same_bytes(const char *a, const char *b) {
    uint8_t *x = NULL, *y = NULL;
    uint64_t n = 0, m = 0;
    bool same = file_read(a, 1 << 30, &x, &n) && file_read(b, 1 << 30, &y, &m) && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

// A vocabulary of `n` tokens: the bytes, a few merges, special tokens at the end.
static void write_vocab(struct GgufWriter *w, uint32_t n, const char *pre) {
    char(*text)[16] = xcalloc(n, sizeof *text);
    struct GgufString *tokens = xcalloc(n, sizeof *tokens);
    int32_t *types = xcalloc(n, sizeof *types);
    for (uint32_t i = 0; i < n; i++) {
        types[i] = i == 1 || i == 2 ? 3 : i == 3 ? 4 : 1;
        snprintf(text[i], sizeof text[i],
                 i == 1   ? "<bos>"
                 : i == 2 ? "<eos>"
                 : i == 3 ? "user%u"
                 : i > 90 ? "[PAD%u]"
                          : "t%u",
                 i);
        if (i > 90)
            types[i] = 5;
        tokens[i] = (struct GgufString){text[i], strlen(text[i])};
    }
    gguf_writer_string(w, "general.architecture", "llama");
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", pre);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, n);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", types, n);
    gguf_writer_strings(w, "tokenizer.ggml.merges", (struct GgufString[]){{"t4 t5", 5}, {"t6 t7", 5}}, 2);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", false);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    gguf_writer_string(w, "tokenizer.chat_template", "{{ 'a \"template\"\n' }}");
    free(text);
    free(tokens);
    free(types);
}

// GGUF to JSON and back gives the same keys, byte for byte.
static void check_vocab(const char *dir, const struct Config *c) {
    static const char *const pres[] = {"gpt-2", "smollm", "deepseek-llm"};
    for (int p = 0; p < 3; p++) {
        char *path = path_join(dir, "vocab.gguf"), *back = path_join(dir, "back.gguf");
        struct GgufWriter w;
        gguf_writer_init(&w);
        write_vocab(&w, c->vocab_size, pres[p]);
        struct Gguf g = {.file.fd = -1};
        char *json = NULL, *config = NULL;
        CHECK(gguf_writer_begin(&w, path) && gguf_writer_end(&w) && gguf_open(&g, path) &&
                  vocab_to_json(&g, "{{ 'a \"template\"\n' }}", &json, &config),
              "%s", fail_last());
        CHECK(json && strstr(json, "<bos>") && !strstr(json, "PAD95") && strstr(config, "chat_template"), "the texts");
        gguf_writer_init(&w);
        gguf_writer_string(&w, "general.architecture", "llama");
        CHECK(vocab_to_gguf(&w, c, json, strlen(json), config, strlen(config), "{{ 'a \"template\"\n' }}", "t.json") &&
                  gguf_writer_begin(&w, back) && gguf_writer_end(&w),
              "%s: %s", pres[p], fail_last());
        CHECK(same_bytes(path, back), "%s: the keys are the same again", pres[p]);
        // A chain that GGUF has no name for is refused and not guessed.
        char *regex = strstr(json, p == 0 ? "\"add_prefix_space\": false" : "\"individual_digits\": true");
        if (CHECK(regex != NULL, "%s", pres[p])) {
            memcpy(strchr(regex, ':') + 1, p == 0 ? " true " : " null", 5 + (p == 0));
            gguf_writer_init(&w);
            CHECK(
                refused(vocab_to_gguf(&w, c, json, strlen(json), NULL, 0, NULL, "t.json"), "pre_tokenizer is none of"),
                "%s", fail_last());
            gguf_writer_abort(&w);
        }
        struct Config fewer = *c;
        fewer.vocab_size = 80;
        gguf_writer_init(&w);
        CHECK(refused(vocab_copy_gguf(&w, &fewer, &g, NULL), "but the embedding 80 rows"), "%s", fail_last());
        gguf_writer_abort(&w);
        gguf_close(&g);
        free(json);
        free(config);
        unlink(path);
        unlink(back);
        free(path);
        free(back);
    }
}

static void check_round_trips(const char *dir, const struct Config *c, uint64_t seed) {
    struct WeightSource source = {&seed, random_type, random_rows};
    char *vocab = path_join(dir, "v.gguf"), *hf = path_join(dir, "hf"), *half = path_join(dir, "half");
    char *sharded = path_join(dir, "sharded"), *gguf = path_join(dir, "m.gguf"), *q = path_join(dir, "q.gguf");
    char *again = path_join(dir, "again.gguf"), *back = path_join(dir, "back"), *raw = path_join(dir, "raw.gguf");
    struct GgufWriter w;
    struct ModelFile tokenizer, f = {0};
    gguf_writer_init(&w);
    write_vocab(&w, c->vocab_size, "smollm");
    CHECK(gguf_writer_begin(&w, vocab) && gguf_writer_end(&w) && modelfile_open_config(&tokenizer, vocab), "%s",
          fail_last());
    CHECK(refused(modelfile_open(&f, vocab), "a vocabulary alone"), "%s", fail_last());
    CHECK(tokenizer.vocab_only && tokenizer.chat_template && tokenizer.n_tensors == 0, "a vocabulary opens");
    CHECK(modelwrite_hf(hf, c, DT_F32, &source, &tokenizer, 0), "%s", fail_last());
    check_model(hf, c, &source, DT_F32, DT_F32);
    CHECK(refused(modelwrite_hf(hf, c, DT_F32, &source, NULL, 0), "not empty"), "%s", fail_last());
    CHECK(refused(modelwrite_hf(half, c, DT_Q4_0, &source, NULL, 0), "holds f32, f16 or bf16"), "%s", fail_last());
    CHECK(modelwrite_hf(half, c, DT_BF16, &source, NULL, 0), "%s", fail_last());
    check_model(half, c, &source, DT_BF16, DT_BF16);
    CHECK(modelwrite_hf(sharded, c, DT_F32, &source, &tokenizer, 20000), "%s", fail_last());
    check_model(sharded, c, &source, DT_F32, DT_F32);
    struct Config plain = *c; // GGUF has no tied head with experts: it comes back with a head of its own
    plain.tied_head = c->tied_head && c->n_experts == 0;
    plain.arch = c->n_experts ? ARCH_DEEPSEEK : ARCH_LLAMA;
    if (CHECK(modelfile_open(&f, sharded) && f.n_shards > 3 && f.chat_template && f.tokenizer_path, "%s",
              fail_last())) {
        struct WeightSource files = modelfile_source(&f);
        CHECK(modelwrite_gguf(gguf, c, &(struct WriteTypes){.type = DT_F32, .embed_type = DT_COUNT}, &files, &f, "x"),
              "%s", fail_last());
        CHECK(refused(modelwrite_gguf(gguf, c, &(struct WriteTypes){.type = DT_F32, .embed_type = DT_COUNT}, &files, &f,
                                      "x"),
                      "exists already"),
              "%s", fail_last());
        CHECK(modelwrite_gguf(q, c, &(struct WriteTypes){.type = DT_Q4_1, .embed_type = DT_Q8_0}, &files, &f, "x"),
              "%s", fail_last());
        modelfile_close(&f);
    }
    if (plain.tied_head == c->tied_head)
        check_model(gguf, &plain, &source, DT_F32, DT_F32);
    if (CHECK(modelfile_open(&f, q), "%s", fail_last())) {
        struct WeightSource files = modelfile_source(&f);
        CHECK(modelwrite_gguf(raw, &f.config, &(struct WriteTypes){.type = DT_Q4_1, .embed_type = DT_Q8_0}, &files, &f,
                              "x"),
              "%s", fail_last());
        CHECK(same_bytes(q, raw), "blocks are copied as they are, rope's order there and back");
        CHECK(modelwrite_hf(back, &f.config, DT_F32, &files, &f, 0), "%s", fail_last());
        modelfile_close(&f);
    }
    if (CHECK(modelfile_open(&f, back), "%s", fail_last())) {
        struct WeightSource files = modelfile_source(&f);
        CHECK(modelwrite_gguf(again, &f.config, &(struct WriteTypes){.type = DT_Q4_1, .embed_type = DT_Q8_0}, &files,
                              &f, "x"),
              "%s", fail_last());
        modelfile_close(&f);
    }
    CHECK(file_exists(again), "through GGUF, a folder and GGUF");
    modelfile_close(&tokenizer);
    char *names[] = {vocab, hf, half, sharded, gguf, q, again, back, raw};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (dir_exists(names[i]))
            remove_tree(names[i]);
        unlink(names[i]);
        free(names[i]);
    }
}

// ---- Broken models ----

static void put_file(const char *dir, const char *name, const char *text) {
    char *path = path_join(dir, name);
    CHECK(file_write_atomic(path, text, strlen(text)), "%s", fail_last());
    free(path);
}

// A model.safetensors from the plan of a whole model, with one tensor left out, or of another type, or of another shape.
static void put_weights(const char *dir, const struct Config *c, const char *odd, enum DType type,
                        uint64_t extra_rows) {
    struct SafetensorsWriter w;
    uint32_t n;
    struct WeightSpec *list = weight_list(c, &n);
    safetensors_writer_init(&w);
    for (uint32_t i = 0; i < n; i++) {
        bool hit = odd && strcmp(odd, list[i].name) == 0;
        uint64_t dim[2] = {list[i].dim[0] + (hit ? extra_rows : 0), list[i].dim[1]};
        if (!hit || type != DT_COUNT)
            safetensors_writer_add(&w, list[i].name, hit ? type : DT_F32, list[i].n_dims, dim);
    }
    free(list);
    char *path = path_join(dir, "model.safetensors");
    CHECK(safetensors_writer_begin(&w, path), "%s", fail_last());
    uint8_t *zeros = xcalloc(w.data_bytes, 1);
    CHECK(safetensors_writer_data(&w, zeros, w.data_bytes) && safetensors_writer_end(&w), "%s", fail_last());
    free(zeros);
    free(path);
}

static void check_opens_not(const char *dir, const char *words) {
    struct ModelFile f;
    bool ok = modelfile_open(&f, dir);
    CHECK(refused(ok, words), "'%s' expected, but: %s", words, ok ? "it opened" : fail_last());
    if (ok)
        modelfile_close(&f);
}

static void check_broken_folders(const char *top) {
    char *dir = path_join(top, "broken");
    struct Config c;
    config_preset(&c, "tiny");
    c.vocab_size = 64;
    c.n_layers = 1;
    c.bos_id = 1;
    c.eos_id[0] = 2;
    struct ModelFile f;
    check_opens_not(dir, "cannot be opened");
    dir_make(dir);
    check_opens_not(dir, "no config.json");
    put_file(dir, "adapter_config.json", "{}");
    check_opens_not(dir, "it holds an adapter");
    char *config = config_to_json(&c, "float32");
    put_file(dir, "config.json", config);
    check_opens_not(dir, "no model.safetensors");
    put_file(dir, "pytorch_model.bin", "PK");
    check_opens_not(dir, "a pickle can run code");
    put_weights(dir, &c, NULL, DT_F32, 0);
    CHECK(modelfile_open(&f, dir), "%s", fail_last());
    modelfile_close(&f);
    put_weights(dir, &c, "model.layers.0.mlp.up_proj.weight", DT_COUNT, 0);
    check_opens_not(dir, "tensor model.layers.0.mlp.up_proj.weight is missing");
    put_weights(dir, &c, "model.norm.weight", DT_U32, 0);
    check_opens_not(dir, "model.norm.weight is of type U32");
    put_weights(dir, &c, "model.embed_tokens.weight", DT_F32, 1);
    check_opens_not(dir, "has the shape (65, 64); the config asks for (64, 64)");
    put_weights(dir, &c, "model.layers.0.self_attn.k_proj.weight", DT_F32, 32);
    check_opens_not(dir, "has the shape (64, 64); the config asks for (32, 64)");
    put_weights(dir, &c, NULL, DT_F32, 0);
    put_file(dir, "generation_config.json", "{\"eos_token_id\":64}");
    check_opens_not(dir, "generation_config.json: eos_token_id is 64");
    put_file(dir, "generation_config.json", "{\"eos_token_id\":[5,6]}");
    put_file(dir, "tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"x\",\"template\":\"no\"},{\"name\":\"default\",\"template\":\"yes\"}]}");
    CHECK(modelfile_open(&f, dir) && f.config.n_eos == 2 && strcmp(f.chat_template, "yes") == 0, "%s", fail_last());
    modelfile_close(&f);
    put_file(dir, "chat_template.jinja", "jinja");
    CHECK(modelfile_open_config(&f, dir) && strcmp(f.chat_template, "jinja") == 0, "%s", fail_last());
    modelfile_close(&f);
    static const char *const indices[][2] = {
        {"{\"weight_map\":{\"a\":\"../model.safetensors\"}}", "not a plain *.safetensors name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a plain *.safetensors name"},
        {"{\"weight_map\":{\"a\":3}}", "not a plain *.safetensors name"},
        {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", "cannot be opened"},
        {"{\"weight_map\":{}}", "weight_map is missing or empty"},
        {"{}", "weight_map is missing or empty"},
        {"[1", "not valid JSON"},
        {"{\"weight_map\":{\"model.norm.weight\":\"shard.safetensors\"}}", "embed_tokens.weight is missing"},
    };
    // An index that is left of earlier shards counts only where there is no model.safetensors.
    char *whole = path_join(dir, "model.safetensors"), *shard = path_join(dir, "shard.safetensors");
    put_file(dir, "model.safetensors.index.json", indices[0][0]);
    CHECK(modelfile_open(&f, dir) && f.n_shards == 1, "%s", fail_last());
    modelfile_close(&f);
    CHECK(rename(whole, shard) == 0, "%s", shard);
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        put_file(dir, "model.safetensors.index.json", indices[i][0]);
        check_opens_not(dir, indices[i][1]);
    }
    free(config), free(whole), free(shard);
    remove_tree(dir);
    free(dir);
}

// A GGUF model of a few kilobytes: cut at every byte, its keys changed one by one.
static void check_broken_gguf(const char *top) {
    struct Config c;
    config_preset(&c, "tiny-moe");
    c.dim = 32, c.n_heads = c.n_kv_heads = 2, c.hidden = 8, c.moe_hidden = 8, c.n_layers = 2, c.n_experts = 2;
    c.n_active = 1, c.vocab_size = 16, c.bos_id = 1, c.eos_id[0] = 2;
    uint64_t seed = 5;
    struct WeightSource source = {&seed, random_type, random_rows};
    char *path = path_join(top, "small.gguf");
    CHECK(modelwrite_gguf(path, &c, &(struct WriteTypes){.type = DT_Q8_0, .embed_type = DT_COUNT}, &source, NULL,
                          "small"),
          "%s", fail_last());
    struct ModelFile f;
    CHECK(modelfile_open(&f, path), "%s", fail_last());
    // Rows of 8 fit no block of Q8_0.
    const struct FileTensor *t = modelfile_find(&f, "model.layers.1.mlp.experts.down_proj.weight");
    CHECK(t && t->type == DT_F16, "rows of 8 are stored as f16");
    modelfile_close(&f);
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    CHECK(file_read(path, 1 << 20, &data, &bytes), "%s", fail_last());
    struct Gguf g;
    for (uint64_t cut = 0; cut < bytes; cut++) {
        uint8_t *part = memcpy(xmalloc(cut), data, cut);
        bool ok = gguf_open_memory(&g, part, cut, "cut"), padding = bytes - cut < 32;
        CHECK(!ok || padding, "%llu of %llu bytes pass for the model", (unsigned long long)cut,
              (unsigned long long)bytes);
        if (ok)
            gguf_close(&g);
        free(part);
    }
    static const struct {
        const char *key;
        uint32_t value;
        const char *words;
    } cases[] = {
        {"deepseek.block_count", 3, "blk.2.attn_norm.weight is missing"},
        {"deepseek.block_count", UINT32_MAX, "num_hidden_layers"},
        {"deepseek.embedding_length", 64, "has the shape"},
        {"deepseek.expert_count", 4, "ffn_gate_inp.weight has the shape (2, 32); the config asks for (4, 32)"},
        {"deepseek.expert_used_count", 9, "num_experts_per_tok is 9"},
        {"deepseek.expert_shared_count", 0, "no such weights, but they are there: blk.1.ffn_gate_shexp.weight"},
        {"deepseek.attention.head_count", 3, "attention"},
        {"deepseek.rope.dimension_count", 8, "rope over a part of the head"},
        {"deepseek.attention.value_length", 8, "must be equal"},
        {"deepseek.vocab_size", 99, NULL}, // the embedding says how many there are
        {"deepseek.leading_dense_block_count", 0, "blk.0.ffn_gate_inp.weight is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *key = memmem(data, bytes, cases[i].key, strlen(cases[i].key)), kept[4];
        if (!CHECK(key != NULL, "%s", cases[i].key))
            continue;
        key += strlen(cases[i].key) + 4;
        memcpy(kept, key, 4);
        memcpy(key, &cases[i].value, 4);
        char *broken = path_join(top, "broken.gguf");
        file_write_atomic(broken, data, bytes);
        if (cases[i].words)
            check_opens_not(broken, cases[i].words);
        else if (CHECK(modelfile_open(&f, broken), "%s", fail_last()))
            modelfile_close(&f);
        memcpy(key, kept, 4);
        unlink(broken);
        free(broken);
    }
    // A key of the same length that would change the result.
    uint8_t *key = memmem(data, bytes, "deepseek.rope.freq_base", 23);
    CHECK(key && memcpy(key, "deepseek.residual_scale", 23) && file_write_atomic(path, data, bytes), "the key");
    check_opens_not(path, "deepseek.residual_scale is not supported");
    // Switches that GGUF's deepseek cannot express.
    struct Config odd = c;
    char *other = path_join(top, "other.gguf");
    odd.norm_topk = true;
    CHECK(refused(modelwrite_gguf(other, &odd, &(struct WriteTypes){.type = DT_F32, .embed_type = DT_COUNT}, &source,
                                  NULL, ""),
                  "norm_topk_prob"),
          "%s", fail_last());
    odd = c, odd.n_shared = 0;
    CHECK(refused(modelwrite_gguf(other, &odd, &(struct WriteTypes){.type = DT_F32, .embed_type = DT_COUNT}, &source,
                                  NULL, ""),
                  "shared"),
          "%s", fail_last());
    odd = c, odd.moe_period = 2;
    CHECK(refused(modelwrite_gguf(other, &odd, &(struct WriteTypes){.type = DT_F32, .embed_type = DT_COUNT}, &source,
                                  NULL, ""),
                  "moe_layer_freq"),
          "%s", fail_last());
    free(other);
    free(data);
    unlink(path);
    free(path);
}

int main(void) {
    fail_quiet(true);
    char dir[] = "test-models-XXXXXX";
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    check_formats();
    check_refused_keys();
    check_honoured_keys();
    check_counts();
    struct Config c;
    config_preset(&c, "tiny-moe");
    c.vocab_size = 96, c.bos_id = 1, c.eos_id[0] = 2;
    c.rope = (struct Rope){.kind = ROPE_LINEAR, .factor = 2};
    check_vocab(dir, &c);
    check_round_trips(dir, &c, 1);
    c.tied_head = true;
    check_round_trips(dir, &c, 2);
    config_preset(&c, "tiny");
    c.vocab_size = 96, c.bos_id = 1, c.eos_id[0] = 2, c.tied_head = true, c.head_dim = 32;
    check_round_trips(dir, &c, 3);
    check_broken_folders(dir);
    check_broken_gguf(dir);
    CHECK(rmdir(dir) == 0, "nothing is left behind in %s", dir);
    remove_tree(dir);
    return check_done();
}
