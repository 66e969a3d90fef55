"""What the demo's preflight says about a machine: each shortfall, all at once, with its cure."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.demo import install, preflight
from appliance.demo.preflight import GIB, SetupFacts, cgroup_headroom_bytes, cpu_flags
from appliance.demo.preflight import preflight as judge

X86 = frozenset({"sse4_2", "avx", "avx2", "f16c", "fma", "bmi2"})
ARM = frozenset({"fp", "asimd", "atomics", "fphp", "asimdhp", "asimddp", "sve", "bf16"})

GOOD = SetupFacts(
    system="Linux",
    machine="x86_64",
    python=(3, 12),
    implementation="cpython",
    free_threaded=False,
    ensurepip=True,
    glibc=(2, 36),
    cpu_flags=X86,
    missing_libraries=(),
    disk_free_bytes=50 * GIB,
    disk_used_bytes=0,
    memory_available_bytes=20 * GIB,
)


@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
@pytest.mark.parametrize(("machine", "flags"), [("x86_64", X86), ("aarch64", ARM)])
def test_a_machine_with_all_it_takes_has_no_shortfall(
    machine: str, flags: frozenset[str], python: tuple[int, int]
) -> None:
    assert judge(replace(GOOD, machine=machine, cpu_flags=flags, python=python)) == []


# What was observed, then the words that must be in the one shortfall: found, needed, cure.
SHORTFALLS: list[tuple[dict[str, Any], list[str]]] = [
    ({"system": "Darwin"}, ["Darwin", "Linux", "container"]),
    ({"system": ""}, ["unknown", "Linux"]),
    ({"python": (3, 10)}, ["3.10", "3.11 to 3.13"]),
    ({"python": (3, 14)}, ["3.14", "3.11 to 3.13"]),
    ({"implementation": "pypy"}, ["pypy", "CPython 3.11"]),
    ({"free_threaded": True, "python": (3, 13)}, ["3.13 free-threaded", "CPython 3.11"]),
    ({"ensurepip": False}, ["ensurepip", "python3.12-venv"]),
    ({"glibc": (2, 28)}, ["glibc 2.28", "glibc 2.31", "Debian 11"]),
    ({"glibc": None}, ["musl", "glibc 2.31"]),
    ({"machine": "riscv64"}, ["riscv64", "x86_64 and aarch64"]),
    ({"machine": "armv7l"}, ["armv7l", "x86_64 and aarch64"]),
    ({"cpu_flags": X86 - {"avx2"}}, ["no avx2,", "avx2, f16c, fma", "virtual machine"]),
    ({"cpu_flags": X86 - {"f16c", "fma"}}, ["no f16c, fma,", "avx2, f16c, fma"]),
    (
        {"machine": "aarch64", "cpu_flags": ARM - {"bf16"}},
        ["no bf16,", "asimd, asimddp, asimdhp, atomics, bf16"],
    ),
    ({"machine": "aarch64", "cpu_flags": ARM - {"atomics"}}, ["no atomics,"]),
    ({"missing_libraries": ("libnuma.so.1",)}, ["no libnuma.so.1", "libnuma1", "numactl-libs"]),
    (
        {"missing_libraries": ("libnuma.so.1", "libstdc++.so.6")},
        ["no libnuma.so.1 and no libstdc++.so.6", "libnuma1", "libstdc++6"],
    ),
    ({"disk_free_bytes": 2 * GIB}, ["2.0 GiB free", "needs 3.2 GiB", "--root"]),
    (
        {"disk_free_bytes": GIB, "disk_used_bytes": GIB},
        ["1.0 GiB free", "needs 2.2 GiB"],
    ),
    ({"memory_available_bytes": 3 * GIB}, ["3.0 GiB available", "needs 4.0 GiB", "limit"]),
]


@pytest.mark.parametrize(("observed", "words"), SHORTFALLS)
def test_a_shortfall_names_what_was_found_what_is_needed_and_the_cure(
    observed: dict[str, Any], words: list[str]
) -> None:
    said = judge(replace(GOOD, **observed))
    assert len(said) == 1
    for word in words:
        assert word in said[0]


def test_all_shortfalls_are_told_at_once() -> None:
    facts = replace(
        GOOD,
        python=(3, 9),
        ensurepip=False,
        glibc=(2, 17),
        cpu_flags=frozenset({"sse2"}),
        missing_libraries=("libnuma.so.1",),
        disk_free_bytes=0,
        memory_available_bytes=0,
    )
    assert len(judge(facts)) == 7


def test_shortfalls_are_distinct() -> None:
    said = [judge(replace(GOOD, **observed))[0] for observed, _ in SHORTFALLS]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize(
    "unknown",
    [{"cpu_flags": frozenset()}, {"memory_available_bytes": None}],
    ids=["no cpuinfo", "no meminfo"],
)
def test_what_cannot_be_observed_is_no_shortfall(unknown: dict[str, Any]) -> None:
    assert judge(replace(GOOD, **unknown)) == []


def test_an_environment_that_is_there_needs_no_more_disk() -> None:
    assert judge(replace(GOOD, disk_free_bytes=0, disk_used_bytes=4 * GIB)) == []


def test_exactly_what_is_needed_is_enough() -> None:
    facts = replace(
        GOOD,
        glibc=preflight.GLIBC,
        cpu_flags=preflight.CPU_FLAGS["x86_64"],
        disk_free_bytes=preflight.DISK_BYTES,
        memory_available_bytes=preflight.MEMORY_BYTES,
    )
    assert judge(facts) == []


def test_the_error_carries_every_shortfall_and_says_that_nothing_was_downloaded() -> None:
    error = install.cannot_run(["the first", "the second"])
    assert error.exit_code == 1
    assert "nothing was downloaded" in error.what
    assert "- the first" in error.what
    assert "- the second" in error.what
    assert "same command again" in error.hint


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 fma\n\nprocessor : 1\nflags : fpu\n", "fpu avx2 fma"),
        ("processor : 0\nFeatures\t: fp asimd bf16\nCPU part : 0xd84\n", "fp asimd bf16"),
        ("vendor_id : IBM/S390\n", ""),
        ("", ""),
    ],
)
def test_cpu_flags_are_the_first_cpus(text: str, flags: str) -> None:
    assert cpu_flags(text) == frozenset(flags.split())


def test_available_memory_is_read_in_bytes() -> None:
    text = "MemTotal:       24684564 kB\nMemFree: 100 kB\nMemAvailable:   23677000 kB\n"
    assert preflight.mem_available_bytes(text) == 23677000 * 1024
    assert preflight.mem_available_bytes("MemTotal: 1 kB\n") is None


def group(root: Path, name: str, limit: str, used: int = 0, cache: int = 0) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\nactive_file 7\n")


def test_a_containers_limit_counts_and_its_page_cache_is_free(tmp_path: Path) -> None:
    group(tmp_path, "", str(4 * GIB), used=3 * GIB, cache=GIB)
    assert cgroup_headroom_bytes(tmp_path, "/") == 2 * GIB


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    group(tmp_path, "a", str(2 * GIB), used=GIB)
    group(tmp_path, "a/b", "max", used=GIB)
    group(tmp_path, "a/b/c", str(8 * GIB), used=GIB)
    assert cgroup_headroom_bytes(tmp_path, "/a/b/c") == GIB


@pytest.mark.parametrize("path", ["/", "/a", "/a/gone"])
def test_no_limit_is_no_headroom_to_speak_of(tmp_path: Path, path: str) -> None:
    group(tmp_path, "a", "max")
    assert cgroup_headroom_bytes(tmp_path, path) is None


def test_more_used_than_allowed_is_nothing_left(tmp_path: Path) -> None:
    group(tmp_path, "", str(GIB), used=2 * GIB)
    assert cgroup_headroom_bytes(tmp_path, "/") == 0


def test_this_machine_can_be_observed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"x" * 100_000)
    facts = preflight.gather(tmp_path / "there")
    assert facts.system == "Linux"
    assert facts.glibc is not None
    assert facts.cpu_flags
    assert facts.disk_free_bytes > 0
    assert 100_000 <= facts.disk_used_bytes < 200_000
    assert facts.memory_available_bytes


def test_a_root_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    facts = preflight.gather(tmp_path / "not" / "yet")
    assert facts.disk_free_bytes > 0
    assert facts.disk_used_bytes == 0
