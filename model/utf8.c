// The decoder follows the Unicode standard's table of well-formed sequences (table 3-7), which also says where a wrong
// sequence ends: after the longest prefix that could still have become a character.
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

// Length the first byte announces, and the range its second byte must be in; 0 when no character begins so.
static unsigned first_byte(uint8_t byte, uint8_t *low, uint8_t *high) {
    *low = 0x80, *high = 0xbf;
    if (byte < 0x80)
        return 1;
    if (byte >= 0xc2 && byte <= 0xdf)
        return 2;
    if (byte >= 0xe0 && byte <= 0xef) {
        if (byte == 0xe0)
            *low = 0xa0; // shorter forms exist
        if (byte == 0xed)
            *high = 0x9f; // surrogates
        return 3;
    }
    if (byte >= 0xf0 && byte <= 0xf4) {
        if (byte == 0xf0)
            *low = 0x90;
        if (byte == 0xf4)
            *high = 0x8f; // above U+10FFFF
        return 4;
    }
    return 0;
}

// Bytes from text[0] on that agree with a character's form, at most its length.
static unsigned agreeing(const uint8_t *text, size_t bytes, unsigned *length) {
    uint8_t low, high;
    *length = first_byte(text[0], &low, &high);
    unsigned n = 1;
    while (n < *length && n < bytes && text[n] >= low && text[n] <= high) {
        n++;
        low = 0x80, high = 0xbf;
    }
    return n;
}

unsigned utf8_char(const char *text, size_t bytes, uint32_t *code_point) {
    if (bytes == 0)
        return 0;
    const uint8_t *b = (const uint8_t *)text;
    if (b[0] < 0x80) {
        *code_point = b[0];
        return 1;
    }
    unsigned length, n = agreeing(b, bytes, &length);
    if (length == 0 || n < length)
        return 0;
    uint32_t value = b[0] & (0xffu >> (length + 1));
    for (unsigned i = 1; i < length; i++)
        value = value << 6 | (b[i] & 0x3f);
    *code_point = value;
    return length;
}

unsigned utf8_bad(const char *text, size_t bytes, bool *whole) {
    unsigned length, n = agreeing((const uint8_t *)text, bytes, &length);
    *whole = length == 0 || n < bytes;
    return n;
}

bool utf8_valid(const char *text, size_t bytes, size_t *bad_offset) {
    for (size_t i = 0; i < bytes;) {
        uint32_t code_point;
        unsigned n = utf8_char(text + i, bytes - i, &code_point);
        if (n == 0) {
            if (bad_offset)
                *bad_offset = i;
            return false;
        }
        i += n;
    }
    return true;
}

char *utf8_repair(const char *text, size_t bytes, size_t *out_bytes) {
    char *out = xmalloc(bytes * 3 + 1); // a wrong byte becomes three
    size_t n_out = 0;
    for (size_t i = 0; i < bytes;) {
        uint32_t code_point;
        unsigned n = utf8_char(text + i, bytes - i, &code_point);
        if (n) {
            memcpy(out + n_out, text + i, n);
            n_out += n;
        } else {
            bool whole;
            n = utf8_bad(text + i, bytes - i, &whole);
            memcpy(out + n_out, "\xef\xbf\xbd", 3);
            n_out += 3;
        }
        i += n;
    }
    out[n_out] = 0;
    *out_bytes = n_out;
    return out;
}

bool unicode_is_white(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

char *utf8_harmless(const char *text) {
    size_t bytes, n = 0;
    char *in = utf8_repair(text, strlen(text), &bytes), *out = xmalloc(3 * bytes + 1);
    for (size_t i = 0; i < bytes;) {
        unsigned char a = (unsigned char)in[i];
        size_t length = a < 0x80 ? 1 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
        uint32_t code = a < 0x80 ? a : a & (0xffu >> (length + 1));
        for (size_t k = 1; k < length; k++)
            code = code << 6 | ((unsigned char)in[i + k] & 0x3f);
        bool bad = code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x200b && code <= 0x200f) ||
                   (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || code == 0xfeff ||
                   code == 0xfffe || code == 0xffff;
        memcpy(out + n, bad ? "\xef\xbf\xbd" : in + i, bad ? 3 : length);
        n += bad ? 3 : length;
        i += length;
    }
    out[n] = 0;
    free(in);
    return out;
}
