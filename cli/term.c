// The terminal. Everything asks first whether there is one: a pipe or a log file gets neither colours nor a bar that
// is drawn again and again.
#include "cli/term.h"
#include "model/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool term_is_terminal(FILE *to) { return isatty(fileno(to)) == 1; }

uint32_t term_width(FILE *to) {
    struct winsize size;
    if (ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    long n = columns ? strtol(columns, NULL, 10) : 0;
    return n > 0 && n < 10000 ? (uint32_t)n : 80;
}

const char *term_paint(FILE *to, enum Paint paint) {
    static const char *const codes[] = {"\x1b[0m",  "\x1b[1m",  "\x1b[2m",  "\x1b[31m",
                                        "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[36m"};
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    if (!term_is_terminal(to) || (no_color && no_color[0]) || !term || strcmp(term, "dumb") == 0)
        return "";
    return codes[paint];
}

// ---- Text ----

// The character at text[0] and its bytes, at least 1; what is not UTF-8 counts as U+FFFD.
static unsigned next_char(const char *text, size_t bytes, uint32_t *code_point) {
    bool whole;
    unsigned n = utf8_char(text, bytes, code_point);
    if (n == 0) {
        *code_point = 0xfffd;
        n = utf8_bad(text, bytes, &whole);
    }
    return n;
}

uint32_t term_char_width(uint32_t c) {
    static const struct {
        uint32_t first, last, width;
    } ranges[] = {
        {0x0300, 0x036f, 0},   {0x0483, 0x0489, 0},   {0x0591, 0x05bd, 0},   {0x0610, 0x061a, 0},
        {0x064b, 0x065f, 0},   {0x0e31, 0x0e31, 0},   {0x0e34, 0x0e3a, 0},   {0x0e47, 0x0e4e, 0},
        {0x1100, 0x115f, 2},   {0x1ab0, 0x1aff, 0},   {0x1dc0, 0x1dff, 0},   {0x200b, 0x200f, 0},
        {0x202a, 0x202e, 0},   {0x2060, 0x2064, 0},   {0x20d0, 0x20ff, 0},   {0x231a, 0x231b, 2},
        {0x2e80, 0x303e, 2},   {0x3041, 0x33ff, 2},   {0x3400, 0x4dbf, 2},   {0x4e00, 0x9fff, 2},
        {0xa000, 0xa4cf, 2},   {0xac00, 0xd7a3, 2},   {0xf900, 0xfaff, 2},   {0xfe00, 0xfe0f, 0},
        {0xfe20, 0xfe2f, 0},   {0xfe30, 0xfe6f, 2},   {0xfeff, 0xfeff, 0},   {0xff00, 0xff60, 2},
        {0xffe0, 0xffe6, 2},   {0x1f300, 0x1f64f, 2}, {0x1f680, 0x1f6ff, 2}, {0x1f900, 0x1f9ff, 2},
        {0x1fa70, 0x1faff, 2}, {0x20000, 0x3fffd, 2}, {0xe0000, 0xe01ef, 0},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last)
            return ranges[i].width;
    }
    return c < 0x20 || (c >= 0x7f && c < 0xa0) ? 0 : 1;
}

uint32_t term_text_width(const char *text) {
    size_t left = strlen(text);
    uint32_t width = 0, c;
    while (left > 0) {
        unsigned n = next_char(text, left, &c);
        width += term_char_width(c);
        text += n;
        left -= n;
    }
    return width;
}

void term_write(FILE *to, const char *text, size_t bytes) {
    while (bytes > 0) {
        uint32_t c;
        unsigned n = next_char(text, bytes, &c);
        if (c == '\n' || c == '\t')
            fputc((int)c, to);
        else if (c < 0x20 || c == 0x7f)
            fprintf(to, "^%c", (char)(c ^ 0x40));
        else if (c >= 0x80 && c < 0xa0) // the C1 controls: some terminals take U+009B for an escape
            fprintf(to, "^[%c", (char)(c - 0x40));
        else if ((c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069)) // they turn the text round that follows
            fprintf(to, "<U+%04X>", (unsigned)c);
        else if (c == 0xfffd)
            fputs("\xef\xbf\xbd", to);
        else
            fwrite(text, 1, n, to);
        text += n;
        bytes -= n;
    }
}

// ---- Figures ----

void term_format_duration(double seconds, char out[16]) {
    if (!(seconds >= 0) || seconds > 359999) {
        snprintf(out, 16, "?");
        return;
    }
    unsigned s = (unsigned)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, 16, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 16, "%u:%02u", s / 60, s % 60);
}

void term_format_count(double value, char out[16]) {
    static const char *const units[] = {"", "K", "M", "B", "T", "P", "E"};
    int unit = 0;
    while (fabs(value) >= 999.5 && unit < 6) {
        value /= 1000;
        unit++;
    }
    int digits = unit == 0 ? 0 : fabs(value) < 9.995 ? 2 : fabs(value) < 99.95 ? 1 : 0;
    snprintf(out, 16, "%.*f%s", digits, value, units[unit]);
}

void term_format_bytes(uint64_t bytes, char out[16]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1023.5 && unit < 6) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 16, "%.*f %s", unit == 0 || value >= 99.95 ? 0 : 1, value, units[unit]);
}

// ---- Progress ----

static const double TERMINAL_INTERVAL_S = 0.1, LOG_INTERVAL_S = 10;

void progress_begin(struct Progress *p, const char *what, const char *unit, uint64_t done, uint64_t total) {
    *p = (struct Progress){.what = what, .unit = unit, .done = done, .total = total};
    p->started = clock_seconds();
    p->terminal = term_is_terminal(stderr);
    p->drawn = p->terminal ? -1 : p->started; // a log gets no line for what is done at once
}

static void remaining_text(const struct Progress *p, double now, char out[16]) {
    if (p->done <= p->rate_first || p->total < p->done)
        snprintf(out, 16, "?");
    else
        term_format_duration((now - p->rate_since) / (double)(p->done - p->rate_first) * (double)(p->total - p->done),
                             out);
}

// An eighth of a column is the finest step of the bar.
static void bar_text(double part, uint32_t columns, char *out) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    uint32_t filled = (uint32_t)(part * columns * 8 + 0.5);
    uint32_t width = 0;
    for (; width < filled / 8; width++)
        out += sprintf(out, "█");
    if (filled % 8) {
        out += sprintf(out, "%s", eighths[filled % 8]);
        width++;
    }
    for (; width < columns; width++)
        out += sprintf(out, " ");
}

static void draw(struct Progress *p, double now) {
    enum { BAR = 24 };
    char eta[16], spent[16], bar[3 * BAR + 1], head[160];
    double part = p->total ? (double)p->done / (double)p->total : 0;
    part = part > 1 ? 1 : part;
    remaining_text(p, now, eta);
    term_format_duration(now - p->started, spent);
    p->drawn = now;
    p->shown = true;
    if (!p->terminal) {
        fprintf(stderr, "%s: %s %llu/%llu  %s spent, %s left  %s\n", p->what, p->unit, (unsigned long long)p->done,
                (unsigned long long)p->total, spent, eta, p->note);
        return;
    }
    uint32_t width = term_width(stderr);
    bar_text(part, BAR, bar);
    snprintf(head, sizeof head, "%s %3.0f%% ", p->what, 100 * part);
    char tail[360];
    snprintf(tail, sizeof tail, " %llu/%llu  %s<%s  %s", (unsigned long long)p->done, (unsigned long long)p->total,
             spent, eta, p->note);
    // A line that wraps could not be drawn over: the bar goes first, then the tail is cut.
    bool with_bar = term_text_width(head) + BAR + term_text_width(tail) < width;
    uint32_t room = width > term_text_width(head) + 1 ? width - term_text_width(head) - 1 : 0;
    if (!with_bar && term_text_width(tail) > room) {
        size_t cut = 0;
        for (uint32_t used = 0, c, n; tail[cut]; cut += n) {
            n = next_char(tail + cut, strlen(tail + cut), &c);
            used += term_char_width(c);
            if (used > room)
                break;
        }
        tail[cut] = 0;
    }
    fprintf(stderr, "\r\x1b[K%s%s%s%s%s", head, with_bar ? term_paint(stderr, PAINT_CYAN) : "", with_bar ? bar : "",
            with_bar ? term_paint(stderr, PAINT_NONE) : "", tail);
    fflush(stderr);
}

void progress_update(struct Progress *p, uint64_t done, const char *note, ...) {
    double now = clock_seconds();
    p->done = done;
    p->shown = p->shown && p->terminal; // in a log, what is new is not shown yet
    if (p->rate_since == 0) {
        p->rate_since = now;
        p->rate_first = done;
    }
    va_list args;
    va_start(args, note);
    vsnprintf(p->note, sizeof p->note, note, args);
    va_end(args);
    if (p->drawn < 0 || now - p->drawn >= (p->terminal ? TERMINAL_INTERVAL_S : LOG_INTERVAL_S))
        draw(p, now);
}

void progress_clear(struct Progress *p) {
    if (p->terminal && p->shown)
        fprintf(stderr, "\r\x1b[K");
    if (p->terminal) {
        p->shown = false;
        p->drawn = -1;
    }
}

void progress_end(struct Progress *p) {
    if (p->terminal || !p->shown)
        draw(p, clock_seconds());
    if (p->terminal)
        fputc('\n', stderr);
    p->shown = false;
}

void term_print_wrapped(FILE *to, const char *text, uint32_t start, uint32_t width) {
    uint32_t column = start;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > start && column + 1 + word > width) {
            fprintf(to, "\n%*s", (int)start, "");
            column = start;
        } else if (column > start) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", (int)word, text);
        column += (uint32_t)word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}
