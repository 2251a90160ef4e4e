# The commands that need no device, as a script uses them: keys of --json, exit statuses, one clear line for what is wrong, and
# nothing half written. $VKMOE is the program, the working directory the build folder.
work=test-commands
. "${BASH_SOURCE%/*}/check.sh"

# info: the counts of the paper's section 4.1, from the presets.
run 0 info deepseek-moe-16b --json
says "$out" '"total_parameters": 16375728128'
says "$out" '"activated_parameters": 28'
[[ $out =~ \"flops_per_4k_tokens\":\ 759[0-9]+ ]]
note $? "FLOPs of DeepSeekMoE 16B per 4K tokens"
run 0 info llama2-7b --json
says "$out" '"total_parameters": 6738415616'
[[ $out =~ \"flops_per_4k_tokens\":\ 1887[0-9]+ ]]
note $? "FLOPs of LLaMA2 7B per 4K tokens"
run 0 info deepseek-llm-7b
says "$out" "184T per 4K tokens"
for type in f32 bf16 f16 q8_0 q4_1 q4_0 q6_k q5_k q5_1 q5_0 q4_k iq4_nl iq4_xs q3_k q2_k; do
    run 0 info tiny --type $type
    says "$out" "$type  "
done
run 1 info no-such-model
one_line
says "$err" "no-such-model"

# A preset where weights or a tokenizer are needed: what it is, and what makes a model of it.
preset="tiny-moe is a preset: it has no weights and no tokenizer; \`vkmoe init --preset tiny-moe --out DIR\` makes a model of it"
refused 1 "$preset" generate tiny-moe -p a
refused 1 "$preset" tokenize tiny-moe -p a
refused 1 "$preset" convert tiny-moe --out "$work/none"
refused 1 "$preset" quantize tiny-moe --out "$work/none.gguf"
refused 1 "$preset" eval tiny-moe --data "$work" --dry-run
refused 1 "$preset" upcycle tiny-moe --out "$work/none"
refused 1 "$preset" init --out "$work/none" --tokenizer tiny-moe
echo '{"text": "a"}' >"$work/a.jsonl"
refused 1 "$preset" data "$work/a.jsonl" --model tiny-moe
refused 1 "$preset" train tiny-moe --data "$work/a.jsonl" --out "$work/none"
refused 1 "no-such: cannot be opened: No such file or directory" generate no-such -p a
refused 1 "no-such: there is no such file or folder, nor a preset of that name (tiny, " bench model no-such
refused 1 "no-such: there is no such file or folder, nor a preset of that name (tiny, " bench train no-such

# What is no model says what it is, or how to name one.
refused 1 "\`hf download meta-llama/Llama-3-8B --local-dir DIR\`" generate meta-llama/Llama-3-8B -p a
refused 1 "\`hf download meta-llama/Llama-3-8B --local-dir DIR\`" info meta-llama/Llama-3-8B
run 0 init --preset tiny-moe --out "$work/tiny" --seed 3
refused 1 "config.json: is the config of a model alone; name the folder" generate "$work/tiny/config.json" -p a
mv "$work/tiny/config.json" "$work/config"
refused 1 "$work/tiny: no config.json in this folder" generate "$work/tiny" -p a
rm -r "$work/tiny"
mkdir "$work/part"
: >"$work/part/esft.safetensors"
refused 1 "no config.json in this folder; it holds trained experts: \`vkmoe merge" info "$work/part"
: >"$work/part/manifest.sha256"
refused 1 "no config.json in this folder; it is a checkpoint of a run: \`vkmoe train --resume\`" info "$work/part"
for base in BASE hub/name; do
    echo "{\"base_model_name_or_path\": \"$base\"}" >"$work/part/adapter_config.json"
    refused 1 "as in \`vkmoe chat $base --adapter $work/part\`" info "$work/part"
done
rm -r "$work/part"

# init, convert and back: the same weights, the same tokens.
run 0 init --preset tiny-moe --out "$work/tiny" --seed 3
run 0 init --preset tiny-moe --out "$work/again" --seed 3
cmp -s "$work/tiny/model.safetensors" "$work/again/model.safetensors"
note $? "the same seed gives the same file"
refused 2 "--layers 9: tiny has 4" init --preset tiny --layers 9 --out "$work/none"
for flags in "--validate-every 2:needs --validation or --validation-split" "--sample-prompt x:needs --sample-every" \
    "--sample-tokens 4:needs --sample-every" "--epochs 1 --steps 4:--epochs and --steps exclude each other"; do
    # shellcheck disable=SC2086
    refused 2 "${flags#*:}" train tiny --data "$work/a.jsonl" --out "$work/none" --dry-run ${flags%%:*}
done
run 0 init --preset tiny-moe --out "$work/other" --seed 4 --json
says "$out" '"out": "'"$work/other"'", "parameters": '
! cmp -s "$work/tiny/model.safetensors" "$work/other/model.safetensors"
note $? "another seed gives another file"
run 0 convert "$work/tiny" --out "$work/tiny.gguf" --json
[[ $out == '{"out": "'$work/tiny.gguf'", "parameters": '*', "type": "f32"}' ]]
note $? "convert --json: '$out'"
run 0 convert "$work/tiny/" --out "$work/slash.gguf" # a folder's name is its last part
cmp -s "$work/tiny.gguf" "$work/slash.gguf"
note $? "a slash behind the folder's name gives another file"
run 0 convert "$work/tiny.gguf" --out "$work/back"
cmp -s "$work/tiny/model.safetensors" "$work/back/model.safetensors"
note $? "folder, GGUF and folder again hold the same bytes"
run 0 tokenize "$work/tiny" -p $'Hé, wörld!\n' --json
ids=$out
says "$ids" '"ids": [72, 195, 169, 44'
run 0 tokenize "$work/tiny.gguf" -p $'Hé, wörld!\n' --json
[[ $out == "$ids" ]]
note $? "the GGUF's tokenizer agrees with the folder's: $out"
run 0 tokenize "$work/back" --decode "72, 195, 169" --json
says "$out" '"text": "Hé"'
run 0 info "$work/tiny.gguf"
says "$out" "8 routed (3 active) and 2 shared"

# What generation_config.json says of sampling stays.
run 0 init --preset tiny-moe --out "$work/warm"
sed -i 's/^{/{"do_sample": true, "temperature": 0.6, "top_p": 0.95, /' "$work/warm/generation_config.json"
run 0 convert "$work/warm" --out "$work/warm2"
says "$(tr -d '\n' <"$work/warm2/generation_config.json")" '"do_sample": true,  "temperature": 0.6,  "top_p": 0.95,'

# An index beside model.safetensors is left of shards that are no more, and told.
run 0 init --preset tiny-moe --out "$work/stale"
echo '{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}' >"$work/stale/model.safetensors.index.json"
run 0 convert "$work/stale" --out "$work/stale.gguf"
says "$err" "warning: $work/stale: model.safetensors is read, and not the files that model.safetensors.index.json names"
# An empty folder that is there is filled: behind a link, where one stands, where something is mounted. A link to nothing yet leads on.
filled() { # filled FOLDER: the model and nothing else
    cmp -s "$work/tiny/model.safetensors" "$1/model.safetensors" && [[ $(ls -A "$1") == $(ls -A "$work/tiny") ]]
    note $? "$1 is not the model: $(ls -A "$1")"
}
mkdir "$work/room" "$work/here" "$work/mounted" "$work/room/.model.tmp9999999" "$work/file.gguf"
: >"$work/room/.model.tmp9999999/config.json" # of a killed run
ln -s room "$work/to-room"
ln -s nothing "$work/to-nothing"
ln -s nothing.gguf "$work/to-nothing.gguf"
inode=$(stat -c %i "$work/here")
run 0 convert "$work/tiny.gguf" --out "$work/to-room/"
filled "$work/room"
run 0 convert "$work/tiny.gguf" --out "$work/to-nothing"
filled "$work/nothing"
(cd "$work/here" && "$VKMOE" convert ../tiny.gguf --out . 2>../err)
note $? "--out .: $(<"$work/err")"
filled "$work/here"
[[ $(stat -c %i "$work/here") == "$inode" ]]
note $? "the working directory is another one"
run 0 convert "$work/tiny" --out "$work/to-nothing.gguf"
cmp -s "$work/tiny.gguf" "$work/nothing.gguf" && [[ -L $work/to-room && -L $work/to-nothing && -L $work/to-nothing.gguf ]]
note $? "links are replaced"
refused 1 "is a folder" convert "$work/tiny" --out "$work/file.gguf"
refused 1 "is a folder" quantize "$work/tiny" --out "$work/file.gguf"
if mount -t tmpfs -o size=16m tmpfs "$work/mounted" 2>/dev/null; then
    run 0 convert "$work/tiny.gguf" --out "$work/mounted"
    filled "$work/mounted"
    umount "$work/mounted"
else
    echo "SKIP: no right to mount a tmpfs: a folder where one is mounted was not filled"
fi
# A whole model where an adapter is asked for.
refused 1 "$work/tiny: a whole model is no adapter: there is no adapter_config.json" merge "$work/tiny" --adapter "$work/tiny" --out "$work/none"
refused 1 "$work/tiny.gguf: a whole model is no adapter" merge "$work/tiny" --adapter "$work/tiny.gguf" --out "$work/none"

# The tokenizer that init lays down for a while in the cache goes, that of a killed run too; others' stay.
for name in 9999999 $$ mine; do
    mkdir -p "$work/cache/byte-tokenizer-$name"
    : >"$work/cache/byte-tokenizer-$name/tokenizer.json"
done
VKMOE_CACHE=$work/cache run 0 init --preset tiny --out "$work/cached"
left=$(cd "$work/cache" && echo byte-tokenizer-*)
[[ $left == "byte-tokenizer-$$ byte-tokenizer-mine" ]]
note $? "in the cache: $left"

# quantize: to a mix, with what the file says of itself; to a folder, an unknown mix and a matrix that is none are refused.
run 0 quantize "$work/tiny" --out "$work/mixed.gguf" --json
says "$out" '"type": "q4_k_m"}'
says "$err" "parameters as q4_k_m"
run 0 generate "$work/mixed.gguf" -p a -n 2 --temperature 0
run 0 quantize "$work/mixed.gguf" --out "$work/mixed2.gguf" --type q5_0
says "$err" "loses more than quantising the original"
run 0 tokenize "$work/mixed.gguf" -p $'Hé, wörld!\n' --json
[[ $out == "$ids" ]]
note $? "the tokenizer goes along: $out"
run 1 quantize "$work/tiny" --out "$work/new"
one_line
says "$err" "ends in .gguf"
run 2 quantize "$work/tiny" --out "$work/new.gguf" --type q4_k
one_line
run 1 quantize "$work/tiny" --out "$work/new.gguf" --imatrix "$work/tiny/config.json"
one_line
says "$err" "config.json"
run 1 quantize "$work/tiny" --out "$work/mixed.gguf"
one_line
says "$err" "exists already"
[[ ! -e $work/new && ! -e $work/new.gguf ]]
note $? "nothing is made of a refused quantize"

# A GGUF that holds a vocabulary alone is a model where no weights are needed, and refused by name where they are.
vocabulary=$VKMOE_SOURCE_DIR/../shared/data/tokenizer/deepseek-llm/ggml-vocab-deepseek-llm.gguf
if [[ -e $vocabulary ]]; then
    printf 'Hello, w\303\266rld!' >"$work/text"
    run 0 tokenize "$vocabulary" --file "$work/text" --json
    [[ $out == '{"ids": [17464, 11, 259, 100003, 81, 404, 0]}' && -z $err ]]
    note $? "the ids and nothing else: '$out' '$err'"
    run 0 init --preset tiny-moe --tokenizer "$vocabulary" --out "$work/borrowed"
    run 0 tokenize "$work/borrowed" --file "$work/text" --json
    says "$out" '[17464, 11, 259, 100003, 81, 404, 0]'
    for command in "convert --out $work/new" "upcycle --out $work/new" "merge --adapter $work --out $work/new" \
        "generate -p a" chat "score --file $work/text" "train --data $work/text --out $work/new" info; do
        read -ra words <<<"$command"
        run 1 "${words[0]}" "$vocabulary" "${words[@]:1}"
        one_line
        says "$err" "a vocabulary alone"
    done
    [[ ! -e $work/new ]]
    note $? "nothing is made of a vocabulary alone"
else
    echo "SKIP: a vocabulary without weights is not at hand: $vocabulary"
fi

# What is wrong is told in one line and nothing is left behind.
run 1 init --preset tiny --out "$work/tiny"
one_line
says "$err" "$work/tiny"
for command in "train $work/tiny --data $work/tiny/config.json" "convert $work/tiny" "init --preset tiny"; do
    read -ra words <<<"$command"
    refused 2 "--out is empty" "${words[@]}" --out "" # "$UNSET"
done
echo '{"text": "a"}' >"$work/text.jsonl"
refused 1 "Not a directory" train "$work/tiny" --data "$work/text.jsonl" --out "$work/tiny/config.json/run"
run 1 init --preset tiny --out "$work/new" --type q4_0
one_line
[[ ! -e $work/new ]]
note $? "nothing is made when --type is refused"
run 2 init
one_line
run 2 tokenize "$work/tiny"
one_line
run 2 tokenize "$work/tiny" --decode "1 2 999999"
one_line
run 1 tokenize "$work/tiny" --file "$work/absent.txt"
one_line
says "$err" "$work/absent.txt"
printf 'GGUF and then nothing of the kind' >"$work/broken.gguf"
run 1 convert "$work/broken.gguf" --out "$work/new"
one_line
says "$err" "$work/broken.gguf"
run 1 info "$work/tiny/model.safetensors"
one_line
says "$err" "name the folder"
head -c 20000 "$work/tiny.gguf" >"$work/cut.gguf"
run 1 convert "$work/cut.gguf" --out "$work/new"
one_line
says "$err" "$work/cut.gguf"
[[ ! -e $work/new ]]
note $? "nothing is made from a broken file"
run 1 convert "$work/tiny" --out "$work/no/such/folder/x.gguf"
one_line
# upcycle: what cannot be cut, with a number that would do; and a text that says nothing is not passed over.
run 0 init --preset tiny --out "$work/dense"
run 1 upcycle "$work/dense" --out "$work/new" --shards 20
one_line
says "$err" "--shards 12 would do"
run 1 upcycle "$work/dense" --out "$work/new" --shards 8 --shared 8
one_line
run 1 upcycle "$work/dense" --out "$work/new" --shards 8 --shared 2 --calibrate /dev/null
one_line
says "$err" "/dev/null"
[[ ! -e $work/new ]]
note $? "nothing is made when upcycle refuses"
run 0 eval tasks --json
[[ $(grep -c '"task": "' "$work/out") == 19 ]]
note $? "eval tasks --json: ${out:0:200}"
run 0 upcycle "$work/dense" --out "$work/new" --shards 8 --shared 2
run 0 info "$work/new"
says "$out" "6 routed (3 active) and 2 shared"
rm -rf "$work/new"
# A full disk: no output under the final name.
(
    ulimit -f 64
    env --default-signal=XFSZ "$VKMOE" convert "$work/tiny" --out "$work/full.gguf" >/dev/null 2>"$work/err"
)
status=$?
err=$(grep -v '^write:' "$work/err")
[[ $status == 1 && ! -e $work/full.gguf ]]
note $? "a full disk: status $status, $(ls "$work")"
one_line
if [[ -e /dev/full ]]; then
    "$VKMOE" info tiny --json >/dev/full 2>"$work/err"
    [[ $? == 1 ]]
    note $? "standard output is full"
fi

rm -rf "$work"
finish
