// The terminal: colours, widths, progress, and text from a model made harmless. What is no terminal gets plain lines.
#pragma once
#include "runtime/base.h"

bool term_is_terminal(FILE *to);
uint32_t term_width(FILE *to); // columns; 80 where nobody knows

enum Paint { PAINT_NONE, PAINT_BOLD, PAINT_DIM, PAINT_RED, PAINT_GREEN, PAINT_YELLOW, PAINT_BLUE, PAINT_CYAN };
// The escape sequence, or "" when `to` is no terminal, TERM is dumb or NO_COLOR is set.
const char *term_paint(FILE *to, enum Paint paint);

uint32_t term_char_width(uint32_t code_point); // columns: 0, 1 or 2
uint32_t term_text_width(const char *text);    // columns of a text without escape sequences
// Writes the text with control characters (but newline and tab) shown as ^X, and those that turn the direction of writing as <U+202E>, so that
// no text can drive the terminal or look like another.
void term_write(FILE *to, const char *text, size_t bytes);

// Text in columns start .. width, broken at spaces, and a newline; the cursor is at `start`.
void term_print_wrapped(FILE *to, const char *text, uint32_t start, uint32_t width);

static inline const char *plural(uint64_t n) { return n == 1 ? "" : "s"; }

void term_format_duration(double seconds, char out[16]); // "1:05", "2:03:04"
void term_format_count(double value, char out[16]);      // "1.53M", "16.4B"
void term_format_bytes(uint64_t bytes, char out[16]);    // "93.8 MiB"

// One line of progress on stderr: a bar that is drawn again at most 10 times a second on a terminal, a plain line every
// 10 seconds otherwise.
struct Progress {
    const char *what; // "train"
    const char *unit; // "step"
    uint64_t total, done;
    double started, drawn;
    double
        rate_since; // time of the first update: what went before it is preparation (shaders are compiled) and no measure
    uint64_t rate_first; // `done` then
    bool terminal, shown;
    char note[200];
};
void progress_begin(struct Progress *p, const char *what, const char *unit, uint64_t done, uint64_t total);
// `note` is what is said behind the bar: "loss 1.234  812 tok/s".
void progress_update(struct Progress *p, uint64_t done, const char *note, ...) __attribute__((format(printf, 3, 4)));
void progress_clear(
    struct Progress *p); // takes the bar away, so that a line can be printed; the next update draws it again
void progress_end(struct Progress *p); // leaves the last state as a line
