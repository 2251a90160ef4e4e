// `vkmoe bench WHAT`: each part is in a file of its own (bench_*.c).
#include "cli/bench.h"
#include "cli/commands.h"
#include "cli/load.h"
#include "model/tune.h"
#include <string.h>

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

int cmd_bench(const struct Args *args) {
    const char *what = args->operands[0], *filter = args->n_operands > 1 ? args->operands[1] : NULL;
    if (strcmp(what, "shader") == 0)
        return !filter ? args_wrong(args, "which FILE?")
                       : bench_shader(args, filter, args->n_operands > 2 ? args->operands[2] : NULL);
    if (args->n_operands > 2)
        return args_wrong(args, "'%s' is one word too many", args->operands[2]);
    if (strcmp(what, "static") == 0)
        return args_switch(args, "peer") ? bench_peer(args, filter) : bench_static(args, filter);
    if (strcmp(what, "model") == 0 || strcmp(what, "train") == 0)
        return !filter ? args_wrong(args, "which MODEL?") : what[0] == 'm' ? bench_model(args) : bench_train(args);
    if (strcmp(what, "kernels") != 0 && strcmp(what, "device") != 0)
        return args_wrong(args, "'%s' is none of model, train, kernels, shader, device, static", what);
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
