# The memory of training on the command line: what a 16B model takes by method, the nearest plan where a run does not fit, and that where
# things lie and when they are updated changes no bit of the result, across a resume too. $VKMOE is the program, the working directory the build folder.
work=test-plan
. "${BASH_SOURCE%/*}/check.sh"

echo '{"text": "a text of some words"}' >"$work/one.jsonl"
plan() { # plan STATUS MEMORY FLAGS...: of DeepSeekMoE 16B
    local status=$1 memory=$2
    shift 2
    run "$status" train deepseek-moe-16b --data "$work/one.jsonl" --out "$work/none" --dry-run --assume-memory "$memory" "$@"
}
# Whole 16 GB and so on, not GiB.
plan 0 16GB --method qlora --type q4_k --context 2048 --moments 8bit
plan 0 16GiB --method qlora --type q4_k --context 2048
plan 0 20GB --method qlora --type q4_k --context 4096
plan 0 48GB --method lora --type bf16 --context 4096
plan 0 50GB --method esft --type bf16 --context 4096 --esft-threshold 0.1249 --moments 8bit # 8 of 64 experts
plan 0 141GB --type bf16 --moments 8bit --context 4096
plan 0 80GB --type bf16 --moments 8bit --context 4096 --batch 1 --optimizer-in-backward on
plan 0 48GB --type bf16 --context 4096 --batch 1 --optimizer-in-backward on --offload moments
says "$err" "host: moments"
plan 0 24GB --type bf16 --context 4096 --batch 1 --optimizer-in-backward on --offload moments,weights --json
says "$out" '"host_weights": '
# The table in docs/training.md has the totals of today.
rows=0
while IFS='|' read -r _ method context flags _ _ _ _ total card _; do
    # shellcheck disable=SC2086
    plan 0 "${card// /}" --method "${method,,}" --context "$context" --micro-batch 1 $flags
    [[ $err =~ on\ the\ device\ +$total\ GiB ]]
    note $? "docs/training.md: $method, $flags: not $total GiB: $err"
    rows=$((rows + 1))
done < <(grep -E '^\| (QLoRA|LoRA|ESFT|full) \| [0-9]+ \|' "$VKMOE_SOURCE_DIR/docs/training.md" | tr -d '`' | sed 's/ *| */|/g')
[[ $rows == 9 ]]
note $? "docs/training.md: $rows rows in the table of memory"
# What does not fit is refused with a run that does: its flags are taken at their word, in the place of those that were given.
nearest() { # nearest MEMORY FLAGS...
    plan 1 "$@"
    [[ $err == *" has "*"this one fits ("*"): --"* ]]
    note $? "$*: no nearest plan: $err"
    [[ $(grep '^vkmoe: ' <<<"$err" | grep -vc '^vkmoe: warning: ') == 1 ]] # what a plan that was tried lacked is no answer
    note $? "$*: not one complaint: $err"
    local flags=(${err##*):}) kept=("$1")
    shift
    while (($#)); do
        [[ " ${flags[*]} " == *" $1 "* ]] || kept+=("$1" "$2")
        shift 2
    done
    plan 0 "${kept[@]}" "${flags[@]}"
}
nearest 16GB --method qlora --type q4_k --context 4096
nearest 80GB --type bf16 --moments 8bit --batch 1 --context 4096
nearest 48GB --batch 1 --context 4096 --micro-batch 8 --recompute off
nearest 24GB --context 4096 --batch 32 # tries the rows of a whole step, which are above an allocation
nearest 4GB --type bf16 --batch 1
# Batches whose steps are far too many tokens for the update in the backward: a plan or figures, whatever the memory.
for memory in 24GB 48GB 80GB 141GB 200GB; do
    nearest "$memory" --recipe deepseekmoe-sft
done
plan 0 300GB --recipe deepseekmoe-sft
plan 1 80GB --recipe deepseekmoe-sft --optimizer-in-backward on
says "$err" "a step of this run takes 1024 rows of 4096 tokens, of which this model can take at most 21 at once"
plan 1 80GB --recipe deepseekmoe-sft --micro-batch 22
says "$err" "--micro-batch 22: a step of this model can take at most 21 rows of 4096 tokens"
plan 1 300GB --recipe deepseekmoe-sft --micro-batch 65536
plan 0 400GB --recipe deepseekmoe-sft --micro-batch 21 # as told
plan 1 10MiB
says "$err" "nothing near it fits"
[[ ! -e $work/none ]]
note $? "a plan left a folder"
plan 2 muchGB
says "$err" "--assume-memory muchGB: an amount is expected"
plan 2 16
says "$err" "--assume-memory 16: less than 1 MiB: a unit is missing, as in 16GiB or 24GB"
run 2 train deepseek-moe-16b --data "$work/one.jsonl" --out "$work/none" --assume-memory 16GB
says "$err" "--assume-memory needs --dry-run"

if ! "$VKMOE" devices >"$work/stdout" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/stdout")"
    exit 77
fi
for step in "tiny --micro-batch 40000 --context 512" "deepseek-moe-16b --micro-batch 512 --context 4096"; do
    # shellcheck disable=SC2086
    run 1 bench train $step
    says "$err" "a step of this model can take at most "
    says_not "$err" "Assertion"
done
run 0 init --preset tiny-moe --out "$work/model" --seed 3 --type bf16
for i in $(seq 12); do
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"ho $i\"}]}"
done >"$work/data.jsonl"
train() { # train STATUS OUT FLAGS...
    local status=$1 out_dir=$2
    shift 2
    run "$status" train "$work/model" --data "$work/data.jsonl" --out "$work/$out_dir" --context 64 --batch 4 --steps 4 --lr 1e-3 \
        --type bf16 "$@"
}
same() { # same WHAT DIR: the result has the bits of the plain run
    cmp -s "$work/plain/model.safetensors" "$work/$2/model.safetensors"
    note $? "$1: another result"
}
train 0 plain
[[ $err == *"micro-batch: 4 rows of 64 tokens"* ]]
note $? "the rows that were chosen: $err"
train 0 back --optimizer-in-backward on
says "$err" "takes a second forward and backward"
# Rows of this run's largest step, which are not those that the plain run had.
rows=$(sed -n 's/^micro-batch: \([0-9]*\) rows.*/\1/p' <<<"$err")
[[ $rows -ge 1 && $rows -le 4 ]]
note $? "rows in the backward: $rows"
same "in the backward" back
VKMOE_OFF=host_visible train 0 away --offload moments,weights --optimizer-in-backward on
same "everything in host memory, staged" away
# Half of it with moments in host memory, half without.
VKMOE_OFF=host_visible train 0 half --offload moments --save-every 2 --keep 9
rm -rf "$work/half/checkpoint-4" "$work/half/model.safetensors" "$work/half/config.json"
train 0 half --resume --micro-batch auto
same "resumed without --offload" half
run 1 train "$work/model" --data "$work/data.jsonl" --out "$work/bad" --context 32 --batch 12 --micro-batch 1 \
    --optimizer-in-backward on
says "$err" "give --micro-batch "
train 2 bad --offload all
says "$err" "--offload: 'all' is none of none, moments, weights"
for flags in "--method lora --lora-targets foo" "--columns prompt" "--data-weights 2,3"; do
    # shellcheck disable=SC2086
    train 2 bad $flags
    one_line
done
train 2 bad --micro-batch 0
says "$err" "--micro-batch 0: rows from 1 to 65536, or auto, are expected"
[[ ! -e $work/bad ]]
note $? "a refused run left a folder"

# What is told of a run is the run's: kernels that are tried on a known answer meanwhile, as at the first use, take memory of their own.
peak() {
    VKMOE_CACHE=$work/cache run 0 bench train tiny-moe --context 64 --steps 1 --json
    grep -o '"peak_mib": [0-9.]*' <<<"$out"
}
peaks=$(peak; peak)
[[ $(wc -l <<<"$peaks") == 2 && $(sort -u <<<"$peaks" | wc -l) == 1 ]]
note $? "the first use and the second: $peaks"
# A rate is told of what is counted: attention over a cache sees what is there by then, which the device alone knows.
VKMOE_PROFILE=1 run 0 generate "$work/model" -p "one two" -n 3 --context 64
grep -qE '^attention_decode[a-z0-9_]* .* - +-$' <<<"$err"
note $? "attention's rate in '$err'"
grep -qE '^rope .* [0-9.]+ +[0-9.]+$' <<<"$err"
note $? "the rotation's rate in '$err'"

rm -rf "$work"
finish
