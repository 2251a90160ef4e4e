// The sandbox of model-written programs: sandbox/escapes.py wants out and must leave no trace outside, sandbox/forgeries.py wants a good
// verdict without a good answer; records as they are published; limits and refusals.
//
// With files as arguments (HumanEval.jsonl, mbpp.jsonl) it runs those instead: each record's own solution must pass, and must fail with a
// fault planted in what it returns.
#include "check.h"
#include "eval/sandbox.h"
#include "files.h"
#include "model/json.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// --- Records of HumanEval and MBPP as jobs; a model's answer may stand in the place of their own solution.

// A field as text, malloc'ed: an array is its lines, what is not there is empty.
static char *text_of(const json_t *record, const char *key) {
    const json_t *value = json_object_get(record, key), *line;
    char *text = xstrdup(json_is_string(value) ? json_string_value(value) : "");
    size_t i;
    json_array_foreach(value, i, line) {
        char *longer = xsprintf("%s%s\n", text, json_string_value(line));
        free(text);
        text = longer;
    }
    return text;
}

static struct SandboxJob job_humaneval(const json_t *record, const char *answer) {
    char *prompt = text_of(record, "prompt"), *solution = text_of(record, "canonical_solution");
    char *test = text_of(record, "test"), *entry = text_of(record, "entry_point");
    struct SandboxJob job = {.program = xsprintf("%s%s\n", prompt, answer ? answer : solution),
                             .setup = prompt, // some checks call functions that stand in it
                             .checks = xsprintf("%s\ncheck(%s)\n", test, entry),
                             .entry = entry};
    free(solution);
    free(test);
    return job;
}

static struct SandboxJob job_mbpp(const json_t *record, const char *answer) {
    char *code = text_of(record, "code"), *setup = text_of(record, "test_setup_code");
    char *imports = text_of(record, "test_imports");
    struct SandboxJob job = {.program = xstrdup(answer ? answer : code),
                             .setup = xsprintf("%s\n%s", imports, setup),
                             .checks = text_of(record, "test_list"),
                             .reference = code};
    free(setup);
    free(imports);
    return job;
}

static void job_free(struct SandboxJob *job) {
    free((char *)job->program);
    free((char *)job->setup);
    free((char *)job->checks);
    free((char *)job->entry);
    free((char *)job->reference);
    *job = (struct SandboxJob){0};
}

// --- Many runs, two at once.

struct Run {
    char *name;
    struct SandboxJob job;
    struct SandboxLimits limits;
    bool ran;
    struct SandboxResult result;
    enum SandboxVerdict expected;
    bool control; // an escape that is tried outside as well
    bool waits;   // it must run out of the clock on the wall, not of processor time
};

struct Runs {
    const struct Sandbox *sandbox;
    struct Run *all;
    size_t n;
    atomic_size_t next;
};

static void *run_some(void *argument) {
    struct Runs *runs = argument;
    for (size_t i; (i = atomic_fetch_add(&runs->next, 1)) < runs->n;) {
        struct Run *r = &runs->all[i];
        r->ran = sandbox_run(runs->sandbox, &r->job, &r->limits, &r->result);
    }
    return NULL;
}

static void run_all(struct Runs *runs) {
    pthread_t second;
    bool two = pthread_create(&second, NULL, run_some, runs) == 0;
    run_some(runs);
    if (two)
        pthread_join(second, NULL);
}

static struct Run *add_run(struct Runs *runs, char *name, struct SandboxJob job) {
    runs->all = xrealloc(runs->all, (runs->n + 1) * sizeof *runs->all);
    runs->all[runs->n] = (struct Run){.name = name, .job = job, .limits = SANDBOX_LIMITS};
    return &runs->all[runs->n++];
}

static void free_runs(struct Runs *runs) {
    for (size_t i = 0; i < runs->n; i++) {
        free(runs->all[i].name);
        job_free(&runs->all[i].job);
        if (runs->all[i].ran)
            sandbox_result_free(&runs->all[i].result);
    }
    free(runs->all);
    *runs = (struct Runs){.sandbox = runs->sandbox};
}

// --- Files of programs. A line "#: NAME" or "#! NAME" begins the next one.

struct Section {
    char kind; // ':' or '!'
    char *name, *text;
};

static char *join(char *text, const char *more, size_t n) {
    char *longer = xsprintf("%s%.*s", text, (int)n, more);
    free(text);
    return longer;
}

// The number of sections; what stands before the first one is *prelude.
static size_t read_sections(const char *name, struct Section *sections, size_t room, char **prelude) {
    char *path = xsprintf("%s/tests/sandbox/%s", VKMOE_SOURCE_DIR, name);
    uint8_t *data = NULL;
    uint64_t bytes;
    size_t n = 0;
    *prelude = xstrdup("");
    if (!CHECK(file_read(path, 1 << 20, &data, &bytes), "%s", fail_last()))
        exit(check_done());
    for (const char *line = (const char *)data, *end; (end = strchr(line, '\n')); line = end + 1) {
        char **text = n ? &sections[n - 1].text : prelude;
        if (line[0] == '#' && (line[1] == ':' || line[1] == '!') && n < room)
            sections[n++] = (struct Section){line[1], xsprintf("%.*s", (int)(end - line - 3), line + 3), xstrdup("")};
        else
            *text = join(*text, line, (size_t)(end + 1 - line));
    }
    free(data);
    free(path);
    return n;
}

// --- What lies outside and must be untouched.

enum { CANARY_KEY = 0x766b6d6f, CANARY_FD = 77 };
struct Canary {
    char folder[64], abstract[64];
    char *file, *new_file, *path;
    int tcp, local, abstract_socket, descriptor[2], port, segment;
    pid_t pid;
};

static int listen_at(int family, const void *address, socklen_t bytes) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, address, bytes) == 0 && listen(fd, 64) == 0, "%s", strerror(errno));
    return fd;
}

static void canary_begin(struct Canary *c) {
    *c = (struct Canary){.folder = "sandbox-canary-XXXXXX"};
    CHECK(mkdtemp(c->folder), "%s", strerror(errno));
    char *absolute = realpath(c->folder, NULL);
    c->file = path_join(absolute, "secret");
    c->new_file = path_join(absolute, "new");
    c->path = path_join(absolute, "socket");
    free(absolute);
    CHECK(file_write_atomic(c->file, "canary", 6), "%s", fail_last());

    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->tcp = listen_at(AF_INET, &tcp, sizeof tcp);
    socklen_t bytes = sizeof tcp;
    getsockname(c->tcp, (struct sockaddr *)&tcp, &bytes);
    c->port = ntohs(tcp.sin_port);
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    snprintf(c->abstract, sizeof c->abstract, "vkmoe-canary-%d", (int)getpid());
    memcpy(local.sun_path + 1, c->abstract, strlen(c->abstract));
    c->abstract_socket =
        listen_at(AF_UNIX, &local, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(c->abstract)));
    // A socket's path is short: from the working folder.
    snprintf(local.sun_path, sizeof local.sun_path, "%s/socket", c->folder);
    c->local = listen_at(AF_UNIX, &local, sizeof local);

    CHECK(pipe(c->descriptor) == 0 && dup2(c->descriptor[1], CANARY_FD) == CANARY_FD, "%s",
          strerror(errno)); // inherited
    fcntl(c->descriptor[0], F_SETFL, O_NONBLOCK);
    setenv("VKMOE_CANARY", "secret", 1);
    c->segment = shmget(CANARY_KEY + getpid(), 4096, IPC_CREAT | 0600);
    CHECK(c->segment >= 0, "%s", strerror(errno));
    c->pid = fork();
    if (c->pid == 0)
        for (;;)
            pause();
}

// What touched the canary; "" where nothing did.
static const char *canary_touched(struct Canary *c) {
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    struct shmid_ds segment;
    char byte;
    bool whole = file_read(c->file, 100, &text, &bytes) && bytes == 6 && !memcmp(text, "canary", 6);
    free(text);
    if (!whole)
        return "the file";
    if (file_exists(c->new_file))
        return "a new file";
    if (accept(c->tcp, NULL, NULL) >= 0 || accept(c->local, NULL, NULL) >= 0 ||
        accept(c->abstract_socket, NULL, NULL) >= 0)
        return "a socket";
    if (read(c->descriptor[0], &byte, 1) >= 0)
        return "an inherited descriptor";
    if (shmctl(c->segment, IPC_STAT, &segment) != 0 || segment.shm_atime)
        return "shared memory";
    if (waitpid(c->pid, NULL, WNOHANG) != 0)
        return "a process";
    return "";
}

static void canary_end(struct Canary *c) {
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    shmctl(c->segment, IPC_RMID, NULL);
    int fds[] = {c->tcp, c->local, c->abstract_socket, c->descriptor[0], c->descriptor[1], CANARY_FD};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    remove_tree(c->folder);
    free(c->file);
    free(c->new_file);
    free(c->path);
    unsetenv("VKMOE_CANARY");
}

// --- Escapes.

enum { MAX_SECTIONS = 200 };
static const struct SandboxLimits SMALL = {.cpu_seconds = 20, .wall_seconds = 200, .memory_bytes = 256ull << 20};
enum { SHORT_SECONDS = 1 };

static char *canary_names(const struct Canary *c) {
    return xsprintf("CANARY_FILE, CANARY_NEW, CANARY_SOCKET, CANARY_ABSTRACT = '%s', '%s', '%s', '%s'\n"
                    "CANARY_PORT, CANARY_PID, CANARY_KEY, CANARY_FD = %d, %d, %d, %d\n",
                    c->file, c->new_file, c->path, c->abstract, c->port, (int)c->pid, CANARY_KEY + (int)getpid(),
                    CANARY_FD);
}

// "NAME [= VERDICT] [~] [!]": cuts them off the name.
static void read_expectation(struct Run *r) {
    char *mark = strstr(r->name, " !");
    if ((r->control = mark != NULL))
        *mark = 0;
    mark = strstr(r->name, " ~");
    if ((r->waits = mark != NULL))
        *mark = 0;
    mark = strstr(r->name, " = ");
    for (int v = 0; mark && v < 4; v++)
        if (!strcmp(mark + 3, SANDBOX_VERDICTS[v]))
            r->expected = (enum SandboxVerdict)v;
    if (mark)
        *mark = 0;
}

// Outside, the same program gets hold of something: else the escape would prove nothing.
static void try_controls(const struct Runs *runs) {
    for (size_t i = 0; i < runs->n; i++) {
        const struct Run *r = &runs->all[i];
        if (!r->control)
            continue;
        int out[2];
        char said[1024] = "";
        CHECK(pipe2(out, O_CLOEXEC) == 0, "%s", strerror(errno));
        char *text = xsprintf("%s\nprint(str(attempt())[:200])\n", r->job.program);
        pid_t pid = fork();
        if (pid == 0) {
            dup2(out[1], 1);
            execl("/usr/bin/python3", "python3", "-S", "-B", "-c", text, NULL);
            _exit(127);
        }
        close(out[1]);
        size_t n = 0;
        for (ssize_t got; n + 1 < sizeof said && (got = read(out[0], said + n, sizeof said - 1 - n)) > 0;)
            n += (size_t)got;
        close(out[0]);
        waitpid(pid, NULL, 0);
        CHECK(n > 0 && strncmp(said, "held", 4) != 0, "outside, '%s' gets nothing: %s", r->name, said);
        free(text);
    }
}

static void add_escapes(struct Runs *runs, const struct Canary *c) {
    static struct Section sections[MAX_SECTIONS];
    char *prelude, *names = canary_names(c);
    size_t n = read_sections("escapes.py", sections, MAX_SECTIONS, &prelude);
    for (size_t i = 0; i < n; i++) {
        struct SandboxJob job = {.program = xsprintf("%s%s%s", names, prelude, sections[i].text),
                                 .checks = xstrdup("result = attempt()\nassert result == 'held', result\n")};
        struct Run *r = add_run(runs, sections[i].name, job);
        r->limits = SMALL;
        read_expectation(r);
        if (r->waits)
            r->limits.wall_seconds = SHORT_SECONDS;
        else if (r->expected == SANDBOX_TIMED_OUT)
            r->limits.cpu_seconds = SHORT_SECONDS;
        free(sections[i].text);
    }
    free(prelude);
    free(names);
}

static void test_escapes(const struct Sandbox *s) {
    struct Runs runs = {.sandbox = s};
    struct Canary c;
    canary_begin(&c);
    add_escapes(&runs, &c);
    CHECK(runs.n >= 60, "%zu escapes", runs.n);
    run_all(&runs);
    for (size_t i = 0; i < runs.n; i++) {
        const struct Run *r = &runs.all[i];
        if (!CHECK(r->ran, "%s: %s", r->name, fail_last()))
            continue;
        CHECK(r->result.verdict == r->expected, "%s: %s: %s", r->name, SANDBOX_VERDICTS[r->result.verdict],
              r->result.detail);
        CHECK(r->result.output_bytes <= SANDBOX_KEPT_OUTPUT, "%s: %zu bytes", r->name, r->result.output_bytes);
        if (r->expected == SANDBOX_TIMED_OUT)
            CHECK((strstr(r->result.detail, "processor time") == NULL) == r->waits, "%s: %s", r->name,
                  r->result.detail);
        if (r->waits)
            CHECK(r->result.seconds >= SHORT_SECONDS && r->result.seconds < SHORT_SECONDS + 10, "%s: %.1f s", r->name,
                  r->result.seconds);
    }
    struct rusage use;
    getrusage(RUSAGE_CHILDREN, &use);
    CHECK(use.ru_maxrss < 320 << 10, "a process had %ld KiB", use.ru_maxrss);
    const char *touched = canary_touched(&c);
    CHECK(!*touched, "outside, %s was reached", touched);
    CHECK(!file_exists("core"), "a core file was left");
    printf("%zu escapes\n", runs.n);
    free_runs(&runs);

    add_escapes(&runs, &c);
    try_controls(&runs);
    CHECK(*canary_touched(&c), "nothing that is outside was reached from outside");
    free_runs(&runs);
    canary_end(&c);
}

// --- Forgeries.

// Takes the lines "#? ..." out of a program: the checks.
static char *take_checks(char *program) {
    char *checks = xstrdup(""), *to = program;
    for (char *line = program, *end; (end = strchr(line, '\n')); line = end + 1) {
        size_t n = (size_t)(end + 1 - line);
        if (!strncmp(line, "#? ", 3))
            checks = join(checks, line + 3, n - 3);
        else {
            memmove(to, line, n);
            to += n;
        }
    }
    *to = 0;
    return checks;
}

static void test_forgeries(const struct Sandbox *s) {
    static struct Section sections[MAX_SECTIONS];
    struct Runs runs = {.sandbox = s};
    char *prelude;
    size_t n = read_sections("forgeries.py", sections, MAX_SECTIONS, &prelude), forged = 0;
    for (size_t i = 0; i < n; i++) {
        char *checks = take_checks(sections[i].text);
        struct Run *r =
            add_run(&runs, sections[i].name, (struct SandboxJob){.program = sections[i].text, .checks = checks});
        r->expected = sections[i].kind == '!' ? SANDBOX_PASSED : SANDBOX_FAILED;
    }
    run_all(&runs);
    for (size_t i = 0; i < n; i++) {
        const struct Run *r = &runs.all[i];
        bool passed = r->ran && r->result.verdict == SANDBOX_PASSED;
        forged += r->expected != SANDBOX_PASSED;
        CHECK(r->ran && passed == (r->expected == SANDBOX_PASSED), "%s: %s", r->name,
              r->ran ? r->result.detail : fail_last());
        CHECK(!r->ran || r->result.verdict != SANDBOX_TIMED_OUT, "%s: %s", r->name, r->result.detail);
    }
    CHECK(forged >= 20, "%zu forgeries", forged);
    printf("%zu forgeries, %zu honest programs\n", forged, n - forged);
    free(prelude);
    free_runs(&runs);
}

// --- Records.

#define POLY                                                                                                           \
    "\"prompt\": \"def poly(xs, x):\\n    return sum(c * x ** i for i, c in enumerate(xs))\\n\\n\\ndef root(xs):\\n  " \
    "  \\\"\\\"\\\"Where poly(xs, x) is zero.\\\"\\\"\\\"\\n\""
#define POLY_TEST                                                                                                      \
    "\"test\": \"METADATA = {}\\n\\n\\ndef check(candidate):\\n    assert abs(poly([-4, 2], candidate([-4, 2]))) < "   \
    "1e-6\\n\""
#define HUMANEVAL                                                                                                      \
    "{\"entry_point\": \"root\", \"canonical_solution\": \"    return -xs[0] / xs[1]\\n\", " POLY ", " POLY_TEST "}"

static const struct {
    char kind; // 'h' HumanEval, 'm' MBPP
    const char *record, *answer;
    enum SandboxVerdict verdict;
} RECORDS[] = {
    {'h', HUMANEVAL, NULL, SANDBOX_PASSED},
    {'h', HUMANEVAL, "    return 2\n", SANDBOX_PASSED},
    {'h', HUMANEVAL, "    return 3\n", SANDBOX_FAILED},
    {'h', HUMANEVAL, "    return 3\n\ndef poly(xs, x):\n    return 0\n", SANDBOX_FAILED}, // the checks have their own
    {'h', HUMANEVAL, "", SANDBOX_FAILED},
    {'h', HUMANEVAL, "    return \xff\xfe\n", SANDBOX_FAILED},
    {'m', "{\"code\": \"def sum(a, b):\\n  return a * b\", \"test_list\": [\"assert sum(2, 5) == 10\"]}", NULL,
     SANDBOX_PASSED},
    {'m', "{\"code\": \"def sum(a, b):\\n  return a * b\", \"test_list\": [\"assert sum(2, 5) == 10\"]}",
     "def sum(a, b): return a + b", SANDBOX_FAILED},
    {'m',
     "{\"code\": \"import sys\\ndef f(x):\\n  return sys.getsizeof(x)\", \"test_list\": [\"assert f((1, 2)) == "
     "sys.getsizeof((1, 2))\"]}",
     NULL, SANDBOX_PASSED},
    {'m',
     "{\"code\": \"import sys\\ndef f(x):\\n  return sys.getsizeof(x)\", \"test_list\": [\"assert f((1, 2)) == "
     "sys.getsizeof((1, 2))\"]}",
     "class sys:\n  getsizeof = lambda x: 5\ndef f(x): return 5", SANDBOX_FAILED},
    {'m',
     "{\"code\": \"class Node:\\n  pass\\ndef f(n):\\n  return n.left\", \"test_setup_code\": \"root = "
     "Node()\\r\\nroot.left = 3\", \"test_list\": [\"assert f(root) == 3\"]}",
     NULL, SANDBOX_PASSED},
    {'m',
     "{\"code\": \"def f(x): return 1\", \"test_imports\": [\"import math\"], \"test_list\": [\"assert "
     "math.isclose(f(1), 1)\", \"assert f(2) == 2\"]}",
     NULL, SANDBOX_FAILED},
};

static bool make_job(char kind, const char *record, const char *answer, struct SandboxJob *job) {
    json_t *json = json_parse(record, strlen(record), "record");
    if (!CHECK(json, "%s", fail_last()))
        return false;
    *job = (kind == 'h' ? job_humaneval : job_mbpp)(json, answer);
    json_decref(json);
    return true;
}

static void test_records(const struct Sandbox *s) {
    struct Runs runs = {.sandbox = s};
    for (size_t i = 0; i < sizeof RECORDS / sizeof *RECORDS; i++) {
        struct SandboxJob job;
        if (make_job(RECORDS[i].kind, RECORDS[i].record, RECORDS[i].answer, &job))
            add_run(&runs, xsprintf("record %zu", i), job)->expected = RECORDS[i].verdict;
    }
    run_all(&runs);
    for (size_t i = 0; i < runs.n; i++) {
        const struct Run *r = &runs.all[i];
        CHECK(r->ran && r->result.verdict == r->expected, "%s: %s", r->name, r->ran ? r->result.detail : fail_last());
    }
    free_runs(&runs);
}

static void test_output(const struct Sandbox *s) {
    struct SandboxJob job = {.program = "print('first')\nprint('x' * (1 << 20))\ndef f():\n  print('last')\n  return 1",
                             .checks = "assert f() == 1\nassert f() == 2, 'two'"};
    struct SandboxResult r;
    if (!CHECK(sandbox_run(s, &job, &SANDBOX_LIMITS, &r), "%s", fail_last()))
        return;
    CHECK(r.output_bytes == SANDBOX_KEPT_OUTPUT && !memcmp(r.output, "first\nxxx", 9), "%zu bytes", r.output_bytes);
    CHECK(!strcmp(r.detail, "AssertionError: two at assert f() == 2, 'two'"), "%s", r.detail);
    sandbox_result_free(&r);
}

// What counts is processor time, of both sides: a program that waits, as one does whose turn comes late on a busy machine, loses nothing.
static void test_times(const struct Sandbox *s) {
    static const struct {
        const char *program, *checks;
        enum SandboxVerdict verdict;
    } CASES[] = {
        {"import time\ndef f():\n  time.sleep(1.5)\n  return 1", "assert f() == 1", SANDBOX_PASSED},
        {"def f():\n  return 1", "f()\nwhile True: pass", SANDBOX_TIMED_OUT},
        {"def f():\n  while True:\n    yield 0", "for _ in f(): pass", SANDBOX_TIMED_OUT},
    };
    enum { N_CASES = sizeof CASES / sizeof *CASES };
    struct Runs runs = {.sandbox = s};
    for (size_t i = 0; i < N_CASES; i++) {
        struct SandboxJob job = {.program = xstrdup(CASES[i].program), .checks = xstrdup(CASES[i].checks)};
        add_run(&runs, xstrdup(CASES[i].checks), job)->limits.cpu_seconds = SHORT_SECONDS;
    }
    run_all(&runs);
    for (size_t i = 0; i < N_CASES; i++)
        CHECK(runs.all[i].ran && runs.all[i].result.verdict == CASES[i].verdict &&
                  (CASES[i].verdict == SANDBOX_PASSED || strstr(runs.all[i].result.detail, "processor time")),
              "%s: %s", runs.all[i].name, runs.all[i].ran ? runs.all[i].result.detail : fail_last());
    free_runs(&runs);
}

// --- Refusals: in a child from which one layer is taken away.

static bool write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    return f && fputs(text, f) >= 0 && fclose(f) == 0;
}

// No more namespaces of a kind, for this process's user namespace and those below it.
static bool without_namespace(const char *kind) {
    char *users = xsprintf("0 %d 1", (int)geteuid()), *groups = xsprintf("0 %d 1", (int)getegid());
    char *path = xsprintf("/proc/sys/user/max_%s_namespaces", kind);
    bool ok = unshare(CLONE_NEWUSER) == 0 && write_text("/proc/self/setgroups", "deny") &&
              write_text("/proc/self/uid_map", users) && write_text("/proc/self/gid_map", groups) &&
              write_text(path, "0");
    free(path);
    free(users);
    free(groups);
    return ok;
}

// As on a kernel that does not know the call.
static bool without_call(long number) {
    struct sock_filter code[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (uint32_t)number},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program = {4, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void test_missing_layers(void) {
    static const struct {
        const char *kind;
        long call;
        const char *reason;
    } CASES[] = {
        {"user", 0, "user namespace"},
        {"pid", 0, "pid namespace"},
        {"mnt", 0, "mount namespace"},
        {"net", 0, "net namespace"},
        {"ipc", 0, "ipc namespace"},
        {"uts", 0, "uts namespace"},
        {"cgroup", 0, "cgroup namespace"},
        {NULL, SYS_mount_setattr, "view of the file system"},
        {NULL, SYS_pivot_root, "view of the file system"},
        {NULL, SYS_sethostname, "host name"},
        {NULL, SYS_close_range, "descriptors"},
        {NULL, SYS_capset, "capabilities"},
        {NULL, SYS_landlock_create_ruleset, "Landlock"},
        {NULL, SYS_landlock_restrict_self, "Landlock"},
        {NULL, SYS_seccomp, "seccomp"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        int out[2], status;
        char reason[400] = "";
        CHECK(pipe(out) == 0, "%s", strerror(errno));
        pid_t pid = fork();
        if (pid == 0) {
            fail_quiet(true);
            if (!(CASES[i].kind ? without_namespace(CASES[i].kind) : without_call(CASES[i].call)))
                snprintf(reason, sizeof reason, "the layer could not be taken away: %s", strerror(errno));
            else if (sandbox_available(NULL, reason, sizeof reason))
                snprintf(reason, sizeof reason, "it runs");
            _exit(write(out[1], reason, sizeof reason) != sizeof reason);
        }
        close(out[1]);
        ssize_t n = read(out[0], reason, sizeof reason);
        close(out[0]);
        waitpid(pid, &status, 0);
        CHECK(n > 0 && strstr(reason, CASES[i].reason), "without %s: %s", CASES[i].reason, reason);
    }
    fail_quiet(true);
    char reason[400];
    CHECK(!sandbox_available("no/python", reason, sizeof reason) &&
              strstr(reason, "no/python does not run as a Python"),
          "%s", reason);
    CHECK(!sandbox_available("/bin/true", reason, sizeof reason) && strstr(reason, "does not run as a Python"), "%s",
          reason);
    fail_quiet(false);
}

// kill -9 of the process that asked leaves nobody behind: orphans come to this one, and end.
static void test_killed(const struct Sandbox *s) {
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "%s", strerror(errno));
    int orphans = 0, boxes = 0;
    pid_t pid = fork();
    if (pid == 0) {
        struct SandboxJob job = {.program = "import time\ntime.sleep(1e6)", .checks = "x()"};
        struct SandboxResult r;
        _exit(sandbox_run(s, &job, &(struct SandboxLimits){600, 600, 1 << 28}, &r));
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    for (int tries = 0; tries < 1000 && boxes < 2; tries++, usleep(10000)) {
        char children[100] = "";
        FILE *f = fopen(path, "r");
        size_t n = f ? fread(children, 1, sizeof children - 1, f) : 0;
        if (f)
            fclose(f);
        boxes = 0;
        for (size_t i = 0; i < n; i++)
            boxes += children[i] == ' ';
    }
    CHECK(boxes == 2, "%d boxes", boxes);
    kill(pid, SIGKILL);
    for (int tries = 0; tries < 1000 && orphans < 3; tries++) {
        pid_t ended = waitpid(-1, NULL, WNOHANG);
        orphans += ended > 0;
        if (ended == 0)
            usleep(10000);
    }
    CHECK(orphans == 3, "of the asking process and two boxes, %d were killed",
          orphans); // their own children go with process 1
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

static void test_ordinary_user(void) {
    enum { SOMEBODY = 12345 };
    if (geteuid() != 0) // then all of this runs as one
        return;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = setgroups(0, NULL) == 0 && setgid(SOMEBODY) == 0 && setuid(SOMEBODY) == 0 &&
                  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0; // as it is for whom a login started
        struct Sandbox *s = ok ? sandbox_open(NULL) : NULL;
        sandbox_close(s);
        _exit(s ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    CHECK(status == 0, "an ordinary user cannot open it");
}

// --- Whole benchmarks.

static void add_benchmark(struct Runs *runs, const char *path, bool faulty) {
    uint8_t *text;
    uint64_t bytes;
    if (!CHECK(file_read(path, 1 << 28, &text, &bytes), "%s", fail_last()))
        return;
    struct Section none;
    char *fault;
    read_sections("fault.py", &none, 0, &fault);
    size_t number = 0;
    for (char *line = (char *)text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        struct SandboxJob job;
        bool humaneval = strstr(line, "\"entry_point\"") != NULL;
        if (!make_job(humaneval ? 'h' : 'm', line, NULL, &job))
            continue;
        if (faulty) {
            char *names = json_quote(humaneval ? job.entry : job.checks, strlen(humaneval ? job.entry : job.checks));
            char *program = xsprintf("%s\n_checks = %s%s", job.program, names, fault);
            free((char *)job.program);
            free(names);
            job.program = program;
        }
        struct Run *r = add_run(runs, xsprintf("%s:%zu%s", path, ++number, faulty ? " with a fault" : ""), job);
        r->expected = faulty ? SANDBOX_FAILED : SANDBOX_PASSED;
    }
    free(fault);
    free(text);
}

static void run_benchmark(const struct Sandbox *s, const char *path) {
    for (int faulty = 0; faulty < 2; faulty++) {
        struct Runs runs = {.sandbox = s};
        add_benchmark(&runs, path, faulty);
        double begin = clock_seconds();
        run_all(&runs);
        size_t right = 0;
        for (size_t i = 0; i < runs.n; i++) {
            const struct Run *r = &runs.all[i];
            right += CHECK(r->ran && r->result.verdict == r->expected, "%s: %s: %s", r->name,
                           r->ran ? SANDBOX_VERDICTS[r->result.verdict] : "no verdict",
                           r->ran ? r->result.detail : fail_last());
        }
        printf("%s: %zu of %zu %s in %.1f s\n", path, right, runs.n, faulty ? "with a fault fail" : "pass",
               clock_seconds() - begin);
        free_runs(&runs);
    }
}

int main(int argc, char **argv) {
    struct Sandbox *s = sandbox_open(NULL);
    if (!s) {
        check_skip("there is no sandbox here: %s", fail_last());
        return check_done();
    }
    for (int i = 1; i < argc; i++)
        run_benchmark(s, argv[i]);
    if (argc == 1) {
        test_escapes(s);
        test_forgeries(s);
        test_records(s);
        test_output(s);
        test_times(s);
        test_killed(s);
        test_missing_layers();
        test_ordinary_user();
    }
    sandbox_close(s);
    return check_done();
}
