// See vocabspm.h.
#include "model/vocabspm.h"
#include "model/spm.h"

#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1 };

// Ids of the two halves of a piece, cut at byte `at`.
static bool find_halves(const json_t *pieces, const char *text, size_t bytes, size_t at, json_int_t *left,
                        json_int_t *right) {
    const json_t *l = json_object_getn(pieces, text, at), *r = json_object_getn(pieces, text + at, bytes - at);
    *left = json_integer_value(l);
    *right = json_integer_value(r);
    return l && r;
}

// ---- Scores to merges ----

struct Pair {
    float score;
    uint32_t id;
    json_int_t left, right;
    size_t at; // where the piece is cut
};

// As Hugging Face's converter has them: by score, those of one piece by their ids.
static int by_score(const void *a, const void *b) {
    const struct Pair *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    if (x->id != y->id)
        return x->id > y->id ? 1 : -1;
    if (x->left != y->left)
        return x->left > y->left ? 1 : -1;
    return (x->right > y->right) - (x->right < y->right);
}

static size_t list_pairs(const struct SpmVocab *v, const json_t *pieces, struct Pair *out) {
    size_t count = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        const struct GgufString *t = &v->tokens[id];
        if (v->types[id] != TYPE_NORMAL)
            continue;
        for (size_t i = 1; i < t->bytes; i++) {
            struct Pair pair = {.score = v->scores[id], .id = id, .at = i};
            if (((uint8_t)t->text[i] & 0xc0) == 0x80 ||
                !find_halves(pieces, t->text, t->bytes, i, &pair.left, &pair.right) ||
                v->types[pair.left] != TYPE_NORMAL || v->types[pair.right] != TYPE_NORMAL)
                continue;
            if (out)
                out[count] = pair;
            count++;
        }
    }
    return count;
}

static bool is_run(const struct GgufString *t) { // of blanks
    size_t blank = strlen(SPM_BLANK), i = 0;
    while (i + blank <= t->bytes && memcmp(t->text + i, SPM_BLANK, blank) == 0)
        i += blank;
    return i == t->bytes;
}

json_t *vocabspm_merges(const struct SpmVocab *v, const json_t *pieces, const char *where) {
    size_t n = list_pairs(v, pieces, NULL);
    struct Pair *pairs = xcalloc(n + 1, sizeof *pairs);
    list_pairs(v, pieces, pairs);
    qsort(pairs, n, sizeof *pairs, by_score);
    json_t *merges = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct GgufString *t = &v->tokens[pairs[i].id];
        // LLaMA's runs of blanks have one score; either order gives the same cuts of a run.
        if (i && pairs[i].id != pairs[i - 1].id && pairs[i].score == pairs[i - 1].score &&
            !(is_run(t) && is_run(&v->tokens[pairs[i - 1].id]))) {
            fail("%s: tokens %u and %u have the same score: of such the leftmost pair comes first, which a "
                 "tokenizer.json cannot say",
                 where, pairs[i - 1].id, pairs[i].id);
            json_decref(merges);
            merges = NULL;
            break;
        }
        char *text =
            xsprintf("%.*s %.*s", (int)pairs[i].at, t->text, (int)(t->bytes - pairs[i].at), t->text + pairs[i].at);
        json_array_append_new(merges, json_string(text));
        free(text);
    }
    free(pairs);
    return merges;
}

// ---- Merges to scores ----

static bool read_merge(const json_t *merge, const char **left, const char **right, size_t *left_bytes) {
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
    if (space) {
        *left = text;
        *right = space + 1;
    }
    *left_bytes = space ? (size_t)(space - text) : *left ? strlen(*left) : 0;
    return *left && *right;
}

// How many ways there are to make each piece of two.
static uint32_t count_ways(const json_t *pieces, const char *text) {
    size_t bytes = strlen(text);
    json_int_t left, right;
    uint32_t ways = 0;
    for (size_t i = 1; i < bytes; i++)
        ways += ((uint8_t)text[i] & 0xc0) != 0x80 && find_halves(pieces, text, bytes, i, &left, &right);
    return ways;
}

bool vocabspm_scores(const json_t *pieces, const json_t *merges, float *scores, uint32_t n, const char *where) {
    json_int_t last = -1;
    uint32_t rank = 0, ways = 0;
    size_t i;
    json_t *merge, *id;
    bool ok = true;
    json_array_foreach(merges, i, merge) {
        const char *left, *right;
        size_t left_bytes;
        if (!read_merge(merge, &left, &right, &left_bytes))
            return fail("%s: merges[%zu]: \"left right\" or [\"left\", \"right\"] is expected", where, i);
        char *both = xsprintf("%.*s%s", (int)left_bytes, left, right);
        const json_t *made = json_object_get(pieces, both);
        json_int_t to = made ? json_integer_value(made) : -1;
        if (to < 0 || to >= (json_int_t)n)
            ok = fail("%s: merges[%zu] makes '%s', which is no token", where, i, both);
        else if (to != last && (ways || scores[to] < 0))
            ok = fail("%s: merges[%zu]: GGUF gives '%s' one score, but its merges %s", where, i, both,
                      ways ? "follow those of a token that can be made in yet another way" : "do not stand together");
        if (ok && to != last)
            ways = count_ways(pieces, both);
        free(both);
        if (!ok)
            return false;
        rank += to != last;
        scores[to] = -(float)rank;
        ways -= ways > 0;
        last = to;
    }
    const char *text;
    json_object_foreach((json_t *)pieces, text, id) { // those that nothing makes: characters
        json_int_t to = json_integer_value(id);
        if (to >= 0 && to < (json_int_t)n && scores[to] == 0)
            scores[to] = -(float)++rank;
    }
    return !ways || fail("%s: merges: the last token can be made in yet another way", where);
}
