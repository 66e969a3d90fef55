"""Shared memory that a killed engine leaves in /dev/shm: found by who maps it, and removed.

An engine's own clean-up (Python's resource tracker) dies with it when its tree is killed. Each
such segment takes memory until a reboot, and with ``ipc: host`` that of the whole box. Segments
are known by inode: a semaphore is mapped under a name that it had for a moment only.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 - where the kernel keeps them


def mapped(pids: Iterable[int]) -> set[int]:
    """Return the inodes of what these processes map; of processes that are gone, nothing."""
    found: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                # address, rights, offset, device, inode, path
                words = line.split(maxsplit=5)
                if len(words) == 6 and words[5].startswith(f"{FOLDER}/"):
                    found.add(int(words[4]))
    return found


def remove(inodes: Iterable[int]) -> list[Path]:
    """Remove those of these segments that nobody maps any more; return them."""
    wanted = set(inodes)
    if not wanted:
        return []
    everybody = (int(name) for name in os.listdir("/proc") if name.isdigit())
    idle = wanted - mapped(everybody)
    removed = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(FOLDER):
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False) and entry.inode() in idle:
                    os.unlink(entry.path)
                    removed.append(Path(entry.path))
    return sorted(removed)
