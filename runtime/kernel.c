// Pipelines: one module per line of kernels.def, one pipeline per set of specialisation constants, made when first used. The driver's
// pipeline cache goes to disk behind a header of our own, because drivers do not survive a corrupted one.
#include "runtime/kernel.h"
#include "runtime/vk.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct KernelCode {
    const char *name;
    const uint32_t *words;
    uint32_t n_words;
    const char *compiler;
};
extern const struct KernelCode KERNEL_CODE[]; // generated from kernels.def
extern const uint32_t N_KERNEL_CODE;

struct KernelInfo KERNELS[KERNEL_COUNT] = {
#define KERNEL(name, source, push, needs, defines) {#name, #source, defines, PUSH_ID_##push, needs, NULL, 0, NULL},
#include "shaders/kernels.def"
#undef KERNEL
};

// The same lists as text: a letter per pointer, then a letter per number.
#define MODE_IN(type, name)  "r"
#define MODE_OUT(type, name) "w"
#define MODE_RW(type, name)  "b"
#define MODE_NONE1(name)
#define MODE_NONE2(type, name)
#define MODE_WORD(name) "n"
const struct PushInfo PUSH_INFO[PUSH_COUNT] = {
#define PUSH_ROW(push)                                                                                                 \
    {#push, "" PUSH_##push(MODE_IN, MODE_OUT, MODE_RW, MODE_NONE1, MODE_NONE1),                                        \
     sizeof("" PUSH_##push(MODE_IN, MODE_OUT, MODE_RW, MODE_NONE1, MODE_NONE1)) - 1,                                   \
     sizeof("" PUSH_##push(MODE_NONE2, MODE_NONE2, MODE_NONE2, MODE_WORD, MODE_WORD)) - 1,                             \
     8 * (sizeof("" PUSH_##push(MODE_IN, MODE_OUT, MODE_RW, MODE_NONE1, MODE_NONE1)) - 1) +                            \
         4 * (sizeof("" PUSH_##push(MODE_NONE2, MODE_NONE2, MODE_NONE2, MODE_WORD, MODE_WORD)) - 1)},
    PUSHES(PUSH_ROW)};

#define PUSH_FITS(push)                                                                                                \
    _Static_assert(                                                                                                    \
        8 * (sizeof("" PUSH_##push(MODE_IN, MODE_OUT, MODE_RW, MODE_NONE1, MODE_NONE1)) - 1) +                         \
                4 * (sizeof("" PUSH_##push(MODE_NONE2, MODE_NONE2, MODE_NONE2, MODE_WORD, MODE_WORD)) - 1) <=          \
            128,                                                                                                       \
        "push block " #push " is above the 128 bytes that every device has");
PUSHES(PUSH_FITS)

bool kernel_find(const char *name, enum KernelId *id) {
    for (int i = 0; i < KERNEL_COUNT; i++)
        if (strcasecmp(KERNELS[i].name, name) == 0) {
            *id = (enum KernelId)i;
            return true;
        }
    return false;
}

// A kernel that was never used on this device is verified first; that may switch it off.
static bool kernel_usable(struct Device *dev, int kernel) {
    if (dev->kernel_off[kernel])
        return false;
    if (!dev->kernel_verified[kernel]) {
        dev->kernel_verified[kernel] = 1; // before the call: verifying uses kernels itself
        if (dev->verify && !dev->is_dry && dev->state == DEVICE_OK)
            dev->verify(dev, (enum KernelId)kernel);
    }
    return !dev->kernel_off[kernel];
}

enum KernelId kernel_pick(struct Device *dev, const int *list) {
    int last = list[0];
    for (const int *k = list; *k >= 0; k++)
        if (*k == dev->force_kernel && kernel_usable(dev, *k))
            return (enum KernelId) * k;
    for (const int *k = list; *k >= 0; k++) {
        last = *k;
        if (kernel_usable(dev, *k))
            return (enum KernelId) * k;
    }
    // Where nothing runs the last one is only counted.
    if (dev->state == DEVICE_OK && !dev->is_dry && !getenv("VKMOE_TRUST_KERNELS")) {
        dev->state = DEVICE_FAILED;
        dev->no_kernel = true;
        fail("%s: kernel %s is wrong by this driver, and no other does the same: update the driver or choose another "
             "--device "
             "(VKMOE_TRUST_KERNELS=1 goes on all the same, to look for the reason)",
             dev->name, KERNELS[last].name);
    }
    return (enum KernelId)last;
}

struct KernelInfo kernel_replace(struct Device *dev, enum KernelId id, struct KernelInfo by) {
    struct KernelInfo was = KERNELS[id];
    vkDestroyShaderModule(dev->vk->device, dev->vk->modules[id], NULL); // pipelines outlive their module
    dev->vk->modules[id] = VK_NULL_HANDLE;
    KERNELS[id] = by;
    return was;
}

void kernels_refresh(struct Device *dev) {
    static const struct {
        uint32_t flag;
        enum Cap cap;
    } NEED[] = {{NEEDS_SUBGROUP, CAP_subgroup}, {NEEDS_F16, CAP_f16},           {NEEDS_BF16, CAP_bf16},
                {NEEDS_COOPMAT, CAP_coopmat},   {NEEDS_COOPMAT2, CAP_coopmat2}, {NEEDS_EIGHT, CAP_eight},
                {NEEDS_DOT2, CAP_dot2},         {NEEDS_INT64, CAP_int64}};
    for (uint32_t k = 0; k < KERNEL_COUNT; k++) {
        if (!KERNELS[k].words) {
            KERNELS[k].words = KERNEL_CODE[k].words;
            KERNELS[k].n_words = KERNEL_CODE[k].n_words;
            KERNELS[k].compiler = KERNEL_CODE[k].compiler;
        }
        dev->kernel_off[k] = KERNELS[k].words == NULL;
        for (size_t i = 0; i < sizeof NEED / sizeof NEED[0]; i++)
            if ((KERNELS[k].needs & NEED[i].flag) && !device_can(dev, NEED[i].cap))
                dev->kernel_off[k] = true;
        // Matrix modules of the type that was not chosen: the shape in use is not theirs.
        if (KERNELS[k].needs & NEEDS_COOPMAT_F16)
            dev->kernel_off[k] = dev->kernel_off[k] || !dev->coopmat_f16;
        else if ((KERNELS[k].needs & NEEDS_COOPMAT) &&
                 dev->coopmat.type != (KERNELS[k].needs & NEEDS_BF16 ? DT_BF16 : DT_F16))
            dev->kernel_off[k] = true;
    }
}

// ---- The cache on disk

struct CacheHeader {
    char magic[8]; // "vkmoepc1"
    uint64_t payload_bytes, payload_hash;
    uint32_t vendor_id, device_id, driver_version, api_version;
    uint8_t driver_uuid[16], device_uuid[16];
};

char *pipeline_cache_path(const struct Device *dev) {
    char name[80];
    snprintf(name, sizeof name, "pipelines-%04x-%04x-%016llx.bin", dev->vendor_id, dev->device_id,
             (unsigned long long)hash_bytes(dev->driver_uuid, 16, dev->driver_version));
    return path_join(cache_dir(), name);
}

static struct CacheHeader cache_header(const struct Device *dev, const void *payload, uint64_t bytes) {
    struct CacheHeader h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, "vkmoepc1", 8);
    h.payload_bytes = bytes;
    h.payload_hash = hash_bytes(payload, bytes, 0);
    h.vendor_id = dev->vendor_id, h.device_id = dev->device_id;
    h.driver_version = dev->driver_version, h.api_version = dev->api_version;
    memcpy(h.driver_uuid, dev->driver_uuid, 16);
    memcpy(h.device_uuid, dev->device_uuid, 16);
    return h;
}

bool pipeline_cache_valid(const struct Device *dev, const uint8_t *data, uint64_t bytes) {
    struct CacheHeader want;
    if (bytes < sizeof want)
        return false;
    want = cache_header(dev, data + sizeof want, bytes - sizeof want);
    return memcmp(&want, data, sizeof want) == 0;
}

static void cache_load(struct Device *dev) {
    char *path = pipeline_cache_path(dev);
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    bool there = file_exists(path) && file_read(path, UINT64_C(1) << 30, &data, &bytes);
    bool valid = there && pipeline_cache_valid(dev, data, bytes);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    if (valid) {
        info.initialDataSize = bytes - sizeof(struct CacheHeader);
        info.pInitialData = data + sizeof(struct CacheHeader);
        dev->vk->cache_saved_bytes = info.initialDataSize;
    }
    (void)VK_MAKE(dev, dev->vk->cache, vkCreatePipelineCache(dev->vk->device, &info, NULL, &dev->vk->cache));
    free(data);
    free(path);
}

static void cache_save(struct Device *dev) {
    size_t bytes = 0;
    struct DeviceVk *vk = dev->vk;
    if (!vk->cache || dev->state != DEVICE_OK ||
        vkGetPipelineCacheData(vk->device, vk->cache, &bytes, NULL) != VK_SUCCESS || bytes == vk->cache_saved_bytes ||
        bytes == 0)
        return;
    uint8_t *data = xmalloc(sizeof(struct CacheHeader) + bytes);
    if (vkGetPipelineCacheData(vk->device, vk->cache, &bytes, data + sizeof(struct CacheHeader)) == VK_SUCCESS) {
        struct CacheHeader h = cache_header(dev, data + sizeof h, bytes);
        memcpy(data, &h, sizeof h);
        char *path = pipeline_cache_path(dev);
        bool before = fail_quiet(true), ok = file_write_atomic(path, data, sizeof h + bytes);
        fail_quiet(before);
        if (!ok && dir_exists(cache_dir())) // one that could not be made has been told
            warn("%s: kernels are compiled anew each time", fail_last());
        free(path);
    }
    free(data);
}

// ---- Modules and pipelines

bool kernels_open(struct Device *dev) {
    kernels_refresh(dev);
    if (N_KERNEL_CODE != KERNEL_COUNT)
        return fail("built from two different shader lists (%u and %d modules); build again from a clean folder",
                    N_KERNEL_CODE, KERNEL_COUNT);
    for (int i = 0; i < PUSH_COUNT; i++) {
        VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, PUSH_INFO[i].bytes};
        VkPipelineLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                           .pushConstantRangeCount = 1,
                                           .pPushConstantRanges = &range};
        if (!VK_MAKE(dev, dev->vk->layouts[i],
                     vkCreatePipelineLayout(dev->vk->device, &info, NULL, &dev->vk->layouts[i])))
            return false;
    }
    cache_load(dev);
    return dev->state == DEVICE_OK;
}

void kernels_close(struct Device *dev) {
    struct DeviceVk *vk = dev->vk;
    cache_save(dev);
    for (uint32_t i = 0; i < vk->pipeline_slots; i++)
        if (vk->pipelines[i].key)
            vkDestroyPipeline(vk->device, vk->pipelines[i].handle, NULL);
    for (int i = 0; i < KERNEL_COUNT; i++)
        if (vk->modules[i])
            vkDestroyShaderModule(vk->device, vk->modules[i], NULL);
    for (int i = 0; i < PUSH_COUNT; i++)
        if (vk->layouts[i])
            vkDestroyPipelineLayout(vk->device, vk->layouts[i], NULL);
    for (uint32_t i = 0; vk->codes && i < vk->n_pipelines; i++)
        free(vk->codes[i]);
    free(vk->codes);
    if (vk->cache)
        vkDestroyPipelineCache(vk->device, vk->cache, NULL);
}

static void pipelines_grow(struct DeviceVk *vk) {
    struct Pipeline *old = vk->pipelines;
    uint32_t slots = vk->pipeline_slots;
    vk->pipeline_slots = slots ? slots * 2 : 256;
    vk->pipelines = xcalloc(vk->pipeline_slots, sizeof *vk->pipelines);
    for (uint32_t i = 0; i < slots; i++)
        if (old[i].key) {
            uint32_t at = (uint32_t)old[i].key & (vk->pipeline_slots - 1);
            while (vk->pipelines[at].key)
                at = (at + 1) & (vk->pipeline_slots - 1);
            vk->pipelines[at] = old[i];
        }
    free(old);
}

static void statistic_add(struct Device *dev, const struct Pipeline *p, const char *name, double value) {
    struct DeviceVk *vk = dev->vk;
    vk->statistics = xrealloc(vk->statistics, (vk->n_statistics + 1) * sizeof *vk->statistics);
    struct PipelineStatistic *s = &vk->statistics[vk->n_statistics++];
    *s = (struct PipelineStatistic){.kernel = p->kernel, .pipeline = vk->n_pipelines, .value = value};
    memcpy(s->spec, p->spec, sizeof s->spec);
    snprintf(s->name, sizeof s->name, "%.63s", name);
}

static void statistics_read(struct Device *dev, const struct Pipeline *p) {
    VkDevice device = dev->vk->device;
    PFN_vkGetPipelineExecutableStatisticsKHR query =
        (PFN_vkGetPipelineExecutableStatisticsKHR)vkGetDeviceProcAddr(device, "vkGetPipelineExecutableStatisticsKHR");
    VkPipelineExecutableInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = p->handle};
    VkPipelineExecutableStatisticKHR list[64];
    uint32_t n = 64;
    for (uint32_t i = 0; i < n; i++)
        list[i] = (VkPipelineExecutableStatisticKHR){.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    if (!query || query(device, &info, &n, list) < 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        const VkPipelineExecutableStatisticValueKHR *v = &list[i].value;
        switch (list[i].format) {
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
            statistic_add(dev, p, list[i].name, (double)v->i64);
            break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
            statistic_add(dev, p, list[i].name, (double)v->u64);
            break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
            statistic_add(dev, p, list[i].name, v->f64);
            break;
        default:
            statistic_add(dev, p, list[i].name, v->b32);
            break;
        }
    }
}

static uint32_t count_of(const char *text, const char *word) {
    uint32_t n = 0;
    for (; text && (text = strstr(text, word)) != NULL; text += strlen(word))
        n++;
    return n;
}

// The driver's texts about a pipeline, the machine code among them. *n of at most 16, each pData to be freed; false where it tells none.
enum { MAX_TEXTS = 16 };
static bool texts_read(struct Device *dev, const struct Pipeline *p,
                       VkPipelineExecutableInternalRepresentationKHR *list, uint32_t *n) {
    VkDevice device = dev->vk->device;
    PFN_vkGetPipelineExecutableInternalRepresentationsKHR query =
        (PFN_vkGetPipelineExecutableInternalRepresentationsKHR)vkGetDeviceProcAddr(
            device, "vkGetPipelineExecutableInternalRepresentationsKHR");
    VkPipelineExecutableInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = p->handle};
    *n = MAX_TEXTS;
    for (uint32_t i = 0; i < MAX_TEXTS; i++)
        list[i] = (VkPipelineExecutableInternalRepresentationKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR};
    if (!query || query(device, &info, n, list) < 0) {
        *n = 0;
        return false;
    }
    for (uint32_t i = 0; i < *n; i++)
        list[i].pData = list[i].isText ? xcalloc(list[i].dataSize + 1, 1) : NULL;
    return query(device, &info, n, list) >= 0;
}

// In machine code AMD's instructions are called v_wmma_..., NVIDIA's hmma..., Intel's dpas; products of pairs v_dot2..., where there is no matrix.
static void matrix_instructions_count(struct Device *dev, const struct Pipeline *p) {
    VkPipelineExecutableInternalRepresentationKHR list[MAX_TEXTS];
    uint32_t n, most = 0; // the same code may be told at several stages
    bool there = texts_read(dev, p, list, &n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t count = 0;
        for (const char *at = list[i].pData; there && at && (at = strcasestr(at, "mma")) != NULL; at++)
            count += at > (char *)list[i].pData && strchr("wWhH", at[-1]) != NULL;
        const char *other = KERNELS[p->kernel].needs & NEEDS_DOT2 ? "v_dot2" : "dpas";
        count += there ? count_of(list[i].pData, other) : 0;
        most = count > most ? count : most;
        free(list[i].pData);
    }
    statistic_add(dev, p, MATRIX_INSTRUCTIONS, most);
}

// Machine code is the last stage that a driver tells.
static void code_keep(struct Device *dev, const struct Pipeline *p) {
    VkPipelineExecutableInternalRepresentationKHR list[MAX_TEXTS];
    struct DeviceVk *vk = dev->vk;
    uint32_t n;
    vk->codes = xrealloc(vk->codes, vk->n_pipelines * sizeof *vk->codes);
    char **code = &vk->codes[vk->n_pipelines - 1];
    *code = NULL;
    bool there = texts_read(dev, p, list, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (there && list[i].pData) {
            free(*code);
            *code = list[i].pData;
        } else
            free(list[i].pData);
    }
}

const char *pipeline_code(const struct Device *dev, uint32_t pipeline) {
    return dev->keep_code && pipeline > 0 && pipeline <= dev->vk->n_pipelines ? dev->vk->codes[pipeline - 1] : NULL;
}

const struct PipelineStatistic *pipeline_statistics(const struct Device *dev, uint32_t *n) {
    *n = dev->vk->n_statistics;
    return dev->vk->statistics;
}

// The words of Mesa's drivers; what NVK spills to other registers ("Spills to reg") stays on the chip.
bool statistic_is_spill(const struct PipelineStatistic *s) {
    return s->value > 0 && ((strcasestr(s->name, "spill") && !strcasestr(s->name, "to reg")) ||
                            strcasestr(s->name, "scratch") || strcmp(s->name, "SLM size") == 0);
}

static VkPipeline pipeline_make(struct Device *dev, enum KernelId kernel, const uint32_t *spec, uint32_t n_spec,
                                bool based) {
    struct DeviceVk *vk = dev->vk;
    const struct KernelInfo *info = &KERNELS[kernel];
    if (!info->words) {
        fail("kernel %s is not in this build (the shader compiler did not know its extension)", info->name);
        dev->state = DEVICE_FAILED;
        return VK_NULL_HANDLE;
    }
    if (!vk->modules[kernel]) {
        VkShaderModuleCreateInfo m = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                      .codeSize = (size_t)info->n_words * 4,
                                      .pCode = info->words};
        if (!VK_MAKE(dev, vk->modules[kernel], vkCreateShaderModule(vk->device, &m, NULL, &vk->modules[kernel])))
            return VK_NULL_HANDLE;
    }
    VkSpecializationMapEntry entries[KERNEL_MAX_SPEC + 2];
    for (uint32_t i = 0; i < n_spec; i++)
        entries[i] = (VkSpecializationMapEntry){i, i * 4, 4};
    VkSpecializationInfo special = {n_spec, entries, n_spec * 4, spec};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo required = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = spec[1]};
    bool full = spec[0] % spec[1] == 0;
    VkPipelineCreateFlags capture = !vk->has_executable_properties ? 0 : VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
    if (capture && (dev->keep_code || (info->needs & NEEDS_INSTRUCTIONS)))
        capture |= VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
    VkComputePipelineCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = capture | (based ? VK_PIPELINE_CREATE_DISPATCH_BASE_BIT : 0),
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = vk->require_subgroup_size ? &required : NULL,
                  .flags = full ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = vk->modules[kernel],
                  .pName = "main",
                  .pSpecializationInfo = &special},
        .layout = vk->layouts[info->push]};
    VkPipeline pipeline = VK_NULL_HANDLE;
    snprintf(vk->last_label, sizeof vk->last_label, "%s", info->name);
    VkPipelineCache cache = info->words == KERNEL_CODE[kernel].words ? vk->cache : VK_NULL_HANDLE;
    if (!VK_TRY(dev, vkCreateComputePipelines(vk->device, cache, 1, &create, NULL, &pipeline)))
        return VK_NULL_HANDLE;
    return pipeline;
}

VkPipeline pipeline_get(struct Device *dev, enum KernelId kernel, const uint32_t *spec, uint32_t n_spec, bool based) {
    struct DeviceVk *vk = dev->vk;
    struct Pipeline want = {.kernel = kernel, .based = based, .words = KERNELS[kernel].words};
    memcpy(want.spec, spec, n_spec * sizeof *spec);
    want.key = hash_bytes(want.spec, sizeof want.spec, 2 * (uint64_t)kernel + based + 1) | 1;
    if (vk->n_pipelines * 2 >= vk->pipeline_slots)
        pipelines_grow(vk);
    uint32_t at = (uint32_t)want.key & (vk->pipeline_slots - 1);
    for (; vk->pipelines[at].key; at = (at + 1) & (vk->pipeline_slots - 1))
        if (vk->pipelines[at].key == want.key && vk->pipelines[at].kernel == kernel &&
            vk->pipelines[at].based == based && vk->pipelines[at].words == want.words &&
            memcmp(vk->pipelines[at].spec, want.spec, sizeof want.spec) == 0)
            return vk->pipelines[at].handle;
    want.handle = pipeline_make(dev, kernel, spec, n_spec, based);
    if (want.handle) {
        vk->pipelines[at] = want;
        vk->n_pipelines++;
    }
    if (want.handle && vk->has_executable_properties) {
        statistics_read(dev, &want);
        if (KERNELS[kernel].needs & NEEDS_INSTRUCTIONS)
            matrix_instructions_count(dev, &want);
    }
    if (want.handle && dev->keep_code)
        code_keep(dev, &want);
    return want.handle;
}
