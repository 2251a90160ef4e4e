// Bytes come from a file or from memory, perhaps through zlib, into one buffer that holds the record in hand; four ways to find a record's end.
#include "train/source.h"
#include "model/json.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

enum { RECORD_MAX_BYTES = 100000000, GZIP_CHUNK = 1 << 16, CSV_MAX_FIELDS = 4096, TEXT_LOOK_BYTES = 1 << 20 };

struct Gzip {
    z_stream z;
    bool between; // members of the file: the next one begins, or the file ends
    uint8_t in[GZIP_CHUNK];
};

// ---- Bytes ----

// 0: the end, or s->failed after a message.
static size_t read_plain(struct Source *s, void *out, size_t room) {
    if (s->file) {
        size_t n = fread(out, 1, room, s->file);
        if (n == 0 && ferror(s->file)) {
            s->failed = true;
            fail("%s: cannot be read: %s", s->path, strerror(errno));
        }
        s->bytes_read += n;
        sha256_add(&s->sha256, out, n);
        return n;
    }
    size_t n = min_u64(room, s->memory_left);
    if (n == 0)
        return 0;
    memcpy(out, s->memory, n);
    s->memory += n;
    s->memory_left -= n;
    return n;
}

// A file may be several members behind each other, as `cat a.gz b.gz` makes it.
static size_t read_gzip(struct Source *s, char *out, size_t room) {
    struct Gzip *g = s->gzip;
    g->z.next_out = (Bytef *)out;
    g->z.avail_out = (uInt)min_u64(room, 1 << 30);
    size_t given = g->z.avail_out;
    while (g->z.avail_out == given) {
        if (g->z.avail_in == 0) {
            g->z.next_in = g->in;
            g->z.avail_in = (uInt)read_plain(s, g->in, sizeof g->in);
            if (g->z.avail_in == 0 && !g->between && !s->failed) {
                s->failed = true;
                fail("%s: the gzip data end in the middle: the file is cut off", s->path);
            }
            if (g->z.avail_in == 0)
                return 0;
        }
        if (g->between)
            inflateReset(&g->z);
        g->between = false;
        int status = inflate(&g->z, Z_NO_FLUSH);
        g->between = status == Z_STREAM_END;
        if (status != Z_OK && status != Z_STREAM_END) {
            s->failed = true;
            fail("%s: the gzip data are damaged: %s", s->path, g->z.msg ? g->z.msg : zError(status));
            return 0;
        }
    }
    return given - g->z.avail_out;
}

// Reads on behind `end`; what is not given out moves to the front. False after a message; at the end of the file s->ended.
static bool fill(struct Source *s) {
    size_t have = s->end - s->begin;
    if (s->failed)
        return false;
    if (have > RECORD_MAX_BYTES)
        return fail("%s:%u: more than %d bytes in one %s", s->path, s->line, RECORD_MAX_BYTES,
                    s->kind == SOURCE_LINES   ? "line"
                    : s->kind == SOURCE_ARRAY ? "object"
                    : s->kind == SOURCE_TEXT  ? "document"
                                              : "row");
    if (s->begin)
        memmove(s->buffer, s->buffer + s->begin, have);
    s->begin = 0;
    s->end = have;
    if (s->end == s->capacity)
        s->buffer = xrealloc(s->buffer, s->capacity *= 2);
    size_t room = s->capacity - s->end;
    size_t n = s->gzip ? read_gzip(s, s->buffer + s->end, room) : read_plain(s, s->buffer + s->end, room);
    s->end += n;
    s->ended = n == 0 && !s->failed;
    return !s->failed;
}

static bool fill_to(struct Source *s, size_t bytes) {
    while (s->end - s->begin < bytes && !s->ended)
        if (!fill(s))
            return false;
    return true;
}

// What was read so far is the beginning of a gzip file: it goes to zlib.
static bool gzip_begin(struct Source *s) {
    struct Gzip *g = s->gzip = xcalloc(1, sizeof *g);
    memcpy(g->in, s->buffer, s->end);
    g->z.next_in = g->in;
    g->z.avail_in = (uInt)s->end;
    s->end = 0;
    s->ended = false;
    int status = inflateInit2(&g->z, 15 + 16);
    if (status == Z_MEM_ERROR)
        heap_exhausted(0);
    return status == Z_OK || fail("%s: zlib: %s", s->path, g->z.msg ? g->z.msg : "another version");
}

// ---- Records ----

// The byte at `begin`; -1 at the end of the file or after a message.
static int peek(struct Source *s) {
    while (s->begin == s->end && !s->ended)
        if (!fill(s))
            return -1;
    return s->begin == s->end ? -1 : (uint8_t)s->buffer[s->begin];
}

static int peek_past(struct Source *s, const char *blanks) {
    int c;
    while ((c = peek(s)) > 0 && strchr(blanks, c)) {
        s->line += c == '\n';
        s->begin++;
    }
    return c;
}

// The next line that is not blank, without its end.
static bool next_line(struct Source *s, struct SourceRecord *r) {
    size_t searched = 0;
    if (peek_past(s, " \t\r\n") < 0)
        return s->ended;
    for (;;) {
        char *from = s->buffer + s->begin, *feed = memchr(from + searched, '\n', s->end - s->begin - searched);
        searched = s->end - s->begin;
        if (!feed && !s->ended) {
            if (!fill(s))
                return false;
            continue;
        }
        r->text = from;
        r->bytes = feed ? (size_t)(feed - from) : searched;
        r->line = s->line;
        s->begin += r->bytes; // the line feed is the next call's to count
        r->bytes -= r->bytes && from[r->bytes - 1] == '\r';
        return true;
    }
}

// The next object of the array. Strings and brackets are followed to its end; the rest is the JSON reader's.
static bool next_object(struct Source *s, struct SourceRecord *r) {
    static const char blanks[] = " \t\r\n";
    int c = peek_past(s, blanks);
    if (c == ',' && s->records) {
        s->begin++;
        c = peek_past(s, blanks);
    } else if (c == ']') {
        s->begin++;
        return peek_past(s, blanks) < 0 ? s->ended : fail("%s:%u: more text behind the array", s->path, s->line);
    } else if (s->records && (c >= 0 || s->ended)) {
        return fail("%s:%u: ',' or ']' is expected behind record %u of the array", s->path, s->line, s->records);
    }
    if (c != '{')
        return c < 0 && !s->ended
                   ? false
                   : fail("%s:%u (record %u): an object of the array is expected", s->path, s->line, s->records + 1);
    size_t n = 0, depth = 0, feeds = 0;
    bool in_string = false, escaped = false;
    do {
        if (s->begin + n == s->end && !fill_to(s, n + 1))
            return false;
        if (s->begin + n == s->end)
            return fail("%s:%u (record %u): the object that begins here has no end", s->path, s->line, s->records + 1);
        char byte = s->buffer[s->begin + n++];
        feeds += byte == '\n';
        if (in_string) {
            in_string = escaped || byte != '"';
            escaped = !escaped && byte == '\\';
        } else {
            in_string = byte == '"';
            depth += byte == '{' || byte == '[';
            depth -= byte == '}' || byte == ']';
        }
    } while (depth);
    *r = (struct SourceRecord){s->buffer + s->begin, n, s->line, ++s->records};
    s->begin += n;
    s->line += (uint32_t)feeds;
    return true;
}

// The next row that is not empty. A quote opens a field only as its first byte: one elsewhere is the row's fault and does not take the rows
// behind it along.
static bool next_row(struct Source *s, struct SourceRecord *r) {
    enum { START, PLAIN, QUOTED, CLOSED } field = START;
    size_t n = 0, feeds = 0;
    if (peek_past(s, "\r\n") < 0)
        return s->ended;
    for (;; n++) {
        if (s->begin + n == s->end && !fill_to(s, n + 1))
            return false;
        if (s->begin + n == s->end)
            break;
        char byte = s->buffer[s->begin + n];
        if (byte == '\n' && field != QUOTED)
            break;
        feeds += byte == '\n';
        if (byte == '"' && field != PLAIN)
            field = field == QUOTED ? CLOSED : QUOTED;
        else if (field != QUOTED)
            field = byte == ',' ? START : PLAIN;
    }
    if (field == QUOTED)
        return fail("%s:%u: a quoted field of the row that begins here has no end", s->path, s->line);
    *r = (struct SourceRecord){s->buffer + s->begin, n, s->line, 0};
    s->begin += n; // the line feed is the next call's to count
    s->line += (uint32_t)feeds;
    r->bytes -= r->bytes && r->text[r->bytes - 1] == '\r';
    return true;
}

// The next document that is not empty, without the white space round it.
static bool next_document(struct Source *s, struct SourceRecord *r) {
    static const char blanks[] = " \t\r\n";
    const size_t mark = strlen(SOURCE_TEXT_MARK);
    for (;;) {
        if (peek_past(s, blanks) < 0)
            return s->ended;
        size_t n = 0, end = 0, feeds = 0; // end: what stands before the mark or the blank line
        bool found = false, blank = false;
        while (!found) {
            if (s->begin + n == s->end && !fill_to(s, n + 1))
                return false;
            if (s->begin + n == s->end)
                break;
            const char *from = s->buffer + s->begin;
            char byte = from[n++];
            found =
                s->marked ? n >= mark && memcmp(from + n - mark, SOURCE_TEXT_MARK, mark) == 0 : byte == '\n' && blank;
            blank = byte == '\n' || (blank && byte && strchr(blanks, byte));
            feeds += byte == '\n';
        }
        *r = (struct SourceRecord){s->buffer + s->begin, 0, s->line, 0};
        end = found && s->marked ? n - mark : n;
        while (end && r->text[end - 1] && strchr(blanks, r->text[end - 1]))
            end--;
        s->begin += n;
        s->line += (uint32_t)feeds;
        r->bytes = end;
        if (end)
            return true;
        r->text = NULL;
    }
}

bool source_next(struct Source *s, struct SourceRecord *r) {
    *r = (struct SourceRecord){0};
    if (s->failed)
        return false;
    switch (s->kind) {
    case SOURCE_LINES:
        return next_line(s, r);
    case SOURCE_ARRAY:
        return next_object(s, r);
    case SOURCE_CSV:
        return next_row(s, r);
    case SOURCE_TEXT:
        return next_document(s, r);
    }
    return false;
}

// ---- Values ----

static bool check_text(const struct SourceRecord *r, const char *where) {
    size_t bad;
    const char *zero = memchr(r->text, 0, r->bytes);
    if (zero)
        return fail("%s: a 0 byte at column %zu (is it UTF-16? UTF-8 is expected)", where,
                    (size_t)(zero - r->text) + 1);
    return utf8_valid(r->text, r->bytes, &bad) ||
           fail("%s: not UTF-8 at column %zu (byte 0x%02x)", where, bad + 1, (uint8_t)r->text[bad]);
}

// The field that begins at *at, without its quotes; *at goes to the comma behind it or to the end. NULL after a message.
static json_t *csv_field(const struct SourceRecord *r, size_t *at, char *out, const char *where) {
    const char *text = r->text;
    size_t i = *at, n = 0;
    if (i < r->bytes && text[i] == '"') {
        for (i++; i < r->bytes && (text[i] != '"' || (i + 1 < r->bytes && text[i + 1] == '"')); i++) {
            i += text[i] == '"';
            out[n++] = text[i];
        }
        i++;
        if (i < r->bytes && text[i] != ',')
            return fail("%s: text behind a quoted field, at byte %zu of the row", where, i + 1), NULL;
    } else {
        for (; i < r->bytes && text[i] != ','; i++) {
            if (text[i] == '"')
                return fail("%s: a quote within a field that is not quoted, at byte %zu of the row", where, i + 1),
                       NULL;
            out[n++] = text[i];
        }
    }
    *at = i;
    return json_stringn(out, n);
}

// Its fields as an array of texts; NULL after a message.
static json_t *csv_fields(const struct SourceRecord *r, const char *where) {
    json_t *fields = json_array();
    char *out = xmalloc(r->bytes + 1);
    for (size_t at = 0;; at++) {
        json_t *field = csv_field(r, &at, out, where);
        if (field && json_array_size(fields) == CSV_MAX_FIELDS) {
            json_decref(field);
            field = NULL;
            fail("%s: more than %d fields in one row", where, CSV_MAX_FIELDS);
        }
        if (!field) {
            json_decref(fields);
            fields = NULL;
            break;
        }
        json_array_append_new(fields, field);
        if (at >= r->bytes)
            break;
    }
    free(out);
    return fields;
}

static json_t *csv_object(const struct Source *s, const struct SourceRecord *r, const char *where) {
    json_t *fields = csv_fields(r, where), *object = NULL;
    size_t n = json_array_size(fields), wanted = json_array_size(s->columns);
    if (fields && n != wanted)
        fail("%s: %zu fields where the header has %zu", where, n, wanted);
    else if (fields) {
        object = json_object();
        for (size_t i = 0; i < n; i++)
            json_object_set(object, json_string_value(json_array_get(s->columns, i)), json_array_get(fields, i));
    }
    json_decref(fields);
    return object;
}

static bool csv_header(struct Source *s) {
    struct SourceRecord r;
    char where[512];
    if (!source_next(s, &r))
        return false;
    snprintf(where, sizeof where, "%.400s:%u (the header)", s->path, r.line);
    if (!r.text)
        return true; // an empty file: there is no record either
    if (!check_text(&r, where) || !(s->columns = csv_fields(&r, where)))
        return false;
    for (size_t i = 0; i < json_array_size(s->columns); i++) {
        const char *name = json_string_value(json_array_get(s->columns, i));
        if (*name == 0)
            return fail("%s: column %zu has no name", where, i + 1);
        for (size_t k = 0; k < i; k++)
            if (strcmp(name, json_string_value(json_array_get(s->columns, k))) == 0)
                return fail("%s: two columns are called '%.40s'", where, name);
    }
    return true;
}

json_t *source_value(const struct Source *s, const struct SourceRecord *r, const char *where) {
    if (!check_text(r, where))
        return NULL;
    if (s->kind == SOURCE_TEXT)
        return json_pack("{s:s%}", "text", r->text, r->bytes);
    return s->kind == SOURCE_CSV ? csv_object(s, r, where) : json_parse(r->text, r->bytes, where);
}

// ---- Begin and end ----

static bool is_called(const char *text, const char *end) { // in capitals too
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

static bool begin(struct Source *s) {
    s->buffer = xmalloc(s->capacity = GZIP_CHUNK);
    s->line = 1;
    if (!fill_to(s, 3))
        return false;
    if (s->end >= 2 && memcmp(s->buffer, "\x1f\x8b", 2) == 0 && (!gzip_begin(s) || !fill_to(s, 3)))
        return false;
    if (s->end >= 2 && (memcmp(s->buffer, "\xff\xfe", 2) == 0 || memcmp(s->buffer, "\xfe\xff", 2) == 0))
        return fail("%s: begins as UTF-16; UTF-8 is expected", s->path);
    if (s->end >= 3 && memcmp(s->buffer, "\xef\xbb\xbf", 3) == 0)
        s->begin = 3;
    if (is_called(s->path, ".csv") || is_called(s->path, ".csv.gz")) {
        s->kind = SOURCE_CSV;
        return csv_header(s);
    }
    if (is_called(s->path, ".txt") || is_called(s->path, ".txt.gz")) {
        s->kind = SOURCE_TEXT;
        if (!fill_to(s, TEXT_LOOK_BYTES))
            return false;
        s->marked = memmem(s->buffer + s->begin, min_u64(s->end - s->begin, TEXT_LOOK_BYTES), SOURCE_TEXT_MARK,
                           strlen(SOURCE_TEXT_MARK));
        return true;
    }
    static const struct {
        const char *magic, *name;
    } others[] = {
        {"PAR1", "Parquet"}, {"ARROW1", "Arrow"}, {"FEA1", "Feather"}, {"\xff\xff\xff\xff", "Arrow's stream"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t n = strlen(others[i].magic);
        if (!fill_to(s, n))
            return false;
        if (s->end - s->begin >= n && memcmp(s->buffer + s->begin, others[i].magic, n) == 0)
            return fail("%s: a file of %s, which is not read: export it as JSON lines", s->path, others[i].name);
    }
    if (is_called(s->path, ".tsv") || is_called(s->path, ".tsv.gz"))
        return fail("%s: values between tabs are not read: export it as CSV or as JSON lines", s->path);
    if (peek_past(s, " \t\r\n") == '[') {
        s->kind = SOURCE_ARRAY;
        s->begin++;
    }
    return !s->failed;
}

bool source_open(struct Source *s, const char *path) {
    *s = (struct Source){.path = path, .file = fopen(path, "rb")};
    sha256_begin(&s->sha256);
    if (!s->file)
        return fail("%s: cannot be opened: %s", path, strerror(errno));
    if (begin(s))
        return true;
    source_close(s);
    return false;
}

bool source_open_memory(struct Source *s, const char *text, size_t bytes, const char *path) {
    *s = (struct Source){.path = path, .memory = text, .memory_left = bytes};
    if (begin(s))
        return true;
    source_close(s);
    return false;
}

void source_close(struct Source *s) {
    if (s->gzip)
        inflateEnd(&s->gzip->z);
    if (s->file)
        fclose(s->file);
    json_decref(s->columns);
    free(s->gzip);
    free(s->buffer);
    *s = (struct Source){0};
}
