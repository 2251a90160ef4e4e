# Where weights lie and how keys and values are stored, on the command line: the same text wherever experts and layers are, with limits
# pretended smaller, the hit rate told, what cannot be asked for refused. $VKMOE is the program, the working directory the build folder.
work=test-size
. "${BASH_SOURCE%/*}/check.sh"

answer() { # answer FLAGS...: the text in $out, figures in $err
    out=$("$VKMOE" generate "$work/moe.gguf" -p "the bytes of a prompt, a few more than eight" -n 24 --temperature 0 \
        --ignore-eos "$@" 2>"$work/err" | tr -d '\0')
    err=$(cat "$work/err")
}

"$VKMOE" init --preset tiny-moe --type q4_0 --out "$work/moe.gguf" 2>"$work/err"
note $? "init: $(cat "$work/err")"
if ! "$VKMOE" devices >/dev/null 2>&1; then
    echo "skipped: no Vulkan device" >&2
    exit 77
fi
answer
want=$out
[[ -n $want && $err != *"experts:"* ]]
note $? "everything on the device: $err"
for flags in "--experts-on cpu" "--experts-on gpu" "--gpu-layers all" "--gpu-layers 0" "--gpu-layers 2" \
    "--gpu-layers 1 --experts-on cpu"; do
    answer $flags
    [[ $out == "$want" ]]
    note $? "$flags: another text"
    [[ $flags != *"experts-on cpu"* ]] || says "$err" "were on the device already"
    [[ $flags != "--gpu-layers 2" ]] || says "$err" "the last 2 of 4 layers in host memory"
done
answer --experts-on cpu --json
says "$out" '"hits":'
says "$out" '"of": 24'
# A driver whose allocations hold little more than the largest tensor.
VKMOE_MAX_ALLOCATION_MIB=4 answer
[[ $out == "$want" ]]
note $? "allocations of 4 MiB: another text ($err)"
VKMOE_MAX_ALLOCATION_MIB=4 answer --experts-on cpu
[[ $out == "$want" ]]
note $? "allocations of 4 MiB, experts streamed: another text ($err)"
VKMOE_OFF=host_visible answer --experts-on cpu
[[ $out == "$want" ]]
note $? "uploads through the ring, copies by the device: another text ($err)"
for type in f32 f16 bf16; do
    answer --cache-type "$type"
    [[ -n $out ]]
    note $? "--cache-type $type: $err"
done
answer --cache-type q8_0
says "$err" "heads of 16 are no multiple of its blocks of 32"
# Plain weights read where their file is mapped: the same answer, also within less memory than they take, and in pieces.
if "$VKMOE" devices | grep -q "on *file_map"; then
    "$VKMOE" init --preset smollm2-135m --type bf16 --out "$work/plain.gguf" 2>"$work/err"
    note $? "init: $(cat "$work/err")"
    ids() { # ids FLAGS...: ids and log-probabilities in $out
        out=$("$VKMOE" generate "$work/plain.gguf" -p mapped -n 3 --temperature 0 --ignore-eos --json --gpu-layers all \
            "$@" 2>"$work/err" | sed -E 's/, "stopped".*//')
        err=$(cat "$work/err")
    }
    VKMOE_OFF=file_map ids
    want=$out
    says "$want" '"logprobs": [-'
    VKMOE_MEMORY_MIB=120 ids
    [[ $out == "$want" ]]
    note $? "mapped, within 120 MiB: '$out', copied '$want' ($err)"
    VKMOE_MAX_ALLOCATION_MIB=64 ids
    [[ $out == "$want" ]]
    note $? "mapped in pieces of 64 MiB: '$out', copied '$want' ($err)"
    VKMOE_OFF=file_map VKMOE_MEMORY_MIB=120 ids
    says "$err" "has 120 MiB"
    rm "$work/plain.gguf"
else
    echo "SKIP: no device here reads mapped files"
fi
answer --gpu-layers some
says "$err" "--gpu-layers some: auto, all or a number of layers is expected"
answer --experts-on disk
says "$err" "disk"
# The same file whatever the threads were: the hash of what `init` makes.
"$VKMOE" init --preset tiny-moe --type q4_0 --out "$work/again.gguf" 2>/dev/null && cmp -s "$work/moe.gguf" "$work/again.gguf"
note $? "init twice makes two files"
finish
