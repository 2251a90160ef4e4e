#!/usr/bin/env python3
"""Makes decoded.inc: for every quantised type the hash of what gguf-py decodes 4096 blocks of random bytes to (their f16 numbers are
finite). The bytes come from the linear congruential generator that tests/test_quant.c repeats. Needs gguf and numpy.

  make_quants.py > decoded.inc
"""
import hashlib
import numpy as np
from gguf import GGMLQuantizationType, quants

TYPES = "Q4_0 Q4_1 Q8_0 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
# Where the f16 numbers of a block lie.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
BLOCKS = 4096


def blocks(name, size):
    """Bytes of the generator's highest 8 bits; an f16 with the greatest exponent gets a smaller one."""
    state, out = 12345, bytearray(BLOCKS * size)
    for i in range(len(out)):
        state = (state * 1664525 + 1013904223) & 0xffffffff
        out[i] = state >> 24
    for b in range(BLOCKS):
        for at in HALVES[name]:
            if out[b * size + at + 1] & 0x7c == 0x7c:
                out[b * size + at + 1] &= 0xbf
    return bytes(out)


print("// Made by make_quants.py from gguf-py: SHA-256 of 4096 blocks decoded to f32.")
for name in TYPES:
    kind = GGMLQuantizationType[name]
    size = quants.GGML_QUANT_SIZES[kind][1]
    data = np.frombuffer(blocks(name, size), dtype=np.uint8).reshape(BLOCKS, size)
    decoded = quants.dequantize(data, kind).astype("<f4")
    print(f'{{DT_{name}, "{hashlib.sha256(decoded.tobytes()).hexdigest()}"}},')

# Rows of 1024 numbers, 256 of them, as tests/test_modelfile.c makes them too: encoded by gguf-py.
state, rows = 12345, np.empty((256, 1024), dtype=np.float32)
for r in range(256):
    for i in range(1024):
        state = (state * 1664525 + 1013904223) & 0xffffffff
        rows[r, i] = np.float32(state - (state >> 31 << 32)) * np.float32(2.0 ** -31) * np.float32(2.0 ** -(r % 8))
print("// SHA-256 of 256 rows of 1024 numbers encoded.")
for name in ("Q5_0", "Q5_1"):
    kind = GGMLQuantizationType[name]
    print(f"// {name} {hashlib.sha256(quants.quantize(rows, kind).tobytes()).hexdigest()} "
          f"{hashlib.sha256(quants.dequantize(quants.quantize(rows, kind), kind).astype('<f4').tobytes()).hexdigest()}")
