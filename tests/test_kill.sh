#!/usr/bin/env bash
# Runs of every method that are killed (kill -9) at random moments and in the middle of saves, and resumed each time, must end with the very
# bits of the undisturbed run. Then a damaged newest checkpoint and a full disk: the one before is used, with one clear line.
# VKMOE_KILLS: how many kills in all (12 where not given).
set -u
kills=${VKMOE_KILLS:-12}
work=$(mktemp -d)
trap 'umount "$work/full" 2>/dev/null; rm -rf "$work"' EXIT
failed=0 checks=0
check() { # check TEXT COMMAND...
    local text=$1
    shift
    checks=$((checks + 1))
    if ! "$@"; then
        echo "failed: $text" >&2
        tail -n 3 "$work/log" >&2
        failed=$((failed + 1))
    fi
}
for i in $(seq 40); do
    question="question $i: what is $i plus $((i * 7 % 13))?" answer=" It is $((i + i * 7 % 13))."
    echo "{\"prompt\": \"$question\", \"completion\": \"$answer\"}"
    echo "{\"prompt\": \"$question\", \"chosen\": \"$answer\", \"rejected\": \" No.\"}" >&3
done >"$work/data.jsonl" 3>"$work/pairs.jsonl"
"$VKMOE" init --preset tiny-moe --out "$work/model" 2>"$work/log" || { cat "$work/log"; exit 1; }
steps=8
line_of() { # line_of OUT [FLAGS]: one of --data among them; in `line`, because what is killed must be the program and not a shell
    line=("$VKMOE" train "$work/model" --out "$1" --steps $steps --batch 6 --context 64 --micro-batch 2 --lr 1e-3 "${@:2}")
}
train() { # train OUT [FLAGS]
    line_of "$@"
    "${line[@]}"
}
hash_of() { # of the result in a folder: no file, another hash
    cat "$1"/*.safetensors 2>/dev/null | sha256sum
}
finished() { [[ -e $1/config.json || -e $1/adapter_config.json ]]; }

# Each kill is aimed at any moment of a run, or, in turn, at a save: its folder has just appeared.
declare -A landed=([start]=0 [training]=0 [save]=0 [end]=0)
kill_one() { # kill_one OUT MILLISECONDS FLAGS...: one run; counts a kill where the run was still there
    local out=$1 most=$2 before pid until
    shift 2
    rm -rf "$out"/.checkpoint-*
    before=$(echo "$out"/checkpoint-*)
    line_of "$out" --resume "$@"
    "${line[@]}" >"$work/log" 2>&1 &
    pid=$!
    until=$((${EPOCHREALTIME/./} + (aimed ? most : 50 + most * RANDOM / 32768) * 1000))
    while ((${EPOCHREALTIME/./} < until)) && kill -0 $pid 2>/dev/null; do
        ((aimed)) && compgen -G "$out/.checkpoint-*" >/dev/null && break
        ((aimed)) || sleep 0.01
    done
    if kill -9 $pid 2>/dev/null; then
        done_kills=$((done_kills + 1)) aimed=$((1 - aimed))
    fi
    wait $pid 2>/dev/null
    [[ $? == 137 ]] || return
    if compgen -G "$out/.checkpoint-*" >/dev/null; then
        landed[save]=$((landed[save] + 1))
    elif [[ -e $out/.result ]]; then
        landed[end]=$((landed[end] + 1))
    elif [[ $(echo "$out"/checkpoint-*) != "$before" ]]; then
        landed[training]=$((landed[training] + 1))
    else
        landed[start]=$((landed[start] + 1))
    fi
}
methods=(
    "full --data $work/data.jsonl"
    "full --data $work/data.jsonl --type bf16 --moments 8bit"
    "lora --data $work/data.jsonl --lora-rank 4"
    "qlora --data $work/data.jsonl --type q8_0"
    "esft --data $work/data.jsonl --esft-threshold 0.5"
    "lora --data $work/pairs.jsonl --loss dpo --validation-split 0.2"
)
done_kills=0 aimed=0 rounds=0
for i in "${!methods[@]}"; do
    read -ra flags <<<"--save-every 1 --keep 2 --method ${methods[i]}"
    start=${EPOCHREALTIME/./}
    train "$work/whole$i" "${flags[@]}" 2>"$work/log" || { cat "$work/log"; exit 1; }
    took=$(((${EPOCHREALTIME/./} - start) / 1000))
    want=$(hash_of "$work/whole$i")
    while ((done_kills < kills * (i + 1) / ${#methods[@]})); do
        out=$work/killed rounds=$((rounds + 1))
        rm -rf "$out"
        while ((done_kills < kills * (i + 1) / ${#methods[@]})) && ! finished "$out"; do
            kill_one "$out" "$took" "${flags[@]}"
        done
        finished "$out" || train "$out" --resume "${flags[@]}" >"$work/log" 2>&1 || cat "$work/log"
        check "${methods[i]}: the resumed run has other weights" test "$want" = "$(hash_of "$out")"
        numbers=$(grep -o '"step": [1-9][0-9]*' "$out/metrics.jsonl" | tr -dc '0-9\n' | tr '\n' ' ')
        check "${methods[i]}: metrics of the steps $numbers" test "$numbers" = "$(seq -s ' ' $steps) "
        check "${methods[i]}: left behind: $(ls -A "$out")" test -z "$(compgen -G "$out/.[cr]*" || compgen -G "$out/*.tmp*")"
    done
done
echo "$done_kills kills in $rounds runs of ${#methods[@]} methods: ${landed[start]} before the first new checkpoint, ${landed[training]} between" \
    "checkpoints, ${landed[save]} within a save, ${landed[end]} while the result was written"
read -ra flags <<<"--data $work/data.jsonl --save-every 2 --keep 3"
train "$work/whole" "${flags[@]}" 2>"$work/log" || { cat "$work/log"; exit 1; }
want=$(hash_of "$work/whole")

# The newest checkpoint damaged: the one before it counts, and the end is the same.
for what in state.safetensors manifest.json; do
    rm -rf "$work/hurt"
    cp -r "$work/whole" "$work/hurt"
    rm -f "$work/hurt/config.json" "$work/hurt/model.safetensors"
    newest=$work/hurt/checkpoint-8/$what
    at=$(($(stat -c %s "$newest") / 2))
    byte=$(od -An -tu1 -j $at -N 1 "$newest")
    printf "\\x$(printf %02x $(((byte + 1) % 256)))" | dd of="$newest" bs=1 seek=$at conv=notrunc status=none
    train "$work/hurt" --resume "${flags[@]}" 2>"$work/log"
    check "one line names the damaged $what" grep -q "checkpoint-8 is damaged" "$work/log"
    check "resumed from the one before $what" test "$want" = "$(hash_of "$work/hurt")"
done

# A damaged one of a later step does not take the place of those that are whole.
rm -rf "$work/hurt"
cp -r "$work/whole" "$work/hurt"
rm -f "$work/hurt/config.json" "$work/hurt/model.safetensors"
mv "$work/hurt/checkpoint-8" "$work/hurt/checkpoint-99"
: >"$work/hurt/checkpoint-99/state.safetensors"
train "$work/hurt" --resume "${flags[@]:0:4}" --keep 1 2>"$work/log"
check "of one to keep it is the whole one" test "$(cd "$work/hurt" && echo checkpoint-*)" = checkpoint-8

# P9: a manifest that lies under a hash that is right.
rm -rf "$work/hurt"
cp -r "$work/whole" "$work/hurt"
rm -f "$work/hurt/config.json" "$work/hurt/model.safetensors"
manifest=$work/hurt/checkpoint-8/manifest
sed -i 's/"next": /"next": -/' "$manifest.json"
printf %s "$(sha256sum <"$manifest.json" | cut -c1-64)" >"$manifest.sha256"
train "$work/hurt" --resume "${flags[@]}" 2>"$work/log"
check "P9: a lie is named" grep -q "checkpoint-8 is damaged (its place in the data is none)" "$work/log"
check "P9: resumed from the one before the lie" test "$want" = "$(hash_of "$work/hurt")"

# A full disk while saving: one line, exit 1, the checkpoint before it whole.
mkdir "$work/full"
if mount -t tmpfs -o size=$(($(du -sb "$work/whole/checkpoint-8" | cut -f1) * 5 / 2)) tmpfs "$work/full" 2>/dev/null; then
    train "$work/full/out" "${flags[@]}" 2>"$work/log"
    check "a full disk ends the run with status 1" test $? = 1
    check "and one clear line" grep -qi "no space left" "$work/log"
    rest=$(ls -d "$work"/full/out/checkpoint-* | wc -l)
    check "the checkpoints before it are there ($rest)" test "$rest" -ge 1
    cp -r "$work/full/out" "$work/moved"
    train "$work/moved" --resume "${flags[@]}" 2>"$work/log"
    check "and lead to the same end" test "$want" = "$(hash_of "$work/moved")"
    umount "$work/full"
    mount -t tmpfs -o size=$(($(du -sb "$work/whole/checkpoint-8" | cut -f1) * 5 / 6)) tmpfs "$work/full"
    train "$work/full/out" --data "$work/data.jsonl" 2>"$work/log"
    check "a disk with room for the result alone has it" test "$want" = "$(hash_of "$work/full/out")"
    check "and the checkpoint that it lacks is told" grep -q "without its last checkpoint" "$work/log"
    check "as is before the run what it may lack" grep -q "warning: $work/full/out: .* are free there" "$work/log"
else
    echo "SKIP: no right to mount a small tmpfs: the full disk was not tried"
fi

# Two runs in one folder: the second is refused while the first lives.
steps=1000 line_of "$work/two" "${flags[@]}"
"${line[@]}" >/dev/null 2>&1 &
pid=$!
for _ in $(seq 100); do [ -e "$work/two/.lock" ] && break; sleep 0.1; done
steps=1000 train "$work/two" --resume "${flags[@]}" 2>"$work/log"
check "a folder that another run holds is refused" test $? = 1
check "and named" grep -q "another run" "$work/log"
kill -9 $pid
wait $pid 2>/dev/null

# Another run's checkpoint is refused by name; so is a folder in use.
train "$work/whole" --resume "${flags[@]}" --seed 5 2>"$work/log"
check "another seed is refused" test $? = 1
check "and named" grep -q "its seed is" "$work/log"
train "$work/whole" "${flags[@]}" 2>"$work/log"
check "a folder in use is refused" grep -q "is in use" "$work/log"
echo "$checks checks, $failed failed"
[ "$failed" = 0 ]
