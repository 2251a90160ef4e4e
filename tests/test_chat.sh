# chat, generate, score and devices on a tiny random model: what scripts rely on, what is refused and in which words, and that Ctrl-C stops
# an answer and not the program. $VKMOE is the program, the working directory the build folder.
work=test-chat
. "${BASH_SOURCE%/*}/check.sh"

input() { printf "$@" >"$work/in"; }

input ''
if ! "$VKMOE" devices >"$work/out" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/out")"
    exit 77
fi
run 0 init --preset tiny-moe --out "$work/tiny" --seed 3
tiny=$work/tiny

# devices
run 0 devices --json
for key in '"name"' '"subgroup_size"' '"coopmat"' '"why"' '"memory_bytes"' '"timestamps"'; do says "$out" "$key"; done
VKMOE_OFF=subgroup,f16 run 0 devices
says "$out" "switched off by VKMOE_OFF"
VKMOE_OFF=,f16 run 0 devices
says_not "$err" "there is no capability"
VKMOE_SUBGROUP_SIZE=abc run 0 devices
says "$err" "warning: VKMOE_SUBGROUP_SIZE=abc: a power of two from "
VKMOE_OFF=subgrop run 0 devices
says "$err" "there is no capability 'subgrop'"
run 0 devices --device 0
says "$out" "  0  "
refused 1 "no Vulkan device 77" devices --device 77

# generate: keys, ids that repeat, the prompt from wherever it comes, an end that comes when told
run 0 generate "$tiny" -p abc -n 8 --temperature 0 --json
for key in text ids prompt_tokens_per_second tokens_per_second; do says "$out" "\"$key\": "; done
greedy=${out#*\"ids\": } greedy=${greedy%%]*}
says_not "$out" "nan"
input 'abc'
run 0 generate "$tiny" -n 8 --temperature 0 --json
says "$out" "\"ids\": $greedy]"
run 0 generate "$tiny" --file "$work/in" -n 8 --temperature 0.001 --json
says "$out" "\"ids\": $greedy]"
run 0 generate "$tiny" -p abc -n 8 --top-k 1 --json
says "$out" "\"ids\": $greedy]"
run 0 generate "$tiny" -p abc -n 20 --seed 5 --json
first=${out#*\"ids\": } first=${first%%]*}
run 0 generate "$tiny" -p abc -n 20 --seed 5 --json
says "$out" "\"ids\": $first]"
run 0 generate "$tiny" -p abc -n 20 --seed 6 --json
says_not "$out" "\"ids\": $first]"
run 0 generate "$tiny" -p abc -n 40 --ignore-eos --temperature 3 --top-p 1 --json
says "$out" '"tokens": 40,'
run 0 generate "$tiny" -p abc -n 600 --ignore-eos --context 50 --json
says "$out" '"tokens": 48,'
says "$out" '"stopped": "context"'
run 0 generate "$tiny" -p abc -n 3 --chat --system 'Be kind.'
says "$err" "answer "

run 0 generate "$tiny" -p abc -n 1 --ignore-eos
says "$err" "answer 1 token"
says_not "$err" "answer 1 token,"
if command -v script >/dev/null; then # who is to type the prompt is told so
    out=$(printf 'abc\004\004' | timeout 120 script -qec "'$VKMOE' generate '$tiny' -n 2" /dev/null 2>&1 | tr -d '\0')
    says "$out" "Ctrl-D ends it (or -p TEXT)"
fi

# generate: refusals
refused 1 "prompt is empty" generate "$tiny" -p ''
refused 1 "prompt is empty" generate "$tiny" --file /dev/null
refused 1 "none is left for an answer" generate "$tiny" -p abcdef --context 4
refused 1 "the context of $tiny is 512" generate "$tiny" -p a --context 4096
head -c 4000 "$VKMOE" | od -An -tx1 -v >"$work/long"
refused 1 "the context of $tiny is 512" generate "$tiny" --file "$work/long"
refused 1 "no Vulkan device 77" generate "$tiny" -p a --device 77
refused 1 "no Vulkan device abacus" generate "$tiny" -p a --device abacus
refused 1 "no-such-adapter" generate "$tiny" -p a --adapter no-such-adapter
run 2 generate "$tiny" -p a --file "$work/in"
run 2 generate "$tiny" -p a --raw --chat
# Too little memory: the figure, before anything is loaded. 20 MiB are less than the smallest arena.
export VKMOE_MEMORY_MIB=20
refused 1 "and " generate "$tiny" -p a
says "$err" "needs "
says "$err" " has 20.0 MiB"
unset VKMOE_MEMORY_MIB
# A tokenizer with more tokens than the embedding has rows.
cp -r "$tiny" "$work/mixed"
cp "$VKMOE_SOURCE_DIR/tests/golden/tokenizer/gpt2/tokenizer.json" "$work/mixed/tokenizer.json"
rm "$work/mixed/tokenizer_config.json"
refused 1 "has only 512 rows" generate "$work/mixed" -p a
# Weights that are not numbers: told, not drawn from.
cp -r "$tiny" "$work/nan"
bytes=$(stat -c %s "$work/nan/model.safetensors")
head -c 200000 /dev/zero | tr '\0' '\377' | dd of="$work/nan/model.safetensors" bs=1 seek=$((bytes - 200000)) conv=notrunc status=none
refused 1 "not finite" generate "$work/nan" -p a

# score
head -c 100 "$work/long" | tr -d '\n' >"$work/text"
run 0 score "$tiny" --file "$work/text" --json --window 16
for key in tokens nll perplexity id logprob; do says "$out" "\"$key\": "; done
run 0 score "$tiny" --file "$work/text" --json --limit 33 --window 16
says "$out" '"tokens": 30,'
refused 1 "empty text" score "$tiny" --file /dev/null
refused 1 "one token" score "$tiny" --file "$work/text" --limit 1
refused 1 "--window 513" score "$tiny" --file "$work/text" --window 513
# A context of one token, which the token that begins a text fills.
cp -r "$tiny" "$work/short"
sed -i 's/\("max_position_embeddings": \)[0-9]*/\11/' "$work/short/config.json"
sed -i 's/\("add_bos_token": \)false/\1true/' "$work/short/tokenizer_config.json"
refused 1 "a context of one token" score "$work/short" --file "$work/text"
printf '{"text": "hello"}' >"$work/short.jsonl"
refused 1 "a context of one token" train "$work/short" --data "$work/short.jsonl" --out "$work/new" --overlong split
refused 1 "not finite" score "$work/nan" --file "$work/text"

# chat's context, where none is asked for
run 0 chat --help
says "$(tr -s ' \n' ' ' <<<"$out")" "(default: the model's, at most 4096)"
# chat from a pipe: a line is a message, stdout holds answers alone
input 'Hello there\n\nAnd you?\n'
run 0 chat "$tiny" -n 6 --json
[[ $(grep -c '"tokens_per_second"' "$work/out") == 2 && $(wc -l <"$work/out") == 2 ]]
note $? "two answers, one line each: '$out'"
run 0 chat "$tiny" -n 6
says_not "$out" "> "
says_not "$out" "tokens, "
says "$err" "tokens, "
LC_ALL=C.UTF-8 iconv -f UTF-8 -t UTF-8 "$work/out" >/dev/null
note $? "the answers are valid UTF-8"

# The same conversation again, by going back: the same greedy answer; another seed stream by /regen.
input 'one\ntwo\n/undo\ntwo\n/regen\n/clear\none\ntwo\n'
run 0 chat "$tiny" -n 10 --temperature 0 --json
mapfile -t answer < <(sed 's/, "stopped.*//' "$work/out")
[[ ${#answer[@]} == 6 && ${answer[1]} == "${answer[2]}" && ${answer[2]} == "${answer[3]}" ]]
note $? "undo and regen give the same greedy answer: '$out'"
[[ ${answer[0]} == "${answer[4]}" && ${answer[1]} == "${answer[5]}" ]]
note $? "a conversation begun anew gives the same answers: '$out'"
input 'one\n/regen\n'
run 0 chat "$tiny" -n 10 --temperature 2 --json
[[ $(sed 's/, "stopped.*//' "$work/out" | sort -u | wc -l) == 2 ]]
note $? "/regen draws another answer: '$out'"

input 'hi\n/experts\n/set temperature 0.25\n/set top-k -1\n/set seed 7\n/set colour 1\n/system Be kind.\n/system off\n/nonsense\n/undo\n/undo\n/regen\n/help\n/quit\nnever read\n'
run 1 chat "$tiny" -n 4
says "$err" "layer  1 "
says "$err" "3 of 8 experts each"
says "$err" "temperature 0.25"
says "$err" "top-k takes a whole number"
says "$err" "seed 7"
says "$err" "there is no setting 'colour'; there are max-tokens, temperature"
says "$err" "system: Be kind."
says "$err" "no system message"
says "$err" "there is no command /nonsense"
says "$err" "taken back; 0 messages remain"
says "$err" "there is nothing to take back"
says "$err" "there is nothing to answer again"
says "$err" "/experts"
[[ $(grep -c "/s; prompt" "$work/err") == 1 ]]
note $? "/quit ends the program: '$err'"

# The context fills up: old turns are left out and it is said; a message that cannot fit is told and the next one answered.
input '0123456789\n0123456789\n0123456789\n0123456789\n'
run 0 chat "$tiny" -n 8 --context 64 --json
[[ $(wc -l <"$work/out") == 4 ]]
note $? "every message is answered although the context is full: '$out$err'"
says "$err" "the context of 64 tokens is full: the first 4 messages are left out"
input '%080d\nhi\n' 0
run 1 chat "$tiny" -n 4 --context 64 --json
says "$err" "this message has "
[[ $(wc -l <"$work/out") == 2 && $out == '{"error": "this message has '*$'\n{"text": '* ]]
note $? "a line for the message that is too long, and the next is answered: '$out$err'"
# What is refused in a pipe is seen from the exit status.
for line in '/nosuch' '/set temperature 1000' '/set colour 1' '/set stop' '/undo 3' '/clear now' 'hi\n/edit'; do
    input "$line\n"
    run 1 chat "$tiny" -n 2
done
input 'hi\n'
run 1 chat "$tiny" -n 2 --template mistral --system S --json
says "$out" '{"error": "'
input '/undo\n/clear\n/regen\n/set\n/quit\n'
run 0 chat "$tiny" -n 2
input '"""\n/two lines\nof text"""\n//slash\n'
run 0 chat "$tiny" -n 4 --json
[[ $(wc -l <"$work/out") == 2 ]]
note $? "a message of two lines is one message: '$out$err'"

# Ctrl-C: the answer stops, the next message is answered.
mkfifo "$work/fifo"
"$VKMOE" chat "$tiny" -n 100000 --temperature 0 <"$work/fifo" >"$work/out" 2>"$work/err" &
chat=$!
exec 3>"$work/fifo"
printf 'hello\n' >&3
for ((i = 0; i < 600; i++)); do
    [[ -s $work/out ]] && break
    sleep 0.1
done
kill -INT $chat
for ((i = 0; i < 600; i++)); do
    grep -q "/s; prompt" "$work/err" && break
    sleep 0.1
done
printf '/set max-tokens 3\nagain\n' >&3
exec 3>&-
wait $chat
note $? "chat ends well after Ctrl-C: $(<"$work/err")"
[[ $(grep -c "/s; prompt" "$work/err") == 2 ]]
note $? "two answers, one of them stopped: $(<"$work/err")"

# A terminal: the prompt, editing, history; Ctrl-D ends.
if command -v script >/dev/null; then
    (printf 'helxx\b\blo\r/quit\r' | timeout 120 script -qec "'$VKMOE' chat '$tiny' -n 3" /dev/null >"$work/out" 2>&1)
    out=$(tr -d '\0' <"$work/out")
    says "$out" "/help lists the commands"
    says "$out" "tokens, "
    grep -q hello "$VKMOE_CACHE/history"
    note $? "the history holds the edited line"
else
    echo "SKIP: no program 'script' to make a terminal with"
fi

finish
