#!/usr/bin/env bash
# tools/prebuilt.sh make|check|current: the SPIR-V in shaders/prebuilt, of modules whose extensions the glslc of stable distributions does not know
# (cooperative matrices, bfloat16, products of pairs). The build takes it where the installed glslc is too old for a module.
#   make      builds all of it with $GLSLC (default: glslc), which must know those extensions; without one:
#             tools/debian_root.sh --packages "glslc gcc libc6-dev" forky sh -c 'make prebuilt >&2 && tar c shaders/prebuilt' | tar x
#   check     fails unless each of these modules is there, made from the sources as they are
#   current   the names of those that are, a line each, behind a line with the compiler: for cmake/shaders.cmake
# What a module is made from is told by a hash of its source as the C preprocessor ($CC) leaves it, without white space: comments and what other
# modules include change nothing. #version and #extension are words like others there.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=shaders/prebuilt index=shaders/prebuilt/INDEX
needs='NEEDS_(COOPMAT|COOPMAT2|BF16|DOT2)\b'
newer="a glslc of 2025 or later is needed, \$GLSLC or Debian testing's (see the head of tools/prebuilt.sh)"
options=(--target-env=vulkan1.3 -O -Werror -I shaders)

die() {
    echo "prebuilt: $*" >&2
    exit 1
}

texts=$(mktemp -d)
trap 'rm -rf "$texts"' EXIT
for file in shaders/*.comp shaders/*.glsl shaders/*.h; do
    sed -E 's/^[ \t]*#[ \t]*(version|extension)/shader_\1/' "$file" >"$texts/${file##*/}"
done

list() { # NAME SOURCE PUSH DEFINES of each module that is built ahead
    grep -E '^KERNEL\(' shaders/kernels.def | grep -E "$needs" |
        sed -E 's/^KERNEL\(([a-z0-9_]+), *([a-z0-9_.]+), *([a-z0-9_]+),[^"]*"([^"]*)".*/\1 \2 \3 \4/'
}

hash_of() { # hash_of SOURCE PUSH DEFINES...
    local text
    text=$("${CC:-cc}" -E -P -undef -std=c11 -x c -I "$texts" -DPUSH="$2" "${@:3}" "$texts/$1" | tr -d '[:space:]') ||
        die "the C preprocessor ${CC:-cc} does not get through shaders/$1"
    printf '%s|%s' "${options[*]}" "$text" | sha256sum | cut -d' ' -f1
}

state() { # of the module NAME with this hash: "current", or why not
    local hash sum
    read -r hash sum < <(awk -v name="$1" '$1 == name { print $2, $3 }' "$index" 2>/dev/null) || hash='' sum=''
    if [[ -z $hash || ! -f $dir/$1.spv ]]; then
        echo "is missing"
    elif [[ $hash != "$2" ]]; then
        echo "was made from other sources"
    elif [[ $(sha256sum <"$dir/$1.spv" | cut -d' ' -f1) != "$sum" ]]; then
        echo "is not the file that $index names"
    else
        echo current
    fi
}

make_all() {
    local glslc=${GLSLC:-glslc} name source push defines bytes=0
    mkdir -p "$dir"
    rm -f "$dir"/*.spv
    {
        echo "# Made by \`make prebuilt\`: module, hash of its source (tools/prebuilt.sh), SHA-256 of the file."
        echo "compiler $("$glslc" --version | sed -nE 's/^(shaderc|glslang) v?([^ ]+).*/\1 \2/p' | paste -sd, | sed 's/,/, /g')"
        while read -r name source push defines; do
            # shellcheck disable=SC2086
            "$glslc" "${options[@]}" -DPUSH="$push" $defines -o "$dir/$name.spv" "shaders/$source" ||
                die "$glslc cannot build $name: $newer"
            # shellcheck disable=SC2086
            echo "$name $(hash_of "$source" "$push" $defines) $(sha256sum <"$dir/$name.spv" | cut -d' ' -f1)"
        done < <(list)
    } >"$texts/index"
    cp "$texts/index" "$index"
    bytes=$(cat "$dir"/*.spv | wc -c)
    echo "prebuilt: $(ls "$dir"/*.spv | wc -l) modules, $bytes bytes"
    ((bytes < 3 << 20)) || die "above 3 MiB, which is too much for a repository"
}

look() { # look CHECK: says what is stale and fails, or lists what is current
    local name source push defines now stale=0
    [[ $1 == check || ! -f $index ]] || sed -n 's/^compiler //p' "$index"
    while read -r name source push defines; do
        # shellcheck disable=SC2086
        now=$(state "$name" "$(hash_of "$source" "$push" $defines)")
        if [[ $1 == current ]]; then
            [[ $now != current ]] || echo "$name"
        elif [[ $now != current ]]; then
            echo "prebuilt: $dir/$name.spv $now" >&2
            stale=1
        fi
    done < <(list)
    while [[ $1 == check ]] && read -r name; do
        list | grep -q "^$name " || { echo "prebuilt: $dir/$name.spv is of no module in kernels.def" >&2 && stale=1; }
    done < <(cd "$dir" 2>/dev/null && ls -- *.spv | sed 's/\.spv$//')
    ((stale == 0)) || die "\`make prebuilt\` makes them anew; $newer"
}

case ${1:-} in
make) make_all ;;
check | current) look "$1" ;;
*) die "make, check or current?" ;;
esac
