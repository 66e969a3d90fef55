#!/usr/bin/env bash
# Accepts this box: starts an appliance where none runs, and then types appliance accept.
# On a box that is in its container; without a box in .env, or with DEMO=1, it is the demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'USAGE'
usage: docker/accept.sh [appliance accept's flags, for example --with-kill or --fresh]

  DEMO=1   accept the demo, whatever .env says
  BOX=...  spark, thor or demo; default: COMPOSE_PROFILES of .env

The report is acceptance/report.html. A run that was cut goes on where it was.
USAGE
}

OUT=acceptance
INSIDE=/var/lib/unglitched/acceptance # in the container, in the volume of its state
CONTEXT=32768          # tokens of a demo that is started here: a CPU reads more than that for long

demo() {
    local log=.demo/accept.log pid waited=0
    export APPLIANCE_STATE_DIR=.demo/state
    if ! .venv/bin/appliance status >/dev/null 2>&1; then
        mkdir -p .demo
        echo "accept: no demo runs; starting one (its log: $log)" >&2
        APPLIANCE_MAX_MODEL_LEN=$CONTEXT .venv/bin/python -m appliance.demo --port "${PORT:-0}" \
            >"$log" 2>&1 &
        pid=$!
        # shellcheck disable=SC2064 # the number is known now, and not when it ends
        trap "kill $pid 2>/dev/null; wait $pid 2>/dev/null || true" EXIT
        until .venv/bin/appliance status >/dev/null 2>&1; do
            kill -0 "$pid" 2>/dev/null || { tail -n 15 "$log" >&2; exit 1; }
            sleep 5
            waited=$((waited + 5))
            echo "accept: ${waited} s, $(tail -n 1 "$log")" >&2
        done
    fi
    .venv/bin/appliance accept --out "$OUT" "$@"
}

box() {
    local box=$1 code=0
    shift
    compose() { docker compose --profile "$box" "$@"; }
    if ! compose exec -T "$box" appliance status >/dev/null 2>&1; then
        docker/up.sh up "$box"
    fi
    # the doctor looks at the host, and so from the host
    { .venv/bin/appliance doctor --profile "$box" --json || true; } |
        compose exec -T "$box" appliance accept --out "$INSIDE" --doctor - "$@" || code=$?
    mkdir -p "$OUT"
    compose cp "$box:$INSIDE/." "$OUT/"
    echo "accept: on this host the report is $OUT/report.html" >&2
    exit "$code"
}

case "${1:-}" in -h | --help) usage && exit ;; esac
name=${BOX:-}
if [ -z "$name" ] && [ -f .env ]; then
    name=$(sed -n 's/^COMPOSE_PROFILES=//p' .env | tail -n 1)
fi
if [ -n "${DEMO:-}" ] || [ -z "$name" ]; then
    demo "$@"
else
    box "$name" "$@"
fi
