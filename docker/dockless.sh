#!/usr/bin/env bash
# The same image, command and limits without the Docker daemon: podman, rootless where the user
# may have namespaces, else as root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'USAGE'
usage: docker/dockless.sh up | down | logs | load   [spark | thor | demo]

  load   take unglitched:BOX over from a Docker engine; or: podman build, as compose.yaml says
  up     start, tell the progress, end when it is ready (exit code 0) or is not to be (1)
  down   end it in order; keys and caches stay in the volume unglitched-BOX
  logs   follow the log

variables: MODEL_PATH (spark, thor), PORT=9000, PODMAN_OPTIONS (podman's own: --root, --runtime, …)
USAGE
}

fail() {
    echo "dockless: $1" >&2
    echo "  -> $2" >&2
    exit 1
}

pod() {
    # shellcheck disable=SC2086  # a list of words
    env -u DOCKER_CONFIG podman ${PODMAN_OPTIONS:-} "$@"
}

least() { # LIMIT WANTED: what may be had of it
    if [ "$1" = unlimited ] || [ "$1" -gt "$2" ]; then echo "$2"; else echo "$1"; fi
}

choose() {
    command -v podman >/dev/null || fail "podman is not installed" "apt-get install podman"
    if [ "$(id -u)" = 0 ]; then
        echo "dockless: rootful podman, since this is root"
    elif pod info >/dev/null 2>&1; then
        echo "dockless: rootless podman, as $(id -un)"
    else
        fail "this user may not have namespaces: $(pod info 2>&1 | tail -n 1)" \
            "apt-get install uidmap slirp4netns and give the user lines in /etc/subuid and \
/etc/subgid; or run this as root"
    fi
}

up() {
    local options=(--detach --init --read-only --cap-drop all --security-opt no-new-privileges
        --name "unglitched-$box" --volume "unglitched-$box:/var/lib/unglitched"
        --publish "127.0.0.1:${PORT:-9000}:9000" --pids-limit 4096 --ulimit nproc=4096:4096
        --ulimit "nofile=$(least "$(ulimit -Hn)" 65536):$(least "$(ulimit -Hn)" 65536)"
        --stop-timeout 180)
    if [ "$box" = demo ]; then
        options+=(--shm-size 1g --tmpfs "/tmp:size=256m,mode=1777,exec")
    else
        [ -f "${MODEL_PATH:-}/config.json" ] ||
            fail "MODEL_PATH=${MODEL_PATH:-} has no config.json" "name the checkpoint's folder"
        options+=(--shm-size 8g --tmpfs "/tmp:size=4g,mode=1777,exec" --ulimit memlock=-1:-1
            --device nvidia.com/gpu=all --volume "$MODEL_PATH:/models/Nikola:ro")
    fi
    pod image exists "unglitched:$box" ||
        fail "podman has no image unglitched:$box" "docker/dockless.sh load $box"
    pod run "${options[@]}" "unglitched:$box" >/dev/null
    if ! pod exec "unglitched-$box" /opt/appliance/bin/ready.py --wait; then
        pod logs --tail 15 "unglitched-$box" >&2
        exit 1
    fi
    echo "serving at http://127.0.0.1:${PORT:-9000}/v1"
    echo "the key:  podman exec unglitched-$box appliance key"
}

down() {
    pod stop --time 180 "unglitched-$box" >/dev/null
    echo "dockless: ended with exit code $(pod wait "unglitched-$box")"
    pod rm "unglitched-$box" >/dev/null
}

what=${1:-}
box=${2:-demo}
case "$box" in
spark | thor | demo) ;;
*) fail "$box is no box" "use spark, thor or demo" ;;
esac
case "$what" in
up | down | logs | load) choose ;;
-h | --help) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac
case "$what" in
load) docker save "unglitched:$box" | pod load ;;
up) up ;;
down) down ;;
logs) pod logs --follow --tail 100 "unglitched-$box" ;;
esac
