// Where weights lie changes no bit of an answer: experts streamed through few slots, layers in host memory, and both, against all on the
// device; through prefill, decode of several sequences and scoring. Also with copies by the device (memory that the host cannot map).
#include "card.h"
#include "check.h"
#include "model/experts.h"
#include "model/session.h"
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 64, PROMPT = 23, STEPS = 9, SEQUENCES = 3 };
static const struct SampleParams GREEDY = {0};

struct Answers {
    uint32_t ids[STEPS][SEQUENCES];
    float logprobs[STEPS][SEQUENCES], scores[CONTEXT];
};

static bool answers_make(struct Model *m, struct Answers *a) {
    struct Session s;
    struct SessionOptions o = {.n_sequences = SEQUENCES, .context = CONTEXT, .chunk = 16, .cache_type = DT_F16};
    uint32_t ids[CONTEXT], words[4], which[SEQUENCES] = {0, 1, 2};
    struct SampleParams params[SEQUENCES] = {{0}};
    memset(a, 0, sizeof *a);
    bool ok = session_init(&s, m, &o);
    for (uint32_t i = 0; i < CONTEXT; i++) {
        philox(5, 1, i, words);
        ids[i] = words[0] % m->config.vocab_size;
    }
    for (uint32_t i = 0; i < SEQUENCES && ok; i++)
        ok = session_prefill(&s, i, ids + 7 * i, PROMPT + i, &GREEDY, &a->ids[0][i], &a->logprobs[0][i]);
    for (uint32_t t = 1; t < STEPS && ok; t++)
        ok = session_decode(&s, SEQUENCES, which, a->ids[t - 1], params, a->ids[t], a->logprobs[t]);
    ok = ok && session_score(&s, ids, CONTEXT, a->scores);
    a->scores[0] = 0; // NAN
    session_free(&s);
    return ok;
}

static void test_placements(struct Device *dev, const char *folder, enum DType type) {
    static const struct {
        uint32_t host_layers, slots;
    } PLACES[] = {{0, 0}, {0, 1}, {0, 1000}, {2, 0}, {1, 1}, {100, 0}};
    struct ModelFile f;
    struct Answers first, other;
    char *path = xsprintf("%s/tests/golden/%s", VKMOE_SOURCE_DIR, folder);
    if (!CHECK(modelfile_open(&f, path), "%s", fail_last()))
        return;
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        struct ModelOptions o = {.type = type, .host_layers = PLACES[i].host_layers, .expert_slots = PLACES[i].slots};
        struct Model m;
        uint64_t before = dev->allocated_bytes, host_before = dev->host_bytes;
        if (!CHECK(model_load(&m, dev, &f, &o) && answers_make(&m, i ? &other : &first), "%s", fail_last()))
            break;
        CHECK(i == 0 || memcmp(&first, &other, sizeof first) == 0,
              "%s: %u layers in host memory, %u slots: another answer (log-probability %.9g, not %.9g)", folder,
              o.host_layers, o.expert_slots, (double)other.logprobs[1][0], (double)first.logprobs[1][0]);
        struct ExpertUse use = experts_use(&m);
        uint32_t all = use.experts;
        CHECK((o.expert_slots && m.config.n_experts) == (use.slots > 0) && use.slots <= all, "%u slots of %u",
              use.slots, all);
        if (o.expert_slots == 1 && all)
            CHECK(use.slots == m.config.n_experts && use.misses > all && use.hits > 0,
                  "few slots: %u, %llu hits, %llu misses", use.slots, (unsigned long long)use.hits,
                  (unsigned long long)use.misses);
        if (o.expert_slots == 1000)
            CHECK(use.slots == all && use.misses <= all, "room for all: %u slots, %llu misses", use.slots,
                  (unsigned long long)use.misses);
        model_free(&m);
        // The ring of uploads stays once it was needed.
        CHECK(dev->allocated_bytes == before && (i == 0 || dev->host_bytes == host_before), "memory is given back");
    }
    modelfile_close(&f);
    free(path);
}

// An adapter of routed experts would multiply by slots.
static void test_refusal(struct Device *dev) {
    struct ModelFile f;
    struct Model m;
    struct ModelOptions o = {.type = DT_COUNT, .expert_slots = 1};
    CHECK(modelfile_open(&f, VKMOE_SOURCE_DIR "/tests/golden/deepseek-default") && model_load(&m, dev, &f, &o), "%s",
          fail_last());
    fail_quiet(true);
    CHECK(!model_add_lora(&m, &(struct LoraOptions){.rank = 4, .alpha = 8, .targets = LORA_ALL}, 1) &&
              strstr(fail_last(), "--experts-on gpu"),
          "%s", fail_last());
    fail_quiet(false);
    model_free(&m);
    modelfile_close(&f);
}

int main(void) {
    struct Device dev;
    if (!card_open(&dev)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    for (int mapped = 1; mapped >= 0; mapped--) {
        device_switch(&dev, CAP_host_visible, mapped);
        test_placements(&dev, "deepseek-default", DT_COUNT);
        test_placements(&dev, "deepseek-all-moe", DT_Q8_0);
        test_placements(&dev, "llama-gqa", DT_F16);
    }
    test_refusal(&dev);
    device_close(&dev);
    return check_done();
}
