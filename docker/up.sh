#!/usr/bin/env bash
# Starts the container of one kind of box, and waits until it is ready, or says why it is not.
# Fetches its model before that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'USAGE'
usage: docker/up.sh [up | down | logs] [spark | thor | demo]
       docker/up.sh model

  up     start, tell the progress, end when it is ready (exit code 0) or is not to be (1)
  down   end it in order, and remove the container; keys and caches stay (in their volume)
  logs   follow the log
  model  fetch the model (103 GB) into MODEL_PATH, or go on with it: `make model`, which
         installs the appliance into .venv first, calls this

Without a name it is the box of COMPOSE_PROFILES in .env. An image that is missing is built.
USAGE
}

MODEL=catplusplus/MiniMax-M2.7-REAP-172B-A10B-NVFP4
CONFIG_FILES=(config.json model.safetensors.index.json)

SCRIPT=up
. docker/dotenv.sh

model_folder() {
    folder=$(value MODEL_PATH)
    [ -n "$folder" ] || fail "MODEL_PATH is not set" "name the checkpoint's folder in .env"
}

check_model() {
    local folder file
    model_folder
    for file in "${CONFIG_FILES[@]}"; do
        [ -f "$folder/$file" ] || fail "MODEL_PATH=$folder has no $file" \
            "fetch the model (103 GB), or go on with it: make model"
    done
}

model() {
    local folder revision
    model_folder
    revision=$(value MODEL_REVISION)
    exec .venv/bin/appliance model pull "$MODEL" ${revision:+--revision "$revision"} --out "$folder"
}

greet() {
    local port scheme=http address=127.0.0.1
    port=$(value APPLIANCE_PORT)
    [ -z "$(value APPLIANCE_TLS_CERT)" ] || scheme=https
    if [ "$(value APPLIANCE_LISTEN)" = lan ]; then
        address=$(hostname -I 2>/dev/null | cut -d' ' -f1)
        [ "$scheme" = https ] || echo "up: the network can read along: HTTP is plain (.env: TLS)" >&2
    fi
    echo "serving at $scheme://${address:-ADDRESS-OF-THIS-BOX}:${port:-9000}/v1"
    echo "the key:  docker compose --profile $box exec $box appliance key"
    echo "Kilo:     docker compose --profile $box exec $box appliance kilo"
}

up() {
    [ "$box" = demo ] || check_model
    compose up --detach "$box"
    if ! compose exec -T "$box" /opt/appliance/bin/ready.py --wait; then
        echo "up: $box is not ready; its log ends with:" >&2
        compose logs --no-log-prefix --tail 15 "$box" >&2
        exit 1
    fi
    greet
}

compose() { docker compose --profile "$box" "$@"; }

what=${1:-up}
box=${2:-$(value COMPOSE_PROFILES)}
case "$what" in
-h | --help) usage && exit ;;
model) model ;;
up | down | logs) ;;
*) usage >&2 && exit 2 ;;
esac
case "$box" in
spark | thor | demo) ;;
"") fail "no box is named" "cp .env.example .env, and choose one there; or: make up BOX=demo" ;;
*) fail "$box is no box" "use spark, thor or demo" ;;
esac
docker version >/dev/null 2>&1 ||
    fail "the Docker engine does not answer" "sudo systemctl start docker; appliance doctor tells more"
case "$what" in
up) up ;;
down) compose down --remove-orphans ;;
logs) compose logs --follow --tail 100 "$box" ;;
esac
