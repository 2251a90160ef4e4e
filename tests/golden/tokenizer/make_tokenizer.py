#!/usr/bin/env python3
"""Makes the golden tokenizers beside this file: one small byte-level BPE vocabulary under the published pre-tokenizers, a small
SentencePiece one of LLaMA's kind, and what Hugging Face's `tokenizers` (and sentencepiece) makes of about 200 awkward strings. The merges are learnt from whole lines, across words,
digits and punctuation, so that a cut in the wrong place nearly always changes the ids."""
import io
import json
import os
import random

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))

TEXT = """\
The mill stood by the river, and the river turned the wheel all day long.
In 1984 the wheel broke; in 2024 it was mended for 12,500 dollars and 75 cents.
She said: "Don't you think it's too late?" - "I'll see," he answered, "we've got 100 days."
They're here. We'd better go! I'm not sure that's what they'd want, is it?
A short list: one, two, three; four (4), five [5], six {6}. 3.14159, 2.71828, 1e-05, 0x1F.
    int main(int argc, char **argv) { return argc > 1 ? 0 : 1; }
    for (int i = 0; i < 10; i++) { sum += a[i] * b[i]; }
	if (x == NULL) return -1;  // nothing to do
def area(width, height):
    return width * height  # square metres
The experts are many, and each token asks six of them; the others rest.
A router weighs them all, keeps the best, and adds what they answer.
Training is slow, patience is long, and the loss goes down in the end.
河边有一座磨坊，河水整天推着轮子转。
她说：“现在是不是太晚了？”他回答：“再等一百天吧。”
二〇二四年，轮子修好了，花了12500元。
模型里有很多专家，每个词只问其中六位；其余的休息。
Die Mühle steht am Fluß, und über ihr fliegen Möwen. Größe: 20 m².
Le moulin tourne; l'été, l'eau est très basse, où est-elle passée ?
Мельница стоит у реки, и река крутит колесо весь день.
川のそばに水車小屋があり、水が一日中まわしている。
강가에 물방앗간이 있고 물이 바퀴를 돌린다。
Temperatures: -5 °C, 20 °C, 37.5 °C; prices: €9.99, £12, ¥300; ratios: 1/2, ½, ¾.
The end -- or so it seemed... 😀 😀 👍 🎉 was only the beginning!!! ???
"""

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|im_start|>", "<|im_end|>"]
PLAIN_ADDED = ["ö", "÷", "<tool>"]  # DeepSeek LLM, too, has letters among its added tokens; they cut the text like the special ones

CASED = ("A-Za-z\\u00b5\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u01ba\\u01bc-\\u01bf\\u01c4-\\u0293\\u0295-\\u02af\\u0370-\\u0373\\u0376"
         "\\u0377\\u037b-\\u037d\\u037f\\u0386\\u0388-\\u038a\\u038c\\u038e-\\u03a1\\u03a3-\\u03f5\\u03f7-\\u0481\\u048a-\\u052f"
         "\\u0531-\\u0556\\u10a0-\\u10c5\\u13a0-\\u13f5\\u13f8-\\u13fd\\u1c90-\\u1cba\\u1cbd-\\u1cbf\\u1d00-\\u1d2b\\u1d6b-\\u1d77"
         "\\u1d79-\\u1d9a\\u1e00-\\u1f15\\u1f18-\\u1f1d\\u1f20-\\u1f45\\u1f48-\\u1f4d\\u1f50-\\u1f57\\u1f59\\u1f5b\\u1f5d\\u1f5f-\\u1f7d"
         "\\u1f80-\\u1fb4\\u1fb6-\\u1fbc\\u1fbe\\u1fc2-\\u1fc4\\u1fc6-\\u1fcc\\u1fd0-\\u1fd3\\u1fd6-\\u1fdb\\u1fe0-\\u1fec\\u1ff2-\\u1ff4"
         "\\u1ff6-\\u1ffc\\u2102\\u2107\\u210a-\\u2113\\u2115\\u2119-\\u211d\\u2124\\u2126\\u2128\\u212a-\\u212d\\u212f-\\u2134\\u2139"
         "\\u213c-\\u213f\\u2145-\\u2149\\u214e\\u2183\\u2184\\u2c00-\\u2c7b\\u2c7e-\\u2ce4\\u2ceb-\\u2cee\\u2cf2\\u2cf3\\ua640-\\ua66d"
         "\\ua680-\\ua69b\\ua722-\\ua76f\\ua771-\\ua787\\ua78b-\\ua78e\\uab70-\\uabbf\\ufb00-\\ufb06\\ufb13-\\ufb17\\uff21-\\uff3a"
         "\\uff41-\\uff5a\\U00010400-\\U0001044f\\U000104b0-\\U000104d3\\U000104d8-\\U000104fb\\U00010c80-\\U00010cb2"
         "\\U00010cc0-\\U00010cf2\\U000118a0-\\U000118df\\U0001e900-\\U0001e943").encode().decode("unicode_escape")


def split(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


VARIANTS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]),
    "deepseek-llm": pre_tokenizers.Sequence([
        split("[\r\n]"), split("\\s?[" + CASED + "]+"),
        split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), split("\\s+$"),
        split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
}
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def chain(*expressions, digits=False):
    return pre_tokenizers.Sequence([split(e) for e in expressions] + [pre_tokenizers.Digits(individual_digits=True)] * digits +
                                   [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


VARIANTS["deepseek-coder"] = chain("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", digits=True)
VARIANTS["deepseek-v3"] = chain(
    r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
VARIANTS["llama-bpe"] = chain(WORDS % "{1,3}")
VARIANTS["qwen2"] = chain(WORDS % "")

NASTY = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\r", "\r\n", "\r\n\r\n", "\t\n", " \n", "\n ", " \n ", "  \n  ", "\n\t\n", "\v\f",
    "a", " a", "a ", " a ", "  a  ", "\ta", "a\n", "a\r\n", "a \n b", "a\n\n b\n", "Hello", " Hello", "  Hello", "   Hello", "Hello ",
    "Hello  world", "Hello   world", "Hello\tworld", "Hello\nworld", "Hello, world!", "Hello,world!", "HELLO world", "the river", "The mill",
    "I'm", "I'M", "don't you'll we've it's they'd", "'s", " 's", "'S 't 'RE", "x's's's", "''''", "'tis", "l'été", "it\u2019s", "\u2018quoted\u2019 \u201ctext\u201d",
    "0", "1", "12", "123", "1234", "12345678901234567890", " 1", " 12 ", "1 2 3", "1,234.56", "3.14159", "-1", "1e-05", "0x1F", "2024-06-30",
    "v1.2.3", "a1b2c3", "abc123def", "12:34:56", "100%", "$9.99", "\u20ac9.99", "\u00bd", "1\u00bd", "\u00b2\u00b3", "x\u00b2", "\u2167", "\u0664\u0665\u0666", "\u0967\u0968", "\uff11\uff12\uff13",
    "!", "!!!", "?!?!", "...", "\u2026", "--", "\u2014", " - ", "(a)", "[b]", "{c}", "<d>", "a/b\\c", "a_b", "_a_", "__init__", "#tag @user", "`code`", "a+b=c", "~^|&*",
    "http://example.org/a?b=c&d=1#e", "user@example.org", "C++ and C#", "f(x, y) -> z;", "    return 0;\n", "\tif (x) {\n\t\ty();\n\t}\n",
    "for (int i = 0; i < 10; i++)", "def f(a, b=1):\n    return a**b  # power\n", "{\"a\": [1, 2.5, null], \"b\": \"c\\n\"}", "<p class=\"x\">y</p>",
    "\u4f60\u597d", "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u6cb3\u8fb9\u6709\u4e00\u5ea7\u78e8\u574a\u3002", " \u4f60\u597d ", "\u4f60 \u597d", "Hello\u4f60\u597dworld", "\u4e2d\u65871\u4e2d\u658723", "\u4e00", "\u9fa5\u9fa6", "\u3007", "\u3000\u3000\u5168\u89d2", "\u300a\u4e66\u300b\u3001\u300c\u5f15\u300d", "\uff08\u62ec\u53f7\uff09\uff1a\uff1b",
    "\u6c34\u8eca\u5c0f\u5c4b", "\u3072\u3089\u304c\u306a\u30ab\u30bf\u30ab\u30ca", "\uff76\uff80\uff76\uff85", "\uac15\uac00\uc5d0", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\u3002", "\u3131\u314f",
    "\u041c\u0435\u043b\u044c\u043d\u0438\u0446\u0430 \u0441\u0442\u043e\u0438\u0442", "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac", "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u1797\u17b6\u179f\u17b6", "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8", "\u0540\u0561\u0575", "\u1200\u1208",
    "Stra\u00dfe M\u00fchle Gr\u00f6\u00dfe", "\u00c4pfel", "caf\u00e9", "cafe\u0301", "\u00ff\u00fe\u00fd", "\u00b5m \u2126 \u212a", "\u01c5 \u01c0 \u0294", "\ufb01n", "na\u00efve co\u00f6perate", "i\u0307\u0131", "\u1e9e\u0250", "10\u00f72=5",
    "\U0001f600", "\U0001f600\U0001f600", " \U0001f600 ", "ok\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\U0001f680 (rocket)", "\U00010400\U00010428", "\U00020000\U0002a6d6", "\U0001d400\U0001d7d8", "\U0010ffff",
    "a\u00a0b", "\u00a0", "\u2003x", "a\u2028b\u2029c", "\u0085", "\u200b", "a\u200bb", "\ufeffa", "\u00ad", "\u180e", "\u202f1", "a\u3000b", "x \u00a0 y", "\u0001\u0002", "\u007f", "\ufffd",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>", " <|im_end|> ", "<|im_start|><|im_end|>", "<|im_start", "|im_end|>", "<|IM_START|>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>User: Hi\n\nAssistant: Hello<\uff5cend\u2581of\u2581sentence\uff5c>", "<tool>1 + 1</tool>", "a<tool>", "\u2581", "a\u2581b",
    "User: What is 12 * 12?\n\nAssistant: 144", "a  \nb", "a \r\n b", "  \r\n\t\r\n ", "end of line   ", "end of line\n   ", "  \u4f60", "\t\t\u4f60\u597d\t1", "\u4f60\u597d   ", "1   ", "!   ", "!\n\n\n", " !", "  !", "   !!", " \u3002", "  \uff01",
]


def random_strings(count):
    pieces = ["the", "The", " the", "river", "'ll", "'", "\"", "1", "20", "2024", " ", "  ", "\n", "\r\n", "\t", ",", ".", "!", " (", "河边", "，", "。", "ö", "ü", "é",
              "½", "😀", "磨坊", "Мель", "강", "の", "_", "->", "<|im_end|>", "\u00a0", "\u3000", "x", "==", "//", "\u2019s"]
    source = random.Random(20240630)
    return ["".join(source.choice(pieces) for _ in range(source.randint(3, 14))) for _ in range(count)]


def learn(sequences, merges, count):
    """Plain BPE: the most frequent pair of neighbours becomes one, count times; the first in order among equals."""
    for _ in range(count):
        pairs = {}
        for s in sequences:
            for pair in zip(s, s[1:]):
                if len(pair[0] + pair[1]) <= 10:
                    pairs[pair] = pairs.get(pair, 0) + 1
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        sequences = [apply(s, best) for s in sequences]


def apply(sequence, pair):
    out = []
    for piece in sequence:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def train():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words, lines = pre_tokenizers.ByteLevel(False, use_regex=True), pre_tokenizers.ByteLevel(False, use_regex=False)
    merges = []
    learn([list(w) for w, _ in words.pre_tokenize_str(TEXT)], merges, 200)
    whole = [list(w) for line in TEXT.splitlines(keepends=True) for w, _ in lines.pre_tokenize_str(line)]
    for pair in merges:
        whole = [apply(s, pair) for s in whole]
    learn(whole, merges, 120)
    # Numbers, blanks and line ends: pieces that only the right cut keeps apart.
    for pair in [("1", "2"), ("12", "3"), ("2", "0"), ("2", "4"), ("20", "24"), ("0", "0"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ċ", "Ċ"), ("č", "Ċ"),
                 ("!", "!"), (".", "."), ("Ġ", "1"), ("Ġ", "2"), ("'", "s"), ("'", "t"), ("'", "l"), ("He", "ll"), ("H", "e"), ("l", "l"),
                 ("Hell", "o"), ("ĠĠ", "a"), ("Ġ", "Ċ"), ("ĉ", "ĉ"), ("!", "Ċ"), ("a", "1"), ("Ġ", "!"), ("½", "å"), ("Â", "²")]:
        known = set(alphabet) | {a + b for a, b in merges}
        if pair not in merges and pair[0] in known and pair[1] in known:
            merges.append(pair)
    vocab = {piece: i for i, piece in enumerate(alphabet)}
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    return vocab, merges


def save(name, whole, vectors):
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(whole, f, ensure_ascii=False, indent=1)
        f.write("\n")
    with open(os.path.join(folder, "vectors.json"), "w") as f:
        f.write('{"tokenizers": "%s", "cases": [\n' % tokenizers.__version__)
        f.write(",\n".join(json.dumps(v) for v in vectors))
        f.write("\n]}\n")


def llama2(texts):
    """SentencePiece's kind, as LLaMA 2 was trained; as tokenizer.model and as the tokenizer.json that stands for it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 3), model_writer=model, model_type="bpe", vocab_size=900,
        character_coverage=0.9995, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2)
    peer = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [peer.id_to_piece(i) for i in range(peer.vocab_size())]
    vocab = {p: i for i, p in enumerate(pieces)}
    merges = sorted((-peer.get_score(i), vocab[p[:at]], vocab[p[at:]], p[:at], p[at:])
                    for i, p in enumerate(pieces) if not (peer.is_byte(i) or peer.is_control(i) or peer.is_unknown(i))
                    for at in range(1, len(p)) if p[:at] in vocab and p[at:] in vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[m[3:] for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    vectors = []
    for text in texts + ["a" + " " * n + "b" for n in range(1, 40)] + ["<s>Hello</s> world", "</s><s>  a", "</s", "<0x41>", "\u2581\u2581"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert any(t in text for t in ("<s>", "</s>")) or ids == peer.encode(text), text
        vectors.append({"text": text, "ids": ids})
    save("llama2", json.loads(tokenizer.to_str()), vectors)
    with open(os.path.join(HERE, "llama2", "tokenizer.model"), "wb") as f:
        f.write(model.getvalue())
    print(f"llama2: {len(pieces)} pieces, {len(merges)} merges, {len(vectors)} strings")


def main():
    vocab, merges = train()
    texts = NASTY + random_strings(50)
    llama2(texts)
    for name, cut in VARIANTS.items():
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, ignore_merges=name == "llama-bpe"))
        tokenizer.pre_tokenizer = cut
        tokenizer.decoder = decoders.ByteLevel()
        if name == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
        tokenizer.add_tokens([AddedToken(t, special=False, normalized=True) for t in PLAIN_ADDED])
        vectors = []
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            # (Hugging Face's byte-level decoder takes an added letter for a byte, so texts with one do not come back.)
            assert any(a in text for a in PLAIN_ADDED) or name == "qwen2" or tokenizer.decode(ids, skip_special_tokens=False) == text, text
            vectors.append({"text": text, "ids": ids})
        whole = json.loads(tokenizer.to_str())
        if name == "llama-bpe":
            whole["model"]["ignore_merges"] = True
        if name in ("smollm", "deepseek-llm"):  # the older spelling of merges, as the published files of these two have it
            whole["model"]["merges"] = [" ".join(m) for m in whole["model"]["merges"]]
        save(name, whole, vectors)
        print(f"{name}: {tokenizer.get_vocab_size()} entries, {len(merges)} merges, {len(vectors)} strings")
    different = [t for t in texts if len({tuple(json_ids(n, t)) for n in VARIANTS}) > 1]
    print(f"{len(different)} strings have other ids under another pre-tokenizer")


def json_ids(name, text, cache={}):
    if name not in cache:
        with open(os.path.join(HERE, name, "vectors.json")) as f:
            cache[name] = {v["text"]: v["ids"] for v in json.load(f)["cases"]}
    return cache[name][text]


if __name__ == "__main__":
    main()
