"""Each way in which one of two boxes, or the cable, fails: seen, told, survived, nothing left."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from appliance import tree
from tests import engines
from tests.cluster.boxes import PATIENCE_S, TIMEOUT_S, Pair
from tests.engines import wait_until
from tests.fault.real import (
    GREET,
    LOAD_S,
    STREAM,
    TOKEN,
    Client,
    Transition,
    holds,
    survive,
)
from tests.fault.table import Faults

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(900)]

DETECT_S = 30.0
CUT_S = PATIENCE_S + TIMEOUT_S + 15.0


def fell(two: Pair, spawn: int, within_s: float) -> Transition:
    """Wait until a spawn is no more; return how."""
    return two.head.until(spawn, "backoff", "stopping", "failed", within_s=within_s)


def back(two: Pair) -> Transition:
    """Wait until an engine serves again; return when."""
    two.head.serving()
    return two.head.transitions[-1]


def has_ended(two: Pair, parts: set[int]) -> bool:
    return not any(tree.members(part) for part in parts)


def parts_of(two: Pair) -> set[int]:
    return {two.head.leader, two.worker.part()}


def idle_loss(
    two: Pair, faults: Faults, name: str, fault: Callable[[], None], codes: set[str]
) -> None:
    """Cause a fault while nobody asks for anything: no request must be needed to see it."""
    spawn = two.head.serving()
    parts = parts_of(two)
    began = time.time()
    fault()
    gone = fell(two, spawn, DETECT_S)
    waiting = Client(two.head, GREET)
    ready = back(two)
    waiting.until_end()
    assert waiting.is_whole, waiting.received[-500:]
    assert gone.reason in codes, gone
    assert has_ended(two, parts), engines.describe(set().union(*map(tree.members, parts)))
    seen = f"a stream that waits: keep-alives, and the answer after {waiting.answered_s:.0f} s"
    faults.row(name, gone.at - began, ready.at - began, seen)


# ---- a part that ends


def test_a_killed_worker_under_load_restarts_both(two: Pair, faults: Faults) -> None:
    two.head.serving()
    part = two.worker.part()
    survived = survive(two.head, lambda: os.kill(part, signal.SIGKILL))
    assert survived.fell.reason in {"worker_engine_killed", "engine_core_died"}, survived
    assert has_ended(two, {part})
    faults.row(
        "kill -9 of the worker's part, under load",
        survived.detected_s, survived.recovered_s, survived.clients,
    )  # fmt: skip


def test_a_killed_worker_is_missed_while_idle_too(two: Pair, faults: Faults) -> None:
    two.head.serving()
    part = two.worker.part()
    idle_loss(
        two, faults, "kill -9 of the worker's part, idle",
        lambda: os.kill(part, signal.SIGKILL), {"worker_engine_killed"},
    )  # fmt: skip


def test_a_worker_that_is_told_to_end_restarts_both(two: Pair, faults: Faults) -> None:
    two.head.serving()
    part = two.worker.part()
    survived = survive(two.head, lambda: os.kill(part, signal.SIGTERM), detect_s=60)
    assert has_ended(two, {part})
    faults.row(
        "SIGTERM of the worker's part, under load",
        survived.detected_s, survived.recovered_s, survived.clients,
    )  # fmt: skip


def test_a_killed_head_takes_the_worker_with_it(two: Pair, faults: Faults) -> None:
    two.head.serving()
    part = two.worker.part()
    head = two.head.leader
    survived = survive(two.head, lambda: os.kill(head, signal.SIGKILL))
    assert survived.fell.reason == "engine_killed", survived
    assert has_ended(two, {part, head})
    faults.row(
        "kill -9 of the head's part, under load",
        survived.detected_s, survived.recovered_s, survived.clients,
    )  # fmt: skip


# ---- the worker's appliance


def test_a_killed_worker_appliance_is_waited_for(two: Pair, faults: Faults) -> None:
    spawn = two.head.serving()
    parts = parts_of(two)
    began = time.time()
    two.worker.kill()
    gone = fell(two, spawn, DETECT_S + PATIENCE_S)
    assert gone.reason == "worker_lost", gone
    wait_until(lambda: two.head.transitions[-1].reason == "peer_lost", 30, "the head to wait")
    two.worker.start()
    ready = back(two)
    assert has_ended(two, parts), "the orphan of the killed appliance lives"
    faults.row(
        "kill -9 of the worker's appliance, idle, started again",
        gone.at - began, ready.at - began, "nobody asked",
    )  # fmt: skip


# ---- the cable


def test_a_cut_cable_under_load_ends_both_and_is_waited_for(two: Pair, faults: Faults) -> None:
    spawn = two.head.serving()
    parts = parts_of(two)
    running = Client(two.head, STREAM)
    running.until(TOKEN)
    began = time.time()
    two.wires.cut()
    gone = fell(two, spawn, CUT_S)
    running.until_end()
    assert running.is_broken or b'"error"' in running.received, running.received[-500:]
    saw = "broken off, no [DONE]" if running.is_broken else "an error event"
    wait_until(lambda: has_ended(two, parts), 60, "both parts to end on their own")
    holds(lambda: not two.worker.leaders(), 3.0, "no new part on the worker")
    wait_until(lambda: two.head.transitions[-1].reason == "peer_lost", 30, "the head to wait")
    two.wires.mend()
    mended = time.time()
    ready = back(two)
    faults.row(
        "the cable cut under load, mended once both had ended",
        gone.at - began, ready.at - mended, f"a running stream: {saw}",
    )  # fmt: skip


def test_a_cut_cable_is_missed_while_idle_too(two: Pair, faults: Faults) -> None:
    spawn = two.head.serving()
    parts = parts_of(two)
    began = time.time()
    two.wires.cut()
    gone = fell(two, spawn, CUT_S)
    assert gone.reason == "worker_lost", gone
    wait_until(lambda: has_ended(two, parts), 60, "both parts to end on their own")
    two.wires.mend()
    mended = time.time()
    ready = back(two)
    faults.row("the cable cut while idle", gone.at - began, ready.at - mended, "nobody asked")


def test_a_blip_of_the_cable_is_survived(two: Pair, faults: Faults) -> None:
    spawn = two.head.serving()
    running = Client(two.head, STREAM)
    running.until(TOKEN)
    two.wires.cut()
    holds(lambda: two.head.serving() == spawn, 5.0, "the engine serves on")
    two.wires.mend()
    running.until_more(within_s=TIMEOUT_S)
    running.until_end(within_s=LOAD_S)
    assert running.is_whole, running.received[-500:]
    assert two.head.serving() == spawn
    faults.row("the cable out for 5 s, under load", None, None, "a pause of about 5 s, no more")


def test_a_cable_that_carries_orders_and_no_work_is_seen_by_a_generation(
    two: Pair, faults: Faults
) -> None:
    spawn = two.head.serving()
    began = time.time()
    with two.wires.without_work():
        with two.head.appliance.http() as client:
            assert client.get("/health").status_code == 200
        gone = fell(two, spawn, 5 + TIMEOUT_S + DETECT_S)
    mended = time.time()
    ready = back(two)
    assert gone.reason not in ("worker_lost", "ready"), gone
    faults.row(
        "the engine's own ports cut while idle, the orders' not",
        gone.at - began, ready.at - mended, "nobody asked; a probe of one token found it",
    )  # fmt: skip
