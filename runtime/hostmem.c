// See hostmem.h. In a container the machine's figure says nothing: what counts is the limit of its control group, or of one above that.
#include "runtime/hostmem.h"

#include <stdlib.h>
#include <string.h>

// The number behind `key`, at the beginning of a line of DIR/FILE.
static uint64_t number_in(const char *dir, const char *file, const char *key, uint64_t otherwise) {
    char *path = path_join(dir, file), line[160];
    FILE *f = fopen(path, "r");
    unsigned long long value = otherwise;
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", &value) == 1;
    if (f)
        fclose(f);
    free(path);
    return value;
}

// Files that were read and are in nobody's use are counted as used, and make room when it is asked for.
static uint64_t left_in_group(const char *dir, bool v2) {
    uint64_t most = number_in(dir, v2 ? "memory.max" : "memory.limit_in_bytes", "", UINT64_MAX);
    uint64_t used = number_in(dir, v2 ? "memory.current" : "memory.usage_in_bytes", "", 0);
    uint64_t files = number_in(dir, "memory.stat", v2 ? "inactive_file " : "total_inactive_file ", 0);
    used -= min_u64(used, files);
    return most == UINT64_MAX ? most : most - min_u64(most, used);
}

// Of a group ("/a/b", which is cut up) and those above it. A container may see its own group as the uppermost, whatever it is called outside.
static uint64_t left_in_groups(const char *mount, char *group, bool v2) {
    uint64_t least = UINT64_MAX;
    for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
        *end = 0;
        char *dir = xsprintf("%s%s", mount, group);
        least = min_u64(least, left_in_group(dir, v2));
        free(dir);
    }
    return least;
}

uint64_t hostmem_carved_out_bytes(const char *root, const char *pci) {
    char *dir = xsprintf("%s/sys/bus/pci/devices/%s", root, pci); // amdgpu's files
    uint64_t total = number_in(dir, "mem_info_vram_total", "", 0);
    uint64_t used = number_in(dir, "mem_info_vram_used", "", UINT64_MAX);
    free(dir);
    return total - min_u64(total, used);
}

uint64_t hostmem_available_bytes(const char *root) {
    char *proc = xsprintf("%s/proc", root), *own = xsprintf("%s/proc/self/cgroup", root), line[4500];
    char *v1 = xsprintf("%s/sys/fs/cgroup/memory", root), *v2 = xsprintf("%s/sys/fs/cgroup", root);
    uint64_t kib = number_in(proc, "meminfo", "MemAvailable:", 0), least = kib ? kib * 1024 : UINT64_MAX;
    FILE *f = fopen(own, "r");
    while (f && fgets(line, sizeof line, f)) { // 4:cpu,memory:/a/b, and 0::/a/b of version 2
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        line[strcspn(line, "\n")] = 0;
        if (!group)
            continue;
        bool unified = group == list + 1;
        *list = *group++ = ',';
        if (unified || strstr(list, ",memory,"))
            least = min_u64(least, left_in_groups(unified ? v2 : v1, group, unified));
    }
    if (f)
        fclose(f);
    free(proc), free(own), free(v1), free(v2);
    return least;
}
