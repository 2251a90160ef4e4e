#!/usr/bin/env bash
# tools/fuzz.sh SECONDS [TARGET]: builds the fuzz targets (tests/fuzz_*.c) with clang under the sanitizers and gives each its
# share of the time, or FUZZ_RUNS runs. Seeds are tests/seeds/TARGET/, what is found on the way stays in build-fuzz/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
only=${2:-}

[[ -f build-fuzz/build.ninja ]] || cmake --preset fuzz
cmake --build --preset fuzz
# The words that the readers look for, as a dictionary.
git grep -hoE "\"[a-z][A-Za-z0-9_.]{2,40}\"" -- model/*.c train/data.c | sort -u >build-fuzz/words.dict
targets=()
for source in tests/fuzz_*.c; do
    name=$(basename "$source" .c)
    [[ -e $source && (-z $only || $name == "$only" || $name == "fuzz_$only") ]] && targets+=("$name")
done
((${#targets[@]})) || {
    echo "fuzz: there is no target ${only:-at all}" >&2
    exit 1
}
# Longer inputs find nothing that shorter ones do not, and cost in proportion. Seeds have up to 7 kB.
declare -A longest=([fuzz_text]=256 [fuzz_grammar]=2048)
# Each run frees what it took, so memory may be used again soon: less of it to touch is a tenth to a fifth faster.
export ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=12${ASAN_OPTIONS:+:$ASAN_OPTIONS}
each=$((seconds / ${#targets[@]}))
((each > 0)) || each=1
for name in "${targets[@]}"; do
    corpus=build-fuzz/corpus/$name
    mkdir -p "$corpus"
    folders=("$corpus")
    [[ -d tests/seeds/$name ]] && folders+=("tests/seeds/$name")
    limit=(-max_total_time="$each")
    [[ -n ${FUZZ_RUNS:-} ]] && limit=(-runs="$FUZZ_RUNS")
    echo "fuzz: $name, ${limit[*]}"
    log=build-fuzz/$name.log
    if ! (cd build-fuzz && "tests/$name" "${limit[@]}" -dict=words.dict -timeout=20 -rss_limit_mb=4096 -max_len="${longest[$name]:-8192}" \
        -print_final_stats=1 -artifact_prefix="$name-" "${folders[@]/#/..\/}") >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "fuzz: $name: a finding; the input is in build-fuzz/$name-*" >&2
        exit 1
    fi
    sed -nE 's/^stat::number_of_executed_units: *([0-9]+)/fuzz: '"$name"': \1 runs, no finding/p' "$log"
done
