// See card.h.
#include "model/card.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

static void put_yaml(FILE *to, const char *text) {
    char *plain = utf8_harmless(text);
    fputc('"', to);
    for (const char *c = plain; *c; c++)
        fprintf(to, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    fputc('"', to);
    free(plain);
}

// A span of code in a table's cell: its fence is longer than any run of backticks within, and bars are escaped.
static void put_code(FILE *to, const char *text) {
    char *plain = utf8_harmless(text), fence[64];
    size_t run = 0, longest = 0;
    for (const char *c = plain; *c; c++) {
        run = *c == '`' ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    size_t n = longest + 1 < sizeof fence ? longest + 1 : sizeof fence - 1;
    memset(fence, '`', n);
    fence[n] = 0;
    fprintf(to, longest ? "%s " : "%s", fence);
    for (const char *c = plain; *c; c++)
        fprintf(to, *c == '|' ? "\\%c" : "%c", *c);
    fprintf(to, longest ? " %s" : "%s", fence);
    free(plain);
}

void card_begin(struct Card *c, const char *title, const char *base, const char *relation, const char *library,
                const char *tags) {
    *c = (struct Card){.sections = json_object(), .command = json_array()};
    c->to = text_begin(&c->text, &c->bytes);
    fprintf(c->to, "---\nlibrary_name: %s\npipeline_tag: text-generation\n", library);
    if (base) {
        fprintf(c->to, "base_model: ");
        put_yaml(c->to, base);
        fprintf(c->to, "\nbase_model_relation: %s\n", relation);
    }
    fprintf(c->to, "tags:\n- vkmoe\n");
    for (const char *at = tags; *at; at += strcspn(at, ","), at += *at == ',')
        fprintf(c->to, "- %.*s\n", (int)strcspn(at, ","), at);
    fprintf(c->to, "---\n\n# %s\n", title);
}

void card_heading(struct Card *c, const char *heading) {
    fprintf(c->to, "\n## %s\n\n| | |\n|---|---|\n", heading);
    c->facts = json_array();
    json_object_set_new(c->sections, heading, c->facts);
}

void card_fact(struct Card *c, const char *name, const char *format, ...) {
    va_list list;
    va_start(list, format);
    char *value = xvsprintf(format, list);
    va_end(list);
    if (value[0]) {
        fprintf(c->to, "| ");
        put_code(c->to, name);
        fprintf(c->to, " | ");
        put_code(c->to, value);
        fprintf(c->to, " |\n");
        char *plain_name = utf8_harmless(name), *plain = utf8_harmless(value);
        json_array_append_new(c->facts, json_pack("[s, s]", plain_name, plain));
        free(plain_name), free(plain);
    }
    free(value);
}

static void put_word(FILE *to, const char *word) {
    static const char PLAIN[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
    bool odd = false;
    for (const char *c = word; *c; c++)
        odd = odd || (unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f;
    if (*word && strspn(word, PLAIN) == strlen(word)) {
        fprintf(to, "%s", word);
        return;
    }
    fprintf(to, odd ? "$'" : "'");
    for (const char *c = word; *c; c++) {
        unsigned char byte = (unsigned char)*c;
        if (odd && (byte < 0x20 || byte >= 0x7f))
            fprintf(to, "\\x%02x", byte);
        else if (odd)
            fprintf(to, byte == '\'' || byte == '\\' ? "\\%c" : "%c", byte);
        else
            fprintf(to, byte == '\'' ? "'\\''" : "%c", byte);
    }
    fputc('\'', to);
}

static void put_command(FILE *to, const char *heading, const char *const *words, size_t n) {
    if (n == 0)
        return;
    fprintf(to, "\n## %s\n\n    ", heading); // a block that is set in: no fence that a word could end
    for (size_t i = 0; i < n; i++) {
        fprintf(to, i ? " " : "");
        put_word(to, words[i]);
    }
    fprintf(to, "\n");
}

void card_command(struct Card *c, const char *const *words, size_t n) {
    put_command(c->to, "Command", words, n);
    for (size_t i = 0; i < n; i++) {
        char *plain = utf8_harmless(words[i]);
        json_array_append_new(c->command, json_string(plain));
        free(plain);
    }
}

// ---- The record: {"made_with": text, "sections": {heading: [[name, value], ...], ...}, "command": [word, ...]}

bool card_record_read(const char *dir, json_t **record) {
    char *path = path_join(dir, CARD_RECORD);
    *record = NULL;
    bool there = file_exists(path), ok = !there || (*record = json_parse_file(path, 1 << 20));
    if (ok && there && !json_is_object(json_object_get(*record, "sections"))) {
        json_decref(*record);
        *record = NULL;
        ok = fail("%s: is not the record of a training run: it has no sections", path);
    }
    free(path);
    return ok;
}

void card_training(struct Card *c, const json_t *record) {
    static const char *const HEADINGS[][2] = {{"What it is", "Training: what"},
                                              {"Data", "Training: data"},
                                              {"Settings", "Training: settings"},
                                              {"Loss", "Training: loss"}};
    const json_t *sections = json_object_get(record, "sections"), *command = json_object_get(record, "command");
    size_t at, n = json_array_size(command);
    const json_t *fact;
    for (size_t i = 0; i < sizeof HEADINGS / sizeof *HEADINGS; i++) {
        const json_t *facts = json_object_get(sections, HEADINGS[i][0]);
        if (json_array_size(facts) > 0)
            card_heading(c, HEADINGS[i][1]);
        json_array_foreach(facts, at, fact) {
            const char *name = json_string_value(json_array_get(fact, 0));
            const char *value = json_string_value(json_array_get(fact, 1));
            if (name && value)
                card_fact(c, name, "%s", value);
        }
    }
    const char **words = xcalloc(n + 1, sizeof *words);
    for (at = 0; at < n && (words[at] = json_string_value(json_array_get(command, at)));)
        at++;
    put_command(c->to, "Training: command", words, at);
    free(words);
}

static bool record_write(struct Card *c, const char *path) {
    json_t *root = json_pack("{s:s, s:O, s:O}", "made_with", "vkmoe " VKMOE_VERSION, "sections", c->sections, "command",
                             c->command);
    char *text = json_dumps(root, JSON_INDENT(1));
    bool ok = text ? file_write_atomic(path, text, strlen(text)) : fail("%s: cannot be made", path);
    free(text);
    json_decref(root);
    return ok;
}

bool card_end(struct Card *c, const char *path, const char *record) {
    text_end(c->to);
    bool ok = file_write_atomic(path, c->text, c->bytes) && (!record || record_write(c, record));
    json_decref(c->sections);
    json_decref(c->command);
    free(c->text);
    *c = (struct Card){0};
    return ok;
}
