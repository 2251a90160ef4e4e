// See records.h.
#include "eval/records.h"
#include "model/utf8.h"
#include <stdlib.h>
#include <string.h>

bool record_kind_find(const char *name, enum RecordKind *kind) {
    static const char *const NAMES[] = {"jsonl", "json", "csv", "tsv", "lines"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, NAMES[i]) == 0) {
            *kind = (enum RecordKind)i;
            return true;
        }
    return false;
}

// Takes both over.
static void add(struct Records *r, json_t *value, char *where) {
    if ((r->n & (r->n - 1)) == 0)
        r->list = xrealloc(r->list, (r->n ? 2 * r->n : 1) * sizeof *r->list);
    r->list[r->n++] = (struct Record){value, where};
}

void records_free(struct Records *r) {
    for (size_t i = 0; i < r->n; i++) {
        json_decref(r->list[i].value);
        free(r->list[i].where);
    }
    free(r->list);
    *r = (struct Records){0};
}

// ---- JSON

// A record that holds lists of equal length, one element for each question say, becomes a record per element. Elements that are objects lend
// their members.
static bool add_parts(struct Records *r, json_t *value, const char *where, const char *each) {
    char *names = xstrdup(each), *save = NULL;
    size_t n = SIZE_MAX;
    bool ok = true;
    for (char *name = strtok_r(names, " ", &save); ok && name; name = strtok_r(NULL, " ", &save)) {
        const json_t *list = json_object_get(value, name);
        if (!json_is_array(list))
            ok = fail("%s: the record has no list \"%s\"", where, name);
        else if (n != SIZE_MAX && n != json_array_size(list))
            ok = fail("%s: \"%s\" has %zu elements where the lists beside it have %zu", where, name,
                      json_array_size(list), n);
        else
            n = json_array_size(list);
    }
    for (size_t i = 0; ok && i < n; i++) {
        json_t *part = json_copy(value);
        strcpy(names, each);
        for (char *name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
            json_t *element = json_array_get(json_object_get(value, name), i);
            if (json_is_object(element))
                json_object_update(part, element);
            else
                json_object_set(part, name, element);
        }
        json_object_set_new(part, "part", json_integer((json_int_t)i));
        add(r, part, xsprintf("%s: part %zu", where, i + 1));
    }
    free(names);
    return ok;
}

static bool add_object(struct Records *r, json_t *value, const char *where, const struct RecordForm *form) {
    if (!json_is_object(value))
        return fail("%s: an object is expected", where);
    if (form->each)
        return add_parts(r, value, where, form->each);
    add(r, json_incref(value), xstrdup(where));
    return true;
}

static bool read_json(struct Records *r, const struct DataFile *f, const struct RecordForm *form) {
    json_t *root = json_parse(f->data, f->bytes, f->name), *list = root;
    bool ok = root != NULL;
    bool members = form->at && strcmp(form->at, "*") == 0;
    if (ok && form->at && !members) {
        list = (json_t *)(uintptr_t)field_find(root, form->at, strlen(form->at));
        if (!json_is_array(list))
            ok = fail("%s: there is no list \"%s\"", f->name, form->at);
    }
    if (ok && members && !json_is_object(root))
        ok = fail("%s: an object is expected", f->name);
    const char *key;
    json_t *value;
    size_t i;
    if (ok && members) {
        json_object_foreach(root, key, value) {
            char *where = xsprintf("%s: %s", f->name, key);
            ok = ok && add_object(r, value, where, form);
            free(where);
        }
    } else if (ok && json_is_array(list)) {
        json_array_foreach(list, i, value) {
            char *where = xsprintf("%s: record %zu", f->name, i + 1);
            ok = ok && add_object(r, value, where, form);
            free(where);
        }
    } else if (ok) {
        ok = add_object(r, root, f->name, form);
    }
    json_decref(root);
    return ok;
}

// ---- Lines

static bool read_line(struct Records *r, const char *line, size_t bytes, const char *where,
                      const struct RecordForm *form) {
    if (form->kind == RECORDS_LINES) {
        if (!utf8_valid(line, bytes, NULL))
            return fail("%s: is not UTF-8", where);
        add(r, json_pack("{s:s%}", "line", line, bytes), xstrdup(where));
        return true;
    }
    json_t *value = json_parse(line, bytes, where);
    bool ok = value && add_object(r, value, where, form);
    json_decref(value);
    return ok;
}

static bool read_lines(struct Records *r, const struct DataFile *f, const struct RecordForm *form) {
    size_t line = 0;
    bool ok = true;
    for (size_t at = 0; ok && at < f->bytes;) {
        const char *end = memchr(f->data + at, '\n', f->bytes - at);
        size_t next = end ? (size_t)(end - f->data) + 1 : f->bytes, n = next - at - (end ? 1 : 0);
        while (n > 0 && (f->data[at + n - 1] == '\r' || f->data[at + n - 1] == ' '))
            n--;
        char *where = xsprintf("%s:%zu", f->name, ++line);
        if (n > 0)
            ok = read_line(r, f->data + at, n, where, form);
        free(where);
        at = next;
    }
    return ok;
}

// ---- Tables

struct Table {
    const struct DataFile *f;
    size_t at, line;
    char separator;
    char **cells; // of the row at hand
    uint32_t n;
};

static void cells_free(struct Table *t) {
    field_list_free(t->cells, t->n);
    t->cells = NULL;
    t->n = 0;
}

// A cell in quotes may hold separators, new lines and, doubled, quotes (RFC 4180).
static bool read_cell(struct Table *t, struct Text *cell) {
    const char *data = t->f->data;
    size_t bytes = t->f->bytes, began = t->line;
    if (t->separator == ',' && t->at < bytes && data[t->at] == '"') {
        for (t->at++;; t->at++) {
            if (t->at >= bytes)
                return fail("%s:%zu: a quote is opened and never closed", t->f->name, began);
            t->line += data[t->at] == '\n';
            if (data[t->at] == '"' && ++t->at && (t->at >= bytes || data[t->at] != '"'))
                break; // behind the closing quote; else a doubled one, of which one stays
            text_add(cell, data + t->at, 1);
        }
    }
    size_t from = t->at;
    while (t->at < bytes && data[t->at] != t->separator && data[t->at] != '\n')
        t->at++;
    size_t n = t->at - from;
    while (n > 0 && data[from + n - 1] == '\r' && (t->at == bytes || data[t->at] == '\n'))
        n--;
    text_add(cell, data + from, n);
    return utf8_valid(cell->text, cell->bytes, NULL) || fail("%s:%zu: is not UTF-8", t->f->name, began);
}

enum { MAX_COLUMNS = 4096 };

static bool read_row(struct Table *t) {
    cells_free(t);
    for (bool more = true; more;) {
        struct Text cell = {0};
        if (t->n == MAX_COLUMNS)
            return fail("%s:%zu: has more than %d columns", t->f->name, t->line, MAX_COLUMNS);
        if (!read_cell(t, &cell)) {
            text_free(&cell);
            return false;
        }
        if ((t->n & (t->n - 1)) == 0)
            t->cells = xrealloc(t->cells, (t->n ? 2 * t->n : 1) * sizeof *t->cells);
        t->cells[t->n++] = text_take(&cell);
        more = t->at < t->f->bytes && t->f->data[t->at] == t->separator;
        t->line += t->at < t->f->bytes && t->f->data[t->at] == '\n';
        t->at += t->at < t->f->bytes;
    }
    return true;
}

static bool read_names(struct Table *t, const struct RecordForm *form, char ***names, uint32_t *n) {
    if (!form->columns) {
        if (t->at >= t->f->bytes)
            return fail("%s: is empty; a heading line is expected", t->f->name);
        if (!read_row(t))
            return false;
        *names = t->cells;
        *n = t->n;
        t->cells = NULL;
        t->n = 0;
        return true;
    }
    char *copy = xstrdup(form->columns), *save = NULL;
    for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
        *names = xrealloc(*names, (*n + 1) * sizeof **names);
        (*names)[(*n)++] = xstrdup(name);
    }
    free(copy);
    return true;
}

static bool read_table(struct Records *r, const struct DataFile *f, const struct RecordForm *form) {
    struct Table t = {.f = f, .line = 1, .separator = form->kind == RECORDS_TSV ? '\t' : ','};
    char **names = NULL;
    uint32_t n = 0;
    if (f->bytes >= 3 && memcmp(f->data, "\xef\xbb\xbf", 3) == 0)
        t.at = 3;
    bool ok = read_names(&t, form, &names, &n);
    while (ok && t.at < f->bytes) {
        size_t line = t.line;
        ok = read_row(&t);
        if (ok && t.n == 1 && t.cells[0][0] == 0)
            continue; // an empty line
        if (ok && t.n != n)
            ok = fail("%s:%zu: has %u columns, %u are expected", f->name, line, t.n, n);
        json_t *row = ok ? json_object() : NULL;
        for (uint32_t i = 0; ok && i < n; i++)
            json_object_set_new(row, names[i], json_string(t.cells[i]));
        if (ok)
            add(r, row, xsprintf("%s:%zu", f->name, line));
    }
    cells_free(&t);
    field_list_free(names, n);
    return ok;
}

bool records_read(struct Records *r, const struct DataFile *f, const struct RecordForm *form) {
    switch (form->kind) {
    case RECORDS_JSON:
        return read_json(r, f, form);
    case RECORDS_CSV:
    case RECORDS_TSV:
        return read_table(r, f, form);
    default:
        return read_lines(r, f, form);
    }
}

// ---- Fields

const json_t *field_find(const json_t *record, const char *path, size_t bytes) {
    const json_t *value = record;
    for (size_t at = 0; value && at <= bytes;) {
        size_t n = 0;
        while (at + n < bytes && path[at + n] != '.')
            n++;
        if (json_is_array(value)) {
            char *end;
            unsigned long index = strtoul(path + at, &end, 10);
            value = n > 0 && end == path + at + n ? json_array_get(value, index) : NULL;
        } else {
            value = json_object_getn(value, path + at, n);
        }
        at += n + 1;
    }
    return value;
}

// NULL where it is no text, number or truth value.
static char *text_of(const json_t *value) {
    if (json_is_string(value))
        return xstrdup(json_string_value(value));
    if (json_is_integer(value))
        return xsprintf("%lld", (long long)json_integer_value(value));
    if (json_is_real(value))
        return xsprintf("%.15g", json_real_value(value));
    return json_is_boolean(value) ? xstrdup(json_is_true(value) ? "true" : "false") : NULL;
}

bool field_list(const struct Record *r, const char *path, char ***texts, uint32_t *n) {
    const char *inside = strstr(path, "[].");
    size_t bytes = inside ? (size_t)(inside - path) : strlen(path);
    const json_t *list = field_find(r->value, path, bytes), *value;
    *texts = NULL;
    *n = 0;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return fail("%s: the record has no list \"%.*s\"", r->where, (int)bytes, path);
    *texts = xcalloc(json_array_size(list), sizeof **texts);
    size_t i;
    json_array_foreach(list, i, value) {
        char *text = text_of(inside ? field_find(value, inside + 3, strlen(inside + 3)) : value);
        if (!text) {
            field_list_free(*texts, *n);
            *texts = NULL;
            *n = 0;
            return fail("%s: element %zu of \"%s\" is no text", r->where, i + 1, path);
        }
        (*texts)[(*n)++] = text;
    }
    return true;
}

void field_list_free(char **texts, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts);
}

static char *joined(const json_t *list) {
    struct Text out = {0};
    size_t i;
    const json_t *value;
    json_array_foreach(list, i, value) {
        char *text = text_of(value);
        if (i)
            text_add(&out, "\n", 1);
        text_add_string(&out, text ? text : "");
        free(text);
    }
    return text_take(&out);
}

static bool filtered(char **text, const char *filter, size_t bytes, const char *where) {
    char *old = *text;
    if (bytes == 5 && memcmp(filter, "strip", 5) == 0) {
        *text = text_strip(old, strlen(old));
    } else if (bytes == 5 && memcmp(filter, "lower", 5) == 0) {
        *text = text_lower(old);
    } else if (bytes == 10 && memcmp(filter, "capitalise", 10) == 0) {
        *text = text_lower(old);
        if (**text >= 'a' && **text <= 'z')
            **text -= 'a' - 'A';
    } else if (bytes == 5 && memcmp(filter, "words", 5) == 0) {
        *text = xstrdup(old);
        for (char *c = *text; *c; c++)
            if (*c == '_')
                *c = ' ';
    } else {
        return fail("%s: there is no filter \"%.*s\"", where, (int)bytes, filter);
    }
    free(old);
    return true;
}

// The text of "path|filter|...".
static char *place_text(const char *place, size_t bytes, const struct Record *r, const struct FieldExtra *extra) {
    const char *bar = memchr(place, '|', bytes), *end = place + bytes;
    size_t n = bar ? (size_t)(bar - place) : bytes;
    char *text = NULL;
    for (; extra && extra->name && !text; extra++)
        if (strlen(extra->name) == n && memcmp(extra->name, place, n) == 0 && extra->text)
            text = xstrdup(extra->text);
    const json_t *value = text ? NULL : field_find(r->value, place, n);
    bool list = bar && end - bar >= 6 && memcmp(bar, "|lines", 6) == 0;
    if (!text)
        text = list && json_is_array(value) ? joined(value) : text_of(value);
    if (list)
        bar = memchr(bar + 1, '|', (size_t)(end - bar - 1));
    if (!text)
        fail("%s: the record has no text \"%.*s\"", r->where, (int)n, place);
    while (text && bar) {
        const char *next = memchr(bar + 1, '|', (size_t)(end - bar - 1));
        if (!filtered(&text, bar + 1, (size_t)((next ? next : end) - bar - 1), r->where)) {
            free(text);
            return NULL;
        }
        bar = next;
    }
    return text;
}

bool field_fill(struct Text *out, const char *text, const struct Record *r, const struct FieldExtra *extra) {
    for (const char *c = text; *c; c++) {
        if (*c == '\\' && c[1]) {
            c++;
            text_add(out, *c == 'n' ? "\n" : *c == 's' ? " " : c, 1);
        } else if (*c == '{') {
            const char *end = strchr(c, '}');
            if (!end)
                return fail("%s: a place is opened by { and never closed; \\{ is the sign itself", r->where);
            char *filled = place_text(c + 1, (size_t)(end - c - 1), r, extra);
            if (!filled)
                return false;
            text_add_string(out, filled);
            free(filled);
            c = end;
        } else {
            text_add(out, c, 1);
        }
    }
    return true;
}
