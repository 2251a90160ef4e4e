// LaTeX answers in one way of writing, by the rules that Hendrycks et al. (MATH) state for their comparison: white space, size commands, degrees,
// dollars, percents and units go away; fractions and roots get braces; "x =" in front is left out; 0.5 and a/b become fractions.
#include "eval/extract.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// Every `from` becomes `to`.
static void swap(char **text, const char *from, const char *to) {
    struct Text out = {0};
    const char *at = *text, *found;
    for (; (found = strstr(at, from)); at = found + strlen(from)) {
        text_add(&out, at, (size_t)(found - at));
        text_add_string(&out, to);
    }
    text_add_string(&out, at);
    free(*text);
    *text = text_take(&out);
}

static const char *const SWAPS[][2] = {
    {"\n", ""},      {"\\!", ""},       {"\\\\", "\\"},  {"tfrac", "frac"}, {"dfrac", "frac"}, {"\\left", ""},
    {"\\right", ""}, {"^{\\circ}", ""}, {"^\\circ", ""}, {"\\$", ""},       {"$", ""},         {"\\%", ""},
    {"%", ""},       {" .", " 0."},     {"{.", "{0."},   {"\\,", ""},       {"\\ ", ""},       {"\\mbox{", "\\text{"},
};

// "5 \text{ cm}": what stands behind a number as \text{ ...} is its unit.
static void drop_unit(char **text) {
    char *unit = strstr(*text, "\\text{ ");
    if (unit)
        *unit = 0;
}

// "x = 3", "k=3": a name of at most two characters.
static void drop_name(char **text) {
    char *equals = strchr(*text, '=');
    if (!equals || strchr(equals + 1, '='))
        return;
    char *name = text_strip(*text, (size_t)(equals - *text));
    if (strlen(name) <= 2) {
        char *rest = text_strip(equals + 1, strlen(equals + 1));
        free(*text);
        *text = rest;
    }
    free(name);
}

// \sqrt3 becomes \sqrt{3}, \frac12 \frac{1}{2}, \frac1{72} \frac{1}{72}.
static void add_braces(char **text, const char *command, int arguments) {
    struct Text out = {0};
    const char *at = *text, *found;
    while ((found = strstr(at, command))) {
        found += strlen(command);
        text_add(&out, at, (size_t)(found - at));
        at = found;
        for (int i = 0; i < arguments && *at && *at != '[' && !isalpha((unsigned char)at[0]); i++) {
            if (*at == '{') {
                int depth = 0;
                const char *end = at;
                do
                    depth += (*end == '{') - (*end == '}');
                while (*end++ && depth > 0);
                if (end[-1] == 0)
                    end--;
                text_add(&out, at, (size_t)(end - at));
                at = end;
            } else {
                text_add_string(&out, "{");
                text_add(&out, at++, 1);
                text_add_string(&out, "}");
            }
        }
    }
    text_add_string(&out, at);
    free(*text);
    *text = text_take(&out);
}

static bool is_integer(const char *text, size_t n) {
    size_t from = n > 1 && *text == '-';
    for (size_t i = from; i < n; i++)
        if (!isdigit((unsigned char)text[i]))
            return false;
    return n > from;
}

static void slash_to_fraction(char **text) {
    char *slash = strchr(*text, '/');
    if (!slash || !is_integer(*text, (size_t)(slash - *text)) || !is_integer(slash + 1, strlen(slash + 1)))
        return;
    *slash = 0;
    char *out = xsprintf("\\frac{%s}{%s}", *text, slash + 1);
    free(*text);
    *text = out;
}

char *latex_normal(const char *text) {
    char *t = text_strip(text, strlen(text));
    for (size_t i = 0; i < sizeof SWAPS / sizeof *SWAPS; i++)
        swap(&t, SWAPS[i][0], SWAPS[i][1]);
    drop_unit(&t);
    size_t n = strlen(t);
    if (n > 1 && t[n - 1] == '.')
        t[n - 1] = 0;
    if (t[0] == '.') {
        char *zero = xsprintf("0%s", t);
        free(t);
        t = zero;
    }
    drop_name(&t);
    add_braces(&t, "\\sqrt", 1);
    swap(&t, " ", "");
    add_braces(&t, "\\frac", 2);
    if (strcmp(t, "0.5") == 0) {
        free(t);
        t = xstrdup("\\frac{1}{2}");
    }
    slash_to_fraction(&t);
    return t;
}
