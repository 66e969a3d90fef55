#!/usr/bin/env bash
# Builds the arm64 image of helper and sidecar on this machine, without emulation: force_swap is
# cross-compiled, and the packages are aarch64's wheels. The stand-in base takes the place of CUDA's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
docker buildx build --quiet --platform linux/arm64 --file docker/Dockerfile --target runtime \
    --build-arg BUILD_IMAGE=unglitched-ci/debian:12 \
    --build-arg RUNTIME_IMAGE=unglitched-ci/debian:12-arm64 \
    --build-arg SYSTEM=given --build-arg ENGINE=none --build-arg PYTHON_VERSION=3.11 \
    --build-arg TARGET=spark --tag unglitched:arm64 .
