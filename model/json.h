// JSON by jansson, with the rules this project sets for what others wrote: nesting of at most 64, no key twice,
// one clear line when something is wrong. Python's huge integers (model_max_length: 10^30) come as reals.
#pragma once
#include "runtime/base.h"

#include <jansson.h>

enum { JSON_MAX_NESTING = 64 };
// The value, to be released with json_decref(); NULL after a message. `where` names the file.
json_t *json_parse(const char *text, size_t bytes, const char *where);
json_t *json_parse_file(const char *path, uint64_t max_bytes);
// Members of an object. Absent or null: *out keeps its value and the answer is true; another type or a value outside
// the range: false after a message that names file and key.
bool json_get_u32(const json_t *object, const char *key, uint32_t min, uint32_t max, uint32_t *out, const char *where);
bool json_get_float(const json_t *object, const char *key, float min, float max, float *out, const char *where);
bool json_get_bool(const json_t *object, const char *key, bool *out, const char *where);
bool json_get_string(const json_t *object, const char *key, const char **out, const char *where); // owned by the object
// A string of a text that may be no UTF-8, such as a file's name: U+FFFD stands for what is not.
json_t *json_repaired(const char *text);
// Text of a JSON string, with quotes; malloc'ed.
char *json_quote(const char *text, size_t bytes);
