// Line charts, and grids of loads. Everything but the grid's cells, text too, is a stroke with a round pen: the share of a pixel that the pen covers follows from
// the pixel's distance to the line, which gives smooth edges without drawing anything twice. The letters are polylines
// and splines on a small grid (GLYPHS).
#include "cli/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBIW_MALLOC(bytes)       xmalloc(bytes)
#define STBIW_REALLOC(old, bytes) xrealloc(old, bytes)
#define STBIW_FREE(block)         free(block)
#include <stb_image_write.h>

enum { WIDTH = 1000, HEIGHT = 600, LEFT = 84, RIGHT = 28, TOP = 64, BOTTOM = 64 };

struct Canvas {
    float *rgb;         // (HEIGHT, WIDTH, 3)
    float *mask;        // (HEIGHT, WIDTH): the pen's cover of the stroke at hand
    int x0, y0, x1, y1; // the part of the mask that is in use
};
struct Point {
    double x, y;
};

// ---- Strokes ----

static void stroke_begin(struct Canvas *c) { c->x0 = WIDTH, c->y0 = HEIGHT, c->x1 = 0, c->y1 = 0; }

// A NaN gives low: it is the place of what has none, where an axis is too long for a double.
static int clamp_int(double v, int low, int high) { return !(v >= low) ? low : v > high ? high : (int)v; }

// A line adds to the mask what it covers, by maximum: joints of one stroke do not get darker.
static void stroke_line(struct Canvas *c, struct Point a, struct Point b, double pen) {
    double reach = pen / 2 + 1;
    int x0 = clamp_int(fmin(a.x, b.x) - reach, 0, WIDTH), x1 = clamp_int(fmax(a.x, b.x) + reach + 1, 0, WIDTH);
    int y0 = clamp_int(fmin(a.y, b.y) - reach, 0, HEIGHT), y1 = clamp_int(fmax(a.y, b.y) + reach + 1, 0, HEIGHT);
    double dx = b.x - a.x, dy = b.y - a.y, square = dx * dx + dy * dy;
    for (int y = y0; y < y1; y++) {
        for (int x = x0; x < x1; x++) {
            double px = x + 0.5 - a.x, py = y + 0.5 - a.y;
            double t = square > 0 ? fmin(1, fmax(0, (px * dx + py * dy) / square)) : 0;
            double cover = pen / 2 + 0.5 - hypot(px - t * dx, py - t * dy);
            float *m = &c->mask[y * WIDTH + x];
            if (cover > *m)
                *m = (float)fmin(cover, fmin(1, pen));
        }
    }
    c->x0 = x0 < c->x0 ? x0 : c->x0, c->x1 = x1 > c->x1 ? x1 : c->x1;
    c->y0 = y0 < c->y0 ? y0 : c->y0, c->y1 = y1 > c->y1 ? y1 : c->y1;
}

static void stroke_end(struct Canvas *c, uint32_t colour, double alpha) {
    const float rgb[3] = {(float)(colour >> 16 & 255) / 255, (float)(colour >> 8 & 255) / 255,
                          (float)(colour & 255) / 255};
    for (int y = c->y0; y < c->y1; y++) {
        for (int x = c->x0; x < c->x1; x++) {
            float cover = c->mask[y * WIDTH + x] * (float)alpha;
            c->mask[y * WIDTH + x] = 0;
            for (int i = 0; cover > 0 && i < 3; i++) {
                float *to = &c->rgb[(y * WIDTH + x) * 3 + i];
                *to += (rgb[i] - *to) * cover;
            }
        }
    }
}

static void draw_line(struct Canvas *c, double x0, double y0, double x1, double y1, double pen, uint32_t colour) {
    stroke_begin(c);
    stroke_line(c, (struct Point){x0, y0}, (struct Point){x1, y1}, pen);
    stroke_end(c, colour, 1);
}

// ---- Letters ----

// A glyph is a list of strokes by spaces. Points are two digits in base 36, x and y on a grid where capitals reach from 0 to the
// base line at 16, small letters begin at 6 and tails end at 22. A stroke that begins with ~ is a spline through its points,
// with @ a closed one.
static const char *const GLYPHS[128] = {
    ['!'] = "101b 1f1g",
    ['"'] = "1014 4044",
    ['#'] = "301g 907g 0595 0bab",
    ['%'] = "@20432603 a00g @8aad8g6d",
    ['\''] = "1014",
    ['('] = "~40141c4g",
    [')'] = "~00343c0g",
    ['*'] = "313b 0469 6409",
    ['+'] = "0a8a 464e",
    [','] = "2f1i",
    ['-'] = "1a6a",
    ['.'] = "1f1g",
    ['/'] = "700i",
    ['0'] = "@40884g08",
    ['1'] = "23505g",
    ['2'] = "~0440845a0g 0g8g",
    ['3'] = "~02407448 ~488c4g0e",
    ['4'] = "6g600b8b",
    ['5'] = "701007 ~07468b4g0e",
    ['6'] = "@478b4g0b ~60250b",
    ['7'] = "00803g",
    ['8'] = "@40744814 @488c4g0c",
    ['9'] = "@40854905 ~856b2g",
    [':'] = "1819 1f1g",
    [';'] = "2829 2f1i",
    ['<'] = "840a8g",
    ['='] = "0888 0d8d",
    ['>'] = "048a0g",
    ['?'] = "~034084484b 4f4g",
    ['@'] = "~bg6i0961d8ccaca6 @a97c4976",
    ['A'] = "0g50ag 2b8b",
    ['B'] = "5g0g0050 ~509458 5808 ~58ac5g",
    ['C'] = "~a350085gad",
    ['D'] = "4g0g0040 ~40a84g",
    ['E'] = "90000g9g 0878",
    ['F'] = "90000g 0878",
    ['G'] = "~a350085gad 69a9ad",
    ['H'] = "000g a0ag 08a8",
    ['I'] = "101g",
    ['J'] = "606b ~6b3g0d",
    ['K'] = "000g a009 37ag",
    ['L'] = "000g9g",
    ['M'] = "0g006cc0cg",
    ['N'] = "0g00aga0",
    ['O'] = "@50a85g08",
    ['P'] = "0g0050 ~50a459 5909",
    ['Q'] = "@50a85g08 6cag",
    ['R'] = "0g0050 ~50a459 5909 59ag",
    ['S'] = "~a3501458ac5g0d",
    ['T'] = "00a0 505g",
    ['U'] = "000b ~0b5gab aba0",
    ['V'] = "005ga0",
    ['W'] = "003g74bge0",
    ['X'] = "00ag a00g",
    ['Y'] = "0058a0 585g",
    ['Z'] = "00a00gag",
    ['['] = "30000i3i",
    [']'] = "00303i0i",
    ['_'] = "0i9i",
    ['a'] = "@468b4g0b 868g",
    ['b'] = "000g @468b4g0b",
    ['c'] = "~88460b4g8e",
    ['d'] = "@468b4g0b 808g",
    ['e'] = "0b8b ~8b460b4g8e",
    ['f'] = "~603034 343g 0666",
    ['g'] = "@468b4g0b 868i ~8i4m0k",
    ['h'] = "000g ~0a468a 8a8g",
    ['i'] = "161g 1112",
    ['j'] = "363i ~3i2l0m 3132",
    ['k'] = "000g 760c 397g",
    ['l'] = "101g",
    ['m'] = "060g ~0a366a 6a6g ~6a96ca cacg",
    ['n'] = "060g ~0a468a 8a8g",
    ['o'] = "@468b4g0b",
    ['p'] = "@468b4g0b 060m",
    ['q'] = "@468b4g0b 868m",
    ['r'] = "060g ~0a2766",
    ['s'] = "~7846184b7d4g0e",
    ['t'] = "323d ~3d4g7g 0676",
    ['u'] = "060c ~0c4g8c 868g",
    ['v'] = "064g86",
    ['w'] = "063g689gc6",
    ['x'] = "068g 860g",
    ['y'] = "064g 862m",
    ['z'] = "06860g8g",
    ['|'] = "101k",
};
static const char UNKNOWN_GLYPH[] = "00808g0g00";

static int base36(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static const char *glyph_of(char c) {
    const char *g = (unsigned char)c < 128 ? GLYPHS[(unsigned char)c] : NULL;
    return g ? g : c == ' ' ? "" : UNKNOWN_GLYPH;
}

// The advance in grid units: figures are all alike, so that numbers line up.
static double glyph_advance(char c) {
    if (c == ' ')
        return 8;
    if (c >= '0' && c <= '9')
        return 12;
    int widest = 0;
    for (const char *g = glyph_of(c); *g; g++) {
        if (*g == ' ' || *g == '~' || *g == '@')
            continue;
        int x = base36(g[0]);
        widest = x > widest ? x : widest;
        g++;
    }
    return widest + 4;
}

static double text_width(const char *text, double size) {
    double width = 0;
    for (; *text; text++)
        width += glyph_advance(*text);
    return width * size / 22;
}

// One cubic piece from b to c, the tangents towards the neighbours a and d.
static void stroke_curve(struct Canvas *canvas, struct Point a, struct Point b, struct Point c, struct Point d,
                         double tension, double pen) {
    enum { PIECES = 8 };
    struct Point last = b;
    for (int i = 1; i <= PIECES; i++) {
        double t = (double)i / PIECES, t2 = t * t, t3 = t2 * t;
        double h0 = 2 * t3 - 3 * t2 + 1, h1 = t3 - 2 * t2 + t, h2 = 3 * t2 - 2 * t3, h3 = t3 - t2;
        struct Point next = {h0 * b.x + h1 * tension * (c.x - a.x) + h2 * c.x + h3 * tension * (d.x - b.x),
                             h0 * b.y + h1 * tension * (c.y - a.y) + h2 * c.y + h3 * tension * (d.y - b.y)};
        stroke_line(canvas, last, next, pen);
        last = next;
    }
}

static void stroke_points(struct Canvas *c, char kind, const struct Point *p, int n, double pen) {
    for (int i = 0; kind == ' ' && i + 1 < n; i++)
        stroke_line(c, p[i], p[i + 1], pen);
    for (int i = 0; kind == '~' && i + 1 < n; i++)
        stroke_curve(c, p[i ? i - 1 : 0], p[i], p[i + 1], p[i + 2 < n ? i + 2 : n - 1], 0.62, pen);
    for (int i = 0; kind == '@' && i < n; i++)
        stroke_curve(c, p[(i + n - 1) % n], p[i], p[(i + 1) % n], p[(i + 2) % n], 0.82, pen);
}

// Text whose base line begins at (x, y), of the given size (height of line); upright text when turned.
static void draw_text(struct Canvas *c, double x, double y, const char *text, double size, double pen, uint32_t colour,
                      bool turned) {
    double scale = size / 22, at = 0;
    stroke_begin(c);
    for (; *text; text++) {
        for (const char *g = glyph_of(*text); *g;) {
            struct Point points[16];
            int n = 0;
            char kind = *g == '~' || *g == '@' ? *g++ : ' ';
            for (; *g && *g != ' ' && n < 16; g += 2, n++) {
                double gx = (at + 2 + base36(g[0])) * scale, gy = (base36(g[1]) - 16) * scale;
                points[n] = turned ? (struct Point){x + gy, y - gx} : (struct Point){x + gx, y + gy};
            }
            stroke_points(c, kind, points, n, pen);
            g += *g == ' ';
        }
        at += glyph_advance(*text);
    }
    stroke_end(c, colour, 1);
}

// ---- Axes ----

struct Axis {
    double least, most, step;
    int digits; // after the point
};

// Steps of 1, 2 or 5 times a power of ten, about `wanted` of them.
static struct Axis axis_of(double least, double most, int wanted, bool whole) {
    // A range of a few last places has no steps that could be added to its ends.
    if (!(most - least > 1e-9 * fmax(fabs(least), fabs(most)))) {
        double spread = fabs(least) > 0 ? fabs(least) * 0.1 : 1;
        least -= spread;
        most += spread;
    }
    double rough = (most - least) / wanted, power = pow(10, floor(log10(rough)));
    double part = rough / power;
    double step = (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10) * power;
    if (whole && step < 1)
        step = 1;
    int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    return (struct Axis){least, most, step, digits};
}

struct Frame {
    struct Axis x, y;
};
static struct Point place(const struct Frame *f, double x, double y) {
    return (struct Point){LEFT + (x - f->x.least) / (f->x.most - f->x.least) * (WIDTH - LEFT - RIGHT),
                          HEIGHT - BOTTOM - (y - f->y.least) / (f->y.most - f->y.least) * (HEIGHT - TOP - BOTTOM)};
}

static struct Frame frame_of(const struct PlotSeries *series, size_t n_series) {
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    bool whole = true;
    for (size_t s = 0; s < n_series; s++) {
        for (size_t i = 0; i < series[s].n; i++) {
            if (!isfinite(series[s].x[i]) || !isfinite(series[s].y[i]))
                continue;
            x0 = fmin(x0, series[s].x[i]), x1 = fmax(x1, series[s].x[i]);
            y0 = fmin(y0, series[s].y[i]), y1 = fmax(y1, series[s].y[i]);
            whole = whole && series[s].x[i] == floor(series[s].x[i]);
        }
    }
    if (!(x1 >= x0))
        x0 = y0 = 0, x1 = y1 = 1;
    struct Frame f = {axis_of(x0, x1, 9, whole), axis_of(y0, y1, 6, false)};
    // The curve gets air above and below, down to the next step at most.
    double air = 0.06 * (f.y.most - f.y.least);
    bool from_zero = y0 >= 0 && y0 - air < 0.35 * (y1 - y0);
    f.y = axis_of(from_zero ? 0 : f.y.least - air, f.y.most + air, 6, false);
    return f;
}

static void draw_axes(struct Canvas *c, const struct Frame *f, const char *x_label, const char *y_label) {
    const uint32_t grid = 0xe8eaee, ink = 0x4b5563;
    char text[48];
    for (double v = ceil(f->y.least / f->y.step - 1e-9) * f->y.step; v <= f->y.most + 1e-9 * f->y.step;
         v += f->y.step) {
        double y = floor(place(f, f->x.least, v).y) + 0.5;
        draw_line(c, LEFT, y, WIDTH - RIGHT, y, 1, grid);
        snprintf(text, sizeof text, "%.*f", f->y.digits, fabs(v) < 1e-9 * f->y.step ? 0 : v);
        draw_text(c, LEFT - 10 - text_width(text, 16), y + 6, text, 16, 1.25, ink, false);
    }
    for (double v = ceil(f->x.least / f->x.step - 1e-9) * f->x.step; v <= f->x.most + 1e-9 * f->x.step;
         v += f->x.step) {
        double x = floor(place(f, v, f->y.least).x) + 0.5;
        draw_line(c, x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 5, 1, 0x9ca3af);
        snprintf(text, sizeof text, "%.*f", f->x.digits, fabs(v) < 1e-9 * f->x.step ? 0 : v);
        draw_text(c, x - text_width(text, 16) / 2, HEIGHT - BOTTOM + 23, text, 16, 1.25, ink, false);
    }
    draw_line(c, LEFT, HEIGHT - BOTTOM + 0.5, WIDTH - RIGHT, HEIGHT - BOTTOM + 0.5, 1, 0x9ca3af);
    draw_text(c, (LEFT + WIDTH - RIGHT - text_width(x_label, 17)) / 2.0, HEIGHT - 16, x_label, 17, 1.3, ink, false);
    draw_text(c, 24, (TOP + HEIGHT - BOTTOM + text_width(y_label, 17)) / 2.0, y_label, 17, 1.3, ink, true);
}

// ---- Series ----

static void draw_series(struct Canvas *c, const struct Frame *f, const double *x, const double *y, size_t n, double pen,
                        uint32_t colour, double alpha) {
    stroke_begin(c);
    for (size_t i = 1; i < n; i++) {
        if (isfinite(y[i - 1]) && isfinite(y[i]) && isfinite(x[i - 1]) && isfinite(x[i]))
            stroke_line(c, place(f, x[i - 1], y[i - 1]), place(f, x[i], y[i]), pen);
    }
    stroke_end(c, colour, alpha);
}

// Unlike a running mean the fitted line neither lags behind nor bends at the ends.
double *plot_smooth(const double *y, size_t n, double share) {
    double *out = xcalloc(n ? n : 1, sizeof *out);
    double sigma = fmax(1, (double)n * share);
    size_t reach = (size_t)(3 * sigma);
    for (size_t i = 0; i < n; i++) {
        double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
        for (size_t j = i > reach ? i - reach : 0; j < n && j <= i + reach; j++) {
            double d = ((double)j - (double)i) / sigma, weight = exp(-0.5 * d * d);
            if (!isfinite(y[j]))
                continue;
            w += weight, wx += weight * d, wy += weight * y[j];
            wxx += weight * d * d, wxy += weight * d * y[j];
        }
        double determinant = w * wxx - wx * wx;
        out[i] = determinant > 1e-9 * w * w ? (wxx * wy - wx * wxy) / determinant : w > 0 ? wy / w : NAN;
    }
    return out;
}

static void draw_dots(struct Canvas *c, const struct Frame *f, const struct PlotSeries *s, uint32_t colour) {
    for (size_t i = 0; i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i]))
            continue;
        struct Point p = place(f, s->x[i], s->y[i]);
        draw_line(c, p.x, p.y, p.x, p.y, 10, 0xffffff);
        draw_line(c, p.x, p.y, p.x, p.y, 7, colour);
    }
}

// On one line beside the title where there is room, else one below the other in the corner of the frame.
static void draw_legend(struct Canvas *c, const char *title, const struct PlotSeries *series, size_t n_series,
                        const uint32_t *colours) {
    double room = WIDTH - RIGHT - LEFT - text_width(title, 22) - 20, wanted = 0, widest = 0;
    for (size_t s = 0; s < n_series; s++) {
        wanted += text_width(series[s].name, 17) + 52;
        widest = fmax(widest, text_width(series[s].name, 17));
    }
    bool below = wanted > room;
    double x = WIDTH - RIGHT, y = 40;
    for (size_t i = n_series; i-- > 0;) {
        size_t s = below ? n_series - 1 - i : i;
        x = below ? WIDTH - RIGHT - widest - 8 : x - text_width(series[s].name, 17);
        y = below ? TOP + 20 + 20.0 * (double)s : y;
        draw_text(c, x, y, series[s].name, 17, 1.3, 0x374151, false);
        draw_line(c, x - 30, y - 6, x - 10, y - 6, 3, colours[s % 6]);
        x -= 52;
    }
}

struct Bytes {
    uint8_t *data;
    uint64_t n;
};
static void collect(void *context, void *data, int n) {
    struct Bytes *b = context;
    b->data = xrealloc(b->data, b->n + (uint64_t)n);
    memcpy(b->data + b->n, data, (size_t)n);
    b->n += (uint64_t)n;
}

static bool write_png(const char *path, const struct Canvas *c) {
    uint8_t *pixels = xmalloc(WIDTH * HEIGHT * 3);
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++)
        pixels[i] = (uint8_t)(fminf(1, fmaxf(0, c->rgb[i])) * 255 + 0.5f);
    struct Bytes png = {NULL, 0};
    bool ok = stbi_write_png_to_func(collect, &png, WIDTH, HEIGHT, 3, pixels, WIDTH * 3) != 0;
    ok = ok ? file_write_atomic(path, png.data, png.n) : fail("%s: the picture cannot be packed", path);
    free(png.data);
    free(pixels);
    return ok;
}

static void canvas_open(struct Canvas *c) {
    *c = (struct Canvas){.rgb = xmalloc(WIDTH * HEIGHT * 3 * sizeof(float)),
                         .mask = xcalloc(WIDTH * HEIGHT, sizeof(float))};
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++)
        c->rgb[i] = 1;
}

static bool canvas_close(struct Canvas *c, const char *path) {
    bool ok = write_png(path, c);
    free(c->rgb);
    free(c->mask);
    return ok;
}

// ---- Grids ----

// Nothing, half a load, an even one, twice and four times that and more.
static void load_colour(double load, float rgb[3]) {
    static const uint32_t stops[] = {0xf3f4f6, 0xfef0b5, 0xfdba5c, 0xf2643b, 0xa50f26};
    double at = load <= 0 ? 0 : fmin(4, fmax(0.2, load < 0.5 ? 2 * load : 2 + log2(load)));
    int i = at >= 4 ? 3 : (int)at;
    for (int k = 0; k < 3; k++) {
        double a = stops[i] >> (16 - 8 * k) & 255, b = stops[i + 1] >> (16 - 8 * k) & 255;
        rgb[k] = (float)((a + (b - a) * (at - i)) / 255);
    }
}

static void fill_cell(struct Canvas *c, double x0, double y0, double x1, double y1, double load) {
    float rgb[3];
    load_colour(load, rgb);
    for (int y = clamp_int(y0 + 0.5, 0, HEIGHT); y < clamp_int(y1 + 0.5, 0, HEIGHT); y++)
        for (int x = clamp_int(x0 + 0.5, 0, WIDTH); x < clamp_int(x1 + 0.5, 0, WIDTH); x++)
            memcpy(&c->rgb[(y * WIDTH + x) * 3], rgb, sizeof rgb);
}

static void draw_load_key(struct Canvas *c) {
    static const char *const names[] = {"0", "1/2", "even", "2x", "4x"};
    static const double loads[] = {0, 0.5, 1, 2, 4};
    for (int i = 0; i < 5; i++) {
        double x = WIDTH - RIGHT - 62.0 * (5 - i);
        fill_cell(c, x, 26, x + 16, 42, loads[i]);
        draw_text(c, x + 20, 40, names[i], 15, 1.2, 0x374151, false);
    }
}

bool plot_grid(const char *path, const char *title, const char *x_label, const char *y_label, const double *loads,
               uint32_t n_rows, uint32_t n_columns, const uint32_t *row_names) {
    struct Canvas c;
    char text[16];
    canvas_open(&c);
    double width = (double)(WIDTH - LEFT - RIGHT) / n_columns, height = (double)(HEIGHT - TOP - BOTTOM) / n_rows;
    double gap = fmin(width, height) > 6 ? 1 : 0;
    uint32_t x_step = (uint32_t)fmax(1, ceil(n_columns / 16.0)), y_step = (uint32_t)fmax(1, ceil(n_rows / 24.0));
    for (uint32_t row = 0; row < n_rows; row++) {
        double y = TOP + row * height;
        for (uint32_t column = 0; column < n_columns; column++)
            fill_cell(&c, LEFT + column * width, y, LEFT + (column + 1) * width - gap, y + height - gap,
                      loads[(size_t)row * n_columns + column]);
        snprintf(text, sizeof text, "%u", row_names[row]);
        if (row % y_step == 0)
            draw_text(&c, LEFT - 10 - text_width(text, 15), y + height / 2 + 5, text, 15, 1.2, 0x4b5563, false);
    }
    for (uint32_t column = 0; column < n_columns; column += x_step) {
        snprintf(text, sizeof text, "%u", column);
        draw_text(&c, LEFT + (column + 0.5) * width - text_width(text, 15) / 2, HEIGHT - BOTTOM + 20, text, 15, 1.2,
                  0x4b5563, false);
    }
    draw_text(&c, (LEFT + WIDTH - RIGHT - text_width(x_label, 17)) / 2.0, HEIGHT - 16, x_label, 17, 1.3, 0x4b5563,
              false);
    draw_text(&c, 24, (TOP + HEIGHT - BOTTOM + text_width(y_label, 17)) / 2.0, y_label, 17, 1.3, 0x4b5563, true);
    draw_text(&c, LEFT, 40, title, 22, 2.1, 0x111827, false);
    draw_load_key(&c);
    return canvas_close(&c, path);
}

// A panel is drawn pixel by pixel, so that more columns or rows than pixels do no harm.
static void draw_panel(struct Canvas *c, const struct PlotPanels *p, uint32_t panel, int x0, int y0, int width,
                       int height) {
    char name[32];
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint32_t row = (uint32_t)((uint64_t)y * p->n_rows / (uint64_t)height);
            uint32_t column = (uint32_t)((uint64_t)x * p->n_columns / (uint64_t)width);
            load_colour(p->loads[((size_t)panel * p->n_rows + row) * p->n_columns + column],
                        &c->rgb[((y0 + y) * WIDTH + x0 + x) * 3]);
        }
    snprintf(name, sizeof name, "layer %u", p->names[panel]);
    draw_text(c, x0, y0 - 5, name, 13, 1.1, 0x4b5563, false);
}

bool plot_panels(const char *path, const char *title, const struct PlotPanels *p) {
    enum { GAP = 10, HEAD = 20 };
    struct Canvas c;
    canvas_open(&c);
    uint32_t across = (uint32_t)ceil(sqrt(1.8 * p->n_panels)), down;
    across = across < p->n_panels ? across : p->n_panels;
    down = (p->n_panels + across - 1) / across;
    int width = (WIDTH - LEFT / 2 - RIGHT) / (int)across, height = (HEIGHT - TOP - BOTTOM / 2) / (int)down;
    for (uint32_t i = 0; i < p->n_panels && width > 2 * GAP && height > 2 * HEAD; i++)
        draw_panel(&c, p, i, LEFT / 2 + (int)(i % across) * width, TOP + (int)(i / across) * height + HEAD, width - GAP,
                   height - HEAD - GAP / 2);
    draw_text(&c, (LEFT + WIDTH - RIGHT - text_width(p->x_label, 17)) / 2.0, HEIGHT - 10, p->x_label, 17, 1.3, 0x4b5563,
              false);
    draw_text(&c, 24, (TOP + HEIGHT - BOTTOM + text_width(p->y_label, 17)) / 2.0, p->y_label, 17, 1.3, 0x4b5563, true);
    draw_text(&c, LEFT / 2, 40, title, 22, 2.1, 0x111827, false);
    draw_load_key(&c);
    return canvas_close(&c, path);
}

// ---- Lines ----

bool plot_lines(const char *path, const char *title, const char *x_label, const char *y_label,
                const struct PlotSeries *series, size_t n_series) {
    static const uint32_t colours[6] = {0x2563eb, 0xea580c, 0x059669, 0x9333ea, 0xca8a04, 0x475569};
    struct Canvas c;
    canvas_open(&c);
    struct Frame f = frame_of(series, n_series);
    draw_axes(&c, &f, x_label, y_label);
    draw_text(&c, LEFT, 40, title, 22, 2.1, 0x111827, false);
    draw_legend(&c, title, series, n_series, colours);
    for (size_t s = 0; s < n_series; s++) {
        const struct PlotSeries *one = &series[s];
        bool smooth = one->smooth > 0 && one->n > 8;
        draw_series(&c, &f, one->x, one->y, one->n, smooth ? 1.4 : 2.6, colours[s % 6], smooth ? 0.3 : 1);
        if (smooth) {
            double *mean = plot_smooth(one->y, one->n, one->smooth);
            draw_series(&c, &f, one->x, mean, one->n, 2.8, colours[s % 6], 1);
            free(mean);
        }
        if (one->dots)
            draw_dots(&c, &f, one, colours[s % 6]);
    }
    return canvas_close(&c, path);
}

// ---- Tables

// As large as the canvas lets it be: the letters' size follows from the rows and from the widest texts.
bool plot_table(const char *path, const struct PlotCell *cells, uint32_t n_rows, uint32_t n_columns, uint32_t n_top) {
    enum { EDGE = 28 };
    double *widths = xcalloc(n_columns, sizeof *widths), all = 0, gap = 1.6, height = (HEIGHT - 2.0 * EDGE) / n_rows;
    for (uint32_t i = 0; i < n_rows * n_columns; i++)
        widths[i % n_columns] = fmax(widths[i % n_columns], text_width(cells[i].text, 1));
    for (uint32_t k = 0; k < n_columns; k++)
        all += widths[k] + (k ? gap : 0);
    double size = fmin(fmin(height * 0.7, 24), (WIDTH - 2.0 * EDGE) / all);
    height = fmin(height, size * 2);
    struct Canvas c;
    canvas_open(&c);
    for (uint32_t row = 0; row < n_rows; row++) {
        double x = EDGE, base = EDGE + height * (row + 0.68);
        for (uint32_t k = 0; k < n_columns; k++) {
            const struct PlotCell *cell = &cells[(size_t)row * n_columns + k];
            bool bold = cell->bold || row == 0;
            double column = widths[k] * size, indent = k < 2 ? 0 : column - text_width(cell->text, size);
            draw_text(&c, x + indent, base, cell->text, size, size / 22 * (bold ? 2.6 : 1.5),
                      bold     ? 0x111827
                      : k == 1 ? 0x6b7280
                               : 0x374151,
                      false);
            x += column + gap * size;
        }
        if (row == 0 || row == n_top)
            draw_line(&c, EDGE, EDGE + height * (row + 1), EDGE + all * size, EDGE + height * (row + 1), 1.2, 0x9ca3af);
    }
    free(widths);
    return canvas_close(&c, path);
}

// ---- Bars

bool plot_bars(const char *path, const char *title, const char *unit, const struct PlotBar *bars, uint32_t n) {
    struct Canvas c;
    double most = 0, sum = 0, names = 0, step = fmin(32, (double)(HEIGHT - TOP - 24) / (n ? n : 1));
    canvas_open(&c);
    draw_text(&c, 28, 40, title, 22, 2.1, 0x111827, false);
    for (uint32_t i = 0; i < n; i++) {
        most = fmax(most, bars[i].value), sum += bars[i].value;
        names = fmax(names, text_width(bars[i].name, 15));
    }
    for (uint32_t i = 0; i < n && most > 0; i++) {
        char text[64];
        double left = 28 + names + 12, y = TOP + (i + 0.5) * step, length = bars[i].value / most * (WIDTH - 180 - left);
        snprintf(text, sizeof text, "%.3g %s, %.1f %%", bars[i].value, unit, 100 * bars[i].value / sum);
        draw_text(&c, left - 12 - text_width(bars[i].name, 15), y + 5, bars[i].name, 15, 1.25, 0x374151, false);
        draw_line(&c, left + step / 4, y, left + fmax(step / 4, length), y, step / 2, 0x2563eb);
        draw_text(&c, left + fmax(step / 4, length) + step / 4 + 8, y + 5, text, 15, 1.2, 0x6b7280, false);
    }
    return canvas_close(&c, path);
}

// ---- Rooflines

// Powers of ten around the values; both ends whole.
static struct Axis log_axis(double least, double most) {
    double low = floor(log10(least)), high = ceil(log10(most));
    return (struct Axis){low, high > low ? high : low + 1, 1, 0};
}

static void draw_log_axes(struct Canvas *c, const struct Frame *f) {
    char text[48];
    for (double v = f->y.least; v <= f->y.most; v++) {
        double y = floor(place(f, f->x.least, v).y) + 0.5;
        draw_line(c, LEFT, y, WIDTH - RIGHT, y, 1, 0xe8eaee);
        snprintf(text, sizeof text, "%g", pow(10, v));
        draw_text(c, LEFT - 10 - text_width(text, 15), y + 6, text, 15, 1.2, 0x4b5563, false);
    }
    for (double v = f->x.least; v <= f->x.most; v++) {
        double x = floor(place(f, v, f->y.least).x) + 0.5;
        draw_line(c, x, TOP, x, HEIGHT - BOTTOM, 1, 0xe8eaee);
        snprintf(text, sizeof text, "%g", pow(10, v));
        draw_text(c, x - text_width(text, 15) / 2, HEIGHT - BOTTOM + 23, text, 15, 1.2, 0x4b5563, false);
    }
    const char *below = "floating-point operations per byte", *beside = "GFLOP/s";
    draw_text(c, (LEFT + WIDTH - RIGHT - text_width(below, 17)) / 2.0, HEIGHT - 16, below, 17, 1.3, 0x4b5563, false);
    draw_text(c, 24, (TOP + HEIGHT - BOTTOM + text_width(beside, 17)) / 2.0, beside, 17, 1.3, 0x4b5563, true);
}

// Whether no dot of the same name stands higher.
static bool is_best(const struct PlotDot *dots, uint32_t n, uint32_t i) {
    for (uint32_t k = 0; k < n; k++)
        if (strcmp(dots[k].name, dots[i].name) == 0 &&
            (dots[k].gflops > dots[i].gflops || (dots[k].gflops >= dots[i].gflops && k < i)))
            return false;
    return true;
}

bool plot_roofline(const char *path, const char *title, double gbytes_per_s, const struct PlotRoof *roofs,
                   uint32_t n_roofs, const struct PlotDot *dots, uint32_t n) {
    static const uint32_t COLOURS[2] = {0x2563eb, 0xea580c};
    double x0 = INFINITY, x1 = 0, y0 = INFINITY, y1 = 0;
    for (uint32_t i = 0; i < n; i++) {
        x0 = fmin(x0, dots[i].intensity), x1 = fmax(x1, dots[i].intensity);
        y0 = fmin(y0, dots[i].gflops), y1 = fmax(y1, dots[i].gflops);
    }
    for (uint32_t i = 0; i < n_roofs; i++) {
        y1 = fmax(y1, roofs[i].gflops * 1.5);
        x1 = fmax(x1, 3 * roofs[i].gflops / gbytes_per_s);
    }
    if (n == 0 || !(y0 > 0) || !(x0 > 0) || !(gbytes_per_s > 0))
        return fail("%s: there is no dot to draw", path);
    struct Frame f = {log_axis(x0, x1), log_axis(y0, y1)};
    struct Canvas c;
    canvas_open(&c);
    draw_log_axes(&c, &f);
    draw_text(&c, LEFT, 40, title, 22, 2.1, 0x111827, false);
    for (uint32_t i = 0; i < n_roofs; i++) {
        // The slope begins where the frame does: at its left edge or on its floor.
        double corner = log10(roofs[i].gflops / gbytes_per_s), bandwidth = log10(gbytes_per_s);
        double from = fmax(f.x.least, f.y.least - bandwidth);
        struct Point a = place(&f, from, from + bandwidth), b = place(&f, corner, log10(roofs[i].gflops));
        struct Point e = place(&f, f.x.most, log10(roofs[i].gflops));
        char text[64];
        snprintf(text, sizeof text, "%s, %.4g GFLOP/s", roofs[i].name, roofs[i].gflops);
        draw_line(&c, a.x, a.y, b.x, b.y, 2.2, i ? COLOURS[i % 2] : 0x6b7280);
        draw_line(&c, b.x, b.y, e.x, e.y, 2.2, COLOURS[i % 2]);
        draw_text(&c, e.x - text_width(text, 15), e.y - 7, text, 15, 1.25, COLOURS[i % 2], false);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct Point p = place(&f, log10(dots[i].intensity), log10(dots[i].gflops));
        draw_line(&c, p.x, p.y, p.x, p.y, 8, 0xffffff);
        draw_line(&c, p.x, p.y, p.x, p.y, 6, COLOURS[dots[i].roof % 2]);
        if (is_best(dots, n, i))
            draw_text(&c, p.x + 7, p.y - 4, dots[i].name, 11, 0.9, 0x374151, false);
    }
    return canvas_close(&c, path);
}
