// The table of kernels: one entry per line of shaders/kernels.def, the argument structs made from shaders/push.h, and the pipelines,
// compiled when first used for a set of specialisation constants and kept in a validated cache on disk.
#pragma once
#include "runtime/tensor.h"
#include "shaders/push.h"

struct Device;

enum {
    NEEDS_SUBGROUP = 1,  // subgroup arithmetic and shuffles in compute shaders
    NEEDS_F16 = 2,       // shaderFloat16 and 16-bit storage
    NEEDS_BF16 = 4,      // VK_KHR_shader_bfloat16
    NEEDS_COOPMAT = 8,   // VK_KHR_cooperative_matrix with a usable shape
    NEEDS_COOPMAT2 = 16, // VK_NV_cooperative_matrix2
    NEEDS_COOPMAT_F16 =
        32,           // with NEEDS_COOPMAT: f16 operands of the shape in use, also where another type is preferred
    NEEDS_EIGHT = 64, // a processor of eight lanes, and numbers of 8, 16 and 64 bits
    NEEDS_DOT2 = 128, // VK_VALVE_shader_mixed_float_dot_product: two products of f16 added to f32
    NEEDS_INT64 = 256 // shaderInt64
};

enum KernelId {
#define KERNEL(name, source, push, needs, defines) KERNEL_##name,
#include "shaders/kernels.def"
#undef KERNEL
    KERNEL_COUNT
};

// A range of device memory, as a kernel sees it.
struct View {
    uint64_t address, bytes; // 0, 0: absent
};
static inline struct View view(const struct Tensor *t) { return (struct View){t->address, t->bytes}; }

// struct Args_name for every push block: views first, then the numbers.
#define ARGS_PTR(type, name) struct View name;
#define ARGS_U32(name)       uint32_t name;
#define ARGS_F32(name)       float name;
#define ARGS_STRUCT(push)                                                                                              \
    struct Args_##push {                                                                                               \
        PUSH_##push(ARGS_PTR, ARGS_PTR, ARGS_PTR, ARGS_U32, ARGS_F32)                                                  \
    };
PUSHES(ARGS_STRUCT)
#undef ARGS_STRUCT
#undef ARGS_PTR
#undef ARGS_U32
#undef ARGS_F32

enum PushId {
#define PUSH_ENUM(push) PUSH_ID_##push,
    PUSHES(PUSH_ENUM)
#undef PUSH_ENUM
        PUSH_COUNT
};
struct PushInfo {
    const char *name;
    const char *modes; // a letter per pointer: 'r', 'w', 'b' (both)
    uint32_t n_pointers;
    uint32_t n_words; // 32-bit numbers behind the pointers
    uint32_t bytes;   // 8 * n_pointers + 4 * n_words
};
extern const struct PushInfo PUSH_INFO[PUSH_COUNT];

struct KernelInfo {
    const char *name;    // "gemm_nt_q4_1_cpu"
    const char *source;  // "gemm_cpu_nt.comp"
    const char *defines; // what the preprocessor was told: "-DW=q4_1"
    enum PushId push;
    uint32_t needs;
    const uint32_t *words; // SPIR-V; NULL: the compiler at hand could not build it
    uint32_t n_words;
    const char *compiler; // that made the words: "shaderc 2023.2, glslang 11.13.0"
};
extern struct KernelInfo KERNELS[KERNEL_COUNT];

enum { KERNEL_MAX_SPEC = 12 };

// The first kernel of a -1 terminated list that this device can run (or dev->force_kernel where it is in the list and available).
// The last one of every list needs nothing.
enum KernelId kernel_pick(struct Device *dev, const int *list);
#define KERNEL_PICK(dev, ...) kernel_pick(dev, (const int[]){__VA_ARGS__, -1})
bool kernel_find(const char *name, enum KernelId *id);
// Puts a module in the place of one of the list, or back there, and gives the one that was: what is recorded from then on takes the new one. Its
// words must live as long as the device; the pipelines of both are kept, those of a module that is not built in only in memory.
struct KernelInfo kernel_replace(struct Device *dev, enum KernelId id, struct KernelInfo by);

// What the driver's compiler tells about a pipeline (VK_KHR_pipeline_executable_properties), where the device was opened with VKMOE_STATIC
// set: registers, spills, shared memory, code size. Of modules for matrix units, or for products of pairs, also MATRIX_INSTRUCTIONS: how many instructions of
// those stand in the machine code (0 too where the driver does not show it).
struct PipelineStatistic {
    enum KernelId kernel;
    uint32_t pipeline;                  // counted as they were made: the statistics of one stand together
    uint32_t spec[KERNEL_MAX_SPEC + 2]; // workgroup width, subgroup size, the module's own constants
    char name[64];
    double value;
};
#define MATRIX_INSTRUCTIONS "Matrix instructions"
enum { NEEDS_INSTRUCTIONS = NEEDS_COOPMAT | NEEDS_DOT2 };
const struct PipelineStatistic *pipeline_statistics(const struct Device *dev, uint32_t *n);
// The machine code of the pipeline of that number as the driver writes it; NULL: not told, or dev->keep_code was not set.
const char *pipeline_code(const struct Device *dev, uint32_t pipeline);
// Above 0, this one means that registers went to memory, or that a local array lies there.
bool statistic_is_spill(const struct PipelineStatistic *s);
