// The pictures are drawn from the file and not from what the run remembers, so that those of a resumed run show all of it.
#include "cli/curves.h"
#include "cli/plot.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t METRICS_MAX_BYTES = UINT64_C(1) << 30;
enum { POINTS_MAX = 4000 }; // a picture is 900 pixels wide, and smoothing takes time by the square

// One line after the other as JSON; one that is cut off, because the run was killed while writing it, is none.
struct Lines {
    uint8_t *text;
    char *at;
};
static bool lines_open(struct Lines *l, const char *dir) {
    uint64_t bytes;
    char *path = path_join(dir, "metrics.jsonl");
    bool ok = file_read(path, METRICS_MAX_BYTES, &l->text, &bytes);
    l->at = ok ? (char *)l->text : NULL;
    free(path);
    return ok;
}

static json_t *lines_next(struct Lines *l) {
    for (char *end; (end = strchr(l->at, '\n'));) {
        json_t *line = json_loadb(l->at, (size_t)(end - l->at), 0, NULL);
        l->at = end + 1;
        if (line)
            return line;
    }
    return NULL;
}

static void thin(struct Curve *c) {
    size_t n = c->n < POINTS_MAX ? c->n : POINTS_MAX;
    for (size_t i = 0; i < n; i++) {
        size_t from = i * c->n / n, to = (i + 1) * c->n / n;
        double x = 0, y = 0;
        for (size_t k = from; k < to; k++)
            x += c->x[k], y += c->y[k];
        c->x[i] = x / (double)(to - from);
        c->y[i] = y / (double)(to - from);
    }
    c->n = n;
}

bool curve_read(struct Curve *c, const char *dir, const char *key) {
    struct Lines lines;
    size_t room = 0;
    *c = (struct Curve){0};
    if (!lines_open(&lines, dir))
        return false;
    for (json_t *line; (line = lines_next(&lines)); json_decref(line)) {
        const json_t *value = json_object_get(line, key);
        if (!json_is_number(value))
            continue;
        if (c->n == room) {
            room = room ? 2 * room : 256;
            c->x = xrealloc(c->x, room * sizeof *c->x);
            c->y = xrealloc(c->y, room * sizeof *c->y);
        }
        c->x[c->n] = json_number_value(json_object_get(line, "step"));
        c->y[c->n++] = json_number_value(value);
    }
    free(lines.text);
    thin(c);
    return true;
}

void curve_free(struct Curve *c) {
    free(c->x);
    free(c->y);
    *c = (struct Curve){0};
}

static void draw_loss(const char *dir) {
    struct Curve loss = {0}, held = {0};
    if (curve_read(&loss, dir, "loss") && curve_read(&held, dir, "validation_loss") && loss.n) {
        char *path = path_join(dir, "loss.png");
        struct PlotSeries series[] = {
            {.name = "training", .x = loss.x, .y = loss.y, .n = loss.n, .smooth = PLOT_SMOOTH},
            {.name = "held out", .x = held.x, .y = held.y, .n = held.n, .dots = true}};
        plot_lines(path, "Loss per trained token", "step", "loss", series, held.n ? 2 : 1);
        free(path);
    }
    curve_free(&loss);
    curve_free(&held);
}

// Loads of one line, measured by an even load, into column `time` of every layer's panel. Lines of another model do not fit and are left out.
static void add_loads(json_t *loads, struct PlotPanels *p, double *out, uint32_t *layers, uint32_t time) {
    const char *key;
    json_t *row;
    uint32_t panel = 0;
    json_object_foreach(loads, key, row) {
        double sum = 0;
        if (panel == p->n_panels || json_array_size(row) != p->n_rows)
            return;
        for (size_t e = 0; e < p->n_rows; e++)
            sum += json_number_value(json_array_get(row, e));
        for (size_t e = 0; e < p->n_rows && sum > 0; e++)
            out[((size_t)panel * p->n_rows + e) * p->n_columns + time] =
                json_number_value(json_array_get(row, e)) * p->n_rows / sum;
        layers[panel++] = (uint32_t)strtoul(key, NULL, 10);
    }
}

static void draw_experts(const char *dir) {
    struct Lines lines;
    struct PlotPanels p = {0};
    json_t *all = json_array();
    double first = 0, last = 0;
    if (lines_open(&lines, dir)) {
        for (json_t *line; (line = lines_next(&lines)); json_decref(line)) {
            json_t *loads = json_object_get(line, "expert_loads");
            if (json_object_size(loads) == 0)
                continue;
            last = json_number_value(json_object_get(line, "step"));
            first = json_array_size(all) ? first : last;
            json_array_append(all, loads);
        }
        free(lines.text);
    }
    json_t *one = json_array_get(all, 0);
    p.n_columns = (uint32_t)json_array_size(all);
    p.n_panels = (uint32_t)json_object_size(one);
    p.n_rows = (uint32_t)json_array_size(json_object_iter_value(json_object_iter(one)));
    if (p.n_columns && p.n_rows) {
        double *values = xcalloc((size_t)p.n_panels * p.n_rows * p.n_columns, sizeof *values);
        uint32_t *layers = xcalloc(p.n_panels, sizeof *layers);
        for (uint32_t i = 0; i < p.n_columns; i++)
            add_loads(json_array_get(all, i), &p, values, layers, i);
        char *path = path_join(dir, "experts.png"), *label = xsprintf("step %.0f to %.0f", first, last);
        p.loads = values, p.names = layers, p.x_label = label;
        p.y_label = "expert";
        plot_panels(path, "Load of each expert, by layer", &p);
        free(path);
        free(label);
        free(values);
        free(layers);
    }
    json_decref(all);
}

void curves_draw_run(const char *dir) {
    draw_loss(dir);
    draw_experts(dir);
}
