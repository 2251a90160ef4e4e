// What is UTF-8, and what broken bytes become: as Python's bytes.decode("utf-8", "replace") has it.
#include "check.h"
#include "model/utf8.h"

#include <stdlib.h>
#include <string.h>

static void check_repair(const char *text, const char *expected) {
    size_t bytes;
    char *found = utf8_repair(text, strlen(text), &bytes);
    CHECK(bytes == strlen(expected) && memcmp(found, expected, bytes) == 0, "'%s' instead of '%s'", found, expected);
    free(found);
}

#define BAD "\xef\xbf\xbd"

static void test_utf8(void) {
    // What Python's bytes.decode("utf-8", "replace") gives.
    check_repair("plain", "plain");
    check_repair("\xff\xfe", BAD BAD);
    check_repair("a\x80z", "a" BAD "z");
    check_repair("\xe4\xbd", BAD);
    check_repair("\xe4\xbdz\xa0", BAD "z" BAD);
    check_repair("\xc0\xaf", BAD BAD);
    check_repair("\xe0\x9f\x80", BAD BAD BAD);
    check_repair("\xed\xa0\x80", BAD BAD BAD);
    check_repair("\xf0\x9f\x98", BAD);
    check_repair("\xf0\x9f\x98\x80\xf4\x90\x80\x80", "\xf0\x9f\x98\x80" BAD BAD BAD BAD);
    size_t bad = 0;
    CHECK(utf8_valid("\xf4\x8f\xbf\xbf", 4, &bad), "U+10FFFF is valid");
    CHECK(!utf8_valid("ab\xc1\x80", 4, &bad) && bad == 2, "bad at %zu", bad);
}

int main(void) {
    test_utf8();
    return check_done();
}
