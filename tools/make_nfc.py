#!/usr/bin/env python3
"""Writes model/nfc_table.h: the canonical decompositions, compositions and combining classes by which Hugging Face's
`tokenizers` normalizes (a fixed, older version of Unicode than Python's). Every entry of Python's tables is tried on the library and kept
only where the library knows it."""
import sys, unicodedata
from tokenizers import normalizers

nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str


def points():
    return (c for c in range(0x110000) if not 0xd800 <= c <= 0xdfff and not 0xac00 <= c <= 0xd7a3)


def combining_class(c):
    """The library's: that of Python where the library moves the character round a mark of another class, else 0."""
    value = unicodedata.combining(chr(c))
    if not value:
        assert nfd(chr(0x301) + chr(c) + chr(0x316)) == nfd(chr(0x301)) + nfd(chr(c)) + chr(0x316) or nfd(chr(c)) != chr(c), hex(c)
        return 0
    other = chr(0x301) if value < 230 else chr(0x316)  # classes 230 and 220
    pair = other + chr(c) if value < 230 else chr(c) + other
    return value if nfd(pair) != nfd(other) + nfd(chr(c)) and nfd(pair) != nfd(chr(c)) + nfd(other) or nfd(pair) != pair else 0


def main(path):
    lines, ranges = [], []
    for c in points():
        one = unicodedata.decomposition(chr(c))
        if one and not one.startswith("<") and nfd(chr(c)) != chr(c):
            parts = [int(p, 16) for p in one.split()] + [0]
            composes = parts[1] and nfc(chr(parts[0]) + chr(parts[1])) == chr(c)
            lines.append("{0x%x, 0x%x, 0x%x, %d}" % (c, parts[0], parts[1], bool(composes)))
        value = combining_class(c)
        if value and ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == value:
            ranges[-1][1] = c
        elif value:
            ranges.append([c, c, value])
    with open(path, "w") as f:
        f.write("// Made by tools/make_nfc.py from Unicode's character data; see nfc.c. clang-format off\n")
        f.write("// A character, what it decomposes into (0: into one), and whether the two compose to it again.\n")
        f.write("static const struct Decomposition DECOMPOSITIONS[] = {\n")
        for i in range(0, len(lines), 5):
            f.write("    " + ", ".join(lines[i:i + 5]) + ",\n")
        f.write("};\n// Characters whose combining class is not 0: first, last, class.\n")
        f.write("static const struct ClassRange CLASSES[] = {\n")
        texts = ["{0x%x, 0x%x, %d}" % tuple(r) for r in ranges]
        for i in range(0, len(texts), 6):
            f.write("    " + ", ".join(texts[i:i + 6]) + ",\n")
        f.write("};\n// clang-format on\n")
    print(len(lines), "decompositions,", len(ranges), "ranges of classes")


if __name__ == "__main__":
    main(sys.argv[1])
