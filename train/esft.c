// Scores come from the forward pass alone: a row of the data at a time, whose routing each layer leaves in host memory.
#include "train/esft.h"
#include "model/json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void list_init(struct ExpertList *l, const struct Config *c) {
    *l = (struct ExpertList){.n_layers = c->n_layers};
    l->n = xcalloc(c->n_layers, sizeof *l->n);
    l->ids = xcalloc(c->n_layers, sizeof *l->ids);
}

void esft_free(struct ExpertList *l) {
    for (uint32_t i = 0; i < l->n_layers; i++)
        free(l->ids[i]);
    free(l->n);
    free(l->ids);
    *l = (struct ExpertList){0};
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t esft_hash(const struct ExpertList *l) {
    uint64_t hash = hash_bytes((bool[2]){l->shared, l->others}, 2 * sizeof(bool), 0);
    for (uint32_t i = 0; i < l->n_layers; i++)
        hash = hash_bytes(l->ids[i], l->n[i] * sizeof *l->ids[i], hash_bytes(&l->n[i], sizeof l->n[i], hash));
    return hash;
}

// ---- Files

static bool layer_read(struct ExpertList *l, const char *key, const json_t *list, const struct Config *c,
                       const char *path) {
    char *end, one_way[24]; // to write a number: "01" would be layer 1 once more
    unsigned long layer = strtoul(key, &end, 10);
    snprintf(one_way, sizeof one_way, "%lu", layer);
    if (strcmp(key, one_way) != 0 || layer >= c->n_layers || !config_is_moe(c, (uint32_t)layer))
        return fail("%s: layer \"%.20s\" of the list has no routed experts in this model of %u layers", path, key,
                    c->n_layers);
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > c->n_experts)
        return fail("%s: the experts of layer %lu must be a list of at most %u", path, layer, c->n_experts);
    uint32_t *ids = l->ids[layer] = xcalloc(n + 1, sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= c->n_experts)
            return fail("%s: an expert of layer %lu is none of 0 to %u", path, layer, c->n_experts - 1);
        ids[i] = (uint32_t)value;
    }
    qsort(ids, n, sizeof *ids, ascending);
    for (size_t i = 1; i < n; i++)
        if (ids[i] == ids[i - 1])
            return fail("%s: expert %u of layer %lu is named twice", path, ids[i], layer);
    l->n[layer] = (uint32_t)n;
    return true;
}

bool esft_read(struct ExpertList *l, const char *path, const struct Config *c) {
    json_t *root = json_parse_file(path, 1 << 24), *experts = json_object_get(root, "experts"), *list;
    const char *key;
    list_init(l, c);
    bool ok = root && (json_is_object(experts) || fail("%s: \"experts\" must be an object of lists by layer", path)) &&
              json_get_bool(root, "shared_experts", &l->shared, path) &&
              json_get_bool(root, "non_expert_modules", &l->others, path);
    if (ok)
        json_object_foreach(experts, key, list) ok = ok && layer_read(l, key, list, c, path);
    uint64_t named = 0;
    for (uint32_t i = 0; i < c->n_layers && ok; i++) {
        named += l->n[i];
        if (config_is_moe(c, i) && !l->ids[i])
            ok = fail("%s: layer %u has routed experts, and no list (an empty one is allowed)", path, i);
    }
    if (ok && !named && !l->shared && !l->others)
        ok = fail("%s: names nothing to train", path);
    json_decref(root);
    if (!ok)
        esft_free(l);
    return ok;
}

bool esft_write(const struct ExpertList *l, const char *path, const struct Config *c) {
    json_t *experts = json_object();
    for (uint32_t i = 0; i < l->n_layers; i++) {
        if (!config_is_moe(c, i))
            continue;
        char key[16];
        json_t *ids = json_array();
        for (uint32_t k = 0; k < l->n[i]; k++)
            json_array_append_new(ids, json_integer((json_int_t)l->ids[i][k]));
        snprintf(key, sizeof key, "%u", i);
        json_object_set_new(experts, key, ids);
    }
    json_t *root =
        json_pack("{s:o, s:b, s:b}", "experts", experts, "shared_experts", l->shared, "non_expert_modules", l->others);
    char *text = json_dumps(root, JSON_PRESERVE_ORDER), *line = xsprintf("%s\n", text);
    bool ok = file_write_atomic(path, line, strlen(line));
    free(text);
    free(line);
    json_decref(root);
    return ok;
}

void esft_name(const struct WeightSpec *w, uint32_t e, char name[ESFT_NAME_BYTES]) {
    char whole[ESFT_NAME_BYTES];
    if (w->role == ROLE_EXPERTS)
        weight_expert_name(w, e, whole, sizeof whole);
    else
        snprintf(whole, sizeof whole, "%s", w->name);
    snprintf(name, ESFT_NAME_BYTES, "%s", strncmp(whole, "model.", 6) == 0 ? whole + 6 : whole);
}

// Name and first row of copy `k` of what is trained of a parameter.
static uint64_t copy_of(const struct Param *p, uint32_t k, char name[ESFT_NAME_BYTES]) {
    uint32_t e = p->n_chosen ? p->chosen[k] : k;
    esft_name(&p->spec, e, name);
    return p->spec.role == ROLE_EXPERTS ? (uint64_t)e * p->spec.dim[1] : 0;
}
static uint32_t copies_of(const struct Param *p) {
    return !param_is_trained(p) ? 0 : p->spec.role == ROLE_EXPERTS ? p->g.dim[0] : 1;
}

bool esft_save(struct Model *m, const char *dir) {
    struct SafetensorsWriter w;
    struct WeightSource source = model_source(m);
    char name[ESFT_NAME_BYTES], *path = path_join(dir, ESFT_FILE);
    safetensors_writer_init(&w);
    safetensors_writer_metadata(&w, "format", "pt");
    for (uint32_t i = 0; i < m->n_base; i++)
        for (uint32_t k = 0; k < copies_of(&m->params[i]); k++) {
            const struct WeightSpec *spec = &m->params[i].spec;
            uint32_t from = spec->role == ROLE_EXPERTS;
            copy_of(&m->params[i], k, name);
            safetensors_writer_add(&w, name, m->params[i].w.type, spec->n_dims - from,
                                   (uint64_t[]){spec->dim[from], spec->dim[from + 1]});
        }
    bool ok = dir_make(dir) && safetensors_writer_begin(&w, path);
    for (uint32_t i = 0; i < m->n_base && ok; i++)
        for (uint32_t k = 0; k < copies_of(&m->params[i]) && ok; k++) {
            const struct Param *p = &m->params[i];
            uint64_t first = copy_of(p, k, name), rows = tensor_rows(&p->g) / copies_of(p);
            uint64_t bytes = rows * dtype_file_row_bytes(p->w.type, tensor_cols(&p->w));
            uint8_t *data = xmalloc(bytes);
            ok = source.rows(source.context, &p->spec, first, rows, data) && safetensors_writer_data(&w, data, bytes);
            free(data);
        }
    free(path);
    if (ok)
        return safetensors_writer_end(&w);
    safetensors_writer_abort(&w);
    return false;
}

// ---- Scores

struct Scoring {
    struct Arena scratch, host;
    struct Tensor ids, positions, span, chosen, weights;
    struct Program *program;
};

static bool scoring_init(struct Scoring *s, struct Model *m, uint32_t t) {
    const struct Config *c = &m->config;
    arena_init(&s->scratch, m->dev, "activations", ARENA_DEVICE);
    arena_init(&s->host, m->dev, "batch", ARENA_HOST);
    s->ids = TENSOR(&s->host, DT_U32, t);
    s->positions = TENSOR(&s->host, DT_U32, t);
    s->span = TENSOR(&s->host, DT_U32, t, 2);
    s->chosen = TENSOR(&s->host, DT_U32, c->n_layers, t, c->n_active);
    s->weights = TENSOR(&s->host, DT_F32, c->n_layers, t, c->n_active);
    struct Tensor x = TENSOR(&s->scratch, DT_F32, t, c->dim);
    struct Cmd *cmd = cmd_begin(m->dev, "routing");
    struct Pass p = {.c = cmd,
                     .arena = &s->scratch,
                     .m = m,
                     .t = t,
                     .positions = s->positions,
                     .span = s->span,
                     .chosen = s->chosen,
                     .chosen_weights = s->weights};
    op_embed(cmd, &s->ids, &m->embed->w, &x);
    for (uint32_t i = 0; i < c->n_layers; i++)
        block_forward(&p, i, &x, &x, NULL);
    s->program = cmd_end(cmd);
    return s->program && m->dev->state == DEVICE_OK;
}

static void scoring_free(struct Scoring *s) {
    program_free(s->program);
    arena_free(&s->scratch);
    arena_free(&s->host);
}

static bool score_row(struct Scoring *s, struct Model *m, const struct MicroBatch *b, enum ExpertScore kind,
                      double *scores) {
    const struct Config *c = &m->config;
    uint32_t *span = tensor_host(m->dev, &s->span);
    if (!span)
        return false;
    memcpy(tensor_host(m->dev, &s->ids), b->ids, s->ids.bytes);
    memcpy(tensor_host(m->dev, &s->positions), b->positions, s->positions.bytes);
    for (uint32_t i = 0; i < b->n_tokens; i++)
        span[2 * i] = b->first[i], span[2 * i + 1] = i + 1;
    if (!program_run(s->program))
        return false;
    const uint32_t *chosen = tensor_host(m->dev, &s->chosen);
    const float *weight = tensor_host(m->dev, &s->weights);
    for (uint32_t layer = 0; layer < c->n_layers; layer++)
        for (uint32_t t = 0; t < b->n_tokens && config_is_moe(c, layer); t++)
            for (uint32_t k = 0; k < c->n_active && b->document[t] != PACK_PADDING; k++) {
                size_t at = ((size_t)layer * b->n_tokens + t) * c->n_active + k;
                scores[(size_t)layer * c->n_experts + chosen[at]] += kind == EXPERT_GATE ? (double)weight[at] : 1;
            }
    return true;
}

enum { PACKED_AT_ONCE = 256 }; // examples: packed ones take 24 bytes a token of memory

bool esft_score(struct Model *m, const struct Dataset *d, const struct ExpertSample *sample, enum ExpertScore kind,
                double *scores) {
    const struct Config *c = &m->config;
    size_t n = sample->examples ? min_u64(sample->examples, d->n) : d->n;
    uint32_t *order = xmalloc(d->n * sizeof *order);
    const struct Example **list = xcalloc(n, sizeof *list);
    data_permute(order, d->n, sample->seed, 0);
    for (size_t i = 0; i < n; i++)
        list[i] = &d->examples[order[i]];
    memset(scores, 0, (size_t)c->n_layers * c->n_experts * sizeof *scores);
    struct Scoring s = {0};
    struct PackOptions po = {.seq_len = sample->seq_len, .micro_tokens = sample->seq_len};
    bool ok = scoring_init(&s, m, sample->seq_len);
    for (size_t first = 0; first < n && ok; first += PACKED_AT_ONCE) {
        struct PackPlan plan;
        ok = pack_plan(&plan, list + first, min_u64(PACKED_AT_ONCE, n - first), &po);
        if (!ok)
            break;
        for (size_t i = 0; i < plan.n && ok; i++)
            ok = score_row(&s, m, &plan.micro[i], kind, scores);
        pack_free(&plan);
    }
    scoring_free(&s);
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        double sum = 0;
        for (uint32_t e = 0; e < c->n_experts; e++)
            sum += scores[(size_t)layer * c->n_experts + e];
        for (uint32_t e = 0; e < c->n_experts && sum > 0; e++)
            scores[(size_t)layer * c->n_experts + e] /= sum;
    }
    free(list);
    free(order);
    return ok;
}

// ---- Choice

struct Scored {
    double score;
    uint32_t id;
};

static int greatest_first(const void *a, const void *b) {
    const struct Scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

// Takes experts by their scores until `enough` says so.
static void choose(struct ExpertList *l, const struct Config *c, const double *scores,
                   bool (*enough)(uint32_t n, double sum, uint32_t n_experts, double limit), double limit) {
    struct Scored *order = xcalloc(c->n_experts + 1, sizeof *order);
    list_init(l, c);
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        if (!config_is_moe(c, layer))
            continue;
        for (uint32_t e = 0; e < c->n_experts; e++) // equal scores ask for the most
            order[e] = (struct Scored){scores ? scores[(size_t)layer * c->n_experts + e] : 1.0 / c->n_experts, e};
        qsort(order, c->n_experts, sizeof *order, greatest_first);
        uint32_t *ids = l->ids[layer] = xcalloc(c->n_experts, sizeof *ids), n = 0;
        double sum = 0;
        while (n < c->n_experts && !enough(n, sum, c->n_experts, limit)) {
            ids[n] = order[n].id;
            sum += order[n++].score;
        }
        qsort(ids, n, sizeof *ids, ascending);
        l->n[layer] = n;
    }
    free(order);
}

// A sum of many shares is a hair off what it stands for.
static bool enough_score(uint32_t n, double sum, uint32_t n_experts, double limit) {
    (void)n, (void)n_experts;
    return sum >= limit - 1e-12;
}

static bool enough_experts(uint32_t n, double sum, uint32_t n_experts, double limit) {
    (void)sum;
    return (double)n >= limit * (double)n_experts - 1e-9;
}

void esft_choose(struct ExpertList *l, const struct Config *c, const double *scores, double threshold) {
    choose(l, c, scores, enough_score, threshold);
}

void esft_choose_share(struct ExpertList *l, const struct Config *c, const double *scores, double share) {
    choose(l, c, scores, enough_experts, share);
}

void esft_choose_marked(struct ExpertList *l, const struct Config *c, const uint8_t *marked) {
    list_init(l, c);
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        if (!config_is_moe(c, layer))
            continue;
        l->ids[layer] = xcalloc(c->n_experts, sizeof *l->ids[layer]);
        for (uint32_t e = 0; e < c->n_experts; e++)
            if (marked[(size_t)layer * c->n_experts + e])
                l->ids[layer][l->n[layer]++] = e;
    }
}
