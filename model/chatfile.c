// See chatfile.h. Numbers are little-endian; the fixed header says the length of everything behind it, so that the part with the
// words can be read as a whole and the keys and values by rows.
#include "model/chatfile.h"
#include "model/rope.h"
#include <stdlib.h>
#include <string.h>

static const char MAGIC[8] = {'V', 'K', 'M', 'O', 'E', 'C', 'H', 'T'};
enum { HEADER_BYTES = 128, TRAILER_BYTES = 8, PIECE_BYTES = 1 << 16, SAMPLE_ROWS = 2 };
static const uint64_t WORDS_MAX_BYTES = UINT64_C(1) << 30;

// Places in the header.
enum {
    AT_VERSION = 8,
    AT_HEADER_BYTES = 12,
    AT_FILE_BYTES = 16,
    AT_MODEL = 24,
    AT_TOKENIZER = 32,
    AT_ADAPTER = 40,
    AT_HELD = 48,
    AT_CACHE_TYPE = 56,
    AT_ROW_BYTES = 64,
    AT_LAYERS = 68,
    AT_CACHED = 72,
    AT_SETTINGS = 76,
    AT_MESSAGES = 80,
    AT_LEFT_OUT = 84,
    AT_STREAM = 88,
    AT_SCALE = 92,
    AT_REST = 96 // zeros
};

void chatfile_message_free(struct ChatMessage *m) {
    free(m->text);
    free(m->ids);
    *m = (struct ChatMessage){0};
}

void chatfile_state_free(struct ChatState *s) {
    for (uint32_t i = 0; i < s->n_messages; i++)
        chatfile_message_free(&s->messages[i]);
    for (uint32_t i = 0; i < s->n_settings; i++) {
        free(s->settings[i].name);
        free(s->settings[i].value);
    }
    free(s->messages);
    free(s->settings);
    free(s->cached);
    *s = (struct ChatState){0};
}

// ---- Whose conversation it is

static uint64_t hash_u64(uint64_t value, uint64_t hash) { return hash_bytes(&value, sizeof value, hash); }

static uint64_t hash_shape(const struct Config *c) {
    const uint32_t numbers[] = {c->arch,       c->vocab_size, c->dim,           c->n_layers,    c->n_heads,
                                c->n_kv_heads, c->head_dim,   c->hidden,        c->n_experts,   c->n_active,
                                c->n_shared,   c->moe_hidden, c->shared_hidden, c->shared_gate, c->first_dense,
                                c->moe_period, c->moe_phase,  c->norm_topk,     c->tied_head,   c->qkv_bias,
                                c->o_bias,     c->mlp_bias,   c->qk_norm};
    const float scales[] = {c->norm_eps, c->routed_scale, c->rope.attention_factor};
    double frequencies[CONFIG_MAX_HEAD_DIM / 2];
    rope_frequencies(c, frequencies);
    uint64_t hash = hash_bytes(numbers, sizeof numbers, 1);
    hash = hash_bytes(c->mlp_only, sizeof c->mlp_only, hash_bytes(scales, sizeof scales, hash));
    return hash_bytes(frequencies, c->head_dim / 2 * sizeof *frequencies, hash);
}

// The first and the last row of every matrix, of stacked experts each: training moves all that it moves, and nobody waits for a hash of 30 GB.
static bool hash_weights(const struct ModelFile *f, uint64_t *hash) {
    bool ok = true;
    for (uint32_t i = 0; i < f->n_tensors && ok; i++) {
        const struct FileTensor *t = &f->tensors[i];
        uint8_t *row = xmalloc(t->row_bytes);
        *hash = hash_bytes(t->spec.name, strlen(t->spec.name), hash_u64(t->n_rows, hash_u64(t->cols, *hash)));
        *hash = hash_bytes(DTYPES[t->type].name, strlen(DTYPES[t->type].name), *hash);
        uint64_t part = t->spec.n_dims == 3 ? t->spec.dim[1] : t->n_rows;
        for (uint64_t first = 0; first < t->n_rows && ok; first += part)
            for (uint32_t k = 0; k < SAMPLE_ROWS && ok; k++) {
                ok = modelfile_read_rows(f, t, first + (k ? part - 1 : 0), 1, row);
                *hash = ok ? hash_bytes(row, t->row_bytes, *hash) : *hash;
            }
        free(row);
    }
    return ok;
}

static bool hash_file(const char *dir, const char *name, uint64_t *hash) {
    struct FileIn in;
    char *path = path_join(dir, name);
    bool ok = filein_open(&in, path);
    free(path);
    if (!ok)
        return false;
    uint8_t *piece = xmalloc(PIECE_BYTES);
    for (uint64_t at = 0; at < in.bytes && ok; at += PIECE_BYTES) {
        uint64_t n = min_u64(PIECE_BYTES, in.bytes - at);
        ok = filein_read(&in, at, n, piece);
        *hash = ok ? hash_bytes(piece, n, *hash) : *hash;
    }
    free(piece);
    filein_close(&in);
    return ok;
}

bool chatfile_identify(const struct ModelFile *f, const struct Tokenizer *t, const struct Model *m, const char *adapter,
                       struct ChatIdentity *id) {
    *id = (struct ChatIdentity){.model = hash_shape(&f->config), .tokenizer = t->hash};
    for (uint32_t i = 0; i < m->n_base; i++)
        id->held = hash_bytes(DTYPES[m->params[i].w.type].name, strlen(DTYPES[m->params[i].w.type].name), id->held);
    if (!hash_weights(f, &id->model))
        return false;
    return !adapter || (hash_file(adapter, "adapter_config.json", &id->adapter) &&
                        hash_file(adapter, "adapter_model.safetensors", &id->adapter));
}

// ---- Checksum: pieces of 64 KiB, each hashed with the last one's hash as its seed

struct Sum {
    uint8_t *piece;
    uint32_t n;
    uint64_t hash;
};

static void sum_add(struct Sum *s, const uint8_t *data, uint64_t bytes) {
    while (bytes > 0) {
        uint64_t part = min_u64(bytes, PIECE_BYTES - s->n);
        memcpy(s->piece + s->n, data, part);
        s->n += (uint32_t)part;
        data += part;
        bytes -= part;
        if (s->n == PIECE_BYTES) {
            s->hash = hash_bytes(s->piece, s->n, s->hash);
            s->n = 0;
        }
    }
}

static struct Sum sum_begin(void) { return (struct Sum){.piece = xmalloc(PIECE_BYTES), .hash = 1}; }

static uint64_t sum_end(struct Sum *s) {
    uint64_t hash = hash_bytes(s->piece, s->n, s->hash);
    free(s->piece);
    return hash;
}

uint64_t chatfile_checksum(const void *data, size_t bytes) {
    struct Sum s = sum_begin();
    sum_add(&s, data, bytes);
    return sum_end(&s);
}

// ---- Writing

struct Out {
    struct FileOut file;
    struct Sum sum;
};

static bool out_bytes(struct Out *o, const void *data, uint64_t bytes) {
    if (bytes)
        sum_add(&o->sum, data, bytes);
    return fileout_write(&o->file, data, bytes);
}

static void put_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}
static void put_u64(uint8_t *to, uint64_t value) {
    put_u32(to, (uint32_t)value);
    put_u32(to + 4, (uint32_t)(value >> 32));
}

static bool out_u32(struct Out *o, uint32_t value) {
    uint8_t word[4];
    put_u32(word, value);
    return out_bytes(o, word, sizeof word);
}

static bool out_ids(struct Out *o, const uint32_t *ids, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (!out_u32(o, ids[i]))
            return false;
    return true;
}

static uint64_t words_bytes(const struct ChatState *s) {
    uint64_t bytes = UINT64_C(4) * s->n_cached;
    for (uint32_t i = 0; i < s->n_settings; i++)
        bytes += 8 + strlen(s->settings[i].name) + strlen(s->settings[i].value);
    for (uint32_t i = 0; i < s->n_messages; i++)
        bytes += 16 + s->messages[i].bytes + UINT64_C(4) * s->messages[i].n_ids;
    return bytes;
}

static uint32_t cache_row_bytes(const struct Session *s) {
    return (uint32_t)(s->cache_k[0].bytes / s->cache_k[0].dim[0]);
}

uint64_t chatfile_bytes(const struct ChatState *state, const struct Session *s) {
    return HEADER_BYTES + align_up(words_bytes(state), 8) +
           UINT64_C(2) * s->m->config.n_layers * state->n_cached * cache_row_bytes(s) + TRAILER_BYTES;
}

static bool out_header(struct Out *o, const struct ChatState *state, const struct ChatIdentity *id,
                       const struct Session *s) {
    uint8_t h[HEADER_BYTES] = {0};
    uint32_t layers = state->n_cached ? s->m->config.n_layers : 0, row = cache_row_bytes(s), scale;
    memcpy(h, MAGIC, sizeof MAGIC);
    memcpy(&scale, &state->adapter_scale, sizeof scale);
    put_u32(h + AT_VERSION, CHATFILE_VERSION);
    put_u32(h + AT_HEADER_BYTES, HEADER_BYTES);
    put_u64(h + AT_FILE_BYTES, chatfile_bytes(state, s));
    put_u64(h + AT_MODEL, id->model), put_u64(h + AT_TOKENIZER, id->tokenizer);
    put_u64(h + AT_ADAPTER, id->adapter), put_u64(h + AT_HELD, id->held);
    memcpy(h + AT_CACHE_TYPE, DTYPES[s->cache_k[0].type].name, strlen(DTYPES[s->cache_k[0].type].name));
    put_u32(h + AT_ROW_BYTES, row), put_u32(h + AT_LAYERS, layers), put_u32(h + AT_CACHED, state->n_cached);
    put_u32(h + AT_SETTINGS, state->n_settings), put_u32(h + AT_MESSAGES, state->n_messages);
    put_u32(h + AT_LEFT_OUT, state->left_out), put_u32(h + AT_STREAM, state->stream), put_u32(h + AT_SCALE, scale);
    return out_bytes(o, h, sizeof h);
}

static bool out_words(struct Out *o, const struct ChatState *s) {
    static const uint8_t zeros[8];
    for (uint32_t i = 0; i < s->n_settings; i++) {
        uint32_t name = (uint32_t)strlen(s->settings[i].name), value = (uint32_t)strlen(s->settings[i].value);
        if (!out_u32(o, name) || !out_u32(o, value) || !out_bytes(o, s->settings[i].name, name) ||
            !out_bytes(o, s->settings[i].value, value))
            return false;
    }
    for (uint32_t i = 0; i < s->n_messages; i++) {
        const struct ChatMessage *m = &s->messages[i];
        uint8_t head[16];
        put_u32(head, m->role), put_u32(head + 4, m->n_ids), put_u64(head + 8, m->bytes);
        if (!out_bytes(o, head, sizeof head) || !out_bytes(o, m->text, m->bytes) || !out_ids(o, m->ids, m->n_ids))
            return false;
    }
    uint64_t bytes = words_bytes(s);
    return out_ids(o, s->cached, s->n_cached) && out_bytes(o, zeros, align_up(bytes, 8) - bytes);
}

static bool out_cache(struct Out *o, struct Session *s, uint32_t tokens) {
    uint64_t row = cache_row_bytes(s);
    uint32_t step = (uint32_t)max_u64(1, (UINT64_C(8) << 20) / row);
    uint8_t *rows = xmalloc(step * row);
    bool ok = true;
    for (uint32_t layer = 0; layer < s->m->config.n_layers && ok; layer++)
        for (int part = 0; part < 2 && ok; part++)
            for (uint32_t first = 0; first < tokens && ok; first += step) {
                const struct Tensor *t = part ? &s->cache_v[layer] : &s->cache_k[layer];
                uint64_t bytes = min_u64(step, tokens - first) * row;
                ok = tensor_download(s->m->dev, t, first * row, rows, bytes) && out_bytes(o, rows, bytes);
            }
    free(rows);
    return ok;
}

// A name mistyped must not cost a file of another kind.
static bool may_replace(const char *path) {
    struct FileIn in;
    char magic[sizeof MAGIC];
    if (!file_exists(path) && !dir_exists(path))
        return true;
    if (!filein_open(&in, path))
        return false;
    bool ours =
        in.bytes >= sizeof magic && filein_read(&in, 0, sizeof magic, magic) && memcmp(magic, MAGIC, sizeof magic) == 0;
    filein_close(&in);
    return ours || fail("%s: is there already and is no saved conversation: another name, please", path);
}

bool chatfile_write(const char *path, const struct ChatState *state, const struct ChatIdentity *id, struct Session *s) {
    struct Out o;
    if (!may_replace(path))
        return false;
    if (words_bytes(state) > WORDS_MAX_BYTES)
        return fail("%s: a conversation of more than 1 GiB cannot be saved", path);
    if (!fileout_begin(&o.file, path))
        return false;
    o.sum = sum_begin();
    bool ok = out_header(&o, state, id, s) && out_words(&o, state) &&
              (state->n_cached == 0 || out_cache(&o, s, state->n_cached));
    uint8_t sum[TRAILER_BYTES];
    put_u64(sum, sum_end(&o.sum));
    if (ok && fileout_write(&o.file, sum, sizeof sum))
        return fileout_end(&o.file);
    fileout_abort(&o.file);
    return false;
}

// ---- Reading

static uint32_t get_u32(const uint8_t *from) {
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}
static uint64_t get_u64(const uint8_t *from) { return get_u32(from) | (uint64_t)get_u32(from + 4) << 32; }

// What is left of the part with the words.
struct Words {
    const char *name;
    const uint8_t *data;
    uint64_t bytes, at; // at: of data[0] in the file
};

static const uint8_t *take(struct Words *w, uint64_t bytes, const char *what) {
    if (bytes > w->bytes) {
        fail("%s: byte %llu: %s of %llu bytes, where %llu are left", w->name, (unsigned long long)w->at, what,
             (unsigned long long)bytes, (unsigned long long)w->bytes);
        return NULL;
    }
    const uint8_t *data = w->data;
    w->data += bytes, w->at += bytes, w->bytes -= bytes;
    return data;
}

static char *take_text(struct Words *w, uint64_t bytes, const char *what) {
    const uint8_t *from = take(w, bytes, what);
    if (!from)
        return NULL;
    char *text = xmalloc(bytes + 1);
    memcpy(text, from, bytes);
    text[bytes] = 0;
    return text;
}

static bool take_ids(struct Words *w, uint32_t n, const char *what, uint32_t **ids) {
    const uint8_t *from = take(w, UINT64_C(4) * n, what);
    *ids = from && n ? xmalloc(n * sizeof **ids) : NULL;
    for (uint32_t i = 0; from && i < n; i++)
        (*ids)[i] = get_u32(from + 4 * (size_t)i);
    return from != NULL;
}

static bool take_setting(struct Words *w, struct ChatSetting *s) {
    const uint8_t *head = take(w, 8, "a setting");
    uint32_t name = head ? get_u32(head) : 0, value = head ? get_u32(head + 4) : 0;
    s->name = head ? take_text(w, name, "the name of a setting") : NULL;
    s->value = s->name ? take_text(w, value, "the value of a setting") : NULL;
    if (!s->value)
        return false;
    return (strlen(s->name) == name && strlen(s->value) == value) ||
           fail("%s: byte %llu: a setting with a zero byte in it", w->name, (unsigned long long)w->at);
}

static bool take_message(struct Words *w, struct ChatMessage *m, bool first) {
    uint64_t at = w->at;
    const uint8_t *head = take(w, 16, "a message");
    if (!head)
        return false;
    uint32_t role = get_u32(head);
    if (role > ROLE_ASSISTANT || (role == ROLE_SYSTEM && !first))
        return fail("%s: byte %llu: a message of the kind %u; %s is expected", w->name, (unsigned long long)at, role,
                    first ? "0 to 2" : "1 or 2");
    m->role = (enum Role)role;
    m->n_ids = get_u32(head + 4);
    m->bytes = get_u64(head + 8);
    m->text = take_text(w, m->bytes, "a message");
    if (!m->text || !take_ids(w, m->n_ids, "the tokens of a message", &m->ids))
        return false;
    return m->n_ids == 0 || role == ROLE_ASSISTANT ||
           fail("%s: byte %llu: tokens of a message that the model did not write", w->name, (unsigned long long)at);
}

static bool read_words(struct ChatFile *f, const uint8_t *h, struct Words *w) {
    struct ChatState *s = &f->state;
    uint32_t settings = get_u32(h + AT_SETTINGS), messages = get_u32(h + AT_MESSAGES), cached = get_u32(h + AT_CACHED);
    // The smallest of each is known: nothing is taken for more of them than the file can hold.
    if (settings > w->bytes / 8 || messages > w->bytes / 16 || cached > w->bytes / 4)
        return fail("%s: %u settings, %u messages and %u tokens are stated, more than %llu bytes hold", w->name,
                    settings, messages, cached, (unsigned long long)w->bytes);
    s->settings = xcalloc(settings ? settings : 1, sizeof *s->settings);
    s->messages = xcalloc(messages ? messages : 1, sizeof *s->messages);
    s->n_settings = settings; // what is not reached is zero, and freeing that is harmless
    s->n_messages = messages;
    for (uint32_t i = 0; i < settings; i++)
        if (!take_setting(w, &s->settings[i]))
            return false;
    for (uint32_t i = 0; i < messages; i++)
        if (!take_message(w, &s->messages[i], i == 0))
            return false;
    if (!take_ids(w, cached, "the tokens of the cache", &s->cached))
        return false;
    s->n_cached = cached;
    for (uint64_t i = 0; i < w->bytes; i++)
        if (w->bytes >= 8 || w->data[i])
            return fail("%s: byte %llu: something follows that nothing announced", w->name,
                        (unsigned long long)(w->at + i));
    uint32_t words = messages > 0 && s->messages[0].role == ROLE_SYSTEM ? messages - 1 : messages;
    return s->left_out <= words || fail("%s: %u messages are left out, and there are %u", w->name, s->left_out, words);
}

static bool check_sum(const struct ChatFile *f) {
    struct Sum sum = sum_begin();
    uint8_t *piece = xmalloc(PIECE_BYTES), trailer[TRAILER_BYTES];
    uint64_t all = f->in.bytes - TRAILER_BYTES;
    bool ok = true;
    for (uint64_t at = 0; at < all && ok; at += PIECE_BYTES) {
        uint64_t n = min_u64(PIECE_BYTES, all - at);
        ok = filein_read(&f->in, at, n, piece);
        if (ok)
            sum_add(&sum, piece, n);
    }
    uint64_t found = sum_end(&sum);
    ok = ok && filein_read(&f->in, all, sizeof trailer, trailer);
    free(piece);
    return ok && (get_u64(trailer) == found ||
                  fail("%s: is damaged: its checksum is %016llx, its contents give %016llx", f->in.name,
                       (unsigned long long)get_u64(trailer), (unsigned long long)found));
}

static bool check_header(const struct ChatFile *f, const uint8_t *h) {
    const char *name = f->in.name;
    if (memcmp(h, MAGIC, sizeof MAGIC) != 0)
        return fail("%s: is no saved conversation (its first bytes are not VKMOECHT)", name);
    if (get_u32(h + AT_VERSION) != CHATFILE_VERSION)
        return fail("%s: is a conversation of version %u; this program reads version %d", name, get_u32(h + AT_VERSION),
                    CHATFILE_VERSION);
    if (get_u32(h + AT_HEADER_BYTES) != HEADER_BYTES)
        return fail("%s: byte %d: a header of %u bytes; %d are expected", name, AT_HEADER_BYTES,
                    get_u32(h + AT_HEADER_BYTES), HEADER_BYTES);
    if (get_u64(h + AT_FILE_BYTES) != f->in.bytes)
        return fail("%s: has %llu bytes and states %llu: it is not whole", name, (unsigned long long)f->in.bytes,
                    (unsigned long long)get_u64(h + AT_FILE_BYTES));
    for (int i = AT_REST; i < HEADER_BYTES; i++)
        if (h[i])
            return fail("%s: byte %d: %u where 0 is expected", name, i, h[i]);
    return check_sum(f);
}

static bool read_all(struct ChatFile *f) {
    uint8_t h[HEADER_BYTES];
    const char *name = f->in.name;
    if (f->in.bytes < HEADER_BYTES + TRAILER_BYTES)
        return fail("%s: is no saved conversation: it has %llu bytes", name, (unsigned long long)f->in.bytes);
    if (!filein_read(&f->in, 0, sizeof h, h) || !check_header(f, h))
        return false;
    f->id = (struct ChatIdentity){get_u64(h + AT_MODEL), get_u64(h + AT_TOKENIZER), get_u64(h + AT_ADAPTER),
                                  get_u64(h + AT_HELD)};
    memcpy(f->cache_type, h + AT_CACHE_TYPE, 8);
    f->row_bytes = get_u32(h + AT_ROW_BYTES);
    f->n_layers = get_u32(h + AT_LAYERS);
    f->state.left_out = get_u32(h + AT_LEFT_OUT);
    f->state.stream = get_u32(h + AT_STREAM);
    memcpy(&f->state.adapter_scale, &(uint32_t){get_u32(h + AT_SCALE)}, sizeof f->state.adapter_scale);
    uint32_t cached = get_u32(h + AT_CACHED);
    if ((cached == 0) != (f->n_layers == 0) || f->row_bytes == 0)
        return fail("%s: keys and values of %u tokens in %u layers, rows of %u bytes: these do not go together", name,
                    cached, f->n_layers, f->row_bytes);
    uint64_t room = f->in.bytes - HEADER_BYTES - TRAILER_BYTES, cache = 0;
    if (!ckd_mul(UINT64_C(2) * f->n_layers, cached, &cache) || !ckd_mul(cache, f->row_bytes, &cache) || cache > room)
        return fail("%s: keys and values of %u tokens in %u layers are stated, more than its %llu bytes hold", name,
                    cached, f->n_layers, (unsigned long long)f->in.bytes);
    uint64_t words = room - cache;
    if (words > WORDS_MAX_BYTES)
        return fail("%s: %llu bytes of messages; at most 1 GiB is read", name, (unsigned long long)words);
    f->cache_from = HEADER_BYTES + words;
    uint8_t *data = xmalloc(words + 1);
    struct Words w = {name, data, words, HEADER_BYTES};
    bool ok = filein_read(&f->in, HEADER_BYTES, words, data) && read_words(f, h, &w);
    free(data);
    return ok;
}

static bool open_checked(struct ChatFile *f) {
    bool ok = read_all(f);
    if (!ok)
        chatfile_close(f);
    return ok;
}

bool chatfile_open(struct ChatFile *f, const char *path) {
    *f = (struct ChatFile){.in.fd = -1};
    return filein_open(&f->in, path) && open_checked(f);
}

bool chatfile_open_memory(struct ChatFile *f, const void *data, size_t bytes, const char *name) {
    *f = (struct ChatFile){.in.fd = -1};
    filein_open_memory(&f->in, data, bytes, name);
    return open_checked(f);
}

void chatfile_close(struct ChatFile *f) {
    chatfile_state_free(&f->state);
    filein_close(&f->in);
}

// ---- Taking it up

static bool check_ids(const char *name, const uint32_t *ids, uint32_t n, uint32_t vocab_size) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= vocab_size)
            return fail("%s: token %u is beyond the model's vocabulary of %u", name, ids[i], vocab_size);
    return true;
}

bool chatfile_matches(const struct ChatFile *f, const struct ChatIdentity *id, uint32_t vocab_size) {
    const char *name = f->in.name;
    if (f->id.model != id->model)
        return fail("%s: is a conversation with another model (%016llx, and this one is %016llx)", name,
                    (unsigned long long)f->id.model, (unsigned long long)id->model);
    if (f->id.tokenizer != id->tokenizer)
        return fail("%s: is a conversation with another tokenizer (%016llx, and this one is %016llx)", name,
                    (unsigned long long)f->id.tokenizer, (unsigned long long)id->tokenizer);
    if (f->id.adapter != id->adapter)
        return fail("%s: was held %s", name,
                    f->id.adapter == 0 ? "without an adapter: /adapter off first"
                    : id->adapter      ? "with another adapter: /adapter FOLDER first"
                                       : "with an adapter: /adapter FOLDER first");
    for (uint32_t i = 0; i < f->state.n_messages; i++)
        if (!check_ids(name, f->state.messages[i].ids, f->state.messages[i].n_ids, vocab_size))
            return false;
    return check_ids(name, f->state.cached, f->state.n_cached, vocab_size);
}

const char *chatfile_unusable(const struct ChatFile *f, const struct ChatIdentity *id, const struct Session *s) {
    if (f->state.n_cached == 0 || f->n_layers == 0)
        return "there are none in the file";
    if (f->id.held != id->held)
        return "the weights are held in another type now";
    if (strcmp(f->cache_type, DTYPES[s->cache_k[0].type].name) != 0)
        return "they are of another type than this session's";
    if (f->row_bytes != cache_row_bytes(s) || f->n_layers != s->m->config.n_layers)
        return "they have another shape than this session's";
    return NULL;
}

bool chatfile_rows(const struct ChatFile *f, uint32_t layer, uint32_t part, uint32_t first, uint32_t count, void *out) {
    if (layer >= f->n_layers || part > 1 || first > f->state.n_cached || count > f->state.n_cached - first)
        return fail("%s: rows %u to %u of layer %u are not in it", f->in.name, first, first + count, layer);
    uint64_t row = (UINT64_C(2) * layer + part) * f->state.n_cached + first;
    return filein_read(&f->in, f->cache_from + row * f->row_bytes, (uint64_t)count * f->row_bytes, out);
}

bool chatfile_restore(const struct ChatFile *f, struct Session *s, uint32_t tokens) {
    uint64_t row = cache_row_bytes(s);
    uint32_t step = (uint32_t)max_u64(1, (UINT64_C(8) << 20) / row);
    tokens = (uint32_t)min_u64(tokens, min_u64(f->state.n_cached, s->context));
    uint8_t *rows = xmalloc(step * row);
    bool ok = f->row_bytes == row ||
              fail("%s: rows of %u bytes, not %llu", f->in.name, f->row_bytes, (unsigned long long)row);
    session_rewind(s, 0, 0);
    for (uint32_t layer = 0; layer < s->m->config.n_layers && ok; layer++)
        for (uint32_t part = 0; part < 2 && ok; part++)
            for (uint32_t first = 0; first < tokens && ok; first += step) {
                const struct Tensor *t = part ? &s->cache_v[layer] : &s->cache_k[layer];
                uint32_t n = (uint32_t)min_u64(step, tokens - first);
                ok = chatfile_rows(f, layer, part, first, n, rows) &&
                     tensor_upload(s->m->dev, t, first * row, rows, n * row);
            }
    free(rows);
    if (ok)
        s->length[0] = tokens;
    return ok;
}
