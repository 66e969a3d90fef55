"""The comparison of two nodes: what breaks, what warns, and that it does not matter who asks."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.compare import Compared, NodesDiffer, Verdict, compare, refuse
from appliance.cluster.peer import NodeFacts

GIB = 2**30
NODE = NodeFacts(
    appliance_version="0.1.0",
    engine_version="0.33.0",
    patches=("0001-a", "0002-b"),
    checkpoint="ab" * 32,
    machine="aarch64",
    accelerator="NVIDIA GB10",
    driver="580.95.05",
    interface="enp1s0f0np0",
    mtu=9000,
    link_mbps=200_000,
    rdma_devices=("roceP2p1s0f0",),
    memory_total_bytes=121 * GIB,
    memory_available_bytes=110 * GIB,
    engine_settings=(("APPLIANCE_KV_CACHE_DTYPE", "fp8"), ("APPLIANCE_MAX_NUM_SEQS", "4")),
    round_trip_s=0.01,
)


def row_of(name: str, **changes: Any) -> Compared:
    rows = compare(NODE, msgspec.structs.replace(NODE, **changes))
    return next(row for row in rows if row.name == name)


def test_two_nodes_alike_have_nothing_to_do() -> None:
    rows = compare(NODE, NODE)
    assert {row.verdict for row in rows} == {Verdict.FINE}
    assert {row.next for row in rows} == {""}
    refuse(rows)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("appliance", {"appliance_version": "0.2.0"}),
        ("engine", {"engine_version": "0.32.0"}),
        ("patches", {"patches": ("0001-a",)}),
        ("checkpoint", {"checkpoint": "cd" * 32}),
        ("checkpoint", {"checkpoint": ""}),
        ("mtu", {"mtu": None}),
        ("APPLIANCE_KV_CACHE_DTYPE", {"engine_settings": (("APPLIANCE_MAX_NUM_SEQS", "4"),)}),
    ],
)
def test_what_breaks_the_engine_is_refused_with_both_values(
    name: str, changes: dict[str, Any]
) -> None:
    row = row_of(name, **changes)
    assert row.verdict is Verdict.BREAKS
    with pytest.raises(NodesDiffer) as error:
        refuse(compare(NODE, msgspec.structs.replace(NODE, **changes)))
    assert row.head in error.value.what
    assert row.worker in error.value.what
    assert row.next in error.value.hint


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("engine", {"engine_version": ""}),
        ("driver", {"driver": "575.10"}),
        ("accelerator", {"accelerator": "NVIDIA Thor"}),
        ("mtu", {"mtu": 1500}),
        ("link", {"link_mbps": 100_000}),
        ("rdma", {"rdma_devices": ()}),
        ("clock", {"clock_skew_s": 30.0}),
        ("clock", {"clock_skew_s": -30.0}),
        ("memory", {"memory_total_bytes": 60 * GIB}),
    ],
)
def test_what_may_hurt_warns_and_is_not_refused(name: str, changes: dict[str, Any]) -> None:
    row = row_of(name, **changes)
    assert row.verdict is Verdict.WARNS
    assert row.next
    refuse(compare(NODE, msgspec.structs.replace(NODE, **changes)))


def test_every_difference_that_breaks_is_told_at_once() -> None:
    other = msgspec.structs.replace(NODE, engine_version="0.32.0", checkpoint="cd" * 32)
    with pytest.raises(NodesDiffer, match=r"engine: .*checkpoint: "):
        refuse(compare(NODE, other))


def test_no_checkpoint_on_either_node_is_no_agreement() -> None:
    bare = msgspec.structs.replace(NODE, checkpoint="")
    with pytest.raises(NodesDiffer, match="checkpoint"):
        refuse(compare(bare, bare))


WORDS = st.sampled_from(["", "a", "b"])
FACTS = st.builds(
    NodeFacts,
    appliance_version=WORDS,
    engine_version=WORDS,
    patches=st.lists(st.sampled_from("abc"), unique=True, max_size=3).map(tuple),
    checkpoint=WORDS,
    machine=WORDS,
    accelerator=WORDS,
    driver=WORDS,
    interface=WORDS,
    mtu=st.sampled_from([None, 1500, 9000]),
    link_mbps=st.sampled_from([None, 1000, 200_000]),
    rdma_devices=st.lists(st.sampled_from("xyz"), unique=True, max_size=2).map(tuple),
    memory_total_bytes=st.integers(0, 2**40),
    engine_settings=st.dictionaries(st.sampled_from("pqr"), WORDS, max_size=3).map(
        lambda table: tuple(table.items())
    ),
    clock_skew_s=st.floats(-100, 100),
)


@given(FACTS, FACTS)
def test_it_does_not_matter_which_of_the_two_is_the_head(one: NodeFacts, other: NodeFacts) -> None:
    there = [(row.name, row.head, row.worker, row.verdict) for row in compare(one, other)]
    back = [(row.name, row.worker, row.head, row.verdict) for row in compare(other, one)]
    assert there == back


@given(FACTS, FACTS)
def test_what_is_not_fine_says_what_to_type(one: NodeFacts, other: NodeFacts) -> None:
    for row in compare(one, other):
        assert bool(row.next) == (row.verdict is not Verdict.FINE)
