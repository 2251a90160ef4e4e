// The cache, the programs that fill it, and the small buffers in host memory that change between their replays.
#include "model/session.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t NO_TARGET = 0xffffffff;

uint64_t session_cache_bytes(const struct Config *c, enum DType cache_type) {
    return 2 * c->n_layers * dtype_row_bytes(cache_type, (uint64_t)c->n_kv_heads * c->head_dim);
}

// ---- Recording

// The experts' choices of t tokens from `first` on lie by layer, so their place depends on the number of tokens.
static struct Tensor chosen_view(const struct Session *s, uint32_t first, uint32_t t) {
    if (!tensor_exists(&s->chosen))
        return s->chosen;
    const struct Config *c = &s->m->config;
    uint64_t token_bytes = UINT64_C(4) * c->n_layers * c->n_active;
    struct Tensor v = {DT_U32, 3, {c->n_layers, t, c->n_active, 1}, s->chosen.address + first * token_bytes, 0};
    v.bytes = token_bytes * t;
    return v;
}

// Embedding and all layers of t tokens, those from `first` on; the result lies on the scratch arena.
static struct Tensor body(struct Session *s, struct Cmd *c, uint32_t first, uint32_t t, bool decode, struct Pass *p) {
    *p = (struct Pass){.c = c,
                       .arena = &s->scratch,
                       .m = s->m,
                       .t = t,
                       .positions = tensor_slice(&s->positions, first, t),
                       .span = tensor_slice(&s->span, first, t),
                       .cache_rows = tensor_slice(&s->cache_rows, first, t),
                       .cache_k = s->cache_k,
                       .cache_v = s->cache_v,
                       .decode = decode,
                       .chosen = chosen_view(s, first, t)};
    struct Tensor ids = tensor_slice(&s->ids, first, t), x = TENSOR(&s->scratch, DT_F32, t, s->m->config.dim);
    if (decode) {
        p->done = TENSOR(&s->scratch, DT_U32, t * s->m->config.n_heads);
        cmd_fill(c, &p->done, 0);
    }
    op_embed(c, &ids, &s->m->embed->w, &x);
    for (uint32_t layer = 0; layer < s->m->config.n_layers; layer++)
        block_forward(p, layer, &x, &x, NULL);
    return x;
}

// Sampling from another distribution than the model's: a mask and penalties work on a copy, so that log-probabilities stay the model's.
static void sample_shaped(struct Session *s, struct Cmd *c, const struct Tensor *done, const struct Tensor *logits,
                          uint32_t first, uint32_t n) {
    struct Tensor params = tensor_slice(&s->params, first, n), ids = tensor_slice(&s->next_ids, first, n);
    struct Tensor logprobs = tensor_slice(&s->next_logprobs, first, n), shaped = tensor_slice(&s->shaped, first, n);
    struct Tensor chances = tensor_slice(&s->chances, first, n), mask = s->mask, penalties = s->penalties;
    if (tensor_exists(&mask))
        mask = tensor_slice(&mask, first, n);
    op_mask_logits(c, logits, tensor_exists(&mask) ? &mask : NULL, &shaped);
    if (tensor_exists(&penalties)) {
        penalties = tensor_slice(&penalties, first, n);
        op_penalty(c, &shaped, &penalties);
    }
    op_sample(c, &s->scratch, done, &shaped, &params, &ids, NULL, &chances);
    op_xent(c, logits, &ids, &logprobs, NULL, NULL, false); // the loss: take_next() turns its sign
}

// Norm, head and sampling of n rows, those from `first` on.
static void head(struct Session *s, struct Pass *p, const struct Tensor *x, uint32_t first, uint32_t n) {
    struct Linear linear = {.w = s->m->head};
    struct Tensor logits = tensor_slice(&s->logits, first, n);
    struct Tensor params = tensor_slice(&s->params, first, n), ids = tensor_slice(&s->next_ids, first, n);
    struct Tensor logprobs = tensor_slice(&s->next_logprobs, first, n);
    // Of a processor's one subgroup there is nothing to share out.
    const struct Tensor *done = tensor_exists(&p->done) && !s->m->dev->is_cpu ? &p->done : NULL;
    linear_of_norm(p, &linear, s->m->norm, x, &logits);
    if (tensor_exists(&s->bias))
        op_logit_bias(p->c, &logits, &s->bias);
    if (tensor_exists(&s->shaped))
        sample_shaped(s, p->c, done, &logits, first, n);
    else
        op_sample(p->c, p->arena, done, &logits, &params, &ids, &logprobs, NULL);
}

// Losses of all rows, in chunks whose logits take at most 64 MiB.
static void score_rows(struct Session *s, struct Pass *p, const struct Tensor *x, uint32_t t) {
    const struct Config *c = &s->m->config;
    struct Linear linear = {.w = s->m->head};
    uint32_t chunk = (uint32_t)max_u64(16, (UINT64_C(16) << 20) / c->vocab_size / 16 * 16);
    for (uint32_t first = 0; first < t; first += chunk) {
        uint32_t n = (uint32_t)min_u64(chunk, t - first);
        struct ArenaMark mark = arena_mark(p->arena);
        struct Tensor rows = tensor_slice(x, first, n), targets = tensor_slice(&s->targets, first, n);
        struct Tensor losses = tensor_slice(&s->losses, first, n);
        struct Tensor logits = TENSOR(p->arena, DT_F32, n, c->vocab_size);
        linear_of_norm(p, &linear, s->m->norm, &rows, &logits);
        op_xent(p->c, &logits, &targets, &losses, NULL, NULL, false);
        arena_release(p->arena, mark);
    }
}

static struct Program *record_prefill(struct Session *s, uint32_t t, enum PrefillKind kind) {
    static const char *const NAMES[] = {"prefill", "prefill and sample", "score"};
    struct ArenaMark mark = arena_mark(&s->scratch);
    struct Pass p;
    struct Cmd *c = cmd_begin(s->m->dev, NAMES[kind]);
    struct Tensor x = body(s, c, 0, t, false, &p);
    if (kind == PREFILL_NEXT) {
        struct Tensor last = TENSOR(&s->scratch, DT_F32, 1, s->m->config.dim);
        op_gather_rows(c, &x, &s->last_row, &last);
        head(s, &p, &last, 0, 1);
    } else if (kind == PREFILL_SCORE) {
        score_rows(s, &p, &x, t);
    }
    arena_release(&s->scratch, mark);
    return cmd_end(c);
}

static struct Program *record_decode(struct Session *s, uint32_t n) {
    struct Cmd *c = cmd_begin(s->m->dev, "decode");
    for (uint32_t first = 0; first < n; first += SESSION_GROUP) {
        struct ArenaMark mark = arena_mark(&s->scratch);
        struct Pass p;
        uint32_t t = (uint32_t)min_u64(SESSION_GROUP, n - first);
        struct Tensor x = body(s, c, first, t, true, &p);
        head(s, &p, &x, first, t);
        arena_release(&s->scratch, mark);
    }
    return cmd_end(c);
}

// What stands between two decode passes of which the second was not asked for yet: results go where they stay, and go in.
static struct Program *record_follow(struct Session *s, uint32_t n) {
    struct Cmd *c = cmd_begin(s->m->dev, "follow");
    op_follow(c, &(struct Follow){.next = tensor_slice(&s->next_ids, 0, n),
                                  .logprob = tensor_slice(&s->next_logprobs, 0, n),
                                  .ids = tensor_slice(&s->ids, 0, n),
                                  .positions = tensor_slice(&s->positions, 0, n),
                                  .span = tensor_slice(&s->span, 0, n),
                                  .cache_rows = tensor_slice(&s->cache_rows, 0, n),
                                  .params = tensor_slice(&s->params, 0, n),
                                  .drawn = tensor_slice(&s->drawn, 0, n)});
    if (tensor_exists(&s->drawn_chosen)) {
        struct Tensor from = chosen_view(s, 0, n), to = from;
        to.address = s->drawn_chosen.address;
        cmd_copy(c, &from, &to);
    }
    return cmd_end(c);
}

static struct Program *prefill_program(struct Session *s, uint32_t t, enum PrefillKind kind) {
    for (uint32_t i = 0; i < s->n_prefills; i++)
        if (s->prefill[i].tokens == t && s->prefill[i].kind == kind) {
            struct Prefill found = s->prefill[i]; // the last used goes to the end: the front is what makes room
            memmove(s->prefill + i, s->prefill + i + 1, (s->n_prefills - i - 1) * sizeof found);
            s->prefill[s->n_prefills - 1] = found;
            return found.program;
        }
    if (s->n_prefills == SESSION_MAX_PREFILLS) {
        program_free(s->prefill[0].program);
        memmove(s->prefill, s->prefill + 1, --s->n_prefills * sizeof s->prefill[0]);
    }
    struct Program *p = record_prefill(s, t, kind);
    if (p)
        s->prefill[s->n_prefills++] = (struct Prefill){t, kind, p};
    return p;
}

// ---- Setting up

// Every sequence begins at a multiple of what the attention kernels take at once: what it says does not depend on its number.
static uint32_t sequence_rows(const struct Session *s) { return (uint32_t)align_up(s->context, 64); }

static void take_memory(struct Session *s, const struct SessionOptions *o) {
    const struct Config *c = &s->m->config;
    uint32_t rows = s->n_sequences * sequence_rows(s), t = s->chunk, n = s->n_sequences;
    s->cache_k = xcalloc(c->n_layers, sizeof *s->cache_k);
    s->cache_v = xcalloc(c->n_layers, sizeof *s->cache_v);
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        s->cache_k[layer] = TENSOR(&s->cache, s->cache_type, rows, c->n_kv_heads * c->head_dim);
        s->cache_v[layer] = TENSOR(&s->cache, s->cache_type, rows, c->n_kv_heads * c->head_dim);
    }
    s->logits = TENSOR(&s->scratch, DT_F32, n, c->vocab_size);
    s->ids = TENSOR(&s->host, DT_U32, t);
    s->positions = TENSOR(&s->host, DT_U32, t);
    s->span = TENSOR(&s->host, DT_U32, t, 2);
    s->cache_rows = TENSOR(&s->host, DT_U32, t);
    s->last_row = TENSOR(&s->host, DT_U32, 1);
    s->params = TENSOR(&s->host, DT_U32, n, SAMPLE_WORDS);
    s->next_ids = TENSOR(&s->host, DT_U32, n);
    s->next_logprobs = TENSOR(&s->host, DT_F32, n);
    s->targets = TENSOR(&s->host, DT_U32, t);
    s->losses = TENSOR(&s->host, DT_F32, t);
    if (o->masked)
        s->mask = TENSOR(&s->host, DT_U32, n, (uint32_t)div_up(c->vocab_size, 32));
    if (o->window)
        s->penalties = TENSOR(&s->host, DT_U32, n, 4 + 2 * o->window);
    if (o->masked || o->window || o->chances) {
        s->shaped = TENSOR(&s->scratch, DT_F32, n, c->vocab_size);
        s->chances = TENSOR(&s->host, DT_F32, n);
    }
    if (config_moe_layers(c) > 0)
        s->chosen = TENSOR(&s->host, DT_U32, c->n_layers, t, c->n_active);
    if (o->ahead)
        s->drawn = TENSOR(&s->host, DT_U32, n, 2);
    if (o->ahead && config_moe_layers(c) > 0)
        s->drawn_chosen = TENSOR(&s->host, DT_U32, c->n_layers, n, c->n_active);
}

bool session_init(struct Session *s, struct Model *m, const struct SessionOptions *o) {
    assert(o->n_sequences > 0 && o->n_sequences <= SESSION_MAX_SEQUENCES && o->context > 0);
    memset(s, 0, sizeof *s);
    if (o->context > m->max_positions)
        return fail("a context of %u tokens: the model has positions for %u", o->context, m->max_positions);
    if (o->cache_type == DT_Q8_0 && m->config.head_dim % 32)
        return fail("keys and values in q8_0: heads of %u are no multiple of its blocks of 32; take f16",
                    m->config.head_dim);
    if (!model_find_peaks(m))
        return false;
    s->m = m;
    s->cache_type = o->cache_type;
    s->n_sequences = o->n_sequences;
    s->context = o->context;
    s->ahead = o->ahead && !m->dev->is_cpu && !m->experts;
    // Large cards want many rows at once, above all where weights are unpacked for each chunk.
    uint32_t usual = !m->dev->is_cpu && m->dev->limits.heap_bytes >> 30 >= 16 ? 2048 : 512;
    s->chunk = (uint32_t)max_u64(o->n_sequences, min_u64(o->chunk ? o->chunk : usual, o->context));
    arena_init(&s->cache, m->dev, "keys and values", ARENA_DEVICE);
    arena_init(&s->scratch, m->dev, "activations", ARENA_DEVICE);
    arena_init(&s->host, m->dev, "tokens", ARENA_HOST);
    take_memory(s, o);
    if (o->biased)
        s->bias = TENSOR(&s->host, DT_U32, 1 + 2 * SESSION_MAX_BIAS);
    if (o->biased && !m->dev->is_dry && tensor_host(m->dev, &s->bias))
        *(uint32_t *)tensor_host(m->dev, &s->bias) = 0;
    for (uint32_t i = 0; i < o->n_sequences && !m->dev->is_dry; i++) { // without a word all is as the model has it
        session_penalise(s, i, &(struct Penalty){.repeat = 1}, 0, NULL, NULL);
        if (tensor_exists(&s->mask) && session_mask(s, i))
            memset(session_mask(s, i), 0xff, 4 * tensor_cols(&s->mask));
    }
    if (m->dev->is_dry) {
        program_free(record_prefill(s, s->chunk, o->scoring ? PREFILL_SCORE : PREFILL_NEXT));
        program_free(record_decode(s, s->n_sequences));
    }
    return m->dev->state == DEVICE_OK;
}

static void forget_programs(struct Session *s) {
    for (uint32_t i = 0; i < s->n_prefills; i++)
        program_free(s->prefill[i].program);
    for (uint32_t n = 0; n <= SESSION_MAX_SEQUENCES; n++) {
        program_free(s->decode[n]);
        program_free(s->follow[n]);
        s->decode[n] = s->follow[n] = NULL;
    }
    s->n_prefills = 0;
    s->next.n = 0;
}

bool session_record_again(struct Session *s) {
    bool ok = device_wait(s->m->dev);
    forget_programs(s);
    return ok;
}

void session_free(struct Session *s) {
    if (!s->m)
        return;
    forget_programs(s);
    arena_free(&s->cache);
    arena_free(&s->scratch);
    arena_free(&s->host);
    free(s->cache_k);
    free(s->cache_v);
    memset(s, 0, sizeof *s);
}

// ---- Running

static bool check_ids(const struct Session *s, const uint32_t *ids, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= s->m->config.vocab_size)
            return fail("token %u is beyond the model's vocabulary of %u", ids[i], s->m->config.vocab_size);
    return true;
}

static bool check_room(const struct Session *s, uint32_t sequence, uint64_t n) {
    assert(sequence < s->n_sequences);
    if (s->length[sequence] + n > s->context)
        return fail("%llu tokens behind %u: the context holds %u", (unsigned long long)n, s->length[sequence],
                    s->context);
    return true;
}

// Row i of the buffers: a token at the end of a sequence, which sees all before it.
static void set_token(struct Session *s, uint32_t row, uint32_t sequence, uint32_t position, uint32_t id) {
    struct Device *dev = s->m->dev;
    uint32_t base = sequence * sequence_rows(s);
    ((uint32_t *)tensor_host(dev, &s->ids))[row] = id;
    ((uint32_t *)tensor_host(dev, &s->positions))[row] = position;
    ((uint32_t *)tensor_host(dev, &s->span))[2 * row] = base;
    ((uint32_t *)tensor_host(dev, &s->span))[2 * row + 1] = base + position + 1;
    ((uint32_t *)tensor_host(dev, &s->cache_rows))[row] = base + position;
}

static bool set_tokens(struct Session *s, uint32_t sequence, const uint32_t *ids, uint32_t n) {
    struct Device *dev = s->m->dev;
    s->next.n = 0;
    if (!device_wait(dev) || !tensor_host(dev, &s->ids)) // the buffers are the device's until it is done
        return false;
    for (uint32_t i = 0; i < n; i++)
        set_token(s, i, sequence, s->length[sequence] + i, ids[i]);
    *(uint32_t *)tensor_host(dev, &s->last_row) = n - 1;
    return true;
}

// What was sampled. A NaN among the logits makes the log-probability NaN: the token drawn from them would mean nothing.
static bool take_next(struct Session *s, uint32_t n, const uint32_t *sequences, uint32_t *next, float *logprobs) {
    const uint32_t *ids = tensor_host(s->m->dev, &s->next_ids), *drawn = NULL;
    const float *lp = tensor_host(s->m->dev, &s->next_logprobs);
    if (s->next.n && s->next.begun)
        drawn = tensor_host(s->m->dev, &s->drawn);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = drawn ? drawn[2 * i] : ids[i];
        float logprob = drawn ? 0 : lp[i];
        if (drawn)
            memcpy(&logprob, &drawn[2 * i + 1], sizeof logprob);
        if (isnan(logprob))
            return fail(
                "the logits behind token %u are not finite: the weights are damaged or their range is too large",
                s->length[sequences[i]]);
        if (next)
            next[i] = id;
        if (logprobs)
            logprobs[i] = tensor_exists(&s->shaped) ? -logprob : logprob;
        s->next.ids[i] = id;
    }
    return true;
}

bool session_prefill(struct Session *s, uint32_t sequence, const uint32_t *ids, uint32_t n,
                     const struct SampleParams *params, uint32_t *next, float *logprob) {
    if (n == 0)
        return fail("an empty prompt: there is nothing to go on from");
    if (!check_room(s, sequence, n) || !check_ids(s, ids, n))
        return false;
    struct Device *dev = s->m->dev;
    for (uint32_t done = 0; done < n;) {
        uint32_t t = (uint32_t)min_u64(s->chunk, n - done);
        bool sample = params && done + t == n;
        struct Program *p = prefill_program(s, t, sample ? PREFILL_NEXT : PREFILL_FILL);
        if (!p || !set_tokens(s, sequence, ids + done, t))
            return false;
        if (sample)
            memcpy(tensor_host(dev, &s->params), params, sizeof *params);
        if (!program_submit(p))
            return false;
        s->length[sequence] += t;
        s->chosen_tokens = t;
        s->chosen_group = 0;
        done += t;
    }
    return device_wait(dev) && (!params || take_next(s, 1, &sequence, next, logprob));
}

// Whether a call asks for the very pass that the last one made likely.
static bool goes_on(const struct Session *s, uint32_t n, const uint32_t *sequences, const uint32_t *ids,
                    const struct SampleParams *params) {
    const struct SessionNext *e = &s->next;
    bool same = n == e->n && memcmp(e->sequences, sequences, n * sizeof *sequences) == 0 &&
                memcmp(e->ids, ids, n * sizeof *ids) == 0 && memcmp(e->params, params, n * sizeof *params) == 0;
    for (uint32_t i = 0; same && i < n; i++)
        same = e->lengths[i] == s->length[sequences[i]];
    return same;
}

// The pass of these tokens is on its way. Behind one that went on from the last, what follows is begun too and this waits for the first
// alone: so the device has work while the host looks at what was drawn. Sets what is expected next, but for the ids.
static bool decode_follow(struct Session *s, uint32_t n, const uint32_t *sequences, const struct SampleParams *params,
                          bool ahead) {
    struct Device *dev = s->m->dev;
    struct SessionNext *e = &s->next;
    for (uint32_t i = 0; i < n; i++) {
        e->sequences[i] = sequences[i];
        e->lengths[i] = s->length[sequences[i]] + 1;
        e->params[i] = params[i];
        e->params[i].index++;
        ahead = ahead && e->lengths[i] < s->context && params[i].tau == 0; // mirostat's bound depends on what is drawn
    }
    e->n = n;
    e->begun = ahead;
    if (!ahead)
        return device_wait(dev);
    if (!s->follow[n])
        s->follow[n] = record_follow(s, n);
    if (!s->follow[n] || !program_submit(s->follow[n]))
        return false;
    uint64_t drawn = device_submitted(dev);
    return program_submit(s->decode[n]) && device_wait_for(dev, drawn);
}

bool session_decode(struct Session *s, uint32_t n, const uint32_t *sequences, const uint32_t *ids,
                    const struct SampleParams *params, uint32_t *next, float *logprobs) {
    assert(n > 0 && n <= s->n_sequences);
    struct Device *dev = s->m->dev;
    if (!check_ids(s, ids, n))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!check_room(s, sequences[i], 1))
            return false;
    if (!s->decode[n])
        s->decode[n] = record_decode(s, n);
    bool expected = goes_on(s, n, sequences, ids, params), begun = expected && s->next.begun;
    s->next.n = 0; // until this has worked
    if (!s->decode[n] || (!begun && !device_wait(dev)) || !tensor_host(dev, &s->ids))
        return false;
    if (!begun) {
        for (uint32_t i = 0; i < n; i++)
            set_token(s, i, sequences[i], s->length[sequences[i]], ids[i]);
        memcpy(tensor_host(dev, &s->params), params, n * sizeof *params);
        if (!program_submit(s->decode[n]))
            return false;
    }
    if (!decode_follow(s, n, sequences, params, s->ahead && expected)) {
        s->next.n = 0;
        return false;
    }
    for (uint32_t i = 0; i < n; i++)
        s->length[sequences[i]]++;
    s->chosen_tokens = n;
    s->chosen_group = SESSION_GROUP;
    return take_next(s, n, sequences, next, logprobs);
}

bool session_bias(struct Session *s, uint32_t n, const uint32_t *ids, const float *bias) {
    assert(tensor_exists(&s->bias));
    if (n > SESSION_MAX_BIAS)
        return fail("a bias for %u tokens: %u are possible", n, (uint32_t)SESSION_MAX_BIAS);
    uint32_t *list = tensor_host(s->m->dev, &s->bias);
    s->next.n = 0;
    if (!check_ids(s, ids, n) || !device_wait(s->m->dev) || !list)
        return false;
    list[0] = n;
    for (uint32_t i = 0; i < n; i++) {
        list[1 + 2 * i] = ids[i];
        memcpy(&list[2 + 2 * i], &bias[i], sizeof bias[i]);
    }
    return true;
}

// What the next pass reads is about to change: one that was begun is not it, and is waited for. False when the device failed.
static bool forget_next(struct Session *s) {
    bool begun = s->next.n && s->next.begun;
    s->next.n = 0;
    return !begun || device_wait(s->m->dev);
}

void session_penalise(struct Session *s, uint32_t row, const struct Penalty *penalty, uint32_t n, const uint32_t *ids,
                      const uint32_t *counts) {
    if (!tensor_exists(&s->penalties) || !forget_next(s) || !tensor_host(s->m->dev, &s->penalties))
        return;
    uint32_t cols = tensor_cols(&s->penalties);
    assert(row < s->n_sequences && 4 + 2 * n <= cols);
    uint32_t *list = (uint32_t *)tensor_host(s->m->dev, &s->penalties) + (size_t)row * cols;
    list[0] = n;
    memcpy(&list[1], &penalty->repeat, 4);
    memcpy(&list[2], &penalty->presence, 4);
    memcpy(&list[3], &penalty->frequency, 4);
    for (uint32_t i = 0; i < n; i++) {
        list[4 + 2 * i] = ids[i];
        list[5 + 2 * i] = counts[i];
    }
}

uint32_t *session_mask(struct Session *s, uint32_t row) {
    assert(tensor_exists(&s->mask) && row < s->n_sequences);
    uint32_t *mask = forget_next(s) ? tensor_host(s->m->dev, &s->mask) : NULL;
    return mask ? mask + (size_t)row * tensor_cols(&s->mask) : NULL;
}

float session_chance(struct Session *s, uint32_t row) {
    assert(tensor_exists(&s->chances) && row < s->n_sequences);
    const float *chances = tensor_host(s->m->dev, &s->chances);
    return chances ? chances[row] : 0;
}

void session_rewind(struct Session *s, uint32_t sequence, uint32_t length) {
    assert(sequence < s->n_sequences && length <= s->length[sequence]);
    s->length[sequence] = length;
}

// Puts n tokens behind those of sequence 0; ids[n_scored - 1] is the last whose log-probability is wanted.
static bool score_tokens(struct Session *s, const uint32_t *ids, uint32_t n, uint32_t n_scored, float *logprobs) {
    struct Device *dev = s->m->dev;
    if (!check_room(s, 0, n) || !check_ids(s, ids, n_scored))
        return false;
    if (n)
        logprobs[0] = NAN;
    for (uint32_t done = 0; done < n;) {
        uint32_t t = (uint32_t)min_u64(s->chunk, n - done);
        struct Program *p = prefill_program(s, t, PREFILL_SCORE);
        if (!p || !set_tokens(s, 0, ids + done, t))
            return false;
        uint32_t *targets = tensor_host(dev, &s->targets);
        for (uint32_t i = 0; i < t; i++)
            targets[i] = done + i + 1 < n_scored ? ids[done + i + 1] : NO_TARGET;
        if (!program_run(p))
            return false;
        const float *losses = tensor_host(dev, &s->losses);
        for (uint32_t i = 0; i < t && done + i + 1 < n_scored; i++)
            logprobs[done + i + 1] = -losses[i];
        s->length[0] += t;
        s->chosen_tokens = t;
        s->chosen_group = 0;
        done += t;
    }
    return true;
}

bool session_score(struct Session *s, const uint32_t *ids, uint32_t n, float *logprobs) {
    session_rewind(s, 0, 0);
    return score_tokens(s, ids, n, n, logprobs);
}

bool session_score_behind(struct Session *s, const uint32_t *ids, uint32_t n, float *logprobs) {
    assert(n >= 2);
    return score_tokens(s, ids, n - 1, n, logprobs);
}

bool session_warm_up(struct Session *s) {
    uint32_t n = (uint32_t)min_u64(min_u64(64, s->chunk), s->context), zero = 0, next;
    if (n < 2)
        return true;
    uint32_t *ids = xcalloc(n, sizeof *ids);
    struct SampleParams greedy = {0};
    bool ok = session_prefill(s, 0, ids, n - 1, &greedy, &next, NULL) &&
              session_decode(s, 1, &zero, &next, &greedy, &next, NULL);
    session_rewind(s, 0, 0);
    free(ids);
    return ok;
}

bool session_logits(struct Session *s, uint32_t row, float *logits) {
    uint64_t bytes = s->logits.bytes / s->n_sequences;
    assert(row < s->n_sequences && !(s->next.n && s->next.begun));
    return tensor_download(s->m->dev, &s->logits, row * bytes, logits, bytes);
}

const uint32_t *session_experts(struct Session *s, uint32_t layer, uint32_t token) {
    const struct Config *c = &s->m->config;
    bool begun = s->next.n && s->next.begun;
    const uint32_t *chosen = tensor_host(s->m->dev, begun ? &s->drawn_chosen : &s->chosen);
    if (!chosen || layer >= c->n_layers || token >= s->chosen_tokens || !config_is_moe(c, layer))
        return NULL;
    uint32_t first = s->chosen_group ? token / s->chosen_group * s->chosen_group : 0, t = s->chosen_tokens - first;
    if (s->chosen_group)
        t = (uint32_t)min_u64(t, s->chosen_group);
    return chosen + ((size_t)c->n_layers * first + (size_t)layer * t + token - first) * c->n_active;
}
