// See merge.h.
#include "train/merge.h"
#include "model/adapter.h"
#include "model/quant.h"
#include "runtime/parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- What is changed

// Of expert e where the weight is stacked by expert, else of the weight; NULL: it stays.
static const struct SafetensorsEntry *entry_of(const struct Merge *g, const struct WeightSpec *w, uint32_t e) {
    char name[ESFT_NAME_BYTES];
    if (!g->has_experts)
        return NULL;
    esft_name(w, e, name);
    return safetensors_find(&g->experts, name);
}

static bool changes(const struct Merge *g, const struct WeightSpec *w) {
    bool any = model_adapted(g->m, w->name) != NULL;
    for (uint32_t e = 0; e < (w->role == ROLE_EXPERTS ? w->dim[0] : 1); e++)
        any = any || entry_of(g, w, e);
    return any;
}

// ---- Rows

static float *adapter_read(struct Model *m, const struct Param *p) {
    float *v = xmalloc(tensor_elements(&p->w) * sizeof *v);
    if (param_read(m->dev, p, 0, tensor_rows(&p->w), v))
        return v;
    free(v);
    return NULL;
}

struct Product {
    const struct Linear *l;
    const float *a, *b;
    uint64_t first;        // row of the whole tensor that out begins with
    uint32_t out_rows, in; // of one expert
    float *out;            // (count, in)
};

static void add_product(void *context, uint64_t begin, uint64_t end) {
    const struct Product *p = context;
    uint32_t rank = tensor_cols(&p->l->b->w);
    double *sum = xmalloc(p->in * sizeof *sum);
    for (uint64_t i = begin; i < end; i++) {
        uint64_t expert = (p->first + i) / p->out_rows;
        const float *b = p->b + (p->first + i) * rank, *a = p->a + expert * rank * p->in;
        memset(sum, 0, p->in * sizeof *sum);
        for (uint32_t r = 0; r < rank; r++)
            for (uint32_t c = 0; c < p->in && b[r] != 0; c++)
                sum[c] += (double)b[r] * (double)a[(size_t)r * p->in + c];
        for (uint32_t c = 0; c < p->in; c++)
            p->out[i * p->in + c] = (float)((double)p->out[i * p->in + c] + (double)p->l->scale * sum[c]);
    }
    free(sum);
}

static bool add_adapter(struct Merge *g, const struct Linear *l, const struct WeightSpec *w, uint64_t first,
                        uint64_t count, float *out) {
    if (l != g->linear) {
        free(g->a), free(g->b);
        g->linear = l;
        g->a = adapter_read(g->m, l->a);
        g->b = g->a ? adapter_read(g->m, l->b) : NULL;
    }
    if (!g->b)
        return false;
    struct Product p = {l, g->a, g->b, first, w->dim[w->n_dims - 2], w->dim[w->n_dims - 1], out};
    parallel_for(count, 8, add_product, &p);
    return true;
}

static bool replace(const struct Merge *g, const struct WeightSpec *w, uint64_t first, uint64_t count, float *out) {
    uint64_t cols = w->dim[w->n_dims - 1], each = w->role == ROLE_EXPERTS ? w->dim[1] : UINT64_MAX;
    for (uint64_t i = 0; i < count; i++) {
        const struct SafetensorsEntry *e = entry_of(g, w, each == UINT64_MAX ? 0 : (uint32_t)((first + i) / each));
        if (!e)
            continue;
        uint64_t row_bytes = dtype_file_row_bytes(e->type, cols);
        uint8_t *raw = xmalloc(row_bytes);
        bool ok = safetensors_read(&g->experts, e, (first + i) % each * row_bytes, row_bytes, raw);
        if (ok)
            quant_decode_row(e->type, raw, cols, out + i * cols);
        free(raw);
        if (!ok)
            return false;
    }
    return true;
}

// Merged rows in f32; of a tensor that is not changed they are the model's.
static bool merged_rows(struct Merge *g, const struct WeightSpec *w, uint64_t first, uint64_t count, float *out) {
    const struct Linear *l = model_adapted(g->m, w->name);
    const struct Param *p = model_param(g->m, w->name);
    return param_read(g->m->dev, p, first, count, out) && (!l || add_adapter(g, l, w, first, count, out)) &&
           replace(g, w, first, count, out);
}

static enum DType source_type(void *context, const struct WeightSpec *w) {
    struct Merge *g = context;
    return changes(g, w) ? DT_F32 : g->base.type(g->base.context, w);
}

static bool source_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    struct Merge *g = context;
    return changes(g, w) ? merged_rows(g, w, first, count, out) : g->base.rows(g->base.context, w, first, count, out);
}

struct WeightSource merge_source(struct Merge *g) {
    return (struct WeightSource){g, source_type, source_rows};
}

// ---- Begin and end

// Every tensor of the file must be one of the model's, with its shape; they are written over the model's own.
static bool put_experts(struct Merge *g) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < g->m->n_base; i++) {
        const struct Param *p = &g->m->params[i];
        const struct WeightSpec *w = &p->spec;
        bool stacked = w->role == ROLE_EXPERTS;
        for (uint32_t e = 0; e < (stacked ? w->dim[0] : 1); e++) {
            const struct SafetensorsEntry *t = entry_of(g, w, e);
            if (!t)
                continue;
            uint32_t from = stacked, dims = w->n_dims - from;
            bool shape = t->n_dims == dims && t->dim[0] == w->dim[from] && (dims < 2 || t->dim[1] == w->dim[from + 1]);
            if (!shape || (t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16))
                return fail("%s: tensor %s does not have the shape of the model's, or is not F32, F16 or BF16",
                            g->experts.file.name, t->name);
            found++;
        }
        if (!changes(g, w) || g->m->dev->is_dry)
            continue;
        uint64_t rows = tensor_rows(&p->w), each = stacked ? w->dim[1] : rows;
        float *values = xmalloc(each * tensor_cols(&p->w) * sizeof *values);
        bool ok = true;
        for (uint64_t first = 0; first < rows && ok; first += each)
            if (entry_of(g, w, (uint32_t)(first / each)))
                ok = merged_rows(g, w, first, each, values) && param_write(g->m->dev, p, first, each, values);
        free(values);
        if (!ok)
            return false;
    }
    return found == g->experts.n_entries ||
           fail("%s: %u of its %u tensors belong to no weight of this model", g->experts.file.name,
                g->experts.n_entries - found, g->experts.n_entries);
}

bool merge_begin(struct Merge *g, struct Model *m, const char *dir) {
    char *path = path_join(dir, ESFT_FILE), *config = path_join(dir, "adapter_config.json");
    *g = (struct Merge){.m = m, .base = model_source(m)};
    bool ok;
    if (file_exists(path) && !file_exists(config)) {
        g->has_experts = safetensors_open(&g->experts, path);
        ok = g->has_experts && put_experts(g);
    } else {
        ok = adapter_load(m, dir);
    }
    free(path);
    free(config);
    return ok;
}

void merge_end(struct Merge *g) {
    free(g->a), free(g->b);
    if (g->has_experts)
        safetensors_close(&g->experts);
    *g = (struct Merge){0};
}

// ---- What was lost

// A row of a file's tensor.
static bool file_row(const struct ModelFile *f, const char *name, uint64_t row, float *out) {
    const struct FileTensor *t = modelfile_find(f, name);
    if (!t)
        return fail("%s: tensor %s is missing", f->path, name);
    uint8_t *raw = xmalloc(t->row_bytes);
    bool ok = modelfile_read_rows(f, t, row, 1, raw);
    if (ok)
        quant_decode_row(t->type, raw, t->cols, out);
    free(raw);
    return ok;
}

bool merge_measure(struct Merge *g, const struct ModelFile *base, const struct ModelFile *written,
                   struct MergeLoss *loss) {
    enum { ROWS = 64 };
    double n = 0;
    bool ok = true;
    *loss = (struct MergeLoss){0};
    for (uint32_t i = 0; i < g->m->n_base && ok; i++) {
        const struct Param *p = &g->m->params[i];
        if (!changes(g, &p->spec))
            continue;
        uint64_t cols = tensor_cols(&p->w), rows = tensor_rows(&p->w), take = min_u64(rows, ROWS);
        float *three = xmalloc(3 * cols * sizeof *three), *was = three, *want = was + cols, *got = want + cols;
        loss->tensors++;
        for (uint64_t r = 0; r < take && ok; r++) {
            uint64_t row = r * rows / take;
            ok = file_row(base, p->spec.name, row, was) && merged_rows(g, &p->spec, row, 1, want) &&
                 file_row(written, p->spec.name, row, got);
            for (uint64_t c = 0; c < cols && ok; c++) {
                double w = (double)want[c], change = w - (double)was[c];
                loss->weight += w * w;
                loss->change += change * change;
                loss->error += pow(w - (double)got[c], 2);
                loss->kept += change * ((double)got[c] - (double)was[c]);
            }
            n += (double)cols;
        }
        free(three);
    }
    loss->kept = loss->change > 0 ? loss->kept / loss->change : 1;
    loss->weight = sqrt(loss->weight / fmax(n, 1));
    loss->change = sqrt(loss->change / fmax(n, 1));
    loss->error = sqrt(loss->error / fmax(n, 1));
    return ok;
}
