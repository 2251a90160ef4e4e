// A training run whose driver fails: each Vulkan call, with each result that it may give (faults.h). The run ends with one line and status 1, or
// does without, or, where the device is lost, opens it again and goes on from its last checkpoint; and whenever it ends well, it is with
// the bits of the undisturbed run.
// VKMOE_FAULTS=all tries every place that calls Vulkan with every result, and a loss at every submit; otherwise it is a share of them.
#include "check.h"
#include "cli/args.h"
#include "faults.h"
#include "files.h"
#include "model/selftest.h"
#include "runtime/filemap.h"
#include "runtime/kernel.h"
#include "runtime/memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

struct Setup {
    char *work, *model, *data, *out, *result, *messages;
    uint8_t *want;
    uint64_t want_bytes;
};

// Status of the run; `told`: its complaints, `first` the first of them.
static int run(struct Setup *s, const struct FaultPlan *plan, uint64_t *calls, int *told, char first[400]) {
    char *line[] = {"vkmoe", "train",        s->model, "--data",         s->data, "--out",     s->out, "--steps",
                    "2",     "--save-every", "1",      "--batch",        "2",     "--context", "48",   "--method",
                    "lora",  "--lora-rank",  "2",      "--lora-targets", "q_proj"};
    fflush(stderr);
    int before = dup(2), to = open(s->messages, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(to, 2);
    close(to);
    fault_begin(plan);
    int status = cli_main(sizeof line / sizeof *line, line);
    *calls = fault_end();
    fflush(stderr);
    dup2(before, 2);
    close(before);
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    *told = 0;
    first[0] = 0;
    if (file_read(s->messages, 1 << 20, &text, &bytes))
        for (char *at = strtok((char *)text, "\r\n"); at; at = strtok(NULL, "\r\n"))
            if (strncmp(at, "vkmoe: ", 7) == 0 && strncmp(at, "vkmoe: warning", 14) != 0 && (*told)++ == 0)
                snprintf(first, 400, "%s", at);
    free(text);
    return status;
}

static bool result_read(const struct Setup *s, uint8_t **data, uint64_t *bytes) {
    return file_exists(s->result) && file_read(s->result, 1 << 24, data, bytes);
}

// False where the call has no such result.
static bool try_failure(struct Setup *s, const struct FaultPlan *plan, unsigned ended[3]) {
    uint64_t calls, bytes = 0;
    uint8_t *data = NULL;
    int told;
    char first[400], where[160];
    int status = run(s, plan, &calls, &told, first);
    int result = fault_fired_result();
    bool lost = result == VK_ERROR_DEVICE_LOST;
    snprintf(where, sizeof where, "call %d, %s gave %d", (int)plan->at, fault_fired_name(), result);
    if (!fault_fired()) { // the last calls depend on how long submits took: there may be fewer than in the counted run
        remove_tree(s->out);
        return false;
    }
    if (status == 0) {
        CHECK(result_read(s, &data, &bytes) && bytes == s->want_bytes && memcmp(data, s->want, bytes) == 0,
              "%s: other weights", where);
        CHECK(told <= 1, "%s: %d lines, the first '%s'", where, told, first);
        ended[told > 0]++;
    } else {
        CHECK(status == 1 && told == (lost && plan->lasting ? 3 : 1), "%s: status %d, %d lines, the first '%s'", where,
              status, told, first);
        ended[2]++;
    }
    CHECK(!lost || plan->lasting || status == 0 || !strstr(first, "vkQueueSubmit2"), "%s: the run ended: %s", where,
          first);
    free(data);
    remove_tree(s->out);
    return result != 0;
}

static void test_vulkan(struct Setup *s, bool all) {
    uint64_t calls;
    int told;
    char first[400];
    unsigned ended[3] = {0}, places = 0, submits = 0;
    if (!CHECK(run(s, &(struct FaultPlan){.kind = FAULT_VULKAN, .trace = true}, &calls, &told, first) == 0 &&
                   calls > 100,
               "%d calls: %s", (int)calls, first))
        return;
    remove_tree(s->out);
    struct FaultCall *trace = xmalloc(calls * sizeof *trace); // the next run makes another
    memcpy(trace, fault_trace(), calls * sizeof *trace);
    for (uint64_t at = 1; at <= calls; at++) {
        const struct FaultCall *c = &trace[at - 1];
        bool submit = strcmp(c->name, "vkQueueSubmit2") == 0, known = false;
        if (submit && (submits++ % (all ? 1 : 9) == 0))
            try_failure(s, &(struct FaultPlan){.kind = FAULT_VULKAN, .at = at, .error = 3}, ended);
        for (uint64_t i = 0; i < at - 1 && !known; i++)
            known = trace[i].stack == c->stack;
        if (known || (places++ % (all ? 1 : 4) != 0))
            continue;
        for (uint32_t r = 0; r < c->n_results; r++)
            if (all || r == places % c->n_results)
                try_failure(s, &(struct FaultPlan){.kind = FAULT_VULKAN, .at = at, .error = (int)r}, ended);
    }
    // A device that is lost at every submit: after a few tries without a step the run gives up.
    try_failure(
        s, &(struct FaultPlan){.kind = FAULT_VULKAN, .at = 1, .error = 3, .lasting = true, .only = "vkQueueSubmit2"},
        ended);
    printf("Vulkan: %d calls from %u places, %u submits; %u runs did without, %u went on after a loss, %u ended\n",
           (int)calls, places, submits, ended[0], ended[1], ended[2]);
    free(trace);
}

// ---- A device without memory may still be at work when what it works on is freed

static void test_idle(void) {
    struct Device dev;
    if (!CHECK(device_open(&dev, NULL), "%s", fail_last()))
        return;
    struct Arena arena, more;
    arena_init(&arena, &dev, "test", ARENA_DEVICE);
    arena_init(&more, &dev, "test", ARENA_DEVICE);
    TENSOR(&arena, DT_F32, 64);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct FileMap *file = filemap_open(&dev, fd, 1 << 16, "this program");
    bool mapped = file && filemap_address(file, 0, 4096);
    close(fd);
    fault_begin(&(struct FaultPlan){.kind = FAULT_VULKAN, .at = 1, .error = 1, .only = "vkAllocateMemory"});
    fail_quiet(true);
    TENSOR(&more, DT_F32, 64);
    fail_quiet(false);
    fault_end();
    CHECK(dev.state == DEVICE_FAILED, "the device is in state %d", dev.state);
    fault_begin(&(struct FaultPlan){.kind = FAULT_VULKAN, .only = "vkDeviceWaitIdle"});
    arena_free(&arena);
    CHECK(fault_end() == 1, "an arena is freed while the device may be at work");
    fault_begin(&(struct FaultPlan){.kind = FAULT_VULKAN, .only = "vkDeviceWaitIdle"});
    filemap_close(file);
    CHECK(fault_end() == mapped, "a file's mapping is let go while the device may be at work");
    arena_free(&more);
    device_close(&dev);
}

// ---- A driver that does not compile a kernel: the next in the list is taken, and the cache knows

static const int LIST[] = {KERNEL_gemm_nt_bf16_cpu, KERNEL_gemm_nt, -1};

// What is picked by a device that is opened for it, where the pipeline that its check makes gives `error` (of MAKES; -1: what the driver says).
static int picked(int error, uint32_t *created) {
    struct Device dev;
    if (!selftest_device_open(&dev, NULL))
        return -1;
    for (const int *k = (const int[]){KERNEL_fill, KERNEL_fill_cpu, KERNEL_copy, -1}; *k >= 0; k++)
        kernel_pick(&dev, (int[]){*k, -1}); // what the check itself uses
    fault_begin(&(struct FaultPlan){
        .kind = FAULT_VULKAN, .at = error >= 0, .error = error, .only = "vkCreateComputePipelines"});
    fail_quiet(true);
    int kernel = kernel_pick(&dev, LIST);
    fail_quiet(false);
    *created = (uint32_t)fault_end();
    CHECK(dev.state == DEVICE_OK, "picking left the device in state %d", dev.state);
    device_close(&dev);
    return kernel;
}

static void test_refused(const char *work) {
    enum { NO_ROOM = 1, REFUSED = 2 }; // of MAKES in faults.c
    char *cache = path_join(work, "kernels"), name[64], line[400] = "";
    const char *was = getenv("VKMOE_CACHE");
    char *kept = was ? xstrdup(was) : NULL;
    uint32_t n;
    CHECK(mkdir(cache, 0700) == 0, "no folder");
    setenv("VKMOE_CACHE", cache, 1);
    CHECK(picked(NO_ROOM, &n) == LIST[0] && fault_fired_result() == VK_ERROR_OUT_OF_DEVICE_MEMORY,
          "no room for a check, and the kernel is not used for it (%d)", fault_fired_result());
    CHECK(picked(REFUSED, &n) == LIST[1] && fault_fired_result() == VK_ERROR_UNKNOWN,
          "a kernel that does not compile is used (%d)", fault_fired_result());
    CHECK(picked(-1, &n) == LIST[1] && n == 0, "nobody remembers it");
    // The cache file: what begins the lines of the kernel.
    DIR *folder = opendir(cache);
    char *path = NULL;
    for (struct dirent *e; folder && (e = readdir(folder));)
        if (strncmp(e->d_name, "kernels-", 8) == 0)
            path = path_join(cache, e->d_name);
    closedir(folder);
    uint8_t *text = NULL;
    uint64_t bytes;
    snprintf(name, sizeof name, "\n%s ", KERNELS[LIST[0]].name);
    const char *at = path && file_read(path, 1 << 20, &text, &bytes) ? strstr((char *)text, name) : NULL;
    pid_t gone = fork();
    if (gone == 0)
        _exit(0);
    waitpid(gone, NULL, 0);
    for (int begun = 2; at && begun <= 3; begun++) {
        size_t head = strlen(name) - 1 + 17;
        line[0] = 0;
        for (int i = 0; i < begun; i++)
            snprintf(line + strlen(line), sizeof line - strlen(line), "%.*sbegun %d\n", (int)head, at + 1, (int)gone);
        CHECK(file_write_atomic(path, line, strlen(line)), "%s", fail_last());
        int kernel = picked(-1, &n);
        CHECK(kernel == LIST[begun > 2], "%d checks without an end: %s is picked", begun, KERNELS[kernel].name);
    }
    CHECK(at, "the cache names no %s", name);
    kept ? setenv("VKMOE_CACHE", kept, 1) : unsetenv("VKMOE_CACHE");
    free(text);
    free(path);
    free(kept);
    free(cache);
}

int main(void) {
    static char work[] = "test-faults-XXXXXX"; // in the build folder, where tests run
    static const char data[] = "{\"prompt\": \"one\", \"completion\": \" two three\"}\n"
                               "{\"prompt\": \"four\", \"completion\": \" five\"}\n";
    struct DeviceList list;
    struct Setup s = {0};
    if (!device_list(&list)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    if (!CHECK(mkdtemp(work), "no temporary folder"))
        return check_done();
    s.work = realpath(work, NULL);
    s.model = path_join(s.work, "model"), s.data = path_join(s.work, "data.jsonl");
    s.out = path_join(s.work, "out"), s.messages = path_join(s.work, "messages");
    s.result = path_join(s.out, "adapter_model.safetensors");
    char *init[] = {"vkmoe", "init", "--preset", "tiny-moe", "--out", s.model}, first[400];
    uint64_t calls;
    int told;
    const char *all = getenv("VKMOE_FAULTS");
    test_refused(s.work);
    test_idle();
    if (CHECK(cli_main(6, init) == 0 && file_write_atomic(s.data, data, sizeof data - 1) &&
                  run(&s, &(struct FaultPlan){0}, &calls, &told, first) == 0 && result_read(&s, &s.want, &s.want_bytes),
              "%s", fail_last())) {
        remove_tree(s.out);
        test_vulkan(&s, all && strcmp(all, "all") == 0);
    }
    remove_tree(s.work);
    free(s.want);
    char *const texts[] = {s.work, s.model, s.data, s.out, s.messages, s.result};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    return check_done();
}
