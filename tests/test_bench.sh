#!/usr/bin/env bash
# `vkmoe bench` on a tiny model: the tables, their other forms, comparisons, and what is refused.
work=$PWD/bench-test
. "$(dirname "$0")/check.sh"
holds() { # holds EXPRESSION: of `rows`, the JSON array in $out
    python3 -c 'import json,sys; rows = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$work/out" "$1"
    note $? "not so: $1 in ${out:0:600}"
}

# ---- model
run 0 bench model tiny-moe -p 40 -n 4 -d 0,8 -b 1,2 -r 2 --json
holds '[r["test"] for r in rows] == ["pp40", "tg4", "tg4 x2", "pp40 @ d8", "tg4 @ d8", "tg4 x2 @ d8"]'
holds 'all(r["tokens_per_second"] > 0 and len(r["samples"]) == 2 and r["peak_mib"] > 0 for r in rows)'
# Two sequences share the dispatches of a pass, and a prompt's tokens those of one.
holds 'rows[1]["dispatches_per_token"] > rows[2]["dispatches_per_token"] > rows[0]["dispatches_per_token"]'
holds 'all(r["type"] == "bf16" and r["device"] and r["version"] for r in rows)'
python3 - "$work" <<'PY'
import json, sys
rows = json.load(open(sys.argv[1] + "/out"))
for name, factor in (("slow", 1e-3), ("fast", 1e3)):
    json.dump([dict(r, tokens_per_second=r["tokens_per_second"] * factor) for r in rows], open(f"{sys.argv[1]}/{name}.json", "w"))
json.dump([dict(r, device="another") for r in rows], open(f"{sys.argv[1]}/elsewhere.json", "w"))
PY
run 0 bench model tiny-moe -p 40 -n 0 -r 1 --md --compare "$work/slow.json" --threshold 50
says "$out" " ratio |"
run 1 bench model tiny-moe -p 40 -n 0 -r 1 --csv --compare "$work/fast.json" --threshold 50
says "$out" "model,type,test,tokens_per_second"
says "$err" "1 of 1 rows are more than 50 % worse"
run 1 bench model tiny-moe -p 41 -n 0 -r 1 --compare "$work/fast.json"
says "$err" "none of these rows is in it"
# What is compared: how many rows, and whether under the same conditions.
run 0 bench model tiny-moe -p 40,41 -n 0 -r 1 --cache-type f16 --compare "$work/slow.json"
says "$err" "1 of 2 rows compared with"
says_not "$err" "other settings"
run 0 bench model tiny-moe -p 40 -n 0 -r 1 --cache-type f32 --gpu-layers 0 --compare "$work/elsewhere.json" --threshold 1000 --json
says "$err" "other settings: '' there, '--cache-type f32 --gpu-layers 0' now"
says "$err" "other device: 'another' there"
holds 'rows[0]["settings"] == "--cache-type f32 --gpu-layers 0" and rows[0]["host_mib"] > 0 and rows[0]["ratio"] > 0'
refused 2 "--threshold is of --compare" bench model tiny-moe -p 8 -n 0 --threshold 7
# Rows that were measured stay, as JSON, when the rest is not waited for.
"$VKMOE" bench model tiny -p 8 -n 400,400,400,400,400,400 -r 63 --json >"$work/out" 2>"$work/err" &
while kill -0 $! 2>/dev/null && [[ $(wc -l <"$work/out") -lt 3 ]]; do sleep 0.05; done
kill $!
wait $! 2>/dev/null
out=$(cat "$work/out")
holds '1 <= len(rows) < 7 and rows[0]["test"] == "pp8"'
refused 1 "--png $work/none/x.png: cannot be written" bench model tiny -p 8 -n 0 -r 1 --png "$work/none/x.png"
run 0 bench model tiny -p 16 -n 0 -r 1 --type q8_0 --png "$work/bars.png" --json
holds 'rows[0]["type"] == "q8_0"'
says "$err" "gemm_nt_q8_0"
[[ $(head -c 4 "$work/bars.png" | tail -c 3) == PNG ]]
note $? "bars.png is no PNG"
refused 1 "the model's context is" bench model tiny-moe -p 100000
run 0 init --preset tiny-moe --out "$work/a\"b,c|d" --seed 3
run 0 bench model "$work/a\"b,c|d" -p 8 -n 0 -r 1 --csv
says "$out" $'\n"a""b,c|d",'
run 0 bench model "$work/a\"b,c|d" -p 8 -n 0 -r 1 --md
says "$out" '| a"b,c\|d '
refused 2 "--n-gen 3,x" bench model tiny-moe -n 3,x
refused 2 "up to 16 whole numbers by commas" bench model tiny-moe -p x
refused 2 "--gpu-layers x: auto, all or a number" bench model tiny-moe -p 8 -n 0 --gpu-layers x
refused 2 "nothing to measure" bench model tiny-moe -p 0 -n 0
refused 2 "--sequences 33" bench model tiny-moe -b 33
refused 2 "exclude each other" bench model tiny-moe -p 8 -n 0 --csv --json
refused 2 "which MODEL" bench model
refused 2 "--tokens is of \`bench kernels|shader\`, not of \`bench model\`" bench model tiny-moe -p 8 -n 0 --tokens 5
refused 2 "--grid is of \`bench shader\`" bench model tiny-moe -p 8 -n 0 --grid 3
refused 2 "--n-prompt is of \`bench model\`" bench train tiny -p 5
refused 2 "--preset is of" bench device --preset nosuch
refused 2 "none of" bench modle

# ---- train
rows=()
for how in full "lora --recompute off" "qlora --type q8_0" "esft --moments 8bit --batch 2"; do
    # shellcheck disable=SC2086
    run 0 bench train tiny-moe --context 32 --steps 1 --json --method $how
    rows+=("$(cat "$work/out")")
done
printf '%s\n' "${rows[@]}" | python3 -c '
import json, sys
text, rows = sys.stdin.read(), []
while text.strip():
    row, end = json.JSONDecoder().raw_decode(text.lstrip())
    rows += row
    text = text.lstrip()[end:]
json.dump(rows, sys.stdout)' >"$work/out"
holds '[(r["method"], r["type"], r["recompute"], r["moments"], r["batch"]) for r in rows] == [("full", "f32", "on", "f32", 1),
    ("lora", "bf16", "off", "f32", 1), ("qlora", "q8_0", "on", "f32", 1), ("esft", "f32", "on", "8bit", 2)]'
holds 'all(r["forward_ms"] > 0 and r["optimiser_ms"] > 0 and r["gemm_percent"] > 0 and r["peak_mib"] > 0 for r in rows)'
# Without gradients of the weights two thirds of the operations are left.
holds 'abs(rows[1]["model_gflops"] / rows[1]["tokens_per_second"] / (rows[0]["model_gflops"] / rows[0]["tokens_per_second"]) - 2/3) < 1e-6'
# What is computed again is dispatched again, and two rows of a step share its optimiser.
holds 'rows[2]["dispatches_per_token"] > rows[1]["dispatches_per_token"]'
holds 'rows[3]["dispatches_per_token"] < rows[0]["dispatches_per_token"]'
run 0 bench train tiny --context 32 --steps 1 --operations
says "$err" "adamw"
run 0 bench train tiny --context 32 --steps 1 --optimizer-in-backward on --offload moments --json
holds 'rows[0]["optimiser_ms"] == 0 and rows[0]["forward_ms"] > 0'
refused 1 "a step is one micro-batch" bench train tiny --context 32 --optimizer-in-backward on --batch 2
refused 1 "no matrix of the model" bench train tiny --method qlora --type f32 --context 32
refused 1 "above the model's context" bench train tiny --context 1000000
refused 2 "--lora-rank is of" bench train tiny --context 32 --lora-rank 4
refused 2 "--esft-threshold is of" bench train tiny --context 32 --esft-threshold 0.5
refused 1 "has none" bench train tiny --method esft --context 32

# ---- kernels
run 0 bench kernels gemv_q4_k_base # of each operation the shapes that a type of large blocks can have
run 0 bench kernels remap --json
holds 'len(rows) >= 2 and all(r["correct"] and r["us"] > 0 and r["cpu_us"] > 0 for r in rows)'
holds 'any(r["shape"] == "rows=6 tiles=6 experts=64" for r in rows)'
run 0 bench kernels rope --preset smollm2-135m --tokens 1,16 --json --png "$work/roof.png"
holds '{r["shape"] for r in rows} == {"rows=1 heads=9 head_dim=64", "rows=16 heads=9 head_dim=64"}'
[[ $(head -c 4 "$work/roof.png" | tail -c 3) == PNG ]]
note $? "roof.png is no PNG"
run 0 init --preset tiny --out "$work/own"
run 0 bench kernels rope --preset "$work/own" --tokens 16 --json
holds '{r["shape"] for r in rows} == {"rows=16 heads=4 head_dim=16"}'
# A row that is no whole blocks is no shape of such a table or cache.
refused 1 "no kernel matches 'embed q4_k'" bench kernels "embed q4_k" --preset tiny --tokens 1
refused 1 "no kernel matches 'attention_decode q8_0'" bench kernels "attention_decode q8_0" --preset tiny --tokens 1
refused 2 "one token at least" bench kernels rmsnorm --preset tiny --tokens 1,0
refused 2 "--tokens is empty" bench kernels rmsnorm --preset tiny --tokens ""
refused 2 "--preset MODEL is missing" bench kernels rmsnorm --tokens 7
refused 1 "nor a preset of that name" bench kernels rope --preset "$work/none"
run 0 bench device --json
python3 -c 'import json,sys; d = json.load(open(sys.argv[1])); sys.exit(not min(d["gflops"], d["read_gbytes_per_s"], d["copy_gbytes_per_s"], d["dispatch_us"]) > 0)' "$work/out"
note $? "no peaks: $out"
refused 1 "no kernel matches 'rmsnorn'" bench kernels rmsnorn --json
[[ $out == "[]" ]]
note $? "no empty array: $out"
refused 1 "no kernel matches" bench kernels "experts up f32" --type q4_0
refused 2 "'foo' is one word too many" bench device foo
refused 1 "no kernel matches 'rmsnorn'" bench static rmsnorn
[[ -z $out ]]
note $? "a table without rows: $out"

# ---- shader: a kernel of the user's own, by itself and in the place of a built-in one
sources=$(dirname "$0")/../shaders
shader() { cat >"$work/$1.comp"; } # shader NAME: from standard input
shader scale <<'GLSL'
#version 460
#extension GL_EXT_buffer_reference : require
layout(local_size_x_id = 0) in;
layout(constant_id = 2) const int PLUS = 1;
layout(buffer_reference, std430) readonly buffer In { float v[]; };
layout(buffer_reference, std430) buffer Out { float v[]; };
layout(push_constant, std430) uniform Push { In x; Out y; uint n; float a; } p;
void main() {
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
        p.y.v[i] = p.a * p.x.v[i] + PLUS;
}
GLSL
scale=(bench shader "$work/scale.comp" --grid 4 --buffer x=f32:1K:index --buffer y=f32:1K:out)
if [[ $("$VKMOE" "${scale[@]}" --push 1K --push 0.5 2>&1) == *"built without libshaderc"* ]]; then
    echo "vkmoe bench shader is not tested: this program was built without libshaderc" >&2
else
    run 0 "${scale[@]}" --push n=1K --push a=0.5 --constant 2=-3 --bytes 8192 --flops 2048 --json
    holds 'rows[0]["us"] > 0 and rows[0]["gbytes_per_s"] > 0 and rows[0]["gflops"] > 0 and rows[0]["peak_percent"] > 0'
    holds '[(b["name"], b["numbers"], b["written"]) for b in rows[0]["buffers"]] == [("x", 1024, 0), ("y", 1024, 1024)]'
    holds 'rows[0]["buffers"][1]["first"] == [-3, -2.5, -2, -1.5, -1, -0.5]'
    holds 'rows[0]["buffers"][1]["sum"] == 1023 * 1024 / 4 - 3 * 1024'
    run 0 "${scale[@]}" --push 512 --push 0.25 --width 64 --csv
    says "$out" "scale.comp,\"4,1,1\",64,"
    says "$err" "y (f32): 512 of 1024 numbers written: 1 1.25 1.5"
    run 1 bench shader "$work/scale.comp" --grid 4 --buffer f32:2K --buffer f32:1K:out --push 1032 --push 1 --md
    says "$err" "memory beside tensor 1 was written"
    run 1 bench shader "$work/scale.comp" --grid 4 --buffer f32:2K --buffer f32:1K:out --push 1032 --push 1 --json
    holds 'rows[0]["wrote_beside"]'
    # Texts of ours are in the program: this one includes them, and its block is push.h's.
    sed 's/g \/ (1 + exp(-g))/g * (1 \/ (1 + exp(-g)))/' "$sources/swiglu.comp" >"$work/mine.comp"
    run 0 bench shader "$work/mine.comp" --as swiglu rows=1 --json
    holds 'len(rows) >= 2 and all(r["correct"] and r["name"] == "mine.comp" and r["us"] > 0 and r["builtin_us"] > 0 for r in rows)'
    holds 'all("rows=1 " in r["shape"] and r["of_builtin"] > 0 for r in rows)'
    # A wrong one is found out, and the built-in one beside it is itself again.
    sed 's/1 + exp/1.001 + exp/' "$sources/swiglu.comp" >"$work/mine.comp"
    run 1 bench shader "$work/mine.comp" --as swiglu rows=1 --json
    holds 'not any(r["correct"] for r in rows)'
    says "$err" "results are wrong"
    # Figures that JSON has no number for are none.
    sed 's/g \/ (1 + exp(-g))/1 \/ (g - g)/' "$sources/swiglu.comp" >"$work/mine.comp"
    run 1 bench shader "$work/mine.comp" --as swiglu rows=1 --json
    holds 'rows and all(r["max_error"] is None and not r["correct"] for r in rows)'
    says "$err" "$(grep -c '"name"' "$work/out") of $(grep -c '"name"' "$work/out") results are wrong"
    # Without --type a kernel has its own, not that of presets.
    run 0 bench shader "$sources/gemv.comp" --as gemv_q4_0 --preset tiny --tokens 1 "n=64 k=192" --json
    holds 'rows and all(r["case"] == "linear few q4_0" for r in rows)'
    # What is wrong is told before anything runs, in a line of ours behind the compiler's.
    shader broken <<<$'#version 460\n\nvoid main() { undeclared = 1; }'
    run 1 bench shader "$work/broken.comp" --grid 1
    says "$err" "broken.comp:3: error: 'undeclared'"
    says "$err" $'\nvkmoe: '"$work/broken.comp: does not compile"
    shader entry <<<$'#version 460\nvoid other() {}'
    run 1 bench shader "$work/entry.comp" --grid 1
    says "$err" "Missing entry point"
    shader extension <<<$'#version 460\n#extension GL_NOBODY_knows : require\nvoid main() {}'
    run 1 bench shader "$work/extension.comp" --grid 1
    says "$err" "extension.comp:2: error: '#extension' : extension not supported: GL_NOBODY_knows"
    shader climb <<<$'#version 460\n#include "../check.sh"\nvoid main() {}'
    run 1 bench shader "$work/climb.comp" --grid 1
    says "$err" "climb.comp:2: error: '#include' : a plain name is expected"
    shader endless <<<$'#include "endless.comp"'
    run 1 bench shader "$work/endless.comp" --grid 1
    says "$err" "files include each other without end"
    head -c 20000 /dev/urandom >"$work/noise.comp"
    run 1 bench shader "$work/noise.comp" --grid 1
    says "$err" "noise.comp: does not compile"
    says_not "$out$err" "INTERNAL ERROR"
    shader large <<'GLSL'
#version 460
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 8) in;
layout(constant_id = 3) const uint ROWS = 1024;
shared float s[ROWS * 16][1024];
layout(buffer_reference) buffer Out { float v[]; };
layout(push_constant) uniform Push { Out y; uint n; } p;
void main() {
    s[gl_LocalInvocationIndex][p.n] = 1;
    barrier();
    p.y.v[0] = s[p.n][0];
}
GLSL
    large=(bench shader "$work/large.comp" --grid 1 --push 1 --buffer f32:4:out)
    refused 1 "wants 67108864 bytes of shared memory" "${large[@]}"
    refused 1 "wants 33554432 bytes of shared memory" "${large[@]}" --constant 3=512
    shader wide <<<$'#version 460\nlayout(local_size_x = 1024, local_size_y = 64) in;\nvoid main() {}'
    refused 1 "a workgroup of 1024 x 64 x 1" bench shader "$work/wide.comp" --grid 1
    shader binding <<<$'#version 460\nlayout(binding = 0) buffer B { float v[]; };\nvoid main() { v[0] = 1; }'
    refused 1 "vkmoe passes addresses" bench shader "$work/binding.comp" --grid 1
    refused 2 "--grid X[,Y[,Z]] is missing" bench shader "$work/scale.comp"
    refused 2 "--png is of --as NAME" "${scale[@]}" --png "$work/x.png"
    refused 2 "--tokens is of --as NAME" "${scale[@]}" --tokens 3
    refused 2 "--grid is empty" bench shader "$work/scale.comp" --grid ""
    refused 1 "nothing is said about number a" "${scale[@]}" --push n=1K
    refused 1 "has no pointer of that name" bench shader "$work/scale.comp" --grid 1 --buffer z=f32:4
    refused 1 "the type is none of" bench shader "$work/scale.comp" --grid 1 --buffer f33:4
    refused 1 "rows of whole blocks" bench shader "$work/scale.comp" --grid 1 --buffer q4_0:31
    refused 1 "the value is no uint" "${scale[@]}" --push n=-1 --push a=1
    refused 1 "from 2 on" "${scale[@]}" --push 1 --push 1 --constant 9=1
    refused 1 "no built-in kernel has this name" bench shader "$work/scale.comp" --as gemv_q4
    refused 1 "is not that of gemv_q4_0: " bench shader "$work/scale.comp" --as gemv_q4_0
    refused 1 "no kernel's shape matches" bench shader "$sources/swiglu.comp" --as swiglu dim=7
    refused 2 "own affair" bench shader "$work/scale.comp" --as swiglu --grid 1
fi
refused 2 "which FILE" bench shader
refused 1 "cannot be opened" bench shader "$work/nothing.comp" --grid 1
refused 2 "one word too many" bench kernels remap rope

# ---- static --peer: a peer of our own, which says what it was asked for and two kernels: the first has no loop
cat >"$work/peer.sh" <<'PEER'
#!/usr/bin/env bash
[[ "$1 $2 $3 $4" == "perf -o MUL_MAT -p" && $5 == "type_a=q8_0,"*",n=1,k="* && $RADV_DEBUG == asm && -n $GGML_VK_VISIBLE_DEVICES ]] || exit 3
echo "not for us"
cat >&2 <<'CODE'
disasm:
BB0:
	v_fma_f32 v1, v2, v3, v1 ; 0
ggml_vulkan: pipeline stats for first:
ggml_vulkan:   VGPRs: 8
disasm:
BB0:
	s_mov_b64 exec, -1 ; 0
BB1:
	buffer_load_b128 v[4:7], v3, s[0:3], 0 offen ; 0
	v_fma_f32 v1, v2, v3, v1 ; 0
	v_fma_f32 v2, v2, v3, v2 ; 0
	v_add_f32_e32 v2, v2, v3 ; 0
	s_cbranch_scc1 BB1 ; 0
ggml_vulkan: pipeline stats for second:
ggml_vulkan:   VGPRs: 24
ggml_vulkan:   Subgroups per SIMD: 16
ggml_vulkan:   Spilled VGPRs: 2
ggml_vulkan:   LDS size: 512
CODE
PEER
chmod +x "$work/peer.sh"
export VKMOE_PEER=$work/peer.sh
run 0 bench static --peer "gemv q8_0" --json
holds '[[r[k] for k in "kernel by registers occupancy spills lds_bytes lanes flops".split()] for r in rows if r["side"] == "llama.cpp"] == [
    ["second", "fma_f32", 24, 16, 2, 512, 64, 256]]'
holds 'all(abs(r[k] - want) < 1 for r in rows if r["side"] == "llama.cpp" for k, want in dict(math=15625, vector=7812.5, memory=7812.5, memory_kib=3906.25, lds=0, scalar=3906.25).items())'
refused 1 "ended with status" bench static --peer "gemv q4_0"
refused 1 "no operation matches" bench static --peer "no such case"
export VKMOE_PEER=$work/nothing
refused 1 "test-backend-ops is wanted there" bench static --peer "gemv q8_0"
unset VKMOE_PEER

# ---- Who compiled the modules in use
run 0 devices --json
python3 -c 'import json,sys; all = json.load(open(sys.argv[1]))["devices"]; sys.exit(not all or any(sum(d["compilers"].values()) != d["kernels"] for d in all if d["usable"]))' "$work/out"
note $? "the compilers of all kernels are not told: ${out:0:600}"

finish
