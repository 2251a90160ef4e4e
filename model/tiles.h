// How operations are cut into tiles, workgroups and parts: what each class of device starts with. Some of it model/tune.h measures anew.
// What changes the order of a sum (marked "order") stands here alone, so that results never depend on a measurement.
#pragma once
#include "runtime/device.h"

struct Tiles {
    const char *name; // of the class
    // Bodies of products for processors. Rows by form: NT, NN, TN.
    uint32_t cpu_rows[3], cpu_rows_quantised_nn;
    uint32_t cpu_nt_cols, cpu_tn_cols; // a lane
    uint32_t cpu_nn_slice;             // order: of the contraction, so that its operands stay in the caches
    // Products through shared memory, in plain arithmetic and on matrix units of a subgroup (rows 0: two of the device's matrices).
    uint32_t shared_local, shared_rows, shared_cols;
    uint32_t matrix_subgroups, matrix_rows, matrix_cols;
    uint32_t matrix_subgroup; // narrower than the device's own; 0: that
    bool f16_weights;         // of such units for f16 and for bf16, f16 and quantised weights take the former
    // Products whose operands are packed beforehand, where the device's own products take them so.
    bool packs;
    uint32_t packed_rows, packed_cols, packed_sums; // of a tile; of a lane: more would spill
    // Products on matrix units that a workgroup drives together; order: steps of the contraction at a time.
    uint32_t cm2_rows, cm2_cols, cm2_steps, cm2_threads;
    uint32_t most_sums;                      // of a lane on a card: more would spill
    uint32_t fill;                           // workgroups that keep a large device busy
    uint32_t expert_rows, expert_rows_least; // of a tile of an expert's rows
    bool pairs; // two neighbours a lane (shaders/pairs.glsl) before four; order, of some sums
    // Products of few rows.
    enum { LANES_ALONG_K, LANES_A_ROW, LANES_OF_EIGHT } gemv_first; // order: of the bodies of matrix-vector products
    uint32_t gemv_local, gemv_cols; // gemv_local 0: a subgroup; of a lane, or of the subgroup whose lanes are along k
    uint32_t gemv_ahead;            // units of w that a lane asks for at once; of quarters of units twice as many
    uint32_t gemv_staged_local;     // where x is staged in shared memory; 0: a subgroup
    uint32_t gemv_rows;             // of x at the most; half as many where two products are made at once
    // Attention. Keys of a block, and the parts that a row's keys are split into for decode, are order.
    uint32_t attention_matrix_subgroups, attention_matrix_keys, attention_matrix_row_blocks;
    uint32_t attention_cm2_threads, attention_cm2_rows, attention_cm2_keys;
    uint32_t attention_rows;          // of a thread in plain arithmetic, for heads up to 128
    uint32_t attention_matrix_widest; // head that matrix units take
    bool attention_back_again;        // gradients on a CPU: a lane has one row, and loads what all share for each use
    uint32_t decode_units, decode_parts; // workgroups that fill the device with one row; parts at the most
};
// The row of the table that fits the device as its capabilities stand now.
const struct Tiles *tiles_of(const struct Device *dev);
