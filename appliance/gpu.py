"""What the GPU tells: nvidia-smi's figures, a Jetson's sensors, the driver's complaints."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.vitals import READ_S, finite, output_of

_QUERY = "--query-gpu=index,power.draw,clocks.sm,temperature.gpu"
_COLDEST_C = -55.0  # below it a sensor means "switched off": a Jetson says -256
_RECORD_BYTES = 8192  # of the kernel's log: a shorter read of a longer record fails
_MOST_RECORDS = 20_000  # in one go; what is left is read the next time


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``None`` is what it does not tell."""

    power_w: float | None = None
    clock_hz: float | None = None
    temperature_c: float | None = None


def read_gpus(program: str, classes: Path, within_s: float = READ_S) -> dict[str, Gpu]:
    """Return the GPUs by index; {} where there is none. Waits for ``program`` at most so long.

    ``classes`` is /sys/class: where there is one GPU, its sensors tell what nvidia-smi does not.
    """
    gpus = parse_gpus(output_of((program, _QUERY, "--format=csv,noheader,nounits"), within_s))
    if len(gpus) > 1:
        return gpus
    index, told = next(iter(gpus.items()), ("0", Gpu()))
    sensed = read_sensors(classes)
    gpu = Gpu(
        power_w=sensed.power_w if told.power_w is None else told.power_w,
        clock_hz=sensed.clock_hz if told.clock_hz is None else told.clock_hz,
        temperature_c=sensed.temperature_c if told.temperature_c is None else told.temperature_c,
    )
    return {} if gpu == Gpu() else {index: gpu}


def parse_gpus(text: bytes) -> dict[str, Gpu]:
    """Return the GPUs by index, of nvidia-smi's CSV in W, MHz and °C; "[N/A]" is None."""
    gpus: dict[str, Gpu] = {}
    for line in text.split(b"\n"):
        fields = [field.strip() for field in line.split(b",")]
        if len(fields) == 4 and fields[0].isdigit():
            power, clock, temperature = map(finite, fields[1:])
            hertz = None if clock is None else clock * 1e6
            gpus[fields[0].decode()] = Gpu(power, hertz, temperature)
    return gpus


def read_sensors(classes: Path) -> Gpu:
    """Return what a Jetson's sysfs says of its GPU (expected from its documents, not run)."""
    clocks = (_number(path) for path in sorted(classes.glob("devfreq/*gpu*/cur_freq")))
    return Gpu(
        power_w=next(_rails_w(classes), None),
        clock_hz=next((clock for clock in clocks if clock is not None), None),
        temperature_c=next(_temperatures_c(classes), None),
    )


def _rails_w(classes: Path) -> Iterator[float]:
    for label in sorted(classes.glob("hwmon/hwmon*/in*_label")):
        if "GPU" in _text(label):
            number = label.name.removeprefix("in").removesuffix("_label")
            millivolts = _number(label.with_name(f"in{number}_input"))
            milliamperes = _number(label.with_name(f"curr{number}_input"))
            if millivolts is not None and milliamperes is not None:
                yield millivolts * milliamperes / 1e6


def _temperatures_c(classes: Path) -> Iterator[float]:
    for kind in sorted(classes.glob("thermal/thermal_zone*/type")):
        if _text(kind).lower().startswith("gpu"):
            millidegrees = _number(kind.with_name("temp"))
            if millidegrees is not None and millidegrees / 1000 > _COLDEST_C:
                yield millidegrees / 1000


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    return finite(_text(path).encode())


class DriverLog:
    """Counts what the GPU's driver says of no memory, in the kernel's log. Close it.

    NVRM says so before a whole box freezes, and also in starts that go well: a figure to look
    at, and no reason to kill. ``count`` is None where the log cannot be read (it takes root, or
    kernel.dmesg_restrict=0).
    """

    def __init__(self, path: Path) -> None:
        self.count: int | None = None
        self._path = path
        self._fd = -1

    def read(self) -> None:
        """Count what has come since the last time; at first, what the log still holds."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return
            self.count = 0
        for record in self._records():
            if b"NVRM" in record and b"NO_MEMORY" in record:
                self.count = (self.count or 0) + 1

    def _records(self) -> Iterator[bytes]:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BrokenPipeError:  # the oldest ones were overwritten: go on with what is left
                continue
            except OSError:  # EAGAIN: no more
                return
            if not record:
                return
            yield from record.split(b"\n")

    def close(self) -> None:
        """Close the log; safe to call twice."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
