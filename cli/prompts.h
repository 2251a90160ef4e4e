// The prompts of generate: one from -p, --file or standard input, or many from --prompts; as tokens.
#pragma once
#include "cli/load.h"

struct Prompts {
    struct TokenList *list;
    uint32_t n, longest; // longest: tokens
};

bool prompts_load(struct Prompts *p, const struct Loaded *l, const struct Args *args);
void prompts_free(struct Prompts *p);
