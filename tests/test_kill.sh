#!/usr/bin/env bash
# A run that is killed at random moments (kill -9), while training and while saving, and resumed each time, must end with the very bits of
# the undisturbed run. Then a damaged newest checkpoint and a full disk: the one before is used, with one clear line.
# VKMOE_KILLS: how many kills (12 where not given).
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
    echo "{\"prompt\": \"question $i: what is $i plus $((i * 7 % 13))?\", \"completion\": \" It is $((i + i * 7 % 13)).\"}"
done >"$work/data.jsonl"
"$VKMOE" init --preset tiny-moe --out "$work/model" 2>"$work/log" || { cat "$work/log"; exit 1; }
command=("$VKMOE" train "$work/model" --data "$work/data.jsonl" --steps 24 --batch 6 --context 64 --micro-batch 2 --lr 1e-3
    --save-every 2 --keep 3)
train() { # train OUT [FLAGS]
    local out=$1
    shift
    "${command[@]}" --out "$out" "$@"
}
train "$work/whole" 2>"$work/log" || { cat "$work/log"; exit 1; }
want=$(sha256sum <"$work/whole/model.safetensors")

done_kills=0 round=0
while [ "$done_kills" -lt "$kills" ]; do
    round=$((round + 1))
    out=$work/killed
    rm -rf "$out"
    while [ "$done_kills" -lt "$kills" ]; do
        "${command[@]}" --out "$out" --resume >"$work/log" 2>&1 &
        pid=$!
        # Most of the time goes to starting up; the kills are spread over all of it.
        sleep "$(awk -v s="$RANDOM" 'BEGIN { printf "%.3f", 0.2 + 2.3 * s / 32768 }')"
        kill -0 $pid 2>/dev/null && { kill -9 $pid; done_kills=$((done_kills + 1)); }
        wait $pid 2>/dev/null
        [ -f "$out/config.json" ] && break
    done
    [ -f "$out/config.json" ] || train "$out" --resume >"$work/log" 2>&1 || cat "$work/log"
    check "round $round: the resumed run has other weights" test "$want" = "$(sha256sum <"$out/model.safetensors" 2>/dev/null)"
    steps=$(grep -o '"step": [0-9]*' "$out/metrics.jsonl" | tr -dc '0-9\n' | tr '\n' ' ')
    check "round $round: metrics of the steps $steps" test "$steps" = "$(seq -s ' ' 24) "
done
echo "$done_kills kills in $round runs"

# The newest checkpoint damaged: the one before it counts, and the end is the same.
for what in state.safetensors manifest.json; do
    rm -rf "$work/hurt"
    cp -r "$work/whole" "$work/hurt"
    rm -f "$work/hurt/config.json" "$work/hurt/model.safetensors"
    newest=$work/hurt/checkpoint-24/$what
    at=$(($(stat -c %s "$newest") / 2))
    byte=$(od -An -tu1 -j $at -N 1 "$newest")
    printf "\\x$(printf %02x $(((byte + 1) % 256)))" | dd of="$newest" bs=1 seek=$at conv=notrunc status=none
    train "$work/hurt" --resume 2>"$work/log"
    check "one line names the damaged $what" grep -q "checkpoint-24 is damaged" "$work/log"
    check "resumed from the one before $what" test "$want" = "$(sha256sum <"$work/hurt/model.safetensors" 2>/dev/null)"
done

# A damaged one of a later step does not take the place of those that are whole.
rm -rf "$work/hurt"
cp -r "$work/whole" "$work/hurt"
rm -f "$work/hurt/config.json" "$work/hurt/model.safetensors"
mv "$work/hurt/checkpoint-24" "$work/hurt/checkpoint-99"
: >"$work/hurt/checkpoint-99/state.safetensors"
"${command[@]:0:${#command[@]}-1}" 1 --out "$work/hurt" --resume 2>"$work/log"
check "of one to keep it is the whole one" test "$(cd "$work/hurt" && echo checkpoint-*)" = checkpoint-24

# P9: a manifest that lies under a hash that is right.
rm -rf "$work/hurt"
cp -r "$work/whole" "$work/hurt"
rm -f "$work/hurt/config.json" "$work/hurt/model.safetensors"
manifest=$work/hurt/checkpoint-24/manifest
sed -i 's/"next": /"next": -/' "$manifest.json"
printf %s "$(sha256sum <"$manifest.json" | cut -c1-64)" >"$manifest.sha256"
train "$work/hurt" --resume 2>"$work/log"
check "P9: a lie is named" grep -q "checkpoint-24 is damaged (its place in the data is none)" "$work/log"
check "P9: resumed from the one before the lie" test "$want" = "$(sha256sum <"$work/hurt/model.safetensors" 2>/dev/null)"

# A full disk while saving: one line, exit 1, the checkpoint before it whole.
mkdir "$work/full"
if mount -t tmpfs -o size=$(($(du -sb "$work/whole/checkpoint-24" | cut -f1) * 5 / 2)) tmpfs "$work/full" 2>/dev/null; then
    train "$work/full/out" 2>"$work/log"
    check "a full disk ends the run with status 1" test $? = 1
    check "and one clear line" grep -qi "no space left" "$work/log"
    rest=$(ls -d "$work"/full/out/checkpoint-* | wc -l)
    check "the checkpoints before it are there ($rest)" test "$rest" -ge 1
    cp -r "$work/full/out" "$work/moved"
    train "$work/moved" --resume 2>"$work/log"
    check "and lead to the same end" test "$want" = "$(sha256sum <"$work/moved/model.safetensors" 2>/dev/null)"
else
    echo "SKIP: no right to mount a small tmpfs: the full disk was not tried"
fi

# Two runs in one folder: the second is refused while the first lives.
"${command[@]}" --out "$work/two" >/dev/null 2>&1 &
pid=$!
for _ in $(seq 100); do [ -e "$work/two/.lock" ] && break; sleep 0.1; done
train "$work/two" --resume 2>"$work/log"
check "a folder that another run holds is refused" test $? = 1
check "and named" grep -q "another run" "$work/log"
kill -9 $pid
wait $pid 2>/dev/null

# A device that is lost in the middle of the run is opened again, and the run goes on from its last checkpoint to the same end.
VKMOE_LOSE_AT=1500 train "$work/lost" 2>"$work/log"
check "a lost device does not end the run" test $? = 0
check "and is told" grep -q "the device was lost at step" "$work/log"
check "and leads to the same end" test "$want" = "$(sha256sum <"$work/lost/model.safetensors" 2>/dev/null)"

# Another run's checkpoint is refused by name; so is a folder in use.
train "$work/whole" --resume --seed 5 2>"$work/log"
check "another seed is refused" test $? = 1
check "and named" grep -q "its seed is" "$work/log"
train "$work/whole" 2>"$work/log"
check "a folder in use is refused" grep -q "is in use" "$work/log"
echo "$checks checks, $failed failed"
[ "$failed" = 0 ]
