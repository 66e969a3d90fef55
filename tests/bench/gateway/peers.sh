#!/usr/bin/env bash
# Fetch the peers into build/bench: nginx from Debian (unpacked, not installed), vllm-router and
# LiteLLM from PyPI into an environment of their own, with matplotlib for the chart.
#
#   tests/bench/gateway/peers.sh [nginx]     # nginx alone is what --quick needs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

FOLDER=$PWD/build/bench
REQUIREMENTS=$PWD/tests/bench/gateway/peers.txt
mkdir -p "$FOLDER"

if [ ! -x "$FOLDER/nginx/usr/sbin/nginx" ]; then
    echo "peers: nginx"
    (
        cd "$FOLDER"
        [ "$(id -u)" != 0 ] || apt-get update -q >/dev/null
        rm -f nginx_*.deb
        apt-get download -q nginx 2>/dev/null
        dpkg -x nginx_*.deb nginx
    )
fi
missing=$(ldd "$FOLDER/nginx/usr/sbin/nginx" | awk '/not found/ { print $1 }')
if [ -n "$missing" ]; then
    echo "peers: nginx needs $missing: apt-get install nginx-light, or its libraries" >&2
    exit 1
fi
[ "${1:-}" != nginx ] || exit 0

if ! cmp -s "$REQUIREMENTS" "$FOLDER/venv/peers.txt"; then
    echo "peers: vllm-router, LiteLLM, matplotlib (about a minute)"
    "${PYTHON:-python3}" -m venv --clear "$FOLDER/venv"
    "$FOLDER/venv/bin/pip" install -q --disable-pip-version-check -r "$REQUIREMENTS"
    cp "$REQUIREMENTS" "$FOLDER/venv/peers.txt"
fi
