"""How the C library keeps the memory of large bodies: asked for once, in this process alone.

glibc maps each block above 128 KiB anew and gives it back at once, so that a body of 1 MB costs
more in page faults than in all that is done with it. The variables MALLOC_… would say the same,
but the engine, our child, would inherit them: its many threads want their many arenas.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
KEPT_BYTES = 256 * 2**20  # freed memory at the heap's end that is kept
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
