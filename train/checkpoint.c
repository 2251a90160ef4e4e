// Saving and loading checkpoints. The order of the system calls is the contract: data, fsync, manifest, fsync, folder, rename, parent.
#include "train/checkpoint.h"
#include "model/json.h"
#include "model/safetensors.h"
#include "train/run.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *FORMAT = "vkmoe-checkpoint-1";
static const char WHOLE_FACTS[] = "whole_facts", TEMPLATE[] = "template", FILES[] = "data_files";
enum { CUT_FACT_BYTES = 95 }; // of a manifest without it
enum { HASH_CHUNK = 1 << 20, MAX_CHECKPOINTS = 4096, MAX_FILES_BYTES = 1 << 16 };

// ---- Folders

static int descending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

// Steps of the checkpoints in a folder, newest first. False after a message where it cannot be looked into: checkpoints that are not seen would
// be trained over.
static bool list_steps(const char *out, uint64_t *steps, uint32_t cap, uint32_t *count) {
    DIR *d = opendir(out);
    uint32_t n = 0;
    *count = 0;
    if (!d && errno != ENOENT)
        return fail("%s: the folder cannot be read: %s", out, strerror(errno));
    for (struct dirent *e; d && (e = readdir(d)) && n < cap;) {
        char *end;
        if (strncmp(e->d_name, "checkpoint-", 11) != 0 || e->d_name[11] < '0' || e->d_name[11] > '9')
            continue;
        uint64_t step = strtoull(e->d_name + 11, &end, 10);
        if (*end == 0)
            steps[n++] = step;
    }
    if (d)
        closedir(d);
    qsort(steps, n, sizeof *steps, descending);
    *count = n;
    return true;
}

bool checkpoint_exists(const char *out) {
    uint64_t step;
    uint32_t n;
    return list_steps(out, &step, 1, &n) && n > 0;
}

// What a run may leave in its folder before its first checkpoint.
static const char LOCK[] = ".lock";
static const char *const OWN[] = {LOCK,          ".result",         "metrics.jsonl", "loss.png",
                                  "experts.png", "expert_cfg.json", "samples.txt",   "best"};

// The end of a name that a file of ours had until it was whole: .tmp and the number of a process.
static bool is_temporary(const char *end) {
    return strncmp(end, ".tmp", 4) == 0 && end[4] >= '1' && end[4] <= '9' &&
           strspn(end + 4, "0123456789") == strlen(end + 4);
}

static bool is_own(const char *name, bool temporary) {
    for (size_t i = 0; i < sizeof OWN / sizeof OWN[0]; i++) {
        size_t n = strlen(OWN[i]);
        if (strncmp(name, OWN[i], n) == 0 && (is_temporary(name + n) || (!temporary && !name[n])))
            return true;
    }
    return false;
}

static bool is_half_checkpoint(const char *name) { // .checkpoint-N.tmp
    size_t digits = strncmp(name, ".checkpoint-", 12) == 0 ? strspn(name + 12, "0123456789") : 0;
    return digits && strcmp(name + 12 + digits, ".tmp") == 0;
}

// What a run that was cut off left behind: half a checkpoint, or a file beside those that are rewritten (metrics, pictures).
static void temporaries_remove(const char *out) {
    DIR *d = opendir(out);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = path_join(out, e->d_name);
        if (is_half_checkpoint(e->d_name))
            path_remove(path);
        else if (is_own(e->d_name, true))
            unlink(path);
        free(path);
    }
    if (d)
        closedir(d);
}

static char *folder_of(const char *out, uint64_t step) {
    char name[40];
    snprintf(name, sizeof name, "checkpoint-%llu", (unsigned long long)step);
    return path_join(out, name);
}

static bool file_hash(const char *path, uint64_t *bytes, uint64_t *hash) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return fail("%s: %s", path, strerror(errno));
    uint8_t *chunk = xmalloc(HASH_CHUNK);
    *bytes = *hash = 0;
    for (size_t n; (n = fread(chunk, 1, HASH_CHUNK, f)) > 0; *bytes += n)
        *hash = hash_bytes(chunk, n, *hash);
    bool ok = !ferror(f);
    int error = errno;
    fclose(f);
    free(chunk);
    return ok || fail("%s: read error: %s", path, strerror(error));
}

// ---- Writing

void identity_add(struct RunIdentity *id, const char *name, const char *format, ...) {
    assert(id->n < sizeof id->facts / sizeof id->facts[0]);
    struct RunFact *f = &id->facts[id->n++];
    f->name = name;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(f->value, sizeof f->value, format, args);
    va_end(args);
    assert(length >= 0 && (size_t)length < sizeof f->value); // runs that differ behind a cut would be the same
    (void)length;
}

// Of a trained parameter: what is trained of the weights, in the gradient's shape, and the moments.
static const char REFERENCE[] = "reference";
enum { PARTS = 3 };
static const char *const PART_SUFFIX[PARTS] = {"", ".m1", ".m2"};
static const struct Tensor *run_part(const struct ParamRun *r, int part) {
    return part == 0 ? &r->w : part == 1 ? &r->m1 : &r->m2;
}
static enum DType part_type(const struct Param *p, int part) { return part == 0 ? p->w.type : p->m1.type; }
static const struct Tensor *part_shape(const struct Param *p, int part) { return part == 0 ? &p->g : &p->m1; }

static bool tensor_write(struct Model *m, struct SafetensorsWriter *w, const struct Tensor *t, uint8_t *chunk) {
    uint64_t bytes = tensor_rows(t) * dtype_row_bytes(t->type, tensor_cols(t));
    for (uint64_t at = 0; at < bytes; at += HASH_CHUNK) {
        uint64_t n = min_u64(HASH_CHUNK, bytes - at);
        if (!tensor_download(m->dev, t, at, chunk, n) || !safetensors_writer_data(w, chunk, n))
            return false;
    }
    return true;
}

static bool state_write(const char *path, struct Model *m, const struct CheckpointState *s) {
    struct SafetensorsWriter w;
    char name[112];
    safetensors_writer_init(&w);
    for (uint32_t i = 0; i < m->n_params; i++) {
        const struct Param *p = &m->params[i];
        for (int k = 0; k < PARTS && param_is_trained(p); k++) {
            const struct Tensor *shape = part_shape(p, k);
            uint64_t dim[4];
            for (uint32_t d = 0; d < shape->n_dims; d++)
                dim[d] = shape->dim[d];
            snprintf(name, sizeof name, "%s%s", p->spec.name, PART_SUFFIX[k]);
            safetensors_writer_add(&w, name, part_type(p, k), shape->n_dims, dim);
        }
    }
    if (s->n_reference)
        safetensors_writer_add(&w, REFERENCE, DT_F32, 1, &s->n_reference);
    bool ok = safetensors_writer_begin(&w, path);
    uint8_t *chunk = xmalloc(HASH_CHUNK);
    for (uint32_t i = 0; i < m->n_params && ok; i++)
        for (int k = 0; k < PARTS && param_is_trained(&m->params[i]); k++)
            for (struct ParamRun r = {0}; ok && param_next_run(&m->params[i], &r);)
                ok = tensor_write(m, &w, run_part(&r, k), chunk);
    if (ok && s->n_reference)
        ok = safetensors_writer_data(&w, s->reference, s->n_reference * sizeof *s->reference);
    free(chunk);
    if (!ok) {
        safetensors_writer_abort(&w);
        return false;
    }
    return safetensors_writer_end(&w);
}

uint64_t checkpoint_bytes(const struct Model *m) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->n_params; i++)
        for (int k = 0; k < PARTS && param_is_trained(&m->params[i]); k++) {
            const struct Tensor *shape = part_shape(&m->params[i], k);
            bytes += tensor_rows(shape) * dtype_row_bytes(part_type(&m->params[i], k), tensor_cols(shape));
        }
    return bytes;
}

static json_t *template_json(const struct RunIdentity *id) {
    char hash[20];
    const char *text = id->template_text ? id->template_text : "";
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hash_bytes(text, strlen(text), 0));
    return json_pack("{s:o, s:s}", "name", json_repaired(id->template_name ? id->template_name : "the model's own"),
                     "hash", hash);
}

static json_t *files_json(const struct Dataset *d) {
    json_t *files = json_array();
    size_t bytes = 0; // a manifest is small
    for (size_t i = 0; d && i < d->n_paths && (bytes += strlen(d->paths[i]) + 100) < MAX_FILES_BYTES; i++)
        json_array_append_new(files, json_pack("{s:o, s:s}", "path", json_repaired(d->paths[i]), "hash", d->sha256[i]));
    return files;
}

static bool manifest_write(const char *folder, const struct RunIdentity *id, const struct CheckpointState *s,
                           uint64_t bytes, uint64_t hash) {
    json_t *run = json_object();
    for (uint32_t i = 0; i < id->n; i++)
        if (id->facts[i].value[0])
            json_object_set_new(run, id->facts[i].name, json_string(id->facts[i].value));
    char hex[20];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)hash);
    json_t *root = json_pack("{s:s, s:I, s:I, s:I, s:f, s:s, s:o, s:b, s:{s:I, s:s}}", "format", FORMAT, "step",
                             (json_int_t)s->step, "epoch", (json_int_t)s->cursor.epoch, "next",
                             (json_int_t)s->cursor.next, "seconds", s->seconds, "device", s->device, "run", run,
                             WHOLE_FACTS, 1, "state.safetensors", "bytes", (json_int_t)bytes, "hash", hex);
    json_object_set_new(root, TEMPLATE, template_json(id));
    json_object_set_new(root, FILES, files_json(id->data));
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    if (!text)
        return fail("%s: the manifest could not be made (a name in it is no UTF-8)", folder);
    char *manifest = path_join(folder, "manifest.json"), *check = path_join(folder, "manifest.sha256"), sum[65];
    struct Sha256 sha;
    sha256_begin(&sha);
    sha256_add(&sha, text, strlen(text));
    sha256_end(&sha, sum);
    bool ok = file_write_atomic(manifest, text, strlen(text)) && file_write_atomic(check, sum, 64);
    free(text);
    free(manifest);
    free(check);
    return ok;
}

bool checkpoint_save(const char *out, struct Model *m, const struct RunIdentity *id, const struct CheckpointState *s,
                     uint32_t keep, uint64_t also) {
    char *final = folder_of(out, s->step);
    char *temporary = xsprintf("%s/.checkpoint-%llu.tmp", out, (unsigned long long)s->step);
    char *state = path_join(temporary, "state.safetensors");
    uint64_t bytes, hash, steps[MAX_CHECKPOINTS];
    uint32_t n = 0, kept = 0;
    temporaries_remove(out);
    bool ok = dir_make(temporary) && state_write(state, m, s) && file_hash(state, &bytes, &hash) &&
              manifest_write(temporary, id, s, bytes, hash) && dir_sync(temporary);
    if (ok && dir_exists(final)) // a damaged one of the same step, which the resumed run passed over
        path_remove(final);
    if (ok && rename(temporary, final) != 0)
        ok = fail("%s: cannot be renamed to %s: %s", temporary, final, strerror(errno));
    ok = ok && dir_sync(out);
    if (!ok)
        path_remove(temporary);
    ok = ok && list_steps(out, steps, MAX_CHECKPOINTS, &n);
    for (uint32_t i = 0; i < n; i++) {
        // What is numbered above this step was damaged and passed over: it must not take the place of a whole one.
        if ((steps[i] <= s->step && kept++ < keep) || steps[i] == also)
            continue;
        char *old = folder_of(out, steps[i]);
        path_remove(old);
        free(old);
    }
    free(final);
    free(temporary);
    free(state);
    return ok;
}

// ---- Loading

struct Manifest {
    json_t *root;
    uint64_t bytes;
    const char *hash;
};

// A number that this program may have written: hashes keep accidents out, not lies.
static bool natural(const json_t *root, const char *key) {
    const json_t *value = json_object_get(root, key);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

// A whole manifest, or a word about what is wrong with it.
static const char *manifest_read(const char *folder, struct Manifest *mf) {
    char *path = path_join(folder, "manifest.json"), *check = path_join(folder, "manifest.sha256"), sum[65];
    uint8_t *text = NULL, *want = NULL;
    uint64_t bytes = 0, want_bytes = 0;
    const char *wrong = NULL;
    *mf = (struct Manifest){0};
    if (!file_exists(path) || !file_exists(check) || !file_read(path, 1 << 20, &text, &bytes) ||
        !file_read(check, 1 << 10, &want, &want_bytes)) {
        wrong = "its manifest is missing";
    } else {
        struct Sha256 sha;
        sha256_begin(&sha);
        sha256_add(&sha, text, bytes);
        sha256_end(&sha, sum);
        if (want_bytes != 64 || memcmp(sum, want, 64) != 0)
            wrong = "its manifest is damaged";
    }
    if (!wrong) {
        mf->root = json_loadb((const char *)text, bytes, JSON_REJECT_DUPLICATES, NULL);
        json_t *file = json_object_get(mf->root, "state.safetensors");
        const char *format = json_string_value(json_object_get(mf->root, "format"));
        mf->bytes = (uint64_t)json_integer_value(json_object_get(file, "bytes"));
        mf->hash = json_string_value(json_object_get(file, "hash"));
        if (!format || strcmp(format, FORMAT) != 0 || !mf->hash)
            wrong = "it has another format";
        else if (!natural(mf->root, "step") || !natural(mf->root, "epoch") || !natural(mf->root, "next"))
            wrong = "its place in the data is none";
    }
    free(path);
    free(check);
    free(text);
    free(want);
    return wrong;
}

static const char *state_check(const char *folder, const struct Manifest *mf) {
    char *path = path_join(folder, "state.safetensors"), hex[20];
    uint64_t bytes = 0, hash = 0;
    const char *wrong = NULL;
    if (!file_exists(path))
        wrong = "state.safetensors is missing";
    else if (!file_hash(path, &bytes, &hash))
        wrong = "state.safetensors cannot be read";
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)hash);
    if (!wrong && bytes != mf->bytes)
        wrong = "state.safetensors has another size than its manifest states";
    else if (!wrong && strcmp(hex, mf->hash) != 0)
        wrong = "state.safetensors has another hash than its manifest states";
    free(path);
    return wrong;
}

// Manifests of before have the first bytes of a long one alone.
static bool same_fact(const struct Manifest *mf, const char *had, const char *now) {
    bool cut = strlen(had) == CUT_FACT_BYTES && !json_is_true(json_object_get(mf->root, WHOLE_FACTS));
    return cut ? strncmp(had, now, CUT_FACT_BYTES) == 0 : strcmp(had, now) == 0;
}

// A fact as its user wrote it: 0.00100000005 was 0.001, and schedule 1 has a name.
static void tell_fact(const char *value, char *out, size_t bytes) {
    static const char SCHEDULE[] = "schedule ";
    size_t used = 0;
    while (*value && used + 32 < bytes) {
        size_t digits = strspn(value, "0123456789.");
        unsigned long n = strtoul(value, NULL, 10);
        if (used >= strlen(SCHEDULE) && strncmp(out + used - strlen(SCHEDULE), SCHEDULE, strlen(SCHEDULE)) == 0 &&
            digits == 1 && n <= SCHEDULE_LINEAR) {
            used += (size_t)snprintf(out + used, bytes - used, "%s", TRAIN_SCHEDULES[n]);
            value++;
        } else if (digits > 7 && value[1] == '.' && (used == 0 || out[used - 1] == ' ')) {
            char *end;
            used += (size_t)snprintf(out + used, bytes - used, "%g", strtod(value, &end));
            value = end;
        } else {
            out[used++] = *value++;
        }
    }
    out[used] = 0;
}

// The data is another: the template or the file that made it so.
static bool data_differs(const char *folder, const struct Manifest *mf, const struct RunIdentity *id) {
    const json_t *had = json_object_get(mf->root, FILES), *chat = json_object_get(mf->root, TEMPLATE);
    json_t *now = files_json(id->data), *chat_now = template_json(id);
    size_t n = json_array_size(had), n_now = json_array_size(now);
    const char *what = NULL, *was = NULL, *is = NULL, *hash = json_string_value(json_object_get(chat, "hash"));
    if (hash && strcmp(hash, json_string_value(json_object_get(chat_now, "hash"))) != 0)
        what = "chat template", was = json_string_value(json_object_get(chat, "name")),
        is = json_string_value(json_object_get(chat_now, "name"));
    for (size_t i = 0; n && !what && i < max_u64(n, n_now); i++) {
        const json_t *a = json_array_get(had, i), *b = json_array_get(now, i);
        if (json_equal(json_object_get(a, "hash"), json_object_get(b, "hash")))
            continue;
        what = DATA_FACT;
        was = a ? json_string_value(json_object_get(a, "path")) : "no file more";
        is = b ? json_string_value(json_object_get(b, "path")) : "no file more";
    }
    if (what && was && strcmp(was, is) == 0)
        fail("%s is of another run: its %s %s has changed since; give it as it was, or another --out", folder, what,
             was);
    else if (what && was)
        fail("%s is of another run: its %s is %s, now it is %s; give the same flags, or another --out", folder, what,
             was, is);
    json_decref(now), json_decref(chat_now);
    return what && was;
}

static bool identity_check(const char *folder, const struct Manifest *mf, const struct RunIdentity *id) {
    json_t *run = json_object_get(mf->root, "run");
    for (uint32_t i = 0; i < id->n; i++) {
        const char *had = json_string_value(json_object_get(run, id->facts[i].name)), *now = id->facts[i].value;
        char was[sizeof id->facts[i].value + 32] = "not stated", is[sizeof was] = "not stated";
        if (same_fact(mf, had ? had : "", now))
            continue;
        if (strcmp(id->facts[i].name, DATA_FACT) == 0 && data_differs(folder, mf, id))
            return false;
        if (had)
            tell_fact(had, was, sizeof was);
        if (now[0])
            tell_fact(now, is, sizeof is);
        bool told = strcmp(was, is) != 0; // not a difference that is rounded away
        return fail("%s is of another run: its %s is %s, now it is %s; give the same flags, or another --out", folder,
                    id->facts[i].name, told ? was : had, told ? is : now);
    }
    return true;
}

static bool part_read(struct Model *m, const struct Safetensors *s, const struct Param *p, int part, uint8_t *chunk) {
    char name[112];
    snprintf(name, sizeof name, "%s%s", p->spec.name, PART_SUFFIX[part]);
    const struct SafetensorsEntry *e = safetensors_find(s, name);
    enum DType type = part_type(p, part);
    const struct Tensor *shape = part_shape(p, part);
    if (!e || e->type != type || e->bytes != tensor_rows(shape) * dtype_row_bytes(type, tensor_cols(shape)))
        return fail("the checkpoint's tensor %s is %s", name, e ? "of another type or size" : "missing");
    uint64_t from = 0;
    for (struct ParamRun r = {0}; param_next_run(p, &r);) {
        const struct Tensor *t = run_part(&r, part);
        uint64_t bytes = tensor_rows(t) * dtype_row_bytes(type, tensor_cols(t));
        for (uint64_t at = 0; at < bytes; at += HASH_CHUNK) {
            uint64_t n = min_u64(HASH_CHUNK, bytes - at);
            if (!safetensors_read(s, e, from + at, n, chunk) || !tensor_upload(m->dev, t, at, chunk, n))
                return false;
        }
        from += bytes;
    }
    return part != 0 || param_written(m->dev, p);
}

static bool state_read(const char *folder, struct Model *m, struct CheckpointState *state) {
    char *path = path_join(folder, "state.safetensors");
    struct Safetensors s;
    bool ok = safetensors_open(&s, path);
    bool opened = ok;
    uint8_t *chunk = xmalloc(HASH_CHUNK);
    for (uint32_t i = 0; i < m->n_params && ok; i++)
        for (int k = 0; k < PARTS && ok && param_is_trained(&m->params[i]); k++)
            ok = part_read(m, &s, &m->params[i], k, chunk);
    if (ok && state->n_reference) {
        const struct SafetensorsEntry *e = safetensors_find(&s, REFERENCE);
        ok = (e && e->bytes == state->n_reference * sizeof *state->reference) ||
             fail("the checkpoint's tensor %s is %s", REFERENCE, e ? "of another size" : "missing");
        ok = ok && safetensors_read(&s, e, 0, e->bytes, state->reference);
    }
    if (opened)
        safetensors_close(&s);
    free(chunk);
    free(path);
    return ok;
}

bool checkpoint_is_whole(const char *out, uint64_t step) {
    struct Manifest mf;
    char *folder = folder_of(out, step);
    bool whole = !manifest_read(folder, &mf) && !state_check(folder, &mf);
    json_decref(mf.root);
    free(folder);
    return whole;
}

bool checkpoint_load(const char *out, struct Model *m, const struct RunIdentity *id, uint64_t step,
                     struct CheckpointState *state, bool *found) {
    uint64_t steps[MAX_CHECKPOINTS] = {step};
    uint32_t n = 1;
    bool ok = step || list_steps(out, steps, MAX_CHECKPOINTS, &n);
    *found = false;
    for (uint32_t i = 0; i < n && ok && !*found; i++) {
        char *folder = folder_of(out, steps[i]);
        struct Manifest mf;
        const char *wrong = manifest_read(folder, &mf);
        if (!wrong)
            wrong = state_check(folder, &mf);
        if (wrong) {
            warn("%s is damaged (%s): %s", folder, wrong,
                 i + 1 < n ? "the checkpoint before it is used" : "there is no checkpoint before it");
        } else {
            *found = true;
            ok = identity_check(folder, &mf, id) && state_read(folder, m, state);
            state->step = (uint64_t)json_integer_value(json_object_get(mf.root, "step"));
            state->cursor.epoch = (uint64_t)json_integer_value(json_object_get(mf.root, "epoch"));
            state->cursor.next = (uint64_t)json_integer_value(json_object_get(mf.root, "next"));
            state->seconds = json_number_value(json_object_get(mf.root, "seconds"));
            const char *device = json_string_value(json_object_get(mf.root, "device"));
            snprintf(state->device, sizeof state->device, "%s", device ? device : "");
        }
        json_decref(mf.root);
        free(folder);
    }
    if (ok && n && !*found)
        return fail("%s: none of its %u checkpoints is whole", out, n);
    return ok;
}

bool checkpoint_fact(const char *out, const char *name, char *value, size_t bytes) {
    uint64_t steps[MAX_CHECKPOINTS];
    uint32_t n;
    bool found = false;
    if (!list_steps(out, steps, MAX_CHECKPOINTS, &n))
        return false;
    for (uint32_t i = 0; i < n && !found; i++) {
        char *folder = folder_of(out, steps[i]);
        struct Manifest mf;
        const char *text = manifest_read(folder, &mf)
                               ? NULL
                               : json_string_value(json_object_get(json_object_get(mf.root, "run"), name));
        found = text != NULL;
        if (found)
            snprintf(value, bytes, "%s", text);
        json_decref(mf.root);
        free(folder);
    }
    return found;
}

bool checkpoint_folder_free(const char *out) {
    DIR *d = opendir(out);
    bool all = d || errno == ENOENT; // what is there and cannot be looked into may be anybody's
    bool locked = false, files = false;
    for (struct dirent *e; all && d && (e = readdir(d));) {
        const char *name = e->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        bool temporary = is_half_checkpoint(name) || is_own(name, true);
        all = temporary || strncmp(name, "events.out.tfevents.", 20) == 0 || is_own(name, false);
        locked = locked || strcmp(name, LOCK) == 0;
        files = files || !(temporary || strcmp(name, LOCK) == 0);
    }
    if (d)
        closedir(d);
    return all &&
           (locked || !files); // a run makes its lock first: files without one are another's, whatever their names
}
