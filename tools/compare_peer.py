#!/usr/bin/env python3
"""Compares vkmoe with other engines on one model file. For development: needs vkmoe, and llama.cpp's llama-server or
transformers with gguf, on this machine. Uses the standard library alone, but for `perplexity`.

  compare_peer.py greedy MODEL.gguf [N [PROMPTS]]  greedy tokens beside llama.cpp, ten prompts (or the first PROMPTS) of N (64) tokens: beside its CPU
                                                 backend, which rounds activations to 8 bits where weights are quantised, or the device named
                                                 by LLAMA_DEVICE (Vulkan0), where it is told not to
  compare_peer.py perplexity MODEL TEXT [LIMIT]  mean negative log-likelihood of windows of 512 beside transformers in f32
                                                 (MODEL: a .gguf, which transformers unpacks to f32, or a Hugging Face folder)
  compare_peer.py mixed OUT MIB FILE...          writes MIB MiB of text for `tokens`: lines of the files (English, Chinese, code) in a
                                                 random order, emoji, every assigned character, rare blanks, broken UTF-8
  compare_peer.py tokens TOKENIZER TEXT [PEER]   ids of the text beside Hugging Face's `tokenizers` (TOKENIZER: a folder with
                                                 tokenizer.json) or sentencepiece (a tokenizer.model). What is no UTF-8 becomes U+FFFD on both
                                                 sides: here by bytes.decode("utf-8", "replace"), in vkmoe by itself. PEER: the folder or file
                                                 that the other side reads instead, where TOKENIZER is a .gguf
  compare_peer.py lora MODEL ADAPTER TEXT [LIMIT]  log-probabilities of each token (256) beside PEFT with the same adapter
  compare_peer.py speed MODEL.gguf [ROUNDS [P [N]]]  prompt of P (512) tokens and N (64) tokens from an empty context beside llama.cpp's Vulkan
                                                 backend on the same device, in turns: medians, and the median of the ratios
"""
import json, math, os, socket, statistics, subprocess, sys, time, urllib.request

VKMOE = os.environ.get("VKMOE", os.path.join(os.path.dirname(__file__), "..", "build", "vkmoe"))
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics state that",
    "Q: What is the difference between a lake and a river?\nA:",
    "A mixture of experts is a neural network in which",
    "List five vegetables:\n1.",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "In 1969, the first people landed on the Moon. The names of the astronauts were",
    "To bake bread you need flour, water, salt and",
]


def vkmoe(*arguments):
    run = subprocess.run([VKMOE, *arguments, "--json"], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"vkmoe {' '.join(arguments)}: {run.stderr.strip()}")
    return json.loads(run.stdout)


class LlamaServer:
    def __init__(self, model, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        environment = dict(os.environ, GGML_VK_VISIBLE_DEVICES="0", GGML_VK_DISABLE_COOPMAT="1", GGML_VK_DISABLE_F16="1",
                           GGML_VK_DISABLE_INTEGER_DOT_PRODUCT="1")
        self.process = subprocess.Popen(
            ["llama-server", "-m", model, "--device", os.environ.get("LLAMA_DEVICE", "none"), "-ngl", "99", "-c", "2048", "-np", "1", "--port", str(self.port), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        for _ in range(6000):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").read()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("llama-server did not start: does it load this model?")
                time.sleep(0.1)
        sys.exit("llama-server did not answer")

    def complete(self, ids, n):
        body = {"prompt": ids, "n_predict": n, "temperature": 0, "n_probs": 2, "return_tokens": True, "ignore_eos": True,
                "cache_prompt": False}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))


# Keys and values in f32 on both sides: rounded to f16, each engine's own way, they tip a router's choice between experts now and then.
EXACT = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")


def greedy(model, n=64, n_prompts=len(PROMPTS)):
    prompts = PROMPTS[:n_prompts]
    server = LlamaServer(model, *EXACT)
    equal = 0
    try:
        for prompt in prompts:
            ids = vkmoe("tokenize", model, "--special", "-p", prompt)["ids"]
            ours = vkmoe("generate", model, "--raw", "-p", prompt, "-n", str(n), "--temperature", "0", "--ignore-eos",
                         "--cache-type", "f32")["ids"]
            answer = server.complete(ids, n)
            theirs = answer["tokens"]
            same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
            line = f"{same:3d} of {n} equal"
            if same == n:
                equal += 1
            else:
                top = answer["completion_probabilities"][same]["top_logprobs"]
                line += (f"; at {same} ours {ours[same]}, theirs {theirs[same]}; the peer's two best differ by "
                         f"{top[0]['logprob'] - top[1]['logprob']:.6f} in log-probability")
            print(f"{line}  {prompt[:40]!r}", flush=True)
    finally:
        server.process.terminate()
    print(f"{equal} of {len(prompts)} prompts equal over {n} tokens")
    return equal == len(prompts)


def transformers_model(model):
    import torch
    from transformers import AutoModelForCausalLM
    if os.path.isdir(model):
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(os.path.dirname(os.path.abspath(model)), gguf_file=os.path.basename(model),
                                                dtype=torch.float32)


def transformers_logprobs(model, ids):
    """Of each token of one window given those before it."""
    import torch
    with torch.no_grad():
        window = torch.tensor([ids])
        logprobs = model(window).logits[0].double().log_softmax(-1)
        return logprobs[:-1].gather(1, window[0, 1:, None])[:, 0].tolist()


def perplexity(model, text, limit=2048):
    score = vkmoe("score", model, "--file", text, "--limit", str(limit), "--window", "512", "--cache-type", "f32")
    peer = transformers_model(model)
    ids = [token["id"] for token in score["scores"]]
    theirs = [l for start in range(0, limit, 512) for l in transformers_logprobs(peer, ids[start:start + 512])]
    nll = -sum(theirs) / len(theirs)
    print(f"tokens scored: {score['tokens']} and {len(theirs)}; nll {score['nll']:.7f} and {nll:.7f}; perplexity "
          f"{score['perplexity']:.5f} and {math.exp(nll):.5f}: {100 * (math.exp(score['nll'] - nll) - 1):+.5f} %")


def mixed(out, mib, files):
    import random, unicodedata
    source, lines = random.Random(20240630), []
    for name in files:
        with open(name, "rb") as f:
            lines.append(f.read().splitlines(keepends=True))
    emoji = ["😀", "👍🏽", "👨‍👩‍👧", "🇩🇪", "❤️", "🚀", "🦙", "½", "é", "e\u0301", "\u00a0", "\u3000", "\u200b", "\ufeff", "ﬁ", "각", "각"]
    assigned = [chr(c) for c in range(1, 0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    text = bytearray()
    while len(text) < mib << 20:
        kind = source.randrange(10)
        if kind < 6:
            of = source.choice(lines)
            at = source.randrange(len(of))
            text += b"".join(of[at:at + source.randint(1, 20)])
        elif kind == 6:
            text += "".join(source.choice(emoji + [" ", "a", "12"]) for _ in range(source.randint(1, 12))).encode()
        elif kind == 7:
            text += "".join(source.choice(assigned) for _ in range(source.randint(1, 30))).encode()
        elif kind == 8:
            text += source.choice([b" ", b"\n", b"\t", b"\r\n", b"  ", b"\x00", b"\xc2\x85"]) * source.randint(1, 40)
        else:
            piece = bytearray(source.choice(source.choice(lines)) or b"x")
            for _ in range(source.randint(1, 4)):
                piece[source.randrange(len(piece))] = source.randrange(256)
            text += piece[:source.randint(1, len(piece))]
    with open(out, "wb") as f:
        f.write(text)


def tokens(tokenizer, path, source=None):
    source = source or tokenizer
    with open(path, "rb") as f:
        text = f.read().decode("utf-8", "replace")
    started = time.time()
    if source.endswith(".model"):
        import sentencepiece
        peer, special = sentencepiece.SentencePieceProcessor(source).encode(text), ()
    else:
        from tokenizers import Tokenizer
        peer = Tokenizer.from_file(os.path.join(source, "tokenizer.json")).encode(text, add_special_tokens=False).ids
        special = ("--special",)
    theirs = time.time() - started
    started = time.time()
    ours = vkmoe("tokenize", tokenizer, "--file", path, *special)["ids"]
    took = time.time() - started
    same = next((i for i, (a, b) in enumerate(zip(ours, peer)) if a != b), min(len(ours), len(peer)))
    equal = ours == peer
    print(f"{tokenizer}: {len(text)} characters, {len(ours)} ids and {len(peer)}: " +
          ("all equal" if equal else f"different from {same} on: {ours[same:same + 8]} and {peer[same:same + 8]}") +
          f"; {took:.1f} s and {theirs:.1f} s")
    return equal


def lora(model, adapter, text, limit=256):
    from peft import PeftModel
    peer = transformers_model(model)
    limits = ("--file", text, "--limit", str(limit), "--window", str(limit), "--cache-type", "f32")
    plain = vkmoe("score", model, *limits)["scores"]
    ours = vkmoe("score", model, "--adapter", adapter, *limits)["scores"]
    theirs = transformers_logprobs(PeftModel.from_pretrained(peer, adapter), [token["id"] for token in ours])
    pairs = list(zip([token["logprob"] for token in ours[1:]], theirs))
    moved = max(abs(a["logprob"] - b["logprob"]) for a, b in zip(ours[1:], plain[1:]))
    print(f"{len(pairs)} log-probabilities; largest difference from PEFT's {max(abs(a - b) for a, b in pairs):.2e}; "
          f"the adapter itself moves them by up to {moved:.3f}")


def peer_speed(model, p, n):
    """llama-bench's tokens per second: (prompt of p, n tokens from an empty context)."""
    environment = dict(os.environ, GGML_VK_VISIBLE_DEVICES="0", GGML_VK_DISABLE_COOPMAT="1")
    run = subprocess.run(["llama-bench", "-m", model, "-ngl", "99", "-p", str(p), "-n", str(n), "-r", "1", "-o", "json"],
                         capture_output=True, text=True, env=environment)
    if run.returncode:
        sys.exit(f"llama-bench: {run.stderr.strip()[-500:]}")
    rows = json.loads(run.stdout)
    assert all("Vulkan" in row["backends"] for row in rows)
    return next(row["avg_ts"] for row in rows if row["n_prompt"]), next(row["avg_ts"] for row in rows if row["n_gen"])


def our_speed(model, p, n):
    """The same of ours, each in a process of its own."""
    flags = ("--raw", "--temperature", "0", "--ignore-eos")
    prompt = vkmoe("generate", model, *flags, "-p", " the" * p, "-n", "1")
    answer = vkmoe("generate", model, *flags, "-p", " the", "-n", str(n))
    assert prompt["prompt_tokens"] >= p and answer["tokens"] == n # a beginning-of-sequence token is one more
    return prompt["prompt_tokens_per_second"], answer["tokens_per_second"]


def speed(model, rounds=5, p=512, n=64):
    pairs = [(our_speed(model, p, n), peer_speed(model, p, n)) for _ in range(rounds)]
    for i, what in enumerate((f"pp{p}", f"tg{n}")):
        ours, theirs = ([pair[who][i] for pair in pairs] for who in (0, 1))
        ratios = [a / b for a, b in zip(ours, theirs)]
        print(f"{what:6} ours {statistics.median(ours):7.1f} t/s, llama.cpp's Vulkan {statistics.median(theirs):7.1f} t/s: "
              f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {rounds} rounds)")


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "greedy" and len(sys.argv) > 2:
        sys.exit(0 if greedy(sys.argv[2], *map(int, sys.argv[3:5])) else 1)
    elif command == "perplexity" and len(sys.argv) > 3:
        perplexity(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:5]))
    elif command == "mixed" and len(sys.argv) > 4:
        mixed(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    elif command == "tokens" and len(sys.argv) > 3:
        sys.exit(0 if tokens(sys.argv[2], sys.argv[3], *sys.argv[4:5]) else 1)
    elif command == "lora" and len(sys.argv) > 4:
        lora(sys.argv[2], sys.argv[3], sys.argv[4], *map(int, sys.argv[5:6]))
    elif command == "speed" and len(sys.argv) > 2:
        speed(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        sys.exit(__doc__)
