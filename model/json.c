// JSON by jansson behind a scan that limits the nesting (jansson recurses) and turns integers beyond 64 bits into reals.
#include "model/json.h"
#include "model/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Before main(): whatever program this is linked into, jansson never answers NULL for want of memory (base.h).
__attribute__((constructor)) static void use_checked_heap(void) { json_set_alloc_funcs(xmalloc, free); }

// What stands at `at` counts as a number's start only outside strings, which the caller knows.
static size_t integer_digits(const char *text, size_t bytes, size_t at) {
    size_t end = at;
    while (end < bytes && text[end] >= '0' && text[end] <= '9')
        end++;
    bool integer = end == bytes || (text[end] != '.' && text[end] != 'e' && text[end] != 'E');
    return integer ? end - at : 0;
}

// Checks the nesting and copies the text with ".0" behind each integer of more than 18 digits (10^18 fits in 64 bits). A '-' or a
// fraction before the digits cannot lead here by mistake: digits after '.' or 'e' are skipped together with their number.
static bool scan(const char *text, size_t bytes, const char *where, char **copy, size_t *copy_bytes) {
    size_t depth = 0, line = 1, used = 0, room = bytes + 64;
    char *out = NULL; // made when the first long integer is met
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        size_t first = i;
        char c = text[i];
        size_t digits = 0;
        if (c == '\n')
            line++;
        if (in_string) {
            if (c == '\\' && i + 1 < bytes)
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_MAX_NESTING) {
                free(out);
                return fail("%s: line %zu: JSON is nested deeper than %d", where, line, JSON_MAX_NESTING);
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        } else if (c >= '0' && c <= '9') {
            digits = integer_digits(text, bytes, i);
            while (i + 1 < bytes && ((text[i + 1] >= '0' && text[i + 1] <= '9') || strchr(".eE+-", text[i + 1])) &&
                   text[i + 1])
                i++;
        }
        if (digits > 18 && !out) {
            out = xmalloc(room);
            memcpy(out, text, first);
            used = first;
        }
        if (out) {
            size_t part = i + 1 - first;
            if (used + part + 2 > room)
                out = xrealloc(out, room = (used + part + 2) * 2);
            memcpy(out + used, text + first, part);
            used += part;
            if (digits > 18) {
                memcpy(out + used, ".0", 2);
                used += 2;
            }
        }
    }
    *copy = out;
    *copy_bytes = used;
    return true;
}

json_t *json_parse(const char *text, size_t bytes, const char *where) {
    char *copy = NULL;
    size_t copy_bytes = 0;
    if (!scan(text, bytes, where, &copy, &copy_bytes))
        return NULL;
    json_error_t error;
    json_t *value =
        json_loadb(copy ? copy : text, copy ? copy_bytes : bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!value)
        fail("%s: line %d, column %d: not valid JSON: %s", where, error.line, error.column, error.text);
    free(copy);
    return value;
}

json_t *json_parse_file(const char *path, uint64_t max_bytes) {
    uint8_t *data;
    uint64_t bytes;
    if (!file_read(path, max_bytes, &data, &bytes))
        return NULL;
    json_t *value = json_parse((const char *)data, bytes, path);
    free(data);
    return value;
}

static const json_t *member(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) ? value : NULL;
}

static const char *type_word(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a truth value";
    default:
        return "null";
    }
}

bool json_get_u32(const json_t *object, const char *key, uint32_t min, uint32_t max, uint32_t *out, const char *where) {
    const json_t *value = member(object, key);
    if (!value)
        return true;
    if (!json_is_integer(value))
        return fail("%s: %s: an integer is expected, %s was found", where, key, type_word(value));
    json_int_t n = json_integer_value(value);
    if (n < (json_int_t)min || n > (json_int_t)max)
        return fail("%s: %s is %lld; %u to %u is expected", where, key, (long long)n, min, max);
    *out = (uint32_t)n;
    return true;
}

bool json_get_float(const json_t *object, const char *key, float min, float max, float *out, const char *where) {
    const json_t *value = member(object, key);
    if (!value)
        return true;
    if (!json_is_number(value))
        return fail("%s: %s: a number is expected, %s was found", where, key, type_word(value));
    double x = json_number_value(value);
    if (!(x >= (double)min && x <= (double)max))
        return fail("%s: %s is %g; %g to %g is expected", where, key, x, (double)min, (double)max);
    *out = (float)x;
    return true;
}

bool json_get_bool(const json_t *object, const char *key, bool *out, const char *where) {
    const json_t *value = member(object, key);
    if (!value)
        return true;
    if (!json_is_boolean(value))
        return fail("%s: %s: true or false is expected, %s was found", where, key, type_word(value));
    *out = json_is_true(value);
    return true;
}

bool json_get_string(const json_t *object, const char *key, const char **out, const char *where) {
    const json_t *value = member(object, key);
    if (!value)
        return true;
    if (!json_is_string(value))
        return fail("%s: %s: a string is expected, %s was found", where, key, type_word(value));
    *out = json_string_value(value);
    return true;
}

json_t *json_repaired(const char *text) {
    size_t bytes;
    char *repaired = utf8_repair(text, strlen(text), &bytes);
    json_t *string = json_stringn(repaired, bytes);
    free(repaired);
    return string;
}

char *json_quote(const char *text, size_t bytes) {
    json_t *string = json_stringn_nocheck(text, bytes);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    if (!quoted) // not UTF-8: bytes as U+FFFD would lie about the text, so the caller gets an empty one
        return xstrdup("\"\"");
    char *copy = xstrdup(quoted);
    free(quoted);
    return copy;
}
