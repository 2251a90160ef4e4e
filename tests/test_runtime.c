// The runtime: transfers, recorded programs, the range tracker and its checker, arenas, dry runs, the
// pipeline cache's header, and the layout of every push block against the SPIR-V that reads it.
#include "check.h"
#include "runtime/cmd.h"
#include "runtime/vk.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_programs(struct Device *dev) {
    struct Arena arena;
    arena_init(&arena, dev, "test", ARENA_DEVICE);
    enum { N = 100003 };
    struct Tensor a = TENSOR(&arena, DT_U32, N), b = TENSOR(&arena, DT_U32, N), c = TENSOR(&arena, DT_U32, N);
    uint32_t *host = xcalloc(N, 4);
    for (uint32_t i = 0; i < N; i++)
        host[i] = i * 2654435761u;
    CHECK(tensor_upload(dev, &a, 0, host, 4 * (uint64_t)N), "upload");
    struct Cmd *cmd = cmd_begin(dev, "copies");
    cmd_fill(cmd, &c, 7);
    cmd_copy(cmd, &a, &b); // independent of the fill: no barrier
    cmd_copy(cmd, &b, &c); // reads b, writes c: one barrier
    cmd_fill(cmd, &b, 8);  // writes what was read: one barrier
    cmd_fill(cmd, &b, 9);  // writes what was written: one barrier
    struct Program *p = cmd_end(cmd);
    CHECK(p && program_dispatches(p) == 5, "five dispatches");
    CHECK(program_barriers(p) == 3, "three barriers, found %u", program_barriers(p));
    CHECK(program_check(p, -1) == 0, "no hazard with all barriers");
    for (int i = 0; i < 3; i++)
        CHECK(program_check(p, i) > 0, "without barrier %d a hazard is reported", i);
    for (int run = 0; run < 3; run++) {
        CHECK(program_run(p), "run %d", run);
        memset(host, 0, 4 * (size_t)N);
        CHECK(tensor_download(dev, &c, 0, host, 4 * (uint64_t)N), "download");
        uint32_t wrong = 0;
        for (uint32_t i = 0; i < N; i++)
            wrong += host[i] != i * 2654435761u;
        CHECK(wrong == 0, "copied words, %u wrong", wrong);
        CHECK(tensor_download(dev, &b, 4 * (uint64_t)(N - 1), host, 4) && host[0] == 9, "filled to the last word");
    }
    program_free(p);
    free(host);
    arena_free(&arena);
}

// Submits of one run of a copy, whose target must be its source's copy.
static uint64_t submits_of(struct Device *dev, struct Program *p, const struct Tensor *from, const struct Tensor *to) {
    uint32_t sample[4] = {0}, want[4] = {0};
    uint64_t before = device_submitted(dev), n = 0;
    if (CHECK(program_run(p), "%s", fail_last()))
        n = device_submitted(dev) - before;
    for (uint32_t i = 0; i < 1 << 10; i += 31) {
        uint64_t at = (uint64_t)i << 16;
        CHECK(tensor_download(dev, to, at, sample, sizeof sample) &&
                  tensor_download(dev, from, at, want, sizeof want) && memcmp(sample, want, sizeof want) == 0,
              "byte %llu of what was copied in %llu submits is not there", (unsigned long long)at,
              (unsigned long long)n);
    }
    return n;
}

// A dispatch that takes longer than a submit may is cut: by its estimate at once, else once it was measured; one that turns out quick is not any more. Nothing else
// is, nor anything on a processor of which nobody asks it.
static void test_long_dispatches(struct Device *dev) {
    struct Arena arena;
    bool cuts = dev->cuts_dispatches;
    double submit_ms = dev->submit_ms, gbytes = dev->gbytes_per_s;
    arena_init(&arena, dev, "long", ARENA_DEVICE);
    struct Tensor a = TENSOR(&arena, DT_U32, 1 << 24), b = TENSOR(&arena, DT_U32, 1 << 24);
    CHECK(!cuts || !dev->is_cpu, "a processor cuts dispatches, unasked");
    for (int round = 0; round < 4; round++) {
        dev->cuts_dispatches = round > 0;
        dev->submit_ms = round == 3 ? 1000 : 1;
        dev->pace = 1, dev->longest_submit_ms = 0;
        dev->gbytes_per_s = 2.0 * (double)a.bytes / 1e6 / (round == 1 ? 40 : round == 3 ? 40000 : 2.5); // so many ms
        struct Cmd *cmd = cmd_begin(dev, "copy");
        cmd_copy(cmd, &a, &b);
        struct Program *p = cmd_end(cmd);
        for (uint32_t i = 0; i < 1 << 10; i++) { // anew, so that an old copy does not pass
            uint32_t words[4] = {i, round, ~i, i * i};
            CHECK(tensor_upload(dev, &a, (uint64_t)i << 16, words, sizeof words), "%s", fail_last());
        }
        uint64_t n = submits_of(dev, p, &a, &b);
        if (round == 0)
            CHECK(n == 1, "%llu submits of what is not to be cut", (unsigned long long)n);
        if (round == 1)
            CHECK(n == 41, "%llu submits of 40.02 ms by estimate", (unsigned long long)n);
        for (int again = 0; round == 2 && n == 1 && again < 10; again++)
            n = submits_of(dev, p, &a, &b);
        double ms = dev->longest_submit_ms; // of when it was found too long
        if (round == 2 && device_can(dev, CAP_timestamps))
            CHECK(n > 1 && (double)n < 2 + 1.5 * ms, "%llu submits of 1 ms for a dispatch of %.3g ms",
                  (unsigned long long)n, ms);
        if (round == 3)
            CHECK(n >= 40, "%llu submits of 40 s by estimate", (unsigned long long)n);
        for (int again = 0; round == 3 && n > 1 && again < 10; again++)
            n = submits_of(dev, p, &a, &b);
        if (round == 3 && device_can(dev, CAP_timestamps))
            CHECK(n == 1, "%llu submits of what takes less than one may", (unsigned long long)n);
        program_free(p);
    }
    dev->cuts_dispatches = cuts, dev->submit_ms = submit_ms, dev->gbytes_per_s = gbytes;
    arena_free(&arena);
}

// However often a program runs, the cost model ends where what it says is what is measured, from above and from below.
static void test_pace(struct Device *dev) {
    enum { RUNS = 60, LAST = 20 };
    struct Arena arena;
    double gbytes = dev->gbytes_per_s, us[RUNS];
    if (!device_can(dev, CAP_timestamps))
        return;
    arena_init(&arena, dev, "pace", ARENA_DEVICE);
    struct Tensor a = TENSOR(&arena, DT_U32, 1 << 23), b = TENSOR(&arena, DT_U32, 1 << 23);
    struct Cmd *cmd = cmd_begin(dev, "copy");
    cmd_copy(cmd, &a, &b);
    struct Program *p = cmd_end(cmd);
    for (int slow = 0; slow < 2; slow++) {
        double model_ms = slow ? 1.5 : 200, least = HUGE_VAL, most = 0;
        dev->gbytes_per_s = 2.0 * (double)a.bytes / 1e6 / model_ms;
        dev->pace = 1;
        CHECK(program_time(p, 0, RUNS, us), "%s", fail_last());
        for (uint32_t i = RUNS - LAST; i < RUNS; i++)
            least = fmin(least, us[i] / 1000), most = fmax(most, us[i] / 1000);
        CHECK(model_ms / dev->pace > least / 2 && model_ms / dev->pace < most * 2,
              "the model says %.3g ms, pace %.3g, after runs of %.3g to %.3g ms", model_ms / dev->pace, dev->pace,
              least, most);
    }
    dev->gbytes_per_s = gbytes, dev->pace = 1;
    program_free(p);
    arena_free(&arena);
}

static void test_arena(struct Device *dev) {
    struct Arena arena;
    arena_init(&arena, dev, "test", ARENA_DEVICE);
    struct Tensor a = TENSOR(&arena, DT_F32, 3, 8);
    struct ArenaMark mark = arena_mark(&arena);
    struct Tensor b = TENSOR(&arena, DT_BF16, 1000, 1000), c = TENSOR(&arena, DT_Q4_1, 5000, 4096);
    CHECK(a.bytes == 96 && b.bytes == 2000000 && c.bytes == 5000u * 2560, "sizes %llu %llu %llu",
          (unsigned long long)a.bytes, (unsigned long long)b.bytes, (unsigned long long)c.bytes);
    CHECK(b.address >= a.address + a.bytes || a.address >= b.address + b.bytes, "no overlap");
    uint64_t peak = arena.peak_bytes;
    arena_release(&arena, mark);
    struct Tensor d = TENSOR(&arena, DT_BF16, 1000, 1000);
    CHECK(d.address == b.address, "released memory is used again");
    CHECK(arena.peak_bytes == peak && arena.used_bytes < peak, "peak stays");
    arena_free(&arena);
    struct Device dry;
    device_open_dry(&dry, dev);
    struct Arena counted;
    arena_init(&counted, &dry, "test", ARENA_DEVICE);
    TENSOR(&counted, DT_F32, 3, 8);
    TENSOR(&counted, DT_BF16, 1000, 1000);
    TENSOR(&counted, DT_Q4_1, 5000, 4096);
    CHECK(counted.peak_bytes == peak, "a dry run counts the same: %llu, %llu", (unsigned long long)counted.peak_bytes,
          (unsigned long long)peak);
    arena_free(&counted);
    // Weights of a mixture of experts, then of a dense model of 7B, whose matrices are a little more than half of a common block: large tensors
    // between small ones leave next to nothing unused.
    arena_init(&counted, &dry, "test", ARENA_DEVICE);
    counted.lasting = true;
    dry.limits.memory_bytes = UINT64_C(64) << 30;
    uint64_t before = dry.allocated_bytes, bytes = 0;
    for (int layer = 0; layer < 8; layer++)
        for (int i = 0; i < 7; i++)
            bytes += TENSOR(&counted, DT_BF16, i < 4 ? 2048 : 64 * 2816, 2048 / (i < 4 ? 1 : 2)).bytes;
    for (int i = 0; i < 32; i++)
        bytes += TENSOR(&counted, DT_BF16, 4096, i % 8 ? 4160 : 8).bytes;
    uint64_t taken = dry.allocated_bytes - before;
    CHECK(counted.used_bytes == bytes && taken < bytes + bytes / 50, "%llu bytes were taken for %llu",
          (unsigned long long)taken, (unsigned long long)bytes);
    arena_free(&counted);
    device_close(&dry);
}

// Every push block: the offsets that the SPIR-V declares are those that cmd_dispatch packs.
// A card of its own and host memory are two; an integrated card's are one, which a driver may tell as two.
static void test_memory_holds(void) {
    const uint64_t GIB = 1 << 30;
    struct Device dry;
    device_open_dry(&dry, NULL);
    dry.limits.memory_bytes = 16 * GIB, dry.limits.host_bytes = 8 * GIB;
    CHECK(memory_holds(&dry, 16 * GIB, 8 * GIB), "a card of its own");
    CHECK(!memory_holds(&dry, 16 * GIB + 1, 0) && !memory_holds(&dry, 0, 8 * GIB + 1), "more than either has");
    dry.limits.both_bytes = 20 * GIB;
    CHECK(memory_holds(&dry, 15 * GIB, 5 * GIB), "an integrated one");
    CHECK(!memory_holds(&dry, 15 * GIB, 5 * GIB + 1), "more than there is of both");
    dry.limits.both_bytes = 4 * GIB;
    fail_quiet(true);
    CHECK(!memory_holds(&dry, 5 * GIB, 0) && !memory_fits(&dry, 5 * GIB, 0, "this", "a remedy") &&
              strstr(fail_last(), "this needs 5120.0 MiB, on the device and in host memory together"),
          "%s", fail_last());
    CHECK(!memory_fits(&dry, 0, 9 * GIB, "this", "a remedy") && strstr(fail_last(), "9216.0 MiB of host memory"), "%s",
          fail_last());
    fail_quiet(false);
    device_close(&dry);
}

static void test_push_layout(void) {
    for (int k = 0; k < KERNEL_COUNT; k++) {
        const struct KernelInfo *info = &KERNELS[k];
        if (!info->words)
            continue;
        const struct PushInfo *push = &PUSH_INFO[info->push];
        uint32_t block = 0, pointer_type = 0, variable_type = 0;
        const uint32_t *w = info->words;
        // OpVariable in storage class PushConstant (9) -> its pointer type -> its struct.
        for (uint32_t i = 5; i < info->n_words && w[i] >> 16; i += w[i] >> 16)
            if ((w[i] & 0xffff) == 59 && w[i + 3] == 9)
                variable_type = w[i + 1];
        for (uint32_t i = 5; i < info->n_words && w[i] >> 16; i += w[i] >> 16)
            if ((w[i] & 0xffff) == 32 && w[i + 1] == variable_type)
                block = w[i + 3], pointer_type = w[i + 1];
        uint32_t members = 0, wrong = 0;
        for (uint32_t i = 5; i < info->n_words && w[i] >> 16; i += w[i] >> 16)
            if ((w[i] & 0xffff) == 72 && w[i + 1] == block && w[i + 3] == 35) { // OpMemberDecorate Offset
                uint32_t m = w[i + 2];
                uint32_t want = m < push->n_pointers ? 8 * m : 8 * push->n_pointers + 4 * (m - push->n_pointers);
                wrong += w[i + 4] != want;
                members++;
            }
        CHECK(pointer_type && members == push->n_pointers + push->n_words && wrong == 0,
              "push block of %s: %u members, %u at another offset", info->name, members, wrong);
    }
}

static void test_pipeline_cache(struct Device *dev) {
    uint8_t junk[512];
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        for (uint32_t j = 0; j < sizeof junk; j += 16)
            philox(5, i, j, (uint32_t *)(void *)(junk + j));
        if (i & 1)
            memcpy(junk, "vkmoepc1", 8);
        accepted += pipeline_cache_valid(dev, junk, i % sizeof junk);
    }
    CHECK(accepted == 0, "%u of 10000 corrupted pipeline caches accepted", accepted);
}

// One that a device leaves is taken by the next, and not where a byte of it is another.
static void test_kept_cache(void) {
    struct Device dev;
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    uint32_t accepted = 0;
    if (!CHECK(device_open(&dev, NULL), "%s", fail_last()))
        return;
    char *path = pipeline_cache_path(&dev);
    VkPhysicalDeviceVulkan11Properties v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &v11};
    vkGetPhysicalDeviceProperties2(dev.vk->physical, &p);
    CHECK(memcmp(dev.driver_uuid, v11.driverUUID, 16) != 0, "every build of the driver is the same");
    if (CHECK(file_read(path, 1 << 30, &data, &bytes), "%s", fail_last())) {
        CHECK(pipeline_cache_valid(&dev, data, bytes), "the cache of the device before is refused");
        for (uint64_t i = 0; i < min_u64(bytes, 512); i++) { // the header, and some of the driver's bytes
            data[i] ^= 1;
            accepted += pipeline_cache_valid(&dev, data, bytes);
            data[i] ^= 1;
        }
        data[bytes - 1] ^= 0x80;
        accepted += pipeline_cache_valid(&dev, data, bytes) + pipeline_cache_valid(&dev, data, bytes - 1);
        CHECK(accepted == 0, "%u damaged caches are accepted", accepted);
    }
    free(data), free(path);
    device_close(&dev);
}

// More workgroups than there may be end the job with a line.
static void test_grid(void) {
    struct Device dry;
    device_open_dry(&dry, NULL);
    memcpy(dry.limits.max_groups, (uint32_t[]){4, 2, 1}, 12);
    struct Arena arena;
    arena_init(&arena, &dry, "test", ARENA_DEVICE);
    for (uint32_t groups = 8; groups <= 9; groups++) {
        struct Tensor t = TENSOR(&arena, DT_U32, groups * 4 * cmd_local_size(&dry));
        struct Cmd *c = cmd_begin(&dry, "test");
        fail_quiet(true);
        cmd_fill(c, &t, 0);
        fail_quiet(false);
        CHECK(dry.state == (groups == 8 ? DEVICE_OK : DEVICE_FAILED), "%u groups: state %d", groups, dry.state);
        program_free(cmd_end(c));
    }
    CHECK(strstr(fail_last(), "fill takes 3 x 3 x 1 workgroups, and 4 x 2 x 1 are the most"), "%s", fail_last());
    arena_free(&arena);
    device_close(&dry);
}

static void test_device_pick(void) {
    struct DeviceList list = {.n = 3,
                              .entry = {{.name = "llvmpipe (LLVM 15.0.6, 256 bits)", .usable = true, .rank = 0},
                                        {.name = "NVIDIA GeForce RTX 4090", .usable = true, .rank = 4},
                                        {.name = "AMD Radeon RX 7900 XTX", .usable = true, .rank = 4}}};
    CHECK(device_pick(&list, NULL) == 1 && device_pick(&list, "0") == 0 && device_pick(&list, "2") == 2, "by number");
    CHECK(device_pick(&list, "4090") == 1 && device_pick(&list, "7900") == 2, "by the number in a name");
    CHECK(device_pick(&list, "radeon") == 2, "by name");
    fail_quiet(true);
    CHECK(device_pick(&list, "6") == -1 && strstr(fail_last(), "no Vulkan device 6"), "%s", fail_last());
    CHECK(device_pick(&list, "4080") == -1 && strstr(fail_last(), "no Vulkan device 4080"), "%s", fail_last());
    fail_quiet(false);
    // A card that cannot be used is told where the processor takes its place without having been asked for.
    for (int asked = 0; asked <= 1; asked++) {
        char told[400] = "";
        FILE *f = tmpfile();
        int before = dup(2);
        for (int i = 1; i < 3; i++)
            list.entry[i].usable = false, strcpy(list.entry[i].why, "its driver has Vulkan 1.2, 1.3 is needed");
        fflush(stderr), dup2(fileno(f), 2);
        CHECK(device_pick(&list, asked ? "llvm" : NULL) == 0, "the processor");
        fflush(stderr), dup2(before, 2), close(before);
        rewind(f);
        bool line = fgets(told, sizeof told, f) != NULL;
        CHECK(line == !asked && (asked || (strstr(told, "runs on the processor (llvmpipe") &&
                                           strstr(told, "RTX 4090 cannot be used: its driver has Vulkan 1.2"))),
              "told '%s'", told);
        fclose(f);
    }
}

static void refuse(struct Device *dev, enum KernelId kernel) { dev->kernel_off[kernel] = true; }

// A kernel that is wrong and the only one for what it does ends the job, unless it is asked for all the same.
static void test_no_kernel(void) {
    for (int trust = 0; trust <= 1; trust++) {
        struct Device dev;
        if (!CHECK(device_open(&dev, NULL), "%s", fail_last()))
            return;
        dev.verify = refuse;
        trust ? setenv("VKMOE_TRUST_KERNELS", "1", 1) : unsetenv("VKMOE_TRUST_KERNELS");
        fail_quiet(true);
        enum KernelId kernel = KERNEL_PICK(&dev, KERNEL_embed);
        fail_quiet(false);
        CHECK(kernel == KERNEL_embed && dev.state == (trust ? DEVICE_OK : DEVICE_FAILED),
              "a wrong kernel is picked, the device's state is %d", dev.state);
        CHECK(trust || strstr(fail_last(), "kernel embed"), "%s", fail_last());
        device_close(&dev);
    }
    unsetenv("VKMOE_TRUST_KERNELS");
}

int main(void) {
    struct Device dev;
    if (!device_open(&dev, NULL))
        return 1;
    printf("%s, %s\n", dev.name, dev.driver);
    test_programs(&dev);
    test_long_dispatches(&dev);
    test_pace(&dev);
    test_arena(&dev);
    test_memory_holds();
    test_push_layout();
    test_pipeline_cache(&dev);
    device_close(&dev);
    test_no_kernel();
    test_kept_cache();
    test_grid();
    test_device_pick();
    struct Device none;
    fail_quiet(true);
    CHECK(!device_open(&none, "no such card"), "a device that does not exist is refused");
    fail_quiet(false);
    return check_done();
}
