"""The real engine over two boxes, its own ports scanned by a third while it serves."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cluster.portrule import checked
from appliance.cluster.wire import PORT
from tests.cluster.boxes import Pair, pair
from tests.cluster.rules import Ruled
from tests.cluster.scanning import EVERY_ADDRESS, scan, third_box
from tests.cluster.wires import CABLE, HEAD_ADDR, WORKER_ADDR, wired

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(900)]
MEETING, PICKED = 29501, (32768, 60999)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, str]]:
    """Two boxes that serve, and a third one beside them."""
    with (
        wired() as wires,
        third_box(wires) as third,
        pair(tmp_path_factory.mktemp("boxes"), wires) as both,
    ):
        yield both, third


def listening(namespace: str) -> list[int]:
    """Return the TCP ports that listen on other addresses than the loopback's."""
    argv = ["ip", "netns", "exec", namespace, "ss", "-Hltn"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    local = [line.split()[3].rpartition(":") for line in lines]
    return sorted({int(port) for host, _, port in local if not host.startswith("127.")})


def test_the_engine_s_own_ports_answer_the_third_box_until_the_rule_is_set(
    scanned: tuple[Pair, str], tmp_path: Path
) -> None:
    both, third = scanned
    both.head.serving()
    wires = both.wires
    engine = set(listening(wires.head)) - {9000}
    assert MEETING in engine
    assert MEETING in scan(third, HEAD_ADDR, sorted(engine))  # no key was asked for
    assert scan(third, WORKER_ADDR, [PORT]) == [PORT]
    nodes = [Ruled(wires.head, tmp_path / "head"), Ruled(wires.worker, tmp_path / "worker")]
    for node, peer in zip(nodes, (WORKER_ADDR, HEAD_ADDR), strict=True):
        node.host.install(checked(CABLE, peer, (PORT, MEETING), PICKED), node.said.append)
    try:
        for address in EVERY_ADDRESS:
            found = scan(third, address, list(range(1, 65536)), wait_s=1.5)
            assert set(found) <= {9000}, address  # the appliance's own door, which asks for a key
        both.head.serving()  # and the two parts still reach each other
    finally:
        for node in nodes:
            node.host.remove(node.said.append)
