// Reads tokenizer.json (Hugging Face's tokenizers library writes it). Every part that decides about ids is honoured or refused by
// name. Truncation and padding are the caller's affair and are not looked at.
#include "model/json.h"
#include "model/tokenizer.h"
#include "model/tokenizer_build.h"

#include <stdlib.h>
#include <string.h>

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

// SentencePiece's kind: blanks become U+2581, and one may be put in front.
static bool read_metaspace(struct Tokenizer *t, const json_t *object, const char *where) {
    static const char *const schemes[] = {"never", "first", "always"};
    const char *mark = SPM_BLANK, *scheme = NULL;
    bool prefix = true, split = true;
    if (!json_get_string(object, "replacement", &mark, where) ||
        !json_get_string(object, "prepend_scheme", &scheme, where) ||
        !json_get_bool(object, "add_prefix_space", &prefix, where) || !json_get_bool(object, "split", &split, where))
        return false;
    if (t->metaspace || strcmp(mark, SPM_BLANK) != 0)
        return fail("%s: pre_tokenizer Metaspace: one, with the replacement U+2581, is expected", where);
    t->metaspace = true;
    t->metaspace_split = split;
    t->prefix = prefix ? PREFIX_ALWAYS : PREFIX_NEVER;
    for (unsigned i = 0; scheme && i < 3; i++) {
        if (strcmp(scheme, schemes[i]) == 0) {
            t->prefix = (enum PrefixScheme)i;
            return true;
        }
    }
    return !scheme || fail("%s: pre_tokenizer Metaspace: prepend_scheme '%s' is not known", where, scheme);
}

static bool read_pre_tokenizer(struct Tokenizer *t, const json_t *object, bool *byte_level, const char *where) {
    struct Pretokenizer *p = &t->pre;
    if (is_absent(object))
        return true;
    if (is_type(object, "Sequence")) {
        size_t i;
        json_t *part;
        const json_t *parts = json_object_get(object, "pretokenizers");
        if (!json_is_array(parts))
            return fail("%s: pre_tokenizer Sequence: an array 'pretokenizers' is expected", where);
        json_array_foreach(parts, i, part) if (!read_pre_tokenizer(t, part, byte_level, where)) return false;
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
    if (is_type(object, "Metaspace"))
        return read_metaspace(t, object, where);
    return fail("%s: pre_tokenizer '%s' is not known here; known are Sequence, Split, Digits, ByteLevel and Metaspace",
                where, type_of(object));
}

static bool read_normalizer(struct Normalizer *n, const json_t *object, const char *where) {
    if (is_absent(object))
        return true;
    if (is_type(object, "Sequence")) {
        size_t i;
        json_t *part;
        json_array_foreach(json_object_get(object, "normalizers"), i, part) {
            if (is_type(part, "Sequence"))
                return fail("%s: normalizer: a Sequence inside a Sequence is not known here", where);
            if (!read_normalizer(n, part, where))
                return false;
        }
        return true;
    }
    if (is_type(object, "NFC"))
        return normalizer_add(n, NORMALIZE_NFC, NULL, NULL, where);
    const char *to = json_string_value(json_object_get(object, is_type(object, "Prepend") ? "prepend" : "content"));
    if (is_type(object, "Prepend") && to)
        return normalizer_add(n, NORMALIZE_PREPEND, NULL, to, where);
    const char *from = json_string_value(json_object_get(json_object_get(object, "pattern"), "String"));
    if (is_type(object, "Replace") && from && to)
        return normalizer_add(n, NORMALIZE_REPLACE, from, to, where);
    return fail("%s: normalizer '%s' is not known here; known are Sequence, NFC, Prepend and Replace of a text", where,
                type_of(object));
}

static bool is_replace(const json_t *object, const char *from, const char *to) {
    const char *pattern = json_string_value(json_object_get(json_object_get(object, "pattern"), "String"));
    const char *content = json_string_value(json_object_get(object, "content"));
    return is_type(object, "Replace") && pattern && content && strcmp(pattern, from) == 0 && strcmp(content, to) == 0;
}

static json_int_t integer_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

// One step of the decoder of SentencePiece's kind. Those that do nothing to the bytes of a text are let pass.
static bool read_spm_decoder(struct Tokenizer *t, const json_t *part, bool *blanks, const char *where) {
    const char *content = json_string_value(json_object_get(part, "content"));
    if (is_type(part, "ByteFallback") || is_type(part, "Fuse"))
        return true;
    *blanks |= is_replace(part, SPM_BLANK, " ") || is_type(part, "Metaspace");
    if (is_type(part, "Metaspace"))
        t->strip_blank = t->prefix != PREFIX_NEVER;
    if (is_replace(part, SPM_BLANK, " ") || is_type(part, "Metaspace"))
        return true;
    if (is_type(part, "Strip") && content && strcmp(content, " ") == 0 && integer_of(part, "start") <= 1 &&
        integer_of(part, "stop") == 0) {
        t->strip_blank = integer_of(part, "start") == 1;
        return true;
    }
    return fail("%s: decoder '%s' is not known here for a vocabulary of characters", where, type_of(part));
}

static bool read_decoder(struct Tokenizer *t, const json_t *object, const char *where) {
    const json_t *parts = is_type(object, "Sequence") ? json_object_get(object, "decoders") : NULL;
    size_t n = parts ? json_array_size(parts) : 1;
    if (!t->spm) {
        object = parts && n == 1 ? json_array_get(parts, 0) : object;
        return is_type(object, "ByteLevel") || fail("%s: decoder '%s' is not known here; ByteLevel is expected", where,
                                                    json_is_null(object) ? "null" : type_of(object));
    }
    bool blanks = false;
    for (size_t i = 0; i < n; i++)
        if (!read_spm_decoder(t, parts ? json_array_get(parts, i) : object, &blanks, where))
            return false;
    return blanks || fail("%s: decoder: nothing makes blanks of U+2581", where);
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

static bool read_piece(struct Tokenizer *t, uint32_t id, const char *text, const char *where) {
    int byte = t->spm ? build_parse_byte(text, strlen(text)) : -1;
    if (byte >= 0)
        build_byte(t, id, (uint8_t)byte);
    else if (t->spm)
        return build_text(t, id, text, strlen(text), where);
    else
        build_vocab(t, id, text, strlen(text));
    return true;
}

static bool read_vocab(struct Tokenizer *t, const json_t *vocab, const char *where) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)vocab, key, value) {
        uint32_t id = (uint32_t)json_integer_value(value);
        if (t->pieces[id].bytes)
            return fail("%s: vocab: '%.80s' has the id %u, and so has another token", where, key, id);
        if (!read_piece(t, id, key, where))
            return false;
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
            !build_added(t, id, content, strlen(content), special ? PIECE_SPECIAL : PIECE_ADDED,
                         normalized ? ADDED_BEHIND : ADDED_BEFORE, where))
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
    if (t->spm)
        return fallback ? build_chars(t, where)
                        : fail("%s: model: a vocabulary of characters without byte_fallback is not known here", where);
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
    if (t->spm && ignore_merges)
        return fail("%s: model: ignore_merges is not known here for a vocabulary of characters", where);
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
bool build_config(struct Tokenizer *t, const json_t *config, const char *template_bos, const char *where) {
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
    if (!read_normalizer(&t->normalizer, json_object_get(root, "normalizer"), where) ||
        !read_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), &byte_level, where))
        return false;
    t->spm = !byte_level && t->pre.n_splits == 0;
    if (!byte_level && !t->spm)
        return fail("%s: a ByteLevel or a Metaspace pre_tokenizer, or none, is expected; others are not known here",
                    where);
    if (byte_level && t->metaspace)
        return fail("%s: pre_tokenizer: Metaspace beside ByteLevel is not known here", where);
    if (t->spm && !t->metaspace && !normalizer_has(&t->normalizer, NORMALIZE_REPLACE))
        return fail("%s: no ByteLevel and no Metaspace pre_tokenizer, and the normalizer does not say what blanks "
                    "become: this kind of vocabulary is not known here",
                    where);
    return read_decoder(t, json_object_get(root, "decoder"), where) &&
           read_post_processor(json_object_get(root, "post_processor"), &template_bos, where) &&
           read_model(t, root, where) && build_config(t, config, template_bos, where) && build_end(t, where);
}

bool tokenizer_open_json(struct Tokenizer *t, const char *text, size_t bytes, const char *config, size_t config_bytes,
                         const char *where) {
    json_t *root = NULL, *settings = NULL;
    build_open(t);
    bool ok = (root = json_parse(text, bytes, where)) &&
              (!config || (settings = json_parse(config, config_bytes, where))) && open_json(t, root, settings, where);
    json_decref(root);
    json_decref(settings);
    if (!ok)
        tokenizer_free(t);
    return ok;
}
