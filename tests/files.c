// See files.h.
#include "files.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool refused(bool ok, const char *words) { return !ok && strstr(fail_last(), words); }

void remove_tree(const char *path) {
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *inner = path_join(path, e->d_name);
        if (dir_exists(inner))
            remove_tree(inner);
        else
            unlink(inner);
        free(inner);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}
