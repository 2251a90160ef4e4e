"""Writes noise.txt: what NEFTune adds to single elements of embeddings, by the published formulas alone.

Random numbers: Philox 4x32-10 as Salmon et al. (SC 2011) write it. Scale: alpha / sqrt(L * d), as the paper (arXiv 2310.05914) has it, L counting
the tokens of the example, rounded to float32 as the product is. A line: seed, step, example, position, column, L, d, alpha, and the sum's bits.
"""
import math
import pathlib
import random
import struct

MASK = 0xFFFFFFFF


def philox(seed, stream, index):
    counter = [index & MASK, index >> 32, stream & MASK, stream >> 32]
    key = [seed & MASK, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & MASK, a >> 32 ^ counter[3] ^ key[1], a & MASK]
        key = [key[0] + 0x9E3779B9 & MASK, key[1] + 0xBB67AE85 & MASK]
    return counter


def float32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def noise(seed, step, example, position, column, length, width, alpha):
    word = philox(seed, example | step << 32, position | (column // 4 | 1 << 31) << 32)[column % 4]
    uniform = ((word >> 8) + 0.5) / 2**24 * 2 - 1
    return float32(float32(alpha / math.sqrt(length * width)) * uniform)


draw = random.Random(1)
lines = []
for _ in range(48):
    width = draw.choice([64, 576, 2048])
    length = draw.randrange(1, 4097)
    case = (draw.getrandbits(64), draw.randrange(1, 2**32), draw.randrange(1024), draw.randrange(length), draw.randrange(width), length, width,
            draw.choice([5, 10, 15]))
    lines.append(" ".join(map(str, case)) + " %08x\n" % struct.unpack("<I", struct.pack("<f", noise(*case)))[0])
pathlib.Path(__file__).with_name("noise.txt").write_text("".join(lines))
