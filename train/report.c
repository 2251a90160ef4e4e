// See report.h.
#include "train/report.h"
#include "model/card.h"
#include "model/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool report_losses(const struct Train *t, struct TrainLosses *l) {
    char *path = path_join(t->o.out, "metrics.jsonl");
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    *l = (struct TrainLosses){NAN, NAN, NAN, NAN, NAN, 0};
    bool ok = !file_exists(path) || file_read(path, UINT64_C(1) << 30, &text, &bytes);
    for (uint64_t at = 0; at < bytes;) {
        const uint8_t *end = memchr(text + at, '\n', bytes - at);
        size_t n = end ? (size_t)(end - text) - at : bytes - at;
        json_t *line = json_loadb((const char *)text + at, n, 0, NULL);
        const json_t *loss = json_object_get(line, "loss"), *held = json_object_get(line, "validation_loss");
        uint64_t step = (uint64_t)json_integer_value(json_object_get(line, "step"));
        if (json_is_number(loss)) {
            l->last = json_number_value(loss);
            l->first = isnan(l->first) ? l->last : l->first;
        }
        if (json_is_number(held) && train_same_held_out(t, line)) {
            l->held_last = json_number_value(held);
            if (step == 0)
                l->held_before = l->held_last;
            if (!(l->held_best <= l->held_last))
                l->held_best = l->held_last, l->held_best_step = step;
        }
        json_decref(line);
        at += n + 1;
    }
    free(text);
    free(path);
    return ok;
}

static void tell_data(struct Card *c, const struct Dataset *d, const char *kind) {
    for (size_t f = 0; f < d->n_paths; f++) {
        uint64_t examples = 0, tokens = 0, labels = 0;
        for (size_t i = 0; i < d->n; i++)
            if (d->examples[i].file == f)
                examples++, tokens += d->examples[i].n, labels += d->examples[i].n_labels;
        const char *slash = strrchr(d->paths[f], '/'), *name = slash ? slash + 1 : d->paths[f];
        if (examples == 0)
            continue;
        card_fact(c, name, "%s, %llu examples, %llu tokens, %llu of them trained%s", kind, (unsigned long long)examples,
                  (unsigned long long)tokens, (unsigned long long)labels, d->weights ? ", weighted" : "");
        if (d->sha256[f][0])
            card_fact(c, "its SHA-256", "%s", d->sha256[f]);
    }
}

static void tell_settings(struct Card *c, const struct Train *t) {
    const struct TrainOptions *o = &t->o;
    card_fact(c, "steps", "%llu of %llu", (unsigned long long)t->state.step, (unsigned long long)t->steps);
    card_fact(c, "examples a step", "%u", o->batch_examples);
    card_fact(c, "context", "%u", o->seq_len);
    card_fact(c, "learning rate", "%g, %s, %llu steps of warm-up", (double)o->learning_rate,
              TRAIN_SCHEDULES[o->schedule], (unsigned long long)o->warmup_steps);
    card_fact(c, "AdamW", "betas %g and %g, epsilon %g, weight decay %g%s", (double)o->beta1, (double)o->beta2,
              (double)o->eps, (double)o->weight_decay, o->moments8 ? ", moments in 8 bits" : "");
    card_fact(c, "gradient clipped at", "%g", (double)o->clip_norm);
    if (o->neftune_alpha > 0)
        card_fact(c, "NEFTune", "alpha %g: noise on the embeddings of training examples", (double)o->neftune_alpha);
    card_fact(c, "weights in training", "%s", DTYPES[t->m->params[0].w.type].name);
    card_fact(c, "seed", "%llu", (unsigned long long)o->seed);
    if (train_adapts(o->method))
        card_fact(c, "LoRA", "rank %u, alpha %g%s", o->lora.rank, (double)o->lora.alpha,
                  o->lora.rank_stabilised ? ", rank-stabilised" : "");
    if (o->adapter)
        card_fact(c, "trained further", "the adapter %s", o->adapter);
    if (o->loss == LOSS_DPO)
        card_fact(c, "DPO", "beta %g", (double)o->dpo_beta);
    if (t->m->config.n_experts)
        card_fact(c, "router", "%s, balance loss times %g", o->freeze_router ? "frozen" : "trained",
                  (double)t->m->config.aux_alpha);
}

// What talks to the result is to lay chats out as the training did.
static bool write_template(const struct TrainOptions *o, const char *dir) {
    char *path = template_place(dir);
    bool ok = !o->template_text || file_write_atomic(path, o->template_text, strlen(o->template_text));
    free(path);
    return ok;
}

bool report_write(const struct Train *t, const char *dir) {
    const struct TrainOptions *o = &t->o;
    bool adapts = train_adapts(o->method);
    struct TrainLosses l;
    struct Card c;
    if (!report_losses(t, &l)) // a card without them would say less than the run knows
        return false;
    char *tags = xsprintf("%s,%s%s", o->loss == LOSS_DPO ? "dpo" : "sft", TRAIN_METHODS[o->method],
                          t->m->config.n_experts ? ",moe" : "");
    card_begin(&c, adapts ? "An adapter trained with vkmoe" : "A model trained with vkmoe",
               o->from_scratch ? NULL : o->base_name, adapts ? "adapter" : "finetune", adapts ? "peft" : "transformers",
               o->from_scratch ? "from-scratch" : tags);
    free(tags);
    card_heading(&c, "What it is");
    card_fact(&c, o->from_scratch ? "shape" : "base model", "%s", o->base_name);
    card_fact(&c, "method", "%s, %s", o->from_scratch ? "from scratch" : TRAIN_METHODS[o->method],
              o->loss == LOSS_DPO ? "preferences (DPO)" : "cross-entropy");
    card_fact(&c, "parameters", "%llu, %llu a token", (unsigned long long)config_parameters(&t->m->config),
              (unsigned long long)config_activated_parameters(&t->m->config));
    if (o->template_name)
        card_fact(&c, "chat template", "%s, in " TEMPLATE_FILE, o->template_name);
    else if (train_template(t))
        card_fact(&c, "chat template", "%s, %s", train_template(t),
                  t->chat->presumed ? "as the model names none" : "the model's own");
    card_fact(&c, "made with", "vkmoe %s on %s", VKMOE_VERSION, t->state.device);
    card_heading(&c, "Data");
    tell_data(&c, &t->data, "training");
    tell_data(&c, &t->held_out, "held out");
    card_heading(&c, "Settings");
    tell_settings(&c, t);
    card_heading(&c, "Loss");
    const struct {
        const char *name;
        double value;
    } FIGURES[] = {{"first step", l.first},
                   {"last step", l.last},
                   {"held out, before", l.held_before},
                   {"held out, after", l.held_last}};
    for (size_t i = 0; i < sizeof FIGURES / sizeof *FIGURES; i++)
        if (isfinite(FIGURES[i].value))
            card_fact(&c, FIGURES[i].name, "%.4f", FIGURES[i].value);
    if (isfinite(l.held_best))
        card_fact(&c, "held out, lowest", "%.4f after step %llu", l.held_best, (unsigned long long)l.held_best_step);
    if (o->keep_best && t->best.step)
        card_fact(&c, "kept", "the model after step %llu", (unsigned long long)t->best.step);
    card_command(&c, o->command, o->n_command);
    char *path = path_join(dir, "README.md"), *record = path_join(dir, CARD_RECORD);
    bool ok = write_template(o, dir) && card_end(&c, path, record);
    free(path), free(record);
    return ok;
}
