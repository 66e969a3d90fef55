# shellcheck shell=dash disable=SC2034
# What the scenarios share (so its names are used elsewhere). Sizes: bytes, times: milliseconds.
ROOT=/sys/fs/cgroup
APPS=$ROOT/apps.slice
MIB=$((1024 * 1024))
GIB=$((1024 * MIB))
# say NAME key=value...: one line of results.
say() {
    echo "RESULT $*" >&3
}

now() {
    awk '{ printf "%.0f\n", $1 * 1000 }' /proc/uptime
}

meminfo() {
    awk -v key="$1:" '$1 == key { printf "%.0f\n", $2 * 1024 }' /proc/meminfo
}

# of CGROUP FILE: one number of a cgroup.
of() {
    cat "$APPS/$1.scope/$2"
}

anon_of() {
    awk '$1 == "anon" { print $2 }' "$APPS/$1.scope/memory.stat"
}

# swapped_of NAME: what one process has in swap.
swapped_of() {
    awk '$1 == "VmSwap:" { printf "%.0f\n", $2 * 1024 }' "/proc/$(pid_of "$1")/status"
}

# within SECONDS COMMAND...: wait until COMMAND succeeds; false when the time is over.
within() {
    local end
    end=$(($(now) + $1 * 1000))
    shift
    until "$@"; do
        [ "$(now)" -lt "$end" ] || return 1
        usleep 100000
    done
}

state_is() {
    grep -q "$2" "/run/$1.state" 2>/dev/null
}

# Per-cpu counters and writeback in flight reach meminfo late.
settle() {
    sleep 1
}

# spawn NAME MIB [lock]: a victim in a cgroup of its own. Its pid: /run/NAME.pid.
spawn() {
    local name=$1
    shift
    mkdir -p "$APPS/$name.scope"
    rm -f "/run/$name.state"
    sh -c 'echo $$ >"$0/cgroup.procs"; exec victim "$@"' \
        "$APPS/$name.scope" "$1" "/run/$name.state" "${2:-}" 3>&- &
    echo $! >"/run/$name.pid"
    within 120 state_is "$name" ready || echo "victim $name is not ready"
}

pid_of() {
    cat "/run/$1.pid"
}

# verified NAME: the victim reads all its memory back; prints what it found.
verified() {
    echo asked >"/run/$1.state"
    kill -USR1 "$(pid_of "$1")"
    within 240 state_is "$1" "verified\|corrupt"
    tr ' ' '-' <"/run/$1.state"
}

# finish NAME: end a victim and remove its cgroup, so that the next scenario starts clean.
finish() {
    local pid
    pid=$(pid_of "$1")
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    within 20 rmdir "$APPS/$1.scope" 2>/dev/null
    settle
}

# published NAME: hand the report and the log of a run over to the tests.
published() {
    [ -s "/run/$1.json" ] && echo "JSON $1 $(tr -d '\n' <"/run/$1.json")" >&3
    sed "s/^/LOG $1 /" "/run/$1.err" >&3
}

# helper NAME COMMAND...: run force_swap; sets RC and TOOK_MS.
helper() {
    local name=$1 start
    shift
    start=$(now)
    "$@" >"/run/$name.json" 2>"/run/$name.err" 3>&-
    RC=$?
    TOOK_MS=$(($(now) - start))
    published "$name"
}

# evict NAME BYTES ARGUMENTS...: ask for so much more than is available now, as AS_UID if it is set.
# Sets FREED too, the guest's own figure. The guest has 3 GiB, so the reserves are small.
evict() {
    local name=$1 wanted=$2 before
    shift 2
    settle
    before=$(meminfo MemAvailable)
    helper "$name" ${AS_UID:+witness as "$AS_UID"} force_swap evict \
        --reserve 256M --swap-reserve 256M --lock "/tmp/lock-${AS_UID:-root}" \
        --target-available $((before + wanted)) "$@"
    settle
    FREED=$(($(meminfo MemAvailable) - before))
}
