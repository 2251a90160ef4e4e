# `vkmoe train` as its user meets it, on a tiny random model: what is wrong with data, flags or weights is one clear line with file and
# place and leaves nothing behind; and the figures of metrics.jsonl are those that were asked for. $VKMOE is the program, the working
# directory the build folder.
work=test-train
. "${BASH_SOURCE%/*}/check.sh"

gone() { # gone PATH
    [[ ! -e $1 ]]
    note $? "$1 was left behind: $(ls -A "$1" 2>/dev/null)"
}
values() { # values KEY: of metrics.jsonl, one a line
    grep -o "\"$1\": [-+.e0-9]*" "$work/new/metrics.jsonl" | sed 's/.*: //'
}
same() { # same TEXT GOT WANT
    [[ $2 == "$3" ]]
    note $? "$1: '$2', not '$3'"
}

if ! "$VKMOE" devices >"$work/stdout" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/stdout")"
    exit 77
fi
run 0 init --preset tiny-moe --out "$work/model" --seed 3
good='{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}'
for i in $(seq 24); do echo "${good//ho/ho $i}"; done >"$work/data.jsonl"
train() { # train STATUS FLAGS...
    local status=$1
    shift
    run "$status" train "$work/model" --out "$work/new" --context 64 --batch 4 "$@"
}

# A bad line: refused before anything is made.
bad() { # bad PART LINE
    printf '%s\n' "$good" "" "$2" >"$work/bad.jsonl"
    train 1 --data "$work/bad.jsonl"
    [[ $err == "vkmoe: "* && $err != *$'\n'* ]]
    note $? "not one clear line: '$err'"
    says "$err" "$work/bad.jsonl:3: "
    says "$err" "$1"
    gone "$work/new"
}
bad "not valid JSON" '{"text": "a'
bad "an object is expected" '[1]'
bad "none of" '{"question": "a"}'
bad "both 'messages' and 'text'" '{"messages": [], "text": "a"}'
bad "'text' must be a text" '{"text": 1}'
bad "'completion' must be a text" '{"prompt": "a"}'
bad "no message of the assistant" '{"messages": [{"role": "user", "content": "a"}]}'
bad "the role 'tool'" '{"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "a"}]}'
bad "not UTF-8 at column" $'{"text": "\xff"}'
train 1 --data "$work/absent.jsonl"
says "$err" "$work/absent.jsonl"
train 1 --data "$work/model"
[[ $err == "vkmoe: $work/model: cannot be read: "* && $err != *$'\n'* ]]
note $? "a folder as data: '$err'"
: >"$work/bad.jsonl"
train 1 --data "$work/bad.jsonl"
says "$err" "no example in it"
gone "$work/new"

# What the context cuts off is told; where no answer is left there is nothing to learn.
long=$(printf '%090d' 0)
echo "${good//ho/$long}" >"$work/long.jsonl"
echo "${good//hi/$long}" >"$work/beyond.jsonl"
train 0 --data "$work/data.jsonl,$work/long.jsonl,$work/beyond.jsonl" --dry-run
says "$err" "2 examples are longer than --context 64"
says "$err" "1 of these is left out"
says "$err" "data: 25 examples"
train 1 --data "$work/beyond.jsonl"
says "$err" "no answer begins within the first 64 tokens"
gone "$work/new"

# What does not fit is refused with the figure, the allocations' own rounding included: what is not refused then runs.
VKMOE_MEMORY_MIB=20 train 1 --data "$work/data.jsonl"
says "$err" "needs "
says "$err" " has 20.0 MiB"
gone "$work/new"
train 0 --data "$work/data.jsonl" --dry-run --json
bytes=$(grep -o '"total": [0-9]*' <<<"$out" | tr -dc 0-9)
# What is frozen has no gradient: the three routers of 8 experts and width 64.
all=$(grep -o '"parameters": [0-9]*' <<<"$out" | tr -dc 0-9)
train 0 --data "$work/data.jsonl" --freeze-router --dry-run --json
same "frozen" $((all - $(grep -o '"trained_parameters": [0-9]*' <<<"$out" | tr -dc 0-9))) $((3 * 8 * 64))
disk=$(grep -o '"disk": [0-9]*' <<<"$out" | tr -dc 0-9)
VKMOE_MEMORY_MIB=$(((bytes + 1048575) / 1048576)) train 0 --data "$work/data.jsonl" --steps 1
took=$(cat "$work"/new/model.safetensors "$work"/new/checkpoint-1/state.safetensors | wc -c)
((disk <= took && took < disk + disk / 50))
note $? "$took bytes of checkpoint and result, and not $disk"
rm -rf "$work/new"

# Settings that can do nothing, or hardly what was meant.
train 0 --data "$work/data.jsonl" --dry-run --steps 4 --warmup 3 --lr 1e-4 --method lora
says_not "$err" "warning: --"
train 0 --data "$work/data.jsonl" --dry-run --steps 4 --warmup 4 --method lora
says "$err" "warning: --warmup 4: the run has 4 steps"
says "$err" "warning: --lr 1e-5 is the rate of full fine-tuning; adapters usually take 1e-4 to 1e-3"
cp "$work/data.jsonl" "$work/same.jsonl"
train 0 --data "$work/data.jsonl" --dry-run --lr 0 --validation "$work/same.jsonl"
says "$err" "warning: --lr 0: nothing is learnt"
says "$err" "warning: --validation $work/same.jsonl is what --data has too"

# What asks for the frozen routers alone asks for nothing.
train 1 --data "$work/data.jsonl" --method lora --lora-targets gate --freeze-router --steps 1
says "$err" "nothing would be trained"
gone "$work/new"

# What a run was writing when it was killed before its first checkpoint is in nobody's way, and goes; other files are somebody's.
mkdir "$work/new"
: >"$work/new/loss.png.tmp99999999"
train 0 --data "$work/data.jsonl" --steps 1
gone "$work/new/loss.png.tmp99999999"
rm -rf "$work/new"
mkdir "$work/new"
: >"$work/new/notes.tmp99999999"
train 1 --data "$work/data.jsonl" --steps 1
says "$err" "is in use; give another folder"
rm -rf "$work/new"

# A loss that is no number: the step and its samples are named, nothing is saved, and the folder serves the next run.
cp -r "$work/model" "$work/nan"
size=$(stat -c %s "$work/nan/model.safetensors")
head -c 100000 /dev/zero | tr '\0' '\377' |
    dd of="$work/nan/model.safetensors" bs=1 seek=$((size - 100000)) conv=notrunc status=none
run 1 train "$work/nan" --out "$work/new" --context 64 --batch 4 --data "$work/data.jsonl" --steps 2
says "$err" "step 1: the loss is nan"
says "$err" "nothing was updated"
says "$err" "$work/data.jsonl:"
[[ ! -e $work/new/config.json && -z $(ls -d "$work"/new/checkpoint-* 2>/dev/null) && ! -s $work/new/metrics.jsonl ]]
note $? "a step without a loss left something: $(ls -A "$work/new")"

# Rates as asked for: a warm-up that ends at --lr, then half a cosine, or a line, down to where the last step is the smallest above 0.
train 0 --data "$work/data.jsonl" --steps 6 --warmup 2 --schedule cosine --lr 0.001
same "cosine" "$(values learning_rate | tr '\n' ' ')" "0.0005 0.001 0.001 0.000853553 0.0005 0.000146447 "
# 9 answers of "ho" and one digit, 15 of two, and the end behind each.
same "labels of an epoch" "$(values labels | awk '{ n += $1 } END { print n }')" $((9 * 5 + 15 * 6))
same "epochs" "$(values epoch | tail -n 1)" 1.0000
rm -rf "$work/new"
train 0 --data "$work/data.jsonl" --steps 4 --schedule linear --lr 0.001 --json
same "linear" "$(values learning_rate | tr '\n' ' ')" "0.001 0.00075 0.0005 0.00025 "
for key in steps finished first_loss last_loss out; do says "$out" "\"$key\": "; done

# The folder is the run's: another run, another model or another setting may not go on there.
train 1 --data "$work/data.jsonl" --steps 4 --schedule linear --lr 0.001
says "$err" "is in use (--resume"
run 0 init --preset tiny-moe --out "$work/other" --seed 4
run 1 train "$work/other" --out "$work/new" --context 64 --batch 4 --data "$work/data.jsonl" --steps 4 --schedule linear \
    --lr 0.001 --resume
says "$err" "is of another run: its base is"
train 1 --data "$work/long.jsonl" --steps 4 --schedule linear --lr 0.001 --resume
says "$err" "is of another run: its data is $work/data.jsonl, now it is $work/long.jsonl"
train 1 --data "$work/data.jsonl" --steps 4 --schedule linear --lr 0.002 --resume
says "$err" "is of another run: its learning rate is 0.001, schedule linear, 0 steps of warm-up, now it is 0.002, schedule"
# What a flag says is told before the hashes that follow from it, and the template or the file that changed the data before its hash.
again() { # again SAYS FLAGS...
    run 1 train "$work/model" --out "$work/new" --batch 4 --steps 4 --schedule linear --lr 0.001 --resume "${@:2}"
    says "$err" "is of another run: its $1"
}
again "context is 64, now it is 16" --context 16 --micro-batch 1 --data "$work/data.jsonl"
again "weight type is f32, now it is bf16" --context 64 --type bf16 --data "$work/data.jsonl"
again "chat template is the model's own, now it is deepseek" --context 64 --template deepseek --data "$work/data.jsonl"
cp "$work/data.jsonl" "$work/kept.jsonl"
echo "$good" >>"$work/data.jsonl"
again "data $work/data.jsonl has changed" --context 64 --data "$work/data.jsonl"
again "optimiser is betas 0.9 0.95, eps 1e-08, decay 0.1, clip 1, now it is betas 0.9 0.9, eps" --context 64 --beta2 0.9 --data "$work/kept.jsonl"
mv "$work/kept.jsonl" "$work/data.jsonl"
rm -rf "$work/new"

# A run of two epochs that was cut in the middle of the second goes on to the weights of the undisturbed one, which bf16 makes a matter of the
# order of the data, both moments and the random numbers of rounding and of NEFTune's noise.
train 0 --data "$work/data.jsonl" --steps 10 --lr 0.001 --type bf16 --neftune-alpha 5
same "alpha in the metrics" "$(values neftune_alpha | sort | uniq -c | tr -d ' ')" 105
grep -q 'NEFTune.*alpha 5' "$work/new/README.md"
note $? "the model card does not name the noise"
# The device does not wait for data: of the steps, those in the middle of the order, because others want the cores too.
share=$(paste <(values data_wait_s) <(values tokens) <(values tokens_per_second) | awk '{ print $1 * $3 / $2 }' | sort -g | sed -n 5p)
awk -v share="$share" 'BEGIN { exit !(share > 0 && share < 0.05) }'
note $? "the device waits for data for a share of '$share' of a step"
mv "$work/new" "$work/undisturbed"
train 0 --data "$work/data.jsonl" --steps 8 --lr 0.001 --type bf16 --neftune-alpha 5
train 1 --data "$work/data.jsonl" --steps 10 --lr 0.001 --type bf16 --resume
says "$err" "is of another run: its NEFTune is alpha 5, now it is not stated"
train 0 --data "$work/data.jsonl" --steps 10 --lr 0.001 --type bf16 --neftune-alpha 5 --resume
cmp -s "$work/new/model.safetensors" "$work/undisturbed/model.safetensors"
note $? "a run resumed in its second epoch has other weights"
rm -rf "$work/new" "$work/undisturbed"

# Weights: with 2 at every answer a run has the bits that it has without, because its losses are divided by the sum of weights; other weights
# change it, and its identity with it.
sed 's/"content": "ho/"weight": 2, &/' "$work/data.jsonl" >"$work/twice.jsonl"
sed '1~2s/"content": "ho/"weight": 0.25, &/' "$work/data.jsonl" >"$work/mixed.jsonl"
told=
for data in data twice mixed; do
    train 0 --data "$work/$data.jsonl" --steps 2 --lr 0.001 --validation-split 0.2
    told+="$(values loss | tr '\n' ' ')$(values validation_loss | tr '\n' ' ')$(sha256sum <"$work/new/model.safetensors" | cut -c 1-12)"$'\n'
    [[ $data == mixed ]] || rm -rf "$work/new"
done
same "runs that differ" "$(sort -u <<<"${told%$'\n'}" | wc -l)" 2
same "weights of 2" "$(sed -n 1p <<<"$told")" "$(sed -n 2p <<<"$told")"
train 1 --data "$work/data.jsonl" --steps 2 --lr 0.001 --validation-split 0.2 --resume
says "$err" "is of another run: its data is"
rm -rf "$work/new"

# A resumed run tells of all of the run, not of its own steps.
echo '{"text": "the same words again and again"}' >"$work/held.jsonl"
train 0 --data "$work/data.jsonl" --validation "$work/held.jsonl" --steps 2 --lr 0.001 --json
begins=$(grep -oE '"(first_loss|validation_before)": [0-9.]*' <<<"$out")
train 0 --data "$work/data.jsonl" --validation "$work/held.jsonl" --steps 3 --lr 0.001 --json --resume
same "where a resumed run began" "$(grep -oE '"(first_loss|validation_before)": [0-9.]*' <<<"$out")" "$begins"
says "$err" "loss $(sed -nE 's/.*first_loss": ([0-9]*\.[0-9]{2}).*/\1/p' <<<"$begins")"
says "$err" ", held out "
run 1 train "$work/model" --data "$work/data.jsonl" --out "$work/tuned.gguf" --steps 1
says "$err" "training makes a folder; give another name, and behind the run \`vkmoe convert\`"
gone "$work/tuned.gguf"
rm -rf "$work/new"

# merge: the merged model scores as the adapter on top does, over every linear, from a quantised base too; and not as the base.
run 0 convert "$work/model" --out "$work/model.gguf" --type q8_0
sum_of() { # sum_of MODEL FLAGS...
    run 0 score "$@" --file "$work/data.jsonl" --limit 500 --json
    sum=$(grep -o '"nll_sum": [0-9.]*' <<<"$out" | sed 's/.*: //')
}
for base in "$work/model" "$work/model.gguf"; do
    run 0 train "$base" --out "$work/new" --context 64 --batch 8 --data "$work/data.jsonl" --steps 4 --method lora \
        --lora-targets all,gate --lora-rank 5 --lora-alpha 20 --lr 0.01
    sum_of "$base" --adapter "$work/new"
    adapted=$sum
    sum_of "$base"
    plain=$sum
    mkdir "$work/merged-there"
    ln -s merged-there "$work/merged" # a folder behind a link is filled
    for merged in "$work/merged" "$work/merged.gguf"; do
        run 0 merge "$base" --adapter "$work/new" --out "$merged" --type f32
        sum_of "$merged"
        awk -v a="$adapted" -v m="$sum" -v p="$plain" \
            'BEGIN { d = a - m; if (d < 0) d = -d; e = a - p; if (e < 0) e = -e; exit !(d < 1e-5 * a && e > 1e-3 * a) }'
        note $? "nll of $base: $plain, with its adapter $adapted, merged $sum"
        # The card says how the adapter was trained, from the record of that run; beside a GGUF, which names its base as well.
        card=$(cat "$merged/README.md" 2>/dev/null || cat "${merged%.gguf}.README.md")
        says "$card" 'base_model_relation: merge'
        says "$card" '| `LoRA` | `rank 5, alpha 20` |'
        says "$card" '| `its SHA-256` |'
        says "$card" '--lora-targets all,gate'
        says "$card" '| `nats a token off the adapted model` |'
        [[ $merged == *.gguf ]] && { grep -aq 'general.base_model.0.name' "$merged" && grep -aq 'with the adapter new merged' "$merged" ||
            note 1 "$merged does not say what it was made from"; }
        rm -rf "$work"/merged*
    done
    rm -rf "$work/new"
done

# A base whose name is not UTF-8 has an adapter all the same.
ln -s model "$work/mod"$'\xff'l
run 0 train "$work/mod"$'\xff'l --out "$work/new" --context 64 --batch 8 --data "$work/data.jsonl" --steps 1 --method lora
says "$(<"$work/new/adapter_config.json")" $'mod\xef\xbf\xbdl"'
rm -rf "$work/new"

# Merged into a quantised base, each tensor keeps its type, those that are not changed their bytes; what was lost is told and bounded. A change
# that rounding swallows is named, and where the bound is broken nothing is left.
figure() { # figure NAME: of the JSON in $out
    grep -o "\"$1\": [-+.e0-9]*" <<<"$out" | sed 's/.*: //'
}
within() { # within VALUE LOW HIGH TEXT
    awk -v x="$1" -v low="$2" -v high="$3" 'BEGIN { exit !(x != "" && x >= low && x <= high) }'
    note $? "$4: '$1' is not within $2 and $3"
}
run 0 quantize "$work/model" --out "$work/mixed.gguf" --type q4_k_m
for base in model.gguf mixed.gguf; do
    run 0 train "$work/$base" --out "$work/new" --context 64 --batch 8 --data "$work/data.jsonl" --steps 4 --method lora \
        --lora-targets attention --lr 0.01
    run 0 merge "$work/$base" --adapter "$work/new" --out "$work/merged.gguf" --json
    within "$(figure tensors)" 16 16 "changed tensors"
    within "$(figure change_kept)" 0.9 1.1 "the share of the change that is kept"
    within "$(figure divergence)" 0 "$(figure bound)" "the divergence"
    within "$(figure adapter_divergence)" 1e-4 10 "what the adapter does"
    [[ $(stat -c %s "$work/merged.gguf") -lt $(($(stat -c %s "$work/$base") + 512)) ]]
    note $? "$base is $(stat -c %s "$work/$base") bytes, merged it is $(stat -c %s "$work/merged.gguf")"
    rm "$work"/merged*
    run 1 merge "$work/$base" --adapter "$work/new" --out "$work/merged.gguf" --max-divergence 1e-9
    says "$err" "above the bound of 1e-09"
    gone "$work/merged.gguf"
    echo '{"sections": [' >"$work/new/recipe.json"
    run 1 merge "$work/$base" --adapter "$work/new" --out "$work/merged.gguf"
    says "$err" recipe.json
    gone "$work/merged.gguf"
    rm -rf "$work/new"
done
# Ended between writing and asking: what nobody has asked yet is not left.
run 0 train "$work/model" --out "$work/new" --context 64 --batch 8 --data "$work/data.jsonl" --steps 1 --method lora --lr 0.01
for out in merged merged.gguf; do
    for _ in 1 2 3 4 5; do
        : >"$work/out"
        "$VKMOE" merge "$work/model" --adapter "$work/new" --out "$work/$out" >>"$work/out" 2>&1 &
        pid=$!
        until [[ $(<"$work/out") == *"parameters as"* ]] || ! kill -0 $pid 2>/dev/null; do :; done
        kill -TERM $pid 2>/dev/null
        wait $pid 2>/dev/null
        status=$?
        ((status == 143)) && break
        rm -rf "$work"/merged*
    done
    ((status == 143)) || echo "SKIP: merge to $out was never ended in time"
    [[ -z $(compgen -G "$work/merged*") ]]
    note $? "merge was ended and left $(echo "$work"/merged*)"
done
run 0 merge "$work/model" --adapter "$work/new" --out "$work/merged//"
[[ -e $work/merged/README.md && -z $(compgen -G "$work/merged*/*.tmp*") ]]
note $? "merged into a folder with a slash behind it: $(ls -A "$work"/merged)"
rm -rf "$work/new" "$work"/merged*
run 0 train "$work/model.gguf" --out "$work/new" --context 64 --batch 8 --data "$work/data.jsonl" --steps 1 --method lora --lr 1e-6
run 1 merge "$work/model.gguf" --adapter "$work/new" --out "$work/merged.gguf"
says "$err" "% of the change"
gone "$work/merged.gguf"
run 0 merge "$work/model.gguf" --adapter "$work/new" --out "$work/merged.gguf" --max-divergence 0.05
rm -rf "$work/new" "$work"/merged*

# The experts of --esft-only, merged, are the model that training without it ends with.
for only in "" --esft-only; do
    train 0 --data "$work/data.jsonl" --steps 2 --method esft --esft-threshold 0.4 --lr 0.01 $only
    mv "$work/new" "$work/tuned$only"
done
says "$err" "trained experts in $work/new after"
says "$err" "vkmoe merge $work/model --adapter $work/new --out PATH makes a model of them"
run 1 generate "$work/model" -p a --adapter "$work/tuned--esft-only"
says "$err" "trained experts are no adapter; \`vkmoe merge\`"
run 1 generate "$work/model" -p a --adapter "$work/tuned/checkpoint-2"
says "$err" "a checkpoint of a run, no adapter; \`vkmoe train --resume\`"
run 0 merge "$work/model" --adapter "$work/tuned--esft-only" --out "$work/merged" --json
cmp -s "$work/merged/model.safetensors" "$work/tuned/model.safetensors"
note $? "merged experts are not those of the whole model"
within "$(figure change_kept)" 1 1 "the share of the change that is kept"
run 0 merge "$work/model.gguf" --adapter "$work/tuned--esft-only" --out "$work/merged.gguf"
rm -rf "$work"/merged* "$work"/tuned*

# The held-out loss is the mean over its labels, which `score` measures as well.
text='the same words again and again'
echo "{\"text\": \"$text\"}" >"$work/held.jsonl"
train 0 --data "$work/data.jsonl" --validation "$work/held.jsonl" --steps 1 --lr 0 --json
held=$(grep -o '"validation_before": [0-9.]*' <<<"$out" | sed 's/.*: //')
printf '%s' "$text" >"$work/held.txt"
run 0 score "$work/model" --file "$work/held.txt" --json
sum=$(grep -o '"nll_sum": [0-9.]*' <<<"$out" | sed 's/.*: //')
# train adds the end token: the sums differ by that one's loss, which is near ln 512 in a random model.
awk -v h="$held" -v s="$sum" -v n=${#text} 'BEGIN { last = h * n - s; exit !(last > 5.5 && last < 7) }'
note $? "the held-out loss $held a label and the score $sum of ${#text} bytes"

rm -rf "$work"
finish
