#!/usr/bin/env python3
"""Renders a few conversations with the published chat templates beside this file (*.jinja, as the models' tokenizer_config.json have
them), the way transformers does: jinja2's sandbox with trim_blocks and lstrip_blocks. Writes cases.json."""
import datetime, glob, json, os

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = {  # beginning and end of a sequence
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "chatml": ("<|endoftext|>", "<|im_end|>"), "qwen2": ("<|endoftext|>", "<|im_end|>"),
}


def say(*words):
    talk, roles = [], ("user", "assistant")
    if words[0] is not None and words[0].startswith("!"):
        talk.append({"role": "system", "content": words[0][1:]})
        words = words[1:]
    return talk + [{"role": roles[i % 2], "content": w} for i, w in enumerate(words)]


TALKS = [
    say("Hello"),
    say("!You are brief.", "What is 12 * 12?"),
    say("What is 12 * 12?", "144"),
    say("!You are brief.", "What is 12 * 12?", "144", "Thanks!", "You're welcome.\n\nAnything else?"),
    say("你好，世界！", "你好！有什么可以帮你？", "写一首诗。"),
    say("!你是一个助手。\n请用中文回答。", "水车在哪里？", "在河边。"),
    say("  spaces around  \n", " and here \t", "def f(x):\n    return x\n", "\tx = 1\n"),
    say("!  a system with blanks \n", "  leading", "trailing  "),
    say("1", "2", "3", "4", "5"),
    [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}],
    [{"role": "user", "content": "one"}, {"role": "system", "content": "late"}, {"role": "user", "content": "two"}],
    [{"role": "system", "content": "alone"}],
]


def stop(message):
    raise TemplateError(message)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = stop
    environment.globals["strftime_now"] = lambda format: datetime.datetime(2024, 7, 26).strftime(format)
    cases = []
    for path in sorted(glob.glob(os.path.join(HERE, "*.jinja"))):
        name = os.path.basename(path)[:-6]
        with open(path, encoding="utf-8", newline="") as f:
            template = environment.from_string(f.read())
        bos, eos = next((TOKENS[k] for k in TOKENS if name.startswith(k)), ("<s>", "</s>"))
        for talk in TALKS:
            for prompt in (False, True):
                try:
                    text = template.render(messages=talk, add_generation_prompt=prompt, bos_token=bos, eos_token=eos)
                except TemplateError:
                    text = None
                cases.append({"template": name, "messages": talk, "prompt": prompt, "bos": bos, "eos": eos, "text": text})
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
