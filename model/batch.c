// See batch.h.
#include "model/batch.h"
#include <stdlib.h>
#include <string.h>

struct Slot {
    bool busy;
    uint32_t text, sequence, n, id; // n: tokens so far; id: the last of them, which goes in next
    uint32_t shared, group;         // what the cache begins with; shared 0: nothing that could be kept
    struct Sampler sampler;
};

struct Batch {
    struct Session *s;
    const struct Tokenizer *t;
    const struct BatchText *texts;
    uint32_t n_texts, next;
    const struct SamplerSettings *set;
    struct Matching *m;
    const struct BatchHooks *hooks;
    struct Slot slots[SESSION_MAX_SEQUENCES];
};

static bool end(struct Batch *b, struct Slot *slot, enum BatchEnd why) {
    sampler_end(&slot->sampler);
    slot->busy = false;
    return b->hooks->ended(b->hooks->context, slot->text, why);
}

// A token was drawn for the slot in this row of the pass.
static bool take(struct Batch *b, struct Slot *slot, uint32_t row, uint32_t id, float logprob) {
    struct BatchToken token = {slot->text, row, id, slot->n, logprob};
    if (!b->hooks->token(b->hooks->context, &token))
        return end(b, slot, BATCH_STOPPED);
    if (!sampler_take(&slot->sampler, b->s, row, b->t, id))
        return false;
    slot->id = id;
    slot->n++;
    if (sampler_must_end(&slot->sampler))
        return end(b, slot, BATCH_GRAMMAR);
    if (slot->n >= b->texts[slot->text].limit)
        return end(b, slot, BATCH_LIMIT);
    return b->s->length[slot->sequence] < b->s->context || end(b, slot, BATCH_CONTEXT);
}

// Brings the cache to the end of what the text shares with its group.
static bool begin_shared(struct Batch *b, struct Slot *slot, const struct BatchText *text) {
    bool there = text->shared > 0 && slot->shared == text->shared && slot->group == text->group;
    session_rewind(b->s, slot->sequence, there ? text->shared : 0);
    slot->shared = text->shared;
    slot->group = text->group;
    return there || text->shared == 0 ||
           session_prefill(b->s, slot->sequence, text->prompt, text->shared, NULL, NULL, NULL);
}

// Texts are begun in the slot until one needs more than its first token.
static bool begin(struct Batch *b, struct Slot *slot) {
    while (!slot->busy && b->next < b->n_texts) {
        const struct BatchText *text = &b->texts[b->next];
        slot->busy = true;
        slot->text = b->next++;
        slot->n = 0;
        sampler_begin(&slot->sampler, b->set, b->set->params.stream + slot->text, b->m);
        sampler_see(&slot->sampler, text->prompt, text->n_prompt);
        uint32_t id;
        float logprob;
        if (!begin_shared(b, slot, text) || !sampler_prepare(&slot->sampler, b->s, 0, text->limit) ||
            !session_prefill(b->s, slot->sequence, text->prompt + text->shared, text->n_prompt - text->shared,
                             &slot->sampler.params, &id, &logprob) ||
            !take(b, slot, 0, id, logprob))
            return false;
    }
    return true;
}

// One token for all busy slots.
static bool step(struct Batch *b, bool *any) {
    struct Slot *rows[SESSION_MAX_SEQUENCES];
    uint32_t n = 0, sequences[SESSION_MAX_SEQUENCES], ids[SESSION_MAX_SEQUENCES], next[SESSION_MAX_SEQUENCES];
    struct SampleParams params[SESSION_MAX_SEQUENCES];
    float logprobs[SESSION_MAX_SEQUENCES];
    for (uint32_t i = 0; i < b->s->n_sequences; i++) {
        struct Slot *slot = &b->slots[i];
        if (!begin(b, slot))
            return false;
        if (slot->busy)
            rows[n++] = slot;
    }
    *any = n > 0;
    for (uint32_t i = 0; i < n; i++) { // when all prompts are through: theirs was row 0 too
        if (!sampler_prepare(&rows[i]->sampler, b->s, i, b->texts[rows[i]->text].limit - rows[i]->n))
            return false;
        sequences[i] = rows[i]->sequence;
        ids[i] = rows[i]->id;
        params[i] = rows[i]->sampler.params;
    }
    if (n > 0 && !session_decode(b->s, n, sequences, ids, params, next, logprobs))
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!take(b, rows[i], i, next[i], logprobs[i]))
            return false;
    return true;
}

bool batch_run(struct Session *s, const struct Tokenizer *t, const struct BatchText *texts, uint32_t n,
               const struct SamplerSettings *set, struct Matching *m, const struct BatchHooks *hooks) {
    struct Batch *b = xcalloc(1, sizeof *b);
    *b = (struct Batch){.s = s, .t = t, .texts = texts, .n_texts = n, .set = set, .m = m, .hooks = hooks};
    bool ok = true;
    for (uint32_t i = 0; i < s->n_sequences; i++)
        b->slots[i].sequence = i;
    for (bool any = true; ok && any;)
        ok = step(b, &any);
    for (uint32_t i = 0; i < s->n_sequences; i++)
        if (b->slots[i].busy)
            sampler_end(&b->slots[i].sampler);
    free(b);
    return ok;
}
