// The Vulkan side of the runtime, for this room alone: handles, the registry of memory blocks, and VK_TRY, through which every Vulkan
// call that can fail is made.
#pragma once
#include "runtime/device.h"
#include "runtime/memory.h"
#include <vulkan/vulkan.h>

// Older headers (Debian 12 has 1.3.239) lack the extension that drivers already have: its few declarations, from the registry.
#ifndef VK_KHR_cooperative_matrix
typedef enum VkComponentTypeKHR {
    VK_COMPONENT_TYPE_FLOAT16_KHR = 0,
    VK_COMPONENT_TYPE_FLOAT32_KHR = 1
} VkComponentTypeKHR;
typedef enum VkScopeKHR { VK_SCOPE_SUBGROUP_KHR = 3 } VkScopeKHR;
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR ((VkStructureType)1000506000)
#define VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR               ((VkStructureType)1000506001)
typedef struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrix;
    VkBool32 cooperativeMatrixRobustBufferAccess;
} VkPhysicalDeviceCooperativeMatrixFeaturesKHR;
typedef struct VkCooperativeMatrixPropertiesKHR {
    VkStructureType sType;
    void *pNext;
    uint32_t MSize, NSize, KSize;
    VkComponentTypeKHR AType, BType, CType, ResultType;
    VkBool32 saturatingAccumulation;
    VkScopeKHR scope;
} VkCooperativeMatrixPropertiesKHR;
typedef VkResult(VKAPI_PTR *PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)(VkPhysicalDevice, uint32_t *,
                                                                                   VkCooperativeMatrixPropertiesKHR *);
#endif
#ifndef VK_NV_cooperative_matrix2
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV     ((VkStructureType)1000593000)
#define VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_FLEXIBLE_DIMENSIONS_PROPERTIES_NV ((VkStructureType)1000593001)
typedef struct VkPhysicalDeviceCooperativeMatrix2FeaturesNV {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrixWorkgroupScope, cooperativeMatrixFlexibleDimensions, cooperativeMatrixReductions,
        cooperativeMatrixConversions, cooperativeMatrixPerElementOperations, cooperativeMatrixTensorAddressing,
        cooperativeMatrixBlockLoads;
} VkPhysicalDeviceCooperativeMatrix2FeaturesNV;
typedef struct VkCooperativeMatrixFlexibleDimensionsPropertiesNV {
    VkStructureType sType;
    void *pNext;
    uint32_t MGranularity, NGranularity, KGranularity;
    VkComponentTypeKHR AType, BType, CType, ResultType;
    VkBool32 saturatingAccumulation;
    VkScopeKHR scope;
    uint32_t workgroupInvocations;
} VkCooperativeMatrixFlexibleDimensionsPropertiesNV;
typedef VkResult(VKAPI_PTR *PFN_vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV)(
    VkPhysicalDevice, uint32_t *, VkCooperativeMatrixFlexibleDimensionsPropertiesNV *);
#endif
// Names that older headers lack.
enum { COMPONENT_BFLOAT16 = 1000141000, SCOPE_WORKGROUP = 2 };

// One allocation: memory, a buffer over all of it, its device address, and the host's view where it has one.
struct Block {
    VkDeviceMemory memory;
    VkBuffer buffer;
    uint64_t address;
    uint64_t bytes; // usable; padding follows
    void *host;
    bool on_host;      // counted there
    bool slow_to_read; // mapped past the processor's caches (AMD's integrated cards): read through staging
    bool imported;     // a file's mapping: counted nowhere, never written
};

struct Pipeline {
    uint64_t key; // hash of kernel, local size, specialisation and `based`; 0: empty slot
    enum KernelId kernel;
    bool based;            // dispatches of it may begin at another workgroup than 0
    const uint32_t *words; // of its module: kernel_replace may have put another one there
    uint32_t spec[KERNEL_MAX_SPEC + 2];
    VkPipeline handle;
};

enum { UPLOAD_SLOTS = 4 };
struct DeviceVk {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    VkCommandPool pool;
    VkSemaphore timeline;
    uint64_t submitted; // value that the last submit signals
    VkDebugUtilsMessengerEXT messenger;
    uint32_t validation_messages;
    bool require_subgroup_size;
    uint64_t timestamp_mask; // bits that count; the others are anything
    bool has_executable_properties;
    VkPhysicalDeviceMemoryProperties memory;
    uint64_t max_buffer_bytes;
    PFN_vkGetMemoryHostPointerPropertiesEXT host_pointer_properties; // NULL: no such extension in use
    VkPipelineLayout layouts[PUSH_COUNT];
    VkShaderModule modules[KERNEL_COUNT];
    VkPipelineCache cache;
    uint64_t cache_saved_bytes;
    struct Pipeline *pipelines; // open addressing
    uint32_t n_pipelines, pipeline_slots;
    struct Block **blocks; // every live block
    uint32_t n_blocks, block_slots;
    struct Block staging;
    struct UploadSlot {
        struct Block block;
        VkCommandBuffer commands;
        uint64_t free_at; // value of the timeline at which its last copy is done
    } ring[UPLOAD_SLOTS];
    uint32_t ring_next;
    VkCommandBuffer copying;  // of tensors_copy
    struct Program **pending; // submitted since the last wait
    uint32_t n_pending, pending_slots;
    struct PipelineStatistic *statistics;
    uint32_t n_statistics;
    char **codes;        // (n_pipelines) where dev->keep_code, each NULL where the driver did not tell it
    char last_label[96]; // of the last recorded operation
};

// False after a message where the call gave anything but VK_SUCCESS, and without being made where an earlier one has failed.
#define VK_TRY(dev, call) vk_try(dev, vk_enter(dev) ? (call) : VK_ERROR_UNKNOWN, #call, __FILE__, __LINE__)
// The same of a call that makes `handle`: what a failed one leaves there means nothing, and would be destroyed at the end.
#define VK_MAKE(dev, handle, call) (VK_TRY(dev, call) || ((handle) = VK_NULL_HANDLE, false))
static inline bool vk_enter(const struct Device *dev) { return dev->state == DEVICE_OK; }
bool vk_try(struct Device *dev, VkResult result, const char *call, const char *file, int line);
const char *vk_result_name(int result);

// device.c
void device_idle(struct Device *dev); // before anything is freed: waits in a failed state too, without a word

// kernel.c
bool kernels_open(struct Device *dev);
void kernels_close(struct Device *dev);
void kernels_refresh(struct Device *dev);            // recomputes kernel_off from the capabilities
char *pipeline_cache_path(const struct Device *dev); // malloc'ed
// The driver must never see a byte that it did not write on this machine with this driver: anything else is undefined behaviour there.
bool pipeline_cache_valid(const struct Device *dev, const uint8_t *data, uint64_t bytes);
// Compiles (or finds) a pipeline. spec: local size, subgroup size, then the kernel's own constants. VK_NULL_HANDLE after a message.
VkPipeline pipeline_get(struct Device *dev, enum KernelId kernel, const uint32_t *spec, uint32_t n_spec, bool based);

// memory.c
bool block_make(struct Device *dev, enum ArenaKind kind, uint64_t bytes, const char *what, struct Block *block);
// The same over `bytes` of the host's memory, which is read alone; the padding is the last part of it. False without a message where the
// driver does not take it.
bool block_import(struct Device *dev, void *host, uint64_t bytes, struct Block *block);
void block_free(struct Device *dev, struct Block *block);
uint64_t block_padding(const struct Device *dev); // bytes behind the last tensor of a block; see the top of memory.h
// The one that all of the range lies in (pieces of a file overlap); NULL: none.
const struct Block *block_find(const struct Device *dev, uint64_t address, uint64_t bytes);

// cmd.c
void programs_settle(struct Device *dev); // after a wait: reads timestamps of what ran
