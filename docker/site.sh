#!/bin/sh
# A Python environment for another machine: python packages as files, no program of that machine
# is run. So an image for aarch64 is built on any machine, without emulation.
#
#   site.sh ENVIRONMENT ARCH PYTHON PIP_WORD...      site.sh /opt/appliance arm64 3.12 -r lock
set -eu
environment=$1 arch=$2 version=$3
shift 3
case "$arch" in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*)
    echo "site.sh: no wheels are known for $arch" >&2
    exit 1
    ;;
esac
[ -x /build/bin/pip ] || python3 -m venv /build
packages=$environment/lib/python$version/site-packages
mkdir -p "$environment/bin" "$packages"
# What makes a folder an environment: this file, and a python beside the packages.
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$version" \
    >"$environment/pyvenv.cfg"
ln -sf /usr/bin/python3 "$environment/bin/python3"
ln -sf python3 "$environment/bin/python"
# pip takes a platform by its name alone: a wheel for an older libc has to be named too.
platforms=$(for minor in $(seq 39 -1 17); do printf -- '--platform manylinux_2_%s_%s ' "$minor" "$machine"; done)
# --ignore-requires-python: an older pip holds a package against its own Python, not the named one.
# What fits was decided when the lock was made.
# shellcheck disable=SC2086  # a list of words
/build/bin/pip install --quiet --no-deps --only-binary :all: --target "$packages" --upgrade \
    --ignore-requires-python \
    $platforms --platform "manylinux2014_$machine" --platform "linux_$machine" \
    --python-version "$version" --implementation cp --no-warn-script-location "$@"
rm -rf "${packages:?}/bin" # commands of the building machine; ours are written by hand
