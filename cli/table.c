// See table.h.
#include "cli/table.h"
#include "cli/plot.h"
#include "cli/term.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char UNEVEN[] = "not the same records, shots or task file";

static char *cell_text(const struct ReportCell *c) {
    return c->error ? xsprintf("%s ±%s", c->text, c->error) : xstrdup(c->text);
}

static bool any_uneven(const struct Report *r) {
    for (uint32_t i = 0; i < r->n_rows; i++)
        if (r->rows[i].uneven)
            return true;
    return false;
}

static void pad(FILE *to, uint32_t used, uint32_t width) {
    for (; used < width; used++)
        fputc(' ', to);
}

void table_print(const struct Report *r, FILE *to) {
    uint32_t name = 0, note = 0, *width = xcalloc(r->n_models, sizeof *width);
    for (uint32_t i = 0; i < r->n_rows; i++) {
        name = (uint32_t)max_u64(name, term_text_width(r->rows[i].name) + 2);
        note = (uint32_t)max_u64(note, term_text_width(r->rows[i].note));
        for (uint32_t m = 0; m < r->n_models; m++) {
            char *text = cell_text(&r->rows[i].cells[m]);
            width[m] = (uint32_t)max_u64(max_u64(width[m], term_text_width(text)), term_text_width(r->models[m]));
            free(text);
        }
    }
    pad(to, 0, name + 2 + note);
    for (uint32_t m = 0; m < r->n_models; m++) {
        pad(to, term_text_width(r->models[m]), width[m] + 2);
        fprintf(to, "%s%s%s", term_paint(to, PAINT_BOLD), r->models[m], term_paint(to, PAINT_NONE));
    }
    fputc('\n', to);
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const struct ReportRow *row = &r->rows[i];
        fprintf(to, "%s%s%s", i == r->n_costs ? "\n" : "", row->name, row->uneven ? " *" : "");
        pad(to, term_text_width(row->name) + (row->uneven ? 2 : 0), name + 2);
        fprintf(to, "%s%s%s", term_paint(to, PAINT_DIM), row->note, term_paint(to, PAINT_NONE));
        pad(to, term_text_width(row->note), note);
        for (uint32_t m = 0; m < r->n_models; m++) {
            char *text = cell_text(&row->cells[m]);
            pad(to, term_text_width(text), width[m] + 2);
            fprintf(to, "%s%s%s", row->cells[m].best ? term_paint(to, PAINT_BOLD) : "", text,
                    row->cells[m].best ? term_paint(to, PAINT_NONE) : "");
            free(text);
        }
        fputc('\n', to);
    }
    if (any_uneven(r))
        fprintf(to, "* %s\n", UNEVEN);
    free(width);
}

void table_print_markdown(const struct Report *r, FILE *to) {
    fprintf(to, "| |");
    for (uint32_t m = 0; m < r->n_models; m++)
        fprintf(to, " %s |", r->models[m]);
    fprintf(to, "\n|---|");
    for (uint32_t m = 0; m < r->n_models; m++)
        fprintf(to, "---:|");
    fputc('\n', to);
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const struct ReportRow *row = &r->rows[i];
        fprintf(to, "| %s%s%s%s%s |", row->name, *row->note ? " (" : "", row->note, *row->note ? ")" : "",
                row->uneven ? " \\*" : "");
        for (uint32_t m = 0; m < r->n_models; m++) {
            char *text = cell_text(&row->cells[m]);
            fprintf(to, row->cells[m].best ? " **%s** |" : " %s |", text);
            free(text);
        }
        fputc('\n', to);
    }
    if (any_uneven(r))
        fprintf(to, "\n\\* %s\n", UNEVEN);
}

// A score is a number; what a model costs is the text of the table; null where there is none.
static json_t *cell_json(const char *text, bool number) {
    char *end;
    double value = text ? strtod(text, &end) : 0;
    return !text || (number && (end == text || *end)) ? json_null() : number ? json_real(value) : json_string(text);
}

bool table_print_json(const struct Report *r, FILE *to) {
    json_t *models = json_array(), *rows = json_array();
    for (uint32_t m = 0; m < r->n_models; m++)
        json_array_append_new(models, json_string(r->models[m]));
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const struct ReportRow *row = &r->rows[i];
        json_t *values = json_array(), *errors = json_array();
        for (uint32_t m = 0; m < r->n_models; m++) {
            json_array_append_new(values, cell_json(row->cells[m].text, i >= r->n_costs));
            json_array_append_new(errors, cell_json(row->cells[m].error, true));
        }
        json_array_append_new(rows, json_pack("{s:s, s:s, s:b, s:o, s:o}", "name", row->name, "note", row->note,
                                              "uneven", row->uneven, "values", values, "errors", errors));
    }
    json_t *all = json_pack("{s:o, s:o}", "models", models, "rows", rows);
    bool ok = all && json_dumpf(all, to, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) == 0;
    fputc('\n', to);
    json_decref(all);
    return ok;
}

bool table_draw(const struct Report *r, const char *path) {
    uint32_t columns = r->n_models + 2;
    struct PlotCell *cells = xcalloc((size_t)(r->n_rows + 1) * columns, sizeof *cells);
    cells[0].text = "Benchmark";
    cells[1].text = "Metric";
    for (uint32_t m = 0; m < r->n_models; m++)
        cells[2 + m].text = r->models[m];
    for (uint32_t i = 0; i < r->n_rows; i++) {
        struct PlotCell *row = cells + (size_t)(i + 1) * columns;
        row[0].text = r->rows[i].name;
        row[1].text = r->rows[i].note;
        for (uint32_t m = 0; m < r->n_models; m++)
            row[2 + m] = (struct PlotCell){r->rows[i].cells[m].text, r->rows[i].cells[m].best};
    }
    bool ok = plot_table(path, cells, r->n_rows + 1, columns, r->n_costs);
    free(cells);
    return ok;
}
