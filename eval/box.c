// Namespaces, the view of the file system, and process 1 of a box.
#include "eval/box.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    int flag;
} NAMESPACES[] = {
    {"user namespace", CLONE_NEWUSER},     {"pid namespace", CLONE_NEWPID}, {"mount namespace", CLONE_NEWNS},
    {"net namespace", CLONE_NEWNET},       {"ipc namespace", CLONE_NEWIPC}, {"uts namespace", CLONE_NEWUTS},
    {"cgroup namespace", CLONE_NEWCGROUP},
};
enum { N_NAMESPACES = sizeof NAMESPACES / sizeof *NAMESPACES };

// fork() into new namespaces: memory is copied, not shared.
static pid_t clone_into(int namespaces) {
    // The two processors disagree about the places of the arguments that are 0 here.
    return (pid_t)syscall(SYS_clone, namespaces | SIGCHLD, NULL, NULL, NULL, NULL);
}

const char *box_missing_namespace(void) {
    for (size_t i = 0; i < N_NAMESPACES; i++) {
        pid_t pid = clone_into(CLONE_NEWUSER | NAMESPACES[i].flag);
        if (pid == 0)
            _exit(0);
        if (pid < 0)
            return NAMESPACES[i].name;
        waitpid(pid, NULL, 0);
    }
    return NULL;
}

// --- Inside. Nothing here may allocate.

// The folders above `path`, which is relative to the new root.
static bool make_parents(const char *path) {
    char folder[PATH_MAX];
    if (strlen(path) >= sizeof folder) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(folder, path);
    for (char *slash = strchr(folder, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(folder, 0755) != 0 && errno != EEXIST)
            return false;
        *slash = '/';
    }
    return true;
}

static bool restrict_mount(const char *path, unsigned flags, uint64_t attributes) {
    struct {
        uint64_t set, clear, propagation, user_namespace;
    } change = {attributes, 0, 0, 0};
    return syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &change, sizeof change) == 0;
}
enum { ATTR_RDONLY = 1, ATTR_NOSUID = 2, ATTR_NODEV = 4, ATTR_NOEXEC = 8 }; // of mount_setattr

static bool show_file(const struct BoxFile *f) {
    const char *inside = f->path + 1; // relative: the working folder is the new root
    if (!make_parents(inside))
        return false;
    if (f->kind == 'l')
        return symlink(f->target, inside) == 0;
    if (f->kind == 'd' ? mkdir(inside, 0755) != 0 : mknod(inside, S_IFREG | 0644, 0) != 0)
        return false;
    return mount(f->path, inside, NULL, MS_BIND | MS_REC, NULL) == 0 &&
           restrict_mount(inside, AT_RECURSIVE, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV);
}

static bool show_device(const char *path) {
    const char *inside = path + 1;
    return make_parents(inside) && mknod(inside, S_IFREG | 0644, 0) == 0 &&
           mount(path, inside, NULL, MS_BIND, NULL) == 0 &&
           restrict_mount(inside, 0, ATTR_RDONLY | ATTR_NOSUID | ATTR_NOEXEC); // a device may still be written to
}

// A new root of what `plan` lists, three devices and a small /tmp; the old one goes out of reach. It is put together in the place of
// /proc, where nothing lies that is to be shown.
static bool make_view(const struct BoxPlan *plan) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("view", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=8192,mode=755") != 0 ||
        chdir("/proc") != 0)
        return false;
    for (size_t i = 0; i < plan->n_files; i++)
        if (!show_file(&plan->files[i]))
            return false;
    return show_device("/dev/null") && show_device("/dev/zero") && show_device("/dev/urandom") &&
           mkdir("tmp", 0777) == 0 &&
           mount("tmp", "tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=16m,nr_inodes=256,mode=1777") == 0 &&
           syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 &&
           restrict_mount("/", 0, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC) && chdir("/tmp") == 0;
}

static _Noreturn void tell(int report, const char *layer, int status, double cpu_seconds) {
    struct BoxReport r = {.error = errno, .status = status, .cpu_seconds = cpu_seconds};
    if (layer)
        strncpy(r.layer, layer, sizeof r.layer - 1);
    _exit(write(report, &r, sizeof r) == sizeof r ? 0 : 1);
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

// The plan's descriptors become 0 .. n-1, go and report n and n+1; all others are closed.
static bool arrange_fds(const struct BoxPlan *plan, int *go, int *report) {
    int from[BOX_MAX_FDS + 2], n = plan->n_fds;
    memcpy(from, plan->fds, sizeof(int) * (size_t)n);
    from[n++] = *go;
    from[n++] = *report;
    for (int i = 0; i < n; i++) // out of the way first
        if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, BOX_MAX_FDS + 2)) < 0)
            return false;
    for (int i = 0; i < n; i++)
        if (dup3(from[i], i, i < plan->n_fds ? 0 : O_CLOEXEC) < 0)
            return false;
    *go = n - 2;
    *report = n - 1;
    return syscall(SYS_close_range, (unsigned)n, ~0u, 0) == 0;
}

static _Noreturn void run_init(const struct BoxPlan *plan, int go, int report) {
    char byte;
    if (!arrange_fds(plan, &go, &report))
        tell(report, "descriptors", 0, 0);
    // The box ends with its parent; should that have gone already, its end of the pipe is closed.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || read(go, &byte, 1) != 1)
        _exit(1);
    umask(0);
    setsid(); // no terminal to type at
    if (!make_view(plan))
        tell(report, "view of the file system", 0, 0);
    if (sethostname("sandbox", 7) != 0)
        tell(report, "host name", 0, 0);
    pid_t pid = clone_into(0);
    if (pid == 0) {
        static const char *const environment[] = {"PYTHONHASHSEED=0", "LC_ALL=C.UTF-8", "HOME=/tmp", NULL};
        const char *layer = confine_process(plan);
        if (!layer)
            execve(plan->argv[0], (char *const *)plan->argv, (char *const *)environment);
        tell(report, layer ? layer : "start of Python", 0, 0);
    }
    if (pid < 0)
        tell(report, "first process", 0, 0);
    syscall(SYS_close_range, 0u, (unsigned)plan->n_fds - 1, 0); // the other side sees the program's end
    int status;
    struct rusage used;
    while (wait4(pid, &status, 0, &used) < 0)
        if (errno != EINTR)
            tell(report, "wait for the program", 0, 0);
    tell(report, NULL, status, seconds_of(used.ru_utime) + seconds_of(used.ru_stime));
}

// --- Outside.

static bool write_map(pid_t pid, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int error = errno;
    close(fd);
    errno = error;
    return ok;
}

static bool map_ids(pid_t pid) {
    enum { NOBODY = 65534 };
    char users[64], groups[64];
    if (geteuid() == 0) {
        snprintf(users, sizeof users, "0 0 1\n%d %d 1\n", BOX_UID, NOBODY);
        return write_map(pid, "uid_map", users) && write_map(pid, "gid_map", users);
    }
    snprintf(users, sizeof users, "%d %d 1\n", BOX_UID, (int)geteuid());
    snprintf(groups, sizeof groups, "%d %d 1\n", BOX_UID, (int)getegid());
    return write_map(pid, "setgroups", "deny") && write_map(pid, "uid_map", users) && write_map(pid, "gid_map", groups);
}

bool box_start(struct Box *box, const struct BoxPlan *plan) {
    int go[2], report[2], all = 0;
    if (pipe2(go, O_CLOEXEC) != 0)
        return fail("sandbox: no pipe: %s", strerror(errno));
    if (pipe2(report, O_CLOEXEC) != 0) {
        close(go[0]);
        close(go[1]);
        return fail("sandbox: no pipe: %s", strerror(errno));
    }
    for (size_t i = 0; i < N_NAMESPACES; i++)
        all |= NAMESPACES[i].flag;
    pid_t pid = clone_into(all);
    if (pid == 0) {
        close(go[1]);
        run_init(plan, go[0], report[1]);
    }
    int error = errno;
    close(report[1]);
    *box = (struct Box){pid, report[0]};
    bool ok = pid > 0;
    if (!ok) {
        const char *missing = box_missing_namespace();
        fail("sandbox: not possible here: %s: %s", missing ? missing : "namespaces", strerror(error));
        close(report[0]);
    } else if (!map_ids(pid)) {
        struct BoxReport said = {.error = errno};
        box_end(box, &said); // it may have ended before it got its ids, and says why
        ok = fail("sandbox: not possible here: %s: %s", *said.layer ? said.layer : "ids in a user namespace",
                  strerror(said.error));
    } else if (write(go[1], "g", 1) != 1) { // cannot fail: the reading end is open here as well
        ok = fail("sandbox: no word to process 1: %s", strerror(errno));
        box_end(box, NULL);
    }
    close(go[0]);
    close(go[1]);
    return ok;
}

void box_end(struct Box *box, struct BoxReport *report) {
    kill(box->pid, SIGKILL);
    while (waitpid(box->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    // One that was killed has written nothing; pipes take a report in one piece.
    if (report && read(box->report, report, sizeof *report) != sizeof *report)
        report->status = SIGKILL;
    close(box->report);
}
