// `vkmoe quantize MODEL --out FILE.gguf --type MIX`: a GGUF whose tensors have the types that llama.cpp's mix of that name gives them.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/output.h"

#include <stdlib.h>

// The search for scales starts from what is left of the weights: worth a line.
static void tell_source(const struct ModelFile *f) {
    enum DType type = output_main_type(f);
    if (dtype_is_quantised(type))
        warn("%s: most weights are %s already: quantising them again loses more than quantising the original would",
             f->path, DTYPES[type].name);
}

int cmd_quantize(const struct Args *args) {
    const char *out = args_text(args, "out"), *matrix = args_text(args, "imatrix");
    struct WriteTypes types = {.mix = mix_find(args_text(args, "type")), .embed_type = DT_COUNT};
    struct Imatrix imatrix = {0};
    struct ModelFile f;
    if (!output_is_gguf(out)) {
        fail("%s: quantised weights go to a GGUF: give a name that ends in .gguf", out);
        return EXIT_FAILED;
    }
    if (!output_check(args) || !load_open(&f, args->operands[0], true))
        return EXIT_FAILED;
    tell_source(&f);
    bool ok = !matrix || imatrix_open(&imatrix, matrix);
    if (ok) {
        struct WeightSource source = modelfile_source(&f);
        char *name = output_name(&f);
        types.type = types.mix->type;
        types.imatrix = matrix ? &imatrix : NULL;
        ok = output_write_as(args, &f.config, &types, &source, &f, name, types.mix->name);
        free(name);
    }
    imatrix_close(&imatrix);
    modelfile_close(&f);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
