// Model cards: the README.md that Hugging Face shows for a folder. YAML in front, then tables of facts that the program knows; nothing is said that was not
// measured or given. Names and texts of users come out harmless: control characters and those that turn the direction of writing as U+FFFD, in
// YAML as quoted strings, in Markdown as code.
#pragma once
#include "runtime/base.h"

struct Card {
    FILE *to; // text, bytes
    char *text;
    size_t bytes;
};
// base: of base_model; NULL: there is none. relation: "finetune", "adapter", "merge". library: "transformers" or "peft". tags: by commas.
void card_begin(struct Card *c, const char *title, const char *base, const char *relation, const char *library,
                const char *tags);
void card_heading(struct Card *c, const char *heading);
// A row of a table, which begins behind a heading.
void card_fact(struct Card *c, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
// The words of a command line, quoted as a shell wants them.
void card_command(struct Card *c, const char *const *words, size_t n);
// Writes dir/README.md and frees what the card holds.
bool card_end(struct Card *c, const char *dir);
