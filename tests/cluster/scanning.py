"""A third box with routes to both nodes, that tries every TCP port; and listeners to be found."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.cluster.wires import HEAD_ADDR, WORKER_ADDR, Wires, run_ip

HEAD_SIDE, WORKER_SIDE = "10.232.3.1", "10.232.4.1"
EVERY_ADDRESS = (HEAD_ADDR, HEAD_SIDE, WORKER_ADDR, WORKER_SIDE)

# Listens on all addresses, of both families, until its input ends.
_LISTEN = """
import json, socket, sys
ports, kept = json.loads(sys.argv[1]), []
for port in ports:
    kept.append(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))
print("listening", flush=True)
sys.stdin.read()
"""
# Opens a connection to each port, many at once, and prints those that it could open.
_SCAN = """
import json, resource, select, socket, sys, time
address, wait_s, ports = sys.argv[1], float(sys.argv[2]), json.load(sys.stdin)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
most = min(most, 8192)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
batch, found = most - 64, []
for at in range(0, len(ports), batch):
    poll, trying = select.epoll(), {}
    for port in ports[at:at + batch]:
        probe = socket.socket()
        probe.setblocking(False)
        if probe.connect_ex((address, port)) in (0, 115):
            trying[probe.fileno()] = (probe, port)
            poll.register(probe, select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
        else:
            probe.close()
    end = time.monotonic() + wait_s
    while trying and time.monotonic() < end:
        for number, _ in poll.poll(0.1, 4096):
            probe, port = trying.pop(number)
            if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            poll.unregister(number)
            probe.close()
    for probe, _ in trying.values():
        probe.close()
    poll.close()
print(json.dumps(sorted(found)))
"""


@contextmanager
def third_box(wires: Wires) -> Iterator[str]:
    """Make a third namespace with a link to each node, and routes to their cable too."""
    third = wires.head.replace("ugh", "ugt")
    run_ip("netns", "add", third)
    try:
        run_ip("-n", third, "link", "set", "lo", "up")
        for node, side, far in (
            (wires.head, HEAD_SIDE, HEAD_ADDR),
            (wires.worker, WORKER_SIDE, WORKER_ADDR),
        ):
            net = side.removesuffix(".1")
            link = f"to{net.rpartition('.')[2]}"
            run_ip("-n", node, "link", "add", "side0", "type", "veth",
                   "peer", "name", link, "netns", third)  # fmt: skip
            run_ip("-n", node, "addr", "add", f"{side}/24", "dev", "side0")
            run_ip("-n", node, "link", "set", "side0", "up")
            run_ip("-n", third, "addr", "add", f"{net}.9/24", "dev", link)
            run_ip("-n", third, "link", "set", link, "up")
            run_ip("-n", third, "route", "add", f"{far}/32", "via", side)
        yield third
    finally:
        run_ip("netns", "del", third, check=False)


@contextmanager
def listeners(*namespaces: str, ports: list[int]) -> Iterator[None]:
    """Listen on all addresses of each namespace."""
    with ExitStack() as stack:
        for namespace in namespaces:
            argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", _LISTEN]
            process = stack.enter_context(
                subprocess.Popen(
                    [*argv, json.dumps(ports)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
        yield


def scan(namespace: str, address: str, ports: list[int], wait_s: float = 3.0) -> list[int]:
    """Return which ports of ``address`` let a process of ``namespace`` in."""
    argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", _SCAN]
    done = subprocess.run(
        [*argv, address, str(wait_s)],
        input=json.dumps(ports),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[int] = json.loads(done.stdout)
    return found
