// A Vulkan device as the rest of the program sees it: what it is, what it can do, which of that is switched on, and whether it is
// still well. No Vulkan type shows here; runtime/vk.h holds them for this room alone.
#pragma once
#include "runtime/base.h"
#include "runtime/kernel.h"

enum DeviceState { DEVICE_OK, DEVICE_FAILED, DEVICE_LOST };

// Capabilities beyond plain Vulkan 1.3. Each may be switched off by name: VKMOE_OFF=coopmat,subgroup,...
#define CAPS(X)                                                                                                        \
    X(subgroup, "subgroup arithmetic")                                                                                 \
    X(f16, "16-bit float arithmetic")                                                                                  \
    X(int64, "64-bit integers, in addresses")                                                                          \
    X(bf16, "bfloat16 type (VK_KHR_shader_bfloat16)")                                                                  \
    X(dot2, "two products of 16-bit floats added to 32 bits (VK_VALVE_shader_mixed_float_dot_product)")                \
    X(coopmat, "cooperative matrices (VK_KHR_cooperative_matrix)")                                                     \
    X(coopmat2, "cooperative matrices 2 (VK_NV_cooperative_matrix2)")                                                  \
    X(coopmat_back, "backward of attention, and of dense weights, on such matrices")                                   \
    X(eight, "rows read by eight lanes at once (processors)")                                                          \
    X(host_visible, "device memory that the host can map")                                                             \
    X(file_map, "files mapped as device memory (VK_EXT_external_memory_host)")                                         \
    X(timestamps, "timestamps")
enum Cap {
#define CAP_ENUM(name, text) CAP_##name,
    CAPS(CAP_ENUM)
#undef CAP_ENUM
        CAP_COUNT
};

struct CapStatus {
    bool on;
    char why[80]; // why it is off: "no VK_KHR_cooperative_matrix", "switched off by VKMOE_OFF"
};

// Shape of one cooperative matrix multiply at subgroup scope: A (m,k) B (k,n) of `type`, accumulated in f32.
struct CoopmatShape {
    uint32_t m, n, k;
    enum DType type; // DT_F16, DT_BF16 or DT_F32
};

struct DeviceLimits {
    uint32_t subgroup_size; // the one in force, required for every pipeline where the device lets us choose
    uint32_t subgroup_min, subgroup_max; // what a pipeline can be told to take
    uint32_t shared_bytes;               // maxComputeSharedMemorySize
    uint32_t max_groups[3];
    uint32_t max_invocations; // per workgroup
    uint64_t max_allocation_bytes;
    uint64_t import_alignment; // of host memory that becomes device memory (a page); 0: none can
    uint64_t heap_bytes;       // of the device-local heap
    uint64_t memory_bytes;     // of it, what was free when the device was opened
    uint64_t host_bytes;       // main memory that was free then and that the device can read
    uint64_t both_bytes;       // together, where both are one memory; else no limit
    double timestamp_ns;       // a tick; 0: none
};

struct Device {
    char name[256];   // "llvmpipe (LLVM 19.1, 256 bits)"
    char driver[256]; // "llvmpipe, Mesa 25.0.7"
    uint32_t index;   // in the order of `vkmoe devices`
    uint32_t vendor_id, device_id, api_version, driver_version;
    uint8_t driver_uuid[16], device_uuid[16]; // driver_uuid: of this build of it, made of all that it tells
    bool is_cpu;                              // a software rasteriser: register-tile kernels, one subgroup a workgroup
    bool is_dry;                              // nothing runs and addresses are only counted (memory plans)
    bool compile_only; // with is_dry on an opened device: pipelines are compiled all the same (static analysis)
    bool
        keep_code; // where statistics are asked for: the machine code of each pipeline too; set before the first is made
    bool is_integrated;
    struct CapStatus caps[CAP_COUNT];
    struct CoopmatShape coopmat; // chosen shape; m 0: none
    bool coopmat_f16;            // operands of f16 have that shape too, or are what was chosen
    struct DeviceLimits limits;
    enum DeviceState state;
    bool no_room;                  // of the failure: for want of memory
    bool no_kernel;                // or because an operation has none that is right
    bool kernel_off[KERNEL_COUNT]; // modules that the device lacks the means for or that failed their known-answer test
    bool as_card; // tests: a processor does what only cards do otherwise and that it can, as staging x in shared memory
    int force_kernel; // a KernelId that kernel_pick prefers where it is in the list (tests, bench); -1: none
    uint64_t allocated_bytes, peak_bytes, host_bytes; // host_bytes: of host memory that the device reads
    uint64_t mapped_bytes;                            // of tensors that lie in mapped files
    double gflops, gbytes_per_s;                      // rates of the cost model, assumed
    double pace;                                      // what they are to be multiplied by, as measured runs tell
    double longest_submit_ms;                         // measured
    double submit_ms; // how long a submit is meant to take; a dispatch far above it is cut in several
    bool
        cuts_dispatches; // where a long one keeps others from the device: not on processors, unless $VKMOE_SUBMIT_MS asks
    uint64_t dry_address; // where the next block of a dry run lies
    // Called by kernel_pick before a kernel is used for the first time on this device; it may set kernel_off. NULL: none.
    void (*verify)(struct Device *dev, enum KernelId kernel);
    uint8_t kernel_verified[KERNEL_COUNT];
    struct Tuning *tuning; // what model/tune.h has found out, one block of the heap; NULL: tiles come from the table
    struct DeviceVk *vk;
};

// One line per device, also of those that cannot be used, with the reason.
enum { MOST_DEVICES = 16 };
struct DeviceList {
    uint32_t n;
    struct DeviceListEntry {
        char name[256], driver[256];
        bool usable;
        char why[160];
        uint32_t api_version;
        uint64_t memory_bytes;
        const char *kind; // "discrete", "integrated", "cpu", "virtual", "other"
        int rank;         // of the kind: the highest is taken; 0: cpu
    } entry[MOST_DEVICES];
};
bool device_list(struct DeviceList *list);
// The one that device_open takes of these, `which` being a name or a number or NULL; -1 after a message.
int device_pick(const struct DeviceList *list, const char *which);
// Opens the device called `which`: a number of `vkmoe devices`, a part of a name, or NULL: $VKMOE_DEVICE, else the best (discrete,
// integrated, other, cpu). Messages name what there is when nothing fits.
bool device_open(struct Device *dev, const char *which);
// A device that only counts: memory plans without hardware. Looks like `like` where given, else like a large GPU.
void device_open_dry(struct Device *dev, const struct Device *like);
void device_close(struct Device *dev);
// Waits until everything submitted is done. False (after a message) when the device failed or is lost.
bool device_wait(struct Device *dev);
// The same of what was submitted when device_submitted told this number; later work may be under way, and stays so.
uint64_t device_submitted(const struct Device *dev);
bool device_wait_for(struct Device *dev, uint64_t submitted);
static inline bool device_can(const struct Device *dev, enum Cap cap) { return dev->caps[cap].on; }
// Switches a capability off (or on again where it was there), as VKMOE_OFF does: recomputes which kernels are available.
void device_switch(struct Device *dev, enum Cap cap, bool on);
// Records a failure: the first one is told (call, result, place, last recorded op, remedy); later calls do nothing and return false.
bool device_fail(struct Device *dev, int vk_result, const char *call, const char *file, int line);
