#include "card.h"
#include "check.h"
#include <stdlib.h>
#include <string.h>

bool card_pairs(struct Device *dev) {
    static const int BODIES[] = {KERNEL_gemm_nt_dot2, KERNEL_gemm_nn_dot2, KERNEL_gemm_tn_dot2};
    if (device_can(dev, CAP_dot2) || !device_can(dev, CAP_f16) || !device_can(dev, CAP_int64))
        return false;
    for (size_t i = 0; i < sizeof BODIES / sizeof *BODIES; i++) {
        char *path = xsprintf("%s/tests/%s.spv", VKMOE_BINARY_DIR, KERNELS[BODIES[i]].name);
        uint8_t *words; // they stay as long as the program
        uint64_t bytes;
        bool ok = file_read(path, 1 << 20, &words, &bytes);
        free(path);
        if (!ok)
            return false;
        struct KernelInfo by = KERNELS[BODIES[i]];
        by.words = (const uint32_t *)(const void *)words, by.n_words = (uint32_t)(bytes / 4);
        kernel_replace(dev, (enum KernelId)BODIES[i], by);
    }
    device_switch(dev, CAP_dot2, true);
    return true;
}

int card_scaled(struct Device *dev) {
    if (!dev->kernel_off[KERNEL_gemm_nt_matrix_f16])
        return KERNEL_gemm_nt_matrix_f16;
    return !dev->kernel_off[KERNEL_gemm_nt_dot2] || card_pairs(dev) ? KERNEL_gemm_nt_dot2 : -1;
}

bool card_open(struct Device *dev) {
    if (!device_open(dev, NULL))
        return false;
    const char *asked = getenv("VKMOE_TEST_CARD");
    if (!asked || !*asked || !dev->is_cpu)
        return true;
    dev->is_cpu = false;
    device_switch(dev, CAP_eight, false);
    if (!device_can(dev, CAP_coopmat) && !card_pairs(dev))
        return fail("this device has neither matrix units nor pairs of f16 to stand for a card's");
    printf("as a card, on %s\n", device_can(dev, CAP_coopmat) ? "matrix units" : "pairs of f16");
    return true;
}

uint32_t stale_peaks(struct Model *m) {
    struct Arena scratch;
    uint32_t stale = 0;
    bool ok = true;
    arena_init(&scratch, m->dev, "peaks", ARENA_DEVICE);
    for (uint32_t i = 0; i < m->n_params && ok; i++) {
        const struct Param *p = &m->params[i];
        if (!tensor_exists(&p->peak))
            continue;
        uint32_t *kept = xmalloc(2 * p->peak.bytes), *found = kept + p->peak.bytes / 4;
        struct ArenaMark mark = arena_mark(&scratch);
        struct Tensor peak = arena_tensor(&scratch, DT_U32, 1, p->peak.dim);
        struct Cmd *c = cmd_begin(m->dev, "peaks of a weight");
        op_peaks(c, &p->w, false, &peak);
        struct Program *look = cmd_end(c);
        ok = look && program_run(look) && tensor_download(m->dev, &p->peak, 0, kept, peak.bytes) &&
             tensor_download(m->dev, &peak, 0, found, peak.bytes);
        stale += ok && memcmp(kept, found, peak.bytes) != 0;
        program_free(look);
        arena_release(&scratch, mark);
        free(kept);
    }
    arena_free(&scratch);
    return ok ? stale : UINT32_MAX;
}

uint32_t *random_ids(const struct Config *c, uint32_t n, uint64_t stream) {
    uint32_t *ids = xmalloc(n * sizeof *ids), words[4];
    for (uint32_t i = 0; i < n; i++) {
        philox(7, stream, i, words);
        ids[i] = words[0] % c->vocab_size;
    }
    return ids;
}
