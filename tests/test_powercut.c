// A training run's folder at a power cut, and when its disk fails. The run's changes to the file system are logged (faults.h); for every place
// in that log folders are made as a disk may hold them afterwards: of names that were not synced any part is there, of data that were
// not synced any blocks. From each the run must go on, at the last step that a save had promised or a later one, to the very bits of the
// undisturbed run. Then each call fails in turn, once and from there on.
// VKMOE_FAULTS=all tries everything, all:75 the failing calls from the 75th on alone; otherwise it is a share that is other with every call.
#include "check.h"
#include "cli/args.h"
#include "faults.h"
#include "files.h"
#include "model/modelfile.h"
#include "train/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEPS = 4, SAVE_EVERY = 2 };
static const char RESULT[] = "adapter_model.safetensors", LAST[] = "adapter_config.json";

struct Setup {
    char *work, *data, *messages;
    struct Device dev;
    struct ModelFile file;
    struct Tokenizer tokenizer;
    struct Template chat;
    uint8_t *want; // the result of the undisturbed run
    uint64_t want_bytes;
    bool all;
    uint64_t from; // the first call that fails; above 1: without power cuts
};

// ---- The run

static const struct FaultPlan *in_last_save; // begins with it; NULL: none

static void mark_saved(void *context, const struct TrainStatus *s) { // called before this step's own save
    (void)context;
    if (in_last_save && s->step == STEPS)
        fault_begin(in_last_save);
    fault_mark((s->step - 1) / SAVE_EVERY * SAVE_EVERY);
}

struct Run {
    bool ok;
    uint64_t began_at; // step
};

// The run in `out`, from its last checkpoint; what it tells is in s->messages afterwards.
static struct Run run_in(struct Setup *s, const char *out) {
    const char *data = s->data;
    struct TrainOptions o = {.method = TRAIN_LORA,
                             .lora = {.rank = 2, .alpha = 4, .targets = LORA_Q},
                             .lora_experts_share = 1,
                             .steps = STEPS,
                             .batch_examples = 2,
                             .seq_len = 48,
                             .micro_rows = 1,
                             .learning_rate = 1e-2f,
                             .beta1 = 0.9f,
                             .beta2 = 0.95f,
                             .eps = 1e-8f,
                             .clip_norm = 1,
                             .recompute = true,
                             .seed = 1,
                             .save_every = SAVE_EVERY,
                             .keep = 1,
                             .data = &data,
                             .n_data = 1,
                             .out = out,
                             .resume = true,
                             .base_name = "model"};
    struct ModelOptions mo = {.type = DT_COUNT, .max_positions = 48};
    struct Run r = {.ok = true};
    struct Train t;
    struct Model m;
    fflush(stderr);
    int before = dup(2), to = creat(s->messages, 0600);
    dup2(to, 2);
    close(to);
    r.ok = train_load_data(&t, &o, &s->tokenizer, &s->chat) && model_load(&m, &s->dev, &s->file, &mo);
    if (r.ok) {
        t.on_step = mark_saved;
        r.ok = train_begin(&t, &m);
        r.began_at = t.state.step;
        r.ok = r.ok && train_loop(&t);
        fault_mark(STEPS);
        r.ok = r.ok && train_finish(&t, &s->file);
        train_end(&t);
        model_free(&m);
    }
    train_free(&t);
    fflush(stderr);
    dup2(before, 2);
    close(before);
    return r;
}

static bool same_file(const char *folder, const char *name, const uint8_t *want, uint64_t want_bytes) {
    char *path = path_join(folder, name);
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool same = file_exists(path) && file_read(path, 1 << 24, &data, &bytes) && bytes == want_bytes &&
                memcmp(data, want, bytes) == 0;
    free(path);
    free(data);
    return same;
}

static bool has(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

// A name of what only a run that was cut off leaves; NULL: none.
static const char *leftover(const char *folder) {
    static char found[300];
    DIR *d = opendir(folder);
    found[0] = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (strstr(e->d_name, ".tmp") || strcmp(e->d_name, ".result") == 0)
            snprintf(found, sizeof found, "%s", e->d_name);
    if (d)
        closedir(d);
    return found[0] ? found : NULL;
}

// Steps of metrics.jsonl: each once, in order.
static bool metrics_whole(const char *folder) {
    char *path = path_join(folder, "metrics.jsonl"), want[32];
    uint8_t *text = NULL;
    uint64_t bytes;
    bool whole = file_read(path, 1 << 20, &text, &bytes);
    const char *at = (const char *)text;
    for (int step = 1; whole && step <= STEPS; step++) {
        snprintf(want, sizeof want, "{\"step\": %d,", step);
        whole = at && strncmp(at, want, strlen(want)) == 0;
        at = at ? strchr(at, '\n') : NULL;
        at = at ? at + 1 : NULL;
    }
    whole = whole && at && *at == 0;
    free(path);
    free(text);
    return whole;
}

static void check_goes_on(struct Setup *s, const char *out, uint64_t promised, const char *where) {
    CHECK(!has(out, LAST) || same_file(out, RESULT, s->want, s->want_bytes), "%s: a result that is none", where);
    struct Run r = run_in(s, out);
    CHECK(r.ok, "%s: does not go on: %s", where, fail_last());
    CHECK(r.began_at >= promised, "%s: went on at step %d; a save had promised %d", where, (int)r.began_at,
          (int)promised);
    CHECK(!r.ok || same_file(out, RESULT, s->want, s->want_bytes), "%s: other weights", where);
    CHECK(!r.ok || metrics_whole(out), "%s: metrics that are not of each step once", where);
    CHECK(!r.ok || !leftover(out), "%s: %s is left", where, leftover(out));
}

// ---- A disk that is cut off

enum { MAX_NODES = 4096, MAX_NAMES = 64, BLOCK = 512 };
struct Node { // a file or a folder, under any name
    bool is_folder, in_doubt;
    uint8_t *now, *safe; // contents as written, and as synced last
    size_t n_now, n_safe;
};
struct NameChange { // adds `node` to a folder under a name, takes it from one, or both
    int from, to;   // folders; -1: neither
    char *from_name, *to_name;
    int node;
    bool safe;
};
struct Names { // of one folder
    struct {
        const char *name;
        int node;
    } entry[MAX_NAMES];
    int n;
};
struct Disk {
    struct Node node[MAX_NODES];
    int n_nodes;
    struct NameChange *change;
    size_t n_changes, slots;
    struct Names *live; // by node
};

static int names_find(const struct Names *names, const char *name) {
    for (int i = 0; i < names->n; i++)
        if (strcmp(names->entry[i].name, name) == 0)
            return i;
    return -1;
}

static void names_apply(struct Names *names, const struct NameChange *c) {
    if (c->from >= 0) {
        struct Names *f = &names[c->from];
        int i = names_find(f, c->from_name);
        if (i >= 0 && f->entry[i].node == c->node)
            f->entry[i] = f->entry[--f->n];
    }
    if (c->to >= 0) {
        struct Names *t = &names[c->to];
        int i = names_find(t, c->to_name);
        if (i < 0)
            i = t->n++;
        t->entry[i].name = c->to_name;
        t->entry[i].node = c->node;
    }
}

// The folder that a path ends in, and its last name; -1: no such folder.
static int disk_folder(const struct Disk *d, const char *path, const char **name) {
    int folder = 0;
    for (const char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        char *part = xsprintf("%.*s", (int)(slash - path), path);
        int i = names_find(&d->live[folder], part);
        free(part);
        if (i < 0)
            return -1;
        folder = d->live[folder].entry[i].node;
    }
    *name = path;
    return folder;
}

static int disk_find(const struct Disk *d, const char *path) {
    const char *name;
    if (path[0] == 0)
        return 0;
    int folder = disk_folder(d, path, &name), i = folder < 0 ? -1 : names_find(&d->live[folder], name);
    return i < 0 ? -1 : d->live[folder].entry[i].node;
}

static void disk_rename(struct Disk *d, const char *from, const char *to, int node) {
    const char *a = NULL, *b = NULL;
    int fa = from ? disk_folder(d, from, &a) : -1, fb = to ? disk_folder(d, to, &b) : -1;
    if (d->n_changes == d->slots)
        d->change = xrealloc(d->change, (d->slots = d->slots ? d->slots * 2 : 256) * sizeof *d->change);
    struct NameChange *c = &d->change[d->n_changes++];
    *c = (struct NameChange){fa, fb, a ? xstrdup(a) : NULL, b ? xstrdup(b) : NULL, node, false};
    names_apply(d->live, c);
}

static void disk_write(struct Node *n, const struct FileStep *s) {
    size_t end = s->offset + s->bytes;
    if (end > n->n_now) {
        n->now = xrealloc(n->now, end);
        memset(n->now + n->n_now, 0, end - n->n_now);
        n->n_now = end;
    }
    memcpy(n->now + s->offset, s->data, s->bytes);
    n->in_doubt = true;
}

static void disk_sync(struct Disk *d, int node) {
    struct Node *n = &d->node[node];
    for (size_t i = 0; i < d->n_changes && n->is_folder; i++)
        if (d->change[i].from == node || d->change[i].to == node)
            d->change[i].safe = true;
    if (n->is_folder)
        return;
    n->safe = xrealloc(n->safe, n->n_now);
    if (n->n_now)
        memcpy(n->safe, n->now, n->n_now);
    n->n_safe = n->n_now;
    n->in_doubt = false;
}

static void disk_step(struct Disk *d, const struct FileStep *s) {
    int node = s->change == FILE_LINK || s->change == FILE_FOLDER ? d->n_nodes++ : disk_find(d, s->path);
    if (!CHECK(node >= 0 && node < MAX_NODES, "%s is not on the disk", s->path))
        return;
    struct Node *n = &d->node[node];
    switch (s->change) {
    case FILE_LINK:
    case FILE_FOLDER:
        n->is_folder = s->change == FILE_FOLDER;
        disk_rename(d, NULL, s->path, node);
        break;
    case FILE_CUT:
        n->n_now = 0;
        n->in_doubt = true;
        break;
    case FILE_WRITE:
        disk_write(n, s);
        break;
    case FILE_SYNC:
        disk_sync(d, node);
        break;
    case FILE_RENAME:
        disk_rename(d, s->path, s->to, node);
        break;
    case FILE_UNLINK:
        disk_rename(d, s->path, NULL, node);
        break;
    case FILE_MARK:
        break;
    }
}

static struct Disk *disk_make(void) {
    struct Disk *d = xcalloc(1, sizeof *d);
    d->live = xcalloc(MAX_NODES, sizeof *d->live);
    d->node[d->n_nodes++].is_folder = true;
    return d;
}

static void disk_free(struct Disk *d) {
    for (int i = 0; i < d->n_nodes; i++) {
        free(d->node[i].now);
        free(d->node[i].safe);
    }
    for (size_t i = 0; i < d->n_changes; i++) {
        free(d->change[i].from_name);
        free(d->change[i].to_name);
    }
    free(d->change);
    free(d->live);
    free(d);
}

// What a cut leaves of what was not synced.
enum Left { NOTHING, EVERYTHING, ANY };
struct Cut {
    enum Left names, data;
    uint64_t seed;
};
static const struct Cut CUTS[] = {
    {NOTHING, NOTHING, 0}, {EVERYTHING, NOTHING, 0}, {NOTHING, EVERYTHING, 0}, {EVERYTHING, EVERYTHING, 0}};
enum { N_CUTS = sizeof CUTS / sizeof *CUTS };

static bool kept(enum Left left, uint64_t seed, uint64_t what, uint64_t index) {
    return left == EVERYTHING || (left == ANY && random_uniform(seed, what, index) < 0.5f);
}

// The contents of a file behind the cut, and the hash of them.
static uint8_t *content_after(const struct Node *n, int node, const struct Cut *cut, size_t *bytes) {
    *bytes = n->in_doubt && kept(cut->data, cut->seed, 1, (uint64_t)node) ? n->n_now : n->n_safe;
    uint8_t *content = xcalloc(*bytes + 1, 1);
    for (size_t at = 0; at < *bytes; at += BLOCK) {
        size_t part = min_u64(BLOCK, *bytes - at);
        bool is_new = n->in_doubt && kept(cut->data, cut->seed, 2 + (uint64_t)node, at);
        const uint8_t *from = is_new ? n->now : n->safe;
        size_t have = is_new ? n->n_now : n->n_safe; // behind the end of what is there: zeros
        if (at < have)
            memcpy(content + at, from + at, min_u64(part, have - at));
    }
    return content;
}

// The folder as the disk has it after the cut; `dir` NULL: its hash alone.
static uint64_t disk_write_out(const struct Disk *d, const struct Names *names, int folder, const struct Cut *cut,
                               const char *dir) {
    uint64_t hash = 1; // a sum: the order of names says nothing
    if (dir)
        mkdir(dir, 0777);
    for (int i = 0; i < names[folder].n; i++) {
        int node = names[folder].entry[i].node;
        const char *name = names[folder].entry[i].name;
        char *path = dir ? path_join(dir, name) : NULL;
        if (d->node[node].is_folder) {
            hash += hash_bytes(name, strlen(name), disk_write_out(d, names, node, cut, path));
        } else {
            size_t bytes;
            uint8_t *content = content_after(&d->node[node], node, cut, &bytes);
            hash += hash_bytes(content, bytes, hash_bytes(name, strlen(name), 0));
            FILE *f = path ? fopen(path, "wb") : NULL;
            if (f) {
                fwrite(content, 1, bytes, f);
                fclose(f);
            }
            free(content);
        }
        free(path);
    }
    return hash;
}

static struct Names *names_after(const struct Disk *d, const struct Cut *cut) {
    struct Names *names = xcalloc(MAX_NODES, sizeof *names);
    for (size_t i = 0; i < d->n_changes; i++)
        if (d->change[i].safe || kept(cut->names, cut->seed, 0, i))
            names_apply(names, &d->change[i]);
    return names;
}

static bool seen_before(uint64_t hash) {
    static uint64_t seen[1 << 16];
    static size_t n;
    for (size_t i = 0; i < n; i++)
        if (seen[i] == hash)
            return true;
    if (n < sizeof seen / sizeof *seen)
        seen[n++] = hash;
    return false;
}

static void test_power_cuts(struct Setup *s) {
    char *root = path_join(s->work, "cut"), *out = path_join(root, "run");
    size_t n, states = 0, tried = 0;
    mkdir(root, 0777);
    fault_watch(root, true);
    struct Run whole = run_in(s, out);
    fault_watch(NULL, false);
    const struct FileStep *log = fault_log(&n);
    CHECK(whole.ok && n > 60, "%zu changes: %s", n, fail_last());
    struct Disk *d = disk_make();
    uint64_t promised = 0, any = s->all ? 12 : 1;
    size_t cuts = 0;
    for (size_t k = 0; k < n; k++) {
        disk_step(d, &log[k]);
        if (log[k].change == FILE_MARK)
            promised = log[k].mark;
        else
            cuts++;
        for (uint64_t c = 0; c < N_CUTS + any; c++) {
            struct Cut cut = c < N_CUTS ? CUTS[c] : (struct Cut){ANY, ANY, k * any + c};
            struct Names *names = names_after(d, &cut);
            uint64_t hash = hash_bytes(&promised, sizeof promised, disk_write_out(d, names, 0, &cut, NULL));
            if (!seen_before(hash) && (states++ % (s->all ? 1 : 12) == 0 || c == 0)) {
                char *image = path_join(s->work, "image"), *there = path_join(image, "run"), where[200];
                disk_write_out(d, names, 0, &cut, image);
                snprintf(where, sizeof where, "cut behind change %zu (%d of %.80s), variant %d", k, log[k].change,
                         log[k].path, (int)c);
                check_goes_on(s, there, promised, where);
                remove_tree(image);
                free(image);
                free(there);
                tried++;
            }
            free(names);
        }
    }
    printf("power cuts: %zu places, %zu different disks, %zu tried\n", cuts, states, tried);
    disk_free(d);
    remove_tree(root);
    free(root);
    free(out);
}

// ---- Calls that fail

// Lines of complaint in what a run told; `first`: the first of them.
static int complaints(const char *path, char first[400]) {
    uint8_t *text = NULL;
    uint64_t bytes;
    int n = 0;
    first[0] = 0;
    if (!file_read(path, 1 << 20, &text, &bytes))
        return -1;
    for (char *line = strtok((char *)text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "vkmoe: ", 7) == 0 && strncmp(line, "vkmoe: warning", 14) != 0 && n++ == 0)
            snprintf(first, 400, "%s", line);
    free(text);
    return n;
}

static void fail_call(struct Setup *s, uint64_t at, int error, bool lasting, size_t *stopped, size_t *went_on) {
    char *root = path_join(s->work, "bad"), *out = path_join(root, "run"), line[400], where[200];
    mkdir(root, 0777);
    fault_watch(root, false);
    fault_begin(&(struct FaultPlan){.kind = FAULT_FILE, .at = at, .error = error, .lasting = lasting});
    struct Run r = run_in(s, out);
    fault_end();
    fault_watch(NULL, false);
    snprintf(where, sizeof where, "call %d, %s: %s%s", (int)at, fault_fired_name(),
             error == FAULT_SHORT ? "half written" : strerror(error), lasting ? ", and all behind it" : "");
    int told = complaints(s->messages, line);
    if (r.ok) {
        (*went_on)++;
        CHECK(told == 0, "%s: the run went on, but told '%s'", where, line);
    } else {
        (*stopped)++;
        CHECK(told == 1, "%s: %d lines, the first '%s'", where, told, line);
        CHECK(strstr(line, root) && (error == FAULT_SHORT || strstr(line, strerror(error))),
              "%s: neither file nor reason in '%s'", where, line);
        CHECK(lasting || !leftover(out), "%s: %s is left", where, leftover(out));
    }
    if (fault_fired())
        check_goes_on(s, out, 0, where);
    remove_tree(root);
    free(root);
    free(out);
}

static void test_failing_calls(struct Setup *s) {
    static const int ERRORS[] = {ENOSPC, EIO, EINTR, FAULT_SHORT, EMFILE};
    enum { N_ERRORS = sizeof ERRORS / sizeof *ERRORS };
    char *root = path_join(s->work, "bad"), *out = path_join(root, "run");
    size_t stopped = 0, went_on = 0;
    mkdir(root, 0777);
    fault_watch(root, false);
    fault_begin(&(struct FaultPlan){.kind = FAULT_FILE});
    struct Run r = run_in(s, out);
    uint64_t calls = fault_end();
    fault_watch(NULL, false);
    CHECK(r.ok && calls > 100, "%d calls: %s", (int)calls, fail_last());
    CHECK(s->from <= calls, "VKMOE_FAULTS=all:%d: there are %d calls", (int)s->from, (int)calls);
    remove_tree(root);
    for (uint64_t at = s->from; at <= calls; at++)
        for (int e = 0; e < 2 * N_ERRORS; e++)
            if ((s->all || (at * 7 + (uint64_t)e) % 37 == 0) && !(e >= N_ERRORS && ERRORS[e % N_ERRORS] == EINTR))
                fail_call(s, at, ERRORS[e % N_ERRORS], e >= N_ERRORS, &stopped, &went_on);
    printf("failing calls: %d calls, %zu runs stopped, %zu went on\n", (int)calls, stopped, went_on);
    free(root);
    free(out);
}

// The last checkpoint has no room: the result is there all the same.
static void test_last_save(struct Setup *s) {
    char *root = path_join(s->work, "last"), *out = path_join(root, "run"), line[400];
    for (uint64_t at = 1; at <= 6; at++) {
        struct FaultPlan plan = {.kind = FAULT_FILE, .at = at, .error = ENOSPC};
        mkdir(root, 0777);
        fault_watch(root, false);
        in_last_save = &plan;
        struct Run r = run_in(s, out);
        in_last_save = NULL;
        fault_end();
        fault_watch(NULL, false);
        CHECK(fault_fired() && r.ok && complaints(s->messages, line) == 0, "call %d, %s: '%s'", (int)at,
              fault_fired_name(), line);
        CHECK(same_file(out, RESULT, s->want, s->want_bytes) && has(out, LAST) && !leftover(out),
              "call %d, %s: no result, or leftovers", (int)at, fault_fired_name());
        check_goes_on(s, out, SAVE_EVERY, "no last checkpoint");
        remove_tree(root);
    }
    free(root);
    free(out);
}

// ----

static bool set_up(struct Setup *s) {
    static char work[] = "test-powercut-XXXXXX"; // in the build folder, where tests run
    const char *all = getenv("VKMOE_FAULTS");
    *s = (struct Setup){.all = all && strncmp(all, "all", 3) == 0, .from = 1};
    if (s->all && all[3] == ':')
        s->from = max_u64(1, strtoull(all + 4, NULL, 10));
    if (!CHECK(mkdtemp(work), "no temporary folder"))
        return false;
    s->work = realpath(work, NULL);
    s->data = path_join(s->work, "data.jsonl");
    s->messages = path_join(s->work, "messages");
    char *model = path_join(s->work, "model");
    char *init[] = {"vkmoe", "init", "--preset", "tiny-moe", "--out", model};
    static const char data[] = "{\"prompt\": \"one\", \"completion\": \" two three\"}\n"
                               "{\"prompt\": \"four\", \"completion\": \" five\"}\n"
                               "{\"prompt\": \"six\", \"completion\": \" seven eight\"}\n";
    bool ok = cli_main(6, init) == 0 && file_write_atomic(s->data, data, sizeof data - 1) &&
              modelfile_open(&s->file, model) && tokenizer_open(&s->tokenizer, &s->file) &&
              template_open(&s->chat, NULL, s->file.chat_template, &s->tokenizer, model) && device_open(&s->dev, NULL);
    free(model);
    return CHECK(ok, "%s", fail_last());
}

int main(void) {
    struct DeviceList list;
    struct Setup s;
    if (!device_list(&list)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    if (!set_up(&s))
        return check_done();
    char *whole = path_join(s.work, "whole"), *result = path_join(whole, RESULT);
    struct Run r = run_in(&s, whole);
    if (CHECK(r.ok && file_read(result, 1 << 24, &s.want, &s.want_bytes) && metrics_whole(whole), "%s", fail_last())) {
        if (s.from == 1)
            test_power_cuts(&s);
        test_last_save(&s);
        test_failing_calls(&s);
    }
    remove_tree(s.work);
    device_close(&s.dev);
    template_free(&s.chat);
    tokenizer_free(&s.tokenizer);
    modelfile_close(&s.file);
    free(whole);
    free(result);
    free(s.want);
    free(s.work);
    free(s.data);
    free(s.messages);
    return check_done();
}
