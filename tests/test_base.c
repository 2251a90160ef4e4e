// The ground floor: published answers for SHA-256 (FIPS 180-4) and Philox 4x32-10 (Random123), checked arithmetic at
// its edges, and files that are written whole or not at all.
#include "check.h"
#include "runtime/hostmem.h"
#include "runtime/temporary.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "test-base-XXXXXX";

static void test_errors(void) {
    fail_quiet(true);
    CHECK(!fail("%s: line %d\n\x1b[31mred", "file", 7), "fail gives false");
    CHECK(strcmp(fail_last(), "file: line 7??[31mred") == 0, "found '%s'", fail_last());
    fail("\xc2\x9b"
         "31m \xc2\xa9"); // a control character of two bytes, and one that is none
    CHECK(strcmp(fail_last(), "??31m \xc2\xa9") == 0, "found '%s'", fail_last());
    fail("file: line %d\n\x1b[31mred", 7);
    fail("again: %s", fail_last()); // its own buffer as an argument
    CHECK(strcmp(fail_last(), "again: file: line 7??[31mred") == 0, "found '%s'", fail_last());
    char long_text[5000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    fail("%s", long_text);
    CHECK(strlen(fail_last()) == 2047, "found %zu", strlen(fail_last()));
    fail_quiet(false);
}

static void test_arithmetic(void) {
    uint64_t out = 5;
    CHECK(ckd_add(UINT64_MAX - 1, 1, &out) && out == UINT64_MAX, "out %llu", (unsigned long long)out);
    CHECK(!ckd_add(UINT64_MAX, 1, &out) && out == UINT64_MAX, "the output is untouched when the sum does not fit");
    CHECK(ckd_mul(1ull << 32, (1ull << 32) - 1, &out) && out == UINT64_MAX - ((1ull << 32) - 1), "out %llu",
          (unsigned long long)out);
    CHECK(!ckd_mul(1ull << 32, 1ull << 32, &out), "2^64 does not fit");
    CHECK(ckd_mul(UINT64_MAX, 0, &out) && out == 0, "out %llu", (unsigned long long)out);
    CHECK(align_up(0, 64) == 0 && align_up(1, 64) == 64 && align_up(64, 64) == 64 && align_up(7, 3) == 9, "align_up");
    CHECK(div_up(0, 3) == 0 && div_up(1, 3) == 1 && div_up(3, 3) == 1 && div_up(4, 3) == 2, "div_up");
    char *text = xsprintf("%d and %s", 12, "more");
    CHECK(strcmp(text, "12 and more") == 0, "found '%s'", text);
    free(text);
}

static void check_sha256(const char *text, size_t repeat, size_t piece, const char *expected) {
    struct Sha256 s;
    char hex[65];
    size_t length = strlen(text), total = length * repeat;
    char *all = xmalloc(total + 1);
    for (size_t i = 0; i < repeat; i++)
        memcpy(all + i * length, text, length);
    sha256_begin(&s);
    for (size_t i = 0; i < total; i += piece)
        sha256_add(&s, all + i, piece < total - i ? piece : total - i);
    sha256_end(&s, hex);
    CHECK(strcmp(hex, expected) == 0, "in pieces of %zu: found %s", piece, hex);
    free(all);
}

static void test_hashes(void) {
    const char *empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const char *abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const char *two = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
    const char *million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    const size_t pieces[] = {1, 3, 55, 56, 63, 64, 65, 1000000};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        check_sha256("", 1, pieces[i], empty);
        check_sha256("abc", 1, pieces[i], abc);
        check_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, pieces[i], two);
        check_sha256("a", 1000000, pieces[i], million);
    }
    // The quick hash: each single bit of a block, and its length, changes about half of the bits.
    uint8_t data[64] = {0};
    uint64_t plain = hash_bytes(data, sizeof data, 1);
    CHECK(plain == hash_bytes(data, sizeof data, 1), "the same bytes give the same hash");
    CHECK(plain != hash_bytes(data, sizeof data, 2), "the seed counts");
    CHECK(hash_bytes(data, 0, 1) != hash_bytes(data, 1, 1), "a zero byte counts");
    double changed = 0;
    for (int bit = 0; bit < 512; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int bits = __builtin_popcountll(plain ^ hash_bytes(data, sizeof data, 1));
        CHECK(bits >= 12 && bits <= 52, "bit %d changes %d bits of the hash", bit, bits);
        changed += bits;
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_NEAR(changed / 512, 32, 1.5, 0);
}

static void check_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t a, uint32_t b, uint32_t c,
                         uint32_t d) {
    uint32_t w[4];
    philox(seed, stream, index, w);
    CHECK(w[0] == a && w[1] == b && w[2] == c && w[3] == d, "found %08x %08x %08x %08x", w[0], w[1], w[2], w[3]);
}

static void test_random(void) {
    check_philox(0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    check_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    check_philox(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
                 0x24126ea1);
    enum { N = 100000 };
    double sum = 0, squares = 0, uniform = 0, fourth = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = random_normal(7, 3, i), u = random_uniform(7, 4, i);
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
        uniform += u;
        if (!(u >= 0 && u < 1))
            CHECK(false, "uniform %g", u);
    }
    CHECK_NEAR(sum / N, 0, 0.02, 0);
    CHECK_NEAR(squares / N, 1, 0.03, 0);
    CHECK_NEAR(fourth / N, 3, 0.15, 0);
    CHECK_NEAR(uniform / N, 0.5, 0.005, 0);
}

static unsigned files_in(const char *path) {
    unsigned count = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        count += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}

static void test_files(void) {
    if (!CHECK(mkdtemp(folder) != NULL, "no folder for the test"))
        return;
    char *path = path_join(folder, "a.bin");
    uint8_t *data;
    uint64_t bytes;
    CHECK(file_write_atomic(path, "first", 5), "%s", fail_last());
    CHECK(file_write_atomic(path, "second\0x", 8), "%s", fail_last());
    CHECK(file_read(path, 8, &data, &bytes) && bytes == 8 && memcmp(data, "second\0x", 9) == 0, "read back");
    free(data);
    fail_quiet(true);
    CHECK(!file_read(path, 7, &data, &bytes), "larger than the limit");
    CHECK(strstr(fail_last(), path) && strstr(fail_last(), "7 bytes"), "found '%s'", fail_last());
    CHECK(!file_read(folder, 100, &data, &bytes) && strstr(fail_last(), "folder"), "found '%s'", fail_last());
    char *missing = path_join(folder, "no/file");
    CHECK(!file_read(missing, 100, &data, &bytes) && strstr(fail_last(), missing), "found '%s'", fail_last());
    CHECK(!file_write_atomic(missing, "x", 1) && strstr(fail_last(), missing), "found '%s'", fail_last());
    // A disk that is full: the old content stays and nothing is left beside it.
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {4, 4};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    bool written = file_write_atomic(path, "third and longer", 16);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(!written && strstr(fail_last(), path), "found '%s'", fail_last());
    fail_quiet(false);
    CHECK(file_read(path, 100, &data, &bytes) && bytes == 8, "the old content stays");
    free(data);
    CHECK(files_in(folder) == 1, "%u files, one expected", files_in(folder));

    char *deep = path_join(folder, "x/y/z");
    CHECK(dir_make(deep) && dir_exists(deep) && dir_make(deep), "folders with parents, twice");
    CHECK(!file_exists(deep) && file_exists(path) && !dir_exists(path), "a file is not a folder");
    char *absolute = path_join("/a", "/b"), *slashed = path_join("/a/", "b");
    CHECK(strcmp(absolute, "/b") == 0 && strcmp(slashed, "/a/b") == 0, "%s %s", absolute, slashed);
    for (const char *c = "zyx"; *c; c++) {
        rmdir(deep);
        *strrchr(deep, '/') = 0;
    }
    char *cache = path_join(folder, "cache");
    setenv("VKMOE_CACHE", cache, 1);
    CHECK(strcmp(cache_dir(), cache) == 0 && dir_exists(cache), "cache at %s", cache_dir());
    rmdir(cache);
    unlink(path);
    free(path), free(missing), free(deep), free(absolute), free(slashed), free(cache);
}

// What is behind a link is replaced, not the link; what is no file is written into.
static void test_write_through(void) {
    char *at = path_join(folder, "at"), *link = path_join(folder, "link"), *far = path_join(folder, "far"),
         *pipe = path_join(folder, "pipe"), *device = path_join(folder, "full"), got[8] = "";
    struct stat st;
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    if (!CHECK(mkdir(folder, 0700) == 0 && symlink("at", link) == 0 && symlink("link", far) == 0 &&
                   mkfifo(pipe, 0600) == 0,
               "no folder for the test"))
        return;
    for (int i = 0; i < 2; i++) // to nothing yet, and over what is there
        CHECK(file_write_atomic(far, i ? "second" : "first", 6) && lstat(far, &st) == 0 && S_ISLNK(st.st_mode) &&
                  lstat(link, &st) == 0 && S_ISLNK(st.st_mode) && lstat(at, &st) == 0 && S_ISREG(st.st_mode),
              "through links: %s", fail_last());
    CHECK(file_read(at, 6, &data, &bytes) && memcmp(data, "second", 6) == 0, "%s", fail_last());
    free(data);
    int fd = open(pipe, O_RDWR); // so that nobody waits
    CHECK(fd >= 0 && file_write_atomic(pipe, "piped", 5) && lstat(pipe, &st) == 0 && S_ISFIFO(st.st_mode), "a pipe: %s",
          fail_last());
    CHECK(fd >= 0 && S_ISFIFO(st.st_mode) && read(fd, got, 5) == 5 && memcmp(got, "piped", 5) == 0, "read '%s'", got);
    close(fd);
    if (mknod(device, S_IFCHR | 0600, makedev(1, 7)) == 0) { // a /dev/full of our own, which takes an administrator
        fail_quiet(true);
        bool put = file_write_atomic(device, "lost", 4);
        fail_quiet(false);
        CHECK(!put && strstr(fail_last(), device) && lstat(device, &st) == 0 && S_ISCHR(st.st_mode), "a device: '%s'",
              fail_last());
    }
    CHECK(!dir_exists(at) && files_in(folder) == (unsigned)(file_exists(device) ? 5 : 4), "%u files", files_in(folder));
    unlink(at), unlink(link), unlink(far), unlink(pipe), unlink(device);
    CHECK(rmdir(folder) == 0, "the folder is left clean");
    free(at), free(link), free(far), free(pipe), free(device);
}

static void put_file(const char *path) {
    FILE *f = fopen(path, "w");
    CHECK(f && fputs("left", f) >= 0 && fclose(f) == 0, "%s", path);
}

// A link goes alone, whatever it is called: neither what it leads to nor the files of that folder are ours.
static void test_links(void) {
    char *kept = path_join(folder, "kept"), *file = path_join(kept, "file"), *path = path_join(folder, "a.gguf");
    pid_t gone = fork();
    if (gone == 0)
        _exit(0);
    waitpid(gone, NULL, 0);
    char *stale = xsprintf("%s.tmp%ld", path, (long)gone), *own = xsprintf("%s.tmp%ld", path, (long)getpid());
    CHECK(dir_make(kept), "%s", fail_last());
    put_file(file);
    CHECK(symlink("kept", stale) == 0 && symlink("kept/file", own) == 0, "no links for the test");
    fail_quiet(true);
    CHECK(file_write_atomic(path, "new", 3), "%s", fail_last());
    fail_quiet(false);
    uint8_t *data = NULL;
    uint64_t bytes = 0;
    CHECK(file_read(file, 100, &data, &bytes) && bytes == 4, "what links of temporary names lead to was touched");
    free(data);
    CHECK(files_in(folder) == 2, "%u names, the file and the folder expected", files_in(folder));
    char *hidden = path_join(kept, ".hidden");
    put_file(hidden);
    CHECK(symlink("kept", own) == 0, "no link for the test");
    path_remove(own);
    CHECK(files_in(folder) == 2 && file_exists(file), "a link to a folder");
    path_remove(kept);
    path_remove(path);
    CHECK(rmdir(folder) == 0 && mkdir(folder, 0700) == 0, "the folder is left clean");
    free(kept), free(file), free(path), free(stale), free(own), free(hidden);
}

static void check_parts(const char *path, const char *parent, const char *name) {
    char *p = path_parent(path), *n = path_name(path);
    CHECK(strcmp(p, parent) == 0 && strcmp(n, name) == 0, "%s: '%s' and '%s'", path, p, n);
    free(p), free(n);
}

static void test_paths(void) {
    check_parts("run", ".", "run");
    check_parts("run/", ".", "run");
    check_parts("a/b//", "a", "b");
    check_parts("/a", "/", "a");
    check_parts("/a/", "/", "a");
    check_parts("/", "/", "/");
}

// What a killed process left under a temporary name goes when the file is made again; what another one still writes, and names that are like it, stay.
static void test_stale(void) {
    static const char *const STAY[] = {"a.gguf.tmp%ld7x", "b.gguf.tmp%ld", "a.gguf.tmp", "a.gguf.tmp0%ld"};
    char *path = path_join(folder, "a.gguf"), *model = path_join(folder, "model"), *names[8];
    pid_t gone = fork();
    if (gone == 0)
        _exit(0);
    waitpid(gone, NULL, 0);
    for (int i = 0; i < 4; i++) {
        char *name = xsprintf(STAY[i], (long)gone);
        names[i] = path_join(folder, name);
        free(name);
        put_file(names[i]);
    }
    names[4] = xsprintf("%s.tmp%ld", path, (long)getppid());
    names[5] = xsprintf("%s.tmp%ld", path, (long)gone);
    names[6] = xsprintf("%s.tmp%ld", model, (long)gone);
    names[7] = xsprintf("%s.tmp%ld", names[5], (long)gone); // made within another
    put_file(names[4]), put_file(names[5]), put_file(names[7]);
    CHECK(dir_make(names[6]), "%s", fail_last());
    char *inside = path_join(names[6], "config.json");
    put_file(inside);
    struct Temporary t;
    fail_quiet(true);
    temporary_name(&t, model);
    CHECK(file_write_atomic(path, "new", 3) && dir_make(t.path), "%s", fail_last());
    fail_quiet(false);
    CHECK(!file_exists(names[5]) && !dir_exists(names[6]) && !file_exists(names[7]),
          "what a killed process left is still there");
    CHECK(dir_exists(t.path), "the new folder");
    temporary_drop(&t);
    for (int i = 0; i < 5; i++)
        CHECK(file_exists(names[i]) && unlink(names[i]) == 0, "%s is gone", names[i]);
    unlink(path);
    CHECK(rmdir(folder) == 0, "the folder is left clean");
    for (int i = 0; i < 8; i++)
        free(names[i]);
    free(path), free(model), free(inside);
}

// The program ends while a file and a folder are being written: neither is left, and a file that is whole stays.
static void test_exhausted(void) {
    char *path = path_join(folder, "file"), *model = path_join(folder, "model"), *whole = path_join(folder, "whole");
    int status = 0;
    if (!CHECK(mkdir(folder, 0700) == 0, "no folder for the test"))
        return;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct Temporary a, b;
        int fd = temporary_file(&a, path);
        temporary_name(&b, model);
        char *inside = dir_make(b.path) ? path_join(b.path, "config.json") : NULL;
        bool ok = fd >= 0 && inside && file_write_atomic(inside, "{}", 2) && file_write_atomic(whole, "x", 1) &&
                  files_in(folder) == 3;
        if (!freopen("/dev/null", "w", stderr) || !ok)
            _exit(7);
        heap_exhausted(1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %d", status);
    CHECK(file_exists(whole) && files_in(folder) == 1, "%u files, one expected", files_in(folder));
    unlink(whole);
    CHECK(rmdir(folder) == 0, "the folder is left clean");
    free(path), free(model), free(whole);
}

// ---- Main memory

static void tell(const char *file, const char *text) {
    char *path = path_join(folder, file), *parent = path_parent(path);
    CHECK(dir_make(parent) && file_write_atomic(path, text, strlen(text)), "%s", fail_last());
    free(path), free(parent);
}

static void check_available(uint64_t want, const char *what) {
    uint64_t got = hostmem_available_bytes(folder);
    CHECK(got == want, "%s: %llu bytes, not %llu", what, (unsigned long long)got, (unsigned long long)want);
}

// What control groups leave: of this process's own and of those above it the least, files that are only remembered being no use of it.
static void test_memory(void) {
    check_available(UINT64_MAX, "nothing is known");
    tell("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n");
    check_available(4096000, "the machine alone");
    tell("proc/self/cgroup", "0::/a/b\n");
    check_available(4096000, "a group without limits");
    tell("sys/fs/cgroup/a/b/memory.max", "max\n");
    tell("sys/fs/cgroup/a/b/memory.current", "900000\n");
    check_available(4096000, "a group with the limit max");
    tell("sys/fs/cgroup/a/memory.max", "3000000\n");
    tell("sys/fs/cgroup/a/memory.current", "1000000\n");
    check_available(2000000, "a limit above");
    tell("sys/fs/cgroup/a/memory.stat", "file 700000\ninactive_file 400000\nactive_file 300000\n");
    check_available(2400000, "files make room");
    tell("sys/bus/pci/devices/0000:c5:00.0/mem_info_vram_total", "536870912\n");
    CHECK(hostmem_carved_out_bytes(folder, "0000:c5:00.0") == 0, "how much is used is not known");
    tell("sys/bus/pci/devices/0000:c5:00.0/mem_info_vram_used", "36870912\n");
    CHECK(hostmem_carved_out_bytes(folder, "0000:c5:00.0") == 500000000, "what the firmware keeps, less what is used");
    CHECK(hostmem_carved_out_bytes(folder, "0000:03:00.0") == 0, "another card");
    tell("sys/fs/cgroup/a/b/memory.max", "800000\n");
    check_available(0, "more than the limit is used");
    tell("sys/fs/cgroup/memory.max", "5000000\n");
    tell("proc/self/cgroup", "0::/elsewhere/x\n");
    check_available(4096000, "the machine has less than the limit");
    tell("sys/fs/cgroup/memory.max", "1000\n");
    check_available(1000, "the uppermost, as a container sees its own");
    tell("sys/fs/cgroup/memory.max", "max\n");
    tell("proc/self/cgroup", "5:cpuset:/c\n4:cpu,memory:/c\n1:name=systemd:/c\n0::/\n");
    tell("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    tell("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "2000000\n");
    tell("sys/fs/cgroup/memory/c/memory.usage_in_bytes", "600000\n");
    tell("sys/fs/cgroup/memory/c/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n");
    check_available(1500000, "version 1");
    char *remove = xsprintf("rm -r '%s'", folder);
    CHECK(system(remove) == 0, "%s", remove);
    free(remove);
}

int main(void) {
    test_errors();
    test_arithmetic();
    test_hashes();
    test_random();
    test_files();
    test_paths();
    test_links();
    test_stale();
    test_write_through();
    test_exhausted();
    test_memory();
    double start = clock_seconds();
    usleep(2000);
    CHECK(clock_seconds() - start >= 0.002 && clock_seconds() - start < 5, "the clock runs");
    return check_done();
}
