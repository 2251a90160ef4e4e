// The heap runs dry: every allocation of the rooms, of jansson and of PCRE2 that a run makes fails in turn (faults.h), each in a process of its
// own. The process ends with status 1 and the one line of base.h, or, where it had only asked for a thread or a mapping, may do without. A training
// run must go on afterwards, from whole checkpoints, to the weights of the undisturbed run, and leave nothing of what was cut off. What writes
// a model leaves nothing beside its place.
// VKMOE_FAULTS=all fails every call of the runs without a device, and one of every place of those with one, all:train
// does so in the kinds of run of that name alone; otherwise it is a share, evenly spread.
#include "check.h"
#include "cli/args.h"
#include "eval/text.h"
#include "faults.h"
#include "files.h"
#include "model/chatfile.h"
#include "model/grammar.h"
#include "model/modelfile.h"
#include "model/template.h"
#include "runtime/device.h"
#include "runtime/parallel.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct Setup {
    char *work, *model, *dense, *gguf, *chat, *data, *out, *result, *messages;
    char *place, *folder, *file; // where models are written, and as what
    uint8_t *want;               // the adapter of the undisturbed run
    uint64_t want_bytes;
    bool all;
    const char *only; // a part of a kind's name; NULL: all kinds
};

// What the counted run found, in memory that its process shares with this one.
enum { MAX_CALLS = 1 << 18 };
static struct Counted {
    uint64_t n, n_places;
    const char *fired; // the call that failed; "": none, or the run ended there and then
    struct {
        const char *name;
        bool first; // of its place
    } call[MAX_CALLS];
} * counted;

// ---- What is run

static bool open_model(const char *path) {
    struct ModelFile f;
    struct Tokenizer t;
    struct Template chat;
    if (!modelfile_open(&f, path))
        return false;
    bool ok = tokenizer_open(&t, &f) && template_open(&chat, NULL, f.chat_template, &t, path);
    if (ok) {
        template_free(&chat);
        tokenizer_free(&t);
    }
    modelfile_close(&f);
    return ok;
}
static bool open_folder(const struct Setup *s) { return open_model(s->model); }
static bool open_gguf(const struct Setup *s) { return open_model(s->gguf); }

static bool source_file(const char *name, uint8_t **data, uint64_t *bytes) {
    char *path = path_join(VKMOE_SOURCE_DIR "/tests", name);
    bool ok = file_read(path, 1 << 26, data, bytes);
    free(path);
    return ok;
}

static bool encode(const struct Tokenizer *t) {
    static const char text[] = "Some words, 12345 and \xc3\xa9t\xc3\xa9";
    uint32_t *ids;
    size_t n;
    if (!tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n))
        return false;
    free(tokenizer_decode(t, ids, n, true, NULL));
    free(ids);
    return true;
}

static bool open_tokenizer_json(const struct Setup *s) {
    struct Tokenizer t;
    uint8_t *data;
    uint64_t bytes;
    (void)s;
    bool ok = source_file("golden/tokenizer/deepseek-v3/tokenizer.json", &data, &bytes) &&
              tokenizer_open_json(&t, (const char *)data, bytes, NULL, 0, "tokenizer.json") && encode(&t);
    tokenizer_free(&t);
    free(data);
    return ok;
}

static bool open_tokenizer_model(const struct Setup *s) {
    struct Tokenizer t;
    uint8_t *data;
    uint64_t bytes;
    (void)s;
    bool ok = source_file("golden/tokenizer/llama2/tokenizer.model", &data, &bytes) &&
              tokenizer_open_model(&t, data, bytes, NULL, 0, "tokenizer.model") && encode(&t);
    tokenizer_free(&t);
    free(data);
    return ok;
}

// The seed has no checksum.
static bool write_chat(const struct Setup *s) {
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool ok = source_file("seeds/fuzz_chatfile/talk", &data, &bytes) && bytes > 8;
    for (int i = 0; ok && i < 8; i++)
        data[bytes - 8 + (uint64_t)i] = (uint8_t)(chatfile_checksum(data, bytes - 8) >> 8 * i);
    ok = ok && file_write_atomic(s->chat, data, bytes);
    free(data);
    return ok;
}

static bool open_chat(const struct Setup *s) {
    struct ChatFile f;
    bool ok = chatfile_open(&f, s->chat);
    if (ok)
        chatfile_close(&f);
    return ok;
}

static bool open_grammar(const struct Setup *s) {
    static const char text[] = "root ::= item (\",\" item){0,3}\nitem ::= [a-z]+ | \"\\\"\" [^\"]* \"\\\"\" | group\n"
                               "group ::= \"(\" root \")\"\n";
    struct Grammar g;
    (void)s;
    bool ok = grammar_parse(&g, text, sizeof text - 1, "grammar");
    if (ok)
        grammar_free(&g);
    return ok;
}

static bool use_pattern(const struct Setup *s) {
    struct PatternMatch m;
    (void)s;
    struct Pattern *p = pattern_open("(a|b)+c", "pattern");
    bool ok = p && pattern_find(p, "xababc", 6, 0, &m) && m.from == 1;
    pattern_close(p);
    return ok;
}

static void allocate_some(void *context, uint64_t first, uint64_t end) {
    (void)context;
    for (uint64_t i = first; i < end; i++)
        free(xmalloc(i + 1));
}

static bool use_threads(const struct Setup *s) {
    (void)s;
    parallel_for(200, 20, allocate_some, NULL);
    return true;
}

#define COMMAND(...)                                                                                                   \
    char *line[] = {"vkmoe", __VA_ARGS__};                                                                             \
    return cli_main(sizeof line / sizeof *line, line) == 0

static bool write_pages(const struct Setup *s) { COMMAND("man", "--out", s->out); }
static bool make_dense(const struct Setup *s) { COMMAND("init", "--preset", "tiny", "--out", s->dense); }
static bool init_folder(const struct Setup *s) { COMMAND("init", "--preset", "tiny-moe", "--out", s->folder); }
static bool convert_folder(const struct Setup *s) { COMMAND("convert", s->gguf, "--out", s->folder); }
static bool convert_file(const struct Setup *s) { COMMAND("convert", s->model, "--out", s->file); }
static bool quantize(const struct Setup *s) { COMMAND("quantize", s->model, "--type", "q8_0", "--out", s->file); }
static bool upcycle(const struct Setup *s) {
    COMMAND("upcycle", s->dense, "--shards", "4", "--shared", "1", "--active", "2", "--out", s->folder);
}
static bool merge(const struct Setup *s) { COMMAND("merge", s->model, "--adapter", s->out, "--out", s->folder); }
static bool make_model(const struct Setup *s) { COMMAND("init", "--preset", "tiny-moe", "--out", s->model); }
static bool convert_model(const struct Setup *s) { COMMAND("convert", s->model, "--out", s->gguf); }
static bool train(const struct Setup *s) {
    COMMAND("train", s->model, "--data", s->data, "--out", s->out, "--steps", "2", "--save-every", "1", "--batch", "2",
            "--context", "48", "--method", "lora", "--lora-rank", "2", "--lora-targets", "q_proj", "--resume");
}
static bool generate(const struct Setup *s) {
    COMMAND("generate", s->model, "--adapter", s->out, "-p", "one", "-n", "2", "--context", "32", "--json",
            "--top-logprobs", "2", "--grammar", "root ::= [a-z]+");
}
static bool have_device(const struct Setup *s) {
    struct DeviceList list;
    (void)s;
    return device_list(&list);
}

// ---- One process

struct Ended {
    int status; // of the process; -1: a signal
    int told;   // complaints
    char first[400];
};

static void messages_read(const struct Setup *s, struct Ended *e) {
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    if (file_read(s->messages, 1 << 20, &text, &bytes))
        for (char *at = strtok((char *)text, "\r\n"); at; at = strtok(NULL, "\r\n"))
            if (strncmp(at, "vkmoe: ", 7) == 0 && strncmp(at, "vkmoe: warning", 14) != 0 && e->told++ == 0)
                snprintf(e->first, sizeof e->first, "%s", at);
    free(text);
}

static void count_calls(uint64_t n) {
    const struct FaultCall *trace = fault_trace();
    counted->n = n;
    counted->n_places = 0;
    for (uint64_t i = 0; i < n && i < MAX_CALLS; i++) {
        bool first = true;
        for (uint64_t k = 0; k < i && first; k++)
            first = trace[k].stack != trace[i].stack;
        counted->call[i].name = trace[i].name;
        counted->call[i].first = first;
        counted->n_places += first;
    }
}

static struct Ended run(const struct Setup *s, bool (*what)(const struct Setup *s), const struct FaultPlan *plan) {
    struct Ended e = {.status = -1};
    int status;
    counted->fired = "";
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    if (child == 0) {
        int out = open("/dev/null", O_WRONLY), messages = open(s->messages, O_CREAT | O_TRUNC | O_WRONLY, 0600);
        dup2(out, 1);
        dup2(messages, 2);
        fault_begin(plan);
        bool ok = what(s);
        uint64_t n = fault_end();
        counted->fired = fault_fired_name();
        if (plan->trace)
            count_calls(n);
        _exit(ok ? 0 : 1);
    }
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status))
        e.status = WEXITSTATUS(status);
    messages_read(s, &e);
    return e;
}

static bool result_as_wanted(const struct Setup *s) {
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool same = file_exists(s->result) && file_read(s->result, 1 << 24, &data, &bytes) && bytes == s->want_bytes &&
                memcmp(data, s->want, bytes) == 0;
    free(data);
    return same;
}

// A name of what only a run that was cut off leaves; "": none.
static const char *leftover(const char *folder) {
    static char found[300];
    DIR *d = opendir(folder);
    found[0] = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (strstr(e->d_name, ".tmp") || strncmp(e->d_name, ".checkpoint-", 12) == 0 ||
            strcmp(e->d_name, ".result") == 0)
            snprintf(found, sizeof found, "%s", e->d_name);
    if (d)
        closedir(d);
    return found;
}

static void clear_place(const struct Setup *s) {
    remove_tree(s->place);
    CHECK(dir_make(s->place), "%s", fail_last());
}

// ---- Each kind of run

static const struct Kind {
    const char *name;
    bool (*what)(const struct Setup *s);
    uint32_t tries; // of the suite
    uint32_t least; // calls: with fewer, those of jansson or PCRE2 do not come through here
    bool device;    // it needs one
    bool resumes;   // it goes on in s->out
    bool writes;    // a model in s->place
} KINDS[] = {
    {"safetensors folder", open_folder, 50, 2000, false, false, false},
    {"GGUF", open_gguf, 50, 1, false, false, false},
    {"tokenizer.json", open_tokenizer_json, 40, 2000, false, false, false},
    {"tokenizer.model", open_tokenizer_model, 40, 1, false, false, false},
    {"saved chat", open_chat, 40, 1, false, false, false},
    {"grammar", open_grammar, 40, 1, false, false, false},
    {"pattern", use_pattern, 40, 5, false, false, false},
    {"threads", use_threads, 40, 1, false, false, false},
    {"man --out", write_pages, 20, 1, false, false, false},
    {"init", init_folder, 12, 1, false, false, true},
    {"convert to a folder", convert_folder, 12, 1, false, false, true},
    {"convert to GGUF", convert_file, 12, 1, false, false, true},
    {"quantize", quantize, 12, 1, false, false, true},
    {"upcycle", upcycle, 12, 1, true, false, true},
    {"merge", merge, 12, 1, true, false, true},
    {"generate with an adapter", generate, 12, 1, true, false, false},
    {"train", train, 12, 1, true, true, false},
};

static bool may_go_on(const char *call) { return strcmp(call, "pthread_create") == 0 || strcmp(call, "mmap") == 0; }

static void fail_at(struct Setup *s, const struct Kind *k, uint64_t at, unsigned ended[2]) {
    const char *name = counted->call[at - 1].name;
    struct Ended e = run(s, k->what, &(struct FaultPlan){.kind = FAULT_MEMORY, .at = at});
    if (e.status == 0) { // how many calls there are depends on the clock where there is a device
        ended[0]++;
        CHECK(e.told == 0 && (may_go_on(counted->fired) || (k->device && !counted->fired[0])),
              "%s, call %d (%s): done all the same, '%s'", k->name, (int)at, name, e.first);
    } else {
        ended[1]++;
        CHECK(
            e.status == 1 && e.told == 1 && (may_go_on(name) || strncmp(e.first, "vkmoe: out of host memory", 25) == 0),
            "%s, call %d (%s): status %d, %d lines, the first '%s'", k->name, (int)at, name, e.status, e.told, e.first);
    }
    if (k->writes) {
        CHECK(!leftover(s->place)[0], "%s, call %d (%s): left '%s'", k->name, (int)at, name, leftover(s->place));
        clear_place(s);
    }
    if (k->resumes) {
        e = run(s, k->what, &(struct FaultPlan){0});
        CHECK(e.status == 0 && e.told == 0 && result_as_wanted(s) && !leftover(s->out)[0],
              "%s, call %d (%s): afterwards status %d, '%s', left '%s', or other weights", k->name, (int)at, name,
              e.status, e.first, leftover(s->out));
        remove_tree(s->out);
    }
}

static void test_kind(struct Setup *s, const struct Kind *k) {
    unsigned ended[2] = {0};
    struct Ended e = run(s, k->what, &(struct FaultPlan){.kind = FAULT_MEMORY, .trace = true});
    uint64_t n = min_u64(counted->n, MAX_CALLS);
    if (!CHECK(e.status == 0 && e.told == 0 && n >= k->least, "%s: status %d, %d calls, '%s'", k->name, e.status,
               (int)n, e.first))
        return;
    if (k->resumes)
        remove_tree(s->out);
    if (k->writes)
        clear_place(s);
    for (uint64_t i = 0; i < n; i++) {
        bool share = (i * k->tries + n / 2) / n != ((i + 1) * k->tries + n / 2) / n;
        if (s->all ? !k->device || counted->call[i].first || share : share)
            fail_at(s, k, i + 1, ended);
    }
    printf("%s: %d allocations from %d places; %u runs ended, %u went on\n", k->name, (int)counted->n,
           (int)counted->n_places, ended[1], ended[0]);
}

static bool set_up(struct Setup *s) {
    static char work[] = "test-heap-XXXXXX"; // in the build folder, where tests run
    static const char data[] = "{\"prompt\": \"one\", \"completion\": \" two three\"}\n"
                               "{\"prompt\": \"four\", \"completion\": \" five\"}\n";
    const char *all = getenv("VKMOE_FAULTS");
    counted = mmap(NULL, sizeof *counted, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(mkdtemp(work) && counted != MAP_FAILED, "no temporary folder"))
        return false;
    *s = (struct Setup){.work = realpath(work, NULL), .all = all && strncmp(all, "all", 3) == 0};
    s->only = s->all && all[3] == ':' ? all + 4 : NULL;
    s->model = path_join(s->work, "model"), s->gguf = path_join(s->work, "model.gguf");
    s->chat = path_join(s->work, "talk.chat"), s->data = path_join(s->work, "data.jsonl");
    s->out = path_join(s->work, "out"), s->messages = path_join(s->work, "messages");
    s->result = path_join(s->out, "adapter_model.safetensors");
    s->dense = path_join(s->work, "dense"), s->place = path_join(s->work, "place");
    s->folder = path_join(s->place, "written"), s->file = path_join(s->place, "written.gguf");
    clear_place(s);
    // In a process of its own too: what a driver leaves in this one must not be forked.
    struct Ended e = run(s, make_model, &(struct FaultPlan){0});
    return CHECK(write_chat(s), "%s", fail_last()) &&
           CHECK(e.status == 0 && file_write_atomic(s->data, data, sizeof data - 1), "init: %s", e.first) &&
           CHECK((e = run(s, convert_model, &(struct FaultPlan){0})).status == 0, "convert: %s", e.first) &&
           CHECK((e = run(s, make_dense, &(struct FaultPlan){0})).status == 0, "init: %s", e.first);
}

int main(void) {
    struct Setup s;
    if (!set_up(&s))
        return check_done();
    bool device = run(&s, have_device, &(struct FaultPlan){0}).status == 0;
    if (device) { // the adapter, and caches of kernels that the counted runs then find
        struct Ended e = run(&s, train, &(struct FaultPlan){0});
        device = CHECK(e.status == 0 && file_read(s.result, 1 << 24, &s.want, &s.want_bytes), "train: %s", e.first) &&
                 CHECK((e = run(&s, generate, &(struct FaultPlan){0})).status == 0, "generate: %s", e.first);
    } else {
        check_skip("no Vulkan device: %s", "training and generating");
    }
    size_t tried = 0;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if ((!KINDS[i].device || device) && (!s.only || strstr(KINDS[i].name, s.only)))
            test_kind(&s, &KINDS[i]), tried++;
    CHECK(tried > 0, "no kind of run that can be tried has '%s' in its name", s.only);
    remove_tree(s.work);
    free(s.want);
    char *const texts[] = {s.work, s.model,    s.dense,  s.gguf,  s.chat,   s.data,
                           s.out,  s.messages, s.result, s.place, s.folder, s.file};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    return check_done();
}
