#!/usr/bin/env python3
"""What NVIDIA's driver makes of our kernels: the machine code in a pipeline cache (vkmoe's, in its cache folder, or any that
vkGetPipelineCacheData gave), which no extension of that driver shows.

    nvidia_sass.py CACHE [--arch SM90] [--out FOLDER]

Prints for each pipeline the instructions that stand in it most often, and with --out leaves the whole listings in a folder. Wants
nvdisasm (CUDA's; PyPI has it as nvidia-cuda-nvdisasm) in PATH and the module zstandard.
A cache holds zstd frames; in each lies an object that begins with NVuc: its number of sections (16 bits) at byte 8, and from byte 32 on
their table, 32 bytes each: type, bytes, offset. Type 1 is code. (As seen with driver 580.)
"""
import argparse
import collections
import os
import re
import struct
import subprocess
import tempfile

import zstandard

ZSTD, OBJECT, CODE = b"\x28\xb5\x2f\xfd", b"NVuc", 1


def objects(cache):
    at = cache.find(ZSTD)
    while at >= 0:
        try:
            plain = zstandard.ZstdDecompressor().decompressobj().decompress(cache[at:])
        except zstandard.ZstdError:  # four bytes that happen to look like a frame
            plain = b""
        if OBJECT in plain:
            yield plain[plain.find(OBJECT):]
        at = cache.find(ZSTD, at + 1)


def code(obj):
    for i in range(struct.unpack_from("<H", obj, 8)[0]):
        kind, size, offset = struct.unpack_from("<III", obj, 32 + 32 * i)
        if kind == CODE:
            yield obj[offset:offset + size]


def listing(words, arch):
    with tempfile.NamedTemporaryFile() as f:
        f.write(words)
        f.flush()
        return subprocess.run(["nvdisasm", "-b", arch, f.name], capture_output=True, text=True, check=True).stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cache")
    parser.add_argument("--arch", default="SM90")
    parser.add_argument("--out")
    args = parser.parse_args()
    with open(args.cache, "rb") as f:
        cache = f.read()
    sections = (words for obj in objects(cache) for words in code(obj))
    for n, words in enumerate(sections):
        text = listing(words, args.arch)
        names = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", text, re.M)
        most = collections.Counter(names).most_common(12)
        print(f"pipeline {n}: {len(words)} bytes;", ", ".join(f"{count} {name}" for name, count in most))
        if args.out:
            os.makedirs(args.out, exist_ok=True)
            with open(os.path.join(args.out, f"{n}.sass"), "w") as f:
                f.write(text)


if __name__ == "__main__":
    main()
