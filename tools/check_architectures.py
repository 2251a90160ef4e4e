#!/usr/bin/env python3
"""Compares every architecture and rope scaling with transformers and llama.cpp, on tiny random models made here. For development: needs
vkmoe, transformers with PyTorch, safetensors and llama.cpp's llama-server.

  check_architectures.py [NAME...]

For each model: log-probabilities beside transformers in f32; the folder through GGUF and back, bit for bit, in F32, F16 and BF16; the F32
folder that comes back in transformers again; greedy tokens beside llama.cpp's CPU backend on the F32 GGUF."""
import json, os, shutil, subprocess, sys, tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from compare_peer import EXACT, VKMOE, LlamaServer, vkmoe  # noqa: E402

TOKENIZER = os.path.join(HERE, "..", "tests", "golden", "tokenizer", "smollm", "tokenizer.json")
VOCAB, TOKENS = 600, 64
PROMPTS = ["The capital of", "def f(x):\n", "12 + 34 =", "A mixture of experts is", "once upon a time"]
TEXT = "Mixtures of experts route every token to a few of many experts, 12345 times. " * 4
BASE = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6, bos_token_id=0, eos_token_id=0,
            tie_word_embeddings=False)
MOE = dict(num_experts=8, num_experts_per_tok=3, norm_topk_prob=False)


def rope(**scaling):
    return ("llama", dict(head_dim=64, rope_parameters={"rope_theta": 10000.0, **scaling}))


MODELS = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", dict(tie_word_embeddings=True)),
    "llama-bias": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama-linear": rope(rope_type="linear", factor=4.0),
    "llama-dynamic": rope(rope_type="dynamic", factor=4.0),
    "llama-yarn": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=128),
    "llama-yarn-mscale": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, beta_fast=16.0,
                              mscale=1.5, mscale_all_dim=0.7),
    "llama-llama3": rope(rope_type="llama3", factor=8.0, original_max_position_embeddings=128, low_freq_factor=1.0,
                         high_freq_factor=4.0),
    "mistral": ("mistral", dict(sliding_window=None)),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2-yarn": ("qwen2", dict(rope_parameters={"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0,
                                                  "original_max_position_embeddings": 128})),
    "qwen2-moe": ("qwen2_moe", dict(MOE, moe_intermediate_size=32, shared_expert_intermediate_size=96)),
    # What GGUF has no place for: refused there, compared with transformers all the same.
    "qwen2-moe-sparse": ("qwen2_moe", dict(MOE, moe_intermediate_size=32, shared_expert_intermediate_size=96,
                                           norm_topk_prob=True, decoder_sparse_step=2)),
    "olmoe": ("olmoe", dict(MOE, num_key_value_heads=4, intermediate_size=32)),
    "olmoe-gqa": ("olmoe", dict(MOE, intermediate_size=32)),
    "deepseek": None,  # transformers has none; `vkmoe init` makes it
}
NO_GGUF = {"qwen2-moe-sparse", "olmoe-gqa"}


def run(*arguments):
    done = subprocess.run([VKMOE, *arguments], capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def must(*arguments):
    code, said = run(*arguments)
    if code:
        sys.exit(f"vkmoe {' '.join(arguments)}: {said}")


def make(name, folder):
    kind, over = MODELS[name]
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**BASE, **over}), dtype=torch.float32)
    with torch.no_grad():
        for key, p in model.named_parameters():
            spread = 0.2 if p.ndim == 1 else 0.9 / p.shape[-1] ** 0.5
            p.copy_(torch.randn(p.shape) * spread + (1.0 if "norm" in key else 0.0))
        # llama.cpp bans every token whose text is known to end a turn, we the model's own: nobody is to choose one.
        model.get_output_embeddings().weight[[t["id"] for t in json.load(open(TOKENIZER))["added_tokens"]]] = 0
    model.save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)


def logprobs(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        window = torch.tensor([ids])
        out = model(window).logits[0].double().log_softmax(-1)
    return out[:-1].gather(1, window[0, 1:, None])[:, 0].tolist()


def beside_transformers(folder, text):
    scores = vkmoe("score", folder, "--file", text, "--window", "256", "--limit", "256")["scores"]
    theirs = logprobs(folder, [s["id"] for s in scores])
    return max(abs(s["logprob"] - t) for s, t in zip(scores[1:], theirs)), len(theirs)


def same_tensors(a, b):
    a, b = load_file(os.path.join(a, "model.safetensors")), load_file(os.path.join(b, "model.safetensors"))
    extra = set(a) ^ set(b)
    assert extra <= {"lm_head.weight"}, extra  # a tied head comes back as one of its own where GGUF knows no other
    return all(a[k].dtype == b[k].dtype and torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8))
               for k in set(a) & set(b))


def beside_llama_cpp(gguf):
    server, equal, first = LlamaServer(gguf, *EXACT), 0, []
    try:
        for prompt in PROMPTS:
            ids = vkmoe("tokenize", gguf, "--special", "-p", prompt)["ids"]
            ours = vkmoe("generate", gguf, "--raw", "-p", prompt, "-n", str(TOKENS), "--temperature", "0",
                         "--ignore-eos")["ids"]
            answer = server.complete(ids, TOKENS)
            theirs = answer["tokens"]
            equal += ours == theirs
            if ours != theirs:
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), TOKENS - 1)
                top = answer["completion_probabilities"][at]["top_logprobs"]
                first.append(f"{at} (its two best differ by {top[0]['logprob'] - top[1]['logprob']:.1e})")
    finally:
        server.process.terminate()
    apart = f", apart at {', '.join(first)}" if first else ""
    return f"greedy tokens as llama.cpp's on {equal} of {len(PROMPTS)} prompts{apart}"


def check(name, top):
    folder, text = os.path.join(top, name), os.path.join(top, "text.txt")
    gguf = os.path.join(top, name + ".gguf")
    words = []
    with open(text, "w") as f:
        f.write(TEXT)
    if MODELS[name]:
        os.mkdir(folder)
        make(name, folder)
        error, n = beside_transformers(folder, text)
        words.append(f"{n} log-probabilities off by {error:.1e} at most from transformers'")
    else:
        os.mkdir(folder + "-tokenizer")
        make("llama", folder + "-tokenizer")  # a tokenizer comes with a model
        must("init", "--preset", "tiny-moe", "--tokenizer", folder + "-tokenizer", "--out", folder, "--type", "f32")
    if name in NO_GGUF:
        code, said = run("convert", folder, "--out", gguf)
        words.append(f"no GGUF: {said.split(': ')[-1]}" if code else "WRITTEN AS GGUF, BUT MUST NOT BE")
    else:
        for kind in ("f32", "f16", "bf16"):
            typed = folder if kind == "f32" else folder + "-" + kind
            back, path = folder + "-back-" + kind, gguf if kind == "f32" else gguf + "." + kind + ".gguf"
            if kind != "f32":
                must("convert", folder, "--out", typed, "--type", kind)
            must("convert", typed, "--out", path)
            must("convert", path, "--out", back, "--type", kind)
            exact = same_tensors(typed, back)
            words.append(f"{kind} there and back {'equal' if exact else 'DIFFERENT'}")
            if kind == "f32" and MODELS[name]:
                words.append(f"transformers on what came back {beside_transformers(back, text)[0]:.1e}")
        words.append(beside_llama_cpp(gguf))
    print(f"{name}: {'; '.join(words)}", flush=True)


def main():
    for name in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as top:
            check(name, top)


if __name__ == "__main__":
    main()
