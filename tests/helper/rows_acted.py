"""Rows that act: each ends with what was written to the fake kernel, and what that came to."""

from tests.helper.machine import GIB, MIB
from tests.helper.machines import GDM, SESSION
from tests.helper.row import Row

APPLY = f"evict --apply --target-available 112G --cgroup {SESSION}"
KNOB = f"{SESSION}/memory.reclaim"

REACHED = [
    Row(
        "two GiB of a session",
        APPLY,
        0,
        {
            "stop_reason": "met",
            "dry_run": False,
            "delta.MemAvailable": 2 * GIB,
            "met.available": True,
            "mechanisms.len": 1,
            "mechanisms.0.name": "memory.reclaim",
            "mechanisms.0.object": SESSION,
            "mechanisms.0.reclaim_form": "swappiness=max",
            "mechanisms.0.requested": 2 * GIB,
            "mechanisms.0.freed_memfree": 2 * GIB,
            "mechanisms.0.swapped": 2 * GIB,
            "mechanisms.0.steps": 32,
            "mechanisms.0.errno": 0,
            "recorded.len": 32,
            "recorded.0.object": KNOB,
            "recorded.0.text": f"{64 * MIB} swappiness=max",
        },
    ),
    Row(
        "already met",
        f"evict --apply --target-available 100G --cgroup {SESSION}",
        0,
        {"stop_reason": "already_met", "recorded": [], "mechanisms": []},
    ),
    Row(
        "already met needs no swap",
        f"evict --apply --target-available 100G --cgroup {SESSION}",
        0,
        {"stop_reason": "already_met"},
        machine="no swap",
    ),
    Row(
        "the last step is clamped",
        f"evict --apply --target-available {110 * GIB + 96 * MIB} --cgroup {SESSION}",
        0,
        {"recorded.len": 2, "recorded.1.text": f"{32 * MIB} swappiness=max"},
    ),
    Row(
        "a step of one's own", f"{APPLY} --step 1G", 0, {"recorded.len": 2, "mechanisms.0.steps": 2}
    ),
    Row(
        "numeric swappiness of 6.12",
        APPLY,
        0,
        {
            "mechanisms.0.reclaim_form": "swappiness=200",
            "recorded.len": 33,
            "mechanisms.0.steps": 32,
        },
        kernel="6.12",
    ),
    Row(
        "no argument of 6.1",
        APPLY,
        0,
        {
            "mechanisms.0.reclaim_form": "plain",
            "recorded.2.text": f"{64 * MIB}",
            "recorded.len": 34,
        },
        kernel="6.1",
    ),
    Row(
        "half of each step",
        APPLY,
        0,
        {"stop_reason": "met", "mechanisms.0.errno": 11, "delta.MemAvailable": 2 * GIB},
        kernel="gives half",
    ),
    Row(
        "the coldest first, then the next",
        f"evict --apply --target-available 115G --cgroup {GDM} --cgroup {SESSION}",
        0,
        {"mechanisms.len": 2, "recorded.0.object": KNOB},
    ),
    Row(
        "a target of MemFree",
        f"evict --apply --target-free 61G --cgroup {SESSION}",
        0,
        {"met.free": True, "delta.MemFree": GIB},
    ),
    Row(
        "CUDA tells the total",
        f"evict --apply --util 0.9 --total auto --init-overhead 1G --cgroup {SESSION}",
        0,
        {"uma.integrated": True, "stop_reason": "met"},
        cuda="",
        env={"STUB_TOTAL": str(123 * GIB)},
    ),
    Row(
        "one process, then its cgroup is drained",
        "evict --apply --target-available 110.25G --pid 2002 --step 128M",
        0,
        {
            "candidates.0.pid": 2002,
            "candidates.0.evictable": 3 * GIB // 4,
            "mechanisms.0.name": "drain",
            "mechanisms.0.object": SESSION,
            "mechanisms.0.reclaim_form": "swappiness=max",
            "mechanisms.1.name": "process_madvise",
            "mechanisms.1.object": "pid 2002",
            "mechanisms.1.reclaim_form": "none",
            "mechanisms.1.advised": 256 * MIB,
            "recorded.0.op": "process_madvise",
            "recorded.1.object": KNOB,
        },
    ),
]

SHORT = [
    Row(
        "the kernel says again",
        APPLY,
        5,
        {
            "stop_reason": "exhausted",
            "mechanisms.0.steps": 3,
            "mechanisms.0.errno": 11,
            "mechanisms.0.freed_memfree": 0,
        },
        ("2.00 GiB still missing",),
        kernel="again",
    ),
    Row(
        "a success that frees nothing is not believed",
        APPLY,
        5,
        {
            "mechanisms.0.errno": 0,
            "mechanisms.0.freed_memfree": 0,
            "mechanisms.0.steps": 3,
            "met.available": False,
        },
        kernel="lies",
    ),
    Row(
        "the kernel denies",
        APPLY,
        8,
        {"stop_reason": "no_permission", "mechanisms.0.errno": 13, "mechanisms.0.steps": 1},
        kernel="denied",
    ),
    Row("a mount that is read-only", APPLY, 8, {"mechanisms.0.errno": 30}, kernel="read-only"),
    Row(
        "the cgroup goes away",
        APPLY,
        5,
        {"mechanisms.0.errno": 19, "mechanisms.0.steps": 1},
        kernel="gone",
    ),
    Row(
        "the kernel takes no form",
        APPLY,
        5,
        {"mechanisms.0.reclaim_form": "none", "mechanisms.0.errno": 22, "recorded.len": 3},
        kernel="knows no form",
    ),
    Row(
        "max-bytes ends it",
        f"{APPLY} --max-bytes 2G",
        5,
        {"stop_reason": "max_bytes", "mechanisms.0.requested": 2 * GIB},
        kernel="gives half",
    ),
]

GUARDED = [
    Row(
        "pressure",
        APPLY,
        6,
        {"stop_reason": "guard_psi", "guards.psi_full_ms": 400},
        ("stalled 36.4 % of the time",),
        kernel="stalls",
    ),
    Row("pressure that is allowed", f"{APPLY} --psi-full 50 --step 1G", 0, kernel="stalls"),
    Row(
        "pages come back",
        APPLY,
        6,
        {"stop_reason": "guard_swapin", "guards.pswpin": 128 * MIB},
        ("not cold",),
        kernel="refaults",
    ),
    Row(
        "swap is slow",
        APPLY,
        6,
        {"stop_reason": "guard_slow_swap", "mechanisms.0.steps": 3},
        ("MiB/s",),
        kernel="slow",
    ),
    Row(
        "the deadline",
        f"{APPLY} --max-seconds 7",
        7,
        {"stop_reason": "deadline", "mechanisms.0.steps": 2},
        kernel="slow",
    ),
    Row(
        "MemAvailable falls under the reserve",
        f"{APPLY} --reserve 8G",
        6,
        {"stop_reason": "guard_available", "recorded.len": 3},
        kernel="eaten",
    ),
    Row(
        "swap that frees nothing",
        f"{APPLY} --allow-zram",
        6,
        {"stop_reason": "guard_no_gain", "mechanisms.0.steps": 4},
        ("hardly risen",),
        machine="zram",
        kernel="incompressible",
    ),
    Row(
        "slow swap that is allowed",
        f"{APPLY} --allow-slow-swap --max-seconds 600",
        0,
        {"stop_reason": "met"},
        kernel="slow",
    ),
    Row(
        "pages in the swap cache are no loss",
        f"evict --apply --target-available 111G --cgroup {SESSION}",
        0,
        {"stop_reason": "met", "recorded.len": 16},
        kernel="cached",
    ),
    Row(
        "write-out is awaited, but not for ever",
        f"{APPLY} --step 1G",
        0,
        {"mechanisms.0.seconds": 2.0, "mechanisms.0.steps": 2},
        kernel="writes for ever",
    ),
    Row(
        "low memory is not touched",
        f"evict --apply --target-available 4G --cgroup {SESSION}",
        6,
        {"stop_reason": "guard_available", "recorded": []},
        machine="low memory",
    ),
    Row(
        "swap fills up",
        APPLY,
        6,
        {"stop_reason": "guard_swap", "mechanisms.0.steps": 1},
        kernel="swap eaten",
    ),
]

ROWS = [*REACHED, *SHORT, *GUARDED]
