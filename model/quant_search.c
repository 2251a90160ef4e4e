// Quantising by search. A part of 16 or 32 elements x is to be d * q (or d * q - m, m >= 0) with whole q of few bits, so that the weighted
// square error is least. For given q the best d and m follow by least squares; so many ways of rounding are tried (the range a little
// stretched or shrunk), and the best is kept. In a block of 256 the parts' d and m are whole multiples of two f16 numbers: after the
// first choice these are fitted in turn to the whole block, and each part tries its neighbouring multiples.
// Weights: rms + |x|, so that large weights count more but small ones still do; with an importance matrix importance * sqrt(rms^2 + x^2).
#include "model/quant.h"
#include "model/quant_codec.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { MAX_PART = 32, MAX_PARTS = 16 };

// What a quant can be: whole numbers low .. high, or the values of a curve.
struct Grid {
    float low, high;
    const int8_t *curve;
};

// Adding 1.5 * 2^23 leaves the nearest whole number (ties to even) of |x| < 2^22.
static float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

// In low .. high; a NaN gives low.
static float bounded(float x, float low, float high) {
    if (!(x > low))
        return low;
    return x < high ? nearest(x) : high;
}

static uint8_t curve_index(float y) {
    uint8_t i = 0;
    for (uint8_t step = 8; step; step /= 2) // the last value below y, then the nearer of it and the next
        if (y >= (float)QUANT_CURVE[i + step])
            i += step;
    return i < 15 && y - (float)QUANT_CURVE[i] > (float)QUANT_CURVE[i + 1] - y ? i + 1 : i;
}

static float snap(const struct Grid *g, float y) {
    return g->curve ? (float)g->curve[curve_index(y)] : bounded(y, g->low, g->high);
}

static float to_half(float x) { return f16_to_f32(f16_from_f32(x)); }

static void half_store(uint8_t *to, float value) {
    uint16_t half = f16_from_f32(value);
    memcpy(to, &half, sizeof half);
}

static void weigh(const float *x, const float *importance, int n, float *w) {
    float square = 0;
    for (int i = 0; i < n; i++)
        square += x[i] * x[i];
    square /= (float)n;
    float rms = sqrtf(square);
    for (int i = 0; i < n; i++)
        w[i] = importance ? importance[i] * sqrtf(square + x[i] * x[i]) : rms + fabsf(x[i]);
}

// ---- x = d * q ----

// Rounds x / d and tells the sums of least squares.
static void scale_try(const float *x, const float *w, int n, float inverse, const struct Grid *g, float *xq,
                      float *qq) {
    *xq = *qq = 0;
    for (int i = 0; i < n; i++) {
        float q = snap(g, x[i] * inverse);
        *xq += w[i] * x[i] * q;
        *qq += w[i] * q * q;
    }
}

// The best d of a part; 0: all is 0. The peak goes to one end of the range or to the other, or a little beside it.
static float scale_search(const float *x, const float *w, int n, const struct Grid *g) {
    enum { STEPS = 8 };
    float peak = 0, best = 0, best_gain = 0;
    for (int i = 0; i < n; i++)
        peak = fabsf(x[i]) > fabsf(peak) ? x[i] : peak;
    if (fabsf(peak) < 1e-30f)
        return 0;
    for (int end = 0; end < 2; end++)
        for (int step = -STEPS; step <= STEPS; step++) {
            float xq, qq, to = end ? g->high : g->low, stretch = 1 + (float)step / (12 * fminf(fabsf(to), 16));
            scale_try(x, w, n, to * stretch / peak, g, &xq, &qq);
            if (qq > 0 && xq * xq > best_gain * qq) {
                best_gain = xq * xq / qq;
                best = xq / qq;
            }
        }
    for (int again = 0; again < 3 && best != 0; again++) {
        float xq, qq;
        scale_try(x, w, n, 1 / best, g, &xq, &qq);
        if (!(qq > 0 && xq * xq > best_gain * qq))
            break;
        best_gain = xq * xq / qq;
        best = xq / qq;
    }
    return best;
}

// A block of 256 with whole scales.
struct Scaled {
    float d;
    float scale[MAX_PARTS]; // whole
    float q[SUPER];
    float error;
};

static float part_round(const float *x, const float *w, int n, float factor, const struct Grid *g, float *q) {
    float error = 0, inverse = factor != 0 ? 1 / factor : 0;
    for (int i = 0; i < n; i++) {
        q[i] = snap(g, x[i] * inverse);
        float miss = x[i] - factor * q[i];
        error += w[i] * miss * miss;
    }
    return error;
}

// With this d: the best whole scale of each part near the one that is wanted.
static void scaled_round(struct Scaled *s, const float *x, const float *w, int parts, const float *wanted, float low,
                         float high, const struct Grid *g) {
    int n = SUPER / parts;
    s->error = 0;
    for (int p = 0; p < parts; p++) {
        float middle = s->d != 0 ? bounded(wanted[p] / s->d, low, high) : 0, least = INFINITY, q[MAX_PART];
        for (float scale = fmaxf(middle - 1, low); scale <= fminf(middle + 1, high); scale++) {
            float error = part_round(x + p * n, w + p * n, n, s->d * scale, g, q);
            if (error < least || least == INFINITY) {
                least = error;
                s->scale[p] = scale;
                memcpy(s->q + p * n, q, (size_t)n * sizeof *q);
            }
        }
        s->error += least;
    }
}

// `low`, `high`: of the whole scales; |low| is the larger.
static void scaled_search(struct Scaled *best, const float *x, const float *importance, int parts, float low,
                          float high, const struct Grid *g) {
    float w[SUPER], wanted[MAX_PARTS], peak = 0;
    int n = SUPER / parts;
    weigh(x, importance, SUPER, w);
    for (int p = 0; p < parts; p++) {
        wanted[p] = scale_search(x + p * n, w + p * n, n, g);
        peak = fabsf(wanted[p]) > fabsf(peak) ? wanted[p] : peak;
    }
    best->d = to_half(peak / low);
    scaled_round(best, x, w, parts, wanted, low, high, g);
    for (int again = 0; again < 2; again++) {
        struct Scaled s = {.d = 0};
        float xq = 0, qq = 0;
        for (int i = 0; i < SUPER; i++) {
            float q = best->scale[i / n] * best->q[i];
            xq += w[i] * x[i] * q;
            qq += w[i] * q * q;
        }
        if (!(qq > 0))
            break;
        s.d = to_half(xq / qq);
        scaled_round(&s, x, w, parts, wanted, low, high, g);
        if (!(s.error < best->error))
            break;
        *best = s;
    }
}

// ---- x = d * q - m ----

struct Affine {
    float d, m;
};

// The best of a part with q of 0 .. high. `signed_m`: m may be below 0.
static struct Affine affine_search(const float *x, const float *w, int n, float high, bool signed_m) {
    enum { STEPS = 10 };
    float low = signed_m ? x[0] : 0, top = x[0], sw = 0, sx = 0, xx = 0, least = INFINITY;
    for (int i = 0; i < n; i++) {
        low = fminf(low, x[i]), top = fmaxf(top, x[i]);
        sw += w[i], sx += w[i] * x[i], xx += w[i] * x[i] * x[i];
    }
    struct Affine best = {0, -low};
    if (!(top - low > 1e-30f))
        return best;
    for (int step = -STEPS; step <= STEPS; step++) {
        float inverse = high * (1 + (float)step / (12 * fminf(high, 8))) / (top - low), sq = 0, qq = 0, xq = 0;
        for (int i = 0; i < n; i++) {
            float q = bounded((x[i] - low) * inverse, 0, high);
            sq += w[i] * q, qq += w[i] * q * q, xq += w[i] * x[i] * q;
        }
        float det = sw * qq - sq * sq;
        if (!(det > 0))
            continue;
        struct Affine a = {(sw * xq - sx * sq) / det, (sq * xq - sx * qq) / det};
        float error = xx - a.d * xq + a.m * sx;
        if (!signed_m && a.m < 0) {
            a = (struct Affine){xq / qq, 0};
            error = xx - a.d * xq;
        }
        if (a.d > 0 && error < least) {
            least = error;
            best = a;
        }
    }
    return best;
}

// A block of 256 with whole scales and minima.
struct Shifted {
    float d, m;
    float scale[MAX_PARTS], min[MAX_PARTS]; // whole
    float q[SUPER];
    float error;
};

static float shifted_part(const float *x, const float *w, int n, float factor, float offset, float high, float *q) {
    float error = 0, inverse = factor > 0 ? 1 / factor : 0;
    for (int i = 0; i < n; i++) {
        q[i] = bounded((x[i] + offset) * inverse, 0, high);
        float miss = x[i] + offset - factor * q[i];
        error += w[i] * miss * miss;
    }
    return error;
}

static void shifted_round(struct Shifted *s, const float *x, const float *w, int parts, const struct Affine *wanted,
                          float levels, float high) {
    int n = SUPER / parts;
    s->error = 0;
    for (int p = 0; p < parts; p++, x += n, w += n) {
        float middle = s->d > 0 ? bounded(wanted[p].d / s->d, 0, levels) : 0, least = INFINITY, q[MAX_PART];
        float min = s->m > 0 ? bounded(wanted[p].m / s->m, 0, levels) : 0;
        for (float scale = fmaxf(middle - 1, 0); scale <= fminf(middle + 1, levels); scale++)
            for (int again = 0; again < 2; again++) {
                float error = shifted_part(x, w, n, s->d * scale, s->m * min, high, q), sum = 0, weight = 0;
                if (error < least || least == INFINITY) {
                    least = error;
                    s->scale[p] = scale, s->min[p] = min;
                    memcpy(s->q + p * n, q, (size_t)n * sizeof *q);
                }
                // The minimum that suits these quants.
                for (int i = 0; i < n; i++)
                    sum += w[i] * (s->d * scale * q[i] - x[i]), weight += w[i];
                if (s->m > 0 && weight > 0)
                    min = bounded(sum / (weight * s->m), 0, levels);
            }
        s->error += least;
    }
}

// d and m that suit the whole block's quants, scales and minima; false: there are none.
static bool shifted_fit(struct Shifted *s, const struct Shifted *from, const float *x, const float *w, int parts) {
    float aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int i = 0; i < SUPER; i++) {
        float a = from->scale[i / (SUPER / parts)] * from->q[i], b = from->min[i / (SUPER / parts)];
        aa += w[i] * a * a, ab += w[i] * a * b, bb += w[i] * b * b;
        ax += w[i] * a * x[i], bx += w[i] * b * x[i];
    }
    float det = aa * bb - ab * ab;
    if (det > 1e-6f * aa * bb) {
        s->d = to_half((ax * bb - ab * bx) / det);
        s->m = to_half((ax * ab - aa * bx) / det);
    } else if (aa > 0) {
        s->d = to_half((ax + from->m * ab) / aa);
        s->m = from->m;
    }
    return s->d > 0 && s->m >= 0;
}

// `levels`: the greatest scale and minimum.
static void shifted_search(struct Shifted *best, const float *x, const float *importance, int parts, float levels,
                           float high) {
    float w[SUPER], d = 0, m = 0;
    struct Affine wanted[MAX_PARTS];
    int n = SUPER / parts;
    weigh(x, importance, SUPER, w);
    for (int p = 0; p < parts; p++) {
        wanted[p] = affine_search(x + p * n, w + p * n, n, high, false);
        d = fmaxf(d, wanted[p].d), m = fmaxf(m, wanted[p].m);
    }
    best->d = to_half(d / levels), best->m = to_half(m / levels);
    shifted_round(best, x, w, parts, wanted, levels, high);
    for (int again = 0; again < 2; again++) {
        struct Shifted s = {.d = 0};
        if (!shifted_fit(&s, best, x, w, parts))
            break;
        shifted_round(&s, x, w, parts, wanted, levels, high);
        if (!(s.error < best->error))
            break;
        *best = s;
    }
}

// ---- Blocks of 32 ----

static void put_nibbles(uint8_t *to, const uint8_t *q) {
    for (int i = 0; i < BLOCK / 2; i++)
        to[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static void put_fives(uint8_t *to, const uint8_t *q) {
    uint32_t high = 0;
    for (int i = 0; i < BLOCK; i++)
        high |= (uint32_t)q[i] >> 4 << i;
    memcpy(to, &high, 4);
    put_nibbles(to + 4, q);
}

// d to the block's first bytes, quants less the lowest (curve: their index) to q.
static void search_scaled(const float *in, const float *importance, const struct Grid *g, uint8_t *block, uint8_t *q) {
    float w[BLOCK];
    weigh(in, importance, BLOCK, w);
    float d = to_half(scale_search(in, w, BLOCK, g)), inverse = d != 0 ? 1 / d : 0;
    half_store(block, d);
    for (int i = 0; i < BLOCK; i++)
        q[i] = g->curve ? curve_index(in[i] * inverse) : (uint8_t)(snap(g, in[i] * inverse) - g->low);
}

static void search_affine(const float *in, const float *importance, float high, uint8_t *block, uint8_t *q) {
    float w[BLOCK];
    weigh(in, importance, BLOCK, w);
    struct Affine a = affine_search(in, w, BLOCK, high, true);
    a.d = to_half(a.d), a.m = to_half(a.m);
    half_store(block, a.d);
    half_store(block + 2, -a.m);
    float inverse = a.d > 0 ? 1 / a.d : 0;
    for (int i = 0; i < BLOCK; i++)
        q[i] = (uint8_t)bounded((in[i] + a.m) * inverse, 0, high);
}

static const struct Grid CURVE = {-127, 113, QUANT_CURVE};

void search_q4_0(const float *in, const float *importance, uint8_t *block) {
    uint8_t q[BLOCK];
    search_scaled(in, importance, &(struct Grid){-8, 7, NULL}, block, q);
    put_nibbles(block + 2, q);
}

void search_q4_1(const float *in, const float *importance, uint8_t *block) {
    uint8_t q[BLOCK];
    search_affine(in, importance, 15, block, q);
    put_nibbles(block + 4, q);
}

void search_q5_0(const float *in, const float *importance, uint8_t *block) {
    uint8_t q[BLOCK];
    search_scaled(in, importance, &(struct Grid){-16, 15, NULL}, block, q);
    put_fives(block + 2, q);
}

void search_q5_1(const float *in, const float *importance, uint8_t *block) {
    uint8_t q[BLOCK];
    search_affine(in, importance, 31, block, q);
    put_fives(block + 4, q);
}

void search_iq4_nl(const float *in, const float *importance, uint8_t *block) {
    uint8_t q[BLOCK];
    search_scaled(in, importance, &CURVE, block, q);
    put_nibbles(block + 2, q);
}

// ---- Blocks of 256: the places of the bits are those that quant_decode.c reads ----

static void put_pairs(uint8_t *to, const uint8_t *q) {
    memset(to, 0, 64);
    for (int i = 0; i < SUPER; i++)
        to[i / 128 * 32 + i % 32] |= (uint8_t)((q[i] & 3) << i / 32 % 4 * 2);
}

void search_q2_k(const float *in, const float *importance, uint8_t *block) {
    struct Shifted s;
    uint8_t q[SUPER];
    shifted_search(&s, in, importance, 16, 15, 3);
    for (int p = 0; p < 16; p++)
        block[p] = (uint8_t)((int)s.scale[p] | (int)s.min[p] << 4);
    for (int i = 0; i < SUPER; i++)
        q[i] = (uint8_t)s.q[i];
    put_pairs(block + 16, q);
    half_store(block + 80, s.d);
    half_store(block + 82, s.m);
}

void search_q3_k(const float *in, const float *importance, uint8_t *block) {
    struct Scaled s;
    uint8_t q[SUPER];
    scaled_search(&s, in, importance, 16, -32, 31, &(struct Grid){-4, 3, NULL});
    memset(block, 0, 32);
    for (int i = 0; i < SUPER; i++) {
        q[i] = (uint8_t)(s.q[i] + 4);
        block[i % 32] |= (uint8_t)(q[i] >> 2 << i / 32);
    }
    put_pairs(block + 32, q);
    memset(block + 96, 0, 12);
    for (int p = 0; p < 16; p++)
        scale_q3_put(block + 96, p, (uint8_t)(s.scale[p] + 32));
    half_store(block + 108, s.d);
}

// Header and nibbles of Q4_K and Q5_K.
static void put_shifted(const struct Shifted *s, uint8_t *header, uint8_t *nibbles) {
    half_store(header, s->d);
    half_store(header + 2, s->m);
    memset(header + 4, 0, 12);
    for (int p = 0; p < 8; p++)
        scale_min_put(header + 4, p, (uint8_t)s->scale[p], (uint8_t)s->min[p]);
    memset(nibbles, 0, 128);
    for (int i = 0; i < SUPER; i++)
        nibbles[i / 64 * 32 + i % 32] |= (uint8_t)(((int)s->q[i] & 15) << i / 32 % 2 * 4);
}

void search_q4_k(const float *in, const float *importance, uint8_t *block) {
    struct Shifted s;
    shifted_search(&s, in, importance, 8, 63, 15);
    put_shifted(&s, block, block + 16);
}

void search_q5_k(const float *in, const float *importance, uint8_t *block) {
    struct Shifted s;
    shifted_search(&s, in, importance, 8, 63, 31);
    put_shifted(&s, block, block + 48);
    memset(block + 16, 0, 32);
    for (int i = 0; i < SUPER; i++)
        block[16 + i % 32] |= (uint8_t)((int)s.q[i] >> 4 << i / 32);
}

void search_q6_k(const float *in, const float *importance, uint8_t *block) {
    struct Scaled s;
    scaled_search(&s, in, importance, 16, -128, 127, &(struct Grid){-32, 31, NULL});
    memset(block, 0, 192);
    for (int i = 0; i < SUPER; i++) {
        int q = (int)s.q[i] + 32, half = i / 128, j = i / 32 % 4;
        block[64 * half + j % 2 * 32 + i % 32] |= (uint8_t)((q & 15) << j / 2 * 4);
        block[128 + 32 * half + i % 32] |= (uint8_t)(q >> 4 << j * 2);
    }
    for (int p = 0; p < 16; p++)
        block[192 + p] = (uint8_t)(int8_t)s.scale[p];
    half_store(block + 208, s.d);
}

void search_iq4_xs(const float *in, const float *importance, uint8_t *block) {
    struct Scaled s;
    scaled_search(&s, in, importance, 8, -32, 31, &CURVE);
    uint32_t low = 0, high = 0;
    for (int p = 0; p < 8; p++) {
        uint32_t scale = (uint32_t)(s.scale[p] + 32);
        low |= (scale & 15) << 4 * p;
        high |= scale >> 4 << 2 * p;
    }
    half_store(block, s.d);
    memcpy(block + 2, &(uint16_t){(uint16_t)high}, 2);
    memcpy(block + 4, &low, 4);
    for (int p = 0; p < 8; p++) {
        uint8_t q[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            q[i] = curve_index(s.q[32 * p + i]);
        put_nibbles(block + 8 + 16 * p, q);
    }
}
