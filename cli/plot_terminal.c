// A chart in text: each character cell is two by four dots of Braille, or one letter where series must be told apart without colours.
#include "cli/plot.h"
#include "cli/term.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MARGIN = 11, EMPTY = 0xff };

struct Board {
    uint32_t columns, rows; // of cells
    uint8_t *dots;          // (rows, columns) bits of a Braille character
    uint8_t *owner;         // (rows, columns) the series that drew there last, or EMPTY
    double x0, x1, y0, y1;  // what the edges stand for
};

static const enum Paint PAINTS[] = {PAINT_BLUE, PAINT_YELLOW, PAINT_GREEN, PAINT_RED, PAINT_CYAN, PAINT_BOLD};
enum { N_PAINTS = sizeof PAINTS / sizeof *PAINTS };

static void set_dot(struct Board *b, int x, int y, size_t series) {
    static const uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x < 0 || y < 0 || x >= (int)b->columns * 2 || y >= (int)b->rows * 4)
        return;
    size_t cell = (size_t)(y / 4) * b->columns + (size_t)(x / 2);
    b->dots[cell] |= bits[y % 4][x % 2];
    b->owner[cell] = (uint8_t)(series % EMPTY);
}

static void draw_line(struct Board *b, const double from[2], const double to[2], size_t series) {
    double wide = b->columns * 2 - 1, high = b->rows * 4 - 1;
    double ax = (from[0] - b->x0) / (b->x1 - b->x0) * wide, ay = (b->y1 - from[1]) / (b->y1 - b->y0) * high;
    double bx = (to[0] - b->x0) / (b->x1 - b->x0) * wide, by = (b->y1 - to[1]) / (b->y1 - b->y0) * high;
    if (!isfinite(bx - ax) || !isfinite(by - ay)) // an axis is too long for a double
        return;
    int steps = 1 + (int)fmax(fabs(bx - ax), fabs(by - ay));
    for (int i = 0; i <= steps; i++)
        set_dot(b, (int)lround(ax + (bx - ax) * i / steps), (int)lround(ay + (by - ay) * i / steps), series);
}

static void bounds(struct Board *b, const struct PlotSeries *series, double *const *y, size_t n_series) {
    b->x0 = b->y0 = INFINITY, b->x1 = b->y1 = -INFINITY;
    for (size_t s = 0; s < n_series; s++)
        for (size_t i = 0; i < series[s].n; i++) {
            if (!isfinite(y[s][i]) || !isfinite(series[s].x[i]))
                continue;
            b->x0 = fmin(b->x0, series[s].x[i]), b->x1 = fmax(b->x1, series[s].x[i]);
            b->y0 = fmin(b->y0, y[s][i]), b->y1 = fmax(b->y1, y[s][i]);
        }
    if (!isfinite(b->x0))
        b->x0 = b->x1 = b->y0 = b->y1 = 0;
    if (b->x1 == b->x0)
        b->x1 += 1;
    if (b->y1 == b->y0)
        b->y1 += fmax(1e-9, fabs(b->y0) * 0.1);
}

static void print_row(FILE *to, const struct Board *b, uint32_t row, bool letters) {
    const char *none = term_paint(to, PAINT_NONE);
    if (row == 0 || row == b->rows - 1 || row == b->rows / 2)
        fprintf(to, "%*.4g |", MARGIN - 2, b->y1 - (b->y1 - b->y0) * row / (b->rows > 1 ? b->rows - 1 : 1));
    else
        fprintf(to, "%*s |", MARGIN - 2, "");
    for (uint32_t c = 0; c < b->columns; c++) {
        size_t cell = (size_t)row * b->columns + c;
        uint8_t owner = b->owner[cell], dots = b->dots[cell];
        if (owner == EMPTY)
            fputc(' ', to);
        else if (letters)
            fputc('a' + owner % 26, to);
        else // U+2800 and the dots, as UTF-8
            fprintf(to, "%s\xe2%c%c%s", term_paint(to, PAINTS[owner % N_PAINTS]), 0xa0 | dots >> 6, 0x80 | (dots & 63),
                    none);
    }
    fputc('\n', to);
}

static void print_board(FILE *to, const char *title, const struct Board *b, const struct PlotSeries *series,
                        size_t n_series) {
    bool letters = n_series > 1 && term_paint(to, PAINT_BLUE)[0] == 0;
    fprintf(to, "%*s%s\n", MARGIN, "", title);
    for (uint32_t row = 0; row < b->rows; row++)
        print_row(to, b, row, letters);
    char left[32], right[32];
    snprintf(left, sizeof left, "%.6g", b->x0);
    snprintf(right, sizeof right, "%.6g", b->x1);
    fprintf(to, "%*s%s%*s\n", MARGIN, "", left, (int)b->columns - (int)strlen(left), right);
    for (size_t s = 0; s < n_series && (n_series > 1 || *series[s].name); s++) {
        fprintf(to, "%*s%s", MARGIN, "", term_paint(to, PAINTS[s % N_PAINTS]));
        if (letters)
            fputc('a' + (int)(s % 26), to);
        else
            fputs("\xe2\xa0\xa4\xe2\xa0\xa4", to);
        fprintf(to, "%s ", term_paint(to, PAINT_NONE));
        term_write(to, series[s].name, strlen(series[s].name));
        fputc('\n', to);
    }
}

void plot_terminal(FILE *to, const char *title, const struct PlotSeries *series, size_t n_series, uint32_t width,
                   uint32_t height) {
    struct Board b = {.columns = width > MARGIN + 10 ? width - MARGIN - 1 : 10, .rows = height > 2 ? height : 2};
    size_t cells = (size_t)b.columns * b.rows;
    b.dots = xcalloc(cells, 1);
    b.owner = xmalloc(cells);
    memset(b.owner, EMPTY, cells);
    double **y = xcalloc(n_series ? n_series : 1, sizeof *y);
    for (size_t s = 0; s < n_series; s++) {
        const struct PlotSeries *one = &series[s];
        if (one->smooth > 0 && one->n > 8) {
            y[s] = plot_smooth(one->y, one->n, one->smooth);
        } else {
            y[s] = xmalloc((one->n + 1) * sizeof **y);
            if (one->n) // else there may be no list
                memcpy(y[s], one->y, one->n * sizeof **y);
        }
    }
    bounds(&b, series, y, n_series);
    for (size_t s = 0; s < n_series; s++)
        for (size_t i = 0; i < series[s].n; i++) {
            size_t before = i ? i - 1 : 0; // a lone value is a dot
            double from[2] = {series[s].x[before], y[s][before]}, last[2] = {series[s].x[i], y[s][i]};
            if (isfinite(from[0] + from[1]) && isfinite(last[0] + last[1]))
                draw_line(&b, from, last, s);
        }
    print_board(to, title, &b, series, n_series);
    for (size_t s = 0; s < n_series; s++)
        free(y[s]);
    free(y);
    free(b.dots);
    free(b.owner);
}
