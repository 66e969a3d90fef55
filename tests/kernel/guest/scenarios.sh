# shellcheck shell=dash
# The scenarios, in one boot. Each one prints what it measured; the judging is done by the tests.
# The order matters: first no swap at all, then swap on zram alone, then swap on a disk.
# Where sizes are judged there is --allow-slow-swap: the emulator's disk is slow, and that is no news.
# shellcheck disable=SC1091  # it stands at the guest's root
. /lib.sh

VICTIM=apps.slice/victim.scope

no_swap() {
    local before
    spawn victim 256
    before=$(anon_of victim)
    evict no_swap $((128 * MIB)) --apply --cgroup $VICTIM
    say no_swap rc="$RC" ms="$TOOK_MS" lost=$((before - $(anon_of victim)))
    finish victim
}

# The victim does not compress: what zram takes from it stays in memory, inside zram.
zram() {
    insmod /modules/zram.ko num_devices=1
    echo 1G >/sys/block/zram0/disksize
    mkswap /dev/zram0 >/dev/null
    swapon /dev/zram0
    spawn victim 512
    evict zram_only $((256 * MIB)) --apply --cgroup $VICTIM
    say zram_only rc="$RC" ms="$TOOK_MS" swapped="$(of victim memory.swap.current)"
    evict zram_allowed $((256 * MIB)) --apply --allow-zram --cgroup $VICTIM
    say zram_allowed rc="$RC" ms="$TOOK_MS" freed="$FREED" \
        swapped="$(of victim memory.swap.current)"
    finish victim
    swapoff /dev/zram0
    echo 1 >/sys/block/zram0/reset
    rmmod zram
}

# qemu's disk says of itself that it rotates.
rotating() {
    spawn victim 256
    evict rotating $((128 * MIB)) --apply --cgroup $VICTIM
    say rotating rc="$RC" ms="$TOOK_MS" swapped="$(of victim memory.swap.current)"
    finish victim
}

# Which forms of memory.reclaim this kernel takes; no helper is involved.
forms() {
    local form
    spawn victim 128
    for form in plain=4M "200=4M swappiness=200" "max=4M swappiness=max"; do
        if echo "${form#*=}" >"$APPS/victim.scope/memory.reclaim"; then
            say forms "${form%%=*}=taken"
        else
            say forms "${form%%=*}=refused"
        fi 2>/dev/null
    done
    finish victim
}

evict_1g() {
    local other_memory other_swap
    spawn victim 1408
    other_memory=$(of bystander memory.current)
    other_swap=$(of bystander memory.swap.current)
    evict evict_1g "$GIB" --apply --allow-slow-swap --cgroup $VICTIM
    say evict_1g rc="$RC" ms="$TOOK_MS" freed="$FREED" \
        swapped="$(of victim memory.swap.current)" \
        bystander_lost=$((other_memory - $(of bystander memory.current))) \
        bystander_swapped=$(($(of bystander memory.swap.current) - other_swap))
    say evict_1g data="$(verified victim)" bystander_data="$(verified bystander)"
    finish victim
}

dry_run() {
    spawn victim 256
    evict dry_run $((128 * MIB)) --cgroup $VICTIM
    say dry_run rc="$RC" ms="$TOOK_MS" swapped="$(of victim memory.swap.current)"
    finish victim
}

mlocked() {
    spawn victim 512 lock
    evict mlocked $((256 * MIB)) --apply --cgroup $VICTIM
    say mlocked rc="$RC" ms="$TOOK_MS" swapped="$(of victim memory.swap.current)"
    finish victim
}

swap_max_zero() {
    spawn victim 512
    echo 0 >"$APPS/victim.scope/memory.swap.max"
    evict swap_max_zero $((256 * MIB)) --apply --cgroup $VICTIM
    say swap_max_zero rc="$RC" ms="$TOOK_MS" swapped="$(of victim memory.swap.current)"
    finish victim
}

no_child_is_left() {
    ! pidof force_swap >/dev/null
}

some_is_swapped() {
    [ "$(of victim memory.swap.current)" -gt $((64 * MIB)) ]
}

# sigterm NAME STEP: SIGTERM while 1 GiB is evicted in steps of STEP bytes. With one step of 1 GiB
# it comes in the middle of one write to memory.reclaim, which takes many seconds here.
sigterm() {
    local pid start
    spawn victim 1408
    force_swap evict --apply --cgroup $VICTIM --step "$2" --reserve 256M --swap-reserve 256M \
        --lock /tmp/lock-root --target-available $(($(meminfo MemAvailable) + GIB)) \
        >"/run/$1.json" 2>"/run/$1.err" 3>&- &
    pid=$!
    within 30 some_is_swapped
    start=$(now)
    kill -TERM $pid
    wait $pid
    RC=$?
    say "$1" rc=$RC ms=$(($(now) - start)) swapped="$(of victim memory.swap.current)"
    published "$1"
    # An old kernel looks at signals only after the request that it is at.
    start=$(now)
    within 120 no_child_is_left || echo "$1: the killed write never ends"
    say "$1" kernel_ms=$(($(now) - start)) later="$(of victim memory.swap.current)"
    settle
    say "$1" at_rest="$(of victim memory.swap.current)" data="$(verified victim)"
    finish victim
}

page_cache() {
    local file=/disk/shard.safetensors warm
    mount -t ext4 /dev/vdb /disk
    dd if=/dev/urandom of=$file bs=1M count=256 2>/dev/null # not synced: its pages are dirty
    warm=$(witness resident $file)
    helper page_cache force_swap drop-cache $file
    say page_cache rc="$RC" ms="$TOOK_MS" before="$warm" after="$(witness resident $file)"

    cat $file >/dev/null
    witness hold $file /run/hold.state 3>&- &
    echo $! >/run/hold.pid
    within 60 state_is hold ready
    warm=$(witness resident $file)
    helper page_cache_mapped force_swap drop-cache $file
    say page_cache_mapped rc="$RC" before="$warm" after="$(witness resident $file)"
    kill -KILL "$(pid_of hold)"
    wait "$(pid_of hold)" 2>/dev/null
    umount /disk
}

# refused NAME BASE CGROUP: the same eviction through a path that must not be followed.
refused() {
    evict "$1" $((64 * MIB)) --apply --cgroup-base "$2" --cgroup "$3"
    say "$1" rc="$RC" swapped="$(of victim memory.swap.current)"
}

paths() {
    spawn victim 256
    mkdir -p /host/links/plain
    ln -s "$APPS/victim.scope" /host/links/leaf
    ln -s "$APPS" /host/links/apps
    echo 0 >/host/links/plain/memory.reclaim
    refused link_as_leaf /host/links leaf
    refused link_on_the_way /host/links apps/victim.scope
    refused dots_in_the_path "$ROOT" apps.slice/../apps.slice/victim.scope
    refused not_a_cgroup /host/links plain
    say not_a_cgroup written="$(tr -d '\n' </host/links/plain/memory.reclaim)"
    finish victim
}

# doors_of NAME DIRECTORY...: what uid 10001 can open for writing there.
doors_of() {
    local name=$1
    shift
    witness as 10001 witness writable "$@" >"/run/$name.doors"
    say "$name" "$(tail -n 1 "/run/$name.doors" | cut -d ' ' -f 1)" \
        open="$(sed -n 's/^open //p' "/run/$name.doors" | tr '\n' ',')"
}

# The host unit's way: one file of one leaf belongs to uid 10001, which has no capability.
delegation() {
    local leaf=$APPS/victim.scope
    spawn victim 512
    export AS_UID=10001 # evict asks for it
    evict not_delegated $((128 * MIB)) --apply --cgroup $VICTIM
    say not_delegated rc="$RC" swapped="$(of victim memory.swap.current)"

    chown 10001 "$leaf/memory.reclaim"
    mkdir -p /host/cgroup/victim.scope
    mount --bind "$leaf" /host/cgroup/victim.scope
    evict delegated $((128 * MIB)) --apply --allow-slow-swap \
        --cgroup-base /host/cgroup --cgroup victim.scope
    say delegated rc="$RC" freed="$FREED" swapped="$(of victim memory.swap.current)"
    unset AS_UID
    doors_of doors_of_leaf "$leaf"
    doors_of doors_of_tree "$ROOT" "$ROOT"/*.slice "$APPS"/*.scope /host/cgroup/victim.scope
    umount /host/cgroup/victim.scope
    finish victim
}

# One process of two in the same cgroup: the other one has to keep its pages.
process_madvise() {
    spawn victim 1024
    spawn beside 256
    pid_of beside >"$APPS/victim.scope/cgroup.procs"
    evict process_madvise $((512 * MIB)) --apply --allow-slow-swap --pid "$(pid_of victim)"
    say process_madvise rc="$RC" ms="$TOOK_MS" freed="$FREED" \
        swapped="$(swapped_of victim)" beside_swapped="$(swapped_of beside)" \
        bystander_swapped="$(of bystander memory.swap.current)"
    say process_madvise data="$(verified victim)" beside_data="$(verified beside)"
    finish beside
    finish victim
}

say machine release="$(uname -r)" memory="$(meminfo MemTotal)" \
    mglru="$(cat /sys/kernel/mm/lru_gen/enabled 2>/dev/null)"
spawn bystander 256
no_swap
zram
mkswap /dev/vda >/dev/null
swapon /dev/vda
rotating
echo 0 >/sys/block/vda/queue/rotational # from here on it is like an NVMe disk
forms
evict_1g
dry_run
mlocked
swap_max_zero
sigterm sigterm "$((64 * MIB))"
sigterm sigterm_in_write "$GIB"
page_cache
paths
delegation
process_madvise
say machine end="$(now)"
