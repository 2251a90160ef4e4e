// The counter of a kernel's hottest loop, on code written for this test: every number below follows from reading it.
#include "check.h"
#include "cli/isa.h"

#include <string.h>

static bool count(const char *code, struct IsaLoop *loop) { return isa_hot_loop(code, strlen(code), loop); }

static void check_counts(const struct IsaLoop *l, struct IsaLoop want) {
    CHECK(strcmp(l->by, want.by) == 0, "by '%s', expected '%s'", l->by, want.by);
    CHECK(l->lanes == want.lanes, "%u lanes, expected %u", l->lanes, want.lanes);
    CHECK_NEAR(l->flops, want.flops, 0, 0);
    CHECK(l->math == want.math && l->vector == want.vector, "%u of arithmetic, %u other; expected %u and %u", l->math,
          l->vector, want.math, want.vector);
    CHECK(l->lds == want.lds && l->lds_bytes == want.lds_bytes, "shared memory: %u, %u bytes; expected %u, %u", l->lds,
          l->lds_bytes, want.lds, want.lds_bytes);
    CHECK(l->memory == want.memory && l->mem_bytes == want.mem_bytes, "memory: %u, %u bytes; expected %u, %u",
          l->memory, l->mem_bytes, want.memory, want.mem_bytes);
    CHECK(l->scalar == want.scalar, "%u scalar, expected %u", l->scalar, want.scalar);
    CHECK(l->first_line == want.first_line && l->n_lines == want.n_lines, "lines %u + %u, expected %u + %u",
          l->first_line, l->n_lines, want.first_line, want.n_lines);
}

// RDNA3, 64 lanes. In front a loop that only adds; the one with matrices has a condition inside, behind it one with a few multiply-adds.
static const char MATRICES[] = "BB0:\n"
                               "\tv_mov_b32_e32 v1, 0 ; 7e020280\n"
                               "BB1:\n"
                               "\tv_add_f32_e32 v1, v1, v2 ; 06020501\n"
                               "\ts_cbranch_scc1 BB1 ; bfa2fffe\n"
                               "BB2:\n"
                               "\tglobal_load_b128 v[4:7], v[2:3], off ; dc5e0000 047c0002\n"
                               "\tv_add_nc_u32_e32 v2, 16, v2 ; 4a040490\n"
                               "\ts_and_saveexec_b64 s[2:3], vcc ; be82216a\n"
                               "\ts_cbranch_execz BB4 ; bfa50003\n"
                               "BB3:\n"
                               "\tds_store_b64 v8, v[4:5] offset:64 ; d9340040 00000408\n"
                               "BB4:\n"
                               "\ts_waitcnt lgkmcnt(0) ; bf89fc07\n"
                               "\ts_delay_alu instid0(VALU_DEP_1) ; bf870001\n"
                               "\tds_load_b128 v[16:19], v9 ; dbfc0000 10000009\n"
                               "\tds_load_2addr_b32 v[20:21], v9 offset1:1 ; d8dc0100 14000009\n"
                               "\tv_wmma_f32_16x16x16_f16 v[24:27], v[16:23], v[32:39], v[24:27] ; cc404018\n"
                               "\tv_wmma_f32_16x16x16_f16 v[28:31], v[16:23], v[40:47], v[28:31] ; cc40401c\n"
                               "\tv_fma_mixlo_f16 v4, v4, v5, neg(0) ; cc210004\n"
                               "\ts_barrier ; bfbd0000\n"
                               "\ts_cbranch_scc0 BB2 ; bfa1ffe0\n"
                               "BB5:\n"
                               "\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6 ; c8000702\n"
                               "\ts_branch BB5 ; bfa0fffe\n"
                               "BB6:\n"
                               "\ts_endpgm ; bfb00000\n";

// RDNA2, 32 lanes: all arithmetic is in the loop within the loop, one of two instructions issued as one among it.
static const char NESTED[] = "BB0:\n"
                             "\ts_mov_b32 s0, 0\n"
                             "BB2:\n"
                             "\tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen\n"
                             "\tglobal_load_ushort v8, v[6:7], off\n"
                             "BB1:\n"
                             "\tds_read_b64 v[10:11], v5\n"
                             "\tds_read2st64_b32 v[12:13], v5 offset1:1\n"
                             "\tds_read_u8 v14, v5\n"
                             "\tv_fmac_f32_e32 v20, v10, v0\n"
                             "\tv_fma_f32 v21, v11, v1, v21\n"
                             "\tv_pk_fma_f16 v22, v12, v2, v22\n"
                             "\tv_dual_fmac_f32 v23, v13, v3 :: v_dual_add_f32 v24, v1, v2\n"
                             "\tv_cmp_gt_u32_e32 vcc_lo, s0, v5\n"
                             "\ts_cbranch_vccnz BB1\n"
                             "BB3:\n"
                             "\tv_fmac_f32_e32 v20, v10, v0\n"
                             "\ts_cbranch_scc1 BB2\n"
                             "BB4:\n"
                             "\ts_endpgm\n";

static const char DOTS[] = "BB7:\n"
                           "\tv_dot4_i32_iu8 v1, v2, v3, v1 neg_lo:[1,1,0]\n"
                           "\tv_dot2_f32_f16 v4, v5, v6, v4\n"
                           "\tv_fmac_f32_e32 v7, v8, v9\n"
                           "\ts_cbranch_scc1 BB7\n";

// Ampere as NVK's compiler tells it: after one pass another loop stands there, with more arithmetic. L2 lies within L0; what is in front is text of its own kinds.
static const char NVIDIA[] = "shader: MESA_SHADER_COMPUTE\n"
                             "    block b0:  // preds:\n"
                             "NAK IR:\n"
                             "block 0 L0 [] -> {\n"
                             "      r0..4    = hmma.m16n8k16.f32 r4..8 r8..10 r0..4\n"
                             "      r0..4    = hmma.m16n8k16.f32 r4..8 r8..10 r0..4\n"
                             "                 bra pT L0\n"
                             "} -> [0]\n"
                             "NAK IR after calc_instr_deps:\n"
                             "block.u 0 L0 [] -> {\n"
                             "      ur0      = s2r sr[0x25]                                  // delay=1 wr:0\n"
                             "} -> [1]\n"
                             "block 1 L2 [0, 1] -> {\n"
                             "      ur2      = ldc.b32 c[0x0][+0x0]                          // delay=2 wr:2\n"
                             "      up0      = isetp.ge.u32 ur7 ur4                          // delay=4\n"
                             "      r8..12   = ld.global.a64.constant.b128 [r6..8+0x10], pT  // delay=1 wr:1\n"
                             "      r20      = ld.shared.strong.cta.u16 [r5]                 // delay=1 wr:2\n"
                             "      r24..28  = ldsm.16.m8n8.x4 [r5]                          // delay=1 wr:2\n"
                             "@!p0             st.shared.strong.cta.b32 [r5] r8              // delay=2 rd:0\n"
                             "      r12..14  = movm.16.m8n8.trans r12                        // delay=2\n"
                             "      r7 p0    = lea r0 2 c[0x0][0x728]                        // delay=4\n"
                             "      r0..4    = hmma.m16n8k16.f32 r4..8 r8..10 r0..4          // delay=15 rd:0 wr:1\n"
                             "      r5       = ffma.ftz r16 r6 r5                            // delay=2 = 2\n"
                             "                 nop L5                                        // delay=1\n"
                             "@up0             bra pT L2                                     // delay=1\n"
                             "} -> [1, 2]\n"
                             "block 2 L3 [1] -> {\n"
                             "      r5       = hfma2.ftz r16 r6 r5                           // delay=2\n"
                             "                 bra !up0 L0                                   // delay=1\n"
                             "} -> [0]\n"
                             "\n"
                             "Num GPRs: 32\n"
                             "  00027221 00000004 00010000 002fc800\n";

int main(void) {
    struct IsaLoop loop;
    CHECK(count(MATRICES, &loop), "no loop");
    check_counts(&loop, (struct IsaLoop){.by = "wmma_f32_16x16x16_f16",
                                         .lanes = 64,
                                         .flops = 2 * 2.0 * 16 * 16 * 16,
                                         .math = 2,
                                         .vector = 2, // the addition and the conversion
                                         .lds = 3,
                                         .lds_bytes = 8 + 16 + 8,
                                         .memory = 1,
                                         .mem_bytes = 16,
                                         .scalar = 4, // saveexec, two branches, the barrier; waits are not counted
                                         .first_line = 7,
                                         .n_lines = 16});
    CHECK(count(NESTED, &loop), "no loop");
    check_counts(&loop, (struct IsaLoop){.by = "fmac_f32",
                                         .lanes = 32,
                                         .flops = 32 * (2 + 2 + 4 + 2.0),
                                         .math = 4,
                                         .vector = 1,
                                         .lds = 3,
                                         .lds_bytes = 8 + 8 + 1,
                                         .scalar = 1,
                                         .first_line = 7,
                                         .n_lines = 9});
    CHECK(count(DOTS, &loop), "no loop");
    check_counts(&loop, (struct IsaLoop){.by = "dot4_i32_iu8",
                                         .lanes = 32,
                                         .flops = 32 * (8 + 4.0),
                                         .math = 2,
                                         .vector = 1,
                                         .scalar = 1,
                                         .first_line = 2,
                                         .n_lines = 4});
    CHECK(count(NVIDIA, &loop), "no loop");
    check_counts(&loop, (struct IsaLoop){.by = "hmma.m16n8k16.f32",
                                         .lanes = 32,
                                         .flops = 2.0 * 16 * 8 * 16,
                                         .math = 1,
                                         .vector = 3, // movm, lea, ffma
                                         .lds = 3,
                                         .lds_bytes = 2 + 16 + 4,
                                         .memory = 1,
                                         .mem_bytes = 16,
                                         .scalar = 3, // the constant, the comparison, the branch
                                         .first_line = 14,
                                         .n_lines = 12});
    // What is no loop, has no arithmetic, or is cut anywhere.
    CHECK(!count("", &loop) && !count("BB0:\n\tv_fmac_f32_e32 v1, v2, v3\n\ts_branch BB1\nBB1:\n", &loop), "a loop");
    CHECK(!count("BB0:\n\tv_add_f32_e32 v1, v1, v2\n\ts_branch BB0\n", &loop), "arithmetic");
    CHECK(!count("BB:\nBB99999999999:\n\ts_branch BB99999999999\n\ts_branch BB\n\t\n\tv_\n", &loop), "a loop");
    for (size_t n = 0; n < strlen(MATRICES); n++)
        isa_hot_loop(MATRICES, n, &loop);
    for (size_t n = 0; n < strlen(NVIDIA); n++)
        isa_hot_loop(NVIDIA, n, &loop);
    return check_done();
}
