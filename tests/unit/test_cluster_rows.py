"""What the doctor says of a cluster."""

import pytest

from appliance.cluster.compare import Compared, Verdict
from appliance.cluster.portrule import Closed, checked
from appliance.doctor.clusterrows import Joined, Rule, joined_rows, ports_row
from appliance.doctor.row import Level, Unseen
from appliance.settings import Settings, load_settings

PAIR = {
    "APPLIANCE_CLUSTER_HEAD": "192.168.100.1",
    "APPLIANCE_CLUSTER_WORKER": "192.168.100.2",
    "APPLIANCE_CLUSTER_INTERFACE": "enp1s0f0np0",
}
KEPT = checked("enp1s0f0np0", "192.168.100.2", (9001, 29501), (32768, 60999))
FINE = Compared("engine", "0.33.0", "0.33.0", Verdict.FINE)


def settings(role: str = "head", **more: str) -> Settings:
    return load_settings({**PAIR, "APPLIANCE_CLUSTER_ROLE": role, **more})


def test_a_worker_that_is_alike_is_one_row() -> None:
    (row,) = joined_rows(settings(), Joined("192.168.100.2:9001", (FINE,)))
    assert (row.level, row.name) == (Level.OK, "worker")


@pytest.mark.parametrize(
    ("verdict", "level"), [(Verdict.WARNS, Level.WARN), (Verdict.BREAKS, Level.FAIL)]
)
def test_each_difference_is_a_row_with_both_values(verdict: Verdict, level: Level) -> None:
    differing = Compared("driver", "580.95", "575.1", verdict, "update the older driver")
    _, row = joined_rows(settings(), Joined("192.168.100.2:9001", (FINE, differing)))
    assert (row.level, row.next) == (level, "update the older driver")
    assert "580.95 here, 575.1 on the worker" in row.value


def test_a_head_without_its_worker_cannot_serve_and_a_worker_can_wait() -> None:
    (missing,) = joined_rows(settings(), None)
    assert missing.level is Level.FAIL
    (lost,) = joined_rows(settings(), Unseen("it does not answer", "look at the cable"))
    assert (lost.level, lost.next) == (Level.FAIL, "look at the cable")
    (waiting,) = joined_rows(settings("worker"), None)
    assert waiting.level is Level.WARN
    (known,) = joined_rows(settings("worker"), Joined("spark-1"))
    assert known.value == "spark-1 has joined"


@pytest.mark.parametrize(
    ("rule", "level", "says"),
    [
        (Rule(KEPT, True), Level.OK, "answer 192.168.100.2 alone"),
        (Rule(KEPT, None), Level.OK, "as installed"),
        (Rule(KEPT, False), Level.WARN, "the kernel does not have it"),
        (Rule(None), Level.WARN, "answer whoever"),
        (Rule(checked("eth0", "192.168.100.2", (9001, 29501), (32768, 60999))), Level.FAIL, "eth0"),
        (Rule(checked("enp1s0f0np0", "10.0.0.9", (9001,), (32768, 60999))), Level.FAIL, "10.0.0.9"),
        (Rule(checked("enp1s0f0np0", "192.168.100.2", (9001,), (32768, 60999))), Level.WARN,
         "29501 are not closed"),
    ],
)  # fmt: skip
def test_the_ports_row_says_what_is_open_and_what_to_type(
    rule: Rule, level: Level, says: str
) -> None:
    row = ports_row(settings(), rule)
    assert row.level is level
    assert says in row.value
    if level is not Level.OK:
        assert row.next == "sudo appliance host install --cable enp1s0f0np0 --peer 192.168.100.2"


def test_a_worker_s_peer_is_its_head() -> None:
    assert "--peer 192.168.100.1" in ports_row(settings("worker"), Rule(None)).next


def test_a_port_within_the_kernel_s_range_is_closed_with_it() -> None:
    kept: Closed = checked("enp1s0f0np0", "192.168.100.2", (9001, 40000), (32768, 60999))
    assert kept.ports == (9001,)
    own = settings(APPLIANCE_CLUSTER_MASTER_PORT="40000")
    assert ports_row(own, Rule(kept, True)).level is Level.OK
