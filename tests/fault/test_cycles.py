"""Crash after crash: the appliance brings the engine back, and nothing piles up."""

import os
import socket
from pathlib import Path

import httpx

from tests.appliances import CHAT, CONTROL, ApplianceProcess, RunAppliance, engines_of
from tests.engines import wait_until
from tests.fault.clients import ASKED, QUICK, incidents
from tests.fault.table import Faults

CYCLES = 20
SETTLED = 5  # by then caches are warm
CODES = (0, 1, 139, 137, -9)
SHM = Path("/dev/shm")


def sockets(pid: int) -> set[str]:
    """Return the sockets that a process holds."""
    return {link for link in _open(pid) if link.startswith("socket:")}


def tcp_sockets(pid: int) -> int:
    """Count the TCP connections and listeners of a process, from the kernel's own table."""
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in sockets(pid)}
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[9] in inodes for row in rows)


def _open(pid: int) -> list[str]:
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:  # closed meanwhile
            continue
    return links


def rss_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def segments(box: ApplianceProcess) -> set[str]:
    """Return which shared memory the engines of an appliance have had, of what it still keeps."""
    with box.http("operator") as http:
        lines = http.get(f"{CONTROL}/logs?lines=2000").json()["lines"]
    words = [line["text"].split() for line in lines]
    return {said[1] for said in words if said[:1] == ["segment"]}


def crash(box: ApplianceProcess, operator: httpx.Client, number: int) -> str:
    """End engine ``number``, see the next one serve; return where the dead one was."""
    fake = box.fake
    fake.be(exit_code=CODES[number % len(CODES)])
    served: dict[str, int] = {}

    def risen() -> bool:
        now = operator.get(f"{CONTROL}/status").json()
        served[now["state"]] = now["spawn"]
        return served.get("ready") == number + 1

    wait_until(risen, 20, f"spawn {number + 1}; it is {served}")
    assert operator.post(CHAT, json=ASKED).status_code == 200
    return fake.url


def test_twenty_crashes_leave_no_process_no_socket_no_segment_and_no_fat(
    run: RunAppliance, faults: Faults
) -> None:
    limits = {"restart_max_failures": 99, "restart_backoff_s": 0.05, "restart_backoff_cap_s": 0.05}
    box = run("--fork-grandchild", **QUICK | limits)
    box.until("ready")
    pid = box.process.pid
    with box.http("operator") as http:
        addresses = [crash(box, http, number) for number in range(1, SETTLED + 1)]
    # its listener, and two connections to the engine: one that looks at it, one that serves
    wait_until(lambda: tcp_sockets(pid) <= 3, 10, "its connections to idle away")
    opened, held = len(sockets(pid)), rss_bytes(pid)
    with box.http("operator") as http:
        for number in range(SETTLED + 1, CYCLES + 1):
            addresses.append(crash(box, http, number))
            assert len(engines_of(box.folder)) == 2  # the new one, and its grandchild
    wait_until(lambda: tcp_sockets(pid) <= 3, 10, "its connections to idle away")
    wait_until(lambda: len(sockets(pid)) <= opened, 10, "no more sockets than before")
    grown = rss_bytes(pid) / held - 1
    assert abs(grown) < 0.05, f"its memory grew by {grown:.1%}"
    assert all(refused(address) for address in addresses)
    assert len(incidents(box.folder)) == 5
    with box.http("operator") as http:
        listed = http.get(f"{CONTROL}/incidents").json()["incidents"]
    assert [incident["spawn"] for incident in listed] == [20, 19, 18, 17, 16]
    seen = f"answered after each; sockets as before, memory {grown:+.1%}"
    faults.row(f"{CYCLES} crashes in a row", None, None, seen)


def refused(address: str) -> bool:
    """Tell whether nobody listens there any more."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_an_engine_that_had_to_be_killed_leaves_no_segment_of_shared_memory(
    run: RunAppliance,
) -> None:
    box = run("--shared-memory", "--deaf-to-sigterm", **QUICK)
    box.until("ready")
    (segment,) = segments(box)
    assert (SHM / segment).exists()
    with box.http("operator") as http:
        http.post(f"{CONTROL}/stop")
    box.until("stopped")
    try:
        assert not (SHM / segment).exists()
    finally:
        (SHM / segment).unlink(missing_ok=True)
