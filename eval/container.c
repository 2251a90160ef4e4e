// See container.h. Archives are read from memory; every length in them is checked against what is left.
#include "eval/container.h"
#include <fnmatch.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const uint64_t MAX_BYTES = UINT64_C(1) << 31; // of a file, packed or unpacked
enum { TAR_BLOCK = 512, ZIP_END_BYTES = 22, ZIP_ENTRY_BYTES = 46, ZIP_LOCAL_BYTES = 30 };

static const char *last_component(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// What the first `*` in the pattern's last component stood for.
static char *starred(const char *pattern, const char *name) {
    pattern = last_component(pattern);
    name = last_component(name);
    const char *star = strchr(pattern, '*');
    size_t before = star ? (size_t)(star - pattern) : 0, after = star ? strlen(star + 1) : 0, all = strlen(name);
    if (!star || before + after > all)
        return xstrdup("");
    return xsprintf("%.*s", (int)(all - before - after), name + before);
}

static void add(struct DataFiles *files, char *name, char *star, char *data, size_t bytes) {
    if ((files->n & (files->n - 1)) == 0)
        files->list = xrealloc(files->list, (files->n ? 2 * files->n : 1) * sizeof *files->list);
    files->list[files->n++] = (struct DataFile){name, star, data, bytes};
}

// ---- gzip (window bits 31) and raw deflate (-15)

static bool unpack(const char *data, size_t bytes, int window_bits, uint64_t most, const char *name, char **out,
                   size_t *out_bytes) {
    z_stream z = {0};
    size_t room = bytes < (1u << 20) ? 1u << 16 : min_u64(bytes * 4, most + 1), used = 0, fed = 0;
    char *to = xmalloc(room + 1);
    int status = inflateInit2(&z, window_bits);
    while (status == Z_OK || status == Z_BUF_ERROR) {
        if (z.avail_in == 0) {
            size_t part = min_u64(bytes - fed, 1u << 30);
            z.next_in = (Bytef *)(uintptr_t)(data + fed);
            z.avail_in = (uInt)part;
            fed += part;
        }
        if (used == room)
            to = xrealloc(to, (room *= 2) + 1);
        size_t part = min_u64(room - used, 1u << 30);
        z.next_out = (Bytef *)(to + used);
        z.avail_out = (uInt)part;
        status = inflate(&z, Z_NO_FLUSH);
        used += part - z.avail_out;
        if (status == Z_STREAM_END && window_bits == 31 && z.avail_in > 2 &&
            z.next_in[0] == 0x1f) // another part follows
            status = inflateReset(&z);
        else if ((status == Z_BUF_ERROR || status == Z_OK) && z.avail_in == 0 && fed == bytes && z.avail_out > 0)
            break; // it ends too early
        if (used > most)
            break;
    }
    inflateEnd(&z);
    if (status == Z_MEM_ERROR)
        heap_exhausted(0);
    if (status != Z_STREAM_END || used > most) {
        free(to);
        return fail("%s: %s", name,
                    used > most ? "unpacks to more than 2 GiB, or than its archive says"
                                : "is damaged or cut off: it cannot be unpacked");
    }
    to[used] = 0;
    *out = to;
    *out_bytes = used;
    return true;
}

// ---- tar

static bool octal(const char *field, size_t width, uint64_t *value) {
    *value = 0;
    size_t i = 0;
    while (i < width && field[i] == ' ')
        i++;
    for (; i < width && field[i] && field[i] != ' '; i++) {
        if (field[i] < '0' || field[i] > '7' || *value >> 60)
            return false;
        *value = *value * 8 + (uint64_t)(field[i] - '0');
    }
    return true;
}

static bool is_tar(const char *data, size_t bytes) { return bytes >= TAR_BLOCK && memcmp(data + 257, "ustar", 5) == 0; }

static bool wanted(const char *member, const char *name) { return !member || fnmatch(member, name, FNM_PATHNAME) == 0; }

static void add_copy(struct DataFiles *files, const char *archive, const char *name, const char *member,
                     const char *data, size_t bytes) {
    char *copy = xmalloc(bytes + 1);
    memcpy(copy, data, bytes);
    copy[bytes] = 0;
    add(files, xsprintf("%s:%s", archive, name), member ? starred(member, name) : xstrdup(""), copy, bytes);
}

static bool read_tar(struct DataFiles *files, const char *data, size_t bytes, const char *archive, const char *member) {
    char *long_name = NULL;
    bool ok = true;
    size_t at = 0;
    while (ok && at + TAR_BLOCK <= bytes && data[at]) {
        const char *head = data + at;
        uint64_t size, said, sum = 8 * ' '; // its own field counts as blanks
        for (size_t i = 0; i < TAR_BLOCK; i++)
            sum += i >= 148 && i < 156 ? 0 : (unsigned char)head[i];
        at += TAR_BLOCK;
        if (!octal(head + 148, 8, &said) || said != sum || !octal(head + 124, 12, &size) || size > bytes - at) {
            ok = fail("%s: a member of %.100s is damaged or cut off at byte %zu", archive, head, at - TAR_BLOCK);
            break;
        }
        char kind = head[156];
        if (kind == 'L') { // GNU: the next member's name
            free(long_name);
            long_name = xsprintf("%.*s", (int)min_u64(size, 4096), data + at);
        } else if (kind == 'x') { // POSIX: a line like "27 path=NAME"
            const char *line = data + at, *end = line + size, *newline;
            for (; line < end && (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1) {
                const char *blank = memchr(line, ' ', (size_t)(newline - line));
                if (blank && newline - blank > 6 && memcmp(blank, " path=", 6) == 0) {
                    free(long_name);
                    long_name = xsprintf("%.*s", (int)min_u64((uint64_t)(newline - blank - 6), 4096), blank + 6);
                }
            }
        } else if (kind == '0' || kind == 0) {
            char *name = long_name   ? long_name
                         : head[345] ? xsprintf("%.155s/%.100s", head + 345, head)
                                     : xsprintf("%.100s", head);
            if (wanted(member, name))
                add_copy(files, archive, name, member, data + at, size);
            free(name);
            long_name = NULL;
        }
        at += min_u64(align_up(size, TAR_BLOCK), bytes - at);
    }
    free(long_name);
    return ok && (at < bytes || fail("%s: is cut off: a tar archive ends with empty blocks", archive));
}

// ---- zip

static uint32_t word(const char *at, int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint32_t)(unsigned char)at[i] << 8 * i;
    return value;
}

static bool zip_member(struct DataFiles *files, const char *data, size_t bytes, const char *entry, const char *archive,
                       const char *member) {
    uint32_t method = word(entry + 10, 2), crc = word(entry + 16, 4), packed = word(entry + 20, 4);
    uint32_t size = word(entry + 24, 4), from = word(entry + 42, 4);
    char *name = xsprintf("%.*s", (int)word(entry + 28, 2), entry + ZIP_ENTRY_BYTES);
    size_t length = strlen(name);
    bool ok = true;
    uint64_t held = size;
    for (size_t i = 0; i < files->n; i++)
        held += files->list[i].bytes;
    if (length > 0 && name[length - 1] != '/' && wanted(member, name)) {
        char *label = xsprintf("%s:%s", archive, name), *out = NULL;
        size_t out_bytes = 0;
        uint64_t start = (uint64_t)from + ZIP_LOCAL_BYTES;
        if (start > bytes || (start += word(data + from + 26, 2) + word(data + from + 28, 2)) + packed > bytes)
            ok = fail("%s: reaches beyond the end of the archive", label);
        else if (held > MAX_BYTES)
            ok = fail("%s: with it the members wanted have more than 2 GiB", label);
        else if (method == 8)
            ok = unpack(data + start, packed, -15, size, label, &out, &out_bytes);
        else if (method == 0 && packed == size) {
            out_bytes = size;
            out = xmalloc(out_bytes + 1);
            memcpy(out, data + start, out_bytes);
            out[out_bytes] = 0;
        } else
            ok = fail("%s: is packed by method %u; 0 (stored) and 8 (deflate) can be read", label, method);
        if (ok && (out_bytes != size || crc32_z(0, (const Bytef *)out, out_bytes) != crc))
            ok = fail("%s: is damaged: its checksum differs", label);
        if (ok)
            add(files, label, member ? starred(member, name) : xstrdup(""), out, out_bytes);
        else
            free(label), free(out);
    }
    free(name);
    return ok;
}

static bool read_zip(struct DataFiles *files, const char *data, size_t bytes, const char *archive, const char *member) {
    if (bytes < ZIP_END_BYTES)
        return fail("%s: is cut off: a zip archive ends with its list of members", archive);
    size_t end = bytes - ZIP_END_BYTES, least = bytes > 70000 ? bytes - 70000 : 0;
    while (end > least && memcmp(data + end, "PK\5\6", 4) != 0)
        end--;
    if (memcmp(data + end, "PK\5\6", 4) != 0)
        return fail("%s: is cut off: a zip archive ends with its list of members", archive);
    uint32_t n = word(data + end + 10, 2);
    size_t at = word(data + end + 16, 4);
    for (uint32_t i = 0; i < n; i++) {
        if (at > bytes || bytes - at < ZIP_ENTRY_BYTES || memcmp(data + at, "PK\1\2", 4) != 0)
            return fail("%s: the list of its members is damaged at member %u", archive, i);
        size_t entry = ZIP_ENTRY_BYTES + word(data + at + 28, 2) + word(data + at + 30, 2) + word(data + at + 32, 2);
        if (entry > bytes - at)
            return fail("%s: the list of its members is damaged at member %u", archive, i);
        if (!zip_member(files, data, bytes, data + at, archive, member))
            return false;
        at += entry;
    }
    return true;
}

// ---- Any

bool container_read(struct DataFiles *files, const char *data, size_t bytes, const char *name, const char *member) {
    if (bytes >= 4 && memcmp(data, "PK\3\4", 4) == 0)
        return read_zip(files, data, bytes, name, member);
    if (bytes >= 2 && memcmp(data, "\x1f\x8b", 2) == 0) {
        char *out;
        size_t out_bytes;
        if (!unpack(data, bytes, 31, MAX_BYTES, name, &out, &out_bytes))
            return false;
        bool ok = true;
        if (is_tar(out, out_bytes)) {
            ok = read_tar(files, out, out_bytes, name, member);
            free(out);
        } else {
            add(files, xstrdup(name), xstrdup(""), out, out_bytes);
        }
        return ok;
    }
    if (is_tar(data, bytes))
        return read_tar(files, data, bytes, name, member);
    char *copy = xmalloc(bytes + 1);
    memcpy(copy, data, bytes);
    copy[bytes] = 0;
    add(files, xstrdup(name), xstrdup(""), copy, bytes);
    return true;
}

// One file on disk, which the part of a pattern before ':' has found.
static bool read_path(struct DataFiles *files, const char *path, const char *path_pattern, const char *member) {
    uint8_t *data;
    uint64_t bytes;
    if (!file_read(path, MAX_BYTES, &data, &bytes))
        return false;
    size_t first = files->n;
    bool ok = container_read(files, (char *)data, bytes, path, member);
    free(data);
    for (size_t i = first; ok && !member && i < files->n; i++) {
        free(files->list[i].star);
        files->list[i].star = starred(path_pattern, path);
    }
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct DataFile *)a)->name, ((const struct DataFile *)b)->name);
}

// A folder's name as it is, for glob().
static char *literal(const char *dir) {
    char *out = xmalloc(2 * strlen(dir) + 1), *to = out;
    for (; *dir; *to++ = *dir++)
        if (strchr("*?[\\", *dir))
            *to++ = '\\';
    *to = 0;
    return out;
}

static bool read_pattern(struct DataFiles *files, const char *dir, char *pattern) {
    char *colon = strchr(pattern, ':');
    if (colon)
        *colon = 0;
    char *folder = literal(dir), *path = path_join(folder, pattern);
    free(folder);
    glob_t found = {0};
    bool ok = true;
    int status = glob(path, 0, NULL, &found);
    if (status == GLOB_NOSPACE)
        heap_exhausted(0);
    if (status == 0)
        for (size_t i = 0; ok && i < found.gl_pathc; i++)
            ok = read_path(files, found.gl_pathv[i], path, colon ? colon + 1 : NULL);
    globfree(&found);
    free(path);
    if (ok && files->n > 1)
        qsort(files->list, files->n, sizeof *files->list, by_name);
    return ok;
}

bool datafiles_read(struct DataFiles *files, const char *dir, const char *pattern, const char *where) {
    *files = (struct DataFiles){0};
    char *copy = xstrdup(pattern);
    bool ok = true;
    for (char *at = copy; ok && at && files->n == 0;) {
        char *next = strstr(at, " | ");
        if (next)
            *next = 0;
        ok = read_pattern(files, dir, at);
        at = next ? next + 3 : NULL;
    }
    free(copy);
    if (ok && files->n == 0)
        ok = fail("%s: no data: there is no %s in %s", where, pattern, dir);
    if (!ok)
        datafiles_free(files);
    return ok;
}

void datafiles_free(struct DataFiles *files) {
    for (size_t i = 0; i < files->n; i++) {
        free(files->list[i].name);
        free(files->list[i].star);
        free(files->list[i].data);
    }
    free(files->list);
    *files = (struct DataFiles){0};
}
