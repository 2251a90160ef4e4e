# Every path has a fallback: whole models (inference, training, adapters) with each capability of this device switched off in turn, then
# with all of them off, which is plain Vulkan 1.3. "brief": what knows no device is left out. Working directory and programs: the build folder.
set -u
capabilities=$("$VKMOE" devices --json 2>/dev/null |
    awk '/"index"/ { devices++ } devices > 1 { exit } /^    "[a-z0-9_]+": \{/ { name = $1; gsub(/[":]/, "", name) } /"on": true/ { print name }')
if [[ -z $capabilities ]]; then
    echo "skipped: no Vulkan device, or one without any capability to switch off" >&2
    exit 77
fi
failed=0
for off in $capabilities "$(paste -sd, <<<"$capabilities")"; do
    tests="session training adapter"
    [[ $off != file_map ]] || tests="filemap" # the others map nothing
    for test in $tests; do
        if VKMOE_OFF=$off "tests/test_$test" brief >test-off.log 2>&1; then
            echo "$test without $off: $(tail -n 1 test-off.log)"
        else
            failed=$((failed + 1))
            echo "failed: $test without $off" >&2
            tail -n 20 test-off.log >&2
        fi
    done
done
rm -f test-off.log
echo "$failed failed"
exit $((failed > 0))
