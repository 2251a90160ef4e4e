// Line charts as PNG files and on the terminal, drawn by this program alone: a loss curve needs no other tool.
#pragma once
#include "runtime/base.h"

#define PLOT_SMOOTH 0.025

struct PlotSeries {
    const char *name; // for the legend; ASCII
    const double *x, *y;
    size_t n;
    double
        smooth; // above 0: the values pale, and their running mean on top, this share of the curve wide; PLOT_SMOOTH is usual
    bool dots; // a dot at each value as well: for few of them
};
// Draws 1000 x 600 pixels. Values that are not finite leave a gap. False after one line when the file cannot be written.
bool plot_lines(const char *path, const char *title, const char *x_label, const char *y_label,
                const struct PlotSeries *series, size_t n_series);
// The same in dots of Braille, the running means alone; series by colour or, where there are no colours, by letter.
void plot_terminal(FILE *to, const char *title, const struct PlotSeries *series, size_t n_series, uint32_t width,
                   uint32_t height);
// At each value a straight line is fitted to its neighbours, with Gaussian weights, `share` of the curve wide. (n) malloc'ed.
double *plot_smooth(const double *y, size_t n, double share);

// A picture of loads by row and column, 1 being an even load: pale below, hot above. row_names: the number that a row is called.
bool plot_grid(const char *path, const char *title, const char *x_label, const char *y_label, const double *loads,
               uint32_t n_rows, uint32_t n_columns, const uint32_t *row_names);
// The same for several grids of one size, in small.
struct PlotPanels {
    const double *loads;   // (n_panels, n_rows, n_columns)
    const uint32_t *names; // (n_panels) the number that a panel is called
    uint32_t n_panels, n_rows, n_columns;
    const char *x_label, *y_label;
};
bool plot_panels(const char *path, const char *title, const struct PlotPanels *p);

struct PlotCell {
    const char *text; // ASCII
    bool bold;
};
// A table (n_rows, n_columns): the first row is the heading, the first two columns are words and the others figures; lines are drawn under the
// heading and under `n_top` more rows.
bool plot_table(const char *path, const struct PlotCell *cells, uint32_t n_rows, uint32_t n_columns, uint32_t n_top);

struct PlotBar {
    const char *name; // ASCII
    double value;
};
// Bars that lie, the first on top, each with its value and its share of the sum; n is at most 24.
bool plot_bars(const char *path, const char *title, const char *unit, const struct PlotBar *bars, uint32_t n);

// A roofline, both axes in powers of ten: dots at (flops per byte, GFLOP/s) below the roofs of memory (GB/s) and of arithmetic. A dot of a roof has
// its colour.
struct PlotRoof {
    const char *name;
    double gflops;
};
struct PlotDot {
    double intensity, gflops;
    uint32_t roof;
    const char *name; // told beside the best dot of this name
};
bool plot_roofline(const char *path, const char *title, double gbytes_per_s, const struct PlotRoof *roofs,
                   uint32_t n_roofs, const struct PlotDot *dots, uint32_t n);
