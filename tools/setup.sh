#!/usr/bin/env bash
# tools/setup.sh [build] [vulkan] [code] [model] [ci]: makes sure that what the named parts need is there, and installs what is
# missing with apt (as root, or through sudo). It looks for programs and libraries, not for packages, so that a machine
# set up in another way is left alone; when nothing is missing it says nothing and takes a fraction of a second.
set -euo pipefail
shopt -s nullglob

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

missing=()    # Debian's package names
why=()        # what was looked for, for the message
need() {      # need PACKAGE WHAT: to be called when WHAT was not found
    missing+=("$1")
    why+=("$2")
}

debian_release() { # "debian 12", "ubuntu 24.04", "debian testing" (which has no number), "other"
    local ID=other VERSION_ID='' ID_LIKE=''
    # shellcheck disable=SC1091
    [[ -r /etc/os-release ]] && . /etc/os-release
    echo "$ID ${VERSION_ID:-testing}"
}

look_for_build() {
    has cc || has gcc || need gcc "a C compiler"
    [[ -e /usr/include/stdio.h || $(uname -s) != Linux ]] || need libc6-dev "the C library's headers"
    has cmake || need cmake cmake
    has ninja || need ninja-build ninja
    has glslc || need glslc glslc
    if ! has pkg-config; then
        need pkg-config pkg-config
        # Nothing can be asked without it; apt does not mind what is installed already.
        missing+=(libvulkan-dev libjansson-dev libpcre2-dev zlib1g-dev libedit-dev libstb-dev libshaderc-dev)
        return
    fi
    pkg-config --exists vulkan || need libvulkan-dev "Vulkan's headers and loader"
    pkg-config --exists jansson || need libjansson-dev jansson
    pkg-config --exists libpcre2-8 || need libpcre2-dev PCRE2
    pkg-config --exists zlib || need zlib1g-dev zlib
    pkg-config --exists libedit || need libedit-dev libedit
    pkg-config --exists shaderc || need libshaderc-dev "libshaderc, to compile shaders of your own (vkmoe bench shader)"
    [[ -e /usr/include/stb/stb_image_write.h || -e /usr/include/stb_image_write.h ||
        -e /usr/local/include/stb/stb_image_write.h ]] || need libstb-dev stb
}

# A driver: any that the user names, else one for the card that is there, else Mesa's lavapipe.
lavapipe_too_old() {
    [[ $(debian_release) == "debian 12" ]] || return 1
    local version
    version=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null || true)
    [[ -n $version ]] && dpkg --compare-versions "$version" lt 23
}

look_for_vulkan() {
    [[ -n ${VK_ICD_FILENAMES:-}${VK_DRIVER_FILES:-} ]] && return
    local nodes=(/dev/dri/renderD* /dev/nvidia0 /dev/dxg)
    local drivers=({/usr/share,/usr/local/share,/etc}/vulkan/icd.d/*.json)
    local software=({/usr/share,/usr/local/share,/etc}/vulkan/icd.d/lvp_icd*.json)
    local present=()
    for node in "${nodes[@]}"; do
        [[ -e $node ]] && present+=("$node")
    done
    if ((${#present[@]})); then
        ((${#drivers[@]})) || need mesa-vulkan-drivers "a Vulkan driver"
    elif ((${#software[@]} == 0)); then
        need mesa-vulkan-drivers "a Vulkan device (there is no graphics card here: Mesa's lavapipe runs on the processor)"
    elif lavapipe_too_old; then
        need mesa-vulkan-drivers "a newer lavapipe (Debian 12's own is 10 to 50 times slower than the one in its backports)"
    fi
}

# The sandbox of model-written programs takes the system's own Python, with its whole standard library.
look_for_code() {
    [[ -x /usr/bin/python3 ]] && /usr/bin/python3 -c "import ctypes, random" >/dev/null 2>&1 ||
        need python3 "a Python at /usr/bin/python3, to run what models write"
}

look_for_model() {
    has python3 && python3 -m pip --version >/dev/null 2>&1 || need python3-pip "pip, to fetch the demo's model"
}

look_for_ci() {
    has clang || need clang clang
    if has clang; then
        [[ -n $(find "$(clang -print-resource-dir)/lib" -name 'libclang_rt.fuzzer-*.a' 2>/dev/null) ]] ||
            need "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" "clang's fuzzer library"
    else
        [[ $(debian_release) == "debian 12" ]] && missing+=(libclang-rt-14-dev)
    fi
    [[ $(debian_release) != "debian 12" ]] || has clang-format-14 || need clang-format-14 clang-format-14
    has debootstrap || need debootstrap debootstrap
    has tmux || need tmux "tmux, to type at the chat in a test"
    local layers=({/usr/share,/etc}/vulkan/explicit_layer.d/VkLayer_khronos_validation*.json)
    ((${#layers[@]})) || need vulkan-validationlayers "Khronos' validation layers"
}

# Debian 12's backports, in the words of the machine's own sources: the same mirror, key and options, another suite.
backports_source() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        awk -v RS= '
            /(^|\n)Enabled:[ \t]*no/ { next }
            /(^|\n)Types:[^\n]*deb([ \t]|\n|$)/ && /(^|\n)Suites:[^\n]*[ \t]bookworm([ \t]|\n|$)/ &&
            /(^|\n)Components:[^\n]*main/ {
                n = split($0, line, "\n")
                for (i = 1; i <= n; i++) {
                    if (line[i] ~ /^#/) continue
                    sub(/^Types:.*/, "Types: deb", line[i])
                    sub(/^Suites:.*/, "Suites: bookworm-backports", line[i])
                    sub(/^Components:.*/, "Components: main", line[i])
                    print line[i]
                }
                exit
            }' "$file" >"$1.sources"
        if [[ -s $1.sources ]]; then
            echo "$1.sources"
            return
        fi
    done
    rm -f "$1.sources"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -r $file ]] || continue
        sed -nE 's/^[ \t]*deb[ \t]+(\[[^]]*\][ \t]+)?([^c][^ \t]*)[ \t]+bookworm[ \t]+(.*[ \t])?main([ \t].*)?$/deb \1\2 bookworm-backports main/p' \
            "$file" | head -n 1 >"$1.list"
        if [[ -s $1.list ]]; then
            echo "$1.list"
            return
        fi
    done
    rm -f "$1.list"
    return 1
}

add_backports() {
    [[ $(debian_release) == "debian 12" ]] || return 1
    apt-cache policy 2>/dev/null | grep -q 'n=bookworm-backports' && return 0
    local temporary file target
    temporary=$(mktemp -d)
    if ! file=$(backports_source "$temporary/vkmoe-backports"); then
        rm -rf "$temporary"
        return 1
    fi
    target=/etc/apt/sources.list.d/${file##*/}
    say "adds Debian 12's backports to apt's sources: $target"
    $sudo install -m 644 "$file" "$target"
    rm -rf "$temporary"
    if $sudo apt-get -q update -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 &&
        apt-cache policy 2>/dev/null | grep -q 'n=bookworm-backports'; then
        return 0
    fi
    say "this machine's mirror has no backports: $target is removed again, and Debian 12's own, slow Mesa is taken"
    $sudo rm -f "$target"
    $sudo apt-get -q update -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 || true
    return 1
}

other_systems() {
    say "this system has no apt. Please install these packages and call make again:"
    say "  dnf:    gcc cmake ninja-build pkgconf-pkg-config glslc vulkan-headers vulkan-loader-devel mesa-vulkan-drivers jansson-devel pcre2-devel zlib-devel libedit-devel stb-devel libshaderc-devel"
    say "  pacman: gcc cmake ninja pkgconf shaderc vulkan-headers vulkan-icd-loader vulkan-swrast jansson pcre2 zlib libedit stb"
    say "  zypper: gcc cmake ninja pkg-config shaderc vulkan-devel libvulkan_lvp libjansson-devel pcre2-devel zlib-devel libedit-devel stb-devel shaderc-devel"
    exit 1
}

install_missing() {
    local text
    text=$(printf '%s, ' "${why[@]}")
    say "not found: ${text%, }"
    has apt-get || other_systems
    sudo=
    if ((EUID != 0)); then
        has sudo || die "needs root to install ${missing[*]}; there is no sudo, so please call: apt-get install ${missing[*]}"
        sudo=sudo
    fi
    say "installs with apt-get${sudo:+ (through sudo)}: ${missing[*]}"
    local log options=(-q -y --no-install-recommends -o DPkg::Lock::Timeout=300)
    log=$(mktemp)
    if ! $sudo apt-get -q update -o DPkg::Lock::Timeout=300 >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "apt-get update failed: is there a network? (the lines above are its last)"
    fi
    local package backports=() plain=()
    for package in "${missing[@]}"; do
        if [[ $package == mesa-vulkan-drivers ]] && add_backports; then
            backports+=("$package")
        elif [[ $package == mesa-vulkan-drivers ]] && lavapipe_too_old; then
            say "stays with the lavapipe that is installed"
        else
            plain+=("$package")
        fi
    done
    if ((${#plain[@]})) &&
        ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "${plain[@]}" >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "apt-get install ${plain[*]} failed: is there a network? (the lines above are its last)"
    fi
    if ((${#backports[@]})) && ! $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install "${options[@]}" -t bookworm-backports "${backports[@]}" >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "apt-get install -t bookworm-backports ${backports[*]} failed (the lines above are its last)"
    fi
    rm -f "$log"
}

if (($# == 0)); then
    set -- build vulkan
fi
for part in "$@"; do
    case $part in
    build | vulkan | code | model | ci) "look_for_$part" ;;
    *) die "there is no part '$part': build, vulkan, code, model or ci" ;;
    esac
done
if ((${#missing[@]})); then
    install_missing
fi
if [[ " $* " == *" build "* ]]; then
    version=$(cmake --version | sed -nE '1s/.* ([0-9]+\.[0-9]+).*/\1/p')
    if [[ $(printf '%s\n3.25\n' "$version" | sort -V | head -n 1) != 3.25 ]]; then
        die "cmake $version is too old: 3.25 or newer is needed (Debian 12, Ubuntu 24.04 and later have it)"
    fi
fi
