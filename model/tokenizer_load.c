// Reads tokenizer.json (Hugging Face's tokenizers library writes it) and the tokenizer keys of GGUF. Every part that
// decides about ids is honoured or refused by name. Truncation and padding are the caller's affair and are not looked at.
#include "model/json.h"
#include "model/modelfile.h"
#include "model/tokenizer.h"
#include "model/tokenizer_build.h"

#include <stdlib.h>
#include <string.h>

enum { JSON_MAX_BYTES = 256 << 20 };

static const char *type_of(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "(none)";
}

static bool is_type(const json_t *object, const char *type) { return strcmp(type_of(object), type) == 0; }
static bool is_absent(const json_t *value) { return !value || json_is_null(value); }
static bool is_absent_or_empty(const json_t *value) { return is_absent(value) || json_string_length(value) == 0; }

// ---- pre_tokenizer, normalizer, decoder, post_processor ----

static bool read_behavior(const json_t *object, enum SplitBehavior *behavior, const char *where) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(object, "behavior"));
    for (unsigned i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *behavior = (enum SplitBehavior)i;
            return true;
        }
    return fail("%s: pre_tokenizer Split: behavior '%s' is not known", where, name ? name : "(none)");
}

static bool read_split(struct Pretokenizer *p, const json_t *object, const char *where) {
    enum SplitBehavior behavior = SPLIT_ISOLATED;
    bool invert = false;
    if (!read_behavior(object, &behavior, where) || !json_get_bool(object, "invert", &invert, where))
        return false;
    const json_t *pattern = json_object_get(object, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *string = json_string_value(json_object_get(pattern, "String"));
    if (regex)
        return pretokenizer_add_regex(p, regex, behavior, invert, where);
    if (string)
        return pretokenizer_add_string(p, string, behavior, invert, where);
    return fail("%s: pre_tokenizer Split: a pattern {\"Regex\": ...} or {\"String\": ...} is expected", where);
}

static bool read_byte_level(struct Pretokenizer *p, const json_t *object, const char *where) {
    bool prefix = true, regex = true;
    if (!json_get_bool(object, "add_prefix_space", &prefix, where) ||
        !json_get_bool(object, "use_regex", &regex, where))
        return false;
    p->add_prefix_space = prefix;
    p->prefix_step = p->n_splits;
    return !regex || pretokenizer_add_regex(p, PATTERN_GPT2, SPLIT_ISOLATED, false, where);
}

static bool read_pre_tokenizer(struct Pretokenizer *p, const json_t *object, bool *byte_level, const char *where) {
    if (is_absent(object))
        return true;
    if (is_type(object, "Sequence")) {
        size_t i;
        json_t *part;
        const json_t *parts = json_object_get(object, "pretokenizers");
        if (!json_is_array(parts))
            return fail("%s: pre_tokenizer Sequence: an array 'pretokenizers' is expected", where);
        json_array_foreach(parts, i, part) if (!read_pre_tokenizer(p, part, byte_level, where)) return false;
        return true;
    }
    if (*byte_level)
        return fail("%s: pre_tokenizer '%s' behind ByteLevel is not known here", where, type_of(object));
    if (is_type(object, "ByteLevel")) {
        *byte_level = true;
        return read_byte_level(p, object, where);
    }
    if (is_type(object, "Digits")) {
        bool individual = false;
        return json_get_bool(object, "individual_digits", &individual, where) &&
               pretokenizer_add_regex(p, PATTERN_DIGIT, individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false, where);
    }
    if (is_type(object, "Split"))
        return read_split(p, object, where);
    return fail("%s: pre_tokenizer '%s' is not known here; known are Sequence, Split, Digits and ByteLevel", where,
                type_of(object));
}

static bool check_normalizer(const json_t *object, const char *where) {
    if (is_absent(object) ||
        (is_type(object, "Sequence") && json_array_size(json_object_get(object, "normalizers")) == 0))
        return true;
    return fail("%s: normalizer '%s' is not known here; only none is", where, type_of(object));
}

static bool check_decoder(const json_t *object, const char *where) {
    const json_t *parts = json_object_get(object, "decoders");
    if (is_type(object, "Sequence") && json_array_size(parts) == 1)
        object = json_array_get(parts, 0);
    return is_type(object, "ByteLevel") || fail("%s: decoder '%s' is not known here; ByteLevel is expected", where,
                                                json_is_null(object) ? "null" : type_of(object));
}

// A template like [bos, the text]: its token goes to *bos. What stands behind the text would end every prompt.
static bool read_template(const json_t *object, const char **bos, const char *where) {
    const json_t *single = json_object_get(object, "single"), *part;
    size_t n = json_array_size(single);
    for (size_t i = 0; i < n; i++) {
        part = json_array_get(single, i);
        const char *id = json_string_value(json_object_get(json_object_get(part, "SpecialToken"), "id"));
        bool text = json_is_object(json_object_get(part, "Sequence"));
        if (text && i + 1 == n)
            return true;
        if (text || !id || i > 0)
            break;
        const json_t *token = json_object_get(json_object_get(object, "special_tokens"), id);
        const char *content = json_string_value(json_array_get(json_object_get(token, "tokens"), 0));
        if (json_array_size(json_object_get(token, "tokens")) > 1)
            break;
        *bos = content ? content : id;
    }
    return fail("%s: post_processor TemplateProcessing: the text, or one token and the text, is expected", where);
}

static bool read_post_processor(const json_t *object, const char **bos, const char *where) {
    if (is_absent(object) || is_type(object, "ByteLevel")) // ByteLevel here touches offsets alone
        return true;
    if (is_type(object, "TemplateProcessing"))
        return read_template(object, bos, where);
    if (is_type(object, "Sequence")) {
        size_t i;
        json_t *part;
        json_array_foreach(json_object_get(object, "processors"), i, part) {
            if (!is_absent(part) && is_type(part, "Sequence"))
                return fail("%s: post_processor: a Sequence inside a Sequence is not known here", where);
            if (!read_post_processor(part, bos, where))
                return false;
        }
        return true;
    }
    return fail("%s: post_processor '%s' is not known here", where, type_of(object));
}

// ---- model ----

// Highest id of vocabulary and added tokens + 1. Ids may have holes, but not so many that a small file asks for much memory.
static bool count_ids(const json_t *vocab, const json_t *added, uint32_t *n_vocab, const char *where) {
    const char *key;
    json_t *value;
    size_t i;
    json_int_t highest = -1, limit = 2 * (json_int_t)(json_object_size(vocab) + json_array_size(added)) + 4096;
    json_object_foreach((json_t *)vocab, key, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= limit)
            return fail("%s: vocab: the id of '%.80s' must be a number from 0 to %lld", where, key,
                        (long long)limit - 1);
        if (id > highest)
            highest = id;
    }
    json_array_foreach(added, i, value) {
        const json_t *number = json_object_get(value, "id");
        json_int_t id = json_is_integer(number) ? json_integer_value(number) : -1;
        if (id < 0 || id >= limit)
            return fail("%s: added_tokens[%zu]: id must be a number from 0 to %lld", where, i, (long long)limit - 1);
        if (id > highest)
            highest = id;
    }
    if (highest < 0)
        return fail("%s: the vocabulary is empty", where);
    *n_vocab = (uint32_t)highest + 1;
    return true;
}

static bool read_vocab(struct Tokenizer *t, const json_t *vocab, const char *where) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)vocab, key, value) {
        uint32_t id = (uint32_t)json_integer_value(value);
        if (t->pieces[id].bytes)
            return fail("%s: vocab: '%.80s' has the id %u, and so has another token", where, key, id);
        build_vocab(t, id, key, strlen(key));
    }
    return true;
}

static bool read_merge(struct Tokenizer *t, const json_t *merge, uint32_t rank, const char *where) {
    const char *text = json_string_value(merge), *left = json_string_value(json_array_get(merge, 0)),
               *right = json_string_value(json_array_get(merge, 1));
    if (left && right && json_array_size(merge) == 2)
        return build_merge(t, left, strlen(left), right, strlen(right), rank, where);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return fail("%s: merges[%u]: \"left right\" or [\"left\", \"right\"] is expected", where, rank);
    return build_merge(t, text, (size_t)(space - text), space + 1, strlen(space + 1), rank, where);
}

// The tokenizers library numbers added tokens itself: one of the vocabulary keeps its id, others follow the highest so far. A file
// that says otherwise would mean one thing there and another here.
static bool check_added_id(const json_t *vocab, const char *content, uint32_t id, uint32_t *next, size_t i,
                           const char *where) {
    const json_t *known = json_object_get(vocab, content);
    json_int_t expected = known ? json_integer_value(known) : *next;
    if (expected != id)
        return fail("%s: added_tokens[%zu]: '%.80s' has the id %u, %lld is expected", where, i, content, id,
                    (long long)expected);
    if (id >= *next)
        *next = id + 1;
    return true;
}

static bool read_added(struct Tokenizer *t, const json_t *vocab, const json_t *added, const char *where) {
    size_t i;
    json_t *value;
    uint32_t next = (uint32_t)json_object_size(vocab);
    json_array_foreach(added, i, value) {
        const char *content = NULL;
        bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = false;
        if (!json_is_object(value))
            return fail("%s: added_tokens[%zu]: an object is expected", where, i);
        if (!json_get_string(value, "content", &content, where) || !json_get_bool(value, "special", &special, where) ||
            !json_get_bool(value, "single_word", &single_word, where) ||
            !json_get_bool(value, "lstrip", &lstrip, where) || !json_get_bool(value, "rstrip", &rstrip, where) ||
            !json_get_bool(value, "normalized", &normalized, where))
            return false;
        if (!content)
            return fail("%s: added_tokens[%zu] has no content", where, i);
        if (single_word)
            return fail("%s: added_tokens[%zu]: single_word is not known here", where, i);
        uint32_t id = (uint32_t)json_integer_value(json_object_get(value, "id"));
        if (!check_added_id(vocab, content, id, &next, i, where) ||
            !build_added(t, id, content, strlen(content), special ? PIECE_SPECIAL : PIECE_ADDED, normalized, where))
            return false;
        t->pieces[id].lstrip = lstrip;
        t->pieces[id].rstrip = rstrip;
    }
    return true;
}

// A byte without a token becomes unk_token, or is left out where there is none. Other ways are not known here; they do not
// matter where every byte that UTF-8 can hold has a token.
static bool read_unknown(struct Tokenizer *t, const json_t *model, const char *where) {
    const json_t *unknown = json_object_get(model, "unk_token");
    bool fallback = false, fuse = false, covered = true;
    if (!json_get_bool(model, "byte_fallback", &fallback, where) || !json_get_bool(model, "fuse_unk", &fuse, where))
        return false;
    if (!is_absent(unknown)) {
        const json_t *id = json_object_get(json_object_get(model, "vocab"), json_string_value(unknown));
        if (!json_is_integer(id))
            return fail("%s: model: unk_token is not in the vocabulary", where);
        t->unknown_id = (uint32_t)json_integer_value(id);
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        bool possible = byte != 0xc0 && byte != 0xc1 && byte < 0xf5;
        covered &= !possible || build_find(t, &(char){(char)byte}, 1) != TOKEN_NONE;
    }
    if (!covered && (fallback || (fuse && t->unknown_id != TOKEN_NONE)))
        return fail("%s: model: %s where not every byte has a token is not known here", where,
                    fallback ? "byte_fallback" : "fuse_unk");
    build_bytes(t);
    return true;
}

static bool check_model(const json_t *model, const char *where) {
    if (!is_absent(json_object_get(model, "type")) && !is_type(model, "BPE")) // old files do not say
        return fail("%s: model type '%s' is not known here; BPE is expected", where, type_of(model));
    if (!json_is_object(json_object_get(model, "vocab")) || !json_is_array(json_object_get(model, "merges")))
        return fail("%s: model: an object 'vocab' and an array 'merges' are expected", where);
    const json_t *dropout = json_object_get(model, "dropout");
    if (!is_absent(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return fail("%s: model: dropout is not known here", where);
    if (!is_absent_or_empty(json_object_get(model, "continuing_subword_prefix")))
        return fail("%s: model: continuing_subword_prefix is not known here", where);
    if (!is_absent_or_empty(json_object_get(model, "end_of_word_suffix")))
        return fail("%s: model: end_of_word_suffix is not known here", where);
    return true;
}

static bool read_model(struct Tokenizer *t, const json_t *root, const char *where) {
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    if (!check_model(model, where))
        return false;
    const json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    if (!is_absent(added) && !json_is_array(added))
        return fail("%s: added_tokens: an array is expected", where);
    uint32_t n_vocab = 0;
    if (!count_ids(vocab, added, &n_vocab, where))
        return false;
    bool ignore_merges = false;
    if (!json_get_bool(model, "ignore_merges", &ignore_merges, where))
        return false;
    build_begin(t, n_vocab, (uint32_t)json_array_size(merges));
    t->ignore_merges = ignore_merges;
    if (!read_vocab(t, vocab, where) || !read_unknown(t, model, where))
        return false;
    size_t i;
    json_t *merge;
    json_array_foreach(merges, i, merge) {
        if (!read_merge(t, merge, (uint32_t)i, where))
            return false;
    }
    return read_added(t, vocab, added, where);
}

// ---- tokenizer_config.json ----

// bos_token and its like are a text or an object with one.
static bool read_special_id(const struct Tokenizer *t, const json_t *config, const char *key, uint32_t *id,
                            const char *where) {
    const json_t *value = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    if (is_absent(value))
        return true;
    if (!text)
        return fail("%s: tokenizer_config.json: %s: a text is expected", where, key);
    *id = tokenizer_find(t, text);
    return *id != TOKEN_NONE ||
           fail("%s: tokenizer_config.json: %s '%.80s' is not in the vocabulary", where, key, text);
}

// Who puts the beginning-of-sequence token first: the post processor, else add_bos_token, else the class: LLaMA's does.
static bool read_config(struct Tokenizer *t, const json_t *config, const char *template_bos, const char *where) {
    if (!read_special_id(t, config, "bos_token", &t->bos_id, where) ||
        !read_special_id(t, config, "eos_token", &t->eos_id, where) ||
        !read_special_id(t, config, "pad_token", &t->pad_id, where))
        return false;
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    bool add_bos = class && strncmp(class, "Llama", 5) == 0, add_eos = false;
    if (!json_get_bool(config, "add_bos_token", &add_bos, where) ||
        !json_get_bool(config, "add_eos_token", &add_eos, where))
        return false;
    if (add_eos)
        return fail("%s: tokenizer_config.json: add_eos_token would end every prompt; it is not known here", where);
    if (template_bos) {
        uint32_t id = tokenizer_find(t, template_bos);
        if (id == TOKEN_NONE || (t->bos_id != TOKEN_NONE && t->bos_id != id))
            return fail("%s: post_processor begins with '%.80s', which is not bos_token", where, template_bos);
        t->bos_id = id;
        add_bos = true;
    }
    t->add_bos = add_bos && t->bos_id != TOKEN_NONE;
    return true;
}

static bool open_json(struct Tokenizer *t, const json_t *root, const json_t *config, const char *where) {
    const char *template_bos = NULL;
    bool byte_level = false;
    if (!json_is_object(root) || !json_is_object(json_object_get(root, "model")))
        return fail("%s: an object with a 'model' is expected", where);
    if (!check_normalizer(json_object_get(root, "normalizer"), where) ||
        !read_pre_tokenizer(&t->pre, json_object_get(root, "pre_tokenizer"), &byte_level, where))
        return false;
    if (!byte_level)
        return fail("%s: a ByteLevel pre_tokenizer is expected; others are not known here", where);
    return check_decoder(json_object_get(root, "decoder"), where) &&
           read_post_processor(json_object_get(root, "post_processor"), &template_bos, where) &&
           read_model(t, root, where) && read_config(t, config, template_bos, where) && build_end(t, where);
}

static bool begin(struct Tokenizer *t) {
    *t = (struct Tokenizer){.bos_id = TOKEN_NONE, .eos_id = TOKEN_NONE, .pad_id = TOKEN_NONE};
    return true;
}

bool tokenizer_open_json(struct Tokenizer *t, const char *text, size_t bytes, const char *config, size_t config_bytes,
                         const char *where) {
    json_t *root = NULL, *settings = NULL;
    bool ok = begin(t) && (root = json_parse(text, bytes, where)) &&
              (!config || (settings = json_parse(config, config_bytes, where))) && open_json(t, root, settings, where);
    json_decref(root);
    json_decref(settings);
    if (!ok)
        tokenizer_free(t);
    return ok;
}

// ---- GGUF ----

enum { GGUF_TOKEN_NORMAL = 1, GGUF_TOKEN_UNKNOWN, GGUF_TOKEN_CONTROL, GGUF_TOKEN_USER, GGUF_TOKEN_UNUSED };

// Converters fill the vocabulary up to the embedding's rows with such names; no text means them.
static bool is_filler(struct GgufString text, uint32_t id) {
    char filler[24];
    int n = snprintf(filler, sizeof filler, "[PAD%u]", id);
    return text.bytes == (size_t)n && memcmp(text.text, filler, text.bytes) == 0;
}

static bool read_gguf_tokens(struct Tokenizer *t, const struct GgufString *tokens, const int32_t *types,
                             const char *where) {
    for (uint32_t id = 0; id < t->n_vocab; id++)
        if (types[id] == GGUF_TOKEN_NORMAL)
            build_vocab(t, id, tokens[id].text, tokens[id].bytes);
    build_bytes(t);
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        if (types[id] == GGUF_TOKEN_NORMAL || types[id] == GGUF_TOKEN_UNUSED || is_filler(tokens[id], id))
            continue;
        if (types[id] < GGUF_TOKEN_UNKNOWN || types[id] > GGUF_TOKEN_USER)
            return fail("%s: tokenizer.ggml.token_type[%u] is %d, which byte-level BPE does not have", where, id,
                        types[id]);
        enum PieceKind kind = types[id] == GGUF_TOKEN_USER ? PIECE_ADDED : PIECE_SPECIAL;
        if (!build_added(t, id, tokens[id].text, tokens[id].bytes, kind, false, where))
            return false;
    }
    return true;
}

static bool read_gguf_merges(struct Tokenizer *t, const struct GgufString *merges, uint64_t n, const char *where) {
    for (uint32_t i = 0; i < n; i++) {
        const char *text = merges[i].text, *end = text + merges[i].bytes, *space = memchr(text, ' ', merges[i].bytes);
        if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
            return fail("%s: tokenizer.ggml.merges[%u]: \"left right\" is expected", where, i);
        if (!build_merge(t, text, (size_t)(space - text), space + 1, (size_t)(end - space - 1), i, where))
            return false;
    }
    return true;
}

static bool read_gguf_id(const struct Gguf *g, const char *key, uint32_t n_vocab, uint32_t *id, const char *where) {
    if (!gguf_get_u32(g, key, false, id))
        return false;
    return *id == TOKEN_NONE || *id < n_vocab ||
           fail("%s: %s is %u, but there are %u tokens", where, key, *id, n_vocab);
}

static bool read_gguf_vocab(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    const struct GgufString *tokens = NULL, *merges = NULL;
    uint64_t n_tokens = 0, n_merges = 0, n_types = 0;
    int32_t *types = NULL;
    if (!gguf_get_strings(g, "tokenizer.ggml.tokens", true, &tokens, &n_tokens) ||
        !gguf_get_strings(g, "tokenizer.ggml.merges", true, &merges, &n_merges) ||
        !gguf_get_i32s(g, "tokenizer.ggml.token_type", true, &types, &n_types))
        return false;
    bool ok = n_tokens > 0 && n_tokens == n_types && n_tokens < (1u << 24) && n_merges < (1u << 26);
    if (!ok)
        fail("%s: %llu tokens, %llu token types and %llu merges do not make a vocabulary", where,
             (unsigned long long)n_tokens, (unsigned long long)n_types, (unsigned long long)n_merges);
    if (ok) {
        build_begin(t, (uint32_t)n_tokens, (uint32_t)n_merges);
        ok = read_gguf_tokens(t, tokens, types, where) && read_gguf_merges(t, merges, n_merges, where);
    }
    free(types);
    return ok;
}

static bool read_gguf_pre(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    char *model = NULL, *pre = NULL;
    bool ok = gguf_get_string(g, "tokenizer.ggml.model", true, &model);
    if (ok && strcmp(model, "gpt2") != 0)
        ok =
            fail("%s: tokenizer.ggml.model '%.80s' is not known here; gpt2 (byte-level BPE) is expected", where, model);
    ok = ok && gguf_get_string(g, "tokenizer.ggml.pre", true, &pre) && pretokenizer_by_name(&t->pre, pre, where);
    free(model);
    free(pre);
    return ok;
}

static bool open_gguf(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    bool add_bos = false, add_eos = false, prefix = false;
    if (!read_gguf_pre(t, g, where) || !read_gguf_vocab(t, g, where) ||
        !read_gguf_id(g, "tokenizer.ggml.bos_token_id", t->n_vocab, &t->bos_id, where) ||
        !read_gguf_id(g, "tokenizer.ggml.eos_token_id", t->n_vocab, &t->eos_id, where) ||
        !read_gguf_id(g, "tokenizer.ggml.padding_token_id", t->n_vocab, &t->pad_id, where) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", false, &add_bos) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_eos_token", false, &add_eos) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", false, &prefix))
        return false;
    if (add_eos || prefix)
        return fail("%s: %s is not known here", where,
                    add_eos ? "tokenizer.ggml.add_eos_token" : "tokenizer.ggml.add_space_prefix");
    t->add_bos = add_bos && t->bos_id != TOKEN_NONE;
    return build_end(t, where);
}

bool tokenizer_open_gguf(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    bool ok = begin(t) && open_gguf(t, g, where);
    if (!ok)
        tokenizer_free(t);
    return ok;
}

// ---- A model's ----

static bool open_files(struct Tokenizer *t, const char *path, const char *config_path) {
    uint8_t *text = NULL, *config = NULL;
    uint64_t bytes = 0, config_bytes = 0;
    bool ok = file_read(path, JSON_MAX_BYTES, &text, &bytes) &&
              (!config_path || file_read(config_path, JSON_MAX_BYTES, &config, &config_bytes)) &&
              tokenizer_open_json(t, (char *)text, bytes, (char *)config, config_bytes, path);
    free(text);
    free(config);
    return ok;
}

bool tokenizer_open(struct Tokenizer *t, const struct ModelFile *f) {
    if (f->gguf) {
        if (!tokenizer_open_gguf(t, f->gguf, f->path))
            return false;
    } else if (!f->tokenizer_path) {
        return fail("%s: no tokenizer.json, from which the text would become tokens", f->path);
    } else if (!open_files(t, f->tokenizer_path, f->tokenizer_config_path)) {
        return false;
    }
    // What the tokenizer's own files leave open the model's config says.
    if (t->bos_id == TOKEN_NONE && f->config.bos_id < t->n_vocab)
        t->bos_id = f->config.bos_id;
    if (t->eos_id == TOKEN_NONE && f->config.n_eos && f->config.eos_id[0] < t->n_vocab)
        t->eos_id = f->config.eos_id[0];
    if (t->pad_id == TOKEN_NONE && f->config.pad_id < t->n_vocab)
        t->pad_id = f->config.pad_id;
    if (!f->vocab_only && t->n_vocab > f->config.vocab_size) {
        fail("%s: the tokenizer has %u tokens, but the embedding has only %u rows", f->path, t->n_vocab,
             f->config.vocab_size);
        tokenizer_free(t);
        return false;
    }
    return true;
}
