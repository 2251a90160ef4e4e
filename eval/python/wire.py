# The only thing that passes between a program and its checker: plain values, as bytes. A value is a tag and its contents;
# what arrives is rebuilt from exact built-in types, so nothing of the other side's code can come along. Whatever is not plain
# stays where it is and is known by a number, its handle.
import builtins
import os
import struct

MAX_BYTES = 1 << 24  # of one message
MAX_DEPTH = 100
# Built-in types that may be named in an argument: remove_all([1, "a"], int).
TYPES = {kind.__name__: kind for kind in (int, float, complex, str, bytes, list, tuple, dict, set, frozenset, bool, object, type(None))}


class WireError(Exception):
    pass


def encode(out, value, handle_of, depth=0):
    """Appends `value` to the bytearray `out`. A subclass of a plain type goes as that type; handle_of(value) gives the number of
    anything else, or raises TypeError."""
    if depth > MAX_DEPTH:
        raise WireError(f"a value is nested more than {MAX_DEPTH} deep")
    if value is None:
        out += b"N"
    elif value is True or value is False:
        out += b"T" if value else b"F"
    elif isinstance(value, int):
        encode_bytes(out, b"i", int.__format__(value, "x").encode())
    elif isinstance(value, float):
        out += b"f" + struct.pack("<d", value)
    elif isinstance(value, complex):
        out += b"c" + struct.pack("<dd", value.real, value.imag)
    elif isinstance(value, str):
        encode_bytes(out, b"s", str.encode(value, "utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        encode_bytes(out, b"b", bytes.__getitem__(value, slice(None)))
    elif isinstance(value, type) and TYPES.get(value.__name__) is value:
        encode_bytes(out, b"k", value.__name__.encode())
    elif isinstance(value, dict):
        out += b"d" + struct.pack("<Q", dict.__len__(value))
        for key, item in dict.items(value):
            encode(out, key, handle_of, depth + 1)
            encode(out, item, handle_of, depth + 1)
    else:
        for tag, kind in CONTAINERS.items():
            if isinstance(value, kind):
                out += tag + struct.pack("<Q", kind.__len__(value))
                for item in kind.__iter__(value):
                    encode(out, item, handle_of, depth + 1)
                return
        out += b"h" + struct.pack("<Q", handle_of(value))


CONTAINERS = {b"l": list, b"t": tuple, b"S": set, b"z": frozenset}


def encode_bytes(out, tag, data):
    out += tag + struct.pack("<Q", len(data)) + data


class Reader:
    """Values out of the bytes of one message; of_handle(number) gives what stands for a handle. Anything that encode() does
    not write is a WireError."""

    def __init__(self, data, of_handle):
        self.data, self.at, self.of_handle = data, 0, of_handle

    def take(self, n):
        if n > len(self.data) - self.at:
            raise WireError("a message is too short")
        self.at += n
        return self.data[self.at - n : self.at]

    def count(self):
        return struct.unpack("<Q", self.take(8))[0]

    def value(self, depth=0):
        if depth > MAX_DEPTH:
            raise WireError(f"a value is nested more than {MAX_DEPTH} deep")
        tag = self.take(1)
        if tag in b"NTF":
            return {b"N": None, b"T": True, b"F": False}[tag]
        if tag == b"f":
            return struct.unpack("<d", self.take(8))[0]
        if tag == b"c":
            return complex(*struct.unpack("<dd", self.take(16)))
        if tag == b"h":
            return self.of_handle(self.count())
        n = self.count()
        if tag == b"i":
            return int(self.take(n), 16)
        if tag == b"s":
            return self.take(n).decode("utf-8", "surrogatepass")
        if tag == b"b":
            return self.take(n)
        if tag == b"k":
            return TYPES[self.take(n).decode()]
        if n > len(self.data) - self.at:
            raise WireError("a message is too short")
        if tag == b"d":
            return {self.value(depth + 1): self.value(depth + 1) for _ in range(n)}
        if tag in CONTAINERS:
            return CONTAINERS[tag]([self.value(depth + 1) for _ in range(n)])
        raise WireError(f"no value begins with {tag!r}")


def decode(data, of_handle):
    reader = Reader(data, of_handle)
    try:
        value = reader.value()
    except (ValueError, TypeError, KeyError, OverflowError) as error:  # no number, unhashable, no such type
        raise WireError(str(error)) from None
    if reader.at != len(data):
        raise WireError("a message is too long")
    return value


def send(fd, value, handle_of):
    out = bytearray(8)
    encode(out, value, handle_of)
    if len(out) > MAX_BYTES:
        raise WireError("a value is too large")
    out[:8] = struct.pack("<Q", len(out) - 8)
    at = memoryview(out)
    while at:
        at = at[os.write(fd, at) :]


def receive_exactly(fd, n):
    data = bytearray()
    while len(data) < n:
        piece = os.read(fd, min(n - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def receive(fd, of_handle):
    """The next message's value; EOFError where the other side is gone."""
    (n,) = struct.unpack("<Q", receive_exactly(fd, 8))
    if n > MAX_BYTES:
        raise WireError("a message is too large")
    return decode(receive_exactly(fd, n), of_handle)
