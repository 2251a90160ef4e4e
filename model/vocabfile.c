// See vocabfile.h. What decides about ids (pieces, merges, patterns, added tokens) is carried over exactly or refused.
#include "model/vocabfile.h"
#include "model/chains.h"
#include "model/json.h"
#include "model/spmfile.h"
#include "model/tokenizer_build.h"
#include "model/vocabspm.h"

#include <stdlib.h>
#include <string.h>

// ---- Pre-tokenizers ----

// \x{..} as the characters themselves: the way tokenizer.json writes its patterns. With `ends` line ends as well, which it writes
// either way.
static char *plain_pattern(const char *pattern, bool ends) {
    char *out = xmalloc(strlen(pattern) + 1), *to = out;
    while (*pattern) {
        if (strncmp(pattern, "\\x{", 3) != 0) {
            bool escape = pattern[0] == '\\' && pattern[1];
            if (escape && ends && (pattern[1] == 'r' || pattern[1] == 'n')) {
                *to++ = pattern[1] == 'r' ? '\r' : '\n';
                pattern += 2;
                continue;
            }
            if (escape)
                *to++ = *pattern++;
            *to++ = *pattern++;
            continue;
        }
        char *end;
        unsigned long c = strtoul(pattern + 3, &end, 16);
        if (c >= 0x10000)
            *to++ = (char)(0xf0 | c >> 18);
        if (c >= 0x800)
            *to++ = (char)(c >= 0x10000 ? 0x80 | (c >> 12 & 0x3f) : 0xe0 | c >> 12);
        if (c >= 0x80)
            *to++ = (char)(c >= 0x800 ? 0x80 | (c >> 6 & 0x3f) : 0xc0 | c >> 6);
        *to++ = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
        pattern = end + (*end == '}');
    }
    *to = 0;
    return out;
}

static json_t *byte_level(bool prefix, bool regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", (int)prefix, "trim_offsets", 1,
                     "use_regex", (int)regex);
}

static json_t *chain_to_json(const struct Chain *chain) {
    json_t *parts = json_array();
    for (int i = 0; i < CHAIN_PATTERNS && chain->patterns[i]; i++) {
        char *text = plain_pattern(chain->patterns[i], false);
        json_array_append_new(parts, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", text,
                                               "behavior", "Isolated", "invert", 0));
        free(text);
    }
    if (chain->digits)
        json_array_append_new(parts, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    json_array_append_new(parts, byte_level(false, chain->byte_level_regex));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", parts);
}

static bool has_type(const json_t *object, const char *type) {
    const char *found = json_string_value(json_object_get(object, "type"));
    return found && strcmp(found, type) == 0;
}

static bool same_split(const json_t *part, const char *pattern) {
    const char *regex = json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    if (!has_type(part, "Split") || !regex || !behavior || strcmp(behavior, "Isolated") != 0 ||
        json_is_true(json_object_get(part, "invert")))
        return false;
    char *a = plain_pattern(pattern, true), *b = plain_pattern(regex, true);
    bool same = strcmp(a, b) == 0;
    free(a);
    free(b);
    return same;
}

static bool same_byte_level(const json_t *part, bool regex) {
    const json_t *use = json_object_get(part, "use_regex");
    return has_type(part, "ByteLevel") && json_is_false(json_object_get(part, "add_prefix_space")) &&
           (use ? (bool)json_is_true(use) : true) == regex;
}

static bool is_chain(const json_t *pre, const struct Chain *chain) {
    const json_t *parts = has_type(pre, "Sequence") ? json_object_get(pre, "pretokenizers") : NULL;
    size_t n = parts ? json_array_size(parts) : 1, at = 0;
    for (int i = 0; i < CHAIN_PATTERNS && chain->patterns[i]; i++, at++) {
        if (at >= n || !parts || !same_split(json_array_get(parts, at), chain->patterns[i]))
            return false;
    }
    if (chain->digits) {
        const json_t *part = parts ? json_array_get(parts, at) : NULL;
        if (!has_type(part, "Digits") || !json_is_true(json_object_get(part, "individual_digits")))
            return false;
        at++;
    }
    return at + 1 == n && same_byte_level(parts ? json_array_get(parts, at) : pre, chain->byte_level_regex);
}

// ---- GGUF to JSON ----

struct Vocab {
    const struct GgufString *tokens, *merges;
    int32_t *types;
    uint64_t n_tokens, n_merges, n_types;
    float *scores; // of SentencePiece's kind
    bool spm;
    const struct Chain *chain; // of the other
    bool add_bos, add_eos, add_prefix;
    uint32_t bos, eos, unknown, pad; // UINT32_MAX: none
};

static bool read_chain(struct Vocab *v, const struct Gguf *g) {
    char *model = NULL, *pre = NULL;
    bool ok = gguf_get_string(g, "tokenizer.ggml.model", true, &model);
    v->spm = ok && strcmp(model, "llama") == 0;
    if (ok && !v->spm && strcmp(model, "gpt2") != 0)
        ok = fail("%s: tokenizer.ggml.model is \"%.80s\"; only gpt2 and llama can become a tokenizer.json",
                  g->file.name, model);
    if (ok && !v->spm)
        ok = gguf_get_string(g, "tokenizer.ggml.pre", true, &pre) &&
             ((v->chain = chain_find(pre)) != NULL ||
              fail("%s: pre-tokenizer \"%.80s\" is not supported; %s are", g->file.name, pre, chain_names()));
    free(model);
    free(pre);
    return ok;
}

static bool read_special(const struct Vocab *v, const struct Gguf *g, const char *key, uint32_t *id) {
    *id = UINT32_MAX;
    return gguf_get_u32(g, key, false, id) &&
           (*id == UINT32_MAX || *id < v->n_tokens ||
            fail("%s: %s is %u, but there are %llu tokens", g->file.name, key, *id, (unsigned long long)v->n_tokens));
}

// What only one of the two kinds has.
static bool read_kind(struct Vocab *v, const struct Gguf *g) {
    if (!v->spm)
        return gguf_get_strings(g, "tokenizer.ggml.merges", true, &v->merges, &v->n_merges);
    uint64_t n_scores = 0;
    v->add_prefix = v->add_bos = true; // what llama.cpp takes where the keys are missing
    if (!gguf_get_f32s(g, "tokenizer.ggml.scores", true, &v->scores, &n_scores))
        return false;
    return n_scores == v->n_tokens || fail("%s: %llu tokens but %llu scores", g->file.name,
                                           (unsigned long long)v->n_tokens, (unsigned long long)n_scores);
}

static bool read_vocab(struct Vocab *v, const struct Gguf *g) {
    if (!read_chain(v, g) || !gguf_get_strings(g, "tokenizer.ggml.tokens", true, &v->tokens, &v->n_tokens) ||
        !gguf_get_i32s(g, "tokenizer.ggml.token_type", true, &v->types, &v->n_types) || !read_kind(v, g) ||
        !read_special(v, g, "tokenizer.ggml.bos_token_id", &v->bos) ||
        !read_special(v, g, "tokenizer.ggml.eos_token_id", &v->eos) ||
        !read_special(v, g, "tokenizer.ggml.unknown_token_id", &v->unknown) ||
        !read_special(v, g, "tokenizer.ggml.padding_token_id", &v->pad) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", false, &v->add_bos) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_eos_token", false, &v->add_eos) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", false, &v->add_prefix))
        return false;
    if (v->n_types != v->n_tokens)
        return fail("%s: %llu tokens but %llu token types", g->file.name, (unsigned long long)v->n_tokens,
                    (unsigned long long)v->n_types);
    if (v->add_eos || (v->add_prefix && !v->spm))
        return fail("%s: %s is true, which is not supported", g->file.name,
                    v->add_eos ? "tokenizer.ggml.add_eos_token" : "tokenizer.ggml.add_space_prefix");
    for (uint64_t i = 0; i < v->n_tokens && v->spm && v->unknown == UINT32_MAX; i++)
        if (v->types[i] == SPM_UNKNOWN)
            v->unknown = (uint32_t)i;
    return true;
}

// Pieces and added tokens. Fillers behind the last real token stay out: the library numbers by what is listed.
static bool vocab_pieces(const struct Vocab *v, const struct Gguf *g, json_t *pieces, json_t *added) {
    uint64_t n = v->n_tokens;
    while (n > 0 &&
           (build_is_filler(v->tokens[n - 1].text, v->tokens[n - 1].bytes, n - 1) || v->types[n - 1] == SPM_UNUSED))
        n--;
    for (uint64_t i = 0; i < n; i++) {
        const struct GgufString *token = &v->tokens[i];
        json_t *text = token->bytes && !memchr(token->text, 0, token->bytes)
                           ? json_stringn(token->text, token->bytes) // checks the UTF-8
                           : NULL;
        if (!text || json_object_get(pieces, json_string_value(text))) {
            json_decref(text);
            return fail("%s: token %llu %s", g->file.name, (unsigned long long)i,
                        text ? "has the same text as another" : "is no UTF-8 text");
        }
        json_object_set_new(pieces, json_string_value(text), json_integer((json_int_t)i));
        bool special = v->types[i] == SPM_CONTROL || v->types[i] == SPM_UNKNOWN;
        if ((special || v->types[i] == SPM_USER) && !build_is_filler(token->text, token->bytes, i))
            json_array_append_new(added, json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                                   "content", text, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                                   "normalized", 0, "special", (int)special));
        json_decref(text);
    }
    return true;
}

// NULL after a message.
static json_t *vocab_merges(const struct Vocab *v, const struct Gguf *g, const json_t *pieces) {
    if (v->spm) {
        struct SpmVocab spm = {v->tokens, v->types, v->scores, v->n_tokens};
        return vocabspm_merges(&spm, pieces, g->file.name);
    }
    json_t *merges = json_array();
    for (uint64_t i = 0; i < v->n_merges; i++) {
        json_t *text = json_stringn(v->merges[i].text, v->merges[i].bytes);
        if (!text) {
            fail("%s: merge %llu is no UTF-8 text", g->file.name, (unsigned long long)i);
            json_decref(merges);
            return NULL;
        }
        json_array_append_new(merges, text);
    }
    return merges;
}

// Puts the beginning-of-sequence token in front, as the library's template says it; null: nothing is added.
static json_t *post_processor(const struct Vocab *v) {
    if (!v->add_bos || v->bos == UINT32_MAX)
        return json_null();
    char *bos = xsprintf("%.*s", (int)v->tokens[v->bos].bytes, v->tokens[v->bos].text);
    json_t *single = json_pack("[{s:{s:s, s:i}}, {s:{s:s, s:i}}]", "SpecialToken", "id", bos, "type_id", 0, "Sequence",
                               "id", "A", "type_id", 0);
    json_t *pair = json_pack("[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}]", "SpecialToken", "id",
                             bos, "type_id", 0, "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", bos,
                             "type_id", 1, "Sequence", "id", "B", "type_id", 1);
    json_t *special = json_object();
    json_object_set_new(special, bos,
                        json_pack("{s:s, s:[I], s:[s]}", "id", bos, "ids", (json_int_t)v->bos, "tokens", bos));
    free(bos);
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", special);
}

static void set_special(json_t *config, const char *key, const struct Vocab *v, uint32_t id) {
    json_object_set_new(config, key,
                        id == UINT32_MAX ? json_null() : json_stringn(v->tokens[id].text, v->tokens[id].bytes));
}

static json_t *tokenizer_config(const struct Vocab *v, const char *chat_template) {
    json_t *config = json_object();
    json_object_set_new(config, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    json_object_set_new(config, "add_bos_token", json_boolean(v->add_bos && v->bos != UINT32_MAX));
    if (!v->spm)
        json_object_set_new(config, "add_prefix_space", json_false());
    json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
    set_special(config, "bos_token", v, v->bos);
    set_special(config, "eos_token", v, v->eos);
    set_special(config, "unk_token", v, v->unknown);
    set_special(config, "pad_token", v, v->pad);
    if (chat_template)
        json_object_set_new(config, "chat_template", json_string(chat_template));
    return config;
}

static char *dump(json_t *root) {
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(root);
    return text;
}

static json_t *replace_step(const char *from, const char *to) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from, "content", to);
}

static json_t *normalizer(const struct Vocab *v) {
    if (!v->spm)
        return v->chain->composes ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *steps = json_array();
    if (v->add_prefix)
        json_array_append_new(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", SPM_BLANK));
    json_array_append_new(steps, replace_step(" ", SPM_BLANK));
    return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps);
}

static json_t *decoder(const struct Vocab *v) {
    if (!v->spm)
        return byte_level(true, true);
    json_t *steps =
        json_pack("[o, {s:s}, {s:s}]", replace_step(SPM_BLANK, " "), "type", "ByteFallback", "type", "Fuse");
    if (v->add_prefix)
        json_array_append_new(
            steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

static json_t *whole_json(const struct Vocab *v, json_t *pieces, json_t *added, json_t *merges) {
    json_t *unknown = v->spm && v->unknown != UINT32_MAX
                          ? json_stringn(v->tokens[v->unknown].text, v->tokens[v->unknown].bytes)
                          : json_null();
    json_t *model = json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "dropout",
                              "unk_token", unknown, "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                              (int)v->spm, "byte_fallback", (int)v->spm, "ignore_merges",
                              (int)(!v->spm && v->chain->ignore_merges), "vocab", pieces, "merges", merges);
    return json_pack("{s:s, s:n, s:n, s:O, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added, "normalizer", normalizer(v), "pre_tokenizer",
                     v->spm ? json_null() : chain_to_json(v->chain), "post_processor", post_processor(v), "decoder",
                     decoder(v), "model", model);
}

bool vocab_to_json(const struct Gguf *g, const char *chat_template, char **tokenizer_json, char **config_json) {
    struct Vocab v = {0};
    json_t *pieces = json_object(), *added = json_array(), *merges = NULL;
    bool ok = read_vocab(&v, g) && vocab_pieces(&v, g, pieces, added) && (merges = vocab_merges(&v, g, pieces));
    if (ok) {
        *tokenizer_json = dump(whole_json(&v, pieces, added, merges));
        *config_json = dump(tokenizer_config(&v, chat_template));
        ok = (*tokenizer_json && *config_json) || fail("%s: the tokenizer cannot be written as JSON", g->file.name);
    }
    json_decref(pieces);
    json_decref(added);
    json_decref(merges);
    free(v.types);
    free(v.scores);
    return ok;
}

// ---- JSON to GGUF ----

struct TokenList {
    struct GgufString *tokens; // (n)
    int32_t *types;
    char *fillers; // texts of the ids that nothing has
    uint32_t n;
};

static void token_list_done(struct TokenList *l) {
    free(l->tokens);
    free(l->types);
    free(l->fillers);
}

static bool set_token(struct TokenList *l, const json_t *id, const char *text, int32_t type, const char *where) {
    json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= (json_int_t)l->n)
        return fail("%s: token \"%.80s\" has the id %lld, but the embedding has %u rows", where, text, (long long)i,
                    l->n);
    const struct GgufString *old = &l->tokens[i];
    if (l->types[i] != SPM_UNUSED && (old->bytes != strlen(text) || memcmp(old->text, text, old->bytes) != 0))
        return fail("%s: tokens \"%.*s\" and \"%.80s\" have the same id %lld", where, (int)min_u64(old->bytes, 80),
                    old->text, text, (long long)i);
    l->tokens[i] = (struct GgufString){text, strlen(text)};
    l->types[i] = type;
    return true;
}

static bool fill_tokens(struct TokenList *l, const json_t *root, const json_t *pieces, const char *where) {
    enum { FILLER_BYTES = 24 };
    l->tokens = xcalloc(l->n, sizeof *l->tokens);
    l->types = xcalloc(l->n, sizeof *l->types);
    l->fillers = xcalloc(l->n, FILLER_BYTES);
    for (uint32_t i = 0; i < l->n; i++) {
        char *text = l->fillers + (size_t)i * FILLER_BYTES;
        l->tokens[i] = (struct GgufString){text, (size_t)snprintf(text, FILLER_BYTES, "[PAD%u]", i)};
        l->types[i] = SPM_UNUSED;
    }
    const char *text;
    json_t *id, *token;
    json_object_foreach((json_t *)pieces, text, id) {
        if (!set_token(l, id, text, SPM_NORMAL, where))
            return false;
    }
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, token) {
        const char *content = json_string_value(json_object_get(token, "content"));
        bool special = json_is_true(json_object_get(token, "special"));
        if (!content)
            return fail("%s: added_tokens[%zu] has no content", where, i);
        if (!set_token(l, json_object_get(token, "id"), content, special ? SPM_CONTROL : SPM_USER, where))
            return false;
    }
    return true;
}

// Added tokens with a property that GGUF has no place for: their names, the first of them.
struct Lost {
    char *names[3];
};
static const char *const LOST[3] = {"lstrip", "rstrip", "normalized"};

// `normalizes`: whether the tokenizer normalizes text at all; else that property says nothing.
static void lost_add(struct Lost *l, const json_t *token, bool normalizes) {
    const char *content = json_string_value(json_object_get(token, "content"));
    for (int i = 0; i < 3 && content; i++) {
        char *names = l->names[i];
        if (!json_is_true(json_object_get(token, LOST[i])) || (i == 2 && !normalizes) || (names && strlen(names) > 500))
            continue;
        l->names[i] = names ? xsprintf("%s, \"%.80s\"", names, content) : xsprintf("\"%.80s\"", content);
        free(names);
    }
}

static void lost_tell(struct Lost *l, const char *where) {
    static const char *const MEANING[3] = {"takes the blanks before it along", "takes the blanks behind it along",
                                           "is looked for in normalized text"};
    for (int i = 0; i < 3; i++) {
        if (l->names[i])
            warn("%s: %s (an added token %s) has no place in GGUF; a few texts get other ids there with %s", where,
                 LOST[i], MEANING[i], l->names[i]);
        free(l->names[i]);
    }
}

static bool write_merges(struct GgufWriter *w, const json_t *merges, const char *where) {
    size_t n = json_array_size(merges), i;
    struct GgufString *list = xcalloc(n, sizeof *list);
    char **joined = xcalloc(n, sizeof *joined);
    json_t *merge;
    bool ok = true;
    json_array_foreach(merges, i, merge) {
        const char *left = json_string_value(json_array_get(merge, 0)),
                   *right = json_string_value(json_array_get(merge, 1));
        const char *text = json_string_value(merge);
        if (left && right && json_array_size(merge) == 2 && !strchr(left, ' ') && !strchr(right, ' '))
            text = joined[i] = xsprintf("%s %s", left, right);
        ok = text || fail("%s: merges[%zu]: \"left right\" or [\"left\", \"right\"] is expected", where, i);
        if (!ok)
            break;
        list[i] = (struct GgufString){text, strlen(text)};
    }
    if (ok)
        gguf_writer_strings(w, "tokenizer.ggml.merges", list, n);
    for (i = 0; i < n; i++)
        free(joined[i]);
    free(joined);
    free(list);
    return ok;
}

// Whether the tokenizer itself puts the beginning-of-sequence token in front.
static bool adds_bos(const json_t *root, const json_t *config) {
    const json_t *post = json_object_get(root, "post_processor"), *flag = json_object_get(config, "add_bos_token");
    const json_t *parts = has_type(post, "Sequence") ? json_object_get(post, "processors") : NULL;
    for (size_t i = 0, n = parts ? json_array_size(parts) : 1; i < n; i++) {
        const json_t *part = parts ? json_array_get(parts, i) : post;
        const json_t *single = json_object_get(part, "single");
        if (has_type(part, "TemplateProcessing") && json_object_get(json_array_get(single, 0), "SpecialToken"))
            return true;
    }
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    return json_is_boolean(flag) ? json_is_true(flag) : class && strncmp(class, "Llama", 5) == 0;
}

static bool normalizes(const json_t *root) {
    const json_t *normal = json_object_get(root, "normalizer");
    return json_is_object(normal) &&
           !(has_type(normal, "Sequence") && json_array_size(json_object_get(normal, "normalizers")) == 0);
}

static void write_special(struct GgufWriter *w, const char *key, const struct TokenList *l, const json_t *config,
                          const char *name, uint32_t fallback) {
    const json_t *value = json_object_get(config, name);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    uint32_t id = 0;
    while (text && id < l->n &&
           (l->types[id] == SPM_UNUSED || l->tokens[id].bytes != strlen(text) ||
            memcmp(l->tokens[id].text, text, l->tokens[id].bytes) != 0))
        id++;
    if (!text || id == l->n)
        id = fallback;
    if (id < l->n)
        gguf_writer_u32(w, key, id);
}

static void write_specials(struct GgufWriter *w, const struct Config *c, const struct TokenList *l,
                           const json_t *config) {
    uint32_t eos = c->n_eos ? c->eos_id[0] : UINT32_MAX;
    // The model's config decides where it speaks: that is what generation stops at.
    write_special(w, "tokenizer.ggml.bos_token_id", l, c->bos_id < l->n ? NULL : config, "bos_token", c->bos_id);
    write_special(w, "tokenizer.ggml.eos_token_id", l, eos < l->n ? NULL : config, "eos_token", eos);
    write_special(w, "tokenizer.ggml.unknown_token_id", l, config, "unk_token", UINT32_MAX);
    write_special(w, "tokenizer.ggml.padding_token_id", l, config, "pad_token", c->pad_id);
    if (c->n_eos > 1 && c->eos_id[1] < l->n)
        gguf_writer_u32(w, "tokenizer.ggml.eot_token_id", c->eos_id[1]);
}

// A pre-tokenizer that GGUF has a name for, with what goes with that name; NULL after a message.
static const struct Chain *find_chain(const json_t *root, const char *where) {
    const json_t *normal = json_object_get(root, "normalizer"), *model = json_object_get(root, "model");
    const struct Chain *chain = CHAINS;
    while (chain < CHAINS + N_CHAINS && !is_chain(json_object_get(root, "pre_tokenizer"), chain))
        chain++;
    if (chain == CHAINS + N_CHAINS) {
        fail("%s: the pre_tokenizer is none of %s, so GGUF has no name for it here", where, chain_names());
        return NULL;
    }
    const json_t *steps = json_object_get(normal, "normalizers");
    bool none = !normal || json_is_null(normal) || (has_type(normal, "Sequence") && json_array_size(steps) == 0);
    bool composes =
        has_type(normal, "NFC") || (json_array_size(steps) == 1 && has_type(json_array_get(steps, 0), "NFC"));
    if (chain->composes ? !composes : !none)
        fail("%s: the normalizer is not the one that belongs to the pre-tokenizer %s, and GGUF cannot say so", where,
             chain->name);
    else if (json_is_true(json_object_get(model, "ignore_merges")) != chain->ignore_merges)
        fail("%s: ignore_merges is not what belongs to the pre-tokenizer %s, and GGUF cannot say so", where,
             chain->name);
    else
        return chain;
    return NULL;
}

static bool write_bpe(struct GgufWriter *w, const json_t *root, const struct TokenList *l, const char *where) {
    const struct Chain *chain = find_chain(root, where);
    if (!chain)
        return false;
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", chain->name);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", l->tokens, l->n);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", l->types, l->n);
    return write_merges(w, json_object_get(json_object_get(root, "model"), "merges"), where);
}

static void write_spm(struct GgufWriter *w, const struct TokenList *l, const float *scores) {
    gguf_writer_string(w, "tokenizer.ggml.model", "llama");
    gguf_writer_string(w, "tokenizer.ggml.pre", "default");
    gguf_writer_strings(w, "tokenizer.ggml.tokens", l->tokens, l->n);
    gguf_writer_f32s(w, "tokenizer.ggml.scores", scores, l->n);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", l->types, l->n);
}

static bool is_spm(const json_t *root) {
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    return (!pre || json_is_null(pre) || has_type(pre, "Metaspace")) &&
           json_is_true(json_object_get(json_object_get(root, "model"), "byte_fallback"));
}

// Whether blanks go in front: GGUF knows it of every stretch between special tokens or of none.
static bool has_prefix(const json_t *root, const char *where) {
    const json_t *pre = json_object_get(root, "pre_tokenizer"), *normal = json_object_get(root, "normalizer"), *step;
    const char *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
    bool prefix = has_type(normal, "Prepend");
    size_t i;
    json_array_foreach(json_object_get(normal, "normalizers"), i, step) prefix |= has_type(step, "Prepend");
    if (!has_type(pre, "Metaspace") || (scheme && strcmp(scheme, "never") == 0))
        return prefix;
    warn("%s: a blank goes in front of %s; GGUF can only say \"of every stretch between special tokens\": a few "
         "texts get another id there",
         where, scheme && strcmp(scheme, "first") == 0 ? "the first text alone" : "texts that do not begin with one");
    return true;
}

static bool write_json_spm(struct GgufWriter *w, const json_t *root, struct TokenList *l, const char *where) {
    const json_t *model = json_object_get(root, "model");
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    float *scores = xcalloc(l->n, sizeof *scores);
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->types[i] == SPM_NORMAL && build_parse_byte(l->tokens[i].text, l->tokens[i].bytes) >= 0)
            l->types[i] = SPM_BYTE;
        if (unknown && l->types[i] != SPM_UNUSED && strcmp(l->tokens[i].text, unknown) == 0)
            l->types[i] = SPM_UNKNOWN;
    }
    bool ok = vocabspm_scores(json_object_get(model, "vocab"), json_object_get(model, "merges"), scores, l->n, where);
    if (ok)
        write_spm(w, l, scores);
    free(scores);
    return ok;
}

static bool write_json_vocab(struct GgufWriter *w, const struct Config *c, const json_t *root, const json_t *config,
                             const char *where) {
    const json_t *model = json_object_get(root, "model"), *pieces = json_object_get(model, "vocab");
    if (!json_is_object(pieces) || !json_is_array(json_object_get(model, "merges")))
        return fail("%s: a BPE model with vocab and merges is expected", where);
    struct TokenList l = {.n = c->vocab_size};
    bool ok = fill_tokens(&l, root, pieces, where) &&
              (is_spm(root) ? write_json_spm(w, root, &l, where) : write_bpe(w, root, &l, where));
    if (ok) {
        write_specials(w, c, &l, config);
        gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", is_spm(root) && has_prefix(root, where));
        gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", adds_bos(root, config));
        struct Lost lost = {0};
        const json_t *token;
        size_t i;
        json_array_foreach(json_object_get(root, "added_tokens"), i, token) lost_add(&lost, token, normalizes(root));
        lost_tell(&lost, where);
    }
    token_list_done(&l);
    return ok;
}

bool vocab_to_gguf(struct GgufWriter *w, const struct Config *c, const char *tokenizer_json, size_t bytes,
                   const char *config_text, size_t config_bytes, const char *chat_template, const char *where) {
    json_t *root = json_parse(tokenizer_json, bytes, where);
    json_t *config = config_text ? json_parse(config_text, config_bytes, where) : NULL;
    bool ok = root && (config || !config_text) && write_json_vocab(w, c, root, config, where);
    if (ok && chat_template)
        gguf_writer_string(w, "tokenizer.chat_template", chat_template);
    json_decref(root);
    json_decref(config);
    return ok;
}

// ---- tokenizer.model to GGUF ----

static bool write_model_vocab(struct GgufWriter *w, const struct Config *c, const struct SpmFile *s,
                              const json_t *config, const char *where) {
    if (s->n > c->vocab_size)
        return fail("%s: %u pieces, but the embedding has %u rows", where, s->n, c->vocab_size);
    struct TokenList l = {.n = c->vocab_size};
    float *scores = xcalloc(l.n, sizeof *scores);
    struct Lost lost = {0};
    const char *key;
    json_t *value;
    bool ok = fill_tokens(&l, NULL, NULL, where);
    for (uint32_t i = 0; i < s->n; i++) {
        l.tokens[i] = (struct GgufString){s->pieces[i].text, s->pieces[i].bytes};
        l.types[i] = (int32_t)s->pieces[i].type;
        scores[i] = s->pieces[i].score;
    }
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, value) {
        json_t *id = json_integer(strtoll(key, NULL, 10));
        const char *text = json_string_value(json_object_get(value, "content"));
        bool special = json_is_true(json_object_get(value, "special"));
        if (ok && text && json_integer_value(id) >= (json_int_t)s->n) { // those below are pieces
            ok = set_token(&l, id, text, special ? SPM_CONTROL : SPM_USER, where);
            lost_add(&lost, value, true);
        }
        json_decref(id);
    }
    if (ok) {
        write_spm(w, &l, scores);
        write_specials(w, c, &l, config);
        gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", s->dummy_prefix);
        gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", !config || adds_bos(NULL, config));
    }
    lost_tell(&lost, where);
    free(scores);
    token_list_done(&l);
    return ok;
}

bool vocab_model_to_gguf(struct GgufWriter *w, const struct Config *c, const void *data, size_t bytes,
                         const char *config_text, size_t config_bytes, const char *chat_template, const char *where) {
    struct SpmFile s;
    if (!spmfile_parse(&s, data, bytes, where))
        return false;
    json_t *config = config_text ? json_parse(config_text, config_bytes, where) : NULL;
    bool ok = (config || !config_text) && write_model_vocab(w, c, &s, config, where);
    if (ok && chat_template)
        gguf_writer_string(w, "tokenizer.chat_template", chat_template);
    json_decref(config);
    spmfile_free(&s);
    return ok;
}

bool vocab_copy_gguf(struct GgufWriter *w, const struct Config *c, const struct Gguf *g, const char *chat_template) {
    const struct GgufString *tokens = NULL;
    uint64_t count = 0;
    if (!gguf_get_strings(g, "tokenizer.ggml.tokens", false, &tokens, &count))
        return false;
    if (tokens && count != c->vocab_size)
        return fail("%s: the vocabulary has %llu tokens, but the embedding %u rows", g->file.name,
                    (unsigned long long)count, c->vocab_size);
    for (uint64_t i = 0; i < g->n_values; i++) {
        const struct GgufValue *v = &g->values[i];
        bool template = strcmp(v->key, "tokenizer.chat_template") == 0;
        if (strncmp(v->key, "tokenizer.", 10) == 0 && !(template && chat_template))
            gguf_writer_copy(w, v);
    }
    if (chat_template)
        gguf_writer_string(w, "tokenizer.chat_template", chat_template);
    return true;
}
