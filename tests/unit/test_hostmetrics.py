"""The machine's metrics: of a made-up machine, of one that shows nothing, of a GPU that hangs."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from appliance.hostmetrics import GPU_EVERY_S, SCRAPE_WAITS_S, HostMetrics
from appliance.vitals import READ_S
from tests.engines import wait_until

MEMINFO = """\
MemTotal:       127601452 kB
MemFree:            2048 kB
MemAvailable:       4096 kB
SwapCached:            3 kB
SwapTotal:            16 kB
SwapFree:              0 kB
"""
VMSTAT = "nr_free_pages 7\npswpin 5\npswpout 6\noom_kill 2\n"
PRESSURE = "some avg10=0.00 total=1500000\nfull avg10=0.00 total=250000\n"
BUDDYINFO = "Node 0, zone DMA 0 0 0 0 0 0 0 0 1 1 3 \nNode 0, zone Normal 9 9 9 9 9 9 9 9 9 2 4 \n"

MEMORY = ("memory_total_bytes", "memory_free_bytes", "memory_available_bytes")
SWAP = ("swap_total_bytes", "swap_free_bytes", "swap_cached_bytes")
SOURCES = {
    "proc/meminfo": (*MEMORY, *SWAP),
    "proc/vmstat": ("swap_in_bytes", "swap_out_bytes", "oom_kills"),
    "proc/pressure/memory": ("memory_pressure_seconds",),
    "proc/buddyinfo": ("memory_free_blocks",),
    "dev/kmsg": ("gpu_no_memory_lines",),
    "smi": ("gpu_power_watts", "gpu_clock_hertz", "gpu_temperature_celsius"),
}


def names(*sources: tuple[str, ...]) -> set[str]:
    return {f"appliance_host_{name}" for source in sources for name in source}


class Machine:
    """A made-up / whose clock stands still, with an nvidia-smi of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 1000.0
        self.smi = root / "smi"
        self.metrics = HostMetrics(root, str(self.smi), lambda: self.now_s)
        self.registry = CollectorRegistry()
        self.registry.register(self.metrics)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def gpu(self, body: str) -> None:
        self.smi.write_text(f'#!/bin/sh\necho asked >> "{self.root}/asked"\n{body}\n')
        self.smi.chmod(0o755)

    @property
    def times_asked(self) -> int:
        file = self.root / "asked"
        return len(file.read_text().split()) if file.exists() else 0

    def families(self) -> dict[str, Metric]:
        text = generate_latest(self.registry).decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    with closing(machine.metrics):
        yield machine


@pytest.fixture
def whole(machine: Machine) -> Machine:
    """A machine that shows everything."""
    machine.write("proc/meminfo", MEMINFO)
    machine.write("proc/vmstat", VMSTAT)
    machine.write("proc/pressure/memory", PRESSURE)
    machine.write("proc/buddyinfo", BUDDYINFO)
    machine.write("dev/kmsg", "4,9,1,-;NVRM: x [NV_ERR_NO_MEMORY] y\n")
    machine.gpu("echo 0, 27.5, 208, 45")
    return machine


# ---- values


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("memory_total_bytes", {}, 127601452 * 1024),
        ("memory_free_bytes", {}, 2 << 20),
        ("memory_available_bytes", {}, 4 << 20),
        ("swap_total_bytes", {}, 16384),
        ("swap_free_bytes", {}, 0),
        ("swap_cached_bytes", {}, 3072),
        ("swap_in_bytes_total", {}, 5 * os.sysconf("SC_PAGE_SIZE")),
        ("swap_out_bytes_total", {}, 6 * os.sysconf("SC_PAGE_SIZE")),
        ("oom_kills_total", {}, 2),
        ("memory_pressure_seconds_total", {"kind": "some"}, 1.5),
        ("memory_pressure_seconds_total", {"kind": "full"}, 0.25),
        ("memory_free_blocks", {"order": "9"}, 3),
        ("memory_free_blocks", {"order": "10"}, 7),
        ("gpu_no_memory_lines_total", {}, 1),
        ("gpu_power_watts", {"gpu": "0"}, 27.5),
        ("gpu_clock_hertz", {"gpu": "0"}, 208e6),
        ("gpu_temperature_celsius", {"gpu": "0"}, 45),
    ],
)
async def test_each_family_is_in_base_units(
    whole: Machine, name: str, labels: dict[str, str], value: float
) -> None:
    await whole.metrics.refresh()
    assert whole.value(f"appliance_host_{name}", **labels) == value


async def test_every_family_is_the_host_s_and_says_what_it_means(whole: Machine) -> None:
    await whole.metrics.refresh()
    families = whole.families()
    assert set(families) == names(*SOURCES.values())
    assert all(family.documentation for family in families.values())


def test_small_blocks_are_left_out(whole: Machine) -> None:
    orders = {
        s.labels["order"] for s in whole.families()["appliance_host_memory_free_blocks"].samples
    }
    assert orders == {"9", "10"}


def test_this_machine_tells_its_memory() -> None:
    registry = CollectorRegistry()
    with closing(HostMetrics()) as metrics:
        registry.register(metrics)
        total = registry.get_sample_value("appliance_host_memory_total_bytes")
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# ---- what cannot be read


async def test_what_cannot_be_read_is_absent_and_not_0(machine: Machine) -> None:
    await machine.metrics.refresh()
    assert machine.families() == {}


@pytest.mark.parametrize("path", list(SOURCES))
async def test_a_source_that_fails_takes_its_own_families_away_and_no_other(
    whole: Machine, path: str
) -> None:
    (whole.root / path).unlink()
    (whole.root / path).mkdir()  # it is there, and cannot be read
    await whole.metrics.refresh()
    gone = set() if path == "dev/kmsg" else names(SOURCES[path])  # a folder is an empty log
    assert set(whole.families()) == names(*SOURCES.values()) - gone


async def test_a_gpu_that_does_not_tell_its_power_tells_the_rest(whole: Machine) -> None:
    whole.gpu("echo '0, [N/A], 208, 45'")
    await whole.metrics.refresh()
    assert whole.value("appliance_host_gpu_power_watts", gpu="0") is None
    assert whole.value("appliance_host_gpu_temperature_celsius", gpu="0") == 45


# ---- time


async def test_the_gpu_is_asked_at_most_each_15_s_however_many_scrape(whole: Machine) -> None:
    for _ in range(3):
        await whole.metrics.refresh()
    assert whole.times_asked == 1
    whole.now_s += GPU_EVERY_S
    whole.gpu("echo 0, 99, 208, 45")
    await whole.metrics.refresh()
    assert whole.times_asked == 2
    assert whole.value("appliance_host_gpu_power_watts", gpu="0") == 99


async def test_a_scrape_alone_asks_nobody(whole: Machine) -> None:
    assert "appliance_host_gpu_power_watts" not in whole.families()
    assert whole.times_asked == 0


async def test_a_reading_that_was_not_renewed_is_no_longer_shown(whole: Machine) -> None:
    await whole.metrics.refresh()
    whole.now_s += GPU_EVERY_S + READ_S
    assert "appliance_host_gpu_power_watts" in whole.families()
    whole.now_s += SCRAPE_WAITS_S
    assert "appliance_host_gpu_power_watts" not in whole.families()
    assert "appliance_host_memory_total_bytes" in whole.families()


async def test_a_gpu_that_hangs_holds_one_scrape_and_no_second_one(whole: Machine) -> None:
    os.mkfifo(whole.root / "driver")
    whole.gpu(f'read line < "{whole.root}/driver"; echo 0, 30, 208, 45')
    await whole.metrics.refresh(within_s=0.05)
    assert "appliance_host_memory_total_bytes" in whole.families()
    assert "appliance_host_gpu_power_watts" not in whole.families()
    await whole.metrics.refresh(within_s=3600)  # does not wait for the one that hangs
    release = os.open(whole.root / "driver", os.O_RDWR)
    try:
        os.write(release, b"go on\n")
        shown = "appliance_host_gpu_power_watts"
        await asyncio.to_thread(
            wait_until, lambda: shown in whole.families(), 10, "the reading to end"
        )
    finally:
        os.close(release)
    assert whole.times_asked == 1
