// Cutting feed-forward layers into experts. With a calibration text the neurons are grouped by what they do on it, in the way of
// CMoE (arXiv 2502.04416): the neurons that are active for most tokens become the shared shards; the others are clustered into equal
// groups by when they are active. The router is the ridge regression of each group's contribution on the layer's input.
#include "train/upcycle.h"
#include "model/layers.h"
#include "model/quant.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float ROUTER_SPREAD = 1e-3f; // deviation of the router's logits on the calibration text
enum { CLUSTER_ROUNDS = 8, CALIBRATE_TOKENS = 1024 };

// ---- Statistics of one layer on the calibration text

struct Activity {
    uint32_t t, dim, hidden;
    float *x; // (t, dim): input of the feed-forward layer, normed
    float *h; // (hidden, t): contribution of each neuron: |silu(gate) * up| * |column of down|
};

static int by_rate(const void *a, const void *b) {
    const double *x = a, *y = b;
    return x[0] > y[0] ? -1 : x[0] < y[0] ? 1 : x[1] < y[1] ? -1 : x[1] > y[1];
}

// Share of tokens for which a neuron is among the quarter that contribute most.
static void activity_rates(const struct Activity *a, double *pairs) { // (hidden, 2): rate, neuron
    uint32_t top = a->hidden / 4;
    double *row = xmalloc(a->hidden * 2 * sizeof *row);
    for (uint32_t i = 0; i < a->hidden; i++)
        pairs[2 * i] = 0, pairs[2 * i + 1] = i;
    for (uint32_t t = 0; t < a->t; t++) {
        for (uint32_t i = 0; i < a->hidden; i++)
            row[2 * i] = (double)a->h[(size_t)i * a->t + t], row[2 * i + 1] = i;
        qsort(row, a->hidden, 2 * sizeof *row, by_rate);
        for (uint32_t i = 0; i < top; i++)
            pairs[2 * (uint32_t)row[2 * i + 1]] += 1.0 / a->t;
    }
    free(row);
    qsort(pairs, a->hidden, 2 * sizeof *pairs, by_rate);
}

struct Choice {
    float distance;
    uint32_t neuron, cluster;
};
static int by_distance(const void *a, const void *b) {
    const struct Choice *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->neuron != y->neuron ? (x->neuron < y->neuron ? -1 : 1) : (int)x->cluster - (int)y->cluster;
}

// Each neuron to a cluster of exactly `width`, nearest pairs first.
static void assign_balanced(struct Choice *choices, uint32_t n, uint32_t k, uint32_t width, uint32_t *cluster) {
    uint32_t *room = xmalloc(k * sizeof *room);
    for (uint32_t c = 0; c < k; c++)
        room[c] = width;
    for (uint32_t i = 0; i < n; i++)
        cluster[i] = UINT32_MAX;
    qsort(choices, (size_t)n * k, sizeof *choices, by_distance);
    for (size_t i = 0; i < (size_t)n * k; i++)
        if (cluster[choices[i].neuron] == UINT32_MAX && room[choices[i].cluster]) {
            cluster[choices[i].neuron] = choices[i].cluster;
            room[choices[i].cluster]--;
        }
    free(room);
}

// Eight sums side by side, so that the compiler may use vectors.
static float dot(const float *a, const float *b, uint32_t n) {
    float sum[8] = {0};
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t j = 0; j < 8; j++)
            sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum[0] += a[i] * b[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

// Balanced k-means over the neurons' patterns (each scaled to length 1). neurons (n), result: cluster of each.
static void cluster_neurons(const struct Activity *a, const uint32_t *neurons, uint32_t n, uint32_t k, uint64_t seed,
                            uint32_t *cluster) {
    uint32_t t = a->t, width = n / k;
    float *pattern = xmalloc((size_t)n * t * sizeof *pattern), *centre = xcalloc((size_t)k * t, sizeof *centre);
    struct Choice *choices = xmalloc((size_t)n * k * sizeof *choices);
    for (uint32_t i = 0; i < n; i++) {
        const float *h = a->h + (size_t)neurons[i] * t;
        double length = 1e-20;
        for (uint32_t j = 0; j < t; j++)
            length += (double)h[j] * (double)h[j];
        for (uint32_t j = 0; j < t; j++)
            pattern[(size_t)i * t + j] = h[j] / (float)sqrt(length);
    }
    for (uint32_t c = 0; c < k; c++) {
        uint32_t start = (uint32_t)(random_uniform(seed, 77, c) * (float)n);
        memcpy(centre + (size_t)c * t, pattern + (size_t)(start < n ? start : 0) * t, t * sizeof *centre);
    }
    for (int round = 0; round < CLUSTER_ROUNDS; round++) {
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t c = 0; c < k; c++) {
                float near = dot(pattern + (size_t)i * t, centre + (size_t)c * t, t);
                choices[(size_t)i * k + c] = (struct Choice){-near, i, c};
            }
        assign_balanced(choices, n, k, width, cluster);
        memset(centre, 0, (size_t)k * t * sizeof *centre);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < t; j++)
                centre[(size_t)cluster[i] * t + j] += pattern[(size_t)i * t + j];
        for (uint32_t c = 0; c < k; c++) {
            double length = 1e-20;
            for (uint32_t j = 0; j < t; j++)
                length += (double)centre[(size_t)c * t + j] * (double)centre[(size_t)c * t + j];
            for (uint32_t j = 0; j < t; j++)
                centre[(size_t)c * t + j] /= (float)sqrt(length);
        }
    }
    free(pattern);
    free(centre);
    free(choices);
}

// Solves (X^T X + ridge) W = X^T S by Cholesky; router (k, dim), s (t, k).
static void ridge_regression(const struct Activity *a, const float *s, uint32_t k, float *router) {
    uint32_t d = a->dim;
    double *gram = xcalloc((size_t)d * d, sizeof *gram), *right = xcalloc((size_t)d * k, sizeof *right);
    for (uint32_t t = 0; t < a->t; t++) {
        const float *x = a->x + (size_t)t * d;
        for (uint32_t i = 0; i < d; i++) {
            double xi = (double)x[i];
            for (uint32_t j = 0; j <= i; j++)
                gram[(size_t)i * d + j] += xi * (double)x[j];
            for (uint32_t c = 0; c < k; c++)
                right[(size_t)i * k + c] += xi * (double)s[(size_t)t * k + c];
        }
    }
    double trace = 0;
    for (uint32_t i = 0; i < d; i++)
        trace += gram[(size_t)i * d + i];
    for (uint32_t i = 0; i < d; i++)
        gram[(size_t)i * d + i] += 0.3 * trace / d; // strong: there are few tokens for so many features
    for (uint32_t i = 0; i < d; i++)
        for (uint32_t j = 0; j <= i; j++) {
            double v = gram[(size_t)i * d + j];
            for (uint32_t m = 0; m < j; m++)
                v -= gram[(size_t)i * d + m] * gram[(size_t)j * d + m];
            gram[(size_t)i * d + j] = i == j ? sqrt(v) : v / gram[(size_t)j * d + j];
        }
    for (uint32_t c = 0; c < k; c++) {
        for (uint32_t i = 0; i < d; i++) {
            double v = right[(size_t)i * k + c];
            for (uint32_t j = 0; j < i; j++)
                v -= gram[(size_t)i * d + j] * right[(size_t)j * k + c];
            right[(size_t)i * k + c] = v / gram[(size_t)i * d + i];
        }
        for (uint32_t i = d; i-- > 0;) {
            double v = right[(size_t)i * k + c];
            for (uint32_t j = i + 1; j < d; j++)
                v -= gram[(size_t)j * d + i] * right[(size_t)j * k + c];
            right[(size_t)i * k + c] = v / gram[(size_t)i * d + i];
            router[(size_t)c * d + i] = (float)right[(size_t)i * k + c];
        }
    }
    free(gram);
    free(right);
}

// Scales the router so that its logits on the text deviate by ROUTER_SPREAD.
static void router_scale(const struct Activity *a, uint32_t k, float *router) {
    double sum = 0;
    for (uint32_t t = 0; t < a->t; t++) {
        double mean = 0, square = 0;
        for (uint32_t c = 0; c < k; c++) {
            double logit = 0;
            for (uint32_t i = 0; i < a->dim; i++)
                logit += (double)a->x[(size_t)t * a->dim + i] * (double)router[(size_t)c * a->dim + i];
            mean += logit / k, square += logit * logit / k;
        }
        sum += fmax(square - mean * mean, 0);
    }
    double deviation = sqrt(sum / a->t);
    for (size_t i = 0; i < (size_t)k * a->dim && deviation > 0; i++)
        router[i] *= (float)((double)ROUTER_SPREAD / deviation);
}

static void layer_calibrate(const struct Upcycle *u, const struct Activity *a, const struct UpcycleOptions *o,
                            uint32_t layer) {
    struct UpcycleLayer *l = &u->layers[layer];
    uint32_t width = a->hidden / o->shards, n_shared = o->shared * width, k = o->shards - o->shared,
             n = a->hidden - n_shared;
    double *pairs = xmalloc(a->hidden * 2 * sizeof *pairs);
    uint32_t *cluster = xmalloc(n * sizeof *cluster), *filled = xcalloc(k, sizeof *filled);
    activity_rates(a, pairs);
    uint32_t *rest = xmalloc(n * sizeof *rest);
    for (uint32_t i = 0; i < a->hidden; i++) {
        uint32_t neuron = (uint32_t)pairs[2 * i + 1];
        if (i < n_shared)
            l->order[i] = neuron;
        else
            rest[i - n_shared] = neuron;
    }
    cluster_neurons(a, rest, n, k, o->seed + layer, cluster);
    float *s = xcalloc((size_t)a->t * k, sizeof *s);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = cluster[i];
        l->order[n_shared + c * width + filled[c]++] = rest[i];
        for (uint32_t t = 0; t < a->t; t++) {
            float h = a->h[(size_t)rest[i] * a->t + t];
            s[(size_t)t * k + c] += h * h;
        }
    }
    for (size_t i = 0; i < (size_t)a->t * k; i++)
        s[i] = sqrtf(s[i]);
    ridge_regression(a, s, k, l->router);
    router_scale(a, k, l->router);
    free(s);
    free(pairs);
    free(cluster);
    free(filled);
    free(rest);
}

// ---- Running the dense model over the text

static bool activity_read(struct Device *dev, struct Activity *a, const struct BlockSaved *saved,
                          const struct Param *down) {
    size_t th = (size_t)a->t * a->hidden;
    float *gate = xmalloc(th * sizeof *gate), *up = xmalloc(th * sizeof *up);
    float *row = xmalloc(a->hidden * sizeof *row), *norm = xcalloc(a->hidden, sizeof *norm);
    bool ok = tensor_download(dev, &saved->xn2, 0, a->x, (uint64_t)a->t * a->dim * 4) &&
              tensor_download(dev, &saved->ffn.gate, 0, gate, th * 4) &&
              tensor_download(dev, &saved->ffn.up, 0, up, th * 4);
    for (uint32_t r = 0; r < a->dim && ok; r++) {
        ok = param_read(dev, down, r, 1, row);
        for (uint32_t i = 0; i < a->hidden; i++)
            norm[i] += row[i] * row[i];
    }
    for (uint32_t t = 0; t < a->t && ok; t++)
        for (uint32_t i = 0; i < a->hidden; i++) {
            float g = gate[(size_t)t * a->hidden + i], h = g / (1 + expf(-g)) * up[(size_t)t * a->hidden + i];
            a->h[(size_t)i * a->t + t] = fabsf(h) * sqrtf(norm[i]);
        }
    free(gate);
    free(up);
    free(row);
    free(norm);
    return ok;
}

static bool calibrate(struct Upcycle *u, const struct UpcycleOptions *o, struct Device *dev) {
    struct Model m;
    struct ModelOptions mo = {.type = DT_COUNT, .max_positions = CALIBRATE_TOKENS};
    uint32_t t = (uint32_t)min_u64(o->n_ids, CALIBRATE_TOKENS);
    if (t < 64)
        return fail("the calibration text has %u tokens; at least 64 are needed, %d are best", t, CALIBRATE_TOKENS);
    if (!model_load(&m, dev, u->file, &mo))
        return false;
    struct Arena scratch, host;
    arena_init(&scratch, dev, "activations", ARENA_DEVICE);
    arena_init(&host, dev, "batch", ARENA_HOST);
    struct Tensor ids = TENSOR(&host, DT_U32, t), positions = TENSOR(&host, DT_U32, t),
                  span = TENSOR(&host, DT_U32, t, 2);
    struct Tensor x = TENSOR(&scratch, DT_F32, t, m.config.dim), y = TENSOR(&scratch, DT_F32, t, m.config.dim);
    uint32_t *id = tensor_host(dev, &ids), *position = tensor_host(dev, &positions), *s = tensor_host(dev, &span);
    bool ok = id && position && s;
    for (uint32_t i = 0; i < t && ok; i++)
        id[i] = o->ids[i], position[i] = i, s[2 * i] = 0, s[2 * i + 1] = i + 1;
    struct Activity a = {.t = t, .dim = m.config.dim, .hidden = m.config.hidden};
    a.x = xmalloc((size_t)t * a.dim * sizeof *a.x);
    a.h = xmalloc((size_t)t * a.hidden * sizeof *a.h);
    for (uint32_t l = 0; l < m.config.n_layers && ok; l++) {
        struct ArenaMark mark = arena_mark(&scratch);
        struct Cmd *c = cmd_begin(dev, "calibrate");
        struct Pass p = {.c = c, .arena = &scratch, .m = &m, .t = t, .positions = positions, .span = span};
        struct BlockSaved saved;
        if (l == 0)
            op_embed(c, &ids, &m.embed->w, &x);
        block_forward(&p, l, l % 2 ? &y : &x, l % 2 ? &x : &y, &saved);
        struct Program *program = cmd_end(c);
        ok = program && program_run(program);
        if (ok && u->layers[l].order) {
            ok = activity_read(dev, &a, &saved, m.layers[l].ffn.down.w);
            if (ok)
                layer_calibrate(u, &a, o, l);
        }
        program_free(program);
        arena_release(&scratch, mark);
        if (o->progress)
            o->progress(o->progress_context, l + 1, m.config.n_layers);
    }
    free(a.x);
    free(a.h);
    arena_free(&scratch);
    arena_free(&host);
    model_free(&m);
    return ok;
}

// ---- The plan

static bool can_cut(uint32_t hidden, uint32_t shards) {
    return shards > 0 && hidden % shards == 0 && hidden / shards % 8 == 0;
}

static bool new_config(struct Upcycle *u, const struct UpcycleOptions *o) {
    const struct Config *d = &u->dense;
    const char *path = u->file->path;
    if (d->n_experts)
        return fail("%s has experts already; upcycle takes a dense model", path);
    if (!can_cut(d->hidden, o->shards)) {
        uint32_t better = o->shards;
        while (better > 1 && !can_cut(d->hidden, better))
            better--;
        return fail(
            "%s: a feed-forward width of %u cannot be cut into %u shards of a multiple of 8; --shards %u would do",
            path, d->hidden, o->shards, better);
    }
    if (o->shared >= o->shards || o->active == 0 || o->active > o->shards - o->shared)
        return fail("%u shards with %u shared leave %d routed experts; --active must be from 1 to that, found %u",
                    o->shards, o->shared, (int)o->shards - (int)o->shared, o->active);
    if (o->dense_layers >= d->n_layers)
        return fail("%s has %u layers; --dense-layers %u leaves none to cut", path, d->n_layers, o->dense_layers);
    u->config = *d;
    u->config.arch = ARCH_DEEPSEEK;
    u->config.n_experts = o->shards - o->shared;
    u->config.n_active = o->active;
    u->config.n_shared = o->shared;
    u->config.moe_hidden = d->hidden / o->shards;
    u->config.first_dense = o->dense_layers;
    u->config.moe_period = 1;
    u->config.norm_topk = false;
    u->config.routed_scale = 1;
    u->config.aux_alpha = 0.001f;
    u->config.seq_aux = true;
    return config_check(&u->config, path) && config_check_json(&u->config, path);
}

bool upcycle_plan(struct Upcycle *u, struct ModelFile *file, const struct UpcycleOptions *o, struct Device *dev) {
    memset(u, 0, sizeof *u);
    u->file = file;
    u->dense = file->config;
    u->source = modelfile_source(file);
    if (!new_config(u, o))
        return false;
    uint32_t n = u->dense.n_layers, hidden = u->dense.hidden, dim = u->dense.dim, experts = u->config.n_experts;
    u->layers = xcalloc(n, sizeof *u->layers);
    for (uint32_t l = o->dense_layers; l < n; l++) {
        u->layers[l].order = xmalloc(hidden * sizeof(uint32_t));
        u->layers[l].router = xmalloc((size_t)experts * dim * sizeof(float));
        for (uint32_t i = 0; i < hidden; i++)
            u->layers[l].order[i] = i;
        // A normed input has length sqrt(dim), so logits deviate by ROUTER_SPREAD.
        for (uint32_t i = 0; i < experts * dim; i++)
            u->layers[l].router[i] = ROUTER_SPREAD / sqrtf((float)dim) * random_normal(o->seed, 1000 + l, i);
    }
    return o->n_ids == 0 || calibrate(u, o, dev);
}

void upcycle_free(struct Upcycle *u) {
    for (uint32_t l = 0; u->layers && l < u->dense.n_layers; l++) {
        free(u->layers[l].order);
        free(u->layers[l].router);
    }
    free(u->layers);
    memset(u, 0, sizeof *u);
}

// ---- The weights

static bool is_cut(const struct Upcycle *u, const struct WeightSpec *w) {
    return w->layer < u->dense.n_layers && u->layers[w->layer].order &&
           (w->role == ROLE_SHARED || w->role == ROLE_EXPERTS || w->role == ROLE_ROUTER);
}

static enum DType cut_type(void *context, const struct WeightSpec *w) {
    struct Upcycle *u = context;
    return is_cut(u, w) ? DT_F32 : u->source.type(u->source.context, w);
}

// The dense matrix that a cut one comes from.
static const struct FileTensor *dense_tensor(const struct Upcycle *u, const struct WeightSpec *w, bool *down) {
    const char *part = strstr(w->name, "gate_proj") ? "gate_proj"
                       : strstr(w->name, "up_proj") ? "up_proj"
                                                    : "down_proj";
    char name[96];
    *down = part[0] == 'd';
    snprintf(name, sizeof name, "model.layers.%u.mlp.%s.weight", w->layer, part);
    return modelfile_find(u->file, name);
}

static bool dense_row(const struct Upcycle *u, const struct FileTensor *t, uint64_t row, uint8_t *raw, float *out) {
    if (!modelfile_read_rows(u->file, t, row, 1, raw))
        return false;
    quant_decode_row(t->type, raw, t->cols, out);
    return true;
}

static bool cut_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out_raw) {
    struct Upcycle *u = context;
    if (!is_cut(u, w))
        return u->source.rows(u->source.context, w, first, count, out_raw);
    const struct UpcycleLayer *l = &u->layers[w->layer];
    uint64_t cols = w->dim[w->n_dims - 1];
    float *out = out_raw;
    if (w->role == ROLE_ROUTER) {
        memcpy(out, l->router + first * cols, count * cols * sizeof *out);
        return true;
    }
    bool down, ok = true;
    const struct FileTensor *t = dense_tensor(u, w, &down);
    if (!t)
        return fail("%s: no dense matrix for %s", u->file->path, w->name);
    uint32_t width = u->config.moe_hidden, start = w->role == ROLE_SHARED ? 0 : u->config.n_shared * width;
    uint8_t *raw = xmalloc(t->row_bytes);
    float *row = xmalloc(t->cols * sizeof *row);
    float scale = w->role == ROLE_EXPERTS && down ? (float)u->config.n_experts : 1;
    for (uint64_t i = 0; i < count && ok; i++) {
        uint64_t r = first + i;
        if (!down) { // rows over all experts are neurons in order
            ok = dense_row(u, t, l->order[start + r], raw, out + i * cols);
            continue;
        }
        uint64_t expert = w->role == ROLE_EXPERTS ? r / u->dense.dim : 0;
        ok = dense_row(u, t, r % u->dense.dim, raw, row);
        for (uint64_t j = 0; j < cols && ok; j++)
            out[i * cols + j] = scale * row[l->order[start + expert * width + j]];
    }
    free(raw);
    free(row);
    return ok;
}

struct WeightSource upcycle_source(struct Upcycle *u) {
    return (struct WeightSource){u, cut_type, cut_rows};
}
