"""MemAvailable once a second while a step runs, in a thread of its own."""

import threading
import time
from collections.abc import Callable
from typing import Self

EVERY_S = 1.0
Sample = tuple[float, int]  # seconds since the step began, bytes


class Sampler:
    """Samples from entering to leaving, both ends included. ``read`` is None where unseen."""

    def __init__(self, read: Callable[[], int | None], every_s: float = EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._began = 0.0
        self._samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_fault: object) -> None:
        self._over.set()
        self._thread.join()
        self._take()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What was seen so far."""
        return tuple(self._samples)

    @property
    def low_water(self) -> int | None:
        """The least so far, with a look at this moment; None where nothing was seen."""
        self._take()
        return min((available for _, available in self.samples), default=None)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._take()

    def _take(self) -> None:
        available = self._read()
        if available is not None:
            self._samples.append((round(time.monotonic() - self._began, 1), available))
