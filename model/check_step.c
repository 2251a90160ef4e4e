// Checks of loss, sums, optimiser and sampling; check_rows.c has the table.
#include "model/check_rows.h"

bool check_xent(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], vocab = shape[1];
    bool backward = oc->variant & BACKWARD;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits = checkrun_random(&r, DT_F32, DIMS(rows, vocab), oc->variant & BIG ? 1e4 : 3);
    uint32_t *target = uints(rows);
    for (uint32_t i = 0; i < rows; i++)
        target[i] = i % 4 == 3 ? UINT32_MAX : i == 1 ? vocab - 1 : random_below(ck, 1, i, vocab);
    struct CheckTensor *targets = checkrun_values(&r, DT_U32, DIMS(rows), target);
    struct CheckTensor *loss = checkrun_output(&r, DIMS(rows));
    struct CheckTensor *params = checkrun_values(&r, DT_F32, DIMS(12), (float[12]){0.125f});
    double *want = doubles(rows), *gradient = backward ? doubles(logits->n) : NULL;
    struct CheckTensor *weights = oc->variant & WEIGHTED ? checkrun_random(&r, DT_F32, DIMS(rows), 2) : NULL;
    ref_xent(logits->value, target, rows, vocab, 0.125, want, gradient);
    for (uint32_t i = 0; weights && i < rows; i++)
        want[i] *= weights->value[i];
    for (uint64_t i = 0; weights && backward && i < logits->n; i++)
        gradient[i] *= weights->value[i / vocab];
    logits->output = backward;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_xent(c, &logits->t, &targets->t, &loss->t, backward ? &params->t : NULL, weights ? &weights->t : NULL, backward);
    ck->bytes = (backward ? 12.0 : 4.0) * rows * vocab;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, loss, want);
    if (ok && backward)
        checkrun_compare(&r, logits, gradient);
    free(want), free(gradient), free(target);
    return finish(&r, ok, BOUND_EXP);
}

bool check_sum(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t n = shape[0];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *x = checkrun_random(&r, DT_F32, DIMS(n), 1);
    struct CheckTensor *out = checkrun_random(&r, DT_F32, DIMS(8), 1);
    out->output = true;
    double *want = copied(out), magnitude = 0;
    for (uint32_t i = 0; i < n; i++)
        want[3] += x->value[i], magnitude += fabs(x->value[i]);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_sum(c, &r.arena, &x->t, &out->t, 3);
    ck->bytes = 4.0 * n;
    bool ok = checkrun_execute(&r, cmd_end(c));
    // The error is measured against what was added, not against a sum that may cancel.
    double error = ok ? (out->value[3] - want[3]) / (magnitude + 1) : 0;
    if (ok) {
        want[3] = out->value[3];
        checkrun_compare(&r, out, want);
        if (!(error * error <= ck->nmse))
            ck->nmse = isnan(error) ? INFINITY : error * error;
    }
    free(want);
    return finish(&r, ok, BOUND_PLAIN);
}

bool check_norm(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct Tensor grads[3];
    double squares = 0, clip_norm = oc->variant & KEEP ? 1e9 : 1;
    for (uint32_t i = 0; i < 3; i++) {
        struct CheckTensor *g = checkrun_random(&r, DT_F32, DIMS(shape[0] + 7 * i), oc->variant & BIG ? 1e4 : 1);
        grads[i] = g->t;
        for (uint64_t j = 0; j < g->n; j++)
            squares += g->value[j] * g->value[j];
    }
    struct CheckTensor *params = checkrun_values(&r, DT_F32, DIMS(12), (float[12]){[7] = (float)clip_norm});
    struct CheckTensor *result = checkrun_values(&r, DT_F32, DIMS(8), (float[8]){2.5f, 0.5f, 9, 9, 9, 7, 7, 7});
    result->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_norm(c, &r.arena, grads, 3, &params->t, &result->t);
    ck->bytes = 12.0 * shape[0];
    bool ok = checkrun_execute(&r, cmd_end(c));
    double norm = sqrt(squares), clip = fmin(1, clip_norm / (norm + 1e-6));
    double want[8] = {2.5, 0.5, norm, clip, 0, 7, 7, 7};
    if (ok) {
        uint32_t finite;
        float word = (float)result->value[4];
        memcpy(&finite, &word, 4);
        if (finite != 1)
            ck->nmse = INFINITY;
        want[4] = result->value[4];
        checkrun_compare(&r, result, want);
        double error = result->value[3] / clip - 1;
        ck->nmse = fmax(ck->nmse, error * error);
    }
    return finish(&r, ok, BOUND_PLAIN);
}

// The bf16 result must be one of the two neighbours of the exact one.
static bool is_neighbour(double got, double exact) {
    float f = (float)exact;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint32_t down = bits & 0xffff0000u, up = down + 0x10000u;
    float a, b;
    memcpy(&a, &down, 4);
    memcpy(&b, &up, 4);
    double slack = 1e-6 * fabs(exact);
    return got >= fmin((double)a, (double)b) - slack && got <= fmax((double)a, (double)b) + slack;
}

bool check_adamw(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t n = shape[0];
    struct RefAdamW a = {.learning_rate = (double)1e-3f,
                         .beta1 = (double)0.9f,
                         .beta2 = (double)0.95f,
                         .eps = (double)1e-8f,
                         .decay = (double)0.1f,
                         .clip = 0.5,
                         .step = 3};
    struct StepParams s = {.learning_rate = 1e-3f,
                           .beta1 = 0.9f,
                           .beta2 = 0.95f,
                           .eps = 1e-8f,
                           .correction1 = (float)(1 - pow((double)0.9f, 3)),
                           .correction2 = (float)(1 - pow((double)0.95f, 3)),
                           .seed_low = 5,
                           .seed_high = 6,
                           .step = 3};
    struct StepResult result = {.clip = 0.5f, .finite = 1};
    uint32_t words[12], result_words[8];
    memcpy(words, &s, sizeof words);
    memcpy(result_words, &result, sizeof result_words);
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *w = checkrun_random(&r, oc->type, DIMS(n), 1), *g = checkrun_random(&r, DT_F32, DIMS(n), 1);
    struct CheckTensor *m1 = checkrun_random(&r, DT_F32, DIMS(n), 0.1), *m2 = checkrun_random(&r, DT_F32, DIMS(n), 0.1);
    float *squares = xmalloc(n * sizeof *squares);
    for (uint32_t i = 0; i < n; i++)
        squares[i] = (float)(m2->value[i] * m2->value[i]);
    m2 = checkrun_values(&r, DT_F32, DIMS(n), squares);
    struct CheckTensor *params = checkrun_values(&r, DT_U32, DIMS(12), words);
    struct CheckTensor *t_result = checkrun_values(&r, DT_U32, DIMS(8), result_words);
    w->output = m1->output = m2->output = true;
    double *want = copied(w), *want_m1 = copied(m1), *want_m2 = copied(m2);
    ref_adamw(&a, want, g->value, want_m1, want_m2, n);
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_adamw(c, &w->t, &g->t, &m1->t, &m2->t, &params->t, &t_result->t, 2, 0, 0.1f);
    ck->flops = 20.0 * n, ck->bytes = (oc->type == DT_BF16 ? 24.0 : 28.0) * n;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok) {
        for (uint32_t i = 0; oc->type == DT_BF16 && i < n; i++) {
            if (!is_neighbour(w->value[i], want[i]))
                ck->nmse = INFINITY;
            want[i] = w->value[i];
        }
        checkrun_compare(&r, w, want);
        checkrun_compare(&r, m1, want_m1);
        checkrun_compare(&r, m2, want_m2);
    }
    free(want), free(want_m1), free(want_m2), free(squares);
    return finish(&r, ok, BOUND_PLAIN);
}

bool check_argmax(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], vocab = shape[1];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits =
        oc->variant & TIES ? router_logits(&r, rows, vocab, TIES) : checkrun_random(&r, DT_F32, DIMS(rows, vocab), 3);
    struct CheckTensor *ids = checkrun_output_u32(&r, DIMS(rows)), *logprob = checkrun_output(&r, DIMS(rows));
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_argmax(c, &logits->t, &ids->t, &logprob->t);
    ck->bytes = 4.0 * rows * vocab;
    bool ok = checkrun_execute(&r, cmd_end(c));
    uint32_t *want = uints(rows);
    double *want_logprob = doubles(rows);
    for (uint32_t i = 0; i < rows; i++) {
        const double *l = logits->value + (uint64_t)i * vocab;
        for (uint32_t j = 1; j < vocab; j++)
            want[i] = l[j] > l[want[i]] ? j : want[i];
        want_logprob[i] = ref_logprob(l, vocab, want[i]);
    }
    if (ok) {
        compare_uints(&r, ids, want, rows);
        if (vocab > 1) // of one token it is 0, and any rounding would be all
            checkrun_compare(&r, logprob, want_logprob);
    }
    free(want), free(want_logprob);
    return finish(&r, ok, BOUND_EXP);
}

// A list that is not full; one of its tokens lies beyond the vocabulary and must touch nothing.
bool check_logit_bias(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    enum { ROOM = 32 };
    uint32_t rows = shape[0], vocab = shape[1], n = vocab < 5 ? vocab : 5, list[1 + 2 * ROOM];
    memset(list, 0xff, sizeof list);
    list[0] = n + 1;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits = checkrun_random(&r, DT_F32, DIMS(rows, vocab), 3);
    double *want = copied(logits);
    for (uint32_t i = 0; i <= n; i++) {
        float bias = 0.5f + (float)i;
        list[1 + 2 * i] = i < n ? i * (vocab / n) : vocab;
        memcpy(&list[2 + 2 * i], &bias, sizeof bias);
        for (uint32_t row = 0; row < rows && i < n; row++)
            want[(uint64_t)row * vocab + list[1 + 2 * i]] += (double)bias;
    }
    struct CheckTensor *t_list = checkrun_values(&r, DT_U32, DIMS(1 + 2 * ROOM), list);
    logits->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_logit_bias(c, &logits->t, &t_list->t);
    ck->bytes = 16.0 * rows * (n + 1);
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, logits, want);
    free(want);
    return finish(&r, ok, BOUND_PLAIN);
}

// Every word is a number of its own, so that a lane that takes another's is noticed. All are exact.
bool check_follow(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    enum { IDS, POSITIONS, SPAN, CACHE_ROWS, PARAMS, NEXT, N_WORDS };
    static const uint32_t COLS[N_WORDS] = {1, 1, 2, 1, SAMPLE_WORDS, 1};
    uint32_t rows = shape[0];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *t[N_WORDS], *logprob = checkrun_random(&r, DT_F32, DIMS(rows), 3);
    double *want[N_WORDS];
    for (uint32_t k = 0; k < N_WORDS; k++) {
        uint32_t n = rows * COLS[k], *words = xmalloc(n * sizeof *words);
        for (uint32_t i = 0; i < n; i++)
            words[i] = 100000 * (k + 1) + i;
        t[k] = checkrun_values(&r, DT_U32, DIMS(n), words);
        want[k] = copied(t[k]);
        t[k]->output = k != NEXT;
        free(words);
    }
    struct CheckTensor *drawn = checkrun_output_u32(&r, DIMS(rows, 2));
    double *want_drawn = xmalloc(2 * rows * sizeof *want_drawn);
    for (uint32_t i = 0; i < rows; i++) {
        float l = (float)logprob->value[i];
        uint32_t bits;
        memcpy(&bits, &l, sizeof bits);
        want_drawn[2 * i] = want[IDS][i] = want[NEXT][i];
        want_drawn[2 * i + 1] = bits;
        want[POSITIONS][i]++, want[SPAN][2 * i + 1]++, want[CACHE_ROWS][i]++;
        want[PARAMS][i * SAMPLE_WORDS + offsetof(struct SampleParams, index) / 4]++;
    }
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_follow(c, &(struct Follow){.next = t[NEXT]->t,
                                  .logprob = logprob->t,
                                  .ids = t[IDS]->t,
                                  .positions = t[POSITIONS]->t,
                                  .span = t[SPAN]->t,
                                  .cache_rows = t[CACHE_ROWS]->t,
                                  .params = t[PARAMS]->t,
                                  .drawn = drawn->t});
    ck->bytes = 60.0 * rows;
    bool ok = checkrun_execute(&r, cmd_end(c));
    for (uint32_t k = 0; k < N_WORDS; k++) {
        if (ok && k != NEXT)
            checkrun_compare(&r, t[k], want[k]);
        free(want[k]);
    }
    if (ok)
        checkrun_compare(&r, drawn, want_drawn);
    free(want_drawn);
    return finish(&r, ok, 0);
}

// Settings of sampling; the case's variant names one.
static const struct SampleParams SAMPLE[] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = 0.8f, .top_p = 1},
    {.temperature = 0.7f, .top_p = 1, .top_k = 40},
    {.temperature = 1, .top_p = 0.9f},
    {.temperature = 1.5f, .top_p = 0.95f, .min_p = 0.05f, .top_k = 64},
    {.temperature = 2, .top_p = 0.5f, .top_k = 3000},
    {.temperature = 0.9f, .top_p = 1, .typical = 0.6f},
    {.temperature = 1.2f, .top_p = 0.9f, .min_p = 0.02f, .top_k = 100, .typical = 0.8f},
    {.temperature = 1.1f, .top_p = 1, .tau = 5, .eta = 0.1f, .mu = 6},
};

// The token must be one of those that the reference keeps (a hair's breadth of probability aside), and its log-probability right.
bool check_sample(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], vocab = shape[1];
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits = checkrun_random(&r, DT_F32, DIMS(rows, vocab), 3);
    struct SampleParams *s = xcalloc(rows, sizeof *s);
    for (uint32_t i = 0; i < rows; i++) {
        s[i] = SAMPLE[oc->variant & ~SAMPLE_PARTS];
        s[i].seed_low = (uint32_t)ck->seed, s[i].stream = i, s[i].index = 11;
    }
    struct CheckTensor *params = checkrun_values(&r, DT_U32, DIMS(rows, SAMPLE_WORDS), s);
    struct CheckTensor *ids = checkrun_output_u32(&r, DIMS(rows)), *logprob = checkrun_output(&r, DIMS(rows));
    struct CheckTensor *chance = checkrun_output(&r, DIMS(rows));
    uint32_t *zeros = uints(rows);
    struct CheckTensor *done = checkrun_values(&r, DT_U32, DIMS(rows), zeros);
    done->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_sample(c, &r.arena, oc->variant & SAMPLE_PARTS ? &done->t : NULL, &logits->t, &params->t, &ids->t, &logprob->t,
              &chance->t);
    ck->bytes = 4.0 * rows * vocab;
    bool ok = checkrun_execute(&r, cmd_end(c));
    double *probs = doubles(vocab), *want_logprob = doubles(rows);
    for (uint32_t i = 0; ok && i < rows; i++) {
        const double *l = logits->value + (uint64_t)i * vocab;
        struct SampleParams wider = s[i];
        wider.top_p *= wider.top_p < 1 ? 1.00001f : 1;
        wider.min_p *= 0.99999f;
        wider.typical *= 1.00001f;
        wider.mu *= 1.00001f;
        ref_sample(l, vocab, &wider, probs);
        uint32_t id = ids->value[i] < vocab ? (uint32_t)ids->value[i] : 0;
        if (ids->value[i] >= vocab || probs[id] == 0)
            ck->nmse = INFINITY;
        // A token at the edge of a filter may make a little difference to the chances of all others.
        if (probs[id] > 0 && !(fabs(chance->value[i] - log(probs[id])) < 0.02))
            ck->nmse = INFINITY;
        want_logprob[i] = ref_logprob(l, vocab, id);
    }
    if (ok)
        compare_uints(&r, done, zeros, rows);
    if (ok && vocab > 1)
        checkrun_compare(&r, logprob, want_logprob);
    free(probs), free(want_logprob), free(s), free(zeros);
    return finish(&r, ok, BOUND_EXP);
}

bool check_mask_logits(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    uint32_t rows = shape[0], vocab = shape[1], words = (uint32_t)div_up(vocab, 32) + 1;
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits = checkrun_random(&r, DT_F32, DIMS(rows, vocab), 3);
    uint32_t *bits = uints(rows * words);
    for (uint32_t i = 0; i < rows * words; i++)
        bits[i] = random_below(ck, 2, i, 0xffffffffu);
    struct CheckTensor *mask = checkrun_values(&r, DT_U32, DIMS(rows, words), bits);
    struct CheckTensor *y = checkrun_output(&r, DIMS(rows, vocab));
    double *want = doubles(logits->n);
    uint64_t wrong = 0;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_mask_logits(c, &logits->t, oc->variant ? &mask->t : NULL, &y->t);
    ck->bytes = 8.0 * rows * vocab;
    bool ok = checkrun_execute(&r, cmd_end(c));
    for (uint64_t i = 0; ok && i < logits->n; i++) {
        uint32_t row = (uint32_t)(i / vocab), token = (uint32_t)(i % vocab);
        bool allowed = !oc->variant || (bits[row * words + token / 32] >> token % 32 & 1);
        want[i] = allowed ? logits->value[i] : 0;
        if (!allowed) { // its size would hide all others
            wrong += !(y->value[i] < -1e29);
            y->value[i] = 0;
        }
    }
    if (ok)
        checkrun_compare(&r, y, want);
    if (wrong)
        ck->nmse = INFINITY;
    free(want), free(bits);
    return finish(&r, ok, BOUND_PLAIN);
}

// Lists of different lengths, one of them empty, and a token beyond the vocabulary, which must touch nothing.
bool check_penalty(struct Check *ck, const struct OpCase *oc, const uint32_t *shape) {
    enum { ROOM = 20, WORDS = 4 + 2 * ROOM };
    uint32_t rows = shape[0], vocab = shape[1], *list = uints(rows * WORDS);
    struct CheckRun r;
    checkrun_begin(&r, ck);
    struct CheckTensor *logits = checkrun_random(&r, DT_F32, DIMS(rows, vocab), 3);
    double *want = copied(logits);
    memset(list, 0xff, rows * WORDS * sizeof *list);
    for (uint32_t row = 0; row < rows; row++) {
        float number[3] = {1.25f, 0.5f, 0.125f + (float)row};
        uint32_t n = (uint32_t)min_u64(row * 5 % (ROOM + 1), vocab), *to = list + row * WORDS;
        memcpy(to + 1, number, sizeof number);
        to[0] = n;
        for (uint32_t i = 0; i < n; i++) {
            bool beyond = i == 3;
            uint32_t token = i * (vocab / n), count = 1 + i % 4;
            to[4 + 2 * i] = beyond ? vocab + i : token, to[5 + 2 * i] = count;
            double *l = &want[(uint64_t)row * vocab + token];
            if (!beyond)
                *l = (*l > 0 ? *l / 1.25 : *l * 1.25) - 0.5 - (0.125 + row) * count;
        }
    }
    struct CheckTensor *t_list = checkrun_values(&r, DT_U32, DIMS(rows, WORDS), list);
    logits->output = true;
    struct Cmd *c = cmd_begin(ck->dev, oc->name);
    op_penalty(c, &logits->t, &t_list->t);
    ck->bytes = 16.0 * rows * ROOM;
    bool ok = checkrun_execute(&r, cmd_end(c));
    if (ok)
        checkrun_compare(&r, logits, want);
    free(want), free(list);
    return finish(&r, ok, BOUND_PLAIN);
}
