"""What an interrupted run leaves for the next: which plan, and how far each file is on the disk.

One JSON object a line: first ``{"plan": DIGEST}``, then ``{"file": NAME, "bytes": N}`` whenever
the first N bytes of a growing file have reached the disk. A line torn by a crash is cut off.
"""

import json
import os
import threading
from typing import Any

from appliance.checkpoint.destination import Destination
from appliance.checkpoint.failures import DestinationError


class Journal:
    """The journal of one destination. Threads may note their files side by side.

    ``is_new``: nothing says of the files that are there that they are of this plan.
    """

    def __init__(self, destination: Destination, plan: str) -> None:
        self._lock = threading.Lock()
        self._fd = destination.open_journal()
        text = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        whole = text[: text.rfind(b"\n") + 1]
        os.ftruncate(self._fd, len(whole))
        self._marks, begun = marks_of(whole)
        if begun and begun != plan:
            os.close(self._fd)
            raise DestinationError(
                f"{destination.folder} was begun from another source, mask or set of flags "
                f"(plan {begun[:12]}, and not {plan[:12]})",
                "repeat the command that began it, or remove the folder",
            )
        self.is_new = not begun
        if self.is_new:
            self._append({"plan": plan})

    def mark(self, name: str) -> int:
        """Return how many bytes of a growing file are surely on the disk."""
        return self._marks.get(name, 0)

    def note(self, name: str, size: int) -> None:
        """Remember that the first ``size`` bytes of a file are on the disk."""
        self._append({"file": name, "bytes": size})

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append(self, entry: dict[str, Any]) -> None:
        with self._lock:
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
            os.fsync(self._fd)


def marks_of(text: bytes) -> tuple[dict[str, int], str]:
    """Return the last mark of each file, and the plan that was begun ("" for none). Pure."""
    marks: dict[str, int] = {}
    plan = ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        match entry:
            case {"plan": str(plan)}:
                pass
            case {"file": str(name), "bytes": int(size)}:
                marks[name] = size
    return marks, plan
