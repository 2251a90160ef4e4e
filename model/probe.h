// How far apart two models are in what they say: the logits behind every token of a short text. A model is probed, freed, and the next one probed, so that
// both need not be in memory.
#pragma once
#include "model/session.h"

struct Probe {
    uint32_t n, vocab;
    float *logits; // (n, vocab)
};
// At most the session's worth of a short text: n up to 512, and no more than the model's positions.
bool probe_take(struct Probe *p, struct Model *m, const uint32_t *ids, uint32_t n);
void probe_free(struct Probe *p);

struct ProbeGap {
    double divergence; // of b from a (Kullback and Leibler's), nats a token
    double logit; // the largest difference of two logits, each less the mean of its row: a shift of all changes nothing
    double same;  // share of the tokens behind which both find the same one likeliest
};
// Of two models with the same vocabulary, probed with the same text.
struct ProbeGap probe_compare(const struct Probe *a, const struct Probe *b);
