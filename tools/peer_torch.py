#!/usr/bin/env python3
"""What PyTorch's fastest stock path reaches on a CUDA card, to lay beside `vkmoe bench`: the same shapes, random weights and tokens.

    peer_torch.py gemm                                      dense and grouped products, attention
    peer_torch.py train CONFIG.json [--method lora] [--rows 4] [--context 2048] [--steps 6] [--recompute]
                                                            steps of a LLaMA-like or DeepSeekMoE model by its config.json

Training: bf16 weights and moments, fused AdamW, flash attention, layers compiled one by one, torch._grouped_mm over sorted tokens for
experts. LoRA has adapters of every linear, each expert's included. Prints a line of JSON per figure.
"""
import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

BF16 = torch.bfloat16


def say(**figures):
    print(json.dumps(figures), flush=True)


def median_seconds(work, repeats=15):
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def gemm():
    for m, n, k in ((4096, 4096, 4096), (16384, 2816, 2048), (2048, 2048, 2048), (512, 2048, 2048)):
        x, w = torch.randn(m, k, device="cuda", dtype=BF16), torch.randn(n, k, device="cuda", dtype=BF16)
        say(op="gemm bf16", m=m, n=n, k=k, tflops=2 * m * n * k / median_seconds(lambda: x @ w.T) / 1e12)
    experts, tokens, active = 64, 8192, 6
    rows = tokens * active
    offsets = torch.arange(1, experts + 1, device="cuda", dtype=torch.int32) * (rows // experts)
    for n, k in ((1408, 2048), (2048, 1408)):
        x = torch.randn(rows, k, device="cuda", dtype=BF16)
        w = torch.randn(experts, n, k, device="cuda", dtype=BF16).transpose(1, 2)
        seconds = median_seconds(lambda: torch._grouped_mm(x, w, offs=offsets))
        say(op="grouped gemm bf16", rows=rows, experts=experts, n=n, k=k, tflops=2 * rows * n * k / seconds / 1e12)
    q, k, v = (torch.randn(1, 16, 4096, 128, device="cuda", dtype=BF16, requires_grad=True) for _ in range(3))
    flops = 2 * 2 * 16 * 4096 * 4096 * 128 / 2
    forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    say(op="attention forward", tokens=4096, heads=16, head=128, tflops=flops / median_seconds(forward) / 1e12)
    out = forward()
    back = median_seconds(lambda: torch.autograd.grad(out, (q, k, v), torch.ones_like(out), retain_graph=True))
    say(op="attention backward", tokens=4096, heads=16, head=128, tflops=2.5 * flops / back / 1e12)


class Linear(nn.Module):
    """One product, or one for each expert where there are any; with an adapter where rank is not 0."""

    def __init__(self, inputs, outputs, experts=0, rank=0):
        super().__init__()
        shape = (experts,) if experts else ()
        make = lambda a, b: nn.Parameter(torch.randn(*shape, a, b, device="cuda", dtype=BF16) * 0.02)
        self.weight, self.rank = make(outputs, inputs), rank
        if rank:
            self.weight.requires_grad_(False)
            self.a, self.b = make(rank, inputs), make(outputs, rank)

    def forward(self, x, offsets=None):
        product = (lambda x, w: F.linear(x, w)) if offsets is None else (
            lambda x, w: torch._grouped_mm(x, w.transpose(1, 2), offs=offsets))
        y = product(x, self.weight)
        return y + 2 * product(product(x, self.a), self.b) if self.rank else y


class FeedForward(nn.Module):
    def __init__(self, hidden, inner, experts=0, rank=0):
        super().__init__()
        self.gate, self.up = Linear(hidden, inner, experts, rank), Linear(hidden, inner, experts, rank)
        self.down = Linear(inner, hidden, experts, rank)

    def forward(self, x, offsets=None):
        return self.down(F.silu(self.gate(x, offsets)) * self.up(x, offsets), offsets)


class Layer(nn.Module):
    def __init__(self, c, index, rank):
        super().__init__()
        hidden = c["hidden_size"]
        self.heads, self.kv = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
        self.head = hidden // self.heads
        norm = lambda: nn.RMSNorm(hidden, eps=1e-6, device="cuda", dtype=BF16).requires_grad_(not rank)
        self.norm1, self.norm2 = norm(), norm()
        self.q, self.o = Linear(hidden, hidden, rank=rank), Linear(hidden, hidden, rank=rank)
        self.k, self.v = (Linear(hidden, self.kv * self.head, rank=rank) for _ in range(2))
        self.experts, self.active = c.get("n_routed_experts") or 0, c.get("num_experts_per_tok")
        if index < c.get("first_k_dense_replace", 0) or not self.experts:
            self.experts = 0
            self.mlp = FeedForward(hidden, c["intermediate_size"], rank=rank)
        else:
            inner = c["moe_intermediate_size"]
            self.mlp = FeedForward(hidden, inner * (c.get("n_shared_experts") or 0), rank=rank)
            self.routed = FeedForward(hidden, inner, self.experts, rank)
            self.router = Linear(hidden, self.experts)
            self.router.weight.requires_grad_(not rank)

    def forward(self, x, cos, sin):
        b, t, hidden = x.shape
        y = self.norm1(x)
        q, k, v = (p(y).view(b, t, -1, self.head).transpose(1, 2) for p in (self.q, self.k, self.v))
        turn = lambda x: x * cos + torch.cat((-x[..., self.head // 2:], x[..., :self.head // 2]), -1) * sin
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True, enable_gqa=self.kv != self.heads)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, hidden))
        y = self.norm2(x)
        out = self.mlp(y)
        if self.experts:
            flat = y.reshape(-1, hidden)
            weight, chosen = F.softmax(self.router(flat).float(), -1).topk(self.active, -1)
            order = chosen.view(-1).argsort(stable=True)
            counts = (chosen.view(-1, 1) == torch.arange(self.experts, device="cuda")).sum(0)
            rows = order // self.active
            z = self.routed(flat[rows], counts.cumsum(0).to(torch.int32))
            z = z * weight.view(-1)[order].to(BF16)[:, None]
            out = out + torch.zeros_like(flat).index_add(0, rows, z).view_as(out)
        return x + out


def train(args):
    with open(args.config) as f:
        c = json.load(f)
    torch.manual_seed(1)
    rank = 16 if args.method == "lora" else 0
    hidden, vocab = c["hidden_size"], c["vocab_size"]
    layers = nn.ModuleList(Layer(c, i, rank) for i in range(c["num_hidden_layers"]))
    embed = nn.Embedding(vocab, hidden, device="cuda", dtype=BF16).requires_grad_(not rank)
    norm = nn.RMSNorm(hidden, eps=1e-6, device="cuda", dtype=BF16).requires_grad_(not rank)
    head = embed if c.get("tie_word_embeddings") else Linear(hidden, vocab).requires_grad_(not rank)
    parameters = {id(p): p for m in (layers, embed, norm, head) for p in m.parameters()}.values()
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    size = layers[0].head
    angle = torch.arange(args.context, device="cuda")[:, None] / 10000 ** (torch.arange(0, size, 2, device="cuda") / size)
    cos, sin = (torch.cat((f(angle),) * 2, -1).to(BF16) for f in (torch.cos, torch.sin))
    for layer in layers:
        layer.compile()

    @torch.compile
    def loss_of(x, labels):
        return F.cross_entropy(F.linear(norm(x), head.weight).float().view(-1, vocab), labels.reshape(-1))

    ids = torch.randint(vocab, (args.rows, args.context + 1), device="cuda")
    times = []
    for _ in range(args.steps + 2):
        torch.cuda.synchronize()
        start = time.monotonic()
        x = embed(ids[:, :-1])
        if rank:
            x.requires_grad_()
        for layer in layers:
            x = checkpoint(layer, x, cos, sin, use_reentrant=False) if args.recompute else layer(x, cos, sin)
        loss = loss_of(x, ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    seconds = sorted(times[2:])[args.steps // 2]
    say(op="train", config=args.config, method=args.method, recompute=args.recompute, rows=args.rows, context=args.context,
        parameters=sum(p.numel() for p in parameters), trained=sum(p.numel() for p in trained), loss=loss.item(),
        first_s=times[0], step_s=seconds, tokens_per_s=args.rows * args.context / seconds,
        peak_mib=torch.cuda.max_memory_allocated() >> 20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gemm")
    t = commands.add_parser("train")
    t.add_argument("config")
    t.add_argument("--method", choices=("full", "lora"), default="full")
    t.add_argument("--rows", type=int, default=4)
    t.add_argument("--context", type=int, default=2048)
    t.add_argument("--steps", type=int, default=6)
    t.add_argument("--recompute", action="store_true")
    args = parser.parse_args()
    say(device=torch.cuda.get_device_name(), torch=torch.__version__)
    gemm() if args.command == "gemm" else train(args)


if __name__ == "__main__":
    main()
