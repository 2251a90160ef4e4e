// Importing a file's mapping. See filemap.h.
#include "runtime/filemap.h"
#include "runtime/cmd.h"
#include "runtime/temporary.h"
#include "runtime/vk.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PIECES = 1024 }; // registered blocks must not move

struct Piece {
    struct Block block;
    uint64_t first; // byte of the file
};
struct FileMap {
    struct Device *dev;
    char *name;
    uint8_t *reserved, *base; // address space; where in it the file begins
    uint64_t reserved_bytes, bytes, used_bytes;
    struct Piece *pieces;
    uint32_t n_pieces;
    struct FileMap *next; // of those that are open
};

// ---- What happens to a file that is mapped

static struct FileMap *opened;

static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

// Only what a signal handler may do. A fault elsewhere is none of ours: the handler goes, and it happens again.
static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    const uint8_t *at = info->si_addr;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE); // the last one of a file goes as a whole
    for (const struct FileMap *f = opened; f; f = f->next) {
        if (at < f->base || at >= f->base + align_up(f->bytes, page))
            continue;
        say("vkmoe: "), say(f->name), say(": was made shorter, or cannot be read any more, while it was in use\n");
        temporaries_drop();
        _exit(1);
    }
    signal(number, SIG_DFL);
}

static void list_add(struct FileMap *f) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    f->next = opened;
    opened = f;
    sigaction(SIGBUS, &action, NULL);
}

static void list_remove(const struct FileMap *f) {
    struct FileMap **at = &opened;
    while (*at && *at != f)
        at = &(*at)->next;
    if (*at)
        *at = f->next;
}

// ---- Pieces

static uint64_t piece_limit(const struct Device *dev) {
    const struct DeviceLimits *l = &dev->limits;
    return l->max_allocation_bytes / l->import_alignment * l->import_alignment;
}

// Address space for the file and the padding behind it, then the file over its front. A driver for a card may pin pages as if it wrote to
// them, so there the mapping is private and writable; what it touched would be a copy.
static bool map(struct FileMap *f, int fd) {
    uint64_t alignment = f->dev->limits.import_alignment;
    int protection = f->dev->is_cpu ? PROT_READ : PROT_READ | PROT_WRITE;
    f->reserved_bytes = align_up(f->bytes + block_padding(f->dev), alignment) + alignment;
    void *room = mmap(NULL, f->reserved_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return false;
    f->reserved = room;
    f->base = f->reserved + (align_up((uintptr_t)room, alignment) - (uintptr_t)room);
    return mmap(f->base, f->bytes, protection, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) != MAP_FAILED;
}

struct FileMap *filemap_open(struct Device *dev, int fd, uint64_t bytes, const char *name) {
    if (!device_can(dev, CAP_file_map) || dev->limits.import_alignment == 0 || bytes == 0 || fd < 0 ||
        dev->state != DEVICE_OK)
        return NULL;
    struct FileMap *f = xcalloc(1, sizeof *f);
    *f = (struct FileMap){.dev = dev, .name = xstrdup(name), .bytes = bytes};
    if (dev->is_dry)
        return f;
    f->pieces = xcalloc(MAX_PIECES, sizeof *f->pieces);
    if (map(f, fd)) {
        list_add(f);
        return f;
    }
    filemap_close(f);
    return NULL;
}

void filemap_close(struct FileMap *f) {
    if (!f)
        return;
    if (f->n_pieces)
        device_idle(f->dev);
    for (uint32_t i = 0; i < f->n_pieces; i++)
        block_free(f->dev, &f->pieces[i].block);
    list_remove(f);
    if (f->reserved)
        munmap(f->reserved, f->reserved_bytes);
    f->dev->mapped_bytes -= f->used_bytes;
    free(f->pieces);
    free(f->name);
    free(f);
}

static struct Piece *piece_for(struct FileMap *f, uint64_t offset, uint64_t bytes) {
    for (uint32_t i = 0; i < f->n_pieces; i++) {
        struct Piece *p = &f->pieces[i];
        if (offset >= p->first && offset + bytes <= p->first + p->block.bytes)
            return p;
    }
    if (f->n_pieces == MAX_PIECES)
        return NULL;
    struct Piece *p = &f->pieces[f->n_pieces];
    uint64_t alignment = f->dev->limits.import_alignment;
    p->first = offset / alignment * alignment;
    uint64_t end = align_up(f->bytes + block_padding(f->dev), alignment);
    if (!block_import(f->dev, f->base + p->first, min_u64(piece_limit(f->dev), end - p->first), &p->block))
        return NULL;
    f->n_pieces++;
    return p;
}

uint64_t filemap_address(struct FileMap *f, uint64_t offset, uint64_t bytes) {
    struct Device *dev = f->dev;
    uint64_t address, before = offset % dev->limits.import_alignment;
    if (offset % FILEMAP_ALIGNMENT || offset >= f->bytes || dev->state != DEVICE_OK ||
        before + bytes + block_padding(dev) > piece_limit(dev))
        return 0;
    if (dev->is_dry) {
        address = (UINT64_C(1) << 40) + dev->dry_address;
        dev->dry_address += align_up(bytes, dev->limits.import_alignment);
    } else {
        const struct Piece *p = piece_for(f, offset, bytes);
        address = p ? p->block.address + (offset - p->first) : 0;
    }
    if (address == 0 || address % FILEMAP_ALIGNMENT)
        return 0;
    f->used_bytes += bytes;
    dev->mapped_bytes += bytes;
    return address;
}

void filemap_read_ahead(struct FileMap *f) {
    if (f->used_bytes && !f->dev->is_dry && f->dev->mapped_bytes <= f->dev->limits.host_bytes)
        madvise(f->base, f->bytes, MADV_WILLNEED); // advice: if it is not taken, pages come as they are touched
}

// ---- Trust

bool filemap_works(struct Device *dev) {
    struct stat st;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    enum { WORDS = 1024 };
    uint64_t bytes = fd >= 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    struct FileMap *f = bytes >= 4 * WORDS ? filemap_open(dev, fd, bytes, "this program") : NULL;
    struct Tensor from = tensor_shape(DT_U32, 1, (uint32_t[]){WORDS});
    struct Arena arena;
    arena_init(&arena, dev, "a look at a mapped file", ARENA_HOST);
    from.address = f ? filemap_address(f, 0, from.bytes) : 0;
    bool ok = from.address != 0;
    if (ok && !getenv("VKMOE_STATIC")) { // then nothing runs
        struct Tensor to = TENSOR(&arena, DT_U32, WORDS);
        struct Cmd *c = cmd_begin(dev, arena.name);
        cmd_copy(c, &from, &to);
        struct Program *p = cmd_end(c);
        uint8_t page[4 * WORDS];
        const void *seen = p && program_run(p) ? tensor_host(dev, &to) : NULL;
        ok = seen && pread(fd, page, sizeof page, 0) == (ssize_t)sizeof page && memcmp(seen, page, sizeof page) == 0;
        program_free(p);
    }
    arena_free(&arena);
    filemap_close(f);
    if (fd >= 0)
        close(fd);
    return ok;
}
