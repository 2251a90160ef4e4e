#!/usr/bin/env python3
"""Makes the golden model cases beside this file: tiny random LLaMA and DeepSeekMoE models, one batch each, and what PyTorch
computes from them in double precision. Written from the published modelling (Hugging Face's LLaMA; DeepSeek's
modeling_deepseek.py) and independent of the C program. README.md tells what each tensor of the files means.

    python make_golden.py            writes every case and prints the cross-checks against transformers and PEFT
    python make_golden.py NAME...    only these
"""
import json
import math
import os
import shutil
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 100
MIN_GAP = 1e-4  # between the logits of the last chosen and the first rejected expert, of every token in every step
MIN_CLEAR = 3  # at the start the same gap, in root mean squares of what rounding operands to bf16 moves a logit
MAX_F32_DRIFT = 3e-6  # relative, of the 100 losses in float32 against float64: the case must be well conditioned


# --- The model. Tensor names are those of Hugging Face. All documents lie on one token axis T. ---

class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def yarn_mscale(factor, mscale=1.0):
    return 1.0 if factor <= 1 else 1.0 + 0.1 * mscale * math.log(factor)


def rope_frequencies(c, head_dim):
    """Frequencies by pair, and what cosine and sine are multiplied by (arXiv 2309.00071 for yarn)."""
    base, scaling = c["rope_theta"], c.get("rope_scaling") or {"type": "default"}
    plain = [base ** (-i / head_dim) for i in range(0, head_dim, 2)]
    kind = scaling.get("rope_type") or scaling["type"]
    if kind in ("default", "dynamic"):  # dynamic: every document here is within max_position_embeddings
        return plain, 1.0
    factor = scaling["factor"]
    if kind == "linear":
        return [f / factor for f in plain], 1.0
    original = scaling["original_max_position_embeddings"]
    if kind == "llama3":
        out = []
        for f in plain:
            turns = original * f / (2 * math.pi)
            keep = (turns - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
            keep = min(1.0, max(0.0, keep))
            out.append(f * (keep + (1 - keep) / factor))
        return out, 1.0
    edge = lambda turns: head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
    low, high = edge(scaling.get("beta_fast", 32)), edge(scaling.get("beta_slow", 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high += 0.001 if low == high else 0
    ramp = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(head_dim // 2)]
    magnitude = scaling.get("attention_factor")
    if magnitude is None and scaling.get("mscale") and scaling.get("mscale_all_dim"):
        magnitude = yarn_mscale(factor, scaling["mscale"]) / yarn_mscale(factor, scaling["mscale_all_dim"])
    return [f * (1 - r) + f / factor * r for f, r in zip(plain, ramp)], magnitude or yarn_mscale(factor)


def rope_tables(positions, head_dim, c, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frequencies, magnitude = rope_frequencies(c, head_dim)
    angle = positions.to(wide)[:, None] * torch.tensor(frequencies, dtype=wide)[None, :]
    angle = torch.cat((angle, angle), -1)
    return (angle.cos() * magnitude).to(dtype), (angle.sin() * magnitude).to(dtype)  # (T, head_dim)


def rotate(x, cos, sin):  # (T, heads, head_dim); the halves of a head are the pairs
    low, high = x.chunk(2, -1)
    return x * cos[:, None, :] + torch.cat((-high, low), -1) * sin[:, None, :]


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        dim, self.heads, self.kv_heads = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.head_dim = c.get("head_dim") or dim // self.heads
        everywhere = c.get("attention_bias", False)
        bias = everywhere or c["model_type"] in ("qwen2", "qwen2_moe")
        self.q_proj = nn.Linear(dim, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, dim, bias=everywhere)
        self.q_norm = self.k_norm = nn.Identity()
        if c["model_type"] == "olmoe":  # over all heads together
            self.q_norm = RmsNorm(self.heads * self.head_dim, c["rms_norm_eps"])
            self.k_norm = RmsNorm(self.kv_heads * self.head_dim, c["rms_norm_eps"])
        self.operand = lambda x: x

    def forward(self, x, cos, sin, visible):
        n = x.shape[0]
        q = rotate(self.q_norm(self.q_proj(x)).view(n, self.heads, self.head_dim), cos, sin)
        k = rotate(self.k_norm(self.k_proj(x)).view(n, self.kv_heads, self.head_dim), cos, sin)
        v = self.v_proj(x).view(n, self.kv_heads, self.head_dim)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        score = torch.einsum("thd,shd->hts", self.operand(q), self.operand(k)) / math.sqrt(self.head_dim)
        score = score.masked_fill(~visible[None], float("-inf"))
        wide = score if score.dtype == torch.float64 else score.float()
        weight = wide.softmax(-1).to(v.dtype)
        return self.o_proj(torch.einsum("hts,shd->thd", self.operand(weight), self.operand(v)).reshape(n, -1))


class Mlp(nn.Module):
    def __init__(self, dim, hidden, bias=False):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=bias)
        self.up_proj = nn.Linear(dim, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    def __init__(self, experts, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, dim))


class Moe(nn.Module):
    def __init__(self, c):
        super().__init__()
        dim, deepseek = c["hidden_size"], c["model_type"] == "deepseek"
        width = c["intermediate_size" if c["model_type"] == "olmoe" else "moe_intermediate_size"]
        self.n, self.k = c["n_routed_experts" if deepseek else "num_experts"], c["num_experts_per_tok"]
        self.normalise, self.scale = c["norm_topk_prob"], c.get("routed_scaling_factor", 1.0)
        # transformers has a balance loss for the others only where output_router_logits asks for it.
        self.alpha, self.per_document = c.get("aux_loss_alpha", 0.0), c.get("seq_aux", False)
        self.gate = Gate(self.n, dim)
        self.experts = nn.ModuleList(Mlp(dim, width) for _ in range(self.n))
        self.shared_experts = Mlp(dim, width * c["n_shared_experts"]) if c.get("n_shared_experts") else None
        self.shared_expert = None
        if c["model_type"] == "qwen2_moe":
            self.shared_expert = Mlp(dim, c["shared_expert_intermediate_size"])
            self.shared_expert_gate = Gate(1, dim)

    def forward(self, x, document):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        probability = F.linear(x.to(wide), self.gate.weight.to(wide)).softmax(-1)
        weight, chosen = torch.topk(probability, self.k, dim=-1)
        with torch.no_grad():
            self.log_probability = probability.log()
            ordered = self.log_probability.sort(-1, descending=True).values
            self.chosen = chosen.sort(-1).values
            self.gap = (ordered[:, self.k - 1] - ordered[:, self.k]).min().item() if self.k < self.n else 1.0
        if self.k > 1 and self.normalise:
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        else:
            weight = weight * self.scale
        self.routed = weight.detach(), chosen
        self.aux = self.balance(probability, chosen, document)
        expert_of_slot = chosen.flatten()  # slot t * k + i: the i-th expert of token t
        order = expert_of_slot.argsort(stable=True)
        parts = [self.experts[e](x[order[expert_of_slot[order] == e] // self.k]) for e in range(self.n)]
        rows = torch.cat(parts)[order.argsort()].view(-1, self.k, x.shape[1])
        y = (rows * weight[:, :, None].to(x.dtype)).sum(1)
        if self.shared_expert is not None:
            y = y + torch.sigmoid(F.linear(x, self.shared_expert_gate.weight)) * self.shared_expert(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)

    def balance(self, probability, chosen, document):
        if self.alpha == 0:
            return probability.new_zeros(())
        hits = F.one_hot(chosen, self.n).sum(1).to(probability.dtype)  # (T, n)
        if not self.per_document:
            load = hits.mean(0) * self.n / self.k
            return self.alpha * (load * probability.mean(0)).sum()
        parts = []
        for d in range(int(document.max()) + 1):
            mine = document == d
            load = hits[mine].mean(0) * self.n / self.k
            parts.append((load * probability[mine].mean(0)).sum())
        return self.alpha * torch.stack(parts).mean()


class Layer(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        dim, eps = c["hidden_size"], c["rms_norm_eps"]
        self.input_layernorm = RmsNorm(dim, eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(dim, eps)
        self.mlp = Moe(c) if self.sparse(c, index) else Mlp(dim, c["intermediate_size"], c.get("mlp_bias", False))

    @staticmethod
    def sparse(c, index):
        if c["model_type"] == "deepseek":
            return index >= c["first_k_dense_replace"] and index % c["moe_layer_freq"] == 0
        if c["model_type"] == "qwen2_moe":
            return index not in c["mlp_only_layers"] and (index + 1) % c["decoder_sparse_step"] == 0
        return c["model_type"] == "olmoe"

    def forward(self, x, cos, sin, visible, document):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, visible)
        h = self.post_attention_layernorm(x)
        return x + (self.mlp(h, document) if isinstance(self.mlp, Moe) else self.mlp(h))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c["num_hidden_layers"]))
        self.norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.model = Body(c)
        if not c["tie_word_embeddings"]:
            self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)

    def forward(self, batch):
        attention = self.model.layers[0].self_attn
        x = self.model.embed_tokens(batch["ids"].long())
        cos, sin = rope_tables(batch["positions"], attention.head_dim, self.c, x.dtype)
        start = batch["doc_start"].long()
        token = torch.arange(len(start))
        visible = (start[:, None] == start[None, :]) & (token[None, :] <= token[:, None])
        document = torch.unique_consecutive(start, return_inverse=True)[1]
        for layer in self.model.layers:
            x = layer(x, cos, sin, visible, document)
        x = self.model.norm(x)
        return F.linear(x, self.model.embed_tokens.weight) if self.c["tie_word_embeddings"] else self.lm_head(x)

    def moe_layers(self):
        return [layer.mlp for layer in self.model.layers if isinstance(layer.mlp, Moe)]


class Lora(nn.Module):
    """y = x W^T + (alpha / rank) (x A^T) B^T with W frozen."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        self.scale = alpha / rank

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x)) * self.scale


def add_lora(model, rank, alpha, generator):
    """Every linear of attention and FFN, each expert included; the router is no nn.Linear and the head is left out."""
    for p in model.parameters():
        p.requires_grad_(False)
    targets = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    for name, base in targets:
        parent, leaf = name.rsplit(".", 1)
        lora = Lora(base, rank, alpha)
        for part in (lora.lora_A, lora.lora_B):
            fill(part.weight, 0.5 / math.sqrt(part.in_features), generator)
        setattr(model.get_submodule(parent), leaf, lora)


def expert_scores(model, kind):
    """By layer, of the last forward: the paper's average gate score or token selection ratio, as shares of their sum."""
    scores = {}
    for index, layer in enumerate(model.model.layers):
        if isinstance(layer.mlp, Moe):
            weight, chosen = layer.mlp.routed
            value = weight.double() if kind == "gate" else torch.full_like(weight, 1 / layer.mlp.k, dtype=torch.float64)
            mean = torch.zeros(layer.mlp.n, dtype=torch.float64).index_add_(0, chosen.flatten(), value.flatten())
            scores[index] = mean / mean.sum()
    return scores


def choose_experts(scores, threshold):
    """In each layer the fewest whose scores sum up to the threshold; of equal scores the lower id."""
    out = {}
    for index, score in scores.items():
        chosen, total = [], 0.0
        for e in sorted(range(len(score)), key=lambda e: (-score[e].item(), e)):
            if total >= threshold - 1e-12:
                break
            chosen.append(e)
            total += score[e].item()
        out[str(index)] = sorted(chosen)
    return {"experts": out, "shared_experts": False, "non_expert_modules": False}


def train_experts_alone(model, choice):
    for name, p in model.named_parameters():
        parts = name.split(".")
        p.requires_grad_("experts" in parts and int(parts[5]) in choice["experts"][parts[2]])


# --- A quantised base: a GGUF file, whose values as gguf-py decodes them are the model's ---

QUANTISED = {  # GGUF's name of the tensor: its type; everything else is F32
    "token_embd": "Q6_K", "output": "Q6_K", "attn_q": "Q4_K", "attn_k": "Q5_K", "attn_v": "Q6_K", "attn_output": "Q4_0",
    "ffn_gate": "Q4_K", "ffn_up": "Q5_K", "ffn_down": "Q8_0", "ffn_gate_exps": "Q4_K", "ffn_up_exps": "Q4_0",
    "ffn_down_exps": "Q5_1", "ffn_gate_shexp": "Q3_K", "ffn_up_shexp": "Q2_K", "ffn_down_shexp": "Q4_1"}
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate": "ffn_gate_inp",
    **{f"mlp.{p}_proj": f"ffn_{p}" for p in ("gate", "up", "down")},
    **{f"mlp.experts.{p}_proj": f"ffn_{p}_exps" for p in ("gate", "up", "down")},
    **{f"mlp.shared_experts.{p}_proj": f"ffn_{p}_shexp" for p in ("gate", "up", "down")}}
# Bytes of a block of 256 before, between and behind its half-precision factors, and the spread of its numbers over the first factor.
K_BLOCKS = {"Q2_K": ((80, 0), 1.5), "Q3_K": ((108,), 0), "Q4_K": ((0, 0, 140), 7.5), "Q5_K": ((0, 0, 172), 15.5),
            "Q6_K": ((208,), 0)}


def gguf_name(name):
    """GGUF's name without the block, the block, and the expert."""
    parts = name.removesuffix(".weight").split(".")
    layer = parts[2] if "layers" in parts else None
    expert = int(parts[5]) if "experts" in parts else None
    if layer is not None:
        parts = parts[3:]
    return GGUF_NAMES[".".join(p for p in parts if not p.isdigit())], layer, expert


def random_blocks(kind, rows, cols, std, generator):
    """Rows of a K type: no encoder is needed, since any bits are some weights. Their mean is near 0, their spread `std`."""
    import gguf
    pieces, offset = K_BLOCKS[kind]
    code, n = gguf.GGMLQuantizationType[kind], rows * cols // 256
    noise = lambda size: torch.randint(0, 256, (n, size), generator=generator, dtype=torch.uint8).numpy()

    def blocks(factor):
        halves = [factor, factor * offset][:1 + (offset > 0)]
        half = lambda v: np.full((n, 1), v, np.float16).view(np.uint8)
        out, rest = [], list(halves)
        for k, size in enumerate(pieces):
            out.append(bits[k])
            if rest:
                out.append(half(rest.pop(0)))
        out += [half(v) for v in rest]
        return np.concatenate(out, 1).reshape(rows, -1)

    bits = [noise(size) for size in pieces]
    spread = gguf.quants.dequantize(blocks(2.0 ** -6), code).std() * 2.0 ** 6
    return blocks(std / spread)


def quantise(model, generator):
    """Puts every weight that QUANTISED names in its type; model.blocks keeps the bytes."""
    import gguf
    model.blocks = {}
    for name, p in model.named_parameters():
        kind = QUANTISED.get(gguf_name(name)[0])
        if kind is None:
            continue
        code, std = gguf.GGMLQuantizationType[kind], p.detach().std().item()
        if kind in K_BLOCKS:
            data = random_blocks(kind, p.shape[0], p.shape[1], std, generator)
        else:
            data = gguf.quants.quantize(p.detach().numpy(), code)
        model.blocks[name] = data
        with torch.no_grad():
            p.copy_(torch.from_numpy(gguf.quants.dequantize(data, code).reshape(p.shape)))


def turn(rows, heads, back=False):
    """GGUF has the rows of a head that rope turns together side by side."""
    n = rows.shape[0] // heads // 2
    shape = (heads, n, 2) if back else (heads, 2, n)
    return rows.reshape(*shape, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path, c, state, blocks):
    import gguf
    w = gguf.GGUFWriter(path, "deepseek")
    w.add_context_length(c["max_position_embeddings"])
    w.add_vocab_size(c["vocab_size"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_leading_dense_block_count(c["first_k_dense_replace"])
    w.add_expert_count(c["n_routed_experts"])
    w.add_expert_used_count(c["num_experts_per_tok"])
    w.add_expert_shared_count(c["n_shared_experts"])
    w.add_expert_feed_forward_length(c["moe_intermediate_size"])
    w.add_expert_weights_scale(c["routed_scaling_factor"])
    stacked = {}
    for name, value in state.items():
        name_there, layer, expert = gguf_name(name)
        data = blocks.get(name, value.numpy())
        if name_there in ("attn_q", "attn_k"):
            data = turn(data, c["num_attention_heads" if name_there == "attn_q" else "num_key_value_heads"])
        full = f"{'' if layer is None else f'blk.{layer}.'}{name_there}.weight"
        stacked.setdefault((full, QUANTISED.get(name_there, "F32")), []).append((expert, data))
    for (full, kind), parts in stacked.items():
        data = parts[0][1] if parts[0][0] is None else np.stack([d for _, d in sorted(parts, key=lambda v: v[0])])
        w.add_tensor(full, np.ascontiguousarray(data), raw_dtype=gguf.GGMLQuantizationType[kind])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read_gguf(path, c):
    """What write_gguf wrote, decoded, by Hugging Face's names."""
    import gguf
    there = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    state = {}
    for name, p in Model(c).state_dict().items():
        name_there, layer, expert = gguf_name(name)
        data = there[f"{'' if layer is None else f'blk.{layer}.'}{name_there}.weight"]
        if name_there in ("attn_q", "attn_k"):
            data = turn(data, c["num_attention_heads" if name_there == "attn_q" else "num_key_value_heads"], back=True)
        data = data if expert is None else data[expert]
        state[name] = torch.from_numpy(data.copy()).reshape(p.shape)
    return state


# --- Cases ---

def fill(parameter, std, generator):
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * std)


def init(model, generator, gain):
    for name, p in model.named_parameters():
        if p.ndim == 1:
            fill(p, 0.2, generator)
            with torch.no_grad():
                p.add_(0.0 if name.endswith(".bias") else 1.0)
        elif name.endswith("embed_tokens.weight"):  # small where it is the head too: logits in the tens drown gradients
            fill(p, 0.1 if model.c["tie_word_embeddings"] else 0.5, generator)
        elif name.endswith(("mlp.gate.weight", "shared_expert_gate.weight")):
            fill(p, 0.5, generator)
        else:
            fill(p, gain / math.sqrt(p.shape[1]), generator)


def make_batch(lengths, vocab, generator):
    ids, positions, labels, start = [], [], [], []
    for n in lengths:
        text = torch.randint(2, vocab, (n,), generator=generator).tolist()
        if n > 6:
            text[5] = text[2]  # a token that comes twice: its embedding gradient is a sum
        prompt = n // 4  # positions whose label is masked
        first = len(ids)
        ids += text
        positions += range(n)
        labels += [text[t + 1] if t >= prompt and t + 1 < n else -1 for t in range(n)]
        start += [first] * n
    as_int = lambda v: torch.tensor(v, dtype=torch.int32)
    return {"ids": as_int(ids), "positions": as_int(positions), "labels": as_int(labels), "doc_start": as_int(start)}


def llama(**over):
    c = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 97, "hidden_size": 32,
         "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
         "hidden_act": "silu", "max_position_embeddings": 64, "initializer_range": 0.02, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
         "mlp_bias": False, "tie_word_embeddings": False, "use_cache": True, "bos_token_id": 0, "eos_token_id": 1,
         "torch_dtype": "float32"}
    c.update(over)
    return c


def deepseek(**over):
    c = llama(architectures=["DeepseekForCausalLM"], model_type="deepseek", intermediate_size=40, rms_norm_eps=1e-6)
    del c["mlp_bias"]
    c.update({"moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
              "first_k_dense_replace": 1, "moe_layer_freq": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.0,
              "scoring_func": "softmax", "aux_loss_alpha": 0.001, "seq_aux": True, "pretraining_tp": 1})
    c.update(over)
    return c


def small(model_type, class_name, **over):
    """The architectures beside the first two, and rope's scalings, in the least room."""
    c = llama(architectures=[class_name], model_type=model_type, vocab_size=61, hidden_size=16, intermediate_size=24,
              num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6)
    del c["mlp_bias"], c["attention_bias"]
    c.update(over)
    return c


def qwen2_moe(**over):
    return small("qwen2_moe", "Qwen2MoeForCausalLM", **{
        "moe_intermediate_size": 8, "shared_expert_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2,
        "norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": [], "output_router_logits": False,
        "router_aux_loss_coef": 0.001, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        **over})


def stretched(**scaling):  # wide heads: the ramps have several steps
    return small("llama", "LlamaForCausalLM", head_dim=32, rope_scaling=scaling)


CASES = {
    "qwen2": {"config": small("qwen2", "Qwen2ForCausalLM", tie_word_embeddings=True), "docs": [13, 8]},
    "qwen2-lora": {"config": small("qwen2", "Qwen2ForCausalLM"), "docs": [13, 8], "lora": (4, 8)},
    "qwen2-moe": {"config": qwen2_moe(), "docs": [12, 7]},
    "qwen2-moe-sparse": {"config": qwen2_moe(num_hidden_layers=4, norm_topk_prob=True, decoder_sparse_step=2,
                                             mlp_only_layers=[3]), "docs": [12, 7]},
    "olmoe": {"config": small("olmoe", "OlmoeForCausalLM", intermediate_size=8, num_experts=6, num_experts_per_tok=2,
                              norm_topk_prob=False, attention_bias=False, clip_qkv=None, output_router_logits=False,
                              router_aux_loss_coef=0.01), "docs": [12, 7]},
    "llama-bias": {"config": small("llama", "LlamaForCausalLM", attention_bias=True, mlp_bias=True), "docs": [13, 8]},
    "llama-rope-dynamic": {"config": stretched(type="dynamic", factor=4.0), "docs": [40]},
    "llama-rope-yarn": {"config": stretched(rope_type="yarn", factor=4.0, original_max_position_embeddings=16,
                                            beta_fast=4.0), "docs": [40]},
    "llama-rope-yarn-mscale": {
        "config": stretched(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, mscale=1.5,
                            mscale_all_dim=0.7, truncate=False), "docs": [24]},
    "llama-rope-llama3": {"config": stretched(rope_type="llama3", factor=8.0, original_max_position_embeddings=32,
                                              low_freq_factor=1.0, high_freq_factor=4.0), "docs": [40]},
    "llama-gqa": {"config": llama(vocab_size=131, num_key_value_heads=2, intermediate_size=88), "docs": [33]},
    "llama-tied-rope-linear": {
        "config": llama(vocab_size=103, hidden_size=48, head_dim=16, num_key_value_heads=1, intermediate_size=72,
                        tie_word_embeddings=True, rope_scaling={"type": "linear", "factor": 2.0}, rms_norm_eps=1e-6),
        "docs": [17, 12]},
    "deepseek-default": {"config": deepseek(num_hidden_layers=3, n_routed_experts=6, vocab_size=101), "docs": [16, 9]},
    "deepseek-norm-topk": {"config": deepseek(norm_topk_prob=True, aux_loss_alpha=0.0), "docs": [13, 11]},
    "deepseek-scaled": {"config": deepseek(routed_scaling_factor=2.5, aux_loss_alpha=0.0, n_shared_experts=1),
                        "docs": [15, 8]},
    "deepseek-norm-scaled": {"config": deepseek(norm_topk_prob=True, routed_scaling_factor=2.5, n_routed_experts=5,
                                                num_experts_per_tok=2, n_shared_experts=1), "docs": [10, 15]},
    "deepseek-no-shared": {"config": deepseek(n_shared_experts=0, num_key_value_heads=2), "docs": [25]},
    "deepseek-all-moe": {"config": deepseek(first_k_dense_replace=0, num_experts_per_tok=2, n_routed_experts=6,
                                            moe_intermediate_size=8), "docs": [11, 10]},
    "deepseek-freq2": {"config": deepseek(num_hidden_layers=3, moe_layer_freq=2, moe_intermediate_size=8,
                                          n_shared_experts=1, num_experts_per_tok=4), "docs": [16, 9]},
    "deepseek-batch-aux": {"config": deepseek(seq_aux=False, aux_loss_alpha=0.05, moe_intermediate_size=8),
                           "docs": [9, 17, 5]},
    "deepseek-seq-aux": {"config": deepseek(seq_aux=True, aux_loss_alpha=0.05, moe_intermediate_size=8),
                         "docs": [9, 17, 5]},
    "deepseek-lora": {"config": deepseek(aux_loss_alpha=0.01, moe_intermediate_size=16, n_routed_experts=6),
                      "docs": [13, 12], "lora": (4, 8)},
    "deepseek-esft": {"config": deepseek(num_hidden_layers=3, n_routed_experts=8, num_experts_per_tok=2,
                                         moe_intermediate_size=8, n_shared_experts=1), "docs": [14, 9],
                      "esft": {"token": 0.5, "gate": 0.3}},
    "deepseek-dpo": {"config": deepseek(num_experts_per_tok=2, n_routed_experts=6, moe_intermediate_size=8,
                                        n_shared_experts=1), "docs": [9, 7, 6, 12], "dpo": 0.1},
    "deepseek-dpo-lora": {"config": deepseek(num_experts_per_tok=2, n_routed_experts=6, moe_intermediate_size=8,
                                             n_shared_experts=1), "docs": [9, 7, 6, 12], "dpo": 0.1, "lora": (4, 8)},
    "deepseek-qlora": {"config": deepseek(hidden_size=256, vocab_size=64, num_attention_heads=2, num_key_value_heads=1,
                                          head_dim=16, intermediate_size=32, moe_intermediate_size=32,
                                          n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1,
                                          aux_loss_alpha=0.001), "docs": [14, 10], "lora": (4, 1), "gguf": True},
    "deepseek-packing": {"config": deepseek(num_experts_per_tok=2, moe_intermediate_size=8, aux_loss_alpha=0.02,
                                            n_shared_experts=1, head_dim=16, num_key_value_heads=2),
                         "docs": [6, 1, 9, 2, 7, 3]},
    "deepseek-idle-expert": {"config": deepseek(n_routed_experts=12, num_experts_per_tok=2, moe_intermediate_size=8,
                                                n_shared_experts=1), "docs": [5, 4], "idle": True},
    "deepseek-clip": {"config": deepseek(moe_intermediate_size=8, n_shared_experts=1), "docs": [19, 15], "gain": 0.9,
                      "clip": True},
}


# --- Computing ---

def build(case, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    model = Model(case["config"])
    init(model, generator, case.get("gain", 0.8))
    batch = make_batch(case["docs"], case["config"]["vocab_size"], generator)
    if "gguf" in case:
        quantise(model, generator)
    if "lora" in case:
        add_lora(model, *case["lora"], generator)
    model.choices = {}
    if "esft" in case:
        with torch.no_grad():
            model.double()(batch)
        for kind, threshold in case["esft"].items():
            model.choices[kind] = expert_scores(model, kind), threshold
        train_experts_alone(model, choose_experts(*model.choices["token"]))
    model.preference = None
    if "dpo" in case:
        with torch.no_grad():
            model.preference = log_probabilities(model.double()(batch), batch), case["dpo"]
    return model.to(dtype), batch


def trained(model, lora):
    """(published name, parameter). Of a LoRA model: the names that PEFT writes."""
    for name, p in model.named_parameters():
        if p.requires_grad:
            yield ("base_model.model." + name if lora else name), p


def log_probabilities(logits, batch):
    """Of each document's labelled tokens, summed."""
    each = -F.cross_entropy(logits, batch["labels"].long(), ignore_index=-1, reduction="none")
    return torch.stack([each[batch["doc_start"] == s].sum() for s in sorted(set(batch["doc_start"].tolist()))])


def preference_loss(logits, batch, reference, beta):
    """Documents 2i are chosen, 2i + 1 rejected."""
    gain = (log_probabilities(logits, batch) - reference.to(logits.dtype)).view(-1, 2)
    return -F.logsigmoid(beta * (gain[:, 0] - gain[:, 1])).mean()


def total_loss(model, batch):
    logits = model(batch)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    if model.preference:
        loss = preference_loss(wide, batch, *model.preference)
    else:
        loss = F.cross_entropy(wide, batch["labels"].long(), ignore_index=-1)  # mean over the labelled tokens
    aux = sum((m.aux for m in model.moe_layers()), wide.new_zeros(()))
    return wide, loss, aux


def gradients(model, batch, lora):
    model.zero_grad(set_to_none=True)
    logits, loss, aux = total_loss(model, batch)
    (loss + aux).backward()
    grads = {}
    for name, p in trained(model, lora):
        grads[name] = torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
    return logits.detach(), loss.detach(), aux.detach(), grads


def global_norm(grads):
    return torch.stack([g.double().square().sum() for g in grads.values()]).sum().sqrt()


class PlainAdamW:
    """What torch.optim.AdamW computes, with the decay added to the update instead of multiplied into the weight: in float32
    the factor 1 - lr * decay = 0.9999 is itself off by 1.7e-8, which 100 steps add up to 1.7e-6 of every weight."""

    def __init__(self, groups, lr, betas, eps):
        self.groups, self.lr, self.betas, self.eps, self.step_number = groups, lr, betas, eps, 0
        self.state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for g in groups for p in g["params"]}

    @torch.no_grad()
    def step(self):
        self.step_number += 1
        (b1, b2), n = self.betas, self.step_number
        for group in self.groups:
            for p in group["params"]:
                m, v = self.state[p]
                m.add_(p.grad - m, alpha=1 - b1)
                v.add_(p.grad * p.grad - v, alpha=1 - b2)
                update = (m / (1 - b1**n)) / ((v / (1 - b2**n)).sqrt() + self.eps)
                p.sub_(update + p * group["weight_decay"], alpha=self.lr)

    def zero_grad(self, set_to_none):
        for p in self.state:
            p.grad = None


def train(model, batch, lora, adamw=torch.optim.AdamW):
    params = [p for _, p in trained(model, lora)]
    groups = [{"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
              {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0}]
    optimiser = adamw(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    record = {"losses": [], "auxes": [], "grad_norms": []}
    gap = 1.0
    for _ in range(STEPS):
        optimiser.zero_grad(set_to_none=True)
        _, loss, aux = total_loss(model, batch)
        gap = min([gap] + [m.gap for m in model.moe_layers()])
        if gap < MIN_GAP:
            break
        (loss + aux).backward()
        for p in params:  # an expert without a token: its gradient is zero, and it is still decayed
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        record["losses"].append(loss.item())
        record["auxes"].append(aux.item())
        record["grad_norms"].append(norm.item())
    return record, gap


def relative(a, b):
    """L2 distance of a from b, relative to b; 0 where both are 0."""
    distance, size = (a.double() - b.double()).norm(), b.double().norm()
    return (distance / size).item() if size > 0 else distance.item()


def round_operands(model):
    """What matrix units make of a model in bf16: both operands of every product rounded, nothing else; routers are exact."""
    narrow = lambda x: x + (x.to(torch.bfloat16).to(x.dtype) - x).detach()
    each = lambda _, operands: tuple(narrow(x) for x in operands)
    for m in model.modules():
        if isinstance(m, nn.Linear):
            m.weight.data = narrow(m.weight.data)
            m.register_forward_pre_hook(each)
            m.register_full_backward_pre_hook(each)
        elif isinstance(m, nn.Embedding):
            m.weight.data = narrow(m.weight.data)
        elif isinstance(m, Attention):
            m.operand = narrow
    return model


def attempt(case, seed):
    """All of one case, or a word why this seed will not do."""
    lora = "lora" in case
    model, batch = build(case, seed, torch.float64)
    model_bf16, _ = build(case, seed, torch.bfloat16)
    model_units = round_operands(build(case, seed, torch.float64)[0])
    with torch.no_grad():
        model(batch), model_bf16(batch), model_units(batch)
    for wide, narrow, units in zip(model.moe_layers(), model_bf16.moe_layers(), model_units.moe_layers()):
        if wide.gap < MIN_GAP:
            return "a near-tie at the start", None
        if not torch.equal(wide.chosen, narrow.chosen):
            return "bf16 routes otherwise", None
        if wide.gap < MIN_CLEAR * (units.log_probability - wide.log_probability).square().mean().sqrt():
            return "a near-tie for rounded operands", None
    logits, loss, aux, grads = gradients(model, batch, lora)
    logits16, _, _, grads16 = gradients(model_bf16, batch, lora)
    logits_units, _, _, grads_units = gradients(model_units, batch, lora)
    idle = sum(not g.any() for n, g in grads.items() if n.endswith("down_proj.weight"))
    if case.get("idle") and not idle:
        return "no idle expert", None
    model32, _ = build(case, seed, torch.float32)
    _, _, _, grads32 = gradients(model32, batch, lora)
    record, gap = train(model, batch, lora)
    if gap < MIN_GAP:
        return f"a near-tie in training, {gap:.1e}", None
    record32, _ = train(model32, batch, lora, PlainAdamW)
    drift = max(abs(a - b) / abs(b) for a, b in zip(record32["losses"], record["losses"]))
    if drift > MAX_F32_DRIFT:
        return f"float32 drifts by {drift:.1e}", None
    clipped = sum(n > 1.0 for n in record["grad_norms"])
    if case.get("clip") and clipped < 35:
        return f"only {clipped} steps clipped", None
    scalar = lambda v: torch.tensor([float(v)], dtype=torch.float32)
    out = dict(batch)
    out.update({"logits": logits.float(), "loss": scalar(loss), "aux": scalar(aux),
                "grad_norm": scalar(global_norm(grads))})
    out.update({k: torch.tensor(v, dtype=torch.float32) for k, v in record.items()})
    if model.preference:
        out["dpo.reference"], out["dpo.beta"] = model.preference[0].float(), scalar(case["dpo"])
    for kind, (scores, threshold) in model.choices.items():  # the scores of layers with experts, one below the other
        out[f"experts.{kind}"] = torch.stack(list(scores.values())).float()
        out[f"experts.{kind}.threshold"] = scalar(threshold)
    out.update({f"grad.{n}": g.float() for n, g in grads.items()})
    join = lambda g: torch.cat([v.double().flatten() for v in g.values()])
    out["bf16.logits_rel"] = scalar(relative(logits16, logits))
    out["bf16.grad_rel"] = scalar(relative(join(grads16), join(grads)))
    out.update({f"bf16.grad_rel.{n}": scalar(relative(grads16[n], grads[n])) for n in grads})
    out["f32.grad_rel"] = scalar(relative(join(grads32), join(grads)))
    out["f32.losses_rel"] = scalar(drift)
    report = (f"T={len(batch['ids'])} loss {record['losses'][0]:.4f} -> {record['losses'][-1]:.4f} aux {float(aux):.2e} "
              f"norm {record['grad_norms'][0]:.2f}, {clipped} steps clipped, gap {gap:.1e}; float32: losses "
              f"{drift:.1e}, gradient {out['f32.grad_rel'].item():.1e}; bf16: logits "
              f"{out['bf16.logits_rel'].item():.1e}, gradient {out['bf16.grad_rel'].item():.1e}; operands rounded: logits "
              f"{relative(logits_units, logits):.1e}, gradient {relative(join(grads_units), join(grads)):.1e}")
    return report, out


def write(name, case, seed, golden):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model, _ = build(case, seed, torch.float32)
    state = {n.replace(".base.", "."): p.detach().contiguous() for n, p in model.state_dict().items()}
    adapter = {"base_model.model." + n: state.pop(n) for n in list(state) if ".lora_" in n}
    if "gguf" in case:
        write_gguf(os.path.join(folder, "model.gguf"), case["config"], state, model.blocks)
    else:
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(case["config"], f, indent=2)
            f.write("\n")
        save_file(state, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    meta = {"case": name, "seed": str(seed), "torch": torch.__version__}
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"), meta)
    for kind, (scores, threshold) in model.choices.items():
        with open(os.path.join(folder, f"expert_cfg_{kind}.json"), "w") as f:
            json.dump(choose_experts(scores, threshold), f)
            f.write("\n")
    if adapter:
        rank, alpha = case["lora"]
        os.makedirs(os.path.join(folder, "adapter"))
        save_file(adapter, os.path.join(folder, "adapter", "adapter_model.safetensors"), {"format": "pt"})
        with open(os.path.join(folder, "adapter", "adapter_config.json"), "w") as f:
            json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": rank,
                       "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
                       "inference_mode": True, "init_lora_weights": True, "use_rslora": False, "use_dora": False,
                       "modules_to_save": None, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                                                   "up_proj", "down_proj"]}, f, indent=2)
            f.write("\n")


# --- Cross-checks of the modelling above ---

def transformers_model(name):
    """transformers' own model of the folder; for DeepSeekMoE its LLaMA with its own router and experts in the MoE layers."""
    from safetensors.torch import load_file
    with open(os.path.join(HERE, name, "config.json")) as f:
        if json.load(f)["model_type"] != "deepseek":
            from transformers import AutoModelForCausalLM
            model = AutoModelForCausalLM.from_pretrained(os.path.join(HERE, name), attn_implementation="eager",
                                                         experts_implementation="eager", dtype=torch.float32)
            return model.double()
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.deepseek_v2.configuration_deepseek_v2 import DeepseekV2Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
    from transformers.models.qwen2_moe.configuration_qwen2_moe import Qwen2MoeConfig
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter

    folder = os.path.join(HERE, name)
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    state = load_file(os.path.join(folder, "model.safetensors"))
    keep = {k: v for k, v in c.items() if k not in ("architectures", "model_type", "torch_dtype") and v is not None}
    model = LlamaForCausalLM(LlamaConfig(**keep, attn_implementation="eager"))
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}.mlp."
        if prefix + "gate.weight" not in state:
            continue
        shared = c["n_shared_experts"]
        moe = DeepseekV2Moe(DeepseekV2Config(
            hidden_size=c["hidden_size"], moe_intermediate_size=c["moe_intermediate_size"],
            n_routed_experts=c["n_routed_experts"], num_experts_per_tok=c["num_experts_per_tok"],
            n_shared_experts=max(shared, 1), routed_scaling_factor=c["routed_scaling_factor"], topk_method="greedy",
            hidden_act="silu"))
        if c["norm_topk_prob"]:
            moe.gate = Qwen2MoeTopKRouter(Qwen2MoeConfig(
                hidden_size=c["hidden_size"], num_experts=c["n_routed_experts"],
                num_experts_per_tok=c["num_experts_per_tok"], norm_topk_prob=True))
        take = lambda part: torch.stack([state.pop(f"{prefix}experts.{e}.{part}.weight")
                                         for e in range(c["n_routed_experts"])])
        state[prefix + "experts.gate_up_proj"] = torch.cat((take("gate_proj"), take("up_proj")), 1)
        state[prefix + "experts.down_proj"] = take("down_proj")
        if not shared:
            for part, weight in moe.shared_experts.state_dict().items():
                state[f"{prefix}shared_experts.{part}"] = torch.zeros_like(weight)
        layer.mlp = moe
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    model.config._experts_implementation = "eager"
    return model.double()


def cross_check(name, case):
    from safetensors.torch import load_file
    golden = load_file(os.path.join(HERE, name, "golden.safetensors"))
    start = golden["doc_start"].tolist()
    edges = sorted(set(start)) + [len(start)]
    words = []
    if "lora" in case:
        from peft import LoraConfig, PeftModel
        base = Model(case["config"])
        base.load_state_dict(read_gguf(os.path.join(HERE, name, "model.gguf"), case["config"]) if "gguf" in case
                             else load_file(os.path.join(HERE, name, "model.safetensors")))
        adapter = os.path.join(HERE, name, "adapter")
        config = LoraConfig.from_pretrained(adapter)
        config.task_type = None  # our module has no generate()
        wrapped = PeftModel.from_pretrained(base, adapter, config=config).double()
        batch = {k: golden[k] for k in ("ids", "positions", "labels", "doc_start")}
        words.append(f"logits by PEFT {relative(wrapped.base_model.model(batch), golden['logits']):.1e}")
    else:
        model = transformers_model(name)
        inputs = []
        for layer in model.model.layers:
            if hasattr(layer.mlp, "gate") and hasattr(layer.mlp, "experts"):
                layer.mlp.gate.register_forward_hook(lambda m, i, o: inputs.append(o))
        parts = [model(input_ids=golden["ids"][None, a:b].long()).logits[0] for a, b in zip(edges, edges[1:])]
        logits = torch.cat(parts)
        loss = F.cross_entropy(logits, golden["labels"].long(), ignore_index=-1)
        words.append(f"logits by transformers {relative(logits, golden['logits']):.1e}")
        if "dpo" in case:
            loss = preference_loss(logits, golden, golden["dpo.reference"], case["dpo"])
        words.append(f"loss {abs(loss.item() / golden['loss'].item() - 1):.1e}")
        c = case["config"]
        if inputs and c.get("aux_loss_alpha", 0) > 0:
            # Mixtral's balance loss, a layer (and, where per sequence, a document) at a time, is num_experts_per_tok times ours.
            from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
            n, k, layers = c["n_routed_experts"], c["num_experts_per_tok"], len(inputs) // (len(edges) - 1)
            router = [o[0].double() for o in inputs]
            if not c["seq_aux"]:
                router = [torch.cat(router[i::layers]) for i in range(layers)]
            sets = 1 if not c["seq_aux"] else len(edges) - 1
            aux = sum(load_balancing_loss_func((r,), n, k).item() for r in router) / k / sets * c["aux_loss_alpha"]
            words.append(f"balance loss {abs(aux / golden['aux'].item() - 1):.1e}")
        if c["model_type"] != "deepseek":
            loss.backward()
            theirs = {n: p.grad for n, p in model.named_parameters()}
            for n in [n for n in theirs if ".experts." in n]:  # stacked there, gate above up
                prefix, part = n.rsplit(".", 1)
                for e, g in enumerate(theirs.pop(n)):
                    if part == "gate_up_proj":
                        for leaf, half in zip(("gate_proj", "up_proj"), g.chunk(2, 0)):
                            theirs[f"{prefix}.{e}.{leaf}.weight"] = half
                    else:
                        theirs[f"{prefix}.{e}.{part}.weight"] = g
            worst = max(relative(theirs[n[5:]], golden[n]) for n in golden if n.startswith("grad."))
            words.append(f"worst gradient {worst:.1e}")
    print(f"    cross-check: {', '.join(words)}", flush=True)


def main():
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(CASES)
    for name in names:
        case = CASES[name]
        reasons = {}
        for seed in range(1, 2000):
            report, golden = attempt(case, seed)
            if golden is not None:
                break
            print(f"  {name} seed {seed}: {report}", file=sys.stderr, flush=True)
            reasons[report.split(",")[0]] = reasons.get(report.split(",")[0], 0) + 1
        else:
            sys.exit(f"{name}: no seed will do: {reasons}")
        write(name, case, seed, golden)
        print(f"{name}: seed {seed}, {report}", flush=True)
        print(f"    seeds passed over: {reasons}", flush=True)
        cross_check(name, case)


if __name__ == "__main__":
    main()
