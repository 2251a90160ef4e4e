#!/usr/bin/env bash
# A model with a SentencePiece vocabulary through the whole program: init from each kind of file, the same ids from all of them and
# after conversion either way, generate, chat in a pipe, a few training steps; a chat template by name and from a file.
set -euo pipefail
golden=$VKMOE_SOURCE_DIR/tests/golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fails=0
fail() {
    echo "FAILED: $*" >&2
    fails=$((fails + 1))
}
text=$'  The mill stood\tby the river, \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 </s>1984 "x"'
ids() { "$VKMOE" tokenize "$1" -p "$text" --special --json; }

expected=$(ids "$golden/tokenizer/llama2/tokenizer.json")
[[ $(ids "$golden/tokenizer/llama2/tokenizer.model") == "$expected" ]] || fail "tokenizer.model has other ids"
mkdir bare
cp "$golden/tokenizer/llama2/tokenizer.model" bare/llama.model
for from in "$golden/tokenizer/llama2/tokenizer.json" bare/llama.model; do
    for out in folder file.gguf; do
        rm -rf folder file.gguf back again.gguf
        "$VKMOE" init --preset tiny --tokenizer "$from" --out "$out" 2>log || fail "init: $(<log)"
        [[ $(ids "$out") == "$expected" ]] || fail "$from to $out: other ids"
        if [[ $out == folder ]]; then
            "$VKMOE" convert folder --out again.gguf 2>log || fail "convert: $(<log)"
            [[ $(ids again.gguf) == "$expected" ]] || fail "$from to $out to gguf: other ids"
        else
            "$VKMOE" convert file.gguf --out back 2>log || fail "convert: $(<log)"
            [[ $(ids back) == "$expected" ]] || fail "$from to $out to a folder: other ids"
        fi
    done
done
for name in deepseek-coder deepseek-v3 llama-bpe qwen2; do # byte-level ones: to GGUF and back
    of=$golden/tokenizer/$name/tokenizer.json
    "$VKMOE" init --preset tiny --tokenizer "$of" --out "$name.gguf" 2>log || fail "init: $(<log)"
    # What GGUF has no place for is told: `normalized` counts beside a normalizer alone.
    told=$(grep -c warning log || true)
    [[ $name == qwen2 ]] || [[ $told == 0 ]] || fail "$name: told is: $(<log)"
    [[ $name != qwen2 ]] || grep -q 'normalized (an added token is looked for in normalized text) has no place .* with "ö", "÷", "<tool>"' log ||
        fail "$name: told is: $(<log)"
    "$VKMOE" convert "$name.gguf" --out "$name" 2>log || fail "convert: $(<log)"
    [[ $(ids "$name.gguf") == "$(ids "$of")" && $(ids "$name") == "$(ids "$of")" ]] || fail "$name: other ids"
done

sed '0,/"lstrip": false/s//"lstrip": true/; 0,/"rstrip": false/s//"rstrip": true/' "$golden/tokenizer/smollm/tokenizer.json" >tokenizer.json
"$VKMOE" init --preset tiny --tokenizer tokenizer.json --out lost.gguf 2>log || fail "init: $(<log)"
grep -q 'lstrip (an added token takes the blanks before it along) has no place in GGUF' log &&
    grep -q 'rstrip (an added token takes the blanks behind it along) has no place in GGUF' log || fail "lstrip and rstrip are lost: $(<log)"

# A model that talks: the template is LLaMA 2's own text.
rm -rf folder
cp "$golden/templates/llama2.jinja" bare/chat_template.jinja
"$VKMOE" init --preset tiny --tokenizer bare/llama.model --out folder 2>log || fail "init: $(<log)"
ls folder >list
grep -q chat_template.jinja list && grep -q tokenizer.model list || fail "files: $(<list)"
"$VKMOE" generate folder -p "The mill" -n 4 --temperature 0 >said 2>log || fail "generate: $(<log)"
"$VKMOE" generate folder --chat -p "Hello" -n 4 --temperature 0 >said 2>log || fail "generate --chat: $(<log)"
printf 'Hello\nAgain\n' | "$VKMOE" chat folder --temperature 0 -n 4 >said 2>log || fail "chat: $(<log)"
cat >data.jsonl <<'END'
{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "By the river."}]}
{"messages": [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "It turns."}]}
END
"$VKMOE" train folder --data data.jsonl --out tuned --steps 2 --batch 2 --context 128 >out 2>&1 || fail "train: $(tail -n 3 out)"
grep -qF '<<SYS>>' out || fail "the sample shows no system message: $(<out)"
grep -qF '[[ By the river. </s>]]' out || fail "not the answer alone is trained: $(<out)"
[[ $(ids tuned) == "$expected" ]] || fail "the trained model has other ids"

# Training, generate, chat and score read the same tokens, the begin of sequence once: a text with its end is learnt from, and so is a question.
number() { grep -oE "\"$1\": [0-9]+" | grep -oE '[0-9]+$' | head -n 1; }
printf 'The mill' >text
echo '{"text": "The mill"}' >text.jsonl
echo '{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes"}]}' >chat.jsonl
learnt=$(($("$VKMOE" data text.jsonl --model folder --json 2>log | number tokens) - 1))
asked=$("$VKMOE" data chat.jsonl --model folder --json 2>log | number untrained_tokens)
bare=$("$VKMOE" tokenize folder -p "The mill" --bos --json | grep -oE '[0-9]+' | wc -l)
read=$("$VKMOE" generate folder -p "The mill" -n 1 --json 2>log | number prompt_tokens)
read_chat=$("$VKMOE" generate folder --chat -p Hello -n 1 --json 2>log | number prompt_tokens)
said=$(echo Hello | "$VKMOE" chat folder -n 1 2>&1 >out | grep -oE 'prompt [0-9]+' | tr -dc 0-9)
scored=$(($("$VKMOE" score folder --file text --json 2>log | number tokens) + 1))
[[ "$learnt $bare $scored $read" == "3 3 3 3" ]] || fail "training reads $learnt tokens of a text, tokenize $bare, score $scored, generate $read"
[[ $asked -gt 3 && "$read_chat $said" == "$asked $asked" ]] ||
    fail "training reads $asked tokens of a question, generate $read_chat, chat $said"

# added_tokens.json beside a tokenizer.model: known to the configuration, or refused.
echo '{"<pad>": 900}' >bare/added_tokens.json
if "$VKMOE" tokenize bare/llama.model -p x 2>log; then fail "an added token that nothing describes is taken"; fi
grep -q "'<pad>' is not in added_tokens_decoder" log || fail "message: $(<log)"
echo '{"added_tokens_decoder": {"900": {"content": "<pad>", "special": true}}}' >bare/tokenizer_config.json
[[ $("$VKMOE" tokenize bare/llama.model -p '<pad>' --special --json) == '{"ids": [900]}' ]] || fail "<pad> is not 900"
echo '{"added_tokens_decoder": {"900": {"content": "<pad>", "special": true, "rstrip": true}}}' >bare/tokenizer_config.json
"$VKMOE" init --preset tiny --tokenizer bare/llama.model --out pad.gguf 2>log || fail "init: $(<log)"
grep -q 'rstrip (.*) has no place in GGUF; .* with "<pad>"' log || fail "rstrip is lost: $(<log)"
rm bare/added_tokens.json bare/tokenizer_config.json

# Templates by name, from a file, and neither.
printf 'vkmoe-template 1\nuser "Q: {text}\\n"\nprompt "A:"\nanswer " {text}{eos}"\n' >mine
for template in plain llama2 zephyr mistral mine; do
    "$VKMOE" generate folder --chat --template "$template" -p "Hello" -n 2 --temperature 0 >said 2>log || fail "$template: $(<log)"
done
# A template that training was given goes with what it makes, and with what is made of that; a flag wins all the same.
count() { "$VKMOE" generate "$@" --chat -p Hello -n 1 --json 2>log | number prompt_tokens; }
wanted=$(count folder --template mine) usual=$(count folder)
for method in full lora; do
    "$VKMOE" train folder --data chat.jsonl --out "$method" --method $method --template mine --steps 1 --lr 0.01 --batch 2 --context 128 >out 2>&1 ||
        fail "train: $(tail -n 3 out)"
    grep -qF '| `chat template` | `mine, in chat.template` |' "$method/README.md" || fail "$method: the card does not name the template"
done
cp mine kept && rm mine
"$VKMOE" convert full --out full.gguf 2>log || fail "convert: $(<log)"
for merged in merged merged.gguf; do
    "$VKMOE" merge folder --adapter lora --out $merged --type f32 2>log || fail "merge: $(<log)"
done
"$VKMOE" train merged --data chat.jsonl --out again --steps 1 --batch 2 --context 128 >out 2>&1 || fail "train: $(tail -n 3 out)"
for model in full full.gguf "folder --adapter lora" merged merged.gguf again; do
    [[ $(count $model) == "$wanted" ]] || fail "$model: $(count $model) tokens ask, not $wanted ($usual by the base's template): $(<log)"
done
[[ $wanted != "$usual" && $(count full --template llama2) == "$usual" ]] || fail "--template does not win"
[[ $("$VKMOE" data chat.jsonl --model full --json 2>log | number untrained_tokens) == "$wanted" ]] || fail "data reads by another template"
if "$VKMOE" quantize full --out full.gguf --type q8_0 2>log; then fail "full.gguf is written over"; fi
rm full.gguf
if "$VKMOE" quantize full --out full.gguf --type q8_0 2>log; then fail "full.chat.template is written over"; fi
grep -q "full.chat.template: exists already" log || fail "message: $(<log)"
mv kept mine

if "$VKMOE" generate folder --chat --template none -p x 2>log; then fail "--template none is taken"; fi
grep -q "there is no chat template or file 'none'" log || fail "message: $(<log)"
echo '{{ messages }}' >bare/chat_template.jinja
"$VKMOE" init --preset tiny --tokenizer bare/llama.model --out other 2>log || fail "init: $(<log)"
if "$VKMOE" generate other --chat -p x 2>log; then fail "an unknown template is taken"; fi
grep -q "the model's chat template '{{ messages }}.*' (fingerprint" log || fail "message: $(<log)"
# In training it is missed where a conversation comes, and by texts never.
learn() { "$VKMOE" train other --out learnt --steps 1 --batch 2 --context 128 --data "$@" >out 2>&1; }
printf '{"text": "abc"}\n{"prompt": "a", "completion": "b"}\n' >texts.jsonl
printf '{"prompt": "a", "chosen": "b", "rejected": "c"}\n' >pairs.jsonl
learn texts.jsonl && [[ ! -e learnt/chat.template ]] || fail "texts need no template: $(<out)"
if grep -q "chat template" learnt/README.md; then fail "a template that laid nothing out is named"; fi
rm -r learnt
learn pairs.jsonl --loss dpo || fail "pairs of texts need no template: $(<out)"
rm -r learnt
"$VKMOE" data texts.jsonl --model other >out 2>&1 || fail "data of texts needs no template: $(<out)"
cat texts.jsonl chat.jsonl >both.jsonl
if learn both.jsonl --skip-bad; then fail "a conversation is laid out by an unknown template"; fi
grep -q "both.jsonl:3: other: the model's chat template '{{ messages }}.*' (fingerprint" out || fail "message: $(<out)"
if "$VKMOE" data both.jsonl --model other >out 2>&1; then fail "data lays a conversation out by an unknown template"; fi
learn both.jsonl --template plain || fail "train --template: $(<out)"
rm -r learnt
# A model without any: plain is taken, and told where it lays something out.
rm bare/chat_template.jinja
"$VKMOE" init --preset tiny --tokenizer bare/llama.model --out mute 2>log || fail "init: $(<log)"
told() { grep -c "warning: mute names no chat template: plain is used; --template chooses another" log; }
for use in "generate mute --chat" "chat mute" "train mute --out learnt --dry-run --data chat.jsonl" "data chat.jsonl --model mute"; do
    [[ $use == generate* ]] && use+=" -p x"
    "$VKMOE" $use >out 2>log </dev/null || fail "$use: $(<log)"
    [[ $(told) == 1 ]] || fail "$use: $(<log)"
    "$VKMOE" $use --template plain >out 2>log </dev/null || fail "$use: $(<log)"
    [[ $(told) == 0 ]] || fail "$use: a template that was chosen is warned of: $(<log)"
done
for use in "generate mute -p x" "train mute --out learnt --dry-run --data texts.jsonl" "data texts.jsonl --model mute"; do
    "$VKMOE" $use >out 2>log || fail "$use: $(<log)"
    [[ $(told) == 0 ]] || fail "$use: $(<log)"
done
"$VKMOE" train folder --out learnt --steps 1 --batch 2 --context 128 --data chat.jsonl --dry-run --json >out 2>log || fail "train: $(<log)"
grep -qx "chat template: llama2" log && grep -q '"chat_template": "llama2"' out || fail "the plan: $(cat log out)"
"$VKMOE" train folder --out learnt --steps 1 --batch 2 --context 128 --data chat.jsonl >out 2>&1 || fail "train: $(<out)"
grep -qF "| \`chat template\` | \`llama2, the model's own\` |" learnt/README.md || fail "the card: $(grep template learnt/README.md)"
grep -A 1 '"chat template"' learnt/recipe.json | grep -q "llama2, the model's own" || fail "the record: $(<learnt/recipe.json)"
((fails == 0)) && echo "ok"
