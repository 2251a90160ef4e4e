#!/usr/bin/env python3
"""Makes mixes.inc: the type that llama-quantize chooses for every matrix of a model, for each mix, a letter each in the file's order.
Needs llama-quantize and gguf. The models, as `vkmoe convert --type f32` writes them: SmolLM2 135M, and a deepseek of 17 layers (the first
dense, 4 experts, width 256 throughout but for the dense 512).

  make_mixes.py smollm2.gguf deepseek.gguf > mixes.inc
"""
import re, subprocess, sys
from gguf import GGUFReader

MIXES = "q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k iq4_nl iq4_xs".split()
LETTERS = {"f16": "h", "q4_0": "a", "q4_1": "b", "q5_0": "c", "q5_1": "d", "q8_0": "e", "q2_k": "2", "q3_k": "3", "q4_k": "4",
           "q5_k": "5", "q6_k": "6", "iq4_nl": "n", "iq4_xs": "x"}
print("// Made by make_mixes.py from llama-quantize --dry-run.")
for model, path in zip(("smollm2", "deepseek"), sys.argv[1:]):
    order = [t.name for t in GGUFReader(path).tensors]
    for mix in MIXES:
        run = subprocess.run(["llama-quantize", "--dry-run", path, "none.gguf", mix], capture_output=True, text=True)
        types = {}
        for line in (run.stdout + run.stderr).splitlines():
            found = re.match(r"\[ *\d+/ *\d+\] (\S+) .*\((\w+)\)\s*$", line)
            if found:
                types[found[1]] = LETTERS[found[2].lower()]
        letters = "".join(types[name] for name in order if name in types)
        print(f'{{"{model}", "{mix}",')
        for at in range(0, len(letters), 100):
            print(f'    "{letters[at:at + 100]}"')
        print("},")
