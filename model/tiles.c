// The table of devices. Figures behind it are in docs/performance.md; where a class was never measured it has what its neighbour has.
#include "model/tiles.h"

// Mesa's lavapipe changed its compiler with release 26, and with it what is fastest (gemv_first, attention_back_again).
static bool is_old_lavapipe(const struct Device *dev) {
    const uint32_t MESA = 0x10005, MAJOR_SHIFT = 22;
    return dev->is_cpu && dev->vendor_id == MESA && dev->driver_version >> MAJOR_SHIFT < 26;
}
static bool is_processor(const struct Device *dev) { return dev->is_cpu; }
static bool has_workgroup_matrices(const struct Device *dev) { return device_can(dev, CAP_coopmat2); }
static bool has_wide_matrices(const struct Device *dev) {
    return device_can(dev, CAP_coopmat) && dev->limits.shared_bytes >= 48 << 10 && dev->limits.subgroup_size >= 32;
}
// Its instructions want an operand once in every sixteen lanes, so subgroups of 64 load each four times; RDNA4's, the first with bf16 units, do not.
static bool is_rdna3(const struct Device *dev) {
    return has_wide_matrices(dev) && dev->vendor_id == 0x1002 && dev->coopmat.type == DT_F16 &&
           dev->limits.subgroup_min <= 32;
}
static bool is_intel(const struct Device *dev) { return dev->vendor_id == 0x8086 && !dev->is_cpu; }
static bool is_any(const struct Device *dev) { return dev != NULL; }

// Bodies for processors are the same everywhere: a card takes them only where a test asks for them.
#define CPU_PRODUCTS                                                                                                   \
    .cpu_rows = {32, 32, 32}, .cpu_rows_quantised_nn = 16, .cpu_nt_cols = 2, .cpu_tn_cols = 4, .cpu_nn_slice = 2048
#define SHARED_PRODUCTS                                                                                                \
    .shared_local = 128, .shared_rows = 64, .shared_cols = 64, .matrix_subgroups = 4, .fill = 128, .most_sums = 64
// 64 x 64 sums for each of four subgroups: see docs/performance.md for what others reach on an H100.
#define PACKED_PRODUCTS .packed_rows = 128, .packed_cols = 128, .packed_sums = 128
// 64 x 64 sums for each of four subgroups: 261 TFLOP/s on an H200, where 256 threads gave 166.
#define WORKGROUP_PRODUCTS .cm2_rows = 128, .cm2_cols = 128, .cm2_steps = 64, .cm2_threads = 128
#define CM2_ATTENTION      .attention_cm2_threads = 256, .attention_cm2_rows = 64, .attention_cm2_keys = 64
#define ATTENTION                                                                                                      \
    CM2_ATTENTION, .attention_matrix_subgroups = 4, .attention_matrix_keys = 32, .attention_matrix_row_blocks = 1,     \
                   .attention_rows = 4, .attention_matrix_widest = 128
#define PROCESSOR                                                                                                      \
    CPU_PRODUCTS, SHARED_PRODUCTS, WORKGROUP_PRODUCTS, ATTENTION,                                                      \
        .packed_rows = 32, .packed_cols = 32, .packed_sums = 128, .matrix_rows = 0, .matrix_cols = 0,                  \
        .expert_rows = 32, .expert_rows_least = 8, .gemv_local = 0, .gemv_cols = 8, .gemv_rows = 8,                    \
        .decode_units = 16, .decode_parts = 8
// A card's memory answers after hundreds of cycles: a lane of a matrix-vector product has four units under way.
#define ANY_CARD                                                                                                       \
    CPU_PRODUCTS, WORKGROUP_PRODUCTS, .expert_rows_least = 16, .gemv_local = 128, .gemv_cols = 2,                      \
                                      .gemv_staged_local = 256, .decode_units = 512, .decode_parts = 64
#define CARD ANY_CARD, SHARED_PRODUCTS, PACKED_PRODUCTS, ATTENTION, .gemv_ahead = 4, .gemv_rows = 8

static const struct {
    bool (*is)(const struct Device *dev);
    struct Tiles tiles;
} CLASSES[] = {
    {is_old_lavapipe, {.name = "a processor, Mesa before 26", PROCESSOR, .gemv_first = LANES_A_ROW, .gemv_ahead = 1}},
    {is_processor,
     {.name = "a processor",
      PROCESSOR,
      .pairs = true,
      .gemv_first = LANES_OF_EIGHT,
      .gemv_ahead = 4,
      .attention_back_again = true}},
    {has_workgroup_matrices, // NVIDIA's own driver
     {.name = "matrix units of a workgroup",
      CARD,
      .packs = true,
      .matrix_rows = 128,
      .matrix_cols = 128,
      .expert_rows = 128}},
    {is_rdna3,
     {.name = "RDNA3's matrix units",
      CARD,
      .matrix_subgroup = 32,
      .matrix_rows = 128,
      .matrix_cols = 128,
      .f16_weights = true,
      .expert_rows = 64}},
    // AMD RDNA4, NVK. Quants become f16 in 0.5 to 0.75 of the instructions that bf16 takes, f16 itself in none; on Intel's they do not.
    {has_wide_matrices,
     {.name = "matrix units of a subgroup",
      CARD,
      .matrix_rows = 128,
      .matrix_cols = 128,
      .f16_weights = true,
      .expert_rows = 64}},
    // 128 registers a lane on Arc B, on Arc A in 8 lanes: 16 sums and what is on its way to the tables fit, 32 are spilled.
    {is_intel,
     {.name = "Intel's",
      .gemv_ahead = 2,
      .gemv_rows = 4,
      ANY_CARD,
      CM2_ATTENTION,
      .packed_rows = 32,
      .packed_cols = 64,
      .packed_sums = 16,
      .shared_local = 256,
      .shared_rows = 64,
      .shared_cols = 64,
      .matrix_subgroups = 16,
      .fill = 128,
      .most_sums = 16,
      .matrix_rows = 64,
      .matrix_cols = 64,
      .expert_rows = 64,
      .attention_rows = 2,
      .attention_matrix_subgroups = 4,
      .attention_matrix_keys = 16,
      .attention_matrix_row_blocks = 1,
      .attention_matrix_widest = 32}},
    // RDNA2 and others without matrix units to take the tile
    {is_any, {.name = "a card", CARD, .matrix_rows = 64, .matrix_cols = 64, .expert_rows = 64}},
};

const struct Tiles *tiles_of(const struct Device *dev) {
    size_t i = 0;
    while (!CLASSES[i].is(dev))
        i++;
    return &CLASSES[i].tiles;
}
