// The peaks of a device, measured with a kernel of its own (probe.comp) and with the matrix product that the model takes.
#include "cli/bench.h"
#include "model/ops.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

double bench_fair_us(const struct Device *dev, double us, double cpu_us) {
    return dev->is_cpu ? cpu_us / (double)sysconf(_SC_NPROCESSORS_ONLN) : us;
}

double peaks_gbytes(const struct Peaks *p) { return fmax(p->read_gbytes, p->copy_gbytes); }

static double median_us(struct Device *dev, struct Program *p, uint32_t reps) {
    double us[64] = {0}, cpu[64];
    bool ok = p && program_time(p, 2, 1, us);
    for (uint32_t i = 0; i < reps && ok; i++) {
        double used = cpu_seconds();
        ok = program_time(p, 0, 1, &us[i]);
        cpu[i] = (cpu_seconds() - used) * 1e6;
    }
    return ok ? bench_fair_us(dev, spread_of(us, reps).median, spread_of(cpu, reps).median) : 0;
}

static double probe(struct Device *dev, enum KernelId kernel, const struct Tensor *x, const struct Tensor *y,
                    uint32_t mode, uint32_t groups, uint32_t n, uint32_t rounds, uint32_t repeats) {
    struct Cmd *c = cmd_begin(dev, "probe");
    for (uint32_t i = 0; i < repeats; i++)
        cmd_dispatch(c, &(struct Dispatch){.kernel = kernel, .spec = {mode}, .n_spec = 1, .groups = {groups}},
                     &(struct Args_probe){.x = view(x), .y = view(y), .n = n, .rounds = rounds});
    struct Program *p = cmd_end(c);
    double us = median_us(dev, p, 9);
    program_free(p);
    return us;
}

static double probe_matrix(struct Device *dev, const struct Tensor *y, uint32_t groups, uint32_t rounds) {
    const struct CoopmatShape *m = &dev->coopmat;
    enum KernelId kernel = m->type == DT_BF16 ? KERNEL_probe_matrix_bf16 : KERNEL_probe_matrix_f16;
    if (!m->m || dev->kernel_off[kernel])
        return 0;
    uint32_t local = cmd_local_size(dev);
    struct Cmd *c = cmd_begin(dev, "matrix probe");
    cmd_dispatch(c, &(struct Dispatch){.kernel = kernel, .spec = {m->m, m->n, m->k}, .n_spec = 3, .groups = {groups}},
                 &(struct Args_probe){.x = view(y), .y = view(y), .n = 3, .rounds = rounds});
    struct Program *p = cmd_end(c);
    double us = median_us(dev, p, 9);
    program_free(p);
    return us > 0 ? 2.0 * m->m * m->n * m->k * 8 * rounds * groups * (local / dev->limits.subgroup_size) / us / 1000
                  : 0;
}

bool peaks_measure(struct Device *dev, struct Peaks *p) {
    struct Arena arena;
    arena_init(&arena, dev, "probe", ARENA_DEVICE);
    // Larger than any cache: 256 MiB on a GPU, 64 MiB on a CPU device.
    uint32_t n = (dev->is_cpu ? 64u : 256u) << 20 >> 4, local = cmd_local_size(dev);
    struct Tensor x = TENSOR(&arena, DT_U32, n, 4), y = TENSOR(&arena, DT_U32, n, 4);
    uint32_t groups = dev->is_cpu ? 256 : 8192, rounds = dev->is_cpu ? 8000 : 8192;
    double us = probe(dev, KERNEL_probe, &x, &y, 0, groups, 0, rounds, 1);
    p->gflops = us ? 2.0 * 12 * rounds * groups * local / us / 1000 : 0;
    us = dev->kernel_off[KERNEL_probe_dot2] ? 0 : probe(dev, KERNEL_probe_dot2, &x, &y, 0, groups, 0, rounds, 1);
    p->pair_gflops = us ? 4.0 * 12 * rounds * groups * local / us / 1000 : 0;
    p->matrix_gflops = probe_matrix(dev, &y, dev->is_cpu ? 256 : 2048, dev->is_cpu ? 16 : 1024);
    us = probe(dev, KERNEL_probe, &x, &y, 1, groups, n, 0, 1);
    p->read_gbytes = us ? 16.0 * n / us / 1000 : 0;
    us = probe(dev, KERNEL_probe, &x, &y, 2, groups, n, 0, 1);
    p->copy_gbytes = us ? 32.0 * n / us / 1000 : 0;
    us = probe(dev, KERNEL_probe, &x, &y, 1, 1, 0, 0, 200);
    p->dispatch_us = us / 200;
    arena_free(&arena);
    return dev->state == DEVICE_OK;
}

void peaks_show(const struct Args *args, const struct Device *dev, const struct Peaks *p) {
    if (args_switch(args, "json")) {
        json_t *j =
            json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "device", dev->name, "driver", dev->driver, "gflops",
                      p->gflops, "matrix_gflops", p->matrix_gflops, "pair_gflops", p->pair_gflops, "read_gbytes_per_s",
                      p->read_gbytes, "copy_gbytes_per_s", p->copy_gbytes, "dispatch_us", p->dispatch_us);
        json_dumpf(j, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(j);
        return;
    }
    printf("%s (%s)\n", dev->name, dev->driver);
    printf("  f32 multiply-add  %10.1f GFLOP/s\n", p->gflops);
    if (p->matrix_gflops > 0)
        printf("  %-4s matrices     %10.1f GFLOP/s\n", DTYPES[dev->coopmat.type].name, p->matrix_gflops);
    if (p->pair_gflops > 0)
        printf("  pairs of f16      %10.1f GFLOP/s\n", p->pair_gflops);
    printf("  read              %10.1f GB/s\n  copy (both ways)  %10.1f GB/s\n  dispatch, barrier %10.2f us\n",
           p->read_gbytes, p->copy_gbytes, p->dispatch_us);
}

double peaks_gemm(struct Device *dev, enum DType type) {
    uint32_t n = dev->is_cpu ? 768 : 4096;
    struct Arena arena;
    arena_init(&arena, dev, "matrices", ARENA_DEVICE);
    enum DType weights = type == DT_F16 || type == DT_F32 ? type : DT_BF16;
    struct Tensor x = TENSOR(&arena, DT_F32, n, n), w = TENSOR(&arena, weights, n, n), y = TENSOR(&arena, DT_F32, n, n);
    // Random bits with small exponents in both halves of a word: what a unit computes costs power, and so time.
    uint32_t *bits = xmalloc(x.bytes);
    for (uint64_t i = 0; i < x.bytes / 4; i += 4) {
        philox(1, 0, i, bits + i);
        for (uint32_t k = 0; k < 4; k++)
            bits[i + k] = (bits[i + k] & 0x83ff83ff) | 0x38003800;
    }
    double us = 0;
    if (tensor_upload(dev, &x, 0, bits, x.bytes) && tensor_upload(dev, &w, 0, bits, w.bytes)) {
        struct Cmd *c = cmd_begin(dev, "square matrix product");
        op_linear(c, &x, &w, &y, NULL, (struct LinearOptions){.scratch = &arena});
        struct Program *p = cmd_end(c);
        for (double end = clock_seconds() + (dev->is_cpu ? 0 : 0.4); p && clock_seconds() < end;) // it wakes slowly
            program_run(p);
        us = median_us(dev, p, 9);
        program_free(p);
    }
    free(bits);
    arena_free(&arena);
    return us > 0 ? 2.0 * n * n * n / us / 1000 : 0;
}
