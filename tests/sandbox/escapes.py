# Programs that try to get out of the sandbox, one behind each line "#: NAME [= VERDICT] [~] [!]"; the first part goes before every other. attempt()
# gives "held", or what it got hold of. VERDICT is what the run must end with where that is not "passed", the answer "held"; ~: it waits, so that the
# clock on the wall must end it. Those marked ! are also run outside, where they must get hold of something: so it is known that they try what they say.
#
# Before them stand CANARY_FILE, CANARY_NEW, CANARY_PORT, CANARY_ABSTRACT, CANARY_SOCKET, CANARY_PID, CANARY_KEY, CANARY_FD: things of
# the test's outside, which must be untouched afterwards.
import ctypes
import errno
import mmap
import os
import signal
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"


def call(x86, arm, *args):
    """A system call by its number on each processor (None: it has none there)."""
    number = x86 if X86 else arm
    if number is None:
        return "held"
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *args)
    if result < 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return "held"
    return f"call {number}: {result}, errno {ctypes.get_errno()}"


def all_of(*results):
    return next((r for r in results if r != "held"), "held")


def refused(action, *kinds):
    try:
        return f"got {action()!r}"
    except kinds or OSError:
        return "held"


#: read a file by its path !
def attempt():
    return refused(lambda: open(CANARY_FILE).read())


#: make a file outside !
def attempt():
    return refused(lambda: open(CANARY_NEW, "w").write("x"))


#: overwrite a file outside
def attempt():
    return refused(lambda: open(CANARY_FILE, "a").write("x"))


#: remove a file outside
def attempt():
    return refused(lambda: os.unlink(CANARY_FILE))


#: list the root !
def attempt():
    return refused(lambda: os.listdir("/"))


#: read the users !
def attempt():
    return refused(lambda: open("/etc/passwd").read())


#: look for homes and the shadow file
def attempt():
    return all_of(*(refused(lambda: os.stat(p)) for p in ("/root", "/home", "/etc/shadow", "/var/run/docker.sock", "/run/user")))


#: proc !
def attempt():
    return refused(lambda: open("/proc/self/status").read())


#: the memory and environment of others in proc
def attempt():
    return all_of(*(refused(lambda: open(p, "rb").read(1)) for p in ("/proc/1/environ", "/proc/1/mem", "/proc/self/mem", "/proc/kcore")))


#: sysfs and control groups !
def attempt():
    return refused(lambda: os.stat("/sys/kernel"))


#: out through dots
def attempt():
    for _ in range(20):
        try:
            os.chdir("..")
        except OSError:
            break
    return all_of(refused(lambda: open("etc/passwd")), refused(lambda: open("../" * 30 + "etc/passwd")))


#: out through a symbolic link
def attempt():
    def follow():
        os.symlink("/etc/passwd", "link")
        return open("link").read()

    return refused(follow)


#: out through a hard link
def attempt():
    return refused(lambda: os.link(os.__file__, "os.py"))


#: change the Python that others use
def attempt():
    return all_of(
        refused(lambda: open(os.__file__, "a")),
        refused(lambda: os.unlink(os.__file__)),
        refused(lambda: os.rename(os.__file__, "os.py")),
        refused(lambda: open(os.path.dirname(os.__file__) + "/new.py", "w")),
        refused(lambda: open(sys.executable, "r+b")),
    )


#: chroot and leave it
def attempt():
    os.mkdir("jail")
    return refused(lambda: os.chroot("jail"))


#: inherited descriptors !
def attempt():
    for fd in range(5, 1024):
        try:
            os.fstat(fd)
        except OSError:
            continue
        return f"descriptor {fd} is open"
    return "held"


#: a folder among the descriptors
def attempt():
    def look(fd):
        return os.open("..", os.O_RDONLY, dir_fd=fd)

    return all_of(*(refused(lambda: look(fd)) for fd in range(64)))


#: the canary's own descriptor
def attempt():
    return all_of(refused(lambda: os.read(CANARY_FD, 1)), refused(lambda: os.write(CANARY_FD, b"x")))


#: the environment !
def attempt():
    return "got " + os.environ["VKMOE_CANARY"] if "VKMOE_CANARY" in os.environ else "held"


#: open files by handle, past all mounts
def attempt():
    return all_of(call(304, 265, 3, 0, 0), call(303, 264, 3, b"/", 0, 0, 0))


#: fork
def attempt():
    return refused(os.fork)


#: fork bomb
def attempt():
    made = 0
    for _ in range(2000):
        try:
            made += os.fork() > 0
        except OSError:
            pass
    return f"{made} processes" if made else "held"


#: fork under its other names
def attempt():
    return all_of(call(58, None), call(57, None), call(435, 435, 0, 0), call(56, 220, signal.SIGCHLD, 0, 0, 0, 0))


#: a crowd of threads
def attempt():
    threads, made = [], 0
    try:
        for _ in range(300):
            threads.append(threading.Thread(target=time.sleep, args=(0.3,), daemon=True))
            threads[-1].start()
            made += 1
    except RuntimeError:
        pass
    return f"{made} threads" if made > 32 else "held"


#: a shell
def attempt():
    import subprocess

    return all_of(refused(lambda: subprocess.run(["sh", "-c", "id"])), refused(lambda: os.execv("/bin/sh", ["sh"])), "held" if os.system("id") else "ran")


#: run a file of its own
def attempt():
    with open("run", "w") as f:
        f.write("#!" + sys.executable)
    os.chmod("run", 0o6755)
    return refused(lambda: os.execv("./run", ["run"]))


#: map a file of its own as code
def attempt():
    with open("code", "w+b") as f:
        f.write(bytes(4096))
        f.flush()
        return refused(lambda: mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE))


#: all memory in one piece
def attempt():
    return refused(lambda: len(bytearray(1 << 33)), MemoryError)


#: all memory in many pieces
def attempt():
    def fill():
        pieces = []
        while len(pieces) < 4096:
            pieces.append(bytearray(1 << 20))
        return len(pieces)

    return refused(fill, MemoryError)


#: memory by mmap
def attempt():
    return refused(lambda: [mmap.mmap(-1, 1 << 28) for _ in range(64)])


#: memory behind a descriptor
def attempt():
    return all_of(call(319, 279, b"x", 0), call(447, 447, 0), refused(lambda: os.memfd_create("x")))


#: locked memory
def attempt():
    return all_of(call(149, 228, 0, 4096), call(151, 230, 3))


#: fill the disk
def attempt():
    written = 0
    try:
        for i in range(64):
            with open(f"{i}", "wb", buffering=0) as f:
                for _ in range(64):
                    written += f.write(bytes(1 << 20))
    except OSError:
        pass
    return f"{written >> 20} MiB" if written > 16 << 20 else "held"


#: one very large file
def attempt():
    def grow():
        with open("large", "wb") as f:
            f.truncate(1 << 34)

    return refused(grow)


#: more files than there is room for
def attempt():
    made = 0
    try:
        for i in range(100000):
            open(f"{i}", "w").close()
            made += 1
    except OSError:
        pass
    return f"{made} files" if made > 256 else "held"


#: more descriptors than allowed
def attempt():
    made = 0
    try:
        while made < 10000:
            os.dup(1)
            made += 1
    except OSError:
        pass
    return f"{made} descriptors" if made > 32 else "held"


#: connect to the machine !
def attempt():
    import socket

    return refused(lambda: socket.create_connection(("127.0.0.1", CANARY_PORT), 2))


#: listen
def attempt():
    import socket

    return all_of(*(refused(lambda: socket.socket(family, kind)) for family in (2, 10) for kind in (1, 2, 3)))


#: look up a name
def attempt():
    import socket

    return refused(lambda: socket.getaddrinfo("example.org", 80))


#: an abstract socket of the machine !
def attempt():
    import socket

    return refused(lambda: socket.socket(socket.AF_UNIX).connect("\0" + CANARY_ABSTRACT))


#: a socket in the file system !
def attempt():
    import socket

    return refused(lambda: socket.socket(socket.AF_UNIX).connect(CANARY_SOCKET))


#: netlink, packets, the hypervisor, bluetooth, kernel crypto
def attempt():
    import socket

    return all_of(*(refused(lambda: socket.socket(family, kind)) for family in (16, 17, 31, 38, 40) for kind in (2, 3, 5)))


#: a pair of sockets, to pass descriptors
def attempt():
    import socket

    return refused(socket.socketpair)


#: signal the parent and everybody
def attempt():
    return all_of(*(refused(lambda: os.kill(pid, signal.SIGKILL)) for pid in (os.getppid(), 1, -1, 0, CANARY_PID)))


#: signal a process outside !
def attempt():
    return refused(lambda: os.kill(CANARY_PID, 0))


#: signal process 1 by thread
def attempt():
    for s in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
        libc.syscall(ctypes.c_long(234 if X86 else 131), 1, 1, int(s))
    time.sleep(0.05)
    return "held"  # else this would not be said


#: signals by a descriptor's owner
def attempt():
    import fcntl

    r, w = os.pipe()
    try:
        fcntl.fcntl(r, fcntl.F_SETOWN, CANARY_PID)
        fcntl.fcntl(r, 10, signal.SIGKILL)  # F_SETSIG
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
        os.write(w, b"x")
    except OSError:
        pass
    return "held"  # whether it was is for the canary to say


#: process descriptors
def attempt():
    return all_of(call(434, 434, 1, 0), call(424, 424, 0, 9, 0, 0), call(438, 438, 0, 0, 0), call(440, 440, 0, 0, 0, 0, 0))


#: ptrace
def attempt():
    return all_of(call(101, 117, 0, 0, 0, 0), call(101, 117, 16, 1, 0, 0), call(101, 117, 0x4206, os.getppid(), 0, 0))


#: read another process's memory
def attempt():
    return all_of(call(310, 270, 1, 0, 0, 0, 0, 0), call(311, 271, 1, 0, 0, 0, 0, 0), call(312, 272, 1, 1, 0, 0, 0))


#: mount
def attempt():
    return all_of(call(165, 40, b"x", b"/tmp", b"tmpfs", 0, 0), call(165, 40, b"x", b"/", b"", 32, 0), call(165, 40, b"proc", b"/tmp", b"proc", 0, 0))


#: mount by the newer calls
def attempt():
    return all_of(call(428, 428, -100, b"/", 1), call(429, 429, 0, b"", -100, b"/tmp", 4), call(430, 430, b"tmpfs", 0), call(442, 442, -100, b"/", 0, b"", 32))


#: unmount
def attempt():
    return all_of(call(166, 39, b"/", 2), call(166, 39, b"/tmp", 2))


#: pivot_root
def attempt():
    return call(155, 41, b"/tmp", b"/tmp")


#: new namespaces
def attempt():
    flags = (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000, 0x10000000 | 0x20000)
    return all_of(*(call(272, 97, flag) for flag in flags))


#: new namespaces of a child
def attempt():
    return all_of(*(call(56, 220, flag | signal.SIGCHLD, 0, 0, 0, 0) for flag in (0x10000000, 0x20000000, 0x10000000 | 0x20000 | 0x40000000)))


#: others' namespaces
def attempt():
    return all_of(*(call(308, 268, fd, 0) for fd in range(5)))


#: become root
def attempt():
    return all_of(*(refused(lambda: f(0)) for f in (os.setuid, os.seteuid, os.setgid, os.setegid)), refused(lambda: os.setgroups([0])), call(126, 91, 0, 0))


#: take new privileges, or undo what was given up
def attempt():
    prctl = [call(157, 167, *args) for args in ((4, 1), (8, 1), (22, 1), (23, 21), (28, 0), (36, 1), (47, 2, 21, 0, 0))]
    return all_of(*prctl, call(317, 277, 1, 0, 0), call(444, 444, 0, 0, 1), call(446, 446, 0, 0))


#: raise a limit
def attempt():
    import resource

    kinds = (resource.RLIMIT_NPROC, resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)
    return all_of(*(refused(lambda: resource.setrlimit(kind, (-1, -1)), OSError, ValueError) for kind in kinds))


#: keys of the kernel
def attempt():
    return all_of(call(250, 219, 0, -3, 0), call(248, 217, b"user", b"x", b"y", 1, -4), call(249, 218, b"user", b"x", 0, 0))


#: perf
def attempt():
    return call(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)


#: io_uring
def attempt():
    return all_of(call(425, 425, 8, ctypes.create_string_buffer(128)), call(426, 426, 0, 0, 0, 0, 0), call(427, 427, 0, 0, 0, 0))


#: bpf
def attempt():
    return all_of(*(call(321, 280, command, ctypes.create_string_buffer(128), 128) for command in (0, 5, 7)))


#: userfaultfd
def attempt():
    return all_of(call(323, 282, 0), call(323, 282, 1))


#: shared memory of System V !
def attempt():
    result = libc.shmget(CANARY_KEY, 4096, 0)
    return "held" if result < 0 else f"segment {result}"


#: queues and semaphores of System V
def attempt():
    return all_of(call(68, 186, 0, 0o1600), call(64, 190, 0, 1, 0o1600), call(29, 194, 0, 4096, 0o1600))


#: queues of POSIX
def attempt():
    return all_of(call(240, 180, b"q", 0o102, 0o600, 0), call(241, 181, b"q"))


#: leave a core = ended
def attempt():
    os.chdir("/tmp")
    os.abort()


#: type at the terminal
def attempt():
    import fcntl

    return all_of(*(refused(lambda: fcntl.ioctl(fd, request, b"x")) for fd in range(5) for request in (0x5412, 0x540E, 0x541C, 0x5410)))


#: devices: graphics cards, memory, terminals, virtual machines, disks
def attempt():
    names = "nvidia0 nvidiactl nvidia-uvm dri/card0 dri/renderD128 kfd dxg mem kmem kmsg port tty tty0 console ptmx kvm fuse loop-control vda sda net/tun vhost-vsock".split()
    return all_of(*(refused(lambda: os.open("/dev/" + name, os.O_RDONLY)) for name in names))


#: make a device
def attempt():
    kinds = ((0o20666, 1, 1), (0o60666, 254, 0), (0o20666, 226, 128), (0o20666, 195, 0))
    return all_of(*(refused(lambda: os.mknod(f"{major}", mode, os.makedev(major, minor))) for mode, major, minor in kinds))


#: the clock
def attempt():
    return all_of(call(227, 112, 0, ctypes.create_string_buffer(16)), call(164, 170, ctypes.create_string_buffer(16), 0), call(159, 171, ctypes.create_string_buffer(256)))


#: priority and processors
def attempt():
    return all_of(refused(lambda: os.nice(-5)), call(144, 119, 0, 1, ctypes.create_string_buffer(b"\1", 8)), call(203, 122, 0, 8, ctypes.create_string_buffer(b"\1", 8)), call(251, 30, 1, 0, 0x2000))


#: the name of the machine
def attempt():
    return all_of(call(170, 161, b"taken", 5), call(171, 162, b"taken", 5), "held" if os.uname().nodename == "sandbox" else os.uname().nodename)


#: the kernel: reboot, modules, another kernel, swap, accounting, quota, its log
def attempt():
    # The restart is asked for with a wrong magic number: refused by the kernel too, with another error.
    return all_of(call(169, 142, 0, 0, 0, 0), call(313, 273, -1, b"", 0), call(176, 106, b"x", 0), call(246, 104, 0, 0, 0, 0), call(320, None, -1, -1, 0, 0, 0), call(168, 225, b"x"), call(163, 89, 0), call(179, 60, -1, 0, 0, 0), call(103, 116, 10, 0, 0))


#: ports and segments of the processor
def attempt():
    return all_of(call(172, None, 3), call(173, None, 0, 16, 1), call(154, None, 0, 0, 0), call(135, 92, 0x0400000))


#: watch files
def attempt():
    return all_of(call(300, 262, 0, 0), call(294, 26, 0), call(253, None), call(212, 18, 0, 0, 0))


#: pages between processes
def attempt():
    return all_of(call(275, 76, 0, 0, 1, 0, 1, 0), call(278, 75, 1, 0, 0, 0), call(276, 77, 0, 1, 1, 0), call(279, 239, 0, 0, 0, 0, 0, 0), call(448, 448, 0, 0))


#: calls with the other set of numbers
def attempt():
    if not X86:
        return "held"
    return all_of(*(call(0x40000000 | number, None, 0, 0, 0) for number in (39, 41, 57, 101, 165, 272)))


#: calls of a 32-bit processor = ended
def attempt():
    if not X86:
        os.abort()
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


#: crash = ended
def attempt():
    ctypes.string_at(0)


#: leave = ended
def attempt():
    os._exit(0)


#: compute for ever = timed out
def attempt():
    while True:
        pass


#: sleep for ever = timed out ~
def attempt():
    time.sleep(1e6)


#: compute for ever in threads = timed out
def attempt():
    def work():
        while True:
            pass

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    work()


#: ignore all signals, for ever = timed out
def attempt():
    for s in range(1, 65):
        try:
            signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        pass


#: print for ever = timed out
def attempt():
    while True:
        os.write(1, b"x" * 65536)


#: complain for ever = timed out
def attempt():
    while True:
        print("x" * 10000, file=sys.stderr)


#: half an answer = timed out ~
def attempt():
    os.write(4, b"\x10\0\0\0\0\0\0\0abc")
    time.sleep(1e6)


#: answer for ever = failed
def attempt():
    while True:
        os.write(4, b"\xff" * 65536)


#: threads that go on behind the answer
def attempt():
    def work():
        while True:
            os.write(1, b"x")

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    return "held"
