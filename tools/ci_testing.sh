#!/usr/bin/env bash
# tools/ci_testing.sh: what .ci/run does inside the Debian testing root. Its compiler of shaders knows the cooperative matrices, its
# lavapipe runs them, and mesa-drm-shim (for Intel tools/intel_shim.c) lets the real drivers compile every pipeline without a card.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup.sh build vulkan code
[[ -f build/build.ninja ]] || cmake --preset release -DVKMOE_WERROR=ON
cmake --build --preset release

compile_for() { # compile_for CARD: every pipeline by the compiler of that card's driver; a number is NVIDIA's name of a chip
    local card=$1 driver=radeon shim=amdgpu settings=("AMDGPU_GPU_ID=$1") icd
    [[ $card != navi31 && $card != gfx1201 && $card != b580 ]] || export VKMOE_STATIC_MATRIX=1 # each body for matrix units must be there
    [[ $card != navi21 ]] || export VKMOE_STATIC_DOT2=1 # and for products of pairs
    [[ $card != gfx1201 ]] || export VKMOE_STATIC_WAYS=1 # what the tuner may try too: many, and the other compilers are slower
    [[ $card != [0-9]* ]] || driver=nouveau shim=nouveau settings=("NOUVEAU_CHIPSET=$1" NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1)
    shim=/usr/lib/$(gcc -dumpmachine)/lib${shim}_noop_drm_shim.so
    [[ $card != [ab][0-9]* ]] || driver=intel shim=$PWD/build/static/intel_shim.so settings=("INTEL_CARD=$1")
    icd=("/usr/share/vulkan/icd.d/${driver}_icd"*.json)
    env "${settings[@]}" LD_PRELOAD="$shim" VK_ICD_FILENAMES="${icd[0]}" \
        MESA_SHADER_CACHE_DISABLE=1 VKMOE_STATIC=2 VKMOE_CACHE="$PWD/build/static/$card" build/tests/test_pipelines \
        >"build/static/$card.log" 2>&1
}
echo "== every pipeline for RX 6800, 7900 XTX and 9070 XT (RADV), for Turing and Ampere (NVK), for Arc A770 and B580 (ANV)  [$SECONDS s]"
cards=(navi21 navi31 gfx1201 162 172 a770 b580) jobs=() failed=0
rm -rf build/static
mkdir build/static
gcc -O1 -Wall -Werror -shared -fPIC tools/intel_shim.c -o build/static/intel_shim.so
for card in "${cards[@]}"; do
    compile_for "$card" &
    jobs+=($!)
done
for i in "${!cards[@]}"; do
    wait "${jobs[i]}" || failed=1
    grep -vE '^$|^[a-z0-9_]+ +\[' "build/static/${cards[i]}.log" || true # registers, code and latency of each stay there
done

# Before anything else has the machine: kernels beside the modules that were accepted last, no more than 15 % slower.
echo "== speed on lavapipe  [$SECONDS s]"
VKMOE_SPEED=1 VKMOE_CACHE="$PWD/build/static/lavapipe" build/tests/test_speed || { failed=1 && echo "SPEED: a kernel has become slower, see above" >&2; }

echo "== the suite on $(dpkg-query -W -f '${Package} ${Version}' mesa-vulkan-drivers)  [$SECONDS s]"
# Workgroups of several threads first, where they work together (split sums, atomics); then the rest, whose time is spent waking threads (see Makefile).
together='^(adapter|attention|experts|linear|rows|session|step|training)$'
ctest --preset release --parallel 2 -R "$together" || failed=1
LP_NUM_THREADS=0 ctest --preset release --parallel "$(nproc)" -E "$together" || failed=1
exit "$failed"
