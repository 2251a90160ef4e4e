#!/usr/bin/env python3
"""Compares vkmoe with other engines on one model file. For development: needs vkmoe, and llama.cpp's llama-server or
transformers with gguf, on this machine. Uses the standard library alone, but for `perplexity`.

  compare_peer.py greedy MODEL.gguf [N]          greedy tokens beside llama.cpp's CPU backend, ten prompts of N (64) tokens
  compare_peer.py perplexity MODEL TEXT [LIMIT]  mean negative log-likelihood of windows of 512 beside transformers in f32
                                                 (MODEL: a .gguf, which transformers unpacks to f32, or a Hugging Face folder)
"""
import json, os, socket, subprocess, sys, time, urllib.request

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
    def __init__(self, model):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen(
            ["llama-server", "-m", model, "--device", "none", "-c", "2048", "-np", "1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
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


def greedy(model, n=64):
    server = LlamaServer(model)
    equal = 0
    try:
        for prompt in PROMPTS:
            ids = vkmoe("tokenize", model, "--special", "-p", prompt)["ids"]
            ours = vkmoe("generate", model, "--raw", "-p", prompt, "-n", str(n), "--temperature", "0", "--ignore-eos")["ids"]
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
    print(f"{equal} of {len(PROMPTS)} prompts equal over {n} tokens")
    return equal == len(PROMPTS)


def perplexity(model, text, limit=2048):
    import torch
    from transformers import AutoModelForCausalLM
    score = vkmoe("score", model, "--file", text, "--limit", str(limit), "--window", "512")
    with open(text, "rb") as f:
        head = f.read(limit * 16).decode("utf-8", "ignore")
    ids = vkmoe("tokenize", model, "-p", head)["ids"][:limit]
    if os.path.isdir(model):
        peer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    else:
        peer = AutoModelForCausalLM.from_pretrained(os.path.dirname(os.path.abspath(model)), gguf_file=os.path.basename(model),
                                                    dtype=torch.float32)
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, limit, 512):
            window = torch.tensor([ids[start:start + 512]])
            logprobs = peer(window).logits[0].double().log_softmax(-1)
            total -= logprobs[:-1].gather(1, window[0, 1:, None]).sum().item()
            count += window.shape[1] - 1
    ours, theirs = score["nll"], total / count
    print(f"tokens scored: {score['tokens']} and {count}; nll {ours:.7f} and {theirs:.7f}; perplexity {score['perplexity']:.5f} "
          f"and {2.718281828459045 ** theirs:.5f}: {100 * (2.718281828459045 ** (ours - theirs) - 1):+.5f} %")


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "greedy" and len(sys.argv) > 2:
        sys.exit(0 if greedy(sys.argv[2], *map(int, sys.argv[3:4])) else 1)
    elif command == "perplexity" and len(sys.argv) > 3:
        perplexity(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:5]))
    else:
        sys.exit(__doc__)
