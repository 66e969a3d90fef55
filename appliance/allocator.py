"""How the C library keeps the memory of large bodies: asked for once, in this process alone.

glibc maps each block above 128 KiB anew and gives it back at once, so that a body of 1 MB costs
more in page faults than in all that is done with it. The variables MALLOC_… would say the same,
but the engine, our child, would inherit them: its many threads want their many arenas.
"""

import asyncio
import ctypes
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
KEPT_BYTES = 256 * 2**20  # freed memory at the heap's end that is kept
TRIM_AFTER_S = 0.5  # of rest; giving back takes a millisecond, in which no stream may wait
MAPPED_BYTES = 32 * 2**20  # the largest that glibc takes


def keep_large_blocks() -> bool:
    """Tell the allocator to reuse large blocks; False where it is not glibc's, or refuses."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = (
        (_MMAP_THRESHOLD, MAPPED_BYTES),
        (_TRIM_THRESHOLD, KEPT_BYTES),
        (_ARENA_MAX, 1),
    )
    taken = [mallopt(name, value) == 1 for name, value in wanted]
    return all(taken)


def give_back() -> bool:
    """Give free memory back to the system, wherever in the heap; False where there was none."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False


class Trimmer:
    """Gives memory back once nothing has been under way for a moment, as ``is_idle`` tells."""

    def __init__(self, is_idle: Callable[[], bool], trim: Callable[[], object] = give_back) -> None:
        self._is_idle = is_idle
        self._trim = trim
        self._timer: asyncio.TimerHandle | None = None

    def rest(self) -> None:
        """Take note that nothing is under way now."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(TRIM_AFTER_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._is_idle():
            self._trim()
