# Completion and manual pages: scripts that their shells can read, words that come when a tab is pressed, pages without a warning, and a flag of
# the table in each of them. $VKMOE is the program, the working directory the build folder.
work=test-words
. "${BASH_SOURCE%/*}/check.sh"

for shell in bash zsh fish; do
    "$VKMOE" completion $shell >"$work/$shell" 2>"$work/err"
    note $? "completion $shell: $(<"$work/err")"
    for command in $("$VKMOE" --help | sed -nE 's/^  vkmoe ([a-z]+) .*/\1/p'); do
        grep -q "\b$command\b" "$work/$shell"
        note $? "$command is not in the script for $shell"
        for flag in $("$VKMOE" "$command" --help | sed -nE 's/^  +(-., )?--([a-z0-9-]+).*/\2/p'); do
            grep -qE -- "(--| -l )$flag\b" "$work/$shell"
            note $? "--$flag of $command is not in the script for $shell"
        done
    done
    if ! command -v $shell >/dev/null; then
        echo "SKIP: there is no $shell here: its script is not read by it"
    else
        $shell -n "$work/$shell" 2>"$work/err"
        note $? "$shell cannot read its script: $(<"$work/err")"
    fi
done
"$VKMOE" completion tcsh >"$work/out" 2>&1
[[ $? == 2 && $(<"$work/out") == *"bash, zsh and fish, not for 'tcsh'"* ]]
note $? "a shell that is not known: $(<"$work/out")"

# What bash offers for a line whose last word is being typed.
# shellcheck disable=SC1091
source "$work/bash"
offers() { # offers EXPECTED WORD...: EXPECTED is among what is offered; -WORD: it is not
    local expected=$1
    shift
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _vkmoe 2>/dev/null
    if [[ $expected == -* ]]; then
        [[ " ${COMPREPLY[*]} " != *" ${expected#-} "* ]]
    else
        [[ " ${COMPREPLY[*]} " == *" $expected "* ]]
    fi
    note $? "'$*' is completed by '${COMPREPLY[*]}', about $expected"
}
is() { # is EXPECTED WORD...: that and nothing else
    offers "$@"
    [[ ${COMPREPLY[*]} == "$1" ]]
    note $? "'${*:2}' is completed by '${COMPREPLY[*]}' instead of $1 alone"
}
touch "$work/model.gguf"
is generate vkmoe gen
offers train vkmoe ""
is --grammar vkmoe generate m --gra
is lora vkmoe train m --method l
offers full vkmoe train m --method ""
is lora vkmoe train m --method = l
offers full vkmoe train m --method =
is "$work/model.gguf" vkmoe chat "$work/mod"
is "$work/model.gguf" vkmoe generate m -f "$work/mod"
offers -generate vkmoe generate m --seed ""
[[ ${#COMPREPLY[@]} == 0 ]]
note $? "a number is completed by '${COMPREPLY[*]}'"
is zsh vkmoe completion z
is generate vkmoe man gen
# Words of a command beside files, and a list by commas.
offers model vkmoe bench ""
offers train vkmoe bench ""
offers deepseek-moe-16b vkmoe bench model deep
offers "$work/model.gguf" vkmoe bench model "$work/mod"
offers -deepseek-moe-16b vkmoe bench shader deep
offers report vkmoe eval ""
offers tasks vkmoe eval ""
offers "$work/model.gguf" vkmoe eval "$work/mod"
offers deepseek-llm-7b vkmoe info deep
is hellaswag vkmoe eval m --tasks hel
is hellaswag,piqa vkmoe eval m --tasks hellaswag,pi
is chatml vkmoe generate m --template chatm
is "$work/model.gguf" vkmoe generate m --template "$work/mod"
# What a command would ignore is neither offered nor taken.
offers ---json vkmoe man --js
"$VKMOE" man --json >"$work/out" 2>&1
[[ $? == 2 && $(<"$work/out") == *"there is no flag --json"* ]]
note $? "man --json: $(<"$work/out")"
# The overview: a summary begins in its column, whatever stands before it.
"$VKMOE" help >"$work/out"
grep -qE '^ {33}benchmarks of the' "$work/out" && ! grep -q 'tasksbench' "$work/out"
note $? "the overview: $(grep -A3 -E '^  vkmoe (eval|bench)' "$work/out")"

# Manual pages.
"$VKMOE" man --out "$work/man1" 2>"$work/err"
note $? "man --out: $(<"$work/err")"
commands=$("$VKMOE" --help | sed -nE 's/^  vkmoe ([a-z]+) .*/\1/p')
[[ $(LC_ALL=C ls "$work/man1") == "$(for c in $commands; do echo "vkmoe-$c.1"; done | LC_ALL=C sort; echo vkmoe.1)" ]]
note $? "a page for each command: $(ls "$work/man1")"
"$VKMOE" man generate | cmp -s - "$work/man1/vkmoe-generate.1"
note $? "a page on standard output is the same"
"$VKMOE" man no-such >"$work/out" 2>&1
[[ $? == 2 && $(<"$work/out") == *"no command 'no-such'"* ]]
note $? "a page that is not there: $(<"$work/out")"
if command -v groff >/dev/null; then
    for page in "$work"/man1/*.1; do
        # Lines that cannot be spread out are no fault of a page.
        text=$(groff -man -ww -Tutf8 -P-cbou "$page" 2>"$work/err")
        [[ -z $(grep -v 'cannot \(adjust\|break\) line' "$work/err") ]]
        note $? "$page: $(<"$work/err")"
        [[ $text == *NAME*SYNOPSIS*"EXIT STATUS"* && $text == *"--help"* ]]
        note $? "$page lacks a part"
    done
else
    echo "SKIP: there is no groff here: the pages are not set"
fi

rm -rf "$work"
finish
