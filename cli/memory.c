// See memory.h.
#include "cli/memory.h"
#include "cli/args.h"
#include "cli/term.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>

void memory_show(const struct TrainPlan *p, const struct Device *dev) {
    const struct {
        const char *name;
        uint64_t bytes;
    } ROWS[] = {{"weights", p->weights},
                {"adapters", p->adapters},
                {"gradients", p->gradients},
                {"moments", p->moments},
                {"activations", p->activations},
                {"  of them logits", p->logits},
                {"staging", p->staging},
                {"samples", p->samples},
                {"unused ends of allocations", p->rounding},
                {"on the device", p->total},
                {"host: weights", p->host_weights},
                {"host: moments", p->host_moments},
                {"host: batch", p->batch},
                {"in host memory", p->host}};
    bool unified = device_is_unified(dev);
    char text[16];
    fprintf(stderr, "memory:\n");
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++)
        if (ROWS[i].bytes) {
            term_format_bytes(ROWS[i].bytes, text);
            fprintf(stderr, "  %-26s %12s\n", ROWS[i].name, text);
        }
    if (unified) {
        term_format_bytes(plan_device_bytes(p, dev), text);
        fprintf(stderr, "  %-26s %12s\n", "together", text);
    }
    term_format_bytes(dev->limits.memory_bytes, text);
    if (dev->limits.memory_bytes != UINT64_MAX)
        fprintf(stderr, "  %-26s %12s  %.0f %% used\n", "the device has", text,
                100 * (double)plan_device_bytes(p, dev) / (double)dev->limits.memory_bytes);
}

void disk_show(const struct TrainPlan *p, const struct TrainOptions *o, uint64_t steps) {
    char need[16], has[16], *at = xstrdup(o->out);
    struct statvfs fs;
    uint64_t bytes = plan_disk_bytes(p, o, steps);
    while (!dir_exists(at) && strcmp(at, ".") != 0) { // the folder will be made in that one
        char *parent = path_parent(at);
        free(at);
        at = parent;
    }
    term_format_bytes(bytes, need);
    fprintf(stderr, "disk: %s for checkpoints and result\n", need);
    if (statvfs(at, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < bytes) {
        term_format_bytes((uint64_t)fs.f_bavail * fs.f_frsize, has);
        warn("%s: %s are free there, and checkpoints and result may take %s", o->out, has, need);
    }
    free(at);
}

json_t *memory_json(const struct TrainPlan *p, const struct Device *dev) {
    const struct {
        const char *name;
        uint64_t bytes;
    } FIELDS[] = {{"weights", p->weights},
                  {"adapters", p->adapters},
                  {"gradients", p->gradients},
                  {"moments", p->moments},
                  {"activations", p->activations},
                  {"logits", p->logits},
                  {"staging", p->staging},
                  {"samples", p->samples},
                  {"rounding", p->rounding},
                  {"total", plan_device_bytes(p, dev)},
                  {"host_weights", p->host_weights},
                  {"host_moments", p->host_moments},
                  {"batch", p->batch},
                  {"host", p->host},
                  {"device", min_u64(dev->limits.memory_bytes, INT64_MAX)}};
    json_t *j = json_object();
    for (size_t i = 0; i < sizeof FIELDS / sizeof FIELDS[0]; i++)
        json_object_set_new(j, FIELDS[i].name, json_integer((json_int_t)FIELDS[i].bytes));
    return j;
}

bool memory_check(struct Train *t, const struct ModelFile *f, enum DType type, const struct TrainPlan *p,
                  const struct Device *dev) {
    if (plan_fits(p, dev))
        return true;
    struct NearestPlan nearest;
    char remedy[400], bytes[16];
    plan_nearest(t, f, type, dev, &nearest);
    term_format_bytes(plan_device_bytes(&nearest.plan, dev), bytes);
    if (nearest.found)
        snprintf(remedy, sizeof remedy, "this one fits (%s):%s", bytes, nearest.flags);
    else
        snprintf(remedy, sizeof remedy, "nothing near it fits: a smaller model, or another --device");
    return memory_fits(dev, p->total, p->host, "this run", remedy);
}

bool memory_read(const char *text, uint64_t *bytes) {
    static const struct {
        const char *name;
        uint64_t bytes;
    } UNITS[] = {{"", 1},      {"B", 1},        {"KiB", 1 << 10},   {"MiB", 1 << 20}, {"GiB", 1 << 30},
                 {"KB", 1000}, {"MB", 1000000}, {"GB", 1000000000}, {"G", 1 << 30},   {"M", 1 << 20}};
    char *end;
    double n = strtod(text, &end);
    while (*end == ' ')
        end++;
    for (size_t i = 0; end != text && n > 0 && n < 1e9 * (strlen(end) ? 1 : 1e9) && i < sizeof UNITS / sizeof UNITS[0];
         i++)
        if (strcasecmp(end, UNITS[i].name) == 0) {
            *bytes = (uint64_t)(n * (double)UNITS[i].bytes);
            return *bytes >= 1 << 20 ||
                   args_good(fail("--assume-memory %s: less than 1 MiB: a unit is missing, as in 16GiB or 24GB", text));
        }
    return args_good(fail("--assume-memory %s: an amount is expected, such as 16GiB or 24GB", text));
}
