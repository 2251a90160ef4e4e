// See bench.h.
#include "cli/bench.h"
#include "cli/plot.h"
#include "model/json.h"
#include "model/utf8.h"
#include "runtime/cmd.h"
#include "runtime/temporary.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct Spread spread_of(double *values, uint32_t n) {
    qsort(values, n, sizeof *values, by_value);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    double between = values[n * 3 / 4] - values[n / 4];
    return (struct Spread){median, median != 0 ? 100 * between / median : 0};
}

bool bench_list(const struct Args *args, const char *flag, uint32_t *list, uint32_t room, uint32_t *n) {
    *n = 0;
    for (const char *at = args_text(args, flag); *at;) {
        char *end;
        unsigned long value = strtoul(at, &end, 10);
        if (at[0] < '0' || at[0] > '9' || value > 1 << 24 || (*end && *end != ',') || *n == room)
            return args_good(
                fail("--%s %s: up to %u whole numbers by commas are expected", flag, args_text(args, flag), room));
        list[(*n)++] = (uint32_t)value;
        at = end + (*end == ',');
    }
    return *n > 0 || args_good(fail("--%s is empty: up to %u whole numbers by commas are expected", flag, room));
}

json_t *bench_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

char *bench_model_name(const char *path) {
    size_t bytes;
    char *name = path_name(path), *text = utf8_repair(name, strlen(name), &bytes);
    free(name);
    return text;
}

// ---- The table

enum Format { FORMAT_TABLE, FORMAT_JSON, FORMAT_CSV, FORMAT_MARKDOWN };

static enum Format format_of(const struct Args *args) {
    return args_switch(args, "json")  ? FORMAT_JSON
           : args_switch(args, "csv") ? FORMAT_CSV
           : args_switch(args, "md")  ? FORMAT_MARKDOWN
                                      : FORMAT_TABLE;
}

static bool is_shown(const struct BenchTable *t, const struct BenchColumn *c) {
    return c->heading || format_of(t->args) == FORMAT_CSV;
}

static void print_csv(const char *text, bool first) {
    bool quoted = strpbrk(text, ",\"\r\n") != NULL;
    printf(quoted ? "%s\"" : "%s", first ? "" : ",");
    for (const char *c = text; *c; c++)
        printf(quoted && *c == '"' ? "\"%c" : "%c", *c);
    printf(quoted ? "\"" : "");
}

static void print_markdown(const char *text, int width) {
    int rest = abs(width) - (int)strlen(text);
    rest = rest > 0 ? rest : 0;
    printf(" %*s", width > 0 ? rest : 0, "");
    for (const char *c = text; *c; c++)
        printf(*c == '|' ? "\\%c" : "%c", *c);
    printf("%*s |", width > 0 ? 0 : rest, "");
}

static void print_cell(enum Format format, const char *text, int width, bool first) {
    if (format == FORMAT_CSV)
        print_csv(text, first);
    else if (format == FORMAT_MARKDOWN)
        print_markdown(text, width);
    else
        printf("%s%*s", first ? "" : " ", width, text);
}

static void print_line(const struct BenchTable *t,
                       const char *(*text)(const struct BenchColumn *c, const json_t *row, char *room),
                       const json_t *row) {
    enum Format format = format_of(t->args);
    char room[64];
    bool first = true;
    printf(format == FORMAT_MARKDOWN ? "|" : "");
    for (const struct BenchColumn *c = t->columns; c->key; c++)
        if (is_shown(t, c)) {
            print_cell(format, text(c, row, room), c->width, first);
            first = false;
        }
    if (t->before) {
        static const struct BenchColumn RATIO = {"ratio", "ratio", 7, 3};
        print_cell(format, text(&RATIO, row, room), RATIO.width, false);
    }
    printf("\n");
}

static const char *heading_text(const struct BenchColumn *c, const json_t *format, char *room) {
    (void)room;
    return format ? c->key : c->heading;
}

static const char *rule_text(const struct BenchColumn *c, const json_t *row, char *room) {
    (void)row;
    return strcpy(room, c->width < 0 ? ":---" : "---:");
}

static const char *value_text(const struct BenchColumn *c, const json_t *row, char *room) {
    const json_t *v = json_object_get(row, c->key);
    if (json_is_string(v))
        return json_string_value(v);
    if (json_is_boolean(v))
        return json_is_true(v) ? "yes" : "NO";
    if (!json_is_number(v))
        return "";
    snprintf(room, 64, c->digits < 0 ? "%.*e" : "%.*f", abs(c->digits), json_number_value(v));
    return room;
}

static void print_heading(const struct BenchTable *t) {
    json_t *keys = format_of(t->args) == FORMAT_CSV ? json_true() : NULL;
    print_line(t, heading_text, keys);
    if (format_of(t->args) == FORMAT_MARKDOWN)
        print_line(t, rule_text, NULL);
}

// A benchmark that is interrupted leaves the rows that it has, as an array.
static void on_signal(int number) {
    temporaries_drop();
    ssize_t written = write(STDOUT_FILENO, "\n]\n", 3);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

bool bench_begin(struct BenchTable *t, const struct Args *args, const struct Device *dev,
                 const struct BenchColumn *columns, uint32_t n_names, const char *figure, bool less_is_better) {
    *t = (struct BenchTable){.args = args,
                             .dev = dev,
                             .columns = columns,
                             .n_names = n_names,
                             .figure = figure,
                             .less_is_better = less_is_better};
    const char *path = args_text(args, "compare");
    if (!path && args_given(args, "threshold"))
        return args_good(fail("--threshold is of --compare FILE"));
    if (args_switch(args, "json") + args_switch(args, "csv") + args_switch(args, "md") > 1)
        return args_good(fail("--json, --csv and --md exclude each other"));
    if (path) {
        json_error_t error;
        t->before = json_load_file(path, 0, &error);
        if (!json_is_array(t->before)) {
            json_decref(t->before);
            t->before = NULL;
            return fail("--compare %s: what `bench ... --json` printed is expected%s%s", path,
                        error.text[0] ? ": " : "", error.text);
        }
    }
    if (format_of(args) == FORMAT_TABLE)
        printf("%s (%s)\n", dev->name, dev->driver);
    if (format_of(args) != FORMAT_JSON)
        print_heading(t);
    else
        printf("[");
    fflush(stdout);
    if (format_of(args) == FORMAT_JSON)
        output_catch(&t->guard, on_signal);
    return true;
}

// As jansson lays out an array of all rows.
static void print_json(const struct BenchTable *t, json_t *row) {
    json_t *array = json_pack("[O]", row);
    char *text = json_dumps(array, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    assert(text);
    printf("%s%.*s", t->n_rows ? "," : "", (int)strlen(text) - 3, text + 1); // without its "[" and "\n]"
    free(text);
    json_decref(array);
}

static const json_t *find_before(const struct BenchTable *t, const json_t *row) {
    size_t i;
    json_t *old;
    json_array_foreach(t->before, i, old) {
        bool same = true;
        for (uint32_t k = 0; k < t->n_names && same; k++)
            same = json_equal(json_object_get(old, t->columns[k].key), json_object_get(row, t->columns[k].key));
        if (same)
            return old;
    }
    return NULL;
}

// What changes the figures and is in no row's name, as flags: those that are not as they would be without.
static json_t *settings_of(const struct Args *args) {
    static const char *const FLAGS[] = {"adapter", "cache-type", "gpu-layers",     "experts-on",
                                        "tune",    "seed",       "warm",           "as",
                                        "define",  "buffer",     "push",           "constant",
                                        "offload", "lora-rank",  "esft-threshold", "optimizer-in-backward"};
    char *text = xstrdup("");
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
        const char *list[ARGS_MAX_LIST], *value = args_text(args, FLAGS[i]);
        uint32_t index, n = args_list(args, FLAGS[i], list);
        const struct Flag *flag = args_flag(args, FLAGS[i], &index);
        if (!n && args_given(args, FLAGS[i]) && !(flag->fallback && strcmp(value, flag->fallback) == 0))
            list[n++] = value;
        for (uint32_t k = 0; k < n; k++) {
            char *longer = xsprintf("%s%s--%s%s%s", text, *text ? " " : "", flag->name, *list[k] ? " " : "", list[k]);
            free(text);
            text = longer;
        }
    }
    json_t *settings = json_repaired(text);
    free(text);
    return settings;
}

static void tell_other(const struct BenchTable *t, const char *what, const char *was, const char *is, bool *told) {
    if (was && strcmp(was, is) != 0 && !*told) {
        fprintf(stderr, "--compare %s: other %s: '%s' there, '%s' now\n", args_text(t->args, "compare"), what, was, is);
        *told = true;
    }
}

static void compare(struct BenchTable *t, json_t *row, const json_t *settings) {
    const json_t *before = find_before(t, row);
    double was = json_number_value(json_object_get(before, t->figure));
    double is = json_number_value(json_object_get(row, t->figure));
    if (was <= 0 || is <= 0)
        return;
    tell_other(t, "settings", json_string_value(json_object_get(before, "settings")), json_string_value(settings),
               &t->told_settings);
    tell_other(t, "device", json_string_value(json_object_get(before, "device")), t->dev->name, &t->told_device);
    double ratio = is / was, worse = t->less_is_better ? ratio : 1 / ratio;
    json_object_set_new(row, "before", json_real(was));
    json_object_set_new(row, "ratio", json_real(ratio));
    t->n_compared++;
    t->n_worse += worse > 1 + args_float(t->args, "threshold") / 100;
}

void bench_row(struct BenchTable *t, json_t *row) {
    assert(row);
    json_t *settings = settings_of(t->args);
    if (t->before)
        compare(t, row, settings);
    json_object_set_new(row, "settings", settings);
    json_object_set_new(row, "device", json_string(t->dev->name));
    json_object_set_new(row, "driver", json_string(t->dev->driver));
    json_object_set_new(row, "version", json_string(VKMOE_VERSION));
    if (format_of(t->args) == FORMAT_JSON)
        print_json(t, row);
    else
        print_line(t, value_text, row);
    fflush(stdout);
    json_decref(row);
    t->n_rows++;
}

int bench_end(struct BenchTable *t, bool ok) {
    if (format_of(t->args) == FORMAT_JSON) {
        output_unguard(&t->guard);
        printf(t->n_rows ? "\n]\n" : "]\n");
    }
    if (t->before)
        fprintf(stderr, "%u of %u rows compared with %s\n", t->n_compared, t->n_rows, args_text(t->args, "compare"));
    if (ok && t->before && t->n_compared == 0)
        ok = fail("--compare %s: none of these rows is in it", args_text(t->args, "compare"));
    if (ok && t->n_worse)
        ok = fail("%u of %u rows are more than %g %% worse than in %s", t->n_worse, t->n_compared,
                  args_float(t->args, "threshold"), args_text(t->args, "compare"));
    json_decref(t->before);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

// ---- Time by operation

bool bench_operations(const struct Args *args, const char *title) {
    enum { BARS = 16 };
    const struct ProfileRow *rows;
    uint32_t n = profile_end(&rows), shown = n < BARS ? n : BARS;
    double total = 0;
    struct PlotBar bars[BARS];
    for (uint32_t i = 0; i < n; i++)
        total += rows[i].us;
    fprintf(stderr, "%s: %.2f ms, one dispatch at a time\n%-28s %8s %12s %7s %10s %10s\n", title, total / 1000,
            "operation", "runs", "us each", "share", "GFLOP/s", "GB/s");
    for (uint32_t i = 0; i < n; i++) {
        profile_print_row(&rows[i], total);
        if (i < shown)
            bars[i] = (struct PlotBar){rows[i].label, rows[i].us / 1000};
        else // the last bar is all that have none
            bars[BARS - 1] = (struct PlotBar){"others", bars[BARS - 1].value + rows[i].us / 1000};
    }
    if (shown == 0)
        return fail("the device has no timestamps: no time by operation");
    return !args_text(args, "png") || plot_bars(args_text(args, "png"), title, "ms", bars, shown);
}
