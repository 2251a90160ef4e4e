// Model cards: the README.md that Hugging Face shows for a folder. YAML in front, then tables of facts that the program knows; nothing is said that was not
// measured or given. Names and texts of users come out harmless: control characters and those that turn the direction of writing as U+FFFD, in
// YAML as quoted strings, in Markdown as code.
#pragma once
#include "model/json.h"

// Beside the card of a training run lies its record: the same facts and the command as JSON, for the cards of what is made from its result.
#define CARD_RECORD "recipe.json"

struct Card {
    FILE *to; // text, bytes
    char *text;
    size_t bytes;
    json_t *sections, *facts, *command; // of the record; facts: of the last heading
};
// base: of base_model; NULL: there is none. relation: "finetune", "adapter", "merge". library: "transformers" or "peft". tags: by commas.
void card_begin(struct Card *c, const char *title, const char *base, const char *relation, const char *library,
                const char *tags);
void card_heading(struct Card *c, const char *heading);
// A row of a table, which begins behind a heading.
void card_fact(struct Card *c, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
// The words of a command line, quoted as a shell wants them.
void card_command(struct Card *c, const char *const *words, size_t n);
// The record of the run whose result lies in `dir`, to be released with json_decref(); NULL where there is none. False after a message.
bool card_record_read(const char *dir, json_t **record);
// What a record says of data, settings, losses and command.
void card_training(struct Card *c, const json_t *record);
// Writes the card to `path`, the record to `record` (NULL: nowhere), and frees what the card holds.
bool card_end(struct Card *c, const char *path, const char *record);
