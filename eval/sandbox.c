// The two boxes of a run: who talks to whom, the clock, and the verdict.
#include "eval/sandbox.h"
#include "eval/box.h"
#include "eval/python.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const SANDBOX_VERDICTS[] = {"passed", "failed", "ended", "timed out"};

struct Sandbox {
    char *python;
    struct BoxFile *files;
    size_t n_files;
    char *listing; // what the strings of `files` point into
    char *program, *checker;
};

// --- What the interpreter needs: it is asked itself, once, outside.

static char *read_all(int fd) {
    size_t n = 0, room = 1 << 16;
    char *text = xmalloc(room);
    for (;;) {
        ssize_t got = read(fd, text + n, room - n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
        if (n + 1 == room)
            text = xrealloc(text, room *= 2);
    }
    text[n] = 0;
    return text;
}

static char *ask_python(const char *python) {
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return NULL;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    char *const argv[] = {(char *)python, "-I", "-S", "-B", "-c", (char *)PYTHON_VIEW, NULL};
    extern char **environ;
    pid_t pid;
    int error = posix_spawn(&pid, python, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    char *text = NULL;
    if (error == 0) {
        int status = 0;
        text = read_all(out[0]);
        waitpid(pid, &status, 0);
        if (status != 0 || strncmp(text, "p /", 3) != 0) {
            free(text);
            text = NULL;
        }
    }
    close(out[0]);
    return text;
}

static bool read_listing(struct Sandbox *s) {
    char *save = NULL;
    for (char *line = strtok_r(s->listing, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strlen(line) < 4 || line[1] != ' ' || line[2] != '/')
            return fail("sandbox: a file name that cannot be shown: %s", line);
        struct BoxFile f = {line[0], line + 2, NULL};
        if (f.kind == 'p') {
            s->python = f.path;
            continue;
        }
        if (f.kind == 'l') {
            f.target = strchr(f.path, '\t');
            if (!f.target)
                return fail("sandbox: a link without a target: %s", line);
            *f.target++ = 0;
        }
        s->files = xrealloc(s->files, (s->n_files + 1) * sizeof *s->files);
        s->files[s->n_files++] = f;
    }
    return true;
}

// --- A run.

// A value of python/wire.py: a tuple of byte strings. It lies in memory, so that nobody has to wait for a reader.
static int make_job_file(const struct SandboxJob *job) {
    const char *texts[] = {job->program, job->reference, job->setup, job->checks, job->entry};
    uint64_t n = sizeof texts / sizeof *texts;
    int fd = memfd_create("job", MFD_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(dup(fd), "w");
    if (!f) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    fputc('t', f);
    fwrite(&n, sizeof n, 1, f);
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = texts[i] ? strlen(texts[i]) : 0;
        fputc('b', f);
        fwrite(&bytes, sizeof bytes, 1, f);
        fwrite(texts[i] ? texts[i] : "", 1, bytes, f);
    }
    if (fclose(f) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

// What comes out of a pipe, up to a bound; the rest is read and dropped, so that the writer's only limit is its time.
struct Stream {
    int fd; // -1: at its end
    char *data;
    size_t n, room;
};

static void stream_read(struct Stream *s) {
    char dropped[1 << 14];
    bool full = s->n == s->room;
    ssize_t got = read(s->fd, full ? dropped : s->data + s->n, full ? sizeof dropped : s->room - s->n);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        close(s->fd);
        s->fd = -1;
    } else if (!full)
        s->n += (size_t)got;
}

enum { VERDICT, OUTPUT, REMARKS, N_STREAMS }; // the checker's verdict, what the program prints, what the checker prints

static const char READY[] = "ready\n";

static bool is_ready(const struct Stream *verdict) { return !strncmp(verdict->data, READY, strlen(READY)); }

// Until the checker has ended or the time is over. The program's clock starts when both sides are ready: a busy machine takes
// long to start a Python, which is not the program's fault. False: its time is over.
static bool follow(struct Stream *streams, double wall_seconds, double *seconds) {
    enum { START_SECONDS = 120 };
    bool ready = false;
    for (double begin = clock_seconds(), limit = START_SECONDS; streams[VERDICT].fd >= 0;) {
        if (!ready && is_ready(&streams[VERDICT])) {
            ready = true;
            begin = clock_seconds();
            limit = wall_seconds;
        }
        *seconds = clock_seconds() - begin;
        if (*seconds >= limit)
            return false;
        struct pollfd p[N_STREAMS];
        for (int i = 0; i < N_STREAMS; i++)
            p[i] = (struct pollfd){streams[i].fd, POLLIN, 0};
        if (poll(p, N_STREAMS, (int)((limit - *seconds) * 1000) + 1) <= 0)
            continue;
        for (int i = 0; i < N_STREAMS; i++)
            if (p[i].fd >= 0 && p[i].revents)
                stream_read(&streams[i]);
    }
    // What the program printed before is in the pipe already.
    for (;;) {
        struct pollfd p = {streams[OUTPUT].fd, POLLIN, 0};
        if (p.fd < 0 || poll(&p, 1, 0) <= 0 || streams[OUTPUT].n == streams[OUTPUT].room)
            return true;
        stream_read(&streams[OUTPUT]);
    }
}

static void describe_status(char *text, size_t bytes, int status) {
    if (WIFSIGNALED(status))
        snprintf(text, bytes, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, bytes, "exit status %d", WEXITSTATUS(status));
}

static bool set_up(const struct BoxReport *report) {
    return !report->layer[0] || fail("sandbox: not possible here: %s: %s", report->layer, strerror(report->error));
}

// A limit on processor time ended it; SIGXCPU may be ignored, and the kernel counts by ticks.
static bool used_up(const struct BoxReport *r, unsigned cpu_seconds) {
    if (!WIFSIGNALED(r->status))
        return false;
    return WTERMSIG(r->status) == SIGXCPU ||
           (WTERMSIG(r->status) == SIGKILL && r->cpu_seconds >= 0.9 * (double)cpu_seconds);
}

// The checker's words: "ready", then "passed", "failed WHY" or "ended WHY". Nobody else holds that pipe.
static bool read_verdict(struct SandboxResult *r, bool in_time, const struct Stream *streams,
                         const struct BoxReport reports[2], unsigned cpu_seconds) {
    if (!set_up(&reports[0]) || !set_up(&reports[1]))
        return false;
    char how[80];
    if (!is_ready(&streams[VERDICT])) {
        describe_status(how, sizeof how, reports[1].status);
        return fail("sandbox: Python did not start: %s: %.300s", how, streams[REMARKS].data);
    }
    if (!in_time) {
        r->verdict = SANDBOX_TIMED_OUT;
        snprintf(r->detail, sizeof r->detail, "still running after %.1f s", r->seconds);
        return true;
    }
    const char *words = streams[VERDICT].data + strlen(READY);
    for (int i = 0; i < 2; i++)
        if (used_up(&reports[i], cpu_seconds) && (i == 1 || !strncmp(words, "ended ", 6))) {
            r->verdict = SANDBOX_TIMED_OUT;
            snprintf(r->detail, sizeof r->detail, "used up %u s of processor time", cpu_seconds);
            return true;
        }
    size_t length = strcspn(words, "\n");
    const char *why = "";
    r->verdict = SANDBOX_FAILED;
    if (length == 6 && !strncmp(words, "passed", 6) && words[length] == '\n') {
        r->verdict = SANDBOX_PASSED;
        length = 0;
    } else if (!strncmp(words, "failed ", 7) || !strncmp(words, "ended ", 6)) {
        r->verdict = *words == 'e' ? SANDBOX_ENDED : SANDBOX_FAILED;
        why = strchr(words, ' ') + 1;
        length -= (size_t)(why - words);
    } else {
        why = "the checker ended without a verdict";
        length = strlen(why);
    }
    if (r->verdict == SANDBOX_ENDED) {
        describe_status(how, sizeof how, reports[0].status);
        snprintf(r->detail, sizeof r->detail, "%s: %.*s", how, (int)length, why);
    } else
        snprintf(r->detail, sizeof r->detail, "%.*s", (int)length, why);
    return true;
}

static bool start_boxes(const struct Sandbox *s, const struct SandboxLimits *limits, int fds[2][6],
                        struct Box boxes[2]) {
    const char *const program[] = {s->python, "-S", "-B", "-c", s->program, NULL};
    const char *const checker[] = {s->python, "-S", "-B", "-c", s->checker, NULL};
    struct BoxPlan plan = {.files = s->files,
                           .n_files = s->n_files,
                           .memory_bytes = limits->memory_bytes,
                           .cpu_seconds = limits->cpu_seconds};
    plan.argv = program;
    plan.n_fds = 5;
    memcpy(plan.fds, fds[0], sizeof(int) * 5);
    if (!box_start(&boxes[0], &plan))
        return false;
    plan.argv = checker;
    plan.n_fds = 6;
    memcpy(plan.fds, fds[1], sizeof(int) * 6);
    if (box_start(&boxes[1], &plan))
        return true;
    box_end(&boxes[0], NULL);
    return false;
}

bool sandbox_run(const struct Sandbox *s, const struct SandboxJob *job, const struct SandboxLimits *limits,
                 struct SandboxResult *result) {
    enum { REQUESTS, ANSWERS, PRINTED, JUDGED, REMARKED, N_PIPES };
    int pipes[N_PIPES][2], n_pipes = 0, nothing = open("/dev/null", O_RDONLY | O_CLOEXEC), texts = make_job_file(job);
    while (n_pipes < N_PIPES && pipe2(pipes[n_pipes], O_CLOEXEC) == 0)
        n_pipes++;
    bool ok = n_pipes == N_PIPES && nothing >= 0 && texts >= 0;
    if (!ok)
        fail("sandbox: no descriptors: %s", strerror(errno));
    struct Box boxes[2];
    if (ok) {
        int fds[2][6] = {
            {nothing, pipes[PRINTED][1], pipes[PRINTED][1], pipes[REQUESTS][0], pipes[ANSWERS][1]},
            {texts, pipes[REMARKED][1], pipes[REMARKED][1], pipes[ANSWERS][0], pipes[REQUESTS][1], pipes[JUDGED][1]},
        };
        ok = start_boxes(s, limits, fds, boxes);
    }
    // From here on each end is where it belongs: the reading ends of three pipes here, all others in the boxes alone.
    for (int i = 0; i < n_pipes; i++) {
        close(pipes[i][1]);
        if (!ok || i == REQUESTS || i == ANSWERS)
            close(pipes[i][0]);
    }
    if (nothing >= 0)
        close(nothing);
    if (texts >= 0)
        close(texts);
    if (!ok)
        return false;

    struct Stream streams[N_STREAMS] = {{pipes[JUDGED][0], NULL, 0, 1023},
                                        {pipes[PRINTED][0], NULL, 0, SANDBOX_KEPT_OUTPUT},
                                        {pipes[REMARKED][0], NULL, 0, 4095}};
    for (int i = 0; i < N_STREAMS; i++)
        streams[i].data = xcalloc(1, streams[i].room + 1);
    *result = (struct SandboxResult){0};
    bool in_time = follow(streams, limits->wall_seconds, &result->seconds);
    struct BoxReport reports[2] = {{.error = 0}};
    // Where the program ended by itself, or the checker without a word, how it did is on its way: the same words each time.
    bool program_ended = strstr(streams[VERDICT].data, "\nended ") != NULL;
    if (in_time && (program_ended || !strcmp(streams[VERDICT].data, READY)))
        poll(&(struct pollfd){boxes[program_ended ? 0 : 1].report, POLLIN, 0}, 1, 2000);
    for (int i = 0; i < 2; i++)
        box_end(&boxes[i], &reports[i]);
    ok = read_verdict(result, in_time, streams, reports, limits->cpu_seconds);
    for (int i = 0; i < N_STREAMS; i++) {
        if (streams[i].fd >= 0)
            close(streams[i].fd);
        if (i != OUTPUT || !ok)
            free(streams[i].data);
    }
    if (ok) {
        result->output = streams[OUTPUT].data;
        result->output_bytes = streams[OUTPUT].n;
    }
    return ok;
}

void sandbox_result_free(struct SandboxResult *result) {
    free(result->output);
    result->output = NULL;
}

// --- Opening: a right program must pass and a wrong one must not.

static bool try_out(const struct Sandbox *s) {
    static const char *const PROGRAMS[] = {"def next_of(x): return x + 1", "def next_of(x): return x + 2"};
    for (int wrong = 0; wrong < 2; wrong++) {
        struct SandboxJob job = {.program = PROGRAMS[wrong], .checks = "assert next_of(41) == 42"};
        struct SandboxResult r;
        if (!sandbox_run(s, &job, &SANDBOX_LIMITS, &r))
            return false;
        sandbox_result_free(&r);
        if (r.verdict != (wrong ? SANDBOX_FAILED : SANDBOX_PASSED))
            return fail("sandbox: a trial %s: %s", SANDBOX_VERDICTS[r.verdict], r.detail);
    }
    return true;
}

struct Sandbox *sandbox_open(const char *python) {
    struct Sandbox *s = xcalloc(1, sizeof *s);
    if (!python)
        python = "/usr/bin/python3";
    s->program = xsprintf("%s%s", PYTHON_WIRE, PYTHON_PROGRAM);
    s->checker = xsprintf("%s%s", PYTHON_WIRE, PYTHON_CHECKER);
    s->listing = ask_python(python);
    if (s->listing ? read_listing(s) && try_out(s) : fail("sandbox: %s does not run as a Python", python))
        return s;
    sandbox_close(s);
    return NULL;
}

void sandbox_close(struct Sandbox *s) {
    if (!s)
        return;
    free(s->files);
    free(s->listing);
    free(s->program);
    free(s->checker);
    free(s);
}

bool sandbox_available(const char *python, char *reason, size_t reason_bytes) {
    struct Sandbox *s = sandbox_open(python);
    snprintf(reason, reason_bytes, "%s", s ? "" : fail_last());
    sandbox_close(s);
    return s != NULL;
}
