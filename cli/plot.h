// Line charts as PNG files, drawn by this program alone: a loss curve needs no other tool.
#pragma once
#include "runtime/base.h"

struct PlotSeries {
    const char *name; // for the legend; ASCII
    const double *x, *y;
    size_t n;
    bool smooth; // the values pale, and their running mean on top
    bool dots;   // a dot at each value as well: for few of them
};
// Draws 1000 x 600 pixels. Values that are not finite leave a gap. False after one line when the file cannot be written.
bool plot_lines(const char *path, const char *title, const char *x_label, const char *y_label,
                const struct PlotSeries *series, size_t n_series);
// A picture of loads by row and column, 1 being an even load: pale below, hot above. row_names: the number that a row is called.
bool plot_grid(const char *path, const char *title, const char *x_label, const char *y_label, const double *loads,
               uint32_t n_rows, uint32_t n_columns, const uint32_t *row_names);

struct PlotCell {
    const char *text; // ASCII
    bool bold;
};
// A table (n_rows, n_columns): the first row is the heading, the first two columns are words and the others figures; lines are drawn under the
// heading and under `n_top` more rows.
bool plot_table(const char *path, const struct PlotCell *cells, uint32_t n_rows, uint32_t n_columns, uint32_t n_top);
