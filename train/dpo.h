// Direct Preference Optimisation (Rafailov et al. 2023, arXiv 2305.18290) of pairs of answers: examples 2i (chosen) and 2i + 1 (rejected).
//   z = beta * ((log p(chosen) - log p(rejected)) - (the same of the reference)),  loss = mean over pairs of -log sigmoid(z)
// The gradient with respect to an answer's log-probability is -+ beta * sigmoid(-z) / pairs: so a step first measures all answers, and then
// goes forward and backward with that number as the weight of each labelled token. Pairs may lie in different micro-batches.
#pragma once
#include "train/step.h"

// What is told of it. A reward is beta * (log p - the reference's), a mean over the pairs; the margin is that of the chosen answers less that of the rejected.
struct DpoFigures {
    double loss, chosen, rejected, margin;
    double accuracy; // share of the pairs whose chosen answer has the greater reward
};
// logp, reference: (2 * n_pairs), sums over labelled tokens. weight (2 * n_pairs): of the tokens' cross-entropy, before division by n_pairs;
// may be NULL.
struct DpoFigures dpo_loss(const double *logp, const float *reference, size_t n_pairs, double beta, float *weight);
