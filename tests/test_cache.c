// Types of the key-value cache: what a session says with f16, bf16 and q8_0 is what it says with f32 but for the rounding, through prefill,
// chunks and decode alike; it takes the memory it says; what a type cannot hold is refused.
#include "check.h"
#include "model/session.h"
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 96, PROMPT = 61, FED = 20 };
static const struct SampleParams GREEDY = {0};

static double relative(const float *got, const float *want, uint32_t n) {
    double difference = 0, size = 0;
    for (uint32_t i = 0; i < n; i++) {
        difference += pow((double)got[i] - (double)want[i], 2);
        size += pow((double)want[i], 2);
    }
    return sqrt(difference / size);
}

// Logits behind a prompt in chunks of 17 and, token by token from FED on, through decode.
static bool logits_of(struct Model *m, enum DType type, const uint32_t *ids, float *chunked, float *decoded,
                      uint64_t *cache_bytes) {
    struct Session s;
    struct SessionOptions o = {.n_sequences = 2, .context = CONTEXT, .chunk = 17, .cache_type = type};
    uint32_t next, one = 1;
    bool ok = session_init(&s, m, &o) && session_prefill(&s, 1, ids, PROMPT, &GREEDY, &next, NULL) &&
              session_logits(&s, 0, chunked);
    *cache_bytes = s.cache.used_bytes;
    if (ok)
        session_rewind(&s, 1, FED);
    for (uint32_t i = FED; i < PROMPT && ok; i++)
        ok = session_decode(&s, 1, &one, &ids[i], &GREEDY, &next, NULL);
    ok = ok && session_logits(&s, 0, decoded);
    session_free(&s);
    return ok;
}

static void test_types(struct Model *m) {
    static const struct {
        enum DType type;
        double bound;
    } TYPES[] = {{DT_F32, 1e-5}, {DT_F16, 2e-3}, {DT_BF16, 2e-2}, {DT_Q8_0, 5e-2}};
    uint32_t vocab = m->config.vocab_size, ids[PROMPT], words[4];
    for (uint32_t i = 0; i < PROMPT; i++) {
        philox(7, 1, i, words);
        ids[i] = words[0] % vocab;
    }
    float *want = xmalloc(vocab * sizeof *want), *chunked = xmalloc(vocab * sizeof *chunked);
    float *decoded = xmalloc(vocab * sizeof *decoded);
    uint64_t bytes;
    CHECK(logits_of(m, DT_F32, ids, want, decoded, &bytes), "%s", fail_last());
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        const char *name = DTYPES[TYPES[i].type].name;
        if (!CHECK(logits_of(m, TYPES[i].type, ids, chunked, decoded, &bytes), "%s: %s", name, fail_last()))
            continue;
        double error = relative(chunked, want, vocab), apart = relative(decoded, chunked, vocab);
        CHECK(error <= TYPES[i].bound, "%s: logits are %.3g from those of f32", name, error);
        CHECK(TYPES[i].type == DT_F32 || error > 0, "%s: logits are those of f32: the type was not used", name);
        // Sums in another order may fall to the other side of a rounding, then of the next layer's.
        CHECK(apart <= TYPES[i].bound, "%s: decode is %.3g from prefill", name, apart);
        uint64_t need = 2 * align_up(CONTEXT, 64) * session_cache_bytes(&m->config, TYPES[i].type);
        CHECK(bytes >= need && bytes <= need + 512 * 2 * m->config.n_layers, "%s: %llu bytes, not %llu", name,
              (unsigned long long)bytes, (unsigned long long)need);
    }
    free(want), free(chunked), free(decoded);
}

static void test_refusal(struct Device *dev, struct Config c) {
    struct Model m;
    struct Session s;
    c.head_dim = 24;
    struct SessionOptions o = {.n_sequences = 1, .context = CONTEXT, .cache_type = DT_Q8_0};
    CHECK(model_init(&m, dev, &c, DT_F32, CONTEXT), "%s", fail_last());
    fail_quiet(true);
    CHECK(!session_init(&s, &m, &o) && strstr(fail_last(), "heads of 24"), "%s", fail_last());
    fail_quiet(false);
    model_free(&m);
}

int main(void) {
    struct Device dev;
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    for (int moe = 0; moe < 2; moe++) {
        struct Config c;
        struct Model m;
        CHECK(config_preset(&c, moe ? "tiny-moe" : "tiny"), "preset");
        c.n_heads = 2, c.n_kv_heads = moe ? 2 : 1, c.head_dim = 32; // q8_0 has blocks of 32
        c.init_std = 0.1f;
        if (!CHECK(model_init(&m, &dev, &c, DT_F32, CONTEXT) && model_randomise(&m, 11), "%s", fail_last()))
            continue;
        test_types(&m);
        model_free(&m);
        test_refusal(&dev, c);
    }
    device_close(&dev);
    return check_done();
}
