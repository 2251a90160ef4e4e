# --tune from outside: an answer and trained weights are the same, byte for byte, with what was measured as without; the second run measures
# nothing; a damaged file is told and not used; what is refused. $VKMOE is the program, the working directory the build folder.
work=test-tuning
. "${BASH_SOURCE%/*}/check.sh"

if ! "$VKMOE" devices >"$work/out" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/out")"
    exit 77
fi
# A folder of its own, with what the suite knows about kernels already.
mkdir -p "$work/cache"
cp "$VKMOE_CACHE"/{kernels,pipelines}-* "$work/cache" 2>/dev/null
export VKMOE_CACHE=$PWD/$work/cache
run 0 init --preset tiny-moe --out "$work/tiny" --seed 4
prompt=$(printf 'word %d ' {1..30})
say() { run 0 generate "$work/tiny" -p "$prompt" -n 6 --temperature 0 --json "$@"; }
ids() { sed -nE 's/.*"ids": (\[[^]]*\]).*/\1/p' "$work/out"; }

say --tune off
plain=$(ids)
[[ -n $plain && -z $(compgen -G "$VKMOE_CACHE/tiles-*") ]]
note $? "off: an answer, and nothing measured"
say
[[ -z $(compgen -G "$VKMOE_CACHE/tiles-*") ]] || "$VKMOE" devices --json | grep -q '"kind": "\(discrete\|integrated\)"'
note $? "a processor does not measure unless it is told to"
say --tune 600
[[ $(ids) == "$plain" ]]
note $? "the answer depends on what was measured: $(ids), $plain"
file=$(compgen -G "$VKMOE_CACHE/tiles-*")
[[ $(wc -l <"$file") -gt 1 ]]
note $? "nothing was kept"
cp "$file" "$work/kept"
say --tune 600
[[ $(ids) == "$plain" ]] && cmp -s "$file" "$work/kept"
note $? "the second run measured again, or says something else"

printf '{"prompt": "one two three", "completion": "four five six"}\n%.0s' {1..6} >"$work/data.jsonl"
learn() { run 0 train "$work/tiny" --data "$work/data.jsonl" --out "$work/$1" --context 64 --batch 2 --steps 2 --lr 1e-3 "${@:2}"; }
learn without --tune off
learn with --tune 10
cmp -s "$work/without/model.safetensors" "$work/with/model.safetensors"
note $? "trained weights depend on what was measured"

sed -i '2s/ / x/' "$file"
say --tune 0
[[ $(ids) == "$plain" ]]
note $? "a damaged file changes the answer"
says "$err" "is damaged or of another driver: it is not used"
refused 2 "--tune soon: off, auto or a number of seconds" generate "$work/tiny" -p x -n 1 --tune soon
refused 2 "--tune -1: off, auto or" generate "$work/tiny" -p x -n 1 --tune -1
finish
