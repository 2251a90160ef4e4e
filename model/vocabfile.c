// See vocabfile.h. What decides about ids (pieces, merges, patterns, added tokens) is carried over exactly or refused.
#include "model/vocabfile.h"
#include "model/chains.h"
#include "model/json.h"

#include <stdlib.h>
#include <string.h>

enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED };

// ---- Pre-tokenizers ----

// \x{..} as the characters themselves: the way tokenizer.json writes its patterns.
static char *plain_pattern(const char *pattern) {
    char *out = xmalloc(strlen(pattern) + 1), *to = out;
    while (*pattern) {
        if (strncmp(pattern, "\\x{", 3) != 0) {
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

static json_t *chain_to_json(int chain) {
    json_t *parts = json_array();
    for (int i = 0; i < CHAIN_PATTERNS && CHAINS[chain].patterns[i]; i++) {
        char *text = plain_pattern(CHAINS[chain].patterns[i]);
        json_array_append_new(parts, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", text,
                                               "behavior", "Isolated", "invert", 0));
        free(text);
    }
    if (CHAINS[chain].digits)
        json_array_append_new(parts, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    json_array_append_new(parts, byte_level(false, CHAINS[chain].byte_level_regex));
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
    char *a = plain_pattern(pattern), *b = plain_pattern(regex);
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

static bool is_chain(const json_t *pre, int chain) {
    const json_t *parts = has_type(pre, "Sequence") ? json_object_get(pre, "pretokenizers") : NULL;
    size_t n = parts ? json_array_size(parts) : 1, at = 0;
    for (int i = 0; i < CHAIN_PATTERNS && CHAINS[chain].patterns[i]; i++, at++) {
        if (at >= n || !parts || !same_split(json_array_get(parts, at), CHAINS[chain].patterns[i]))
            return false;
    }
    if (CHAINS[chain].digits) {
        const json_t *part = parts ? json_array_get(parts, at) : NULL;
        if (!has_type(part, "Digits") || !json_is_true(json_object_get(part, "individual_digits")))
            return false;
        at++;
    }
    return at + 1 == n && same_byte_level(parts ? json_array_get(parts, at) : pre, CHAINS[chain].byte_level_regex);
}

// ---- GGUF to JSON ----

static bool is_filler(const struct GgufString *token, uint64_t id) {
    char text[32];
    int n = snprintf(text, sizeof text, "[PAD%llu]", (unsigned long long)id);
    return token->bytes == (size_t)n && memcmp(token->text, text, token->bytes) == 0;
}

struct Vocab {
    const struct GgufString *tokens, *merges;
    int32_t *types;
    uint64_t n_tokens, n_merges, n_types;
    int chain;
    bool add_bos, add_eos, add_prefix;
    uint32_t bos, eos, unknown, pad; // UINT32_MAX: none
};

static bool read_chain(struct Vocab *v, const struct Gguf *g) {
    char *model = NULL, *pre = NULL;
    bool ok = gguf_get_string(g, "tokenizer.ggml.model", true, &model);
    if (ok && strcmp(model, "gpt2") != 0)
        ok = fail("%s: tokenizer.ggml.model is \"%.80s\"; XX", g->file.name, model);
    ok = ok && gguf_get_string(g, "tokenizer.ggml.pre", true, &pre);
    for (v->chain = 0; ok && v->chain < N_CHAINS && strcmp(CHAINS[v->chain].name, pre) != 0;)
        v->chain++;
    if (ok && v->chain == N_CHAINS)
        ok =
            fail("%s: pre-tokenizer \"%.80s\" is not supported; gpt-2, smollm and deepseek-llm are", g->file.name, pre);
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

static bool read_vocab(struct Vocab *v, const struct Gguf *g) {
    if (!read_chain(v, g) || !gguf_get_strings(g, "tokenizer.ggml.tokens", true, &v->tokens, &v->n_tokens) ||
        !gguf_get_strings(g, "tokenizer.ggml.merges", true, &v->merges, &v->n_merges) ||
        !gguf_get_i32s(g, "tokenizer.ggml.token_type", true, &v->types, &v->n_types) ||
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
    if (v->add_eos || v->add_prefix)
        return fail("%s: %s is true, which is not supported", g->file.name,
                    v->add_eos ? "tokenizer.ggml.add_eos_token" : "tokenizer.ggml.add_space_prefix");
    return true;
}

// Pieces and added tokens. Fillers behind the last real token stay out: the library numbers by what is listed.
static bool vocab_pieces(const struct Vocab *v, const struct Gguf *g, json_t *pieces, json_t *added) {
    uint64_t n = v->n_tokens;
    while (n > 0 && (is_filler(&v->tokens[n - 1], n - 1) || v->types[n - 1] == TOKEN_UNUSED))
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
        bool special = v->types[i] == TOKEN_CONTROL || v->types[i] == TOKEN_UNKNOWN;
        if ((special || v->types[i] == TOKEN_USER) && !is_filler(token, i))
            json_array_append_new(added, json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                                   "content", text, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                                   "normalized", 0, "special", (int)special));
        json_decref(text);
    }
    return true;
}

static bool vocab_merges(const struct Vocab *v, const struct Gguf *g, json_t *merges) {
    for (uint64_t i = 0; i < v->n_merges; i++) {
        json_t *text = json_stringn(v->merges[i].text, v->merges[i].bytes);
        if (!text)
            return fail("%s: merge %llu is no UTF-8 text", g->file.name, (unsigned long long)i);
        json_array_append_new(merges, text);
    }
    return true;
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

bool vocab_to_json(const struct Gguf *g, const char *chat_template, char **tokenizer_json, char **config_json) {
    struct Vocab v = {0};
    json_t *pieces = json_object(), *added = json_array(), *merges = json_array();
    bool ok = read_vocab(&v, g) && vocab_pieces(&v, g, pieces, added) && vocab_merges(&v, g, merges);
    if (ok) {
        json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "dropout",
                                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                                  "byte_fallback", 0, "ignore_merges", 0, "vocab", pieces, "merges", merges);
        json_t *root =
            json_pack("{s:s, s:n, s:n, s:O, s:n, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                      "added_tokens", added, "normalizer", "pre_tokenizer", chain_to_json(v.chain), "post_processor",
                      post_processor(&v), "decoder", byte_level(true, true), "model", model);
        *tokenizer_json = dump(root);
        *config_json = dump(tokenizer_config(&v, chat_template));
        ok = (*tokenizer_json && *config_json) || fail("%s: the tokenizer cannot be written as JSON", g->file.name);
    }
    json_decref(pieces);
    json_decref(added);
    json_decref(merges);
    free(v.types);
    return ok;
}

// ---- JSON to GGUF ----

struct TokenList {
    struct GgufString *tokens; // (n)
    int32_t *types;
    char *fillers; // texts of the ids that nothing has
    uint32_t n;
};

static bool set_token(struct TokenList *l, const json_t *id, const char *text, int32_t type, const char *where) {
    json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= (json_int_t)l->n)
        return fail("%s: token \"%.80s\" has the id %lld, but the embedding has %u rows", where, text, (long long)i,
                    l->n);
    bool taken = l->types[i] != TOKEN_UNUSED;
    if (taken && strcmp(l->tokens[i].text, text) != 0)
        return fail("%s: tokens \"%.80s\" and \"%.80s\" have the same id %lld", where, l->tokens[i].text, text,
                    (long long)i);
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
        l->types[i] = TOKEN_UNUSED;
    }
    const char *text;
    json_t *id, *token;
    json_object_foreach((json_t *)pieces, text, id) {
        if (!set_token(l, id, text, TOKEN_NORMAL, where))
            return false;
    }
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, token) {
        const char *content = json_string_value(json_object_get(token, "content"));
        bool special = json_is_true(json_object_get(token, "special"));
        if (!content)
            return fail("%s: added_tokens[%zu] has no content", where, i);
        if (!set_token(l, json_object_get(token, "id"), content, special ? TOKEN_CONTROL : TOKEN_USER, where))
            return false;
    }
    return true;
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

static void write_special(struct GgufWriter *w, const char *key, const struct TokenList *l, const json_t *config,
                          const char *name, uint32_t fallback) {
    const json_t *value = json_object_get(config, name);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    uint32_t id = 0;
    while (text && id < l->n && (l->types[id] == TOKEN_UNUSED || strcmp(l->tokens[id].text, text) != 0))
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

static bool write_json_vocab(struct GgufWriter *w, const struct Config *c, const json_t *root, const json_t *config,
                             const char *where) {
    const json_t *model = json_object_get(root, "model"), *pieces = json_object_get(model, "vocab");
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    int chain = 0;
    while (chain < N_CHAINS && !is_chain(pre, chain))
        chain++;
    if (!json_is_object(pieces) || !json_is_array(json_object_get(model, "merges")))
        return fail("%s: a BPE model with vocab and merges is expected", where);
    if (chain == N_CHAINS)
        return fail("%s: the pre_tokenizer is none of gpt-2, smollm and deepseek-llm, so GGUF has no name for it here",
                    where);
    struct TokenList l = {.n = c->vocab_size};
    bool ok = fill_tokens(&l, root, pieces, where);
    if (ok) {
        gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
        gguf_writer_string(w, "tokenizer.ggml.pre", CHAINS[chain].name);
        gguf_writer_strings(w, "tokenizer.ggml.tokens", l.tokens, l.n);
        gguf_writer_i32s(w, "tokenizer.ggml.token_type", l.types, l.n);
        ok = write_merges(w, json_object_get(model, "merges"), where);
    }
    if (ok) {
        write_specials(w, c, &l, config);
        gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", false);
        gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", adds_bos(root, config));
    }
    free(l.tokens);
    free(l.types);
    free(l.fillers);
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
