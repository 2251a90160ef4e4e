// Records of a data file, each a JSON object, whatever the file's form; and texts with places that are filled from a record.
#pragma once
#include "eval/container.h"
#include "eval/text.h"
#include "model/json.h"

enum RecordKind { RECORDS_JSONL, RECORDS_JSON, RECORDS_CSV, RECORDS_TSV, RECORDS_LINES };
struct RecordForm {
    enum RecordKind kind;
    const char *columns; // of csv and tsv without a heading line: names by blanks; NULL: the first line has them
    const char *
        at; // of json: the path where the list stands ("examples"); "*": the members of an object; NULL: the value itself
    const char *
        each; // arrays of equal length, by blanks: a record becomes one per element, "part" being its number; NULL: none
};
bool record_kind_find(const char *name, enum RecordKind *kind);

struct Record {
    json_t *value;
    char *where; // "file:line"
};
struct Records {
    struct Record *list;
    size_t n;
};
// Appends those of a file. Lines of a `lines` file become {"line": text}. False after a message with file and line.
bool records_read(struct Records *r, const struct DataFile *f, const struct RecordForm *form);
void records_free(struct Records *r);

// The value at a path ("question.choices.0.text"), or NULL.
const json_t *field_find(const json_t *record, const char *path, size_t bytes);
// "question.choices[].text": the texts of a list. False after a message.
bool field_list(const struct Record *r, const char *path, char ***texts, uint32_t *n);
void field_list_free(char **texts, uint32_t n);

// Names beside the record's own fields.
struct FieldExtra {
    const char *name, *text;
};
// Appends the text with {path|filter|...} replaced. Filters: strip, capitalise (first letter large, the others small), lower, words (blanks for
// underscores), lines (a list, an element a line). \n is a new line, \s a blank, and a backslash makes what follows plain. Names in `extra`, up to one
// with name NULL, win over the record's. False after a message.
bool field_fill(struct Text *out, const char *text, const struct Record *r, const struct FieldExtra *extra);
