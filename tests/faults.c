// See faults.h. The linker turns each call NAME of the rooms into __wrap_NAME, and __real_NAME into the function itself.
#include "faults.h"
#include "runtime/base.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

// What the layer itself asks of the heap goes past it.
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);

// ---- The plan

enum { MAX_TRACE = 1 << 20, MAX_STACK = 32 };
static struct FaultPlan plan;
static _Atomic uint64_t counted;
static _Atomic bool fired;
static const char *fired_name = "";
static int fired_result;
static struct FaultCall *trace;

void fault_begin(const struct FaultPlan *p) {
    plan = *p;
    counted = 0;
    fired = false;
    fired_name = "";
    fired_result = 0;
    if (plan.trace && !trace)
        trace = __real_calloc(MAX_TRACE, sizeof *trace);
}

uint64_t fault_end(void) {
    plan.kind = FAULT_NONE;
    return counted;
}

bool fault_fired(void) { return fired; }
const char *fault_fired_name(void) { return fired_name; }
int fault_fired_result(void) { return fired_result; }
const struct FaultCall *fault_trace(void) { return trace; }

// Whether this call fails.
static bool strikes(enum FaultKind kind, const char *name, uint32_t n_results) {
    if (plan.kind != kind || (plan.only && strcmp(plan.only, name) != 0))
        return false;
    uint64_t n = atomic_fetch_add(&counted, 1) + 1;
    if (plan.trace && n <= MAX_TRACE) {
        void *stack[MAX_STACK];
        int depth = backtrace(stack, MAX_STACK);
        trace[n - 1] = (struct FaultCall){name, n_results, hash_bytes(stack, (size_t)depth * sizeof *stack, 0)};
    }
    if (plan.at == 0 || (n != plan.at && !(fired && plan.lasting && (kind != FAULT_VULKAN || fired_name == name))))
        return false;
    if (!fired)
        fired_name = name;
    fired = true;
    return true;
}

static bool no_memory(const char *name) {
    if (!strikes(FAULT_MEMORY, name, 0))
        return false;
    errno = ENOMEM;
    return true;
}

// ---- Files

enum { MAX_FILES = 1024 };
static char watched[512];
static bool logging;
static char *open_path[MAX_FILES]; // by descriptor, below the watched folder
static uint64_t told[MAX_FILES];   // bytes of a stream's file that are in the log
static struct FileStep *steps;
static size_t n_steps, step_slots;

static char *copy_of(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(__real_malloc(bytes), text, bytes);
}

// NULL where it is not below the watched folder.
static const char *below(const char *path) {
    size_t length = strlen(watched);
    if (!length || strncmp(path, watched, length) != 0 || (path[length] != '/' && path[length] != 0))
        return NULL;
    return path[length] ? path + length + 1 : path + length;
}

void fault_watch(const char *folder, bool log) {
    snprintf(watched, sizeof watched, "%s", folder ? folder : "");
    logging = log;
    for (size_t i = 0; folder && i < n_steps; i++) {
        free(steps[i].path);
        free(steps[i].to);
        free(steps[i].data);
    }
    n_steps = folder ? 0 : n_steps;
    for (int fd = 0; fd < MAX_FILES; fd++) {
        free(open_path[fd]);
        open_path[fd] = NULL;
    }
}

static struct FileStep *step_add(enum FileChange change, const char *path) {
    if (n_steps == step_slots) {
        step_slots = step_slots ? step_slots * 2 : 256;
        steps = __real_realloc(steps, step_slots * sizeof *steps);
    }
    steps[n_steps] = (struct FileStep){.change = change, .path = copy_of(path)};
    return &steps[n_steps++];
}

static void log_change(enum FileChange change, const char *path) {
    if (logging)
        step_add(change, path);
}

static void log_write(const char *path, uint64_t offset, const void *data, size_t bytes) {
    if (!logging || bytes == 0)
        return;
    struct FileStep *s = step_add(FILE_WRITE, path);
    s->offset = offset;
    s->bytes = bytes;
    s->data = memcpy(__real_malloc(bytes), data, bytes);
}

void fault_mark(uint64_t mark) {
    if (logging)
        step_add(FILE_MARK, "")->mark = mark;
}

const struct FileStep *fault_log(size_t *n) {
    *n = n_steps;
    return steps;
}

static const char *path_of(int fd) { return fd >= 0 && fd < MAX_FILES ? open_path[fd] : NULL; }

static void opened(int fd, const char *path, bool was_there, bool cut) {
    struct stat st;
    if (fd < 0 || fd >= MAX_FILES)
        return;
    free(open_path[fd]);
    open_path[fd] = copy_of(path);
    told[fd] = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    if (!was_there)
        log_change(FILE_LINK, path);
    else if (cut)
        log_change(FILE_CUT, path);
}

static void closed(int fd) {
    if (!path_of(fd))
        return;
    free(open_path[fd]);
    open_path[fd] = NULL;
}

static bool file_fails(const char *name) {
    if (!strikes(FAULT_FILE, name, 0) || plan.error == FAULT_SHORT)
        return false;
    errno = plan.error;
    return true;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    const char *name = below(path);
    if (name && file_fails("open"))
        return -1;
    bool was_there = name && access(path, F_OK) == 0;
    int fd = __real_open(path, flags, mode);
    if (name && fd >= 0)
        opened(fd, name, was_there, (flags & O_TRUNC) != 0);
    return fd;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) { // a descriptor is closed whatever close() says
    bool fails = path_of(fd) && file_fails("close");
    closed(fd);
    int result = __real_close(fd);
    if (fails)
        errno = plan.error;
    return fails ? -1 : result;
}

ssize_t __real_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_write(int fd, const void *data, size_t bytes) {
    const char *path = path_of(fd);
    if (path && strikes(FAULT_FILE, "write", 0)) {
        if (plan.error != FAULT_SHORT) {
            errno = plan.error;
            return -1;
        }
        bytes = (bytes + 1) / 2;
    }
    off_t at = path && logging ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t put = __real_write(fd, data, bytes);
    if (path && put > 0)
        log_write(path, (uint64_t)at, data, (size_t)put);
    return put;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd) {
    const char *path = path_of(fd);
    if (!path)
        return __real_fsync(fd);
    if (file_fails("fsync"))
        return -1;
    log_change(FILE_SYNC, path);
    return 0; // the disk itself has no part in these tests
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    const char *a = below(from), *b = below(to);
    if (a && b && file_fails("rename"))
        return -1;
    int result = __real_rename(from, to);
    if (result == 0 && a && b && logging)
        step_add(FILE_RENAME, a)->to = copy_of(b);
    return result;
}

#define PATH_CALL(name, params, args, change)                                                                          \
    int __real_##name params;                                                                                          \
    int __wrap_##name params;                                                                                          \
    int __wrap_##name params {                                                                                         \
        const char *at = below(path);                                                                                  \
        if (at && file_fails(#name))                                                                                   \
            return -1;                                                                                                 \
        int result = __real_##name args;                                                                               \
        if (at && result == 0)                                                                                         \
            log_change(change, at);                                                                                    \
        return result;                                                                                                 \
    }
PATH_CALL(unlink, (const char *path), (path), FILE_UNLINK)
PATH_CALL(rmdir, (const char *path), (path), FILE_UNLINK)
PATH_CALL(mkdir, (const char *path, mode_t mode), (path, mode), FILE_FOLDER)

DIR *__real_opendir(const char *path);
DIR *__wrap_opendir(const char *path);
DIR *__wrap_opendir(const char *path) { return below(path) && file_fails("opendir") ? NULL : __real_opendir(path); }

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode) {
    const char *name = below(path);
    if (name && file_fails("fopen"))
        return NULL;
    bool was_there = name && access(path, F_OK) == 0;
    FILE *f = __real_fopen(path, mode);
    if (name && f)
        opened(fileno(f), name, was_there, mode[0] == 'w');
    return f;
}

// What a stream has put into its file since the last look.
static void log_stream(FILE *f) {
    int fd = fileno(f);
    struct stat st;
    char *name = path_of(fd) ? xsprintf("%s/%s", watched, path_of(fd)) : NULL;
    int in = name && logging ? __real_open(name, O_RDONLY) : -1;
    if (in >= 0 && fstat(in, &st) == 0 && (uint64_t)st.st_size > told[fd]) {
        size_t bytes = (size_t)st.st_size - told[fd];
        uint8_t *data = __real_malloc(bytes);
        if (pread(in, data, bytes, (off_t)told[fd]) == (ssize_t)bytes)
            log_write(path_of(fd), told[fd], data, bytes);
        told[fd] += bytes;
        free(data);
    }
    if (in >= 0)
        __real_close(in);
    free(name);
}

int __real_fflush(FILE *f);
int __wrap_fflush(FILE *f);
int __wrap_fflush(FILE *f) {
    if (!f || !path_of(fileno(f)))
        return __real_fflush(f);
    if (file_fails("fflush"))
        return EOF;
    int result = __real_fflush(f);
    log_stream(f);
    return result;
}

int __real_fclose(FILE *f);
int __wrap_fclose(FILE *f);
int __wrap_fclose(FILE *f) {
    if (fileno(f) < 0 && no_memory("fclose")) { // a stream into memory: its last bytes find no room
        __real_fclose(f);
        errno = ENOMEM;
        return EOF;
    }
    bool ours = path_of(fileno(f)) != NULL, fails = ours && file_fails("fclose");
    if (ours) {
        __real_fflush(f);
        log_stream(f);
        closed(fileno(f));
    }
    int result = __real_fclose(f);
    if (fails)
        errno = plan.error;
    return fails ? EOF : result;
}

// ---- Memory

void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) { return no_memory("malloc") ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes) { return no_memory("calloc") ? NULL : __real_calloc(n, bytes); }
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes) { return no_memory("realloc") ? NULL : __real_realloc(old, bytes); }
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return no_memory("mmap") ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, fd, offset);
}
FILE *__real_open_memstream(char **text, size_t *bytes);
FILE *__wrap_open_memstream(char **text, size_t *bytes);
FILE *__wrap_open_memstream(char **text, size_t *bytes) {
    return no_memory("open_memstream") ? NULL : __real_open_memstream(text, bytes);
}
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    return no_memory("pthread_create") ? EAGAIN : __real_pthread_create(thread, attributes, start, argument);
}

// ---- Vulkan

static bool lost; // until the device is destroyed, as the specification has it

static VkResult vulkan_result(const char *name, const int *results, uint32_t n) {
    if (!strikes(FAULT_VULKAN, name, n) || (uint32_t)plan.error >= n)
        return VK_SUCCESS;
    fired_result = results[plan.error];
    lost = lost || fired_result == VK_ERROR_DEVICE_LOST;
    return (VkResult)fired_result;
}

// A call that fails is not made. `spoil`: what it leaves in its output, which the specification leaves open but for a few.
#define VULKAN_CALL(name, params, args, spoil, ...)                                                                    \
    VkResult __real_##name params;                                                                                     \
    VkResult __wrap_##name params;                                                                                     \
    VkResult __wrap_##name params {                                                                                    \
        static const int results[] = {__VA_ARGS__};                                                                    \
        VkResult result = vulkan_result(#name, results, sizeof results / sizeof *results);                             \
        if (result == VK_SUCCESS)                                                                                      \
            return __real_##name args;                                                                                 \
        spoil;                                                                                                         \
        return result;                                                                                                 \
    }
#define NO_MEMORY VK_ERROR_OUT_OF_HOST_MEMORY, VK_ERROR_OUT_OF_DEVICE_MEMORY
#define MAKES     NO_MEMORY, VK_ERROR_UNKNOWN
#define SPOILT(T) ((T)(uintptr_t)0x5a5a5a5a5a5a5a50)

VULKAN_CALL(vkEnumerateInstanceVersion, (uint32_t * version), (version), (void)version, VK_ERROR_OUT_OF_HOST_MEMORY)
VULKAN_CALL(vkCreateInstance, (const VkInstanceCreateInfo *info, const VkAllocationCallbacks *a, VkInstance *out),
            (info, a, out), *out = SPOILT(VkInstance), MAKES, VK_ERROR_INITIALIZATION_FAILED,
            VK_ERROR_LAYER_NOT_PRESENT, VK_ERROR_EXTENSION_NOT_PRESENT, VK_ERROR_INCOMPATIBLE_DRIVER)
VULKAN_CALL(vkEnumeratePhysicalDevices, (VkInstance i, uint32_t *n, VkPhysicalDevice *out), (i, n, out), (void)n, MAKES,
            VK_ERROR_INITIALIZATION_FAILED)
VULKAN_CALL(vkEnumerateDeviceExtensionProperties,
            (VkPhysicalDevice d, const char *layer, uint32_t *n, VkExtensionProperties *out), (d, layer, n, out),
            (void)n, MAKES, VK_ERROR_LAYER_NOT_PRESENT)
VULKAN_CALL(vkCreateDevice,
            (VkPhysicalDevice d, const VkDeviceCreateInfo *info, const VkAllocationCallbacks *a, VkDevice *out),
            (d, info, a, out), *out = SPOILT(VkDevice), MAKES, VK_ERROR_INITIALIZATION_FAILED,
            VK_ERROR_EXTENSION_NOT_PRESENT, VK_ERROR_FEATURE_NOT_PRESENT, VK_ERROR_TOO_MANY_OBJECTS,
            VK_ERROR_DEVICE_LOST)
#define VULKAN_MAKES(T, ...)                                                                                           \
    VULKAN_CALL(vkCreate##T, (VkDevice d, const Vk##T##CreateInfo *info, const VkAllocationCallbacks *a, Vk##T *out),  \
                (d, info, a, out), *out = SPOILT(Vk##T), __VA_ARGS__)
VULKAN_MAKES(CommandPool, MAKES)
VULKAN_MAKES(Semaphore, MAKES)
VULKAN_MAKES(PipelineLayout, MAKES)
VULKAN_MAKES(PipelineCache, MAKES)
VULKAN_MAKES(ShaderModule, MAKES, VK_ERROR_INVALID_SHADER_NV)
VULKAN_MAKES(Buffer, MAKES)
VULKAN_MAKES(QueryPool, MAKES)
VULKAN_CALL(vkCreateComputePipelines,
            (VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *info,
             const VkAllocationCallbacks *a, VkPipeline *out),
            (d, c, n, info, a, out), *out = VK_NULL_HANDLE, MAKES, VK_ERROR_INVALID_SHADER_NV)
VULKAN_CALL(vkGetPipelineCacheData, (VkDevice d, VkPipelineCache c, size_t *bytes, void *out), (d, c, bytes, out),
            (void)bytes, MAKES, VK_INCOMPLETE)
VULKAN_CALL(vkAllocateMemory,
            (VkDevice d, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *a, VkDeviceMemory *out),
            (d, info, a, out), *out = SPOILT(VkDeviceMemory), MAKES, VK_ERROR_TOO_MANY_OBJECTS)
VULKAN_CALL(vkBindBufferMemory, (VkDevice d, VkBuffer b, VkDeviceMemory m, VkDeviceSize at), (d, b, m, at), (void)b,
            MAKES)
VULKAN_CALL(vkMapMemory,
            (VkDevice d, VkDeviceMemory m, VkDeviceSize at, VkDeviceSize bytes, VkMemoryMapFlags flags, void **out),
            (d, m, at, bytes, flags, out), *out = SPOILT(void *), MAKES, VK_ERROR_MEMORY_MAP_FAILED)
VULKAN_CALL(vkAllocateCommandBuffers, (VkDevice d, const VkCommandBufferAllocateInfo *info, VkCommandBuffer *out),
            (d, info, out), *out = NULL, MAKES)
VULKAN_CALL(vkBeginCommandBuffer, (VkCommandBuffer c, const VkCommandBufferBeginInfo *info), (c, info), (void)c, MAKES)
VULKAN_CALL(vkEndCommandBuffer, (VkCommandBuffer c), (c), (void)c, MAKES)

// What a lost device says of everything that it is asked to do; what it had begun is waited for, so that the driver beneath is let go in order.
#define VULKAN_WORK(name, params, args, lost_too, ...)                                                                 \
    VkResult __real_##name params;                                                                                     \
    VkResult __wrap_##name params;                                                                                     \
    VkResult __wrap_##name params {                                                                                    \
        static const int results[] = {__VA_ARGS__};                                                                    \
        if (lost) {                                                                                                    \
            lost_too;                                                                                                  \
            return VK_ERROR_DEVICE_LOST;                                                                               \
        }                                                                                                              \
        VkResult result = vulkan_result(#name, results, sizeof results / sizeof *results);                             \
        return result == VK_SUCCESS ? __real_##name args : result;                                                     \
    }
VULKAN_WORK(vkQueueSubmit2, (VkQueue q, uint32_t n, const VkSubmitInfo2 *info, VkFence f), (q, n, info, f), (void)q,
            MAKES, VK_ERROR_DEVICE_LOST)
VULKAN_WORK(vkWaitSemaphores, (VkDevice d, const VkSemaphoreWaitInfo *info, uint64_t ns), (d, info, ns), (void)d, MAKES,
            VK_ERROR_DEVICE_LOST, VK_TIMEOUT)
VULKAN_WORK(vkDeviceWaitIdle, (VkDevice d), (d), __real_vkDeviceWaitIdle(d), MAKES, VK_ERROR_DEVICE_LOST)
VULKAN_WORK(vkGetQueryPoolResults,
            (VkDevice d, VkQueryPool p, uint32_t first, uint32_t n, size_t bytes, void *out, VkDeviceSize stride,
             VkQueryResultFlags flags),
            (d, p, first, n, bytes, out, stride, flags), (void)d, MAKES, VK_ERROR_DEVICE_LOST, VK_NOT_READY)

void __real_vkDestroyDevice(VkDevice d, const VkAllocationCallbacks *a);
void __wrap_vkDestroyDevice(VkDevice d, const VkAllocationCallbacks *a);
void __wrap_vkDestroyDevice(VkDevice d, const VkAllocationCallbacks *a) {
    lost = false;
    __real_vkDestroyDevice(d, a);
}

VULKAN_CALL(vkGetMemoryHostPointerPropertiesEXT,
            (VkDevice d, VkExternalMemoryHandleTypeFlagBits kind, const void *at,
             VkMemoryHostPointerPropertiesEXT *out),
            (d, kind, at, out), (void)out, VK_ERROR_OUT_OF_HOST_MEMORY, VK_ERROR_INVALID_EXTERNAL_HANDLE,
            VK_ERROR_UNKNOWN)
static PFN_vkGetMemoryHostPointerPropertiesEXT host_pointer_properties;
VkResult __real_vkGetMemoryHostPointerPropertiesEXT(VkDevice d, VkExternalMemoryHandleTypeFlagBits kind, const void *at,
                                                    VkMemoryHostPointerPropertiesEXT *out) {
    return host_pointer_properties(d, kind, at, out);
}
PFN_vkVoidFunction __real_vkGetDeviceProcAddr(VkDevice d, const char *name);
PFN_vkVoidFunction __wrap_vkGetDeviceProcAddr(VkDevice d, const char *name);
PFN_vkVoidFunction __wrap_vkGetDeviceProcAddr(VkDevice d, const char *name) {
    PFN_vkVoidFunction found = __real_vkGetDeviceProcAddr(d, name);
    if (!found || strcmp(name, "vkGetMemoryHostPointerPropertiesEXT") != 0)
        return found;
    host_pointer_properties = (PFN_vkGetMemoryHostPointerPropertiesEXT)found;
    return (PFN_vkVoidFunction)__wrap_vkGetMemoryHostPointerPropertiesEXT;
}
