#!/usr/bin/env bash
# Starts Prometheus and Grafana beside the box that runs, with a key and a password of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'USAGE'
usage: docker/monitoring/up.sh [up | down | key | password] [spark | thor | demo]

  up        make the key and the password if there are none, and start both
  down      end both; what they have recorded stays in their volumes
  key       make another key for Prometheus; the old one ends within a second
  password  print Grafana's password, for the user admin

Without a name it is the box of COMPOSE_PROFILES in .env. The box must run: its appliance makes the
key. For one elsewhere: appliance key new prometheus there, its output into .monitoring/prometheus.key.
A box with HTTPS: docker compose exec BOX cat /var/lib/unglitched/state/tls/cert.pem into
.monitoring/appliance.pem, a secret appliance_cert of that file in compose.monitoring.yaml, and the
lines in docker/monitoring/prometheus.yml.
USAGE
}

KEPT=.monitoring
KEY=$KEPT/prometheus.key
PASSWORD=$KEPT/grafana.password

SCRIPT=monitoring
. docker/dotenv.sh

compose() { docker compose --profile "$box" --profile monitoring "$@"; }

keep() { # FILE: takes what comes in, whole; the folder lets nobody else in
    local text
    text=$(cat)
    [ -n "$text" ] || return 1
    [ -d "$KEPT" ] || mkdir -m 700 "$KEPT"
    # Into the same file: a container that has it mounted sees the new text.
    (umask 022 && echo "$text" >"$1")
}

key() { # a client key of its own: whoever steals it may run one request at a time
    compose exec -T "$box" appliance key new prometheus --replace --max-running 1 --max-waiting 0 |
        keep "$KEY" || fail "$box made no key" "make up BOX=$box, until it is ready; then again"
    echo "monitoring: Prometheus has a key of its own ($KEY)"
}

up() {
    [ -s "$KEY" ] || key
    [ -s "$PASSWORD" ] || od -An -N 16 -tx1 /dev/urandom | tr -d ' \n' | keep "$PASSWORD"
    compose up --detach prometheus grafana
    echo "Grafana:     http://127.0.0.1:$(port GRAFANA_PORT 3000)  admin, $(cat "$PASSWORD")"
    echo "Prometheus:  http://127.0.0.1:$(port PROMETHEUS_PORT 9090)/alerts"
}

port() { # NAME DEFAULT
    local chosen
    chosen=$(value "$1")
    echo "${chosen:-$2}"
}

what=${1:-up}
box=${2:-$(value COMPOSE_PROFILES)}
case "$what" in
-h | --help) usage && exit ;;
up | down | key | password) ;;
*) usage >&2 && exit 2 ;;
esac
if [ "$what" = password ]; then
    [ -s "$PASSWORD" ] || fail "there is no password yet" "make monitoring"
    cat "$PASSWORD"
    exit
fi
case "$box" in
spark | thor | demo) ;;
"") fail "no box is named" "cp .env.example .env, and choose one there; or: make monitoring BOX=demo" ;;
*) fail "$box is no box" "use spark, thor or demo" ;;
esac
docker version >/dev/null 2>&1 ||
    fail "the Docker engine does not answer" "sudo systemctl start docker; appliance doctor tells more"
case "$what" in
up) up ;;
key) key ;;
down) compose rm --stop --force prometheus grafana ;;
esac
