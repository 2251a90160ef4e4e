# Khronos validation must have nothing to say: core and synchronisation checks, then GPU-assisted ones, over the programs that record whole
# models and every kernel of rows and attention. VKMOE_VALIDATE_ALL=1 takes the long programs too. A message makes a program leave with 3.
set -u
shopt -s nullglob
layers=({/usr/share,/usr/local/share,/etc}/vulkan/explicit_layer.d/VkLayer_khronos_validation*.json)
if ((${#layers[@]} == 0)); then
    echo "skipped: Khronos' validation layer is not installed" >&2
    exit 77
fi
tests=(runtime filemap adapter session training)
[[ -z ${VKMOE_VALIDATE_ALL:-} ]] || tests+=(rows attention linear golden)
failed=0
modes=(core,sync gpu)
if grep -q '"api_version": *"1\.[0-3]\.' "${layers[0]}"; then
    echo "SKIP: GPU-assisted checks: this layer is older than 1.4 and waits wrongly for timeline semaphores"
    modes=(core,sync)
fi
for checks in "${modes[@]}"; do
    export VKMOE_OFF=
    if [[ $checks == gpu ]]; then # a check around each of the thousand loads of gemv_cpu.comp takes lavapipe's compiler over a quarter of an hour a model
        VKMOE_OFF=eight
        echo "SKIP: GPU-assisted checks of kernels that read by eight lanes; others take their place (VKMOE_OFF=eight)"
    fi
    for test in "${tests[@]}"; do
        seconds=$SECONDS
        VKMOE_VALIDATE=$checks "tests/test_$test" >test-validate.log 2>&1
        status=$?
        if [[ $status == 77 ]]; then
            echo "skipped: test_$test has nothing to run on" >&2
            exit 77
        elif [[ $status != 0 ]]; then
            failed=$((failed + 1))
            echo "failed: test_$test under $checks" >&2
            grep -A 4 '^validation:' test-validate.log | head -n 20 >&2
        fi
        echo "test_$test under $checks: $(tail -n 1 test-validate.log) [$((SECONDS - seconds)) s]"
    done
done
rm -f test-validate.log
echo "$failed failed"
exit $((failed > 0))
