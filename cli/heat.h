// A picture of which experts a text went through: a line per layer, a column per expert.
#pragma once
#include "model/config.h"

struct Heat {
    uint32_t *counts; // (n_layers, n_experts): how often an expert was chosen
    uint32_t tokens;
};
void heat_init(struct Heat *h, const struct Config *c);
void heat_clear(struct Heat *h, const struct Config *c);
void heat_free(struct Heat *h);
void heat_add(struct Heat *h, const struct Config *c, uint32_t layer, const uint32_t *experts); // n_active of them
// Draws at most `width` columns; neighbours share a column where there are more experts. Colours where `to` is a terminal.
void heat_draw(FILE *to, const struct Heat *h, const struct Config *c, uint32_t width);
