// What no result may depend on: the order in which a card runs the workgroups of a dispatch and the subgroups of a workgroup (reorder.h), and how a long dispatch is cut
// (cmd.c). Operation checks are right and leave the same bits with all modules reversed, and in pieces, on a processor that stands for a card. `test_order TEXT`: the modules with TEXT in their name alone;
// `test_order TEXT N`: the first of them that has it without its barrier N too, which should fail, unless the barrier does nothing or guards what the processor does at once.
#include "card.h"
#include "check.h"
#include "model/opcheck.h"
#include "reorder.h"
#include <stdlib.h>
#include <string.h>

static struct KernelInfo forward[KERNEL_COUNT], backward[KERNEL_COUNT];

static void turn(struct Device *dev, const struct KernelInfo *to) {
    for (uint32_t k = 0; k < KERNEL_COUNT; k++)
        if (to[k].words)
            kernel_replace(dev, (enum KernelId)k, to[k]);
}

struct Run {
    const struct OpCase *oc;
    const uint32_t *shape;
    int kernel;
    bool ok;
    uint64_t bits;
};

// Weights of another type change nothing in how a kernel's threads meet: so of each kind of kernel two modules are taken at one shape each, and those that have
// barriers. All take 20 minutes where a processor's driver compiles matrices (VKMOE_TEST_ALL=1).
static bool taken_twice(const struct Run *runs, uint32_t n, const struct OpCase *oc, int kernel) {
    uint32_t like = 0;
    for (uint32_t i = 0; i < n; i++)
        like += runs[i].oc->shapes == oc->shapes && KERNELS[runs[i].kernel].needs == KERNELS[kernel].needs &&
                strcmp(KERNELS[runs[i].kernel].source, KERNELS[kernel].source) == 0;
    return like >= 2;
}

static struct Run *runs_of(struct Device *dev, const char *text, uint32_t *n) {
    struct Run *runs = NULL;
    const char *all = getenv("VKMOE_TEST_ALL");
    bool every = (all && *all) || *text;
    *n = 0;
    for (size_t f = 0; f < N_OPCHECK_FILES; f++) {
        const struct OpCase *cases;
        uint32_t count = OPCHECK_FILES[f](&cases);
        for (uint32_t i = 0; i < count; i++)
            for (const int *kernel = cases[i].kernels; *kernel >= 0; kernel++) {
                bool wanted = opcheck_concerns(dev, *kernel) && strstr(KERNELS[*kernel].name, text);
                if (!wanted ||
                    (!every && (reorder_barriers(&KERNELS[*kernel]) == 0 || taken_twice(runs, *n, &cases[i], *kernel))))
                    continue;
                uint32_t one = *n % cases[i].n_shapes;
                for (uint32_t s = every ? 0 : one; s < (every ? cases[i].n_shapes : one + 1); s++) {
                    runs = xrealloc(runs, (*n + 1) * sizeof *runs);
                    runs[(*n)++] = (struct Run){.oc = &cases[i], .shape = cases[i].shapes[s], .kernel = *kernel};
                }
            }
    }
    return runs;
}

static bool run(struct Device *dev, const struct Run *r, uint64_t *bits) {
    struct Check ck = {.dev = dev, .seed = 1};
    bool ok = opcheck_run(&ck, r->oc, r->shape, r->kernel);
    *bits = ck.bits;
    return ok;
}

static void test_reversed(struct Device *dev, struct Run *runs, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        CHECK(run(dev, &runs[i], &runs[i].bits), "%s", fail_last());
    turn(dev, backward);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bits;
        if (CHECK(run(dev, &runs[i], &bits), "reversed: %s", fail_last()))
            CHECK(bits == runs[i].bits, "%s by %s: other bits where the order is reversed", runs[i].oc->name,
                  KERNELS[runs[i].kernel].name);
    }
    turn(dev, forward);
    printf("%u runs, forward and reversed\n", n);
}

// Each dispatch in as many submits as its grid allows, up to forty.
static void test_in_pieces(struct Device *dev, const struct Run *runs, uint32_t n) {
    double submit_ms = dev->submit_ms;
    uint64_t whole = 0, pieces = 0;
    for (int cut = 0; cut < 2; cut++) {
        uint64_t before = device_submitted(dev);
        dev->submit_ms = cut ? 1e-4 : submit_ms;
        dev->cuts_dispatches = cut;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t bits;
            if (CHECK(run(dev, &runs[i], &bits), "in pieces: %s", fail_last()))
                CHECK(bits == runs[i].bits, "%s by %s: other bits in pieces", runs[i].oc->name,
                      KERNELS[runs[i].kernel].name);
        }
        *(cut ? &pieces : &whole) = device_submitted(dev) - before;
    }
    dev->submit_ms = submit_ms, dev->cuts_dispatches = false;
    CHECK(n == 0 || pieces > whole + n, "%llu submits in pieces, %llu else", (unsigned long long)pieces,
          (unsigned long long)whole);
}

static void test_without(struct Device *dev, const struct Run *runs, uint32_t n, uint32_t barrier) {
    uint32_t first = 0;
    while (first < n && barrier >= reorder_barriers(&forward[runs[first].kernel]))
        first++;
    if (!CHECK(first < n, "there is no such barrier"))
        return;
    uint32_t k = (uint32_t)runs[first].kernel;
    for (int reversed = 0; reversed < 2; reversed++) {
        kernel_replace(dev, (enum KernelId)k, reorder_without(reversed ? &backward[k] : &forward[k], barrier));
        for (uint32_t i = 0; i < n; i++) {
            uint64_t bits;
            if (runs[i].kernel == (int)k)
                CHECK(run(dev, &runs[i], &bits) && bits == runs[i].bits, "%s without barrier %u of %u%s",
                      forward[k].name, barrier, reorder_barriers(&forward[k]), reversed ? ", reversed" : "");
        }
    }
}

int main(int argc, char **argv) {
    struct Device dev;
    setenv("VKMOE_TEST_CARD", "1", 1);
    if (!card_open(&dev)) {
        check_skip("no Vulkan device that can stand for a card");
        return check_done();
    }
    uint32_t n, turned = 0;
    for (uint32_t k = 0; k < KERNEL_COUNT; k++)
        if (!dev.kernel_off[k]) {
            forward[k] = KERNELS[k], backward[k] = reorder_reversed(&KERNELS[k]);
            turned += backward[k].n_words > forward[k].n_words;
        }
    CHECK(turned > 0, "no module counts its workgroups");
    struct Run *runs = runs_of(&dev, argc > 1 ? argv[1] : "", &n);
    test_reversed(&dev, runs, n);
    test_in_pieces(&dev, runs, n);
    if (argc > 2)
        test_without(&dev, runs, n, (uint32_t)strtoul(argv[2], NULL, 10));
    free(runs);
    device_close(&dev);
    return check_done();
}
