// Large files in pieces: pread against the size seen at opening; writing behind a temporary name.
#include "model/fileio.h"
#include "runtime/parallel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OUT_BUFFER_BYTES = 1 << 20 };

bool filein_open(struct FileIn *f, const char *path) {
    *f = (struct FileIn){.fd = -1};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a named pipe would be waited for, for ever
    if (fd < 0)
        return fail("%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 0) {
        close(fd);
        return fail("%s: is not a regular file", path);
    }
    f->fd = fd;
    f->bytes = (uint64_t)st.st_size;
    f->name = xstrdup(path);
    return true;
}

void filein_open_memory(struct FileIn *f, const void *data, size_t bytes, const char *name) {
    *f = (struct FileIn){.fd = -1, .memory = data, .bytes = bytes, .name = xstrdup(name)};
}

// Long reads go over several threads: from the page cache one copies at less than the memory's speed.
struct Reading {
    int fd;
    uint64_t offset;
    uint8_t *out;
    pthread_mutex_t lock;
    uint64_t failed_at; // the first place, UINT64_MAX: none
    int error;          // 0: the file ends there
};

static void read_part(void *context, uint64_t first, uint64_t end) {
    struct Reading *r = context;
    while (first < end) {
        ssize_t got = pread(r->fd, r->out + first, min_u64(end - first, 1u << 30), (off_t)(r->offset + first));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int error = got < 0 ? errno : 0;
            pthread_mutex_lock(&r->lock);
            if (r->offset + first < r->failed_at)
                r->failed_at = r->offset + first, r->error = error;
            pthread_mutex_unlock(&r->lock);
            return;
        }
        first += (uint64_t)got;
    }
}

bool filein_read(const struct FileIn *f, uint64_t offset, uint64_t bytes, void *out) {
    uint64_t end;
    if (!ckd_add(offset, bytes, &end) || end > f->bytes)
        return fail("%s: %llu bytes are wanted at byte %llu, but the file has %llu", f->name, (unsigned long long)bytes,
                    (unsigned long long)offset, (unsigned long long)f->bytes);
    if (bytes == 0)
        return true;
    if (f->fd < 0) {
        memcpy(out, f->memory + offset, bytes);
        return true;
    }
    struct Reading r = {
        .fd = f->fd, .offset = offset, .out = out, .failed_at = UINT64_MAX, .lock = PTHREAD_MUTEX_INITIALIZER};
    if (bytes >= 1 << 20)
        posix_fadvise(f->fd, (off_t)end, (off_t)bytes, POSIX_FADV_WILLNEED); // most readers go on there
    parallel_for(bytes, UINT64_C(4) << 20, read_part, &r);
    if (r.failed_at == UINT64_MAX)
        return true;
    if (r.error)
        return fail("%s: cannot be read at byte %llu: %s", f->name, (unsigned long long)r.failed_at, strerror(r.error));
    return fail("%s: ends at byte %llu; it had %llu bytes when it was opened", f->name, (unsigned long long)r.failed_at,
                (unsigned long long)f->bytes);
}

void filein_close(struct FileIn *f) {
    if (f->fd >= 0)
        close(f->fd);
    free(f->name);
    *f = (struct FileIn){.fd = -1};
}

bool fileout_begin(struct FileOut *f, const char *path) {
    *f = (struct FileOut){.path = path_followed(path)};
    f->fd = temporary_file(&f->temporary, f->path);
    if (f->fd < 0) {
        f->bad = true;
        fileout_abort(f);
        return false;
    }
    f->buffer = xmalloc(OUT_BUFFER_BYTES);
    return true;
}

static bool put(struct FileOut *f, const uint8_t *from, uint64_t bytes) {
    while (bytes > 0) {
        ssize_t written = write(f->fd, from, min_u64(bytes, 1u << 30));
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            f->bad = true;
            return fail("%s: cannot be written at byte %llu: %s", f->path, (unsigned long long)f->bytes,
                        strerror(errno));
        }
        from += written;
        bytes -= (uint64_t)written;
    }
    return true;
}

static bool flush(struct FileOut *f) {
    uint64_t bytes = f->buffered;
    f->buffered = 0;
    return put(f, f->buffer, bytes);
}

bool fileout_write(struct FileOut *f, const void *data, uint64_t bytes) {
    if (f->bad)
        return false;
    if (bytes == 0)
        return true;
    if (f->buffered + bytes > OUT_BUFFER_BYTES && !flush(f))
        return false;
    if (bytes > OUT_BUFFER_BYTES) {
        if (!put(f, data, bytes))
            return false;
    } else {
        memcpy(f->buffer + f->buffered, data, bytes);
        f->buffered += bytes;
    }
    f->bytes += bytes;
    return true;
}

bool fileout_pad(struct FileOut *f, uint64_t alignment) {
    static const uint8_t zeros[4096];
    for (uint64_t left = align_up(f->bytes, alignment) - f->bytes; left > 0;) {
        uint64_t part = min_u64(left, sizeof zeros);
        if (!fileout_write(f, zeros, part))
            return false;
        left -= part;
    }
    return !f->bad;
}

bool fileout_end(struct FileOut *f) {
    bool ok = !f->bad && flush(f);
    if (ok && fsync(f->fd) != 0)
        ok = fail("%s: cannot be written: %s", f->path, strerror(errno));
    if (f->fd >= 0 && close(f->fd) != 0 && ok)
        ok = fail("%s: cannot be written: %s", f->path, strerror(errno));
    f->fd = -1;
    if (ok && !temporary_keep(&f->temporary))
        ok = fail("%s: cannot be renamed to its final name: %s", f->path, strerror(errno));
    ok = ok && parent_sync(f->path);
    fileout_abort(f);
    return ok;
}

void fileout_abort(struct FileOut *f) {
    if (f->fd >= 0)
        close(f->fd);
    temporary_drop(&f->temporary);
    free(f->path);
    free(f->buffer);
    *f = (struct FileOut){.fd = -1};
}
