// `vkmoe bench WHAT`: each part is in a file of its own (bench_*.c).
#include "cli/bench.h"
#include "cli/commands.h"
#include "cli/load.h"
#include "model/tune.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The kernels as the table of devices cuts them, unless --tune asks for seconds: then what was tried is told.
static bool kernels_tune(struct Device *dev, const struct Args *args) {
    double seconds;
    if (!load_tune(dev, args, &seconds))
        return false;
    if (args_given(args, "tune") && seconds >= 0) {
        tune_begin(dev, seconds);
        tune_log(dev, stderr);
    }
    return true;
}

// Which benchmarks a flag is of; the first that is given to another, or NULL. The common flags are everyone's.
static const char *foreign_flag(const struct Args *args, const char *what, const char **of) {
    static const char TABLE[] = "model|train|kernels|shader|static", STEP[] = "model|train", MODEL[] = "model",
                      KERNELS_TOO[] = "model|train|kernels|shader", SHAPES[] = "kernels|shader", SHADER[] = "shader",
                      TRAIN[] = "train";
    static const struct {
        const char *flag, *of;
    } FLAGS[] = {{"repetitions", MODEL},
                 {"csv", TABLE},
                 {"md", TABLE},
                 {"compare", TABLE},
                 {"threshold", TABLE},
                 {"operations", STEP},
                 {"png", KERNELS_TOO},
                 {"tune", "model|train|kernels"},
                 {"n-prompt", MODEL},
                 {"n-gen", MODEL},
                 {"n-depth", MODEL},
                 {"sequences", MODEL},
                 {"type", KERNELS_TOO},
                 {"adapter", MODEL},
                 {"cache-type", MODEL},
                 {"gpu-layers", MODEL},
                 {"experts-on", MODEL},
                 {"preset", SHAPES},
                 {"tokens", SHAPES},
                 {"warm", SHAPES},
                 {"as", SHADER},
                 {"define", SHADER},
                 {"grid", SHADER},
                 {"width", SHADER},
                 {"buffer", SHADER},
                 {"push", SHADER},
                 {"constant", SHADER},
                 {"flops", SHADER},
                 {"bytes", SHADER},
                 {"peer", "static"},
                 {"method", TRAIN},
                 {"context", TRAIN},
                 {"micro-batch", TRAIN},
                 {"batch", TRAIN},
                 {"steps", TRAIN},
                 {"recompute", TRAIN},
                 {"moments", TRAIN},
                 {"optimizer-in-backward", TRAIN},
                 {"offload", TRAIN},
                 {"lora-rank", TRAIN},
                 {"esft-threshold", TRAIN}};
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++)
        if (args_given(args, FLAGS[i].flag) && !strstr(FLAGS[i].of, what)) {
            *of = FLAGS[i].of;
            return FLAGS[i].flag;
        }
    return NULL;
}

// Before the hours that what it shows may take.
static bool png_check(const char *path) {
    char *to = path_followed(path), *folder = path_parent(to);
    bool ok = !dir_exists(to) || fail("--png %s: is a folder", path);
    if (ok && !(file_exists(to) && access(to, W_OK) == 0) && access(folder, W_OK | X_OK) != 0)
        ok = fail("--png %s: cannot be written: %s", path, strerror(errno));
    free(to);
    free(folder);
    return ok;
}

int cmd_bench(const struct Args *args) {
    const char *what = args->operands[0], *filter = args->n_operands > 1 ? args->operands[1] : NULL, *of;
    static const char *const PARTS[] = {"model", "train", "kernels", "shader", "device", "static"};
    bool known = false;
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
        known = known || strcmp(what, PARTS[i]) == 0;
    if (!known)
        return args_wrong(args, "'%s' is none of model, train, kernels, shader, device, static", what);
    const char *foreign = foreign_flag(args, what, &of);
    if (foreign)
        return args_wrong(args, "--%s is of `bench %s`, not of `bench %s`", foreign, of, what);
    if (args_given(args, "png") && !png_check(args_text(args, "png")))
        return EXIT_FAILED;
    if (strcmp(what, "shader") == 0)
        return !filter ? args_wrong(args, "which FILE?")
                       : bench_shader(args, filter, args->n_operands > 2 ? args->operands[2] : NULL);
    uint32_t most = strcmp(what, "device") == 0 ? 1 : 2;
    if (args->n_operands > most)
        return args_wrong(args, "'%s' is one word too many", args->operands[most]);
    if (strcmp(what, "static") == 0)
        return args_switch(args, "peer") ? bench_peer(args, filter) : bench_static(args, filter);
    if (strcmp(what, "model") == 0 || strcmp(what, "train") == 0)
        return !filter ? args_wrong(args, "which MODEL?") : what[0] == 'm' ? bench_model(args) : bench_train(args);
    struct Device dev;
    struct Peaks peaks;
    if (!device_open(&dev, args_text(args, "device")))
        return EXIT_FAILED;
    int status = EXIT_FAILED;
    if (what[0] == 'k') {
        status = kernels_tune(&dev, args) ? bench_kernels(args, &dev, filter, NULL) : EXIT_FAILED;
    } else if (peaks_measure(&dev, &peaks)) {
        peaks_show(args, &dev, &peaks);
        status = EXIT_DONE;
    }
    device_close(&dev);
    return status;
}
