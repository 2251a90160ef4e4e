// The ground floor: how errors are told, checked arithmetic for sizes that come from files, files, hashes and the
// counter-based random numbers. Every room may use it; it knows nobody.
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// Tells one line on stderr ("vkmoe: ...") and returns false, so that a caller can write `return fail(...)`.
// The last line is kept for fail_last(), which tests and --json use. Any thread may tell one, with warn() too: lines come whole, one by one.
// fail_last() and fail_quiet() are for a thread beside which no other one works.
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *fail_last(void);
// Tells one line on stderr ("vkmoe: warning: ...").
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Silences fail() and warn() on stderr; fail_last() still works. For what is tried and may fail (a plan, a tile, a device's check of itself), and
// for tests of bad input. Returns what was before.
bool fail_quiet(bool quiet);

// Memory. An exhausted host heap ends the program with one line and status 1, from whatever thread, without exit()'s
// handlers: nothing useful can be done after it. Sizes that come from a file must be bounded by the file's size first.
void heap_exhausted(size_t bytes) __attribute__((noreturn)); // bytes: what was asked for; 0: it is not known
void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes); // checked product, zeroed
void *xrealloc(void *old, size_t bytes);
char *xstrdup(const char *text);
char *xsprintf(const char *format, ...) __attribute__((format(printf, 1, 2))); // malloc'ed
char *xvsprintf(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
// A text that is put together by fprintf: *text, malloc'ed, and *bytes are right behind fflush() and text_end().
FILE *text_begin(char **text, size_t *bytes);
void text_end(FILE *to);
bool ends_with(const char *text, const char *end);

// Checked unsigned arithmetic: false when the result does not fit; *out is then untouched.
bool ckd_add(uint64_t a, uint64_t b, uint64_t *out);
bool ckd_mul(uint64_t a, uint64_t b, uint64_t *out);
static inline uint64_t align_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}
static inline uint64_t div_up(uint64_t value, uint64_t by) { return (value + by - 1) / by; }
static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

// Files.
bool file_read(const char *path, uint64_t max_bytes, uint8_t **data, uint64_t *bytes); // malloc'ed, a 0 byte follows
// Temporary, fsync, rename, fsync dir; through links. A device or a pipe is written into.
bool file_write_atomic(const char *path, const void *data, uint64_t bytes);
bool file_exists(const char *path);
bool dir_exists(const char *path);
bool dir_make(const char *path);                    // with parents; synchronised
bool dir_sync(const char *path);                    // fsync of the folder itself
bool parent_sync(const char *path);                 // of the one that a name stands in
char *path_join(const char *dir, const char *name); // malloc'ed
char *path_parent(const char *path);                // the folder that a name stands in; malloc'ed
char *path_name(const char *path);                  // the last part, without slashes behind it; malloc'ed
char *path_without_slash(const char *path);         // at its end; malloc'ed
char *path_followed(const char *path);              // where its links lead, to something or not; malloc'ed
// Folder for what may be lost: $VKMOE_CACHE, else $XDG_CACHE_HOME/vkmoe, else ~/.cache/vkmoe; made with mode 0700.
const char *cache_dir(void);

double clock_seconds(void); // monotonic
double cpu_seconds(void);   // processor time of this process, all threads

// 64-bit hash (the FNV-1a / xor-shift family is too weak for whole files: this one mixes 8 bytes a step).
uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed);
struct Sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
};
void sha256_begin(struct Sha256 *s);
void sha256_add(struct Sha256 *s, const void *data, size_t bytes);
void sha256_end(struct Sha256 *s, char hex[65]);

// Counter-based random numbers (Philox 4x32-10; Salmon et al. 2011): the same (seed, stream, index) gives the same words on every
// device; the GLSL twin is shaders/philox.glsl. Nothing but integers is needed to repeat a run.
void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
float random_uniform(uint64_t seed, uint64_t stream, uint64_t index); // [0, 1)
float random_normal(uint64_t seed, uint64_t stream, uint64_t index);  // mean 0, deviation 1
// Elements first .. first+n-1 of a long row of normal numbers, scaled: 16 random bits each, turned by a table of the distribution's quantiles (so none
// is beyond 4.3 deviations). Thirty times as fast as random_normal; its numbers are others.
void random_normals(uint64_t seed, uint64_t stream, uint64_t first, uint64_t n, float scale, float *out);
