// See dpo.h.
#include "train/dpo.h"
#include <math.h>

struct DpoFigures dpo_loss(const double *logp, const float *reference, size_t n_pairs, double beta, float *weight) {
    struct DpoFigures f = {0};
    double n = (double)n_pairs;
    for (size_t i = 0; i < n_pairs; i++) {
        size_t c = 2 * i, r = c + 1;
        double chosen = beta * (logp[c] - (double)reference[c]), rejected = beta * (logp[r] - (double)reference[r]);
        double z = chosen - rejected;
        // log(1 + exp(-z)) without an overflow on either side.
        f.loss += ((z < 0 ? -z : 0) + log1p(exp(-fabs(z)))) / n;
        f.chosen += chosen / n;
        f.rejected += rejected / n;
        f.margin += z / n;
        f.accuracy += (z > 0) / n;
        if (weight) {
            weight[c] = (float)(beta / (1 + exp(z)));
            weight[r] = -weight[c];
        }
    }
    return f;
}
