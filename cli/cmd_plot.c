// `vkmoe plot DIR...`: the curves of training runs over each other, as a PNG and in the terminal.
#include "cli/commands.h"
#include "cli/curves.h"
#include "cli/output.h"
#include "cli/plot.h"
#include "cli/term.h"
#include "model/json.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *metric, *key, *title;
} METRICS[] = {{"loss", "loss", "Loss per trained token"},
               {"lr", "learning_rate", "Learning rate"},
               {"grad_norm", "grad_norm", "Norm of the gradient"},
               {"tokens_per_second", "tokens_per_second", "Tokens per second"},
               {"validation_loss", "validation_loss", "Loss on held-out examples"}};

// The folder's own name; with the one above it where another run has the same.
static char *label_of(const struct Args *args, uint32_t run) {
    const char *path = args->operands[run];
    size_t end = strlen(path), start, longer;
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/';)
        start--;
    for (longer = start > 0 ? start - 1 : 0; longer > 0 && path[longer - 1] != '/';)
        longer--;
    bool twice = false;
    for (uint32_t i = 0; i < args->n_operands; i++) {
        size_t n = strlen(args->operands[i]);
        while (n > 1 && args->operands[i][n - 1] == '/')
            n--;
        twice = twice || (i != run && n >= end - start &&
                          memcmp(args->operands[i] + n - (end - start), path + start, end - start) == 0 &&
                          (n == end - start || args->operands[i][n - (end - start) - 1] == '/'));
    }
    start = twice ? longer : start;
    return xsprintf("%.*s", (int)(end - start), path + start);
}

static bool print_json(const struct PlotSeries *series, size_t n, const char *metric) {
    json_t *all = json_array();
    for (size_t s = 0; s < n; s++) {
        json_t *steps = json_array(), *values = json_array();
        for (size_t i = 0; i < series[s].n; i++) {
            json_array_append_new(steps, json_real(series[s].x[i]));
            json_array_append_new(values, json_real(series[s].y[i]));
        }
        json_array_append_new(all, json_pack("{s:o, s:s, s:o, s:o}", "run", json_repaired(series[s].name), "metric",
                                             metric, "steps", steps, "values", values));
    }
    return output_json(all, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
}

static bool draw(const struct Args *args, struct PlotSeries *series, uint32_t n, const char *title) {
    const char *metric = args_text(args, "metric");
    char *out = args_text(args, "out") ? xstrdup(args_text(args, "out")) : xsprintf("%s.png", metric);
    bool ok = plot_lines(out, title, "step", metric, series, n);
    if (ok && args_switch(args, "json"))
        ok = print_json(series, n, metric);
    else if (ok)
        plot_terminal(stdout, title, series, n, (uint32_t)min_u64(term_width(stdout), 100), 16);
    if (ok)
        fprintf(stderr, "%s\n", out);
    free(out);
    return ok;
}

int cmd_plot(const struct Args *args) {
    struct Curve curves[ARGS_MAX_OPERANDS] = {{0}};
    struct PlotSeries series[ARGS_MAX_OPERANDS] = {{0}};
    char *labels[ARGS_MAX_OPERANDS] = {0};
    size_t m = 0;
    while (!args_choice(args, "metric", METRICS[m].metric))
        m++;
    // Few values are measured on held-out examples: they stand as they are unless it is asked for.
    bool few = strcmp(METRICS[m].key, "validation_loss") == 0;
    double smooth = few && !args_given(args, "smooth") ? 0 : args_float(args, "smooth");
    bool ok = true;
    for (uint32_t i = 0; i < args->n_operands && ok; i++) {
        ok = curve_read(&curves[i], args->operands[i], METRICS[m].key) &&
             (curves[i].n || fail("%s: no line of metrics.jsonl has '%s'", args->operands[i], METRICS[m].key));
        labels[i] = label_of(args, i);
        series[i] = (struct PlotSeries){
            .name = labels[i], .x = curves[i].x, .y = curves[i].y, .n = curves[i].n, .smooth = smooth, .dots = few};
    }
    ok = ok && draw(args, series, args->n_operands, METRICS[m].title);
    for (uint32_t i = 0; i < args->n_operands; i++) {
        curve_free(&curves[i]);
        free(labels[i]);
    }
    return ok ? EXIT_DONE : EXIT_FAILED;
}
