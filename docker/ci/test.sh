#!/usr/bin/env bash
# The container path, for real: an engine, bases, the images, and the tests over them. Prints the
# steps with their times. Where no engine can be started the tests are skipped, and it says why.
#
#   docker/ci/test.sh [PYTEST_WORD...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

ROOT=$PWD/build/container
PYTHON=$PWD/.venv/bin/python
STEPS=$ROOT/steps.txt
mkdir -p "$ROOT" build/wheels
: >"$STEPS"

# shellcheck disable=SC2329  # called by the trap
finish() {
    local code=$?
    docker/ci/engine.sh down || true
    echo "steps:"
    cat "$STEPS"
    exit "$code"
}
trap finish EXIT

step() { # NAME COMMAND...: its output goes to a log, its time into the table
    local name=$1 log=$ROOT/step-${1%% *}.log began=$SECONDS
    shift
    echo "test-container: $name"
    if ! "$@" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        printf '| %s | FAILED after %d s |\n' "$name" $((SECONDS - began)) >>"$STEPS"
        return 1
    fi
    printf '| %s | %d s |\n' "$name" $((SECONDS - began)) >>"$STEPS"
}

# PyTorch for the CPU: from where this machine's pip looks, if it is there; else the build asks
# PyTorch's own index.
# shellcheck disable=SC2329  # called by step
torch() {
    local pin
    pin=$(sed -n 's/^TORCH: Final = "\(.*\)"/\1/p' appliance/demo/envdir.py)
    "$PYTHON" -m pip download -q --no-deps --only-binary :all: -d build/wheels "torch==$pin" ||
        echo "not here: the build fetches it"
}

# shellcheck disable=SC2329  # called by step
tools() { # what the tests need beside an engine
    local missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    [ "${#missing[@]}" -eq 0 ] || { apt-get update -q &&
        apt-get install -y -q --no-install-recommends "${missing[@]}"; }
}

export DEMO_IMAGE=unglitched-ci/debian:12
if step "engine: fetch and start Docker" docker/ci/engine.sh up; then
    eval "$(docker/ci/engine.sh env)"
    step "tools: mmdebstrap, qemu" tools
    step "bases: Debian for amd64 and arm64" docker/ci/base.sh arm64
    step "torch: find PyTorch's CPU wheel" torch
    step "demo: build the image with the real vLLM CPU wheel" docker/image.sh demo
    step "arm64: build helper and sidecar, cross-compiled" docker/ci/arm64.sh
else
    CONTAINER_SKIP="no Docker engine can be started here: $(tail -n 2 "$ROOT/step-engine:.log" | tr '\n' ' ')"
    export CONTAINER_SKIP
fi
began=$SECONDS
code=0
"$PYTHON" -m pytest tests/container -m "container and not long" -rs "$@" || code=$?
printf '| tests | %d s |\n' $((SECONDS - began)) >>"$STEPS"
exit "$code"
