// The loop in which a kernel spends its time, counted from its machine code as Mesa's drivers write it: AMD's by RADV, NVIDIA's by NVK.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One pass of a subgroup through it. What is done under a condition inside counts as if it were always done.
struct IsaLoop {
    char by[32];     // what does the arithmetic: "wmma_f32_16x16x16_f16", "fmac_f32", "hmma.m16n8k16.f32", "ffma"
    uint32_t lanes;  // of a subgroup
    double flops;    // that these do; a multiply-add is two
    uint32_t math;   // how many of them there are: two that are issued as one count once
    uint32_t vector; // other vector instructions
    uint32_t lds, lds_bytes;      // accesses to shared memory; bytes of a lane
    uint32_t memory, mem_bytes;   // to all other memory
    uint32_t scalar;              // all but waits and hints
    uint32_t first_line, n_lines; // where it stands in the text
};
// Of all loops the one with most arithmetic; of that, a loop inside which has at least half of it; and so on. False: no loop has any.
bool isa_hot_loop(const char *text, size_t bytes, struct IsaLoop *loop);
