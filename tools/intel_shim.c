// An Intel card that is not there, for tools/ci_testing.sh: preloaded into a process, it answers the driver's questions (the xe kernel
// interface) as an Arc would, so that Intel's own compiler compiles every pipeline. Nothing runs: submitted work is done at once.
// mesa-drm-shim does this for AMD and NVIDIA; Debian's has none for Intel. INTEL_CARD names one of CARDS.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <drm/drm.h>
#include <drm/xe_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct Card {
    const char *name;
    uint16_t pci_id, revision, ip_major, ip_minor;
    uint64_t cores; // one bit for each
    uint16_t eu_type;
    uint32_t eus; // of a core, one bit for each
} CARDS[] = {
    {"a770", 0x56a0, 8, 12, 55, 0xffffffff, DRM_XE_TOPO_EU_PER_DSS, 0xffff},
    {"b580", 0xe20b, 0, 20, 1, 0xfffff, DRM_XE_TOPO_SIMD16_EU_PER_DSS, 0xff},
};
static const struct Card *card = &CARDS[0];

enum { MAJOR = 226, MINOR = 128 };
static const uint64_t MEMORY = UINT64_C(16) << 30, PAGE = 1 << 16;

// ---- Files: paths of the device lead into a folder of our own

static char root[64];
static struct stat node;
static uint32_t n_objects;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void write_file(const char *name, const char *text) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *f = REAL(fopen)(path, "w");
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("INTEL_CARD");
    for (size_t i = 0; name && i < sizeof CARDS / sizeof *CARDS; i++)
        if (strcmp(CARDS[i].name, name) == 0)
            card = &CARDS[i];
    char path[160], text[64];
    snprintf(root, sizeof root, P_tmpdir "/intel-shim-XXXXXX");
    if (!mkdtemp(root))
        abort();
    static const char *const FOLDERS[] = {"dri", "char", "char/device", "char/device/drm",
                                          "char/device/drm/renderD128"};
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        snprintf(path, sizeof path, "%s/%s", root, FOLDERS[i]);
        mkdir(path, 0700);
    }
    write_file("dri/renderD128", "");
    write_file("char/device/uevent", "PCI_SLOT_NAME=0000:03:00.0\n");
    write_file("char/device/vendor", "0x8086\n");
    write_file("char/device/subsystem_vendor", "0x8086\n");
    write_file("char/device/subsystem_device", "0x1020\n");
    snprintf(text, sizeof text, "0x%04x\n", card->pci_id);
    write_file("char/device/device", text);
    snprintf(text, sizeof text, "0x%02x\n", card->revision);
    write_file("char/device/revision", text);
    snprintf(path, sizeof path, "%s/char/device/subsystem", root);
    if (symlink("/sys/bus/pci", path))
        abort();
    snprintf(path, sizeof path, "%s/dri/renderD128", root);
    if (REAL(stat)(path, &node))
        abort();
}

__attribute__((destructor)) static void end(void) {
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    unsetenv("LD_PRELOAD");
    if (system(command))
        fprintf(stderr, "intel_shim: %s stays\n", root);
}

static const char *path_of(const char *path, char *to, size_t size) {
    static const struct { const char *from, *to; } MAP[] = {{"/dev/dri", "dri"}, {"/sys/dev/char/226:128", "char"}};
    for (size_t i = 0; i < 2 && root[0]; i++) {
        size_t n = strlen(MAP[i].from);
        if (strncmp(path, MAP[i].from, n) == 0 && (path[n] == '/' || !path[n])) {
            snprintf(to, size, "%s/%s%s", root, MAP[i].to, path + n);
            return to;
        }
    }
    return path;
}
#define PATH(path) path_of(path, (char[PATH_SIZE]){0}, PATH_SIZE)
enum { PATH_SIZE = 512 };

static int open_any(int at, const char *path, int flags, mode_t mode) {
    return REAL(openat)(at, PATH(path), flags, mode);
}
#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return open_any(AT_FDCWD, path, flags, mode);                                                                  \
    }
OPEN(open)
OPEN(open64)
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
FILE *fopen(const char *path, const char *mode) { return REAL(fopen)(PATH(path), mode); }
FILE *fopen64(const char *path, const char *mode) { return REAL(fopen64)(PATH(path), mode); }
DIR *opendir(const char *path) { return REAL(opendir)(PATH(path)); }
int access(const char *path, int mode) { return REAL(access)(PATH(path), mode); }
ssize_t readlink(const char *path, char *to, size_t n) { return REAL(readlink)(PATH(path), to, n); }
ssize_t __readlink_chk(const char *path, char *to, size_t n, size_t size) {
    return n <= size ? REAL(readlink)(PATH(path), to, n) : -1;
}
char *realpath(const char *path, char *to) { return REAL(realpath)(PATH(path), to); }
char *__realpath_chk(const char *path, char *to, size_t size) {
    (void)size;
    return REAL(realpath)(PATH(path), to);
}

static int as_device(int result, struct stat *s) {
    if (result == 0 && s->st_ino == node.st_ino && s->st_dev == node.st_dev) {
        s->st_mode = S_IFCHR | 0660;
        s->st_rdev = makedev(MAJOR, MINOR);
    }
    return result;
}
int stat(const char *path, struct stat *s) { return as_device(REAL(stat)(PATH(path), s), s); }
int lstat(const char *path, struct stat *s) { return as_device(REAL(lstat)(PATH(path), s), s); }
int fstat(int fd, struct stat *s) { return as_device(REAL(fstat)(fd, s), s); }
int stat64(const char *path, struct stat64 *s) { return stat(path, (struct stat *)s); }
int lstat64(const char *path, struct stat64 *s) { return lstat(path, (struct stat *)s); }
int fstat64(int fd, struct stat64 *s) { return fstat(fd, (struct stat *)s); }

static bool is_device(int fd) {
    struct stat s;
    return REAL(fstat)(fd, &s) == 0 && s.st_ino == node.st_ino && s.st_dev == node.st_dev;
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset) {
    if (fd >= 0 && is_device(fd))
        return REAL(mmap64)(at, n, protection, (flags & MAP_FIXED) | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                            0);
    return REAL(mmap64)(at, n, protection, flags, fd, offset);
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, n, protection, flags, fd, offset);
}

// ---- The kernel's answers

static int refuse(int why) {
    errno = why;
    return -1;
}

static int give(struct drm_xe_device_query *q, const void *data, size_t n) {
    if (q->size) {
        if (q->size < n)
            return refuse(EINVAL);
        memcpy((void *)(uintptr_t)q->data, data, n);
    }
    q->size = (uint32_t)n;
    return 0;
}

static int give_engines(struct drm_xe_device_query *q) {
    static const uint16_t CLASSES[] = {DRM_XE_ENGINE_CLASS_RENDER, DRM_XE_ENGINE_CLASS_COPY,
                                       DRM_XE_ENGINE_CLASS_COMPUTE};
    struct {
        struct drm_xe_query_engines head;
        struct drm_xe_engine list[3];
    } all = {.head = {.num_engines = 3}};
    for (int i = 0; i < 3; i++)
        all.list[i].instance.engine_class = CLASSES[i];
    return give(q, &all, sizeof all);
}

static int give_memory(struct drm_xe_device_query *q) {
    struct {
        struct drm_xe_query_mem_regions head;
        struct drm_xe_mem_region list[2];
    } all = {.head = {.num_mem_regions = 2},
             .list = {{.mem_class = DRM_XE_MEM_REGION_CLASS_SYSMEM, .min_page_size = 4096, .total_size = MEMORY},
                      {.mem_class = DRM_XE_MEM_REGION_CLASS_VRAM,
                       .instance = 1,
                       .min_page_size = (uint32_t)PAGE,
                       .total_size = MEMORY,
                       .cpu_visible_size = MEMORY}}};
    return give(q, &all, sizeof all);
}

static int give_config(struct drm_xe_device_query *q) {
    struct {
        struct drm_xe_query_config head;
        uint64_t info[5];
    } all = {.head = {.num_params = 5},
             .info = {(uint64_t)card->revision << 16 | card->pci_id, DRM_XE_QUERY_CONFIG_FLAG_HAS_VRAM, PAGE, 48, 2}};
    return give(q, &all, sizeof all);
}

static int give_gt(struct drm_xe_device_query *q) {
    struct {
        struct drm_xe_query_gt_list head;
        struct drm_xe_gt list[1];
    } all = {.head = {.num_gt = 1},
             .list = {{.type = DRM_XE_QUERY_GT_TYPE_MAIN,
                       .reference_clock = 19200000,
                       .near_mem_regions = 2,
                       .far_mem_regions = 1,
                       .ip_ver_major = card->ip_major,
                       .ip_ver_minor = card->ip_minor}}};
    return give(q, &all, sizeof all);
}

static int give_topology(struct drm_xe_device_query *q) {
    struct Mask {
        struct drm_xe_query_topology_mask head;
        uint64_t bits;
    } all[] = {{{.type = DRM_XE_TOPO_DSS_GEOMETRY, .num_bytes = 8}, card->cores},
               {{.type = DRM_XE_TOPO_DSS_COMPUTE, .num_bytes = 8}, card->cores},
               {{.type = DRM_XE_TOPO_L3_BANK, .num_bytes = 8}, 0xff},
               {{.type = card->eu_type, .num_bytes = 8}, card->eus}};
    return give(q, all, sizeof all);
}

static int device_query(struct drm_xe_device_query *q) {
    switch (q->query) {
    case DRM_XE_DEVICE_QUERY_ENGINES:
        return give_engines(q);
    case DRM_XE_DEVICE_QUERY_MEM_REGIONS:
        return give_memory(q);
    case DRM_XE_DEVICE_QUERY_CONFIG:
        return give_config(q);
    case DRM_XE_DEVICE_QUERY_GT_LIST:
        return give_gt(q);
    case DRM_XE_DEVICE_QUERY_GT_TOPOLOGY:
        return give_topology(q);
    case DRM_XE_DEVICE_QUERY_ENGINE_CYCLES: {
        struct drm_xe_query_engine_cycles cycles = {.width = 36, .engine_cycles = 1, .cpu_timestamp = 1};
        return give(q, &cycles, sizeof cycles);
    }
    case DRM_XE_DEVICE_QUERY_HWCONFIG: {
        static const uint32_t TABLE[] = {1, 1, 8}; // key, words, value: at most eight slices
        return give(q, TABLE, sizeof TABLE);
    }
    default:
        return refuse(EINVAL);
    }
}

static int xe(unsigned long command, void *data) {
    switch (command) {
    case DRM_XE_DEVICE_QUERY:
        return device_query(data);
    case DRM_XE_GEM_CREATE:
        ((struct drm_xe_gem_create *)data)->handle = ++n_objects;
        return 0;
    case DRM_XE_GEM_MMAP_OFFSET:
        ((struct drm_xe_gem_mmap_offset *)data)->offset = 0;
        return 0;
    case DRM_XE_VM_CREATE:
        ((struct drm_xe_vm_create *)data)->vm_id = ++n_objects;
        return 0;
    case DRM_XE_EXEC_QUEUE_CREATE:
        ((struct drm_xe_exec_queue_create *)data)->exec_queue_id = ++n_objects;
        return 0;
    case DRM_XE_EXEC_QUEUE_GET_PROPERTY:
        ((struct drm_xe_exec_queue_get_property *)data)->value = 0;
        return 0;
    case DRM_XE_VM_DESTROY:
    case DRM_XE_VM_BIND:
    case DRM_XE_EXEC_QUEUE_DESTROY:
    case DRM_XE_EXEC:
    case DRM_XE_WAIT_USER_FENCE:
        return 0;
    default:
        return refuse(EINVAL);
    }
}

static int version(struct drm_version *v) {
    static char name[] = "xe", date[] = "20240101", description[] = "a card that is not there";
    v->version_major = 1, v->version_minor = 1, v->version_patchlevel = 0;
    struct {
        char *from, *to;
        __kernel_size_t *room;
    } texts[] = {{name, v->name, &v->name_len}, {date, v->date, &v->date_len}, {description, v->desc, &v->desc_len}};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(texts[i].from);
        if (texts[i].to)
            memcpy(texts[i].to, texts[i].from, n < *texts[i].room ? n : *texts[i].room);
        *texts[i].room = n;
    }
    return 0;
}

// All that was ever submitted is done.
static int syncobj_query(const struct drm_syncobj_timeline_array *a) {
    for (uint32_t i = 0; i < a->count_handles; i++)
        ((uint64_t *)(uintptr_t)a->points)[i] = UINT64_MAX >> 1;
    return 0;
}

static int drm(unsigned long request, void *data) {
    unsigned long number = _IOC_NR(request);
    if (number >= DRM_COMMAND_BASE && number < DRM_COMMAND_END)
        return xe(number - DRM_COMMAND_BASE, data);
    switch (request) {
    case DRM_IOCTL_VERSION:
        return version(data);
    case DRM_IOCTL_GET_CAP:
        ((struct drm_get_cap *)data)->value = 1;
        return 0;
    case DRM_IOCTL_SYNCOBJ_CREATE:
        ((struct drm_syncobj_create *)data)->handle = ++n_objects;
        return 0;
    case DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD:
        ((struct drm_syncobj_handle *)data)->fd = eventfd(1, EFD_CLOEXEC);
        return 0;
    case DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE:
        ((struct drm_syncobj_handle *)data)->handle = ++n_objects;
        return 0;
    case DRM_IOCTL_SYNCOBJ_QUERY:
        return syncobj_query(data);
    case DRM_IOCTL_GEM_CLOSE:
    case DRM_IOCTL_SYNCOBJ_DESTROY:
    case DRM_IOCTL_SYNCOBJ_WAIT:
    case DRM_IOCTL_SYNCOBJ_RESET:
    case DRM_IOCTL_SYNCOBJ_SIGNAL:
    case DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT:
    case DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL:
    case DRM_IOCTL_SYNCOBJ_TRANSFER:
        return 0;
    default:
        return refuse(EINVAL);
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (_IOC_TYPE(request) != DRM_IOCTL_BASE || !is_device(fd))
        return REAL(ioctl)(fd, request, data);
    int result = drm(request, data);
    if (result && getenv("INTEL_SHIM_DEBUG"))
        fprintf(stderr, "intel_shim: request %lx refused\n", request);
    return result;
}
