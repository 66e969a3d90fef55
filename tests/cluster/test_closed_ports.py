"""The packet rule, for real: a third box scans both nodes, and the peer gets through."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cluster.portrule import Closed, checked
from appliance.errors import HostError
from tests.cluster.rules import Ruled
from tests.cluster.scanning import EVERY_ADDRESS, listeners, scan, third_box
from tests.cluster.wires import CABLE, HEAD_ADDR, WORKER_ADDR, Wires, wired

pytestmark = pytest.mark.cluster
ORDERS, MEETING = 9001, 29501
PICKED = (32768, 60999)
# What vLLM and torch open lies anywhere in the kernel's range, both ends in it.
OPENED = [ORDERS, MEETING, *PICKED, *range(33001, 60000, 997)]
SERVED = 9000  # the appliance's own door, which has keys of its own
OTHERS = {SERVED, 22}


def closed_to_all_but(peer: str) -> Closed:
    return checked(CABLE, peer, (ORDERS, MEETING), PICKED)


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with wired() as made, listeners(made.head, made.worker, ports=[*OPENED, *sorted(OTHERS)]):
        yield made


@pytest.fixture(scope="module")
def third(wires: Wires) -> Iterator[str]:
    with third_box(wires) as namespace:
        yield namespace


@pytest.fixture
def nodes(wires: Wires, tmp_path: Path) -> Iterator[tuple[Ruled, Ruled]]:
    head, worker = Ruled(wires.head, tmp_path / "head"), Ruled(wires.worker, tmp_path / "worker")
    yield head, worker
    for node in (head, worker):
        node.host.remove(node.said.append)


def install(nodes: tuple[Ruled, Ruled]) -> None:
    for node, peer in zip(nodes, (WORKER_ADDR, HEAD_ADDR), strict=True):
        node.host.install(closed_to_all_but(peer), node.said.append)


@pytest.mark.parametrize("address", EVERY_ADDRESS)
def test_without_the_rule_the_scan_finds_every_listener(third: str, address: str) -> None:
    assert set(scan(third, address, [*OPENED, *OTHERS])) == {*OPENED, *OTHERS}


@pytest.mark.long
@pytest.mark.parametrize("address", EVERY_ADDRESS)
def test_with_it_a_scan_of_every_port_finds_the_machine_s_own_services_alone(
    third: str, nodes: tuple[Ruled, Ruled], address: str
) -> None:
    install(nodes)
    assert set(scan(third, address, list(range(1, 65536)), wait_s=1.5)) == OTHERS


@pytest.mark.parametrize("address", EVERY_ADDRESS)
def test_with_it_none_of_the_engine_s_listeners_answers(
    third: str, nodes: tuple[Ruled, Ruled], address: str
) -> None:
    install(nodes)
    assert set(scan(third, address, [*OPENED, *OTHERS])) == OTHERS


def test_the_peer_gets_through_on_the_cable_and_a_node_reaches_itself(
    wires: Wires, third: str, nodes: tuple[Ruled, Ruled]
) -> None:
    install(nodes)
    everything = [*OPENED, *OTHERS]
    assert set(scan(wires.head, WORKER_ADDR, everything)) == set(everything)
    assert set(scan(wires.worker, HEAD_ADDR, everything)) == set(everything)
    assert set(scan(wires.head, HEAD_ADDR, everything)) == set(everything)
    assert set(scan(wires.head, "127.0.0.1", everything)) == set(everything)


def test_a_node_s_own_connections_out_are_answered(
    wires: Wires, third: str, nodes: tuple[Ruled, Ruled]
) -> None:
    """Their local ports lie in the closed range: the replies must pass."""
    install(nodes)
    with listeners(third, ports=[443]):
        assert scan(wires.head, "10.232.3.9", [443]) == [443]


def test_a_second_install_is_the_first_one_and_a_remove_leaves_nothing(
    third: str, nodes: tuple[Ruled, Ruled]
) -> None:
    head, _ = nodes
    other = head.nft("add", "table", "ip", "of_others")
    before = head.nft("list", "ruleset")
    for _ in range(2):
        head.host.install(closed_to_all_but(WORKER_ADDR), head.said.append)
        assert head.host.status(head.said.append) == 0
        assert head.nft("list", "ruleset").count("counter") == 1
    head.host.remove(head.said.append)
    assert head.nft("list", "ruleset") == before
    assert other == ""
    assert [path for path in head.folder.rglob("*") if path.is_file()] == []
    assert not (head.folder / "etc").exists()
    head.nft("delete", "table", "ip", "of_others")


def test_status_tells_a_rule_that_somebody_flushed(nodes: tuple[Ruled, Ruled]) -> None:
    head, _ = nodes
    assert head.host.status(head.said.append) == 1
    head.host.install(closed_to_all_but(WORKER_ADDR), head.said.append)
    head.nft("flush", "ruleset")
    assert head.host.status(head.said.append) == 1
    assert head.said[-1].startswith("NOT set")


def test_an_install_for_another_peer_takes_the_place_of_the_first(
    wires: Wires, nodes: tuple[Ruled, Ruled]
) -> None:
    head, _ = nodes
    head.host.install(closed_to_all_but("10.231.1.77"), head.said.append)
    assert scan(wires.worker, HEAD_ADDR, [MEETING], wait_s=0.5) == []
    head.host.install(closed_to_all_but(WORKER_ADDR), head.said.append)
    assert scan(wires.worker, HEAD_ADDR, [MEETING]) == [MEETING]


@pytest.mark.parametrize("at", ["daemon-reload", "enable", "restart"])
def test_an_install_that_fails_leaves_nothing_behind(nodes: tuple[Ruled, Ruled], at: str) -> None:
    head, _ = nodes
    head.fails_at = at
    with pytest.raises(HostError, match=at):
        head.host.install(closed_to_all_but(WORKER_ADDR), head.said.append)
    head.fails_at = ""
    assert "unglitched" not in head.nft("list", "ruleset")
    assert not head.host.is_installed


def test_a_cable_that_is_not_there_is_refused(nodes: tuple[Ruled, Ruled]) -> None:
    with pytest.raises(HostError, match="no such network interface"):
        nodes[0].host.install(checked("enp9", HEAD_ADDR, (9001,), PICKED), print)
