"""Fifty clients leave in each of the four windows, and the real engine is free within a second.

Two windows are held open for real: EngineCore is stopped by SIGSTOP, and each test asserts that
nothing had come before the clients left.
"""

import time

import pytest

from tests.appliances import LONG, ApplianceProcess, metric
from tests.e2e.crowd import Crowd, body_of, core_stopped, engine_load, generated
from tests.engines import EngineHandle, wait_until

pytestmark = pytest.mark.engine

CLIENTS = 50
FREE_WITHIN_S = 1.0
STREAM = {**LONG, "stream": True}


def places(appliance: ApplianceProcess) -> tuple[float, float]:
    """Return how many requests hold a place, and how many wait."""
    with appliance.http() as http:
        text = http.get("/metrics").text
    return metric(text, "appliance_requests_running"), metric(text, "appliance_requests_waiting")


def hang_ups(appliance: ApplianceProcess, window: str) -> float:
    """Return how many clients have left in a window."""
    with appliance.http() as http:
        return metric(http.get("/metrics").text, "appliance_hang_ups_total", window=window)


def crowd(appliance: ApplianceProcess, body: dict[str, object], count: int = CLIENTS) -> Crowd:
    """Send one request from each of ``count`` clients."""
    return Crowd(appliance.base_url, appliance.key("client"), body, count)


def assert_free(engine: EngineHandle, appliance: ApplianceProcess, left_at: float) -> None:
    """Assert that the engine holds nothing within a second, and computes for nobody."""
    wait_until(
        lambda: engine_load(engine) == 0 and places(appliance) == (0, 0),
        30,
        "engine and gate to be free",
    )
    took_s = time.monotonic() - left_at
    assert took_s < FREE_WITHIN_S, f"free only after {took_s:.2f} s"
    before = generated(engine)
    assert engine_load(engine) == 0
    assert generated(engine) == before


def test_clients_that_leave_the_queue_never_reach_the_engine(
    real_engine: EngineHandle, narrow: ApplianceProcess
) -> None:
    before = hang_ups(narrow, "queue")
    first = crowd(narrow, STREAM, count=1)
    first.until(b"data:")
    waiting = crowd(narrow, STREAM)
    wait_until(lambda: places(narrow) == (1, CLIENTS), 20, "fifty to wait behind one")
    assert waiting.replies() == [b""] * CLIENTS
    waiting.leave()
    left_at = time.monotonic()
    wait_until(lambda: places(narrow) == (1, 0), FREE_WITHIN_S, "the queue to be empty")
    assert engine_load(real_engine) == 1, "somebody of the queue got through"
    first.leave()
    assert_free(real_engine, narrow, max(left_at, time.monotonic()))
    assert hang_ups(narrow, "queue") == before + CLIENTS


def test_clients_that_leave_before_the_head_free_the_engine(
    real_engine: EngineHandle, wide: ApplianceProcess
) -> None:
    before = hang_ups(wide, "head")
    with core_stopped(real_engine):
        clients = crowd(wide, dict(LONG))  # not streamed: its head comes with its end
        wait_until(lambda: places(wide) == (CLIENTS, 0), 20, "fifty to be with the engine")
        assert clients.replies() == [b""] * CLIENTS, "a head had come already"
        clients.leave()
        wait_until(lambda: hang_ups(wide, "head") == before + CLIENTS, 20, "fifty to have left")
    assert_free(real_engine, wide, time.monotonic())


def test_clients_that_leave_in_a_silent_prefill_free_the_engine(
    real_engine: EngineHandle, wide: ApplianceProcess
) -> None:
    before = hang_ups(wide, "prefill")
    with core_stopped(real_engine):
        clients = crowd(wide, STREAM)
        clients.until(b"\r\n\r\n")
        assert [body_of(reply) for reply in clients.replies()] == [b""] * CLIENTS
        clients.leave()
        wait_until(lambda: hang_ups(wide, "prefill") == before + CLIENTS, 20, "fifty to have left")
    assert_free(real_engine, wide, time.monotonic())


def test_clients_that_leave_in_mid_stream_free_the_engine(
    real_engine: EngineHandle, wide: ApplianceProcess
) -> None:
    before = hang_ups(wide, "stream")
    clients = crowd(wide, STREAM)
    clients.until(b"data:")
    assert engine_load(real_engine) > 0
    assert not any(b"[DONE]" in reply for reply in clients.replies())
    clients.leave()
    assert_free(real_engine, wide, time.monotonic())
    assert hang_ups(wide, "stream") == before + CLIENTS
