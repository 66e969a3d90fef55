"""Two network namespaces and a cable between them, on one machine. Needs root.

    us  10.231.N.254 --- 10.231.N.1  head  10.231.1.1 === 10.231.1.2  worker

The double line is the cable. We reach the head as its clients do, by another network, so that a
cut cable cuts nobody but the two boxes. N is each pair's own: that end of it is in everybody's
network.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

HEAD_ADDR, WORKER_ADDR = "10.231.1.1", "10.231.1.2"
_MARKS = itertools.count(os.getpid())
CABLE, PORT = "cable0", 9001
# Each node has shared memory of its own, as two machines have: vLLM must not meet there.
_OWN_SHM = 'mount -t tmpfs -o size=1g tmpfs /dev/shm && exec "$@"'


@dataclass(frozen=True)
class Wires:
    """The namespaces by name, and the network by which the head is reached."""

    head: str
    worker: str
    front: str

    @property
    def front_addr(self) -> str:
        """The head's address in that network."""
        return f"{self.front}.1"

    def within(self, namespace: str) -> list[str]:
        """Return what starts a command in a namespace, with its own /dev/shm; it keeps its pid."""
        return [
            *("ip", "netns", "exec", namespace),
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", _OWN_SHM, "sh"),
        ]

    def cut(self) -> None:
        """Pull the cable at the worker: the head sees its carrier go."""
        run_ip("-n", self.worker, "link", "set", CABLE, "down")

    def mend(self) -> None:
        """Plug it in again."""
        run_ip("-n", self.worker, "link", "set", CABLE, "up")

    @contextmanager
    def without_work(self) -> Iterator[None]:
        """Let the head's orders through, and nothing else: the engine's parts lose each other."""
        inward = [*("ip", "netns", "exec", self.worker), "iptables", "-A", "INPUT", "-i", CABLE]
        for words in (
            [*inward, "-p", "tcp", "--dport", str(PORT), "-j", "ACCEPT"],
            [*inward, "-j", "DROP"],
        ):
            subprocess.run(words, check=True)
        try:
            yield
        finally:
            subprocess.run(["ip", "netns", "exec", self.worker, "iptables", "-F"], check=True)


def require_root() -> None:
    """Skip where namespaces cannot be made; in CI that is a failure."""
    missing = [tool for tool in ("ip", "unshare", "iptables") if shutil.which(tool) is None]
    lacks = "two network namespaces need root" if os.geteuid() else ""
    lacks = lacks or (f"{', '.join(missing)}: not installed" if missing else "")
    if lacks and os.environ.get("CI") == "true":
        pytest.fail(lacks)
    if lacks:
        pytest.skip(lacks)


@contextmanager
def wired() -> Iterator[Wires]:
    """Make both namespaces, the cable and the head's front; at the end nothing of them is left."""
    require_root()
    mark = next(_MARKS)
    wires = Wires(f"ugh{mark}", f"ugw{mark}", f"10.231.{2 + mark % 250}")
    ours = f"ugf{mark}"
    try:
        for namespace in (wires.head, wires.worker):
            run_ip("netns", "add", namespace)
            run_ip("-n", namespace, "link", "set", "lo", "up")
        run_ip("-n", wires.head, "link", "add", CABLE, "type", "veth",
            "peer", "name", CABLE, "netns", wires.worker)  # fmt: skip
        for namespace, address in ((wires.head, HEAD_ADDR), (wires.worker, WORKER_ADDR)):
            run_ip("-n", namespace, "addr", "add", f"{address}/24", "dev", CABLE)
            run_ip("-n", namespace, "link", "set", CABLE, "up")
        run_ip("link", "add", ours, "type", "veth", "peer", "name", "front0", "netns", wires.head)
        run_ip("-n", wires.head, "addr", "add", f"{wires.front_addr}/24", "dev", "front0")
        run_ip("-n", wires.head, "link", "set", "front0", "up")
        run_ip("addr", "add", f"{wires.front}.254/24", "dev", ours)
        run_ip("link", "set", ours, "up")
        yield wires
    finally:
        run_ip("link", "del", ours, check=False)
        for namespace in (wires.head, wires.worker):
            run_ip("netns", "del", namespace, check=False)


def run_ip(*words: str, check: bool = True) -> None:
    """Run ip; a failure is the test's."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"ip {' '.join(words)}: {done.stderr}"
