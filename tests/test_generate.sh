# generate on a tiny random model, beyond what test_chat.sh has: many prompts at once, stop strings, how tokens are drawn, alternatives of a
# token, grammars, and what is refused. $VKMOE is the program, the working directory the build folder.
work=test-generate
. "${BASH_SOURCE%/*}/check.sh"

: >"$work/in"
if ! "$VKMOE" devices >"$work/out" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/out")"
    exit 77
fi
run 0 init --preset tiny-moe --out "$work/tiny" --seed 3
tiny=$work/tiny

# A cache that cannot be written is no failure.
VKMOE_CACHE=/dev/null/none run 0 generate "$tiny" -p a -n 2
says "$err" "nothing is cached"
[[ $(grep -c '^vkmoe: ' <<<"$err") == 1 ]] && grep -q '^vkmoe: warning: ' <<<"$err"
note $? "not one warning: '$err'"

# Many prompts: an answer each, in their order, the same ones however many run at once and alone.
for ((i = 0; i < 37; i++)); do printf '%*s prompt\n' $((i * 7 % 23 + 1)) "$i"; done >"$work/prompts"
draw=(-n 12 --temperature 1.3 --top-k 300 --repeat-penalty 1.2 --seed 5)
run 0 generate "$tiny" --prompts "$work/prompts" --parallel 32 "${draw[@]}" --json
cp "$work/out" "$work/many"
[[ $(wc -l <"$work/out") == 37 && $(sed -nE 's/^\{"prompt": ([0-9]+), .*/\1/p' "$work/out") == "$(seq 0 36)" ]]
note $? "an object for each prompt, in order"
run 0 generate "$tiny" --prompts "$work/prompts" --parallel 1 "${draw[@]}" --json
cmp -s "$work/out" "$work/many"
note $? "one after the other the answers are the same as 32 at once"
run 0 generate "$tiny" -p "$(head -n 1 "$work/prompts")" "${draw[@]}" --json
ids=${out#*\"ids\": }
says "$(head -n 1 "$work/many")" "\"ids\": ${ids%%]*}]"
run 0 generate "$tiny" --prompts "$work/prompts" -n 3 --temperature 0 
says "$err" "37 prompts, 8 at once"
says_not "$out" "prompts"
# A byte order mark is no part of the first prompt.
head -n 1 "$work/prompts" >"$work/first.txt"
printf '{"prompt": "a"}\n' >"$work/first.jsonl"
for file in first.txt first.jsonl; do
    printf '\xef\xbb\xbf' | cat - "$work/$file" >"$work/marked-$file"
    for flag in --prompts --file; do
        run 0 generate "$tiny" $flag "$work/$file" -n 3 --temperature 0 --json
        plain=$(grep -o '"prompt_tokens": [0-9]*' <<<"$out")
        run 0 generate "$tiny" $flag "$work/marked-$file" -n 3 --temperature 0 --json
        [[ -n $plain && $(grep -o '"prompt_tokens": [0-9]*' <<<"$out") == "$plain" ]]
        note $? "$flag $file with a mark: $plain and $out"
    done
done

# Records: a prompt or a conversation a line.
printf '%s\r\n\n%s\n' '{"id": 7, "prompt": "one"}' '{"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}, {"role": "user", "content": "four"}]}' >"$work/records.jsonl"
run 0 generate "$tiny" --prompts "$work/records.jsonl" --chat -n 3 --json
[[ $(wc -l <"$work/out") == 2 ]]
note $? "two records, two answers: '$out'"
refused 1 'records.jsonl:3: "messages" needs --chat' generate "$tiny" --prompts "$work/records.jsonl" -n 3
printf '{"prompt": "one"}\n{"prompt": 2}\n' >"$work/bad.jsonl"
printf '%s\n' '{"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}]}' >"$work/answered.jsonl"
refused 1 "answered.jsonl:1: the last message is the assistant's" generate "$tiny" --prompts "$work/answered.jsonl" --chat --template plain -n 3
refused 1 'bad.jsonl:2: expected an object with the text "prompt"' generate "$tiny" --prompts "$work/bad.jsonl"
printf '{"prompt": "one"}\n{"prompt": ' >"$work/bad.jsonl"
refused 1 'bad.jsonl:2' generate "$tiny" --prompts "$work/bad.jsonl"
printf '\n\n' >"$work/blank"
refused 1 "holds no prompt" generate "$tiny" --prompts "$work/blank"
printf 'short\n%0600d\n' 0 >"$work/long"
refused 1 "long:2 has " generate "$tiny" --prompts "$work/long"
refused 1 "no-such-file" generate "$tiny" --prompts no-such-file
refused 2 "exclude each other" generate "$tiny" --prompts "$work/prompts" -p a
refused 2 "--parallel needs --prompts" generate "$tiny" -p a --parallel 2
refused 2 "between 1 and 32" generate "$tiny" --prompts "$work/prompts" --parallel 33

# Stop strings: the text ends before the first of them, which may begin in one token and end in another.
letters=(-p abc --grammar 'root ::= [a-z]{24}' --temperature 1 --seed 8)
run 0 generate "$tiny" "${letters[@]}"
text=$out
stop=${text:9:3}
run 0 generate "$tiny" "${letters[@]}" --stop "never met" --stop "$stop"
[[ $text =~ ^[a-z]{24}$ && $out == "${text%%"$stop"*}" ]]
note $? "'$text' up to '$stop' is not '$out'"
run 0 generate "$tiny" "${letters[@]}" --stop "$stop" --json
says "$out" '"stopped": "stop"'
says "$out" "\"text\": \"${text%%"$stop"*}\""
run 0 generate "$tiny" "${letters[@]}" --stop "${text: -2}x" --json # its beginning, held back, is let out at the end
says "$out" "\"text\": \"$text\""
refused 2 "an empty text" generate "$tiny" -p a --stop ''
refused 2 "is not UTF-8" generate "$tiny" -p a --stop $'\xff'
# chat knows the same flags.
printf 'hello\n/regen\n' >"$work/in"
letters=() # but for those that JSON's own escapes are made of
for letter in a c d e g h i j k l m o p q s v w x y z; do letters+=(--stop "$letter"); done
run 0 chat "$tiny" -n 60 --temperature 1 --json --mirostat 6 --presence-penalty 0.1 "${letters[@]}"
[[ $(wc -l <"$work/out") == 2 && $(LC_ALL=C cut -c 11- "$work/out" | sed 's/", "stopped.*//') != *[acdeghijklmopqsvwxyz]* ]]
note $? "an answer of chat goes on behind a stop string: '$out'"
says "$out" '"stopped": "stop"'
: >"$work/in"

# Alternatives of each token.
run 0 generate "$tiny" -p abc -n 3 --temperature 0 --top-logprobs 4 --json
[[ $(grep -o '"logprob": ' "$work/out" | wc -l) == 12 ]]
note $? "four alternatives for each of three tokens: '$out'"
first=${out#*\"ids\": [} first=${first%%,*}
says "$out" "\"top_logprobs\": [[{\"id\": $first, \"token\": "
refused 2 "--top-logprobs needs --json" generate "$tiny" -p a --top-logprobs 3

# Drawing: settings that leave the likeliest token alone are greedy.
run 0 generate "$tiny" -p abc -n 8 --temperature 0 --json
ids=${out#*\"ids\": } ids=${ids%%]*}
for flags in "--min-p 1" "--top-p 0.000001" "--mirostat 0.001 --mirostat-rate 0.000001"; do
    read -ra words <<<"$flags"
    run 0 generate "$tiny" -p abc -n 8 --temperature 1 --json "${words[@]}"
    says "$out" "\"ids\": $ids]"
done
run 0 generate "$tiny" -p abc -n 8 --temperature 0 --repeat-penalty 1 --presence-penalty 0 --typical 1 --json
says "$out" "\"ids\": $ids]"
run 0 generate "$tiny" -p abc -n 30 --temperature 0 --presence-penalty 100 --ignore-eos --json
ids=${out#*\"ids\": [} ids=${ids%%]*}
[[ $(tr -d ' ' <<<"$ids" | tr ',' '\n' | sort | uniq -d | wc -l) == 0 ]]
note $? "no token is said twice under a penalty of 100: $ids"
refused 2 "--mirostat and --top-k exclude each other" generate "$tiny" -p a --mirostat 5 --top-k 3
refused 2 "--mirostat-rate needs --mirostat" generate "$tiny" -p a --mirostat-rate 0.2
refused 2 "--typical is between" generate "$tiny" -p a --typical 0
refused 2 "--penalty-window is between" generate "$tiny" -p a --penalty-window 0

# Grammars. This model knows nothing of JSON: all it says is made by the mask, and is whole within its few tokens.
run 0 generate "$tiny" --prompts "$work/prompts" --grammar json --temperature 1 --top-p 1 -n 30 --json
if command -v python3 >/dev/null; then
    python3 -c 'import json, sys
for line in sys.stdin:
    value = json.loads(json.loads(line)["text"])
    assert isinstance(value, dict), value' <"$work/out"
    note $? "an answer is no JSON object: $(head -c 600 "$work/out")"
else
    echo "SKIP: there is no python3 to read the answers as JSON; test_grammar does by jansson"
fi
printf 'root ::= ("yes" | "no") # or neither\n' >"$work/yes.gbnf"
run 0 generate "$tiny" -p abc --grammar "$work/yes.gbnf"
[[ $out == yes || $out == no ]]
note $? "yes or no, not '$out'"
run 0 generate "$tiny" -p abc --grammar 'root ::= [0-9]{3} "漢"'
[[ $out =~ ^[0-9]{3}漢$ ]]
note $? "three digits and a character, not '$out'"
refused 1 "--grammar:1:10: the rule x is not defined" generate "$tiny" -p abc --grammar 'root ::= x'
printf 'root ::= "a"\nb ::= (\n' >"$work/bad.gbnf"
refused 1 "bad.gbnf:3:1: expected ')', found the end" generate "$tiny" -p abc --grammar "$work/bad.gbnf"
refused 1 "left recursion: the rule root" generate "$tiny" -p abc --grammar 'root ::= root "a" | "b"'
refused 1 "never ends" generate "$tiny" -p abc --grammar 'root ::= "a" root'
refused 1 "no-such.gbnf" generate "$tiny" -p abc --grammar no-such.gbnf
refused 2 "exclude each other" generate "$tiny" -p abc --grammar json --ignore-eos

rm -rf "$work"
finish
