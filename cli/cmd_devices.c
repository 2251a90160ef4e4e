// `vkmoe devices`: what can run here, which capabilities are on, and why others are off. With --check the known answers
// of every kernel variant are asked for again.
#include "cli/commands.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/selftest.h"
#include "runtime/device.h"
#include <string.h>

struct Summary {
    uint32_t usable, failed;
};

static const char *const CAP_NAMES[CAP_COUNT] = {
#define CAP_NAME(name, text) #name,
    CAPS(CAP_NAME)
#undef CAP_NAME
};
static const char *const CAP_TEXTS[CAP_COUNT] = {
#define CAP_TEXT(name, text) text,
    CAPS(CAP_TEXT)
#undef CAP_TEXT
};

static uint32_t kernels_available(const struct Device *dev) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < KERNEL_COUNT; k++)
        n += !dev->kernel_off[k];
    return n;
}

static json_t *caps_json(const struct Device *dev) {
    json_t *caps = json_object();
    for (int i = 0; i < CAP_COUNT; i++)
        json_object_set_new(caps, CAP_NAMES[i],
                            dev->caps[i].on ? json_pack("{s:b}", "on", 1)
                                            : json_pack("{s:b, s:s}", "on", 0, "why", dev->caps[i].why));
    return caps;
}

// Who compiled the modules that this device uses: at most two, the installed glslc and that of shaders/prebuilt.
struct Compilers {
    const char *name[4];
    uint32_t modules[4], n;
};
static struct Compilers compilers_of(const struct Device *dev) {
    struct Compilers c = {.n = 0};
    for (uint32_t k = 0; k < KERNEL_COUNT; k++) {
        uint32_t i = 0;
        if (dev->kernel_off[k])
            continue;
        while (i < c.n && strcmp(c.name[i], KERNELS[k].compiler) != 0)
            i++;
        if (i == c.n && c.n < 4)
            c.name[c.n++] = KERNELS[k].compiler;
        c.modules[i < 4 ? i : 3]++;
    }
    return c;
}

static void describe_json(struct Device *dev, json_t *entry) {
    const struct DeviceLimits *l = &dev->limits;
    json_object_set_new(entry, "capabilities", caps_json(dev));
    json_object_set_new(entry, "subgroup_size", json_integer(l->subgroup_size));
    json_object_set_new(entry, "subgroup_sizes", json_pack("[i, i]", (int)l->subgroup_min, (int)l->subgroup_max));
    json_object_set_new(entry, "shared_bytes", json_integer(l->shared_bytes));
    json_object_set_new(entry, "max_allocation_bytes", json_integer((json_int_t)l->max_allocation_bytes));
    json_object_set_new(entry, "kernels", json_integer(kernels_available(dev)));
    struct Compilers made = compilers_of(dev);
    json_t *compilers = json_object();
    for (uint32_t i = 0; i < made.n; i++)
        json_object_set_new(compilers, made.name[i], json_integer(made.modules[i]));
    json_object_set_new(entry, "compilers", compilers);
    if (dev->coopmat.m)
        json_object_set_new(entry, "coopmat",
                            json_pack("{s:i, s:i, s:i, s:s}", "m", (int)dev->coopmat.m, "n", (int)dev->coopmat.n, "k",
                                      (int)dev->coopmat.k, "type", DTYPES[dev->coopmat.type].name));
}

static void describe(struct Device *dev) {
    const struct DeviceLimits *l = &dev->limits;
    char shared[16], block[16];
    term_format_bytes(l->shared_bytes, shared);
    term_format_bytes(l->max_allocation_bytes, block);
    printf("     subgroups of %u (%u to %u), %s of shared memory, allocations up to %s\n", l->subgroup_size,
           l->subgroup_min, l->subgroup_max, shared, block);
    printf("     %u of %u kernel variants available", kernels_available(dev), (unsigned)KERNEL_COUNT);
    struct Compilers made = compilers_of(dev);
    for (uint32_t i = 0; i < made.n; i++)
        printf("%s %u by %s", i ? ";" : ":", made.modules[i], made.name[i]);
    putchar('\n');
    for (int i = 0; i < CAP_COUNT; i++) {
        bool on = dev->caps[i].on;
        printf("     %s%-3s%s %-13s %s", term_paint(stdout, on ? PAINT_GREEN : PAINT_YELLOW), on ? "on" : "off",
               term_paint(stdout, PAINT_NONE), CAP_NAMES[i], CAP_TEXTS[i]);
        if (!on)
            printf(": %s", dev->caps[i].why);
        else if (i == CAP_coopmat && dev->coopmat.m)
            printf(": %u x %u x %u %s", dev->coopmat.m, dev->coopmat.n, dev->coopmat.k, DTYPES[dev->coopmat.type].name);
        putchar('\n');
    }
}

// Lists one device; opens it to see what it can do. False: it should work and does not.
static bool show(const struct Args *args, uint32_t index, const struct DeviceListEntry *e, json_t *list,
                 struct Summary *sum) {
    char memory[16], number[16];
    json_t *entry = NULL;
    term_format_bytes(e->memory_bytes, memory);
    snprintf(number, sizeof number, "%u", index);
    if (list) {
        entry = json_pack("{s:i, s:s, s:s, s:s, s:b, s:I}", "index", (int)index, "name", e->name, "driver", e->driver,
                          "kind", e->kind, "usable", e->usable, "memory_bytes", (json_int_t)e->memory_bytes);
        json_array_append_new(list, entry);
        if (!e->usable)
            json_object_set_new(entry, "why", json_string(e->why));
    } else {
        printf("%s%3u  %s%s\n     %s, %s, %s, Vulkan %u.%u.%u\n", term_paint(stdout, PAINT_BOLD), index, e->name,
               term_paint(stdout, PAINT_NONE), e->kind, memory, e->driver, e->api_version >> 22 & 0x7f,
               e->api_version >> 12 & 0x3ff, e->api_version & 0xfff);
        if (!e->usable)
            printf("     %scannot be used%s: %s\n", term_paint(stdout, PAINT_RED), term_paint(stdout, PAINT_NONE),
                   e->why);
    }
    if (!e->usable)
        return true;
    struct Device dev;
    if (!device_open(&dev, number))
        return false;
    sum->usable++;
    if (entry)
        describe_json(&dev, entry);
    else
        describe(&dev);
    if (args_switch(args, "check")) {
        fflush(stdout);
        fprintf(stderr, "asking %u kernel variants of %s for known answers\n", kernels_available(&dev), dev.name);
        uint32_t ran = 0, failed = selftest_all(&dev, &ran);
        sum->failed += failed;
        if (entry) {
            json_object_set_new(entry, "checks", json_integer(ran));
            json_object_set_new(entry, "failed_checks", json_integer(failed));
        } else {
            printf("     %u known answers asked for, %u wrong\n", ran, failed);
        }
    }
    device_close(&dev);
    return true;
}

// With --device that one alone; a device that is not there, or cannot be used, is refused as everywhere.
static bool find_one(const char *which, uint32_t *index) {
    struct Device dev;
    if (!device_open(&dev, which))
        return false;
    *index = dev.index;
    device_close(&dev);
    return true;
}

int cmd_devices(const struct Args *args) {
    static struct DeviceList list;
    struct Summary sum = {0};
    uint32_t only = UINT32_MAX;
    if (!device_list(&list) || (args_given(args, "device") && !find_one(args_text(args, "device"), &only)))
        return EXIT_FAILED;
    json_t *all = args_switch(args, "json") ? json_array() : NULL;
    bool ok = true;
    for (uint32_t i = 0; i < list.n; i++)
        if (only == UINT32_MAX || only == i)
            ok = show(args, i, &list.entry[i], all, &sum) && ok;
    if (all) {
        json_t *root = json_pack("{s:o}", "devices", all);
        json_dumpf(root, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(root);
    }
    if (!ok || sum.failed)
        return EXIT_FAILED;
    if (sum.usable == 0) {
        fail("%s", list.n ? "none of these devices has Vulkan 1.3 with what is needed; Mesa's lavapipe "
                            "(mesa-vulkan-drivers) runs "
                            "on any CPU"
                          : "there is no Vulkan device; Mesa's lavapipe (mesa-vulkan-drivers) runs on any CPU");
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
