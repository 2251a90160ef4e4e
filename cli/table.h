// The table of `vkmoe eval report`, on the terminal, in Markdown, or as a picture.
#pragma once
#include "eval/report.h"

void table_print(const struct Report *r, FILE *to);
void table_print_markdown(const struct Report *r, FILE *to);
bool table_print_json(const struct Report *r, FILE *to);
bool table_draw(const struct Report *r, const char *path);
