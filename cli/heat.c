// See heat.h. The shade tells the load relative to an even one, so that a layer that spreads its tokens looks the same whatever the
// number of experts.
#include "cli/heat.h"
#include "cli/term.h"
#include <stdlib.h>
#include <string.h>

enum { LABEL_COLUMNS = 9, TAIL_COLUMNS = 20, SHADES = 5 };
static const char *const SHADE[SHADES] = {"·", "░", "▒", "▓", "█"};
// 256-colour codes from cold to hot; the shade alone says the same without colours.
static const int COLOUR[SHADES] = {240, 25, 37, 214, 196};

void heat_init(struct Heat *h, const struct Config *c) {
    h->counts = xcalloc((size_t)c->n_layers * (c->n_experts ? c->n_experts : 1), sizeof *h->counts);
    h->tokens = 0;
}

void heat_clear(struct Heat *h, const struct Config *c) {
    memset(h->counts, 0, (size_t)c->n_layers * c->n_experts * sizeof *h->counts);
    h->tokens = 0;
}

void heat_free(struct Heat *h) {
    free(h->counts);
    h->counts = NULL;
}

void heat_add(struct Heat *h, const struct Config *c, uint32_t layer, const uint32_t *experts) {
    for (uint32_t k = 0; k < c->n_active; k++)
        if (experts[k] < c->n_experts)
            h->counts[(size_t)layer * c->n_experts + experts[k]]++;
}

// `load`: share of an even load.
static int shade_of(double load) { return load <= 0 ? 0 : load < 0.5 ? 1 : load < 1.5 ? 2 : load < 3 ? 3 : 4; }

static void draw_shade(FILE *to, int shade, bool colours) {
    if (colours)
        fprintf(to, "\x1b[38;5;%dm%s", COLOUR[shade], SHADE[shade]);
    else
        fputs(SHADE[shade], to);
}

static void draw_layer(FILE *to, const struct Heat *h, const struct Config *c, uint32_t layer, uint32_t columns,
                       bool colours) {
    const uint32_t *counts = h->counts + (size_t)layer * c->n_experts;
    double even = (double)h->tokens * c->n_active / c->n_experts;
    uint32_t most = 0, used = 0;
    fprintf(to, "layer %2u ", layer);
    for (uint32_t column = 0; column < columns; column++) {
        uint32_t first = column * c->n_experts / columns, end = (column + 1) * c->n_experts / columns, hottest = 0;
        for (uint32_t e = first; e < end; e++) {
            hottest = counts[e] > hottest ? counts[e] : hottest;
            most = counts[e] > counts[most] ? e : most;
            used += counts[e] > 0;
        }
        draw_shade(to, shade_of(hottest / even), colours);
    }
    fprintf(to, "%s %3u used, #%u %.0f%%\n", colours ? "\x1b[0m" : "", used, most, 100.0 * counts[most] / h->tokens);
}

void heat_draw(FILE *to, const struct Heat *h, const struct Config *c, uint32_t width) {
    bool colours = term_paint(to, PAINT_BOLD)[0] != 0;
    uint32_t room = width > LABEL_COLUMNS + TAIL_COLUMNS + 8 ? width - LABEL_COLUMNS - TAIL_COLUMNS : 8;
    uint32_t columns = c->n_experts < room ? c->n_experts : room;
    fprintf(to, "%u tokens, %u of %u experts each", h->tokens, c->n_active, c->n_experts);
    fprintf(to, columns < c->n_experts ? " (a column is the hottest of its neighbours)\n" : "\n");
    for (uint32_t layer = 0; layer < c->n_layers; layer++)
        if (config_is_moe(c, layer))
            draw_layer(to, h, c, layer, columns, colours);
    static const char *const MEANING[SHADES] = {"never", "less than half of an even load", "about even",
                                                "up to 3 times", "more"};
    for (int i = 0; i < SHADES; i++) {
        draw_shade(to, i, colours);
        fprintf(to, "%s %s%s", colours ? "\x1b[0m" : "", MEANING[i], i + 1 < SHADES ? "   " : "\n");
    }
}
