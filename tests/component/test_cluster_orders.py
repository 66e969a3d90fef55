"""Orders from a head to a worker, over TLS, and a plain child at the end of them."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from appliance.cluster.nodeclient import NodeClient
from appliance.cluster.peer import Alive, Exited, Idle, OrderRefused, PeerError, PeerLost
from tests.nodes import KEY, an_order, is_alive, worker


async def test_a_child_is_spawned_by_order_and_stopped_by_order(tmp_path: Path) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known()) as peer:
        assert await peer.state() == Idle()
        await peer.spawn(an_order(1))
        state = await peer.state()
        assert isinstance(state, Alive)
        assert is_alive(state.pid)
        await peer.stop(1, grace_s=5)
        assert not is_alive(state.pid)
        assert isinstance(await peer.state(), Exited)
    assert box.engine.orders == [an_order(1)]


async def test_a_second_spawn_is_refused_while_a_child_lives(tmp_path: Path) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known()) as peer:
        await peer.spawn(an_order(1))
        with pytest.raises(OrderRefused, match="still lives") as refused:
            await peer.spawn(an_order(2))
        assert refused.value.code == "child_alive"
        assert len(box.engine.orders) == 1


async def test_an_order_that_the_worker_s_settings_do_not_agree_to_is_refused(
    tmp_path: Path,
) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known()) as peer:
        for change, code in (
            ({"master_addr": "10.66.6.6"}, "other_head_address"),
            ({"tensor_parallel_size": 4}, "other_parallel_size"),
            ({"master_port": 29502}, "other_master_port"),
        ):
            with pytest.raises(OrderRefused) as refused:
                await peer.spawn(msgspec.structs.replace(an_order(), **change))
            assert refused.value.code == code
        assert box.engine.orders == []


async def test_a_stop_of_another_spawn_stops_nothing(tmp_path: Path) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known()) as peer:
        await peer.stop(1, grace_s=0)  # none runs: that is what was wanted
        await peer.spawn(an_order(5))
        with pytest.raises(OrderRefused, match="spawn 5, not 4"):
            await peer.stop(4, grace_s=0)
        assert isinstance(await peer.state(), Alive)


async def test_who_watches_sees_each_change_once(tmp_path: Path) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known()) as peer:
        watch = peer.watch()
        assert await anext(watch) == Idle()
        coming = asyncio.ensure_future(anext(watch))
        await peer.spawn(an_order())
        assert isinstance(await coming, Alive)
        await box.engine.die()
        assert isinstance(await anext(watch), Exited)


async def test_another_key_is_refused_and_orders_nothing(tmp_path: Path) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known("6b" * 32)) as peer:
        for ask in (peer.state(), peer.facts(), peer.spawn(an_order()), peer.stop(1, grace_s=0)):
            with pytest.raises(PeerError) as refused:
                await ask
            assert refused.value.code == "wrong_cluster_key"
            assert KEY not in str(refused.value)
        assert box.engine.orders == []


async def test_another_certificate_is_no_worker_and_hears_no_key(tmp_path: Path) -> None:
    async with worker(tmp_path / "a") as box, worker(tmp_path / "b") as other:
        known = msgspec.structs.replace(box.known(), address=other.address)
        async with NodeClient(known) as peer:
            with pytest.raises(PeerError) as refused:
                await peer.state()
            assert refused.value.code == "other_certificate"


async def test_a_worker_that_is_gone_is_lost_to_who_watches(tmp_path: Path) -> None:
    async with worker(tmp_path) as box:
        known = box.known()
    async with NodeClient(known, patience_s=0.0) as peer:
        with pytest.raises(PeerLost, match="does not answer"):
            await anext(peer.watch())


async def test_a_child_does_not_outlive_its_head(tmp_path: Path) -> None:
    async with worker(tmp_path, lease_s=0.2) as box:
        async with NodeClient(box.known()) as peer:
            await peer.spawn(an_order())
        async with NodeClient(box.known()) as anew:  # it looks, but did not order this child
            exited = await _exited(anew)
        assert exited.diagnosis.code == "head_lost"


async def _exited(peer: NodeClient) -> Exited:
    watch = peer.watch()
    while True:
        if isinstance(state := await anext(watch), Exited):
            return state


async def test_a_worker_that_ends_leaves_no_child(tmp_path: Path) -> None:
    async with worker(tmp_path) as box, NodeClient(box.known()) as peer:
        await peer.spawn(an_order())
        state = await peer.state()
        assert isinstance(state, Alive)
    assert not is_alive(state.pid)
