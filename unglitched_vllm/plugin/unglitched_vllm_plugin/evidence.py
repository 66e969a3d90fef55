"""What an engine process is doing, on request: Python stacks of all its threads.

faulthandler writes them from the signal handler itself, so a process that hangs in C code, or
holds the interpreter's lock, still tells. Stacks name files, lines and functions, never values:
no prompt is in them.
"""

import faulthandler
import os
import signal
from pathlib import Path
from typing import TextIO

FOLDER_VARIABLE = "UNGLITCHED_EVIDENCE_DIR"
SIGNAL = signal.SIGUSR2

_files: list[TextIO] = []  # open for the process's life: the handler writes to their descriptors


def register() -> None:
    """Entry point: on ``SIGUSR2`` append this process's stacks to ``stacks-PID.txt``.

    The folder is the value of ``UNGLITCHED_EVIDENCE_DIR``; without it, nothing is done. A second
    call, or one in a forked child, opens that process's own file.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    path = Path(folder) / f"stacks-{os.getpid()}.txt"
    if any(file.name == str(path) for file in _files):
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError:
        return  # an engine without evidence is better than none
    _files.append(file)
    faulthandler.register(SIGNAL, file=file, all_threads=True)
