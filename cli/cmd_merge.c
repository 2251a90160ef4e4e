// `vkmoe merge MODEL --adapter DIR --out PATH`: W + scale * B A for every linear that the adapter changes, computed on the host in double
// from the very weights that the model runs with (a quantised base is decoded, never rounded twice).
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/output.h"
#include "cli/term.h"
#include "model/adapter.h"
#include "model/selftest.h"

#include <stdlib.h>
#include <string.h>

struct Merge {
    struct Model *m;
    struct WeightSource base;
    // The adapter of the tensor being written, on the host.
    const struct Linear *linear;
    float *a, *b;
};

static const struct Linear *linear_of(const struct Model *m, const char *name) {
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const struct Layer *l = &m->layers[i];
        const struct Linear *all[] = {&l->q,         &l->k,           &l->v,        &l->o,
                                      &l->ffn.gate,  &l->ffn.up,      &l->ffn.down, &l->routed.gate,
                                      &l->routed.up, &l->routed.down, &l->router};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
            if (all[k]->w && all[k]->a && strcmp(all[k]->w->spec.name, name) == 0)
                return all[k];
    }
    return NULL;
}

static enum DType merge_type(void *context, const struct WeightSpec *w) {
    struct Merge *g = context;
    return linear_of(g->m, w->name) ? DT_F32 : g->base.type(g->base.context, w);
}

static float *adapter_read(struct Model *m, const struct Param *p) {
    float *v = xmalloc(tensor_elements(&p->w) * sizeof *v);
    if (param_read(m->dev, p, 0, tensor_rows(&p->w), v))
        return v;
    free(v);
    return NULL;
}

static bool merge_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out_raw) {
    struct Merge *g = context;
    const struct Linear *l = linear_of(g->m, w->name);
    if (!l)
        return g->base.rows(g->base.context, w, first, count, out_raw);
    if (l != g->linear) {
        free(g->a), free(g->b);
        g->linear = l;
        g->a = adapter_read(g->m, l->a);
        g->b = g->a ? adapter_read(g->m, l->b) : NULL;
    }
    float *out = out_raw;
    if (!g->b || !param_read(g->m->dev, l->w, first, count, out))
        return false;
    uint32_t d = w->n_dims - 2, out_rows = w->dim[d], in = w->dim[d + 1], rank = tensor_cols(&l->b->w);
    double *sum = xmalloc(in * sizeof *sum);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t expert = (first + i) / out_rows;
        const float *b = g->b + (first + i) * rank, *a = g->a + expert * rank * in;
        memset(sum, 0, in * sizeof *sum);
        for (uint32_t r = 0; r < rank; r++)
            for (uint32_t c = 0; c < in && b[r] != 0; c++)
                sum[c] += (double)b[r] * (double)a[(size_t)r * in + c];
        for (uint32_t c = 0; c < in; c++)
            out[i * in + c] = (float)((double)out[i * in + c] + (double)l->scale * sum[c]);
    }
    free(sum);
    return true;
}

int cmd_merge(const struct Args *args) {
    if (!output_check(args))
        return EXIT_FAILED;
    struct ModelFile f;
    if (!modelfile_open(&f, args->operands[0]))
        return EXIT_FAILED;
    struct Device dev;
    struct Model m;
    struct ModelOptions o = {.type = DT_COUNT, .max_positions = 1};
    int status = EXIT_FAILED;
    if (selftest_device_open(&dev, args_text(args, "device"))) {
        const char *adapter = args_text(args, "adapter");
        if (load_fits(&dev, &f, adapter, "choose another --device (lavapipe uses the machine's memory)") &&
            model_load(&m, &dev, &f, &o)) {
            if (adapter_load(&m, adapter)) {
                struct Merge merge = {.m = &m, .base = model_source(&m)};
                struct WeightSource source = {&merge, merge_type, merge_rows};
                bool ok = output_write(args, &m.config, output_type(args, output_main_type(&f)), &source, &f, "merged");
                free(merge.a), free(merge.b);
                status = ok ? EXIT_DONE : EXIT_FAILED;
            }
            model_free(&m);
        }
        device_close(&dev);
    }
    modelfile_close(&f);
    return status;
}
