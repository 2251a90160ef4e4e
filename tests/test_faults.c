// A training run whose driver fails: each Vulkan call, with each result that it may give (faults.h). The run ends with one line and status 1, or
// does without, or, where the device is lost, opens it again and goes on from its last checkpoint; and whenever it ends well, it is with
// the bits of the undisturbed run.
// VKMOE_FAULTS=all tries every place that calls Vulkan with every result, and a loss at every submit; otherwise it is a share of them.
#include "check.h"
#include "cli/args.h"
#include "faults.h"
#include "files.h"
#include "runtime/device.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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
        CHECK(status == 1 && told == 1, "%s: status %d, %d lines, the first '%s'", where, status, told, first);
        ended[2]++;
    }
    CHECK(!lost || plan->lasting || status == 0 || !strstr(first, "vkQueueSubmit2") || strstr(first, "mapped file"),
          "%s: the run ended: %s", where, first);
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
