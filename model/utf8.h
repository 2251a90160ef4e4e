// UTF-8: one strict decoder, and the rule for bytes that are not UTF-8: each longest prefix of a valid sequence, or
// each single wrong byte, becomes U+FFFD, as Python's bytes.decode("utf-8", "replace") and so Hugging Face's users do.
#pragma once
#include "runtime/base.h"

// Length (1 to 4) of the valid character at text[0], or 0. Overlong forms, surrogates and values above U+10FFFF are not valid.
unsigned utf8_char(const char *text, size_t bytes, uint32_t *code_point);
// Bytes of the longest wrong sequence at text[0] (1 to 3), where utf8_char gave 0. *whole is false when the text ends in the
// middle of a character that more bytes could still complete.
unsigned utf8_bad(const char *text, size_t bytes, bool *whole);
bool utf8_valid(const char *text, size_t bytes, size_t *bad_offset); // bad_offset may be NULL
// A malloc'ed copy with U+FFFD for what is not UTF-8; a 0 byte follows. *out_bytes may be larger than bytes.
char *utf8_repair(const char *text, size_t bytes, size_t *out_bytes);
// A malloc'ed copy of a text from a file that is UTF-8, with U+FFFD for characters that would drive a terminal, end a line or turn the writing.
char *utf8_harmless(const char *text);
// Unicode's White_Space property.
bool unicode_is_white(uint32_t code_point);
