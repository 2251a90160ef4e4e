// Grammars: what is read and what is refused, with its place; texts that meet a grammar and texts that do not, byte by byte; which tokens a
// mask allows, against a matcher that tries each; answers that end in time; and stop strings over pieces.
#include "check.h"
#include "model/json.h"
#include "model/matcher.h"
#include "model/stops.h"
#include "model/tokenizer.h"
#include <stdlib.h>
#include <string.h>

static bool meets(struct Matching *m, const char *text, size_t n) {
    struct Matcher x;
    matcher_begin(&x, m);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = matcher_accept(&x, text + i, 1);
    ok = ok && matcher_may_end(&x);
    matcher_end(&x);
    return ok;
}

static void test_texts(void) {
    static const struct {
        const char *grammar, *good, *bad; // texts by commas
    } CASES[] = {
        {"root ::= \"a\" | \"bc\"", "a,bc", "b,abc,c,"},
        {"root ::= [a-c]+", "a,abc,cba", "d,abd,"},
        {"root ::= [^a-c\\n]*", "xyz,,1 2,\xe6\xbc\xa2", "a,xb"},
        {"root ::= \"x\"{2}", "xx", "x,xxx,"},
        {"root ::= \"ab\"{1,3}", "ab,abab,ababab", ",aba,abababab"},
        {"root ::= \"x\"{2,} \"y\"?", "xx,xxxx,xxy", "x,xy,xxyy"},
        {"root ::= \"x\"{0,2}", ",x,xx", "xxx"},
        {"root ::= (\"a\" | \"b\" c?)* \"!\"\nc ::= \"c\"", "!,a!,abbc!,bc!", "ac!,a,c!"},
        {"root ::= \"(\" root \")\" | \"\"", ",(),((()))", "(,(()"},
        {"root ::= list # lists\n# of x\nlist ::= \"x\"\n  | \"x\" \";\" list\n", "x,x;x;x", "x;,;x"},
        {"root ::= (\"a\"? \"b\"?)* \"c\"", "c,abc,bbaac", "ca,d"},
        {"root ::= (\"\" | \"a\")* \"b\"", "b,aab", "a"},
        {"root ::= \"\\x41\\u00e9\\U0001F600\\\\\\\"\\t\"", "A\xc3\xa9\xf0\x9f\x98\x80\\\"\t", "A"},
        {"root ::= [\xe4\xb8\x80-\xe9\xbe\xa5]+ .", "\xe6\xbc\xa2\xe5\xad\x97x,\xe6\xbc\xa2\xe5\xad\x97",
         "x,\xe6\xbc\xa2\xe5,\xe6\xbc"},
        {"root ::= .", "\xf4\x8f\xbf\xbf,\xed\x9f\xbf,\xc2\x80,\x7f",
         "\xf4\x90\x80\x80,\xed\xa0\x80,\xc0\x80,\xff,\x80"},
        {"root ::= dead | \"a\"\ndead ::= \"d\" dead", "a", "d,dd"},
        {"root ::= [-+] [a-] [\\]\\-]", "-a],+--", "a,-b"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct Grammar g;
        if (!CHECK(grammar_parse(&g, CASES[i].grammar, strlen(CASES[i].grammar), "g"), "%s: %s", CASES[i].grammar,
                   fail_last()))
            continue;
        struct Matching *m = matching_open(&g, NULL, 0, NULL, 0);
        for (int good = 0; good < 2; good++)
            for (const char *text = good ? CASES[i].good : CASES[i].bad;;) {
                size_t n = strcspn(text, ",");
                CHECK(meets(m, text, n) == (good == 1), "%s: '%.*s'", CASES[i].grammar, (int)n, text);
                if (!text[n])
                    break;
                text += n + 1;
            }
        matching_close(m);
        grammar_free(&g);
    }
}

static void check_refused(const char *grammar, size_t n, const char *part) {
    struct Grammar g;
    fail_quiet(true);
    CHECK(!grammar_parse(&g, grammar, n, "g") && strstr(fail_last(), part), "%.60s: found '%s', expected '...%s...'",
          grammar, fail_last(), part);
    fail_quiet(false);
}

static void test_refusals(void) {
    static const struct {
        const char *grammar, *part;
    } CASES[] = {
        {"", "no rule 'root'"},
        {"a ::= \"b\"", "no rule 'root'"},
        {"root ::= b\n\n", "g:1:10: the rule b is not defined"},
        {"root ::= \"a", "g:1:12: expected the literal's closing quote, found the end"},
        {"root ::= \"a\nb\"", "g:1:12: expected the literal's closing quote, found the line's end"},
        {"root ::= [a", "expected ']' at the end of the class"},
        {"root ::= []", "g:1:10: no character is in this class"},
        {"root ::= [^\\x00-\\U0010ffff]", "no character is in this class"},
        {"root ::= [b-a]", "g:1:11: this range ends before it begins"},
        {"root ::= \"\xc3\xa9\" )", "g:1:14: expected a literal"},
        {"root ::= (\"a\"", "g:1:14: expected ')', found the end"},
        {"root = \"a\"", "g:1:6: expected ::="},
        {"\"a\"", "g:1:1: expected the name of a rule, found '\"'"},
        {"root ::= \"a\"\nroot ::= \"b\"", "g:2:1: the rule root is defined twice"},
        {"root ::= \"\\q\"", "behind a backslash"},
        {"root ::= \"\\xg0\"", "g:1:13: expected a hexadecimal digit, found 'g'"},
        {"root ::= \"\\ud800\"", "no character of Unicode"},
        {"root ::= \"\\U00110000\"", "no character of Unicode"},
        {"root ::= \"\xff\"", "expected UTF-8, found byte 0xff"},
        {"root ::= \"a\"{3,2}", "fewer than the least"},
        {"root ::= \"a\"{1001}", "at most 1000 repetitions"},
        {"root ::= \"a\"{,2}", "expected a number, found ','"},
        {"root ::= \"a\"{99999999999999999999}", "at most 1000"},
        {"root ::= ((((\"ab\"{1000}){1000}){1000}){1000}){1000}", "root never ends"},
        {"root ::= a a a a a a a a a\na ::= ((\"x\"{0,1000} \"y\"{0,1000} \"z\"{0,1000}){0,1000}){0,1000}\n"
         "b ::= (\"x\"{0,1000} \"y\"{0,1000} \"z\"{0,1000} \"u\"{0,1000}){0,1000}",
         "too large: more than 8192 rules"},
        {"root ::= <think>", "tokens in a grammar"},
        {"root ::= root \"a\" | \"b\"", "g:1:1: left recursion: the rule root can begin with itself"},
        {"root ::= a \"x\"\na ::= b \"y\"\nb ::= \"\" a \"z\" | \"w\"", "left recursion: the rule"},
        {"root ::= e root \"a\" | \"b\"\ne ::= \"e\"?", "left recursion: the rule root"},
        {"root ::= \"a\" root", "g:1:1: no text can meet this grammar: root never ends"},
        {"root ::= a | b\na ::= \"x\" b\nb ::= \"y\" a", "root never ends"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        check_refused(CASES[i].grammar, strlen(CASES[i].grammar), CASES[i].part);
}

// Bug class S1: nesting in what others wrote must not become recursion without a limit.
static void test_nesting(void) {
    enum { GROUPS = 60000 };
    char *text = xmalloc(2 * GROUPS + 32);
    size_t n = (size_t)sprintf(text, "root ::= ");
    memset(text + n, '(', GROUPS);
    n += GROUPS;
    n += (size_t)sprintf(text + n, "\"a\"");
    memset(text + n, ')', GROUPS);
    check_refused(text, n + GROUPS, "g:1:74: more than 64 groups inside each other");
    // As deep through rules, and a text as deep as one likes: stacks are lists.
    struct Grammar g;
    static const char NESTED[] = "root ::= \"[\" root \"]\" | \"x\"";
    CHECK(grammar_parse(&g, NESTED, sizeof NESTED - 1, "g"), "%s", fail_last());
    struct Matching *m = matching_open(&g, NULL, 0, NULL, 0);
    memset(text, '[', GROUPS);
    text[GROUPS] = 'x';
    memset(text + GROUPS + 1, ']', GROUPS);
    CHECK(meets(m, text, 2 * GROUPS + 1) && !meets(m, text, 2 * GROUPS), "60000 brackets");
    matching_close(m);
    grammar_free(&g);
    // A chain of rules that begin with each other.
    size_t room = 1 << 20;
    char *chain = xmalloc(room);
    n = (size_t)sprintf(chain, "root ::= r0\n");
    for (int i = 0; i < 8000; i++)
        n += (size_t)sprintf(chain + n, "r%d ::= r%d \"x\"\n", i, i + 1);
    n += (size_t)sprintf(chain + n, "r8000 ::= \"y\"\n");
    fail_quiet(true);
    if (CHECK(grammar_parse(&g, chain, n, "g"), "%s", fail_last())) {
        m = matching_open(&g, NULL, 0, NULL, 0);
        struct Matcher x;
        matcher_begin(&x, m); // deeper than the limit of ways: told or read, and no crash
        matcher_accept(&x, "y", 1);
        matcher_end(&x);
        matching_close(m);
        grammar_free(&g);
    }
    fail_quiet(false);
    free(text), free(chain);
}

// ---- Tokens

static struct Tokenizer tokenizer;

static bool open_tokenizer(void) {
    char path[512];
    uint8_t *text;
    uint64_t bytes;
    snprintf(path, sizeof path, "%s/tests/golden/tokenizer/gpt2/tokenizer.json", VKMOE_SOURCE_DIR);
    if (!CHECK(file_read(path, 1 << 26, &text, &bytes), "%s", fail_last()))
        return false;
    bool ok = CHECK(tokenizer_open_json(&tokenizer, (char *)text, bytes, NULL, 0, path), "%s", fail_last());
    free(text);
    return ok;
}

static bool allows(const uint32_t *mask, uint32_t id) { return mask[id / 32] >> id % 32 & 1; }

// Every token of the mask goes on with the text, and none outside it does.
static void check_mask(struct Matching *m, const char *text, uint32_t stop, const char *what) {
    struct Matcher x, y;
    uint32_t n = tokenizer.n_vocab, *mask = xcalloc(n / 32 + 1, sizeof *mask), wrong = 0, allowed = 0;
    matcher_begin(&x, m);
    CHECK(matcher_accept(&x, text, strlen(text)), "%s: '%s'", what, text);
    CHECK(matcher_mask(&x, 1 << 20, mask), "%s: %s", what, fail_last());
    for (uint32_t id = 0; id < n; id++) {
        char piece[4096];
        size_t bytes = tokenizer_piece(&tokenizer, id, piece, sizeof piece);
        bool fits = false;
        if (bytes > 0 && bytes <= sizeof piece && !tokenizer_is_special(&tokenizer, id)) {
            matcher_begin(&y, m);
            fits = matcher_accept(&y, text, strlen(text)) && matcher_accept(&y, piece, bytes);
            matcher_end(&y);
        }
        if (id == stop)
            fits = matcher_may_end(&x);
        wrong += fits != allows(mask, id);
        allowed += fits;
    }
    CHECK(wrong == 0, "%s: behind '%s' the mask is wrong for %u tokens of %u allowed", what, text, wrong, allowed);
    matcher_end(&x);
    free(mask);
}

static void test_masks(void) {
    static const char *const TEXTS[] = {
        "", "{", "{\"", "{\"a\\", "{\"a\xe6\xbc", "{\"a\": ", "{\"a\": -1", "{\"a\": [1, {}", "{}"};
    struct Grammar g;
    CHECK(grammar_parse(&g, GRAMMAR_JSON, strlen(GRAMMAR_JSON), "json"), "%s", fail_last());
    uint32_t stop = tokenizer.n_vocab - 1;
    struct Matching *m = matching_open(&g, &tokenizer, tokenizer.n_vocab, &stop, 1);
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
        check_mask(m, TEXTS[i], stop, "json");
    matching_close(m);
    grammar_free(&g);
}

// Texts drawn at random from the masks, with few tokens left: all are whole JSON. Many, so that states are forgotten on the way.
static void test_walks(void) {
    struct Grammar g;
    CHECK(grammar_parse(&g, GRAMMAR_JSON, strlen(GRAMMAR_JSON), "json"), "%s", fail_last());
    uint32_t n = tokenizer.n_vocab, stop = n - 1, *mask = xcalloc(n / 32 + 1, sizeof *mask), *ids, ended = 0, bad = 0;
    ids = xcalloc(n, sizeof *ids);
    struct Matching *m = matching_open(&g, &tokenizer, n, &stop, 1);
    for (uint32_t walk = 0; walk < 400; walk++) {
        struct Matcher x;
        static char text[1 << 18];
        size_t bytes = 0;
        uint32_t limit = 2 + walk % 60, t = 0;
        matcher_begin(&x, m);
        for (; t < limit && !matcher_must_end(&x); t++) {
            uint32_t count = 0, words[4];
            if (!CHECK(matcher_mask(&x, limit - t, mask), "%s", fail_last()))
                break;
            for (uint32_t id = 0; id < n; id++)
                if (allows(mask, id))
                    ids[count++] = id;
            philox(5, walk, t, words);
            uint32_t id = ids[words[0] % count];
            if (id == stop)
                break;
            char piece[4096];
            size_t length = tokenizer_piece(&tokenizer, id, piece, sizeof piece);
            // Braces and quotes are rare among the tokens: sometimes one is preferred, so that texts have structure.
            static const char *const SHORT[] = {"{", "\"", "[", ":", "}", "]", ",", "1"};
            const char *wanted = SHORT[words[1] % 8];
            uint32_t other = tokenizer_find(&tokenizer, wanted);
            if (words[2] % 2 && other != TOKEN_NONE && allows(mask, other))
                length = tokenizer_piece(&tokenizer, other, piece, sizeof piece);
            if (!CHECK(matcher_accept(&x, piece, length), "'%.*s' is allowed and not accepted", (int)length, piece))
                break;
            memcpy(text + bytes, piece, length);
            bytes += length;
        }
        ended += matcher_may_end(&x);
        json_t *value = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        bad += value == NULL;
        if (!value)
            fprintf(stderr, "not JSON: '%.*s'\n", (int)bytes, text);
        json_decref(value);
        matcher_end(&x);
    }
    CHECK(ended == 400 && bad == 0, "%u of 400 walks are whole, %u are not JSON", ended, bad);
    matching_close(m);
    grammar_free(&g);
    free(mask), free(ids);
}

// Two texts that go on side by side while more states are met than are kept.
static void test_forgetting(void) {
    static const char TEXT[] = "root ::= [a-z] root | \"(\" root \")\" | [A-Z] root \"!\" | \".\"";
    struct Grammar g;
    CHECK(grammar_parse(&g, TEXT, sizeof TEXT - 1, "g"), "%s", fail_last());
    struct Matching *m = matching_open(&g, NULL, 0, NULL, 0);
    struct Matcher a, b;
    uint32_t closing = 0;
    matcher_begin(&a, m);
    matcher_begin(&b, m);
    bool ok = matcher_accept(&b, "((", 2);
    for (uint32_t i = 0; ok && i < 100000; i++) { // each bracket makes a state that was not there before
        ok = matcher_accept(&a, i % 3 == 0 ? "Q" : "(", 1);
        closing++;
    }
    CHECK(ok && matcher_rest(&a) == closing + 1, "after %u brackets the rest is %u", closing, matcher_rest(&a));
    ok = ok && matcher_accept(&a, ".", 1);
    for (uint32_t i = closing; ok && i-- > 0;)
        ok = matcher_accept(&a, i % 3 == 0 ? "!" : ")", 1);
    CHECK(ok && matcher_must_end(&a), "the brackets close in their order");
    CHECK(matcher_accept(&b, ".))", 3) && matcher_must_end(&b), "the text beside it");
    matcher_end(&b);
    matcher_end(&a);
    matching_close(m);
    grammar_free(&g);
}

static void test_not_met(void) {
    // A vocabulary of three tokens: after x nothing fits.
    static const char JSON[] =
        "{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}, "
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"x\": 0, \"y\": 1, \"xy\": 2}, \"merges\": []}}";
    struct Tokenizer t;
    struct Grammar g;
    struct Matcher x;
    uint32_t mask;
    if (!CHECK(tokenizer_open_json(&t, JSON, sizeof JSON - 1, NULL, 0, "t"), "%s", fail_last()))
        return;
    CHECK(grammar_parse(&g, "root ::= \"xz\" | \"y\"", 19, "g"), "%s", fail_last());
    struct Matching *m = matching_open(&g, &t, 3, NULL, 0);
    matcher_begin(&x, m);
    CHECK(matcher_mask(&x, 9, &mask) && mask == 3, "mask %x", mask);
    CHECK(matcher_accept(&x, "x", 1), "x");
    fail_quiet(true);
    CHECK(!matcher_mask(&x, 9, &mask) && strstr(fail_last(), "cannot be met"), "%s", fail_last());
    fail_quiet(false);
    matcher_end(&x);
    matching_close(m);
    grammar_free(&g);
    tokenizer_free(&t);
}

// ---- Stop strings

static void test_stops(void) {
    static const struct {
        const char *stops[3], *text, *want;
        bool found;
    } CASES[] = {
        {{"END"}, "some text END more", "some text ", true},
        {{"END"}, "some text EN", "some text EN", false},
        {{"aab"}, "aaab", "a", true},
        {{"abac", "ba"}, "xabab", "xa", true},
        {{"abac", "ba"}, "xab", "xab", false},
        {{"\n\n", "###"}, "one\ntwo\n\nthree", "one\ntwo", true},
        {{"\xe7\xbb\x93\xe6\x9d\x9f"}, "\xe7\xbb\x93\xe7\xbb\x93\xe6\x9d\x9f!", "\xe7\xbb\x93", true},
        {{"x", "xyz"}, "axyz", "a", true},
        {{NULL}, "nothing", "nothing", false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (size_t piece = 1; piece < 8; piece++) { // in pieces of every size
            struct Stops s = {0};
            char got[64] = "";
            size_t n, all = strlen(CASES[i].text);
            for (int k = 0; k < 3 && CASES[i].stops[k]; k++)
                s.list[s.n++] = CASES[i].stops[k];
            for (size_t at = 0; at < all; at += piece) {
                const char *out = stops_push(&s, CASES[i].text + at, piece < all - at ? piece : all - at, &n);
                strncat(got, out, n);
            }
            CHECK(s.found == CASES[i].found, "case %zu in pieces of %zu: found %d", i, piece, s.found);
            const char *out = stops_flush(&s, &n);
            strncat(got, out, n);
            CHECK(strcmp(got, CASES[i].want) == 0, "case %zu in pieces of %zu: '%s'", i, piece, got);
            stops_free(&s);
        }
}

int main(void) {
    test_texts();
    test_refusals();
    test_nesting();
    test_forgetting();
    test_not_met();
    test_stops();
    if (open_tokenizer()) {
        test_masks();
        test_walks();
        tokenizer_free(&tokenizer);
    }
    return check_done();
}
