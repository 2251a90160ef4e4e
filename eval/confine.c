// What a process gives up for good before it runs what others wrote: its ids, its capabilities, most of each resource, most of the file
// system (Landlock) and most system calls (seccomp).
#include "eval/box.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

// --- Landlock. The header of Debian 12 knows its second version only, so its numbers stand here.
enum {
    LL_EXECUTE = 1 << 0,
    LL_WRITE_FILE = 1 << 1,
    LL_READ_FILE = 1 << 2,
    LL_READ_DIR = 1 << 3,
    LL_REMOVE_DIR = 1 << 4,
    LL_REMOVE_FILE = 1 << 5,
    LL_MAKE_DIR = 1 << 7,
    LL_MAKE_REG = 1 << 8,
    LL_REFER = 1 << 13,
    LL_TRUNCATE = 1 << 14,
    LL_IOCTL_DEV = 1 << 15,
    LL_FIRST_VERSION = (1 << 13) - 1, // all rights that the first version can take away
    LL_VERSION_FLAG = 1,
    LL_RULE_PATH_BENEATH = 1,
};
struct LandlockRules {
    uint64_t files, net, scopes;
};
struct __attribute__((packed)) LandlockPath {
    uint64_t allowed;
    int32_t parent;
};

static bool landlock_allow(int rules, const char *path, uint64_t rights) {
    struct LandlockPath rule = {rights, open(path, O_PATH | O_CLOEXEC)};
    if (rule.parent < 0)
        return false;
    bool ok = syscall(SYS_landlock_add_rule, rules, LL_RULE_PATH_BENEATH, &rule, 0) == 0;
    int error = errno;
    close(rule.parent);
    errno = error;
    return ok;
}

static bool enter_landlock(const struct BoxPlan *plan) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_VERSION_FLAG);
    if (version < 1)
        return false;
    struct LandlockRules all = {LL_FIRST_VERSION, 0, 0};
    size_t bytes = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    if (version >= 2)
        all.files |= LL_REFER;
    if (version >= 3)
        all.files |= LL_TRUNCATE;
    if (version >= 5)
        all.files |= LL_IOCTL_DEV;
    if (version >= 4)
        all.net = 3; // bind and connect by TCP
    if (version >= 6)
        all.scopes = 3; // abstract sockets and signals beyond this process
    int rules = (int)syscall(SYS_landlock_create_ruleset, &all, bytes, 0);
    if (rules < 0)
        return false;
    const uint64_t see = LL_EXECUTE | LL_READ_FILE, keep = LL_READ_FILE | LL_READ_DIR | LL_WRITE_FILE | LL_REMOVE_DIR |
                                                           LL_REMOVE_FILE | LL_MAKE_DIR | LL_MAKE_REG | LL_TRUNCATE;
    bool ok = true;
    for (size_t i = 0; ok && i < plan->n_files; i++) {
        const struct BoxFile *f = &plan->files[i];
        if (f->kind != 'l')
            ok = landlock_allow(rules, f->path, f->kind == 'd' ? see | LL_READ_DIR : see);
    }
    ok = ok && landlock_allow(rules, "/dev", LL_READ_FILE | LL_WRITE_FILE) &&
         landlock_allow(rules, "/tmp", keep & all.files);
    return ok && syscall(SYS_landlock_restrict_self, rules, 0) == 0;
}

// --- System calls. What is not in this list fails with EPERM: sockets, processes (threads are allowed), mounts, namespaces, keys, ptrace,
// bpf, perf, io_uring, userfaultfd, shared memory, memfd and whatever kernels will learn.
struct CallRule {
    int number;
    int arg; // -1: allowed as it is; else only where (argument & mask) == value
    uint64_t mask, value;
};
#define ANY(name)                                                                                                      \
    { __NR_##name, -1, 0, 0 }
#define WHERE(name, arg, mask, value)                                                                                  \
    { __NR_##name, arg, mask, value }
#define LOW32 0xffffffffu // the kernel looks at no more of it

static const struct CallRule CALLS[] = {
    // files
    ANY(read),
    ANY(write),
    ANY(readv),
    ANY(writev),
    ANY(pread64),
    ANY(pwrite64),
    ANY(lseek),
    ANY(close),
    ANY(close_range),
    ANY(openat),
    ANY(fstat),
    ANY(newfstatat),
    ANY(statx),
    ANY(fstatfs),
    ANY(faccessat),
    ANY(faccessat2),
    ANY(readlinkat),
    ANY(getdents64),
    ANY(getcwd),
    ANY(chdir),
    ANY(fchdir),
    ANY(mkdirat),
    ANY(unlinkat),
    ANY(renameat2),
    ANY(ftruncate),
    ANY(truncate),
    ANY(fsync),
    ANY(fdatasync),
    ANY(fchmod),
    ANY(fchmodat),
    ANY(utimensat),
    ANY(umask),
    ANY(dup),
    ANY(dup3),
    ANY(pipe2),
    ANY(fcntl),
    ANY(ppoll),
    ANY(pselect6),
    ANY(epoll_create1),
    ANY(epoll_ctl),
    ANY(epoll_pwait),
    ANY(eventfd2),
    WHERE(ioctl, 1, LOW32, TCGETS),
    WHERE(ioctl, 1, LOW32, FIOCLEX),
    WHERE(ioctl, 1, LOW32, FIONCLEX),
    WHERE(ioctl, 1, LOW32, FIONREAD),
    WHERE(ioctl, 1, LOW32, TIOCGWINSZ),
    // memory
    ANY(mmap),
    ANY(munmap),
    ANY(mprotect),
    ANY(mremap),
    ANY(madvise),
    ANY(brk),
    ANY(msync),
    // threads, and the one exec that starts the program
    ANY(execve),
    ANY(exit),
    ANY(exit_group),
    ANY(futex),
    ANY(set_robust_list),
    ANY(get_robust_list),
    ANY(set_tid_address),
    ANY(rseq),
    ANY(membarrier),
    ANY(sched_yield),
    ANY(sched_getaffinity),
    ANY(getcpu),
    WHERE(clone, 0, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET,
          CLONE_VM | CLONE_THREAD | CLONE_SIGHAND),
    // signals of its own
    ANY(rt_sigaction),
    ANY(rt_sigprocmask),
    ANY(rt_sigreturn),
    ANY(rt_sigpending),
    ANY(rt_sigtimedwait),
    ANY(sigaltstack),
    ANY(tgkill),
    ANY(restart_syscall),
    ANY(setitimer),
    ANY(getitimer),
    // time and questions about itself
    ANY(clock_gettime),
    ANY(clock_getres),
    ANY(clock_nanosleep),
    ANY(nanosleep),
    ANY(gettimeofday),
    ANY(times),
    ANY(getrandom),
    ANY(uname),
    ANY(sysinfo),
    ANY(getrusage),
    ANY(getpid),
    ANY(gettid),
    ANY(getppid),
    ANY(getuid),
    ANY(geteuid),
    ANY(getgid),
    ANY(getegid),
    ANY(getresuid),
    ANY(getresgid),
    ANY(getgroups),
    ANY(getpgid),
    ANY(getsid),
    WHERE(prlimit64, 2, UINT64_MAX, 0), // to ask, not to set
#ifdef __x86_64__                       // older forms, which other processors never had
    ANY(open),
    ANY(stat),
    ANY(lstat),
    ANY(access),
    ANY(readlink),
    ANY(getdents),
    ANY(mkdir),
    ANY(rmdir),
    ANY(unlink),
    ANY(rename),
    ANY(chmod),
    ANY(dup2),
    ANY(pipe),
    ANY(poll),
    ANY(select),
    ANY(epoll_wait),
    ANY(arch_prctl),
    ANY(alarm),
    ANY(getrlimit),
    ANY(getpgrp),
    ANY(time),
#endif
};
enum { N_CALLS = sizeof CALLS / sizeof *CALLS };

#if defined(__x86_64__)
#define PROCESSOR AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define PROCESSOR AUDIT_ARCH_AARCH64
#else
#define PROCESSOR 0 // no call would be let through: confine_process refuses
#endif

// A classic BPF program: the processor, then each rule in turn, then EPERM. Every rule is a few instructions that skip to the next one.
struct Filter {
    struct sock_filter code[8 + N_CALLS * 9];
    unsigned short n;
};

static void emit(struct Filter *f, uint16_t code, uint32_t k, unsigned if_true, unsigned if_false) {
    f->code[f->n++] = (struct sock_filter){code, (uint8_t)if_true, (uint8_t)if_false, k};
}
static void emit_load(struct Filter *f, size_t offset) { emit(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0); }
static void emit_return(struct Filter *f, uint32_t action) { emit(f, BPF_RET | BPF_K, action, 0, 0); }

static void emit_rule(struct Filter *f, const struct CallRule *rule) {
    if (rule->arg < 0) {
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->number, 0, 1);
        emit_return(f, SECCOMP_RET_ALLOW);
        return;
    }
    // Both processors are little-endian: the lower half of an argument comes first.
    size_t at = offsetof(struct seccomp_data, args) + 8 * (size_t)rule->arg;
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->number, 0, 8);
    emit_load(f, at);
    emit(f, BPF_ALU | BPF_AND | BPF_K, (uint32_t)rule->mask, 0, 0);
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->value, 0, 4);
    emit_load(f, at + 4);
    emit(f, BPF_ALU | BPF_AND | BPF_K, (uint32_t)(rule->mask >> 32), 0, 0);
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(rule->value >> 32), 0, 1);
    emit_return(f, SECCOMP_RET_ALLOW);
    emit_load(f, offsetof(struct seccomp_data, nr)); // for the rules that follow
}

static bool enter_seccomp(void) {
    static struct Filter f; // in this process alone
    f.n = 0;
    emit_load(&f, offsetof(struct seccomp_data, arch));
    emit(&f, BPF_JMP | BPF_JEQ | BPF_K, PROCESSOR, 1, 0);
    emit_return(&f, SECCOMP_RET_KILL_PROCESS);
    emit_load(&f, offsetof(struct seccomp_data, nr)); // x86-64's second set of numbers has bit 30 set and is in no rule
    for (size_t i = 0; i < N_CALLS; i++)
        emit_rule(&f, &CALLS[i]);
    // glibc tries clone3, whose flags lie in memory where no filter can see them, and takes clone where there is none.
    emit(&f, BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 0, 1);
    emit_return(&f, SECCOMP_RET_ERRNO | ENOSYS);
    emit_return(&f, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {f.n, f.code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

// --- Resources.
enum { MAX_THREADS = 16, MAX_FILES = 32, MAX_FILE_BYTES = 8 << 20, MAX_STACK_BYTES = 8 << 20, MAX_SIGNALS = 64 };

static bool set_limits(const struct BoxPlan *plan) {
    const struct {
        int resource;
        rlim_t soft, hard;
    } limits[] = {
        {RLIMIT_AS, plan->memory_bytes, plan->memory_bytes},
        {RLIMIT_CPU, plan->cpu_seconds, plan->cpu_seconds + 1},
        {RLIMIT_NPROC, MAX_THREADS, MAX_THREADS},
        {RLIMIT_NOFILE, MAX_FILES, MAX_FILES},
        {RLIMIT_FSIZE, MAX_FILE_BYTES, MAX_FILE_BYTES},
        {RLIMIT_STACK, MAX_STACK_BYTES, MAX_STACK_BYTES},
        {RLIMIT_SIGPENDING, MAX_SIGNALS, MAX_SIGNALS},
        {RLIMIT_CORE, 0, 0},
        {RLIMIT_MEMLOCK, 0, 0},
        {RLIMIT_MSGQUEUE, 0, 0},
        {RLIMIT_NICE, 0, 0},
        {RLIMIT_RTPRIO, 0, 0},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit old, new = {limits[i].soft, limits[i].hard};
        if (getrlimit(limits[i].resource, &old) != 0)
            return false;
        // What is lower already stays: it could not be raised again.
        new.rlim_max = min_u64(new.rlim_max, old.rlim_max);
        new.rlim_cur = min_u64(new.rlim_cur, new.rlim_max);
        if (setrlimit(limits[i].resource, &new) != 0)
            return false;
    }
    return true;
}

// --- Ids and capabilities. Where root starts the box there are two ids in it, root's own for setting up, and nobody's, which the program
// gets; an ordinary user's box has that user's alone, and groups cannot be changed in it.
static bool drop_ids(void) {
    if (getuid() == BOX_UID)
        return true;
    // Not by the C library, which would look for the parent's threads to tell them.
    return syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, BOX_UID, BOX_UID, BOX_UID) == 0 &&
           syscall(SYS_setresuid, BOX_UID, BOX_UID, BOX_UID) == 0;
}

static bool drop_bounding_set(void) {
    for (int c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) != 0)
            return false;
    return true;
}

static bool drop_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 && syscall(SYS_capset, &header, none) == 0;
}

// Ignored signals and blocked ones would go through exec.
static bool reset_signals(void) {
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL); // fails for SIGKILL, SIGSTOP and glibc's own two, which need it not
    sigset_t none;
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL) == 0;
}

const char *confine_process(const struct BoxPlan *plan) {
    umask(077);
    if (PROCESSOR == 0)
        return "the table of system calls";
    if (!reset_signals())
        return "signals";
    if (!drop_bounding_set() || !drop_ids())
        return "user ids";
    if (!drop_capabilities())
        return "capabilities";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return "no_new_privs";
    if (!enter_landlock(plan))
        return "Landlock";
    if (!set_limits(plan))
        return "resource limits";
    if (!enter_seccomp())
        return "seccomp";
    return NULL;
}
