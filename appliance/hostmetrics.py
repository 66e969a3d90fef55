"""The machine's own metrics: memory, swap, pressure, fragmentation, GPU.

What cannot be read is absent, not 0: a 0 would look like a value. The files of /proc, which are
memory themselves, are read at each scrape; the GPU and the kernel's log before it, in a thread.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from appliance.gpu import DriverLog, Gpu, read_gpus
from appliance.host import counts
from appliance.procfiles import KIB, parse_buddyinfo, parse_pressure
from appliance.vitals import READ_S

GPU_EVERY_S = 15.0
SCRAPE_WAITS_S = 2.0  # for a GPU that does not answer
LEAST_ORDER = 9  # blocks of 2 MiB, with pages of 4 KiB

_PREFIX = "appliance_host_"
_MEMINFO = {
    "MemTotal:": ("memory_total_bytes", "Memory that the kernel manages"),
    "MemFree:": ("memory_free_bytes", "Memory that nothing uses, not even page cache"),
    "MemAvailable:": ("memory_available_bytes", "Memory that can be had without swapping"),
    "SwapTotal:": ("swap_total_bytes", "Swap space"),
    "SwapFree:": ("swap_free_bytes", "Swap space that nothing uses"),
    "SwapCached:": ("swap_cached_bytes", "Memory that was written to swap and is still held"),
}
_SWAPPED = {
    "pswpin": ("swap_in_bytes", "Read back from swap since boot"),
    "pswpout": ("swap_out_bytes", "Written to swap since boot"),
}
_GPU: tuple[tuple[str, str, Callable[[Gpu], float | None]], ...] = (
    ("gpu_power_watts", "What the GPU draws", lambda gpu: gpu.power_w),
    ("gpu_clock_hertz", "Clock of the GPU's cores", lambda gpu: gpu.clock_hz),
    ("gpu_temperature_celsius", "Temperature of the GPU", lambda gpu: gpu.temperature_c),
)

Values = Mapping[str, float]  # by the label's value, "" where there is no label


class HostMetrics(Collector):
    """Reads the machine: ``refresh`` before a scrape, ``collect`` in it, ``close`` at the end."""

    def __init__(
        self,
        root: Path = Path("/"),
        program: str = "nvidia-smi",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._program = program
        self._now = now
        self._gpus: dict[str, Gpu] = {}
        self._gpus_at = -GPU_EVERY_S  # as old as can be
        self._driver_log = DriverLog(root / "dev" / "kmsg")
        self._reading: asyncio.Future[None] | None = None

    async def refresh(self, within_s: float = SCRAPE_WAITS_S) -> None:
        """Read the kernel's log, and the GPU if its last reading is old. Never raises.

        One reading at a time: a scrape that comes while one hangs does not wait for it.
        """
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._read)
            await asyncio.wait([self._reading], timeout=within_s)

    def collect(self) -> Iterator[Metric]:
        """Yield the families that have a value."""
        proc = self._root / "proc"
        yield from _memory(counts(proc / "meminfo"))
        yield from _kernel_counts(counts(proc / "vmstat"))
        yield from _pressure(_text(proc / "pressure" / "memory"))
        yield from _free_blocks(_text(proc / "buddyinfo"))
        if (lines := self._driver_log.count) is not None:
            about = "Lines of the GPU's driver in the kernel's log that say NO_MEMORY"
            yield _counter("gpu_no_memory_lines", about, {"": lines})
        # A driver that hangs leaves the last reading there, which is no longer true.
        if self._now() - self._gpus_at < GPU_EVERY_S + READ_S + SCRAPE_WAITS_S:
            yield from _gpu(self._gpus)

    def close(self) -> None:
        """Close the kernel's log, unless a reading hangs with it: it ends with the process."""
        if self._reading is None or self._reading.done():
            self._driver_log.close()

    def _read(self) -> None:
        self._driver_log.read()
        if self._now() - self._gpus_at >= GPU_EVERY_S:
            self._gpus = read_gpus(self._program, self._root / "sys" / "class")
            self._gpus_at = self._now()


def _memory(rows: Mapping[str, int]) -> Iterator[Metric]:
    for row, (name, about) in _MEMINFO.items():
        if row in rows:
            yield _gauge(name, about, {"": rows[row] * KIB})


def _kernel_counts(rows: Mapping[str, int]) -> Iterator[Metric]:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    for row, (name, about) in _SWAPPED.items():
        if row in rows:
            yield _counter(name, about, {"": rows[row] * page_bytes})
    if "oom_kill" in rows:
        about = "Processes that the kernel killed for memory since boot"
        yield _counter("oom_kills", about, {"": rows["oom_kill"]})


def _pressure(text: str) -> Iterator[Metric]:
    if waited := parse_pressure(text):
        about = "For how long some, or all, tasks have waited for memory since boot"
        yield _counter("memory_pressure_seconds", about, waited, "kind")


def _free_blocks(text: str) -> Iterator[Metric]:
    blocks = parse_buddyinfo(text).items()
    if values := {str(order): count for order, count in blocks if order >= LEAST_ORDER}:
        about = f"Free blocks of 2^order pages in a row, from order {LEAST_ORDER} on"
        yield _gauge("memory_free_blocks", about, values, "order")


def _gpu(gpus: Mapping[str, Gpu]) -> Iterator[Metric]:
    for name, about, value_of in _GPU:
        told = {index: value_of(gpu) for index, gpu in gpus.items()}
        if known := {index: value for index, value in told.items() if value is not None}:
            yield _gauge(name, about, known, "gpu")


def _gauge(name: str, about: str, values: Values, label: str = "") -> Metric:
    return _filled(GaugeMetricFamily(_PREFIX + name, about, labels=_list(label)), values)


def _counter(name: str, about: str, values: Values, label: str = "") -> Metric:
    return _filled(CounterMetricFamily(_PREFIX + name, about, labels=_list(label)), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for label_value, value in values.items():
        family.add_metric(_list(label_value), value)
    return family


def _list(word: str) -> list[str]:
    return [word] if word else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
