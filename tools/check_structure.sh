#!/usr/bin/env bash
# tools/check_structure.sh: the rules of docs/architecture.md that a machine can see. Arrows between rooms point one way (by the
# includes; the linker checks the calls), nothing is left half done, and files and functions stay readable.
set -euo pipefail
cd "$(dirname "$0")/.."
errors=0
error() {
    echo "structure: $*" >&2
    errors=$((errors + 1))
}

# What each room may include.
declare -A below=(
    [shaders]="shaders"
    [runtime]="runtime shaders"
    [model]="model runtime"
    [train]="train model runtime"
    [eval]="eval model runtime"
    [cli]="cli train eval model runtime"
)
for room in "${!below[@]}"; do
    while IFS=: read -r file line text; do
        included=$(sed -E 's/.*"([a-z_]+)\/.*/\1/' <<<"$text")
        [[ " ${below[$room]} " == *" $included "* ]] ||
            error "$file:$line: $room/ must not know $included/ ($text)"
    done < <(git ls-files "$room" | grep -E '\.[ch]$' | xargs -r grep -nHE '^#include "[a-z_]+/' || true)
    while IFS=: read -r file line text; do
        error "$file:$line: includes are written from the root, as \"$room/name.h\" ($text)"
    done < <(git ls-files "$room" | grep -E '\.[ch]$' | grep -v '^shaders/' |
        xargs -r grep -nHE '^#include "[^/]*"' || true)
done

# Work left for later, and paths and names of one machine.
words='TODO|FIXME|XXX|not implemented|placeholder|[Ss]tub(s|bed)?'
while IFS= read -r hit; do
    error "unfinished: $hit"
done < <(git ls-files | grep -v '^tools/check_structure.sh$' | xargs grep -nIHwE "$words" || true)
while IFS= read -r hit; do
    error "a path of one machine: $hit"
done < <(git ls-files | grep -v '^tools/check_structure.sh$' |
    xargs grep -nIHE '(^|[^a-zA-Z0-9_.$}])/(work|tmp|opt)/' || true)

# Length: a warning, because there are good reasons now and then.
while IFS= read -r file; do
    lines=$(wc -l <"$file")
    ((lines <= 900)) || echo "structure: warning: $file has $lines lines; above about 800 it asks to be cut" >&2
    awk -v file="$file" '
        /^[a-z].*\) \{$/ || (/^\{$/ && open == 0) { open = NR; name = $0 }
        /^[ ].*\) \{$/ && open == 0 && previous ~ /^[a-z].*\($|^[a-z].*,$/ { open = NR; name = previous }
        /^\}/ && open { if (NR - open > 110) printf "structure: warning: %s:%d: a function of %d lines\n", file, open, NR - open; open = 0 }
        { previous = $0 }' "$file" >&2
done < <(git ls-files '*.c' '*.h' '*.comp' '*.glsl')

if ((errors)); then
    echo "structure: $errors errors" >&2
    exit 1
fi
echo "structure: in order"
