#!/usr/bin/env python3
"""tools/compare_eval.py MODEL_FOLDER DATA RESULTS.jsonl...: the same records asked by lm-evaluation-harness.

MODEL_FOLDER is a model in Hugging Face's layout, DATA the folder that `vkmoe eval --data` was given, RESULTS.jsonl what it wrote beside its
results (f32 weights, --cache-type f32). The harness gets its own task definitions over local files with just these records, 0-shot. Prints per task
both scores, how many records were asked in other words, and the largest difference of log-likelihoods. Needs lm-eval and its Hugging Face parts.
"""
import csv
import json
import os
import re
import sys
import tempfile

import lm_eval
from lm_eval.tasks import TaskManager

HELLASWAG = os.path.join(os.path.dirname(lm_eval.__file__), "tasks", "hellaswag", "utils.py")
WINOGRANDE = os.path.join(os.path.dirname(lm_eval.__file__), "tasks", "winogrande", "preprocess_winogrande.py")
CHOICE = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
TASKS = {
    "hellaswag": dict(CHOICE, doc_to_text="{{query}}", doc_to_target="{{gold}}", doc_to_choice="choices"),
    "piqa": dict(CHOICE, doc_to_text="Question: {{goal}}\nAnswer:", doc_to_target="label",
                 doc_to_choice="{{[sol1, sol2]}}"),
    "arc_easy": dict(CHOICE, doc_to_text="Question: {{question}}\nAnswer:",
                     doc_to_target="{{labels.index(answerKey)}}", doc_to_choice="{{texts}}"),
    "winogrande": dict(CHOICE, doc_to_text="index", doc_to_target="target", doc_to_choice="contexts",
                       metric_list=[{"metric": "acc"}]),
    "mmlu": dict(CHOICE, doc_to_text="The following are multiple choice questions (with answers) about {{subject}}.\n\n"
                 "{{question.strip()}}\nA. {{a}}\nB. {{b}}\nC. {{c}}\nD. {{d}}\nAnswer:",
                 doc_to_choice=["A", "B", "C", "D"], doc_to_target="answer"),
    "gsm8k": {
        "output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "ignore_case": True,
                         "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}],
        "filter_list": [{"name": "flexible", "filter": [
            {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
            {"function": "take_first"}]}]},
}
TASKS["arc_challenge"] = TASKS["arc_easy"]


def module(path):
    space = {}
    exec(open(path).read(), space)
    return space


def record_of(line, data):
    """The published record behind a line of the journal, in the fields of TASKS."""
    path, number = re.match(r"(.*):(\d+)$", line["where"]).groups()
    number = int(number) - 1
    path = os.path.join(data, path.split("/eval/")[-1]) if not os.path.exists(path) else path
    task = line["task"]
    if task == "mmlu":
        with open(path, newline="") as file:  # a cell may have line ends in it
            reader = csv.reader(file)
            row = next(reader)
            while reader.line_num <= number:
                row = next(reader)
        return dict(zip("question a b c d".split(), row), answer="ABCD".index(row[5]),
                    subject=line["subject"].replace("_", " "))
    doc = json.loads(open(path).read().split("\n")[number])
    if task == "hellaswag":
        clean = module(HELLASWAG)["preprocess"]
        begun = doc["activity_label"] + ": " + doc["ctx_a"] + " " + doc["ctx_b"].capitalize()
        return {"query": clean(begun), "choices": [clean(e) for e in doc["endings"]], "gold": int(doc["label"])}
    if task == "piqa":
        doc["label"] = int(open(os.path.join(os.path.dirname(path), "dev-labels.lst")).read().split()[number])
    if task.startswith("arc"):
        question = doc["question"]
        return {"question": question["stem"], "answerKey": doc["answerKey"],
                "texts": [c["text"] for c in question["choices"]], "labels": [c["label"] for c in question["choices"]]}
    if task == "winogrande":
        w = module(WINOGRANDE)
        return {"index": w["doc_to_text"](doc), "target": w["doc_to_target"](doc), "contexts": w["doc_to_choice"](doc)}
    return doc


def asked_of(sample):
    """Prompt and continuation of each choice, or the prompt alone, as the harness asked."""
    arguments = [[a for a in request if isinstance(a, str)] for request in sample["arguments"]]
    return [a for request in arguments for a in request]


def asked_by(line):
    if "continuations" not in line:
        return [line["prompt"]]
    prompts = line.get("prompts") or [line["prompt"]] * len(line["continuations"])
    return [text for pair in zip(prompts, line["continuations"]) for text in pair]


def main():
    model, data, lines = sys.argv[1], sys.argv[2], {}
    for path in sys.argv[3:]:
        for line in open(path).read().split("\n")[1:-1]:
            line = json.loads(line)
            if line["task"] in TASKS:
                lines.setdefault(line["task"], []).append(line)
    with tempfile.TemporaryDirectory() as folder:
        for task, own in lines.items():
            with open(f"{folder}/{task}.json", "w") as out:
                for line in own:
                    out.write(json.dumps(record_of(line, data)) + "\n")
            config = dict(TASKS[task], task=f"peer_{task}", dataset_path="json", test_split="test", num_fewshot=0,
                          dataset_kwargs={"data_files": {"test": f"{folder}/{task}.json"}})
            with open(f"{folder}/{task}.yaml", "w") as out:
                json.dump(config, out)
        found = lm_eval.simple_evaluate(
            model="hf", model_args={"pretrained": model, "dtype": "float32"}, device="cpu", batch_size=1,
            tasks=[f"peer_{task}" for task in lines], log_samples=True, bootstrap_iters=0,
            task_manager=TaskManager(include_path=folder, include_defaults=False))
    print("| task | records | asked otherwise | harness | vkmoe | judged otherwise | largest difference of log-likelihoods |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for task, own in lines.items():
        samples = sorted(found["samples"][f"peer_{task}"], key=lambda s: s["doc_id"])
        keys = [(theirs, ours) for theirs, ours in [("acc", "correct"), ("acc_norm", "correct_norm"),
                                                    ("exact_match", "correct")] if theirs in samples[0]]
        furthest, likely = 0.0, "logprobs" in own[0]
        otherwise = sum(asked_of(sample) != asked_by(line) for line, sample in zip(own, samples))
        for line, sample in zip(own, samples):
            if "logprobs" in line:
                theirs = [float(r[0][0]) for r in sample["resps"]]
                furthest = max([furthest] + [abs(a - b) for a, b in zip(theirs, line["logprobs"])])
            elif line["answer"] != sample["resps"][0][0]:
                print(f"{line['where']}: {line['answer']!r} / {sample['resps'][0][0]!r}", file=sys.stderr)
        for theirs, ours in keys:
            pairs = [(s[theirs] > 0.5, line[ours]) for s, line in zip(samples, own)]
            print(f"| {task} {theirs} | {len(pairs)} | {otherwise} | {sum(a for a, b in pairs)} | {sum(b for a, b in pairs)} | "
                  f"{sum(a != b for a, b in pairs)} | {f'{furthest:.1e}' if likely else ''} |")


if __name__ == "__main__":
    main()
