#!/usr/bin/env bash
# tools/debian_root.sh [--fresh] [--packages "a b"] SUITE COMMAND...: runs a command inside a Debian root of its own (SUITE is
# forky or bookworm), in a clone of the last commit of this repository. The root is made by debootstrap once and kept outside the
# tree; mirror, proxies, apt's and pip's configuration and the certificates are the machine's own. Needs root.
# The root lies in $VKMOE_ROOTS, else in the cache folder; --fresh makes a new one. Nothing is mounted outside the call.
set -euo pipefail
shopt -s nullglob
repository=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'debian_root: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

fresh=0
packages="git make ca-certificates"
while [[ ${1:-} == --* ]]; do
    case $1 in
    --fresh) fresh=1 ;;
    --packages)
        packages="$packages $2"
        shift
        ;;
    *) die "unknown flag $1" ;;
    esac
    shift
done
(($# >= 2)) || die "usage: tools/debian_root.sh [--fresh] [--packages \"a b\"] forky|bookworm COMMAND..."
suite=$1
shift
((EUID == 0)) || die "needs root: debootstrap and chroot"
command -v debootstrap >/dev/null || die "needs debootstrap (tools/setup.sh ci installs it)"
roots=${VKMOE_ROOTS:-${VKMOE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vkmoe}/roots}
root=$roots/$suite

# The first Debian mirror of the machine's own sources.
mirror() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        awk -v RS= '/(^|\n)Types:[^\n]*deb/ && /(^|\n)Components:[^\n]*main/ && !/security/ && !/(^|\n)Enabled:[ \t]*no/ {
            n = split($0, line, "\n")
            for (i = 1; i <= n; i++) if (sub(/^URIs:[ \t]*/, "", line[i])) { split(line[i], uri, " "); print uri[1]; exit }
        }' "$file"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -r $file ]] && sed -nE 's/^[ \t]*deb[ \t]+(\[[^]]*\][ \t]+)?(http[^ \t]*)[ \t]+[a-z]+[ \t]+(.*[ \t])?main.*/\2/p' "$file" |
            grep -v security
    done
}

copy_configuration() { # what the machine needs to reach its registries, copied to the same places
    local path
    mkdir -p "$1/etc/apt/apt.conf.d"
    cp -L /etc/resolv.conf "$1/etc/resolv.conf" 2>/dev/null || true
    cp -L /etc/hosts "$1/etc/hosts" 2>/dev/null || true
    # Only what concerns the network and the dates of the lists: hooks of this machine have no business in the root.
    apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|Proxy)' >"$1/etc/apt/apt.conf.d/90machine" || true
    for path in /etc/apt/auth.conf /etc/apt/auth.conf.d /etc/pip.conf /usr/local/share/ca-certificates \
        /etc/ssl/certs/ca-certificates.crt "$HOME/.config/pip" "$HOME/.pip" \
        $(grep -oE '/[^";]+\.(crt|pem|key)' "$1/etc/apt/apt.conf.d/90machine" || true) ${PIP_CERT:-} ${SSL_CERT_FILE:-}; do
        [[ -e $path ]] || continue
        mkdir -p "$1$(dirname "${path/#$HOME//root}")"
        cp -rL "$path" "$1$(dirname "${path/#$HOME//root}")/"
    done
}

if ((fresh)); then
    rm -rf --one-file-system "$root"
fi
if [[ ! -e $root/etc/vkmoe-root ]]; then
    url=$(mirror | head -n 1 || true)
    [[ -n $url ]] || die "no Debian mirror in this machine's apt sources"
    say "makes a root of Debian $suite in $root"
    rm -rf --one-file-system "$root" "$root.partial"
    mkdir -p "$roots"
    log=$(mktemp)
    # An older debootstrap does not know the newest suites by name; the script for sid serves them all.
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root.partial" "$url" \
        /usr/share/debootstrap/scripts/sid >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        die "debootstrap $suite failed (the lines above are its last)"
    }
    rm -f "$log"
    touch "$root.partial/etc/vkmoe-root"
    mv "$root.partial" "$root"
fi
copy_configuration "$root"

# A clone that is kept, so that a second run builds only what changed.
commit=$(git -C "$repository" rev-parse HEAD)
[[ -z $(git -C "$repository" status --porcelain --untracked-files=no) ]] ||
    say "there are changes that are not committed: the root gets the last commit, ${commit:0:10}"
clone=$root/root/vkmoe
[[ -d $clone/.git ]] || git clone -q --no-checkout --no-hardlinks "$repository" "$clone"
git -C "$clone" fetch -q "$repository" "$commit"
git -C "$clone" checkout -q --force --detach "$commit"
git -C "$clone" clean -q -fd

export root packages repository
# Mounts in a namespace of their own: they are gone when the command ends, however it ends.
exec unshare --mount --propagation private bash -euo pipefail -c '
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    if [[ -d $repository/../shared ]]; then
        mkdir -p "$root/root/shared"
        mount --bind "$repository/../shared" "$root/root/shared"
        mount -o remount,bind,ro "$root/root/shared"
    fi
    unset TMPDIR XDG_CACHE_HOME XDG_RUNTIME_DIR VK_ICD_FILENAMES VK_DRIVER_FILES PIP_FIND_LINKS VKMOE_CACHE
    export HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    missing=
    for package in $packages; do
        [[ $(chroot "$root" dpkg-query -W -f "\${db:Status-Abbrev}" "$package" 2>/dev/null || true) == ii* ]] ||
            missing="$missing $package"
    done
    if [[ -n $missing ]]; then
        echo "debian_root: installs$missing" >&2
        chroot "$root" apt-get -q update >/dev/null
        # shellcheck disable=SC2086
        chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >"$root/root/apt.log" 2>&1 ||
            { tail -n 5 "$root/root/apt.log" >&2; exit 1; }
    fi
    # A root that was only changed by chroot would have no user namespaces, and the sandbox of model-written programs needs them.
    cd "$root"
    pivot_root . mnt
    umount --lazy mnt
    exec chroot . bash -c "cd /root/vkmoe && exec \"\$@\"" bash "$@"
' bash "$@"
