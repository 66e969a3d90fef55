#!/usr/bin/env bash
# A Docker engine for the tests, on a Debian machine that has none.
#
# Nothing of it is installed: the engine, Compose and buildx are unpacked from Debian's packages
# into build/container/, and run from there with a socket, a data folder and a log of their own.
# Debian 12's own engine (20.10) has no buildx, so they come from the next suite; its runc asks
# for a newer libc, so that one is this machine's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'USAGE'
usage: docker/ci/engine.sh up | down | env

  up    start an engine, unless one answers already; say which
  down  end the engine that "up" started, and delete its images (ENGINE_KEEP=1 keeps them)
  env   print the variables by which docker finds it:  eval "$(docker/ci/engine.sh env)"

variables:
  SUITE=trixie   the Debian suite that the engine is taken from
USAGE
}

SUITE=${SUITE:-trixie}
PACKAGES=(docker.io docker-cli docker-buildx docker-compose containerd tini)
ROOT=$PWD/build/container
BIN=$ROOT/engine
RUN=/run/unglitched-ci # short: a socket's path has 107 characters at most
HOST=unix://$RUN/docker.sock
START_S=60
STOP_S=30

say() { echo "engine: $1" >&2; }
fail() {
    say "$1"
    echo "  -> $2" >&2
    exit 1
}

settings() {
    echo "export PATH=$BIN/usr/bin:$BIN/usr/sbin:\$PATH:/usr/sbin:/sbin"
    echo "export DOCKER_CONFIG=$ROOT/config DOCKER_HOST=$HOST"
}

ours() { # the pid of the engine that we started, if it lives
    local pid
    pid=$(cat "$RUN/docker.pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -- "--data-root $ROOT/data" || return 1
    echo "$pid"
}

tools() { # what it needs from this machine's own packages
    local missing=()
    command -v iptables >/dev/null || [ -x /usr/sbin/iptables ] || missing+=(iptables)
    command -v runc >/dev/null || [ -x /usr/sbin/runc ] || missing+=(runc)
    [ "${#missing[@]}" -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get install -y -q --no-install-recommends "${missing[@]}" >"$ROOT/apt.log" 2>&1 ||
        { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
            >"$ROOT/apt.log" 2>&1 || fail "apt-get failed" "see $ROOT/apt.log"
}

unpack() { # fetch the packages of $SUITE, beside this machine's own apt lists
    [ "$(cat "$BIN/.whole" 2>/dev/null)" != "$SUITE ${PACKAGES[*]}" ] || return 0
    local apt=$ROOT/apt sources=/etc/apt/sources.list.d/debian.sources mirror deb
    mirror=$(awk '/^URIs:/ {print $2; exit}' "$sources" 2>/dev/null || true)
    [ -n "$mirror" ] || mirror=$(awk '$1 == "deb" {print $2; exit}' /etc/apt/sources.list 2>/dev/null || true)
    [ -n "$mirror" ] || fail "this machine's apt names no mirror" "use a Debian machine, or install Docker"
    rm -rf "$apt" "$BIN"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs" "$BIN" "$ROOT/config"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main" \
        >"$apt/sources.list"
    local options=(-q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    say "fetching the engine from Debian $SUITE"
    (cd "$apt/debs" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "${PACKAGES[@]}") \
        >"$ROOT/apt.log" 2>&1 || fail "the engine cannot be fetched" "see $ROOT/apt.log"
    for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$BIN"; done
    rm -rf "$apt"
    ln -sfn "$BIN/usr/libexec/docker/cli-plugins" "$ROOT/config/cli-plugins"
    echo "$SUITE ${PACKAGES[*]}" >"$BIN/.whole"
}

start() {
    mkdir -p "$RUN" "$ROOT/data"
    eval "$(settings)"
    setsid nohup dockerd --host "$HOST" --data-root "$ROOT/data" --exec-root "$RUN/exec" \
        --pidfile "$RUN/docker.pid" --init-path "$BIN/usr/bin/tini-static" --log-level warn </dev/null >"$ROOT/dockerd.log" 2>&1 &
    local child=$! tries=$((START_S * 5))
    until docker version >/dev/null 2>&1; do
        kill -0 "$child" 2>/dev/null || fail "dockerd ended: $(tail -n 1 "$ROOT/dockerd.log")" \
            "it needs root, overlayfs and iptables; all it said is in $ROOT/dockerd.log"
        [ "$((tries -= 1))" -gt 0 ] || fail "dockerd does not answer after $START_S s" \
            "see $ROOT/dockerd.log; docker/ci/engine.sh down ends it"
        sleep 0.2
    done
}

up() {
    mkdir -p "$ROOT"
    if ours >/dev/null; then
        eval "$(settings)"
    elif docker info >/dev/null 2>&1; then
        say "using the one that answers already: $(docker version -f '{{.Server.Version}}')"
        return
    else
        [ "$(id -u)" = 0 ] || fail "only root can start one" "start Docker yourself, or become root"
        tools
        unpack
        start
    fi
    say "Docker $(docker version -f '{{.Server.Version}}') at $HOST"
}

down() {
    local pid tries=$((STOP_S * 5))
    if pid=$(ours); then
        kill "$pid"
        while kill -0 "$pid" 2>/dev/null && [ "$((tries -= 1))" -gt 0 ]; do sleep 0.2; done
        ! kill -0 "$pid" 2>/dev/null || fail "dockerd (pid $pid) does not end" "kill -9 $pid"
        say "ended"
    fi
    rm -rf "$RUN"
    # dockerd mounts its folder onto itself, and does not always take that back.
    ! mountpoint -q "$ROOT/data" || umount "$ROOT/data"
    [ -n "${ENGINE_KEEP:-}" ] || rm -rf "$ROOT/data"
}

case "${1:-}" in
up) up ;;
down) down ;;
env) ours >/dev/null && settings || true ;;
-h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
