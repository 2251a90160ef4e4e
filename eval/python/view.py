# What a Python needs of the file system, as lines: "d" a folder, "f" a file (both to be shown as they are), "l" a symbolic
# link and its target. Run once, outside the sandbox, by the interpreter that is to run inside.
import os
import struct
import sys

# Modules of the standard library that bring shared libraries of their own.
for name in ("_ctypes", "bz2", "decimal", "hashlib", "lzma", "math", "pyexpat", "random", "uuid", "zlib"):
    try:
        __import__(name)
    except ImportError:
        pass

shown = {}  # path -> line


def add(kind, path):
    """Shows `path`, and every symbolic link on the way to it."""
    parts, at = path.split("/")[1:], ""
    while parts:
        at += "/" + parts.pop(0)
        if shown.get(at, "").startswith("d "):
            return
        if os.path.islink(at):
            target = os.readlink(at)
            shown[at] = f"l {at}\t{target}"
            parts = os.path.normpath(os.path.join(os.path.dirname(at), target)).split("/")[1:] + parts
            at = ""
    shown[at] = f"{kind} {at}"


def loader_of(program):
    """The dynamic loader that a 64-bit ELF file asks for, by the name that it asks for."""
    with open(program, "rb") as file:
        header = file.read(64)
        first, size, count = *struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54)
        for i in range(count):
            file.seek(first + i * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == 3:  # PT_INTERP
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()


python = os.path.realpath(sys.executable)
folders = sorted({os.path.realpath(path) for path in sys.path if os.path.isdir(path)})
for folder in folders:
    add("d", folder)
add("f", python)
loader = loader_of(python)
if loader:
    add("f", loader)
with open("/proc/self/maps") as file:
    libraries = {line.split(None, 5)[5].rstrip("\n") for line in file if ".so" in line}
for library in sorted(libraries):
    # The file, and the names under which the loader asks for it.
    folder = os.path.dirname(library)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.realpath(path) == library:
            add("f", path)
print("p", python)
print(*shown.values(), sep="\n")
