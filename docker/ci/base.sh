#!/usr/bin/env bash
# Stand-ins for the base images, where no registry of images is reached: Debian, made of packages.
#
#   unglitched-ci/debian:12         this machine's architecture, with apt
#   unglitched-ci/debian:12-arm64   for COPY alone: nothing was run in it, so it needs no emulation
#
# This machine's certificates and pip's pointer to them are baked in, for machines whose network
# signs TLS anew. That is for tests: an image that is handed on is built on the real bases.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

SUITE=bookworm
ROOT=$PWD/build/container
NATIVE=unglitched-ci/debian:12
ARM64=unglitched-ci/debian:12-arm64
# What docker/Dockerfile would install is in it already: dpkg is slow on a disk, and fast in memory.
NATIVE_PACKAGES=ca-certificates,python3,libnuma1,libstdc++6
ARM64_PACKAGES=base-passwd,dash,coreutils,ca-certificates,libstdc++6,libgcc-s1,python3
SLIM=(--dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/doc/*
    --dpkgopt=path-exclude=/usr/share/locale/*)
BUNDLE=/etc/ssl/certs/ca-certificates.crt

say() { echo "base: $1" >&2; }

mirror() {
    local found
    found=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
    [ -n "$found" ] || found=$(awk '$1 == "deb" {print $2; exit}' /etc/apt/sources.list 2>/dev/null || true)
    [ -n "$found" ] && echo "$found" && return
    say "this machine's apt names no mirror"
    echo "  -> use a Debian machine" >&2
    return 1
}

strap() { # ARCH VARIANT PACKAGES IMAGE [HOOK...]
    local arch=$1 variant=$2 packages=$3 image=$4 began=$SECONDS tar=$ROOT/base-$1.tar
    shift 4
    docker image inspect "$image" >/dev/null 2>&1 && return
    # In memory: dpkg writes each file through to the disk, which triples the time.
    TMPDIR=$([ -w /dev/shm ] && echo /dev/shm || echo "$ROOT") mmdebstrap --quiet \
        --architectures="$arch" --variant="$variant" --include="usr-is-merged,$packages" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr "${SLIM[@]}" "$@" \
        "$SUITE" "$tar" "deb $from $SUITE main" >"$ROOT/base-$arch.log" 2>&1 || {
        say "$image cannot be made"
        echo "  -> see $ROOT/base-$arch.log" >&2
        return 1
    }
    docker import --platform "linux/$arch" "$tar" "$image" >/dev/null
    rm "$tar"
    say "$image ($((SECONDS - began)) s)"
}

command -v mmdebstrap >/dev/null ||
    { apt-get update -q && apt-get install -y -q --no-install-recommends mmdebstrap; } >&2
mkdir -p "$ROOT"
from=$(mirror)
printf '[global]\ncert = %s\n' "$BUNDLE" >"$ROOT/pip.conf"
pip=(--customize-hook="copy-in $ROOT/pip.conf /etc"
    --customize-hook="copy-in $BUNDLE $(dirname "$BUNDLE")")

native=$(dpkg --print-architecture)
strap "$native" minbase "$NATIVE_PACKAGES" "$NATIVE" "${pip[@]}"
if [ "${1:-}" = arm64 ]; then
    # No package's own scripts were run: what they would have made, and a start needs, is made here.
    # shellcheck disable=SC2016  # $1 is mmdebstrap's, not ours
    strap arm64 extract "$ARM64_PACKAGES" "$ARM64" \
        --extract-hook='ln -sf dash "$1/usr/bin/sh"; mkdir -p "$1/tmp"; chmod 1777 "$1/tmp"' \
        --extract-hook='cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"' \
        --extract-hook='cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"'
fi
