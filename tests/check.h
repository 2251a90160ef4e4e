// What every test file leans on: CHECK counts and goes on, so that one run shows all that is wrong; check_done() ends
// main(). A test that cannot run here says why with check_skip() and counts as skipped (exit status 77 for ctest).
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

static unsigned check_count, check_failures, check_skips;

// Reports at most this many failures in full: a wrong kernel would print a line per element.
enum { CHECK_REPORTED = 50 };

__attribute__((unused)) static bool check_report(bool ok, const char *file, int line, const char *what) {
    check_count++;
    if (ok)
        return true;
    if (check_failures++ < CHECK_REPORTED)
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    return false;
}

// CHECK(condition, "format", ...): the text says what was found. Gives the condition.
#define CHECK(condition, ...)                                                                                          \
    __extension__({                                                                                                    \
        bool check_ok = (condition);                                                                                   \
        if (!check_report(check_ok, __FILE__, __LINE__, #condition) && check_failures <= CHECK_REPORTED) {             \
            fprintf(stderr, "    ");                                                                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
        }                                                                                                              \
        check_ok;                                                                                                      \
    })

// |found - expected| <= absolute + relative * |expected|; false for NaN.
#define CHECK_NEAR(found, expected, absolute, relative)                                                                \
    __extension__({                                                                                                    \
        double check_found = (found), check_expected = (expected);                                                     \
        CHECK(fabs(check_found - check_expected) <= (absolute) + (relative)*fabs(check_expected),                      \
              "%s is %.9g, expected %.9g (difference %.3g)", #found, check_found, check_expected,                      \
              check_found - check_expected);                                                                           \
    })

// One line that says what was left out and why: check_skip("no device has cooperative matrices").
#define check_skip(...)                                                                                                \
    do {                                                                                                               \
        check_skips++;                                                                                                 \
        printf("SKIP: ");                                                                                              \
        printf(__VA_ARGS__);                                                                                           \
        printf("\n");                                                                                                  \
    } while (0)

// The exit status: 1 when a check failed or when nothing at all was checked, 77 when all was skipped.
__attribute__((unused)) static int check_done(void) {
    fflush(stderr);
    printf("%u checks, %u failed", check_count, check_failures);
    if (check_skips)
        printf(", %u parts skipped", check_skips);
    printf("\n");
    if (check_failures)
        return 1;
    return check_count ? 0 : check_skips ? 77 : 1;
}
