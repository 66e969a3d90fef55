"""Rows that are refused by a safety rule, cannot be reached, or that the kernel cannot."""

from tests.helper.machine import MIB
from tests.helper.machines import ENGINE, ENGINE_PID, GDM, SESSION, SIDECAR
from tests.helper.row import Row

GOAL = "--target-available 112G"
EVICT = f"evict {GOAL} --cgroup {SESSION}"
EVICT_GDM = f"evict --target-available 111G --cgroup {GDM}"

REFUSED = [
    Row(
        "no swap",
        EVICT,
        3,
        {"stop_reason": "no_swap"},
        ("no swap", "add a swap file"),
        machine="no swap",
    ),
    Row(
        "swap only on zram",
        EVICT,
        3,
        {"stop_reason": "zram_only"},
        ("--allow-zram",),
        machine="zram",
    ),
    Row(
        "zram that is allowed",
        f"{EVICT} --allow-zram",
        0,
        {"stop_reason": "feasible"},
        machine="zram",
    ),
    Row("zram beside a disk", EVICT, 0, {"swap.0.zram": True}, machine="zram and disk"),
    Row(
        "a rotating disk",
        EVICT,
        3,
        {"stop_reason": "slow_swap"},
        ("--allow-slow-swap",),
        machine="slow disk",
    ),
    Row("a rotating disk that is allowed", f"{EVICT} --allow-slow-swap", 0, machine="slow disk"),
    Row("swap over a network", EVICT, 3, {"stop_reason": "slow_swap"}, machine="network swap"),
    Row(
        "a discrete GPU",
        f"evict --util 0.9 --cgroup {SESSION}",
        3,
        {"stop_reason": "discrete_gpu"},
        cuda="",
        env={"STUB_INTEGRATED": "0"},
    ),
    Row(
        "a discrete GPU with plenty of memory",
        f"evict --util 0.1 --cgroup {SESSION}",
        3,
        {"stop_reason": "discrete_gpu"},
        cuda="",
        env={"STUB_INTEGRATED": "0"},
    ),
    Row(
        "the first process by pid",
        EVICT_GDM,
        3,
        {"stop_reason": "protected"},
        ("holds pid 1",),
        machine="gdm holds pid 1",
    ),
    Row(
        "an engine is alive",
        EVICT,
        3,
        {"stop_reason": "engine_alive"},
        (f"pid {ENGINE_PID}", "--phase ready"),
        machine="engine",
    ),
    Row(
        "an engine is alive by pid",
        f"{EVICT} --engine-pid {ENGINE_PID}",
        3,
        {"stop_reason": "engine_alive"},
        machine="quiet engine",
    ),
    Row(
        "an engine is alive by unit",
        f"{EVICT} --engine-unit docker-aaaa",
        3,
        {"stop_reason": "engine_alive"},
        machine="quiet engine",
    ),
    Row(
        "a dead engine does not count",
        f"{EVICT} --engine-pid {ENGINE_PID}",
        0,
        machine="zombie engine",
    ),
    Row(
        "phase ready without an engine",
        f"{EVICT} --phase ready",
        3,
        {"stop_reason": "engine_not_alive"},
    ),
    Row(
        "phase ready with an engine",
        f"{EVICT} --phase ready",
        0,
        {"stop_reason": "feasible"},
        machine="engine",
    ),
    Row(
        "the engine itself",
        f"evict {GOAL} --phase ready --cgroup {ENGINE}",
        3,
        {"stop_reason": "protected"},
        ("holds the engine",),
        machine="engine",
    ),
    Row(
        "the engine by its unit",
        f"evict {GOAL} --phase ready --engine-pid {ENGINE_PID} --engine-unit docker-aaaa"
        f" --cgroup {ENGINE}",
        3,
        {"stop_reason": "protected"},
        ("holds the engine",),
        machine="quiet engine",
    ),
    Row(
        "the sidecar, which is our line",
        f"evict {GOAL} --cgroup {SIDECAR}",
        3,
        {"stop_reason": "protected"},
        ("from which we descend",),
    ),
    Row(
        "sshd by name",
        f"evict {GOAL} --cgroup system.slice/ssh.service",
        3,
        {"stop_reason": "protected"},
        ("ssh.service",),
    ),
    Row("init.scope", f"evict {GOAL} --cgroup init.scope", 3, {"stop_reason": "protected"}),
    Row(
        "journald",
        f"evict {GOAL} --cgroup system.slice/systemd-journald.service",
        3,
        {"stop_reason": "protected"},
    ),
    Row(
        "dbus", f"evict {GOAL} --cgroup system.slice/dbus.service", 3, {"stop_reason": "protected"}
    ),
    Row(
        "sshd by process",
        EVICT_GDM,
        3,
        {"stop_reason": "protected"},
        ("holds sshd (pid 3000",),
        machine="gdm holds sshd",
    ),
    Row(
        "no leaf",
        EVICT_GDM,
        3,
        {"stop_reason": "not_leaf"},
        ("session has processes",),
        machine="gdm holds sshd in a child",
    ),
    Row("dbus by process", EVICT_GDM, 3, {}, ("holds dbus",), machine="gdm holds dbus"),
    Row("systemd by process", EVICT_GDM, 3, {}, ("holds (sd-pam)",), machine="gdm holds systemd"),
    Row(
        "the sidecar by command line",
        EVICT_GDM,
        3,
        {},
        ("holds appliance",),
        machine="gdm holds the sidecar",
    ),
    Row("vllm by command line", EVICT_GDM, 3, {}, ("holds vllm",), machine="gdm holds vllm"),
    Row(
        "a cgroup that may not swap",
        EVICT_GDM,
        3,
        {"stop_reason": "swap_max"},
        ("MemorySwapMax",),
        machine="gdm may not swap",
    ),
    Row(
        "a link in the path",
        f"evict {GOAL} --cgroup linked.slice/user-1000.slice/session-2.scope",
        3,
        {"stop_reason": "unsafe_path"},
        machine="a linked slice",
    ),
    Row(
        "a link at the end",
        f"evict {GOAL} --cgroup linked.slice",
        3,
        {"stop_reason": "unsafe_path"},
        machine="a linked slice",
    ),
    Row(
        "a link as memory.reclaim",
        EVICT_GDM,
        3,
        {"stop_reason": "unsafe_path"},
        machine="a linked knob",
    ),
    Row(
        "dots in the path",
        f"evict {GOAL} --cgroup user.slice/../system.slice",
        3,
        {"stop_reason": "unsafe_path"},
    ),
    Row(
        "a pid in the root cgroup",
        f"evict {GOAL} --pid 2002",
        3,
        {"stop_reason": "root_cgroup"},
        machine="firefox in the root",
    ),
    Row("a protected pid", f"evict {GOAL} --pid 700", 3, {}, machine="spark"),
    Row(
        "one protected name refuses all",
        f"{EVICT} --cgroup init.scope",
        3,
        {"stop_reason": "protected"},
    ),
]

INFEASIBLE = [
    Row(
        "a target over the machine",
        f"evict --target-available 120G --cgroup {SESSION}",
        4,
        {"stop_reason": "target_too_high"},
        ("less --reserve: 117.69 GiB",),
    ),
    Row(
        "too little can be evicted",
        f"evict --target-available 117G --cgroup {SESSION}",
        4,
        {"stop_reason": "too_little_evictable"},
        ("3.00 GiB short: ", "can give 4.00 GiB"),
    ),
    Row(
        "locked pages do not count",
        EVICT_GDM,
        4,
        {"stop_reason": "too_little_evictable", "candidates.0.evictable": 0},
        ("mlocked or unevictable there: 0.50 GiB",),
        machine="gdm is locked",
    ),
    Row(
        "the cgroup's swap limit counts",
        EVICT_GDM,
        4,
        {"candidates.0.evictable": 128 * MIB},
        machine="gdm may swap 128M",
    ),
    Row(
        "swap is too small",
        EVICT,
        4,
        {"stop_reason": "swap_too_small"},
        ("1.00 GiB short: ", "over --swap-reserve"),
        machine="little swap",
    ),
    Row(
        "more than max-bytes",
        f"{EVICT} --max-bytes 1G",
        4,
        {"stop_reason": "max_bytes"},
        ("raise --max-bytes",),
    ),
    Row(
        "no such cgroup", f"evict {GOAL} --cgroup user.slice/none", 4, {"stop_reason": "no_cgroup"}
    ),
    Row("no such process", f"evict {GOAL} --pid 4000000", 4, {"stop_reason": "no_process"}),
]

UNSUPPORTED = [
    Row(
        "cgroup v1",
        f"plan {GOAL} --cgroup {SESSION}",
        8,
        {"stop_reason": "cgroup_v1"},
        ("only drop-cache works here",),
        machine="cgroup v1",
    ),
    Row(
        "a kernel without memory.reclaim",
        EVICT_GDM,
        8,
        {"stop_reason": "no_reclaim"},
        ("5.19",),
        machine="gdm has no reclaim",
    ),
    Row(
        "--pid as another user",
        f"evict {GOAL} --pid 2002",
        8,
        {"stop_reason": "pid_needs_host_root"},
        machine="another user",
    ),
    Row(
        "--pid in a container",
        f"evict {GOAL} --pid 2002",
        8,
        {"stop_reason": "pid_needs_host_root"},
        machine="a container",
    ),
]

ROWS = [*REFUSED, *INFEASIBLE, *UNSUPPORTED]
