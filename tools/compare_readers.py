#!/usr/bin/env python3
"""Accept-or-reject agreement of vkmoe's readers with safetensors and gguf-py on mutated files. For development: needs safetensors, gguf and
numpy, and the test program test_files of this project ($TEST_FILES, else build/tests/test_files).

  compare_readers.py [FILES [SEED]]   10000 mutated files by default, half of each format; prints a table of agreement and reasons

A mutation changes what a hostile writer would: a field to a number at an edge, a length, an offset, a type, a name, a bit, the end of the file.
All follow from a fixed seed."""
import collections, json, os, random, re, resource, signal, struct, subprocess, sys, tempfile

import numpy
from gguf import GGUFReader, GGUFWriter
from safetensors import safe_open

PROGRAM = os.environ.get("TEST_FILES", os.path.join(os.path.dirname(__file__), "..", "build", "tests", "test_files"))
EDGES = [0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1,
         2**63, 2**64 - 1]


def sound_gguf(path):
    w = GGUFWriter(path, "llama")
    w.add_uint32("llama.block_count", 2)
    w.add_float32("llama.rope.freq_base", 10000.0)
    w.add_bool("test.flag", True)
    w.add_array("tokenizer.ggml.tokens", ["a", "bb", "<s>"])
    w.add_array("tokenizer.ggml.scores", [0.5, -1.0, 2.0])
    w.add_int64("test.wide", -5)
    w.add_tensor("token_embd.weight", numpy.arange(32, dtype=numpy.float32).reshape(4, 8))
    w.add_tensor("blk.0.attn_norm.weight", numpy.ones(8, dtype=numpy.float32))
    w.add_tensor("blk.0.half", numpy.ones((2, 3), dtype=numpy.float16))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    with open(path, "rb") as f:
        return f.read()


def mutate_bytes(data, header, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(header)
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            struct.pack_into("<Q", data, at, rng.choice(EDGES))
        elif kind == 3:
            struct.pack_into("<I", data, at, rng.choice(EDGES) & 0xFFFFFFFF)
        elif kind == 4:
            del data[rng.randrange(len(data)):]
        elif kind == 5:
            data[at:at] = bytes(rng.randrange(1, 9))
        else:
            n = rng.randrange(1, 40)
            start = rng.randrange(header)
            data[at:at + n] = data[start:start + n]
        if len(data) < header + 8:
            break
    if rng.random() < 0.1:
        data += bytes(rng.randrange(1, 64))
    return bytes(data)


def fields_gguf(data):
    """Offsets of the numbers of a sound file, by width: what a mutation that knows the format changes."""
    at, out = 4, [(4, 4), (8, 8), (16, 8)]
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    at = 24

    def number(width):
        nonlocal at
        out.append((at, width))
        at += width
        return int.from_bytes(data[at - width:at], "little")

    def text():
        nonlocal at
        n = number(8)
        at += n

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    for _ in range(n_keys):
        text()
        kind, count = number(4), 1
        if kind == 9:
            kind, count = number(4), number(8)
        for _ in range(count):
            text() if kind == 8 else number(sizes[kind])
    for _ in range(n_tensors):
        text()
        for _ in range(number(4)):
            number(8)
        number(4), number(8)
    return out, at


def mutate_gguf(data, fields, header, rng):
    if rng.random() < 0.4:
        return mutate_bytes(data, header, rng)
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        at, width = rng.choice(fields)
        old = int.from_bytes(data[at:at + width], "little")
        new = rng.choice(EDGES + [old + 1, old - 1, old * 2, old ^ 0x80]) % (1 << 8 * width)
        data[at:at + width] = new.to_bytes(width, "little")
    return bytes(data)


def mutate_safetensors(rng):
    tensors = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
               "b.weight": {"dtype": "BF16", "shape": [3], "data_offsets": [32, 38]},
               "c": {"dtype": "I64", "shape": [], "data_offsets": [38, 46]},
               "e": {"dtype": "F16", "shape": [0, 5], "data_offsets": [46, 46]}}
    size, kind = 46, rng.randrange(14)
    name = rng.choice(("a", "b.weight", "c", "e"))
    t = tensors[name]
    if kind == 0:
        t["data_offsets"][rng.randrange(2)] = rng.choice(EDGES + [size, size + 1, -1])
    elif kind == 1 and t["shape"]:
        t["shape"][rng.randrange(len(t["shape"]))] = rng.choice(EDGES + [-1, 1.0, "2", None])
    elif kind == 2:
        t["dtype"] = rng.choice(("F32", "F16", "BF16", "F64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "C64", "X", "", 3,
                                 None, "U16", "I32"))
    elif kind == 3:
        size += rng.choice((-40, -8, -1, 1, 8, 100))
    elif kind == 4:
        del t[rng.choice(list(t))]
    elif kind == 5:
        t["more"] = rng.choice((1, None, [], "x"))
    elif kind == 6:
        tensors["__metadata__"] = rng.choice((None, {}, {"k": 1}, {"k": None}, {"k": {"a": "b"}}, [], "x", {"": ""}))
    elif kind == 7:
        tensors[rng.choice(("", "\u00e9", "x" * 300, "a\u0000b", "__metadata__ ", "\ud800"))] = tensors.pop(name)
    elif kind == 8:
        other = rng.choice(("a", "b.weight", "c", "e"))
        tensors[other]["data_offsets"], t["data_offsets"] = t["data_offsets"], tensors[other]["data_offsets"]
    elif kind == 9:
        t["shape"] = rng.choice(([1] * 8 + [8], [8], [2, 2, 2], [2, 4, 1], {}, None, [[2], 4], [4, 2], []))
    header = json.dumps(tensors, separators=rng.choice(((",", ":"), (", ", ": ")))).encode()
    if kind == 10:
        header = header.replace(b'"c":', b'"a":').replace(b'"c": ', b'"a": ')
    elif kind == 11:
        header = rng.choice((b" ", b"\n", b"")) + header + rng.choice((b" " * 7, b"\0", b"{}", b"\n"))
    length = len(header)
    data = bytearray(struct.pack("<Q", length) + header + bytes(max(0, size)))
    if kind == 12:
        struct.pack_into("<Q", data, 0, rng.choice(EDGES + [length - 1, length + 1, 100_000_000, 100_000_001]))
    if kind == 13:
        return mutate_bytes(data, 8 + length, rng)
    return bytes(data)


def too_long(*_):
    raise TimeoutError("no answer within half a second of processor time")


def theirs(path):
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)
    try:
        if path.endswith(".gguf"):
            reader = GGUFReader(path)
            for t in reader.tensors:
                t.data.tobytes()
            for field in reader.fields.values():
                field.contents()
        else:
            with safe_open(path, "np") as f:
                f.keys()
        return "yes"
    except BaseException as problem:  # the Rust side may panic
        return f"{type(problem).__name__}: {problem}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def kind_of(text):
    """A message without what differs from file to file."""
    text = re.sub(r"^[^:]*: ", "", text.split("\n")[0])
    text = re.sub(r"codec can't decode byte.*", "codec can't decode it", text)
    text = re.sub(r"(tensor|key|array|value) \S+", r"\1 X", text)
    text = re.sub(r'"[^"]*"|\'[^\']*\'', "X", text)
    return re.sub(r"-?\d[\d.]*", "N", text)[:110]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 20261125)
    signal.signal(signal.SIGVTALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    with tempfile.TemporaryDirectory() as top:
        sound = sound_gguf(os.path.join(top, "sound.gguf"))
        fields, header = fields_gguf(sound)
        paths = [os.path.join(top, f"{i}.{'gguf' if i % 2 else 'safetensors'}") for i in range(count)]
        for i, path in enumerate(paths):
            with open(path, "wb") as f:
                f.write(mutate_gguf(sound, fields, header, rng) if i % 2 else mutate_safetensors(rng))
        ours = subprocess.run([PROGRAM, "--accept"], input="\n".join(paths) + "\n", capture_output=True, text=True,
                              errors="replace").stdout.split("\n")[:-1]
        assert len(ours) == count, f"{len(ours)} answers for {count} files"
        table, reasons = collections.Counter(), collections.Counter()
        for path, mine in zip(paths, ours):
            peer = theirs(path)
            form = path.rsplit(".", 1)[1]
            table[form, mine == "yes", peer == "yes"] += 1
            if (mine == "yes") != (peer == "yes"):
                side = "only we accept" if mine == "yes" else "only we refuse"
                reasons[form, side, kind_of(peer if mine == "yes" else mine)] += 1
    for form in ("safetensors", "gguf"):
        same = table[form, True, True] + table[form, False, False]
        print(f"{form}: {same} of {sum(v for k, v in table.items() if k[0] == form)} agree: both accept "
              f"{table[form, True, True]}, both refuse {table[form, False, False]}, only we accept "
              f"{table[form, True, False]}, only we refuse {table[form, False, True]}")
        for (_, side, reason), n in reasons.most_common():
            if _ == form:
                print(f"  {n:5d} {side}: {reason}")


if __name__ == "__main__":
    main()
