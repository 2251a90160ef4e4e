// The ground floor. Errors are one line on stderr; sizes from files go through checked arithmetic; a file that matters
// is written beside its name and renamed; random numbers are a pure function of (seed, stream, index).
#include "runtime/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// ---- Errors ----

static char last_failure[2048];
static bool quiet_failures;
static pthread_mutex_t telling =
    PTHREAD_MUTEX_INITIALIZER; // a batch that is made ahead may fail beside the main thread

// File names and text from files may hold anything: control characters would break the one line or drive the terminal.
static void harmless(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
        else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) // U+0080 to U+009F, which begin commands as ESC does
            c[0] = c[1] = '?';
    }
}

static void tell(const char *prefix, char *message) {
    harmless(message);
    if (!quiet_failures) {
        fflush(stdout);
        fprintf(stderr, "vkmoe: %s%s\n", prefix, message);
    }
}

bool fail(const char *format, ...) {
    char message[sizeof last_failure]; // the arguments may point into last_failure
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&telling);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    tell("", message);
    memcpy(last_failure, message, sizeof message);
    pthread_mutex_unlock(&telling);
    return false;
}

const char *fail_last(void) { return last_failure; }

void warn(const char *format, ...) {
    char message[sizeof last_failure];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    pthread_mutex_lock(&telling);
    tell("warning: ", message);
    pthread_mutex_unlock(&telling);
}

bool fail_quiet(bool quiet) {
    bool before = quiet_failures;
    quiet_failures = quiet;
    return before;
}

// ---- Memory ----

// Any thread may come here while others work: exit() would run destructors, the driver's too, under their hands. Files need nothing more:
// what matters has its own name only when it is whole, what is not whole goes, and logs are flushed line by line.
void heap_exhausted(size_t bytes) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&told))
        for (;;)
            pause(); // until the thread that was first has told it
    temporaries_drop();
    fflush(stdout);
    if (bytes)
        fprintf(stderr, "vkmoe: out of host memory: %zu bytes were asked for\n", bytes);
    else
        fprintf(stderr, "vkmoe: out of host memory\n");
    _exit(1);
}

static void *checked_block(void *block, size_t bytes) {
    if (!block)
        heap_exhausted(bytes);
    return block;
}

void *xmalloc(size_t bytes) { return checked_block(malloc(bytes ? bytes : 1), bytes); }

void *xcalloc(size_t count, size_t bytes) {
    uint64_t total;
    if (!ckd_mul(count, bytes, &total) || total > SIZE_MAX)
        return checked_block(NULL, SIZE_MAX);
    return checked_block(calloc(total ? total : 1, 1), total);
}

void *xrealloc(void *old, size_t bytes) { return checked_block(realloc(old, bytes ? bytes : 1), bytes); }

char *xstrdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(xmalloc(bytes), text, bytes);
}

char *xvsprintf(const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    char *text = xmalloc((size_t)(length < 0 ? 0 : length) + 1);
    text[0] = 0;
    if (length > 0)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

char *xsprintf(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = xvsprintf(format, args);
    va_end(args);
    return text;
}

bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

FILE *text_begin(char **text, size_t *bytes) {
    *text = NULL;
    *bytes = 0;
    FILE *to = open_memstream(text, bytes);
    if (!to)
        heap_exhausted(0);
    return to;
}

void text_end(FILE *to) {
    bool whole = !ferror(to);
    if (fclose(to) != 0 || !whole)
        heap_exhausted(0);
}

// ---- Checked arithmetic ----

bool ckd_add(uint64_t a, uint64_t b, uint64_t *out) {
    if (a > UINT64_MAX - b)
        return false;
    *out = a + b;
    return true;
}

bool ckd_mul(uint64_t a, uint64_t b, uint64_t *out) {
    if (b != 0 && a > UINT64_MAX / b)
        return false;
    *out = a * b;
    return true;
}

// ---- Files ----

bool file_read(const char *path, uint64_t max_bytes, uint8_t **data, uint64_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail("%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode)) {
        close(fd);
        return fail("%s: is a folder; a file is expected", path);
    }
    // The size is only a first guess: a pipe has none, and a file may grow while it is read.
    uint64_t room = S_ISREG(st.st_mode) ? min_u64((uint64_t)st.st_size, max_bytes) + 1 : 65536;
    uint64_t used = 0;
    uint8_t *buffer = xmalloc(room + 1);
    for (;;) {
        if (used == room) {
            room *= 2;
            buffer = xrealloc(buffer, room + 1);
        }
        ssize_t got = read(fd, buffer + used, room - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int error = errno;
            free(buffer);
            close(fd);
            return fail("%s: cannot be read at byte %llu: %s", path, (unsigned long long)used, strerror(error));
        }
        if (got == 0)
            break;
        used += (uint64_t)got;
        if (used > max_bytes) {
            free(buffer);
            close(fd);
            return fail("%s: is larger than %llu bytes, the most that is accepted here", path,
                        (unsigned long long)max_bytes);
        }
    }
    close(fd);
    buffer[used] = 0;
    *data = buffer;
    *bytes = used;
    return true;
}

// What is renamed or made is there after a power cut once the folder that holds its name is synchronised.
char *path_parent(const char *path) {
    char *whole = path_without_slash(path), *slash = strrchr(whole, '/');
    char *parent = !slash           ? xstrdup(".")
                   : slash == whole ? xstrdup("/")
                                    : xsprintf("%.*s", (int)(slash - whole), whole);
    free(whole);
    return parent;
}

char *path_name(const char *path) {
    char *whole = path_without_slash(path), *slash = strrchr(whole, '/');
    char *name = xstrdup(slash && slash[1] ? slash + 1 : whole);
    free(whole);
    return name;
}

char *path_without_slash(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return xsprintf("%.*s", (int)n, path);
}

bool parent_sync(const char *path) {
    char *dir = path_parent(path);
    bool ok = dir_sync(dir);
    free(dir);
    return ok;
}

static bool write_all(int fd, const void *data, uint64_t bytes) {
    const uint8_t *from = data;
    while (bytes > 0) {
        ssize_t put = write(fd, from, bytes < (1u << 30) ? bytes : (1u << 30));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        from += put;
        bytes -= (uint64_t)put;
    }
    return true;
}

char *path_followed(const char *path) {
    enum { MOST_LINKS = 40 }; // as the kernel follows
    char *at = xstrdup(path), to[PATH_MAX];
    for (int i = 0; i < MOST_LINKS; i++) {
        ssize_t n = readlink(at, to, sizeof to - 1);
        if (n < 0)
            break;
        to[n] = 0;
        char *dir = path_parent(at), *next = path_join(dir, to);
        free(dir);
        free(at);
        at = next;
    }
    return at;
}

// A device, a pipe or a file without a name, which nothing can take the place of.
static bool file_write_through(const char *path, const void *data, uint64_t bytes) {
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    bool ok = fd >= 0 && write_all(fd, data, bytes);
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    return ok || fail("%s: cannot be written: %s", path, strerror(error));
}

static bool file_replace(const char *path, const void *data, uint64_t bytes) {
    struct Temporary temporary;
    int fd = temporary_file(&temporary, path);
    if (fd < 0)
        return false;
    bool ok = write_all(fd, data, bytes) && fsync(fd) == 0;
    int error = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && !temporary_keep(&temporary)) {
        ok = false;
        error = errno;
    }
    temporary_drop(&temporary);
    return ok ? parent_sync(path) : fail("%s: cannot be written: %s", path, strerror(error));
}

bool file_write_atomic(const char *path, const void *data, uint64_t bytes) {
    struct stat there, followed;
    bool exists = stat(path, &there) == 0;
    if (exists && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode))
        return file_write_through(path, data, bytes);
    // A link stays one: what it leads to is replaced. Those of /proc/self/fd, behind /dev/stdout, may say a name that is none any more.
    char *target = path_followed(path);
    bool named = !exists ||
                 (lstat(target, &followed) == 0 && followed.st_dev == there.st_dev && followed.st_ino == there.st_ino);
    bool ok = named ? file_replace(target, data, bytes) : file_write_through(path, data, bytes);
    free(target);
    return ok;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

bool dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool make_with_parents(const char *path, mode_t mode) {
    char *copy = xstrdup(path);
    bool ok = true;
    for (char *c = copy; ok && *c; c++) {
        bool last = c[1] == 0;
        if (!(c[0] == '/' && c != copy) && !last)
            continue;
        char kept = *c;
        if (!last)
            *c = 0;
        // What exists is left alone, so that a parent that may not be written is no error.
        if (!dir_exists(copy)) {
            if (mkdir(copy, last ? mode : 0777) == 0)
                ok = parent_sync(copy);
            else if (errno != EEXIST || !dir_exists(copy)) // another process may have been quicker
                ok = fail("%s: the folder cannot be made: %s", copy, strerror(errno));
        }
        *c = kept;
    }
    free(copy);
    return ok;
}

bool dir_make(const char *path) { return make_with_parents(path, 0777); }

bool dir_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail("%s: the folder cannot be opened: %s", path, strerror(errno));
    // Some file systems have no fsync for folders and say EINVAL: there is nothing more to be done on those.
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    int error = errno;
    close(fd);
    return ok || fail("%s: the folder cannot be synchronised: %s", path, strerror(error));
}

char *path_join(const char *dir, const char *name) {
    size_t length = strlen(dir);
    if (name[0] == '/' || length == 0)
        return xstrdup(name);
    return xsprintf("%s%s%s", dir, dir[length - 1] == '/' ? "" : "/", name);
}

const char *cache_dir(void) {
    static char path[PATH_MAX];
    if (path[0])
        return path;
    const char *own = getenv("VKMOE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && own[0])
        snprintf(path, sizeof path, "%s", own);
    else if (xdg && xdg[0])
        snprintf(path, sizeof path, "%s/vkmoe", xdg);
    else
        snprintf(path, sizeof path, "%s/.cache/vkmoe", home && home[0] ? home : ".");
    bool before = fail_quiet(true), made = make_with_parents(path, 0700);
    fail_quiet(before);
    if (!made) // its users carry on without
        warn("%s: nothing is cached", last_failure);
    return path;
}

double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- Hashes ----

static uint64_t load_u64(const uint8_t *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

// The two halves of a 128-bit product, folded: every input bit reaches every output bit in one multiplication.
static uint64_t multiply_fold(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 Wide;
    Wide product = (Wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed) {
    const uint64_t odd_a = 0x9e3779b97f4a7c15u, odd_b = 0xd1b54a32d192ed03u;
    const uint8_t *from = data;
    uint64_t hash = seed ^ odd_b, left = bytes;
    for (; left >= 8; left -= 8, from += 8)
        hash = multiply_fold(hash ^ load_u64(from), odd_a) + odd_b;
    uint8_t tail[8] = {0};
    if (left)
        memcpy(tail, from, left);
    hash = multiply_fold(hash ^ load_u64(tail), odd_a) + odd_b;
    hash = multiply_fold(hash ^ bytes, odd_b);
    return multiply_fold(hash ^ (hash >> 29), odd_a);
}

static const uint32_t SHA256_ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate_right(uint32_t x, unsigned by) { return x >> by | x << (32 - by); }

static void sha256_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t v[8];
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate_right(v[4], 6) ^ rotate_right(v[4], 11) ^ rotate_right(v[4], 25);
        uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t t1 = v[7] + s1 + choice + SHA256_ROUND[i] + w[i];
        uint32_t s0 = rotate_right(v[0], 2) ^ rotate_right(v[0], 13) ^ rotate_right(v[0], 22);
        uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + s0 + majority;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

void sha256_begin(struct Sha256 *s) {
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->state, first, sizeof first);
    s->bytes = 0;
}

void sha256_add(struct Sha256 *s, const void *data, size_t bytes) {
    const uint8_t *from = data;
    size_t held = s->bytes % 64;
    s->bytes += bytes;
    if (held) {
        size_t part = bytes < 64 - held ? bytes : 64 - held;
        if (part)
            memcpy(s->block + held, from, part);
        if (held + part < 64)
            return;
        sha256_block(s->state, s->block);
        from += part;
        bytes -= part;
    }
    for (; bytes >= 64; bytes -= 64, from += 64)
        sha256_block(s->state, from);
    if (bytes)
        memcpy(s->block, from, bytes);
}

void sha256_end(struct Sha256 *s, char hex[65]) {
    uint64_t bits = s->bytes * 8;
    uint8_t tail[72] = {0x80};
    size_t zeros = (119 - s->bytes % 64) % 64; // up to the last 8 bytes of a block
    for (int i = 0; i < 8; i++)
        tail[1 + zeros + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(s, tail, 1 + zeros + 8);
    for (int i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08x", s->state[i]);
}

// ---- Random numbers ----

void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c[0] * 0xd2511f53u, b = (uint64_t)c[2] * 0xcd9e8d57u;
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key[1],
                            (uint32_t)a};
        memcpy(c, next, sizeof c);
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    memcpy(out, c, sizeof c);
}

float random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[4];
    philox(seed, stream, index, words);
    return (float)(words[0] >> 8) * 0x1p-24f;
}

// Box and Muller's transform of the first two words.
float random_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[4];
    philox(seed, stream, index, words);
    double u = ((double)words[0] + 1.0) * 0x1p-32, v = (double)words[1] * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

enum { QUANTILES = 65536 };
static float quantiles[QUANTILES];

// Quantile i lies in the middle of the i-th of equal shares: Newton's method from its neighbour, whose distribution function is known.
static void quantiles_make(void) {
    double x = 0;
    for (int i = QUANTILES / 2; i < QUANTILES; i++) {
        double above = (QUANTILES - i - 0.5) / QUANTILES;
        for (int step = 0; step < 4; step++)
            x += (erfc(x * 0.7071067811865476) / 2 - above) / (exp(-x * x / 2) * 0.3989422804014327);
        quantiles[i] = (float)x;
        quantiles[QUANTILES - 1 - i] = -quantiles[i];
    }
}

void random_normals(uint64_t seed, uint64_t stream, uint64_t first, uint64_t n, float scale, float *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, quantiles_make);
    uint32_t words[4];
    for (uint64_t i = first; i < first + n; i++) {
        if (i == first || i % 8 == 0)
            philox(seed, stream, i / 8, words);
        out[i - first] = scale * quantiles[words[i % 8 / 2] >> (i % 2 * 16) & 0xffff];
    }
}
