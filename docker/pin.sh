#!/usr/bin/env bash
# Asks the registries, once, what the bases' tags and the model's branch are now, and writes the
# answers into .env. What cannot be asked stays as it was, and is said.
#
#   docker/pin.sh            the lines BUILD_DIGEST, RUNTIME_DIGEST, DEMO_DIGEST, PROMETHEUS_DIGEST,
#                            GRAFANA_DIGEST, MODEL_REVISION
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MODEL=catplusplus/MiniMax-M2.7-REAP-172B-A10B-NVFP4
failed=0

say() { echo "pin: $1"; }

image() { # NAME of the variable: its value in .env, or the default of the compose files
    local found=
    [ ! -f .env ] || found=$(sed -n "s/^$1=//p" .env | tail -n 1)
    echo "${found:-$(sed -n "s/.*\${$1:-\([^}]*\)}.*/\1/p" compose.yaml compose.monitoring.yaml | head -n 1)}"
}

write() { # NAME VALUE
    touch .env
    if grep -q "^$1=" .env; then
        sed -i "s|^$1=.*|$1=$2|" .env
    else
        echo "$1=$2" >>.env
    fi
    say "$1=$2"
}

for kind in BUILD RUNTIME DEMO PROMETHEUS GRAFANA; do
    name=$(image "${kind}_IMAGE")
    if digest=$(docker buildx imagetools inspect "$name" --format '{{.Manifest.Digest}}' 2>&1) &&
        [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
        write "${kind}_DIGEST" "@$digest"
    else
        say "$name was not resolved: $(tail -n 1 <<<"$digest")"
        failed=1
    fi
done

ask="from huggingface_hub import HfApi; print(HfApi().model_info('$MODEL').sha)"
if revision=$(python3 -c "$ask" 2>&1) && [[ $revision =~ ^[0-9a-f]{40}$ ]]; then
    write MODEL_REVISION "$revision"
else
    say "$MODEL was not resolved: $(tail -n 1 <<<"$revision")"
    echo "  -> pip install huggingface_hub, and type it again where there is a network"
    failed=1
fi
exit "$failed"
