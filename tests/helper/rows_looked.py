"""Rows that only look: usage, help, probe, selftest and plan."""

from tests.helper.machine import GIB
from tests.helper.machines import GDM, SESSION
from tests.helper.row import Row

GOAL = "--target-available 112G"
EVICT = f"evict {GOAL} --cgroup {SESSION}"

USAGE = [
    Row("no command", "", 2, {"stop_reason": "usage"}, ("no command",), bare=True),
    Row("unknown command", "swapoff", 2, {"cmd": "swapoff"}, ("unknown command swapoff",)),
    Row("unknown flag", "plan --balloon", 2, {}, ("unknown flag --balloon",)),
    Row("global is left out", "evict --global", 2, {}, ("unknown flag --global",)),
    Row("missing value", "plan --target-available", 2, {}, ("needs a value: SIZE",), bare=True),
    Row("no size", "plan --target-available 1GB", 2, {}, ('"1GB" is no SIZE',)),
    Row("size too large", "plan --target-available 99999999999G", 2, {}, ("is no SIZE",)),
    Row("negative size", "plan --target-available -1", 2, {}, ("is no SIZE",)),
    Row("utilization over one", "plan --util 1.01", 2, {}, ("--util is a share",)),
    Row("utilization nan", "plan --util nan", 2, {}, ("is no U",)),
    Row("no target", "plan", 2, {}, ("no target",)),
    Row("two targets", f"plan --util 0.9 {GOAL}", 2, {}, ("give one of them",)),
    Row("apply and dry run", f"{EVICT} --apply --dry-run", 2, {}, ("give one of them",)),
    Row("apply to plan", f"plan {GOAL} --apply", 2, {}, ("--apply says nothing to plan",)),
    Row("a phase unknown", f"{EVICT} --phase later", 2, {}, ("preflight or ready",)),
    Row("no pid", f"evict {GOAL} --pid one", 2, {}, ("is no PID",)),
    Row("a tiny step", f"{EVICT} --step 4K", 2, {}, ("at least 64 KiB",)),
    Row("the root cgroup", f"evict {GOAL} --cgroup /", 2, {}, ("no global reclaim",)),
    Row("a stray word", f"plan {GOAL} now", 2, {}, ("unexpected word now",)),
    Row("drop-cache of nothing", "drop-cache", 2, {}, ("needs a PATH",)),
    Row("help", "--help", 0, stdout=("CUDA pages are pinned", "exit codes", "Examples"), bare=True),
    Row(
        "help of evict",
        "evict --help",
        0,
        stdout=("--apply", "OTHER cold", "no global reclaim"),
        bare=True,
    ),
    Row("help of drop-cache", "drop-cache -h", 0, stdout=("--dry-run", "safetensors"), bare=True),
]

OBSERVED = [
    Row(
        "probe without a driver",
        "probe",
        0,
        {"schema": "force_swap/1", "uma.cuda": "absent", "uma.integrated": None, "cgroup": "v2"},
    ),
    Row(
        "probe of a Spark",
        "probe --json",
        0,
        {
            "uma.cuda": "ok",
            "uma.integrated": True,
            "uma.total": 130664886272,
            "uma.attrs": {
                "integrated": 1,
                "managed_memory": 1,
                "pageable_memory_access": 0,
                "concurrent_managed_access": 1,
                "pageable_uses_host_page_tables": 0,
            },
        },
        cuda="",
    ),
    Row(
        "probe, init fails",
        "probe",
        0,
        {"uma.cuda": "error", "uma.error": "cuInit: error 100"},
        cuda="",
        env={"STUB_INIT": "100"},
    ),
    Row(
        "probe, no device",
        "probe",
        0,
        {"uma.error": "cuDeviceGet: error 101"},
        cuda="",
        env={"STUB_DEVICES": "0"},
    ),
    Row(
        "probe, an old driver",
        "probe",
        0,
        {"uma.cuda": "error", "uma.error": "cuDeviceTotalMem_v2: not in libcuda.so.1, -1"},
        cuda="old",
    ),
    Row(
        "probe, attributes unknown",
        "probe",
        0,
        {"uma.cuda": "ok", "uma.integrated": None, "uma.attrs.integrated": None},
        cuda="",
        env={"STUB_ATTRIBUTES": "0"},
    ),
    Row(
        "probe, a swap partition",
        "probe",
        0,
        {"swap.0.rotational": False, "swap.0.size": 16 * GIB, "swap.0.zram": False},
    ),
    Row(
        "probe, a swap file",
        "probe",
        0,
        {"swap.0.rotational": None, "swap.0.type": "file"},
        machine="swap file",
    ),
    Row("probe, cgroup v1", "probe", 0, {"cgroup": "v1"}, machine="cgroup v1"),
    Row(
        "probe without meminfo",
        "probe",
        9,
        {"stop_reason": "no_meminfo"},
        ("cannot read",),
        machine="no meminfo",
    ),
    Row(
        "selftest",
        "selftest",
        0,
        {"host_root": True, "cgroup": "v2"},
    ),
    Row(
        "plan, utilization of CUDA's total",
        f"plan --util 0.85 --init-overhead 1G --cgroup {SESSION}",
        0,
        {"target.available": 112138895156},
        cuda="",
        env={"STUB_TOTAL": "130664886272"},
    ),
    Row(
        "plan, utilization of a given total",
        "plan --util 0.5 --total 100G --init-overhead 0",
        0,
        {"target.available": 50 * GIB, "stop_reason": "already_met", "warnings": []},
    ),
    Row(
        "plan, utilization of MemTotal",
        "plan --util 0.5 --total auto",
        0,
        {"stop_reason": "already_met"},
        ("--util is taken of MemTotal",),
    ),
    Row(
        "plan, a target of MemFree",
        "plan --target-free 61G",
        4,
        {"target.free": 61 * GIB, "met.free": False, "met.available": None},
        ("no cgroup is named",),
    ),
    Row(
        "plan of a leaf",
        f"plan {GOAL} --cgroup {SESSION}",
        0,
        {
            "stop_reason": "feasible",
            "uma.cuda": "unasked",
            "target.deficit": 2 * GIB,
            "candidates.0.cgroup": SESSION,
            "candidates.0.usable": True,
            "candidates.0.evictable": 4 * GIB,
            "dry_run": True,
            "recorded": [],
        },
    ),
    Row(
        "plan without a cgroup says how much is missing",
        f"plan {GOAL}",
        4,
        {"stop_reason": "no_candidate", "target.deficit": 2 * GIB},
        ("--cgroup NAME",),
    ),
    Row(
        "exclude",
        f"plan --target-available 111G --cgroup {SESSION} --cgroup {GDM}"
        f" --exclude-cgroup /{SESSION}/",
        0,
        {"candidates.len": 1, "candidates.0.cgroup": GDM},
    ),
    Row("a dry run records nothing", EVICT, 0, {"dry_run": True, "recorded": [], "mechanisms": []}),
]

ROWS = [*USAGE, *OBSERVED]
