"""A progress bar on stderr: share, bytes, rate, time left. Where no tty is, a line each 10 s."""

import sys
import threading
import time
from typing import Self, TextIO

from appliance.checkpoint.telling import tell

WIDTH = 24


class Bar:
    """Counts bytes, or things of another ``unit``, towards ``total``; threads may add."""

    def __init__(
        self, label: str, total: int, out: TextIO | None = None, *, unit: str = "GB"
    ) -> None:
        self._label, self._total, self._done, self._skipped = label, total, 0, 0
        self._unit = unit
        self._out = out if out is not None else sys.stderr
        self._tty = self._out is not None and self._out.isatty()
        self._lock = threading.Lock()
        self._began = self._shown = time.monotonic()

    def skip(self, count: int) -> None:
        """Count bytes that an earlier run has done: they say nothing of the rate."""
        with self._lock:
            self._skipped += count
            self._done += count

    def add(self, count: int) -> None:
        """Count bytes that are done now."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._shown >= (0.2 if self._tty else 10):
                self._shown = now
                self._show(now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Show the end, unless it was over before anyone would look."""
        with self._lock:
            now = time.monotonic()
            if self._tty or now - self._began > 2:
                self._show(now)
                if self._tty:
                    tell("\n", self._out)

    def _show(self, now: float) -> None:
        seconds = now - self._began
        text = bar_line(
            self._label, self._done, self._total, seconds, self._skipped, unit=self._unit
        )
        tell(f"\r{text}\x1b[K" if self._tty else text + "\n", self._out)


def bar_line(
    label: str, done: int, total: int, seconds: float, skipped: int = 0, *, unit: str = "GB"
) -> str:
    """Return ``label [####----] 43 % 12.3 of 28.6 GB, 1.42 GB/s, 0:11 left``. Pure.

    Of another unit than GB things are counted one by one.
    """
    share = min(done / total, 1.0) if total else 1.0
    rate = (done - skipped) / seconds if seconds > 0 else 0.0
    filled = int(share * WIDTH)
    text = f"{label} [{'#' * filled}{'-' * (WIDTH - filled)}] {int(share * 100):3} % "
    if unit == "GB":
        text += f"{done / 1e9:.1f} of {total / 1e9:.1f} GB"
    else:
        text += f"{done} of {total} {unit}"
    if rate > 0:
        speed = f"{speed_of(rate)}, " if unit == "GB" else ""
        text += f", {speed}{clock((total - done) / rate)} left"
    return text


def speed_of(rate: float) -> str:
    """Return bytes a second as ``1.42 GB/s``, or below that as ``23.4 MB/s``."""
    return f"{rate / 1e9:.2f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.1f} MB/s"


def clock(seconds: float) -> str:
    """Return ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
