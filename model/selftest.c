// The cache is a text file per driver, a line per verified module: "<name> <hash of its SPIR-V> ok|bad", and before it, when its check begins, one that
// says "begun PROCESS" instead. A line that is damaged matches nothing, and the module is verified again.
#include "model/selftest.h"
#include "model/opcheck.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Checks that came to no end, as where a compiler crashes, before the module is taken for bad. Fewer might be a user who did not want to wait.
enum { MOST_BEGUN = 3 };

static char *cache_path(const struct Device *dev) {
    char name[80];
    snprintf(name, sizeof name, "kernels-%04x-%04x-%016llx.txt", dev->vendor_id, dev->device_id,
             (unsigned long long)hash_bytes(dev->driver_uuid, 16, dev->driver_version));
    return path_join(cache_dir(), name);
}

static void cache_line(enum KernelId kernel, const char *what, char line[160]) {
    const struct KernelInfo *k = &KERNELS[kernel];
    snprintf(line, 160, "%s %016llx %s", k->name, (unsigned long long)hash_bytes(k->words, (size_t)k->n_words * 4, 7),
             what);
}

// The text behind the next line that begins so.
static const char *cache_find(const char *text, const char *line) {
    const char *at = strstr(text, line);
    while (at && at != text && at[-1] != '\n')
        at = strstr(at + 1, line);
    return at ? at + strlen(line) : NULL;
}

static bool cache_has(const char *text, enum KernelId kernel, const char *what) {
    char line[160];
    cache_line(kernel, what, line);
    return cache_find(text, line) != NULL;
}

// By processes that are no more.
static uint32_t times_begun(const char *text, enum KernelId kernel) {
    char line[160];
    cache_line(kernel, "begun ", line);
    uint32_t n = 0;
    for (const char *at = cache_find(text, line); at; at = cache_find(at, line)) {
        long process = strtol(at, NULL, 10);
        n += process > 0 && kill((pid_t)process, 0) != 0 && errno == ESRCH;
    }
    return n;
}

static void cache_add(const struct Device *dev, enum KernelId kernel, const char *what) {
    char *path = cache_path(dev), line[160];
    cache_line(kernel, what, line);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (write(fd, line, strlen(line)) < 0)
            warn("%s cannot be written; kernels are verified again next time", path);
        close(fd);
    }
    free(path);
}

static bool covers(const struct OpCase *oc, enum KernelId kernel) {
    for (const int *k = oc->kernels; *k >= 0; k++)
        if (*k == (int)kernel)
            return true;
    return false;
}

// All cases that cover the kernel, at their first shape.
static bool kernel_check(struct Device *dev, enum KernelId kernel, uint32_t *ran) {
    bool ok = true;
    uint64_t peak = dev->peak_bytes; // the job's own is what is told
    for (int f = 0; f < N_OPCHECK_FILES; f++) {
        const struct OpCase *cases;
        uint32_t n = OPCHECK_FILES[f](&cases);
        for (uint32_t i = 0; i < n && dev->state == DEVICE_OK; i++)
            if (covers(&cases[i], kernel)) {
                struct Check ck = {.dev = dev, .seed = 11};
                ok = opcheck_run(&ck, &cases[i], cases[i].shapes[0], kernel) && ok;
                (*ran)++;
            }
    }
    dev->peak_bytes = peak;
    return ok;
}

static void verify(struct Device *dev, enum KernelId kernel) {
    char *path = cache_path(dev);
    uint8_t *text = NULL;
    uint64_t bytes;
    bool known = false, ok = false;
    char why[300] = "as was found before";
    static bool told;
    if (!file_exists(path) && !told) {
        told = true; // where the cache cannot be written, too
        fprintf(stderr, "%s: every kernel is tried on a known answer before its first use with this driver, once\n",
                dev->name);
    }
    if (file_exists(path) && file_read(path, 1 << 22, &text, &bytes)) {
        ok = cache_has((char *)text, kernel, "ok\n");
        known = ok || cache_has((char *)text, kernel, "bad\n");
        if (!known && times_begun((char *)text, kernel) >= MOST_BEGUN) {
            known = true;
            snprintf(why, sizeof why, "its check came to no end %d times; remove %s to have it tried again", MOST_BEGUN,
                     path);
        }
    }
    free(text);
    free(path);
    if (!known) {
        char begun[32];
        snprintf(begun, sizeof begun, "begun %ld\n", (long)getpid());
        cache_add(dev, kernel, begun);
        uint32_t ran = 0;
        int forced = dev->force_kernel;
        // The job's plan does not know of the few MiB that a check takes for a moment: a job that just fits must not fail by them.
        uint64_t limit = dev->limits.memory_bytes;
        dev->limits.memory_bytes = UINT64_MAX;
        struct Tuning *tuning = dev->tuning; // nothing to be measured at such shapes
        dev->tuning = NULL;
        fail_quiet(true);
        ok = kernel_check(dev, kernel, &ran);
        fail_quiet(false);
        dev->tuning = tuning;
        dev->limits.memory_bytes = limit;
        dev->force_kernel = forced;
        bool refused = dev->state == DEVICE_FAILED && !dev->no_kernel; // by the driver's compiler, as a rule
        if (refused)
            dev->state = DEVICE_OK;
        if (refused && dev->no_room) {
            dev->no_room = false;
            return; // not verified this time
        }
        if (dev->state == DEVICE_OK)
            cache_add(dev, kernel, ok ? "ok\n" : "bad\n");
        snprintf(why, sizeof why, "%s", fail_last());
    }
    if (dev->state != DEVICE_OK) {
        fail("%s", fail_last()); // said while the checks were quiet
        return;
    }
    if (!ok) {
        dev->kernel_off[kernel] = true;
        warn("%s does not get kernel %s right: it is switched off (%s)", dev->name, KERNELS[kernel].name, why);
    }
}

bool selftest_device_open(struct Device *dev, const char *which) {
    if (!device_open(dev, which))
        return false;
    dev->verify = verify;
    return true;
}

uint32_t selftest_all(struct Device *dev, uint32_t *ran) {
    uint32_t failures = 0;
    *ran = 0;
    for (int k = 0; k < KERNEL_COUNT; k++)
        if (!dev->kernel_off[k])
            failures += !kernel_check(dev, (enum KernelId)k, ran);
    return failures;
}
