// Fuzz target: any bytes as a GGUF file: header, typed access to every key, config and vocabulary made of it.
#include "model/config.h"
#include "model/gguf.h"
#include "model/ggufsplit.h"
#include "model/quant.h"
#include "model/vocabfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void touch_key(const struct Gguf *g, const struct GgufValue *v) {
    uint32_t number = 0;
    float real = 0;
    bool truth = false;
    char *text = NULL;
    const struct GgufString *strings = NULL;
    int32_t *integers = NULL;
    float *reals = NULL;
    uint64_t count = 0, sum = 0;
    if (gguf_find(g, v->key) != v)
        abort();
    gguf_get_u32(g, v->key, true, &number);
    gguf_get_f32(g, v->key, true, &real);
    gguf_get_bool(g, v->key, true, &truth);
    gguf_get_string(g, v->key, true, &text);
    if (gguf_get_strings(g, v->key, true, &strings, &count)) {
        for (uint64_t i = 0; i < count; i++) {
            for (size_t k = 0; k < strings[i].bytes; k++)
                sum += (uint8_t)strings[i].text[k];
        }
    }
    gguf_get_i32s(g, v->key, true, &integers, &count);
    gguf_get_f32s(g, v->key, true, &reals, &count);
    free(text);
    free(integers);
    free(reals);
    if (sum == UINT64_MAX)
        abort();
}

// The first row: to floats, and to the layout of the device and back.
static void decode(const struct GgufTensor *t, const uint8_t *data) {
    uint64_t cols = t->dim[t->n_dims - 1];
    if (t->type == DT_COUNT || cols > 1 << 16)
        return;
    float *values = xmalloc(cols * sizeof *values);
    uint64_t row = dtype_file_row_bytes(t->type, cols);
    uint8_t *device = xmalloc(dtype_row_bytes(t->type, cols)), *again = xmalloc(row);
    quant_decode_row(t->type, data, cols, values);
    quant_row_to_device(t->type, data, cols, device);
    quant_row_from_device(t->type, device, cols, again);
    if (memcmp(again, data, row) != 0)
        abort();
    free(values);
    free(device);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    struct Gguf g;
    if (!gguf_open_memory(&g, data, bytes, "fuzz"))
        return 0;
    for (uint64_t i = 0; i < g.n_values; i++)
        touch_key(&g, &g.values[i]);
    for (uint64_t i = 0; i < g.n_tensors; i++) {
        const struct GgufTensor *t = &g.tensors[i];
        uint8_t *copy = xmalloc(t->bytes);
        if (gguf_find_tensor(&g, t->name) != t || !gguf_read(&g, t, 0, t->bytes, copy))
            abort();
        decode(t, copy);
        free(copy);
    }
    uint32_t parts;
    ggufsplit_count(&g, "m-00001-of-00003.gguf", &parts);
    struct Config c;
    bool complete;
    if (config_from_gguf(&c, &g, 1, &complete))
        free(config_to_json(&c, "float32"));
    char *json = NULL, *config = NULL;
    vocab_to_json(&g, NULL, &json, &config);
    free(json);
    free(config);
    gguf_close(&g);
    return 0;
}
