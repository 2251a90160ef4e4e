// Finding and opening devices. A device is asked for what Vulkan 1.3 makes mandatory and nothing more; everything else is probed
// into a capability with a reason when it is off. One file, long as it is, because what is switched on must be what was probed.
#include "runtime/device.h"
#include "runtime/filemap.h"
#include "runtime/hostmem.h"
#include "runtime/vk.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *CAP_NAMES[CAP_COUNT] = {
#define CAP_NAME(name, text) #name,
    CAPS(CAP_NAME)
#undef CAP_NAME
};

const char *vk_result_name(int result) {
    switch (result) {
    case VK_SUCCESS:
        return "VK_SUCCESS";
    case VK_NOT_READY:
        return "VK_NOT_READY";
    case VK_TIMEOUT:
        return "VK_TIMEOUT";
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "VK_ERROR_OUT_OF_HOST_MEMORY";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "VK_ERROR_INITIALIZATION_FAILED";
    case VK_ERROR_DEVICE_LOST:
        return "VK_ERROR_DEVICE_LOST";
    case VK_ERROR_MEMORY_MAP_FAILED:
        return "VK_ERROR_MEMORY_MAP_FAILED";
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "VK_ERROR_LAYER_NOT_PRESENT";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "VK_ERROR_EXTENSION_NOT_PRESENT";
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return "VK_ERROR_FEATURE_NOT_PRESENT";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "VK_ERROR_INCOMPATIBLE_DRIVER";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "VK_ERROR_TOO_MANY_OBJECTS";
    case VK_ERROR_INVALID_SHADER_NV:
        return "VK_ERROR_INVALID_SHADER";
    default:
        return "VK_ERROR_UNKNOWN";
    }
}

static const char *remedy(int result) {
    switch (result) {
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "use a smaller --micro-batch or context, --method lora, a quantised model, or another --device";
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "free host memory";
    case VK_ERROR_DEVICE_LOST:
        return "the driver gave the device up: resume from the last checkpoint; if it happens again, a smaller "
               "--micro-batch or --context, VKMOE_SUBMIT_MS=10 or a newer driver may help";
    default:
        return "see `vkmoe devices`; update the driver or choose another --device";
    }
}

bool device_fail(struct Device *dev, int result, const char *call, const char *file, int line) {
    if (dev->state != DEVICE_OK)
        return false;
    dev->state = result == VK_ERROR_DEVICE_LOST ? DEVICE_LOST : DEVICE_FAILED;
    dev->no_room = result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY;
    int length = (int)strcspn(call, "(");
    const char *slash = strrchr(file, '/');
    const char *last = dev->vk && dev->vk->last_label[0] ? dev->vk->last_label : "nothing";
    return fail("%s: %.*s returned %s (%s:%d, last operation recorded: %s); %s", dev->name, length, call,
                vk_result_name(result), slash ? slash + 1 : file, line, last, remedy(result));
}

bool vk_try(struct Device *dev, VkResult result, const char *call, const char *file, int line) {
    if (dev->state != DEVICE_OK)
        return false;
    return result == VK_SUCCESS || device_fail(dev, result, call, file, line);
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    (void)types;
    struct DeviceVk *vk = user;
    // What the layer tells of its own settings ("forcing shaderInt16") is not about this program.
    bool of_the_layer = data->pMessageIdName && strncmp(data->pMessageIdName, "WARNING-Setting", 15) == 0;
    if (severity >= VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT && !of_the_layer) {
        vk->validation_messages++;
        fprintf(stderr, "validation: %s: %s\n", data->pMessageIdName ? data->pMessageIdName : "", data->pMessage);
    }
    return VK_FALSE;
}

// VKMOE_VALIDATE=core,sync,gpu loads the Khronos layer with those checks; a message makes device_close end the program.
static bool instance_make(VkInstance *instance, struct DeviceVk *vk) {
    uint32_t version = VK_API_VERSION_1_0;
    vkEnumerateInstanceVersion(&version);
    if (version < VK_API_VERSION_1_3)
        return fail("the Vulkan loader knows %u.%u only, 1.3 is needed; install a newer vulkan loader",
                    VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
    const char *validate = getenv("VKMOE_VALIDATE");
    bool on = validate && validate[0] && vk;
    VkValidationFeatureEnableEXT enables[2];
    uint32_t n_enables = 0;
    if (on && strstr(validate, "sync"))
        enables[n_enables++] = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    if (on && strstr(validate, "gpu"))
        enables[n_enables++] = VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT;
    VkValidationFeatureDisableEXT disables[1] = {VK_VALIDATION_FEATURE_DISABLE_CORE_CHECKS_EXT};
    VkValidationFeaturesEXT features = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                        .disabledValidationFeatureCount = on && !strstr(validate, "core"),
                                        .pDisabledValidationFeatures = disables,
                                        .enabledValidationFeatureCount = n_enables,
                                        .pEnabledValidationFeatures = enables};
    VkDebugUtilsMessengerCreateInfoEXT messenger = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
                                                    .pNext = &features,
                                                    .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                                                                       VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
                                                    .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                                                                   VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
                                                    .pfnUserCallback = on_message,
                                                    .pUserData = vk};
    const char *layer = "VK_LAYER_KHRONOS_validation";
    const char *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pApplicationName = "vkmoe", .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pNext = on ? &messenger : NULL,
                                 .pApplicationInfo = &app,
                                 .enabledLayerCount = on ? 1 : 0,
                                 .ppEnabledLayerNames = &layer,
                                 .enabledExtensionCount = on ? 2 : 0,
                                 .ppEnabledExtensionNames = extensions};
    VkResult result = vkCreateInstance(&info, NULL, instance);
    if (result != VK_SUCCESS)
        *instance = VK_NULL_HANDLE; // what a failed call leaves there would be destroyed at the end
    if (result == VK_ERROR_LAYER_NOT_PRESENT)
        return fail("VKMOE_VALIDATE is set, but %s is not installed (Debian: vulkan-validationlayers)", layer);
    if (result != VK_SUCCESS)
        return fail("no Vulkan: vkCreateInstance returned %s; install a Vulkan driver (Mesa's mesa-vulkan-drivers has "
                    "one for every CPU)",
                    vk_result_name(result));
    if (on) {
        PFN_vkCreateDebugUtilsMessengerEXT make =
            (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(*instance, "vkCreateDebugUtilsMessengerEXT");
        messenger.pNext = NULL;
        if (make)
            make(*instance, &messenger, NULL, &vk->messenger);
    }
    return true;
}

// VkPhysicalDeviceShaderMixedFloatDotProductFeaturesVALVE, spelt out because older headers lack it.
struct Dot2Features {
    VkStructureType sType;
    void *pNext;
    VkBool32 f16_to_f32, f16_to_f16, bf16, f8;
};
enum { DOT2_FEATURES = 1000673000 };
static const char DOT2_EXTENSION[] = "VK_VALVE_shader_mixed_float_dot_product";

struct Features {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceVulkan13Features v13;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV coopmat2;
    struct Dot2Features dot2;
};

static bool has_extension(VkPhysicalDevice physical, const char *name) {
    uint32_t n = 0;
    vkEnumerateDeviceExtensionProperties(physical, NULL, &n, NULL);
    VkExtensionProperties *list = xcalloc(n + 1, sizeof *list);
    vkEnumerateDeviceExtensionProperties(physical, NULL, &n, list);
    bool found = false;
    for (uint32_t i = 0; i < n && !found; i++)
        found = strcmp(list[i].extensionName, name) == 0;
    free(list);
    return found;
}

static void features_query(VkPhysicalDevice physical, struct Features *f) {
    const void **tail = (const void **)&f->v13.pNext;
    memset(f, 0, sizeof *f);
    f->core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    f->v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    f->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    f->v13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
    f->coopmat.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR;
    f->core.pNext = &f->v11;
    f->v11.pNext = &f->v12;
    f->v12.pNext = &f->v13;
    f->coopmat2.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV;
    if (has_extension(physical, "VK_KHR_cooperative_matrix")) {
        *tail = &f->coopmat;
        tail = (const void **)&f->coopmat.pNext;
    }
    if (has_extension(physical, "VK_NV_cooperative_matrix2")) {
        *tail = &f->coopmat2;
        tail = (const void **)&f->coopmat2.pNext;
    }
    f->dot2.sType = (VkStructureType)DOT2_FEATURES;
    if (has_extension(physical, DOT2_EXTENSION))
        *tail = &f->dot2;
    vkGetPhysicalDeviceFeatures2(physical, &f->core);
}

// Why a device cannot be used at all; empty: it can.
static void usable_why(VkPhysicalDevice physical, uint32_t api_version, char why[160]) {
    why[0] = 0;
    if (api_version < VK_API_VERSION_1_3) {
        snprintf(why, 160, "its driver has Vulkan %u.%u, 1.3 is needed", VK_API_VERSION_MAJOR(api_version),
                 VK_API_VERSION_MINOR(api_version));
        return;
    }
    struct Features f;
    features_query(physical, &f);
    const char *missing = !f.v12.bufferDeviceAddress    ? "bufferDeviceAddress"
                          : !f.v12.timelineSemaphore    ? "timelineSemaphore"
                          : !f.v13.synchronization2     ? "synchronization2"
                          : !f.v13.maintenance4         ? "maintenance4"
                          : !f.v13.subgroupSizeControl  ? "subgroupSizeControl"
                          : !f.v13.computeFullSubgroups ? "computeFullSubgroups"
                                                        : NULL;
    if (missing)
        snprintf(why, 160, "its driver lacks the Vulkan 1.3 feature %s", missing);
}

static int kind_rank(VkPhysicalDeviceType type) {
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 4;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 3;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return 0;
    default:
        return 1;
    }
}

static const char *kind_name(VkPhysicalDeviceType type) {
    static const char *const names[] = {"cpu", "other", "virtual", "integrated", "discrete"};
    return names[kind_rank(type)];
}

// Main memory that is free right now: what a CPU device may use without driving the machine into its swap.
static uint64_t host_available_bytes(void) { return hostmem_available_bytes(""); }

static uint64_t local_memory_bytes(VkPhysicalDevice physical, bool cpu) {
    VkPhysicalDeviceMemoryProperties memory;
    vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    uint64_t most = 0;
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++)
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            most = max_u64(most, memory.memoryHeaps[i].size);
    return cpu ? min_u64(most, host_available_bytes()) : most;
}

// What a card leaves us now of its own memory, beside a desktop and other programs, and of the main memory that it can read (a part of the machine's). Some
// is kept back: pipelines, command buffers and what others ask for while we run; a driver that gives more than there is moves it over the bus.
// `all`: the heaps together. RADV tells an integrated card's memory as two of them, whatever is free where.
static void budget_bytes(VkPhysicalDevice physical, uint64_t *local, uint64_t *host, uint64_t *all) {
    const uint64_t MOST_KEPT = UINT64_C(256) << 20;
    const VkMemoryPropertyFlags readable = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    bool told = has_extension(physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    VkPhysicalDeviceMemoryProperties2 m = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                           .pNext = told ? &budget : NULL};
    vkGetPhysicalDeviceMemoryProperties2(physical, &m);
    const VkPhysicalDeviceMemoryProperties *memory = &m.memoryProperties;
    uint64_t room[VK_MAX_MEMORY_HEAPS];
    *local = *host = *all = 0;
    for (uint32_t i = 0; i < memory->memoryHeapCount; i++) {
        uint64_t size = memory->memoryHeaps[i].size, left = told && budget.heapBudget[i] ? budget.heapBudget[i] : size;
        room[i] = min_u64(left, size) - min_u64(left, min_u64(size / 64, MOST_KEPT));
        *all += room[i];
        if (memory->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            *local = max_u64(*local, room[i]);
    }
    bool cached = false; // as memory.c chooses: the first that the processor caches, else the first
    for (uint32_t i = 0; i < memory->memoryTypeCount && !cached; i++) {
        VkMemoryPropertyFlags f = memory->memoryTypes[i].propertyFlags;
        cached = (f & readable) == readable && (f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
        if (cached || ((f & readable) == readable && !*host))
            *host = room[memory->memoryTypes[i].heapIndex];
    }
}

// What an integrated card has beside main memory: the part of it that the firmware keeps from the system.
static uint64_t carved_out_bytes(VkPhysicalDevice physical) {
    VkPhysicalDevicePCIBusInfoPropertiesEXT at = {.sType =
                                                      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &at};
    char pci[64];
    if (!has_extension(physical, VK_EXT_PCI_BUS_INFO_EXTENSION_NAME))
        return 0;
    vkGetPhysicalDeviceProperties2(physical, &p);
    snprintf(pci, sizeof pci, "%04x:%02x:%02x.%x", at.pciDomain, at.pciBus, at.pciDevice, at.pciFunction);
    return hostmem_carved_out_bytes("", pci);
}

static uint32_t physical_devices(VkInstance instance, VkPhysicalDevice *devices, uint32_t cap) {
    uint32_t n = cap;
    VkResult result = vkEnumeratePhysicalDevices(instance, &n, devices);
    return result == VK_SUCCESS || result == VK_INCOMPLETE ? n : 0;
}

static void entry_fill(VkPhysicalDevice physical, struct DeviceListEntry *e) {
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    VkPhysicalDeviceProperties plain;
    vkGetPhysicalDeviceProperties(physical, &plain);
    if (plain.apiVersion >= VK_API_VERSION_1_2)
        p.pNext = &driver;
    vkGetPhysicalDeviceProperties2(physical, &p);
    snprintf(e->name, sizeof e->name, "%s", p.properties.deviceName);
    if (p.pNext)
        snprintf(e->driver, sizeof e->driver, "%.100s %.140s", driver.driverName, driver.driverInfo);
    e->api_version = p.properties.apiVersion;
    e->rank = kind_rank(p.properties.deviceType);
    e->kind = kind_name(p.properties.deviceType);
    e->memory_bytes = local_memory_bytes(physical, p.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU);
    usable_why(physical, e->api_version, e->why);
    e->usable = e->why[0] == 0;
}

static void list_fill(VkInstance instance, struct DeviceList *list, VkPhysicalDevice devices[MOST_DEVICES]) {
    memset(list, 0, sizeof *list);
    list->n = physical_devices(instance, devices, MOST_DEVICES);
    for (uint32_t i = 0; i < list->n; i++)
        entry_fill(devices[i], &list->entry[i]);
}

bool device_list(struct DeviceList *list) {
    VkInstance instance;
    VkPhysicalDevice devices[MOST_DEVICES];
    if (!instance_make(&instance, NULL))
        return false;
    list_fill(instance, list, devices);
    vkDestroyInstance(instance, NULL);
    return true;
}

int device_pick(const struct DeviceList *list, const char *which) {
    char *end = NULL;
    long number = which ? strtol(which, &end, 10) : -1;
    bool is_number = which && which[0] && *end == 0 && number < MOST_DEVICES; // "4090" is in a name
    int best = -1, unusable = -1;
    char known[600] = "";
    size_t used = 0;
    for (int i = 0; i < (int)list->n; i++) {
        const struct DeviceListEntry *e = &list->entry[i];
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%d: %s%s%s", i ? ", " : "", i, e->name,
                                     e->usable ? "" : " (unusable: ", e->usable ? "" : e->why);
        if (!e->usable && used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, ")");
        bool named = is_number ? i == number : which && strcasestr(e->name, which);
        if (which && !named)
            continue;
        if (!e->usable && which) {
            fail("device %d (%s) cannot be used: %s", i, e->name, e->why);
            return -1;
        }
        int *of = e->usable ? &best : &unusable;
        if (*of < 0 || e->rank > list->entry[*of].rank)
            *of = i;
    }
    if (best < 0 && which)
        fail("no Vulkan device %s; there is %s", which, list->n ? known : "none");
    else if (best < 0)
        fail(
            "no usable Vulkan 1.3 device; there is %s (Mesa's lavapipe runs on every CPU: install mesa-vulkan-drivers)",
            list->n ? known : "none");
    else if (list->entry[best].rank == 0 && unusable >= 0 && list->entry[unusable].rank > 0)
        warn("runs on the processor (%s), because %s cannot be used: %s", list->entry[best].name,
             list->entry[unusable].name, list->entry[unusable].why);
    return best;
}

// A name in VKMOE_OFF that is none of ours switches nothing off: say so, or a test of a fallback tests nothing.
static void check_off(void) {
    static bool checked;
    const char *off = getenv("VKMOE_OFF");
    for (const char *at = checked || !off ? "" : off; *at; at += strspn(at, ",")) {
        size_t n = strcspn(at, ",");
        bool known = false;
        for (int i = 0; i < CAP_COUNT; i++)
            known |= strlen(CAP_NAMES[i]) == n && strncmp(CAP_NAMES[i], at, n) == 0;
        if (!known && n) // none before a comma is no mistake
            warn("VKMOE_OFF: there is no capability '%.*s'; `vkmoe devices` lists them", (int)n, at);
        at += n;
    }
    checked = true;
}

static bool switched_off(enum Cap cap) {
    const char *off = getenv("VKMOE_OFF");
    size_t length = strlen(CAP_NAMES[cap]);
    for (const char *at = off; at && (at = strstr(at, CAP_NAMES[cap])) != NULL; at += length)
        if ((at == off || at[-1] == ',') && (at[length] == 0 || at[length] == ','))
            return true;
    return false;
}

static void cap_set(struct Device *dev, enum Cap cap, bool there, const char *why_not) {
    struct CapStatus *s = &dev->caps[cap];
    s->on = there && !switched_off(cap);
    snprintf(s->why, sizeof s->why, "%s", s->on ? "" : there ? "switched off by VKMOE_OFF" : why_not);
}

// The f32-accumulating shape of matrix multiply at subgroup scope: bf16 operands first, then f16; then 16x16, then the largest.
static void coopmat_choose(struct Device *dev) {
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR query =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            dev->vk->instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    VkCooperativeMatrixPropertiesKHR p[128];
    for (uint32_t i = 0; i < 128; i++)
        p[i] = (VkCooperativeMatrixPropertiesKHR){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    uint32_t n = 128;
    if (!query || query(dev->vk->physical, &n, p) < 0)
        n = 0;
    uint64_t best = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (p[i].scope != VK_SCOPE_SUBGROUP_KHR || p[i].ResultType != VK_COMPONENT_TYPE_FLOAT32_KHR ||
            p[i].CType != VK_COMPONENT_TYPE_FLOAT32_KHR || p[i].AType != p[i].BType)
            continue;
        enum DType type = p[i].AType == VK_COMPONENT_TYPE_FLOAT16_KHR   ? DT_F16
                          : p[i].AType == VK_COMPONENT_TYPE_FLOAT32_KHR ? DT_F32
                          : (int)p[i].AType == COMPONENT_BFLOAT16       ? DT_BF16
                                                                        : DT_COUNT;
        bool off = (type == DT_BF16 && !dev->caps[CAP_bf16].on) || (type == DT_F16 && !dev->caps[CAP_f16].on);
        if (type == DT_COUNT || off)
            continue;
        uint64_t rank = (type == DT_BF16  ? 2u
                         : type == DT_F16 ? 1u
                                          : 0u) *
                            1000000u +
                        p[i].MSize * p[i].NSize * (p[i].MSize == 16 && p[i].NSize == 16 ? 100u : 1u);
        if (rank >= best) {
            best = rank;
            dev->coopmat = (struct CoopmatShape){p[i].MSize, p[i].NSize, p[i].KSize, type};
        }
    }
    for (uint32_t i = 0; i < n && dev->caps[CAP_f16].on; i++)
        if (p[i].scope == VK_SCOPE_SUBGROUP_KHR && p[i].ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
            p[i].CType == VK_COMPONENT_TYPE_FLOAT32_KHR && p[i].AType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
            p[i].BType == VK_COMPONENT_TYPE_FLOAT16_KHR && p[i].MSize == dev->coopmat.m &&
            p[i].NSize == dev->coopmat.n && p[i].KSize == dev->coopmat.k)
            dev->coopmat_f16 = true;
}

static bool divides(uint32_t part, uint32_t whole) { return part && whole % part == 0; }

// Why the matrices of a whole workgroup (gemm_cm2.comp) cannot be used; empty: they can.
static const char *coopmat2_why_not(const struct Device *dev, const struct Features *f) {
    const VkPhysicalDeviceCooperativeMatrix2FeaturesNV *have = &f->coopmat2;
    if (!has_extension(dev->vk->physical, "VK_NV_cooperative_matrix2"))
        return "no VK_NV_cooperative_matrix2";
    if (!have->cooperativeMatrixWorkgroupScope || !have->cooperativeMatrixFlexibleDimensions ||
        !have->cooperativeMatrixPerElementOperations || !have->cooperativeMatrixTensorAddressing ||
        !have->cooperativeMatrixBlockLoads || !have->cooperativeMatrixReductions || !have->cooperativeMatrixConversions)
        return "no matrices of a whole workgroup loaded from tensors, reduced and converted";
    if (!dev->caps[CAP_coopmat].on || dev->coopmat.type != DT_BF16 || !f->v11.storageBuffer16BitAccess)
        return "no matrices of bf16, or no 16-bit storage";
    PFN_vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV query =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV)vkGetInstanceProcAddr(
            dev->vk->instance, "vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV");
    VkCooperativeMatrixFlexibleDimensionsPropertiesNV p[128];
    for (uint32_t i = 0; i < 128; i++)
        p[i] = (VkCooperativeMatrixFlexibleDimensionsPropertiesNV){
            .sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_FLEXIBLE_DIMENSIONS_PROPERTIES_NV};
    uint32_t n = 128;
    if (!query || query(dev->vk->physical, &n, p) < 0)
        n = 0;
    bool of_128 = false,
         of_256 = false; // a way of 64 (ops_linear.c) is taken where its products are those of the others
    for (uint32_t i = 0; i < n; i++)
        if ((int)p[i].scope == SCOPE_WORKGROUP && (int)p[i].AType == COMPONENT_BFLOAT16 &&
            (int)p[i].BType == COMPONENT_BFLOAT16 && p[i].CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
            p[i].ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && divides(p[i].MGranularity, 32) &&
            divides(p[i].NGranularity, 64) && divides(p[i].KGranularity, 32)) {
            of_128 = of_128 || p[i].workgroupInvocations == 128;
            of_256 = of_256 || p[i].workgroupInvocations == 256;
        }
    return of_128 && of_256 ? "" : "no tiles of bf16 for 128 and for 256 threads";
}

static void caps_probe(struct Device *dev, const struct Features *f) {
    check_off();
    VkPhysicalDevice physical = dev->vk->physical;
    VkPhysicalDeviceSubgroupProperties sub = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &sub};
    vkGetPhysicalDeviceProperties2(physical, &p);
    VkSubgroupFeatureFlags wanted =
        VK_SUBGROUP_FEATURE_ARITHMETIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT;
    cap_set(dev, CAP_subgroup,
            (sub.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) && (sub.supportedOperations & wanted) == wanted,
            "no subgroup arithmetic and shuffles in compute shaders");
    cap_set(dev, CAP_f16, f->v12.shaderFloat16 && f->v11.storageBuffer16BitAccess,
            "no shaderFloat16 or 16-bit storage");
    cap_set(dev, CAP_int64, f->core.features.shaderInt64, "no shaderInt64");
    cap_set(dev, CAP_bf16, has_extension(physical, "VK_KHR_shader_bfloat16"), "no VK_KHR_shader_bfloat16");
    cap_set(dev, CAP_dot2, dev->caps[CAP_f16].on && f->dot2.f16_to_f32,
            dev->caps[CAP_f16].on ? "no VK_VALVE_shader_mixed_float_dot_product" : "no f16");
    bool coopmat = has_extension(physical, "VK_KHR_cooperative_matrix") && f->coopmat.cooperativeMatrix;
    cap_set(dev, CAP_coopmat, coopmat && f->v12.vulkanMemoryModel, "no VK_KHR_cooperative_matrix");
    if (coopmat && dev->vendor_id == 0x8086 && dev->limits.subgroup_min < 16) // llama.cpp, issue 24404
        cap_set(dev, CAP_coopmat, false,
                "before Intel's Xe2 its driver has been seen to be far slower with matrix units");
    if (dev->caps[CAP_coopmat].on) {
        coopmat_choose(dev);
        if (dev->coopmat.m == 0)
            cap_set(dev, CAP_coopmat, false, "no matrix shape with f32 accumulation at subgroup scope");
    }
    const char *why_not = coopmat2_why_not(dev, f);
    cap_set(dev, CAP_coopmat2, !why_not[0], why_not);
    cap_set(dev, CAP_coopmat_back, dev->caps[CAP_coopmat].on, "no coopmat");
    cap_set(dev, CAP_eight,
            dev->is_cpu && dev->limits.subgroup_size == 8 && dev->caps[CAP_subgroup].on &&
                f->core.features.shaderInt16 && f->core.features.shaderInt64 && f->v12.shaderInt8 &&
                f->v11.storageBuffer16BitAccess && f->v12.storageBuffer8BitAccess,
            "no processor of eight lanes with numbers of 8, 16 and 64 bits");
    cap_set(dev, CAP_host_visible, dev->is_cpu || dev->is_integrated, "memory of its own behind a bus");
    const char *map_why_not = !(dev->is_cpu || dev->is_integrated) ? "memory of its own behind a bus"
                              : dev->limits.import_alignment == 0  ? "no VK_EXT_external_memory_host"
                                                                   : "";
    cap_set(dev, CAP_file_map, !map_why_not[0], map_why_not);
    cap_set(dev, CAP_timestamps, dev->limits.timestamp_ns > 0, "no timestamps on the compute queue");
}

// A limit in MiB from the environment; none where it is not set.
static uint64_t limit_bytes(const char *name) {
    const char *text = getenv(name);
    char *end;
    if (!text || !text[0])
        return UINT64_MAX;
    uint64_t mib = strtoull(text, &end, 10);
    if (*end == 0 && text[0] != '-' && mib > 0 && mib < UINT64_MAX >> 20)
        return mib << 20;
    warn("%s=%s: a whole number of MiB above 0 is expected; it is not used", name, text);
    return UINT64_MAX;
}

// A desktop waits for the submit that is under way, and drivers end one that takes seconds.
static void submits_read(struct Device *dev) {
    const char *text = getenv("VKMOE_SUBMIT_MS");
    char *end = NULL;
    double ms = text && text[0] ? strtod(text, &end) : 0;
    bool given = end && *end == 0 && ms >= 0.001 && ms <= 1000;
    if (text && text[0] && !given)
        warn("VKMOE_SUBMIT_MS=%s: milliseconds from 0.001 to 1000 are expected; it is not used", text);
    dev->submit_ms = given ? ms : 50;
    dev->cuts_dispatches = given || !dev->is_cpu;
}

static void limits_read(struct Device *dev) {
    VkPhysicalDeviceVulkan13Properties v13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES};
    VkPhysicalDeviceVulkan11Properties v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES,
                                              .pNext = &v13};
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
                                               .pNext = &v11};
    VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &driver};
    vkGetPhysicalDeviceProperties2(dev->vk->physical, &p);
    const VkPhysicalDeviceLimits *l = &p.properties.limits;
    snprintf(dev->name, sizeof dev->name, "%s", p.properties.deviceName);
    snprintf(dev->driver, sizeof dev->driver, "%.100s %.140s", driver.driverName, driver.driverInfo);
    dev->vendor_id = p.properties.vendorID;
    dev->device_id = p.properties.deviceID;
    dev->api_version = p.properties.apiVersion;
    dev->driver_version = p.properties.driverVersion;
    // RADV's driverUUID is one for all its builds; what the driver's own caches go by is not.
    uint64_t info = hash_bytes(dev->driver, strlen(dev->driver), 0);
    for (int i = 0; i < 16; i++)
        dev->driver_uuid[i] = v11.driverUUID[i] ^ p.properties.pipelineCacheUUID[i] ^ (uint8_t)(info >> (i % 8 * 8));
    memcpy(dev->device_uuid, v11.deviceUUID, 16);
    dev->is_cpu = p.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    dev->is_integrated = p.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    struct DeviceLimits *out = &dev->limits;
    dev->vk->require_subgroup_size = (v13.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
    out->subgroup_size = v11.subgroupSize;
    out->subgroup_min = dev->vk->require_subgroup_size ? v13.minSubgroupSize : v11.subgroupSize;
    out->subgroup_max = dev->vk->require_subgroup_size ? v13.maxSubgroupSize : v11.subgroupSize;
    // Intel's compilers choose 8, 16 or 32 per shader unless told. The least is what its matrix units take, and leaves a lane the most registers.
    if (dev->vendor_id == 0x8086)
        out->subgroup_size = out->subgroup_min;
    const char *forced = getenv("VKMOE_SUBGROUP_SIZE");
    char *end = NULL;
    unsigned long want = forced && forced[0] != '-' ? strtoul(forced, &end, 10) : 0;
    if (end && *end == 0 && want >= out->subgroup_min && want <= out->subgroup_max && (want & (want - 1)) == 0)
        out->subgroup_size = (uint32_t)want;
    else if (forced && forced[0])
        warn("VKMOE_SUBGROUP_SIZE=%s: a power of two from %u to %u is expected; it is not used", forced,
             out->subgroup_min, out->subgroup_max);
    out->shared_bytes = l->maxComputeSharedMemorySize;
    for (int i = 0; i < 3; i++)
        out->max_groups[i] = l->maxComputeWorkGroupCount[i];
    out->max_invocations = l->maxComputeWorkGroupInvocations;
    dev->vk->max_buffer_bytes = v13.maxBufferSize;
    out->max_allocation_bytes = v13.maxBufferSize;
    VkPhysicalDeviceMaintenance3Properties m3 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
    VkPhysicalDeviceProperties2 q = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &m3};
    vkGetPhysicalDeviceProperties2(dev->vk->physical, &q);
    out->max_allocation_bytes = min_u64(out->max_allocation_bytes, m3.maxMemoryAllocationSize);
    out->max_allocation_bytes = min_u64(out->max_allocation_bytes, limit_bytes("VKMOE_MAX_ALLOCATION_MIB"));
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT import = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
    q.pNext = &import;
    if (has_extension(dev->vk->physical, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME)) {
        vkGetPhysicalDeviceProperties2(dev->vk->physical, &q);
        out->import_alignment = max_u64(import.minImportedHostPointerAlignment, (uint64_t)sysconf(_SC_PAGESIZE));
    }
    out->heap_bytes = min_u64(local_memory_bytes(dev->vk->physical, dev->is_cpu),
                              limit_bytes("VKMOE_MEMORY_MIB")); // a share of a card
    out->memory_bytes = out->heap_bytes;
    uint64_t available = host_available_bytes();
    out->host_bytes = available;
    out->both_bytes = dev->is_cpu ? available : UINT64_MAX;
    if (!dev->is_cpu) {
        uint64_t local, host, all;
        budget_bytes(dev->vk->physical, &local, &host, &all);
        out->memory_bytes = min_u64(out->memory_bytes, local);
        out->host_bytes = min_u64(out->host_bytes, host);
        if (dev->is_integrated)
            out->both_bytes = min_u64(all, available + min_u64(carved_out_bytes(dev->vk->physical), ~available));
    }
    out->timestamp_ns = l->timestampPeriod;
}

static bool queue_find(struct Device *dev) {
    VkQueueFamilyProperties families[16];
    uint32_t n = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(dev->vk->physical, &n, families);
    int best = -1;
    for (uint32_t i = 0; i < n; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)
            // A family without graphics is the async compute queue: nothing of a desktop waits behind our work there.
            if (best < 0 || !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT))
                best = (int)i;
    if (best < 0)
        return fail("%s has no compute queue", dev->name);
    dev->vk->family = (uint32_t)best;
    uint32_t bits = families[best].timestampValidBits;
    dev->vk->timestamp_mask = bits < 64 ? (UINT64_C(1) << bits) - 1 : UINT64_MAX;
    if (bits == 0)
        dev->limits.timestamp_ns = 0;
    return true;
}

static bool logical_device_make(struct Device *dev, const struct Features *have) {
    struct DeviceVk *vk = dev->vk;
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = vk->family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    const char *extensions[8];
    uint32_t n = 0;
    struct Features want = {0};
    want.core.sType = have->core.sType, want.v11.sType = have->v11.sType, want.v12.sType = have->v12.sType;
    want.v13.sType = have->v13.sType, want.coopmat.sType = have->coopmat.sType;
    want.core.pNext = &want.v11, want.v11.pNext = &want.v12, want.v12.pNext = &want.v13;
    // The validation layers want it as well (GPU-AV).
    want.core.features.shaderInt64 = have->core.features.shaderInt64;
    want.v12.bufferDeviceAddress = VK_TRUE;
    want.v12.timelineSemaphore = VK_TRUE;
    want.v12.vulkanMemoryModel = have->v12.vulkanMemoryModel;
    want.v12.vulkanMemoryModelDeviceScope = have->v12.vulkanMemoryModelDeviceScope;
    want.v12.shaderFloat16 = have->v12.shaderFloat16;
    want.v11.storageBuffer16BitAccess = have->v11.storageBuffer16BitAccess;
    if (device_can(dev, CAP_eight))
        want.core.features.shaderInt16 = want.v12.shaderInt8 = want.v12.storageBuffer8BitAccess = VK_TRUE;
    want.v13.synchronization2 = VK_TRUE;
    want.v13.maintenance4 = VK_TRUE;
    want.v13.subgroupSizeControl = VK_TRUE;
    want.v13.computeFullSubgroups = VK_TRUE;
    const void **tail = (const void **)&want.v13.pNext;
    if (device_can(dev, CAP_coopmat)) {
        extensions[n++] = "VK_KHR_cooperative_matrix";
        want.coopmat.cooperativeMatrix = VK_TRUE;
        *tail = &want.coopmat;
        tail = (const void **)&want.coopmat.pNext;
    }
    // VkPhysicalDeviceShaderBfloat16FeaturesKHR, spelt out because older headers lack it.
    struct {
        VkStructureType sType;
        void *pNext;
        VkBool32 type, dot, coopmat;
    } bf16 = {(VkStructureType)1000141000, NULL, VK_TRUE, VK_FALSE, device_can(dev, CAP_coopmat)};
    if (device_can(dev, CAP_bf16) && dev->coopmat.type == DT_BF16) {
        extensions[n++] = "VK_KHR_shader_bfloat16";
        *tail = &bf16;
        tail = (const void **)&bf16.pNext;
    }
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV coopmat2 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV,
        .cooperativeMatrixWorkgroupScope = VK_TRUE,
        .cooperativeMatrixFlexibleDimensions = VK_TRUE,
        .cooperativeMatrixReductions = VK_TRUE,
        .cooperativeMatrixConversions = VK_TRUE,
        .cooperativeMatrixPerElementOperations = VK_TRUE,
        .cooperativeMatrixTensorAddressing = VK_TRUE,
        .cooperativeMatrixBlockLoads = VK_TRUE};
    if (device_can(dev, CAP_coopmat2)) {
        extensions[n++] = "VK_NV_cooperative_matrix2";
        *tail = &coopmat2;
        tail = (const void **)&coopmat2.pNext;
    }
    struct Dot2Features dot2 = {.sType = (VkStructureType)DOT2_FEATURES, .f16_to_f32 = VK_TRUE};
    if (device_can(dev, CAP_dot2)) {
        extensions[n++] = DOT2_EXTENSION;
        *tail = &dot2;
        tail = (const void **)&dot2.pNext;
    }
    if (device_can(dev, CAP_file_map))
        extensions[n++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pipelineExecutableInfo = VK_TRUE};
    if (getenv("VKMOE_STATIC") && has_extension(vk->physical, "VK_KHR_pipeline_executable_properties")) {
        extensions[n++] = "VK_KHR_pipeline_executable_properties";
        *tail = &executable;
        vk->has_executable_properties = true;
    }
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = &want.core,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .enabledExtensionCount = n,
                               .ppEnabledExtensionNames = extensions};
    if (!VK_MAKE(dev, vk->device, vkCreateDevice(vk->physical, &info, NULL, &vk->device)))
        return false;
    vkGetDeviceQueue(vk->device, vk->family, 0, &vk->queue);
    if (device_can(dev, CAP_file_map))
        vk->host_pointer_properties = (PFN_vkGetMemoryHostPointerPropertiesEXT)vkGetDeviceProcAddr(
            vk->device, "vkGetMemoryHostPointerPropertiesEXT");
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = vk->family};
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    return VK_MAKE(dev, vk->pool, vkCreateCommandPool(vk->device, &pool, NULL, &vk->pool)) &&
           VK_MAKE(dev, vk->timeline, vkCreateSemaphore(vk->device, &semaphore, NULL, &vk->timeline));
}

// map_files: whether mapped files may be tried. False afterwards: the trial went wrong, and the device may have gone with it.
static bool open_once(struct Device *dev, const char *which, bool *map_files) {
    static const char NO_FILES[] = "the driver takes no mapped files";
    memset(dev, 0, sizeof *dev);
    dev->force_kernel = -1;
    snprintf(dev->name, sizeof dev->name, "Vulkan");
    struct DeviceVk *vk = dev->vk = xcalloc(1, sizeof *vk);
    if (!which)
        which = getenv("VKMOE_DEVICE");
    VkPhysicalDevice devices[MOST_DEVICES];
    struct DeviceList list;
    int chosen = -1;
    if (instance_make(&vk->instance, vk)) {
        list_fill(vk->instance, &list, devices);
        chosen = device_pick(&list, which && which[0] ? which : NULL);
    }
    if (chosen < 0) {
        device_close(dev);
        return false;
    }
    dev->index = (uint32_t)chosen;
    vk->physical = devices[chosen];
    limits_read(dev);
    submits_read(dev);
    vkGetPhysicalDeviceMemoryProperties(vk->physical, &vk->memory);
    struct Features features;
    features_query(vk->physical, &features);
    bool ok = queue_find(dev);
    if (ok) {
        caps_probe(dev, &features);
        if (!*map_files)
            cap_set(dev, CAP_file_map, false, NO_FILES);
        dev->gflops = dev->is_cpu ? 15 : dev->is_integrated ? 500 : device_can(dev, CAP_coopmat) ? 20000 : 4000;
        dev->pace = 1;
        dev->gbytes_per_s = dev->is_cpu ? 5 : dev->is_integrated ? 30 : 200;
        ok = logical_device_make(dev, &features) && kernels_open(dev);
        if (ok && device_can(dev, CAP_file_map)) {
            bool before = fail_quiet(true);
            *map_files = filemap_works(dev);
            fail_quiet(before);
            if (!*map_files)
                cap_set(dev, CAP_file_map, false, NO_FILES);
        }
        ok = ok && dev->state == DEVICE_OK;
    }
    if (!ok)
        device_close(dev);
    return ok;
}

bool device_open(struct Device *dev, const char *which) {
    bool map_files = true;
    if (open_once(dev, which, &map_files))
        return true;
    // A driver may refuse a mapped file when it is first read, and give the device up for it.
    return !map_files && open_once(dev, which, &map_files);
}

void device_open_dry(struct Device *dev, const struct Device *like) {
    memset(dev, 0, sizeof *dev);
    if (like) {
        *dev = *like;
        dev->vk = NULL;
        dev->tuning = NULL;
        dev->allocated_bytes = dev->peak_bytes = dev->host_bytes = dev->mapped_bytes = 0;
    } else {
        dev->limits = (struct DeviceLimits){.subgroup_size = 32,
                                            .subgroup_min = 32,
                                            .subgroup_max = 32,
                                            .shared_bytes = 32768,
                                            .max_groups = {UINT32_MAX, 65535, 65535},
                                            .max_invocations = 1024,
                                            .max_allocation_bytes = UINT64_C(4) << 30,
                                            .heap_bytes = UINT64_MAX,
                                            .memory_bytes = UINT64_MAX,
                                            .host_bytes = UINT64_MAX,
                                            .both_bytes = UINT64_MAX};
        for (int i = 0; i < CAP_COUNT; i++)
            dev->caps[i].on = i == CAP_subgroup || i == CAP_int64;
        dev->gflops = 4000, dev->gbytes_per_s = 200, dev->pace = 1;
    }
    dev->state = DEVICE_OK;
    dev->force_kernel = -1;
    dev->is_dry = true;
    snprintf(dev->name, sizeof dev->name, "memory plan");
    kernels_refresh(dev);
}

void device_switch(struct Device *dev, enum Cap cap, bool on) {
    cap_set(dev, cap, on, "switched off");
    kernels_refresh(dev);
}

uint64_t device_submitted(const struct Device *dev) { return dev->is_dry ? 0 : dev->vk->submitted; }

bool device_wait_for(struct Device *dev, uint64_t submitted) {
    if (dev->is_dry)
        return true;
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &dev->vk->timeline,
                                .pValues = &submitted};
    return VK_TRY(dev, vkWaitSemaphores(dev->vk->device, &info, UINT64_MAX));
}

bool device_wait(struct Device *dev) {
    if (!device_wait_for(dev, device_submitted(dev)))
        return false;
    if (!dev->is_dry)
        programs_settle(dev);
    return true;
}

void device_idle(struct Device *dev) {
    if (!device_wait(dev))
        vkDeviceWaitIdle(dev->vk->device); // after a loss it returns at once
}

void device_close(struct Device *dev) {
    struct DeviceVk *vk = dev->vk;
    if (!vk)
        return;
    uint32_t messages = vk->validation_messages;
    if (vk->device) {
        vkDeviceWaitIdle(vk->device); // also after a loss: it returns at once then
        block_free(dev, &vk->staging);
        for (int i = 0; i < UPLOAD_SLOTS; i++)
            block_free(dev, &vk->ring[i].block);
        kernels_close(dev);
        if (vk->timeline)
            vkDestroySemaphore(vk->device, vk->timeline, NULL);
        if (vk->pool)
            vkDestroyCommandPool(vk->device, vk->pool, NULL);
        vkDestroyDevice(vk->device, NULL);
        messages = vk->validation_messages;
    }
    if (vk->instance) {
        PFN_vkDestroyDebugUtilsMessengerEXT destroy =
            (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(vk->instance, "vkDestroyDebugUtilsMessengerEXT");
        if (vk->messenger && destroy)
            destroy(vk->instance, vk->messenger, NULL);
        vkDestroyInstance(vk->instance, NULL);
    }
    free(vk->pipelines);
    free(vk->blocks);
    free(vk->pending);
    free(vk->statistics);
    free(vk);
    free(dev->tuning);
    dev->vk = NULL, dev->tuning = NULL;
    if (messages) {
        fprintf(stderr, "vkmoe: %u validation messages\n", messages);
        exit(3);
    }
}
