# `vkmoe train --from-scratch` on plain text, with samples of what the model says: the weights begin as `init` would write them, a resumed run ends with the bits and
# the samples of the undisturbed one, and the plan counts the samples. $VKMOE is the program, the working directory the build folder.
work=test-scratch
. "${BASH_SOURCE%/*}/check.sh"

if ! "$VKMOE" devices >"$work/stdout" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/stdout")"
    exit 77
fi
for i in $(seq 12); do printf 'The %d mice\n\nsat in a row.\n<|endoftext|>\n' "$i"; done >"$work/marked.txt"
sed 's/^<.*$//' "$work/marked.txt" >"$work/blank.txt"
train() { # train STATUS MODEL OUT FLAGS...
    local status=$1 model=$2 to=$3
    shift 3
    run "$status" train "$model" --out "$work/$to" --data "$work/marked.txt" --context 32 --batch 4 --schedule constant "$@"
}
sampled=(--sample-every 2 --sample-prompt $'The\nmice' --sample-tokens 8)
train 0 tiny-moe whole --from-scratch --seed 7 --steps 4 "${sampled[@]}" --dry-run --json
says "$err" "data: 12 examples"
bytes=$(grep -o '"total": [0-9]*' <<<"$out" | tr -dc 0-9)
VKMOE_MEMORY_MIB=$(((bytes + 1048575) / 1048576)) train 0 tiny-moe whole --from-scratch --seed 7 --steps 4 "${sampled[@]}"
says "$err" "sample after step 2:"
[[ $(grep -c '^step ' "$work/whole/samples.txt") == 3 && $(grep -c '^  mice' "$work/whole/samples.txt") == 3 ]]
note $? "not three samples of two lines: $(cat "$work/whole/samples.txt")"
train 0 tiny-moe cut --from-scratch --seed 7 --steps 2 "${sampled[@]}"
printf 'step 3\n  gone\n\n' >>"$work/cut/samples.txt" # of a step that is done again
train 0 tiny-moe cut --from-scratch --seed 7 --steps 4 "${sampled[@]}" --resume
cmp -s "$work/whole/model.safetensors" "$work/cut/model.safetensors"
note $? "a resumed run from scratch ends with other bits"
diff <(grep . "$work/whole/samples.txt") <(grep . "$work/cut/samples.txt") >"$work/stdout"
note $? "a resumed run says something else: $(cat "$work/stdout")"
printf st >"$work/cut/samples.txt" # what a power cut may leave of it
train 0 tiny-moe cut --from-scratch --seed 7 --steps 4 "${sampled[@]}" --resume
[[ ! -s $work/cut/samples.txt ]]
note $? "the beginning of a sample is left: $(cat "$work/cut/samples.txt")"

# The same as init and train, by the preset or by the config of a model; another seed is another model.
run 0 init --preset tiny-moe --out "$work/model" --seed 7
train 0 "$work/model" after --lr 6e-4 --steps 4 --seed 7
cmp -s "$work/whole/model.safetensors" "$work/after/model.safetensors"
note $? "init and train end with other bits than --from-scratch"
run 0 init --preset tiny-moe --out "$work/other" --seed 9
train 0 "$work/other" config --from-scratch --seed 7 --steps 4
cmp -s "$work/whole/model.safetensors" "$work/config/model.safetensors"
note $? "a config alone ends with other bits than its preset"
train 1 "$work/other" config --from-scratch --seed 8 --steps 5 --resume
says "$err" "is of another run"

# Blank lines separate where there is no mark; and what cannot be.
run 0 data "$work/blank.txt" --model "$work/model" --json
says "$out" '"examples": 24'
refused 2 "--method full" train tiny-moe --from-scratch --method lora --data "$work/marked.txt" --out "$work/new"
refused 2 "needs --from-scratch" train "$work/model" --tokenizer "$work/model" --data "$work/marked.txt" --out "$work/new"
refused 1 "give --sample-prompt" train tiny-moe --from-scratch --data "$work/marked.txt" --out "$work/new" --sample-every 1
refused 1 "none is left for a sample" train tiny-moe --from-scratch --data "$work/marked.txt" --out "$work/new" --sample-every 1 \
    --context 8 --sample-prompt "123456789"
refused 1 "no-such" train no-such --from-scratch --data "$work/marked.txt" --out "$work/new"

# The model card: names as they are but harmless, the bytes that were read, no base where there is none, the command.
odd=$work/$'a "b`|<i>\n.txt'
cp "$work/marked.txt" "$odd"
run 0 train "$work/model" --data "$odd" --out "$work/card" --context 32 --steps 1 --validation-split 0.2 --method lora
card=$(cat "$work/card/README.md")
says "$card" "base_model: \"$work/model\""
says "$card" "base_model_relation: adapter"
says "$card" "library_name: peft"
says "$card" '`` a "b`\|<i>'$'\xef\xbf\xbd''.txt `` | `training, 10 examples'
says "$card" "$(sha256sum <"$odd" | cut -d ' ' -f 1)"
says "$card" 'a "b`|<i>\x0a.txt'
loss=$(sed -n 's/.*"loss": \([0-9]*\.[0-9]*\), .*/\1/p' "$work/card/metrics.jsonl")
says "$card" "| \`first step\` | \`$(printf %.4f "$loss")\` |"
says_not "$(cat "$work/whole/README.md")" base_model

# The best model by the held-out loss, which a learning rate this large makes worse sooner or later: that of a run that ends there, and of one that was
# interrupted.
printf 'zebra quilt\n' >"$work/held.txt"
held() { # held STATUS OUT FLAGS...
    local to=$2
    run "$1" train "$work/model" --data "$work/marked.txt" --validation "$work/held.txt" --out "$work/$to" --context 32 --batch 4 --lr 0.05 "${@:3}"
}
held 0 best --steps 4 --validate-every 1 --keep-best
says "$err" "(kept: "
step=$(sed -n 's/.*(kept: .* after step \([0-9]*\)).*/\1/p' <<<"$err")
lowest=$(sed -n 's/.*"step": \([1-9][0-9]*\), .*"validation_loss": \([0-9.]*\).*/\2 \1/p' "$work/best/metrics.jsonl" | sort -n | head -n 1)
[[ $step == "${lowest#* }" && $step != 4 ]]
note $? "step $step was kept; lowest: $lowest of $(cat "$work/best/metrics.jsonl")"
held 0 kept --steps "$step"
cmp -s "$work/best/model.safetensors" "$work/kept/model.safetensors"
note $? "the model that was kept is not that of step $step"
held 0 again --steps 3 --validate-every 1 --keep-best
held 0 again --steps 4 --validate-every 1 --keep-best --resume
cmp -s "$work/best/model.safetensors" "$work/again/model.safetensors"
note $? "a resumed run keeps another model"

# Cut off between the model of a new lowest loss and the next checkpoint, a run goes on from where the one before was the best, which must still be
# there. The losses are those that the metrics are made to say.
turn() { # turn STEPS
    held 0 turn --steps "$1" --validate-every 1 --keep-best --resume
}
say_held() { # say_held STEP LOSS
    sed -i "/\"step\": $1,/s/\(\"validation_loss\": \)[-+.e0-9]*/\1$2/" "$work/turn/metrics.jsonl"
}
turn 1
cp "$work/turn/model.safetensors" "$work/first"
say_held 1 0.001
turn 2
say_held 1 98
say_held 2 99
turn 3
says "$err" "after step 3)"
rm -r "$work/turn/checkpoint-3" "$work/turn/config.json" "$work/turn/model.safetensors"
turn 2
cmp -s "$work/turn/model.safetensors" "$work/first"
note $? "a run that was cut off behind a better model than it goes on from keeps another"
# Where it is lost after all, that is told, and the others are chosen from: here the last alone.
rm -r "$work/turn/best"
turn 2
says "$err" "the model after step 1, whose held-out loss was the lowest, is not there"
held 0 plain --steps 2
cmp -s "$work/turn/model.safetensors" "$work/plain/model.safetensors"
note $? "without the copy of the best model the last is not the result"
# Losses on other examples do not count: here that of the best step so far, which is made the lowest by far.
held 0 changed --steps 2 --validate-every 1 --keep-best
step=$(sed -n 's/.*(kept: .* after step \([0-9]*\)).*/\1/p' <<<"$err")
sed -i '/"step": '"$step"',/s/\("validation_loss": \)[-+.e0-9]*/\10.001/' "$work/changed/metrics.jsonl"
cp -r "$work/changed" "$work/unchanged"
held 0 unchanged --steps 3 --validate-every 1 --keep-best --resume
says "$err" "(kept: 0.0010 after step $step)"
says_not "$err" "other examples"
printf 'another quilt\n' >"$work/held.txt"
held 0 changed --steps 3 --validate-every 1 --keep-best --resume
says "$err" "held-out losses up to step 2 are of other examples"
says "$err" "after step 3)"
says "$(grep 'held out, lowest' "$work/changed/README.md")" "after step 3"
sed 's/, "validation_data": "[0-9a-f]*"//' -i "$work/unchanged/metrics.jsonl" # as it was written before
held 0 unchanged --steps 4 --validate-every 1 --keep-best --resume
says "$err" "(kept: 0.0010 after step $step)"
# What decides is written to the last bit.
grep -q '"validation_loss": [0-9.]\{12,\}' "$work/best/metrics.jsonl"
note $? "held-out losses are rounded: $(grep validation_loss "$work/best/metrics.jsonl")"
refused 2 "--validate-every" train "$work/model" --data "$work/marked.txt" --out "$work/new" --keep-best
rm -rf "$work"
finish
