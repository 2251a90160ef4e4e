// Opens a model's tokenizer: from tokenizer.json (tokenizer_json.c), tokenizer.model or the tokenizer keys of a GGUF.
#include "model/chains.h"
#include "model/json.h"
#include "model/modelfile.h"
#include "model/spmfile.h"
#include "model/tokenizer.h"
#include "model/tokenizer_build.h"

#include <stdlib.h>
#include <string.h>

enum { JSON_MAX_BYTES = 256 << 20 };

// ---- GGUF ----

bool build_is_filler(const char *text, size_t bytes, uint64_t id) {
    char filler[32];
    int n = snprintf(filler, sizeof filler, "[PAD%llu]", (unsigned long long)id);
    return bytes == (size_t)n && memcmp(text, filler, bytes) == 0;
}

static bool read_gguf_tokens(struct Tokenizer *t, const struct GgufString *tokens, const int32_t *types,
                             const char *where) {
    for (uint32_t id = 0; id < t->n_vocab; id++)
        if (types[id] == SPM_NORMAL)
            build_vocab(t, id, tokens[id].text, tokens[id].bytes);
    build_bytes(t);
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        if (types[id] == SPM_NORMAL || types[id] == SPM_UNUSED ||
            build_is_filler(tokens[id].text, tokens[id].bytes, id))
            continue;
        if (types[id] < SPM_UNKNOWN || types[id] > SPM_USER)
            return fail("%s: tokenizer.ggml.token_type[%u] is %d, which byte-level BPE does not have", where, id,
                        types[id]);
        enum PieceKind kind = types[id] == SPM_USER ? PIECE_ADDED : PIECE_SPECIAL;
        if (!build_added(t, id, tokens[id].text, tokens[id].bytes, kind, ADDED_BEFORE, where))
            return false;
    }
    return true;
}

// The pieces of SentencePiece's kind; `types` are the same numbers in GGUF and in tokenizer.model.
static bool read_spm_pieces(struct Tokenizer *t, const struct GgufString *tokens, const int32_t *types,
                            enum AddedWhen user, const char *where) {
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        int byte = types[id] == SPM_BYTE ? build_parse_byte(tokens[id].text, tokens[id].bytes) : -1;
        if (types[id] < SPM_NORMAL || types[id] > SPM_BYTE)
            return fail("%s: the type of token %u is %d, which is not known", where, id, types[id]);
        if (types[id] == SPM_BYTE && byte < 0)
            return fail("%s: token %u is of the type byte, but its text '%.*s' is not of the form <0x41>", where, id,
                        (int)min_u64(tokens[id].bytes, 80), tokens[id].text);
        if (byte >= 0)
            build_byte(t, id, (uint8_t)byte);
        else if (types[id] == SPM_NORMAL && !build_text(t, id, tokens[id].text, tokens[id].bytes, where))
            return false;
    }
    if (!build_chars(t, where))
        return false;
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        // SentencePiece would merge unused pieces and take them apart again; the fillers of converters are not reached.
        if (types[id] == SPM_UNUSED && !build_is_filler(tokens[id].text, tokens[id].bytes, id))
            return fail("%s: token %u, '%.*s', is of the type unused, which is not known here", where, id,
                        (int)min_u64(tokens[id].bytes, 80), tokens[id].text);
        if (types[id] == SPM_NORMAL || types[id] == SPM_BYTE || build_is_filler(tokens[id].text, tokens[id].bytes, id))
            continue;
        bool plain = types[id] == SPM_USER;
        if (!build_added(t, id, tokens[id].text, tokens[id].bytes, plain ? PIECE_ADDED : PIECE_SPECIAL,
                         plain ? user : ADDED_BEFORE, where))
            return false;
    }
    return true;
}

// A blank in front of every stretch between special tokens, as Hugging Face's LLaMA tokenizer (legacy) and llama.cpp have it; then
// U+2581 for each.
static bool spm_normalizer(struct Tokenizer *t, bool prefix, const char *where) {
    t->spm = true;
    t->strip_blank = prefix;
    return (!prefix || normalizer_add(&t->normalizer, NORMALIZE_PREPEND, NULL, SPM_BLANK, where)) &&
           normalizer_add(&t->normalizer, NORMALIZE_REPLACE, " ", SPM_BLANK, where);
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

// What both kinds have; *types is malloc'ed.
static bool read_gguf_tables(const struct Gguf *g, const struct GgufString **tokens, int32_t **types,
                             uint64_t *n_tokens, const char *where) {
    uint64_t n_types = 0;
    if (!gguf_get_strings(g, "tokenizer.ggml.tokens", true, tokens, n_tokens) ||
        !gguf_get_i32s(g, "tokenizer.ggml.token_type", true, types, &n_types))
        return false;
    return (*n_tokens > 0 && *n_tokens == n_types && *n_tokens < (1u << 24)) ||
           fail("%s: %llu tokens and %llu token types do not make a vocabulary", where, (unsigned long long)*n_tokens,
                (unsigned long long)n_types);
}

static bool read_gguf_bpe(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    const struct GgufString *tokens = NULL, *merges = NULL;
    uint64_t n_tokens = 0, n_merges = 0;
    int32_t *types = NULL;
    char *pre = NULL;
    const struct Chain *chain = NULL;
    bool ok = gguf_get_string(g, "tokenizer.ggml.pre", true, &pre) && pretokenizer_by_name(&t->pre, pre, where) &&
              (chain = chain_find(pre)) && read_gguf_tables(g, &tokens, &types, &n_tokens, where) &&
              gguf_get_strings(g, "tokenizer.ggml.merges", true, &merges, &n_merges);
    if (ok && n_merges >= (1u << 26))
        ok = fail("%s: %llu merges do not make a vocabulary", where, (unsigned long long)n_merges);
    if (ok) {
        t->ignore_merges = chain->ignore_merges;
        build_begin(t, (uint32_t)n_tokens, (uint32_t)n_merges);
        ok = (!chain->composes || normalizer_add(&t->normalizer, NORMALIZE_NFC, NULL, NULL, where)) &&
             read_gguf_tokens(t, tokens, types, where) && read_gguf_merges(t, merges, n_merges, where);
    }
    free(types);
    free(pre);
    return ok;
}

static bool read_gguf_spm(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    const struct GgufString *tokens = NULL;
    uint64_t n_tokens = 0, n_scores = 0;
    int32_t *types = NULL;
    float *scores = NULL;
    bool prefix = true, extra = false;
    bool ok = gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", false, &prefix) &&
              gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", false, &extra) &&
              read_gguf_tables(g, &tokens, &types, &n_tokens, where) &&
              gguf_get_f32s(g, "tokenizer.ggml.scores", true, &scores, &n_scores);
    if (ok && (extra || gguf_find(g, "tokenizer.ggml.precompiled_charsmap")))
        ok = fail("%s: %s is not known here", where,
                  extra ? "tokenizer.ggml.remove_extra_whitespaces" : "tokenizer.ggml.precompiled_charsmap");
    if (ok && n_scores != n_tokens)
        ok =
            fail("%s: %llu tokens, but %llu scores", where, (unsigned long long)n_tokens, (unsigned long long)n_scores);
    if (ok) {
        build_begin(t, (uint32_t)n_tokens, 0);
        ok = spm_normalizer(t, prefix, where) && read_spm_pieces(t, tokens, types, ADDED_BEFORE, where) &&
             build_scores(t, scores, where);
    }
    free(types);
    free(scores);
    return ok;
}

static bool open_gguf(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    char *model = NULL;
    if (!gguf_get_string(g, "tokenizer.ggml.model", true, &model))
        return false;
    bool spm = strcmp(model, "llama") == 0, known = spm || strcmp(model, "gpt2") == 0;
    if (!known)
        fail(
            "%s: tokenizer.ggml.model '%.80s' is not known here; gpt2 (BPE over bytes) and llama (SentencePiece's) are",
            where, model);
    free(model);
    bool add_bos = spm, add_eos = false, prefix = false;
    if (!known || !(spm ? read_gguf_spm(t, g, where) : read_gguf_bpe(t, g, where)) ||
        !read_gguf_id(g, "tokenizer.ggml.bos_token_id", t->n_vocab, &t->bos_id, where) ||
        !read_gguf_id(g, "tokenizer.ggml.eos_token_id", t->n_vocab, &t->eos_id, where) ||
        !read_gguf_id(g, "tokenizer.ggml.padding_token_id", t->n_vocab, &t->pad_id, where) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", false, &add_bos) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_eos_token", false, &add_eos) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", false, &prefix))
        return false;
    if (add_eos || (prefix && !spm))
        return fail("%s: %s is not known here", where,
                    add_eos ? "tokenizer.ggml.add_eos_token" : "tokenizer.ggml.add_space_prefix");
    t->add_bos = add_bos && t->bos_id != TOKEN_NONE;
    return build_end(t, where);
}

bool tokenizer_open_gguf(struct Tokenizer *t, const struct Gguf *g, const char *where) {
    build_open(t);
    bool ok = open_gguf(t, g, where);
    if (!ok)
        tokenizer_free(t);
    return ok;
}

// ---- tokenizer.model ----

// The tokens that tokenizer_config.json adds behind the pieces: {"32000": {"content": ...}, ...}.
static bool read_added_decoder(struct Tokenizer *t, const json_t *added, const char *where) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)added, key, value) {
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        const char *text = NULL;
        bool special = false, normalized = false, word = false, lstrip = false, rstrip = false;
        if (*end || end == key || id >= t->n_vocab)
            return fail("%s: tokenizer_config.json: added_tokens_decoder: '%.40s' is no id", where, key);
        if (!json_get_string(value, "content", &text, where) || !json_get_bool(value, "special", &special, where) ||
            !json_get_bool(value, "normalized", &normalized, where) ||
            !json_get_bool(value, "lstrip", &lstrip, where) || !json_get_bool(value, "rstrip", &rstrip, where) ||
            !json_get_bool(value, "single_word", &word, where))
            return false;
        if (!text || word)
            return fail("%s: tokenizer_config.json: added_tokens_decoder: %s: %s", where, key,
                        word ? "single_word is not known here" : "a content is expected");
        if (t->pieces[id].kind == PIECE_SPECIAL || t->pieces[id].kind == PIECE_ADDED) // the model file says it already
            continue;
        if (t->pieces[id].bytes)
            return fail("%s: tokenizer_config.json: added_tokens_decoder: %s is a piece of the model file", where, key);
        if (!build_added(t, (uint32_t)id, text, strlen(text), special ? PIECE_SPECIAL : PIECE_ADDED,
                         normalized ? ADDED_BEHIND : ADDED_BEFORE, where))
            return false;
        t->pieces[id].lstrip = lstrip;
        t->pieces[id].rstrip = rstrip;
    }
    return true;
}

// Pieces and those that the configuration adds directly behind them.
static uint32_t count_added(uint32_t n, const json_t *added) {
    char key[16];
    while (snprintf(key, sizeof key, "%u", n) && json_object_get(added, key))
        n++;
    return n;
}

static bool open_model(struct Tokenizer *t, const struct SpmFile *s, const json_t *config, const char *where) {
    const json_t *added = json_object_get(config, "added_tokens_decoder");
    struct GgufString *tokens = xcalloc(s->n, sizeof *tokens);
    int32_t *types = xcalloc(s->n, sizeof *types);
    uint32_t n_vocab = count_added(s->n, added);
    float *scores = xcalloc(n_vocab, sizeof *scores);
    for (uint32_t i = 0; i < s->n; i++) {
        tokens[i] = (struct GgufString){s->pieces[i].text, s->pieces[i].bytes};
        types[i] = (int32_t)s->pieces[i].type;
        scores[i] = s->pieces[i].score;
    }
    build_begin(t, n_vocab, 0);
    t->n_vocab = s->n;
    bool ok = spm_normalizer(t, s->dummy_prefix, where) && read_spm_pieces(t, tokens, types, ADDED_WRITTEN, where) &&
              build_scores(t, scores, where);
    t->n_vocab = n_vocab;
    free(tokens);
    free(types);
    free(scores);
    if (!ok || !read_added_decoder(t, added, where))
        return false;
    t->unknown_id = s->unknown_id;
    t->bos_id = s->bos_id;
    t->eos_id = s->eos_id;
    t->pad_id = s->pad_id;
    // LLaMA's class, which reads such files, puts the beginning-of-sequence token in front where nothing says otherwise.
    json_t *usual = json_pack("{s:s}", "tokenizer_class", "LlamaTokenizer");
    ok = build_config(t, config ? config : usual, NULL, where) && build_end(t, where);
    json_decref(usual);
    return ok;
}

bool tokenizer_open_model(struct Tokenizer *t, const void *data, size_t bytes, const char *config, size_t config_bytes,
                          const char *where) {
    struct SpmFile s = {0};
    json_t *settings = NULL;
    build_open(t);
    bool ok = spmfile_parse(&s, data, bytes, where) &&
              (!config || (settings = json_parse(config, config_bytes, where))) && open_model(t, &s, settings, where);
    json_decref(settings);
    spmfile_free(&s);
    if (!ok)
        tokenizer_free(t);
    return ok;
}

// ---- A model's ----

static bool open_files(struct Tokenizer *t, const char *path, const char *config_path) {
    uint8_t *text = NULL, *config = NULL;
    uint64_t bytes = 0, config_bytes = 0;
    bool ok =
        file_read(path, JSON_MAX_BYTES, &text, &bytes) &&
        (!config_path || file_read(config_path, JSON_MAX_BYTES, &config, &config_bytes)) &&
        (ends_with(path, ".model") ? tokenizer_open_model(t, text, bytes, (char *)config, config_bytes, path)
                                   : tokenizer_open_json(t, (char *)text, bytes, (char *)config, config_bytes, path));
    free(text);
    free(config);
    return ok;
}

// added_tokens.json beside a tokenizer.model says nothing of how its tokens are looked for: added_tokens_decoder must know them.
static bool check_added_tokens(const struct Tokenizer *t, const struct ModelFile *f) {
    char *path = path_join(f->path, "added_tokens.json");
    json_t *root = NULL, *id;
    const char *text;
    bool ok = !file_exists(path) || ((root = json_parse_file(path, 1 << 20)) != NULL);
    json_object_foreach(root, text, id) {
        if (ok && tokenizer_find(t, text) != (uint32_t)json_integer_value(id))
            ok = fail("%s: '%.80s' is not in added_tokens_decoder of tokenizer_config.json", path, text);
    }
    json_decref(root);
    free(path);
    return ok;
}

bool tokenizer_open(struct Tokenizer *t, const struct ModelFile *f) {
    if (f->gguf) {
        if (!tokenizer_open_gguf(t, f->gguf, f->path))
            return false;
    } else if (!f->tokenizer_path) {
        return fail("%s: no tokenizer.json or tokenizer.model, from which the text would become tokens", f->path);
    } else if (!open_files(t, f->tokenizer_path, f->tokenizer_config_path)) {
        return false;
    }
    if (!f->gguf && ends_with(f->tokenizer_path, ".model") && !check_added_tokens(t, f)) {
        tokenizer_free(t);
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
