// Peaks of weights, which products in f16 alone want: where they are kept, that they change no bit, that no prompt looks for them again, and that they follow
// weights that are written anew. (Training's part is in test_training.c.)
#include "card.h"
#include "check.h"
#include "model/session.h"
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 97 };
static const struct SampleParams GREEDY = {0};

static bool open_session(struct Session *s, struct Model *m, uint32_t sequences, uint32_t chunk) {
    struct SessionOptions o = {.n_sequences = sequences, .context = CONTEXT, .chunk = chunk};
    return CHECK(session_init(s, m, &o), "%s", fail_last());
}

static uint32_t peaks_kept(const struct Model *m, uint64_t *bytes) {
    uint32_t n = 0;
    *bytes = 0;
    for (uint32_t i = 0; i < m->n_params; i++)
        if (tensor_exists(&m->params[i].peak))
            n++, *bytes += align_up(m->params[i].peak.bytes, 256);
    return n;
}

static void forget_peaks(struct Model *m) {
    for (uint32_t i = 0; i < m->n_params; i++)
        m->params[i].peak = (struct Tensor){0};
}

// Where they are kept, on devices that only count: of all weights but an embedding where products want them, in the plan; elsewhere none.
static void test_peaks_kept(void) {
    static const struct {
        enum DType units, weights;
        bool streamed, tied, kept;
    } CASES[] = {{DT_F16, DT_BF16, false, false, true},  {DT_F16, DT_Q4_0, false, false, true},
                 {DT_F16, DT_Q4_0, true, false, true},   {DT_F16, DT_BF16, false, true, true},
                 {DT_F16, DT_F16, false, false, false},  {DT_F16, DT_F32, false, false, false},
                 {DT_BF16, DT_Q4_0, false, false, false}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct Device card;
        struct Config c;
        struct Model m;
        struct Session s;
        struct SessionOptions so = {.n_sequences = 1, .context = CONTEXT, .scoring = true};
        struct ModelOptions mo = {.type = CASES[i].weights, .max_positions = CONTEXT};
        device_open_dry(&card, NULL);
        card.coopmat = (struct CoopmatShape){16, 16, 16, CASES[i].units};
        card.coopmat_f16 = CASES[i].units == DT_F16;
        device_switch(&card, CAP_f16, true), device_switch(&card, CAP_bf16, true);
        device_switch(&card, CAP_coopmat, true);
        if (card.kernel_off[CASES[i].units == DT_F16 ? KERNEL_gemm_nt_matrix_f16 : KERNEL_gemm_nt_matrix_bf16]) {
            check_skip("peaks of weights: this build has no modules for matrix units");
            return;
        }
        config_preset(&c, "tiny-moe");
        c.tied_head = CASES[i].tied;
        if (CASES[i].streamed)
            mo.expert_slots = c.n_experts;
        bool ok = model_init_with(&m, &card, &c, &mo);
        uint64_t weights = m.arena.used_bytes, bytes;
        ok = CHECK(ok && session_init(&s, &m, &so), "%s", fail_last());
        uint32_t n = peaks_kept(&m, &bytes), want = c.tied_head;
        for (uint32_t p = 0; p < m.n_params; p++)
            want += m.params[p].spec.n_dims > 1 && m.params[p].w.type != DT_F32 &&
                    m.params[p].spec.role != ROLE_EMBED &&
                    !(CASES[i].streamed && m.params[p].spec.role == ROLE_EXPERTS);
        CHECK(n == (CASES[i].kept ? want : 0) && m.arena.used_bytes - weights == bytes && (want > 20 || !CASES[i].kept),
              "case %zu: peaks of %u of %u weights in %llu bytes, %llu were taken", i, n, want,
              (unsigned long long)bytes, (unsigned long long)(m.arena.used_bytes - weights));
        uint32_t ids[64] = {0};
        float scores[64];
        fail_quiet(true);
        session_score(&s, ids, 64, scores); // records it; there is nothing to run
        fail_quiet(false);
        CHECK(ok && s.n_prefills == 1 && program_uses(s.prefill[0].program, KERNEL_peaks) == CASES[i].streamed,
              "case %zu: a prompt looks for peaks, or does not", i);
        session_free(&s);
        session_init(&s, &m, &so);
        CHECK(m.arena.used_bytes - weights == bytes, "case %zu: a second session takes more of the model's memory", i);
        session_free(&s);
        model_free(&m);
        device_close(&card);
    }
}

static bool prompt_logits(struct Session *s, float *logits) {
    uint32_t n = 61, next, *ids = random_ids(&s->m->config, n, 1);
    session_rewind(s, 0, 0);
    bool ok = session_prefill(s, 0, ids, n, &GREEDY, &next, NULL) && session_logits(s, 0, logits);
    free(ids);
    return CHECK(ok, "%s", fail_last());
}

// What is kept changes no bit, no prompt looks for it again, and it follows the weights under programs that were recorded before these changed.
static void test_peaks(struct Device *dev) {
    static const enum DType TYPES[] = {DT_BF16, DT_Q4_1, DT_Q8_0};
    const int body = card_scaled(dev);
    if (body < 0) {
        check_skip("peaks of weights: no products in f16");
        return;
    }
    dev->force_kernel = body;
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        struct Config c;
        struct Model m;
        struct Session s = {0}, plain;
        uint64_t bytes;
        config_preset(&c, "tiny-moe");
        c.vocab_size = 20000; // beyond what model_fill draws
        c.init_std = 0.1f;
        if (!CHECK(model_init(&m, dev, &c, TYPES[i], CONTEXT) && model_randomise(&m, 11), "%s", fail_last()))
            continue;
        float *kept = xcalloc(c.vocab_size, sizeof *kept), *found = xcalloc(c.vocab_size, sizeof *found);
        for (int change = 0; change < 3; change++) {
            m.config.init_std = change == 1 ? 6.4f : 0.1f; // beyond f16 by the peaks of before
            bool ok = change == 0   ? open_session(&s, &m, 1, 64)
                      : change == 1 ? model_randomise(&m, 12)
                                    : model_fill(&m, 13);
            CHECK(ok && peaks_kept(&m, &bytes) > 0 && stale_peaks(&m) == 0, "change %d: stale peaks (%s)", change,
                  fail_last());
            if (!ok || !prompt_logits(&s, kept) || !open_session(&plain, &m, 1, 64))
                break;
            struct Param *params = xmalloc(m.n_params * sizeof *params);
            memcpy(params, m.params, m.n_params * sizeof *params);
            forget_peaks(&m);
            prompt_logits(&plain, found);
            memcpy(m.params, params, m.n_params * sizeof *params);
            free(params);
            CHECK(memcmp(kept, found, c.vocab_size * sizeof *kept) == 0, "%s, change %d: kept peaks make other logits",
                  DTYPES[TYPES[i]].name, change);
            CHECK(plain.n_prefills == 1 && program_uses(plain.prefill[0].program, KERNEL_peaks), "nothing to compare");
            CHECK(s.n_prefills == 1 && program_uses(s.prefill[0].program, (enum KernelId)body) &&
                      !program_uses(s.prefill[0].program, KERNEL_peaks),
                  "%s: a prompt looks for peaks that are kept", DTYPES[TYPES[i]].name);
            session_free(&plain);
        }
        free(kept), free(found);
        session_free(&s);
        model_free(&m);
    }
    dev->force_kernel = -1;
}

int main(void) {
    struct Device dev;
    test_peaks_kept();
    if (!card_open(&dev)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    test_peaks(&dev);
    device_close(&dev);
    return check_done();
}
