# What the scripts of this folder share: `. check.sh` after setting `work`, the folder to work in, which is emptied; `finish` at the end.
# The program is $VKMOE.
set -u
checks=0 failed=0
rm -rf "$work"
mkdir -p "$work"

note() { # note OK TEXT
    checks=$((checks + 1))
    if [[ $1 != 0 ]]; then
        failed=$((failed + 1))
        echo "failed: $2" >&2
    fi
}
run() { # run STATUS COMMAND...: must leave with it; input from $work/in where there is one; output in $out, complaints and figures in $err
    local expected=$1 status input=/dev/null
    shift
    [[ ! -e $work/in ]] || input=$work/in
    "$VKMOE" "$@" >"$work/out" 2>"$work/err" <"$input"
    status=$?
    out=$(tr -d '\0' <"$work/out")
    err=$(tr -d '\0' <"$work/err")
    [[ $status == "$expected" ]]
    note $? "vkmoe $* left with $status, not $expected: $err"
}
says() { # says TEXT PART
    [[ $1 == *"$2"* ]]
    note $? "'$2' is not in '${1:0:600}'"
}
says_not() {
    [[ $1 != *"$2"* ]]
    note $? "'$2' is in '${1:0:600}'"
}
one_line() { # of complaint
    [[ $err == "vkmoe: "* && $err != *$'\n'* ]]
    note $? "not one clear line: '$err'"
}
refused() { # refused STATUS PART COMMAND...: that exit status and one line that says PART
    local part=$2
    run "$1" "${@:3}"
    one_line
    says "$err" "$part"
}
finish() {
    echo "$checks checks, $failed failed"
    exit $((failed > 0))
}
