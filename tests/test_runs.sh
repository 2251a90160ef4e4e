# What is seen of data before a run and of runs while they last and behind them: `vkmoe data`, `vkmoe plot`, files for TensorBoard, and the signals that
# save, stop and end a run. $VKMOE is the program, the working directory the build folder.
work=test-runs
. "${BASH_SOURCE%/*}/check.sh"

# data: counts of every form, duplicates with their places, the packing, and samples with what is learnt in brackets. No device is needed.
run 0 init --preset tiny-moe --out "$work/model" --seed 3
printf '%s\n' '{"prompt": "ab", "completion": "cde"}' '{"text": "xyz"}' '{"prompt": "ab", "completion": "cde"}' >"$work/a.jsonl"
printf 'question,answer\r\n"a ""b""\nc",d\r\n' | gzip >"$work/b,c.csv.gz"
run 0 data "$work/a.jsonl" --model "$work/model" --json
says "$out" '"examples": 3'
says "$out" '"trained_tokens": 11' # this vocabulary begins no text: the x is read alone
says "$out" '"duplicates": 1'
run 0 data "$work/a.jsonl" --model "$work/model" --samples 9
says "$out" "1 duplicate (examples that occurred earlier)"
says "$out" "$work/a.jsonl:3 is $work/a.jsonl:1"
says "$out" "ab[[cde<"
echo '[{"text": "xyz", "id": 1}, {"text": "xyz", "source": "a"}]' >"$work/a.json"
run 0 data "$work/a.json" --model "$work/model"
says "$out" "$work/a.json:1 (record 2) is $work/a.json:1 (record 1)"
says "$err" "keys of the records that are not read: id, source"
run 0 data "$work/b,c.csv.gz" --model "$work/model" --columns prompt=question,completion=answer
says "$out" $'a "b"\nc[[d<'
run 0 data "$work/a.jsonl" "$work/b,c.csv.gz" --model "$work/model" --columns text=answer --skip-bad --json
says "$out" '"skipped": 3'
says "$err" "3 bad records are skipped"
printf '%s\n' '{"text": "ab"}' '{"text": "ab<|end|>"}' >"$work/spelled.jsonl"
run 0 data "$work/spelled.jsonl" --model "$work/model" --json
says "$out" '"spelled_tokens": 1'
says "$err" "1 record spells the names of special tokens out, as $work/spelled.jsonl:2 does '<|end|>'"
run 0 data "$work/a.jsonl" "$work/a.jsonl" --model "$work/model" --data-weights 2,0.5 --json
says "$out" '"examples_per_epoch": 8'
printf '%s\n' '{"prompt": "q", "chosen": "ab", "rejected": "cd"}' '{"prompt": "q", "chosen": "ab", "rejected": "ef"}' \
    '{"prompt": "q", "chosen": "ab", "rejected": "ef"}' >"$work/pairs.jsonl"
run 0 data "$work/pairs.jsonl" --model "$work/model" --loss dpo --samples 1
says "$out" "3 pairs: 6 examples"
says "$out" "1 duplicate (pairs that occurred earlier)"
says "$out" "$work/pairs.jsonl:3 is $work/pairs.jsonl:2"
says "$out" "[[ab<"
run 0 data "$work/pairs.jsonl" --model "$work/model" --loss dpo --json
says "$out" '"pairs": 3'
long=$(printf '%0100d' 0)
echo "{\"text\": \"$long\"}" >"$work/long.jsonl"
for way in "0 cut 1 example is longer than --context 32 and is cut there" "0 split became 4 pieces" "1 drop every example is longer"; do
    read -r status overlong said <<<"$way"
    run "$status" data "$work/long.jsonl" --model "$work/model" --context 32 --overlong "$overlong"
    says "$err" "$said"
done
for wrong in "--columns question=a" "--data-weights 1,2" "--data-weights 0"; do
    read -ra words <<<"$wrong"
    run 2 data "$work/a.jsonl" --model "$work/model" "${words[@]}"
    one_line
done
run 1 data "$work/model/config.json" --model "$work/model"
one_line
says "$err" "$work/model/config.json:1: "

if ! "$VKMOE" devices >"$work/stdout" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/stdout")"
    rm -rf "$work"
    finish
fi
for i in $(seq 24); do echo "{\"prompt\": \"question $i\", \"completion\": \" It is $i.\"}"; done >"$work/data.jsonl"
command=(env --default-signal=HUP,PIPE,INT,TERM "$VKMOE" train "$work/model" --data "$work/data.jsonl" --steps 30 --batch 4 --context 64 --lr 1e-3)
steps() { # steps OUT: done so far
    [[ ! -e $1/metrics.jsonl ]] || grep -c '"loss"' "$1/metrics.jsonl"
}
begin() { # begin OUT FLAGS...: a run in the background that is past its third step
    local out=$1
    shift
    "${command[@]}" --out "$out" "$@" >"$work/stdout" 2>"$work/log" &
    pid=$!
    for _ in $(seq 600); do
        (($(steps "$out") + 0 >= 3)) && break
        sleep 0.05
    done
}
same_weights() { cmp -s "$work/whole/model.safetensors" "$1/model.safetensors"; }

# The undisturbed run: loads that add up to the tokens, three experts each, and the files that show it.
"${command[@]}" --out "$work/whole" 2>"$work/log"
note $? "a run: $(tail -n 1 "$work/log")"
loads=$(sed -n 's/.*"tokens": \([0-9]*\),.*"expert_loads": {"1": \[\([0-9, ]*\)\].*/\1 \2/p' "$work/whole/metrics.jsonl" | tr -d , |
    awk '{ n = 0; for (i = 2; i <= NF; i++) n += $i; print n == 3 * $1 && NF == 9 }' | sort | uniq -c | tr -s ' ')
[[ $loads == " 30 1" ]]
note $? "loads that add up, of 30: '$loads'"
for file in loss.png experts.png; do
    [[ $(head -c 4 "$work/whole/$file") == $'\x89PNG' ]]
    note $? "$file is no picture"
done
grep -q 'train/loss' "$work"/whole/events.out.tfevents.*
note $? "no loss in the event file"

# SIGUSR1: saved, and the run goes on to the same weights. Stopped, it says how to go on; and goes on to the same weights too.
begin "$work/saved"
kill -USR1 $pid
wait $pid
note $? "SIGUSR1 ended the run: $(tail -n 1 "$work/log")"
(($(ls -d "$work"/saved/checkpoint-* | wc -l) == 2))
note $? "SIGUSR1 saved nothing: $(ls "$work/saved")"
same_weights "$work/saved"
note $? "a run that was saved has other weights"
begin "$work/stopped"
kill -INT $pid
wait $pid
note $? "SIGINT is no failure: $(tail -n 1 "$work/log")"
says "$(<"$work/log")" "and saved; --resume goes on"
# What has names like ours and is not stays; of a link that has the name of an old checkpoint the link goes.
mkdir "$work/stopped/.checkpoint-mine" "$work/precious"
for file in stopped/.checkpoint-mine/a stopped/notes.tmp2024 precious/a; do echo mine >"$work/$file"; done
echo torn >"$work/stopped/metrics.jsonl.tmp9999999"
ln -s ../precious "$work/stopped/checkpoint-2"
begin "$work/stopped" --resume --save-every 1
kill -INT $pid
kill -INT $pid
wait $pid 2>/dev/null
"${command[@]}" --out "$work/stopped" --resume 2>"$work/log"
note $? "a run that was interrupted twice: $(tail -n 1 "$work/log")"
same_weights "$work/stopped"
note $? "a run that was interrupted twice has other weights"
for file in stopped/.checkpoint-mine/a stopped/notes.tmp2024 precious/a; do
    [[ $(cat "$work/$file" 2>&1) == mine ]]
    note $? "$file is gone"
done
[[ ! -L $work/stopped/checkpoint-2 && ! -e $work/stopped/metrics.jsonl.tmp9999999 ]]
note $? "an old checkpoint or a torn file is left: $(ls -A "$work/stopped")"
for file in metrics.jsonl samples.txt; do # without a run's lock
    mkdir "$work/foreign"
    echo mine >"$work/foreign/$file"
    refused 1 "is in use" train "$work/model" --data "$work/data.jsonl" --out "$work/foreign" --steps 1
    [[ $(<"$work/foreign/$file") == mine ]]
    note $? "$file of somebody is overwritten"
    rm -r "$work/foreign"
done

# A terminal that closes stops a run as SIGTERM does, told once or twice, unless nohup said otherwise; what reads its lines may go.
begin "$work/hung"
kill -HUP $pid
kill -HUP $pid
wait $pid
note $? "SIGHUP loses the run"
says "$(<"$work/log")" "and saved; --resume goes on"
command[1]=--ignore-signal=HUP
begin "$work/nohup"
command[1]=--default-signal=HUP,PIPE,INT,TERM
kill -HUP $pid
wait $pid
note $? "SIGHUP under nohup: $(tail -n 1 "$work/log")"
same_weights "$work/nohup"
note $? "SIGHUP ended a run under nohup: $(tail -n 1 "$work/log")"
command[1]=--ignore-signal=INT,TERM # as a script's job in the background has SIGINT
begin "$work/ignored"
command[1]=--default-signal=HUP,PIPE,INT,TERM
kill -INT $pid
kill -TERM $pid
wait $pid
note $? "signals that are ignored: $(tail -n 1 "$work/log")"
same_weights "$work/ignored"
note $? "signals that are ignored ended a run: $(tail -n 1 "$work/log")"
"${command[@]}" --out "$work/piped" 2>&1 >"$work/stdout" | head -c 1 >"$work/log"
[[ ${PIPESTATUS[0]} == 0 ]] && same_weights "$work/piped"
note $? "a run whose lines nobody reads is lost: $(ls "$work/piped")"

# plot: one picture of both, letters where there are no colours, the figures as JSON; what is not there is named.
run 0 plot "$work/whole" "$work/saved/" --out "$work/both.png"
says "$out" "a whole"
says "$out" "b saved"
[[ $(head -c 4 "$work/both.png") == $'\x89PNG' ]]
note $? "no picture of both"
run 0 plot "$work/whole" --metric lr --smooth 0 --out "$work/lr.png" --json
(($(grep -c '0.001' <<<"$out") == 30))
note $? "30 rates: $out"
# A name that is no UTF-8 costs no figures.
odd=$work/odd$'\xff'
run 0 train "$work/model" --data "$work/data.jsonl" --out "$odd" --steps 1 --context 64 --batch 4 --json
says "$out" "\"out\": \"$work/odd"$'\xef\xbf\xbd'
run 0 plot "$odd" --out "$work/odd.png" --json
says "$out" '"run": "odd'$'\xef\xbf\xbd'
run 1 plot "$work/whole" --metric validation_loss --out "$work/none.png"
one_line
says "$err" "no line of metrics.jsonl has 'validation_loss'"
run 1 plot "$work/model" --out "$work/none.png"
one_line
[[ ! -e $work/none.png ]]
note $? "a picture of nothing"

rm -rf "$work"
finish
