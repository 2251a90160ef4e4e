// See temporary.h. Folders are read by the system call itself, because opendir() asks the heap.
#include "runtime/temporary.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// ---- Those that are there

static struct Temporary *list;
static atomic_flag taken = ATOMIC_FLAG_INIT;

// A handler that came while its own thread has the lock would wait for ever: signals wait instead.
static void lock(sigset_t *before) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
    while (atomic_flag_test_and_set(&taken))
        usleep(100);
}

static void unlock(const sigset_t *before) {
    int error = errno;
    atomic_flag_clear(&taken);
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}

static void unlist(const struct Temporary *t) {
    struct Temporary **at = &list;
    while (*at && *at != t)
        at = &(*at)->next;
    if (*at)
        *at = t->next;
}

// ---- Removing

struct Entry { // as the kernel writes it
    uint64_t inode;
    int64_t next;
    unsigned short bytes;
    unsigned char type;
    char name[];
};

static void each_entry(int fd, void (*what)(int fd, const char *name, const void *context), const void *context) {
    _Alignas(struct Entry) char buffer[4096];
    for (long got; (got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;)
        for (long at = 0; at < got;) {
            const struct Entry *e = (const struct Entry *)(const void *)(buffer + at);
            at += e->bytes;
            if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
                what(fd, e->name, context);
        }
}

static void remove_entry(int fd, const char *name, const void *context) {
    (void)context;
    unlinkat(fd, name, 0);
}

void path_remove(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        unlink(path);
        return;
    }
    each_entry(fd, remove_entry, NULL);
    close(fd);
    rmdir(path);
}

void temporaries_drop(void) {
    sigset_t before;
    lock(&before); // and never unlock
    for (const struct Temporary *t = list; t; t = t->next)
        path_remove(t->path);
}

// ---- What others left

struct Beside {
    const char *folder, *name; // of what is to be made
    size_t name_bytes;
};

// NAME.tmpPID, or NAME.tmpPID.tmpPID where one was made for another, and no process of that number is there. (One that is in another container, or on
// another machine that shares the folder, cannot be seen; it would have to make the same file at the same time.)
static bool is_stale(const char *name, const struct Beside *b) {
    if (strncmp(name, b->name, b->name_bytes) != 0)
        return false;
    char *end;
    for (const char *at = name + b->name_bytes; at == name + b->name_bytes || *at; at = end) {
        if (strncmp(at, ".tmp", 4) != 0 || at[4] < '1' || at[4] > '9')
            return false;
        long pid = strtol(at + 4, &end, 10);
        if (pid > INT_MAX || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            return false;
    }
    return true;
}

static void remove_stale(int fd, const char *name, const void *context) {
    const struct Beside *b = context;
    (void)fd;
    if (!is_stale(name, b))
        return;
    char *path = path_join(b->folder, name);
    path_remove(path);
    warn("%s: removed; a run that was killed had left it", path);
    free(path);
}

static void begin(struct Temporary *t, const char *final) {
    char *folder = path_parent(final), *name = path_name(final);
    struct Beside b = {folder, name, strlen(name)};
    *t = (struct Temporary){.path = xsprintf("%s.tmp%ld", final, (long)getpid()), .final = xstrdup(final)};
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        each_entry(fd, remove_stale, &b);
        close(fd);
    }
    free(folder);
    free(name);
}

static void forget(struct Temporary *t) {
    free(t->path);
    free(t->final);
    *t = (struct Temporary){0};
}

// ---- Making

int temporary_file(struct Temporary *t, const char *final) {
    sigset_t before;
    begin(t, final);
    path_remove(t->path); // of a process that had our number
    lock(&before);        // made and known at once
    int fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd >= 0)
        t->next = list, list = t;
    unlock(&before);
    if (fd < 0) {
        fail("%s: cannot be created: %s", t->path, strerror(errno));
        forget(t);
    }
    return fd;
}

void temporary_name(struct Temporary *t, const char *final) {
    sigset_t before;
    begin(t, final);
    path_remove(t->path); // of a process that had our number
    lock(&before);
    t->next = list, list = t;
    unlock(&before);
}

bool temporary_keep(struct Temporary *t) {
    sigset_t before;
    lock(&before);
    bool ok = rename(t->path, t->final) == 0;
    if (ok)
        unlist(t);
    unlock(&before);
    if (ok) {
        forget(t);
        return true;
    }
    int error = errno;
    temporary_drop(t);
    errno = error;
    return false;
}

void temporary_drop(struct Temporary *t) {
    sigset_t before;
    if (!t->path)
        return;
    lock(&before);
    path_remove(t->path);
    unlist(t);
    unlock(&before);
    forget(t);
}
