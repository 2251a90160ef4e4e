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
holds 'rows[1]["dispatches_per_token"] == 2 * rows[2]["dispatches_per_token"] > 20 * rows[0]["dispatches_per_token"]'
holds 'all(r["type"] == "bf16" and r["device"] and r["version"] for r in rows)'
python3 - "$work" <<'PY'
import json, sys
rows = json.load(open(sys.argv[1] + "/out"))
for name, factor in (("slow", 1e-3), ("fast", 1e3)):
    json.dump([dict(r, tokens_per_second=r["tokens_per_second"] * factor) for r in rows], open(f"{sys.argv[1]}/{name}.json", "w"))
PY
run 0 bench model tiny-moe -p 40 -n 0 -r 1 --md --compare "$work/slow.json" --threshold 50
says "$out" " ratio |"
run 1 bench model tiny-moe -p 40 -n 0 -r 1 --csv --compare "$work/fast.json" --threshold 50
says "$out" "model,type,test,tokens_per_second"
says "$err" "1 of 1 rows are more than 50 % worse"
run 1 bench model tiny-moe -p 41 -n 0 -r 1 --compare "$work/fast.json"
says "$err" "none of these rows is in it"
run 0 bench model tiny -p 16 -n 0 -r 1 --type q8_0 --png "$work/bars.png" --json
holds 'rows[0]["type"] == "q8_0"'
says "$err" "gemm_nt_q8_0"
[[ $(head -c 4 "$work/bars.png" | tail -c 3) == PNG ]]
note $? "bars.png is no PNG"
refused 1 "the model's context is" bench model tiny-moe -p 100000
refused 1 "--n-gen 3,x" bench model tiny-moe -n 3,x
refused 1 "nothing to measure" bench model tiny-moe -p 0 -n 0
refused 1 "--sequences 33" bench model tiny-moe -b 33
refused 1 "exclude each other" bench model tiny-moe -p 8 -n 0 --csv --json
refused 2 "which MODEL" bench model
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
holds 'rows[0]["optimiser_ms"] == 0 and rows[0]["backward_ms"] > 0'
refused 1 "a step is one micro-batch" bench train tiny --context 32 --optimizer-in-backward on --batch 2
refused 1 "no matrix of the model" bench train tiny --method qlora --type f32 --context 32
refused 1 "above the model's context" bench train tiny --context 1000000
refused 1 "has none" bench train tiny --method esft --context 32

# ---- kernels
run 0 bench kernels remap --json
holds 'len(rows) >= 2 and all(r["correct"] and r["us"] > 0 and r["cpu_us"] > 0 for r in rows)'
holds 'any(r["shape"] == "rows=6 tiles=6 experts=64" for r in rows)'
run 0 bench kernels rope --preset smollm2-135m --tokens 1,16 --json --png "$work/roof.png"
holds '{r["shape"] for r in rows} == {"rows=1 heads=9 head_dim=64", "rows=16 heads=9 head_dim=64"}'
[[ $(head -c 4 "$work/roof.png" | tail -c 3) == PNG ]]
note $? "roof.png is no PNG"
run 0 bench device --json
python3 -c 'import json,sys; d = json.load(open(sys.argv[1])); sys.exit(not min(d["gflops"], d["read_gbytes_per_s"], d["copy_gbytes_per_s"], d["dispatch_us"]) > 0)' "$work/out"
note $? "no peaks: $out"
refused 1 "no kernel matches 'rmsnorn'" bench kernels rmsnorn --json

# ---- Who compiled the modules in use
run 0 devices --json
python3 -c 'import json,sys; all = json.load(open(sys.argv[1]))["devices"]; sys.exit(not all or any(sum(d["compilers"].values()) != d["kernels"] for d in all if d["usable"]))' "$work/out"
note $? "the compilers of all kernels are not told: ${out:0:600}"

finish
