// See dpo.h.
#include "train/dpo.h"
#include <math.h>

double dpo_loss(const double *logp, const float *reference, size_t n_pairs, double beta, float *weight, size_t *wins) {
    double loss = 0;
    *wins = 0;
    for (size_t i = 0; i < n_pairs; i++) {
        size_t c = 2 * i, r = c + 1;
        double z = beta * ((logp[c] - (double)reference[c]) - (logp[r] - (double)reference[r]));
        // log(1 + exp(-z)) without an overflow on either side.
        loss += (z < 0 ? -z : 0) + log1p(exp(-fabs(z)));
        *wins += z > 0;
        if (weight) {
            weight[c] = (float)(beta / (1 + exp(z)));
            weight[r] = -weight[c];
        }
    }
    return loss / (double)n_pairs;
}
