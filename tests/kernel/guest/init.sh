#!/bin/busybox sh
# shellcheck shell=dash
# The guest's first process: it makes the machine ready, runs the scenarios, and switches it off.
# Second serial line: what the tests read. First serial line: the kernel's and the shell's own words.
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /host
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup

while read -r module; do
    case "$module" in zram.ko) ;; *) insmod "/modules/$module" ;; esac
done </modules/order

# Pages on a CPU's own free list count as used. On one CPU with huge pages that hides 50 MiB and
# more (measured on 6.1), which makes each figure of the scenarios wrong by as much.
echo 10000 >/proc/sys/vm/percpu_pagelist_high_fraction

# khugepaged collapses mapped file pages and lets their page tables go (7.3: 16 MiB a round). Such
# pages can be dropped until they are touched again, so whether all of a file stays would be luck.
echo 3600000 >/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs

# force_swap refuses its own cgroup, so it needs one.
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/apps.slice /sys/fs/cgroup/tests.slice
echo +memory >/sys/fs/cgroup/apps.slice/cgroup.subtree_control

stty -F /dev/ttyS1 raw -echo
sh -c 'echo $$ >/sys/fs/cgroup/tests.slice/cgroup.procs; exec sh /scenarios.sh' 3>/dev/ttyS1
sync
poweroff -f
