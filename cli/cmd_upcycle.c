// `vkmoe upcycle MODEL --out PATH`: cuts the feed-forward layers of a dense model into shared and routed experts.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/output.h"
#include "cli/term.h"
#include "model/selftest.h"
#include "model/tokenizer.h"
#include "train/upcycle.h"

#include <stdlib.h>
#include <string.h>

static void show_layer(void *context, uint32_t layer, uint32_t n_layers) {
    progress_update(context, layer, "grouping the neurons of %u layers", n_layers);
}

// The first tokens of the calibration text.
static bool calibration_ids(const struct ModelFile *f, const char *path, uint32_t **ids, size_t *n) {
    struct Tokenizer tokenizer;
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    if (!file_read(path, UINT64_C(64) << 20, &text, &bytes))
        return false;
    bool ok = tokenizer_open(&tokenizer, f);
    if (ok) {
        // A token is rarely longer than 16 bytes; more text than can be used is not cut into tokens at all.
        size_t used = (size_t)min_u64(bytes, 64 * 1024);
        while (used < bytes && used > 0 && (text[used] & 0xc0) == 0x80)
            used--;
        ok = tokenizer_encode(&tokenizer, (const char *)text, used, TOKENIZE_BOS, ids, n);
        tokenizer_free(&tokenizer);
    }
    free(text);
    return ok && (*n > 0 || fail("%s: an empty text: there is nothing to calibrate with", path));
}

int cmd_upcycle(const struct Args *args) {
    if (!output_check(args))
        return EXIT_FAILED;
    struct ModelFile f;
    if (!load_open(&f, args->operands[0], true))
        return EXIT_FAILED;
    struct UpcycleOptions o = {.shards = (uint32_t)args_int(args, "shards"),
                               .shared = (uint32_t)args_int(args, "shared"),
                               .dense_layers = (uint32_t)args_int(args, "dense-layers"),
                               .seed = (uint64_t)args_int(args, "seed")};
    uint32_t routed = o.shards > o.shared ? o.shards - o.shared : 1;
    o.active = args_given(args, "active") ? (uint32_t)args_int(args, "active") : (routed + 1) / 2;
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    struct Device dev;
    bool with_text = args_given(args, "calibrate"), opened = false;
    bool ok = true;
    if (with_text)
        ok = calibration_ids(&f, args_text(args, "calibrate"), &ids, &n_ids) &&
             (opened = selftest_device_open(&dev, args_text(args, "device"))) &&
             load_fits(&dev, &f, NULL, "choose another --device, or leave out --calibrate, which alone needs one");
    struct Upcycle u = {0};
    if (ok) {
        struct Progress progress;
        o.ids = ids, o.n_ids = (uint32_t)n_ids;
        if (with_text) {
            progress_begin(&progress, "calibrate", "layer", 0, f.config.n_layers);
            o.progress = show_layer, o.progress_context = &progress;
        }
        ok = upcycle_plan(&u, &f, &o, opened ? &dev : NULL);
        if (with_text && ok)
            progress_end(&progress);
        else if (with_text)
            progress_clear(&progress);
    }
    if (ok) {
        struct WeightSource source = upcycle_source(&u);
        ok = output_write(args, &u.config, output_type(args, DT_F32), &source, &f, "upcycled");
        if (ok)
            fprintf(stderr, "%u routed experts of width %u, %u per token, and %u shared in each of %u layers\n",
                    u.config.n_experts, u.config.moe_hidden, u.config.n_active, u.config.n_shared,
                    u.config.n_layers - u.config.first_dense);
    }
    upcycle_free(&u);
    if (opened)
        device_close(&dev);
    free(ids);
    modelfile_close(&f);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
