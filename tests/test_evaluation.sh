# `vkmoe eval` on a tiny random model: the same journal at any number of answers at once, after a kill, and with a chat template; prompts that are
# too long; tasks that cannot be asked; reports. $VKMOE is the program, the working directory the build folder.
work=test-evaluation
. "${BASH_SOURCE%/*}/check.sh"

: >"$work/in"
if ! "$VKMOE" devices >"$work/out" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/out")"
    exit 77
fi
run 0 init --preset tiny-moe --out "$work/tiny" --seed 3
run 0 init --preset tiny --out "$work/dense" --seed 4
data=$work/data
mkdir -p "$data/gsm8k" "$data/naturalquestions" "$data/own" "$data/arc"
for i in 1 2 3 4 5 6 7 8 9; do
    echo "{\"question\": \"$i and $i?\", \"answer\": \"Add.\\n#### $((2 * i))\"}" >>"$data/gsm8k/test.jsonl"
    echo "{\"question\": \"$i or $i?\", \"answer\": \"Or.\\n#### $i\"}" >>"$data/gsm8k/train.jsonl"
    echo "{\"question\": \"who is $i\", \"answer\": [\"$i\", \"none\"]}" >>"$data/naturalquestions/NQ-open.dev.jsonl"
    printf '"What, %s?",yes,no,%s\n' $i $((i % 2)) >>"$data/own/a_set.csv"
    printf 'How %s?,up,down,%s\n' $i $((i % 2)) >>"$data/own/b_set.csv"
done
cat >"$work/own.task" <<'END'
# A task of our own.
title: Own
source: nobody
kind: choice
metric: acc
data: own/*_set.csv
format: csv
columns: q a b gold
subjects: 2
choice: {a}
choice: {b}
gold: {gold}
gold_is: index
shots: 2
shot_data: own/{subject}_set.csv

[intro]
Questions about {subject}, in a long introduction which all prompts of the subject have in common.

[query]
Q: {q}
A:
END
ask=(--data "$data" --tasks naturalquestions --task-file "$work/own.task" --limit 6 --context 500)

# What would be asked, without asking.
run 0 eval "$work/tiny" "${ask[@]}" --dry-run
[[ $(grep -c '"tokens":\[[0-9]' "$work/out") == 12 && $(grep -c '"continuation_tokens":\[\[' "$work/out") == 6 ]]
note $? "twelve prompts with their tokens: ${out:0:300}"
says "$out" '"where":"'"$data"'/naturalquestions/NQ-open.dev.jsonl:1","prompt":"Answer these questions:\n\nQ: who is 1?\nA:","tokens":['
refused 2 "--dry-run has no results" eval "$work/tiny" "${ask[@]}" --dry-run -o "$work/dry.json"

# What is no file of results is refused before a question, and stays.
echo '{"model": "mine"}' >"$work/mine.json"
ln -s "$PWD/$work/mine.json" "$work/link.json"
refused 1 "holds no results" eval "$work/tiny" "${ask[@]}" -o "$work/mine.json"
refused 1 "holds no results" eval "$work/tiny" "${ask[@]}" -o "$work/link.json"
refused 1 "is a folder" eval "$work/tiny" "${ask[@]}" -o "$data"
(cd "$work" && echo notes >results.json && ! "$VKMOE" eval tiny --data data --tasks naturalquestions --limit 1 --context 300 >out 2>err &&
    [[ $(<results.json) == notes && $(<mine.json) == *mine* && ! -e results.json.jsonl && ! -e mine.json.jsonl ]])
note $? "a foreign results.json is replaced: $(<"$work/err")"

# The journal is the same at any number of answers at once.
run 0 eval "$work/tiny" "${ask[@]}" -o "$work/one.json" --parallel 1
says "$out" "Own"
run 0 eval "$work/tiny" "${ask[@]}" -o "$work/many.json" --parallel 7
cmp -s "$work/one.json.jsonl" "$work/many.json.jsonl"
note $? "one after the other the answers are the same as 7 at once"
[[ $(wc -l <"$work/one.json.jsonl") == 13 ]]
note $? "a line for each of 12 questions behind the first"
[[ $(grep -c '"task":"own","subject":"[ab]"' "$work/one.json.jsonl") == 6 && $(grep -c '"subject":"b"' "$work/one.json.jsonl") == 3 ]]
note $? "subjects take turns"
diff <(grep -v '"seconds"' "$work/one.json") <(grep -v '"seconds"' "$work/many.json") >/dev/null
note $? "and so are the results"

# Choices of one token each come out of one pass; beside a longer one they are scored one by one, with the same log-likelihoods.
sed '/^choice:/d; s/^kind:.*/&\nchoice: y\nchoice: n/' "$work/own.task" >"$work/letters.task"
printf '\n[choice]\n{choice}\n' >>"$work/letters.task"
sed 's/^choice: n/&\nchoice: longer/' "$work/letters.task" >"$work/longer.task"
for task in letters longer; do
    run 0 eval "$work/tiny" --data "$data" --task-file "$work/$task.task" -o "$work/$task.json"
    sed -nE 's/.*"logprobs":\[([^],]*),([^],]*).*/\1 \2/p' "$work/$task.json.jsonl" >"$work/$task.txt"
done
paste "$work/letters.txt" "$work/longer.txt" | awk 'function far(a, b) { return a - b > 1e-4 || b - a > 1e-4 }
    far($1, $3) || far($2, $4) || NF != 4 { wrong = 1 } END { exit wrong || NR != 18 }'
note $? "log-likelihoods of one pass: $(paste "$work/letters.txt" "$work/longer.txt" | head -n 3)"

# Killed at a random point and taken up: nothing is asked twice, and the files are the same. VKMOE_KILLS=50 tries so many points.
RANDOM=${VKMOE_SEED:-7}
points=""
for ((k = 0; k < ${VKMOE_KILLS:-2}; k++)); do
    rm -f "$work"/killed.json*
    lines=$((RANDOM % 14)) later=$(printf '0.%03d' $((RANDOM % 100)))
    "$VKMOE" eval "$work/tiny" "${ask[@]}" -o "$work/killed.json" --parallel $((1 + RANDOM % 5)) >/dev/null 2>&1 &
    pid=$!
    until [[ -e $work/killed.json.jsonl && $(wc -l <"$work/killed.json.jsonl") -ge $lines ]] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
    sleep "$later"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    points+=" $(cat "$work/killed.json.jsonl" 2>/dev/null | wc -l)"
    [[ $k != 0 || ! -s $work/killed.json.jsonl ]] || truncate -s -1 "$work/killed.json.jsonl" # as if in the middle of a line
    run 0 eval "$work/tiny" "${ask[@]}" -o "$work/killed.json"
    [[ ${points##* } -lt 3 ]] || says "$err" "answers are those of an earlier run"
    cmp -s "$work/killed.json.jsonl" "$work/one.json.jsonl" &&
        cmp -s <(grep -v '"seconds"' "$work/killed.json") <(grep -v '"seconds"' "$work/one.json")
    note $? "killed at line${points##* } of 13, it does not end the same"
done
echo "killed when the journal had lines:$points"
refused 1 "holds answers of another evaluation" eval "$work/dense" "${ask[@]}" -o "$work/killed.json"

# A finished evaluation that is asked for again asks nothing; a score of one question has no error.
run 0 eval "$work/tiny" "${ask[@]}" -o "$work/killed.json"
says "$err" "answers are those of an earlier run"
run 0 eval "$work/dense" --data "$data" --task-file "$work/own.task" --limit 1 -o "$work/single.json"
says_not "$out" "±"
says_not "$(cat "$work/single.json")" '"stderr"'

# Shots, chat, prompts that are too long.
run 0 eval "$work/dense" --data "$data" --task-file "$work/own.task" --limit 4 --chat --template plain --name chatty -o "$work/chat.json" --json
says "$(cat "$work/chat.json")" '"template": "plain"'
says "$out" '"task": "own"'
run 0 eval "$work/dense" --data "$data" --tasks gsm8k --shots 2 --limit 3 --context 300 -o "$work/cut.json"
says "$(cat "$work/cut.json")" '"cut": 3'
says "$(cat "$work/cut.json.jsonl")" 'Or.\n#### 2\n\nQuestion: 1 and 1?\nAnswer:"'

# A task that cannot be asked is left out with a line; the others go on, and the exit status tells.
run 1 eval "$work/dense" --data "$data" --tasks piqa,naturalquestions,humaneval --limit 2 --context 200 -o "$work/some.json"
says "$err" "piqa: no data: there is no piqa/dev.jsonl"
says "$err" "humaneval: runs programs that the model writes; --allow-code-execution allows it"
says "$out" "NaturalQuestions"
says "$(cat "$work/some.json")" '"error": "piqa: no data'
echo '{"question": "x"}' >>"$data/gsm8k/test.jsonl"
run 1 eval "$work/dense" --data "$data" --tasks gsm8k,naturalquestions --context 300 -o "$work/record.json"
says "$err" 'gsm8k/test.jsonl:10: the record has no text "answer"'
says "$out" "NaturalQuestions"
run 1 eval "$work/dense" --data "$work/none" --tasks arc_easy -o "$work/none.json"
says "$err" "none of the tasks can be asked"

# Reports.
run 0 eval report "$work/one.json" "$work/chat.json" --png "$work/table.png"
says "$out" "Activated parameters"
says "$out" "chatty"
says "$out" "Own *"
[[ $(head -c 4 "$work/table.png" | tail -c 3) == PNG ]]
note $? "a picture"
run 0 eval report "$work/one.json" "$work/many.json" --json
says "$(tr -s ' \n' ' ' <<<"$out")" '"models": [ '
says "$out" '"name": "Own"'
run 2 eval report "$work/one.json" --md --json
run 0 eval report "$work/one.json" "$work/many.json" --md
says "$out" "| NaturalQuestions (em, 0-shot) | **"
refused 1 "holds no results" eval report "$work/tiny/config.json"

echo old >"$work/picture"
ln -s picture "$work/link.png"
run 0 eval report "$work/one.json" --png "$work/link.png"
[[ -L $work/link.png && $(head -c 4 "$work/picture" | tail -c 3) == PNG ]]
note $? "a link is replaced and not what it leads to"

# Wrong use.
refused 2 "--data names the folder" eval "$work/tiny"
refused 2 "one model at a time" eval "$work/tiny" "$work/dense" --data "$data"
refused 2 "report needs files" eval report
refused 2 "--limit is of no use to \`eval report\`" eval report "$work/one.json" --limit 1
refused 2 "--chat is of no use to \`eval report\`" eval report "$work/one.json" --chat
refused 2 "--md is of no use to \`eval tasks\`" eval tasks --md
refused 2 "there is no task mmul; those built in are hellaswag, piqa" eval "$work/tiny" --data "$data" --tasks mmul
sed -i 's/^kind/kinds/' "$work/own.task"
refused 1 "own.task:4: there is no key \"kinds\"" eval "$work/tiny" --data "$data" --task-file "$work/own.task"
run 0 eval tasks
[[ $(wc -l <"$work/out") == 19 ]]
note $? "nineteen tasks"
finish
