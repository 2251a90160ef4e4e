#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets beside this file: the smallest inputs that get to the end of each reader."""
import gzip, io, json, os, struct, tarfile, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def write(target, name, data):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as f:
        f.write(data)


def text(value):
    return json.dumps(value, ensure_ascii=False).encode()


# --- safetensors: one tensor of each type
def safetensors(metadata):
    types = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1}
    header, at = dict(metadata), 0
    for name, size in types.items():
        header["model.layers.0.mlp." + name] = {"dtype": name, "shape": [2, 4], "data_offsets": [at, at + 8 * size]}
        at += 8 * size
    head = text(header)
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(at)


write("fuzz_safetensors", "plain", safetensors({}))
write("fuzz_safetensors", "metadata", safetensors({"__metadata__": {"format": "pt"}}))


# --- GGUF: a small model with its vocabulary
def gguf_string(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(value):
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    kind = {int: 5, float: 6, str: 8}[type(value[0])]
    items = b"".join(gguf_string(v) if kind == 8 else struct.pack("<f" if kind == 6 else "<i", v) for v in value)
    return struct.pack("<IIQ", 9, kind, len(value)) + items


def gguf(keys, tensors, version=3):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, value in keys.items():
        out += gguf_string(key) + gguf_value(value)
    at = 0
    for name, (shape, kind, size) in tensors.items():
        out += gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        out += struct.pack("<IQ", kind, at)
        at += size + -size % 32
    return out + bytes(-len(out) % 32) + bytes(at)


VOCABULARY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "deepseek-llm",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "Ġ", "<s>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 1, 3],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 4,
    "tokenizer.ggml.bos_token_id": 4,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{% for message in messages %}{{ 'User: ' + message['content'] }}{% endfor %}",
}
LLAMA = {"block_count": 1, "context_length": 32, "embedding_length": 32, "feed_forward_length": 32, "attention.head_count": 4,
         "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e4, "vocab_size": 5}
DEEPSEEK = {**LLAMA, "expert_count": 4, "expert_used_count": 2, "expert_shared_count": 1, "expert_feed_forward_length": 16,
            "leading_dense_block_count": 0, "expert_weights_scale": 1.0}
TENSORS = {"token_embd.weight": ((32, 5), 0, 640), "blk.0.ffn_up.weight": ((32, 2), 2, 36), "blk.0.ffn_down.weight": ((32, 2), 3, 40),
           "output.weight": ((32, 2), 8, 68), "blk.0.attn_q.weight": ((8,), 30, 16)}
for name, keys in (("llama", LLAMA), ("deepseek", DEEPSEEK)):
    model = gguf({"general.architecture": name, "general.alignment": 32, **{f"{name}.{k}": v for k, v in keys.items()},
                  **VOCABULARY}, TENSORS)
    write("fuzz_gguf", name, model)
    write("fuzz_tokenizer", "gguf_" + name, gguf({"general.architecture": name, **VOCABULARY}, {}))

QWEN2MOE = {k: v for k, v in LLAMA.items() if not k.startswith("rope.scal")}
QWEN2MOE.update({"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 16, "expert_shared_feed_forward_length": 32,
                 "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
                 "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0, "rope.scaling.attn_factor": 1.0})
write("fuzz_gguf", "qwen2moe", gguf({"general.architecture": "qwen2moe", "general.alignment": 32,
                                     **{f"qwen2moe.{k}": v for k, v in QWEN2MOE.items()}, **VOCABULARY}, TENSORS))
DIVIDED = {**TENSORS, "rope_freqs.weight": ((4,), 0, 16)}
write("fuzz_gguf", "llama3", gguf({"general.architecture": "llama", "general.alignment": 32,
                                   **{f"llama.{k}": v for k, v in LLAMA.items() if not k.startswith("rope.scal")}, **VOCABULARY}, DIVIDED))

# Every type that is read, a row each; version 2; a part of a model in several files.
BLOCKS = {"Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144),
          "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136)}
write("fuzz_gguf", "types", gguf({"general.architecture": "llama"}, {k: ((n,), t, size) for k, (t, n, size) in BLOCKS.items()}, 2))
write("fuzz_gguf", "part", gguf({"general.architecture": "llama", "split.no": 0, "split.count": 3, "split.tensors.count": 9}, TENSORS))

# --- importance matrices, both formats
def old_entry(name, calls, values):
    return struct.pack("<i", len(name)) + name.encode() + struct.pack(f"<ii{len(values)}f", calls, len(values), *values)


OLD = struct.pack("<i", 2) + old_entry("blk.0.ffn_up.weight", 2, [1.0, 0.0, 4.5]) + old_entry("output.weight", 0, [3.0])
write("fuzz_imatrix", "old", OLD + struct.pack("<ii", 5, 4) + b"text")
write("fuzz_imatrix", "oldest", OLD)
write("fuzz_imatrix", "gguf", gguf({"general.type": "imatrix", "imatrix.datasets": ["a", "b"], "imatrix.chunk_count": 2},
                                   {"a.in_sum2": ((4, 2), 0, 32), "a.counts": ((1, 2), 0, 8)}))

# --- config.json
HF = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
      "vocab_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
      "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": [2, 3], "torch_dtype": "bfloat16"}
MOE = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
       "moe_layer_freq": 1, "norm_topk_prob": False, "scoring_func": "softmax", "aux_loss_alpha": 0.001, "seq_aux": True,
       "routed_scaling_factor": 1.0}
write("fuzz_json", "llama", text({"model_type": "llama", "architectures": ["LlamaForCausalLM"], **HF,
                                  "rope_scaling": {"type": "linear", "factor": 2.0}}))
write("fuzz_json", "deepseek", text({"model_type": "deepseek", "architectures": ["DeepseekForCausalLM"], **HF, **MOE}))
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
        "mscale_all_dim": 0.5, "truncate": False}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
write("fuzz_json", "qwen2_moe", text({"model_type": "qwen2_moe", **HF, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True,
                                      "moe_intermediate_size": 16, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 2,
                                      "mlp_only_layers": [0], "rope_scaling": YARN, "qkv_bias": True, "router_aux_loss_coef": 0.001}))
write("fuzz_json", "olmoe", text({"model_type": "olmoe", **HF, "num_experts": 4, "num_experts_per_tok": 2, "attention_bias": True,
                                  "rope_parameters": LLAMA3, "clip_qkv": None}))
write("fuzz_json", "mistral", text({"model_type": "mistral", **HF, "sliding_window": 4096, "layer_types": ["full_attention"] * 2}))
write("fuzz_json", "generation", text({**HF, "model_type": "llama", "temperature": 0.7, "top_p": 0.9, "do_sample": True}))

# --- tokenizer.json and a text behind a 0 byte; a 0 byte first: the text alone
BPE = {"type": "BPE", "unk_token": "b", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "aba": 4, "1": 5}, "merges": ["a b", ["ab", "a"]]}
ADDED = [{"id": 6, "content": "<s>", "special": True, "lstrip": True, "rstrip": True, "normalized": False, "single_word": False},
         {"id": 7, "content": "<so>", "special": False, "lstrip": False, "rstrip": True, "normalized": True}]
SPLITS = [{"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False}
          for r in ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")]
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE = {"deepseek": {"type": "Sequence", "pretokenizers": SPLITS + [{"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": False}]},
       "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]},
       "gpt2": BYTES}
TEXT = "aba <s> ab12\r\n  don't 中文 \u0301é ".encode()
for name, pre in PRE.items():
    write("fuzz_tokenizer", name, text({"version": "1.0", "added_tokens": ADDED, "normalizer": None, "pre_tokenizer": pre,
                                        "post_processor": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"}, "model": BPE}) + b"\0" + TEXT)
write("fuzz_template", "chatml", b"{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>'}}{% endfor %}")

# --- texts; the first byte chooses the vocabulary, the second the flags
WORDS = "I'll see 12,500 m² of\r\n  Größe\t x = f(a)\n\n 二〇二四年，轮子 강가 e\u0301 😀 <s><tool>ö".encode() + b"\xff\xe4\xbd "
for i, name in enumerate(("gpt2", "smollm", "deepseek-llm", "deepseek-coder", "deepseek-v3", "llama-bpe", "qwen2", "llama2", "odd")):
    write("fuzz_text", name, bytes([i, 16 + i]) + WORDS)

# --- tokenizer.model: 256 bytes, a few pieces and a text behind a line of dashes
def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)] + [("<0x%02X>" % b, 0.0, 6) for b in range(256)]
PIECES += [("ab", -1.0, 1), ("\u2581ab", -2.0, 1), ("<tool>", 0.0, 4), ("a", -3.0, 1), ("b", -4.0, 1), ("\u2581", -5.0, 1)]
MODEL = b"".join(field(1, field(1, p.encode()) + field(2, s) + field(3, t)) for p, s, t in PIECES)
MODEL += field(2, field(3, 2) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2))
NORMAL = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
write("fuzz_spm", "plain", MODEL + field(3, NORMAL) + b"\n---\nab <s>ab<tool>  \xe4\xbd\xa0")
write("fuzz_spm", "bare", MODEL + field(3, NORMAL.replace(b"\x18\x01", b"\x18\x00")) + field(5, b"") + b"\n---\n ab")

# --- GGUF vocabulary of SentencePiece's kind
SPM = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": [p for p, _, _ in PIECES], "tokenizer.ggml.scores": [s for _, s, _ in PIECES],
       "tokenizer.ggml.token_type": [t for _, _, t in PIECES], "tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.bos_token_id": 1}
write("fuzz_tokenizer", "gguf_spm", gguf({"general.architecture": "llama", **SPM}, {}))
BYTES_VOCAB = {p: i for i, (p, _, _) in enumerate(PIECES)}
NORMALIZER = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                  {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
META = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
BLANKS = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                                           {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
MERGES = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": BYTES_VOCAB, "merges": ["a b", "\u2581 ab"]}
for name, normalizer, pre in (("spm", NORMALIZER, None), ("metaspace", None, META)):
    write("fuzz_tokenizer", name, text({"added_tokens": [{"id": 1, "content": "<s>", "special": True}, {"id": 261, "content": "<tool>", "normalized": True}],
                                        "normalizer": normalizer, "pre_tokenizer": pre, "decoder": BLANKS, "model": MERGES}) + b"\0" + TEXT)
write("fuzz_tokenizer", "nfc", text({"normalizer": {"type": "NFC"}, "pre_tokenizer": PRE["gpt2"], "decoder": {"type": "ByteLevel"}, "model": BPE})
      + b"\0" + "e\u0301\u0323 \u1100\u1161\u11a8 \u212b\u0f71\u0f74".encode())

# --- template files
write("fuzz_template", "all", b"""vkmoe-template 1
needs "<s>" "<|im_end|>" # both
start "{bos}"
system "{text:trim}\\n"
first-user "[{system}] {text:trim-end}"
user "<s>user {bos:auto}{text}\\\\\\"\\{\\t"
prompt "A:"
answer " {text}<|im_end|>"
after "\\n"
default-system "usual"
alternate
system-first
""")
write("fuzz_template", "small", b'vkmoe-template 1\nuser "{text}"\nanswer "{text}{eos}"\n')
for name in ("llama2", "deepseek-coder", "zephyr"):
    with open(os.path.join(HERE, "..", "golden", "templates", name + ".jinja"), "rb") as f:
        write("fuzz_template", name, f.read())

# --- training data, one form each; the last byte chooses the options
TALK = [{"role": "system", "content": "a"}, {"role": "user", "content": "ab b"}, {"role": "assistant", "content": "ba"}]
FORMS = {"messages": {"messages": TALK}, "completion": {"prompt": "ab", "completion": " ba"}, "text": {"text": "ab ab\u00e9"},
         "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "a"},
         "alpaca": {"instruction": "a", "input": "b", "output": "ab", "system": "b", "history": [["a", "b"]]}}
for name, form in FORMS.items():
    write("fuzz_data", name, text(form) + b"\r\n" + text(form) + b"\n")
write("fuzz_data", "array", text([FORMS["alpaca"], FORMS["messages"]]) + b"\n")
# The byte before the last chooses too: 1 is CSV, 4 other names, 8 and 16 what becomes of long examples, 64 pairs, 128 text.
write("fuzz_data", "csv", b'id,prompt,"completion"\r\n1,"a ""b""\r\n",b\r\n2,,"ab\nb"\r\n3,a,b\n!\n')
write("fuzz_data", "columns", text({"a": "ab", "b": " ba", "text": "no"}) + b"\n" + text(
    {"c": [{"d": "user", "content": "a"}, {"d": "assistant", "content": [{"type": "text", "text": "b"}], "e": 1}]}) + b"\n\x0c\x10")
write("fuzz_data", "weights", text({"messages": TALK + [{"role": "user", "content": "b", "weight": 0},
                                                        {"role": "assistant", "content": "a", "mask": False}]}) + b"\n\x10\x02")
write("fuzz_data", "pairs", text({"prompt": "a", "chosen": "b", "rejected": "ab"}) + b"\n" + text(
    {"prompt": TALK[:2], "chosen": "b", "rejected": "ab"}) + b"\n@\x10")
write("fuzz_data", "marked", b"ab\n\nb<|endoftext|>\n<|endoftext|>\na ab\n\x80\x10")
write("fuzz_data", "blank_lines", b"ab\r\nb\r\n \r\n\na ab\n\x90\x04")
write("fuzz_data", "gzip", gzip.compress(text(FORMS["text"]) + b"\n", mtime=0))


# --- grammars, and behind a 0 byte a text
for name, grammar, sample in [
    ("json", "", '{"a": [1, -2.5e3, {"b\\u00e9": null}, "\\\\"]}\n'.strip()),
    ("json_open", "", '{"a": {"b": ["'),
    ("repeat", 'root ::= ("ab" | [^a-c]){2,5} "x"? # two to five\n', "abzx"),
    ("rules", 'root ::= list\nlist ::= item\n  | item "," list\nitem ::= [a-z]+ | "(" list ")"\n', "a,(b,cd),e"),
    ("characters", 'root ::= "\\x41\\u00e9\\U0001F600" . [\u4e00-\u9fa5]*\n', "A\u00e9\U0001f600x\u6f22"),
    ("left", 'root ::= e root "a" | "b"\ne ::= "e"?\n', "b"),
    ("endless", "root ::= (\"\" | \"a\"?)* dead?\ndead ::= \"d\" dead\n", "aa"),
]:
    write("fuzz_grammar", name, grammar.encode() + b"\0" + sample.encode())

# --- a saved conversation; the target puts length and checksum right
def conversation(settings, messages, cached, layers, row):
    words = b"".join(struct.pack("<II", len(n), len(v)) + n + v for n, v in settings)
    for role, said, ids in messages:
        words += struct.pack("<IIQ", role, len(ids), len(said)) + said + struct.pack(f"<{len(ids)}I", *ids)
    words += struct.pack(f"<{len(cached)}I", *cached)
    words += bytes(-len(words) % 8)
    cache = bytes(2 * layers * len(cached) * row)
    head = b"VKMOECHT" + struct.pack("<IIQQQQQ8sIIIIIIIf", 1, 128, 136 + len(words) + len(cache), 1, 2, 0, 4, b"f32", row, layers,
                                     len(cached), len(settings), len(messages), 0, 1, 1.0)
    return head + bytes(128 - len(head)) + words + cache + bytes(8)


write("fuzz_chatfile", "talk", conversation([(b"temperature", b"0.7"), (b"stop", b"")],
                                            [(0, b"Be kind.", []), (1, b"Hi", []), (2, "你好".encode(), [7, 8])], [1, 2, 3], 2, 16))
write("fuzz_chatfile", "words", conversation([], [(1, b"Hi", [])], [], 0, 16))
write("fuzz_chatfile", "empty", conversation([], [], [], 0, 256))


# --- data sets and task files; the first byte chooses the reader
def archive(kind):
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr(zipfile.ZipInfo("d/a.txt"), '{"a": 1}\n' * 5, zipfile.ZIP_DEFLATED)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as t:
        member = tarfile.TarInfo("d/a.txt")
        member.size = 8
        t.addfile(member, io.BytesIO(b'{"a": 1}'))
    return out.getvalue()[:2048]


write("fuzz_eval", "csv", b'\x02a,"b ""x"", y"\n1,"2\n3"\n')
write("fuzz_eval", "jsonl", b'\x00{"a": "x_y", "list": ["p", 1], "question": {"choices": [{"text": "t"}]}}\n')
write("fuzz_eval", "json", b'\x01{"examples": [{"a": [{"q": 1}, {"q": 2}]}]}')
write("fuzz_eval", "gzip", b"\x00" + gzip.compress(b'{"a": 1}\n', mtime=0))
write("fuzz_eval", "tar", b"\x08" + archive("tar"))
write("fuzz_eval", "zip", b"\x08" + archive("zip"))
write("fuzz_eval", "task", b"\x07# c\ntitle: T\nsource: s\nkind: generate\nmetric: em\ndata: d\ngold: {g}\nset x: {a|strip}\n"
                           b"replace x: /a/b/\nextract: last (\\d+)\nstop: \\n\n\n[query]\n{q}\n[shot]\nx\n")
write("fuzz_eval", "latex", b"\x06x = \\boxed{\\frac12 + \\sqrt3, \\text{ cm}} 3/4")
