// See scratch.h.
#include "cli/scratch.h"
#include "cli/load.h"
#include "model/json.h"
#include "model/tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

// ---- One token a byte ----

enum { BYTE_BOS = 256, BYTE_EOS = 257, BYTE_VOCAB = 258 };
static const char BOS_TEXT[] = "<|begin|>", EOS_TEXT[] = "<|end|>";

// Byte-level vocabularies write bytes as printable characters: the printable ones of Latin-1 as themselves, the others in
// order from U+0100 on.
static uint32_t byte_character(uint32_t byte) {
    uint32_t next = 256;
    for (uint32_t b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte)
            return printable ? b : next;
        next += !printable;
    }
    return 0;
}

static json_t *added_token(uint32_t id, const char *text) {
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content", text, "single_word", 0, "lstrip",
                     0, "rstrip", 0, "normalized", 0, "special", 1);
}

static json_t *byte_tokenizer(void) {
    json_t *vocab = json_object();
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = byte_character(b);
        char text[3] = {(char)c, 0, 0};
        if (c >= 0x80) {
            text[0] = (char)(0xc0 | c >> 6);
            text[1] = (char)(0x80 | (c & 0x3f));
        }
        json_object_set_new(vocab, text, json_integer(b));
    }
    json_t *byte_level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets",
                                   1, "use_regex", 1);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout", "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "vocab", vocab, "merges");
    return json_pack("{s:s, s:n, s:n, s:[o,o], s:n, s:O, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added_token(BYTE_BOS, BOS_TEXT), added_token(BYTE_EOS, EOS_TEXT), "normalizer",
                     "pre_tokenizer", byte_level, "post_processor", "decoder", byte_level, "model", model);
}

static bool write_json(const char *path, json_t *root) {
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    bool ok = file_write_atomic(path, text, strlen(text));
    free(text);
    json_decref(root);
    return ok;
}

// The writers copy a tokenizer's files: so they are laid down in the cache for a while, in a folder that is locked as long as its process lives.
static const char FOLDER[] = "byte-tokenizer-", *const FILES[] = {"tokenizer.json", "tokenizer_config.json"};
static int folder_lock = -1;

static char *byte_tokenizer_folder(void) {
    char *name = xsprintf("%s%ld", FOLDER, (long)getpid()), *dir = path_join(cache_dir(), name);
    free(name);
    return dir;
}

static void folder_remove(const char *dir) {
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char *path = path_join(dir, FILES[i]);
        unlink(path);
        free(path);
    }
    rmdir(dir);
}

// What killed processes left. The lock tells of those in other containers, whose numbers cannot be seen from here.
static void remove_stale(void) {
    DIR *d = opendir(cache_dir());
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *number = e->d_name + strlen(FOLDER);
        char *end;
        if (strncmp(e->d_name, FOLDER, strlen(FOLDER)) != 0 || *number < '1' || *number > '9')
            continue;
        long pid = strtol(number, &end, 10);
        if (*end || pid > INT_MAX || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        char *dir = path_join(cache_dir(), e->d_name);
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            folder_remove(dir);
        if (fd >= 0)
            close(fd);
        free(dir);
    }
    if (d)
        closedir(d);
}

// Fills what the writers read of `f`.
static bool byte_tokenizer_files(struct ModelFile *f, const struct Config *c) {
    char *dir = byte_tokenizer_folder();
    remove_stale();
    *f = (struct ModelFile){.path = dir, .config = *c};
    f->tokenizer_path = path_join(dir, FILES[0]);
    f->tokenizer_config_path = path_join(dir, FILES[1]);
    json_t *config = json_pack("{s:s, s:s, s:s, s:b, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "bos_token",
                               BOS_TEXT, "eos_token", EOS_TEXT, "add_bos_token", 0, "clean_up_tokenization_spaces", 0);
    if (!dir_make(dir))
        return false;
    folder_lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_lock >= 0)
        flock(folder_lock, LOCK_EX | LOCK_NB); // where there are no locks the number must do
    return write_json(f->tokenizer_path, byte_tokenizer()) && write_json(f->tokenizer_config_path, config);
}

// The embedding must have a row for every token of a borrowed tokenizer. What its model's config does not say, it says itself.
static bool take_tokens(struct Config *c, const struct ModelFile *from) {
    const struct Config *other = &from->config;
    struct Tokenizer t;
    if (!tokenizer_open(&t, from))
        return false;
    c->vocab_size = other->vocab_size ? other->vocab_size : t.n_vocab;
    c->bos_id = t.bos_id;
    c->pad_id = t.pad_id;
    c->n_eos = other->n_eos;
    memcpy(c->eos_id, other->eos_id, sizeof c->eos_id);
    if (c->n_eos == 0 && t.eos_id != TOKEN_NONE)
        c->eos_id[c->n_eos++] = t.eos_id;
    tokenizer_free(&t);
    return true;
}

// A shape without a tokenizer: a vocabulary of bytes, unless the shape's is larger.
static bool take_bytes(struct ModelFile *f, struct Config c) {
    c.vocab_size = c.vocab_size < BYTE_VOCAB ? BYTE_VOCAB : c.vocab_size;
    c.bos_id = BYTE_BOS;
    c.eos_id[0] = BYTE_EOS;
    c.n_eos = 1;
    c.pad_id = UINT32_MAX;
    return byte_tokenizer_files(f, &c);
}

bool scratch_open(struct ModelFile *f, const char *shape, const char *tokenizer) {
    struct Config c;
    *f = (struct ModelFile){0};
    bool preset = config_preset(&c, shape), ok;
    if (!preset && !load_open_any(f, shape, false))
        return false;
    if (!preset && f->vocab_only) {
        fail("%s: holds a vocabulary alone, which is no shape of a model", shape);
        modelfile_close(f);
        return false;
    }
    if (preset && !tokenizer) {
        ok = take_bytes(f, c);
    } else if (tokenizer) {
        c = preset ? c : f->config;
        modelfile_close(f);
        if (!load_open(f, tokenizer, false))
            return false;
        ok = take_tokens(&c, f);
        f->config = c;
    } else {
        ok = true;
    }
    if (ok && config_check(&f->config, shape))
        return true;
    scratch_close(f);
    return false;
}

void scratch_close(struct ModelFile *f) {
    char *dir = byte_tokenizer_folder();
    if (f->path && strcmp(f->path, dir) == 0) {
        folder_remove(dir);
        if (folder_lock >= 0)
            close(folder_lock);
        folder_lock = -1;
    }
    free(dir);
    modelfile_close(f);
}
