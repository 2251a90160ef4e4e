// Matrix multiplies in double precision. ref_dot is the one sum; sampled checks call it for single elements.
#include "model/ref.h"

double ref_dot(const double *a, uint64_t a_stride, const double *b, uint64_t b_stride, uint64_t n) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += a[i * a_stride] * b[i * b_stride];
    return sum;
}

void ref_linear(const double *x, const double *w, uint32_t m, uint32_t n, uint32_t k, double *y) {
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < n; j++)
            y[i * n + j] = ref_dot(x + i * k, 1, w + j * k, 1, k);
}

void ref_linear_dx(const double *dy, const double *w, uint32_t m, uint32_t n, uint32_t k, double *dx) {
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < k; j++)
            dx[i * k + j] = ref_dot(dy + i * n, 1, w + j, k, n);
}

void ref_linear_dw(const double *dy, const double *x, uint32_t m, uint32_t n, uint32_t k, double *dw) {
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < k; j++)
            dw[i * k + j] = ref_dot(dy + i, n, x + j, k, m);
}
