#!/usr/bin/env python3
"""Lists the machine code of lavapipe's kernels, which Mesa keeps as object files in its shader cache.

  lavapipe_code.py OUT [CACHE]   writes OUT/NAME.s for each kernel of CACHE (~/.cache/mesa_shader_cache) by objdump, and says for each how long it is
                                 and which its commonest instructions are. With an empty cache before one `vkmoe bench kernels KERNEL` the longest is
                                 mostly what was asked for.

For development: needs objdump and the Python package zstandard."""
import collections, glob, os, re, subprocess, sys

import zstandard

ZSTD, ELF = b"\x28\xb5\x2f\xfd", b"\x7fELF"


def object_of(path):
    with open(path, "rb") as file:
        entry = file.read()
    at = entry.find(ZSTD)
    if at < 0:
        return None
    try:
        data = zstandard.ZstdDecompressor().decompressobj().decompress(entry[at:])
    except zstandard.ZstdError:
        return None
    start = data.find(ELF)
    return data[start:] if start >= 0 else None


def main(out, cache):
    os.makedirs(out, exist_ok=True)
    for path in sorted(glob.glob(os.path.join(cache, "*", "*"))):
        code = object_of(path)
        if not code:
            continue
        name = os.path.join(out, os.path.basename(path)[:12])
        with open(name + ".o", "wb") as file:
            file.write(code)
        listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", "-M", "intel", name + ".o"], capture_output=True, text=True, check=True).stdout
        with open(name + ".s", "w") as file:
            file.write(listing)
        words = re.findall(r"^\s+[0-9a-f]+:\t(\S+)", listing, re.MULTILINE)
        common = ", ".join(f"{n} {word}" for word, n in collections.Counter(words).most_common(6))
        print(f"{name}.s  {len(words)} instructions: {common}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else os.path.expanduser("~/.cache/mesa_shader_cache"))
