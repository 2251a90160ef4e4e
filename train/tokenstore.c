// Words gather in memory; a full buffer goes to the file by write(2), so that a full disk is an error and not a signal.
#include "train/tokenstore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void tokenstore_init(struct TokenStore *s, uint64_t limit_bytes) {
    *s = (struct TokenStore){.limit = (size_t)limit_bytes / sizeof *s->words, .fd = -1};
}

static bool spill(struct TokenStore *s) {
    const char *remedy = "data larger than memory are kept there; $VKMOE_CACHE names another folder";
    if (s->fd < 0) {
        char *path = path_join(cache_dir(), "tokens-XXXXXX");
        s->fd = mkstemp(path);
        if (s->fd >= 0)
            unlink(path);
        free(path);
        if (s->fd < 0)
            return fail("%s: no file can be made: %s (%s)", cache_dir(), strerror(errno), remedy);
    }
    const char *at = (const char *)s->words;
    for (size_t left = (s->n - s->written) * sizeof *s->words; left;) {
        ssize_t n = write(s->fd, at, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail("%s: cannot be written: %s (%s)", cache_dir(), strerror(errno), remedy);
        at += n;
        left -= (size_t)n;
    }
    s->written = s->n;
    return true;
}

bool tokenstore_add(struct TokenStore *s, const void *words, size_t n) {
    size_t have = s->n - s->written;
    if (have && have + n > s->limit) {
        if (!spill(s))
            return false;
        have = 0;
    }
    if (have + n > s->room) {
        s->room = max_u64(have + n, min_u64(2 * s->room, s->limit));
        s->words = xrealloc(s->words, s->room * sizeof *s->words);
    }
    memcpy(s->words + have, words, n * sizeof *s->words);
    s->n += n;
    return true;
}

bool tokenstore_seal(struct TokenStore *s) {
    if (s->fd < 0)
        return true;
    if (!spill(s))
        return false;
    void *map = mmap(NULL, s->n * sizeof *s->words, PROT_READ, MAP_SHARED, s->fd, 0);
    if (map == MAP_FAILED)
        return fail("%s: %zu tokens cannot be mapped: %s", cache_dir(), s->n / 2, strerror(errno));
    free(s->words);
    s->words = map;
    s->mapped = true;
    return true;
}

void tokenstore_free(struct TokenStore *s) {
    if (s->mapped)
        munmap(s->words, s->n * sizeof *s->words);
    else
        free(s->words);
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct TokenStore){.fd = -1};
}
