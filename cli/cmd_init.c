// `vkmoe init --preset NAME --out PATH`: a model with random weights, for experiments and tests. Each weight follows from
// the seed, the tensor's name and its place, so the same command gives the same file everywhere. The tokenizer is
// another model's, or one token a byte.
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/scratch.h"
#include "model/model.h"

struct RandomWeights {
    const struct Config *config;
    uint64_t seed;
};

static enum DType random_type(void *context, const struct WeightSpec *w) {
    (void)context;
    (void)w;
    return DT_F32;
}

static bool random_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    const struct RandomWeights *r = context;
    uint64_t cols = w->dim[w->n_dims - 1];
    model_random_values(r->config, w, r->seed, first * cols, count * cols, out);
    return true;
}

int cmd_init(const struct Args *args) {
    struct ModelFile f;
    struct Config known;
    const char *preset = args_text(args, "preset");
    if (!output_check(args))
        return EXIT_FAILED;
    if (!config_preset(&known, preset)) {
        fail("there is no preset '%s' (%s)", preset, config_preset_names());
        return EXIT_FAILED;
    }
    if (args_given(args, "layers") && args_int(args, "layers") > known.n_layers)
        return args_wrong(args, "--layers %s: %s has %u", args_text(args, "layers"), preset, known.n_layers);
    if (!scratch_open(&f, preset, args_text(args, "tokenizer")))
        return EXIT_FAILED;
    if (args_given(args, "layers"))
        f.config.n_layers = (uint32_t)args_int(args, "layers");
    struct RandomWeights random = {&f.config, (uint64_t)args_int(args, "seed")};
    struct WeightSource source = {&random, random_type, random_rows};
    bool ok = output_write(args, &f.config, output_type(args, DT_F32), &source, &f, preset);
    scratch_close(&f);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
