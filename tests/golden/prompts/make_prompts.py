#!/usr/bin/env python3
"""make_prompts.py DATA VOCABULARY.gguf PROMPTS.jsonl: the prompts of the nineteen tasks once more, by other means, and digests.txt.

PROMPTS.jsonl is what `vkmoe eval VOCABULARY.gguf --data DATA --dry-run --limit 100` printed. Each of its texts is made again here from the published
record: by the task definitions of the installed lm-evaluation-harness where the task follows it, else by a few lines that state the protocol
(docs/evaluation.md says which is which). Its tokens are made again by Hugging Face's `tokenizers` out of the vocabulary's own merges, and that
tokenizer must first give the ids that lie beside the vocabulary. Only when all are equal are the digests written: no record lies here.

Made with Python 3.14, lm-eval 0.4.13, tokenizers 0.23.3, gguf 0.19.
"""
import csv
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import sys
import tarfile
import zipfile

import lm_eval
import yaml
from gguf import GGUFReader
from jinja2 import BaseLoader, Environment
from tokenizers import AddedToken, Tokenizer, models

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
HARNESS = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
JINJA = Environment(loader=BaseLoader, keep_trailing_newline=True)
STEP = "A: Let's think step by step."


# ---- The harness's definitions

class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!function", lambda loader, node: None)


@functools.cache
def definition(path):
    """A task's settings, with those that it includes under them."""
    with open(os.path.join(HARNESS, path)) as file:
        own = yaml.load(file, Loader)
    base = definition(os.path.join(os.path.dirname(path), own["include"])) if "include" in own else {}
    return base | own


@functools.cache
def functions(path):
    spec = importlib.util.spec_from_file_location("task", os.path.join(HARNESS, path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(path, doc):
    return JINJA.from_string(definition(path)["doc_to_text"]).render(**doc)


# ---- The published files

def lines_of(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        return file.read().split("\n")


def table(text):
    """Rows by the line at which they begin."""
    rows, begin, reader = {}, 1, csv.reader(io.StringIO(text, newline=""))
    for row in reader:
        rows[begin] = row
        begin = reader.line_num + 1
    return rows


@functools.cache
def records_of(path):
    """All records of a file, be it in an archive: by the place that vkmoe names, without its beginning."""
    archive, _, member = path.partition(".zip:") if ".zip:" in path else path.partition(".gz:")
    if not member:
        if path.endswith(".csv"):
            with open(path, encoding="utf-8-sig", newline="") as file:
                return table(file.read())
        if "/bbh/" in path:
            with open(path) as file:
                return json.load(file)["examples"]
        return [json.loads(line) for line in lines_of(path) if line]
    if ".zip:" in path:
        with zipfile.ZipFile(archive + ".zip") as file:
            return table(file.read(member).decode("utf-8-sig"))
    with tarfile.open(archive + ".gz") as file:
        return [json.load(file.extractfile(member))]


def record_of(where):
    """The record that a line's "where" names: FILE:LINE, FILE: record N, FILE: part N."""
    path, number = re.fullmatch(r"(.*?)(?:: record |: part |:)(\d+)", where).groups()
    number, records = int(number), records_of(path)
    if path.endswith(".csv"):
        heading = "question a b c d answer".split() if "/mmlu/" in path else records[1]
        return dict(zip(heading, records[number])), path
    if ".gz:" in path:
        doc = records[0]
        return {"article": doc["article"], "question": doc["questions"][number - 1], "options": doc["options"][number - 1],
                "answer": doc["answers"][number - 1]}, path
    return records[number - 1], path


# ---- What each task asks: ([prompt of each choice or one], [continuation of each choice])

LETTERS = [" A", " B", " C", " D"]
CHINESE = "以下是单项选择题，每题只有一个正确答案。\n\n"


def hellaswag(doc, path):
    clean = functions("hellaswag/utils.py").preprocess
    begun = clean(doc["activity_label"] + ": " + doc["ctx_a"] + " " + doc["ctx_b"].capitalize())
    return [begun], [" " + clean(e) for e in doc["endings"]]


def piqa(doc, path):
    return [text_of("piqa/piqa.yaml", doc)], [" " + doc["sol1"], " " + doc["sol2"]]


def arc(doc, path):
    question = doc["question"]
    return [text_of("arc/arc_easy.yaml", {"question": question["stem"]})], [" " + c["text"] for c in question["choices"]]


def winogrande(doc, path):
    task = functions("winogrande/preprocess_winogrande.py")
    return task.doc_to_choice(doc), [" " + task.doc_to_target(doc)] * 2


def mmlu(doc, path):
    name = "mmlu/default/mmlu_" + os.path.basename(path).removesuffix("_test.csv") + ".yaml"
    return [definition(name)["description"] + text_of(name, doc | {"choices": [doc[k] for k in "abcd"]})], LETTERS


def ceval(doc, path):
    return [CHINESE + text_of("ceval/_default_ceval_yaml", doc)], LETTERS


def cmmlu(doc, path):
    return [CHINESE + text_of("cmmlu/_default_template_yaml", doc)], LETTERS


def gsm8k(doc, path):
    return [text_of("gsm8k/gsm8k.yaml", doc)], []


def humaneval(doc, path):
    return [text_of("humaneval/humaneval.yaml", doc)], []


def naturalquestions(doc, path):
    return [definition("nq_open/nq_open.yaml")["description"] + text_of("nq_open/nq_open.yaml", doc)], []


def triviaqa(doc, path):  # the harness puts a second question mark behind the question
    shots = [f"Question: {r['question']}\nAnswer: {r['golden_answers'][0]}\n\n" for r in records_of(path)[:5]]
    return ["".join(shots) + f"Question: {doc['question']}\nAnswer:"], []


def mbpp(doc, path):
    def ask(r):
        text = text_of("mbpp/mbpp.yaml", r)
        more = r["test_list"][3:]  # the harness shows three
        return text.removesuffix("\n[BEGIN]\n") + "".join("\n" + t for t in more) + "\n[BEGIN]\n"

    shots = [ask(r) + r["code"].replace("\r", "").strip() + "\n[DONE]\n\n" for r in records_of(path) if 2 <= r["task_id"] <= 4]
    return ["".join(shots) + ask(doc)], []


def math(doc, path):
    with open(os.path.join(ROOT, "eval", "tasks", "math.task")) as file:
        shots = file.read().split("[shot]\n")[1:]
    shots = [re.sub(r"\\([\\{}])", r"\1", s).strip("\n") + "\n\n" for s in shots]
    return ["".join(shots) + f"Problem:\n{doc['problem']}\n\nSolution:"], []


def bbh(doc, path):
    with open(path.replace("/bbh/bbh/", "/bbh/cot-prompts/").removesuffix("json") + "txt") as file:
        head = file.read().split("-----\n", 1)[1].strip()
    return [f"{head}\n\nQ: {doc['input']}\n{STEP}"], []


def race(doc, path):
    def ask(r):
        a, b, c, d = r["options"]
        return f"{r['article'].strip()}\n\nQ: {r['question']}\n\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n\nAnswer:"

    archive, member = path.split(".gz:")
    folder = os.path.dirname(member).replace("/test/", "/dev/")
    with tarfile.open(archive + ".gz") as file:
        names = sorted(n for n in file.getnames() if n.startswith(folder + "/") and n.endswith(".txt"))[:5]
        docs = [json.load(file.extractfile(n)) for n in names]
    shots = [ask({"article": r["article"], "question": r["questions"][0], "options": r["options"][0]}) + f" {r['answers'][0]}\n\n"
             for r in docs]
    return ["Read the article, and answer the question by replying A, B, C or D.\n\n" + "".join(shots) + ask(doc)], LETTERS


def drop(doc, path):
    shot = records_of(path)[0]
    return ["Each passage is followed by a question, and that by its answer.\n\n" + shot["context"] + shot["completion"] + "\n\n" +
            doc["context"]], []


def cluewsc(doc, path):
    def ask(r):
        t = r["target"]
        return f"{r['text']}\n问题：句中的“{t['span2_text']}”指的是“{t['span1_text']}”吗？请回答是或否。\n回答："

    shots = records_of(os.path.join(os.path.dirname(path), "train.json"))[:5]
    return ["".join(ask(r) + {"true": "是", "false": "否"}[r["label"]] + "\n\n" for r in shots) + ask(doc)], []


ASK = {"arc_easy": arc, "arc_challenge": arc, "race_middle": race, "race_high": race}


# ---- Tokens

def open_tokenizer(path):
    """DeepSeek LLM's: the vocabulary and merges of the GGUF file under the published pre-tokenizer."""
    sys.path.insert(0, os.path.join(HERE, "..", "tokenizer"))
    from make_tokenizer import VARIANTS

    fields = GGUFReader(path).fields
    names = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    assert fields["tokenizer.ggml.pre"].contents() == "deepseek-llm"
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    tokenizer.pre_tokenizer = VARIANTS["deepseek-llm"]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name, kind in zip(names, kinds) if kind == 4])  # "user defined"
    begin = fields["tokenizer.ggml.bos_token_id"].contents()
    with open(path + ".inp", newline="") as texts, open(path + ".out") as ids:
        for text, expected in zip(texts.read().split("\n__ggml_vocab_test__\n"), ids.read().split("\n")):
            assert tokenizer.encode(text).ids == [int(i) for i in expected.split()], text
    return lambda text: [begin] + tokenizer.encode(text).ids


def pair(encode, prompt, continuation):
    """The harness's: cut as one text; white space at the prompt's end belongs to the continuation."""
    bare = prompt.rstrip()
    whole, before = encode(prompt + continuation), encode(bare)
    return before, whole[len(before):]


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def spell(ids):
    return " ".join(map(str, ids))


def main():
    data, vocabulary, prompts = sys.argv[1:]
    encode, digests, counts = open_tokenizer(vocabulary), [], {}
    with open(vocabulary, "rb") as file:
        head = f"tokenizer {hashlib.sha256(file.read()).hexdigest()}\n"
    with open(prompts) as file:
        for line in map(json.loads, file):
            task, where = line["task"], os.path.join(data, line["where"].split("/eval/")[-1])
            asks, continuations = (ASK.get(task) or globals()[task])(*record_of(where))
            texts = asks if "prompts" in line else asks * max(1, len(continuations))
            assert line.get("prompts", line.get("prompt")) == (asks if "prompts" in line else asks[0]), (where, asks)
            assert line.get("continuations", []) == continuations, (where, continuations)
            if continuations:
                pairs = [pair(encode, p, c) for p, c in zip(texts, continuations)]
            else:
                pairs = [(encode(asks[0]), [])]
            assert line["tokens"] == ([p for p, c in pairs] if "prompts" in line else pairs[0][0]), where
            assert line.get("continuation_tokens", [[]]) == [c for p, c in pairs], where
            both = [t for p, c in zip(texts, continuations or [""]) for t in (p, c)]
            digests.append(f"{task} {sha(''.join(t + chr(0) for t in both))} {sha(''.join(spell(i) + chr(10) for p in pairs for i in p))}\n")
            counts[task] = counts.get(task, 0) + 1
    with open(os.path.join(HERE, "digests.txt"), "w") as file:
        file.write(head + "".join(digests))
    print(*(f"{task} {n}" for task, n in counts.items()), sep="\n")
    print(len(digests), "records: texts and tokens are the same")


if __name__ == "__main__":
    main()
