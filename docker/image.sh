#!/usr/bin/env bash
# Builds the image of one kind of box with what compose.yaml says, and names its sources in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'USAGE'
usage: docker/image.sh [spark | thor | demo]

Builds unglitched:BOX. Without a name it is the box of COMPOSE_PROFILES in .env.

variables:
  WHEELS_DIR=DIR   wheels that pip looks at before it asks an index (copied into build/wheels/)
  and those of .env.example, "the image"
USAGE
}

fail() {
    echo "image: $1" >&2
    echo "  -> $2" >&2
    exit 1
}

case "${1:-}" in
-h | --help) usage && exit ;;
esac
box=${1:-${COMPOSE_PROFILES:-$(sed -n 's/^COMPOSE_PROFILES=//p' .env 2>/dev/null || true)}}
case "$box" in
spark | thor | demo) ;;
"") fail "no box is named" "docker/image.sh demo, or cp .env.example .env and choose one" ;;
*) fail "$box is no box" "use spark, thor or demo" ;;
esac
docker compose version >/dev/null 2>&1 ||
    fail "docker compose is not installed" "install Docker's Compose and buildx plug-ins"

mkdir -p build/wheels build/checkpoint
if [ -n "${WHEELS_DIR:-}" ]; then
    [ -d "$WHEELS_DIR" ] || fail "WHEELS_DIR=$WHEELS_DIR is no folder" "name a folder with wheels"
    cp -u "$WHEELS_DIR"/*.whl build/wheels/
fi
# The tiny model that make demo trained, if it did: else the build trains its own.
if [ "$box" = demo ] && [ -f .demo/checkpoint.stamp ]; then
    cp -u .demo/checkpoint/* build/checkpoint/
    cp -u .demo/checkpoint.stamp build/checkpoint/stamp
fi

VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' appliance/__init__.py)
REVISION=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
export VERSION REVISION
docker compose --profile "$box" build "$box"
docker image inspect --format "image: unglitched:$box, {{.Architecture}}, {{.Size}} bytes" \
    "$(docker compose --profile "$box" config --images "$box" | head -n 1)"
