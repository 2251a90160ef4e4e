# The methods of `vkmoe train` as their user meets them, on a tiny random model: each resumes to the bits of the undisturbed run within the
# memory that --dry-run stated, and what a method cannot do is refused with one line. $VKMOE is the program.
work=test-methods
. "${BASH_SOURCE%/*}/check.sh"

if ! "$VKMOE" devices >"$work/stdout" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/stdout")"
    exit 77
fi
run 0 init --preset tiny-moe --out "$work/model" --seed 3
run 0 convert "$work/model" --out "$work/model.gguf" --type q4_0
for i in $(seq 24); do
    question="what is $i plus $((i * 7 % 13))?" answer=" It is $((i + i * 7 % 13))."
    echo "{\"prompt\": \"$question\", \"completion\": \"$answer\"}"
    echo "{\"prompt\": \"$question\", \"chosen\": \"$answer\", \"rejected\": \" No.\"}" >&3
done >"$work/data.jsonl" 3>"$work/pairs.jsonl"
data=$work/data.jsonl
train() { # train STATUS MODEL OUT FLAGS...
    local status=$1 model=$2 to=$3
    shift 3
    run "$status" train "$work/$model" --out "$work/$to" --data "$data" --context 64 --batch 6 --lr 1e-3 "$@"
}
hash_of() { # of the result in a folder
    cat "$work/$1/"*.safetensors 2>/dev/null | sha256sum
}

methods=(
    "model --method full --type bf16 --moments 8bit"
    "model --method lora --rslora --lora-rank 4 --lora-targets all,gate"
    "model.gguf --method qlora"
    "model --method qlora --type q6_k"
    "model --method esft --esft-threshold 0.5 --moments 8bit"
    "model --method esft --esft-score gate --esft-only"
    "model.gguf --method qlora --lora-experts-share 0.25"
    "model.gguf --method qlora --loss dpo --dpo-beta 0.3 --validation-split 0.2"
)
for method in "${methods[@]}"; do
    read -r model flags <<<"$method"
    [[ $flags == *dpo* ]] && data=$work/pairs.jsonl
    # shellcheck disable=SC2086
    {
        train 0 "$model" whole $flags --steps 4 --dry-run --json
        bytes=$(grep -o '"total": [0-9]*' <<<"$out" | tr -dc 0-9)
        VKMOE_MEMORY_MIB=$(((bytes + 1048575) / 1048576)) train 0 "$model" whole $flags --steps 4
        train 0 "$model" cut $flags --steps 2
        train 0 "$model" cut $flags --steps 4 --resume
    }
    [[ -n $(ls "$work"/whole/*.safetensors 2>/dev/null) && $(hash_of whole) == "$(hash_of cut)" ]]
    note $? "$method: a resumed run ends with other bits"
    cmp -s "$work/whole/expert_cfg.json" "$work/cut/expert_cfg.json" || [[ ! -e $work/whole/expert_cfg.json ]]
    note $? "$method: a resumed run has another list of experts"
    if [[ -e $work/whole/adapter_config.json ]]; then
        run 0 score "$work/$model" --adapter "$work/whole" --file "$work/data.jsonl" --limit 100
    fi
    rm -rf "$work/whole" "$work/cut"
done

data=$work/data.jsonl

# An adapter is trained further: it begins as it is, keeps what it was made with, and where it is on some experts goes on with these.
figure() { # of the JSON that a run prints
    grep -o "\"$1\": [0-9.e+-]*" <<<"$out" | sed 's/.*: //'
}
for flags in "--lora-rank 5 --lora-alpha 7 --rslora --lora-targets q_proj,mlp,gate" "--lora-experts-share 0.3"; do
    # shellcheck disable=SC2086
    train 0 model.gguf first --method qlora $flags --steps 3 --validation "$data" --json
    after=$(figure validation_after)
    run 0 train "$work/model.gguf" --out "$work/same" --data "$data" --context 64 --batch 6 --lr 0 --method qlora --adapter "$work/first" \
        --steps 1 --validation "$data" --json
    [[ -n $after && $(figure validation_before) == "$after" ]]
    note $? "$flags: the held-out loss was $after and is $(figure validation_before)"
    says "$err" "trained further: the adapter $work/first, rank "
    grep -qF "the adapter $work/first" "$work/same/README.md"
    note $? "the card does not name the adapter"
    [[ $(hash_of first) == "$(hash_of same)" ]] && cmp -s "$work/first/adapter_config.json" "$work/same/adapter_config.json"
    note $? "$flags: without learning the adapter is another: $(cat "$work/first/adapter_config.json" "$work/same/adapter_config.json")"
    [[ ! -e $work/first/expert_cfg.json ]] || cmp "$work/first/expert_cfg.json" "$work/same/expert_cfg.json"
    note $? "$flags: other experts are trained"
    data=$work/pairs.jsonl
    train 0 model.gguf whole --method qlora --adapter "$work/first" --loss dpo --steps 3
    [[ $(head -n 1 "$work/whole/metrics.jsonl" | grep -o '"loss": [0-9.]*') == '"loss": 0.693147' ]]
    note $? "the reference is not the model with its adapter: $(head -n 1 "$work/whole/metrics.jsonl")"
    train 0 model.gguf cut --method qlora --adapter "$work/first" --loss dpo --steps 2
    train 0 model.gguf cut --method qlora --adapter "$work/first" --loss dpo --steps 3 --resume
    [[ $(hash_of whole) == "$(hash_of cut)" && $(hash_of whole) != "$(hash_of first)" ]]
    note $? "$flags: a resumed run of an adapter that goes on ends with other bits"
    train 1 model.gguf cut --method qlora --adapter "$work/whole" --loss dpo --steps 4 --resume
    says "$err" "adapter"
    data=$work/data.jsonl
    [[ $flags == *share* ]] || rm -rf "$work/first"
    rm -rf "$work/same" "$work/whole" "$work/cut"
done
train 2 model.gguf new --method qlora --adapter "$work/first" --lora-rank 8
says "$err" "--adapter and --lora-rank exclude each other"
train 2 model.gguf new --method full --adapter "$work/first"
says "$err" "--adapter needs --method lora or qlora"
train 1 model.gguf new --method qlora --adapter "$work/model"
says "$err" "a whole model is no adapter"

data=$work/pairs.jsonl
# Pairs: before the first step neither answer is preferred; a prompt may be messages; what is no pair is refused with its line.
run 0 train "$work/model" --out "$work/new" --data "$data" --context 64 --batch 6 --lr 0 --loss dpo --steps 1 --validation-split 0.2
[[ $(grep -oE '"(validation_)?loss": [0-9.]*' "$work/new/metrics.jsonl" | sed 's/.*: //' | cut -c 1-8 | sort -u) == 0.693147 ]]
note $? "a loss before training that is not log 2: $(cat "$work/new/metrics.jsonl")"
says "$err" "warning: --lr 0: nothing is learnt"
rm -rf "$work/new"
# What training prefers, it prefers on pairs that were held out too: these are of one kind.
run 0 train "$work/model" --out "$work/new" --data "$data" --context 64 --batch 24 --lr 3e-3 --loss dpo --steps 3 --validation-split 0.2 --json
held=$(tail -n 1 "$work/new/metrics.jsonl" | sed 's/.*"validation_rewards_margin": \([-0-9.]*\), "validation_rewards_accuracy": \([0-9.]*\).*/\1 \2/')
awk '{ exit !(NF == 2 && $1 > 0.01 && $2 > 0.9) }' <<<"$held"
note $? "held-out rewards: $held"
read -r margin accuracy <<<"$held"
says "$out" "\"validation_margin\": $(sed 's/[0-9]\{4\}$//' <<<"$margin")"
says "$out" "\"validation_accuracy\": ${accuracy%%.*}"
grep -qE 'held out 0\.[0-9]+ -> 0\.[0-9]+ \(preferred [0-9]+ %, margin [0-9.]+\)' <<<"$err"
note $? "the held-out line: $err"
grep -q 'validation/rewards_margin' "$work"/new/events.out.tfevents.*
note $? "no held-out rewards in the event file"
rm -rf "$work/new"
# The rewards that are told: nothing at the first step, then a margin that is their difference and grows, as the share of pairs does.
run 0 train "$work/model" --out "$work/new" --data "$data" --context 64 --batch 24 --lr 3e-3 --loss dpo --steps 3
sed 's/.*"rewards_chosen": \([-0-9.]*\), "rewards_rejected": \([-0-9.]*\), "rewards_margin": \([-0-9.]*\), "rewards_accuracy": \([0-9.]*\).*/\1 \2 \3 \4/' \
    "$work/new/metrics.jsonl" | awk '{ d = $1 - $2 - $3; if (d > 2e-6 || d < -2e-6 || NF != 4) bad = 1 }
    NR == 1 && ($3 > 1e-5 || $3 < -1e-5) { bad = 1 } END { exit bad || NR != 3 || $3 < 0.01 || $4 < 0.9 }'
note $? "rewards: $(cat "$work/new/metrics.jsonl")"
grep -q 'train/rewards_margin' "$work"/new/events.out.tfevents.*
note $? "no rewards in the event file"
rm -rf "$work/new"
pair='{"prompt": [{"role": "user", "content": "hi"}], "chosen": "ho", "rejected": "no"}'
echo "$pair" >"$work/pairs.jsonl"
train 0 model new --loss dpo --dry-run
says "$err" "data: 2 examples"
bad() { # bad PART LINE
    printf '%s\n' "$pair" "" "$2" >"$work/pairs.jsonl"
    train 1 model new --loss dpo
    says "$err" "$work/pairs.jsonl:3: "
    says "$err" "$1"
}
bad "'chosen' and 'rejected' are equal" '{"prompt": "a", "chosen": "b", "rejected": "b"}'
bad "'rejected' must be a text" '{"prompt": "a", "chosen": "b"}'
bad "'chosen' must be a text" '{"prompt": "a", "chosen": "", "rejected": "b"}'
bad "'prompt' must be a text" '{"chosen": "b", "rejected": "c"}'
bad "'label' is not known here" '{"prompt": "a", "chosen": "b", "rejected": "c", "label": true}'
data=$work/data.jsonl

# What is frozen takes no memory: a list of one expert a layer of eight, three matrices of 64 x 32 each, weights and moments apart.
list() { # list LAYERS: of expert 2 each
    local sep='' layer
    printf '{"experts": {'
    for layer in $1; do
        printf '%s"%s": [%s]' "$sep" "$layer" "${2:-2}"
        sep=', '
    done
    printf '}, "shared_experts": false, "non_expert_modules": false}'
}
list "1 2 3" >"$work/list.json"
train 0 model new --method esft --esft-config "$work/list.json" --dry-run --json
trained=$(grep -o '"trained_parameters": [0-9]*' <<<"$out" | tr -dc 0-9)
[[ $trained -gt 0 && $((trained % 9)) == 0 ]]
note $? "$trained parameters are trained"
train 0 model new --method esft --esft-config "$work/list.json" --steps 2 --esft-only
[[ $(tr -d '[:space:]' <"$work/new/expert_cfg.json") == "$(list "1 2 3" | tr -d '[:space:]')" ]]
note $? "the list is not kept: $(cat "$work/new/expert_cfg.json")"
[[ $(head -c 20000 "$work/new/esft.safetensors" | grep -ao '"layers\.[0-9]*\.mlp\.experts\.2\.[a-z]*_proj\.weight"' | sort -u | wc -l) == 9 ]]
note $? "esft.safetensors does not hold nine matrices of expert 2"
list "1 2 3" 5 >"$work/other.json"
cp "$work/other.json" "$work/new/expert_cfg.json"
train 1 model new --method esft --esft-config "$work/list.json" --steps 4 --esft-only --resume
says "$err" "trains other experts"
train 1 model new --method esft --steps 4 --esft-only --resume
says "$err" "its choice of experts is not stated"
rm -rf "$work/new"

# Lists that are not this model's.
wrong() { # wrong PART LIST
    echo "$2" >"$work/wrong.json"
    train 1 model new --method esft --esft-config "$work/wrong.json"
    says "$err" "$1"
    says "$err" "$work/wrong.json"
}
wrong 'layer "0" of the list has no routed experts' "$(list "0 1 2 3")"
wrong 'layer "7" of the list has no routed experts' "$(list "1 2 3 7")"
wrong 'layer "01" of the list has no routed experts' "$(list "1 2 3 01")"
wrong "layer 3 has routed experts, and no list" "$(list "1 2")"
wrong "an expert of layer 2 is none of 0 to 7" "$(list "1 3" | sed 's/"3"/"2": [8], "3"/')"
wrong "expert 2 of layer 1 is named twice" "$(list "1 2 3" "2, 2")"
wrong "names nothing to train" "$(list "1 2 3" " ")"
wrong '"experts" must be an object' '{"experts": [1]}'

# An adapter that PEFT does not read is said to be one.
mkdir "$work/shape"
cp "$VKMOE_SOURCE_DIR/tests/golden/olmoe/config.json" "$work/shape"
train 0 shape olmoe --from-scratch --tokenizer "$work/model" --steps 1
for targets in all experts attention; do
    train 0 olmoe "olmoe-$targets" --method lora --lora-targets $targets --steps 1
    [[ $targets != attention ]] && says "$err" "vkmoe merge $work/olmoe --adapter $work/olmoe-$targets" || says_not "$err" "vkmoe merge"
done
train 0 model others --method lora --lora-targets all --steps 1
says_not "$err" "vkmoe merge"

# What a method cannot do.
run 0 init --preset tiny --out "$work/dense"
train 1 dense new --method esft
says "$err" "this model has none"
train 1 dense new --method lora --lora-targets experts
says "$err" "the target experts matches no layer"
train 1 dense new --method lora --lora-experts-share 0.5
says "$err" "no adapter is asked for"
train 1 model new --method qlora
says "$err" "no matrix of the model's layers is quantised"
train 1 model new --method full --type q4_0
says "$err" "training changes f32 or bf16 weights"
train 2 model new --method full --rslora
says "$err" "--rslora needs --method lora or qlora"
train 2 model new --method lora --esft-only
says "$err" "--esft-only needs --method esft"

rm -rf "$work"
finish
