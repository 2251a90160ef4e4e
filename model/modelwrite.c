// See modelwrite.h. Both formats are written alike: first the plan (names, types, order), then the rows stream from the source,
// converted through f32 where the types differ.
#include "model/modelwrite.h"
#include "model/quant.h"
#include "model/rope.h"
#include "model/vocabfile.h"
#include "runtime/parallel.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENIZER_BYTES = 256 << 20, CHUNK_BYTES = 16 << 20 };
static const uint64_t DEFAULT_SHARD_BYTES = UINT64_C(5000000000);

// ---- A model file as a source ----

static enum DType file_type(void *context, const struct WeightSpec *w) {
    const struct ModelFile *f = context;
    const struct FileTensor *t = modelfile_find(f, w->name);
    if (t)
        return t->type;
    fail("%s: tensor %s is missing", f->path, w->name);
    return DT_COUNT;
}

static bool file_rows(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    const struct ModelFile *f = context;
    const struct FileTensor *t = modelfile_find(f, w->name);
    return t ? modelfile_read_rows(f, t, first, count, out) : fail("%s: tensor %s is missing", f->path, w->name);
}

struct WeightSource modelfile_source(struct ModelFile *f) {
    return (struct WeightSource){.context = f, .type = file_type, .rows = file_rows};
}

// ---- Rows ----

typedef bool RowSink(void *writer, const void *data, uint64_t bytes);

static bool to_safetensors(void *writer, const void *data, uint64_t bytes) {
    return safetensors_writer_data(writer, data, bytes);
}

static bool to_gguf(void *writer, const void *data, uint64_t bytes) { return gguf_writer_data(writer, data, bytes); }

// Buffers of one write, as large as the largest chunk so far.
struct Rows {
    const struct WeightSource *source;
    RowSink *sink;
    void *writer;
    const char *path; // of what is written, for messages
    uint8_t *in, *out;
    uint64_t in_bytes, out_bytes;
};

static void *room(void *buffer, uint64_t *has, uint64_t bytes) {
    if (bytes <= *has)
        return buffer;
    *has = bytes;
    return xrealloc(buffer, bytes);
}

static void rows_free(struct Rows *r) {
    free(r->in);
    free(r->out);
}

// GGUF's place of row (or element of a bias) i: row 2i+j of a head there is row j*half+i here. head 0: the same.
static uint64_t head_place(uint64_t i, uint32_t head) {
    uint64_t half = head / 2, k = head ? i % head : 0;
    return head ? i - k + 2 * (k % half) + k / half : i;
}

// Rows of one chunk.
struct Recode {
    const uint8_t *in;
    uint8_t *out;
    enum DType from, to;
    uint64_t cols, row0;     // row0: first row of the chunk in the tensor
    uint32_t head;           // see stream_rows
    const float *importance; // of the columns, a row of them per `rows_each` rows; NULL: unknown
    uint64_t rows_each;
    _Atomic uint64_t refused; // the first row that cannot be of the type `to`; UINT64_MAX: there is none
};

static void recode_refuse(struct Recode *j, uint64_t row) {
    uint64_t before = atomic_load(&j->refused);
    while (row < before && !atomic_compare_exchange_weak(&j->refused, &before, row))
        ;
}

static void recode_rows(void *context, uint64_t first, uint64_t end) {
    struct Recode *j = context;
    uint64_t from_bytes = dtype_file_row_bytes(j->from, j->cols), to_bytes = dtype_file_row_bytes(j->to, j->cols);
    float *wide = xmalloc(j->cols * sizeof *wide);
    for (uint64_t i = first; i < end; i++) {
        uint64_t place = head_place(i, j->head);
        if (j->from == j->to) {
            memcpy(j->out + place * to_bytes, j->in + i * from_bytes, to_bytes);
            continue;
        }
        const float *importance = j->importance ? j->importance + (j->row0 + i) / j->rows_each * j->cols : NULL;
        quant_decode_row(j->from, j->in + i * from_bytes, j->cols, wide);
        if (!quant_encode_row_weighted(j->to, wide, importance, j->cols, j->out + place * to_bytes)) {
            recode_refuse(j, i);
            break; // what follows in this range lies behind it
        }
    }
    free(wide);
}

static bool recode_tell(const struct Recode *j, const struct WeightSpec *w, const char *path) {
    float *wide = xmalloc(j->cols * sizeof *wide);
    quant_decode_row(j->from, j->in + j->refused * dtype_file_row_bytes(j->from, j->cols), j->cols, wide);
    quant_refuse_row(j->to, wide, j->cols, path, w->name, j->row0 + j->refused);
    free(wide);
    return false;
}

// Streams rows first .. first+count of `w` as `type`. With `head` above 0 the rows of each head are put in GGUF's order. `importance`:
// see struct Recode.
static bool stream_rows(struct Rows *r, const struct WeightSpec *w, uint64_t first, uint64_t count, enum DType type,
                        uint32_t head, const float *importance) {
    enum DType from = r->source->type(r->source->context, w);
    if (from == DT_COUNT)
        return false;
    uint64_t cols = w->dim[w->n_dims - 1];
    bool bias = w->n_dims == 1 && head;
    uint64_t from_bytes = dtype_file_row_bytes(from, cols), to_bytes = dtype_file_row_bytes(type, cols);
    uint64_t step = max_u64(1, CHUNK_BYTES / (cols * sizeof(float)));
    if (head && !bias)
        step = max_u64(1, step / head) * head;
    for (uint64_t end = first + count; first < end; first += step) {
        uint64_t n = min_u64(step, end - first);
        r->in = room(r->in, &r->in_bytes, n * from_bytes);
        r->out = room(r->out, &r->out_bytes, n * to_bytes);
        if (!r->source->rows(r->source->context, w, first, n, r->in))
            return false;
        struct Recode job = {.in = r->in,
                             .out = r->out,
                             .from = from,
                             .to = type,
                             .cols = cols,
                             .row0 = first,
                             .head = bias ? 0 : head,
                             .importance = importance,
                             .rows_each = w->n_dims == 3 ? w->dim[1] : UINT64_MAX,
                             .refused = UINT64_MAX};
        parallel_for(n, div_up(1 << 16, cols), recode_rows, &job);
        if (job.refused != UINT64_MAX)
            return recode_tell(&job, w, r->path);
        if (bias) {
            uint64_t size = to_bytes / cols;
            r->in = room(r->in, &r->in_bytes, to_bytes);
            memcpy(r->in, r->out, to_bytes);
            for (uint64_t i = 0; i < cols; i++)
                memcpy(r->out + head_place(i, head) * size, r->in + i * size, size);
        }
        if (!r->sink(r->writer, r->out, n * to_bytes))
            return false;
    }
    return true;
}

// ---- Places ----

static const char GATHERED[] = ".model"; // within a folder that is filled

// But for what a killed process gathered there, which goes when the next one gathers.
static bool dir_is_empty(const char *path) {
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(dir));)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                (strncmp(e->d_name, GATHERED, strlen(GATHERED)) == 0 &&
                 strncmp(e->d_name + strlen(GATHERED), ".tmp", 4) == 0);
    closedir(dir);
    return empty;
}

bool modelwrite_check_output(const char *path, bool file) {
    if (file_exists(path))
        return fail("%s: exists already; give another name or remove it first", path);
    if (dir_exists(path) && file)
        return fail("%s: is a folder; a file is to be written", path);
    if (dir_exists(path) && !dir_is_empty(path))
        return fail("%s: the folder is not empty; give another name or remove it first", path);
    return true;
}

static bool moved(const char *from_dir, const char *to_dir, const char *name) {
    char *from = path_join(from_dir, name), *to = path_join(to_dir, name);
    bool ok = rename(from, to) == 0 || fail("%s: cannot be moved to %s: %s", from, to, strerror(errno));
    free(from);
    free(to);
    return ok;
}

bool modelwrite_move(const char *from, const char *to, const char *last) {
    DIR *d = opendir(from);
    bool ok = d || fail("%s: %s", from, strerror(errno));
    char *count = path_join(to, last); // an earlier result stops counting before its files are replaced
    if (ok && unlink(count) != 0 && errno != ENOENT)
        ok = fail("%s: cannot be replaced: %s", count, strerror(errno));
    free(count);
    ok = ok && dir_sync(to);
    for (struct dirent *e; ok && (e = readdir(d));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, last) != 0)
            ok = moved(from, to, e->d_name);
    if (d)
        closedir(d);
    ok = ok && dir_sync(to) && moved(from, to, last) && dir_sync(to);
    rmdir(from);
    return ok;
}

void modelwrite_place(struct ModelPlace *p, const char *path) {
    char *named = path_without_slash(path), *final = path_followed(named);
    free(named);
    *p = (struct ModelPlace){.fills = dir_exists(final) ? final : NULL};
    char *gathered = p->fills ? path_join(final, GATHERED) : NULL;
    temporary_name(&p->temporary, gathered ? gathered : final);
    free(gathered);
    if (!p->fills)
        free(final);
}

bool modelwrite_place_keep(struct ModelPlace *p) {
    char *final = xstrdup(p->temporary.final);
    bool ok = !dir_exists(p->temporary.path) || dir_sync(p->temporary.path);
    if (ok && p->fills)
        ok = modelwrite_move(p->temporary.path, p->fills, "config.json");
    else if (ok)
        ok = (temporary_keep(&p->temporary) ||
              fail("%s: the model cannot be renamed to its final name: %s", final, strerror(errno))) &&
             parent_sync(final);
    free(final);
    return ok;
}

void modelwrite_place_drop(struct ModelPlace *p) {
    temporary_drop(&p->temporary);
    free(p->fills);
    *p = (struct ModelPlace){0};
}

static bool write_text(const char *dir, const char *name, const char *text) {
    char *path = path_join(dir, name);
    bool ok = file_write_atomic(path, text, strlen(text));
    free(path);
    return ok;
}

// ---- Tokenizers ----

static bool copy_to(const char *from, const char *to_dir, const char *name) {
    char *to = path_join(to_dir, name);
    uint8_t *data = NULL;
    uint64_t bytes;
    bool ok = file_read(from, MAX_TOKENIZER_BYTES, &data, &bytes) && file_write_atomic(to, data, bytes);
    free(data);
    free(to);
    return ok;
}

// Copies a file when it is there.
static bool copy_file(const char *from_dir, const char *to_dir, const char *name) {
    char *from = path_join(from_dir, name);
    bool ok = !file_exists(from) || copy_to(from, to_dir, name);
    free(from);
    return ok;
}

bool modelwrite_tokenizer(const char *dir, const struct Config *c, const struct ModelFile *tokenizer) {
    if (!tokenizer)
        return true;
    if (!tokenizer->gguf) {
        static const char *const names[] = {"tokenizer.model",   "tokenizer_config.json", "special_tokens_map.json",
                                            "added_tokens.json", "chat_template.jinja",   "chat_template.json"};
        // The one that is read, under its usual name; a tokenizer.model beside a tokenizer.json goes along.
        const char *path = tokenizer->tokenizer_path;
        bool model = path && ends_with(path, ".model");
        if (path && !copy_to(path, dir, model ? "tokenizer.model" : "tokenizer.json"))
            return false;
        for (size_t i = model; i < sizeof names / sizeof *names; i++)
            if (!copy_file(tokenizer->path, dir, names[i]))
                return false;
        return true;
    }
    const struct GgufString *tokens = NULL;
    uint64_t count = 0;
    if (!gguf_get_strings(tokenizer->gguf, "tokenizer.ggml.tokens", false, &tokens, &count))
        return false;
    if (!tokens) // a GGUF without a vocabulary has none to give
        return true;
    if (count > c->vocab_size)
        return fail("%s: the vocabulary has %" PRIu64 " tokens, but the embedding %u rows", tokenizer->path, count,
                    c->vocab_size);
    char *json = NULL, *config = NULL;
    bool ok = vocab_to_json(tokenizer->gguf, tokenizer->chat_template, &json, &config) &&
              write_text(dir, "tokenizer.json", json) && write_text(dir, "tokenizer_config.json", config);
    free(json);
    free(config);
    return ok;
}

static bool write_vocab(struct GgufWriter *w, const struct Config *c, const struct ModelFile *tokenizer,
                        const void *data, uint64_t bytes, const char *config, uint64_t config_bytes) {
    const char *path = tokenizer->tokenizer_path, *chat = tokenizer->chat_template;
    if (ends_with(path, ".model")) // SentencePiece's
        return vocab_model_to_gguf(w, c, data, bytes, config, config_bytes, chat, path);
    return vocab_to_gguf(w, c, data, bytes, config, config_bytes, chat, path);
}

static bool gguf_tokenizer(struct GgufWriter *w, const struct Config *c, const struct ModelFile *tokenizer) {
    if (tokenizer && tokenizer->gguf)
        return vocab_copy_gguf(w, c, tokenizer->gguf, NULL);
    if (!tokenizer || !tokenizer->tokenizer_path) {
        gguf_writer_string(w, "tokenizer.ggml.model", "no_vocab");
        return true;
    }
    uint8_t *json = NULL, *config = NULL;
    uint64_t bytes = 0, config_bytes = 0;
    const char *config_path = tokenizer->tokenizer_config_path;
    bool ok = file_read(tokenizer->tokenizer_path, MAX_TOKENIZER_BYTES, &json, &bytes) &&
              (!config_path || file_read(config_path, MAX_TOKENIZER_BYTES, &config, &config_bytes)) &&
              write_vocab(w, c, tokenizer, json, bytes, (const char *)config, config_bytes);
    free(json);
    free(config);
    return ok;
}

// ---- Hugging Face folders ----

// One tensor of the folder: a weight, or one expert's rows of it.
struct Item {
    const struct WeightSpec *spec;
    char *name;
    uint64_t first, rows, bytes;
    uint32_t shard;
};

struct Plan {
    struct Item *items;
    uint32_t count, n_shards;
    uint64_t bytes;
    struct WeightSpec *specs;
};

static void plan_add(struct Plan *p, const struct WeightSpec *w, char *name, uint64_t first, uint64_t rows,
                     enum DType type, uint64_t shard_bytes, uint64_t *shard_used) {
    uint64_t bytes = rows * dtype_file_row_bytes(type, w->dim[w->n_dims - 1]);
    if (*shard_used > 0 && *shard_used + bytes > shard_bytes) {
        p->n_shards++;
        *shard_used = 0;
    }
    *shard_used += bytes;
    p->bytes += bytes;
    p->items[p->count++] = (struct Item){w, name, first, rows, bytes, p->n_shards - 1};
}

static struct Plan make_plan(const struct Config *c, enum DType type, uint64_t shard_bytes) {
    uint32_t n_specs;
    struct Plan p = {.n_shards = 1, .specs = weight_list(c, &n_specs)};
    p.items = xcalloc((size_t)n_specs + 3 * (size_t)c->n_experts * c->n_layers, sizeof *p.items);
    uint64_t used = 0;
    for (uint32_t i = 0; i < n_specs; i++) {
        const struct WeightSpec *w = &p.specs[i];
        if (w->role != ROLE_EXPERTS) {
            plan_add(&p, w, xstrdup(w->name), 0, w->n_dims == 1 ? 1 : w->dim[0], type, shard_bytes, &used);
            continue;
        }
        for (uint32_t e = 0; e < w->dim[0]; e++) {
            char name[sizeof w->name + 12];
            weight_expert_name(w, e, name, sizeof name);
            plan_add(&p, w, xstrdup(name), (uint64_t)e * w->dim[1], w->dim[1], type, shard_bytes, &used);
        }
    }
    return p;
}

static void plan_free(struct Plan *p) {
    for (uint32_t i = 0; i < p->count; i++)
        free(p->items[i].name);
    free(p->items);
    free(p->specs);
}

static char *shard_name(const struct Plan *p, uint32_t shard) {
    return p->n_shards == 1 ? xstrdup("model.safetensors")
                            : xsprintf("model-%05u-of-%05u.safetensors", shard + 1, p->n_shards);
}

static bool write_shard(const char *dir, const struct Plan *p, uint32_t shard, enum DType type,
                        const struct WeightSource *source) {
    struct SafetensorsWriter w;
    safetensors_writer_init(&w);
    safetensors_writer_metadata(&w, "format", "pt"); // transformers asks for it
    for (uint32_t i = 0; i < p->count; i++) {
        const struct Item *it = &p->items[i];
        uint64_t dim[2] = {it->rows, it->spec->dim[it->spec->n_dims - 1]};
        if (it->shard == shard)
            safetensors_writer_add(&w, it->name, type, it->spec->n_dims == 1 ? 1 : 2,
                                   it->spec->n_dims == 1 ? dim + 1 : dim);
    }
    char *name = shard_name(p, shard), *path = path_join(dir, name);
    struct Rows rows = {.source = source, .sink = to_safetensors, .writer = &w, .path = path};
    bool ok = safetensors_writer_begin(&w, path);
    for (uint32_t i = 0; ok && i < p->count; i++) {
        const struct Item *it = &p->items[i];
        if (it->shard == shard && !stream_rows(&rows, it->spec, it->first, it->rows, type, 0, NULL)) {
            safetensors_writer_abort(&w);
            ok = false;
        }
    }
    ok = ok && safetensors_writer_end(&w);
    rows_free(&rows);
    free(name);
    free(path);
    return ok;
}

static bool write_index(const char *dir, const struct Plan *p) {
    if (p->n_shards == 1)
        return true;
    char *text;
    size_t bytes;
    FILE *out = text_begin(&text, &bytes);
    fprintf(out, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {\n", p->bytes);
    for (uint32_t i = 0; i < p->count; i++) {
        char *name = shard_name(p, p->items[i].shard);
        fprintf(out, "    \"%s\": \"%s\"%s\n", p->items[i].name, name, i + 1 < p->count ? "," : "");
        free(name);
    }
    fprintf(out, "  }\n}\n");
    text_end(out);
    bool ok = write_text(dir, "model.safetensors.index.json", text);
    free(text);
    return ok;
}

static bool write_configs(const char *dir, const struct Config *c, enum DType type) {
    char *config = config_to_json(c, type == DT_F32 ? "float32" : type == DT_F16 ? "float16" : "bfloat16");
    char *generation = config_generation_to_json(c);
    bool ok = write_text(dir, "config.json", config) && write_text(dir, "generation_config.json", generation);
    free(config);
    free(generation);
    return ok;
}

bool modelwrite_hf(const char *dir, const struct Config *c, enum DType type, const struct WeightSource *source,
                   const struct ModelFile *tokenizer, uint64_t shard_bytes) {
    if (type != DT_F32 && type != DT_F16 && type != DT_BF16)
        return fail("%s: a folder of safetensors holds f32, f16 or bf16, not %s", dir, DTYPES[type].name);
    if (!config_check_json(c, dir) || !modelwrite_check_output(dir, false))
        return false;
    struct ModelPlace place;
    struct Plan p = make_plan(c, type, shard_bytes ? shard_bytes : DEFAULT_SHARD_BYTES);
    modelwrite_place(&place, dir);
    const char *to = place.temporary.path;
    bool ok = dir_make(to) && write_configs(to, c, type) && modelwrite_tokenizer(to, c, tokenizer);
    for (uint32_t s = 0; ok && s < p.n_shards; s++)
        ok = write_shard(to, &p, s, type, source);
    ok = ok && write_index(to, &p) && modelwrite_place_keep(&place);
    modelwrite_place_drop(&place);
    plan_free(&p);
    return ok;
}

// ---- GGUF ----

static void gguf_keys(struct GgufWriter *w, const struct Config *c, uint32_t file_kind, const char *name) {
    gguf_writer_string(w, "general.architecture", config_gguf_arch(c));
    gguf_writer_string(w, "general.type", "model");
    gguf_writer_string(w, "general.name", name);
    gguf_writer_u32(w, "general.file_type", file_kind);
    gguf_writer_u32(w, "general.quantization_version", 2);
    config_to_gguf(w, c);
}

// What the model's own file says of itself beyond what is written here anyway.
static void gguf_copy_general(struct GgufWriter *w, const struct Gguf *from, bool other) {
    static const char *const OURS[] = {"architecture",         "type",     "name", "file_type",
                                       "quantization_version", "alignment"};
    for (uint64_t i = 0; i < from->n_values; i++) {
        const char *key = from->values[i].key;
        bool copy = strncmp(key, "general.", 8) == 0;
        for (size_t k = 0; copy && k < sizeof OURS / sizeof *OURS; k++)
            copy = strcmp(key + 8, OURS[k]) != 0;
        // Of another model than that of the file.
        if (other && (strcmp(key, "general.description") == 0 || strncmp(key, "general.base_model.", 19) == 0))
            copy = false;
        if (copy)
            gguf_writer_copy(w, &from->values[i]);
    }
}

// As llama.cpp's converter takes them from a model card.
static void gguf_origin_keys(struct GgufWriter *w, const struct GgufOrigin *o) {
    gguf_writer_string(w, "general.description", o->description);
    gguf_writer_u32(w, "general.base_model.count", 1);
    gguf_writer_string(w, "general.base_model.0.name", o->base);
}

// llama.cpp's keys for it.
static void gguf_imatrix_keys(struct GgufWriter *w, const struct Imatrix *m) {
    char *name = path_name(m->path);
    gguf_writer_string(w, "quantize.imatrix.file", name);
    free(name);
    if (*m->datasets)
        gguf_writer_string(w, "quantize.imatrix.dataset", m->datasets);
    gguf_writer_u32(w, "quantize.imatrix.entries_count", m->n_entries);
    if (m->chunks)
        gguf_writer_u32(w, "quantize.imatrix.chunks_count", m->chunks);
}

static enum DType gguf_type(const struct WeightSpec *w, const struct Config *c, const struct WriteTypes *types) {
    if (types->mix)
        return mix_type(types->mix, c, w, types->imatrix != NULL);
    if (weight_is_exact(w))
        return DT_F32;
    const struct FileTensor *like = types->like ? modelfile_find(types->like, w->name) : NULL;
    if (like)
        return like->type;
    bool ends = w->role == ROLE_EMBED || w->role == ROLE_HEAD;
    return dtype_for_cols(ends && types->embed_type != DT_COUNT ? types->embed_type : types->type,
                          w->dim[w->n_dims - 1]);
}

// *importance is NULL where the matrix does not have the tensor.
static bool importance_of(const struct Imatrix *m, const struct WeightSpec *w, const float **importance) {
    const struct ImatrixEntry *e = m ? imatrix_find(m, w->gguf) : NULL;
    uint64_t expected = (uint64_t)w->dim[w->n_dims - 1] * (w->n_dims == 3 ? w->dim[0] : 1);
    *importance = e ? e->values : NULL;
    return !e || e->count == expected ||
           fail("%s: %s has %" PRIu64 " values; the model asks for %" PRIu64 ": is it of another model?", m->path,
                w->gguf, e->count, expected);
}

static bool check_imatrix(const struct Imatrix *m, const struct WeightSpec *specs, uint32_t count) {
    uint32_t used = 0;
    for (uint32_t i = 0; m && i < count; i++) {
        const float *importance;
        if (!importance_of(m, &specs[i], &importance))
            return false;
        used += importance != NULL;
    }
    return !m || used > 0 || fail("%s: has no entry for any tensor of this model", m->path);
}

bool modelwrite_gguf(const char *path, const struct Config *c, const struct WriteTypes *types,
                     const struct WeightSource *source, const struct ModelFile *tokenizer, const char *name) {
    assert(types->mix || types->type != DT_U32);
    if (!config_check_gguf(c, path) || !modelwrite_check_output(path, true))
        return false;
    struct GgufWriter w;
    uint32_t kind = types->mix ? types->mix->file_kind : DTYPES[types->type].file_kind;
    if (types->like && !gguf_get_u32(types->like->gguf, "general.file_type", false, &kind))
        return false;
    gguf_writer_init(&w);
    gguf_keys(&w, c, kind, name ? name : "model");
    if (tokenizer && tokenizer->gguf)
        gguf_copy_general(&w, tokenizer->gguf, types->origin != NULL);
    if (types->origin)
        gguf_origin_keys(&w, types->origin);
    if (types->imatrix)
        gguf_imatrix_keys(&w, types->imatrix);
    if (!gguf_tokenizer(&w, c, tokenizer)) {
        gguf_writer_abort(&w);
        return false;
    }
    uint32_t count;
    struct WeightSpec *specs = weight_list(c, &count);
    // GGUF's architectures with experts have no tied head: the embedding is written twice.
    if (c->tied_head && c->n_experts) {
        specs = xrealloc(specs, (count + 1) * sizeof *specs);
        specs[count] = specs[0];
        snprintf(specs[count].gguf, sizeof specs[count].gguf, "output.weight");
        count++;
    }
    float divisors[CONFIG_MAX_HEAD_DIM / 2];
    uint64_t half = c->head_dim / 2;
    bool divided = rope_divisors(c, divisors);
    if (divided)
        gguf_writer_tensor(&w, "rope_freqs.weight", DT_F32, 1, &half);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t dim[4];
        for (uint32_t d = 0; d < specs[i].n_dims; d++)
            dim[d] = specs[i].dim[d];
        gguf_writer_tensor(&w, specs[i].gguf, gguf_type(&specs[i], c, types), specs[i].n_dims, dim);
    }
    struct Rows rows = {.source = source, .sink = to_gguf, .writer = &w, .path = path};
    bool ok = check_imatrix(types->imatrix, specs, count);
    ok = ok && gguf_writer_begin(&w, path) && (!divided || gguf_writer_data(&w, divisors, half * sizeof *divisors));
    for (uint32_t i = 0; ok && i < count; i++) {
        const struct WeightSpec *s = &specs[i];
        const float *importance;
        uint64_t n_rows = s->n_dims == 1 ? 1 : s->n_dims == 2 ? s->dim[0] : (uint64_t)s->dim[0] * s->dim[1];
        uint32_t head = weight_has_heads(s) && ARCHS[c->arch].gguf_pairs ? c->head_dim : 0;
        ok = importance_of(types->imatrix, s, &importance) &&
             stream_rows(&rows, s, 0, n_rows, gguf_type(s, c, types), head, importance);
    }
    ok = ok && gguf_writer_end(&w);
    if (!ok)
        gguf_writer_abort(&w);
    rows_free(&rows);
    free(specs);
    return ok;
}
