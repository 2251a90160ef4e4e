#!/usr/bin/env bash
# tools/ci_testing.sh: what .ci/run does inside the Debian testing root. Its compiler of shaders knows the cooperative matrices, its
# lavapipe runs them, and mesa-drm-shim lets the real drivers for AMD and NVIDIA compile every pipeline without a card.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup.sh build vulkan
[[ -f build/build.ninja ]] || cmake --preset release -DVKMOE_WERROR=ON
cmake --build --preset release

library=/usr/lib/$(gcc -dumpmachine)
compile_for() { # compile_for NAME SHIM DRIVER VARIABLE=VALUE...: every pipeline, by that driver's compiler
    local name=$1 shim=$2 driver=$3
    shift 3
    echo "== pipelines for $name"
    env "$@" LD_PRELOAD="$library/$shim" VK_ICD_FILENAMES="/usr/share/vulkan/icd.d/$driver" \
        MESA_SHADER_CACHE_DISABLE=1 VKMOE_STATIC=1 VKMOE_CACHE="$PWD/build/static-cache" build/tests/test_pipelines
}
if [[ -x build/tests/test_pipelines ]]; then
    compile_for "RX 6800 (RADV, navi21)" libamdgpu_noop_drm_shim.so "$(basename /usr/share/vulkan/icd.d/radeon_icd*.json)" AMDGPU_GPU_ID=navi21
    compile_for "7900 XTX (RADV, navi31)" libamdgpu_noop_drm_shim.so "$(basename /usr/share/vulkan/icd.d/radeon_icd*.json)" AMDGPU_GPU_ID=navi31
    compile_for "9070 XT (RADV, gfx1201)" libamdgpu_noop_drm_shim.so "$(basename /usr/share/vulkan/icd.d/radeon_icd*.json)" AMDGPU_GPU_ID=gfx1201
    compile_for "Turing (NVK)" libnouveau_noop_drm_shim.so "$(basename /usr/share/vulkan/icd.d/nouveau_icd*.json)" NOUVEAU_CHIPSET=162 NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1
    compile_for "Ampere (NVK)" libnouveau_noop_drm_shim.so "$(basename /usr/share/vulkan/icd.d/nouveau_icd*.json)" NOUVEAU_CHIPSET=172 NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1
fi

echo "== the suite on $(dpkg-query -W -f '${Package} ${Version}' mesa-vulkan-drivers)"
ctest --preset release
