# The longer commands of chat on a tiny random model, from a pipe: what a turn reads again, saved conversations, files, adapters, stop
# texts, the picture of experts, an overflowing context. $VKMOE is the program, the working directory the build folder.
work=test-conversation
. "${BASH_SOURCE%/*}/check.sh"

talk() { # talk STATUS INPUT FLAGS...: answers in the array `answer`, their figures in `read` and `kept`, the rest in $err
    local expected=$1 input=$2 status
    shift 2
    printf "$input" >"$work/in"
    "$VKMOE" chat "$model" --temperature 0 -n 10 --json "$@" <"$work/in" >"$work/out" 2>"$work/err"
    status=$?
    err=$(tr -d '\0' <"$work/err")
    [[ $status == "$expected" ]]
    note $? "'$input' left with $status, not $expected: $err"
    mapfile -t answer < <(sed 's/, "stopped.*//' "$work/out")
    mapfile -t read < <(sed -E 's/.*"prompt_tokens": ([0-9]+).*/\1/' "$work/out")
    mapfile -t kept < <(sed -E 's/.*"cached_tokens": ([0-9]+).*/\1/' "$work/out")
}
is() { # is FOUND EXPECTED WHAT
    [[ $1 == "$2" ]]
    note $? "$3: '$1', not '$2'"
}
is_not() {
    [[ $1 != "$2" ]]
    note $? "$3: both '$1'"
}
lines() { wc -l <"$work/$1"; }

if ! "$VKMOE" devices >"$work/out" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/out")"
    exit 77
fi
"$VKMOE" init --preset tiny-moe --out "$work/tiny" --seed 3 >/dev/null 2>&1
"$VKMOE" init --preset tiny-moe --out "$work/other" --seed 4 >/dev/null 2>&1
model=$work/tiny

# Only what is new goes through the model: the last token of an answer, the token that ends it, and the message. The random model says
# bytes that are no text and would come back as other tokens: the answers' own must have been kept.
talk 0 'one\ntwo\nthree\n/undo\nthree\n/regen\n/edit THREE\n/edit three\n/system hey\nfour\n/set\n'
is "${read[0]} ${kept[0]}" "4 0" "tokens read and kept at first"
is "${read[1]} ${kept[1]}" "6 13" "at the second message"
is "${read[2]} ${kept[2]}" "8 28" "at the third"
is "${read[3]}" 1 "after /undo and the same again"
is "${read[4]}" 1 "at /regen"
is "${read[5]}" 6 "at /edit"
is "${answer[3]}" "${answer[2]}" "the same message after /undo"
is "${answer[4]}" "${answer[2]}" "/regen without temperature"
is_not "${answer[5]}" "${answer[2]}" "/edit asks something else"
is "${answer[6]}" "${answer[2]}" "/edit back to what it was"
is "${kept[7]}" 0 "a new system message is in front of all"
says "$err" "system: hey"
talk 0 '/edit x\n/edit\n/regen\n'
says "$err" "there is no message to edit"
talk 1 'one\n/edit\n'
says "$err" "/edit TEXT puts TEXT in its place"

# Saved and loaded: the same goes on, nothing is read again; settings come back too.
talk 0 'one\ntwo\n/set stop zzz\\n\n/set top-k 7\n/system off\n/save '"$work"'/a.chat\nthree\n'
want=${answer[2]}
is "$(head -c 8 "$work/a.chat")" VKMOECHT "the first bytes of a saved conversation"
says "$err" "4 messages, keys and values of 28 tokens"
[[ -z $(find "$work" -name '*.tmp*') ]]
note $? "a temporary file is left"
talk 0 "/load $work/a.chat\nthree\n/set\n/undo\n/undo\n/undo\n/undo\n"
is "${answer[0]}" "$want" "the answer after /load"
is "${read[0]} ${kept[0]}" "8 28" "tokens read and kept after /load"
says "$err" 'top-k 7'
says "$err" 'stop "zzz\n"'
says "$err" "there is nothing to take back"
talk 0 'three\n' --load "$work/a.chat"
is "${answer[0]}" "$want" "the answer after --load"
talk 0 'three\n' --load "$work/a.chat" --context 256
is "${answer[0]} ${kept[0]}" "$want 28" "in another context"
talk 0 'three\n' --load "$work/a.chat" --context 20
says "$err" "the first"
# Settings count together, not one after the other; stop texts come back as they are.
talk 0 "/set top-k 40\n/save $work/s.chat\n" --stop off --stop 'a\\n\\\\' --stop 'x\ny' --stop $'new\nline'
want=$(grep -o 'stop .*' "$work/err")
says "$want" 'stop "off"  stop "a\\n\\\\"  stop "x\ny"  stop "new\nline"'
talk 0 "/load $work/s.chat\n/set\n" --mirostat 5 --stop gone
is "$(grep -o 'stop .*' "$work/err")" "$want" "stop texts after /load"
says "$err" 'top-k 40'
says "$err" 'mirostat 0'
# Weights held in another type: the words are taken, the keys and values are not.
talk 0 'three\n' --load "$work/a.chat" --type bf16
is "${kept[0]}" 0 "keys and values of other weights"
says "$err" "held in another type"
talk 0 '/save '"$work"'/a.chat\n'
says "$err" "0 messages, keys and values of 0 tokens"
talk 0 "/load $work/a.chat\none\n"
says "$err" "there are none in the file"

# Refused: another model, a file cut or changed, no conversation at all, and nothing of another kind is written over.
talk 0 'one\n/save '"$work"'/a.chat\n'
cp "$work/a.chat" "$work/cut.chat"
truncate -s -1 "$work/cut.chat"
cp "$work/a.chat" "$work/bad.chat"
printf 'X' | dd of="$work/bad.chat" bs=1 seek=300 conv=notrunc status=none
sum=$(cksum <"$work/tiny/config.json")
talk 1 "one\n/load $work/cut.chat\n/load $work/bad.chat\n/load $work/tiny/config.json\n/load $work/none\n/load\n/save\n/save $work/tiny/config.json\n/save $work/no/a.chat\n/regen\n"
for part in "cut.chat: has " "it is not whole" "bad.chat: is damaged" "is no saved conversation" "cannot be opened" "/load FILE" \
    "/save FILE" "another name, please" "cannot be created"; do
    says "$err" "$part"
done
is "$(cksum <"$work/tiny/config.json")" "$sum" "a file that is no conversation"
is "${answer[1]}" "${answer[0]}" "the conversation after all that was refused"
model=$work/other
talk 1 "/load $work/a.chat\n"
says "$err" "is a conversation with another model"
talk 1 'hi\n' --load "$work/a.chat"
is "$(lines out)" 0 "answers after --load was refused"
model=$work/tiny

# Files before a message.
printf 'a text of some words, 中文 too\n' >"$work/text"
printf '\xff\xfe' >"$work/binary"
: >"$work/empty"
head -c 600 /dev/zero | tr '\0' a >"$work/long"
talk 1 "/read $work/text\n/show\nwhat is it?\nnext\n/read $work/binary\n/read $work/empty\n/read $work/long\n/read $work/none\n/read\n/read $work/text\n/clear\nnext\n"
says "$err" "text: 33 tokens, 33 bytes"
says "$err" "attached  33 bytes"
is "${read[0]}" 46 "tokens of a file and a question"
for part in "binary: byte 0: this is no UTF-8 text" "is empty" "long: has 600 tokens; 384 fit" "cannot be opened" "/read FILE"; do
    says "$err" "$part"
done
is "${read[2]}" 5 "/clear forgets an attached file"

# Stop texts, whole and in pieces; what might have become one comes out when it does not.
talk 0 'one\n'
all=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["text"])' "$work/out" 2>/dev/null) || all=
if [[ -n $all ]]; then
    part=$(python3 -c 'import sys; t = sys.argv[1]; print(t[4:6])' "$all")
    before=$(python3 -c 'import sys; t = sys.argv[1]; print(t[:4])' "$all")
    talk 0 "/set stop ${part}#nothing\n/set stop $part\none\n/set stop off\n/regen\n"
    is "$(python3 -c 'import json,sys; print(json.loads(open(sys.argv[1]).readline())["text"])' "$work/out")" "$before" "text before a stop text"
    says "$(head -n 1 "$work/out")" '"stopped": "stop"'
    says "$(tail -n 1 "$work/out")" '"stopped": "length"'
    printf "/set stop ${part}#nothing\none\n" >"$work/in"
    "$VKMOE" chat "$model" --temperature 0 -n 10 <"$work/in" >"$work/out" 2>/dev/null
    is "$(<"$work/out")" "$all" "a stop text that does not come"
else
    echo "SKIP: stop texts, because there is no python3"
fi
talk 1 '/set stop \n/set temperature 101\n/set seed 1.5\n/set max-tokens 3\none\n'
for part in "an empty text" "temperature takes a number between 0 and 100" "seed takes a whole number"; do says "$err" "$part"; done
says "$(<"$work/out")" '"tokens": 3,'

# Adapters come, go, and have a scale, while the conversation stays.
printf '{"text": "hello world"}\n' >"$work/data.jsonl"
"$VKMOE" train "$model" --data "$work/data.jsonl" --out "$work/adapter" --method lora --lora-rank 4 --steps 2 --batch 1 --context 32 \
    --lr 0.05 >"$work/out" 2>&1
note $? "an adapter is made: $(tail -n 1 "$work/out")"
talk 1 "one\n/adapter 2\n/adapter $work/adapter\n/regen\n/adapter 0\n/regen\n/adapter 1\n/regen\n/adapter $work/none\n/adapter 1e9\n/regen\n/save $work/b.chat\n/adapter off\n/regen\n/load $work/b.chat\n"
is_not "${answer[1]}" "${answer[0]}" "with an adapter"
is "${answer[2]}" "${answer[0]}" "with an adapter at scale 0"
is "${answer[3]}" "${answer[1]}" "with an adapter at scale 1"
is "${answer[4]}" "${answer[1]}" "after another adapter was refused"
is "${answer[5]}" "${answer[0]}" "with the adapter off"
for part in "there is no adapter whose scale" "rank 4, scale 0" "none/adapter_config.json: cannot be opened" "between -100 and 100" \
    "adapter: none" "b.chat: was held with an adapter"; do
    says "$err" "$part"
done
want=${answer[1]}
talk 0 "/regen\n/adapter 0.5\n/save $work/b.chat\n" --adapter "$work/adapter" --load "$work/b.chat"
is "${answer[0]}" "$want" "the conversation with its adapter"
talk 0 "/show\n" --adapter "$work/adapter" --load "$work/b.chat"
says "$err" "adapter, rank 4, scale 0.5"
talk 1 '' --load "$work/a.chat" --adapter "$work/adapter"
says "$err" "was held without an adapter"
sed -i 's/"bias"/"colour": "red", "bias"/' "$work/adapter/adapter_config.json"
talk 0 "one\n" --adapter "$work/adapter"
says "$err" "adapter_config.json: not known and not used: colour"

# What there is to see.
talk 1 "/experts\none\n/show\n/experts $work/e.png\n/experts $work/e.gif\n/experts $work/no/e.png\n/help\n"
for part in "there is no answer yet" "model     $model: deepseek" "template  plain" "of 512 tokens" "e.png: written" "ends in .png" "/no/e.png" \
    "/adapter" "/save"; do
    says "$err" "$part"
done
is "$(head -c 4 "$work/e.png" | od -An -tx1)" " 89 50 4e 47" "the picture's first bytes"
says_not "$err" $'\033'

# The context fills up: half of it is freed at once, so that the turns after that read only what is new; the system message stays.
talk 0 '0123456789\n0123456789\n0123456789\n0123456789\n0123456789\n/show\n' --context 80 --system Sys
is "$(lines out)" 5 "answers in a context that overflows"
says "$err" "the context of 80 tokens is full: the first 4 messages are left out from here on"
says "$err" "system    Sys"
is "$(grep -c 'is full' "$work/err")" 1 "times that it is said"
is "${read[4]}" 13 "tokens read after that"
# In the middle of an answer.
talk 0 '0123456789\n/set max-tokens 60\nab\n' --context 64
says "$err" "the context of 64 tokens is full: the first 2 messages are left out from here on"
says "$(tail -n 1 "$work/out")" '"stopped": "'
talk 0 '/set max-tokens 100\nab\n' --context 32
says "$(<"$work/out")" '"stopped": "context", '

finish
