// `vkmoe convert MODEL --out PATH`: the same weights in another layout or type.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/output.h"

#include <stdlib.h>

int cmd_convert(const struct Args *args) {
    if (!output_check(args))
        return EXIT_FAILED;
    struct ModelFile f;
    if (!load_open(&f, args->operands[0], true))
        return EXIT_FAILED;
    struct WeightSource source = modelfile_source(&f);
    char *name = output_name(&f);
    bool ok = output_write(args, &f.config, output_type(args, output_main_type(&f)), &source, &f, name);
    free(name);
    modelfile_close(&f);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
