// Building the parameter table, filling it from files or at random, and adding adapters.
#include "model/experts.h"
#include "model/quant.h"
#include "model/rope.h"
#include "runtime/parallel.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// What a parameter is stored as.
static enum DType storage_type(const struct WeightSpec *w, enum DType type) {
    if (weight_is_exact(w))
        return DT_F32;
    return dtype_for_cols(type, w->dim[w->n_dims - 1]);
}

bool param_next_run(const struct Param *p, struct ParamRun *r) {
    if (!p->n_chosen) {
        if (r->n)
            return false;
        *r = (struct ParamRun){.n = p->w.dim[0], .w = p->w, .peak = p->peak, .g = p->g, .m1 = p->m1, .m2 = p->m2};
        return true;
    }
    uint32_t slot = r->slot + r->n, n = 1;
    if (slot >= p->n_chosen)
        return false;
    while (slot + n < p->n_chosen && p->chosen[slot + n] == p->chosen[slot] + n)
        n++;
    *r = (struct ParamRun){.first = p->chosen[slot],
                           .slot = slot,
                           .n = n,
                           .w = tensor_slice(&p->w, p->chosen[slot], n),
                           .g = tensor_slice(&p->g, slot, n),
                           .m1 = tensor_slice(&p->m1, slot, n),
                           .m2 = tensor_slice(&p->m2, slot, n)};
    uint32_t each = p->w.dim[1]; // rows of an expert
    if (tensor_exists(&p->peak))
        r->peak = tensor_slice(&p->peak, r->first * each, n * each);
    return true;
}

static struct Param *param_named(struct Model *m, uint32_t layer, enum WeightRole role, const char *part) {
    for (uint32_t i = 0; i < m->n_params; i++) {
        struct Param *p = &m->params[i];
        if (p->spec.layer == layer && p->spec.role == role && strstr(p->spec.name, part))
            return p;
    }
    return NULL;
}

static struct Linear linear_named(struct Model *m, uint32_t layer, enum WeightRole role, const char *part) {
    return (struct Linear){.w = param_named(m, layer, role, part), .bias = param_named(m, layer, ROLE_BIAS, part)};
}

static void layer_link(struct Model *m, uint32_t i) {
    struct Layer *l = &m->layers[i];
    l->is_moe = config_is_moe(&m->config, i);
    l->norm1 = param_named(m, i, ROLE_NORM, "input_layernorm");
    l->norm2 = param_named(m, i, ROLE_NORM, "post_attention_layernorm");
    l->q = linear_named(m, i, ROLE_Q, "q_proj");
    l->k = linear_named(m, i, ROLE_K, "k_proj");
    l->v = linear_named(m, i, ROLE_V, "v_proj");
    l->o = linear_named(m, i, ROLE_O, "o_proj");
    l->q_norm = param_named(m, i, ROLE_NORM, "q_norm");
    l->k_norm = param_named(m, i, ROLE_NORM, "k_norm");
    l->router.w = param_named(m, i, ROLE_ROUTER, "");
    enum WeightRole dense = l->is_moe ? ROLE_SHARED : ROLE_FFN;
    l->shared_gate.w = param_named(m, i, ROLE_SHARED_GATE, "");
    l->ffn.gate = linear_named(m, i, dense, "gate_proj");
    l->ffn.up = linear_named(m, i, dense, "up_proj");
    l->ffn.down = linear_named(m, i, dense, "down_proj");
    l->routed.gate.w = param_named(m, i, ROLE_EXPERTS, "gate_proj");
    l->routed.up.w = param_named(m, i, ROLE_EXPERTS, "up_proj");
    l->routed.down.w = param_named(m, i, ROLE_EXPERTS, "down_proj");
    l->has_shared = l->is_moe && l->ffn.gate.w;
}

// In double on the host: sine of a large argument is not trustworthy on a device.
static bool rope_fill(struct Model *m) {
    uint32_t half = m->config.head_dim / 2;
    m->rope = TENSOR(&m->arena, DT_F32, m->max_positions, half, 2);
    if (m->dev->is_dry || m->dev->state != DEVICE_OK)
        return m->dev->state == DEVICE_OK;
    float *table = xcalloc((size_t)m->max_positions * half * 2, sizeof *table);
    double frequency[CONFIG_MAX_HEAD_DIM / 2], magnitude = rope_magnitude(&m->config);
    rope_frequencies(&m->config, frequency);
    for (uint32_t pos = 0; pos < m->max_positions; pos++)
        for (uint32_t i = 0; i < half; i++) {
            table[((size_t)pos * half + i) * 2] = (float)(magnitude * cos(pos * frequency[i]));
            table[((size_t)pos * half + i) * 2 + 1] = (float)(magnitude * sin(pos * frequency[i]));
        }
    bool ok = tensor_upload(m->dev, &m->rope, 0, table, m->rope.bytes);
    free(table);
    return ok;
}

static bool lies_on_host(const struct Config *c, const struct WeightSpec *w, const struct ModelOptions *o) {
    return (o->expert_slots && w->role == ROLE_EXPERTS) ||
           (w->layer != UINT32_MAX && w->layer + o->host_layers >= c->n_layers);
}

// Where a parameter of that shape can be read in its file's mapping; 0: it needs memory.
static uint64_t mapped_address(struct Model *m, const struct ModelFile *file, const char *name,
                               const struct Tensor *w) {
    const struct FileTensor *t = modelfile_find(file, name);
    struct FilePart at;
    if (!t || t->type != w->type || dtype_is_quantised(w->type) || !modelfile_place(t, &at))
        return 0;
    const struct FileIn *in = file->shards[at.shard];
    if (!m->maps[at.shard])
        m->maps[at.shard] = filemap_open(m->dev, in->fd, in->bytes, in->name);
    return m->maps[at.shard] ? filemap_address(m->maps[at.shard], at.offset, w->bytes) : 0;
}

// type_of gives the stored type of each weight; `file` is where they will be read from (NULL: from none).
static bool model_build(struct Model *m, struct Device *dev, const struct Config *c,
                        enum DType (*type_of)(const void *context, const struct WeightSpec *w), const void *context,
                        const struct ModelFile *file, const struct ModelOptions *o) {
    memset(m, 0, sizeof *m);
    m->config = *c;
    m->dev = dev;
    m->max_positions = o->max_positions ? o->max_positions : c->max_context;
    arena_init(&m->arena, dev, "weights", ARENA_DEVICE);
    arena_init(&m->host, dev, "weights in host memory", ARENA_HOST);
    arena_init(&m->pool, dev, "slots of experts", ARENA_DEVICE);
    arena_init(&m->adapters, dev, "adapters", ARENA_DEVICE);
    m->arena.lasting = m->adapters.lasting = m->pool.exact = true;
    struct WeightSpec *list = weight_list(c, &m->n_params);
    // Two adapters per base parameter at most; the table must not move once layers point into it.
    m->params = xcalloc((size_t)m->n_params * 3, sizeof *m->params);
    m->n_base = m->n_params;
    m->n_maps = file ? file->n_shards : 0;
    m->maps = xcalloc(m->n_maps + 1, sizeof *m->maps);
    for (uint32_t i = 0; i < m->n_params; i++) {
        struct Param *p = &m->params[i];
        p->spec = list[i];
        p->decay = list[i].n_dims > 1;
        p->w = tensor_shape(type_of(context, &list[i]), list[i].n_dims, list[i].dim);
        p->w.address = file && o->map ? mapped_address(m, file, list[i].name, &p->w) : 0;
        p->mapped = p->w.address != 0;
        p->on_host = !p->mapped && lies_on_host(c, &list[i], o);
        if (!p->mapped)
            p->w = arena_tensor(p->on_host ? &m->host : &m->arena, p->w.type, p->w.n_dims, p->w.dim);
        if (list[i].role == ROLE_EMBED)
            m->embed = p;
        else if (list[i].role == ROLE_HEAD)
            m->head = p;
        else if (list[i].role == ROLE_NORM && list[i].layer == UINT32_MAX)
            m->norm = p;
    }
    free(list);
    if (!m->head)
        m->head = m->embed;
    m->layers = xcalloc(c->n_layers, sizeof *m->layers);
    for (uint32_t i = 0; i < c->n_layers; i++)
        layer_link(m, i);
    if (o->expert_slots && c->n_experts)
        experts_init(m, o->expert_slots);
    bool ok = rope_check_context(c, m->max_positions, "the model") && rope_fill(m) && dev->state == DEVICE_OK;
    return ok;
}

static enum DType type_fixed(const void *context, const struct WeightSpec *w) {
    return storage_type(w, *(const enum DType *)context);
}

bool model_init(struct Model *m, struct Device *dev, const struct Config *c, enum DType type, uint32_t max_positions) {
    return model_init_with(m, dev, c, &(struct ModelOptions){.type = type, .max_positions = max_positions});
}

bool model_init_with(struct Model *m, struct Device *dev, const struct Config *c, const struct ModelOptions *o) {
    enum DType type = o->type == DT_COUNT ? DT_F32 : o->type;
    return model_build(m, dev, c, type_fixed, &type, NULL, o);
}

static enum DType type_of_file(const void *context, const struct WeightSpec *w) {
    const struct FileTensor *t = modelfile_find(context, w->name);
    return storage_type(w, t ? t->type : DT_F32);
}

struct Conversion {
    enum DType from, to;
    uint64_t cols;
    const uint8_t *in;
    uint8_t *out;
    _Atomic uint64_t refused; // a row that cannot be of the type `to`; UINT64_MAX: there is none
};

static void convert_part(void *context, uint64_t first, uint64_t end) {
    struct Conversion *v = context;
    uint64_t in_row = dtype_file_row_bytes(v->from, v->cols), out_row = dtype_row_bytes(v->to, v->cols);
    float *values = v->from == v->to ? NULL : xmalloc(v->cols * sizeof *values);
    uint8_t *encoded = v->from == v->to ? NULL : xmalloc(dtype_file_row_bytes(v->to, v->cols));
    for (uint64_t r = first; r < end; r++) {
        const uint8_t *row = v->in + r * in_row;
        if (v->from != v->to) {
            quant_decode_row(v->from, row, v->cols, values);
            if (!quant_encode_row(v->to, values, v->cols, encoded)) {
                v->refused = r;
                break;
            }
            row = encoded;
        }
        quant_row_to_device(v->to, row, v->cols, v->out + r * out_row);
    }
    free(values);
    free(encoded);
}

// Converts `n` rows of `p`, from its row `first` on, from file layout of type `from` into the parameter's device layout. `where` is for
// messages.
static bool rows_convert(enum DType from, const struct Param *p, uint64_t first, uint64_t n, const uint8_t *in,
                         uint8_t *out, const char *where) {
    struct Conversion v = {from, p->w.type, tensor_cols(&p->w), in, out, UINT64_MAX};
    parallel_for(n, div_up(1 << 18, v.cols), convert_part, &v);
    if (v.refused == UINT64_MAX)
        return true;
    float *values = xmalloc(v.cols * sizeof *values);
    quant_decode_row(from, in + v.refused * dtype_file_row_bytes(from, v.cols), v.cols, values);
    quant_refuse_row(v.to, values, v.cols, where, p->spec.name, first + v.refused);
    free(values);
    return false;
}

static bool param_load(struct Model *m, const struct ModelFile *file, struct Param *p, const struct ModelOptions *o,
                       uint64_t *done, uint64_t all) {
    const struct FileTensor *t = modelfile_find(file, p->spec.name);
    if (!t)
        return fail("%s: no tensor %s", file->path, p->spec.name);
    uint64_t out_row = dtype_row_bytes(p->w.type, t->cols);
    bool as_is = t->type == p->w.type && !dtype_is_quantised(t->type);
    uint64_t step = max_u64(1, UPLOAD_BYTES / max_u64(t->row_bytes, out_row));
    uint8_t *in = as_is ? NULL : xmalloc(step * t->row_bytes);
    bool ok = out_row <= UPLOAD_BYTES ||
              fail("%s: rows of %llu bytes are too long", t->spec.name, (unsigned long long)out_row);
    for (uint64_t first = 0; first < t->n_rows && ok; first += step) {
        uint64_t n = min_u64(step, t->n_rows - first);
        // The device's own memory where the host can map it, else a piece of the ring: the copy of the last piece goes on meanwhile.
        uint8_t *out = upload_room(m->dev, &p->w, first * out_row, n * out_row);
        ok = out && modelfile_read_rows(file, t, first, n, as_is ? out : in);
        if (ok && !as_is)
            ok = rows_convert(t->type, p, first, n, in, out, file->path);
        ok = ok && upload_send(m->dev, &p->w, first * out_row, n * out_row);
        *done += n * t->row_bytes;
        if (ok && o->progress)
            o->progress(o->progress_context, *done, all);
    }
    free(in);
    return ok;
}

bool model_load(struct Model *m, struct Device *dev, const struct ModelFile *file, const struct ModelOptions *o) {
    bool ok = o->type == DT_COUNT ? model_build(m, dev, &file->config, type_of_file, file, file, o)
                                  : model_build(m, dev, &file->config, type_fixed, &o->type, file, o);
    for (uint32_t i = 0; i < m->n_maps && ok; i++)
        if (m->maps[i])
            filemap_read_ahead(m->maps[i]);
    uint64_t done = 0, all = 0;
    for (uint32_t i = 0; i < file->n_tensors; i++)
        all += file->tensors[i].n_rows * file->tensors[i].row_bytes;
    all -= min_u64(all, dev->is_dry ? 0 : dev->mapped_bytes);
    for (uint32_t i = 0; i < m->n_params && ok && !dev->is_dry; i++) // a dry run needs no contents
        ok = m->params[i].mapped || param_load(m, file, &m->params[i], o, &done, all);
    ok = ok && device_wait(dev);
    if (!ok)
        model_free(m);
    return ok;
}

void model_free(struct Model *m) {
    experts_free(m);
    if (m->dev) {
        arena_free(&m->arena);
        arena_free(&m->adapters);
        arena_free(&m->host);
        arena_free(&m->pool);
    }
    for (uint32_t i = 0; i < m->n_maps; i++)
        filemap_close(m->maps[i]);
    free(m->maps);
    free(m->params);
    free(m->layers);
    memset(m, 0, sizeof *m);
}

uint64_t model_weight_bytes(const struct Config *c, enum DType type) {
    uint32_t n;
    uint64_t bytes = 0;
    struct WeightSpec *list = weight_list(c, &n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t rows = 1;
        for (uint32_t d = 0; d + 1 < list[i].n_dims; d++)
            rows *= list[i].dim[d];
        bytes += rows * dtype_row_bytes(storage_type(&list[i], type), list[i].dim[list[i].n_dims - 1]);
    }
    free(list);
    return bytes;
}

// ---- Values

struct RandomValues {
    const struct Config *c;
    const struct WeightSpec *w;
    uint64_t seed, stream, first;
    float *out;
};

static void random_part(void *context, uint64_t first, uint64_t end) {
    const struct RandomValues *r = context;
    random_normals(r->seed, r->stream, r->first + first, end - first, r->c->init_std, r->out + first);
}

void model_random_values(const struct Config *c, const struct WeightSpec *w, uint64_t seed, uint64_t first, uint64_t n,
                         float *out) {
    struct RandomValues r = {c, w, seed, hash_bytes(w->name, strlen(w->name), 1), first, out};
    if (w->role == ROLE_NORM || w->role == ROLE_BIAS)
        for (uint64_t i = 0; i < n; i++)
            out[i] = w->role == ROLE_NORM;
    else
        parallel_for(n, 1 << 16, random_part, &r);
}

bool param_write(struct Device *dev, const struct Param *p, uint64_t first_row, uint64_t n_rows, const float *in) {
    uint64_t cols = tensor_cols(&p->w), out_row = dtype_row_bytes(p->w.type, cols);
    uint8_t *out = xmalloc(n_rows * out_row);
    bool ok = rows_convert(DT_F32, p, first_row, n_rows, (const uint8_t *)in, out, "the model") &&
              tensor_upload(dev, &p->w, first_row * out_row, out, n_rows * out_row);
    free(out);
    return ok && param_written(dev, p);
}

bool param_read(struct Device *dev, const struct Param *p, uint64_t first_row, uint64_t n_rows, float *out) {
    uint64_t cols = tensor_cols(&p->w), in_row = dtype_row_bytes(p->w.type, cols);
    uint8_t *in = xmalloc(n_rows * in_row), *file_row = xmalloc(dtype_file_row_bytes(p->w.type, cols));
    bool ok = tensor_download(dev, &p->w, first_row * in_row, in, n_rows * in_row);
    for (uint64_t r = 0; r < n_rows && ok; r++) {
        quant_row_from_device(p->w.type, in + r * in_row, cols, file_row);
        quant_decode_row(p->w.type, file_row, cols, out + r * cols);
    }
    free(in);
    free(file_row);
    return ok;
}

static bool param_fill(struct Model *m, struct Param *p,
                       void (*fill)(const struct Model *, const struct Param *, uint64_t seed, uint64_t first,
                                    uint64_t n, float *out),
                       uint64_t seed) {
    uint64_t rows = tensor_rows(&p->w), cols = tensor_cols(&p->w), step = max_u64(1, (1 << 20) / cols);
    float *values = xmalloc(step * cols * sizeof *values);
    bool ok = true;
    for (uint64_t first = 0; first < rows && ok; first += step) {
        uint64_t n = min_u64(step, rows - first);
        fill(m, p, seed, first * cols, n * cols, values);
        ok = param_write(m->dev, p, first, n, values);
    }
    free(values);
    return ok;
}

static void base_values(const struct Model *m, const struct Param *p, uint64_t seed, uint64_t first, uint64_t n,
                        float *out) {
    model_random_values(&m->config, &p->spec, seed, first, n, out);
}

bool model_randomise(struct Model *m, uint64_t seed) {
    for (uint32_t i = 0; i < m->n_base; i++)
        if (!param_fill(m, &m->params[i], base_values, seed))
            return false;
    return true;
}

bool model_fill(struct Model *m, uint64_t seed) {
    for (uint32_t i = 0; i < m->n_base; i++) {
        struct Param *p = &m->params[i];
        uint64_t rows = tensor_rows(&p->w), cols = tensor_cols(&p->w), row = p->w.bytes / rows;
        uint64_t first = min_u64(rows, max_u64(1, (1 << 20) / cols));
        float *values = xmalloc(first * cols * sizeof *values);
        base_values(m, p, seed, 0, first * cols, values);
        bool ok = param_write(m->dev, p, 0, first, values);
        free(values);
        for (uint64_t done = first, n; done < rows && ok; done += n) {
            n = min_u64(done, rows - done);
            ok = tensors_copy(m->dev, &(struct TensorCopy){&p->w, &p->w, 0, done * row, n * row}, 1);
        }
        if (!ok || !param_written(m->dev, p))
            return false;
    }
    return true;
}

struct Param *model_param(const struct Model *m, const char *name) {
    for (uint32_t i = 0; i < m->n_base; i++)
        if (strcmp(m->params[i].spec.name, name) == 0)
            return &m->params[i];
    return NULL;
}

static enum DType source_type(void *context, const struct WeightSpec *w) {
    struct Param *p = model_param(context, w->name);
    if (p)
        return p->w.type;
    fail("the model has no tensor %s", w->name);
    return DT_COUNT;
}

static bool source_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    struct Param *p = model_param(context, w->name);
    if (!p)
        return fail("the model has no tensor %s", w->name);
    uint64_t cols = tensor_cols(&p->w), row = dtype_row_bytes(p->w.type, cols),
             file_row = dtype_file_row_bytes(p->w.type, cols);
    uint8_t *in = xmalloc(count * row);
    bool ok = tensor_download(((struct Model *)context)->dev, &p->w, first * row, in, count * row);
    for (uint64_t r = 0; r < count && ok; r++)
        quant_row_from_device(p->w.type, in + r * row, cols, (uint8_t *)out + r * file_row);
    free(in);
    return ok;
}

struct WeightSource model_source(struct Model *m) {
    return (struct WeightSource){m, source_type, source_rows};
}

// ---- Peaks

static bool run_once(struct Cmd *c) {
    struct Program *p = cmd_end(c);
    bool ok = p && program_run(p);
    program_free(p);
    return ok;
}

// Whether a product reads p->w where it lies. What is trained in host memory would go over the bus once more each step.
static bool keeps_peaks(const struct Model *m, const struct Param *p) {
    bool embedding = p == m->embed && p != m->head, streamed = m->experts && p->spec.role == ROLE_EXPERTS;
    return p->spec.n_dims > 1 && !embedding && !streamed && !(param_is_trained(p) && p->on_host) &&
           linear_wants_peaks(m->dev, p->w.type);
}

bool model_find_peaks(struct Model *m) {
    struct Cmd *c = NULL;
    for (uint32_t i = 0; i < m->n_base; i++) {
        struct Param *p = &m->params[i];
        if (tensor_exists(&p->peak) || !keeps_peaks(m, p))
            continue;
        p->peak = TENSOR(&m->arena, DT_U32, (uint32_t)tensor_rows(&p->w));
        c = c ? c : cmd_begin(m->dev, "peaks of weights");
        op_peaks(c, &p->w, false, &p->peak);
    }
    if (c && m->dev->is_dry)
        program_free(cmd_end(c));
    else if (c)
        return run_once(c);
    return m->dev->state == DEVICE_OK;
}

bool param_written(struct Device *dev, const struct Param *p) {
    if (!tensor_exists(&p->peak))
        return true;
    struct Cmd *c = cmd_begin(dev, "peaks of a weight");
    op_peaks(c, &p->w, false, &p->peak);
    return run_once(c);
}

// ---- Adapters

// Rows and columns beyond the true rank are zero and stay so: their gradients vanish.
static float lora_value(const struct Param *p, uint64_t seed, uint64_t index) {
    uint64_t in = tensor_cols(&p->w), padded = p->w.dim[p->w.n_dims - 2], rank = p->spec.dim[p->spec.n_dims - 2];
    if (index / in % padded >= rank)
        return 0;
    float bound = 1 / sqrtf((float)in);
    return bound * (2 * random_uniform(seed, hash_bytes(p->spec.name, strlen(p->spec.name), 2), index) - 1);
}

static void lora_values(const struct Model *m, const struct Param *p, uint64_t seed, uint64_t first, uint64_t n,
                        float *out) {
    (void)m;
    for (uint64_t i = 0; i < n; i++)
        out[i] = lora_value(p, seed, first + i);
}

// One adapter matrix: shape (E,) rows x cols, where rows or cols may be padded beyond what spec states.
static struct Param *lora_param(struct Model *m, const struct Param *base, const char *suffix, uint32_t rows,
                                uint32_t cols, uint32_t stored_rows, uint32_t stored_cols) {
    struct Param *p = &m->params[m->n_params++];
    p->spec = base->spec;
    p->decay = true;
    size_t length = strlen(p->spec.name) - strlen(".weight");
    snprintf(p->spec.name + length, sizeof p->spec.name - length, "%s", suffix);
    uint32_t d = base->spec.n_dims - 2, dim[4] = {base->spec.dim[0]};
    p->spec.dim[d] = rows, p->spec.dim[d + 1] = cols;
    dim[d] = stored_rows, dim[d + 1] = stored_cols;
    p->w = arena_tensor(&m->adapters, DT_F32, base->spec.n_dims, dim);
    return p;
}

float lora_scale(const struct LoraOptions *o) {
    return o->alpha / (o->rank_stabilised ? sqrtf((float)o->rank) : (float)o->rank);
}

static bool linear_add_lora(struct Model *m, struct Linear *l, const struct LoraOptions *o, uint64_t seed) {
    uint32_t d = l->w->spec.n_dims - 2, out = l->w->spec.dim[d], in = l->w->spec.dim[d + 1];
    uint32_t padded = lora_padded_rank(o->rank);
    l->a = lora_param(m, l->w, ".lora_A", o->rank, in, padded, in);
    l->b = lora_param(m, l->w, ".lora_B", out, o->rank, out, padded);
    l->scale = lora_scale(o);
    if (m->dev->is_dry)
        return true;
    uint8_t *zero = xcalloc(1, l->b->w.bytes);
    bool ok = m->dev->state == DEVICE_OK && param_fill(m, l->a, lora_values, seed) &&
              tensor_upload(m->dev, &l->b->w, 0, zero, l->b->w.bytes);
    free(zero);
    return ok;
}

enum { LAYER_LINEARS = 11 };
struct Targeted {
    uint32_t target;
    struct Linear *linear;
};

// All linears of a layer; those that it does not have are without a weight.
static void layer_linears(struct Layer *l, struct Targeted list[LAYER_LINEARS]) {
    uint32_t dense = l->is_moe ? LORA_SHARED : LORA_FFN;
    const struct Targeted all[LAYER_LINEARS] = {
        {LORA_Q, &l->q},
        {LORA_K, &l->k},
        {LORA_V, &l->v},
        {LORA_O, &l->o},
        {dense, &l->ffn.gate},
        {dense, &l->ffn.up},
        {dense, &l->ffn.down},
        {LORA_EXPERTS, &l->routed.gate},
        {LORA_EXPERTS, &l->routed.up},
        {LORA_EXPERTS, &l->routed.down},
        {LORA_ROUTER, &l->router},
    };
    memcpy(list, all, sizeof all);
}

const struct Linear *model_adapted(const struct Model *m, const char *name) {
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        struct Targeted list[LAYER_LINEARS];
        layer_linears(&m->layers[i], list);
        for (uint32_t k = 0; k < LAYER_LINEARS; k++) {
            const struct Linear *l = list[k].linear;
            if (l->w && l->a && strcmp(l->w->spec.name, name) == 0)
                return l;
        }
    }
    return NULL;
}

bool model_add_lora(struct Model *m, const struct LoraOptions *o, uint64_t seed) {
    if (m->experts && (o->targets & LORA_EXPERTS))
        return fail(
            "an adapter of routed experts goes with experts on the device only (--experts-on gpu); `vkmoe merge` "
            "puts it into the weights");
    uint32_t found = 0;
    bool ok = true;
    for (uint32_t i = 0; i < m->config.n_layers && ok; i++) {
        struct Targeted list[LAYER_LINEARS];
        layer_linears(&m->layers[i], list);
        for (uint32_t k = 0; k < LAYER_LINEARS && ok; k++)
            if ((o->targets & list[k].target) && list[k].linear->w) {
                ok = linear_add_lora(m, list[k].linear, o, seed);
                found |= list[k].target;
            }
    }
    // LORA_ALL asks for whatever there is; a target named alone must exist.
    static const char *const NAMES[] = {"q_proj", "k_proj",         "v_proj",  "o_proj",
                                        "dense",  "shared_experts", "experts", "gate"};
    for (uint32_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && ok && o->targets != LORA_ALL; i++)
        if (o->targets & ~found & 1u << i)
            ok = fail("LoRA: the target %s matches no layer of this model", NAMES[i]);
    return ok;
}

void model_scale_lora(struct Model *m, const struct LoraOptions *o, float factor) {
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        struct Targeted list[LAYER_LINEARS];
        layer_linears(&m->layers[i], list);
        for (uint32_t k = 0; k < LAYER_LINEARS; k++)
            if (list[k].linear->a)
                list[k].linear->scale = factor * lora_scale(o);
    }
}

void model_remove_lora(struct Model *m) {
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        struct Targeted list[LAYER_LINEARS];
        layer_linears(&m->layers[i], list);
        for (uint32_t k = 0; k < LAYER_LINEARS; k++)
            list[k].linear->a = list[k].linear->b = NULL;
    }
    memset(m->params + m->n_base, 0, (size_t)(m->n_params - m->n_base) * sizeof *m->params);
    m->n_params = m->n_base;
    arena_free(&m->adapters);
}
