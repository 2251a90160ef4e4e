#!/usr/bin/env bash
# tools/bugs.sh [NAME...]: plants the silent bugs of tests/bugs.cmake one at a time (all of them, or those whose names begin so: N6 is N6a, N6b, ...)
# in a build of its own, and wants the test that is named for each to fail by its own check, having passed without the bug. Prints a
# table; leaves with 1 where a bug was not caught.
# tools/bugs.sh --check: whether every row still matches the sources, and docs/proof.md has it. Builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build-bug log=$PWD/build-bug/bugs.log

rows=$(cmake -P cmake/bugs.cmake 2>&1) || { echo "$rows" >&2; exit 1; }
if [[ ${1:-} == --check ]]; then
    while IFS=$'\t' read -r name _; do
        grep -q "^| $name |" docs/proof.md || { echo "bugs: docs/proof.md has no line for $name" >&2; exit 1; }
    done <<<"$rows"
    echo "bugs: $(wc -l <<<"$rows") can be planted"
    exit
fi
if (($#)); then
    rows=$(grep -E "^($(IFS='|' && echo "$*"))[a-z]*"$'\t' <<<"$rows") || { echo "bugs: none is called $*" >&2; exit 1; }
fi

plant() { # plant NAME TEST...: builds what the tests need
    local name=$1 targets=()
    shift
    for test in "$@"; do
        [[ -f tests/test_${test%% *}.c ]] && targets+=("test_${test%% *}") || targets+=(vkmoe)
    done
    mkdir -p $build
    { cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DVKMOE_BUG="$name" &&
        cmake --build $build --target "${targets[@]}"; } >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
}
try() { # try TEST [SAYS]: as ctest runs it, with the words behind its name as arguments, until it has said SAYS; $log holds what it says
    local words source pid
    read -ra words <<<"$1"
    source=$PWD/tests/test_${words[0]}
    local command=("tests/test_${words[0]}" "${words[@]:1}")
    [[ -f $source.c ]] || command=(bash "$source.sh")
    : >"$log"
    (cd $build && VKMOE_CACHE=$PWD/test-cache VKMOE_SOURCE_DIR=${source%/tests/*} VKMOE=$PWD/vkmoe exec timeout 1200 "${command[@]}") \
        >>"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        if [[ ${2:-} ]] && grep -qF -- "$2" "$log"; then
            kill $pid 2>/dev/null || true # to its whole group
            wait $pid || true
            return 1
        fi
        sleep 0.1
    done
    wait $pid
}

rm -f $build/N*.log
mapfile -t tests < <(cut -f2 <<<"$rows" | sort -u)
plant none "${tests[@]}"
for test in "${tests[@]}"; do
    try "$test" || { tail -n 20 "$log" >&2; echo "bugs: the test $test fails without a bug" >&2; exit 1; }
    while IFS=$'\t' read -r name _ says _; do
        ! grep -F -- "$says" "$log" || { echo "bugs: $name: the test $test says that without the bug, too" >&2; exit 1; }
    done < <(awk -F'\t' -v test="$test" '$2 == test' <<<"$rows")
done
echo "without a bug ${#tests[@]} tests pass [$SECONDS s]"

n=0 caught=0
while IFS=$'\t' read -r name test says file what; do
    n=$((n + 1)) start=$SECONDS verdict=caught
    plant "$name" "$test"
    status=0
    try "$test" "$says" || status=$?
    case $status in
    0) verdict=MISSED ;;
    1) grep -qF -- "$says" "$log" || verdict="failed, but does not say '$says'" ;;
    *) verdict="ended with $status" ;;
    esac
    if [[ $verdict == caught ]]; then
        caught=$((caught + 1))
    else
        cp "$log" $build/$name.log
    fi
    printf '%-5s %-7s %-16s %-28s %s [%d s]\n' "$name" "$verdict" "$test" "$file" "$what" $((SECONDS - start))
done <<<"$rows"
classes=$(cut -f1 <<<"$rows" | sed 's/[a-z]*$//' | sort -u | wc -l)
echo "$caught of $n bugs of $classes classes are caught [$SECONDS s]"
((caught == n))
