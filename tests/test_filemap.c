// Files as device memory: what a range of one says to a kernel and to the host, pieces that overlap, what is refused, a file that shrinks;
// and models whose weights are read where they are: which of them, and that no bit of an answer changes.
#include "check.h"
#include "files.h"
#include "model/experts.h"
#include "model/modelwrite.h"
#include "model/session.h"
#include "runtime/cmd.h"
#include "runtime/filemap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_BYTES = (5 << 20) + 1002, TOKENS = 48 };

static uint8_t byte_at(uint64_t i) { return (uint8_t)(i * 37 + i / 251 + i / 65536 * 11); }

static void pattern_write(const char *path) {
    uint8_t *data = xmalloc(FILE_BYTES);
    for (uint64_t i = 0; i < FILE_BYTES; i++)
        data[i] = byte_at(i);
    CHECK(file_write_atomic(path, data, FILE_BYTES), "%s", fail_last());
    free(data);
}

static uint64_t bytes_wrong(const uint8_t *found, uint64_t offset, uint64_t bytes) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < bytes && offset + i < FILE_BYTES; i++)
        wrong += found[i] != byte_at(offset + i);
    return wrong;
}

// ---- Ranges

// A range as the host reads it and as a kernel does.
static void check_range(struct Device *dev, struct FileMap *map, uint64_t offset, uint64_t bytes) {
    struct Arena arena;
    struct Tensor from = tensor_shape(DT_U32, 1, (uint32_t[]){(uint32_t)(bytes / 4)});
    uint8_t *host = xmalloc(bytes);
    from.address = filemap_address(map, offset, bytes);
    arena_init(&arena, dev, "test", ARENA_DEVICE);
    struct Tensor to = TENSOR(&arena, DT_U32, (uint32_t)(bytes / 4));
    if (CHECK(from.address, "%llu bytes at %llu have no address", (unsigned long long)bytes,
              (unsigned long long)offset)) {
        CHECK(tensor_download(dev, &from, 0, host, bytes) && bytes_wrong(host, offset, bytes) == 0,
              "the host reads something else at %llu", (unsigned long long)offset);
        struct Cmd *c = cmd_begin(dev, "test");
        cmd_copy(c, &from, &to);
        struct Program *p = cmd_end(c);
        CHECK(p && program_run(p) && tensor_download(dev, &to, 0, host, bytes) && bytes_wrong(host, offset, bytes) == 0,
              "a kernel reads something else at %llu", (unsigned long long)offset);
        program_free(p);
    }
    arena_free(&arena);
    free(host);
}

// Nothing writes to a file: the transfers refuse, and where the processor computes the pages are read-only besides.
static void check_refusals(struct Device *dev, struct FileMap *map) {
    struct Arena arena;
    struct Tensor t = tensor_shape(DT_U32, 1, (uint32_t[]){64});
    uint32_t words[64] = {1};
    t.address = filemap_address(map, 4096, t.bytes);
    arena_init(&arena, dev, "test", ARENA_DEVICE);
    struct Tensor other = TENSOR(&arena, DT_U32, 64);
    struct TensorCopy copy = {&other, &t, 0, 0, t.bytes};
    fail_quiet(true);
    CHECK(refused(tensor_upload(dev, &t, 0, words, sizeof words), "cannot be written"), "%s", fail_last());
    CHECK(refused(upload_room(dev, &t, 0, 16) != NULL, "cannot be written"), "%s", fail_last());
    CHECK(refused(tensors_copy(dev, &copy, 1), "cannot be written"), "%s", fail_last());
    fail_quiet(false);
    CHECK(dev->state == DEVICE_OK, "the device goes on");
    arena_free(&arena);
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    uint32_t found = 0, writable = 0;
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "filemap.bin"))
            found++, writable += strstr(line, " r--p ") == NULL;
    if (maps)
        fclose(maps);
    CHECK(found && (writable == 0 || !dev->is_cpu), "%u mappings, %u writable", found, writable);
}

static void test_ranges(struct Device *dev, const char *path) {
    int fd = open(path, O_RDONLY);
    struct FileMap *map = filemap_open(dev, fd, FILE_BYTES, path);
    if (!CHECK(map, "a regular file is mapped"))
        return;
    close(fd); // the mapping stands by itself
    check_range(dev, map, 0, 4096);
    check_range(dev, map, 16, 20);
    check_range(dev, map, 4096 * 3 + 4080, 70000);
    check_range(dev, map, FILE_BYTES / 16 * 16, 12); // ends 2 bytes behind the file, as a row of three halves does
    CHECK(dev->mapped_bytes == 4096 + 20 + 70000 + 12, "%llu bytes counted", (unsigned long long)dev->mapped_bytes);
    for (uint64_t odd = 1; odd < 16; odd++)
        CHECK(!filemap_address(map, 4096 + odd, 64), "offset %llu is mapped", (unsigned long long)odd);
    CHECK(!filemap_address(map, 1 << 30, 64), "a range behind the file is mapped");
    check_refusals(dev, map);
    filemap_close(map);
    CHECK(dev->mapped_bytes == 0, "%llu bytes are still counted", (unsigned long long)dev->mapped_bytes);
    // A driver of small allocations: pieces of 3 MiB, the padding in them, that overlap by what a range needs.
    uint64_t most = dev->limits.max_allocation_bytes, step = 100 << 10, range = 400 << 10;
    dev->limits.max_allocation_bytes = UINT64_C(3) << 20;
    fd = open(path, O_RDONLY);
    map = filemap_open(dev, fd, FILE_BYTES, path);
    for (uint64_t at = 0; map && at + range < FILE_BYTES; at += step + 16)
        check_range(dev, map, at, range);
    CHECK(map && !filemap_address(map, 0, 3 << 20), "a range as large as an allocation is mapped");
    filemap_close(map);
    dev->limits.max_allocation_bytes = most;
    device_switch(dev, CAP_file_map, false);
    CHECK(!filemap_open(dev, fd, FILE_BYTES, path), "mapped although it is switched off");
    device_switch(dev, CAP_file_map, true);
    close(fd);
    fd = open("/proc/self", O_RDONLY | O_DIRECTORY);
    CHECK(!filemap_open(dev, fd, 4096, "/proc/self") && dev->state == DEVICE_OK, "what cannot be mapped is mapped");
    close(fd);
}

// In a process of its own, where a file is made shorter and then read, or what is behind its end on its last page: it ends with status 1 and one line.
static void test_shrinking(const char *path, const char *told, bool behind) {
    pid_t child = fork();
    if (child == 0) {
        struct Device dev;
        uint8_t word[4];
        int fd = open(path, O_RDWR);
        if (!freopen(told, "w", stderr) || !device_open(&dev, NULL) || !device_can(&dev, CAP_file_map))
            _exit(77);
        uint64_t bytes = behind ? FILE_BYTES / 4096 * 4096 - 4000 : FILE_BYTES;
        if (behind && !dev.is_cpu) // a processor's addresses are the host's
            _exit(77);
        struct FileMap *map = filemap_open(&dev, fd, bytes, path);
        struct Tensor t = tensor_shape(DT_U32, 1, (uint32_t[]){1});
        t.address = map ? filemap_address(map, behind ? bytes - 16 : 4 << 20, 4) : 0;
        if (ftruncate(fd, 4096) == 0 && t.address && behind)
            word[0] = *(volatile uint8_t *)(uintptr_t)(t.address + 112);
        else if (t.address)
            tensor_download(&dev, &t, 0, word, sizeof word);
        _exit(5); // nobody noticed
    }
    int status = 0;
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        check_skip("no device that maps files");
        return;
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "a file that shrinks: wait status %#x", status);
    char *want = xsprintf("vkmoe: %s: was made shorter, or cannot be read any more, while it was in use\n", path);
    CHECK(file_read(told, 4096, &text, &bytes) && strcmp((char *)text, want) == 0, "it says '%s'", (char *)text);
    free(text), free(want);
}

// ---- Models

struct Answer {
    float scores[TOKENS];
    uint64_t taken; // of the arenas
    uint32_t n_mapped;
};

// `wanted`: which of the weights must be mapped; NULL: any may.
static bool answer(struct Device *dev, const char *path, const struct ModelOptions *o,
                   bool (*wanted)(const struct WeightSpec *w), struct Answer *a) {
    struct ModelFile f;
    struct Model m, counted;
    struct Session s;
    struct Device dry;
    uint32_t ids[TOKENS], words[4];
    memset(a, 0, sizeof *a);
    if (!CHECK(modelfile_open(&f, path), "%s", fail_last()))
        return false;
    bool ok = model_load(&m, dev, &f, o);
    device_open_dry(&dry, dev);
    if (CHECK(ok && model_load(&counted, &dry, &f, o), "%s: %s", path, fail_last())) {
        CHECK(dry.mapped_bytes == dev->mapped_bytes, "%s: planned %llu bytes mapped, %llu are", path,
              (unsigned long long)dry.mapped_bytes, (unsigned long long)dev->mapped_bytes);
        model_free(&counted);
    }
    modelfile_close(&f); // nothing of it is needed any more
    if (!ok)
        return false;
    a->taken = m.arena.used_bytes + m.host.used_bytes;
    for (uint32_t i = 0; i < m.n_params; i++) {
        a->n_mapped += m.params[i].mapped;
        if (wanted)
            CHECK(m.params[i].mapped == (o->map && wanted(&m.params[i].spec)), "%s: %s is%s mapped", path,
                  m.params[i].spec.name, m.params[i].mapped ? "" : " not");
    }
    for (uint32_t i = 0; i < TOKENS; i++) {
        philox(3, 1, i, words);
        ids[i] = words[0] % m.config.vocab_size;
    }
    struct SessionOptions options = {.n_sequences = 1, .context = TOKENS, .chunk = 16, .scoring = true};
    ok = session_init(&s, &m, &options) && session_score(&s, ids, TOKENS, a->scores);
    CHECK(ok, "%s: %s", path, fail_last());
    a->scores[0] = 0; // NAN
    session_free(&s);
    model_free(&m);
    CHECK(dev->mapped_bytes == 0, "%s: %llu bytes stay mapped", path, (unsigned long long)dev->mapped_bytes);
    return ok;
}

// Copied and mapped, wherever else weights lie.
static void check_same(struct Device *dev, const char *path, enum DType type,
                       bool (*wanted)(const struct WeightSpec *w)) {
    static const struct { uint32_t host_layers, slots; } PLACES[] = {{0, 0}, {1, 0}, {0, 1}};
    struct Answer copied, mapped;
    struct ModelOptions o = {.type = type};
    bool ok = answer(dev, path, &o, wanted, &copied);
    o.map = true;
    for (size_t i = 0; ok && i < sizeof PLACES / sizeof *PLACES; i++) {
        o.host_layers = PLACES[i].host_layers, o.expert_slots = PLACES[i].slots;
        ok = answer(dev, path, &o, wanted, &mapped);
        CHECK(memcmp(copied.scores, mapped.scores, sizeof copied.scores) == 0, "%s: mapped, it says something else",
              path);
        CHECK(i > 0 || mapped.n_mapped == 0 || mapped.taken < copied.taken,
              "%s: %llu bytes taken with %u weights mapped, %llu without", path, (unsigned long long)mapped.taken,
              mapped.n_mapped, (unsigned long long)copied.taken);
    }
    CHECK(copied.n_mapped == 0, "%s: mapped without being asked to", path);
}

static bool is_any(const struct WeightSpec *w) { return w->n_dims > 0; }
static bool is_none(const struct WeightSpec *w) { return w->n_dims == 0; }
static bool is_matrix(const struct WeightSpec *w) { return !weight_is_exact(w); }
static bool is_exact(const struct WeightSpec *w) { return weight_is_exact(w); }
static bool is_without_heads(const struct WeightSpec *w) { return !weight_has_heads(w); }
static bool is_exact_without_heads(const struct WeightSpec *w) { return weight_is_exact(w) && !weight_has_heads(w); }

// The same folder with `spaces` more at the end of the header of its file.
static void header_widen(const char *dir, uint32_t spaces) {
    char *path = path_join(dir, "model.safetensors");
    uint8_t *data = NULL;
    uint64_t bytes = 0, header = 0;
    if (CHECK(file_read(path, 1 << 30, &data, &bytes), "%s", fail_last())) {
        memcpy(&header, data, 8);
        uint8_t *wide = xmalloc(bytes + spaces);
        memset(wide, ' ', bytes + spaces);
        memcpy(wide, data, 8 + header);
        memcpy(wide + 8 + header + spaces, data + 8 + header, bytes - 8 - header);
        header += spaces;
        memcpy(wide, &header, 8);
        CHECK(file_write_atomic(path, wide, bytes + spaces), "%s", fail_last());
        free(wide);
    }
    free(data), free(path);
}

static void test_model(struct Device *dev, const char *work, const char *name, bool pairs) {
    char *golden = xsprintf("%s/tests/golden/%s", VKMOE_SOURCE_DIR, name);
    char *dir = path_join(work, "folder"), *gguf = path_join(work, "model.gguf");
    struct ModelFile f;
    if (!CHECK(modelfile_open(&f, golden), "%s", fail_last()))
        return;
    struct WeightSource source = modelfile_source(&f);
    CHECK(modelwrite_hf(dir, &f.config, DT_F32, &source, NULL, 0), "%s", fail_last());
    check_same(dev, dir, DT_COUNT, is_any);
    check_same(dev, dir, DT_F16, is_exact);
    check_same(dev, dir, DT_Q8_0, is_exact);
    header_widen(dir, 8); // where other programs may begin
    check_same(dev, dir, DT_COUNT, is_none);
    header_widen(dir, 8);
    check_same(dev, dir, DT_COUNT, is_any);
    remove_tree(dir);
    CHECK(modelwrite_hf(dir, &f.config, DT_BF16, &source, NULL, 0), "%s", fail_last());
    check_same(dev, dir, DT_COUNT, is_matrix); // norms and routers are f32 on the device
    remove_tree(dir);
    CHECK(modelwrite_hf(dir, &f.config, DT_F32, &source, NULL, 40000), "%s", fail_last());
    check_same(dev, dir, DT_COUNT, NULL); // several files; experts may be torn
    remove_tree(dir);
    static const enum DType TYPES[] = {DT_F32, DT_F16, DT_BF16};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        struct WriteTypes types = {.type = TYPES[i], .embed_type = DT_COUNT};
        CHECK(modelwrite_gguf(gguf, &f.config, &types, &source, NULL, "x"), "%s", fail_last());
        check_same(dev, gguf, DT_COUNT, pairs ? is_without_heads : is_any);
        if (TYPES[i] == DT_F16)
            check_same(dev, gguf, DT_BF16, pairs ? is_exact_without_heads : is_exact);
        unlink(gguf);
    }
    modelfile_close(&f);
    free(golden), free(dir), free(gguf);
}

// Who would write to a weight that is mapped is told so, and the weight stays.
static void test_param(struct Device *dev, const char *work) {
    struct ModelFile f;
    struct Model m;
    struct ModelOptions o = {.type = DT_COUNT, .map = true};
    float row[4096] = {0}, before[4096], after[4096];
    char *dir = path_join(work, "folder");
    if (CHECK(modelfile_open(&f, VKMOE_SOURCE_DIR "/tests/golden/llama-gqa"), "%s", fail_last())) {
        struct WeightSource source = modelfile_source(&f);
        CHECK(modelwrite_hf(dir, &f.config, DT_F32, &source, NULL, 0), "%s", fail_last());
        modelfile_close(&f);
    }
    if (CHECK(modelfile_open(&f, dir) && model_load(&m, dev, &f, &o), "%s", fail_last())) {
        uint32_t i = 0;
        while (i < m.n_params && !m.params[i].mapped)
            i++;
        if (CHECK(i < m.n_params, "no weight of %s is mapped", dir)) {
            fail_quiet(true);
            CHECK(param_read(dev, &m.params[i], 0, 1, before), "%s", fail_last());
            CHECK(refused(param_write(dev, &m.params[i], 0, 1, row), "cannot be written"), "%s", fail_last());
            fail_quiet(false);
            CHECK(param_read(dev, &m.params[i], 0, 1, after) &&
                      memcmp(before, after, 4 * (size_t)tensor_cols(&m.params[i].w)) == 0,
                  "%s: it changed", m.params[i].spec.name);
        }
        model_free(&m);
        modelfile_close(&f);
    }
    remove_tree(dir);
    free(dir);
}

int main(void) {
    char work[] = "test-filemap-XXXXXX";
    struct Device dev;
    if (!mkdtemp(work))
        return 1;
    char *path = path_join(work, "filemap.bin"), *told = path_join(work, "told");
    pattern_write(path);
    test_shrinking(path, told, false); // before a device is open here
    pattern_write(path);
    test_shrinking(path, told, true);
    if (!device_open(&dev, NULL)) {
        check_skip("no Vulkan device: %s", fail_last());
        return check_done();
    }
    pattern_write(path);
    if (device_can(&dev, CAP_file_map)) {
        test_ranges(&dev, path);
        test_model(&dev, work, "deepseek-default", true);
        test_model(&dev, work, "qwen2", false);
        test_param(&dev, work);
    } else {
        check_skip("files as device memory: %s", dev.caps[CAP_file_map].why);
        struct Answer a;
        struct ModelOptions o = {.type = DT_COUNT, .map = true};
        answer(&dev, VKMOE_SOURCE_DIR "/tests/golden/deepseek-default", &o, NULL, &a);
        CHECK(a.n_mapped == 0, "%u weights are mapped without the means", a.n_mapped);
    }
    device_close(&dev);
    remove_tree(work);
    free(path), free(told);
    return check_done();
}
